r"""Multiple importance sampling over finite sets: weights of samples from several behaviours, with exact moments.

Behaviours ``p_1, ..., p_n`` draw one sample each, ``F = sum_i w_i(X_i) pi(X_i) A(X_i) / p_i(X_i)`` with
``sum_i w_i = 1`` estimates ``mu = E_pi[A]``. The balance heuristic ``w_i = p_i / sum_j p_j`` weighs every sample by
``pi / mean_j p_j`` (`mis_weight`), whoever drew it, and (Veach & Guibas, 1995) has

.. math:: \mathrm{Var}_{balance} \le \mathrm{Var}_w + (1 - 1/n)\mu^2

for any other non-negative weights, if ``A >= 0``. With signs in ``A`` or ``w`` it does not: `minimum_variance_weights`.
Unbiased is the pool; the same weights on the samples of one behaviour alone are not.

Source: ``rl-plus`` C1-C3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from klsim import _validate

__all__ = ["combination_weights", "combined_moments", "minimum_variance_weights", "mis_weight"]


def _behaviours(log_behaviours: Sequence[Any], **named: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """``(n, ..., A)`` log-probabilities, and other arrays with the same last axis."""
    given = _validate.sequence("log_behaviours", log_behaviours)
    if not given:
        _validate.fail("log_behaviours", "needs at least one behaviour")
    listed = {f"log_behaviours[{i}]": p for i, p in enumerate(given)}
    arrays = list(_validate.numpy_arrays(**listed, **named))
    for name, x in zip(listed, arrays):
        _validate.log_probs(name, np, x)
    _validate.same_last_axis(**dict(zip([*listed, *named], arrays)))
    return np.stack(np.broadcast_arrays(*arrays[: len(given)])), arrays[len(given) :]


def mis_weight(log_pi: Any, log_behaviours: Sequence[Any]) -> np.ndarray:
    r"""``pi / ((1/n) sum_i p_i)``: the balance heuristic's weight of an outcome, ``(..., A)``; at most ``n pi/p_i``.

    Two behaviours: ``2 pi/(p_1 + p_2)``. An outcome of probability 0 under all weighs 0.

    Raises:
        ValueError: mass of ``pi`` where no behaviour has any.
    """
    stacked, (log_pi,) = _behaviours(log_behaviours, log_pi=log_pi)
    _validate.log_probs("log_pi", np, log_pi)
    mean = np.logaddexp.reduce(stacked, axis=0) - math.log(len(stacked))
    lost = np.isneginf(mean) & np.isfinite(log_pi)
    index = _validate.first_true(np, lost)
    if index is not None:
        _validate.fail("log_pi", "has mass where no behaviour has any", index=index)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = np.where(np.isneginf(log_pi), 0.0, np.exp(log_pi - mean))
    _validate.representable("log_pi", np, weight)
    return np.asarray(weight)


def combination_weights(log_behaviours: Sequence[Any], *, power: float = 1.0) -> np.ndarray:
    """``w_i = p_i^power / sum_j p_j^power``, ``(n, ..., A)``; ``1/n`` each where no behaviour has mass.

    ``power`` 1 is the balance heuristic, 2 the power heuristic, ``inf`` the maximum heuristic (ties shared), 0 equal
    weights.
    """
    power = _validate.real("power", power, low=0.0)
    stacked, _ = _behaviours(log_behaviours)
    gap = stacked - np.where(np.isneginf(stacked).all(axis=0), 0.0, stacked.max(axis=0))
    gap = np.where(np.isneginf(stacked).all(axis=0), 0.0, gap)
    with np.errstate(invalid="ignore"):
        raised = (gap == 0.0) * 1.0 if math.isinf(power) else np.exp(np.where(power == 0, 0.0, power * gap))
    return np.asarray(raised / raised.sum(axis=0))


def combined_moments(
    log_pi: Any, log_behaviours: Sequence[Any], weights: Any, values: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of ``sum_i w_i(X_i) pi(X_i) A(X_i)/p_i(X_i)``, one sample a behaviour; both ``(...)``.

    Args:
        weights: ``(n, ..., A)``, any real numbers. values: ``A``, ``(..., A)``. What a behaviour never draws does not
            count: the mean is ``E_pi[A]`` where the weights sum to 1 and are 0 there.
    """
    stacked, (log_pi, values) = _behaviours(log_behaviours, log_pi=log_pi, values=values)
    _validate.log_probs("log_pi", np, log_pi)
    (weights,) = _validate.numpy_arrays(weights=weights)
    _validate.finite("values", np, values)
    _validate.finite("weights", np, weights)
    if weights.ndim < 1 or weights.shape[0] != len(stacked):
        _validate.fail("weights", f"needs one row a behaviour ({len(stacked)}), got shape {weights.shape}")
    _validate.same_last_axis(weights=weights, log_pi=log_pi)
    mean: Any = 0.0
    variance: Any = 0.0
    for log_p, w in zip(stacked, weights):
        with np.errstate(over="ignore", invalid="ignore"):
            drawn = np.isfinite(log_p)
            term = np.where(drawn, w * values * np.exp(log_pi - np.where(drawn, log_p, 0.0)), 0.0)
            own = np.sum(np.exp(log_p) * term, axis=-1)
            spread = np.sum(np.exp(log_p) * (term - own[..., None]) ** 2, axis=-1)
        mean, variance = mean + own, variance + spread
    _validate.representable("log_pi (or values)", np, mean, variance)
    return np.asarray(mean), np.asarray(variance)


def minimum_variance_weights(log_pi: Any, log_behaviours: Sequence[Any], values: Any) -> np.ndarray:
    r"""The weights of two behaviours with the least variance among all that sum to 1, of any sign; ``(2, ..., A)``.

    With ``f = pi A`` and ``h = p_1 p_2/(p_1 + p_2)``: the balance heuristic plus ``± c h/f``,
    ``c = sum f (p_1 - p_2)/(p_1 + p_2) / (1 - 2 sum_{f != 0} h)``. They depend on the values: a bound, no method.

    Raises:
        ValueError: not two behaviours; no support where ``pi`` has mass; weights that overflow.
    """
    stacked, (log_pi, values) = _behaviours(log_behaviours, log_pi=log_pi, values=values)
    if len(stacked) != 2:
        _validate.fail("log_behaviours", f"must be two, got {len(stacked)}")
    _validate.log_probs("log_pi", np, log_pi)
    _validate.finite("values", np, values)
    index = _validate.first_true(np, np.isneginf(stacked).all(axis=0) & np.isfinite(log_pi))
    if index is not None:
        _validate.fail("log_pi", "has mass where no behaviour has any", index=index)
    one, two = np.exp(stacked)
    both = np.where(one + two > 0, one + two, 1.0)
    f, shared = np.exp(log_pi) * values, one * two / both
    lean = np.sum(f * (one - two) / both, axis=-1, keepdims=True)
    # 1 - 2 sum h without cancellation
    room = np.sum((one - two) ** 2 / (2 * both) + 2 * np.where(f == 0, shared, 0.0), axis=-1, keepdims=True)
    pull = np.where(room > 0, lean / np.where(room > 0, room, 1.0), 0.0)
    with np.errstate(over="ignore"):
        shift = pull * shared / np.where(f == 0, math.inf, f)  # what is worth nothing may have any weight
    balance = combination_weights(log_behaviours)
    _validate.representable("values", np, shift)
    return np.stack([balance[0] + shift, balance[1] - shift])
