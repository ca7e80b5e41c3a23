"""What the claims and figures of brorl share: heavy-token policies, exact batches, the small token simulator."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multinomial

from klsim.distributions import log_normalize
from klsim.estimators import kept_fraction
from klsim.learning import SimulatorConfig, centre, simulate_tokens
from klsim.mass_balance import attribution, draw_attribution, thresholds

ROUNDING = 1e-15  # a change of the correct mass nearer to 0 is no change
STEPS = 200
OPTIMISERS = {
    "AdamW, eps = 1e-8": {},
    "AdamW, eps = 1e-14": {"epsilon": 1e-14},
    "SGD": {"optimiser": "sgd", "lr": 50.0},
}


class HeavyToken(NamedTuple):
    """A heavy correct token, ``rare`` correct ones that share ``rare_mass``, ``wrong`` incorrect ones with the rest."""

    rare: int
    wrong: int
    heavy: float = 0.3
    rare_mass: float = 0.3

    @classmethod
    def draw(cls, rng):
        return cls(int(rng.integers(20, 201)), int(rng.integers(40, 2001)), *rng.uniform(0.2, 0.4, 2))

    @classmethod
    def draw_small(cls, rng):
        """Few enough tokens to enumerate; a rare one alone lowers the correct mass."""
        return cls(int(rng.integers(2, 4)), int(rng.integers(2, 4)), rng.uniform(0.45, 0.6), rng.uniform(0.05, 0.1))

    def legal(self):
        return min(self.heavy, self.rare_mass) > 0 and self.heavy + self.rare_mass < 1

    @property
    def masses(self):
        """Of the heavy token, the rare ones, the incorrect ones."""
        return np.array([self.heavy, self.rare_mass, 1 - self.heavy - self.rare_mass])

    @property
    def log_policy(self):
        counts = [1, self.rare, self.wrong]
        return np.log(np.repeat(self.masses / counts, counts))

    @property
    def correct(self):
        return np.arange(1 + self.rare + self.wrong) <= self.rare

    def changes_of_draws(self, n, *, centred=False):
        """``(probability, dQ+/lr)`` of every composition of n draws: the draw surrogate, rewards +1 and -1."""
        heavy, rare = (x.ravel() for x in np.mgrid[: n + 1, : n + 1])
        counts = np.stack([heavy, rare, n - heavy - rare], axis=1)[heavy + rare <= n]
        reward = np.array([1.0, 1.0, -1.0])
        advantage = centre(reward, counts) if centred else reward
        value = draw_attribution(self.log_policy, self.correct)[[0, 1, -1]]
        return multinomial.pmf(counts, n, self.masses), np.sum(counts * advantage * value, axis=1) / n

    def losing_draws(self, n, *, centred=False):
        """``P(dQ+ < 0)`` of n draws, a token counted at every draw; exact."""
        chance, change = self.changes_of_draws(n, centred=centred)
        return float(chance @ (change < -ROUNDING))

    def losing_sets(self, largest):
        """``P(dQ+ < 0)`` of the sets that 1, …, ``largest`` draws give; exact, rewards +1 and -1.

        A chain over (heavy token drawn, different rare tokens drawn, different incorrect tokens drawn).
        """
        drawn = [np.arange(min(largest, k) + 1) for k in (1, self.rare, self.wrong)]
        h, a, b = np.meshgrid(*drawn, indexing="ij")
        heavy, rare, wrong = self.masses
        new = heavy * (h == 0), rare * (1 - a / self.rare), wrong * (1 - b / self.wrong)
        weights = attribution(self.log_policy, self.correct)[[0, 1, -1]]
        losing = h * weights[0] + a * weights[1] + b * weights[2] < -ROUNDING
        state, risk = np.zeros(h.shape), []
        state[0, 0, 0] = 1.0
        for _ in range(largest):
            after = state * (1 - sum(new))
            for axis, chance in enumerate(new):
                moved = np.moveaxis(state * chance, axis, 0)[:-1]
                np.moveaxis(after, axis, 0)[1:] += moved
            state = after
            risk.append(state[losing].sum())
        return np.array(risk)


SMALL = HeavyToken(20, 40)
LARGE = HeavyToken(100, 1000)
BROAD = HeavyToken(200, 4000, heavy=0.4, rare_mass=0.2)


def mass(pi, where):
    """``sum pi`` over the tokens ``where``, with a trailing axis."""
    return np.sum(np.where(where, pi, 0.0), axis=-1, keepdims=True)


def directional(logits, correct, step, h=1e-5):
    """The derivative of ``Q+`` at ``z`` along ``step``, by central differences."""
    up, down = (mass(np.exp(log_normalize(logits + s * step)), correct)[..., 0] for s in (h, -h))
    return (up - down) / (2 * h)


def above_threshold(log_pi, correct, *, threshold=1):
    """``pi_i`` minus its threshold, and ``w_i`` for rewards ±1 made of it."""
    pi, (low_correct, low_wrong) = np.exp(log_pi), thresholds(log_pi, correct)
    margin = pi - threshold * np.where(correct, low_correct[..., None], low_wrong[..., None])
    return margin, pi * np.where(correct, mass(pi, ~correct), mass(pi, correct)) * margin


def every_batch(pi, n):
    """``(probability, counts)`` of all ``A**n`` sequences of n draws; ``(A**n,)`` and ``(A**n, A)``."""
    draws = np.array(list(itertools.product(range(pi.size), repeat=int(n))))
    return pi[draws].prod(axis=1), (draws[..., None] == np.arange(pi.size)).sum(axis=1)


def final_run(rng, rollouts, **settings):
    """``(change of Q+, share of improved correct tokens, worst drop)`` of one small run of the simulator."""
    config = SimulatorConfig(rollouts=rollouts, seed=int(rng.integers(2**31)), **settings)
    start = np.exp(log_normalize(config.initial_logits()))[: config.correct].sum()
    run = simulate_tokens(config, STEPS)
    return run.correct_mass[-1] - start, run.improved[-1], run.worst_drop[-1]


def fitted_beta(ratio, *, kept=0.41, n=16):
    """``(a, b)`` of the Beta law of pass rates with ``a = ratio b`` of which ``n`` rollouts keep the share ``kept``."""
    b = brentq(lambda x: float(kept_fraction(ratio * x, x, n)) - kept, 1e-4, 50.0)
    return ratio * b, b
