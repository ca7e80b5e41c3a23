"""Gaussian policies: quadrature, other Gaussians, an ODE solver, extremes, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

from klsim.continuous import kl_frontier, tilted
from klsim.gaussian import (
    QuadraticReward,
    fixed_covariance,
    gaussian_constrained,
    gaussian_kl,
    gaussian_regularized,
    natural_gradient_flow,
)

RNG = np.random.default_rng(4)
MEAN, ROOT, H = RNG.standard_normal(3), RNG.standard_normal((3, 3)), RNG.standard_normal((3, 3))
COVARIANCE = ROOT @ ROOT.T + 0.1 * np.eye(3)
REWARD = QuadraticReward(RNG.standard_normal(3), H + H.T, 0.7)
STEEPEST = np.linalg.eigvals(COVARIANCE @ REWARD.curvature).real.max()


def expected(mean, covariance, reward=REWARD, around=MEAN):
    move = mean - around
    return reward.offset + reward.slope @ move + 0.5 * np.trace(reward.curvature @ (covariance + np.outer(move, move)))


@pytest.mark.parametrize("above", [1 + 1e-6, 1.5, 10.0, 1e6])
def test_value_reward_and_kl_agree(above):
    found = gaussian_regularized(MEAN, COVARIANCE, REWARD, above * STEEPEST)
    np.testing.assert_allclose(found.reward, expected(found.mean, found.covariance), rtol=1e-8)
    np.testing.assert_allclose(found.kl, gaussian_kl(found.mean, found.covariance, MEAN, COVARIANCE), rtol=1e-5)
    np.testing.assert_allclose(found.value, found.reward - found.beta * found.kl, rtol=1e-8)


def test_it_is_the_tilt_pointwise():
    beta = 1.3 * STEEPEST
    found = gaussian_regularized(MEAN, COVARIANCE, REWARD, beta)
    x = MEAN + RNG.standard_normal((6, 3))
    reward = np.array([REWARD.offset + REWARD.slope @ d + 0.5 * d @ REWARD.curvature @ d for d in x - MEAN])
    log_ref = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(x)
    log_pi = stats.multivariate_normal(found.mean, found.covariance).logpdf(x)
    np.testing.assert_allclose(log_pi, log_ref + (reward - found.value) / beta, atol=1e-9)


def test_rewards_whose_law_is_known():
    flat = QuadraticReward(REWARD.slope, np.zeros((3, 3)))
    deviation = np.sqrt(flat.slope @ COVARIANCE @ flat.slope)
    for budget in (1e-6, 0.3, 20.0):
        np.testing.assert_allclose(
            gaussian_constrained(MEAN, COVARIANCE, flat, budget).reward, deviation * np.sqrt(2 * budget), rtol=1e-10
        )
    square = QuadraticReward(np.zeros(1), -2 * np.eye(1))  # -x²: minus a chi-square
    law = stats.norm()
    np.testing.assert_allclose(
        gaussian_regularized([0.0], [[1.0]], square, 0.7).value, 0.7 * np.log((1 + 2 / 0.7) ** -0.5), rtol=1e-13
    )
    up = gaussian_regularized([0.0], [[1.0]], QuadraticReward([0.0], [[2.0]]), 5.0)
    by_quadrature = tilted(stats.chi2(1), 5.0)
    np.testing.assert_allclose(
        [up.value, up.reward, up.kl], [by_quadrature.value, by_quadrature.reward, by_quadrature.kl], rtol=1e-10
    )
    assert kl_frontier(law, 2.0).reward == pytest.approx(2.0)


@pytest.mark.parametrize("budget", [1e-10, 1e-3, 1.0, 50.0, 1e4])
def test_a_budget_is_spent(budget):
    found = gaussian_constrained(MEAN, COVARIANCE, REWARD, budget)
    np.testing.assert_allclose(found.kl, budget, rtol=1e-10)
    assert found.beta >= STEEPEST
    more = gaussian_constrained(MEAN, COVARIANCE, REWARD, budget * 1.0001)
    np.testing.assert_allclose((more.reward - found.reward) / (0.0001 * budget), found.beta, rtol=1e-3)


def test_no_other_gaussian_does_better():
    beta = 1.4 * STEEPEST
    best = gaussian_regularized(MEAN, COVARIANCE, REWARD, beta)
    for size in (1e-3, 0.1):
        for _ in range(20):
            mean = best.mean + size * RNG.standard_normal(3)
            move = np.eye(3) + size * RNG.standard_normal((3, 3))
            covariance = move @ best.covariance @ move.T
            assert expected(mean, covariance) - beta * gaussian_kl(mean, covariance, MEAN, COVARIANCE) <= best.value
    same = fixed_covariance(MEAN, COVARIANCE, REWARD, beta)
    np.testing.assert_allclose(same.covariance, COVARIANCE, rtol=1e-12)
    np.testing.assert_allclose(same.reward, expected(same.mean, COVARIANCE), rtol=1e-12)
    h = np.linalg.eigvals(COVARIANCE @ REWARD.curvature).real / beta
    np.testing.assert_allclose(best.value - same.value, beta / 2 * np.sum(-np.log1p(-h) - h), rtol=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_natural_gradient_flow(beta):
    time = 0.5 / STEEPEST

    def flow(_, state):
        mean, covariance = state[:3], state[3:].reshape(3, 3)
        slope = REWARD.slope + REWARD.curvature @ (mean - MEAN) - beta * np.linalg.solve(COVARIANCE, mean - MEAN)
        bend = 0.5 * REWARD.curvature - beta / 2 * (np.linalg.inv(COVARIANCE) - np.linalg.inv(covariance))
        return np.concatenate([covariance @ slope, (2 * covariance @ bend @ covariance).ravel()])

    end = solve_ivp(flow, (0, time), np.concatenate([MEAN, COVARIANCE.ravel()]), rtol=1e-10, atol=1e-12).y[:, -1]
    found = natural_gradient_flow(MEAN, COVARIANCE, REWARD, beta, time)
    np.testing.assert_allclose(np.concatenate([found.mean, found.covariance.ravel()]), end, rtol=1e-7, atol=1e-8)


def test_a_standard_kl():
    np.testing.assert_allclose(gaussian_kl([1.0], [[4.0]], [0.0], [[1.0]]), 0.5 * (4 - 1 - np.log(4) + 1), rtol=1e-14)
    assert gaussian_kl(MEAN, COVARIANCE, MEAN, COVARIANCE) < 1e-25


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaussian_regularized(MEAN, COVARIANCE, REWARD, 0.999 * STEEPEST), "the value is infinite"),
        (lambda: gaussian_regularized(MEAN, -COVARIANCE, REWARD, 99.0), "positive definite"),
        (lambda: gaussian_regularized(MEAN[:2], COVARIANCE, REWARD, 99.0), "covariance: must have shape"),
        (lambda: gaussian_regularized(MEAN[:2], COVARIANCE[:2, :2], REWARD, 99.0), "reward: must be of 2"),
        (lambda: gaussian_regularized(MEAN, COVARIANCE, REWARD, 0.0), "beta"),
        (lambda: gaussian_constrained(MEAN, COVARIANCE, REWARD, 0.0), "budget"),
        (
            lambda: gaussian_constrained(MEAN, COVARIANCE, QuadraticReward(np.zeros(3), np.zeros((3, 3))), 1.0),
            "constant",
        ),
        (lambda: natural_gradient_flow(MEAN, COVARIANCE, REWARD, 0.0, 1.001 / STEEPEST), "left to infinity"),
        (lambda: natural_gradient_flow(MEAN, COVARIANCE, REWARD, -1.0, 1.0), "beta"),
        (lambda: QuadraticReward([1.0, 2.0], [[0.0, 1.0], [0.0, 0.0]]), "symmetric"),
        (lambda: QuadraticReward([np.nan], [[0.0]]), "slope"),
        (lambda: gaussian_kl([0.0], [[1.0]], [0.0, 1.0], np.eye(2)), "other_mean"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
