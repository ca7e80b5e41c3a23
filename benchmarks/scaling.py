"""Time and memory of every row of the table over three decades of size: ``python -m benchmarks.scaling [FOLDER]``.

``--draw FOLDER`` draws what FOLDER has.

Every point is a process of its own: a small input and one call to warm up, then the input; memory is how far the resident
size grows beyond what it is then, at the peak of the first call; time is the median of three more.
Writes ``scaling.csv``, ``.svg`` and ``.png`` to FOLDER (``figures/benchmarks``).
"""

from __future__ import annotations

import csv
import ctypes
import gc
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.table import HERE, Row, rows, seconds

COLUMNS = ("row", "unit", "peer", "program", "size", "seconds", "mebibytes")

ACROSS = 6


def resident(peak: bool = False) -> float:
    """Resident size of this process now, or its peak since `forget_peak`, MiB (Linux)."""
    field = "VmHWM:" if peak else "VmRSS:"
    return (
        next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
        / 1024
    )


def forget_peak() -> None:
    """Give free memory back, and begin a new peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def point(row: Row, side: str, size: int) -> dict[str, Any]:
    """One measurement, in this process."""
    call = row.klsim if side == "klsim" else row.other
    call(row.setup(row.sizes[0]))  # compiles and imports
    data = row.setup(size)
    forget_peak()
    before = resident()
    call(data)
    grown = resident(peak=True) - before
    return {
        "row": row.name, "unit": row.unit, "peer": row.peer, "program": "klsim" if side == "klsim" else row.peer, "size": size,
        "seconds": statistics.median(seconds(call, data) for _ in range(3)), "mebibytes": grown,
    }  # fmt: skip


def collect() -> list[dict[str, Any]]:
    """All points, each by a fresh process."""
    found = []
    for number, row in enumerate(rows()):
        for side in ("klsim", "peer"):
            for size in row.sizes:
                command = [sys.executable, "-m", "benchmarks.scaling", "--point", str(number), side, str(size)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parent)
                found.append(json.loads(done.stdout.splitlines()[-1]))
                print(found[-1], flush=True)
    return found


def draw(points: list[dict[str, Any]], folder: Path) -> None:
    """Small multiples: a row of the table each, time above memory."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((p["row"], p["peer"]) for p in points))
    shape = (2 * -(-len(panels) // ACROSS), ACROSS)
    figure, axes = plt.subplots(*shape, figsize=(2.7 * ACROSS, 2.2 * shape[0]), squeeze=False, layout="constrained")
    for place, (name, peer) in enumerate(panels):
        own = [p for p in points if (p["row"], p["peer"]) == (name, peer)]
        time, memory = axes[place // ACROSS * 2 : place // ACROSS * 2 + 2, place % ACROSS]
        for program, color, marker in (("klsim", "#1b6ca8", "o"), (peer, "#b5541c", "s")):
            line = [p for p in own if p["program"] == program]
            style = {"color": color, "marker": marker, "ms": 4, "lw": 1.4}
            x = [float(p["size"]) for p in line]
            time.plot(x, [float(p["seconds"]) for p in line], label="klsim" if program == "klsim" else "peer", **style)
            measured = [p for p in line if p["mebibytes"] != ""]
            grown = [max(float(p["mebibytes"]), 0.1) for p in measured]
            memory.plot([float(p["size"]) for p in measured], grown, **style)
        time.set_title(f"{_wrapped(name)}\nagainst {_wrapped(peer)}", fontsize=7)
        memory.set_xlabel(own[0]["unit"], fontsize=8)
        if all(p["mebibytes"] == "" for p in own):
            memory.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=8, transform=memory.transAxes)
        for axis in (time, memory):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.25, which="major")
            axis.spines[["top", "right"]].set_visible(False)
        memory.set_ylim(0.08, max(12.0, 1.5 * memory.get_ylim()[1]))
        if place % ACROSS == 0:
            time.set_ylabel("seconds", fontsize=8)
            memory.set_ylabel("resident memory,\nMiB more (at least .1)", fontsize=8)
    for axis in axes.ravel():
        axis.set_visible(axis.has_data())
    axes[0, 0].legend(frameon=False, fontsize=7)
    for end in ("svg", "png"):
        figure.savefig(folder / f"scaling.{end}", dpi=130)


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 30))


def main() -> None:
    if sys.argv[1:2] == ["--point"]:
        number, side, size = sys.argv[2:]
        print(json.dumps(point(rows()[int(number)], side, int(size))))
        return
    if sys.argv[1:2] == ["--draw"]:
        with (Path(sys.argv[2]) / "scaling.csv").open(encoding="utf-8") as file:
            draw(list(csv.DictReader(file)), Path(sys.argv[2]))
        return
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures/benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    points = collect()
    with (folder / "scaling.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(points)
    draw(points, folder)


if __name__ == "__main__":
    main()
