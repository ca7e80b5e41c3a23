"""Decoding orders of masked-diffusion models: probability mass moved from state to state.

A state is a partially masked sequence, a number in base ``V + 1`` with the mask as digit V, first position most
significant. Committing a token lowers the number, so that one pass downwards visits every state after all that lead to
it.
"""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["SCORED", "decode"]

SCORED, RANDOM, CONFIDENCE, ENTROPY, TOP_PROB = range(5)
"""Codes of the decoding rules: by given scores, at random, by confidence, entropy or most probable token."""


@numba.njit(cache=True)
def _row(source, consistent, state, place, position, length, vocab, out):
    """Entries of a masked position, of marginals ``(S,)`` or conditionals ``(S * L * V,)``, over their sum; the sum."""
    start, step = state - vocab * place, place
    if not consistent:
        start, step = (state * length + position) * vocab, 1
    total = 0.0
    for v in range(vocab):
        out[v] = source[start + v * step]
        total += out[v]
    for v in range(vocab):
        out[v] = out[v] / total if total > 0.0 else 1.0 / vocab
    return total


@numba.njit(cache=True)
def _tempered_row(source, powers, consistent, state, place, position, length, vocab, temperature, out):
    """``p^(1/T)``, normalised: from ``powers = source^(1/T)``, unless these underflow."""
    if _row(powers, consistent, state, place, position, length, vocab, out) > 1e-250:
        return
    _row(source, consistent, state, place, position, length, vocab, out)
    top, total = out.max(), 0.0
    for v in range(vocab):
        out[v] = (out[v] / top) ** (1.0 / temperature)
        total += out[v]
    for v in range(vocab):
        out[v] /= total


@numba.njit(cache=True)
def _entropy(p):
    total = 0.0
    for v in range(p.size):
        if p[v] > 0.0:
            total -= p[v] * math.log(p[v])
    return total


@numba.njit(cache=True)
def _chosen(mode, plain, scores, state, where, count):
    """Index in ``where`` of the position that a rule takes before it draws; ties go to the lowest position."""
    best, found = np.inf, 0
    for a in range(count):
        if mode == SCORED:
            score = scores[state, where[a]]
        elif mode == ENTROPY:
            score = np.rint(_entropy(plain[a]) * 1e12)
        else:
            score = -np.rint(plain[a].max() * 1e12)
        if score < best:
            best, found = score, a
    return found


@numba.njit(cache=True)
def _confident(plain, drawn, count, commits):
    """``w_a(v) = pi_a(v) prod_{b != a} P(the score of b's draw is lower, or equal and b > a)``; rounds ``plain``."""
    vocab = plain.shape[1]
    for a in range(count):
        for v in range(vocab):
            plain[a, v] = np.rint(plain[a, v] * 1e12)
    for a in range(count):
        for v in range(vocab):
            score, chance = plain[a, v], drawn[a, v]
            for b in range(count):
                if b == a or chance == 0.0:
                    continue
                below = 0.0
                for u in range(vocab):
                    if plain[b, u] < score or (plain[b, u] == score and b > a):
                        below += drawn[b, u]
                chance *= below
            commits[a, v] = chance


@numba.njit(cache=True)
def _states(places, base, block):
    """Of every state: the masked positions of its first unfinished block, their number, and its number as an answer."""
    length, size = places.size, base**places.size
    eligible, counts = np.zeros((size, length), np.int64), np.zeros(size, np.int64)
    answers = np.zeros(size, np.int64)
    for state in range(size):
        first = -1
        for i in range(length):
            digit = state // places[i] % base
            answers[state] = answers[state] * (base - 1) + digit
            if digit == base - 1:
                if first < 0:
                    first = i // block
                if i // block == first:
                    eligible[state, counts[state]] = i
                    counts[state] += 1
    return eligible, counts, answers


@numba.njit(cache=True)
def decode(source, powers, consistent, scores, vocab, length, temperature, block, mode):
    """Output law ``(Q, V^L)`` and expected decode-time entropy of every position ``(Q, L)``, nats.

    ``source``: marginals ``(Q, S)`` if ``consistent``, else conditionals ``(Q, S * L * V)``; ``powers = source^(1/T)``.
    ``scores (1 or Q, S, L)``:
    the position with the lowest is decoded (mode `SCORED`).
    """
    base, size = vocab + 1, (vocab + 1) ** length
    places = np.array([base ** (length - 1 - i) for i in range(length)])
    eligible, counts, answers = _states(places, base, block)
    law, entropies = np.zeros((len(source), vocab**length)), np.zeros((len(source), length))
    plain, drawn, commits = np.empty((3, length, vocab))
    where, mass = np.empty(length, np.int64), np.empty(size)
    for q in range(len(source)):
        mass[:] = 0.0
        mass[-1] = 1.0
        for state in range(size - 1, -1, -1):
            if mass[state] == 0.0:
                continue
            count = counts[state]
            if count == 0:
                law[q, answers[state]] = mass[state]
                continue
            where[:] = eligible[state]
            if mode > CONFIDENCE:
                for a in range(count):
                    _row(source[q], consistent, state, places[where[a]], where[a], length, vocab, plain[a])
            if mode != RANDOM and mode != CONFIDENCE:
                where[0] = where[_chosen(mode, plain, scores[q % len(scores)], state, where, count)]
                count = 1
            for a in range(count):
                i = where[a]
                _tempered_row(
                    source[q], powers[q], consistent, state, places[i], i, length, vocab, temperature, drawn[a]
                )
                if mode == CONFIDENCE:
                    _row(source[q], consistent, state, places[i], i, length, vocab, plain[a])
            if mode == CONFIDENCE:
                _confident(plain, drawn, count, commits)
            else:
                commits[:count] = drawn[:count] / count
            for a in range(count):
                i = where[a]
                share = mass[state] * commits[a].sum()
                if share > 0.0:
                    entropies[q, i] += share * _entropy(drawn[a])
                for v in range(vocab):
                    mass[state + (v - vocab) * places[i]] += mass[state] * commits[a, v]
    return law, entropies
