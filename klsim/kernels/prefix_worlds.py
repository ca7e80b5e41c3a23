"""Group-relative learning from resets to prefixes: a combination lock, and prompts that share a rule."""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.softmax import softmax

__all__ = ["open_lock", "train_rule"]


@numba.njit(cache=True)
def _sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


@numba.njit(cache=True)
def open_lock(horizon, resets, accuracy, group, lr, target, limit, rng):
    """Completions until the chance of the whole string reaches ``target``; -1 if that takes more than ``limit``."""
    logits = np.zeros(horizon)
    took, right = np.empty((group, horizon)), np.empty(group)
    depth = np.empty(group, np.int64)  # the steps that a completion took on the correct path
    samples = 0
    while samples < limit:
        start = int(rng.random() * horizon) if resets else 0
        on_path = True
        for _ in range(start):
            on_path = on_path and rng.random() < accuracy
        samples += group
        if not on_path:
            continue  # no completion of it can be right: all advantages are 0
        for k in range(group):
            h, alive = start, True
            while h < horizon and alive:
                alive = rng.random() < _sigmoid(logits[h])
                took[k, h] = 1.0 if alive else 0.0
                h += 1
            depth[k], right[k] = h, 1.0 if alive else 0.0
        mean = right.mean()
        if mean == 0.0 or mean == 1.0:
            continue
        before, chance = logits.copy(), 1.0
        for k in range(group):
            for h in range(start, depth[k]):
                logits[h] += lr * (right[k] - mean) * (took[k, h] - _sigmoid(before[h]))
        for h in range(horizon):
            chance *= _sigmoid(logits[h])
        if chance >= target:
            return samples
    return -1


@numba.njit(cache=True)
def _success(logits, symbols, correct):
    pi, total = np.empty(logits.shape[1]), 0.0
    chance = np.empty(logits.shape[0])
    for o in range(logits.shape[0]):
        softmax(logits[o], pi)
        chance[o] = pi[correct[o]]
    for x in range(symbols.shape[0]):
        p = 1.0
        for t in range(symbols.shape[1]):
            p *= chance[symbols[x, t]]
        total += p
    return total / symbols.shape[0]


@numba.njit(cache=True)
def train_rule(logits, symbols, correct, cuts, group, lr, steps, target, rng):
    """``steps`` groups on ``logits (m, A)`` in place, or until the success reaches ``target``; how many it took."""
    prompts, horizon = symbols.shape
    answers = logits.shape[1]
    chosen, right = np.empty((group, horizon), np.int64), np.empty(group)
    pi = np.empty((horizon, answers))
    for step in range(steps):
        x = int(rng.random() * prompts)
        start = cuts[x, int(rng.random() * cuts.shape[1])]
        for t in range(start, horizon):
            softmax(logits[symbols[x, t]], pi[t])
        for k in range(group):
            right[k] = 1.0
            for t in range(start, horizon):
                u, a = rng.random(), 0
                total = pi[t, 0]
                while a < answers - 1 and u >= total:
                    a += 1
                    total += pi[t, a]
                chosen[k, t] = a
                if a != correct[symbols[x, t]]:
                    right[k] = 0.0
        mean = right.mean()
        if mean == 0.0 or mean == 1.0:
            continue
        scale = lr / group / math.sqrt(mean * (1.0 - mean))
        for k in range(group):
            for t in range(start, horizon):
                for a in range(answers):
                    hit = 1.0 if a == chosen[k, t] else 0.0
                    logits[symbols[x, t], a] += scale * (right[k] - mean) * (hit - pi[t, a])
        if target <= 1.0 and _success(logits, symbols, correct) >= target:
            return step + 1
    return steps
