"""The corridor of the paper's claims, its teachers and students; small problems; what is enumerated to check them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from klsim.claims import shared
from klsim.distributions import entropy
from klsim.learning.restart_students import greedy_values, restart_students
from klsim.planning import Trajectories, evaluate, rollouts
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
@shared
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

    def law(self, clusters):
        """Of the snapshots, by clusters of value; one cluster is the uniform law."""
        return cluster_law(value_clusters(self.values, clusters))

    def state_law(self, clusters):
        return state_law(self.states, self.law(clusters), GOAL + 1)


def teachers(rngs, **more):
    return [Teacher.run(rng, **more) for rng in rngs]


def effective_states(law):
    """``exp`` of the entropy."""
    with np.errstate(divide="ignore"):
        return float(np.exp(entropy(np.log(law))))


class Arm(NamedTuple):
    """A student: clusters of its snapshots (1: not classified), where its episodes are cut, how long it sees snapshots."""

    clusters: int = CLUSTERS
    cut: int = CUT
    phase: float = PHASE
    bootstrap: bool = True


S3RL, NONE = Arm(), Arm(phase=0.0)
ARMS = {
    "no snapshots": NONE,
    "SnapshotRL": Arm(1, LIMIT),
    "SC": Arm(CLUSTERS, LIMIT),
    "STT": Arm(1),
    "S3RL": S3RL,
}


def arm(name, cut, clusters):
    """One of `ARMS`; those that truncate do it at ``cut``, those that classify have so many clusters."""
    usual = ARMS[name]
    return usual._replace(cut=usual.cut if usual.cut == LIMIT else cut, clusters=1 if usual.clusters == 1 else clusters)


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
        points[i, : len(t.states)], law[i, : len(t.states)] = t.states, t.law(arm.clusters)
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

    def curve(self, steps, every, **more):
        """Q of a uniform behaviour policy in the snapshot environment after ``every``, 2 ``every``, ... steps."""
        return restart_students(
            self.problem, np.arange(6)[None], self.restart[None], steps=steps, phase=steps, cut=self.cut, limit=1,
            every=every, explore=1.0, rng=self.seed, **more,
        ).q_value[0]  # fmt: skip

    def learned(self, steps=40_000, **more):
        """The last of them, ``(S, A)``."""
        return self.curve(steps, steps, **more)[0]


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

    @classmethod
    def with_an_island(cls):
        """The last state is never met, neither from the start nor from restarts."""
        problem, policy, restart = cls.draw(np.random.default_rng(0))
        moves, met = problem.transition.copy(), np.arange(6) < 5
        moves[:5, :, 5] = moves[5, :, :5] = 0.0
        moves /= moves.sum(axis=-1, keepdims=True)
        start = problem.initial * met / problem.initial[:5].sum()
        problem = DiscountedMDP(moves, problem.reward, problem.discount, start)
        return cls(problem, policy, restart * met / restart[:5].sum())

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

    @property
    def optimum(self):
        """From the start: a product of waiting times, the reward on the last step."""
        gamma, chances = self.problem.discount, np.diag(self.problem.transition[:, 0], 1)
        return np.prod(gamma * chances / (1 - gamma * (1 - chances))) / gamma

    def bound(self, everywhere):
        states = self.problem.shape[0]
        law = np.full(states, 1 / states) if everywhere else self.problem.initial
        return restart_bound(self.problem, np.tile([-np.inf, 0.0], (states, 1)), law)


# students by hand -----------------------------------------------------------------------------------
class OneWay(NamedTuple):
    """Five states, one action, no chance: everything a student does can be followed. Two students, one restart state each."""

    after: np.ndarray
    reward: np.ndarray
    discount: float
    ends: bool
    points: np.ndarray
    options: dict

    @classmethod
    def draw(cls, rng):
        after, reward, ends = rng.integers(5, size=5), rng.random(5), bool(rng.random() < 0.5)
        if ends:
            after[4], reward[4] = 4, 0.0
        options = {
            name: int(rng.integers(low, high)) for name, low, high in (("phase", 0, 45), ("cut", 1, 9), ("limit", 1, 9))
        }
        options |= {"step_size": float(rng.uniform(0.2, 3.0)), "step_power": float(rng.choice([0.0, 0.5, 1.0]))}
        options["bootstrap"] = bool(rng.random() < 0.5)
        return cls(after, reward, float(rng.uniform(0.3, 0.95)), ends, rng.integers(5, size=2), options)

    def run(self):
        """``(Q after 10, 20, 30 and 40 steps (2, 4, 5), restarts (2,))``."""
        problem = DiscountedMDP(np.eye(5)[self.after][:, None], self.reward[:, None], self.discount, np.eye(5)[0])
        terminal = np.arange(5) == (4 if self.ends else -1)
        found = restart_students(
            problem, self.points[:, None], np.ones((2, 1)), steps=40, every=10, terminal=terminal, **self.options
        )
        return found.q_value[..., 0], found.restarts

    def by_hand(self, switch=True, first=1):
        """The same, step by step: whether the end of the phase begins a new episode, the first number of a visit."""
        size, power = self.options["step_size"], self.options["step_power"]
        curves, restarts = [], []
        for point in self.points.tolist():
            q, visits, ages, where, until, curve, begun = [0.0] * 5, [first - 1] * 5, 0, 0, 0, [], 0
            for step in range(40):
                if ages == until or (switch and step == self.options["phase"]):
                    inside = step < self.options["phase"]
                    where, until, ages = (point, self.options["cut"], 0) if inside else (0, self.options["limit"], 0)
                    begun += inside
                to, ages = int(self.after[where]), ages + 1
                visits[where] += 1
                ahead = q[to] if ages < until or self.options["bootstrap"] else 0.0
                target = self.reward[where] + self.discount * ahead
                q[where] += min(1.0, size / visits[where] ** power) * (target - q[where])
                if self.ends and to == 4:
                    until = ages
                where = to
                if step % 10 == 9:
                    curve.append(list(q))
            curves.append(curve)
            restarts.append(begun)
        return np.array(curves), np.array(restarts)


class Tied(NamedTuple):
    """A short problem and values of its actions, many of them equal."""

    short: Short
    values: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(Short.draw(rng), rng.integers(2, size=(3, 2)) * rng.choice([0.1, 1.0]))

    def by_iteration(self, first=False):
        """Values of the greedy policy: 150 times the mean over the best actions (or the first of them) of what follows."""
        p, value = self.short.problem, np.zeros(3)
        equal = self.values[:, 0] == self.values[:, 1]
        best = (self.values[:, 1] > self.values[:, 0]).astype(int)
        for _ in range(150):
            ahead = p.reward + p.discount * p.transition @ value
            value = np.where(equal & (not first), ahead.mean(axis=1), ahead[np.arange(3), best])
        return value


# snapshots and clusters -----------------------------------------------------------------------------
class Walks(NamedTuple):
    """Three walks of 40 steps over some states, the last of which is terminal; a snapshot every few steps."""

    states: int
    path: np.ndarray
    every: int

    @classmethod
    def draw(cls, rng):
        states = int(rng.integers(2, 41))
        return cls(states, rng.integers(states, size=(3, 41)), int(rng.integers(1, 13)))

    def taken(self):
        walks = Trajectories(self.path, self.path[:, 1:], self.path[:, 1:] * 1.0)
        return snapshot_states(walks, self.every, np.arange(self.states) == self.states - 1)

    def counted(self, first=0, ends=False):
        """Snapshots of each state, step by step: from the first cut on, or with the ends of episodes."""
        out = np.zeros(self.states)
        for walk in self.path:
            for step in range(first * self.every, 40, self.every):
                out[walk[step]] += ends or walk[step] < self.states - 1
        return out


class Numbers(NamedTuple):
    """A few numbers, in half of the draws with ties, and one to four clusters."""

    values: np.ndarray
    clusters: int

    @classmethod
    def draw(cls, rng):
        clusters = int(rng.integers(1, 5))
        values = rng.standard_normal(int(rng.integers(2, 8 if clusters < 4 else 7))) * rng.choice([1.0, 3.0])
        return cls(np.round(values) if rng.random() < 0.5 else values, clusters)

    def best_cost(self, clusters):
        """The least sum of squares over all assignments into so many parts."""
        return min(self.costs(assignments(len(self.values), clusters)))

    def costs(self, parts):
        """Sums of squares ``(N,)`` of assignments ``(N, K, n)``; ``sum x^2 - sum_k (sum of k)^2 / (number in k)``."""
        x = self.values - self.values.mean()
        return np.sum(x**2) - np.sum((parts @ x) ** 2 / np.maximum(parts.sum(axis=2), 1), axis=1)


@shared
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
