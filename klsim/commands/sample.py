"""``klsim sample``: completions of a model, with log-probabilities, in the file that ``klsim frontier`` reads."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import parse_qsl

import typer

if TYPE_CHECKING:
    from klsim.lm.sampling import Written
    from klsim.lm.tasks import Domain

__all__ = ["sample"]

Row = dict[str, Any]
OF_A_TASK = 40
INTERRUPTED = 130


def _option(text: str, metavar: str | None = None, *names: str, **limits: Any) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, **limits)


Model = Annotated[str, typer.Argument(help="A folder, a .gguf file, smollm2-135m, or owner/name of the Hub.")]
Config = Annotated[Path | None, _option("A file of klsim train: its prompts, its reward, its lengths.", "TOML")]
Part = Annotated[str, _option("Of --config's prompts: train or test.")]
Prompts = Annotated[str | None, _option("One a row: .jsonl .csv .parquet …; a data set's folder or name.", "FILE")]
PromptColumn = Annotated[str, _option("Text, or a list of messages for the chat template.", "COLUMN")]
Split = Annotated[str | None, _option("Of a data set with several; train, if it is not said.")]
Name = Annotated[str | None, _option("Of a configuration of a data set of the Hub.")]
Chat = Annotated[bool, _option("Texts are what the user says, in the chat template.", None, "--chat")]
System = Annotated[str | None, _option("The system's message before them; implies --chat.", "TEXT")]
OfTask = Annotated[
    str | None, _option("A verifier and, without --prompts, its problems; or one of --config's.", "KIND?KNOB=VALUE")
]
Reward = Annotated[str | None, _option("As TRL's; or a verifier: exact, last_number, boxed, …", "FILE.py:FUNCTION")]
Samples = Annotated[int, _option("Completions of each prompt.", min=1)]
MaxTokens = Annotated[int | None, _option("Of a completion, at most; a task knows its longest.", min=1)]
Temperature = Annotated[float, _option("Divides the logits.")]
Seed = Annotated[int, _option("All randomness follows from it.", min=0)]
Batch = Annotated[int, _option("Sequences at a time; the samples depend on it.", min=1)]
Limit = Annotated[int | None, _option(f"Only the first so many prompts; of a task's own {OF_A_TASK}.", min=1)]
Others = Annotated[list[str] | None, _option("Also log-probabilities of another model: ref=…", "NAME=MODEL")]
Dtype = Annotated[str, _option("Of the weights: auto (the checkpoint's), float32, bfloat16, float16.")]
Output = Annotated[Path, _option("Rollouts: .jsonl or .parquet.", "FILE")]


class _Asked(NamedTuple):
    """What is completed and graded: rows with the columns that the reward reads."""

    rows: Sequence[Row]
    reward: Callable[..., Sequence[float]] | None
    max_tokens: int


def sample(
    model: Model,
    config: Config = None,
    part: Part = "train",
    prompts: Prompts = None,
    prompt_column: PromptColumn = "prompt",
    split: Split = None,
    name: Name = None,
    chat: Chat = False,
    system: System = None,
    task: OfTask = None,
    reward: Reward = None,
    samples: Samples = 16,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    batch: Batch = 64,
    limit: Limit = None,
    log_probs_under: Others = None,
    dtype: Dtype = "auto",
    output: Output = Path("rollouts.jsonl"),
) -> None:
    """Draw completions of a model into a file for klsim frontier; a killed run resumes with the same command."""
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(f"sampling needs {', '.join(missing)}: pip install 'klsim[lm]'")
    own = {"prompt": prompt_column, "split": split, "name": name, "chat": chat, "system": system, "reward": reward}
    if config is not None:
        asked = _of_training(config, task, part, {"prompts": prompts} | own, limit)
    elif part != "train":
        raise ValueError("--part: is of the prompts of --config")
    else:
        asked = _of_options(prompts, own, task, limit, seed, max_tokens)
    settings = {
        "samples": samples, "temperature": temperature, "seed": seed, "batch_size": batch,
        "max_new_tokens": max_tokens or asked.max_tokens,
    }  # fmt: skip
    written = _write(output, model, asked, _named(log_probs_under or []), dtype, settings)
    shown = "no rewards" if written.reward is None else f"mean reward {written.reward:.4g}"
    typer.echo(
        f"{written.prompts} prompts, {written.rows} completions, {shown}, {written.tokens:.4g} tokens each, "
        f"{written.finished:.1%} finished"
    )
    typer.echo(f"written: {written.file}")
    typer.echo(f"kept: {written.about} (what it was made with)")


def _write(
    output: Path,
    model: str,
    asked: _Asked,
    others: Mapping[str, str],
    dtype: str,
    settings: Mapping[str, Any],
) -> Written:
    """Load the models and draw, with a progress bar; Ctrl-C and SIGTERM say what is kept."""
    from klsim.report import terminal

    done = [0, 0]
    try:
        with terminal.progress("sample", 0) as advance:
            from klsim.lm.pretrained import pretrained_together
            from klsim.lm.sampling import write_rollouts

            advance.describe(f"loading {', '.join(dict.fromkeys([model, *others.values()]))}")
            loaded = pretrained_together([model, *others.values()], dtype=dtype)

            def on_batch(finished: int, batches: int) -> None:
                done[:] = finished, batches
                advance.to(finished, batches, str(output))

            return write_rollouts(
                output, *loaded[model], asked.rows, asked.reward, on_batch=on_batch,
                log_probs_under={name: loaded[place].model for name, place in others.items()}, **settings,
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = f"{done[0]} of {done[1]} batches are kept; the same command goes on" if done[1] else "nothing was drawn"
        typer.echo(f"interrupted: {kept}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _of_training(config: Path, task: str | None, part: str, own: Mapping[str, Any], limit: int | None) -> _Asked:
    """The prompts that klsim train trains on, or holds out, and what grades them there."""
    if given := next((key for key, value in own.items() if value not in (None, False, "prompt")), None):
        raise ValueError(f"--{'prompt-column' if given == 'prompt' else given} and --config: give one of them")
    if part not in ("train", "test"):
        raise ValueError(f"--part {part!r}: must be train or test")
    from klsim.lm import config as configs
    from klsim.lm.world import world

    shared = world(configs.read(config))
    if task not in shared.tasks and (task is not None or len(shared.tasks) > 1):
        raise ValueError(f"--task {task or ''!r}: {config} has {', '.join(shared.tasks)}; name one")
    name = task or next(iter(shared.tasks))
    domain = shared.tasks[name]
    rows = (shared.train if part == "train" else shared.test)[name]
    return _Asked(rows[:limit], domain.grader, domain.max_completion_tokens)


def _of_options(
    prompts: str | None, own: Mapping[str, Any], task: str | None, limit: int | None, seed: int, max_tokens: int | None
) -> _Asked:
    """Prompts of a file as `klsim train` reads its [data], or those of a task."""
    from klsim.lm.chat import as_prompt, is_chat
    from klsim.lm.tasks import Data, DataOptions

    verifier = None if task is None else _task(task)
    if own["reward"] is not None and verifier is not None:
        raise ValueError("--reward and --task: give one of them")
    if max_tokens is None and verifier is None:
        raise ValueError("--max-tokens: is needed (only a task knows how long its answers are)")
    if prompts is not None:
        data = Data(DataOptions(prompts, limit=limit, **own))
        if verifier is None:
            return _Asked(data.rows, data.grader, data.max_completion_tokens)
        return _Asked(data.rows, verifier.grader, verifier.max_completion_tokens)
    if verifier is None:
        raise ValueError("--prompts: is needed, or a --config, or a --task with problems of its own")
    for key in ("split", "name"):
        if own[key] is not None:
            raise ValueError(f"--{key}: is of --prompts")
    rows = verifier.split(0, limit or OF_A_TASK, seed).test
    if own["chat"] or own["system"] is not None:
        rows = [r if is_chat(r["prompt"]) else r | {"prompt": as_prompt(r["prompt"], own["system"])} for r in rows]
    return _Asked(rows, verifier.grader, verifier.max_completion_tokens)


def _task(text: str) -> Domain:
    """``modular?terms=2&operations=+``: a family of `klsim.lm.tasks` and its knobs."""
    from klsim.lm import tasks

    kind, _, query = text.partition("?")
    knobs: dict[str, Any] = {}
    for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        try:
            knobs[name] = json.loads(value)
        except ValueError:
            knobs[name] = value
    return tasks.make(kind, {"kind": kind, **knobs})


def _named(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=MODEL`` texts by name."""
    out: dict[str, str] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or not name or not place or name in out:
            raise ValueError(f"--log-probs-under {text!r}: write NAME=MODEL, each name once")
        out[name] = place
    return out
