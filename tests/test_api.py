"""The public interface, name by name with its defaults: what changes here has to be meant, and stand in CHANGELOG.md.

``python -m tests.test_api`` writes ``tests/api.txt`` anew.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import klsim

FILE = Path(__file__).with_name("api.txt")


def public_modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages(klsim.__path__, "klsim.")]
    return ["klsim", *(n for n in found if not re.search(r"\._|__main__|\.kernels|\.scaffold|verl_plugin", n))]


def shown(value: Any) -> str:
    text = repr(value)
    return type(value).__name__ if " at 0x" in text or callable(value) else text


def parameters(function: Any) -> str:
    parts, star = [], False
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            parts, star = [*parts, "*"], True
        star |= p.kind is p.VAR_POSITIONAL
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        parts.append(prefix + p.name + ("" if p.default is p.empty else f"={shown(p.default)}"))
    return f"({', '.join(parts)})"


def lines() -> Iterator[str]:
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        for name in sorted(getattr(module, "__all__", ())):
            value = getattr(module, name)
            if getattr(value, "__module__", module_name) != module_name:
                yield f"{module_name}.{name}"  # defined elsewhere, public here too
            elif inspect.isclass(value):
                yield from of_class(f"{module_name}.{name}", value)
            elif callable(value):
                yield f"{module_name}.{name}{parameters(value)}"
            else:
                yield f"{module_name}.{name}"


def of_class(name: str, cls: type) -> Iterator[str]:
    if is_dataclass(cls):
        has_default = {f.name: f.default is not MISSING for f in fields(cls)}
        inner = [f.name + (f"={shown(f.default)}" if has_default[f.name] else "") for f in fields(cls) if f.init]
        yield f"{name}({', '.join(i for i in inner if not i.startswith('_'))})"
    else:
        yield name
    for method, value in sorted(vars(cls).items()):
        if method.startswith("_"):
            continue
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(value):
            yield f"{name}.{method}{parameters(value)}"
        elif isinstance(value, property) or type(value).__name__ == "cached_property":
            yield f"{name}.{method}"


def test_the_public_interface_is_as_written_down():
    kept, now = FILE.read_text(encoding="utf-8").splitlines(), list(lines())
    gone, new = sorted(set(kept) - set(now)), sorted(set(now) - set(kept))
    assert not gone + new, "if it is meant: CHANGELOG.md, and python -m tests.test_api"


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
