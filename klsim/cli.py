"""The command line. Exit codes: 0 all as expected; 1 something is not; 2 wrong usage or bad input."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import klsim

__all__ = ["app", "main"]

app = typer.Typer(
    name="klsim",
    help="Where a claim about KL-regularised RL objectives is settled.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Command = TypeVar("Command", bound=Callable[..., Any])

Select = Annotated[
    list[str] | None,
    typer.Argument(help="Slugs (gopd), claim ids (gopd/C3), globs ('*/C1') or paths to a claims.py."),
]
Seed = Annotated[int, typer.Option(help="All randomness follows from it.", min=0)]
Examples = Annotated[int, typer.Option(help="Hypothesis examples a check; bulk instances scale with it.", min=1)]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Worker processes; the result does not depend on it.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first claim not as expected.")]
CertificateFile = Annotated[Path, typer.Option("--certificate", help="The certificate to read.")]
CERTIFICATE = Path("certificate.json")
COUNTEREXAMPLES = Path("counterexamples")
STAGES = Path(".klsim") / "stages"


def _one_line_errors(command: Command) -> Command:
    """Bad input ends with one line on standard error and exit code 2."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            typer.secho(f"klsim: {error}", err=True, fg=typer.colors.RED)
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
    examples: Examples = 100,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    as_json: Annotated[
        str, typer.Option("--json", metavar="FILE", help="Where the certificate goes; - prints it.")
    ] = str(CERTIFICATE),
    fail_fast: FailFast = False,
) -> None:
    """Try to break the claims; write the certificate."""
    from klsim.claims import certificate as certificates

    certificate = _verify(select, seed, examples, jobs, scheduler, fail_fast)
    if as_json == "-":
        typer.echo(json.dumps(certificates.jsonable(certificate), indent=1, ensure_ascii=False))
    else:
        certificates.write(certificate, Path(as_json))
        _show_certificate(certificate)
        typer.echo(f"certificate: {as_json}")
    raise typer.Exit(0 if certificate["as_expected"] else 1)


def _verify(
    select: list[str] | None,
    seed: int,
    examples: int,
    jobs: int | None,
    scheduler: str | None,
    fail_fast: bool = False,
) -> dict[str, Any]:
    from klsim.claims import loader, runner
    from klsim.claims.search import Strength
    from klsim.report import terminal

    units = runner.units_of(loader.select(select or []), seed, Strength.of(examples))
    with terminal.progress("verify", len(units)) as advance:
        return runner.verify(
            *(select or []),
            seed=seed,
            examples=examples,
            jobs=_jobs(jobs, len(units)),
            scheduler=scheduler,
            fail_fast=fail_fast,
            on_done=lambda unit, outcome: advance(unit.name),
        )


def _jobs(asked: int | None, tasks: int) -> int:
    """All cores unless asked otherwise; few tasks are not worth starting workers."""
    if asked is not None:
        return asked
    return 1 if tasks < 8 else -1


def _show_certificate(certificate: dict[str, Any]) -> None:
    from klsim.claims import counterexample
    from klsim.report import terminal

    saved = counterexample.save_all(certificate, COUNTEREXAMPLES)
    terminal.show_certificate(certificate)
    if saved:
        typer.echo(f"counterexamples: {len(saved)} in {COUNTEREXAMPLES}/ (klsim replay FILE)")


@app.command()
@_one_line_errors
def reproduce(
    select: Select = None,
    out: Annotated[Path, typer.Option(help="Where figures go.")] = Path("figures"),
    report_folder: Annotated[Path, typer.Option("--report", help="Where the report goes.")] = Path("report"),
    seed: Seed = 0,
    examples: Examples = 100,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Only redraw figures, at the papers' own sizes; resumes after a kill."),
    ] = False,
) -> None:
    """Verify the claims, draw the figures, write the report: the main job."""
    from klsim.claims import certificate as certificates
    from klsim.report.html import write_report

    if full:
        drawn = _draw_full(select, out, seed)
        _show_drawn(drawn)
        raise typer.Exit(1 if any(d.error for d in drawn) else 0)
    certificate = _verify(select, seed, examples, jobs, scheduler)
    certificates.write(certificate, CERTIFICATE)
    drawn = _draw(select, out, seed, jobs, scheduler) if certificate["complete"] else []
    page = write_report(certificates.read(CERTIFICATE), figures=out, out=report_folder)
    _show_certificate(certificate)
    _show_drawn(drawn)
    typer.echo(f"certificate: {CERTIFICATE}\nreport: {page.resolve()}")
    raise typer.Exit(0 if certificate["as_expected"] and not any(d.error for d in drawn) else 1)


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
    from klsim.claims.parallel import execute
    from klsim.report import terminal

    tasks = _figure_tasks(select, out, seed, full=False)
    drawn: list[Any] = [None] * len(tasks)
    with terminal.progress("figures", len(tasks)) as advance:
        for index, result in execute(tasks, jobs=_jobs(jobs, len(tasks)), scheduler=scheduler):
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
    figures: Annotated[Path, typer.Option(help="Where the figures are.")] = Path("figures"),
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("report"),
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """The HTML report of the last certificate."""
    from klsim.claims import certificate as certificates
    from klsim.report.html import write_report

    page = write_report(certificates.read(certificate), figures=figures, out=out)
    typer.echo(f"report: {page.resolve()}")
    if open_it:
        typer.launch(page.resolve().as_uri())


@app.command()
@_one_line_errors
def findings(
    certificate: CertificateFile = CERTIFICATE,
    update: Annotated[Path | None, typer.Option(help="Rewrite the findings table in this Markdown file.")] = None,
) -> None:
    """Statements that are false as printed: the table of the last certificate."""
    from klsim.claims import certificate as certificates
    from klsim.report import findings as tables

    read = certificates.read(certificate)
    if update is None:
        typer.echo(tables.findings_markdown(read))
    else:
        tables.update_readme(update, read)
        typer.echo(f"updated: {update}")


@app.command()
@_one_line_errors
def objectives(
    names: Annotated[list[str] | None, typer.Argument(help="Objectives (grpo, 'k3 in the loss'); all if none.")] = None,
    seeds: Annotated[int, typer.Option(help="Random token trees for every objective.", min=1)] = 20,
    end_points: Annotated[bool, typer.Option("--end-points", help="Also train each to its fixed point.")] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write docs/objectives.md and figures/objectives/ (implies --end-points).")
    ] = False,
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
            names or [], seeds=seeds, end_points=end_points, write=write, as_json=as_json,
            jobs=lambda tasks: _jobs(jobs, tasks), scheduler=scheduler,
        )
    )  # fmt: skip


@app.command()
@_one_line_errors
def audit(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="file.py:function, module:function, 'trl:grpo?loss_type=dapo&beta=0.1', klsim:grpo, …"),
    ] = None,
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
    gallery: Annotated[
        bool, typer.Option("--gallery", help="Audit the losses of the installed trainers; write docs/audit-gallery.md.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    jobs: Jobs = None,
) -> None:
    """What loss implementations really optimise. Exit code 1 if --expect is not met, 3 if the audited code fails."""
    from klsim.commands.audit import audit_gallery, audit_targets

    if gallery == bool(targets):
        raise ValueError("give TARGETs, or --gallery")
    if any_scale and any_prompt_weight:
        raise ValueError("--any-scale and --any-prompt-weight: give one of them")
    if gallery and (expect is not None or must_act):
        raise ValueError("--expect and --must-act need a TARGET")
    if gallery:
        raise typer.Exit(audit_gallery(page, as_json, _jobs(jobs, 99)))
    options = {
        "lengths": lengths, "scale": "any" if any_scale else "prompt" if any_prompt_weight else "one",
        "off_policy": off_policy, "responses": responses, "rewards": rewards, "vocab": vocab, "quick": quick,
        "must_act": tuple(must_act or ()),
    }  # fmt: skip
    code = audit_targets(targets or [], expect=expect, terms=term or [], page=page, as_json=as_json, options=options)
    raise typer.Exit(code)


@app.command()
@_one_line_errors
def frontier(
    rollouts: Annotated[
        list[Path] | None,
        typer.Argument(help="Samples of the reference: .jsonl, .csv, .parquet, .arrow files or folders of them."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(metavar="COLUMN", help="The prompt's column.")] = None,
    reward: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="The reward's; several add up, '0.5*format' weighs one.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only these rows of the reference's samples.")
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Samples of a trained policy, with log-probabilities."),
    ] = None,
    policy_logp: Annotated[str, typer.Option(metavar="COLUMN", help="log pi(response) of the policy.")] = "policy_logp",
    ref_logp: Annotated[str, typer.Option(metavar="COLUMN", help="log ref(response) of the policy's.")] = "ref_logp",
    budget: Annotated[list[float] | None, typer.Option(help="KL budgets, nats; a default list if none.")] = None,
    level: Annotated[float, typer.Option(help="Of the confidence intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=100)] = 2000,
    seed: Seed = 0,
    table: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the figure's points.")] = None,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figure: .svg, .png or .pdf.")] = None,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write FOLDER/frontier.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    example: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write example rollouts there, and nothing else.")
    ] = None,
    coverage: Annotated[
        bool,
        typer.Option("--coverage", help="Simulate whether the intervals cover; write docs/frontier-coverage.md."),
    ] = False,
    replicates: Annotated[int, typer.Option(help="Simulated files of --coverage.", min=2)] = 400,
    jobs: Jobs = None,
) -> None:
    """What alignment could at best achieve from a base model: the KL-reward frontier of your own rollouts."""
    if sum((bool(rollouts), example is not None, coverage)) != 1:
        raise ValueError("give ROLLOUTS, or --example, or --coverage")
    if example is not None:
        from klsim.frontier.coverage import write_example

        for file in write_example(example, seed=seed):
            typer.echo(f"written: {file}")
        return
    if coverage:
        _coverage(replicates, seed, jobs)
        return
    from klsim import frontier as frontiers
    from klsim.report import terminal

    known: dict[int, int] = {}
    files = list(rollouts or [])
    with terminal.progress("frontier", 2) as advance:
        read = frontiers.read_rollouts(
            files, prompt=prompt, reward=reward or (), where=where or (), known=known,
            on_rows=lambda rows: advance.describe(f"{rows:,} rows read"),
        )  # fmt: skip
        trained: dict[str, Any] = {}
        notes = list(read.notes)
        if policy:
            logps = {"policy_logp": policy_logp, "ref_logp": ref_logp}
            other = frontiers.read_rollouts(policy, prompt=prompt, reward=reward or (), logps=logps, known=known)
            trained = {"policy_prompt": other.prompt, "policy_reward": other.reward, **other.logps}
            notes += [f"of the policy, {note}" for note in other.notes]
        advance("estimating")
        found = frontiers.estimate(
            read.prompt, read.reward, **trained, budgets=budget, level=level, resamples=resamples, seed=seed
        )
        advance("done")
    found = dataclasses.replace(found, notes=(*notes, *found.notes))
    _show_frontier(found, ", ".join(map(str, files)), table, figure, page, as_json)


def _show_frontier(
    found: Any, source: str, csv: Path | None, figure: Path | None, page: Path | None, as_json: bool
) -> None:
    from klsim.claims.certificate import write_atomically
    from klsim.frontier import as_json as values_of
    from klsim.frontier.plot import columns, draw
    from klsim.report import figures, terminal

    values = values_of(found)
    if as_json:
        typer.echo(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        terminal.show_frontier(values)
    points = figures.Table(columns(found))

    def drawing(table: Any, canvas: Any) -> None:
        draw(table, canvas.subplots(), found.level)

    if csv is not None:
        write_atomically(csv, points.to_csv())
        typer.echo(f"written: {csv}", err=as_json)
    if figure is not None:
        figures.save_figure([figure], lambda canvas: drawing(points, canvas))
        typer.echo(f"written: {figure}", err=as_json)
    if page is not None:
        from klsim.report.html import write_frontier

        made = figures.Figure("frontier", "KL-reward frontier", source, (7.0, 4.2), lambda run: {}, drawing)
        figures.write_figure(made, points, page, Path("frontier"), figures.Run(found.seed))
        typer.echo(f"report: {write_frontier(values, source, page).resolve()}", err=as_json)


def _coverage(replicates: int, seed: int, jobs: int | None) -> None:
    from klsim.frontier import coverage as study
    from klsim.report import terminal

    total = len(study.FAMILIES) * len(study.SAMPLES) * -(-replicates // 50)
    with terminal.progress("coverage", total) as advance:
        cells = study.coverage(replicates=replicates, seed=seed, jobs=_jobs(jobs, total), on_done=advance)
    study.write_coverage(Path("docs") / "frontier-coverage.md", cells, replicates, seed)
    for name, (value, number) in study.total_coverage(cells).items():
        typer.echo(f"{name}: {value:.1%} of {number:,} intervals cover")
    typer.echo("written: docs/frontier-coverage.md")


@app.command()
@_one_line_errors
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see klsim.lm.config.")],
    output: Annotated[Path | None, typer.Option(help="Instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's.", min=0)] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the configuration and its tasks.")] = False,
) -> None:
    """Train causal language models with klsim's objectives: the stages of a file; a killed run resumes."""
    if missing := [name for name in ("torch", "trl", "pydantic") if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(f"training needs {', '.join(missing)}: pip install 'klsim[lm]'")
    from klsim.lm import config as configs
    from klsim.lm import train as training
    from klsim.report import terminal
    from klsim.report import training as summary

    read = configs.read(config, output=output, seed=seed)
    if check:
        made = training.world(read)
        for name, task in made.tasks.items():
            typer.echo(f"{name}: {task.name}, {len(made.train[name])} to train on, {len(made.test[name])} to test on")
        typer.echo(f"{config}: {len(read.stage)} stages, fine")
        return
    steps = {stage.name: getattr(stage, "steps", 0) for stage in read.stage}
    with terminal.progress("train", sum(steps.values())) as advance:
        done = dict.fromkeys(steps, 0)

        def on_step(stage: str, step: int, text: str) -> None:
            advance.describe(f"{stage} {step}/{steps[stage]}: {text}" if text else f"{stage} {step}/{steps[stage]}")
            for _ in range(done[stage], step):
                advance.step()
            done[stage] = max(done[stage], step)

        results = training.run(read, on_step)
    if not training.is_first_process():
        return
    terminal.show_training({r.name: r.evaluations for r in results})
    for file in summary.draw_summary(read.output, {r.name: r.folder for r in results}):
        typer.echo(f"written: {file}")


@app.command()
@_one_line_errors
def replay(file: Annotated[Path, typer.Argument(help="A saved counterexample.")]) -> None:
    """Judge a saved counterexample again. Exit code 1 if a claim that should hold is still broken."""
    from klsim.claims import counterexample

    data, judged = counterexample.replay(file)
    typer.echo(data.get("python", ""))
    typer.echo(f"{data['slug']}/{data['claim']} ({data['check']}): {judged.verdict}: {judged.summary}")
    raise typer.Exit(1 if judged.verdict == "refuted" and data["expect"] != "refuted" else 0)


def main() -> None:
    """Entry point of the ``klsim`` command."""
    # joblib replaces a worker whose memory has grown, between tasks; results do not depend on it
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
