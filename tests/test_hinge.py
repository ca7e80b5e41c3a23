"""Hinge on the KL: worked values, a generic optimiser, idle and extreme cases, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.hinge import hinge_penalty, hinge_regularized, hinge_slope


def uniform(n):
    return np.full(n, -math.log(n))


def test_worked_values():
    found = hinge_regularized(uniform(8), np.arange(8) / 7, [0.1, 1.0, 10.0], 0.2)
    np.testing.assert_allclose(found.beta, [0.154395, 0.335928, 0.455560], atol=1e-6)
    np.testing.assert_allclose(found.kl - 0.2, [0.771975, 0.167964, 0.022778], atol=1e-6)
    assert found.converged
    assert np.all(found.gap < 1e-12)


@given(st.integers(0, 100), st.floats(0.05, 20.0), st.floats(0.0, 0.8))
def test_no_worse_than_a_generic_optimiser(seed, factor, tau):
    rng = np.random.default_rng(seed)
    log_ref, reward = log_normalize(rng.standard_normal(5)), rng.standard_normal(5)
    found = hinge_regularized(log_ref, reward, factor, tau)

    def loss(z):
        log_pi = log_normalize(z)
        pi, gap = np.exp(log_pi), log_pi - log_ref
        return -(pi @ reward - factor * max(pi @ gap - tau, 0.0) ** 2)

    assert float(found.value) >= -minimize(loss, log_ref, method="BFGS").fun - 1e-9
    assert float(found.beta) == pytest.approx(float(hinge_slope(found.kl, tau, factor)), rel=1e-9, abs=1e-12)


def test_idle_where_the_best_are_within_the_threshold():
    found = hinge_regularized(np.log([0.5, 0.25, 0.25]), [1.0, 1.0, 0.0], 3.0, 0.3)  # -log .75 = .288
    np.testing.assert_allclose(np.exp(found.log_policy), [2 / 3, 1 / 3, 0.0], atol=1e-15)
    assert (float(found.value), float(found.beta)) == (pytest.approx(1.0), 0.0)


def test_constant_rewards_leave_the_reference():
    found = hinge_regularized(np.log([0.2, 0.8]), [0.7, 0.7], 1.0, 0.0)
    np.testing.assert_allclose(np.exp(found.log_policy), [0.2, 0.8], rtol=1e-15)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_extremes(scale, factor):
    found = hinge_regularized(uniform(4), scale * np.array([0.0, 0.2, 0.5, 1.0]), factor, 0.3)
    assert found.converged
    assert 0.3 - 1e-14 < float(found.kl) <= math.log(4) + 1e-12


def test_excluded_arms_do_not_count():
    found = hinge_regularized([math.log(0.5), math.log(0.5), -math.inf], [0.0, 1.0, 9.0], 1.0, 0.1)
    assert float(found.reward) < 1
    assert np.exp(found.log_policy)[2] == 0


def test_penalty_and_slope():
    np.testing.assert_allclose(hinge_penalty([-1.0, 0.3, 0.5], 0.3, 2.0), [0.0, 0.0, 0.08], atol=1e-15)
    np.testing.assert_allclose(hinge_slope([-1.0, 0.3, 0.5], 0.3, 2.0), [0.0, 0.0, 0.8], atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((uniform(2), [0.0, 1.0], 0.0, 0.1), "factor"),
        ((uniform(2), [0.0, 1.0], 1.0, -0.1), "threshold"),
        ((uniform(2), [0.0, math.inf], 1.0, 0.1), "reward"),
        ((uniform(2), [0.0, 1.0, 2.0], 1.0, 0.1), "reward"),
        (([0.0, 0.0], [0.0, 1.0], 1.0, 0.1), "log_ref"),
        ((uniform(2), [0.0, 1.0], 1e200, 0.1), "factor"),
        ((uniform(2), [0.0, 1.0], [1.0, 2.0, 3.0], [0.1, 0.2]), "factor"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        hinge_regularized(*arguments)


def test_bad_penalty():
    with pytest.raises(ValueError, match="divergence"):
        hinge_penalty(math.nan, 0.3, 1.0)


def test_a_best_mass_that_rounds_to_one_is_idle():
    """Nothing to lose, or a threshold that is missed by rounding: no NaN at the root."""
    for log_ref, reward in ((np.log([0.5, 0.5]), [1.0, 1.0]), (np.log([1 - 1e-16, 1e-16]), [1.0, 0.0])):
        found = hinge_regularized(log_ref, reward, 1.0, 0.0)
        assert float(found.value) == 1.0
        assert float(found.beta) == 0.0
    tied = hinge_regularized(np.log([0.1, 0.2, 0.7]), [1.0, 1.0, 1.0], 3.0, 0.0)
    assert np.isfinite(tied.log_policy).all()
