"""What authors of claims see: their own frames in tracebacks, their own lines in messages, the functions they ran."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["caller", "in_library", "library_functions", "users_traceback"]

_PACKAGE = Path(__file__).resolve().parents[1]
_MACHINERY = tuple(str(_PACKAGE / part) for part in ("claims", "spaces", "report", "parallel.py", "cli"))
_QUIET = tuple(str(_PACKAGE / part) for part in ("_validate.py", "kernels"))


def in_library(file: str) -> bool:
    """Whether a source file belongs to klsim or to an installed package, not to an author."""
    return file.startswith((str(_PACKAGE), "<", sys.base_prefix)) or "site-packages" in file


def caller() -> tuple[str, int]:
    """File and line of the innermost frame that is an author's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and in_library(frame.f_code.co_filename):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)


def users_traceback(error: BaseException) -> str:
    """The traceback of ``error`` with the author's frames only (all frames where there is none of theirs)."""
    summary = traceback.TracebackException.from_exception(error)
    theirs = [f for f in summary.stack if not in_library(f.filename)]
    if theirs:
        summary.stack = traceback.StackSummary.from_list(theirs)
    summary.__context__ = summary.__cause__ = None
    return "".join(summary.format())


@contextmanager
def library_functions() -> Iterator[set[str]]:
    """While it lasts, the public functions of klsim that Python calls: ``klsim.divergences.kl`` …"""
    found: set[str] = set()
    package, skipped = str(_PACKAGE), _MACHINERY + _QUIET
    seen: set[int] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or id(code) in seen:
            return
        seen.add(id(code))
        file = code.co_filename
        if file.startswith(package) and not file.startswith(skipped):
            name = code.co_qualname
            if "<" not in name and not any(part.startswith("_") for part in name.split(".")):
                module = Path(file).relative_to(_PACKAGE.parent).with_suffix("")
                found.add(".".join((*module.parts, name)).replace(".__init__", ""))

    before = sys.getprofile()
    if before is not None and not callable(before):  # a profiler written in C, which cannot be put back: leave it
        yield found
        return
    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(before)
