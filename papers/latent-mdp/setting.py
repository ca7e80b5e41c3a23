"""What the claims and figures of latent-mdp share: small latent MDPs, trajectories, the "worker", regrets."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from klsim.learning.latent_mdp import Optimism, optimistic_regret
from klsim.problems import LatentMDP, TabularMDP, histories


# small latent MDPs -----------------------------------------------------------------------------------
def small(rng, horizon=3, concentration=0.2, rewards=(0.0, 1 / 3), shared=None, size=2):
    """M = S = A = 2: Dirichlet rows, rewards from a list; ``shared`` rewards do not tell the context."""
    weights, starts = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size), size)
    moves = rng.dirichlet(np.full(size, concentration), (size, size, 2))
    paid = rng.choice(rewards, (size, size, 2))
    shared = rng.random() < 0.5 if shared is None else shared
    paid = np.broadcast_to(paid[:1], paid.shape) if shared else paid
    return LatentMDP(weights, tuple(TabularMDP(p, r, nu, horizon) for p, r, nu in zip(moves, paid, starts)))


class Played(NamedTuple):
    """A latent MDP and a policy of histories, given by phases ``(A,)`` (`policy_of`)."""

    problem: LatentMDP
    phases: np.ndarray
    soft: bool

    @classmethod
    def draw(cls, rng):
        return cls(small(rng), rng.uniform(0, 7, 2), bool(rng.random() < 0.5))

    @classmethod
    def softly(cls, rng):
        return cls.draw(rng)._replace(soft=True)


def policy_of(phases, soft, states, actions, rewards):
    """Log-probabilities ``(..., A)`` of histories ``(..., t+1), (..., t), (..., t)``: every entry of a history matters."""
    code = np.zeros(states.shape[:-1])
    for i in range(states.shape[-1]):
        code = 1.7 * code + states[..., i] + 1
        if i < actions.shape[-1]:
            code = 1.3 * code + 2.1 * actions[..., i] + 3.7 * rewards[..., i]
    logits = 2 * np.sin(code[..., None] * (1 + phases) + phases)
    if soft:
        return log_softmax(logits, axis=-1)
    return np.where(np.arange(len(phases)) == np.argmax(logits, axis=-1)[..., None], 0.0, -np.inf)


def levels_of(problem, phases, soft):
    """The policy as levels over the problem's histories."""
    tree = histories(problem)
    return tuple(policy_of(phases, soft, *level) for level in zip(tree.states, tree.actions, tree.rewards))


def episodes(problem, phases, soft):
    """``(log-chance, m, states, actions, rewards)`` of every episode, listed without the tree of histories."""
    horizon, states, _ = problem.shape
    live = [(np.log(problem.weights[m] * problem.initial[m, s]), m, (s,), (), ())
            for m in range(len(problem.weights)) for s in range(states) if problem.weights[m] * problem.initial[m, s] > 0]  # fmt: skip
    for t in range(horizon):
        grown = []
        laws = policy_of(phases, soft, *(np.array([row[i] for row in live]) for i in (2, 3, 4)))
        for law, (log_chance, m, seen, done, paid) in zip(laws, live):
            for a in np.flatnonzero(law > -np.inf):
                r, row = float(problem.reward[m, t, seen[-1], a]), problem.transition[m, t, seen[-1], a]
                for s in np.flatnonzero(row) if t + 1 < horizon else [None]:
                    chance = log_chance + law[a] + (0.0 if s is None else math.log(row[s]))
                    grown.append((chance, m, seen if s is None else (*seen, int(s)), (*done, int(a)), (*paid, r)))
        live = grown
    return live


def trajectories(problem, phases, soft):
    """``(chance, m, s_1, return)`` of every episode, arrays."""
    rows = episodes(problem, phases, soft)
    chance = np.exp([row[0] for row in rows])
    return (
        chance,
        np.array([r[1] for r in rows]),
        np.array([r[2][0] for r in rows]),
        np.array([sum(r[4]) for r in rows]),
    )


def q_by_episodes(problem, phases, t):
    """``{(states, actions, rewards): Q(h, .) - V(h)}`` of the histories after ``t`` decisions, for a soft policy."""
    mass = {}
    for log_chance, _, states, actions, rewards in episodes(problem, phases, True):
        rows = mass.setdefault((states[: t + 1], actions[:t], rewards[:t]), np.zeros((2, problem.shape[2])))
        rows[:, actions[t]] += np.exp(log_chance) * np.array([1.0, sum(rewards[t:])])
    return {h: q / chance - (q.sum() / chance.sum()) for h, (chance, q) in mass.items()}


def best_of_all(problem, memoryless=False):
    """The largest value of all deterministic policies of two steps, each written out and summed.

    Of histories: an action at each first state, then one at every (reward, state) that this action allows. ``memoryless``:
    an action a state and step.
    """
    _, states, actions = problem.shape
    joint = problem.weights[:, None] * problem.initial
    totals = np.zeros(1)
    for s in range(states):
        options = []
        for a in range(actions):
            at = {}  # what the second step pays by action, for every (reward, state)
            for m, z in itertools.product(range(len(joint)), range(states)):
                after = at.setdefault((problem.reward[m, 0, s, a], z), np.zeros(actions))
                after += joint[m, s] * problem.transition[m, 0, s, a, z] * problem.reward[m, 1, z]
            now = joint[:, s] @ problem.reward[:, 0, s, a]
            options += [now + sum(v[c] for v, c in zip(at.values(), choice))
                        for choice in itertools.product(range(actions), repeat=len(at))]  # fmt: skip
        totals = (totals[:, None] + np.array(options)).ravel()
    if not memoryless:
        return float(totals.max()), totals.size
    values = []
    for first, second in itertools.product(itertools.product(range(actions), repeat=states), repeat=2):
        pick = np.arange(states)
        visits = np.einsum("ms,msz->mz", joint, problem.transition[:, 0, pick, first])
        values.append(
            np.sum(joint * problem.reward[:, 0, pick, first]) + np.sum(visits * problem.reward[:, 1, pick, second])
        )
    return float(max(values)), len(values)


def coin():
    """One state, one action, one step: context 0 pays 1, context 1 nothing."""
    one = np.ones((1, 1, 1))
    return LatentMDP(np.full(2, 0.5), tuple(TabularMDP(one, np.full((1, 1), r), np.ones(1), 1) for r in (1.0, 0.0)))


def reveal():
    """Start state 0 or 1 shows the context; both lead to state 2, where action m pays 1: V* = 1, by the state alone 1/2."""
    to_two = np.zeros((3, 2, 3))
    to_two[..., 2] = 1
    contexts = []
    for m in range(2):
        paid = np.zeros((3, 2))
        paid[2, m] = 1
        contexts.append(TabularMDP(to_two, paid, np.eye(3)[m], 2))
    return LatentMDP(np.full(2, 0.5), tuple(contexts))


# the worker ------------------------------------------------------------------------------------------
FAIL, GOAL, BEST, K = 0.5, 1.0, 1.6, 3000
HORIZONS = (8, 16, 32, 64, 128)


def worker(horizon, goal, fail=FAIL, weights=None):
    """States 0, 1 (working), 2 (goal), 3 (end); context m starts in m and works there.

    Action a leads to the goal with probability ``goal[m][a] / H``, to the end with ``fail / H``; the goal pays 1 and ends.
    """
    goal = np.atleast_2d(np.asarray(goal, dtype=float))
    contexts = []
    for m, row in enumerate(goal):
        moves = np.zeros((4, len(row), 4))
        for s in (0, 1):
            moves[s, :, 2], moves[s, :, 3], moves[s, :, s] = row / horizon, fail / horizon, 1 - (row + fail) / horizon
        moves[2:, :, 3] = 1
        paid = np.zeros((4, len(row)))
        paid[2] = 1
        contexts.append(TabularMDP(moves, paid, np.eye(4)[m], horizon))
    return LatentMDP(np.full(len(goal), 1 / len(goal)) if weights is None else weights, tuple(contexts))


def two_contexts(horizon):
    """M = 2, A = 3: the best action is 2 in context 0 and 1 in context 1."""
    return worker(horizon, [[GOAL, GOAL, BEST], [GOAL, BEST, GOAL]])


def one_context(horizon, best):
    """M = 1, A = 3: the last action reaches the goal at rate ``best``."""
    return worker(horizon, [[GOAL, GOAL, best]])


def certain(horizon):
    """M = 1, A = 3: the last action reaches the goal at once, the others never; nothing is random."""
    return worker(horizon, [[0.0, 0.0, horizon]], fail=0.0)


def regret(problem, rngs, episodes=K, *, scale=0.5, variance=True, growth=1.25, refresh="any"):
    """Cumulated regret ``(runs, K)`` over constant actions by start state, iota = log(2 M S A K)."""
    contexts, (_, states, actions) = len(problem.contexts), problem.shape
    rule = Optimism(math.log(2 * contexts * states * actions * episodes), scale, variance)
    constant = np.repeat(np.arange(actions)[:, None], states, axis=1)
    return optimistic_regret(problem, constant, episodes, rngs, rule, growth=growth, refresh=refresh)


def slopes(x, y):
    """Least-squares slope of ``log y (n, len(x))`` against ``log x``, one a row."""
    u = np.log(x) - np.mean(np.log(x))
    return np.log(y) @ u / (u @ u)


# draws and models -----------------------------------------------------------------------------------------------
class Sample(NamedTuple):
    """``draws`` of ``p (G,)``, Dirichlet(5), and a fixed x."""

    p: np.ndarray
    fixed: np.ndarray
    draws: int

    @classmethod
    def draw(cls, rng):
        outcomes, draws = ((2, 50), (3, 50), (4, 50), (8, 7))[rng.integers(4)]
        return cls(rng.dirichlet(np.full(outcomes, 5.0)), rng.standard_normal(outcomes), draws)


class Estimated(NamedTuple):
    """An empirical model and its counts, H = 2: state 0 leads to 1 with a small chance p, else to 2, which pays nothing.

    In state 1 action m is the better one in context m; context 0 was seen 10 times a row, context 1 a thousand times.
    """

    problem: LatentMDP
    visits: np.ndarray

    @classmethod
    def draw(cls, rng):
        p, low, high = rng.uniform(0.1, 0.3), rng.uniform(0.4, 0.5), rng.uniform(0.75, 0.85)
        moves = np.zeros((3, 2, 3))
        moves[0, :, 1:], moves[1:] = (p, 1 - p), np.eye(3)[1:, None]
        contexts = []
        for m, gain in enumerate((high - low, (high - low) * rng.uniform(1.02, 1.15))):
            paid = np.zeros((3, 2))
            paid[1] = low + gain * (np.arange(2) == m)
            contexts.append(TabularMDP(moves, paid, np.eye(3)[0], 2))
        visits = np.full((2, 3, 2), 10)
        visits[1] = 1000
        return cls(LatentMDP(np.full(2, 0.5), tuple(contexts)), visits)


class Counted(NamedTuple):
    """An empirical model, M = 2, S = 3, A = 2, H = 3, its counts (a tenth are 0), and a policy of the state."""

    problem: LatentMDP
    visits: np.ndarray
    actions: np.ndarray

    @classmethod
    def draw(cls, rng):
        moves = rng.dirichlet(np.ones(3), (2, 3, 2))
        moves = np.where(moves < 0.15, 0.0, moves)
        moves /= moves.sum(axis=-1, keepdims=True)
        starts, paid = rng.dirichlet(np.ones(3), 2), rng.uniform(0, 1 / 3, (2, 3, 2))
        contexts = tuple(TabularMDP(p, r, nu, 3) for p, r, nu in zip(moves, paid, starts))
        visits = rng.integers(1, 60, (2, 3, 2)) * (rng.random((2, 3, 2)) < 0.9)
        return cls(LatentMDP(rng.dirichlet(np.ones(2)), contexts), visits, rng.integers(0, 2, 3))


def multinomials(total, outcomes):
    """All ``(n_1 … n_G)`` that sum to ``total``."""
    bars = np.array(list(itertools.combinations(range(total + outcomes - 1), outcomes - 1)), dtype=np.int64)
    edges = np.concatenate([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), total + outcomes - 1)], axis=1)
    return np.diff(edges, axis=1) - 1
