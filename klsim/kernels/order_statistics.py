"""Cumulative laws of the best of N draws, in log space, on rows sorted by reward."""

from __future__ import annotations

import math

import numba
import numpy as np

from klsim.kernels.threaded import threaded

__all__ = ["best_of_n_rows", "mid_quantile_rows"]

_LOG_HALF = math.log(0.5)
_TINY = -36.0  # log1p(-exp(x)) = -exp(x) to rounding below this


@numba.njit(cache=True)
def _running_log_sum(log_mass, out):
    """``out[i] = log sum_{j <= i} exp(log_mass[j])``: scaled, compensated summation."""
    top, total, lost = -np.inf, 0.0, 0.0
    for i in range(log_mass.size):
        x = log_mass[i]
        if x > top:
            scale = math.exp(top - x) if total > 0 else 0.0
            total *= scale
            lost *= scale
            top = x
        if x > -np.inf:
            term = math.exp(x - top)
            new = total + term
            lost += (total - new) + term if total >= term else (term - new) + total
            total = new
        out[i] = top + math.log(total + lost) if total > 0 else -np.inf


@numba.njit(cache=True)
def _log_minus_log1m(log_x):
    """``log(-log(1 - x))`` from ``log x``."""
    if log_x < _TINY:
        return log_x
    if log_x >= 0.0:
        return np.inf
    return math.log(-math.log1p(-math.exp(log_x)))


@numba.njit(cache=True)
def _log1m_exp(log_d):
    """``log(1 - exp(-d))`` from ``log d``."""
    if log_d < _TINY:
        return log_d
    d = math.exp(log_d)
    return math.log(-math.expm1(-d)) if d < 40.0 else -math.exp(-d)


@numba.njit(cache=True)
def _tie_classes(reward, log_mass):
    """Index of the tie class of each sorted outcome, and the log-mass of each class."""
    size = reward.size
    label = np.empty(size, np.int64)
    current = -1
    for i in range(size):
        if i == 0 or reward[i] != reward[i - 1]:
            current += 1
        label[i] = current
    mass = np.full(current + 1, -np.inf)
    running = np.empty(size)
    start = 0
    for i in range(size):
        if i + 1 == size or label[i + 1] != label[i]:
            _running_log_sum(log_mass[start : i + 1], running[start : i + 1])
            mass[label[i]] = running[i]
            start = i + 1
    return label, mass


@numba.njit(cache=True)
def _class_law(mass, log_n):
    """Log-law of the class of the best draw: ``F^N - (F^-)^N``, from class masses in ascending order."""
    classes = mass.size
    upto, downto = np.empty(classes), np.empty(classes)
    _running_log_sum(mass, upto)
    _running_log_sum(mass[::-1], downto)
    total = upto[classes - 1]
    law = np.empty(classes)
    for c in range(classes):
        above = downto[classes - 2 - c] - total if c + 1 < classes else -np.inf
        if above < _LOG_HALF:
            log_f = math.log1p(-math.exp(above))
            log_minus_log_f = _log_minus_log1m(above)
        else:
            log_f = upto[c] - total
            log_minus_log_f = math.log(-log_f) if log_f < 0 else -np.inf
        law[c] = -math.exp(log_n + log_minus_log_f) if log_minus_log_f > -np.inf else 0.0  # N log F
        if mass[c] == -np.inf:
            law[c] = -np.inf
        elif c > 0 and upto[c - 1] > -np.inf:
            share = min(mass[c] - total - log_f, 0.0)  # log p/F; N log F - N log F^- = -N log(1 - p/F)
            if share > _LOG_HALF:
                drop = upto[c] - upto[c - 1]
                log_drop = math.log(drop) if drop > 0 else -np.inf
            else:
                log_drop = _log_minus_log1m(share)
            law[c] += _log1m_exp(log_n + log_drop)
    return law


@threaded
def best_of_n_rows(reward, log_mass, log_n):
    """Log-law of the best of ``exp(log_n)`` draws, ties uniform among the drawn maximisers.

    Rows are sorted by ascending reward. ``reward, log_mass (n, A)``, ``log_n (n,)`` -> ``(n, A)``.
    """
    out = np.empty_like(log_mass)
    for row in numba.prange(reward.shape[0]):
        label, mass = _tie_classes(reward[row], log_mass[row])
        law = _class_law(mass, log_n[row])
        for i in range(label.size):  # each outcome keeps its share of its class
            c = label[i]
            alive = log_mass[row, i] > -np.inf
            out[row, i] = law[c] + log_mass[row, i] - mass[c] if alive else -np.inf
    return out


@threaded
def mid_quantile_rows(reward, log_mass):
    """``P(R < r) + P(R = r)/2`` for rows sorted by ascending reward; ``(n, A)``."""
    out = np.empty_like(log_mass)
    for row in numba.prange(reward.shape[0]):
        label, mass = _tie_classes(reward[row], log_mass[row])
        upto = np.empty(mass.size)
        _running_log_sum(mass, upto)
        for i in range(label.size):
            c = label[i]
            below = math.exp(upto[c - 1]) if c > 0 else 0.0
            out[row, i] = below + 0.5 * math.exp(mass[c])
    return out
