"""Demonstration-regularised RL: the exact form of the gap, bounds and where they are attained, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.planning import evaluate, solve
from klsim.planning.demonstrations import (
    demonstration_gap,
    deterministic_gap_bound,
    learned_reward_bounds,
    pinsker_gap_bound,
    policy_error_bound,
    soft_error_bound,
)
from klsim.problems import TabularMDP


def drawn(seed, horizon=3, states=3, actions=3):
    rng = np.random.default_rng(seed)
    shape = (horizon, states, actions)
    problem = TabularMDP(
        rng.dirichlet(np.ones(states), shape), rng.random(shape), rng.dirichlet(np.ones(states)), horizon
    )
    return problem, *log_normalize(rng.standard_normal((3, *shape)))


@pytest.mark.parametrize("beta", [1e-3, 0.3, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_parts_add_up(seed, beta):
    problem, pi, expert, ref = drawn(seed)
    parts = demonstration_gap(problem, pi, expert, ref, beta)
    assert parts.gap == pytest.approx(parts.exact, abs=1e-12 * (1 + beta))
    assert parts.gap <= parts.refined + 1e-12 <= parts.bound + 2e-12
    assert parts.gap == pytest.approx(
        solve(problem, beta=0.0).value[0] @ problem.initial - evaluate(problem, pi).reward
    )


def test_the_expert_itself():
    """Training on nothing: at a huge coefficient the policy stays at the reference."""
    problem, _, expert, _ = drawn(9)
    parts = demonstration_gap(problem, expert, expert, expert, 1e6)
    assert parts.expert_kl == parts.learner_kl == 0.0
    assert parts.gap == pytest.approx(parts.expert_gap)


def test_two_arms_attain_the_bounds_of_imitation():
    for gap in (1e-3, 1e-2):
        divergence = float(kl(np.log([0.5, 0.5]), np.log([0.5 - gap, 0.5 + gap])))
        assert pinsker_gap_bound(divergence, 1.0) == pytest.approx(gap, rel=1e-3)
    assert deterministic_gap_bound(-math.log(0.9), 2.0) == pytest.approx(0.2)
    assert deterministic_gap_bound(1e-20, 1.0) == pytest.approx(1e-20)
    assert deterministic_gap_bound(math.inf, 3.0) == 3.0
    assert pinsker_gap_bound(math.inf, 1.0) == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_soft_errors(seed):
    rng = np.random.default_rng(seed)
    log_ref, q, error = np.log(rng.dirichlet(np.ones(5), 200)), rng.random((200, 5)), rng.standard_normal((200, 5))
    gap = 0.3 * kl(tilt(log_ref, q + error, 0.3), tilt(log_ref, q, 0.3))
    assert np.all(gap <= soft_error_bound(error, 0.3))


def test_soft_error_is_sharp_and_ignores_constants():
    even, w = np.log([0.5, 0.5]), 1e-3
    gap = 2.0 * kl(tilt(even, np.array([w, 0.0]), 2.0), even)
    assert soft_error_bound([w, 0.0], 2.0) == pytest.approx(gap, rel=1e-6)
    assert soft_error_bound([7.0, 7.0], 2.0) == 0.0


def test_policy_errors():
    problem, ref, error, _ = drawn(2)
    best = solve(problem, ref, 0.4)
    pi = tilt(ref, best.q_value + error, 0.4)
    gap = best.value[0] @ problem.initial - evaluate(problem, pi, ref, 0.4).value
    assert 0 < gap <= policy_error_bound(problem, pi, error, 0.4)


def test_learned_rewards():
    """Both lines hold; a constant error costs nothing beyond the KL, and the log-moments become a variance."""
    rng = np.random.default_rng(0)
    ref, expert = np.log(rng.dirichlet(np.ones(6), (2, 50)))
    reward, error = rng.standard_normal((2, 50, 6))
    pi = tilt(ref, reward + error, 0.5)
    gap = np.sum((np.exp(expert) - np.exp(pi)) * reward, axis=-1)
    first, second = learned_reward_bounds(expert, ref, error, 0.5)
    assert np.all(gap <= first + 1e-12)
    assert np.all(first <= second + 1e-12)
    flat, _ = learned_reward_bounds(expert, ref, np.ones(6), 0.5)
    np.testing.assert_allclose(flat, 0.5 * kl(expert, ref))
    _, moments = learned_reward_bounds(ref, ref, error, 1e4)
    mean = np.sum(np.exp(ref) * error, axis=-1, keepdims=True)
    np.testing.assert_allclose(moments, np.sum(np.exp(ref) * (error - mean) ** 2, axis=-1) / 1e4, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p, a, b, c: demonstration_gap(p, a, b, c, 0.0), "beta"),
        (lambda p, a, b, c: demonstration_gap(p, a, b[:1], c, 1.0), "log_expert"),
        (
            lambda p, a, b, c: demonstration_gap(p, a, b, np.array([0.0, -np.inf, -np.inf]) + np.zeros((3, 3)), 1.0),
            "infinite KL",
        ),
        (lambda p, a, b, c: pinsker_gap_bound(-1.0, 1.0), "divergence"),
        (lambda p, a, b, c: deterministic_gap_bound(1.0, -1.0), "span"),
        (lambda p, a, b, c: soft_error_bound([1.0, np.nan], 1.0), "error"),
        (lambda p, a, b, c: soft_error_bound([1e300, 0.0], 1e-10), "error"),
        (lambda p, a, b, c: soft_error_bound(1.0, 1.0), r"error: must be \(..., A\), got shape \(\)"),
        (lambda p, a, b, c: soft_error_bound(np.zeros((2, 0)), 1.0), r"error: must be \(..., A\)"),
        (lambda p, a, b, c: policy_error_bound(p, a, b[0], 1.0), "error"),
        (lambda p, a, b, c: learned_reward_bounds([0.0, -np.inf], [-np.inf, 0.0], [0.0, 1.0], 1.0), "log_expert"),
        (lambda p, a, b, c: learned_reward_bounds(np.log([0.5, 0.5]), np.log([0.5, 0.5]), [0.0, 1.0], 0.0), "beta"),
        (
            lambda p, a, b, c: learned_reward_bounds(np.log([0.5, 0.5]), np.log([0.5, 0.5]), [0.0, 1.0], 1.0, -1.0),
            "learner_gap",
        ),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(*drawn(0))


def test_soft_errors_broadcast_over_coefficients():
    errors, betas = np.array([[1.0, 0.0], [3.0, -1.0]]), np.array([0.5, 2.0])
    np.testing.assert_allclose(soft_error_bound(errors, betas), [0.25, 1.0])
    with pytest.raises(ValueError, match="beta"):
        soft_error_bound(errors, [0.5, 0.0])
