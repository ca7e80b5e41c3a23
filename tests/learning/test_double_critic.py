"""Two value heads: weights by differences, pessimism by quadrature, fits that are stationary, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from klsim.learning.double_critic import fit_joint, fit_separate, joint_loss, pessimism, soft_min_weights
from klsim.objectives.stabilizers import soft_min


def data(seed=0, n=30, p=3):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.standard_normal((n, p)), np.ones(n)])
    return x, x[:, 0] + rng.standard_normal(n), 0.3 * rng.standard_normal((p + 1, 2)), rng.integers(0, n, (2, n))


def test_weights():
    np.testing.assert_allclose(soft_min_weights([0.0, 0.3 * math.log(3)], 0.3), [0.75, 0.25])
    np.testing.assert_allclose(soft_min_weights([0.0, 1e9], 1e-3), [1.0, 0.0])


@pytest.mark.parametrize(("s", "alpha"), [(0.1, 0.3), (1.0, 0.3), (1.0, 3.0), (1.0, 0.01), (3.0, 1e-3), (1e-6, 1.0)])
def test_pessimism_by_quadrature(s, alpha):
    def integrand(z):
        x = abs(s * z / math.sqrt(2) / alpha)
        log_cosh = x * x / 2 if x < 1e-4 else x + math.log1p(math.exp(-2 * x)) - math.log(2)
        return -2 * alpha * log_cosh * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    points = sorted({1e-3, alpha / s, 10 * alpha / s, 1.0})
    found = quad(integrand, 0, 12, points=[p for p in points if 0 < p < 12], limit=500, epsabs=0, epsrel=1e-11)[0]
    assert float(pessimism(s, alpha)) == pytest.approx(found, rel=1e-8)


def test_pessimism_of_none():
    assert pessimism(0.0, 0.3) == 0


@pytest.mark.parametrize("huber", [math.inf, 0.5])
def test_joint_loss_by_differences(huber):
    rng = np.random.default_rng(1)
    v, y = rng.standard_normal((4, 2)), rng.standard_normal(4)
    gradient = joint_loss(v, y, huber=huber)[1]
    for index in np.ndindex(v.shape):
        step = np.zeros_like(v)
        step[index] = 1e-6
        slope = (joint_loss(v + step, y, huber=huber)[0] - joint_loss(v - step, y, huber=huber)[0]) / 2e-6
        assert gradient[index] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("huber", [math.inf, 0.5])
def test_joint_fit_is_stationary_and_not_pessimistic(huber):
    x, y, start, _ = data()
    v = x @ fit_joint(x, y, start, huber=huber)
    assert np.abs(x.T @ joint_loss(v, y, huber=huber)[1]).max() <= 1e-6
    assert abs(np.mean(np.clip(soft_min(v) - y, -huber, huber))) < 2e-6
    assert np.mean(v.min(axis=-1) - y) < -0.05 or huber < 1


def test_separate_fit_is_least_squares():
    x, y, _, rows = data()
    heads = fit_separate(x, y, rows)
    for j in range(2):
        np.testing.assert_allclose(x[rows[j]].T @ (x[rows[j]] @ heads[:, j] - y[rows[j]]), 0, atol=1e-10)


def test_bad_input():
    x, y, start, rows = data()
    with pytest.raises(ValueError, match="alpha"):
        soft_min_weights([1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="deviation"):
        pessimism(-1.0, 0.3)
    with pytest.raises(ValueError, match="target"):
        joint_loss(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="start"):
        fit_joint(x, y, start[:2])
    with pytest.raises(ValueError, match="rows"):
        fit_separate(x, y, rows[0])
    for outside in (-1, len(y)):
        with pytest.raises(ValueError, match="rows"):
            fit_separate(x, y, np.full_like(rows, outside))
