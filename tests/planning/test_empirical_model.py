"""Models and clones counted from trajectories, roll-outs of history, and the doors."""

import numpy as np
import pytest

from klsim.planning import Trajectories, rollouts
from klsim.planning.empirical_model import empirical_model, finding_probability, history_rollouts, markov_clone
from klsim.problems import TabularMDP

DATA = Trajectories(
    np.array([[0, 1, 1], [0, 2, 1], [0, 1, 2]]),
    np.array([[0, 1], [1, 0], [0, 1]]),
    np.array([[1.0, 0], [0, 2], [3, 4]]),
)


def test_frequencies_by_hand():
    model = empirical_model(DATA, (3, 2))
    assert model.shape == (2, 3, 2)
    np.testing.assert_allclose(model.transition[0, 0], [[0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(model.transition[1, 1, 1], [0, 0.5, 0.5])
    np.testing.assert_allclose(model.transition[0, 2, 1], [0, 0, 1])  # unseen: stays
    np.testing.assert_allclose(model.reward[0], [[2, 0], [0, 2], [2, 0]])
    np.testing.assert_allclose(model.initial, [1, 0, 0])
    assert empirical_model(DATA, (3, 2), horizon=5).horizon == 5


def test_the_clone_is_the_share_of_the_actions():
    np.testing.assert_allclose(np.exp(markov_clone(DATA, (4, 2))), [[2 / 3, 1 / 3], [0, 1], [1, 0], [0.5, 0.5]])


def test_many_trajectories_give_the_problem():
    rng = np.random.default_rng(0)
    problem = TabularMDP(rng.dirichlet(np.ones(3), (3, 2)), rng.random((3, 2)), rng.dirichlet(np.ones(3)), 4)
    log_policy = np.log(rng.dirichlet(np.ones(2), 3))
    data = rollouts(problem, log_policy, 20_000, rng)
    model = empirical_model(data, (3, 2))
    np.testing.assert_allclose(model.transition, problem.transition, atol=0.02)
    np.testing.assert_allclose(model.reward, problem.reward, atol=1e-12)
    np.testing.assert_allclose(np.exp(markov_clone(data, (3, 2))), np.exp(log_policy), atol=0.02)


def test_a_behaviour_that_knows_its_history_repeats_the_data():
    """Two deterministic routes meet in state 2; only a Markov clone changes from one to the other there."""
    data = Trajectories(
        np.array([[0, 1, 2, 3], [0, 2, 2, 2]]), np.array([[0, 0, 1], [1, 0, 0]]), np.array([[0.0, 0, 1], [0, 0, 0]])
    )
    model = empirical_model(data, (4, 2))
    assert model.transition[0, 2, 0].tolist() == [0, 0, 1, 0]
    made = history_rollouts(data, model, 400, 0)
    found = {(*s, *a) for s, a in zip(made.states.tolist(), made.actions.tolist())}
    assert found == {(0, 1, 2, 3, 0, 0, 1), (0, 2, 2, 2, 1, 0, 0)}
    share = np.mean(made.actions[:, 0])
    assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(400)
    mixed = rollouts(model, markov_clone(data, (4, 2)), 400, 0)
    assert len({(*s, *a) for s, a in zip(mixed.states.tolist(), mixed.actions.tolist())}) > 2


def test_a_history_that_nobody_had_goes_on_at_random():
    data = Trajectories(np.array([[0, 0]]), np.array([[0]]), np.array([[0.0]]))
    model = TabularMDP(np.eye(2)[[[0, 1], [1, 0]]], np.zeros((2, 2)), np.array([0.0, 1.0]), 1)
    actions = history_rollouts(data, model, 400, 1).actions
    assert abs(actions.mean() - 0.5) < 5 * 0.5 / np.sqrt(400)


def test_finding():
    np.testing.assert_allclose(finding_probability(0.25, [0, 1, 2]), [0, 0.25, 0.4375])
    np.testing.assert_allclose(finding_probability(1.0, [0, 3]), [0, 1])
    np.testing.assert_allclose(finding_probability(1e-18, 5), 5e-18)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: empirical_model(DATA, (2, 2)), "states"),
        (lambda: empirical_model(DATA, (3, 1)), "actions"),
        (lambda: empirical_model(DATA, (3,)), "shape"),
        (lambda: empirical_model(DATA, (3, 2), horizon=0), "horizon"),
        (lambda: empirical_model(Trajectories(DATA.states[:, :2], DATA.actions, DATA.rewards), (3, 2)), "actions"),
        (lambda: markov_clone(Trajectories(DATA.states, DATA.actions, DATA.rewards[:1]), (3, 2)), "rewards"),
        (lambda: markov_clone(Trajectories(DATA.states, DATA.actions, DATA.rewards * np.nan), (3, 2)), "rewards"),
        (lambda: history_rollouts(DATA, empirical_model(DATA, (3, 2), horizon=3), 1, 0), "model"),
        (lambda: history_rollouts(DATA, empirical_model(DATA, (3, 2)), -1, 0), "count"),
        (lambda: finding_probability(1.5, 1), "chance"),
        (lambda: finding_probability(0.5, -1), "count"),
    ],
)
def test_doors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_kinds():
    with pytest.raises(TypeError, match="data"):
        empirical_model([[0, 1]], (3, 2))
    with pytest.raises(TypeError, match="model"):
        history_rollouts(DATA, None, 1, 0)
