"""Numbers, choices, masks and Gaussian arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim import _validate
from klsim.spaces import structure
from klsim.spaces.field import Dims, Field, extent, named, nice_floats

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Betas", "Choice", "Floats", "Integers", "Masks", "Normals", "Seeds", "Sizes"]


@dataclass(frozen=True)
class Sizes(Field):
    """A size: an integer in ``[low, high]``, shared by all instances of a bulk batch."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _validate.integer("low", self.low, low=1)
        _validate.integer("high", self.high, low=self.low)

    def strategy(self, dims: Dims) -> SearchStrategy[int]:
        from hypothesis import strategies as st

        return st.integers(self.low, self.high)

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> int:
        """One size for the whole batch."""
        return int(rng.integers(self.low, self.high + 1))


@dataclass(frozen=True)
class Floats(Field):
    """A real number in ``[low, high]``: uniform, or log-uniform with ``log=True``."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _validate.real("low", self.low, low=0.0 if self.log else -math.inf, open_low=self.log)
        _validate.real("high", self.high, low=self.low)

    def strategy(self, dims: Dims) -> SearchStrategy[float]:
        from hypothesis import strategies as st

        nice = [
            x for x in (1.0, 0.5, 2.0, 0.0, 0.25, 1.5, 3.0, 10.0, self.low, self.high) if self.low <= x <= self.high
        ]
        if not self.log:
            return st.one_of(st.sampled_from(nice), st.floats(self.low, self.high))
        low, high = math.log(self.low), math.log(self.high)
        spread = st.floats(low, high).map(lambda x: min(max(math.exp(x), self.low), self.high))
        return st.one_of(st.sampled_from(nice), spread)

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        if self.log:
            drawn = np.exp(rng.uniform(math.log(self.low), math.log(self.high), size))
            return np.clip(drawn, self.low, self.high)
        return rng.uniform(self.low, self.high, size)

    def simpler(self, value: Any) -> Iterator[float]:
        number = float(value)
        rounded = [float(f"{number:.{digits}g}") for digits in (1, 2, 3)]
        for new in (*nice_floats(self.low, self.high), *rounded):
            if self.low <= new <= self.high and len(repr(new)) < len(repr(number)):
                yield new

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        if self.log:
            return np.asarray([math.log(value)]), np.asarray([0.5])
        width = self.high - self.low if math.isfinite(self.high - self.low) else abs(float(value)) + 1.0
        return np.asarray([float(value)]), np.asarray([0.1 * width])

    def at(self, value: Any, x: np.ndarray) -> float:
        moved = math.exp(min(x[0], 709.0)) if self.log else float(x[0])
        return min(max(moved, self.low), self.high)


class Betas(Floats):
    """A KL coefficient, log-uniform; ``Betas(1e-12, 1e12)`` for the extremes."""

    def __init__(self, low: float = 1e-2, high: float = 1e2) -> None:
        super().__init__(low, high, log=True)


@dataclass(frozen=True)
class Integers(Field):
    """An integer in ``[low, high]``, uniform, or log-uniform with ``log=True``; one an instance."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _validate.integer("low", self.low, low=1 if self.log else None)
        _validate.integer("high", self.high, low=self.low)

    def strategy(self, dims: Dims) -> SearchStrategy[int]:
        from hypothesis import strategies as st

        return st.integers(self.low, self.high)

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        if self.log:
            drawn = np.exp(rng.uniform(math.log(self.low), math.log(self.high + 1), size))
            return np.clip(drawn.astype(np.int64), self.low, self.high)
        return rng.integers(self.low, self.high + 1, size)

    def simpler(self, value: Any) -> Iterator[int]:
        number, step = int(value), int(value) - self.low
        seen = set()
        for new in (self.low, *(n for n in (0, 1, 2) if self.low <= n <= self.high)):
            if abs(new) < abs(number) and new not in seen:
                seen.add(new)
                yield new
        while step > 0:  # ever smaller steps down: ends on the smallest by bisection
            step //= 2
            if step and number - step not in seen:
                yield number - step

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        if self.log:
            return np.asarray([math.log(value)]), np.asarray([0.7])
        return np.asarray([float(value)]), np.asarray([max(1.0, 0.1 * (self.high - self.low))])

    def at(self, value: Any, x: np.ndarray) -> int:
        moved = math.exp(min(x[0], 700.0)) if self.log else float(x[0])
        return round(min(max(moved, self.low), self.high))


class Seeds(Integers):
    """A seed for the checks that build their instance themselves."""

    def __init__(self) -> None:
        super().__init__(0, 2**31 - 1)


@dataclass(frozen=True)
class Choice(Field):
    """One of the given numbers or strings."""

    values: Sequence[Any]

    def __init__(self, *values: Any) -> None:
        if not values:
            raise ValueError("Choice needs at least one value")
        object.__setattr__(self, "values", values)

    def strategy(self, dims: Dims) -> SearchStrategy[Any]:
        from hypothesis import strategies as st

        return st.sampled_from(list(self.values))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        return np.asarray(self.values)[rng.integers(0, len(self.values), size)]

    def simpler(self, value: Any) -> Iterator[Any]:
        for new in self.values:  # the first is the simplest
            if new == value:
                return
            yield new


@dataclass(frozen=True)
class Normals(Field):
    """An array of independent ``scale * N(0, 1)`` entries with the given axes, e.g. ``Normals("A", "D")``."""

    shape: tuple[str | int, ...]
    scale: float

    def __init__(self, *shape: str | int, scale: float = 1.0) -> None:
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "scale", scale)

    def axes(self) -> tuple[str, ...]:
        return named(*self.shape)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        shape = tuple(extent(a, dims) for a in self.shape)
        count = math.prod(shape)
        small = st.lists(st.integers(-30, 30).map(lambda i: i / 10), min_size=count, max_size=count)
        drawn = st.integers(0, 2**31 - 1).map(lambda s: np.random.default_rng(s).standard_normal(count))
        return st.one_of(small, drawn).map(lambda row: self.scale * np.asarray(row, dtype=float).reshape(shape))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        return self.scale * rng.standard_normal((size, *(extent(a, dims) for a in self.shape)))

    def simpler(self, value: Any) -> Iterator[np.ndarray]:
        return (new for new in structure.rounder_reals(value) if not np.array_equal(new, value))

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        return without_entry(value, self.shape, axis, index)

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        return value.ravel(), np.full(value.size, 0.5 * self.scale)

    def at(self, value: Any, x: np.ndarray) -> np.ndarray:
        reach = max(30.0 * self.scale, float(np.max(np.abs(value), initial=0.0)))
        return np.clip(x, -reach, reach).reshape(value.shape)


def without_entry(value: np.ndarray, axes: Sequence[str | int], axis: str, index: int) -> np.ndarray:
    """An array without one entry along every axis of that name."""
    for place, name in enumerate(axes):
        if name == axis:
            value = np.delete(value, index, axis=place)
    return value


@dataclass(frozen=True)
class Masks(Field):
    """A boolean mask over ``axis``; with ``both`` it has a True and a False entry where it can."""

    axis: str | int = "A"
    both: bool = True

    def axes(self) -> tuple[str, ...]:
        return named(self.axis)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        size = extent(self.axis, dims)
        masks = st.lists(st.booleans(), min_size=size, max_size=size).map(lambda row: np.asarray(row, dtype=bool))
        return masks.filter(lambda m: m.any() and not m.all()) if self.both and size > 1 else masks

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        outcomes = extent(self.axis, dims)
        mask = rng.random((size, outcomes)) < 0.5
        if self.both and outcomes > 1:
            first, second = _two_places(size, outcomes, rng)
            rows = np.arange(size)
            mask[rows, first] |= ~mask.any(axis=1)
            flip = mask.all(axis=1)
            mask[rows[flip], second[flip]] = False
        return mask

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        kept = without_entry(value, (self.axis,), axis, index)
        if self.both and kept.size > 1 and (kept.all() or not kept.any()):
            raise ValueError("the mask needs a True and a False entry")
        return kept


def _two_places(size: int, outcomes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = rng.integers(0, outcomes, size)
    return first, (first + rng.integers(1, outcomes, size)) % outcomes
