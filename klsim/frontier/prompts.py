r"""Which prompts? Difficulty, the groups without a gradient, and how much prompts differ.

A group of G samples of one prompt has no gradient in GRPO if all rewards are equal. The share of such groups is
unbiased from n >= G samples: ``sum_v C(m_v, G)/C(n, G)`` over the values v that m_v samples share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim.frontier.bootstrap import Bootstrap
from klsim.frontier.estimate import Settings, prepare
from klsim.frontier.result import Estimate, Result, Shown, mark, plus_minus

__all__ = ["Difficulty", "GroupShare", "Prompts", "prompts"]

GROUPS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Difficulty:
    """Prompts whose observed mean reward lies in ``[low, high)`` (``[low, high]`` for the last).

    Attributes:
        prompts: how many. share: of all. reward: their mean. spread: of the rewards of one of these prompts (mean SD).
    """

    low: float
    high: float
    prompts: int
    share: Estimate
    reward: float
    spread: float


@dataclass(frozen=True)
class GroupShare:
    """Groups of ``size`` samples: the share with equal rewards; for binary ones, all right and all wrong."""

    size: int
    equal: Estimate
    right: Estimate | None
    wrong: Estimate | None

    @property
    def reason(self) -> str:
        """Why a share is blank; empty if none is."""
        shares = [e for e in (self.equal, self.right, self.wrong) if e is not None]
        return next((e.reason for e in shares if not e.trusted), "")


@dataclass(frozen=True)
class Prompts(Result):
    """What `prompts` found.

    Attributes:
        prompts, samples, binary. difficulty, groups: see their classes.
        between, within: standard deviations of the prompts' true means, and of rewards of one prompt.
    """

    prompts: int
    samples: int
    binary: bool
    difficulty: tuple[Difficulty, ...]
    groups: tuple[GroupShare, ...]
    between: float
    within: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One line."""
        at = next((g for g in self.groups if g.size == 8), self.groups[-1] if self.groups else None)
        text = f"rewards vary by {self.between:.3g} between prompts and by {self.within:.3g} within one"
        if at is not None and at.equal.trusted:
            text = f"{plus_minus(at.equal)} of groups of {at.size} have equal rewards: no gradient in GRPO; " + text
        return text

    def shown(self) -> tuple[Shown, ...]:
        """Difficulty and groups."""
        d, g = self.difficulty, self.groups
        parts: dict[str, Sequence[Any]] = {
            "mean reward from": [x.low for x in d],
            "to": [x.high for x in d],
            "prompts": [x.prompts for x in d],
            "share": [x.share for x in d],
            "mean reward": [x.reward for x in d],
            "SD within a prompt": [x.spread for x in d],
        }
        groups: dict[str, Sequence[Any]] = {"group size": [x.size for x in g], "no gradient": [x.equal for x in g]}
        if self.binary:
            groups |= {"all right": [x.right for x in g], "all wrong": [x.wrong for x in g]}
        groups["trusted"] = [mark(x.reason) for x in g]
        note = "means of few samples scatter more than the prompts themselves: the outer rows hold some of the others"
        return Shown("prompts by their mean reward", parts, note), Shown("groups without a gradient", groups)

    def plot(self, axes: Any = None) -> Any:
        """Shares of prompts by their mean reward."""
        from klsim.frontier.plot import new_axes

        axes = new_axes(axes)
        labels = [f"{x.low:.3g}–{x.high:.3g}" if x.low != x.high else f"{x.low:.3g}" for x in self.difficulty]
        shares = [x.share for x in self.difficulty]
        error = [[e.value - e.low for e in shares], [e.high - e.value for e in shares]]
        axes.bar(labels, [e.value for e in shares], yerr=error, color="#0072B2", capsize=3)
        axes.set(xlabel="observed mean reward of a prompt", ylabel="share of prompts")
        return axes


def prompts(
    prompt: Any, reward: Any, *, min_samples: int = 2, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Prompts:
    """Prompts by difficulty, groups without a gradient, spread between and within prompts.

    Args:
        as `klsim.frontier.estimate`.

    Raises:
        ValueError: as `estimate`.
    """
    settings = Settings(level, resamples, seed)
    notes: list[str] = []
    codes, values, _, _ = prepare(prompt, reward, None, min_samples, notes)
    counts = np.bincount(codes)
    means = np.bincount(codes, values) / counts
    variances = np.bincount(codes, (values - means[codes]) ** 2) / np.maximum(counts - 1, 1)
    boot = settings.bootstrap(np.ones(len(counts)))
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    within = float(np.mean(variances))
    between = max(float(np.var(means, ddof=1)) - float(np.mean(variances / counts)), 0.0)
    return Prompts(
        len(counts), len(values), binary, _difficulty(means, variances, binary, boot),
        _groups(codes, values, binary, boot), math.sqrt(between), math.sqrt(within), tuple(notes),
    )  # fmt: skip


def _difficulty(means: np.ndarray, variances: np.ndarray, binary: bool, boot: Bootstrap) -> tuple[Difficulty, ...]:
    if binary:
        inner = (means > 0) & (means < 1)
        edges = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
        parts = [(0.0, 0.0, means == 0)]
        parts += [(a, b, inner & (means >= a) & (means < b)) for a, b in zip(edges[:-1].tolist(), edges[1:].tolist())]
        parts.append((1.0, 1.0, means == 1))
    else:
        edges = np.unique(np.quantile(means, [0, 0.2, 0.4, 0.6, 0.8, 1.0]))
        ends = list(zip(edges[:-1].tolist(), edges[1:].tolist())) or [(float(edges[0]), float(edges[0]))]
        parts = [(a, b, (means >= a) & ((means < b) | (b == edges[-1]))) for a, b in ends]
    out = []
    for low, high, chosen in parts:
        if chosen.any():
            share = boot.of_mean(chosen.astype(np.float64))
            spread = float(np.sqrt(variances[chosen]).mean())
            out.append(Difficulty(low, high, int(chosen.sum()), share, float(means[chosen].mean()), spread))
    return tuple(out)


def _groups(codes: np.ndarray, values: np.ndarray, binary: bool, boot: Bootstrap) -> tuple[GroupShare, ...]:
    """By group size, over the fewest samples of a prompt."""
    from scipy.special import gammaln

    counts = np.bincount(codes)
    order = np.lexsort((values, codes))
    owner, value = codes[order], values[order]
    new = np.concatenate([[True], (owner[1:] != owner[:-1]) | (value[1:] != value[:-1])])
    tie = np.flatnonzero(new)
    sizes = np.diff(np.concatenate([tie, [len(owner)]]))
    out = []
    for size in (g for g in GROUPS if g <= counts.min()):
        with np.errstate(invalid="ignore"):
            log_share = (
                gammaln(sizes + 1.0) - gammaln(np.maximum(sizes - size, 0) + 1.0)
                - gammaln(counts[owner[tie]] + 1.0) + gammaln(counts[owner[tie]] - size + 1.0)
            )  # fmt: skip
        share = np.where(sizes >= size, np.exp(log_share), 0.0)
        parts = [np.ones(len(tie), dtype=bool), value[tie] == 1, value[tie] == 0]
        equal, right, wrong = (
            boot.of_mean(np.bincount(owner[tie], share * chosen, minlength=len(counts))) for chosen in parts
        )
        out.append(GroupShare(size, equal, right if binary else None, wrong if binary else None))
    return tuple(out)
