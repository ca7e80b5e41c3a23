"""Intervals over prompts or seeds, and of the length of a mean vector; what they say in a word."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from klsim.estimators import mean_interval

LEVEL = 0.95
RESAMPLES = 2000


def mean(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of ``(n,)`` values, one a prompt or seed, and its 95 % interval; unbounded if there is one value."""
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        return float(values.mean()), -np.inf, np.inf
    return (float(values.mean()), *mean_interval(values, LEVEL))


def of_prompts(
    statistic: Callable[[np.ndarray], float], parts: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """A smooth statistic of the mean of ``parts (prompts, …)`` with its bootstrap interval (percentiles of resamples).

    A ratio of sums is one, a cosine is one. Percentiles are widened as Student's t is for as many prompts.
    """
    from scipy.stats import norm, t

    count = len(parts)
    rng = np.random.default_rng(seed)
    drawn = [statistic(parts[rng.integers(0, count, count)].mean(axis=0)) for _ in range(RESAMPLES)]
    width = t.ppf(0.5 + LEVEL / 2, count - 1) * np.sqrt(count / (count - 1))
    low, high = np.nanquantile(drawn, [norm.cdf(-width), norm.cdf(width)])
    value = statistic(parts.mean(axis=0))
    return float(value), float(min(low, value)), float(max(high, value))


def length_of_mean(vectors: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """``|E d|`` of independent vectors ``(prompts, dimension)``: the length of their mean and a 95 % interval.

    By the triangle inequality ``||mean| - |E d|| <= |mean - E d|``, whose 95 % quantile is that of the mean with random
    signs (a wild bootstrap). Where the interval begins at 0, no bias is shown, and its end bounds the bias.
    """
    count = len(vectors)
    centre = vectors.mean(axis=0)
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (RESAMPLES, count))
    noise = np.linalg.norm(signs @ (vectors - centre), axis=1) / np.sqrt(count * (count - 1.0))
    value, width = float(np.linalg.norm(centre)), float(np.quantile(noise, LEVEL))
    return value, max(value - width, 0.0), value + width


def shown(interval: tuple[float, float, float], sign: int) -> str:
    """Whether a difference has the predicted sign: ``shown``, ``refuted`` (the other sign), or ``not shown``."""
    _, low, high = interval
    if sign * low > 0 and sign * high > 0:
        return "shown"
    return "refuted" if sign * low < 0 and sign * high < 0 else "not shown"


def text(interval: tuple[float, float, float], digits: int = 3) -> str:
    """``value [low, high]``."""
    value, low, high = interval
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
