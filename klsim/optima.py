r"""Optima of regularised reward maximisation on categorical distributions.

.. math:: \max_{\pi \ll ref}\; E_\pi[r] - \beta\, D_f(\pi \| ref)

For KL the optimum is the tilt ``ref·exp(r/beta)/Z`` with value ``beta log Z``. For any other generator
the Lagrangian of the normalisation leaves one number to find. Outcomes are measured by their shortfall
``max r - r``; with ``T`` the ratio ``pi/ref`` of the best outcome, stationarity gives the other ratios as
``(f')^{-1}(f'(T) - shortfall/beta)``, increasing in ``T``, and ``T`` in ``[1, 1/ref(argmax r)]`` makes them
sum to 1. Where ``f'(0)`` is finite (chi², alpha > 1) outcomes are dropped, and ratios are measured from the worst
one that is kept instead. These forms have no cancellation for any ``beta``. The tangent of the objective at the
result bounds every policy's value, so the result carries a gap.

The KL-constrained optimum ``max E_pi[r] s.t. KL(pi‖ref) <= budget`` is the tilt whose KL is the budget,
until the budget reaches ``-log ref(argmax r)``: from there it is ``ref(. | argmax r)``, with ``beta = 0``.

Everything is batched over leading axes. `kl_regularized` lets gradients flow; the other optima come
out of a root finder that works on NumPy copies, and are constants for automatic differentiation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim._stable import excess
from klsim._sums import log_mean_exp_of_shortfall, log_sum, mean, mean_expm1, quiet
from klsim.distributions import (
    give_back,
    log_partition_of,
    reference_and_reward,
    relative_shortfall,
    shortfall,
    to_numpy,
)
from klsim.divergences import Generator, as_generator, divergence_of_ratio

__all__ = ["Optimum", "f_regularized", "forward_kl_regularized", "kl_constrained", "kl_regularized", "worst_case"]

Array = Any


@dataclass(frozen=True, repr=False)
class Optimum(Shown):
    """An optimal policy and what it achieves; arrays have the batch shape ``(...)``.

    Attributes:
        log_policy: ``(..., A)``.
        value: the regularised (for a constraint: the plain) objective at the optimum, in reward units.
        reward: ``E_pi[r]``.
        kl: ``KL(pi‖ref)`` in nats, whatever the regulariser.
        beta: the coefficient; for a constraint the multiplier ``d reward / d budget`` (0 if slack).
        gap: upper bound on what any policy could gain over ``log_policy``; for `kl_regularized` the rounding
            between ``beta log Z`` and ``reward - beta kl``; for a constraint ``beta * |kl - budget|``. Reward units.
        converged: whether the gap is at rounding level for every element of the batch.
        reason: in words, why the solver stopped.
    """

    log_policy: Array
    value: Array
    reward: Array
    kl: Array
    beta: Array
    gap: Array
    converged: bool
    reason: str


def _tilt(xp: Any, log_ref: Array, reward: Array, beta: Array) -> tuple[Array, Array]:
    """``(log(pi/ref), beta log Z)`` of the tilt: the ratio is 0 without support, the value ``(..., 1)``.

    The ratio is measured from the best reward, which is then neither divided nor multiplied by beta; the value too,
    unless exponents are small: then they are averaged by ``expm1``.
    """
    gone = xp.isinf(log_ref)
    best, drop = relative_shortfall(xp, log_ref, reward, beta)
    far = log_mean_exp_of_shortfall(xp, log_ref, drop)
    ratio = xp.where(gone, xp.zeros_like(drop), -drop - far)
    exponent = xp.where(gone, xp.zeros_like(drop), reward / beta)
    small = xp.all(xp.abs(exponent) <= 0.5, axis=-1, keepdims=True)
    if not bool(xp.any(small)):
        return ratio, best + beta * far
    near = xp.log1p(mean_expm1(xp, log_ref, xp.where(small, exponent, xp.zeros_like(exponent))))
    return ratio, xp.where(small, beta * near, best + beta * far)


def _kl_of_ratio(xp: Any, log_ref: Array, log_ratio: Array) -> Array:
    """``KL(pi‖ref)`` from the log-ratio itself: ``sum ref·(x e^x - e^x + 1)``; ``-inf`` is a ratio of 0."""
    gone, lost = xp.isinf(log_ref), xp.isinf(log_ratio)
    at = xp.where(gone, xp.zeros_like(log_ref), log_ref)
    ratio = xp.where(lost, xp.zeros_like(log_ratio), log_ratio)
    # excess(pi, ref) = ref - pi + pi·(log pi - log ref)
    terms = xp.where(lost, xp.exp(at), excess(xp, at + ratio, at, -ratio))
    return xp.sum(xp.where(gone, xp.zeros_like(terms), terms), axis=-1)


_LARGE = 4096  # entries from which a compiled kernel is worth its first call


def _tilt_in_one_go(log_ref: Array, reward: Array, beta: Array) -> Optimum | None:
    """`kl_regularized` of large NumPy float64 input by a kernel; None where the general path has to look at it."""
    if not all(isinstance(a, np.ndarray) and a.dtype == np.float64 for a in (log_ref, reward, beta)):
        return None
    if not log_ref.ndim or not reward.ndim or log_ref.shape[-1] != reward.shape[-1]:
        return None
    size = log_ref.shape[-1]
    try:
        full = np.broadcast_shapes(log_ref.shape, reward.shape, (*beta.shape, size))
    except ValueError:
        return None
    if math.prod(full) < _LARGE or not ((beta > 0) & (beta < np.inf)).all():
        return None
    from klsim.kernels.tilt import tilt_long_row, tilt_rows

    p, r = (np.ascontiguousarray(np.broadcast_to(a, full)).reshape(-1, size) for a in (log_ref, reward))
    scale = np.broadcast_to(beta, full[:-1])
    if len(p) == 1:
        fine, log_policy, out = tilt_long_row(p[0], r[0], float(scale.reshape(-1)[0]))
    else:
        fine, log_policy, out = tilt_rows(p, r, np.ascontiguousarray(scale).reshape(-1))
    if not fine:
        return None
    value, expected, divergence, gap = (np.asarray(out)[k].reshape(full[:-1])[()] for k in range(4))
    return Optimum(log_policy.reshape(full), value, expected, divergence, scale + 0.0, gap, True, "closed form")


@_validate.widened
@quiet
def kl_regularized(log_ref: Array, reward: Array, beta: Array) -> Optimum:
    r"""``max_pi E_pi[r] - beta KL(pi‖ref)``: ``pi = ref e^{r/beta} / Z``, value ``beta log Z``.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``. beta: > 0, scalar or batch.

    Gradients flow: ``d value / d reward = pi``, ``d value / d beta = -KL(pi‖ref)``.

    Raises:
        ValueError: ``beta <= 0``, a reward that is not finite, shapes that do not broadcast.
    """
    _, log_ref, reward, beta = _validate.arrays(log_ref=log_ref, reward=reward, beta=beta)
    found = _tilt_in_one_go(log_ref, reward, beta)
    if found is not None:
        return found
    xp, log_ref, reward, beta = reference_and_reward(log_ref, reward, beta=beta)
    _validate.positive("beta", xp, beta[..., 0])
    log_ratio, value = _tilt(xp, log_ref, reward, beta)
    log_policy, value = log_ref + log_ratio, value[..., 0]
    divergence = _kl_of_ratio(xp, log_ref, log_ratio)
    expected = mean(xp, log_policy, reward + xp.zeros_like(log_policy))
    scale = beta[..., 0] + xp.zeros_like(value)
    gap = xp.abs(value - (expected - scale * divergence))
    _validate.representable("reward", xp, value, expected, gap)
    return Optimum(log_policy, value, expected, divergence, scale, gap, True, "closed form")


def _rows(log_ref: Array, reward: Array, **scalars: Array) -> tuple[np.ndarray, ...]:
    """NumPy rows: ``(shape, log_ref (n, A), reward (n, A), scalars (n,))`` in float64."""
    arrays: list[Any] = [np.asarray(to_numpy(a), dtype=np.float64) for a in (log_ref, reward, *scalars.values())]
    full = np.broadcast_shapes(
        *(a.shape for a in arrays[:2]), *((*a.shape[:-1], arrays[0].shape[-1]) for a in arrays[2:])
    )
    out: list[Any] = [np.broadcast_to(a, full).reshape(-1, full[-1]) for a in arrays[:2]]
    out += [np.broadcast_to(a, (*full[:-1], 1)).reshape(-1) for a in arrays[2:]]
    return np.asarray(full[:-1], dtype=int), *out


def _find_root(f: Callable[..., np.ndarray], low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectorised bracketed root of ``f(x, row)``, increasing in ``x``; ``(root, converged)``."""
    from scipy.optimize import elementwise

    rows = np.arange(low.size)
    ends = f(low, rows), f(high, rows)
    open_ = (ends[0] < 0) & (ends[1] > 0)
    root = np.where(ends[0] >= 0, low, high)
    converged = np.ones(low.size, dtype=bool)
    if open_.any():
        found = elementwise.find_root(
            f,
            (low[open_], high[open_]),
            args=(rows[open_],),
            tolerances={"xatol": 0.0, "xrtol": 4e-16, "fatol": 0.0},
        )
        root[open_] = found.x
        converged[open_] = found.success | (np.abs(found.f_x) < 1e-12)
    return root, converged


@_validate.widened
@quiet
def kl_constrained(log_ref: Array, reward: Array, budget: Array) -> Optimum:
    r"""``max_pi E_pi[r]  s.t.  KL(pi‖ref) <= budget``: the tilt with that KL.

    With ``budget >= -log ref(argmax r)`` the constraint is slack: the least-KL optimum
    ``ref(. | argmax r)`` is returned, with ``beta = 0``. With ``budget = 0`` (or a reward that is
    constant on the support) the optimum is ``ref``, with ``beta = inf`` (or 0).

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``. budget: nats, >= 0 (``inf`` allowed), scalar or batch.

    Raises:
        ValueError: a negative budget, a reward that is not finite, shapes that do not broadcast.
    """
    xp, log_ref, reward, budget = reference_and_reward(log_ref, reward, budget=budget)
    _validate.budgets("budget", xp, budget[..., 0])
    shape, log_p, r, d = _rows(log_ref, reward, budget=budget)
    halved = 1.0 if np.all(np.isfinite(shortfall(np, log_p, r)[1])) else 0.5  # a span that would overflow
    _, short = shortfall(np, log_p, halved * r)
    scale = short.max(axis=-1)
    flat = scale == 0
    short = short / np.where(flat, 1.0, scale)[:, None]
    top_mass = log_sum(np, np.where((short == 0) & np.isfinite(log_p), log_p, -np.inf))
    slack = d >= -top_mass
    inner = ~slack & (d > 0) & ~flat
    alpha = np.where(slack, np.inf, 0.0)
    converged = np.ones(d.size, dtype=bool)
    if inner.any():
        alpha[inner], converged[inner] = _strength_for_budget(log_p[inner], short[inner], d[inner])
    log_ratio = _ratio_at(log_p, short, np.where(np.isfinite(alpha), alpha, 0.0))
    boundary = np.where((short == 0) & np.isfinite(log_p), log_p - top_mass[:, None], -np.inf)
    log_policy = np.where(slack[:, None], boundary, log_p + log_ratio)
    divergence = np.where(slack, -top_mass, _kl_of_ratio(np, log_p, log_ratio))
    expected = np.sum(np.exp(log_policy) * np.where(np.isfinite(log_p), r, 0.0), axis=-1)
    beta = np.where(flat | slack, 0.0, scale / alpha / halved)
    if np.any(np.isinf(beta) & inner):
        _validate.fail("budget", "is too small for rewards of this size: its multiplier overflows")
    gap = np.where(inner, beta * np.abs(divergence - d), 0.0)
    reason = _constraint_reason(slack | flat, inner, converged)
    values = (expected, expected, np.maximum(divergence, 0.0), beta, gap)
    return _optimum(xp, log_ref, tuple(shape), log_policy, values, bool(converged.all()), reason)


def _constraint_reason(slack: np.ndarray, inner: np.ndarray, converged: np.ndarray) -> str:
    if not converged.all():
        return f"the root finder stopped early on {int((~converged).sum())} of {converged.size} problems"
    parts = [
        (slack, "budget covers the best outcomes: their conditional law (least-KL optimum)"),
        (inner, "constraint active: tilt with KL equal to the budget"),
        (~slack & ~inner, "zero budget: the reference"),
    ]
    return "; ".join(text for where, text in parts if where.any())


def _ratio_at(log_p: np.ndarray, short: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """``log(pi/ref)`` of the tilt by ``-alpha·short``."""
    drop = alpha[:, None] * short
    centred = np.where(np.isfinite(log_p), -drop, 0.0)
    log_z = log_partition_of(np, log_p, centred, np.ones((len(alpha), 1)))
    return np.where(np.isfinite(log_p), centred - log_z, 0.0)


def _strength_for_budget(log_p: np.ndarray, short: np.ndarray, budget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``alpha`` with ``KL(tilt by -alpha·short) = budget``, found in ``log alpha``."""

    def excess_kl(log_alpha: np.ndarray, row: np.ndarray) -> np.ndarray:
        ratio = _ratio_at(log_p[row], short[row], np.exp(log_alpha))
        return np.log(_kl_of_ratio(np, log_p[row], ratio)) - np.log(budget[row])

    rows = np.arange(budget.size)
    low, high = np.zeros(budget.size), np.zeros(budget.size)
    for _ in range(60):  # KL ~ alpha² near 0 and saturates only beyond exp(60)
        wide = excess_kl(low, rows) > 0
        low = np.where(wide, 2 * low - 1, low)
        narrow = excess_kl(high, rows) < 0
        high = np.where(narrow & (high < 700), np.minimum(2 * high + 1, 700), high)
        if not wide.any() and not (narrow & (high < 700)).any():
            break
    root, converged = _find_root(excess_kl, low, high)
    residual = np.abs(np.expm1(excess_kl(root, rows)))
    return np.exp(root), converged & (residual < 1e-9)


def _optimum(
    xp: Any,
    like: Array,
    shape: tuple[int, ...],
    log_policy: np.ndarray,
    values: tuple[np.ndarray, ...],
    converged: bool,
    reason: str,
) -> Optimum:
    """Rows of NumPy results in the caller's shape and kind of array."""
    value, expected, divergence, beta, gap = (give_back(xp, like, v.reshape(shape)) for v in values)
    policy = give_back(xp, like, log_policy.reshape(*shape, log_policy.shape[-1]))
    return Optimum(policy, value, expected, divergence, beta, gap, converged, reason)


@_validate.widened
@quiet
def f_regularized(log_ref: Array, reward: Array, beta: Array, generator: Generator | str) -> Optimum:
    r"""``max_{pi << ref} E_pi[r] - beta D_f(pi‖ref)`` for any generator, with its duality gap.

    Policies are absolutely continuous with respect to ``ref`` (for generators with finite recession
    slope, mass outside its support would cost finitely much; that is excluded). Where the optimum is
    not unique (TV: rewards exactly ``beta`` below the best; ties for the best), the one that moves
    least and spreads in proportion to ``ref`` is returned.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``. beta: > 0, scalar or batch.
        generator: a `Generator` or a name in `GENERATORS`.

    Raises:
        ValueError: ``beta <= 0``, a reward that is not finite, an unknown generator.
    """
    return _f_regularized(log_ref, reward, beta, as_generator(generator))


def _f_regularized(
    log_ref: Array, reward: Array, beta: Array, generator: Generator, names: tuple[str, str] = ("reward", "beta")
) -> Optimum:
    """`f_regularized` of an optimum whose reward and coefficient the caller calls ``names``."""
    xp, log_ref, reward, beta = reference_and_reward(log_ref, reward, names=("log_ref", names[0]), **{names[1]: beta})
    _validate.positive(names[1], xp, beta[..., 0])
    shape, log_p, r, b = _rows(log_ref, reward, beta=beta)
    best, drop = relative_shortfall(np, log_p, r, b[:, None])
    short = shortfall(np, log_p, r)[1]
    if not np.all(np.isfinite(short)) or (math.isinf(generator.at_zero) and not np.all(np.isfinite(drop))):
        _validate.fail(names[0], f"spans more than a float holds, in units of {names[1]} or of its own")
    log_ratio, found = _ratio(log_p, r, b, drop, generator)
    pi = np.exp(log_p + log_ratio)
    penalty = divergence_of_ratio(np, log_p, log_ratio, generator)
    value = best[:, 0] - (np.sum(pi * short, axis=-1) + b * penalty)
    if generator.name == "tv":
        value = best[:, 0] - b * np.sum(np.exp(log_p) * np.minimum(drop, 1.0), axis=-1)
    expected = np.sum(pi * np.where(np.isfinite(log_p), r, 0.0), axis=-1)
    gap, rounding = _duality_gap(log_p, log_ratio, short, b, generator)
    _validate.representable(names[0], np, value, expected, gap)
    values = (value, expected, _kl_of_ratio(np, log_p, log_ratio), b, gap)
    stuck, wide = int((~found).sum()), int((gap > rounding).sum())
    reason = f"the root finder stopped early on {stuck} of {b.size} problems" if stuck else "dual root found"
    reason = f"the duality gap is above rounding on {wide} of {b.size} problems" if wide else reason
    return _optimum(xp, log_ref, tuple(shape), log_p + log_ratio, values, not stuck and not wide, reason)


@_validate.widened
@quiet
def worst_case(log_ref: Array, value: Array, penalty: Array, generator: Generator | str) -> Array:
    r"""``inf_mu { E_mu[value] + penalty D_f(mu‖ref) }``, ``(...)``: an adversary who pays for moving ``ref``.

    * KL: ``-lam log E_ref exp(-V/lam)``; TV: ``E_ref[min(V, min_a V + lam)]``, where the adversary may move mass
      *outside* the support of ``ref``, so the minimum runs over all outcomes;
    * any other generator: on the support of ``ref``, minus the value of `f_regularized` at reward ``-V``. For chi² that
      is ``sup_a { E[min(V, a)] - Var[min(V, a)]/(4 lam) }``.

    A small ``penalty`` is a strong adversary. Shapes: ``log_ref, value (..., A)``, ``penalty`` > 0.

    Raises:
        ValueError: as `f_regularized`.

    Source: ``robust-fdiv`` C1.
    """
    generator = as_generator(generator)
    xp, log_ref, value, penalty = reference_and_reward(log_ref, value, names=("log_ref", "value"), penalty=penalty)
    _validate.positive("penalty", xp, penalty[..., 0])
    if generator.name == "tv":
        low = xp.min(value, axis=-1, keepdims=True)
        # the part above min + lam is given up; written as a fall from the mean, which is exact for a large penalty
        excess = value - low - penalty
        fall = xp.exp(log_ref) * xp.where(excess > 0, excess, xp.zeros_like(excess))
        return xp.sum(xp.exp(log_ref) * value, axis=-1) - xp.sum(fall, axis=-1)
    if generator.name == "kl":
        return -penalty[..., 0] * log_partition_of(xp, log_ref, -value, penalty)[..., 0]
    return -_f_regularized(log_ref, -value, penalty[..., 0], generator, ("value", "penalty")).value


def _ratio(
    log_p: np.ndarray, r: np.ndarray, b: np.ndarray, drop: np.ndarray, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``(log(pi/ref), found)`` of the optimum; 0 without support, ``-inf`` for what is dropped."""
    if generator.name == "tv":
        return _tv_ratio(log_p, drop), np.ones(b.size, dtype=bool)
    if math.isfinite(generator.slope_at_zero):
        ratio, found = _ratio_from_below(log_p, r, b, generator)
    else:
        ratio, found = _ratio_from_above(log_p, drop, generator)
    alive = np.isfinite(log_p)
    left = np.log1p(np.maximum(_defect(log_p, ratio), _NO_MASS))  # the root's rounding
    return np.where(alive, ratio - left[:, None], 0.0), found


_NO_MASS = -1.0 + 2.0**-53  # a defect of -1, whose logarithm is finite


def _defect(log_p: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
    """``sum ref (pi/ref - 1)``: what a root makes 0. Exact also for ratios near 1."""
    alive = np.isfinite(log_p)
    near = alive & (np.abs(log_ratio) <= 0.5)
    close = np.exp(log_p) * np.expm1(np.where(near, log_ratio, 0.0))
    far = np.exp(np.where(alive, log_p + log_ratio, -np.inf)) - np.exp(log_p)
    return np.asarray(np.sum(np.where(near, close, far), axis=-1))


def _ratio_from_above(log_p: np.ndarray, drop: np.ndarray, generator: Generator) -> tuple[np.ndarray, np.ndarray]:
    """By the log-ratio of the best outcome: no cancellation where ``f'(0) = -inf`` (every outcome is kept)."""
    best_mass = log_sum(np, np.where((drop == 0) & np.isfinite(log_p), log_p, -np.inf))

    def total(log_top: np.ndarray, row: np.ndarray) -> np.ndarray:
        ratio = generator.log_ratio_below(np, log_top[..., None], drop[row])
        return np.log1p(np.maximum(_defect(log_p[row], ratio), _NO_MASS))

    log_top, found = _find_root(total, np.zeros(best_mass.size), np.maximum(-best_mass, 0.0))
    return generator.log_ratio_below(np, log_top[:, None], drop), found


def _ratio_from_below(
    log_p: np.ndarray, r: np.ndarray, b: np.ndarray, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """By the log-ratio of the worst outcome that is kept: all others are it plus something positive.

    An outcome is kept if those above it, with its own ratio at 0, hold less than all mass.
    """
    alive = np.isfinite(log_p)
    levels = np.where(alive, r, -np.inf)
    order = np.argsort(-levels, axis=-1, kind="stable")
    ordered = np.take_along_axis(levels, order, axis=-1)

    def ratio_at(log_bottom: np.ndarray, anchor: np.ndarray, row: np.ndarray) -> np.ndarray:
        above = levels[row] - anchor[..., None]
        rise = np.where(np.isfinite(above), np.maximum(above, 0.0) / b[row][..., None], 0.0)
        ratio = generator.log_ratio_above(np, log_bottom[..., None] + 0.0 * rise, rise)
        return np.where(alive[row] & (above >= 0), ratio, np.where(alive[row], -np.inf, 0.0))

    def total(log_bottom: np.ndarray, row: np.ndarray) -> np.ndarray:
        ratio = ratio_at(log_bottom, anchors[row], row)
        return np.log1p(np.maximum(_defect(log_p[row], ratio), _NO_MASS))

    rows = np.arange(b.size)
    low, high = np.zeros(b.size, dtype=int), alive.sum(axis=-1) - 1
    while np.any(low < high):
        middle = (low + high + 1) // 2
        kept = _defect(log_p, ratio_at(np.full(b.size, -np.inf), ordered[rows, middle], rows)) < 0
        low, high = np.where(kept, middle, low), np.where(kept, high, middle - 1)
    anchors = ordered[rows, low]
    kept_mass = log_sum(np, np.where(alive & (levels >= anchors[:, None]), log_p, -np.inf))
    left = np.full(b.size, -1.0)
    for _ in range(40):  # down to ratios of exp(-1e12): then the outcome holds nothing
        wide = total(left, rows) > 0
        if not wide.any():
            break
        left = np.where(wide, 2.0 * left, left)
    root, found = _find_root(total, left, np.maximum(-kept_mass, 0.0) + 1e-300)
    return ratio_at(root, anchors, rows), found


def _tv_ratio(log_p: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """TV: outcomes more than ``beta`` below the best give all their mass to the best, the rest keep it."""
    alive = np.isfinite(log_p)
    moved = np.sum(np.where((drop > 1.0) & alive, np.exp(log_p), 0.0), axis=-1)
    best_mass = log_sum(np, np.where((drop == 0) & alive, log_p, -np.inf))
    gained = np.log1p(moved * np.exp(-best_mass))[:, None]
    return np.where(drop == 0, np.where(alive, gained, 0.0), np.where(drop > 1.0, -np.inf, 0.0))


def _duality_gap(
    log_p: np.ndarray, log_ratio: np.ndarray, short: np.ndarray, b: np.ndarray, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``(gap, its rounding)``: what any policy could gain over ``pi``, by the tangent of the convex cost at ``pi``.

    With the marginal cost ``c_a = shortfall + beta f'(pi/ref)`` no policy gains more than ``E_pi[c] - min c``
    (the Frank-Wolfe gap): it does not know how ``pi`` was found. TV has a kink; its dual is ``E_ref[min(s, beta)]``.
    """
    alive = np.isfinite(log_p)
    pi = np.where(alive, np.exp(log_p + log_ratio), 0.0)
    if generator.name == "tv":
        size = np.max(short, axis=-1)
        penalty = divergence_of_ratio(np, log_p, log_ratio, generator)
        bound = np.sum(np.exp(log_p) * np.minimum(short, b[:, None]), axis=-1)
        found = np.sum(pi * short, axis=-1) + b * penalty - bound
        return np.maximum(found, 0.0), 1e-11 * np.minimum(size, b)
    lost = np.isneginf(log_ratio)
    kept = np.where(lost, 0.0, log_ratio)
    slope = np.where(lost, generator.slope_at_zero, generator.slope(np, kept))
    cost = np.where(alive & np.isfinite(slope), short + b[:, None] * slope, np.inf)
    lowest = np.min(cost, axis=-1, keepdims=True)
    gap = np.sum(np.where(pi > 0, pi * (cost - lowest), 0.0), axis=-1)
    # a rounding of the log-ratio moves b f'(t) by itself times t b f''(t) <= order·(|b f'| + b)
    size = np.where(np.isfinite(cost) & ~lost, short + b[:, None] * (np.abs(slope) + np.abs(kept)), 0.0)
    order = max(1.0, abs(getattr(generator, "order", 1.0)))
    return gap, 1e-13 * order * (np.max(size, axis=-1) + b)


@_validate.widened
def forward_kl_regularized(log_ref: Array, reward: Array, beta: Array) -> Optimum:
    r"""``max_pi E_pi[r] - beta KL(ref‖pi)``: ``pi(a) = beta ref(a) / (lambda - r(a))``, ``lambda > max r``.

    No outcome of the support is ever dropped. Arguments, errors and result as `f_regularized`.
    """
    return f_regularized(log_ref, reward, beta, "forward_kl")
