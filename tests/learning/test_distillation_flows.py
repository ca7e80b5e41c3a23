"""Flows towards a teacher and binned Gaussians: by hand, against finite differences and closed forms, at extremes, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.distributions import entropy, log_normalize
from klsim.divergences import kl
from klsim.learning import binned_gaussian as bg
from klsim.learning import distillation_flows as flows

HALF = np.log([0.5, 0.5])
THREE = np.log([0.5, 0.3, 0.2])


def test_forces_by_hand():
    pi, teacher = np.log([0.8, 0.2]), HALF
    np.testing.assert_allclose(flows.distillation_force(pi, teacher, "forward_kl"), [-0.3, 0.3])
    gap = math.log(1.6) - float(kl(pi, teacher))
    np.testing.assert_allclose(flows.distillation_force(pi, teacher, "reverse_kl"), [-0.8 * gap, 0.8 * gap])
    np.testing.assert_allclose(flows.distillation_force(pi, np.log([0.4, 0.6]), "hard_ce"), [-0.8, 0.8])
    np.testing.assert_allclose(flows.distillation_force(pi, HALF, "hard_ce"), [0.2, -0.2])  # the first of a tie


def test_forces_are_batched():
    pi, teacher = (log_normalize(np.random.default_rng(k).standard_normal((3, 2, 4))) for k in (0, 1))
    for loss in flows.LOSSES:
        rows = [[flows.distillation_force(p, t, loss) for p, t in zip(*pair)] for pair in zip(pi, teacher)]
        np.testing.assert_allclose(flows.distillation_force(pi, teacher, loss), rows)
        assert np.abs(flows.distillation_force(pi, teacher, loss).sum(axis=-1)).max() < 1e-15


def test_entropy_rate_by_hand_and_without_support():
    """``dH/dt = -p q log(p/q) (zdot_1 - zdot_2)`` of two outcomes."""
    pi = np.log([0.8, 0.2])
    assert flows.entropy_rate(pi, [1.0, 0.0]) == pytest.approx(-0.16 * math.log(4))
    with np.errstate(divide="ignore"):
        assert flows.entropy_rate(np.log([0.8, 0.2, 0.0]), [1.0, 0.0, 7.0]) == pytest.approx(-0.16 * math.log(4))


def test_flow_of_two_outcomes():
    """Forward KL from uniform to (q, 1-q): ``xdot = 2 (q - sigma(x))``, so ``x`` ends at ``logit q``; small times are linear."""
    path = flows.distillation_flow([0.0, 0.0], np.log([0.9, 0.1]), "forward_kl", [1e-6, 1e4])
    assert path[0, 0] - path[0, 1] == pytest.approx(0.8e-6, rel=1e-5)
    np.testing.assert_allclose(np.exp(path[1]), [0.9, 0.1], rtol=1e-9)


def test_hard_labels_of_two_outcomes():
    """``D + e^-D``... exactly: ``D' = 2 / (1 + e^D)``, so ``D + e^D = D0 + e^D0 + 2 t``."""
    path = flows.distillation_flow([0.3, 0.0], THREE[:2] - math.log(0.8), "hard_ce", [1.0, 50.0])
    gap = path[:, 0] - path[:, 1]
    np.testing.assert_allclose(gap + np.exp(gap), 0.3 + math.exp(0.3) + 2 * np.array([1.0, 50.0]), rtol=1e-8)


def test_final_rate_of_two_and_of_equal():
    assert flows.final_rate(np.log([0.9, 0.1])) == pytest.approx(2 * 0.9 * 0.1)
    np.testing.assert_allclose(flows.final_rate(np.log(np.full((2, 5), 0.2))), 0.2)


def test_spread_time_is_the_flow():
    n, m, rest = 5, 0.4, 0.02
    start, aim = np.log(np.r_[1 - rest, np.full(4, rest / 4)]), np.log(np.r_[m, np.full(4, 0.15)])
    for loss in ("forward_kl", "reverse_kl"):
        time = flows.spread_time(rest, m, n, loss, share=0.7)
        assert float(entropy(flows.distillation_flow(start, aim, loss, [time])[0])) == pytest.approx(
            0.7 * float(entropy(aim)), rel=1e-8
        )
    assert flows.spread_time(0.59, 0.4, n, "forward_kl") == 0.0
    tiny = flows.spread_time(1e-200, 0.4, n, "forward_kl")  # n/(n-1) (1-m) t = log 1/rest
    assert tiny == pytest.approx(4 / 5 / 0.6 * 200 * math.log(10), rel=0.01)


def test_score_variance_by_hand():
    """Two outcomes: the score is (q, -q) or (-p, p); its square 2 q² or 2 p²."""
    p, q, w = 0.3, 0.7, np.array([2.0, -1.0])
    mean = p * 2.0 * q + q * 1.0 * p
    exact = p * 4 * 2 * q * q + q * 1 * 2 * p * p - 2 * mean**2
    assert flows.score_variance(np.log([p, q]), w) == pytest.approx(exact)


def test_binned_gaussian_by_hand_and_far_away():
    np.testing.assert_allclose(
        np.exp(bg.binned_gaussian(1.0, 0.0, 3)), np.exp([-0.5, 0, -0.5]) / (1 + 2 * math.exp(-0.5))
    )
    far = np.exp(bg.binned_gaussian([-1e5, 1e5], 0.0, 4))
    np.testing.assert_allclose(far, [[1, 0, 0, 0], [0, 0, 0, 1]], atol=1e-300)
    assert bg.binned_gaussian([1.0, 2.0], [[0.0], [1.0], [2.0]], 7).shape == (3, 2, 7)


@pytest.mark.parametrize("loss", flows.LOSSES)
def test_gaussian_gradient_by_differences(loss):
    teacher = log_normalize(np.random.default_rng(1).standard_normal((2, 9)))
    mean, width, h = np.array([3.3, 5.0]), np.array([0.2, 1.0]), 1e-6
    _, gradient, log_pi = bg.gaussian_gradient(mean, width, teacher, loss)
    np.testing.assert_allclose(log_pi, bg.binned_gaussian(mean, width, 9), atol=1e-14)
    for k, (dm, dw) in enumerate(((h, 0), (0, h))):
        ends = [bg.gaussian_gradient(mean + s * dm, width + s * dw, teacher, loss)[0] for s in (1, -1)]
        np.testing.assert_allclose(gradient[:, k], (ends[0] - ends[1]) / (2 * h), atol=1e-8)


@pytest.mark.parametrize("loss", flows.LOSSES)
def test_project_beats_nelder_mead(loss):
    rng = np.random.default_rng(2)
    for _ in range(5):
        teacher = log_normalize(1.5 * rng.standard_normal(12))
        found = bg.project(teacher, loss)
        for start in ((2.0, 0.0), (6.0, 1.0), (10.0, 0.0), (6.0, -1.0)):

            def value(v, teacher=teacher):
                return float(bg.gaussian_gradient(v[0], np.clip(v[1], *bg.LOG_WIDTHS), teacher, loss)[0])

            other = minimize(value, start, method="Nelder-Mead")
            assert found.value <= other.fun + 1e-6
        assert bg.LOG_WIDTHS[0] <= found.log_width <= bg.LOG_WIDTHS[1]


def test_project_inside_the_class():
    found = bg.project(bg.binned_gaussian(7.25, 0.6, 20), "reverse_kl")
    assert (found.mean, found.log_width, found.value) == pytest.approx((7.25, 0.6, 0.0), abs=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: flows.distillation_force(HALF, HALF, "kl"), "loss = 'kl'"),
        (lambda: flows.distillation_force(HALF, [0.0, -math.inf], "reverse_kl"), "log_policy.*has mass"),
        (lambda: flows.distillation_force([1.0, 2.0], HALF, "forward_kl"), "log_policy"),
        (lambda: flows.distillation_force(HALF, [1.0, 2.0], "hard_ce"), "log_teacher"),
        (lambda: flows.entropy_rate(HALF, [math.inf, 0.0]), "force"),
        (lambda: flows.distillation_flow([0.0, 0.0], THREE, "forward_kl", [1.0]), "log_teacher: must have the shape"),
        (lambda: flows.distillation_flow([0.0, 0.0], HALF, "forward_kl", [2.0, 1.0]), "times"),
        (lambda: flows.distillation_flow([0.0, 0.0], HALF, "forward_kl", []), "times"),
        (lambda: flows.distillation_flow([0.0, 0.0], [0.0, -math.inf], "reverse_kl", [1.0]), "log_teacher: needs full"),
        (lambda: flows.distillation_flow([0.0, math.nan], HALF, "forward_kl", [1.0]), "logits"),
        (lambda: flows.final_rate([0.0, -math.inf]), "log_teacher.*needs full"),
        (lambda: flows.final_rate([0.0]), "log_teacher: needs full"),
        (lambda: flows.spread_time(0.7, 0.4, 5, "forward_kl"), "rest must lie|rest = 0.7"),
        (lambda: flows.spread_time(0.1, 0.1, 5, "forward_kl"), "teacher_mass"),
        (lambda: flows.spread_time(0.1, 0.4, 1, "forward_kl"), "actions"),
        (lambda: flows.spread_time(0.1, 0.4, 5, "hard_ce"), "loss"),
        (lambda: flows.score_variance(HALF, [1.0, 2.0, 3.0]), "weight"),
        (lambda: bg.binned_gaussian(math.nan, 0.0, 5), "mean"),
        (lambda: bg.binned_gaussian(0.0, 60.0, 5), "log_width"),
        (lambda: bg.binned_gaussian(0.0, 0.0, 0), "bins"),
        (lambda: bg.gaussian_gradient(0.0, 0.0, [0.0, -math.inf], "forward_kl"), "log_teacher"),
        (lambda: bg.project(np.stack([HALF, HALF]), "forward_kl"), "log_teacher"),
        (lambda: bg.project(HALF, "forward_kl", start=(1.0,)), "start"),
        (lambda: bg.project(HALF, "forward_kl", start=(math.inf, 0.0)), "start"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_mean_of_a_million_is_the_largest():
    assert np.isfinite(bg.binned_gaussian(1e6, 0.0, 2)).all()
    with pytest.raises(ValueError, match="mean"):
        bg.binned_gaussian(1e6 + 0.5, 0.0, 2)
