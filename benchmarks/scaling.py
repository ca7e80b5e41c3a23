"""Time and memory of every row of the table over three decades of size: ``python -m benchmarks.scaling [FOLDER]``.

Every point is a process of its own: the input, one call to warm up, then the median time of three calls; memory is how far
the largest resident size grows beyond the input during the first call (so it holds what the call compiles or imports, too).
Writes ``scaling.csv``, ``.svg`` and ``.png`` to FOLDER (``figures/benchmarks``).
"""

from __future__ import annotations

import csv
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.table import HERE, Row, rows, seconds

COLUMNS = ("row", "unit", "program", "size", "seconds", "mebibytes")


def peak() -> float:
    """Largest resident size so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def point(row: Row, side: str, size: int) -> dict[str, Any]:
    """One measurement, in this process."""
    call = row.klsim if side == "klsim" else row.other
    if row.sizes[0] != size:
        call(row.setup(row.sizes[0]))  # compiles and imports
    data = row.setup(size)
    before = peak()
    call(data)
    grown = peak() - before
    return {
        "row": row.name, "unit": row.unit, "program": "klsim" if side == "klsim" else row.peer, "size": size,
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
    """Small multiples: a column a row of the table, time above memory."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(p["row"] for p in points))
    figure, axes = plt.subplots(2, len(names), figsize=(2.6 * len(names), 5.2), squeeze=False, layout="constrained")
    for column, name in enumerate(names):
        own = [p for p in points if p["row"] == name]
        for place, program in enumerate(dict.fromkeys(p["program"] for p in own)):
            line = [p for p in own if p["program"] == program]
            style = {"color": ("#1b6ca8", "#b5541c")[place], "marker": ("o", "s")[place], "ms": 4, "lw": 1.4}
            label = "klsim" if program == "klsim" else "peer"
            x = [float(p["size"]) for p in line]
            axes[0, column].plot(x, [float(p["seconds"]) for p in line], label=label, **style)
            axes[1, column].plot(x, [max(float(p["mebibytes"]), 0.1) for p in line], **style)
        peer = next(p["program"] for p in own if p["program"] != "klsim")
        axes[0, column].set_title(f"{_wrapped(name)}\nagainst {_wrapped(peer)}", fontsize=7)
        axes[1, column].set_xlabel(own[0]["unit"], fontsize=8)
        for axis in axes[:, column]:
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.25, which="major")
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("seconds", fontsize=8)
    axes[1, 0].set_ylabel("growth of resident memory, MiB (at least 0.1)", fontsize=8)
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
