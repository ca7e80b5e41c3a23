"""Fields: where one argument of a check comes from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from klsim.spaces import structure

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Dims", "Drawn", "Field", "extent", "named"]

Dims = Mapping[str, int]
"""Sizes that fields share, by name."""


class Field(ABC):
    """One argument of a check. Subclasses draw it for given sizes, one by one or in bulk.

    Besides the two samplers a field says how its values become smaller (`without`), rounder (`simpler`) and how they
    move continuously (`coordinates`, `at`), always inside the field; searches and shrinking use that.
    """

    #: one object an instance, never arrays with a batch axis
    single: ClassVar[bool] = False

    def axes(self) -> tuple[str, ...]:
        """Names of the sizes it refers to."""
        return ()

    def map(self, function: Callable[[Any], Any]) -> Field:
        """What ``function`` makes of it (of one draw, and of a batch)."""
        return _Mapped(self, function)

    @abstractmethod
    def strategy(self, dims: Dims) -> SearchStrategy[Any]:
        """A Hypothesis strategy for one draw."""

    @abstractmethod
    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> Any:
        """``size`` independent draws: arrays (or tuples of arrays) with a leading axis ``size``."""

    def view(self, drawn: Any) -> Any:
        """What the check receives for a draw (or a batch of them)."""
        return drawn

    def restored(self, plain: Any) -> Any:
        """A value as the check knows it, from numbers, arrays, tuples and dicts."""
        return plain

    def simpler(self, value: Any) -> Iterator[Any]:
        """Rounder values of this field, the roundest first."""
        return iter(())

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        """The value with entry ``index`` of a size left out; unchanged if it does not have that size.

        Raises:
            ValueError: it cannot be left out.
        """
        if axis in self.axes():
            raise ValueError(f"{type(self).__name__} cannot lose an entry of {axis!r}")
        return value

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        """``(x, step)``: the value as a vector, and the steps by which a search may move; empty if it is discrete."""
        return np.zeros(0), np.zeros(0)

    def at(self, value: Any, x: np.ndarray) -> Any:
        """The value of this field at coordinates ``x``."""
        return value


def extent(axis: str | int, dims: Dims) -> int:
    """The length of an axis given by name or number."""
    return axis if isinstance(axis, int) else dims[axis]


def named(*axes: str | int) -> tuple[str, ...]:
    """The axes that are names of sizes."""
    return tuple(a for a in axes if isinstance(a, str))


@dataclass(frozen=True)
class _Mapped(Field):
    """A field seen through a function; it is searched and shrunk as the field below."""

    field: Field
    function: Callable[[Any], Any]

    @property
    def single(self) -> bool:  # type: ignore[override]
        return self.field.single

    @property
    def like(self) -> str | None:
        return getattr(self.field, "like", None)

    def __repr__(self) -> str:
        return f"{self.field!r}.map({getattr(self.function, '__name__', self.function)})"

    def axes(self) -> tuple[str, ...]:
        return self.field.axes()

    def strategy(self, dims: Dims) -> SearchStrategy[Any]:
        return self.field.strategy(dims)

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> Any:
        return self.field.sample(size, rng, dims)

    def view(self, drawn: Any) -> Any:
        seen = self.field.view(drawn)
        if self.single and isinstance(seen, np.ndarray) and seen.dtype == object:
            return as_objects([self.function(v) for v in seen])
        return self.function(seen)

    def simpler(self, value: Any) -> Iterator[Any]:
        return self.field.simpler(value)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        return self.field.without(value, axis, index, dims)

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.field.coordinates(value)

    def at(self, value: Any, x: np.ndarray) -> Any:
        return self.field.at(value, x)


def as_objects(values: list[Any]) -> np.ndarray:
    """An object array with one entry a value, whatever the values are."""
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return out


@dataclass(frozen=True)
class Drawn(Field):
    """What ``make(rng)`` builds, one object an instance: numbers, arrays, tuples, dicts, `klsim.problems`, and records
    (named tuples, frozen dataclasses) of them.

    They print as plain Python, are saved in certificates and replayed; shrinking rounds their numbers, as far as the
    records accept it and ``legal`` (a predicate on the object) allows.
    """

    make: Callable[[np.random.Generator], Any]
    legal: Callable[[Any], bool] | None = None
    single: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"Drawn({getattr(self.make, '__qualname__', self.make)})"

    def strategy(self, dims: Dims) -> SearchStrategy[Any]:
        from hypothesis import strategies as st

        return st.integers(0, 2**31 - 1).map(lambda seed: self.make(np.random.default_rng(seed)))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> Any:
        return as_objects([self.make(rng) for _ in range(size)])

    def restored(self, plain: Any) -> Any:
        if isinstance(plain, Mapping | tuple) and not structure.is_record(plain):
            return structure.restored(self.make(np.random.default_rng(0)), plain)
        return plain

    def simpler(self, value: Any) -> Iterator[Any]:
        for new in structure.simpler(value):
            if self.legal is None or self.legal(new):
                yield new


def nice_floats(low: float, high: float) -> list[float]:
    """Round numbers in an interval, the simplest first."""
    candidates = (1.0, 0.0, 2.0, 0.5, -1.0, 0.25, 1.5, 3.0, 4.0, 10.0, 0.1, 100.0, 0.01)
    return [x for x in candidates if low <= x <= high and math.isfinite(x)]
