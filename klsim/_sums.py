"""Sums over the last axis of log-probabilities: what the public functions share, for validated arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["detach", "log_mean_exp_of_shortfall", "log_sum", "mean", "mean_expm1", "normalized", "quiet", "supported"]

Array = Any
quiet = np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")


def log_sum(xp: Any, x: Array, axis: int = -1, *, keepdims: bool = False) -> Array:
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    total = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else xp.squeeze(total, axis=axis)


def normalized(xp: Any, logits: Array) -> Array:
    """``logits - log_sum(logits)``, also where beside 1e17 the log of the sum would be rounded away."""
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def detach(x: Array) -> Array:
    """``x`` as a constant, whatever it holds. NumPy arrays are constants already."""
    return x.detach() if hasattr(x, "detach") else x


def supported(xp: Any, log_p: Array) -> Array:
    """``log_p`` with 0 where it is ``-inf``: multiply it with a probability that is 0 there."""
    return xp.where(xp.isinf(log_p), xp.zeros_like(log_p), log_p)


def mean(xp: Any, log_p: Array, values: Array) -> Array:
    return xp.sum(xp.exp(log_p) * values, axis=-1)


def mean_expm1(xp: Any, log_ref: Array, exponent: Array) -> Array:
    return xp.sum(xp.exp(log_ref) * xp.expm1(exponent), axis=-1, keepdims=True)


def log_mean_exp_of_shortfall(xp: Any, log_ref: Array, short: Array) -> Array:
    """``log E_ref[exp(-short)]`` for ``short >= 0``, accurate near 0 and far below; shape ``(..., 1)``."""
    lost = mean_expm1(xp, log_ref, -short)
    near = lost > -0.5
    if bool(xp.all(near)):
        return xp.log1p(lost)
    close = xp.log1p(xp.where(near, lost, xp.zeros_like(lost)))
    return xp.where(near, close, log_sum(xp, log_ref - short, keepdims=True))
