"""The configuration of ``klsim train``: a TOML file, read into frozen models that know and check their keys.

.. code-block:: toml

    output = "runs/exopd"            # where everything goes; a run that was killed resumes there
    seed = 0

    [model]                          # what the first stages start from: path = "…" (a folder, a .gguf file,
    architecture = "qwen2"           # smollm2-135m or a hub name), or a new small model with a character tokenizer
    hidden = 64
    layers = 2
    heads = 4

    [tasks.add]                      # a domain: kind and knobs as in klsim.lm.tasks.KINDS
    kind = "modular"
    operations = "+"

    [data]                           # short for [tasks.data] with kind = "data": your own prompts and reward
    path = "prompts.jsonl"
    reward = "rewards.py:exact"

    [[stage]]
    name = "base"
    method = "sft"                   # solutions of the tasks, or "objective", or "average"
    steps = 300

    [[stage]]
    name = "student"
    method = "objective"
    start = "base"                   # a stage, or what path may be
    objective = { name = "g_opd", lam = 1.25 }
    teachers = { add = "some/folder" }   # one a task, or one for all: teachers = "some/folder"
    steps = 200
    trainer = { lr_scheduler_type = "constant" }   # options of trl.GRPOConfig
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from klsim.lm.objectives import losses, named, near, needs
from klsim.lm.pretrained import PACKAGED, source_fault
from klsim.lm.tasks import KINDS

__all__ = ["Average", "Config", "Evaluation", "Lora", "Model", "ObjectiveStage", "Sft", "Stage", "read"]


def _task_schema() -> dict[str, Any]:
    """Of a domain: each kind with its knobs."""
    kinds = []
    for kind, (knobs, _) in KINDS.items():
        schema = TypeAdapter(knobs).json_schema()
        schema["properties"] = {"kind": {"const": kind}} | schema["properties"]
        schema["required"] = ["kind", *schema.get("required", [])]
        kinds.append(schema | {"additionalProperties": False, "title": kind})
    return {"oneOf": kinds}


def _objective_schema() -> dict[str, Any]:
    return {"type": "object", "properties": {"name": {"enum": sorted(losses())}}, "required": ["name"]}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(_Strict):
    """Low-rank adapters: ``W + (alpha / r) B A`` for every weight of ``target``, of which only ``A, B`` are trained.

    ``target``: names of modules, or ``"all-linear"`` (all but the head).
    """

    r: int = Field(default=8, ge=1, le=2**12)
    alpha: float = Field(default=16.0, gt=0, le=1e6)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target: str | tuple[str, ...] = "all-linear"


class Model(_Strict):
    """A checkpoint (``path``: whatever `klsim.lm.pretrained.pretrained` takes), or the size of a new model; and how
    models are held and trained.

    ``dtype``: of the weights of all models (by default as a checkpoint has them). ``lora``: every stage trains
    adapters; at its end they are merged into its ``model/``, and kept beside it in ``adapter/``.
    ``gradient_checkpointing``: compute activations again in the backward pass instead of keeping them; by default on a
    GPU.
    """

    path: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    lora: Lora | None = None
    gradient_checkpointing: bool | None = None
    architecture: Literal["qwen2", "llama"] = "qwen2"
    hidden: int = Field(default=64, ge=1, le=2**16)
    layers: int = Field(default=2, ge=1, le=2**10)
    heads: int = Field(default=4, ge=1, le=2**10)

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Model:
        others = self.model_fields_set & {"architecture", "hidden", "layers", "heads"}
        if self.path is not None and others:
            raise ValueError(f"{sorted(others)[0]} and path exclude each other: a checkpoint has its size")
        return self


class Evaluation(_Strict):
    """How every stage is evaluated at its end: ``prompts`` test prompts a domain, ``samples`` completions each.

    ``ref``: the stage (or checkpoint) to which KL is measured, from the stage after it on; none by default.
    """

    prompts: int = Field(default=100, ge=2, le=10**7)
    samples: int = Field(default=8, ge=1, le=10**6)
    temperature: float = Field(default=1.0, gt=0, le=1e6)
    batch: int = Field(default=256, ge=1, le=10**6)
    ref: str | None = None


class _Stage(_Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class _Trained(_Stage):
    """``start``: a stage, or what `Model` takes. ``problems``: only the first so many training problems of a task.

    ``by_length``: prompts of a step have similar lengths, so that less is padding. ``save_steps``: a multiple of
    ``log_steps``, so that what is logged are means over the same steps when a run is resumed.
    """

    start: str | None = None
    tasks: tuple[str, ...] | None = None
    problems: int | None = Field(default=None, ge=1, le=10**7)
    steps: int = Field(ge=1, le=10**8)
    learning_rate: float = Field(default=1e-3, gt=0, le=1e3)
    save_steps: int = Field(default=100, ge=1, le=10**8)
    log_steps: int = Field(default=10, ge=1, le=10**8)
    by_length: bool = False
    trainer: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole_windows(self) -> _Trained:
        if self.save_steps % self.log_steps and self.save_steps < self.steps:
            rule = f"must be a multiple of log_steps = {self.log_steps}, so that a resumed run logs the same means"
            raise ValueError(f"save_steps = {self.save_steps}: {rule}")
        return self


class Sft(_Trained):
    """Supervised steps, ``batch`` demonstrations each and process: the tasks' solutions, or ``teachers``' completions.

    ``teachers``: one, or one a task; each completes every prompt ``samples`` times at ``temperature``.
    """

    method: Literal["sft"]
    batch: int = Field(default=32, ge=1, le=10**6)
    teachers: str | dict[str, str] = Field(default_factory=dict)
    samples: int = Field(default=1, ge=1, le=10**6)
    temperature: float = Field(default=1.0, gt=0, le=1e6)


class ObjectiveStage(_Trained):
    """Steps of an objective on sampled completions: ``prompts`` prompts a step and process, ``group`` completions each.

    ``ref``: the reference, by default what the stage starts from. ``teachers``: one, or one a task.
    """

    method: Literal["objective"]
    objective: Annotated[dict[str, Any], WithJsonSchema(_objective_schema())]
    prompts: int = Field(default=8, ge=1, le=10**7)
    group: int = Field(default=8, ge=2, le=10**6)
    temperature: float = Field(default=1.0, gt=0, le=1e6)
    max_completion: int | None = Field(default=None, ge=1, le=10**6)
    ref: str | None = None
    teachers: str | dict[str, str] = Field(default_factory=dict)

    @field_validator("objective")
    @classmethod
    def _known(cls, objective: dict[str, Any]) -> dict[str, Any]:
        if "name" not in objective:
            raise ValueError("name is missing")
        try:
            needs(named(**objective))
        except TypeError as error:
            raise ValueError(str(error)) from None
        return objective


class Average(_Stage):
    """The mean of the weights of several models with the same architecture (a soup)."""

    method: Literal["average"]
    of: tuple[str, ...] = Field(min_length=2)


Stage = Annotated[Sft | ObjectiveStage | Average, Field(discriminator="method")]
"""A stage of a configuration, told apart by its ``method``."""


_SHORT: dict[str, dict[str, Any]] = {"data": {"kind": "data"}, "task": {}}


class Config(_Strict):
    """A run: tasks, and stages one after the other. ``train_prompts``: of every task that is generated.

    ``report_to``: where metrics go beside ``metrics.jsonl`` and TensorBoard, every stage a run of its name in
    ``project`` (by default the name of ``output``).
    """

    output: Path
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    model: Model = Model()
    tasks: dict[str, Annotated[dict[str, Any], WithJsonSchema(_task_schema())]] = Field(min_length=1)
    train_prompts: int = Field(default=2000, ge=1, le=10**7)
    evaluation: Evaluation = Evaluation()
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    project: str | None = Field(default=None, min_length=1)
    stage: tuple[Stage, ...]

    @model_validator(mode="before")
    @classmethod
    def _long_forms(cls, given: Any) -> Any:
        """``[data]`` and ``[task]`` as ``[tasks.data]`` and ``[tasks.task]``."""
        if not isinstance(given, dict) or not given.keys() & _SHORT.keys():
            return given
        tasks = dict(given.get("tasks") or {})
        for short, defaults in _SHORT.items():
            if short not in given:
                continue
            if not isinstance(given[short], dict):
                raise ValueError(f"{short} = {given[short]!r}: must be a table")
            if short in tasks:
                raise ValueError(f"{short}: is short for tasks.{short}, which is there, too")
            tasks[short] = defaults | given[short]
        return {key: value for key, value in given.items() if key not in _SHORT} | {"tasks": tasks}

    @model_validator(mode="after")
    def _names_fit(self) -> Config:
        seen: list[str] = []
        if self.model.path is not None and (fault := source_fault(self.model.path)):
            raise ValueError(f"model: path = {self.model.path!r}: {fault}")
        if not self.stage:
            raise ValueError("stage: needs at least one")
        for stage in self.stage:
            where = f"stage {stage.name!r}"
            if stage.name in seen:
                raise ValueError(f"{where}: there are two")
            if stage.name in PACKAGED:
                raise ValueError(f"{where}: is the name of a pretrained model; take another")
            later = {s.name for s in self.stage} - set(seen)
            for key, name in _references(stage):
                if name in later:
                    raise ValueError(f"{where}: {key} = {name!r} is no earlier stage")
                _known_place(f"{where}: {key}", name, seen)
            if not isinstance(stage, Average):
                self._tasks_fit(where, stage)
            seen.append(stage.name)
        if self.evaluation.ref is not None:
            _known_place("evaluation: ref", self.evaluation.ref, seen)
        return self

    def _tasks_fit(self, where: str, stage: Sft | ObjectiveStage) -> None:
        for task in stage.tasks or ():
            if task not in self.tasks:
                raise ValueError(f"{where}: no task {task!r}{near(task, self.tasks)}")
        names = stage.tasks or tuple(self.tasks)
        if isinstance(stage.teachers, dict) and stage.teachers:
            if missing := sorted(set(names) - set(stage.teachers)):
                raise ValueError(f"{where}: teachers has none for task {missing[0]!r}")
            if extra := sorted(set(stage.teachers) - set(names)):
                raise ValueError(f"{where}: teachers: {extra[0]!r} is none of its tasks{near(extra[0], names)}")
        if isinstance(stage, ObjectiveStage) and not stage.teachers:
            asked = needs(named(**stage.objective))
            if any(name.startswith("teacher_") for name in asked):
                raise ValueError(f"{where}: its objective needs a teacher; give teachers")


def _known_place(where: str, name: str, stages: list[str]) -> None:
    """A stage, a folder, a .gguf file, a pretrained model by name, or a hub name with its owner."""
    if name in stages or Path(name).is_dir():
        return
    if "/" not in name and name not in PACKAGED and not name.lower().endswith(".gguf"):
        rule = "is neither a stage nor a folder (a hub name is owner/name)"
        raise ValueError(f"{where} = {name!r} {rule}{near(name, [*stages, *PACKAGED])}")
    if fault := source_fault(name):
        raise ValueError(f"{where} = {name!r}: {fault}")


def _references(stage: Sft | ObjectiveStage | Average) -> list[tuple[str, str]]:
    """``(key, stage or checkpoint)`` of everything that a stage reads."""
    if isinstance(stage, Average):
        return [("of", name) for name in stage.of]
    found = [("start", stage.start)] if stage.start else []
    if stage.teachers:
        teachers = {"": stage.teachers} if isinstance(stage.teachers, str) else stage.teachers
        found += [("teachers", name) for name in teachers.values()]
    if isinstance(stage, ObjectiveStage) and stage.ref:
        found.append(("ref", stage.ref))
    return found


def read(path: Path | str, **changes: Any) -> Config:
    """The configuration in a TOML file; ``changes`` replace top-level keys (``output``, ``seed``).

    Raises:
        ValueError: not TOML, or a key or value that does not fit: which, and why. OSError: no such file.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    return parse(data | {k: v for k, v in changes.items() if v is not None}, str(path))


def parse(data: dict[str, Any], source: str = "configuration") -> Config:
    """A configuration from a dict with the keys of the TOML file.

    Raises:
        ValueError: a key or value that does not fit: which, and why.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(_problem(e, data) for e in error.errors())) from None


def _problem(error: Any, data: dict[str, Any]) -> str:
    """``stage[1].steps = 'a': should be …`` of one of pydantic's errors."""
    where = ""
    node: Any = data
    place = error["loc"]
    if place[:1] == ("stage",):
        place = place[:2] + place[3:]  # the third is pydantic's name of the kind of stage
    for part in place:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = {}
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key{near(str(error['loc'][-1]), _keys(error['loc'], data))}"
    if error["type"] == "missing":
        return f"{where}: is missing"
    shown = f" = {error['input']!r}" if isinstance(error["input"], str | int | float | bool) else ""
    return f"{where}{shown}: {message}" if where else message


def _keys(place: tuple[Any, ...], data: dict[str, Any]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    kind: Any = Config
    if place[0] == "stage" and len(place) > 2:
        method = data["stage"][place[1]].get("method")
        kind = {"sft": Sft, "objective": ObjectiveStage, "average": Average}.get(method, _Stage)
    elif place[0] in ("model", "evaluation"):
        kind = Lora if "lora" in place[1:-1] else {"model": Model, "evaluation": Evaluation}[place[0]]
    return list(kind.model_fields)
