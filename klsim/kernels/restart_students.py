"""Tabular Q-learning with restarts from given states: many independent runs, one seed a run.

``edges`` are cumulative next-state probabilities ``(S, A, S)``, ``start`` those of the first state ``(S,)``, ``law``
those of every run's restart points ``(runs, N)``.
"""

from __future__ import annotations

import numba
import numpy as np

from klsim.kernels.draws import draw

__all__ = ["restart_runs"]


@numba.njit(cache=True)
def _greedy(values):
    """Index of the largest value, ties at random."""
    ties = 1
    chosen = 0
    for a in range(1, values.size):
        if values[a] > values[chosen]:
            chosen, ties = a, 1
        elif values[a] == values[chosen]:
            ties += 1
            if np.random.random() * ties < 1.0:
                chosen = a
    return chosen


@numba.njit(cache=True)
def _best(values):
    best = values[0]
    for a in range(1, values.size):
        best = max(best, values[a])
    return best


@numba.njit(cache=True)
def _target(s, a, after, follow, moves, reward, terminal, q, discount, expected):
    """``r + discount max q(s')`` of the successor, or its mean over successors; without ``follow`` the reward alone."""
    if not expected:
        ahead = discount * _best(q[after]) if follow and not terminal[after] else 0.0
        return reward[s, a, after] + ahead
    total = 0.0
    for i in range(moves.shape[2]):
        if moves[s, a, i] > 0:
            ahead = discount * _best(q[i]) if follow and not terminal[i] else 0.0
            total += moves[s, a, i] * (reward[s, a, i] + ahead)
    return total


@numba.njit(cache=True)
def _run(
    moves, edges, reward, terminal, start, points, law, discount, phase, cut, limit, every,
    rate, power, explore, expected, bootstrap, kept, used,
):  # fmt: skip
    states, actions, _ = reward.shape
    q, count = np.zeros((states, actions)), np.zeros((states, actions))
    s, left, over, restarts = 0, 0, True, 0
    for step in range(kept.shape[0] * every):
        if over or step == phase:
            if step < phase:
                point = draw(law)
                s, left, used[point] = points[point], cut, True
                restarts += 1
            else:
                s, left = draw(start), limit
        a = int(np.random.random() * actions) if np.random.random() < explore else _greedy(q[s])
        after = draw(edges[s, a])
        left -= 1
        follow = left > 0 or bootstrap
        target = _target(s, a, after, follow, moves, reward, terminal, q, discount, expected)
        count[s, a] += 1.0
        size = rate * count[s, a] ** -power if power > 0 else rate
        q[s, a] += min(1.0, size) * (target - q[s, a])
        over = left == 0 or terminal[after]
        s = after
        if (step + 1) % every == 0:
            kept[step // every] = q
    return restarts


@numba.njit(cache=True)
def restart_runs(
    moves, edges, reward, terminal, start, points, law, discount, phase, cut, limit, evaluations, every,
    rate, power, explore, expected, bootstrap, seeds,
):  # fmt: skip
    """``(q (runs, evaluations, S, A), restarts (runs,), distinct points used (runs,))``."""
    states, actions, _ = reward.shape
    kept = np.zeros((seeds.size, evaluations, states, actions))
    restarts, distinct = np.zeros(seeds.size, np.int64), np.zeros(seeds.size, np.int64)
    for run in range(seeds.size):
        np.random.seed(seeds[run])
        used = np.zeros(points.shape[1], np.bool_)
        restarts[run] = _run(
            moves, edges, reward, terminal, start, points[run], law[run], discount, phase, cut, limit, every,
            rate, power, explore, expected, bootstrap, kept[run], used,
        )  # fmt: skip
        distinct[run] = used.sum()
    return kept, restarts, distinct
