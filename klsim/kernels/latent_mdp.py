"""Optimism in latent MDPs: Bernstein back-ups, optimistic values of policies of the current state, episodes.

A bonus is given by ``c1, c2, support``: ``max(c1 sqrt(G V iota / n), c2 G iota / n)`` with ``G`` the number of
successors seen where ``support``, else 1; ``c2 < 0`` takes the variance-blind ``c1 sqrt(iota / (4 n))`` instead.
"""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["bernstein_rows", "episodes", "optimistic_values"]

ANY, LARGEST, TOTAL = 0, 1, 2  # which count has to double before it is planned again


@numba.njit(cache=True)
def _moments(p, x):
    """Mean and variance of ``x`` under ``p``, without cancellation."""
    mean = 0.0
    for i in range(p.size):
        mean += p[i] * x[i]
    variance = 0.0
    for i in range(p.size):
        variance += p[i] * (x[i] - mean) ** 2
    return mean, variance


@numba.njit(cache=True)
def _bernstein(variance, z, c1, c2):
    return max(c1 * math.sqrt(variance * z), c2 * z)


@numba.njit(cache=True)
def bernstein_rows(p, x, z, c1, c2):
    """``p.x + max(c1 sqrt(V(p, x) z), c2 z)`` of every row ``(B, S)``, ``z, c1, c2`` ``(B,)``."""
    out = np.empty(len(p))
    for b in range(len(p)):
        mean, variance = _moments(p[b], x[b])
        out[b] = mean + _bernstein(variance, z[b], c1[b], c2[b])
    return out


@numba.njit(cache=True)
def _bonus(variance, n, iota, c1, c2, support):
    if c2 < 0:
        return c1 * math.sqrt(iota / (4 * n))
    return _bernstein(variance, support * iota / n, c1, c2)


@numba.njit(cache=True)
def _successors(row, after, p):
    """Fill the states of positive probability and their probabilities; how many they are."""
    count = 0
    for s in range(row.size):
        if row[s] > 0:
            after[count], p[count] = s, row[s]
            count += 1
    return count


@numba.njit(cache=True)
def optimistic_values(policies, model, visits, reward, horizon, iota, c1, c2, support):
    """``(C, M, S)``: optimistic values of ``C`` policies ``(C, S)`` in the empirical model ``(M, S, A, S)``.

    Capped at 1; 1 where nothing was seen.
    """
    contexts, states = visits.shape[0], visits.shape[1]
    out = np.zeros((len(policies), contexts, states))
    new, size = np.ones(states), np.empty(states, dtype=np.int64)
    after, p, x = np.empty((states, states), dtype=np.int64), np.empty((states, states)), np.empty(states)
    for c in range(len(policies)):
        for m in range(contexts):
            value = out[c, m]
            for s in range(states):
                size[s] = _successors(model[m, s, policies[c, s]], after[s], p[s])
            for _ in range(horizon):
                for s in range(states):
                    a, seen = policies[c, s], size[s]
                    n = visits[m, s, a]
                    if n > 0:
                        for i in range(seen):
                            x[i] = value[after[s, i]]
                        mean, variance = _moments(p[s, :seen], x[:seen])
                        added = _bonus(variance, n, iota, c1, c2, seen if support else 1)
                        new[s] = min(reward[m, s, a] + added + mean, 1.0)
                    else:
                        new[s] = 1.0
                value[:] = new
    return out


@numba.njit(cache=True)
def _drawn(edges, u):
    k = 0
    while k < edges.size - 1 and u >= edges[k]:
        k += 1
    return k


@numba.njit(cache=True)
def _stale(visits, planned, growth, rule):
    """Whether the counts have grown by the factor ``growth`` since the plan."""
    if rule == ANY:
        return np.any((visits > planned) & (visits >= growth * planned))
    now = visits.max() if rule == LARGEST else visits.sum()
    then = planned.max() if rule == LARGEST else planned.sum()
    return now > then and now >= growth * then


@numba.njit(cache=True)
def _plan(policies, weights, initial, reward, horizon, counts, visits, iota, c1, c2, support, choice):
    """Set ``choice[s]``, the policy for the start state ``s``; ties to the first."""
    model = np.zeros(counts.shape)
    for m in range(counts.shape[0]):
        for s in range(counts.shape[1]):
            for a in range(counts.shape[2]):
                if visits[m, s, a] > 0:
                    model[m, s, a] = counts[m, s, a] / visits[m, s, a]
    values = optimistic_values(policies, model, visits, reward, horizon, iota, c1, c2, support)
    for s in range(counts.shape[1]):
        best = -1.0
        for c in range(len(policies)):
            total = 0.0
            for m in range(len(weights)):
                total += weights[m] * initial[m, s] * values[c, m, s]
            if total > best:
                best, choice[s] = total, c


@numba.njit(cache=True)
def episodes(
    policies,
    weights,
    initial,
    edges,
    reward,
    lost,
    uniforms,
    iota,
    c1,
    c2,
    support,
    growth,
    rule,
    counts,
    planned,
    choice,
):
    """Run ``K`` episodes with uniforms ``(K, H + 2)``; the regret of each, ``(K,)``.

    ``edges``: cumulated laws of context ``(M,)``, first state ``(M, S)`` and successor ``(M, S, A, S)``.
    ``lost (C, S)``: regret of using policy ``c`` where the episode starts in ``s``, times the chance of ``s``.
    ``counts (M, S, A, S)``, ``planned (M, S, A)`` (-1 before the first plan) and ``choice (S,)`` are carried over.
    """
    of_context, of_start, of_next = edges
    horizon = uniforms.shape[1] - 2
    visits = counts.sum(axis=3)
    out = np.empty(len(uniforms))
    for k in range(len(uniforms)):
        if planned[0, 0, 0] < 0 or _stale(visits.ravel(), planned.ravel(), growth, rule):
            _plan(policies, weights, initial, reward, horizon, counts, visits, iota, c1, c2, support, choice)
            planned[:] = visits
        out[k] = 0.0
        for s in range(choice.size):
            out[k] += lost[choice[s], s]
        m = _drawn(of_context, uniforms[k, 0])
        s = _drawn(of_start[m], uniforms[k, 1])
        used = policies[choice[s]]
        for t in range(horizon):
            a = used[s]
            if of_next[m, s, a, s] == 1.0 and (s == 0 or of_next[m, s, a, s - 1] == 0.0):  # it stays here
                visits[m, s, a] += horizon - t
                counts[m, s, a, s] += horizon - t
                break
            after = _drawn(of_next[m, s, a], uniforms[k, 2 + t])
            visits[m, s, a] += 1
            counts[m, s, a, after] += 1
            s = after
    return out
