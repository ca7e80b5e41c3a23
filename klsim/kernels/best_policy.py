"""Optimistic best-policy identification with a KL to a prior: the loop over episodes, one seed a run.

``seen (H, S, A)`` counts visits, ``moved (H, S, A, S)`` their successors, ``cap (H + 1, S)`` bounds returns to go. A
run seeds its own generator.
"""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["identification_runs"]


@numba.njit(cache=True)
def _draw(weights):
    """An outcome by inversion of probabilities."""
    left = np.random.random()  # noqa: NPY002 - numba's, seeded by every run
    for i in range(weights.size - 1):
        left -= weights[i]
        if left < 0.0:
            return i
    return weights.size - 1


@numba.njit(cache=True)
def _mean(weights, values):
    total = 0.0
    for i in range(weights.size):
        total += weights[i] * values[i]
    return total


@numba.njit(cache=True)
def _soft_max(q, log_ref, beta, policy):
    """``beta log sum ref e^{q/beta}`` and the probabilities that attain it."""
    top = -np.inf
    for a in range(q.size):
        top = max(top, log_ref[a] + q[a] / beta)
    total = 0.0
    for a in range(q.size):
        policy[a] = math.exp(log_ref[a] + q[a] / beta - top)
        total += policy[a]
    for a in range(q.size):
        policy[a] /= total
    return beta * (top + math.log(total))


@numba.njit(cache=True)
def _moments(seen, moved, upper, lower):
    """Means of both values under the observed successors, and the variance of the upper one."""
    high, low, square = 0.0, 0.0, 0.0
    for j in range(moved.size):
        if moved[j] > 0:
            p = moved[j] / seen
            high += p * upper[j]
            low += p * lower[j]
            square += p * upper[j] * upper[j]
    return high, low, max(square - high * high, 0.0)


@numba.njit(cache=True)
def _plan(seen, moved, reward, cap, log_ref, beta, scale, term, width, upper, lower, gap, policy):
    """Optimistic and pessimistic values, what may be lost from every state, and the soft-greedy policy."""
    horizon, states, actions = reward.shape
    high, low, spare = np.empty(actions), np.empty(actions), np.empty(actions)
    for h in range(horizon - 1, -1, -1):
        ahead = 0.0
        for s in range(states):
            ahead = max(ahead, cap[h + 1, s])
        for s in range(states):
            for a in range(actions):
                n = seen[h, s, a]
                high[a], low[a] = cap[h, s], 0.0
                if n > 0:
                    up, down, variance = _moments(n, moved[h, s, a], upper[h + 1], lower[h + 1])
                    spread = 3.0 * math.sqrt(variance * term / n) + 9.0 * horizon * ahead * term / n
                    bonus = scale * (spread + (up - down) / horizon)
                    high[a] = min(reward[h, s, a] + up + bonus, cap[h, s])
                    low[a] = min(max(reward[h, s, a] + down - bonus, 0.0), cap[h, s])
                width[h, s, a] = high[a] - low[a]
            upper[h, s] = _soft_max(high, log_ref[h, s], beta, policy[h, s])
            lower[h, s] = _soft_max(low, log_ref[h, s], beta, spare)
            widest, lost = 0.0, 0.0
            for a in range(actions):
                widest = max(widest, width[h, s, a])
                n = seen[h, s, a]
                if n == 0:
                    lost += policy[h, s, a] * cap[h, s]
                    continue
                later = 0.0
                for j in range(states):
                    later += moved[h, s, a, j] / n * gap[h + 1, j]
                lost += policy[h, s, a] * (1.0 + 1.0 / horizon) * later
            gap[h, s] = min(widest * widest / (2.0 * beta) + lost, cap[h, s])


@numba.njit(cache=True)
def _episode(transition, start, policy, width, deviate, seen, moved):
    """One episode of the policy; with ``deviate`` it takes the most uncertain action at one random step."""
    horizon = width.shape[0]
    odd = int(np.random.random() * horizon) if deviate else -1  # noqa: NPY002
    s = _draw(start)
    for h in range(horizon):
        if h == odd:
            a = 0
            for other in range(1, width.shape[2]):
                if width[h, s, other] > width[h, s, a]:
                    a = other
        else:
            a = _draw(policy[h, s])
        following = _draw(transition[h, s, a])
        seen[h, s, a] += 1
        moved[h, s, a, following] += 1
        s = following


@numba.njit(cache=True)
def _return(transition, reward, start, policy):
    horizon, states, actions = reward.shape
    value = np.zeros(states)
    for h in range(horizon - 1, -1, -1):
        now = np.zeros_like(value)
        for s in range(states):
            for a in range(actions):
                total = reward[h, s, a]
                for j in range(states):
                    total += transition[h, s, a, j] * value[j]
                now[s] += policy[h, s, a] * total
        value = now
    return _mean(start, value)


@numba.njit(cache=True)
def _run(
    transition, reward, start, cap, log_ref, betas, scale, term, accuracy, target, deviate, refresh, marks, seed,
    policy, trace, moved,
):  # fmt: skip
    """Episodes used, and whether the run stopped by itself; fills ``policy``, ``trace (marks, 3)`` and ``moved``."""
    np.random.seed(seed)  # noqa: NPY002
    horizon, states, actions = reward.shape
    seen = np.zeros((horizon, states, actions), dtype=np.int64)
    upper, lower, gap = (
        np.zeros((horizon + 1, states)),
        np.zeros((horizon + 1, states)),
        np.zeros((horizon + 1, states)),
    )
    width = np.empty((horizon, states, actions))
    mark, planned = 0, 0.0
    for episode in range(betas.size):
        due = mark < marks.size and marks[mark] == episode
        if episode >= planned or due:
            _plan(seen, moved, reward, cap, log_ref, betas[episode], scale, term, width, upper, lower, gap, policy)
            planned = episode * (1.0 + refresh) + 0.5
            if due:
                trace[mark, 0], trace[mark, 1] = _mean(start, upper[0]), _mean(start, lower[0])
                trace[mark, 2] = _mean(start, gap[0])
                mark += 1
            if _mean(start, gap[0]) <= accuracy:
                return episode, True
            if target < np.inf and _return(transition, reward, start, policy) >= target:
                return episode, True
        if episode + 1 < betas.size:
            _episode(transition, start, policy, width, deviate, seen, moved)
    return betas.size - 1, False


@numba.njit(cache=True)
def identification_runs(
    transition, reward, start, cap, log_ref, betas, scale, term, accuracy, target, deviate, refresh, marks, seeds,
):  # fmt: skip
    """``(episodes, stopped, policies, trace, moved)`` of independent runs; NaN in the trace after a run has stopped."""
    runs = seeds.size
    episodes, stopped = np.empty(runs, dtype=np.int64), np.empty(runs, dtype=np.bool_)
    policies, trace = np.empty((runs, *reward.shape)), np.full((runs, marks.size, 3), np.nan)
    moved = np.zeros((runs, *transition.shape), dtype=np.int64)
    for i in range(runs):
        episodes[i], stopped[i] = _run(
            transition, reward, start, cap, log_ref, betas, scale, term, accuracy, target, deviate, refresh, marks,
            seeds[i], policies[i], trace[i], moved[i],
        )  # fmt: skip
    return episodes, stopped, policies, trace, moved
