r"""Did RL help beyond sampling? Two models on the same prompts, by their rewards alone.

pass@k (for rewards that are not 0 or 1: the expected best of k) of both is unbiased for every k up to the fewest
samples of a prompt; differences are over the same prompts, so that their differences in difficulty cancel. The k at
which the second model's advantage changes its sign is where its curve crosses the first's: what it gives with few
samples, the first gives with many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from klsim.frontier.best_of_n import numbers
from klsim.frontier.bootstrap import Bootstrap
from klsim.frontier.estimate import Settings
from klsim.frontier.result import Estimate, Result, Shown, plus_minus
from klsim.frontier.samples import column, common_prompts, enough_samples, numbered, repeated_rows

__all__ = ["Comparison", "PassAt", "against"]


@dataclass(frozen=True)
class PassAt:
    """Best of k samples of both models, and the second minus the first."""

    k: int
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Comparison(Result):
    """What `against` found.

    Attributes:
        prompts, samples: the common prompts; the samples of each model there. binary: all rewards are 0 or 1.
        pass_at: by k. crossing: the k where the curves cross, or None if they do not.
        only_first, only_second: share of prompts that only one solves with `k_solved` samples, for binary rewards.
    """

    prompts: int
    samples: tuple[int, int]
    binary: bool
    pass_at: tuple[PassAt, ...]
    crossing: Estimate | None
    only_first: Estimate | None
    only_second: Estimate | None
    k_solved: int
    level: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One line."""
        one, last = self.pass_at[0], self.pass_at[-1]
        text = f"one sample: {_sign(one.difference)}; best of {last.k}: {_sign(last.difference)}"
        if self.crossing is not None and self.crossing.trusted:
            text += f"; the curves cross at k = {self.crossing}"
        elif self.crossing is not None:
            text += f"; where the curves cross is open ({self.crossing.reason})"
        return text

    def shown(self) -> tuple[Shown, ...]:
        """Both curves, and the prompts that one solves alone."""
        name = "pass@k" if self.binary else "best of k"
        some = [p for p in self.pass_at if p.k & (p.k - 1) == 0 or p is self.pass_at[-1]]
        columns: dict[str, Sequence[Any]] = {
            "k": [p.k for p in some],
            f"{name}, first": [p.first for p in some],
            f"{name}, second": [p.second for p in some],
            "second - first": [p.difference for p in some],
            "trusted": [f"✗ {r}" if (r := p.difference.reason or p.first.reason) else "✓" for p in some],
        }
        parts = [Shown("two models", columns)]
        if self.only_first is not None:
            solved: dict[str, Sequence[Any]] = {
                f"share of prompts solved in {self.k_solved} samples by": ["the first only", "the second only"],
                "share": [self.only_first, self.only_second],
            }
            parts.append(Shown("solved by one only", solved))
        return tuple(parts)

    def plot(self, axes: Any = None) -> Any:
        """Both curves against k."""
        from klsim.frontier.plot import new_axes

        axes = new_axes(axes)
        k = [p.k for p in self.pass_at]
        for name, color in (("first", "#0072B2"), ("second", "#D55E00")):
            e = [getattr(p, name) for p in self.pass_at]
            axes.plot(k, [x.value for x in e], color=color, marker="o", ms=3, label=f"{name} model")
            axes.fill_between(k, [x.low for x in e], [x.high for x in e], color=color, alpha=0.18, lw=0)
        axes.set(xscale="log", xlabel="samples k", ylabel="pass@k" if self.binary else "expected best of k")
        axes.set_xticks(ticks := [n for n in k if n & (n - 1) == 0], [str(t) for t in ticks])
        axes.minorticks_off()
        axes.legend(loc="lower right")
        return axes


def _sign(e: Estimate) -> str:
    if not e.trusted:
        return "open"
    side = (
        "no difference shown"
        if e.low <= 0 <= e.high
        else "the second is better"
        if e.value > 0
        else "the first is better"
    )
    return f"{side} ({plus_minus(e)})"


def against(
    prompt: Any,
    reward: Any,
    other_prompt: Any,
    other_reward: Any,
    *,
    min_samples: int = 1,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two models (the base first, the trained one second) on the prompts that both have.

    Args:
        prompt, reward, other_prompt, other_reward: samples of the first and of the second, ``(rows,)`` each.
        min_samples: of each model; prompts with fewer are left out.
        level, resamples, seed: of the intervals.

    Raises:
        ValueError: as `klsim.frontier.estimate`; no prompt in common.
    """
    settings = Settings(level, resamples, seed)
    notes: list[str] = []
    rewards = [column("reward", reward), column("other_reward", other_reward)]
    prompts = [np.asarray(prompt), np.asarray(other_prompt)]
    codes = numbered({"prompt": prompts[0], "other_prompt": prompts[1]}, [len(r) for r in rewards])
    for i, name in enumerate(("first", "second")):
        copies = repeated_rows(codes[i], rewards[i])
        if copies > 1:
            notes.append(f"the rows of the {name} model repeat themselves {copies} times: one copy is used")
            once = len(rewards[i]) // copies
            codes[i], rewards[i] = codes[i][:once], rewards[i][:once]
        keep = enough_samples(codes[i], min_samples, notes, f" of the {name} model")
        codes[i], rewards[i] = codes[i][keep], rewards[i][keep]
    kept, both, every = common_prompts(codes)
    if len(both) < 2:
        raise ValueError(f"other_prompt: has {len(both)} prompts in common with prompt; two are needed")
    if len(both) < every:
        notes.append(f"{len(both)} of {every} prompts have samples of both models; everything is about those")
    codes = [np.searchsorted(both, c[k]) for c, k in zip(codes, kept)]
    rewards = [r[k] for r, k in zip(rewards, kept)]
    return _compared(codes, rewards, settings, notes)


def _compared(codes: list[np.ndarray], rewards: list[np.ndarray], settings: Settings, notes: list[str]) -> Comparison:
    low = min(float(r.min()) for r in rewards)
    high = max(float(r.max()) for r in rewards)
    if low == high:
        raise ValueError(f"reward: all rewards of both models are {low:g}")
    binary = bool(low == 0 and high == 1 and all(np.isin(r, (0.0, 1.0)).all() for r in rewards))
    fewest = min(int(np.bincount(c).min()) for c in codes)
    counts = numbers(fewest)
    sums = [_best_of(c, r, counts) for c, r in zip(codes, rewards)]
    boot = settings.bootstrap(np.ones(len(sums[0])))
    pass_at = []
    for k, n in enumerate(counts.tolist()):
        one, two, gap = (boot.of_mean(x[:, k]) for x in (*sums, sums[1] - sums[0]))
        pass_at.append(PassAt(n, one, two, gap))
    alone: tuple[Estimate | None, Estimate | None] = (None, None)
    if binary:
        first, second = sums[0][:, -1], sums[1][:, -1]  # their samples are independent: products are unbiased
        alone = boot.of_mean(first * (1 - second)), boot.of_mean(second * (1 - first))
    samples = (len(rewards[0]), len(rewards[1]))
    crossing = _crossing(sums[1] - sums[0], counts, boot)
    return Comparison(
        len(sums[0]), samples, binary, tuple(pass_at), crossing, *alone, int(counts[-1]), settings.level, tuple(notes)
    )


def _best_of(codes: np.ndarray, reward: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Every prompt's expected best of N, ``(prompts, Ns)``, a U-statistic."""
    from scipy.special import gammaln

    from klsim.kernels.log_partition import best_of_n_gold_sums

    sizes = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ordered = reward[np.lexsort((reward, codes))]
    every = np.arange(len(sizes))
    log_factorial = gammaln(np.arange(int(sizes.max()) + 1) + 1.0)
    return np.asarray(
        best_of_n_gold_sums(ordered, ordered, starts, every, np.arange(len(sizes) + 1), counts, log_factorial)
    )


def _crossing(gaps: np.ndarray, counts: np.ndarray, boot: Bootstrap) -> Estimate | None:
    """Where the mean gap changes its sign, interpolated in log k."""
    value = _sign_change(boot.mean(gaps), counts)
    if np.isnan(value):
        return None
    drawn = np.array([_sign_change(row, counts) for row in boot.means(gaps)])
    crossing = np.isfinite(drawn)
    share = float(crossing.mean())
    low, high = np.quantile(drawn[crossing], [boot.tail, 1 - boot.tail])
    found = Estimate(value, min(float(low), value), max(float(high), value))
    if share < boot.level:
        return replace(found, reason=f"they do not cross in {1 - share:.0%} of the resamples")
    return found


def _sign_change(gap: np.ndarray, counts: np.ndarray) -> float:
    """The last k at which the gap changes its sign, or NaN."""
    signs = np.sign(gap)
    at = np.flatnonzero((signs[:-1] != signs[1:]) & (signs[:-1] != 0))
    if not at.size:
        return float("nan")
    k = int(at[-1])
    share = gap[k] / (gap[k] - gap[k + 1])
    return float(np.exp(np.log(counts[k]) + share * (np.log(counts[k + 1]) - np.log(counts[k]))))
