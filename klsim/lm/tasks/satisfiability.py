r"""SATURN's (n, k, l)-SAT as a task: what it is, how hard, and its verifier are in `klsim.problems.satisfiability`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from klsim import _validate
from klsim.lm.tasks.task import Row, Task
from klsim.problems.satisfiability import (
    VARIABLES,
    Clause,
    answer_reward,
    check_level,
    clause_count,
    clauses_text,
    count_solutions,
    difficulty,
    expected_solutions,
    formula_probability,
    guess_probability,
    parse_clauses,
    planted_clause,
    satisfies,
)

__all__ = [
    "VARIABLES",
    "Clause",
    "Satisfiability",
    "clause_count",
    "clauses_text",
    "count_solutions",
    "difficulty",
    "expected_solutions",
    "formula_probability",
    "guess_probability",
    "parse_clauses",
    "planted_clause",
    "satisfies",
]


@dataclass(frozen=True)
class Satisfiability(Task):
    r"""Planted SAT; the prompt is ``k:clauses=``, e.g. ``4:!B!C!D & A!B!D=``.

    Attributes:
        n, k, l: literals a clause, variables, clauses; ``1 <= n <= k <= 26`` and ``l <= C(k,n)(2^n - 1)``.
        boxed: the answer stands in ``\boxed{...}`` (the last one counts) after any text; otherwise the completion is
            the k bits and nothing else.
        signed: -1 for a completion without an answer (no box; not k bits if not ``boxed``), as in the paper.

    The verifier is strict: exactly k characters 0 or 1. Rows carry ``clauses`` and ``variables``, so one level's reward
    grades another's rows.

    Raises:
        ValueError: knobs out of range. TypeError: of the wrong type.
    """

    n: int = 3
    k: int = 5
    l: int = 5  # noqa: E741
    boxed: bool = False
    signed: bool = False

    columns: ClassVar[tuple[str, ...]] = ("clauses", "variables")

    def __post_init__(self) -> None:
        check_level(self.n, self.k, self.l)
        _validate.flag("boxed", self.boxed)
        _validate.flag("signed", self.signed)

    @property
    def name(self) -> str:
        form = (", boxed" if self.boxed else "") + (", signed" if self.signed else "")
        return f"sat({self.n}, {self.k}, {self.l}{form})"

    @property
    def alphabet(self) -> str:
        return f"0123456789!&: ={VARIABLES}" + ("\\boxed{}" if self.boxed else "")

    @property
    def max_prompt_tokens(self) -> int:
        return len(str(self.k)) + 1 + self.l * 2 * self.n + 3 * (self.l - 1) + 1

    @property
    def max_completion_tokens(self) -> int:
        return self.k + (len(r"\boxed{}") if self.boxed else 0) + 1

    @property
    def most_problems(self) -> int:
        """Sets of l clauses, satisfiable or not."""
        return math.comb(math.comb(self.k, self.n) * 2**self.n, self.l)

    def difficulty(self) -> float:
        """``log2 k + 2 log2 l - n + k/n``, see `difficulty`."""
        return difficulty(self.n, self.k, self.l)

    def guess_probability(self) -> float:
        """Success probability of a uniform guess of k bits."""
        return float(guess_probability(self.n, self.k, self.l))

    def draw(self, rng: np.random.Generator) -> Row:
        bits = "".join(map(str, rng.integers(0, 2, self.k)))
        chosen = rng.choice(clause_count(self.n, self.k), self.l, replace=False)
        text = clauses_text(sorted(planted_clause(int(i), bits, self.n) for i in chosen))
        return {
            "prompt": f"{self.k}:{text}=",
            "clauses": text,
            "variables": self.k,
            "solution": rf"\boxed{{{bits}}}" if self.boxed else bits,
        }

    def score(self, completion: str, columns: Mapping[str, Any]) -> float:
        """1 for a satisfying assignment, 0 for another answer; without an answer 0, or -1 if ``signed``."""
        return answer_reward(completion, columns["clauses"], columns["variables"], boxed=self.boxed, signed=self.signed)
