"""Shrinking: the smallest and roundest instance that still breaks the claim, whatever found the first one.

Greedy descent: leave out an outcome, a state, a step (every size down to its least), then make numbers rounder, field
by field, the roundest first, until nothing helps. Every step stays inside the space and is accepted only if the
violation is confirmed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from klsim.spaces import Space

__all__ = ["shrink"]

Draw = Mapping[str, Any]


def shrink(space: Space, drawn: Draw, broken: Callable[[Draw], bool], evaluations: int) -> Draw:
    """The end of the descent; ``broken`` judges a draw, at most ``evaluations`` times."""
    left = evaluations
    improved = True
    while improved and left > 0:
        improved = False
        for stage in (_smaller, _rounder):
            for candidate in stage(space, drawn):
                if left <= 0:
                    return drawn
                left -= 1
                if broken(candidate):
                    drawn, improved = candidate, True
                    break
            if improved:
                break
    return drawn


def _smaller(space: Space, drawn: Draw) -> Iterator[Draw]:
    """One entry of one size left out, everywhere."""
    for name, size in space.sizes.items():
        current = int(drawn[name])
        if current <= size.low:
            continue
        dims = {other: int(drawn[other]) for other in space.sizes}
        for index in reversed(range(current)):
            try:
                new = {
                    field: kind.without(drawn[field], name, index, dims)
                    for field, kind in space.fields.items()
                    if field not in space.sizes
                }
            except (ValueError, TypeError, IndexError):
                continue
            legal = space.legal({**drawn, **new, name: current - 1})
            if legal is not None:
                yield legal


def _rounder(space: Space, drawn: Draw) -> Iterator[Draw]:
    for field, kind in space.fields.items():
        if field in space.sizes:
            continue
        for value in kind.simpler(drawn[field]):
            legal = space.legal({**drawn, field: value})
            if legal is not None:
                yield legal
