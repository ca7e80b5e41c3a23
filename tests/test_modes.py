"""Floors, prices and certificates of modes, against the optima themselves, generic root finders and mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from klsim.distributions import condition
from klsim.divergences import GENERATORS, Alpha, f_divergence
from klsim.modes import beta_for_success, cost_of_losing, least_mass, log_ratio_floor
from klsim.optima import f_regularized

KEEPING = [g for g in (*GENERATORS.values(), Alpha(0.8)) if np.isinf(g.slope_at_zero)]


@given(
    st.lists(st.tuples(st.floats(0.05, 1), st.floats(-2, 2)), min_size=2, max_size=6),
    st.floats(0.05, 10),
    st.sampled_from(KEEPING),
)
def test_no_optimum_goes_below_the_floor(outcomes, beta, generator):
    weights, reward = np.array(outcomes).T
    log_ref = np.log(weights / weights.sum())
    lowest = np.min(f_regularized(log_ref, reward, beta, generator).log_policy - log_ref)
    assert log_ratio_floor(np.ptp(reward), beta, generator) <= lowest + 1e-9


@pytest.mark.parametrize("generator", KEEPING, ids=lambda g: g.name)
def test_the_floor_is_reached_where_the_best_outcome_has_all_the_mass(generator):
    log_ref = np.log([1 - 1e-12, 1e-12])
    lowest = np.min(f_regularized(log_ref, [1.0, 0.0], 0.5, generator).log_policy - log_ref)
    assert log_ratio_floor(1.0, 0.5, generator) == pytest.approx(lowest, rel=1e-9)


def test_floors_of_generators_that_let_go_and_at_extremes():
    assert log_ratio_floor([1.0, 3.0], 1.0, "chi2").tolist() == [np.log(0.5), -np.inf]
    assert log_ratio_floor(1e6, 1e-3, "kl") == -1e9
    assert log_ratio_floor(0.0, 1.0, "js") == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("generator", KEEPING, ids=lambda g: g.name)
@pytest.mark.parametrize(("base", "success"), [(0.3, 0.7), (1e-6, 0.999), (0.5, 0.5 + 1e-6)])
def test_the_optimum_at_that_coefficient_has_that_success(generator, base, success):
    beta = beta_for_success(base, success, generator)
    found = f_regularized(np.log([base, 1 - base]), [1.0, 0.0], beta, generator)
    assert found.reward == pytest.approx(success, rel=1e-8)


@pytest.mark.parametrize("generator", [*GENERATORS.values(), Alpha(0.8)], ids=lambda g: g.name)
@pytest.mark.parametrize("mass", [0.0, 1e-9, 0.3, 0.9])
def test_losing_a_mode_costs_the_divergence_of_what_is_left(generator, mass):
    with np.errstate(divide="ignore"):
        log_ref = np.log([mass, 0.4 * (1 - mass), 0.6 * (1 - mass)])
    left = condition(log_ref, np.array([False, True, True]))
    assert cost_of_losing(mass, generator) == pytest.approx(float(f_divergence(left, log_ref, generator)), rel=1e-6)
    if mass == 1e-9 and np.isfinite(generator.at_zero + generator.curvature):  # (1 - m) f(1/(1 - m)) is of order m²
        assert cost_of_losing(mass, generator) == pytest.approx(mass * generator.at_zero, rel=1e-8)


@given(st.floats(1e-3, 1 - 1e-3), st.floats(0, 5))
def test_least_mass_solves_its_equation(mass, budget):
    p = float(least_mass(mass, budget))
    q = 1 - mass
    if p < 1e-250:
        return
    at = mpmath.mpf(p)
    exact = mass * mpmath.log(mass / at) + q * mpmath.log(q / (1 - at))
    assert float(exact) == pytest.approx(budget, abs=1e-9)
    assert p <= mass


def test_least_mass_at_the_ends():
    assert least_mass([0.0, 1.0, 0.3], 0.0).tolist() == pytest.approx([0.0, 1.0, 0.3], abs=1e-7)
    assert least_mass(1.0, 2.0) == pytest.approx(np.exp(-2.0))
    assert least_mass(1e-3, 700.0) == 0.0  # it underflows

    def excess(p):
        return 0.3 * np.log(0.3 / p) + 0.7 * np.log(0.7 / (1 - p)) - 0.5

    assert least_mass(0.3, 0.5) == pytest.approx(brentq(excess, 1e-9, 0.3, xtol=1e-15))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_ratio_floor(-1.0, 1.0, "kl"), "spread"),
        (lambda: log_ratio_floor(1.0, 0.0, "kl"), "beta"),
        (lambda: log_ratio_floor(1.0, 1.0, "tv"), "generator"),
        (lambda: log_ratio_floor(1.0, 1.0, "hell"), "generator"),
        (lambda: beta_for_success(0.5, 0.5, "kl"), "success.*exceed base"),
        (lambda: beta_for_success(0.5, 1.0, "kl"), "success"),
        (lambda: cost_of_losing(1.0, "kl"), "mass"),
        (lambda: least_mass(1.5, 1.0), "mass"),
        (lambda: least_mass(0.5, -1.0), "budget"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
