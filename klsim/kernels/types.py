"""Types (letter counts) of long sequences and their exact log-probabilities.

The multinomial log-probability is a sum of Stirling remainders and deviances, each computed without
cancellation (Loader's saddle-point form), so that its absolute error stays near rounding for any m.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.threaded import threaded

__all__ = ["compositions", "edge_law", "type_log_probs"]

_LOG_2PI = math.log(2 * math.pi)
# log n! - [n log n - n + log(2 pi n)/2] for n = 0..15 (0 at n = 0 by convention of `_stirling`)
_REMAINDER = np.array(
    [0.0] + [math.lgamma(n + 1) - (n * math.log(n) - n + 0.5 * math.log(2 * math.pi * n)) for n in range(1, 16)]
)


@numba.njit(cache=True)
def _stirling(n):
    """Stirling remainder ``delta(n)`` with ``log n! = n log n - n + log(2 pi n)/2 + delta(n)``."""
    if n < 16:
        return _REMAINDER[n]
    x = 1.0 / (n * n)
    series = 1 / 12.0 - x * (1 / 360.0 - x * (1 / 1260.0 - x * (1 / 1680.0 - x * (1 / 1188.0))))
    return series / n


@numba.njit(cache=True)
def _deviance(n, mean):
    """``n log(n/mean) + mean - n >= 0``, stable near ``n = mean``."""
    gap = n - mean
    if abs(gap) < 0.1 * (n + mean):
        v = gap / (n + mean)
        total = gap * v
        term = 2.0 * n * v
        v2 = v * v
        for j in range(1, 1000):
            term *= v2
            new = total + term / (2 * j + 1)
            if new == total:
                return new
            total = new
    return n * math.log(n / mean) + mean - n


@numba.njit(cache=True)
def compositions(m, letters):
    """All ``(n_1, ..., n_letters)`` of non-negative counts that sum to ``m``; 2 to 4 letters."""
    if letters == 2:
        rows = m + 1
    elif letters == 3:
        rows = (m + 1) * (m + 2) // 2
    else:
        rows = (m + 1) * (m + 2) * (m + 3) // 6
    out = np.empty((rows, letters), np.int64)
    row = 0
    for i in range(m + 1):
        if letters == 2:
            out[row, 0], out[row, 1] = i, m - i
            row += 1
            continue
        for j in range(m - i + 1):
            if letters == 3:
                out[row, 0], out[row, 1], out[row, 2] = i, j, m - i - j
                row += 1
                continue
            for k in range(m - i - j + 1):
                out[row, 0], out[row, 1], out[row, 2], out[row, 3] = i, j, k, m - i - j - k
                row += 1
    return out


@numba.njit(cache=True)
def _type_log_prob(counts, log_p):
    m = 0
    for n in counts:
        m += n
    total = _stirling(m) + (0.5 * (_LOG_2PI + math.log(m)) if m > 0 else 0.0)
    for a in range(counts.size):
        n = counts[a]
        if log_p[a] == -np.inf:
            if n > 0:
                return -np.inf
            continue
        mean = m * math.exp(log_p[a])
        if n == 0:
            total -= mean
        else:
            total -= _stirling(n) + 0.5 * (_LOG_2PI + math.log(n)) + _deviance(float(n), mean)
    return total


@threaded
def type_log_probs(counts, log_p):
    """Multinomial log-probabilities of rows of ``counts``; ``-inf`` where an impossible letter occurs."""
    out = np.empty(counts.shape[0])
    for row in numba.prange(counts.shape[0]):
        out[row] = _type_log_prob(counts[row], log_p)
    return out


@numba.njit(cache=True)
def _log_add(a, b):
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))


@numba.njit(cache=True)
def edge_law(log_edge, log_rest, deficits, m, reach):
    """``log P(total deficit = k)`` for ``k = 0 … reach``, all terms positive: full relative accuracy.

    One letter (log-probability ``log_edge``) has deficit 0, the others ``deficits > 0``. Sums over the
    number ``j`` of other letters: binomial law of ``j`` times the ``j``-fold convolution of their deficits.
    """
    rest = 0.0
    for a in range(log_rest.size):
        rest += math.exp(log_rest[a])
    log_total = math.log(rest)
    pair = np.array([log_edge, log_total])
    counts = np.empty(2, np.int64)
    out = np.full(reach + 1, -np.inf)
    now = np.full(reach + 1, -np.inf)
    now[0] = 0.0
    smallest = deficits.min()
    for j in range(min(m, reach // smallest) + 1):
        counts[0], counts[1] = m - j, j
        weight = _type_log_prob(counts, pair)
        for k in range(j * smallest, reach + 1):
            if now[k] > -np.inf:
                out[k] = _log_add(out[k], weight + now[k])
        new = np.full(reach + 1, -np.inf)
        for a in range(deficits.size):
            step = log_rest[a] - log_total
            for k in range(deficits[a], reach + 1):
                if now[k - deficits[a]] > -np.inf:
                    new[k] = _log_add(new[k], now[k - deficits[a]] + step)
        now = new
    return out
