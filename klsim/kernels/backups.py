"""Soft backups of many rows: the hot loop of planning and of token-tree recursions."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["soft_backup_rows"]


@numba.njit(cache=True)
def _soft_row(q, log_ref, beta, log_policy):
    """``beta log sum ref e^{q/beta}`` of one row, and the tilted policy; NaN-free for any beta > 0."""
    best, largest = -np.inf, 0.0
    for a in range(q.size):
        if log_ref[a] > -np.inf:
            best = max(best, q[a])
            largest = max(largest, abs(q[a] / beta))
    small = largest <= 0.5
    mean = 0.0  # E_ref[expm1(q/beta)], or of the shortfall
    total = 0.0
    for a in range(q.size):
        if log_ref[a] > -np.inf:
            x = q[a] / beta if small else -((best - q[a]) / beta)
            mean += math.exp(log_ref[a]) * math.expm1(x)
            total += math.exp(log_ref[a] + x)
    log_z = math.log1p(mean) if mean > -0.5 else math.log(total)
    for a in range(q.size):
        if log_ref[a] > -np.inf:
            x = q[a] / beta if small else -((best - q[a]) / beta)
            log_policy[a] = log_ref[a] + x - log_z
        else:
            log_policy[a] = -np.inf
    return beta * log_z if small else best + beta * log_z


@numba.njit(cache=True)
def _hard_row(q, log_ref, log_policy):
    """``max q`` over the support, and the reference conditioned on the maximisers."""
    best = -np.inf
    for a in range(q.size):
        if log_ref[a] > -np.inf:
            best = max(best, q[a])
    top = -np.inf
    for a in range(q.size):
        if log_ref[a] > -np.inf and q[a] == best:
            top = max(top, log_ref[a])
    total = 0.0
    for a in range(q.size):
        if log_ref[a] > -np.inf and q[a] == best:
            total += math.exp(log_ref[a] - top)
    for a in range(q.size):
        chosen = log_ref[a] > -np.inf and q[a] == best
        log_policy[a] = log_ref[a] - top - math.log(total) if chosen else -np.inf
    return best


@numba.njit(cache=True, parallel=True)
def soft_backup_rows(q, log_ref, beta):
    """Values and optimal policies of rows ``q, log_ref (n, A)``; ``beta = 0`` takes the maximum."""
    values = np.empty(q.shape[0])
    log_policy = np.empty_like(q)
    for row in numba.prange(q.shape[0]):
        if beta > 0:
            values[row] = _soft_row(q[row], log_ref[row], beta, log_policy[row])
        else:
            values[row] = _hard_row(q[row], log_ref[row], log_policy[row])
    return values, log_policy
