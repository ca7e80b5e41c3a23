"""Independent tasks in worker processes: `klsim.parallel`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from klsim.parallel import execute


@dataclass(frozen=True)
class Logged:
    """Writes when it ran; ``group`` as the tasks of one paper."""

    folder: str
    name: int
    group: str | None

    def run(self) -> int:
        (Path(self.folder) / f"{self.group}-{self.name}-begin").write_text(repr(time.time()))
        time.sleep(0.05)
        (Path(self.folder) / f"{self.group}-{self.name}-end").write_text(repr(time.time()))
        return self.name


def _spans(folder: Path) -> list[tuple[float, float, str]]:
    return [
        (float(f.read_text()), float(Path(str(f)[: -len("begin")] + "end").read_text()), f.name.split("-")[0])
        for f in folder.glob("*-begin")
    ]


def test_two_workers_keep_to_different_groups_while_there_are_two(tmp_path):
    # 5 of a, then 5 of b: in this order both workers would begin with a
    tasks = [Logged(str(tmp_path), i, "a" if i < 5 else "b") for i in range(10)]
    assert sorted(execute(tasks, jobs=2)) == [(i, i) for i in range(10)]
    spans = _spans(tmp_path)
    last_of_the_first = min(max(end for _, end, group in spans if group == name) for name in "ab")
    together = [
        (one, other)
        for one in spans
        for other in spans
        if one is not other and one[2] == other[2] and one[0] <= other[0] < min(one[1], last_of_the_first)
    ]
    assert together == []


@pytest.mark.parametrize("group", [None, "only one"])
def test_a_single_group_is_no_obstacle(tmp_path, group):
    tasks = [Logged(str(tmp_path), i, group) for i in range(6)]
    assert sorted(execute(tasks, jobs=2)) == [(i, i) for i in range(6)]
