"""What instances are made of: numbers, arrays, tuples, dicts and records (frozen dataclasses, named tuples).

`nudge` moves every number by a few units in the last place, `simpler` proposes rounder ones, `coordinates` and `moved`
turn the continuous part into a vector and back. Each keeps what an array is: rows of probabilities stay rows of
probabilities, equal numbers stay equal, zero support stays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

__all__ = [
    "children",
    "coordinates",
    "is_record",
    "log_normalize",
    "log_of_weights",
    "moved",
    "nudge",
    "rebuild",
    "restored",
    "rounder_log_probs",
    "rounder_reals",
    "simpler",
]

Array = np.ndarray


def is_record(value: Any) -> bool:
    """A named tuple or a dataclass instance."""
    return hasattr(value, "_fields") or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def children(value: Any) -> dict[Any, Any]:
    """The parts of a container by key; empty for a leaf."""
    if hasattr(value, "_fields"):
        return dict(zip(value._fields, value))
    if is_record(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, Mapping) else {}


def rebuild(value: Any, parts: Mapping[Any, Any]) -> Any:
    """A container like ``value`` with other parts; records are validated as when they were made."""
    if hasattr(value, "_fields"):
        return type(value)(**parts)
    if is_record(value):
        return dataclasses.replace(value, **parts)
    if isinstance(value, tuple | list):
        return type(value)(parts[i] for i in range(len(value)))
    return dict(parts)


def restored(template: Any, plain: Any) -> Any:
    """``plain`` (dicts for records) with the records of ``template``."""
    if isinstance(plain, Mapping) and is_record(template):
        parts = children(template)
        return type(template)(**{k: restored(parts.get(k), v) for k, v in plain.items()})
    if isinstance(plain, tuple) and isinstance(template, tuple | list) and len(template) == len(plain):
        return type(template)(restored(t, p) for t, p in zip(template, plain)) if not is_record(template) else plain
    return plain


def _leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    parts = children(value)
    return rebuild(value, {k: _leaves(v, change) for k, v in parts.items()}) if parts else change(value)


# ulps -----------------------------------------------------------------------------------------------
def nudge(value: Any, rng: np.random.Generator) -> Any:
    """Every float that is not a whole number times ``1 ± a few ulp``; equal numbers move alike, so ties stay."""
    key = rng.integers(1, 2**63, dtype=np.uint64) | np.uint64(1)

    def change(leaf: Any) -> Any:
        if isinstance(leaf, float | np.floating):
            return float(_nudged(np.asarray([leaf], dtype=np.float64), key)[0])
        if isinstance(leaf, np.ndarray) and leaf.dtype == np.float64:
            return _nudged(leaf, key)
        return leaf

    return _leaves(value, change)


def _nudged(array: Array, key: np.uint64) -> Array:
    bits = np.ascontiguousarray(array).view(np.uint64)
    with np.errstate(over="ignore"):
        steps = ((bits * key) >> np.uint64(61)).astype(np.float64) - 3.5  # -3.5, …, 3.5
    whole = ~np.isfinite(array) | (array == np.round(array))
    return np.where(whole, array, array * (1 + steps * np.finfo(float).eps))


# rounder numbers ------------------------------------------------------------------------------------
def log_normalize(logits: Array) -> Array:
    """Logits as log-probabilities, along the last axis."""
    top = logits.max(axis=-1, keepdims=True)
    return logits - (top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))


def log_of_weights(weights: Array) -> Array:
    """Weights, not all 0, as log-probabilities, along the last axis."""
    with np.errstate(divide="ignore"):
        return np.log(weights / weights.sum(axis=-1, keepdims=True))


def _is_log_probs(array: Array) -> bool:
    if array.ndim == 0 or not array.size or np.any(array > 1e-9) or np.any(np.isnan(array)):
        return False
    return bool(np.all(np.abs(np.exp(array).sum(axis=-1) - 1) < 1e-9))


def _is_probs(array: Array) -> bool:
    if array.ndim == 0 or not array.size or np.any(array < 0):
        return False
    return bool(np.all(np.abs(array.sum(axis=-1) - 1) < 1e-9))


def rounder_log_probs(log_p: Array) -> Iterator[Array]:
    """The same support with rounder probabilities, the roundest first."""
    p = np.exp(log_p)
    for parts in (1, 2, 4, 10, 100, 1000):
        weights = np.where(np.isfinite(log_p), np.maximum(np.round(p * parts), 1.0 if parts < 1000 else 1e-3), 0.0)
        yield log_of_weights(weights)
    for digits in (1, 2, 3):
        yield log_of_weights(_significant(p, digits))


def _significant(p: Array, digits: int) -> Array:
    """Non-negative numbers to so many significant digits."""
    with np.errstate(divide="ignore"):
        leading = np.where(p > 0, np.floor(np.log10(p)), 0.0)
    unit = 10.0 ** np.clip(leading - digits + 1, -300, 300)
    return np.where(p > 0, np.round(p / unit) * unit, 0.0)


def _rounder_probs(p: Array) -> Iterator[Array]:
    with np.errstate(divide="ignore"):
        return (np.exp(log_p) for log_p in rounder_log_probs(np.log(p)))


def rounder_reals(x: Array) -> Iterator[Array]:
    """Rounder numbers of the same signs and order of magnitude, the roundest first."""
    finite = np.isfinite(x)
    top = float(np.max(np.abs(x[finite]), initial=0.0))
    if top == 0:
        return
    yield np.where(finite, 0.0, x)
    leading = math.floor(math.log10(top))
    for digits in (0, 1, 2, 3):
        yield np.where(finite, np.round(x, digits - leading) + 0.0, x)


def _simpler_leaf(leaf: Any) -> Iterator[Any]:
    if isinstance(leaf, np.ndarray) and leaf.dtype == np.float64 and leaf.size:
        options: Callable[[Array], Iterator[Array]] = rounder_reals
        if _is_log_probs(leaf):
            options = rounder_log_probs
        elif _is_probs(leaf):
            options = _rounder_probs
        yield from (new for new in options(leaf) if not np.array_equal(new, leaf))
    elif isinstance(leaf, float):
        yield from (float(new) for new in rounder_reals(np.asarray(leaf)) if new not in (leaf, 0.0))


def simpler(value: Any) -> Iterator[Any]:
    """Values like ``value`` with one part made rounder; candidates that a record refuses are left out."""
    parts = children(value)
    if not parts:
        yield from _simpler_leaf(value)
    for key, part in parts.items():
        for new in simpler(part):
            try:
                yield rebuild(value, {**parts, key: new})
            except (ValueError, TypeError):
                continue


# coordinates ----------------------------------------------------------------------------------------
def coordinates(value: Any) -> tuple[Array, Array]:
    """``(x, step)``: log-weights of probabilities and plain reals, with the steps by which a search may move them."""
    parts = children(value)
    if parts:
        found = [coordinates(part) for part in parts.values()]
        return np.concatenate([x for x, _ in found]), np.concatenate([s for _, s in found])
    if not (isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size):
        return np.zeros(0), np.zeros(0)
    if _is_log_probs(value) or _is_probs(value):
        with np.errstate(divide="ignore"):
            logs = value if _is_log_probs(value) else np.log(value)
        x = logs[np.isfinite(logs)]
        return x, np.ones(x.size)
    x = value.ravel()
    return x, np.full(x.size, 0.3 * max(float(np.std(x)), 1e-3 * float(np.max(np.abs(x))), 1e-9))


def moved(value: Any, x: Array) -> Any:
    """``value`` at the coordinates ``x``."""
    taken, rest = _moved(value, x)
    if rest.size:
        raise ValueError(f"{rest.size} coordinates too many")
    return taken


def _moved(value: Any, x: Array) -> tuple[Any, Array]:
    parts = children(value)
    if parts:
        new = {}
        for key, part in parts.items():
            new[key], x = _moved(part, x)
        return rebuild(value, new), x
    if not (isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size):
        return value, x
    if _is_log_probs(value) or _is_probs(value):
        alive = np.isfinite(value) if _is_log_probs(value) else value > 0
        logs = np.full(value.shape, -np.inf)
        count = int(alive.sum())
        logs[alive] = np.clip(x[:count], -700, 700)
        logs = log_normalize(logs)
        return logs if _is_log_probs(value) else np.exp(logs), x[count:]
    return x[: value.size].reshape(value.shape), x[value.size :]
