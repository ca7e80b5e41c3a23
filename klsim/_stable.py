"""Pieces of divergences that keep their relative accuracy where the plain formula cancels. Array-API generic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["PHI", "excess", "log_power_plus", "polynomial", "power_gap"]

Array = Any
# Coefficients of phi(x) = exp(x) - 1 - x = sum_k x^k / k!, for |x| <= 1/2 (the next term is < 1e-18).
PHI = tuple(1.0 / math.factorial(k) for k in range(2, 17))


def polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """``sum_k c_k x^(k+2)`` by Horner's rule."""
    total = 0.0 * x + coefficients[-1]
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total * x * x


def log_power_plus(xp: Any, log_t: Array, weight: Array, c: float) -> Array:
    """``log (t^c + weight)^(1/c)`` for ``weight >= 0``: whichever of the two is larger is taken out."""
    with np.errstate(all="ignore"):
        log_weight = xp.log(weight)
        z = log_weight - c * log_t  # log of their ratio; NaN only where both are 0
        first = z <= 0
        small = xp.exp(xp.where(first, z, -z))
        small = xp.where(xp.isnan(small), xp.zeros_like(small), small)
        return xp.where(first, log_t, log_weight / c) + xp.log1p(small) / c


def excess(xp: Any, log_p: Array, log_q: Array, difference: Array | None = None) -> Array:
    """``q - p + p (log p - log q) >= 0`` for finite logs: the terms of KL(p‖q), without cancellation.

    ``difference``: ``log q - log p`` where the caller knows it better than the rounded logs.
    """
    d = log_q - log_p if difference is None else difference
    near = xp.abs(d) <= 0.5
    close = xp.exp(log_p) * polynomial(xp.where(near, d, xp.zeros_like(d)), PHI)
    far = xp.exp(log_q) - xp.exp(log_p) - xp.exp(log_p) * xp.where(near, xp.zeros_like(d), d)
    return xp.where(near, close, far)


def power_gap(xp: Any, log_p: Array, log_q: Array, a: float) -> Array:
    """``p^a q^(1-a) - q - a (p - q)``, of the sign of ``a (a - 1)``, for finite logs and any real ``a``."""
    size = max(1.0, abs(a))
    x = log_p - log_q
    near = xp.abs(x) <= 0.5 / size
    # sum_k (a^k - a) x^k/k! = a (a-1) x^2 sum_k (1 + a + ... + a^(k-2)) x^(k-2)/k!, in powers of y = size x
    y = size * xp.where(near, x, xp.zeros_like(x))
    sums = [
        sum((a / size) ** j * (1.0 / size) ** (k - 2 - j) for j in range(k - 1)) / math.factorial(k)
        for k in range(2, 17)
    ]
    close = xp.exp(log_q) * (a / size * ((a - 1.0) / size)) * polynomial(y, tuple(sums))
    # t^a - 1 - a (t-1) by t^a - 1 (a near 0) or by t (t^(a-1) - 1) (a near 1)
    base, c = (log_q, a) if a < 0.5 else (log_p, a - 1.0)
    shift = c * xp.where(near, xp.zeros_like(x), x)
    mild = xp.abs(shift) <= 1.0
    beyond = xp.exp(base + xp.where(mild, xp.zeros_like(shift), shift)) - xp.exp(base)
    gained = xp.where(mild, xp.exp(base) * xp.expm1(xp.where(mild, shift, xp.zeros_like(shift))), beyond)
    return xp.where(near, close, gained - c * (xp.exp(log_p) - xp.exp(log_q)))
