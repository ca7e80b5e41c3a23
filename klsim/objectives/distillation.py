r"""Distillation on the student's own tokens: OPD, G-OPD/ExOPD, GKD, KDRL, TRRD, and the vocabulary baselines.

T is the teacher, q the reference; "gradient" is that of the loss in expectation over on-policy batches,
``d(s)`` the visits of the prefix s, held fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach, supported
from klsim.divergences import GENERATORS, divergence_of
from klsim.objectives.advantages import group_mean, group_std
from klsim.objectives.aggregate import Aggregate, sequence_mean, sequence_sum, token_mean
from klsim.objectives.batch import Loss, TokenBatch, of_batch, takes_batch
from klsim.objectives.kl import log_ratio
from klsim.objectives.policy_gradient import Clip, estimated, per_token, surrogate

__all__ = [
    "g_opd",
    "g_opd_full",
    "g_opd_token_reward",
    "gkd",
    "hard_cross_entropy",
    "kdrl",
    "opd",
    "product_of_teachers",
    "returns",
    "sft",
    "teacher_of_domain",
    "trrd",
    "trrd_log_ratio",
    "vla_opd",
]

Array = Any


@takes_batch
def sft(batch: TokenBatch, *, aggregate: Aggregate = token_mean) -> Loss:
    """``-aggregate[log pi(y_t)]``. On tokens of q, summed, its gradient is ``grad KL(q‖pi)`` of sequences."""
    loss = aggregate(-batch.log_probs, batch.mask)
    return loss, {"nll": detach(loss)}


@takes_batch
def returns(values: Array, batch: TokenBatch, discount: float) -> Array:
    """Credit of a token for per-token ``values``: ``sum_{t' >= t} discount^(t'-t) v_t'``, ``[B, T]``.

    ``discount`` 0 credits a token with its own value, 1 with all that follows.

    Raises:
        ValueError: values that are not finite, or of a shape that is not the batch's.
    """
    discount = _validate.real("discount", discount, low=0.0, high=1.0)
    xp = batch.xp
    values = _validate.finite("values", xp, of_batch("values", values, batch))
    values = per_token(batch, values) * batch.weights
    if discount == 0:
        return values
    credit = [values[:, -1]]
    for t in range(values.shape[1] - 2, -1, -1):
        credit.append(values[:, t] + discount * credit[-1])
    return xp.stack(credit[::-1], axis=1)


def _lam(lam: float) -> float:
    return _validate.real("lam", lam, low=-1e100, high=1e100)


@takes_batch
def g_opd_token_reward(batch: TokenBatch, lam: float) -> Array:
    """``lam log(T/q) - log(pi/q)`` of the sampled tokens, a constant ``[B, T]``; ``lam = 1`` needs no reference.

    ``lam`` is at most 1e100 in size: a larger one leaves nothing of ``log(pi/q)``, and overflows.
    """
    lam = _lam(lam)
    (teacher,) = batch.need("teacher_log_probs")
    if lam == 1:
        return detach(teacher - batch.log_probs)
    (ref,) = batch.need("ref_log_probs")
    return detach(lam * (teacher - ref) - (batch.log_probs - ref))


@takes_batch
def g_opd(
    batch: TokenBatch,
    *,
    lam: float = 1.25,
    discount: float = 0.0,
    clip: Clip = (0.2, 0.2),
    aggregate: Aggregate = token_mean,
) -> Loss:
    r"""Policy gradient with the token reward ``lam log(T/q) - log(pi/q)``: no baseline, no normalisation.

    * ``discount=0`` (the paper): gradient of ``sum_s d(s) [lam KL(pi‖T) + (1 - lam) KL(pi‖q)]``; fixed point
      ``q^{1-lam} T^lam / z(s)`` at every prefix.
    * ``discount=1``: gradient of the same for whole sequences; fixed point ``q^{1-lam} T^lam / Z``.

    (Summed over tokens; a token mean divides by the number of tokens.) ``lam = 1`` is OPD, ``lam > 1``
    extrapolates past the teacher. Reward correction: give the teacher's own base as ``ref_log_probs``. Several
    teachers: `teacher_of_domain`, `product_of_teachers`.

    Source: ``gopd`` C3, C4 (Eq. 14 with its sign corrected), Algorithm.
    """
    reward = g_opd_token_reward(batch, lam)
    loss, metrics = surrogate(batch, returns(reward, batch, discount), clip=clip, aggregate=aggregate)
    return loss, metrics | {"token_reward": token_mean(reward, batch.mask)}


@takes_batch
def opd(batch: TokenBatch, *, discount: float = 0.0, aggregate: Aggregate = token_mean) -> Loss:
    """On-policy distillation: `g_opd` at ``lam = 1``, whose gradient is that of ``KL(pi‖T)`` per token or sequence."""
    return g_opd(batch, lam=1.0, discount=discount, aggregate=aggregate)


@takes_batch
def g_opd_full(batch: TokenBatch, *, lam: float = 1.25, aggregate: Aggregate = token_mean) -> Loss:
    r"""``aggregate[sum_a pi(a) (log pi - lam log T - (1 - lam) log q)]``: `g_opd` at discount 0 without sampling noise.

    It is ``KL(pi‖q^{1-lam} T^lam / z) - log z`` at every visited prefix. Tokens that T (or q, for
    ``lam < 1``) excludes must have no mass under the policy.
    """
    lam = _lam(lam)
    xp = batch.xp
    pi, teacher = batch.need("vocab_log_probs", "teacher_vocab_log_probs")
    target = lam * supported(xp, detach(teacher))
    if lam != 1:
        (ref,) = batch.need("ref_vocab_log_probs")
        target = target + (1 - lam) * supported(xp, detach(ref))
    excluded = xp.isinf(teacher) if lam == 1 else xp.isinf(teacher) | xp.isinf(batch.ref_vocab_log_probs)
    index = _validate.first_true(xp, excluded & ~xp.isinf(pi) & batch.mask[..., None])
    if index is not None:
        _validate.fail(
            "teacher_vocab_log_probs", "the policy has mass where the teacher or reference has none", index=index
        )
    value = xp.sum(xp.exp(pi) * (supported(xp, pi) - target), axis=-1)
    loss = aggregate(value, batch.mask)
    return loss, {"objective": detach(loss)}


def teacher_of_domain(teachers: Sequence[Array], domain: Array) -> Array:
    """The log-probabilities of response i under its own teacher ``domain[i]``: ``[B, T]`` (or ``[B, T, V]``).

    Raises:
        ValueError: no teacher, or a domain without one.
    """
    teachers = _validate.sequence("teachers", teachers)
    if not teachers:
        _validate.fail("teachers", "needs at least one")
    xp, *stack = _validate.arrays(**{f"teachers[{i}]": t for i, t in enumerate(teachers)})
    out = stack[0]
    if any(tuple(t.shape) != tuple(out.shape) for t in stack) or out.ndim < 2:
        _validate.fail("teachers", f"must have one shape [B, T] or [B, T, V], got {[list(t.shape) for t in stack]}")
    _, _, number = _validate.arrays(teachers=out, domain=domain)
    if tuple(number.shape) != (out.shape[0],) or bool(xp.any(number != xp.floor(number))):
        _validate.fail("domain", f"must be {out.shape[0]} integers, one a response")
    domain = number
    index = _validate.first_true(xp, (domain < 0) | (domain >= len(stack)))
    if index is not None:
        _validate.fail("domain", f"must be 0 … {len(stack) - 1}", int(domain[index]), index)
    for i, teacher in enumerate(stack[1:], start=1):
        chosen = xp.reshape(domain == i, (-1,) + (1,) * (teacher.ndim - 1))
        out = xp.where(chosen, teacher, out)
    return out


def product_of_teachers(ref: Array, teachers: Sequence[Array], weights: Sequence[float]) -> Array:
    r"""``log q + sum_i w_i (log T_i - log q)``: the summed rewards of several teachers as one (unnormalised) teacher.

    `g_opd` with ``lam = 1`` on it has the optimum ``q^{1 - sum w} prod T_i^{w_i} / Z``, a product of experts.

    Args:
        ref: ``[...]``. teachers: one array each, finite. weights: one number each, at most 1e100 in size: a larger one
            leaves nothing of the reference, whose share is ``1 - sum w``.

    Raises:
        ValueError: no teacher, weights that do not match, numbers that are not finite or whose sum overflows.

    Source: ``gopd`` C12.
    """
    teachers, weights = _validate.sequence("teachers", teachers), _validate.sequence("weights", weights)
    if not teachers or len(teachers) != len(weights):
        _validate.fail("weights", f"needs one for each of the {len(teachers)} teachers, got {len(weights)}")
    named = {f"teachers[{i}]": t for i, t in enumerate(teachers)}
    xp, ref, *stack = _validate.arrays(ref=ref, **named)
    _validate.broadcast(ref=ref, **dict(zip(named, stack)))
    for name, x in (("ref", ref), *zip(named, stack)):
        _validate.finite(name, xp, x)
    total = ref
    for i, (teacher, weight) in enumerate(zip(stack, weights)):
        total = total + _validate.real(f"weights[{i}]", weight, low=-1e100, high=1e100) * (teacher - ref)
    _validate.representable("teachers", xp, total)
    return total


@takes_batch
def gkd(batch: TokenBatch, *, mix: float = 0.5, aggregate: Aggregate = token_mean) -> Loss:
    r"""Generalised JSD to the teacher over the vocabulary, ``mix KL(T‖M) + (1 - mix) KL(pi‖M)``,
    ``M = mix T + (1 - mix) pi``, visited prefixes held fixed.

    ``mix -> 0`` is ``mix`` times the forward KL, ``mix -> 1`` is ``1 - mix`` times the reverse KL; exactly 0 and 1 are
    the forward and the reverse KL themselves (as in TRL).

    Source: Agarwal et al. (2024).
    """
    mix = _validate.probability("mix", mix)
    xp = batch.xp
    pi, teacher = batch.need("vocab_log_probs", "teacher_vocab_log_probs")
    teacher = detach(teacher)
    kl = GENERATORS["kl"]
    if mix in (0.0, 1.0):
        value = divergence_of(xp, teacher, pi, kl) if mix == 0 else divergence_of(xp, pi, teacher, kl)
    else:
        middle = xp.logaddexp(teacher + math.log(mix), pi + math.log1p(-mix))
        value = mix * divergence_of(xp, teacher, middle, kl) + (1 - mix) * divergence_of(xp, pi, middle, kl)
    loss = aggregate(value, batch.mask)
    return loss, {"generalized_jsd": detach(loss)}


@takes_batch
def kdrl(
    batch: TokenBatch,
    *,
    beta: float = 1e-3,
    estimator: Literal["k2", "k3"] = "k2",
    keep: Literal["all", "wrong_response", "wrong_group"] = "all",
    clip: Clip = (0.2, 0.2),
    epsilon: float = 0.0,
) -> Loss:
    r"""GRPO advantages (token mean) plus ``beta`` times a k2 or k3 KL to the teacher on the same tokens.

    k2: the KL part is ``beta grad sum_s d(s) KL(pi‖T)``; k3: the *forward* KL. ``keep`` restricts it to responses with
    reward 0, or to groups in which all have reward 0; masked tokens count 0 in a mean over all tokens.
    With group normalisation and binary rewards the teacher stops anchoring below a critical ``beta``.

    Source: ``kdrl`` C1, C4, C5, Algorithm.
    """
    beta = _validate.real("beta", beta, low=0.0)
    _validate.one_of("estimator", estimator, ("k2", "k3"))
    _validate.one_of("keep", keep, ("all", "wrong_response", "wrong_group"))
    xp = batch.xp
    advantage = estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)
    loss, metrics = surrogate(batch, advantage, clip=clip, aggregate=token_mean)
    gap = log_ratio(batch, "teacher")
    value = gap * gap / 2 if estimator == "k2" else xp.expm1(-gap) + gap
    if keep != "all":
        wrong = batch.total_rewards() <= 0
        if keep == "wrong_group":
            member = batch.groups()[:, None] == batch.groups()[None, :]
            wrong = xp.all(wrong[None, :] | ~member, axis=-1)
        value = xp.where(wrong[:, None], value, xp.zeros_like(value))
    penalty = token_mean(value, batch.mask)
    return loss + beta * penalty, metrics | {"teacher_kl": detach(token_mean(gap, batch.mask))}


@takes_batch
def trrd_log_ratio(batch: TokenBatch, *, alpha: float = 0.5, clamp: float = 1.0) -> Array:
    r"""``alpha log(pi/old) + (1 - alpha) clamp(log(pi/T), ±clamp)``, ``[B, T]``; ``alpha`` weighs the old student.

    ``alpha = 1`` is the GRPO ratio (the paper's text has the end points the wrong way round).
    """
    alpha = _validate.probability("alpha", alpha)
    clamp = _validate.real("clamp", clamp, low=0.0, open_low=True)
    xp = batch.xp
    gap = log_ratio(batch, "teacher")
    if math.isfinite(clamp):
        gap = xp.minimum(xp.maximum(gap, xp.full_like(gap, -clamp)), xp.full_like(gap, clamp))
    return alpha * (batch.log_probs - batch.old) + (1 - alpha) * gap


@takes_batch
def trrd(
    batch: TokenBatch,
    *,
    alpha: float = 0.5,
    clamp: float = 1.0,
    clip: Clip = (0.2, 0.28),
    aggregate: Aggregate = sequence_mean,
    epsilon: float = 0.0,
) -> Loss:
    r"""GRPO with the ratio to the geometric mixture ``old^alpha T^{1-alpha}`` (RLAD's trust-region ratio distillation).

    Biased: no population objective. Unclipped, on-policy, the gradient is
    ``-E[(old/T)^{1-alpha} A grad log pi]``: tokens that the teacher likes more weigh *less*; imitation comes
    from what is clipped. Unless clamped, the positive gate is shut at
    ``pi > (1 + high)^{1/(1-alpha)} T``: a hard band around the teacher.

    Source: ``rlad`` C1, C2, C4, C5, C7.
    """
    advantage = estimated(batch, baseline=group_mean, scale=group_std, epsilon=epsilon)
    return surrogate(
        batch, advantage, ratio=lambda b: trrd_log_ratio(b, alpha=alpha, clamp=clamp), clip=clip, aggregate=aggregate
    )


@takes_batch
def vla_opd(batch: TokenBatch) -> Loss:
    """`opd` as a sum over steps, mean over trajectories: the gradient is ``grad sum_s d(s) KL(pi(.|s)‖T(.|s))``.

    Its baselines: `klsim.objectives.divergence` (forward KL) and `hard_cross_entropy`.

    Source: ``vla-opd`` C1, Algorithm.
    """
    return opd(batch, aggregate=sequence_sum)


@takes_batch
def hard_cross_entropy(batch: TokenBatch, *, aggregate: Aggregate = sequence_sum) -> Loss:
    """``-log pi(argmax T)`` at the visited prefixes: collapses to the teacher's mode (ties: the first one).

    Source: ``vla-opd`` C2.
    """
    xp = batch.xp
    pi, teacher = batch.need("vocab_log_probs", "teacher_vocab_log_probs")
    tokens = xp.arange(pi.shape[-1], device=pi.device)
    chosen = tokens == xp.argmax(teacher, axis=-1)[..., None]
    loss = aggregate(-xp.sum(xp.where(chosen, pi, xp.zeros_like(pi)), axis=-1), batch.mask)
    return loss, {"nll": detach(loss)}
