"""The static report: an index, a page a paper, and the findings; no network, no build step."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from klsim.claims.certificate import findings, totals
from klsim.claims.counterexample import script
from klsim.claims.statement import ORIGINS
from klsim.files import write_atomically
from klsim.report.prose import to_html
from klsim.report.verdicts import box, word_of

__all__ = ["write_audits", "write_frontier", "write_report"]

_BADGES = {
    "holds": ("✓", "holds"),
    "proven": ("✓", "proven"),
    "refuted": ("✗", "refuted"),
    "not_shown": ("–", "not shown"),
    "error": ("!", "error"),
    "not_run": ("·", "not run"),
    "skipped": ("·", "skipped"),
    "vacuous": ("○", "vacuous"),
}


def write_report(certificate: Mapping[str, Any], *, figures: Path, out: Path) -> Path:
    """Write ``out/index.html``, one page a paper and ``findings.html``; copy the figures in.

    Args:
        certificate: as read by `klsim.claims.certificate.read`.
        figures: folder with ``<slug>/<name>.{svg,csv,json}`` (missing figures are left out).
        out: folder of the report; only files that the report writes are replaced. Pages of papers that the certificate
            no longer has are removed.

    Returns the path of the index.
    """
    environment = _environment()
    common = {
        "certificate": certificate,
        "totals": _totals(certificate),
        "papers": certificate["papers"],
        "folder": out,
    }
    drawn = {p["slug"]: _copy_figures(figures, p["slug"], out) for p in certificate["papers"]}
    for paper in certificate["papers"]:
        page = environment.get_template("paper.html")
        text = page.render(**common, paper=paper, figures=drawn[paper["slug"]], here=paper["slug"])
        write_atomically(out / f"{paper['slug']}.html", text)
    page = environment.get_template("findings.html")
    write_atomically(out / "findings.html", page.render(**common, findings=findings(certificate), here="findings"))
    text = environment.get_template("index.html").render(**common, figures=drawn, here="index")
    write_atomically(out / "index.html", text)
    _remove_others(out, {paper["slug"] for paper in certificate["papers"]})
    return out / "index.html"


def _remove_others(out: Path, slugs: set[str]) -> None:
    """Remove the pages of papers that are not in this report; nothing else."""
    for page in out.glob("*.html"):
        slug = page.stem
        if slug in slugs | {"index", "findings", "audit", "frontier"} or not page.is_file():
            continue
        with page.open(encoding="utf-8", errors="replace") as file:
            start = file.read(4000)
        if f'<meta name="generator" content="klsim {html.escape(slug)}">' in start:
            page.unlink()


def write_audits(audits: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Write ``out/audit.html``: audits as `klsim.audit.measure.as_json` gives them. Returns its path."""
    from klsim.report.audits import change_text

    page = _environment().get_template("audit.html")
    text = page.render(audits=audits, papers=[], certificate=None, here="audit", change_text=change_text)
    write_atomically(out / "audit.html", text)
    return out / "audit.html"


def write_frontier(answers: Sequence[Mapping[str, Any]], about: Mapping[str, Any], out: Path) -> Path:
    """Write ``out/frontier.html``: answers and ``about`` as `klsim.report.frontier.answers` and ``about`` give them."""
    page = _environment().get_template("frontier.html")
    text = page.render(answers=answers, about=about, papers=[], certificate=None, here="frontier")
    write_atomically(out / "frontier.html", text)
    return out / "frontier.html"


@lru_cache(maxsize=1)
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("klsim.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"prose": to_html, "number": _number, "seconds": lambda s: f"{float(s):.1f} s"}
    environment.globals |= {
        "badge": _BADGES, "details": _details, "python": _python, "told_apart": _told_apart, "source": _source,
        "origins": ORIGINS, "policy": _policy(), "script_text": _script_text, "word_of": word_of,
    }  # fmt: skip
    return environment


_SCRIPTS = ("theme.js", "site.js", "claims.js")


def _script_text(name: str) -> Markup:
    return Markup(resources.files("klsim.report").joinpath("templates", name).read_text(encoding="utf-8"))


def _policy() -> str:
    """The content security policy of every page: its own three scripts, images beside it, nothing else."""
    digests = (hashlib.sha256(_script_text(name).encode()).digest() for name in _SCRIPTS)
    scripts = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src 'self' file: data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _totals(certificate: Mapping[str, Any]) -> dict[str, Any]:
    claims = [c for p in certificate["papers"] for c in p["claims"]]
    return totals(certificate) | {
        "instances": sum(sum(c["instances"].values()) for claim in claims for c in claim["checks"]),
    }


def _source(paper: Mapping[str, Any], check: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """``(address, words)`` of a check's line in a paper's files, relative to the page; no address where it is gone."""
    line, name = check["line"], check.get("file", "claims.py")
    file = Path(paper["folder"]) / name
    words = f"{name}:{line}"
    if not line or not file.is_file():
        return "", words if line else ""
    return f"{Path(os.path.relpath(file, folder)).as_posix()}#L{line}", words


def _told_apart(claim: Mapping[str, Any]) -> str:
    controls = [k for check in claim["checks"] for k in check["controls"]]
    return f"{sum(k['passed'] for k in controls)}/{len(controls)}"


_LABELS = {
    "worst_error": "worst relative error",
    "smallest_slack": "smallest relative slack",
    "largest_ratio": "largest ratio of the sides",
    "equalities": "instances with equality",
    "tolerance": "allowed",
    "exponent": "exponent at the end",
    "rate": "exponent in theory",
    "mean": "mean",
    "seeds": "seeds",
    "not_shown_risk": "chance that other seeds do not show it",
    "seeds_for_1e-4": "seeds that make it 1e-4",
    "expression": "expression",
}


def _value(key: str, measured: Mapping[str, Any]) -> str:
    value = _number(measured[key])
    if key == "exponent" and "exponent_half_width" in measured:
        value += f" ± {_number(measured['exponent_half_width'])}"
    if key == "mean" and isinstance(level := measured.get("level"), float) and {"low", "high"} <= measured.keys():
        value += f", {level:.0%} interval [{_number(measured['low'])}, {_number(measured['high'])}]"
    return value


def _details(check: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of a check worth a row each, by kind."""
    measured = check["measured"]
    rows = []
    for key, label in _LABELS.items():
        if measured.get(key) is not None:
            rows.append((label, _value(key, measured)))
    if isinstance(measured.get("ratios"), Mapping):
        spread = ", ".join(f"{name}: {_number(value)}" for name, value in measured["ratios"].items())
        rows.append(("ratios of the sides", spread))
    if sides := box(measured):
        rows.append(("proven on" if check["verdict"] == "holds" else "on the box", sides))
    rows += [(f"instances ({kind})", f"{count:,}") for kind, count in check["instances"].items()]
    return rows


def _python(paper: Mapping[str, Any], claim: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    """The counterexample of a check as runnable Python; empty if there is none or it is too long to read."""
    if not check["python"] or check["verdict"] not in ("refuted", "error") or len(check["python"]) > 4000:
        return ""
    return script(paper["folder"], claim["id"], check["name"], check["python"])


def _copy_figures(figures: Path, slug: str, out: Path) -> list[dict[str, Any]]:
    """Copy a paper's figures; what the pages need to show them."""
    found = []
    for full in (False, True):
        source = figures / slug / ("full" if full else "")
        target = Path("figures") / slug / ("full" if full else "")
        for about in sorted(source.glob("*.json")) if source.is_dir() else ():
            svg, table = about.with_suffix(".svg"), about.with_suffix(".csv")
            if not svg.is_file() or not table.is_file():
                continue
            for file in (svg, table):
                if (out / target / file.name).resolve() != file.resolve():
                    write_atomically(out / target / file.name, file.read_bytes())
            text = json.loads(about.read_text(encoding="utf-8"))
            found.append(
                {
                    "name": about.stem,
                    "title": str(text["title"]),
                    "caption": str(text["caption"]),
                    "full": full,
                    "svg": (target / svg.name).as_posix(),
                    "csv": (target / table.name).as_posix(),
                }
            )
    return found
