r"""Two value heads under a soft minimum: its weights, how pessimistic it is, and what regression makes of it.

.. math:: V_{soft} = -\alpha\log\tfrac12(e^{-V_1/\alpha} + e^{-V_2/\alpha})
    = \tfrac{V_1+V_2}2 - \alpha\log\cosh\tfrac{V_1-V_2}{2\alpha}

(`klsim.objectives.soft_min`). Heads with independent errors are pessimistic by `pessimism`. Heads that share *one* loss
on ``V_soft`` are not: the gradients in the two biases add up to ``mean l'(V_soft - target)``, which is 0 at the end of
the training (`fit_joint`); the heads spread about the target instead. Pessimism needs a loss a head and data that
differ (`fit_separate`).

Source: ``safe`` C1, C2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.objectives.stabilizers import soft_min

__all__ = ["fit_joint", "fit_separate", "joint_loss", "pessimism", "soft_min_weights"]

_NODES = 200


def _alpha(alpha: float) -> float:
    return _validate.real("alpha", alpha, low=0.0, high=1e100, open_low=True)


def soft_min_weights(values: Any, alpha: float = 0.3) -> np.ndarray:
    """The gradient of `soft_min` in the values: ``softmax(-V/alpha)``, ``(..., n)``, summing to 1."""
    alpha = _alpha(alpha)
    (values,) = _validate.numpy_arrays(values=values)
    _validate.finite("values", np, values)
    if values.ndim == 0 or values.shape[-1] == 0:
        _validate.fail("values", f"needs a non-empty last axis, got shape {values.shape}")
    with np.errstate(over="ignore"):
        weights = np.exp(-(values - values.min(axis=-1, keepdims=True)) / alpha)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def pessimism(deviation: Any, alpha: Any = 0.3) -> np.ndarray:
    r"""``E[V_soft] - V`` of two heads with independent errors N(0, deviation^2), ``<= 0``, broadcast.

    ``-alpha E log cosh(d / 2 alpha)``, ``d ~ N(0, 2 s^2)``: about ``-s^2 / 4 alpha`` for ``s << alpha``, and
    ``-s / sqrt(pi)`` for ``alpha -> 0`` (by Gauss-Legendre, to about 1e-12 of it).
    """
    deviation, alpha = _validate.numpy_arrays(deviation=deviation, alpha=alpha)
    for name, x in (("deviation", deviation), ("alpha", alpha)):
        index = _validate.first_true(np, ~((x >= 0) & (x <= 1e100)))
        if index is not None:
            _validate.fail(name, "must be between 0 and 1e100", float(x[index]), index)
    _validate.positive("alpha", np, alpha)
    s, a = np.broadcast_arrays(deviation[..., None], alpha[..., None])
    with np.errstate(over="ignore"):
        slope = np.minimum(math.sqrt(2.0) * s / a, 1e150)  # |d| / alpha = slope |z|
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    reach = np.minimum(10.0, 40.0 / np.maximum(slope, 4.0))
    z = reach * (nodes + 1) / 2
    # log cosh(x) = x - log 2 + log1p(e^{-2x}); where x is small all of it cancels, so the integrand is taken whole
    x = slope * z / 2
    direct = np.where(x < 1e-4, x * x / 2, x - math.log(2.0) + np.log1p(np.exp(-2 * x)))
    law = 2 * np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * reach * weights / 2
    whole = np.sum(direct * law, axis=-1)
    # with a steep slope only the bend lies within reach; the straight part has a closed form
    bend = np.sum(np.log1p(np.exp(-2 * x)) * law, axis=-1)
    steep = a[..., 0] * (math.log(2.0) - bend) - s[..., 0] / math.sqrt(math.pi)
    return np.asarray(np.where(slope[..., 0] > 4.0, steep, -a[..., 0] * whole))


def joint_loss(values: Any, target: Any, alpha: float = 0.3, *, huber: float = math.inf) -> tuple[float, np.ndarray]:
    """Mean loss of ``V_soft - target`` and its gradient in the heads, ``(n, 2)``.

    Args:
        values: the heads, ``(n, 2)``. target: ``(n,)``.
        huber: residuals beyond it count linearly: ``d^2/2`` inside, ``huber (|d| - huber/2)`` outside.

    The rows of the gradient sum to ``l'(V_soft - target) / n``, ``l'(d) = clip(d, ±huber)``.
    """
    huber = _validate.real("huber", huber, low=0.0, open_low=True)
    values, target = _validate.numpy_arrays(values=values, target=target)
    if values.ndim != 2 or target.shape != values.shape[:1]:
        _validate.fail("target", f"must have shape {values.shape[:1]}, one a row of values, got {target.shape}")
    _validate.finite("target", np, target)
    gap = np.asarray(soft_min(values, alpha)) - target
    slope = np.clip(gap, -huber, huber)
    loss = slope * (gap - slope / 2)
    return float(np.mean(loss)), slope[:, None] * soft_min_weights(values, alpha) / len(target)


def _problem(features: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    features, target = _validate.numpy_arrays(features=features, target=target)
    if features.ndim != 2 or target.shape != features.shape[:1]:
        _validate.fail("target", f"must have one entry a row of features {features.shape}, got {target.shape}")
    _validate.finite("features", np, features)
    _validate.finite("target", np, target)
    return features, target


def fit_joint(
    features: Any, target: Any, start: Any, alpha: float = 0.3, *, huber: float = math.inf, tol: float = 1e-7
) -> np.ndarray:
    """Linear heads ``(p, 2)`` that are stationary for `joint_loss` of ``features @ heads``, by L-BFGS from ``start``.

    Equal heads stay equal: start from different ones. Add a column of ones for a bias.

    Raises:
        ValueError: shapes; no stationary point to ten times ``tol`` (largest entry of the gradient).
    """
    from scipy.optimize import minimize

    features, target = _problem(features, target)
    (start,) = _validate.numpy_arrays(start=start)
    if start.shape != (features.shape[1], 2):
        _validate.fail("start", f"must have shape {(features.shape[1], 2)}, got {start.shape}")
    tol = _validate.real("tol", tol, low=0.0, open_low=True)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = joint_loss(features @ flat.reshape(-1, 2), target, alpha, huber=huber)
        return value, (features.T @ gradient).ravel()

    x, worst = start.ravel().astype(np.float64), math.inf
    options = {"gtol": tol, "ftol": 0.0, "maxiter": 1000, "maxcor": 30}
    for _ in range(20):  # a fresh start forgets curvature from the other side of a kink
        x = minimize(loss, x, jac=True, method="L-BFGS-B", options=options).x
        worst = float(np.abs(loss(x)[1]).max())
        if worst <= tol:
            break
    if worst > 10 * tol:
        _validate.fail("start", f"leads to no stationary point: the gradient stops at {worst:.2g}")
    return np.asarray(x.reshape(-1, 2))


def fit_separate(features: Any, target: Any, rows: Any) -> np.ndarray:
    """Linear heads ``(p, k)``, head j by least squares on the rows ``rows[j]`` alone (a resample, say)."""
    features, target = _problem(features, target)
    chosen = _validate.integers("rows", rows, low=0, high=len(target) - 1)
    if chosen.ndim != 2:
        _validate.fail("rows", f"must hold one row of indices a head, got shape {chosen.shape}")
    heads = [np.linalg.lstsq(features[r], target[r], rcond=None)[0] for r in chosen]
    return np.asarray(np.stack(heads, axis=-1))
