"""Planning against enumeration, linear programming and plain iteration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from klsim.distributions import log_normalize
from klsim.optima import kl_regularized
from klsim.planning import evaluate, occupancy, rollouts, solve
from klsim.problems import Bandit, DiscountedMDP, TabularMDP, TokenTree
from klsim.problems.token_tree import sequence_log_probs


def discounted(seed, states=5, actions=3, discount=0.9):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.5), size=(states, actions))
    return DiscountedMDP(transition, rng.standard_normal((states, actions)), discount, rng.dirichlet(np.ones(states)))


def finite(seed, states=3, actions=2, horizon=3):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), size=(horizon, states, actions))
    return TabularMDP(
        transition, rng.standard_normal((horizon, states, actions)), rng.dirichlet(np.ones(states)), horizon
    )


@pytest.mark.parametrize("beta", [0.0, 1e-6, 0.3, 1e6])
@pytest.mark.parametrize("discount", [0.0, 0.9, 0.999])
def test_discounted_optimum_is_a_certified_fixed_point(beta, discount):
    problem = discounted(0, discount=discount)
    found = solve(problem, None, beta)
    assert found.error_bound <= 1e-10 * np.abs(found.value).max()
    assert found.converged
    assert found.reason == "certified"
    slow = solve(problem, None, beta, method="value_iteration", tolerance=1e-7, max_iterations=40_000)
    assert slow.converged
    assert np.abs(slow.value - found.value).max() <= slow.error_bound + found.error_bound


def test_hard_optimum_against_linear_programming():
    problem = discounted(1)
    states, actions = problem.shape
    rows, bounds = [], []
    for s, a in itertools.product(range(states), range(actions)):
        rows.append(problem.discount * problem.transition[s, a] - np.eye(states)[s])
        bounds.append(-problem.reward[s, a])
    found = linprog(np.ones(states), A_ub=np.array(rows), b_ub=bounds, bounds=(None, None))
    np.testing.assert_allclose(solve(problem, None, 0.0).value, found.x, atol=1e-8)


def test_soft_optimum_beats_a_generic_optimiser():
    problem, beta = discounted(2, states=3), 0.4
    ref = np.full(problem.shape, -np.log(3))
    best = solve(problem, ref, beta)
    value = evaluate(problem, best.log_policy, ref, beta).value
    assert value == pytest.approx(float(problem.initial @ best.value), rel=1e-10)
    found = minimize(
        lambda z: -evaluate(problem, log_normalize(z.reshape(3, 3)), ref, beta).value, np.zeros(9), method="BFGS"
    )
    assert value >= -found.fun - 1e-12
    assert value == pytest.approx(-found.fun, abs=1e-6)


def test_newton_is_superlinear_on_a_large_problem():
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.full(300, 0.1), size=(300, 10))
    problem = DiscountedMDP(transition, rng.random((300, 10)), 0.99, np.full(300, 1 / 300))
    found = solve(problem, None, 0.05)
    assert found.error_bound <= 1e-10 * np.abs(found.value).max()
    assert found.iterations <= 8


@pytest.mark.slow
def test_a_thousand_states():
    rng = np.random.default_rng(4)
    transition = rng.dirichlet(np.full(1000, 0.1), size=(1000, 20))
    problem = DiscountedMDP(transition, rng.random((1000, 20)), 0.99, np.full(1000, 1e-3))
    for beta in (0.0, 0.01, 1.0):
        found = solve(problem, None, beta)
        assert found.error_bound <= 1e-10 * np.abs(found.value).max()


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_finite_horizon_against_all_deterministic_policies(beta):
    problem = finite(5, states=2, actions=2, horizon=2)
    found = solve(problem, None, beta)
    best = -np.inf
    for choice in itertools.product(range(2), repeat=4):
        policy = np.where(np.arange(2) == np.array(choice).reshape(2, 2, 1), 0.0, -np.inf)
        best = max(best, evaluate(problem, policy).value)
    value = float(problem.initial @ found.value[0])
    if beta == 0:
        assert value == pytest.approx(best)
    else:
        ref = np.full(problem.shape, -np.log(2))
        assert value == pytest.approx(evaluate(problem, found.log_policy, ref, beta).value)
        search = minimize(lambda z: -evaluate(problem, log_normalize(z.reshape(2, 2, 2)), ref, beta).value, np.zeros(8))
        assert value >= -search.fun - 1e-12


def test_an_entropy_bonus_is_in_the_value_and_not_in_the_step_of_q():
    """``Q = r + gamma P V`` with the value of all later bonuses; ``V = beta log sum_a exp(Q / beta)``."""
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.ones(4), (4, 3))
    actions = np.array([[True, True, True], [True, False, True], [True, True, False], [False, True, True]])
    problem = DiscountedMDP(transition, rng.standard_normal((4, 3)), 0.9, np.full(4, 0.25), actions)
    found = solve(problem, None, 0.7, regularizer="entropy")
    np.testing.assert_allclose(found.q_value, problem.reward + 0.9 * transition @ found.value, atol=1e-11)
    soft = 0.7 * np.log(np.sum(np.where(actions, np.exp(found.q_value / 0.7), 0.0), axis=1))
    np.testing.assert_allclose(found.value, soft, atol=1e-11)


def test_entropy_regularisation_is_kl_to_uniform_plus_log_actions():
    problem, beta = finite(6), 0.7
    entropy = solve(problem, None, beta, regularizer="entropy")
    plain = solve(problem, None, beta)
    np.testing.assert_allclose(entropy.value[0], plain.value[0] + 3 * beta * np.log(2), rtol=1e-12)
    np.testing.assert_allclose(entropy.log_policy, plain.log_policy, atol=1e-13)


def test_masks_and_references_are_respected():
    base = discounted(7)
    mask = np.ones(base.shape, dtype=bool)
    mask[0, 1] = False
    problem = DiscountedMDP(base.transition, base.reward, base.discount, base.initial, mask)
    assert solve(problem, None, 0.5).log_policy[0, 1] == -np.inf
    with pytest.raises(ValueError, match="illegal"):
        solve(problem, np.full(base.shape, -np.log(3)), 0.5)


class TestOccupancy:
    def test_discounted_flow_and_reward(self):
        problem = discounted(8)
        policy = log_normalize(np.random.default_rng(0).standard_normal(problem.shape))
        d = occupancy(problem, policy)
        inflow = (1 - problem.discount) * problem.initial + problem.discount * np.einsum(
            "sa,sat->t", d, problem.transition
        )
        np.testing.assert_allclose(d.sum(axis=1), inflow, atol=1e-14)
        assert (d * problem.reward).sum() / (1 - problem.discount) == pytest.approx(evaluate(problem, policy).reward)

    def test_finite_horizon_against_rollouts(self):
        problem = finite(9)
        policy = log_normalize(np.random.default_rng(1).standard_normal(problem.shape))
        d = occupancy(problem, policy)
        np.testing.assert_allclose(d.sum(axis=(1, 2)), 1.0)
        paths = rollouts(problem, policy, 40_000, 3)
        counts = np.zeros(problem.shape)
        for t in range(problem.horizon):
            np.add.at(counts[t], (paths.states[:, t], paths.actions[:, t]), 1 / 40_000)
        assert np.abs(counts - d).max() < 5 * np.sqrt(0.25 / 40_000)
        total = paths.rewards.sum(axis=1)
        assert abs(total.mean() - evaluate(problem, policy).reward) < 5 * total.std() / 200

    def test_performance_difference(self):
        problem = discounted(10)
        rng = np.random.default_rng(2)
        a, b = (log_normalize(rng.standard_normal(problem.shape)) for _ in range(2))
        base = evaluate(problem, a)
        q = problem.reward + problem.discount * problem.transition @ base.state_value
        advantage = q - base.state_value[:, None]
        gain = (occupancy(problem, b) * advantage).sum() / (1 - problem.discount)
        assert evaluate(problem, b).value - base.value == pytest.approx(gain, rel=1e-10)


class TestTree:
    @pytest.mark.parametrize("beta", [1e-12, 1e-3, 0.5, 1e12])
    def test_one_backward_pass_is_the_sequence_optimum(self, beta):
        rng = np.random.default_rng(11)
        ref = tuple(log_normalize(rng.standard_normal((3**t, 3))) for t in range(4))
        reward = rng.standard_normal(81)
        found = solve(TokenTree(3, 4, reward), ref, beta)
        direct = kl_regularized(sequence_log_probs(ref), reward, beta)
        np.testing.assert_allclose(np.exp(sequence_log_probs(found.log_policy)), np.exp(direct.log_policy), atol=1e-12)
        assert float(found.value[0][0]) == pytest.approx(float(direct.value), rel=1e-12, abs=1e-13)

    def test_log_partition_of_every_node(self):
        rng = np.random.default_rng(12)
        ref = tuple(log_normalize(rng.standard_normal((2**t, 2))) for t in range(3))
        reward, beta = rng.standard_normal(8), 0.3
        found = solve(TokenTree(2, 3, reward), ref, beta)
        below = sequence_log_probs(ref)[4:] - ref[0][0, 1]
        want = np.log(np.sum(np.exp(below + reward[4:] / beta)))
        assert found.value[1][1] / beta == pytest.approx(want)

    def test_eos_trees(self):
        reward = np.random.default_rng(13).standard_normal(27)
        found = solve(TokenTree(3, 3, reward, eos=0), None, 0.5)
        assert found.log_policy[1][0].tolist() == [0.0, -np.inf, -np.inf]
        # a response that ends at once is worth the reward of (eos, eos, eos)
        assert found.q_value[0][0, 0] == pytest.approx(reward[0])

    @pytest.mark.slow
    def test_five_million_leaves(self):
        rng = np.random.default_rng(14)
        ref = tuple(log_normalize(rng.standard_normal((3**t, 3))) for t in range(14))
        reward = rng.standard_normal(3**14)
        found = solve(TokenTree(3, 14, reward), ref, 0.5)
        direct = kl_regularized(sequence_log_probs(ref), reward, 0.5)
        assert float(found.value[0][0]) == pytest.approx(float(direct.value), rel=1e-11)


def test_bandits_carry_their_reference():
    found = solve(Bandit(np.log([0.5, 0.5]), [0.0, 1.0]), beta=1.0)
    assert float(found.value) == pytest.approx(np.log((1 + np.e) / 2))
    assert solve(Bandit(np.log([0.5, 0.5]), [0.0, 1.0]), beta=0.0).log_policy[1] == 0
    with pytest.raises(TypeError, match="cannot solve"):
        solve("bandit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, "discount"),
        ({"discount": float("nan")}, "discount"),
        ({"reward": np.zeros((2, 2))}, "reward"),
        ({"initial": [0.5, 0.4, 0, 0, 0]}, "initial"),
        ({"transition": np.ones((5, 3, 5))}, "transition"),
        ({"actions": np.zeros((5, 3), dtype=bool)}, "legal action"),
    ],
)
def test_bad_mdps_are_named(change, message):
    base = discounted(0)
    fields = {"transition": base.transition, "reward": base.reward, "discount": 0.9, "initial": base.initial} | change
    with pytest.raises(ValueError, match=message):
        DiscountedMDP(**fields)


def test_rollouts_do_not_depend_on_threads():
    import numba

    problem = finite(15)
    policy = log_normalize(np.zeros(problem.shape))
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = rollouts(problem, policy, 20_000, 7)
    finally:
        numba.set_num_threads(threads)
    many = rollouts(problem, policy, 20_000, 7)
    np.testing.assert_array_equal(one.states, many.states)


@pytest.mark.parametrize(
    "levels",
    [
        [np.zeros((3**t, 3)) for t in range(2)],
        [np.zeros((2**t, 2)) for t in range(3)],
        [np.zeros((2**t, 2)) for t in range(1)],
        [np.zeros((5, 2**t, 2)) for t in range(2)],
    ],
    ids=["vocabulary", "longer", "shorter", "batch"],
)
def test_rollouts_of_a_tree_take_a_policy_of_that_tree(levels):
    with pytest.raises(ValueError, match="log_policy: must be one tree of vocabulary 2, horizon 2"):
        rollouts(TokenTree(2, 2, np.zeros(4)), [log_normalize(x) for x in levels], 3, 0)


def test_solve_takes_one_tree_at_a_time():
    one = [log_normalize(np.zeros((2**t, 2))) for t in range(2)]
    for reward, levels in (
        (np.zeros((5, 4)), one),
        (np.zeros(4), [np.broadcast_to(x, (5, *x.shape)) for x in one]),
        (np.zeros(4), [one[0], np.broadcast_to(one[1], (5, 2, 2))]),
    ):
        with pytest.raises(ValueError, match="problem: solve takes one tree at a time"):
            solve(TokenTree(2, 2, reward), levels)


def test_a_cost_that_is_infinite_later_is_infinite_now():
    """Leaving the reference's support in one state of the second step, reached half of the time."""
    problem = TabularMDP(np.full((2, 2, 2), 0.5), np.eye(2), np.array([1.0, 0.0]), horizon=2)
    half, sure = np.log([0.5, 0.5]), np.array([0.0, -np.inf])
    ref = np.array([[half, half], [half, sure]])
    policy = np.full((2, 2, 2), np.log(0.5))
    found = evaluate(problem, policy, ref, 1.0)
    assert found.kl == np.inf
    assert found.state_value.tolist() == [[-np.inf, -np.inf], [0.5, -np.inf], [0.0, 0.0]]
