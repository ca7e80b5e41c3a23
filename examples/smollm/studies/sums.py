"""Sums and differences as a pretrained model meets them: solved ones, a line each, and one to go on with.

The prompt ``34 + 51 = 85\\n24 + 38 =`` is continued by `` 62\\n``. Numbers and answers have two digits, so that four
tokens of a model that splits digits hold the whole answer and its end. Right is a completion whose first number is the
answer; what follows it is not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from klsim.lm.tasks import Row, Task

FIRST_NUMBER = re.compile(r"\s*([0-9]+)")


@dataclass(frozen=True)
class FewShot(Task):
    """Problems ``a o b`` with a and the answer in ``low … high``, after ``shots`` solved ones of the same kind.

    Attributes:
        operation: ``"+"`` or ``"-"``. shots: solved problems in a prompt. low, high: the smallest and largest number.
        second: the smallest and largest b; ``low, high`` if None.
    """

    operation: str = "+"
    shots: int = 1
    low: int = 10
    high: int = 99
    second: tuple[int, int] | None = None

    columns: ClassVar[tuple[str, ...]] = ("answer",)

    @property
    def name(self) -> str:
        return f"{self.low} … {self.high} {self.operation} {self.second or 'the same'}, {self.shots} solved"

    @property
    def alphabet(self) -> str:
        return "0123456789+-= \n"

    @property
    def max_prompt_tokens(self) -> int:
        return (self.shots + 1) * (3 * len(str(self.high)) + 7)

    @property
    def max_completion_tokens(self) -> int:
        return len(str(self.high)) + 2

    @property
    def most_problems(self) -> int:
        return int((self.high - self.low + 1) ** (2 * (self.shots + 1)))

    def difficulty(self) -> float:
        """Digits of the largest number."""
        return float(len(str(self.high)))

    def draw(self, rng: np.random.Generator) -> Row:
        lines = []
        least, most = self.second or (self.low, self.high)
        for _ in range(self.shots + 1):
            while True:
                a = int(rng.integers(self.low, self.high + 1))
                b = int(rng.integers(least, most + 1))
                answer = a + b if self.operation == "+" else a - b
                if self.low <= answer <= self.high:
                    break
            lines.append(f"{a} {self.operation} {b} = {answer}")
        question, _, solution = lines[-1].rpartition(" ")
        return {
            "prompt": "\n".join([*lines[:-1], question]),
            "answer": solution,
            "solution": f" {solution}\n",
        }

    def score(self, completion: str, columns: Mapping[str, Any]) -> float:
        """1 if the first number of the completion, with nothing but blanks before it, is the answer; else 0."""
        found = FIRST_NUMBER.match(completion)
        return float(found is not None and found[1] == columns["answer"])
