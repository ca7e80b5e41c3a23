"""Weighted k3 penalties: by hand, by differences, without weight, self-consistent success, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.learning import asymmetric_kl as ak
from klsim.optima import forward_kl_regularized


def drawn(seed, arms=5):
    rng = np.random.default_rng(seed)
    pi, ref = log_normalize(rng.standard_normal((2, arms)))
    return pi, ref, rng.standard_normal(arms), rng.uniform(0.05, 2, arms), float(rng.uniform(0.05, 2))


def test_equal_weights_are_the_forward_kl():
    pi, ref, r, _, beta = drawn(0)
    same = forward_kl_regularized(ref, r, beta)
    found = ak.asymmetric_optimum(ref, r, np.ones(5), beta)
    np.testing.assert_allclose(found.log_policy, same.log_policy, atol=1e-12)
    np.testing.assert_allclose(ak.asymmetric_gradient(pi, ref, 0 * r, np.ones(5), 1.0), np.exp(ref) - np.exp(pi))
    gap = ak.asymmetric_value(found.log_policy, ref, r, np.ones(5), beta) - ak.asymmetric_value(
        pi, ref, r, np.ones(5), beta
    )
    plain = [np.exp(x) @ r - beta * kl(ref, x) for x in (found.log_policy, pi)]
    assert gap == pytest.approx(plain[0] - plain[1], abs=1e-12)


@given(st.integers(0, 200))
def test_the_optimum_has_no_gradient_and_the_closed_form(seed):
    pi, ref, r, w, beta = drawn(seed)
    found = ak.asymmetric_optimum(ref, r, w, beta)
    assert found.converged
    assert np.abs(ak.asymmetric_gradient(found.log_policy, ref, r, w, beta)).max() < 1e-13
    c = beta * w * np.exp(ref - found.log_policy) + r - beta * w
    np.testing.assert_allclose(c, c[0], rtol=1e-9)
    assert ak.asymmetric_value(pi, ref, r, w, beta) <= ak.asymmetric_value(found.log_policy, ref, r, w, beta)


def test_gradient_by_differences_and_batches():
    pi, ref, r, w, beta = drawn(3)
    ends = [
        [ak.asymmetric_value(log_normalize(pi + s * e), ref, r, w, beta) for s in (1, -1)] for e in 1e-6 * np.eye(5)
    ]
    found = ak.asymmetric_gradient(pi, ref, r, w, beta)
    np.testing.assert_allclose(found, [(a - b) / 2e-6 for a, b in ends], atol=1e-8)
    both = ak.asymmetric_gradient(np.stack([pi, ref]), ref, r, w, [beta, 2 * beta])
    np.testing.assert_allclose(both[0], found)
    np.testing.assert_allclose(both[1], ak.asymmetric_gradient(ref, ref, r, w, 2 * beta))
    assert ak.asymmetric_optimum(np.stack([ref, pi]), r, w, beta).log_policy.shape == (2, 5)


def test_an_answer_without_weight():
    ref = np.log([0.5, 0.3, 0.2])
    lost = ak.asymmetric_optimum(ref, [0.0, 0.0, -1.0], [1.0, 1.0, 0.0], 0.5)
    assert np.exp(lost.log_policy[2]) == 0.0
    gains = ak.asymmetric_optimum(ref, [0.0, 0.0, 1.0], [1.0, 1.0, 0.0], 0.5)
    assert np.exp(gains.log_policy[2]) == pytest.approx(1 - 0.5 * 0.8 / 1.5)  # c = 1: beta w ref/(c - r + beta w)
    assert ak.asymmetric_value([0.0, -math.inf, -math.inf], ref, [1.0, 0, 0], [1.0, 1.0, 0.0], 1.0) == -math.inf


def test_success_of_normalised_rewards():
    # w = 1: p (1 - p) = beta² (p - q)², a quadratic
    for q, beta in ((0.05, 0.5), (1 / 3, 0.1), (0.9, 3.0)):
        a, b, c = 1 + beta**2, -(1 + 2 * beta**2 * q), (beta * q) ** 2
        root = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
        assert ak.normalized_success(q, 1.0, beta) == pytest.approx(root, rel=1e-12)
    assert ak.normalized_success(0.2, 1.0, 1e6) == pytest.approx(0.2, abs=1e-5)
    # two of two with contrast: S = sqrt(1/2) p (1 - p)·2/sqrt 2 … = p (1 - p) · sqrt(1/2) · std_weight
    assert ak.normalized_success(0.3, 0.5, 1e-3, group_size=8) > ak.normalized_success(0.3, 1.0, 1e-3, group_size=8)
    large = ak.normalized_success(0.3, 0.7, [0.1, 1.0], group_size=2000)
    np.testing.assert_allclose(large, ak.normalized_success(0.3, 0.7, [0.1, 1.0]), atol=2e-3)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"log_ref": [0.0, 0.0]}, "log_ref"),
        ({"reward": [math.nan, 0.0]}, "reward"),
        ({"weight": [-1.0, 1.0]}, "weight"),
        ({"weight": [0.0, 0.0]}, "weight"),
        ({"beta": 0.0}, "beta"),
        ({"reward": [1.0, 2.0, 3.0]}, "reward"),
    ],
)
def test_bad_problems(change, name):
    given_ = {"log_ref": np.log([0.5, 0.5]), "reward": [1.0, 0.0], "weight": [1.0, 1.0], "beta": 1.0} | change
    with pytest.raises(ValueError, match=name):
        ak.asymmetric_optimum(**given_)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0.0, 1.0, 1.0), "share"), ((0.5, 1.5, 1.0), "weight"), ((0.5, 1.0, 0.0), "beta"), ((0.5, 1.0, 1e7), "beta")],
)
def test_bad_success(arguments, name):
    with pytest.raises(ValueError, match=name):
        ak.normalized_success(*arguments)


def test_success_where_next_to_nothing_holds_it_back():
    assert ak.normalized_success(0.3, 1.0, 1e-300, group_size=8) == pytest.approx(1.0, abs=1e-15)


def test_bad_policies_and_groups():
    with pytest.raises(ValueError, match="log_policy"):
        ak.asymmetric_gradient([0.0, 0.0], np.log([0.5, 0.5]), [1.0, 0.0], [1.0, 1.0], 1.0)
    with pytest.raises(ValueError, match="group_size"):
        ak.normalized_success(0.5, 1.0, 1.0, group_size=1)
