"""Kernels whose outer loop is shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from types import FunctionType
from typing import Any

import numba
import numpy as np

__all__ = ["Threaded", "always_threaded", "read_only", "threaded"]


_FEW = 1 << 15  # numbers that one thread is through with before others are awake


class Threaded:
    """A function compiled twice when first needed: with threads, and without for what is not worth waking them.

    Those are calls on fewer than ``few`` numbers, and callers that have one thread only. Without threads a kernel takes
    a third of the time to compile. Both give the same bytes, as a kernel does for any number of threads.
    """

    def __init__(self, function: Any, few: int) -> None:
        update_wrapper(self, function)
        alone = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
        alone.__qualname__ = f"{function.__qualname__}_alone"  # numba names files of its cache after it
        alone.__module__ = function.__module__
        self.few = few
        self.shared: Callable[..., Any] = numba.njit(cache=True, parallel=True)(function)
        self.alone: Callable[..., Any] = numba.njit(cache=True)(alone)

    def __call__(self, *args: Any) -> Any:
        is_small = sum(a.size for a in args if isinstance(a, np.ndarray)) < self.few
        return (self.alone if is_small or numba.get_num_threads() == 1 else self.shared)(*args)


def threaded(function: Callable[..., Any]) -> Threaded:
    """Compile a kernel with ``numba.prange`` in its outer loop, see `Threaded`; called from Python only."""
    return Threaded(function, _FEW)


def always_threaded(function: Callable[..., Any]) -> Threaded:
    """`threaded` for a kernel with much to do for every number that it is given."""
    return Threaded(function, 0)


def read_only(*arrays: np.ndarray) -> list[np.ndarray]:
    """Views that cannot be written, of what a kernel only reads: to numba arrays with and without that are two types.

    Problems keep read-only arrays, callers have others; a kernel that met both would be compiled for each.
    """
    views = [a.view() for a in arrays]
    for view in views:
        view.flags.writeable = False
    return views
