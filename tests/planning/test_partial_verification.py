"""Offline scores and online success: by hand, against rollouts and other formulas, bounds at random, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.optima import kl_constrained
from klsim.planning import occupancy, rollouts
from klsim.planning import partial_verification as pv
from klsim.planning.imitation import visited_divergence
from klsim.problems import TabularMDP

VALID = np.array([[True, True, False], [True, False, False]])
DEMO = np.array([0, 0])
POLICY = np.log([[0.5, 0.3, 0.2], [0.9, 0.06, 0.04]])


def two_states(horizon=2):
    """From state 0 action 0 leads to state 1, the others stay; state 1 stays."""
    move = np.zeros((2, 3, 2))
    move[0, 0, 1] = move[0, 1, 0] = move[0, 2, 0] = move[1, :, 1] = 1.0
    return TabularMDP(move, np.zeros((2, 3)), np.array([1.0, 0.0]), horizon)


def drawn(seed, states=4, actions=3, horizon=4):
    rng = np.random.default_rng(seed)
    problem = TabularMDP(rng.dirichlet(np.ones(states), (states, actions)), np.zeros((states, actions)),
                         rng.dirichlet(np.ones(states)), horizon)  # fmt: skip
    ref, other = rng.dirichlet(np.ones(actions), (2, states))
    return problem, np.log(0.7 * ref + 0.3 * other), np.log(ref)


def test_by_hand():
    found = pv.offline_score(two_states(), POLICY, DEMO, VALID, [0.5, 0.5])
    assert found.success == pytest.approx(0.5 * 0.9 + 0.3 * 0.8)
    assert found.score == pytest.approx(0.7)
    np.testing.assert_allclose(found.off_demo, [0.3, 0.0], atol=1e-15)
    assert found.off_demo_mass == pytest.approx(0.15)
    assert found.mismatch == pytest.approx(2.0)  # all start in state 0, which is half of the data
    assert found.bound == pytest.approx(1 - 2 * 2 * 0.15)
    np.testing.assert_allclose(pv.data_visits(two_states(), POLICY), [0.75, 0.25])


def test_data_that_miss_a_state_say_nothing():
    found = pv.offline_score(two_states(), POLICY, DEMO, VALID, [1.0, 0.0])
    assert found.mismatch == math.inf
    assert found.bound == -math.inf


def test_success_against_rollouts():
    problem, log_pi, _ = drawn(0)
    valid = np.arange(3) < np.array([1, 2, 2, 3])[:, None]
    paths = rollouts(problem, log_pi, 40_000, 1)
    rate = np.mean(valid[paths.states[:, :-1], paths.actions].all(axis=1))
    exact = pv.success_probability(problem, log_pi, valid)
    assert abs(rate - exact) < 5 * math.sqrt(exact * (1 - exact) / 40_000)
    assert pv.success_probability(problem, log_pi, np.ones((4, 3), dtype=bool)) == pytest.approx(1.0)


@given(st.integers(0, 60))
def test_drift(seed):
    problem, log_pi, log_ref = drawn(seed)
    found = pv.visit_drift(problem, log_pi, log_ref)
    states = [occupancy(problem, who).sum(axis=-1) for who in (log_pi, log_ref)]
    np.testing.assert_allclose(found.distance, np.abs(states[0] - states[1]).sum(axis=1), atol=1e-15)
    assert np.all(found.distance <= found.visited + 1e-12)
    assert np.all(found.visited <= np.sqrt(2 * np.arange(4) * found.largest_kl) + 1e-12)
    assert np.all(found.distance <= found.worst_state + 1e-12)
    before = TabularMDP(problem.transition[0], problem.reward[0], problem.initial, 3)
    assert found.visited[-1] ** 2 / 2 == pytest.approx(visited_divergence(before, log_pi, log_ref), rel=1e-12)
    added = pv.mismatch_bounds(found.largest_kl, 4, 0.1)
    np.testing.assert_allclose(
        [added.printed, added.one_state, added.visited],
        np.sqrt(found.largest_kl / 2) * np.array([80, 30, 10 * math.sqrt(3)]), rtol=1e-12,
    )  # fmt: skip


def test_drift_where_the_reference_has_no_mass():
    ref = np.array([[math.log(0.5), math.log(0.5), -math.inf], POLICY[1]])
    found = pv.visit_drift(two_states(), POLICY, ref)
    assert found.largest_kl == math.inf
    assert found.worst_state.tolist() == [0.0, math.inf]
    assert found.visited.tolist() == [0.0, math.inf]


def test_one_step_cannot_drift():
    added = pv.mismatch_bounds(math.inf, 1, 0.1)
    assert (added.printed, added.one_state, added.visited) == (math.inf, 0.0, 0.0)


@given(st.floats(1e-9, 1 - 1e-9), st.floats(0.0, 30.0))
def test_largest_mass(mass, budget):
    x = float(pv.largest_mass(mass, budget))
    assert mass <= x <= min(mass + math.sqrt(budget / 2), 1.0) + 1e-9
    spent = 0.0 if x in (0.0, 1.0) else x * math.log(x / mass) + (1 - x) * math.log((1 - x) / (1 - mass))
    if x < 1:
        assert spent == pytest.approx(budget, rel=1e-6, abs=1e-12)
    else:
        assert budget >= -math.log(mass) - 1e-9


def test_largest_mass_at_the_ends_and_for_more_actions():
    np.testing.assert_array_equal(pv.largest_mass([0.0, 1.0, 0.3, 0.3], [1.0, 1.0, 0.0, math.inf]), [0, 1, 0.3, 1])
    assert float(pv.largest_mass(0.01, 0.05)) == pytest.approx(0.0551, abs=5e-5)
    log_ref = log_normalize(np.array([0.3, 1.0, -0.5, 0.1]))
    event = np.array([1.0, 0.0, 1.0, 0.0])
    best = kl_constrained(log_ref, event, 0.1)
    assert float(pv.largest_mass(event @ np.exp(log_ref), 0.1)) == pytest.approx(float(best.reward), rel=1e-9)
    assert float(kl(best.log_policy, log_ref)) == pytest.approx(0.1, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: pv.offline_score(two_states(), POLICY, [2, 0], VALID, [0.5, 0.5]), r"demo\[0\] = 2: must be a valid"),
        (lambda: pv.offline_score(two_states(), POLICY, DEMO, VALID, [0.5, 0.4]), "data: must sum to 1"),
        (lambda: pv.offline_score(two_states(), POLICY, DEMO, VALID, [1.5, -0.5]), "data"),
        (lambda: pv.offline_score(two_states(), np.stack([POLICY] * 2), DEMO, VALID, [0.5, 0.5]), "log_policy"),
        (lambda: pv.offline_score(two_states(), POLICY, [0], VALID, [0.5, 0.5]), "demo"),
        (lambda: pv.success_probability(two_states(), POLICY, VALID[:1]), "valid"),
        (lambda: pv.visit_mismatch(two_states(), POLICY, [1.0]), "data: must have shape"),
        (lambda: pv.mismatch_bounds(-1.0, 3, 0.1), "largest_kl"),
        (lambda: pv.mismatch_bounds(1.0, 0, 0.1), "horizon"),
        (lambda: pv.mismatch_bounds(1.0, 3, 0.0), "rarest"),
        (lambda: pv.largest_mass(1.5, 0.1), "mass"),
        (lambda: pv.largest_mass(0.5, -0.1), "budget"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_wrong_types():
    for call in (lambda: pv.data_visits(3, POLICY), lambda: pv.visit_drift(None, POLICY, POLICY),
                 lambda: pv.success_probability(two_states(), POLICY, VALID * 0.5)):  # fmt: skip
        with pytest.raises(TypeError):
            call()
