r"""What an update does to weight matrices: subspaces, spectra, what bfloat16 shows; and updates without structure.

With ``W0`` and ``W+ = W0 + dW``, singular values ``s_1 >= s_2 >= ...`` and the gap ``g_k = s_k(W0) - s_{k+1}(W0)``:

* the top-k singular subspaces turn by principal angles whose largest sine is at most ``x/(1 - x)``, ``x = |dW|_2/g_k``
  (Wedin's theorem with Weyl's on the gap that remains); 2x bounds it too, and no smaller multiple of x does. The worst
  rotation at a given x is ``sin(arcsin(2x)/2)`` up to x = 1/2, and a right angle beyond (`worst_rotation`);
* singular values move by at most ``|dW|_2`` each, ``|dW|_F`` together;
* stored in bfloat16 (8 significant bits), a change shows only where it leaves the cell of reals that round to the same
  number (`rounding_cell`). Small weights have small cells, so that *any* update shows there first.

The last point makes masks of visible changes alike without any structure in the update; a mask is evidence of structure
only beside that of a `null_update` of the same norm.

Matrices are the last two axes; leading axes are a batch. Source: ``path-not-taken`` C4-C8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.networks import rounded

__all__ = [
    "PrincipalAngles",
    "SpectralDrift",
    "bernoulli_jaccard",
    "bf16_ulp",
    "expected_visibility",
    "jaccard",
    "low_mask",
    "null_update",
    "overlap",
    "principal_angles",
    "principal_mask",
    "rounding_cell",
    "singular_gap",
    "spectral_drift",
    "visible",
    "wedin_bound",
    "worst_rotation",
]

NULLS = ("gaussian", "constant", "signs")
_SMALLEST = 2.0**-126  # of the normal numbers


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


# what bfloat16 shows ------------------------------------------------------------------------------------
def bf16_ulp(x: Any) -> np.ndarray:
    """Unit in the last place of bfloat16: ``2^(floor(log2 |x|) - 7)``, ``2^-133`` below the normal numbers.

    Raises:
        ValueError: x that is not finite.
    """
    (x,) = _validate.numpy_arrays(x=x)
    _validate.finite("x", np, x)
    exponent = np.frexp(np.maximum(np.abs(x).astype(np.float64), _SMALLEST))[1]
    return np.asarray(np.ldexp(1.0, exponent - 8))


def rounding_cell(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """``(low, high)``: the reals between them are stored as the same bfloat16 number as x.

    Half a unit to each side of that number; a quarter towards 0 if it is a power of two, where the spacing halves. The
    ends themselves (ties) belong to the cell of the even number.

    Raises:
        ValueError: x that is not finite, or rounds to infinity.
    """
    (x,) = _validate.numpy_arrays(x=x)
    stored = rounded(_validate.finite("x", np, x), "bfloat16").astype(np.float64)
    _validate.representable("x", np, stored)
    size, ulp = np.abs(stored), bf16_ulp(stored)
    inwards = np.where((np.frexp(size)[0] == 0.5) & (size > _SMALLEST), 0.25, 0.5) * ulp
    near, far = size - inwards, size + 0.5 * ulp
    return np.where(stored < 0, -far, near), np.where(stored < 0, -near, far)


def visible(before: Any, after: Any, eta: float = 1e-3) -> np.ndarray:
    """Whether a change shows in bfloat16: ``|b - a| > eta max(|a|, |b|)`` of the rounded numbers.

    For normal numbers and any ``eta < 2^-8`` that is ``a != b``: neighbours differ by ``2^-8`` of the larger at least.

    Args:
        before, after: of one shape, any precision.

    Raises:
        ValueError: different shapes, numbers that are not finite, a negative eta.
    """
    before, after = _validate.numpy_arrays(before=before, after=after)
    if before.shape != after.shape:
        _validate.fail("after", f"must have the shape of before {before.shape}, got {after.shape}")
    eta = _validate.real("eta", eta, low=0.0)
    a, b = (
        rounded(_validate.finite(name, np, w), "bfloat16").astype(np.float64)
        for name, w in (("before", before), ("after", after))
    )
    _validate.representable("before", np, a)
    _validate.representable("after", np, b)
    return np.asarray(np.abs(b - a) > eta * np.maximum(np.abs(a), np.abs(b)))


def expected_visibility(weights: Any, change: Any) -> np.ndarray:
    """``min(1, |change| / ulp(weight))``: the chance that a change shows if the weight's place in its cell is uniform.

    So it is for weights that were not bfloat16 numbers before; one that is sits in the middle of its cell, and its
    change shows beyond half a unit. Exact for steps that stay within a binade.

    Args:
        weights, change: shapes that broadcast.

    Raises:
        ValueError: numbers that are not finite, shapes that do not broadcast.
    """
    weights, change = _validate.numpy_arrays(weights=weights, change=change)
    _validate.broadcast(weights=_validate.finite("weights", np, weights), change=_validate.finite("change", np, change))
    return np.asarray(np.minimum(1.0, np.abs(change) / bf16_ulp(weights)))


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
    found = [_validate.boolean_mask(name, value) for name, value in named.items()]
    for (name, _), mask in zip(named.items(), found):
        if mask.ndim < 2 or mask.shape != found[0].shape:
            _validate.fail(name, f"needs matrices of shape {found[0].shape} on the last two axes, got {mask.shape}")
    return found


def overlap(reference: Any, mask: Any) -> np.ndarray:
    """Share of ``mask`` inside ``reference`` over the density of ``reference``: 1 is chance, ``(...)``.

    Args:
        reference, mask: ``(..., m, n)`` of booleans.

    Raises:
        ValueError: different shapes, an empty mask or reference.
    """
    reference, mask = _masks(reference=reference, mask=mask)
    for name, value in (("reference", reference), ("mask", mask)):
        index = _validate.first_true(np, ~value.any(axis=(-2, -1)))
        if index is not None:
            _validate.fail(name, "must not be empty", index=index)
    shared = (reference & mask).sum(axis=(-2, -1)) / mask.sum(axis=(-2, -1))
    return np.asarray(shared / reference.mean(axis=(-2, -1)))


def jaccard(a: Any, b: Any) -> np.ndarray:
    """``|a and b| / |a or b|`` of boolean matrices, ``(...)``; 1 if both are empty.

    Raises:
        ValueError: different shapes.
    """
    a, b = _masks(a=a, b=b)
    union = (a | b).sum(axis=(-2, -1))
    return np.asarray(np.where(union > 0, (a & b).sum(axis=(-2, -1)) / np.maximum(union, 1), 1.0))


def bernoulli_jaccard(p: Any, q: Any) -> np.ndarray:
    """``p q / (p + q - p q)``: the Jaccard index of large independent masks of densities p and q; 1 if both are 0.

    Raises:
        ValueError: densities outside [0, 1].
    """
    p, q = _validate.numpy_arrays(p=p, q=q)
    _validate.broadcast(p=_validate.unit_interval("p", np, p), q=_validate.unit_interval("q", np, q))
    union = p + q - p * q
    return np.asarray(np.where(union > 0, p * q / np.where(union > 0, union, 1.0), 1.0))


def null_update(
    update: Any, rng: np.random.Generator | int, kind: Literal["gaussian", "constant", "signs"] = "gaussian"
) -> np.ndarray:
    """An update without structure, of the same Frobenius norm matrix by matrix.

    ``gaussian``: independent normal entries. ``constant``: one size with independent random signs. ``signs``: the
    update's own sizes with independent random signs. Give a generator of its own: one that also made the weights is
    correlated with them.

    Args:
        update: ``(..., m, n)``.

    Raises:
        ValueError: entries that are not finite, an unknown kind.
    """
    update, rng = _matrices("update", update), _validate.generator(rng)
    _validate.one_of("kind", kind, NULLS)
    if kind == "gaussian":
        made = rng.standard_normal(update.shape)
    else:
        made = np.where(rng.random(update.shape) < 0.5, -1.0, 1.0) * (np.abs(update) if kind == "signs" else 1.0)
    wanted, got = (np.linalg.norm(w.astype(np.float64), axis=(-2, -1), keepdims=True) for w in (update, made))
    return np.asarray((made * (wanted / np.where(got > 0, got, 1.0))).astype(update.dtype))
