"""Perron vectors, and their limit at large tilts: the best cycle of a weighted graph."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["best_cycle", "perron_vector", "small_log_ratio"]


def best_cycle(weight: np.ndarray) -> tuple[float, np.ndarray]:
    """``(largest mean weight of a cycle, best weight of a walk from each state to that cycle)``, less the mean a step.

    Karp's theorem for the mean, then all pairs of best walks; ``-inf`` is no transition.
    """
    states = len(weight)
    longest = np.zeros((states + 1, states))
    for k in range(states):
        longest[k + 1] = np.max(longest[k][:, None] + weight, axis=0)
    lengths = states - np.arange(states)
    rate = float(np.max(np.min((longest[-1] - longest[:-1]) / lengths[:, None], axis=0)))
    walks = weight - rate
    for k in range(states):
        walks = np.maximum(walks, walks[:, k, None] + walks[None, k, :])
    centre = int(np.argmax(np.diag(walks)))
    best = walks[:, centre].copy()
    best[centre] = 0.0
    return rate, best


def perron_vector(matrix: np.ndarray) -> np.ndarray:
    """The non-negative eigenvector of the largest eigenvalue."""
    values, vectors = np.linalg.eig(matrix)
    return np.asarray(np.abs(vectors[:, np.argmax(values.real)].real))


def small_log_ratio(transition: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """``log`` of the tilted transitions over the chain's own for small exponents, with relative accuracy.

    The right Perron vector ``1 + h`` solves ``(I - P + 1 pi) h = E (1 + h) - (root - 1)(1 + h)`` with
    ``E = P (e^x - 1)``, ``x`` centred: a fixed point that contracts by about the size of x.
    """
    stationary = perron_vector(transition.T)
    stationary = stationary / stationary.sum()
    exponent = exponent - float(stationary @ (transition * exponent).sum(axis=1))
    gained = transition * np.expm1(exponent)
    system = np.eye(len(stationary)) - transition + stationary[None, :]
    h, extra = np.zeros(len(stationary)), 0.0
    for _ in range(60):
        moved = gained @ (1.0 + h)
        extra = float(stationary @ moved)  # root - 1
        h = np.linalg.solve(system, moved - extra * (1.0 + h))
    return np.asarray(exponent + np.log1p(h)[None, :] - np.log1p(h)[:, None] - math.log1p(extra))
