"""The softmax of one row, for kernels that walk over rows."""

from __future__ import annotations

import math

import numba

__all__ = ["softmax"]


@numba.njit(cache=True)
def softmax(logits, out):
    """``out = e^logits / sum e^logits``."""
    top, total = logits.max(), 0.0
    for a in range(logits.size):
        out[a] = math.exp(logits[a] - top)
        total += out[a]
    for a in range(logits.size):
        out[a] /= total
