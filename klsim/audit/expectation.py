"""Expectations such as ``reward - beta*reverse_kl(frozen)``: parsed, never evaluated."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field

from klsim.learning.functionals import Functional, parse_term

__all__ = ["Expectation", "parse_expectation"]

MEANS = ("token_mean", "sequence_mean")
VALUE_LOSS = "value_loss"


@dataclass(frozen=True)
class Expectation:
    """An objective to maximise.

    Attributes:
        text: as given. coefficients: of population functionals, in groups of 2. own: those given as functions.
        parameters: values of names.
    """

    text: str
    coefficients: Mapping[str, float]
    own: Mapping[str, Functional] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)

    def at(self, group: int) -> Mapping[str, float]:
        """The coefficients with groups of another size: they may depend on ``G``."""
        if "G" not in self.text or "G" in self.parameters:
            return self.coefficients
        return parse_expectation(self.text, {**self.parameters, "G": group}, self.own).coefficients

    @property
    def about_pairs(self) -> bool:
        """A preference objective."""
        return any(self._term(name) and parse_term(name).about_pairs for name in self.coefficients)

    @property
    def of_a_batch(self) -> bool:
        """It has a mean over all tokens of a batch."""
        return any(name.startswith("token_mean") for name in self.coefficients)

    @property
    def top(self) -> int:
        """The largest ``top=``, 0 without any."""
        return max((int(parse_term(n).numbers.get("top", 0)) for n in self.coefficients if self._term(n)), default=0)

    def _term(self, name: str) -> bool:
        return name not in self.own and name != VALUE_LOSS


def parse_expectation(
    text: str, parameters: Mapping[str, float], own: Mapping[str, Functional] | None = None
) -> Expectation:
    """A sum of ``[factor*…]functional``; factors are arithmetic of numbers and of names in ``parameters``.

    ``G`` is the number of responses in a group, if no parameter has that name: ``(1 - 1/G)*reward`` is what a group
    mean leaves.

    Functionals are those of `klsim.learning.functionals`, e.g. ``reward``, ``forward_kl(frozen)``,
    ``reverse_kl(teacher, frozen, top=2)``; their options may be parameters too, ``dpo(beta=beta)``. ``value_loss``:
    ``E sum_t (V(s_t) - r)^2/2`` of the value head. ``token_mean(…)`` and ``sequence_mean(…)`` may hold a sum.

    Args:
        own: more functionals by name, each a function of a `klsim.learning.TreeProblem` and the policy's table of
            log-probabilities (torch).

    Raises:
        ValueError: an unknown name, a term that does not parse, a factor that is not finite, nothing at all.
    """
    own = own or {}
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise ValueError(
            f"expectation {text!r}: write a sum of terms such as reward - beta*reverse_kl(frozen);"
            " options with = come last"
        ) from None
    out: dict[str, float] = {}
    for factor, name in _terms(tree.body, text, {"G": 2.0, **parameters}):
        if name not in own and name != VALUE_LOSS:
            try:
                parse_term(name)
            except ValueError as error:
                raise ValueError(f"expectation {text!r}: {error}") from None
        out[name] = out.get(name, 0.0) + factor
    return Expectation(" ".join(text.split()), out, {n: f for n, f in own.items() if n in out}, dict(parameters))


def _terms(node: ast.expr, text: str, parameters: Mapping[str, float]) -> list[tuple[float, str]]:
    """Factor and functional of every term of a parsed expression."""
    match node:
        case ast.BinOp(left, ast.Add() | ast.Sub() as op, right):
            sign = 1.0 if isinstance(op, ast.Add) else -1.0
            after = [(sign * factor, name) for factor, name in _terms(right, text, parameters)]
            return _terms(left, text, parameters) + after
        case ast.UnaryOp(ast.UAdd() | ast.USub() as op, operand):
            sign = 1.0 if isinstance(op, ast.UAdd) else -1.0
            return [(sign * factor, name) for factor, name in _terms(operand, text, parameters)]
        case ast.BinOp(left, ast.Mult(), right):
            scale = _number(left, text, parameters)
            return [(scale * factor, name) for factor, name in _terms(right, text, parameters)]
        case ast.BinOp(left, ast.Div(), right):
            scale = _number(right, text, parameters)
            if scale == 0:
                raise ValueError(f"expectation {text!r}: division by 0")
            return [(factor / scale, name) for factor, name in _terms(left, text, parameters)]
        case ast.Call(ast.Name(mean), [inner], []) if mean in MEANS:
            return [(factor, f"{mean}({name})") for factor, name in _terms(inner, text, parameters)]
        case ast.BinOp(ast.Name(name), ast.MatMult(), ast.Constant(int() as prompt)):
            return [(1.0, f"{name}@{prompt}")]
        case ast.Name() | ast.Call(ast.Name()):
            return [(1.0, _name(node, parameters))]
    raise ValueError(f"expectation {text!r}: {ast.unparse(node)!r} is not a functional")


def _name(node: ast.Name | ast.Call, parameters: Mapping[str, float]) -> str:
    """The functional's name, with the values of parameters in its options."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if isinstance(keyword.value, ast.Name) and keyword.value.id in parameters:
                keyword.value = ast.Constant(float(parameters[keyword.value.id]))
    return ast.unparse(node)


_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def _number(node: ast.expr, text: str, parameters: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(int() | float() as value) if not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        case ast.UnaryOp(ast.USub(), operand):
            return -_number(operand, text, parameters)
        case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
            one, two = _number(left, text, parameters), _number(right, text, parameters)
            if isinstance(op, ast.Div) and two == 0:
                raise ValueError(f"expectation {text!r}: division by 0")
            return float(_ARITHMETIC[type(op)](one, two))
        case ast.Name(name) if name in parameters:
            return float(parameters[name])
    known = ", ".join(parameters) or "none"
    raise ValueError(
        f"expectation {text!r}: {ast.unparse(node)!r} is no finite number and no parameter (known: {known})"
    )
