r"""Small networks in NumPy: forward, exact backward, in float64, float32 or bfloat16, batched over seeds.

A `Network` is a tuple of layers; its parameters are a tuple of arrays, the weights ``(..., out, in)`` and the bias
``(..., out)`` of every `Linear` in order. Leading axes ``...`` are independent copies (seeds): one call moves all.

::

    network = Network((Linear(4, 16), Tanh(), Linear(16, 3)))
    parameters = network.start(rng, copies=(20,))  # 20 seeds
    logits, tape = network.forward(parameters, x)  # x: (n, 4) or (20, n, 4)
    loss, slope = softmax_cross_entropy(logits, target)  # (20, n), (20, n, 3)
    gradients, _ = network.backward(parameters, tape, slope / n)
    parameters, optimisers = update(start_all(SGD(0.1), parameters), parameters, gradients)

Precision is explicit. In float32 and bfloat16 arrays are float32; a bfloat16 network rounds every input, parameter and
result of a layer to bfloat16 and accumulates products in float32, as accelerators do. `update` takes the parameters as
they are stored: ``storage="bfloat16"`` rounds them after every step (steps below half a unit in the last place are then
lost), while float32 masters are kept by ``storage="float32"`` and rounded where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np

from klsim import _validate
from klsim.learning.softmax_step import SGD, Adam

__all__ = [
    "Linear",
    "Network",
    "Precision",
    "ReLU",
    "Tanh",
    "Tape",
    "rounded",
    "softmax_cross_entropy",
    "start_all",
    "update",
]

Precision = Literal["float64", "float32", "bfloat16"]
"""What numbers are rounded to after every operation."""
PRECISIONS = ("float64", "float32", "bfloat16")
Parameters = tuple[np.ndarray, ...]
Optimiser = TypeVar("Optimiser", SGD, Adam)


def rounded(x: Any, precision: Precision) -> np.ndarray:
    """``x`` rounded to nearest, ties to even: float64 as it is, float32, or bfloat16 (held in a float32 array).

    One rounding: float64 does not go to bfloat16 by way of a rounded float32. What is too large becomes ``inf``.

    Raises:
        ValueError: NaN, an unknown precision.
    """
    (x,) = _validate.numpy_arrays(x=x)
    _validate.one_of("precision", precision, PRECISIONS)
    index = _validate.first_true(np, np.isnan(x))
    if index is not None:
        _validate.fail("x", "must not be NaN", index=index)
    return _rounded(x, precision)


def _rounded(x: np.ndarray, precision: str) -> np.ndarray:
    if precision == "float32" and x.dtype == np.float32:  # the inner loops'; the rest costs more than their sums
        return x
    if precision == "float64":
        return x.astype(np.float64, copy=False)
    with np.errstate(over="ignore", under="ignore"):
        single = x.astype(np.float32, copy=False)
        if precision == "float32":
            return single
        if x.dtype != np.float32:  # a float32 halfway between two bfloat16 that x is not: keep x's side of it
            halfway = single.view(np.uint32) & np.uint32(0xFFFF) == np.uint32(0x8000)
            aside = np.nextafter(single, np.where(x > single, np.inf, -np.inf).astype(np.float32))
            single = np.where(halfway & (x != single), aside, single)
        import ml_dtypes

        return single.astype(ml_dtypes.bfloat16).astype(np.float32)


@dataclass(frozen=True)
class Linear:
    """``y = x W^T + b`` with ``W (..., out, in)`` and, unless ``bias`` is False, ``b (..., out)``."""

    inputs: int
    outputs: int
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            _validate.integer(name, getattr(self, name), low=1)
        _validate.flag("bias", self.bias)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of its parameters, without leading axes."""
        weights = (self.outputs, self.inputs)
        return (weights, (self.outputs,)) if self.bias else (weights,)

    def forward(self, own: Parameters, x: np.ndarray) -> np.ndarray:
        """``(..., n, in) -> (..., n, out)``."""
        y = x @ np.swapaxes(own[0], -1, -2)
        return y + own[1][..., None, :] if self.bias else y

    def backward(
        self, own: Parameters, x: np.ndarray, y: np.ndarray, upstream: np.ndarray
    ) -> tuple[Parameters, np.ndarray]:
        """Gradients in the parameters and in ``x`` from that in ``y``."""
        weights = np.swapaxes(upstream, -1, -2) @ x
        return ((weights, upstream.sum(axis=-2)) if self.bias else (weights,)), upstream @ own[0]


@dataclass(frozen=True)
class _Elementwise:
    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """It has no parameters."""
        return ()


@dataclass(frozen=True)
class ReLU(_Elementwise):
    """``max(x, 0)``, with derivative 0 at 0."""

    def forward(self, own: Parameters, x: np.ndarray) -> np.ndarray:
        """Elementwise."""
        return np.maximum(x, 0)

    def backward(
        self, own: Parameters, x: np.ndarray, y: np.ndarray, upstream: np.ndarray
    ) -> tuple[Parameters, np.ndarray]:
        """Gradient in ``x``."""
        return (), upstream * (x > 0)


@dataclass(frozen=True)
class Tanh(_Elementwise):
    """The layer ``tanh x``, element by element."""

    def forward(self, own: Parameters, x: np.ndarray) -> np.ndarray:
        """Elementwise."""
        return np.tanh(x)

    def backward(
        self, own: Parameters, x: np.ndarray, y: np.ndarray, upstream: np.ndarray
    ) -> tuple[Parameters, np.ndarray]:
        """Gradient in ``x``: ``(1 - y²)`` of that in ``y``."""
        return (), upstream * (1 - y * y)


@dataclass(frozen=True)
class Tape:
    """What a forward pass leaves for the backward pass: the input of every layer, and the output."""

    values: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Network:
    """Layers in order, and the precision in which they compute.

    Raises:
        ValueError: no layer, widths that do not fit, an unknown precision.
    """

    layers: tuple[Linear | ReLU | Tanh, ...]
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        layers = tuple(_validate.sequence("layers", self.layers, of=(Linear, ReLU, Tanh)))
        if not layers:
            _validate.fail("layers", "needs at least one layer")
        _validate.one_of("precision", self.precision, PRECISIONS)
        linear = [layer for layer in layers if isinstance(layer, Linear)]
        for before, after in pairwise(linear):
            if before.outputs != after.inputs:
                _validate.fail("layers", f"a layer of {after.inputs} inputs follows one of {before.outputs} outputs")
        object.__setattr__(self, "layers", layers)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all parameters, without leading axes."""
        return tuple(shape for layer in self.layers for shape in layer.shapes)

    def start(
        self, rng: np.random.Generator | int, *, copies: Sequence[int] = (), gain: float = 1.0
    ) -> tuple[np.ndarray, ...]:
        """Weights ``gain * N(0, 1/in)`` and biases 0, with leading axes ``copies``, in the network's precision."""
        rng, gain = _validate.generator(rng), _validate.real("gain", gain, low=0.0, high=1e6)
        lead = tuple(_validate.integer("copies", k, low=0) for k in _validate.sequence("copies", copies))
        out = []
        for shape in self.shapes:
            if len(shape) == 1:
                made = np.zeros((*lead, *shape))
            else:
                made = gain / np.sqrt(shape[1]) * rng.standard_normal((*lead, *shape))
            out.append(_rounded(made, self.precision))
        return tuple(out)

    def _checked(self, parameters: Any) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
        """Parameters in the network's precision, and their leading axes."""
        shapes = self.shapes
        given = _validate.sequence("parameters", parameters)
        if len(given) != len(shapes):
            _validate.fail("parameters", f"needs {len(shapes)} arrays, got {len(given)}")
        own = [_validate.numpy_arrays(**{f"parameters[{i}]": p})[0] for i, p in enumerate(given)]
        lead = own[0].shape[: own[0].ndim - len(shapes[0])] if shapes else ()
        for i, (array, shape) in enumerate(zip(own, shapes)):
            if array.shape != (*lead, *shape):
                _validate.fail(f"parameters[{i}]", f"must have shape {(*lead, *shape)}, got {array.shape}")
        return tuple(_rounded(p, self.precision) for p in own), lead

    def forward(self, parameters: Any, x: Any) -> tuple[np.ndarray, Tape]:
        """Outputs ``(..., n, out)`` for inputs ``x (n, in)`` (the same for all copies) or ``(..., n, in)``.

        Raises:
            ValueError: shapes that do not fit, inputs that are not finite, a result that overflows.
        """
        own, lead = self._checked(parameters)
        (x,) = _validate.numpy_arrays(x=x)
        width = self.shapes[0][1] if self.shapes else x.shape[-1] if x.ndim else 0
        if x.ndim < 2 or x.shape[-1] != width or (x.ndim > 2 and x.shape[:-2] != lead):
            wanted = " or ".join(dict.fromkeys(str((*k, "n", width)) for k in ((), lead)))
            _validate.fail("x", f"must have shape {wanted}, got {x.shape}")
        values = [_rounded(_validate.finite("x", np, x), self.precision)]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for layer in self.layers:
                count = len(layer.shapes)
                values.append(_rounded(layer.forward(own[:count], values[-1]), self.precision))
                own = own[count:]
        _validate.representable("parameters", np, values[-1])
        return values[-1], Tape(tuple(values))

    def backward(self, parameters: Any, tape: Tape, upstream: Any) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Gradients in all parameters (summed over the ``n`` examples), and in the input of every copy.

        Args:
            upstream: gradient in the outputs, of their shape.

        Raises:
            ValueError: a tape of another network, shapes that do not fit, values that are not finite.
        """
        own, _ = self._checked(parameters)
        _validate.instance("tape", tape, Tape)
        if len(tape.values) != len(self.layers) + 1:
            _validate.fail("tape", f"is of a network of {len(tape.values) - 1} layers, this one has {len(self.layers)}")
        (upstream,) = _validate.numpy_arrays(upstream=upstream)
        if upstream.shape != tape.values[-1].shape:
            _validate.fail(
                "upstream", f"must have the shape of the outputs {tape.values[-1].shape}, got {upstream.shape}"
            )
        slope, gradients = _rounded(_validate.finite("upstream", np, upstream), self.precision), []
        steps = list(zip(self.layers, tape.values, tape.values[1:]))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for layer, x, y in reversed(steps):
                count = len(layer.shapes)
                mine, own = own[len(own) - count :], own[: len(own) - count]
                found, slope = layer.backward(mine, x, y, slope)
                slope = _rounded(slope, self.precision)
                gradients.append(tuple(_rounded(g, self.precision) for g in found))
        flat = tuple(g for part in reversed(gradients) for g in part)
        _validate.representable("upstream", np, *flat, slope)
        return flat, slope


def softmax_cross_entropy(logits: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """``-sum_a t_a log softmax(logits)_a`` of every example and its gradient in the logits, ``t (sum) softmax - t``.

    Args:
        logits: ``(..., n, A)``.
        target: labels ``(..., n)`` of integers, or weights ``(..., n, A)``: probabilities, advantages, anything finite.

    Returns:
        ``(..., n)`` and ``(..., n, A)``.

    Raises:
        ValueError: labels outside ``0 .. A-1``, values that are not finite, shapes that do not broadcast.
    """
    (logits,) = _validate.numpy_arrays(logits=logits)
    _validate.finite("logits", np, logits)
    if logits.ndim < 1 or not logits.shape[-1]:
        _validate.fail("logits", f"needs a non-empty last axis, got shape {logits.shape}")
    (weights,) = _validate.numpy_arrays(target=target)  # refuses what is no array of real numbers
    if np.asarray(target).dtype.kind in "iu":
        labels = _validate.integers("target", target, low=0, high=logits.shape[-1] - 1)
        weights = np.eye(logits.shape[-1])[labels]
    weights = _validate.finite("target", np, weights).astype(logits.dtype, copy=False)
    _validate.same_last_axis(logits=logits, target=weights)
    with np.errstate(over="ignore", invalid="ignore"):
        short = logits - logits.max(axis=-1, keepdims=True)
        log_p = short - np.log(np.exp(short).sum(axis=-1, keepdims=True))
        loss = -np.sum(weights * log_p, axis=-1)
        slope = weights.sum(axis=-1, keepdims=True) * np.exp(log_p) - weights
    _validate.representable("logits", np, loss, slope)
    return loss, slope


def start_all(optimiser: Optimiser, parameters: Sequence[np.ndarray]) -> tuple[Optimiser, ...]:
    """The same optimiser for every parameter, each with its own moments from then on."""
    _validate.instance("optimiser", optimiser, SGD, Adam)
    return (optimiser,) * len(_validate.sequence("parameters", parameters))


def update(
    optimisers: Sequence[Optimiser],
    parameters: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    *,
    storage: Precision = "float64",
) -> tuple[tuple[np.ndarray, ...], tuple[Optimiser, ...]]:
    """One step *down* the gradients of a loss; the new parameters rounded to ``storage``, and the optimisers after it.

    Moments and the step itself are computed in float64 (storage float64) or float32. `klsim.learning.SGD`,
    `klsim.learning.Adam` (AdamW with ``weight_decay``).

    Raises:
        ValueError: different numbers of optimisers, parameters and gradients, or different shapes.
    """
    _validate.one_of("storage", storage, PRECISIONS)
    given = {"optimisers": optimisers, "parameters": parameters, "gradients": gradients}
    lists = {name: _validate.sequence(name, value) for name, value in given.items()}
    for name in ("optimisers", "gradients"):
        if len(lists[name]) != len(lists["parameters"]):
            _validate.fail(name, f"needs one a parameter: {len(lists['parameters'])}, got {len(lists[name])}")
    wide = "float64" if storage == "float64" else "float32"
    moved, states = [], []
    for i, (state, held, slope) in enumerate(zip(*lists.values())):
        _validate.instance(f"optimisers[{i}]", state, SGD, Adam)
        held, slope = (_rounded(a, wide) for a in _validate.numpy_arrays(parameters=held, gradients=slope))
        if held.shape != slope.shape:
            _validate.fail(f"gradients[{i}]", f"must have the shape of the parameter {held.shape}, got {slope.shape}")
        new, after = state.step(held, -slope)
        moved.append(_rounded(np.asarray(new), storage))
        states.append(after)
    return tuple(moved), tuple(states)
