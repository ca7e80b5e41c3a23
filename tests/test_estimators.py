"""Estimators against enumeration of subsets, mpmath, and their defining expectations."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest

from klsim import estimators as est
from klsim.distributions import log_normalize
from klsim.divergences import kl


def test_k_estimators_in_expectation():
    rng = np.random.default_rng(0)
    p, q = (log_normalize(rng.standard_normal(6)) for _ in range(2))
    assert np.exp(p) @ est.k1(p - q) == pytest.approx(float(kl(p, q)))
    assert np.exp(p) @ est.k3(p - q) == pytest.approx(float(kl(p, q)))
    assert est.k2(0.5) == 0.125


def test_k3_is_stable_near_zero():
    for x in (1e-12, -1e-9, 1e-3, 0.499, 0.501, 30.0):
        with mpmath.workdps(50):
            want = mpmath.e ** (-mpmath.mpf(x)) - 1 + mpmath.mpf(x)
        assert float(est.k3(x)) == pytest.approx(float(want), rel=1e-13)
    assert est.k3(math.inf) == math.inf
    assert est.k3(-math.inf) == math.inf


def test_pass_at_k_by_subsets():
    for n, c, k in itertools.product(range(1, 7), range(7), range(7)):
        if c > n or k > n:
            continue
        outcomes = [1] * c + [0] * (n - c)
        hits = [any(s) for s in itertools.combinations(outcomes, k)]
        assert float(est.pass_at_k(n, c, k)) == pytest.approx(np.mean(hits), abs=1e-12)


def test_pass_at_k_of_many_samples():
    with mpmath.workdps(40):
        want = 1 - mpmath.binomial(10**6 - 37, 1000) / mpmath.binomial(10**6, 1000)
    assert float(est.pass_at_k(10**6, 37, 1000)) == pytest.approx(float(want), rel=1e-8)
    assert float(est.pass_at_k_exact(1e-18, 3)) == pytest.approx(3e-18)
    assert est.pass_at_k_exact(1.0, 5) == 1
    assert est.pass_at_k_exact(0.3, 0) == 0


def test_best_of_n_reward_by_subsets():
    rewards = np.array([0.3, 1.0, 1.0, -2.0, 0.7])
    for n in range(1, 6):
        want = np.mean([max(s) for s in itertools.combinations(rewards, n)])
        assert float(est.best_of_n_reward(rewards, n)) == pytest.approx(want)


def test_importance_weights_and_ess():
    log_ratio = np.array([0.0, 1.0, 800.0])
    np.testing.assert_allclose(est.importance_weights(log_ratio, truncate=2.0), [1.0, 2.0, 2.0])
    np.testing.assert_allclose(est.importance_weights(log_ratio, normalise=True), [0, 0, 1], atol=1e-300)
    assert est.effective_sample_size([1.0, 1.0, 1.0, 0.0]) == pytest.approx(3.0)
    assert est.effective_sample_size([1e300, 1e-300]) == pytest.approx(1.0)
    weights = np.array([[1.0, 2.0, 3.0], [5.0, 0.0, 0.0]])
    np.testing.assert_allclose(est.effective_sample_size(weights), [36 / 14, 1.0])  # each row by itself


def test_kept_fraction_by_quadrature():
    from scipy.integrate import quad
    from scipy.stats import beta

    for a, b, n in ((0.3, 0.5, 2), (2.0, 1.0, 16)):
        want, _ = quad(lambda p, a=a, b=b, n=n: beta.pdf(p, a, b) * (1 - p**n - (1 - p) ** n), 0, 1)
        assert float(est.kept_fraction(a, b, n)) == pytest.approx(want, rel=1e-5)


def test_leave_one_out():
    np.testing.assert_allclose(est.leave_one_out_mean([1.0, 2.0, 6.0]), [4.0, 3.5, 1.5])
    rows = np.array([[1e-300, 2e-300, 6e-300], [1e308, 1e308, -1e308]])  # each row in its own units
    np.testing.assert_allclose(est.leave_one_out_mean(rows), [[4e-300, 3.5e-300, 1.5e-300], [0.0, 0.0, 1e308]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: est.pass_at_k(3, 4, 1), "c"),
        (lambda: est.pass_at_k(3, 1, 4), "k"),
        (lambda: est.best_of_n_reward([1.0], 2), "at least"),
        (lambda: est.effective_sample_size([0.0, 0.0]), "all 0"),
        (lambda: est.leave_one_out_mean([1.0]), "two"),
        (lambda: est.mean_interval([1.0]), "two"),
        (lambda: est.k1(math.nan), "NaN"),
        (lambda: est.pass_at_k_exact(1.5, 2), "success"),
        (lambda: est.importance_weights([0.0], truncate=0.0), "truncate"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_support_threshold_is_the_miss_probability():
    p = float(est.support_threshold(8192))
    assert (1 - p) ** 8192 == pytest.approx(0.05)
    assert p < -math.log(0.05) / 8192


def test_support_change_by_hand():
    change = est.support_change([0.5, 0.5, 0.0, 0.0, 0.2], [0.5, 0.0, 0.5, 0.0, 0.3], 0.1)
    assert change == est.SupportChange(2, 1, 1, 1)
    assert change.retention == pytest.approx(2 / 3)
    assert change.discovery == pytest.approx(1 / 3)
    assert change.harmonic == pytest.approx(4 / 9)
    assert change.net == 0
    nothing = est.support_change([0.0], [0.0], 0.1)
    assert (nothing.retention, nothing.discovery, nothing.harmonic, nothing.net) == (1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_intervals_of_sizes_whose_squares_are_no_floats(scale):
    values = np.array([1.0, 2.0, 4.0, 5.0, 9.0])
    expected = scale * np.array(est.mean_interval(values))
    np.testing.assert_allclose(est.mean_interval(scale * values), expected, rtol=1e-12)


def test_the_interval_of_equal_values_is_a_point():
    assert est.mean_interval([0.0, 0.0]) == (0.0, 0.0)
    assert est.mean_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_an_interval_whose_end_is_no_float_is_refused():
    assert all(map(math.isfinite, est.mean_interval([1e308, 1.1e308, 1.2e308])))
    with pytest.raises(ValueError, match="values"):
        est.mean_interval([1.7e308, -1.7e308])
