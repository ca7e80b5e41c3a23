"""Targets of training towards best-of-n: against enumeration, optimisers, at extremes, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp
from scipy.optimize import minimize

from klsim import best_of_n
from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.estimator_moments import draws
from klsim.selection_targets import (
    best_and_worst,
    ipo_best_of_n,
    pair_margin,
    rules_side_by_side,
    selected,
    tilt_projection,
    variational_best_of_n,
    variational_bound,
    worst_of_n,
)

LOG_P, REWARD = np.log([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 0.4])


def test_pairs_by_hand():
    # two draws without ties: 2 p_b p_w where b is better, p^2 on the diagonal
    joint = best_and_worst(LOG_P, REWARD, 2)
    np.testing.assert_allclose(joint, [[0.25, 0, 0], [0.3, 0.09, 0.12], [0.2, 0, 0.04]], rtol=1e-13, atol=1e-17)
    # all rewards equal: two independent draws
    np.testing.assert_allclose(best_and_worst(LOG_P, np.ones(3), 7), np.outer(*2 * [np.exp(LOG_P)]), rtol=1e-13)


def test_pairs_keep_small_probabilities():
    mp.dps = 60
    log_p = np.array([np.log1p(-2e-9), np.log(1e-9), np.log(1e-9)])
    a, b, x = mp.mpf(float(np.exp(log_p[2]))), mp.mpf(float(np.exp(log_p[1]))), mp.mpf(0)
    exact = (x + a + b) ** 3 - (x + a) ** 3 - (x + b) ** 3 + x**3
    np.testing.assert_allclose(best_and_worst(log_p, [0.0, 1.0, 2.0], 3)[2, 1], float(exact), rtol=1e-7, atol=0)
    big = best_and_worst(LOG_P, REWARD, 10**6)
    np.testing.assert_allclose(big.sum(), 1.0, rtol=1e-9)
    np.testing.assert_allclose(big[1, 0], 1.0, rtol=1e-12)


def test_worst_is_the_best_of_the_negative():
    np.testing.assert_allclose(
        np.exp(worst_of_n(LOG_P, REWARD, 3)), [1 - 0.5**3, 0.3**3, 0.5**3 - 0.3**3], rtol=1e-13
    )  # fmt: skip
    np.testing.assert_allclose(worst_of_n(LOG_P, REWARD, 1.0), LOG_P, atol=1e-14)


def test_margin():
    assert pair_margin(2) == pytest.approx(1.0, rel=1e-14)
    assert pair_margin(5) == pytest.approx(4 * (1 + 1 / 2 + 1 / 3 + 1 / 4), rel=1e-14)


def test_ipo_fit_by_an_optimiser():
    pairs = best_and_worst(LOG_P, REWARD, 4) * (1 - np.eye(3))

    def loss(h):
        return np.sum(pairs * (h[:, None] - h[None] - 2.0) ** 2)

    found = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-10}).x
    np.testing.assert_allclose(ipo_best_of_n(LOG_P, REWARD, 4, 2.0), log_normalize(LOG_P + found), atol=1e-6)
    np.testing.assert_allclose(ipo_best_of_n(LOG_P, np.ones(3), 4), LOG_P, atol=1e-12)
    assert ipo_best_of_n([0.0], [1.0], 3).tolist() == [0.0]
    assert ipo_best_of_n([0.0, -np.inf], [1.0, 2.0], 3).tolist() == [0.0, -np.inf]


def test_vbon():
    law = np.array([0.5 * 0.5**3, 0.3 * 1.0, 0.2 * 0.7**3])
    np.testing.assert_allclose(np.exp(variational_best_of_n(LOG_P, REWARD, 4)), law / law.sum(), rtol=1e-13)
    np.testing.assert_allclose(variational_best_of_n(LOG_P, REWARD, 1), LOG_P, atol=1e-15)
    # its bound is the KL to it, less log of the normaliser
    policy = np.log([0.2, 0.2, 0.6])
    expected = kl(policy, variational_best_of_n(LOG_P, REWARD, 4)) - np.log(law.sum())
    assert variational_bound(policy, LOG_P, REWARD, 4) == pytest.approx(expected, rel=1e-13)
    assert variational_bound([np.log(0.5), np.log(0.5)], [0.0, -np.inf], [0.0, 1.0], 3) == np.inf


def test_vbon_at_huge_n():
    log_p = np.array([np.log1p(-1e-12), np.log(1e-12)])
    law = variational_best_of_n(log_p, [0.0, 1.0], 1e12)
    # F = 1 - 1e-12: e^{-1} of the mass of the lower level against 1e-12
    np.testing.assert_allclose(law[1] - law[0], np.log(1e-12) + 1.0, rtol=1e-3)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_projections_by_a_grid(n):
    target = best_of_n.log_policy(LOG_P, REWARD, n)
    for direction in ("forward", "backward"):
        found = tilt_projection(LOG_P, REWARD, target, direction=direction)
        grid = np.linspace(-5, 80, 20_001)
        laws = log_normalize(LOG_P + grid[:, None] * REWARD)
        away = kl(target, laws) if direction == "forward" else kl(laws, target)
        assert found.divergence <= away.min() + 1e-12
        assert found.strength == pytest.approx(grid[np.argmin(away)], abs=0.01)
    assert tilt_projection(LOG_P, REWARD, log_normalize(LOG_P + 3 * REWARD)).strength == pytest.approx(3.0, rel=1e-9)
    assert tilt_projection(LOG_P, 1e8 * REWARD, LOG_P).strength == pytest.approx(0.0, abs=1e-16)


def test_rules_side_by_side():
    rules = rules_side_by_side(LOG_P, REWARD, 3, temperature=0.5, threshold=0.3, beta=0.1)
    assert set(rules) == {"one", "best", "worst", "soft", "rejection", "pessimistic"}
    assert rules["one"].kl == 0
    assert rules["one"].win_rate == pytest.approx(0.5, rel=1e-14)
    assert rules["best"].win_rate == pytest.approx(float(best_of_n.win_rate(LOG_P, REWARD, 3)), rel=1e-13)
    assert rules["worst"].reward < rules["one"].reward < rules["soft"].reward < rules["best"].reward
    outcomes, probability = draws(LOG_P, 3)
    assert rules["best"].reward == pytest.approx(probability @ REWARD[outcomes].max(axis=1), rel=1e-13)
    assert selected(LOG_P, LOG_P, REWARD).reward == pytest.approx(0.38, rel=1e-14)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: best_and_worst(LOG_P, REWARD, 1), "n = 1: must be >= 2"),
        (lambda: best_and_worst(LOG_P, REWARD[:2], 3), "reward: must be a vector"),
        (lambda: worst_of_n(LOG_P, REWARD, 0.0), "n = 0.0"),
        (lambda: pair_margin(1), "n = 1"),
        (lambda: ipo_best_of_n(LOG_P, REWARD, 3, -1.0), "margin = -1.0"),
        (
            lambda: ipo_best_of_n(np.log([0.1, 0.3, 0.3, 0.3]), [0.0, 1.0, 2.0, 3.0], 10**5),
            "n = 100000: leaves outcomes",
        ),
        (lambda: variational_best_of_n(LOG_P, REWARD, 0.5), "n = 0.5"),
        (lambda: variational_bound(LOG_P[:2], LOG_P, REWARD, 2), "log_policy"),
        (lambda: selected(LOG_P[:2], LOG_P, REWARD), "log_policy"),
        (lambda: tilt_projection(LOG_P, REWARD, LOG_P, direction="up"), "direction"),
        (lambda: tilt_projection(LOG_P, np.ones(3), LOG_P), "reward: must differ"),
        (lambda: tilt_projection(LOG_P, REWARD, [-np.inf, 0.0, -np.inf]), "log_target: has all of its mass on one end"),
        (lambda: tilt_projection(LOG_P, REWARD, [-np.inf, 0.0, -np.inf], direction="backward"), "log_target: lacks"),
        (lambda: tilt_projection([0.0, -np.inf], [0.0, 1.0], np.log([0.5, 0.5])), "log_target: has mass outside"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
