"""Multiple importance sampling: by hand, against enumeration and simulation, at extremes, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.multiple_importance import combination_weights, combined_moments, minimum_variance_weights, mis_weight

HALF, SURE = np.log([0.5, 0.5]), np.array([0.0, -math.inf])
SKEWED = np.log([0.25, 0.75])


def draw(seed, behaviours=2, actions=5):
    rng = np.random.default_rng(seed)
    pi, *others = log_normalize(rng.standard_normal((behaviours + 1, actions)))
    return pi, others, rng.standard_normal(actions)


def test_weight_by_hand():
    np.testing.assert_allclose(mis_weight(HALF, [SKEWED, HALF]), [4 / 3, 0.8])
    np.testing.assert_allclose(mis_weight(HALF, [SURE, HALF]), [2 / 3, 2.0])
    np.testing.assert_array_equal(mis_weight(SURE, [SURE, SURE]), [1.0, 0.0])
    assert mis_weight(SURE, [HALF, SURE])[1] == 0.0


def test_combinations_by_hand():
    np.testing.assert_allclose(combination_weights([SKEWED, HALF])[0], [1 / 3, 0.6])
    np.testing.assert_allclose(combination_weights([SKEWED, HALF], power=2)[0], [1 / 5, 9 / 13])
    np.testing.assert_array_equal(combination_weights([SKEWED, HALF], power=math.inf)[0], [0.0, 1.0])
    np.testing.assert_array_equal(combination_weights([HALF, HALF], power=math.inf)[0], [0.5, 0.5])
    np.testing.assert_array_equal(combination_weights([SURE, HALF], power=0), np.full((2, 2), 0.5))
    np.testing.assert_array_equal(combination_weights([SURE, SURE]), [[0.5, 0.5], [0.5, 0.5]])


@given(st.integers(0, 1000), st.sampled_from([0.0, 1.0, 2.0, math.inf]))
def test_any_combination_is_unbiased(seed, power):
    pi, behaviours, values = draw(seed, behaviours=3)
    mean, variance = combined_moments(pi, behaviours, combination_weights(behaviours, power=power), values)
    assert mean == pytest.approx(np.exp(pi) @ values)
    assert variance >= 0


def test_moments_by_hand():
    """pi = p_1 = p_2 = (1/2, 1/2), A = (1, 0), equal weights: two coins, each worth 1/2."""
    mean, variance = combined_moments(HALF, [HALF, HALF], np.full((2, 2), 0.5), [1.0, 0.0])
    assert (mean, variance) == pytest.approx((0.5, 0.125))
    # what a behaviour never draws does not count
    mean, variance = combined_moments(HALF, [SURE], [[1.0, 1.0]], [1.0, 4.0])
    assert (mean, variance) == pytest.approx((0.5, 0.0))


def test_moments_of_samples():
    """Two hundred thousand pairs: within five standard errors."""
    pi, behaviours, values = draw(0)
    weights = combination_weights(behaviours)
    rng, n = np.random.default_rng(1), 200_000
    total = np.zeros(n)
    for log_p, w in zip(behaviours, weights):
        drawn = rng.choice(5, size=n, p=np.exp(log_p) / np.exp(log_p).sum())
        total += (w * values * np.exp(pi - log_p))[drawn]
    mean, variance = combined_moments(pi, behaviours, weights, values)
    assert abs(total.mean() - mean) < 5 * math.sqrt(variance / n)
    fourth = np.mean((total - total.mean()) ** 4)
    assert abs(total.var() - variance) < 5 * math.sqrt((fourth - variance**2) / n)


@pytest.mark.parametrize("seed", range(4))
def test_least_variance_by_search(seed):
    pi, behaviours, values = draw(seed, actions=4)
    best = minimum_variance_weights(pi, behaviours, values)
    np.testing.assert_allclose(best.sum(axis=0), 1.0)

    def variance(w):
        return float(combined_moments(pi, behaviours, np.stack([w, 1 - w]), values)[1])

    found = minimize(variance, combination_weights(behaviours)[0], method="BFGS", options={"gtol": 1e-12})
    assert variance(best[0]) <= found.fun + 1e-12
    assert variance(best[0]) == pytest.approx(found.fun, rel=1e-6)


def test_least_variance_at_extremes():
    # one author: nothing to choose; a value of 0: its weight does not matter; disjoint authors: 0 and 1
    np.testing.assert_array_equal(minimum_variance_weights(HALF, [HALF, HALF], [1.0, 2.0]), np.full((2, 2), 0.5))
    assert np.all(np.isfinite(minimum_variance_weights(HALF, [SKEWED, HALF], [0.0, 1.0])))
    apart = minimum_variance_weights(HALF, [SURE, np.array([-math.inf, 0.0])], [1.0, 2.0])
    np.testing.assert_array_equal(apart, [[1.0, 0.0], [0.0, 1.0]])


def test_batches():
    rng = np.random.default_rng(0)
    pi, one, two = log_normalize(rng.standard_normal((3, 6, 4)))
    values = rng.standard_normal((6, 4))
    whole = combined_moments(pi, [one, two[0]], combination_weights([one, two[0]]), values)
    for i in range(6):
        single = combined_moments(pi[i], [one[i], two[0]], combination_weights([one[i], two[0]]), values[i])
        np.testing.assert_allclose([whole[0][i], whole[1][i]], single)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mis_weight(HALF, []), "log_behaviours: needs at least one"),
        (lambda: mis_weight(HALF, [SURE]), "log_pi.*no behaviour has any"),
        (lambda: mis_weight([0.0, 0.0], [HALF]), "log_pi"),
        (lambda: mis_weight(HALF, [HALF, [0.0, 0.0]]), r"log_behaviours\[1\]"),
        (lambda: mis_weight(HALF, [np.log([1 / 3] * 3)]), "last axes"),
        (lambda: combination_weights([HALF], power=-1.0), "power"),
        (lambda: combined_moments(HALF, [HALF], [[1.0, 1.0]] * 2, [1.0, 0.0]), "weights"),
        (lambda: combined_moments(HALF, [HALF], [[1.0, 1.0]], [math.nan, 0.0]), "values"),
        (lambda: minimum_variance_weights(HALF, [HALF], [1.0, 0.0]), "log_behaviours: must be two"),
        (lambda: minimum_variance_weights(HALF, [SURE, SURE], [1.0, 0.0]), "no behaviour has any"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
