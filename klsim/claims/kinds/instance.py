"""Kinds that judge every instance by itself: identities, inequalities, optima, existence."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from klsim.claims.kinds.base import Kind, Trial, label_of, named_parts
from klsim.claims.outcome import Judgement, MalformedCheck, NotANumber, Outcome, Verdict

__all__ = ["Exists", "Identity", "Inequality", "InstanceKind", "Measured", "Optimality"]


@dataclass(frozen=True)
class Measured:
    """What a check measured, one entry an instance: its worst part, where that part is worst.

    Attributes:
        excess: how far the statement is from true, relative to ``magnitude``; at most 0 where it is true.
        lhs, rhs: the two sides there.
        magnitude: ``max(|lhs|, |rhs|, scale)`` there.
        scaled: whether that includes a scale that the author gave.
        part: names of the worst parts.
    """

    excess: np.ndarray
    lhs: np.ndarray
    rhs: np.ndarray
    magnitude: np.ndarray
    scaled: bool
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.excess)


def _tuples(returned: Any) -> dict[str, tuple[Any, ...]]:
    named = named_parts(returned)
    for part, value in named.items():
        if not isinstance(value, tuple) or not 2 <= len(value) <= 3:
            where = f" in part {part!r}" if part else ""
            raise MalformedCheck(
                f"a check must return (lhs, rhs) or (lhs, rhs, scale){where}, got {type(value).__name__}"
            )
    return named


def _as_floats(part: str, values: tuple[Any, ...]) -> list[np.ndarray]:
    try:
        floats = [np.asarray(v.detach() if hasattr(v, "detach") else v, dtype=np.float64) for v in values]
        return list(np.broadcast_arrays(*floats))
    except (TypeError, ValueError) as error:
        raise MalformedCheck(
            f"{label_of(part)}lhs and rhs must be real arrays that broadcast ({error}); "
            "a check that only works on one instance at a time needs batched=False"
        ) from None


def _rows(array: np.ndarray, size: int | None, part: str) -> np.ndarray:
    """``(instances, entries)``; ``size`` None is a single instance."""
    if size is None:
        return array.reshape(1, -1)
    if array.ndim == 0 or array.shape[0] != size:
        raise MalformedCheck(
            f"{label_of(part)}a batched check returns one value an instance, got shape {array.shape} for "
            f"{size} instances; if it only works on one instance at a time, pass batched=False"
        )
    return array.reshape(size, -1)


class InstanceKind(Kind):
    """Judges an instance from a gap and the rounding it may have."""

    one_sided: ClassVar[bool]
    relation: ClassVar[str]
    scale: float

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """Largest relative error that counts as rounding."""

    @abstractmethod
    def gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        """How far the statement is from true; at most 0 where it is true."""

    def run(self, trial: Trial) -> Outcome:
        return trial.search(self, trial)

    def conclude(self, judged: Judgement) -> Judgement:
        """The verdict on the statement, from that on the worst instance."""
        return judged

    def measure(self, returned: Any, size: int | None = None, kept: np.ndarray | None = None) -> Measured:
        """What a batch of ``size`` instances gives (None: one instance without a batch axis).

        Instances that are not ``kept`` (a mask) count as true.

        Raises:
            MalformedCheck: not pairs of real arrays, or not one value an instance.
            NotANumber: NaN on a side.
        """
        parts = [self._measure_part(part, values, size, kept) for part, values in _tuples(returned).items()]
        if len(parts) == 1:
            return parts[0]
        worst = np.argmax(np.stack([p.excess for p in parts]), axis=0)
        rows = np.arange(len(worst))
        pick = {
            name: np.stack([getattr(p, name) for p in parts])[worst, rows]
            for name in ("excess", "lhs", "rhs", "magnitude")
        }
        names = np.asarray([p.part[0] for p in parts])[worst] if len(parts[0]) else parts[0].part
        return Measured(**pick, scaled=any(p.scaled for p in parts), part=names)

    def _measure_part(self, part: str, values: tuple[Any, ...], size: int | None, kept: np.ndarray | None) -> Measured:
        lhs, rhs, *scale = (_rows(a, size, part) for a in _as_floats(part, values))
        if kept is not None:
            lhs, rhs = (np.where(kept[:, None], side, 0.0) for side in (lhs, rhs))
        nan = np.isnan(lhs) | np.isnan(rhs)
        if nan.any():
            index = int(np.argwhere(nan)[0, 0])
            raise NotANumber(f"{label_of(part)}a side is NaN: neither true nor false", index)
        magnitude = np.maximum(np.maximum(np.abs(lhs), np.abs(rhs)), np.abs(scale[0]) if scale else 0.0)
        magnitude = np.maximum(magnitude, self.scale)
        excess = self._relative(lhs, rhs, magnitude)
        if excess.shape[1] == 0:  # nothing to compare: true
            excess, lhs, rhs, magnitude = (np.zeros((len(excess), 1)) for _ in range(4))
        at = np.argmax(excess, axis=1)[:, None]
        excess, lhs, rhs, magnitude = (np.take_along_axis(a, at, axis=1)[:, 0] for a in (excess, lhs, rhs, magnitude))
        return Measured(excess, lhs, rhs, magnitude, bool(scale) or self.scale > 0, np.full(len(excess), part))

    def _relative(self, lhs: np.ndarray, rhs: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            gap = self.gap(lhs, rhs)
            excess = gap / np.where(magnitude == 0, 1.0, magnitude)
            infinite = np.isinf(lhs) | np.isinf(rhs)
            excess = np.where(infinite, np.sign(gap) * np.inf, excess)
            if self.one_sided:
                excess = np.where(np.isneginf(excess), -1.0, excess)
            return np.where(lhs == rhs, 0.0, np.where(np.isnan(excess), np.inf, excess))

    def judge(self, returned: Any, size: int | None = None) -> Judgement:
        """The verdict on a batch from its worst instance, before any attack."""
        measured = self.measure(returned, size)
        return self.judge_at(measured, int(np.argmax(measured.excess)) if len(measured) else 0)

    def judge_at(self, measured: Measured, index: int) -> Judgement:
        """The verdict on one instance."""
        if not len(measured):
            return Judgement("holds", "no instance", {})
        excess, part = float(measured.excess[index]), str(measured.part[index])
        left, right = float(measured.lhs[index]) + 0.0, float(measured.rhs[index]) + 0.0
        magnitude = float(measured.magnitude[index])
        worst = max(excess, 0.0)
        numbers: dict[str, Any] = {
            "worst_error": worst,
            "tolerance": self.tolerance,
            "lhs": left,
            "rhs": right,
            "scale": magnitude,
        }
        if excess > self.tolerance:
            verdict: Verdict = "refuted"
            summary = f"{label_of(part)}{left:.6g} {self.relation} {right:.6g} fails by {_by(left, right, magnitude)}"
        else:
            verdict = "holds"
            summary = f"{label_of(part)}worst relative error {worst:.2g} (allowed {self.tolerance:.2g})"
            if self.one_sided:
                numbers["smallest_slack"] = -excess
                summary = f"{label_of(part)}smallest relative slack {-excess:.2g}"
        severity = excess / self.tolerance if excess > 0 else excess
        return Judgement(verdict, summary, numbers, part, severity)


def _by(lhs: float, rhs: float, magnitude: float) -> str:
    """The error in words: ``6e-4, relative to 1``."""
    gap = abs(lhs - rhs) if math.isfinite(lhs) and math.isfinite(rhs) else math.inf
    return f"{gap:.3g}, {gap / magnitude:.2g} of {magnitude:.3g}" if magnitude and math.isfinite(gap) else f"{gap:.3g}"


@dataclass(frozen=True)
class Identity(InstanceKind):
    """``lhs = rhs`` on every instance, to relative error ``rtol``."""

    rtol: float = 1e-10
    scale: float = 0.0
    name: ClassVar[str] = "identity"
    one_sided: ClassVar[bool] = False
    relation: ClassVar[str] = "="

    @property
    def tolerance(self) -> float:
        return self.rtol

    def gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        return np.abs(lhs - rhs)


@dataclass(frozen=True)
class Inequality(InstanceKind):
    """``lhs <= rhs`` on every instance, up to rounding ``rtol``."""

    rtol: float = 1e-12
    scale: float = 0.0
    name: ClassVar[str] = "inequality"
    one_sided: ClassVar[bool] = True
    relation: ClassVar[str] = "<="

    @property
    def tolerance(self) -> float:
        return self.rtol

    def gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        return lhs - rhs


@dataclass(frozen=True)
class Optimality(InstanceKind):
    """No challenger (dual bound, other solver) exceeds the candidate's ``value`` by more than ``tol``."""

    tol: float = 1e-9
    scale: float = 0.0
    name: ClassVar[str] = "optimality"
    one_sided: ClassVar[bool] = True
    relation: ClassVar[str] = ">="

    @property
    def tolerance(self) -> float:
        return self.tol

    def gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        return rhs - lhs


@dataclass(frozen=True)
class Exists(InstanceKind):
    """Some instance has ``lhs > rhs`` by more than rounding ``rtol``: "there is …", "A is not B".

    The search is that of an inequality, for the opposite end: what breaks ``lhs <= rhs`` is the witness, shrunk and
    confirmed like any counterexample. Without one the verdict is ``not_shown``: a search cannot refute existence.
    """

    rtol: float = 1e-9
    scale: float = 0.0
    name: ClassVar[str] = "exists"
    told_apart: ClassVar[frozenset[str]] = frozenset({"refuted", "not_shown"})
    one_sided: ClassVar[bool] = True
    relation: ClassVar[str] = "<="

    @property
    def tolerance(self) -> float:
        return self.rtol

    def gap(self, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        return lhs - rhs

    def conclude(self, judged: Judgement) -> Judgement:
        left, right = judged.measured.get("lhs", math.nan), judged.measured.get("rhs", math.nan)
        if judged.verdict == "refuted":
            text = f"{label_of(judged.part)}witness: {left:.6g} > {right:.6g}"
            return Judgement("holds", text, judged.measured, judged.part, 0.0)
        text = f"{label_of(judged.part)}no witness found; nearest {left:.6g} against {right:.6g}"
        return Judgement("not_shown", text, judged.measured, judged.part, 2.0)
