"""What the claims and figures of sequoia share: action sets by brute force, the four problems, and Q-networks fitted to them."""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from klsim.learning import Adam
from klsim.learning.networks import Linear, Network, ReLU
from klsim.planning import evaluate, solve
from klsim.planning.network_milp import best_action, interval_bounds
from klsim.planning.restless import choice_value, expected_next_value, incremental_search
from klsim.problems.action_models import budget_model, packing_model, schedule_model, walk_model
from klsim.problems.restless_bandit import CoupledRestlessBandit, arm_chain, saturating_link
from klsim.spaces import CoupledRestlessBandits

STATES, HORIZON, DISCOUNT = 4, 20, 0.9
START = (0.8, 0.2, 0.0, 0.0)  # Bernoulli(.2)


def binary(size):
    """All 0/1 vectors, ``(2^size, size)``, in the order of binary numbers."""
    return np.array(list(itertools.product((0, 1), repeat=size)))


# action sets -----------------------------------------------------------------------------------------
class Budget(NamedTuple):
    """At most ``budget`` of ``size`` entries."""

    size: int
    budget: int

    @classmethod
    def draw(cls, rng):
        size = int(rng.integers(1, 7))
        return cls(size, int(rng.integers(0, size + 1)))

    def model(self):
        return budget_model(self.size, self.budget)

    def vectors(self):
        return np.array([v for v in binary(self.size) if sum(v) <= self.budget])


class Walks(NamedTuple):
    """Nodes of a closed walk of at most ``length`` moves from node 0, at most ``budget`` of them chosen."""

    adjacency: np.ndarray
    length: int
    budget: int

    @classmethod
    def of(cls, size, edges, length, budget):
        adjacency = np.zeros((size, size), dtype=bool)
        for u, v in edges:
            adjacency[u, v] = adjacency[v, u] = True
        return cls(adjacency, length, budget)

    @classmethod
    def draw(cls, rng, size=5, budget=2):
        """A random connected graph, edge probability .4."""
        while True:
            drawn = cls.of(
                size, [e for e in itertools.combinations(range(size), 2) if rng.random() < 0.4], 2 * budget, budget
            )
            if np.linalg.matrix_power(np.eye(size) + drawn.adjacency, size).all():
                return drawn

    def model(self, **rows):
        return walk_model(self.adjacency, 0, self.length, self.budget, **rows)

    def visited(self, waiting=True):
        """Sets of nodes that closed walks enter, by pairs (node, visited set), one move at a time."""
        here = {(0, frozenset())}
        for _ in range(self.length):
            moves = {u: [*np.flatnonzero(self.adjacency[u]).tolist(), *[u] * waiting] for u, _ in here}
            here = {(v, seen | {v}) for u, seen in here for v in moves[u]}
        return [seen for node, seen in here if node == 0]

    def vectors(self, waiting=True):
        walks = self.visited(waiting)
        chosen = [(v, set(np.flatnonzero(v).tolist())) for v in binary(len(self.adjacency))]
        return np.array([v for v, nodes in chosen if len(nodes) <= self.budget and any(nodes <= w for w in walks)])


#: the digest's example: source 0 in the middle of 2-1-0-3-4
TREE = Walks.of(5, [(0, 1), (1, 2), (0, 3), (3, 4)], 4, 2)
#: {1, 3, 4, 6} needs 7 of 8 moves
CYCLE = Walks.of(7, [(v, (v + 1) % 7) for v in range(7)], 8, 4)


class Calendars(NamedTuple):
    """Two (worker, slot) units an arm, a worker serves one arm a slot, at most ``budget`` arms."""

    workers: np.ndarray
    arms: np.ndarray
    budget: int

    @classmethod
    def draw(cls, rng, arms=4, budget=2):
        """5 slots; a worker is free in 3, an arm in 2."""
        free = [np.isin(np.arange(5), rng.choice(5, n, replace=False)) for n in [3] * budget + [2] * arms]
        return cls(np.array(free[:budget]), np.array(free[budget:]), budget)

    def model(self, **rows):
        return schedule_model(self.workers, self.arms, self.budget, **rows)

    def vectors(self, distinct=False):
        return np.array([v for v in binary(len(self.arms)) if sum(v) <= self.budget and self._served(
            np.flatnonzero(v).tolist(), self.workers, distinct)])  # fmt: skip

    def _served(self, chosen, free, distinct):
        """Whether two unused units can be found for the first of the chosen arms, then for the others."""
        if not chosen:
            return True
        for pair in itertools.combinations(np.argwhere(free & self.arms[chosen[0]]).tolist(), 2):
            if distinct and pair[0][0] == pair[1][0]:
                continue
            left = free.copy()
            left[tuple(zip(*pair))] = False
            if self._served(chosen[1:], left, distinct):
                return True
        return False


#: every arm is free in slots 0 and 1, worker 0 in 0-2, worker 1 in 2-4: only worker 0 can serve
ONE_WORKER = Calendars(
    np.array([[True, True, True, False, False], [False, False, True, True, True]]), np.tile(np.arange(5) < 2, (4, 1)), 2
)


class Packing(NamedTuple):
    """Arms of integer ``costs`` that fit into workers of integer ``capacities``."""

    costs: np.ndarray
    capacities: np.ndarray

    @classmethod
    def draw(cls, rng, arms=4, workers=2):
        return cls(rng.integers(2, 7, arms), rng.integers(2, 8, workers))

    def model(self):
        return packing_model(self.costs, self.capacities)

    def vectors(self):
        return np.array([v for v in binary(len(self.costs)) if self._packs(np.flatnonzero(v))])

    def _packs(self, chosen):
        """All assignments of the chosen arms."""
        for workers in itertools.product(range(len(self.capacities)), repeat=len(chosen)):
            load = np.bincount(np.array(workers, dtype=int), self.costs[chosen], minlength=len(self.capacities))
            if np.all(load <= self.capacities):
                return True
        return False


def inside(vectors, size):
    """1 or 0 for every 0/1 vector: whether it is listed."""
    listed = {tuple(v) for v in np.asarray(vectors).tolist()}
    return np.array([float(tuple(v) in listed) for v in binary(size).tolist()])


# the four problems -----------------------------------------------------------------------------------
def pays(rng, good):
    """State rewards: good arms pay 4 to 6 at the top, others 1 to 3; below that the order is the reverse."""
    table = np.where(good[:, None], (0.2, 0.15, 0.1, 0.0), (0.1, 0.15, 0.2, 0.0))
    table[:, 3] = np.where(good, rng.integers(4, 7, len(good)), rng.integers(1, 4, len(good)))
    return table


def bandit_of(vectors, up, reward):
    return CoupledRestlessBandit(vectors, arm_chain(up, STATES), reward, np.tile(START, (len(reward), 1)), HORIZON)


def pulls(rng, vectors, good_arms=2):
    """Arms that react to their own pull: up with probability U(0, .2) without it, U(.7, .9) with it."""
    arms = vectors.shape[1]
    low, high = rng.uniform(0, 0.2, arms), rng.uniform(0.7, 0.9, arms)
    good = np.isin(np.arange(arms), rng.choice(arms, good_arms, replace=False))
    return bandit_of(vectors, np.where(vectors, high, low), pays(rng, good))


def interventions(rng, wiring="groups"):
    """4 arms, the last 2 good, 6 interventions, 3 at most; weight 3 where an arm reacts.

    groups: 3 random interventions act on both good arms, the 3 others on both bad ones, which need little. overlapping: every
    arm is of the good kind and reacts to 3 of its own.
    """
    vectors, good = Budget(6, 3).vectors(), np.arange(4) >= 2
    if wiring == "overlapping":
        linked = np.array([np.isin(np.arange(6), rng.choice(6, 3, replace=False)) for _ in range(4)])
        hard = np.ones(4, dtype=bool)
    else:
        linked = np.isin(np.arange(6), rng.choice(6, 3, replace=False)) == good[:, None]
        hard = good
    height, slope, midpoint = links(rng, hard)
    up = saturating_link(vectors @ (3.0 * linked.T), height, slope, midpoint)
    return bandit_of(vectors, up, pays(rng, good))


#: small enough to write the joint chain out
SMALL = CoupledRestlessBandits(arms=3, states=3, entries=3, horizon=4)


def joint(bandit, paid="next"):
    """``(S, K, S)`` and rewards ``(S, K)``: all joint moves of the arms, from all joint states at a time."""
    arms, states = bandit.reward.shape
    every = np.array(list(itertools.product(range(states), repeat=arms)))
    moves = np.zeros((len(every), len(bandit.actions), len(every)))
    reward = np.zeros(moves.shape[:2])
    for new, there in enumerate(every):
        chance = np.prod([bandit.transition[:, j, x, there[j]] for j, x in enumerate(every.T)], axis=0).T
        moves[:, :, new] = chance
        seen = every if paid == "present" else there[None]
        reward += chance * sum(r[x] for r, x in zip(bandit.reward, seen.T))[:, None]
    return moves, reward


def additions(actions, q, first=False):
    """What is reached from the null vector one entry at a time: the best that raises ``q`` (of equal ones the first), or any that does."""
    value = dict(zip(map(tuple, actions.tolist()), q.tolist()))
    here = (0,) * actions.shape[1]
    while True:
        larger = [v for v in value if sum(v) == sum(here) + 1 and all(np.array(v) >= here) and value[v] > value[here]]
        if not larger:
            return value[here]
        larger.sort(reverse=True)  # the first entry first
        here = larger[0] if first else max(larger, key=value.get)


def links(rng, hard):
    """Height, slope and midpoint of every arm's link; ``hard`` ones need two interventions."""
    count = len(hard)
    height = np.where(hard, rng.uniform(0.7, 1, count), rng.uniform(0.2, 0.5, count))
    slope = np.where(hard, rng.uniform(1.4, 1.9, count), 1.0)
    return height, slope, np.where(hard, rng.integers(9, 11, count), rng.integers(1, 3, count))


def pulled(kind):
    """A drawn action set on arms that are pulled; sets of fewer than 5 vectors leave next to nothing to plan and are redrawn."""

    def draw(rng):
        while len(vectors := kind.draw(rng).vectors()) < 5:
            pass
        return pulls(rng, vectors)

    return draw


PROBLEMS = {
    "multi": interventions, "path": pulled(Walks), "bipartite": pulled(Calendars), "capacity": pulled(Packing),
}  # fmt: skip


# networks --------------------------------------------------------------------------------------------
class Query(NamedTuple):
    """Which action of a set is best for a network (weights and biases in turn; inputs the action, then the state)."""

    chosen: NamedTuple
    parameters: tuple[np.ndarray, ...]
    state: np.ndarray

    @classmethod
    def of(cls, rng, chosen, entries, arms, hidden=(16, 32)):
        """PyTorch's default variance, or weights N(0, 1.5^2/in) and biases N(0, .3^2); states 0 to 3."""
        wide = rng.random() < 0.5
        parameters = list(q_network(entries + arms, *hidden).start(rng, gain=1.5 if wide else 3**-0.5))
        parameters[1::2] = [(0.3 if wide else 0.2) * rng.standard_normal(b.shape) for b in parameters[1::2]]
        return cls(
            chosen, tuple(np.asarray(p, dtype=float) for p in parameters), rng.integers(0, STATES, arms).astype(float)
        )

    def points(self):
        """Inputs for all vectors of the set, found without the rows."""
        vectors = self.chosen.vectors()
        return np.concatenate([vectors, np.tile(self.state, (len(vectors), 1))], axis=1)

    def outputs(self, rows):
        """Q, by the forward pass."""
        hidden = (len(b) for b in self.parameters[1:-2:2])
        return q_network(rows.shape[1], *hidden, precision="float64").forward(self.parameters, rows)[0][:, 0]

    def best(self):
        """The largest output over the set, twice: for the optimum, and for Q of the action."""
        return np.full(2, self.outputs(self.points()).max())

    def programme(self, big_m=None):
        """Its optimum, and Q of its action (-inf if that is not in the set); -inf where the bounds leave no feasible point."""
        try:
            found = best_action(self.parameters, self.state, self.chosen.model(), big_m=big_m)
        except ValueError as refused:
            if "leaves no feasible point" not in str(refused):
                raise
            return np.full(2, -np.inf)
        points = self.points()
        taken = np.all(points[:, : len(found.action)] == found.action, axis=1)
        return np.array([found.value, np.where(taken, self.outputs(points), -np.inf).max()])

    def bounds(self, ends=None):
        """Interval bounds for actions in [0, 1]^d and the own state, or states between two ends."""
        size = self.parameters[0].shape[1] - len(self.state)
        low, high = (self.state, self.state) if ends is None else (np.full(len(self.state), end) for end in ends)
        return interval_bounds(
            self.parameters, np.concatenate([np.zeros(size), low]), np.concatenate([np.ones(size), high])
        )


class Four(NamedTuple):
    """A query for each of the four problems, at the digest's sizes."""

    multi: Query
    path: Query
    bipartite: Query
    capacity: Query

    @classmethod
    def draw(cls, rng):
        return cls(
            Query.of(rng, Budget(6, 3), 6, 4), Query.of(rng, Walks.draw(rng), 5, 5),
            Query.of(rng, Calendars.draw(rng), 4, 4), Query.of(rng, Packing.draw(rng), 4, 4),
        )  # fmt: skip


def small_query(rng):
    """4 entries, at most 2, 3 arms, hidden layers of 6 and 5."""
    return Query.of(rng, Budget(4, 2), 4, 3, (6, 5))


def trained_query(rng):
    """A network fitted to a bipartite problem (3 targets of 40 steps), at a random state."""
    chosen = Calendars.draw(rng)
    bandit = pulls(rng, chosen.vectors())
    _, parameters = fitted([bandit], rng, targets=3, steps=40)
    return Query(chosen, tuple(p[0].astype(float) for p in parameters), rng.integers(0, STATES, 4).astype(float))


def inputs(bandit, width):
    """``(S K, width)``: the action, then the state, then zeros."""
    _, states, actions = bandit.shape
    rows = np.concatenate([np.tile(bandit.actions, (states, 1)), np.repeat(bandit.states, actions, axis=0)], axis=1)
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1]))).astype(np.float32)


def q_network(width, first=16, second=32, precision="float32"):
    """``width -> 16 -> 32 -> 1``."""
    layers = (Linear(width, first), ReLU(), Linear(first, second), ReLU(), Linear(second, 1))
    return Network(layers, precision)


TARGETS, STEPS, BATCH = 6, 120, 64
RATE, LAST_RATE = 5e-3, 1e-3  # of Adam; the second for the last fifth of the targets


def split(flat, shapes):
    """Parameters of ``(copies, all of them)``."""
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    return tuple(flat[:, i:j].reshape(-1, *shape) for i, j, shape in zip(ends, ends[1:], shapes))


def fitted(bandits, rng, targets=TARGETS, steps=STEPS, batch=BATCH):
    """Fitted Q iteration on exact targets ``r + .9 E max_a' Q(s', a')``, one network a bandit, side by side.

    The first target is the next reward alone, with three times the steps; rows are uniform over all (s, a); smooth-L1 loss,
    Adam at .005, at .001 for the last fifth of the targets. Bandits of fewer inputs are padded by zeros. Returns Q
    ``(S, K)`` of every bandit, and the parameters of all.
    """
    width = max(b.actions.shape[1] + len(b.reward) for b in bandits)
    network = q_network(width)
    flat = np.concatenate(
        [p.reshape(len(bandits), -1) for p in network.start(rng, copies=(len(bandits),), gain=3**-0.5)], axis=1
    )
    rows = [inputs(b, width) for b in bandits]
    sizes = np.array([len(r) for r in rows])[:, None]
    first, table = np.cumsum(sizes)[:, None] - sizes, np.concatenate(rows)
    optimiser = Adam(RATE)
    q = [np.zeros(b.shape[1:]) for b in bandits]
    for i in range(targets):
        if i > 0 and i == targets - max(1, targets // 5):
            optimiser = dataclasses.replace(optimiser, lr=LAST_RATE)
        target = np.concatenate(
            [(b.step_reward + DISCOUNT * expected_next_value(b, v.max(axis=1))).ravel() for b, v in zip(bandits, q)]
        ).astype(np.float32)
        for _ in range(steps * (3 if i == 0 else 1)):
            chosen = first + (rng.random((len(bandits), batch)) * sizes).astype(int)
            parameters = split(flat, network.shapes)
            out, tape = network.forward(parameters, table[chosen])
            slope = np.clip(out - target[chosen][..., None], -1, 1) / np.float32(batch)
            gradients, _ = network.backward(parameters, tape, slope)
            ascent = -np.concatenate([g.reshape(len(bandits), -1) for g in gradients], axis=1)
            flat, optimiser = optimiser.step(flat, ascent)
        parameters = split(flat, network.shapes)
        q = [
            network.forward(tuple(p[c] for p in parameters), rows[c])[0].astype(float).reshape(b.shape[1:])
            for c, b in enumerate(bandits)
        ]
    return q, parameters


def slopes(rng):
    """Seven gradients of 12 weights, of unequal size."""
    return rng.standard_normal((7, 3, 4)) * np.array([1e-3, 0.1, 1.0, 20.0])


def adam_steps(gradients, late):
    """What `fitted` does with given gradients: moves of the weights, the smaller rate from step ``late`` on."""
    optimiser, at, moves = Adam(RATE), np.zeros(gradients.shape[1:]), []
    for i, gradient in enumerate(gradients):
        if i == late:
            optimiser = dataclasses.replace(optimiser, lr=LAST_RATE)
        moved, optimiser = optimiser.step(at, -gradient)
        moves.append(moved - at)
        at = moved
    return np.array(moves)


METHODS = ("null", "random", "iterative myopic", "myopic", "iterative DQN", "SEQUOIA", "optimum")


BASELINES = METHODS[:4]


def study(rngs, kinds=tuple(PROBLEMS), scored="network"):
    """``{kind: {method: (seeds,)}}``: one instance of every kind a seed, all networks trained side by side.

    ``scored="next reward"`` has the exact next reward in place of the networks' Q.
    """
    bandits = [PROBLEMS[kind](r) for kind in kinds for r in rngs]
    q = fitted(bandits, rngs[0])[0] if scored == "network" else [b.step_reward for b in bandits]
    found = [averages(bandit, values) for bandit, values in zip(bandits, q)]
    rows = {m: np.array([f[m] for f in found]).reshape(len(kinds), len(rngs)) for m in METHODS}
    return {kind: {m: rows[m][i] for m in METHODS} for i, kind in enumerate(kinds)}


def per_step(bandit, choice):
    return float(bandit.start @ choice_value(bandit, choice)) / HORIZON


def averages(bandit, q):
    """Expected reward a step from the start, by method."""
    search = incremental_search
    chosen = {
        "null": np.zeros(bandit.shape[1], dtype=int), "iterative myopic": search(bandit.actions, bandit.step_reward),
        "myopic": bandit.step_reward.argmax(axis=1), "iterative DQN": search(bandit.actions, q), "SEQUOIA": q.argmax(axis=1),
    }  # fmt: skip
    found = {name: per_step(bandit, choice) for name, choice in chosen.items()}
    actions = bandit.shape[2]
    found["random"] = evaluate(bandit, np.full(bandit.shape[1:], -np.log(actions))).reward / HORIZON
    found["optimum"] = float(bandit.start @ solve(bandit, beta=0).value[0]) / HORIZON
    return {name: found[name] for name in METHODS}
