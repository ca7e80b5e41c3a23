"""The point mass of C4 and C5, its data and base policies, and the drawn instances of the other claims."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import root

from klsim.learning.action_correction import corrected_action, displacement_map
from klsim.learning.score_networks import GaussianMixture, kernel_density

START, GOAL, SPREAD = np.array([-1.0, 0.0]), np.array([1.0, 0.0]), 0.05
LIMIT, PACE, NOISE, STEPS = 0.18, 0.12, 0.01, 30
RADIUS, COST, CHANCE = 0.35, 10.0, 0.1
EPISODES, RECORDED, KEPT = 200, 60, 600
SIGMA, BANDWIDTH = 0.15, 0.35


def towards(state, target, pace=PACE):
    """The action that goes straight to the target, at most ``pace`` far."""
    way = target - state
    distance = np.linalg.norm(way, axis=-1, keepdims=True)
    return way * np.minimum(pace / np.maximum(distance, 1e-12), 1.0)


class Log(NamedTuple):
    """Recorded transitions of every seed, ``(seeds, 1800, 2)`` each."""

    states: np.ndarray
    actions: np.ndarray
    after: np.ndarray


def normals(rngs, *shape):
    return np.array([rng.standard_normal(shape) for rng in rngs])


def recorded(rngs, recipe="way-point"):
    """60 trajectories a seed around the hazard, above and below in turn; recipes: way-point, linger (8 steps there), curved."""
    side = np.where(np.arange(RECORDED) % 2 == 0, 0.7, -0.7)
    way_point = np.stack([np.zeros(RECORDED), side], axis=-1)
    state = START + SPREAD * normals(rngs, RECORDED, 2)
    waited, columns = np.zeros(state.shape[:-1], dtype=int), []
    for _ in range(STEPS):
        waited += (waited > 0) | (np.linalg.norm(state - way_point, axis=-1) < PACE)
        past = waited[..., None] >= (9 if recipe == "linger" else 1)
        target = np.where(past, GOAL, way_point)
        if recipe == "curved":  # the next point of half an ellipse
            angle = np.minimum(np.arccos(np.clip(-state[..., 0], -1, 1)) + 0.3, np.pi)
            target = np.stack([-np.cos(angle), side * np.sin(angle)], axis=-1)
        action = np.clip(towards(state, target) + 0.02 * normals(rngs, RECORDED, 2), -LIMIT, LIMIT)
        after = state + action + NOISE * normals(rngs, RECORDED, 2)
        columns.append((state, action, after))
        state = after
    return Log(*(np.stack(c, axis=2).reshape(len(rngs), -1, 2) for c in zip(*columns)))


class World(NamedTuple):
    """Data of every seed, what is fitted to them, and the noise of the episodes (the same for every policy)."""

    log: Log
    cloning: GaussianMixture
    cloned: np.ndarray
    inverse: np.ndarray
    forward: np.ndarray
    density: GaussianMixture
    start: np.ndarray
    noise: np.ndarray
    luck: np.ndarray

    @classmethod
    def draw(cls, rngs, recipe="way-point", points="data", episodes=EPISODES):
        log = recorded(rngs, recipe)
        pairs, nexts = (
            np.array([rng.choice(log.states.shape[1], KEPT, replace=False) for rng in rngs]) for _ in range(2)
        )
        take = lambda values, at: np.take_along_axis(values, at[..., None], axis=1)  # noqa: E731
        kept = take(log.after, nexts)
        if points == "uniform":
            kept = np.array([rng.uniform([-1.3, -1], [1.3, 1], (KEPT, 2)) for rng in rngs])
        forward = displacement_map(log.actions, log.after - log.states)
        return cls(
            log, kernel_density(take(log.states, pairs), BANDWIDTH), take(log.actions, pairs), np.linalg.pinv(forward), forward,
            kernel_density(kept, SIGMA), START + SPREAD * normals(rngs, episodes, 2), NOISE * normals(rngs, STEPS, episodes, 2),
            np.array([rng.random((STEPS, episodes)) for rng in rngs]),
        )  # fmt: skip

    def base(self, name, state):
        return towards(state, GOAL) if name == "straight" else self.cloning.average(self.cloned, state)

    def play(self, base, eta, score=None):
        """Episodes of a base policy, corrected with strength eta; ``score(x)`` instead of that of the kernel density."""
        state, travel, hits, inside, path = self.start, 0.0, 0.0, 0.0, [self.start]
        for step in range(STEPS):
            action = np.clip(self.base(base, state), -LIMIT, LIMIT)
            if eta:
                aim = state + action @ self.forward
                found = (score or self.density.score)(aim)
                action = corrected_action(state, aim, found, self.inverse, sigma=SIGMA, eta=eta, limit=LIMIT)
            state = state + action + self.noise[:, step]
            hazard = np.linalg.norm(state, axis=-1) < RADIUS
            travel = travel - 0.1 * np.linalg.norm(state - GOAL, axis=-1)
            hits = hits + (hazard & (self.luck[:, step] < CHANCE))
            inside = inside + hazard / STEPS
            path.append(state)
        return Played(travel - COST * hits, travel - COST * CHANCE * STEPS * inside, inside, np.stack(path, axis=2))


class Played(NamedTuple):
    """Returns, the same with the expected cost for the drawn one, shares of the time in the hazard, all ``(seeds, episodes)``, and states
    ``(seeds, episodes, 31, 2)``."""

    returns: np.ndarray
    expected: np.ndarray
    inside: np.ndarray
    path: np.ndarray

    @property
    def mean(self):
        return self.returns.mean(axis=1)

    @property
    def worst_tenth(self):
        """CVaR10: the mean of the lowest tenth of the episode returns, of every seed."""
        return np.sort(self.returns, axis=1)[:, : self.returns.shape[1] // 10].mean(axis=1)

    @property
    def in_hazard(self):
        return self.inside.mean(axis=1)


# Instances of the other claims -------------------------------------------------------------------------
def log_mix(x, means, weights, variance):
    """log of a mixture of Gaussians of one variance, written out; ``x (..., n)`` may be complex, ``means (k, n)``."""
    terms = np.log(weights) - np.sum((x[..., None, :] - means) ** 2, axis=-1) / (2 * variance)
    top = terms.real.max(axis=-1, keepdims=True)
    total = np.log(np.exp(terms - top).sum(axis=-1)) + top[..., 0]
    return total - means.shape[-1] / 2 * np.log(2 * np.pi * variance)


def slope(function, x, h=1e-30):
    """Gradient by complex steps: exact to rounding."""
    return np.stack([function(x + 1j * h * e).imag / h for e in np.eye(x.shape[-1])], axis=-1)


class Noised(NamedTuple):
    """A mixture on the line, a noise level, and points to look at."""

    means: np.ndarray
    weights: np.ndarray
    std: float
    sigma: float
    x: np.ndarray

    @classmethod
    def draw(cls, rng, most=4, spread=1.5, least=0.1):
        k = int(rng.integers(1, most + 1))
        levels = np.exp(rng.uniform(np.log(least), np.log([1.0, 1.5])))
        means = np.clip(spread * rng.standard_normal((k, 1)), -2 * spread, 2 * spread)
        return cls(means, rng.dirichlet(np.ones(k)), *map(float, levels), rng.uniform(-3, 3, (8, 1)))

    @property
    def mixture(self):
        return GaussianMixture(self.means, np.log(self.weights), self.std)

    def log_density(self, noise=1.0):
        """The log-density of the noised (or clean) data, written out."""
        return lambda x: log_mix(x, self.means, self.weights, self.std**2 + (noise * self.sigma) ** 2)

    def clean_mean(self):
        """E[x | x~] by quadrature."""
        places, reach = np.concatenate([self.means, self.x]), 9 * self.std
        t = np.linspace(places.min() - reach, places.max() + reach, 3001)
        log_joint = self.log_density(0)(t[:, None]) - (self.x - t) ** 2 / (2 * self.sigma**2)
        weight = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        return (weight @ t / weight.sum(axis=1))[:, None]


#: the mixture of the digest
EXAMPLE = Noised(np.array([[-1.0], [0.4], [2.0]]), np.array([0.3, 0.5, 0.2]), 0.3, 0.5, np.linspace(-2, 3, 26)[:, None])
NODES = np.linspace(-8, 8, 97)


class Candidate(NamedTuple):
    """A mixture and a function g that might be its score: ``v tanh(w x + b)``."""

    noised: Noised
    w: np.ndarray
    b: np.ndarray
    v: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(Noised.draw(rng, most=2, spread=0.6, least=0.4), *rng.standard_normal((3, 4)))

    def g(self, x):
        return np.tanh(x * self.w + self.b) @ self.v[:, None]

    def nodes(self):
        """Clean points, noise and probabilities of a product rule, ``(N, 1)``, ``(N, 1)`` and ``(N,)``."""
        p = np.exp(-(NODES**2) / 2) * (NODES[1] - NODES[0]) / np.sqrt(2 * np.pi)
        t, e = np.meshgrid(NODES, NODES, indexing="ij")
        x = np.concatenate([(m + self.noised.std * t).ravel() for m in self.noised.means])
        law = np.concatenate([w * np.outer(p, p).ravel() for w in self.noised.weights])
        return x[:, None], np.tile(e.ravel(), len(self.noised.means))[:, None], law


class Cloud(NamedTuple):
    """Forty points of a data set, a noise level, points to look at, directions that actions reach, and a strength."""

    points: np.ndarray
    sigma: float
    x: np.ndarray
    jacobian: np.ndarray
    eta: float

    @classmethod
    def draw(cls, rng, most=4.0):
        n = int(rng.integers(1, 4))
        m = int(rng.integers(1, n + 1))
        sigma = float(np.exp(rng.uniform(np.log(0.1), np.log(2.0))))
        jacobian = rng.standard_normal((n, m))
        return cls(
            rng.standard_normal((40, n)), sigma, 2 * rng.standard_normal((6, n)), jacobian, float(rng.uniform(0, most))
        )

    def log_density(self, x):
        return log_mix(x, self.points, np.full(len(self.points), 1 / len(self.points)), self.sigma**2)


#: two points nearer than their distance to a third by four orders: squares of distances may not be expanded there
NARROW = Cloud(np.array([[0.0], [1e-4], [1.0]]), 1e-4, np.array([[3e-5], [8e-5], [2e-4]]), np.eye(1), 1.0)


class System(NamedTuple):
    """``f(a) = c + B a + .1 tanh(B a)`` at a state, an action, data, and a change of the action's units."""

    c: np.ndarray
    b: np.ndarray
    a: np.ndarray
    points: np.ndarray
    units: np.ndarray

    @classmethod
    def draw(cls, rng, n=3, m=2):
        """``c = A s``; drawn again while an action direction moves the state by less than a tenth."""
        while True:
            one = cls(rng.standard_normal((n, n)) @ rng.standard_normal(n), rng.standard_normal((n, m)), rng.standard_normal(m),
                      rng.standard_normal((30, n)), rng.standard_normal((m, m)))  # fmt: skip
            if one.regular:
                return one

    @property
    def regular(self):
        return min(np.linalg.svd(matrix, compute_uv=False).min() for matrix in (self.b, self.units)) > 0.1

    @classmethod
    def with_enough_actions(cls, rng):
        n = int(rng.integers(2, 4))
        return cls.draw(rng, n, int(rng.integers(n, 5)))

    def f(self, a):
        moved = a @ self.b.T
        return self.c + moved + 0.1 * np.tanh(moved)

    def log_density(self, x):
        return log_mix(x, self.points, np.full(30, 1 / 30), 0.64)

    @property
    def jacobian(self):
        return (1 + 0.1 * (1 - np.tanh(self.b @ self.a) ** 2))[:, None] * self.b

    @property
    def score(self):
        """The library's score of the data, noised by .8, at the predicted state."""
        return kernel_density(self.points, 0.8).score(self.f(self.a)[None])[0]

    def reachable(self, g):
        """The part of g that actions reach, by QR."""
        q, _ = np.linalg.qr(self.jacobian)
        return q @ (q.T @ g)


class Fitted(NamedTuple):
    """Transitions in the plane to fit dynamics to, states with proposed actions, data points, and the correction's settings."""

    actions: np.ndarray
    moved: np.ndarray
    state: np.ndarray
    proposed: np.ndarray
    points: np.ndarray
    sigma: float
    eta: float
    limit: float

    @classmethod
    def draw(cls, rng):
        actions, state, proposed, points = (rng.standard_normal((k, 2)) for k in (25, 5, 5, 20))
        w = np.eye(2) + 0.4 * rng.uniform(-1, 1, (2, 2))
        settings = np.exp(rng.uniform(np.log([0.2, 0.1, 0.3]), np.log([1.5, 3.0, 3.0])))
        return cls(
            actions, actions @ w + 0.1 * rng.standard_normal((25, 2)), state, proposed, points, *map(float, settings)
        )


class Improvement(NamedTuple):
    """Q = -(a - a0) H (a - a0)/2 around the base action, and a density of actions."""

    hessian: np.ndarray
    a0: np.ndarray
    means: np.ndarray
    weights: np.ndarray

    @classmethod
    def draw(cls, rng, shape="any"):
        one = cls(
            np.array([[2, 0.3], [0.3, 0.7]]),
            0.3 * rng.standard_normal(2),
            rng.standard_normal((4, 2)),
            rng.dirichlet(np.ones(4)),
        )
        score = one.score
        axes = np.linalg.qr(np.stack([score, rng.standard_normal(2)], axis=-1))[0]
        values = np.exp(rng.uniform(np.log(0.5), np.log(3), 2))
        angle = rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        made = {
            "any": turn @ np.diag(values) @ turn.T,
            "isotropic": values[0] * np.eye(2),
            "eigenvector": axes @ np.diag(values) @ axes.T,
        }
        return one if shape == "any" and rng.random() < 0.5 else one._replace(hessian=made[shape])

    @property
    def density(self):
        return GaussianMixture(self.means, np.log(self.weights), 0.8)

    @property
    def score(self):
        """The library's, at the base action."""
        return self.density.score(self.a0[None])[0]

    def best(self, lam):
        """argmax Q + lam log p: the zero of the gradient next to a0."""
        log_p = lambda a: log_mix(a, self.means, self.weights, 0.64)  # noqa: E731
        return root(lambda a: self.hessian @ (self.a0 - a) + lam * slope(log_p, a), self.a0, tol=1e-13).x


class Pair(NamedTuple):
    """Two modes at +-1 of width tau, noise as a share of what merges them, below 1 and above, and where to stand."""

    tau: float
    below: float
    above: float
    u: float

    @classmethod
    def draw(cls, rng):
        return cls(
            float(rng.uniform(0.05, 0.9)),
            float(rng.uniform(0.05, 0.97)),
            float(rng.uniform(1.03, 2.0)),
            float(rng.random()),
        )

    @property
    def mixture(self):
        return GaussianMixture([[-1.0], [1.0]], np.log([0.5, 0.5]), self.tau)

    def log_density(self, a, sigma=0.0):
        """Written out."""
        v = self.tau**2 + sigma**2
        return np.logaddexp(-((a - 1) ** 2) / (2 * v), -((a + 1) ** 2) / (2 * v)) - np.log(2 * np.sqrt(2 * np.pi * v))
