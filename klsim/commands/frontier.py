"""``klsim frontier``: its options, and what they run. Heavy imports happen when the command does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from klsim.frontier import Frontier, PolicySamples, Result, Rollouts

__all__ = ["frontier", "write_coverage"]


def _column(text: str) -> Any:
    return typer.Option(metavar="COLUMN", help=text)


def _rows(text: str) -> Any:
    return typer.Option(metavar="COLUMN=VALUE", help=text)


def _file(text: str, *names: str, metavar: str = "FILE") -> Any:
    return typer.Option(*names, metavar=metavar, help=text)


def _option(text: str, *names: str, **limits: Any) -> Any:
    return typer.Option(*names, help=text, **limits)


Files = Annotated[
    list[str] | None,
    typer.Argument(
        help="Samples of the reference: files (.jsonl .json .csv .tsv .parquet .arrow .eval), folders, patterns, - or "
        "hf://…"
    ),
]
Prompt = Annotated[str | None, _column("The prompt's; nested: doc.question.")]
Reward = Annotated[list[str] | None, _column("The reward's; several add up, '0.5*format' weighs one.")]
Where = Annotated[list[str] | None, _rows("Only these rows, of all files; repeat it for several values or columns.")]
MinSamples = Annotated[int, _option("Leave out prompts with fewer samples.", min=2)]
Gold = Annotated[str | None, _column("Is it hacking? The reward that is meant, of the same samples.")]
Against = Annotated[list[str] | None, _file("Did RL help beyond sampling? Samples of a second model; rewards suffice.")]
Beta = Annotated[list[float] | None, _option("Will RL get there? Reward and KL where it ends with this beta.")]
Prompts = Annotated[bool, _option("Which prompts? Difficulty, groups without a gradient.", "--prompts")]
Policy = Annotated[list[str] | None, _file("Samples of a trained policy, with log-probabilities.")]
By = Annotated[str | None, _column("Of --policy: its checkpoints (step, model, file), a path.")]
PolicyWhere = Annotated[list[str] | None, _rows("Instead of --where, of --policy and --against.")]
PolicyLogp = Annotated[str, _column("log pi(response); token lists are summed.")]
RefLogp = Annotated[str, _column("log ref(response) of the policy's.")]
LogRatio = Annotated[str | None, _column("Instead: log pi - log ref.")]
Kl = Annotated[str | None, _column("Instead: the KL of each response, nats.")]
Unchecked = Annotated[bool, _option("Use log-probabilities that fail the checks.", "--unchecked")]
Budget = Annotated[list[float] | None, _option("KL budgets, nats; a default list if none.")]
Level = Annotated[float, _option("Of the confidence intervals.")]
Resamples = Annotated[int, _option("Bootstrap resamples.", min=100)]
Seed = Annotated[int, _option("All randomness follows from it.", min=0)]
Csv = Annotated[Path | None, _file("Write the figure's points.", "--csv")]
FigureFile = Annotated[Path | None, _file("Write the figure: .svg, .png or .pdf.")]
Page = Annotated[Path | None, _file("Also write FOLDER/frontier.html.", "--report", metavar="FOLDER")]
AsJson = Annotated[bool, _option("Print JSON instead of tables.", "--json")]
Example = Annotated[Path | None, _file("Write example rollouts there, and nothing else.", metavar="FOLDER")]
Scheduler = Annotated[
    str | None, _option("Address of a Dask scheduler, tcp://host:port: read and sum up there, the frontier alone.")
]


def frontier(
    rollouts: Files = None,
    prompt: Prompt = None,
    reward: Reward = None,
    where: Where = None,
    min_samples: MinSamples = 2,
    gold: Gold = None,
    against: Against = None,
    beta: Beta = None,
    prompts: Prompts = False,
    policy: Policy = None,
    by: By = None,
    policy_where: PolicyWhere = None,
    policy_logp: PolicyLogp = "policy_logp",
    ref_logp: RefLogp = "ref_logp",
    log_ratio: LogRatio = None,
    kl: Kl = None,
    unchecked: Unchecked = False,
    budget: Budget = None,
    level: Level = 0.95,
    resamples: Resamples = 2000,
    seed: Seed = 0,
    table: Csv = None,
    figure: FigureFile = None,
    page: Page = None,
    as_json: AsJson = False,
    example: Example = None,
    scheduler: Scheduler = None,
) -> None:
    """What alignment could at best achieve from a base model: the KL-reward frontier of your own rollouts."""
    if bool(rollouts) == (example is not None):
        raise ValueError("give ROLLOUTS, or --example")
    if example is not None:
        _example(example, seed)
        return
    settings = {"level": level, "resamples": resamples, "seed": seed, "min_samples": min_samples}
    asked = _Asked(
        tuple(rollouts or ()), prompt, tuple(reward or ()), tuple(where or ()), tuple(policy_where or where or ()),
        settings, budget, gold, beta, prompts, tuple(against or ()), tuple(policy or ()), by,
        _log_probs(policy_logp, ref_logp, log_ratio, kl), unchecked,
    )  # fmt: skip
    asked.check(bool(policy_where), scheduler)
    results, notes = asked.answer(scheduler)
    _show(results, notes, as_json=as_json)
    if table or figure or page:
        _write(results, notes, asked.source, seed, table, figure, page, as_json)


def _log_probs(policy_logp: str, ref_logp: str, log_ratio: str | None, kl: str | None) -> dict[str, str]:
    """Which columns give the KL, by the names of `klsim.frontier.PolicySamples`."""
    if log_ratio and kl:
        raise ValueError("give --log-ratio or --kl, not both")
    if log_ratio:
        return {"log_ratio": log_ratio}
    return {"kl": kl} if kl else {"policy_logp": policy_logp, "ref_logp": ref_logp}


Answer = tuple[dict[str, "Result"], list[str]]
"""Results by their names, and notes."""


@dataclass(frozen=True)
class _Asked:
    """What is read from which files, and what it is asked."""

    files: tuple[str, ...]
    prompt: str | None
    reward: tuple[str, ...]
    where: tuple[str, ...]
    policy_where: tuple[str, ...]
    settings: Mapping[str, Any]
    budgets: Sequence[float] | None
    gold: str | None
    betas: Sequence[float] | None
    prompts: bool
    against: tuple[str, ...]
    policy: tuple[str, ...]
    by: str | None
    logps: Mapping[str, str]
    unchecked: bool
    known: dict[int, int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The files, for a title."""
        return ", ".join(self.files) + (f" against {', '.join(self.against)}" if self.against else "")

    def check(self, policy_where: bool, scheduler: str | None) -> None:
        """Refuse options that do not go together."""
        for name, value, needed in (
            ("--by", self.by, self.policy),
            ("--policy-where", policy_where, self.policy or self.against),
        ):
            if value and not needed:
                raise ValueError(f"{name} is about --policy; give that, too")
        if scheduler is not None and (self.policy or self.against or self.gold or self.betas or self.prompts):
            raise ValueError("--scheduler reads the reference's samples for the frontier alone")

    def answer(self, scheduler: str | None) -> Answer:
        """All that is asked."""
        from klsim.report import terminal

        with terminal.progress("frontier", 2) as advance:
            if scheduler is not None:
                found = self._distributed(scheduler, advance.describe)
            else:
                found = (self._compare if self.against else self._frontier)(
                    lambda n: advance.describe(f"{n:,} rows read"), advance
                )
            advance("done")
        return found

    def read(self, files: Sequence[str], where: Sequence[str], on_rows: Callable[[int], None], **more: Any) -> Rollouts:
        """Columns of files, prompts numbered alike in all."""
        from klsim.frontier import read_rollouts

        columns: dict[str, Any] = {"prompt": self.prompt, "reward": self.reward, "known": self.known}
        return read_rollouts(files, where=where, on_rows=on_rows, **columns, **more)

    def _compare(self, on_rows: Callable[[int], None], advance: Callable[[str], None]) -> Answer:
        """Two models by their rewards."""
        from klsim.frontier import against

        first, second = self.read(self.files, self.where, on_rows), self.read(self.against, self.policy_where, on_rows)
        advance("comparing")
        settings: dict[str, Any] = {**self.settings, "min_samples": max(1, self.settings["min_samples"] - 1)}
        found = against(first.prompt, first.reward, second.prompt, second.reward, **settings)
        return {"against": found}, [*first.notes, *(f"of the second model, {n}" for n in second.notes), *found.notes]

    def _frontier(self, on_rows: Callable[[int], None], advance: Callable[[str], None]) -> Answer:
        """The frontier, and what else is asked of the reference's samples."""
        from klsim import frontier as frontiers

        more: dict[str, Any] = {"logps": {"gold": self.gold}} if self.gold else {}
        read = self.read(self.files, self.where, on_rows, **more)
        notes = list(read.notes)
        trained: list[PolicySamples] = []
        if self.policy:
            other = self.read(self.policy, self.policy_where, on_rows, logps=self.logps, by=self.by)
            notes += [f"of the policy, {note}" for note in other.notes]
            trained = _checkpoints(other, self.unchecked)
        advance("estimating")
        given: dict[str, Any] = {"path": trained} if self.by else {"policy": trained[0] if trained else None}
        found = frontiers.estimate(read.prompt, read.reward, budgets=self.budgets, **given, **self.settings)
        results = {"frontier": found, **self._further(read, found)}
        return results, list(dict.fromkeys([*notes, *found.notes]))

    def _further(self, read: Rollouts, found: Frontier) -> dict[str, Result]:
        """Gold rewards, forecast, prompts: what is asked of them."""
        from klsim import frontier as frontiers

        samples = read.prompt, read.reward
        out: dict[str, Result] = {}
        if self.gold:
            out["gold"] = frontiers.gold(*samples, read.logps["gold"], **self.settings)
        if self.betas:
            policies = found.path or tuple(p for p in (found.policy,) if p is not None)
            out["forecast"] = frontiers.forecast(*samples, self.betas, policies=policies, **self.settings)
        if self.prompts:
            out["prompts"] = frontiers.prompts(*samples, **self.settings)
        return out

    def _distributed(self, scheduler: str, on_file: Callable[[str], None]) -> Answer:
        """The frontier of files that a Dask cluster reads and sums up."""
        from klsim.frontier import estimate
        from klsim.frontier.distributed import read_distributed
        from klsim.frontier.partition import parts_of, spread_over

        columns: dict[str, Any] = {"prompt": self.prompt, "reward": self.reward, "where": self.where}
        read = read_distributed(self.files, scheduler=scheduler, on_file=on_file, **columns)
        spread = spread_over(parts_of(len(read.reward)), scheduler=scheduler)
        found = estimate(read.prompt, read.reward, budgets=self.budgets, spread=spread, **self.settings)
        return {"frontier": found}, [*read.notes, *found.notes]


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


def _show(results: Mapping[str, Result], notes: Sequence[str], *, as_json: bool) -> None:
    from klsim.frontier import as_json as values_of
    from klsim.report.frontier import show

    if as_json:
        typer.echo(json.dumps(_json(results, notes, values_of), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show(results, notes)


def _write(
    results: Mapping[str, Result],
    notes: Sequence[str],
    source: str,
    seed: int,
    csv: Path | None,
    figure: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    from klsim.files import write_atomically
    from klsim.frontier import Frontier
    from klsim.report import frontier_page as report

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


def _example(folder: Path, seed: int) -> None:
    from klsim.frontier.coverage import write_example

    for file in write_example(folder, seed=seed):
        typer.echo(f"written: {file}")


def _json(results: Mapping[str, Result], notes: Sequence[str], values_of: Callable[[Any], Any]) -> dict[str, Any]:
    """The frontier's fields at the top, the other answers by their names."""
    out: dict[str, Any] = {}
    for name, result in results.items():
        values = values_of(result) | {k: v for k in ("verdict",) if (v := getattr(result, k, None))}
        out |= values if name == "frontier" else {name: values}
    return out | {"notes": notes}


def write_coverage(replicates: int, seed: int, jobs: int) -> None:
    """Simulate whether the intervals cover, and write the page."""
    from klsim.frontier import coverage as study
    from klsim.report import terminal

    page = Path("docs") / "frontier-coverage.md"
    total = study.parts_of(replicates)
    with terminal.progress("coverage", total) as advance:
        cells = study.coverage(
            replicates=replicates, seed=seed, jobs=jobs, stages=Path(".klsim") / "coverage", on_done=advance
        )
    study.write_coverage(page, cells, replicates, seed)
    for name, (value, number) in study.total_coverage(cells).items():
        typer.echo(f"{name}: {value:.1%} of {number:,} intervals cover")
    typer.echo(f"written: {page}")
