"""Problems as fields: one object of `klsim.problems` an instance.

The samplers draw what breaks claims: rows from nearly deterministic to uniform, some with zero support, rewards with
ties, a few absorbing states. Problems lose states and actions, and get rounder numbers, when a counterexample shrinks.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from klsim.problems import (
    POMDP,
    Bandit,
    CoupledRestlessBandit,
    DiscountedMDP,
    LinearMDP,
    MaskedDiffusionLM,
    PromptBandit,
    TabularMDP,
    TokenTree,
    Transitions,
    sample_transitions,
)
from klsim.spaces import structure
from klsim.spaces.field import Dims, Field, as_objects, extent, named
from klsim.spaces.numbers import Floats
from klsim.spaces.policies import Policies, Rewards

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "Bandits",
    "CoupledRestlessBandits",
    "DiscountedMDPs",
    "LinearMDPs",
    "MaskedDiffusionLMs",
    "OfflineData",
    "POMDPs",
    "PromptBandits",
    "TabularMDPs",
    "TokenTrees",
]


@dataclass(frozen=True)
class _Problems(Field):
    """One problem an instance."""

    single: ClassVar[bool] = True

    @abstractmethod
    def draw(self, rng: np.random.Generator, dims: Dims) -> Any:
        """One problem of the given sizes."""

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


def _rewards(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> np.ndarray:
    return Rewards(shape[-1], scale).sample(int(np.prod(shape[:-1], dtype=int)), rng, {}).reshape(shape)


def _rows(shape: tuple[int, ...], zeros: bool, rng: np.random.Generator) -> np.ndarray:
    """Rows of probabilities, from nearly deterministic to nearly uniform."""
    field = Policies(shape[-1], zero_support=zeros)
    return np.exp(field.sample(int(np.prod(shape[:-1], dtype=int)), rng, {})).reshape(shape)


def _kept_rows(p: np.ndarray, index: int) -> np.ndarray:
    """Probabilities without outcome ``index``; a row that had no other becomes uniform."""
    left = np.delete(p, index, axis=-1)
    total = left.sum(axis=-1, keepdims=True)
    return np.where(total > 0, left / np.where(total > 0, total, 1.0), 1.0 / left.shape[-1])


@dataclass(frozen=True)
class Bandits(_Problems):
    """`Bandit`: ``actions`` with a reference (from `Policies`) and rewards (from `Rewards`)."""

    actions: str | int = "A"
    scale: float = 1.0
    zero_support: bool = False

    def axes(self) -> tuple[str, ...]:
        return named(self.actions)

    def draw(self, rng: np.random.Generator, dims: Dims) -> Bandit:
        count = extent(self.actions, dims)
        log_ref = Policies(count, self.zero_support).sample(1, rng, {})[0]
        return Bandit(log_ref, _rewards((count,), self.scale, rng))

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        if axis != self.actions:
            return value
        kept = Policies("A").without(value.log_ref, "A", index, {})
        return Bandit(kept, np.delete(value.reward, index))


@dataclass(frozen=True)
class _MDPs(_Problems):
    """What tabular and discounted problems share: sizes, rewards, rows."""

    states: str | int = "S"
    actions: str | int = "A"
    scale: float = 1.0
    zeros: bool = True

    def axes(self) -> tuple[str, ...]:
        return named(self.states, self.actions)

    def _without(self, value: Any, axis: str, index: int) -> Any:
        """Without a state, or an action; arrays end in (S, A, S), (S, A) and (S,)."""
        legal = None
        if axis == self.states:
            transition = _kept_rows(np.delete(value.transition, index, axis=-3), index)
            reward, initial = np.delete(value.reward, index, axis=-2), _kept_rows(value.initial, index)
            if value.actions is not None:
                legal = np.delete(value.actions, index, axis=0)
        elif axis == self.actions:
            transition, initial = np.delete(value.transition, index, axis=-2), value.initial
            reward = np.delete(value.reward, index, axis=-1)
            if value.actions is not None:
                legal = np.delete(value.actions, index, axis=1)
        else:
            return value
        return dataclasses.replace(value, transition=transition, reward=reward, initial=initial, actions=legal)


@dataclass(frozen=True)
class DiscountedMDPs(_MDPs):
    """`DiscountedMDP`: ``states``, ``actions``, a discount from ``discount``; ``zeros`` allows impossible
    successors."""

    discount: Floats = dataclasses.field(default_factory=lambda: Floats(0.0, 0.95))

    def draw(self, rng: np.random.Generator, dims: Dims) -> DiscountedMDP:
        s, a = extent(self.states, dims), extent(self.actions, dims)
        discount = float(self.discount.sample(1, rng, {})[0])
        initial = _rows((1, s), self.zeros, rng)[0]
        return DiscountedMDP(_rows((s, a, s), self.zeros, rng), _rewards((s, a), self.scale, rng), discount, initial)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        return self._without(value, axis, index)

    def simpler(self, value: Any) -> Iterator[Any]:
        for discount in self.discount.simpler(value.discount):
            yield dataclasses.replace(value, discount=discount)
        yield from (new for new in super().simpler(value) if self.discount.low <= new.discount <= self.discount.high)


@dataclass(frozen=True)
class TabularMDPs(_MDPs):
    """`TabularMDP`: ``horizon`` steps in ``states`` with ``actions``; ``stationary`` uses the same step throughout."""

    horizon: str | int = "H"
    stationary: bool = False

    def axes(self) -> tuple[str, ...]:
        return named(self.states, self.actions, self.horizon)

    def draw(self, rng: np.random.Generator, dims: Dims) -> TabularMDP:
        s, a, h = extent(self.states, dims), extent(self.actions, dims), extent(self.horizon, dims)
        steps = () if self.stationary else (h,)
        transition = _rows((*steps, s, a, s), self.zeros, rng)
        reward = _rewards((*steps, s, a), self.scale, rng)
        return TabularMDP(transition, reward, _rows((1, s), self.zeros, rng)[0], h)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        if axis != self.horizon:
            return self._without(value, axis, index)
        transition, reward = np.delete(value.transition, index, axis=0), np.delete(value.reward, index, axis=0)
        return dataclasses.replace(value, transition=transition, reward=reward, horizon=value.horizon - 1)


@dataclass(frozen=True)
class LinearMDPs(_Problems):
    """`LinearMDP` in simplex form: ``states``, ``actions``, ``latent`` factors, ``horizon``."""

    states: str | int = "S"
    actions: str | int = "A"
    latent: str | int = "D"
    horizon: str | int = "H"
    scale: float = 1.0

    def axes(self) -> tuple[str, ...]:
        return named(self.states, self.actions, self.latent, self.horizon)

    def draw(self, rng: np.random.Generator, dims: Dims) -> LinearMDP:
        s, a, d, h = (extent(x, dims) for x in (self.states, self.actions, self.latent, self.horizon))
        features, factors = _rows((s, a, d), False, rng), _rows((h, d, s), False, rng)
        return LinearMDP(features, factors, _rewards((h, d), self.scale, rng), _rows((1, s), False, rng)[0])

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        f, m, t, i = value.features, value.factors, value.theta, value.initial
        if axis == self.actions:
            f = np.delete(f, index, axis=1)
        elif axis == self.states:
            f, m, i = np.delete(f, index, axis=0), _kept_rows(m, index), _kept_rows(i, index)
        elif axis == self.latent:
            f, m, t = _kept_rows(f, index), np.delete(m, index, axis=1), np.delete(t, index, axis=1)
        elif axis == self.horizon:
            m, t = np.delete(m, index, axis=0), np.delete(t, index, axis=0)
        else:
            return value
        return LinearMDP(f, m, t, i)


@dataclass(frozen=True)
class POMDPs(_Problems):
    """`POMDP`: ``horizon`` steps in latent ``states`` with ``actions`` and ``symbols``; ``zeros`` allows impossible
    successors and observations."""

    states: str | int = "S"
    actions: str | int = "A"
    symbols: str | int = "O"
    horizon: str | int = "H"
    scale: float = 1.0
    zeros: bool = True

    def axes(self) -> tuple[str, ...]:
        return named(self.states, self.actions, self.symbols, self.horizon)

    def draw(self, rng: np.random.Generator, dims: Dims) -> POMDP:
        s, a, o, h = (extent(x, dims) for x in (self.states, self.actions, self.symbols, self.horizon))
        transition, emission = _rows((h, s, a, s), self.zeros, rng), _rows((h, s, o), self.zeros, rng)
        reward = _rewards((h, s, a), self.scale, rng)
        return POMDP(transition, emission, reward, _rows((1, s), self.zeros, rng)[0], h)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        p, e, r, i, h = value.transition, value.emission, value.reward, value.initial, value.horizon
        if axis == self.states:
            p, e, r = (
                _kept_rows(np.delete(p, index, axis=1), index),
                np.delete(e, index, axis=1),
                np.delete(r, index, 1),
            )
            i = _kept_rows(i, index)
        elif axis == self.actions:
            p, r = np.delete(p, index, axis=2), np.delete(r, index, axis=2)
        elif axis == self.symbols:
            e = _kept_rows(e, index)
        elif axis == self.horizon:
            p, e, r, h = (*(np.delete(x, index, axis=0) for x in (p, e, r)), h - 1)
        else:
            return value
        return POMDP(p, e, r, i, h)


@dataclass(frozen=True)
class CoupledRestlessBandits(_Problems):
    """`CoupledRestlessBandit`: ``arms`` of ``states`` each, joint actions of ``entries`` 0/1 entries, ``horizon``.

    Feasible are the null vector and others with at most ``most`` ones (None: any number): all of them, or, in half of
    the draws, about half. ``zeros`` allows impossible moves of an arm. Problems also lose joint actions.
    """

    arms: str | int = "J"
    states: str | int = "S"
    entries: str | int = "D"
    horizon: str | int = "H"
    most: int | None = None
    scale: float = 1.0
    zeros: bool = True

    def axes(self) -> tuple[str, ...]:
        return named(self.arms, self.states, self.entries, self.horizon)

    def draw(self, rng: np.random.Generator, dims: Dims) -> CoupledRestlessBandit:
        j, s, d, h = (extent(x, dims) for x in (self.arms, self.states, self.entries, self.horizon))
        every = (np.arange(2**d)[:, None] >> np.arange(d)[::-1]) & 1
        kept = (rng.random(len(every)) < rng.choice([0.5, 1.0])) & (
            every.sum(axis=1) <= (d if self.most is None else self.most)
        )
        kept[0] = True
        vectors = every[kept]
        rows = _rows((len(vectors), j, s, s), self.zeros, rng)
        return CoupledRestlessBandit(
            vectors, rows, _rewards((j, s), self.scale, rng), _rows((j, s), self.zeros, rng), h
        )

    def simpler(self, value: Any) -> Iterator[Any]:
        for k in reversed(np.flatnonzero(value.actions.any(axis=1))):
            yield _with_actions(value, np.arange(len(value.actions)) != k)
        yield from super().simpler(value)

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        p, r, i, h = value.transition, value.reward, value.initial, value.horizon
        if axis == self.arms:
            p, r, i = np.delete(p, index, axis=1), np.delete(r, index, axis=0), np.delete(i, index, axis=0)
        elif axis == self.states:
            p, r, i = _kept_rows(np.delete(p, index, axis=2), index), np.delete(r, index, axis=1), _kept_rows(i, index)
        elif axis == self.entries:  # of the actions, those that do not use it
            left = _with_actions(value, value.actions[:, index] == 0)
            return dataclasses.replace(left, actions=np.delete(left.actions, index, axis=1))
        elif axis == self.horizon:
            h -= 1
        else:
            return value
        return dataclasses.replace(value, transition=p, reward=r, initial=i, horizon=h)


def _with_actions(value: CoupledRestlessBandit, kept: np.ndarray) -> CoupledRestlessBandit:
    """With a part of its joint actions (a mask)."""
    return dataclasses.replace(value, actions=value.actions[kept], transition=value.transition[kept])


@dataclass(frozen=True)
class PromptBandits(_Problems):
    """`PromptBandit`: ``prompts`` with ``answers``, logits ``scale * N(0, 1)``, rewards 0/1.

    A prompt with two answers or more has a right and a wrong one. ``features`` names their number; 0 gives every prompt
    its own logits.
    """

    prompts: str | int = "X"
    answers: str | int = "A"
    features: str | int = 0
    scale: float = 1.5

    def axes(self) -> tuple[str, ...]:
        return named(self.prompts, self.answers, self.features)

    def draw(self, rng: np.random.Generator, dims: Dims) -> PromptBandit:
        x, a = extent(self.prompts, dims), extent(self.answers, dims)
        reward = (rng.random((x, a)) < rng.uniform(0.2, 0.8)).astype(float)
        if a > 1:
            right = rng.integers(0, a, x)
            reward[np.arange(x), right], reward[np.arange(x), (right + 1) % a] = 1.0, 0.0
        logits, count = self.scale * rng.standard_normal((x, a)), extent(self.features, dims)
        if not count:
            return PromptBandit.tabular(logits, reward)
        return PromptBandit(logits, reward, rng.standard_normal((x, count)) / np.sqrt(count))

    def simpler(self, value: Any) -> Iterator[Any]:
        for name in ("base_logits", "features"):
            for new in structure.simpler(getattr(value, name)):
                yield dataclasses.replace(value, **{name: new})

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        return value.base_logits.ravel(), np.full(value.base_logits.size, 0.5 * self.scale)

    def at(self, value: Any, x: np.ndarray) -> Any:
        return dataclasses.replace(value, base_logits=x.reshape(value.base_logits.shape))

    def without(self, value: Any, axis: str, index: int, dims: Dims) -> Any:
        if axis == self.prompts:
            features = np.delete(value.features, index, axis=0)
            if not extent(self.features, dims):
                features = np.eye(len(features))
            kept = (np.delete(value.base_logits, index, axis=0), np.delete(value.reward, index, axis=0))
            return PromptBandit(*kept, features)
        if axis == self.answers:
            kept = (np.delete(value.base_logits, index, axis=1), np.delete(value.reward, index, axis=1))
            if kept[1].shape[1] > 1 and np.any(kept[1].min(axis=1) == kept[1].max(axis=1)):
                raise ValueError("a prompt needs a right and a wrong answer")
            return PromptBandit(*kept, value.features)
        if axis == self.features:
            return dataclasses.replace(value, features=np.delete(value.features, index, axis=1))
        return value


@dataclass(frozen=True)
class TokenTrees(_Problems):
    """`TokenTree`: rewards of all ``vocab**horizon`` sequences; ``binary`` draws 0/1 with both values where it can."""

    vocab: str | int = "V"
    horizon: str | int = "H"
    scale: float = 1.0
    binary: bool = False
    eos: int | None = None

    def axes(self) -> tuple[str, ...]:
        return named(self.vocab, self.horizon)

    def draw(self, rng: np.random.Generator, dims: Dims) -> TokenTree:
        vocab, horizon = extent(self.vocab, dims), extent(self.horizon, dims)
        leaves = vocab**horizon
        reward = _rewards((leaves,), self.scale, rng)
        if self.binary:
            reward = (rng.random(leaves) < rng.uniform(0.1, 0.9)).astype(float)
            if leaves > 1:
                first = int(rng.integers(leaves))
                reward[first], reward[(first + 1) % leaves] = 1.0, 0.0
        return TokenTree(vocab, horizon, reward, self.eos)


@dataclass(frozen=True)
class MaskedDiffusionLMs(_Problems):
    """`MaskedDiffusionLM`: conditionals of ``length`` positions over ``vocab``, log-softmax of ``scale * N(0, 1)``."""

    vocab: str | int = "V"
    length: str | int = "L"
    scale: float = 1.0

    def axes(self) -> tuple[str, ...]:
        return named(self.vocab, self.length)

    def draw(self, rng: np.random.Generator, dims: Dims) -> MaskedDiffusionLM:
        vocab, length = extent(self.vocab, dims), extent(self.length, dims)
        logits = self.scale * rng.standard_normal(((vocab + 1) ** length, length, vocab))
        return MaskedDiffusionLM(structure.log_normalize(logits))


@dataclass(frozen=True)
class OfflineData(_Problems):
    """`(TabularMDP, Transitions)`: a problem and ``count`` trajectories of a behaviour policy that need not cover
    it."""

    problem: TabularMDPs = dataclasses.field(default_factory=TabularMDPs)
    count: int = 30

    def axes(self) -> tuple[str, ...]:
        return self.problem.axes()

    def draw(self, rng: np.random.Generator, dims: Dims) -> tuple[TabularMDP, Transitions]:
        problem = self.problem.draw(rng, dims)
        behaviour = Policies(problem.shape[-1], zero_support=True).sample(problem.shape[1], rng, {})
        return problem, sample_transitions(problem, self.count, rng, log_behaviour=behaviour)

    def simpler(self, value: Any) -> Iterator[Any]:
        """Fewer data, of the same problem."""
        problem, data = value
        count = data.state.shape[1]
        for kept in (1, count // 2, count - 1):
            if 0 < kept < count:
                yield problem, Transitions(*(getattr(data, f.name)[:, :kept] for f in dataclasses.fields(data)))

    def coordinates(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(0), np.zeros(0)

    def at(self, value: Any, x: np.ndarray) -> Any:
        return value
