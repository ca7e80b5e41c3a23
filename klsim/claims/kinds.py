r"""The kinds of claim: what a check returns, and when it holds.

=============  =====================================  ==================================================
kind           the check returns (or a dict of them)  holds when
=============  =====================================  ==================================================
`Identity`     ``lhs, rhs[, scale]``                  ``|lhs - rhs| <= rtol * max(|lhs|, |rhs|, scale)``
`Inequality`   ``lhs, rhs[, scale]``                  ``lhs - rhs <= rtol * max(|lhs|, |rhs|, scale)``
`Optimality`   ``value, challenger[, scale]``         no challenger (a dual bound or another solver's
                                                      value) exceeds ``value`` by more than
                                                      ``tol * max(|value|, |challenger|, scale)``
`Limit`        ``n, error``                           the error falls along the sequence and, where theory
                                                      has a rate, the fitted exponent is ``rate ± rate_tol``
`Effect`       one number a seed                      a 95 % interval lies on the stated side of ``null``
`Symbolic`     a sympy expression                     it simplifies to zero
=============  =====================================  ==================================================

``scale`` is the magnitude of the terms that were added up to get ``lhs`` and ``rhs`` (default 0):
rounding is relative to what was added, not to what is left after cancellation. Equal infinities
are equal; a NaN on either side breaks the claim.

A kind only judges numbers. Where they come from (spaces, seeds) is `klsim.claims.search`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from klsim.estimators import mean_interval

__all__ = [
    "Effect",
    "Identity",
    "Inequality",
    "InstanceKind",
    "Judgement",
    "Kind",
    "Limit",
    "MalformedCheck",
    "Optimality",
    "Symbolic",
    "Verdict",
]

Verdict = Literal["holds", "refuted", "not_shown"]


class MalformedCheck(TypeError):
    """A check returned something that its kind cannot judge."""


@dataclass(frozen=True)
class Judgement:
    """What one kind says about what one check measured.

    Attributes:
        verdict: ``holds``, ``refuted`` or (effects only) ``not_shown``.
        summary: one line with the numbers that decided.
        measured: those numbers by name; the certificate holds them.
        part: which part of the check was the worst (empty if it has one).
        index: the batch index of the worst instance, for kinds that judge instances.
        severity: how far the worst instance is from the threshold; > 1 is a violation.
    """

    verdict: Verdict
    summary: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    index: int | None = None
    severity: float = 0.0


def parts_of(returned: Any) -> dict[str, tuple[Any, ...]]:
    """``{part: tuple}`` from a tuple or a dict of tuples."""
    named = returned if isinstance(returned, Mapping) else {"": returned}
    if not named:
        raise MalformedCheck("a check returned an empty dict: nothing to judge")
    for name, value in named.items():
        if not isinstance(value, tuple) or not 2 <= len(value) <= 3:
            where = f" in part {name!r}" if name else ""
            raise MalformedCheck(
                f"a check must return (lhs, rhs) or (lhs, rhs, scale){where}, got {type(value).__name__}"
            )
    return dict(named)


def _as_floats(part: str, values: tuple[Any, ...]) -> list[np.ndarray]:
    try:
        floats = [np.asarray(v.detach() if hasattr(v, "detach") else v, dtype=np.float64) for v in values]
        return list(np.broadcast_arrays(*floats))
    except (TypeError, ValueError) as error:
        raise MalformedCheck(f"part {part!r}: lhs and rhs must be real arrays that broadcast ({error})") from None


def _per_instance(array: np.ndarray, size: int | None, part: str) -> np.ndarray:
    """Reduce trailing axes: one severity an instance. ``size`` None means a single instance."""
    if size is None:
        return np.reshape(np.max(array), (1,)) if array.size else np.zeros(0)
    if array.ndim == 0 or array.shape[0] != size:
        raise MalformedCheck(
            f"part {part!r}: a batched check returns one value an instance, "
            f"got shape {array.shape} for {size} instances"
        )
    rows = array.reshape(size, -1)
    return rows.max(axis=1) if rows.size else np.zeros(size)


class InstanceKind(ABC):
    """Kinds that judge every instance by itself, from a gap and the rounding it may have."""

    name: ClassVar[str]
    one_sided: ClassVar[bool]
    relation: ClassVar[str]

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """Largest relative error that counts as rounding."""

    @abstractmethod
    def _gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        """How far the statement is from true; at most 0 where it is true."""

    def judge(self, returned: Any, size: int | None = None) -> Judgement:
        """The verdict on a batch of ``size`` instances (None: one instance without a batch axis)."""
        worst: Judgement | None = None
        for part, values in parts_of(returned).items():
            judged = self._judge_part(part, _as_floats(part, values), size)
            if worst is None or judged.severity > worst.severity:
                worst = judged
        assert worst is not None
        return worst

    def _judge_part(self, part: str, values: list[np.ndarray], size: int | None) -> Judgement:
        lhs, rhs = values[0], values[1]
        excess = _per_instance(self._relative_excess(*values), size, part)
        index = int(np.argmax(excess)) if excess.size else 0
        worst = max(float(excess[index]), 0.0) if excess.size else 0.0
        rows = [np.reshape(a, (1 if size is None else size, -1)) for a in (self._relative_excess(*values), lhs, rhs)]
        at = int(np.argmax(rows[0][index])) if rows[0].size else None
        left, right = (
            (math.nan, math.nan) if at is None else (float(rows[1][index, at]) + 0.0, float(rows[2][index, at]) + 0.0)
        )
        measured: dict[str, Any] = {
            "worst_error": worst,
            "tolerance": self.tolerance,
            "lhs": left,
            "rhs": right,
        }
        label = f"{part}: " if part else ""
        summary = f"{label}worst relative error {worst:.2g} (allowed {self.tolerance:.2g})"
        if self.one_sided and worst <= self.tolerance:
            measured["smallest_slack"] = float(-excess[index]) if excess.size else math.inf
            summary = f"{label}smallest relative slack {measured['smallest_slack']:.2g} (tightest instance)"
        if worst > self.tolerance:
            summary = f"{label}{left:.6g} {self.relation} {right:.6g} fails: relative error {worst:.2g}"
        verdict: Verdict = "holds" if worst <= self.tolerance else "refuted"
        severity = worst / self.tolerance if worst > 0 else float(excess[index]) if excess.size else 0.0
        return Judgement(verdict, summary, measured, part, index, severity)

    def _relative_excess(self, lhs: np.ndarray, rhs: np.ndarray, scale: Any = 0.0) -> np.ndarray:
        """How far the statement is from true, relative to what was compared; inf where a side is NaN."""
        with np.errstate(all="ignore"):
            magnitude = np.maximum(np.maximum(np.abs(lhs), np.abs(rhs)), np.abs(scale))
            excess = self._gap(lhs, rhs) / np.where(magnitude == 0, 1.0, magnitude)
            infinite = np.isinf(lhs) | np.isinf(rhs)
            excess = np.where(infinite, np.sign(self._gap(lhs, rhs)) * np.inf, excess)
            if self.one_sided:
                excess = np.where(np.isneginf(excess), -1.0, excess)
            excess = np.where(lhs == rhs, 0.0, excess)
            return np.where(np.isnan(lhs) | np.isnan(rhs) | np.isnan(excess), np.inf, excess)


@dataclass(frozen=True)
class Identity(InstanceKind):
    """``lhs = rhs`` on every instance, to relative error ``rtol``."""

    rtol: float = 1e-10
    name: ClassVar[str] = "identity"
    one_sided: ClassVar[bool] = False
    relation: ClassVar[str] = "="

    @property
    def tolerance(self) -> float:
        return self.rtol

    def _gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        return np.abs(lhs - rhs)


@dataclass(frozen=True)
class Inequality(InstanceKind):
    """``lhs <= rhs`` on every instance, up to rounding ``rtol``."""

    rtol: float = 1e-12
    name: ClassVar[str] = "inequality"
    one_sided: ClassVar[bool] = True
    relation: ClassVar[str] = "<="

    @property
    def tolerance(self) -> float:
        return self.rtol

    def _gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        return lhs - rhs


@dataclass(frozen=True)
class Optimality(InstanceKind):
    """No challenger (dual bound, other solver) exceeds the candidate's ``value`` by more than ``tol``."""

    tol: float = 1e-9
    name: ClassVar[str] = "optimality"
    one_sided: ClassVar[bool] = True
    relation: ClassVar[str] = ">="

    @property
    def tolerance(self) -> float:
        return self.tol

    def _gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        return rhs - lhs


@dataclass(frozen=True)
class Limit:
    """The error goes to 0 along the sequence, with ``error ~ n ** rate`` if theory has a rate.

    Holds when every value is finite, ``|error|`` is smaller at the end than at the start, the least
    squares slope of ``log|error|`` on ``log n`` is within ``rate_tol`` of ``rate`` (if given), and
    the last ``|error|`` is at most ``tol`` (if given). At least one of the two must be given.
    """

    rate: float | None = None
    rate_tol: float = 0.1
    tol: float | None = None
    name: ClassVar[str] = "limit"

    def __post_init__(self) -> None:
        if self.rate is None and self.tol is None:
            raise ValueError("Limit needs a rate, a tol, or both: without them nothing can fail")

    def judge(self, returned: Any) -> Judgement:
        judged = [self._judge_part(part, *_as_floats(part, v[:2])) for part, v in parts_of(returned).items()]
        return max(judged, key=lambda j: j.severity)

    def _judge_part(self, part: str, n: np.ndarray, error: np.ndarray) -> Judgement:
        if n.ndim != 1 or n.size < 2 or not np.all(n > 0):
            raise MalformedCheck(f"part {part!r}: a limit needs at least two values n > 0, got shape {n.shape}")
        size = np.abs(error)
        label = f"{part}: " if part else ""
        measured: dict[str, Any] = {"n": n.tolist(), "error": error.tolist()}
        if not np.all(np.isfinite(size)):
            return Judgement("refuted", f"{label}the error is not finite", measured, part, severity=math.inf)
        slope, stderr = _loglog_slope(n, size)
        measured |= {"exponent": slope, "exponent_stderr": stderr}
        excess = [2.0 if size[-1] >= size[0] and size[0] > 0 else 0.0]
        text = f"{label}|error| {size[0]:.3g} -> {size[-1]:.3g}"
        if self.rate is not None:
            measured |= {"rate": self.rate, "rate_tol": self.rate_tol}
            excess.append(abs(slope - self.rate) / self.rate_tol if math.isfinite(slope) else math.inf)
            text += f", exponent {slope:.3f} ± {stderr:.3f} (theory {self.rate:g} ± {self.rate_tol:g})"
        if self.tol is not None:
            measured["tolerance"] = self.tol
            excess.append(float(size[-1]) / self.tol)
            text += f" (allowed {self.tol:.3g})"
        severity = max(excess)
        return Judgement("holds" if severity <= 1 else "refuted", text, measured, part, severity=severity)


def _loglog_slope(n: np.ndarray, size: np.ndarray) -> tuple[float, float]:
    """Least-squares slope of log size on log n, with its standard error (0 for an exact line)."""
    keep = size > 0
    if keep.sum() < 2:
        return math.nan, math.nan
    x, y = np.log(n[keep]), np.log(size[keep])
    design = np.stack([x, np.ones_like(x)], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ coefficients
    freedom = max(x.size - 2, 1)
    spread = float(np.sum((x - x.mean()) ** 2))
    stderr = math.sqrt(float(residual @ residual) / freedom / spread) if spread else math.nan
    return float(coefficients[0]), stderr


@dataclass(frozen=True)
class Effect:
    """A mean over pre-declared ``seeds`` lies on the stated side of ``null``, with 95 % confidence.

    The check returns one paired outcome a seed (a number, or ``treatment, baseline`` whose
    difference is taken). Both the BCa bootstrap and the Student-t interval of the mean are taken;
    the wider end counts. ``greater``/``less``: the interval excludes ``null`` on that side.
    ``within``: the interval lies inside ``null ± margin`` (an equivalence test).
    Outside: ``refuted`` if the interval excludes the stated side altogether, else ``not_shown``.
    """

    seeds: int = 20
    alternative: Literal["greater", "less", "within"] = "greater"
    null: float = 0.0
    margin: float | None = None
    level: float = 0.95
    name: ClassVar[str] = "effect"

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"seeds = {self.seeds}: an interval needs at least 2")
        if (self.margin is not None) != (self.alternative == "within") or (
            self.margin is not None and self.margin <= 0
        ):
            raise ValueError("margin > 0 goes with alternative='within', and only with it")

    def judge(self, outcomes: Any, rng: np.random.Generator) -> Judgement:
        """``outcomes``: an array of one number a seed, or a dict of them."""
        named = outcomes if isinstance(outcomes, Mapping) else {"": outcomes}
        judged = [self._judge_part(str(part), np.asarray(v, dtype=np.float64), rng) for part, v in named.items()]
        worst = max(judged, key=lambda j: j.severity)
        if len(judged) == 1:
            return worst
        measured = {"parts": {j.part: dict(j.measured) for j in judged}}
        return Judgement(worst.verdict, worst.summary, measured, worst.part, severity=worst.severity)

    def _judge_part(self, part: str, values: np.ndarray, rng: np.random.Generator) -> Judgement:
        label = f"{part}: " if part else ""
        if values.ndim == 2 and values.shape[1] == 2:
            values = values[:, 0] - values[:, 1]
        if values.ndim != 1 or values.size < 2:
            raise MalformedCheck(f"{label}an effect needs one number a seed, got shape {values.shape}")
        if not np.all(np.isfinite(values)):
            return Judgement("refuted", f"{label}an outcome is not finite", {}, part, severity=math.inf)
        mean, (low, high) = float(values.mean()), mean_interval(values, self.level, rng)
        verdict, severity = self._place(low, high)
        deviation = float(values.std(ddof=1))
        measured = {"mean": mean, "low": low, "high": high, "level": self.level, "seeds": int(values.size),
                    "null": self.null, "sd": deviation, "alternative": self.alternative}  # fmt: skip
        if self.margin is not None:
            measured["margin"] = self.margin
        goal = f"within {self.null:g} ± {self.margin:g}" if self.margin else f"{self.alternative} than {self.null:g}"
        interval = f"{self.level:.0%} interval [{low:.4g}, {high:.4g}]"
        text = f"{label}mean {mean:.4g}, {interval} over {values.size} seeds ({goal})"
        return Judgement(verdict, text, measured, part, severity=severity)

    def _place(self, low: float, high: float) -> tuple[Verdict, float]:
        if self.alternative == "greater":
            holds, refuted = low > self.null, high < self.null
        elif self.alternative == "less":
            holds, refuted = high < self.null, low > self.null
        else:
            assert self.margin is not None
            left, right = self.null - self.margin, self.null + self.margin
            holds, refuted = left < low and high < right, high < left or low > right
        if holds:
            return "holds", 0.0
        return ("refuted", 3.0) if refuted else ("not_shown", 2.0)


@dataclass(frozen=True)
class Symbolic:
    """A sympy expression (or a dict of them) that simplifies to zero.

    ``refuted`` takes more than a simplifier that got stuck: the expression must be non-zero at some
    random positive values of its symbols, to 50 digits. Neither zero nor non-zero is ``not_shown``.
    """

    name: ClassVar[str] = "symbolic"

    def judge(self, returned: Any) -> Judgement:
        named = returned if isinstance(returned, Mapping) else {"": returned}
        judged = [self._judge_part(str(part), expression) for part, expression in named.items()]
        return max(judged, key=lambda j: j.severity)

    def _judge_part(self, part: str, expression: Any) -> Judgement:
        import sympy

        expression = sympy.sympify(expression)
        label = f"{part}: " if part else ""
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


Kind = Identity | Inequality | Optimality | Limit | Effect | Symbolic
