"""The public names of klsim, read from its source: what every module's ``__all__`` says, and where each is defined."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

__all__ = ["Module", "Name", "address", "problems", "public_modules", "resolve"]

ROOT = Path(__file__).parents[2]
PACKAGE = "klsim"


@dataclass(frozen=True)
class Name:
    """A public name: where it is documented, and its documentation.

    Attributes:
        name: as exported.
        home: the module whose reference page documents it, ``klsim.optima``; of a module itself, its own name.
        text: its docstring, empty if there is none.
        is_module: whether it is a module.
    """

    name: str
    home: str
    text: str
    is_module: bool = False

    @property
    def address(self) -> str:
        """The identifier that references resolve to."""
        return self.home if self.is_module else f"{self.home}.{self.name}"


@dataclass(frozen=True)
class Module:
    """A module, as its source has it.

    Attributes:
        name: ``klsim.optima``.
        file: of its source.
        text: its docstring.
        exports: ``__all__``, None without one.
        defined: docstring of what it defines at the top level.
        imported: local name to ``(module, name)`` of what it imports from klsim.
    """

    name: str
    file: Path
    text: str
    exports: tuple[str, ...] | None
    defined: dict[str, str] = field(repr=False)
    imported: dict[str, tuple[str, str]] = field(repr=False)

    @property
    def is_package(self) -> bool:
        return self.file.name == "__init__.py"

    @property
    def is_public(self) -> bool:
        parts = self.name.split(".")[1:]
        return self.exports is not None and not any(part.startswith("_") for part in parts)


@lru_cache(maxsize=1)
def modules(root: Path = ROOT) -> dict[str, Module]:
    """Every module of the package."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    names = (".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for f in files)
    return {name: _read(name, file) for name, file in zip(names, files, strict=True)}


def _read(name: str, file: Path) -> Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    exports: tuple[str, ...] | None = None
    defined: dict[str, str] = {}
    imported: dict[str, tuple[str, str]] = {}
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        match statement:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                defined[statement.name] = ast.get_docstring(statement) or ""
            case ast.ImportFrom(module=str(source)) if source.split(".")[0] == PACKAGE:
                imported |= {alias.asname or alias.name: (source, alias.name) for alias in statement.names}
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                for target in (n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)):
                    if target.id == "__all__" and statement.value is not None:
                        exports = tuple(ast.literal_eval(statement.value))
                    else:
                        defined[target.id] = _constant_text(following)
    return Module(name, file, ast.get_docstring(tree) or "", exports, defined, imported)


def _constant_text(statement: ast.stmt | None) -> str:
    """The docstring below an assignment."""
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""


def public_modules() -> dict[str, Module]:
    """Modules that export something and have no underscore in their path."""
    return {name: module for name, module in modules().items() if module.is_public}


def exported(module: Module) -> Iterator[Name]:
    """Every name that a module exports."""
    for name in module.exports or ():
        yield resolve(module, name)


def resolve(module: Module, name: str) -> Name:
    """Follow an exported name to the public module that documents it.

    Raises:
        ValueError: it is neither defined, imported, nor in a module below.
    """
    known = modules()
    if name in module.defined:
        return Name(name, module.name, module.defined[name])
    if name in module.imported:
        source, original = module.imported[name]
        if f"{source}.{original}" in known:
            return _module_name(f"{source}.{original}")
        found = resolve(known[source], original)
        home = known[found.home]
        if home.is_public and found.name in (home.exports or ()):
            return found
        return Name(name, module.name, found.text)
    if f"{module.name}.{name}" in known:
        return _module_name(f"{module.name}.{name}")
    below = [m for m in known.values() if m.name.startswith(f"{module.name}.") and name in m.defined and m.is_public]
    if len(below) == 1:
        return Name(name, below[0].name, below[0].defined[name])
    raise ValueError(f"{module.name}: __all__ has {name}, which is defined nowhere")


def _module_name(name: str) -> Name:
    return Name(name.rpartition(".")[2], name, modules()[name].text, is_module=True)


def documented_here(module: Module) -> list[Name]:
    """What the reference page of a module documents: what it exports and no other public module documents."""
    return [n for n in exported(module) if n.home == module.name and not n.is_module]


@lru_cache(maxsize=1)
def _addresses() -> dict[str, str]:
    """Every dotted path by which a public name can be reached, to its address."""
    found = {name: name for name in public_modules()}
    for module in public_modules().values():
        found |= {f"{module.name}.{n.name}": n.address for n in exported(module)}
    return found


@lru_cache(maxsize=1)
def _unique() -> dict[str, str]:
    """Bare names that mean one thing in all of klsim."""
    by_name: dict[str, set[str]] = {}
    for path, target in _addresses().items():
        by_name.setdefault(path.rpartition(".")[2], set()).add(target)
    return {
        name: next(iter(targets))
        for name, targets in by_name.items()
        if len(targets) == 1 and len(name) > 3 and not hasattr(builtins, name)
    }


def address(text: str, module: str = "") -> str | None:
    """What a name in prose refers to, seen from a module: ``kl_regularized``, ``klsim.optima``; None if unknown."""
    known = _addresses()
    if text in known:
        return known[text]
    here = modules().get(module)
    if here is not None:
        if f"{module}.{text}" in known:
            return known[f"{module}.{text}"]
        if text in here.imported and (path := ".".join(here.imported[text])) in known:
            return known[path]
    return _unique().get(text)


def problems() -> list[str]:
    """What would be missing from the reference: a public name without a sentence about it."""
    found = []
    for module in public_modules().values():
        if not module.text.strip():
            found.append(f"{module.name}: no docstring")
        for name in exported(module):
            words = name.text.split()
            if len(words) < 3 or not any(mark in name.text for mark in ".:;`"):
                found.append(f"{name.address}: no docstring with a sentence, got {name.text!r}")
    return sorted(set(found))
