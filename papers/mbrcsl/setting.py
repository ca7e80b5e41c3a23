"""What the claims and figures of mbrcsl share: zigzag rewards, deterministic and nearly deterministic problems, the stitching
example, the maze and the algorithm on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from klsim.learning.fitted_q import fitted_q_iterates
from klsim.learning.kinked_lines import KinkedLine
from klsim.learning.return_conditioned import attained_returns, empirical_table, returns_to_go
from klsim.planning import Trajectories, qvi_iterates, rollouts
from klsim.planning.empirical_model import empirical_model, history_rollouts, markov_clone
from klsim.problems import TabularMDP


def uniform(problem):
    return np.full(problem.shape, -math.log(problem.shape[2]))


def optimal_values(problem):
    """``V*(s_0)`` of every start state, by backward induction."""
    return qvi_iterates(problem, problem.horizon)[-1][0].max(axis=-1)


# C1 ------------------------------------------------------------------------------------------------
class Zigzag(NamedTuple):
    """Step 1 pays ``slopes[a] s + b (-1)^s`` and leads to ``u = s mod 2``; step 2 pays ``2 b u - b``. Kinks somewhere."""

    states: int
    slopes: np.ndarray
    b: float
    places: np.ndarray

    @classmethod
    def draw(cls, rng):
        low = rng.uniform(-2, 2)
        return cls(
            int(rng.integers(3, 10)),
            np.array([low, low + rng.uniform(0.2, 2)]),
            float(rng.uniform(0.1, 2)),
            rng.random(7),
        )

    @property
    def s(self):
        return np.arange(float(self.states))

    @property
    def first_reward(self):
        """``(S, A)``."""
        return self.s[:, None] * self.slopes + self.b * (-1) ** self.s[:, None]

    def knots(self, count):
        """``count`` kinks between the first and the last state."""
        return self.places[:count] * (self.states - 1)

    def problem(self, *, shift=0, late=2.0):
        moves = np.zeros((2, self.states, 2, self.states))
        moves[0, np.arange(self.states), :, (np.arange(self.states) + shift) % 2] = 1.0
        moves[1, :, :, 0] = 1.0
        second = np.repeat(late * self.b * self.s[:, None] - self.b, 2, axis=1)
        return TabularMDP(moves, np.stack([self.first_reward, second]), np.full(self.states, 1 / self.states), 2)

    def conditioned(self, shape="hat"):
        """The return-conditioned policy of action 1 as a function of ``x = g - slopes[1] s``."""
        d = self.slopes[1] - self.slopes[0]
        knots, bends = {
            "hat": ([-d, 0.0, d], [1.0, -2.0, 1.0]), "one unit": ([-d], [1.0]), "wide hat": ([-2 * d, 0.0, 2 * d], [0.5, -1.0, 0.5]),
            "one unit at 0": ([0.0], [1.0]),
        }[shape]  # fmt: skip
        return KinkedLine(0.0, 0.0, np.array(knots), np.array(bends) / d)


LARGE = {"drawn": Zigzag(40, np.array([0.5, 1.5]), 1.0, np.linspace(0.03, 0.97, 37))}


def uneven(rng):
    """``m + 3`` values of alternating signs, and m kinks between them."""
    m = int(rng.integers(0, 6))
    return (-1.0) ** np.arange(m + 3) * rng.uniform(0.1, 2, m + 3), rng.uniform(0, m + 2, m)


#: the best line errs by 1.05, half of the largest residual
UNEVEN = {"drawn": (np.array([0.1, -2.0, 0.1]), np.zeros(0))}


# C2 ------------------------------------------------------------------------------------------------
class TwoStates(NamedTuple):
    """Features x and y of s1 -> s2 -> s2; ``Q* = optimum * features`` (one action), from ``start``."""

    x: float
    y: float
    gamma: float
    optimum: float
    start: float

    @classmethod
    def draw(cls, rng):
        x, y = rng.uniform(0.2, 3, 2)
        return cls(float(x), float(y), float(rng.uniform(0, 0.99)), float(rng.normal()), float(rng.normal()))

    @property
    def rewards(self):
        return self.optimum * np.array([self.x - self.gamma * self.y, (1 - self.gamma) * self.y])


def iterates(drawn, count, w=0.5):
    """``theta_0 …`` of fitted Q iteration with weight w on s1."""
    ahead = np.full((2, 1, 1), drawn.y)
    return fitted_q_iterates(
        [[drawn.x], [drawn.y]], ahead, drawn.rewards, [w, 1 - w], gamma=drawn.gamma, start=[drawn.start], iterations=count
    )[:, 0]  # fmt: skip


# C3 ------------------------------------------------------------------------------------------------
class Markov(NamedTuple):
    """A problem and a Markov behaviour policy."""

    problem: TabularMDP
    log_behaviour: np.ndarray


def random_problem(rng, noise=0.0, states=4, actions=2, horizon=4):
    """Next states uniform, rewards of ``(s, a)`` uniform in {0, .5, 1}; with noise a share of Dirichlet(1) in every row."""
    skeleton = np.eye(states)[rng.integers(0, states, (states, actions))]
    moves = (1 - noise) * skeleton + noise * rng.dirichlet(np.ones(states), (states, actions))
    return TabularMDP(moves, rng.integers(0, 3, (states, actions)) / 2, np.full(states, 1 / states), horizon)


def behaviour(rng, problem, stationary, concentration=1.0):
    """Dirichlet rows, floored at 1e-12 so that the support is full."""
    horizon, states, actions = problem.shape
    rows = rng.dirichlet(np.full(actions, concentration), (1 if stationary else horizon, states)) + 1e-12
    return np.log(np.broadcast_to(rows / rows.sum(axis=-1, keepdims=True), problem.shape))


def deterministic(rng):
    problem = random_problem(rng)
    return Markov(problem, behaviour(rng, problem, rng.random() < 0.5))


def deterministic_stationary(rng):
    problem = random_problem(rng)
    return Markov(problem, behaviour(rng, problem, True))


def stochastic(rng):
    """Small enough for all trajectories to be listed."""
    problem = random_problem(rng, 0.8, 2, 2, 3)
    return Markov(problem, behaviour(rng, problem, False))


def noisy(rng):
    problem = random_problem(rng, float(rng.uniform(0.1, 0.8)), horizon=3)
    return Markov(problem, behaviour(rng, problem, False))


def listed(problem, policy):
    """``(probability, states, actions, rewards)`` of all trajectories; ``policy(t, states, rewards)`` gives the law of the action."""
    stack = [(p, (s,), (), ()) for s, p in enumerate(problem.initial) if p]
    while stack:
        chance, states, actions, rewards = stack.pop()
        t = len(actions)
        if t == problem.horizon:
            yield chance, states, actions, rewards
            continue
        for a, p in enumerate(policy(t, states, rewards)):
            r = problem.reward[t, states[-1], a]
            for after, q in enumerate(problem.transition[t, states[-1], a]):
                if p * q:
                    stack.append((chance * p * q, (*states, after), (*actions, a), (*rewards, r)))


def listed_table(problem, log_behaviour, total=False):
    """``{(t, s, g): weights of the actions}`` from all trajectories; g may be the total return."""
    table = {}
    for chance, states, actions, rewards in listed(problem, lambda t, states, _: np.exp(log_behaviour[t, states[-1]])):
        for t, a in enumerate(actions):
            key = (t, states[t], round(sum(rewards if total else rewards[t:]), 6))
            table.setdefault(key, np.zeros(problem.shape[2]))[a] += chance
    return table


#: s0 -0-> s1, s0 -1-> s2 (pays .5), s3 -> s1; then s1 pays 1 for action 0, s2 nothing
STITCH = TabularMDP(
    np.eye(4)[[[1, 2], [1, 1], [2, 2], [1, 1]]], np.array([[[0, 0.5], [0, 0], [0, 0], [0, 0]], [[0, 0], [1, 0], [0, 0], [0, 0]]]),
    np.array([0.5, 0, 0, 0.5]), 2,
)  # fmt: skip
FIVE = [(0, 0, 1, 1), (0, 1, 2, 0), (0, 1, 2, 1), (3, 0, 1, 0), (3, 1, 1, 0)]  # s, a, s', a'


def stitch_table(trajectories=FIVE):
    s, a, after, b = np.array(trajectories).T
    states, actions = np.stack([s, after], axis=1), np.stack([a, b], axis=1)
    return empirical_table(states, actions, STITCH.reward[np.arange(2), states, actions], (4, 2))


# states and actions of (s0, 0)(s1, 1), (s2, 0)(s1, 0), (s2, 1)(s1, 1) and (s2, 0)(s3, 1)
HISTORIES = np.array([[0, 1, 1, 0, 1], [2, 1, 1, 0, 0], [2, 1, 1, 1, 1], [2, 3, 3, 0, 1]])


def histories(copies):
    """Copies of each."""
    states, actions = np.split(np.repeat(HISTORIES, copies, axis=0), [3], axis=1)
    return Trajectories(states, actions, STITCH.reward[np.arange(2), states[:, :2], actions])


def value_given_history(trajectories, target):
    """From s0, conditioned on all states and actions so far besides the return: a decision transformer at its optimum."""
    counts = {}
    for s, a, after, b in trajectories:
        late = STITCH.reward[1, after, b]
        counts.setdefault(((s,), STITCH.reward[0, s, a] + late), np.zeros(2))[a] += 1
        counts.setdefault(((s, a, after), late), np.zeros(2))[b] += 1

    def law(history, g):
        weights = counts.get((history, g), np.ones(2))
        return weights / weights.sum()

    value = 0.0
    for a, chance in enumerate(law((0,), target)):
        after, r = int(STITCH.transition[0, 0, a].argmax()), STITCH.reward[0, 0, a]
        value += chance * (r + law((0, a, after), target - r) @ STITCH.reward[1, after])
    return value


# C4, C5 --------------------------------------------------------------------------------------------
CELLS = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4)]
STAY, UP, DOWN, LEFT, RIGHT = range(5)
STEPS = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
START, CORNER, GOAL = CELLS.index((1, 2)), CELLS.index((2, 2)), CELLS.index((2, 4))
SHAPE = (len(CELLS), len(STEPS))


def maze(horizon=10):
    """1 for every step that ends at the goal; a blocked move stays."""
    after = [
        [CELLS.index(to) if (to := (r + i, c + j)) in CELLS else k for i, j in STEPS] for k, (r, c) in enumerate(CELLS)
    ]
    return TabularMDP(np.eye(6)[after], np.equal(after, GOAL).astype(float), np.eye(6)[START], horizon)


def recorded(horizon=10, idle=50, left=50):
    """``idle`` copies of "down, then stay" and ``left`` of "left, down, right three times, then stay"."""
    problem = maze(horizon)
    plans = [[DOWN], [LEFT, DOWN, RIGHT, RIGHT, RIGHT]]
    actions = np.array([p + [STAY] * (horizon - len(p)) for p in plans])[np.repeat([0, 1], [idle, left])]
    states = np.full((len(actions), horizon + 1), START)
    for t in range(horizon):
        states[:, t + 1] = problem.transition[t, states[:, t], actions[:, t]].argmax(axis=-1)
    return Trajectories(states, actions, problem.reward[np.arange(horizon), states[:, :-1], actions])


def chance_to_beat(data):
    """p: that a roll-out of the Markov clone in the counted model beats the best return of the data."""
    laws = returns_to_go(empirical_model(data, SHAPE), markov_clone(data, SHAPE))
    return float(laws.exceeding(data.rewards.sum(axis=1).max())[START])


def closed_form(horizon, w):
    """The same from ``q = mu(right | (2,2))`` with a share w of idle trajectories."""
    q = (1 - w) / ((1 - w) + w * (horizon - 1))
    return w * (1 - (1 - q) ** 2)


class Stitched(NamedTuple):
    """MBRCSL, one entry a run: share of roll-outs kept, best return among them, return in the maze with and without the step."""

    kept: np.ndarray
    target: np.ndarray
    value: np.ndarray
    without_step: np.ndarray


def roll(data, count, rng, history=False):
    """Roll-outs of the cloned behaviour in the counted model."""
    model = empirical_model(data, SHAPE)
    return (
        history_rollouts(data, model, count, rng) if history else rollouts(model, markov_clone(data, SHAPE), count, rng)
    )


def mbrcsl(data, runs, rng, count=2000, history=False, ask=None):
    """Keep roll-outs that beat the data, imitate them given the return, ask for the best of them."""
    problem, made = maze(data.actions.shape[1]), roll(data, runs * count, rng, history)
    best = data.rewards.sum(axis=1).max()
    found = []
    for run in np.split(np.arange(runs * count), runs):
        total = made.rewards[run].sum(axis=1)
        kept = run[total > best + 1e-9]
        table = empirical_table(made.states[kept], made.actions[kept], made.rewards[kept], SHAPE)
        target = (total.max() if len(kept) else best) if ask is None else ask
        values = [attained_returns(problem, table, target, pooled=p).value[START] for p in (False, True)]
        found.append((len(kept) / count, target, *values))
    return Stitched(*np.array(found, dtype=float).T)


def found_share(horizon, count, runs, rng):
    """Whether each run of ``count`` roll-outs (half of the data idle) beats the data."""
    data = recorded(horizon)
    total = roll(data, runs * count, rng).rewards.sum(axis=1).reshape(runs, count)
    return (total.max(axis=1) > horizon - 4 + 1e-9).astype(float)


# C6 ------------------------------------------------------------------------------------------------
class Lucky(NamedTuple):
    """A bandit of random returns: behaviour ``mu (A,)``, ``chances (A, K)`` of the ``returns (K,)``."""

    mu: np.ndarray
    chances: np.ndarray
    returns: np.ndarray

    @classmethod
    def draw(cls, rng):
        arms, count = (int(rng.integers(2, 5)) for _ in range(2))
        chances = rng.dirichlet(np.full(count, rng.choice([0.3, 1.0])), arms) + 1e-9
        return cls(
            rng.dirichlet(np.ones(arms)), chances / chances.sum(axis=1, keepdims=True),
            np.sort(rng.choice(np.arange(-4, 5), count, replace=False)) / 2,
        )  # fmt: skip

    @property
    def problem(self):
        """An arm leads to state k + 1, which pays the k-th return."""
        arms, count = self.chances.shape
        moves = np.zeros((2, count + 1, arms, count + 1))
        moves[0, 0, :, 1:] = self.chances
        moves[0, 1:, :, 0] = moves[1, :, :, 0] = 1.0
        reward = np.zeros((2, count + 1, arms))
        reward[1, 1:] = self.returns[:, None]
        return TabularMDP(moves, reward, np.eye(count + 1)[0], 2)

    @property
    def log_behaviour(self):
        with np.errstate(divide="ignore"):
            return np.log(np.broadcast_to(self.mu, self.problem.shape))


def safe_and_risky(p, risky=0.5):
    """One arm returns .5 surely, the other 1 with probability p and else 0."""
    return Lucky(np.array([1 - risky, risky]), np.array([[0.0, 1.0, 0.0], [1 - p, 0.0, p]]), np.array([0.0, 0.5, 1.0]))


DIGEST = Lucky(np.array([0.5, 0.3, 0.2]), np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]]), np.array([0.0, 1.0]))


class NearlyDeterministic(NamedTuple):
    """A problem, a behaviour policy, and a target return that the data have."""

    problem: TabularMDP
    log_behaviour: np.ndarray
    target: float

    @classmethod
    def draw(cls, rng):
        """The target is the optimal return of the deterministic skeleton from state 0, or any return of the data."""
        noise = float(np.exp(rng.uniform(math.log(0.003), math.log(0.5))))
        problem = random_problem(rng, noise, horizon=3)
        log_behaviour = behaviour(rng, problem, True, rng.choice([0.05, 1.0]))
        skeleton = TabularMDP(np.eye(4)[problem.transition[0].argmax(axis=-1)], problem.reward[0], problem.initial, 3)
        best, laws = optimal_values(skeleton)[0], returns_to_go(problem, log_behaviour)
        seen = laws.returns[laws.law[0, 0] > 1e-6]
        if laws.coverage(best)[0] > 1e-6 and rng.random() < 0.5:
            return cls(problem, log_behaviour, float(best))
        return cls(problem, log_behaviour, float(rng.choice(seen)))

    @property
    def noise(self):
        """The largest probability of another successor than the likeliest."""
        return float(1 - self.problem.transition.max(axis=-1).min())


def luck(p, risky):
    """The risky arm's return 1, which it pays with probability p, as the target."""
    drawn = safe_and_risky(p, risky)
    return {"drawn": NearlyDeterministic(drawn.problem, drawn.log_behaviour, 1.0)}
