"""The certificate: what was checked, how hard, and what came out, as JSON.

Its schema is published beside this file (``certificate.schema.json``). Two runs with the same seed,
the same versions and the same selection differ only in ``environment``, ``started`` and ``seconds``:
`comparable` removes these.
"""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["SCHEMA_VERSION", "comparable", "environment", "findings", "read", "write", "write_atomically"]

SCHEMA_VERSION = 1
_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "sympy",
    "hypothesis",
    "array-api-compat",
    "matplotlib",
    "joblib",
    "torch",
)


def environment() -> dict[str, Any]:
    """Versions and platform of this run."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def jsonable(value: Any) -> Any:
    """Plain JSON: non-finite numbers become strings, NumPy scalars become Python's, tuples lists."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` is either the old or the whole new file, also after a kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write(certificate: Mapping[str, Any], path: Path) -> None:
    """Write a certificate as JSON, atomically."""
    text = json.dumps(jsonable(certificate), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def read(path: Path) -> dict[str, Any]:
    """Read a certificate.

    Raises:
        ValueError: not a certificate of this schema version; names the file and the reason.
        FileNotFoundError: no such file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA_VERSION or not isinstance(data.get("papers"), list):
        raise ValueError(f"{path}: not a klsim certificate of schema version {SCHEMA_VERSION}")
    return data


def comparable(certificate: Mapping[str, Any]) -> Any:
    """The certificate without what may differ between two runs with the same seed."""

    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: strip(v) for k, v in value.items() if k not in ("environment", "started", "seconds", "jobs")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(jsonable(certificate))


def findings(certificate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The statements that were refuted as printed, each with its paper and counterexample."""
    return [
        {"paper": paper, "claim": claim}
        for paper in certificate["papers"]
        for claim in paper["claims"]
        if claim["expect"] == "refuted" and claim["verdict"] == "refuted"
    ]
