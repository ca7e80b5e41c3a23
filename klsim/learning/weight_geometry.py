r"""What an update does to weight matrices: subspaces, spectra, rank; and masks of weights, how far they overlap.

With ``W0`` and ``W+ = W0 + dW``, singular values ``s_1 >= s_2 >= ...`` and the gap ``g_k = s_k(W0) - s_{k+1}(W0)``:

* the top-k singular subspaces turn by principal angles whose largest sine is at most ``x/(1 - x)``, ``x = |dW|_2/g_k``
  (Wedin's theorem with Weyl's on the gap that remains); 2x bounds it too, and no smaller multiple of x does. The worst
  rotation at a given x is ``sin(arcsin(2x)/2)`` up to x = 1/2, and a right angle beyond (`worst_rotation`);
* singular values move by at most ``|dW|_2`` each, ``|dW|_F`` together.

Matrices are the last two axes; leading axes are a batch. Masks are compared over the last axis, ``(..., n)`` (of a
matrix: ``reshape(*lead, -1)``); the chance level of an overlap is the density of the *other* mask. What a stored
precision shows of an update, and updates to compare it with: `klsim.learning.update_sparsity`.

Sources: ``path-not-taken`` C4-C8 (Zhu et al. 2025, arXiv 2511.08567), ``small-subnetworks`` C1, C2, C7 (Mukherjee et
al. 2025, arXiv 2505.11711).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate

__all__ = [
    "Overlap",
    "PrincipalAngles",
    "SpectralDrift",
    "bernoulli_jaccard",
    "jaccard",
    "low_mask",
    "overlap",
    "principal_angles",
    "principal_mask",
    "rank_fraction",
    "singular_gap",
    "spectral_drift",
    "wedin_bound",
    "worst_rotation",
]


def _matrices(name: str, value: Any) -> np.ndarray:
    (found,) = _validate.numpy_arrays(**{name: value})
    if found.ndim < 2 or 0 in found.shape:
        _validate.fail(name, f"needs matrices on the last two axes, got shape {found.shape}")
    index = _validate.first_true(np, ~(np.abs(found).astype(np.float64) <= 1e150))
    if index is not None:
        _validate.fail(name, "must be finite (and at most 1e150 in size)", float(found[index]), index)
    return found


def _pair(before: Any, after: Any) -> tuple[np.ndarray, np.ndarray]:
    before, after = _matrices("before", before), _matrices("after", after)
    if before.shape != after.shape:
        _validate.fail("after", f"must have the shape of before {before.shape}, got {after.shape}")
    return before.astype(np.float64), after.astype(np.float64)


def _rank(k: Any, shape: tuple[int, ...], name: str = "k") -> int:
    return _validate.integer(name, k, low=1, high=min(shape[-2:]))


# subspaces ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PrincipalAngles:
    """Angles in radians, ascending, between the top-k ``left`` (and ``right``) singular subspaces, ``(..., k)``."""

    left: np.ndarray
    right: np.ndarray

    @property
    def largest_sine(self) -> np.ndarray:
        """``|sin Theta|_2``, of the side that turns more, ``(...)``."""
        return np.asarray(np.sin(np.maximum(self.left[..., -1], self.right[..., -1])))


def principal_angles(before: Any, after: Any, k: int) -> PrincipalAngles:
    """Angles between the top-k singular subspaces of two matrices.

    Cosines are the singular values of ``U0^T U+``, sines those of ``U+ - U0 U0^T U+``; the angle is taken from both, so
    that small ones are not lost to ``arccos``. Where ``s_k = s_{k+1}`` a subspace is not unique, and neither are these.

    Args:
        before, after: ``(..., m, n)``. k: 1 to ``min(m, n)``.

    Raises:
        ValueError: different shapes, entries that are not finite, k out of range.
    """
    before, after = _pair(before, after)
    k = _rank(k, before.shape)
    (u0, _, v0), (u1, _, v1) = (np.linalg.svd(w, full_matrices=False) for w in (before, after))
    left = _angles(u0[..., :k], u1[..., :k])
    return PrincipalAngles(left, _angles(*(np.swapaxes(v[..., :k, :], -1, -2) for v in (v0, v1))))


def _angles(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    shared = np.swapaxes(old, -1, -2) @ new
    cosines = np.linalg.svd(shared, compute_uv=False)
    sines = np.linalg.svd(new - old @ shared, compute_uv=False)[..., ::-1]
    return np.asarray(np.arctan2(sines, cosines))


def singular_gap(weights: Any, k: int) -> np.ndarray:
    """``s_k - s_{k+1}`` of every matrix, with ``s_{min(m, n) + 1} = 0``, ``(...)``.

    Raises:
        ValueError: entries that are not finite, k out of range.
    """
    weights = _matrices("weights", weights)
    k = _rank(k, weights.shape)
    values = np.linalg.svd(weights.astype(np.float64), compute_uv=False)
    below = values[..., k] if k < values.shape[-1] else 0.0
    return np.asarray(values[..., k - 1] - below)


def wedin_bound(x: Any) -> np.ndarray:
    """``min(1, x/(1 - x))``: what ``|sin Theta|_2`` is at most for ``x = |dW|_2/g_k``; never above ``2x``.

    Raises:
        ValueError: a negative x, NaN.
    """
    (x,) = _validate.numpy_arrays(x=x)
    _validate.budgets("x", np, x)
    return np.where(x < 0.5, x / (1 - np.minimum(x, 0.5)), 1.0)


def worst_rotation(x: Any) -> np.ndarray:
    """The largest ``|sin Theta|_2`` for ``x = |dW|_2/g_k``: ``sin(arcsin(2x)/2)`` for x <= 1/2, else 1.

    For symmetric positive ``W0`` and symmetric ``dW`` this is Davis and Kahan's sin 2 Theta theorem; that other
    matrices do no worse was found by numerical maximisation (``path-not-taken`` C4), and is not proved here.

    Raises:
        ValueError: a negative x, NaN.
    """
    (x,) = _validate.numpy_arrays(x=x)
    _validate.budgets("x", np, x)
    return np.where(x <= 0.5, np.sin(np.arcsin(2 * np.minimum(x, 0.5)) / 2), 1.0)


# spectra --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SpectralDrift:
    """How far an update moves the singular values.

    Attributes:
        change: ``s_i(W+) - s_i(W0)``, ``(..., r)``.
        relative: ``|s(W+) - s(W0)|_2 / |s(W0)|_2``, the normalised spectral shift, ``(...)``.
        spectral, frobenius: norms of ``dW``, ``(...)``.
    """

    change: np.ndarray
    relative: np.ndarray
    spectral: np.ndarray
    frobenius: np.ndarray

    @property
    def ky_fan(self) -> np.ndarray:
        """Changes of the Ky Fan norms ``s_1 + ... + s_k``, k = 1 ... r, ``(..., r)``."""
        return np.asarray(np.cumsum(self.change, axis=-1))


def spectral_drift(before: Any, after: Any) -> SpectralDrift:
    """Changes of the singular values beside the norms of the update.

    Args:
        before, after: ``(..., m, n)``.

    Raises:
        ValueError: different shapes, entries that are not finite, a matrix of zeros before.
    """
    before, after = _pair(before, after)
    old, new, moved = (np.linalg.svd(w, compute_uv=False) for w in (before, after, after - before))
    size = np.linalg.norm(old, axis=-1)
    index = _validate.first_true(np, size == 0)
    if index is not None:
        _validate.fail("before", "must not be a matrix of zeros", index=index)
    change = new - old
    return SpectralDrift(change, np.linalg.norm(change, axis=-1) / size, moved[..., 0], np.linalg.norm(moved, axis=-1))


def rank_fraction(update: Any) -> np.ndarray:
    """Numerical rank over ``min(m, n)``: singular values above ``max(m, n) eps`` of the largest count, ``(...)``.

    ``eps`` is that of the array's own precision (float64 for integers).

    Args:
        update: ``(..., m, n)``.

    Raises:
        ValueError: fewer than two axes, an empty matrix, entries that are not finite.
    """
    update = _matrices("update", update)
    return np.asarray(np.linalg.matrix_rank(update) / min(update.shape[-2:]))


# masks ----------------------------------------------------------------------------------------------
def principal_mask(weights: Any, rank: int, share: float) -> np.ndarray:
    """The ``share`` of entries with the largest size in the best approximation of that rank, of every matrix.

    Args:
        weights: ``(..., m, n)``. rank: 1 to ``min(m, n)``. share: in (0, 1], rounded to whole entries, at least one.

    Raises:
        ValueError: entries that are not finite, rank or share out of range.
    """
    weights = _matrices("weights", weights)
    rank = _rank(rank, weights.shape, "rank")
    u, s, v = np.linalg.svd(weights, full_matrices=False)
    near = (u[..., :rank] * s[..., None, :rank]) @ v[..., :rank, :]
    return _largest(np.abs(near), share)


def low_mask(weights: Any, share: float) -> np.ndarray:
    """The ``share`` of entries of the smallest size, of every matrix.

    Args:
        weights: ``(..., m, n)``. share: in (0, 1], rounded to whole entries, at least one.

    Raises:
        ValueError: entries that are not finite, a share out of range.
    """
    return _largest(-np.abs(_matrices("weights", weights)), share)


def _largest(size: np.ndarray, share: float) -> np.ndarray:
    share = _validate.real("share", share, low=0.0, high=1.0, open_low=True)
    flat = size.reshape(*size.shape[:-2], -1)
    count = max(1, round(share * flat.shape[-1]))
    chosen = np.argpartition(-flat, count - 1, axis=-1)[..., :count]
    out = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(out, chosen, True, axis=-1)
    return out.reshape(size.shape)


def _masks(**named: Any) -> list[np.ndarray]:
    (one, first), (other, second) = named.items()
    first = _validate.boolean_mask(one, first)
    if not first.ndim or not first.shape[-1]:
        _validate.fail(one, f"must have shape (..., n), n >= 1, got {first.shape}")
    return [first, _validate.boolean_mask(other, second, first.shape)]


@dataclass(frozen=True)
class Overlap:
    """One-sided overlaps of two masks and what independent uniform masks of the same sizes would have on average.

    Attributes:
        first, second: ``|I1 & I2|/|I1|`` and ``|I1 & I2|/|I2|``.
        first_chance, second_chance: ``|I2|/n`` and ``|I1|/n``: the density of the *other* mask.
    """

    first: np.ndarray
    second: np.ndarray
    first_chance: np.ndarray
    second_chance: np.ndarray

    @property
    def over_chance(self) -> np.ndarray:
        """``n |I1 & I2| / (|I1| |I2|)``, the same for both sides: 1 is chance."""
        return np.asarray(self.first / self.first_chance)


def overlap(first: Any, second: Any) -> Overlap:
    """Overlap of two boolean masks ``(..., n)``, over the last axis.

    Raises:
        ValueError: shapes that differ, a mask without a coordinate.
    """
    first, second = _masks(first=first, second=second)
    sizes = []
    for name, mask in (("first", first), ("second", second)):
        sizes.append(mask.sum(axis=-1))
        index = _validate.first_true(np, np.asarray(sizes[-1] == 0))
        if index is not None:
            _validate.fail(name, "needs a coordinate that is True: the overlap is 0/0", index=index)
    both, n = (first & second).sum(axis=-1), first.shape[-1]
    return Overlap(both / sizes[0], both / sizes[1], sizes[1] / n, sizes[0] / n)


def jaccard(a: Any, b: Any) -> np.ndarray:
    """``|a & b| / |a | b|`` of two boolean masks ``(..., n)``, over the last axis; 1 if both are empty.

    Raises:
        ValueError: different shapes.
    """
    a, b = _masks(a=a, b=b)
    union = (a | b).sum(axis=-1)
    return np.asarray(np.where(union > 0, (a & b).sum(axis=-1) / np.maximum(union, 1), 1.0))


def bernoulli_jaccard(p: Any, q: Any) -> np.ndarray:
    """``p q / (p + q - p q)``: the Jaccard index of large independent masks of densities p and q; 1 if both are 0.

    Raises:
        ValueError: densities outside [0, 1].
    """
    p, q = _validate.numpy_arrays(p=p, q=q)
    _validate.broadcast(p=_validate.unit_interval("p", np, p), q=_validate.unit_interval("q", np, q))
    union = p + q - p * q
    return np.asarray(np.where(union > 0, p * q / np.where(union > 0, union, 1.0), 1.0))
