"""Counterexamples on disk: saved with every bit, printed as runnable Python, replayed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klsim.claims.certificate import jsonable
from klsim.claims.instances import decode
from klsim.claims.kinds import InstanceKind
from klsim.claims.loader import LoadError, find, load_check
from klsim.claims.outcome import Judgement
from klsim.files import write_atomically

__all__ = ["read", "replay", "save_all", "script"]

_FORMAT = "klsim-counterexample-1"


def script(folder: str, claim: str, check: str, python: str) -> str:
    """Python that evaluates a check on a counterexample; runs as it stands."""
    return (
        "import numpy as np\n"
        "from klsim.claims import load_check\n\n"
        f"check = load_check({folder!r}, {claim!r}, {check!r})\n"
        f"print(check({python}))\n"
    )


def save_all(certificate: Mapping[str, Any], folder: Path) -> list[Path]:
    """Save the counterexample of every refuted check, one JSON file each; remove those of checks that hold again or
    are no more."""
    saved = []
    for paper in certificate["papers"]:
        for claim in paper["claims"]:
            names = {check["name"] for check in claim["checks"]}
            for old in folder.glob(f"{paper['slug']}_{claim['id']}_*.json"):
                if old.stem.removeprefix(f"{paper['slug']}_{claim['id']}_") not in names:
                    old.unlink()
            for check in claim["checks"]:
                path = folder / f"{paper['slug']}_{claim['id']}_{check['name']}.json"
                if check["verdict"] in ("not_run", "skipped"):
                    continue
                if check["verdict"] not in ("refuted", "error") or check["instance"] is None:
                    path.unlink(missing_ok=True)
                    continue
                data = {
                    "format": _FORMAT,
                    "folder": Path(os.path.relpath(paper["folder"], folder)).as_posix(),
                    "slug": paper["slug"],
                    "claim": claim["id"],
                    "check": check["name"],
                    "expect": claim["expect"],
                    "summary": check["summary"],
                    "instance": check["instance"],
                    "python": script(paper["folder"], claim["id"], check["name"], check["python"]),
                }
                write_atomically(path, json.dumps(jsonable(data), indent=1, ensure_ascii=False) + "\n")
                saved.append(path)
    return saved


def read(path: Path) -> dict[str, Any]:
    """Read a saved counterexample.

    Raises:
        LoadError: not such a file; names it and the reason.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path}: not a JSON file ({type(error).__name__})") from None
    needed = ("folder", "slug", "claim", "check", "expect", "instance")
    if not isinstance(data, dict) or data.get("format") != _FORMAT or any(k not in data for k in needed):
        raise LoadError(f"{path}: not a klsim counterexample")
    if not all(isinstance(data[k], str) for k in needed[:-1]) or not isinstance(data["instance"], dict):
        raise LoadError(f"{path}: not a klsim counterexample")
    return data


def _own_folder(path: Path, data: Mapping[str, Any]) -> Path:
    """The papers folder that a counterexample names (relative to its file), or the known paper of its slug.

    A claims file is code. A file from elsewhere must not choose which code runs, so the folder has to lie below the
    current directory or belong to the papers that klsim finds by itself.
    """
    try:
        known = find()
    except LoadError:
        known = []
    for base in (path.resolve().parent, Path.cwd()):
        named = (base / data["folder"]).resolve()
        if named in known or (named.is_relative_to(Path.cwd().resolve()) and (named / "claims.py").is_file()):
            return named
    for folder in known:
        if folder.name == data["slug"]:
            return folder
    raise LoadError(
        f"{path}: names the papers folder {data['folder']}, which is not below the current directory, "
        f"and no known paper is called {data['slug']!r}"
    )


def replay(path: Path) -> tuple[dict[str, Any], Judgement]:
    """Judge a saved counterexample again with the check as it is now.

    Raises:
        LoadError: the file, the paper or the check cannot be loaded, or the check takes other arguments.
    """
    data = read(path)
    check = load_check(_own_folder(path, data), data["claim"], data["check"])
    if not isinstance(check.kind, InstanceKind):
        raise LoadError(f"{path}: {data['slug']}/{data['claim']} is not judged instance by instance")
    try:
        instance = {name: decode(value) for name, value in data["instance"].items()}
    except ValueError as error:
        raise LoadError(f"{path}: {error}") from None
    try:
        return data, check.kind.judge(check(**instance))
    except Exception as error:
        raise LoadError(f"{path}: the check raised {type(error).__name__}: {error}") from None
