"""``python -m benchmarks.limits [STATES]``: what bounds the sparse row, measured on this machine.

An optimum of a random sparse problem needs products of a policy's chain with vectors, each of which reads four random
entries a state: the time of those reads alone, over a vector of single or double precision, against the whole product,
and against what streaming the same bytes takes.
"""

from __future__ import annotations

import statistics
import sys
import time

import numba
import numpy as np

from klsim.kernels.sweeps import sparse_step


@numba.njit(parallel=True, fastmath=True)
def reads(indices, v, out):
    for c in numba.prange(out.size):
        total = v[0] * 0
        for k in range(c * indices.size // out.size, (c + 1) * indices.size // out.size):
            total += v[np.uint64(indices[k])]
        out[c] = total


def milliseconds(call, *arguments):
    """Median of nine calls after a first one."""
    call(*arguments)
    taken = []
    for _ in range(9):
        begin = time.perf_counter()
        call(*arguments)
        taken.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(taken)


def main(states: int = 10**6, successors: int = 4) -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, states, states * successors, dtype=np.int32)
    starts = np.arange(0, indices.size + 1, successors, dtype=np.int32)
    print(f"{states} states, {successors} successors, {numba.get_num_threads()} threads")
    for kind in (np.float32, np.float64):
        v = rng.random(states).astype(kind)
        data, x, out = rng.random(indices.size).astype(kind), np.zeros_like(v), np.empty_like(v)
        random = milliseconds(reads, indices, v, np.empty(256, kind))
        step = milliseconds(sparse_step, starts, indices, data, kind(0.9), v, kind(0.5), x, out)
        moved = data.nbytes + indices.nbytes + starts.nbytes + 4 * v.nbytes
        stream = milliseconds(np.copyto, np.empty(moved // 2, np.uint8), np.zeros(moved // 2, np.uint8))
        print(
            f"{np.dtype(kind).name}: product and update {step:.2f} ms; random reads alone {random:.2f} ms "
            f"({1e6 * random / indices.size:.2f} ns each); streaming its {moved / 2**20:.0f} MiB on one thread {stream:.2f} ms"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
