r"""Several attempts at a prompt: ``max@k = E[max(r(y_1), …, r(y_k))]``, its slope, and its KL-regularised optimum.

With levels ``r_1 < … < r_m`` of the reward, ``F_i = P(r(Y) <= r_i)`` and ``d_i = r_{i+1} - r_i``,

.. math:: max@k = r_m - \sum_{i<m} F_i^k d_i, \qquad
          \frac{\partial\, max@k}{\partial \pi(y)} = k\Big(r_m - \sum_{i<m,\; r_i \ge r(y)} F_i^{k-1} d_i\Big)
          = k\, E[max(r(y), r(y_2), …, r(y_k))].

``F`` is linear in the policy and ``F^k`` convex, so max@k is concave in it, pass@k (rewards 0 and 1) is
``1 - (1-p)^k``, and ``max@k - beta KL(pi‖ref)`` has one optimum. There the ratios ``pi/ref`` of adjacent levels satisfy

.. math:: \log\frac{\pi_{i+1}}{ref_{i+1}} - \log\frac{\pi_i}{ref_i} = \frac{k F_i^{k-1} d_i}{\beta},

which gives every level from the mass of the lowest: one number, found so that the masses add up to 1. ``k = 1`` is the
tilt. The value of max@k itself is `klsim.best_of_n.expected_reward`.

Sources: Walder and Karkhanis (2025), arXiv:2505.15201 (slope); the optimum is derived here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.best_of_n import expected_reward
from klsim.distributions import tilt
from klsim.divergences import kl
from klsim.optima import Optimum

__all__ = ["max_at_k_slope", "regularized_max_at_k"]


def _levels(log_p: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(rewards, log masses, level of every outcome)`` of the levels that a policy reaches; -1 outside its support."""
    inside = np.isfinite(log_p)
    values, place = np.unique(reward[inside], return_inverse=True)
    mass = np.full(len(values), -np.inf)
    np.logaddexp.at(mass, place, log_p[inside])
    level = np.full(len(reward), -1)
    level[inside] = place
    return values, mass, level


def _one(log_p: Any, reward: Any, k: int, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """A policy and its rewards as float64 vectors."""
    k = _validate.integer("k", k, low=1)
    log_p, reward = _validate.numpy_arrays(**{name: log_p, "reward": reward})
    _validate.log_probs(name, np, log_p)
    _validate.finite("reward", np, reward)
    if log_p.ndim != 1 or reward.shape != log_p.shape:
        _validate.fail(
            "reward", f"must be a vector of the length of {name}, got shapes {reward.shape} and {log_p.shape}"
        )
    return log_p.astype(np.float64), reward.astype(np.float64), k


def max_at_k_slope(log_p: Any, reward: Any, k: int) -> np.ndarray:
    """``k E[max(r(y), r(y_2), …, r(y_k))]`` for every outcome y: the derivative of max@k by its probability.

    Args:
        log_p: ``(A,)``. reward: ``(A,)``. k: attempts, >= 1.

    Outcomes outside the support have a slope too: that of moving mass there.

    Raises:
        ValueError: ``k < 1``, no log-probabilities, a reward that is not finite, shapes that differ.
    """
    log_p, reward, k = _one(log_p, reward, k, "log_p")
    values, mass, _ = _levels(log_p, reward)
    log_f = np.minimum(np.logaddexp.accumulate(mass), 0.0)
    # E max(x, max of k - 1) = x + int_x^inf (1 - F^{k-1}): above x, between its level and the next ones
    lower = np.maximum(values[:-1], reward[:, None])
    widths = np.maximum(values[1:] - lower, 0.0)
    return k * (reward + np.sum(widths * -np.expm1((k - 1) * log_f[:-1]), axis=-1))


def _rises(lowest: float, log_ref: np.ndarray, jump: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Rises of ``log(pi/ref)`` from level to level, from the log mass of the lowest; and the log of the sum of masses.

    A sum beyond 1 is infinite: the levels above are not computed.
    """
    rises, log_ratio, log_f = np.zeros(len(jump)), lowest - log_ref[0], lowest
    for i, step in enumerate(jump):
        rises[i] = step * np.exp((k - 1) * log_f)
        log_ratio += rises[i]
        log_f = np.logaddexp(log_f, log_ref[i + 1] + log_ratio)
        if log_f > 1.0:
            return rises, np.inf
    return rises, float(log_f)


def regularized_max_at_k(log_ref: Any, reward: Any, k: int, beta: float) -> Optimum:
    """``max_pi max@k(pi) - beta KL(pi‖ref)``.

    Args:
        log_ref: ``(A,)``. reward: ``(A,)``. k: attempts, >= 1. beta: > 0, reward units a nat.

    Returns an `Optimum` whose ``reward`` is max@k and whose ``gap`` is ``beta KL(pi‖tilt(ref, slope, beta))``: as max@k
    is concave, no policy gains more than that.

    Raises:
        ValueError: ``k < 1``, ``beta <= 0``, no log-probabilities, a reward that is not finite, shapes that differ.
    """
    log_ref, reward, k = _one(log_ref, reward, k, "log_ref")
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    values, mass, level = _levels(log_ref, reward)
    with np.errstate(over="ignore"):
        jump = k * np.diff(values) / beta
    if not np.all(np.isfinite(jump)):
        _validate.fail("beta", "is too small for rewards of this size: their ratio overflows", beta)
    low, high = mass[0] - jump.sum(), mass[0]  # every ratio is at most that of k = 1, and the lowest level only loses
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if _rises(middle, mass, jump, k)[1] < 0 else (low, middle)
    rises = _rises(low, mass, jump, k)[0]
    below_top = np.append(np.cumsum(rises[::-1])[::-1], 0.0)  # from the top, where the mass is: no cancellation
    log_ratio = -below_top - np.logaddexp.reduce(mass - below_top)
    log_policy = np.where(level < 0, -np.inf, log_ref + log_ratio[level])
    gained = float(expected_reward(log_policy, reward, k))
    divergence = float(kl(log_policy, log_ref))
    gap = beta * float(kl(log_policy, tilt(log_ref, max_at_k_slope(log_policy, reward, k), beta)))
    value = gained - beta * divergence
    scale = 1 + abs(value) + beta
    return Optimum(
        log_policy, value, gained, divergence, beta, gap, gap <= 1e-9 * scale, "masses from the lowest level up"
    )
