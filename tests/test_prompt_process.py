"""Jointly Gaussian prompts: against the Gaussian optimum, splits by search, the estimate's expectation, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.gaussian import QuadraticReward, gaussian_constrained
from klsim.prompt_process import kernel_matrix, separate_policies, shared_policy, spread

POINTS = np.array([0.0, 0.3, 1.0, 4.0])
KERNEL = kernel_matrix(POINTS, 1.0, 1.5) * np.outer([1, 2, 0.5, 1], [1, 2, 0.5, 1])
WEIGHTS = np.array([0.5, 0.3, 0.2, 0.0])


def test_the_shared_policy_is_the_gaussian_optimum():
    found = shared_policy(KERNEL, 0.8, WEIGHTS)
    best = gaussian_constrained(np.zeros(4), KERNEL, QuadraticReward(WEIGHTS, np.zeros((4, 4))), 0.8)
    np.testing.assert_allclose(found.gains, best.mean, rtol=1e-9)
    np.testing.assert_allclose(found.average, best.reward, rtol=1e-9)


def test_no_split_is_better():
    def loss(logits):
        share = np.exp(logits) / np.exp(logits).sum()
        return -np.sum(WEIGHTS[:3] * np.sqrt(2 * 0.8 * share / WEIGHTS[:3] * np.diag(KERNEL)[:3]))

    best = separate_policies(KERNEL, 0.8, WEIGHTS)
    np.testing.assert_allclose(
        best.average, -minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-10}).fun, rtol=1e-9
    )
    np.testing.assert_allclose(WEIGHTS @ best.budgets, 0.8, rtol=1e-14)
    equal = separate_policies(KERNEL, 0.8, WEIGHTS, equal=True)
    np.testing.assert_allclose(equal.average, WEIGHTS @ np.sqrt(1.6 * np.diag(KERNEL)), rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_every_size(scale):
    np.testing.assert_allclose(
        shared_policy(scale * KERNEL, 0.8).gains, np.sqrt(scale) * shared_policy(KERNEL, 0.8).gains, rtol=1e-12
    )
    assert shared_policy(np.zeros((2, 2)), 1.0).average == 0 == separate_policies(np.zeros((2, 2)), 1.0).average
    assert shared_policy(KERNEL, 0.0).average == 0


def test_spread_of_given_rewards():
    x = np.array([[0.0, 2.0], [4.0, 8.0]])
    found = spread(x)
    assert found.within == 5.0
    assert found.between == 12.5 - 2.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shared_policy(-np.eye(2), 1.0), "semidefinite"),
        (lambda: shared_policy([[1.0, 0.5], [0.0, 1.0]], 1.0), "symmetric"),
        (lambda: shared_policy(np.eye(2), -1.0), "budget"),
        (lambda: shared_policy(np.eye(2), 1.0, [0.7, 0.7]), "weights"),
        (lambda: separate_policies(np.ones(3), 1.0), "kernel"),
        (lambda: kernel_matrix(POINTS, 0.0), "length"),
        (lambda: kernel_matrix([np.nan], 1.0), "points"),
        (lambda: spread(np.zeros((1, 4))), "rewards"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
