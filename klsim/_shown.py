"""How results show themselves: a line in a terminal, a table in a notebook."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from typing import Any

__all__ = ["Shown"]

_FEW = 6  # entries of an array that are written out


def brief(value: Any) -> str:
    """A number with four digits, a short array, or the shape of a long one."""
    if isinstance(value, bool | str | int) or value is None:
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"{len(value)} levels" if len(value) and hasattr(value[0], "shape") else repr(value)
    shape = getattr(value, "shape", None)
    if shape is None:
        return repr(value)
    if len(shape) == 0:
        return f"{float(value):.4g}"
    if len(shape) == 1 and shape[0] <= _FEW:
        return "[" + ", ".join(f"{float(x):.4g}" for x in value) + "]"
    return f"array {tuple(shape)}"


class Shown:
    """A dataclass (``repr=False``) whose arrays are not poured out."""

    __slots__ = ()

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={text}" for name, text in self._brief())
        return f"{type(self).__name__}({inner})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self._brief())
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"

    def _brief(self) -> list[tuple[str, str]]:
        return [(f.name, brief(getattr(self, f.name))) for f in fields(self) if f.repr]  # type: ignore[arg-type]
