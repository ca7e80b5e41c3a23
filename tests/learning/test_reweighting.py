"""Weights of objectives: by hand, invariances, the closed forms of the instability against histories, bad input."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.learning import reweighting as rw

HAND = np.array([[0.8, 0.6, 0.4, 0.2], [0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.2, 0.4]])


def drawn(seed, objectives=3, window=4):
    return np.random.default_rng(seed).uniform(0.1, 2.0, (objectives, 2 * window))


def test_by_hand():
    found = rw.window_signals(HAND, 2)
    np.testing.assert_allclose(found.ratio, [3 / 7, 1, 3])
    np.testing.assert_allclose(found.instability, [0.1, 0, 0.25], atol=1e-15)
    np.testing.assert_allclose(rw.objective_weights(HAND, 2, 5.0), [0.784878, 0.862482, 1.352640], atol=1e-6)
    np.testing.assert_allclose(rw.objective_weights(HAND, 2, 1.0), [0.168499, 0.269982, 2.561519], atol=1e-6)


def test_only_the_last_windows_count():
    longer = np.concatenate([np.full((3, 5), 9.0), HAND], axis=-1)
    np.testing.assert_array_equal(rw.objective_weights(longer, 2, 1.0), rw.objective_weights(HAND, 2, 1.0))


@given(st.integers(0, 200), st.floats(0.01, 100.0))
def test_scales_do_not_matter_and_weights_sum_to_k(seed, scale):
    L = drawn(seed)
    weights = rw.objective_weights(L, 4, 0.5)
    assert weights.sum() == pytest.approx(3)
    np.testing.assert_allclose(rw.objective_weights(L * [[scale], [1], [1]], 4, 0.5), weights, atol=1e-10)


def test_infinite_temperature_and_huge_scores():
    np.testing.assert_array_equal(rw.softmax_weights([1.0, 5.0, -3.0], math.inf), [1, 1, 1])
    np.testing.assert_array_equal(rw.softmax_weights([1e300, 0.0], 1e-3), [2, 0])
    np.testing.assert_array_equal(rw.softmax_weights([1.7e308, -1.7e308], math.inf), [1, 1])
    found = rw.softmax_weights(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.array([[math.inf], [1.0]]))
    np.testing.assert_allclose(found[:, 0, 1], [1, 2 / (1 + math.exp(-1))])


def test_the_floor_is_under_the_means_only():
    L = np.zeros((1, 20))
    L[0, 15] = 1 / 32
    c, i = rw.window_signals(L, 10, floor=1e-3)
    assert c == pytest.approx([3.125])
    assert i == pytest.approx([0.009375 / 0.004125])


@given(st.integers(0, 200), st.integers(2, 12))
def test_bounds_hold_and_a_spike_reaches_the_first(seed, window):
    L = np.random.default_rng(seed).gamma(0.3, size=(1, 2 * window)) + 1e-9
    c, i = rw.window_signals(L, window)
    assert i[0] <= rw.instability_bound(c[0], window) + 1e-12
    L[0, window:] = 0.0
    L[0, -1] = 1.0
    c, i = rw.window_signals(L, window)
    assert i[0] == pytest.approx(float(rw.instability_bound(c[0], window)))


def test_ends_of_the_bounds():
    assert rw.instability_bound(0.0, 5) == 0
    assert rw.instability_bound(math.inf, 5) == 2
    assert rw.box_instability(1.0) == 0
    assert rw.box_instability(0.1) == pytest.approx(0.9594, abs=1e-4)


@given(st.floats(-0.04, 0.04), st.integers(2, 10))
def test_a_line(slope, window):
    c, i = rw.window_signals((1.0 + slope * np.arange(2 * window))[None], window)
    np.testing.assert_allclose(rw.trend_instability(c, window), i, atol=1e-12)


def test_ends_of_the_trend():
    assert rw.trend_instability(1.0, 10) == 0
    assert rw.trend_instability(math.inf, 10) == pytest.approx(math.sqrt(99 / 12) / 10)


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_failure_rates(rate):
    x = np.random.default_rng(0).binomial(64, rate, (20_000, 1, 20)) / 64
    found = rw.window_signals(x, 10).instability
    assert found.mean() == pytest.approx(float(rw.failure_instability(rate, 64, 10)), rel=0.02)
    assert rw.failure_instability(rate, 64, 10_000) == pytest.approx(float(rw.failure_instability(rate, 64)), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rw.window_signals([[1.0, 2.0]], 2), "history: must be (..., K, T)"),
        (lambda: rw.window_signals([1.0, 2.0], 1), "history: must be (..., K, T)"),
        (lambda: rw.window_signals([[0.0, 1.0]], 1), "history[0]: has windows of mean 0"),
        (lambda: rw.window_signals([[-1.0, 1.0]], 1), "history[0]: has windows of mean 0"),
        (lambda: rw.window_signals([[1.0, math.nan]], 1), "history[0, 1]"),
        (lambda: rw.window_signals([[1e-300, 1e300]], 1), "history[0]: is too large"),
        (lambda: rw.window_signals([[1.0, 1.0]], 0), "window"),
        (lambda: rw.window_signals([[1.0, 1.0]], 1, floor=-1), "floor"),
        (lambda: rw.softmax_weights([1.0], 0.0), "temperature"),
        (lambda: rw.softmax_weights([1.0], math.nan), "temperature"),
        (lambda: rw.softmax_weights(1.0, 1.0), "score"),
        (lambda: rw.softmax_weights([], 1.0), "score: must be (..., K)"),
        (lambda: rw.softmax_weights([math.inf], 1.0), "score[0]"),
        (lambda: rw.instability_bound(-1.0, 2), "ratio"),
        (lambda: rw.trend_instability(math.nan, 2), "ratio"),
        (lambda: rw.box_instability(0.0), "low"),
        (lambda: rw.failure_instability(1.0, 4), "rate"),
        (lambda: rw.failure_instability(0.5, 0), "batch"),
        (lambda: rw.failure_instability(0.5, 4, 1), "window"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
