r"""Training a part of the parameters: ``g <- mask * g``, in float32 and in place.

`train_part` trains the coordinates of a mask and leaves the rest as they are; without a mask it is the plain loop. It
keeps which coordinates ever had a gradient: a mask of all of them gives the full run bit by bit, one of those that
*ended* elsewhere does not. Parameters are flat arrays ``(..., n)``; leading axes are independent copies.

Source: ``small-subnetworks`` (Mukherjee et al. 2025, arXiv 2505.11711), C3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.networks import rounded
from klsim.learning.softmax_step import SGD, Adam

__all__ = ["Trained", "train_part"]

_BLOCK = 2**15  # numbers that a step takes at a time: five arrays of them stay in a cache
_LARGEST_GRADIENT = 1e15  # its square and a sum of squares stay within float32


@dataclass(frozen=True)
class Trained:
    """What `train_part` left.

    Attributes:
        parameters: at the end, ``(..., n)`` float32 masters (numbers of ``storage`` if it is bfloat16).
        touched: coordinates whose gradient, before the mask, was ever not 0, ``(..., n)``.
        snapshots: parameters after the steps in ``record``, ``{step: (..., n)}``.
    """

    parameters: np.ndarray
    touched: np.ndarray
    snapshots: dict[int, np.ndarray]


def train_part(
    start: Any,
    gradient: Callable[[np.ndarray, int], np.ndarray],
    optimiser: SGD | Adam,
    steps: int,
    *,
    mask: Any = None,
    record: Sequence[int] = (),
    storage: Literal["float32", "bfloat16"] = "float32",
) -> Trained:
    """Train the coordinates of ``mask``: ``g <- mask * g`` before every step *down* the gradient, decay masked as well.

    In float32, in place, with Adam's bias correction and decoupled decay as in `klsim.learning.Adam`. Without a mask
    everything is trained. A mask with all of `Trained.touched` gives the full run bit by bit.

    Args:
        start: ``(..., n)``.
        gradient: ``gradient(parameters, step)``, steps from 0, to an array ``(..., n)``; it must not change its input.
        optimiser: at its start; ``epsilon`` above 1.2e-38.
        mask: booleans that broadcast to ``(..., n)``.
        record: steps, counted from 1, after which to keep a copy.
        storage: what the parameters are rounded to after every step.

    Raises:
        ValueError: shapes that do not fit, gradients that are not finite or above 1e15, an optimiser that has taken
            steps or whose ``epsilon`` float32 does not hold, rates that overflow, a step to record that there is not.
    """
    (start,) = _validate.numpy_arrays(start=start)
    _validate.one_of("storage", storage, ("float32", "bfloat16"))
    parameters = np.array(rounded(_validate.finite("start", np, start), storage), order="C")
    _validate.representable("start", np, parameters)
    gradient, steps = _validate.function("gradient", gradient), _validate.integer("steps", steps, low=0)
    kept = {_validate.integer("record", k, low=1, high=steps) for k in _validate.sequence("record", record)}
    if mask is not None:
        mask = _validate.boolean_mask("mask", mask)
        short = parameters.shape[max(parameters.ndim - mask.ndim, 0) :]
        if mask.ndim > parameters.ndim or any(m not in (1, n) for m, n in zip(mask.shape, short)):
            _validate.fail("mask", f"must broadcast to the parameters {parameters.shape}, got {mask.shape}")
    with np.errstate(over="ignore"):
        step = _stepper(optimiser, parameters, mask)
    touched, snapshots = np.zeros(parameters.shape, dtype=bool), {}
    for t in range(steps):
        slope = _slope(gradient(parameters, t), parameters)
        touched |= slope != 0
        with np.errstate(over="ignore", invalid="ignore"):
            step(slope if mask is None else slope * mask, t + 1)
        if storage == "bfloat16":
            parameters[...] = rounded(parameters, storage)
        if t + 1 in kept:
            snapshots[t + 1] = parameters.copy()
    _validate.representable("optimiser", np, parameters)
    return Trained(parameters, touched, snapshots)


def _slope(found: Any, parameters: np.ndarray) -> np.ndarray:
    (slope,) = _validate.numpy_arrays(gradient=found)
    if slope.shape != parameters.shape:
        _validate.fail("gradient", f"must have the shape of the parameters {parameters.shape}, got {slope.shape}")
    if not (slope.max(initial=0.0) <= _LARGEST_GRADIENT and slope.min(initial=0.0) >= -_LARGEST_GRADIENT):
        index = _validate.first_true(np, ~(np.abs(slope) <= _LARGEST_GRADIENT))
        _validate.fail("gradient", f"must be finite and at most {_LARGEST_GRADIENT:g} in size", index=index)
    return slope.astype(np.float32, copy=False)


def _stepper(
    optimiser: SGD | Adam, parameters: np.ndarray, mask: np.ndarray | None
) -> Callable[[np.ndarray, int], None]:
    """One step of the optimiser on ``parameters``, in place."""
    _validate.instance("optimiser", optimiser, SGD, Adam)
    return _sgd(optimiser, parameters) if isinstance(optimiser, SGD) else _adam(optimiser, parameters, mask)


def _sgd(optimiser: SGD, parameters: np.ndarray) -> Callable[[np.ndarray, int], None]:
    def step(slope: np.ndarray, t: int) -> None:
        np.subtract(parameters, np.float32(optimiser.lr) * slope, out=parameters)

    return step


def _adam(optimiser: Adam, parameters: np.ndarray, mask: np.ndarray | None) -> Callable[[np.ndarray, int], None]:
    if optimiser.taken or optimiser.epsilon < np.finfo(np.float32).tiny:
        _validate.fail("optimiser", "must be at its start, with an epsilon that float32 holds (above 1.2e-38)")
    first, second = (np.zeros(parameters.size, dtype=np.float32) for _ in range(2))
    flat, work = parameters.reshape(-1), np.empty(min(_BLOCK, parameters.size), dtype=np.float32)
    decay = np.float32(optimiser.lr * optimiser.weight_decay)
    shrink = (np.broadcast_to(True if mask is None else mask, parameters.shape) * decay).reshape(-1) if decay else None

    def step(slope: np.ndarray, t: int) -> None:
        slope = np.ascontiguousarray(slope).reshape(-1)
        root, rate = 1 / np.sqrt(1 - optimiser.beta2**t), optimiser.lr / (1 - optimiser.beta1**t)
        for start in range(0, flat.size, _BLOCK):
            at = slice(start, start + _BLOCK)
            g, m, v, w = slope[at], first[at], second[at], work[: flat[at].size]
            for moment, beta, seen in ((m, optimiser.beta1, g), (v, optimiser.beta2, np.square(g))):
                np.multiply(seen, np.float32(1 - beta), out=w)
                np.multiply(moment, np.float32(beta), out=moment)
                np.add(moment, w, out=moment)
            np.sqrt(v, out=w)
            np.multiply(w, np.float32(root), out=w)
            np.add(w, np.float32(optimiser.epsilon), out=w)
            np.divide(m, w, out=w)
            np.multiply(w, np.float32(rate), out=w)
            if shrink is not None:
                flat[at] -= shrink[at] * flat[at]
            np.subtract(flat[at], w, out=flat[at])

    return step
