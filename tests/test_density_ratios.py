"""Clipped density ratios: change of measure by hand and at random, the truncation lemma, and the doors."""

import numpy as np
import pytest

from klsim.density_ratios import (
    clipped_concentrability,
    clipped_ratio,
    clipping_bias,
    clipping_loss,
    density_ratio,
    truncation_bounds,
    truncation_sums,
)

LAW, BASE = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.1, 0.6, 0.0, 0.3])


def test_by_hand():
    np.testing.assert_allclose(density_ratio(LAW, BASE), [5.0, 0.5, np.inf, 0.0])
    np.testing.assert_allclose(clipped_ratio(LAW, BASE, 2.0), [2.0, 0.5, 0.0, 0.0])
    assert clipping_loss(LAW, BASE, 2.0) == pytest.approx(0.7)
    assert clipping_bias(LAW, BASE, 2.0, np.ones(4)) == pytest.approx(0.5 - 2 * 0.1 + 0.2)
    assert clipped_concentrability(LAW, BASE, 2.0) == pytest.approx(0.5 * 2 + 0.3 * 0.5 + 0.2 * 2)


def test_a_ratio_equal_to_the_level_is_not_lost():
    assert clipping_loss([0.5, 0.5], [0.25, 0.75], 2.0) == 0.0


def test_without_a_level_only_points_without_a_base_are_missed():
    np.testing.assert_allclose(clipped_ratio(LAW, BASE, np.inf), [5.0, 0.5, 0.0, 0.0])
    assert clipping_loss(LAW, BASE, np.inf) == 0.0
    assert clipping_bias(LAW, BASE, np.inf, np.ones(4)) == pytest.approx(0.2)
    assert clipped_concentrability(LAW, BASE, np.inf) == np.inf


def test_change_of_measure():
    rng = np.random.default_rng(0)
    law, base = rng.dirichlet(np.full(6, 0.4), (2, 300))
    base = np.where(rng.random(base.shape) < 0.2, 0.0, base)
    level, g = rng.uniform(0.2, 8, 300), rng.uniform(-1, 1, law.shape)
    w = clipped_ratio(law, base, level)
    missed = np.sum(law * g, axis=1) - np.sum(base * g * w, axis=1)
    np.testing.assert_allclose(missed, clipping_bias(law, base, level, g), atol=1e-14)
    assert np.all(missed <= clipping_loss(law, base, level) + 1e-14)
    cc = clipped_concentrability(law, base, level)
    assert np.all(np.sum(base * w**2, axis=1) <= cc + 1e-13)
    assert np.all(cc <= level + 1e-13)


def test_levels_follow_the_laws():
    stacked = np.stack([LAW, LAW])
    np.testing.assert_allclose(clipping_loss(stacked, BASE, [2.0, 6.0]), [0.7, 0.2])


def test_truncation_by_hand():
    """One point, three rounds: the past is 0, 1, 2 and the ratios inf, 1, 1/2."""
    found = truncation_sums(np.ones((3, 1)), 0.75)
    np.testing.assert_allclose(found.past[:, 0], [0, 1, 2])
    np.testing.assert_allclose(found.lost, [1, 1, 0])
    np.testing.assert_allclose(found.second_moment, [0, 0.75**2, 2 * 0.25])
    np.testing.assert_allclose(found.concentrability, [0.75, 0.75, 0.5])


@pytest.mark.parametrize("gamma", [0.03, 0.5, 1.0, 30.0])
def test_truncation_sums_stay_below_their_bounds(gamma):
    rng = np.random.default_rng(1)
    laws = rng.dirichlet(np.full(5, 0.1), (20, 60))
    found = truncation_sums(laws, gamma)
    for i, sequence in enumerate(laws):
        lost, moment = truncation_bounds(sequence.max(axis=0).sum(), 60, gamma)
        assert found.lost[i].sum() <= lost
        assert found.second_moment[i].sum() <= found.concentrability[i].sum() <= moment


def test_bounds_by_hand_and_for_many_rounds():
    lost, moment = truncation_bounds(3.0, [1, 10], 0.5)
    np.testing.assert_allclose(lost, [6.0, 6 * (1 + np.log(10) / 0.5)])
    np.testing.assert_allclose(moment, [3.0, 6 * (np.log(10) + 0.5)])
    assert float(truncation_bounds(1 - 1e-12, 1, 1.0)[0]) == 2.0


def test_tiny_masses_give_no_nan():
    law, base = np.array([1.0, 1e-300]), np.array([1e-320, 1.0])
    assert density_ratio(law, base)[0] == np.inf
    np.testing.assert_array_equal(clipped_ratio(law, base, 3.0), [3.0, 1e-300])
    assert np.isfinite(clipping_bias(law, base, np.inf, [1.0, 1.0]))
    assert np.isfinite(clipped_concentrability(law, base, 3.0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: density_ratio([-0.1, 1.1], [0.5, 0.5]), r"law\[0\]"),
        (lambda: density_ratio([0.5, 0.5], [np.inf, 0.5]), r"base\[0\]"),
        (lambda: density_ratio([0.5, 0.5], [1.0]), "last axes"),
        (lambda: clipped_ratio([0.5, 0.5], [0.5, 0.5], 0.0), "level"),
        (lambda: clipping_loss([0.5, 0.5], [0.5, 0.5], [1.0, 2.0, 3.0]), "level"),
        (lambda: clipping_bias([0.5, 0.5], [0.5, 0.5], 1.0, [np.nan, 0.0]), r"values\[0\]"),
        (lambda: truncation_sums([0.5, 0.5], 1.0), "laws"),
        (lambda: truncation_bounds(0.9, 10, 1.0), "coverability"),
        (lambda: truncation_bounds(1.0, 0, 1.0), "rounds"),
        (lambda: truncation_bounds(1.0, 10, 0.0), "gamma"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
