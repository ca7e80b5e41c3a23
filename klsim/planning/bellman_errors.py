r"""Average and squared Bellman errors of candidate Q-functions, finite horizon.

``(T_h f_{h+1})(s, a) = r_h + E max_a' f_{h+1}(s', a')``, ``f_{H+1} = 0``. One successor a sample is enough for a
weighted average error,

.. math:: E[w(s,a)(f - r - \max f(s'))] = E[w\,(f - Tf)],

but not for a squared one, which adds the noise of the target:

.. math:: E[(f - r - \max f(s'))^2] = E[(f - Tf)^2] + E[\mathrm{Var}_{s'}(\max_{a'} f(s', a'))].

For the greedy policy of f, ``E[max_a f_1] - J(pi_f) = sum_h E_{d^{pi_f}_h}[f_h - T_h f_{h+1}]`` (Jiang et al. 2017).

Source: ``glow`` C4, C5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP

__all__ = ["bellman_errors", "squared_td_loss", "target_variance", "weighted_bellman_loss"]


def _targets(problem: Any, q_value: Any) -> tuple[TabularMDP, np.ndarray, np.ndarray]:
    """The dense problem, ``f (..., H, S, A)``, and ``max_a f_{h+1}`` of every step, ``(..., H, S)``."""
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    (values,) = _validate.numpy_arrays(q_value=q_value)
    if values.shape[-3:] != problem.shape:
        wanted = ", ".join(map(str, problem.shape))
        _validate.fail("q_value", f"must have shape (..., {wanted}), got {values.shape}")
    _validate.finite("q_value", np, values)
    index = _validate.first_true(np, np.abs(values) > 1e100)
    if index is not None:
        _validate.fail("q_value", "must be at most 1e100 in size", float(values[index]), index)
    best = np.where(problem.actions, values, -np.inf).max(axis=-1)
    following = np.concatenate([best[..., 1:, :], np.zeros_like(best[..., :1, :])], axis=-2)
    return problem, values, following


def bellman_errors(problem: TabularMDP, q_value: Any) -> np.ndarray:
    """``f_h - T_h f_{h+1}``, ``(..., H, S, A)``; the maximum in T over legal actions.

    Args:
        q_value: f, ``(..., H, S, A)``.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: a wrong shape, values that are not finite (or above 1e100).
    """
    problem, values, following = _targets(problem, q_value)
    return np.asarray(values - problem.reward - np.einsum("hsat,...ht->...hsa", problem.transition, following))


def target_variance(problem: TabularMDP, q_value: Any) -> np.ndarray:
    """``Var_{s'}(max_a' f_{h+1}(s', a'))``, ``(..., H, S, A)``: the noise of the target, rewards being certain.

    Raises:
        as `bellman_errors`.
    """
    problem, _, following = _targets(problem, q_value)
    mean = np.einsum("hsat,...ht->...hsa", problem.transition, following)
    off = following[..., :, None, None, :] - mean[..., None]
    return np.asarray(np.einsum("hsat,...hsat->...hsa", problem.transition, off**2))


def squared_td_loss(problem: TabularMDP, q_value: Any, law: Any) -> np.ndarray:
    """``sum_h E_mu[(f - r - max f(s'))^2]`` in expectation over single successors, ``(...)``.

    Args:
        law: mu, non-negative ``(H, S, A)``.

    Raises:
        as `bellman_errors`; a law of another shape, or negative.
    """
    law = _weights("law", law, problem)
    squared = bellman_errors(problem, q_value) ** 2 + target_variance(problem, q_value)
    return np.asarray(np.sum(law * squared, axis=(-3, -2, -1)))


def weighted_bellman_loss(problem: TabularMDP, q_value: Any, law: Any, weights: Any) -> np.ndarray:
    """``sum_h max_{w in W_h} |E_mu[w (f - T f)]|``, ``(...)``.

    Args:
        law: mu, ``(H, S, A)``. weights: the class, ``(M, H, S, A)``; W_h are its h-th layers.

    Raises:
        as `squared_td_loss`; weights of another shape.
    """
    law = _weights("law", law, problem)
    (classed,) = _validate.numpy_arrays(weights=weights)
    if classed.ndim != 4 or classed.shape[1:] != problem.shape or not len(classed):
        _validate.fail("weights", f"must have shape (M, {', '.join(map(str, problem.shape))}), got {classed.shape}")
    _validate.finite("weights", np, classed)
    errors = bellman_errors(problem, q_value)
    averages = np.einsum("hsa,mhsa,...hsa->...mh", law, classed, errors)
    return np.asarray(np.abs(averages).max(axis=-2).sum(axis=-1))


def _weights(name: str, value: Any, problem: Any) -> np.ndarray:
    _validate.instance("problem", problem, TabularMDP)
    (law,) = _validate.numpy_arrays(**{name: value})
    if law.shape != problem.shape:
        _validate.fail(name, f"must have shape {problem.shape}, got {law.shape}")
    index = _validate.first_true(np, ~(np.isfinite(law) & (law >= 0)))
    if index is not None:
        _validate.fail(name, "must be finite and >= 0", float(law[index]), index)
    return law
