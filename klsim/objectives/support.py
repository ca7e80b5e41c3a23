r"""Distillation from part of the teacher: top-k divergences, skew KLs, MiniLLM, importance-weighted OPD.

T is the teacher. K is the set of the k most likely tokens at a prefix, of the teacher or of the student. Reverse KL
on K:

==================  ==========================================  ===================================================
form                value at a prefix                           where it is smallest
==================  ==========================================  ===================================================
``"truncated"``     ``sum_K pi log(pi/T)``                      ``pi = T/e`` on K, the rest of the mass anywhere else
``"renormalized"``  ``KL(pi(.|K)‖T(.|K))``                      ``pi(.|K) = T(.|K)``, any mass outside K
``"tail"``          KL of the laws on K and "the rest"          ``pi = T`` on K, any law of the rest
==================  ==========================================  ===================================================

The forward KL swaps pi and T: truncated, ``sum_K T log(T/pi)`` is smallest at ``pi = T(.|K)`` with nothing outside K.
Only the tail form is a divergence of the two policies (of their images, by data processing at most the full KL).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from klsim import _validate
from klsim._sums import detach
from klsim.divergences import GENERATORS, divergence_of
from klsim.objectives.aggregate import Aggregate, sequence_sum, token_mean
from klsim.objectives.batch import Loss, TokenBatch, takes_batch
from klsim.objectives.distillation import returns

__all__ = ["iw_opd", "iw_opd_weights", "minillm", "skew_kl", "top_k_opd", "top_k_tokens"]

Array = Any


def top_k_tokens(vocab_log_probs: Array, k: int) -> Array:
    """``[..., V]`` boolean: the k most likely tokens (ties: the lower index first), a constant.

    Raises:
        ValueError: ``k`` outside ``1..V``.
    """
    xp, log_p = _validate.arrays(vocab_log_probs=detach(vocab_log_probs))
    _validate.log_probs("vocab_log_probs", xp, log_p, normalised=False)
    k = _validate.integer("k", k, low=1, high=int(log_p.shape[-1]))
    return xp.argsort(xp.argsort(-log_p, axis=-1), axis=-1) < k


def _sum_over(xp: Any, kept: Array, log_p: Array, log_q: Array) -> Array:
    """``sum_kept p (log p - log q)``; inf where p has mass and q none."""
    with_mass = kept & ~xp.isinf(log_p)
    zero = xp.zeros_like(log_p)
    gap = xp.where(with_mass, log_p, zero) - xp.where(with_mass, log_q, zero)
    return xp.sum(xp.where(with_mass, xp.exp(log_p), zero) * gap, axis=-1)


def _log_mass(xp: Any, kept: Array, log_p: Array) -> Array:
    """``log p(kept)``, ``[..., 1]``."""
    inside = xp.where(kept, log_p, xp.full_like(log_p, -math.inf))
    top = xp.max(detach(inside), axis=-1, keepdims=True)
    top = xp.where(xp.isinf(top), xp.zeros_like(top), top)
    return top + xp.log(xp.sum(xp.where(kept, xp.exp(inside - top), xp.zeros_like(log_p)), axis=-1, keepdims=True))


@takes_batch
def top_k_opd(
    batch: TokenBatch,
    *,
    k: int = 1,
    form: Literal["truncated", "renormalized", "tail"] = "tail",
    support: Literal["teacher", "student"] = "teacher",
    direction: Literal["reverse", "forward"] = "reverse",
    aggregate: Aggregate = token_mean,
) -> Loss:
    r"""KL to the teacher on the k most likely tokens, in one of three forms (see the module); visits held fixed.

    At ``k = V`` all forms are the KL over the vocabulary. At ``k = 1`` ``"renormalized"`` is 0 whatever the policy
    is, and ``"tail"`` is the KL of two coins. The set K is a constant of the gradient; the student's K moves with the
    student.

    Source: the forms of TRL's ``ServerDistillationTrainer`` (``loss_add_tail``) and verl's top-k distillation;
    local-support matching: "Revisiting On-Policy Distillation" (2026).
    """
    _validate.one_of("form", form, ("truncated", "renormalized", "tail"))
    _validate.one_of("support", support, ("teacher", "student"))
    _validate.one_of("direction", direction, ("reverse", "forward"))
    xp = batch.xp
    pi, teacher = batch.need("vocab_log_probs", "teacher_vocab_log_probs")
    teacher = detach(teacher)
    kept = top_k_tokens(teacher if support == "teacher" else pi, k)
    p, q = (pi, teacher) if direction == "reverse" else (teacher, pi)
    value = _sum_over(xp, kept, p, q)
    mass_p, mass_q = _log_mass(xp, kept, p)[..., 0], _log_mass(xp, kept, q)[..., 0]
    if form == "renormalized":
        value = value * xp.exp(-mass_p) - (mass_p - mass_q)
    elif form == "tail" and k < pi.shape[-1]:
        rest = _rest_kl(xp, mass_p, mass_q)
        value = value + rest
    loss = aggregate(value, batch.mask)
    covered = token_mean(xp.exp(detach(mass_q if direction == "reverse" else mass_p)), batch.mask)
    return loss, {"divergence": detach(loss), "teacher_mass": covered}


def _rest_kl(xp: Any, mass_p: Array, mass_q: Array) -> Array:
    """``(1 - p) log((1 - p)/(1 - q))`` of log masses; masses of 1 (up to rounding) leave one rounding error."""
    eps = float(xp.finfo(mass_p.dtype).eps)
    log_p, log_q = (xp.log(-xp.expm1(xp.minimum(m, xp.full_like(m, -eps)))) for m in (mass_p, mass_q))
    return xp.exp(log_p) * (log_p - log_q)


@takes_batch
def skew_kl(
    batch: TokenBatch,
    *,
    skew: float = 0.1,
    direction: Literal["forward", "reverse"] = "forward",
    aggregate: Aggregate = token_mean,
) -> Loss:
    r"""``KL(T‖skew T + (1 - skew) pi)``, or ``KL(pi‖skew pi + (1 - skew) T)`` (reverse); visits held fixed (DistiLLM).

    Bounded by ``-log skew`` with a bounded gradient where the plain KL is infinite; the fixed point is T. As
    ``skew -> 0`` the plain KLs; ``js`` of `klsim.objectives.divergence` is the mean of the two at 1/2.

    Raises:
        ValueError: ``skew`` outside [0, 1).

    Source: Ko et al. (2024), arXiv:2402.03898.
    """
    skew = _validate.probability("skew", skew)
    if skew == 1.0:
        _validate.fail("skew", "must be < 1: at 1 the divergence is 0", skew)
    _validate.one_of("direction", direction, ("forward", "reverse"))
    xp = batch.xp
    pi, teacher = batch.need("vocab_log_probs", "teacher_vocab_log_probs")
    teacher = detach(teacher)
    first, second = (teacher, pi) if direction == "forward" else (pi, teacher)
    mixture = second if skew == 0 else xp.logaddexp(first + math.log(skew), second + math.log1p(-skew))
    loss = aggregate(divergence_of(xp, first, mixture, GENERATORS["kl"]), batch.mask)
    return loss, {"skew_kl": detach(loss)}


@takes_batch
def minillm(
    batch: TokenBatch,
    *,
    length_normalized: bool = True,
    importance: bool = True,
    clip_weight: float = math.inf,
    aggregate: Aggregate = sequence_sum,
) -> Loss:
    r"""Reverse KL of sequences split into a step that is summed exactly and returns that are sampled (MiniLLM).

    ``aggregate[ w_t (KL(pi(.|s_t)‖T(.|s_t)) - sg(R_{t+1}) log pi(y_t)) ]``, ``R_{t+1} = sum_{u > t} log T/pi(y_u)``,
    divided by the number of those tokens with ``length_normalized``. ``w_t = sg(pi/mu(y_t))`` where mu drew the
    tokens (the paper mixes teacher and student), ``importance=False``: 1. On-policy, tokens summed, without length
    normalisation: the gradient is ``grad KL(pi‖T)`` of sequences; with it no population objective. The paper's
    pretraining term is left out.

    Source: Gu et al. (2024), arXiv:2306.08543.
    """
    clip_weight = _validate.real("clip_weight", clip_weight, low=0.0, open_low=True)
    xp = batch.xp
    pi, teacher_vocab, teacher = batch.need("vocab_log_probs", "teacher_vocab_log_probs", "teacher_log_probs")
    step = divergence_of(xp, pi, detach(teacher_vocab), GENERATORS["kl"])
    gap = detach(teacher - batch.log_probs) * batch.weights
    ahead = returns(gap, batch, 1.0) - gap
    if _validate.flag("length_normalized", length_normalized):
        left = returns(batch.weights, batch, 1.0) - batch.weights
        ahead = ahead / xp.maximum(left, xp.ones_like(left))
    value = step - ahead * batch.log_probs
    if _validate.flag("importance", importance):
        weight = xp.exp(detach(batch.log_probs - batch.rollout))
        value = xp.minimum(weight, xp.full_like(weight, clip_weight)) * value
    loss = aggregate(value, batch.mask)
    return loss, {"kl": detach(token_mean(-gap, batch.mask))}


@takes_batch
def iw_opd_weights(batch: TokenBatch, *, gamma: float = 0.5) -> Array:
    r"""``1 + gamma (1 - sum_{u < t} |A_u| / sum_u |A_u|)``, ``A = log T/mu`` of sampled tokens; ``[B, T]``.

    ``1 + gamma`` at the first token, falling to 1: late tokens, after the student has left the teacher's paths, weigh
    less. ``gamma`` is at most 1e100.
    """
    gamma = _validate.real("gamma", gamma, low=0.0, high=1e100)
    xp = batch.xp
    (teacher,) = batch.need("teacher_log_probs")
    size = xp.abs(detach(teacher - batch.rollout)) * batch.weights
    total = xp.sum(size, axis=-1, keepdims=True)
    share = (xp.cumulative_sum(size, axis=-1) - size) / xp.where(total > 0, total, xp.ones_like(total))
    return 1 + gamma * (1 - share)


@takes_batch
def iw_opd(batch: TokenBatch, *, gamma: float = 0.5, aggregate: Aggregate = token_mean) -> Loss:
    r"""``-aggregate[ sg(w A) log pi ]``, ``A = log T/mu`` and `iw_opd_weights`: OPD that trusts early tokens more.

    ``gamma = 0`` is `klsim.objectives.opd` without ratio and clip. The weight of a token depends on the whole
    response, later tokens included: no population objective; ``pi = T`` is stationary.

    Source: Xie et al. (2026), arXiv:2606.22600; TRL ``IWOPDTrainer``, gamma 0.5.
    """
    weight = iw_opd_weights(batch, gamma=gamma)
    gain = detach(batch.teacher_log_probs - batch.rollout)
    loss = -aggregate(weight * gain * batch.log_probs, batch.mask)
    return loss, {"mean_weight": token_mean(weight, batch.mask), "token_reward": token_mean(gain, batch.mask)}
