"""Mass balance against enumeration, finite differences, and numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim import mass_balance as mb
from klsim.distributions import log_normalize


def test_numbers_by_hand():
    # pi = (1/2, 1/4, 1/4), token 0 correct, batch {0, 1}, R = (1, -1): S = 1/4
    b = mb.one_step(np.log([0.5, 0.25, 0.25]), np.array([True, False, False]), np.array([True, True, False]), 2)
    assert float(b.mood) == pytest.approx(0.25)
    assert float(b.sampled_correct) == pytest.approx(0.75 * 0.5 * 0.25)
    assert float(b.sampled_incorrect) == pytest.approx(1.25 * 0.5 * 0.0625)
    assert float(b.unsampled) == pytest.approx(0.25 * 0.5 * 0.0625)
    np.testing.assert_allclose(b.d_logits, np.array([0.5 * 0.75, 0.25 * -1.25, 0.25 * -0.25]) / 2)


def test_first_order_change_by_finite_differences():
    rng = np.random.default_rng(0)
    logits, correct, sampled = rng.standard_normal((200, 7)), rng.random((200, 7)) < 0.5, rng.random((200, 7)) < 0.5
    b = mb.one_step(log_normalize(logits), correct, sampled, 3, 1.3, -0.4, lr=2.0)

    def mass(z):
        return np.sum(np.where(correct, np.exp(log_normalize(z)), 0.0), axis=-1)

    h = 1e-5
    numeric = (mass(logits + h * b.d_logits) - mass(logits - h * b.d_logits)) / (2 * h)
    np.testing.assert_allclose(b.d_mass, numeric, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_expectations_by_enumeration(n):
    rng = np.random.default_rng(n)
    log_pi, correct = log_normalize(rng.standard_normal(4)), np.array([True, False, True, False])
    pi = np.exp(log_pi)
    bracket = moment = 0.0
    for draw in itertools.product(range(4), repeat=n):
        sampled = np.isin(np.arange(4), draw)
        weight = np.prod(pi[list(draw)])
        bracket += weight * float(mb.one_step(log_pi, correct, sampled, n, 1.0, -0.5).bracket)
        moment += weight * np.sum(pi[~sampled] ** 2)
    assert float(mb.expected_one_step(log_pi, correct, n, 1.0, -0.5)) == pytest.approx(bracket, rel=1e-12)
    assert float(mb.unsampled_second_moment(log_pi, n)) == pytest.approx(moment, rel=1e-12)


@pytest.mark.parametrize("centred", [False, True])
def test_expected_draw_steps_of_a_batch(centred):
    rng = np.random.default_rng(0)
    log_pi, correct = log_normalize(rng.standard_normal((2, 3, 4))), rng.random((2, 3, 4)) < 0.5
    found = mb.expected_draw_step(log_pi, correct, 5, 1.0, -0.5, centred=centred)
    assert found.shape == (2, 3)
    for i in np.ndindex(2, 3):
        pi, reward = np.exp(log_pi[i]), np.where(correct[i], 1.0, -0.5)
        step = (4 / 5 if centred else 1.0) * np.sum(
            pi * (reward - (pi @ reward if centred else 0.0)) * mb.draw_attribution(log_pi[i], correct[i])
        )
        assert found[i] == pytest.approx(step, rel=1e-12)


def test_thresholds_and_attribution_signs():
    pi = np.concatenate([[0.3], np.full(20, 0.015), np.full(40, 0.01)])
    correct = np.arange(61) < 21
    low, _ = mb.thresholds(np.log(pi), correct)
    w = mb.attribution(np.log(pi), correct)
    assert low > 0.015
    assert (w[1:21] < 0).all()
    assert w[0] > 0


def test_huge_n_and_one_hot():
    log_pi = np.array([0.0, -np.inf])
    assert float(mb.unsampled_second_moment(log_pi, 1e15)) == 0
    assert float(mb.unsampled_second_moment(np.array([1e-9, -np.inf]), 5)) == 0  # a mass of one, up to rounding
    assert float(mb.unsampled_second_moment_bound(1e15)) == pytest.approx(np.exp(-1) / 1e15, rel=1e-6)
    assert float(mb.expected_one_step(log_pi, np.array([True, False]), 1e15)) == 0


def test_score_function_step():
    log_pi, correct = log_normalize(np.array([0.2, -0.3, 1.0])), np.array([True, False, False])
    counts = np.array([2, 1, 0])
    d_logits, d_mass = mb.score_function_step(log_pi, correct, counts)
    assert d_logits[2] == pytest.approx(0.0, abs=1e-16)
    pi = np.exp(log_pi)
    grad = pi * (correct - pi[0])
    assert float(d_mass) == pytest.approx(float(grad @ d_logits))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mb.one_step(np.log([0.5, 0.5]), np.array([1, 0]), np.array([True, False]), 1), TypeError, "correct"),
        (lambda: mb.one_step(np.log([0.5, 0.5]), np.array([True, False]), np.array([True, False]), 0), ValueError, "n"),
        (lambda: mb.thresholds(np.log([0.5, 0.5]), np.array([True, True])), ValueError, "positive mass"),
        (lambda: mb.thresholds(np.log([0.5, 0.5]), np.array([False, False])), ValueError, "positive mass"),
        (
            lambda: mb.score_function_step(np.log([0.5, 0.5]), np.array([True, False]), np.array([0, 0])),
            ValueError,
            "draw",
        ),
        (lambda: mb.attribution([0.5, 0.5], np.array([True, False])), ValueError, "sum to"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
