"""Is a violation more than rounding? It is judged again with every input moved by a few units in the last place.

A true violation stays, and its size hardly changes. What rounding makes up changes by its own size, or disappears.
Equal numbers move alike (ties stay ties) and whole numbers stay. Where there is nothing to move, or no nudged input
is accepted, it has to be more than a billionth of terms of order one. Without a scale from the author a violation
within
a few hundred ulp of order one never counts: `klsim` cannot know then that the terms were not of order one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from klsim.claims.kinds import InstanceKind, Measured
from klsim.spaces import structure

__all__ = ["HINT", "is_confirmed"]

HINT = "within rounding of its inputs; give the magnitude of what was added up: return (lhs, rhs, scale), or scale=…"
"""Said of a violation that rounding of the inputs could explain."""

_NUDGES = 8
_ORDER_ONE, _ROUNDING = 1e-9, 1e-13


def is_confirmed(
    kind: InstanceKind,
    measure: Callable[[Mapping[str, Any]], Measured | None],
    instance: Mapping[str, Any],
    rng: np.random.Generator,
) -> bool:
    """Whether the violation on ``instance`` survives nudged inputs. ``measure`` evaluates one instance."""
    first = measure(instance)
    if first is None or first.excess[0] <= kind.tolerance:
        return False
    gap = _gap(first)
    if not np.isfinite(gap):
        return True
    again = []
    for _ in range(_NUDGES):
        try:
            nudged = {name: structure.nudge(value, rng) for name, value in instance.items()}
            if _same(nudged, instance):
                break
            measured = measure(nudged)
        except (ValueError, TypeError, ArithmeticError):
            continue  # the nudged input is not accepted
        if measured is not None:
            again.append(measured)
    order_one = max(1.0, float(first.magnitude[0]))
    if not first.scaled and gap <= _ROUNDING * order_one:
        return False
    large = gap > _ORDER_ONE * order_one
    if not again:
        return first.scaled or large
    surviving = sum(m.excess[0] > kind.tolerance for m in again)
    steady = np.median([abs(_gap(m) - gap) for m in again]) <= 0.25 * gap
    return bool(surviving >= 0.75 * len(again) and steady)


def _gap(measured: Measured) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.abs(measured.lhs[0] - measured.rhs[0]))


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(_equal(a[name], b[name]) for name in a)


def _equal(a: Any, b: Any) -> bool:
    parts, others = structure.children(a), structure.children(b)
    if parts:
        return all(_equal(v, others[k]) for k, v in parts.items())
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return a is b or bool(np.all(a == b))
