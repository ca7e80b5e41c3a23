r"""f-divergences: one object a generator, used for divergences, optima, planning and losses.

.. math:: D_f(P \| Q) = \sum_a q_a f(p_a / q_a), \quad 0 f(p/0) = p f'(\infty), \quad f(0) = f(0^+)

Every generator is normalised to ``f(1) = f'(1) = 0`` (adding ``c (t - 1)`` does not change ``D_f``), so
all terms are non-negative and a divergence near 0 keeps its relative accuracy. In ``D_f(pi‖ref)``:

=============  =====================================  ==========================
name           ``f(t)``                               ``D_f(pi‖ref)``
=============  =====================================  ==========================
``kl``         ``t log t - t + 1``                    reverse KL, KL(pi‖ref)
``forward_kl`` ``-log t + t - 1``                     KL(ref‖pi)
``js``         ``(t log t - (1+t) log((1+t)/2)) / 2`` Jensen-Shannon, <= log 2
``chi2``       ``(t - 1)^2``                          Pearson chi²
``hellinger``  ``(sqrt t - 1)^2 / 2``                 squared Hellinger, <= 1
``tv``         ``|t - 1| / 2``                        total variation, <= 1
``alpha``      ``(t^a - 1 - a (t-1)) / (a (a-1))``    Cressie-Read family
=============  =====================================  ==========================

A mismatch of supports gives the value that the formula has, ``inf`` included; never NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._stable import excess, log_power_plus, power_gap
from klsim._sums import log_sum, quiet
from klsim.generators import Generator, checked_ratios, checked_slopes

__all__ = ["GENERATORS", "Alpha", "Generator", "chi2", "f_divergence", "js", "kl", "renyi", "tv"]

Array = Any


class _KL(Generator):
    def derivative(self, t: Array) -> Array:
        xp, t = checked_ratios(t)
        with np.errstate(all="ignore"):
            return xp.log(t)

    def inverse_derivative(self, y: Array) -> Array:
        xp, y = checked_slopes(y)
        with np.errstate(all="ignore"):
            return xp.exp(y)

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        return excess(xp, log_p, log_q)

    def slope(self, xp: Any, log_t: Array) -> Array:
        return log_t

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        return log_top - drop


class _ForwardKL(Generator):
    def derivative(self, t: Array) -> Array:
        t = checked_ratios(t)[1]
        with np.errstate(all="ignore"):
            return 1.0 - 1.0 / t

    def inverse_derivative(self, y: Array) -> Array:
        xp, y = checked_slopes(y)
        below = y < 1.0
        return xp.where(below, 1.0 / xp.where(below, 1.0 - y, xp.ones_like(y)), xp.full_like(y, math.inf))

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        return excess(xp, log_q, log_p)

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        return log_power_plus(xp, log_top, drop, -1.0)

    def slope(self, xp: Any, log_t: Array) -> Array:
        return -xp.expm1(-log_t)


class _JS(Generator):
    def derivative(self, t: Array) -> Array:
        xp, t = checked_ratios(t)
        with np.errstate(all="ignore"):
            return self.slope(xp, xp.log(t))

    def inverse_derivative(self, y: Array) -> Array:
        xp, y = checked_slopes(y)
        below = y < self.recession
        rest = -xp.expm1(2.0 * (xp.where(below, y, xp.zeros_like(y)) - self.recession))
        with np.errstate(all="ignore"):
            return xp.where(below, xp.exp(2.0 * y) / 2.0 / rest, xp.full_like(y, math.inf))

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        x = log_p - log_q
        small = xp.minimum(x, xp.zeros_like(x)), xp.minimum(-x, xp.zeros_like(x))
        # log(m/p) = log((1 + e^-x)/2) and log(m/q) = log((1 + e^x)/2) with m the midpoint
        to_p = xp.where(x >= 0, xp.log1p(xp.expm1(small[1]) / 2), -x + xp.log1p(xp.expm1(small[0]) / 2))
        to_q = to_p + x
        to_q = xp.where(xp.abs(x) < 0.5, xp.log1p(xp.expm1(xp.where(xp.abs(x) < 0.5, x, 0 * x)) / 2), to_q)
        to_p = xp.where(xp.abs(x) < 0.5, xp.log1p(xp.expm1(xp.where(xp.abs(x) < 0.5, -x, 0 * x)) / 2), to_p)
        from_p = excess(xp, log_p, log_p + to_p, to_p)
        return 0.5 * (from_p + excess(xp, log_q, log_q + to_q, to_q))

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        far = drop > 300.0
        near = xp.where(far, xp.zeros_like(drop), drop)
        # 1/t = expm1(2 drop) + exp(2 drop - log top); by log1p where that is near 1
        offset = xp.expm1(2 * near) + xp.expm1(2 * near - log_top)
        close = xp.abs(offset) <= 0.5
        direct = xp.log(xp.expm1(2 * near) + xp.exp(2 * near - log_top))
        inside = -xp.where(close, xp.log1p(xp.where(close, offset, 0 * offset)), direct)
        return xp.where(far, -2 * drop - xp.log1p(xp.exp(-log_top)), inside)

    def slope(self, xp: Any, log_t: Array) -> Array:
        small = log_t < -30.0
        near = xp.log1p(xp.expm1(-xp.where(small, xp.zeros_like(log_t), log_t)) / 2)
        return -0.5 * xp.where(small, -log_t - math.log(2.0), near)


class _Chi2(Generator):
    def derivative(self, t: Array) -> Array:
        t = checked_ratios(t)[1]
        return 2.0 * (t - 1.0)

    def inverse_derivative(self, y: Array) -> Array:
        xp, y = checked_slopes(y)
        return xp.where(y > -2.0, 1.0 + y / 2.0, xp.zeros_like(y))

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        x = log_p - log_q
        same = x == 0
        apart = xp.where(same, xp.ones_like(x), x)  # log 0 has no gradient, even where it is not chosen
        gap = xp.where(x > 0, log_p, log_q) + xp.log(-xp.expm1(-xp.abs(apart)))
        return xp.where(same, xp.zeros_like(x), xp.exp(2 * gap - log_q))

    def slope(self, xp: Any, log_t: Array) -> Array:
        return 2.0 * xp.expm1(log_t)

    def log_ratio_above(self, xp: Any, log_bottom: Array, rise: Array) -> Array:
        return log_power_plus(xp, log_bottom, rise / 2.0, 1.0)

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        rest = 1.0 - drop / 2.0 * xp.exp(-log_top)
        return xp.where(rest > 0, log_top + xp.log(xp.where(rest > 0, rest, xp.ones_like(rest))), -math.inf)


class _Hellinger(Generator):
    def derivative(self, t: Array) -> Array:
        t = checked_ratios(t)[1]
        with np.errstate(all="ignore"):
            return 0.5 * (1.0 - 1.0 / t**0.5)

    def inverse_derivative(self, y: Array) -> Array:
        xp, y = checked_slopes(y)
        below = y < 0.5
        return xp.where(below, xp.where(below, 1.0 - 2.0 * y, xp.ones_like(y)) ** -2.0, xp.full_like(y, math.inf))

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        x = log_p - log_q
        larger = xp.where(x > 0, log_p, log_q)
        return 0.5 * xp.exp(larger) * xp.expm1(-xp.abs(x) / 2) ** 2

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        return log_power_plus(xp, log_top, 2.0 * drop, -0.5)

    def slope(self, xp: Any, log_t: Array) -> Array:
        return -0.5 * xp.expm1(-log_t / 2)


class _TV(Generator):
    def derivative(self, t: Array) -> Array:
        """A subgradient: -1/2 below 1, 0 at 1, 1/2 above."""
        xp, t = checked_ratios(t)
        return 0.5 * xp.sign(t - 1.0)

    def inverse_derivative(self, y: Array) -> Array:
        """One maximiser of ``t y - f(t)``: 0 below -1/2, 1 on [-1/2, 1/2], ``inf`` above 1/2."""
        xp, y = checked_slopes(y)
        inside = xp.where(y < -0.5, xp.zeros_like(y), xp.ones_like(y))
        return xp.where(y > 0.5, xp.full_like(y, math.inf), inside)

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        x = log_p - log_q
        return 0.5 * xp.exp(xp.where(x > 0, log_p, log_q)) * -xp.expm1(-xp.abs(x))

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        raise ValueError("generator: the derivative of TV has no inverse; f_regularized has its optimum")


@dataclass(frozen=True)
class Alpha(Generator):
    """``f(t) = (t^a - 1 - a (t - 1)) / (a (a - 1))`` for real ``a`` other than 0 and 1.

    ``a -> 1`` is ``kl``, ``a -> 0`` is ``forward_kl``, ``a = 2`` is ``chi2 / 2``, ``a = 1/2`` is 4 times
    ``hellinger``.

    Raises:
        ValueError: ``order`` is 0 or 1 (use the limits), or not finite.
    """

    order: float

    def __init__(self, order: float) -> None:
        order = _validate.real("order", order, low=-1e3, high=1e3)
        if order in (0.0, 1.0):
            _validate.fail("order", "0 is 'forward_kl' and 1 is 'kl'", order)
        for name, value in (
            ("name", f"alpha({order:g})"),
            ("at_zero", 1.0 / order if order > 0 else math.inf),
            ("slope_at_zero", -1.0 / (order - 1.0) if order > 1 else -math.inf),
            ("recession", math.inf if order > 1 else 1.0 / (1.0 - order)),
            ("curvature", 1.0),
            ("order", order),
        ):
            object.__setattr__(self, name, value)

    def derivative(self, t: Array) -> Array:
        xp, t = checked_ratios(t)
        with np.errstate(all="ignore"):
            return xp.expm1((self.order - 1.0) * xp.log(t)) / (self.order - 1.0)

    def inverse_derivative(self, y: Array) -> Array:
        xp, y = checked_slopes(y)
        base = 1.0 + (self.order - 1.0) * y
        inside = xp.exp(xp.log(xp.where(base > 0, base, xp.ones_like(base))) / (self.order - 1.0))
        return xp.where(base > 0, inside, xp.full_like(y, 0.0 if self.order > 1 else math.inf))

    def conjugate_at_recession(self, xp: Any, y: Array) -> Array:
        limit = -1.0 / self.order if self.order < 0 else math.inf
        return xp.where(y <= self.recession, xp.full_like(y, limit), xp.full_like(y, math.inf))

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        return power_gap(xp, log_p, log_q, self.order) / (self.order * (self.order - 1.0))

    def slope(self, xp: Any, log_t: Array) -> Array:
        return xp.expm1((self.order - 1.0) * log_t) / (self.order - 1.0)

    def log_ratio_above(self, xp: Any, log_bottom: Array, rise: Array) -> Array:
        return log_power_plus(xp, log_bottom, (self.order - 1.0) * rise, self.order - 1.0)

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        c = self.order - 1.0
        if c < 0:  # t^c = t_top^c + |c| drop
            return log_power_plus(xp, log_top, -c * drop, c)
        rest = 1.0 - c * drop * xp.exp(-c * log_top)
        inside = log_top + xp.log(xp.where(rest > 0, rest, xp.ones_like(rest))) / c
        return xp.where(rest > 0, inside, xp.full_like(inside, -math.inf))


GENERATORS: dict[str, Generator] = {
    "kl": _KL("kl", 1.0, -math.inf, math.inf, 1.0),
    "forward_kl": _ForwardKL("forward_kl", math.inf, -math.inf, 1.0, 1.0),
    "js": _JS("js", 0.5 * math.log(2), -math.inf, 0.5 * math.log(2), 0.25),
    "chi2": _Chi2("chi2", 1.0, -2.0, math.inf, 2.0),
    "hellinger": _Hellinger("hellinger", 0.5, -math.inf, 0.5, 0.25),
    "tv": _TV("tv", 0.5, -0.5, 0.5, math.inf),
    "alpha(2)": Alpha(2.0),
    "alpha(0.5)": Alpha(0.5),
    "alpha(1.5)": Alpha(1.5),
    "alpha(-1)": Alpha(-1.0),
}
"""The generators that have a name, by it."""


def as_generator(generator: Generator | str) -> Generator:
    """A generator by object or by name; ValueError for an unknown name."""
    if isinstance(generator, Generator):
        return generator
    return GENERATORS[_validate.one_of("generator", generator, tuple(GENERATORS))]


def _pair(log_p: Array, log_q: Array) -> tuple[Any, Array, Array]:
    xp, log_p, log_q = _validate.arrays(log_p=log_p, log_q=log_q)
    _validate.log_probs("log_p", xp, log_p)
    _validate.log_probs("log_q", xp, log_q)
    _validate.same_last_axis(log_p=log_p, log_q=log_q)
    log_p, log_q = xp.broadcast_arrays(log_p, log_q)
    return xp, log_p, log_q


@_validate.widened
@quiet
def f_divergence(log_p: Array, log_q: Array, generator: Generator | str) -> Array:
    """``D_f(p‖q) = sum_a q_a f(p_a / q_a)``. Shapes: ``(..., A), (..., A) -> (...)``.

    Raises:
        ValueError: not distributions, shapes that do not broadcast, an unknown generator.
    """
    xp, log_p, log_q = _pair(log_p, log_q)
    return divergence_of(xp, log_p, log_q, as_generator(generator))


def divergence_of(xp: Any, log_p: Array, log_q: Array, generator: Generator) -> Array:
    """`f_divergence` of validated, broadcast input."""
    no_p, no_q = xp.isinf(log_p), xp.isinf(log_q)
    zero = xp.zeros_like(log_p)
    inside = generator.term(xp, xp.where(no_p | no_q, zero, log_p), xp.where(no_p | no_q, zero, log_q))
    only_q = _scaled(xp, xp.exp(log_q), generator.at_zero)
    only_p = _scaled(xp, xp.exp(log_p), generator.recession)
    terms = xp.where(no_p & no_q, zero, xp.where(no_p, only_q, xp.where(no_q, only_p, inside)))
    return xp.sum(terms, axis=-1)


def divergence_of_ratio(xp: Any, log_q: Array, log_ratio: Array, generator: Generator) -> Array:
    """`divergence_of` from ``log(p/q)`` itself, ``-inf`` where p is 0: relative accuracy also for tiny ratios."""
    no_q, no_p = xp.isinf(log_q), xp.isinf(log_ratio)
    at = xp.where(no_q, xp.zeros_like(log_q), log_q)
    ratio = xp.where(no_q | no_p, xp.zeros_like(log_ratio), log_ratio)
    near = xp.abs(ratio) <= 0.5
    close = xp.exp(at) * generator.term(xp, xp.where(near, ratio, xp.zeros_like(ratio)), xp.zeros_like(ratio))
    far = generator.term(xp, xp.where(near, at, at + ratio), at)
    inside = xp.where(no_p, _scaled(xp, xp.exp(at), generator.at_zero), xp.where(near, close, far))
    return xp.sum(xp.where(no_q, xp.zeros_like(inside), inside), axis=-1)


def _scaled(xp: Any, weight: Array, factor: float) -> Array:
    """``weight * factor`` with ``0 * inf = 0``."""
    if math.isfinite(factor):
        return weight * factor
    return xp.where(weight > 0, xp.full_like(weight, factor), xp.zeros_like(weight))


def kl(log_p: Array, log_q: Array) -> Array:
    """``KL(p‖q) = E_p[log p/q]`` in nats; ``inf`` where ``q`` misses support of ``p``. ``(..., A) -> (...)``.

    Summed as ``q - p + p log(p/q)``, whose terms are non-negative: relative accuracy also near 0.
    """
    return f_divergence(log_p, log_q, GENERATORS["kl"])


def js(log_p: Array, log_q: Array) -> Array:
    """Jensen-Shannon divergence, ``(KL(p‖m) + KL(q‖m)) / 2`` with ``m = (p+q)/2``; in [0, log 2]."""
    return f_divergence(log_p, log_q, GENERATORS["js"])


def chi2(log_p: Array, log_q: Array) -> Array:
    """``sum (p - q)^2 / q``; ``inf`` where ``q`` misses support of ``p``."""
    return f_divergence(log_p, log_q, GENERATORS["chi2"])


def tv(log_p: Array, log_q: Array) -> Array:
    """Total variation, ``sum |p - q| / 2``; in [0, 1]."""
    return f_divergence(log_p, log_q, GENERATORS["tv"])


@_validate.widened
@quiet
def renyi(log_p: Array, log_q: Array, alpha: float) -> Array:
    r"""Rényi divergence ``D_alpha(p‖q) = log(sum p^alpha q^(1-alpha)) / (alpha - 1)`` for ``alpha >= 0``.

    ``alpha = 1`` is KL, ``alpha = inf`` is ``log max p/q``, ``alpha = 0`` is ``-log q(supp p)``. Any finite order.
    For ``alpha >= 1`` it is ``inf`` where ``q`` misses support of ``p``; for smaller orders if the
    supports do not meet.

    Raises:
        ValueError: ``alpha < 0`` or NaN.
    """
    alpha = _validate.real("alpha", alpha, low=0.0)
    xp, log_p, log_q = _pair(log_p, log_q)
    if alpha == 1.0:
        return divergence_of(xp, log_p, log_q, GENERATORS["kl"])
    no_p, no_q = xp.isinf(log_p), xp.isinf(log_q)
    zero = xp.zeros_like(log_p)
    p, q = xp.where(no_p | no_q, zero, log_p), xp.where(no_p | no_q, zero, log_q)
    if alpha == math.inf:
        infinite = xp.full_like(log_p, math.inf)
        ratio = xp.where(no_p | no_q, -infinite, p - q)
        return xp.max(xp.where(no_q & ~no_p, infinite, ratio), axis=-1)
    found = _renyi_of(xp, p, q, no_p | no_q, alpha)
    # sum p^alpha q^(1-alpha) - 1, without cancellation: what one of the two misses counts linearly
    large = q + alpha * (p - q) > 1.0  # a term above e: they are not near each other, and it may overflow
    shift = xp.sum(power_gap(xp, xp.where(large, zero, p), xp.where(large, zero, q), alpha), axis=-1)
    shift = shift + (alpha - 1.0) * xp.sum(xp.where(no_p & ~no_q, xp.exp(log_q), zero), axis=-1)
    shift = shift - alpha * xp.sum(xp.where(no_q & ~no_p, xp.exp(log_p), zero), axis=-1)
    near = (xp.abs(shift) < 0.5) & ~xp.any(large, axis=-1)
    found = xp.where(near, xp.log1p(xp.where(near, shift, xp.zeros_like(shift))) / (alpha - 1.0), found)
    apart = xp.all(no_p | no_q, axis=-1)
    if alpha > 1:
        apart = apart | xp.any(no_q & ~no_p, axis=-1)
    return xp.where(apart, xp.full_like(found, math.inf), found)


def _renyi_of(xp: Any, log_p: Array, log_q: Array, gone: Array, alpha: float) -> Array:
    """By log-sum-exp, for policies that are not near each other; huge orders are measured from ``max log p/q``."""
    lowest = xp.full_like(log_p, -math.inf)
    if alpha <= 16:
        return log_sum(xp, xp.where(gone, lowest, alpha * log_p + (1 - alpha) * log_q)) / (alpha - 1.0)
    ratio = log_p - log_q
    top = xp.max(xp.where(gone, lowest, ratio), axis=-1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    rest = log_sum(xp, xp.where(gone, lowest, log_q + alpha * (ratio - top)))
    return top[..., 0] * (alpha / (alpha - 1.0)) + rest / (alpha - 1.0)
