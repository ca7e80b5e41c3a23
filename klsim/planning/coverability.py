r"""Coverability: how well one law can cover what every policy visits.

.. math:: C_{cov} = \inf_{\mu_1 \dots \mu_H} \max_h \sup_\pi \|d^\pi_h / \mu_h\|_\infty
          = \max_h \sum_{s,a} \sup_\pi d^\pi_h(s, a),

attained by ``mu_h(s, a)`` proportional to ``sup_pi d^pi_h(s, a)``. For all policies the supremum is
``sup_pi P^pi(s_h = s)`` at every legal action: a reachability problem for every state and step. It is at least the
number of actions (where all are legal) and at most S A; emissions that reveal a latent state do not change it.

Source: Xie et al. 2023 (arXiv 2210.04157); ``glow`` C1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP

__all__ = [
    "Coverability",
    "class_coverability",
    "concentrability",
    "coverability",
    "occupancies",
    "reach_probabilities",
]


@dataclass(frozen=True)
class Coverability:
    """How well the policies of a problem (or a class) can be covered.

    Attributes:
        value: the largest of ``layers``. layers: ``sum_{s,a} sup_pi d^pi_h(s, a)`` of every step, ``(H,)``.
        covering: the laws ``mu_h`` that attain them, ``(H, S, A)``, each step summing to 1.
    """

    value: float
    layers: np.ndarray
    covering: np.ndarray

    @classmethod
    def of(cls, envelope: np.ndarray) -> Coverability:
        """From ``sup_pi d^pi_h(s, a)``, ``(H, S, A)``."""
        layers = envelope.sum(axis=(1, 2))
        return cls(float(layers.max()), layers, envelope / layers[:, None, None])


def reach_probabilities(problem: TabularMDP) -> np.ndarray:
    """``max_pi P^pi(s_h = s)``, ``(H, S)``, by backward induction for all targets at once: ``O(H^2 S^3 A)``.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: too large for one array.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    assert problem.actions is not None
    _validate.fits("problem", states, float(horizon) * states**2 * actions)
    illegal = np.where(problem.actions, 0.0, -np.inf)[..., None]
    targets = np.empty((states, 0))  # the values of "being in s at h", of all h after the step at hand
    for t in range(horizon - 2, -1, -1):
        targets = np.concatenate([np.eye(states), targets], axis=1)
        ahead = problem.transition[t].reshape(-1, states) @ targets
        targets = np.max(ahead.reshape(states, actions, -1) + illegal, axis=1)
    later = (problem.initial @ targets).reshape(horizon - 1, states)
    return np.asarray(np.minimum(np.concatenate([problem.initial[None], later]), 1.0))


def coverability(problem: TabularMDP) -> Coverability:
    """Coverability of the class of all policies.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: too large for one array.
    """
    _validate.instance("problem", problem, TabularMDP)
    return Coverability.of(reach_probabilities(problem)[..., None] * problem.actions)


def class_coverability(laws: Any) -> Coverability:
    """Coverability of a finite class of policies, from their occupancies ``(N, H, S, A)``.

    Raises:
        ValueError: a wrong shape; a step of a policy that is not a distribution.
    """
    return Coverability.of(_laws("laws", laws, 4).max(axis=0))


def concentrability(laws: Any, covering: Any) -> np.ndarray:
    """``max_pi ||d^pi_h / mu_h||_inf`` of every step, ``(H,)``; ``inf`` where a policy goes and ``mu`` has no mass.

    Args:
        laws: occupancies ``(N, H, S, A)``. covering: ``mu``, ``(H, S, A)``, each step summing to 1.

    Raises:
        ValueError: wrong shapes; a step that is not a distribution.
    """
    visited, mu = _laws("laws", laws, 4).max(axis=0), _laws("covering", covering, 3)
    if visited.shape != mu.shape:
        _validate.fail("covering", f"must have shape {visited.shape}, got {mu.shape}")
    with np.errstate(divide="ignore", over="ignore"):
        ratio = np.where(visited > 0, visited / np.where(visited > 0, mu, 1.0), 0.0)
    return np.asarray(ratio.max(axis=(1, 2)))


def occupancies(problem: TabularMDP, log_policies: Any) -> np.ndarray:
    """Occupancies ``(..., H, S, A)`` of many policies ``(..., H, S, A)`` at once; `occupancy` is that of one.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: a wrong shape, rows that are not distributions, an illegal action.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    (given,) = _validate.numpy_arrays(log_policies=log_policies)
    if given.shape[-3:] != problem.shape:
        _validate.fail("log_policies", f"must have shape (..., {horizon}, {states}, {actions}), got {given.shape}")
    _validate.log_probs("log_policies", np, given)
    assert problem.actions is not None
    index = _validate.first_true(np, (given > -np.inf) & ~problem.actions)
    if index is not None:
        _validate.fail("log_policies", "has mass on an illegal action", float(given[index]), index)
    policies = np.exp(given)
    out = np.empty(given.shape)
    at = np.broadcast_to(problem.initial, (*given.shape[:-3], states))
    for t in range(horizon):
        out[..., t, :, :] = at[..., None] * policies[..., t, :, :]
        flat = out[..., t, :, :].reshape(*given.shape[:-3], states * actions)
        at = flat @ problem.transition[t].reshape(states * actions, states)
    return out


def _laws(name: str, value: Any, ndim: int) -> np.ndarray:
    """Distributions over the last two axes, ``(…, H, S, A)``."""
    (laws,) = _validate.numpy_arrays(**{name: value})
    if laws.ndim != ndim or 0 in laws.shape:
        wanted = "(N, H, S, A)" if ndim == 4 else "(H, S, A)"
        _validate.fail(name, f"must have shape {wanted}, none of them 0, got {laws.shape}")
    index = _validate.first_true(np, ~(np.isfinite(laws) & (laws >= 0)))
    if index is not None:
        _validate.fail(name, "must be finite and >= 0", float(laws[index]), index)
    off = np.abs(laws.sum(axis=(-2, -1)) - 1)
    index = _validate.first_true(np, off > _validate.normalisation_tolerance(np, laws.dtype))
    if index is not None:
        _validate.fail(name, "every step must sum to 1", float(laws[index].sum()), index)
    return laws
