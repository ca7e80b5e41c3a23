"""Exponential tilts of many rows, or of one long row: checked, tilted and summed up in one go.

The formulas are those of `klsim.optima`. What the fast form cannot do to full accuracy, or at all (input that is not
legal, a partition function below 1e-250), is reported as ``False`` and left to the general path.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.elementary import exp, exp_and_excess, exp_and_expm1, log_of_excess
from klsim.kernels.threaded import read_only, threaded

__all__ = ["backup_rows", "tilt_long_row", "tilt_rows"]

_BLOCK = 2048  # entries that fit the first cache with their buffers
_SHARE = 1 << 15  # entries of narrow rows that one thread takes at a time: a quarter of a millisecond
_PIECE = 1024  # entries of one plain sum: its rounding is that of 128 additions
_SLACK = 1.4e-8  # just inside what the door allows probabilities to miss 1 by
_ROUNDED = (
    1e-13  # what rounding makes the probabilities of a narrow row miss 1 by, with room; others are normalised first
)
_LEAST = 1e-250
_MOST = 1e300
_HUGE = 1e305  # in place of infinity where the compiler may assume that there is none

# sums and maxima in any order, which the compiler chooses once for all numbers of threads
_ANY_ORDER = {"reassoc", "nnan", "nsz", "contract"}


@numba.njit(cache=True, fastmath={"reassoc", "contract"})
def _faults(log_ref, reward):
    """0 if no entry is NaN or too large to divide, and no log-probability above a rounding."""
    faults = 0
    for a in range(reward.size):
        faults += 0 if (log_ref[a] < 1e-6) & (abs(reward[a]) < _MOST) else 1
    return faults


@numba.njit(cache=True, fastmath=_ANY_ORDER)
def _range(log_ref, reward):
    """Largest and smallest reward of the support."""
    best, worst = -np.inf, np.inf
    for a in range(reward.size):
        high = reward[a] if log_ref[a] > -np.inf else -np.inf
        low = reward[a] if log_ref[a] > -np.inf else np.inf
        best = high if high > best else best
        worst = low if low < worst else worst
    return best, worst


@numba.njit(cache=True)
def _exponents(log_ref, reward, beta, small, best, x):
    """``r/beta`` if all are small, else minus the shortfall over beta; 0 without support."""
    if small:
        for a in range(reward.size):
            x[a] = reward[a] / beta if log_ref[a] > -np.inf else 0.0
    else:
        for a in range(reward.size):
            x[a] = -((best - reward[a]) / beta) if log_ref[a] > -np.inf else 0.0


@numba.njit(cache=True)
def _weights(log_ref, x, p, grown, gained):
    """``p = ref``, ``p e^x`` and ``p (e^x - 1)``."""
    for a in range(x.size):
        p[a] = exp(log_ref[a])
        whole, less = exp_and_expm1(x[a])
        grown[a] = p[a] * whole
        gained[a] = p[a] * less


@numba.njit(cache=True, fastmath=_ANY_ORDER)
def _sums(p, grown, gained):
    a = b = c = 0.0
    for i in range(p.size):
        a += p[i]
        b += grown[i]
        c += gained[i]
    return a, b, c


@numba.njit(cache=True)
def _log_z(total, grown, gained):
    """Log of the mean of the exponentials; NaN if the row needs the general path."""
    if not abs(total - 1.0) < _SLACK:
        return np.nan
    if gained > -0.5:
        return math.log1p(gained)
    return math.log(grown) if grown > _LEAST else np.nan


@numba.njit(cache=True)
def _shift(log_ref, x, log_z, log_policy):
    """``x - log Z``, in place, and the log-policy."""
    for a in range(x.size):
        x[a] -= log_z
        log_policy[a] = log_ref[a] + x[a]


@numba.njit(cache=True)
def _terms(ratio, reward, p, mean, divergence):
    """Terms of the expected reward and of the KL divergence."""
    for a in range(p.size):
        whole, excess = exp_and_excess(ratio[a])
        mean[a] = p[a] * whole * reward[a]
        divergence[a] = p[a] * excess


@numba.njit(cache=True, fastmath=_ANY_ORDER)
def _two_sums(x, y):
    a = b = 0.0
    for i in range(x.size):
        a += x[i]
        b += y[i]
    return a, b


@numba.njit(cache=True)
def _total(parts):
    """Compensated sum in order: the same bytes for any number of threads."""
    total = lost = 0.0
    for x in parts:
        new = total + x
        lost += (total - new) + x if abs(total) >= abs(x) else (x - new) + total
        total = new
    return total + lost


@numba.njit(cache=True)
def _is_small(best, worst, beta):
    return max(abs(best), abs(worst)) / beta <= 0.5


@numba.njit(cache=True)
def _tilt_block(log_ref, reward, beta, log_policy, out, buffers):
    """Rows ``(n, A)`` that fit the buffers; False if one needs the general path. ``out (4, n)``."""
    n, size = log_ref.shape
    flat_ref, flat_reward = log_ref.reshape(-1), reward.reshape(-1)
    if _faults(flat_ref, flat_reward):
        return False
    x, p, grown, gained = buffers[0, : n * size], buffers[1, : n * size], buffers[2, : n * size], buffers[3, : n * size]
    for i in range(n):
        at = slice(i * size, (i + 1) * size)
        best, worst = _range(log_ref[i], reward[i])
        if not best - worst < _MOST * min(beta[i], 1.0):  # also a row without support
            return False
        _exponents(log_ref[i], reward[i], beta[i], _is_small(best, worst, beta[i]), best, x[at])
        out[0, i] = best
    _weights(flat_ref, x, p, grown, gained)
    for i in range(n):
        at = slice(i * size, (i + 1) * size)
        log_z = _log_z(*_sums(p[at], grown[at], gained[at]))
        if math.isnan(log_z):
            return False
        best, worst = _range(log_ref[i], reward[i])
        out[0, i] = beta[i] * log_z if _is_small(best, worst, beta[i]) else best + beta[i] * log_z
        _shift(log_ref[i], x[at], log_z, log_policy[i])
    _terms(x, flat_reward, p, grown, gained)
    for i in range(n):
        at = slice(i * size, (i + 1) * size)
        out[1, i], out[2, i] = _two_sums(grown[at], gained[at])
        out[3, i] = abs(out[0, i] - (out[1, i] - beta[i] * out[2, i]))
    return True


@threaded
def _tilt_rows(log_ref, reward, beta, log_policy, out):
    n, size = log_ref.shape
    step = max(_BLOCK // size, 1)
    blocks = (n + step - 1) // step
    fine = np.empty(blocks, np.bool_)
    for b in numba.prange(blocks):
        buffers = np.empty((4, step * size))
        at = slice(b * step, min((b + 1) * step, n))
        fine[b] = _tilt_block(log_ref[at], reward[at], beta[at], log_policy[at], out[:, at], buffers)
    return fine.all()


@threaded
def _tilt_long_row(log_ref, reward, beta, log_policy, out):
    size = log_ref.size
    pieces = (size + _PIECE - 1) // _PIECE
    tops, bottoms, fine = np.empty(pieces), np.empty(pieces), np.empty(pieces, np.bool_)
    for b in numba.prange(pieces):
        at = slice(b * _PIECE, min((b + 1) * _PIECE, size))
        fine[b] = _faults(log_ref[at], reward[at]) == 0
        tops[b], bottoms[b] = _range(log_ref[at], reward[at])
    best, worst = tops.max(), bottoms.min()
    if not (fine.all() and best - worst < _MOST * min(beta, 1.0)):
        return False
    small = _is_small(best, worst, beta)
    sums = np.empty((3, pieces))
    for b in numba.prange(pieces):
        at = slice(b * _PIECE, min((b + 1) * _PIECE, size))
        buffers = np.empty((4, _PIECE))
        x, p, grown, gained = (buffers[0, : at.stop - at.start], buffers[1, : at.stop - at.start],
                               buffers[2, : at.stop - at.start], buffers[3, : at.stop - at.start])  # fmt: skip
        _exponents(log_ref[at], reward[at], beta, small, best, x)
        _weights(log_ref[at], x, p, grown, gained)
        sums[0, b], sums[1, b], sums[2, b] = _sums(p, grown, gained)
    log_z = _log_z(_total(sums[0]), _total(sums[1]), _total(sums[2]))
    if math.isnan(log_z):
        return False
    for b in numba.prange(pieces):
        at = slice(b * _PIECE, min((b + 1) * _PIECE, size))
        buffers = np.empty((4, _PIECE))
        x, p, mean, divergence = (buffers[0, : at.stop - at.start], buffers[1, : at.stop - at.start],
                                  buffers[2, : at.stop - at.start], buffers[3, : at.stop - at.start])  # fmt: skip
        _exponents(log_ref[at], reward[at], beta, small, best, x)
        _shift(log_ref[at], x, log_z, log_policy[at])
        for a in range(x.size):
            p[a] = exp(log_ref[at.start + a])
        _terms(x, reward[at], p, mean, divergence)
        sums[0, b], sums[1, b] = _two_sums(mean, divergence)
    out[0] = beta * log_z if small else best + beta * log_z
    out[1], out[2] = _total(sums[0]), _total(sums[1])
    out[3] = abs(out[0] - (out[1] - beta * out[2]))
    return True


@numba.njit(cache=True, fastmath=_ANY_ORDER)
def _narrow_ranges(log_ref, q, size, best, worst):
    """`_range` of every row, column by column: rows of a few entries are too short to loop over."""
    best[:], worst[:] = -_HUGE, _HUGE
    for a in range(size):
        for i in range(best.size):
            alive = log_ref[i * size + a] > -np.inf
            high = q[i * size + a] if alive else -_HUGE
            low = q[i * size + a] if alive else _HUGE
            best[i] = high if high > best[i] else best[i]
            worst[i] = low if low < worst[i] else worst[i]


@numba.njit(cache=True, fastmath={"reassoc"}, error_model="numpy")
def _narrow_bases(best, worst, beta):
    """What rewards are measured from, in place of the worst; how many rows need the general path."""
    faults = 0
    for i in range(best.size):
        drop = best[i] - worst[i]
        # a row without support has a drop below 0
        faults += 0 if (drop >= 0.0) & (drop < _MOST * min(beta, 1.0)) else 1
        small = max(abs(best[i]), abs(worst[i])) / beta <= 0.5
        worst[i] = 0.0 if small else best[i]
    return faults


@numba.njit(cache=True)
def _narrow_exponents(log_ref, q, size, beta, base, x):
    for a in range(size):
        for i in range(base.size):
            k = i * size + a
            x[k] = (q[k] - base[i]) / beta if log_ref[k] > -np.inf else 0.0


@numba.njit(cache=True)
def _narrow_sums(p, grown, gained, size, sums):
    sums[:] = 0.0
    for a in range(size):
        for i in range(sums.shape[1]):
            sums[0, i] += p[i * size + a]
            sums[1, i] += grown[i * size + a]
            sums[2, i] += gained[i * size + a]


@numba.njit(cache=True, fastmath={"reassoc"}, error_model="numpy")
def _narrow_values(sums, base, beta, values):
    """Values, and log Z in place of the first sums; how many rows need the general path, as in `_log_z`."""
    faults = 0
    for i in range(values.size):
        total, grown, gained = sums[0, i], sums[1, i], sums[2, i]
        faults += 0 if (abs(total - 1.0) < _ROUNDED) & ((gained > -0.5) | (grown > _LEAST)) else 1
        log_z = log_of_excess(gained, grown)
        values[i] = base[i] + beta * log_z
        sums[0, i] = log_z
    return faults


@numba.njit(cache=True)
def _narrow_policies(log_ref, x, size, log_z, log_policy):
    for a in range(size):
        for i in range(log_z.size):
            k = i * size + a
            log_policy[k] = log_ref[k] + (x[k] - log_z[i])


@numba.njit(cache=True)
def _backup_block(q, log_ref, size, beta, values, log_policy):
    """Values, and policies if they have room, of rows of ``size`` entries; False if one needs the general path."""
    if _faults(log_ref, q):
        return False
    buffers, sums, base = np.empty((4, q.size)), np.empty((3, values.size)), np.empty(values.size)
    x, p, grown, gained = buffers[0], buffers[1], buffers[2], buffers[3]
    _narrow_ranges(log_ref, q, size, values, base)
    if _narrow_bases(values, base, beta):
        return False
    _narrow_exponents(log_ref, q, size, beta, base, x)
    _weights(log_ref, x, p, grown, gained)
    _narrow_sums(p, grown, gained, size, sums)
    if _narrow_values(sums, base, beta, values):
        return False
    if log_policy.size:
        _narrow_policies(log_ref, x, size, sums[0], log_policy)
    return True


@numba.njit(cache=True)
def _backup_rows_between(q, log_ref, size, beta, values, log_policy, first, end):
    """`_backup_block` of blocks of the rows ``first .. end - 1``."""
    step = max(_BLOCK // size, 1)
    for row in range(first, end, step):
        rows = slice(row, min(row + step, end))
        at = slice(rows.start * size, rows.stop * size)
        if not _backup_block(q[at], log_ref[at], size, beta, values[rows], log_policy[at]):
            return False
    return True


@threaded
def _backup_narrow_rows(q, log_ref, size, beta, values, log_policy):
    n = values.size
    step = max(_SHARE // size, 1)
    shares = (n + step - 1) // step
    fine = np.empty(shares, np.bool_)
    for b in numba.prange(shares):
        fine[b] = _backup_rows_between(q, log_ref, size, beta, values, log_policy, b * step, min((b + 1) * step, n))
    return fine.all()


_NARROW = 64  # actions up to which rows are looped over column by column


# results are allocated by NumPy, which asks for large pages: writing fresh memory costs half as much then


def tilt_rows(log_ref: np.ndarray, reward: np.ndarray, beta: np.ndarray) -> tuple[bool, np.ndarray, np.ndarray]:
    """``(fine, log_policy, out)`` of rows ``(n, A)``, ``beta (n,)``: value, reward, KL and gap are ``out (4, n)``."""
    log_policy, out = np.empty(log_ref.shape), np.empty((4, len(log_ref)))
    return _tilt_rows(*read_only(log_ref, reward, beta), log_policy, out), log_policy, out


def tilt_long_row(log_ref: np.ndarray, reward: np.ndarray, beta: float) -> tuple[bool, np.ndarray, np.ndarray]:
    """As `tilt_rows` for one row ``(A,)`` in pieces: ``(fine, log_policy (A,), out (4,))``."""
    log_policy, out = np.empty(log_ref.shape), np.empty(4)
    return _tilt_long_row(*read_only(log_ref, reward), beta, log_policy, out), log_policy, out


def backup_rows(
    q: np.ndarray, log_ref: np.ndarray, beta: float, *, policies: bool = True
) -> tuple[bool, np.ndarray, np.ndarray]:
    """``(fine, values (n,), log_policy (n, A))`` of the soft backup of rows ``(n, A)``, checks included.

    Without ``policies`` narrow rows get none, and ``log_policy`` is empty.
    """
    if q.shape[1] > _NARROW:
        fine, log_policy, out = tilt_rows(log_ref, q, np.full(len(q), beta))
        return fine, out[0], log_policy
    values, log_policy = np.empty(len(q)), np.empty(q.shape if policies else (0, q.shape[1]))
    (flat_q, flat_ref), flat_policy = read_only(q.reshape(-1), log_ref.reshape(-1)), log_policy.reshape(-1)
    own = (flat_q, flat_ref, q.shape[1], beta, values, flat_policy)
    if q.size > 2 * _SHARE:
        return _backup_narrow_rows(*own), values, log_policy
    return _backup_rows_between(*own, 0, len(q)), values, log_policy  # not worth waking threads for
