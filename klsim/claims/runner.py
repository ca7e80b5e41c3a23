"""From a selection of claims to a certificate."""

from __future__ import annotations

import datetime
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import klsim
from klsim import _validate
from klsim.claims import certificate as certificates
from klsim.claims.environment import environment, file_hashes
from klsim.claims.loader import Selection, load, select
from klsim.claims.paper import Check, Claim, Control, Paper
from klsim.claims.search import Outcome, Strength, run
from klsim.claims.sources import digest
from klsim.parallel import Died, execute

__all__ = ["Unit", "units_of", "verify"]

Results = dict[tuple[str, str, int], dict[tuple[str, str], Outcome]]
"""Outcomes by check and control, of each claim ``(slug, id, seed)``."""
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

    @property
    def group(self) -> str:
        return self.slug

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


def units_of(selections: Sequence[Selection], seeds: Sequence[int], strength: Strength) -> list[Unit]:
    """Every check and control of the selected claims, in order, at every seed."""
    return [
        Unit(str(chosen.folder), chosen.paper.slug, claim.id, check.name, control, seed, strength)
        for seed in seeds
        for chosen in selections
        for claim in chosen.claims
        for check in claim.checks
        for control in ("", *(c.name for c in check.controls))
    ]


def verify(
    *select_from: str | Paper | Selection,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    examples: int = 100,
    jobs: int = 1,
    scheduler: str | None = None,
    fail_fast: bool = False,
    on_done: OnDone | None = None,
) -> dict[str, Any]:
    """Try to break the selected claims and return the certificate.

    Args:
        select_from: slugs, claim ids, globs, paths (see `klsim.claims.select`), what `klsim.claims.select` returned,
            or `Paper` objects of this process; nothing selects every paper that is found.
        seed: all randomness follows from it.
        seeds: several seeds instead; the certificate then holds, for every claim, the seed at which it did worst.
        examples: Hypothesis examples a check; bulk instances scale with it (100 is the standard).
        jobs, scheduler: see `klsim.parallel.execute`; the certificate does not depend on them.
        fail_fast: stop at the first claim that is not as expected.
        on_done: called after every check and control.

    Raises:
        LoadError: a pattern that matches nothing, a file that cannot be loaded.
        ValueError: ``seed`` < 0, ``examples`` < 1.

    On Ctrl-C the certificate holds what was finished, with ``complete`` false.
    """
    chosen_seeds = [_validate.integer("seed", s, low=0) for s in ([seed] if seeds is None else seeds)]
    if not chosen_seeds:
        _validate.fail("seeds", "needs at least one seed")
    _validate.integer("examples", examples, low=1)
    papers = [p for p in select_from if isinstance(p, Paper)]
    patterns = [p for p in select_from if isinstance(p, str)]
    selections = [p for p in select_from if isinstance(p, Selection)]
    selections += select(patterns) if patterns or not select_from else []
    strength = Strength.of(examples)
    started, start = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), time.perf_counter()
    units = units_of(selections, chosen_seeds, strength)
    results: Results = defaultdict(dict)
    here = [Selection(p, Path(), tuple(p.claims.values())) for p in papers]
    every = [*here, *selections]

    def done(unit: Unit, outcome: Outcome | Died) -> bool:
        found = Outcome("error", outcome.reason) if isinstance(outcome, Died) else outcome
        results[unit.slug, unit.claim, unit.seed][unit.check, unit.control] = found
        if on_done:
            on_done(unit, found)
        return fail_fast and _disappoints(every, results, unit)

    try:
        for unit in units_of(here, chosen_seeds, strength):
            if done(unit, unit.run_in(next(p for p in papers if p.slug == unit.slug))):
                break
        for index, outcome in execute(units, jobs=jobs, scheduler=scheduler):
            if done(units[index], outcome):
                break
    except KeyboardInterrupt:
        pass
    return _assemble(every, results, chosen_seeds, strength, started, time.perf_counter() - start)


def _disappoints(selections: Sequence[Selection], results: Results, unit: Unit) -> bool:
    """Whether the claim of ``unit`` is complete and not as expected."""
    claim = next(c for s in selections for c in s.claims if c.full_id == f"{unit.slug}/{unit.claim}")
    record = _claim_record(claim, results[unit.slug, unit.claim, unit.seed])
    return record["verdict"] != "not_run" and not record["as_expected"]


def _assemble(
    selections: Sequence[Selection],
    results: Results,
    seeds: Sequence[int],
    strength: Strength,
    started: str,
    seconds: float,
) -> dict[str, Any]:
    """The certificate of what was run."""
    papers: list[dict[str, Any]] = []
    for chosen in selections:
        records = []
        for claim in chosen.claims:
            at_seeds = [
                {**_claim_record(claim, results[claim.slug, claim.id, seed]), "seed": seed, "started": started}
                for seed in seeds
            ]
            records.append(_worst(at_seeds) | {"examples": strength.examples})
        paper, folder = chosen.paper, chosen.folder
        in_file = folder != Path()
        for record in records if in_file else []:
            record["sources"] = digest(folder, {f for check in record["checks"] for f in check["library"]})
        papers.append(
            {
                "slug": paper.slug,
                "title": paper.title,
                "authors": paper.authors,
                "year": paper.year,
                "arxiv": paper.arxiv,
                "folder": _shown(folder),
                "files": file_hashes(folder) if in_file else {},
                "defined": len(paper.claims),
                "order": list(paper.claims),
                "claims": records,
            }
        )
    claims = [c for p in papers for c in p["claims"]]
    certificate = {
        "schema": certificates.SCHEMA_VERSION,
        "klsim": klsim.__version__,
        "seeds": list(seeds),
        "examples": strength.examples,
        "complete": all(c["verdict"] != "not_run" for c in claims),
        "as_expected": all(c["as_expected"] for c in claims),
        "started": started,
        "seconds": seconds,
        "environment": environment(tuple(s.folder for s in selections)),
        "papers": papers,
    }
    return certificate | {"totals": certificates.totals(certificate)}


def _worst(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of one claim at several seeds, the seed at which it did worst; and at which it was not as expected."""
    order = ("not_run", "error")

    def badness(record: dict[str, Any]) -> tuple[bool, int, float]:
        rank = len(order) - order.index(record["verdict"]) if record["verdict"] in order else 0
        risk = max((c["measured"].get("not_shown_risk", 0.0) for c in record["checks"]), default=0.0)
        errors = [
            c["measured"].get("worst_error", 0.0) / (c["measured"].get("tolerance") or 1.0) for c in record["checks"]
        ]
        return not record["as_expected"], rank, max([risk, *(e for e in errors if e == e)])

    worst = max(records, key=badness)
    return worst | {
        "unexpected_at": [r["seed"] for r in records if not r["as_expected"]],
        "of_seeds": len(records),
        "seconds": sum(r["seconds"] for r in records),
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
    if verdict != "not_run" and any(k["verdict"] == "not_run" for c in checks for k in c["controls"]):
        verdict = "not_run"
    vacuous = [] if verdict in ("not_run", "skipped") else _reasons(claim, checks)
    said = claim.statement
    as_expected = verdict == "skipped" or (verdict == claim.expect and not vacuous)
    if claim.expect == "open":
        as_expected = verdict != "error"
    return {
        "id": claim.id,
        "title": said.title,
        "statement": said.text,
        "where": said.where,
        "origin": said.origin,
        "assumptions": said.assumes,
        "expect": claim.expect,
        "correction": said.instead,
        "correction_by": list(said.by),
        "line": claim.line,
        "verdict": verdict,
        "vacuous": vacuous,
        "as_expected": as_expected,
        "stale": False,
        "checks": checks,
        "seconds": sum(o.seconds for o in outcomes.values()),
    }


def _claim_verdict(verdicts: Sequence[str]) -> str:
    for decisive in ("error", "not_run", "skipped", "refuted", "not_shown"):
        if decisive in verdicts:
            return decisive
    return "holds"


def _reasons(claim: Claim, checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the claim's checks could not have failed; empty if they could."""
    reasons = []
    for check in checks:
        if check["vacuous"]:
            reasons.append(f"{check['name']}: {check['vacuous']}")
        if claim.expect == "open":
            continue
        if not check["controls"] and not check["uncontrolled"]:
            reasons.append(f"{check['name']}: no control shows that it can fail")
        reasons += [
            f"{check['name']}: the control {k['name']!r} is not told apart: {_got(k)}"
            for k in check["controls"]
            if not k["passed"]
        ]
        controls = [k["measured"].get("constant") for k in check["controls"]]
        if check["measured"].get("constant") and all(c is not False for c in controls):
            sides = f"{check['measured']['lhs']:g} against {check['measured']['rhs']:g}"
            reasons.append(f"{check['name']}: compares a constant with a constant ({sides}) on every instance")
    return reasons


def _got(control: Mapping[str, Any]) -> str:
    return f"{control['verdict'].replace('_', ' ')} ({control['summary']})"


def _check_record(claim: Claim, check: Check, outcomes: Mapping[tuple[str, str], Outcome]) -> dict[str, Any]:
    return {
        "name": check.name,
        "kind": check.kind.name,
        "file": Path(check.file).name,
        "line": check.line,
        "space": "" if check.space is None else repr(check.space),
        "uncontrolled": check.uncontrolled,
        **_outcome_record(outcomes.get((check.name, ""))),
        "controls": [_control_record(claim, check, k, outcomes.get((check.name, k.name))) for k in check.controls],
    }


def _control_record(claim: Claim, check: Check, control: Control, outcome: Outcome | None) -> dict[str, Any]:
    """A control passes with the verdict opposite to its claim's expected one."""
    opposite = {"refuted": {"holds"}, "not_shown": {"holds", "refuted"}}.get(claim.expect, control.kind.told_apart)
    record = _outcome_record(outcome)
    return {
        "name": control.name,
        "kind": control.kind.name,
        "variant": {name: repr(value) for name, value in control.variant.items()},
        "line": control.line,
        "space": "" if control.space is None or control.space is check.space else repr(control.space),
        "passed": record["verdict"] in opposite and not record["vacuous"],
        **record,
    }


def _outcome_record(outcome: Outcome | None) -> dict[str, Any]:
    record = asdict(outcome or Outcome("not_run", "not run"))
    return record | {"library": list(record["library"])}
