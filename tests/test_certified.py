"""Certified roots and optima: textbook roots, mpmath to 40 digits, what cannot be certified; bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

flint = pytest.importorskip("flint")
mpmath = pytest.importorskip("mpmath")

from klsim.certified import certified_f_regularized, certified_kl_constrained, certified_root  # noqa: E402
from klsim.distributions import log_normalize  # noqa: E402
from klsim.divergences import GENERATORS, Alpha  # noqa: E402
from klsim.optima import f_regularized, kl_constrained  # noqa: E402


def problem(seed, size=5, scale=1.0):
    rng = np.random.default_rng(seed)
    return log_normalize(rng.standard_normal(size)), scale * rng.standard_normal(size)


def test_a_square_root():
    found = certified_root(lambda x: [x[0] * x[0] - 2], 1.5)
    assert abs(found.value[0] - math.sqrt(2)) <= found.radius[0]
    assert found.radius[0] < 3e-16
    assert 1.0 < found.isolation[0] < 2 * math.sqrt(2)  # the other root is that far away


def test_a_system_of_two():
    """A circle and a cubic."""
    found = certified_root(lambda x: [x[0] ** 2 + x[1] ** 2 - 4, x[1] - x[0] ** 3], [1.0, 1.5])
    with mpmath.workdps(40):
        root = mpmath.findroot([lambda x, y: x**2 + y**2 - 4, lambda x, y: y - x**3], (1, 1.5))
    np.testing.assert_allclose(found.value, [float(r) for r in root], rtol=1e-15)
    assert np.all(found.radius < 1e-15)


def test_transcendental_functions():
    found = certified_root(lambda x: [x[0].exp() + x[0] - 5 * x[0].sqrt() + x[0].log()], 2.5)
    x = found.value[0]
    assert abs(math.exp(x) + x - 5 * math.sqrt(x) + math.log(x)) < 1e-13


@pytest.mark.parametrize(
    ("function", "guess"),
    [
        (lambda x: [x[0] * x[0] + 1], 0.5),  # none
        (lambda x: [x[0] * x[0]], 0.5),  # double
        (lambda x: [x[0] + x[1], 2 * x[0] + 2 * x[1]], [1.0, 1.0]),  # a line of them
        (lambda x: [0 * x[0] + 1], 0.5),
    ],
)
def test_what_has_no_simple_root_is_refused(function, guess):
    with pytest.raises(ValueError, match="guess: no root can be certified"):
        certified_root(function, guess)


@pytest.mark.parametrize("budget", [1e-9, 0.05, 0.5])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_multiplier_of_a_budget(budget, scale):
    log_ref, reward = problem(1, scale=scale)
    found, float_ = certified_kl_constrained(log_ref, reward, budget), kl_constrained(log_ref, reward, budget)
    assert found.multiplier_radius < 1e-15 * found.multiplier
    assert math.isclose(found.multiplier, float_.beta, rel_tol=1e-9)
    np.testing.assert_allclose(found.log_policy, float_.log_policy, atol=1e-9)
    with mpmath.workdps(60):
        ref = [mpmath.exp(mpmath.mpf(float(x))) for x in log_ref]
        total = mpmath.fsum(ref)
        beta = mpmath.mpf(found.multiplier)
        weights = [p / total * mpmath.exp(mpmath.mpf(float(r)) / beta) for p, r in zip(ref, reward)]
        z = mpmath.fsum(weights)
        divergence = mpmath.fsum(w / z * (mpmath.mpf(float(r)) / beta - mpmath.log(z)) for w, r in zip(weights, reward))
        assert abs(float(divergence / mpmath.mpf(budget) - 1)) < 1e-14
        gained = mpmath.fsum(w / z * mpmath.mpf(float(r)) for w, r in zip(weights, reward))
    assert abs(float(gained) - found.reward) <= found.reward_radius + 1e-15 * scale


def test_zero_support_and_ties():
    log_ref = np.array([math.log(0.5), -np.inf, math.log(0.25), math.log(0.25)])
    found = certified_kl_constrained(log_ref, [0.0, 5.0, 1.0, 1.0], 0.2)
    assert found.log_policy[1] == -np.inf
    assert math.isclose(found.log_policy[2], found.log_policy[3], rel_tol=1e-15)
    p = np.exp(found.log_policy[[0, 2, 3]])
    assert math.isclose(p @ np.log(p / [0.5, 0.25, 0.25]), 0.2, rel_tol=1e-13)


@pytest.mark.parametrize("budget", [5.0, math.log(2)])
def test_a_slack_budget_has_no_multiplier(budget):
    with pytest.raises(ValueError, match="budget"):
        certified_kl_constrained(np.log([0.5, 0.5]), [0.0, 1.0], budget)


SUM = GENERATORS["chi2"] + 0.1 * GENERATORS["kl"]


@pytest.mark.parametrize("beta", [0.05, 1.0, 30.0])
@pytest.mark.parametrize(
    "generator", ["kl", "forward_kl", "chi2", "hellinger", "js", Alpha(1.5), Alpha(-1.0), SUM, GENERATORS["chi2"] + GENERATORS["js"]],
    ids=lambda g: g if isinstance(g, str) else g.name,
)  # fmt: skip
def test_regularised_optima(generator, beta):
    log_ref, reward = problem(2)
    found, float_ = (
        certified_f_regularized(log_ref, reward, beta, generator),
        f_regularized(log_ref, reward, beta, generator),
    )
    np.testing.assert_array_equal(np.isneginf(found.log_policy), np.isneginf(float_.log_policy))
    kept = np.isfinite(found.log_policy)
    assert np.all(
        np.abs(found.log_policy[kept] - float_.log_policy[kept]) < 1e-9 * (1 + np.abs(found.log_policy[kept]))
    )
    assert np.all(found.log_policy_radius[kept] <= 1e-45 + np.spacing(np.abs(found.log_policy[kept])))
    assert math.isclose(found.reward, float_.reward, abs_tol=1e-10)
    law = np.exp(found.log_policy)
    assert abs(law.sum() - 1) < 1e-14
    g = GENERATORS[generator] if isinstance(generator, str) else generator
    slack = reward[kept] - beta * g.derivative(np.exp(found.log_policy - log_ref))[kept] - found.multiplier
    assert np.abs(slack).max() < 1e-12 * (1 + beta)


def test_some_outcomes_are_dropped():
    log_ref, reward = np.log([0.25, 0.25, 0.25, 0.25]), [0.0, 0.1, 0.3, 1.2]
    found = certified_f_regularized(log_ref, reward, 0.1, "chi2")
    np.testing.assert_array_equal(np.isfinite(found.log_policy), [False, False, False, True])
    assert found.reward == pytest.approx(1.2)
    assert found.log_policy_radius[0] == 0.0


def test_an_outcome_on_the_edge_is_not_certified():
    """Two outcomes, chi²: with rewards 0 and 4 beta the first has mass exactly 0."""
    with pytest.raises(ValueError, match="beta"):
        certified_f_regularized(np.log([0.5, 0.5]), [0.0, 4.0], 1.0, "chi2")
    certified_f_regularized(np.log([0.5, 0.5]), [0.0, 4.01], 1.0, "chi2")
    certified_f_regularized(np.log([0.5, 0.5]), [0.0, 3.99], 1.0, "chi2")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: certified_root(lambda x: x, [np.nan]), "guess"),
        (lambda: certified_root(lambda x: [*x, x[0]], [1.0]), "function: must return as many"),
        (lambda: certified_root(lambda x: x, [1.0], digits=3), "digits"),
        (lambda: certified_kl_constrained([0.0], [1.0, 2.0], 0.1), "reward: must be a vector"),
        (lambda: certified_kl_constrained(np.log([0.5, 0.5]), [1.0, 1.0], 0.1), "budget = 0.1: has no multiplier"),
        (lambda: certified_kl_constrained(np.full(65, -math.log(65)), np.arange(65.0), 0.1), "log_ref: has 65"),
        (lambda: certified_f_regularized(np.log([0.5, 0.5]), [0.0, 1.0], 1.0, "tv"), "generator: must be one of"),
        (lambda: certified_f_regularized(np.log([0.5, 0.5]), [0.0, 1.0], 0.0, "kl"), "beta"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
