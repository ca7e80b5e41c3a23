"""Sampling trajectories by inversion from uniforms that the caller drew: no randomness in here."""

from __future__ import annotations

import numba
import numpy as np

from klsim.kernels.threaded import threaded

__all__ = ["row_cumulative", "sample_sequences", "sample_sparse_trajectories", "sample_trajectories"]


@numba.njit(cache=True)
def _invert(cumulative, u):
    """First index whose cumulative probability exceeds ``u * total``; skips outcomes of probability 0."""
    target = u * cumulative[-1]
    low, high = 0, cumulative.size - 1
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] > target:
            high = middle
        else:
            low = middle + 1
    return low


@threaded
def sample_trajectories(initial, policy, transition, uniforms):
    """States ``(n, H+1)`` and actions ``(n, H)``.

    Cumulative probabilities: ``initial (S,)``, ``policy (T, S, A)``, ``transition (T, S, A, S)`` with ``T``
    equal to H or 1 (the same at every step); ``uniforms (n, 2 H + 1)``.
    """
    count, horizon = uniforms.shape[0], (uniforms.shape[1] - 1) // 2
    states = np.empty((count, horizon + 1), np.int64)
    actions = np.empty((count, horizon), np.int64)
    for i in numba.prange(count):
        s = _invert(initial, uniforms[i, 0])
        for t in range(horizon):
            a = _invert(policy[min(t, policy.shape[0] - 1), s], uniforms[i, 2 * t + 1])
            states[i, t], actions[i, t] = s, a
            s = _invert(transition[min(t, transition.shape[0] - 1), s, a], uniforms[i, 2 * t + 2])
        states[i, horizon] = s
    return states, actions


@threaded
def row_cumulative(indptr, data):
    """Cumulative sums of every CSR row."""
    out = np.empty(data.size)
    for row in numba.prange(indptr.size - 1):
        total = 0.0
        for k in range(indptr[row], indptr[row + 1]):
            total += data[k]
            out[k] = total
    return out


@threaded
def sample_sparse_trajectories(initial, policy, indptr, indices, edges, uniforms):
    """As `sample_trajectories`, with the CSR rows ``(T S A, S)`` and their cumulative probabilities ``edges``."""
    count, horizon = uniforms.shape[0], (uniforms.shape[1] - 1) // 2
    size, width = policy.shape[1], policy.shape[2]
    last = (indptr.size - 1) // (size * width) - 1
    states = np.empty((count, horizon + 1), np.int64)
    actions = np.empty((count, horizon), np.int64)
    for i in numba.prange(count):
        s = _invert(initial, uniforms[i, 0])
        for t in range(horizon):
            a = _invert(policy[min(t, policy.shape[0] - 1), s], uniforms[i, 2 * t + 1])
            states[i, t], actions[i, t] = s, a
            row = (min(t, last) * size + s) * width + a
            start, end = indptr[row], indptr[row + 1]
            s = indices[start + _invert(edges[start:end], uniforms[i, 2 * t + 2])]
        states[i, horizon] = s
    return states, actions


@threaded
def sample_sequences(flat, vocab, uniforms):
    """Sequence indices ``(n,)`` of a tree policy.

    ``flat``: cumulative probabilities of all nodes, level by level, ``(sum_t V**t, V)``; ``uniforms (n, H)``.
    """
    count, horizon = uniforms.shape
    out = np.empty(count, np.int64)
    for i in numba.prange(count):
        node, offset, width = 0, 0, 1
        for t in range(horizon):
            node = node * vocab + _invert(flat[offset + node], uniforms[i, t])
            offset += width
            width *= vocab
        out[i] = node
    return out
