r"""Distributions over problem instances: one object, two samplers.

A `Space` names the arguments of a check and says where each comes from. It can be drawn from in
two ways: as a Hypothesis strategy (adversarial: small sizes, ties, zero support, one action, extreme
scales; shrinks to a minimal instance) and as a vectorised bulk sampler (thousands of random instances
in arrays with a leading batch axis, for one call of a batched function).

::

    Space(log_policy=Policies(), log_ref=Policies(), beta=Betas(), A=Sizes(1, 8))

Fields refer to sizes by name: ``Policies("A")`` has as many outcomes as the size ``A`` of the same
space. A size that is not declared is drawn from 1…8 and not handed to the check. Within one bulk
batch all instances share their sizes; `Space.batches` draws new sizes for every batch.

Assumptions that concern several fields are a predicate, ``where=lambda log_policy, reward: ...``,
true where the instance is allowed (one boolean an instance).
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim import _validate

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "Betas",
    "Choice",
    "Field",
    "Floats",
    "Integers",
    "Masks",
    "Normals",
    "Policies",
    "Rewards",
    "Seeds",
    "Sizes",
    "Space",
    "TreeNormals",
    "TreePolicies",
]

Dims = Mapping[str, int]


class Field(ABC):
    """One argument of a check. Subclasses draw it for given sizes, one by one or in bulk."""

    def axes(self) -> tuple[str, ...]:
        """Names of the sizes it refers to."""
        return ()

    @abstractmethod
    def strategy(self, dims: Dims) -> SearchStrategy[Any]:
        """A Hypothesis strategy for one draw."""

    @abstractmethod
    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> Any:
        """``size`` independent draws: arrays (or tuples of arrays) with a leading axis ``size``."""


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


def _extent(axis: str | int, dims: Dims) -> int:
    return axis if isinstance(axis, int) else dims[axis]


def _named(*axes: str | int) -> tuple[str, ...]:
    return tuple(a for a in axes if isinstance(a, str))


def _log_normalize(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=-1, keepdims=True)
    return logits - (top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class Policies(Field):
    """Log-probabilities over the size ``axis``.

    Hypothesis draws small integer weights (they shrink to readable fractions), or log-weights down
    to ``-spread``. Bulk draws Dirichlet rows whose concentration is log-uniform in [0.05, 20].
    With ``zero_support`` some outcomes have probability zero (``-inf``), never all.
    ``like`` names a policy field of the same space whose support is copied.
    """

    axis: str | int = "A"
    zero_support: bool = False
    spread: float = 30.0
    like: str | None = None

    def axes(self) -> tuple[str, ...]:
        return _named(self.axis)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        size = _extent(self.axis, dims)
        lowest = 0 if self.zero_support else 1
        weights = st.lists(st.integers(lowest, 60), min_size=size, max_size=size).filter(any)
        logs: SearchStrategy[Any] = st.floats(-self.spread, 0.0, width=32)
        if self.zero_support:
            logs = st.one_of(logs, st.just(-math.inf))
        extreme = st.lists(logs, min_size=size, max_size=size).filter(lambda row: max(row) > -math.inf)
        return st.one_of(
            weights.map(lambda w: _log_of_weights(np.asarray(w, dtype=float))),
            extreme.map(lambda row: _log_normalize(np.asarray(row, dtype=float))),
        )

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        outcomes = _extent(self.axis, dims)
        concentration = np.exp(rng.uniform(math.log(0.05), math.log(20.0), size=(size, 1)))
        # log Gamma(a) = log Gamma(a + 1) + log(U) / a: the logs of tiny weights do not underflow
        logs = np.log(rng.standard_gamma(concentration + 1.0, size=(size, outcomes)))
        logs = np.maximum(logs + np.log1p(-rng.random((size, outcomes))) / concentration, -self.spread)
        if self.zero_support and outcomes > 1:
            gone = (rng.random((size, outcomes)) < 0.3) & (rng.random((size, 1)) < 0.5)
            gone[np.arange(size), logs.argmax(axis=1)] = False
            logs = np.where(gone, -np.inf, logs)
        return _log_normalize(logs)


def _log_of_weights(weights: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(weights / weights.sum())


def on_support_of(log_policy: np.ndarray, log_other: np.ndarray) -> np.ndarray:
    """``log_policy`` restricted to the support of ``log_other``; uniform there if nothing is left."""
    alive = np.isfinite(log_other)
    kept = np.where(alive, log_policy, -np.inf)
    empty = ~np.isfinite(kept).any(axis=-1, keepdims=True)
    return _log_normalize(np.where(empty & alive, 0.0, kept))


@dataclass(frozen=True)
class Rewards(Field):
    """Finite rewards over ``axis``, of magnitude ``scale``.

    Hypothesis draws tenths (so ties are common) or floats; bulk draws normals, a third of the rows
    rounded to integers times ``scale`` so that ties occur. ``ties=False`` gives distinct rewards.
    """

    axis: str | int = "A"
    scale: float = 1.0
    ties: bool = True

    def axes(self) -> tuple[str, ...]:
        return _named(self.axis)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        size = _extent(self.axis, dims)
        tenths = st.lists(st.integers(-40, 40), min_size=size, max_size=size, unique=not self.ties)
        floats = st.lists(st.floats(-4, 4, width=32), min_size=size, max_size=size, unique=not self.ties)
        return st.one_of(
            tenths.map(lambda row: np.asarray(row, dtype=float) / 10 * self.scale),
            floats.map(lambda row: np.asarray(row, dtype=float) * self.scale),
        )

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        rewards = rng.standard_normal((size, _extent(self.axis, dims)))
        if self.ties:
            rewards = np.where(rng.random((size, 1)) < 1 / 3, np.round(rewards), rewards)
        return rewards * self.scale


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


@dataclass(frozen=True)
class Normals(Field):
    """An array of independent ``scale * N(0, 1)`` entries with the given axes, e.g. ``Normals("A", "D")``."""

    shape: tuple[str | int, ...]
    scale: float

    def __init__(self, *shape: str | int, scale: float = 1.0) -> None:
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "scale", scale)

    def axes(self) -> tuple[str, ...]:
        return _named(*self.shape)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        shape = tuple(_extent(a, dims) for a in self.shape)
        count = math.prod(shape)
        small = st.lists(st.integers(-30, 30).map(lambda i: i / 10), min_size=count, max_size=count)
        drawn = st.integers(0, 2**31 - 1).map(lambda s: np.random.default_rng(s).standard_normal(count))
        return st.one_of(small, drawn).map(lambda row: self.scale * np.asarray(row, dtype=float).reshape(shape))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        return self.scale * rng.standard_normal((size, *(_extent(a, dims) for a in self.shape)))


@dataclass(frozen=True)
class Masks(Field):
    """A boolean mask over ``axis``; with ``both`` it has a True and a False entry where it can."""

    axis: str | int = "A"
    both: bool = True

    def axes(self) -> tuple[str, ...]:
        return _named(self.axis)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        size = _extent(self.axis, dims)
        masks = st.lists(st.booleans(), min_size=size, max_size=size).map(lambda row: np.asarray(row, dtype=bool))
        return masks.filter(lambda m: m.any() and not m.all()) if self.both and size > 1 else masks

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        outcomes = _extent(self.axis, dims)
        mask = rng.random((size, outcomes)) < 0.5
        if self.both and outcomes > 1:
            first, second = _two_places(size, outcomes, rng)
            rows = np.arange(size)
            mask[rows, first] |= ~mask.any(axis=1)
            flip = mask.all(axis=1)
            mask[rows[flip], second[flip]] = False
        return mask


def _two_places(size: int, outcomes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = rng.integers(0, outcomes, size)
    return first, (first + rng.integers(1, outcomes, size)) % outcomes


@dataclass(frozen=True)
class TreeNormals(Field):
    """Per-token values of a token tree: ``horizon`` levels of shape ``(V**t, V)``, ``scale * N(0, 1)``."""

    vocab: str | int = "V"
    horizon: str | int = "H"
    scale: float = 1.0

    def axes(self) -> tuple[str, ...]:
        return _named(self.vocab, self.horizon)

    def _level(self, t: int, dims: Dims) -> Normals:
        vocab = _extent(self.vocab, dims)
        return Normals(vocab**t, vocab, scale=self.scale)

    def strategy(self, dims: Dims) -> SearchStrategy[tuple[np.ndarray, ...]]:
        from hypothesis import strategies as st

        return st.tuples(*(self._level(t, dims).strategy(dims) for t in range(_extent(self.horizon, dims))))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> tuple[np.ndarray, ...]:
        return tuple(self._level(t, dims).sample(size, rng, dims) for t in range(_extent(self.horizon, dims)))


@dataclass(frozen=True)
class TreePolicies(TreeNormals):
    """Tree policies: ``horizon`` levels ``(V**t, V)`` of log-softmax of ``scale * N(0, 1)`` logits."""

    def strategy(self, dims: Dims) -> SearchStrategy[tuple[np.ndarray, ...]]:
        return super().strategy(dims).map(lambda levels: tuple(_log_normalize(level) for level in levels))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> tuple[np.ndarray, ...]:
        return tuple(_log_normalize(level) for level in super().sample(size, rng, dims))


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

    def __repr__(self) -> str:
        return f"Space({', '.join(f'{n}={f!r}' for n, f in self.fields.items())})"

    def _match_supports(self, values: dict[str, Any]) -> dict[str, Any]:
        for name, kind in self.fields.items():
            like = getattr(kind, "like", None)
            if like is not None:
                values[name] = on_support_of(values[name], values[like])
        return values

    def _allows(self, values: Mapping[str, Any]) -> Any:
        """The predicate on the fields that it names."""
        assert self.where is not None
        names = inspect.signature(self.where).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in names.values())
        return self.where(**{k: v for k, v in values.items() if takes_all or k in names})

    def strategy(self) -> SearchStrategy[dict[str, Any]]:
        """A Hypothesis strategy for one instance: ``{field: value}``."""
        from hypothesis import assume
        from hypothesis import strategies as st

        @st.composite
        def instances(draw: Any) -> dict[str, Any]:
            dims = {name: draw(size.strategy({})) for name, size in self.sizes.items()}
            values: dict[str, Any] = {}
            for name, kind in self.fields.items():
                values[name] = dims[name] if isinstance(kind, Sizes) else draw(kind.strategy(dims))
            values = self._match_supports(values)
            if self.where is not None:
                assume(bool(np.all(self._allows(values))))
            return values

        return instances()

    def sample(self, size: int, rng: np.random.Generator | int) -> dict[str, Any]:
        """A batch of at most ``size`` instances (fewer where ``where`` rejects), leading axis first."""
        rng = _validate.generator(rng)
        dims = {name: s.sample(size, rng, {}) for name, s in self.sizes.items()}
        batch: dict[str, Any] = {}
        for name, kind in self.fields.items():
            batch[name] = dims[name] if isinstance(kind, Sizes) else kind.sample(size, rng, dims)
        batch = self._match_supports(batch)
        if self.where is None:
            return batch
        allowed = np.broadcast_to(np.asarray(self._allows(batch), dtype=bool), (size,))
        return self.take(batch, np.flatnonzero(allowed))

    def length(self, batch: Mapping[str, Any]) -> int:
        """How many instances a batch holds (1 if all its fields are sizes)."""
        for name, kind in self.fields.items():
            if not isinstance(kind, Sizes):
                value = batch[name]
                return len(value[0]) if isinstance(value, tuple) else len(value)
        return 1

    def take(self, batch: Mapping[str, Any], index: Any) -> dict[str, Any]:
        """One instance (integer ``index``) or a smaller batch (array of indices)."""

        def pick(name: str, value: Any) -> Any:
            if isinstance(self.fields[name], Sizes):
                return value
            picked = tuple(level[index] for level in value) if isinstance(value, tuple) else value[index]
            return picked.item() if isinstance(picked, np.generic) else picked

        return {name: pick(name, value) for name, value in batch.items()}

    def batches(self, total: int, rng: np.random.Generator | int, batch_size: int = 1000) -> Iterator[dict[str, Any]]:
        """Batches of instances, each with fresh sizes, until ``total`` instances were drawn.

        Raises:
            ValueError: ``where`` rejects nearly everything, so that ``total`` is out of reach.
        """
        rng = _validate.generator(rng)
        drawn = tried = 0
        while drawn < total:
            batch = self.sample(min(batch_size, total), rng)
            tried += batch_size
            count = self.length(batch)
            if count:
                count = min(count, total - drawn)
                drawn += count
                yield batch if count == self.length(batch) else self.take(batch, np.arange(count))
            elif tried > 200 * max(total, batch_size):
                raise ValueError(f"the predicate of {self!r} rejects nearly every instance ({drawn} of {tried})")
