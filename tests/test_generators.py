"""Sums of f-divergences: Lambert's function, every function of a generator, optima with their gap, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import lambertw

from klsim.distributions import log_normalize, tilt
from klsim.divergences import GENERATORS, f_divergence
from klsim.generators import weighted_sum
from klsim.optima import f_regularized

RNG = np.random.default_rng(0)
LOG_P, LOG_Q = (log_normalize(2 * RNG.standard_normal(6)) for _ in range(2))
REWARD = RNG.standard_normal(6)
KL, CHI2, JS = (GENERATORS[name] for name in ("kl", "chi2", "js"))
SUMS = [CHI2 + 0.1 * KL, KL + GENERATORS["forward_kl"], 0.5 * CHI2 + JS, 3 * JS, KL + 2 * (CHI2 + KL)]


@pytest.mark.parametrize("total", SUMS, ids=lambda g: g.name)
def test_the_divergence_of_a_sum_is_the_sum(total):
    parts = sum(c * f_divergence(LOG_P, LOG_Q, g) for c, g in total.terms)
    np.testing.assert_allclose(f_divergence(LOG_P, LOG_Q, total), parts, rtol=1e-13)


@pytest.mark.parametrize("total", SUMS, ids=lambda g: g.name)
@pytest.mark.parametrize("beta", [1e-8, 1e-2, 1.0, 1e4])
def test_optima_carry_a_gap_at_rounding(total, beta):
    found = f_regularized(LOG_Q, REWARD, beta, total)
    assert found.converged
    assert found.gap < 1e-13 * (1 + beta)
    others = log_normalize(found.log_policy + 0.1 * RNG.standard_normal((50, 6)))
    assert (np.exp(others) @ REWARD - beta * f_divergence(others, LOG_Q, total)).max() <= found.value + 1e-12 * (
        1 + beta
    )


def test_kl_and_chi2_by_lamberts_function():
    y, c = np.linspace(-30, 5, 36), 0.7
    wanted = lambertw(2 * c * np.exp(y + 2 * c)).real / (2 * c)  # log t + 2 c (t - 1) = y
    np.testing.assert_allclose((KL + c * CHI2).inverse_derivative(y), wanted, rtol=1e-12)
    total = KL + c * CHI2
    np.testing.assert_allclose(total.derivative(total.inverse_derivative(y)), y, rtol=1e-9, atol=1e-12)


def test_names_ends_and_one_term():
    assert (CHI2 + 0.1 * KL).name == "chi2 + 0.1 kl"
    assert (KL + 2 * (CHI2 + KL)).name == "kl + 2 chi2 + 2 kl"
    assert (JS + JS).recession == 2 * JS.recession
    np.testing.assert_allclose(
        f_regularized(LOG_Q, REWARD, 0.3, 1.0 * KL).log_policy, tilt(LOG_Q, REWARD, 0.3), atol=1e-13
    )


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: weighted_sum(), ValueError, "terms"),
        (lambda: 0.0 * KL, ValueError, "coefficient = 0.0"),
        (lambda: -1.0 * KL, ValueError, "coefficient"),
        (lambda: KL + GENERATORS["tv"], ValueError, "tv has a kink"),
        (lambda: KL + 1.0, TypeError, "unsupported"),
        (lambda: weighted_sum((1.0, "kl")), TypeError, "generator"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
