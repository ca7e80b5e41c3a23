r"""Intervals over prompts, and the rule that says when they are to be believed.

Bootstraps of prompts, widened for few of them (Hesterberg 2015); with more than `MAX_BLOCKS` prompts, of random blocks.
Means get studentised intervals (shares of prompts those of Wilson), other statistics BCa. Every statistic comes with
its influence ``d_i`` (its derivative with respect to the weight of block i), of which

.. math:: \frac{(\sum_i d_i^2)^2}{\sum_i d_i^4} = \frac P{\kappa + 3}

prompts carry its variance (kappa: excess kurtosis). A studentised two-sided interval of a mean covers less than its
level by ``z (1 + 2 z^2) phi(z) (kappa - 3/2 skewness^2) / 3 P`` to leading order (Hall 1992, section 3.5.5), at most by
what kappa alone gives. It is trusted if that is at most `ALLOWED`, and if at least `CARRIERS` prompts (half of
them, where there are fewer than twice that) carry it. No rule on the samples can do more: no interval of finite length
covers the means of all laws (Bahadur and Savage 1956), and of a law with a heavy tail the files that do not show
the tail are the ones that pass.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from klsim.frontier.result import Estimate

__all__ = ["ALLOWED", "CARRIERS", "MAX_BLOCKS", "Bootstrap", "carriers", "carriers_needed"]

MAX_BLOCKS = 10_000
"""With more prompts than this, random blocks of them are resampled."""
CARRIERS = 5.0
"""How many prompts at least have to carry an estimate that is trusted (half of all, where there are few)."""
ALLOWED = 0.02
"""Of the coverage."""
CHUNK = 2_000_000


def carriers(influence: np.ndarray) -> float:
    """How many blocks carry the variance of a statistic: ``(sum d^2)^2 / sum d^4``; infinite if nothing varies."""
    top = float(np.max(np.abs(influence), initial=0.0))
    if not top > 0 or not math.isfinite(top):
        return math.inf if top == 0 else 0.0
    squares = (influence / top) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


def carriers_needed(blocks: int, level: float) -> float:
    """How many have to, so that kurtosis costs an interval of this level at most `ALLOWED` of its coverage."""
    from scipy.special import ndtri

    z = float(ndtri(0.5 + level / 2))
    loss = z * (1 + 2 * z**2) * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / 3
    return max(1 / (ALLOWED / loss + 3 / blocks), min(CARRIERS, blocks / 2))


class Bootstrap:
    """Resamples of blocks of prompts; the same draws for every statistic, so that differences are paired."""

    def __init__(self, sizes: np.ndarray, level: float, resamples: int, seed: int) -> None:
        from scipy.special import ndtr, stdtrit

        blocks = len(sizes)
        self.sizes, self.level, self.resamples, self.seed = sizes, level, resamples, seed
        self.total = float(sizes.sum())
        self.width = float(stdtrit(blocks - 1, 0.5 + level / 2)) * math.sqrt(blocks / (blocks - 1))
        self.tail = float(ndtr(-self.width))
        self.needed = carriers_needed(blocks, level)

    def _drawn(self) -> Iterator[np.ndarray]:
        """How often resamples have each block, ``(some resamples, blocks)``."""
        from klsim.kernels.groups import counted

        rng = np.random.default_rng(self.seed)
        blocks = len(self.sizes)
        rows = max(1, CHUNK // blocks)
        for start in range(0, self.resamples, rows):
            # more than 255 copies of one block have a probability below 1e-500
            out = np.empty((min(rows, self.resamples - start), blocks), np.uint8)
            counted(rng.integers(0, blocks, out.shape), out)
            yield out

    @functools.cached_property
    def _kept(self) -> list[np.ndarray]:
        return list(self._drawn())

    def means(self, sums: np.ndarray) -> np.ndarray:
        """Resampled means, ``(resamples, columns)``, of block sums ``(blocks, columns)``."""
        blocks = len(self.sizes)
        columns = np.concatenate([self.sizes[:, None], sums.reshape(blocks, -1)], axis=1)
        drawn = self._kept if blocks <= MAX_BLOCKS else self._drawn()
        out = np.concatenate([weights.astype(np.float64) @ columns for weights in drawn])
        return (out[:, 1:] / out[:, :1]).reshape(self.resamples, *sums.shape[1:])

    def mean(self, sums: np.ndarray) -> np.ndarray:
        """Means of block sums over all prompts."""
        return np.asarray(sums.sum(axis=0) / self.total)

    def around(self, value: float, resampled: np.ndarray, influence: np.ndarray | None = None) -> Estimate:
        """BCa; the acceleration is a sixth of the resamples' skewness (of a mean: the data's over ``6 sqrt n``)."""
        from scipy.special import ndtr, ndtri

        tails = np.array([self.tail, 1 - self.tail])
        spread = float(np.std(resampled))
        if spread > 0:
            below = np.clip(np.mean(resampled < value) + np.mean(resampled == value) / 2, 1e-3, 1 - 1e-3)
            shift = float(ndtri(below))
            bend = float(np.mean(((resampled - np.mean(resampled)) / spread) ** 3)) / 6
            z = shift + np.array([-self.width, self.width])
            tails = ndtr(shift + z / np.maximum(1 - bend * z, 0.1))
        low, high = np.quantile(resampled, tails)
        found = Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))
        return found if influence is None else replace(found, reason=self.mistrust(influence))

    def around_means(self, sums: np.ndarray, resampled: np.ndarray | None = None) -> list[Estimate]:
        """The means of block sums ``(blocks, columns)`` (and their resamples, if known), with studentised intervals.

        A resample's own standard error is that of its blocks (with blocks of different sizes: up to a share of
        ``1/blocks``). Where too few prompts carry a mean, resamples may not vary at all: BCa, not trusted.
        """
        values, drawn = self.mean(sums), self.means(sums) if resampled is None else resampled
        centred = sums - self.sizes[:, None] * values
        size = self.total / len(self.sizes)
        rounding = len(sums) * np.finfo(float).eps * np.max(np.abs(sums), axis=0)
        centred[:, np.max(np.abs(centred), axis=0) <= rounding] = 0.0
        top = np.max(np.abs(centred), axis=0)
        unit = np.where(top > 0, top, 1.0)
        squares = (centred / unit) ** 2
        shift = (drawn - values) / unit * size
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            own = shift / np.sqrt(self.means(squares) * size - shift**2)
        spread = np.sqrt(np.mean(squares, axis=0)) * unit / size
        out = []
        for k, value in enumerate(values.tolist()):
            if len(self.sizes) == self.total and 0 < value < 1 and np.isin(sums[:, k], (0.0, 1.0)).all():
                out.append(self._share(value))
                continue
            reason = self.mistrust(centred[:, k])
            if reason or not np.isfinite(own[:, k]).all():
                out.append(replace(self.around(value, drawn[:, k]), reason=reason))
                continue
            # factors sqrt(P/(P-1)) and 1/sqrt(P) of standard errors are the same on both sides
            low, high = value - np.quantile(own[:, k], [(1 + self.level) / 2, (1 - self.level) / 2]) * spread[k]
            out.append(Estimate(value, min(float(low), value), max(float(high), value)))
        return out

    def _share(self, value: float) -> Estimate:
        """The interval of Wilson (1927) for a share of prompts: a binomial law needs no resamples, and no trust."""
        from scipy.special import ndtri

        z2 = float(ndtri(0.5 + self.level / 2)) ** 2 / self.total
        centre = (value + z2 / 2) / (1 + z2)
        half = math.sqrt(z2 * (value * (1 - value) + z2 / 4)) / (1 + z2)
        return Estimate(value, centre - half, centre + half)

    def mistrust(self, influence: np.ndarray) -> str:
        """Why the interval of a statistic with this influence is not to be believed, or ""."""
        blocks = len(self.sizes)
        number = carriers(influence)
        if math.isinf(number):
            return "all prompts agree: nothing varies, so that there is no interval"
        if number >= self.needed:
            return ""
        return f"{number:.1f} of {blocks} prompts carry it: its interval is not to be believed"

    def influence(self, sums: np.ndarray) -> np.ndarray:
        """Of a mean: block sums minus the mean times the sizes."""
        return np.asarray(sums - self.mean(sums) * self.sizes)

    def of_mean(self, sums: np.ndarray) -> Estimate:
        """The mean of block sums ``(blocks,)`` with its interval."""
        return self.around_means(sums[:, None])[0]

    def stderr(self, found: Estimate) -> float:
        """Of an estimate, from its interval."""
        return (found.high - found.low) / (2 * self.width)
