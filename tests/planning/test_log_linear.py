"""Log-linear clones against a generic optimiser; least-squares planning against the exact optimum; bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.planning import solve
from klsim.planning.log_linear import clone_log_linear, least_squares_plan
from klsim.problems import LinearMDP


def drawn(seed=0, states=4, actions=3, latent=3):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(latent), (states, actions)), rng


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_the_likelihood_is_maximal(ridge):
    phi, rng = drawn()
    counts = rng.integers(0, 9, (2, 4, 3))
    found = clone_log_linear(phi, counts, ridge=ridge)
    for n, log_p in zip(counts, found):

        def loss(w, n=n):
            return -np.sum(n * log_normalize(phi @ w)) + ridge * w @ w / 2

        best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(log_p, log_normalize(phi @ best.x), atol=1e-4)


def test_tabular_features_and_separable_data():
    """Indicators of every pair: the penalised frequencies; one action only: still finite."""
    phi = np.eye(6).reshape(2, 3, 6)
    counts = np.array([[500, 300, 200], [10**6, 0, 0]])
    found = clone_log_linear(phi, counts, ridge=1e-6)
    np.testing.assert_allclose(np.exp(found[0]), [0.5, 0.3, 0.2], atol=1e-6)
    assert np.isfinite(found).all()
    assert np.exp(found[1, 0]) > 0.9999


@pytest.mark.parametrize(
    ("phi", "counts"),
    [
        ([[[-6, -3], [3, 5]], [[-13, 5], [12, 2]], [[9, 3], [-2, 5]]], [[1, 1], [1, 906], [779, 1]]),
        ([[[-3, 2], [-1, 5]], [[-8, 4], [-9, -6]], [[6, 2], [-8, -7]]], [[1, 104], [0, 1], [2, 0]]),
    ],
)
def test_newton_steps_that_overshoot_are_halved(phi, counts):
    """Three states with opposite features, some with hardly any data: full steps lose likelihood, much or a little."""
    phi, counts = np.array(phi, dtype=float), np.array(counts)
    found = clone_log_linear(phi, counts, ridge=1e-3)

    def loss(w):
        return -np.sum(counts * log_normalize(phi @ w)) + 1e-3 * w @ w / 2

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    np.testing.assert_allclose(found, log_normalize(phi @ best.x), atol=1e-5)


def test_no_data_and_the_floor():
    phi, _ = drawn()
    none = np.zeros((4, 3), dtype=int)
    np.testing.assert_allclose(clone_log_linear(phi, none), np.log(1 / 3))
    mixed = clone_log_linear(phi, none + [[1000, 0, 0]] * np.ones((4, 1), dtype=int), ridge=1e-8, floor=0.03)
    assert np.exp(mixed).min() >= 0.01 - 1e-12
    np.testing.assert_allclose(np.exp(mixed).sum(axis=-1), 1.0)


def test_least_squares_finds_the_optimum():
    """With the true laws as counts, up to the ridge; the reference and the coefficient matter as in `solve`."""
    phi, rng = drawn()
    linear = LinearMDP(phi, rng.dirichlet(np.ones(4), (3, 3)), rng.random((3, 3)), rng.dirichlet(np.ones(4)))
    problem, ref = linear.tabular(), np.log(rng.dirichlet(np.ones(3), (3, 4)))
    counts = np.round(problem.transition * 10**9).astype(int)
    for beta in (0.0, 0.05, 2.0):
        policy, q = least_squares_plan(phi, problem.reward, counts, ref, beta)
        best = solve(problem, ref, beta)
        np.testing.assert_allclose(q, best.q_value, atol=1e-7)
        np.testing.assert_allclose(np.exp(policy), np.exp(best.log_policy), atol=1e-5)
    wide, _ = least_squares_plan(phi, problem.reward, np.stack([counts, counts]), ref, 0.3)
    assert wide.shape == (2, *problem.shape)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda f: clone_log_linear(f[0], np.ones((4, 3), dtype=int)), "features"),
        (lambda f: clone_log_linear(f, np.ones((3, 4), dtype=int)), "counts"),
        (lambda f: clone_log_linear(f, -np.ones((4, 3), dtype=int)), "counts"),
        (lambda f: clone_log_linear(f, np.ones((4, 3), dtype=int), ridge=0.0), "ridge"),
        (lambda f: clone_log_linear(f, np.ones((4, 3), dtype=int), floor=1.0), "floor"),
        (
            lambda f: least_squares_plan(
                f, np.zeros((1, 4, 3)), np.ones((4, 3, 4), dtype=int), np.zeros((1, 4, 3)), 1.0
            ),
            "successors",
        ),
        (
            lambda f: least_squares_plan(
                f, np.zeros((4, 3)), np.ones((1, 4, 3, 4), dtype=int), np.zeros((1, 4, 3)), 1.0
            ),
            "reward",
        ),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(drawn()[0])
