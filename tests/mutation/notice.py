"""Whether anything objects to one change: a process that imports the changed module, and runs what reaches the line."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import math
import multiprocessing
import multiprocessing.context
import os
import resource
import signal
import sys
from collections.abc import Sequence
from functools import cache
from multiprocessing.connection import Connection
from types import ModuleType

from .reach import EXAMPLES, one_thread
from .sites import ROOT, Mutant

PEERS = (
    "numpy", "scipy.optimize", "scipy.special", "scipy.stats", "scipy.sparse", "sympy", "numba", "hypothesis", "pytest",
    "_pytest.assertion.rewrite", "xdist", "mpmath", "quantecon", "gymnasium", "torch", "trl", "rich", "typer", "joblib",
)  # fmt: skip
REWRITE = "ignore::pytest.PytestAssertRewriteWarning"  # of the peers that are already there
LIMIT = 60.0  # CPU seconds of what runs, beyond twice what it takes on the unchanged library


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed text."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.mutant.module:
            return None
        file = str(ROOT / self.mutant.path)
        package = [os.path.dirname(file)] if file.endswith("__init__.py") else None
        spec = importlib.machinery.ModuleSpec(name, self, origin=file, is_package=package is not None)
        spec.has_location, spec.submodule_search_locations = True, package
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.mutant.source(), str(ROOT / self.mutant.path), "exec"), module.__dict__)


def noticed(mutant: Mutant | None, tests: Sequence[str], checks: dict[str, str], seconds: float) -> str:
    """What objects first: a test, a claim, ``import``, ``time`` (it does not end); empty if nothing does.

    Without a mutant the library is as it is, and nothing may object.
    """
    forks = _forks()
    ours, theirs = forks.Pipe(duplex=False)
    limit = math.ceil(LIMIT + 2 * seconds)
    process = forks.Process(target=_judge, args=(theirs, mutant, list(tests), checks, limit))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:  # it ended without an answer
        found = None
    process.join()
    if found is None:
        return "time" if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL) else f"exit code {process.exitcode}"
    return str(found)


def judged(mutant: Mutant, tests: Sequence[str], checks: dict[str, str], verdicts: dict[str, str], limit: float) -> str:
    """`noticed`, where a check objects only if its verdict on the unchanged library is indeed the one expected.

    What is found out about that is put into ``verdicts``.
    """
    while True:
        by = noticed(mutant, tests, checks, limit)
        name, _, said = by.partition(": ")
        if name not in checks:
            return by
        found = said.split(" instead of ")[0]
        if name not in _CONFIRMED:
            unchanged = noticed(None, [], {name: verdicts[name]}, limit)
            if " instead of " in unchanged:
                verdicts[name] = unchanged.partition(": ")[2].split(" instead of ")[0]
            _CONFIRMED.add(name)
        if found != verdicts[name]:
            return f"{name}: {found} instead of {verdicts[name]}"
        checks = checks | {name: verdicts[name]}


_CONFIRMED: set[str] = set()
"""Checks whose verdict on the unchanged library is known at the strength that is asked."""


@cache
def _forks() -> multiprocessing.context.ForkServerContext:
    """Processes that begin with the peers already imported, so that only klsim has to be."""
    os.environ.update(one_thread() | {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_THREADING_LAYER": "workqueue"})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([n for n in PEERS if importlib.util.find_spec(n.split(".")[0])])
    return context


def _judge(out: Connection, mutant: Mutant | None, tests: list[str], checks: dict[str, str], limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    for name in [n for n in sys.modules if n.split(".")[0] in ("klsim", "tests")]:
        del sys.modules[name]
    if mutant is not None:
        sys.meta_path.insert(0, _Changed(mutant))
    os.chdir(ROOT)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            found = _by_tests(tests) or _by_claims(checks)
        except BaseException as error:
            found = f"import: {type(error).__name__}"
    out.send(found)


def _by_tests(tests: Sequence[str]) -> str:
    """The first test that fails."""
    if not tests:
        return ""
    import pytest

    class First:
        name = ""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed and not self.name:
                self.name = report.nodeid

    first = First()
    code = pytest.main(
        ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:klsim", "-W", REWRITE, "-m", "not slow", *tests],
        [first],
    )
    return first.name or ("" if code == 0 else f"pytest ended with {int(code)}")


def _by_claims(checks: dict[str, str]) -> str:
    """The first check or control whose verdict is another one."""
    from klsim.claims import select
    from klsim.claims.outcome import Strength
    from klsim.claims.runner import Unit

    strength = Strength.of(EXAMPLES)
    folders = {s.paper.slug: str(s.folder) for s in select(sorted({name.split("/")[0] for name in checks}))}
    for name, expected in checks.items():
        slug, claim, check, *control = name.split("/", 3)
        outcome = Unit(folders[slug], slug, claim, check, "".join(control), 0, strength).run()
        if outcome.verdict != expected:
            return f"{name}: {outcome.verdict} instead of {expected}"
    return ""
