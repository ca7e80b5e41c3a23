"""``klsim train``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


def _print_schema(asked: bool) -> None:
    """What `--schema` does, before an argument is asked for."""
    if not asked:
        return
    _installed()
    from klsim.lm.schema import schema

    typer.echo(json.dumps(schema(), indent=1))
    raise typer.Exit


def _installed() -> None:
    if missing := [name for name in ("torch", "trl", "pydantic") if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(f"training needs {', '.join(missing)}: pip install 'klsim[lm]'")


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see klsim.lm.config.")],
    output: Annotated[Path | None, typer.Option(help="Instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's.", min=0)] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the configuration and its tasks.")] = False,
    schema: Annotated[
        bool,
        typer.Option("--schema", is_eager=True, callback=_print_schema, help="Print the JSON schema of such files."),
    ] = False,
) -> None:
    """Train causal language models with klsim's objectives: the stages of a file; a killed run resumes."""
    _installed()
    from klsim.lm import config as configs
    from klsim.lm import train as training
    from klsim.report import terminal
    from klsim.report import training as summary

    read = configs.read(config, output=output, seed=seed)
    if check:
        made = training.world(read)
        for name, task in made.tasks.items():
            typer.echo(f"{name}: {task.name}, {len(made.train[name])} to train on, {len(made.test[name])} to test on")
        typer.echo(f"{config}: {len(read.stage)} stage{'s' if len(read.stage) > 1 else ''}, fine")
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
