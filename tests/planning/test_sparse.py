"""Sparse transitions: the same numbers as dense ones everywhere, and problems that only fit sparse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from klsim.distributions import log_normalize
from klsim.planning import chains, effective_horizon, evaluate, flow_gap, occupancy, robust_values, rollouts, solve
from klsim.problems import AverageMDP, DiscountedMDP, TabularMDP, sample_transitions
from tests.planning.references import garnet


def policy_of(problem, seed=0):
    return log_normalize(np.random.default_rng(seed).standard_normal(problem.shape))


def test_successors_matrices_and_arrays_are_the_same_problem():
    few = garnet(0, 12, 3, 4, 0.9)
    whole = few.dense()
    for kind in (sparse.csr_matrix, sparse.coo_array, sparse.csc_array):
        other = DiscountedMDP(kind(whole.transition.reshape(36, 12)), few.reward, 0.9, few.initial)
        np.testing.assert_array_equal(other.transition.toarray(), few.transition.toarray())
    assert few.is_sparse
    assert not whole.is_sparse
    assert few.dense().dense() is not few
    twice = DiscountedMDP((np.array([[[0, 1, 1]]] * 2), np.array([[[0.2, 0.3, 0.5]]] * 2)), [[0.0]] * 2, 0.5, [1, 0])
    np.testing.assert_allclose(twice.transition.toarray(), [[0.2, 0.8]] * 2)


@pytest.mark.parametrize("beta", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("discount", [0.9, 1 - 1e-6])
def test_discounted(beta, discount):
    few = garnet(1, 150, 3, 2, discount)
    whole, policy = few.dense(), policy_of(few)
    one, two = solve(few, beta=beta), solve(whole, beta=beta)
    assert np.abs(one.value - two.value).max() <= one.error_bound + two.error_bound
    for beta_of in (0.0, 0.3):
        a, b = (evaluate(problem, policy, policy_of(few, 1), beta_of) for problem in (few, whole))
        np.testing.assert_allclose(a.state_value, b.state_value, rtol=1e-9)
    np.testing.assert_allclose(occupancy(few, policy), occupancy(whole, policy), rtol=1e-8, atol=1e-13)
    assert np.abs(flow_gap(few, occupancy(few, policy))).max() < 1e-12
    np.testing.assert_array_equal(
        rollouts(few, policy, 50, 3, horizon=8).states, rollouts(whole, policy, 50, 3, horizon=8).states
    )


def test_finite_horizon():
    base = garnet(2, 8, 2, 2, 0.9)
    steps = [garnet(seed, 8, 2, 2, 0.9).transition for seed in range(4)]
    for transition, horizon in ((base.transition, 4), (steps, 4), (steps[:2], 2), (steps[:2] * 2, 4)):
        few = TabularMDP(transition, base.reward, base.initial, horizon)
        whole, policy = few.dense(), policy_of(few)
        for beta in (0.0, 0.5):
            np.testing.assert_allclose(
                solve(few, beta=beta).value, solve(whole, beta=beta).value, rtol=1e-12, atol=1e-13
            )
        np.testing.assert_allclose(evaluate(few, policy).state_value, evaluate(whole, policy).state_value, rtol=1e-12)
        np.testing.assert_allclose(occupancy(few, policy), occupancy(whole, policy), atol=1e-15)
        np.testing.assert_array_equal(rollouts(few, policy, 20, 1).states, rollouts(whole, policy, 20, 1).states)
        assert effective_horizon(few).value == effective_horizon(whole).value
        np.testing.assert_array_equal(sample_transitions(few, 9, 0).state, sample_transitions(whole, 9, 0).state)
        np.testing.assert_allclose(robust_values(few, 1.0, "tv").value, robust_values(whole, 1.0, "tv").value)


@pytest.mark.parametrize("kind", ["mixing", "walk", "tree"])
def test_evaluation_where_factors_may_not_be_had(kind, monkeypatch):
    rng, states = np.random.default_rng(0), 4000
    following = {
        "mixing": rng.integers(0, states, (states, 1, 3)),
        "walk": np.clip(np.arange(states)[:, None, None] + [-1, 0, 1], 0, states - 1),
        "tree": np.broadcast_to((np.arange(states) // 2)[:, None, None], (states, 1, 3)),
    }[kind]
    weights = rng.dirichlet(np.ones(3), size=(states, 1))
    problem = DiscountedMDP((following, weights), rng.normal(size=(states, 1)), 0.99, np.full(states, 1 / states))
    policy = np.zeros((states, 1))
    direct = evaluate(problem, policy).state_value
    visits = occupancy(problem, policy)
    monkeypatch.setattr(chains, "FILL", 0.0)
    np.testing.assert_allclose(evaluate(problem, policy).state_value, direct, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(occupancy(problem, policy), visits, atol=1e-12)
    residual = problem.reward[:, 0] + 0.99 * problem.transition @ direct - direct
    assert np.abs(residual).max() < 1e-12
    assert np.abs(flow_gap(problem, visits)).max() < 1e-14


def test_fifty_thousand_states():
    rng, states = np.random.default_rng(0), 50_000
    law = rng.integers(0, states, (states, 4, 4)), rng.dirichlet(np.ones(4), size=(states, 4))
    problem = DiscountedMDP(law, rng.random((states, 4)), 0.99, np.full(states, 1 / states))
    for beta in (0.0, 0.1):
        found = solve(problem, beta=beta, tolerance=1e-6)
        assert found.converged
        assert found.error_bound <= 1e-6 * found.value.max()


@pytest.mark.slow
def test_a_million_states():
    rng, states = np.random.default_rng(0), 10**6
    law = rng.integers(0, states, (states, 4, 4), dtype=np.int32), rng.dirichlet(np.ones(4), size=(states, 4))
    problem = DiscountedMDP(law, rng.random((states, 4)), 0.99, np.full(states, 1 / states))
    found = solve(problem, beta=0.0, tolerance=1e-6)
    assert found.error_bound <= 1e-6 * found.value.max()


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (sparse.eye_array(3), r"shape .S A, S. = .4, 2."),
        (
            sparse.csr_array([[1.0, 0], [0, 1], [0.5, 0.4], [1, 0]]),
            r"transition\[2\] = 0.9: probabilities must sum to 1",
        ),
        (sparse.csr_array([[1.0, 0], [0, 1], [1.5, -0.5], [1, 0]]), r"transition\[2, 1\] = -0.5: must be finite"),
        (sparse.csr_array([[1.0, 0], [0, 1], [0, np.nan], [1, 0]]), r"transition\[2, 1\] = nan"),
        ((np.zeros((2, 2, 1), int), np.ones((2, 2))), "both have shape"),
        ((np.full((2, 2, 1), 5), np.ones((2, 2, 1))), r"transition\[0\]\[0, 0, 0\] = 5: must be <= 1"),
    ],
)
@pytest.mark.parametrize("kind", ["discounted", "average", "finite"])
def test_bad_sparse_transitions_are_named(transition, message, kind):
    make = {
        "discounted": lambda reward, initial: DiscountedMDP(transition, reward, 0.9, initial),
        "average": lambda reward, initial: AverageMDP(transition, reward, initial),
        "finite": lambda reward, initial: TabularMDP(transition, reward, initial, 3),
    }
    with pytest.raises(ValueError, match=message):
        make[kind](np.zeros((2, 2)), [0.5, 0.5])


def test_what_a_float32_matrix_rounds():
    law = np.full((7, 1, 7), 1 / 7, dtype=np.float32)
    problem = DiscountedMDP(law, np.zeros((7, 1)), 0.9, np.full(7, 1 / 7))
    np.testing.assert_allclose(problem.transition.sum(axis=2), 1.0, rtol=1e-15)
    with pytest.raises(ValueError, match="sum to 1"):
        DiscountedMDP(law.astype(float) * (1 + 1e-7), np.zeros((7, 1)), 0.9, np.full(7, 1 / 7))
    with pytest.raises(ValueError, match=r"discount = 1.0: must lie in \[0, 1\)"):
        DiscountedMDP(law, np.zeros((7, 1)), 1.0, np.full(7, 1 / 7))


def test_arguments_are_not_changed():
    rows = sparse.csr_array(np.array([[0.25, 0.75], [1.0, 0.0]]))
    rows.data *= 1 + 1e-9
    before = rows.copy()
    DiscountedMDP(rows, [[0.0], [1.0]], 0.9, [1.0, 0.0])
    np.testing.assert_array_equal(rows.data, before.data)
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="transition: must be a NumPy array"):
        DiscountedMDP(torch.eye(2, requires_grad=True)[:, None], [[0.0], [1.0]], 0.9, [1.0, 0.0])
