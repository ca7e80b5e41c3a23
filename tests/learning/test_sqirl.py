"""SQIRL, GORP and effective horizons: a NumPy reference, known problems, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning import gorp, open_loop_return, policy_returns, sqirl
from klsim.planning import effective_horizon, evaluate, qvi_iterates, solve
from klsim.problems import TabularMDP, sticky_actions


def problem(seed, horizon=3, states=3, actions=2):
    rng = np.random.default_rng(seed)
    return TabularMDP(
        rng.dirichlet(np.ones(states), (horizon, states, actions)), rng.random((horizon, states, actions)) / horizon,
        rng.dirichlet(np.ones(states)), horizon,
    )  # fmt: skip


def test_iterates_end_at_the_optimum():
    mdp = problem(0, horizon=4)
    iterates = qvi_iterates(mdp, 6)
    best = solve(mdp, None, 0.0)
    assert np.allclose(iterates[3], best.q_value)
    assert np.allclose(iterates[3], iterates[5])
    uniform = np.full(mdp.shape, -np.log(2))
    value = evaluate(mdp, uniform).state_value
    assert np.allclose(iterates[0].mean(axis=-1), value[:4])
    other = solve(mdp, None, 0.1).log_policy
    base = evaluate(mdp, other).state_value
    assert np.allclose(np.sum(np.exp(other) * qvi_iterates(mdp, 1, log_base=other)[0], axis=-1), base[:4])


def test_many_episodes_find_the_greedy_policy():
    mdp = problem(1)
    for k in (1, 2, 3):
        greedy = qvi_iterates(mdp, k)[-1].argmax(axis=-1)
        learned = sqirl(mdp, k, 200_000, runs=2, rng=0)
        assert np.array_equal(learned[0], greedy)
        assert np.array_equal(learned[0], learned[1])


def test_the_first_step_averages_returns():
    """One step: SQIRL(1) is a bandit; success frequencies against the exact law of empirical means."""
    mdp = TabularMDP(np.ones((1, 1, 2, 1)), np.array([[[0.0, 1.0]]]), [1.0], 1)
    won = sqirl(mdp, 1, 1, runs=20_000, rng=3)[:, 0, 0]
    # the right action is tried with probability 1/2; otherwise both cells are 0 and a coin decides
    assert won.mean() == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 20_000))


def test_independent_of_threads_and_reproducible():
    import numba

    mdp = problem(2)
    first = sqirl(mdp, 2, 5, runs=64, rng=7)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        second = sqirl(mdp, 2, 5, runs=64, rng=7)
        third = gorp(mdp, 2, 5, runs=16, rng=7)
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(first, second)
    assert np.array_equal(third, gorp(mdp, 2, 5, runs=16, rng=7))
    assert not np.array_equal(first, sqirl(mdp, 2, 5, runs=64, rng=8))


def test_returns():
    mdp = problem(3)
    rng = np.random.default_rng(0)
    policies = rng.integers(0, 2, (5, 3, 3))
    with np.errstate(divide="ignore"):
        expected = [float(evaluate(mdp, np.log(np.eye(2)[p])).reward) for p in policies]
    assert np.allclose(policy_returns(mdp, policies), expected)
    assert open_loop_return(mdp, [0, 1, 0]) == pytest.approx(
        float(policy_returns(mdp, np.array([[0] * 3, [1] * 3, [0] * 3])))
    )


def test_gorp_on_a_deterministic_problem():
    transition = np.zeros((2, 2, 2, 2))
    transition[..., 1] = 1.0
    transition[0, 0, 0] = (1.0, 0.0)
    reward = np.zeros((2, 2, 2))
    reward[1, 0, 1] = 1.0
    mdp = TabularMDP(transition, reward, [1.0, 0.0], 2)
    assert gorp(mdp, 1, 200, rng=0)[0].tolist() == [0, 1]
    assert gorp(mdp, 5, 10, rng=0)[0].tolist() == [0, 1]


def test_effective_horizon_of_a_bandit():
    mdp = TabularMDP(np.ones((1, 1, 3, 1)), np.array([[[0.5, 0.5, 0.2]]]), [1.0], 1)
    found = effective_horizon(mdp)
    assert found.solvable.tolist() == [True]
    assert found.gap[0] == pytest.approx(0.3)
    assert found.value == pytest.approx(1 - 2 * np.log(0.3) / np.log(3))
    flat = TabularMDP(np.ones((1, 1, 2, 1)), np.zeros((1, 1, 2)), [1.0], 1)
    assert effective_horizon(flat).value == 1.0


def test_sticky_actions():
    mdp = problem(4)
    stuck = sticky_actions(mdp, 1.0)
    assert stuck.shape == (3, 6, 2)
    for first in (0, 1):
        # the first action is repeated for ever, whatever is chosen later
        value = policy_returns(stuck, np.stack([np.full(6, first), np.full(6, 1 - first), np.full(6, 1 - first)]))
        assert value == pytest.approx(open_loop_return(mdp, [first] * 3))
    policy = np.random.default_rng(0).integers(0, 2, (3, 3))
    assert policy_returns(sticky_actions(mdp, 0.0), np.repeat(policy, 2, axis=1)) == pytest.approx(
        float(policy_returns(mdp, policy))
    )


def test_bad_input():
    mdp = problem(0)
    for name, options in (("k", (0, 5)), ("m", (1, 0))):
        with pytest.raises(ValueError, match=name):
            sqirl(mdp, *options)
    with pytest.raises(ValueError, match="runs"):
        sqirl(mdp, 1, 1, runs=0)
    with pytest.raises(ValueError, match="policies"):
        policy_returns(mdp, np.zeros((2, 3), dtype=int))
    with pytest.raises(ValueError, match=r"policies\[0, 0\] = 2"):
        policy_returns(mdp, np.full((3, 3), 2))
    with pytest.raises(ValueError, match="sequence"):
        open_loop_return(mdp, [0])
    with pytest.raises(ValueError, match="count"):
        qvi_iterates(mdp, 0)
    with pytest.raises(ValueError, match="probability"):
        sticky_actions(mdp, 1.5)
    masked = TabularMDP(
        mdp.transition, mdp.reward, mdp.initial, 3, actions=np.array([[True, False], [True, True], [True, True]])
    )
    with pytest.raises(ValueError, match="every action to be legal"):
        sqirl(masked, 1, 1)
    single = TabularMDP(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1)), [1.0], 1)
    with pytest.raises(ValueError, match="two actions"):
        effective_horizon(single)
