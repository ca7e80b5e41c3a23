r"""Multinomial-logistic heads in hyperbolic space, and features of bounded norm for them.

Logits of class k with hyperplane normal ``z_k`` and offset ``r_k``, ``e = z/|z|``:

.. math::

   v_{ball}(x) = \frac{2|z|}{\sqrt c} asinh( \lambda_x \sqrt c <x,e> cosh(2\sqrt c r)
   - (\lambda_x - 1) sinh(2\sqrt c r) )

.. math::

   v_{hyperboloid}(y) = \frac{|z|}{\sqrt c} asinh( \sqrt c ( cosh(\sqrt c r) <y_{1..d}, e>
   - y_0 sinh(\sqrt c r) ) )

Both are signed distances from a hyperplane: ``2|z|`` times that of the point of the ball, ``|z|`` times that of the
point of the hyperboloid. On a Euclidean vector u at the origin's tangent space they are one function,

.. math:: v_{ball}(exp_{ball}(u); z, r) = 2 v_{hyperboloid}(exp_{hyperboloid}(2u); z, 2r),

which is how `HyperbolicHead` evaluates both, with its exact backward pass: no digits are lost at the ball's boundary.
`BoundedFeatures` are ``f(RMSNorm(h))/sqrt(d)``, of norm at most 1 if ``|f(t)| <= |t|``, rescaled by a gate.

Source: ``hyper`` C2-C4, C7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from klsim import _validate
from klsim.learning.hyperbolic import conformal_factor, norm, root_curvature, to_ball

__all__ = [
    "BoundedFeatures",
    "FeatureTape",
    "HeadTape",
    "HyperbolicHead",
    "ball_logits",
    "ball_logits_gradient",
    "bounded_features",
    "hyperboloid_logits",
    "hyperboloid_logits_gradient",
    "largest_scale",
    "rms_norm",
]

Activation = Literal["tanh", "relu"]
Model = Literal["ball", "hyperboloid"]


class _Planes(NamedTuple):
    """Of every class: ``e (K, d)``, ``|z| (K,)``, cosh and sinh of the offset ``(K,)``."""

    unit: np.ndarray
    size: np.ndarray
    cosh: np.ndarray
    sinh: np.ndarray


def _planes(z: Any, r: Any, width: int, factor: float) -> _Planes:
    z, r = _validate.numpy_arrays(z=z, r=r)
    if z.ndim != 2 or z.shape[1] != width or not z.shape[0]:
        _validate.fail("z", f"must have shape (K, {width}), K >= 1, got {z.shape}")
    if r.shape != z.shape[:1]:
        _validate.fail("r", f"must have shape {z.shape[:1]}, got {r.shape}")
    _validate.finite("z", np, z)
    with np.errstate(over="ignore"):
        cosh, sinh = np.cosh(factor * _validate.finite("r", np, r)), np.sinh(factor * r)
    _validate.representable("r", np, cosh)
    size = norm(z)
    return _Planes(z / np.where(size > 0, size, 1), size[:, 0], cosh, sinh)


def _ball(x: Any, z: Any, r: Any, curvature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, _Planes, float]:
    """``x``, ``lambda (..., 1)``, the argument of asinh, planes, ``sqrt(c)``."""
    root = root_curvature(curvature)
    factor = conformal_factor(x, curvature=curvature)[..., None]
    x = _validate.numpy_arrays(x=x)[0]
    planes = _planes(z, r, x.shape[-1], 2 * root)
    argument = factor * root * (x @ planes.unit.T) * planes.cosh - (factor - 1) * planes.sinh
    return x, factor, argument, planes, root


def ball_logits(x: Any, z: Any, r: Any, *, curvature: float = 1.0) -> np.ndarray:
    """Logits of points of the Poincare ball, ``(..., K)`` (module docstring); 0 where ``z_k = 0``.

    Args:
        x: ``(..., d)``, inside the ball. z: ``(K, d)``. r: ``(K,)``.

    Raises:
        ValueError: points outside the ball, shapes that do not fit, values that are not finite.
    """
    *_, argument, planes, root = _ball(x, z, r, curvature)
    return np.asarray(2 * planes.size / root * np.arcsinh(argument))


def ball_logits_gradient(x: Any, z: Any, r: Any, *, curvature: float = 1.0) -> np.ndarray:
    """Gradient of every logit in the coordinates of x, ``(..., K, d)``; arguments as `ball_logits`.

    ``2|z| (1 + a^2)^{-1/2} lambda (e cosh + sqrt(c) lambda x (sqrt(c)<x,e> cosh - sinh))``, a the argument of asinh: of
    order ``lambda`` (not ``lambda^2``) at the boundary.
    """
    x, factor, argument, planes, root = _ball(x, z, r, curvature)
    inner = (root * (x @ planes.unit.T) * planes.cosh - planes.sinh)[..., None]
    slope = factor[..., None] * (
        planes.cosh[:, None] * planes.unit + root * factor[..., None] * x[..., None, :] * inner
    )
    return np.asarray(2 * (planes.size / np.hypot(1, argument))[..., None] * slope)


def _hyperboloid(y: Any, z: Any, r: Any, curvature: float) -> tuple[np.ndarray, _Planes, float]:
    root = root_curvature(curvature)
    to_ball(y, curvature=curvature)  # its doors
    y = _validate.numpy_arrays(y=y)[0]
    planes = _planes(z, r, y.shape[-1] - 1, root)
    argument = root * (planes.cosh * (y[..., 1:] @ planes.unit.T) - y[..., :1] * planes.sinh)
    return argument, planes, root


def hyperboloid_logits(y: Any, z: Any, r: Any, *, curvature: float = 1.0) -> np.ndarray:
    """Logits of points of the hyperboloid, ``(..., K)`` (module docstring); 0 where ``z_k = 0``.

    Args:
        y: ``(..., d+1)``, on the hyperboloid. z: ``(K, d)``. r: ``(K,)``.

    Raises:
        ValueError: points that are not on the hyperboloid, shapes that do not fit, values that are not finite.
    """
    argument, planes, root = _hyperboloid(y, z, r, curvature)
    return np.asarray(planes.size / root * np.arcsinh(argument))


def hyperboloid_logits_gradient(y: Any, z: Any, r: Any, *, curvature: float = 1.0) -> np.ndarray:
    """Gradient of every logit in the d+1 coordinates of y, ``(..., K, d+1)``; arguments as `hyperboloid_logits`.

    ``|z| (1 + a^2)^{-1/2} (-sinh(sqrt(c) r), cosh(sqrt(c) r) e)``, a the argument of asinh: bounded.
    """
    argument, planes, _ = _hyperboloid(y, z, r, curvature)
    direction = np.concatenate([-planes.sinh[:, None], planes.cosh[:, None] * planes.unit], axis=-1)
    return np.asarray((planes.size / np.hypot(1, argument))[..., None] * direction)


class HeadTape(NamedTuple):
    """What `HyperbolicHead.forward` leaves for the backward pass."""

    head: HyperbolicHead
    direction: np.ndarray
    over_size: np.ndarray
    sinh: np.ndarray
    cosh: np.ndarray
    along: np.ndarray
    planes: _Planes
    argument: np.ndarray


@dataclass(frozen=True)
class HyperbolicHead:
    """Logits of Euclidean vectors u through the exponential map at the origin, for copies (seeds) at once.

    ``v = (k|z|/sqrt(c)) asinh(sinh(s) <u/|u|, e> cosh(k sqrt(c) r) - cosh(s) sinh(k sqrt(c) r))``, ``s = k sqrt(c)|u|``
    k = 2 for the ball and 1 for the hyperboloid.

    Attributes:
        model: ``"ball"`` or ``"hyperboloid"``. curvature: c.
        clamp: M; the argument a of asinh becomes ``M tanh(a/M)``, which has no gradient beyond; ``inf``: as it is.

    Raises:
        ValueError: an unknown model, a curvature outside [1e-12, 1e12], a clamp that is not > 0.
    """

    model: Model
    curvature: float = 1.0
    clamp: float = math.inf

    def __post_init__(self) -> None:
        _validate.one_of("model", self.model, ("ball", "hyperboloid"))
        root_curvature(self.curvature)
        _validate.real("clamp", self.clamp, low=0.0, open_low=True)

    @property
    def factor(self) -> float:
        """``k sqrt(c)``."""
        return (2.0 if self.model == "ball" else 1.0) * root_curvature(self.curvature)

    def forward(self, u: Any, z: Any, r: Any) -> tuple[np.ndarray, HeadTape]:
        """Logits ``(..., n, K)`` for ``u (..., n, d)``, ``z (..., K, d)``, ``r (..., K)``.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, a result that overflows.
        """
        u, z, r = (_validate.finite(n, np, a) for n, a in zip("uzr", _validate.numpy_arrays(u=u, z=z, r=r)))
        if u.ndim < 2 or z.ndim != u.ndim or z.shape[:-2] != u.shape[:-2] or z.shape[-1] != u.shape[-1]:
            _validate.fail("z", f"must be (..., K, d) for u (..., n, d), got {z.shape} and {u.shape}")
        if r.shape != z.shape[:-1]:
            _validate.fail("r", f"must have shape {z.shape[:-1]}, got {r.shape}")
        k, size, length = self.factor, norm(u), norm(z)
        with np.errstate(over="ignore", invalid="ignore"):
            safe, sinh, cosh = np.where(size > 0, size, 1), np.sinh(k * size), np.cosh(k * size)
            offset = k * r[..., None, :]
            planes = _Planes(z / np.where(length > 0, length, 1), length[..., 0], np.cosh(offset), np.sinh(offset))
            over_size = np.where(size > 0, sinh / safe, k)
            along = (u @ np.swapaxes(planes.unit, -1, -2)) / safe
            argument = sinh * along * planes.cosh - cosh * planes.sinh
            if math.isfinite(self.clamp):
                argument = self.clamp * np.tanh(argument / self.clamp)
            logits = self._scale(planes) * np.arcsinh(argument)
        _validate.representable("u", np, logits, cosh, argument)
        return logits, HeadTape(self, u / safe, over_size, sinh, cosh, along, planes, argument)

    def _scale(self, planes: _Planes) -> np.ndarray:
        """``k|z|/sqrt(c)``, ``(..., 1, K)``."""
        return np.asarray(self.factor / self.curvature * planes.size[..., None, :])

    def backward(self, tape: HeadTape, upstream: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients in ``u``, ``z`` and ``r`` (0 in ``z_k = 0``, where there is none) from that in the logits.

        Raises:
            ValueError: a tape of another head, an upstream of another shape or not finite.
        """
        _validate.instance("tape", tape, HeadTape)
        if tape.head != self:
            _validate.fail("tape", f"is of {tape.head}")
        (upstream,) = _validate.numpy_arrays(upstream=upstream)
        if upstream.shape != tape.argument.shape:
            _validate.fail("upstream", f"must have shape {tape.argument.shape}, got {upstream.shape}")
        _validate.finite("upstream", np, upstream)
        k, planes, argument = self.factor, tape.planes, tape.argument
        per_length = upstream * (k / self.curvature) / np.hypot(1, argument)
        if math.isfinite(self.clamp):
            per_length = per_length * (1 - (argument / self.clamp) ** 2)
        push = per_length * planes.size[..., None, :]
        outward = np.sum(
            push * (tape.cosh * tape.along * planes.cosh - tape.sinh * planes.sinh), axis=-1, keepdims=True
        )
        across = tape.over_size * push * planes.cosh  # per class along e, of which the radial part is left out
        inner = np.sum(across * tape.along, axis=-1, keepdims=True)
        in_u = across @ planes.unit + (k * outward - inner) * tape.direction
        turn = np.swapaxes(per_length * tape.sinh * planes.cosh, -1, -2) @ tape.direction
        turn = turn - np.sum(turn * planes.unit, axis=-1, keepdims=True) * planes.unit
        length = np.sum(upstream * (k / self.curvature) * np.arcsinh(argument), axis=-2)
        in_z = np.where(planes.size[..., None] > 0, turn + length[..., None] * planes.unit, 0.0)
        in_r = k * np.sum(push * (tape.sinh * tape.along * planes.sinh - tape.cosh * planes.cosh), axis=-2)
        return in_u, in_z, in_r


def rms_norm(h: Any, *, epsilon: float = 1e-8) -> np.ndarray:
    """``h/sqrt(mean(h^2) + epsilon)`` over the last axis (RMSNorm without weights): of norm below ``sqrt(d)``.

    Raises:
        ValueError: values that are not finite or above 1e150, epsilon outside [0, 1e100].
    """
    epsilon = _validate.real("epsilon", epsilon, low=0.0, high=1e100)
    h = _bounded(h)
    size = norm(h) / math.sqrt(h.shape[-1])
    root = np.hypot(size, math.sqrt(epsilon))
    return np.asarray(h / np.where(root > 0, root, 1))


def _bounded(h: Any) -> np.ndarray:
    (h,) = _validate.numpy_arrays(h=h)
    if h.ndim < 1 or h.shape[-1] < 1:
        _validate.fail("h", f"needs a last axis of at least one feature, got shape {h.shape}")
    index = _validate.first_true(np, ~(np.abs(h) <= (1e150 if h.dtype == np.float64 else 1e30)))
    if index is not None:
        _validate.fail("h", "must be finite, at most 1e150 in size (1e30 in float32)", float(h[index]), index)
    return h


def bounded_features(
    h: Any, *, activation: Activation | Callable[[np.ndarray], np.ndarray] = "tanh", epsilon: float = 1e-8
) -> np.ndarray:
    """``f(RMSNorm(h))/sqrt(d)``: of norm at most 1 for every f with ``|f(t)| <= |t|``, as tanh and ReLU have.

    Args:
        h: ``(..., d)``. activation: a name, or a function of arrays, element by element.

    Raises:
        ValueError: as `rms_norm`; an activation that changes the shape or is not finite.
    """
    h = _bounded(h)
    if callable(activation):
        chosen = _validate.function("activation", activation)
    else:
        chosen = _FUNCTIONS[_validate.one_of("activation", activation, tuple(_FUNCTIONS))]
    active = np.asarray(chosen(rms_norm(h, epsilon=epsilon)))
    if active.shape != h.shape or not np.all(np.isfinite(active)):
        _validate.fail("activation", f"must keep the shape {h.shape} and give finite values")
    return np.asarray(active / math.sqrt(h.shape[-1]))


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products over the last axis, kept as an axis of one."""
    return np.asarray(np.einsum("...i,...i->...", a, b)[..., None])


def _relu(t: np.ndarray) -> np.ndarray:
    return np.maximum(t, 0)


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tanh": np.tanh, "relu": _relu}


def largest_scale(alpha: float = 0.95, *, curvature: float = 1.0) -> float:
    """``rho_max = atanh(alpha)/sqrt(c)``: ``ball_exp`` of a vector of that norm has ``sqrt(c)|x| = alpha``.

    Raises:
        ValueError: alpha outside (0, 1).
    """
    alpha = _validate.real("alpha", alpha, low=0.0, high=1.0, open_low=True, open_high=True)
    return math.atanh(alpha) / root_curvature(curvature)


class FeatureTape(NamedTuple):
    """What `BoundedFeatures.forward` leaves for the backward pass."""

    h: np.ndarray
    root: np.ndarray
    active: np.ndarray
    bounded: np.ndarray
    gate: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class BoundedFeatures:
    """``rho sigmoid(w . q + b) q`` with ``q = f(RMSNorm(h))/sqrt(d)``: of norm below rho; with its backward pass.

    Attributes:
        scale: rho, `largest_scale`; None: q itself, without a gate.
        activation: ``"tanh"`` or ``"relu"``. epsilon: of RMSNorm. normalise: False leaves RMSNorm out.

    Raises:
        ValueError: a scale that is not in (0, 1e100], an unknown activation, an epsilon outside [0, 1e100].
    """

    scale: float | None
    activation: Activation = "tanh"
    epsilon: float = 1e-8
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.scale is not None:
            _validate.real("scale", self.scale, low=0.0, high=1e100, open_low=True)
        _validate.one_of("activation", self.activation, tuple(_FUNCTIONS))
        _validate.real("epsilon", self.epsilon, low=0.0, high=1e100)
        _validate.flag("normalise", self.normalise)

    def forward(self, h: Any, w: Any, b: Any) -> tuple[np.ndarray, FeatureTape]:
        """Features ``(..., n, d)`` of ``h (..., n, d)`` with the gate ``w (..., d)``, ``b (...)``.

        Raises:
            ValueError: shapes that do not fit, values that are not finite or above 1e150.
        """
        h = _bounded(h)
        w, b = (_validate.finite(n, np, a) for n, a in zip("wb", _validate.numpy_arrays(w=w, b=b)))
        if h.ndim < 2 or w.shape != (*h.shape[:-2], h.shape[-1]) or b.shape != h.shape[:-2]:
            _validate.fail("w", f"needs w (..., d) and b (...) for h (..., n, d), got {w.shape}, {b.shape}, {h.shape}")
        root = np.ones_like(h[..., :1])
        if self.normalise:
            root = np.hypot(norm(h) / math.sqrt(h.shape[-1]), math.sqrt(self.epsilon))
            root = np.where(root > 0, root, 1)
        active = _FUNCTIONS[self.activation](h / root)
        bounded = active / math.sqrt(h.shape[-1])
        with np.errstate(over="ignore"):
            gate = 1 / (1 + np.exp(-(bounded @ w[..., None] + b[..., None, None])))
        found = bounded if self.scale is None else self.scale * gate * bounded
        return found, FeatureTape(h, root, active, bounded, gate, w)

    def backward(self, tape: FeatureTape, upstream: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients in ``h``, ``w`` and ``b`` (0 without a gate) from that in the features.

        Raises:
            ValueError: an upstream of another shape, or not finite.
        """
        _validate.instance("tape", tape, FeatureTape)
        (upstream,) = _validate.numpy_arrays(upstream=upstream)
        if upstream.shape != tape.h.shape:
            _validate.fail("upstream", f"must have shape {tape.h.shape}, got {upstream.shape}")
        slope, lift = _validate.finite("upstream", np, upstream), np.zeros_like(tape.gate)
        if self.scale is not None:
            lift = _products(slope, tape.bounded) * self.scale * tape.gate * (1 - tape.gate)
            slope = self.scale * tape.gate * slope + lift * tape.weight[..., None, :]
        in_w, in_b = np.sum(lift * tape.bounded, axis=-2), np.sum(lift, axis=(-1, -2))
        inside = 1 - tape.active**2 if self.activation == "tanh" else (tape.active > 0).astype(slope.dtype)
        slope = slope * inside / math.sqrt(tape.h.shape[-1])
        if self.normalise:  # d(h/root): the radial part is damped, by epsilon/root^2
            unit = tape.h / tape.root
            slope = (slope - unit * (_products(slope, unit) / unit.shape[-1])) / tape.root
        return slope, in_w, in_b
