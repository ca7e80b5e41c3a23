"""Bonuses and optimistic planning: by hand, against inverses, attainment, one-hot counts, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.planning import (
    elliptical_norm,
    evaluate,
    feature_covariance,
    model_error_bonus,
    one_step_back,
    optimistic_values,
    simulation_difference,
    solve,
)
from klsim.problems import TabularMDP


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    laws = rng.dirichlet(np.ones(4), (2, 3, 4, 2))
    reward = rng.standard_normal((3, 4, 2))
    return tuple(TabularMDP(law, reward, np.full(4, 0.25), 3) for law in laws), rng


def test_norms_against_the_inverse():
    rng = np.random.default_rng(0)
    features, weights = rng.standard_normal((5, 2, 3)), rng.random((5, 2))
    sigma = feature_covariance(features, weights, 0.5)
    by_hand = 0.5 * np.eye(3) + sum(weights[i] * np.outer(features[i], features[i]) for i in np.ndindex(5, 2))
    np.testing.assert_allclose(sigma, by_hand)
    expected = np.sqrt(np.einsum("...i,ij,...j->...", features, np.linalg.inv(by_hand), features))
    np.testing.assert_allclose(elliptical_norm(features, sigma), expected)


def test_a_single_feature_vector():
    """``Sigma = w phi phi' + ridge I`` has the eigenvalue ``w |phi|^2 + ridge`` along phi."""
    sigma = feature_covariance([3.0, 4.0], 2.0, 0.5)
    np.testing.assert_allclose(sigma, [[18.5, 24.0], [24.0, 32.5]])
    assert elliptical_norm([3.0, 4.0], sigma) == pytest.approx(5 / np.sqrt(50.5))


def test_one_hot_norms_are_counts():
    counts = np.array([0.0, 3.0, 8.0])
    np.testing.assert_allclose(elliptical_norm(np.eye(3), feature_covariance(np.eye(3), counts, 1.0)), [1, 0.5, 1 / 3])


def test_model_error_bonus_is_attained():
    """``max_v (P - Phat) v`` over values in [low, high], by its vertices; total variation times the range for laws."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(3), 2)
    vertices = np.array(np.meshgrid(*[[-1.0, 2.0]] * 3)).reshape(3, -1)
    for model in (q, 0.7 * q):
        assert model_error_bonus(p, model, low=-1.0, high=2.0) == pytest.approx(((p - model) @ vertices).max())
    assert model_error_bonus(p, q, low=-1.0, high=2.0) == pytest.approx(1.5 * np.abs(p - q).sum())
    assert model_error_bonus(p, 0.9 * p) == pytest.approx(0.1)  # twice the total variation


def test_optimistic_values_are_those_of_the_table():
    (_, model), rng = drawn()
    bonus = rng.random(model.shape)
    found = optimistic_values(model.transition, model.reward, bonus)
    best = solve(TabularMDP(model.transition, model.reward + bonus, model.initial, 3), beta=0.0)
    np.testing.assert_allclose(found.value, best.value)
    assert (optimistic_values(model.transition, model.reward, bonus, cap=0.5).q_value <= 0.5).all()
    np.testing.assert_array_equal(found.policy, found.q_value.argmax(axis=2))


def test_simulation_difference():
    (problem, model), rng = drawn()
    bonus, policy = rng.standard_normal(problem.shape), np.log(rng.dirichlet(np.ones(2), (3, 4)))
    promised = evaluate(TabularMDP(model.transition, problem.reward + bonus, problem.initial, 3), policy).value
    assert simulation_difference(problem, model, bonus, policy) == pytest.approx(
        promised - evaluate(problem, policy).value
    )
    assert simulation_difference(problem, problem, np.zeros(problem.shape), policy) == 0


def test_one_step_back_parts():
    features, factors = np.eye(2)[:, None], np.array([[0.5, 0.5], [0.2, 0.8]])
    g = np.array([[1.0], [-2.0]])
    one = np.array([[1.0], [0.0]])
    found = one_step_back(features, factors, one, one, g, np.zeros((2, 1)), samples=3.0, ridge=1.0)
    assert found.value == pytest.approx(-0.5)
    assert found.norm == pytest.approx(0.5)  # 1 / sqrt(3 + 1)
    assert found.data == pytest.approx(3 * 2.5)
    assert found.ridge == pytest.approx(0.5**2 + 1.4**2)
    assert found.bound == pytest.approx(0.5 * np.sqrt(7.5 + 2.21))


def test_bad_input():
    (problem, _), _ = drawn()
    ok = (np.eye(2)[:, None], np.eye(2), np.full((2, 1), 0.5), np.full((2, 1), 0.5), np.ones((2, 1)), np.zeros((2, 1)))
    for call, text in (
        (lambda: feature_covariance(np.eye(2), [1.0, -1.0], 1.0), r"weights\[1\]"),
        (lambda: feature_covariance(np.eye(2), [1.0, 1.0], 0.0), "ridge"),
        (lambda: feature_covariance(1.0, 1.0, 1.0), "features: needs a non-empty last axis"),
        (lambda: feature_covariance(np.ones((2, 3, 0)), np.ones((2, 3)), 1.0), "features: needs a non-empty last axis"),
        (lambda: feature_covariance([1e151], 1.0, 1.0), "features: must be at most"),
        (lambda: elliptical_norm(np.eye(2), -np.eye(2)), "covariance: must be positive definite"),
        (lambda: model_error_bonus([0.5, 0.5], [1.0]), "model: must have the shape"),
        (lambda: model_error_bonus([0.5, 0.5], [1.0, 0.0], low=2.0), "low: must be <= high"),
        (
            lambda: optimistic_values(np.ones((1, 2, 1, 3)), np.zeros((1, 2, 1)), np.zeros((1, 2, 1))),
            "model: must have shape",
        ),
        (lambda: simulation_difference(problem, problem, [0.0], np.zeros(problem.shape)), "bonus: must have shape"),
        (lambda: one_step_back(2 * ok[0], *ok[1:], samples=1.0, ridge=1.0), "factors.*sum to 1"),
        (lambda: one_step_back(*ok, samples=-1.0, ridge=1.0), "samples"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
