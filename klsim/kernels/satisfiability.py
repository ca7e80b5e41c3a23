"""Formulas in conjunctive normal form: distinct clauses, truth of assignments, models, votes of literals."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["distinct", "literal_votes", "planted_literals", "satisfied", "solution_counts"]


@numba.njit(cache=True)
def distinct(u, m):
    """A uniform set of l distinct numbers below ``m`` in every row, from uniforms ``u (N, l)`` (Floyd's method)."""
    rows, length = u.shape
    out = np.empty((rows, length), np.int64)
    for b in range(rows):
        for i in range(length):
            last = m - length + i
            number = min(np.int64(u[b, i] * (last + 1)), last)
            for earlier in range(i):
                if out[b, earlier] == number:
                    number = last
                    break
            out[b, i] = number
    return out


@numba.njit(cache=True)
def planted_literals(numbers, subsets, solutions):
    """``(variables, signs)``, each ``(N, l, n)``, of clauses by their numbers ``(N, l)``.

    ``divmod(number, 2^n - 1)`` is the row of ``subsets (C(k, n), n)``, and one less than the bits of the literals that
    agree with ``solutions (N, k)``.
    """
    rows, length = numbers.shape
    n = subsets.shape[1]
    patterns = (1 << n) - 1
    variables, signs = np.empty((rows, length, n), np.int64), np.empty((rows, length, n), np.bool_)
    for b in range(rows):
        for c in range(length):
            subset = numbers[b, c] // patterns
            agreeing = numbers[b, c] - subset * patterns + 1
            for j in range(n):
                v = subsets[subset, j]
                variables[b, c, j] = v
                signs[b, c, j] = (solutions[b, v] == 1) == ((agreeing >> j) & 1 == 1)
    return variables, signs


@numba.njit(cache=True)
def satisfied(variables, signs, answers):
    """Whether booleans ``answers (N, G, k)`` make every clause of their formula ``(N, l, n)`` true, ``(N, G)``."""
    rows, length, n = variables.shape
    out = np.ones((rows, answers.shape[1]), np.bool_)
    for b in range(rows):
        for g in range(answers.shape[1]):
            for c in range(length):
                true = False
                for i in range(n):
                    if answers[b, g, variables[b, c, i]] == signs[b, c, i]:
                        true = True
                        break
                if not true:
                    out[b, g] = False
                    break
    return out


@numba.njit(cache=True)
def solution_counts(variables, signs, k):
    """Assignments of ``k`` variables that satisfy each formula ``(N, l, n)``, by their truth tables, ``(N,)``."""
    rows, length, n = variables.shape
    out = np.zeros(rows, np.int64)
    care, false = np.empty(length, np.int64), np.empty(length, np.int64)
    for b in range(rows):
        for c in range(length):
            care[c] = false[c] = 0
            for i in range(n):
                bit = np.int64(1) << variables[b, c, i]
                care[c] |= bit
                if not signs[b, c, i]:  # a negative literal is false where its variable is 1
                    false[c] |= bit
        for point in range(np.int64(1) << k):
            true = True
            for c in range(length):
                if point & care[c] == false[c]:
                    true = False
                    break
            out[b] += true
    return out


@numba.njit(cache=True)
def literal_votes(variables, signs, k):
    """``(V, d, q)``, each ``(N, k)``: sums of the signs (±1) of a variable's literals, their number, and the mean sign
    weighted by the chance that no other literal of the clause is true if ``P(y_i = 1) = sigmoid(V_i)`` (0 if absent).
    """
    rows, length, n = variables.shape
    votes, degrees, needed = np.zeros((rows, k)), np.zeros((rows, k)), np.zeros((rows, k))
    weights, chance = np.empty(k), np.empty(k)
    for b in range(rows):
        for c in range(length):
            for i in range(n):
                votes[b, variables[b, c, i]] += 1.0 if signs[b, c, i] else -1.0
                degrees[b, variables[b, c, i]] += 1.0
        for v in range(k):
            weights[v] = 0.0
            chance[v] = 1.0 / (1.0 + math.exp(-votes[b, v]))
        for c in range(length):
            for j in range(n):
                weight = 1.0
                for i in range(n):
                    if i != j:
                        one = chance[variables[b, c, i]]
                        weight *= 1.0 - one if signs[b, c, i] else one
                v = variables[b, c, j]
                weights[v] += weight
                needed[b, v] += weight if signs[b, c, j] else -weight
        for v in range(k):
            if weights[v] > 0.0:
                needed[b, v] /= weights[v]
    return votes, degrees, needed
