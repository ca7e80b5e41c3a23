"""The token simulator of BroRL: sampled mass-balance steps on one softmax over a large vocabulary.

One step reads and writes every array once: the optimiser moves a piece of the logits and leaves their exponentials and
their sums over short runs, from which the next draws are made. The softmax is never written out.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.elementary import exp
from klsim.kernels.threaded import threaded

__all__ = ["simulate"]

_RUN = 32  # tokens of a sum that a draw starts from
_PIECE = 2048  # tokens that a thread takes at a time
_FAR = 300.0  # logits further from the shift than this get another shift

_ANY_ORDER = {"reassoc", "nnan", "nsz", "contract"}


@numba.njit(cache=True, fastmath=_ANY_ORDER)
def _exponentials(logits, shift, weight):
    """``e^(logit - shift)`` of a run; their sum and the largest logit."""
    total, top = 0.0, -np.inf
    for i in range(logits.size):
        weight[i] = exp(logits[i] - shift)
        total += weight[i]
        top = logits[i] if logits[i] > top else top
    return total, top


@numba.njit(cache=True)
def _adam(logits, weight, advantage, scale, mood, first, second, rates):
    """One AdamW step of a piece; ``rates``: lr, decay, beta1, beta2, both bias corrections, epsilon."""
    lr, decay, beta1, beta2, correction1, correction2, epsilon = rates
    step, root = lr / correction1, 1.0 / math.sqrt(correction2)
    for i in range(logits.size):
        g = -(weight[i] * scale) * (advantage[i] - mood)
        first[i] = beta1 * first[i] + (1.0 - beta1) * g
        second[i] = beta2 * second[i] + (1.0 - beta2) * g * g
        logits[i] -= lr * decay * logits[i] + step * first[i] / (math.sqrt(second[i]) * root + epsilon)


@numba.njit(cache=True)
def _sgd(logits, weight, advantage, scale, mood, lr):
    for i in range(logits.size):
        logits[i] += lr * (weight[i] * scale) * (advantage[i] - mood)


@threaded
def _sweep(logits, weight, advantage, scale, mood, first, second, adam, rates, shift, move, runs, tops):
    """Move the logits (if ``move``), then their exponentials, sums of runs and the largest of every piece."""
    size = logits.size
    for b in numba.prange((size + _PIECE - 1) // _PIECE):
        at = slice(b * _PIECE, min((b + 1) * _PIECE, size))
        if move:
            if adam:
                _adam(logits[at], weight[at], advantage[at], scale, mood, first[at], second[at], rates)
            else:
                _sgd(logits[at], weight[at], advantage[at], scale, mood, rates[0])
        tops[b] = -np.inf
        for start in range(at.start, at.stop, _RUN):
            run = slice(start, min(start + _RUN, at.stop))
            runs[start // _RUN], top = _exponentials(logits[run], shift, weight[run])
            tops[b] = max(tops[b], top)


@numba.njit(cache=True)
def _search(cumulative, target):
    """First index whose cumulative sum exceeds ``target``, or the last."""
    low, high = 0, cumulative.size - 1
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] > target:
            high = middle
        else:
            low = middle + 1
    return low


@numba.njit(cache=True)
def _draw(weight, runs, uniforms, upto, drawn):
    """Tokens by inversion: the run, then the token in it. Returns the sum of all weights."""
    total = 0.0
    for j in range(runs.size):
        total += runs[j]
        upto[j] = total
    for k in range(uniforms.size):
        target = uniforms[k] * total
        run = _search(upto, target)
        left = target - (upto[run - 1] if run > 0 else 0.0)
        end, last, mass = min((run + 1) * _RUN, weight.size), run * _RUN, 0.0
        for i in range(run * _RUN, end):
            if weight[i] > 0.0:
                last, mass = i, mass + weight[i]
                if mass > left:
                    break
        drawn[k] = last
    return total


@numba.njit(cache=True)
def _advantages(weight, total, drawn, correct, advantage):
    """Sums of the centred rewards of each drawn token, over n, and their mean under the softmax.

    The gradient of ``-(1/n) sum_j r_j pi_{i_j}`` in the logits is ``-pi (advantage - mood)``.
    """
    n, hits = drawn.size, 0
    for token in drawn:
        hits += correct[token]
    mean = (2.0 * hits - n) / n
    mood = 0.0
    for token in drawn:
        gain = ((1.0 if correct[token] else -1.0) - mean) / n
        advantage[token] += gain
        mood += gain * weight[token] / total
    return mood


@numba.njit(cache=True)
def _forget(drawn, advantage):
    for token in drawn:
        advantage[token] = 0.0


@numba.njit(cache=True)
def _record(weight, runs, start, tokens, row):
    """Correct mass, share of improved correct tokens, worst drop; returns the sum of all weights."""
    total = 0.0
    for x in runs:
        total += x
    mass, improved, worst = 0.0, 0, 0.0
    for i in tokens:
        pi = weight[i] / total
        mass += pi
        improved += pi > start[i]
        worst = min(worst, pi - start[i])
    row[0], row[1], row[2] = mass, improved / tokens.size, worst


def simulate(
    logits, first, second, done, steps, n, correct, start, adam, lr, beta1, beta2, epsilon, decay, rng, record
) -> None:
    """Run ``steps`` more steps in place; ``record (steps, 3)``: correct mass, share improved, worst drop.

    One step: draw ``n`` tokens from the softmax, take the gradient of the centred linear surrogate, then
    AdamW or SGD. ``start`` holds the initial probabilities; ``first, second`` Adam's moments after ``done``
    steps. The loop is plain Python over compiled parts: no serial kernel calls a parallel one.
    """
    size = logits.size
    weight, advantage, drawn = np.empty(size), np.zeros(size), np.empty(n, np.int64)
    runs, tops = np.empty(-(-size // _RUN)), np.empty(-(-size // _PIECE))
    upto, tokens = np.empty_like(runs), np.flatnonzero(correct)

    def sweep(shift, scale, mood, rates, move) -> float:
        """Move if asked, and return the shift of the exponentials."""
        _sweep(logits, weight, advantage, scale, mood, first, second, adam, rates, shift, move, runs, tops)
        top = tops.max()
        if not abs(top - shift) < _FAR:
            shift = top
            _sweep(logits, weight, advantage, scale, mood, first, second, adam, rates, shift, False, runs, tops)
        return shift

    idle = (lr, decay, beta1, beta2, 1.0, 1.0, epsilon)
    shift = sweep(logits.max(), 0.0, 0.0, idle, False)
    for step in range(steps):
        total = _draw(weight, runs, rng.random(n), upto, drawn)
        mood = _advantages(weight, total, drawn, correct, advantage)
        t = done + step + 1
        rates = (lr, decay, beta1, beta2, 1.0 - beta1**t, 1.0 - beta2**t, epsilon)
        shift = sweep(shift, 1.0 / total, mood, rates, True)
        _forget(drawn, advantage)
        _record(weight, runs, start, tokens, record[step])
