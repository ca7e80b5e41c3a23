"""The loop of the hinge: fixed point, linearisation, critical step size by simulation, bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from klsim.learning.hinge_loop import HingeLoop

LOOP = HingeLoop(np.full(8, -math.log(8)), np.arange(8) / 7, 10.0, 0.2)


def state_after(loop, state, steps):
    for _ in range(steps):
        state = np.r_[loop.step(state[:-1], state[-1])]
    return state


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_jacobian_by_differences(decay):
    loop = replace(LOOP, decay=decay)
    at = np.r_[loop.fixed_point()]
    np.testing.assert_allclose(state_after(loop, at, 1), at, atol=1e-13)
    moves = [state_after(loop, at + e, 1) - state_after(loop, at - e, 1) for e in 1e-6 * np.eye(9)]
    np.testing.assert_allclose(loop.jacobian(), np.array(moves).T / 2e-6, atol=1e-8)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.9, 1.1])
def test_critical_step_size(decay, share):
    loop = replace(LOOP, decay=decay)
    loop = replace(loop, lr=share * loop.critical_lr())
    assert (loop.spectral_radius() < 1) == (share < 1)
    at = np.r_[loop.fixed_point()]
    pushed = at + 1e-6 * np.r_[np.linalg.eigh(loop.stiffness())[1][:, -1], 0.0]
    away = state_after(loop, pushed, 150) - at
    assert (np.linalg.norm(away[:-1]) < 0.5e-6) == (share < 1)


def test_without_the_average_the_step_is_that_of_the_hessian():
    bare = replace(LOOP, decay=0.0)
    assert bare.critical_lr() == pytest.approx(1.79851757, rel=1e-7)
    assert replace(bare, decay=0.9).critical_lr() > 7 * bare.critical_lr()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": 1.0}, "decay"),
        ({"lr": 0.0}, "lr"),
        ({"factor": 0.0}, "factor"),
        ({"threshold": 3.0}, "idle"),
        ({"reward": [0.0, 1.0]}, "reward"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(LOOP, **changes)


def test_bad_steps():
    state = LOOP.fixed_point()
    with pytest.raises(ValueError, match="average"):
        LOOP.step(state[0], np.nan)
    with pytest.raises(ValueError, match="logits"):
        LOOP.step(np.zeros(len(state[0]) + 1), 0.0)
