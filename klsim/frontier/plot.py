"""The figure of a frontier. What is not to be trusted is not drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from klsim.frontier.result import Frontier, PolicyPoint

__all__ = ["columns", "draw", "new_axes", "plot"]

_NAMES = ("frontier", "best of N", "trained policy", "checkpoints", "reference")
Row = tuple[str, float, float, float, float, float, float, str]


def columns(found: Frontier) -> dict[str, Any]:
    """What the figure shows, as columns: ``series, kl, reward, low, high, kl_low, kl_high, label``."""
    r = found.reference
    start = r.value, r.low, r.high
    rows: list[Row] = []
    if r.trusted:
        rows.append((_NAMES[0], 0.0, *start, 0.0, 0.0, ""))
    for budget, reward, low, high, trusted in found.curve:
        if trusted:
            rows.append((_NAMES[0], budget, reward, low, high, budget, budget, ""))
    for b in found.best_of_n:
        if b.trusted:
            place = b.kl.value, b.reward.value, b.reward.low, b.reward.high, b.kl.low, b.kl.high
            rows.append((_NAMES[1], *place, str(b.n)))
    rows += [_policy_row(_NAMES[2], p) for p in (found.policy,) if p is not None and _placed(p)]
    rows += [_policy_row(_NAMES[3], p) for p in found.path if _placed(p)]
    if r.trusted or not rows:
        rows.append((_NAMES[4], 0.0, *start, 0.0, 0.0, ""))
    names = ("series", "kl", "reward", "low", "high", "kl_low", "kl_high", "label")
    return dict(zip(names, map(list, zip(*rows))))


def _placed(p: PolicyPoint) -> bool:
    return p.k1.trusted and p.reward.trusted


def _policy_row(name: str, p: PolicyPoint) -> Row:
    return (name, p.k1.value, p.reward.value, p.reward.low, p.reward.high, p.k1.low, p.k1.high, p.label)


def draw(table: Mapping[str, Any], axes: Any, level: float = 0.95) -> Any:
    """Draw `columns` (or what was read back from their CSV) on matplotlib axes; returns the axes."""
    series = np.asarray(table["series"])
    data = {name: np.asarray(table[name]) for name in ("kl", "reward", "low", "high", "kl_low", "kl_high", "label")}
    parts = [{key: values[series == name] for key, values in data.items()} for name in _NAMES]
    curve, best, policy, path, reference = parts
    if curve["kl"].size:
        axes.plot(curve["kl"], curve["reward"], color="#0072B2", label="frontier of KL-regularised RL")
        band = {"color": "#0072B2", "alpha": 0.18, "lw": 0, "label": f"{level:.0%} interval"}
        axes.fill_between(curve["kl"], curve["low"], curve["high"], **band)
    if best["kl"].size > 1:
        axes.plot(best["kl"], best["reward"], color="#D55E00", marker="o", ms=3.5, lw=1, label="best of N")
        shown = [int(float(text)) for text in best["label"]]
        for k, n in enumerate(shown):
            if n > 1 and n & (n - 1) == 0:
                _annotate(axes, best, k, str(n), "#B34700")
    if path["kl"].size:
        bars = {"fmt": "-", "marker": "v", "color": "#CC79A7", "ms": 5, "lw": 1, "capsize": 2, "elinewidth": 0.8}
        axes.errorbar(path["kl"], path["reward"], _error(path), _across(path), label="checkpoints", **bars)
        for k in sorted({0, len(path["kl"]) - 1}):
            _annotate(axes, path, k, str(path["label"][k]), "#8F3C73", (-5, 5), "right")
    if reference["kl"].size:
        bars = {"fmt": "s", "color": "black", "ms": 5, "capsize": 2}
        axes.errorbar(reference["kl"], reference["reward"], _error(reference), label="reference", **bars)
    if policy["kl"].size:
        bars = {"fmt": "D", "color": "#009E73", "ms": 6, "capsize": 2}
        axes.errorbar(policy["kl"], policy["reward"], _error(policy), _across(policy), label="trained policy", **bars)
    axes.set(xlabel="mean KL to the reference (nats)", ylabel="mean reward")
    axes.set_xlim(left=-0.03 * max(float(data["kl"].max()), 1e-9))
    axes.legend(loc="lower right")
    return axes


def _annotate(
    axes: Any,
    rows: Mapping[str, np.ndarray],
    k: int,
    text: str,
    color: str,
    away: tuple[float, float] = (4, -11),
    side: str = "left",
) -> None:
    place = (rows["kl"][k], rows["reward"][k])
    axes.annotate(text, place, textcoords="offset points", xytext=away, fontsize=8, color=color, ha=side)


def _error(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Interval as distances from the value, for error bars."""
    return np.stack([rows["reward"] - rows["low"], rows["high"] - rows["reward"]])


def _across(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([rows["kl"] - rows["kl_low"], rows["kl_high"] - rows["kl"]])


def new_axes(axes: Any, panels: int = 1) -> Any:
    """The axes given, or new ones of the size of all figures."""
    if axes is not None:
        return axes
    from matplotlib import pyplot

    return pyplot.subplots(1, panels, figsize=(7.0 if panels == 1 else 9.0, 4.2), layout="constrained")[1]


def plot(found: Frontier, axes: Any = None) -> Any:
    """Draw a frontier on ``axes`` (new ones if None); returns the axes. For notebooks."""
    return draw(columns(found), new_axes(axes), found.level)
