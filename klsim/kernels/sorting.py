"""Sorting of one long row: buckets first, so that every sort stays in the cache.

NumPy's ``argsort`` of 10^7 numbers waits for memory; the same numbers in buckets of 10^4 are sorted several times
faster, and on all threads (NumPy sorts without the interpreter's lock).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from klsim.kernels.threaded import threaded

__all__ = ["gather", "scatter", "sorted_with_order"]

_EACH = 1 << 13  # about as many numbers a bucket
_MOST = 1 << 12  # buckets
_PIECES = 64  # of the row; fixed, so that the order is the same for any number of threads


@threaded
def _gather(values, order, out):
    for i in numba.prange(order.size):
        out[i] = values[order[i]]


@threaded
def _scatter(values, order, out):
    for i in numba.prange(order.size):
        out[order[i]] = values[i]


def gather(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """``values[order]``, on all threads."""
    out = np.empty_like(values)
    _gather(values, order, out)
    return out


def scatter(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The array with ``out[order] = values``, on all threads."""
    out = np.empty_like(values)
    _scatter(values, order, out)
    return out


@numba.njit(cache=True)
def _buckets(values, ends, at):
    """How many of the sorted ``ends`` (a power of two less one) lie at or below each value: level by level."""
    at[:] = 0
    step = (ends.size + 1) >> 1
    while step > 0:
        for j in range(values.size):
            k = at[j]
            # unsigned: an index that might be negative would not become a vector instruction
            at[j] = k + step if ends[np.uint64(k + step - 1)] <= values[j] else k
        step >>= 1


@threaded
def _count(values, ends, bucket, counts):
    """The bucket of every number, and how many of every piece of the row each bucket gets."""
    each = (values.size + _PIECES - 1) // _PIECES
    for piece in numba.prange(_PIECES):
        at = np.empty(256, np.int64)
        end = min((piece + 1) * each, values.size)
        for start in range(piece * each, end, 256):
            stop = min(start + 256, end)
            _buckets(values[start:stop], ends, at[: stop - start])
            for i in range(start, stop):
                bucket[i] = at[i - start]
                counts[piece, at[i - start]] += 1


@threaded
def _distribute(values, bucket, places, moved, order):
    """Every number and its index to its bucket; ``places`` says where each piece writes next."""
    each = (values.size + _PIECES - 1) // _PIECES
    for piece in numba.prange(_PIECES):
        for i in range(piece * each, min((piece + 1) * each, values.size)):
            to = places[piece, bucket[i]]
            places[piece, bucket[i]] = to + 1
            moved[to] = values[i]
            order[to] = i


def sorted_with_order(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(values[order], order)`` ascending, of finite float64 ``(n,)``; equal numbers in any order."""
    buckets = 1
    while buckets < _MOST and values.size > buckets * _EACH:
        buckets *= 2
    if buckets < 4:
        order = np.argsort(values)
        return values[order], order
    sample = np.sort(values[:: max(values.size // (64 * buckets), 1)])
    ends = sample[(np.arange(1, buckets) * sample.size) // buckets]
    bucket, counts = np.empty(values.size, np.uint16), np.zeros((_PIECES, buckets), np.int64)
    _count(values, ends, bucket, counts)
    totals = counts.sum(axis=0)
    starts = np.concatenate([[0], np.cumsum(totals)])
    places = starts[:-1] + np.cumsum(counts, axis=0) - counts
    moved, order = np.empty_like(values), np.empty(values.size, np.int64)
    _distribute(values, bucket, places, moved, order)

    def sort(first: int) -> None:
        for b in range(first, buckets, threads):
            at = slice(starts[b], starts[b + 1])
            local = np.argsort(moved[at])
            moved[at], order[at] = moved[at][local], order[at][local]

    threads = numba.get_num_threads()
    if threads == 1:
        sort(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(sort, range(threads)))
    return moved, order
