"""Optima against generic solvers, mpmath, and their own duality gaps."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from klsim.distributions import expectation, log_normalize, tilt
from klsim.divergences import GENERATORS, f_divergence, kl
from klsim.optima import f_regularized, forward_kl_regularized, kl_constrained, kl_regularized

mpmath.mp.dps = 60
NAMES = sorted(GENERATORS)


def problem(seed, actions=5):
    rng = np.random.default_rng(seed)
    return log_normalize(1.5 * rng.standard_normal(actions)), rng.standard_normal(actions)


@pytest.mark.parametrize("beta", [1e-12, 1e-3, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_kl_and_value_at_60_digits(beta, scale):
    for seed in range(4):
        log_ref, reward = problem(seed)
        reward = reward * scale
        found = kl_regularized(log_ref, reward, beta)
        p = [mpmath.e ** mpmath.mpf(float(x)) for x in log_ref]
        p = [x / sum(p) for x in p]
        u = [mpmath.mpf(float(r)) / mpmath.mpf(beta) for r in reward]
        top = max(u)
        w = [a * mpmath.e ** (b - top) for a, b in zip(p, u)]
        pi = [x / sum(w) for x in w]
        value = mpmath.mpf(beta) * (mpmath.log(sum(w)) + top)
        divergence = sum(a * mpmath.log(a / b) for a, b in zip(pi, p) if a > 0)
        assert abs(float(found.value) - value) <= 1e-12 * max(
            abs(value), mpmath.mpf(max(abs(float(r)) for r in reward))
        )
        assert abs(float(found.kl) - divergence) <= 1e-11 * divergence + mpmath.mpf(10) ** -290


def test_gradients_of_the_value():
    log_ref, reward = problem(0)
    r, beta = torch.tensor(reward, requires_grad=True), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = kl_regularized(torch.tensor(log_ref), r, beta)
    found.value.backward()
    np.testing.assert_allclose(r.grad.numpy(), np.exp(tilt(log_ref, reward, 0.7)), atol=1e-14)
    assert float(beta.grad) == pytest.approx(-float(kl_regularized(log_ref, reward, 0.7).kl), rel=1e-12)


def test_the_reason_says_how_the_optimum_was_found():
    log_ref, reward = problem(1)
    found = f_regularized(log_ref, reward, 0.5, "chi2")
    assert found.converged
    assert found.reason == "dual root found"


class TestConstrained:
    def test_spends_the_budget(self):
        log_ref, reward = problem(1)
        limit = -float(log_ref[np.argmax(reward)])
        for budget in (1e-12, 1e-6, 0.01, 0.5 * limit, 0.999 * limit):
            found = kl_constrained(log_ref, reward, budget)
            assert float(found.kl) == pytest.approx(budget, rel=1e-9)
            assert found.converged
            # the dual b log E_ref e^(r/b) + b budget, up to the rounding of a logarithm near 0, times b
            beta, rounding = float(found.beta), 16 * 2.0**-52 * (1 + float(found.beta))
            dual = beta * np.logaddexp.reduce(log_ref + reward / beta) + beta * budget
            assert dual == pytest.approx(float(found.reward), abs=rounding)
            assert 0 <= found.gap <= rounding

    def test_boundary(self):
        log_ref, reward = np.log([0.2, 0.3, 0.5]), np.array([1.0, 1.0, 0.0])
        for budget in (math.log(2), 5.0, math.inf):
            found = kl_constrained(log_ref, reward, budget)
            np.testing.assert_allclose(np.exp(found.log_policy), [0.4, 0.6, 0.0], atol=1e-15)
            assert found.beta == 0
            assert "least-KL" in found.reason
            assert float(found.kl) == pytest.approx(math.log(2), rel=1e-14)
            assert found.gap == 0

    def test_zero_budget_and_constant_reward(self):
        log_ref, reward = problem(2)
        still = kl_constrained(log_ref, reward, 0.0)
        assert still.beta == math.inf
        np.testing.assert_allclose(still.log_policy, log_ref, atol=1e-15)
        constant = kl_constrained(log_ref, np.ones(5), 3.0)
        assert still.gap == constant.gap == 0
        np.testing.assert_allclose(constant.log_policy, log_ref, atol=1e-15)
        assert constant.beta == 0

    @pytest.mark.parametrize("scale", [1e-8, 1e8])
    def test_reward_scale_does_not_matter(self, scale):
        log_ref, reward = problem(3)
        plain, scaled = kl_constrained(log_ref, reward, 0.3), kl_constrained(log_ref, reward * scale, 0.3)
        np.testing.assert_allclose(plain.log_policy, scaled.log_policy, rtol=1e-10)

    def test_rewards_that_span_more_than_a_float_holds(self):
        log_ref, reward = log_normalize(np.array([0.0, 1.0, 0.5])), np.array([1.5, -1.5, 0.25])
        plain, wide = kl_constrained(log_ref, reward, 1.2), kl_constrained(log_ref, reward * 2.0**1023, 1.2)
        np.testing.assert_allclose(wide.log_policy, plain.log_policy, rtol=1e-10)
        np.testing.assert_allclose([wide.beta, wide.value], np.array([plain.beta, plain.value]) * 2.0**1023, rtol=1e-10)
        assert wide.gap <= 1e-9 * wide.beta

    def test_batch(self):
        log_ref = np.stack([problem(s)[0] for s in range(4)])
        reward = np.stack([problem(s)[1] for s in range(4)])
        budget = np.array([0.0, 0.1, 0.4, 100.0])
        found = kl_constrained(log_ref, reward, budget)
        for i in range(4):
            one = kl_constrained(log_ref[i], reward[i], budget[i])
            np.testing.assert_allclose(found.log_policy[i], one.log_policy, rtol=1e-10)

    def test_torch_in_torch_out(self):
        log_ref, reward = problem(4)
        found = kl_constrained(torch.tensor(log_ref), torch.tensor(reward), 0.3)
        assert isinstance(found.log_policy, torch.Tensor)
        np.testing.assert_allclose(
            found.log_policy.numpy(), kl_constrained(log_ref, reward, 0.3).log_policy, rtol=1e-14
        )


class TestFRegularized:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("beta", [0.1, 1.0, 20.0])
    def test_no_generic_solver_does_better_and_the_gap_is_closed(self, name, beta):
        for seed in range(3):
            log_ref, reward = problem(seed, 4)
            found = f_regularized(log_ref, reward, beta, name)
            assert found.converged
            assert float(found.gap) <= 1e-9 * beta

            def loss(z, log_ref=log_ref, reward=reward):
                log_p = log_normalize(z)
                return -float(expectation(log_p, reward) - beta * f_divergence(log_p, log_ref, name))

            other = minimize(
                loss, log_ref, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}
            )
            assert float(found.value) >= -other.fun - 1e-9

    def test_kl_agrees_with_the_closed_form(self):
        log_ref, reward = problem(5)
        a, b = f_regularized(log_ref, reward, 0.3, "kl"), kl_regularized(log_ref, reward, 0.3)
        np.testing.assert_allclose(a.log_policy, b.log_policy, rtol=1e-11)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("beta", [1e-12, 1e12])
    def test_extremes(self, name, beta):
        log_ref, reward = np.log([0.2, 0.3, 0.5, 1e-300]), np.array([0.0, 1.0, 1.0, -1.0])
        log_ref = log_normalize(log_ref)
        pi = np.exp(f_regularized(log_ref, reward, beta, name).log_policy)
        want = [0, 0.375, 0.625, 0] if beta < 1 else np.exp(log_ref)
        np.testing.assert_allclose(pi, want, atol=2e-6)  # alpha(-1) still spreads sqrt(beta)

    @pytest.mark.parametrize("name", NAMES)
    def test_zero_support_one_action_and_ties(self, name):
        gone = f_regularized(np.array([0.0, -np.inf]), [0.0, 9.0], 1.0, name)
        np.testing.assert_array_equal(np.exp(gone.log_policy), [1, 0])
        assert float(f_regularized(np.zeros(1), [3.0], 1.0, name).value) == pytest.approx(3.0)
        tie = f_regularized(np.log([0.3, 0.7]), [2.0, 2.0], 0.1, name)
        np.testing.assert_allclose(np.exp(tie.log_policy), [0.3, 0.7], rtol=1e-12)

    def test_chi2_drops_actions_and_forward_kl_never_does(self):
        log_ref, reward = np.log([0.5, 0.5]), np.array([0.0, 10.0])
        assert np.exp(f_regularized(log_ref, reward, 0.1, "chi2").log_policy[0]) == 0
        assert forward_kl_regularized(log_ref, reward, 0.1).log_policy[0] > -10

    def test_forward_kl_stationarity(self):
        log_ref, reward = problem(6)
        found = forward_kl_regularized(log_ref, reward, 0.4)
        multipliers = reward + 0.4 * np.exp(log_ref - found.log_policy)  # lambda = r + beta ref/pi
        np.testing.assert_allclose(multipliers, multipliers[0], rtol=1e-12)

    def test_total_variation_keeps_what_is_within_beta(self):
        found = f_regularized(np.log([0.2, 0.3, 0.5]), [0.0, 0.6, 1.0], 0.5, "tv")
        np.testing.assert_allclose(np.exp(found.log_policy), [0, 0.3, 0.7])

    def test_batched_over_leading_axes(self):
        log_ref = np.stack([problem(s)[0] for s in range(6)]).reshape(2, 3, 5)
        reward = np.stack([problem(s)[1] for s in range(6)]).reshape(2, 3, 5)
        found = f_regularized(log_ref, reward, np.array([0.1, 1.0, 10.0]), "js")
        assert found.value.shape == (2, 3)
        one = f_regularized(log_ref[1, 2], reward[1, 2], 10.0, "js")
        np.testing.assert_allclose(found.log_policy[1, 2], one.log_policy, rtol=1e-10)
        assert float(kl(found.log_policy[1, 2], one.log_policy)) < 1e-18


def test_results_show_themselves_briefly():
    log_ref = np.log(np.full(3, 1 / 3))
    one = kl_regularized(log_ref, [0.0, 1.0, 2.0], 1.0)
    assert repr(one).startswith("Optimum(log_policy=[-2.408, -1.408, -0.4076], value=1.309, reward=1.575, kl=0.2662, ")
    many = kl_regularized(np.tile(log_ref, (50, 1)), np.ones(3), np.full(50, 2.0))
    assert "log_policy=array (50, 3), value=array (50,)" in repr(many)
    assert len(repr(many)) < 200
    assert "<tr><th>kl</th><td>0.2662</td></tr>" in one._repr_html_()
