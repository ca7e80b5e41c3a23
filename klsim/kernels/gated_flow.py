"""Exact policy-gradient flow of a bandit whose tokens are gated by the ratio to a teacher."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["gated_flow"]


@numba.njit(cache=True)
def gated_flow(logits, log_teacher, right, alpha, log_low, log_high, clamp, lr, steps):
    """Rows of ``logits (B, A)`` are moved in place, each until no gate is open or ``steps`` are taken.

    Old policy = policy, infinite group, std-normalised 0/1 rewards ``right``. Per arm
    ``w = slope r A`` where its gate is open, ``log r = (1 - alpha) clamped(log pi/T)``;
    ``logits += lr pi (w - E_pi w)``. Returns the steps that each row took.
    """
    rows, arms = logits.shape
    taken = np.zeros(rows, np.int64)
    log_pi, weight = np.empty(arms), np.empty(arms)
    for b in range(rows):
        for step in range(steps):
            top = logits[b].max()
            total = 0.0
            for a in range(arms):
                total += math.exp(logits[b, a] - top)
            wins, losses = 0.0, 0.0
            for a in range(arms):
                log_pi[a] = logits[b, a] - top - math.log(total)
                if right[b, a]:
                    wins += math.exp(log_pi[a])
                else:
                    losses += math.exp(log_pi[a])
            if wins == 0.0 or losses == 0.0:
                break
            mean, moving = 0.0, False
            for a in range(arms):
                gap = log_pi[a] - log_teacher[b, a]
                slope = 1.0 if abs(gap) <= clamp else alpha[b]
                log_ratio = (1.0 - alpha[b]) * min(max(gap, -clamp), clamp) if alpha[b] < 1.0 else 0.0
                is_open = log_ratio < log_high if right[b, a] else log_ratio > log_low
                advantage = math.sqrt(losses / wins) if right[b, a] else -math.sqrt(wins / losses)
                weight[a] = slope * math.exp(log_ratio) * advantage if is_open else 0.0
                moving = moving or (is_open and slope > 0.0)
                mean += math.exp(log_pi[a]) * weight[a]
            if not moving:
                break
            for a in range(arms):
                logits[b, a] += lr * math.exp(log_pi[a]) * (weight[a] - mean)
            taken[b] = step + 1
    return taken
