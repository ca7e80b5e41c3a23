"""Sparsity, overlap, rank and nulls of updates against hand-worked values; training a part against torch; bad input."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from klsim.learning import SGD, Adam
from klsim.learning.networks import rounded, start_all, update
from klsim.learning.update_sparsity import (
    changed,
    expected_sparsity,
    null_update,
    overlap,
    rank_fraction,
    spacing,
    sparsity,
    train_part,
)

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


def test_overlap_of_the_worked_masks():
    n = np.arange(10)
    found = overlap(n < 4, (n >= 2) & (n < 5))
    assert (found.first, found.second, found.first_chance, found.second_chance) == (0.5, pytest.approx(2 / 3), 0.3, 0.4)
    both = overlap(np.stack([n < 4, n < 1]), np.stack([n < 4, n > 5]))
    assert both.first.tolist() == [1.0, 0.0]


def test_rank_of_diagonals_rows_and_products():
    rng = np.random.default_rng(2)
    row = np.zeros((5, 8))
    row[3] = rng.standard_normal(8)
    product = rng.standard_normal((8, 2)) @ rng.standard_normal((2, 5))
    assert rank_fraction(np.diag([1.0, -2.0, 3.0])) == 1
    assert rank_fraction(row) == 1 / 5
    assert rank_fraction(product) == pytest.approx(2 / 5)
    assert rank_fraction(product.astype(np.float32)) == pytest.approx(2 / 5)
    assert rank_fraction(np.zeros((2, 3, 3))).tolist() == [0, 0]


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


# training -----------------------------------------------------------------------------------------------
TARGET = np.random.default_rng(5).standard_normal((2, 6)).astype(np.float32)


def towards(parameters, step):
    return np.float32(0.1 * (step + 1)) * (parameters - TARGET)


@pytest.mark.parametrize(
    "optimiser", [SGD(0.1), Adam(0.01), Adam(0.03, beta1=0.5, beta2=0.9, epsilon=1e-3, weight_decay=0.1)]
)
def test_without_a_mask_it_is_the_optimiser_of_the_library(optimiser):
    held, states = (np.zeros((2, 6), np.float32),), start_all(optimiser, [TARGET])
    for step in range(20):
        held, states = update(states, held, [towards(held[0], step)], storage="float32")
    found = train_part(np.zeros((2, 6)), towards, optimiser, 20, record=[20])
    np.testing.assert_allclose(found.parameters, held[0], rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(found.snapshots[20], found.parameters)
    assert found.touched.all()


def test_adam_is_torchs():
    torch = pytest.importorskip("torch")
    theirs = torch.zeros(2, 6, requires_grad=True)
    optimiser = torch.optim.AdamW([theirs], lr=0.02, eps=1e-12, weight_decay=0.1)
    for step in range(30):
        theirs.grad = torch.tensor(towards(theirs.detach().numpy(), step))
        optimiser.step()
    found = train_part(np.zeros((2, 6)), towards, Adam(0.02, epsilon=1e-12, weight_decay=0.1), 30).parameters
    np.testing.assert_allclose(found, theirs.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_outside_of_the_mask_nothing_moves():
    mask = np.array([True, False, True, True, False, False])
    optimiser, start = Adam(0.01, weight_decay=0.1), np.ones((2, 6))
    found, full = (train_part(start, towards, optimiser, 9, mask=m) for m in (mask, None))
    assert (found.parameters[:, ~mask] == 1).all()
    np.testing.assert_array_equal(
        found.parameters[:, mask], full.parameters[:, mask]
    )  # coordinates do not interact here
    assert found.touched.all()


def test_touched_is_where_a_gradient_ever_was():
    def gradient(parameters, step):
        out = np.zeros(4)
        out[step] = (-1) ** step
        return out

    found = train_part(np.zeros(4), gradient, SGD(1.0), 3, record=[1, 2])
    assert found.touched.tolist() == [True, True, True, False]
    assert found.snapshots[1].tolist() == [-1, 0, 0, 0]
    assert found.snapshots[2].tolist() == [-1, 1, 0, 0]


def test_bfloat16_storage_loses_small_steps():
    start = np.ones(3)
    lost, kept = (train_part(start, lambda p, t: np.ones(3), SGD(1e-3), 10, storage=s) for s in ("bfloat16", "float32"))
    assert (lost.parameters == 1).all()
    np.testing.assert_allclose(kept.parameters, 0.99, atol=1e-6)


def test_long_and_transposed_starts_are_stepped_whole():
    start = np.asfortranarray(np.random.default_rng(6).standard_normal((3, 40_000)).astype(np.float32))
    optimiser, goal = Adam(0.1, weight_decay=0.1), np.ones((3, 40_000), np.float32)
    found = train_part(start, lambda p, t: p - goal, optimiser, 3).parameters
    for row, column in ((0, 0), (1, 20_000), (2, 39_999)):
        alone = train_part(start[row, column : column + 1], lambda p, t: p - 1, optimiser, 3).parameters
        assert found[row, column] == alone[0]


def test_the_input_is_left_alone():
    start = np.zeros(6, dtype=np.float32)
    train_part(start, lambda p, t: np.ones(6), SGD(1.0), 2)
    assert (start == 0).all()
    assert (train_part(start, lambda p, t: np.ones(6), SGD(1.0), 0).parameters == 0).all()


# doors ---------------------------------------------------------------------------------------------------
TRUE = np.array([True, False])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: spacing([NAN]), "x"),
        (lambda: spacing([1.0], "float16"), "storage"),
        (lambda: changed([1.0, 2.0], [1.0]), "after"),
        (lambda: changed([], []), "after"),
        (lambda: changed([NAN], [1.0]), "before"),
        (lambda: changed([1.0], [np.inf]), "after"),
        (lambda: changed([1.0], [1e300]), "after"),
        (lambda: sparsity([1.0], [1.0], absolute=-1.0), "absolute"),
        (lambda: sparsity([1.0], [1.0], relative=NAN), "relative"),
        (lambda: sparsity([1.0], [1.0], storage="half"), "storage"),
        (lambda: expected_sparsity([1.0], [1.0, 2.0]), "change"),
        (lambda: expected_sparsity([1.0], [NAN]), "change"),
        (lambda: overlap(TRUE, np.array([True, False, True])), "second"),
        (lambda: overlap(TRUE, ~TRUE & TRUE), "second"),
        (lambda: overlap(np.zeros((2, 3), bool), np.ones((2, 3), bool)), "first"),
        (lambda: rank_fraction([1.0]), "update"),
        (lambda: rank_fraction(np.zeros((0, 2))), "update"),
        (lambda: rank_fraction([[NAN]]), "update"),
        (lambda: null_update([1.0], "uniform"), "kind"),
        (lambda: null_update([NAN], "signs"), "update"),
        (lambda: null_update([], "signs"), "update"),
        (lambda: null_update([1.0], "signs", -1), "rng"),
        (lambda: train_part([NAN], lambda p, t: p, SGD(1.0), 1), "start"),
        (lambda: train_part([1e300], lambda p, t: p, SGD(1.0), 1), "start"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), -1), "steps"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), 1, record=[2]), "record"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), 1, mask=np.array([[True], [True]])), "mask"),
        (lambda: train_part([1.0, 2.0], lambda p, t: p, SGD(1.0), 1, mask=np.ones(3, bool)), "mask"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), 1, storage="float64"), "storage"),
        (lambda: train_part([1.0], lambda p, t: np.ones(2), SGD(1.0), 1), "gradient"),
        (lambda: train_part([1.0], lambda p, t: [NAN], SGD(1.0), 1), "gradient"),
        (lambda: train_part([1.0], lambda p, t: [1e16], SGD(1.0), 1), "gradient"),
        (lambda: train_part([1.0], lambda p, t: p, Adam(1.0, epsilon=0.0), 1), "optimiser"),
        (lambda: train_part([1.0], lambda p, t: p, Adam(1.0, taken=1), 1), "optimiser"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1e50), 1), "optimiser"),
    ],
)
def test_bad_input_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: overlap([1, 0], TRUE), "first"),
        (lambda: expected_sparsity([1.0], [1.0], on_grid=1), "on_grid"),
        (lambda: train_part([1.0], lambda p, t: p, "adam", 1), "optimiser"),
        (lambda: changed(["a"], ["b"]), "before"),
    ],
)
def test_other_kinds_are_type_errors(call, words):
    with pytest.raises(TypeError, match=words):
        call()
