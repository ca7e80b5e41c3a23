"""The forward KL with entropy over all policies: hand-worked cases, other solvers, extremes, doors."""

from __future__ import annotations

import math
import sys

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.distributions import entropy, log_normalize
from klsim.divergences import kl
from klsim.forward_kl import escape_mass, forward_kl_with_entropy, reweighted
from klsim.optima import forward_kl_regularized

HAT = np.log([0.6, 0.3, 0.1])


def log(*p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def rows(seed, count=200, size=5, zeros=True):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((count, size))
    if zeros:
        logits[:, 1:][rng.random((count, size - 1)) < 0.3] = -np.inf
    return log_normalize(logits), rng.standard_normal((count, size)), rng.uniform(0.05, 2, count), rng


class TestOptimum:
    def test_worked_by_hand(self):
        # binary reward outside: mass 1 - a; two responses inside share a in proportion to the reference
        found = forward_kl_with_entropy(log(0.25, 0.75, 0.0), [0.0, 0.0, 1.0], 0.4)
        np.testing.assert_allclose(np.exp(found.log_policy), [0.1, 0.3, 0.6], rtol=1e-15)
        assert found.kl == math.inf
        assert found.converged

    def test_without_entropy_and_with_full_support_it_is_the_forward_kl_optimum(self):
        log_ref, reward, alpha, _ = rows(0, zeros=False)
        ours, theirs = forward_kl_with_entropy(log_ref, reward, alpha), forward_kl_regularized(log_ref, reward, alpha)
        np.testing.assert_allclose(ours.log_policy, theirs.log_policy, rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-13, atol=1e-14)  # terms of order one

    @pytest.mark.parametrize("bonus", [0.0, 0.05, 1.0])
    def test_the_gap_certifies_it_and_no_policy_is_better(self, bonus):
        log_ref, reward, alpha, rng = rows(1)
        found = forward_kl_with_entropy(log_ref, reward, alpha, bonus)
        assert found.converged
        assert np.all(found.gap < 1e-12)
        for size in (1e-3, 0.1, 2.0):
            near = np.where(np.isneginf(found.log_policy), -40.0, found.log_policy)
            other = log_normalize(near + size * rng.standard_normal(log_ref.shape))
            value = np.sum(np.exp(other) * reward, axis=-1) - alpha * kl(log_ref, other) + bonus * entropy(other)
            assert np.all(value <= found.value + 1e-12)

    def test_against_an_optimiser(self):
        def loss(logits):
            other = log_normalize(logits)
            return -float(np.exp(other) @ reward - 0.3 * kl(hat, other) + 0.2 * entropy(other))

        hat, reward = log(0.6, 0.4, 0.0), np.array([0.5, 0.2, 0.0])
        found = forward_kl_with_entropy(hat, reward, 0.3, 0.2)
        best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose(np.exp(found.log_policy), np.exp(log_normalize(best.x)), atol=1e-6)

    def test_fifty_digits(self):
        hat, reward, a, b = (
            [mpmath.mpf(10) ** -200, 1 - mpmath.mpf(10) ** -200],
            [1, 0],
            mpmath.mpf("1e-3"),
            mpmath.mpf("1e-2"),
        )
        found = forward_kl_with_entropy(np.array([-200 * math.log(10), 0.0]), reward, 1e-3, 1e-2)
        with mpmath.workdps(60):

            def policy(x):  # lambda = 1 + x
                cs = [a * h / b for h in hat]
                return [c / mpmath.lambertw(c * mpmath.exp((1 + x - r) / b)) for c, r in zip(cs, reward)]

            x = mpmath.findroot(
                lambda x: sum(policy(x)) - 1, (mpmath.mpf("1e-5"), mpmath.mpf("2e-3")), solver="anderson"
            )
            for ours, exact in zip(found.log_policy, policy(x)):
                assert float(ours) == pytest.approx(float(mpmath.log(exact)), rel=1e-12)

    @pytest.mark.parametrize("entropy", [0.0, 1e-300, 1e-10, 1e10])
    @pytest.mark.parametrize("alpha", [1e-300, 1e-10, 1.0, 1e10, 1e300])
    @pytest.mark.parametrize("span", [0.0, 1.0, 1e300])
    def test_extremes(self, alpha, entropy, span):
        for hat in (log(0.5, 0.5, 0.0), np.array([-690.0, 0.0, -math.inf])):
            found = forward_kl_with_entropy(hat, [span, 0.0, span / 2], alpha, entropy)
            assert found.converged, found.reason
            assert np.exp(found.log_policy).sum() == pytest.approx(1.0, abs=1e-12)
            assert np.isfinite(found.value)

    def test_several_best_outside_share_equally(self):
        found = forward_kl_with_entropy(log(1.0, 0.0, 0.0, 0.0), [0.0, 1.0, 1.0, 0.5], 0.5)
        np.testing.assert_allclose(np.exp(found.log_policy), [0.5, 0.25, 0.25, 0.0], rtol=1e-15)

    def test_a_batch_is_its_rows(self):
        log_ref, reward, alpha, rng = rows(2, count=20)
        bonus = np.where(rng.random(20) < 0.5, 0.0, 0.3)
        together = forward_kl_with_entropy(log_ref, reward, alpha, bonus).log_policy
        alone = [forward_kl_with_entropy(*one).log_policy for one in zip(log_ref, reward, alpha, bonus)]
        np.testing.assert_array_equal(together, np.stack(alone))


class TestEscapeMass:
    def test_is_the_mass_of_the_optimum(self):
        log_ref, reward, alpha, _ = rows(3)
        gone = np.isneginf(log_ref)
        found = forward_kl_with_entropy(log_ref, reward, alpha).log_policy
        np.testing.assert_allclose(
            escape_mass(log_ref, reward, alpha), np.where(gone, np.exp(found), 0).sum(-1), atol=1e-13
        )

    def test_worked_by_hand(self):
        assert escape_mass(log(0.6, 0.4, 0.0), [0.2, 0.5, 1.0], 0.3) == pytest.approx(1 - 0.3 * (0.6 / 0.8 + 0.4 / 0.5))
        assert escape_mass(log(0.7, 0.3, 0.0), [0.0, 0.5, 1.0], 1.5) == 0.0
        assert escape_mass(log(0.6, 0.4, 0.0), [0.2, 0.5, 0.5], 0.3) == 0.0


class TestReweighted:
    def test_worked_by_hand(self):
        np.testing.assert_allclose(np.exp(reweighted(log(0.64, 0.36, 0.0), 0.5)), [0.8 / 1.4, 0.6 / 1.4, 0.0])
        np.testing.assert_allclose(np.exp(reweighted(log(0.25, 0.75), [1.0, 0.0])), [0.2, 0.8])
        np.testing.assert_allclose(np.exp(reweighted(log(0.6, 0.4, 0.0), 0.0)), [0.5, 0.5, 0.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: forward_kl_with_entropy(HAT, [0, 1, 2], 0.0), "alpha"),
        (lambda: forward_kl_with_entropy(HAT, [0, 1, 2], 1.0, -0.1), "entropy"),
        (lambda: forward_kl_with_entropy(HAT, [0, 1, np.inf], 1.0), "reward"),
        (lambda: forward_kl_with_entropy(HAT, [0, 1], 1.0), "reward"),
        (lambda: forward_kl_with_entropy(HAT + 1, [0, 1, 2], 1.0), "log_ref"),
        (lambda: forward_kl_with_entropy(HAT, [-1e308, 1e308, 0], 1.0), "reward"),
        (lambda: forward_kl_with_entropy(HAT, [0, 1, 2], 1e308), "alpha"),
        (lambda: forward_kl_with_entropy(HAT, [0, 1, 2], 1.0, sys.float_info.max / (3.99 + math.log(6))), "entropy"),
        (lambda: escape_mass(HAT, [0, 1, 2], -1.0), "alpha"),
        (lambda: reweighted(HAT, -1.0), "exponent"),
        (lambda: reweighted(HAT, [1.0, 2.0]), "exponent"),
        (lambda: reweighted(HAT, np.inf), "exponent"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
