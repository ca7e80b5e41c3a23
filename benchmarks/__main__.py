"""``python -m benchmarks [NAME…]``: print the table of all rows (or of ``bench_NAME.py``); all rows also go to README.md.

Rows are measured one after the other, klsim and peer alternately in this process after a warm-up; see `benchmarks.table`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from benchmarks.table import HERE, machine, markdown, measure, rows

START, END = "<!-- results:start -->", "<!-- results:end -->"


def main() -> None:
    names = sys.argv[1:]
    found = []
    for row in rows(names):
        print(f"measuring: {row.name}", file=sys.stderr, flush=True)
        found.append(measure(row))
    text = [f"Measured on: {machine()}.", "", *markdown(found)]
    print("\n".join(text))
    if names:
        return
    kept = [
        {"row": m.row.name, "peer": m.row.peer, "met": m.met, "target": m.wanted}
        | {k: v for k, v in asdict(m).items() if k != "row"}
        for m in found
    ]
    (HERE / "results.json").write_text(json.dumps({"machine": machine(), "rows": kept}, indent=1) + "\n")
    readme = (HERE / "README.md").read_text()
    before, after = readme.split(START)[0], readme.split(END)[1]
    (HERE / "README.md").write_text(before + START + "\n" + "\n".join(text) + "\n" + END + after)


if __name__ == "__main__":
    main()
