"""Cloning: the expected KL by enumeration of data sets, its bound and limits at extremes, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from klsim.planning.cloning import clone, cloning_bound, cloning_limit, expected_cloning_kl, high_probability_bound
from klsim.planning.imitation import visited_divergence
from klsim.problems import TabularMDP


def drawn(seed, horizon=2, states=2, actions=2):
    rng = np.random.default_rng(seed)
    shape = (horizon, states, actions)
    problem = TabularMDP(
        rng.dirichlet(np.ones(states), shape), rng.random(shape), rng.dirichlet(np.ones(states)), horizon
    )
    return problem, np.log(rng.dirichlet(np.ones(actions), shape[:2]))


def hard(log_policy):
    return np.where(np.arange(log_policy.shape[-1]) == log_policy.argmax(axis=-1)[..., None], 0.0, -np.inf)


def by_enumeration(problem, expert, demonstrations, smoothing):
    """The mean over all data sets of trajectories."""
    horizon, states, actions = problem.shape
    paths = []
    for s in itertools.product(range(states), repeat=horizon):
        for a in itertools.product(range(actions), repeat=horizon):
            p = problem.initial[s[0]] * math.prod(math.exp(expert[t, s[t], a[t]]) for t in range(horizon))
            p *= math.prod(problem.transition[t, s[t], a[t], s[t + 1]] for t in range(horizon - 1))
            paths.append((p, s, a))
    total = 0.0
    for data in itertools.product(paths, repeat=demonstrations):
        counts = np.zeros(problem.shape, dtype=int)
        for _, s, a in data:
            counts[np.arange(horizon), s, a] += 1
        chance = math.prod(p for p, _, _ in data)
        if chance > 0:
            total += chance * visited_divergence(problem, expert, clone(counts, smoothing))
    return total


@pytest.mark.parametrize("smoothing", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("demonstrations", [1, 2])
def test_expectation_by_enumeration(smoothing, demonstrations):
    problem, expert = drawn(3)
    found = expected_cloning_kl(problem, expert, demonstrations, smoothing)
    assert found == pytest.approx(by_enumeration(problem, expert, demonstrations, smoothing), rel=1e-12)


def test_without_smoothing():
    """Infinite for a soft expert; for a deterministic one only states that the data missed cost anything."""
    problem, expert = drawn(5)
    assert expected_cloning_kl(problem, expert, 3, 0.0) == math.inf
    found = expected_cloning_kl(problem, hard(expert), 2, 0.0)
    assert found == pytest.approx(by_enumeration(problem, hard(expert), 2, 0.0), rel=1e-12)


def test_without_data_the_clone_is_uniform():
    problem, expert = drawn(1, actions=3)
    uniform = np.full(problem.shape, -math.log(3))
    assert expected_cloning_kl(problem, expert, 0) == pytest.approx(visited_divergence(problem, expert, uniform))
    np.testing.assert_allclose(clone(np.zeros((2, 3), dtype=int), 0.0), -math.log(3))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("demonstrations", [1, 7, 50, 3000, 10**6])
def test_bound_and_limit(seed, demonstrations):
    problem, expert = drawn(seed, 3, 3, 3)
    for policy in (expert, hard(expert)):
        found = expected_cloning_kl(problem, policy, demonstrations)
        assert 0 < found <= cloning_bound(problem, policy, demonstrations)
        if demonstrations == 10**6:
            assert demonstrations * found == pytest.approx(cloning_limit(problem, policy), rel=1e-3)


def test_unvisited_states_do_not_count():
    problem = TabularMDP(np.eye(2)[:, None, :].repeat(2, axis=1), np.zeros((2, 2)), [1.0, 0.0], 2)
    expert = np.full((2, 2, 2), math.log(0.5))
    assert cloning_limit(problem, expert) == 1.0
    assert cloning_bound(problem, expert, 9) == pytest.approx(0.2)


def test_high_probability_bound():
    n, (h, s, a) = 50, (3, 5, 3)
    logs = math.log(2 * math.e**4 * n) * math.log(12 * h * n**2 / 0.1)
    assert high_probability_bound((h, s, a), n, 0.1) == pytest.approx(6 * s * a * h * logs / n + 18 * a * h / n)
    assert 639 < high_probability_bound((h, s, a), n, 0.1) < 641


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p, e: clone([[1, -1]]), "counts"),
        (lambda p, e: clone([[1, 1]], -1.0), "smoothing"),
        (lambda p, e: clone(3), "counts"),
        (lambda p, e: expected_cloning_kl(p, e, -1), "demonstrations"),
        (lambda p, e: expected_cloning_kl(p, e[..., :1], 3), "log_expert"),
        (lambda p, e: cloning_bound(p, e, -1), "demonstrations"),
        (lambda p, e: high_probability_bound(p.shape, 1, 0.1), "demonstrations"),
        (lambda p, e: high_probability_bound(p.shape, 5, 0.0), "delta"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(*drawn(0))


def test_illegal_actions_are_refused():
    problem, _ = drawn(0)
    masked = TabularMDP(problem.transition, problem.reward, problem.initial, 2, np.array([[True, False], [True, True]]))
    with pytest.raises(ValueError, match="legal"):
        expected_cloning_kl(masked, np.array([[0.0, -np.inf], [np.log(0.5)] * 2]), 3)
