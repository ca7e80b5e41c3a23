r"""What an update shows once the weights are stored, often in bfloat16; and updates that know nothing of a task.

A weight counts as *changed* if its stored value did. A stored number stands for the cell of reals that round to it
(`rounding_cell`), half a unit in the last place (`spacing`, ULP) to each side, a quarter towards 0 from a power of two.
So what shows depends on where training began. From weights of that precision (*on the grid*: a public checkpoint) a
change shows if it exceeds half a unit, from others (*off the grid*) if it crosses the end of the cell, with probability
``min(1, |change|/ULP)`` where the place in the cell is uniform (`expected_sparsity`).

Small weights have small cells: *any* update shows there first. Masks of visible changes are therefore alike without any
structure in the updates, and are evidence of one only beside those of a `null_update` of the same norm.

Weights are flat arrays ``(..., n)`` where something is taken over all of them (a matrix: ``reshape(*lead, -1)``);
leading axes are independent copies.

Sources: ``small-subnetworks`` (Mukherjee et al. 2025, arXiv 2505.11711), ``path-not-taken`` C6-C8 (Zhu et al. 2025,
arXiv 2511.08567).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.networks import Precision, rounded

__all__ = [
    "changed",
    "expected_sparsity",
    "null_update",
    "rounding_cell",
    "spacing",
    "sparsity",
]

NULLS = ("gaussian", "constant", "signs")
_DIGITS = {"float64": (53, -1074), "float32": (24, -149), "bfloat16": (8, -133)}


def spacing(x: Any, storage: Precision = "bfloat16") -> np.ndarray:
    """Unit in the last place of ``x`` in ``storage``: ``2^(e - p + 1)`` for ``2^e <= |x| < 2^(e+1)``, p digits.

    Below the normal numbers it is the least number of the precision (bfloat16: ``2^-133``).

    Raises:
        ValueError: NaN or infinite entries, an unknown precision.
    """
    (x,) = _validate.numpy_arrays(x=x)
    _validate.one_of("storage", storage, tuple(_DIGITS))
    digits, lowest = _DIGITS[storage]
    _, exponent = np.frexp(_validate.finite("x", np, x).astype(np.float64))
    exponent = np.where(x == 0, lowest + digits, exponent)
    return np.ldexp(1.0, np.maximum(exponent - digits, lowest))


def _stored(name: str, x: np.ndarray, storage: Precision) -> np.ndarray:
    """``x`` rounded to ``storage``, where that is finite."""
    found = rounded(_validate.finite(name, np, x), storage)
    _validate.representable(name, np, found)
    return found


def rounding_cell(x: Any, storage: Literal["float32", "bfloat16"] = "bfloat16") -> tuple[np.ndarray, np.ndarray]:
    """``(low, high)``: the reals between them are stored as the same number as x.

    Half a unit to each side of that number; a quarter towards 0 if it is a power of two, where the spacing halves. The
    ends themselves (ties) belong to the cell of the even number.

    Raises:
        ValueError: x that is not finite, or rounds to infinity; another precision (float64 does not hold its own ends).
    """
    (x,) = _validate.numpy_arrays(x=x)
    _validate.one_of("storage", storage, ("float32", "bfloat16"))
    stored = _stored("x", x, storage).astype(np.float64)
    size, unit = np.abs(stored), spacing(stored, storage)
    halves = (np.frexp(size)[0] == 0.5) & (size > 2.0**-126)  # the smallest normal number has the same below it
    near, far = size - np.where(halves, 0.25, 0.5) * unit, size + 0.5 * unit
    return np.where(stored < 0, -far, near), np.where(stored < 0, -near, far)


def _pair(names: tuple[str, str], first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two finite arrays of one shape."""
    first, second = _validate.numpy_arrays(**dict(zip(names, (first, second))))
    if first.shape != second.shape:
        _validate.fail(names[1], f"must have the shape of {names[0]}, {first.shape}, got {second.shape}")
    return _validate.finite(names[0], np, first), _validate.finite(names[1], np, second)


def _flat(name: str, x: np.ndarray) -> np.ndarray:
    if not x.ndim or not x.shape[-1]:
        _validate.fail(name, f"must have shape (..., n), n >= 1, got {x.shape}")
    return x


def changed(
    before: Any, after: Any, *, storage: Precision = "bfloat16", absolute: float = 0.0, relative: float = 0.0
) -> np.ndarray:
    """Where stored values differ: ``|a - b| > absolute + relative max(|a|, |b|)``, both rounded to ``storage``.

    For normal bfloat16 numbers every ``relative < 2^-8`` is the same as 0: neighbours differ by ``2^-8`` of the larger
    at least.

    Args:
        before, after: weights of one shape, which is that of the result.
        absolute, relative: what still counts as equal; by default nothing but the same number.

    Raises:
        ValueError: shapes that differ, entries that are not finite (also once stored), a negative tolerance.
    """
    before, after = _pair(("before", "after"), before, after)
    _validate.one_of("storage", storage, tuple(_DIGITS))
    absolute, relative = (_validate.real(n, v, low=0.0) for n, v in (("absolute", absolute), ("relative", relative)))
    old, new = _stored("before", before, storage), _stored("after", after, storage)
    if absolute == relative == 0:
        return np.asarray(old != new)
    old, new = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(np.abs(new - old) > absolute + relative * np.maximum(np.abs(old), np.abs(new)))


def sparsity(
    before: Any, after: Any, *, storage: Precision = "bfloat16", absolute: float = 0.0, relative: float = 0.0
) -> np.ndarray:
    """Share of weights ``(..., n)`` that did not change: 1 less the mean of `changed`, which has the same arguments."""
    moved = changed(before, after, storage=storage, absolute=absolute, relative=relative)
    return np.asarray(1.0 - _flat("before", moved).mean(axis=-1))


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
    with np.errstate(over="ignore"):
        ratio = np.abs(_flat("change", change)) / spacing(weights, storage)
    shows = ratio > 0.5 if _validate.flag("on_grid", on_grid) else np.minimum(ratio, 1.0)
    return np.asarray(1.0 - shows.mean(axis=-1))


def null_update(
    update: Any, kind: Literal["gaussian", "constant", "signs"], rng: np.random.Generator | int = 0
) -> np.ndarray:
    """A random update with the norm of ``update (..., n)`` over the last axis, independent of what it points at.

    ``gaussian``: independent normal entries. ``constant``: entries of one size, random signs (a sign optimiser
    with a random gradient). ``signs``: the update's own sizes, random signs. Give a generator of its own: one that
    also made the weights is correlated with them.

    Raises:
        ValueError: entries that are not finite (or above 1e150 in size), an empty last axis, an unknown kind.
    """
    (update,) = _validate.numpy_arrays(update=update)
    index = _validate.first_true(np, ~(np.abs(_flat("update", update)).astype(np.float64) <= 1e150))
    if index is not None:
        _validate.fail("update", "must be finite (and at most 1e150 in size)", float(update[index]), index)
    _validate.one_of("kind", kind, NULLS)
    rng = _validate.generator(rng)
    drawn = rng.standard_normal(update.shape) if kind == "gaussian" else rng.choice([-1.0, 1.0], update.shape)
    if kind == "signs":
        return drawn * update
    size = np.linalg.norm(update.astype(np.float64), axis=-1) / np.linalg.norm(drawn, axis=-1)
    return drawn * size[..., None]
