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

#: rules as the kernel numbers them
SCORED, RANDOM, CONFIDENCE, ENTROPY, TOP_PROB = range(5)


@numba.njit(cache=True)
def _row(source, consistent, state, place, position, length, vocab, out):
    """Conditional of a masked position, from marginals ``(S,)`` or from all conditionals ``(S * L * V,)``."""
    if not consistent:
        start = (state * length + position) * vocab
        for v in range(vocab):
            out[v] = source[start + v]
        return
    total = source[state]
    for v in range(vocab):
        out[v] = source[state + (v - vocab) * place] / total if total > 0.0 else 1.0 / vocab


@numba.njit(cache=True)
def _temper(plain, temperature, out):
    if temperature == 1.0:
        out[:] = plain
        return
    top, total = plain.max(), 0.0
    for v in range(plain.size):
        out[v] = (plain[v] / top) ** (1.0 / temperature)
        total += out[v]
    for v in range(plain.size):
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
    """``w_a(v) = pi_a(v) prod_{b != a} P(the score of b's draw is lower, or equal and b > a)``."""
    vocab = plain.shape[1]
    for a in range(count):
        for v in range(vocab):
            score, chance = np.rint(plain[a, v] * 1e12), drawn[a, v]
            for b in range(count):
                if b == a or chance == 0.0:
                    continue
                below = 0.0
                for u in range(vocab):
                    other = np.rint(plain[b, u] * 1e12)
                    if other < score or (other == score and b > a):
                        below += drawn[b, u]
                chance *= below
            commits[a, v] = chance


@numba.njit(cache=True)
def _eligible(state, places, base, block, where):
    """The masked positions of the first unfinished block, and their number."""
    count, first = 0, -1
    for i in range(places.size):
        if state // places[i] % base == base - 1:
            if first < 0:
                first = i // block
            if i // block == first:
                where[count] = i
                count += 1
    return count


@numba.njit(cache=True)
def _answer(state, places, base):
    number = 0
    for i in range(places.size):
        number = number * (base - 1) + state // places[i] % base
    return number


@numba.njit(cache=True)
def decode(source, consistent, scores, vocab, length, temperature, block, mode):
    """Output law ``(Q, V^L)`` and expected decode-time entropy of every position ``(Q, L)``, nats.

    ``source``: marginals ``(Q, S)`` if ``consistent``, else conditionals ``(Q, S * L * V)``. ``scores (1 or Q, S, L)``:
    the position with the lowest is decoded (mode `SCORED`).
    """
    base, size = vocab + 1, (vocab + 1) ** length
    places = np.array([base ** (length - 1 - i) for i in range(length)])
    law, entropies = np.zeros((len(source), vocab**length)), np.zeros((len(source), length))
    plain, drawn, commits = np.empty((3, length, vocab))
    where, mass = np.empty(length, np.int64), np.empty(size)
    for q in range(len(source)):
        mass[:] = 0.0
        mass[-1] = 1.0
        for state in range(size - 1, -1, -1):
            if mass[state] == 0.0:
                continue
            count = _eligible(state, places, base, block, where)
            if count == 0:
                law[q, _answer(state, places, base)] = mass[state]
                continue
            needs_all = mode != SCORED
            for a in range(count if needs_all else 0):
                _row(source[q], consistent, state, places[where[a]], where[a], length, vocab, plain[a])
            if mode == RANDOM or mode == CONFIDENCE:
                for a in range(count):
                    _temper(plain[a], temperature, drawn[a])
                if mode == CONFIDENCE:
                    _confident(plain, drawn, count, commits)
                else:
                    commits[:count] = drawn[:count] / count
            else:
                a = _chosen(mode, plain, scores[q % len(scores)], state, where, count)
                where[0] = where[a]
                count = 1
                _row(source[q], consistent, state, places[where[0]], where[0], length, vocab, plain[0])
                _temper(plain[0], temperature, drawn[0])
                commits[0] = drawn[0]
            for a in range(count):
                i = where[a]
                share = mass[state] * commits[a].sum()
                if share > 0.0:
                    entropies[q, i] += share * _entropy(drawn[a])
                for v in range(vocab):
                    mass[state + (v - vocab) * places[i]] += mass[state] * commits[a, v]
    return law, entropies
