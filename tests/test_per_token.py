"""Reward and KL per token: against scipy's solvers, renewal, extremes, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from klsim.distributions import log_normalize, log_partition
from klsim.divergences import kl
from klsim.optima import kl_constrained
from klsim.per_token import kl_per_token, reward_per_token

RNG = np.random.default_rng(2)
LAW = log_normalize(RNG.standard_normal(8))
REWARD, LENGTHS = RNG.standard_normal(8), RNG.integers(1, 20, 8).astype(float)


@pytest.mark.parametrize("beta", [1e-9, 1e-3, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_rate_needs_no_normaliser(beta, scale):
    found = reward_per_token(LAW, scale * REWARD, LENGTHS, beta * scale)
    np.testing.assert_allclose(
        log_partition(LAW, scale * REWARD - found.rate * LENGTHS, beta * scale), 0, atol=1e-9 / beta + 1e-12
    )
    np.testing.assert_allclose(found.rate, (found.reward - found.beta * found.kl) / found.length, rtol=1e-12)
    assert found.gap <= 1e-12 * scale * (1 + beta)


def test_the_rate_by_a_root_finder_and_its_limits():
    wanted = brentq(lambda rho: log_partition(LAW, REWARD - rho * LENGTHS, 0.3), -5, 5, xtol=1e-15)
    np.testing.assert_allclose(reward_per_token(LAW, REWARD, LENGTHS, 0.3).rate, wanted, rtol=1e-12)
    np.testing.assert_allclose(reward_per_token(LAW, REWARD, LENGTHS, 1e-10).rate, (REWARD / LENGTHS).max(), rtol=1e-8)
    np.testing.assert_allclose(
        reward_per_token(LAW, REWARD, LENGTHS, 1e10).rate, np.exp(LAW) @ REWARD / (np.exp(LAW) @ LENGTHS), atol=1e-9
    )


@pytest.mark.parametrize("budget", [1e-8, 1e-3, 0.05, 0.5])
def test_a_budget_per_token_by_its_dual(budget):
    found = kl_per_token(LAW, REWARD, LENGTHS, budget)
    dual = minimize_scalar(
        lambda log_beta: np.exp(log_beta) * log_partition(LAW, REWARD / np.exp(log_beta) + budget * LENGTHS, 1.0),
        bounds=(-30, 15), method="bounded", options={"xatol": 1e-12},
    )  # fmt: skip
    np.testing.assert_allclose(found.reward, dual.fun, atol=1e-7)
    length = float(np.exp(found.log_policy) @ LENGTHS)
    assert found.kl <= budget * length * (1 + 1e-9)
    np.testing.assert_allclose(found.kl, kl(found.log_policy, LAW), rtol=1e-12)


def test_of_equal_lengths_it_is_the_budget_of_a_response():
    same = np.full(8, 5.0)
    np.testing.assert_allclose(
        kl_per_token(LAW, REWARD, same, 0.02).log_policy, kl_constrained(LAW, REWARD, 0.1).log_policy, atol=1e-9
    )
    found = kl_per_token(LAW, REWARD, same, 100.0)
    assert np.argmax(found.log_policy) == np.argmax(REWARD)
    assert found.beta == 0


def test_without_support():
    law = np.append(LAW, -np.inf)
    found = reward_per_token(law, np.append(REWARD, 100.0), np.append(LENGTHS, 1.0), 0.3)
    assert np.isneginf(found.log_policy[-1])
    np.testing.assert_allclose(found.rate, reward_per_token(LAW, REWARD, LENGTHS, 0.3).rate, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: reward_per_token(LAW, REWARD, np.zeros(8), 1.0), "lengths"),
        (lambda: reward_per_token(LAW, REWARD, LENGTHS[:3], 1.0), "lengths: must be a vector"),
        (lambda: reward_per_token(LAW, REWARD, LENGTHS, 0.0), "beta"),
        (lambda: reward_per_token(LAW, REWARD * np.nan, LENGTHS, 1.0), "reward"),
        (lambda: kl_per_token(LAW, REWARD, LENGTHS, -1.0), "budget"),
        (lambda: kl_per_token(LAW, REWARD, LENGTHS, 1e308), "budget"),
        (lambda: kl_per_token(np.zeros(8), REWARD, LENGTHS, 1.0), "log_ref"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
