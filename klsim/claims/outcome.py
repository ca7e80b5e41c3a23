"""What comes out of a check: judgements of kinds, outcomes of searches, and how hard a search looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Judgement", "MalformedCheck", "NotANumber", "Outcome", "Strength", "Verdict"]

Verdict = Literal["holds", "refuted", "not_shown"]
"""What a judgement can say of a statement."""


class MalformedCheck(TypeError):
    """A check returned something that its kind cannot judge."""


class NotANumber(ArithmeticError):
    """A check returned NaN: neither true nor false. ``index`` is the instance's place in the batch."""

    def __init__(self, message: str, index: int = 0) -> None:
        super().__init__(message)
        self.index = index


@dataclass(frozen=True)
class Judgement:
    """What one kind says about what one check measured.

    Attributes:
        verdict: ``holds``, ``refuted`` or ``not_shown``.
        summary: one line with the numbers that decided.
        measured: those numbers by name; the certificate holds them.
        part: which part of the check was the worst (empty if it has one).
        severity: how far from the threshold; > 1 is a violation.
    """

    verdict: Verdict
    summary: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    severity: float = 0.0


@dataclass(frozen=True)
class Strength:
    """How hard to look: Hypothesis examples a check, and a factor on its bulk instances and its climb."""

    examples: int = 100
    bulk: float = 1.0

    @classmethod
    def of(cls, examples: int) -> Strength:
        """``examples`` Hypothesis examples and bulk instances in proportion (100 is the standard)."""
        return cls(examples, examples / 100)


@dataclass(frozen=True)
class Outcome:
    """What became of one check or control.

    Attributes:
        verdict: that of the kind; ``error`` if it raised or was not a number; ``skipped``, ``not_run``.
        summary, measured, part: see `Judgement`.
        vacuous: why the check could not have failed (both sides constant, instances dropped); empty if it could.
        instances: how many were tried, by how they were found (``examples``, ``bulk``, ``hypothesis``, ``climb``),
            and how many `assume` dropped.
        instance, python: the deciding instance, as `klsim.claims.instances` encodes it and as keyword arguments.
        error: the traceback, author's frames only.
        library: the public functions of klsim that it ran.
    """

    verdict: str
    summary: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    vacuous: str = ""
    instances: Mapping[str, int] = field(default_factory=dict)
    instance: Mapping[str, Any] | None = None
    python: str = ""
    error: str = ""
    library: tuple[str, ...] = ()
    seconds: float = 0.0
