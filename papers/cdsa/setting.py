"""The point mass of C4 and C5, its data and base policies, and the drawn instances of the other claims."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    def draw(cls, rngs, recipe="way-point", points="data"):
        log = recorded(rngs, recipe)
        pairs, nexts = (np.array([rng.choice(log.states.shape[1], KEPT, replace=False) for rng in rngs]) for _ in range(2))
        take = lambda values, at: np.take_along_axis(values, at[..., None], axis=1)  # noqa: E731
        kept = take(log.after, nexts)
        if points == "uniform":
            kept = np.array([rng.uniform([-1.3, -1], [1.3, 1], (KEPT, 2)) for rng in rngs])
        forward = displacement_map(log.actions, log.after - log.states)
        return cls(
            log, kernel_density(take(log.states, pairs), BANDWIDTH), take(log.actions, pairs), np.linalg.pinv(forward), forward,
            kernel_density(kept, SIGMA), START + SPREAD * normals(rngs, EPISODES, 2), NOISE * normals(rngs, STEPS, EPISODES, 2),
            np.array([rng.random((STEPS, EPISODES)) for rng in rngs]),
        )  # fmt: skip

    def base(self, name, state):
        return towards(state, GOAL) if name == "straight" else self.cloning.average(self.cloned, state)

    def play(self, base, eta, score=None):
        """Episodes of a base policy, corrected with strength eta; ``score(x)`` instead of that of the kernel density."""
        state, total, inside, path = self.start, 0.0, 0.0, [self.start]
        for step in range(STEPS):
            action = np.clip(self.base(base, state), -LIMIT, LIMIT)
            if eta:
                aim = state + action @ self.forward
                found = (score or self.density.score)(aim)
                action = corrected_action(state, aim, found, self.inverse, sigma=SIGMA, eta=eta, limit=LIMIT)
            state = state + action + self.noise[:, step]
            hazard = np.linalg.norm(state, axis=-1) < RADIUS
            total = total - 0.1 * np.linalg.norm(state - GOAL, axis=-1) - COST * (hazard & (self.luck[:, step] < CHANCE))
            inside = inside + hazard / STEPS
            path.append(state)
        return Played(total, inside, np.stack(path, axis=2))


class Played(NamedTuple):
    """Returns and shares of the time in the hazard ``(seeds, episodes)``, and states ``(seeds, episodes, 31, 2)``."""

    returns: np.ndarray
    inside: np.ndarray
    path: np.ndarray

    @property
    def mean(self):
        return self.returns.mean(axis=1)

    @property
    def worst_tenth(self):
        """CVaR10: the mean of the lowest tenth of the episode returns, of every seed."""
        return np.sort(self.returns, axis=1)[:, : EPISODES // 10].mean(axis=1)

    @property
    def in_hazard(self):
        return self.inside.mean(axis=1)
