"""Preferences: the Bradley-Terry fit, IPO's fit, regularised Nash policies; extremes and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from klsim.distributions import log_normalize
from klsim.preferences import (
    bradley_terry,
    bradley_terry_fit,
    bradley_terry_groups,
    exploitability,
    ipo_fit,
    regularized_nash,
)

RNG = np.random.default_rng(0)
CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
UNIFORM = np.full(3, -np.log(3))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 5.0])
def test_the_fit_of_bradley_terry_preferences(scale):
    reward = scale * RNG.standard_normal(6)
    np.testing.assert_allclose(
        bradley_terry_fit(bradley_terry(reward)), reward - reward.mean(), atol=1e-10 * scale + 1e-15
    )


def test_the_fit_solves_its_equations_with_any_weights():
    weights = np.array([[0, 3.0, 0], [3, 0, 1], [0, 1, 0]])
    fit = bradley_terry_fit(CYCLE, weights)
    np.testing.assert_allclose((weights * bradley_terry(fit)).sum(axis=1), (weights * CYCLE).sum(axis=1), atol=1e-13)


@pytest.mark.parametrize("margin", [0.0, 1e-3, 2.0, 30.0, 100.0])
@pytest.mark.parametrize("p", [0.5, 0.6, 0.99])
def test_a_margin_in_closed_form(margin, p):
    g, q = np.exp(-margin), 2 * p - 1
    difference = np.log((q + np.sqrt(q**2 + 4 * p * (1 - p) * g**2)) / (2 * (1 - p))) + margin
    fit = bradley_terry_fit([[0.5, p], [1 - p, 0.5]], margin=margin)
    np.testing.assert_allclose(fit[0] - fit[1], difference, rtol=1e-9, atol=1e-9)


def test_groups_have_mean_zero_and_their_own_fits():
    weights = np.zeros((4, 4))
    weights[:2, :2], weights[2:, 2:] = 1.0, 3.0
    preference = bradley_terry([0.0, 2.0, 5.0, 4.0])
    np.testing.assert_allclose(bradley_terry_groups(preference, weights), [-1.0, 1.0, 0.5, -0.5], atol=1e-12)
    weights[2:, 2:] = 0.0
    np.testing.assert_allclose(bradley_terry_groups(preference, weights), [-1.0, 1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(bradley_terry_groups(CYCLE), bradley_terry_fit(CYCLE), atol=1e-13)


def test_without_regularisation_the_best_response_exploits():
    assert exploitability(np.log([0.5, 0.25, 0.25]), CYCLE, UNIFORM, 0.0) == pytest.approx(
        (CYCLE @ [0.5, 0.25, 0.25]).max() - 0.5
    )


def test_ipo_is_a_least_squares_fit():
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    rows = np.array([np.eye(3)[i] - np.eye(3)[j] for i, j in pairs])
    target = np.array([CYCLE[i, j] - CYCLE[j, i] for i, j in pairs]) / (2 * 0.3)
    np.testing.assert_allclose(ipo_fit(CYCLE, 0.3), np.linalg.lstsq(rows, target, rcond=None)[0], atol=1e-13)
    assert np.isfinite(ipo_fit(np.array([[0.5, 1.0], [0.0, 0.5]]), 0.1)).all()  # deterministic preferences


@pytest.mark.parametrize("tau", [1e-4, 1e-2, 1.0, 1e4])
@pytest.mark.parametrize("size", [1, 2, 9])
def test_nash_policies_are_fixed_points(tau, size):
    upper = np.triu(RNG.random((size, size)), 1)
    preference = upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(size)
    log_ref = log_normalize(2 * RNG.standard_normal(size))
    found = regularized_nash(preference, log_ref, tau)
    np.testing.assert_allclose(
        found.log_policy,
        log_normalize(log_ref + preference @ np.exp(found.log_policy) / tau),
        atol=1e-8 * (1 + 1 / tau),
    )
    assert found.gap < 1e-9 * (1 + tau)


def test_at_small_tau_it_is_the_nash_policy_of_the_game():
    value = linprog([0, 0, 0, -1], A_ub=np.hstack([-CYCLE.T, np.ones((3, 1))]), b_ub=np.zeros(3), A_eq=[[1, 1, 1, 0]], b_eq=[1],
                    bounds=[(0, 1)] * 3 + [(None, None)])  # fmt: skip
    np.testing.assert_allclose(np.exp(regularized_nash(CYCLE, UNIFORM, 1e-5).log_policy), value.x[:3], atol=1e-4)


def test_without_support_and_far_away():
    found = regularized_nash(CYCLE, log_normalize([0.0, -np.inf, 0.0]), 0.1)
    assert found.log_policy[1] == -np.inf
    np.testing.assert_allclose(regularized_nash(CYCLE, UNIFORM, 1e9).log_policy, UNIFORM, atol=1e-8)
    assert exploitability(UNIFORM, CYCLE, UNIFORM, 0.1) > 0.005


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bradley_terry([[0.0]]), "reward"),
        (lambda: bradley_terry_fit(CYCLE[:2]), "must be a matrix"),
        (lambda: bradley_terry_fit(CYCLE + 0.1), "P_ij"),
        (lambda: bradley_terry_fit(np.array([[0.5, 1.0], [0.0, 0.5]])), "every time"),
        (lambda: bradley_terry_fit(CYCLE, np.diag([1.0, 1, 1])), "do not connect"),
        (lambda: bradley_terry_fit(CYCLE, -np.ones((3, 3))), "weights"),
        (lambda: bradley_terry_fit(CYCLE, margin=-1.0), "margin"),
        (lambda: bradley_terry_groups(np.array([[0.5, 1.0], [0.0, 0.5]])), "every time"),
        (lambda: exploitability(UNIFORM, CYCLE, UNIFORM, -1.0), "tau"),
        (lambda: ipo_fit(CYCLE, 0.0), "tau"),
        (lambda: ipo_fit(CYCLE, 0.1, np.zeros((3, 3))), "do not connect"),
        (lambda: regularized_nash(CYCLE, UNIFORM, 0.0), "tau"),
        (lambda: regularized_nash(CYCLE, UNIFORM[:2], 1.0), "log_"),
        (lambda: exploitability(UNIFORM + 1, CYCLE, UNIFORM, 1.0), "log_policy"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
