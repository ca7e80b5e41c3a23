"""Proxy and gold: copulas, additive errors, curves, where to stop, forms; extremes and bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from klsim.continuous import best_of_n_reward, tilted
from klsim.proxy_gold import (
    ProxyGold,
    additive_error,
    along_best_of_n,
    along_tilt,
    best_of_n_form,
    gaussian_copula,
    stop_best_of_n,
    stop_tilt,
    tilt_form,
)

NORMAL = stats.norm()
PAIR = gaussian_copula(NORMAL, NORMAL, 0.5)
BENT = replace(PAIR, gold=0.8 * PAIR.proxy - 0.2 * PAIR.proxy**2)


@pytest.mark.parametrize("rho", [-1.0, -0.999, -0.3, 0.0, 0.7, 0.999, 1.0])
def test_normal_marginals_have_the_linear_conditional_mean(rho):
    pair = gaussian_copula(stats.norm(1.0, 2.0), stats.norm(-1.0, 3.0), rho)
    inside = np.abs(pair.proxy - 1) < 20
    np.testing.assert_allclose(pair.gold[inside], -1 + 3 * rho * (pair.proxy[inside] - 1) / 2, atol=1e-9)


@pytest.mark.parametrize("law", [stats.expon(), stats.t(3), stats.pareto(2.5), stats.uniform()])
def test_conditional_means_by_adaptive_quadrature(law):
    pair, rest = gaussian_copula(stats.logistic(), law, 0.6), 0.8
    for u in (-3.0, 0.0, 2.0):

        def integrand(v, u=u):
            s = 0.6 * u + rest * v
            return float(law.ppf(stats.norm.cdf(s)) if s < 0 else law.isf(stats.norm.sf(s))) * stats.norm.pdf(v)

        known = quad(integrand, -20, 20, epsabs=1e-12, limit=400, points=[-0.75 * u])[0]
        x = stats.logistic.ppf(stats.norm.cdf(u))
        assert pair.gold[np.argmin(np.abs(pair.proxy - x))] == pytest.approx(known, abs=1e-8)


@pytest.mark.parametrize("law", [NORMAL, stats.logistic(), stats.gumbel_r(), stats.uniform()])
def test_proxy_rewards_are_those_of_the_other_rule(law):
    pair = gaussian_copula(law, NORMAL, 0.3)
    for beta in (1.5, 30.0):
        mine, other = along_tilt(pair, beta), tilted(law, beta)
        assert mine.proxy == pytest.approx(other.reward, abs=1e-10)
        assert mine.kl == pytest.approx(other.kl, rel=1e-8, abs=0)
    for n in (1, 2.5, 1000):
        assert along_best_of_n(pair, n).proxy == pytest.approx(best_of_n_reward(law, n), abs=1e-9)


def test_kl_of_faint_tilts_keeps_its_digits():
    np.testing.assert_allclose(along_tilt(PAIR, 1e7).kl, 0.5e-14, rtol=1e-9)
    np.testing.assert_allclose(along_best_of_n(PAIR, 1 + 1e-8).kl, 0.5e-16, rtol=1e-6)


def test_additive_normal_error_is_a_gaussian_copula():
    pair = additive_error(stats.norm(scale=1.5), stats.norm(scale=2.0))
    inside = np.abs(pair.proxy) < 60
    np.testing.assert_allclose(pair.gold[inside], pair.proxy[inside] * 2.25 / 6.25, atol=1e-9)
    np.testing.assert_allclose(pair.log_cdf, stats.norm(scale=2.5).logcdf(pair.proxy), rtol=1e-6, atol=1e-9)
    assert along_best_of_n(pair, 50).gold == pytest.approx(1.5 * 0.6 * best_of_n_reward(NORMAL, 50), abs=1e-8)
    assert along_tilt(pair, 5.0).gold == pytest.approx(2.25 / 5, abs=1e-9)


def test_a_heavy_error_brings_gold_back():
    pair = additive_error(NORMAL, stats.t(2.2))
    stop = stop_best_of_n(pair)
    assert stop.interior
    assert 2 < stop.at < 1e5
    golds = [along_best_of_n(pair, n).gold for n in (1, 10, 1e6, 1e12)]
    assert abs(golds[0]) < 1e-9
    assert golds[1] > golds[2] > golds[3] > 0
    with pytest.raises(ValueError, match="infinite"):
        along_tilt(pair, 1.0)


def test_where_to_stop():
    stop = stop_tilt(BENT)
    assert stop.interior
    assert stop.kl == pytest.approx(0.8**2 / (8 * 0.04), rel=1e-9)
    assert stop.at == pytest.approx(1 / np.sqrt(2 * stop.kl), rel=1e-9)
    rising = stop_tilt(PAIR, largest=3.0)
    assert not rising.interior
    assert rising.kl == pytest.approx(3.0, rel=1e-9)
    assert not stop_best_of_n(PAIR, 100).interior
    assert stop_best_of_n(PAIR, 100).at == 100
    best = stop_best_of_n(BENT)
    golds = [along_best_of_n(BENT, n).gold for n in range(1, 200)]
    assert best.at == 1 + int(np.argmax(golds))


def test_forms():
    alpha, beta = tilt_form(BENT)
    assert (alpha, beta) == pytest.approx((0.8 * np.sqrt(2), 0.4), rel=1e-10)
    pair = gaussian_copula(stats.uniform(), stats.uniform(), 1.0)  # best of n has reward n/(n+1)
    alpha, beta = best_of_n_form(pair)
    d, gains = [], []
    for e in (1e-3, 2e-3):
        point = along_best_of_n(pair, 1 + e)
        d.append(np.sqrt(point.kl))
        gains.append((1 + e) / (2 + e) - 0.5)
    slopes = np.array(gains) / d
    assert alpha == pytest.approx(2 * slopes[0] - slopes[1], rel=1e-5)
    assert beta == pytest.approx(-(slopes[1] - slopes[0]) / (d[1] - d[0]), rel=1e-2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaussian_copula(1.0, NORMAL, 0.5), "proxy"),
        (lambda: gaussian_copula(NORMAL, 1.0, 0.5), "gold"),
        (lambda: gaussian_copula(NORMAL, NORMAL, 1.5), "rho"),
        (lambda: gaussian_copula(NORMAL, NORMAL, 0.9999), "rho"),
        (lambda: gaussian_copula(stats.pareto(0.2), NORMAL, 0.5), "proxy"),
        (lambda: additive_error(NORMAL, stats.randint(0, 5)), "error"),
        (lambda: along_tilt(NORMAL, 1.0), "pair"),
        (lambda: along_tilt(PAIR, 0.0), "beta"),
        (lambda: along_tilt(gaussian_copula(stats.expon(), NORMAL, 0.5), 0.5), "beta"),
        (lambda: along_best_of_n(PAIR, 0.5), "n"),
        (lambda: stop_tilt(PAIR, 0.0), "largest"),
        (lambda: stop_tilt(gaussian_copula(stats.pareto(3), NORMAL, 0.5)), "no tilt"),
        (lambda: stop_best_of_n(PAIR, 0), "largest"),
        (lambda: ProxyGold(np.arange(3), np.arange(3), np.zeros(3), np.zeros(3)), "log_weight"),
        (lambda: ProxyGold(np.arange(2), np.arange(2), np.zeros(2), np.zeros(2)), "proxy"),
        (lambda: replace(PAIR, proxy=PAIR.proxy[::-1]), "proxy"),
        (lambda: replace(PAIR, log_cdf=PAIR.log_cdf + 1), "log_cdf"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
