"""``klsim frontier``: its options, and what they run. Heavy imports happen when the command does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from klsim.frontier import PolicySamples, Result, Rollouts

__all__ = ["frontier"]

Column = typer.Option(metavar="COLUMN")
SAMPLES = (
    "Samples of the reference: files (.jsonl .json .csv .tsv .parquet .arrow .eval), folders, patterns, - or hf://…"
)


def frontier(
    rollouts: Annotated[list[str] | None, typer.Argument(help=SAMPLES)] = None,
    prompt: Annotated[str | None, typer.Option(metavar="COLUMN", help="The prompt's; nested: doc.question.")] = None,
    reward: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="The reward's; several add up, '0.5*format' weighs one.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE", help="Only these rows, of all files; repeat it for several values or columns."
        ),
    ] = None,
    min_samples: Annotated[int, typer.Option(help="Leave out prompts with fewer samples.", min=2)] = 2,
    gold: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Is it hacking? The reward that is meant, of the same samples.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Did RL help beyond sampling? Samples of a second model; rewards suffice."),
    ] = None,
    beta: Annotated[
        list[float] | None, typer.Option(help="Will RL get there? Reward and KL where it ends with this beta.")
    ] = None,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Which prompts? Difficulty, groups without a gradient.")
    ] = False,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Samples of a trained policy, with log-probabilities.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of --policy: its checkpoints (step, model, file), a path.")
    ] = None,
    policy_where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Instead of --where, of --policy and --against.")
    ] = None,
    policy_logp: Annotated[
        str, typer.Option(metavar="COLUMN", help="log pi(response); token lists are summed.")
    ] = "policy_logp",
    ref_logp: Annotated[str, typer.Option(metavar="COLUMN", help="log ref(response) of the policy's.")] = "ref_logp",
    log_ratio: Annotated[str | None, typer.Option(metavar="COLUMN", help="Instead: log pi - log ref.")] = None,
    kl: Annotated[str | None, typer.Option(metavar="COLUMN", help="Instead: the KL of each response, nats.")] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Use log-probabilities that fail the checks.")] = False,
    budget: Annotated[list[float] | None, typer.Option(help="KL budgets, nats; a default list if none.")] = None,
    level: Annotated[float, typer.Option(help="Of the confidence intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=100)] = 2000,
    seed: Annotated[int, typer.Option(help="All randomness follows from it.", min=0)] = 0,
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
        bool, typer.Option("--coverage", help="Simulate whether the intervals cover; write docs/frontier-coverage.md.")
    ] = False,
    replicates: Annotated[int, typer.Option(help="Simulated files of --coverage.", min=2)] = 400,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Worker processes of --coverage.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port: files are read there.")
    ] = None,
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
    for name, value, needed in (("--by", by, policy), ("--policy-where", policy_where, policy or against)):
        if value and not needed:
            raise ValueError(f"{name} is about --policy; give that, too")
    if log_ratio and kl:
        raise ValueError("give --log-ratio or --kl, not both")
    settings = {"level": level, "resamples": resamples, "seed": seed, "min_samples": min_samples}
    logps = (
        {"log_ratio": log_ratio}
        if log_ratio
        else {"kl": kl}
        if kl
        else {"policy_logp": policy_logp, "ref_logp": ref_logp}
    )
    asked = _Asked(prompt, tuple(reward or ()), tuple(where or ()), tuple(policy_where or where or ()), settings)
    files = list(rollouts or [])
    if scheduler is not None and (policy or against or gold or beta or prompts):
        raise ValueError("--scheduler reads the reference's samples for the frontier alone")
    if scheduler is not None:
        results, notes = _distributed(asked, files, budget, scheduler)
    elif against:
        results, notes = asked.compare(files, list(against))
    else:
        results, notes = asked.answer(files, gold, list(policy or []), by, logps, unchecked, budget, beta, prompts)
    _write(results, notes, ", ".join(files), seed, table, figure, page, as_json)


class _Asked:
    """What is read from which files, and what it is asked."""

    def __init__(
        self,
        prompt: str | None,
        reward: Sequence[str],
        where: Sequence[str],
        policy_where: Sequence[str],
        settings: dict[str, Any],
    ) -> None:
        self.prompt, self.reward, self.where, self.policy_where, self.settings = (
            prompt,
            reward,
            where,
            policy_where,
            settings,
        )
        self.known: dict[int, int] = {}

    def read(self, files: list[str], where: Sequence[str], on_rows: Callable[[int], None], **more: Any) -> Rollouts:
        """Columns of files, prompts numbered alike in all."""
        from klsim.frontier import read_rollouts

        columns: dict[str, Any] = {"prompt": self.prompt, "reward": self.reward, "known": self.known}
        return read_rollouts(files, where=where, on_rows=on_rows, **columns, **more)

    def compare(self, files: list[str], others: list[str]) -> tuple[dict[str, Result], list[str]]:
        """Two models by their rewards."""
        from klsim.frontier import against
        from klsim.report import terminal

        with terminal.progress("frontier", 2) as advance:
            first = self.read(files, self.where, lambda n: advance.describe(f"{n:,} rows read"))
            second = self.read(others, self.policy_where, lambda n: advance.describe(f"{n:,} rows read"))
            advance("comparing")
            settings = self.settings | {"min_samples": max(1, self.settings["min_samples"] - 1)}
            found = against(first.prompt, first.reward, second.prompt, second.reward, **settings)
            advance("done")
        return {"against": found}, [*first.notes, *(f"of the second model, {n}" for n in second.notes), *found.notes]

    def answer(
        self,
        files: list[str],
        gold: str | None,
        policy: list[str],
        by: str | None,
        logps: dict[str, str],
        unchecked: bool,
        budgets: Sequence[float] | None,
        betas: Sequence[float] | None,
        prompts: bool,
    ) -> tuple[dict[str, Result], list[str]]:
        """The frontier, and what else is asked of the reference's samples."""
        from klsim import frontier as frontiers
        from klsim.report import terminal

        with terminal.progress("frontier", 2) as advance:
            more: dict[str, Any] = {"logps": {"gold": gold}} if gold else {}
            read = self.read(files, self.where, lambda n: advance.describe(f"{n:,} rows read"), **more)
            notes = list(read.notes)
            trained: list[PolicySamples] = []
            if policy:
                own = {"logps": logps, "by": by}
                other = self.read(policy, self.policy_where, lambda n: advance.describe(f"{n:,} rows read"), **own)
                notes += [f"of the policy, {note}" for note in other.notes]
                trained = _checkpoints(other, unchecked)
            advance("estimating")
            given = {"path": trained} if by else {"policy": trained[0] if trained else None}
            found = frontiers.estimate(read.prompt, read.reward, budgets=budgets, **given, **self.settings)
            results: dict[str, Result] = {"frontier": found}
            notes += found.notes
            if gold:
                results["gold"] = frontiers.gold(read.prompt, read.reward, read.logps["gold"], **self.settings)
            if betas:
                outcomes = found.path or tuple(p for p in (found.policy,) if p is not None)
                results["forecast"] = frontiers.forecast(
                    read.prompt, read.reward, betas, policies=outcomes, **self.settings
                )
            if prompts:
                results["prompts"] = frontiers.prompts(read.prompt, read.reward, **self.settings)
            advance("done")
        return results, list(dict.fromkeys(notes))


def _checkpoints(read: Rollouts, unchecked: bool) -> list[PolicySamples]:
    """The policy's samples, by checkpoint if they are told apart, in the order of their numbers."""
    import numpy as np

    from klsim.frontier import PolicySamples

    groups = np.zeros(len(read.reward), np.int64) if read.groups is None else read.groups
    names = read.names if read.groups is not None else ("",)
    try:
        order = sorted(range(len(names)), key=lambda k: float(names[k] or 0))
    except ValueError:
        order = list(range(len(names)))
    out = []
    for k in order:
        rows = np.flatnonzero(groups == k)
        columns = {name: values[rows] for name, values in read.logps.items()}
        length = None if read.lengths is None else read.lengths[rows]

        def row_name(row: int, rows: Any = rows) -> str:
            return read.row_name(int(rows[row]))

        out.append(
            PolicySamples(
                read.prompt[rows],
                read.reward[rows],
                **columns,
                length=length,
                label=names[k],
                row_name=row_name,
                unchecked=unchecked,
            )
        )
    return out


def _distributed(
    asked: _Asked, files: list[str], budgets: Sequence[float] | None, scheduler: str
) -> tuple[dict[str, Result], list[str]]:
    """The frontier of files that a Dask cluster reads."""
    from klsim.frontier import estimate
    from klsim.frontier.distributed import read_distributed
    from klsim.report import terminal

    with terminal.progress("frontier", 1) as advance:
        read = read_distributed(
            files,
            scheduler=scheduler,
            prompt=asked.prompt,
            reward=asked.reward,
            where=asked.where,
            on_file=advance.describe,
        )
        found = estimate(read.prompt, read.reward, budgets=budgets, **asked.settings)
        advance("done")
    return {"frontier": found}, [*read.notes, *found.notes]


def _write(
    results: dict[str, Result],
    notes: list[str],
    source: str,
    seed: int,
    csv: Path | None,
    figure: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    from klsim.files import write_atomically
    from klsim.frontier import Frontier
    from klsim.frontier import as_json as values_of
    from klsim.report import frontier as report

    if as_json:
        typer.echo(json.dumps(_json(results, notes, values_of), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        report.show(results, notes)
    found = results.get("frontier")
    if (csv or figure) and not isinstance(found, Frontier):
        raise ValueError("--csv and --figure draw the frontier; --report also draws comparisons")
    if csv is not None and isinstance(found, Frontier):
        write_atomically(csv, report.points_of(found).to_csv())
        typer.echo(f"written: {csv}", err=as_json)
    if figure is not None and isinstance(found, Frontier):
        report.figure_of(found, [figure])
        typer.echo(f"written: {figure}", err=as_json)
    if page is not None:
        made = report.write_page(results, notes, source, seed, page)
        typer.echo(f"report: {made.resolve()}", err=as_json)


def _json(results: dict[str, Result], notes: list[str], values_of: Callable[[Any], Any]) -> dict[str, Any]:
    """The frontier's fields at the top, the other answers by their names."""
    out: dict[str, Any] = {}
    for name, result in results.items():
        values = values_of(result) | {k: v for k in ("verdict",) if (v := getattr(result, k, None))}
        out |= values if name == "frontier" else {name: values}
    return out | {"notes": notes}


def _coverage(replicates: int, seed: int, jobs: int | None) -> None:
    from klsim.frontier import coverage as study
    from klsim.report import terminal

    page = Path("docs") / "frontier-coverage.md"
    total = study.parts_of(replicates)
    with terminal.progress("coverage", total) as advance:
        workers = jobs if jobs is not None else -1
        cells = study.coverage(
            replicates=replicates, seed=seed, jobs=workers, stages=Path(".klsim") / "coverage", on_done=advance
        )
    study.write_coverage(page, cells, replicates, seed)
    for name, (value, number) in study.total_coverage(cells).items():
        typer.echo(f"{name}: {value:.1%} of {number:,} intervals cover")
    typer.echo(f"written: {page}")
