r"""Baselines beyond the group mean: GPG, OPO, ReMax, the optimal token baseline, and REINFORCE++ on tokens.

A baseline leaves the expected gradient alone only if it does not depend on the response that it is subtracted from. The
mean of a group contains it (factor ``(G-1)/G``); a mean weighted by one's own length or score norm contains it in a way
that no factor undoes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach
from klsim.objectives.advantages import checked, group_mean, group_sizes
from klsim.objectives.aggregate import Aggregate, sequence_sum, token_mean
from klsim.objectives.batch import Loss, TokenBatch, of_batch, takes_batch
from klsim.objectives.distillation import returns
from klsim.objectives.kl import log_ratio
from klsim.objectives.policy_gradient import Clip, surrogate

__all__ = [
    "gpg",
    "gpg_factor",
    "opo",
    "opo_baseline",
    "optimal_token_advantages",
    "optimal_token_baseline",
    "reinforce_pp_token",
    "reinforce_pp_token_advantages",
    "remax",
    "whitened",
]

Array = Any


def _members(group: Array) -> Array:
    return group[:, None] == group[None, :]


def gpg_factor(rewards: Array, group: Array, *, count: Literal["contrast", "nonzero"] = "contrast") -> Array:
    r"""``alpha = B / B_kept``, a scalar: what makes up for responses whose gradient is 0 (GPG).

    ``"contrast"`` (the paper): ``B_kept`` are the responses of groups with unequal rewards. ``"nonzero"`` (verl): those
    with a reward other than 0, whatever their group. 1 where none is kept.
    """
    _validate.one_of("count", count, ("contrast", "nonzero"))
    xp, rewards, group = checked(rewards, group)
    same = _members(group)
    differs = same & (rewards[:, None] != rewards[None, :])
    kept = xp.any(differs, axis=-1) if count == "contrast" else rewards != 0
    share = xp.mean(xp.astype(kept, rewards.dtype))
    return xp.where(share > 0, 1 / xp.where(share > 0, share, xp.ones_like(share)), xp.ones_like(share))


@takes_batch
def gpg(
    batch: TokenBatch, *, count: Literal["contrast", "nonzero"] = "contrast", aggregate: Aggregate = token_mean
) -> Loss:
    r"""``-aggregate[ alpha (r - rbar) log pi ]``: REINFORCE with the group mean, no ratio, no clip, no std (GPG).

    One prompt, equal lengths: the gradient is ``-(G-1)/G grad E[r]/T`` (a group without contrast adds nothing and is
    not made up for); several prompts: each is multiplied by the mean `gpg_factor` given that its own group has
    contrast.

    Source: Chu et al. (2025), arXiv:2504.02546.
    """
    advantage = batch.advantages
    if advantage is None:
        rewards, group = batch.total_rewards(), batch.groups()
        advantage = gpg_factor(rewards, group, count=count) * (rewards - group_mean(rewards, group))
    on_policy = batch.replace(old_log_probs=None)
    return surrogate(on_policy, advantage, aggregate=aggregate)


def opo_baseline(rewards: Array, lengths: Array, group: Array) -> Array:
    r"""``sum_j |y_j| r_j / sum_j |y_j|`` over the group, ``[B]``: optimal if score norms grow like the length (OPO)."""
    xp, rewards, group = checked(rewards, group)
    _, lengths, _ = _validate.arrays(lengths=lengths, rewards=rewards)
    if tuple(lengths.shape) != tuple(rewards.shape):
        _validate.fail("lengths", f"must have shape {list(rewards.shape)}, got {list(lengths.shape)}")
    _validate.positive("lengths", xp, lengths)
    same = xp.astype(_members(group), rewards.dtype)
    totals = xp.matmul(same, lengths)
    _validate.representable("lengths", xp, totals)
    share = same * lengths[None, :] / totals[:, None]
    return xp.sum(share * rewards[None, :], axis=-1)


@takes_batch
def opo(batch: TokenBatch, *, aggregate: Aggregate = sequence_sum) -> Loss:
    r"""``-aggregate[ (r - b) log pi ]`` with `opo_baseline`, strictly on-policy: no ratio, no clip (OPO).

    Equal lengths: the group mean. Otherwise a response's own share of the baseline grows with its length: no population
    objective.

    Source: Hao et al. (2025), arXiv:2505.23585.
    """
    advantage = batch.advantages
    if advantage is None:
        rewards, group = batch.total_rewards(), batch.groups()
        if batch.xp.any(group_sizes(rewards, group) < 2):
            group_mean(rewards, group)  # raises and says which group is too small
        advantage = rewards - opo_baseline(rewards, batch.xp.sum(batch.weights, axis=-1), group)
    return surrogate(batch.replace(old_log_probs=None), advantage, aggregate=aggregate)


@takes_batch
def remax(batch: TokenBatch, *, aggregate: Aggregate = sequence_sum) -> Loss:
    r"""REINFORCE with the greedy response's reward as baseline: reward to go less ``greedy_rewards``, no ratio.

    The greedy response does not depend on the sampled one: on-policy, summed over tokens, the gradient is
    ``-grad E[r]``, groups of one included.

    Source: Li et al. (2024), arXiv:2310.10505.
    """
    (greedy,) = batch.need("greedy_rewards")
    to_go = returns(batch.token_rewards(), batch, 1.0)
    return surrogate(batch.replace(old_log_probs=None), to_go - detach(greedy)[:, None], aggregate=aggregate)


def _to_front(batch: TokenBatch, values: Array, order: Array) -> Array:
    return batch.xp.take_along_axis(values, order, axis=-1)


@takes_batch
def optimal_token_advantages(batch: TokenBatch, *, leave_one_out: bool = False) -> Array:
    r"""``G_it - B_t``, ``[B, T]``, with the optimal token baseline ``B_t = sum_i W_it G_it / sum_i W_it``.

    ``G``: rewards to go; ``W_it = sum_{j <= t} (1 - 2 pi_ij + sum_a pi(a|s_ij)^2)``, the squared norm of the score so
    far in the logits. t counts a response's own tokens (so neither padding nor holes shift it); the sums run over the
    responses of the group that have a t-th token, and ``B_t = 0`` where there is only one. ``leave_one_out`` takes
    the others' sums, which makes the baseline independent of the response.

    Needs ``vocab_log_probs``; ``old_vocab_log_probs``, where the batch has them, go with ``old_log_probs``.
    """
    xp = batch.xp
    (vocab,) = batch.need("vocab_log_probs")
    if batch.old_vocab_log_probs is not None:
        vocab = batch.old_vocab_log_probs
    square = xp.sum(xp.exp(2 * detach(vocab)), axis=-1)
    norm = 1 - 2 * xp.exp(detach(batch.old)) + square
    gain = returns(batch.token_rewards(), batch, 1.0)
    order = xp.argsort(xp.astype(~batch.mask, xp.int64), axis=-1)
    alive = _to_front(batch, batch.weights, order)
    weight = xp.cumulative_sum(_to_front(batch, norm * batch.weights, order), axis=-1) * alive
    gain = _to_front(batch, gain, order) * alive
    same = xp.astype(_members(batch.groups()), gain.dtype)
    if _validate.flag("leave_one_out", leave_one_out):
        same = same * (1 - xp.eye(same.shape[0], dtype=same.dtype, device=same.device))
    top, bottom = xp.matmul(same, weight * gain), xp.matmul(same, weight)
    others = xp.matmul(same, alive) - (0.0 if leave_one_out else alive)
    usable = (others > 0) & (bottom > 0)
    baseline = xp.where(usable, top / xp.where(usable, bottom, xp.ones_like(bottom)), xp.zeros_like(top))
    return _to_front(batch, (gain - baseline) * alive, xp.argsort(order, axis=-1))


@takes_batch
def optimal_token_baseline(
    batch: TokenBatch,
    *,
    leave_one_out: bool = False,
    clip: Clip = (math.inf, math.inf),
    aggregate: Aggregate = sequence_sum,
) -> Loss:
    r"""The token surrogate with `optimal_token_advantages`.

    On-policy, summed: ``-grad E[r]`` with ``leave_one_out``; without it (the paper, verl) the baseline contains the
    response itself, weighted by its own score norms, and there is no population objective.

    Source: Li et al. (2026), arXiv:2602.07078.
    """
    advantage = batch.advantages
    if advantage is None:
        advantage = optimal_token_advantages(batch, leave_one_out=leave_one_out)
    return surrogate(batch, advantage, clip=clip, aggregate=aggregate)


@takes_batch
def whitened(values: Array, batch: TokenBatch, *, std: Literal["population", "sample"] = "sample") -> Array:
    """``(v - mean)/std`` over the tokens of the batch, ``[B, T]``; 0 if the spread is rounding, and outside the mask.

    ``"sample"`` divides the squares by N - 1 (OpenRLHF, verl, TRL).

    Raises:
        ValueError: a sample std of one token.
    """
    _validate.one_of("std", std, ("population", "sample"))
    xp, values = batch.xp, of_batch("values", values, batch)
    _validate.finite("values", xp, values)
    if values.ndim == 1:
        values = values[:, None]
    count = xp.sum(batch.weights)
    if std == "sample" and count < 2:
        _validate.fail("mask", "a sample standard deviation needs two tokens, the batch has 1")
    mean = token_mean(values, batch.mask)
    centred = (values - mean) * batch.weights
    spread = xp.sqrt(xp.sum(centred * centred) / (count - 1 if std == "sample" else count))
    flat = spread <= 16 * xp.finfo(values.dtype).eps * xp.max(xp.abs(values * batch.weights))
    return xp.where(flat, xp.zeros_like(centred), centred / xp.where(flat, xp.ones_like(spread), spread))


@takes_batch
def reinforce_pp_token_advantages(
    batch: TokenBatch, *, beta: float = 0.0, discount: float = 1.0, std: Literal["population", "sample"] = "sample"
) -> Array:
    r"""Whitened returns of the token rewards ``r_t - beta log(old/ref)``, ``[B, T]`` (REINFORCE++).

    The mean and std are over tokens: long responses weigh more than in `klsim.objectives.reinforce_pp`, and with
    ``beta = 0``, ``discount = 1`` the two agree for equal lengths up to the divisor of the std.
    """
    beta = _validate.real("beta", beta, low=0.0)
    reward = batch.token_rewards()
    if beta:
        log_ratio(batch, "ref")  # says what is missing
        reward = reward - beta * detach(batch.old - batch.ref_log_probs) * batch.weights
    return whitened(returns(reward, batch, discount), batch, std=std)


@takes_batch
def reinforce_pp_token(
    batch: TokenBatch,
    *,
    beta: float = 0.0,
    discount: float = 1.0,
    std: Literal["population", "sample"] = "sample",
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = token_mean,
) -> Loss:
    r"""The clipped token surrogate with `reinforce_pp_token_advantages`: k1 in the reward, one whitening of the batch.

    No population objective: the batch's mean and std contain the response itself.

    Source: Hu (2025), arXiv:2501.03262; token form as in OpenRLHF and verl.
    """
    advantage = batch.advantages
    if advantage is None:
        advantage = reinforce_pp_token_advantages(batch, beta=beta, discount=discount, std=std)
    return surrogate(batch, advantage, clip=clip, aggregate=aggregate)
