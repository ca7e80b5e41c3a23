"""Imitation: divergences along trajectories and their gradients by enumeration, regret bounds, compounding errors, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import log_normalize
from klsim.planning import evaluate, imitation, occupancy, solve
from klsim.problems import DiscountedMDP, TabularMDP

mpmath = pytest.importorskip("mpmath")


def drawn(seed, states=2, actions=2, horizon=3):
    rng = np.random.default_rng(seed)
    problem = TabularMDP(
        rng.dirichlet(np.ones(states), (horizon, states, actions)), rng.random((horizon, states, actions)),
        rng.dirichlet(np.ones(states)), horizon,
    )  # fmt: skip
    return problem, *log_normalize(rng.standard_normal((2, horizon, states, actions)))


def enumerated(problem, pi, other):
    """KL of trajectories, by all of them."""
    total, (h, s, a) = 0.0, problem.shape
    for states in itertools.product(range(s), repeat=h):
        for actions in itertools.product(range(a), repeat=h):
            law, gap = problem.initial[states[0]], 0.0
            for t in range(h):
                law *= np.exp(pi[t, states[t], actions[t]])
                gap += pi[t, states[t], actions[t]] - other[t, states[t], actions[t]]
                if t + 1 < h:
                    law *= problem.transition[t, states[t], actions[t], states[t + 1]]
            total += law * gap
    return total


@given(st.integers(0, 100))
def test_chain_rule_by_enumeration(seed):
    problem, pi, teacher = drawn(seed)
    assert imitation.visited_divergence(problem, pi, teacher) == pytest.approx(enumerated(problem, pi, teacher))
    forward = imitation.visited_divergence(problem, pi, teacher, visits=teacher, generator="forward_kl")
    assert forward == pytest.approx(enumerated(problem, teacher, pi))


def test_unvisited_states_do_not_count():
    """An infinite divergence where nobody goes costs nothing."""
    problem = TabularMDP(np.eye(2)[:, None, :].repeat(2, axis=1), np.zeros((2, 2)), [1.0, 0.0], 2)
    pi = np.log(np.full((2, 2), 0.5))
    with np.errstate(divide="ignore"):
        teacher = np.log([[0.5, 0.5], [1.0, 0.0]])
    pi, teacher = (np.broadcast_to(x, problem.shape) for x in (pi, teacher))
    assert imitation.visited_divergence(problem, pi, teacher) == 0.0


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_gradient_by_differences(discount):
    problem, pi, teacher = drawn(3, states=3, actions=3, horizon=4)
    found, h = imitation.distillation_gradient(problem, pi, teacher, discount=discount), 1e-5
    for index in [(0, 0, 0), (1, 2, 1), (3, 1, 2)]:
        ends = []
        for sign in (1, -1):
            z = pi.copy()
            z[index] += sign * h
            frozen = pi if discount == 0 else None
            ends.append(-imitation.visited_divergence(problem, log_normalize(z), teacher, visits=frozen))
        assert found[index] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)


def test_gradient_at_the_teacher_and_of_sparse_problems():
    problem, pi, teacher = drawn(5)
    assert np.abs(imitation.distillation_gradient(problem, teacher, teacher, discount=1.0)).max() < 1e-15
    from scipy import sparse

    rows = [sparse.csr_array(step.reshape(4, 2)) for step in problem.transition]
    few = TabularMDP(rows, problem.reward, problem.initial, problem.horizon)
    for discount in (0.0, 1.0):
        a, b = (imitation.distillation_gradient(p, pi, teacher, discount=discount) for p in (problem, few))
        np.testing.assert_allclose(a, b, atol=1e-15)


@given(st.integers(0, 100), st.booleans())
def test_regret_is_bounded(seed, greedy):
    problem, pi, teacher = drawn(seed, states=3, actions=3, horizon=4)
    if greedy:
        teacher = solve(problem, beta=0.0).log_policy
    found = imitation.imitation_regret(problem, pi, teacher)
    assert found.regret == pytest.approx(evaluate(problem, teacher).reward - evaluate(problem, pi).reward)
    assert found.regret <= found.own_bound + 1e-12
    assert found.regret <= found.teacher_bound + 1e-12
    apart = 0.5 * np.abs(np.exp(pi) - np.exp(teacher)).sum(axis=-1)
    for errors, who in ((found.own_errors, pi), (found.teacher_errors, teacher)):
        np.testing.assert_allclose(errors, (occupancy(problem, who).sum(axis=-1) * apart).sum(axis=-1))


def test_regret_on_the_track_is_attained():
    """One error costs one step if the teacher takes over, and the bound is eps H."""
    to = np.zeros((2, 2, 2))
    to[:, 0, 0] = to[:, 1, 1] = 1.0
    problem = TabularMDP(to, -to[:, :, 1], [1.0, 0.0], 7)
    with np.errstate(divide="ignore"):
        pi, teacher = (np.broadcast_to(np.log([[1 - e, e]] * 2), problem.shape) for e in (0.1, 0.0))
    found = imitation.imitation_regret(problem, pi, teacher)
    assert (found.regret, found.recovery, found.own_bound) == pytest.approx((0.7, 1.0, 0.7))
    assert found.teacher_bound == pytest.approx(0.1 * 28)


def test_illegal_actions_cost_nothing():
    problem = TabularMDP(
        np.ones((1, 2, 1)), np.array([[1.0, -50.0]]), [1.0], 2, actions=np.array([[True, False]])
    )  # fmt: skip
    with np.errstate(divide="ignore"):
        only = np.broadcast_to(np.log([[1.0, 0.0]]), problem.shape)
    found = imitation.imitation_regret(problem, only, only)
    assert (found.recovery, found.teacher_bound) == (0.0, 0.0)


@given(st.floats(1e-300, 1.0), st.integers(0, 10**6))
def test_unrecovered_cost_in_high_precision(error, horizon):
    with mpmath.workdps(700):
        eps = mpmath.mpf(error)
        exact = horizon - (1 - eps) * (1 - (1 - eps) ** horizon) / eps
    assert float(imitation.unrecovered_cost(error, horizon)) == pytest.approx(float(exact), rel=1e-12, abs=0)


def test_unrecovered_cost_at_the_ends():
    np.testing.assert_array_equal(imitation.unrecovered_cost([0.0, 1.0], [[5], [0]]), [[0.0, 5.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, a, b: imitation.visited_divergence(p, a[:1], b), "log_policy"),
        (lambda p, a, b: imitation.visited_divergence(p, a, b, generator="no"), "generator"),
        (lambda p, a, b: imitation.distillation_gradient(p, a, b, discount=2.0), "discount"),
        (lambda p, a, b: imitation.distillation_gradient(p, a, np.where(np.arange(2) > 0, -np.inf, 0.0 * b)), "log_policy.*has mass"),
        (lambda p, a, b: imitation.unrecovered_cost(1.5, 3), "error"),
        (lambda p, a, b: imitation.unrecovered_cost(0.5, -1), "horizon"),
        (lambda p, a, b: imitation.unrecovered_cost([0.5, 0.5], [1, 2, 3]), "error|horizon"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call(*drawn(0))


def test_other_problems():
    other = DiscountedMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), 0.5, [1.0])
    for call in (imitation.visited_divergence, imitation.distillation_gradient, imitation.imitation_regret):
        with pytest.raises(TypeError, match="problem"):
            call(other, np.zeros((1, 1)), np.zeros((1, 1)))
