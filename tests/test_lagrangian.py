"""Several constraints: against cvxpy, closed forms of one constraint, extremes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import expectation, log_normalize
from klsim.divergences import kl
from klsim.lagrangian import constrained
from klsim.optima import kl_constrained, kl_regularized

RNG = np.random.default_rng(5)


def instance(seed, size=7, costs=3, references=2):
    """A problem that the policy ``inside`` meets with room to spare."""
    rng = np.random.default_rng(seed)
    log_ref, inside = log_normalize(rng.standard_normal(size)), log_normalize(rng.standard_normal(size))
    cost = rng.standard_normal((costs, size)) * np.array([1e-3, 1.0, 1e3])[:costs, None]
    laws = [log_normalize(rng.standard_normal(size)) for _ in range(references)]
    bounds = cost @ np.exp(inside) + 0.02 * np.ptp(cost, axis=1)
    budgets = np.array([float(kl(inside, law)) + 0.02 for law in laws])
    return (
        log_ref,
        2 * rng.standard_normal(size),
        {"costs": cost, "bounds": bounds, "references": laws, "budgets": budgets},
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_against_cvxpy(seed, beta):
    cp = pytest.importorskip("cvxpy")
    log_ref, reward, limits = instance(seed)
    pi = cp.Variable(len(log_ref), nonneg=True)
    linear = [
        pi @ cost / np.ptp(cost) <= bound / np.ptp(cost) for cost, bound in zip(limits["costs"], limits["bounds"])
    ]
    nats = [cp.sum(cp.rel_entr(pi, np.exp(law))) <= b for law, b in zip(limits["references"], limits["budgets"])]
    objective = pi @ reward - beta * cp.sum(cp.rel_entr(pi, np.exp(log_ref)))
    problem = cp.Problem(cp.Maximize(objective), [cp.sum(pi) == 1, *linear, *nats])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    found = constrained(log_ref, reward, beta, **limits)
    assert found.converged
    np.testing.assert_allclose(found.value, problem.value, atol=1e-7)
    np.testing.assert_allclose(np.exp(found.log_policy), pi.value, atol=1e-4)
    multipliers = found.cost_multipliers * np.ptp(limits["costs"], axis=1)
    np.testing.assert_allclose(multipliers, [c.dual_value for c in linear], atol=1e-4)
    np.testing.assert_allclose(found.budget_multipliers, [c.dual_value for c in nats], atol=1e-4)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("seed", range(3))
def test_units_do_not_matter(seed, scale):
    log_ref, reward, limits = instance(seed)
    one, other = (
        constrained(log_ref, reward, 0.2, **limits),
        constrained(log_ref, scale * reward, 0.2 * scale, **limits),
    )
    np.testing.assert_allclose(other.log_policy, one.log_policy, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other.cost_multipliers, scale * one.cost_multipliers, rtol=1e-7, atol=1e-9 * scale)
    scaled = limits | {"costs": scale * limits["costs"], "bounds": scale * limits["bounds"]}
    np.testing.assert_allclose(constrained(log_ref, reward, 0.2, **scaled).log_policy, one.log_policy, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [1e-6, 1e-3, 1.0, 1e6])
def test_the_certificate(seed, beta):
    log_ref, reward, limits = instance(seed)
    found = constrained(log_ref, reward, beta, **limits)
    assert found.converged
    assert 0 <= found.gap <= 1e-11 * max(np.ptp(reward), beta)
    assert np.all(found.costs <= limits["bounds"] + 1e-11 * np.ptp(limits["costs"], axis=1))
    assert np.all(found.divergences <= limits["budgets"] + 1e-11)
    assert found.violation <= 1e-12
    np.testing.assert_allclose(found.value, found.reward - beta * found.kl, rtol=1e-12)


@pytest.mark.parametrize("budget", [1e-8, 1e-3, 0.3, 5.0])
def test_one_budget_is_the_constrained_optimum(budget):
    log_ref, reward = log_normalize(RNG.standard_normal(6)), RNG.standard_normal(6)
    wanted = kl_constrained(log_ref, reward, budget)
    found = constrained(log_ref, reward, 0.0, references=[log_ref], budgets=[budget])
    np.testing.assert_allclose(found.reward, wanted.reward, rtol=1e-9)
    np.testing.assert_allclose(found.budget_multipliers[0], wanted.beta, rtol=1e-6, atol=1e-9)


def test_without_constraints_and_with_slack_ones():
    log_ref, reward = log_normalize(RNG.standard_normal(6)), RNG.standard_normal(6)
    free = kl_regularized(log_ref, reward, 0.4)
    np.testing.assert_allclose(constrained(log_ref, reward, 0.4).log_policy, free.log_policy, atol=1e-14)
    slack = constrained(
        log_ref, reward, 0.4, costs=[reward], bounds=[reward.max() + 1], references=[log_ref], budgets=[50]
    )
    np.testing.assert_allclose(slack.log_policy, free.log_policy, atol=1e-12)
    assert [*slack.cost_multipliers, *slack.budget_multipliers] == [0, 0]  # not merely small
    constant = constrained(log_ref, reward, 0.4, costs=[np.ones(6)], bounds=[1.0])
    np.testing.assert_allclose(constant.log_policy, free.log_policy, atol=1e-14)


def test_a_small_beta_is_the_linear_programme():
    from scipy.optimize import linprog

    log_ref, reward, limits = instance(11, references=0)
    limits = {name: limits[name] for name in ("costs", "bounds")}
    vertex = linprog(-reward, A_ub=limits["costs"], b_ub=limits["bounds"], A_eq=np.ones((1, 7)), b_eq=[1])
    for beta in (1e-4, 1e-6, 1e-9, 1e-11):  # the gap is honest where rounding, of size 1e-16/beta, is in the way
        found = constrained(log_ref, reward, beta, **limits)
        assert found.reward - 1e-15 <= -vertex.fun <= found.reward + found.gap + 20 * beta
        assert found.gap < 1e-6


def test_outside_the_support():
    log_ref = np.array([-np.inf, *np.log([0.5, 0.25, 0.25])])
    other = np.array([*np.log([0.2, 0.4, 0.4]), -np.inf])
    found = constrained(log_ref, [9.0, 0.0, 1.0, 9.0], 0.5, references=[other], budgets=[1.2])
    assert np.all(np.isneginf(found.log_policy[[0, 3]]))
    assert np.isfinite(found.log_policy[1:3]).all()
    one = constrained(np.array([0.0]), [3.0], 1.0, costs=[[2.0]], bounds=[2.0])
    assert one.value == 3.0
    assert one.gap == 0.0


HALF = np.log([0.5, 0.5])


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"costs": [[1.0, 2.0]], "bounds": [0.5]}, "no policy meets all of them: weighted by"),
        ({"costs": [[0.0, 1.0], [1.0, 0.0]], "bounds": [0.4, 0.4]}, "no policy meets all of them: weighted by"),
        ({"references": [np.log([0.9, 0.1]), np.log([0.1, 0.9])], "budgets": [0.05, 0.05]}, "no policy meets all"),
        ({"costs": [[1.0, 2.0]], "bounds": [1.0]}, "strictly"),
        ({"costs": [[1.0, 1.0]], "bounds": [0.5]}, "bounds.*the cost is 1 everywhere"),
        ({"costs": [[1.0, 2.0]]}, "bounds: must have shape"),
        ({"costs": [[1.0, 2.0, 3.0]], "bounds": [1.0]}, "costs: must have shape"),
        ({"costs": [[1.0, np.inf]], "bounds": [1.0]}, "costs.*finite"),
        ({"references": [HALF], "budgets": [0.0]}, "budgets"),
        ({"references": [HALF], "budgets": [1.0, 2.0]}, "budgets: must have shape"),
        ({"references": [[0.0, 0.0]], "budgets": [1.0]}, "references"),
    ],
)
def test_what_is_refused(limits, words):
    with pytest.raises(ValueError, match=words):
        constrained(HALF, [0.0, 1.0], 1.0, **limits)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: constrained(HALF, [0.0, 1.0], 0.0), "beta"),
        (lambda: constrained(HALF, [0.0, 1.0], 1e-14, costs=[[0.0, 1.0]], bounds=[0.5]), "beta"),
        (lambda: constrained(HALF, [0.0], 1.0), "reward"),
        (lambda: constrained(HALF, [0.0, np.nan], 1.0), "reward"),
        (lambda: constrained([0.0, -np.inf], [0.0, 1.0], 1.0, references=[[-np.inf, 0.0]], budgets=[1.0]), "supports"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_infeasibility_is_found_exactly_where_it_begins():
    """The least reachable maximum of two opposite costs is 1/2 each."""
    costs = [[0.0, 1.0], [1.0, 0.0]]
    found = constrained(HALF, [0.0, 1.0], 1.0, costs=costs, bounds=[0.5 + 1e-6, 0.5 + 1e-6])
    np.testing.assert_allclose(expectation(found.log_policy, np.array(costs[0])), 0.5, atol=2e-6)
    with pytest.raises(ValueError, match="no policy meets all"):
        constrained(HALF, [0.0, 1.0], 1.0, costs=costs, bounds=[0.5 - 1e-6, 0.5 - 1e-6])
