r"""Sums of f-divergences, ``sum_i c_i D_{f_i}``: again an f-divergence, with ``f = sum_i c_i f_i``.

Made by arithmetic on generators, ``GENERATORS["chi2"] + 0.1 * GENERATORS["kl"]`` (the regulariser of χPO, Huang et al.
(2024), arXiv:2407.13399), and taken by everything that takes a generator. ``f'`` has no inverse in closed form: it is
found by bisection in ``log t``, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import give_back, to_numpy
from klsim.divergences import Generator

__all__ = ["GeneratorSum", "weighted_sum"]

Array = Any


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
