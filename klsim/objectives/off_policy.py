r"""Losses that use other people's data, or choose their own: mixed policies, prefixes, filters, reweighting, ROVER."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace

from klsim import _validate
from klsim._sums import detach
from klsim.objectives.advantages import advantages, group_mean, group_std, no_scale
from klsim.objectives.aggregate import Aggregate, sequence_mean, sequence_sum
from klsim.objectives.batch import Loss, TokenBatch, of_batch, takes_batch
from klsim.objectives.kl import divergence
from klsim.objectives.policy_gradient import Clip, estimated, grpo, per_token, surrogate, token_ratio

__all__ = [
    "after_prefix",
    "difficulty_filtering",
    "keep_by_success",
    "mis_ratio",
    "prefix_rl",
    "recap_weights",
    "rl_plus",
    "rover",
    "self_objective",
]

Array = Any


@takes_batch
def mis_ratio(batch: TokenBatch, vocab_size: int, *, uniform: Literal["1/V", "1"] = "1/V") -> Array:
    r"""Multiple importance sampling ratio ``2 pi/(omega + old)``, ``omega = (old + U)/2`` an estimate of the unknown
    author: ``4 pi / (3 old + U)``, ``[B, T]``.

    ``U = 1/V`` in the text; the released code has ``U = 1``, which gives rare tokens almost no weight.

    Source: ``rl-plus`` C4, C5.
    """
    vocab_size = _validate.integer("vocab_size", vocab_size, low=1)
    _validate.one_of("uniform", uniform, ("1/V", "1"))
    xp = batch.xp
    share = 1.0 / vocab_size if uniform == "1/V" else 1.0
    return 4 * xp.exp(batch.log_probs) / (3 * xp.exp(batch.old) + share)


@takes_batch
def rl_plus(
    batch: TokenBatch,
    *,
    vocab_size: int,
    gamma: float = 0.5,
    uniform: Literal["1/V", "1"] = "1/V",
    std: bool = False,
    aggregate: Aggregate = sequence_mean,
) -> Loss:
    r"""``rho A`` on the student's tokens and ``r^m A (1 - sg[pi])^gamma`` on external ones, nothing clipped.

    The group's advantage includes the external responses. Biased: external samples alone do not make the
    multiple-importance ratio unbiased; the expected gradient of their part is
    ``-sum_s E_omega[r^m A (1 - pi)^gamma grad log pi]``.

    Args:
        vocab_size, uniform: of `mis_ratio`. std: divide by the group's std (the text; the code does not).

    Source: ``rl-plus`` C1, C5, Algorithm.
    """
    gamma = _validate.real("gamma", gamma, low=0.0)
    (external,) = batch.need("external")
    xp = batch.xp
    scale = group_std if _validate.flag("std", std) else no_scale
    advantage = per_token(batch, detach(estimated(batch, baseline=group_mean, scale=scale)))
    unsure = -xp.expm1(detach(batch.log_probs))
    explored = advantage * (unsure**gamma if gamma else xp.ones_like(unsure))
    own = xp.exp(token_ratio(batch)) * advantage
    other = mis_ratio(batch, vocab_size, uniform=uniform) * explored
    loss = -aggregate(xp.where(external[:, None], other, own), batch.mask)
    return loss, {"external_fraction": xp.mean(xp.astype(external, loss.dtype))}


@takes_batch
def after_prefix(batch: TokenBatch, prefix: Array) -> TokenBatch:
    """The batch with the first ``prefix[i]`` tokens of response i masked: context, not actions.

    Raises:
        ValueError: negative, or nothing is left of a response.
    """
    xp = batch.xp
    prefix = of_batch("prefix", prefix, batch)
    if prefix.ndim != 1:
        _validate.fail("prefix", f"needs shape [{batch.log_probs.shape[0]}], got {list(prefix.shape)}")
    index = _validate.first_true(xp, ~(prefix >= 0) | (prefix != xp.floor(prefix)))
    if index is not None:
        _validate.fail("prefix", "must be a whole number >= 0", float(prefix[index]), index)
    index = _validate.first_true(xp, xp.sum(batch.weights, axis=-1) <= prefix)
    if index is not None:
        _validate.fail("prefix", "leaves no token of this response", float(prefix[index]), index)
    place = xp.cumulative_sum(xp.astype(batch.mask, xp.int64), axis=-1) - 1
    return batch.replace(mask=batch.mask & (place >= prefix[:, None]))


@takes_batch
def prefix_rl(batch: TokenBatch, prefix: Array, *, clip: Clip = (math.inf, math.inf)) -> Loss:
    r"""REINFORCE with the group mean on the completions of given prefixes, prefix tokens masked, summed over tokens.

    One prefix a group: the gradient is ``-(G-1)/G grad E_{pi(.|prefix)}[r]``, the prefix a constant.

    Source: ``prefixrl`` C1, C8, Algorithm.
    """
    batch = after_prefix(batch, prefix)
    return surrogate(batch, estimated(batch, baseline=group_mean), clip=clip, aggregate=sequence_sum)


def keep_by_success(rewards: Array, group: Array, *, low: float = 0.3, high: float = 0.7) -> Array:
    """Responses whose group's mean reward lies in ``[low, high]``, ``[B]`` boolean.

    Raises:
        ValueError: ``low > high``.
    """
    low = _validate.real("low", low)
    high = _validate.real("high", high, low=low)
    success = group_mean(rewards, group)
    return (success >= low - 1e-12) & (success <= high + 1e-12)


@takes_batch
def difficulty_filtering(
    batch: TokenBatch, *, low: float = 0.3, high: float = 0.7, clip: Clip = (0.2, 0.2), epsilon: float = 0.0
) -> Loss:
    r"""`grpo` on the groups whose success rate lies in ``[low, high]``; the others leave the mean.

    Binary rewards, equal lengths, one group: the gradient is
    ``-grad p / (p (1-p)) E[sqrt(c(G-c))/G 1{low <= c/G <= high}] / T``. A batch without such a group has loss 0.

    Source: ``difficulty-filtering``, Algorithm.
    """
    kept = keep_by_success(batch.total_rewards(), batch.groups(), low=low, high=high)
    loss, metrics = grpo(batch, clip=clip, aggregate=_mean_over(kept), epsilon=epsilon)
    return loss, metrics | {"kept_fraction": batch.xp.mean(batch.xp.astype(kept, loss.dtype))}


def _mean_over(kept: Array) -> Aggregate:
    """`sequence_mean` over the kept responses; 0 if there is none."""

    def aggregate(values: Array, mask: Array) -> Array:
        xp = array_namespace(values)
        share = xp.mean(xp.astype(kept, values.dtype))
        total = sequence_mean(xp.where(kept[:, None], values, xp.zeros_like(values)), mask)
        return total / xp.where(share > 0, share, xp.ones_like(share))

    return aggregate


@takes_batch
def self_objective(
    batch: TokenBatch, greedy_wrong: Array, *, beta: float = 0.1, clip: Clip = (0.2, 0.2), epsilon: float = 0.0
) -> Loss:
    r"""SELF: `grpo` and ``beta`` times the exact forward KL to the reference, on prompts whose greedy answer is wrong.

    On-policy the KL part is ``beta grad sum_s d(s) KL(ref(.|s)‖pi(.|s))``, averaged over each response's tokens.

    Args:
        greedy_wrong: ``[B]`` boolean, the same within a group.

    Source: ``reasoning-boundary``, Algorithm (the released scripts have the filter without the KL).
    """
    beta = _validate.real("beta", beta, low=0.0)
    xp = batch.xp
    wrong = of_batch("greedy_wrong", greedy_wrong, batch)
    if wrong.ndim != 1:
        _validate.fail("greedy_wrong", f"needs shape [{batch.log_probs.shape[0]}], got {list(wrong.shape)}")
    kept = wrong != 0
    member = batch.groups()[:, None] == batch.groups()[None, :]
    index = _validate.first_true(xp, xp.any(member & (kept[:, None] != kept[None, :]), axis=-1))
    if index is not None:
        _validate.fail("greedy_wrong", "must be the same for all responses of a group", index=index)
    loss, metrics = grpo(batch, clip=clip, aggregate=_mean_over(kept), epsilon=epsilon)
    metrics = metrics | {"kept_fraction": xp.mean(xp.astype(kept, loss.dtype))}
    if beta == 0:
        return loss, metrics
    penalty, _ = divergence(batch, generator="forward_kl", aggregate=_mean_over(kept))
    return loss + beta * penalty, metrics | {"forward_kl": detach(penalty)}


@takes_batch
def rover(
    batch: TokenBatch, *, rho: float = 1.0, next_value: bool = True, aggregate: Aggregate = sequence_mean
) -> Loss:
    r"""ROVER: ``aggregate[(Q_t - r~ - Q'_t)^2]``, ``Q_t = rho log(pi/old)(y_t)``, ``r~ = r - mean`` of the group.

    ``Q'_t`` is the mean over the vocabulary of ``rho log(pi/old)(.|s_{t+1})``, a constant, 0 after the last token.
    At ``pi = old`` the gradient is ``-2 rho`` times that of the mean-baseline policy gradient (summed over tokens:
    ``-2 rho (G-1)/G grad E[r]``); without ``Q'`` a full regression is a KL mirror step to third order in 1/rho.

    ``next_value`` needs ``vocab_log_probs``; ``old_vocab_log_probs`` default to the policy (on-policy).

    Source: ``rover`` C6, C7, Algorithm.
    """
    rho = _validate.real("rho", rho, low=0.0, open_low=True)
    xp = batch.xp
    target = per_token(batch, advantages(batch.total_rewards(), batch.groups(), baseline=group_mean))
    if _validate.flag("next_value", next_value):
        (pi,) = batch.need("vocab_log_probs")
        old = detach(pi) if batch.old_vocab_log_probs is None else batch.old_vocab_log_probs
        gap = xp.where(xp.isinf(pi) & xp.isinf(old), xp.zeros_like(pi), detach(pi) - old)
        ahead = rho * xp.mean(gap, axis=-1)[:, 1:] * batch.weights[:, 1:]
        target = target + xp.concat([ahead, xp.zeros_like(target[:, :1])], axis=1)
    value = rho * token_ratio(batch)
    error = value - target
    return aggregate(error * error, batch.mask), {"value_error": detach(sequence_mean(xp.abs(error), batch.mask))}


def recap_weights(history: Any, *, window: int, temperature: float = 5.0, floor: float = 1e-3) -> np.ndarray:
    r"""RECAP's weights of K objectives: ``K softmax((c + i)/temperature)``, from the last ``2 window`` values of each.

    ``c = mu / mu~`` (new mean over old mean), ``i = sigma / (mu + mu~)``. Before ``2 window`` values are recorded all
    weights are 1. The weights multiply the objectives' losses as constants.

    Args:
        history: ``(K, steps)``, newest last, non-negative (losses, or rewards), at most 1e100: their squares do not
            overflow. floor: under both means.

    Raises:
        ValueError: a negative or non-finite value, or a wrong shape.

    Source: ``recap`` Eq. 1, C3 (losses or rewards: the paper leaves it open, and the sign of the effect with it).
    """
    window = _validate.integer("window", window, low=1)
    temperature = _validate.real("temperature", temperature, low=0.0, open_low=True)
    floor = _validate.real("floor", floor, low=0.0)
    (values,) = _validate.numpy_arrays(history=history)
    if values.ndim != 2 or values.shape[0] == 0:
        _validate.fail("history", f"needs shape (K, steps), got {values.shape}")
    _validate.budgets("history", np, _validate.finite("history", np, values))
    if values.size and values.max() > 1e100:
        _validate.fail("history", "must be at most 1e100", float(values.max()))
    if values.shape[1] < 2 * window:
        return np.ones(values.shape[0])
    new, old = values[:, -window:], values[:, -2 * window : -window]
    mu, before = (np.maximum(x.mean(axis=1), floor) for x in (new, old))
    index = _validate.first_true(np, (mu == 0) | (before == 0))
    if index is not None:
        _validate.fail("history", "a window of zeros needs a floor > 0", index=index)
    score = (mu / before + new.std(axis=1) / (mu + before)) / temperature
    weight = np.exp(score - score.max())
    return np.asarray(len(weight) * weight / weight.sum())
