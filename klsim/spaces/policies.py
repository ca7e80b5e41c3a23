"""Policies and rewards: over one set of outcomes, and over the nodes of a token tree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim.spaces import structure
from klsim.spaces.field import Dims, Field, extent, named
from klsim.spaces.numbers import Normals, without_entry
from klsim.spaces.structure import log_normalize, log_of_weights

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Policies", "Rewards", "TreeNormals", "TreePolicies", "on_support_of"]

#: how far the samplers go below the largest log-probability, and how far a search may
_SAMPLED, _REACHED = 30.0, 600.0


@dataclass(frozen=True)
class Policies(Field):
    """Log-probabilities over the size ``axis``.

    Hypothesis draws small integer weights, or log-weights down to ``-spread`` (30). Bulk draws Dirichlet rows whose
    concentration is log-uniform in [0.05, 20]. A search goes on to probabilities of ``exp(-600)``; a ``spread`` that is
    given is an assumption, which it respects.
    With ``zero_support`` some outcomes have probability zero (``-inf``), never all.
    ``like`` names a policy field of the same space whose support is copied.
    """

    axis: str | int = "A"
    zero_support: bool = False
    spread: float | None = None
    like: str | None = None

    @property
    def _drawn(self) -> float:
        return _SAMPLED if self.spread is None else self.spread

    def axes(self) -> tuple[str, ...]:
        return named(self.axis)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        size = extent(self.axis, dims)
        lowest = 0 if self.zero_support else 1
        weights = st.lists(st.integers(lowest, 60), min_size=size, max_size=size).filter(any)
        logs: SearchStrategy[Any] = st.floats(-self._drawn, 0.0, width=32)
        if self.zero_support:
            logs = st.one_of(logs, st.just(-math.inf))
        extreme = st.lists(logs, min_size=size, max_size=size).filter(lambda row: max(row) > -math.inf)
        return st.one_of(
            weights.map(lambda w: log_of_weights(np.asarray(w, dtype=float))),
            extreme.map(lambda row: log_normalize(np.asarray(row, dtype=float))),
        )

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        outcomes = extent(self.axis, dims)
        concentration = np.exp(rng.uniform(math.log(0.05), math.log(20.0), size=(size, 1)))
        # log Gamma(a) = log Gamma(a + 1) + log(U) / a: the logs of tiny weights do not underflow
        logs = np.log(rng.standard_gamma(concentration + 1.0, size=(size, outcomes)))
        logs = np.maximum(logs + np.log1p(-rng.random((size, outcomes))) / concentration, -self._drawn)
        if self.zero_support and outcomes > 1:
            gone = (rng.random((size, outcomes)) < 0.3) & (rng.random((size, 1)) < 0.5)
            gone[np.arange(size), logs.argmax(axis=1)] = False
            logs = np.where(gone, -np.inf, logs)
        return log_normalize(logs)

    def simpler(self, value: Any) -> Iterator[np.ndarray]:
        return (new for new in structure.rounder_log_probs(value) if not np.array_equal(new, value))

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        kept = without_entry(value, (self.axis,), axis, index)
        return value if kept is value else _renormalized(kept)

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        x = value[np.isfinite(value)]
        return x, np.ones(x.size)

    def at(self, value: Any, x: np.ndarray) -> np.ndarray:
        return _at_logits(value, x, _REACHED if self.spread is None else self.spread)


def _renormalized(log_p: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(log_p).any(axis=-1)):
        raise ValueError("nothing left of the support")
    return log_normalize(log_p)


def _at_logits(log_p: np.ndarray, x: np.ndarray, reach: float) -> np.ndarray:
    """Log-probabilities with the logits ``x`` on the support, at most ``reach`` below the largest."""
    logits = np.full(log_p.shape, -np.inf)
    logits[np.isfinite(log_p)] = x
    top = logits.max(axis=-1, keepdims=True)
    return log_normalize(np.where(np.isfinite(logits), np.maximum(logits, top - reach), -np.inf))


def on_support_of(log_policy: np.ndarray, log_other: np.ndarray) -> np.ndarray:
    """``log_policy`` restricted to the support of ``log_other``; uniform there if nothing is left."""
    alive = np.isfinite(log_other)
    kept = np.where(alive, log_policy, -np.inf)
    empty = ~np.isfinite(kept).any(axis=-1, keepdims=True)
    return log_normalize(np.where(empty & alive, 0.0, kept))


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
        return named(self.axis)

    def strategy(self, dims: Dims) -> SearchStrategy[np.ndarray]:
        from hypothesis import strategies as st

        size = extent(self.axis, dims)
        tenths = st.lists(st.integers(-40, 40), min_size=size, max_size=size, unique=not self.ties)
        floats = st.lists(st.floats(-4, 4, width=32), min_size=size, max_size=size, unique=not self.ties)
        return st.one_of(
            tenths.map(lambda row: np.asarray(row, dtype=float) / 10 * self.scale),
            floats.map(lambda row: np.asarray(row, dtype=float) * self.scale),
        )

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        rewards = rng.standard_normal((size, extent(self.axis, dims)))
        if self.ties:
            rewards = np.where(rng.random((size, 1)) < 1 / 3, np.round(rewards) + 0.0, rewards)
        return rewards * self.scale

    def simpler(self, value: Any) -> Iterator[np.ndarray]:
        for new in structure.rounder_reals(value):
            if not np.array_equal(new, value) and (self.ties or np.unique(new).size == new.size):
                yield new

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        return without_entry(value, (self.axis,), axis, index)

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        return value, np.full(value.size, self.scale)

    def at(self, value: Any, x: np.ndarray) -> np.ndarray:
        reach = max(4.0 * abs(self.scale), float(np.max(np.abs(value), initial=0.0)))
        return np.clip(x, -reach, reach)


@dataclass(frozen=True)
class TreeNormals(Field):
    """Per-token values of a token tree: ``horizon`` levels of shape ``(V**t, V)``, ``scale * N(0, 1)``."""

    vocab: str | int = "V"
    horizon: str | int = "H"
    scale: float = 1.0

    def axes(self) -> tuple[str, ...]:
        return named(self.vocab, self.horizon)

    def _level(self, t: int, dims: Dims) -> Normals:
        vocab = extent(self.vocab, dims)
        return Normals(vocab**t, vocab, scale=self.scale)

    def strategy(self, dims: Dims) -> SearchStrategy[tuple[np.ndarray, ...]]:
        from hypothesis import strategies as st

        return st.tuples(*(self._level(t, dims).strategy(dims) for t in range(extent(self.horizon, dims))))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> tuple[np.ndarray, ...]:
        return tuple(self._level(t, dims).sample(size, rng, dims) for t in range(extent(self.horizon, dims)))

    def simpler(self, value: Any) -> Iterator[tuple[np.ndarray, ...]]:
        options = [list(self._rounder(level)) for level in value]
        for step in range(max(map(len, options))):  # the levels together
            new = tuple(o[step] if step < len(o) else level for o, level in zip(options, value))
            if any(not np.array_equal(a, b) for a, b in zip(new, value)):
                yield new

    def _rounder(self, level: np.ndarray) -> Iterator[np.ndarray]:
        return structure.rounder_reals(level)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        if axis == self.horizon:
            if len(value) == 1:
                raise ValueError("a tree needs a level")
            return tuple(value[:-1])  # whichever index: the last step goes
        if axis != self.vocab:
            return value
        vocab = extent(self.vocab, dims)
        return tuple(_without_token(level, vocab, t, index) for t, level in enumerate(value))

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([level.ravel() for level in value])
        return x, np.full(x.size, 0.5 * self.scale)

    def at(self, value: Any, x: np.ndarray) -> tuple[np.ndarray, ...]:
        ends = np.cumsum([level.size for level in value])[:-1]
        x = np.clip(x, -30.0 * self.scale, 30.0 * self.scale)
        return tuple(part.reshape(level.shape) for part, level in zip(np.split(x, ends), value))


def _without_token(level: np.ndarray, vocab: int, depth: int, token: int) -> np.ndarray:
    """A level ``(V**t, V)`` without every prefix and action that holds ``token``."""
    cube = level.reshape((vocab,) * (depth + 1))
    for axis in range(depth + 1):
        cube = np.delete(cube, token, axis=axis)
    return cube.reshape((vocab - 1) ** depth, vocab - 1)


@dataclass(frozen=True)
class TreePolicies(TreeNormals):
    """Tree policies: ``horizon`` levels ``(V**t, V)`` of log-softmax of ``scale * N(0, 1)`` logits."""

    def strategy(self, dims: Dims) -> SearchStrategy[tuple[np.ndarray, ...]]:
        return super().strategy(dims).map(lambda levels: tuple(log_normalize(level) for level in levels))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> tuple[np.ndarray, ...]:
        return tuple(log_normalize(level) for level in super().sample(size, rng, dims))

    def _rounder(self, level: np.ndarray) -> Iterator[np.ndarray]:
        return structure.rounder_log_probs(level)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        return tuple(_renormalized(level) for level in super().without(value, axis, index, dims))

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        x, _ = super().coordinates(value)
        return x, np.ones(x.size)

    def at(self, value: Any, x: np.ndarray) -> tuple[np.ndarray, ...]:
        ends = np.cumsum([level.size for level in value])[:-1]
        pairs = zip(np.split(x, ends), value)
        return tuple(_at_logits(level, part, 30.0 * self.scale) for part, level in pairs)
