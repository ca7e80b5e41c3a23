"""mkdocstrings reads docstrings through this: a Griffe extension that turns them into the site's Markdown."""

from __future__ import annotations

from typing import Any

from griffe import Class, Extension, Function, Object

from docs.builder.dialect import from_docstring, one_a_line

__all__ = ["Docstrings"]


class Docstrings(Extension):
    """Rewrites every docstring once, when its object has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        module = obj.path if obj.is_module else obj.module.path
        text = obj.docstring.value
        if isinstance(obj, Function):
            text = one_a_line(text, {p.name.lstrip("*") for p in obj.parameters})
        elif isinstance(obj, Class):
            text = one_a_line(text, set(obj.members))
        obj.docstring.value = from_docstring(text, module)
