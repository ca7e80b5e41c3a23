r"""Weights of several objectives from the recent history of one number each: convergence ratio and instability.

With ``mu, mu'`` the means of the newest ``W`` values and of the ``W`` before, ``sigma`` the population deviation of the
newest,

.. math:: c = \mu/\mu', \quad i = \sigma/(\mu + \mu'), \quad \lambda_k = K \, \mathrm{softmax}((c + i)/T)_k.

The weights sum to K and do not change when an objective is multiplied by a positive number (no floor active); they do
when one is shifted. An objective at rest has ``c = 1, i = 0``; whether one that improves gets more or less than that is
decided by what is recorded, rewards or losses. Closed forms of the instability:

===========================  ===========================================  ==========================
history                      instability                                  function
===========================  ===========================================  ==========================
non-negative                 ``<= sqrt(W - 1) c/(1 + c)``                 `instability_bound`
in ``[l, 1]``                ``<= (1 - l)/(2 sqrt(2 l (1 + l)))``         `box_instability`
a straight line              ``|1 - c|/(1 + c) sqrt((W^2 - 1)/12)/W``     `trend_instability`
failure rates of m outcomes  about ``sqrt((1 - e)/(e m))/2``              `failure_instability`
===========================  ===========================================  ==========================

Source: ``recap`` C1-C6.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln

from klsim import _validate

__all__ = [
    "Signals",
    "box_instability",
    "failure_instability",
    "instability_bound",
    "objective_weights",
    "softmax_weights",
    "trend_instability",
    "window_signals",
]


class Signals(NamedTuple):
    """Convergence ratio ``c`` and instability ``i`` of every objective, ``(..., K)``."""

    ratio: np.ndarray
    instability: np.ndarray


def window_signals(history: Any, window: int, *, floor: float = 0.0) -> Signals:
    """``c = mu/mu'`` and ``i = sigma/(mu + mu')`` of the last ``2 window`` values of every objective.

    Args:
        history: ``(..., K, T)``, newest last, ``T >= 2 window``.
        floor: least value of both means (not of the deviation).

    Raises:
        ValueError: too short a history; a mean of the older window, or a sum of both, that is 0.
    """
    (history,) = _validate.numpy_arrays(history=history)
    window = _validate.integer("window", window, low=1)
    floor = _validate.real("floor", floor, low=0.0)
    if history.ndim < 2 or history.shape[-1] < 2 * window:
        _validate.fail("history", f"must be (..., K, T) with T >= 2 window = {2 * window}, got {history.shape}")
    _validate.finite("history", np, history)
    history = history.astype(np.float64)
    old, new = history[..., -2 * window : -window], history[..., -window:]
    with np.errstate(over="ignore", invalid="ignore"):
        before, after = old.mean(axis=-1), new.mean(axis=-1)
        deviation = np.sqrt(np.mean((new - after[..., None]) ** 2, axis=-1))
        if floor > 0:
            before, after = np.maximum(before, floor), np.maximum(after, floor)
        index = _validate.first_true(np, (before == 0) | (before + after == 0))
        if index is not None:
            _validate.fail("history", "has windows of mean 0: give a floor", index=index)
        found = Signals(after / before, deviation / (before + after))
    _validate.representable("history", np, *found)
    return found


def softmax_weights(score: Any, temperature: Any) -> np.ndarray:
    """``K exp(s_k/T) / sum_j exp(s_j/T)``, ``(..., K)``: 1 on average, all 1 at infinite temperature.

    Args:
        score: ``(..., K)``, finite. temperature: positive, a number or ``(...)``; may be infinite.
    """
    score, temperature = _validate.numpy_arrays(score=score, temperature=temperature)
    _validate.finite("score", np, score)
    if score.ndim < 1 or score.shape[-1] < 1:
        _validate.fail("score", f"must be (..., K) with K >= 1, got {score.shape}")
    index = _validate.first_true(np, ~(temperature > 0))
    if index is not None:
        _validate.fail("temperature", "must be > 0", float(temperature[index]), index)
    _validate.broadcast(score=score[..., 0], temperature=temperature)
    uniform = np.isinf(temperature)[..., None]
    with np.errstate(over="ignore"):
        short = (score - score.max(axis=-1, keepdims=True)) / np.where(uniform, 1.0, temperature[..., None])
    power = np.exp(np.where(uniform, 0.0, short))
    return np.asarray(score.shape[-1] * power / power.sum(axis=-1, keepdims=True))


def objective_weights(history: Any, window: int, temperature: Any, *, floor: float = 0.0) -> np.ndarray:
    """``lambda`` of every objective, ``(..., K)``: `softmax_weights` of ``c + i`` of `window_signals`."""
    ratio, instability = window_signals(history, window, floor=floor)
    return softmax_weights(ratio + instability, temperature)


def _ratio(ratio: Any) -> np.ndarray:
    (ratio,) = _validate.numpy_arrays(ratio=ratio)
    _validate.not_nan("ratio", np, ratio)
    index = _validate.first_true(np, ratio < 0)
    if index is not None:
        _validate.fail("ratio", "must be >= 0", float(ratio[index]), index)
    return np.asarray(ratio, dtype=np.float64)


def instability_bound(ratio: Any, window: int) -> np.ndarray:
    """``sqrt(W - 1) c/(1 + c)``, the largest instability of non-negative values with convergence ratio ``c``.

    Reached by a newest window with a single value that is not 0.
    """
    ratio = _ratio(ratio)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(math.sqrt(_validate.integer("window", window, low=1) - 1) / (1 + 1 / ratio))


def box_instability(low: Any) -> np.ndarray:
    """``(1 - l)/(2 sqrt(2 l (1 + l)))``, the supremum of the instability over all windows with values in ``[l, 1]``.

    Older values all at ``l``, newest of mean ``l (3 + l)/(1 + 3 l)`` at the two ends. ``low`` in (0, 1].
    """
    (low,) = _validate.numpy_arrays(low=low)
    index = _validate.first_true(np, ~((low > 0) & (low <= 1)))
    if index is not None:
        _validate.fail("low", "must lie in (0, 1]", float(low[index]), index)
    return np.asarray((1 - low) / (2 * np.sqrt(2 * low * (1 + low))))


def trend_instability(ratio: Any, window: int) -> np.ndarray:
    """``|1 - c|/(1 + c) sqrt((W^2 - 1)/12)/W`` of a straight line: its own spread, below ``.2887 |1 - c|``."""
    ratio = _ratio(ratio)
    window = _validate.integer("window", window, low=1)
    spread = math.sqrt((1 - window**-2) / 12)
    with np.errstate(invalid="ignore"):
        share = np.where(np.isinf(ratio), 1.0, np.abs(1 - ratio) / (1 + ratio))
    return np.asarray(spread * share)


def failure_instability(rate: Any, batch: int, window: int | None = None) -> np.ndarray:
    """``sqrt((1 - e)/(e m))/2``, the instability of the failure rate of ``m`` outcomes at a constant rate ``e``.

    It grows as the objective is solved; the success rate has that of ``1 - e``. With a ``window`` times the mean
    population deviation of W Gaussian values, ``sqrt(2/W) Gamma(W/2)/Gamma((W - 1)/2)``. For ``e m W`` well above 1:
    below, windows without a failure decide.

    Args:
        rate: in (0, 1). batch: ``m``. window: at least 2; None is the limit of long windows.
    """
    rate = _validate.unit_interval("rate", np, *_validate.numpy_arrays(rate=rate), open_ends=True)
    found = np.sqrt((1 - rate) / (rate * _validate.integer("batch", batch, low=1))) / 2
    if window is not None:
        window = _validate.integer("window", window, low=2)
        found = found * math.sqrt(2 / window) * math.exp(gammaln(window / 2) - gammaln((window - 1) / 2))
    return np.asarray(found)
