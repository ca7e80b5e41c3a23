"""The same optima as QuantEcon's (dense and sparse), and Gymnasium's toy text with its known values."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.planning import evaluate, rollouts, solve
from klsim.problems import DiscountedMDP, TabularMDP
from tests.planning.references import chain, deterministic, garnet, linear_program, river_swim

PROBLEMS = {
    "garnet": lambda: garnet(0, 80, 4, 3, 0.95),
    "deterministic": lambda: deterministic(1, 60, 3, 0.99),
    "river swim": lambda: DiscountedMDP(*river_swim(40), 0.99, np.eye(40)[0]),
    "chain": lambda: chain(60, 0.95),
    "dense": lambda: DiscountedMDP(
        np.random.default_rng(0).dirichlet(np.ones(30), (30, 4)),
        np.random.default_rng(1).random((30, 4)),
        0.9,
        np.full(30, 1 / 30),
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("few", [False, True])
def test_quantecon(name, few):
    markov = pytest.importorskip("quantecon.markov")
    problem = PROBLEMS[name]()
    states, actions = problem.shape
    moves = problem.dense().transition
    if few:
        from scipy import sparse

        pairs = np.repeat(np.arange(states), actions), np.tile(np.arange(actions), states)
        rows = sparse.csr_matrix(moves.reshape(-1, states))
        peer = markov.DiscreteDP(problem.reward.ravel(), rows, problem.discount, *pairs)
        problem = DiscountedMDP(rows, problem.reward, problem.discount, problem.initial)
    else:
        peer = markov.DiscreteDP(problem.reward, moves, problem.discount)
    found = solve(problem, beta=0.0)
    np.testing.assert_allclose(found.value, peer.solve(method="policy_iteration").v, rtol=1e-9, atol=1e-10)


def toy(name, **options):
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("pygame", exc_type=ImportError)
    versions = [key for key in gymnasium.registry if key.rsplit("-v", 1)[0] == name]
    return gymnasium.make(versions[-1], **options)


@pytest.mark.parametrize(("name", "value"), [("FrozenLake", 0.54203), ("FrozenLake8x8", 0.41464)])
def test_frozen_lake(name, value):
    """Published optima at discount .99 of the slippery maps."""
    for few in (False, True):
        problem = DiscountedMDP.from_gymnasium(toy(name), 0.99, sparse=few)
        found = solve(problem, beta=0.0)
        assert float(problem.initial @ found.value) == pytest.approx(value, abs=1e-5)
        np.testing.assert_allclose(found.value, linear_program(problem), atol=1e-8)


def test_cliff_walking():
    """Thirteen steps of -1 along the cliff; the goal ends the episode, though its table walks on."""
    problem = DiscountedMDP.from_gymnasium(toy("CliffWalking"), 0.9)
    assert problem.shape == (49, 4)
    assert float(problem.initial @ solve(problem, beta=0.0).value) == pytest.approx(-(1 - 0.9**13) / 0.1)


def test_taxi():
    """Drive, pick up, drive, drop off: the shortest paths by breadth-first search, -1 a step and 20 at the end."""
    env = toy("Taxi")
    problem = DiscountedMDP.from_gymnasium(env, 0.99, sparse=True)
    found = solve(problem, beta=0.0)
    table = env.unwrapped.P
    steps = dict.fromkeys((s for s in table if any(end for a in range(6) for *_, end in table[s][a])), 1)
    frontier = set(steps)
    while frontier:
        before = {s for s in table if s not in steps and any(table[s][a][0][1] in frontier for a in range(6))}
        steps |= {s: 1 + min(steps[table[s][a][0][1]] for a in range(6) if table[s][a][0][1] in steps) for s in before}
        frontier = before
    for s, n in steps.items():
        assert found.value[s] == pytest.approx(20 * 0.99 ** (n - 1) - (1 - 0.99 ** (n - 1)) / 0.01)
    assert abs(found.value[-1]) <= found.error_bound


def test_truncation_is_a_horizon_not_an_end():
    env = toy("FrozenLake")
    problem = TabularMDP.from_gymnasium(env)
    assert problem.horizon == 100
    found = solve(problem, beta=0.0)
    table, value = env.unwrapped.P, np.zeros(16)
    for _ in range(100):
        value = np.array([max(sum(p * (r + (not end) * value[t]) for p, t, r, end in table[s][a]) for a in range(4))
                          for s in range(16)])  # fmt: skip
    np.testing.assert_allclose(found.value[0, :16], value, atol=1e-14)
    policy = log_normalize(np.zeros(problem.shape))
    paths = rollouts(problem, policy, 4000, 0).rewards.sum(axis=1)
    exact = evaluate(problem, policy).reward
    assert abs(paths.mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / 4000)
    assert TabularMDP.from_gymnasium(env, horizon=7).horizon == 7
    with pytest.raises(TypeError, match="env: needs a transition table"):
        DiscountedMDP.from_gymnasium(object(), 0.9)
