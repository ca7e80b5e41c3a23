r"""Other ways than PPO's clip to stay near the old policy: dual clip, DPPO, SAPO, LUSPO, VESPO, GMPO, BNPO.

On-policy (``pi = old``) all weights and gates are 1 with slope 1: a loss here has the gradient of the unclipped
surrogate with the same advantages and aggregation, which its docstring gives for GRPO's advantages and binary
rewards, ``w`` = `klsim.objectives.std_weight`. They differ off-policy only, where none has a population objective.

What trainers call ``epsilon_high`` is not one thing: the upper bound is ``1 + epsilon_high`` (PPO, DAPO, GSPO), the
bound itself (TRL's ``cispo``), ``exp(epsilon_high)`` (GMPO in TRL and verl), a probability difference or a KL (DPPO
in verl).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach, quiet
from klsim.objectives.advantages import group_mean, group_std
from klsim.objectives.aggregate import Aggregate, sequence_mean, sequence_sum, token_mean
from klsim.objectives.batch import Loss, TokenBatch, takes_batch, two_numbers
from klsim.objectives.policy_gradient import (
    Clip,
    clip_bounds,
    estimated,
    geometric_mean_ratio,
    grpo,
    per_token,
    surrogate,
    token_ratio,
)

__all__ = [
    "binary_divergence",
    "bnpo",
    "dppo",
    "dual_clip",
    "gamma_weight",
    "gmpo",
    "luspo",
    "sapo",
    "soft_gate",
    "vespo",
]

Array = Any
_EXPONENT = 80.0
"""Largest log ratio that is exponentiated: float32 holds ``exp(80)``, and every gate here is flat long before."""


def _log_probability(batch: TokenBatch, weight: Array, advantage: Array, aggregate: Aggregate) -> Array:
    """``-aggregate[ sg(w A) log pi ]``."""
    return -aggregate(detach(per_token(batch, weight) * advantage) * batch.log_probs, batch.mask)


@takes_batch
def dual_clip(
    batch: TokenBatch,
    *,
    clip: Clip = (0.2, 0.2),
    ceiling: float = 3.0,
    aggregate: Aggregate = token_mean,
    epsilon: float = 0.0,
) -> Loss:
    r"""PPO's clipped term, and for ``A < 0`` not below ``c A``: a token whose ratio has exploded loses its gradient.

    ``-aggregate[ max(min(rho A, clip(rho) A), c A) ]`` where ``A < 0``. On-policy as the surrogate without clip.
    verl: ``clip_ratio_c``, default 3; TRL's ``delta`` caps the ratio inside the minimum, which is the same for
    ``A < 0`` and ``delta >= 1 + high``.

    Raises:
        ValueError: ``ceiling <= 1``.

    Source: Ye et al. (2020), arXiv:1912.09729.
    """
    ceiling = _validate.real("ceiling", ceiling, low=1.0, open_low=True)
    xp = batch.xp
    low, high = clip_bounds(clip)
    advantage = per_token(batch, detach(estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)))
    rho = xp.exp(token_ratio(batch))
    clipped = xp.minimum(xp.maximum(rho, xp.full_like(rho, low)), xp.full_like(rho, high))
    value = xp.minimum(rho * advantage, clipped * advantage)
    floor = ceiling * advantage
    cut = (advantage < 0) & (value < floor)
    loss = -aggregate(xp.where(cut, floor, value), batch.mask)
    return loss, {"dual_clip_fraction": token_mean(xp.astype(cut, rho.dtype), batch.mask)}


@takes_batch
def binary_divergence(batch: TokenBatch, divergence: Literal["tv", "kl"]) -> Array:
    r"""Divergence of the sampled token's two-point laws, ``[B, T]``, a constant: a lower bound of the vocabulary's.

    ``"tv"``: ``|pi - old|``. ``"kl"``: ``old log(old/pi) + (1 - old) log((1 - old)/(1 - pi))``.
    """
    _validate.one_of("divergence", divergence, ("tv", "kl"))
    xp = batch.xp
    now, old = detach(batch.log_probs), detach(batch.old)
    p, q = xp.exp(now), xp.exp(old)
    if divergence == "tv":
        return xp.abs(p - q)
    rest_p, rest_q = -xp.expm1(now), -xp.expm1(old)
    one = xp.ones_like(p)
    rest = rest_q * (xp.log(xp.where(rest_q > 0, rest_q, one)) - xp.log(xp.where(rest_p > 0, rest_p, one)))
    infinite = (rest_q > 0) & (rest_p <= 0)
    return q * (old - now) + xp.where(infinite, xp.full_like(rest, math.inf), rest)


@takes_batch
def dppo(
    batch: TokenBatch,
    *,
    divergence: Literal["tv", "kl"] = "tv",
    threshold: Clip = (0.2, 0.2),
    cap: float = 20.0,
    aggregate: Aggregate = token_mean,
    epsilon: float = 0.0,
) -> Loss:
    r"""``-aggregate[ m sg(min(rho, cap)) A log pi ]``: a trust region in divergence, not in ratio (DPPO).

    ``m = 0`` where the token has moved in the direction of its advantage by more than ``threshold`` = ``(down, up)`` of
    `binary_divergence`, else 1. A ratio clip binds first on rare tokens, whose probability has hardly moved.
    Thresholds of a TV lie in [0, 1], of a KL in nats.

    Source: arXiv:2602.04879 (2026), binary TV and binary KL (verl: ``dppo_tv``, ``dppo_kl``).
    """
    ends = two_numbers("threshold", threshold)
    down, up = (_validate.real(f"threshold[{i}]", end, low=0.0) for i, end in enumerate(ends))
    cap = _validate.real("cap", cap, low=1.0)
    xp = batch.xp
    advantage = per_token(batch, detach(estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)))
    moved = detach(token_ratio(batch))
    far = binary_divergence(batch, divergence)
    shut = ((advantage > 0) & (moved > 0) & (far > up)) | ((advantage <= 0) & (moved < 0) & (far > down))
    log_cap = math.log(cap) if math.isfinite(cap) else math.inf
    weight = xp.exp(xp.minimum(moved, xp.full_like(moved, log_cap)))
    weight = xp.where(shut, xp.zeros_like(weight), weight)
    loss = _log_probability(batch, weight, advantage, aggregate)
    return loss, {"masked_fraction": token_mean(xp.astype(shut, moved.dtype), batch.mask)}


def soft_gate(ratio: Array, temperature: Array) -> Array:
    """``4/tau sigmoid(tau (rho - 1))``: slope 1 at ``rho = 1``, flat far from it (SAPO)."""
    xp, ratio, temperature = _validate.arrays(ratio=ratio, temperature=temperature)
    _validate.broadcast(ratio=ratio, temperature=temperature)
    _validate.budgets("ratio", xp, ratio)
    _validate.positive("temperature", xp, temperature)
    x = temperature * (ratio - 1)
    return 4 / temperature * xp.exp(-xp.logaddexp(xp.zeros_like(x), -x))


@takes_batch
def sapo(
    batch: TokenBatch,
    *,
    positive: float = 1.0,
    negative: float = 1.05,
    aggregate: Aggregate = sequence_mean,
    epsilon: float = 0.0,
) -> Loss:
    r"""``-aggregate[ f(rho) A ]`` with `soft_gate`, temperature ``positive`` for ``A > 0``, else ``negative``.

    On-policy the gradient is that of `grpo`; the value is not (``f(1) = 2/tau``). Temperatures lie in [1e-30, 1e30],
    which single precision holds.

    Source: Gao et al. (2025), arXiv:2511.20347; temperatures 1.0 and 1.05 as in the paper, TRL and verl.
    """
    positive = _validate.real("positive", positive, low=1e-30, high=1e30)
    negative = _validate.real("negative", negative, low=1e-30, high=1e30)
    xp = batch.xp
    advantage = per_token(batch, detach(estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)))
    log_rho = token_ratio(batch)
    rho = xp.exp(xp.minimum(log_rho, xp.full_like(log_rho, _EXPONENT)))
    tau = xp.where(advantage > 0, xp.full_like(rho, positive), xp.full_like(rho, negative))
    loss = -aggregate(soft_gate(rho, tau) * advantage, batch.mask)
    return loss, {"mean_ratio": detach(token_mean(rho, batch.mask))}


@takes_batch
def luspo(batch: TokenBatch, *, clip: Clip = (3e-4, 4e-4), epsilon: float = 0.0) -> Loss:
    r"""`klsim.objectives.gspo` with every response's term multiplied by its length.

    ``-mean_i |y_i| min(s_i A_i, clip(s_i) A_i)``, ``s = (pi(y)/old(y))^{1/|y|}``. On-policy the length cancels the
    exponent's: for binary rewards the gradient is ``-w(p) grad E[r]``, without GSPO's weight 1/length.

    Source: Liu et al. (2026), arXiv:2602.05261.
    """
    advantage = estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)
    return surrogate(batch, advantage, ratio=geometric_mean_ratio, clip=clip, aggregate=sequence_sum)


@quiet
def gamma_weight(log_weight: Array, power: Array, decay: Array) -> Array:
    r"""``phi(w) = w^k e^{lambda (1 - w)}``, ``phi(1) = 1``; of ``log w`` (VESPO). Its mode is ``w = k/lambda``."""
    xp, log_weight, power, decay = _validate.arrays(log_weight=log_weight, power=power, decay=decay)
    _validate.broadcast(log_weight=log_weight, power=power, decay=decay)
    lost = xp.isinf(log_weight) & (log_weight < 0)
    _validate.finite("log_weight", xp, xp.where(lost, xp.zeros_like(log_weight), log_weight))
    _validate.positive("decay", xp, decay)
    _validate.finite("power", xp, _validate.budgets("power", xp, power))
    w = xp.exp(xp.minimum(log_weight, xp.full_like(log_weight, _EXPONENT)))
    grown = xp.where(power == 0, xp.zeros_like(power * w), power * log_weight)
    out = xp.exp(grown + decay * (1 - w))
    _validate.representable("power", xp, out)
    return out


@takes_batch
def vespo(
    batch: TokenBatch,
    *,
    positive: tuple[float, float] = (2.0, 3.0),
    negative: tuple[float, float] = (3.0, 2.0),
    aggregate: Aggregate = token_mean,
    epsilon: float = 0.0,
) -> Loss:
    r"""``-aggregate[ sg(phi(w)) A log pi ]``, ``w = pi(y)/mu(y)`` of the whole response, `gamma_weight` for phi.

    ``positive``, ``negative``: ``(k, lambda)`` for ``A >= 0`` and ``A < 0``, lambda in [1e-30, 1e30], k up to 1e30.
    mu: the sampler (`TokenBatch.rollout`), so that a mismatch of trainer and sampler is corrected by the same weight.
    On-policy as GRPO with a token mean.

    Source: arXiv:2602.10693 (2026); TRL's defaults. TRL truncates log w at -18.4 and 20; no bound is needed
    here, where phi is computed from log w.
    """
    pairs = {"positive": positive, "negative": negative}
    laws = []
    for name, pair in pairs.items():
        k, decay = two_numbers(name, pair)
        k = _validate.real(f"{name}[0]", k, low=0.0, high=1e30)
        laws.append((k, _validate.real(f"{name}[1]", decay, low=1e-30, high=1e30)))
    xp = batch.xp
    advantage = per_token(batch, detach(estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)))
    log_w = detach(xp.sum(batch.log_probs - batch.rollout, axis=-1, keepdims=True))
    log_w = per_token(batch, log_w)
    power, decay = (
        xp.where(advantage >= 0, xp.full_like(log_w, one), xp.full_like(log_w, other)) for one, other in zip(*laws)
    )
    try:
        weight = gamma_weight(log_w, power, decay)
    except ValueError as error:
        raise ValueError(f"positive (or negative): {error}") from None
    loss = _log_probability(batch, weight, advantage, aggregate)
    return loss, {"mean_weight": token_mean(weight, batch.mask)}


@takes_batch
def gmpo(batch: TokenBatch, *, clip: Clip = (0.4, 0.4), epsilon: float = 0.0) -> Loss:
    r"""``-mean_i A_i exp(mean_t c(log rho_it))``: geometric mean of clipped token ratios (GMPO, verl's ``geo_mean``).

    ``c`` clips the *log* ratio to ``[-low, high]`` on the side where PPO's minimum binds: above for ``A > 0``, below
    for ``A < 0``. Unlike GSPO the clip acts on tokens; unlike GRPO one token cannot dominate. On-policy as `grpo`.
    The clip is in log space: 0.4 here, in the paper and in TRL; verl passes its ``clip_ratio`` (0.2).

    Raises:
        ValueError: an advantage for every token (the mean is over a response's tokens).

    Source: Zhao et al. (2025), arXiv:2507.20673.
    """
    low, high = (_validate.real(f"clip[{i}]", end, low=0.0) for i, end in enumerate(two_numbers("clip", clip)))
    xp = batch.xp
    advantage = detach(estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon))
    if advantage.ndim != 1:
        _validate.fail("advantages", f"GMPO needs one a response, [B], got {list(advantage.shape)}")
    log_rho = token_ratio(batch)
    kept = xp.where(
        advantage[:, None] > 0,
        xp.minimum(log_rho, xp.full_like(log_rho, high)),
        xp.maximum(log_rho, xp.full_like(log_rho, -low)),
    )
    ratio = xp.exp(xp.sum(kept * batch.weights, axis=-1) / xp.sum(batch.weights, axis=-1))
    cut = xp.astype(detach(kept != log_rho), log_rho.dtype)
    return -xp.mean(ratio * advantage), {"clip_fraction": token_mean(cut, batch.mask)}


@takes_batch
def bnpo(batch: TokenBatch, *, clip: Clip = (0.2, 0.2), epsilon: float = 0.0) -> Loss:
    r"""`grpo` with the mean over the tokens of this batch: TRL's ``loss_type="bnpo"``.

    Accumulated over micro-batches it is not the token mean of the whole: every micro-batch has its own denominator
    (``dapo`` in TRL divides by the tokens of all). The BNPO paper is about advantages, see
    `klsim.objectives.beta_scale`.

    Source: TRL, ``GRPOConfig.loss_type``.
    """
    return grpo(batch, clip=clip, aggregate=token_mean, epsilon=epsilon)
