"""Rewards with a density: closed forms, extremes, laws without an optimum, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from klsim.continuous import best_of_n_reward, kl_frontier, quantile_rule, tilted


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("ratio", [0.05, 1.0, 1e6])
def test_normal_rewards_of_every_size(scale, ratio):
    found = tilted(stats.norm(scale, scale), ratio * scale)
    np.testing.assert_allclose(
        [found.reward, found.value], scale * np.array([1 + 1 / ratio, 1 + 0.5 / ratio]), rtol=1e-11
    )
    np.testing.assert_allclose(found.kl, 0.5 / ratio**2, rtol=1e-9, atol=1e-15)


def test_the_frontier_inverts_the_tilt():
    for law in (stats.norm(2, 3), stats.uniform(), stats.gumbel_r(scale=0.2)):
        found = tilted(law, 0.7)
        again = kl_frontier(law, found.kl)
        np.testing.assert_allclose([again.beta, again.reward], [0.7, found.reward], rtol=1e-9)


def test_best_of_n():
    np.testing.assert_allclose(best_of_n_reward(stats.norm(), 2), 1 / np.sqrt(np.pi), rtol=1e-13)
    np.testing.assert_allclose(best_of_n_reward(stats.uniform(), 9.5), 9.5 / 10.5, rtol=1e-13)
    np.testing.assert_allclose(best_of_n_reward(stats.norm(3, 2), 1), 3, rtol=1e-13)
    np.testing.assert_allclose(best_of_n_reward(stats.expon(), 1e12), np.log(1e12) + np.euler_gamma, rtol=1e-12)


def test_weights_add_up():
    x, log_w = quantile_rule(stats.norm())
    np.testing.assert_allclose([np.exp(log_w).sum(), np.exp(log_w) @ x**2], 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tilted(stats.pareto(2), 1e6), "is infinite"),
        (lambda: tilted(stats.expon(), 0.9), "is infinite"),
        (lambda: tilted(stats.norm(), 0.0), "beta"),
        (lambda: tilted(stats.norm(), np.inf), "beta"),
        (lambda: tilted("normal", 1.0), "law: must be a law"),
        (lambda: tilted(stats.norm(np.nan, 1), 1.0), "NaN"),
        (lambda: kl_frontier(stats.pareto(2), 1.0), "its frontier is infinite"),
        (lambda: kl_frontier(stats.norm(), 0.0), "budget"),
        (lambda: kl_frontier(stats.uniform(), 1e5), "budget"),
        (lambda: best_of_n_reward(stats.norm(), 0.5), "n = 0.5"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("n", [2.0, 50.0, 1e6])
@pytest.mark.parametrize("a", [1.2, 2.0, 5.0])
def test_best_of_n_of_heavy_tails_at_50_digits(a, n):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):
        wanted = mpmath.gamma(n + 1) * mpmath.gamma(1 - 1 / mpmath.mpf(a)) / mpmath.gamma(n + 1 - 1 / mpmath.mpf(a))
    np.testing.assert_allclose(best_of_n_reward(stats.pareto(a), n), float(wanted), rtol=1e-12)


@pytest.mark.parametrize("n", [1.0, 3.0, 1e3, 1e8])
def test_best_of_n_of_light_tails_at_50_digits(n):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):
        exponential = mpmath.harmonic(n)
        density = lambda x: mpmath.npdf(x) * n * mpmath.ncdf(x) ** (n - 1) * x  # noqa: E731
        normal = mpmath.quad(density, [-12, -4, 0, 2, 4, 5, 6, 7, 9, 14])
    np.testing.assert_allclose(best_of_n_reward(stats.expon(), n), float(exponential), rtol=1e-12)
    np.testing.assert_allclose(best_of_n_reward(stats.norm(), n), float(normal), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("beta", [1.06, 1.5, 4.0, 1e4])
def test_tilted_exponential_rewards(beta):
    """``value = -beta log(1 - 1/beta)``, reward ``beta/(beta - 1)``."""
    found, rho = tilted(stats.expon(), beta), beta / (beta - 1)
    np.testing.assert_allclose([found.value, found.reward], [-beta * np.log1p(-1 / beta), rho], rtol=1e-12)
    np.testing.assert_allclose(found.kl, rho - 1 - np.log(rho), rtol=1e-9)


@pytest.mark.parametrize("law", [stats.pareto(0.9), stats.pareto(1.01), stats.cauchy(), stats.t(1.0)])
def test_no_best_of_n_without_a_mean(law):
    with pytest.raises(ValueError, match="law: has a mean, or one of the best of n, that is infinite"):
        best_of_n_reward(law, 4)
