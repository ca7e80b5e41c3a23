r"""PPO with a value head: GAE, the clipped value loss, the entropy bonus and its adaptive coefficient.

``delta_t = r_t + discount V_{t+1} - V_t``, ``A_t = sum_{u >= t} (discount lam)^{u-t} delta_u``, ``R_t = A_t + V_t``;
V after the last token is 0. At ``discount = lam = 1`` it is the reward to go less ``V_t``, and the expected policy
gradient does not depend on V, right or wrong; below 1 a wrong V biases it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach
from klsim.distributions import entropy
from klsim.objectives.aggregate import Aggregate, token_mean
from klsim.objectives.baselines import whitened
from klsim.objectives.batch import Loss, TokenBatch, takes_batch
from klsim.objectives.policy_gradient import Clip, surrogate

__all__ = ["AdaptiveEntropy", "entropy_bonus", "gae", "ppo", "value_loss"]

Array = Any


def _old_values(batch: TokenBatch) -> Array:
    (values,) = batch.need("values")
    return detach(values if batch.old_values is None else batch.old_values)


@takes_batch
def gae(batch: TokenBatch, *, discount: float = 1.0, lam: float = 0.95) -> Array:
    r"""Generalised advantages ``A_t`` of the batch's rewards and old values, ``[B, T]``, 0 outside the mask.

    Masked positions are skipped: the token after a hole is the next one, so padding and tool tokens do not matter.

    Source: Schulman et al. (2016), eq. 16.
    """
    discount = _validate.probability("discount", discount)
    lam = _validate.probability("lam", lam)
    xp = batch.xp
    values, rewards = _old_values(batch), batch.token_rewards()
    ahead, credit = xp.zeros_like(values[:, 0]), xp.zeros_like(values[:, 0])
    out = []
    for t in range(values.shape[1] - 1, -1, -1):
        here = batch.mask[:, t]
        delta = rewards[:, t] + discount * ahead - values[:, t]
        credit = xp.where(here, delta + discount * lam * credit, credit)
        ahead = xp.where(here, values[:, t], ahead)
        out.append(xp.where(here, credit, xp.zeros_like(credit)))
    return xp.stack(out[::-1], axis=1)


@takes_batch
def value_loss(batch: TokenBatch, returns: Array, *, clip: float = 0.2, aggregate: Aggregate = token_mean) -> Loss:
    r"""``1/2 aggregate[ max((V - R)^2, (clip(V, V_old ± clip) - R)^2) ]``: no gain from moving V further than ``clip``.

    ``clip=inf`` is the plain squared error. R: ``[B, T]``, a constant.

    Source: PPO's reference implementation; Huang et al. (2022), detail 9. TRL and verl halve it as well.
    """
    clip = _validate.real("clip", clip, low=0.0, open_low=True)
    xp = batch.xp
    (values,) = batch.need("values")
    old, target = _old_values(batch), detach(returns)
    near = old + xp.minimum(xp.maximum(values - old, xp.full_like(values, -clip)), xp.full_like(values, clip))
    plain, clipped = (values - target) ** 2, (near - target) ** 2
    active = xp.astype(detach(clipped > plain), values.dtype)
    loss = aggregate(xp.maximum(plain, clipped), batch.mask) / 2
    return loss, {"value_clip_fraction": token_mean(active, batch.mask)}


@takes_batch
def entropy_bonus(batch: TokenBatch, *, coefficient: float = 0.01, aggregate: Aggregate = token_mean) -> Loss:
    r"""``-coefficient aggregate[ H(pi(.|s_t)) ]`` over the vocabulary: descending it raises the entropy.

    Summed over tokens the gradient is ``-coefficient grad sum_s d(s) H(pi(.|s))`` with the visits d held fixed,
    whoever drew the tokens: not the entropy of sequences, whose gradient also rewards reaching uncertain prefixes. A
    *sampled* bonus, ``-log pi(y_t)`` in the loss, has no gradient on-policy.
    """
    coefficient = _validate.real("coefficient", coefficient)
    (pi,) = batch.need("vocab_log_probs")
    mean = aggregate(entropy(pi), batch.mask)
    return -coefficient * mean, {"entropy": detach(token_mean(entropy(detach(pi)), batch.mask))}


@dataclass(frozen=True)
class AdaptiveEntropy:
    """Skywork-OR1's entropy coefficient: up by ``delta`` at or below the target entropy, else down.

    Attributes:
        coefficient: the current one. target: entropy in nats a token. delta: step. low, high: bounds of the
        coefficient. entropy: the last one seen; inf before the first.

    Source: He et al. (2025), arXiv:2505.22312; as in TRL ``use_adaptive_entropy``.
    """

    coefficient: float = 0.0
    target: float = 0.2
    delta: float = 0.005
    low: float = 0.0
    high: float = 1.0
    entropy: float = math.inf

    def __post_init__(self) -> None:
        low = _validate.real("low", self.low)
        high = _validate.real("high", self.high, low=low)
        _validate.real("coefficient", self.coefficient, low=low, high=high)
        _validate.real("delta", self.delta, low=0.0)
        _validate.real("target", self.target, low=0.0)
        _validate.real("entropy", self.entropy, low=0.0)

    @property
    def applied(self) -> float:
        """What `entropy_bonus` takes: the coefficient, 0 while the last entropy is above the target."""
        return self.coefficient if self.entropy <= self.target else 0.0

    def update(self, entropy: float) -> AdaptiveEntropy:
        """The state after a step whose tokens had this mean entropy (nats)."""
        entropy = _validate.real("entropy", entropy, low=0.0)
        moved = self.coefficient + (self.delta if entropy <= self.target else -self.delta)
        return replace(self, coefficient=min(max(moved, self.low), self.high), entropy=entropy)


@takes_batch
def ppo(
    batch: TokenBatch,
    *,
    clip: Clip = (0.2, 0.2),
    discount: float = 1.0,
    lam: float = 0.95,
    whiten: Literal["none", "population", "sample"] = "sample",
    value_coefficient: float = 0.5,
    value_clip: float = 0.2,
    entropy_coefficient: float = 0.0,
    aggregate: Aggregate = token_mean,
) -> Loss:
    r"""Clipped surrogate with `gae`, plus ``value_coefficient`` `value_loss`, plus `entropy_bonus`.

    Policy part, on-policy, ``whiten="none"``, tokens summed: ``-grad E[r]`` at ``discount = lam = 1`` for every value
    function. Whitening subtracts and divides by the batch's own moments: no population objective. Advantages given in
    the batch take the place of GAE's; then the values are only trained. `value_loss` does not touch the policy.

    Needs ``values`` (``[B, T]``, differentiable), and ``vocab_log_probs`` with an entropy coefficient.

    Source: Schulman et al. (2017), eq. 9.
    """
    _validate.one_of("whiten", whiten, ("none", "population", "sample"))
    value_coefficient = _validate.real("value_coefficient", value_coefficient, low=0.0)
    entropy_coefficient = _validate.real("entropy_coefficient", entropy_coefficient)
    raw = gae(batch, discount=discount, lam=lam)
    advantage = raw if batch.advantages is None else batch.advantages
    if whiten != "none" and batch.advantages is None:
        advantage = whitened(raw, batch, std=whiten)
    loss, metrics = surrogate(batch, advantage, clip=clip, aggregate=aggregate)
    value, more = value_loss(batch, raw + _old_values(batch), clip=value_clip, aggregate=aggregate)
    loss, metrics = loss + value_coefficient * value, metrics | more | {"value_loss": detach(value)}
    if entropy_coefficient:
        bonus, seen = entropy_bonus(batch, coefficient=entropy_coefficient, aggregate=aggregate)
        loss, metrics = loss + bonus, metrics | seen
    return loss, metrics
