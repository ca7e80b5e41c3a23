"""PPO's inner loop on a softmax with exact expectations, many settings at once."""

from __future__ import annotations

import numba
import numpy as np

from klsim.kernels.softmax import softmax

__all__ = ["clipped_ascent"]


@numba.njit(cache=True)
def clipped_ascent(logits, reward, low, high, updates, inner, lr):
    """``(B, updates + 1, A)``: policies before every outer update and at the end; ``logits (B, A)`` move in place.

    Per inner step ``g_a = pi_a A_a`` where ``A_a > 0`` and ``rho_a < high_b``, or ``A_a <= 0`` and ``rho_a > low_b``,
    else 0; ``logits += lr (g - pi sum g)``. Advantages are those of the outer update's policy.
    """
    rows, arms = logits.shape
    path = np.empty((rows, updates + 1, arms))
    pi, old, push = np.empty(arms), np.empty(arms), np.empty(arms)
    for b in range(rows):
        for outer in range(updates):
            softmax(logits[b], old)
            path[b, outer] = old
            value = 0.0
            for a in range(arms):
                value += old[a] * reward[b, a]
            for _ in range(inner):
                softmax(logits[b], pi)
                total = 0.0
                for a in range(arms):
                    advantage = reward[b, a] - value
                    is_open = pi[a] < high[b] * old[a] if advantage > 0.0 else pi[a] > low[b] * old[a]
                    push[a] = pi[a] * advantage if is_open else 0.0
                    total += push[a]
                for a in range(arms):
                    logits[b, a] += lr * (push[a] - pi[a] * total)
        softmax(logits[b], path[b, updates])
    return path
