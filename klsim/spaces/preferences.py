"""Preference matrices and preference bandits as fields of a space."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import expit, logit

from klsim.preferences.matrices import from_log_odds
from klsim.problems import PreferenceBandit
from klsim.spaces.field import Dims, Field, as_objects, extent, named
from klsim.spaces.numbers import Normals
from klsim.spaces.policies import Policies
from klsim.spaces.structure import log_normalize

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["PreferenceBandits", "preferences"]

_REACHED = 30.0  # log-odds that a search may reach


def preferences(axis: str | int = "A", *, scale: float = 1.5) -> Field:
    """Preference matrices ``(A, A)`` whose log-odds are ``scale * N(0, 1)``, of no model: cycles too."""
    return Normals(axis, axis, scale=scale).map(from_log_odds)


@dataclass(frozen=True)
class PreferenceBandits(Field):
    """`PreferenceBandit`: ``actions`` responses, log-odds of scale ``scale``, a reference that spans ``spread`` nats.

    A third of the draws is Bradley-Terry, the others follow no model; in a third some pairs tie. Pairs are compared
    equally often, as independent draws of the reference, or with random frequencies. ``certain`` makes some chances 0
    or 1, ``uncovered`` leaves out some pairs (in half of the draws each).
    """

    actions: str | int = "A"
    scale: float = 1.5
    spread: float = 12.0
    certain: bool = False
    uncovered: bool = False
    single: ClassVar[bool] = True

    def axes(self) -> tuple[str, ...]:
        return named(self.actions)

    def draw(self, rng: np.random.Generator, dims: Dims) -> PreferenceBandit:
        """One problem of the given size."""
        size = extent(self.actions, dims)
        log_ref = Policies(size).sample(1, rng, {})[0]
        log_ref = log_normalize(np.maximum(log_ref, log_ref.max() - self.spread))
        reward, noise = self.scale * rng.standard_normal(size), self.scale * rng.standard_normal((size, size))
        odds = np.subtract.outer(reward, reward) if rng.random() < 1 / 3 else noise
        if rng.random() < 1 / 3:
            odds = np.where(rng.random(odds.shape) < 0.5, 0.0, odds)
        preference = from_log_odds(odds)
        if self.certain and rng.random() < 0.5:
            sure = np.triu(rng.random(odds.shape) < 0.5, 1)
            preference = _from_upper(np.where(sure, np.round(preference), preference))
        kind = rng.integers(3)
        random = np.exp(rng.standard_normal((size, size)))
        weights = [np.ones((size, size)), np.exp(np.add.outer(log_ref, log_ref)), random + random.T][kind]
        if self.uncovered and rng.random() < 0.5:
            out = np.triu(rng.random(odds.shape) < 0.4, 1)
            weights = np.where(out | out.T, 0.0, weights)
        return PreferenceBandit(log_ref, preference, weights)

    def strategy(self, dims: Dims) -> SearchStrategy[Any]:
        from hypothesis import strategies as st

        return st.integers(0, 2**31 - 1).map(lambda seed: self.draw(np.random.default_rng(seed), dims))

    def sample(self, size: int, rng: np.random.Generator, dims: Dims) -> np.ndarray:
        return as_objects([self.draw(rng, dims) for _ in range(size)])

    def simpler(self, value: Any) -> Iterator[Any]:
        size = len(value.preference)
        seen = value.weights > 0
        yield dataclasses.replace(value, log_ref=np.full(size, -np.log(size)))
        yield dataclasses.replace(value, weights=seen * 1.0)
        yield dataclasses.replace(value, weights=(1.0 - np.eye(size)))
        for digits in (0, 1, 2, 3):
            rounded = np.round(value.preference, digits)
            if self.certain or np.all((rounded > 0) & (rounded < 1)):
                yield dataclasses.replace(value, preference=_from_upper(rounded))
        for log_ref in Policies("A").simpler(value.log_ref):
            yield dataclasses.replace(value, log_ref=log_ref)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        if axis != self.actions:
            return value
        kept = Policies("A").without(value.log_ref, "A", index, {})
        inner = np.arange(len(value.preference)) != index
        return PreferenceBandit(kept, value.preference[np.ix_(inner, inner)], value.weights[np.ix_(inner, inner)])

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = _movable(value)
        x = np.append(value.log_ref[np.isfinite(value.log_ref)], logit(value.preference[rows, columns]))
        return x, np.ones(x.size)

    def at(self, value: Any, x: np.ndarray) -> PreferenceBandit:
        rows, columns = _movable(value)
        inside = int(np.isfinite(value.log_ref).sum())
        preference = value.preference.copy()
        preference[rows, columns] = expit(np.clip(x[inside:], -_REACHED, _REACHED))
        log_ref = Policies("A", spread=self.spread).at(value.log_ref, x[:inside])
        return dataclasses.replace(value, log_ref=log_ref, preference=_from_upper(preference))


def _movable(value: PreferenceBandit) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose chances are neither 0, 1 nor a tie."""
    p = value.preference
    rows, columns = np.nonzero(np.triu((p > 0) & (p < 1) & (p != 0.5), 1))
    return rows, columns


def _from_upper(p: np.ndarray) -> np.ndarray:
    """The preference matrix with these chances above its diagonal."""
    return np.triu(p, 1) + np.tril(1 - p.T, -1) + 0.5 * np.eye(len(p))
