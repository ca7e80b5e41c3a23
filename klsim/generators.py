r"""Generators of f-divergences, and their sums: ``sum_i c_i D_{f_i}`` is an f-divergence, with ``f = sum_i c_i f_i``.

Sums are made by arithmetic, ``GENERATORS["chi2"] + 0.1 * GENERATORS["kl"]`` (the regulariser of χPO, arXiv:2407.13399),
and taken by everything that takes a generator. ``f'`` of a sum has no inverse in closed form: it is
found by bisection in ``log t``, to rounding. The generators themselves are in `klsim.divergences`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import give_back, to_numpy

__all__ = ["Generator", "GeneratorSum", "checked_ratios", "checked_slopes", "weighted_sum"]

Array = Any


def checked_ratios(t: Array) -> tuple[Any, Array]:
    """``(xp, t)`` of probability ratios ``t >= 0``, ``inf`` allowed."""
    xp, t = _validate.arrays(t=t)
    return xp, _validate.budgets("t", xp, t)


def checked_slopes(y: Array) -> tuple[Any, Array]:
    """``(xp, y)`` of slopes that are not NaN."""
    xp, y = _validate.arrays(y=y)
    if bool(xp.any(xp.isnan(y))):
        _validate.fail("y", "must not be NaN")
    return xp, y


@dataclass(frozen=True)
class Generator(ABC):
    """A convex ``f`` on ``t >= 0`` with ``f(1) = f'(1) = 0``.

    Attributes:
        name: its key in `GENERATORS`.
        at_zero: ``f(0)``, possibly ``inf``.
        slope_at_zero: ``f'(0+)``, possibly ``-inf``.
        recession: ``f'(inf) = lim f(t)/t``, possibly ``inf``.
        curvature: ``f''(1)``; ``D_f ≈ f''(1)/2 · chi²`` near equality (``inf`` for TV).
    """

    name: str
    at_zero: float
    slope_at_zero: float
    recession: float
    curvature: float

    def __add__(self, other: Generator) -> Generator:
        """``f + g``, of the divergence that is their sum: `klsim.generators.GeneratorSum`."""
        return weighted_sum((1.0, self), (1.0, other)) if isinstance(other, Generator) else NotImplemented

    def __rmul__(self, coefficient: float) -> Generator:
        """``c f`` for ``c > 0``."""
        return weighted_sum((coefficient, self))

    def value(self, t: Array) -> Array:
        """``f(t)`` for ``t >= 0``; at ``inf`` its limit."""
        xp, t = checked_ratios(t)
        with np.errstate(all="ignore"):
            middle, far = (t > 0) & (t < math.inf), math.inf if self.recession > 0 else 0.0
            inside = self.term(xp, xp.log(xp.where(middle, t, xp.ones_like(t))), xp.zeros_like(t))
            ends = xp.where(t > 0, xp.full_like(t, far), xp.full_like(t, self.at_zero))
            return xp.where(middle, inside, ends)

    @abstractmethod
    def derivative(self, t: Array) -> Array:
        """``f'(t)`` for ``t > 0`` (``slope_at_zero`` at 0)."""

    @abstractmethod
    def inverse_derivative(self, y: Array) -> Array:
        """The ``t >= 0`` that maximises ``t y - f(t)``: ``(f')^{-1}(y)``, clipped at 0.

        ``inf`` for ``y`` at or above the recession slope.
        """

    def conjugate(self, y: Array, lower: Array = 0.0) -> Array:
        """``f*(y) = sup_{t >= lower} (t y - f(t))``; ``inf`` where ``y`` exceeds the recession slope.

        The supremum is over non-negative ``t`` by default, as for probability ratios; ``lower`` in [0, 1], one for all
        or one an entry, clips it elsewhere. ``f*(0) = 0`` and ``(f*)'(y) = max(lower, inverse_derivative(y))``.
        """
        xp, y, lower = _validate.arrays(y=y, lower=lower)
        _validate.broadcast(y=y, lower=lower)
        index = _validate.first_true(xp, ~((lower >= 0) & (lower <= 1)))
        if index is not None:
            _validate.fail("lower", "must lie in [0, 1]", float(lower[index]), index)
        with np.errstate(all="ignore"):
            t = xp.maximum(self.inverse_derivative(y), lower)
            finite = xp.isfinite(t)
            t = xp.where(finite, t, xp.ones_like(t))
            found = t * y - self.value(t)
            found = xp.where(xp.isnan(found), xp.full_like(found, math.inf), found)  # inf - inf: it overflows
            return xp.where(finite, found, self.conjugate_at_recession(xp, y))

    def conjugate_at_recession(self, xp: Any, y: Array) -> Array:
        """``f*(y)`` for ``y >= recession``: the limit of ``t y - f(t)``, which at ``recession`` can be finite."""
        return xp.full_like(y, math.inf)

    @abstractmethod
    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        """``q f(p/q)`` for finite logs, stable near ``p = q`` and for far-apart magnitudes."""

    def slope(self, xp: Any, log_t: Array) -> Array:
        """``f'(exp(log_t))``, also where ``exp`` would underflow."""
        return self.derivative(xp.exp(log_t))

    def log_ratio_above(self, xp: Any, log_bottom: Array, rise: Array) -> Array:
        """``log (f')^{-1}(f'(exp(log_bottom)) + rise)`` for ``rise >= 0``, without cancellation.

        Asked of generators with finite ``slope_at_zero``, whose optima drop outcomes: ``log(pi/ref)`` of an outcome
        whose reward is ``beta·rise`` above that of the worst one that is kept.
        """
        return xp.log(self.inverse_derivative(self.slope(xp, log_bottom) + rise))

    @abstractmethod
    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        """``log (f')^{-1}(f'(exp(log_top)) - drop)`` for ``drop >= 0``, without cancellation.

        In an f-regularised optimum it is ``log(pi/ref)`` of an outcome whose reward is ``beta·drop``
        below that of the best one, whose log-ratio is ``log_top``. ``-inf`` where the ratio is 0.
        """


@dataclass(frozen=True)
class GeneratorSum(Generator):
    """``f = sum_i c_i f_i``, made by `weighted_sum`.

    Attributes:
        terms: ``((c_1, f_1), …)``, no sums among them.
    """

    terms: tuple[tuple[float, Generator], ...] = ()

    def _sum(self, each: Callable[[Generator], Array]) -> Array:
        first, *rest = (c * each(g) for c, g in self.terms)
        for other in rest:
            first = first + other
        return first

    def derivative(self, t: Array) -> Array:
        return self._sum(lambda g: g.derivative(t))

    def slope(self, xp: Any, log_t: Array) -> Array:
        return self._sum(lambda g: g.slope(xp, log_t))

    def term(self, xp: Any, log_p: Array, log_q: Array) -> Array:
        return self._sum(lambda g: g.term(xp, log_p, log_q))

    def inverse_derivative(self, y: Array) -> Array:
        xp, y = _validate.arrays(y=y)
        slopes = np.asarray(to_numpy(y), dtype=np.float64)
        zero = np.zeros_like(slopes)
        log_t = np.where(slopes < 0, self._below(zero, -slopes), self._above(zero, slopes))
        with np.errstate(over="ignore"):
            found = np.where(slopes >= self.recession, np.inf, np.exp(log_t))
        return give_back(xp, y, found)

    def log_ratio_below(self, xp: Any, log_top: Array, drop: Array) -> Array:
        return give_back(xp, log_top, self._below(*(np.asarray(to_numpy(a), np.float64) for a in (log_top, drop))))

    def log_ratio_above(self, xp: Any, log_bottom: Array, rise: Array) -> Array:
        return give_back(
            xp, log_bottom, self._above(*(np.asarray(to_numpy(a), np.float64) for a in (log_bottom, rise)))
        )

    def _below(self, top: np.ndarray, drop: np.ndarray) -> np.ndarray:
        """``log t <= top`` with a slope that is ``drop`` below that at ``top``; ``-inf`` beyond the slope at 0."""
        top, drop = np.broadcast_arrays(top, drop)
        with np.errstate(all="ignore"):
            wanted = self.slope(np, top) - drop
            gone = wanted <= self.slope_at_zero
            low, width = top.copy(), np.ones_like(top)
            for _ in range(1100):
                still = ~gone & (self.slope(np, low) > wanted)
                if not still.any():
                    break
                low = np.where(still, top - width, low)
                width = np.where(still, 2 * width, width)
            found = self._bisect(low, top, wanted)
        return np.where(gone, -np.inf, np.where(drop == 0, top, found))

    def _above(self, bottom: np.ndarray, rise: np.ndarray) -> np.ndarray:
        """``log t >= bottom`` with a slope that is ``rise`` above that at ``bottom``; ``inf`` beyond the recession."""
        bottom, rise = np.broadcast_arrays(bottom, rise)
        with np.errstate(all="ignore"):
            wanted = self.slope(np, bottom) + rise
            gone = wanted >= self.recession
            high, width = bottom.copy(), np.ones_like(bottom)
            for _ in range(1100):
                still = ~gone & (self.slope(np, high) < wanted)
                if not still.any():
                    break
                high = np.where(still, bottom + width, high)
                width = np.where(still, 2 * width, width)
            found = self._bisect(bottom, high, wanted)
        return np.where(gone, np.inf, np.where(rise == 0, bottom, found))

    def _bisect(self, low: np.ndarray, high: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        for _ in range(200):
            middle = 0.5 * (low + high)
            if np.all((middle <= low) | (middle >= high)):
                break
            under = self.slope(np, middle) < wanted
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return 0.5 * (low + high)


def weighted_sum(*terms: tuple[float, Generator]) -> GeneratorSum:
    """``sum_i c_i f_i``; sums of sums become one.

    Raises:
        ValueError: no term, a coefficient that is not positive and finite, total variation (a kink at 1).
        TypeError: no generator.
    """
    flat: list[tuple[float, Generator]] = []
    for coefficient, generator in terms:
        c = _validate.real("coefficient", coefficient, low=0.0, open_low=True, open_high=True)
        _validate.instance("generator", generator, Generator)
        if not np.isfinite(generator.curvature):
            _validate.fail(
                "generator", f"{generator.name} has a kink at 1, where the slope of a sum would have no inverse"
            )
        inner = generator.terms if isinstance(generator, GeneratorSum) else ((1.0, generator),)
        flat += [(c * inside, g) for inside, g in inner]
    if not flat:
        _validate.fail("terms", "must hold at least one (coefficient, generator)")
    name = " + ".join(g.name if c == 1 else f"{c:g} {g.name}" for c, g in flat)
    at_zero, slope, recession, curvature = (
        sum(c * getattr(g, end) for c, g in flat) for end in ("at_zero", "slope_at_zero", "recession", "curvature")
    )
    return GeneratorSum(name, at_zero, slope, recession, curvature, tuple(flat))
