"""The convex optima against cvxpy, a generic solver that knows nothing of tilts.

With a solver's gap of ``GAP`` reward units its value is that close, and its policy is within ``sqrt(2 GAP / (beta c))``
of the optimum in L1 where ``D_f >= c/2`` times the squared L1 distance: c = 1 for the KL (Pinsker), 2 for chi².
"""

from __future__ import annotations

import numpy as np
import pytest

cp = pytest.importorskip("cvxpy")

from klsim.attempts import regularized_max_at_k  # noqa: E402
from klsim.distributions import log_normalize, variance  # noqa: E402
from klsim.divergences import GENERATORS  # noqa: E402
from klsim.forward_kl import forward_kl_with_entropy  # noqa: E402
from klsim.hinge import hinge_regularized  # noqa: E402
from klsim.optima import f_regularized, kl_constrained, kl_regularized  # noqa: E402

GAP = 2e-7  # ten times the solver's tolerance, times rewards of about 2


def problem(seed, size=6):
    rng = np.random.default_rng(seed)
    return log_normalize(1.5 * rng.standard_normal(size)), rng.standard_normal(size)


def divergence(policy, ref, name):
    """``D_f(policy‖ref)`` as cvxpy writes it."""
    if name == "kl":
        return cp.sum(cp.kl_div(policy, ref))
    if name == "forward_kl":
        return cp.sum(cp.kl_div(ref, policy))
    if name == "chi2":
        return cp.sum(cp.multiply(1 / ref, cp.square(policy - ref)))
    if name == "hellinger":
        return 1 - cp.sum(cp.multiply(np.sqrt(ref), cp.sqrt(policy)))
    if name == "tv":
        return cp.norm1(policy - ref) / 2
    middle = (policy + ref) / 2
    return (cp.sum(cp.rel_entr(policy, middle)) + cp.sum(cp.rel_entr(ref, middle))) / 2


def solved(objective, policy, *constraints):
    """``(value, policy)`` of the maximum over laws."""
    found = cp.Problem(cp.Maximize(objective), [cp.sum(policy) == 1, *constraints])
    found.solve(solver=cp.CLARABEL)
    assert found.status == "optimal"
    return found.value, np.maximum(policy.value, 0.0)


def variable(size):
    return cp.Variable(size, nonneg=True)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", ["kl", "forward_kl", "chi2", "hellinger", "tv", "js"])
def test_regularised_by_every_divergence(name, beta, seed):
    log_ref, reward = problem(seed)
    policy = variable(len(reward))
    value, law = solved(reward @ policy - beta * divergence(policy, np.exp(log_ref), name), policy)
    found = f_regularized(log_ref, reward, beta, name)
    assert abs(found.value - value) < GAP * (1 + beta)
    if name in ("kl", "chi2"):
        curvature = 1.0 if name == "kl" else 2.0
        away = np.abs(np.exp(found.log_policy) - law).sum()
        assert away < np.sqrt(2 * GAP * (1 + beta) / (beta * curvature))


def test_the_tilt_is_the_kl_optimum():
    log_ref, reward = problem(2)
    policy = variable(len(reward))
    value, law = solved(reward @ policy - 0.5 * divergence(policy, np.exp(log_ref), "kl"), policy)
    found = kl_regularized(log_ref, reward, 0.5)
    assert abs(found.value - value) < GAP
    assert np.abs(np.exp(found.log_policy) - law).sum() < np.sqrt(2 * GAP / 0.5)


@pytest.mark.parametrize("parts", [{"kl": 0.3, "chi2": 0.5}, {"kl": 0.4, "forward_kl": 0.2}, {"chi2": 0.2, "js": 1.0}])
def test_sums_of_divergences(parts):
    log_ref, reward = problem(3)
    policy, ref = variable(len(reward)), np.exp(log_ref)
    value, _ = solved(reward @ policy - sum(c * divergence(policy, ref, name) for name, c in parts.items()), policy)
    first, *rest = (c * GENERATORS[name] for name, c in parts.items())
    for other in rest:
        first = first + other
    assert abs(f_regularized(log_ref, reward, 1.0, first).value - value) < 2 * GAP


@pytest.mark.parametrize("budget", [0.01, 0.3, 1.0])
def test_budgets_and_their_multipliers(budget):
    log_ref, reward = problem(4)
    policy = variable(len(reward))
    limit = divergence(policy, np.exp(log_ref), "kl") <= budget
    value, _ = solved(reward @ policy, policy, limit)
    found = kl_constrained(log_ref, reward, budget)
    assert abs(found.reward - value) < 10 * GAP
    # the dual beta (budget + log Z) has curvature Var_pi(r)/beta³ at its minimum
    spread = variance(found.log_policy, reward)
    assert abs(found.beta - float(limit.dual_value)) < np.sqrt(2 * GAP * found.beta**3 / spread)


def test_a_budget_that_does_not_bind_has_no_multiplier():
    log_ref, reward = problem(4)
    policy = variable(len(reward))
    limit = divergence(policy, np.exp(log_ref), "kl") <= 20.0
    value, _ = solved(reward @ policy, policy, limit)
    found = kl_constrained(log_ref, reward, 20.0)
    assert abs(found.reward - value) < 10 * GAP
    assert found.beta == 0.0
    assert abs(float(limit.dual_value)) < 1e-5


@pytest.mark.parametrize("entropy", [0.0, 0.3])
def test_forward_kl_with_entropy(entropy):
    log_ref, reward = problem(5)
    policy = variable(len(reward))
    objective = reward @ policy - 0.5 * divergence(policy, np.exp(log_ref), "forward_kl")
    value, _ = solved(objective + entropy * cp.sum(cp.entr(policy)), policy)
    assert abs(forward_kl_with_entropy(log_ref, reward, 0.5, entropy).value - value) < 2 * GAP


def test_hinge_of_the_kl():
    log_ref, reward = problem(6)
    policy = variable(len(reward))
    over = cp.pos(divergence(policy, np.exp(log_ref), "kl") - 0.2)
    value, _ = solved(reward @ policy - 0.7 * cp.square(over), policy)
    assert abs(hinge_regularized(log_ref, reward, 0.7, 0.2).value - value) < 2 * GAP


@pytest.mark.parametrize("k", [1, 2, 4, 16])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_max_at_k_is_concave_and_this_is_its_optimum(k, beta):
    log_ref, reward = problem(7)
    reward = np.round(reward, 1)  # ties
    policy, values = variable(len(reward)), np.unique(reward)
    below = [cp.sum(policy[np.flatnonzero(reward <= v)]) for v in values[:-1]]
    best = values[-1] - sum(cp.power(f, k) * d for f, d in zip(below, np.diff(values)))
    value, law = solved(best - beta * divergence(policy, np.exp(log_ref), "kl"), policy)
    found = regularized_max_at_k(log_ref, reward, k, beta)
    assert abs(found.value - value) < 2 * GAP * (1 + beta)
    assert np.abs(np.exp(found.log_policy) - law).sum() < np.sqrt(4 * GAP * (1 + beta) / beta)
