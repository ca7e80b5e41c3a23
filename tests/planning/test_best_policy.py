"""Best-policy identification: brackets, certificates, stopping, known dynamics, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.planning import evaluate, solve
from klsim.planning.best_policy import identify_best_policy
from klsim.problems import TabularMDP


def drawn(seed, horizon=2, states=2, actions=2):
    rng = np.random.default_rng(seed)
    shape = (horizon, states, actions)
    problem = TabularMDP(
        rng.dirichlet(np.ones(states), shape), rng.random(shape), rng.dirichlet(np.ones(states)), horizon
    )
    return problem, np.log(rng.dirichlet(np.ones(actions), shape[:2]))


@pytest.mark.parametrize("seed", range(3))
def test_bracket_and_certificate(seed):
    problem, ref = drawn(seed)
    best = problem.initial @ solve(problem, ref, 0.5).value[0]
    found = identify_best_policy(
        problem, ref, 0.5, 20000, checkpoints=[0, 100, 2000, 20000], refresh=0.05, runs=3, rng=seed
    )
    assert np.all(found.lower <= best)
    assert np.all(best <= found.upper)
    assert np.all(np.diff(found.upper - found.lower, axis=1) <= 1e-12)
    for policy, certificate in zip(found.log_policy, found.certificate[:, -1]):
        assert best - evaluate(problem, policy, ref, 0.5).value <= certificate


def test_transitions_are_those_of_whole_episodes():
    """Every run passes each step once an episode, and leaves where it arrived."""
    problem, ref = drawn(2, horizon=3, states=3)
    found = identify_best_policy(problem, ref, 0.5, 200, runs=2).transitions
    assert found.shape == (2, 3, 3, 2, 3)
    assert np.all(found.sum(axis=(2, 3, 4)) == 200)
    np.testing.assert_array_equal(found[:, :-1].sum(axis=(2, 3)), found[:, 1:].sum(axis=(3, 4)))


def test_stops_at_the_accuracy():
    problem, ref = drawn(1)
    found = identify_best_policy(problem, ref, 0.5, 200_000, accuracy=0.2, scale=0.03, refresh=0.02, runs=3)
    assert found.stopped.all()
    assert np.all(found.episodes < 200_000)
    best = problem.initial @ solve(problem, ref, 0.5).value[0]
    assert all(best - evaluate(problem, p, ref, 0.5).value <= 0.2 for p in found.log_policy)
    never = identify_best_policy(problem, ref, 0.5, 5, accuracy=0.0)
    assert not never.stopped.any()
    assert never.episodes.tolist() == [5]


def test_deterministic_dynamics_are_learned_exactly():
    """With ``scale = 0`` what was seen is known: the policy is the optimum once every pair was."""
    rng = np.random.default_rng(0)
    problem = TabularMDP(np.eye(3)[rng.integers(0, 3, (2, 3, 2))], rng.random((2, 3, 2)), np.full(3, 1 / 3), 2)
    found = identify_best_policy(problem, None, 0.3, 500, scale=0.0, accuracy=1e-12)
    assert found.stopped.all()
    best = solve(problem, None, 0.3)
    assert evaluate(problem, found.log_policy[0], np.full(problem.shape, -np.log(2)), 0.3).value == pytest.approx(
        problem.initial @ best.value[0]
    )


def test_target_and_schedule():
    """The target is of the true return; the coefficient may change with the episodes; runs are reproducible."""
    problem, ref = drawn(4)
    target = 0.9 * float(problem.initial @ solve(problem, beta=0.0).value[0])
    betas = 1.0 / np.sqrt(1 + np.arange(3001))
    one, two = (
        identify_best_policy(problem, ref, betas, 3000, target=target, accuracy=-1.0, runs=2, rng=7) for _ in range(2)
    )
    np.testing.assert_array_equal(one.log_policy, two.log_policy)
    assert all(evaluate(problem, p).reward >= target for p, s in zip(one.log_policy, one.stopped) if s)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": np.ones(3)}, "beta"),
        ({"episodes": -1}, "episodes"),
        ({"scale": -1.0}, "scale"),
        ({"delta": 1.0}, "delta"),
        ({"cap": np.ones(3)}, "cap"),
        ({"cap": -np.ones((2, 2))}, "cap"),
        ({"checkpoints": [3, 3]}, "checkpoints"),
        ({"checkpoints": [30]}, "checkpoints"),
        ({"runs": 0}, "runs"),
        ({"refresh": 2.0}, "refresh"),
    ],
)
def test_bad_input_is_named(options, text):
    problem, ref = drawn(0)
    given = {"beta": 1.0, "episodes": 10} | options
    with pytest.raises(ValueError, match=text):
        identify_best_policy(problem, ref, given.pop("beta"), given.pop("episodes"), **given)


def test_problems_that_do_not_fit():
    problem, ref = drawn(0)
    costs = TabularMDP(problem.transition, -problem.reward, problem.initial, 2)
    with pytest.raises(ValueError, match="rewards"):
        identify_best_policy(costs, ref, 1.0, 1)
    with pytest.raises(TypeError, match="problem"):
        identify_best_policy(None, ref, 1.0, 1)
