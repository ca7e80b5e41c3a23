r"""Limits: errors along a sequence, and the exponent with which they end.

With ``|error| = c n^r (1 + a n^{-q} + ...)`` the slope between neighbouring points, ``s_i = Δ log|error| / Δ log n``,
tends to ``r`` geometrically when n grows by a factor: ``s_i = r + b rho^i``. Three slopes give ``r`` (Aitken's form
of Richardson's extrapolation). Noise in the errors makes slopes jump about instead; then the least-squares slope of
the tail is the better estimate. Both are computed, and the half-width of what is reported covers the distance between
them, the extrapolated step, and the standard error of the fit (Student's t, 95 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from klsim.claims.kinds.base import Kind, Trial, label_of, named_parts
from klsim.claims.outcome import Judgement, MalformedCheck, NotANumber, Outcome, Verdict

__all__ = ["Limit", "tail_exponent"]


@dataclass(frozen=True)
class Limit(Kind):
    """The error goes to 0 along the sequence, with ``error ~ n ** rate`` if theory has a rate.

    With a ``rate``: the exponent at the end of the sequence, with its half-width, lies inside ``rate ± rate_tol``
    (holds), outside (refuted), or across (``not_shown``: the range is too short or too noisy to tell). With a ``tol``:
    the last ``|error|`` is at most ``tol``. At least one must be given; where the sequence moves towards 0 the error
    must also end below where it began. An error that reaches 0 exactly has converged.
    """

    rate: float | None = None
    rate_tol: float = 0.1
    tol: float | None = None
    name: ClassVar[str] = "limit"

    def __post_init__(self) -> None:
        if self.rate is None and self.tol is None:
            raise ValueError("Limit needs a rate, a tol, or both: without them nothing can fail")
        if self.rate_tol <= 0:
            raise ValueError(f"rate_tol = {self.rate_tol}: must be > 0")

    def run(self, trial: Trial) -> Outcome:
        return self.outcome(self.judge(trial.call_with_rng()), trial)

    def judge(self, returned: Any) -> Judgement:
        """``returned``: ``n, error`` or a dict of them."""
        judged = []
        for part, value in named_parts(returned).items():
            if not isinstance(value, tuple) or len(value) < 2:
                raise MalformedCheck(f"{label_of(part)}a limit returns (n, error), got {type(value).__name__}")
            n, error = (np.asarray(v, dtype=np.float64) for v in value[:2])
            judged.append(self._judge_part(part, *np.broadcast_arrays(n, error)))
        return max(judged, key=lambda j: j.severity)

    def _judge_part(self, part: str, n: np.ndarray, error: np.ndarray) -> Judgement:
        if n.ndim != 1 or n.size < 2 or not np.all(n > 0) or len(np.unique(n)) < n.size:
            raise MalformedCheck(f"{label_of(part)}a limit needs at least two different n > 0, got {n.tolist()}")
        if np.isnan(error).any():
            raise NotANumber(f"{label_of(part)}the error at n = {n[np.isnan(error)][0]:g} is NaN")
        size = np.abs(error)
        measured: dict[str, Any] = {"n": n.tolist(), "error": error.tolist()}
        text = f"{label_of(part)}|error| {size[0]:.3g} -> {size[-1]:.3g}"
        if not np.all(np.isfinite(size)):
            return Judgement("refuted", f"{label_of(part)}the error is not finite", measured, part, math.inf)
        verdicts: list[tuple[Verdict, float]] = []
        if self.rate is None or self.rate * (math.log(n[-1]) - math.log(n[0])) < 0:  # the sequence moves towards 0
            verdicts.append(("refuted", 2.0) if size[-1] >= size[0] > 0 else ("holds", 0.0))
        if self.rate is not None:
            verdict, severity, found = self._judge_rate(n, size)
            verdicts.append((verdict, severity))
            measured |= {"rate": self.rate, "rate_tol": self.rate_tol, **found}
            text += _exponent_text(found, self.rate, self.rate_tol)
        if self.tol is not None:
            measured["tolerance"] = self.tol
            verdicts.append(("holds" if size[-1] <= self.tol else "refuted", float(size[-1]) / self.tol))
            text += f" (allowed {self.tol:.3g})"
        order = {"holds": 0, "not_shown": 1, "refuted": 2}
        verdict = max((v for v, _ in verdicts), key=lambda v: order[v])
        return Judgement(verdict, text, measured, part, max(s for _, s in verdicts))

    def _judge_rate(self, n: np.ndarray, size: np.ndarray) -> tuple[Verdict, float, dict[str, Any]]:
        assert self.rate is not None
        if size[-1] == 0:
            return "holds", 0.0, {"converged": True}
        if np.count_nonzero(size) < 3:
            return "not_shown", 2.0, {"exponent": None, "exponent_half_width": None}
        exponent, half = tail_exponent(n, size)
        found = {"exponent": exponent, "exponent_half_width": half}
        away = abs(exponent - self.rate)
        if away + half <= self.rate_tol:
            return "holds", (away + half) / self.rate_tol, found
        if away - half > self.rate_tol:
            return "refuted", 3.0, found
        return "not_shown", 2.0, found


def _exponent_text(found: dict[str, Any], rate: float, rate_tol: float) -> str:
    if found.get("converged"):
        return ", converged: the error is 0"
    if found["exponent"] is None:
        return ", too few non-zero errors for an exponent"
    near = f"{found['exponent']:.3f} ± {found['exponent_half_width']:.3f}"
    return f", exponent at the end {near} (theory {rate:g} ± {rate_tol:g})"


def tail_exponent(n: np.ndarray, size: np.ndarray) -> tuple[float, float]:
    """The exponent of ``size ~ n^r`` at the end of the sequence, and its half-width; at least three points."""
    x, y = np.log(n[size > 0]), np.log(size[size > 0])
    slopes = np.diff(y) / np.diff(x)
    if np.ptp(slopes) <= 1e-9 * max(1.0, abs(slopes[-1])):  # a line
        return float(slopes[-1]), float(np.ptp(slopes))
    if len(slopes) < 3:  # two slopes: no extrapolation, and they may go on as they went (three times, say)
        return float(slopes[-1]), 3 * float(abs(slopes[-1] - slopes[-2]))
    extrapolated, step = _aitken(slopes)
    if extrapolated is not None:
        earlier, _ = _aitken(slopes[:-1]) if len(slopes) > 3 else (None, 0.0)
        spread = abs(extrapolated - earlier) if earlier is not None else abs(step)
        return extrapolated, max(spread, 0.1 * abs(step))
    return _tail_fit(x, y)


def _aitken(slopes: np.ndarray) -> tuple[float | None, float]:
    """The limit of slopes that approach it geometrically, and the step from the last one; None if they do not."""
    before, last = slopes[-2] - slopes[-3], slopes[-1] - slopes[-2]
    ratio = last / before if before else math.inf
    if not 0 < ratio < 0.9:
        return None, 0.0
    step = last * ratio / (1 - ratio)
    return float(slopes[-1] + step), float(step)


def _tail_fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares on the last two thirds (at least four points, all if there are fewer); t half-width, 95 %."""
    from scipy.stats import linregress, t

    count = max(4, math.ceil(2 * len(x) / 3))
    fit = linregress(x[-count:], y[-count:])
    freedom = max(len(x[-count:]) - 2, 1)
    return float(fit.slope), float(t.ppf(0.975, freedom) * fit.stderr)
