"""Verifiable tasks for small language models: generated, seeded, with knobs for their difficulty and exact rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from klsim.lm.tasks.countdown import Countdown, evaluate_expression, reachable
from klsim.lm.tasks.modular import ModularArithmetic
from klsim.lm.tasks.satisfiability import (
    Satisfiability,
    clause_count,
    count_solutions,
    difficulty,
    expected_solutions,
    formula_probability,
    guess_probability,
    parse_clauses,
    satisfies,
)
from klsim.lm.tasks.task import Row, Split, Task, completion_text, demonstrations, joint_alphabet, reward_of

__all__ = [
    "TASKS",
    "Countdown",
    "ModularArithmetic",
    "Row",
    "Satisfiability",
    "Split",
    "Task",
    "clause_count",
    "completion_text",
    "count_solutions",
    "demonstrations",
    "difficulty",
    "evaluate_expression",
    "expected_solutions",
    "formula_probability",
    "guess_probability",
    "joint_alphabet",
    "make",
    "parse_clauses",
    "reachable",
    "reward_of",
    "satisfies",
]

TASKS: dict[str, type[Task]] = {
    "modular": ModularArithmetic,
    "countdown": Countdown,
    "satisfiability": Satisfiability,
}
"""The families by the names that configuration files use."""


def make(name: str, options: Mapping[str, Any]) -> Task:
    """The task that a table of a configuration file describes: its ``kind``, one of `TASKS`, and knobs.

    Raises:
        ValueError: an unknown kind or knob, or a value that the family refuses; names the table ``tasks.<name>``.
    """
    knobs = dict(options)
    kind = knobs.pop("kind", None)
    if kind not in TASKS:
        shown = "is missing" if kind is None else f"= {kind!r}"
        raise ValueError(f"tasks.{name}: kind {shown}: must be one of {', '.join(map(repr, TASKS))}")
    known = [field.name for field in fields(TASKS[kind])]  # type: ignore[arg-type]
    for knob in knobs:
        if knob not in known:
            raise ValueError(f"tasks.{name}: no knob {knob!r}; {kind} has {', '.join(known)}")
    try:
        return TASKS[kind](**knobs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"tasks.{name}: {error}") from None
