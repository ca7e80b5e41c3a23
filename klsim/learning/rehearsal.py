r"""Rehearsal: gradients of an f-divergence to a reference, from the reference's own stored samples.

In the logits of ``pi = softmax(z)``, with ``u = pi/ref``,

.. math:: \nabla_z D_f(\pi\|ref) = \pi\,(f'(u) - E_\pi f'(u)) = E_{a\sim ref}[u f'(u)\,(e_a - \pi)],

so samples of the reference and their stored log-probabilities are enough. The loss over tokens is
`klsim.objectives.dph_rl`; these are gradients in logits, for tables and prompt worlds, with leading axes as a batch.

Source: ``dph-rl`` C2, C7, C9.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.divergences import Generator, as_generator
from klsim.learning.softmax_step import score_function_gradient

__all__ = ["divergence_gradient", "rehearsal_gradient", "rehearsal_weights"]

_REACH = 700.0  # exp of it is a float: ratios beyond count as this


def _log_ratio(log_policy: Any, log_ref: Any) -> np.ndarray:
    """``log(pi/ref)`` clipped to what a float's exponential holds; 0 where both are without support."""
    log_policy, log_ref = _validate.numpy_arrays(log_policy=log_policy, log_ref=log_ref)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.log_probs("log_ref", np, log_ref)
    _validate.same_last_axis(log_policy=log_policy, log_ref=log_ref)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isneginf(log_policy) & np.isneginf(log_ref), 0.0, log_policy - log_ref)
    return np.clip(ratio, -_REACH, _REACH)


def divergence_gradient(log_policy: Any, log_ref: Any, generator: Generator | str) -> np.ndarray:
    """Gradient of ``D_f(pi‖ref)`` in the logits of ``pi``: ``pi (f'(u) - E_pi f'(u))``, ``(..., A)``.

    As ``pi_a -> 0`` its entry tends to ``-ref_a`` for the forward KL and to 0 for others: the force that brings back a
    lost outcome (minus this) is constant there, ``~ pi_a^{1-a}`` for ``Alpha(1 - a)``, ``~ pi_a log pi_a`` for KL, JS.

    Raises:
        ValueError: not distributions; mass where the reference has none, if that costs infinitely much.
    """
    generator = as_generator(generator)
    log_ratio = _log_ratio(log_policy, log_ref)
    log_policy, log_ref = _validate.numpy_arrays(log_policy=log_policy, log_ref=log_ref)
    outside = np.isneginf(log_ref) & np.isfinite(log_policy)
    if np.isinf(generator.recession) and (index := _validate.first_true(np, outside)) is not None:
        _validate.fail("log_policy", "has mass where log_ref has none", index=index)
    slope = np.where(outside, min(generator.recession, 1e300), generator.slope(np, log_ratio))
    with np.errstate(over="ignore", invalid="ignore"):
        # pi f'(u) formed first: f' may be huge where pi is tiny
        weighted = np.where(np.isneginf(log_policy), 0.0, np.exp(log_policy) * slope)
        gradient = weighted - np.exp(log_policy) * weighted.sum(axis=-1, keepdims=True)
    _validate.representable("log_policy", np, gradient)
    return np.asarray(gradient)


def rehearsal_weights(log_policy: Any, log_ref: Any, generator: Generator | str) -> np.ndarray:
    """``u f'(u)``, the weight of ``grad log pi(a)`` in the gradient of the rehearsal loss ``f(u)``, ``(..., A)``.

    forward KL ``u - 1``, KL ``u log u``, JS ``(u/2) log(2u/(1 + u))``.
    """
    log_ratio = _log_ratio(log_policy, log_ref)
    with np.errstate(over="ignore"):
        weights = np.exp(log_ratio) * as_generator(generator).slope(np, log_ratio)
    _validate.representable("log_policy", np, weights)
    return np.asarray(weights)


def rehearsal_gradient(log_policy: Any, log_ref: Any, counts: Any, generator: Generator | str) -> np.ndarray:
    """Gradient of the mean of ``f(u)`` over stored samples in the logits, ``(..., A)``; descend along minus this.

    Args:
        counts: how often the store holds each answer, or their probabilities: with ``exp(log_ref)`` it is
            `divergence_gradient` (where the supports agree).

    Raises:
        ValueError: an empty store; an answer in it that the reference excludes.
    """
    weights = rehearsal_weights(log_policy, log_ref, generator)
    log_ref, counts = _validate.numpy_arrays(log_ref=log_ref, counts=counts)
    _validate.same_last_axis(log_ref=log_ref, counts=counts)
    index = _validate.first_true(np, (counts != 0) & np.isneginf(log_ref))
    if index is not None:
        _validate.fail("counts", "holds an answer that log_ref excludes", index=index)
    weights = np.where(counts != 0, weights, 0.0)
    index = _validate.first_true(np, np.abs(weights) > 1e150)
    if index is not None:
        _validate.fail("log_policy", "is too far from log_ref: u f'(u) exceeds 1e150", index=index)
    return score_function_gradient(log_policy, counts, weights)
