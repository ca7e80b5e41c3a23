"""The best-of-N law against mpmath, enumeration, and the sampler."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from klsim import best_of_n as bon
from klsim.distributions import log_normalize


def exact_law(log_p, reward, log_n, digits=400):
    """``(p, law)`` in mpmath with enough digits for N = exp(800)."""
    with mpmath.workdps(digits):
        n = mpmath.e ** mpmath.mpf(log_n)
        p = [mpmath.e ** mpmath.mpf(float(x)) if np.isfinite(x) else mpmath.mpf(0) for x in log_p]
        p = [x / sum(p) for x in p]
        law = []
        for mass, r in zip(p, reward):
            upto = sum(q for q, x in zip(p, reward) if x <= r)
            below = sum(q for q, x in zip(p, reward) if x < r)
            law.append(mass * (upto**n - below**n) / (upto - below) if mass > 0 else mpmath.mpf(0))
        return p, law


def stress(seed):
    """Probabilities down to 1e-60 and below, ties, and an outcome without support."""
    rng = np.random.default_rng(seed)
    log_p = log_normalize(rng.standard_normal(6) * (1, 10, 60)[seed % 3])
    if seed % 4 == 0:
        log_p = log_normalize(np.where(np.arange(6) == 2, -np.inf, log_p))
    reward = rng.standard_normal(6)
    return log_p, np.round(2 * reward) if seed % 2 else reward


@pytest.mark.parametrize("log_n", [-7.0, 0.0, 1.0, 3.0, math.log(1e15), 120.0, 800.0])
def test_law_at_400_digits(log_n):
    for seed in range(8):
        log_p, reward = stress(seed)
        _, law = exact_law(log_p, reward, log_n)
        got = bon.log_policy(log_p, reward, log_n=log_n)
        for have, want in zip(got, law):
            if want > mpmath.mpf(10) ** -300:
                assert abs(float(have) - mpmath.log(want)) <= 1e-12
            else:
                assert have < -690


@pytest.mark.parametrize("log_n", [1.0, 3.0, 34.5, 120.0])
def test_kl_at_400_digits(log_n):
    for seed in range(8):
        log_p, reward = stress(seed)
        p, law = exact_law(log_p, reward, log_n)
        with mpmath.workdps(400):
            want = sum(b * mpmath.log(b / a) for a, b in zip(p, law) if b > 0)
        # log-probabilities near 0 are only known to their own rounding
        assert abs(float(bon.kl(log_p, reward, log_n=log_n)) - want) <= 1e-12 * want + 1e-30


def test_one_draw_is_the_reference_and_many_are_the_best():
    log_p, reward = np.log([0.2, 0.3, 0.5]), [1.0, 1.0, 0.0]
    np.testing.assert_allclose(bon.log_policy(log_p, reward, 1), log_p, atol=1e-15)
    np.testing.assert_allclose(np.exp(bon.log_policy(log_p, reward, 1e15)), [0.4, 0.6, 0.0], atol=1e-15)
    assert float(bon.kl(log_p, reward, 1)) == pytest.approx(0.0, abs=1e-30)


def test_numbers_by_hand():
    # fair coin, N = 2: (1/4, 3/4)
    np.testing.assert_allclose(np.exp(bon.log_policy(np.log([0.5, 0.5]), [0.0, 1.0], 2)), [0.25, 0.75])
    assert float(bon.expected_reward(np.log([0.5, 0.5]), [0.0, 1.0], 2)) == pytest.approx(0.75)
    assert float(bon.win_rate(np.log([0.5, 0.5]), [0.0, 1.0], 2)) == pytest.approx(0.25 * 0.25 + 0.75 * 0.75)
    assert float(bon.kl_upper_bound(1)) == 0
    assert float(bon.kl_upper_bound(1 + 1e-9)) == pytest.approx(5e-19, rel=1e-6)
    assert float(bon.kl_upper_bound(log_n=120.0)) == pytest.approx(119.0)
    np.testing.assert_allclose(bon.mid_quantile(np.log([0.25, 0.75]), [1.0, 0.0]), [0.875, 0.375])


def test_estimator_limits_and_its_model():
    assert float(bon.kl_estimate(0.0, 7)) == 0
    assert float(bon.kl_estimate(-700.0, 7)) == pytest.approx(float(bon.kl_upper_bound(7)), rel=1e-12)
    eps, fine, n = 0.3, 4000, 5  # a top outcome of mass eps over a fine uniform law
    log_p = np.log(np.concatenate([np.full(fine, (1 - eps) / fine), [eps]]))
    exact = float(bon.kl(log_p, np.arange(fine + 1.0), n))
    assert float(bon.kl_estimate(math.log(eps), n)) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("log_n", [1e-9, 0.7, 30.0, 700.0, 800.0])
def test_estimator_at_50_digits(log_n):
    """Also where ``N eps`` is of order one and N or eps is no float; beside terms of order ``eps`` near N = 1."""
    for log_prob in (-1e-3, -0.7, -39.9, -40.1, -700.0, -log_n - 1.0, -log_n, 1.0 - log_n):
        if log_prob > 0:
            continue
        with mpmath.workdps(50):
            x, a = mpmath.mpf(log_n), mpmath.mpf(log_prob)
            rest = mpmath.log1p(-mpmath.exp(a)) if log_prob > -100 else -mpmath.exp(a)
            power = mpmath.exp(x) * rest
            missed, hit = mpmath.exp(power), -mpmath.expm1(power)
            exact = missed * (x + power * (1 - mpmath.exp(-x)) + mpmath.expm1(-x)) + hit * (mpmath.log(hit) - a)
        found = float(bon.kl_estimate(log_prob, log_n=log_n))
        assert found == pytest.approx(float(exact), rel=1e-12, abs=1e-16), log_prob


def test_batches_and_torch():
    log_p, reward = log_normalize(np.zeros((2, 3, 4))), np.arange(4.0)
    n = np.array([1.0, 2.0, 8.0])
    batched = bon.log_policy(log_p, reward, n)
    for j in range(3):
        np.testing.assert_allclose(batched[1, j], bon.log_policy(log_p[1, j], reward, n[j]))
    tensor = bon.log_policy(torch.tensor(log_p), torch.tensor(reward), torch.tensor(n))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), batched)


def test_sampler_matches_the_law():
    log_p, reward = np.log([0.3, 0.25, 0.2, 0.15, 0.1]), np.array([0.0, 1, 1, 2, 2])
    law = np.exp(bon.log_policy(log_p, reward, 4))
    np.testing.assert_allclose(law, [0.0081, 0.1713, 0.1370, 0.4102, 0.2734], atol=5e-5)
    counts = np.bincount(bon.sample(log_p, reward, 4, 100_000, 0), minlength=5)
    assert np.abs((counts - 1e5 * law) / np.sqrt(1e5 * law * (1 - law))).max() < 5


def test_quantile_tilt_against_mpmath():
    for c in (1e-5, 0.2999, 0.3001, 1.0, 50.0, 700.0):
        with mpmath.workdps(50):
            x = mpmath.mpf(c)
            win = 1 - 1 / x + 1 / (mpmath.e**x - 1)
            divergence = mpmath.log(x / (mpmath.e**x - 1)) + x * win
            got = bon.quantile_tilt(c)
            assert abs(float(got[0]) - win) <= 1e-14
            assert abs(float(got[1]) - divergence) <= 1e-12 * divergence


def test_optimal_win_rate_inverts_the_tilt():
    for c in (1e-3, 0.1, 2.0, 30.0):
        win, budget = bon.quantile_tilt(c)
        assert float(bon.optimal_win_rate(budget)) == pytest.approx(float(win), rel=1e-10)
    assert bon.optimal_win_rate(0.0) == 0.5


def test_reward_law_merges_ties():
    law = bon.reward_law(np.log([0.1, 0.2, 0.3, 0.4]), [2.0, 1.0, 2.0, 0.0])
    np.testing.assert_array_equal(law.value, [0, 1, 2])
    np.testing.assert_allclose(np.exp(law.log_prob), [0.4, 0.2, 0.4])


@pytest.mark.slow
def test_ten_million_outcomes():
    rng = np.random.default_rng(0)
    log_p = np.full(10**7, -math.log(1e7))
    gap = float(bon.kl_upper_bound(1e5)) - float(bon.kl(log_p, rng.random(10**7), 1e5))
    # the gap of K equal outcomes is about N²/(24 K²) for N << K
    assert gap == pytest.approx(1e10 / 24e14, rel=0.05)


@pytest.mark.parametrize("bad", [{}, {"n": 2, "log_n": 1.0}])
def test_exactly_one_of_n_and_log_n(bad):
    with pytest.raises(TypeError, match="exactly one"):
        bon.kl(np.log([0.5, 0.5]), [0.0, 1.0], **bad)


def test_a_number_of_draws_of_another_shape_names_the_batch():
    log_ref = np.log(np.full((4, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"n \(log_n\): shape \(5,\) must broadcast to the batch shape \(4,\)"):
        bon.kl(log_ref, [0.0, 1.0, 2.0], np.arange(1, 6))


@pytest.mark.parametrize("n", [1.05, 64.0])
def test_several_long_rows_are_those_of_each(n):
    """A long row alone is sorted and summed in pieces, several are not."""
    rng = np.random.default_rng(3)
    log_p, reward = rng.standard_normal((2, 1 << 16)), rng.random((2, 1 << 16))
    log_p[1, ::9], reward[1] = -np.inf, np.round(100 * reward[1])
    log_p = log_normalize(log_p)
    for f in (bon.kl, bon.expected_reward, bon.log_policy, bon.win_rate):
        each = [f(p, r, n) for p, r in zip(log_p, reward)]
        np.testing.assert_allclose(f(log_p, reward, n), each, rtol=1e-12)
    each = [bon.mid_quantile(p, r) for p, r in zip(log_p, reward)]
    np.testing.assert_allclose(bon.mid_quantile(log_p, reward), each, rtol=1e-12)


def test_long_rows_are_checked_at_the_door():
    size = 70_000
    log_p, reward = np.full(size, -np.log(size)), np.arange(size, dtype=float)
    assert np.isfinite(bon.log_policy(log_p, reward, 4)).all()
    for place, p, r, match in (
        (7, np.nan, 1.0, r"log_ref\[7\]"),
        (69_999, np.inf, 1.0, r"log_ref\[69999\]"),
        (5, 0.0, 1.0, "sum to"),
        (9, -np.log(size), np.nan, r"reward\[9\]"),
        (9, -np.log(size), np.inf, r"reward\[9\]"),
    ):
        bad_p, bad_r = log_p.copy(), reward.copy()
        bad_p[place], bad_r[place] = p, r
        with pytest.raises(ValueError, match=match):
            bon.log_policy(bad_p, bad_r, 4)
    with pytest.raises(ValueError, match="positive probability"):
        bon.log_policy(np.full(size, -np.inf), reward, 4)


def test_what_sums_of_probabilities_would_lose_goes_through_sums_of_logs():
    size = 70_000
    log_p = np.full(size, -900.0)
    log_p[0] = 0.0
    law = bon.log_policy(log_p, np.arange(size, dtype=float), log_n=880.0)
    assert abs(law[-1] - (880 - 900)) < 1e-8  # N p = e^-20: the probability that it is drawn at all
