"""Best-of-N law of one long sorted row, in pieces on all threads.

The same law as `klsim.kernels.order_statistics`, from sums of probabilities in place of sums of logs: relative
accuracy is the same as long as nothing underflows, which the caller sees to.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.elementary import exp
from klsim.kernels.threaded import threaded

__all__ = ["best_of_n_long_row", "is_legal"]

_PIECE = 4096
_SLACK = 1.4e-8  # just inside what the door allows probabilities to miss 1 by


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _survey(log_mass, reward):
    """``(faults, sum of probabilities)``."""
    faults, total = 0, 0.0
    for i in range(reward.size):
        x = log_mass[i]
        faults += 0 if (x < 1e-6) & (abs(reward[i]) < np.inf) else 1
        total += exp(x)
    return faults, total


@threaded
def is_legal(log_mass, reward):
    """Whether these are, for sure, one distribution and finite rewards."""
    pieces = (reward.size + _PIECE - 1) // _PIECE
    faults, totals = np.empty(pieces, np.int64), np.empty(pieces)
    for b in numba.prange(pieces):
        at = slice(b * _PIECE, min((b + 1) * _PIECE, reward.size))
        faults[b], totals[b] = _survey(log_mass[at], reward[at])
    return faults.sum() == 0 and abs(totals.sum() - 1.0) < _SLACK


@numba.njit(cache=True)
def _scan(mass, total, lost, out):
    """``out[i] = start + mass[0] + … + mass[i]`` by compensated summation; the sum after the last."""
    for i in range(mass.size):
        new = total + mass[i]
        lost += (total - new) + mass[i] if total >= mass[i] else (mass[i] - new) + total
        total = new
        out[i] = total + lost
    return total, lost


@numba.njit(cache=True)
def _compensated(mass):
    total = lost = 0.0
    for x in mass:
        new = total + x
        lost += (total - new) + x if total >= x else (x - new) + total
        total = new
    return total, lost


@numba.njit(cache=True)
def _offsets(sums):
    """Compensated sums of all pieces before each, ``(2, pieces)``, from their sums."""
    out = np.zeros(sums.shape)
    total = lost = 0.0
    for b in range(sums.shape[1]):
        out[0, b], out[1, b] = total, lost
        for x in (sums[0, b], sums[1, b]):
            new = total + x
            lost += (total - new) + x if abs(total) >= abs(x) else (x - new) + total
            total = new
    return out


@numba.njit(cache=True, fastmath={"contract"})
def _log1m(t):
    """``log(1 - t) = -2 artanh(t/(2 - t))`` for ``0 <= t <= 1/2``: its series, to ``(1/3)^36``."""
    v = t / (2.0 - t)
    w = v * v
    total = 1 / 35
    for k in range(16, 0, -1):
        total = total * w + 1 / (2 * k + 1)
    return -2.0 * (v + v * w * total)


@numba.njit(cache=True, fastmath={"contract"})
def _log_ratio_of_hit(share, z):
    """``log((1 - e^-z)/(n share))`` with ``z = -n log(1 - share)``, ``share < 1e-3``, ``z < 0.1``: two series."""
    s, w = share, z * z
    drop = s * (1 / 2 + s * (5 / 24 + s * (1 / 8 + s * (251 / 2880 + s * (19 / 288)))))
    return drop - z / 2 + w * (1 / 24 - w * (1 / 2880 - w * (1 / 181440 - w / 9676800)))


@numba.njit(cache=True, fastmath={"contract"})
def _small_drop(s):
    """``-log(1 - s)`` for ``s < 1e-3``."""
    return s * (1 + s * (1 / 2 + s * (1 / 3 + s * (1 / 4 + s * (1 / 5 + s / 6)))))


@numba.njit(cache=True)
def _log_f(upto, above, whole, out):
    """``log F`` of a piece, from the side where nothing cancels."""
    scale = 1.0 / whole
    if above[0] * scale <= 0.5:
        for i in range(out.size):
            out[i] = _log1m(above[i] * scale)
    else:
        for i in range(out.size):
            tail = above[i] * scale
            out[i] = math.log(upto[i] * scale) if tail > 0.5 else _log1m(tail)


@numba.njit(cache=True)
def _law(share, log_share, drop, power, log_n, n):
    """``N log F + log(1 - e^(-N drop))`` with ``drop = log F - log F^-``, of one class that is not the lowest."""
    if share < 1e-3:
        z = n * _small_drop(share)
        if z < 0.1:
            return power + log_n + log_share + _log_ratio_of_hit(share, z)
    else:
        z = n * drop
        if z < 1e-3:
            return power + math.log(-math.expm1(-z))
    return power + (math.log(-math.expm1(-z)) if z < 40.0 else -math.exp(-z))


@numba.njit(cache=True)
def _law_of_piece(mass, log_mass, upto, above, first, whole, log_n, n, log_f, law):
    """``F^N - (F^-)^N`` of a piece: ``F = upto/whole = 1 - above/whole``; ``first``: the sum of masses before it."""
    _log_f(upto, above, whole, log_f)
    log_whole, largest = math.log(whole), 0.0
    for i in range(law.size):
        law[i] = mass[i] / upto[i] if upto[i] > 0.0 else 1.0  # the share of the class in F
        largest = max(largest, law[i])
    if largest < 1e-3 and n * largest < 0.09 and first > 0.0:
        for i in range(law.size):
            log_share = (log_mass[i] - log_whole) - log_f[i]
            law[i] = n * log_f[i] + log_n + log_share + _log_ratio_of_hit(law[i], n * _small_drop(law[i]))
        return
    for i in range(law.size):
        below = upto[i - 1] if i > 0 else first
        if mass[i] == 0.0:
            law[i] = -np.inf
        elif below == 0.0:
            law[i] = n * log_f[i]
        else:
            share = law[i]
            drop = -math.log1p(-share) if share <= 0.5 else math.log(upto[i] / below)
            law[i] = _law(share, (log_mass[i] - log_whole) - log_f[i], drop, n * log_f[i], log_n, n)


@numba.njit(cache=True)
def _masses(mass, log_mass, at, out):
    """Masses of a piece: as given, or from their logs."""
    if mass.size:
        out[:] = mass[at]
    else:
        for i in range(out.size):
            out[i] = exp(log_mass[at.start + i])


@threaded
def _law_of_classes(mass, log_mass, log_n, law):
    """Log-law of classes in ascending order of reward; ``mass`` is empty where it is the exponential of the logs."""
    size = log_mass.size
    pieces = (size + _PIECE - 1) // _PIECE
    sums = np.empty((2, pieces))
    for b in numba.prange(pieces):
        at = slice(b * _PIECE, min((b + 1) * _PIECE, size))
        own = np.empty(at.stop - at.start)
        _masses(mass, log_mass, at, own)
        sums[0, b], sums[1, b] = _compensated(own)
    before, after = _offsets(sums), _offsets(sums[:, ::-1])[:, ::-1]
    whole = before[0, -1] + (before[1, -1] + (sums[0, -1] + sums[1, -1]))
    n = math.exp(log_n)
    for b in numba.prange(pieces):
        at = slice(b * _PIECE, min((b + 1) * _PIECE, size))
        count = at.stop - at.start
        own, upto, from_here, log_f = np.empty(count), np.empty(count), np.empty(count + 1), np.empty(count)
        _masses(mass, log_mass, at, own)
        _scan(own, before[0, b], before[1, b], upto)
        from_here[count] = after[0, b] + after[1, b]
        _scan(own[::-1], after[0, b], after[1, b], from_here[:count][::-1])
        start = before[0, b] + before[1, b]
        _law_of_piece(own, log_mass[at], upto, from_here[1:], start, whole, log_n, n, log_f, law[at])


@threaded
def _has_ties(reward):
    ties = 0
    for i in numba.prange(1, reward.size):
        ties += reward[i] == reward[i - 1]
    return ties > 0


@numba.njit(cache=True)
def _class_starts(reward):
    """Where each run of equal rewards starts, and the size at the end."""
    starts = np.empty(reward.size + 1, np.int64)
    classes = 0
    for i in range(reward.size):
        if i == 0 or reward[i] != reward[i - 1]:
            starts[classes] = i
            classes += 1
    starts[classes] = reward.size
    return starts[: classes + 1].copy()


@threaded
def _class_masses(mass, starts):
    out = np.empty(starts.size - 1)
    for c in numba.prange(out.size):
        total, lost = _compensated(mass[starts[c] : starts[c + 1]])
        out[c] = total + lost
    return out


@threaded
def _shares(law, log_class, log_mass, starts, out):
    """Every outcome keeps its share of its class."""
    for c in numba.prange(law.size):
        for i in range(starts[c], starts[c + 1]):
            out[i] = law[c] + (log_mass[i] - log_class[c]) if log_mass[i] > -np.inf else -np.inf


def best_of_n_long_row(reward: np.ndarray, log_mass: np.ndarray, log_n: float) -> np.ndarray:
    """`best_of_n_rows` of one row ``(A,)``; plain Python over kernels.

    ``log_mass`` above -650 where it is finite, ``|log_n| < 600``.
    """
    out = np.empty_like(log_mass)
    if not _has_ties(reward):
        _law_of_classes(np.empty(0), log_mass, log_n, out)
        return out
    starts = _class_starts(reward)
    masses = _class_masses(np.exp(log_mass), starts)
    with np.errstate(divide="ignore"):
        log_class = np.log(masses)
    law = np.empty_like(masses)
    _law_of_classes(masses, log_class, log_n, law)
    _shares(law, log_class, log_mass, starts, out)
    return out
