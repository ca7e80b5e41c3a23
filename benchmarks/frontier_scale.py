"""Time and memory of ``klsim frontier`` on large files: ``python -m benchmarks.frontier_scale 1000000 10000000``.

Writes Parquet and JSONL files of normal rewards (ten samples a prompt, prompts of about 60 characters), runs the command
in a process of its own and prints its wall time and largest resident memory. Best of two runs: the first may compile.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EACH = 10
CHUNK = 1_000_000
MEASURE = """
import resource, sys
from klsim.cli import app
try:
    app(sys.argv[1:])
finally:
    print("KIB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write(folder: Path, rows: int) -> list[Path]:
    """The same rows as Parquet and as JSONL, written in chunks."""
    rng = np.random.default_rng(0)
    parquet, jsonl = folder / f"{rows}.parquet", folder / f"{rows}.jsonl"
    schema = pa.schema([("prompt", pa.string()), ("reward", pa.float64())])
    with pq.ParquetWriter(parquet, schema) as writer, jsonl.open("w") as lines:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            number = np.arange(start, start + count) // EACH
            reward = rng.normal(np.sin(number), 1.0)
            prompt = [f"What is the answer to the question with the number {i:>9}?" for i in number]
            writer.write_table(pa.table({"prompt": prompt, "reward": reward}, schema=schema))
            lines.writelines(f'{{"prompt": "{p}", "reward": {r!r}}}\n' for p, r in zip(prompt, reward.tolist()))
    return [parquet, jsonl]


def run(file: Path) -> tuple[float, float]:
    """Seconds and GiB of one run."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "frontier", str(file), "--json"], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    return seconds, int(done.stdout.rsplit("KIB", 1)[1]) / 2**20


def main() -> None:
    for rows in map(int, sys.argv[1:] or ["1000000"]):
        with tempfile.TemporaryDirectory() as folder:
            for file in write(Path(folder), rows):
                size = file.stat().st_size / 2**20
                seconds, memory = min(run(file) for _ in range(2))
                print(f"{rows:,} rows, {file.suffix[1:]} ({size:.0f} MiB): {seconds:.1f} s, {memory:.2f} GiB")


if __name__ == "__main__":
    main()
