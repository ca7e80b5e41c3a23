"""Subspaces, spectra, bfloat16 visibility, masks and null updates."""

import ml_dtypes
import numpy as np
import pytest

from klsim.learning import weight_geometry as wg

RNG = np.random.default_rng(0)
BEFORE = RNG.standard_normal((4, 6, 5))
AFTER = BEFORE + 0.1 * RNG.standard_normal((4, 6, 5))
MASK = np.array([[True, False], [False, False]])


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


def test_units_and_roundings():
    np.testing.assert_array_equal(wg.bf16_ulp([1, 0.02, 3, -3, 0]), [2.0**-7, 2.0**-13, 2.0**-6, 2.0**-6, 2.0**-133])
    assert wg.bf16_ulp(2.0**-130) == 2.0**-133


@pytest.mark.parametrize("scale", [1.0, 1e-39, 1e-3, 1e30])
def test_cells_are_where_ml_dtypes_rounds_to_the_same_number(scale):
    x = np.append(scale * RNG.standard_normal(300), np.sign(scale) * 2.0 ** np.round(np.log2(scale)))
    stored = x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(float)
    low, high = wg.rounding_cell(stored)
    width = high - low
    for inside in (low + 0.01 * width, high - 0.01 * width):
        np.testing.assert_array_equal(inside.astype(np.float32).astype(ml_dtypes.bfloat16).astype(float), stored)
    for outside in (low - 0.01 * width, high + 0.01 * width):
        assert np.all(outside.astype(np.float32).astype(ml_dtypes.bfloat16).astype(float) != stored)


def test_visible_is_relative_and_looks_at_stored_numbers():
    before = np.array([1.0, 1.0, 0.02, -3.0])
    after = np.array([1.0039, 1.006, 0.02001, -3.0])
    np.testing.assert_array_equal(wg.visible(before, after), [False, True, False, False])
    np.testing.assert_array_equal(wg.visible(before, after, eta=0.01), [False] * 4)


def test_expected_visibility_is_the_share_of_uniform_places():
    w = 1.25 + 2.0**-7 * RNG.uniform(-0.5, 0.5, 200_000)
    seen = wg.visible(w, w + 0.002).mean()
    assert seen == pytest.approx(float(wg.expected_visibility(1.25, 0.002)), abs=5 * np.sqrt(0.25 / 200_000))
    assert wg.expected_visibility(1.0, 1.0) == 1


def test_masks_take_the_largest_of_the_low_rank_part_and_the_smallest():
    left, right = np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.1])
    weights = np.outer(left, right) + 1e-6 * RNG.standard_normal((3, 2))
    np.testing.assert_array_equal(wg.principal_mask(weights, 1, 0.5)[:, 0], [True] * 3)
    np.testing.assert_array_equal(wg.low_mask(weights, 1 / 6), np.array([[0, 0], [0, 0], [0, 1]], dtype=bool))
    assert np.all(wg.low_mask(BEFORE, 0.3).sum(axis=(-2, -1)) == 9)
    assert np.all(wg.principal_mask(BEFORE, 2, 1.0))


def test_overlap_and_jaccard_of_small_masks():
    other = np.array([[True, True], [False, False]])
    assert wg.overlap(other, MASK) == pytest.approx(2.0)
    assert wg.overlap(MASK, other) == pytest.approx(2.0)
    assert wg.jaccard(other, MASK) == pytest.approx(0.5)
    assert wg.jaccard(~MASK & MASK, ~MASK & MASK) == 1
    assert wg.bernoulli_jaccard(0.2, 0.3) == pytest.approx(0.136364, abs=1e-6)
    assert wg.bernoulli_jaccard(0, 0) == 1


@pytest.mark.parametrize("kind", wg.NULLS)
def test_null_updates_keep_the_norm_of_every_matrix(kind):
    update = AFTER - BEFORE
    made = wg.null_update(update, 1, kind)
    np.testing.assert_allclose(np.linalg.norm(made, axis=(-2, -1)), np.linalg.norm(update, axis=(-2, -1)))
    if kind == "signs":
        np.testing.assert_allclose(np.abs(made), np.abs(update))
    if kind == "constant":
        assert np.allclose(np.abs(made), np.abs(made[:, :1, :1]))
    assert np.abs(np.mean(np.sign(made))) < 0.4
    np.testing.assert_array_equal(wg.null_update(np.zeros((2, 2)), 0, kind), np.zeros((2, 2)))


NAN = np.full((2, 2), np.nan)


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
        (lambda: wg.bf16_ulp(np.inf), "x"),
        (lambda: wg.rounding_cell(np.nan), "x"),
        (lambda: wg.rounding_cell(3.4e38), "x"),
        (lambda: wg.visible(np.ones(2), np.ones(3)), "after"),
        (lambda: wg.visible(np.ones(2), np.ones(2), -1.0), "eta"),
        (lambda: wg.visible(np.array([np.nan]), np.ones(1)), "before"),
        (lambda: wg.expected_visibility(1.0, np.inf), "change"),
        (lambda: wg.expected_visibility(np.nan, 1.0), "weights"),
        (lambda: wg.principal_mask(np.eye(2), 3, 0.5), "rank"),
        (lambda: wg.principal_mask(np.eye(2), 1, 0.0), "share"),
        (lambda: wg.low_mask(NAN, 0.5), "weights"),
        (lambda: wg.low_mask(np.eye(2), 1.5), "share"),
        (lambda: wg.overlap(MASK, MASK[:1]), "mask"),
        (lambda: wg.overlap(MASK, np.zeros((2, 2), dtype=bool)), "mask"),
        (lambda: wg.jaccard(MASK[0], MASK[0]), "a"),
        (lambda: wg.bernoulli_jaccard(1.2, 0.1), "p"),
        (lambda: wg.null_update(NAN, 0), "update"),
        (lambda: wg.null_update(np.eye(2), 0, "noise"), "kind"),
        (lambda: wg.null_update(np.eye(2), -1), "rng"),
    ],
)
def test_the_door_names_the_argument(call, names):
    with pytest.raises(ValueError, match=names):
        call()
