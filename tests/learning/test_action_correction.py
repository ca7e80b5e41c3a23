"""Corrections of actions against QR, finite differences and hand-worked numbers, at extremes, and the doors."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning.action_correction import (
    corrected_action,
    displacement_map,
    first_order_gain,
    guided_step,
    tilted_mode_step,
)

RNG = np.random.default_rng(3)
J, G = RNG.normal(size=(5, 3, 2)), RNG.normal(size=(5, 3))


def test_the_inverse_rule_projects():
    for jacobian, g in zip(J, G):
        q, _ = np.linalg.qr(jacobian)
        aim = q @ (q.T @ g)
        np.testing.assert_allclose(jacobian @ guided_step(jacobian, g, 0.3), 0.3 * aim, rtol=1e-10)
        assert first_order_gain(jacobian, g) == pytest.approx(aim @ aim, rel=1e-10)
    np.testing.assert_allclose(guided_step(J, G)[2], guided_step(J[2], G[2]), rtol=1e-12)


def test_the_gradient_rule():
    np.testing.assert_allclose(guided_step(J[0], G[0], 2.0, rule="gradient"), 2 * J[0].T @ G[0], rtol=1e-12)
    assert first_order_gain(J[0], G[0], rule="gradient") == pytest.approx(np.sum((J[0].T @ G[0]) ** 2), rel=1e-12)


def test_actions_without_effect_are_left_alone_and_scales_do_not_matter():
    assert guided_step(np.zeros((3, 2)), G[0]).tolist() == [0.0, 0.0]
    flat = np.array([[1.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(guided_step(flat, [1.0, 3.0]), [1.0, 1.0], rtol=1e-12)
    np.testing.assert_allclose(guided_step(1e200 * J[0], G[0]) * 1e200, guided_step(J[0], G[0]), rtol=1e-10)
    np.testing.assert_allclose(guided_step(1e-200 * J[0], G[0]) * 1e-200, guided_step(J[0], G[0]), rtol=1e-10)


def test_tilted_mode_step_by_hand_and_in_batches():
    h = np.array([[2.0, 0.3], [0.3, 0.7]])
    np.testing.assert_allclose(h @ tilted_mode_step(h, [1.0, -2.0], 0.1), [0.1, -0.2], rtol=1e-12)
    both = tilted_mode_step(np.stack([h, np.eye(2)]), [1.0, -2.0], 0.5)
    np.testing.assert_allclose(both[1], [0.5, -1.0])


def test_displacement_map_recovers_a_linear_system():
    w, a = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 50, 2))
    np.testing.assert_allclose(displacement_map(a, a @ w), w, rtol=1e-9)
    noisy = a @ w + RNG.normal(size=(4, 50, 3))
    np.testing.assert_allclose(displacement_map(a, noisy)[1], np.linalg.lstsq(a[1], noisy[1])[0], rtol=1e-9)


def test_corrected_action_by_hand():
    found = corrected_action([[0.0, 1.0]], [[0.5, 1.0]], [[2.0, -4.0]], 2 * np.eye(2), sigma=0.5, eta=0.1)
    np.testing.assert_allclose(found, [[1.1, -0.2]])  # aims at (.55, .9)
    clipped = corrected_action([[0.0, 1.0]], [[0.5, 1.0]], [[2.0, -4.0]], 2 * np.eye(2), sigma=0.5, eta=0.1, limit=0.15)
    assert clipped.tolist() == [[0.15, -0.15]]
    state = RNG.normal(size=(3, 7, 2))
    inverse = RNG.normal(size=(3, 2, 4))
    found = corrected_action(state, state + 1, np.zeros((3, 7, 2)), inverse, sigma=1.0)
    np.testing.assert_allclose(found[2], np.tile(inverse[2].sum(axis=0), (7, 1)))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: guided_step([1.0, 2.0], [1.0]), "jacobian"),
        (lambda: guided_step(J[0], [1.0, 2.0]), "gradient"),
        (lambda: guided_step(J, G[:3]), "broadcast"),
        (lambda: guided_step([[np.nan]], [1.0]), r"jacobian\[0, 0\] = nan"),
        (lambda: guided_step([[1.0]], [np.inf]), r"gradient\[0\] = inf"),
        (lambda: guided_step([[1.0]], [1.0], np.nan), "eta"),
        (lambda: guided_step([[1.0]], [1.0], rule="other"), "rule"),
        (lambda: guided_step([[1e-300]], [1e300]), "gradient"),
        (lambda: first_order_gain([[1e300]], [1e300], rule="gradient"), "gradient"),
        (lambda: first_order_gain([[1.0]], [1.0], rule=None), "rule"),
        (lambda: tilted_mode_step([[1.0, 2.0]], [1.0], 0.1), "hessian"),
        (lambda: tilted_mode_step([[1.0, 0.5], [0.0, 1.0]], [1.0, 1.0], 0.1), "symmetric"),
        (lambda: tilted_mode_step([[1.0, 2.0], [2.0, 1.0]], [1.0, 1.0], 0.1), "positive definite"),
        (lambda: tilted_mode_step([[0.0]], [1.0], 0.1), "positive definite"),
        (lambda: tilted_mode_step(np.eye(2), [1.0], 0.1), "score"),
        (lambda: tilted_mode_step(np.eye(1), [np.nan], 0.1), r"score\[0\]"),
        (lambda: tilted_mode_step(np.eye(1), [1.0], -0.1), "lam"),
        (lambda: displacement_map([1.0], [[1.0]]), "actions"),
        (lambda: displacement_map([[1.0]], [[1.0], [2.0]]), "displacements"),
        (lambda: displacement_map([[1.0, 1.0], [2.0, 2.0]], [[1.0], [2.0]]), "span"),
        (lambda: displacement_map(np.zeros((0, 2)), np.zeros((0, 2))), "span"),
        (lambda: displacement_map([[np.inf]], [[1.0]]), r"actions\[0, 0\]"),
        (lambda: corrected_action([[1.0]], [[1.0], [2.0]], [[1.0], [1.0]], [[1.0]], sigma=1.0), "state"),
        (lambda: corrected_action([[1.0]], [[1.0]], [[1.0]], [[1.0], [1.0]], sigma=1.0), "inverse"),
        (lambda: corrected_action([[1.0]], [[1.0]], [[1.0]], np.ones((3, 1, 1)), sigma=1.0), "inverse"),
        (lambda: corrected_action([[1.0]], [[1.0]], [[1.0]], [[1.0]], sigma=-1.0), "sigma"),
        (lambda: corrected_action([[1.0]], [[1.0]], [[1.0]], [[1.0]], sigma=1.0, limit=0.0), "limit"),
        (lambda: corrected_action([[np.nan]], [[1.0]], [[1.0]], [[1.0]], sigma=1.0), r"state\[0, 0\]"),
        (lambda: corrected_action([[0.0]], [[1e200]], [[1.0]], [[1e200]], sigma=1.0), "predicted"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
