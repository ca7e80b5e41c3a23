"""Figures of a paper: computed into a table, written as CSV, drawn from that CSV.

A paper's ``figures.py``::

    figures = Figures()

    @figures.figure("reward-vs-lambda", title="...", caption="...", draw=Lines("lam", "reward", by="series",
                    xlabel="lambda", ylabel="expected reward"))
    def reward_vs_lambda(run: Run):
        for series in ("student", "teacher"):
            yield {"series": series, "lam": lams, **over_seeds(reward=...)}    # blocks, one under the other

`klsim.report.drawings` has what most figures are (`Lines`, `Bars`, `Heat`); ``@reward_vs_lambda.draw`` takes a
function of the table and a matplotlib figure for the others.

The drawing sees only what the CSV holds, so every curve can be checked against it. A run with
``run.full`` uses the paper's own sizes; `Run.stage` keeps finished parts of it on disk, so that a
killed run resumes. The same seed gives the same CSV bytes on one machine; others may round differently.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim.claims.authors import users_traceback
from klsim.claims.loader import LoadError, submodule
from klsim.claims.paper import missing_modules
from klsim.claims.sources import code_of
from klsim.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

__all__ = [
    "COLOURS",
    "Drawn",
    "Figure",
    "FigureTask",
    "Figures",
    "Run",
    "Table",
    "figure_set",
    "over_seeds",
    "save_figure",
    "style",
    "table_of",
    "write_figure",
]

# Without dates and versions: the same bytes from the same table.
_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}

# Okabe and Ito's palette: distinct for every common kind of colour vision. Grey replaces its yellow, lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
"""The colours of lines, in order: Okabe and Ito's palette, grey for its yellow."""


class Table:
    """Columns of equal length, as read back from a figure's CSV."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = {name: np.asarray(values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in self.columns.items()}
        if not lengths or len(set(lengths.values())) > 1 or any(c.ndim != 1 for c in self.columns.values()):
            raise ValueError(f"a table needs one-dimensional columns of equal length, got {lengths}")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise KeyError(f"no column {name!r} (there are {', '.join(self.columns)})")
        return self.columns[name]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def rows(self, **equal: Any) -> Table:
        """The rows in which every named column has the given value."""
        keep = np.ones(len(self), dtype=bool)
        for name, value in equal.items():
            keep &= self[name] == value
        return Table({name: values[keep] for name, values in self.columns.items()})

    def distinct(self, name: str) -> list[Any]:
        """The values of a column, each once, in order of appearance."""
        return list(dict.fromkeys(self[name].tolist()))

    def to_csv(self) -> str:
        """Comma-separated text, floats to 12 significant digits, what is below the rounding of its column as 0."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*([_cell(v) for v in _cleaned(c).tolist()] for c in self.columns.values())))
        return buffer.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> Table:
        """The inverse of `to_csv`; a column whose cells are all numbers becomes numeric."""
        header, *rows = csv.reader(io.StringIO(text))
        return cls({name: _column([row[i] for row in rows]) for i, name in enumerate(header)})


def _cleaned(column: np.ndarray) -> np.ndarray:
    """Numbers below four units in the last place of the column's largest are rounding: 0."""
    if column.dtype.kind != "f":
        return column
    finite = np.abs(column[np.isfinite(column)])
    return np.where(np.abs(column) < 4 * np.finfo(float).eps * np.max(finite, initial=0.0), 0.0, column)


def table_of(computed: Any) -> Table:
    """A table from columns, or from blocks of columns one under the other; a scalar stands for a whole block."""
    if isinstance(computed, Table):
        return computed
    if isinstance(computed, Mapping):
        return Table(computed)
    blocks = []
    for block in computed:
        length = max((len(v) for v in block.values() if np.ndim(v)), default=1)
        blocks.append({k: np.asarray(v) if np.ndim(v) else np.full(length, v) for k, v in block.items()})
    if not blocks:
        raise ValueError("a figure needs at least one block of columns")
    for number, block in enumerate(blocks):
        if list(block) != list(blocks[0]):
            raise ValueError(f"block {number} has the columns {list(block)}, the first has {list(blocks[0])}")
    return Table({name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]})


def over_seeds(*, level: float = 0.95, **rows: Any) -> dict[str, np.ndarray]:
    """Means over seeds (axis 0) with Student-t intervals: the columns ``x``, ``x low``, ``x high`` for every
    quantity."""
    from scipy.stats import t

    out: dict[str, np.ndarray] = {}
    for name, values in rows.items():
        values = np.asarray(values, dtype=float)
        if values.ndim < 1 or len(values) < 2:
            raise ValueError(f"over_seeds({name}=…): needs one row a seed, at least two, got shape {values.shape}")
        mean = values.mean(axis=0)
        half = t.ppf(0.5 + level / 2, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        out |= {name: mean, f"{name} low": mean - half, f"{name} high": mean + half}
    return out


def _cell(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _column(cells: list[str]) -> np.ndarray:
    try:
        return np.asarray([float(c) for c in cells])
    except ValueError:
        return np.asarray(cells, dtype=str)


@dataclass(frozen=True)
class Run:
    """How a figure is computed.

    Attributes:
        seed: all randomness follows from it.
        full: the paper's own sizes instead of the quick ones.
        stages: where finished stages are kept; None keeps nothing.
        code: what the stages are made with; a stage of other code is computed again.
        on_stage: called with the key of every stage that is finished, for progress.
    """

    seed: int = 0
    full: bool = False
    stages: Path | None = None
    code: str = ""
    on_stage: Callable[[str], None] | None = field(default=None, compare=False)

    def rng(self, *key: int | str) -> np.random.Generator:
        """A generator that depends on the seed and ``key`` only."""
        words = [k if isinstance(k, int) else zlib.crc32(k.encode()) for k in key]
        return np.random.default_rng(np.random.SeedSequence([self.seed, *words]))

    def stage(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """The arrays that ``compute`` returns, from disk if a run with this seed, code and key kept them."""
        path = self._stage_path(key)
        if path is not None and path.is_file():
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                    return dict(kept)
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
                path.unlink(missing_ok=True)  # cut off, or damaged on the disk (the members have checksums)
        arrays = {name: np.asarray(value) for name, value in compute().items()}
        if path is not None:
            _save_arrays(path, arrays)
        if self.on_stage:
            self.on_stage(key)
        return arrays

    def _stage_path(self, key: str) -> Path | None:
        if self.stages is None:
            return None
        digest = hashlib.sha256(f"{self.seed}\n{self.full}\n{self.code}\n{key}".encode()).hexdigest()[:20]
        return self.stages / f"{digest}.npz"


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


@dataclass
class Figure:
    """One figure: how its table is computed, and how it is drawn."""

    name: str
    title: str
    caption: str
    size: tuple[float, float]
    compute: Callable[[Run], Any]
    drawing: Callable[[Table, Canvas], None] | None = None
    has_full: bool = False
    requires: tuple[str, ...] = ()
    rtol: float = 1e-6

    def draw(self, drawing: Callable[[Table, Canvas], None]) -> Callable[[Table, Canvas], None]:
        """Decorator: the function that draws the table onto a matplotlib figure."""
        self.drawing = drawing
        return drawing


class Figures:
    """The figures of one paper, in order of definition."""

    def __init__(self) -> None:
        self.by_name: dict[str, Figure] = {}

    def figure(
        self,
        name: str,
        *,
        title: str,
        caption: str,
        size: tuple[float, float] = (7.0, 4.2),
        has_full: bool = False,
        requires: tuple[str, ...] = (),
        draw: Callable[[Table, Canvas], None] | None = None,
        rtol: float = 1e-6,
    ) -> Callable[[Callable[[Run], Any]], Figure]:
        """Decorator for the function that computes the table: columns, or blocks of columns that it yields.

        Args:
            name: file name, lower case with dashes.
            title: one line; the report shows it above the figure.
            caption: what is plotted, with which settings, and what to see in it.
            size: inches.
            has_full: the function knows ``run.full`` (the paper's own sizes).
            requires: modules beyond klsim's own dependencies (``"torch"``); without them the figure is skipped.
            rtol: how far its numbers may lie from the committed ones on another machine, of the largest in a column.
            draw: how it is drawn (`klsim.report.drawings`), unless a function is given with ``@figure.draw``.
        """
        if name in self.by_name:
            raise ValueError(f"there is a figure {name!r} already")

        def add(compute: Callable[[Run], Any]) -> Figure:
            self.by_name[name] = Figure(name, title, caption, size, compute, draw, has_full, requires, rtol)
            return self.by_name[name]

        return add


def style() -> Any:
    """matplotlib settings of all figures: colour-blind-safe, readable in print, reproducible bytes."""
    from cycler import cycler

    return {
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "font.size": 9.5,
        "axes.titlesize": 10,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "savefig.dpi": 150,
        "svg.hashsalt": "klsim",
        "path.simplify_threshold": 0.3,
    }


def figure_set(folder: Path) -> Figures | None:
    """The `Figures` that a paper's ``figures.py`` defines; None if it has none.

    Raises:
        LoadError: the file cannot be imported, defines not exactly one `Figures`, or a figure has no drawing.
    """
    if not (folder / "figures.py").is_file():
        return None
    found = [v for v in vars(submodule(folder, "figures")).values() if isinstance(v, Figures)]
    if len(found) != 1:
        raise LoadError(f"{folder / 'figures.py'}: must define exactly one Figures, found {len(found)}")
    for made in found[0].by_name.values():
        if made.drawing is None:
            raise LoadError(f"{folder / 'figures.py'}: figure {made.name!r} has no drawing")
    return found[0]


@dataclass(frozen=True)
class Drawn:
    """What became of one figure. ``files`` are relative to the output folder."""

    slug: str
    name: str
    title: str
    caption: str
    full: bool
    files: tuple[str, ...] = ()
    error: str = ""
    skipped: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class FigureTask:
    """Compute and draw one figure; picklable, for `klsim.parallel.execute`."""

    folder: str
    slug: str
    name: str
    out: str
    seed: int = 0
    full: bool = False
    stages: str = ""

    @property
    def group(self) -> str:
        return self.folder

    def run(self, on_stage: Callable[[str], None] | None = None) -> Drawn:
        """Write ``<out>/<slug>[/full]/<name>.{csv,svg,png,json}``; an error in the figure is recorded."""
        from threadpoolctl import threadpool_limits

        start = time.perf_counter()
        found = figure_set(Path(self.folder))
        assert found is not None
        made = found.by_name[self.name]
        drawn = Drawn(self.slug, made.name, made.title, made.caption, self.full)
        if missing := missing_modules(made.requires):
            reason = f"needs {', '.join(missing)}: pip install {' '.join(missing)}"
            return Drawn(**{**asdict(drawn), "skipped": reason})
        stages = Path(self.stages) / self.slug / self.name if self.stages else None
        code = code_of(Path(self.folder)) if stages else ""
        try:
            with threadpool_limits(1):  # the same CSV bytes in every process
                files = self._make(made, Run(self.seed, self.full, stages, code, on_stage))
        except Exception as error:
            return Drawn(**{**asdict(drawn), "error": users_traceback(error), "seconds": time.perf_counter() - start})
        return Drawn(**{**asdict(drawn), "files": files, "seconds": time.perf_counter() - start})

    def _make(self, made: Figure, run: Run) -> tuple[str, ...]:
        folder = Path(self.slug) / "full" if self.full else Path(self.slug)
        return write_figure(made, table_of(made.compute(run)), Path(self.out), folder, run)


def write_figure(made: Figure, table: Table, out: Path, folder: Path, run: Run) -> tuple[str, ...]:
    """Write ``<out>/<folder>/<name>.{svg,png,csv,json}``, drawn from the CSV; the paths relative to ``out``.

    Raises:
        ValueError: a column holds NaN.
    """
    _reject_nan(made.name, table)
    base = out / folder
    text = table.to_csv()
    write_atomically(base / f"{made.name}.csv", text)
    drawing = made.drawing
    assert drawing is not None
    files = [base / f"{made.name}.{suffix}" for suffix in ("svg", "png")]
    save_figure(files, lambda canvas: drawing(Table.from_csv(text), canvas), made.size)
    about = {"title": made.title, "caption": made.caption, "seed": run.seed, "full": run.full, "rtol": made.rtol}
    write_atomically(base / f"{made.name}.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return tuple((folder / f"{made.name}.{suffix}").as_posix() for suffix in ("svg", "png", "csv", "json"))


def save_figure(files: Sequence[Path], drawing: Callable[[Any], None], size: tuple[float, float] = (7.0, 4.2)) -> None:
    """Draw one figure in klsim's style, once, and write it atomically to ``.svg``, ``.png`` or ``.pdf`` files.

    Raises:
        ValueError: another suffix.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    kinds = [file.suffix.lower().removeprefix(".") for file in files]
    for file, kind in zip(files, kinds):
        if kind not in _METADATA:
            raise ValueError(f"{file}: a figure's name ends in {', '.join('.' + k for k in _METADATA)}")
    with matplotlib.rc_context(rc=style()):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(canvas)
        drawing(canvas)
        for file, kind in zip(files, kinds):
            buffer = io.BytesIO()
            canvas.savefig(buffer, format=kind, metadata=_METADATA[kind])
            write_atomically(file, buffer.getvalue())


def _reject_nan(name: str, table: Table) -> None:
    for column, values in table.columns.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            row = int(np.flatnonzero(np.isnan(values))[0])
            raise ValueError(f"figure {name!r}: column {column!r} is NaN in row {row}")
