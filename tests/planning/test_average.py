"""Average reward against closed forms, discounts close to 1 and enumeration; finite horizons of ten thousand steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse

from klsim.planning import solve
from klsim.planning.average import closed_classes, gain_and_bias
from klsim.problems import AverageMDP, DiscountedMDP, TabularMDP
from tests.planning.references import garnet, river_swim


def test_gain_and_bias_of_two_states():
    # leave with p, return with q: pi = (q, p) / (p + q); bias of a reward in state 0 is p / (p + q)^2 there
    p, q = 0.2, 0.3
    gain, bias, single = gain_and_bias(np.array([[1 - p, p], [q, 1 - q]]), np.array([1.0, 0.0]))
    assert single
    np.testing.assert_allclose(gain, q / (p + q))
    np.testing.assert_allclose(bias, [p / (p + q) ** 2, -q / (p + q) ** 2])


def test_gain_and_bias_of_a_periodic_chain_with_transient_states():
    cycle = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0.5, 0, 0, 0.5], [0, 0, 0, 1.0]])
    gain, bias, single = gain_and_bias(cycle, np.array([1.0, 0.0, 5.0, 2.0]))
    assert not single
    np.testing.assert_allclose(gain, [0.5, 0.5, 1.25, 2.0])
    np.testing.assert_allclose(bias, [0.25, -0.25, 3.875, 0.0])
    assert [list(c) for c in sorted(closed_classes(cycle), key=list)] == [[0, 1], [3]]


def test_river_swim():
    # always right: a birth-death chain, detailed balance gives the law of the last state
    transition, reward = river_swim(6)
    found = solve(AverageMDP(transition, reward, np.eye(6)[0]), beta=0.0)
    up, down = np.diag(transition[:, 1], 1), np.diag(transition[:, 1], -1)
    law = np.cumprod(np.append(1.0, up / down))
    np.testing.assert_allclose(found.gain, law[-1] / law.sum(), rtol=1e-13)
    assert found.converged
    assert (found.log_policy[:, 1] == 0).all()
    assert found.error_bound < 1e-12


def test_nothing_to_gain_in_several_classes():
    stay = np.broadcast_to(np.eye(3)[:, None], (3, 2, 3))
    found = solve(AverageMDP(stay, np.zeros((3, 2)), np.ones(3) / 3), beta=0.0)
    assert found.converged
    np.testing.assert_array_equal(found.gain, np.zeros(3))


@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.1, 10.0])
def test_the_limit_of_discounted_problems(beta):
    few = garnet(0, 15, 3, 4, 0.5)
    near = solve(DiscountedMDP(few.transition, few.reward, 1 - 1e-9, few.initial), beta=beta)
    found = solve(AverageMDP(few.transition, few.reward, few.initial), beta=beta)
    assert found.converged
    np.testing.assert_allclose(found.gain, near.value * 1e-9, atol=1e-7)
    np.testing.assert_allclose(found.bias - found.bias[0], near.value - near.value[0], atol=1e-5)
    assert found.error_bound <= 1e-10 * abs(found.gain[0])


def test_several_gains_against_all_policies():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        transition = np.eye(4)[rng.integers(0, 4, (4, 2))]
        if seed % 2:
            transition = 0.5 * (transition + np.eye(4)[rng.integers(0, 4, (4, 2))])
        reward = rng.normal(size=(4, 2))
        best = np.full(4, -np.inf)
        for choice in itertools.product(range(2), repeat=4):
            rows = np.arange(4), np.array(choice)
            best = np.maximum(best, gain_and_bias(transition[rows], reward[rows])[0])
        given = sparse.csr_array(transition.reshape(8, 4)) if seed % 3 else transition
        found = solve(AverageMDP(given, reward, np.full(4, 0.25)), beta=0.0)
        np.testing.assert_allclose(found.gain, best, atol=1e-12)
        assert found.converged


def test_soft_problems_need_one_closed_class():
    problem = AverageMDP(np.eye(2)[[[0, 1], [1, 1]]], np.zeros((2, 2)), [1.0, 0.0])
    assert solve(problem, beta=1.0).converged
    apart = AverageMDP(np.eye(2)[[[0], [1]]], [[0.0], [1.0]], [1.0, 0.0])
    np.testing.assert_array_equal(solve(apart, beta=0.0).gain, [0.0, 1.0])
    with pytest.raises(
        ValueError, match="log_ref: with beta > 0 has to lead to one closed class of states, leads to 2"
    ):
        solve(apart, beta=1.0)


def test_entropy_is_part_of_the_gain():
    """The gain is the mean of ``E r + beta H(pi)`` under the policy's own chain, more than that of the best without."""
    few = garnet(1, 6, 3, 3, 0.5).dense()
    legal = np.arange(3) <= np.array([0, 1, 2, 2, 1, 0])[:, None]
    problem = AverageMDP(few.transition, few.reward, few.initial, legal)
    found = solve(problem, beta=0.7, regularizer="entropy")
    pi = np.exp(found.log_policy)
    entropy = -np.sum(pi * np.where(pi > 0, found.log_policy, 0.0), axis=1)
    chain = np.einsum("sa,sat->st", pi, few.transition)
    gain, _, _ = gain_and_bias(chain, np.sum(pi * few.reward, axis=1) + 0.7 * entropy)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-9)
    assert found.gain[0] > solve(problem, beta=0.0).gain[0]


@pytest.mark.parametrize("horizon", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_steps(horizon):
    transition, reward = river_swim(6)
    few = sparse.csr_array(transition.reshape(12, 6))
    gain = solve(AverageMDP(few, reward, np.eye(6)[0]), beta=0.0)
    found = solve(TabularMDP(few, reward, np.eye(6)[0], horizon), beta=0.0)
    # V_H = H g + h + c, up to terms that fade geometrically
    offset = found.value[0] - horizon * gain.gain - gain.bias
    np.testing.assert_allclose(offset, offset[0], atol=1e-8)
    assert found.error_bound < 1e-7
    one, two = solve(TabularMDP(transition, reward, np.eye(6)[0], horizon), beta=0.3), None
    two = solve(TabularMDP(few, reward, np.eye(6)[0], horizon), beta=0.3)
    assert np.abs(one.value - two.value).max() <= one.error_bound + two.error_bound
    with pytest.raises(ValueError, match="overflow"):
        solve(TabularMDP(few, reward * 1e305, np.eye(6)[0], horizon))


def test_why_the_solver_stopped_is_said():
    rng = np.random.default_rng(0)
    problem = AverageMDP(rng.dirichlet(np.ones(4), (4, 3)), rng.standard_normal((4, 3)), np.full(4, 0.25))
    found = {
        name: solve(problem, None, 0.5, **options)
        for name, options in (("free", {}), ("exact", {"tolerance": 0.0}), ("short", {"max_iterations": 1}))
    }
    reasons = {name: f.reason for name, f in found.items()}
    assert reasons == {"free": "certified", "exact": "rounding level reached", "short": "iteration limit reached"}
    assert [f.converged for f in found.values()] == [True, False, False]
