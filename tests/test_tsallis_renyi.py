"""Tsallis and Rényi optima, entropy beside KL: against grids, bisection, cvxpy; extremes; bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from klsim.distributions import entropy, expectation, log_normalize
from klsim.divergences import chi2, kl, renyi
from klsim.optima import kl_regularized
from klsim.tsallis_renyi import entmax, kl_and_entropy_regularized, renyi_regularized, tsallis, tsallis_regularized

RNG = np.random.default_rng(3)
LAW, REWARD = log_normalize(RNG.standard_normal(5)), RNG.standard_normal(5)


def test_the_divergence():
    p, q = np.exp(LAW), np.full(5, 0.2)
    for order in (0.3, 2.5, 7.0):
        np.testing.assert_allclose(
            tsallis(LAW, np.log(q), order), (np.sum(p**order * q ** (1 - order)) - 1) / (order - 1), rtol=1e-12
        )
    np.testing.assert_allclose(tsallis(LAW, np.log(q), 2.0), chi2(LAW, np.log(q)), rtol=1e-12)
    np.testing.assert_allclose(tsallis(LAW, np.log(q), 1.0), kl(LAW, np.log(q)), rtol=1e-14)


@pytest.mark.parametrize("order", [0.4, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("eta", [1e-6, 0.1, 1.0, 1e4])
def test_entmax_by_its_threshold(order, eta):
    found = entmax(REWARD, eta, order)
    if order == 1:
        np.testing.assert_allclose(found.log_policy, log_normalize(REWARD / eta), atol=1e-9)
        np.testing.assert_allclose(
            found.value, eta * np.log(np.exp(REWARD / eta - REWARD.max() / eta).sum()) + REWARD.max()
        )
        return
    c, power = (order - 1) / (eta * order), 1 / (order - 1)

    def policy(threshold):
        inside = c * (REWARD - threshold)
        return np.where(inside > 0, np.abs(inside) ** power, 0.0)

    if order > 1:
        threshold = brentq(lambda x: policy(x).sum() - 1, REWARD.max() - (1 + 1e-6) / c, REWARD.max(), xtol=1e-15)
    else:
        ends = REWARD.max() + np.array([1e-3, 5.0 ** (1 - order)]) / abs(c)
        threshold = brentq(
            lambda x: policy(x).sum() - 1,
            ends[0] if policy(ends[0]).sum() > 1 else REWARD.max() + 1e-14,
            ends[1],
            xtol=1e-15,
        )
    wanted = policy(threshold)
    np.testing.assert_allclose(np.exp(found.log_policy), wanted / wanted.sum(), atol=3e-8)
    value = np.exp(found.log_policy) @ REWARD + eta * (1 - np.sum(np.exp(order * found.log_policy))) / (order - 1)
    np.testing.assert_allclose(found.value, value, rtol=1e-9)
    assert found.gap <= 1e-9 * (1 + eta)


def test_sparsemax_of_a_hand():
    np.testing.assert_allclose(np.exp(entmax([0.5, 0.0, -1.0], 0.5, 2.0).log_policy), [0.75, 0.25, 0.0], atol=1e-15)


def grid(size, parts):
    rows = [c for c in itertools.product(range(parts + 1), repeat=size - 1) if sum(c) <= parts]
    p = np.array([[*row, parts - sum(row)] for row in rows]) / parts
    with np.errstate(divide="ignore"):
        return np.log(p)


@pytest.mark.parametrize("order", [0.2, 0.7, 1.0, 1.2, 2.0, 5.0, np.inf])
@pytest.mark.parametrize("beta", [0.03, 0.2, 1.0])
def test_no_policy_of_a_grid_does_better_than_the_renyi_optimum(order, beta):
    log_ref, reward = np.log([0.9, 0.06, 0.04]), np.array([0.0, 0.5, 1.0])
    found = renyi_regularized(log_ref, reward, beta, order)
    policies = grid(3, 200)
    values = expectation(policies, reward) - beta * renyi(policies, log_ref, order)
    assert values.max() <= found.value + 1e-12
    assert values.max() >= found.value - 0.1 * beta - 0.02  # the grid comes near: the value is reached
    assert found.gap <= 1e-11
    assert found.converged
    np.testing.assert_allclose(found.value, found.reward - beta * renyi(found.log_policy, log_ref, order), atol=1e-13)


@pytest.mark.parametrize("order", [0.3, 1.7, 4.0])
@pytest.mark.parametrize(
    ("scale", "beta"), [(1e-8, 1e-8), (1e8, 1e8), (1.0, 1e-6), (1.0, 1e6), (1.0, 1e12), (1.0, 0.3)]
)
def test_renyi_at_extremes(order, scale, beta):
    found = renyi_regularized(LAW, scale * REWARD, beta, order)
    assert found.gap <= 1e-11 * (beta + scale)
    assert found.converged
    lam = found.reward - beta * order / (order - 1)
    ratio = (found.log_policy - LAW)[found.log_policy > -20]
    assert np.all(np.isfinite(ratio))
    if beta <= 10 * scale:  # where lam is not far away its family can be formed
        inside = (scale * REWARD - lam) * np.sign(order - 1)
        with np.errstate(divide="ignore"):
            wanted = log_normalize(LAW + np.log(np.maximum(inside, 0)) / (order - 1))
        np.testing.assert_allclose(np.exp(found.log_policy), np.exp(wanted), atol=1e-7)


@pytest.mark.parametrize("order", [1 - 1e-6, 1 + 1e-6])
def test_near_order_one_it_is_kl(order):
    np.testing.assert_allclose(
        renyi_regularized(LAW, REWARD, 0.5, order).value, kl_regularized(LAW, REWARD, 0.5).value, atol=1e-5
    )


def test_the_largest_order_is_a_threshold():
    log_ref = np.log([0.5, 0.3, 0.15, 0.05])
    found = renyi_regularized(log_ref, [0.0, 1.0, 2.0, 3.0], 0.4, np.inf)
    values = [
        np.exp(log_ref[k:]) @ np.arange(k, 4) / np.exp(log_ref[k:]).sum() + 0.4 * np.log(np.exp(log_ref[k:]).sum())
        for k in range(4)
    ]
    np.testing.assert_allclose(found.value, max(values), rtol=1e-14)
    kept = np.isfinite(found.log_policy)
    assert np.ptp((found.log_policy - log_ref)[kept]) < 1e-14


def test_batches_support_and_one_action():
    pair = renyi_regularized([LAW, LAW[::-1]], [REWARD, REWARD[::-1]], 0.3, 2.0)
    np.testing.assert_allclose(pair.log_policy[0], pair.log_policy[1][::-1], atol=1e-12)
    alone = renyi_regularized([0.0, -np.inf], [1.0, 5.0], 0.3, 2.0)
    assert alone.value == 1.0
    assert np.isneginf(alone.log_policy[1])
    flat = renyi_regularized(LAW, np.zeros(5), 0.3, 0.5)
    np.testing.assert_allclose(flat.log_policy, LAW, atol=1e-14)


def test_entropy_beside_kl_by_a_generic_optimiser():
    beta, eta = 0.3, 0.5
    found = kl_and_entropy_regularized(LAW, REWARD, beta, eta)

    def loss(x):
        p = log_normalize(x)
        return -(expectation(p, REWARD) - beta * kl(p, LAW) + eta * entropy(p))

    np.testing.assert_allclose(found.value, -minimize(loss, LAW, method="BFGS", options={"gtol": 1e-9}).fun, rtol=1e-9)
    np.testing.assert_allclose(found.value, -loss(found.log_policy), rtol=1e-12)
    np.testing.assert_allclose(
        kl_and_entropy_regularized(LAW, REWARD, beta, 0.0).log_policy,
        kl_regularized(LAW, REWARD, beta).log_policy,
        atol=1e-14,
    )
    batch = kl_and_entropy_regularized(LAW, np.stack([REWARD, -REWARD]), [0.1, 1.0], [1e-12, 1e12])
    assert np.isfinite(batch.value).all()
    assert np.isneginf(kl_and_entropy_regularized([0.0, -np.inf], [0, 1.0], 1.0, 1.0).log_policy[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tsallis(LAW, LAW, 0.0), "order"),
        (lambda: tsallis_regularized(LAW, REWARD, -1.0, 2.0), "beta = -1"),
        (lambda: tsallis_regularized(LAW, REWARD, 1.0, np.nan), "order"),
        (lambda: entmax(REWARD, 0.0, 2.0), "eta"),
        (lambda: entmax(np.zeros(1000), 1.0, 200.0), "order"),
        (lambda: renyi_regularized(LAW, REWARD, 1.0, 0.0), "order"),
        (lambda: renyi_regularized(LAW, REWARD, 1.0, 2000.0), "order"),
        (lambda: renyi_regularized(LAW, REWARD, 0.0, 2.0), "beta"),
        (lambda: renyi_regularized(LAW, [np.inf] * 5, 1.0, 2.0), "reward"),
        (lambda: kl_and_entropy_regularized(LAW, REWARD, 1.0, -1.0), "eta"),
        (lambda: kl_and_entropy_regularized(LAW, REWARD, 0.0, 1.0), "beta"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
