"""Which files a claim's verdict depends on: its paper's, the engine's, and those of the library functions that it ran,
with all that they import."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import klsim
from klsim.claims.environment import file_hashes

__all__ = ["code_of", "digest", "imported", "unchanged"]

ROOT = Path(klsim.__file__).parent
ENGINE = ("klsim.claims", "klsim.claims.runner", "klsim.claims.kinds", "klsim.spaces")


def digest(folder: Path, functions: Iterable[str]) -> str:
    """SHA-256 over the files that decide a claim of the paper in ``folder`` that runs ``functions`` of the library."""
    modules = imported((*ENGINE, *(module for f in functions if (module := _module(f)))))
    total = hashlib.sha256()
    for name, value in sorted(file_hashes(folder).items()):
        total.update(f"{name} {value}\n".encode())
    for module in sorted(modules):
        total.update(f"{module} {_hash(module)}\n".encode())
    return total.hexdigest()


def code_of(folder: Path) -> str:
    """SHA-256 over the files of a paper's folder and all of klsim that they import."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.py")))
    return digest(folder, {name for tree in trees for name in _named(tree)})


def unchanged(record: Mapping[str, Any], folder: Path) -> bool:
    """Whether a claim's record in a certificate still speaks for the files as they are."""
    functions = {f for check in record["checks"] for f in check["library"]}
    kept = record.get("sources", "")
    return bool(kept) and not record["stale"] and kept == digest(folder, functions)


def imported(modules: Iterable[str]) -> frozenset[str]:
    """Modules of klsim that these import, directly or not, in functions too; themselves included."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += _imports(module)
    return frozenset(found)


@cache
def _imports(module: str) -> tuple[str, ...]:
    path = _file(module)
    if path is None:
        return ()
    return tuple(dict.fromkeys(_named(ast.parse(path.read_text(encoding="utf-8")))))


def _named(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (module for a in node.names if (module := _module(a.name)))
        elif isinstance(node, ast.ImportFrom) and (module := _module(node.module or "")):
            yield module
            yield from (inner for a in node.names if _file(inner := f"{node.module}.{a.name}") is not None)


def _module(name: str) -> str:
    """The module of klsim that holds a dotted name; empty if it is none of klsim's."""
    while name.startswith("klsim") and _file(name) is None:
        name = name.rpartition(".")[0]
    return name if name.startswith("klsim") else ""


@cache
def _file(module: str) -> Path | None:
    if module != "klsim" and not module.startswith("klsim."):
        return None
    base = ROOT.joinpath(*module.split(".")[1:])
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


@cache
def _hash(module: str) -> str:
    path = _file(module)
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
