r"""Categorical distributions in log space.

A distribution over ``A`` outcomes is an array of natural-log probabilities on the last axis; leading
axes are a batch; ``-inf`` means no support. The exponential tilt of a reference by a reward,

.. math:: \pi_\beta(a) = \pi_{ref}(a) e^{r(a)/\beta} / Z, \qquad Z = E_{ref}[e^{r/\beta}],

is the optimum of KL-regularised reward maximisation (`klsim.optima`). Functions accept NumPy arrays,
torch tensors and any other array-API arrays, and return the same kind; gradients flow through them.

Probabilities sum to 1 by definition: that the exponentials of stored logs sum to 1 only up to
rounding is not treated as information (it would drown ``log Z`` when ``beta`` is large).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from klsim import _validate
from klsim._sums import log_mean_exp_of_shortfall, log_sum, mean, mean_expm1, normalized, quiet, supported

__all__ = [
    "arithmetic_mixture",
    "condition",
    "entropy",
    "expectation",
    "geometric_mixture",
    "log_geometric_normalizer",
    "log_normalize",
    "log_partition",
    "log_sum_exp",
    "sample",
    "tilt",
    "variance",
]

Array = Any


@_validate.widened
@quiet
def log_sum_exp(x: Array) -> Array:
    """``log sum_a exp(x[..., a])`` without overflow; ``-inf`` entries contribute nothing.

    Shapes: ``(..., A) -> (...)``. Raises ValueError for NaN, ``+inf`` or an all ``-inf`` row.
    """
    xp, x = _validate.arrays(x=x)
    return log_sum(xp, _validate.log_probs("x", xp, x, normalised=False))


@_validate.widened
@quiet
def log_normalize(logits: Array) -> Array:
    """``logits - log_sum_exp(logits)``: log-softmax. Shapes: ``(..., A) -> (..., A)``.

    Raises:
        ValueError: NaN, ``+inf``, no outcome, or a row that is ``-inf`` everywhere.
    """
    xp, logits = _validate.arrays(logits=logits)
    logits = _validate.log_probs("logits", xp, logits, normalised=False)
    return normalized(xp, logits)


@_validate.widened
@quiet
def entropy(log_p: Array) -> Array:
    """``H(p) = -sum p log p`` in nats, with ``0 log 0 = 0``. Shapes: ``(..., A) -> (...)``."""
    xp, log_p = _validate.arrays(log_p=log_p)
    log_p = _validate.log_probs("log_p", xp, log_p)
    return -xp.sum(xp.exp(log_p) * supported(xp, log_p), axis=-1)


@_validate.widened
@quiet
def expectation(log_p: Array, values: Array) -> Array:
    """``E_p[values]``; values without support do not count, whatever they are. ``(..., A) -> (...)``."""
    xp, log_p, values = _validate.arrays(log_p=log_p, values=values)
    _validate.log_probs("log_p", xp, log_p)
    _validate.same_last_axis(log_p=log_p, values=values)
    return mean(xp, log_p, _validate.finite("values", xp, values))


@_validate.widened
@quiet
def variance(log_p: Array, values: Array) -> Array:
    """``Var_p[values]``, by deviations from the mean. Shapes: ``(..., A) -> (...)``."""
    xp, log_p, values = _validate.arrays(log_p=log_p, values=values)
    _validate.log_probs("log_p", xp, log_p)
    _validate.same_last_axis(log_p=log_p, values=values)
    _validate.finite("values", xp, values)
    centre = mean(xp, log_p, values)
    found = mean(xp, log_p, (values - centre[..., None]) ** 2)
    _validate.representable("values", xp, found)
    return found


def reference_and_reward(
    log_ref: Array, reward: Array, *, names: tuple[str, str] = ("log_ref", "reward"), **scalars: Array
) -> tuple[Any, ...]:
    """``(xp, log_ref, reward, *scalars)`` validated; scalars get a trailing axis to broadcast.

    ``names``: what the caller calls the first two.
    """
    ref_name, reward_name = names
    xp, log_ref, reward, *rest = _validate.arrays(**{ref_name: log_ref, reward_name: reward}, **scalars)
    _validate.log_probs(ref_name, xp, log_ref)
    _validate.same_last_axis(**{ref_name: log_ref, reward_name: reward})
    _validate.finite(reward_name, xp, reward)
    if any(value.ndim for value in rest):
        _validate.broadcast(**{ref_name: log_ref[..., 0], reward_name: reward[..., 0], **dict(zip(scalars, rest))})
    return (xp, log_ref, reward, *(value[..., None] for value in rest))


def top_reward(xp: Any, log_ref: Array, reward: Array) -> Array:
    """``max r`` over the support, shape ``(..., 1)``."""
    lowest = xp.full_like(reward + xp.zeros_like(log_ref), -math.inf)
    return xp.max(xp.where(xp.isinf(log_ref), lowest, reward), axis=-1, keepdims=True)


def shortfall(xp: Any, log_ref: Array, reward: Array) -> tuple[Array, Array]:
    """``(max r, max r - r)`` over the support; the shortfall is 0 where there is no support."""
    best = top_reward(xp, log_ref, reward)
    short = best - reward
    return best, xp.where(xp.isinf(log_ref), xp.zeros_like(short), short)


def relative_shortfall(xp: Any, log_ref: Array, reward: Array, beta: Array) -> tuple[Array, Array]:
    """``(max r, (max r - r)/beta)``: `shortfall` in units of beta, also where the difference overflows."""
    best, short = shortfall(xp, log_ref, reward)
    drop = short / beta
    if not bool(xp.all(xp.isfinite(short))):
        apart = best / beta - reward / beta
        drop = xp.where(xp.isfinite(short), drop, xp.where(xp.isnan(apart), short, apart))
    return best, drop


@_validate.widened
@quiet
def tilt(log_ref: Array, reward: Array, beta: Array) -> Array:
    r"""``log pi(a) = log ref(a) + r(a)/beta - log Z``: the exponential tilt of ``ref``.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``, any scale. beta: > 0, scalar or batch ``(...)``.

    The tilt is taken of ``r - max r``, so nothing overflows for any ``beta``.

    Raises:
        ValueError: ``beta <= 0``, non-finite reward, shapes that do not broadcast.
    """
    xp, log_ref, reward, beta = reference_and_reward(log_ref, reward, beta=beta)
    _validate.positive("beta", xp, beta[..., 0])
    _, drop = relative_shortfall(xp, log_ref, reward, beta)
    logits = log_ref - drop
    return normalized(xp, logits)


@_validate.widened
@quiet
def log_partition(log_ref: Array, reward: Array, beta: Array) -> Array:
    r"""``log Z = log E_ref[exp(r / beta)]``. Shapes: ``(..., A) -> (...)``.

    Accurate for small exponents (``log1p`` of ``E_ref[expm1(r/beta)]``) and for large ones (shifted
    by the maximum): the relative error is a few roundings times ``max|r/beta| / |log Z|``.

    Raises:
        ValueError: as `tilt`.
    """
    xp, log_ref, reward, beta = reference_and_reward(log_ref, reward, beta=beta)
    _validate.positive("beta", xp, beta[..., 0])
    found = log_partition_of(xp, log_ref, reward, beta)[..., 0]
    _validate.representable("reward", xp, found)
    return found


def log_partition_of(xp: Any, log_ref: Array, reward: Array, beta: Array) -> Array:
    """`log_partition` of validated input; ``beta`` has a trailing axis, and so has the result."""
    best, drop = relative_shortfall(xp, log_ref, reward, beta)
    exponent = xp.where(xp.isinf(log_ref), xp.zeros_like(drop), reward / beta)
    small = xp.all(xp.abs(exponent) <= 0.5, axis=-1, keepdims=True)
    direct = xp.log1p(mean_expm1(xp, log_ref, xp.where(small, exponent, xp.zeros_like(exponent))))
    return xp.where(small, direct, best / beta + log_mean_exp_of_shortfall(xp, log_ref, drop))


def _components(log_policies: Sequence[Array], weights: Sequence[Any]) -> tuple[Any, list[Array], list[Array]]:
    log_policies = _validate.sequence("log_policies", log_policies)
    weights = _validate.sequence("weights", weights)
    named = {f"log_policies[{k}]": p for k, p in enumerate(log_policies)}
    if not named:
        _validate.fail("log_policies", "needs at least one policy")
    if len(weights) != len(named):
        _validate.fail("weights", f"one weight a policy: {len(named)} policies, {len(weights)} weights")
    named |= {f"weights[{k}]": w for k, w in enumerate(weights)}
    xp, *values = _validate.arrays(**named)
    policies, scalars = values[: len(weights)], values[len(weights) :]
    for name, policy in zip(named, policies):
        _validate.log_probs(name, xp, policy)
    for k, weight in enumerate(scalars):
        _validate.finite(f"weights[{k}]", xp, weight)
    _validate.same_last_axis(**dict(zip(named, policies)))
    if any(weight.ndim for weight in scalars):
        _validate.broadcast(**dict(zip(named, (*(policy[..., 0] for policy in policies), *scalars))))
    return xp, policies, [w[..., None] for w in scalars]


def _geometric_logits(log_policies: Sequence[Array], weights: Sequence[Any]) -> tuple[Any, Array]:
    xp, policies, scalars = _components(log_policies, weights)
    logits, gone, blown = 0.0, False, False
    for policy, weight in zip(policies, scalars):
        zero = xp.isinf(policy)
        logits = logits + weight * supported(xp, policy)
        gone = gone | (zero & (weight > 0))
        blown = blown | (zero & (weight < 0))
    index = _validate.first_true(xp, blown & ~gone)
    if index is not None:
        rule = "has probability 0 in a policy with negative weight: the mixture has no normaliser"
        _validate.fail("log_policies", f"outcome {index[-1]} {rule}", index=index)
    logits = xp.where(gone, xp.full_like(logits, -math.inf), logits)
    if _validate.first_true(xp, xp.all(xp.isinf(logits), axis=-1)) is not None:
        _validate.fail("log_policies", "the supports of the policies with positive weight do not meet")
    return xp, logits


@_validate.widened
@quiet
def geometric_mixture(log_policies: Sequence[Array], weights: Sequence[Any]) -> Array:
    r"""``log pi ∝ sum_k w_k log pi_k``, normalised. Weights are any real numbers.

    ``geometric_mixture([log_ref, log_teacher], [1 - lam, lam])`` is the optimum of G-OPD. An outcome
    with probability 0 in a policy of positive weight gets 0; weight 0 ignores a policy (``0^0 = 1``).

    Raises:
        ValueError: an outcome has probability 0 under a policy of negative weight and no zero under
            one of positive weight (the normaliser is infinite), or no support is left.
    """
    xp, logits = _geometric_logits(log_policies, weights)
    return normalized(xp, logits)


@_validate.widened
@quiet
def log_geometric_normalizer(log_policies: Sequence[Array], weights: Sequence[Any]) -> Array:
    r"""``log sum_a prod_k pi_k(a)^{w_k}``, shape ``(...)``; for weights (1-lam, lam) it is
    ``(lam - 1)`` times the Rényi divergence of order ``lam`` from the first to the second policy.

    Raises:
        ValueError: as `geometric_mixture`.
    """
    xp, logits = _geometric_logits(log_policies, weights)
    return log_sum(xp, logits)


@_validate.widened
@quiet
def arithmetic_mixture(log_policies: Sequence[Array], weights: Sequence[Any]) -> Array:
    """``log sum_k w_k pi_k`` for weights that are >= 0 and sum to 1. Shapes: ``K x (..., A) -> (..., A)``.

    Raises:
        ValueError: negative weights, or a sum other than 1.
    """
    xp, policies, scalars = _components(log_policies, weights)
    for k, weight in enumerate(scalars):
        _validate.budgets(f"weights[{k}]", xp, weight[..., 0])
    total = xp.sum(xp.stack(xp.broadcast_arrays(*scalars), axis=0), axis=0)
    if _validate.first_true(xp, xp.abs(total - 1) > _validate.normalisation_tolerance(xp, total.dtype)) is not None:
        _validate.fail("weights", "must sum to 1")
    policies = xp.broadcast_arrays(*policies)
    terms = [xp.log(weight) + policy for weight, policy in zip(scalars, policies)]
    return log_sum(xp, xp.stack(xp.broadcast_arrays(*terms), axis=0), axis=0)


@_validate.widened
@quiet
def condition(log_p: Array, event: Array) -> Array:
    """``p(. | event)`` for a boolean ``event`` ``(..., A)`` of positive probability.

    Raises:
        ValueError: the event has probability 0 in some row.
    """
    xp, log_p = _validate.arrays(log_p=log_p)
    _validate.log_probs("log_p", xp, log_p)
    if isinstance(log_p, np.ndarray):
        event = _validate.boolean_mask("event", event)
    elif not hasattr(event, "dtype") or not xp.isdtype(event.dtype, "bool"):
        raise TypeError(f"event: must be a boolean mask of the kind of log_p, got {type(event).__name__}")
    _validate.same_last_axis(log_p=log_p, event=event)
    kept = xp.where(event, log_p, xp.full_like(log_p, -math.inf))
    index = _validate.first_true(xp, xp.all(xp.isinf(kept), axis=-1))
    if index is not None:
        _validate.fail("event", "has probability 0", index=index)
    return normalized(xp, kept)


def sample(log_policy: Any, size: int | tuple[int, ...], rng: np.random.Generator | int) -> np.ndarray:
    """Independent draws by inversion: outcome indices of shape ``leading axes + size`` (int64).

    Args:
        log_policy: ``(..., A)``. size: how many draws a row (an int gives one trailing axis).
        rng: generator or seed; the same seed gives the same draws.
    """
    xp, log_policy = _validate.arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", xp, log_policy)
    shape = tuple(size) if isinstance(size, list | tuple) else (size,)
    shape = tuple(_validate.integer("size", s, low=0) for s in shape)
    weights = np.exp(to_numpy(log_policy))
    rows = weights.reshape(-1, weights.shape[-1])
    _validate.fits("size", shape[0] if len(shape) == 1 else math.prod(shape), rows.shape[0] * math.prod(shape), each=16)
    uniforms = _validate.generator(rng).random((rows.shape[0], math.prod(shape)))
    draws = np.empty(uniforms.shape, dtype=np.int64)
    for i, row in enumerate(rows):
        cumulative = np.cumsum(row)
        last = int(np.flatnonzero(row)[-1])
        draws[i] = np.minimum(np.searchsorted(cumulative, uniforms[i] * cumulative[-1], side="right"), last)
    return draws.reshape((*weights.shape[:-1], *shape))


def give_back(xp: Any, like: Array, values: np.ndarray) -> Array:
    """NumPy ``values`` as an array of the kind, type and device of ``like`` (which `_validate.arrays` made)."""
    if isinstance(like, np.ndarray):
        return values
    return xp.asarray(values, dtype=like.dtype, device=like.device)


def to_numpy(x: Array) -> np.ndarray:
    """A NumPy view or copy of any array, without its autograd graph; ``bfloat16`` (NumPy has none) as ``float32``."""
    if isinstance(x, np.ndarray):
        return x
    x = x.detach().cpu() if hasattr(x, "detach") else x
    return np.asarray(x.float() if str(getattr(x, "dtype", "")).endswith("bfloat16") else x)
