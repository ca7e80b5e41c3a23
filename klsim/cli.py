"""The command line. Exit codes: 0 all as expected; 1 something is not; 2 wrong usage or bad input; 3 something
crashed."""

from __future__ import annotations

import functools
import json
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import klsim
from klsim.commands import dev
from klsim.commands.frontier import frontier
from klsim.commands.sample import sample
from klsim.commands.streams import fall_back_to_ascii
from klsim.commands.train import train
from klsim.commands.verify import (
    changed_claims,
    exit_code,
    jobs_for,
    run_claims,
    seed_range,
    show_certificate,
    write_certificate,
)
from klsim.files import printable

__all__ = ["app", "main"]

app = typer.Typer(
    name="klsim",
    help="Where a claim about KL-regularised RL objectives is settled.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""The command line as a Typer application."""

Command = TypeVar("Command", bound=Callable[..., Any])

Select = Annotated[
    list[str] | None,
    typer.Argument(help="Slugs (gopd), claim ids (gopd/C3), globs ('*/C1') or paths to a claims.py."),
]
Seed = Annotated[int, typer.Option(help="All randomness follows from it.", min=0)]
Examples = Annotated[
    int,
    typer.Option(help="Hypothesis examples a check; bulk instances scale with it (100: standard strength).", min=1),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Worker processes; the result does not depend on it.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first claim not as expected.")]
CertificateFile = Annotated[Path, typer.Option("--certificate", help="The certificate to read.")]
CERTIFICATE = Path("certificate.json")
STAGES = Path(".klsim") / "stages"


def _one_line_errors(command: Command) -> Command:
    """Bad input ends with one line on standard error and exit code 2."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            typer.secho(printable(f"klsim: {error}"), err=True, fg=typer.colors.RED)
            raise typer.Exit(2) from None

    return guarded  # type: ignore[return-value]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"klsim {klsim.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("list")
@_one_line_errors
def list_papers(
    select: Select = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Papers, claims and figures."""
    from klsim.claims.loader import select as choose
    from klsim.report.figures import figure_set

    rows = []
    for chosen in choose(select or []):
        figures = figure_set(chosen.folder)
        rows.append(
            {
                "slug": chosen.paper.slug,
                "title": chosen.paper.title,
                "claims": {c.id: {"title": c.title, "expect": c.expect} for c in chosen.claims},
                "figures": {} if figures is None else {n: f.title for n, f in figures.by_name.items()},
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    from klsim.report import terminal

    terminal.show_list(rows)


@app.command()
@_one_line_errors
def verify(
    select: Select = None,
    seed: Seed = 0,
    seeds: Annotated[
        str | None, typer.Option(metavar="FIRST:END", help="Several seeds, 0:10 is 0 to 9; the worst of each claim.")
    ] = None,
    examples: Examples = 50,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    certificate: Annotated[
        Path,
        typer.Option("--certificate", metavar="FILE", help="Where the certificate goes; merged into what is there."),
    ] = CERTIFICATE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate; write none.")] = False,
    fail_fast: FailFast = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only claims whose files, or library functions, are not those of FILE.")
    ] = False,
) -> None:
    """Try to break the claims; write the certificate."""
    from klsim.claims import certificate as certificates
    from klsim.claims import loader

    chosen = [seed] if seeds is None else seed_range(seeds)
    claims = loader.select(select or [])
    if changed and not (claims := changed_claims(claims, certificate, chosen, examples)):
        typer.echo(f"{certificate}: nothing has changed", err=as_json)
        raise typer.Exit(0)
    found = run_claims(claims, chosen, examples, jobs, scheduler, fail_fast)
    if as_json:
        typer.echo(json.dumps(certificates.jsonable(found), indent=1, ensure_ascii=False))
    else:
        kept = write_certificate(found, certificate)
        show_certificate(found)
        typer.echo(f"certificate: {certificate}{kept}")
    raise typer.Exit(exit_code(found))


@app.command()
@_one_line_errors
def reproduce(
    select: Select = None,
    out: Annotated[Path, typer.Option(help="Where figures go; --out figures renews the committed ones.")] = Path(
        "report"
    )
    / "figures",
    against: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Figures to compare with: says where a number differs.")
    ] = Path("figures"),
    report_folder: Annotated[Path, typer.Option("--report", help="Where the report goes.")] = Path("report"),
    seed: Seed = 0,
    examples: Examples = 50,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Only redraw figures, at the papers' own sizes; resumes after a kill."),
    ] = False,
) -> None:
    """Verify the claims, draw the figures, write the report: the main job."""
    from klsim.claims import certificate as certificates
    from klsim.claims import loader
    from klsim.report.html import write_report

    if full:
        drawn = _draw_full(select, out, seed)
        _show_drawn(drawn)
        raise typer.Exit(1 if any(d.error for d in drawn) else 0)
    certificate = run_claims(loader.select(select or []), [seed], examples, jobs, scheduler)
    write_certificate(certificate, CERTIFICATE)
    drawn = _draw(select, out, seed, jobs, scheduler) if certificate["complete"] else []
    page = write_report(certificates.read(CERTIFICATE), figures=out, out=report_folder)
    show_certificate(certificate)
    _show_drawn(drawn)
    if drawn:
        _show_differences(out, against)
    typer.echo(f"certificate: {CERTIFICATE}\nreport: {page.resolve()}")
    raise typer.Exit(max(exit_code(certificate), int(any(d.error for d in drawn))))


def _show_differences(drawn: Path, committed: Path) -> None:
    from klsim.report import terminal
    from klsim.report.compare import compare_figures

    if committed.is_dir() and committed.resolve() != drawn.resolve():
        terminal.show_differences(*compare_figures(drawn, committed), str(committed))


def _figure_tasks(select: list[str] | None, out: Path, seed: int, *, full: bool) -> list[Any]:
    from klsim.claims.loader import select as choose
    from klsim.report.figures import FigureTask, figure_set

    tasks = []
    for chosen in choose(select or []):
        figures = figure_set(chosen.folder)
        for made in figures.by_name.values() if figures else ():
            if made.has_full or not full:
                where = (str(chosen.folder), chosen.paper.slug, made.name, str(out))
                tasks.append(FigureTask(*where, seed, full, str(STAGES) if full else ""))
    return tasks


def _draw(select: list[str] | None, out: Path, seed: int, jobs: int | None, scheduler: str | None) -> list[Any]:
    from klsim.parallel import execute
    from klsim.report import terminal

    tasks = _figure_tasks(select, out, seed, full=False)
    drawn: list[Any] = [None] * len(tasks)
    with terminal.progress("figures", len(tasks)) as advance:
        for index, result in execute(tasks, jobs=jobs_for(jobs, len(tasks)), scheduler=scheduler):
            drawn[index] = result
            advance(f"{result.slug}/{result.name}")
    return drawn


def _draw_full(select: list[str] | None, out: Path, seed: int) -> list[Any]:
    """One figure after another; every finished stage is kept, so a killed run resumes."""
    from klsim.report import terminal

    tasks = _figure_tasks(select, out, seed, full=True)
    if not tasks:
        raise ValueError("none of the selected papers has a figure with a full-size version")
    drawn = []
    with terminal.progress("full figures", len(tasks)) as advance:
        for task in tasks:
            advance.describe(f"{task.slug}/{task.name}")
            drawn.append(task.run(on_stage=lambda key, t=task: advance.describe(f"{t.slug}/{t.name}: {key}")))
            advance(f"{task.slug}/{task.name}")
    return drawn


def _show_drawn(drawn: list[Any]) -> None:
    from klsim.report import terminal

    terminal.show_drawn(drawn)


@app.command()
@_one_line_errors
def report(
    certificate: CertificateFile = CERTIFICATE,
    figures: Annotated[
        Path | None, typer.Option(help="Where the figures are; REPORT/figures, else figures, if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("report"),
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """The HTML report of the last certificate."""
    from klsim.claims import certificate as certificates
    from klsim.report.html import write_report

    if figures is None:
        figures = out / "figures" if (out / "figures").is_dir() else Path("figures")
    page = write_report(certificates.read(certificate), figures=figures, out=out)
    typer.echo(f"report: {page.resolve()}")
    if open_it:
        typer.launch(page.resolve().as_uri())


@app.command()
@_one_line_errors
def findings(
    certificate: CertificateFile = CERTIFICATE,
    update: Annotated[
        list[Path] | None,
        typer.Option(help="Rewrite the table in this Markdown file (a paper's README gets that paper's); repeatable."),
    ] = None,
) -> None:
    """Statements that are false, with counterexample and correction: the table of the last certificate."""
    from klsim.claims import certificate as certificates
    from klsim.claims.loader import select as choose
    from klsim.report import findings as tables

    read = certificates.read(certificate)
    if not update:
        typer.echo(printable(tables.findings_markdown(read)))
        return
    if lacking := certificates.missing_from(read, [s.paper.slug for s in choose([])]):
        raise ValueError(f"{certificate}: {lacking}; run klsim verify before the tables are rewritten")
    for file in update:
        tables.update_readme(file, read)
        typer.echo(f"updated: {file}")


@app.command()
@_one_line_errors
def objectives(
    names: Annotated[list[str] | None, typer.Argument(help="Objectives (grpo, 'k3 in the loss'); all if none.")] = None,
    seeds: Annotated[int, typer.Option(help="Random token trees for every objective.", min=1)] = 20,
    end_points: Annotated[bool, typer.Option("--end-points", help="Also train each to its fixed point.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Only the names, without measuring anything.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
) -> None:
    """What every objective is the gradient of, measured on token trees. Exit code 1 if a claim is not met."""
    from klsim.commands.objectives import list_objectives, measure_objectives

    if listed:
        list_objectives(names or [], as_json)
        return
    raise typer.Exit(
        measure_objectives(
            names or [], seeds=seeds, end_points=end_points, as_json=as_json,
            jobs=lambda tasks: jobs_for(jobs, tasks), scheduler=scheduler,
        )
    )  # fmt: skip


@app.command()
@_one_line_errors
def audit(
    targets: Annotated[
        list[str],
        typer.Argument(help="file.py:function, module:function, 'trl:grpo?loss_type=dapo&beta=0.1', klsim:grpo, …"),
    ],
    expect: Annotated[
        str | None, typer.Option(help="The objective that it should ascend: 'reward - beta*reverse_kl(frozen)'.")
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Responses for which --expect must hold: equal, variable or both.")
    ] = "both",
    any_scale: Annotated[bool, typer.Option("--any-scale", help="--expect up to a positive factor.")] = False,
    any_prompt_weight: Annotated[
        bool, typer.Option("--any-prompt-weight", help="--expect up to a positive factor of every prompt.")
    ] = False,
    off_policy: Annotated[str, typer.Option(help="Off-policy, report the distance or hold --expect exact.")] = "report",
    responses: Annotated[str, typer.Option(help="Who writes them: own (the policy) or teacher.")] = "own",
    rewards: Annotated[str, typer.Option(help="all kinds, or binary ones only.")] = "all",
    vocab: Annotated[int | None, typer.Option(help="Size of the vocabulary (2; more where it is needed).")] = None,
    term: Annotated[
        list[str] | None, typer.Option(help="An own functional for --expect, name=file.py:function.")
    ] = None,
    must_act: Annotated[list[str] | None, typer.Option(help="A parameter that has to have an effect.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only what --expect needs; says what was left out.")] = False,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write FOLDER/audit.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """What loss implementations really optimise. Exit code 1 if --expect is not met, 3 if the audited code fails."""
    from klsim.commands.audit import audit_targets

    if any_scale and any_prompt_weight:
        raise ValueError("--any-scale and --any-prompt-weight: give one of them")
    options = {
        "lengths": lengths, "scale": "any" if any_scale else "prompt" if any_prompt_weight else "one",
        "off_policy": off_policy, "responses": responses, "rewards": rewards, "vocab": vocab, "quick": quick,
        "must_act": tuple(must_act or ()),
    }  # fmt: skip
    code = audit_targets(targets, expect=expect, terms=term or [], page=page, as_json=as_json, options=options)
    raise typer.Exit(code)


app.command()(_one_line_errors(frontier))


app.command()(_one_line_errors(sample))

app.command()(_one_line_errors(train))

maintain = typer.Typer(help="For maintainers: measure again what the documentation says.", no_args_is_help=True)
for command in dev.COMMANDS:
    maintain.command()(_one_line_errors(command))
app.add_typer(maintain, name="dev")


@app.command()
@_one_line_errors
def new(
    slug: Annotated[str, typer.Argument(help="Lower-case letters, digits and single dashes: gopd.")],
    title: Annotated[str, typer.Option(help="The paper's title.")] = "A paper",
    papers: Annotated[Path, typer.Option(help="Where its folder goes.")] = Path("papers"),
) -> None:
    """A paper's four files, which verify at once: claims.py, setting.py, figures.py, README.md."""
    from klsim.claims.scaffold import write_paper

    for file in write_paper(slug, title, papers):
        typer.echo(f"written: {file}")
    typer.echo(f"next: klsim verify {papers / slug}")


@app.command()
@_one_line_errors
def replay(file: Annotated[Path, typer.Argument(help="A saved counterexample.")]) -> None:
    """Judge a saved counterexample again. Exit code 1 if a claim that should hold is still broken."""
    from klsim.claims import counterexample

    data, judged = counterexample.replay(file)
    typer.echo(printable(str(data.get("python", ""))))
    typer.echo(printable(f"{data['slug']}/{data['claim']} ({data['check']}): {judged.verdict}: {judged.summary}"))
    raise typer.Exit(1 if judged.verdict == "refuted" and data["expect"] != "refuted" else 0)


def _terminated(number: int, frame: Any) -> None:
    """SIGTERM as Ctrl-C: what is done is kept."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the ``klsim`` command."""
    fall_back_to_ascii()
    # joblib replaces a worker whose memory has grown, between tasks; results do not depend on it
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
