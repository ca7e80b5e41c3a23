"""``klsim audit``: load, measure, show. Exit codes: 0 all met; 1 not; 2 wrong usage; 3 the audited code failed."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

__all__ = ["audit_gallery", "audit_targets"]

FAILED = 3


def audit_targets(
    targets: Sequence[str],
    *,
    expect: str | None,
    terms: Sequence[str],
    page: Path | None,
    as_json: bool,
    options: Mapping[str, Any],
) -> int:
    """Audit some targets and print them; returns the exit code.

    Args:
        terms: own functionals, ``name=file.py:function``. page: a folder for ``audit.html``. options: of
            `klsim.audit.audit`.

    Raises:
        ValueError, ModuleNotFoundError: wrong usage.
    """
    _need_torch()
    from klsim.audit.measure import as_json as plain
    from klsim.report.audits import show_audit

    own = dict(map(_own_term, terms))
    rows, code = [], 0
    for target in targets:
        start = time.monotonic()
        found = _one(target, expect, own, options)
        if isinstance(found, str):
            typer.secho(f"klsim: {target}: {found}", err=True, fg=typer.colors.RED)
            code = FAILED
            continue
        typer.echo(f"audited {target} in {time.monotonic() - start:.1f} s", err=True)
        rows.append(plain(found))
        code = code or (0 if found.met else 1)
        if not as_json:
            show_audit(rows[-1])
    _finish(rows, {}, page, as_json)
    return code


def audit_gallery(page: Path | None, jobs: int) -> None:
    """Audit the losses of the installed trainers, write docs/audit-gallery.md."""
    _need_torch()
    from klsim.audit.gallery import GALLERY, gallery, write_gallery
    from klsim.audit.measure import Audit
    from klsim.audit.measure import as_json as plain
    from klsim.report.audits import show_audit

    done: list[str] = []

    def on_done(name: str) -> None:
        done.append(name)
        typer.echo(f"{len(done)}/{len(GALLERY)} {name}", err=True)

    found = gallery(jobs=jobs, on_done=on_done)
    write_gallery(Path("docs") / "audit-gallery.md", found)
    rows = [plain(a) for a in found.values() if isinstance(a, Audit)]
    missing = {name: a for name, a in found.items() if isinstance(a, str)}
    for row in rows:
        show_audit(row)
    for name, why in missing.items():
        typer.echo(f"{name}: not audited: {why}")
    _finish(rows, missing, page, as_json=False)
    typer.echo("written: docs/audit-gallery.md")


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("the audit needs torch: pip install 'klsim[lm]'")


def _own_term(text: str) -> tuple[str, Any]:
    """``name=file.py:function``."""
    from klsim.audit.targets import load_function

    name, equals, place = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--term {text!r}: write name=file.py:function")
    return name, load_function(place)


def _one(target: str, expect: str | None, own: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """An audit, or what the audited code failed with, in one line."""
    from klsim.audit import audit
    from klsim.audit.properties import in_loss, reason
    from klsim.audit.targets import load_target

    try:
        return audit(load_target(target), expect=expect, terms=own, **options)
    except TypeError as error:
        if str(error).startswith("loss: "):  # what it returned is wrong
            raise ValueError(str(error)) from None
        return reason(error)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if in_loss(error):
            return reason(error)
        raise
    except Exception as error:
        return reason(error)


def _finish(rows: list[dict[str, Any]], missing: Mapping[str, str], page: Path | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"audits": rows, "not_audited": missing}, indent=1, ensure_ascii=False))
    if page is not None:
        from klsim.report.html import write_audits

        typer.echo(f"report: {write_audits(rows, page).resolve()}", err=as_json)
