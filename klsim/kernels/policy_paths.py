"""Trajectories of deterministic policies from uniforms that the caller drew: one by one, or many on a shared tree.

``start`` and ``edges`` are cumulative probabilities, ``(S,)`` and ``(H, S, A, S)``; ``policies`` ``(N, H, S)``.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["policy_paths", "shared_trees"]


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


@numba.njit(cache=True)
def policy_paths(start, edges, policies, which, uniforms):
    """States and actions ``(n, H)`` of episodes; episode i follows ``policies[which[i]]``; ``uniforms (n, H)``."""
    count, horizon = uniforms.shape
    states = np.empty((count, horizon), np.int64)
    actions = np.empty((count, horizon), np.int64)
    for i in range(count):
        s = _invert(start, uniforms[i, 0])
        for h in range(horizon):
            a = policies[which[i], h, s]
            states[i, h], actions[i, h] = s, a
            if h + 1 < horizon:
                s = _invert(edges[h, s, a], uniforms[i, h + 1])
    return states, actions


@numba.njit(cache=True)
def shared_trees(start, edges, reward, policies, first, uniforms):
    """Returns ``(trees, N)`` and calls ``(trees,)``: one successor of each pair that a policy reaches, shared by all.

    ``first (trees,)`` and ``uniforms (trees, H, S, A)`` draw the first state and the successors.
    """
    trees, horizon, states, actions = uniforms.shape
    returns = np.zeros((trees, policies.shape[0]))
    calls = np.zeros(trees, np.int64)
    for tree in range(trees):
        successor = np.full((horizon, states, actions), -1)
        root = _invert(start, first[tree])
        for i in range(policies.shape[0]):
            s = root
            for h in range(horizon):
                a = policies[i, h, s]
                if successor[h, s, a] < 0:
                    calls[tree] += 1
                    successor[h, s, a] = _invert(edges[h, s, a], uniforms[tree, h, s, a])
                returns[tree, i] += reward[h, s, a]
                s = successor[h, s, a]
    return returns, calls
