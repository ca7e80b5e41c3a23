"""Latent MDPs as a field: contexts of one shape, with rewards that tell the context or do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from klsim.problems import LatentMDP
from klsim.spaces import structure
from klsim.spaces.field import Dims, Field, as_objects, extent, named
from klsim.spaces.policies import Policies
from klsim.spaces.problems import TabularMDPs

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["LatentMDPs"]


@dataclass(frozen=True)
class LatentMDPs(Field):
    """`LatentMDP`: ``contexts`` many of `TabularMDPs`; in half of the draws all have the rewards of the first.

    Sizes by name or number; ``scale``, ``zeros`` and ``stationary`` as `TabularMDPs`.
    """

    contexts: str | int = "M"
    states: str | int = "S"
    actions: str | int = "A"
    horizon: str | int = "H"
    scale: float = 1.0
    zeros: bool = True
    stationary: bool = False
    single: ClassVar[bool] = True

    def axes(self) -> tuple[str, ...]:
        return named(self.contexts, self.states, self.actions, self.horizon)

    def _of_one(self) -> TabularMDPs:
        return TabularMDPs(
            self.states, self.actions, self.scale, self.zeros, horizon=self.horizon, stationary=self.stationary
        )

    def draw(self, rng: np.random.Generator, dims: Dims) -> LatentMDP:
        """One problem of the given sizes."""
        count, field = extent(self.contexts, dims), self._of_one()
        drawn = [field.draw(rng, dims) for _ in range(count)]
        if rng.random() < 0.5:
            drawn = [dataclasses.replace(mdp, reward=drawn[0].reward) for mdp in drawn]
        return LatentMDP(np.exp(Policies(count).sample(1, rng, {})[0]), tuple(drawn))

    def strategy(self, dims: Dims) -> SearchStrategy[Any]:
        from hypothesis import strategies as st

        return st.integers(0, 2**31 - 1).map(lambda seed: self.draw(np.random.default_rng(seed), dims))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        return as_objects([self.draw(rng, dims) for _ in range(size)])

    def simpler(self, value: Any) -> Iterator[Any]:
        return structure.simpler(value)

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        return structure.coordinates(value)

    def at(self, value: Any, x: np.ndarray) -> Any:
        return structure.moved(value, x)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        if axis == self.contexts:
            weights = np.delete(value.weights, index)
            total = weights.sum()
            if not total > 0:
                raise ValueError("no context would be left")
            left = tuple(context for m, context in enumerate(value.contexts) if m != index)
            return dataclasses.replace(value, weights=weights / total, contexts=left)
        field = self._of_one()
        kept = tuple(field.without(context, axis, index, dims) for context in value.contexts)
        return dataclasses.replace(value, contexts=kept)
