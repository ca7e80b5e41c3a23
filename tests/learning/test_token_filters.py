"""Filters of rare tokens: by hand, against the forces themselves and enumeration, signs of noise rates, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import entropy, log_normalize
from klsim.learning import token_filters as tf
from klsim.learning.softmax_step import population_gradient
from klsim.objectives.stabilizers import min_p_proxy

FIVE = np.log([0.5, 0.3, 0.15, 0.04, 0.01])


def drawn(seed, rows=3, actions=7):
    return log_normalize(2.0 * np.random.default_rng(seed).standard_normal((rows, actions)))


def test_kept_by_hand():
    assert tf.kept_tokens(FIVE, ratio=0.1).tolist() == [True, True, True, False, False]
    assert tf.kept_tokens(FIVE, ratio=0.3).tolist() == [True, True, False, False, False]  # .15 is no more than .3 · .5
    assert tf.kept_tokens(FIVE, threshold=0.6).tolist() == [False] * 5
    assert tf.kept_tokens(np.log([0.5, 0.5]), ratio=1.0).tolist() == [False, False]
    assert tf.kept_tokens([0.0, -math.inf], ratio=0.0).tolist() == [True, False]


@given(st.integers(0, 200), st.floats(0.0, 0.9))
def test_kept_is_where_the_proxy_is(seed, ratio):
    pi = drawn(seed)
    np.testing.assert_array_equal(tf.kept_tokens(pi, ratio=ratio), np.isfinite(min_p_proxy(pi, ratio)))


@given(st.integers(0, 200), st.floats(0.0, 0.9))
def test_rates_are_those_of_the_forces(seed, ratio):
    pi = drawn(seed)
    kept = tf.kept_tokens(pi, ratio=ratio)
    force = np.exp(min_p_proxy(pi, ratio)) - np.exp(pi)
    np.testing.assert_allclose(tf.live_rates(pi, kept), population_gradient(pi, force), atol=1e-15)
    np.testing.assert_allclose(tf.denoising_rate(pi, kept), tf.mass_rate(pi, force, ~kept), atol=1e-15)
    np.testing.assert_allclose(
        tf.entropy_noise_rate(pi, kept), tf.mass_rate(pi, tf.entropy_force(pi), ~kept), atol=1e-15
    )
    assert tf.denoising_rate(pi, kept).max() <= 0
    assert tf.entropy_noise_rate(pi, kept).min() >= -1e-15


def test_entropy_force_by_differences_and_without_support():
    z, h = np.random.default_rng(0).standard_normal(5), 1e-6
    slope = [(entropy(log_normalize(z + e)) - entropy(log_normalize(z - e))) / (2 * h) for e in h * np.eye(5)]
    np.testing.assert_allclose(tf.entropy_force(log_normalize(z)), slope, atol=1e-9)
    assert tf.entropy_force([0.0, -math.inf]).tolist() == [0.0, 0.0]


def test_mass_rate_by_hand():
    assert tf.mass_rate(np.log([0.8, 0.2]), [1.0, 0.0], [True, False]) == pytest.approx(0.16)
    assert tf.mass_rate(FIVE, np.arange(5.0), np.ones(5, dtype=bool)) == pytest.approx(0.0, abs=1e-16)


def test_two_tied_heads_both_gain():
    pi = np.log([0.45, 0.45, 0.05, 0.05])
    rates = tf.live_rates(pi, tf.kept_tokens(pi, ratio=0.2))
    np.testing.assert_allclose(rates, [0.0045, 0.0045, -0.0045, -0.0045])  # c = 1/9, a = .405, b = .005


def test_advantage_of_pairs():
    """G = 2: A is 1 or -1 if the two differ, 0 else."""
    found = tf.token_advantage(0.3, 0.6, 2)
    assert (found.mean, found.negative) == pytest.approx((0.3 * 0.4 - 0.7 * 0.6, 0.7 * 0.6))
    halved = tf.token_advantage(0.3, 0.6, 2, epsilon=0.5)
    assert halved.mean == pytest.approx(found.mean / 2)
    assert tf.token_advantage(0.0, 2e-308, 8).negative == pytest.approx(0.0, abs=1e-300)
    assert tf.token_advantage(1.0, 0.0, 4).mean == pytest.approx(math.sqrt(3))  # the only success
    assert tf.token_advantage(0.0, 0.0, 8) == tf.TokenAdvantage(0.0, 0.0)
    assert tf.token_advantage(0.4, 0.4, 8).mean == pytest.approx(0.0, abs=1e-15)  # an average token


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(2, 12))
def test_advantage_by_sampling(success, overall, size):
    rng = np.random.default_rng(0)
    rewards = np.concatenate([rng.random((4000, 1)) < success, rng.random((4000, size - 1)) < overall], axis=1).astype(
        float
    )
    spread = rewards.std(axis=1)
    a = np.where(spread > 0, (rewards[:, 0] - rewards.mean(axis=1)) / np.where(spread > 0, spread, 1), 0.0)
    found = tf.token_advantage(success, overall, size)
    assert abs(a.mean() - found.mean) < 5 * math.sqrt(size) / math.sqrt(4000)  # |A| <= sqrt(G - 1)
    assert abs((a < 0).mean() - found.negative) < 5 * 0.5 / math.sqrt(4000)


def test_critical_pull():
    assert tf.critical_pull(tf.TokenAdvantage(-0.5, 0.8), 0.05) == pytest.approx(12.5)
    assert tf.critical_pull(tf.TokenAdvantage(0.1, 0.4), 0.05) == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tf.kept_tokens(FIVE), "ratio"),
        (lambda: tf.kept_tokens(FIVE, ratio=0.1, threshold=0.1), "ratio"),
        (lambda: tf.kept_tokens(FIVE, ratio=1.5), "ratio"),
        (lambda: tf.kept_tokens(FIVE, threshold=-0.1), "threshold"),
        (lambda: tf.kept_tokens([1.0, 2.0], ratio=0.1), "log_policy"),
        (lambda: tf.mass_rate(FIVE, np.zeros(4), np.ones(5, dtype=bool)), "force"),
        (lambda: tf.mass_rate(FIVE, np.zeros(5), np.ones(4, dtype=bool)), "event"),
        (lambda: tf.live_rates(FIVE, np.zeros(5, dtype=bool)), "kept.*keeps no mass"),
        (lambda: tf.denoising_rate(FIVE, np.zeros(5, dtype=bool)), "kept.*keeps no mass"),
        (lambda: tf.entropy_noise_rate(FIVE, np.zeros(5, dtype=bool)), "kept.*keeps no mass"),
        (lambda: tf.entropy_force([0.5, 0.5]), "log_policy"),
        (lambda: tf.token_advantage(1.2, 0.5, 8), "success"),
        (lambda: tf.token_advantage(0.2, -0.5, 8), "overall"),
        (lambda: tf.token_advantage(0.2, 0.5, 1), "group_size"),
        (lambda: tf.token_advantage(0.2, 0.5, 8, epsilon=-1.0), "epsilon"),
        (lambda: tf.critical_pull(tf.TokenAdvantage(-0.5, 0.8), 0.0), "proxy"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_wrong_kinds():
    with pytest.raises(TypeError, match="advantage"):
        tf.critical_pull(0.3, 0.1)
    with pytest.raises(TypeError, match="event"):
        tf.mass_rate(FIVE, np.zeros(5), np.full(5, 0.5))
