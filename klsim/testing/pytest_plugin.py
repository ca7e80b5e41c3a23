"""pytest collects the claims of ``claims.py`` files: one test a claim, named as in the report.

``pytest papers/gopd`` verifies its claims beside the other tests; ``-k C3``, ``-m "klsim and not slow"``, ``-n 2``
(with pytest-xdist), ``--klsim-seed`` and ``--klsim-examples`` work as one expects. A failure is the counterexample, as
runnable Python. Files of that name that do not import ``klsim.claims`` are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from klsim.claims.loader import Selection

__all__ = ["ClaimItem", "ClaimsFile"]

_IMPORTS_KLSIM = re.compile(r"^\s*(from|import)\s+klsim\.claims\b", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("klsim", "claims of papers (klsim)")
    group.addoption("--klsim-seed", type=int, default=0, metavar="N", help="Seed of all claims (0).")
    group.addoption("--klsim-examples", type=int, default=100, metavar="N", help="Strength of the search (100).")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "klsim: a claim of a claims.py file")
    config.addinivalue_line("markers", "slow: takes more than a few seconds (of claims: those that simulate)")
    for option, least in (("klsim_seed", 0), ("klsim_examples", 1)):
        if config.getoption(option) < least:
            name = "--" + option.replace("_", "-")
            raise pytest.UsageError(f"{name} = {config.getoption(option)}: must be at least {least}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ClaimsFile | None:
    if file_path.name != "claims.py" or not _IMPORTS_KLSIM.search(file_path.read_text("utf-8", errors="replace")):
        return None
    return ClaimsFile.from_parent(parent, path=file_path)


class ClaimsFile(pytest.File):
    """A ``claims.py`` whose claims pytest runs as tests."""

    def collect(self) -> Iterator[ClaimItem]:
        from klsim.claims.kinds import Effect
        from klsim.claims.loader import LoadError, Selection, load

        try:
            paper = load(self.path.parent)
        except LoadError as error:
            raise self.CollectError(str(error)) from None
        for claim in paper.claims.values():
            item = ClaimItem.from_parent(self, name=claim.full_id)
            item.selection = Selection(paper, self.path.parent, (claim,))
            item.add_marker("klsim")
            if any(isinstance(check.kind, Effect) for check in claim.checks):
                item.add_marker("slow")
            yield item


class ClaimItem(pytest.Item):
    """A claim with its checks and controls."""

    selection: Selection

    def runtest(self) -> None:
        from klsim.claims import verify
        from klsim.report.terminal import explanation

        options = self.config.option
        found = verify(self.selection, seed=options.klsim_seed, examples=options.klsim_examples)
        if missing := self.selection.claims[0].missing:
            pytest.skip(f"needs {', '.join(missing)}")
        if not found["complete"]:
            raise KeyboardInterrupt
        if not found["as_expected"]:
            raise NotAsExpected(explanation(found))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **options: Any) -> Any:
        if isinstance(excinfo.value, NotAsExpected):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **options)

    def reportinfo(self) -> tuple[Path, int, str]:
        claim = self.selection.claims[0]
        return self.path, max(claim.line - 1, 0), f"{claim.full_id}: {claim.statement.title}"


class NotAsExpected(AssertionError):
    """A claim's verdict is not the expected one, or a control was not told apart."""
