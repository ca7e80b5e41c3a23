"""Proofs by computer algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from klsim.claims.kinds.base import Kind, Trial, label_of, named_parts
from klsim.claims.outcome import Judgement, Outcome

__all__ = ["Symbolic"]


@dataclass(frozen=True)
class Symbolic(Kind):
    """A sympy expression (or a dict of them) that simplifies to zero.

    ``refuted`` takes more than a simplifier that got stuck: the expression must be non-zero at some
    random positive values of its symbols, to 50 digits. Neither zero nor non-zero is ``not_shown``.
    """

    name: ClassVar[str] = "symbolic"

    def run(self, trial: Trial) -> Outcome:
        return self.outcome(self.judge(trial.call_with_rng()), trial)

    def judge(self, returned: Any) -> Judgement:
        judged = [self._judge_part(part, expression) for part, expression in named_parts(returned).items()]
        return max(judged, key=lambda j: j.severity)

    def _judge_part(self, part: str, expression: Any) -> Judgement:
        import sympy

        expression = sympy.sympify(expression)
        label = label_of(part)
        shown = str(expression)
        measured: dict[str, Any] = {"expression": shown if len(shown) <= 400 else shown[:400] + " …"}
        witness = _nonzero_point(expression)
        if witness is not None:
            point, value = witness
            measured |= {"point": {str(k): str(v) for k, v in point.items()}, "value": str(value)}
            return Judgement(
                "refuted",
                f"{label}is {float(value):.6g} at {measured['point']}",
                measured,
                part,
                severity=3.0,
            )
        reduced = sympy.simplify(sympy.expand_log(expression, force=True))
        if reduced != 0:
            reduced = sympy.simplify(sympy.expand(sympy.logcombine(reduced, force=True)))
        if reduced == 0:
            return Judgement("holds", f"{label}simplifies to 0", measured, part)
        measured["reduced"] = str(reduced)[:400]
        return Judgement("not_shown", f"{label}not reduced to 0: {str(reduced)[:80]}", measured, part, severity=2.0)


def _nonzero_point(expression: Any) -> tuple[dict[Any, Any], Any] | None:
    """Positive rational values of the symbols where the expression is not 0 to 30 digits, if any is found."""
    import sympy

    symbols = sorted(expression.free_symbols, key=str)
    rng = np.random.default_rng(0)
    for _ in range(8):
        point = {s: sympy.Rational(int(rng.integers(1, 200)), 100) for s in symbols}
        value = sympy.N(expression.subs(point), 50)
        if value.is_number and value.is_finite and abs(value) > sympy.Float("1e-30"):
            return point, value
    return None
