"""Expectations such as ``reward - beta*reverse_kl(frozen)``: parsed, never evaluated."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass

from klsim.learning import functional_value, random_prompts

__all__ = ["Expectation", "parse_expectation"]


@dataclass(frozen=True)
class Expectation:
    """An objective to maximise: coefficients of population functionals."""

    text: str
    coefficients: Mapping[str, float]


def parse_expectation(text: str, parameters: Mapping[str, float]) -> Expectation:
    """A sum of ``[factor*…]functional``; factors are numbers or names in ``parameters``.

    Functionals are those of `klsim.learning.functional_gradient`, e.g. ``reward``, ``reverse_kl``,
    ``forward_kl(frozen)``, ``reverse_kl(teacher, frozen)``.

    Raises:
        ValueError: an unknown name, a term that does not parse, a factor that is not finite, nothing at all.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise ValueError(
            f"expectation {text!r}: write a sum of terms such as reward - beta*reverse_kl(frozen)"
        ) from None
    out: dict[str, float] = {}
    for factor, name in _terms(tree.body, text, parameters):
        try:
            functional_value(name, random_prompts(1, 0))
        except ValueError as error:
            raise ValueError(f"expectation {text!r}: {error}") from None
        out[name] = out.get(name, 0.0) + factor
    return Expectation(" ".join(text.split()), out)


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
        case ast.Name() | ast.Call():
            return [(1.0, ast.unparse(node))]
    raise ValueError(f"expectation {text!r}: {ast.unparse(node)!r} is not a functional")


def _number(node: ast.expr, text: str, parameters: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(int() | float() as value) if not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        case ast.UnaryOp(ast.USub(), operand):
            return -_number(operand, text, parameters)
        case ast.BinOp(left, ast.Mult(), right):
            return _number(left, text, parameters) * _number(right, text, parameters)
        case ast.Name(name) if name in parameters:
            return float(parameters[name])
    known = ", ".join(parameters) or "none"
    raise ValueError(
        f"expectation {text!r}: {ast.unparse(node)!r} is no finite number and no parameter (known: {known})"
    )
