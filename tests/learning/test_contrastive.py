"""Contrastive estimation and Contrastive-UCB: by hand, derivatives, extremes, Monte Carlo, a lock, bad input."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from klsim.learning import contrastive as ct
from klsim.learning import contrastive_ucb
from klsim.problems import TabularMDP

P, Q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])


def test_loss_by_hand():
    f = np.array([1.0, 2.0, 0.5, 3.0])
    expected = (np.sum(P * np.log(1 + 1 / f)) + 3 * np.sum(Q * np.log(1 + f))) / 4
    assert ct.contrastive_loss(np.log(f), P, Q, 3) == pytest.approx(expected)
    assert ct.contrastive_loss(np.zeros(4), P, Q) == pytest.approx(math.log(2))


def test_gradient_against_differences():
    x, h = np.array([0.3, -1.0, 2.0, 0.1]), 1e-6
    slopes = [
        (ct.contrastive_loss(x + e, P, Q, 2) - ct.contrastive_loss(x - e, P, Q, 2)) / (2 * h) for e in h * np.eye(4)
    ]
    np.testing.assert_allclose(ct.contrastive_gradient(x, P, Q, 2), slopes, atol=1e-9)


@pytest.mark.parametrize("k", [1, 4, 10**9])
def test_optimum_and_excess(k):
    best = ct.density_ratio(P, Q, k)
    np.testing.assert_allclose(k * Q * np.exp(best), P)
    assert best[3] == -math.inf
    assert ct.contrastive_excess(best, P, Q, k) == 0
    x = np.array([0.3, -1.0, 2.0, 0.1])
    gap = ct.contrastive_loss(x, P, Q, k) - ct.contrastive_loss(best, P, Q, k)
    assert ct.contrastive_excess(x, P, Q, k) == pytest.approx(gap)


@pytest.mark.parametrize("x", [-600.0, -1e-9, 600.0])
def test_excess_at_extremes(x):
    with mpmath.workdps(50):
        f, total = mpmath.exp(mpmath.mpf(x)), mpmath.mpf(0)
        for p, q in zip([0.25, 0.75], [0.5, 0.5]):
            g, s = f / (1 + f), mpmath.mpf(p) / (mpmath.mpf(p) + q)
            total += (mpmath.mpf(p) + q) / 2 * (s * mpmath.log(s / g) + (1 - s) * mpmath.log((1 - s) * (1 + f)))
        assert ct.contrastive_excess(np.full(2, x), [0.25, 0.75], [0.5, 0.5]) == pytest.approx(float(total), rel=1e-12)


def test_posterior_error_and_bound():
    f = np.array([1.0, 2.0, 0.5, 3.0])
    error = np.abs(Q * f - P).sum()
    assert ct.posterior_error(np.log(f), P, Q) == pytest.approx(error)
    assert error**2 <= ct.squared_l1_bound(ct.contrastive_excess(np.log(f), P, Q), 3.0)
    assert ct.squared_l1_bound(0.5, 2.0) == 9.0


def test_counts():
    n1, n0 = np.array([3.0, 0.0]), np.array([1.0, 4.0])
    f = np.array([3.5 / 1.5, 0.5 / 4.5])
    np.testing.assert_allclose(ct.count_critic(n1, n0), np.log(f))
    assert ct.count_loss(n1, n0) == pytest.approx(np.sum(n1 * np.log(1 + 1 / f) + n0 * np.log(1 + f)))


def test_limit_law_against_draws():
    """20,000 estimates at k = 10^7: entries of the covariance to 5 standard errors of sqrt(2/n) of their scale."""
    p, q = P[:3], np.array([0.2, 0.5, 0.3])
    found = ct.estimate_transition(p, q, 10**7, 20_000, 0)
    wanted = ct.ratio_covariance(p, q)
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    assert np.abs((1e7 * np.cov(found.T) - wanted) / scale).max() < 5 * math.sqrt(2 / 20_000)


def test_mean_squared_l1():
    assert ct.mean_squared_l1([[4.0]]) == pytest.approx(4.0)  # E x^2
    assert ct.mean_squared_l1(np.eye(2)) == pytest.approx(2 + 4 / math.pi)
    assert ct.mean_squared_l1(np.ones((3, 3))) == pytest.approx(9.0)  # one variable three times
    assert ct.mean_squared_l1(np.diag([1.0, 0.0])) == pytest.approx(1.0)


def two_states():
    """Action 1 of state 0 leads to state 1, which pays 1 at the second step."""
    law = np.zeros((2, 2, 2, 2))
    law[..., 0] = 1.0
    law[0, 0, 1] = [0.0, 1.0]
    reward = np.zeros((2, 2, 2))
    reward[1, 1] = 1.0
    return TabularMDP(law, reward, np.array([1.0, 0.0]), 2)


def test_the_learner_finds_the_reward():
    decoders = np.tile([[0, 0], [0, 1]], (4, 2, 1, 1))  # merges the states, or tells them apart
    run = contrastive_ucb(two_states(), decoders, iterations=60, rng=0)
    assert (run.value[:, -1] == 1.0).all()
    assert (run.visits.sum(axis=(2, 3)) == 60).all()
    np.testing.assert_allclose(run.model.sum(axis=-1), 1.0)
    assert (run.bonus[:, -1] < run.bonus[:, 0]).all()
    again = contrastive_ucb(two_states(), decoders, iterations=60, rng=0)
    np.testing.assert_array_equal(run.value, again.value)


def test_without_bonus_it_is_greedy():
    run = contrastive_ucb(two_states(), np.zeros((2, 2, 1, 2), int), iterations=3, gamma=0.0, rng=0)
    assert (run.bonus == 0).all()
    assert (run.last_bonus == 0).all()


def test_actions_are_uniform_at_the_step_of_interest():
    """Counts of 300 draws, to 5 standard deviations; the greedy policy itself plays one action."""
    run = contrastive_ucb(two_states(), np.zeros((4, 2, 1, 2), int), iterations=300, gamma=0.0, rng=1)
    assert np.abs(run.visits.sum(axis=2) - 150).max() < 5 * math.sqrt(75)


def test_bad_input():
    labels = np.zeros((1, 2, 1, 2), int)
    for call, text in (
        (lambda: ct.contrastive_loss(np.zeros(3), P, Q), "log_critic: must have 4 entries"),
        (lambda: ct.density_ratio(P, P), r"negative\[3\]"),
        (lambda: ct.density_ratio(P, Q, 0), "negatives = 0"),
        (lambda: ct.density_ratio(P, Q, 10**9 + 1), "negatives = 1000000001"),
        (lambda: ct.posterior_error(np.full(4, 800.0), P, Q), "log_critic"),
        (lambda: ct.squared_l1_bound(-1.0, 1.0), "excess"),
        (lambda: ct.count_critic([-1.0], [1.0]), "positives"),
        (lambda: ct.count_loss([1.0], [1.0], 0.0), "smoothing"),
        (lambda: ct.estimate_transition(P, Q, 1, 5, 0), "samples = 1"),
        (lambda: ct.mean_squared_l1([[1.0, 2.0], [2.0, 1.0]]), "covariance.*correlations"),
        (lambda: contrastive_ucb(two_states(), labels + 2, iterations=1), "decoders = 2: labels"),
        (lambda: contrastive_ucb(two_states(), labels[0], iterations=1), "decoders: must have shape"),
        (lambda: contrastive_ucb(two_states(), labels, iterations=0), "iterations = 0"),
        (lambda: contrastive_ucb(two_states(), labels, iterations=1, negative=[1.0, 0.0]), r"negative\[1\]"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
