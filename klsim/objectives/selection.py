"""Choosing objectives by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from klsim import _validate
from klsim.objectives.registry import OBJECTIVES

__all__ = ["choose"]


def choose(names: Sequence[str]) -> list[str]:
    """The named objectives (all if none); a name also selects its variants.

    Raises:
        ValueError: an unknown name, with near ones.
    """
    out: list[str] = []
    for name in names:
        found = [n for n in OBJECTIVES if n == name or n.startswith((f"{name},", f"{name} "))]
        if not found:
            near = difflib.get_close_matches(name, OBJECTIVES, n=3, cutoff=0.4)
            _validate.fail("name", f"no such objective; near names: {', '.join(near) or 'none'}", name)
        out += found
    return [name for name in OBJECTIVES if name in out or not out]
