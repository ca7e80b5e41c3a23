"""Where a run took place: versions, processor, linear algebra, and the state of the sources."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["environment", "file_hashes"]

_PACKAGES = (
    "numpy", "scipy", "numba", "sympy", "hypothesis", "array-api-compat", "matplotlib", "joblib", "torch",
    "transformers", "trl", "ml-dtypes", "mpmath", "python-flint", "cvxpy", "distributed",
)  # fmt: skip


def environment(folders: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Versions, platform, CPU, BLAS, and the git state of the papers' folders (the first that is in a checkout)."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "blas": _blas(),
        "git": next((state for f in folders if (state := _git(f))), None),
        "versions": versions,
    }


@functools.cache
def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _blas() -> str:
    from threadpoolctl import threadpool_info

    found = {f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info() if lib["user_api"] == "blas"}
    return ", ".join(sorted(found))


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout or without git."""

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the Python files of a paper's folder that decide verdicts (all but its figures)."""
    files = sorted(p for p in folder.glob("*.py") if p.name != "figures.py")
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
