r"""Terms that keep a run stable: Lp-Reg, APO (DADS, STCR), SAFE, SNGS and action-aware SFT."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim._sums import detach, supported
from klsim.estimators import k3
from klsim.objectives.advantages import advantages, checked, group_mean, group_sample_std, group_std
from klsim.objectives.aggregate import Aggregate, sequence_mean, token_mean
from klsim.objectives.batch import Loss, TokenBatch, of_batch, takes_batch
from klsim.objectives.kl import divergence, log_ratio, sampled
from klsim.objectives.policy_gradient import Clip, estimated, per_token, surrogate, token_ratio

__all__ = [
    "AdaptiveThreshold",
    "apo",
    "asft",
    "dads_weight",
    "entropy_gate",
    "hinge_kl",
    "lp_reg",
    "lp_reg_gate",
    "min_p_proxy",
    "sngs",
    "soft_min",
    "stcr_multiplier",
]

Array = Any


def min_p_proxy(vocab_log_probs: Array, kappa: float = 0.02) -> Array:
    """The policy without its noise: tokens above ``kappa max pi``, renormalised, ``[..., V]``; constant (Lp-Reg).

    ``KL(proxy‖pi) = -log pi(kept)``; ``kappa < 1`` always keeps the most likely token.
    """
    kappa = _validate.real("kappa", kappa, low=0.0, high=1.0)
    if kappa == 1.0:
        _validate.fail("kappa", "must be < 1: at 1 nothing is kept", kappa)
    xp, log_p = _validate.arrays(vocab_log_probs=detach(vocab_log_probs))
    _validate.log_probs("vocab_log_probs", xp, log_p)
    top = xp.max(log_p, axis=-1, keepdims=True)
    floor = math.log(kappa) if kappa else -math.inf
    kept = xp.where(log_p > top + floor, log_p, xp.full_like(log_p, -math.inf))
    return kept - xp.log(xp.sum(xp.exp(kept), axis=-1, keepdims=True))


@takes_batch
def lp_reg_gate(
    batch: TokenBatch, proxy_log_probs: Array, advantage: Array, *, rho: float, strict: bool = True
) -> Array:
    """``[B, T]`` boolean: tokens below the ``rho``-quantile of sampled probabilities, with ``A < 0``, in the proxy.

    ``proxy_log_probs``: of the sampled tokens, ``-inf`` where the proxy has none. ``strict``: ``pi < quantile``
    (the paper); with ``<=`` a batch of certain tokens opens the gate for all of them (``lp-reg`` C4, C6).
    """
    rho, strict = _validate.probability("rho", rho), _validate.flag("strict", strict)
    xp = batch.xp
    proxy_log_probs = per_token(batch, of_batch("proxy_log_probs", proxy_log_probs, batch))
    advantage = of_batch("advantage", advantage, batch)
    probs = xp.exp(detach(batch.log_probs))
    flat = xp.sort(probs[batch.mask])
    place = rho * (flat.shape[0] - 1)
    below, share = int(place), place - int(place)
    above = min(below + 1, flat.shape[0] - 1)
    quantile = flat[below] + share * (flat[above] - flat[below])  # of equal ones it is their value, to the last bit
    rare = probs < quantile if strict else probs <= quantile
    return rare & (per_token(batch, advantage) < 0) & ~xp.isinf(proxy_log_probs) & batch.mask


@takes_batch
def lp_reg(
    batch: TokenBatch,
    *,
    coefficient: float = 1.0,
    kappa: float = 0.02,
    rho: float = 0.01,
    cap: float = 10.0,
    strict: bool = True,
    epsilon: float = 0.0,
) -> Loss:
    r"""``-token_mean[ min(ratio, cap) A - coefficient gate KL(proxy‖pi) ]`` with `min_p_proxy` and `lp_reg_gate`.

    The proxy is built from ``old_vocab_log_probs`` (a lagged policy), else from the policy itself. At a gated prefix
    the penalty's gradient in the logits is ``pi - proxy``: with the proxy of the *current* policy this sharpens and
    does not protect rare tokens; a lagged proxy pulls them up by at most ``coefficient proxy``.
    The policy part uses ``min(ratio, cap) A`` without PPO's minimum; on-policy it is GRPO's with a token mean.

    Source: ``lp-reg`` eq. 5-6, C2-C4, C7.
    """
    coefficient = _validate.real("coefficient", coefficient, low=0.0)
    cap = _validate.real("cap", cap, low=1.0)
    xp = batch.xp
    pi, tokens = batch.need("vocab_log_probs", "tokens")
    advantage = estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)
    ratio = xp.exp(token_ratio(batch))
    policy = xp.minimum(ratio, xp.full_like(ratio, cap)) * per_token(batch, advantage)
    proxy = min_p_proxy(pi if batch.old_vocab_log_probs is None else batch.old_vocab_log_probs, kappa)
    gate = lp_reg_gate(batch, sampled(proxy, tokens), advantage, rho=rho, strict=strict)
    kept = ~xp.isinf(proxy)
    gap = xp.where(kept, supported(xp, proxy) - xp.where(kept, pi, xp.zeros_like(pi)), xp.zeros_like(pi))
    penalty = xp.where(gate, xp.sum(xp.exp(proxy) * gap, axis=-1), xp.zeros_like(ratio))
    loss = -token_mean(policy - coefficient * penalty, batch.mask)
    return loss, {"gated_fraction": token_mean(xp.astype(gate, loss.dtype), batch.mask)}


def dads_weight(
    rewards: Array, group: Array, advantage: Array, *, by: Literal["advantage", "correct"] = "advantage"
) -> Array:
    r"""KL weight of every response (DADS), ``[B]``: ``f(d) = 1 - exp(-e (1 - d))`` on a group's upper half, else 1.

    ``d`` is one minus the group's success rate (rewards truncated to integers, so a format bonus does not count);
    ``f = 1`` at d = 0 and 1. The upper half is ``A > 0`` (official code) or the correct responses (``by="correct"``).

    Source: ``apo`` C1, C3.
    """
    _validate.one_of("by", by, ("advantage", "correct"))
    xp, rewards, advantage = _validate.arrays(rewards=rewards, advantage=advantage)
    if tuple(advantage.shape) != tuple(rewards.shape):
        _validate.fail("advantage", f"must have shape {list(rewards.shape)}, got {list(advantage.shape)}")
    _validate.finite("advantage", xp, advantage)
    _, rewards, group = checked(rewards, group)
    correct = xp.trunc(rewards)
    difficulty = 1 - group_mean(correct, group)
    inside = (difficulty > 1e-9) & (difficulty < 1 - 1e-9)
    upper = advantage > 0 if by == "advantage" else correct > 0
    return xp.where(upper & inside, -xp.expm1(-math.e * (1 - difficulty)), xp.ones_like(difficulty))


def stcr_multiplier(
    rewards: Array, lengths: Array, group: Array, *, base: float = 1.00001, advantage: Array | None = None
) -> Array:
    r"""Advantage multiplier of wrong, long responses (STCR), ``[B]``: ``1 + max(0, 1 - base^{-(L - Lbar+)})``.

    ``Lbar+``: mean length of the group's right responses; 1 for right responses and in groups without one. At the
    official base the effect is at most 4 % at 4096 tokens. The official code multiplies whatever the sign of the
    advantage: with a format bonus a wrong response can be above average, and is then amplified for its length. With
    ``advantage`` (``[B]``) only responses below average are multiplied.

    Source: ``apo`` C3.
    """
    base = _validate.real("base", base, low=1.0)
    xp, rewards, lengths = _validate.arrays(rewards=rewards, lengths=lengths)
    if tuple(lengths.shape) != tuple(rewards.shape):
        _validate.fail("lengths", f"must have shape {list(rewards.shape)}, got {list(lengths.shape)}")
    _validate.budgets("lengths", xp, _validate.finite("lengths", xp, lengths))
    _, rewards, group = checked(rewards, group)
    right = xp.astype(xp.trunc(rewards) > 0, rewards.dtype)
    share = group_mean(right, group)
    mean_right = group_mean(right * lengths, group) / xp.where(share > 0, share, xp.ones_like(share))
    excess = -xp.expm1(-math.log(base) * (lengths - mean_right))
    scaled = (right == 0) & (share > 0)
    if advantage is not None:
        xp, rewards, advantage = _validate.arrays(rewards=rewards, advantage=advantage)
        if tuple(advantage.shape) != tuple(rewards.shape):
            _validate.fail("advantage", f"must have shape {list(rewards.shape)}, got {list(advantage.shape)}")
        scaled = scaled & (_validate.finite("advantage", xp, advantage) < 0)
    return xp.where(scaled, 1 + xp.maximum(excess, xp.zeros_like(excess)), xp.ones_like(excess))


@takes_batch
def apo(
    batch: TokenBatch,
    *,
    beta: float = 1e-3,
    base: float = 1.00001,
    clip: Clip = (0.2, 0.2),
    by: Literal["advantage", "correct"] = "advantage",
    epsilon: float = 1e-9,
) -> Loss:
    r"""APO: token-mean clipped term with STCR-scaled advantages, plus ``beta`` times a DADS-weighted k3 to the ref.

    On-policy the KL part, ``mean_i w_i mean_t k3``, pushes along the *forward* KL; the weight depends on the
    reward, so it also rewards the responses whose weight is small (``apo`` C2). No population objective in general.
    Advantages use the sample standard deviation (ddof 1). ``by="advantage"`` is the official code; with ``"correct"``
    the KL discount goes to right responses only, and STCR to wrong ones below average.

    Source: ``apo`` C1-C3, Algorithm.
    """
    beta = _validate.real("beta", beta, low=0.0)
    xp = batch.xp
    rewards, group = batch.total_rewards(), batch.groups()
    advantage = batch.advantages
    if advantage is None:
        advantage = advantages(rewards, group, baseline=group_mean, scale=group_sample_std, epsilon=epsilon)
    if advantage.ndim != 1:
        _validate.fail("advantages", f"APO needs one a response, [B], got {list(advantage.shape)}")
    lengths = xp.sum(batch.weights, axis=-1)
    gate = advantage if by == "correct" else None
    scaled = advantage * stcr_multiplier(rewards, lengths, group, base=base, advantage=gate)
    loss, metrics = surrogate(batch, scaled, clip=clip, aggregate=token_mean)
    weight = dads_weight(rewards, group, advantage, by=by)
    penalty = sequence_mean(weight[:, None] * k3(log_ratio(batch, "ref")), batch.mask)
    return loss + beta * penalty, metrics | {"kl_weight": xp.mean(weight)}


def soft_min(values: Array, alpha: float = 0.3) -> Array:
    r"""``-alpha log mean exp(-V/alpha)`` over the last axis: between the minimum and the mean (SAFE's two critics).

    Source: ``safe`` C1.
    """
    alpha = _validate.real("alpha", alpha, low=0.0, open_low=True)
    xp, values = _validate.arrays(values=values)
    _validate.finite("values", xp, values)
    if values.ndim == 0 or values.shape[-1] == 0:
        _validate.fail("values", f"needs a non-empty last axis, got shape {tuple(values.shape)}")
    low = xp.min(values, axis=-1, keepdims=True)
    if math.isinf(alpha):
        return xp.mean(values, axis=-1)
    with np.errstate(over="ignore"):
        return low[..., 0] - alpha * xp.log(xp.mean(xp.exp(-(values - low) / alpha), axis=-1))


def entropy_gate(entropy: float, *, target: float = 2.0, floor: float = 0.5) -> float:
    """``max(floor, target / (H + 0.1))``: the penalty grows as the entropy (nats a token) falls (SAFE)."""
    entropy = _validate.real("entropy", entropy, low=0.0)
    floor, target = _validate.real("floor", floor, low=0.0), _validate.real("target", target, low=0.0)
    return max(floor, target / (entropy + 0.1))


@takes_batch
def hinge_kl(
    batch: TokenBatch,
    *,
    threshold: float = 0.3,
    coefficient: float = 0.1,
    gate: float = 1.0,
    penalty: Literal["differentiable", "detached"] = "differentiable",
    aggregate: Aggregate = token_mean,
) -> Loss:
    r"""``c g (KL - tau)_+^2`` with the exact KL to the reference over the vocabulary (SAFE).

    ``"differentiable"``: gradient ``2 c g (KL - tau)_+ grad KL``, visited prefixes held fixed; the fixed point is a
    tilt whose KL exceeds ``tau``. It is not linear in the batch: its mean is not the value at the mean KL.
    ``"detached"``: what the official trainer does, a constant without gradient.

    Source: ``safe`` C3, C5, C6.
    """
    _validate.one_of("penalty", penalty, ("differentiable", "detached"))
    threshold = _validate.real("threshold", threshold, low=0.0)
    factor = _validate.real("coefficient", coefficient, low=0.0) * _validate.real("gate", gate, low=0.0)
    xp = batch.xp
    kl, _ = divergence(batch, generator="kl", aggregate=aggregate)
    over = xp.maximum(kl - threshold, xp.zeros_like(kl))
    loss = factor * over * over
    metrics = {"kl": detach(kl), "penalty": detach(loss)}
    return (detach(loss) + 0 * kl, metrics) if penalty == "detached" else (loss, metrics)


@dataclass(frozen=True)
class AdaptiveThreshold:
    """SAFE's KL threshold: a PID loop on the velocity of the smoothed reward, times a phase of training.

    Attributes:
        kl: exponential moving average of the KL (decay 0.9). rewards: the last 100. smoothed: EMA of the reward.
        integral, error: of the PID loop. threshold: what `hinge_kl` takes, in [0.1, 0.6]. phase: of training.

    Source: ``safe`` C4, Algorithm.
    """

    kl: float = 0.0
    rewards: tuple[float, ...] = ()
    smoothed: float | None = None
    integral: float = 0.0
    error: float = 0.0
    threshold: float = 0.3
    phase: Literal["warmup", "climbing", "plateau", "converged"] = "warmup"

    def update(self, kl: float, reward: float) -> AdaptiveThreshold:
        """The state after one more batch with mean KL ``kl`` (nats a token) and mean reward ``reward``.

        Both at most 1e100 in size, so that no difference of two of them overflows.
        """
        kl = _validate.real("kl", kl, low=-1e100, high=1e100)
        reward = _validate.real("reward", reward, low=-1e100, high=1e100)
        average = 0.9 * self.kl + 0.1 * kl
        rewards = (*self.rewards, reward)[-100:]
        integral, error, control = self.integral, self.error, 0.0
        smoothed = reward if self.smoothed is None else 0.95 * self.smoothed + 0.05 * reward
        if self.smoothed is not None:
            error = smoothed - self.smoothed - 0.001
            integral = min(max(integral + error, -1.0), 1.0)
            control = 0.3 * error + 0.01 * integral + 0.05 * (error - self.error)
        phase, factor = _phase(rewards)
        threshold = min(max((0.3 + control) * factor, 0.1), 0.6)
        return replace(
            self, kl=average, rewards=rewards, smoothed=smoothed, integral=integral, error=error,
            threshold=threshold, phase=phase,
        )  # fmt: skip


def _phase(rewards: tuple[float, ...]) -> tuple[Any, float]:
    """The phase of training and its multiplier, from the last 50 rewards and the 50 before."""
    if len(rewards) < 50:
        return "warmup", 1.5
    recent = np.asarray(rewards[-50:])
    previous = np.asarray(rewards[-100:-50]) if len(rewards) >= 100 else recent
    if recent.mean() > previous.mean() + 0.01:
        return "climbing", 1.2
    if recent.std() < 0.02 and recent.mean() > 0.7:
        return "converged", 1.0
    return "plateau", 0.8


def sngs(advantage: Array, success: Array, group: Array, *, offset: float = 0.5, slope: float = 1.5) -> Array:
    r"""Negative advantages times ``min(offset + slope phat, 1)``, ``phat`` the group's success rate (GUI-Libra).

    Binary rewards: the expected update of a prompt keeps its direction and is multiplied by a factor in
    ``[1-p, 1]``, nothing else (``gui-libra`` C5).

    Args:
        success: ``[B]`` in {0, 1}.
    """
    offset, slope = _validate.real("offset", offset), _validate.real("slope", slope)
    xp, advantage, success = _validate.arrays(advantage=advantage, success=success)
    if tuple(advantage.shape) != tuple(success.shape):
        _validate.fail("advantage", f"must have shape {list(success.shape)}, got {list(advantage.shape)}")
    _validate.finite("advantage", xp, advantage)
    _, success, group = checked(success, group, "success")
    scale = offset + slope * group_mean(success, group)
    scale = xp.minimum(xp.maximum(scale, xp.zeros_like(scale)), xp.ones_like(scale))
    return xp.where(advantage < 0, scale * advantage, advantage)


@takes_batch
def asft(batch: TokenBatch, token_weights: Array) -> Loss:
    r"""Action-aware SFT: ``-mean_i sum_t w_it log pi / sum_t w_it``; reasoning 1, actions and coordinates more.

    Raises:
        ValueError: a negative weight, or a response whose weights are all 0.

    Source: ``gui-libra`` C6.
    """
    xp, _, weights = _validate.arrays(log_probs=batch.log_probs, token_weights=token_weights)
    if tuple(weights.shape) != tuple(batch.log_probs.shape):
        _validate.fail("token_weights", f"must have shape {list(batch.log_probs.shape)}, got {list(weights.shape)}")
    _validate.budgets("token_weights", xp, _validate.finite("token_weights", xp, weights))
    weights = weights * batch.weights
    total = xp.sum(weights, axis=-1)
    index = _validate.first_true(xp, total == 0)
    if index is not None:
        _validate.fail("token_weights", "this response has no token of positive weight", index=index)
    loss = -xp.mean(xp.sum(weights * batch.log_probs, axis=-1) / total)
    return loss, {"nll": detach(loss)}
