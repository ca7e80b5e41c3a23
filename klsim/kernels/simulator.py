"""The token simulator of BroRL: sampled mass-balance steps on one softmax over a large vocabulary."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["simulate"]


@numba.njit(cache=True)
def _softmax(logits, out):
    top = logits.max()
    total = 0.0
    for i in range(logits.size):
        out[i] = math.exp(logits[i] - top)
        total += out[i]
    for i in range(logits.size):
        out[i] /= total


@numba.njit(cache=True)
def _draw(pi, uniforms, cumulative, counts):
    """Draw counts of ``uniforms.size`` tokens by inversion."""
    total = 0.0
    for i in range(pi.size):
        total += pi[i]
        cumulative[i] = total
        counts[i] = 0
    for u in uniforms:
        target = u * total
        low, high = 0, pi.size - 1
        while low < high:
            middle = (low + high) // 2
            if cumulative[middle] > target:
                high = middle
            else:
                low = middle + 1
        counts[low] += 1


@numba.njit(cache=True)
def simulate(
    logits, first, second, done, steps, n, correct, start, adam, lr, beta1, beta2, epsilon, decay, rng, record
):
    """Run ``steps`` more steps in place; ``record (steps, 3)``: correct mass, share improved, worst drop.

    One step: draw ``n`` tokens from the softmax, reward +1 / -1 centred by the batch mean, gradient of
    ``-(1/n) sum_j r_j pi_{i_j}`` with respect to the logits, then AdamW or SGD. ``start`` holds the
    initial probabilities; ``first, second`` Adam's moments after ``done`` steps.
    """
    size = logits.size
    pi, cumulative = np.empty(size), np.empty(size)
    counts = np.empty(size, np.int64)
    goods = correct.sum()
    for step in range(steps):
        _softmax(logits, pi)
        _draw(pi, rng.random(n), cumulative, counts)
        hits = 0
        for i in range(size):
            if correct[i]:
                hits += counts[i]
        mean = (2.0 * hits - n) / n
        mood = 0.0
        for i in range(size):
            if counts[i] > 0:
                mood += counts[i] * ((1.0 if correct[i] else -1.0) - mean) * pi[i]
        t = done + step + 1
        correction1, correction2 = 1.0 - beta1**t, 1.0 - beta2**t
        for i in range(size):
            centred = counts[i] * ((1.0 if correct[i] else -1.0) - mean) if counts[i] > 0 else 0.0
            gradient = -pi[i] * (centred - mood) / n
            if adam:
                first[i] = beta1 * first[i] + (1.0 - beta1) * gradient
                second[i] = beta2 * second[i] + (1.0 - beta2) * gradient * gradient
                move = (first[i] / correction1) / (math.sqrt(second[i] / correction2) + epsilon)
                logits[i] -= lr * decay * logits[i] + lr * move
            else:
                logits[i] -= lr * gradient
        _softmax(logits, pi)
        mass, improved, worst = 0.0, 0, 0.0
        for i in range(size):
            if correct[i]:
                mass += pi[i]
                gain = pi[i] - start[i]
                improved += gain > 0
                worst = min(worst, gain)
        record[step, 0], record[step, 1], record[step, 2] = mass, improved / goods, worst
