r"""Sweeps over the transitions of an MDP: advantages of every pair, policy chains, twice the precision.

A value is ``m + v``; its advantages are ``r - (1 - gamma) m + gamma P v - v``, so that what all states share (``m``) is
never rounded against what sets them apart (``v``). ``shift`` is ``(1 - gamma) m``. The extended sweeps take
``v = hi + lo`` and sum error-free transformations (Ogita, Rump & Oishi's Dot2): the advantage is then right to rounding
of itself, however large the value. They divide by the sums of the rows, which are those of distributions.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from klsim.kernels.threaded import threaded

__all__ = [
    "copy_rows",
    "dense_advantages",
    "dense_advantages_extended",
    "dense_greedy",
    "mix_dense",
    "sparse_advantages",
    "sparse_advantages_extended",
    "sparse_greedy",
    "sparse_product",
    "sparse_step",
    "two_sums",
    "weighted_rows",
]


@intrinsic
def _fused(typing_context, x, y, z):
    """``x y + z`` rounded once."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


_fma: Any = _fused


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(row, v):
    total = 0.0
    for j in range(row.size):
        total += row[j] * v[j]
    return total


@threaded
def dense_advantages(transition, reward, discount, shift, v):
    """``(S, A)`` from ``transition (S, A, S)``."""
    states, actions = reward.shape
    out = np.empty((states, actions))
    for s in numba.prange(states):
        for a in range(actions):
            out[s, a] = discount * _dot(transition[s, a], v) - v[s] + (reward[s, a] - shift)
    return out


@numba.njit(cache=True)
def _sparse_dot(indptr, indices, data, row, v):
    """A row of a CSR matrix times ``v``; unsigned indices spare the test for negative ones."""
    total = data.dtype.type(0)
    for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
        total += data[k] * v[np.uint64(indices[k])]
    return total


@threaded
def sparse_advantages(indptr, indices, data, reward, discount, shift, v):
    """``(S, A)`` from CSR arrays of the ``(S A, S)`` transition."""
    states, actions = reward.shape
    out = np.empty((states, actions))
    for s in numba.prange(states):
        for a in range(actions):
            total = _sparse_dot(indptr, indices, data, s * actions + a, v)
            out[s, a] = discount * total - v[s] + (reward[s, a] - shift)
    return out


@threaded
def dense_greedy(transition, reward, discount, shift, v, current, slack, keys, clock):
    """`klsim.kernels.backups.greedy_rows` of the advantages, without the pairs that cannot be the best.

    ``keys + clock`` bounds ``r - shift + gamma P v``; the keys of the pairs that are computed are renewed. Keys of
    illegal actions are ``-inf``.
    """
    states, actions = reward.shape
    best, own = np.empty(states), np.empty(states)
    action = np.empty(states, np.int64)
    change = 0
    for s in numba.prange(states):
        at = current[s]
        kept = discount * _dot(transition[s, at], v) + (reward[s, at] - shift)
        keys[s, at] = kept - clock
        top = kept
        for a in range(actions):
            if a != current[s] and keys[s, a] + clock >= top:
                q = discount * _dot(transition[s, a], v) + (reward[s, a] - shift)
                keys[s, a] = q - clock
                if q > top:
                    top, at = q, a
        if kept >= top - slack:
            at = current[s]
        change += at != current[s]
        best[s], own[s], action[s] = top - v[s], kept - v[s], at
    return best, action, own, change


@threaded
def sparse_greedy(indptr, indices, data, reward, discount, shift, v, current, slack, keys, clock):
    """As `dense_greedy`, from CSR arrays."""
    states, actions = reward.shape
    best, own = np.empty(states), np.empty(states)
    action = np.empty(states, np.int64)
    change = 0
    for s in numba.prange(states):
        at = current[s]
        kept = discount * _sparse_dot(indptr, indices, data, s * actions + at, v) + (reward[s, at] - shift)
        keys[s, at] = kept - clock
        top = kept
        for a in range(actions):
            if a != current[s] and keys[s, a] + clock >= top:
                q = discount * _sparse_dot(indptr, indices, data, s * actions + a, v) + (reward[s, a] - shift)
                keys[s, a] = q - clock
                if q > top:
                    top, at = q, a
        if kept >= top - slack:
            at = current[s]
        change += at != current[s]
        best[s], own[s], action[s] = top - v[s], kept - v[s], at
    return best, action, own, change


@numba.njit(cache=True, inline="always")
def _two_sum(a, b):
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@numba.njit(cache=True)
def _finish(mass, mass_low, top, low, hi, lo, reward, shift, shift_low, discount):
    """``reward - shift - v + discount (top + low) / mass``, ``v = hi + lo``, the sums in twice the precision."""
    excess, rest = _two_sum(mass, -1.0)
    excess += rest + mass_low
    low -= excess * top  # the row's sum is 1 to rounding: one step of division
    product = discount * top
    error = _fma(discount, top, -product) + discount * low
    total, part = _two_sum(product, -hi)
    error += part - lo
    total, part = _two_sum(total, reward)
    error += part
    total, part = _two_sum(total, -shift)
    error += part - shift_low
    return total + error


@threaded
def dense_advantages_extended(transition, reward, discount, shift, shift_low, hi, lo):
    """As `dense_advantages` at ``v = hi + lo`` and the ``shift`` in two parts."""
    states, actions = reward.shape
    out = np.empty((states, actions))
    for s in numba.prange(states):
        for a in range(actions):
            row = transition[s, a]
            mass, mass_low, top, low = 0.0, 0.0, 0.0, 0.0
            for j in range(states):
                p = row[j]
                if p != 0.0:
                    mass, part = _two_sum(mass, p)
                    mass_low += part
                    product = p * hi[j]
                    top, part = _two_sum(top, product)
                    low += part + (_fma(p, hi[j], -product) + p * lo[j])
            out[s, a] = _finish(mass, mass_low, top, low, hi[s], lo[s], reward[s, a], shift, shift_low, discount)
    return out


@threaded
def sparse_advantages_extended(indptr, indices, data, reward, discount, shift, shift_low, hi, lo):
    """As `sparse_advantages` at ``v = hi + lo`` and the ``shift`` in two parts."""
    states, actions = reward.shape
    out = np.empty((states, actions))
    for s in numba.prange(states):
        for a in range(actions):
            mass, mass_low, top, low = 0.0, 0.0, 0.0, 0.0
            for k in range(indptr[s * actions + a], indptr[s * actions + a + 1]):
                p, j = data[k], indices[k]
                mass, part = _two_sum(mass, p)
                mass_low += part
                product = p * hi[j]
                top, part = _two_sum(top, product)
                low += part + (_fma(p, hi[j], -product) + p * lo[j])
            out[s, a] = _finish(mass, mass_low, top, low, hi[s], lo[s], reward[s, a], shift, shift_low, discount)
    return out


@threaded
def mix_dense(transition, weights):
    """The chain ``sum_a weights(s, a) P(.|s, a)``, ``(S, S)``; actions without weight are not read."""
    states, actions = weights.shape
    out = np.zeros((states, transition.shape[2]))
    for s in numba.prange(states):
        for a in range(actions):
            w = weights[s, a]
            if w != 0.0:
                row = transition[s, a]
                for j in range(row.size):
                    out[s, j] += w * row[j]
    return out


@threaded
def weighted_rows(indptr, data, weights):
    """CSR data of the rows times their weights ``(S A,)``."""
    out = np.empty(data.size)
    for row in numba.prange(weights.size):
        for k in range(indptr[row], indptr[row + 1]):
            out[k] = weights[row] * data[k]
    return out


@threaded
def copy_rows(indptr, indices, data, action, before, starts, columns, entries, single):
    """Rows ``s A + action(s)`` to ``columns, entries, single`` from ``starts[s]`` on, where the action is a new one.

    Places up to ``starts[s + 1]`` that are left get the weight 0.
    """
    actions = (indptr.size - 1) // action.size
    for s in numba.prange(action.size):
        if action[s] != before[s]:
            row, at = s * actions + action[s], starts[s]
            for k in range(indptr[row], indptr[row + 1]):
                columns[at], entries[at], single[at] = indices[k], data[k], data[k]
                at += 1
            for k in range(at, starts[s + 1]):
                columns[k], entries[k], single[k] = s, 0.0, 0.0


@threaded
def two_sums(high, low, step):
    """``(total, low, middle)``: ``high + step``, ``low`` with what was rounded, the middle of ``total``.

    A ``step`` of one entry is that of all.
    """
    total, rest = np.empty(high.size), np.empty(high.size)
    least, most = np.inf, -np.inf
    for s in numba.prange(high.size):
        moved, part = _two_sum(high[s], step[s] if step.size > 1 else step[0])
        total[s], rest[s] = moved, low[s] + part
        least, most = min(least, moved), max(most, moved)
    return total, rest, 0.5 * (most + least)


@threaded
def sparse_product(indptr, indices, data, v):
    """A CSR matrix times a vector."""
    out = np.empty(indptr.size - 1)
    for row in numba.prange(out.size):
        out[row] = _sparse_dot(indptr, indices, data, row, v)
    return out


_ROWS = 4096  # of a chunk


@numba.njit(cache=True, fastmath={"nnan", "nsz"})
def _sparse_steps(indptr, indices, data, discount, left, middle, x, out, first, end):
    """Rows ``first .. end - 1`` of `sparse_step`."""
    low, high = out.dtype.type(np.inf), out.dtype.type(-np.inf)
    for row in range(first, end):
        total = discount * (_sparse_dot(indptr, indices, data, row, left) - middle)
        out[row] = total
        x[row] += left[row] - middle
        low = total if total < low else low
        high = total if total > high else high
    return low, high


@threaded
def sparse_step(indptr, indices, data, discount, left, middle, x, out):
    """One term of the Neumann series: ``x += left - middle``, ``out = discount (P left - middle)`` and its range.

    In the precision of ``data``, which ``discount, left, middle, x`` and ``out`` share.
    """
    chunks = (out.size + _ROWS - 1) // _ROWS
    lows, highs = np.empty(chunks, out.dtype), np.empty(chunks, out.dtype)
    for c in numba.prange(chunks):
        end = min((c + 1) * _ROWS, out.size)
        lows[c], highs[c] = _sparse_steps(indptr, indices, data, discount, left, middle, x, out, c * _ROWS, end)
    return lows.min(), highs.max()
