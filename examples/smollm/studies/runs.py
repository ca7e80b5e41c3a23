"""Stages of a study on the disk, and the training and sampling that they are made of.

A stage is a JSON file that appears when the stage is finished, and is read when it is asked for again; a training keeps
checkpoints and goes on from the last one. A folder belongs to one study in one form: another is refused. All random
numbers follow from the seeds of the form, so that a study that was killed ends with the numbers of one that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, SFTConfig

from klsim.files import write_atomically
from klsim.lm import models
from klsim.lm.evaluate import sample
from klsim.lm.tasks import Row, Task, reward_of
from klsim.lm.trainer import ObjectiveTrainer, SupervisedTrainer, quiet
from studies.sums import FewShot

TINY = "tiny"
"""In the place of a model's name: a transformer of a few thousand weights that is made on the spot, for tests."""


@dataclass(frozen=True)
class Training:
    """How a policy is trained.

    Attributes:
        steps: of the optimiser. prompts, group: prompts of a step, completions of each. learning_rate: constant.
        save_steps: steps between checkpoints; 0: none, a killed training begins again.
    """

    steps: int
    prompts: int = 8
    group: int = 4
    learning_rate: float = 1e-5
    save_steps: int = 0


class Stages:
    """The stages of one study in a folder.

    Raises:
        ValueError: the folder holds stages of another study or form.
    """

    def __init__(self, folder: Path, study: str, form: Any, say: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.say = folder, say
        about = json.loads(json.dumps({"study": study, "form": asdict(form)}))
        file = folder / "about.json"
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found != about:
                raise ValueError(f"{folder}: holds another study or form; give another --runs, or delete it")
        else:
            write_atomically(file, json.dumps(about, indent=1) + "\n")

    def stage(self, key: str, compute: Callable[[], Any]) -> Any:
        """What ``compute`` returns (numbers, text, lists and dictionaries), from the disk if it is there."""
        file = self.folder / f"{key}.json"
        if not file.is_file():
            self.say(key)
            wall, cpu = time.perf_counter(), time.process_time()
            value = compute()
            spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
            write_atomically(file, json.dumps({"value": value, **spent}) + "\n")
        return json.loads(file.read_text(encoding="utf-8"))["value"]

    def spent(self) -> tuple[float, float]:
        """Wall and processor seconds of all finished stages (of a resumed training: since its last start)."""
        found = [json.loads(f.read_text(encoding="utf-8")) for f in self.folder.glob("*.json") if f.stem != "about"]
        return sum(x["seconds"] for x in found), sum(x["cpu_seconds"] for x in found)

    def model(self, key: str) -> Path:
        """Where the weights of a trained stage are."""
        return self.folder / "weights" / key

    def forget(self, *keys: str) -> None:
        """Remove weights that no later stage needs."""
        for key in keys:
            shutil.rmtree(self.model(key), ignore_errors=True)


@dataclass(frozen=True)
class Lab:
    """A study's stages, its base model and tokenizer, and its tasks by domain."""

    stages: Stages
    base: Path
    tokenizer: Any
    tasks: Mapping[str, Task]
    device: str

    def load(self, key: str = "base") -> Any:
        """The base, or the model of a trained stage, on the study's device."""
        place = self.base if key == "base" else self.stages.model(key)
        return models.load_model(place).to(self.device)

    def trained(
        self,
        key: str,
        objective: Any,
        rows: Sequence[Row],
        training: Training,
        *,
        seed: int,
        start: str = "base",
        ref: str | None = None,
        teachers: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> list[dict[str, float]]:
        """Train a policy on rows with the column ``domain``; what was logged at each step.

        ``ref`` and ``teachers`` name stages; ``keep``: its weights are needed later.
        """

        def compute() -> list[dict[str, float]]:
            work = self.stages.folder / "training" / key
            given = options(training, work, seed, self.device) | {
                "per_device_train_batch_size": training.prompts * training.group,
                "num_generations": training.group,
                "max_completion_length": max(task.max_completion_tokens for task in self.tasks.values()),
                "remove_unused_columns": False,
                "shuffle_dataset": False,
            }
            loaded = {name: self.load(name) for name in dict.fromkeys((teachers or {}).values())}
            with quiet():
                trainer = ObjectiveTrainer(
                    model=self.load(start),
                    objective=objective,
                    args=GRPOConfig(**given),
                    ref_model=None if ref is None else self.load(ref),
                    teachers={domain: loaded[name] for domain, name in (teachers or {}).items()},
                    reward_funcs=[reward_of(self.tasks)],
                    train_dataset=Dataset.from_list(passes(rows, training.steps * training.prompts, seed)),
                    processing_class=self.tokenizer,
                )
            return self._fitted(key, trainer, work, keep)

        return list(self.stages.stage(key, compute))

    def supervised(
        self, key: str, rows: Sequence[Row], training: Training, *, seed: int, start: str = "base"
    ) -> list[dict[str, float]]:
        """Train on the columns ``prompt`` and ``completion``."""

        def compute() -> list[dict[str, float]]:
            work = self.stages.folder / "training" / key
            given = options(training, work, seed, self.device) | {
                "per_device_train_batch_size": training.prompts * training.group,
                "packing": False,
            }
            pairs = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
            with quiet():
                trainer = SupervisedTrainer(
                    model=self.load(start),
                    args=SFTConfig(**given),
                    train_dataset=Dataset.from_list(pairs),
                    processing_class=self.tokenizer,
                )
            return self._fitted(key, trainer, work, keep=True)

        return list(self.stages.stage(key, compute))

    def _fitted(self, key: str, trainer: Any, work: Path, keep: bool) -> list[dict[str, float]]:
        last = get_last_checkpoint(str(work)) if work.is_dir() else None
        if last and int(last.rsplit("-", 1)[1]) >= trainer.args.max_steps:
            # stopped between its last step and its end; the Trainer would take one more step
            history = json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
            model = models.load_model(last)
        else:
            with quiet():
                trainer.train(resume_from_checkpoint=last)
            history = trainer.state.log_history
            model = trainer.accelerator.unwrap_model(trainer.model)
        log = [x for x in history if "loss" in x]
        if keep:
            models.save_checkpoint(model, self.tokenizer, self.stages.model(key))
        shutil.rmtree(work, ignore_errors=True)
        names = ("step", "loss", "reward", "kl_to_ref", "kl_to_teacher", "entropy", "objective", "grad_norm")
        return [{name: float(x[name]) for name in names if name in x} for x in log]

    def drawn(
        self, key: str, rows: Sequence[Row], samples: int, *, seed: int, of: str = "base", ref: str | None = "base"
    ) -> dict[str, np.ndarray]:
        """Completions of every row: arrays ``(rows, samples)`` of rewards and of log-probabilities under the policy
        and, unless it is None, the reference; and the texts."""

        def compute() -> dict[str, Any]:
            reference = None if ref in (None, of) else self.load(ref or "")
            # shortest first: little padding
            order = np.argsort(
                [len(ids) for ids in self.tokenizer([r["prompt"] for r in rows])["input_ids"]], kind="stable"
            )
            found = sample(
                self.load(of), self.tokenizer, [dict(rows[i]) for i in order], reward_of(self.tasks), samples=samples,
                max_new_tokens=max(task.max_completion_tokens for task in self.tasks.values()), seed=seed,
                batch_size=64 if self.device == "cpu" else 1024, ref=reference,
            )  # fmt: skip
            back = np.argsort(order)
            out = {}
            for name in ("reward", "policy_logp", "ref_logp", "completion"):
                source = "policy_logp" if name == "ref_logp" and reference is None else name
                out[name] = np.array([x[source] for x in found]).reshape(len(rows), samples)[back].tolist()
            return out

        return {name: np.array(values) for name, values in self.stages.stage(key, compute).items()}


def passes(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """At least ``count`` rows: as many passes over all of them as that takes, each in an order of its own.

    One epoch holds the whole training, whatever the number of rows.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(rows)) for _ in range(-(-count // len(rows)))]
    return [rows[i] for order in orders for i in order]


def options(training: Training, work: Path, seed: int, device: str) -> dict[str, Any]:
    """What both of TRL's trainers are given."""
    gpu = device != "cpu"
    saves = (
        {"save_strategy": "steps", "save_steps": training.save_steps}
        if training.save_steps
        else {"save_strategy": "no"}
    )
    return {
        "output_dir": str(work), "max_steps": training.steps, "learning_rate": training.learning_rate, "seed": seed,
        "lr_scheduler_type": "constant", "logging_steps": 1, "report_to": [], "disable_tqdm": True, "use_cpu": not gpu,
        "bf16": gpu, "gradient_checkpointing": False, "dataloader_pin_memory": gpu, "save_total_limit": 1, **saves,
    }  # fmt: skip


def lab(folder: Path, study: str, form: Any, tasks: Mapping[str, FewShot], say: Callable[[str], None]) -> Lab:
    """The stages of a study in ``folder``, the base model of its form, and its tasks.

    Raises:
        ValueError: the folder is another study's. OSError, ModuleNotFoundError: the model is not there.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    stages = Stages(folder, study, form, say)
    if form.model == TINY:
        tasks = {name: replace(task, low=1, high=4, second=(1, 3)) for name, task in tasks.items()}
    base = stages.folder / "weights" / TINY
    if form.model != TINY:
        base = Path(models.checkpoint_of(form.model))
    elif not base.is_dir():
        _tiny(base, tasks)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Lab(stages, base, models.load_tokenizer(base), tasks, device)


def _tiny(folder: Path, tasks: Mapping[str, Task]) -> None:
    """A small transformer that has read some solved problems: right now and then."""
    tokenizer = models.character_tokenizer(next(iter(tasks.values())).alphabet)
    model = models.tiny_model(tokenizer, architecture="llama", hidden=16, layers=1, heads=2, seed=0)
    rows = [row for task in tasks.values() for row in task.examples(48, 0)]
    texts = tokenizer([row["prompt"] + row["solution"] for row in rows], padding=True, return_tensors="pt")
    labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(50):
        optimiser.zero_grad()
        model(**texts, labels=labels).loss.backward()
        optimiser.step()
    models.save_checkpoint(model, tokenizer, folder)


def split(tasks: Mapping[str, Task], train: int, test: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows of all tasks in turn with the column ``domain``: those of training and new ones."""
    parts = {name: task.split(train, test, seed) for name, task in tasks.items()}
    out = []
    for part in (0, 1):
        columns = [[row | {"domain": name} for row in rows[part]] for name, rows in parts.items()]
        out.append([row for group in zip(*columns) for row in group])
    return out[0], out[1]
