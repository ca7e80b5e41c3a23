"""Rows of many prompts, grouped by prompt, in an order that depends on the seed and the prompt only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numba
import numpy as np

from klsim.kernels.threaded import threaded

__all__ = ["counted", "grouped_order", "one_thread"]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Parallel kernels keep to one thread: for workers that are as many as processors."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@numba.njit(cache=True)
def _mixed(x):
    """One step of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@threaded
def grouped_order(codes, starts, keys, seed):
    """Row numbers, prompt after prompt (``starts``), shuffled within each prompt.

    ``codes``: the prompt of every row, ``0 .. starts.size - 2``; ``keys``: what the shuffle of each prompt depends on,
    beside ``seed``. The same rows of a prompt are shuffled alike whatever other prompts there are.
    """
    place = starts[:-1].copy()
    out = np.empty(codes.size, np.int64)
    for row in range(codes.size):
        code = codes[row]
        out[place[code]] = row
        place[code] += 1
    for i in numba.prange(starts.size - 1):
        first = starts[i]
        state = _mixed(np.uint64(seed) ^ _mixed(np.uint64(keys[i])))
        for left in range(starts[i + 1] - first, 1, -1):  # Fisher and Yates
            state = _mixed(state)
            # the remainder of 64 random bits: its bias is below left / 2^64
            chosen = first + np.int64(state % np.uint64(left))
            last = first + left - 1
            out[last], out[chosen] = out[chosen], out[last]
    return out


@threaded
def counted(drawn, out):
    """``out[r, c]``: how often row r of ``drawn`` has c (bytes)."""
    for r in numba.prange(drawn.shape[0]):
        out[r, :] = 0
        for c in drawn[r]:
            out[r, c] += 1
