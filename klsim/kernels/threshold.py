"""A PID loop on the velocity of a smoothed reward, with phases read from windows of rewards."""

from __future__ import annotations

import math

import numba

__all__ = ["WINDOW", "follow_threshold"]

WINDOW = 50
"""Rewards in the recent window, and in the one before it."""


@numba.njit(cache=True)
def _phase(rewards, t):
    """0 warm-up, 1 climbing, 2 plateau, 3 converged, from ``rewards[: t + 1]``."""
    if t + 1 < WINDOW:
        return 0
    recent, previous = 0.0, 0.0
    for u in range(t + 1 - WINDOW, t + 1):
        recent += rewards[u]
    if t + 1 >= 2 * WINDOW:
        for u in range(t + 1 - 2 * WINDOW, t + 1 - WINDOW):
            previous += rewards[u]
    else:
        previous = recent
    recent, previous = recent / WINDOW, previous / WINDOW
    if recent > previous + 0.01:
        return 1
    square = 0.0
    for u in range(t + 1 - WINDOW, t + 1):
        square += (rewards[u] - recent) ** 2
    return 3 if math.sqrt(square / WINDOW) < 0.02 and recent > 0.7 else 2


@numba.njit(cache=True)
def follow_threshold(rewards, start, stop, gains, state, smoothed, error, integral, control, phase):
    """Updates ``start … stop - 1`` of every row of ``rewards (n, T)``, written into the five arrays ``(n, T)``.

    ``gains``: proportional, integral, derivative, target velocity, rate of the average, bound of the integral.
    ``state (n, 3)``: average, integral and error after update ``start - 1``; changed in place. Update 0 only
    sets the average.
    """
    for b in range(rewards.shape[0]):
        average, total, last = state[b, 0], state[b, 1], state[b, 2]
        for t in range(start, stop):
            out = 0.0
            if t == 0:
                average, total, last = rewards[b, 0], 0.0, 0.0
            else:
                moved = (1.0 - gains[4]) * average + gains[4] * rewards[b, t]
                now = moved - average - gains[3]
                total = min(max(total + now, -gains[5]), gains[5])
                out = gains[0] * now + gains[1] * total + gains[2] * (now - last)
                average, last = moved, now
            smoothed[b, t], error[b, t], integral[b, t], control[b, t] = average, last, total, out
            phase[b, t] = _phase(rewards[b], t)
        state[b, 0], state[b, 1], state[b, 2] = average, total, last
