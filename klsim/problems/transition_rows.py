"""Rows of transition probabilities, checked and made to sum to 1: dense arrays, CSR matrices, successor lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from klsim import _validate

__all__ = ["is_successors", "numpy_only", "probabilities", "sparse_rows", "successor_rows"]


def numpy_only(name: str, value: Any) -> np.ndarray:
    """``value`` as a floating NumPy array.

    Raises:
        TypeError: an array of another library (a problem is NumPy only), or no array.
    """
    _, array = _validate.arrays(**{name: value})
    if not isinstance(array, np.ndarray | np.generic):
        raise TypeError(f"{name}: must be a NumPy array, got {type(value).__name__}; problems are NumPy only")
    return np.asarray(array)


def _tolerance(value: Any) -> float:
    """How far a sum may be from 1: the square root of the epsilon of the input, 1e-8 at least."""
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype) or dtype.kind != "f":
        return 1e-8
    return max(1e-8, float(np.sqrt(np.finfo(dtype).eps)))


def probabilities(name: str, value: Any) -> np.ndarray:
    """Rows of probabilities on the last axis, made to sum to 1 (to rounding of the input's dtype they have to)."""
    array = numpy_only(name, value)
    array = np.asarray(_validate.budgets(name, np, _validate.finite(name, np, array)), dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        _validate.fail(name, f"needs a non-empty last axis, got shape {array.shape}")
    with np.errstate(over="ignore"):  # an infinite sum is not 1 either
        total = array.sum(axis=-1, keepdims=True)
    index = _validate.first_true(np, np.abs(total[..., 0] - 1) > _tolerance(value))
    if index is not None:
        _validate.fail(name, "probabilities must sum to 1", float(total[..., 0][index]), index)
    return array / total


def sparse_rows(name: str, value: Any, states: int, actions: int) -> sparse.csr_array:
    """A SciPy sparse matrix ``(S A, S)``, row ``s A + a``, as canonical CSR with rows that sum to 1.

    Raises:
        ValueError: another shape, entries that are negative or not finite, rows that do not sum to 1.
    """
    if value.shape != (states * actions, states):
        wanted = f"(S A, S) = ({states * actions}, {states})"
        _validate.fail(name, f"a sparse transition must have shape {wanted}, row s A + a; got {value.shape}")
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name}: must hold real numbers, got dtype {value.dtype}")
    tolerance = _tolerance(value)
    rows = sparse.csr_array(value, dtype=np.float64, copy=True)
    bad = _validate.first_true(np, ~(np.isfinite(rows.data) & (rows.data >= 0)))
    if bad is not None:
        row = int(np.searchsorted(rows.indptr, bad[0], side="right")) - 1
        _validate.fail(name, "must be finite and >= 0", float(rows.data[bad]), (row, int(rows.indices[bad])))
    rows.sum_duplicates()
    rows.eliminate_zeros()
    with np.errstate(over="ignore"):
        total = np.asarray(rows.sum(axis=1)).ravel()
    index = _validate.first_true(np, ~(np.abs(total - 1) <= tolerance))
    if index is not None:
        _validate.fail(name, "probabilities must sum to 1", float(total[index]), index)
    rows.data /= np.repeat(total, np.diff(rows.indptr))
    return rows


def is_successors(value: Any) -> bool:
    """Whether ``value`` is a tuple of an integer and a float array: ``(successor, probability)``."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(x, np.ndarray) for x in value):
        return False
    return value[0].dtype.kind in "iu" and value[1].dtype.kind == "f"


def successor_rows(name: str, successor: Any, probability: Any, states: int, actions: int) -> sparse.csr_array:
    """CSR rows from ``successor`` and ``probability``, both ``(S, A, K)``; repeated successors add up.

    Raises:
        ValueError: other shapes, unknown states, rows that are not distributions.
    """
    index = _validate.integers(f"{name}[0]", successor, low=0, high=states - 1)
    weight = numpy_only(f"{name}[1]", probability)
    if index.ndim != 3 or index.shape[:2] != (states, actions) or weight.shape != index.shape or not index.shape[2]:
        shapes = f"{index.shape} and {weight.shape}"
        _validate.fail(
            name, f"successors and probabilities must both have shape ({states}, {actions}, K), got {shapes}"
        )
    kind = np.int32 if index.size < 2**31 else np.int64
    starts = np.arange(0, index.size + 1, index.shape[2], dtype=kind)
    shape = (states * actions, states)
    return sparse_rows(
        name, sparse.csr_array((weight.ravel(), index.astype(kind).ravel(), starts), shape), states, actions
    )
