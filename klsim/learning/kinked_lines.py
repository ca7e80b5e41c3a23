r"""Two-layer ReLU networks of one variable at their exact width: an affine part and m kinks.

.. math:: f(x) = c + k x + \sum_{i=1}^m b_i \max(x - \kappa_i, 0)

is every continuous piecewise-linear function with kinks at ``kappa``. The interpolant that bends only at the points
takes as many kinks as there are changes of slope; in the sup norm over the points the best function with given kinks is
a linear programme.

**Lower bound.** Let a line leave residuals of alternating signs and of size at least e at ``m + 3`` of the points. A
function closer than e to all points keeps those signs against the line, so that its slope is alternately above and
below that of the line on ``m + 2`` intervals: it has at least ``m + 1`` kinks.

Source: ``mbrcsl`` C1 (width needed for Bellman completeness; the bound is derived there).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from klsim import _validate
from klsim.learning.networks import Linear, Network, Parameters, ReLU

__all__ = ["KinkedLine", "alternation_bound", "best_fit_errors", "interpolant", "least_error"]


@dataclass(frozen=True)
class KinkedLine:
    """``f(x) = intercept + slope x + sum_i bends_i max(x - knots_i, 0)``.

    Attributes:
        intercept, slope: the affine part. knots: where it may bend ``(m,)``. bends: changes of the slope ``(m,)``.

    Raises:
        ValueError: shapes that differ, numbers that are not finite.
    """

    intercept: float
    slope: float
    knots: np.ndarray
    bends: np.ndarray

    def __post_init__(self) -> None:
        for name in ("intercept", "slope"):
            value = _validate.real(name, getattr(self, name))
            object.__setattr__(self, name, float(_validate.finite(name, np, np.asarray(value))))
        knots, bends = _validate.numpy_arrays(knots=self.knots, bends=self.bends)
        if knots.ndim != 1 or bends.shape != knots.shape:
            _validate.fail("bends", f"must have the shape (m,) of the knots, got {bends.shape} and {knots.shape}")
        object.__setattr__(self, "knots", _validate.finite("knots", np, knots))
        object.__setattr__(self, "bends", _validate.finite("bends", np, bends))

    @property
    def width(self) -> int:
        """How many ReLU units it takes beside the affine part: its bends that are not 0."""
        return int(np.count_nonzero(self.bends))

    def __call__(self, x: Any) -> np.ndarray:
        """Its values at ``x``, of any shape."""
        (x,) = _validate.numpy_arrays(x=x)
        _validate.finite("x", np, x)
        with np.errstate(over="ignore", invalid="ignore"):
            y = self.intercept + self.slope * x + np.maximum(x[..., None] - self.knots, 0.0) @ self.bends
        _validate.representable("x", np, np.asarray(y))
        return np.asarray(y)

    def network(self, direction: Any = (1.0,), low: float | None = None) -> tuple[Network, Parameters]:
        """The same as a `Network` of one hidden layer, of ``x = direction · input``.

        A network without an affine part needs one more unit for a slope, active wherever ``x >= low``; it equals the
        function there.

        Args:
            direction: ``(d,)``. low: required if the slope is not 0.

        Returns:
            the network, and its parameters ``(m, d)``, ``(m,)``, ``(1, m)``, ``(1,)``.
        """
        (direction,) = _validate.numpy_arrays(direction=direction)
        if direction.ndim != 1 or not direction.size:
            _validate.fail("direction", f"must be (d,), d >= 1, got {direction.shape}")
        _validate.finite("direction", np, direction)
        used = self.bends != 0
        knots, bends, offset = self.knots[used], self.bends[used], self.intercept
        if self.slope or not len(knots):
            if low is None and self.slope:
                _validate.fail("low", "is required: the slope needs a unit that is active from there on")
            start = 0.0 if low is None else _validate.real("low", low, low=-1e100, high=1e100)
            knots, bends = np.append(knots, start), np.append(bends, self.slope)
            offset += self.slope * start
            _validate.representable("low", np, np.asarray(offset))
        parameters = (knots[:, None] * 0 + direction, -knots, bends[None], np.array([offset]))
        return Network((Linear(direction.size, len(knots)), ReLU(), Linear(len(knots), 1))), parameters


def _points(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """At least two points, ``x`` rising."""
    x, y = _validate.numpy_arrays(x=x, y=y)
    if x.ndim != 1 or len(x) < 2 or y.shape != x.shape:
        _validate.fail("y", f"must have the shape (n,), n >= 2, of x, got {y.shape} and {x.shape}")
    for name, value in (("x", x), ("y", y)):
        _validate.finite(name, np, value)
        if np.abs(value).max() > 1e9:
            _validate.fail(name, "must be at most 1e9 in size")
    if np.diff(x).min() < 1e-9:
        _validate.fail("x", "must rise, by at least 1e-9")
    return x, y


def interpolant(x: Any, y: Any) -> KinkedLine:
    """The piecewise-linear function through the points that bends only at them, and only where they do.

    Changes of slope below 1e-9 of the steepest slope beside them count as rounding.

    Args:
        x: ``(n,)``, rising by at least 1e-9. y: ``(n,)``; both at most 1e9 in size.
    """
    x, y = _points(x, y)
    slopes = np.diff(y) / np.diff(x)
    bends = np.diff(slopes)
    rounding = 1e-9 * np.maximum(np.abs(slopes[1:]), np.abs(slopes[:-1]))
    bends = np.where(np.abs(bends) > rounding, bends, 0.0)
    used = bends != 0
    return KinkedLine(float(y[0] - slopes[0] * x[0]), float(slopes[0]), x[1:-1][used], bends[used])


def best_fit_errors(x: Any, y: Any, knots: Any) -> np.ndarray:
    """The least ``max_j |f(x_j) - y_j|`` over functions with the given knots, for many sets of them: ``(K,)``.

    All sets are blocks of one linear programme (HiGHS), in which each is solved to its own optimum.

    Args:
        x: ``(n,)``, rising. y: ``(n,)``. knots: ``(K, m)``, at most 1e9 in size, any order.

    Raises:
        ValueError: shapes, numbers that are not finite. RuntimeError: the solver failed.
    """
    from scipy.optimize import linprog

    x, y = _points(x, y)
    (knots,) = _validate.numpy_arrays(knots=knots)
    if knots.ndim != 2:
        _validate.fail("knots", f"must be (K, m), got {knots.shape}")
    if np.abs(_validate.finite("knots", np, knots)).max(initial=0.0) > 1e9:
        _validate.fail("knots", "must be at most 1e9 in size")
    count, width = knots.shape
    if not count:
        return np.zeros(0)
    size = width + 3  # intercept, slope, bends, error
    _validate.fits("knots", count, float(count) * 2 * len(x) * size, each=40)
    design = np.ones((count, len(x), size - 1))
    design[:, :, 1] = x
    design[:, :, 2:] = np.maximum(x[:, None] - knots[:, None, :], 0.0)
    error = np.full((*design.shape[:2], 1), -1.0)
    above, below = (np.concatenate([sign * design, error], axis=2) for sign in (1.0, -1.0))
    blocks = np.concatenate([above, below], axis=1)  # ±(f(x) - y) <= error
    columns = np.broadcast_to(np.arange(count * size).reshape(count, 1, size), blocks.shape)
    starts = np.arange(count * 2 * len(x) + 1) * size
    matrix = sparse.csr_array((blocks.ravel(), columns.ravel(), starts), shape=(len(starts) - 1, count * size))
    found = linprog(
        np.tile(np.eye(size)[-1], count),
        A_ub=matrix,
        b_ub=np.tile(np.append(y, -y), count),
        bounds=([(None, None)] * (size - 1) + [(0, None)]) * count,
    )
    if found.x is None:
        raise RuntimeError(f"best_fit_errors: the linear programme failed ({found.message})")
    return np.asarray(found.x.reshape(count, size)[:, -1])


def least_error(x: Any, y: Any, grid: Any, width: int) -> float:
    """The least sup error over the points of functions with ``width`` kinks somewhere on the grid.

    Args:
        grid: ``(M,)`` places for kinks, all different. width: 0 … M; all ``binom(M, width)`` sets are tried.
    """
    (grid,) = _validate.numpy_arrays(grid=grid)
    if grid.ndim != 1 or len(np.unique(grid)) < len(grid):
        _validate.fail("grid", f"must be (M,) different places, got shape {grid.shape}")
    width = _validate.integer("width", width, low=0, high=len(grid))
    _validate.fits("width", width, float(math.comb(len(grid), width)) * (width + 3), each=400 * max(np.size(x), 1))
    sets = np.array(list(itertools.combinations(grid, width))).reshape(math.comb(len(grid), width), width)
    return float(best_fit_errors(x, y, sets).min())


def alternation_bound(residual: Any, width: int) -> float:
    """The largest e at which ``width + 3`` residuals of size at least e alternate in sign; 0 if there is none.

    No continuous piecewise-linear function with ``width`` kinks comes closer than e to points that leave these
    residuals from a line.

    Args:
        residual: ``y - line(x)`` in the order of rising x, ``(n,)``. width: >= 0.
    """
    (residual,) = _validate.numpy_arrays(residual=residual)
    if residual.ndim != 1:
        _validate.fail("residual", f"must be (n,), got {residual.shape}")
    _validate.finite("residual", np, residual)
    width = _validate.integer("width", width, low=0)
    for level in np.unique(np.abs(residual[residual != 0]))[::-1]:
        signs = np.sign(residual[np.abs(residual) >= level])
        if 1 + np.count_nonzero(np.diff(signs)) >= width + 3:
            return float(level)
    return 0.0
