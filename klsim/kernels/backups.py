"""Soft backups of many rows: the hot loop of planning and of token-tree recursions."""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.threaded import threaded

__all__ = ["greedy_rows", "soft_backup_rows"]


@numba.njit(cache=True)
def _soft_row(q, log_ref, beta, log_policy):
    """``beta log sum ref e^{q/beta}`` of one row, and the tilted policy; NaN-free for any beta > 0."""
    best, worst = -np.inf, np.inf
    for a in range(q.size):
        if log_ref[a] > -np.inf:
            best, worst = max(best, q[a]), min(worst, q[a])
    if best - worst <= 0.5 * beta:  # little tilt: log1p of E_ref[expm1], exact for beta to infinity
        mean = 0.0
        for a in range(q.size):
            if log_ref[a] > -np.inf:
                mean += math.exp(log_ref[a]) * math.expm1((q[a] - best) / beta)
        top, log_z = 0.0, math.log1p(mean)
    else:  # around the largest tilted term, which need not be that of the best action
        top = -np.inf
        for a in range(q.size):
            log_policy[a] = log_ref[a] + (q[a] - best) / beta if log_ref[a] > -np.inf else -np.inf
            top = max(top, log_policy[a])
        total = 0.0
        for a in range(q.size):
            total += math.exp(log_policy[a] - top)
        log_z = math.log(total)
    for a in range(q.size):
        tilt = log_ref[a] + (q[a] - best) / beta if log_ref[a] > -np.inf else -np.inf
        log_policy[a] = tilt - top - log_z
    return best + beta * (top + log_z)


@numba.njit(cache=True)
def _hard_row(q, log_ref, log_policy, slack):
    """``max q`` over the support, and the reference conditioned on the actions within ``slack`` of it."""
    best = -np.inf
    for a in range(q.size):
        if log_ref[a] > -np.inf:
            best = max(best, q[a])
    top = -np.inf
    for a in range(q.size):
        if log_ref[a] > -np.inf and q[a] >= best - slack:
            top = max(top, log_ref[a])
    total = 0.0
    for a in range(q.size):
        if log_ref[a] > -np.inf and q[a] >= best - slack:
            total += math.exp(log_ref[a] - top)
    for a in range(q.size):
        chosen = log_ref[a] > -np.inf and q[a] >= best - slack
        log_policy[a] = log_ref[a] - top - math.log(total) if chosen else -np.inf
    return best


@threaded
def soft_backup_rows(q, log_ref, beta, slack=0.0):
    """Values and optimal policies of rows ``q, log_ref (n, A)``; ``beta = 0`` takes the maximum.

    Actions within ``slack`` of the maximum count as ties.
    """
    values = np.empty(q.shape[0])
    log_policy = np.empty_like(q)
    for row in numba.prange(q.shape[0]):
        if beta > 0:
            values[row] = _soft_row(q[row], log_ref[row], beta, log_policy[row])
        else:
            values[row] = _hard_row(q[row], log_ref[row], log_policy[row], slack)
    return values, log_policy


@threaded
def greedy_rows(q, log_ref, current, slack):
    """``(maximum, action, own, change)`` of rows; ``own`` is the value of ``current``.

    ``current`` is kept unless another action is better by more than ``slack``; -1 is no action yet. ``change`` counts
    the rows whose action is new.
    """
    best, own = np.empty(q.shape[0]), np.empty(q.shape[0])
    action = np.empty(q.shape[0], np.int64)
    change = 0
    for row in numba.prange(q.shape[0]):
        top, at = -np.inf, -1
        for a in range(q.shape[1]):
            if log_ref[row, a] > -np.inf and q[row, a] > top:
                top, at = q[row, a], a
        own[row] = top if current[row] < 0 else q[row, current[row]]
        if current[row] >= 0 and own[row] >= top - slack:
            at = current[row]
        change += at != current[row]
        best[row], action[row] = top, at
    return best, action, own, change
