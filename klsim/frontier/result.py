"""What the frontier's estimators return: frozen values with intervals, their reasons for mistrust, and their tables."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

__all__ = [
    "BestOfN",
    "Estimate",
    "Frontier",
    "FrontierPoint",
    "PolicyPoint",
    "Result",
    "Shown",
    "as_json",
    "mark",
    "text_of",
]


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval.

    Attributes:
        value, low, high: in the units of the value.
        reason: why it is not to be believed; empty if it is. What is not to be believed is printed as a blank.
    """

    value: float
    low: float
    high: float
    reason: str = ""

    @property
    def trusted(self) -> bool:
        """Nothing speaks against it."""
        return not self.reason

    def __str__(self) -> str:
        return text_of(self)


def text_of(e: Estimate | None) -> str:
    """``value [low, high]`` with the digits that its interval allows; empty if it is not to be trusted."""
    if e is None:
        return ""
    if not e.trusted or not math.isfinite(e.value):
        return ""
    digits = _digits(e)
    value, low, high = (_number(x, digits) for x in (e.value, e.low, e.high))
    return value if e.low == e.high else f"{value} [{low}, {high}]"


def plus_minus(e: Estimate) -> str:
    """``value ± half width``, two digits of the latter."""
    if not e.trusted:
        return ""
    half = (e.high - e.low) / 2
    return _number(e.value, _digits(e)) + (f" ± {half:.2g}" if half > 0 else "")


def _digits(e: Estimate) -> int:
    """Significant digits of the largest of the three numbers at which the half width shows two."""
    half, size = (e.high - e.low) / 2, max(abs(e.value), abs(e.low), abs(e.high))
    if not half > 0 or not size > 0:
        return 4
    return min(max(math.floor(math.log10(size)) - math.floor(math.log10(half)) + 2, 3), 17)


def _number(x: float, digits: int) -> str:
    if x == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(x)))
    if 1e-4 <= abs(x) < 1e9:
        return f"{x:.{min(max(decimals, 0), 17)}f}"
    return f"{x:.{digits - 1}e}"


@dataclass(frozen=True)
class Shown:
    """One table of a result: a title, its columns with their values, and a line below."""

    title: str
    columns: Mapping[str, Sequence[Any]]
    note: str = ""

    def rows(self) -> list[list[str]]:
        """Every cell as text."""
        return [[_cell(value) for value in row] for row in zip(*self.columns.values())]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return text_of(value)
    if isinstance(value, bool):
        return "✓" if value else "✗"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1e4 else f"{value:.5g}"
    if isinstance(value, tuple):
        return " ".join(_cell(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


class Result(abc.ABC):
    """What all results can do: a frame (`table`), a figure (`plot`), tables in a notebook."""

    @abc.abstractmethod
    def shown(self) -> tuple[Shown, ...]:
        """Its tables; the first is what `table` returns."""

    @abc.abstractmethod
    def plot(self, axes: Any = None) -> Any:
        """Draw it on matplotlib axes (new ones if None); returns them."""

    def table(self, *, pandas: bool = False) -> Any:
        """Its main table as an Arrow table, or a pandas frame: an `Estimate` becomes three columns and a reason.

        Values that are not to be trusted are null.
        """
        import pyarrow as pa

        columns: dict[str, list[Any]] = {}
        for name, values in self.shown()[0].columns.items():
            if any(isinstance(v, Estimate) for v in values):
                good = [v if isinstance(v, Estimate) and v.trusted else None for v in values]
                columns[name] = [None if v is None else v.value for v in good]
                columns[f"{name}: low"] = [None if v is None else v.low for v in good]
                columns[f"{name}: high"] = [None if v is None else v.high for v in good]
                columns[f"{name}: reason"] = [v.reason if isinstance(v, Estimate) else None for v in values]
            else:
                columns[name] = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
        made = pa.table({name: pa.array(values) for name, values in columns.items()})
        return made.to_pandas() if pandas else made

    def _repr_html_(self) -> str:
        return "".join(map(_html, self.shown()))


def _html(shown: Shown) -> str:
    from html import escape

    head = "".join(f"<th>{escape(name)}</th>" for name in shown.columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in shown.rows())
    note = f"<p>{escape(shown.note)}</p>" if shown.note else ""
    return f"<h4>{escape(shown.title)}</h4><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


@dataclass(frozen=True)
class FrontierPoint:
    """The best mean reward at one KL budget.

    Attributes:
        budget: mean KL over prompts, nats. beta: the shared coefficient that reaches it.
        reward: expected reward there.
        reward_of_prompts, kl_of_prompts: 10 %, 50 % and 90 % quantiles over prompts, from the tilted samples.
        ess: effective sample size of the tilt, the mean over prompts; at most the samples a prompt.
        halves: reward from halves of the samples minus this one: the remaining bias is of this size or smaller.
    """

    budget: float
    beta: float
    reward: Estimate
    reward_of_prompts: tuple[float, float, float]
    kl_of_prompts: tuple[float, float, float]
    ess: float
    halves: float

    @property
    def trusted(self) -> bool:
        """Its reward is to be believed."""
        return self.reward.trusted

    @property
    def reason(self) -> str:
        """Why not."""
        return self.reward.reason


@dataclass(frozen=True)
class BestOfN:
    """The best of N samples.

    Attributes:
        n: N. reward: unbiased (a U-statistic); pass@N for binary rewards.
        kl: of best-of-N to the reference, ties included, nats: jackknifed, and known if no two samples tie.
        kl_bound: ``log N - (N-1)/N``, its value without ties, and never exceeded.
        win_rate: against one sample, ties counted half; None where all samples of a prompt are needed for the N.
        missed_reward: what the frontier has at its KL, minus its reward; never negative in truth.
        above: why its estimates contradict the frontier's, or "".
    """

    n: int
    reward: Estimate
    kl: Estimate
    kl_bound: float
    win_rate: Estimate | None
    missed_reward: Estimate
    above: str = ""

    @property
    def trusted(self) -> bool:
        """Its place on the plane is to be believed: reward and KL, and it lies below the frontier."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why not."""
        return self.reward.reason or self.kl.reason or self.above


@dataclass(frozen=True)
class PolicyPoint:
    """A trained policy on the same prompts.

    Attributes:
        label: of the checkpoint, if there are several. samples, prompts: how many.
        reward: of its samples. k1, k3: two unbiased estimates of its mean KL to the reference, nats; k3 is None if only
            a KL was given.
        needed_kl: what the frontier needs for its reward. efficiency: ``needed_kl / k1``.
        frontier_reward: of the frontier at its KL. missed_reward: that minus its own.
        length, kl_per_token: tokens of a response, and ``k1 / length``, if log-probabilities are given by token.
    """

    label: str
    samples: int
    prompts: int
    reward: Estimate
    k1: Estimate
    k3: Estimate | None
    needed_kl: Estimate
    efficiency: Estimate
    frontier_reward: Estimate
    missed_reward: Estimate
    length: Estimate | None = None
    kl_per_token: Estimate | None = None

    @property
    def trusted(self) -> bool:
        """Its distance from the frontier is to be believed."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why not."""
        return self.k1.reason or self.efficiency.reason or self.missed_reward.reason


@dataclass(frozen=True)
class Frontier(Result):
    """What `klsim.frontier.estimate` found.

    Attributes:
        prompts, samples, samples_a_prompt: how many; the fewest and most samples of a prompt.
        binary: all rewards are 0 or 1.
        reference: mean reward of the reference.
        points: at the budgets asked for; curve: at a fine grid, ``(budget, reward, low, high, trusted)`` rows.
        limit: nats; no budget above it can be shown by these samples.
        best_of_n, policy: see their classes; path: checkpoints of a run, in order.
        level, resamples, seed: of the intervals. notes: what a reader must know.
    """

    prompts: int
    samples: int
    samples_a_prompt: tuple[int, int]
    binary: bool
    reference: Estimate
    points: tuple[FrontierPoint, ...]
    curve: tuple[tuple[float, float, float, float, bool], ...]
    limit: float
    best_of_n: tuple[BestOfN, ...]
    policy: PolicyPoint | None
    level: float
    resamples: int
    seed: int
    notes: tuple[str, ...]
    path: tuple[PolicyPoint, ...] = ()

    @property
    def recommendation(self) -> str:
        """One line: the largest trusted budget, and the largest trusted best-of-N beside it."""
        trusted = [p for p in self.points if p.trusted]
        if not trusted:
            why = f" ({self.points[0].reason})" if self.points else ""
            return f"no budget asked for can be trusted with these samples{why}: draw more samples or more prompts"
        at = trusted[-1]
        text = f"at {at.budget:g} nats: beta = {at.beta:.3g}, expected reward {plus_minus(at.reward)}"
        largest = max((b for b in self.best_of_n if b.n > 1 and b.trusted), key=lambda b: b.n, default=None)
        if largest is not None:
            text += f"; best-of-{largest.n} gives {plus_minus(largest.reward)} at {largest.kl.value:.2g} nats"
        p = self.policy
        if p is not None and p.reward.trusted and p.k1.trusted:
            text += f"; the trained policy has {plus_minus(p.reward)} at {p.k1.value:.2g} nats"
            if p.trusted:
                text += f", {p.efficiency.value:.0%} efficient"
        return text

    def best_of(self, reward: float) -> BestOfN | None:
        """The smallest trusted N that reaches a reward, or None."""
        reached = [b for b in self.best_of_n if b.trusted and b.reward.value >= reward]
        return min(reached, key=lambda b: b.n) if reached else None

    def shown(self) -> tuple[Shown, ...]:
        """Frontier with the best-of-N of equal reward, best-of-N, and the policies."""
        parts = [self._frontier_table(), self._best_of_n_table()]
        if self.policy is not None or self.path:
            parts.append(_policy_table((self.policy,) if self.policy is not None else self.path))
        return tuple(parts)

    def _frontier_table(self) -> Shown:
        points = self.points
        same = [self.best_of(p.reward.value) if p.trusted else None for p in points]
        columns: dict[str, Sequence[Any]] = {
            "KL, nats": [0.0, *(p.budget for p in points)],
            "beta": [None, *(p.beta if p.trusted else None for p in points)],
            "reward": [self.reference, *(p.reward for p in points)],
            "N of equal reward": [1, *(None if b is None else b.n for b in same)],
            "its KL": [0.0, *(None if b is None else b.kl.value for b in same)],
            "effective samples": [None, *(p.ess if p.trusted else None for p in points)],
            "trusted": [mark(self.reference.reason), *(mark(p.reason) for p in points)],
        }
        return Shown("frontier", columns, "N of equal reward: best-of-N reaches the same; it costs N samples a prompt")

    def _best_of_n_table(self) -> Shown:
        shown = [b for b in self.best_of_n if b.n & (b.n - 1) == 0]
        shown += [b for b in self.best_of_n[-1:] if b not in shown]
        columns: dict[str, Sequence[Any]] = {
            "N": [b.n for b in shown],
            "pass@N" if self.binary else "reward": [b.reward for b in shown],
            "KL, nats": [b.kl for b in shown],
            "log N - (N-1)/N": [b.kl_bound for b in shown],
            "win rate": [b.win_rate for b in shown],
            "below the frontier by": [b.missed_reward if b.trusted else None for b in shown],
            "trusted": [mark(b.reason) for b in shown],
        }
        return Shown("best of N", columns)

    def plot(self, axes: Any = None) -> Any:
        """Draw it; see `klsim.frontier.plot`."""
        from klsim.frontier.plot import plot

        return plot(self, axes)


def mark(reason: str) -> str:
    """Of the column "trusted"."""
    return f"✗ {reason}" if reason else "✓"


def _policy_table(policies: Sequence[PolicyPoint]) -> Shown:
    columns: dict[str, Sequence[Any]] = {
        "policy": [p.label or "trained" for p in policies],
        "reward": [p.reward for p in policies],
        "KL (k1), nats": [p.k1 for p in policies],
        "KL (k3), nats": [p.k3 for p in policies],
        "needed KL": [p.needed_kl for p in policies],
        "efficiency": [p.efficiency for p in policies],
        "missed reward": [p.missed_reward for p in policies],
    }
    if any(p.length is not None for p in policies):
        columns["tokens"] = [p.length for p in policies]
        columns["KL a token"] = [p.kl_per_token for p in policies]
    columns["trusted"] = [mark(p.reason) for p in policies]
    return Shown("trained policy", columns)


def as_json(found: Any) -> Any:
    """A result as JSON values: numbers that are not to be trusted, and those that are not finite, are null."""
    if isinstance(found, Estimate):
        values = (found.value, found.low, found.high)
        shown = [x if found.trusted and math.isfinite(x) else None for x in values]
        return dict(zip(("value", "low", "high"), shown)) | {"trusted": found.trusted, "reason": found.reason}
    if isinstance(found, FrontierPoint) and not found.trusted:
        blank = dict.fromkeys(("beta", "reward_of_prompts", "kl_of_prompts", "ess", "halves"))
        return _fields(found) | blank
    if isinstance(found, Frontier):
        curve = [list(row) if row[4] else [row[0], None, None, None, False] for row in found.curve]
        return _fields(found) | {"curve": curve, "recommendation": found.recommendation}
    if is_dataclass(found) and not isinstance(found, type):
        return _fields(found)
    if isinstance(found, Mapping):
        return {str(k): as_json(v) for k, v in found.items()}
    if isinstance(found, tuple | list):
        return [as_json(v) for v in found]
    if isinstance(found, float) and not math.isfinite(found):
        return None
    return found


def _fields(found: Any) -> dict[str, Any]:
    out = {f.name: as_json(getattr(found, f.name)) for f in fields(found)}
    if hasattr(type(found), "trusted"):
        out |= {"trusted": found.trusted, "reason": found.reason}
    return out
