"""A pytest plugin: coverage's context of a line is the test that runs it, whoever calls the line in between.

(coverage's own ``dynamic_context = test_function`` takes Hypothesis's ``ConjectureRunner.test_function`` for a test.)
"""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    measured = coverage.Coverage.current()
    if measured is None:
        return (yield)
    measured.switch_context(item.nodeid.split("[")[0])
    try:
        return (yield)
    finally:
        measured.switch_context("")
