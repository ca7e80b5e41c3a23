"""Effects: means over pre-declared seeds, with their intervals and the power of the design."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from klsim.claims.kinds.base import Kind, Trial, label_of, named_parts
from klsim.claims.outcome import Judgement, MalformedCheck, NotANumber, Outcome, Verdict
from klsim.estimators import mean_interval

__all__ = ["Effect"]


@dataclass(frozen=True)
class Effect(Kind):
    """A mean over pre-declared ``seeds`` lies on the stated side of ``null``, with 95 % confidence.

    The check returns one paired outcome a seed (a number, or ``treatment, baseline`` whose difference is taken): called
    with ``rng`` once a seed, or once with ``rngs``, a list of generators. Both the BCa bootstrap and the Student-t
    interval of the mean are taken; the wider end counts. ``greater``/``less``: the interval excludes ``null`` on that
    side. ``within``: the interval lies inside ``null ± margin`` (an equivalence test). Outside: ``refuted`` if the
    interval excludes the stated side altogether, else ``not_shown``.

    Power: from the outcomes (mean m, deviation s, n seeds) the chance that other seeds would not show the effect,
    ``P(T(n - 1, delta) <= t)`` with ``delta = |m - null| sqrt(n) / s`` (noncentral t), and the seeds that bring it
    below 1e-4. The certificate holds both; a plug-in estimate, good to its order of magnitude.
    """

    seeds: int = 20
    alternative: Literal["greater", "less", "within"] = "greater"
    null: float = 0.0
    margin: float | None = None
    level: float = 0.95
    name: ClassVar[str] = "effect"
    # the claim itself, shown by the same check with as many seeds, proves that the check can show an effect
    told_apart: ClassVar[frozenset[str]] = frozenset({"refuted", "not_shown"})

    def __post_init__(self) -> None:
        if self.alternative not in ("greater", "less", "within"):
            raise ValueError(f"alternative = {self.alternative!r}: greater, less or within")
        if self.seeds < 2:
            raise ValueError(f"seeds = {self.seeds}: an interval needs at least 2")
        if (self.margin is not None) != (self.alternative == "within") or (
            self.margin is not None and self.margin <= 0
        ):
            raise ValueError("margin > 0 goes with alternative='within', and only with it")

    def run(self, trial: Trial) -> Outcome:
        *streams, judging = trial.seeds.spawn(self.seeds + 1)
        rngs = [np.random.default_rng(s) for s in streams]
        trial.tried["seeds"] = self.seeds
        if "rngs" in trial.test.parameters:
            outcomes = trial.call(rngs=rngs)
        else:
            outcomes = _collect([trial.call(rng=rng) for rng in rngs])
        return self.outcome(self.judge(outcomes, np.random.default_rng(judging)), trial)

    def judge(self, outcomes: Any, rng: np.random.Generator) -> Judgement:
        """``outcomes``: an array of one number a seed, or a dict of them."""
        judged = [
            self._judge_part(part, np.asarray(v, dtype=np.float64), rng) for part, v in named_parts(outcomes).items()
        ]
        worst = max(judged, key=lambda j: j.severity)
        if len(judged) == 1:
            return worst
        risk = min(1.0, sum(j.measured["not_shown_risk"] for j in judged))
        measured = {"parts": {j.part: dict(j.measured) for j in judged}, "not_shown_risk": risk}
        return Judgement(worst.verdict, worst.summary, measured, worst.part, worst.severity)

    def _judge_part(self, part: str, values: np.ndarray, rng: np.random.Generator) -> Judgement:
        label = label_of(part)
        if values.ndim == 2 and values.shape[1] == 2:
            values = values[:, 0] - values[:, 1]
        if values.ndim != 1 or values.size < 2:
            raise MalformedCheck(f"{label}an effect needs one number a seed, got shape {values.shape}")
        if np.isnan(values).any():
            raise NotANumber(f"{label}the outcome of seed {int(np.flatnonzero(np.isnan(values))[0])} is NaN")
        if not np.all(np.isfinite(values)):
            return Judgement("refuted", f"{label}an outcome is not finite", {"not_shown_risk": 0.0}, part, math.inf)
        mean, (low, high) = float(values.mean()), mean_interval(values, self.level, rng)
        verdict, severity = self._place(low, high)
        deviation = float(values.std(ddof=1))
        risk, needed = self._power(mean, deviation, values.size)
        measured = {"mean": mean, "low": low, "high": high, "level": self.level, "seeds": int(values.size),
                    "null": self.null, "sd": deviation, "alternative": self.alternative,
                    "not_shown_risk": risk, "seeds_for_1e-4": needed}  # fmt: skip
        if self.margin is not None:
            measured["margin"] = self.margin
        goal = f"within {self.null:g} ± {self.margin:g}" if self.margin else f"{self.alternative} than {self.null:g}"
        interval = f"{self.level:.0%} interval [{low:.4g}, {high:.4g}]"
        text = f"{label}mean {mean:.4g}, {interval} over {values.size} seeds ({goal}"
        text += f"; not shown elsewhere: {risk:.1g})" if verdict == "holds" else ")"
        return Judgement(verdict, text, measured, part, severity)

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

    def _distances(self, mean: float) -> list[float]:
        """How far the mean lies on the good side of each threshold."""
        if self.alternative == "within":
            assert self.margin is not None
            return [mean - (self.null - self.margin), (self.null + self.margin) - mean]
        return [mean - self.null if self.alternative == "greater" else self.null - mean]

    def _risk(self, mean: float, deviation: float, seeds: int) -> float:
        from scipy.stats import nct, t

        if deviation == 0:
            return 0.0 if min(self._distances(mean)) > 0 else 1.0
        bar = t.ppf(0.5 + self.level / 2, seeds - 1)
        deltas = [d * math.sqrt(seeds) / deviation for d in self._distances(mean)]
        # far out the noncentral t loses its tail to rounding; there the risk is 0 to every purpose
        risks = [0.0 if d > bar + 37 else float(nct.cdf(bar, seeds - 1, d)) if d > -37 else 1.0 for d in deltas]
        return float(min(1.0, max(0.0, sum(risks))))

    def _power(self, mean: float, deviation: float, seeds: int) -> tuple[float, int | None]:
        """The chance that other seeds do not show it, and how many seeds bring that below 1e-4 (None: over 10^5)."""
        risk = self._risk(mean, deviation, seeds)
        if min(self._distances(mean)) <= 0:
            return risk, None
        low, high = 1, 2
        while self._risk(mean, deviation, high) > 1e-4:
            low, high = high, 2 * high
            if high > 10**5:
                return risk, None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._risk(mean, deviation, middle) <= 1e-4 else (middle, high)
        return risk, high


def _collect(outcomes: list[Any]) -> Any:
    """One outcome a seed -> arrays over seeds (a dict of them where the check has parts)."""
    if isinstance(outcomes[0], Mapping):
        return {part: np.asarray([o[part] for o in outcomes], dtype=float) for part in outcomes[0]}
    return np.asarray(outcomes, dtype=float)
