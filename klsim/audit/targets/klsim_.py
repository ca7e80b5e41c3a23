"""klsim's own objectives: ``klsim:grpo``, by their names in `klsim.objectives.registry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import klsim
from klsim.audit.batches import AuditBatch
from klsim.audit.target import Target
from klsim.objectives.batch import TokenBatch
from klsim.objectives.registry import OBJECTIVES

__all__ = ["load"]


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """An objective of the registry, on validated batches as its users have them.

    Raises:
        ValueError: there is no such objective, or options are given.
    """
    if name not in OBJECTIVES or options:
        raise ValueError(f"target {text!r}: no such objective, or it takes no options (see klsim objectives --list)")

    def loss(batch: TokenBatch) -> Any:
        return OBJECTIVES[name].loss(batch.validated() if isinstance(batch, AuditBatch) else batch)

    return Target(text, lambda: loss, {}, klsim.__version__)
