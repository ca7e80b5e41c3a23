"""Declared drawings: what nine of ten figures are, said in one line beside the table that they draw.

Each is a function of a table and a matplotlib figure. ``by`` names the column whose values get a line (bars) of their
own; a column with ``x low`` and ``x high`` beside it (`klsim.report.figures.over_seeds`) gets a band or error bars;
``panels`` names a column whose values get axes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from klsim.report.figures import Table

__all__ = ["Bars", "Heat", "Lines", "Many"]

Marks = Mapping[float, str]
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MARKED = 60  # points of a line beyond which only some get a marker


def _panels(table: Table, canvas: Any, column: str | None, share_y: bool = True) -> list[tuple[Any, Table, str]]:
    """One axes a value of ``column``, side by side; one axes without it."""
    if column is None:
        return [(canvas.subplots(), table, "")]
    values = table.distinct(column)
    axes = np.atleast_1d(canvas.subplots(1, len(values), sharey=share_y))
    return [(a, table.rows(**{column: v}), str(v)) for a, v in zip(axes, values)]


def _finish(axes: Any, xlabel: str, ylabel: str, title: str, first: bool, legend: bool) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel if first else "", title=title)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend()


def _named(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Lines:
    """A line for every value of ``by``, with a band where the table has ``y low`` and ``y high``.

    Attributes:
        x, y: columns. xlabel, ylabel: with units.
        by: column of the lines; None is one line. label: a format for its values, ``"beta = {}"``.
        panels: column of the axes.
        xscale, yscale: as matplotlib names them.
        marks, levels: vertical lines at x, horizontal lines at y, with words.
        markers: a marker a line, so that colour is not the only difference.
        styles: extra matplotlib settings for single lines, by the value of ``by``.
    """

    x: str
    y: str
    by: str | None = None
    xlabel: str = ""
    ylabel: str = ""
    label: str = "{}"
    panels: str | None = None
    xscale: str = "linear"
    yscale: str = "linear"
    marks: Marks = field(default_factory=dict)
    levels: Marks = field(default_factory=dict)
    markers: bool = True
    share_y: bool = True
    styles: Mapping[Any, Mapping[str, Any]] = field(default_factory=dict)

    def __call__(self, table: Table, canvas: Any) -> None:
        for number, (axes, rows, title) in enumerate(_panels(table, canvas, self.panels, self.share_y)):
            self.on(axes, rows)
            _finish(axes, self.xlabel or self.x, self.ylabel or self.y, title, number == 0, self.by is not None)

    def on(self, axes: Any, table: Table) -> None:
        """Draw on axes of your own."""
        for number, name in enumerate([None] if self.by is None else table.distinct(self.by)):
            rows = table if self.by is None else table.rows(**{self.by: name})
            style: dict[str, Any] = {}
            if self.markers:
                style = {"marker": _MARKERS[number % len(_MARKERS)], "markevery": 1 + len(rows[self.x]) // _MARKED}
            style |= dict(self.styles.get(name, {}))
            words = None if name is None else self.label.format(_named(name))
            (line,) = axes.plot(rows[self.x], rows[self.y], label=words, **style)
            if f"{self.y} low" in table.columns:
                ends = rows[f"{self.y} low"], rows[f"{self.y} high"]
                axes.fill_between(rows[self.x], *ends, alpha=0.2, color=line.get_color(), linewidth=0)
        axes.set(xscale=self.xscale, yscale=self.yscale)
        if self.xscale == "log":
            _plain_ticks(axes, np.asarray(table[self.x]))
        _mark(axes, self.marks, self.levels)


def _plain_ticks(axes: Any, x: np.ndarray) -> None:
    """Numbers as they are where a logarithmic axis spans little more than a decade: 4, 6, 10, not 4 × 10^0."""
    low, high = float(x.min(initial=np.inf, where=x > 0)), float(x.max(initial=-np.inf))
    if 1e-3 <= low < high < 1e5 and high < 20 * low:
        values = np.unique(x[x > 0])
        kept = values[np.r_[True, np.diff(np.log(values)) > np.log(high / low) / 12]] if len(values) > 12 else values
        axes.set_xticks(kept, [f"{v:g}" for v in kept])
        axes.set_xticks([], minor=True)


def _mark(axes: Any, marks: Marks, levels: Marks) -> None:
    style = {"color": "0.4", "linestyle": "--", "linewidth": 1}
    words = {"color": "0.35", "fontsize": 8, "textcoords": "offset points"}
    for at, text in marks.items():
        axes.axvline(at, **style)
        across = axes.transAxes.inverted().transform(axes.get_xaxis_transform().transform((at, 0.0)))[0]
        side = {"xytext": (-3, 2), "ha": "right"} if across > 0.85 else {"xytext": (3, 2)}
        axes.annotate(text, (at, 0.02), xycoords=("data", "axes fraction"), **side, **words)
    for at, text in levels.items():
        axes.axhline(at, **style)
        axes.annotate(text, (0.99, at), xycoords=("axes fraction", "data"), xytext=(0, 3), ha="right", **words)


@dataclass(frozen=True)
class Bars:
    """Grouped bars: a group for every value of ``x``, a bar in it for every value of ``by``, with intervals if
    there."""

    x: str
    y: str
    by: str | None = None
    xlabel: str = ""
    ylabel: str = ""
    label: str = "{}"
    panels: str | None = None
    yscale: str = "linear"
    levels: Marks = field(default_factory=dict)
    share_y: bool = True

    def __call__(self, table: Table, canvas: Any) -> None:
        for number, (axes, rows, title) in enumerate(_panels(table, canvas, self.panels, self.share_y)):
            self.on(axes, rows)
            _finish(axes, self.xlabel, self.ylabel or self.y, title, number == 0, self.by is not None)

    def on(self, axes: Any, table: Table) -> None:
        """Draw on axes of your own."""
        groups, names = table.distinct(self.x), [None] if self.by is None else table.distinct(self.by)
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            rows = table if name is None else table.rows(**{self.by or "": name})
            places = (
                np.asarray([groups.index(g) for g in rows[self.x].tolist()]) + (number - (len(names) - 1) / 2) * width
            )
            height, error = rows[self.y], None
            if f"{self.y} low" in table.columns:
                error = np.abs(np.stack([height - rows[f"{self.y} low"], rows[f"{self.y} high"] - height]))
            words = None if name is None else self.label.format(_named(name))
            axes.bar(places, height, width, yerr=error, label=words, capsize=2, error_kw={"linewidth": 1})
        axes.set_xticks(range(len(groups)), [_named(g) for g in groups])
        axes.set(yscale=self.yscale)
        axes.grid(axis="x", visible=False)
        _mark(axes, {}, self.levels)


@dataclass(frozen=True)
class Heat:
    """A map of ``value`` over ``x`` and ``y``, both in the table's order, with a labelled colour bar."""

    x: str
    y: str
    value: str
    xlabel: str = ""
    ylabel: str = ""
    label: str = ""
    panels: str | None = None
    diverging: bool = False
    numbers: str = ""

    def __call__(self, table: Table, canvas: Any) -> None:
        top = float(np.max(np.abs(table[self.value])))
        limits = (-top, top) if self.diverging else (float(np.min(table[self.value])), float(np.max(table[self.value])))
        image = None
        found = _panels(table, canvas, self.panels)
        for number, (axes, rows, title) in enumerate(found):
            image = self._on(axes, rows, limits)
            _finish(axes, self.xlabel or self.x, self.ylabel or self.y, title, number == 0, False)
        canvas.colorbar(image, ax=[axes for axes, _, _ in found], label=self.label or self.value)

    def _on(self, axes: Any, table: Table, limits: tuple[float, float]) -> Any:
        across, down = table.distinct(self.x), table.distinct(self.y)
        grid = np.full((len(down), len(across)), np.nan)
        for x, y, value in zip(table[self.x].tolist(), table[self.y].tolist(), table[self.value].tolist()):
            grid[down.index(y), across.index(x)] = value
        image = axes.imshow(
            grid, origin="lower", aspect="auto", vmin=limits[0], vmax=limits[1],
            cmap="RdBu_r" if self.diverging else "cividis",
        )  # fmt: skip
        axes.set_xticks(range(len(across)), [_named(v) for v in across])
        axes.set_yticks(range(len(down)), [_named(v) for v in down])
        axes.grid(visible=False)
        if self.numbers:
            middle = sum(limits) / 2
            for (j, i), value in np.ndenumerate(grid):
                if np.isfinite(value):
                    dark = abs(value) > 0.6 * limits[1] if self.diverging else value < middle
                    axes.text(i, j, format(value, self.numbers), ha="center", va="center", fontsize=8,
                              color="white" if dark else "black")  # fmt: skip
        return image


@dataclass(frozen=True)
class Many:
    """Several drawings side by side, each with the rows for which a column has a value: ``{value: drawing}``."""

    column: str
    drawings: Mapping[Any, Callable[..., Any]]
    titles: Mapping[Any, str] = field(default_factory=dict)

    def __call__(self, table: Table, canvas: Any) -> None:
        parts = canvas.subfigures(1, len(self.drawings))
        for part, (value, drawing) in zip(np.atleast_1d(parts), self.drawings.items()):
            drawing(table.rows(**{self.column: value}), part)
            for axes in part.axes[:1]:
                if not axes.get_title():
                    axes.set_title(self.titles.get(value, _named(value)))
