"""Scores of mixtures against finite differences and quadrature, denoising losses, networks that learn, and the doors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim import _validate
from klsim.learning.networks import Linear, Network, Tanh
from klsim.learning.score_networks import (
    GaussianMixture,
    ScoreNetwork,
    denoise,
    denoising_loss,
    kernel_density,
    merging_noise,
    pair_mode,
    train_score_network,
)

LINE = GaussianMixture([[-1.0], [0.4], [2.0]], np.log([0.3, 0.5, 0.2]), 0.3)
PLANE = GaussianMixture([[0.0, 1.0], [2.0, -1.0]], np.log([0.25, 0.75]), 0.5)


def test_density_integrates_to_one_and_the_score_is_its_slope():
    x = np.linspace(-6, 7, 4001)[:, None]
    assert np.sum(np.exp(LINE.log_density(x))) * (x[1, 0] - x[0, 0]) == pytest.approx(1, rel=1e-12)
    at, h = np.array([[0.3, -0.2], [1.5, 2.0]]), 1e-5
    for i, e in enumerate(np.eye(2)):
        slope = (PLANE.log_density(at + h * e) - PLANE.log_density(at - h * e)) / (2 * h)
        np.testing.assert_allclose(PLANE.score(at)[:, i], slope, rtol=1e-8)


def test_tweedie_against_quadrature():
    sigma, x = 0.5, np.linspace(-2, 3, 11)
    t = np.linspace(-5, 6, 4001)
    joint = np.exp(LINE.log_density(t[:, None]) - (x[:, None] - t) ** 2 / (2 * sigma**2))
    found = denoise(x[:, None], LINE.noised(sigma).score(x[:, None]), sigma)
    np.testing.assert_allclose(found[:, 0], joint @ t / joint.sum(axis=1), rtol=1e-12, atol=1e-14)
    clean = LINE.score(x[:, None]) - LINE.noised(sigma).score(x[:, None])
    assert np.abs(clean).max() == pytest.approx(8.2, abs=0.05)  # at the left edge


def test_seeds_are_independent_mixtures():
    rng = np.random.default_rng(0)
    points, x, values = rng.normal(size=(3, 40, 2)), rng.normal(size=(3, 300, 2)), rng.normal(size=(3, 40, 4))
    together = kernel_density(points, 0.3)
    for s in range(3):
        alone = kernel_density(points[s], 0.3)
        np.testing.assert_allclose(together.score(x)[s], alone.score(x[s]), rtol=1e-12)
        np.testing.assert_allclose(together.log_density(x)[s], alone.log_density(x[s]), rtol=1e-12)
        np.testing.assert_allclose(together.average(values, x)[s], alone.average(values[s], x[s]), rtol=1e-12)
    np.testing.assert_allclose(together.score(x[0])[1], kernel_density(points[1], 0.3).score(x[0]), rtol=1e-12)
    assert together.sample(5, 1).shape == (3, 5, 2)


def test_narrow_components_far_from_the_origin():
    """The expanded squares would lose everything here."""
    points = 1e6 + np.array([[0.0], [1e-4]])
    found = kernel_density(points, 1e-4).average([[0.0], [1.0]], points)
    expected = 1 / (1 + math.exp(0.5))
    np.testing.assert_allclose(found[:, 0], [expected, 1 - expected], rtol=1e-5)


def test_components_of_different_weights_far_out():
    """Means of 1e5 widths, and points whose densities underflow: odds are w_2/w_1 exp of half the difference of squares."""
    log_weights = np.log([0.2, 0.8])
    for means, x in (([[0.0], [1e5]], 5e4 + 1e-5), ([[0.0], [1.0]], 60.0)):
        found = GaussianMixture(means, log_weights, 1.0).average([[0.0], [1.0]], [[x]])[0, 0]
        log_odds = math.log(4) + means[1][0] * (x - means[1][0] / 2)
        assert found == pytest.approx(1 / (1 + math.exp(-log_odds)), rel=1e-5)


def test_samples_have_the_moments_of_the_mixture_and_skip_empty_components():
    with np.errstate(divide="ignore"):
        mixture = GaussianMixture([[5.0], [-1.0], [2.0], [9.0]], np.log([0.0, 0.25, 0.75, 0.0]), 0.5)
    x = mixture.sample(40_000, 0)[:, 0]
    assert x.mean() == pytest.approx(1.25, abs=5 * 1.4 / 200)
    assert x.var() == pytest.approx(0.25 + 0.25 * 0.75 * 9, rel=0.03)
    assert x.max() < 5


def test_denoising_loss_by_hand_and_its_slope():
    g, e = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[0.5, 0.0], [1.0, 1.0]])
    loss, slope = denoising_loss(g, e, [2.0, 0.5])
    assert loss.tolist() == [2.5**2 + 4.0**2, 1.0 + 0.25]
    assert slope.tolist() == [[10.0, 16.0], [1.0, 0.5]]
    assert denoising_loss(g, e, 2.0)[0].shape == (2,)


def test_the_score_is_the_best_answer_on_a_finite_data_set():
    """Over the noise of two points, by a sum over a fine rule: no shift of the kernel score does better."""
    points, sigma = np.array([-0.5, 1.0]), 0.6
    e = np.linspace(-8, 8, 1601)
    law = np.exp(-(e**2) / 2) / np.exp(-(e**2) / 2).sum()
    seen = (points[:, None] + sigma * e).reshape(-1, 1)
    noise, weight = np.tile(e, 2)[:, None], np.tile(law, 2) / 2
    best = kernel_density(points[:, None], sigma).score(seen)
    least = weight @ denoising_loss(best, noise, sigma)[0]
    for other in (0.05, 0.05 * seen, np.sin(3 * seen)):
        assert weight @ denoising_loss(best + other, noise, sigma)[0] > least + 1e-4


def test_a_network_learns_the_score_of_one_gaussian():
    """Of N(0, 1) with noise sigma it is -x/(1 + sigma^2)."""
    points = np.stack([np.random.default_rng(s).standard_normal((1000, 1)) for s in range(2)])
    network = train_score_network(points, 0, low=0.4, high=1.0, steps=250, batch=64, width=12, lr=0.02)
    x = np.linspace(-1.5, 1.5, 7)[:, None]
    for sigma in (0.5, 0.9):
        expected = -x / (1 + sigma**2)
        assert np.abs(network.score(x, sigma) - expected).max() < 0.3
    again = train_score_network(points, 0, low=0.4, high=1.0, steps=3, batch=8, width=4)
    assert again.score(x, 0.5).shape == (2, 7, 1)
    np.testing.assert_allclose(again.score(x, np.full(7, 0.5)), again.score(x, 0.5))


def test_modes_of_a_pair():
    for v in (1e-3, 0.05, 0.3, 0.8, 0.99, 1 - 1e-7):
        a = pair_mode(v)
        assert a == pytest.approx(math.tanh(a / v), rel=1e-9)
        assert 0 < a <= 1
    assert pair_mode(1 - 1e-12) == pytest.approx(math.sqrt(3e-12), rel=1e-3)
    assert pair_mode(1.0) == pair_mode(7.0) == 0.0
    assert pair_mode(0.04) == pytest.approx(1, abs=1e-10)
    assert merging_noise(1.0, 0.2) == pytest.approx(0.9798, abs=5e-5)
    assert merging_noise(5.0, 3.0) == 4.0
    assert merging_noise(1.0, 1.0) == merging_noise(1.0, 2.0) == 0.0
    pair = GaussianMixture([[-1.0], [1.0]], np.log([0.5, 0.5]), 0.2)
    assert pair.noised(0.9788).score([[1e-3]])[0, 0] > 0 > pair.noised(0.9808).score([[1e-3]])[0, 0]
    gain = [pair.log_density([[0.3 + s]])[0] - pair.log_density([[0.3]])[0] for s in (0.05, -0.05)]
    assert gain == pytest.approx([0.84, -0.91], abs=0.005)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: GaussianMixture([1.0], [0.0], 1.0), "means"),
        (lambda: GaussianMixture([[np.nan]], [0.0], 1.0), r"means\[0, 0\] = nan"),
        (lambda: GaussianMixture([[1.0]], [math.log(0.5)], 1.0), "sum to 0.5"),
        (lambda: GaussianMixture([[1.0], [2.0]], [0.0], 1.0), "log_weights"),
        (lambda: GaussianMixture([[1.0]], [0.0], 0.0), "std"),
        (lambda: GaussianMixture([[1.0]], [0.0], -1.0), "std"),
        (lambda: LINE.noised(-0.1), "sigma"),
        (lambda: LINE.score([[1.0, 2.0]]), "coordinates"),
        (lambda: LINE.score([[np.inf]]), r"x\[0, 0\] = inf"),
        (lambda: LINE.score([[1e300]]), "x"),
        (lambda: kernel_density(np.zeros((2, 3, 1)), 1.0).score(np.zeros((3, 4, 1))), "leading axes"),
        (lambda: LINE.average([[1.0]], [[1.0]]), "values"),
        (lambda: LINE.average([[1.0], [np.nan], [0.0]], [[1.0]]), r"values\[1, 0\]"),
        (lambda: LINE.log_density([[1e300]]), "x"),
        (lambda: LINE.sample(-1, 0), "count"),
        (lambda: LINE.sample(10**12, 0), "count"),
        (lambda: kernel_density(np.zeros((0, 2)), 1.0), "at least one point"),
        (lambda: kernel_density([[1.0]], 0.0), "sigma"),
        (lambda: denoise([1.0], [1.0, 2.0], 0.5), "score"),
        (lambda: denoise([1.0], [np.nan], 0.5), r"score\[0\]"),
        (lambda: denoise([1.0], [1.0], -0.5), "sigma"),
        (lambda: denoise([1.0], [1e200], 1e100), "score"),
        (lambda: denoise([1.0], [1.0], 0.5, np.nan), "eta"),
        (lambda: denoising_loss([[1.0]], [[1.0, 2.0]], 1.0), "noise"),
        (lambda: denoising_loss([[1.0]], [[1.0]], -1.0), "sigma"),
        (lambda: denoising_loss([[1.0]], [[1.0]], [1.0, 2.0]), "sigma"),
        (lambda: denoising_loss([[1e200]], [[1.0]], 1.0), "score"),
        (lambda: ScoreNetwork(Network((Linear(2, 3), Tanh())), ()), "one input more"),
        (lambda: train_score_network(np.zeros((0, 1)), 0, low=0.1, high=1.0), "at least one point"),
        (lambda: train_score_network([[1.0]], 0, low=1.0, high=0.5), "high"),
        (lambda: train_score_network([[1.0]], 0, low=0.0, high=0.5), "low"),
        (lambda: train_score_network([[1.0]], 0, low=0.1, high=0.5, steps=0), "steps"),
        (lambda: train_score_network([[1.0]], 0, low=0.1, high=0.5, lr=-1.0), "lr"),
        (lambda: pair_mode(0.0), "variance"),
        (lambda: merging_noise(-1.0, 1.0), "separation"),
        (lambda: merging_noise(1.0, np.nan), "std"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_network_refuses_levels_that_are_not_positive():
    network = train_score_network([[1.0], [2.0]], 0, low=0.1, high=0.5, steps=1, batch=2, width=2)
    with pytest.raises(ValueError, match="sigma"):
        network.score([[1.0]], 0.0)
    with pytest.raises(ValueError, match="sigma"):
        network.score([[1.0]], [1.0, 2.0])


def test_the_memory_of_training_is_counted(monkeypatch):
    """Two copies of width 3 on batches of 4 points on a line: eight arrays of weights and of what passes them."""
    points, needed = np.zeros((2, 5, 1)), 8 * 8 * 2 * 3 * (3 + 4 + 1)
    setting = {"low": 0.1, "high": 0.5, "steps": 1, "batch": 4, "width": 3}
    monkeypatch.setattr(_validate, "LARGEST", needed)
    assert train_score_network(points, 0, **setting).score([[0.0]], 0.2).shape == (2, 1, 1)
    monkeypatch.setattr(_validate, "LARGEST", needed - 1)
    with pytest.raises(ValueError, match="width = 3: would need"):
        train_score_network(points, 0, **setting)
