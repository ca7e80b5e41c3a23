"""The frontier of a file of rollouts against reading the file alone."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.frontier_scale import write
from benchmarks.table import Row
from klsim.frontier.estimate import estimate
from klsim.frontier.rollouts import read_rollouts


@functools.cache
def setup(rows):
    folder = tempfile.TemporaryDirectory()
    return folder, next(f for f in write(Path(folder.name), rows) if f.suffix == ".parquet")


def klsim(data):
    rollouts = read_rollouts([data[1]])
    return estimate(rollouts.prompt, rollouts.reward)


def parse(data):
    return pq.read_table(data[1])


def difference(data):
    """Of the mean reward of the reference, against the mean of the column (ten samples of every prompt)."""
    return abs(klsim(data).reference.value - float(np.mean(parse(data)["reward"].to_numpy())))


ROWS = (
    Row(
        "frontier's estimate, 10^6 rows of Parquet",
        "pyarrow parsing alone",
        setup,
        10**6,
        (10**3, 10**4, 10**5, 10**6),
        klsim,
        parse,
        difference,
        1e-12,
        seconds=1.8,
        unit="rows",
    ),
)
