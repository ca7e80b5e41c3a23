"""Verifiable tasks for small language models: generated, seeded, with knobs for their difficulty and exact rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from klsim.lm.chat import completion_text
from klsim.lm.tasks.countdown import Countdown, evaluate_expression, reachable
from klsim.lm.tasks.data import Data, DataOptions
from klsim.lm.tasks.gym import GymOptions, ReasoningGym, generators
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
from klsim.lm.tasks.task import Domain, Row, Split, Task, demonstrations, joint_alphabet, reward_of

__all__ = [
    "KINDS",
    "TASKS",
    "Countdown",
    "Data",
    "DataOptions",
    "Domain",
    "GymOptions",
    "ModularArithmetic",
    "ReasoningGym",
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
    "generators",
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
"""The generated families by the names that configuration files use."""

KINDS: dict[str, tuple[type, Callable[[Any], Domain]]] = {
    **{name: (family, lambda task: task) for name, family in TASKS.items()},
    "data": (DataOptions, Data),
    "reasoning_gym": (GymOptions, ReasoningGym),
}
"""All kinds of domains: the dataclass of their knobs, and what makes the domain of them."""


def make(name: str, options: Mapping[str, Any]) -> Domain:
    """The domain that a table of a configuration file describes: its ``kind``, one of `KINDS`, and knobs.

    Raises:
        ValueError: an unknown kind or knob, or a value that the family refuses; names the table ``tasks.<name>``.
        FileNotFoundError, ModuleNotFoundError: what it needs is not there.
    """
    given = dict(options)
    kind = given.pop("kind", None)
    if kind not in KINDS:
        shown = "is missing" if kind is None else f"= {kind!r}"
        raise ValueError(f"tasks.{name}: kind {shown}: must be one of {', '.join(map(repr, KINDS))}")
    knobs, build = KINDS[kind]
    known = [field.name for field in fields(knobs)]
    for knob in given:
        if knob not in known:
            raise ValueError(f"tasks.{name}: no knob {knob!r}; {kind} has {', '.join(known)}")
    try:
        return build(knobs(**given))
    except (TypeError, ValueError) as error:
        raise ValueError(f"tasks.{name}: {error}") from (error if kind == "data" else None)
