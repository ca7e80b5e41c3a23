r"""Modular arithmetic with a chain of thought.

.. math:: \text{prompt } x_1 \circ_1 x_2 \circ_2 \cdots x_T \,\%\, m =,\qquad
          \text{completion } v_1;v_2;\dots;v_{T-1}

with operands in ``{0, ..., high}`` and operators out of ``operations``, all uniform. The steps ``v`` are the values
modulo ``m`` of the single operations, products first, then sums from left to right; the last is the answer:
``17+25*3%7=`` is completed by ``5;1``. Without a chain the completion is the answer alone. The reward is that of the
outcome: steps must be numbers, only the last must be right. Two tasks with other operations are two *domains* over one
alphabet, which is what a student with two teachers needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from klsim import _validate
from klsim.lm.tasks.task import Row, Task, operators

__all__ = ["ModularArithmetic", "steps"]

OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
CHAIN = re.compile(r"[0-9]+(;[0-9]+)*")


def steps(operands: list[int], operations: str, modulus: int) -> list[int]:
    """The values modulo ``modulus`` of the operations in the order of evaluation; the last is the answer."""
    values, signs, out = list(operands), list(operations), []
    while signs:
        at = signs.index("*") if "*" in signs else 0
        out.append(OPERATIONS[signs.pop(at)](values[at], values.pop(at + 1)) % modulus)
        values[at] = out[-1]
    return out


@dataclass(frozen=True)
class ModularArithmetic(Task):
    """Chains of ``+``, ``-`` and ``*`` modulo a number.

    Attributes:
        modulus: 2 to 1e12. terms: operands of an expression, 2 to 1000.
        operations: the operators to draw from, e.g. ``"+"`` or ``"+*"``.
        chain: whether the completion holds the steps before the answer.
        high: the largest operand; ``modulus - 1`` if None.

    Raises:
        ValueError: knobs out of range. TypeError: of the wrong type.
    """

    modulus: int = 10
    terms: int = 3
    operations: str = "+"
    chain: bool = True
    high: int | None = None

    columns: ClassVar[tuple[str, ...]] = ("answer",)

    def __post_init__(self) -> None:
        _validate.integer("modulus", self.modulus, low=2, high=10**12)
        _validate.integer("terms", self.terms, low=2, high=1000)
        operators("operations", self.operations, "".join(OPERATIONS))
        _validate.flag("chain", self.chain)
        if self.high is not None:
            _validate.integer("high", self.high, low=1, high=10**12)

    @property
    def largest(self) -> int:
        """The largest operand."""
        return self.modulus - 1 if self.high is None else self.high

    @property
    def name(self) -> str:
        chain = "" if self.chain else ", no chain"
        return f"modular({self.operations} mod {self.modulus}, {self.terms} terms to {self.largest}{chain})"

    @property
    def alphabet(self) -> str:
        return "0123456789+-*%=;"

    @property
    def max_prompt_tokens(self) -> int:
        return self.terms * (len(str(self.largest)) + 1) + len(str(self.modulus)) + 1

    @property
    def max_completion_tokens(self) -> int:
        return (self.terms - 1 if self.chain else 1) * (len(str(self.modulus - 1)) + 1)

    @property
    def most_problems(self) -> int:
        return int((self.largest + 1) ** self.terms * len(self.operations) ** (self.terms - 1))

    def difficulty(self) -> float:
        """``(terms - 1) log2 modulus``: bits that a solver must get right."""
        return (self.terms - 1) * math.log2(self.modulus)

    def draw(self, rng: np.random.Generator) -> Row:
        operands = [int(x) for x in rng.integers(0, self.largest + 1, self.terms)]
        signs = "".join(self.operations[i] for i in rng.integers(0, len(self.operations), self.terms - 1))
        expression = str(operands[0]) + "".join(f"{sign}{x}" for sign, x in zip(signs, operands[1:]))
        values = [str(v) for v in steps(operands, signs, self.modulus)]
        return {
            "prompt": f"{expression}%{self.modulus}=",
            "answer": values[-1],
            "solution": ";".join(values if self.chain else values[-1:]),
        }

    def score(self, completion: str, columns: Mapping[str, Any]) -> float:
        """1 for numbers separated by ``;`` (one number without a chain), the last of them the answer; else 0."""
        if not self.chain:
            return float(completion == columns["answer"])
        return float(CHAIN.fullmatch(completion) is not None and completion.split(";")[-1] == columns["answer"])
