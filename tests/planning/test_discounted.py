"""Discounted problems: the optimum of every legal one, with a bound that holds, against exact and precise references."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import sparse
from scipy.special import logsumexp

from klsim.distributions import log_normalize
from klsim.planning import backup, discounted, evaluate, occupancy, rollouts, solve
from klsim.problems import DiscountedMDP
from tests.planning.references import (
    chain,
    deterministic,
    exact_optimum,
    garnet,
    linear_program,
    precise_soft_optimum,
    river_swim,
)


def random_problem(rng):
    """Small and awkward: deterministic, sparse, nearly absorbing, periodic; any scale, any discount, masks, CSR."""
    states, actions = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    shape, kind = (states, actions), rng.integers(4)
    if kind == 0:
        transition = np.eye(states)[rng.integers(0, states, shape)]
    elif kind == 1:
        transition = rng.dirichlet(np.full(states, 0.1), size=shape)
    elif kind == 2:
        leave = 10.0 ** -rng.integers(0, 12, shape)[..., None]
        own = np.broadcast_to(np.eye(states)[:, None], (*shape, states))
        transition = (1 - leave) * own + leave * np.eye(states)[rng.integers(0, states, shape)]
    else:
        transition = np.eye(states)[np.broadcast_to((np.arange(states)[:, None] + 1) % states, shape)]
    reward = rng.normal(size=shape) * 10.0 ** rng.choice([-300, -8, 0, 0, 8, 290])
    if rng.random() < 0.4:
        reward = np.round(reward)
    mask = rng.random(shape) < 0.7
    mask[np.arange(states), rng.integers(0, actions, states)] = True
    discount = float(rng.choice([0, 0.5, 0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-9]))
    if rng.random() < 0.5:
        transition = sparse.csr_array(transition.reshape(-1, states))
    return DiscountedMDP(transition, reward, discount, np.full(states, 1 / states), mask)


def test_the_case_where_three_newton_steps_do_not_lower_the_residual():
    transition = np.eye(4)[[[0, 2], [0, 1], [3, 0], [2, 1]]]
    reward = [[0.9, -0.2], [-0.2, 1.1], [-0.4, -1.3], [-0.5, -1.2]]
    problem = DiscountedMDP(transition, reward, 0.99, [0.25] * 4)
    for options in ({}, {"method": "value_iteration"}):
        found = solve(problem, beta=0.0, **options)
        np.testing.assert_allclose(found.value, [104.96077, 110.0, 106.223, 107.7], rtol=1e-9)
        assert (found.converged, found.reason) == (True, "certified")
    for beta in (1e-6, 1e-3, 0.1):
        found = solve(problem, beta=beta)
        ref = np.full((4, 2), -np.log(2))
        precise = precise_soft_optimum(problem, ref, beta)
        assert max(abs(mpmath.mpf(float(x)) - v) for x, v in zip(found.value, precise)) <= found.error_bound
        assert found.converged


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("discount", [0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-9])
def test_random_deterministic_problems_are_certified(discount, beta):
    for seed in range(3):
        for states in (3, 10, 50, 120):
            found = solve(deterministic(seed, states, 3, discount), beta=beta)
            assert found.converged
            assert found.reason == "certified"
            assert found.error_bound <= 1e-10 * np.abs(found.value).max()


def test_the_bound_holds_against_exact_rational_arithmetic():
    for seed in range(80):
        problem = random_problem(np.random.default_rng(seed))
        found, exact = solve(problem, beta=0.0), exact_optimum(problem)
        error = max(abs(Fraction(float(x)) - v) for x, v in zip(found.value, exact))
        assert error <= Fraction(found.error_bound), seed
        assert found.converged or max(map(abs, exact)) == 0, seed


def test_the_bound_holds_against_sixty_digits():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng)
        problem = DiscountedMDP(problem.transition, problem.reward, problem.discount, problem.initial)
        beta = float(10.0 ** rng.uniform(-10, 12)) * (float(np.abs(problem.reward).max()) or 1.0)
        beta = min(beta, 1e300)
        ref = rng.normal(size=problem.shape) * rng.choice([0, 1, 10])
        ref = ref - np.logaddexp.reduce(ref, axis=1, keepdims=True)
        found, precise = solve(problem, ref, beta), precise_soft_optimum(problem, ref, beta)
        error = max(abs(mpmath.mpf(float(x)) - v) for x, v in zip(found.value, precise))
        assert error <= mpmath.mpf(found.error_bound), seed
        assert found.error_bound <= 1e-6 * float(max(map(abs, precise))) or max(map(abs, precise)) == 0, seed


@pytest.mark.slow
def test_the_bound_holds_on_many_more():
    for seed in range(1000, 2500):
        problem = random_problem(np.random.default_rng(seed))
        found, exact = solve(problem, beta=0.0), exact_optimum(problem)
        assert max(abs(Fraction(float(x)) - v) for x, v in zip(found.value, exact)) <= Fraction(found.error_bound), seed


@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1.0, 1e8, 1e300])
def test_scaling_rewards_and_beta_scales_the_value(scale):
    base = garnet(0, 20, 3, 2, 0.99)
    scaled = DiscountedMDP(base.transition, base.reward * scale, 0.99, base.initial)
    for beta in (0.0, 0.3):
        one, two = solve(base, beta=beta), solve(scaled, beta=beta * scale)
        np.testing.assert_allclose(two.value / scale, one.value, rtol=1e-9)
        assert two.converged


def policy_iteration(problem, beta):
    """``(value, steps)`` at the discount 0.9, from the constant that `solve` starts from, systems solved by LAPACK."""
    reward, steps, states = problem.reward, 0, len(problem.reward)

    def backed(q):
        return q.max(axis=1) if beta == 0 else beta * (logsumexp(q / beta, axis=1) - np.log(3))

    value = np.full(states, backed(reward).min() / 0.1)
    while True:
        q = reward + 0.9 * problem.transition @ value
        residual = backed(q) - value
        if np.ptp(residual) / 2 / 0.1 <= 1e-10 * np.abs(value).max():
            return value, steps
        weights = np.eye(3)[q.argmax(axis=1)] if beta == 0 else np.exp(log_normalize(q / beta))
        chain = np.einsum("sa,sat->st", weights, problem.transition)
        value, steps = value + np.linalg.solve(np.eye(states) - 0.9 * chain, residual), steps + 1


@pytest.mark.parametrize("beta", [0.0, 1e-4])
def test_as_many_steps_as_policy_iteration_takes(beta):
    """A residual that grows on the way is no failed step."""
    problem = garnet(1, 72, 3, 2, 0.9).dense()
    value, steps = policy_iteration(problem, beta)
    found = solve(problem, beta=beta)
    assert found.iterations == steps
    np.testing.assert_allclose(found.value, value, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_rough_evaluations_cost_one_step_at_most(seed):
    """Above 100 states a policy is evaluated roughly as long as it changes, and to the end once it does not."""
    problem = garnet(seed, 120, 3, 4, 0.9).dense()
    value, steps = policy_iteration(problem, 0.0)
    found = solve(problem, beta=0.0)
    assert found.iterations <= steps + 1
    np.testing.assert_allclose(found.value, value, rtol=1e-9)


@pytest.mark.parametrize(("method", "limit"), [("policy_iteration", 10_000), ("value_iteration", 1_000_000)])
def test_how_long_each_method_may_take(method, limit, monkeypatch):
    monkeypatch.setattr(discounted, "solve_discounted", lambda *arguments: arguments)
    problem = garnet(0, 3, 2, 2, 0.9)
    assert solve(problem, method=method)[-3:] == (method, 1e-10, limit)
    assert solve(problem, method=method, max_iterations=7)[-1] == 7


def test_values_that_overflow_are_refused():
    problem = DiscountedMDP(np.ones((1, 1, 1)), [[1e308]], 0.99, [1.0])
    with pytest.raises(ValueError, match=r"reward: values of size .* overflow"):
        solve(problem)


def test_tolerance_is_relative_to_the_value():
    states = 100
    place = np.stack(np.divmod(np.arange(states), 10), axis=1)
    moves = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]])
    following = np.clip(place[:, None] + moves, 0, 9) @ [10, 1]
    reward = np.full((states, 4), -1.0)
    following[-1], reward[-1] = states - 1, 0.0
    problem = DiscountedMDP(np.eye(states)[following], reward, 0.999, np.eye(states)[0])
    found = solve(problem, beta=0.0)
    assert found.converged
    distance = 18 - place.sum(axis=1)
    np.testing.assert_allclose(found.value, -(1 - 0.999**distance) / (1 - 0.999), rtol=1e-10, atol=found.error_bound)
    assert solve(problem, beta=0.0, tolerance=0.0).reason == "rounding level reached"
    assert solve(problem, beta=0.0, max_iterations=1).reason == "iteration limit reached"


def test_ties_are_seen_at_any_discount():
    transition = np.eye(3)[[[1, 2], [1, 1], [2, 2]]]
    reward = [[0.3, 0.3], [0.7, 0.7], [0.7, 0.2]]
    for discount in (0.5, 0.9, 1 - 1e-9):
        policy = solve(DiscountedMDP(transition, reward, discount, [1.0, 0, 0]), beta=0.0).log_policy
        np.testing.assert_allclose(np.exp(policy), [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]], atol=1e-15)


def test_references_of_tiny_mass():
    ref = np.array([[-800.0, 0.0]])
    problem = DiscountedMDP(np.ones((1, 2, 1)), [[1000.0, 0.0]], 0.0, [1.0])
    assert solve(problem, ref, 1.0).value[0] == pytest.approx(200.0, rel=1e-12)
    assert solve(problem, ref, 0.0).value[0] == 1000.0


@pytest.mark.parametrize("make", [lambda: DiscountedMDP(*river_swim(40), 0.99, np.eye(40)[0]), lambda: chain(200, 0.99),
                                  lambda: garnet(0, 20, 3, 1, 0.99), lambda: garnet(1, 60, 4, 5, 0.999)])  # fmt: skip
def test_textbook_problems_against_linear_programs(make):
    problem = make()
    found = solve(problem, beta=0.0)
    assert found.converged
    np.testing.assert_allclose(found.value, linear_program(problem), rtol=1e-6, atol=1e-8)


def test_the_chain_in_closed_form():
    found = solve(chain(200, 0.99), beta=0.0)
    walk, stay = 0.99 ** np.arange(199, -1, -1) / 0.01, 1e-3 / 0.01
    np.testing.assert_allclose(found.value, np.maximum(walk, stay), rtol=1e-9)


def test_one_backup():
    problem = garnet(2, 30, 4, 3, 0.9)
    value = np.random.default_rng(0).normal(size=30)
    q = problem.reward + 0.9 * problem.dense().transition @ value
    np.testing.assert_allclose(backup(problem, value, beta=0.0)[0], q.max(axis=1), rtol=1e-14)
    soft, seen = backup(problem.dense(), value, beta=0.2)
    np.testing.assert_allclose(seen, q, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(soft, 0.2 * (np.logaddexp.reduce(q / 0.2, axis=1) - np.log(4)), rtol=1e-12)
    with pytest.raises(ValueError, match="value: must have shape"):
        backup(problem, value[1:])


@pytest.mark.parametrize("beta", [1e-12, 1e-3, 0.2, 1.0, 1e12])
@pytest.mark.parametrize("missing", [False, True])
def test_a_backup_from_a_given_reference(beta, missing):
    """The kernel for arrays as they are, against 50 digits; with the reference off by what float32 leaves, and not."""
    rng = np.random.default_rng(5)
    problem, value = garnet(2, 12, 5, 3, 0.9).dense(), rng.normal(size=12)
    log_ref = rng.normal(size=(12, 5))
    if missing:
        log_ref[:, 2] = -np.inf
    log_ref -= np.logaddexp.reduce(log_ref, axis=1, keepdims=True)
    exact, q = [], problem.reward + 0.9 * (problem.transition @ value)
    with mpmath.workdps(50):
        for row, logs in zip(q, log_ref, strict=True):
            terms = [(mpmath.exp(mpmath.mpf(w)), mpmath.mpf(x)) for w, x in zip(logs, row, strict=True) if w > -np.inf]
            mass = sum(w for w, _ in terms)
            exact.append(float(beta * mpmath.log(sum(w * mpmath.exp(x / beta) for w, x in terms) / mass)))
    found, seen = backup(problem, value, log_ref, beta)
    np.testing.assert_allclose(seen, q, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(found, exact, rtol=2e-13, atol=2e-14)
    rounded = log_ref.astype(np.float32).astype(float)
    np.testing.assert_allclose(backup(problem, value, rounded, beta)[0], exact, atol=2e-6)
    with pytest.raises(ValueError, match="log_ref"):
        backup(problem, value, log_ref + 0.1, beta)


def test_a_problem_by_keyword():
    problem = garnet(3, 5, 2, 2, 0.9)
    policy = np.full((5, 2), -np.log(2))
    assert solve(problem=problem, beta=0.0).converged
    assert evaluate(problem=problem, log_policy=policy).value == evaluate(problem, policy).value
    np.testing.assert_array_equal(occupancy(problem=problem, log_policy=policy), occupancy(problem, policy))
    assert rollouts(problem=problem, log_policy=policy, count=3, rng=0, horizon=4).states.shape == (3, 5)
    with pytest.raises(TypeError, match="problem"):
        solve()


def test_an_infinite_price_on_kl():
    problem, policy = garnet(3, 5, 2, 2, 0.9), np.full((5, 2), -np.log(2))
    other = np.log(np.broadcast_to([0.25, 0.75], (5, 2)))
    assert evaluate(problem, policy, policy, np.inf).value == evaluate(problem, policy).reward
    assert evaluate(problem, policy, other, np.inf).value == -np.inf


@pytest.mark.parametrize("discount", [0.9, 0.999, 1 - 1e-9])
def test_evaluation_of_slow_chains(discount):
    problem = deterministic(5, 60, 3, discount)
    found = solve(problem, beta=0.0)
    seen = evaluate(problem, found.log_policy).state_value
    np.testing.assert_allclose(seen, found.value, rtol=max(1e-9, 1e-15 / (1 - discount)), atol=0)
    visits = occupancy(problem, found.log_policy)
    assert (visits * problem.reward).sum() / (1 - discount) == pytest.approx(problem.initial @ found.value, rel=1e-6)


def test_a_move_of_a_value_is_exact_and_its_middle_goes_to_the_constant():
    high, step = np.array([0.5, -2.0, 1.0]), np.array([2.0**-60, 4.0, 1.0])
    for constant, grown in ((4.0, 4.0 + 1.25), (2.0**-60, 2.0**-60)):  # 2^-60 would be lost beside the middle, 1.25
        moved = discounted.Value(constant, high, np.zeros(3)).plus(step)
        assert moved.constant == grown
        for i in range(3):
            sum_of = Fraction(moved.constant) + Fraction(moved.high[i]) + Fraction(moved.low[i])
            assert sum_of == Fraction(constant) + Fraction(high[i]) + Fraction(step[i])
        assert discounted.Value(constant, high, np.zeros(3)).plus(step, 1.0).constant == grown + 1.0
