r"""Hyperbolic space of curvature ``-c``: the Poincare ball and the hyperboloid, their maps, distances and gradients.

Both are the same space in two charts.

* Ball: ``x (..., d)`` with ``sqrt(c)|x| < 1``, metric ``lambda_x^2 |dx|^2``, ``lambda_x = 2/(1 - c|x|^2)``.
* Hyperboloid: ``y (..., d+1)``, ``c(y_0^2 - |y_1..d|^2) = 1``, ``y_0 > 0``; metric ``|dy_1..d|^2 - dy_0^2``.

The isometry takes x to ``((lambda_x - 1)/sqrt(c), lambda_x x)``. The exponential maps at the origin take a Euclidean
vector u to the point in its direction at distance ``2|u|`` (ball, whose metric at the origin is ``4|dx|^2``) and
``|u|`` (hyperboloid): fed with the same u the ball goes twice as far,

.. math:: iso(exp_{ball}(u)) = exp_{hyperboloid}(2u).

Rounding: near its boundary the ball has few digits left, as ``1 - c|x|^2 = 1/cosh^2(sqrt(c)|u|)`` is a difference of
nearly equal numbers: the relative error of ``lambda`` is about ``eps lambda``, and from ``sqrt(c)|u|`` about 19 on in
float64 (9 or 10 in float32) ``tanh`` rounds to 1 and the point to the boundary, where there is no metric: the functions
refuse it, `clip_to_ball` moves it inside. The hyperboloid keeps relative precision until ``cosh`` overflows.

All functions keep float32 and float64. Source: ``hyper`` C1, C5; the distance formulas are standard.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate

__all__ = [
    "ball_distance",
    "ball_exp",
    "ball_gradient",
    "ball_log",
    "clip_to_ball",
    "conformal_factor",
    "hyperboloid_distance",
    "hyperboloid_exp",
    "hyperboloid_gradient",
    "hyperboloid_log",
    "log_volume",
    "norm",
    "root_curvature",
    "to_ball",
    "to_hyperboloid",
]


def root_curvature(curvature: Any) -> float:
    """``sqrt(c)`` for a curvature ``-c``, c in [1e-12, 1e12].

    Raises:
        ValueError: outside, NaN.
    """
    return math.sqrt(_validate.real("curvature", curvature, low=1e-12, high=1e12))


def norm(x: Any) -> np.ndarray:
    """Euclidean norm over the last axis, kept as an axis of one, ``(..., 1)``; squares neither overflow nor vanish.

    Raises:
        ValueError: no last axis, values that are not finite.
    """
    return _norm(_vectors("x", x))


def _norm(x: np.ndarray) -> np.ndarray:
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore", under="ignore"):
        squared = np.einsum("...i,...i->...", x, x)[..., None]
    if squared.size and squared.min() > info.tiny / info.eps and squared.max() < info.max:  # the usual case
        return np.asarray(np.sqrt(squared))
    top = np.abs(x).max(axis=-1, keepdims=True)
    safe = np.where(top > 0, top, 1)
    return np.asarray(top * np.sqrt(np.sum((x / safe) ** 2, axis=-1, keepdims=True)), dtype=x.dtype)


def _vectors(name: str, value: Any) -> np.ndarray:
    (array,) = _validate.numpy_arrays(**{name: value})
    if array.ndim < 1 or array.shape[-1] < 1:
        _validate.fail(name, f"needs a last axis of at least one coordinate, got shape {array.shape}")
    return np.asarray(_validate.finite(name, np, array))


def _in_ball(name: str, value: Any, root: float) -> tuple[np.ndarray, np.ndarray]:
    """Points, and ``1 - c|x|^2`` (..., 1)."""
    x = _vectors(name, value)
    radius = root * _norm(x)
    index = _validate.first_true(np, ~(radius < 1))
    if index is not None:
        rule = (
            f"must lie inside the ball, sqrt(c)|x| < 1, got {float(radius[index]):.17g} (clip_to_ball moves it inside)"
        )
        _validate.fail(name, rule, index=index[:-1])
    return x, (1 - radius) * (1 + radius)


def _on_hyperboloid(name: str, value: Any, root: float) -> np.ndarray:
    y = _vectors(name, value)
    if y.shape[-1] < 2:
        _validate.fail(name, f"needs at least two coordinates (y_0 first), got shape {y.shape}")
    time, rest = root * y[..., :1], root * _norm(y[..., 1:])
    off = np.abs(time - np.hypot(1, rest)) > 1e2 * math.sqrt(np.finfo(y.dtype).eps) * np.hypot(1, rest)
    index = _validate.first_true(np, off | (time <= 0))
    if index is not None:
        _validate.fail(name, "must satisfy c(y_0^2 - |y_1..d|^2) = 1 with y_0 > 0", index=index[:-1])
    return y


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """``top/bottom``, 1 where both are 0 (as tanh, sinh and their inverses over their arguments)."""
    return np.asarray(np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 1), dtype=bottom.dtype)


def conformal_factor(x: Any, *, curvature: float = 1.0) -> np.ndarray:
    """``lambda_x = 2/(1 - c|x|^2)``, by which the ball's metric stretches lengths; ``(...)`` for ``x (..., d)``.

    ``lambda = 2 cosh^2(sqrt(c)|u|)`` at ``x = ball_exp(u)``, about ``exp(sqrt(c) R)/2`` at distance R from the origin.

    Raises:
        ValueError: points that are not inside the ball, values that are not finite.
    """
    return np.asarray(2 / _in_ball("x", x, root_curvature(curvature))[1][..., 0])


def ball_exp(u: Any, *, curvature: float = 1.0) -> np.ndarray:
    """``tanh(sqrt(c)|u|) u/(sqrt(c)|u|)``, the point at distance ``2|u|`` from the origin; 0 at 0. ``(..., d)``.

    On the boundary itself, where no function of the ball takes it, once tanh rounds to 1 (module docstring).
    """
    root, u = root_curvature(curvature), _vectors("u", u)
    length = _norm(u)
    size = root * length
    _validate.representable("u", np, size)
    unit = u / np.where(length > 0, length, 1)  # first, so that no product of roundings is left at the boundary
    return np.asarray(np.tanh(size) / root * unit)


def ball_log(x: Any, *, curvature: float = 1.0) -> np.ndarray:
    """The u with ``ball_exp(u) = x``: ``atanh(sqrt(c)|x|) x/(sqrt(c)|x|)``.

    Raises:
        ValueError: points that are not inside the ball.
    """
    root = root_curvature(curvature)
    x, gap = _in_ball("x", x, root)
    size = root * _norm(x)
    return np.asarray(_ratio(np.arcsinh(size / np.sqrt(gap)), size) * x)  # atanh s = asinh(s/sqrt(1 - s^2))


def hyperboloid_exp(u: Any, *, curvature: float = 1.0) -> np.ndarray:
    """``(cosh(sqrt(c)|u|), sinh(sqrt(c)|u|) u/|u|)/sqrt(c)``, at distance ``|u|``; ``(..., d) -> (..., d+1)``.

    Raises:
        ValueError: a u whose point overflows (sqrt(c)|u| above 710 in float64, 89 in float32).
    """
    root, u = root_curvature(curvature), _vectors("u", u)
    size = root * _norm(u)
    with np.errstate(over="ignore", invalid="ignore"):
        point = np.concatenate([np.cosh(size) / root, _ratio(np.sinh(size), size) * u], axis=-1)
    _validate.representable("u", np, point)
    return np.asarray(point.astype(u.dtype, copy=False))


def hyperboloid_log(y: Any, *, curvature: float = 1.0) -> np.ndarray:
    """The u with ``hyperboloid_exp(u) = y``, ``(..., d+1) -> (..., d)``.

    Raises:
        ValueError: points that are not on the hyperboloid.
    """
    root = root_curvature(curvature)
    rest = _on_hyperboloid("y", y, root)[..., 1:]
    size = root * _norm(rest)
    return np.asarray(_ratio(np.arcsinh(size), size) * rest)


def to_hyperboloid(x: Any, *, curvature: float = 1.0) -> np.ndarray:
    """The isometry from the ball: ``((1 + c|x|^2)/sqrt(c), 2x)/(1 - c|x|^2)``; ``(..., d) -> (..., d+1)``.

    Raises:
        ValueError: points that are not inside the ball.
    """
    root = root_curvature(curvature)
    x, gap = _in_ball("x", x, root)
    return np.concatenate([(2 - gap) / (gap * root), 2 * x / gap], axis=-1, dtype=x.dtype)


def to_ball(y: Any, *, curvature: float = 1.0) -> np.ndarray:
    """The isometry from the hyperboloid: ``y_1..d/(1 + sqrt(c) y_0)``; ``(..., d+1) -> (..., d)``.

    Raises:
        ValueError: points that are not on the hyperboloid.
    """
    root = root_curvature(curvature)
    y = _on_hyperboloid("y", y, root)
    return np.asarray(y[..., 1:] / (1 + root * y[..., :1]), dtype=y.dtype)


def ball_distance(x: Any, other: Any, *, curvature: float = 1.0) -> np.ndarray:
    """``(2/sqrt(c)) asinh(sqrt(c)|x - x'|/sqrt((1 - c|x|^2)(1 - c|x'|^2)))``; ``(...)``, leading axes broadcast.

    Raises:
        ValueError: points that are not inside the ball, shapes that do not broadcast.
    """
    root = root_curvature(curvature)
    (x, gap), (other, other_gap) = _in_ball("x", x, root), _in_ball("other", other, root)
    _validate.same_last_axis(x=x, other=other)
    apart = root * _norm(x - other) / (np.sqrt(gap) * np.sqrt(other_gap))
    return np.asarray(2 / root * np.arcsinh(apart))[..., 0]


def hyperboloid_distance(y: Any, other: Any, *, curvature: float = 1.0) -> np.ndarray:
    r"""``arcosh(-c<y, y'>)/sqrt(c)`` with ``<y, y'> = -y_0 y'_0 + sum_i y_i y'_i``; ``(...)``.

    Computed from distances ``rho, rho'`` to the origin and directions ``e, e'``, without cancellation:
    ``sinh^2(D/2) = sinh^2((rho - rho')/2) + sinh(rho) sinh(rho') |e - e'|^2/4``, all in units of ``1/sqrt(c)``.

    Raises:
        ValueError: points that are not on the hyperboloid, shapes that do not broadcast.
    """
    root = root_curvature(curvature)
    y, other = _on_hyperboloid("y", y, root), _on_hyperboloid("other", other, root)
    _validate.same_last_axis(y=y, other=other)
    size, other_size = root * _norm(y[..., 1:]), root * _norm(other[..., 1:])
    units = [root * p[..., 1:] / np.where(n > 0, n, 1) for p, n in ((y, size), (other, other_size))]
    radial = np.sinh((np.arcsinh(size) - np.arcsinh(other_size)) / 2)
    across = np.sqrt(size) * np.sqrt(other_size) * _norm(units[0] - units[1]) / 2
    return np.asarray(2 / root * np.arcsinh(np.hypot(radial, across)))[..., 0]


def clip_to_ball(x: Any, *, curvature: float = 1.0, margin: float = 1e-5) -> np.ndarray:
    """``x`` shortened to ``sqrt(c)|x| <= 1 - margin`` where it is longer, in the same direction; any finite x.

    ``margin`` in (0, 1), at least four units of rounding of the array's kind.
    """
    root, x = root_curvature(curvature), _vectors("x", x)
    margin = _validate.real("margin", margin, low=4 * float(np.finfo(x.dtype).eps), high=1.0, open_high=True)
    size = root * _norm(x)
    _validate.representable("x", np, size)
    return np.asarray(np.where(size > 1 - margin, x * ((1 - margin) / np.where(size > 0, size, 1)), x), dtype=x.dtype)


def _pair(name: str, point: np.ndarray, gradient: Any) -> np.ndarray:
    gradient = _vectors("gradient", gradient)
    _validate.same_last_axis(**{name: point, "gradient": gradient})
    return gradient


def ball_gradient(x: Any, gradient: Any, *, curvature: float = 1.0) -> np.ndarray:
    """Riemannian gradient of a function with Euclidean ``gradient`` at x: ``gradient/lambda_x^2``, ``(..., d)``.

    Its length in the metric is ``|gradient|/lambda_x``: what grows with ``lambda`` towards the boundary in coordinates
    need not grow in the space.

    Raises:
        ValueError: points that are not inside the ball, shapes that do not broadcast.
    """
    x, gap = _in_ball("x", x, root_curvature(curvature))
    return np.asarray(_pair("x", x, gradient) * (gap / 2) ** 2)


def hyperboloid_gradient(y: Any, gradient: Any, *, curvature: float = 1.0) -> np.ndarray:
    """Riemannian gradient at y of a function with ``gradient`` in the d+1 coordinates, ``(..., d+1)``.

    ``J g + c (y . g) y`` with ``J g = (-g_0, g_1..d)``: the part of ``J g`` that is tangent, ``<y, .> = 0``.

    Raises:
        ValueError: points that are not on the hyperboloid, shapes that do not broadcast, a result that overflows.
    """
    root = root_curvature(curvature)
    y = _on_hyperboloid("y", y, root)
    gradient = _pair("y", y, gradient)
    flipped = np.concatenate([-gradient[..., :1], gradient[..., 1:]], axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        found = flipped + root**2 * np.sum(y * gradient, axis=-1, keepdims=True) * y
    _validate.representable("gradient", np, found)
    return np.asarray(found)


def log_volume(radius: Any, dimension: int, *, curvature: float = 1.0) -> np.ndarray:
    r"""Log volume of a ball of hyperbolic radius R, ``|S^{d-1}| int_0^R (sinh(sqrt(c)s)/sqrt(c))^{d-1} ds``.

    By ``int_0^t sinh^{d-1} = (sinh^d t)/(d cosh t) 2F1(1/2, 1; d/2 + 1; tanh^2 t)``, a series of positive terms.

    Args:
        radius: any shape, > 0. dimension: d >= 1.

    Raises:
        ValueError: a radius that is not finite and > 0.
    """
    from scipy.special import gammaln, hyp2f1

    root, d = root_curvature(curvature), _validate.integer("dimension", dimension, low=1, high=10**6)
    (radius,) = _validate.numpy_arrays(radius=radius)
    t = root * _validate.positive("radius", np, radius)
    sphere = math.log(2) + d / 2 * math.log(math.pi) - float(gammaln(d / 2))
    scale = sphere - d * math.log(root)
    if d == 1:
        return np.asarray(scale + np.log(t))
    log_sinh, log_cosh = t + np.log(-np.expm1(-2 * t)) - math.log(2), t + np.log1p(np.exp(-2 * t)) - math.log(2)
    return np.asarray(
        scale + d * log_sinh - log_cosh - math.log(d) + np.log(hyp2f1(0.5, 1.0, d / 2 + 1, np.tanh(t) ** 2))
    )
