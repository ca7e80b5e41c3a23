r"""Functions of the subsets of a small ground set: interactions, what removals do, and searches for subsets.

A set function on ``K = {0 … n-1}`` is an array ``(..., 2^n)``; bit k of the place says whether the subset has k: the
last entry is the value of K, and ``2^n - 1 - M`` is the complement of M.

*Interactions.* ``v(S) = sum_{T in S} d(T)`` with Harsanyi's dividends d (`dividends`, `from_dividends`). ``v`` is
supermodular (complements) if all second differences ``v(S+i+j) - v(S+i) - v(S+j) + v(S)`` are ``>= 0``, submodular
(substitutes) if all are ``<= 0`` (`interaction_range`).

*Removals.* ``f(M) = v(K \ M) - v(K)`` (`removal_change`). With complements ``f(M) >= sum_{k in M} f({k})``: what may go
alone may go together. With substitutes ``<=``: two copies of the same may each go, not both (`worst_joint_removal`).

*Searches.* `best_between` maximises v over ``required <= S <= allowed``, ties to the fewest elements;
`constrained_search` lets it remove anything out of the near-best single removals, `search_survivors` removes all of
them first, `leave_one_out` keeps what may not go alone. `minimal_sufficient`: subsets that reach a level while no part
of them does.

Source: ``knowrl`` C1-C3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate

__all__ = [
    "best_between",
    "constrained_search",
    "dividends",
    "from_dividends",
    "interaction_range",
    "joint_removal",
    "leave_one_out",
    "members",
    "minimal_sufficient",
    "near_best_removals",
    "removable",
    "removal_change",
    "search_evaluations",
    "search_survivors",
    "single_removals",
    "sizes",
    "worst_joint_removal",
]

TIE = 1e-12
"""Values closer than this, relative to the largest of the function (at least 1), tie: rounding does not choose."""


def _function(values: Any, name: str = "values") -> tuple[np.ndarray, int]:
    """``(values, n)``: float64 with ``2^n`` entries on the last axis."""
    (given,) = _validate.numpy_arrays(**{name: values})
    given = _validate.finite(name, np, given).astype(np.float64)
    count = given.shape[-1] if given.ndim else 0
    if count < 1 or count & (count - 1):
        _validate.fail(name, f"needs 2^n entries on the last axis, got shape {given.shape}")
    if np.abs(given).max(initial=0.0) > 1e100:
        _validate.fail(name, "must be at most 1e100 in size")
    return given, count.bit_length() - 1


def _ground(n: int) -> int:
    n = _validate.integer("n", n, low=0)
    _validate.outcomes("2", 2, "n", n, each=8 * max(n, 1))
    return n


def _slack(values: np.ndarray) -> np.ndarray:
    """What counts as a tie in each function, ``(..., 1)``."""
    return np.asarray(TIE * np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1.0))


def _codes(mask: np.ndarray) -> np.ndarray:
    """Places of subsets ``(..., n)``."""
    return np.asarray(mask @ (1 << np.arange(mask.shape[-1], dtype=np.int64)), dtype=np.int64)


def members(n: int) -> np.ndarray:
    """Which elements each subset has, ``(2^n, n)`` boolean."""
    n = _ground(n)
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1


def sizes(n: int) -> np.ndarray:
    """How many elements each subset has, ``(2^n,)``."""
    return np.asarray(members(n).sum(axis=-1))


def _along(values: np.ndarray, n: int, sign: int) -> np.ndarray:
    """Adds to every subset with k (``sign`` times) the entry of the same subset without k, k after k."""
    out = values.copy()
    for k in range(n):
        pairs = out.reshape(*out.shape[:-1], out.shape[-1] >> (k + 1), 2, 1 << k)
        pairs[..., 1, :] += sign * pairs[..., 0, :]
    return out


def from_dividends(dividends: Any) -> np.ndarray:
    """``v(S) = sum over T in S of d(T)``, ``(..., 2^n)``."""
    return _along(*_function(dividends, "dividends"), 1)


def dividends(values: Any) -> np.ndarray:
    """``d(S) = sum over T in S of (-1)^(|S| - |T|) v(T)``, ``(..., 2^n)``: the inverse of `from_dividends`."""
    return _along(*_function(values), -1)


def interaction_range(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest second difference ``v(S+i+j) - v(S+i) - v(S+j) + v(S)``, ``(...)`` each; 0 below two elements.

    Least ``>= 0``: supermodular; largest ``<= 0``: submodular; both 0 (to rounding): additive.
    """
    values, n = _function(values)
    low, high = (np.full(values.shape[:-1], end) for end in (math.inf, -math.inf))
    place = np.arange(2**n)
    for i in range(n):
        for j in range(i):
            without = place[(place >> i & 1 == 0) & (place >> j & 1 == 0)]
            with_i, with_j = without + (1 << i), without + (1 << j)
            both = with_i + (1 << j)
            change = values[..., both] - values[..., with_i] - values[..., with_j] + values[..., without]
            low, high = np.minimum(low, change.min(axis=-1)), np.maximum(high, change.max(axis=-1))
    return (low, high) if n > 1 else (np.zeros_like(low), np.zeros_like(high))


def removal_change(values: Any) -> np.ndarray:
    """``f(M) = v(K \\ M) - v(K)`` for every M, ``(..., 2^n)``."""
    values, _ = _function(values)
    return np.asarray(values[..., ::-1] - values[..., -1:])


def single_removals(values: Any) -> np.ndarray:
    """``f({k})``, ``(..., n)``."""
    change = removal_change(values)
    return np.asarray(change[..., 1 << np.arange(change.shape[-1].bit_length() - 1)])


def _tolerated(values: np.ndarray, tolerance: Any) -> np.ndarray:
    """How far below still counts, ``(..., 1)``: the tolerance and rounding."""
    (tolerance,) = _validate.numpy_arrays(tolerance=tolerance)
    _validate.budgets("tolerance", np, _validate.finite("tolerance", np, tolerance))
    _validate.broadcast(values=values[..., 0], tolerance=tolerance)
    return np.asarray(tolerance[..., None] + _slack(values))


def removable(values: Any, tolerance: Any = 0.0) -> np.ndarray:
    """``R = {k : v(K \\ k) >= v(K) - tolerance}``: what may go alone, ``(..., n)`` boolean.

    Args:
        tolerance: ``>= 0``, a number or one a function ``(...)``.
    """
    values, _ = _function(values)
    return np.asarray(single_removals(values) >= -_tolerated(values, tolerance))


def near_best_removals(values: Any, tolerance: Any = 0.0) -> np.ndarray:
    """``N = {k : v(K \\ k) >= max_j v(K \\ j) - tolerance}``, ``(..., n)`` boolean; grows with the tolerance."""
    values, _ = _function(values)
    single = single_removals(values)
    top = single.max(axis=-1, keepdims=True, initial=-math.inf)
    return np.asarray(single >= top - _tolerated(values, tolerance))


def _family(required: np.ndarray, allowed: np.ndarray, n: int) -> np.ndarray:
    """Which subsets lie between the two, ``(..., 2^n)``."""
    place, low, high = np.arange(2**n), _codes(required)[..., None], _codes(allowed)[..., None]
    return np.asarray((low & ~place == 0) & (place & ~high == 0))


def best_between(values: Any, required: Any = None, allowed: Any = None) -> np.ndarray:
    """Place of the best subset S with ``required <= S <= allowed``, ``(...)`` integers.

    Of subsets that tie (to `TIE`) the one with the fewest elements, of these the first.

    Args:
        values: ``(..., 2^n)``. required, allowed: ``(..., n)`` boolean; None is nothing, and everything.

    Raises:
        ValueError: something required that is not allowed, shapes that do not fit.
    """
    values, n = _function(values)
    ends = []
    for name, mask, default in (("required", required, False), ("allowed", allowed, True)):
        mask = np.full(n, default) if mask is None else _validate.boolean_mask(name, mask)
        if mask.ndim < 1 or mask.shape[-1] != n:
            _validate.fail(name, f"must have shape (..., {n}), got {mask.shape}")
        ends.append(mask)
    _validate.broadcast(values=values[..., 0], required=ends[0].any(axis=-1), allowed=ends[1].any(axis=-1))
    index = _validate.first_true(np, ends[0] & ~ends[1])
    if index is not None:
        _validate.fail("required", "has an element that is not allowed", index=index)
    reach = np.where(_family(ends[0], ends[1], n), values, -math.inf)
    tied = reach >= reach.max(axis=-1, keepdims=True) - _slack(values)
    return np.asarray(np.argmin(np.where(tied, sizes(n), n + 1), axis=-1))


def leave_one_out(values: Any, tolerance: Any = 0.0) -> np.ndarray:
    """``K \\ R(tolerance)``: keeps what may not go alone, ``(...)`` integers."""
    return _codes(~removable(values, tolerance))


def constrained_search(values: Any, tolerance: Any = 0.0) -> np.ndarray:
    """The best ``K \\ M`` over M within `near_best_removals`, ties to the fewest elements, ``(...)`` integers.

    Its value is at least that of K, of every single removal, and of `leave_one_out` where that removes nothing outside
    of the near-best ones; it does not fall as the tolerance grows.
    """
    return best_between(values, required=~near_best_removals(values, tolerance))


def search_survivors(values: Any, tolerance: Any = 0.0) -> np.ndarray:
    """Removes all `near_best_removals`, then takes the best subset of the rest, ``(...)`` integers.

    It need not be as good as K: the removals were judged one by one.
    """
    return best_between(values, allowed=~near_best_removals(values, tolerance))


def search_evaluations(n: int, candidates: Any) -> np.ndarray:
    """Subsets that `constrained_search` has to know: ``n + 2^c - c`` for c candidates among n elements.

    K and its single removals, ``n + 1``; then every joint removal of at least two candidates, ``2^c - c - 1``.
    """
    n = _ground(n)
    candidates = _validate.integers("candidates", candidates, low=0, high=n)
    return np.asarray(n + 2**candidates - candidates)


def minimal_sufficient(values: Any, level: Any) -> np.ndarray:
    """Subsets with ``v(S) >= level`` of which no proper subset has that, ``(..., 2^n)`` boolean.

    Args:
        level: a number, or one a function ``(...)``.
    """
    values, n = _function(values)
    (level,) = _validate.numpy_arrays(level=level)
    _validate.finite("level", np, level)
    _validate.broadcast(values=values[..., 0], level=level)
    enough = values >= level[..., None] - _slack(values)
    return np.asarray(enough & (_along(enough.astype(np.int64), n, 1) == 1))


def joint_removal(values: Any, tolerance: Any = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """``(m, f(R))``: how many elements may go alone, and what removing all of them together changes, ``(...)`` each."""
    gone = removable(values, tolerance)
    change = removal_change(values)
    change = np.broadcast_to(change, (*gone.shape[:-1], change.shape[-1]))
    together = np.take_along_axis(change, _codes(gone)[..., None], axis=-1)[..., 0]
    return np.asarray(gone.sum(axis=-1)), np.asarray(together)


def worst_joint_removal(values: Any, tolerance: Any = 0.0) -> np.ndarray:
    """``min f(M)`` over the M within R(tolerance) that have at least two elements, ``(...)``; ``inf`` if there is none.

    With tolerance 0 it is negative iff elements that may each go alone lose together: never for supermodular functions.
    """
    gone, change = removable(values, tolerance), removal_change(values)
    inside = _family(np.zeros_like(gone), gone, gone.shape[-1]) & (sizes(gone.shape[-1]) >= 2)
    return np.asarray(np.where(inside, change, math.inf).min(axis=-1))
