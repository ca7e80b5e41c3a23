"""The threshold's loop: against the update-by-update controller, bounds, reflection, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning.threshold_control import Gains, ThresholdLoop, control_bound, reflected_integral, threshold_trace
from klsim.objectives.stabilizers import AdaptiveThreshold


def curves(seed, runs=3, updates=220):
    rng = np.random.default_rng(seed)
    rise = np.array([[0.9], [0.5], [0.7]]) * (1 - np.exp(-np.arange(updates) / 30))
    return rise + np.array([[1e-3], [0.02], [0.1]]) * rng.standard_normal((runs, updates))


def test_worked_values():
    found = threshold_trace([0.5, 0.6, 0.4, 0.7, 0.7])
    np.testing.assert_allclose(found.control[:4], [0, 0.00144, -0.00241, 0.0035345], atol=1e-12)
    np.testing.assert_allclose(found.threshold, [0.45, 0.45216, 0.446385, 0.45530175, 0.45402191], atol=1e-8)
    assert found.integral[3] == pytest.approx(0.0067625)


def test_against_the_controller_and_step_by_step():
    rewards = curves(0)
    found, loop = threshold_trace(rewards), ThresholdLoop(3, rewards.shape[1])
    np.testing.assert_array_equal(np.stack([loop.update(r) for r in rewards.T], axis=-1), found.threshold)
    phases = set()
    for row, taus in zip(rewards, found.threshold):
        state = AdaptiveThreshold()
        for reward, tau in zip(row, taus):
            state = state.update(0.1, float(reward))
            assert state.threshold == pytest.approx(tau, abs=1e-14)
            phases.add(state.phase)
    assert phases == {"warmup", "climbing", "plateau", "converged"}


def test_bounds():
    assert control_bound() == pytest.approx(0.027925)
    assert control_bound(derivative="crude") == pytest.approx(0.0303)
    crash = threshold_trace(np.r_[np.ones(1200), np.zeros(20)])
    assert -control_bound() <= crash.control.min() < -0.0277


def test_reflection():
    square = (np.arange(6000) // 200) % 2.0
    found = threshold_trace(square)
    np.testing.assert_allclose(reflected_integral(found.smoothed), found.integral, atol=1e-12)
    assert found.integral.min() == -1


def test_reflection_of_a_batch_from_any_start():
    """Rewards that start high: the walk is measured from the first average; a row without a reflection beside it."""
    fall = np.where(np.arange(1200) < 300, 1.0, 0.2)
    found = threshold_trace(np.stack([fall, np.full(1200, 0.9)]))
    assert found.integral.min(axis=-1) == pytest.approx([-1, -1])
    assert np.argmin(found.integral[0]) < 400 < 900 < np.argmin(found.integral[1])
    np.testing.assert_allclose(reflected_integral(found.smoothed), found.integral, atol=1e-12)


def test_scaled_gains():
    rewards = curves(1)
    np.testing.assert_allclose(
        threshold_trace(rewards, Gains().scaled(3.0)).control, 3 * threshold_trace(rewards).control, atol=1e-14
    )


def test_bad_input():
    with pytest.raises(ValueError, match="rewards"):
        threshold_trace([])
    with pytest.raises(ValueError, match="rewards"):
        threshold_trace([0.0, np.inf])
    with pytest.raises(ValueError, match="smoothed"):
        reflected_integral([np.nan])
    with pytest.raises(ValueError, match="factor"):
        Gains().scaled(np.nan)
    with pytest.raises(ValueError, match="rate"):
        Gains(rate=2.0)
    with pytest.raises(ValueError, match="high"):
        Gains(high=0.05)
    loop = ThresholdLoop(2, 1)
    with pytest.raises(ValueError, match="shape"):
        loop.update([0.0])
    loop.update([0.0, 1.0])
    with pytest.raises(ValueError, match="announced"):
        loop.update([0.0, 1.0])
