r"""Intervals over prompts, and the rule that says when they are to be believed.

BCa bootstraps, widened for few prompts (Hesterberg 2015); with more than `MAX_BLOCKS` prompts, over random blocks of
them. Every statistic comes with its influence ``d_i`` (its derivative with respect to the weight of block i). Its
interval is that of a normal law up to corrections of order ``skewness^2/P`` and ``kurtosis/P`` of the d_i, so

.. math:: \frac{(\sum_i d_i^2)^2}{\sum_i d_i^4} = \frac P{\mathrm{kurtosis}},

the number of prompts that carry its variance, has to be at least `CARRIERS` (half of the prompts, if they are fewer
than twice that).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from klsim.frontier.result import Estimate

__all__ = ["CARRIERS", "MAX_BLOCKS", "Bootstrap", "carriers"]

MAX_BLOCKS = 10_000
CARRIERS = 5.0


def carriers(influence: np.ndarray) -> float:
    """How many blocks carry the variance of a statistic: ``(sum d^2)^2 / sum d^4``; infinite if nothing varies."""
    top = float(np.max(np.abs(influence), initial=0.0))
    if not top > 0 or not math.isfinite(top):
        return math.inf if top == 0 else 0.0
    squares = (influence / top) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


class Bootstrap:
    """Resamples of blocks of prompts; the same draws for every statistic, so that differences are paired."""

    def __init__(self, sizes: np.ndarray, level: float, resamples: int, seed: int) -> None:
        from scipy import stats

        blocks = len(sizes)
        self.sizes, self.level, self.resamples, self.seed = sizes, level, resamples, seed
        self.total = float(sizes.sum())
        self.width = float(stats.t.ppf(0.5 + level / 2, blocks - 1)) * math.sqrt(blocks / (blocks - 1))
        self.tail = float(stats.norm.cdf(-self.width))

    def means(self, sums: np.ndarray) -> np.ndarray:
        """Resampled means, ``(resamples, columns)``, of block sums ``(blocks, columns)``."""
        rng = np.random.default_rng(self.seed)
        blocks = len(self.sizes)
        columns = np.concatenate([self.sizes[:, None], sums.reshape(blocks, -1)], axis=1)
        out = np.empty((self.resamples, columns.shape[1]))
        chunk = max(1, 2_000_000 // blocks)
        for start in range(0, self.resamples, chunk):
            rows = min(chunk, self.resamples - start)
            drawn = rng.integers(0, blocks, (rows, blocks)) + blocks * np.arange(rows)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=rows * blocks).reshape(rows, blocks)
            out[start : start + rows] = weights.astype(np.float64) @ columns
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

    def mistrust(self, influence: np.ndarray) -> str:
        """Why the interval of a statistic with this influence is not to be believed, or ""."""
        blocks = len(self.sizes)
        number = carriers(influence)
        if math.isinf(number):
            return "all prompts agree: nothing varies, so that there is no interval"
        if number >= min(CARRIERS, blocks / 2):
            return ""
        return f"{number:.1f} of {blocks} prompts carry it: its interval is not to be believed"

    def influence(self, sums: np.ndarray) -> np.ndarray:
        """Of a mean: block sums minus the mean times the sizes."""
        return np.asarray(sums - self.mean(sums) * self.sizes)

    def of_mean(self, sums: np.ndarray) -> Estimate:
        """The mean of block sums ``(blocks,)`` with its interval."""
        return self.around(float(self.mean(sums)), self.means(sums[:, None])[:, 0], self.influence(sums))

    def stderr(self, found: Estimate) -> float:
        """Of an estimate, from its interval."""
        return (found.high - found.low) / (2 * self.width)
