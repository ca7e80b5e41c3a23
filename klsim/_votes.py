r"""Majority votes of many answers: the coefficient of ``z^n`` by sums on the unit circle.

With Poisson counts of means ``n p_a`` the generating function of "a has the most votes, c of them" is

.. math:: G_a(z) = \sum_c s_a(c) z^c \int_0^1 \prod_{b \ne a} \Big(\sum_{j<c} s_b(j) z^j + t\, s_b(c) z^c\Big) dt,

and a multinomial sample is that of Poisson counts whose sum is n. The sum of counts has standard deviation
``sqrt(n)``: with N points on the circle the coefficients of ``z^{n ± N}``, … are added to that of ``z^n``, and 14
standard deviations away they are below e^{-60} (n > 400). Counts further than 14 standard deviations from their means
are left out for the same reason.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, roots_legendre

__all__ = ["votes_on_the_circle"]

_FAR = 14.0  # standard deviations
_CHUNK = 1 << 20  # complex numbers at a time


def _window(mean: float) -> np.ndarray:
    far = _FAR * np.sqrt(mean) + _FAR**2 / 3  # the second: a Poisson law of small mean has a longer upper tail
    return np.arange(max(int(mean - far), 0), int(mean + far) + 2)


def votes_on_the_circle(p: np.ndarray, n: int) -> np.ndarray:
    """Probability of every answer to be the most frequent of n, ties broken uniformly; ``p > 0``, sum 1."""
    size = len(p)
    counts = [_window(n * x) for x in p]
    masses = [np.exp(c * np.log(n * x) - n * x - gammaln(c + 1)) for c, x in zip(counts, p)]
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
    log_all = n * np.log(n) - n - gammaln(n + 1)  # that the counts add up to n
    return np.maximum(total, 0.0) / points / np.exp(log_all)


def _phase(k: np.ndarray, count: np.ndarray, points: int) -> np.ndarray:
    """``e^{2 pi i k c / points}``, the product reduced as an integer."""
    return np.asarray(np.exp(2j * np.pi * (np.outer(k, count) % points) / points))
