r"""Responses of another law: a sampler that is not the trainer (TIS, MIS, IcePop), or old data (TOPR, DRO).

Three laws can differ: mu drew the tokens (`TokenBatch.rollout`), ``old`` is the trainer's policy at that time, ``pi``
the policy now. PPO's ratio is ``pi/old``; the weight ``old/mu`` (`rollout_weights`) corrects the rest:

=========================  =============================  ===============================================
method                     level                          weight w
=========================  =============================  ===============================================
`tis`                      token, sequence, geometric     ``min(w, high)``
`mis`                      the same                       ``w`` inside ``[low, high]``, else 0
`icepop`                   token                          as `mis`, ``[0.5, 5]``
`decoupled_ppo`            token                          ``w``, or ``min(w, cap)``
=========================  =============================  ===============================================

Only the sequence weight without truncation makes the expectation that of ``old``; token weights ignore who visited the
prefix, truncation and masks remove mass.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach
from klsim.objectives.advantages import group_mean, group_std, leave_one_out_mean, no_baseline, no_scale
from klsim.objectives.aggregate import Aggregate, sequence_mean, sequence_sum, token_mean
from klsim.objectives.batch import Loss, TokenBatch, of_batch, takes_batch, two_numbers
from klsim.objectives.policy_gradient import Clip, estimated, per_token, surrogate, token_ratio

__all__ = [
    "Level",
    "decoupled_ppo",
    "dro",
    "icepop",
    "mis",
    "off_policy_mask",
    "off_policy_masked",
    "rollout_weights",
    "tis",
    "topr",
]

Array = Any
Level = Literal["token", "sequence", "geometric"]
"""What a correction weighs: a token, a response, or a response by the geometric mean of its tokens."""
_LEVELS = ("token", "sequence", "geometric")


@takes_batch
def rollout_weights(
    batch: TokenBatch,
    *,
    level: Level = "token",
    beyond: Literal["truncate", "mask"] = "truncate",
    low: float = 0.0,
    high: float = 2.0,
) -> Array:
    r"""``old/mu`` of a token, a response or its geometric mean; a constant, ``[B, T]``.

    Outside ``[low, high]`` the nearest bound (``"truncate"``) or 0 (``"mask"``).

    Raises:
        ValueError: the batch has no ``rollout_log_probs``; ``low > high``, or both infinite.
    """
    _validate.one_of("level", level, _LEVELS)
    _validate.one_of("beyond", beyond, ("truncate", "mask"))
    low = _validate.real("low", low, low=0.0)
    high = _validate.real("high", high, low=low, open_low=math.isinf(low))
    xp = batch.xp
    (sampler,) = batch.need("rollout_log_probs")
    log_w = detach(batch.old - sampler)
    if level != "token":
        log_w = xp.sum(log_w, axis=-1, keepdims=True)
    if level == "geometric":
        log_w = log_w / xp.sum(batch.weights, axis=-1, keepdims=True)
    log_w = per_token(batch, log_w)
    log_low = math.log(low) if low else -math.inf
    log_high = -math.inf if high == 0 else math.log(high) if math.isfinite(high) else math.inf
    bottom, top = xp.full_like(log_w, log_low), xp.full_like(log_w, log_high)
    weight = xp.exp(xp.maximum(xp.minimum(log_w, top), bottom))
    if beyond == "mask":
        weight = xp.where((log_w < bottom) | (log_w > top), xp.zeros_like(weight), weight)
    return weight


def _corrected(batch: TokenBatch, weight: Array, clip: Clip, aggregate: Aggregate, std: bool, epsilon: float) -> Loss:
    scale = group_std if _validate.flag("std", std) else no_scale
    advantage = estimated(batch, baseline=group_mean, scale=scale, epsilon=epsilon)
    loss, metrics = surrogate(batch, advantage, clip=clip, aggregate=aggregate, weight=weight)
    kept = batch.xp.astype(weight > 0, weight.dtype)
    return loss, metrics | {"rollout_weight": token_mean(weight, batch.mask), "kept": token_mean(kept, batch.mask)}


@takes_batch
def tis(
    batch: TokenBatch,
    *,
    level: Level = "token",
    high: float = 2.0,
    low: float = 0.0,
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = token_mean,
    std: bool = True,
    epsilon: float = 0.0,
) -> Loss:
    r"""Truncated importance sampling: GRPO's clipped term times ``min(old/mu, high)``.

    With mu = old it is the clipped term. ``level="sequence"``, ``high=inf``, ``std=False``, tokens summed, at
    ``pi = old``: the gradient is ``-(G-1)/G grad E_pi[r]`` whatever mu is. Token weights are exact for one token only.

    Source: Yao et al. (2025), off-policy RL with a mismatched sampler; TRL ``token_truncate`` / ``sequence_truncate``
    (high 3 there), verl ``rollout_is`` (2).
    """
    weight = rollout_weights(batch, level=level, beyond="truncate", low=low, high=high)
    return _corrected(batch, weight, clip, aggregate, std, epsilon)


@takes_batch
def mis(
    batch: TokenBatch,
    *,
    level: Level = "sequence",
    high: float = 3.0,
    low: float = 0.0,
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = token_mean,
    std: bool = True,
    epsilon: float = 0.0,
) -> Loss:
    r"""Masked importance sampling: GRPO's clipped term times ``old/mu`` inside ``[low, high]``, 0 outside.

    Masked tokens and responses stay in the denominators of means, as in TRL.

    Source: Liu et al. (2025), "When speed kills stability"; TRL ``sequence_mask``, its default, high 3.
    """
    weight = rollout_weights(batch, level=level, beyond="mask", low=low, high=high)
    return _corrected(batch, weight, clip, aggregate, std, epsilon)


@takes_batch
def icepop(
    batch: TokenBatch,
    *,
    low: float = 0.5,
    high: float = 5.0,
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = sequence_mean,
    std: bool = True,
    epsilon: float = 0.0,
) -> Loss:
    r"""`mis` on tokens with the band ``[0.5, 5]``, mean over each response's tokens (IcePop).

    Source: Ling team (2025), arXiv:2510.18855 (Ring-1T), the objective without its KL.
    """
    return mis(batch, level="token", low=low, high=high, clip=clip, aggregate=aggregate, std=std, epsilon=epsilon)


@takes_batch
def decoupled_ppo(
    batch: TokenBatch,
    *,
    cap: float = math.inf,
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = token_mean,
    std: bool = True,
    epsilon: float = 0.0,
) -> Loss:
    r"""PPO around ``old`` on tokens that mu drew: ``-aggregate[ (old/mu) min(rho A, clip(rho) A) ]``.

    `tis` on tokens with no truncation, or ``cap``. ``old`` here is the *proximal* policy, which need not have drawn
    anything.

    Source: Hilton et al. (2022), "Batch size-invariance for policy optimization"; AReaL (2025).
    """
    cap = _validate.real("cap", cap, low=0.0)
    weight = rollout_weights(batch, level="token", beyond="truncate", high=cap)
    return _corrected(batch, weight, clip, aggregate, std, epsilon)


@takes_batch
@takes_batch
def off_policy_mask(batch: TokenBatch, advantage: Array, *, threshold: float = 0.5) -> Array:
    r"""1 where a response stays, else 0; ``[B]`` or ``[B, T]`` as ``advantage``, a constant.

    A response with ``A < 0`` leaves if ``mean_t log(mu/pi) > threshold`` (nats a token): it is no longer what the
    policy would say, and pushing it further down is what destabilises.

    Source: DeepSeek-V3.2 (2025), arXiv:2512.02556, eq. 9; TRL ``off_policy_mask_threshold``.
    """
    threshold = _validate.real("threshold", threshold)
    xp, advantage = batch.xp, of_batch("advantage", advantage, batch)
    drift = detach(batch.rollout - batch.log_probs) * batch.weights
    far = xp.sum(drift, axis=-1) / xp.sum(batch.weights, axis=-1) > threshold
    out = (advantage < 0) & (far if advantage.ndim == 1 else far[:, None])
    return xp.astype(~out, batch.log_probs.dtype)


@takes_batch
def off_policy_masked(
    batch: TokenBatch,
    *,
    threshold: float = 0.5,
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = sequence_mean,
    epsilon: float = 0.0,
) -> Loss:
    r"""`klsim.objectives.grpo` times `off_policy_mask`; the denominators of means stay. On-policy it is GRPO.

    Source: DeepSeek-V3.2 (2025), eq. 9.
    """
    advantage = estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)
    kept = off_policy_mask(batch, advantage, threshold=threshold)
    loss, metrics = surrogate(batch, advantage, clip=clip, aggregate=aggregate, weight=kept)
    return loss, metrics | {"kept": token_mean(per_token(batch, kept), batch.mask)}


@takes_batch
def topr(
    batch: TokenBatch,
    *,
    baseline: float = 0.0,
    positive: tuple[float, float] = (1.0, 1.0),
    negative: tuple[float, float] = (0.0, 1.0),
    aggregate: Aggregate = sequence_sum,
) -> Loss:
    r"""Tapered off-policy REINFORCE: ``-aggregate[ sg(clip(pi(y)/old(y), a, b)) R log pi ]``, ``R = r - baseline``.

    ``[a, b]`` is ``positive`` for ``R >= 0`` (1: imitation, however unlikely the response has become) and
    ``negative`` for ``R < 0`` (at most 1: what is unlikely already is let go). On-policy the gradient is
    ``-grad E[r]``; off-policy that of neither policy, unless both intervals are ``[0, inf]``.

    Raises:
        ValueError: an interval that is not ``0 <= a <= b``.

    Source: Le Roux et al. (2025), arXiv:2503.14286.
    """
    bounds = []
    for name, interval in (("positive", positive), ("negative", negative)):
        a, b = two_numbers(name, interval)
        a = _validate.real(f"{name}[0]", a, low=0.0)
        bounds.append((a, _validate.real(f"{name}[1]", b, low=a)))
    baseline = _validate.real("baseline", baseline)
    xp = batch.xp
    reward = estimated(batch, baseline=no_baseline) - baseline
    log_w = per_token(batch, detach(xp.sum(token_ratio(batch), axis=-1, keepdims=True)))
    reward = per_token(batch, detach(reward))

    def bound(place: int) -> Array:
        logs = [math.log(ends[place]) if ends[place] else -math.inf for ends in bounds]
        return xp.where(reward >= 0, xp.full_like(log_w, logs[0]), xp.full_like(log_w, logs[1]))

    weight = xp.exp(xp.maximum(xp.minimum(log_w, bound(1)), bound(0)))
    loss = -aggregate(weight * reward * batch.log_probs, batch.mask)
    return loss, {"mean_weight": token_mean(weight, batch.mask)}


@takes_batch
def dro(
    batch: TokenBatch,
    *,
    beta: float = 0.1,
    form: Literal["sequence", "token"] = "sequence",
    aggregate: Aggregate = sequence_sum,
) -> Loss:
    r"""Direct reward optimisation: a quadratic loss whose minimum is the KL-regularised optimum, for any sampling law.

    * ``"sequence"`` (the paper): ``1/2 mean_i (r_i - V_i - beta log(pi(y_i)/ref(y_i)))^2``. V is the value at the
      response's first token (``batch.values``, trained by the same loss), else the mean of ``r - beta log(pi/ref)``
      over the others of the group. On the policy's own responses, V a constant or the others' mean, the gradient is
      ``beta (-grad E[r] + beta grad KL(pi‖ref))``; the fixed point is ``ref e^{r/beta}/Z`` on-policy and off-policy.
    * ``"token"`` (Tinker; Kimi k1.5 squares the response's sum):
      ``-aggregate[ A log pi - beta/2 (log pi - log old)^2 ]``, ``A`` the advantages, else ``r`` less the group's
      mean. On-policy only the first term has a gradient.

    Source: Richemond et al. (2024), arXiv:2405.19107; Kimi k1.5 (2025), arXiv:2501.12599.
    """
    _validate.one_of("form", form, ("sequence", "token"))
    beta = _validate.real("beta", beta, low=0.0, open_low=True)
    xp = batch.xp
    if form == "token":
        advantage = per_token(batch, detach(estimated(batch, baseline=group_mean)))
        drift = token_ratio(batch)
        loss = -aggregate(advantage * batch.log_probs - beta / 2 * drift * drift, batch.mask)
        return loss, {"drift": token_mean(detach(drift * drift), batch.mask)}
    (ref,) = batch.need("ref_log_probs")
    log_ratio = xp.sum(batch.log_probs - detach(ref), axis=-1)
    gain = batch.total_rewards() - beta * log_ratio
    if batch.values is None:
        value = leave_one_out_mean(detach(gain), batch.groups())
    else:
        first = batch.mask & (xp.cumulative_sum(batch.weights, axis=-1) == 1)
        value = xp.sum(xp.where(first, batch.values, xp.zeros_like(batch.values)), axis=-1)
    error = gain - value
    return xp.mean(error * error) / 2, {"kl": detach(xp.mean(log_ratio)), "value": detach(xp.mean(value))}
