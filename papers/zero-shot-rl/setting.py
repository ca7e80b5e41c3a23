"""What the claims and figures of zero-shot-rl share: problems, goal grids, data with missing actions, and a cue to be remembered."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, root
from scipy.special import softmax

from klsim.claims import shared
from klsim.planning import conservative_fb as cfb
from klsim.planning import solve
from klsim.planning.aggregation import aggregated_mdp, label_means
from klsim.planning.forward_backward import leading_features, task_vector, zero_shot_policies
from klsim.planning.successor_measures import arrival_values, successor_density, successor_measure
from klsim.problems import DiscountedMDP

GAMMA = 0.9


def uniform(*shape):
    """Log-probabilities of the uniform policy."""
    return np.full(shape, -np.log(shape[-1]))


def deterministic(action, actions):
    return np.where(np.eye(actions, dtype=bool)[action], 0.0, -np.inf)


def paid_on_arrival(transition, reward, discount=GAMMA):
    """The problem whose reward ``r(s')`` is paid on arrival."""
    states = len(reward)
    return DiscountedMDP(transition, transition @ reward, discount, np.full(states, 1 / states))


def best_values(transition, reward, discount=GAMMA):
    return solve(paid_on_arrival(transition, reward, discount), beta=0.0).value


# C1, C2 --------------------------------------------------------------------------------------------
class World(NamedTuple):
    """P and rho Dirichlet(1), features B ``(S, S)`` and reward normal, a random policy."""

    transition: np.ndarray
    rho: np.ndarray
    features: np.ndarray
    reward: np.ndarray
    log_policy: np.ndarray

    @classmethod
    def draw(cls, rng, states=6, actions=3):
        rows, policy = rng.dirichlet(np.ones(states), (states, actions)), rng.dirichlet(np.ones(actions), states)
        normals = rng.standard_normal((states, states)), rng.standard_normal(states)
        return cls(rows, rng.dirichlet(np.ones(states)), *normals, np.log(policy))

    @property
    def problem(self):
        return paid_on_arrival(self.transition, self.reward)

    @property
    def density(self):
        return successor_density(successor_measure(self.transition, self.log_policy, GAMMA), self.rho)

    @property
    def condition(self):
        """Condition number of ``diag(sqrt rho) B``: what a solution in F loses to rounding."""
        return np.linalg.cond(np.sqrt(self.rho)[:, None] * self.features)


class Loss(NamedTuple):
    """Four states, two actions: the law of pairs D, a frozen target, a table m and a direction, all random."""

    transition: np.ndarray
    rho: np.ndarray
    pairs: np.ndarray
    log_policy: np.ndarray
    target: np.ndarray
    density: np.ndarray
    direction: np.ndarray

    @classmethod
    def draw(cls, rng):
        tables = rng.standard_normal((3, 4, 2, 4))
        pairs = rng.dirichlet(np.ones(8)).reshape(4, 2)
        policy = deterministic(rng.integers(2, size=4), 2)
        return cls(rng.dirichlet(np.ones(4), (4, 2)), rng.dirichlet(np.ones(4)), pairs, policy, *tables)

    def by_samples(self, table, *, half=0.5, at="s+"):
        """The loss summed over ``(s, a, s', s+)`` one by one; ``at`` is where the linear term looks."""
        total, action = 0.0, self.log_policy.argmax(axis=1)
        for s, a, new, plus in itertools.product(range(4), range(2), range(4), range(4)):
            chance = self.pairs[s, a] * self.transition[s, a, new] * self.rho[plus]
            aim = GAMMA * self.target[new, action[new], plus]
            total += chance * (half * (table[s, a, plus] - aim) ** 2 - table[s, a, new if at == "s+" else s])
        return total


def minimiser(loss, weights, start):
    """Argmin of a convex function ``loss(table) -> (value, gradient)`` whose Hessian is at least ``diag(weights)``.

    The root of its gradient (MINPACK), if need be from where BFGS ends. In units of ``weights ** -.5`` the Hessian is at
    least 1, so the distance to the minimiser is at most the norm of the gradient, which is asked to be below 1e-8.
    """
    shape, units = start.shape, 1 / np.sqrt(np.broadcast_to(weights, start.shape))

    def scaled(x):
        value, gradient = loss(x.reshape(shape) * units)
        return value, (gradient * units).ravel()

    def slope(x):
        return scaled(x)[1]

    x = root(slope, (start / units).ravel(), tol=1e-12).x
    if np.linalg.norm(slope(x)) >= 1e-8:
        x = root(slope, minimize(scaled, (start / units).ravel(), jac=True, method="BFGS").x, tol=1e-12).x
    if np.linalg.norm(slope(x)) >= 1e-8:
        raise ArithmeticError(f"the minimiser is not found: gradient {np.linalg.norm(slope(x)):.2g}")
    return x.reshape(shape) * units


# C3 ------------------------------------------------------------------------------------------------
class Approximate(NamedTuple):
    """Two actions; every deterministic policy has an error table of its own, ``(2^S, S, 2, S)``."""

    transition: np.ndarray
    reward: np.ndarray
    errors: np.ndarray
    discount: float

    @classmethod
    def draw(cls, rng):
        states, scale = int(rng.integers(2, 5)), float(np.exp(rng.uniform(np.log(0.01), np.log(0.5))))
        errors = scale * rng.standard_normal((2**states, states, 2, states))
        reward = rng.standard_normal(states)
        return cls(rng.dirichlet(np.ones(states), (states, 2)), reward, errors, float(rng.uniform(0.3, 0.95)))

    @classmethod
    def hidden(cls, gap, discount):
        """The second action is better by ``2 gap`` a step, and an error of ``gap`` hides it: the bound is attained."""
        moves = np.tile([[0.5, 0.5], [0.5 - gap, 0.5 + gap]], (2, 1, 1))
        error = 0.5 * gap * (1 + 1e-9) * np.array([[-1.0, 1.0], [1.0, -1.0]])  # a little more: no tie
        return cls(moves, np.array([-1.0, 1.0]), np.tile(error, (4, 2, 1, 1)), discount)

    def fixed_points(self):
        """``(policy, M, M + E)`` of the policies that are greedy for their own approximate values."""
        states = len(self.reward)
        for action, error in zip(itertools.product(range(2), repeat=states), self.errors):
            policy = deterministic(np.array(action), 2)
            measure = successor_measure(self.transition, policy, self.discount)
            if np.array_equal(((measure + error) @ self.reward).argmax(axis=1), action):
                yield policy, measure, measure + error


# C4 ------------------------------------------------------------------------------------------------
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))


@shared
def grid():
    """``(25, 4, 25)``: five by five cells, four moves, blocked moves stay."""
    moves = np.zeros((25, 4, 25))
    for x, y in itertools.product(range(5), repeat=2):
        for a, (dx, dy) in enumerate(MOVES):
            inside = 0 <= x + dx < 5 and 0 <= y + dy < 5
            moves[5 * x + y, a, 5 * (x + dx) + y + dy if inside else 5 * x + y] = 1.0
    return moves


def maze(rng):
    """The grid with every passage between two cells walled up with probability .15, drawn until cells are connected."""
    while True:
        moves = grid().copy()
        for s, a in itertools.product(range(25), (0, 2)):  # moves 1 and 3 go back through the same passages
            after = int(moves[s, a].argmax())
            if after != s and rng.random() < 0.15:
                moves[s, a], moves[after, a + 1] = np.eye(25)[s], np.eye(25)[after]
        reach = np.linalg.matrix_power(np.eye(25) + moves.sum(axis=1), 24)
        if reach.all():
            return moves


def scores(moves, goals, action):
    """``(V_pi - V_unif)/(V* - V_unif)`` for goals that pay 1 on arrival, in the mean over start states: like ``action (..., goals, S)`` without S."""
    reward = np.eye(moves.shape[0])[goals]

    def values(policy):
        chain = np.einsum("...nsa,sat->...nst", policy, moves)
        paid = chain @ reward[..., None]
        return np.linalg.solve(np.eye(len(moves)) - GAMMA * chain, paid)[..., 0]

    base = values(np.full((len(goals), *moves.shape[:2]), 0.25))
    best = np.array([best_values(moves, r) for r in reward])
    return ((values(np.eye(4)[action]) - base) / (best - base)).mean(axis=-1)


def ranked(moves, goals, rank):
    """The FB policies for goals with the top ``rank`` features of the uniform policy's density."""
    states, actions = moves.shape[:2]
    rho = np.full(states, 1 / states)
    density = successor_density(successor_measure(moves, uniform(states, actions), GAMMA), rho)
    features = leading_features(density, rho, rank)
    return zero_shot_policies(moves, GAMMA, rho, features, task_vector(np.eye(states)[goals], features, rho))


# C5 ------------------------------------------------------------------------------------------------
class Penalised(NamedTuple):
    """Four states, three actions: state weights, rho and behaviour Dirichlet(2), target |N(0, 1)|, sizes of rewards U(.2, 1)."""

    states: np.ndarray
    rho: np.ndarray
    log_behaviour: np.ndarray
    target: np.ndarray
    reward: np.ndarray
    signs: np.ndarray
    alpha: float

    @classmethod
    def draw(cls, rng):
        weights, rho, behaviour = (
            rng.dirichlet(np.full(4, 2.0)),
            rng.dirichlet(np.full(4, 2.0)),
            rng.dirichlet(np.full(3, 2.0), 4),
        )
        target, signs = np.abs(rng.standard_normal((4, 3, 4))), rng.choice([-1.0, 1.0], 4)
        alpha = float(np.exp(rng.uniform(np.log(0.05), np.log(1.0))))
        return cls(weights, rho, np.log(behaviour), target, rng.uniform(0.2, 1, 4), signs, alpha)

    @classmethod
    def rare(cls, rng):
        """The first action of state 0 is nearly absent: rarer than any ``mu_{s+}`` makes it."""
        drawn = cls.draw(rng)
        logs = drawn.log_behaviour.copy()
        rest = np.exp(logs[0, 1:])
        logs[0] = np.log([1e-3, *(0.999 * rest / rest.sum())])
        return drawn._replace(log_behaviour=logs)

    @property
    def behaviour(self):
        return np.exp(self.log_behaviour)

    @property
    def core_weights(self):
        """Of ``(s, a, s+)`` in the core of the loss."""
        return self.states[:, None, None] * self.behaviour[..., None] * self.rho

    def minimised(self, penalty):
        """The table at which the core plus alpha times ``penalty(m) -> (value, gradient)`` is least."""

        def loss(table):
            error, (value, gradient) = table - self.target, penalty(table)
            core = self.core_weights * error
            return 0.5 * np.sum(core * error) + self.alpha * value, core + self.alpha * gradient

        return minimiser(loss, self.core_weights, self.target)

    def values(self, table, reward):
        return arrival_values(table, self.rho, reward)


# C6 ------------------------------------------------------------------------------------------------
GOALS = (0, 4, 20, 24, 12)
CELLS, TRAP = slice(0, 25), 25
RHO = np.full(26, 1 / 26)
REWARDS = np.sqrt(26) * np.eye(26)[list(GOALS)]
ALPHA = {"values": 3.0, "measures": 10.0}


class Traps(NamedTuple):
    """Goal grids with an absorbing trap, one a seed: ``(n, 26, 4, 26)``, trapped pairs ``(n, 25, 4)``, features ``(n, 26, 4, 150)``."""

    transition: np.ndarray
    trapped: np.ndarray
    features: np.ndarray

    @classmethod
    def draw(cls, rngs):
        moves, trapped, features = [], [], []
        places = np.array([(x / 2 - 1, y / 2 - 1) for x in range(5) for y in range(5)] + [(3.0, 3.0)])
        pairs = np.concatenate([np.repeat(places[:, None], 4, axis=1), np.repeat(np.eye(4)[None], 26, axis=0)], axis=-1)
        for rng in rngs:
            while True:  # until some pair enters every goal: else V* = V_unif = 0 there, and no score
                bad = rng.random((25, 4)) < 0.2
                if all(((grid()[..., g] > 0) & ~bad).any() for g in GOALS):
                    break
            rows = np.zeros((26, 4, 26))
            rows[CELLS, :, CELLS], rows[TRAP, :, TRAP] = np.where(bad[..., None], 0.0, grid()), 1.0
            rows[CELLS, :, TRAP] = bad
            angles = pairs @ (2.5 * rng.standard_normal((6, 150))) + rng.uniform(0, 2 * np.pi, 150)
            moves.append(rows), trapped.append(bad), features.append(np.sqrt(2 / 150) * np.cos(angles))  # fmt: skip
        return cls(np.array(moves), np.array(trapped), np.array(features))

    def data(self, kind):
        """``(n, 26, 4)``: all pairs, or all but the trapped ones."""
        mask = np.ones(self.transition.shape[:3], dtype=bool)
        if kind == "poor":
            mask[:, CELLS] = ~self.trapped
        return mask

    def fitted(self, kind, penalty, alpha=None):
        """Action values of the tasks, ``(n, 5, 26, 4)``; penalty None is FB.

        MC-FB in the column of the goal: the reward ``26 e_g`` (``rewards`` times the root of 26) and ``alpha/26``.
        """
        alpha = (ALPHA[penalty] if penalty else 0.0) if alpha is None else alpha
        size, weight = (np.sqrt(26), alpha / 26) if penalty == "measures" else (1.0, alpha)
        data = self.data(kind)
        return cfb.linear_values(self.features, self.transition, GAMMA, RHO, size * REWARDS, data, alpha=weight) / size

    def best(self):
        """``Q*``, ``(n, 5, 26, 4)``, by 200 backups: to 26^.5 10 .9^200 = 4e-8."""
        rows = self.transition.reshape(-1, 104, 26)
        q, paid = np.zeros((len(rows), 5, 26, 4)), (REWARDS @ np.swapaxes(rows, 1, 2)).reshape(-1, 5, 26, 4)
        for _ in range(200):
            q = paid + GAMMA * (q.max(axis=-1) @ np.swapaxes(rows, 1, 2)).reshape(q.shape)
        return q

    def value(self, policy):
        """V of policies ``(n, m, 26, 4)`` for every task, in the mean over cells, ``(n, m, 5)``."""
        chain = np.einsum("nmsa,nsat->nmst", policy, self.transition)
        return np.linalg.solve(np.eye(26) - GAMMA * chain, chain @ REWARDS.T)[..., CELLS, :].mean(axis=-2)

    def score(self, values, best):
        """Mean over goals, ``(n,)``, of the greedy policies of ``values``; V averaged over the cells first."""
        own = np.einsum("ngg->ng", self.value(np.eye(4)[values.argmax(axis=-1)]))
        base = self.value(np.full((len(values), 1, 26, 4), 0.25))[:, 0]
        top = best.max(axis=-1)[..., CELLS].mean(axis=-1)
        return ((own - base) / (top - base)).mean(axis=1)

    def overestimation(self, values, best):
        """Mean of ``Q - Q*`` over the trapped pairs and the goals, ``(n,)``."""
        error = (values - best)[:, :, CELLS].mean(axis=1)
        return np.array([e[bad].mean() for e, bad in zip(error, self.trapped)])

    def without_trap(self):
        """``Q*`` of the grid without a trap, ``(5, 25, 4)``: what a trapped pair would be worth if it moved like the others."""
        problems = [paid_on_arrival(grid(), r[CELLS]) for r in REWARDS]
        return np.array([p.reward + GAMMA * grid() @ solve(p, beta=0.0).value for p in problems])


class Fit(NamedTuple):
    """A small problem for the linear fits: four states, two actions, five features, one task; every other time state 3 is without data."""

    transition: np.ndarray
    rho: np.ndarray
    features: np.ndarray
    data: np.ndarray
    reward: np.ndarray
    alpha: float
    rounds: int

    @classmethod
    def draw(cls, rng):
        mask = rng.random((4, 2)) < 0.7
        mask[:3, 0] |= ~mask[:3].any(axis=1)
        mask[3] &= rng.random() < 0.5
        rows, features = rng.dirichlet(np.ones(4), (4, 2)), rng.standard_normal((4, 2, 5))
        return cls(
            rows,
            rng.dirichlet(np.full(4, 2.0)),
            features,
            mask,
            rng.standard_normal(4),
            float(rng.uniform(0.1, 3)),
            int(rng.integers(1, 9)),
        )

    def weights(self, penalty, behaviour="data", damping=0.5):
        """``phi W``, pair by pair: the sums over samples and over actions written out."""
        phi, table = self.features.reshape(8, 5), np.zeros((5, 4))
        inside = 0.05 * np.eye(5) + sum(np.outer(phi[p], phi[p]) for p in range(8) if self.data.flat[p])
        for _ in range(self.rounds):
            m, push = (phi @ table).reshape(4, 2, 4), np.zeros((5, 4))
            q = m @ (self.rho * self.reward)
            for s, a in itertools.product(range(4), range(2)):
                if self.data[s, a]:
                    ahead = sum(self.transition[s, a, x] * m[x, q[x].argmax()] for x in range(4))
                    push += np.outer(self.features[s, a], self.transition[s, a] / self.rho + GAMMA * ahead)
                if self.data[s].any():
                    own = self.data[s, a] / self.data[s].sum() if behaviour == "data" else 0.5
                    if penalty == "values":
                        direction = (softmax(q[s])[a] - own) * self.reward
                    else:
                        direction = softmax(m[s], axis=0)[a] - own
                    push -= self.alpha * np.outer(self.features[s, a], direction)
            table = (1 - damping) * table + damping * np.linalg.solve(inside, push)
        return (phi @ table).reshape(4, 2, 4)


# C7 ------------------------------------------------------------------------------------------------
class Cue(NamedTuple):
    """K cues, a corridor of n positions after the cue, a junction with K arms; a law of states; a reassignment of arms.

    States: ``cue * (n + 1) + position`` (the last position is the junction), then ``K (n + 1) + cue * K + arm``.
    """

    cues: int
    corridor: int
    discount: float
    rho: np.ndarray
    other: np.ndarray

    @classmethod
    def draw(cls, rng):
        cues, corridor = int(rng.integers(2, 4)), int(rng.integers(1, 4))
        rho = rng.dirichlet(np.full(cues * (corridor + 1 + cues), 2.0))
        shift = int(rng.integers(1, cues))
        return cls(cues, corridor, float(rng.uniform(0.5, 0.99)), rho, (np.arange(cues) + shift) % cues)

    def even(self):
        """With the uniform law of states."""
        return self._replace(rho=np.full(len(self.rho), 1 / len(self.rho)))

    @property
    def states(self):
        """Cue, position (arms come after the junction) and arm (-1 before), ``(3, S)``."""
        before = [(c, p, -1) for c in range(self.cues) for p in range(self.corridor + 1)]
        after = [(c, self.corridor + 1, a) for c in range(self.cues) for a in range(self.cues)]
        return np.array(before + after).T

    def transition(self):
        cue, position, arm = self.states
        rows, index = (
            np.zeros((len(cue), self.cues, len(cue))),
            {key: i for i, key in enumerate(zip(cue, position, arm))},
        )
        for s, (c, p, a) in enumerate(zip(cue, position, arm)):
            for action in range(self.cues):
                after = (c, p, a) if a >= 0 else (c, p + 1, action if p == self.corridor else -1)
                rows[s, action, index[after]] = 1.0
        return rows

    def rewards(self):
        """Reward 1 for the arm of the cue, and for its reassignment, ``(2, S)``."""
        cue, _, arm = self.states
        return np.array([arm == cue, arm == self.other[cue]], dtype=float)

    def labels(self, seen=()):
        """What is observed: the cue at position 0, else the position or the arm; the cue too at the places in ``seen``."""
        cue, position, arm = self.states
        place = np.where(arm >= 0, 2, np.where(position == self.corridor, 1, 0))
        shows = (position == 0) | np.isin(place, [("corridor", "junction", "arm").index(x) for x in seen])
        keys = np.stack([np.where(shows, cue, -1), position, arm], axis=1)
        return np.unique(keys, axis=0, return_inverse=True)[1].ravel()

    def success(self, forward, backward, seen=()):
        """Chance of the rewarded arm, mean over cues and both tasks, of memory in F and the policy, and in B."""
        everything, shown = np.arange(len(self.rho)), self.labels(seen)
        labels, tags = (everything if memory else shown for memory in (forward, backward))
        rows, rewards = self.transition(), self.rewards()
        position, found = self.states[1], []
        for reward in rewards:
            believed = label_means(reward, tags, self.rho)
            model = aggregated_mdp(DiscountedMDP(rows, rows @ believed, self.discount, self.rho), labels, self.rho)
            policy = np.exp(solve(model, beta=0.0).log_policy)[labels]
            chain = np.einsum("sa,sat->st", policy, rows)
            arrived = np.linalg.matrix_power(chain, self.corridor + 1)[position == 0]
            found.append(arrived @ reward)
        return float(np.mean(found))
