r"""Policy-gradient losses: REINFORCE, RLOO, GRPO, Dr.GRPO, DAPO, GSPO, REINFORCE++, Lite PPO, CISPO.

Each is one choice of advantage estimator, importance ratio, clip and aggregation around `surrogate`. All
losses are to be minimised; "gradient" below is that of the loss in expectation over on-policy batches
(``old_log_probs`` None or equal to the policy), for i.i.d. responses, ``p = E[r]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach
from klsim.objectives.advantages import (
    advantages,
    batch_mean,
    batch_std,
    group_mean,
    group_sample_std,
    group_std,
    leave_one_out_mean,
    no_baseline,
)
from klsim.objectives.aggregate import Aggregate, fixed_length, sequence_mean, sequence_sum, token_mean
from klsim.objectives.batch import Loss, TokenBatch, of_batch, takes_batch

__all__ = [
    "Clip",
    "Ratio",
    "cispo",
    "clip_bounds",
    "dapo",
    "dr_grpo",
    "estimated",
    "geometric_mean_ratio",
    "grpo",
    "gspo",
    "lite_ppo",
    "overlong_penalty",
    "per_token",
    "reinforce",
    "reinforce_pp",
    "rloo",
    "sequence_ratio",
    "surrogate",
    "token_ratio",
]

Array = Any
Ratio = Callable[[TokenBatch], Array]
"""A batch to the importance ratios of its tokens, ``[B, T]``."""
Clip = tuple[float, float]
"""``(low, high)``: the ratio is kept in ``[1 - low, 1 + high]``; ``inf`` leaves a side open."""


@takes_batch
def token_ratio(batch: TokenBatch) -> Array:
    """``log pi(y_t|.) - log old(y_t|.)`` of every token, ``[B, T]``."""
    return batch.log_probs - batch.old


@takes_batch
def sequence_ratio(batch: TokenBatch) -> Array:
    """``log pi(y) - log old(y)``, the same for all tokens of a response, ``[B, 1]``: exact off-policy."""
    return batch.xp.sum(token_ratio(batch) * batch.weights, axis=-1, keepdims=True)


@takes_batch
def geometric_mean_ratio(batch: TokenBatch) -> Array:
    """``(log pi(y) - log old(y)) / |y|``, the same for all tokens of a response, ``[B, 1]`` (GSPO)."""
    return sequence_ratio(batch) / batch.xp.sum(batch.weights, axis=-1, keepdims=True)


@takes_batch
def per_token(batch: TokenBatch, values: Array) -> Array:
    """``[B]`` or ``[B, 1]`` values given to every token, ``[B, T]``; ``[B, T]`` unchanged."""
    values = of_batch("values", values, batch)
    values = values[:, None] if values.ndim == 1 else values
    return batch.xp.broadcast_to(values, batch.log_probs.shape)


def clip_bounds(clip: Clip) -> tuple[float, float]:
    """``(max(1 - low, 0), 1 + high)``."""
    ends = _validate.sequence("clip", clip)
    if len(ends) != 2:
        _validate.fail("clip", f"must be (low, high), got {len(ends)} entries")
    low = _validate.real("clip[0]", ends[0], low=0.0)
    return max(1.0 - low, 0.0), 1.0 + _validate.real("clip[1]", ends[1], low=0.0)


@takes_batch
def surrogate(
    batch: TokenBatch,
    advantage: Array,
    *,
    ratio: Ratio = token_ratio,
    clip: Clip = (math.inf, math.inf),
    aggregate: Aggregate = sequence_mean,
    weight: Array | None = None,
) -> Loss:
    r"""``-aggregate[ w min(rho A, clip(rho, 1 - low, 1 + high) A) ]``, ``rho = exp(ratio)``.

    Args:
        advantage: ``[B]`` or ``[B, T]``, a constant.
        ratio: log importance ratio. clip: of ``exp(ratio)``. aggregate: over tokens and responses.
        weight: w, ``[B]`` or ``[B, T]``, a constant; None is 1.

    Returns:
        The loss; metrics ``clip_fraction``, ``mean_ratio``, ``old_kl`` (k3 estimate of KL(old‖pi)).
    """
    xp = batch.xp
    low, high = clip_bounds(clip)
    advantage = per_token(batch, of_batch("advantage", detach(advantage), batch))
    log_rho = per_token(batch, ratio(batch))
    rho = xp.exp(log_rho)
    clipped = xp.minimum(xp.maximum(rho, xp.full_like(rho, low)), xp.full_like(rho, high))
    value = xp.minimum(rho * advantage, clipped * advantage)
    if weight is not None:
        value = per_token(batch, detach(weight)) * value
    active = detach(xp.astype(clipped * advantage < rho * advantage, rho.dtype))
    drift = detach(token_ratio(batch))
    metrics = {
        "clip_fraction": token_mean(active, batch.mask),
        "mean_ratio": detach(token_mean(rho, batch.mask)),
        "old_kl": token_mean(xp.expm1(drift) - drift, batch.mask),
    }
    return -aggregate(value, batch.mask), metrics


@takes_batch
def estimated(batch: TokenBatch, **options: Any) -> Array:
    """The batch's advantages, or those that the estimator makes of its rewards."""
    if batch.advantages is not None:
        return batch.advantages
    return advantages(batch.total_rewards(), batch.groups(), **options)


@takes_batch
def reinforce(batch: TokenBatch, *, ratio: Ratio = sequence_ratio, aggregate: Aggregate = sequence_sum) -> Loss:
    r"""``-E[rho r]`` without baseline; its gradient is ``-grad E_pi[r]``.

    With the sequence ratio ``rho = pi(y)/old(y)`` also off-policy. ``rho`` is the same for every token of a
    response, so the sum over tokens must not multiply it: it is averaged over the tokens of a response. With
    ``ratio=token_ratio`` the terms ``rho_t r`` are aggregated by ``aggregate``: right on-policy only.

    Source: Williams (1992).
    """
    if ratio is sequence_ratio:
        aggregate = sequence_mean
    return surrogate(batch, estimated(batch, baseline=no_baseline), ratio=ratio, aggregate=aggregate)


@takes_batch
def rloo(batch: TokenBatch, *, ratio: Ratio = sequence_ratio, clip: Clip = (math.inf, math.inf)) -> Loss:
    """`reinforce` with the mean of the other responses as baseline; its gradient is ``-grad E_pi[r]``.

    The baseline is independent of the response it is subtracted from, so this holds off-policy as well.

    Source: Kool et al. (2019); Ahmadian et al. (2024).
    """
    aggregate = sequence_sum if ratio is token_ratio else sequence_mean
    advantage = estimated(batch, baseline=leave_one_out_mean)
    return surrogate(batch, advantage, ratio=ratio, clip=clip, aggregate=aggregate)


@takes_batch
def grpo(
    batch: TokenBatch,
    *,
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = sequence_mean,
    epsilon: float = 0.0,
    std: Literal["population", "sample"] = "population",
) -> Loss:
    r"""Group-normalised advantages, token ratios, mean over each response's tokens.

    Binary rewards: the gradient is ``-w(p) grad E[(r - p)/|y|]`` with ``p`` held fixed and ``w`` =
    `klsim.objectives.std_weight`: responses are weighted by 1/length, prompts by ``w(p)``. Other rewards: no
    population objective (the std of the group is a ratio estimator). The ``"sample"`` std (divisor G - 1, as in TRL and
    verl) multiplies the gradient by ``sqrt((G-1)/G)``.

    Source: Shao et al. (2024), DeepSeekMath; bias: ``tricks-or-traps`` C2, C5.
    """
    _validate.one_of("std", std, ("population", "sample"))
    scale = group_std if std == "population" else group_sample_std
    advantage = estimated(batch, baseline=group_mean, scale=scale, epsilon=epsilon)
    return surrogate(batch, advantage, clip=clip, aggregate=aggregate)


@takes_batch
def dr_grpo(batch: TokenBatch, *, max_length: float | None = None, clip: Clip = (0.2, 0.2)) -> Loss:
    r"""`grpo` without the two normalisations: no std, tokens divided by the constant ``max_length`` (default T).

    The gradient is ``-(G-1)/G grad E[r] / max_length``.

    Source: Liu et al. (2025), Understanding R1-Zero-like training.
    """
    length = batch.log_probs.shape[-1]
    if max_length is not None:
        length = _validate.real("max_length", max_length, low=0.0, open_low=True)
    return surrogate(batch, estimated(batch, baseline=group_mean), clip=clip, aggregate=fixed_length(length))


@takes_batch
def dapo(
    batch: TokenBatch,
    *,
    clip: Clip = (0.2, 0.28),
    dynamic_sampling: bool = True,
    lengths_cap: tuple[int, int] | None = None,
    epsilon: float = 0.0,
) -> Loss:
    r"""Clip-higher, token mean, groups without contrast dropped, optional soft overlong penalty.

    Dropping a group removes its tokens from the token mean (in training it would be replaced by a fresh one).
    Equal lengths, binary rewards, one group a batch: the gradient is ``-w(p) grad p / T``. In general
    the token mean is a ratio estimator: ``-w grad E[r]/E|y|`` as the batch grows, biased O(1/batch).

    Args:
        lengths_cap: ``(max_length, buffer)`` of `overlong_penalty`, added to the rewards.

    Source: Yu et al. (2025); ``tricks-or-traps`` C5-C7.
    """
    xp = batch.xp
    if lengths_cap is not None:
        cap = [_validate.integer("lengths_cap", x, low=1) for x in _validate.sequence("lengths_cap", lengths_cap)]
        if len(cap) != 2 or cap[1] > cap[0]:
            _validate.fail("lengths_cap", f"must be (max_length, buffer) with buffer <= max_length, got {cap}")
    if batch.advantages is None and lengths_cap is not None:
        rewards = batch.total_rewards() + overlong_penalty(xp.sum(batch.weights, axis=-1), *lengths_cap)
        batch = batch.replace(rewards=rewards)
    advantage = estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)
    if not _validate.flag("dynamic_sampling", dynamic_sampling):
        return surrogate(batch, advantage, clip=clip, aggregate=token_mean)
    member = batch.groups()[:, None] == batch.groups()[None, :]
    contrast = xp.any((per_token(batch, advantage) != 0) & batch.mask, axis=-1)
    kept = xp.any(member & contrast[None, :], axis=-1)

    def over_kept_groups(values: Array, mask: Array) -> Array:
        mask = mask & kept[:, None]
        total = xp.sum(xp.astype(mask, values.dtype))
        return xp.sum(xp.where(mask, values, xp.zeros_like(values))) / xp.where(total > 0, total, xp.ones_like(total))

    loss, metrics = surrogate(batch, advantage, clip=clip, aggregate=over_kept_groups)
    return loss, metrics | {"kept_fraction": xp.mean(xp.astype(kept, loss.dtype))}


def overlong_penalty(lengths: Array, max_length: int, buffer: int) -> Array:
    """0 up to ``max_length - buffer`` tokens, then falling linearly to -1 at ``max_length`` (DAPO).

    Raises:
        ValueError: ``buffer`` outside ``1..max_length``.
    """
    max_length = _validate.integer("max_length", max_length, low=1)
    buffer = _validate.integer("buffer", buffer, low=1, high=max_length)
    xp, lengths = _validate.arrays(lengths=lengths)
    _validate.budgets("lengths", xp, lengths)
    over = (lengths - (max_length - buffer)) / buffer
    return -xp.minimum(xp.maximum(over, xp.zeros_like(over)), xp.ones_like(over))


@takes_batch
def gspo(batch: TokenBatch, *, clip: Clip = (3e-4, 4e-4), epsilon: float = 0.0) -> Loss:
    r"""`grpo` with one ratio a response, ``(pi(y)/old(y))^{1/|y|}``, clipped as a whole.

    On-policy it has the gradient of `grpo`; off-policy the geometric mean is not an importance weight.

    Source: Zheng et al. (2025).
    """
    advantage = estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)
    return surrogate(batch, advantage, ratio=geometric_mean_ratio, clip=clip, aggregate=sequence_mean)


@takes_batch
def reinforce_pp(
    batch: TokenBatch, *, group_baseline: bool = False, clip: Clip = (0.2, 0.2), epsilon: float = 0.0
) -> Loss:
    r"""Batch-normalised advantages, token mean. ``group_baseline``: first the group mean, then the batch's std.

    The batch's std divides all prompts by the same number, so prompts keep their weight, up to O(1/batch).

    Source: Hu (2025); the group form as in ProRLv2 (``brorl``).
    """
    advantage = batch.advantages
    if advantage is None:
        rewards, group = batch.total_rewards(), batch.groups()
        if _validate.flag("group_baseline", group_baseline):
            rewards = advantages(rewards, group, baseline=group_mean)
        advantage = advantages(rewards, group, baseline=batch_mean, scale=batch_std, epsilon=epsilon)
    return surrogate(batch, advantage, clip=clip, aggregate=token_mean)


@takes_batch
def lite_ppo(batch: TokenBatch, *, clip: Clip = (0.2, 0.2), epsilon: float = 0.0) -> Loss:
    r"""Group mean, std of the batch's raw rewards, token mean; no KL, no critic.

    Between-prompt spread enters the std, one common factor for all prompts.

    Source: ``tricks-or-traps``, Algorithm.
    """
    advantage = estimated(batch, baseline=group_mean, scale=batch_std, epsilon=epsilon)
    return surrogate(batch, advantage, clip=clip, aggregate=token_mean)


@takes_batch
def cispo(batch: TokenBatch, *, clip: Clip = (math.inf, 0.28), epsilon: float = 0.0) -> Loss:
    r"""``-token_mean[ sg(clip(rho)) A log pi ]``: the clipped ratio is a weight, no token loses its gradient.

    On-policy it has the gradient of `dapo` without dynamic sampling. That is not the gradient of the loss's own
    expected value: the weight is held fixed, and so are the draws (the value is ``-E[rho A log pi]``, whose
    derivative has the score function's term as well). What the loss ascends is entirely its stop-gradient.

    Source: MiniMax-M1 (2025).
    """
    xp = batch.xp
    low, high = clip_bounds(clip)
    advantage = per_token(batch, estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon))
    rho = detach(xp.exp(token_ratio(batch)))
    weight = xp.minimum(xp.maximum(rho, xp.full_like(rho, low)), xp.full_like(rho, high))
    outside = xp.astype(weight != rho, rho.dtype)
    loss = -token_mean(weight * advantage * batch.log_probs, batch.mask)
    return loss, {"clip_fraction": token_mean(outside, batch.mask), "mean_ratio": token_mean(rho, batch.mask)}
