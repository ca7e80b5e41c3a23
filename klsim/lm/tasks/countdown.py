r"""Countdown: reach a target from given numbers.

The prompt ``3,5,7=22:`` is completed by an expression over ``operations`` and parentheses that uses each number at most
once (exactly once with ``use_all``) and equals the target, e.g. ``3*5+7``. Values are exact rationals; there is no
unary minus and numbers are written as in the prompt.

Law: the numbers are uniform on ``{1, ..., high}^count`` (printed sorted), the target uniform on what they reach within
``{1, ..., max_target}`` (without the numbers themselves, unless ``use_all``) by natural-number steps; numbers that
reach nothing are drawn again.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from klsim import _validate
from klsim.lm.tasks.task import Row, Task, operators

__all__ = ["Countdown", "evaluate_expression", "reachable"]

TOKENS = re.compile(r"[0-9]+|[-+*/()]")
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
MAX_COUNT = 6
DRAWS = 1000


def evaluate_expression(text: str, numbers: list[int], operations: str = "+-*/", use_all: bool = False) -> Fraction:
    """The exact value of an expression over ``operations`` and parentheses that uses ``numbers`` at most once each.

    Operator precedence as usual, equal ones from the left; time and memory linear in the text.

    Raises:
        ValueError: not an expression, a number or operator that is not there (any more), a number left over with
            ``use_all``, or a division by zero.
    """
    tokens = TOKENS.findall(text)
    if "".join(tokens) != text:
        raise ValueError(f"{text[:80]!r}: only digits, + - * / and parentheses are allowed")
    # before any arithmetic: afterwards at most len(numbers) operations are left to do
    used = Counter(token for token in tokens if token[0].isdigit())
    given = Counter(str(number) for number in numbers)
    if not used <= given or (use_all and used != given):
        raise ValueError(f"{text[:80]!r}: must use each of {numbers} {'exactly' if use_all else 'at most'} once")
    return _shunting_yard(text, tokens, operations)


def _shunting_yard(text: str, tokens: list[str], operations: str) -> Fraction:
    """Dijkstra's algorithm; iterative, since a completion may open a million parentheses."""
    values: list[Fraction] = []
    waiting: list[str] = []
    operand_due = True
    for token in tokens:
        if token[0].isdigit() or token == "(":
            if not operand_due:
                raise ValueError(f"{text[:80]!r}: an operator is missing")
            if token == "(":
                waiting.append(token)
            else:
                values.append(Fraction(int(token)))
                operand_due = False
            continue
        if operand_due:
            raise ValueError(f"{text[:80]!r}: a number is missing")
        if token == ")":
            while waiting and waiting[-1] != "(":
                _apply(text, values, waiting.pop())
            if not waiting:
                raise ValueError(f"{text[:80]!r}: parentheses do not match")
            waiting.pop()
            continue
        if token not in operations:
            raise ValueError(f"{text[:80]!r}: the operator {token} is not allowed")
        while waiting and waiting[-1] != "(" and PRECEDENCE[waiting[-1]] >= PRECEDENCE[token]:
            _apply(text, values, waiting.pop())
        waiting.append(token)
        operand_due = True
    if operand_due:
        raise ValueError(f"{text[:80]!r}: a number is missing")
    while waiting:
        if waiting[-1] == "(":
            raise ValueError(f"{text[:80]!r}: parentheses do not match")
        _apply(text, values, waiting.pop())
    return values[0]


def _apply(text: str, values: list[Fraction], operator: str) -> None:
    right, left = values.pop(), values.pop()
    if operator == "/" and right == 0:
        raise ValueError(f"{text[:80]!r}: divides by zero")
    match operator:
        case "+":
            values.append(left + right)
        case "-":
            values.append(left - right)
        case "*":
            values.append(left * right)
        case _:
            values.append(left / right)


Found = dict[int, tuple[str, int]]
"""value -> (expression, precedence of its last operation; 3 for a number)."""


@lru_cache(maxsize=2048)
def reachable(
    numbers: tuple[int, ...], operations: str = "+-*/", use_all: bool = False, limit: int = 99
) -> Mapping[int, str]:
    """Every value in ``{1, ..., limit}`` that ``numbers`` reach by natural-number steps, with a short expression.

    Dynamic programme over subsets: the values of a set are those of all ways to combine two parts of it. Of several
    expressions for a value of a set the shortest is kept, and of those the first in the alphabet.
    """
    count = len(numbers)
    found: list[Found] = [{} for _ in range(1 << count)]
    for i, number in enumerate(numbers):
        found[1 << i] = {number: (str(number), 3)}
    for subset in range(1, 1 << count):
        left = (subset - 1) & subset
        while left:
            _combine(found[subset], found[left], found[subset ^ left], operations)
            left = (left - 1) & subset
    whole = (1 << count) - 1
    out: dict[int, str] = {}
    for subset in [whole] if use_all else range(1, whole + 1):
        for value, (text, _) in found[subset].items():
            if 1 <= value <= limit and (value not in out or (len(text), text) < (len(out[value]), out[value])):
                out[value] = text
    return MappingProxyType(out)


def _combine(into: Found, left: Found, right: Found, operations: str) -> None:
    for a, (left_text, left_level) in left.items():
        for b, (right_text, right_level) in right.items():
            for operator in operations:
                match operator:
                    case "+":
                        value = a + b
                    case "-" if a >= b:
                        value = a - b
                    case "*":
                        value = a * b
                    case "/" if b and a % b == 0:
                        value = a // b
                    case _:
                        continue
                level = PRECEDENCE[operator]
                # a-(b+c), a/(b*c): the right side of - and / keeps its parentheses at equal precedence
                tight = right_level < level or (operator in "-/" and right_level == level)
                first = f"({left_text})" if left_level < level else left_text
                text = f"{first}{operator}({right_text})" if tight else f"{first}{operator}{right_text}"
                if value not in into or (len(text), text) < (len(into[value][0]), into[value][0]):
                    into[value] = (text, level)


@dataclass(frozen=True)
class Countdown(Task):
    """Expressions that reach a target.

    Attributes:
        count: numbers given, 2 to 6. high: the largest of them, >= 1. max_target: >= 1; 99 by default.
        operations: out of ``+-*/``. use_all: every number must be used.

    Raises:
        ValueError: knobs out of range. TypeError: of the wrong type.
    """

    count: int = 3
    high: int = 20
    max_target: int = 99
    operations: str = "+-*"
    use_all: bool = True

    columns: ClassVar[tuple[str, ...]] = ("numbers", "target")

    def __post_init__(self) -> None:
        _validate.integer("count", self.count, low=2, high=MAX_COUNT)
        _validate.integer("high", self.high, low=1, high=10**9)
        _validate.integer("max_target", self.max_target, low=1, high=10**9)
        operators("operations", self.operations, "".join(PRECEDENCE))
        _validate.flag("use_all", self.use_all)

    @property
    def name(self) -> str:
        use = "all" if self.use_all else "some"
        return (
            f"countdown({use} of {self.count} numbers to {self.high}, {self.operations}, target to {self.max_target})"
        )

    @property
    def alphabet(self) -> str:
        return "0123456789+-*/(),=:"

    @property
    def max_prompt_tokens(self) -> int:
        return self.count * (len(str(self.high)) + 1) + len(str(self.max_target)) + 1

    @property
    def max_completion_tokens(self) -> int:
        """Numbers, operators, two parentheses for all but the last operation, end of sequence."""
        return self.count * len(str(self.high)) + self.count - 1 + 2 * (self.count - 2) + 1

    @property
    def most_problems(self) -> int:
        return math.comb(self.high + self.count - 1, self.count) * self.max_target

    def difficulty(self) -> float:
        """``log2 prod_{i=2}^count C(i, 2) |operations|``: ways to combine two at a time until one is left."""
        ways = math.prod(math.comb(i, 2) * len(self.operations) for i in range(2, self.count + 1))
        return math.log2(ways)

    def draw(self, rng: np.random.Generator) -> Row:
        for _ in range(DRAWS):
            numbers = tuple(sorted(int(x) for x in rng.integers(1, self.high + 1, self.count)))
            found = reachable(numbers, self.operations, self.use_all, self.max_target)
            targets = [v for v in sorted(found) if self.use_all or v not in numbers]
            if targets:
                target = targets[int(rng.integers(len(targets)))]
                prompt = f"{','.join(map(str, numbers))}={target}:"
                return {"prompt": prompt, "numbers": list(numbers), "target": target, "solution": found[target]}
        raise ValueError(f"{self.name}: no target in {DRAWS} draws of numbers; allow more operations or larger targets")

    def score(self, completion: str, columns: Mapping[str, Any]) -> float:
        """1 for a legal expression whose value is the target, else 0."""
        try:
            value = evaluate_expression(completion, columns["numbers"], self.operations, self.use_all)
        except ValueError:
            return 0.0
        return float(value == columns["target"])
