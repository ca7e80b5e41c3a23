"""KL leashes: projections, curvature, blocks, ratio ranges."""

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.learning.kl_leash import (
    block_fisher,
    leash_factor,
    log_linear_fisher,
    log_linear_policy,
    m_projection,
    ratio_leash,
)

RNG = np.random.default_rng(0)
FEATURES, WEIGHTS = RNG.standard_normal((6, 3)), RNG.standard_normal(3)


def test_projection_is_the_minimum_that_a_generic_optimiser_finds():
    target = log_normalize(RNG.standard_normal(6))
    found = kl(target, log_linear_policy(FEATURES, m_projection(FEATURES, target)))
    generic = minimize(lambda t: float(kl(target, log_linear_policy(FEATURES, t))), np.zeros(3), tol=1e-12)
    assert found == pytest.approx(generic.fun, abs=1e-9)


def test_projection_of_a_member_is_itself():
    np.testing.assert_allclose(m_projection(FEATURES, log_linear_policy(FEATURES, WEIGHTS)), WEIGHTS, atol=1e-8)


def test_projection_on_dependent_features_still_fits_the_mean_features():
    features = np.hstack([FEATURES, FEATURES[:, :1], np.ones((6, 1))])
    target = log_normalize(3 * RNG.standard_normal(6))
    pi = np.exp(log_linear_policy(features, m_projection(features, target)))
    np.testing.assert_allclose(pi @ features, np.exp(target) @ features, atol=1e-9)


def test_projection_reaches_far_targets():
    target = log_normalize(np.array([0.0, -30, -31, -33, -35, -40]))
    pi = np.exp(log_linear_policy(np.eye(6), m_projection(np.eye(6), target)))
    np.testing.assert_allclose(pi, np.exp(target), atol=1e-10)


@pytest.mark.parametrize("unit", [1e-13, 1e-3, 1e5])
def test_projection_does_not_depend_on_the_unit_of_the_features(unit):
    """Its tolerance is relative; powers of 2, so that rounding is the same."""
    unit = 2.0 ** round(np.log2(unit))
    target = log_normalize(2 * np.arange(6.0) % 5)
    weights = m_projection(FEATURES, target)
    assert np.abs(weights).max() > 0.1
    np.testing.assert_allclose(unit * m_projection(unit * FEATURES, target), weights, rtol=1e-7)


@pytest.mark.parametrize("outcomes", [3, 60, 5000])
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.5, 0.999])
def test_projection_on_one_indicator_in_closed_form(outcomes, p):
    """``pi(1) = p``. A whole Newton step from 1/60 would go to 60 (p - 1/60), where the curvature is gone."""
    log_target = np.log(np.append(np.full(outcomes - 1, (1 - p) / (outcomes - 1)), p))
    found = m_projection(np.append(np.zeros(outcomes - 1), 1.0)[:, None], log_target)
    assert found.tolist() == pytest.approx([np.log(p / (1 - p) * (outcomes - 1))], rel=1e-9 / p, abs=1e-12 / p)


def test_projections_agree_with_the_mean_features_to_rounding():
    for target in log_normalize(3 * np.random.default_rng(3).standard_normal((40, 6))):
        pi = np.exp(log_linear_policy(FEATURES, m_projection(FEATURES, target)))
        np.testing.assert_allclose(pi @ FEATURES, np.exp(target) @ FEATURES, atol=2e-12 * np.abs(FEATURES).max())


@pytest.mark.parametrize("unit", [2.0**-10, 1.0, 2.0**10])
def test_projection_ignores_features_below_its_tolerance_and_refuses_what_it_cannot_tell_from_rounding(unit):
    """Two independent signs, the second 1e-10 or 1e-7 of the first: in the Fisher information 1e-20 and 1e-14."""
    first, second = np.array([1.0, 1, -1, -1]), np.array([1.0, -1, 1, -1])
    log_target = np.log([0.5, 0.2, 0.2, 0.1])  # P(first = 1) = .7
    found = unit * m_projection(unit * np.column_stack([first, 1e-10 * second]), log_target)
    np.testing.assert_allclose(found, [np.log(7 / 3) / 2, 0], atol=1e-9)
    even = np.log([0.3, 0.3, 0.2, 0.2])  # nothing but the ignored part is left to fit: no step at all
    np.testing.assert_allclose(m_projection(np.column_stack([second, 1e-10 * first]), even), 0, atol=1e-9)
    with pytest.raises(ValueError, match="log_target: is too extreme"):
        m_projection(unit * np.column_stack([first, 1e-7 * second]), log_target)


def test_projection_on_features_that_are_all_zero():
    assert m_projection(np.zeros((3, 2)), log_normalize(np.arange(3.0))).tolist() == [0.0, 0.0]


def test_fisher_is_the_second_derivative_of_the_log_partition():
    def log_z(t):
        return float(np.log(np.exp(FEATURES @ t).sum()))

    h, e = 1e-4, np.eye(3)
    numeric = [[(log_z(WEIGHTS + h * (a + b)) - log_z(WEIGHTS + h * (a - b)) - log_z(WEIGHTS - h * (a - b))
                 + log_z(WEIGHTS - h * (a + b))) / (4 * h * h) for b in e] for a in e]  # fmt: skip
    np.testing.assert_allclose(log_linear_fisher(FEATURES, WEIGHTS), numeric, atol=1e-6)


def test_leash_factor_by_quadrature_of_the_slowest_curvature():
    for s in (1e-6, 9.9e-4, 1.1e-3, 0.3, 5.0, 40.0):
        nodes, weights = np.polynomial.legendre.leggauss(60)
        t = (nodes + 1) / 2
        integral = np.sum(weights / 2 * t * np.exp(-s * t))
        assert float(leash_factor(s)) == pytest.approx(1 / (2 * integral), rel=1e-9)
    assert float(leash_factor(0.0)) == 1.0


def test_block_fisher_is_the_least_form_over_the_other_weights():
    fisher, w = log_linear_fisher(FEATURES, WEIGHTS), np.array([True, False, False])
    least = minimize(lambda o: np.array([1.0, *o]) @ fisher @ np.array([1.0, *o]), np.zeros(2), tol=1e-12)
    assert block_fisher(fisher, w)[0, 0] == pytest.approx(least.fun, rel=1e-7)
    np.testing.assert_array_equal(block_fisher(fisher, np.ones(3, dtype=bool)), fisher)


def test_ratio_leash_worked_values():
    np.testing.assert_allclose(ratio_leash([0.1, 0.2, 0.28, 0.5], [0.1, 0.2, 0.28, 0.5]),
                               [0.005008, 0.020136, 0.039729, 0.130812], atol=5e-7)  # fmt: skip
    assert float(ratio_leash(0.2, 0.28)) == pytest.approx(0.027525, abs=5e-7)
    assert float(ratio_leash(0.0, 0.3)) == 0.0
    assert float(ratio_leash(0.3, 0.0)) == 0.0
    assert float(ratio_leash(0.0, 0.0)) == 0.0
    assert float(ratio_leash(1.0, 1.0)) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: log_linear_policy(np.zeros(3), WEIGHTS), "features"),
        (lambda: log_linear_policy(np.full((2, 3), np.nan), WEIGHTS), "features"),
        (lambda: log_linear_policy(FEATURES, np.zeros(2)), "weights"),
        (lambda: log_linear_policy(FEATURES, np.full(3, np.inf)), "weights"),
        (lambda: log_linear_fisher(FEATURES, np.full(3, np.nan)), "weights"),
        (lambda: m_projection(FEATURES, np.zeros(6)), "log_target"),
        (lambda: m_projection(FEATURES, np.log(np.full(5, 0.2))), "log_target"),
        (lambda: m_projection(np.eye(2), np.array([0.0, -np.inf])), "log_target"),
        (lambda: leash_factor(-1.0), "spread"),
        (lambda: leash_factor(np.nan), "spread"),
        (lambda: block_fisher(np.zeros((2, 3)), np.array([True, False])), "fisher"),
        (lambda: block_fisher(np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([True, False])), "fisher"),
        (lambda: block_fisher(-np.eye(2), np.array([True, False])), "fisher"),
        (lambda: block_fisher(np.eye(2), np.array([False, False])), "block"),
        (lambda: block_fisher(np.eye(2), np.array([True])), "block"),
        (lambda: ratio_leash(1.1, 0.2), "low"),
        (lambda: ratio_leash(-0.1, 0.2), "low"),
        (lambda: ratio_leash(0.1, -0.2), "high"),
        (lambda: ratio_leash(0.1, np.inf), "high"),
        (lambda: ratio_leash([0.1, 0.2], [0.1, 0.2, 0.3]), "low"),
    ],
)
def test_the_door_names_the_argument(call, names):
    with pytest.raises(ValueError, match=names):
        call()
