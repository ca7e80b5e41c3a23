"""The figure of a frontier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from klsim.frontier.estimate import Frontier

__all__ = ["columns", "draw", "plot"]

_NAMES = ("frontier", "frontier, not to be trusted", "best of N", "trained policy", "reference")


def columns(found: Frontier) -> dict[str, Any]:
    """What the figure shows, as columns: ``series, kl, reward, low, high, kl_low, kl_high, n``."""
    r = found.reference
    start = r.value, r.low, r.high
    rows: list[tuple[str, float, float, float, float, float, float, int]] = [(_NAMES[0], 0.0, *start, 0.0, 0.0, 0)]
    for budget, reward, low, high, trusted in found.curve:
        rows.append((_NAMES[0 if trusted else 1], budget, reward, low, high, budget, budget, 0))
    for b in found.best_of_n:
        rows.append((_NAMES[2], b.kl, b.reward.value, b.reward.low, b.reward.high, b.kl, b.kl_bound, b.n))
    if found.policy is not None:
        p = found.policy
        rows.append((_NAMES[3], p.k1.value, p.reward.value, p.reward.low, p.reward.high, p.k1.low, p.k1.high, 0))
    rows.append((_NAMES[4], 0.0, *start, 0.0, 0.0, 0))
    names = ("series", "kl", "reward", "low", "high", "kl_low", "kl_high", "n")
    return dict(zip(names, map(list, zip(*rows))))


def draw(table: Mapping[str, Any], axes: Any, level: float = 0.95) -> Any:
    """Draw `columns` (or what was read back from their CSV) on matplotlib axes; returns the axes."""
    series = np.asarray(table["series"])
    data = {name: np.asarray(table[name]) for name in ("kl", "reward", "low", "high", "kl_low", "kl_high", "n")}

    def part(name: str) -> dict[str, np.ndarray]:
        return {key: values[series == name] for key, values in data.items()}

    trusted, other, best, policy, reference = map(part, _NAMES)
    if trusted["kl"].size:
        axes.plot(trusted["kl"], trusted["reward"], color="#0072B2", label="frontier of KL-regularised RL")
        axes.fill_between(
            trusted["kl"],
            trusted["low"],
            trusted["high"],
            color="#0072B2",
            alpha=0.18,
            lw=0,
            label=f"{level:.0%} interval",
        )
    if other["kl"].size:
        # from the last trusted point on, so that the line does not break
        after = other["kl"] > (trusted["kl"].max() if trusted["kl"].size else -1)
        join = [0] if trusted["kl"].size and after.any() else []
        x = np.concatenate([trusted["kl"][-1:] if join else [], other["kl"][after]])
        y = np.concatenate([trusted["reward"][-1:] if join else [], other["reward"][after]])
        axes.plot(x, y, color="#59636e", ls=":", label="beyond what these samples can show")
    if best["kl"].size > 1:
        axes.plot(best["kl"], best["reward"], color="#D55E00", marker="o", ms=3.5, lw=1, label="best of N")
        shown = best["n"].astype(int)
        powers = [k for k, n in enumerate(shown.tolist()) if n > 1 and n & (n - 1) == 0]
        for k in powers:
            place = (best["kl"][k], best["reward"][k])
            axes.annotate(
                str(shown[k]), place, textcoords="offset points", xytext=(4, -11), fontsize=8, color="#B34700"
            )
    axes.errorbar(
        reference["kl"], reference["reward"], _error(reference), fmt="s", color="black", ms=5, capsize=2,
        label="reference",
    )  # fmt: skip
    if policy["kl"].size:
        across = np.stack([policy["kl"] - policy["kl_low"], policy["kl_high"] - policy["kl"]])
        axes.errorbar(
            policy["kl"], policy["reward"], _error(policy), across, fmt="D", color="#009E73", ms=6, capsize=2,
            label="trained policy",
        )  # fmt: skip
    axes.set(xlabel="mean KL to the reference (nats)", ylabel="mean reward")
    axes.set_xlim(left=-0.02 * max(float(data["kl"].max()), 1e-9))
    axes.legend(loc="lower right")
    return axes


def _error(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Interval as distances from the value, for error bars."""
    return np.stack([rows["reward"] - rows["low"], rows["high"] - rows["reward"]])


def plot(found: Frontier, axes: Any = None) -> Any:
    """Draw a frontier on ``axes`` (new ones if None); returns the axes. For notebooks."""
    if axes is None:
        from matplotlib import pyplot

        _, axes = pyplot.subplots(figsize=(7.0, 4.2), layout="constrained")
    return draw(columns(found), axes, found.level)
