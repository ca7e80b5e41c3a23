"""A Hypothesis backend whose draws do not depend on which modules the process has loaded."""

from __future__ import annotations

from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.internal.constants_ast import Constants

__all__ = ["SourceFreeProvider"]


class SourceFreeProvider(HypothesisProvider):
    """Hypothesis's own provider without the constants it collects from local source files."""

    _local_constants = Constants()
