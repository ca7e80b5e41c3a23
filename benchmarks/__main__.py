"""``python -m benchmarks [NAME…]``: run the benchmarks and write benchmarks/results.json and the table in README.md."""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

HERE = Path(__file__).parent
START, END = "<!-- results:start -->", "<!-- results:end -->"


def best_of(call: Callable[[], object], repeats: int = 5) -> float:
    """Shortest of some runs after one to warm up, in seconds."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    names = sys.argv[1:] or sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py"))
    rows = []
    for name in names:
        for case, ours, peer_name, peer, agree in importlib.import_module(f"benchmarks.bench_{name}").cases():
            error = agree()
            a, b = best_of(ours), best_of(peer)
            rows.append(
                {"case": case, "peer": peer_name, "klsim_s": a, "peer_s": b, "ratio": b / a, "difference": error}
            )
            print(
                f"{case}: klsim {a * 1e3:.2f} ms, {peer_name} {b * 1e3:.2f} ms, ratio {b / a:.2f}, difference {error:.1e}"
            )
    if len(sys.argv) == 1:
        machine = f"{platform.machine()}, {numba.get_num_threads()} threads, numpy {np.__version__}, numba {numba.__version__}"
        (HERE / "results.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        lines = [
            f"Measured on: {machine}.",
            "",
            "| case | klsim | peer | time of peer / klsim | largest difference |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['case']} | {r['klsim_s'] * 1e3:.2f} ms | {r['peer']}: {r['peer_s'] * 1e3:.2f} ms | {r['ratio']:.2f} | {r['difference']:.1e} |"
            for r in rows
        ]
        readme = (HERE / "README.md").read_text()
        before, after = readme.split(START)[0], readme.split(END)[1]
        (HERE / "README.md").write_text(before + START + "\n" + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main()
