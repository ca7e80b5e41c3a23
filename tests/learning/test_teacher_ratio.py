"""Gates, stops and bands of a ratio to a mixture of old policy and teacher: by hand, against the loss, at extremes, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import log_normalize
from klsim.learning.softmax_step import population_gradient
from klsim.learning.teacher_ratio import band_flow, band_stop, gate_edges, surrogate_weight, update_stop
from klsim.objectives import TokenBatch, grpo, trrd

HALF, TENTH = math.log(0.5), math.log(0.1)
PROBABILITY = st.floats(0.001, 0.999)


def test_weight_by_hand():
    """old = pi = 1/2, T = 1/8, alpha = 1/2: r = 2."""
    eighth = math.log(1 / 8)
    open_ended = {"alpha": 0.5, "clip": (math.inf, math.inf), "clamp": math.inf}
    assert surrogate_weight(HALF, HALF, eighth, 3.0, **open_ended) == pytest.approx(6.0)
    assert surrogate_weight(HALF, HALF, eighth, 3.0, alpha=0.5, clamp=math.inf) == 0.0
    assert surrogate_weight(HALF, HALF, eighth, -3.0, alpha=0.5, clamp=math.inf) == pytest.approx(-6.0)
    # clamped, log(pi/T) = log 4 > 1: r = e^(1/2), of which only the old policy's half moves with pi
    assert surrogate_weight(HALF, HALF, eighth, -3.0, alpha=0.5) == pytest.approx(-1.5 * math.exp(0.5))


@given(PROBABILITY, PROBABILITY, PROBABILITY, st.floats(-2, 2), st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.sampled_from([0.5, 1.0, math.inf]))  # fmt: skip
def test_weight_is_the_derivative_of_the_loss(pi, old, teacher, advantage, alpha, clamp):
    clip, h = (0.2, 0.28), 1e-6
    at = [math.log(x) for x in (pi, old, teacher)]

    def value(log_pi):
        batch = TokenBatch([[log_pi]], old_log_probs=[[at[1]]], teacher_log_probs=[[at[2]]], advantages=[[advantage]])
        return -float(trrd(batch, alpha=alpha, clamp=clamp, clip=clip)[0])

    slopes = (value(at[0] + h) - value(at[0])) / h, (value(at[0]) - value(at[0] - h)) / h
    weight = float(surrogate_weight(*at, advantage, alpha=alpha, clip=clip, clamp=clamp))
    scale = 1 + max(pi / old, pi / teacher)
    if abs(slopes[0] - slopes[1]) < 1e-4 * scale:  # away from a kink
        assert weight == pytest.approx(slopes[0], abs=2e-5 * scale)


def test_a_teacher_does_not_count_at_alpha_one():
    """Not even one without support, unclamped: the ratio is pi/old."""
    weight = surrogate_weight(HALF, math.log(0.4), -math.inf, [1.0, -1.0], alpha=1.0, clip=(0.2, 0.3), clamp=math.inf)
    assert weight == pytest.approx([1.25, -1.25])


def test_on_an_edge_the_gate_is_shut_and_the_clamp_open():
    """old = T = 1/2 at alpha = 1: a clip of width 0 shuts both gates at r = 1, and nothing moves without advantage."""
    assert surrogate_weight(HALF, HALF, HALF, [1.0, -1.0, 0.0], alpha=1.0, clip=(0.0, 0.0)).tolist() == [0.0] * 3
    # log(pi/T) is the clamp: the ratio still moves with pi alone
    assert surrogate_weight(-0.5, -0.5, -1.0, -1.0, alpha=0.5, clamp=0.5) == pytest.approx(-math.exp(0.25))


def test_alpha_one_is_grpo():
    rng = np.random.default_rng(0)
    pi, old = -rng.random((2, 4, 3))
    rewards = np.array([1.0, 0.0, 0.0, 1.0])

    def loss(log_pi):
        return float(grpo(TokenBatch(log_pi, old_log_probs=old, rewards=rewards), clip=(0.2, 0.28))[0])

    advantage = (rewards - 0.5) / 0.5
    weight = surrogate_weight(pi, old, np.full(pi.shape, -math.inf), advantage[:, None], alpha=1.0)
    for i in range(4):
        step = 1e-6 * (np.arange(4) == i)[:, None]
        found = (loss(pi - step) - loss(pi + step)) / 2e-6
        assert found == pytest.approx(weight[i].mean() / 4, abs=1e-8)


def test_edges_by_hand():
    rise, fall = gate_edges(0.5, (0.2, 0.2))
    assert (math.exp(rise), math.exp(fall)) == pytest.approx((1 / 1.44, 1 / 0.64))
    # alpha = .8: the clamp at 1 nat keeps |log r| at .2, below -log .8 and above log 1.2
    rise, fall = gate_edges(0.8, (0.2, 0.2), clamp=1.0)
    assert (rise, fall) == (pytest.approx(-5 * math.log(1.2)), math.inf)
    rise, fall = gate_edges([0.5, 1.0], (1.0, math.inf))
    np.testing.assert_array_equal([rise, fall], [[-math.inf] * 2, [math.inf] * 2])
    assert gate_edges(1.0, (0.0, 0.0)) == (math.inf, -math.inf)
    # at alpha = 1 the ratio is 1: inside every other clip, with or without a clamp
    assert gate_edges(1.0) == gate_edges(1.0, clamp=0.5) == (-math.inf, math.inf)
    # the clip by default, and a clamp that reaches an edge exactly: the gate is there
    assert gate_edges(0.0) == (pytest.approx(-math.log(1.28)), pytest.approx(-math.log(0.8)))
    clamp = math.log1p(0.5)
    assert gate_edges(0.0, (0.0, 0.5), clamp)[0] == -clamp
    assert gate_edges(0.0, (0.5, 0.0), -math.log1p(-0.5))[1] == -math.log1p(-0.5)


@given(PROBABILITY, PROBABILITY, st.floats(0, 0.99), st.sampled_from([0.3, 1.0, math.inf]))
def test_edges_are_where_the_weight_vanishes(old, teacher, alpha, clamp):
    clip = (0.2, 0.28)
    gap = math.log(teacher) - math.log(old)
    edges = [float(e) for e in gate_edges(alpha, clip, clamp)]
    if min(abs(gap - e) for e in edges) < 1e-9 or abs((1 - alpha) * clamp - math.log(1.28)) < 1e-9:
        return
    weight = surrogate_weight(
        math.log(old), math.log(old), math.log(teacher), [1.0, -1.0], alpha=alpha, clip=clip, clamp=clamp
    )
    slope = 1.0 if abs(gap) <= clamp else alpha
    assert list(weight != 0) == [gap > edges[0] and slope > 0, gap < edges[1] and slope > 0]


def test_stops_by_hand():
    quarter = math.log(0.25)
    # mix = sqrt(1/2 1/8) = 1/4
    eighth = math.log(1 / 8)
    assert update_stop(HALF, eighth, -1.0, clip=(0.2, 0.2)) == pytest.approx(math.log(0.2))
    assert update_stop(HALF, eighth, 1.0, clip=(0.2, 0.2)) == HALF  # starts beyond .3
    assert update_stop(eighth, HALF, 1.0, clip=(0.2, 0.2)) == pytest.approx(math.log(0.3))
    assert update_stop(eighth, HALF, 1.0, clip=(0.2, 9.0)) == 0.0  # out of reach
    assert update_stop(HALF, eighth, -1.0, clip=(1.0, 0.2)) == -math.inf
    assert update_stop(quarter, -math.inf, 0.0) == quarter
    assert update_stop(quarter, -math.inf, 1.0, alpha=1.0, clip=(0.2, 0.2)) == pytest.approx(math.log(0.3))


def test_band_by_hand():
    # k = 2: factors 1.44 and .64
    assert band_stop(0.1, 0.5, alpha=0.5, clip=(0.2, 0.2)) == pytest.approx(0.72)
    assert band_stop(0.1, 0.02, alpha=0.5, clip=(0.2, 0.2)) == pytest.approx(1 - 0.64 * 0.98)
    assert band_stop(0.9, 0.5, alpha=0.5, clip=(0.2, 0.2)) == 0.9
    assert band_stop(0.1, 0.02, alpha=1.0) == 1.0
    assert band_stop(0.1, 0.02, alpha=[0.75, 0.8], clamp=1.0) == pytest.approx([1 - 0.8**4 * 0.98, 1.0])


def plain_flow(logits, log_teacher, right, alpha, clip, clamp, lr, steps):
    """The same ascent from the public pieces."""
    for _ in range(steps):
        log_pi = log_normalize(logits)
        p = np.sum(np.where(right, np.exp(log_pi), 0.0), axis=-1, keepdims=True)
        advantage = (right - p) / np.sqrt(p * (1 - p))
        weight = surrogate_weight(log_pi, log_pi, log_teacher, advantage, alpha=alpha, clip=clip, clamp=clamp)
        logits = logits + lr * population_gradient(log_pi, weight)
    return log_normalize(logits)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("clamp", [0.5, math.inf])
def test_flow_is_the_ascent_of_the_surrogate(alpha, clamp):
    rng = np.random.default_rng(1)
    logits, teacher = rng.standard_normal((3, 5)), log_normalize(rng.standard_normal((3, 5)))
    right = np.array([True, True, False, False, False])
    options = {"clip": (0.2, 0.28), "clamp": clamp, "lr": 0.1, "steps": 40}
    np.testing.assert_allclose(
        band_flow(logits, teacher, right, alpha=alpha, **options), plain_flow(logits, teacher, right, alpha, **options),
        rtol=1e-10,
    )  # fmt: skip


@given(st.floats(0.05, 0.6), st.floats(0.05, 0.6), st.floats(0.0, 0.7))
def test_flow_ends_in_the_band(start, teacher, alpha):
    rows = [np.log([p, (1 - p) / 2, (1 - p) / 2]) for p in (start, teacher)]
    stop = float(band_stop(start, teacher, alpha=alpha))
    if stop > 0.95:  # the approach to 1 is slow
        return
    end = math.exp(band_flow(*rows, np.arange(3) == 0, alpha=alpha, lr=0.005, steps=200_000)[0])
    assert stop - 1e-9 <= end <= stop + 2e-3


def test_flow_stays_where_no_gate_is_open():
    log_pi = np.log([0.9, 0.1])
    np.testing.assert_allclose(
        band_flow(log_pi, np.log([0.5, 0.5]), np.array([True, False]), alpha=0.0), log_pi, rtol=1e-14
    )
    np.testing.assert_allclose(
        band_flow(log_pi, np.log([0.5, 0.5]), np.array([True, True]), alpha=1.0), log_pi, rtol=1e-14
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: surrogate_weight(0.5, HALF, HALF, 1.0), "log_pi = 0.5: log-probabilities must be <= 0"),
        (lambda: surrogate_weight(HALF, -math.inf, HALF, 1.0), "log_old"),
        (lambda: surrogate_weight(HALF, HALF, math.nan, 1.0), "log_teacher"),
        (lambda: surrogate_weight(HALF, HALF, -math.inf, -1.0, clamp=math.inf), "overflows"),
        (lambda: surrogate_weight(HALF, HALF, HALF, math.inf), "advantage"),
        (lambda: surrogate_weight(HALF, HALF, HALF, 1.0, alpha=1.5), "alpha"),
        (lambda: surrogate_weight(HALF, HALF, HALF, 1.0, clip=(0.2,)), "clip"),
        (lambda: surrogate_weight(HALF, HALF, HALF, 1.0, clip=(-0.1, 0.2)), r"clip\[0\]"),
        (lambda: surrogate_weight([HALF] * 2, [HALF] * 3, HALF, 1.0), "broadcast"),
        (lambda: gate_edges(0.5, clamp=0.0), "clamp"),
        (lambda: update_stop(HALF, TENTH, math.nan), "advantage"),
        (lambda: band_stop(0.0, 0.5, alpha=0.5), "start"),
        (lambda: band_stop(0.5, 1.0, alpha=0.5), "teacher"),
        (lambda: band_flow([0.0, math.inf], np.log([0.5, 0.5]), np.array([True, False]), alpha=0.5), "logits"),
        (lambda: band_flow([0.0, 0.0], [0.0, 0.0], np.array([True, False]), alpha=0.5), "log_teacher"),
        (lambda: band_flow([0.0] * 2, np.log([0.5, 0.5]), np.array([True, False]), alpha=0.5, steps=-1), "steps"),
        (lambda: band_flow([0.0] * 3, np.log([0.5, 0.5]), np.array([True, False]), alpha=0.5), "last axes"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_log_probability_may_exceed_zero_by_its_rounding():
    """Single precision rounds by 1e-7 times what it sums; up to 1e-6 is let through."""
    assert surrogate_weight(1e-6, 1e-6, 1e-6, 1.0) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match="log_pi"):
        surrogate_weight(1.1e-6, 0.0, 0.0, 1.0)
