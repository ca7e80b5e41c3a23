r"""Fitted Q iteration with linear values, against least squares on observed returns.

.. math:: \theta_{k+1} = \mathrm{argmin}_\theta \sum_i w_i \Big(\theta^T\phi_i - r_i
          - \gamma \max_{a'} \theta_k^T\phi'_{i,a'}\Big)^2

If the class is closed under the Bellman operator this is value iteration, a contraction by gamma; if it only contains
``Q*`` the projected operator may expand. Least squares on returns has no bootstrap: one solution, at once.

Source: ``mbrcsl`` C2; the two-state instance is that of Tsitsiklis and Van Roy (1996).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate

__all__ = ["fitted_q_iterates", "least_squares_values"]


def _regression(features: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(n, d)`` of full column rank under the weights ``(n,)``."""
    features, weights = _validate.numpy_arrays(features=features, weights=weights)
    if features.ndim != 2 or 0 in features.shape:
        _validate.fail("features", f"must be (n, d), none of them 0, got {features.shape}")
    if weights.shape != features.shape[:1]:
        _validate.fail("weights", f"must have shape {features.shape[:1]}, got {weights.shape}")
    _validate.finite("features", np, features)
    _validate.budgets("weights", np, _validate.finite("weights", np, weights))
    with np.errstate(over="ignore"):
        scaled = np.sqrt(weights)[:, None] * features
    if not np.isfinite(scaled).all() or np.linalg.matrix_rank(scaled) < features.shape[1]:
        _validate.fail("features", "must be linearly independent where the weights are positive, and not overflow")
    return features, weights


def _solver(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The matrix ``(d, n)`` that takes targets to the weighted least-squares solution."""
    root = np.sqrt(weights)
    return np.asarray(np.linalg.pinv(root[:, None] * features) * root)


def least_squares_values(features: Any, returns: Any, weights: Any) -> np.ndarray:
    """``argmin sum_i w_i (theta^T phi_i - g_i)^2``, ``(d,)``: values from observed returns.

    Args:
        features: ``(n, d)``, linearly independent under the weights. returns: ``(n,)``. weights: ``(n,)``, at least 0.

    Raises:
        ValueError: shapes, NaN, negative weights, dependent features, a result that overflows.
    """
    features, weights = _regression(features, weights)
    (returns,) = _validate.numpy_arrays(returns=returns)
    if returns.shape != weights.shape:
        _validate.fail("returns", f"must have shape {weights.shape}, got {returns.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        theta = _solver(features, weights) @ _validate.finite("returns", np, returns)
    _validate.representable("returns", np, theta)
    return np.asarray(theta)


def fitted_q_iterates(
    features: Any, next_features: Any, rewards: Any, weights: Any, *, gamma: float, start: Any, iterations: int
) -> np.ndarray:
    """``theta_0 ... theta_K`` of fitted Q iteration, ``(K + 1, d)``.

    Args:
        features: ``(n, d)`` of the pairs that were seen, linearly independent under the weights.
        next_features: ``(n, A, d)`` of every action at the next state. rewards: ``(n,)``. weights: ``(n,)``, >= 0.
        gamma: discount in [0, 1]. start: ``theta_0 (d,)``. iterations: K >= 0.

    Raises:
        ValueError: shapes, NaN, negative weights, dependent features, iterates that overflow.
    """
    features, weights = _regression(features, weights)
    ahead, rewards, start = _validate.numpy_arrays(next_features=next_features, rewards=rewards, start=start)
    count, width = features.shape
    if ahead.ndim != 3 or ahead.shape[::2] != (count, width) or not ahead.shape[1]:
        _validate.fail("next_features", f"must have shape ({count}, A, {width}), got {ahead.shape}")
    for name, value, shape in (("rewards", rewards, (count,)), ("start", start, (width,))):
        if value.shape != shape:
            _validate.fail(name, f"must have shape {shape}, got {value.shape}")
        _validate.finite(name, np, value)
    _validate.finite("next_features", np, ahead)
    gamma, iterations = _validate.probability("gamma", gamma), _validate.integer("iterations", iterations, low=0)
    _validate.fits("iterations", iterations, float(iterations) * width)
    solve, out = _solver(features, weights), np.empty((iterations + 1, width))
    out[0] = start
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(iterations):
            out[k + 1] = solve @ (rewards + gamma * (ahead @ out[k]).max(axis=1))
    _validate.representable("iterations", np, out)
    return out
