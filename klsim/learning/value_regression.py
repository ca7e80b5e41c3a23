r"""Regressions of a state value on action values whose minimiser leans towards the maximum ("implicit maximisers").

All take values ``x (..., n)`` with probabilities ``p = exp(log_p) (..., n)`` and return ``(...)``. ``lam`` -> 1, or the
temperature -> 0, gives the largest value that has probability. None ever looks outside the data.

=========================  =====================================================================================
`gumbel_value` (XQL)       ``argmin_v E[exp((x-v)/b) - (x-v)/b - 1] = b log E exp(x/b)``
`quantile_value` (TV)      ``argmin_v (1-lam) v + lam E[(x-v)_+]``: quantile at level ``(2 lam - 1)/lam``
`chi2_value`               ``argmin_v (1-lam) v + lam E[g(x-v)]``, ``g(z) = z_+ + z_+^2/4``
`expectile_value` (IQL)    ``argmin_v E[|lam - 1{x<v}| (x-v)^2]``
=========================  =====================================================================================

Sources: ``dual-rl`` C3, C4; Kostrikov et al. (2022) for the expectile.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.optima import kl_regularized

__all__ = ["chi2_value", "expectile_value", "gumbel_value", "quantile_value"]


def _sorted(x: Any, log_p: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values in falling order with their probabilities, normalised."""
    x, log_p = _validate.numpy_arrays(x=x, log_p=log_p)
    _validate.log_probs("log_p", np, log_p)
    _validate.same_last_axis(x=x, log_p=log_p)
    x, p = np.broadcast_arrays(x, np.exp(log_p))
    index = _validate.first_true(np, (p > 0) & ~(np.abs(x) <= 1e300))
    if index is not None:
        _validate.fail("x", "must be finite (at most 1e300) where it has probability", float(x[index]), index)
    x = np.where(p > 0, x, -np.inf)
    order = np.argsort(-x, axis=-1, kind="stable")
    return np.take_along_axis(x, order, axis=-1), np.take_along_axis(p, order, axis=-1)


def gumbel_value(x: Any, log_p: Any, temperature: float) -> np.ndarray:
    """``b log E_p[exp(x/b)]``, b the ``temperature`` > 0: the XQL value."""
    temperature = _validate.real("temperature", temperature, low=0.0, open_low=True)
    x, p = _sorted(x, log_p)
    if math.isinf(temperature):
        return np.asarray(np.sum(np.where(p > 0, p * x, 0.0), axis=-1))
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    reward = np.where(p > 0, x, 0.0)
    return np.asarray(
        kl_regularized(log_p - np.logaddexp.reduce(log_p, axis=-1, keepdims=True), reward, temperature).value
    )


def quantile_value(x: Any, log_p: Any, lam: float) -> np.ndarray:
    """The smallest x whose cumulative probability reaches ``(2 lam - 1)/lam``; ``lam`` in (1/2, 1).

    Raises:
        ValueError: ``lam`` <= 1/2 (the regression is unbounded below) or >= 1 (every v above the maximum is optimal).
    """
    lam = _validate.real("lam", lam, low=0.5, high=1.0, open_low=True, open_high=True)
    x, p = _sorted(x, log_p)
    above = np.cumsum(p, axis=-1) - p  # P(X > x), ties counted apart; equal x give the same value
    level = 1 - (2 * lam - 1) / lam
    reached = (above <= level * (1 + 1e-15)) & (p > 0)
    last = x.shape[-1] - 1 - np.argmax(reached[..., ::-1], axis=-1)
    return np.asarray(np.take_along_axis(x, last[..., None], axis=-1)[..., 0])


def _top_sums(x: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``P_k`` and ``sum p x`` of the k largest values."""
    return np.cumsum(p, axis=-1), np.cumsum(p * np.where(p > 0, x, 0.0), axis=-1)


def chi2_value(x: Any, log_p: Any, lam: float) -> np.ndarray:
    """The v at which ``E[(1 + (x-v)/2) 1{x>v}]`` crosses ``(1-lam)/lam``; ``lam`` in (0, 1).

    Between two atoms the left side is linear; it falls by p(x) at each, so the crossing may sit on one.
    """
    lam = _validate.real("lam", lam, low=0.0, high=1.0, open_low=True, open_high=True)
    x, p = _sorted(x, log_p)
    mass, total = _top_sums(x, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = 2 + (total - 2 * (1 - lam) / lam) / mass
    return np.asarray(np.max(np.where(p > 0, np.minimum(crossing, x), -np.inf), axis=-1))


def expectile_value(x: Any, log_p: Any, lam: float) -> np.ndarray:
    """The ``lam``-expectile, ``lam`` in (0, 1): ``lam E[(x-v)_+] = (1-lam) E[(v-x)_+]``."""
    lam = _validate.real("lam", lam, low=0.0, high=1.0, open_low=True, open_high=True)
    x, p = _sorted(x, log_p)
    mass, total = _top_sums(x, p)
    rest, left = mass[..., -1:] - mass, total[..., -1:] - total
    means = (lam * total + (1 - lam) * left) / (lam * mass + (1 - lam) * rest)
    return np.asarray(means.max(axis=-1) if lam >= 0.5 else means.min(axis=-1))
