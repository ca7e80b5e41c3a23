"""Which numbers the doors let in: seen while every public callable is called, and written down.

A range is part of the interface, as a default is (`tests.test_api`): ``python -m tests.test_door_ranges`` writes
``tests/ranges.txt`` anew. Bounds that depend on other arguments are written as ``…``.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from klsim import _validate
from tests import fuzzing

FILE = Path(__file__).with_name("ranges.txt")
OTHERS = ("_validate", "audit.", "spaces.", "claims.")  # what is made once a process is not seen again
CALLS = 12  # of every callable: arguments that get past the first doors


def seen() -> dict[tuple[str, str, str], set[str]]:
    """``(function, argument, door) -> texts of the range``."""
    found: dict[tuple[str, str, str], set[str]] = {}

    def watched(door: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(name: str, value: Any, *rest: Any, **options: Any) -> Any:
            code = sys._getframe(1).f_code
            module = code.co_filename.rpartition("klsim/")[2].removesuffix(".py").replace("/", ".")
            if module and isinstance(name, str) and not module.startswith(OTHERS):
                key = (f"{module}.{code.co_qualname}", name, door)
                found.setdefault(key, set()).add(_text(door, rest, options))
            return original(name, value, *rest, **options)

        return call

    kept = {door: getattr(_validate, door) for door in ("real", "integer", "integers", "unit_interval", "one_of")}
    try:
        for door, original in kept.items():
            setattr(_validate, door, watched(door, original))
        for name, call in fuzzing.targets().items():
            for k in range(CALLS):
                _call(call, np.random.default_rng([k, *name.encode()]))
    finally:
        for door, original in kept.items():
            setattr(_validate, door, original)
    return found


def _call(call: Callable[..., Any], rng: np.random.Generator) -> None:
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        call(**fuzzing.arguments_for(call, rng))


def _text(door: str, rest: tuple[Any, ...], options: dict[str, Any]) -> str:
    if door == "one_of":
        return " ".join(map(str, rest[0] if rest else options["choices"]))
    if door == "unit_interval":
        return "(0, 1)" if options.get("open_ends") else "[0, 1]"
    low, high = options.get("low"), options.get("high")
    left, right = "(" if options.get("open_low") else "[", ")" if options.get("open_high") else "]"
    return f"{left}{low}, {high}{right}"


def lines() -> Iterator[str]:
    for (function, name, door), texts in sorted(seen().items()):
        yield f"{function} {name}: {door} {texts.pop() if len(texts) == 1 else '…'}"


def test_the_ranges_are_as_written_down():
    kept, now = set(FILE.read_text(encoding="utf-8").splitlines()), set(lines())
    assert (sorted(kept - now), sorted(now - kept)) == ([], []), (
        "if it is meant: CHANGELOG.md, and python -m tests.test_door_ranges"
    )


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
