"""The rounding that a solution reports, recomputed from what its parts say it is."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.planning import solve
from klsim.planning.discounted import SoftBellman, Value
from klsim.problems import DiscountedMDP, LatentMDP, TabularMDP, TokenTree
from klsim.problems.restless_bandit import CoupledRestlessBandit

UNIT = 2.0**-53


def test_of_a_tree():
    """``4 eps V H (max |r| + beta)``."""
    found = solve(TokenTree(3, 2, np.array([-5.0, *np.linspace(0, 2, 8)])), beta=0.5)
    assert found.error_bound == pytest.approx(8 * UNIT * 3 * 2 * 5.5, rel=1e-14, abs=0)


def test_of_finite_horizons():
    """``u [(2 S + 4) half spread + 12 size + min((A + 8) beta + 4 E|x|, 2 (A + 12) size)]`` a step."""
    rng = np.random.default_rng(0)
    problem = TabularMDP(rng.dirichlet(np.ones(3), (2, 3, 4)), rng.normal(size=(2, 3, 4)), np.ones(3) / 3, horizon=2)
    for beta in (0.0, 1e-3, 0.5, 1e3):
        found = solve(problem, beta=beta)
        total = 0.0
        for t in (1, 0):
            after, q, value = found.value[t + 1], found.q_value[t], found.value[t]
            size = max(np.abs(x).max() for x in (after, q, value))
            plain = (2 * 3 + 4) * np.ptp(after) / 2 + 12 * size
            if beta > 0:
                x = q.max(axis=1, keepdims=True) - q + beta * np.log(4)
                mean = (np.exp(found.log_policy[t]) * x).sum(axis=1).max()
                plain += min((4 + 8) * beta + 4 * mean, 2 * (4 + 12) * size)
            total += UNIT * plain
        assert found.error_bound == pytest.approx(total, rel=1e-9, abs=0)


@pytest.mark.parametrize("beta", [0.0, 1e-6, 0.3, 1e6])
def test_of_a_residual(beta):
    """``u [(2 K + 8) |v| + 6 (|r| + |(1 - gamma) c|)]``, and of the log-sum-exp; in twice the precision ``(K u)^2``."""
    rng = np.random.default_rng(1)
    problem = DiscountedMDP(rng.dirichlet(np.ones(3), (3, 2)), rng.normal(size=(3, 2)), 0.9, np.ones(3) / 3)
    ref = np.full((3, 2), -np.log(2))
    bellman = SoftBellman(problem, problem.reward, ref, beta)
    value = Value(7.0, np.array([0.5, -2.0, 1.0]), np.zeros(3))
    advantage = bellman.advantages(value, False)
    largest, rest = np.abs(problem.reward).max(), abs((1 - 0.9) * 7.0)
    plain = UNIT * ((2 * 3 + 8) * 2.0 + 6 * (largest + rest))
    residual, log_policy = advantage.max(axis=1), None
    if beta > 0:
        residual = beta * np.logaddexp.reduce(ref + advantage / beta, axis=1)
        log_policy = ref + (advantage - residual[:, None]) / beta
    top = np.abs(residual).max()
    twice = 4 * UNIT * top + 4 * ((3 + 8) * UNIT) ** 2 * (2.0 + largest + rest)
    soft = 0.0
    if log_policy is not None:
        x = np.abs(residual[:, None] - advantage) - beta * ref
        mean = (np.exp(log_policy) * x).sum(axis=1).max() + 2 * top
        soft = UNIT * (2 * top + min((2 + 8) * beta + 4 * mean, (2 + 12) * 2 * np.abs(advantage).max()))
    for extended, wanted in ((False, plain + soft), (True, twice + soft)):
        assert bellman.rounding(value, advantage, residual, log_policy, extended) == pytest.approx(
            wanted, rel=1e-12, abs=0
        )
    nothing = Value(0.0, np.zeros(3), np.zeros(3))
    assert bellman.rounding(nothing, None, residual, None, False) == 0.0


@pytest.mark.parametrize("beta", [0.0, 0.5, 1e3])
def test_of_restless_bandits(beta):
    """``u [J (2 N + 4) + 2 (K + 12)] H`` times the largest value, ``H (sum_j max |r_j| + beta)``."""
    rng = np.random.default_rng(2)
    actions, reward = np.array([[0, 0], [0, 1], [1, 0]]), rng.normal(size=(2, 4))
    moves, initial = rng.dirichlet(np.ones(4), (3, 2, 4)), rng.dirichlet(np.ones(4), 2)
    found = solve(CoupledRestlessBandit(actions, moves, reward, initial, 5), beta=beta)
    largest = 5 * (np.abs(reward).max(axis=1).sum() + beta)
    assert found.error_bound == pytest.approx(UNIT * (2 * (2 * 4 + 4) + 2 * (3 + 12)) * 5 * largest, rel=1e-14, abs=0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1e3])
def test_of_latent_mdps(beta):
    """``2 u [M (1 + S) + H (M + 4) + 2 (A + 12)] (max |V_t| + max |r| + beta)``, over ``V_0 … V_H``."""
    rng = np.random.default_rng(3)
    contexts = tuple(
        TabularMDP(rng.dirichlet(np.ones(2), (2, 3)), rng.normal(size=(2, 3)), np.ones(2) / 2, horizon=2)
        for _ in range(4)
    )
    found = solve(LatentMDP(np.ones(4) / 4, contexts), beta=beta)
    reach = max(np.abs(m.reward).max() for m in contexts)
    terms = 4 * (1 + 2) + 2 * (4 + 4) + 2 * (3 + 12)
    wanted = sum(2 * UNIT * terms * (np.abs(v).max() + reach + beta) for v in found.value)
    assert found.error_bound == pytest.approx(wanted, rel=1e-14, abs=0)
