"""Open-loop options: by hand, against compositions, sweeps and their bound, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim.planning import options as op
from klsim.planning import solve
from klsim.problems import DiscountedMDP

#: two states, action 0 stays, action 1 moves; staying in state 1 pays
SWITCH = DiscountedMDP(
    np.array([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]]), np.array([[0.0, 0.0], [1.0, 0.0]]), 0.5, [1.0, 0]
)


def drawn(seed=0, states=4, actions=3):
    rng = np.random.default_rng(seed)
    laws = rng.dirichlet(np.ones(states), (states, actions))
    return DiscountedMDP(laws, rng.random((states, actions)), 0.9, np.full(states, 1 / states))


def test_by_hand():
    two = op.open_loop_options(SWITCH, 2)
    assert two.discount == 0.25
    assert two.reward.tolist() == [[0.0, 0.0, 0.5, 0.0], [1.5, 1.0, 0.0, 0.0]]  # stay stay, stay move, move stay, …
    assert two.transition[0].argmax(axis=1).tolist() == [0, 1, 1, 0]
    assert op.open_loop_options(SWITCH, 1).reward.tolist() == SWITCH.reward.tolist()


def test_durations_compose():
    """Options of 2 of options of 2 are those of 4."""
    once, twice = op.open_loop_options(drawn(), 4), op.open_loop_options(op.open_loop_options(drawn(), 2), 2)
    np.testing.assert_allclose(once.reward, twice.reward, atol=1e-14)
    np.testing.assert_allclose(once.transition, twice.transition, atol=1e-14)
    assert once.discount == pytest.approx(twice.discount)


def test_open_loop_loses_only_where_moves_are_random():
    assert np.all(solve(op.open_loop_options(drawn(), 3), beta=0.0).value < solve(drawn(), beta=0.0).value)
    best = solve(SWITCH, beta=0.0).value
    np.testing.assert_allclose(solve(op.open_loop_options(SWITCH, 3), beta=0.0).value, best, atol=1e-12)


def test_sweeps_by_hand():
    """From state 1 the value is 2, after n sweeps 2 (1 - 2^-n)."""
    assert op.sweeps_needed(SWITCH, 0.25) == 3
    assert op.sweeps_needed(SWITCH, 2.0) == 0
    assert op.sweeps_bound(0.5, 0.25) == 3
    assert op.sweeps_bound(0.5, 0.25, duration=2) == 2
    assert op.sweeps_bound(0.5, 4.0) == 0
    assert op.sweeps_bound(0.5, 0.25, largest=1.0) == 2
    assert op.sweeps_needed(SWITCH, 0.25, target=[1.0, 2.0]) == 3


@pytest.mark.parametrize("duration", [1, 2, 3])
def test_within_the_bound(duration):
    options = op.open_loop_options(drawn(1), duration)
    assert op.sweeps_needed(options, 1e-3) <= op.sweeps_bound(0.9, 1e-3, duration=duration)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: op.open_loop_options(SWITCH, 0), "duration"),
        (lambda: op.open_loop_options(SWITCH, 60), "duration.*GiB"),
        (lambda: op.open_loop_options(DiscountedMDP(SWITCH.transition, SWITCH.reward, 0.5, [1.0, 0],
                                                    np.array([[True, False], [True, True]])), 2), "legal"),
        (lambda: op.sweeps_needed(SWITCH, 0.0), "tolerance"),
        (lambda: op.sweeps_needed(SWITCH, 0.1, target=[1.0]), "target: must have shape"),
        (lambda: op.sweeps_needed(SWITCH, 0.1, target=[5.0, 5.0]), "target: is not reached"),
        (lambda: op.sweeps_needed(SWITCH, 0.1, target=[math.nan, 5.0]), "target"),
        (lambda: op.sweeps_bound(1.0, 0.1), "discount"),
        (lambda: op.sweeps_bound(0.5, 0.0), "tolerance"),
        (lambda: op.sweeps_bound(0.5, 0.1, largest=-1.0), "largest"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
