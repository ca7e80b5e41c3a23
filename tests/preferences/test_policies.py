"""What preference losses converge to: extremes, ties, certain preferences, no coverage, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from klsim.distributions import log_normalize
from klsim.divergences import GENERATORS, kl
from klsim.optima import f_regularized
from klsim.preferences import (
    bradley_terry,
    chi2_po_policy,
    dpo_policy,
    ipo_policy,
    kto_fixed_point,
    loser_shares,
    orpo_policy,
    simpo_policy,
    winner_shares,
)

RNG = np.random.default_rng(1)
CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
TIES = np.full((3, 3), 0.5)
CERTAIN = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.7], [0.0, 0.3, 0.5]])
LOG_REF = np.log([0.6, 0.3, 0.1])
LENGTHS = np.array([3.0, 1.0, 7.0])


def a_preference(size):
    upper = np.triu(RNG.uniform(0.05, 0.95, (size, size)), 1)
    return upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(size)


def test_shares_of_winners_and_losers():
    weights = np.array([[9.0, 2, 0], [2, 9, 1], [0, 1, 9]])  # the diagonal counts nothing
    np.testing.assert_allclose(winner_shares(CYCLE, weights), [1.8 / 3, (0.2 + 0.7) / 3, 0.3 / 3], atol=1e-15)
    np.testing.assert_allclose(loser_shares(CYCLE, weights), [0.2 / 3, (1.8 + 0.3) / 3, 0.7 / 3], atol=1e-15)


def test_ties_leave_dpo_ipo_and_chi2_po_where_they_were():
    for policy in (dpo_policy, ipo_policy, chi2_po_policy):
        np.testing.assert_allclose(policy(LOG_REF, TIES, 0.3), LOG_REF, atol=1e-12)


@pytest.mark.parametrize("beta", [1e-3, 0.1, 1.0, 1e6])
def test_chi2_po_solves_its_link(beta):
    reward = np.array([0.7, -0.2, -0.5])
    found = chi2_po_policy(LOG_REF, bradley_terry(reward), beta)
    ratio = np.exp(found - LOG_REF)
    level = ratio + (found - LOG_REF) - reward / beta
    np.testing.assert_allclose(level, level[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.exp(found).sum(), 1.0, atol=1e-12)
    other = f_regularized(LOG_REF, reward, beta, GENERATORS["kl"] + 0.5 * GENERATORS["chi2"]).log_policy
    np.testing.assert_allclose(found, other, rtol=1e-9, atol=1e-9)


def test_dpo_is_the_tilt_by_the_rewards():
    reward = np.array([0.7, -0.2, -0.5])
    np.testing.assert_allclose(
        dpo_policy(LOG_REF, bradley_terry(reward), 0.5), log_normalize(LOG_REF + 2 * reward), atol=1e-10
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 50.0])
def test_simpo_at_ties_gives_every_token_the_same_likelihood(gamma):
    found = simpo_policy(LENGTHS, TIES, 2.0, gamma=gamma)
    np.testing.assert_allclose(found / LENGTHS, found[0] / LENGTHS[0], rtol=1e-9)


@pytest.mark.parametrize("beta", [1e-2, 1.0, 1e6])
def test_simpo_per_token_rewards_are_the_fit(beta):
    reward = np.array([0.9, 0.0, -0.9])
    found = simpo_policy(LENGTHS, bradley_terry(reward), beta)
    gaps = np.diff(beta * found / LENGTHS)
    np.testing.assert_allclose(gaps, np.diff(reward), rtol=1e-8)
    np.testing.assert_allclose(np.logaddexp.reduce(found), 0.0, atol=1e-12)


def test_simpo_of_one_response_and_of_long_ones():
    assert simpo_policy([5.0], [[0.5]], 1.0).tolist() == [0.0]
    found = simpo_policy([1.0, 1e9], [[0.5, 0.9], [0.1, 0.5]], 1.0)
    assert found[1] < -1e6
    assert found[0] <= 0


@pytest.mark.parametrize("lam", [0.0, 0.1, 10.0, 1e4])
def test_orpo_has_one_stationary_point_from_many_starts(lam):
    for _ in range(5):
        size = RNG.integers(2, 6)
        preference, lengths = a_preference(size), RNG.integers(1, 9, size).astype(float)
        found = orpo_policy(lengths, preference, lam)
        for _ in range(4):
            other = orpo_policy(lengths, preference, lam, start=log_normalize(3 * RNG.standard_normal(size)))
            np.testing.assert_allclose(np.exp(other), np.exp(found), atol=1e-6)


def test_orpo_with_certain_preferences_and_without_coverage():
    found = orpo_policy(np.ones(3), CERTAIN, 0.1)
    assert np.all(np.isfinite(found))  # the second and the third win against each other
    beaten = orpo_policy(np.ones(2), [[0.5, 1.0], [0.0, 0.5]], 0.1)
    assert beaten.tolist() == [0.0, -np.inf]
    weights = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    found = orpo_policy(np.ones(3), CYCLE, 0.1, weights=weights)
    assert found[2] == -np.inf
    assert np.isfinite(found[:2]).all()


@pytest.mark.parametrize("beta", [1e-4, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("desirable", [0.8, 1.0, 1.33])
def test_kto_is_stationary_at_its_own_kl(beta, desirable):
    for _ in range(10):
        size = RNG.integers(2, 7)
        preference, log_ref = a_preference(size), log_normalize(2 * RNG.standard_normal(size))
        gain = desirable * winner_shares(preference) - loser_shares(preference)
        if not np.any(gain > 0):
            continue
        found = kto_fixed_point(log_ref, preference, beta, desirable=desirable)
        kept = np.isfinite(found.log_policy)
        assert not np.any(kept & (gain <= 0))
        assert found.reference_point == pytest.approx(float(kl(found.log_policy, log_ref)), abs=1e-12)
        s = expit(beta * (found.log_policy - log_ref - found.reference_point))[kept]
        force = gain[kept] * s * (1 - s) / np.exp(found.log_policy[kept])
        np.testing.assert_allclose(force, force[0], rtol=1e-5)
        if beta < 1:
            assert np.array_equal(kept, gain > 0)


def test_kto_takes_two_responses_to_the_winner_and_leaves_ties_open():
    found = kto_fixed_point(np.log([0.2, 0.8]), [[0.5, 0.501], [0.499, 0.5]], 0.1)
    assert np.exp(found.log_policy).tolist() == [1.0, 0.0]
    assert found.reference_point == pytest.approx(np.log(5))
    with pytest.raises(ValueError, match="no unique optimum"):
        kto_fixed_point(LOG_REF, TIES, 0.1)
    even = kto_fixed_point(LOG_REF, TIES, 0.1, desirable=2.0, weights=np.outer(*[np.exp(LOG_REF)] * 2))
    assert np.all(np.isfinite(even.log_policy))


def test_kto_without_coverage_and_outside_the_reference():
    weights = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    found = kto_fixed_point(log_normalize([0.0, 1.0, -np.inf]), CYCLE, 0.5, weights=weights, desirable=2.0)
    assert found.log_policy[2] == -np.inf


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dpo_policy(LOG_REF[:2], CYCLE, 1.0), "log_ref"),
        (lambda: dpo_policy(log_normalize([0.0, 0, -np.inf]), CYCLE, 1.0), "log_ref"),
        (lambda: dpo_policy(LOG_REF, CYCLE, 0.0), "beta"),
        (lambda: dpo_policy(LOG_REF, CYCLE, 1e-300), "beta"),
        (lambda: dpo_policy(LOG_REF, CERTAIN, 1.0), "every time"),
        (lambda: chi2_po_policy(LOG_REF, CERTAIN, 1.0), "every time"),
        (lambda: ipo_policy(LOG_REF, CYCLE, 1e-300), "tau"),
        (lambda: simpo_policy(LENGTHS, CYCLE, 1.0, gamma=-1.0), "gamma"),
        (lambda: simpo_policy(LENGTHS - 1, CYCLE, 1.0), "lengths"),
        (lambda: simpo_policy(LENGTHS, CERTAIN, 1.0), "every time"),
        (lambda: orpo_policy(LENGTHS[:2], CYCLE, 1.0), "lengths"),
        (lambda: orpo_policy(LENGTHS, CYCLE, -1.0), "lam"),
        (lambda: orpo_policy(LENGTHS, CYCLE, 1.0, weights=np.zeros((3, 3))), "weights"),
        (lambda: kto_fixed_point(LOG_REF, CYCLE, 1.5), "beta"),
        (lambda: kto_fixed_point(LOG_REF, CYCLE, 0.5, desirable=0.0), "desirable"),
        (lambda: kto_fixed_point(log_normalize([0.0, 0, -np.inf]), CYCLE, 0.5), "log_ref"),
        (lambda: winner_shares(CYCLE, np.zeros((3, 3))), "weights"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
