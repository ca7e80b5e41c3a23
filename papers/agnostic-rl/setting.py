"""What the claims and figures of agnostic-rl share: random and built problems, classes, and the two online arms."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from klsim.claims import shared
from klsim.learning import policy_returns
from klsim.learning.policy_sampling import policy_episodes, shared_trees, trajectory_weights
from klsim.learning.popler import popler
from klsim.planning import qvi_iterates, rollouts
from klsim.planning.coverability import class_coverability, occupancies
from klsim.planning.psdp import psdp
from klsim.planning.spanning import spanning_capacity
from klsim.problems import TabularMDP
from klsim.problems.policy_classes import all_policies, l_tons, open_loop_policies


# problems -------------------------------------------------------------------------------------------
def random_mdp(rng, horizon, states, actions=2, alpha=1.0, paying=None):
    """Dirichlet(alpha) rows and start; rewards uniform in [0, 1/H], or 1/H with probability ``paying`` and else 0."""
    shape, width = (horizon, states, actions), np.full(states, alpha)
    moves, initial = rng.dirichlet(width, shape), rng.dirichlet(width)
    reward = rng.random(shape) if paying is None else rng.random(shape) < paying
    return TabularMDP(moves, reward / horizon, initial, horizon)


def deterministic_mdp(start, successor, reward=None):
    """One start state and one successor of every (layer, state, action), from integers ``(H, S, A)``."""
    states = successor.shape[1]
    moves = np.eye(states)[successor]
    return TabularMDP(
        moves, np.zeros(successor.shape) if reward is None else reward, np.eye(states)[start], len(successor)
    )


def best_policy(problem):
    """Of all policies."""
    return qvi_iterates(problem, problem.horizon)[-1].argmax(axis=-1)


def random_class(rng, count, horizon, states, actions=2):
    return rng.integers(0, actions, (count, horizon, states))


def coverage(problem, policies):
    """``sum_{s,a} max_pi d^pi_h(s,a)`` of every layer."""
    with np.errstate(divide="ignore"):
        log_policies = np.log(np.eye(problem.shape[2])[policies])
    return class_coverability(occupancies(problem, log_policies)).layers


# capacities in closed form --------------------------------------------------------------------------
def singleton_capacity(layer, states=math.inf):
    return min(states, layer + 1)


def l_ton_capacity(layer, ones):
    """For enough states."""
    return sum(math.comb(layer, j) for j in range(ones + 1))


def full_capacity(layer, states=math.inf, actions=2):
    return min(states * actions, actions**layer)


class Cover(NamedTuple):
    """A random class of six policies (three layers, three states) and a problem, from nearly deterministic to dense."""

    policies: np.ndarray
    problem: TabularMDP

    @classmethod
    def draw(cls, rng):
        alpha = float(10 ** rng.uniform(-2, 0))
        return cls(random_class(rng, 6, 3, 3), random_mdp(rng, 3, 3, alpha=alpha))

    @classmethod
    def everything(cls):
        """All policies of two layers and states; the action is the next state."""
        return cls(all_policies(2, 2, 2), deterministic_mdp(0, np.tile(np.array([0, 1]), (2, 2, 1))))

    @property
    def capacity(self):
        return capacity_of(self.policies)


def capacity_of(policies):
    """Searched once: checks and their controls ask for the same classes."""
    return _capacity(policies.tobytes(), policies.shape)


@shared(maxsize=1000)
def _capacity(policies, shape):
    return spanning_capacity(np.frombuffer(policies, dtype=np.int64).reshape(shape), 2)


# importance sampling --------------------------------------------------------------------------------
class Weighted(NamedTuple):
    """A problem and a policy that is not all-0."""

    problem: TabularMDP
    policy: np.ndarray

    @classmethod
    def draw(cls, rng):
        policy = rng.integers(0, 2, (3, 3))
        policy[rng.integers(3), rng.integers(3)] = 1
        return cls(random_mdp(rng, 3, 3), policy)

    def strings(self):
        """All states and actions, the probability of the states given the actions, and the returns."""
        states = np.repeat(list(itertools.product(range(3), repeat=3)), 8, axis=0)
        actions = np.tile(list(itertools.product(range(2), repeat=3)), (27, 1))
        moves = self.problem.transition[np.arange(2), states[:, :2], actions[:, :2], states[:, 1:]]
        returns = self.problem.reward[np.arange(3), states, actions].sum(axis=1)
        return states, actions, self.problem.initial[states[:, 0]] * moves.prod(axis=1), returns

    def own_paths(self):
        """The 27 state paths of the policy: actions, probabilities, returns."""
        states = np.array(list(itertools.product(range(3), repeat=3)))
        actions = self.policy[np.arange(3), states]
        chance = self.problem.initial[states[:, 0]]
        for h in range(2):
            chance = chance * self.problem.transition[h, states[:, h], actions[:, h], states[:, h + 1]]
        return states, actions, chance, sum(self.problem.reward[h, states[:, h], actions[:, h]] for h in range(3))


# search ---------------------------------------------------------------------------------------------
def binary_tree(horizon):
    """A deterministic problem of ``2^(H-1)`` states in which ``2^H`` open-loop policies reach different pairs."""
    states = np.arange(2 ** (horizon - 1))
    successor = np.minimum(2 * states[:, None] + np.array([0, 1]), len(states) - 1)
    return 0, np.repeat(successor[None], horizon, axis=0)


def singleton_chain(horizon, states):
    """With H+1 states or more the singletons reach H+1 pairs at layer H: policy h leaves the others at layer h."""
    states, successor = np.arange(states), np.zeros((horizon, states, 2), dtype=int)
    for h in range(horizon):
        successor[h] = states[:, None]  # who left stays
        successor[h, h, 0] = h + 1
    return 0, successor


class Order(NamedTuple):
    """A class on its maximising MDP, and an order in which policies are tried."""

    policies: np.ndarray
    start: int
    successor: np.ndarray
    capacity: int

    @classmethod
    def tree(cls, horizon):
        return cls(open_loop_policies(horizon, 2 ** (horizon - 1), 2), *binary_tree(horizon), full_capacity(horizon))

    @classmethod
    def singletons(cls, horizon, states):
        return cls(l_tons(horizon, states), *singleton_chain(horizon, states), singleton_capacity(horizon))

    @classmethod
    def draw(cls, rng):
        horizon = int(rng.integers(2, 6))
        made = cls.tree(horizon) if rng.random() < 0.4 else cls.singletons(horizon, horizon + int(rng.integers(1, 5)))
        return made._replace(policies=rng.permutation(made.policies))

    def found_after(self):
        """Episodes until each of the reached pairs is first inspected, by roll-outs of the policies in order."""
        seen = policy_episodes(
            deterministic_mdp(self.start, self.successor), self.policies, np.arange(len(self.policies))
        )
        pairs = 2 * seen.states[:, -1] + seen.actions[:, -1]
        return 1 + np.unique(pairs, return_index=True)[1]


def search_lengths(pairs, rng, runs):
    """Episodes until one of ``pairs`` is found that a needle is in, searched without replacement."""
    order = rng.permuted(np.tile(np.arange(pairs), (runs, 1)), axis=1)
    return 1 + np.argmax(order == rng.integers(0, pairs, (runs, 1)), axis=1)


# generative and online evaluation -------------------------------------------------------------------
def uniform_actions(problem, policies, episodes, rng):
    """Importance-sampling estimates of all policies from roll-outs of uniform actions."""
    seen = rollouts(problem, np.full(problem.shape, -math.log(problem.shape[2])), episodes, rng)
    weights = trajectory_weights(policies, seen.states[:, :-1], seen.actions, action_count=problem.shape[2])
    return weights @ seen.rewards.sum(axis=1) / episodes


def core_members(problem, policies, episodes, rng):
    """The same from roll-outs of a uniformly drawn member of the class."""
    seen = policy_episodes(problem, policies, rng.integers(0, len(policies), episodes), rng=rng)
    return trajectory_weights(policies, seen.states, seen.actions, core=policies) @ seen.rewards.sum(axis=1) / episodes


class TreeErrors(NamedTuple):
    """Largest errors over the class, and the calls of a tree."""

    trees: float
    uniform: float
    core: float
    calls: np.ndarray


def tree_errors(rng, trees, *, more=1, states=24, horizon=6, paying=0.3):
    """Shared trees against importance sampling with ``more`` times as many calls, on a sparse problem."""
    policies = l_tons(horizon, states)
    problem = random_mdp(rng, horizon, states, alpha=0.01, paying=paying)
    exact = policy_returns(problem, policies)
    found = shared_trees(problem, policies, trees, rng=rng)
    episodes = more * int(found.calls.sum()) // horizon

    def error(estimate):
        return float(np.abs(estimate - exact).max())

    uniform, core = (error(run(problem, policies, episodes, rng)) for run in (uniform_actions, core_members))
    return TreeErrors(error(found.returns.mean(axis=0)), uniform, core, found.calls)


class Online(NamedTuple):
    """Largest errors over the class, what the chosen policy loses, and the cost of the petals."""

    petals: float
    naive: float
    petal_gap: float
    naive_gap: float
    episodes: int
    discovered: int


def online_errors(rng, states, *, alpha=0.01, ignored=None, horizon=5, paying=0.5):
    """POPLER in miniature (threshold .05) against the same episodes split over all singletons.

    With ``ignored`` its values are those of another run, which ignores petals of a smaller probability.
    """
    policies = l_tons(horizon, states)
    problem = random_mdp(rng, horizon, states, alpha=alpha, paying=paying)
    exact, core = policy_returns(problem, policies), np.zeros((1, horizon, states), dtype=int)

    def learned(threshold):
        sizes = {"start_episodes": 300, "petal_episodes": 300}
        return popler(problem, policies, core, policies == 1, threshold=threshold, rng=rng, **sizes)

    run = learned(0.05)
    values, each = (learned(ignored) if ignored else run).values, run.episodes // states
    seen = policy_episodes(problem, policies, np.repeat(np.arange(states), each), rng=rng)
    naive = seen.rewards.sum(axis=1).reshape(states, each).mean(axis=1)
    best = exact.max()
    return Online(
        float(np.abs(values - exact).max()), float(np.abs(naive - exact).max()), float(best - exact[values.argmax()]),
        float(best - exact[naive.argmax()]), run.episodes, len(run.petals),
    )  # fmt: skip


# PSDP -----------------------------------------------------------------------------------------------
class Search(NamedTuple):
    """A problem, a class of maps of every layer ``(H, M, S)``, reset laws ``(H, S)``, and a comparator ``(H, S)``."""

    problem: TabularMDP
    maps: np.ndarray
    resets: np.ndarray
    comparator: np.ndarray

    @classmethod
    def draw(cls, rng, horizon=4, states=4, actions=3, size=5):
        problem = random_mdp(rng, horizon, states, actions)
        maps = rng.integers(0, actions, (horizon, size, states))
        comparator = best_policy(problem) if rng.random() < 0.5 else rng.integers(0, actions, (horizon, states))
        return cls(problem, maps, rng.dirichlet(np.ones(states), horizon), comparator)

    @classmethod
    def small(cls, rng):
        """Two layers, two states, two actions: the whole class can be enumerated."""
        return cls.draw(rng, 2, 2, 2, 2)

    @classmethod
    def example(cls, on_y=0.9):
        """States x, y, end: layer 1 leads from x to x (or to the end); then x pays 1 for action 0, y .4 for action 1; resets prefer y."""
        moves, reward = np.zeros((2, 3, 2, 3)), np.zeros((2, 3, 2))
        moves[..., 2] = 1.0
        moves[0, 0, 0] = np.eye(3)[0]
        reward[1, 0, 0], reward[1, 1, 1] = 1.0, 0.4
        problem = TabularMDP(moves, reward, np.eye(3)[0], 2)
        maps = np.array([[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]]])
        resets = np.array([[1.0, 0.0, 0.0], [1 - on_y, on_y, 0.0]])
        return cls(problem, maps, resets, np.zeros((2, 3), dtype=int))

    def run(self, maps=None):
        return psdp(self.problem, self.maps if maps is None else maps, self.resets)

    def best_in_class(self):
        """The best return of one map a layer."""
        choices = np.stack(np.meshgrid(*[np.arange(self.maps.shape[1])] * len(self.maps), indexing="ij"), axis=-1)
        chosen = choices.reshape(-1, len(self.maps))
        return float(policy_returns(self.problem, self.maps[np.arange(len(self.maps)), chosen]).max())


class Amplifier(NamedTuple):
    """The problem of C9: at each layer the resets prefer y to x, and stopping at x costs as much as they overlook.

    States x, y, end; the resets are ``(p, 1-p, 0)`` at every layer; the last layer's learner errs by ``p eps``.
    """

    p: float
    eps: float
    horizon: int

    @property
    def kappa(self):
        return 1 + 0.999 * 0.9 * (1 - self.p) / self.p

    @classmethod
    def draw(cls, rng):
        """Within ``eps kappa^(H-1) <= 1``."""
        p, horizon = float(rng.uniform(0.2, 0.6)), int(rng.integers(2, 9))
        return cls(p, float(rng.uniform(0.1, 1.0) * cls(p, 1.0, horizon).kappa ** (1 - horizon)), horizon)

    @property
    def problem(self):
        moves, reward = np.zeros((self.horizon, 3, 2, 3)), np.zeros((self.horizon, 3, 2))
        moves[..., 2] = 1.0
        reward[-1, 0], reward[-1, 1] = (1.0, 1 - self.eps), (1.0, 1.0)
        delta = self.eps
        for h in range(self.horizon - 2, -1, -1):
            eta = 0.1 * delta
            loss = delta + 0.999 * (1 - self.p) * (delta - eta) / self.p
            moves[h, :2, 0] = np.eye(3)[0]
            reward[h, 0, 1], reward[h, 1, 1] = 1 - loss, 1 - eta
            delta = loss
        return TabularMDP(moves, reward, np.eye(3)[0], self.horizon)

    @property
    def resets(self):
        return np.tile([self.p, 1 - self.p, 0.0], (self.horizon, 1))

    @property
    def tolerance(self):
        """Statistical error of every layer."""
        return np.eye(self.horizon)[-1] * self.p * self.eps

    def run(self, *, complete=False):
        """With {always 0, always 1}, or all eight maps, at every layer."""
        maps = all_policies(1, 3, 2)[:, 0] if complete else np.array([[0, 0, 0], [1, 1, 1]])
        return psdp(self.problem, [maps] * self.horizon, self.resets, tolerance=self.tolerance)

    def gap(self, *, complete=False):
        return 1.0 - self.run(complete=complete).value
