"""From a selection of claims to a certificate."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import klsim
from klsim import _validate
from klsim.claims import certificate as certificates
from klsim.claims.loader import Selection, load, select
from klsim.claims.paper import Check, Claim, Control, Paper
from klsim.claims.parallel import execute
from klsim.claims.search import Outcome, Strength, run

__all__ = ["Unit", "assemble", "units_of", "verify"]

Results = dict["Unit", Outcome]
OnDone = Callable[["Unit", Outcome], None]


@dataclass(frozen=True)
class Unit:
    """One check or control of one claim: the smallest piece of work, sent to workers by name.

    ``folder`` is empty for papers that exist in this process only (`verify` of a `Paper` object).
    """

    folder: str
    slug: str
    claim: str
    check: str
    control: str
    seed: int
    strength: Strength

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.slug, self.claim, self.check, self.control)))

    def run(self) -> Outcome:
        """Load the paper (once a process) and judge the check."""
        return self.run_in(load(Path(self.folder)))

    def run_in(self, paper: Paper) -> Outcome:
        claim = paper.claims[self.claim]
        if claim.missing:
            names = " ".join(claim.missing)
            return Outcome("skipped", f"needs {', '.join(claim.missing)}: pip install {names}")
        check = next(c for c in claim.checks if c.name == self.check)
        test = next((c for c in check.controls if c.name == self.control), check)
        return run(test, self.name, self.seed, self.strength)


def units_of(selections: Sequence[Selection], seed: int, strength: Strength) -> list[Unit]:
    """Every check and control of the selected claims, in order."""
    units = []
    for chosen in selections:
        for claim in chosen.claims:
            for check in claim.checks:
                for control in ("", *(c.name for c in check.controls)):
                    folder, slug = str(chosen.folder), chosen.paper.slug
                    units.append(Unit(folder, slug, claim.id, check.name, control, seed, strength))
    return units


def verify(
    *select_from: str | Paper,
    seed: int = 0,
    examples: int = 100,
    jobs: int = 1,
    scheduler: str | None = None,
    fail_fast: bool = False,
    on_done: OnDone | None = None,
) -> dict[str, Any]:
    """Try to break the selected claims and return the certificate.

    Args:
        select_from: slugs, claim ids, globs, paths (see `klsim.claims.select`), or `Paper` objects
            of this process; nothing selects every paper that is found.
        seed: all randomness follows from it.
        examples: Hypothesis examples a check; bulk instances scale with it (100 is the standard).
        jobs, scheduler: see `klsim.claims.parallel.execute`; the certificate does not depend on them.
        fail_fast: stop at the first claim that is not as expected.
        on_done: called after every check and control.

    Raises:
        LoadError: a pattern that matches nothing, a file that cannot be loaded.
        ValueError: ``seed`` < 0, ``examples`` < 1.

    On Ctrl-C the certificate holds what was finished, with ``complete`` false.
    """
    _validate.integer("seed", seed, low=0)
    _validate.integer("examples", examples, low=1)
    papers = [p for p in select_from if isinstance(p, Paper)]
    patterns = [p for p in select_from if not isinstance(p, Paper)]
    selections = select(patterns) if patterns or not papers else []
    strength = Strength.of(examples)
    start = time.perf_counter()
    units = units_of(selections, seed, strength)
    results: Results = {}
    here = [Selection(p, Path(), tuple(p.claims.values())) for p in papers]
    try:
        for unit in units_of(here, seed, strength):
            results[unit] = unit.run_in(next(p for p in papers if p.slug == unit.slug))
            if on_done:
                on_done(unit, results[unit])
        for index, outcome in execute(units, jobs=jobs, scheduler=scheduler):
            results[units[index]] = outcome
            if on_done:
                on_done(units[index], outcome)
            if fail_fast and _disappoints(selections, results, units[index]):
                break
    except KeyboardInterrupt:
        pass
    return assemble([*here, *selections], results, seed=seed, strength=strength, seconds=time.perf_counter() - start)


def _disappoints(selections: Sequence[Selection], results: Results, unit: Unit) -> bool:
    """Whether the claim of ``unit`` is complete and not as expected."""
    claim = next(c for s in selections for c in s.claims if c.full_id == f"{unit.slug}/{unit.claim}")
    record = _claim_record(claim, {(u.check, u.control): o for u, o in results.items() if _of(claim, u)})
    return record["verdict"] != "not_run" and not record["as_expected"]


def _of(claim: Claim, unit: Unit) -> bool:
    return unit.slug == claim.slug and unit.claim == claim.id


def assemble(
    selections: Sequence[Selection], results: Results, *, seed: int, strength: Strength, seconds: float
) -> dict[str, Any]:
    """The certificate of what was run."""
    papers = []
    claims = []
    for chosen in selections:
        records = []
        for claim in chosen.claims:
            mine = {(u.check, u.control): o for u, o in results.items() if _of(claim, u)}
            records.append(_claim_record(claim, mine))
        claims += records
        paper = chosen.paper
        papers.append(
            {
                "slug": paper.slug,
                "title": paper.title,
                "authors": paper.authors,
                "year": paper.year,
                "arxiv": paper.arxiv,
                "folder": _shown(chosen.folder),
                "claims": records,
            }
        )
    return {
        "schema": certificates.SCHEMA_VERSION,
        "klsim": klsim.__version__,
        "seed": seed,
        "examples": strength.examples,
        "complete": all(c["verdict"] != "not_run" for c in claims),
        "as_expected": all(c["as_expected"] for c in claims),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "environment": certificates.environment(),
        "papers": papers,
    }


def _shown(folder: Path) -> str:
    """The folder relative to the current directory where it lies below it."""
    try:
        return folder.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return folder.as_posix()


def _claim_record(claim: Claim, outcomes: Mapping[tuple[str, str], Outcome]) -> dict[str, Any]:
    checks = [_check_record(claim, check, outcomes) for check in claim.checks]
    verdict = _claim_verdict([c["verdict"] for c in checks])
    controls = [k for c in checks for k in c["controls"]]
    vacuous = not controls or not all(k["passed"] for k in controls if k["verdict"] not in ("not_run", "skipped"))
    if verdict != "not_run" and any(k["verdict"] == "not_run" for k in controls):
        verdict = "not_run"
    return {
        "id": claim.id,
        "title": claim.title,
        "statement": claim.statement,
        "where": claim.where,
        "origin": claim.origin,
        "assumptions": claim.assumptions,
        "expect": claim.expect,
        "correction": claim.correction,
        "verdict": verdict,
        "vacuous": vacuous,
        "as_expected": verdict == "skipped" or (verdict == claim.expect and not vacuous),
        "checks": checks,
        "seconds": sum(o.seconds for o in outcomes.values()),
    }


def _claim_verdict(verdicts: Sequence[str]) -> str:
    for decisive in ("error", "not_run", "skipped", "refuted", "not_shown"):
        if decisive in verdicts:
            return decisive
    return "holds"


def _check_record(claim: Claim, check: Check, outcomes: Mapping[tuple[str, str], Outcome]) -> dict[str, Any]:
    record = {"name": check.name, "kind": check.kind.name, **_outcome_record(outcomes.get((check.name, "")))}
    record["space"] = "" if check.space is None else repr(check.space)
    record["controls"] = [_control_record(claim, k, outcomes.get((check.name, k.name))) for k in check.controls]
    return record


def _control_record(claim: Claim, control: Control, outcome: Outcome | None) -> dict[str, Any]:
    """A control passes with the verdict opposite to its claim's expected one.

    For effects "not shown" is opposite enough to "holds": the claim itself, shown by the same check
    with as many seeds, proves that the check can show an effect.
    """
    opposite = {"holds"} if claim.expect == "refuted" else {"refuted"}
    if control.kind.name == "effect" and claim.expect != "refuted":
        opposite.add("not_shown")
    record = _outcome_record(outcome)
    return {
        "name": control.name,
        "kind": control.kind.name,
        "passed": record["verdict"] in opposite,
        **record,
    }


def _outcome_record(outcome: Outcome | None) -> dict[str, Any]:
    return asdict(outcome or Outcome("not_run", "not run"))
