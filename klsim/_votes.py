r"""Majority votes of many answers: the coefficient of ``z^n`` by sums on the unit circle.

With Poisson counts of means ``n p_a`` the generating function of "a has the most votes, c of them" is

.. math:: G_a(z) = \sum_c s_a(c) z^c \int_0^1 \prod_{b \ne a} \Big(\sum_{j<c} s_b(j) z^j + t\, s_b(c) z^c\Big) dt,

and a multinomial sample is that of Poisson counts whose sum is n. The sum of counts has standard deviation
``sqrt(n)``: with N points on the circle the coefficients of ``z^{n ± N}``, … are added to that of ``z^n``, and 9
standard deviations away they are below e^{-36} (n > 400). Counts further than 9 standard deviations from their means
are left out for the same reason.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, roots_legendre

__all__ = ["votes_on_the_circle"]

_FAR = 9.0  # standard deviations
_CHUNK = 1 << 20  # complex numbers at a time


def _window(mean: float) -> np.ndarray:
    far = _FAR * np.sqrt(mean) + _FAR**2 / 3  # the second: a Poisson law of small mean has a longer upper tail
    return np.arange(max(int(mean - far), 0), int(mean + far) + 2)


def votes_on_the_circle(p: np.ndarray, n: int) -> np.ndarray:
    """Probability of every answer to be the most frequent of n, ties broken uniformly; ``p > 0``, sum 1."""
    size = len(p)
    counts = [_window(n * x) for x in p]
    masses = [np.exp(_log_poisson(c, n * x)) for c, x in zip(counts, p)]
    points = 2 * int(_FAR * np.sqrt(n) / 2 + _FAR**2 / 3) + 1  # odd: all but the first come in conjugate pairs
    t, weight = roots_legendre(size // 2 + 1)
    t, weight = 0.5 * (t + 1), 0.5 * weight
    half = np.arange(points // 2 + 1)
    step = max(1, _CHUNK // (len(t) * max(len(c) for c in counts)))
    total = np.zeros(size)
    for start in range(0, len(half), step):
        k = half[start : start + step]
        terms = [m * _phase(k, c, points) for m, c in zip(masses, counts)]
        sums = [np.concatenate([np.zeros((len(k), 1)), np.cumsum(x, axis=1)], axis=1) for x in terms]
        back = np.conj(_phase(k, np.array([n]), points))[:, 0] * np.where(k == 0, 1.0, 2.0)
        for a in range(size):
            product = np.ones((len(k), len(t), len(counts[a])), dtype=complex)
            for b in range(size):
                if b != a:
                    at = np.clip(counts[a] - counts[b][0] + np.array([[0], [1]]), 0, len(counts[b]))
                    below, upto = sums[b][:, at[0]], sums[b][:, at[1]]
                    product *= below[:, None] + t[:, None] * (upto - below)[:, None]
            total[a] += np.real(np.sum(back * np.einsum("kc,ktc,t->k", terms[a], product, weight)))
    # over the chance that the counts add up to n
    return np.asarray(np.maximum(total, 0.0) / points / np.exp(_log_poisson(np.array([n]), n)))


def _log_poisson(count: np.ndarray, mean: float) -> np.ndarray:
    """``c log m - m - log c!`` without its cancellation (Loader 2000): Stirling's error and the deviance."""
    c = np.maximum(count, 16.0)
    far = (c - mean) / mean
    stirling = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * c**2)) / c**2) / c**2) / c
    large = -stirling - mean * ((1 + far) * np.log1p(far) - far) - 0.5 * np.log(2 * np.pi * c)
    small = np.minimum(count, 16.0)
    return np.where(count > 16, large, small * np.log(mean) - mean - gammaln(small + 1))


def _phase(k: np.ndarray, count: np.ndarray, points: int) -> np.ndarray:
    """``e^{2 pi i k c / points}``, the product reduced as an integer."""
    return np.asarray(np.exp(2j * np.pi * (np.outer(k, count) % points) / points))
