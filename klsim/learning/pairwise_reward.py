r"""Rewards learned from pairwise comparisons: Bradley-Terry by penalised maximum likelihood.

Among outcomes i and j, i wins with probability ``sigma(scale (r_i - r_j))``; the learned reward minimises

.. math:: \sum_{pairs} -\log\sigma(scale\,(\hat r_w - \hat r_l)) + ridge\,|\hat r|^2.

Source: ``demo-reg`` C9.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import sample
from klsim.objectives.preferences import log_sigmoid

__all__ = ["fit_pairwise_reward", "sample_comparisons"]


def sample_comparisons(
    log_policy: Any, reward: Any, pairs: int, rng: np.random.Generator | int, *, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Winners and losers, ``(..., pairs)`` each, of ``pairs`` independent pairs of draws of ``log_policy (..., A)``."""
    rng = _validate.generator(rng)
    policy, value = _validate.numpy_arrays(log_policy=log_policy, reward=reward)
    _validate.same_last_axis(log_policy=policy, reward=value)
    _validate.finite("reward", np, value)
    scale = _validate.real("scale", scale, low=0.0, high=1e100)
    policy, value = np.broadcast_arrays(policy, value)
    drawn = sample(policy, (_validate.integer("pairs", pairs, low=0), 2), rng)
    paid = np.take_along_axis(value, drawn.reshape(*value.shape[:-1], -1), axis=-1).reshape(drawn.shape)
    chance = np.exp(np.asarray(log_sigmoid(scale * (paid[..., 0] - paid[..., 1]))))
    first = rng.random(chance.shape) < chance
    return np.where(first, drawn[..., 0], drawn[..., 1]), np.where(first, drawn[..., 1], drawn[..., 0])


def fit_pairwise_reward(
    winners: Any, losers: Any, outcomes: int, *, ridge: float, scale: float = 1.0, tolerance: float = 1e-10
) -> np.ndarray:
    """The learned reward ``(..., outcomes)`` of comparisons ``(..., pairs)``; sums over pairs, not means.

    Newton's method on a strongly convex loss, with halving. Outcomes that were never compared get 0.

    Args:
        winners, losers: indices below ``outcomes``. ridge: > 0. scale: >= 0, the units of the reward.
        tolerance: largest entry of the gradient left, relative to ``scale`` times the pairs, plus ``ridge``.

    Raises:
        ValueError: shapes, unknown outcomes, ``ridge <= 0``.
    """
    outcomes = _validate.integer("outcomes", outcomes, low=1)
    won = _validate.integers("winners", winners, low=0, high=outcomes - 1)
    lost = _validate.integers("losers", losers, low=0, high=outcomes - 1)
    if won.shape != lost.shape or won.ndim < 1:
        _validate.fail("losers", f"must have the shape (..., pairs) of winners {won.shape}, got {lost.shape}")
    ridge = _validate.real("ridge", ridge, low=0.0, high=1e100, open_low=True)
    scale = _validate.real("scale", scale, low=0.0, high=1e100)
    rows, pairs = (x.reshape(math.prod(won.shape[:-1]), won.shape[-1]) for x in (won, lost))
    _validate.fits("outcomes", outcomes, len(rows) * outcomes**2)
    at = np.arange(len(rows))[:, None]
    r = np.zeros((len(rows), outcomes))

    def loss(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        margin = scale * (np.take_along_axis(r, rows, 1) - np.take_along_axis(r, pairs, 1))
        return margin, -np.sum(log_sigmoid(margin), axis=1) + ridge * np.sum(r * r, axis=1)

    for _ in range(200):
        margin, value = loss(r)
        wrong = np.exp(np.asarray(log_sigmoid(-margin)))
        slope, curve = 2 * ridge * r, np.zeros((len(rows), outcomes, outcomes))
        np.add.at(slope, (at, rows), -scale * wrong)
        np.add.at(slope, (at, pairs), scale * wrong)
        if np.abs(slope).max(initial=0.0) <= tolerance * (scale * rows.shape[1] + ridge):
            break
        bend = scale**2 * wrong * (1 - wrong)
        for i, j, sign in ((rows, rows, 1), (pairs, pairs, 1), (rows, pairs, -1), (pairs, rows, -1)):
            np.add.at(curve, (at, i, j), sign * bend)
        move = np.linalg.solve(curve + 2 * ridge * np.eye(outcomes), slope[..., None])[..., 0]
        step = np.ones((len(rows), 1))
        for _ in range(40):
            worse = loss(r - step * move)[1] > value + 1e-12 * np.abs(value)
            if not worse.any():
                break
            step = np.where(worse[:, None], step / 2, step)
        r = r - step * move
    else:
        _validate.fail("ridge", "the likelihood was not maximised in 200 Newton steps", ridge)
    return r.reshape(*won.shape[:-1], outcomes)
