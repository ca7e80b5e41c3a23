r"""KL and f-divergence terms: sampled (k1, k2, k3) or exact over the vocabulary, in the reward or in the loss.

What a term's gradient is in expectation over on-policy batches, summed over tokens (``d(s)``: probability
of visiting the prefix s, held fixed; q the reference):

===========================  =====================  =======================================================
term                         value                  gradient
===========================  =====================  =======================================================
k1 in the loss               ``KL(pi‖q)``           0
k2 in the loss               biased                 ``grad sum_s d(s) KL(pi(.|s)‖q(.|s))``
k3 in the loss               ``KL(pi‖q)``           ``grad sum_s d(s) KL(q(.|s)‖pi(.|s))``: forward KL
rho k1, rho k3               ``KL(pi‖q)``           that of k2 (`importance`)
`divergence` (generator f)   ``D_f`` per token      ``grad sum_s d(s) D_f(pi(.|s)‖q(.|s))``
k1 in the reward             ``KL(pi‖q)``           ``grad KL(pi‖q)`` of whole sequences
===========================  =====================  =======================================================

Sources: ``klbayes`` C8, ``gopd`` C4, C13, ``kdrl`` C1.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from array_api_compat import is_array_api_obj

from klsim import _validate
from klsim._sums import detach, normalized
from klsim.distributions import geometric_mixture
from klsim.divergences import Generator, as_generator, divergence_of
from klsim.estimators import k1, k2, k3
from klsim.objectives.aggregate import Aggregate, sequence_mean, sequence_sum
from klsim.objectives.batch import Loss, TokenBatch, takes_batch
from klsim.objectives.policy_gradient import token_ratio

__all__ = [
    "divergence",
    "dph_rl",
    "kl_in_loss",
    "kl_in_reward",
    "rapo",
    "sampled",
    "soup",
    "temper",
]

Array = Any
Against = Literal["ref", "teacher"]
_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


@takes_batch
def log_ratio(batch: TokenBatch, against: Against) -> Array:
    """``log pi - log q`` of the sampled tokens, ``[B, T]``."""
    _validate.one_of("against", against, ("ref", "teacher"))
    (other,) = batch.need(f"{against}_log_probs")
    return batch.log_probs - detach(other)


@takes_batch
def kl_in_loss(
    batch: TokenBatch,
    *,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    against: Against = "ref",
    importance: bool = False,
    aggregate: Aggregate = sequence_mean,
) -> Loss:
    """``aggregate[k(log pi/q)]``, or ``aggregate[rho k]`` with the differentiated token ratio (``importance``).

    See the table of the module for what it is the gradient of.
    """
    _validate.one_of("estimator", estimator, tuple(_ESTIMATORS))
    gap = log_ratio(batch, against)
    value = _ESTIMATORS[estimator](gap)
    if _validate.flag("importance", importance):
        value = batch.xp.exp(token_ratio(batch)) * value
    loss = aggregate(value, batch.mask)
    return loss, {"kl": detach(aggregate(gap, batch.mask))}


@takes_batch
def kl_in_reward(batch: TokenBatch, *, beta: float, against: Against = "ref") -> TokenBatch:
    r"""The batch with rewards ``r - beta sum_t log(pi/q)(y_t)``, a constant: KL regularisation of sequences.

    Any unbiased reward gradient (`reinforce`, `rloo`) of it is ``grad (E[r] - beta KL(pi‖q))``, whose
    optimum is the tilt ``q e^{r/beta}/Z``. Per-token rewards stay per token.
    """
    beta = _validate.real("beta", beta, low=0.0)
    (rewards,) = batch.need("rewards")
    penalty = detach(log_ratio(batch, against)) * batch.weights
    penalty = penalty if rewards.ndim == 2 else batch.xp.sum(penalty, axis=-1)
    return batch.replace(rewards=detach(rewards) - beta * penalty)


@takes_batch
def divergence(
    batch: TokenBatch,
    *,
    generator: Generator | str = "kl",
    against: Against = "ref",
    aggregate: Aggregate = sequence_mean,
) -> Loss:
    r"""``aggregate[D_f(pi(.|s_t)‖q(.|s_t))]`` exactly, over the vocabulary; visited prefixes held fixed.

    ``generator``: ``"kl"`` reverse KL, ``"forward_kl"``, ``"js"``, ``"chi2"``, … or any
    `klsim.divergences.Generator`. Needs ``vocab_log_probs`` of the policy and of ``against``.
    """
    _validate.one_of("against", against, ("ref", "teacher"))
    p, q = batch.need("vocab_log_probs", f"{against}_vocab_log_probs")
    generator = as_generator(generator)
    value = divergence_of(batch.xp, p, detach(q), generator)
    loss = aggregate(value, batch.mask)
    return loss, {f"{generator.name} divergence": detach(loss)}


@takes_batch
def dph_rl(
    batch: TokenBatch, *, generator: Generator | str = "forward_kl", aggregate: Aggregate = sequence_sum
) -> Loss:
    r"""Rehearsal ``aggregate[f(u_t)]``, ``u_t = (pi/ref)(y_t|.)``, on tokens that the *reference* drew.

    The gradient is ``grad sum_s d_ref(s) D_f(pi(.|s)‖ref(.|s))``: no reference model is needed online, its
    stored log-probabilities are. For the forward KL this is ``grad KL(ref‖pi)`` of whole sequences; for
    the others it is not the divergence of sequences.

    Source: ``dph-rl`` C2, C8, Algorithm.
    """
    xp, generator = batch.xp, as_generator(generator)
    gap = log_ratio(batch, "ref")
    value = generator.term(xp, gap, xp.zeros_like(gap))
    loss = aggregate(value, batch.mask)
    return loss, {f"{generator.name} divergence": detach(loss)}


def sampled(vocab_log_probs: Array, tokens: Array) -> Array:
    """Log-probabilities of the sampled ``tokens [...]`` in ``vocab_log_probs [..., V]``."""
    xp, log_p = _validate.arrays(vocab_log_probs=vocab_log_probs)
    _validate.log_probs("vocab_log_probs", xp, log_p, normalised=False)
    if not is_array_api_obj(tokens):
        tokens = xp.asarray(_validate.integers("tokens", tokens).tolist())
    if isinstance(tokens, np.ndarray | np.generic) != isinstance(log_p, np.ndarray | np.generic):
        raise TypeError(f"tokens: must be of the kind of vocab_log_probs, got {type(tokens).__name__}")
    if not xp.isdtype(tokens.dtype, "integral"):
        raise TypeError(f"tokens: must hold integers, got dtype {tokens.dtype}")
    if tuple(tokens.shape) != tuple(log_p.shape[:-1]):
        _validate.fail("tokens", f"must have shape {list(log_p.shape[:-1])}, got {list(tokens.shape)}")
    index = _validate.first_true(xp, (tokens < 0) | (tokens >= log_p.shape[-1]))
    if index is not None:
        _validate.fail("tokens", f"must be 0 … {log_p.shape[-1] - 1}", int(tokens[index]), index)
    chosen = xp.arange(log_p.shape[-1], device=log_p.device) == tokens[..., None]
    return xp.max(xp.where(chosen, log_p, xp.full_like(log_p, -xp.inf)), axis=-1)


def temper(vocab_log_probs: Array, exponent: Array) -> Array:
    r"""``q^phi / Z`` at every position, ``[..., V]``: the flattened reference (``rapo``).

    ``exponent`` broadcasts over the leading axes; 1 keeps q, 0 is uniform on its support. Token-level
    tempering is not the tempered law of sequences (``rapo`` C5).
    """
    xp, q, phi = _validate.arrays(vocab_log_probs=vocab_log_probs, exponent=exponent)
    _validate.log_probs("vocab_log_probs", xp, q)
    _validate.budgets("exponent", xp, _validate.finite("exponent", xp, phi))
    _validate.broadcast(exponent=phi, vocab_log_probs=q[..., 0])
    phi = phi[..., None] if phi.ndim else phi
    powered = xp.where(xp.isinf(q), q, phi * xp.where(xp.isinf(q), xp.zeros_like(q), q))
    return normalized(xp, powered)


@takes_batch
def rapo(
    batch: TokenBatch,
    *,
    form: Literal["score", "backprop"] = "score",
    cap: float = 10.0,
    aggregate: Aggregate = sequence_sum,
) -> Loss:
    r"""Forward KL to the reference from on-policy tokens, ``u = ref/pi``; pass a tempered reference (`temper`).

    * ``"score"``: ``-(min(u, cap) - 1) log pi`` with the weight held fixed. Without the cap (``inf``) its
      gradient is ``grad sum_s d(s) KL(ref(.|s)‖pi(.|s))``.
    * ``"backprop"``: the value ``u log u - u + 1`` differentiated, as described: its gradient is
      ``-sum_s d(s) E_ref[log(ref/pi) grad log pi]``, not that of the KL it estimates (``rapo`` C4).
    """
    _validate.one_of("form", form, ("score", "backprop"))
    cap = _validate.real("cap", cap, low=1.0)
    xp = batch.xp
    log_u = -log_ratio(batch, "ref")
    if form == "backprop":
        u = xp.exp(log_u)
        loss = aggregate(u * log_u - u + 1, batch.mask)
    else:
        u = detach(xp.exp(log_u))
        weight = xp.minimum(u, xp.full_like(u, cap)) - 1
        loss = aggregate(-weight * batch.log_probs, batch.mask)
    return loss, {"kl": detach(aggregate(-log_u, batch.mask))}


def soup(log_policies: list[Array], weights: list[float]) -> Array:
    r"""``prod_i q_i^{w_i} / Z`` at every position: averaged weights of log-linear models (SALSA).

    Over sequences the objective is the weighted mean of the single-reference ones plus a bonus for prefixes on which
    the models disagree.

    Args:
        log_policies: one ``[..., V]`` array a model. weights: one a model.

    Raises:
        ValueError: as `klsim.distributions.geometric_mixture`.

    Source: ``salsa`` C1-C3.
    """
    return geometric_mixture(log_policies, weights)
