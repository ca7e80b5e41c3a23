r"""How much a prompt with a binary reward teaches, by its success rate p: optima, group signals, online filters.

With ``x = 1/beta`` and ``p_s = p e^s / (1 - p + p e^s)``, the success rate after a tilt of strength s:

===============================  ==================================================================================
quantity                         formula
===============================  ==================================================================================
`tilted_success`                 ``p* = p_x``
`kl_to_optimum`                  ``KL(ref‖pi*) = log(1 - p + p e^x) - x p = int_0^x (x - s) p_s (1 - p_s) ds``
`kl_of_optimum`                  ``KL(pi*‖ref) = x p* - log(1 - p + p e^x) = int_0^x s p_s (1 - p_s) ds``
`improvement`                    ``p* - p = int_0^x p_s (1 - p_s) ds``; beta times `kl_to_optimum` is the gain in
                                 ``max E[r] - beta KL(pi‖ref)``
`variance_bounds`                ``Var (x - 1 + e^-x) <= KL(ref‖pi*) <= Var (e^x - 1 - x)``, any reward in [0, 1]
`success_of_largest_kl`          ``argmax_p KL(ref‖pi*) = beta - 1/(e^x - 1)``
`success_of_largest_improvement` ``argmax_p (p* - p) = 1/(1 + e^(x/2))``
===============================  ==================================================================================

A group of G rollouts has k successes, ``p^ = k/G``. Its step along the logit of success of a tabular prompt is
``(1/G) sum_i A_i (r_i - p)``, that is ``p^ (1 - p^)`` for mean-centred advantages and ``sqrt(p^ (1 - p^))`` for those
divided by the group's (population) std. An online filter keeps the groups with ``low <= p^ <= high``.

Source: ``difficulty-filtering`` C1-C6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from klsim import _validate
from klsim.estimators import k3

__all__ = [
    "FilteredPool",
    "filter_pool",
    "group_signal",
    "improvement",
    "keep_probability",
    "kept_counts",
    "kl_of_optimum",
    "kl_to_optimum",
    "success_of_largest_improvement",
    "success_of_largest_kl",
    "tilted_success",
    "variance_bounds",
]


def _strength(beta: np.ndarray) -> np.ndarray:
    """``1/beta`` of a coefficient > 0."""
    x = 1.0 / _validate.positive("beta", np, beta)
    _validate.representable("beta", np, x)
    return np.asarray(x)


def _rates(success: Any, beta: Any) -> tuple[np.ndarray, np.ndarray]:
    p, beta = _validate.numpy_arrays(success=success, beta=beta)
    _validate.broadcast(success=p, beta=beta)
    return _validate.unit_interval("success", np, p), _strength(beta)


def _log_ratios(p: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``log(pi*/ref)`` of right and of wrong answers; 0 where one of them does not exist."""
    both = (p > 0) & (p < 1)
    q = np.where(both, p, 0.5)
    # log(p + (1 - p) e^-x) and log(1 - p + p e^x), by log1p where x is small
    small = np.minimum(x, 1.0)
    right = np.where(x <= 1, np.log1p((1 - q) * np.expm1(-small)), np.log(q + (1 - q) * np.exp(-x)))
    wrong = np.where(x <= 1, np.log1p(q * np.expm1(small)), np.logaddexp(np.log1p(-q), np.log(q) + x))
    return np.where(both, -right, 0.0), np.where(both, -wrong, 0.0)


def tilted_success(success: Any, beta: Any) -> np.ndarray:
    """Success rate ``p e^(1/beta) / (1 - p + p e^(1/beta))`` of the optimum of ``E[r] - beta KL(pi‖ref)``.

    ``success`` in [0, 1], ``beta`` > 0, shapes broadcast.
    """
    p, x = _rates(success, beta)
    return np.asarray(p / np.where(p > 0, p + (1 - p) * np.exp(-x), 1.0))


def kl_to_optimum(success: Any, beta: Any) -> np.ndarray:
    """``KL(ref‖pi*)``, nats, to relative rounding; depends on the reference through its success rate only."""
    p, x = _rates(success, beta)
    right, wrong = _log_ratios(p, x)
    return np.asarray(p * k3(-right) + (1 - p) * k3(-wrong))


def kl_of_optimum(success: Any, beta: Any) -> np.ndarray:
    """``KL(pi*‖ref)``, nats, to relative rounding; tends to ``-log p`` as beta falls."""
    p, x = _rates(success, beta)
    right, wrong = _log_ratios(p, x)
    fall = (1 - p) * np.exp(-x)
    total = np.where(p > 0, p + fall, 1.0)
    failure = fall / total
    # failure k3(log(failure/(1 - p))) tends to 1 - p as failure vanishes
    missed = np.where(failure > 1e-300, failure * k3(np.maximum(wrong, -700.0)), np.where(p > 0, 1 - p, 0.0))
    return np.asarray(p / total * k3(right) + missed)


def improvement(success: Any, beta: Any) -> np.ndarray:
    """``E_pi*[r] - E_ref[r] = p (1-p) (e^x - 1)/(1 - p + p e^x)``, ``x = 1/beta``."""
    p, x = _rates(success, beta)
    return np.asarray(p * (1 - p) * -np.expm1(-x) / np.where(p > 0, p + (1 - p) * np.exp(-x), 1.0))


def variance_bounds(variance: Any, beta: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of ``KL(ref‖pi*)`` for rewards in [0, 1] by their variance under the reference.

    ``Var (x - 1 + e^-x)`` and ``Var (e^x - 1 - x)``, ``x = 1/beta``: the variance under the tilt of strength s lies
    between ``e^-s Var`` and ``e^s Var``. Both are sharp at every beta, for binary rewards as p -> 1 and p -> 0.

    Args:
        variance: in [0, 1/4]. beta: > 0.
    """
    variance, beta = _validate.numpy_arrays(variance=variance, beta=beta)
    _validate.broadcast(variance=variance, beta=beta)
    index = _validate.first_true(np, ~((variance >= 0) & (variance <= 0.25 + 1e-12)))
    if index is not None:
        _validate.fail("variance", "must lie in [0, 1/4], as that of rewards in [0, 1]", float(variance[index]), index)
    x = _strength(beta)
    with np.errstate(over="ignore", invalid="ignore"):
        upper = np.where(variance > 0, variance * k3(-x), 0.0)
    return np.asarray(variance * k3(x)), np.asarray(upper)


def success_of_largest_kl(beta: Any) -> np.ndarray:
    """The success rate that moves the optimum furthest: ``beta - 1/(e^(1/beta) - 1)``, below 1/2."""
    (beta,) = _validate.numpy_arrays(beta=beta)
    half = _strength(beta) / 2
    # 1/x - 1/(e^x - 1) = 1/2 - L(x/2)/2 with Langevin's function L(y) = coth y - 1/y; its series near 0
    near = half < 0.1
    y, far = np.where(near, half, 0.0), np.where(near, 1.0, half)
    series = y / 3 - y**3 / 45 + 2 * y**5 / 945 - y**7 / 4725 + 2 * y**9 / 93555
    direct = 1 / (2 * far) - 1 / np.expm1(np.minimum(2 * far, 700.0))
    return np.asarray(np.where(near, 0.5 - series / 2, direct))


def success_of_largest_improvement(beta: Any) -> np.ndarray:
    """The success rate that gains most: ``1/(1 + e^(1/(2 beta)))``, below 1/2; there ``p* = 1 - p``."""
    (beta,) = _validate.numpy_arrays(beta=beta)
    fall = np.exp(-_strength(beta) / 2)
    return np.asarray(fall / (1 + fall))


# groups of rollouts -----------------------------------------------------------------------------------
def kept_counts(group_size: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Whether ``low <= k/G <= high``, for ``k = 0 … G``; boolean ``(G + 1,)``.

    Compared with a margin of 1e-12, as `klsim.objectives.keep_by_success`: ``0.7 * 10`` and ``7/10`` round differently.
    ``(1/G, 1 - 1/G)`` drops the groups that are all right or all wrong.

    Raises:
        ValueError: ``group_size < 1``, a bound outside [0, 1], ``low > high``.
    """
    group_size = _validate.integer("group_size", group_size, low=1)
    low = _validate.probability("low", low)
    high = _validate.real("high", high, low=low, high=1.0)
    rate = np.arange(group_size + 1) / group_size
    return np.asarray((rate >= low - 1e-12) & (rate <= high + 1e-12))


def _counts(success: Any, group_size: int, kept: np.ndarray) -> np.ndarray:
    """``P(k successes)`` of the counts that are kept, ``(..., kept)``."""
    (p,) = _validate.numpy_arrays(success=success)
    _validate.unit_interval("success", np, p)
    _validate.fits("group_size", group_size, p.size * (group_size + 1), each=40)
    k = np.flatnonzero(kept)
    ways = gammaln(group_size + 1) - gammaln(k + 1) - gammaln(group_size - k + 1)
    return np.asarray(np.exp(ways + xlogy(k, p[..., None]) + xlog1py(group_size - k, -p[..., None])))


def keep_probability(success: Any, group_size: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """``P(low <= k/G <= high)`` with ``k ~ Bin(G, p)``, shape of ``success`` (in [0, 1])."""
    kept = kept_counts(group_size, low, high)
    return np.asarray(_counts(success, group_size, kept).sum(axis=-1))


def group_signal(success: Any, group_size: int, low: float = 0.0, high: float = 1.0, *, std: bool = True) -> np.ndarray:
    r"""``E[s(p^) 1{low <= p^ <= high}]``, the expected step along the logit of success; groups that are dropped add 0.

    ``s = sqrt(p^ (1 - p^))`` with ``std`` (population std of the group, 0 for groups that agree), else
    ``s = p^ (1 - p^)``. Without a filter the second is ``p (1-p) (G-1)/G`` and the first ``p (1-p)`` times
    `klsim.objectives.advantages.std_weight`. Divided by `keep_probability` it is that of a kept group.
    """
    std = _validate.flag("std", std)
    kept = kept_counts(group_size, low, high)
    rate = np.flatnonzero(kept) / group_size
    spread = rate * (1 - rate)
    return np.asarray(_counts(success, group_size, kept) @ (np.sqrt(spread) if std else spread))


@dataclass(frozen=True)
class FilteredPool:
    """What a filter does to a pool of prompts.

    Attributes:
        keep: share of the drawn prompts whose group is kept.
        weights: law of the prompts given that they are kept, ``(X,)``; all 0 if none ever is.
        signal: mean step of a kept group (`group_signal`), 0 if none is kept.
        group_size: rollouts a group.
    """

    keep: float
    weights: np.ndarray
    signal: float
    group_size: int

    @property
    def signal_per_rollout(self) -> float:
        """Mean step for a generated rollout, those of dropped groups included."""
        return self.keep * self.signal / self.group_size

    def expected_prompts(self, batch: int) -> float:
        """Prompts rolled out, one at a time, until ``batch`` are kept: ``batch / keep``; ``inf`` if none ever is."""
        return _validate.integer("batch", batch, low=1) / self.keep if self.keep > 0 else math.inf


def filter_pool(
    success: Any, group_size: int, low: float = 0.0, high: float = 1.0, *, weights: Any = None, std: bool = True
) -> FilteredPool:
    """A filter on prompts with success rates ``(X,)``, drawn i.i.d. with ``weights`` (probabilities; None: uniform).

    Raises:
        ValueError: no prompt, rates outside [0, 1], weights that are not a distribution; as `kept_counts`.
    """
    (p,) = _validate.numpy_arrays(success=success)
    if p.ndim != 1 or p.size == 0:
        _validate.fail("success", f"must have shape (X,) with X >= 1, got {p.shape}")
    law = np.full(p.size, 1 / p.size)
    if weights is not None:
        (law,) = _validate.numpy_arrays(weights=weights)
        _validate.unit_interval("weights", np, law)
        if law.shape != p.shape or abs(law.sum() - 1) > 1e-9:
            _validate.fail(
                "weights", f"must be {p.size} probabilities that sum to 1, got {law.shape}", float(law.sum())
            )
    chance = law * keep_probability(p, group_size, low, high)
    keep = float(chance.sum())
    step = float(law @ group_signal(p, group_size, low, high, std=std))
    if keep == 0:
        return FilteredPool(0.0, np.zeros(p.size), 0.0, group_size)
    return FilteredPool(keep, chance / keep, step / keep, group_size)
