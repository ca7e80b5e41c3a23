r"""State aggregation: the model that a learner has which sees only a label of the state.

States with the same label are one; the law of states inside a label is that of the data, ``rho(s | o)``:

.. math:: \hat P(o'|o, a) = \sum_s \rho(s|o) \sum_{s': o(s') = o'} P(s'|s, a), \qquad
          \hat r(o, a) = \sum_s \rho(s|o)\, r(s, a).

A function of labels alone that is fitted to ``r(s)`` in the mean square under ``rho`` is ``E_rho[r | o]``
(`label_means`), and ``E_rho[r(s) B(o(s))]`` depends on ``r`` only through it.

Source: Bertsekas & Castañon (1989), hard aggregation; ``zero-shot-rl`` C7.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.successor_measures import state_law
from klsim.problems import DiscountedMDP

__all__ = ["aggregated_mdp", "label_means"]


def _membership(labels: Any, rho: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels ``(S,)``, 0/1 membership ``(S, O)``, and ``rho(s|o)`` ``(S, O)``."""
    labels = _validate.integers("labels", labels, low=0)
    if labels.ndim != 1 or labels.size == 0:
        _validate.fail("labels", f"must be (S,), got shape {labels.shape}")
    used = np.unique(labels)
    if used[-1] != len(used) - 1:
        _validate.fail("labels", f"must use every label 0 ... {int(used[-1])}")
    law = state_law(rho, labels.size)
    if law.ndim != 1:
        _validate.fail("rho", f"must be ({labels.size},), got shape {law.shape}")
    member = np.eye(len(used))[labels]
    return labels, member, law[:, None] * member / (law @ member)


def label_means(values: Any, labels: Any, rho: Any) -> np.ndarray:
    """``E_rho[values | label]`` at every state, ``(..., S)``.

    Args:
        values: ``(..., S)``. labels: integers ``0 ... O-1``, each used, ``(S,)``. rho: law of states, > 0, ``(S,)``.

    Raises:
        ValueError: shapes, a label that no state has, a law with zeros, values that are not finite.
    """
    labels, _, inside = _membership(labels, rho)
    (values,) = _validate.numpy_arrays(values=values)
    _validate.finite("values", np, values)
    if values.ndim == 0 or values.shape[-1] != labels.size:
        _validate.fail("values", f"must be (..., {labels.size}), got shape {values.shape}")
    return np.asarray((values @ inside)[..., labels])


def aggregated_mdp(problem: DiscountedMDP, labels: Any, rho: Any) -> DiscountedMDP:
    """The problem on labels, with states inside a label drawn from ``rho(s | o)``.

    Args:
        labels: integers ``0 ... O-1``, each used, ``(S,)``. rho: law of states, > 0, ``(S,)``.

    Raises:
        TypeError: not a `DiscountedMDP`. ValueError: as `label_means`; illegal actions.
    """
    _validate.instance("problem", problem, DiscountedMDP)
    problem = problem.dense()
    labels, member, inside = _membership(labels, rho)
    if labels.size != problem.shape[0]:
        _validate.fail("labels", f"must be ({problem.shape[0]},), got shape {labels.shape}")
    if not np.all(problem.actions):
        _validate.fail("problem", "aggregation needs every action to be legal everywhere")
    moves = np.einsum("so,sat,tx->oax", inside, problem.transition, member)
    return DiscountedMDP(moves, inside.T @ problem.reward, problem.discount, problem.initial @ member)
