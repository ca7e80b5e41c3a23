r"""Entropy kept by treating the few tokens with a large covariance of advantage and log-probability: Clip-Cov, KL-Cov.

To first order a policy-gradient step changes the entropy at a prefix by minus the covariance of ``log pi`` and ``A``
there, so tokens with a large ``c_it = (A_it - mean A)(log pi_it - mean log pi)`` (means over the tokens of the batch)
take most of it.

Source: Cui et al. (2025), arXiv:2505.22617.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim._sums import detach
from klsim.objectives.advantages import group_mean, group_std
from klsim.objectives.aggregate import Aggregate, token_mean
from klsim.objectives.batch import Loss, TokenBatch, of_batch, takes_batch, two_numbers
from klsim.objectives.policy_gradient import Clip, clip_bounds, estimated, per_token, token_ratio

__all__ = ["clip_cov", "covariance", "kl_cov"]

Array = Any


@takes_batch
def covariance(batch: TokenBatch, advantage: Array) -> Array:
    """``(A - mean A)(log pi - mean log pi)`` of every token, means over the tokens of the batch, ``[B, T]``."""
    xp = batch.xp
    advantage = _validate.finite("advantage", xp, of_batch("advantage", advantage, batch))
    advantage, log_probs = per_token(batch, detach(advantage)), detach(batch.log_probs)
    return (
        (advantage - token_mean(advantage, batch.mask))
        * (log_probs - token_mean(log_probs, batch.mask))
        * xp.astype(batch.mask, log_probs.dtype)
    )


def _largest(batch: TokenBatch, score: Array, allowed: Array, fraction: float) -> Array:
    """The ``max(1, floor(fraction N))`` allowed tokens of largest score, N tokens in the batch; ``[B, T]`` boolean."""
    xp = batch.xp
    count = max(1, math.floor(fraction * int(xp.sum(xp.astype(batch.mask, xp.int64)))))
    flat = xp.reshape(xp.where(allowed, score, xp.full_like(score, -math.inf)), (-1,))
    rank = xp.argsort(xp.argsort(-flat))
    return xp.reshape(rank < count, score.shape) & allowed


def _random(batch: TokenBatch, allowed: Array, fraction: float, rng: np.random.Generator | int) -> Array:
    xp = batch.xp
    noise = _validate.generator(rng).random(tuple(allowed.shape))
    return _largest(
        batch, xp.asarray(noise, dtype=batch.log_probs.dtype, device=batch.log_probs.device), allowed, fraction
    )


def _fraction(fraction: float) -> float:
    return _validate.real("fraction", fraction, low=0.0, high=1.0, open_low=True)


@takes_batch
def clip_cov(
    batch: TokenBatch,
    *,
    fraction: float = 2e-4,
    band: tuple[float, float] = (1.0, 5.0),
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = token_mean,
    epsilon: float = 0.0,
    rng: np.random.Generator | int | None = None,
) -> Loss:
    r"""PPO's clipped term without the gradient of a fraction of the tokens with covariance inside ``band``.

    ``max(1, floor(fraction N))`` tokens leave, still counted in the denominator; those that PPO's clip already holds
    are not eligible. ``rng=None`` takes the largest covariances, so that the loss is a function of the batch; with a
    generator or seed they are drawn uniformly, as in the paper and verl. On-policy biased wherever a token leaves.
    """
    fraction = _fraction(fraction)
    low, high = two_numbers("band", band)
    lowest = _validate.real("band[0]", low)
    highest = _validate.real("band[1]", high, low=lowest)
    low, high = clip_bounds(clip)
    xp = batch.xp
    advantage = per_token(batch, detach(estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)))
    rho = xp.exp(token_ratio(batch))
    clipped = xp.minimum(xp.maximum(rho, xp.full_like(rho, low)), xp.full_like(rho, high))
    held = detach(clipped * advantage < rho * advantage)
    score = covariance(batch, advantage)
    allowed = batch.mask & ~held & (score > lowest) & (score < highest)
    out = _largest(batch, score, allowed, fraction) if rng is None else _random(batch, allowed, fraction, rng)
    value = xp.minimum(rho * advantage, clipped * advantage)
    loss = -aggregate(xp.where(out, xp.zeros_like(value), value), batch.mask)
    return loss, {"clip_fraction": token_mean(xp.astype(out | held, rho.dtype), batch.mask)}


@takes_batch
def kl_cov(
    batch: TokenBatch,
    *,
    fraction: float = 2e-4,
    coefficient: float = 1.0,
    aggregate: Aggregate = token_mean,
    epsilon: float = 0.0,
) -> Loss:
    r"""``-aggregate[ rho A - coefficient |log(pi/old)| 1{top covariance} ]``, nothing clipped.

    ``max(1, floor(fraction N))`` tokens of largest covariance are penalised. At ``pi = old`` the penalty is at its
    kink and has (sub)gradient 0: the first update after sampling is that of the unclipped surrogate. The paper writes
    a KL to the old policy; its code and verl take ``|log pi - log old|`` of the sampled token.
    """
    fraction = _fraction(fraction)
    coefficient = _validate.real("coefficient", coefficient, low=0.0)
    xp = batch.xp
    advantage = per_token(batch, detach(estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)))
    drift = token_ratio(batch)
    chosen = _largest(batch, covariance(batch, advantage), batch.mask, fraction)
    penalty = xp.where(chosen, xp.abs(drift), xp.zeros_like(drift))
    loss = -aggregate(xp.exp(drift) * advantage - coefficient * penalty, batch.mask)
    return loss, {"penalised": token_mean(detach(penalty), batch.mask)}
