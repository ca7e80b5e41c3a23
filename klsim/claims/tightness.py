"""How near a one-sided claim came to being broken: ratios of its sides, and where to climb from."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from klsim.claims.kinds import InstanceKind, Measured

__all__ = ["Tightness"]

_QUANTILES = {"10 %": 0.1, "50 %": 0.5, "90 %": 0.9, "99 %": 0.99}


@dataclass
class Tightness:
    """Of all instances: equalities (to rounding), the ratios of the others' sides, and the tightest draws.

    Instances on which both sides agree because both are next to nothing say nothing about a bound; they are counted
    apart.
    """

    tolerance: float = 0.0
    keep: int = 3
    flipped: bool = False  # the statement is lhs >= rhs
    equalities: int = 0
    judged: int = 0
    ratios: list[np.ndarray] = field(default_factory=list)
    best: list[tuple[float, int, Any]] = field(default_factory=list)
    first: tuple[float, float] | None = None
    constant: bool = True
    zero_side: bool = True
    counter: int = 0

    def add(self, measured: Measured, draws: Sequence[Mapping[str, Any] | None] | Any) -> None:
        """Take in what a batch (or one instance) gave; ``draws[i]`` is the draw of instance i."""
        inside = ~np.isneginf(measured.excess)
        lhs, rhs = measured.lhs[inside], measured.rhs[inside]
        if not lhs.size:
            return
        if self.first is None:
            self.first = float(lhs[0]), float(rhs[0])
        self.constant &= bool(np.all(lhs == self.first[0]) and np.all(rhs == self.first[1]))
        self.zero_side &= bool(np.all(lhs == 0) or np.all(rhs == 0))
        self.judged += lhs.size
        equal = self._equal(measured) & inside
        self.equalities += int(equal.sum())
        apart = inside & ~equal
        with np.errstate(all="ignore"):
            small, large = (measured.rhs, measured.lhs) if self.flipped else (measured.lhs, measured.rhs)
            good = apart & (small >= 0) & (large > 0) & np.isfinite(large)
            self.ratios.append(small[good] / large[good])
            heights = np.where(apart, self._heights(measured), -np.inf)
        index = int(np.argmax(heights))
        drawn = draws[index]
        if drawn is not None and np.isfinite(heights[index]):
            self.counter += 1
            entry = (float(heights[index]), -self.counter, drawn)
            (heapq.heappush if len(self.best) < self.keep else heapq.heappushpop)(self.best, entry)

    def _equal(self, measured: Measured) -> np.ndarray:
        """Equality to rounding, or both sides next to nothing beside the scale."""
        with np.errstate(all="ignore"):
            gap = np.abs(measured.lhs - measured.rhs)
            largest = np.maximum(np.abs(measured.lhs), np.abs(measured.rhs))
        return (gap <= self.tolerance * measured.magnitude) | (largest <= 1e3 * self.tolerance * measured.magnitude)

    def _heights(self, measured: Measured) -> np.ndarray:
        """What a climb ascends: the gap relative to the sides alone; the bare gap where one side is always 0."""
        with np.errstate(all="ignore"):
            sign = np.where(measured.excess >= 0, 1.0, -1.0)
            gap = sign * np.abs(measured.lhs - measured.rhs)
            if self.zero_side:
                return np.where(np.isfinite(gap), gap, -np.inf)
            largest = np.maximum(np.abs(measured.lhs), np.abs(measured.rhs))
            relative = gap / np.where(largest == 0, 1.0, largest)
            return np.where(np.isfinite(relative), relative, -np.inf)

    def height(self, measured: Measured) -> float:
        """The height of one instance; degenerate equalities are low."""
        if self._equal(measured)[0]:
            return -2.0 if not self.zero_side else float(self._heights(measured)[0])
        return float(self._heights(measured)[0])

    def starts(self) -> list[Mapping[str, Any]]:
        """The tightest draws, the tightest first."""
        return [drawn for _, _, drawn in sorted(self.best, key=lambda e: e[:2], reverse=True)]

    def numbers(self, kind: InstanceKind) -> dict[str, Any]:
        """For the certificate."""
        out: dict[str, Any] = {}
        if self.judged > 1:
            out["constant"] = self.constant
        if not kind.one_sided or not self.judged:
            return out
        out["equalities"] = self.equalities
        ratios = np.concatenate(self.ratios) if self.ratios else np.zeros(0)
        if ratios.size >= max(2, 0.5 * (self.judged - self.equalities)):
            out["largest_ratio"] = float(ratios.max())
            out["ratios"] = {name: float(np.quantile(ratios, q)) for name, q in _QUANTILES.items()}
        return out

    def summary(self, otherwise: str) -> str:
        """One line: the largest ratio reached, or the smallest slack where there is none."""
        ratios = np.concatenate(self.ratios) if self.ratios else np.zeros(0)
        if self.judged and self.equalities == self.judged:
            return f"equal on all {self.judged:,} instances"
        if ratios.size < max(2, 0.5 * (self.judged - self.equalities)):
            return otherwise
        share = f"; equal on {self.equalities / self.judged:.0%}" if self.equalities else ""
        return f"largest ratio of the sides {ratios.max():.4g}, median {np.median(ratios):.3g}{share}"
