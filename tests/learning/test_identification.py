"""Columns that count once, however they are scaled and whatever their sign."""

from __future__ import annotations

import numpy as np

from klsim.learning.identification import distinct_columns, smallest_combination


def test_collinear_columns_are_one():
    x, y = np.array([1.0, 2.0, -1.0]), np.array([0.0, 1.0, 1.0])
    columns = {"x": x, "-3 x": -3 * x, "y": y, "2 y": 2 * y, "nothing": 1e-9 * x}
    assert list(distinct_columns(columns, smallest=1e-6)) == ["x", "y"]


def test_the_smallest_combination_is_found():
    columns = {"a": np.array([1.0, 0.0, 0.0]), "b": np.array([1.0, 1.0, 0.0]), "c": np.array([0.0, 1.0, 1.0])}
    found = smallest_combination(columns, 2 * columns["a"] - columns["c"], exact=1e-9, zero=1e-12)
    assert found.exact
    assert {name: round(x, 12) for name, x in found.coefficients.items()} == {"a": 2.0, "c": -1.0}
