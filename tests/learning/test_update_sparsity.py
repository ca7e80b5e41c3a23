"""What a stored precision shows of an update, against ml_dtypes and hand-worked values; null updates; bad input."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from klsim.learning.networks import rounded
from klsim.learning.update_sparsity import changed, expected_sparsity, null_update, rounding_cell, spacing, sparsity

NAN = float("nan")


# what shows ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("storage", ["bfloat16", "float32", "float64"])
def test_spacing_is_the_distance_to_the_next_stored_number(storage):
    x = rounded(np.random.default_rng(0).standard_normal(200) * 10.0 ** np.arange(-20, 20, 0.2), storage)
    x = np.append(x, [1.0, 2.0, 0.0, -0.5, 2.0**-126])
    if storage == "bfloat16":
        held = np.abs(x).astype(ml_dtypes.bfloat16)
        above = (held.view(np.uint16) + np.uint16(1)).view(ml_dtypes.bfloat16)
        expected = above.astype(float) - held.astype(float)
    else:
        expected = np.spacing(np.abs(x).astype(storage)).astype(float)
    np.testing.assert_array_equal(spacing(x, storage), expected)


def test_units_of_worked_numbers():
    np.testing.assert_array_equal(spacing([1, 0.02, 3, -3, 0]), [2.0**-7, 2.0**-13, 2.0**-6, 2.0**-6, 2.0**-133])
    assert spacing(2.0**-130) == 2.0**-133


@pytest.mark.parametrize("scale", [1.0, 1e-39, 1e-3, 1e30])
def test_cells_are_where_ml_dtypes_rounds_to_the_same_number(scale):
    x = np.append(
        scale * np.random.default_rng(8).standard_normal(300), np.sign(scale) * 2.0 ** np.round(np.log2(scale))
    )
    stored = x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(float)
    low, high = rounding_cell(stored)
    width = high - low
    for inside in (low + 0.01 * width, high - 0.01 * width):
        np.testing.assert_array_equal(inside.astype(np.float32).astype(ml_dtypes.bfloat16).astype(float), stored)
    for outside in (low - 0.01 * width, high + 0.01 * width):
        assert np.all(outside.astype(np.float32).astype(ml_dtypes.bfloat16).astype(float) != stored)


def test_cells_of_float32():
    low, high = rounding_cell([1.0, -1.5, 0.0, 2.0**-126], "float32")
    np.testing.assert_array_equal(low, [1 - 2.0**-25, -1.5 - 2.0**-24, -(2.0**-150), 2.0**-126 - 2.0**-150])
    np.testing.assert_array_equal(high, [1 + 2.0**-24, -1.5 + 2.0**-24, 2.0**-150, 2.0**-126 + 2.0**-150])


def test_a_change_shows_from_half_a_unit_on_the_grid():
    start = np.array([1.0, 1.0, 1.0, 0.01])
    after = start + np.array([0.9, 1.1, -1.1, 0.7]) * np.array([2.0**-8, 2.0**-8, 2.0**-9, 2.0**-14])
    assert changed(start, after).tolist() == [False, True, True, True]
    assert changed(start, after, storage="float64").all()
    assert sparsity(start, after) == 0.25


def test_tolerances_add_and_are_of_the_stored_values():
    before, after = np.array([1.0, 2.0, 1.0 + 2.0**-10]), np.array([1.0, 2.0 + 2.0**-6, 1.0])
    assert changed(before, after).tolist() == [False, True, False]
    assert changed(before, after, absolute=2.0**-6).tolist() == [False, False, False]
    assert changed(before, after, absolute=2.0**-7).tolist() == [False, True, False]
    assert changed(before, after, absolute=2.0**-7, relative=2.0**-8).tolist() == [False, False, False]


def test_the_relative_tolerance_is_of_the_larger_either_way():
    before, after = np.array([1.0, 1.0, 0.02, -3.0]), np.array([1.0039, 1.006, 0.02001, -3.0])
    for a, b in ((before, after), (after, before)):
        assert changed(a, b, relative=1e-3).tolist() == [False, True, False, False]
        assert not changed(a, b, relative=0.01).any()
        assert changed(2.0 - 2.0**-7, 2.0, relative=2.0**-8 * 0.999)
        assert not changed(2.0 - 2.0**-7, 2.0, relative=2.0**-8)


def test_the_closed_form_is_the_share_of_uniform_places():
    places = 1.25 + 2.0**-7 * np.random.default_rng(9).uniform(-0.5, 0.5, 200_000)
    seen = sparsity(places, places + 0.002)
    assert seen == pytest.approx(float(expected_sparsity([1.25], [0.002])), abs=5 * np.sqrt(0.25 / 200_000))
    assert expected_sparsity([1.0], [1.0]) == 0
    assert expected_sparsity([1e-40], [1e308]) == 0


@pytest.mark.parametrize("on_grid", [False, True])
def test_sizes_tell_the_sparsity(on_grid):
    rng = np.random.default_rng(1)
    weights = 0.1 * rng.standard_normal(50_000)
    weights = rounded(weights, "bfloat16").astype(float) if on_grid else weights
    change = 3e-4 * rng.standard_normal(weights.size)
    # shares of 50,000 weights: a deviation of .0022; powers of two are passed by about 1 in 200
    assert expected_sparsity(weights, change, on_grid=on_grid) == pytest.approx(
        sparsity(weights, weights + change), abs=0.01
    )
    assert expected_sparsity([1.0, 1.0], [2.0**-8, 2.0**-6]) == 0.25
    assert expected_sparsity([1.0, 1.0], [2.0**-9, 1.1 * 2.0**-8], on_grid=True) == 0.5
    assert expected_sparsity([1.0], [2.0**-8], on_grid=True) == 1.0  # half a unit is a tie: it stays
    rows = expected_sparsity(np.ones((2, 1, 2)), [[[2.0**-8, 2.0**-6]], [[0.0, 0.0]]])
    np.testing.assert_array_equal(rows, [[0.25], [1.0]])


@pytest.mark.parametrize("kind", ["gaussian", "constant", "signs"])
def test_nulls_keep_the_norm_and_lose_the_direction(kind):
    given = np.random.default_rng(3).standard_normal((2, 20_000))
    null = null_update(given, kind, 4)
    np.testing.assert_allclose(np.linalg.norm(null, axis=-1), np.linalg.norm(given, axis=-1))
    norms = np.linalg.norm(null, axis=-1) * np.linalg.norm(given, axis=-1)
    # random signs: a deviation of sqrt(3/20,000); the others have less
    assert np.all(np.abs(np.sum(null * given, axis=-1) / norms) < 5 * np.sqrt(3 / 20_000))
    if kind == "signs":
        np.testing.assert_array_equal(np.abs(null), np.abs(given))
    if kind == "constant":
        assert np.ptp(np.abs(null[0])) < 1e-12
    np.testing.assert_array_equal(null, null_update(given, kind, 4))
    assert (null_update(np.zeros(3), kind) == 0).all()
    assert null_update(given.astype(np.float32), kind, 4).dtype == np.float64


# doors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: spacing([NAN]), "x"),
        (lambda: spacing([1.0], "float16"), "storage"),
        (lambda: rounding_cell(NAN), "x"),
        (lambda: rounding_cell(3.4e38), "x"),
        (lambda: rounding_cell(1.0, "float64"), "storage"),
        (lambda: changed([1.0, 2.0], [1.0]), "after"),
        (lambda: sparsity([], []), "before"),
        (lambda: sparsity(1.0, 1.0), "before"),
        (lambda: changed([NAN], [1.0]), "before"),
        (lambda: changed([1.0], [np.inf]), "after"),
        (lambda: changed([1.0], [1e300]), "after"),
        (lambda: sparsity([1.0], [1.0], absolute=-1.0), "absolute"),
        (lambda: sparsity([1.0], [1.0], relative=NAN), "relative"),
        (lambda: sparsity([1.0], [1.0], storage="half"), "storage"),
        (lambda: expected_sparsity([1.0], [1.0, 2.0]), "change"),
        (lambda: expected_sparsity([1.0], [NAN]), "change"),
        (lambda: expected_sparsity([NAN], [1.0]), "weights"),
        (lambda: expected_sparsity([], []), "change"),
        (lambda: null_update([1.0], "uniform"), "kind"),
        (lambda: null_update([NAN], "signs"), "update"),
        (lambda: null_update([1e200], "gaussian"), "update"),
        (lambda: null_update([], "signs"), "update"),
        (lambda: null_update([1.0], "signs", -1), "rng"),
    ],
)
def test_bad_input_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: expected_sparsity([1.0], [1.0], on_grid=1), "on_grid"),
        (lambda: changed(["a"], ["b"]), "before"),
    ],
)
def test_other_kinds_are_type_errors(call, words):
    with pytest.raises(TypeError, match=words):
        call()
