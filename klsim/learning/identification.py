"""Which combination of population gradients is a gradient? The smallest one that leaves only rounding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Combination", "distinct_columns", "smallest_combination"]


@dataclass(frozen=True)
class Combination:
    """A gradient as ``sum c_k grad F_k``; ``residual``: the share left over; ``exact``: it is rounding."""

    coefficients: Mapping[str, float]
    residual: float
    exact: bool


def distinct_columns(columns: Mapping[str, np.ndarray], *, smallest: float = 0.0) -> dict[str, np.ndarray]:
    """Without columns no larger than ``smallest`` and, of collinear ones, all but the first."""
    kept: dict[str, np.ndarray] = {}
    directions: list[np.ndarray] = []
    for name, column in columns.items():
        size = float(np.linalg.norm(column))
        if size <= smallest:
            continue
        unit = column / size
        if all(min(np.linalg.norm(unit - d), np.linalg.norm(unit + d)) > 1e-9 for d in directions):
            kept[name] = column
            directions.append(unit)
    return kept


def smallest_combination(
    columns: Mapping[str, np.ndarray], gradient: np.ndarray, *, exact: float, zero: float, most: int = 3
) -> Combination:
    """The smallest combination of at most ``most`` columns that leaves less than ``exact``, else the best one.

    Args:
        columns: flat gradients by name, distinct. exact: share of the gradient that counts as rounding. zero: the same
            for the whole gradient beside the largest column.
    """
    size = float(np.linalg.norm(gradient))
    if size <= zero * max(float(np.linalg.norm(c)) for c in columns.values()):
        return Combination({}, 0.0, True)
    names = list(columns)
    matrix = np.stack([columns[n] / np.linalg.norm(columns[n]) for n in names], axis=1)
    best: tuple[float, tuple[int, ...]] = (math.inf, ())
    for count in range(1, min(most, len(names)) + 1):
        found = min((_left(matrix[:, list(p)], gradient) / size, p) for p in _candidates(matrix, gradient, count))
        if found[0] < 0.999 * best[0]:  # a term has to earn its place
            best = found
        if best[0] < exact:
            break
    chosen = list(best[1])
    solved = np.linalg.lstsq(matrix[:, chosen], gradient, rcond=None)[0]
    coefficients = {names[i]: float(c / np.linalg.norm(columns[names[i]])) for i, c in zip(chosen, solved)}
    return Combination(coefficients, best[0], best[0] < exact)


def _left(matrix: np.ndarray, gradient: np.ndarray) -> float:
    solved = np.linalg.lstsq(matrix, gradient, rcond=None)[0]
    return float(np.linalg.norm(gradient - matrix @ solved))


def _candidates(matrix: np.ndarray, gradient: np.ndarray, count: int, keep: int = 12) -> Sequence[tuple[int, ...]]:
    """The most promising subsets of columns, from their Gram matrices."""
    subsets = np.array(list(itertools.combinations(range(matrix.shape[1]), count)))
    gram, b = matrix.T @ matrix, matrix.T @ gradient
    grams = gram[subsets[:, :, None], subsets[:, None, :]] + 1e-13 * np.eye(count)
    rights = b[subsets]
    explained = np.sum(rights * np.linalg.solve(grams, rights[..., None])[..., 0], axis=1)
    order = np.argsort(-explained, kind="stable")[:keep]
    return [tuple(int(i) for i in subsets[k]) for k in order]
