"""``python -m tests.mutation``: how many one-operator changes of the library the tests and claims notice."""

from __future__ import annotations

import argparse
import ast
import json
import math
import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from klsim.files import write_atomically

from .notice import judged, noticed
from .reach import CACHE, Reach, fingerprint, reach
from .report import markdown
from .sites import MODULES, ROOT, Mutant, files, mutants

console = Console(soft_wrap=True)
ROOMS = tuple(f"klsim.{room}" for room in MODULES)


@dataclass(frozen=True)
class Trial:
    """A change, and who is asked: everybody (empty), or the claims of one paper."""

    mutant: Mutant
    paper: str = ""

    @property
    def key(self) -> str:
        m = self.mutant
        return f"{self.paper}|{m.path}|{m.operator}|{m.occurrence}"


def sampled(pool: Iterable[Mutant], number: int | None, rng: random.Random) -> list[Mutant]:
    """``number`` places drawn without replacement, one of the operators that fit there each; None is every change."""
    every = sorted(pool)
    if number is None:
        return every
    places: dict[tuple[str, int, int], list[Mutant]] = {}
    for m in every:
        places.setdefault((m.path, m.line, m.column), []).append(m)
    chosen = [rng.choice(places[p]) for p in rng.sample(sorted(places), min(number, len(places)))]
    return [m for m in chosen if not m.at_star and m.is_change]


def named_by(slug: str) -> set[tuple[str, str]]:
    """The functions and classes of klsim that a paper's claims import by name: ``(file, name)``."""
    found = set()
    for path in sorted((ROOT / "papers" / slug).glob("*.py")):
        if path.name == "figures.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(ROOMS):
                found |= {(node.module, alias.name) for alias in node.names}
    return {place for module, name in found for place in _defined(module, name)}


def _defined(module: str, name: str) -> list[tuple[str, str]]:
    """Where a name of a module or package is defined."""
    base = ROOT / module.replace(".", "/")
    candidates = sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
    found = []
    for file in candidates:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                found.append((str(file.relative_to(ROOT)), name))
    return found


def plan(args: argparse.Namespace, known: Reach) -> list[Trial]:
    """The trials, in the order in which they are run: a seeded shuffle, so that an interrupted run is a sample too."""
    rng = random.Random(args.seed)
    pool = [m for path in files() for m in mutants(path)]
    trials = [Trial(m) for m in sampled(pool, None if args.full else args.sample, rng)] if not args.paper else []
    papers = args.paper or sorted({name.split("/")[0] for name in known.verdicts})
    for slug in papers if args.per_paper or args.full else []:
        places = named_by(slug)
        own = [
            m
            for m in pool
            if (m.path, m.function.split(".")[0]) in places
            and any(name.startswith(f"{slug}/") for name in known.of(m.path, m.line, "checks"))
        ]
        drawn = sampled(own, None if args.full else args.per_paper, rng)
        trials += [Trial(m, slug) for m in drawn if not m.at_door]  # claims give legal input: doors are for the tests
    rng.shuffle(trials)
    return trials


def ask(trial: Trial, known: Reach) -> dict[str, object]:
    """The record of one trial."""
    m = trial.mutant
    tests = [] if trial.paper else known.of(m.path, m.line, "tests")
    checks = {
        name: known.verdicts[name]
        for name in known.of(m.path, m.line, "checks")
        if not trial.paper or name.startswith(f"{trial.paper}/")
    }
    seconds = sum(known.seconds.get(name, 1.0) for name in (*tests, *checks))
    by = judged(m, tests, checks, known.verdicts, seconds) if tests or checks else ""
    if by.startswith(("pytest ended", "exit code")) and (wrong := noticed(None, tests, checks, seconds)):
        raise RuntimeError(f"{m.path}:{m.line}: the unchanged library is objected to as well: {wrong}")
    before, after = m.lines()
    reached = bool(tests or checks)
    if trial.paper and not by and (probe := m.probe) is not None:  # the line runs: does this branch of it?
        reached = bool(judged(probe, tests, checks, known.verdicts, seconds))
    return asdict(trial) | {"before": before, "after": after, "reached": reached, "noticed": by}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every change instead of a sample")
    parser.add_argument("--sample", type=int, default=300, help="changes over all modules")
    parser.add_argument("--per-paper", type=int, default=12, help="changes of the functions each paper names")
    parser.add_argument("--paper", action="append", help="only this paper's claims against its functions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="stop then; the next run goes on (default 20; --full: never)")
    parser.add_argument("--report", type=Path, default=CACHE / "report.md")
    args = parser.parse_args()
    limit = args.minutes or (math.inf if args.full else 20.0)
    start = time.monotonic()
    known = reach(args.jobs, console.print)
    trials = plan(args, known)
    kept = CACHE / f"trials-{fingerprint()}.jsonl"
    done = {r["key"]: r for r in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    left = [t for t in trials if t.key not in done]
    console.print(f"{len(trials)} changes, {len(trials) - len(left)} known from an earlier run")

    def one(trial: Trial) -> dict[str, object] | None:
        if time.monotonic() - start > 60 * limit:
            return None
        return ask(trial, known) | {"key": trial.key}

    with ThreadPoolExecutor(args.jobs) as pool, open(kept, "a", encoding="utf-8") as log:
        for number, future in enumerate(as_completed([pool.submit(one, t) for t in left]), 1):  # kept as they come
            record: Any = future.result()
            if record is None:
                continue
            log.write(json.dumps(record) + "\n")
            log.flush()
            done[record["key"]] = record
            mark = "[green]noticed[/]" if record["noticed"] else "[red]survives[/]"
            m = record["mutant"]
            console.print(
                f"{number}/{len(left)} {mark} {record['paper']} {m['path']}:{m['line']} {record['noticed']}",
                highlight=False,
            )
    records = [done[t.key] for t in trials if t.key in done]
    if len(records) < len(trials):
        console.print(
            f"{len(records)} of {len(trials)} changes after {limit:g} minutes: a sample too; run it again to go on"
        )
    write_atomically(args.report, markdown(records, args.seed))
    console.print(markdown(records, args.seed), markup=False, highlight=False)


if __name__ == "__main__":
    main()
