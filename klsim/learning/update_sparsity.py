r"""What fine-tuning changed: how sparse an update looks in a stored precision, overlap, rank, nulls; training a part.

A checkpoint is stored, often in bfloat16; a weight counts as *changed* if its stored value did. What shows depends on
where training began: from weights of that precision (*on the grid*: a public checkpoint) a change shows if it exceeds
half a unit in the last place (ULP), from others (*off the grid*) if it crosses the middle between two stored numbers,
with probability about ``min(1, |change|/ULP)`` (`expected_sparsity`). Masks of two runs are compared with `overlap`,
whose chance level is the density of the other mask, and with `null_update`: updates of the same size that know nothing
of a task. `train_part` trains the coordinates of a mask and leaves the rest.

Weights are flat arrays ``(..., n)``; leading axes are independent copies. Source: ``small-subnetworks`` (Mukherjee et
al. 2025, arXiv 2505.11711).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.networks import Precision, rounded
from klsim.learning.softmax_step import SGD, Adam

__all__ = [
    "Overlap",
    "Trained",
    "changed",
    "expected_sparsity",
    "null_update",
    "overlap",
    "rank_fraction",
    "spacing",
    "sparsity",
    "train_part",
]

_DIGITS = {"float64": (53, -1074), "float32": (24, -149), "bfloat16": (8, -133)}
_BLOCK = 2**15  # numbers that a step takes at a time: five arrays of them stay in a cache
_LARGEST_GRADIENT = 1e15  # its square and a sum of squares stay within float32


def spacing(x: Any, storage: Precision = "bfloat16") -> np.ndarray:
    """Unit in the last place of ``x`` in ``storage``: ``2^(e - p + 1)`` for ``2^e <= |x| < 2^(e+1)``, p digits.

    Raises:
        ValueError: NaN or infinite entries, an unknown precision.
    """
    (x,) = _validate.numpy_arrays(x=x)
    _validate.one_of("storage", storage, tuple(_DIGITS))
    digits, lowest = _DIGITS[storage]
    _, exponent = np.frexp(_validate.finite("x", np, x).astype(np.float64))
    exponent = np.where(x == 0, lowest + digits, exponent)
    return np.ldexp(1.0, np.maximum(exponent - digits, lowest))


def _pair(names: tuple[str, str], first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two finite arrays ``(..., n)`` of one shape."""
    first, second = _validate.numpy_arrays(**dict(zip(names, (first, second))))
    if first.shape != second.shape or not first.ndim or not first.shape[-1]:
        rule = f"must have the shape (..., n), n >= 1, of {names[0]}"
        _validate.fail(names[1], f"{rule}, {first.shape}, got {second.shape}")
    return _validate.finite(names[0], np, first), _validate.finite(names[1], np, second)


def changed(
    before: Any, after: Any, *, storage: Precision = "bfloat16", absolute: float = 0.0, relative: float = 0.0
) -> np.ndarray:
    """Where the stored values differ: ``|a - b| > absolute + relative |b|``, both rounded to ``storage``. ``(..., n)``.

    Args:
        before, after: weights ``(..., n)``.
        absolute, relative: what still counts as equal; by default nothing but the same number.

    Raises:
        ValueError: shapes that differ, entries that are not finite (also once stored), a negative tolerance.
    """
    before, after = _pair(("before", "after"), before, after)
    _validate.one_of("storage", storage, tuple(_DIGITS))
    absolute, relative = (_validate.real(n, v, low=0.0) for n, v in (("absolute", absolute), ("relative", relative)))
    old, new = rounded(before, storage), rounded(after, storage)
    _validate.representable("before", np, old)
    _validate.representable("after", np, new)
    if absolute == relative == 0:
        return np.asarray(old != new)
    old, new = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(np.abs(new - old) > absolute + relative * np.abs(old))


def sparsity(
    before: Any, after: Any, *, storage: Precision = "bfloat16", absolute: float = 0.0, relative: float = 0.0
) -> np.ndarray:
    """Share of weights that did not change, ``1 - mean(changed)`` over the last axis; arguments as `changed`."""
    moved = changed(before, after, storage=storage, absolute=absolute, relative=relative)
    return np.asarray(1.0 - moved.mean(axis=-1))


def expected_sparsity(
    weights: Any, change: Any, *, on_grid: bool = False, storage: Precision = "bfloat16"
) -> np.ndarray:
    """Sparsity that sizes alone explain: ``1 - mean min(1, |change|/ULP)``, on the grid ``mean(|change| <= ULP/2)``.

    Off the grid the weight's place between two stored numbers is taken as uniform. ULP is that of the weight; changes
    that pass a power of two meet another one, a small part of all.

    Args:
        weights, change: ``(..., n)``, before training, and what training added.
        on_grid: whether ``weights`` are stored numbers (they are taken as they are).

    Raises:
        ValueError: shapes that differ, entries that are not finite.
    """
    weights, change = _pair(("weights", "change"), weights, change)
    ratio = np.abs(change) / spacing(weights, storage)
    shows = ratio > 0.5 if _validate.flag("on_grid", on_grid) else np.minimum(ratio, 1.0)
    return np.asarray(1.0 - shows.mean(axis=-1))


@dataclass(frozen=True)
class Overlap:
    """One-sided overlaps of two masks and what independent uniform masks of the same sizes would have on average.

    Attributes:
        first, second: ``|I1 & I2|/|I1|`` and ``|I1 & I2|/|I2|``.
        first_chance, second_chance: ``|I2|/n`` and ``|I1|/n``: the density of the *other* mask.
    """

    first: np.ndarray
    second: np.ndarray
    first_chance: np.ndarray
    second_chance: np.ndarray


def overlap(first: Any, second: Any) -> Overlap:
    """Overlap of two boolean masks ``(..., n)``, over the last axis.

    Raises:
        ValueError: shapes that differ, a mask without a coordinate.
    """
    first = _validate.boolean_mask("first", first)
    second = _validate.boolean_mask("second", second, first.shape)
    if not first.ndim:
        _validate.fail("first", "must have a last axis of coordinates")
    sizes = []
    for name, mask in (("first", first), ("second", second)):
        sizes.append(mask.sum(axis=-1))
        index = _validate.first_true(np, np.asarray(sizes[-1] == 0))
        if index is not None:
            _validate.fail(name, "needs a coordinate that is True: the overlap is 0/0", index=index)
    both, n = (first & second).sum(axis=-1), first.shape[-1]
    return Overlap(both / sizes[0], both / sizes[1], sizes[1] / n, sizes[0] / n)


def rank_fraction(update: Any) -> np.ndarray:
    """Numerical rank of matrices ``(..., m, k)`` over ``min(m, k)``: singular values above ``max(m, k) eps`` of the
    largest.

    ``eps`` is that of the array's own precision (float64 for integers).

    Raises:
        ValueError: fewer than two axes, an empty matrix, entries that are not finite.
    """
    (update,) = _validate.numpy_arrays(update=update)
    if update.ndim < 2 or 0 in update.shape[-2:]:
        _validate.fail("update", f"must be matrices (..., m, k) with m, k >= 1, got shape {update.shape}")
    found = np.linalg.matrix_rank(_validate.finite("update", np, update))
    return np.asarray(found / min(update.shape[-2:]))


def null_update(
    update: Any, kind: Literal["gaussian", "constant", "signs"], rng: np.random.Generator | int = 0
) -> np.ndarray:
    """A random update with the norm of ``update (..., n)`` over the last axis, independent of what it points at.

    ``gaussian``: independent normal entries. ``constant``: entries of one size, random signs (a sign optimiser
    with a random gradient). ``signs``: the update's own sizes, random signs.

    Raises:
        ValueError: entries that are not finite, an empty last axis, an unknown kind.
    """
    (update,) = _validate.numpy_arrays(update=update)
    if not update.ndim or not update.shape[-1]:
        _validate.fail("update", f"must have shape (..., n), n >= 1, got {update.shape}")
    _validate.finite("update", np, update)
    _validate.one_of("kind", kind, ("gaussian", "constant", "signs"))
    rng = _validate.generator(rng)
    drawn = rng.standard_normal(update.shape) if kind == "gaussian" else rng.choice([-1.0, 1.0], update.shape)
    if kind == "signs":
        return drawn * np.abs(update)
    wide = update.astype(np.float64)
    return drawn * (np.linalg.norm(wide, axis=-1) / np.linalg.norm(drawn, axis=-1))[..., None]


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
    steps = _validate.integer("steps", steps, low=0)
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
