r"""Is it hacking? A gold reward along the proxy's tilt and along best-of-N by the proxy.

Gao, Schulman and Hilton (2023, arXiv 2210.10760) fit, with ``d = sqrt(KL)``,

.. math:: R_{\mathrm{BoN}}(d) = d\,(\alpha - \beta d), \qquad R_{\mathrm{RL}}(d) = d\,(\alpha - \beta\log d),

the gold reward above the reference's, which falls beyond ``d = alpha/(2 beta)`` and ``exp(alpha/beta - 1)``. Both are
linear in alpha and beta: weighted least squares, refitted to every resample of the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from klsim.frontier.best_of_n import best_of_n, gold_of_best_of_n, numbers
from klsim.frontier.bootstrap import Bootstrap
from klsim.frontier.dual import Dual
from klsim.frontier.estimate import Settings
from klsim.frontier.result import Estimate, Result, Shown, plus_minus
from klsim.frontier.samples import Samples
from klsim.frontier.tilt import Tilt, made

__all__ = ["Fit", "Gold", "GoldPoint", "Turn", "gold"]

TILTS = 16


@dataclass(frozen=True)
class GoldPoint:
    """One point along the tilt or along best-of-N.

    Attributes:
        at: beta of the tilt, or N. kl: nats. proxy, gold: mean rewards.
    """

    at: float
    kl: Estimate
    proxy: Estimate
    gold: Estimate

    @property
    def trusted(self) -> bool:
        """All three are to be believed."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why not."""
        return self.kl.reason or self.proxy.reason or self.gold.reason


@dataclass(frozen=True)
class Turn:
    """Where the gold reward is highest among the trusted points.

    Attributes:
        kl: there, nats, with the interval of the resamples' highest points.
        gold: there. fall: from there to the last trusted point, prompts paired.
        turns: the fall is significantly positive.
    """

    kl: Estimate
    gold: Estimate
    fall: Estimate
    turns: bool


@dataclass(frozen=True)
class Fit:
    """A functional form fitted to the gold reward above the reference's.

    Attributes:
        form: its formula in ``d = sqrt(KL)``. along: tilt or best of N. alpha, beta: its coefficients.
        residual: root mean square, in units of the points' standard errors.
    """

    form: str
    along: str
    alpha: Estimate
    beta: Estimate
    residual: float


@dataclass(frozen=True)
class Gold(Result):
    """What `gold` found: points along both ways, where each turns over (None if nothing is trusted), and the fits."""

    reference: Estimate
    tilt: tuple[GoldPoint, ...]
    best_of_n: tuple[GoldPoint, ...]
    tilt_turn: Turn | None
    best_of_n_turn: Turn | None
    fits: tuple[Fit, ...]
    level: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One line: does the gold reward fall where the proxy still rises?"""
        parts = []
        for name, turn, points in (
            ("the tilt", self.tilt_turn, self.tilt),
            ("best-of-N", self.best_of_n_turn, self.best_of_n),
        ):
            good = [p for p in points if p.trusted]
            if turn is None or not good:
                parts.append(f"along {name} no point can be trusted")
            elif turn.turns:
                parts.append(
                    f"along {name} gold is highest at {turn.kl} nats and falls by {plus_minus(turn.fall)} after it"
                )
            else:
                parts.append(f"along {name} no fall of gold is seen up to {good[-1].kl.value:.2g} nats")
        return "; ".join(parts)

    def shown(self) -> tuple[Shown, ...]:
        """The tilt, best-of-N and the fits."""
        some = [p for p in self.best_of_n if p.at == 1 or p.at in {2.0**k for k in range(1, 40)}] or list(
            self.best_of_n
        )
        fits: dict[str, Sequence[Any]] = {
            "form": [f.form for f in self.fits],
            "along": [f.along for f in self.fits],
            "alpha": [f.alpha for f in self.fits],
            "beta": [f.beta for f in self.fits],
            "residual / standard error": [f.residual for f in self.fits],
        }
        return (
            _table("gold along the proxy's tilt", "beta", self.tilt),
            _table("gold along best of N", "N", some),
            Shown("fits of Gao et al. (2023) to gold above the reference, d = sqrt(KL)", fits),
        )

    def plot(self, axes: Any = None) -> Any:
        """Proxy and gold against ``sqrt(KL)``: the tilt on the left, best-of-N on the right (two axes)."""
        from klsim.frontier.plot import new_axes

        both = np.atleast_1d(new_axes(axes, 2))
        for place, title, points in zip(both, ("proxy's tilt", "best of N"), (self.tilt, self.best_of_n)):
            good = [p for p in points if p.trusted]
            d = [math.sqrt(max(p.kl.value, 0.0)) for p in good]
            for name, color in (("proxy", "#0072B2"), ("gold", "#E69F00")):
                e = [getattr(p, name) for p in good]
                place.plot(d, [x.value for x in e], color=color, marker="o", ms=3, label=name)
                place.fill_between(d, [x.low for x in e], [x.high for x in e], color=color, alpha=0.18, lw=0)
            place.set(title=title, xlabel="sqrt of the mean KL (nats)", ylabel="mean reward")
            place.legend(loc="best")
        return both


def _table(title: str, name: str, points: Sequence[GoldPoint]) -> Shown:
    columns: dict[str, Sequence[Any]] = {
        name: [p.at for p in points],
        "KL, nats": [p.kl for p in points],
        "proxy": [p.proxy for p in points],
        "gold": [p.gold for p in points],
        "trusted": [f"✗ {p.reason}" if p.reason else "✓" for p in points],
    }
    return Shown(title, columns)


def gold(
    prompt: Any,
    reward: Any,
    gold: Any,
    *,
    min_samples: int = 2,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Gold:
    """The gold reward of the proxy's optima and of best-of-N by the proxy, from samples of the reference.

    Args:
        prompt, reward, min_samples, level, resamples, seed: as `klsim.frontier.estimate`; ``reward`` is the proxy.
        gold: the reward that is meant, of the same samples.

    Raises:
        ValueError: as `estimate`.
    """
    settings = Settings(level, resamples, seed)
    notes: list[str] = []
    data, dual, values, _ = made(prompt, reward, gold, min_samples, settings, notes)
    assert values is not None
    boot = dual.boot
    reference = data.block_sums(data.prompt_means(values))
    tilt, tilt_draws = _along_tilt(data, dual, values)
    best, best_draws = _along_best_of_n(data, dual, values)
    start = boot.means(reference[:, None])[:, 0]
    fits = []
    forms: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
        ("d (alpha - beta d)", lambda d: d),
        ("d (alpha - beta log d)", np.log),
    )
    zero = float(boot.mean(reference))
    for along, points, draws in (("tilt", tilt, tilt_draws), ("best of N", best, best_draws)):
        for form, inner in forms:
            found = _fit(form, along, inner, points, draws, (zero, start), boot)
            fits += [found] if found is not None else []
    turns = _turn(tilt, tilt_draws, boot), _turn(best, best_draws, boot)
    return Gold(boot.of_mean(reference), tilt, best, turns[0], turns[1], tuple(fits), settings.level, tuple(notes))


Draws = tuple[np.ndarray, np.ndarray]
"""Resamples of KL and gold reward, ``(resamples, points)`` each."""


def _along_tilt(data: Samples, dual: Dual, values: np.ndarray) -> tuple[tuple[GoldPoint, ...], Draws]:
    boot = dual.boot
    # from the KL of the first budget to a bit beyond the last that can be trusted
    kl = np.array(
        [float(boot.mean(Tilt(data, dual, dual.lam[k : k + 1]).kl[:, 0, 0])) for k in range(0, len(dual.lam), 4)]
    )
    inside = np.flatnonzero((kl > 0.005) & (kl < 1.1 * dual.reach))
    ends = (4 * inside[0], 4 * inside[-1]) if inside.size > 1 else (0, len(dual.lam) - 1)
    lams = np.geomspace(dual.lam[ends[0]], dual.lam[ends[1]], TILTS)
    tilt = Tilt(data, dual, lams)
    sums = tilt.mean_of(values)
    golds = tilt.judged(sums)
    points = tuple(GoldPoint(p.beta, p.kl, p.reward, g) for p, g in zip(tilt.points(), golds))
    return points, (boot.means(tilt.kl[:, :, 0]), boot.means(sums[:, :, 0]))


def _along_best_of_n(data: Samples, dual: Dual, values: np.ndarray) -> tuple[tuple[GoldPoint, ...], Draws]:
    boot = dual.boot
    counts = numbers(int(data.counts.min()))
    reference = dual.in_units(boot.of_mean(data.block_sums(data.prompt_means())))
    proxies = best_of_n(data, dual, boot, reference)
    sums = gold_of_best_of_n(data, values, counts)
    drawn = boot.means(sums)
    golds = boot.around_means(sums, drawn)
    points = [GoldPoint(float(b.n), replace(b.kl, reason=b.reason), b.reward, g) for b, g in zip(proxies, golds)]
    # its KL hardly varies against the reward: the draws keep its value
    kls = np.broadcast_to([b.kl.value for b in proxies], drawn.shape)
    return tuple(points), (kls, drawn)


def _trusted(points: Sequence[GoldPoint]) -> np.ndarray:
    return np.array([k for k, p in enumerate(points) if p.trusted], dtype=np.int64)


def _turn(points: Sequence[GoldPoint], draws: Draws, boot: Bootstrap) -> Turn | None:
    good = _trusted(points)
    if good.size < 2:
        return None
    value = np.array([points[k].gold.value for k in good])
    kls, golds = draws[0][:, good], draws[1][:, good]
    top = int(np.argmax(value))
    highest = kls[np.arange(len(golds)), np.argmax(golds, axis=1)]
    at = points[good[top]]
    low, high = np.quantile(highest, [(1 - boot.level) / 2, (1 + boot.level) / 2])
    fall = boot.around(float(value[top] - value[-1]), golds[:, top] - golds[:, -1])
    place = Estimate(at.kl.value, min(float(low), at.kl.value), max(float(high), at.kl.value))
    return Turn(place, at.gold, fall, bool(top < good.size - 1 and fall.low > 0))


def _fit(
    form: str,
    along: str,
    inner: Callable[[np.ndarray], np.ndarray],
    points: Sequence[GoldPoint],
    draws: Draws,
    start: tuple[float, np.ndarray],
    boot: Bootstrap,
) -> Fit | None:
    """Weighted least squares of ``gold - reference`` on ``(d, -d inner(d))``; None with fewer than three points."""
    good = np.array([k for k in _trusted(points) if points[k].kl.value > 1e-4], dtype=np.int64)
    if good.size < 3:
        return None
    gains = draws[1][:, good] - start[1][:, None]
    weight = 1 / np.maximum(np.std(gains, axis=0), 1e-12)
    d = np.sqrt([points[k].kl.value for k in good])
    gain = np.array([points[k].gold.value for k in good]) - start[0]
    alpha, beta = _solved(d, inner, gain, weight)
    drawn = np.array(
        [_solved(np.sqrt(np.maximum(kl, 1e-6)), inner, g, weight) for kl, g in zip(draws[0][:, good], gains)]
    )
    misfit = (gain - d * (alpha - beta * inner(d))) * weight
    return Fit(
        form, along, boot.around(alpha, drawn[:, 0]), boot.around(beta, drawn[:, 1]), float(np.sqrt(np.mean(misfit**2)))
    )


def _solved(
    d: np.ndarray, inner: Callable[[np.ndarray], np.ndarray], gain: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    design = np.stack([d, -d * inner(d)], axis=1) * weight[:, None]
    found = np.linalg.lstsq(design, gain * weight, rcond=None)[0]
    return float(found[0]), float(found[1])
