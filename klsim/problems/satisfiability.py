r"""SATURN's (n, k, l)-SAT (arXiv 2505.16368): n literals a clause, k variables, l clauses, a planted solution.

A clause is a set of n distinct variables with a sign each. A solution ``x`` is uniform on ``{0,1}^k``, and the formula
is a uniform set of l of the ``m = C(k,n)(2^n - 1)`` clauses that ``x`` satisfies. So

.. math:: P(\Phi) = \frac{\#\mathrm{sol}(\Phi)}{2^k \binom{m}{l}}, \qquad
   E[\#\mathrm{sol}] = \sum_{d=0}^k \binom{k}{d} \binom{m - v_d}{l} \Big/ \binom{m}{l}, \quad
   v_d = \binom{k}{n} - \binom{k-d}{n}:

formulas with many solutions are likelier (the paper says uniform), and a uniform guess succeeds with
``p0 = E[#sol]/2^k``, to be reported next to every pass rate; in K attempts with `guess_pass_at_k`. Planted clauses
agree with the solution in ``2^(n-1)/(2^n - 1)`` of their literals, so majorities of signs give it away when there are
many clauses (`Formulas.majority`, `majority_certain_from`).

Formulas come as text and clauses (one at a time, for language models) and as arrays (`Formulas`, a batch at a time).
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from klsim import _validate

__all__ = [
    "VARIABLES",
    "Clause",
    "Formulas",
    "answer_reward",
    "check_level",
    "clause_count",
    "clauses_text",
    "count_solutions",
    "difficulty",
    "expected_solutions",
    "formula_probability",
    "guess_pass_at_k",
    "guess_probability",
    "last_box",
    "majority_certain_from",
    "parse_clauses",
    "planted_clause",
    "planted_formulas",
    "satisfies",
    "solution_moment",
]

Clause = tuple[tuple[int, bool], ...]
"""Literals ``(variable, positive)``, variables ascending from 0."""

VARIABLES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Names of the variables, in order."""
CLAUSE = re.compile(r"(?:!?[A-Z])+")
BOX = re.compile(r"\\boxed\{([^{}]*)\}")
MAX_COUNTED = 24


def check_level(n: int, k: int, l: int) -> None:  # noqa: E741
    """Refuse what is no level.

    Raises:
        ValueError: not ``1 <= n <= k <= 26`` and ``1 <= l <= m``.
    """
    _validate.integer("k", k, low=1, high=len(VARIABLES))
    _validate.integer("n", n, low=1, high=k)
    _validate.integer("l", l, low=1, high=clause_count(n, k))


def clause_count(n: int, k: int) -> int:
    """``m = C(k, n) (2^n - 1)``: clauses that a given assignment satisfies.

    Raises:
        ValueError: a negative number, more than 1000.
    """
    n, k = _validate.integer("n", n, low=0, high=1000), _validate.integer("k", k, low=0, high=1000)
    return math.comb(k, n) * (2**n - 1)


# exact counts ----------------------------------------------------------------------------------------
def expected_solutions(n: int, k: int, l: int) -> Fraction:  # noqa: E741
    """``E[#sol]`` of a planted formula, exact.

    Raises:
        ValueError: as `check_level`.
    """
    check_level(n, k, l)
    m = clause_count(n, k)
    total = sum(math.comb(k, d) * math.comb(m - math.comb(k, n) + math.comb(k - d, n), l) for d in range(k + 1))
    return Fraction(total, math.comb(m, l))


def guess_probability(n: int, k: int, l: int) -> Fraction:  # noqa: E741
    """``p0 = E[#sol]/2^k``: success probability of a uniform guess, exact."""
    return expected_solutions(n, k, l) / 2**k


def solution_moment(n: int, k: int, l: int, order: int) -> Fraction:  # noqa: E741
    r"""``E[#sol^r]`` of a planted formula, exact; ``r = order``.

    Points ``y_1 … y_r`` are all solutions iff none of the clauses that one of them violates was drawn. An n-subset of
    variables has as many of those as the points and x have different restrictions to it, less that of x. The subsets on
    which points agree depend on how many variables have which pattern of differences to x: a sum over the
    ``C(k + 2^r - 1, k)`` numbers of these patterns.

    Raises:
        ValueError: as `check_level`; ``order < 1``; more than 10^6 terms.
    """
    check_level(n, k, l)
    order = _validate.integer("order", order, low=1, high=5)
    patterns = 2**order
    if math.comb(k + patterns - 1, k) > 10**6:
        _validate.fail("order", f"has more than 10^6 terms at k = {k}", order)
    m, total = clause_count(n, k), 0
    # the patterns on which an earlier set of points agrees with point i, by the set's sign in inclusion-exclusion
    agreeing = []
    for i in range(1, order + 1):
        for size in range(i + 1):
            for others in itertools.combinations(range(i), size):
                together = [0 if j == 0 else 1 << (j - 1) for j in (*others, i)]
                same = [p for p in range(patterns) if len({bool(p & bit) for bit in together}) == 1]
                agreeing.append(((-1) ** size, same))
    for counts in _compositions(k, patterns):
        excluded = sum(sign * math.comb(sum(counts[p] for p in same), n) for sign, same in agreeing)
        ways = math.factorial(k)
        for count in counts:
            ways //= math.factorial(count)
        total += ways * math.comb(m - excluded, l)
    return Fraction(total, math.comb(m, l))


def _compositions(total: int, parts: int) -> Iterable[tuple[int, ...]]:
    """Non-negative integers that sum to ``total``."""
    for bars in itertools.combinations(range(total + parts - 1), parts - 1):
        yield tuple(b - a - 1 for a, b in itertools.pairwise((-1, *bars, total + parts - 1)))


def guess_pass_at_k(n: int, k: int, l: int, attempts: int) -> Fraction:  # noqa: E741
    """``E[1 - (1 - #sol/2^k)^K]``: that one of K = ``attempts`` uniform guesses is a solution, exact.

    At most ``1 - (1 - p0)^K`` (Jensen). Raises as `solution_moment`.
    """
    _validate.integer("attempts", attempts, low=1)
    terms = (
        (-1) ** (r + 1) * math.comb(attempts, r) * solution_moment(n, k, l, r) / 2 ** (k * r)
        for r in range(1, attempts + 1)
    )
    return sum(terms, Fraction(0))


def formula_probability(clauses: Iterable[Clause], k: int) -> Fraction:
    """``#sol / (2^k C(m, l))``: probability of a set of l distinct clauses of equal length over k variables.

    Raises:
        ValueError: no clause, clauses of several lengths, more of them than there are, variables beyond k.
    """
    clauses = _clauses(clauses)
    if len({len(clause) for clause in clauses}) != 1:
        _validate.fail("clauses", "must be clauses of one length, at least one")
    n, l = len(clauses[0]), len(clauses)  # noqa: E741
    check_level(n, k, l)
    return Fraction(count_solutions(clauses, k), 2**k * math.comb(clause_count(n, k), l))


def difficulty(n: int, k: int, l: int) -> float:  # noqa: E741
    """``log2 k + 2 log2 l - n + k/n``: the paper's score (Eq. 2), fitted to language models, not a law."""
    check_level(n, k, l)
    return math.log2(k) + 2 * math.log2(l) - n + k / n


def majority_certain_from(n: int, k: int) -> int:
    r"""The number of clauses from which the majority of signs is the planted solution for certain.

    All m clauses hold ``C(k-1,n-1) 2^(n-1)`` literals of a variable that agree with the solution and ``C(k-1,n-1)``
    fewer that do not; ``m - l`` missing clauses cannot cancel that margin while ``m - l < C(k-1,n-1)``.
    """
    check_level(n, k, 1)
    return max(1, clause_count(n, k) - math.comb(k - 1, n - 1) + 1)


# one formula, as text --------------------------------------------------------------------------------
def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: must be text, got {type(value).__name__}")
    return value


def _clauses(clauses: Iterable[Clause], variables: int | None = None) -> list[Clause]:
    """As a list, each a tuple of ``(variable, positive)``; variables below ``variables``."""
    out = _validate.sequence("clauses", clauses)
    for i, clause in enumerate(out):
        pairs = isinstance(clause, tuple | list) and all(isinstance(x, tuple | list) and len(x) == 2 for x in clause)
        if not pairs:
            raise TypeError(f"clauses[{i}]: must be literals (variable, positive), got {type(clause).__name__}")
        for variable, positive in clause:
            high = None if variables is None else variables - 1
            _validate.integer(f"clauses[{i}]", variable, low=0, high=high)
            _validate.flag(f"clauses[{i}]", positive)
    return out


def satisfies(clauses: Iterable[Clause], bits: str) -> bool:
    """Whether the assignment ``bits`` (one ``0`` or ``1`` a variable) makes every clause true.

    Raises:
        TypeError: ``bits`` is no text, clauses that are none. ValueError: a variable beyond the bits.
    """
    given = _clauses(clauses, len(_text("bits", bits)))
    return all(any((bits[variable] == "1") == positive for variable, positive in clause) for clause in given)


def count_solutions(clauses: Iterable[Clause], k: int) -> int:
    """Assignments of k <= 24 variables that satisfy all clauses, by their truth table.

    Raises:
        TypeError: clauses that are none. ValueError: k, or a variable beyond it.
    """
    k = _validate.integer("k", k, low=1, high=MAX_COUNTED)
    points = np.arange(2**k)
    true = np.ones(points.size, dtype=bool)
    for clause in _clauses(clauses, k):
        literals = [((points >> (k - 1 - variable)) & 1) == positive for variable, positive in clause]
        true &= np.any(literals, axis=0) if literals else False  # nothing makes an empty clause true
    return int(true.sum())


def clauses_text(clauses: Iterable[Clause]) -> str:
    """The paper's notation, e.g. ``!B!C!D & A!B!D``.

    Raises:
        TypeError: clauses that are none. ValueError: more than 26 variables.
    """
    given = _clauses(clauses, len(VARIABLES))
    return " & ".join("".join(("" if sign else "!") + VARIABLES[v] for v, sign in clause) for clause in given)


def parse_clauses(text: str) -> list[Clause]:
    """The clauses of a text such as ``!B!C!D & A!B!D``.

    Raises:
        ValueError: names the clause that is none.
    """
    out = []
    for i, part in enumerate(_text("text", text).split(" & ")):
        if CLAUSE.fullmatch(part) is None:
            raise ValueError(f"clauses[{i}] = {part!r}: must be letters A to Z, each with or without a ! before it")
        out.append(tuple((VARIABLES.index(literal[-1]), literal[0] != "!") for literal in re.findall("!?[A-Z]", part)))
    return out


def last_box(completion: str) -> str | None:
    r"""What stands in the last ``\boxed{...}`` of a completion, None without one."""
    boxes = BOX.findall(_text("completion", completion))
    return boxes[-1] if boxes else None


def answer_reward(completion: str, clauses: str, k: int, *, boxed: bool = True, signed: bool = True) -> float:
    r"""1 for a satisfying assignment of k bits, 0 for another answer; without an answer -1, or 0 if not ``signed``.

    Strict: exactly k characters 0 or 1. ``boxed``: the answer stands in the last ``\boxed{...}``; else it is the whole
    completion, and what is not k bits is no answer. O(n l). Raises as `parse_clauses`.
    """
    boxed, signed = _validate.flag("boxed", boxed), _validate.flag("signed", signed)
    _text("clauses", clauses)
    k = _validate.integer("k", k, low=1)
    answer = last_box(completion) if boxed else _text("completion", completion)
    legal = answer is not None and len(answer) == k and set(answer) <= {"0", "1"}
    if answer is not None and legal and satisfies(parse_clauses(clauses), answer):
        return 1.0
    answered = answer is not None if boxed else legal
    return -1.0 if signed and not answered else 0.0


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
    """Clause number ``index`` of the ``m`` that ``solution`` satisfies: which variables, and which of them agree.

    Raises:
        TypeError: ``solution`` is no text. ValueError: n beyond its length, ``index`` outside ``0 .. m-1``.
    """
    n = _validate.integer("n", n, low=1, high=len(_text("solution", solution)))
    index = _validate.integer("index", index, low=0, high=clause_count(n, len(solution)) - 1)
    rank, agreeing = divmod(index, 2**n - 1)
    variables = _combination(rank, len(solution), n)
    return tuple((v, (solution[v] == "1") == bool((agreeing + 1) >> j & 1)) for j, v in enumerate(variables))


# batches of formulas, as arrays ----------------------------------------------------------------------
@dataclass(frozen=True)
class Formulas:
    """N formulas of one shape over ``k`` variables.

    Attributes:
        variables: ``(N, l, n)`` integers, the variables of every clause, distinct in a clause.
        signs: ``(N, l, n)`` booleans, whether the literal is the variable itself (not its negation).
        k: number of variables, at most 63.
        solutions: ``(N, k)`` of 0 and 1, the planted ones; None if there are none.

    Raises:
        ValueError: shapes that do not fit, variables outside ``0 .. k-1``.
    """

    variables: np.ndarray
    signs: np.ndarray
    k: int
    solutions: np.ndarray | None = None

    def __post_init__(self) -> None:
        _validate.integer("k", self.k, low=1, high=63)
        variables = _validate.integers("variables", self.variables, low=0, high=self.k - 1)
        if variables.ndim != 3:
            _validate.fail("variables", f"must have shape (N, l, n), got {variables.shape}")
        signs = _validate.boolean_mask("signs", self.signs, variables.shape)
        object.__setattr__(self, "variables", np.ascontiguousarray(variables, dtype=np.int64))
        object.__setattr__(self, "signs", np.ascontiguousarray(signs))
        if self.solutions is not None:
            solutions = _validate.integers("solutions", self.solutions, low=0, high=1)
            if solutions.shape != (len(variables), self.k):
                _validate.fail("solutions", f"must have shape {(len(variables), self.k)}, got {solutions.shape}")
            object.__setattr__(self, "solutions", solutions)

    def __len__(self) -> int:
        return len(self.variables)

    def clauses(self, index: int) -> list[Clause]:
        """One formula as a list of clauses."""
        rows = zip(self.variables[index].tolist(), self.signs[index].tolist())
        return [tuple(zip(variables, signs)) for variables, signs in rows]

    def satisfied(self, answers: Any) -> np.ndarray:
        """Whether ``answers (N, G, k)``, booleans or 0 and 1, satisfy their formula, ``(N, G)``; O(n l) each."""
        from klsim.kernels.satisfiability import satisfied

        if not (isinstance(answers, np.ndarray) and answers.dtype == bool):
            answers = _validate.integers("answers", answers, low=0, high=1) == 1
        if answers.ndim != 3 or answers.shape[::2] != (len(self), self.k):
            _validate.fail("answers", f"must have shape ({len(self)}, G, {self.k}), got {answers.shape}")
        return np.asarray(satisfied(self.variables, self.signs, answers))

    def count(self) -> np.ndarray:
        """Numbers of solutions ``(N,)`` by truth tables, ``k <= 24``."""
        from klsim.kernels.satisfiability import solution_counts

        _validate.integer("k", self.k, high=MAX_COUNTED)
        return np.asarray(solution_counts(self.variables, self.signs, self.k))

    def literal_votes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""``(V, d, q)``, each ``(N, k)``: sum of the signs ±1 of a variable's literals, their number, and needed sign.

        ``q_j = sum_c s_cj u_cj / sum_c u_cj`` (0 for an absent variable), with ``u_cj`` the chance that no other
        literal of clause c is true if independently ``P(y_i = 1) = sigmoid(V_i)``.
        """
        from klsim.kernels.satisfiability import literal_votes

        votes, degrees, needed = literal_votes(self.variables, self.signs, self.k)
        return votes, degrees, needed

    def majority(self, *, ties: int = 0) -> np.ndarray:
        """``(N, k)``: 1 if more literals of a variable are positive than negative, ``ties`` where as many are."""
        _validate.integer("ties", ties, low=0, high=1)
        votes = self.literal_votes()[0]
        return np.where(votes == 0, ties, votes > 0).astype(np.int64)


@functools.lru_cache(maxsize=32)
def _subsets(k: int, n: int) -> np.ndarray:
    return np.array(list(itertools.combinations(range(k), n)), dtype=np.int64)


def planted_formulas(n: int, k: int, l: int, size: int, rng: np.random.Generator | int) -> Formulas:  # noqa: E741
    """``size`` independent planted formulas with their solutions.

    Raises:
        ValueError: as `check_level`; more than 10^6 subsets of n variables.
    """
    from klsim.kernels.satisfiability import distinct, planted_literals

    check_level(n, k, l)
    size, rng = _validate.integer("size", size, low=0), _validate.generator(rng)
    if math.comb(k, n) > 10**6:
        _validate.fail("n", f"has more than 10^6 subsets of k = {k} variables", n)
    _validate.fits("size", size, size * l * n, each=40)
    solutions = rng.integers(0, 2, (size, k))
    numbers = distinct(rng.random((size, l)), clause_count(n, k))
    variables, signs = planted_literals(numbers, _subsets(k, n), solutions)
    return Formulas(variables, signs, k, solutions)
