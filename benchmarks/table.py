"""The table of benchmarks: a row is data. Every ``bench_*.py`` beside this file lists its own in ``ROWS``."""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One hot path beside the peer a user would otherwise pick.

    Attributes:
        name: what is computed. peer: the name of the other program.
        setup: size -> input of all three calls. size: of the table. sizes: of the scaling figure, over three decades.
        klsim, other: the two programs, called with the input.
        difference: the largest difference of their results. allowed: what it may be; more is an error.
        target: time of the peer over time of klsim, at least; None for a row without one.
        seconds: klsim's time at most, where the target is that.
        unit: of the sizes. note: what to know when reading the row.
    """

    name: str
    peer: str
    setup: Callable[[int], Any]
    size: int
    sizes: tuple[int, ...]
    klsim: Callable[[Any], Any]
    other: Callable[[Any], Any]
    difference: Callable[[Any], float]
    allowed: float
    target: float | None = None
    seconds: float | None = None
    unit: str = "entries"
    note: str = ""


def rows(names: list[str] | None = None) -> list[Row]:
    """The rows of all files, or of those named."""
    every = sorted(p.stem for p in HERE.glob("bench_*.py"))
    chosen = [f"bench_{n}" for n in names] if names else every
    modules = [importlib.import_module(f"benchmarks.{n}") for n in chosen]
    return [row for module in modules for row in getattr(module, "ROWS", ())]


@dataclass(frozen=True)
class Measured:
    """Medians of alternate runs after a warm-up: seconds, and the ratio peer / klsim of neighbouring runs."""

    row: Row
    klsim_s: float
    peer_s: float
    ratio: float
    difference: float
    runs: int

    @property
    def met(self) -> str:
        """Whether the row is where it has to be."""
        if self.row.seconds is not None:
            return "yes" if self.klsim_s <= self.row.seconds else "no"
        if self.row.target is None:
            return ""
        return "yes" if self.ratio >= self.row.target else "no"

    @property
    def wanted(self) -> str:
        """The target in words."""
        if self.row.seconds is not None:
            return f"≤ {self.row.seconds:g} s"
        return "" if self.row.target is None else f"≥ {self.row.target:.2g}"


def seconds(call: Callable[[Any], Any], data: Any) -> float:
    """Wall time of one call; what it returned is freed outside."""
    begin = time.perf_counter()
    kept = call(data)
    taken = time.perf_counter() - begin
    del kept
    return taken


def measure(row: Row, budget: float = 4.0, least: int = 3, most: int = 40) -> Measured:
    """The difference first (it must be allowed), then alternate runs for about ``budget`` seconds.

    Raises:
        AssertionError: the results differ by more than the row allows.
    """
    data = row.setup(row.size)
    difference = float(row.difference(data))
    assert difference <= row.allowed, f"{row.name}: differs by {difference:.3g}, allowed are {row.allowed:.3g}"
    seconds(row.klsim, data), seconds(row.other, data)
    ours, theirs, begin = [], [], time.perf_counter()
    while len(ours) < least or (time.perf_counter() - begin < budget and len(ours) < most):
        ours.append(seconds(row.klsim, data))
        theirs.append(seconds(row.other, data))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs))
    return Measured(row, statistics.median(ours), statistics.median(theirs), ratio, difference, len(ours))


def machine() -> str:
    """What the figures were measured on."""
    import numba
    import numpy as np
    import scipy
    import torch

    return (
        f"{platform.machine()}, {os.cpu_count()} cores; threads: klsim {numba.get_num_threads()}, torch "
        f"{torch.get_num_threads()}, NumPy and SciPy as they come (BLAS on all cores, the rest on one); numpy "
        f"{np.__version__}, scipy {scipy.__version__}, numba {numba.__version__}, torch {torch.__version__}; load "
        f"{os.getloadavg()[0]:.1f} when it ended"
    )


def markdown(found: list[Measured]) -> list[str]:
    """The table."""
    lines = [
        "| row | peer | klsim | peer's time | peer / klsim | has to be | met | largest difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for m in found:
        lines.append(
            f"| {m.row.name} | {m.row.peer} | {m.klsim_s * 1e3:.2f} ms | {m.peer_s * 1e3:.2f} ms | {m.ratio:.2f} | "
            f"{m.wanted} | {m.met} | {m.difference:.1e} (allowed {m.row.allowed:.0e}) |"
        )
    return lines
