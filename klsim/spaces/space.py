"""Spaces: named fields, and the assumptions that tie them together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim import _validate
from klsim.spaces.field import Field
from klsim.spaces.numbers import Sizes
from klsim.spaces.policies import on_support_of

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Space"]


_IMPLICIT = Sizes(1, 8)


class Space:
    """Named fields and the assumptions that tie them together.

    Args:
        where: predicate over (a subset of) the fields, by name; True where the instance is allowed.
        fields: the arguments of the check.

    Raises:
        TypeError: a field that is not a `Field`.
        ValueError: no fields, or ``like`` names a field that does not exist.
    """

    def __init__(self, /, *, where: Callable[..., Any] | None = None, **fields: Field) -> None:
        if not fields:
            raise ValueError("a Space needs at least one field")
        for name, value in fields.items():
            if not isinstance(value, Field):
                raise TypeError(f"field {name!r}: must be a Field such as Policies(), got {type(value).__name__}")
            like = getattr(value, "like", None)
            if like is not None and (like not in fields or list(fields).index(like) >= list(fields).index(name)):
                raise ValueError(f"field {name!r}: like={like!r} must name an earlier field")
        self.fields = fields
        self.where = where
        declared = {n: f for n, f in fields.items() if isinstance(f, Sizes)}
        implied = {a: _IMPLICIT for f in fields.values() for a in f.axes() if a not in declared}
        self.sizes: dict[str, Sizes] = {**declared, **implied}

    @property
    def single(self) -> tuple[str, ...]:
        """The fields that draw one object an instance."""
        return tuple(name for name, kind in self.fields.items() if kind.single)

    @property
    def named_by_others(self) -> frozenset[str]:
        """Fields that the predicate or another field names: they need not be arguments of the check."""
        likes = {like for kind in self.fields.values() if (like := getattr(kind, "like", None)) is not None}
        return frozenset(likes | (set(inspect.signature(self.where).parameters) if self.where else set()))

    def __repr__(self) -> str:
        return f"Space({', '.join(f'{n}={f!r}' for n, f in self.fields.items())})"

    def _match_supports(self, drawn: dict[str, Any]) -> dict[str, Any]:
        for name, kind in self.fields.items():
            like = getattr(kind, "like", None)
            if like is not None:
                drawn[name] = on_support_of(drawn[name], drawn[like])
        return drawn

    def _allows(self, arguments: Mapping[str, Any]) -> Any:
        """The predicate on the fields that it names."""
        assert self.where is not None
        names = inspect.signature(self.where).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in names.values())
        return self.where(**{k: v for k, v in arguments.items() if takes_all or k in names})

    def view(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that a check receives for draws (one instance or a batch): mapped fields are mapped."""
        return {name: kind.view(drawn[name]) for name, kind in self.fields.items()}

    def restored(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the check knows them, from plain numbers, arrays, tuples and dicts."""
        return {k: self.fields[k].restored(v) if k in self.fields else v for k, v in arguments.items()}

    def strategy(self) -> SearchStrategy[dict[str, Any]]:
        """A Hypothesis strategy for one instance: ``{field: value}``, as the check receives it."""
        return self.draws().map(self.view)

    def draws(self) -> SearchStrategy[dict[str, Any]]:
        """As `strategy`, before mapped fields are mapped."""
        from hypothesis import assume
        from hypothesis import strategies as st

        @st.composite
        def instances(draw: Any) -> dict[str, Any]:
            dims = {name: draw(size.strategy({})) for name, size in self.sizes.items()}
            values: dict[str, Any] = dict(dims)
            for name, kind in self.fields.items():
                if name not in dims:
                    values[name] = draw(kind.strategy(dims))
            values = self._match_supports(values)
            if self.where is not None:
                assume(bool(np.all(self._allows(self.view(values)))))
            return values

        return instances()

    def legal(self, drawn: Mapping[str, Any]) -> dict[str, Any] | None:
        """The draw of one instance with its supports matched, or None where the predicate rejects it."""
        try:
            matched = self._match_supports(dict(drawn))
            if self.where is not None and not np.all(self._allows(self.view(matched))):
                return None
        except (ValueError, TypeError, IndexError):
            return None
        return matched

    def sample(self, size: int, rng: np.random.Generator | int) -> dict[str, Any]:
        """A batch of at most ``size`` instances (fewer where ``where`` rejects), leading axis first."""
        return self.view(self.draw(size, rng))

    def draw(self, size: int, rng: np.random.Generator | int) -> dict[str, Any]:
        """As `sample`, before mapped fields are mapped; with all sizes, declared or not."""
        rng = _validate.generator(rng)
        dims = {name: s.sample(size, rng, {}) for name, s in self.sizes.items()}
        batch: dict[str, Any] = dict(dims)
        for name, kind in self.fields.items():
            if name not in dims:
                batch[name] = kind.sample(size, rng, dims)
        batch = self._match_supports(batch)
        if self.where is None:
            return batch
        allowed = np.broadcast_to(np.asarray(self._allows(self.view(batch)), dtype=bool), (size,))
        return self.take(batch, np.flatnonzero(allowed))

    def length(self, batch: Mapping[str, Any]) -> int:
        """How many instances a batch holds (1 if all its fields are sizes)."""
        for name in self.fields:
            if name not in self.sizes:
                value = batch[name]
                return len(value[0]) if isinstance(value, tuple) else len(value)
        return 1

    def take(self, batch: Mapping[str, Any], index: Any) -> dict[str, Any]:
        """One instance (integer ``index``) or a smaller batch (array of indices)."""

        def pick(name: str, value: Any) -> Any:
            if name in self.sizes:
                return value
            picked = tuple(level[index] for level in value) if isinstance(value, tuple) else value[index]
            return picked.item() if isinstance(picked, np.generic) else picked

        return {name: pick(name, value) for name, value in batch.items()}

    def batches(self, total: int, rng: np.random.Generator | int, batch_size: int = 1000) -> Iterator[dict[str, Any]]:
        """Batches of draws (see `view`), each with fresh sizes, until ``total`` instances were drawn.

        Raises:
            ValueError: ``where`` rejects nearly everything, so that ``total`` is out of reach.
        """
        rng = _validate.generator(rng)
        drawn = tried = 0
        while drawn < total:
            batch = self.draw(min(batch_size, total), rng)
            tried += batch_size
            count = self.length(batch)
            if count:
                count = min(count, total - drawn)
                drawn += count
                yield batch if count == self.length(batch) else self.take(batch, np.arange(count))
            elif tried > 200 * max(total, batch_size):
                raise ValueError(f"the predicate of {self!r} rejects nearly every instance ({drawn} of {tried})")
