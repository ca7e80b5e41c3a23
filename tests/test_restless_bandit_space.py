"""Coupled restless bandits as a field: draws are legal, shrink to legal ones, print and are read back."""

import numpy as np
import pytest

import klsim.problems
from klsim.claims.instances import as_python, decode, encode
from klsim.planning import solve
from klsim.planning.restless import incremental_search
from klsim.problems import CoupledRestlessBandit
from klsim.spaces import CoupledRestlessBandits, Sizes, Space

SPACE = Space(problem=CoupledRestlessBandits(), J=Sizes(1, 3), S=Sizes(1, 3), D=Sizes(1, 3), H=Sizes(1, 3))
DIMS = dict.fromkeys("JSDH", 3)


def drawn(seed=0, **options):
    return CoupledRestlessBandits(**options).draw(np.random.default_rng(seed), DIMS)


def test_draws_are_problems_of_the_sizes_with_the_null_action():
    for seed in range(4):
        batch = SPACE.sample(5, seed)
        for problem in batch["problem"]:
            assert isinstance(problem, CoupledRestlessBandit)
            assert problem.reward.shape == (batch["J"], batch["S"])
            assert (problem.actions.shape[1], problem.horizon) == (batch["D"], batch["H"])
            assert not problem.actions[0].any()
            assert np.all(np.isfinite(solve(problem, beta=0.5).value))


def test_action_sets_are_complete_in_half_of_the_draws():
    counts = np.array([len(drawn(seed).actions) for seed in range(40)])
    assert 10 < np.sum(counts == 8) < 30
    assert counts.min() < 5
    assert all(drawn(seed, most=1).actions.sum(axis=1).max(initial=0) <= 1 for seed in range(10))


def test_moves_may_be_impossible_or_not():
    assert any(np.any(drawn(seed).transition == 0) for seed in range(5))
    assert not any(np.any(drawn(seed, zeros=False).transition == 0) for seed in range(5))


@pytest.mark.parametrize(
    ("axis", "arms", "entries", "horizon"),
    [("J", (2, 3), 3, 3), ("S", (3, 2), 3, 3), ("D", (3, 3), 2, 3), ("H", (3, 3), 3, 2), ("other", (3, 3), 3, 3)],
)
def test_problems_lose_an_arm_a_state_an_entry_a_step(axis, arms, entries, horizon):
    less = CoupledRestlessBandits().without(drawn(1), axis, 1, DIMS)
    assert (less.reward.shape, less.actions.shape[1], less.horizon) == (arms, entries, horizon)


def test_without_an_entry_the_actions_are_those_that_did_not_use_it():
    problem = drawn(1)
    less = CoupledRestlessBandits().without(problem, "D", 1, DIMS)
    kept = problem.actions[:, 1] == 0
    np.testing.assert_array_equal(less.actions, problem.actions[kept][:, [0, 2]])
    np.testing.assert_allclose(less.transition, problem.transition[kept], rtol=1e-15)


def test_problems_become_rounder_and_lose_actions_never_the_null_action():
    problem = drawn(2)
    found = list(CoupledRestlessBandits().simpler(problem))
    fewer = [p for p in found if len(p.actions) < len(problem.actions)]
    assert len(fewer) == len(problem.actions) - 1
    assert len(found) > len(fewer)
    for simpler in found:
        assert isinstance(simpler, CoupledRestlessBandit)
        assert not incremental_search(simpler.actions, np.zeros(len(simpler.actions))).any()


def test_problems_move_along_their_coordinates():
    field, problem = CoupledRestlessBandits(), drawn(3)
    x, step = field.coordinates(problem)
    back = field.at(problem, x)
    np.testing.assert_allclose(back.transition, problem.transition)
    np.testing.assert_allclose(back.reward, problem.reward)
    moved = field.at(problem, x + 0.1 * step)
    np.testing.assert_array_equal(moved.transition == 0, problem.transition == 0)
    np.testing.assert_array_equal(moved.actions, problem.actions)


@pytest.mark.parametrize(
    "copy", [lambda p: decode(encode(p)), lambda p: eval(as_python(p), {"np": np, "klsim": klsim})]
)
def test_problems_are_saved_and_printed(copy):
    """To the bit, but that probabilities are normalised again."""
    problem = drawn(4)
    again = copy(problem)
    assert isinstance(again, CoupledRestlessBandit)
    for name in ("actions", "transition", "reward", "initial", "horizon"):
        np.testing.assert_allclose(getattr(again, name), getattr(problem, name), rtol=1e-15, atol=0)
