"""The certificate: what was checked, how hard, and what came out, as JSON.

Its schema is published beside this file (``certificate.schema.json``). Two runs with the same seed, the same versions
and the same selection differ only in ``environment``, ``started`` and ``seconds``: `comparable` removes these. A run
of a few claims goes into the certificate that is there (`merge`); every claim says with which seed and when it was
run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from klsim.files import write_atomically

__all__ = [
    "SCHEMA_VERSION",
    "comparable",
    "findings",
    "jsonable",
    "merge",
    "missing_from",
    "read",
    "totals",
    "write",
    "write_atomically",
]

SCHEMA_VERSION = 2
"""Version of the certificate's format; other versions are refused."""


def jsonable(value: Any) -> Any:
    """Plain JSON: non-finite numbers become strings, NumPy scalars become Python's, tuples lists."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write(certificate: Mapping[str, Any], path: Path) -> None:
    """Write a certificate as JSON, atomically; without indentation, which takes as long as a paper's claims."""
    text = json.dumps(jsonable(certificate), ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def read(path: Path) -> dict[str, Any]:
    """Read a certificate.

    Raises:
        ValueError: not a certificate of this schema version: names the file, the place and the rule.
        FileNotFoundError: no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        if "\\ud" in text.lower():  # the escape of half a character can be read, but not written again
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{path}: not a klsim certificate of schema version {SCHEMA_VERSION}")
    if wrong := next(_validator().iter_errors(data), None):
        raise ValueError(f"{path}: {wrong.json_path.removeprefix('$.')}: {_short(wrong.message)}")
    for names, what in _names(data):
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"{path}: {what} {twice[0]!r} is there twice")
    return data


@lru_cache(maxsize=1)
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    schema = resources.files("klsim.claims") / "certificate.schema.json"
    return Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))


def _short(message: str) -> str:
    """The end of a message says which rule; its beginning quotes the value, which may be long."""
    return message if len(message) <= 200 else f"{message[:60]} … {message[-120:]}"


def _names(certificate: Mapping[str, Any]) -> Iterator[tuple[list[str], str]]:
    """Names that have to differ, and of what."""
    yield [paper["slug"] for paper in certificate["papers"]], "the paper"
    for paper in certificate["papers"]:
        yield [claim["id"] for claim in paper["claims"]], f"{paper['slug']}: the claim"


def comparable(certificate: Mapping[str, Any]) -> Any:
    """The certificate without what may differ between two runs with the same seed."""

    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: strip(v) for k, v in value.items() if k not in ("environment", "started", "seconds", "jobs")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(jsonable(certificate))


def claims_of(certificate: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every ``(paper, claim)``."""
    return ((paper, claim) for paper in certificate["papers"] for claim in paper["claims"])


def findings(certificate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The statements that were expected to be refuted and were, each with its paper."""
    return [
        {"paper": paper, "claim": claim}
        for paper, claim in claims_of(certificate)
        if claim["expect"] == "refuted" and claim["verdict"] == "refuted"
    ]


def totals(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Counts over the claims that ran: as expected, controls told apart, findings by origin; and the skipped."""
    every = [claim for _, claim in claims_of(certificate)]
    ran = [c for c in every if c["verdict"] not in ("skipped", "not_run")]
    controls = [k for c in ran for check in c["checks"] for k in check["controls"]]
    origins: dict[str, int] = {}
    for found in findings(certificate):
        origin = found["claim"]["origin"]
        origins[origin] = origins.get(origin, 0) + 1
    checks = [check for c in ran for check in c["checks"]]
    return {
        "claims": len(ran),
        "as_expected": sum(c["as_expected"] for c in ran),
        "skipped": sum(c["verdict"] == "skipped" for c in every),
        "not_run": sum(c["verdict"] == "not_run" for c in every),
        "open": sum(c["expect"] == "open" for c in ran),
        "controls": len(controls),
        "told_apart": sum(k["passed"] for k in controls),
        "uncontrolled": sum(bool(check["uncontrolled"]) for check in checks),
        "refuted": sum(origins.values()),
        "refuted_by_origin": origins,
    }


def missing_from(certificate: Mapping[str, Any], slugs: list[str]) -> str:
    """What keeps a certificate from speaking for the papers ``slugs``; empty if nothing does."""
    have = {paper["slug"]: paper for paper in certificate["papers"]}
    if absent := [slug for slug in slugs if slug not in have]:
        return f"it does not cover {', '.join(absent)}"
    for paper in certificate["papers"]:
        if len(paper["claims"]) < paper["defined"]:
            return f"it covers {len(paper['claims'])} of the {paper['defined']} claims of {paper['slug']}"
        if stale := [c["id"] for c in paper["claims"] if c["stale"]]:
            return f"{paper['slug']}/{stale[0]} was run before its file changed"
    return "" if certificate["complete"] else "it was interrupted"


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``new`` put into ``old``: claims of ``old`` that ``new`` does not cover stay, as stale where their files
    changed."""
    fresh = {paper["slug"]: paper for paper in new["papers"]}
    papers = [_merged(paper, fresh.pop(paper["slug"], None)) for paper in old["papers"]]
    papers += fresh.values()
    merged = {**new, "papers": papers}
    every = [claim for _, claim in claims_of(merged)]
    merged["complete"] = all(c["verdict"] != "not_run" for c in every)
    merged["as_expected"] = all(c["as_expected"] for c in every)
    merged["totals"] = totals(merged)
    return merged


def _merged(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if new is None:
        return old
    changed = old["files"] != new["files"]
    kept = {c["id"]: {**c, "stale": c["stale"] or changed} for c in old["claims"] if c["id"] in new["order"]}
    kept.update({c["id"]: c for c in new["claims"]})
    return {**new, "claims": [kept[id] for id in new["order"] if id in kept]}
