"""GLOW, HyGLOW, R-max and the episodes that they play."""

import numpy as np
import pytest

from klsim import _validate
from klsim.learning import policy_returns
from klsim.learning.glow import glow, hyglow
from klsim.learning.online_episodes import greedy_episodes, rmax
from klsim.problems import TabularMDP


def two_doors(mean=0.9):
    """One step: action 1 pays ``mean``, action 0 pays .5."""
    return TabularMDP(np.ones((1, 1, 2, 1)), np.array([[[0.5, mean]]]), np.ones(1), 1)


#: Q*, an optimist about action 0, and a pessimist about action 1
DOORS = np.array([[0.5, 0.9], [1.0, 0.9], [0.5, 0.1]]).reshape(3, 1, 1, 2)
LAWS = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]).reshape(3, 1, 1, 2)
SETTING = {"rounds": 40, "episodes": 8, "gamma": 0.3, "alpha": 0.1, "beta": 0.1}


def test_optimism_tries_refutes_and_settles():
    run = glow(two_doors(), DOORS, LAWS, **SETTING, binary=True, runs=20, rng=0)
    assert run.chosen.shape == (20, 40)
    assert run.kept.shape == (20, 40, 3)
    assert np.all(run.chosen[:, 0] == 1)
    assert np.mean(run.chosen[:, -10:] == 0) > 0.9
    assert run.kept[:, 0].all()


def test_optimism_is_about_the_value_at_the_start():
    """Two steps: the first candidate promises more in all, the second more at the last step."""
    problem = TabularMDP(np.ones((1, 2, 1)), np.array([[0.5, 0.9]]), np.ones(1), 2)
    promises = np.array([[[1.8, 1.0], [0.2, 0.1]], [[1.0, 0.5], [0.9, 0.5]]]).reshape(2, 2, 1, 2)
    laws = np.full((2, 2, 1, 2), 0.5)
    run = glow(problem, promises, laws, rounds=1, episodes=1, gamma=1.0, alpha=0.0, beta=1.0, runs=5, rng=0)
    assert np.all(run.chosen == 0)


def test_without_optimism_the_first_consistent_candidate_is_played():
    order = [2, 1, 0]
    run = glow(two_doors(), DOORS[order], LAWS[order], **SETTING, optimism=False, runs=5, rng=0)
    assert np.all(run.chosen == 0)


def test_an_empty_set_repeats_the_last_candidate():
    wrong = np.array([[[[1.0, 0.9]]], [[[0.9, 0.1]]]])
    run = glow(two_doors(), wrong, LAWS[1:], rounds=6, episodes=4, gamma=1.0, alpha=0.0, beta=1e-9, runs=3, rng=0)
    assert not run.kept[:, 1:].any()
    assert np.all(run.chosen == 0)


def test_the_residual_of_a_round_by_hand():
    """After one round of four samples of action 0 (reward 1/2, certain) the weighted residual of the optimist is 1/2.

    Its weight is 1 (unclipped at 2 gamma), so it survives if ``1/2 - alpha/(2 gamma) <= beta``.
    """
    for beta, survives in ((0.24, False), (0.26, True)):
        run = glow(two_doors(), DOORS, LAWS, rounds=2, episodes=4, gamma=1.0, alpha=0.5, beta=beta, rng=0)
        assert run.kept[0, 1].tolist() == [True, survives, True]
    for beta, survives in ((0.355, False), (0.365, True)):  # clipped at .8: .5 * .8 - .05/.8 * .64
        run = glow(two_doors(), DOORS, LAWS, rounds=2, episodes=4, gamma=0.4, alpha=0.05, beta=beta, rng=0)
        assert run.kept[0, 1].tolist() == [True, survives, True]


def test_hybrid_data_replace_optimism():
    """The pessimist about action 1 is refuted by offline data of that action alone."""
    pair, laws = DOORS[[0, 2]], LAWS[[0, 2]]
    run = hyglow(two_doors(), pair, laws, [[[0.5, 0.5]]], rounds=60, gamma=0.3, alpha=0.1, binary=True, runs=30, rng=1)
    assert np.mean(run.chosen[:, -10:] == 0) > 0.95
    assert not run.kept[:, -1, 1].any()


def test_same_seed_same_run():
    first, second = (glow(two_doors(), DOORS, LAWS, **SETTING, binary=True, runs=3, rng=5) for _ in range(2))
    np.testing.assert_array_equal(first.chosen, second.chosen)


def test_episodes_follow_the_problem():
    rng = np.random.default_rng(0)
    problem = TabularMDP(rng.dirichlet(np.ones(3), (2, 3, 2)), rng.random((2, 3, 2)), [0.2, 0.3, 0.5], 2)
    policies = rng.integers(0, 2, (2, 2, 3))
    data = greedy_episodes(problem, policies, 40_000, 1, binary=True)
    assert data.states.shape == (2, 40_000, 2)
    np.testing.assert_array_equal(data.states[:, :, 1], data.successors[:, :, 0])
    np.testing.assert_array_equal(data.actions[1, :, 0], policies[1, 0][data.states[1, :, 0]])
    start = np.bincount(data.states[0, :, 0], minlength=3) / 40_000
    np.testing.assert_allclose(start, problem.initial, atol=6 * 0.5 / 200)  # six standard errors
    np.testing.assert_allclose(
        data.rewards.sum(axis=2).mean(axis=1), policy_returns(problem, policies), atol=6 * 1 / 200
    )


def test_rmax_finds_the_better_door():
    played = rmax(two_doors(), rounds=10, episodes=4, known=8, runs=4, rng=0)
    assert played.shape == (4, 10, 1, 1)
    assert np.all(played[:, -1] == 1)


def test_rmax_explores_what_it_does_not_know():
    """Four samples make one door known; the other is worth ``top`` until it is known too."""
    played = rmax(two_doors(), rounds=3, episodes=4, known=4, runs=50, rng=0)[:, :, 0, 0]
    assert np.all(played[:, 1] == 1 - played[:, 0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q_class": DOORS[0]}, "q_class"),
        ({"laws": LAWS[:2]}, "laws"),
        ({"laws": LAWS / 2}, "laws"),
        ({"rounds": 0}, "rounds"),
        ({"gamma": 0.0}, "gamma"),
        ({"beta": -1.0}, "beta"),
        ({"problem": two_doors(1.5), "binary": True}, "problem"),
    ],
)
def test_bad_input_is_named(changes, words):
    arguments = {"problem": two_doors(), "q_class": DOORS, "laws": LAWS, **SETTING} | changes
    with pytest.raises(ValueError, match=words):
        glow(**arguments)


def test_offline_laws_policies_and_masks_are_checked():
    with pytest.raises(ValueError, match="offline"):
        hyglow(two_doors(), DOORS, LAWS, np.ones((1, 1, 2)), rounds=2, gamma=1.0, alpha=0.1)
    with pytest.raises(ValueError, match="policies"):
        greedy_episodes(two_doors(), np.zeros((1, 2, 1), dtype=int), 3, 0)
    masked = TabularMDP(np.ones((1, 1, 2, 1)), np.zeros((1, 1, 2)), np.ones(1), 1, actions=[[True, False]])
    with pytest.raises(ValueError, match="illegal"):
        greedy_episodes(masked, np.ones((1, 1, 1), dtype=int), 3, 0)
    with pytest.raises(ValueError, match="legal"):
        rmax(masked, rounds=1, episodes=1, known=1)
    with pytest.raises(ValueError, match="count = 0: must be >= 1"):
        greedy_episodes(two_doors(), np.zeros((1, 1, 1), dtype=int), 0, 0)


def test_the_memory_of_rmax_is_counted(monkeypatch):
    """Two runs of three rounds, one step and one state: two pairs to count, and the policies."""
    needed = 8 * 2 * (2 + 3)
    monkeypatch.setattr(_validate, "LARGEST", needed)
    assert rmax(two_doors(), rounds=3, episodes=2, known=1, runs=2).shape == (2, 3, 1, 1)
    monkeypatch.setattr(_validate, "LARGEST", needed - 1)
    with pytest.raises(ValueError, match="runs = 2: would need"):
        rmax(two_doors(), rounds=3, episodes=2, known=1, runs=2)


def test_the_memory_of_episodes_is_counted(monkeypatch):
    """Five episodes of two policies, two steps of three states: the law of the next state of each."""
    problem = TabularMDP(np.full((3, 1, 3), 1 / 3), np.zeros((3, 1)), np.full(3, 1 / 3), 2)
    policies, needed = np.zeros((2, 2, 3), dtype=int), 8 * 5 * 2 * 2 * 3
    monkeypatch.setattr(_validate, "LARGEST", needed)
    assert greedy_episodes(problem, policies, 5, 0).states.shape == (2, 5, 2)
    monkeypatch.setattr(_validate, "LARGEST", needed - 1)
    with pytest.raises(ValueError, match="count = 5: would need"):
        greedy_episodes(problem, policies, 5, 0)
