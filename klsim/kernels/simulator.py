"""The token simulator of BroRL: sampled mass-balance steps on one softmax over a large vocabulary."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["simulate"]


@numba.njit(cache=True, parallel=True)
def _softmax(logits, out):
    top = logits.max()
    for i in numba.prange(logits.size):
        out[i] = math.exp(logits[i] - top)
    total = 0.0  # summed in order: the same bytes for any number of threads
    for i in range(logits.size):
        total += out[i]
    for i in numba.prange(logits.size):
        out[i] /= total


@numba.njit(cache=True, parallel=True)
def _update(logits, gradient, first, second, adam, lr, beta1, beta2, correction1, correction2, epsilon, decay):
    for i in numba.prange(logits.size):
        g = gradient[i]
        if adam:
            first[i] = beta1 * first[i] + (1.0 - beta1) * g
            second[i] = beta2 * second[i] + (1.0 - beta2) * g * g
            move = (first[i] / correction1) / (math.sqrt(second[i] / correction2) + epsilon)
            logits[i] -= lr * decay * logits[i] + lr * move
        else:
            logits[i] -= lr * g


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
def _gradient(pi, counts, correct, n, out):
    """Of ``-(1/n) sum_j r_j pi_{i_j}`` in the logits, rewards +1 / -1 centred by the batch mean."""
    hits = 0
    for i in range(pi.size):
        if correct[i]:
            hits += counts[i]
    mean = (2.0 * hits - n) / n
    mood = 0.0
    for i in range(pi.size):
        out[i] = 0.0
        if counts[i] > 0:
            out[i] = counts[i] * ((1.0 if correct[i] else -1.0) - mean)
            mood += out[i] * pi[i]
    for i in range(pi.size):
        out[i] = -pi[i] * (out[i] - mood) / n


@numba.njit(cache=True)
def _record(pi, start, correct, row):
    mass, improved, goods, worst = 0.0, 0, 0, 0.0
    for i in range(pi.size):
        if correct[i]:
            goods += 1
            mass += pi[i]
            gain = pi[i] - start[i]
            improved += gain > 0
            worst = min(worst, gain)
    row[0], row[1], row[2] = mass, improved / goods, worst


def simulate(
    logits, first, second, done, steps, n, correct, start, adam, lr, beta1, beta2, epsilon, decay, rng, record
) -> None:
    """Run ``steps`` more steps in place; ``record (steps, 3)``: correct mass, share improved, worst drop.

    One step: draw ``n`` tokens from the softmax, take the gradient of the centred linear surrogate, then
    AdamW or SGD. ``start`` holds the initial probabilities; ``first, second`` Adam's moments after ``done``
    steps. The loop is plain Python over compiled parts: no serial kernel calls a parallel one.
    """
    pi, cumulative, gradient = np.empty(logits.size), np.empty(logits.size), np.empty(logits.size)
    counts = np.empty(logits.size, np.int64)
    _softmax(logits, pi)
    for step in range(steps):
        _draw(pi, rng.random(n), cumulative, counts)
        _gradient(pi, counts, correct, n, gradient)
        t = done + step + 1
        _update(
            logits, gradient, first, second, adam, lr, beta1, beta2, 1.0 - beta1**t, 1.0 - beta2**t, epsilon, decay
        )  # fmt: skip
        _softmax(logits, pi)
        _record(pi, start, correct, record[step])
