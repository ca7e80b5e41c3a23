r"""Choosing the best of several options by estimated success rates: exact laws, and what concentration gives.

Each of M options has a success rate ``p_i`` and an estimate ``X_i / N``, ``X_i ~ Bin(N, p_i)`` independent. The option
with the largest estimate (the first of several) is chosen. Exactly, by summing over the value of the maximum,

.. math:: P(\hat\imath = i) = \sum_v P(X_i = v) \prod_{j<i} P(X_j < v) \prod_{j>i} P(X_j \le v)

(`selection`). Its estimate is biased upward, ``E[X_max]/N >= max p >= E[p_chosen]``; its regret is at most twice the
largest error of an estimate, which exceeds ``sqrt(log(2M/d)/(2N))`` with probability at most d (`deviation_bound`,
`deviation_probability`).

Source: ``knowrl`` C4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr, gammaln, xlog1py, xlogy

from klsim import _validate

__all__ = ["Selection", "decision_error", "deviation_bound", "deviation_probability", "selection"]


@dataclass(frozen=True)
class Selection:
    """What choosing by estimates gives.

    Attributes:
        law: probability of each option, ``(..., M)``.
        score: expected estimate of the chosen option, ``(...)``.
        success: its expected true success rate, ``(...)``.
        best: the largest success rate, ``(...)``.
    """

    law: np.ndarray
    score: np.ndarray
    success: np.ndarray
    best: np.ndarray

    @property
    def optimism(self) -> np.ndarray:
        """``score - success >= 0``."""
        return np.asarray(self.score - self.success)

    @property
    def regret(self) -> np.ndarray:
        """``best - success >= 0``."""
        return np.asarray(self.best - self.success)


def _rates(success: Any, rollouts: int, each: int) -> tuple[np.ndarray, int]:
    (p,) = _validate.numpy_arrays(success=success)
    if p.ndim == 0 or p.shape[-1] == 0:
        _validate.fail("success", f"must have shape (..., M) with M >= 1, got {p.shape}")
    _validate.unit_interval("success", np, p)
    rollouts = _validate.integer("rollouts", rollouts, low=1)
    _validate.fits("rollouts", rollouts, each * max(p.size, 1) * (rollouts + 1))
    return p.astype(np.float64), rollouts


def _mass(p: np.ndarray, rollouts: int) -> np.ndarray:
    """``P(X = v)``, ``v = 0 … N`` on a new last axis."""
    v = np.arange(rollouts + 1)
    ways = gammaln(rollouts + 1) - gammaln(v + 1) - gammaln(rollouts - v + 1)
    return np.asarray(np.exp(ways + xlogy(v, p[..., None]) + xlog1py(rollouts - v, -p[..., None])))


def selection(success: Any, rollouts: int) -> Selection:
    """The law of the option with the largest of independent estimates, ties to the first.

    Args:
        success: rates in [0, 1], ``(..., M)``. rollouts: N of each.
    """
    p, rollouts = _rates(success, rollouts, 6)
    mass = _mass(p, rollouts)
    mass = mass / mass.sum(axis=-1, keepdims=True)
    up_to = np.minimum(np.cumsum(mass, axis=-1), 1.0)
    below = np.concatenate([np.zeros_like(up_to[..., :1]), up_to[..., :-1]], axis=-1)
    ones = np.ones_like(mass[..., :1, :])
    before = np.concatenate([ones, np.cumprod(below, axis=-2)[..., :-1, :]], axis=-2)
    after = np.concatenate([np.cumprod(up_to[..., :0:-1, :], axis=-2)[..., ::-1, :], ones], axis=-2)
    joint = mass * before * after
    law = joint.sum(axis=-1)
    score = joint.sum(axis=-2) @ (np.arange(rollouts + 1) / rollouts)
    return Selection(law, np.asarray(score), np.asarray(np.sum(law * p, axis=-1)), np.asarray(p.max(axis=-1)))


def deviation_bound(options: int, rollouts: int, failure: float) -> float:
    """``sqrt(log(2 M / d) / (2 N))``: with probability ``1 - d`` or more no estimate is further off (Hoeffding, union).

    The regret of the largest estimate is at most twice this, with the same probability.
    """
    options, rollouts = (_validate.integer(n, x, low=1) for n, x in (("options", options), ("rollouts", rollouts)))
    failure = _validate.real("failure", failure, low=0.0, high=1.0, open_low=True)
    return math.sqrt((math.log(2 * options) - math.log(failure)) / (2 * rollouts))


def deviation_probability(success: Any, rollouts: int, distance: float) -> np.ndarray:
    """``P(max_i |X_i/N - p_i| > distance)``, ``(...)``, exactly."""
    p, rollouts = _rates(success, rollouts, 1)
    distance = _validate.real("distance", distance, low=0.0)
    high = np.minimum(np.floor(rollouts * (p + distance) + 1e-9), rollouts)
    low = np.ceil(rollouts * (p - distance) - 1e-9) - 1
    inside = bdtr(high, rollouts, p) - np.where(low >= 0, bdtr(np.maximum(low, 0), rollouts, p), 0.0)
    return np.asarray(1 - np.prod(np.clip(inside, 0.0, 1.0), axis=-1))


def decision_error(first: Any, second: Any, rollouts: int, tolerance: float = 0.0) -> np.ndarray:
    """Chance that ``X_1/N >= X_2/N - tolerance`` says other than ``p_1 >= p_2 - tolerance``; arrays broadcast.

    Args:
        first, second: success rates in [0, 1]; what is short of the tolerance by 1e-12 passes (rounding). rollouts: N
            of each. tolerance: ``>= 0``, a number.
    """
    tolerance = _validate.real("tolerance", tolerance, low=0.0)
    first, second = _validate.numpy_arrays(first=first, second=second)
    _validate.broadcast(first=first, second=second)
    pair = [_validate.unit_interval(n, np, x).astype(np.float64) for n, x in (("first", first), ("second", second))]
    p, q = np.broadcast_arrays(*pair)
    rollouts = _validate.integer("rollouts", rollouts, low=1)
    _validate.fits("rollouts", rollouts, 4 * max(p.size, 1) * (rollouts + 1))
    # at least the smallest count that the tolerance lets pass, against every count of the other
    least = np.ceil(np.maximum(np.arange(rollouts + 1) - min(tolerance, 1.0) * rollouts - 1e-9, 0.0)).astype(np.int64)
    tail = np.cumsum(_mass(p, rollouts)[..., ::-1], axis=-1)[..., ::-1]
    yes = np.sum(_mass(q, rollouts) * tail[..., least], axis=-1)
    yes = np.clip(yes, 0.0, 1.0)
    return np.asarray(np.where(p >= q - tolerance - 1e-12, 1 - yes, yes))
