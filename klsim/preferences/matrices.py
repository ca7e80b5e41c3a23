"""Preference matrices: made from rewards or log-odds, checked, and who wins and loses in a set of comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from klsim import _validate

__all__ = [
    "bradley_terry",
    "checked_preference",
    "checked_weights",
    "from_log_odds",
    "loser_shares",
    "winner_shares",
]


def bradley_terry(reward: Any) -> np.ndarray:
    """``sigma(r_i - r_j)``, ``(A, A)``.

    Raises:
        ValueError: rewards that are no finite vector.
    """
    (reward,) = _validate.numpy_arrays(reward=reward)
    _validate.finite("reward", np, reward)
    if reward.ndim != 1:
        _validate.fail("reward", f"must be a vector (A,), got shape {reward.shape}")
    return np.asarray(expit(reward[:, None] - reward[None]))


def from_log_odds(log_odds: Any) -> np.ndarray:
    """The preference matrix with these log-odds above its diagonal, ``(A, A)``; what lies below is not used.

    Raises:
        ValueError: no square matrix of finite numbers.
    """
    (given,) = _validate.numpy_arrays(log_odds=log_odds)
    odds = _validate.finite("log_odds", np, given)
    if odds.ndim != 2 or odds.shape[0] != odds.shape[1]:
        _validate.fail("log_odds", f"must be a matrix (A, A), got shape {odds.shape}")
    upper = np.triu(expit(odds), 1)
    return upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(len(odds))


def checked_preference(preference: Any) -> np.ndarray:
    """The matrix in float64, ``(A, A)``, A at least 1.

    Raises:
        ValueError: no square matrix of chances in [0, 1] with ``P_ij + P_ji = 1``.
    """
    (given,) = _validate.numpy_arrays(preference=preference)
    p = _validate.finite("preference", np, given).astype(np.float64)
    if p.ndim != 2 or p.shape[0] != p.shape[1] or not p.size:
        _validate.fail("preference", f"must be a matrix (A, A), got shape {p.shape}")
    bad = _validate.first_true(np, (p < 0) | (p > 1) | (np.abs(p + p.T - 1) > 1e-9))
    if bad is not None:
        _validate.fail("preference", "must lie in [0, 1] and have P_ij + P_ji = 1", float(p[bad]), bad)
    return p


def checked_weights(weights: Any, preference: Any) -> np.ndarray:
    """How often each pair is compared, in float64 and with a diagonal of 0, ``(A, A)``; None: every pair as often.

    Raises:
        ValueError: no preference matrix; no symmetric matrix of its size of finite numbers ``>= 0``.
    """
    size = len(checked_preference(preference))
    if weights is None:
        return 1.0 - np.eye(size)
    (given,) = _validate.numpy_arrays(weights=weights)
    w = _validate.finite("weights", np, given).astype(np.float64)
    if w.shape != (size, size) or np.any(w < 0) or not np.allclose(w, w.T, rtol=1e-12, atol=0):
        _validate.fail("weights", f"must be a symmetric matrix ({size}, {size}) of numbers >= 0")
    return w * (1 - np.eye(size))


def _shares(won: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        total = won.sum()
    if not 0 < total < np.inf:
        _validate.fail("weights", "must compare some responses, and add up to a finite number", float(total))
    return np.asarray(won.sum(axis=1) / total)


def winner_shares(preference: Any, weights: Any = None) -> np.ndarray:
    """Of the preferred responses of all comparisons the share that is i: ``sum_j w_ij P_ij / W``, ``(A,)``.

    Raises:
        ValueError: no preference matrix or weights; no comparisons.
    """
    p = checked_preference(preference)
    return _shares(checked_weights(weights, p) * p)


def loser_shares(preference: Any, weights: Any = None) -> np.ndarray:
    """Of the other responses of all comparisons the share that is i: ``sum_j w_ij P_ji / W``, ``(A,)``.

    Raises:
        ValueError: no preference matrix or weights; no comparisons.
    """
    p = checked_preference(preference)
    return _shares(checked_weights(weights, p) * p.T)
