r"""Coverage of a target law by a reference: hockey sticks, and what best-of-n needs and loses, exactly.

Coverage coefficients of a target ``p`` (a policy to compete with) by ``q`` (the reference that is sampled):

* largest ratio ``C_inf = max p/q``, ``log C_inf = D_inf(p‖q)``, and second moment ``C_2 = E_p[p/q] = 1 + chi2(p‖q)``,
  ``log C_2 = D_2(p‖q)``: `klsim.divergences.renyi` of order ``inf`` and 2;
* hockey stick ``E_M = sum_y (p - M q)^+ = max_A p(A) - M q(A)``, what ``M q`` does not cover of p; ``E_1`` is total
  variation, ``E_M <= C_2/(4M)``, and ``E_M = 0`` from ``M = C_inf`` on;
* profile ``P_p[p/q > M]``, with ``E_M <= P_p[p/q > M] <= 2 E_{M/2}``.

**Best-of-n in the worst case.** Of a reward in [0, 1], ``E_p[r] - E_bon[r] = \int_0^1 p(A_t) - 1 + (1 - q(A_t))^n dt``
with ``A_t = {r > t}``. So the reward that is worst for best-of-n is an indicator, and as ``(1 - x)^n`` is convex, of a
set of highest ratios:

.. math:: \sup_{r \in [0,1]^A} E_p[r] - E_{bon_n}[r] = \max_c\; (1 - q(A_c))^n - p(A_c^c), \qquad A_c = \{p/q \ge c\}.

With Bernoulli's inequality it is at least ``E_n``. Rejection sampling of ``min(p, M q)`` accepts a draw with chance
``a_M = (1 - E_M)/M`` and best-of-n has no less reward than what it takes, so it is at most
``min_M max(E_M, (1 - a_M)^n)``: n draws reach no more than ``n q`` covers, and about ``M log(1/E_M)`` draws reach what
``M q`` covers.

Sources: Block and Polyanskiy (2023), arXiv:2302.12152 (hockey stick and approximate rejection); the exact worst case
and the maximum in the upper bound are derived here (`foundations` V3, V4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from klsim import _validate
from klsim._shown import Shown

__all__ = [
    "WorstReward",
    "best_of_n_regret",
    "best_of_n_regret_bound",
    "coverage_profile",
    "draws_needed",
    "hockey_stick",
    "level_covering",
]


def _pair(log_target: Any, log_ref: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two laws ``(A,)`` in float64."""
    log_target, log_ref = _validate.numpy_arrays(log_target=log_target, log_ref=log_ref)
    for name, law in (("log_target", log_target), ("log_ref", log_ref)):
        _validate.log_probs(name, np, law)
        if law.ndim != 1:
            _validate.fail(name, f"must be one law (A,), got shape {law.shape}")
    if log_target.shape != log_ref.shape:
        _validate.fail("log_ref", f"must have the shape of log_target, {log_target.shape}, got {log_ref.shape}")
    return log_target.astype(np.float64), log_ref.astype(np.float64)


def _log_ratio(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """``log p/q``: ``inf`` where only q is 0, ``-inf`` where p is."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(log_p), -np.inf, log_p - log_q)


def _log_levels(level: Any) -> np.ndarray:
    (levels,) = _validate.numpy_arrays(level=level)
    index = _validate.first_true(np, ~(levels >= 0))
    if index is not None:
        _validate.fail("level", "must be >= 0", float(levels[index]), index)
    with np.errstate(divide="ignore"):
        return np.log(levels.astype(np.float64))[..., None]


def _covered(ratio: np.ndarray, log_m: Any) -> np.ndarray:
    """``min(M q / p, 1)``; 0 where q is 0."""
    with np.errstate(invalid="ignore"):
        covered = np.where(ratio > log_m, np.exp(np.minimum(log_m - ratio, 0.0)), 1.0)
    return np.where(np.isposinf(ratio), 0.0, covered)


def hockey_stick(log_target: Any, log_ref: Any, level: Any) -> np.ndarray:
    """``E_M = sum_y (p - M q)^+`` at every level M, of the shape of ``level``: in [0, 1], falling and convex in M.

    Args:
        log_target: ``(A,)``. log_ref: ``(A,)``. level: M >= 0 of any shape; ``inf`` leaves what q misses of p.

    Raises:
        ValueError: no log-probabilities ``(A,)`` of one size, a level that is negative or NaN.
    """
    log_p, log_q = _pair(log_target, log_ref)
    return np.asarray(np.sum(np.exp(log_p) * (1.0 - _covered(_log_ratio(log_p, log_q), _log_levels(level))), axis=-1))


def coverage_profile(log_target: Any, log_ref: Any, level: Any) -> np.ndarray:
    """``P_p[p/q > M]`` at every level M, of the shape of ``level``; where q is 0 the ratio is infinite and counts.

    Arguments and errors as `hockey_stick`.
    """
    log_p, log_q = _pair(log_target, log_ref)
    ratio, log_m = _log_ratio(log_p, log_q), _log_levels(level)
    beyond = (ratio > log_m) | np.isposinf(ratio)
    return np.asarray(np.sum(np.where(beyond, np.exp(log_p), 0.0), axis=-1))


def _from_the_top(log_p: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, ...]:
    """Order by falling ratio; log masses of the 1, 2, … first outcomes, and of the rest, under p and q."""
    order = np.argsort(-_log_ratio(log_p, log_q), kind="stable")
    p, q = log_p[order], log_q[order]
    first = [np.minimum(np.logaddexp.accumulate(x), 0.0) for x in (p, q)]
    rest = [np.append(np.minimum(np.logaddexp.accumulate(x[::-1])[::-1], 0.0)[1:], -np.inf) for x in (p, q)]
    return order, *first, *rest


def level_covering(log_target: Any, log_ref: Any, excess: float) -> float:
    """The least M with ``E_M <= excess``; ``exp`` of the smooth max-divergence, and ``max p/q`` for ``excess = 0``.

    ``inf`` where the reference misses more than ``excess`` of the target.

    Raises:
        ValueError: as `hockey_stick`; an excess outside [0, 1].
    """
    log_p, log_q = _pair(log_target, log_ref)
    excess = _validate.probability("excess", excess)
    _, top_p, top_q, _, _ = _from_the_top(log_p, log_q)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # E_M <= excess iff p(A) - M q(A) <= excess for every A of highest ratios
        left = top_p + np.log(np.maximum(-np.expm1(np.log(excess) - top_p), 0.0))
        return float(np.exp(np.max(np.where(np.isneginf(left), -np.inf, left - top_q))))


@dataclass(frozen=True, repr=False)
class WorstReward(Shown):
    """What best-of-n loses in the worst case, and the reward for which it does.

    Attributes:
        regret: ``sup_r E_p[r] - E_bon[r]`` over rewards in [0, 1].
        event: the outcomes with reward 1, ``(A,)`` of bool; the others have 0. No outcome where the regret is 0.
    """

    regret: float
    event: np.ndarray


def best_of_n_regret(log_target: Any, log_ref: Any, n: float) -> WorstReward:
    """The largest ``E_target[r] - E_bon[r]`` over rewards in [0, 1], best-of-n from the reference; ``O(A log A)``.

    Args:
        log_target: ``(A,)``. log_ref: ``(A,)``. n: draws, >= 1, any real. n = 1 is total variation.

    Raises:
        ValueError: no log-probabilities ``(A,)`` of one size, ``n < 1``.
    """
    log_p, log_q = _pair(log_target, log_ref)
    n = _validate.real("n", n, low=1.0, open_high=True)
    order, _, top_q, rest_p, rest_q = _from_the_top(log_p, log_q)
    missed = n * np.where(top_q < -math.log(2), np.log1p(-np.exp(np.minimum(top_q, -math.log(2)))), rest_q)
    regret = np.exp(missed) - np.exp(rest_p)
    best = int(np.argmax(regret))
    event = np.zeros(len(order), dtype=bool)
    if regret[best] > 0:
        event[order[: best + 1]] = True
    return WorstReward(max(float(regret[best]), 0.0), event)


def best_of_n_regret_bound(log_target: Any, log_ref: Any, n: float) -> float:
    """``min_M max(E_M, (1 - (1 - E_M)/M)^n)``: at least `best_of_n_regret`, by rejection sampling.

    The first falls and the second rises in M: they are equal at the minimum, found by Brent's method in ``log M``.

    Raises:
        ValueError: as `best_of_n_regret`.
    """
    log_p, log_q = _pair(log_target, log_ref)
    n = _validate.real("n", n, low=1.0, open_high=True)

    ratio, p = _log_ratio(log_p, log_q), np.exp(log_p)

    def sides(log_m: float) -> tuple[float, float]:
        lost = float(np.sum(p * (1.0 - _covered(ratio, log_m))))
        accepted = (1.0 - lost) * math.exp(-log_m)
        return lost, math.exp(n * math.log1p(-accepted)) if accepted < 1 else 0.0

    low, high = 0.0, float(min(np.max(ratio), 700.0))
    ends = [lost - missed for lost, missed in map(sides, (low, high))]
    if ends[0] <= 0:  # one draw, or nothing to cover
        return min(max(sides(low)), 1.0)
    if ends[1] >= 0:  # what the reference misses
        return min(max(sides(high)), 1.0)
    return max(sides(float(brentq(lambda x: float(np.subtract(*sides(x))), low, high, xtol=1e-14, rtol=1e-14))))


def draws_needed(log_target: Any, log_ref: Any, regret: float) -> float:
    """The least n for which best-of-n is within ``regret`` of the target for every reward in [0, 1].

    At most ``M log(1/regret) / (1 - regret)`` rounded up, with ``M = level_covering(…, regret)``, and more than every
    integer m with ``E_m > regret``. A whole number; beyond ``2^53`` to rounding, ``inf`` beyond 1e300 and where the
    reference misses more than ``regret`` of the target.

    Raises:
        ValueError: as `best_of_n_regret`; a regret outside (0, 1].
    """
    log_p, log_q = _pair(log_target, log_ref)
    regret = _validate.real("regret", regret, low=0.0, high=1.0, open_low=True)

    def enough(n: float) -> bool:
        return best_of_n_regret(log_p, log_q, n).regret <= regret

    high = 1.0
    while not enough(high):
        high *= 2.0
        if high > 1e300:
            return math.inf
    low = high / 2.0  # not enough, unless high is 1
    while high - low > max(1.0, 2.0**-52 * high) and high > 1:
        middle = math.floor(0.5 * (low + high))
        low, high = (low, float(middle)) if enough(middle) else (float(middle), high)
    return high
