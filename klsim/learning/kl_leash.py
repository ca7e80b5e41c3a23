r"""How far a policy, and its weights, move when one step is bounded in KL.

* A policy is fitted to a target q by minimising ``KL(q || pi)`` over a class. For log-linear classes
  ``pi_t(y) ~ exp(f(y).t)`` the fit ``pi+`` matches the target's mean features, and Pythagoras' theorem holds for every
  other member: ``KL(q || pi) = KL(q || pi+) + KL(pi+ || pi)`` (`m_projection`).
* Along a change D of log-linear weights the curvature of the log-partition falls no faster than ``e^{-st}``, s the
  spread (largest minus smallest) of ``f(y).D``. Hence ``D'FD <= 2 K g(s)`` with ``K = KL(pi_{t+D} || pi_t)`` and
  ``g(s) = s^2 / (2 (1 - (1 + s) e^{-s})) = 1 + 2s/3 + ...`` (`leash_factor`): the quadratic approximation with its
  error, at any size of the step.
* Of the quadratic form ``D'FD`` the part that a block W of the weights cannot hand to the others is that of the Schur
  complement (`block_fisher`): ``dW' S dW <= D'FD``, with equality if the others compensate.
* Probability ratios inside ``[1 - a, 1 + b]`` everywhere bound ``KL(new || old)`` by that of a two-point law
  (`ratio_leash`).

Source: ``path-not-taken`` C1-C3; the exact forms are derived there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize

__all__ = ["block_fisher", "leash_factor", "log_linear_fisher", "log_linear_policy", "m_projection", "ratio_leash"]

_STEPS = 200


def _features(features: Any) -> np.ndarray:
    (features,) = _validate.numpy_arrays(features=features)
    if features.ndim != 2 or 0 in features.shape:
        _validate.fail("features", f"must have shape (Y, p), got {features.shape}")
    index = _validate.first_true(np, ~(np.abs(features) <= 1e6))
    if index is not None:
        _validate.fail("features", "must be finite (and at most 1e6 in size)", float(features[index]), index)
    return features.astype(np.float64)


def log_linear_policy(features: Any, weights: Any) -> np.ndarray:
    """``log pi(y)``, ``pi ~ exp(features weights)``, ``(Y,)``.

    Args:
        features: ``(Y, p)``. weights: ``(p,)``.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite.
    """
    features = _features(features)
    (weights,) = _validate.numpy_arrays(weights=weights)
    if weights.shape != features.shape[1:]:
        _validate.fail("weights", f"must have shape {features.shape[1:]}, got {weights.shape}")
    _validate.finite("weights", np, weights)
    with np.errstate(over="ignore", invalid="ignore"):
        logits = features @ weights
    _validate.representable("weights", np, logits)
    return np.asarray(log_normalize(logits))


def log_linear_fisher(features: Any, weights: Any) -> np.ndarray:
    """Fisher information of a log-linear policy: the covariance of the features under it, ``(p, p)``.

    Args and errors as `log_linear_policy`.
    """
    pi = np.exp(log_linear_policy(features, weights))
    centred = _features(features) - pi @ _features(features)
    return np.asarray(centred.T @ (pi[:, None] * centred))


def m_projection(features: Any, log_target: Any) -> np.ndarray:
    """Weights of the log-linear policy with the least ``KL(target || pi)``, ``(p,)``.

    Newton steps D on the convex ``log sum_y exp(f(y).t) - E_target[f].t`` from 0, with the Fisher information as
    Hessian, until the mean features agree to 1e-12 of their size. Along D, of spread s, the curvature grows no faster
    than ``e^{st}``: the upper bound that this gives is least at ``log(1 + s)/s`` of the step, which is what is taken,
    so that the loss falls without a line search. Where features are dependent (up to a constant) the policy is unique,
    its weights are not: those of the shortest steps.

    Args:
        features: ``(Y, p)``. log_target: ``(Y,)``, finite: every outcome has mass.

    Raises:
        ValueError: shapes that do not fit, a target without mass somewhere or so extreme that Newton does not end.
    """
    features = _features(features)
    (log_target,) = _validate.numpy_arrays(log_target=log_target)
    if log_target.shape != features.shape[:1]:
        _validate.fail("log_target", f"must have shape {features.shape[:1]}, got {log_target.shape}")
    _validate.finite("log_target", np, _validate.log_probs("log_target", np, log_target))
    wanted = np.exp(log_target) @ features
    size = float(np.abs(features).max()) or 1.0
    t = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        short = wanted - np.exp(log_linear_policy(features, t)) @ features
        if np.abs(short).max() <= 1e-12 * size:
            return t
        step = np.linalg.pinv(log_linear_fisher(features, t), rcond=1e-12, hermitian=True) @ short
        spread = float(np.ptp(features @ step))
        t = t + step * (np.log1p(spread) / spread if spread > 0 else 1.0)
    if np.abs(short).max() > 1e-9 * size:
        _validate.fail("log_target", "is too extreme: Newton's iteration does not reach its mean features")
    return t


def leash_factor(spread: Any) -> np.ndarray:
    """``g(s) = s^2 / (2 (1 - (1 + s) e^{-s}))``, at least 1: ``D'FD <= 2 g KL(pi_{t+D} || pi_t)``.

    Args:
        spread: ``s = max_y f(y).D - min_y f(y).D``, at least 0.

    Raises:
        ValueError: a negative spread, NaN, one above 1e150.
    """
    (s,) = _validate.numpy_arrays(spread=spread)
    index = _validate.first_true(np, ~((s >= 0) & (s <= 1e150)))
    if index is not None:
        _validate.fail("spread", "must lie in [0, 1e150]", float(s[index]), index)
    s = s.astype(np.float64)
    series = 1 + s * (2 / 3 + s * (7 / 36 + s * (4 / 135)))  # to s^4, where the quotient cancels
    safe = np.where(s < 1e-3, 1.0, s)
    return np.where(s < 1e-3, series, safe**2 / (-2 * (np.expm1(-safe) + safe * np.exp(-safe))))


def block_fisher(fisher: Any, block: Any) -> np.ndarray:
    """Schur complement ``F_WW - F_Wo F_oo^+ F_oW`` of a block W of the weights, ``(w, w)``.

    Args:
        fisher: ``(p, p)``, symmetric, positive semidefinite. block: ``(p,)`` of booleans, true for W.

    Raises:
        ValueError: no block, a matrix that is not symmetric or has negative eigenvalues, shapes that do not fit.
    """
    (f,) = _validate.numpy_arrays(fisher=fisher)
    if f.ndim != 2 or f.shape[0] != f.shape[1] or not f.size:
        _validate.fail("fisher", f"must have shape (p, p), got {f.shape}")
    f = _validate.finite("fisher", np, f).astype(np.float64)
    size = float(np.abs(f).max())
    if np.abs(f - f.T).max() > 1e-9 * size or np.linalg.eigvalsh((f + f.T) / 2)[0] < -1e-9 * size:
        _validate.fail("fisher", "must be symmetric and positive semidefinite")
    w = _validate.boolean_mask("block", block, f.shape[:1])
    if not w.any():
        _validate.fail("block", "must name at least one weight")
    across = f[np.ix_(w, ~w)]
    inner = np.linalg.pinv(f[np.ix_(~w, ~w)], rcond=1e-12, hermitian=True) if across.size else np.zeros((0, 0))
    return np.asarray(f[np.ix_(w, w)] - across @ inner @ across.T)


def ratio_leash(low: Any, high: Any) -> np.ndarray:
    """Largest ``KL(new || old)`` if ``new/old`` lies in ``[1 - low, 1 + high]`` everywhere.

    ``[a (1+b) log(1+b) + b (1-a) log(1-a)] / (a + b)``: a law with mass ``a/(a+b)`` at the upper end and the rest at
    the lower one attains it. 0 if either end is 1. For ``a = b = e`` it is at most ``(e^2/2)(1 + e^2/3)``.

    Args:
        low: a in [0, 1]. high: b, at least 0, finite. Shapes that broadcast.

    Raises:
        ValueError: ends out of range, shapes that do not broadcast.
    """
    a, b = _validate.numpy_arrays(low=low, high=high)
    _validate.broadcast(low=_validate.unit_interval("low", np, a), high=b)
    index = _validate.first_true(np, ~((b >= 0) & (b <= 1e150)))
    if index is not None:
        _validate.fail("high", "must lie in [0, 1e150]", float(b[index]), index)
    a, b = np.broadcast_arrays(a.astype(np.float64), b.astype(np.float64))
    lower = np.where(a < 1, (1 - a) * np.log1p(-np.minimum(a, 1 - 1e-16)), 0.0)
    total = np.where(a + b > 0, a + b, 1.0)
    return np.asarray(a / total * (1 + b) * np.log1p(b) + b / total * lower)
