r"""The optimum of ``reward - beta KL`` at given ``beta``, from samples of the reference: where RL with that beta ends.

At ``lam = 1/beta`` the tilt of prompt i has the mean reward ``R_i = E[r e^{lam r}] / E[e^{lam r}]`` and the KL
``lam R_i - L_i(lam)``. Both are ratios of means over the samples: jackknifed, watched by halves and trusted as the
frontier is (`klsim.frontier.dual`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from klsim import _validate
from klsim.frontier.dual import TRUSTED_SHARE, UNSTABLE, Dual
from klsim.frontier.estimate import Settings, prepare
from klsim.frontier.result import Estimate, PolicyPoint, Result, Shown
from klsim.frontier.samples import Samples, column

ALLOWED = 0.05
"""Of a KL: it varies little between prompts, so that its interval is narrow against what halves can tell."""

__all__ = ["Forecast", "Outcome", "Tilt", "TiltPoint", "forecast", "made"]


@dataclass(frozen=True)
class TiltPoint:
    """The optimum at one beta: its mean KL, nats, and mean reward."""

    beta: float
    kl: Estimate
    reward: Estimate


@dataclass(frozen=True)
class Outcome:
    """A checkpoint minus the forecast at a beta: KL and reward."""

    label: str
    beta: float
    kl: Estimate
    reward: Estimate


@dataclass(frozen=True)
class Forecast(Result):
    """What `forecast` found.

    Attributes:
        points: reward and KL at each beta. outcomes: checkpoints against them. reference: mean reward. notes.
    """

    reference: Estimate
    points: tuple[TiltPoint, ...]
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]

    def shown(self) -> tuple[Shown, ...]:
        """The forecast, and the outcomes against it."""
        columns: dict[str, Sequence[Any]] = {
            "beta": [p.beta for p in self.points],
            "KL, nats": [p.kl for p in self.points],
            "reward": [p.reward for p in self.points],
            "trusted": [
                f"✗ {p.reward.reason or p.kl.reason}" if p.reward.reason or p.kl.reason else "✓" for p in self.points
            ],
        }
        parts = [Shown("forecast: where reward - beta KL ends", columns)]
        if self.outcomes:
            columns = {
                "policy": [o.label or "trained" for o in self.outcomes],
                "beta": [o.beta for o in self.outcomes],
                "KL minus forecast": [o.kl for o in self.outcomes],
                "reward minus forecast": [o.reward for o in self.outcomes],
            }
            parts.append(Shown("outcome against forecast", columns))
        return tuple(parts)

    def plot(self, axes: Any = None) -> Any:
        """Reward against KL, a point a beta."""
        from klsim.frontier.plot import new_axes

        axes = new_axes(axes)
        good = [p for p in self.points if p.kl.trusted and p.reward.trusted]
        if good:
            x, y = [p.kl.value for p in good], [p.reward.value for p in good]
            across = [[p.kl.value - p.kl.low for p in good], [p.kl.high - p.kl.value for p in good]]
            up = [[p.reward.value - p.reward.low for p in good], [p.reward.high - p.reward.value for p in good]]
            axes.errorbar(x, y, up, across, marker="o", color="#0072B2", capsize=2, label="forecast, by beta")
            for p in good:
                place = (p.kl.value, p.reward.value)
                axes.annotate(f"{p.beta:.3g}", place, textcoords="offset points", xytext=(4, -11), fontsize=8)
            axes.legend(loc="lower right")
        axes.set(xlabel="mean KL to the reference (nats)", ylabel="mean reward")
        return axes


class Tilt:
    """Block sums of KL, reward (in [0, 1]) and further columns of the tilts at several ``lam``."""

    def __init__(self, data: Samples, dual: Dual, lams: np.ndarray) -> None:
        self.data, self.dual, self.lams = data, dual, lams
        logs = data.kernel_sums("log_partitions", [data.reward], lams, 1)
        self.reward = self.mean_of(data.reward)
        self.kl = lams[:, None] * self.reward - logs[:, :, 1:]

    def mean_of(self, values: np.ndarray) -> np.ndarray:
        """Block sums of a column (ordered as ``data.reward``) under the tilts, and from halves."""
        return self.data.kernel_sums("tilted_mean_sums", [self.data.reward, values], self.lams)

    def judged(self, sums: np.ndarray, allowed: float = 0.0) -> list[Estimate]:
        """Means of block sums ``(blocks, lams, 2)`` at every tilt, by the one rule of trust.

        ``allowed``: a remaining bias up to this share of the value is added to the interval instead.
        """
        found = self.dual.boot.around_means(sums[:, :, 0])
        return [self._judged(found[k], sums[:, k], k, allowed) for k in range(len(self.lams))]

    def _judged(self, found: Estimate, sums: np.ndarray, k: int, allowed: float) -> Estimate:
        boot, own = self.dual.boot, sums[:, 0]
        reason = self.dual.beyond(float(boot.mean(self.kl[:, k, 0])))
        moved = self.dual.move(sums[:, 1] - own)[1]
        if not reason and moved > TRUSTED_SHARE * boot.stderr(found):
            if moved <= allowed * found.value:
                found = replace(found, low=found.low - moved, high=found.high + moved)
            else:
                reason = UNSTABLE
        return replace(found, reason=reason or found.reason)

    def points(self) -> tuple[TiltPoint, ...]:
        """KL and reward at every tilt."""
        betas = (self.data.scale / self.lams).tolist()
        both = zip(betas, self.judged(self.kl, ALLOWED), self.judged(self.reward))
        return tuple(TiltPoint(beta, kl, self.dual.in_units(reward)) for beta, kl, reward in both)


def made(
    prompt: Any, reward: Any, gold: Any, min_samples: int, settings: Settings, notes: list[str]
) -> tuple[Samples, Dual, np.ndarray | None, Any]:
    """Samples, their dual, the gold rewards in their order, and the prompts of their rows."""
    codes, values, extra, prompts = prepare(prompt, reward, gold, min_samples, notes)
    data = Samples(codes, values, settings.seed)
    dual = Dual(data, settings.bootstrap(data.block_sizes), 0.01)
    return data, dual, None if extra is None else extra[data.order], prompts


def forecast(
    prompt: Any,
    reward: Any,
    betas: Sequence[float],
    *,
    policies: Sequence[PolicyPoint] = (),
    min_samples: int = 2,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Forecast:
    """Reward and KL of the optimum of ``reward - beta KL`` at each beta, from samples of the reference alone.

    Args:
        prompt, reward, min_samples, level, resamples, seed: as `klsim.frontier.estimate`.
        betas: of whole responses and raw rewards, > 0.
        policies: checkpoints, as `estimate` found them, to compare with the forecast.

    Raises:
        ValueError: as `estimate`; a beta that is not positive.
    """
    settings = Settings(level, resamples, seed)
    notes: list[str] = []
    asked = column("betas", betas)
    _validate.positive("betas", np, asked)
    data, dual, _, _ = made(prompt, reward, None, min_samples, settings, notes)
    tilt = Tilt(data, dual, data.scale / np.sort(asked)[::-1])
    points = tilt.points()
    outcomes = tuple(_outcome(p, at) for p in policies for at in points)
    reference = dual.in_units(dual.boot.of_mean(data.block_sums(data.prompt_means())))
    return Forecast(reference, points, outcomes, tuple(notes))


def _outcome(policy: PolicyPoint, at: TiltPoint) -> Outcome:
    """Differences; the two are taken to be independent, which overstates the error of paired prompts."""
    return Outcome(policy.label, at.beta, _minus(policy.k1, at.kl), _minus(policy.reward, at.reward))


def _minus(one: Estimate, other: Estimate) -> Estimate:
    value = one.value - other.value
    low = math.hypot(one.value - one.low, other.high - other.value)
    high = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - low, value + high, one.reason or other.reason)
