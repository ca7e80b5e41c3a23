"""Drawing from tables inside kernels, with numba's generator (seeded by every run)."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["draw"]


@numba.njit(cache=True, inline="always")
def draw(edges):
    """An outcome by inversion of cumulative probabilities."""
    u = np.random.random() * edges[-1]
    for i in range(edges.size - 1):
        if u < edges[i]:
            return i
    return edges.size - 1
