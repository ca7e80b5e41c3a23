"""What the claims and figures of robust-fdiv share: worst laws, random linear MDPs with data, the paper's two experiments."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from klsim.divergences import f_divergence
from klsim.planning import evaluate, pessimistic_values, worst_case_regression
from klsim.problems import LinearMDP, Transitions, sample_transitions

DIVERGENCES = ("tv", "kl", "chi2")


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def divergence(mu, mu0, name):
    return float(f_divergence(log(mu), log(mu0), name))


class Nominal(NamedTuple):
    """A nominal law over states and a value of every state."""

    mu0: np.ndarray
    value: np.ndarray

    @classmethod
    def covering(cls, rng, states=6):
        """Dirichlet(1) and U(0, 3)."""
        return cls(rng.dirichlet(np.ones(states)), rng.uniform(0, 3, states))

    @classmethod
    def draw(cls, rng, states=6):
        """In a third of the draws the worst state has no mass."""
        mu0, value = cls.covering(rng, states)
        if rng.random() < 1 / 3:
            mu0[value.argmin()] = 0.0
        return cls(mu0 / mu0.sum(), value)

    @property
    def mean(self):
        return float(self.mu0 @ self.value)

    @property
    def variance(self):
        return float(self.mu0 @ (self.value - self.mean) ** 2)

    @property
    def spread(self):
        """Between the largest and the smallest value."""
        return float(np.ptp(self.value))


# the adversary's law, from the primal problem ------------------------------------------------------
def moved_to_the_worst(mu0, value, amount):
    """``mu0`` with the mass ``amount`` of every state moved to the worst one."""
    mu = mu0 - amount
    mu[value.argmin()] += amount.sum()
    return mu


def chi2_law(mu0, value, lam):
    """Stationary on a set of the lowest values, ``mu = mu0 (1 + (nu - V) / (2 lam))``; the best of the feasible sets."""
    alive = np.flatnonzero(mu0)
    order, best, cost = alive[np.argsort(value[alive])], mu0, np.inf
    for size in range(1, len(order) + 1):
        kept = order[:size]
        p, v = mu0[kept], value[kept]
        nu = (2 * lam * (1 - p.sum()) + p @ v) / p.sum()
        mu = np.zeros_like(mu0)
        mu[kept] = p * (1 + (nu - v) / (2 * lam))
        paid = mu @ value + lam * np.sum((mu - mu0)[alive] ** 2 / mu0[alive])
        if mu.min() >= 0 and paid < cost:
            best, cost = mu, paid
    return best


def worst_law(mu0, value, lam, name):
    """``argmin_mu E_mu V + lam D(mu‖mu0)``."""
    if name == "tv":
        return moved_to_the_worst(mu0, value, np.where(value > value.min() + lam, mu0, 0.0))
    if name == "chi2":
        return chi2_law(mu0, value, lam)
    tilted = mu0 * np.exp(-(value - value[mu0 > 0].min()) / lam)
    return tilted / tilted.sum()


# random linear MDPs --------------------------------------------------------------------------------
def random_linear(rng, states, actions, latent, horizon, *, largest=1.0):
    """phi and mu Dirichlet(1), theta U(0, ``largest``), uniform start."""
    return LinearMDP(
        rng.dirichlet(np.ones(latent), (states, actions)),
        rng.dirichlet(np.ones(states), (horizon, latent)),
        rng.uniform(0, largest, (horizon, latent)),
        np.full(states, 1 / states),
    )


def one_uncovered(rng, states, actions, latent, horizon):
    """The last action alone has the last factor, which pays most."""
    features = np.zeros((states, actions, latent))
    features[:, :-1, :-1] = rng.dirichlet(np.ones(latent - 1), (states, actions - 1))
    features[:, -1, -1] = 1.0
    theta = 0.5 * rng.uniform(0, 1, (horizon, latent))
    theta[:, -1] = 1.0
    return LinearMDP(features, rng.dirichlet(np.ones(states), (horizon, latent)), theta, np.full(states, 1 / states))


def data_of(problem, count, rng, *, all_actions=True):
    """Uniform independent pairs at every step, with or without the last action."""
    _, states, actions = problem.shape
    weights = np.ones((states, actions))
    if not all_actions:
        weights[:, -1] = 0.0
    return sample_transitions(problem.tabular(), int(count), rng, log_pairs=log(weights.ravel() / weights.sum()))


class Offline(NamedTuple):
    """A linear MDP and data of it."""

    problem: LinearMDP
    data: Transitions

    @classmethod
    def draw(cls, rng):
        problem = random_linear(rng, 4, 3, 3, 3)
        return cls(problem, data_of(problem, 60, rng))

    @classmethod
    def generous(cls, rng):
        """Rewards up to 2, so that the cap at the remaining steps binds; few data, so that the clip at 0 and the KL floor do."""
        problem = random_linear(rng, 4, 3, 3, 3, largest=2.0)
        return cls(problem, data_of(problem, rng.integers(3, 21), rng))


def on_policy(table, policy):
    """Entries ``(S,)`` of a table ``(S, A)`` at the actions taken."""
    return np.take_along_axis(table, policy[:, None], axis=1)[:, 0]


# the simulated linear MDP --------------------------------------------------------------------------
ACTIONS = np.array(list(itertools.product((-1, 1), repeat=4)))


def simulated(q=0.0):
    """Five states (x4 fails, x5 pays), 16 actions; ``q``: at step 0 the good factor leads to x4 with probability q."""
    delta, xi = 0.3, 0.2
    b = xi / 4 * ACTIONS.sum(axis=1)
    features = np.zeros((5, 16, 4))
    for i in range(3):
        features[i, :, i] = 1 - delta - b
        features[i, :, 3] = delta + b
    features[3, :, 2] = 1.0
    features[4, :, 3] = 1.0
    theta = np.zeros((3, 4))
    theta[1:, 3] = 1.0
    x = np.eye(5)
    almost = {1: 0.999 * x[1] + 0.001 * x[3], 2: 0.999 * x[2] + 0.001 * x[3]}
    first = [almost[1], x[2], x[3], x[4]]
    second = [almost[2], almost[2], x[3], x[4]]
    if q:
        first[0], first[3] = x[1], q * x[3] + (1 - q) * x[4]
    return LinearMDP(features, np.array([first, second, second]), theta, x[0])


METHODS = {
    "baseline": {"divergence": "none"},
    "TV": {"divergence": "tv"},
    "KL, uncentred": {"divergence": "kl", "centred": False},
    "KL, centred": {"divergence": "kl"},
    "chi²": {"divergence": "chi2"},
}


def trained_policies(rng, lam, methods=tuple(METHODS)):
    """100 episodes of uniform actions on the nominal problem; the policy of every method, as the released code has it."""
    problem = simulated()
    data = sample_transitions(problem.tabular(), 100, rng)
    options = {"beta": 1.0, "reg": 0.1, "penalty": "l2", "minimum": "observed", "lower_clip": False}
    return {name: pessimistic_values(problem, data, lam, **options, **METHODS[name]).policy for name in methods}


def returns(policy, q):
    """Exact return of a deterministic policy ``(H, S)`` on the shifted problem."""
    return float(evaluate(simulated(q).tabular(), log(np.eye(16)[policy])).reward)


# evaluations of a dual objective -------------------------------------------------------------------
class Backup(NamedTuple):
    """One backup: features ``(K, d)`` and next values ``(K,)``."""

    rows: np.ndarray
    value: np.ndarray

    @classmethod
    def draw(cls, rng, latent=None, count=1000):
        latent = int(rng.integers(10, 31)) if latent is None else latent
        return cls(rng.dirichlet(np.ones(latent), count), rng.uniform(0, 3, count))

    @property
    def inverse(self):
        return np.linalg.inv(self.rows.T @ self.rows + 0.1 * np.eye(self.rows.shape[1]))


class Counted(np.ndarray):
    """Values that count the columns which they are regressed in: each is one evaluation of every factor's dual."""

    regressed: list

    def __array_finalize__(self, other):
        self.regressed = getattr(other, "regressed", [])

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = [np.asarray(x) if isinstance(x, Counted) else x for x in inputs]
        if ufunc is np.matmul:
            self.regressed.append(plain[1].size // len(plain[1]))
        out = getattr(ufunc, method)(*plain, **options)
        if np.ndim(out):
            out = out.view(Counted)
            out.regressed = self.regressed
        return out


def regularised_evaluations(backup, name):
    """Evaluations of dual objectives inside `worst_case_regression`, all factors."""
    values = backup.value.view(Counted)
    lowest = float(backup.value.min())
    worst_case_regression(backup.rows, backup.inverse, values, 1.0, name, lowest=lowest, highest=3.0)
    return backup.rows.shape[1] * sum(values.regressed)


def constrained_evaluations(backup, rho=0.2):
    """Evaluations of ``z_i(a) - rho (a - min V)`` that Nelder-Mead needs, all factors."""
    used, value = 0, backup.value
    for row in backup.inverse @ backup.rows.T:
        found = minimize(
            lambda a, row=row: -(row @ np.minimum(value, a[0]) - rho * (a[0] - value.min())),
            [value.mean()],
            method="Nelder-Mead",
        )
        used += found.nfev
    return used


# the American put ----------------------------------------------------------------------------------
STRIKE, UP, DOWN, STEPS, PATHS = 100.0, 1.02, 0.98, 20, 100
ANCHORS = 80 + 100 * np.arange(30) / 30
STARTS = 95 + (np.arange(40) + 0.5) / 4  # the middles of 40 cells of [95, 105]
PUT_METHODS = {
    "baseline": ("none", 1.0, True),
    "TV, lam = 2": ("tv", 2.0, True),
    "KL centred, lam = 1": ("kl", 1.0, True),
    "KL uncentred, lam = 1": ("kl", 1.0, False),
}


def hat_features(price):
    return np.maximum(0.0, 1 - np.abs(np.asarray(price)[..., None] - ANCHORS) / (100 / 30))


def train_put(rng, name, lam, centred):
    """Weights and inverse Gram matrices a step, from never-exercised paths of one start price."""
    ups = rng.random((PATHS, STEPS)) < 0.5
    moves = np.concatenate([np.ones((PATHS, 1)), np.where(ups, UP, DOWN)], axis=1)
    paths = rng.uniform(95, 105) * np.cumprod(moves, axis=1)
    weights, inverses = np.zeros((STEPS, 30)), np.zeros((STEPS, 30, 30))
    next_value = np.zeros(PATHS)
    for h in range(STEPS - 1, -1, -1):
        rows = hat_features(paths[:, h])
        inverses[h] = np.linalg.inv(rows.T @ rows + np.eye(30))
        if h < STEPS - 1:
            limits = {"lowest": float(next_value.min()), "highest": float(STEPS)}
            weights[h] = worst_case_regression(rows, inverses[h], next_value, lam, name, centred=centred, **limits)
        held = continuation(paths[:, h], h, weights, inverses)
        next_value = np.maximum(np.maximum(STRIKE - paths[:, h], 0.0), held)
    return weights, inverses


def continuation(price, h, weights, inverses, beta=0.1):
    rows = hat_features(price)
    return np.minimum(rows @ weights[h] - beta * np.sqrt(rows**2 @ np.diag(inverses[h])), STEPS - h)


def put_returns(rng, method, p_ups):
    """Mean over start prices of the exact return on the binomial lattice, for every test probability of an up move.

    Exercise when it pays more than the continuation estimate.
    """
    weights, inverses = train_put(rng, *PUT_METHODS[method])
    p_up = np.asarray(p_ups)[:, None, None]
    value = np.zeros((len(p_ups), len(STARTS), STEPS + 1))
    for h in range(STEPS - 1, -1, -1):
        price = STARTS[:, None] * UP ** np.arange(h + 1) * DOWN ** (h - np.arange(h + 1))
        pays = np.maximum(STRIKE - price, 0.0)
        held = p_up * value[..., 1:] + (1 - p_up) * value[..., :-1]
        value = np.where(pays > continuation(price, h, weights, inverses), pays, held)
    return value[..., 0].mean(axis=1)


def floor_of(horizon, lam):
    """The smallest value of a mean of ``e^{-V/lam}`` for V in ``[0, horizon]``."""
    return math.exp(-horizon / lam)
