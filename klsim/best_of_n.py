r"""The law of the best of N independent draws from a reference, exactly.

With ``F(a) = P(r(Y) <= r(a))``, ``F^-(a) = P(r(Y) < r(a))`` under ``ref`` and ties broken uniformly
among the *draws* that attain the maximum,

.. math:: bon_N(a) = ref(a)\, \frac{F(a)^N - F^-(a)^N}{F(a) - F^-(a)},

for every real ``N > 0``. Everything is computed per tie class, in log space, from strict upper tails that
are summed from the top, so that ``N`` may be astronomically large: give ``log_n`` instead of ``n``.

Functions take NumPy arrays, torch tensors and other array-API arrays and return the same kind; the work
is done on NumPy copies (sorting has no useful gradient), so results are constants for autograd.

Sources: arXiv 2401.01879 (bound and estimator), arXiv 2406.00832 (win rate against KL).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from klsim import _validate
from klsim._stable import PHI, polynomial
from klsim._sums import quiet
from klsim.distributions import give_back, to_numpy
from klsim.divergences import GENERATORS, divergence_of, divergence_of_ratio

__all__ = [
    "RewardLaw",
    "expected_reward",
    "kl",
    "kl_estimate",
    "kl_upper_bound",
    "log_policy",
    "mid_quantile",
    "optimal_win_rate",
    "quantile_tilt",
    "reward_law",
    "sample",
    "win_rate",
]

Array = Any


_LONG = 1 << 16  # outcomes from which a row is sorted and summed in pieces, on all threads


def _log_count(n: Any, log_n: Any) -> tuple[Any, Array]:
    """``log N`` from exactly one of ``n > 0`` and finite ``log_n``."""
    if (n is None) == (log_n is None):
        raise TypeError("n: give exactly one of n and log_n")
    if n is None:
        xp, log_n = _validate.arrays(log_n=log_n)
        return xp, _validate.finite("log_n", xp, log_n)
    xp, n = _validate.arrays(n=n)
    return xp, xp.log(_validate.positive("n", xp, n))


def _sorted_rows(log_ref: Array, reward: Array, count: Array | None = None, name: str = "log_ref") -> tuple[Any, ...]:
    """``(log_ref as an array, shape, order, reward rows, log-mass rows, log N rows)``, rows sorted by reward."""
    xp, log_ref, reward = _validate.arrays(**{name: log_ref, "reward": reward})
    if _is_long(log_ref, reward) and (count is None or np.ndim(count) == 0):
        found = _long_sorted_row(log_ref, reward)
        if found is not None:
            log_n = np.full(1, 0.0 if count is None else float(to_numpy(count)))
            return log_ref, reward.shape, *found, log_n
    _validate.log_probs(name, xp, log_ref)
    _validate.same_last_axis(**{name: log_ref, "reward": reward})
    _validate.finite("reward", xp, reward)
    log_p, r = (np.asarray(to_numpy(a), dtype=np.float64) for a in (log_ref, reward))
    log_n = np.asarray(0.0 if count is None else to_numpy(count), dtype=np.float64)
    size = log_p.shape[-1]
    try:
        full = np.broadcast_shapes(log_p.shape, r.shape, (*log_n.shape, 1), (size,))
    except ValueError:
        batch = np.broadcast_shapes(log_p.shape, r.shape)[:-1]
        raise ValueError(f"n (log_n): shape {log_n.shape} must broadcast to the batch shape {batch}") from None
    log_p, r = (np.broadcast_to(a, full).reshape(-1, size) for a in (log_p, r))
    rows = np.broadcast_to(log_n[..., None], (*full[:-1], 1)).reshape(-1).astype(np.float64)
    order = np.argsort(r, axis=-1)  # the order within ties does not matter
    ordered = [np.ascontiguousarray(np.take_along_axis(a, order, axis=-1)) for a in (r, log_p)]
    return log_ref, full, order, *ordered, rows


def _is_long(*arrays: Array) -> bool:
    """One NumPy float64 row so long that the kernels for such rows are worth their first call."""
    first = arrays[0]
    return all(isinstance(a, np.ndarray) and a.dtype == np.float64 and a.ndim == 1 and a.shape == first.shape
               and a.size >= _LONG for a in arrays)  # fmt: skip


def _long_sorted_row(log_ref: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """``(order, reward, log-mass)`` of one long row, ``(1, A)`` each; None where the door has to look at it."""
    from klsim.kernels.long_rows import is_legal
    from klsim.kernels.sorting import gather, sorted_with_order

    log_ref, reward = np.ascontiguousarray(log_ref), np.ascontiguousarray(reward)
    if not is_legal(log_ref, reward):
        return None
    values, order = sorted_with_order(reward)
    return order[None], values[None], np.asarray(gather(log_ref, order))[None]


def _law_rows(reward: np.ndarray, log_mass: np.ndarray, log_n: np.ndarray) -> np.ndarray:
    """Log-law of the best of N of sorted rows."""
    from klsim.kernels.order_statistics import best_of_n_rows

    if len(reward) == 1 and reward.size >= _LONG:
        from klsim.kernels.long_rows import best_of_n_long_row

        least = log_mass.min()
        if least == -np.inf:
            least = log_mass[np.isfinite(log_mass)].min()
        # probabilities and powers that sums of probabilities would lose are left to sums of logs
        if least > -650.0 and abs(log_n[0]) < 600.0:
            return np.asarray(best_of_n_long_row(reward[0], log_mass[0], log_n[0]))[None]
    return np.asarray(best_of_n_rows(reward, log_mass, log_n))


def _unsort(values: np.ndarray, order: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(order) == 1 and order.size >= _LONG:
        from klsim.kernels.sorting import scatter

        return np.asarray(scatter(values[0], order[0])).reshape(shape)
    out = np.empty_like(values)
    np.put_along_axis(out, order, values, axis=-1)
    return out.reshape(shape)


def _like(like: Array, values: np.ndarray) -> Array:
    return give_back(array_namespace(like), like, values)


def _law(log_ref: Array, reward: Array, n: Any, log_n: Any) -> tuple[Any, ...]:
    """``(log_ref as an array, shape, sorted reward, sorted log ref, sorted log bon, order, log N)``."""
    _, count = _log_count(n, log_n)
    like, shape, order, r, log_p, rows = _sorted_rows(log_ref, reward, count)
    return like, shape, r, log_p, _law_rows(r, log_p, rows), order, rows


@_validate.widened
@quiet
def log_policy(log_ref: Array, reward: Array, n: Array | None = None, *, log_n: Array | None = None) -> Array:
    """Log-probabilities of the best of ``n`` draws, shape ``(..., A)``.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``, finite; equal rewards are ties.
        n: real number of draws, > 0, scalar or batch; or ``log_n``, its logarithm.

    Raises:
        TypeError: both or neither of ``n`` and ``log_n``.
        ValueError: ``n <= 0``, bad shapes, a reward that is not finite.
    """
    like, shape, _, _, law, order, _ = _law(log_ref, reward, n, log_n)
    return _like(like, _unsort(law, order, shape))


@_validate.widened
@quiet
def kl(log_ref: Array, reward: Array, n: Array | None = None, *, log_n: Array | None = None) -> Array:
    """``KL(bon_N‖ref)`` in nats, shape ``(...)``; at most ``kl_upper_bound(n)`` and ``-log ref(argmax r)``.

    Arguments and errors as `log_policy`.
    """
    like, shape, r, log_p, law, _, rows = _law(log_ref, reward, n, log_n)
    found = np.asarray(divergence_of(np, law, log_p, GENERATORS["kl"]))
    near = np.abs(rows) <= 0.1
    if near.any():
        ratio = _log_ratio_near_one(r[near], log_p[near], np.expm1(rows[near])[:, None])
        found[near] = divergence_of_ratio(np, log_p[near], ratio, GENERATORS["kl"])
    return _like(like, found.reshape(shape[:-1]))


def _log_ratio_near_one(r: np.ndarray, log_p: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """``log(bon_N/ref)`` of sorted rows for ``N = 1 + extra`` near 1, with relative accuracy.

    ``(F^N - F_-^N)/p - 1 = g(F) + (F_-/p) F_-^{N-1} (e^{(N-1) log(F/F_-)} - 1)`` with ``g(u) = u^{N-1} - 1``.
    """
    size = r.shape[1]
    fresh = np.diff(r, axis=1, prepend=np.nan) != 0  # the first of a tie class
    starts = np.flatnonzero(fresh)
    lengths = np.diff(starts, append=r.size)
    mass = np.repeat(np.add.reduceat(np.exp(log_p).ravel(), starts), lengths).reshape(r.shape)
    own = np.exp(log_p)
    here = np.repeat(starts % size, lengths).reshape(r.shape)
    upto = np.concatenate([np.zeros((len(r), 1)), np.cumsum(own, axis=1)], axis=1)
    beyond = np.concatenate([np.cumsum(own[:, ::-1], axis=1)[:, ::-1], np.zeros((len(r), 1))], axis=1)
    ends = here + np.repeat(lengths, lengths).reshape(r.shape)
    below, above = np.take_along_axis(upto, here, axis=1), np.take_along_axis(beyond, ends, axis=1)

    def log_of(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        return np.where(upper < 0.5, np.log1p(-np.minimum(upper, 1.0)), np.log(np.minimum(lower, 1.0)))

    first = np.expm1(extra * log_of(below + mass, above))
    log_below = log_of(below, above + mass)
    share = mass / below
    rise = np.exp(extra * log_below) * np.expm1(extra * np.log1p(share)) / share
    rise = np.where(share > 0, rise, extra * np.exp(extra * log_below))
    gained = first + np.where(below > 0, rise, 0.0)
    return np.where(np.isfinite(log_p), np.log1p(np.maximum(gained, -1.0)), 0.0)


@_validate.widened
@quiet
def kl_upper_bound(n: Array | None = None, *, log_n: Array | None = None) -> Array:
    """``log N - (N - 1)/N``: the KL for continuous rewards, an upper bound for all (2401.01879, Thm 3.1)."""
    xp, x = _log_count(n, log_n)
    near = xp.abs(x) <= 0.5
    close = polynomial(-xp.where(near, x, xp.zeros_like(x)), PHI)
    return xp.where(near, close, x + xp.expm1(-x))


@_validate.widened
@quiet
def kl_estimate(log_prob: Array, n: Array | None = None, *, log_n: Array | None = None) -> Array:
    r"""Estimate of ``KL(bon_N‖ref)`` from the probability ``eps = exp(log_prob)`` of the selected outcome.

    .. math:: \hat K = (1-\epsilon)^N [\log N + (N-1)\log(1-\epsilon) - \tfrac{N-1}{N}]
              + (1-(1-\epsilon)^N) \log\tfrac{1-(1-\epsilon)^N}{\epsilon}

    (arXiv 2401.01879). Exact when the best outcome has mass ``eps`` and all below is continuous; in
    expectation over the selected outcome it lies between the KL and ``kl_upper_bound`` for N >= 1.

    Raises:
        ValueError: ``log_prob > 0`` or NaN.
    """
    _, count = _log_count(n, log_n)
    xp, log_prob, count = _validate.arrays(log_prob=log_prob, log_n=count)
    _validate.broadcast(log_prob=log_prob, **{"n" if log_n is None else "log_n": count})
    index = _validate.first_true(xp, ~(log_prob <= 0))
    if index is not None:
        _validate.fail("log_prob", "must be <= 0", float(log_prob[index]), index)
    number = xp.exp(count)
    sure = log_prob == 0
    tiny = log_prob < -40.0  # log(1 - eps) is -eps, and N eps may be of order one where N overflows
    log_rest = xp.log1p(-xp.exp(xp.where(sure | tiny, xp.full_like(log_prob, -1.0), log_prob)))
    log_power = xp.where(tiny, -xp.exp(count + log_prob), number * log_rest)
    missed = xp.exp(log_power)
    hit = -xp.expm1(log_power)
    miss_value = count + (1.0 - log_power) * xp.expm1(-count)  # (N - 1) log(1 - eps) = log_power (1 - 1/N)
    hit_value = xp.where(hit > 0, xp.log(xp.where(hit > 0, hit, xp.ones_like(hit))) - log_prob, count + 0 * hit)
    hit_term = xp.where(hit > 0, hit * xp.where(xp.isfinite(hit_value), hit_value, 0 * hit), 0 * hit)
    value = xp.where(missed > 0, missed * miss_value, 0 * missed) + hit_term
    return xp.where(sure, xp.zeros_like(value), value)


@_validate.widened
@quiet
def expected_reward(log_ref: Array, reward: Array, n: Array | None = None, *, log_n: Array | None = None) -> Array:
    """``E_bon[r]``, shape ``(...)``. Arguments and errors as `log_policy`."""
    like, shape, r, _, law, *_ = _law(log_ref, reward, n, log_n)
    return _like(like, np.sum(np.exp(law) * r, axis=-1).reshape(shape[:-1]))


@_validate.widened
@quiet
def win_rate(log_ref: Array, reward: Array, n: Array | None = None, *, log_n: Array | None = None) -> Array:
    """Probability that the best of ``n`` beats an independent draw, ties counted 1/2; at most ``N/(N+1)``."""
    from klsim.kernels.order_statistics import mid_quantile_rows

    like, shape, r, log_p, law, *_ = _law(log_ref, reward, n, log_n)
    wins = np.sum(np.exp(law) * mid_quantile_rows(r, log_p), axis=-1)
    return _like(like, wins.reshape(shape[:-1]))


@_validate.widened
@quiet
def mid_quantile(log_ref: Array, reward: Array) -> Array:
    """``P(r(Y) < r(a)) + P(r(Y) = r(a))/2``, ``(..., A)``: the reward whose expectation is the win rate."""
    from klsim.kernels.order_statistics import mid_quantile_rows

    like, shape, order, r, log_p, _ = _sorted_rows(log_ref, reward)
    return _like(like, _unsort(mid_quantile_rows(r, log_p), order, shape))


@dataclass(frozen=True)
class RewardLaw:
    """The law of a scalar reward.

    Attributes:
        value: distinct values in ascending order, ``(K,)``.
        log_prob: their log-probabilities, ``(K,)``.
    """

    value: np.ndarray
    log_prob: np.ndarray

    def __post_init__(self) -> None:
        value, log_prob = _validate.numpy_arrays(value=self.value, log_prob=self.log_prob)
        if value.ndim != 1 or log_prob.shape != value.shape:
            _validate.fail("log_prob", f"must have the shape (K,) of value, got {log_prob.shape} and {value.shape}")
        _validate.finite("value", np, value)
        _validate.log_probs("log_prob", np, log_prob, normalised=False)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "log_prob", log_prob)


def reward_law(log_p: Array, reward: Array, tolerance: float = 0.0) -> RewardLaw:
    """The law of ``reward`` under ``p``, both ``(A,)``; values within ``tolerance`` of the next lower merge.

    Raises:
        ValueError: more than one row, or a negative tolerance.
    """
    tolerance = _validate.real("tolerance", tolerance, low=0.0)
    if math.isinf(tolerance):
        _validate.fail("tolerance", "must be finite", tolerance)
    _, shape, _, values, masses, _ = _sorted_rows(log_p, reward, name="log_p")
    if len(shape) != 1:
        _validate.fail("log_p", f"must be one distribution, got shape {shape}")
    keep = np.isfinite(masses[0])
    values, masses = values[0][keep], masses[0][keep]
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > tolerance)
    return RewardLaw(values[starts], np.logaddexp.reduceat(masses, starts))


@_validate.widened
def quantile_tilt(strength: Array) -> tuple[Array, Array]:
    r"""Win rate and KL of the quantile tilt with density ``c e^{cu}/(e^c - 1)`` on [0, 1], ``c > 0``.

    For continuous rewards it has the highest win rate at its KL: ``W = 1 - 1/c + 1/(e^c - 1)`` and
    ``KL = log(c/(e^c - 1)) + c W``.
    """
    xp, c = _validate.arrays(strength=strength)
    _validate.positive("strength", xp, c)
    with np.errstate(all="ignore"):
        near = c < 0.3
        small, decay = xp.where(near, c, xp.zeros_like(c)), xp.exp(-c) / -xp.expm1(-c)
        win = xp.where(near, 0.5 + _odd_series(small, _WIN), 1.0 - 1.0 / c + decay)
        far = xp.log(c / -xp.expm1(-c)) - 1.0 + c * decay
        return win, xp.where(near, small * _odd_series(small, _TILT_KL), far)


# Coefficients of c, c^3, c^5, ... in W - 1/2 and in KL / c; truncation < 1e-14 for c < 0.3.
_WIN = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160)
_TILT_KL = (1 / 24, -1 / 960, 5 / 181440, -7 / 9676800, 9 / 479001600)


def _odd_series(c: Array, coefficients: tuple[float, ...]) -> Array:
    total = 0.0 * c
    for k in coefficients[::-1]:
        total = total * c * c + k
    return total * c


def optimal_win_rate(budget: Any) -> np.ndarray:
    """The highest win rate of any policy with ``KL(pi‖ref) <= budget``, for continuous rewards.

    Raises:
        ValueError: ``budget`` is not finite and >= 0, or above 600 nats.
    """
    (budget,) = _validate.numpy_arrays(budget=budget)
    _validate.budgets("budget", np, budget)
    index = _validate.first_true(np, budget > 600)
    if index is not None:
        _validate.fail("budget", "must be <= 600 nats", float(budget[index]), index)
    from scipy.optimize import elementwise

    tiny = budget < 1e-12  # KL = c²/24, W = 1/2 + c/12 there, to rounding
    safe = np.where(tiny, 1.0, budget)
    low, high = -30.0, np.full(budget.shape, 650.0)  # KL(c) ~ log c - 1 for large c
    found = elementwise.find_root(
        lambda x, b: np.log(quantile_tilt(np.exp(x))[1]) - np.log(b), (low + 0 * safe, high), args=(safe,)
    )
    return np.where(tiny, 0.5 + np.sqrt(24 * budget) / 12, quantile_tilt(np.exp(found.x))[0])


def sample(log_ref: Array, reward: Array, n: int, size: int, rng: np.random.Generator | int) -> np.ndarray:
    """``size`` outcomes of the actual sampler: ``n`` draws from ``ref``, one of the best at random.

    Shapes: ``log_ref, reward (A,)`` -> ``(size,)`` int64.
    """
    from klsim import distributions

    n, size = _validate.integer("n", n, low=1), _validate.integer("size", size, low=0)
    rng = _validate.generator(rng)
    _validate.fits("size", size, size * n, each=48)
    _, shape, *_ = _sorted_rows(log_ref, reward)
    if len(shape) != 1:
        _validate.fail("log_ref", f"must be one distribution, got shape {shape}")
    draws = distributions.sample(log_ref, (size, n), rng)
    got = np.asarray(to_numpy(_validate.arrays(reward=reward)[1]))[draws]
    # a random key among the maximisers breaks ties uniformly
    keys = np.where(got == got.max(axis=1, keepdims=True), rng.random(got.shape), -1.0)
    return draws[np.arange(size), keys.argmax(axis=1)]
