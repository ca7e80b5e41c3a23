"""What authors of claims see: their own frames in tracebacks, their own lines in messages, the functions they ran."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Self

import numpy as np

from klsim import _validate

__all__ = ["Study", "caller", "in_library", "library_functions", "shared", "users_traceback"]

_PACKAGE = Path(__file__).resolve().parents[1]
_MACHINERY = tuple(str(_PACKAGE / part) for part in ("claims", "spaces", "report", "parallel.py", "cli"))
_QUIET = tuple(str(_PACKAGE / part) for part in ("_validate.py", "kernels"))
_WATCHING: list[set[str]] = []  # what the calls of `library_functions` in progress have found


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
    _WATCHING.append(found)
    try:
        yield found
    finally:
        _WATCHING.pop()
        sys.setprofile(before)


def shared(function: Callable[..., Any] | None = None, *, maxsize: int | None = None) -> Any:
    """`functools.lru_cache` for what several checks of a paper share: trained networks, exact tables.

    A check that finds it made counts as having run the library functions that made it, so that its record does not
    depend on which check came first, and `klsim verify --changed` sees what it rests on.

    Args:
        function: with hashable arguments. maxsize: of the cache; None keeps everything.
    """
    if function is None:
        return functools.partial(shared, maxsize=maxsize)
    kept, ran = functools.lru_cache(maxsize)(function), set[str]()

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if ran:
            value = kept(*args, **named)
        else:
            with library_functions() as found:
                value = kept(*args, **named)
            ran.update(found or {""})
        for watching in _WATCHING:
            watching |= ran - {""}
        return value

    return call


@dataclass(frozen=True)
class Study:
    """Trained replicates that belong to a seed and not to one check, so that checks can share them (`shared`).

    Attributes:
        seed: of the verification. nets: how many replicates every effect has.
        salt: of the paper, in a subclass: its streams are its own.
    """

    seed: int
    nets: int
    salt: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _validate.integer("seed", self.seed, low=0)
        _validate.integer("nets", self.nets, low=1)

    @classmethod
    def of(cls, rngs: Sequence[np.random.Generator]) -> Self:
        """That of the generators which an `Effect` hands to its check, one a replicate."""
        seeds: Any = rngs[0].bit_generator.seed_seq
        return cls(int(np.atleast_1d(seeds.entropy)[0]), len(rngs))

    def rng(self, *names: int) -> np.random.Generator:
        """The stream of that name."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.salt, *names]))
