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
def _greedy(q, s):
    """Index of the largest value of a state, ties at random."""
    ties = 1
    chosen = 0
    for a in range(1, q.shape[1]):
        if q[s, a] > q[s, chosen]:
            chosen, ties = a, 1
        elif q[s, a] == q[s, chosen]:
            ties += 1
            if np.random.random() * ties < 1.0:
                chosen = a
    return chosen


@numba.njit(cache=True)
def _best(q, s):
    best = q[s, 0]
    for a in range(1, q.shape[1]):
        best = max(best, q[s, a])
    return best


@numba.njit(cache=True)
def _mean_target(s, a, follow, moves, reward, terminal, q, discount):
    """The mean over successors of ``r + discount max q(s')``; without ``follow`` of the reward alone."""
    total = 0.0
    for after in range(moves.shape[2]):
        if moves[s, a, after] > 0:
            ahead = discount * _best(q, after) if follow and not terminal[after] else 0.0
            total += moves[s, a, after] * (reward[s, a, after] + ahead)
    return total


@numba.njit(cache=True)
def _run(
    moves, edges, reward, terminal, start, points, law, discount, phase, cut, limit, every,
    rate, power, explore, expected, bootstrap, kept, used,
):  # fmt: skip
    states, actions, _ = reward.shape
    q, count = np.zeros((states, actions)), np.zeros((states, actions))
    s, left, over, restarts = 0, 0, True, 0
    last = every - 1  # step before a table is kept
    for step in range(kept.shape[0] * every):
        if over or step == phase:
            if step < phase:
                point = draw(law)
                s, left, used[point] = points[point], cut, True
                restarts += 1
            else:
                s, left = draw(start), limit
        a = int(np.random.random() * actions) if np.random.random() < explore else _greedy(q, s)
        after = draw(edges[s, a])
        left -= 1
        follow = left > 0 or bootstrap
        if expected:
            target = _mean_target(s, a, follow, moves, reward, terminal, q, discount)
        else:  # in line: a call with as many arrays costs as much as the step
            target = reward[s, a, after]
            if follow and not terminal[after]:
                target += discount * _best(q, after)
        count[s, a] += 1.0
        size = rate * count[s, a] ** -power if power > 0 else rate
        q[s, a] += min(1.0, size) * (target - q[s, a])
        over = left == 0 or terminal[after]
        s = after
        if step == last:
            kept[step // every] = q
            last += every
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
