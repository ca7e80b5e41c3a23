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


@_validate.widened
def k1(log_ratio: Array) -> Array:
    """``log(pi/q)``: unbiased for ``KL(pi‖q)``, may be negative. Elementwise."""
    return _log_ratio(log_ratio)[1]


@_validate.widened
def k2(log_ratio: Array) -> Array:
    """``log(pi/q)^2 / 2``: non-negative, biased to third order; its gradient as a loss is that of ``KL(pi‖q)``."""
    with np.errstate(over="ignore"):
        return _log_ratio(log_ratio)[1] ** 2 / 2


@_validate.widened
def k3(log_ratio: Array) -> Array:
    """``q/pi - 1 - log(q/pi) >= 0``: unbiased where ``q`` lives on the support of ``pi``. Stable near 0."""
    xp, x = _log_ratio(log_ratio)
    with np.errstate(over="ignore", invalid="ignore"):
        near = xp.abs(x) <= 0.5
        close = polynomial(-xp.where(near, x, xp.zeros_like(x)), PHI)
        return xp.where(near, close, xp.where(xp.isinf(x), xp.abs(x), xp.expm1(-x) + x))


@_validate.widened
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


@_validate.widened
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
    if few.size and few.max() > 10**7:
        _validate.fail("k", "min(c, k) must be at most 10^7 (that many factors are multiplied)", int(few.max()))
    # C(n-c, k)/C(n, k) = prod_{j < few} (1 - many/(n-j)): symmetric in c and k, no cancellation
    log_miss = np.zeros(n.shape)
    with np.errstate(divide="ignore"):
        for j in range(int(few.max(initial=0))):
            factor = np.log1p(-np.minimum(many / np.maximum(n - j, 1), 1.0))
            log_miss = np.where(j < few, log_miss + factor, log_miss)
    return np.asarray(-np.expm1(log_miss))


def pass_at_k_exact(success: Any, k: Any) -> np.ndarray:
    """``1 - (1 - p)^k`` for success probability ``p`` and k >= 0 i.i.d. samples, without cancellation."""
    success, k = _validate.numpy_arrays(success=success, k=k)
    _validate.broadcast(success=success, k=k)
    _validate.unit_interval("success", np, success)
    _validate.budgets("k", np, _validate.finite("k", np, k))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = -np.expm1(k * np.log1p(-success))
    return np.where(k == 0, 0.0, value)


def support_threshold(draws: Any, confidence: Any = 0.95) -> np.ndarray:
    """Smallest p for which a *fixed* outcome unseen in ``draws`` draws has probability at most p, with ``confidence``.

    ``1 - (1 - confidence)^{1/draws}``, slightly below the usual ``-log(1 - confidence)/draws``. For many
    outcomes at once a union bound is needed.
    """
    draws, confidence = _validate.numpy_arrays(draws=draws, confidence=confidence)
    _validate.positive("draws", np, draws)
    _validate.unit_interval("confidence", np, confidence, open_ends=True)
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
    before, after = _validate.numpy_arrays(before=before, after=after)
    if before.shape != after.shape:
        _validate.fail("after", f"must have the shape of before {before.shape}, got {after.shape}")
    for name, value in (("before", before), ("after", after)):
        _validate.unit_interval(name, np, value)
    was, now = before > threshold, after > threshold
    counts = (was & now, ~was & now, was & ~now, ~was & ~now)
    return SupportChange(*(int(np.sum(c)) for c in counts))


def best_of_n_reward(rewards: Any, n: int) -> np.ndarray:
    """Unbiased estimate of ``E[max of n draws]`` from at least n samples, last axis: the mean over all subsets.

    ``sum_i r_(i) C(i-1, n-1)/C(m, n)`` over the order statistics of m samples; ties need no care.

    Raises:
        ValueError: fewer samples than ``n``, rewards that are not finite.
    """
    (rewards,) = _validate.numpy_arrays(rewards=rewards)
    rewards = np.sort(_validate.finite("rewards", np, rewards), axis=-1)[..., ::-1] if rewards.ndim else rewards
    n = _validate.integer("n", n, low=1)
    count = rewards.shape[-1] if rewards.ndim else 0
    if count < n:
        _validate.fail("rewards", f"needs at least n = {n} samples, got {count}")
    # from the top: n/m, then each is (i - n)/(i - 1) of the one above it; no logarithms, no cancellation
    i = np.arange(count, 1, -1)
    weights = np.cumprod(np.concatenate([[n / count], np.maximum(i - n, 0) / (i - 1)]))
    return np.asarray(rewards @ weights)


def kept_fraction(a: Any, b: Any, n: Any) -> np.ndarray:
    """Share of prompts that dynamic sampling keeps when pass rates are ``Beta(a, b)`` and n rollouts are drawn.

    ``1 - B(a+n, b)/B(a, b) - B(a, b+n)/B(a, b)``: neither all correct nor all wrong. A rollout more keeps those that
    were all right and then go wrong, or the other way round; summed over rollouts, all terms are positive:
    ``sum_{j=1}^{n-1} (b u_j + a w_j)/(a + b + j)`` with ``u_j, w_j`` the shares that are all right, all wrong after j.

    Raises:
        ValueError: ``a``, ``b`` outside [1e-15, 1e15], ``n`` not a whole number in [1, 10^7].
    """
    a, b, n = _validate.numpy_arrays(a=a, b=b, n=n)
    for name, value in (("a", a), ("b", b)):
        _validate.positive(name, np, value)
        index = _validate.first_true(np, (value > 1e15) | (value < 1e-15))
        if index is not None:
            _validate.fail(name, "must lie in [1e-15, 1e15]", float(value[index]), index)
    index = _validate.first_true(np, ~((n >= 1) & (n <= 10**7) & (n == np.floor(n))))
    if index is not None:
        _validate.fail("n", "must be a whole number in [1, 10^7]", float(n[index]), index)
    shape = _validate.broadcast(a=a, b=b, n=n)
    _validate.fits("n", int(n.max(initial=1)), n.max(initial=1) * math.prod(shape), each=2)
    flat = (np.broadcast_to(x, shape).ravel() for x in (a, b, n))
    return np.array([_kept(*map(float, row)) for row in zip(*flat)]).reshape(shape)


def _kept(a: float, b: float, n: float) -> float:
    """`kept_fraction` of one prompt, in blocks of rollouts."""
    total, right, wrong = 0.0, a / (a + b), b / (a + b)  # all right, all wrong after one rollout
    for start in range(1, int(n), 2**16):
        j = np.arange(start, min(start + 2**16, int(n)), dtype=float)
        u = right * np.concatenate([[1.0], np.cumprod((a + j) / (a + b + j))])
        w = wrong * np.concatenate([[1.0], np.cumprod((b + j) / (a + b + j))])
        total += float(np.sum((b * u[:-1] + a * w[:-1]) / (a + b + j)))
        right, wrong = float(u[-1]), float(w[-1])
    return total


def leave_one_out_mean(values: Any) -> np.ndarray:
    """For each sample the mean of the others, last axis.

    Raises:
        ValueError: fewer than two samples.
    """
    (values,) = _validate.numpy_arrays(values=values)
    _validate.finite("values", np, values)
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

    (values,) = _validate.numpy_arrays(values=values)
    _validate.finite("values", np, values)
    level = _validate.real("level", level, low=0.0, high=1.0, open_low=True, open_high=True)
    generator = _validate.generator(rng)
    if values.ndim != 1 or values.size < 2:
        _validate.fail("values", f"needs at least two values in one dimension, got shape {values.shape}")
    size = float(np.abs(values).max())
    if size > 1e150 or 0 < size < 1e-150:  # squares would overflow or vanish
        low, high = mean_interval(np.asarray(values / size, dtype=np.float64), level, rng)
        with np.errstate(over="ignore"):
            _validate.representable("values", np, size * np.array([low, high]))
        return low * size, high * size
    mean = float(values.mean())
    stderr = float(values.std(ddof=1)) / math.sqrt(values.size)
    if stderr <= 1e-14 * size:  # equal values, up to rounding
        return mean, mean
    half = float(stats.t.ppf(0.5 + level / 2, values.size - 1)) * stderr
    boot = stats.bootstrap((values,), np.mean, confidence_level=level, n_resamples=4999, rng=generator)
    low, high = (float(end) if math.isfinite(end) else mean for end in boot.confidence_interval)
    return min(low, mean - half), max(high, mean + half)
