"""Fixed points of reward and teacher: by hand, against generic root finding and sums, at extremes, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit

from klsim.distributions import log_normalize, tilt
from klsim.learning import teacher_reward
from klsim.problems.token_tree import sequence_log_probs

HALF = (np.log([[0.5, 0.5]]), np.log([[0.5, 0.5], [0.5, 0.5]]))


def test_a_tree_by_hand():
    """beta = 1/log 3: below the left node (rewards 1, 0) odds 3:1, V = 3/4; below the right one (0, 0) V = 0."""
    levels, values = teacher_reward.myopic_optimum(HALF, [1.0, 0.0, 0.0, 0.0], 1 / math.log(3))
    np.testing.assert_allclose(np.exp(levels[1]), [[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(values[1], [0.75, 0.0])
    left = 3**0.75 / (3**0.75 + 1)
    np.testing.assert_allclose(np.exp(levels[0]), [[left, 1 - left]])
    np.testing.assert_allclose(values[0], [0.75 * left])


@given(st.integers(0, 1000), st.floats(0.05, 10))
def test_one_token_is_the_tilt(seed, beta):
    rng = np.random.default_rng(seed)
    teacher, reward = log_normalize(rng.standard_normal((1, 4))), rng.standard_normal(4)
    levels, _ = teacher_reward.myopic_optimum((teacher,), reward, beta)
    np.testing.assert_allclose(np.exp(sequence_log_probs(levels)), np.exp(tilt(teacher[0], reward, beta)), rtol=1e-12)


@pytest.mark.parametrize("natural", [True, False])
def test_the_stop_is_a_fixed_point(natural):
    rng = np.random.default_rng(0)
    teacher = tuple(log_normalize(rng.standard_normal((2, 3**t, 3))) for t in range(3))
    reward = (rng.random((2, 27)) < 0.3).astype(float)
    stop, _ = teacher_reward.myopic_optimum(teacher, reward, [0.3, 2.0])
    moved = teacher_reward.joint_ascent(stop, teacher, reward, [0.3, 2.0], steps=3, natural=natural)
    for a, b in zip(moved, stop):
        np.testing.assert_allclose(np.exp(a), np.exp(b), atol=1e-13)


@given(st.floats(1e-6, 1 - 1e-6))
def test_critical_coefficient_is_least(p):
    least, at = teacher_reward.critical_coefficient(p)
    x = logit(p) + np.linspace(0.01, 30, 2000)
    assert np.all(2 * np.cosh(x / 2) / (x - logit(p)) >= least * (1 - 1e-12))
    assert 1 / (math.sqrt(at * (1 - at)) * (logit(at) - logit(p))) == pytest.approx(float(least), rel=1e-9)


@pytest.mark.parametrize(("p", "beta"), [(0.5, 2.0), (0.2, 0.95), (0.9, 40.0), (1e-9, 0.4)])
def test_normalised_stop_by_brentq(p, beta):
    _, at = teacher_reward.critical_coefficient(p)
    x = brentq(lambda z: 2 * math.cosh(z / 2) - beta * (z - logit(p)), logit(p), logit(at))
    assert teacher_reward.normalised_stop(p, beta) == pytest.approx(expit(x), rel=1e-9)


def test_normalised_stop_of_pairs():
    """G = 2: the std is 1/2 with probability 2p(1-p), so that the slope is 1 and the stop the tilted teacher."""
    assert teacher_reward.normalised_stop(0.3, 0.7, 2) == pytest.approx(expit(logit(0.3) + 1 / 0.7), rel=1e-12)
    assert teacher_reward.normalised_stop(0.5, 1e-3) == 1.0
    assert teacher_reward.normalised_stop(0.5, 1e-3, 8) == 1.0  # to all digits


@given(st.floats(0, 1), st.floats(1e-3, 100))
def test_masked_success_solves_its_equation(p, beta):
    kept = 1 - float(teacher_reward.masked_success(p, beta, "kept"))
    assert kept == pytest.approx((1 - p) * math.exp(-kept / beta), abs=1e-12)
    assert float(teacher_reward.masked_success(p, beta)) == pytest.approx(1 - (1 - p) * math.exp(-1 / beta), abs=1e-15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: teacher_reward.myopic_optimum(HALF, [1.0, 0.0], 1.0), r"reward: needs 2\*\*2 entries"),
        (lambda: teacher_reward.myopic_optimum(HALF, 1.0, 1.0), r"reward: needs 2\*\*2 entries.*got \(\)"),
        (lambda: teacher_reward.myopic_optimum(HALF, [1.0, 0.0, 0.0, 0.0], 0.0), "beta = 0.0"),
        (lambda: teacher_reward.joint_ascent(HALF[:1], HALF, [0.0] * 4, 1.0, steps=1), "logits: must be a tree"),
        (lambda: teacher_reward.joint_ascent(HALF, HALF, [0.0] * 4, 1.0, steps=-1), "steps = -1"),
        (lambda: teacher_reward.critical_coefficient(1.0), r"teacher_success = 1.0: must lie in \(0, 1\)"),
        (lambda: teacher_reward.normalised_stop(0.5, 0.0), "beta = 0.0"),
        (lambda: teacher_reward.normalised_stop(0.5, 1.0, 1), "group_size = 1"),
        (lambda: teacher_reward.masked_success(0.5, 1.0, "some"), "mean_over = 'some'"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
