"""Locks: who knows the key is rewarded, who asks sees uneven symbols, and one observation tells nothing."""

import numpy as np
import pytest

from klsim.planning import evaluate, occupancy, rollouts
from klsim.planning.revealing import emission_action_blocks, revealing_constant
from klsim.problems.revealing_lock import hidden_choice, revealing_lock
from klsim.uniformity import uneven_law

SIGNS, SIGMA = [1, -1], 0.8


def seen_last(problem, actions):
    """The law of the observation after ``actions``."""
    law = problem.initial
    for t, a in enumerate(actions):
        law = law @ problem.transition[t, :, a]
    return law @ problem.emission[len(actions)]


def open_loop(problem, actions):
    steps, _, count, symbols = problem.sizes
    padded = [*actions, *[0] * (steps - len(actions))]
    with np.errstate(divide="ignore"):
        return np.log(np.eye(count)[padded])[:, None, :].repeat(symbols, axis=1)


def test_the_key_is_rewarded():
    lock = revealing_lock([2, 0], 3, SIGNS, SIGMA)
    assert evaluate(lock, open_loop(lock, [2, 0])).value == pytest.approx(1.0)
    assert evaluate(lock, open_loop(lock, [2, 1])).value == 0.0
    assert evaluate(lock, open_loop(lock, [2, 0, 3])).value == 0.0  # a reveal instead of the prize


@pytest.mark.parametrize(
    ("prefix", "good"), [([], True), ([2], True), ([1], False), ([2, 0], True), ([1, 0], False), ([2, 2], False)]
)
def test_reveals_tell_whether_the_prefix_is_right(prefix, good):
    lock = revealing_lock([2, 0], 3, SIGNS, SIGMA)
    law = uneven_law(SIGNS if good else [-1, 1], SIGMA)
    assert np.allclose(seen_last(lock, [*prefix, 3]), [*law, 0.0], atol=1e-15)


def test_two_steps_reveal_and_one_does_not():
    lock = revealing_lock([2, 0], 3, SIGNS, SIGMA)
    for step in range(3):
        assert revealing_constant(emission_action_blocks(lock, step, 1)[0]) == 0.0
        assert revealing_constant(emission_action_blocks(lock, step, 2)[3]) == pytest.approx(SIGMA, abs=1e-12)
        assert revealing_constant(emission_action_blocks(lock, step, 2)[0]) == 0.0


def test_episodes_end_after_a_reveal():
    lock = revealing_lock([2, 0], 3, SIGNS, SIGMA)
    seen = rollouts(lock, open_loop(lock, [2, 3]), 50, 0)
    assert set(seen.observations[:, 2]) <= set(range(4))
    assert np.all(np.delete(seen.observations, 2, axis=1) == 4)
    assert not seen.rewards.any()


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.5])
def test_a_choice_dilutes_the_symbols(gap):
    problem = hidden_choice(3, 1, SIGNS, SIGMA, gap)
    for c in range(3):
        wanted = uneven_law(SIGNS, 2 * gap * SIGMA if c == 1 else 0.0)
        assert np.allclose(seen_last(problem, [c, 3])[:-1], wanted, atol=1e-15)
    plain = hidden_choice(3, 1, SIGNS, SIGMA, gap, mirrored=False)
    assert np.allclose(seen_last(plain, [1, 3])[:-1], uneven_law(SIGNS, (0.5 + gap) * SIGMA), atol=1e-15)
    assert occupancy(problem, open_loop(problem, [1, 3]))[1, 1].sum() == pytest.approx(0.5 + gap)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: revealing_lock([3], 3, SIGNS, SIGMA), "key"),
        (lambda: revealing_lock(np.zeros(0, int), 3, SIGNS, SIGMA), "key: must be a non-empty"),
        (lambda: revealing_lock([0], 3, [2], SIGMA), "signs"),
        (lambda: revealing_lock([0], 3, SIGNS, -0.1), "sigma"),
        (lambda: hidden_choice(2, 2, SIGNS, SIGMA, 0.1), "hidden"),
        (lambda: hidden_choice(2, 0, SIGNS, SIGMA, 0.6), "gap"),
    ],
)
def test_doors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
