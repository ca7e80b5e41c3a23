r"""A k3 penalty whose weight differs from answer to answer: what it is the gradient of, and where it ends.

On-policy, with weights ``w_a`` that are held fixed, reward minus ``beta w k3(log pi/ref)`` moves the logits along

.. math:: \pi_a (X_a - E_\pi X), \qquad X_a = r_a - \beta w_a (1 - ref_a/\pi_a)

(`asymmetric_gradient`), the gradient of the concave ``J(pi) = E_pi[r - beta w] + beta sum_a w_a ref_a log pi_a``
(`asymmetric_value`). A small weight does two things: it weakens the barrier of its answer, and pays a bonus for it. Up
to a constant J is a forward-KL problem with another reference ``~ w ref``, another coefficient ``beta E_ref[w]`` and
the rewards ``r - beta w`` (`reweighted_problem`); with ``w = 1`` it is ``E[r] - beta KL(ref‖pi)``.

Two groups of answers, right and wrong, and rewards divided by the standard deviation of a group keep the shares of the
reference within a group; `normalized_success` is the success at which that comes to rest.

Source: ``apo`` C2, C6.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.forward_kl import forward_kl_with_entropy
from klsim.objectives.advantages import std_weight
from klsim.optima import Optimum

__all__ = [
    "asymmetric_gradient",
    "asymmetric_optimum",
    "asymmetric_value",
    "normalized_success",
    "reweighted_problem",
]


def _checked(log_ref: Any, reward: Any, weight: Any, beta: Any) -> tuple[np.ndarray, ...]:
    """``(log_ref, reward, weight)`` ``(..., A)`` and ``beta (..., 1)``, in float64."""
    log_ref, reward, weight, beta = (
        x.astype(np.float64) for x in _validate.numpy_arrays(log_ref=log_ref, reward=reward, weight=weight, beta=beta)
    )
    _validate.log_probs("log_ref", np, log_ref)
    _validate.finite("reward", np, reward)
    _validate.budgets("weight", np, _validate.finite("weight", np, weight))
    _validate.positive("beta", np, _validate.finite("beta", np, beta))
    _validate.same_last_axis(log_ref=log_ref, reward=reward, weight=weight)
    shape = _validate.broadcast(log_ref=log_ref[..., 0], reward=reward[..., 0], weight=weight[..., 0], beta=beta)
    wide = (np.broadcast_to(x, (*shape, log_ref.shape[-1])) for x in (log_ref, reward, weight))
    return *wide, np.broadcast_to(beta, shape)[..., None]


def _policy(log_policy: Any, log_ref: np.ndarray) -> np.ndarray:
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.same_last_axis(log_policy=log_policy, log_ref=log_ref)
    return np.asarray(log_policy.astype(np.float64))


def reweighted_problem(log_ref: Any, reward: Any, weight: Any, beta: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""``(log_ref', reward', alpha)`` with ``J = E[reward'] - alpha KL(ref'‖pi) + const``.

    ``ref' = w ref / E_ref[w]``, ``reward' = r - beta w``, ``alpha = beta E_ref[w]``.

    Args:
        log_ref, reward, weight: ``(..., A)``, weights ``>= 0``. beta: > 0, scalar or batch.

    Raises:
        ValueError: what `klsim.forward_kl` refuses; a negative weight; weights that vanish on all of the reference.
    """
    log_ref, reward, weight, beta = _checked(log_ref, reward, weight, beta)
    barrier = weight * np.exp(log_ref)
    mean = barrier.sum(axis=-1)
    index = _validate.first_true(np, ~(mean > 0))
    if index is not None:
        _validate.fail("weight", "vanishes wherever log_ref has mass: there is no penalty", index=index)
    with np.errstate(divide="ignore", over="ignore"):
        new, alpha, paid = log_normalize(np.log(weight) + log_ref), beta[..., 0] * mean, reward - beta * weight
    _validate.representable("beta", np, alpha, paid)
    return np.asarray(new), paid, alpha


def asymmetric_optimum(log_ref: Any, reward: Any, weight: Any, beta: Any) -> Optimum:
    r"""The maximum of J: ``pi_a = beta w_a ref_a / (c - r_a + beta w_a)``, ``c`` fixed by ``sum pi = 1``.

    An answer without weight has no barrier: it gets nothing, or all that is left if its reward pays for it. The result
    is that of the reweighted problem (`reweighted_problem`): its ``value`` differs from J by a constant, its ``kl`` and
    ``beta`` are to that reference and coefficient.

    Args, raises: as `reweighted_problem`.
    """
    return forward_kl_with_entropy(*reweighted_problem(log_ref, reward, weight, beta))


def asymmetric_value(log_policy: Any, log_ref: Any, reward: Any, weight: Any, beta: Any) -> np.ndarray:
    r"""``J = E_pi[r - beta w] + beta sum_a w_a ref_a log pi_a``, ``(...)``; minus infinity without a barrier's answer.

    Args:
        log_policy: ``(..., A)``. The rest, and what is raised: as `reweighted_problem`.
    """
    log_ref, reward, weight, beta = _checked(log_ref, reward, weight, beta)
    log_policy = _policy(log_policy, log_ref)
    barrier = beta * weight * np.exp(log_ref)
    kept = np.where(barrier > 0, log_policy, 0.0)
    return np.asarray(np.sum(np.exp(log_policy) * (reward - beta * weight) + barrier * kept, axis=-1))


def asymmetric_gradient(log_policy: Any, log_ref: Any, reward: Any, weight: Any, beta: Any) -> np.ndarray:
    r"""``dJ/dz = pi_a (X_a - E_pi X)`` in the logits of pi, ``(..., A)``: the expected step of the weighted k3 loss.

    With ``r = 0``, ``w = 1``, ``beta = 1`` it is ``ref - pi``, minus the gradient of the *forward* KL.

    Args, raises: as `asymmetric_value`.
    """
    log_ref, reward, weight, beta = _checked(log_ref, reward, weight, beta)
    pi = np.exp(_policy(log_policy, log_ref))
    with np.errstate(over="ignore", invalid="ignore"):
        flow = pi * (reward - beta * weight) + beta * weight * np.exp(log_ref)
        out = flow - pi * flow.sum(axis=-1, keepdims=True)
    _validate.representable("reward", np, out)
    return np.asarray(out)


def normalized_success(share: Any, weight: Any, beta: Any, *, group_size: int | None = None) -> np.ndarray:
    r"""Success at which group-normalised rewards and the weighted k3 balance, ``(...)``.

    Right answers have the share q of the reference and the weight w, wrong ones the weight 1. Where rewards 0/1 are
    divided by their standard deviation the balance is ``0 = S(p) + beta (w q (1-p) - (1-q) p + (1-w) p (1-p))`` with
    ``S = sqrt(p (1-p))``, or, for groups of G and the *sample* deviation, ``S = sqrt((G-1)/G) std_weight(p, G) p(1-p)``
    (groups without contrast teach nothing). For ``w <= 1`` the right side is concave, positive at 0, negative at 1:
    one root. Within right and wrong answers the shares are those of the reference.

    Args:
        share: q in (0, 1). weight: in [0, 1]. beta: in (0, 1e6]. group_size: None for large groups, else >= 2.
    """
    q, w, beta = (x.astype(np.float64) for x in _validate.numpy_arrays(share=share, weight=weight, beta=beta))
    _validate.unit_interval("share", np, q, open_ends=True)
    _validate.unit_interval("weight", np, w)
    _validate.positive("beta", np, _validate.finite("beta", np, beta))
    if (index := _validate.first_true(np, beta > 1e6)) is not None:
        _validate.fail("beta", "must be at most 1e6", float(beta[index]), index)
    shape = _validate.broadcast(share=q, weight=w, beta=beta)
    size = None if group_size is None else _validate.integer("group_size", group_size, low=2)
    low, high = np.zeros(shape), np.ones(shape)
    for _ in range(60):  # bisection: concave, positive at 0
        p = np.minimum((low + high) / 2, np.nextafter(1.0, 0.0))  # a small beta leaves less than rounding to 1
        gain = np.sqrt(p * (1 - p))
        if size is not None:
            gain = np.sqrt((size - 1) / size) * std_weight(p, size) * p * (1 - p)
        force = gain + beta * (w * q * (1 - p) - (1 - q) * p + (1 - w) * p * (1 - p))
        low, high = np.where(force > 0, p, low), np.where(force > 0, high, p)
    return np.asarray((low + high) / 2)
