"""Which tests and which claims run which lines: measured once with coverage.py, and kept until the code changes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from klsim.files import write_atomically

from .sites import MODULES, ROOT, definition, in_signature, statement

CACHE = ROOT / ".klsim" / "mutants"
INTERFACE = "tests/test_api.py::test_the_public_interface_is_as_written_down"
EXAMPLES = 25  # strength of the claims, as in make test
FEW = 5  # of the run that finds out which lines they run: others run the same, but for rare branches
Names = frozenset[str]


@dataclass(frozen=True)
class Reach:
    """``tests`` and ``checks`` of a line; seconds of each; the verdict of each check on the unchanged library, of few
    examples until `notice.judged` has looked.

    Tests are pytest node ids without parameters, checks ``slug/claim/check[/control]``.
    """

    tests: dict[str, dict[int, Names]]
    checks: dict[str, dict[int, Names]]
    seconds: dict[str, float]
    verdicts: dict[str, str]

    def of(self, path: str, line: int, kind: str) -> list[str]:
        """Tests or checks of a line, cheapest first."""
        by_line = getattr(self, kind).get(path, {})
        found = by_line.get(line, frozenset())
        if not found or in_signature(path, line):  # a default runs at the import: ask who runs its function
            whole = kind == "tests" or in_signature(path, line)
            first, last = definition(path, line) if whole else statement(path, line)
            found |= frozenset().union(*(names for n, names in by_line.items() if first <= n <= last))
            found |= {INTERFACE} if kind == "tests" else frozenset()
        return sorted(found, key=lambda name: (self.seconds.get(name, 60.0), name))


def test_files() -> list[str]:
    """The unit tests of the modules, and the tests of accuracy and of the doors."""
    wanted = [ROOT / "tests" / f"test_{m}.py" for m in MODULES] + [ROOT / "tests" / m for m in MODULES]
    wanted += [
        ROOT / "tests" / f"test_{n}.py" for n in ("accuracy", "doors", "malformed_input", "ranges", "door_ranges")
    ]
    return [str(p.relative_to(ROOT)) for p in wanted if p.exists()]


def fingerprint() -> str:
    """Of everything that decides what is reached."""
    digest = hashlib.sha256()
    for folder in ("klsim", "tests", "papers"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "mutation" not in file.parts:
                digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def reach(jobs: int, say: Callable[[str], None]) -> Reach:
    """Measured, or read from an earlier run of the same code."""
    kept = CACHE / f"reach-{fingerprint()}.json"
    if not kept.exists():
        for old in CACHE.glob("reach-*.json"):
            old.unlink()
        write_atomically(kept, json.dumps(_measure(jobs, say)))
    read = json.loads(kept.read_text())

    def lines(of: dict[str, dict[str, list[str]]]) -> dict[str, dict[int, Names]]:
        return {path: {int(n): frozenset(names) for n, names in by.items()} for path, by in of.items()}

    return Reach(lines(read["tests"]), lines(read["checks"]), read["seconds"], read["verdicts"])


def _measure(jobs: int, say: Callable[[str], None]) -> dict[str, object]:
    work = CACHE / "coverage"
    work.mkdir(parents=True, exist_ok=True)
    for old in work.iterdir():
        old.unlink()
    papers = sorted(p.parent.name for p in (ROOT / "papers").glob("*/claims.py"))
    shards = [("test", path) for path in test_files()] + [("claim", slug) for slug in papers]
    with ThreadPoolExecutor(jobs) as pool:
        for (kind, name), code in zip(shards, pool.map(lambda s: _shard(work, *s), shards), strict=True):
            say(f"reach of {kind} {name}" + ("" if code == 0 else f" (exit code {code})"))
    tests, checks = _contexts(work.glob("test-*.coverage")), _contexts(work.glob("claim-*.coverage"))
    seconds, verdicts = _seconds(work.glob("*.xml")), {}
    for file in work.glob("claim-*.json"):
        for name, (verdict, spent) in json.loads(file.read_text()).items():
            verdicts[name], seconds[name] = verdict, spent
    return {"tests": tests, "checks": checks, "seconds": seconds, "verdicts": verdicts}


def _shard(work: Path, kind: str, name: str) -> int:
    tag = f"{kind}-{name.replace('/', '-')}"
    settings = work / f"{tag}.rc"
    settings.write_text(f"[run]\nsource = klsim\ndata_file = {work / f'{tag}.coverage'}\n")
    what = (
        ["-m", "pytest", "-q", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider", "-p", "tests.mutation.contexts",
         "-o", "junit_family=xunit1",
         f"--junitxml={work / f'{tag}.xml'}", name]
        if kind == "test"
        else ["-m", "tests.mutation.reach", name, str(work / f"{tag}.json")]
    )  # fmt: skip
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", *what]
    with open(work / f"{tag}.log", "wb") as log:
        return subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env=one_thread()).returncode


def one_thread() -> dict[str, str]:
    """The environment of the runs: one thread, so that the jobs do not wait for each other."""
    return os.environ | {f"{name}_NUM_THREADS": "1" for name in ("NUMBA", "OPENBLAS", "OMP", "MKL")}


def _contexts(files: Iterable[Path]) -> dict[str, dict[int, list[str]]]:
    from coverage import CoverageData

    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in files:
        data = CoverageData(str(file))
        data.read()
        for path in data.measured_files():
            relative = os.path.relpath(path, ROOT)
            for line, contexts in data.contexts_by_lineno(path).items():
                found[relative][line] |= {c for c in contexts if c}
    return {path: {n: sorted(names) for n, names in by.items() if names} for path, by in found.items()}


def _seconds(files: Iterable[Path]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            file_name, name = case.get("file", ""), case.get("name", "").split("[")[0]
            module = file_name.removesuffix(".py").replace("/", ".")
            classes = case.get("classname", "").removeprefix(module).strip(".").split(".")
            total["::".join([file_name, *filter(None, classes), name])] += float(case.get("time", 0.0))
    return dict(total)


def _claims(slug: str, out: Path) -> None:
    """Run a paper's checks and controls under coverage, one context each."""
    import coverage

    from klsim.claims import select
    from klsim.claims.outcome import Strength
    from klsim.claims.runner import units_of

    watching = coverage.Coverage.current()
    assert watching is not None
    found = {}
    for unit in units_of(select([slug]), [0], Strength.of(FEW)):
        watching.switch_context(unit.name)
        start = time.process_time()
        outcome = unit.run()
        found[unit.name] = [outcome.verdict, round((time.process_time() - start) * EXAMPLES / FEW, 3)]
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    _claims(sys.argv[1], Path(sys.argv[2]))
