"""PPO's clip in expectation: gradient by differences, the kernel against steps of it, counts of updates, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.learning.clipped_ascent import clipped_ascent, clipped_gradient, updates_to_reach

RNG = np.random.default_rng(3)
Z, STEP, A = RNG.standard_normal(5), 0.5 * RNG.standard_normal(5), RNG.standard_normal(5)


def value(z, log_old, a, low, high):
    rho = np.exp(log_normalize(z) - log_old)
    return np.exp(log_old) @ np.minimum(rho * a, np.clip(rho, 1 - low, 1 + high) * a)


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.28), (0.05, 0.4), (1.0, math.inf), (2.0, 0.1)])
def test_gradient(low, high):
    old, z, h = log_normalize(Z), Z + STEP, 1e-6
    slope = [(value(z + e, old, A, low, high) - value(z - e, old, A, low, high)) / (2 * h) for e in h * np.eye(5)]
    np.testing.assert_allclose(clipped_gradient(log_normalize(z), old, A, low=low, high=high), slope, atol=1e-9)


def test_gradient_at_the_old_policy_is_the_policy_gradient():
    pi = np.exp(log_normalize(Z))
    found = clipped_gradient(np.log(pi), np.log(pi), A, low=0.2, high=0.2)
    np.testing.assert_allclose(found, pi * (A - pi @ A), atol=1e-15)


def test_ascent_by_steps():
    lows, highs, now = (0.2, 0.1), (0.3, 0.05), log_normalize(Z)
    found = clipped_ascent(now, A, low=lows, high=highs, updates=2, inner_steps=7, lr=0.5)
    assert found.shape == (2, 3, 5)
    for path, low, high in zip(found, lows, highs):
        now = log_normalize(Z)
        np.testing.assert_allclose(path[0], np.exp(now))
        for update in (1, 2):
            old, a = now, A - np.exp(now) @ A
            for _ in range(7):
                now = log_normalize(now + 0.5 * clipped_gradient(now, old, a, low=low, high=high))
            np.testing.assert_allclose(path[update], np.exp(now), rtol=1e-12)


def test_shapes_and_nothing_to_do():
    start = log_normalize(RNG.standard_normal((3, 4)))
    still = clipped_ascent(start, np.ones(4), low=0.2, high=0.2, updates=2, inner_steps=5, lr=1.0)
    np.testing.assert_allclose(still, np.exp(start)[:, None].repeat(3, axis=1), rtol=1e-14)
    assert clipped_ascent(start[0], np.ones(4), low=0.2, high=0.2, updates=0, inner_steps=0, lr=1.0).shape == (1, 1, 4)


def test_updates_to_reach():
    assert updates_to_reach(0.01, 0.04, 1.0) == pytest.approx(2.0)
    assert updates_to_reach(0.01, 0.01, 0.2) == 0.0
    for start, target, high, match in ((0.0, 0.5, 0.2, "start"), (0.5, 0.4, 0.2, "target"), (0.1, 0.2, 0.0, "high")):
        with pytest.raises(ValueError, match=match):
            updates_to_reach(start, target, high)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"log_policy": [0.0, -math.inf]}, "log_policy"),
        ({"log_policy": [0.0, 0.0]}, "log_policy"),
        ({"reward": [0.0, math.nan]}, "reward"),
        ({"reward": [0.0]}, "outcomes"),
        ({"low": -0.1}, "low"),
        ({"high": [[0.1]]}, "high"),
        ({"updates": -1}, "updates"),
        ({"inner_steps": -1}, "inner_steps"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_ascent_refuses(change, match):
    given = {
        "log_policy": np.log([0.5, 0.5]),
        "reward": [0.0, 1.0],
        "low": 0.2,
        "high": 0.2,
        "updates": 1,
        "inner_steps": 1,
        "lr": 0.1,
    }
    with pytest.raises(ValueError, match=match):
        clipped_ascent(**(given | change))


def test_the_only_action_stays():
    assert clipped_ascent([0.0], [3.0], low=0.2, high=0.2, updates=2, inner_steps=3, lr=0.5).tolist() == [[[1.0]] * 3]


def test_gradient_refuses():
    half = np.log([0.5, 0.5])
    with pytest.raises(ValueError, match="advantage"):
        clipped_gradient(half, half, [0.0, math.inf], low=0.2, high=0.2)
    with pytest.raises(ValueError, match="high"):
        clipped_gradient(half, half, [0.0, 1.0], low=0.2, high=-0.2)
