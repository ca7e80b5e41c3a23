"""Exponentials that a compiler turns into vector instructions: no calls, no branches.

``e^x = scale·(1 + part)`` with ``scale`` a power of two and ``|part| < 0.42``: ``e^x`` is ``scale·part + scale``, and
``e^x - 1`` is ``scale·part + (scale - 1)``, which does not cancel. Errors are below 2 units in the last place (tested
against mpmath); what would be below 1e-307 is 0, and arguments above 709 count as 709.

The logarithm of ``y = 1 + d`` is ``k log 2 + log(1 + f)`` with ``|f| < 0.42`` (FreeBSD's ``log1p``, below a unit in the
last place, tested likewise).
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

__all__ = ["exp", "exp_and_excess", "exp_and_expm1", "expm1", "log_of_excess"]

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # the high part times 1024 is exact
_ROUND = 6755399441055744.0  # 1.5·2^52: adding it leaves the nearest integer in the low bits
_LOWEST, _HIGHEST = -707.0, 709.0

_SQRT_HALF_BITS = 0x3FE6A09E00000000  # of the square root of a half, its upper 32 bits
_ONE_BITS = 0x3FF0000000000000

# numba's ``fastmath`` of these functions: a product and a sum may be one instruction, nothing is reordered
_FUSED = {"contract"}


@intrinsic
def _bits(context: Any, x: Any) -> Any:
    """The 64 bits of a float as an integer."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), build


@intrinsic
def _from_bits(context: Any, x: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), build


@numba.njit(cache=True, fastmath=_FUSED)
def _tail(r):
    """``(e^r - 1 - r)/r²`` for ``|r| <= 0.35``: its series, truncated below 1e-17."""
    even = r * r
    a = 1 / 2 + r * (1 / 6)
    b = 1 / 24 + r * (1 / 120)
    c = 1 / 720 + r * (1 / 5040)
    d = 1 / 40320 + r * (1 / 362880)
    e = 1 / 3628800 + r * (1 / 39916800)
    f = 1 / 479001600 + r * (1 / 6227020800)
    return a + even * (b + even * (c + even * (d + even * (e + even * f))))


@numba.njit(cache=True, fastmath=_FUSED)
def _split(x):
    """``(r, tail, scale)`` with ``e^x = scale·(1 + r + tail)``, ``|r| <= 0.35``; ``scale`` 0 below -707 or if NaN."""
    inside = x if x > _LOWEST else _LOWEST
    inside = inside if inside < _HIGHEST else _HIGHEST
    shifted = inside * _LOG2_E + _ROUND
    k = shifted - _ROUND
    r = (inside - k * _LN2_HIGH) - k * _LN2_LOW
    scale = _from_bits((_bits(shifted) << 52) + 0x3FF0000000000000)  # type: ignore[call-arg,var-annotated]
    return r, r * r * _tail(r), scale if x > _LOWEST else 0.0


@numba.njit(cache=True, fastmath=_FUSED)
def exp(x):
    """``e^x``, inlined into loops that vectorise."""
    r, tail, scale = _split(x)
    return scale * (r + tail) + scale


@numba.njit(cache=True, fastmath=_FUSED)
def expm1(x):
    """``e^x - 1`` without cancellation."""
    r, tail, scale = _split(x)
    return scale * (r + tail) + (scale - 1.0)


@numba.njit(cache=True, fastmath=_FUSED)
def exp_and_expm1(x):
    """``(e^x, e^x - 1)``."""
    r, tail, scale = _split(x)
    part = scale * (r + tail)
    return part + scale, part + (scale - 1.0)


@numba.njit(cache=True, fastmath=_FUSED)
def exp_and_excess(x):
    """``(e^x, x e^x - e^x + 1)``: a probability ratio from its logarithm, and its term of the KL divergence, >= 0."""
    r, tail, scale = _split(x)
    part = scale * (r + tail)
    whole, less = part + scale, part + (scale - 1.0)
    # near 0 with e^x - 1 - x from its own series; else nothing cancels more than a factor of 6
    return whole, x * less - tail if scale == 1.0 else x * whole - less


@numba.njit(cache=True, fastmath=_FUSED)
def _log_remainder(z):
    """``log((1 + s)/(1 - s)) = 2 s + s R(s^2)``: the minimax polynomial ``R`` of FreeBSD's ``log1p``."""
    w = z * z
    odd = 2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)
    even = 3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)
    return z * (6.666666666666735130e-01 + w * odd) + w * even


@numba.njit(cache=True, error_model="numpy")  # a division that may raise is a branch
def log_of_excess(excess, whole):
    """``log(1 + excess)`` where that is more accurate (above -1/2), else ``log whole``; ``whole`` is normal, > 0."""
    near = excess > -0.5
    y = 1.0 + excess if near else whole
    lost = (1.0 - (y - excess) if y >= 2.0 else excess - (y - 1.0)) / y
    k = (_bits(y) + (_ONE_BITS - _SQRT_HALF_BITS)) >> 52  # type: ignore[call-arg]
    k = k - 1023
    f = _from_bits(_bits(y) - (k << 52)) - 1.0
    f = excess if near & (k == 0) else f
    lost = lost if near & (k != 0) else 0.0
    half = 0.5 * f * f
    s = f / (2.0 + f)
    tail = s * (half + _log_remainder(s * s)) + (k * _LN2_LOW + lost)
    return k * _LN2_HIGH - ((half - tail) - f)
