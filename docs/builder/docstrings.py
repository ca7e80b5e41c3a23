"""mkdocstrings reads docstrings through this: a Griffe extension that turns them into the site's Markdown."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object

from docs.builder.dialect import from_docstring

__all__ = ["Docstrings"]


class Docstrings(Extension):
    """Rewrites every docstring once, when its object has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            module = obj.module.path if not obj.is_module else obj.path
            obj.docstring.value = from_docstring(obj.docstring.value, module)
