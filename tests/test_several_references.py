"""Penalties to several references: hand-worked cases, the definition, other solvers, doors."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.divergences import kl, renyi
from klsim.optima import kl_regularized
from klsim.several_references import disagreement, kl_regularized_to_several

P1, P2 = np.log([0.7, 0.2, 0.1]), np.log([0.1, 0.2, 0.7])


class TestDisagreement:
    def test_worked_by_hand(self):
        # sqrt(.07) + .2 + sqrt(.07)
        assert disagreement([P1, P2], [0.5, 0.5]) == pytest.approx(-math.log(2 * math.sqrt(0.07) + 0.2), rel=1e-15)
        assert disagreement([P1, P1, P1], [0.2, 0.3, 0.5]) == pytest.approx(0.0, abs=1e-15)

    def test_it_is_a_renyi_divergence(self):
        for w in (0.2, 0.5, 0.9, 1.4):
            assert disagreement([P1, P2], [1 - w, w]) == pytest.approx((1 - w) * renyi(P2, P1, w), rel=1e-13)

    def test_it_is_the_least_average_kl(self):
        rng = np.random.default_rng(0)
        models = list(log_normalize(2 * rng.standard_normal((3, 6))))
        weights = [0.2, 0.3, 0.5]
        others = log_normalize(rng.standard_normal((500, 6)))
        assert np.all(sum(w * kl(others, p) for w, p in zip(weights, models)) >= disagreement(models, weights))

    def test_far_apart(self):
        p, q = log_normalize(np.array([0.0, -600.0])), log_normalize(np.array([-600.0, 0.0]))
        with mpmath.workdps(50):
            exact = -mpmath.log(2 * mpmath.exp(-300) / (1 + mpmath.exp(-600)))
        assert disagreement([p, q], [0.5, 0.5]) == pytest.approx(float(exact), rel=1e-15)

    def test_a_batch_is_its_rows(self):
        rng = np.random.default_rng(1)
        p, q, w = *log_normalize(rng.standard_normal((2, 5, 4))), rng.uniform(-1, 2, 5)
        one_by_one = [disagreement([p[i], q[i]], [1 - w[i], w[i]]) for i in range(5)]
        np.testing.assert_allclose(disagreement([p, q], [1 - w, w]), one_by_one, rtol=1e-14)


class TestOptimum:
    def test_one_reference_is_the_usual_optimum(self):
        ours, usual = kl_regularized_to_several([P1], [1.0], [0, 1, 0.3], 0.5), kl_regularized(P1, [0, 1, 0.3], 0.5)
        for field in ("log_policy", "value", "reward", "kl"):
            np.testing.assert_allclose(getattr(ours, field), getattr(usual, field), rtol=1e-14)

    def test_worked_by_hand(self):
        found = kl_regularized_to_several([P1, P2], [0.5, 0.5], [0, 1, 0.3], 0.5)
        weight = np.array([math.sqrt(0.07), 0.2 * math.exp(2), math.sqrt(0.07) * math.exp(0.6)])
        np.testing.assert_allclose(np.exp(found.log_policy), weight / weight.sum(), rtol=1e-14)
        assert found.value == pytest.approx(0.5 * math.log(weight.sum()), rel=1e-14)

    def test_against_an_optimiser_and_its_own_definition(self):
        rng = np.random.default_rng(2)
        models, reward = list(log_normalize(rng.standard_normal((3, 5)))), rng.standard_normal(5)
        weights = [0.5, 0.8, -0.3]

        def value(logits):
            pi = log_normalize(logits)
            return np.exp(pi) @ reward - 0.4 * sum(w * kl(pi, p) for w, p in zip(weights, models))

        found = kl_regularized_to_several(models, weights, reward, 0.4)
        best = minimize(lambda z: -value(z), np.zeros(5), method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose(np.exp(found.log_policy), np.exp(log_normalize(best.x)), atol=1e-6)
        assert found.value == pytest.approx(value(found.log_policy), rel=1e-13)
        assert found.kl == pytest.approx(sum(w * kl(found.log_policy, p) for w, p in zip(weights, models)), rel=1e-13)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (-3.0, 4.0), (1.5, -2.5, 2.0)])
def test_weights_sum_to_one_up_to_rounding_of_their_size(weights):
    """Up to the square root of epsilon times one and the sum of absolute weights."""
    slack = 2.0**-26 * (1 + sum(map(abs, weights)))
    models = [P1, P2, P1][: len(weights)]
    found = disagreement(models, [weights[0] + 0.95 * slack, *weights[1:]])
    assert found == pytest.approx(disagreement(models, weights), abs=1e-5)
    with pytest.raises(ValueError, match="weights: must sum to 1"):
        disagreement(models, [weights[0] + 1.05 * slack, *weights[1:]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: disagreement([P1, P2], [0.5, 0.6]), "weights: must sum to 1"),
        (lambda: disagreement([P1, P2], [1.0]), "weights: one weight a policy"),
        (lambda: disagreement([], []), "weights: needs one"),
        (lambda: disagreement([P1, P2], [np.inf, -np.inf]), "weights"),
        (lambda: disagreement([P1, P2 + 1], [0.5, 0.5]), "log_policies"),
        (lambda: disagreement([P1, P2[:2]], [0.5, 0.5]), "log_policies"),
        (lambda: kl_regularized_to_several([P1, P2], [0.5, 0.5], [0, 1, 2], 0.0), "beta"),
        (lambda: kl_regularized_to_several([P1, P2], [0.5, 0.5], [0, 1, np.nan], 1.0), "reward"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
