r"""SATURN's (n, k, l)-SAT (arXiv 2505.16368): n literals a clause, k variables, l clauses, a planted solution.

A clause is a set of n distinct variables with a sign each. A solution ``x`` is uniform on ``{0,1}^k``, and the formula
is a uniform set of l of the ``m = C(k,n)(2^n - 1)`` clauses that ``x`` satisfies. So

.. math:: P(\Phi) = \frac{\#\mathrm{sol}(\Phi)}{2^k \binom{m}{l}}, \qquad
   E[\#\mathrm{sol}] = \sum_{d=0}^k \binom{k}{d} \binom{m - v_d}{l} \Big/ \binom{m}{l}, \quad
   v_d = \binom{k}{n} - \binom{k-d}{n}:

formulas with many solutions are likelier (the paper says uniform), and a uniform guess succeeds with
``p0 = E[#sol]/2^k``, to be reported next to every pass rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from klsim import _validate
from klsim.lm.tasks.task import Row, Task

__all__ = [
    "Clause",
    "Satisfiability",
    "clause_count",
    "count_solutions",
    "difficulty",
    "expected_solutions",
    "formula_probability",
    "guess_probability",
    "parse_clauses",
    "satisfies",
]

Clause = tuple[tuple[int, bool], ...]
"""Literals ``(variable, positive)``, variables ascending from 0."""

VARIABLES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CLAUSE = re.compile(r"(?:!?[A-Z])+")
BOX = re.compile(r"\\boxed\{([^{}]*)\}")
MAX_COUNTED = 24


def _check(n: int, k: int, l: int) -> None:  # noqa: E741
    _validate.integer("k", k, low=1, high=len(VARIABLES))
    _validate.integer("n", n, low=1, high=k)
    _validate.integer("l", l, low=1, high=clause_count(n, k))


def clause_count(n: int, k: int) -> int:
    """``m = C(k, n) (2^n - 1)``: clauses that a given assignment satisfies."""
    return math.comb(k, n) * (2**n - 1)


def expected_solutions(n: int, k: int, l: int) -> Fraction:  # noqa: E741
    """``E[#sol]`` of a planted formula, exact.

    Raises:
        ValueError: not ``1 <= n <= k <= 26`` and ``1 <= l <= m``.
    """
    _check(n, k, l)
    m = clause_count(n, k)
    total = sum(math.comb(k, d) * math.comb(m - math.comb(k, n) + math.comb(k - d, n), l) for d in range(k + 1))
    return Fraction(total, math.comb(m, l))


def guess_probability(n: int, k: int, l: int) -> Fraction:  # noqa: E741
    """``p0 = E[#sol]/2^k``: success probability of a uniform guess, exact."""
    return expected_solutions(n, k, l) / 2**k


def formula_probability(clauses: Iterable[Clause], k: int) -> Fraction:
    """``#sol / (2^k C(m, l))``: probability of a set of l distinct clauses of equal length over k variables."""
    clauses = list(clauses)
    n, l = len(clauses[0]), len(clauses)  # noqa: E741
    return Fraction(count_solutions(clauses, k), 2**k * math.comb(clause_count(n, k), l))


def difficulty(n: int, k: int, l: int) -> float:  # noqa: E741
    """``log2 k + 2 log2 l - n + k/n``: the paper's score (Eq. 2), fitted to language models, not a law."""
    _check(n, k, l)
    return math.log2(k) + 2 * math.log2(l) - n + k / n


def satisfies(clauses: Iterable[Clause], bits: str) -> bool:
    """Whether the assignment ``bits`` (one ``0`` or ``1`` a variable) makes every clause true."""
    return all(any((bits[variable] == "1") == positive for variable, positive in clause) for clause in clauses)


def count_solutions(clauses: Iterable[Clause], k: int) -> int:
    """Assignments of k <= 24 variables that satisfy all clauses, by their truth table."""
    _validate.integer("k", k, low=1, high=MAX_COUNTED)
    points = np.arange(2**k)
    true = np.ones(points.size, dtype=bool)
    for clause in clauses:
        true &= np.any([((points >> (k - 1 - variable)) & 1) == positive for variable, positive in clause], axis=0)
    return int(true.sum())


def clauses_text(clauses: Iterable[Clause]) -> str:
    """The paper's notation, e.g. ``!B!C!D & A!B!D``."""
    return " & ".join("".join(("" if sign else "!") + VARIABLES[v] for v, sign in clause) for clause in clauses)


def parse_clauses(text: str) -> list[Clause]:
    """The clauses of a text such as ``!B!C!D & A!B!D``.

    Raises:
        ValueError: names the clause that is none.
    """
    out = []
    for i, part in enumerate(text.split(" & ")):
        if CLAUSE.fullmatch(part) is None:
            raise ValueError(f"clauses[{i}] = {part!r}: must be letters A to Z, each with or without a ! before it")
        out.append(tuple((VARIABLES.index(literal[-1]), literal[0] != "!") for literal in re.findall("!?[A-Z]", part)))
    return out


def _combination(rank: int, k: int, n: int) -> list[int]:
    """The ``rank``-th n-subset of ``{0, ..., k-1}`` in lexicographic order."""
    out, low = [], 0
    for left in range(n, 0, -1):
        while rank >= (skipped := math.comb(k - 1 - low, left - 1)):
            rank -= skipped
            low += 1
        out.append(low)
        low += 1
    return out


def planted_clause(index: int, solution: str, n: int) -> Clause:
    """Clause number ``index`` of the ``m`` that ``solution`` satisfies: which variables, and which of them agree."""
    rank, agreeing = divmod(index, 2**n - 1)
    variables = _combination(rank, len(solution), n)
    return tuple((v, (solution[v] == "1") == bool((agreeing + 1) >> j & 1)) for j, v in enumerate(variables))


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
        _check(self.n, self.k, self.l)
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
        boxes = BOX.findall(completion) if self.boxed else [completion]
        answer = boxes[-1] if boxes else ""
        legal = len(answer) == columns["variables"] and set(answer) <= {"0", "1"}
        if legal and satisfies(parse_clauses(columns["clauses"]), answer):
            return 1.0
        answered = bool(boxes) if self.boxed else legal
        return -1.0 if self.signed and not answered else 0.0
