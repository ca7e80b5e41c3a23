"""The corridor of the paper's claims, its teachers and students; small problems; what is enumerated to check them."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np

from klsim.distributions import entropy
from klsim.learning.restart_students import greedy_values, restart_students
from klsim.planning import evaluate, rollouts
from klsim.planning.restarts import cluster_law, restart_bound, snapshot_states, state_law, value_clusters
from klsim.problems import DiscountedMDP

GOAL, GAMMA, CLUSTERS, SKILL = 16, 0.98, 6, 0.85
SLOW = slice(3, 7)
STEPS, EVERY, LIMIT, CUT, PHASE = 24_000, 2_000, 150, 25, 0.25
START = np.eye(GOAL + 1)[0]
TERMINAL = np.arange(GOAL + 1) == GOAL
#: 1 on the step that enters the goal
ON_ENTRY = np.zeros((GOAL + 1, 2, GOAL + 1))
ON_ENTRY[:GOAL, :, GOAL] = 1.0


# the corridor ---------------------------------------------------------------------------------------
@functools.cache
def corridor(slow=0.2):
    """States 0..16; action 0 moves on with chance .95, in states 3-6 with chance ``slow``; action 1 moves back. Entering
    16 pays 1 and ends the episode."""
    moves, at = np.zeros((GOAL + 1, 2, GOAL + 1)), np.arange(GOAL)
    success = np.full(GOAL, 0.95)
    success[SLOW] = slow
    moves[at, 0, at + 1], moves[at, 0, at] = success, 1 - success
    moves[at, 1, np.maximum(at - 1, 0)] = 1.0
    moves[GOAL, :, GOAL] = 1.0
    return DiscountedMDP(moves, moves[..., GOAL] * ~TERMINAL[:, None], GAMMA, START)


def log_teacher(skill):
    """The right action with chance ``skill`` in every state."""
    with np.errstate(divide="ignore"):
        return np.log(np.tile([skill, 1 - skill], (GOAL + 1, 1)))


class Teacher(NamedTuple):
    """What one teacher left: snapshots (states) and its value of each."""

    states: np.ndarray
    values: np.ndarray

    @classmethod
    def run(cls, rng, skill=SKILL, slow=0.2, every=10, episodes=10):
        problem, policy = corridor(slow), log_teacher(skill)
        states = snapshot_states(rollouts(problem, policy, episodes, rng, LIMIT), every, TERMINAL)
        return cls(states, evaluate(problem, policy).state_value[states])

    def law(self, classified):
        """Of the snapshots: by clusters of value, or uniform."""
        labels = value_clusters(self.values, CLUSTERS) if classified else np.arange(len(self.states))
        return cluster_law(labels)

    def state_law(self, classified):
        return state_law(self.states, self.law(classified), GOAL + 1)


def teachers(rngs, **more):
    return [Teacher.run(rng, **more) for rng in rngs]


def effective_states(law):
    """``exp`` of the entropy."""
    with np.errstate(divide="ignore"):
        return float(np.exp(entropy(np.log(law))))


class Arm(NamedTuple):
    """A student: whether snapshots are classified, where its episodes are cut, how long it sees snapshots."""

    classified: bool = True
    cut: int = CUT
    phase: float = PHASE
    bootstrap: bool = True


S3RL, NONE = Arm(), Arm(phase=0.0)
ARMS = {
    "no snapshots": NONE,
    "SnapshotRL": Arm(False, LIMIT),
    "SC": Arm(True, LIMIT),
    "STT": Arm(False),
    "S3RL": S3RL,
}


def arm(name, cut):
    """One of `ARMS`; those that truncate do it at ``cut``."""
    return ARMS[name] if ARMS[name].cut == LIMIT else ARMS[name]._replace(cut=cut)


class Study(NamedTuple):
    """``curve (seeds, 12)``: exact greedy return after every 2000 steps; restarts and distinct snapshots of a seed."""

    curve: np.ndarray
    restarts: np.ndarray
    distinct: np.ndarray

    @property
    def mean(self):
        return self.curve.mean(axis=1)

    @property
    def final(self):
        return self.curve[:, -1]


def study(arm, taught, rng):
    """One student for every teacher."""
    longest = max(len(t.states) for t in taught)
    points, law = np.zeros((len(taught), longest), dtype=int), np.zeros((len(taught), longest))
    for i, t in enumerate(taught):
        points[i, : len(t.states)], law[i, : len(t.states)] = t.states, t.law(arm.classified)
    runs = restart_students(
        corridor(), points, law, steps=STEPS, phase=round(arm.phase * STEPS), cut=arm.cut, limit=LIMIT, every=EVERY,
        terminal=TERMINAL, rewards=ON_ENTRY, bootstrap=arm.bootstrap, rng=rng,
    )  # fmt: skip
    return Study(greedy_values(corridor(), runs.q_value)[..., 0], runs.restarts, runs.distinct)


def return_of(skill, slow=0.2):
    """Exact return of a teacher."""
    return evaluate(corridor(slow), log_teacher(skill)).reward


def from_the_corridor(law):
    """The coverage bound of the uniform policy."""
    return restart_bound(corridor(), log_teacher(0.5), law)


# small problems -------------------------------------------------------------------------------------
class World(NamedTuple):
    """Six states, two actions, gamma = .9; restarts from all states, some more often; episodes of two to five steps."""

    problem: DiscountedMDP
    restart: np.ndarray
    cut: int
    seed: int

    @classmethod
    def draw(cls, rng):
        problem = DiscountedMDP(rng.dirichlet(np.ones(6), (6, 2)), rng.random((6, 2)), 0.9, np.full(6, 1 / 6))
        restart = (rng.dirichlet(np.full(6, 0.3)) + 1 / 6) / 2
        return cls(problem, restart, int(rng.integers(2, 6)), int(rng.integers(2**31)))

    @property
    def uniform(self):
        return np.full((6, 2), -np.log(2))

    def learned(self, steps=40_000, **more):
        """Q of a uniform behaviour policy in the snapshot environment, ``(S, A)``."""
        return restart_students(
            self.problem, np.arange(6)[None], self.restart[None], steps=steps, phase=steps, cut=self.cut, limit=1,
            every=steps, explore=1.0, rng=self.seed, **more,
        ).q_value[0, 0]  # fmt: skip


class Short(NamedTuple):
    """Three states (the last one may be terminal), two actions, a policy, a restart law, episodes of two to four steps."""

    problem: DiscountedMDP
    policy: np.ndarray
    restart: np.ndarray
    cut: int
    ends: bool

    @classmethod
    def draw(cls, rng):
        moves, reward, ends = rng.dirichlet(np.ones(3), (3, 2)), rng.random((3, 2)), bool(rng.random() < 0.5)
        if ends:
            moves[2], reward[2] = np.eye(3)[2], 0.0
        problem = DiscountedMDP(moves, reward, float(rng.uniform(0.3, 0.8)), np.full(3, 1 / 3))
        return cls(problem, rng.dirichlet(np.ones(2), 3), rng.dirichlet(np.ones(3)), int(rng.integers(2, 5)), ends)

    @property
    def terminal(self):
        return np.array([False, False, self.ends])

    def shares_by_paths(self, last=-1):
        """``(share of visits that are the last, visits)`` from all paths of states one by one."""
        chain = np.einsum("sa,sat->st", self.policy, self.problem.transition)
        visits, ending = np.zeros(3), np.zeros(3)
        for path in itertools.product(range(3), repeat=self.cut):
            chance = self.restart[path[0]]
            for before, after in itertools.pairwise(path):
                chance *= chain[before, after]
            for t, s in enumerate(path):
                if self.ends and s == 2:
                    break
                visits[s] += chance
                ending[s] += chance * (t == self.cut + last)
        return ending / np.where(visits > 0, visits, 1.0), visits


class Restarted(NamedTuple):
    """Six states, three actions, gamma = .9, sparse transitions; a policy, a restart law."""

    problem: DiscountedMDP
    policy: np.ndarray
    restart: np.ndarray

    @classmethod
    def draw(cls, rng):
        moves = rng.dirichlet(np.full(6, 0.3), (6, 3))
        problem = DiscountedMDP(moves, rng.random((6, 3)), 0.9, rng.dirichlet(np.ones(6)))
        return cls(problem, rng.dirichlet(np.ones(3), 6), rng.dirichlet(np.ones(6)))

    def by_hand(self):
        """``(gap, ratio, signal)``: all 729 deterministic policies evaluated, visits as sums over 250 steps."""
        p, states = self.problem, np.arange(6)
        every = np.array(list(itertools.product(range(3), repeat=6)))
        values = np.linalg.solve(
            np.eye(6) - p.discount * p.transition[states, every], p.reward[states, every][..., None]
        )[..., 0]
        best = values[np.argmax(values.sum(axis=1))]
        chain = np.einsum("sa,sat->st", self.policy, p.transition)
        value = np.linalg.solve(np.eye(6) - p.discount * chain, np.sum(self.policy * p.reward, axis=1))
        advantage = np.max(p.reward + p.discount * p.transition @ value - value[:, None], axis=1)
        optimal = p.transition[states, np.argmax(p.reward + p.discount * p.transition @ best, axis=1)]
        visits = self.sums(chain, self.restart)
        signal = visits @ advantage / (1 - p.discount)
        return p.initial @ (best - value), np.max(self.sums(optimal, p.initial) / visits), signal

    def sums(self, chain, law):
        total = np.zeros(6)
        for t in range(250):
            total += (1 - self.problem.discount) * self.problem.discount**t * law
            law = law @ chain
        return total


class Backwards(NamedTuple):
    """A corridor of any length, with a slow middle, and the policy that always goes back."""

    problem: DiscountedMDP

    @classmethod
    def draw(cls, rng):
        goal, slow = int(rng.integers(3, 20)), float(rng.uniform(0.05, 1.0))
        moves, at = np.zeros((goal + 1, 2, goal + 1)), np.arange(goal)
        success = np.where((at >= goal // 4) & (at < goal // 2), slow, 0.95)
        moves[at, 0, at + 1], moves[at, 0, at] = success, 1 - success
        moves[at, 1, np.maximum(at - 1, 0)] = 1.0
        moves[goal, :, goal] = 1.0
        reward = moves[..., goal] * (np.arange(goal + 1) < goal)[:, None]
        return cls(DiscountedMDP(moves, reward, float(rng.uniform(0.8, 0.99)), np.eye(goal + 1)[0]))

    def bound(self, everywhere):
        states = self.problem.shape[0]
        law = np.full(states, 1 / states) if everywhere else self.problem.initial
        return restart_bound(self.problem, np.tile([-np.inf, 0.0], (states, 1)), law)


# clusters -------------------------------------------------------------------------------------------
class Numbers(NamedTuple):
    """A few numbers, in half of the draws with ties, and a number of clusters."""

    values: np.ndarray
    clusters: int

    @classmethod
    def draw(cls, rng):
        values = rng.standard_normal(int(rng.integers(2, 8))) * rng.choice([1.0, 3.0])
        return cls(np.round(values) if rng.random() < 0.5 else values, int(rng.integers(1, 4)))

    def best_cost(self, clusters):
        """The least sum of squares over all assignments into so many parts."""
        return min(self.costs(assignments(len(self.values), clusters)))

    def costs(self, parts):
        """Sums of squares ``(N,)`` of assignments ``(N, K, n)``; ``sum x^2 - sum_k (sum of k)^2 / (number in k)``."""
        x = self.values - self.values.mean()
        return np.sum(x**2) - np.sum((parts @ x) ** 2 / np.maximum(parts.sum(axis=2), 1), axis=1)


@functools.cache
def assignments(n, clusters):
    """Every assignment of n things to so many clusters, some of them empty, as masks ``(N, K, n)``."""
    return as_masks(np.array(list(itertools.product(range(clusters), repeat=n))), clusters)


def as_masks(labels, clusters):
    return (labels[:, None] == np.arange(clusters)[:, None]).astype(float)


def equal_widths(values, clusters):
    edges = np.linspace(values.min(), values.max(), clusters + 1)[1:-1]
    return np.searchsorted(edges, values, side="right")


def equal_numbers(values, clusters):
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") * clusters // len(values)


# a hidden key ---------------------------------------------------------------------------------------
class Hidden(NamedTuple):
    """A corridor 0..goal, +-1 moves without chance; a key at ``key`` is picked up on entering, unseen; entering the goal
    pays 1 and ends the episode with the key, and does nothing without it. A snapshot of state ``at``, key in hand."""

    goal: int
    key: int
    at: int
    discount: float

    @classmethod
    def draw(cls, rng):
        goal = int(rng.integers(3, 15))
        key = int(rng.integers(1, goal - 1))
        return cls(goal, key, int(rng.integers(key + 1, goal)), float(rng.uniform(0.5, 0.99)))

    def problem(self, needed=True):
        """States ``x + (goal + 1) has_key``, then the end."""
        size, end = self.goal + 1, 2 * (self.goal + 1)
        moves, reward = np.zeros((end + 1, 2, end + 1)), np.zeros((end + 1, 2))
        moves[end, :, end] = 1.0
        for x, has, a in itertools.product(range(size), (0, 1), (0, 1)):
            to = min(max(x + 1 - 2 * a, 0), self.goal)
            after = int(has or to == self.key)
            won = to == self.goal and x < self.goal and (after or not needed)
            moves[x + size * has, a, end if won else to + size * after] = 1.0
            reward[x + size * has, a] = won
        return DiscountedMDP(moves, reward, self.discount, np.eye(end + 1)[0])

    def shortest(self, has_key):
        """Steps to the reward, by hand."""
        return self.goal - self.at if has_key else (self.at - self.key) + (self.goal - self.key)
