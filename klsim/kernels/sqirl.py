"""SQIRL and GORP on tabular finite-horizon problems: many independent runs, one seed a run.

``edges`` are cumulative next-state probabilities ``(H, S, A, S)``, ``start`` those of the first state ``(S,)``. A run
seeds its own generator, so the results do not depend on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np

from klsim.kernels.draws import draw
from klsim.kernels.threaded import always_threaded

__all__ = ["gorp_runs", "sqirl_runs"]

_TIE = 1e-12


@numba.njit(cache=True)
def _argmax(values):
    """Index of the largest value, ties at random."""
    best = values.max()
    ties = 0
    chosen = 0
    for a in range(values.size):
        if values[a] >= best - _TIE:
            ties += 1
            if np.random.random() * ties < 1.0:
                chosen = a
    return chosen


@numba.njit(cache=True)
def _sqirl(edges, reward, start, k, m, policy):
    horizon, states, actions = reward.shape
    seen = np.empty((m, horizon + 1), dtype=np.int64)
    taken = np.empty((m, horizon), dtype=np.int64)
    for i in range(horizon):
        for episode in range(m):
            s = draw(start)
            for t in range(horizon):
                a = policy[t, s] if t < i else int(np.random.random() * actions)
                seen[episode, t], taken[episode, t] = s, a
                s = draw(edges[t, s, a])
            seen[episode, horizon] = s
        top = min(i + k - 1, horizon - 1)
        q = np.zeros((states, actions))
        for t in range(top, i - 1, -1):
            count = np.zeros((states, actions))
            total = np.zeros((states, actions))
            for episode in range(m):
                s, a = seen[episode, t], taken[episode, t]
                if t == top:
                    target = 0.0
                    for later in range(t, horizon):
                        target += reward[later, seen[episode, later], taken[episode, later]]
                else:
                    target = reward[t, s, a] + q[seen[episode, t + 1]].max()
                count[s, a] += 1.0
                total[s, a] += target
            for s in range(states):
                for a in range(actions):
                    total[s, a] = total[s, a] / count[s, a] if count[s, a] > 0 else 0.0
            q = total
        for s in range(states):
            policy[i, s] = _argmax(q[s])


@always_threaded
def sqirl_runs(edges, reward, start, k, m, seeds):
    """Greedy policies ``(runs, H, S)`` of SQIRL(k, m)."""
    horizon, states, _ = reward.shape
    out = np.zeros((seeds.size, horizon, states), dtype=np.int64)
    for run in numba.prange(seeds.size):
        np.random.seed(seeds[run])
        _sqirl(edges, reward, start, k, m, out[run])
    return out


@numba.njit(cache=True)
def _gorp(edges, reward, start, k, m, sequence):
    horizon, _, actions = reward.shape
    for i in range(horizon):
        depth = min(k, horizon - i)
        count = actions**depth
        means = np.zeros(count)
        for code in range(count):
            for _ in range(m):
                s = draw(start)
                for t in range(horizon):
                    if t < i:
                        a = sequence[t]
                    elif t < i + depth:
                        a = code // actions ** (depth - 1 - (t - i)) % actions
                    else:
                        a = int(np.random.random() * actions)
                    means[code] += reward[t, s, a] / m
                    s = draw(edges[t, s, a])
        sequence[i] = _argmax(means) // actions ** (depth - 1)


@always_threaded
def gorp_runs(edges, reward, start, k, m, seeds):
    """Open-loop action sequences ``(runs, H)`` of GORP(k, m)."""
    out = np.zeros((seeds.size, reward.shape[0]), dtype=np.int64)
    for run in numba.prange(seeds.size):
        np.random.seed(seeds[run])
        _gorp(edges, reward, start, k, m, out[run])
    return out
