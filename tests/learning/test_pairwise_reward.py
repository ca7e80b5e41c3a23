"""Rewards from comparisons: against a generic optimiser, recovery, the law of winners, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.learning.pairwise_reward import fit_pairwise_reward, sample_comparisons


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("ridge", [1e-2, 2.0])
def test_the_penalised_likelihood_is_maximal(scale, ridge):
    rng = np.random.default_rng(0)
    won, lost = rng.integers(0, 5, (2, 3, 40))
    found = fit_pairwise_reward(won, lost, 5, ridge=ridge, scale=scale)
    for r, w, b in zip(found, won, lost):

        def loss(x, w=w, b=b):
            return np.sum(np.logaddexp(0, -scale * (x[w] - x[b]))) + ridge * x @ x

        np.testing.assert_allclose(r, minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x, atol=1e-5)


def test_separable_and_absent_outcomes():
    """0 always beats 1, 2 is never compared: finite, of the right sign, and 0."""
    found = fit_pairwise_reward([0] * 10**4, [1] * 10**4, 3, ridge=1e-3)
    assert found[0] == pytest.approx(-found[1])
    assert found[0] > 1
    assert found[2] == 0.0
    np.testing.assert_array_equal(
        fit_pairwise_reward(np.zeros((2, 0), dtype=int), np.zeros((2, 0), dtype=int), 3, ridge=1.0), 0.0
    )


def test_many_comparisons_recover_the_reward():
    reward = np.array([0.0, 0.3, 0.9])
    won, lost = sample_comparisons(np.log(np.full(3, 1 / 3)), reward, 200_000, 1, scale=2.0)
    found = fit_pairwise_reward(won, lost, 3, ridge=1e-3, scale=2.0)
    np.testing.assert_allclose(found - found.mean(), reward - reward.mean(), atol=0.03)  # 6 standard errors


def test_winners_follow_bradley_terry():
    won, lost = sample_comparisons(np.log([0.5, 0.5]), [1.0, 0.0], 100_000, 2, scale=1.5)
    apart = won != lost
    share = np.mean(won[apart] == 0)
    assert abs(share - 1 / (1 + np.exp(-1.5))) < 6 * 0.5 / np.sqrt(apart.sum())
    assert abs(np.mean(apart) - 0.5) < 6 * 0.5 / np.sqrt(100_000)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: fit_pairwise_reward([0, 3], [1, 1], 3, ridge=1.0), "winners"),
        (lambda: fit_pairwise_reward([0, 1], [1], 3, ridge=1.0), "losers"),
        (lambda: fit_pairwise_reward([0], [1], 3, ridge=0.0), "ridge"),
        (lambda: fit_pairwise_reward([0], [1], 3, ridge=1.0, scale=-1.0), "scale"),
        (lambda: sample_comparisons(np.log([0.5, 0.5]), [0.0, np.inf], 3, 0), "reward"),
        (lambda: sample_comparisons(np.log([0.5, 0.5]), [0.0, 1.0], -3, 0), "pairs"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_as_many_curvatures_as_sets_of_pairs_must_fit():
    """2 x 30,000^2 numbers are 13.4 GiB."""
    pairs = np.zeros((2, 1), dtype=int)
    with pytest.raises(ValueError, match=r"outcomes = 30000: would need 13\.4 GiB"):
        fit_pairwise_reward(pairs, pairs + 1, 30_000, ridge=1.0)
