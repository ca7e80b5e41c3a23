"""Proofs of inequalities on boxes, by ball arithmetic."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from klsim.claims.kinds.base import Kind, Trial, label_of, named_parts
from klsim.claims.outcome import Judgement, MalformedCheck, Outcome

__all__ = ["Proven"]


@dataclass(frozen=True)
class Proven(Kind):
    """``lhs <= rhs`` at *every* point of a box, proven by ball arithmetic (python-flint) and bisection.

    The check takes one ball (``flint.arb``) for each side of the box and returns ``lhs, rhs`` (or a dict of them) made
    by arithmetic on balls; a ball encloses the true value for all points of its box, so what holds for balls is proven.
    What a box does not decide its centred form may: with the slopes over the box, from power series of balls
    (``flint.arb_series``, where the check's arithmetic takes them), ``g(m) + sum_i g_i(X) (X_i - m_i)`` encloses
    ``g = lhs - rhs`` with an error quadratic in the box. Boxes that stay open are halved across their widest side.
    ``refuted`` is proven too: at the centre of some box ``lhs`` is certainly larger. Where ``boxes`` are used up (an
    equality inside the box, say) it is ``not_shown``.

    Attributes:
        box: ``{name: (low, high)}``; boxes: at most so many; digits: of the arithmetic, decimal.
    """

    box: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    boxes: int = 20_000
    digits: int = 30
    name: ClassVar[str] = "proven"

    def __post_init__(self) -> None:
        if not self.box:
            raise ValueError("Proven needs a box, {name: (low, high)}")
        for side, (low, high) in self.box.items():
            if not low < high:
                raise ValueError(f"box[{side!r}] = ({low}, {high}): must have low < high")
        if self.boxes < 1 or self.digits < 15:
            raise ValueError("boxes must be >= 1 and digits >= 15")

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the check is given."""
        return tuple(self.box)

    def run(self, trial: Trial) -> Outcome:
        import flint

        with flint.ctx.workdps(self.digits):
            return self.outcome(self._bisect(trial), trial)

    def _bisect(self, trial: Trial) -> Judgement:
        from flint import arb

        lows, highs = zip(*((arb(low), arb(high)) for low, high in self.box.values()))
        number = itertools.count(1)
        waiting: list[tuple[float, int, tuple[Any, ...], tuple[Any, ...]]] = [(0.0, 0, lows, highs)]
        tried = proven = 0
        while waiting and tried < self.boxes:
            _, _, low, high = heapq.heappop(waiting)  # the widest first
            tried += 1
            box = [a.union(b) for a, b in zip(low, high)]
            open_parts = self._open(trial, box)
            if not open_parts:
                proven += 1
                continue
            middle = [(a + b) / 2 for a, b in zip(low, high)]
            values = self._sides(trial, [m.mid() for m in middle])
            for part, value in values.items():
                if value[0] > value[1]:
                    trial.tried["boxes"] = tried
                    return self._broken(part, middle, value)
            if self._closed_by_slopes(trial, box, [m.mid() for m in middle], {p: values[p] for p in open_parts}):
                proven += 1
                continue
            widths = [float((b - a).mid()) / (h - g) for (a, b), (g, h) in zip(zip(low, high), self.box.values())]
            side = widths.index(max(widths))
            for half in ((low[side], middle[side]), (middle[side], high[side])):
                new_low, new_high = list(low), list(high)
                new_low[side], new_high[side] = half
                heapq.heappush(waiting, (-max(widths), next(number), tuple(new_low), tuple(new_high)))
        trial.tried["boxes"] = tried
        measured = {"boxes": tried, "open": len(waiting), "box": {k: list(v) for k, v in self.box.items()}}
        if waiting:
            return Judgement("not_shown", f"{len(waiting)} boxes undecided after {tried}", measured, severity=2.0)
        return Judgement("holds", f"proven on the box, {proven} boxes", measured)

    def _sides(self, trial: Trial, balls: list[Any]) -> dict[str, tuple[Any, Any]]:
        returned = named_parts(trial.call(**dict(zip(self.box, balls))))
        for part, value in returned.items():
            if not isinstance(value, tuple) or len(value) != 2:
                raise MalformedCheck(f"{label_of(part)}a proof returns (lhs, rhs), got {type(value).__name__}")
        return returned

    def _closed_by_slopes(
        self, trial: Trial, box: list[Any], middle: list[Any], values: dict[str, tuple[Any, Any]]
    ) -> bool:
        """Whether the centred form decides all these parts, whose sides at the middle are known."""
        from flint import arb_series, ctx

        most = {part: lhs - rhs for part, (lhs, rhs) in values.items()}
        cap, ctx.cap = ctx.cap, 2
        try:
            for j, (ball, m) in enumerate(zip(box, middle)):
                moved = [arb_series([b, int(i == j)], prec=2) for i, b in enumerate(box)]
                for part, (lhs, rhs) in self._sides(trial, moved).items():
                    if part in most:
                        most[part] += (arb_series(lhs)[1] - arb_series(rhs)[1]) * (ball - m)
        except (TypeError, ValueError, AttributeError, ZeroDivisionError):  # not for power series, or not on this box
            return False
        finally:
            ctx.cap = cap
        return all(gap <= 0 for gap in most.values())

    def _open(self, trial: Trial, balls: list[Any]) -> list[str]:
        return [part for part, (lhs, rhs) in self._sides(trial, balls).items() if not lhs <= rhs]

    def _broken(self, part: str, at: list[Any], value: tuple[Any, Any]) -> Judgement:
        point = {name: float(x.mid()) for name, x in zip(self.box, at)}
        lhs, rhs = (float(getattr(v, "mid", lambda v=v: v)()) for v in value)
        shown = ", ".join(f"{name} = {x:.6g}" for name, x in point.items())
        text = f"{label_of(part)}{lhs:.6g} <= {rhs:.6g} fails at {shown}, proven"
        return Judgement("refuted", text, {"point": point, "lhs": lhs, "rhs": rhs}, part, severity=3.0)
