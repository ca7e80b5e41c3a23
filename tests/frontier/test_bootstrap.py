"""Intervals over prompts, against resamples made one by one, and against other libraries."""

import math

import numpy as np
import pytest
from scipy import stats

from klsim.frontier.bootstrap import ALLOWED, Bootstrap, carriers, carriers_needed
from klsim.kernels.groups import counted


def test_resamples_are_counted():
    drawn = np.random.default_rng(0).integers(0, 9, (20, 9))
    out = np.empty((20, 9), np.uint8)
    counted(drawn, out)
    assert np.array_equal(out, [np.bincount(row, minlength=9) for row in drawn])


def test_a_mean_has_the_studentised_interval():
    """Resample by resample: ``t* = (m* - m) / s*``, and ``m - t*_q s`` at the two quantiles."""
    x = np.random.default_rng(1).gamma(4, size=60)
    boot = Bootstrap(np.ones(60), 0.95, 400, 7)
    draws = np.random.default_rng(7).integers(0, 60, (400, 60))
    t = np.array([(x[rows].mean() - x.mean()) / x[rows].std() for rows in draws])
    high, low = x.mean() - np.quantile(t, [0.025, 0.975]) * x.std()
    found = boot.of_mean(x)
    assert (found.value, found.low, found.high) == pytest.approx((x.mean(), low, high), rel=1e-9)
    # the law is skewed to the right, and so is the doubt
    assert found.high - found.value > found.value - found.low


def test_blocks_of_equally_many_prompts_are_like_prompts():
    x = np.random.default_rng(2).normal(size=50)
    one, three = Bootstrap(np.ones(50), 0.9, 300, 0).of_mean(x), Bootstrap(np.full(50, 3.0), 0.9, 300, 0).of_mean(3 * x)
    assert (three.low, three.high) == pytest.approx((one.low, one.high), rel=1e-9)


def test_a_share_of_prompts_has_the_interval_of_wilson():
    x = np.zeros(150)
    x[:10] = 1
    found = Bootstrap(np.ones(150), 0.95, 100, 0).of_mean(x)
    wilson = stats.binomtest(10, 150).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), rel=1e-12)
    assert found.trusted


def test_trust_is_a_bound_on_the_kurtosis():
    """The largest excess kurtosis that is trusted loses `ALLOWED` of the coverage by Hall's formula."""
    z = stats.norm.ppf(0.975)
    for prompts in (100, 1000):
        kurtosis = prompts / carriers_needed(prompts, 0.95) - 3
        assert z * (1 + 2 * z**2) * stats.norm.pdf(z) * kurtosis / (3 * prompts) == pytest.approx(ALLOWED)
    assert carriers_needed(8, 0.95) == 4


def test_one_prompt_that_carries_all_is_not_trusted():
    x = np.zeros(200)
    x[3] = 1e12
    assert carriers(x - x.mean()) == pytest.approx(1, abs=0.02)
    found = Bootstrap(np.ones(200), 0.95, 200, 0).of_mean(x + np.linspace(0, 1, 200))
    assert "1.0 of 200 prompts carry it" in found.reason
    assert math.isfinite(found.high)


def test_what_does_not_vary_has_no_interval():
    assert "nothing varies" in Bootstrap(np.ones(20), 0.95, 100, 0).of_mean(np.full(20, 0.3)).reason
