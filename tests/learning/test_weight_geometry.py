"""Subspaces, spectra, rank, masks and their overlaps."""

import numpy as np
import pytest

from klsim.learning import weight_geometry as wg

RNG = np.random.default_rng(0)
BEFORE = RNG.standard_normal((4, 6, 5))
AFTER = BEFORE + 0.1 * RNG.standard_normal((4, 6, 5))


def test_angles_by_projectors():
    """The largest sine is the norm of the difference of the projectors."""
    found = wg.principal_angles(BEFORE, AFTER, 2)
    for i in range(4):
        (u, _, v), (u1, _, v1) = np.linalg.svd(BEFORE[i]), np.linalg.svd(AFTER[i])
        left = np.linalg.norm(u[:, :2] @ u[:, :2].T - u1[:, :2] @ u1[:, :2].T, 2)
        right = np.linalg.norm(v[:2].T @ v[:2] - v1[:2].T @ v1[:2], 2)
        assert np.sin(found.left[i, -1]) == pytest.approx(left, rel=1e-9)
        assert np.sin(found.right[i, -1]) == pytest.approx(right, rel=1e-9)
        assert found.largest_sine[i] == pytest.approx(max(left, right), rel=1e-9)
    assert np.all(np.diff(found.left, axis=-1) >= 0)


def test_small_and_right_angles_keep_their_digits():
    for t in (1e-9, 1e-5, 1.0, np.pi / 2):
        turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        found = wg.principal_angles(np.diag([2.0, 1.0]), turn @ np.diag([2.0, 1.0]), 1)
        assert found.left[0] == pytest.approx(t, rel=1e-6)
        assert found.right[0] == pytest.approx(0, abs=1e-12)
    whole = wg.principal_angles(BEFORE, AFTER, 5)
    np.testing.assert_allclose(whole.right, 0, atol=1e-12)


def test_gap_counts_zero_below_the_last():
    assert wg.singular_gap(np.diag([3.0, 1.0]), 1) == pytest.approx(2)
    assert wg.singular_gap(np.diag([3.0, 1.0]), 2) == pytest.approx(1)


def test_worked_example_of_the_rotation():
    before, change = np.diag([2.0, 1.0]), np.array([[-0.405, -0.1962], [-0.1962, 0.405]])
    assert wg.principal_angles(before, before + change, 1).largest_sine == pytest.approx(0.531131, abs=1e-6)
    drift = wg.spectral_drift(before, before + change)
    assert drift.spectral == pytest.approx(0.450022, abs=1e-6)
    assert drift.relative == pytest.approx(0.178359, abs=1e-6)


def test_bounds_at_their_ends():
    np.testing.assert_allclose(wg.worst_rotation([0, 0.25, 0.5, 0.51]), [0, np.sin(np.pi / 12), np.sqrt(0.5), 1])
    np.testing.assert_allclose(wg.wedin_bound([0, 0.25, 0.5, np.inf]), [0, 1 / 3, 1, 1])
    x = np.linspace(0, 1, 101)
    assert np.all(wg.worst_rotation(x) <= wg.wedin_bound(x) + 1e-15)
    assert np.all(wg.wedin_bound(x) <= 2 * x + 1e-15)


def test_drift_of_a_diagonal_update():
    drift = wg.spectral_drift(np.diag([3.0, 2.0, 1.0]), np.diag([3.5, 2.0, 0.0]))
    np.testing.assert_allclose(drift.change, [0.5, 0, -1], atol=1e-12)
    np.testing.assert_allclose(drift.ky_fan, [0.5, 0.5, -0.5], atol=1e-12)
    assert drift.frobenius == pytest.approx(np.sqrt(1.25))


def test_masks_take_the_largest_of_the_low_rank_part_and_the_smallest():
    left, right = np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.1])
    weights = np.outer(left, right) + 1e-6 * RNG.standard_normal((3, 2))
    np.testing.assert_array_equal(wg.principal_mask(weights, 1, 0.5)[:, 0], [True] * 3)
    np.testing.assert_array_equal(wg.low_mask(weights, 1 / 6), np.array([[0, 0], [0, 0], [0, 1]], dtype=bool))
    assert np.all(wg.low_mask(BEFORE, 0.3).sum(axis=(-2, -1)) == 9)
    assert np.all(wg.principal_mask(BEFORE, 2, 1.0))


def test_overlap_of_the_worked_masks():
    n = np.arange(10)
    found = wg.overlap(n < 4, (n >= 2) & (n < 5))
    assert (found.first, found.second, found.first_chance, found.second_chance) == (0.5, pytest.approx(2 / 3), 0.3, 0.4)
    assert found.over_chance == pytest.approx(2 / 1.2)
    both = wg.overlap(np.stack([n < 4, n < 1]), np.stack([n < 4, n > 5]))
    assert both.first.tolist() == [1.0, 0.0]
    assert both.over_chance.tolist() == [2.5, 0.0]


def test_jaccard_of_small_masks():
    a, b, none = np.array([True, True, False, False]), np.array([True, False, False, False]), np.zeros(4, dtype=bool)
    assert wg.jaccard(a, b) == pytest.approx(0.5)
    assert wg.jaccard(np.stack([a, none, none]), np.stack([~a, none, b])).tolist() == [0, 1, 0]
    assert wg.bernoulli_jaccard(0.2, 0.3) == pytest.approx(0.136364, abs=1e-6)
    assert wg.bernoulli_jaccard(0, 0) == 1


def test_rank_of_diagonals_rows_and_products():
    rng = np.random.default_rng(2)
    row = np.zeros((5, 8))
    row[3] = rng.standard_normal(8)
    product = rng.standard_normal((8, 2)) @ rng.standard_normal((2, 5))
    assert wg.rank_fraction(np.diag([1.0, -2.0, 3.0])) == 1
    assert wg.rank_fraction(row) == 1 / 5
    assert wg.rank_fraction(product) == pytest.approx(2 / 5)
    assert wg.rank_fraction(product.astype(np.float32)) == pytest.approx(2 / 5)
    assert wg.rank_fraction(np.zeros((2, 3, 3))).tolist() == [0, 0]


NAN, TRUE = np.full((2, 2), np.nan), np.array([True, False])


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: wg.principal_angles(np.zeros(3), np.zeros(3), 1), "before"),
        (lambda: wg.principal_angles(np.eye(2), np.eye(3), 1), "after"),
        (lambda: wg.principal_angles(np.eye(2), NAN, 1), "after"),
        (lambda: wg.principal_angles(np.eye(2), np.eye(2), 3), "k"),
        (lambda: wg.principal_angles(np.eye(2), np.eye(2), 0), "k"),
        (lambda: wg.singular_gap(np.zeros((0, 2)), 1), "weights"),
        (lambda: wg.singular_gap(np.eye(2), 3), "k"),
        (lambda: wg.spectral_drift(np.zeros((2, 2)), np.eye(2)), "before"),
        (lambda: wg.spectral_drift(np.eye(2), np.full((2, 2), np.inf)), "after"),
        (lambda: wg.wedin_bound(-1.0), "x"),
        (lambda: wg.worst_rotation(np.nan), "x"),
        (lambda: wg.principal_mask(np.eye(2), 3, 0.5), "rank"),
        (lambda: wg.principal_mask(np.eye(2), 1, 0.0), "share"),
        (lambda: wg.low_mask(NAN, 0.5), "weights"),
        (lambda: wg.low_mask(np.eye(2), 1.5), "share"),
        (lambda: wg.overlap(TRUE, np.array([True, False, True])), "second"),
        (lambda: wg.overlap(TRUE, ~TRUE & TRUE), "second"),
        (lambda: wg.overlap(np.zeros((2, 3), bool), np.ones((2, 3), bool)), "first"),
        (lambda: wg.overlap(np.array(True), np.array(True)), "first"),
        (lambda: wg.jaccard(TRUE, TRUE[:1]), "b"),
        (lambda: wg.jaccard(TRUE[:0], TRUE[:0]), "a"),
        (lambda: wg.bernoulli_jaccard(1.2, 0.1), "p"),
        (lambda: wg.rank_fraction([1.0]), "update"),
        (lambda: wg.rank_fraction(np.zeros((0, 2))), "update"),
        (lambda: wg.rank_fraction(NAN), "update"),
    ],
)
def test_the_door_names_the_argument(call, names):
    with pytest.raises(ValueError, match=names):
        call()


def test_masks_are_boolean():
    with pytest.raises(TypeError, match="first"):
        wg.overlap([1, 0], TRUE)
