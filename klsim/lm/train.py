"""``klsim train``: the stages of a configuration, one after the other, each resumed where it was stopped.

``<output>/<stage>/`` holds ``model/`` (written last: a stage with it is done), ``metrics.jsonl`` (what TRL logs),
``tensorboard/``, ``checkpoint-N/`` (complete ones only), ``evaluation.json`` and ``stage.json`` (its configuration).
Several processes (``accelerate launch -m klsim train …``, also with DeepSpeed's ZeRO 1 and 2) run the same code; the
first one writes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, SFTConfig

from klsim.files import remove_left_over, write_atomically
from klsim.lm import models, processes
from klsim.lm.adapters import merged, resumed, with_adapter
from klsim.lm.chat import as_completion
from klsim.lm.config import Average, Config, ObjectiveStage, Sft
from klsim.lm.evaluate import Evaluation, evaluate, sample
from klsim.lm.logs import callbacks, check_reporters
from klsim.lm.objectives import named, near, needs
from klsim.lm.trainer import ObjectiveTrainer, SupervisedTrainer, quiet
from klsim.lm.world import Row, World, world

__all__ = ["StageResult", "World", "is_first_process", "run", "world"]

OnStep = Callable[[str, int, str], None]


@dataclass(frozen=True)
class StageResult:
    """A finished stage: its folder and, for every task, its evaluation."""

    name: str
    folder: Path
    evaluations: Mapping[str, Mapping[str, Any]]


def is_first_process() -> bool:
    """Whether this process is the one that writes."""
    return bool(PartialState().is_main_process)


def run(config: Config, on_step: OnStep = lambda stage, step, text: None) -> list[StageResult]:
    """Run all stages that are not done yet.

    Args:
        on_step: called by the first process after every step with the stage's name, the number of finished steps and
            what was logged last, in words; with all its steps if the stage was done before.

    Raises:
        ValueError: the output folder holds a stage of another configuration; a model, a vocabulary, a gradient or a
            reward that is not what it must be. OSError: a checkpoint that is missing or cannot be read.
    """
    state = processes.start()
    check_reporters(config.report_to)
    shared = world(config)
    _same_rows(state, shared)
    results = []
    for stage in config.stage:
        folder = config.output / stage.name
        about = _about(config, stage, shared)
        if state.is_main_process:
            _claim(folder, about)
        state.wait_for_everyone()
        if not (folder / "model").is_dir():
            with quiet():
                model = _train(config, stage, folder, shared, on_step)
            state.wait_for_everyone()
            if state.is_main_process:
                on_step(stage.name, getattr(stage, "steps", 0), "evaluating")
                _evaluate(config, stage, model, folder, shared)
                models.save_checkpoint(model, shared.tokenizer, folder / "model")
                for checkpoint in folder.glob("checkpoint-*"):
                    shutil.rmtree(checkpoint)
            state.wait_for_everyone()
        evaluations = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        results.append(StageResult(stage.name, folder, evaluations))
        if state.is_main_process:
            on_step(stage.name, getattr(stage, "steps", 0), "done")
    return results


def _about(config: Config, stage: Sft | ObjectiveStage | Average, shared: World) -> dict[str, Any]:
    """All that a stage's result depends on, but for the code of reward functions: a mistake there may be mended."""
    whole = config.model_dump(mode="json", exclude={"output", "stage", "report_to", "project"})
    data = shared.fingerprints()
    return whole | ({"data": data} if data else {}) | {"stage": stage.model_dump(mode="json")}


_OTHER_ROWS = "files changed, or a generator follows Python's hash seed: set PYTHONHASHSEED=0"


def _same_rows(state: PartialState, shared: World) -> None:
    """All processes have the same data; generators of others may follow what differs between processes."""
    if state.num_processes == 1:
        return
    seen = gather_object([shared.fingerprints()])
    for name, value in seen[0].items():
        if any(other[name] != value for other in seen):
            raise ValueError(f"tasks.{name}: the processes have different rows ({_OTHER_ROWS})")


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Make the folder of a stage, or check that it is one of this configuration."""
    file = folder / "stage.json"
    remove_left_over(file)
    others = {path.name for path in folder.iterdir()} - {file.name} if folder.is_dir() else set()
    if file.is_file() and others:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found != about:
            keys = [k for k in about if found.get(k) != about[k]]
            hint = f"; {_OTHER_ROWS}" if keys == ["data"] else ""
            raise ValueError(
                f"{folder}: made with another configuration ({', '.join(keys)}); take another output{hint}"
            )
        return
    if others:
        raise ValueError(f"{folder}: holds files that are no stage of klsim train; take another output")
    write_atomically(file, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _start(config: Config, name: str | None, shared: World) -> PreTrainedModel:
    """The model of a stage, of a checkpoint, or the configuration's own."""
    m = config.model
    if name is None and m.path is None:
        made = models.tiny_model(
            shared.tokenizer, architecture=m.architecture, hidden=m.hidden, layers=m.layers, heads=m.heads,
            seed=config.seed,
        )  # fmt: skip
        return made if m.dtype is None else made.to(getattr(torch, m.dtype))
    place = name or m.path
    assert place is not None
    if any(stage.name == place for stage in config.stage):
        return models.load_model(config.output / place / "model", dtype=m.dtype or "auto")
    found = models.checkpoint_of(place)
    models.check_same_vocabulary(shared.tokenizer, models.load_tokenizer(found))
    return models.load_model(found, dtype=m.dtype or "auto")


def _trainee(config: Config, name: str | None, shared: World) -> Any:
    """The model that a stage trains, with adapters if the configuration has them."""
    model = _start(config, name, shared)
    return model if config.model.lora is None else with_adapter(model, config.model.lora, config.seed)


def _train(
    config: Config, stage: Sft | ObjectiveStage | Average, folder: Path, shared: World, on_step: OnStep
) -> PreTrainedModel:
    if isinstance(stage, Average):
        return _average([_start(config, name, shared) for name in stage.of], stage.of)
    last = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
    done = int(last.rsplit("-", 1)[1]) if last else 0
    if last and done >= stage.steps:  # stopped between its last step and its end; the Trainer would take one more step
        if config.model.lora is None:
            return models.load_model(last, dtype=config.model.dtype or "auto")
        return merged(resumed(_start(config, stage.start, shared), last), folder / "adapter")
    if last:
        processes.check_checkpoint(last)
    rows = shared.rows(stage.tasks, stage.problems)
    make = _supervised if isinstance(stage, Sft) else _objective
    trainer = make(config, stage, folder, rows, shared)  # type: ignore[arg-type]
    for callback in callbacks(
        folder, done, lambda step, text: on_step(stage.name, step, text),
        report_to=config.report_to, project=config.project or config.output.absolute().name, run=stage.name,
    ):  # fmt: skip
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=last)
    model = trainer.accelerator.unwrap_model(trainer.model)
    return merged(model, folder / "adapter" if PartialState().is_main_process else None)


def _average(found: list[PreTrainedModel], names: Sequence[str]) -> PreTrainedModel:
    """The mean of the weights."""
    first = found[0]
    states = [model.state_dict() for model in found]
    for name, state in zip(names[1:], states[1:]):
        for key, value in states[0].items():
            if key not in state or state[key].shape != value.shape:
                raise ValueError(f"of: {names[0]!r} and {name!r} differ in {key}; only equal architectures average")
    mean = {key: torch.stack([s[key].float() for s in states]).mean(0).to(v.dtype) for key, v in states[0].items()}
    first.load_state_dict(mean)
    return first


def _common(config: Config, stage: Sft | ObjectiveStage, folder: Path) -> dict[str, Any]:
    """Options of both of TRL's trainers; the stage's own ``trainer`` table wins."""
    gpu, checkpointing = torch.cuda.is_available(), config.model.gradient_checkpointing
    return {
        "output_dir": str(folder),
        "max_steps": stage.steps,
        "learning_rate": stage.learning_rate,
        "seed": config.seed,
        "save_steps": stage.save_steps,
        "save_total_limit": 2,
        "logging_steps": stage.log_steps,
        "report_to": [],
        "disable_tqdm": True,
        **processes.placement(),
        "bf16": gpu,
        "gradient_checkpointing": gpu if checkpointing is None else checkpointing,
        "dataloader_pin_memory": gpu,
    }


_LAUNCHED = "is of the whole run: say it to accelerate launch"
_OF_THE_STAGE = {
    "output_dir": "is the stage's folder",
    "max_steps": "set the stage's steps",
    "num_train_epochs": "set the stage's steps",
    "learning_rate": "set the stage's learning_rate",
    "seed": "set the run's seed",
    "save_strategy": "set the stage's save_steps",
    "save_steps": "set the stage's save_steps",
    "logging_steps": "set the stage's log_steps",
    "num_generations": "set the stage's group",
    "max_completion_length": "set the stage's max_completion",
    "temperature": "set the stage's temperature",
    "report_to": "set the run's report_to",
    "project": "set the run's project",
    "run_name": "a stage's run has its name",
    "resume_from_checkpoint": "a stage resumes by itself",
    "load_best_model_at_end": "a stage ends with its last weights",
    "fsdp": _LAUNCHED,
    "fsdp_config": _LAUNCHED,
    "deepspeed": _LAUNCHED,
}


def _options(cls: Any, stage: Sft | ObjectiveStage, given: dict[str, Any]) -> Any:
    """A trainer's configuration; what it refuses is an error that names the stage."""
    known = cls.__dataclass_fields__
    for key in stage.trainer:
        if key not in known:
            raise ValueError(f"stage {stage.name!r}: trainer has no option {key!r} of {cls.__name__}{near(key, known)}")
        if key in _OF_THE_STAGE:
            raise ValueError(f"stage {stage.name!r}: trainer.{key}: {_OF_THE_STAGE[key]}")
    try:
        return cls(**given | stage.trainer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"stage {stage.name!r}: {cls.__name__}: {error}") from None


def _supervised(config: Config, stage: Sft, folder: Path, rows: list[Row], shared: World) -> SupervisedTrainer:
    given = _common(config, stage, folder) | {"per_device_train_batch_size": stage.batch, "packing": False}
    if stage.by_length:
        given["train_sampling_strategy"] = "group_by_length"
    teachers = _teachers(config, stage, shared)
    shown = _completions(config, stage, rows, teachers, shared) if teachers else _demonstrations(stage, rows, shared)
    return SupervisedTrainer(
        model=_trainee(config, stage.start, shared),
        args=_options(SFTConfig, stage, given),
        train_dataset=Dataset.from_list(shown),
        processing_class=shared.tokenizer,
    )


def _demonstrations(stage: Sft, rows: list[Row], shared: World) -> list[Row]:
    try:
        return [
            {"prompt": r["prompt"], "completion": shared.tasks[r["domain"]].demonstration(shared.row(r))} for r in rows
        ]
    except ValueError as error:
        raise ValueError(f"stage {stage.name!r}: {error}") from None


def _teachers(config: Config, stage: Sft | ObjectiveStage, shared: World) -> dict[str, PreTrainedModel]:
    """The teacher of every domain; one that several share is loaded once."""
    names = stage.tasks or tuple(shared.tasks)
    places = stage.teachers if isinstance(stage.teachers, dict) else dict.fromkeys(names, stage.teachers)
    loaded = {place: _start(config, place, shared) for place in dict.fromkeys(places.values())}
    return {domain: loaded[place] for domain, place in places.items()}


def _completions(
    config: Config, stage: Sft, rows: list[Row], teachers: Mapping[str, PreTrainedModel], shared: World
) -> list[Row]:
    """Prompts with completions that the teachers of their domains sampled; what they did not finish is left out."""
    out: list[Row] = []
    for domain, teacher in teachers.items():
        mine = [shared.row(row) for row in rows if row["domain"] == domain]
        drawn = sample(
            teacher, shared.tokenizer, mine, shared.tasks[domain].reward, samples=stage.samples,
            max_new_tokens=shared.tasks[domain].max_completion_tokens, temperature=stage.temperature,
            seed=config.seed, batch_size=config.evaluation.batch,
        )  # fmt: skip
        asked = [row["prompt"] for row in mine for _ in range(stage.samples)]
        done = [(prompt, r["completion"]) for prompt, r in zip(asked, drawn, strict=True) if r["finished"]]
        out += [{"prompt": prompt, "completion": as_completion(prompt, text)} for prompt, text in done]
    if not out:
        raise ValueError(f"stage {stage.name!r}: its teachers finished none of their completions")
    return out


def _objective(config: Config, stage: ObjectiveStage, folder: Path, rows: list[Row], shared: World) -> ObjectiveTrainer:
    loss = named(**stage.objective)
    asked = needs(loss)
    names = stage.tasks or tuple(shared.tasks)
    if "rewards" in asked and (without := [name for name in names if not shared.tasks[name].graded]):
        raise ValueError(
            f"stage {stage.name!r}: its objective needs rewards; task {without[0]!r} has none (reward = …)"
        )
    longest = max(shared.tasks[name].max_completion_tokens for name in names)
    given = _common(config, stage, folder) | {
        "per_device_train_batch_size": stage.prompts * stage.group,
        "num_generations": stage.group,
        "max_completion_length": stage.max_completion or longest,
        "temperature": stage.temperature,
        "remove_unused_columns": False,
    }
    ref = None
    own = config.model.lora is not None and stage.ref in (None, stage.start)  # the trained model without its adapters
    if any(name.startswith("ref_") for name in asked) and not own:
        ref = _start(config, stage.ref or stage.start, shared)
    return ObjectiveTrainer(
        model=_trainee(config, stage.start, shared),
        objective=loss,
        args=_options(GRPOConfig, stage, given),
        ref_model=ref,
        teachers=_teachers(config, stage, shared),
        by_length=stage.by_length,
        reward_funcs=[shared.reward],
        train_dataset=Dataset.from_list(rows),
        processing_class=shared.tokenizer,
    )


def _evaluate(
    config: Config, stage: Sft | ObjectiveStage | Average, model: PreTrainedModel, folder: Path, shared: World
) -> None:
    e = config.evaluation
    done = e.ref is not None and (config.output / e.ref / "model").is_dir()
    later = any(other.name == e.ref for other in config.stage) and not done
    ref = None if e.ref is None or later else _start(config, e.ref, shared)
    teachers = {} if isinstance(stage, Average) else _teachers(config, stage, shared)
    found: dict[str, Evaluation] = {}
    for name, task in shared.tasks.items():
        found[name] = evaluate(
            model, shared.tokenizer, shared.test[name], task.reward, samples=e.samples,
            max_new_tokens=task.max_completion_tokens, temperature=e.temperature, seed=config.seed, batch_size=e.batch,
            ref=ref, teachers={"teacher": teachers[name]} if name in teachers else {},
        )  # fmt: skip
    text = json.dumps({name: asdict(value) for name, value in found.items()}, indent=1)
    write_atomically(folder / "evaluation.json", text + "\n")
