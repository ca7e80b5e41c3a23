r"""Estimators from samples: KL, pass@k, best-of-N, importance weights, intervals.

``log_ratio`` is ``log pi - log q`` of samples drawn from ``pi``; then all of k1, k2, k3 estimate ``KL(pi‖q)``
(k2 with a bias of third order), but as *losses* they have different gradients (`klsim.objectives`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._stable import PHI, polynomial

__all__ = [
    "SupportChange",
    "best_of_n_reward",
    "effective_sample_size",
    "importance_weights",
    "k1",
    "k2",
    "k3",
    "kept_fraction",
    "leave_one_out_mean",
    "mean_interval",
    "pass_at_k",
    "pass_at_k_exact",
    "support_change",
    "support_threshold",
]

Array = Any


def _log_ratio(log_ratio: Array) -> tuple[Any, Array]:
    xp, log_ratio = _validate.arrays(log_ratio=log_ratio)
    index = _validate.first_true(xp, xp.isnan(log_ratio))
    if index is not None:
        _validate.fail("log_ratio", "must not be NaN", index=index)
    return xp, log_ratio


def k1(log_ratio: Array) -> Array:
    """``log(pi/q)``: unbiased for ``KL(pi‖q)``, may be negative. Elementwise."""
    return _log_ratio(log_ratio)[1]


def k2(log_ratio: Array) -> Array:
    """``log(pi/q)^2 / 2``: non-negative, biased to third order; its gradient as a loss is that of ``KL(pi‖q)``."""
    with np.errstate(over="ignore"):
        return _log_ratio(log_ratio)[1] ** 2 / 2


def k3(log_ratio: Array) -> Array:
    """``q/pi - 1 - log(q/pi) >= 0``: unbiased where ``q`` lives on the support of ``pi``. Stable near 0."""
    xp, x = _log_ratio(log_ratio)
    with np.errstate(over="ignore", invalid="ignore"):
        near = xp.abs(x) <= 0.5
        close = polynomial(-xp.where(near, x, xp.zeros_like(x)), PHI)
        return xp.where(near, close, xp.where(xp.isinf(x), xp.abs(x), xp.expm1(-x) + x))


def importance_weights(log_ratio: Array, *, normalise: bool = False, truncate: float = math.inf) -> Array:
    """``pi/mu`` of samples from ``mu`` given ``log_ratio = log pi - log mu``, on the last axis.

    ``truncate`` caps each weight; ``normalise`` makes them sum to 1 (self-normalised, cap applied first).

    Raises:
        ValueError: NaN, a cap that is not > 0, or weights that are all 0 when normalising.
    """
    truncate = _validate.real("truncate", truncate, low=0.0, open_low=True)
    xp, x = _log_ratio(log_ratio)
    if math.isfinite(truncate):
        x = xp.where(x > math.log(truncate), xp.full_like(x, math.log(truncate)), x)
    if not _validate.flag("normalise", normalise):
        with np.errstate(over="ignore"):
            return xp.exp(x)
    _validate.log_probs("log_ratio", xp, x, normalised=False)
    weights = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def effective_sample_size(weights: Array) -> Array:
    """``(sum w)^2 / sum w^2`` on the last axis: between 1 and n.

    Raises:
        ValueError: negative or all-zero weights.
    """
    xp, w = _validate.arrays(weights=weights)
    _validate.budgets("weights", xp, _validate.finite("weights", xp, w))
    if w.ndim == 0 or w.shape[-1] == 0:
        _validate.fail("weights", f"needs a non-empty last axis, got shape {tuple(w.shape)}")
    top = xp.max(w, axis=-1, keepdims=True)
    index = _validate.first_true(xp, top[..., 0] == 0)
    if index is not None:
        _validate.fail("weights", "are all 0", index=index)
    w = w / top
    return xp.sum(w, axis=-1) ** 2 / xp.sum(w * w, axis=-1)


def pass_at_k(n: Any, c: Any, k: Any) -> np.ndarray:
    """Unbiased pass@k from ``c`` successes in ``n`` samples: ``1 - C(n-c, k)/C(n, k)``. Integer arrays broadcast.

    Raises:
        ValueError: ``k > n``, ``c > n`` or negative counts.
    """
    n, c, k = (_validate.integers(name, v, low=0) for name, v in (("n", n), ("c", c), ("k", k)))
    _validate.broadcast(n=n, c=c, k=k)
    n, c, k = np.broadcast_arrays(n, c, k)
    for name, bad, rule in (("c", c > n, "must be at most n"), ("k", k > n, "must be at most n")):
        index = _validate.first_true(np, bad)
        if index is not None:
            _validate.fail(name, rule, int({"c": c, "k": k}[name][index]), index)
    few, many = np.minimum(c, k), np.maximum(c, k)
    # C(n-c, k)/C(n, k) = prod_{j < few} (1 - many/(n-j)): symmetric in c and k, no cancellation
    log_miss = np.zeros(n.shape)
    with np.errstate(divide="ignore"):
        for j in range(int(few.max(initial=0))):
            factor = np.log1p(-np.minimum(many / np.maximum(n - j, 1), 1.0))
            log_miss = np.where(j < few, log_miss + factor, log_miss)
    return np.asarray(-np.expm1(log_miss))


def pass_at_k_exact(success: Any, k: Any) -> np.ndarray:
    """``1 - (1 - p)^k`` for success probability ``p`` and k >= 0 i.i.d. samples, without cancellation."""
    xp, success, k = _validate.arrays(success=success, k=k)
    _validate.broadcast(success=success, k=k)
    index = _validate.first_true(xp, ~((success >= 0) & (success <= 1)))
    if index is not None:
        _validate.fail("success", "must lie in [0, 1]", float(success[index]), index)
    _validate.budgets("k", xp, _validate.finite("k", xp, k))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = -np.expm1(k * np.log1p(-success))
    return np.where(k == 0, 0.0, value)


def support_threshold(draws: Any, confidence: Any = 0.95) -> np.ndarray:
    """Smallest p for which a *fixed* outcome unseen in ``draws`` draws has probability at most p, with ``confidence``.

    ``1 - (1 - confidence)^{1/draws}``, slightly below the usual ``-log(1 - confidence)/draws``. For many
    outcomes at once a union bound is needed.
    """
    xp, draws, confidence = _validate.arrays(draws=draws, confidence=confidence)
    _validate.positive("draws", xp, draws)
    index = _validate.first_true(xp, ~((confidence > 0) & (confidence < 1)))
    if index is not None:
        _validate.fail("confidence", "must lie in (0, 1)", float(confidence[index]), index)
    _validate.broadcast(draws=draws, confidence=confidence)
    with np.errstate(over="ignore"):
        return np.asarray(-np.expm1(np.log1p(-confidence) / draws))


@dataclass(frozen=True)
class SupportChange:
    """How the empirical support of correct answers changed from a base policy to a trained one.

    Attributes:
        preserved, expanded, shrunk, out: answers above the threshold in both, only after, only before,
            in neither.
    """

    preserved: int
    expanded: int
    shrunk: int
    out: int

    @property
    def retention(self) -> float:
        """SRR = P/(P+S)."""
        return self.preserved / (self.preserved + self.shrunk) if self.preserved + self.shrunk else 1.0

    @property
    def discovery(self) -> float:
        """NDR = E/(P+E)."""
        return self.expanded / (self.preserved + self.expanded) if self.preserved + self.expanded else 0.0

    @property
    def harmonic(self) -> float:
        """SDS, the harmonic mean of the two; 0 when nothing was discovered."""
        r, d = self.retention, self.discovery
        return 2 * r * d / (r + d) if d else 0.0

    @property
    def net(self) -> float:
        """NSCR = (E - S)/(P + E + S)."""
        total = self.preserved + self.expanded + self.shrunk
        return (self.expanded - self.shrunk) / total if total else 0.0


def support_change(before: Any, after: Any, threshold: float) -> SupportChange:
    """Count correct answers above ``threshold`` before and after (arXiv 2507.14843, Definition 3.3).

    Args:
        before, after: probabilities of the same correct answers, equal shapes.

    Raises:
        ValueError: probabilities outside [0, 1], shapes that differ, a threshold outside (0, 1].
    """
    threshold = _validate.real("threshold", threshold, low=0.0, high=1.0, open_low=True)
    xp, before, after = _validate.arrays(before=before, after=after)
    if before.shape != after.shape:
        _validate.fail("after", f"must have the shape of before {before.shape}, got {after.shape}")
    for name, value in (("before", before), ("after", after)):
        index = _validate.first_true(xp, ~((value >= 0) & (value <= 1)))
        if index is not None:
            _validate.fail(name, "must lie in [0, 1]", float(value[index]), index)
    was, now = before > threshold, after > threshold
    counts = (was & now, ~was & now, was & ~now, ~was & ~now)
    return SupportChange(*(int(np.sum(c)) for c in counts))


def best_of_n_reward(rewards: Any, n: int) -> np.ndarray:
    """Unbiased estimate of ``E[max of n draws]`` from at least n samples, last axis: the mean over all subsets.

    ``sum_i r_(i) C(i-1, n-1)/C(m, n)`` over the order statistics of m samples; ties need no care.

    Raises:
        ValueError: fewer samples than ``n``, rewards that are not finite.
    """
    xp, rewards = _validate.arrays(rewards=rewards)
    rewards = np.sort(np.asarray(_validate.finite("rewards", xp, rewards)), axis=-1)
    n = _validate.integer("n", n, low=1)
    count = rewards.shape[-1] if rewards.ndim else 0
    if count < n:
        _validate.fail("rewards", f"needs at least n = {n} samples, got {count}")
    from scipy.special import gammaln

    i = np.arange(1, count + 1)
    with np.errstate(divide="ignore"):
        log_weight = np.where(i >= n, gammaln(i) - gammaln(np.maximum(i - n + 1, 1)), -np.inf)
    log_weight += math.log(n) - gammaln(count + 1) + gammaln(count - n + 1)
    return np.asarray(rewards @ np.exp(log_weight))


def kept_fraction(a: Any, b: Any, n: Any) -> np.ndarray:
    """Share of prompts that dynamic sampling keeps when pass rates are ``Beta(a, b)`` and n rollouts are drawn.

    ``1 - B(a+n, b)/B(a, b) - B(a, b+n)/B(a, b)``: neither all correct nor all wrong.
    """
    xp, a, b, n = _validate.arrays(a=a, b=b, n=n)
    for name, value in (("a", a), ("b", b), ("n", n)):
        _validate.positive(name, xp, value)
        index = _validate.first_true(xp, (value > 1e15) | (value < 1e-15))
        if index is not None:
            _validate.fail(name, "must lie in [1e-15, 1e15]", float(value[index]), index)
    _validate.broadcast(a=a, b=b, n=n)
    from scipy.special import betaln

    base = betaln(a, b)
    return np.asarray(-np.expm1(betaln(a + n, b) - base) - np.exp(betaln(a, b + n) - base))


def leave_one_out_mean(values: Any) -> np.ndarray:
    """For each sample the mean of the others, last axis.

    Raises:
        ValueError: fewer than two samples.
    """
    xp, values = _validate.arrays(values=values)
    _validate.finite("values", xp, values)
    if values.ndim == 0 or values.shape[-1] < 2:
        _validate.fail("values", f"needs at least two samples on the last axis, got shape {values.shape}")
    size = np.max(np.abs(values), axis=-1, keepdims=True)  # sums of huge values would overflow
    scaled = values / np.where(size > 0, size, 1.0)
    return np.asarray((scaled.sum(axis=-1, keepdims=True) - scaled) / (values.shape[-1] - 1) * size)


def mean_interval(values: Any, level: float = 0.95, rng: np.random.Generator | int = 0) -> tuple[float, float]:
    """Confidence interval of a mean: the wider of the BCa bootstrap and the Student-t interval, ``values (n,)``.

    The bootstrap alone is too narrow for few samples, Student's t alone for skewed ones.

    Raises:
        ValueError: fewer than two values, values that are not finite, a level outside (0, 1).
    """
    from scipy import stats

    xp, values = _validate.arrays(values=values)
    _validate.finite("values", xp, values)
    level = _validate.real("level", level, low=0.0, high=np.nextafter(1.0, 0.0), open_low=True)
    if values.ndim != 1 or values.size < 2:
        _validate.fail("values", f"needs at least two values in one dimension, got shape {values.shape}")
    size = float(np.abs(values).max())
    if size > 1e150 or 0 < size < 1e-150:  # squares would overflow or vanish
        low, high = mean_interval(values / size, level, rng)
        return low * size, high * size
    mean = float(values.mean())
    stderr = float(values.std(ddof=1)) / math.sqrt(values.size)
    if stderr <= 1e-14 * max(1.0, abs(mean)):
        return mean, mean
    half = float(stats.t.ppf(0.5 + level / 2, values.size - 1)) * stderr
    generator = _validate.generator(rng)
    boot = stats.bootstrap((values,), np.mean, confidence_level=level, n_resamples=4999, rng=generator)
    low, high = (float(end) if math.isfinite(end) else mean for end in boot.confidence_interval)
    return min(low, mean - half), max(high, mean + half)
