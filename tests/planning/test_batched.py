"""Batches of finite-horizon problems against the solvers of single ones; counts with the law of trajectories."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.planning import evaluate, occupancy, solve
from klsim.planning.batched import demonstration_counts, estimated_transitions, expected_returns, soft_plans
from klsim.problems import TabularMDP


def drawn(seed=0, batch=4, horizon=3, states=3, actions=2):
    rng = np.random.default_rng(seed)
    shape = (batch, horizon, states, actions)
    ref = np.log(rng.dirichlet(np.ones(actions), shape[:-1]))
    return rng.dirichlet(np.ones(states), shape), rng.random(shape), rng.dirichlet(np.ones(states), batch), ref


@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.5, 1e3])
def test_a_batch_is_its_problems(beta):
    transition, reward, initial, ref = drawn()
    policy, q, value = soft_plans(transition, reward, ref, beta)
    earned, spent = expected_returns(transition, reward, initial, policy, ref)
    for i in range(4):
        problem = TabularMDP(transition[i], reward[i], initial[i], 3)
        one, own = solve(problem, ref[i], beta), evaluate(problem, policy[i], ref[i])
        np.testing.assert_allclose(policy[i], one.log_policy, atol=1e-12)
        np.testing.assert_allclose(q[i], one.q_value, atol=1e-12)
        np.testing.assert_allclose(value[i], one.value, atol=1e-12)
        assert (earned[i], spent[i]) == pytest.approx((own.reward, own.kl), abs=1e-12)


def test_broadcasting():
    """One problem, many models: no axis is written out by the caller."""
    transition, reward, initial, ref = drawn()
    policy, _, _ = soft_plans(transition, reward[0], ref[0], 0.3)
    assert policy.shape == transition.shape[:-1]
    assert expected_returns(transition[0], reward[0], initial[0], policy)[0].shape == (4,)
    assert np.all(expected_returns(transition[0], reward[0], initial[0], policy)[1] == 0)


def test_an_infinite_kl_where_nobody_goes():
    transition = np.zeros((1, 2, 1, 2))
    transition[..., 0] = 1.0
    expert = np.array([[[0.0, -np.inf], [0.0, -np.inf]]])[..., :1]
    ref = np.array([[[0.0], [0.0]]])
    assert expected_returns(transition, np.zeros((1, 2, 1)), [1.0, 0.0], expert, ref)[1] == 0.0


def test_counts_follow_the_occupancy():
    transition, reward, initial, ref = (x[0] for x in drawn(1))
    counts = demonstration_counts(transition, initial, ref, 10**6, 0)
    assert np.all(counts.sum(axis=(1, 2)) == 10**6)
    expected = occupancy(TabularMDP(transition, reward, initial, 3), ref)
    error = np.sqrt(expected * (1 - expected) / 10**6)
    assert np.all(np.abs(counts / 10**6 - expected) < 6 * error)


def test_estimates():
    transition = drawn()[0]
    found = estimated_transitions(transition, 10**6, 1)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0)
    assert np.all(np.abs(found - transition) < 6 * np.sqrt(transition * (1 - transition) / 10**6) + 1e-12)
    assert set(np.unique(estimated_transitions(transition, 1, 1))) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p, r, m, f: soft_plans(p[..., :2], r, f, 1.0), "transition"),
        (lambda p, r, m, f: soft_plans(p, r[..., :1], f, 1.0), "reward"),
        (lambda p, r, m, f: soft_plans(p, r, f, -1.0), "beta"),
        (lambda p, r, m, f: soft_plans(p, r, f + 1, 1.0), "log_ref"),
        (lambda p, r, m, f: expected_returns(p, r, m[:, :2] / m[:, :2].sum(1, keepdims=True), f), "initial"),
        (lambda p, r, m, f: demonstration_counts(p, m, f, -1, 0), "demonstrations"),
        (lambda p, r, m, f: estimated_transitions(p, 0, 0), "samples"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(*drawn())
