r"""POPLER in miniature: online evaluation of a sunflower class at the cost of the petals that can be reached.

1. Roll out uniformly drawn core policies from the start.
2. For every policy, estimate through its empirical petal process how often it reaches each of its petals. A petal that
   is reached with probability at least ``threshold`` is *discovered*: roll in with that policy up to and including the
   petal's action, go on with a uniformly drawn core policy, and keep the episodes that came by. Until nothing is new.
3. The value of a policy is that of its empirical petal process on the petals that were discovered.

Nodes are (layer, state, action): policies that act alike at a petal share its data. Trajectories between petals weigh
``1[pi ~ tau] / ((1/K) sum_e 1[pi_e ~ tau])``; rewards and the class are known.

Source: ``agnostic-rl``, POPLER, scaled down; exact petal processes are `klsim.planning.sunflower.petal_process`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from klsim import _validate
from klsim.learning.policy_sampling import policy_episodes
from klsim.problems import TabularMDP
from klsim.problems.policy_classes import check_policies

__all__ = ["PoplerRun", "popler"]

Node = tuple[int, int, int]  # layer, state, action
START: Node = (-1, 0, 0)


@dataclass(frozen=True)
class PoplerRun:
    """What was learned.

    Attributes:
        values: estimated returns of the policies, ``(N,)``. best: the index of the largest.
        petals: discovered nodes ``(layer, state, action)``, in order of discovery, ``(P, 3)``.
        kept: episodes that came by each of them, ``(P,)``. episodes: all that were played.
    """

    values: np.ndarray
    petals: np.ndarray
    kept: np.ndarray
    episodes: int

    @property
    def best(self) -> int:
        return int(np.argmax(self.values))


@dataclass(frozen=True)
class _Segment:
    """From a node to the next petal: probabilities ``(layer, state) -> p``, and reward before it."""

    hits: dict[tuple[int, int], float]
    reward: float


@dataclass
class _Learner:
    """Data of every node, and what policies make of it."""

    problem: TabularMDP
    policies: np.ndarray
    core: np.ndarray
    petals: np.ndarray
    rng: np.random.Generator
    data: dict[Node, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    segments: dict[tuple[int, Node], _Segment] = field(default_factory=dict)
    rejected: set[Node] = field(default_factory=set)
    episodes: int = 0

    def collect(self, node: Node, policy: int, count: int, least: int) -> bool:
        """Roll in with a policy up to the node, then follow the core; False if fewer than ``least`` came by."""
        layer, state, _ = node
        behaviours = self.core.copy()
        behaviours[:, : layer + 1] = self.policies[policy, : layer + 1]
        which = self.rng.integers(0, len(self.core), count)
        found = policy_episodes(self.problem, behaviours, which, rng=self.rng)
        self.episodes += count
        came = np.full(count, True) if layer < 0 else found.states[:, layer] == state
        if came.sum() < least:
            self.rejected.add(node)
            return False
        self.data[node] = found.states[came, layer + 1 :], found.actions[came, layer + 1 :]
        return True

    def segment(self, policy: int, node: Node) -> _Segment:
        key = (policy, node)
        if key not in self.segments:
            self.segments[key] = self._segment(policy, node)
        return self.segments[key]

    def _segment(self, policy: int, node: Node) -> _Segment:
        states, actions = self.data[node]
        own, first = self.policies[policy], node[0] + 1
        count, size = len(states), len(self.core)
        weight, alive = np.ones(count), np.ones((size, count), dtype=bool)
        hits: dict[tuple[int, int], float] = {}
        reward = float(self.problem.reward[node]) * count if first else 0.0
        for h in range(first, self.problem.horizon):
            at, played = states[:, h - first], actions[:, h - first]
            stopped = self.petals[policy, h, at] & (weight > 0)
            if stopped.any():
                mass = np.bincount(at[stopped], weight[stopped])
                hits |= {(h, int(s)): mass[s] / count for s in np.flatnonzero(mass)}
            alive &= self.core[:, h, at] == played
            goes_on = (weight > 0) & ~stopped & (played == own[h, at])
            weight = np.where(goes_on, size / np.maximum(alive.sum(axis=0), 1), 0.0)
            reward += float(weight @ self.problem.reward[h, at, played])
        return _Segment(hits, reward / count)

    def nodes(self, policy: int) -> list[Node]:
        """The start and the discovered petals of a policy, by layer."""
        own = self.policies[policy]
        return [n for n in sorted(self.data) if n == START or self._is_own(n, policy, own)]

    def _is_own(self, node: Node, policy: int, own: np.ndarray) -> bool:
        h, s, a = node
        return bool(self.petals[policy, h, s]) and own[h, s] == a

    def reach(self, policy: int) -> dict[Node, float]:
        """Estimated probabilities that a policy reaches its petals through the discovered ones."""
        reached: dict[Node, float] = {START: 1.0}
        for node in self.nodes(policy):
            for (h, s), p in self.segment(policy, node).hits.items():
                petal = (h, s, int(self.policies[policy, h, s]))
                reached[petal] = reached.get(petal, 0.0) + reached.get(node, 0.0) * p
        return reached

    def value(self, policy: int) -> float:
        values: dict[tuple[int, int], float] = {}
        for node in reversed(self.nodes(policy)):
            found = self.segment(policy, node)
            values[node[:2]] = found.reward + sum(p * values.get(petal, 0.0) for petal, p in found.hits.items())
        return values[START[:2]]


def popler(
    problem: TabularMDP,
    policies: Any,
    core: Any,
    petals: Any,
    *,
    start_episodes: int,
    petal_episodes: int,
    threshold: float,
    least: int = 6,
    rng: np.random.Generator | int = 0,
) -> PoplerRun:
    """Discover petals and evaluate every policy of a sunflower class.

    Args:
        problem: a simulator without resets; its rewards are known. policies: ``(N, H, S)``. core: ``(K, H, S)``.
        petals: of every policy, boolean ``(N, H, S)``; a petal counts also as the first state (`uncovered_trajectory`).
        start_episodes, petal_episodes: of the core from the start, and for every petal. threshold: of the estimated
            probability, in (0, 1]. least: a petal that fewer of its episodes come by is ignored.

    Raises:
        TypeError: not a `TabularMDP`, not integers, not a mask. ValueError: shapes, numbers out of range.
    """
    _validate.instance("problem", problem, TabularMDP)
    horizon, states, actions = problem.shape
    table = check_policies(policies, actions=actions, shape=(horizon, states))
    others = check_policies(core, actions=actions, shape=(horizon, states), name="core")
    marked = _validate.boolean_mask("petals", petals, table.shape)
    first = _validate.integer("start_episodes", start_episodes, low=1)
    each = _validate.integer("petal_episodes", petal_episodes, low=1)
    for name, episodes in (("start_episodes", first), ("petal_episodes", each)):
        _validate.fits(name, episodes, 3 * episodes * horizon)  # uniforms, states and actions
    least = _validate.integer("least", least, low=1)
    threshold = _validate.real("threshold", threshold, low=0.0, high=1.0, open_low=True)
    learner = _Learner(problem.dense(), table, others, marked, _validate.generator(rng))
    learner.collect(START, 0, first, 1)
    waiting = list(range(len(table)))
    while waiting:
        policy = waiting.pop(0)
        for node, p in sorted(learner.reach(policy).items()):
            if p < threshold or node in learner.data or node in learner.rejected:
                continue
            if learner.collect(node, policy, each, least):
                h, s, a = node
                also = np.flatnonzero(marked[:, h, s] & (table[:, h, s] == a)).tolist()
                waiting += [i for i in also if i not in waiting]
    found = [node for node in learner.data if node != START]
    return PoplerRun(
        np.array([learner.value(i) for i in range(len(table))]),
        np.array(found, dtype=np.int64).reshape(-1, 3),
        np.array([len(learner.data[node][0]) for node in found], dtype=np.int64),
        learner.episodes,
    )
