"""Regularised best-of-n: against simulation and enumeration, at extremes, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.divergences import tv
from klsim.estimator_moments import draws
from klsim.optima import f_regularized
from klsim.pessimism import pessimistic_best_of_n, regret_bound, rejection_towards, sample_level

LOG_P, REWARD = np.log([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 0.4])


def test_level_solves_its_equation():
    rng = np.random.default_rng(0)
    rewards = rng.standard_normal((200, 7)).round(1)
    for beta in (1e-8, 0.03, 0.5, 20.0):
        level = sample_level(rewards, beta)
        mean = np.maximum(rewards - level[:, None], 0).mean(axis=1) / (2 * beta)
        np.testing.assert_allclose(mean, 1.0, rtol=1e-7)
    assert sample_level([3.0], 0.5) == pytest.approx(2.0)


def test_the_level_of_the_population():
    """The optimum of `f_regularized` is the one that the level of very many draws gives."""
    counts = np.array([5, 3, 2]) * 1000
    level = sample_level(np.repeat(REWARD, counts), 0.1)
    law = np.exp(LOG_P) * np.maximum(REWARD - level, 0) / 0.2
    np.testing.assert_allclose(law, np.exp(f_regularized(LOG_P, REWARD, 0.1, "chi2").log_policy), rtol=1e-9, atol=1e-15)


def test_rejection_is_a_mixture():
    target = np.log([0.1, 0.6, 0.3])
    law = rejection_towards(LOG_P, target, 3)
    np.testing.assert_allclose(np.exp(law), 0.875 * np.exp(target) + 0.125 * np.exp(LOG_P), rtol=1e-13)
    np.testing.assert_allclose(rejection_towards(LOG_P, target, 10**6), target, atol=1e-12)
    np.testing.assert_allclose(rejection_towards(LOG_P, LOG_P, 1), LOG_P, atol=1e-15)
    np.testing.assert_allclose(rejection_towards(LOG_P, LOG_P, 4, bound=1e12), LOG_P, atol=1e-12)
    assert rejection_towards([0.0, -np.inf], [0.0, -np.inf], 2).tolist() == [0.0, -np.inf]


def test_pessimism_by_simulation():
    rng = np.random.default_rng(1)
    drawn = rng.choice(3, (200_000, 5), p=np.exp(LOG_P))
    level = sample_level(REWARD[drawn], 0.1)[:, None]
    taken = rng.random(drawn.shape) < np.maximum(REWARD[drawn] - level, 0) / (1.0 - level)
    first = np.where(
        taken.any(axis=1),
        drawn[np.arange(len(drawn)), taken.argmax(axis=1)],
        rng.choice(3, len(drawn), p=np.exp(LOG_P)),
    )
    law = np.exp(pessimistic_best_of_n(LOG_P, REWARD, 5, 0.1))
    # five standard deviations
    np.testing.assert_allclose(np.bincount(first, minlength=3) / len(drawn), law, atol=5 * 0.5 / np.sqrt(len(drawn)))


def test_pessimism_at_its_ends():
    np.testing.assert_allclose(pessimistic_best_of_n(LOG_P, REWARD, 6, 1e9), LOG_P, atol=1e-8)
    # a tiny beta: only draws with the largest reward of all are near certain to be taken
    law = np.exp(pessimistic_best_of_n(LOG_P, REWARD, 4, 1e-9))
    outcomes, probability = draws(LOG_P, 4)
    some = probability @ (outcomes == 1).any(axis=1)
    assert law[1] == pytest.approx(some + (1 - some) * 0.3, rel=1e-6)
    assert pessimistic_best_of_n([0.0, -np.inf], [0.0, 1.0], 3, 0.1).tolist() == [0.0, -np.inf]
    # scales of the reward
    for unit in (1e-8, 1e8):
        np.testing.assert_allclose(
            pessimistic_best_of_n(LOG_P, unit * REWARD, 5, 0.1 * unit),
            pessimistic_best_of_n(LOG_P, REWARD, 5, 0.1),
            rtol=1e-9,
        )


def test_a_larger_bound_takes_longer():
    target = f_regularized(LOG_P, REWARD, 0.1, "chi2").log_policy
    away = [float(tv(pessimistic_best_of_n(LOG_P, REWARD, 20, 0.1, r_max=r), target)) for r in (1.0, 2.0, 5.0)]
    assert away == sorted(away)


def test_regret_bound():
    assert regret_bound(4.0, 0.5) == pytest.approx(2.0)
    assert regret_bound(4.0, 0.5, 0.5 / 4) == pytest.approx(2.0)
    assert regret_bound(4.0, 0.5, 1.0) > 2.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rejection_towards(LOG_P, LOG_P[:2], 2), "log_target"),
        (lambda: rejection_towards([0.0, -np.inf], np.log([0.5, 0.5]), 2), "log_target: has mass outside"),
        (lambda: rejection_towards(LOG_P, np.log([0.2, 0.2, 0.6]), 2, 2.0), "bound = 2.0: must be at least"),
        (lambda: rejection_towards(LOG_P, LOG_P, 0), "n = 0"),
        (lambda: sample_level([], 0.1), "reward"),
        (lambda: sample_level(REWARD, 0.0), "beta = 0.0"),
        (lambda: pessimistic_best_of_n(LOG_P, REWARD, 5, 0.1, r_max=0.5), "r_max = 0.5"),
        (lambda: pessimistic_best_of_n(np.full(20, -np.log(20)), np.arange(20.0), 20, 0.1), "multisets of 20 reward"),
        (lambda: pessimistic_best_of_n(LOG_P, REWARD[:1], 5, 0.1), "reward: must have the shape"),
        (lambda: regret_bound(0.5, 0.1), "coverage = 0.5"),
        (lambda: regret_bound(1.0, 0.1, 0.0), "beta = 0.0"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
