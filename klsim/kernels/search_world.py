"""Episodes of a search with tagged steps, GRPO-MR advantages, and the gradient of a linear softmax policy.

Parameters are one vector: tag logits ``(2, 4)``, biases ``(tasks, boxes)``, then the logit of an opened box, that of
submitting, and what it gains once the object is found.
"""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["ascend", "episodes", "meta_rewards", "mixed_advantages", "train"]

PLANNING, EXPLORE, REFLECTION = 0, 1, 2


@numba.njit(cache=True)
def _tag_laws(x, first_only):
    """Probabilities of the tags, ``(2, 4)``; without planning where it is for the first step only."""
    law = np.empty((2, 4))
    for fail in range(2):
        total = 0.0
        for g in range(4):
            law[fail, g] = 0.0 if first_only and g == PLANNING else math.exp(x[4 * fail + g])
            total += law[fail, g]
        for g in range(4):
            law[fail, g] /= total
    return law


@numba.njit(cache=True)
def _odds(x):
    """Exponentials of the biases, of opening again, of submitting before and after the object is found."""
    odds = np.exp(x[8:])
    odds[-1] = math.exp(x[-2] + x[-1])
    return odds


@numba.njit(cache=True)
def _action_weights(odds, task, boxes, opened, found, out):
    """Unnormalised probabilities of the boxes and of submitting; their sum."""
    again, start = odds[-3], task * boxes
    out[boxes] = odds[-1] if found else odds[-2]
    total = out[boxes]
    for b in range(boxes):
        out[b] = odds[start + b] * (again if (opened >> b) & 1 else 1.0)
        total += out[b]
    return total


@numba.njit(cache=True)
def _drawn(weights, total, u):
    a, sofar = 0, weights[0]
    while a < weights.size - 1 and u * total >= sofar:
        a += 1
        sofar += weights[a]
    return a


@numba.njit(cache=True)
def episodes(x, task, target, boxes, horizon, first_only, rng):
    """``(tags, actions, opened, fail, found, length, success)``: what held before every step ``(E, H)``, then ``(E,)``.

    ``opened`` is a bit mask; ``fail``: the action before was a repetition; steps after the end have tag -1.
    """
    count = task.size
    tags, actions = np.full((count, horizon), -1, np.int64), np.zeros((count, horizon), np.int64)
    opened, fail = np.zeros((count, horizon), np.int64), np.zeros((count, horizon), np.int64)
    found = np.zeros((count, horizon), np.int64)
    length, success = np.full(count, horizon, np.int64), np.zeros(count)
    weights, laws, odds = np.empty(boxes + 1), _tag_laws(x, first_only), _odds(x)
    for e in range(count):
        mask, repeated, seen = 0, 0, 0
        total = _action_weights(odds, task[e], boxes, mask, seen, weights)
        for t in range(horizon):
            opened[e, t], fail[e, t], found[e, t] = mask, repeated, seen
            tags[e, t] = PLANNING if first_only and t == 0 else _drawn(laws[repeated], 1.0, rng.random())
            a = _drawn(weights, total, rng.random())
            actions[e, t] = a
            if a == boxes:
                length[e], success[e] = t + 1, float(seen)
                break
            repeated = (mask >> a) & 1
            if not repeated:
                mask |= 1 << a
                seen = 1 if a == target[e] else seen
                total = _action_weights(odds, task[e], boxes, mask, seen, weights)
    return tags, actions, opened, fail, found, length, success


@numba.njit(cache=True)
def meta_rewards(tags, actions, opened, fail, found, length, success, boxes, planning, until_found):
    """0 or 1 a step: explore on a new box, reflection on one after a repetition, planning that succeeds."""
    paid = np.zeros(tags.shape)
    for e in range(tags.shape[0]):
        for t in range(length[e]):
            a, g = actions[e, t], tags[e, t]
            if g == PLANNING:
                paid[e, t] = success[e] if planning else 0.0
                continue
            if a == boxes or (opened[e, t] >> a) & 1 or (until_found and found[e, t]):
                continue
            if g == EXPLORE or (g == REFLECTION and fail[e, t]):
                paid[e, t] = 1.0
    return paid


@numba.njit(cache=True)
def mixed_advantages(success, paid, tags, length, group, alpha, pooled):
    """``alpha`` of the outcome in groups of neighbours, ``1 - alpha`` of the reward in its tag, ``(E, H)``."""
    out = np.zeros(paid.shape)
    number, total, square = np.zeros(4), np.zeros(4), np.zeros(4)
    for e in range(paid.shape[0]):
        for t in range(length[e]):
            g = 0 if pooled else tags[e, t]
            number[g] += 1.0
            total[g] += paid[e, t]
    mean = total / np.maximum(number, 1.0)
    for e in range(paid.shape[0]):
        for t in range(length[e]):
            g = 0 if pooled else tags[e, t]
            square[g] += (paid[e, t] - mean[g]) ** 2
    spread = np.sqrt(square / np.maximum(number, 1.0))
    for first in range(0, paid.shape[0], group):
        outcomes = success[first : first + group]
        centre, width = outcomes.mean(), outcomes.std()
        for e in range(first, first + group):
            overall = (success[e] - centre) / width if width > 1e-9 else 0.0
            for t in range(length[e]):
                g = 0 if pooled else tags[e, t]
                local = (paid[e, t] - mean[g]) / spread[g] if spread[g] > 1e-9 else 0.0
                out[e, t] = alpha * overall + (1.0 - alpha) * local
    return out


@numba.njit(cache=True)
def ascend(x, task, tags, actions, opened, fail, found, length, advantage, boxes, first_only, tagged):
    """``sum A grad (log pi(tag) + log pi(action))`` over live steps, ``(parameters,)``; ``tagged``: with tags."""
    up, weights, laws, odds = np.zeros(x.size), np.empty(boxes + 1), _tag_laws(x, first_only), _odds(x)
    for e in range(task.size):
        start = 8 + task[e] * boxes
        for t in range(length[e]):
            a_t, mask, seen = advantage[e, t], opened[e, t], found[e, t]
            if tagged and not (first_only and t == 0):
                row = 4 * fail[e, t]
                up[row + tags[e, t]] += a_t
                for g in range(4):
                    up[row + g] -= a_t * laws[fail[e, t], g]
            scale = a_t / _action_weights(odds, task[e], boxes, mask, seen, weights)
            chosen = actions[e, t]
            for b in range(boxes):
                slope = (a_t if b == chosen else 0.0) - scale * weights[b]
                up[start + b] += slope
                if (mask >> b) & 1:
                    up[-3] += slope
            slope = (a_t if chosen == boxes else 0.0) - scale * weights[boxes]
            up[-2] += slope
            if seen:
                up[-1] += slope
    return up


@numba.njit(cache=True)
def train(x, tasks, boxes, horizon, usual, sizes, lr, alpha, pooled, first_only, planning, until_found, record, rng):
    """``record[-1]`` updates of ``x`` in place; the parameters after ``record`` updates, ``(R, parameters)``."""
    environments, group = sizes
    out, at = np.empty((record.size, x.size)), 0
    task, target = np.empty(environments * group, np.int64), np.empty(environments * group, np.int64)
    for step in range(record[-1] + 1):
        if step == record[at]:
            out[at] = x
            at += 1
            if at == record.size:
                break
        for i in range(environments):
            own = int(rng.random() * tasks)
            place = own if rng.random() < usual else int(rng.random() * boxes)
            task[i * group : (i + 1) * group], target[i * group : (i + 1) * group] = own, place
        tags, actions, opened, fail, found, length, success = episodes(x, task, target, boxes, horizon, first_only, rng)
        paid = meta_rewards(tags, actions, opened, fail, found, length, success, boxes, planning, until_found)
        advantage = mixed_advantages(success, paid, tags, length, group, alpha, pooled)
        up = ascend(x, task, tags, actions, opened, fail, found, length, advantage, boxes, first_only, True)
        x += lr * 4.0 / length.sum() * up
    return out
