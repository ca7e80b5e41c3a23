"""Finding papers, and selecting from them.

A paper is a folder with a ``claims.py`` that defines one `Paper`, and perhaps a ``figures.py`` and a
``README.md`` beside it. `find` looks, like pytest, in the folder or file given; by default in
``papers/`` of the current directory or of a parent of it, else in klsim's own source checkout, else in
the folders that installed packages name through the entry-point group ``klsim.papers``.

Loading a claims file runs it, as importing any Python file does. It may import what lies beside it and in the current
folder; relative imports (``from .setting import …``) keep apart what several papers call the same.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import re
import sys
import types
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path

from klsim.claims.definition import DefinitionError
from klsim.claims.paper import Check, Claim, Paper
from klsim.claims.search import no_exit
from klsim.files import importable

__all__ = ["LoadError", "Selection", "find", "load", "load_check", "select", "submodule"]


class LoadError(ValueError):
    """A claims file that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Selection:
    """A paper, where it was loaded from, and the claims of it that were asked for."""

    paper: Paper
    folder: Path
    claims: tuple[Claim, ...]


def default_folders() -> list[Path]:
    """Where papers are looked for when no folder is given."""
    here = Path.cwd().resolve()
    for parent in (here, *here.parents):
        if (parent / "papers").is_dir() and any((parent / "papers").glob("*/claims.py")):
            return [parent / "papers"]
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "papers").is_dir() and (checkout / "pyproject.toml").is_file():
        return [checkout / "papers"]
    return _installed_folders()


def _installed_folders() -> list[Path]:
    """The first folder with papers of every package that names one; first on the path wins, as for imports."""
    folders: dict[str, Path] = {}
    for entry in entry_points(group="klsim.papers"):
        spec = importlib.util.find_spec(entry.value)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            if any(Path(location).glob("*/claims.py")):
                folders.setdefault(entry.value, Path(location))
    return list(folders.values())


def find(paths: Iterable[str | Path] = ()) -> list[Path]:
    """The paper folders under ``paths`` (default: `default_folders`), sorted by name.

    Raises:
        LoadError: a path that does not exist or holds no ``claims.py``.
    """
    given = [Path(p).expanduser() for p in paths]
    folders: dict[Path, None] = {}
    for path in given or default_folders():
        if not path.exists():
            raise LoadError(f"{path}: no such file or folder")
        if path.is_file():
            if path.name != "claims.py":
                raise LoadError(f"{path}: claims are read from files called claims.py, one a folder: rename it")
            folders[path.parent.resolve()] = None
            continue
        inside = (p for p in sorted(path.rglob("claims.py")) if ".venv" not in p.relative_to(path).parts)
        found = [p.parent.resolve() for p in inside]
        if not found:
            raise LoadError(f"{path}: holds no claims.py")
        folders.update(dict.fromkeys(found))
    return list(folders)


def _package(folder: Path) -> str:
    """A package for ``folder``, so that its files can import each other (``from .claims import …``)."""
    name = f"klsim_paper_{re.sub('[^a-zA-Z0-9]', '_', folder.name)}_{zlib.crc32(str(folder).encode()):08x}"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def submodule(folder: Path, name: str) -> types.ModuleType:
    """The module ``name`` (``claims``, ``figures``) of a paper's folder.

    Raises:
        LoadError: it is missing, or raises while it is imported.
    """
    path = folder / f"{name}.py"
    if not path.is_file():
        raise LoadError(f"{path}: no such file")
    try:
        with no_exit():
            return _imported(folder.resolve(), name)
    except SystemExit as error:
        raise LoadError(f"{path}: cannot be imported: it called sys.exit({error.code})") from None
    except DefinitionError as error:
        raise LoadError(str(error)) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, SyntaxError) and error.lineno:
            reason += f" (line {error.lineno})"
        raise LoadError(f"{path}: cannot be imported: {reason}") from error


def _imported(folder: Path, name: str) -> types.ModuleType:
    """Import a paper's module; where it asks for one that lies beside it or in the current folder, that is found too.

    Only then: with every paper's folder on the path, any ``import setting`` would find one of them.
    """
    homes = [folder, Path.cwd()]
    while True:
        try:
            return importlib.import_module(f"{_package(folder)}.{name}")
        except ModuleNotFoundError as error:
            wanted = (error.name or "").partition(".")[0]
            home = next(
                (h for h in homes if (h / f"{wanted}.py").is_file() or (h / wanted / "__init__.py").is_file()), None
            )
            if home is None:
                raise
            homes.remove(home)
            importable(home)


def load(folder: Path) -> Paper:
    """The one `Paper` that ``folder/claims.py`` defines.

    Raises:
        LoadError: none, several, or a claim without a check.
    """
    module = submodule(folder, "claims")
    papers = [v for v in vars(module).values() if isinstance(v, Paper)]
    if len(papers) != 1:
        raise LoadError(f"{folder / 'claims.py'}: must define exactly one Paper, found {len(papers)}")
    for claim in papers[0].claims.values():
        if reason := _unusable(claim, papers[0]):
            raise LoadError(f"{folder / 'claims.py'}:{claim.line}: {claim.full_id} {reason}")
    return papers[0]


def _unusable(claim: Claim, paper: Paper) -> str:
    """Why a claim cannot be verified; empty if it can."""
    if not claim.checks:
        return "has no check"
    for check in claim.checks:
        if not check.controls and not check.uncontrolled and claim.expect != "open":
            return (
                f"check {check.name!r} has no control, so nothing shows that it can fail: give false={{…}} "
                "(true={…} for a statement expected to be refuted), @check.control(…), or uncontrolled='why'"
            )
    for name in claim.statement.by:
        other, _, check_name = name.partition("/")
        shown = paper.claims.get(other)
        if shown is None or (check_name and check_name not in [c.name for c in shown.checks]):
            return f"says by: {name!r}, which the paper does not define"
    return ""


def load_check(folder: str | Path, claim_id: str, name: str) -> Check:
    """A check by name, callable with an instance: what a printed counterexample uses.

    Raises:
        LoadError: no such file, claim or check.
    """
    paper = load(Path(folder))
    claim = paper.claims.get(claim_id)
    if claim is None:
        raise LoadError(f"{paper.slug} has no claim {claim_id!r} (it has {', '.join(paper.claims)})")
    for check in claim.checks:
        if check.name == name:
            return check
    raise LoadError(f"{claim.full_id} has no check {name!r} (it has {', '.join(c.name for c in claim.checks)})")


def select(patterns: Sequence[str] = ()) -> list[Selection]:
    """The papers and claims that ``patterns`` name.

    A pattern is a path (to a ``claims.py`` or a folder that holds some), a slug, a claim id
    (``gopd/C3``) or a glob over either (``*/C1``, ``g*``). No pattern selects everything.

    Raises:
        LoadError: a pattern that matches nothing (the message lists near names).
    """
    paths = [p for p in patterns if _is_path(p)]
    globs = [p for p in patterns if not _is_path(p)]
    chosen: dict[Path, list[Claim]] = {}
    loaded: dict[Path, Paper] = {}
    for folder in find(paths) if paths else []:
        loaded[folder] = load(folder)
        chosen[folder] = list(loaded[folder].claims.values())
    if globs or not patterns:
        for folder in _named(globs) or find():
            loaded.setdefault(folder, load(folder))
        for pattern in globs or ["*"]:
            _add_matches(pattern, loaded, chosen, globs)
    _reject_duplicates(loaded)
    ordered = [f for f in loaded if chosen.get(f)]
    return [Selection(loaded[f], f, tuple(_in_order(loaded[f], chosen[f]))) for f in ordered]


def _named(patterns: Sequence[str]) -> list[Path]:
    """The folders of the papers that are named outright, so that the others need not be imported; else none."""
    slugs = {pattern.partition("/")[0] for pattern in patterns}
    folders = [folder for folder in find() if folder.name in slugs]
    plain = sorted(folder.name for folder in folders) == sorted(slugs)
    return folders if plain and all(load(folder).slug == folder.name for folder in folders) else []


def _is_path(pattern: str) -> bool:
    if pattern.endswith((".py", "/")) or pattern.startswith((".", "/", "~")):
        return True
    return "*" not in pattern and Path(pattern).is_dir() and any(Path(pattern).rglob("claims.py"))


def _add_matches(
    pattern: str, loaded: dict[Path, Paper], chosen: dict[Path, list[Claim]], patterns: Sequence[str]
) -> None:
    matched = False
    for folder, paper in loaded.items():
        for claim in paper.claims.values():
            if fnmatch.fnmatchcase(claim.full_id if "/" in pattern else paper.slug, pattern):
                chosen.setdefault(folder, []).append(claim)
                matched = True
    if not matched:
        known = [c.full_id for p in loaded.values() for c in p.claims.values()] + [p.slug for p in loaded.values()]
        joined = [f"{other}/{pattern}" for other in patterns if f"{other}/{pattern}" in known]
        near = joined or get_close_matches(pattern, known, n=3)
        slugs = ", ".join(sorted(p.slug for p in loaded.values()))
        hint = f"did you mean {', '.join(near)}?" if near else f"known papers: {slugs or 'none'}"
        raise LoadError(f"{pattern!r} matches no paper or claim; {hint}")


def _reject_duplicates(loaded: dict[Path, Paper]) -> None:
    seen: dict[str, Path] = {}
    for folder, paper in loaded.items():
        if paper.slug in seen:
            raise LoadError(f"{folder} and {seen[paper.slug]} both define the paper {paper.slug!r}")
        seen[paper.slug] = folder


def _in_order(paper: Paper, claims: list[Claim]) -> list[Claim]:
    wanted = {c.id for c in claims}
    return [c for c in paper.claims.values() if c.id in wanted]
