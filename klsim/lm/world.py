"""What all stages of ``klsim train`` share: the domains with their rows and rewards, and the tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from transformers import PreTrainedTokenizerBase

from klsim.lm import models, tasks
from klsim.lm.chat import is_chat, rendered
from klsim.lm.config import Config

__all__ = ["Row", "World", "world"]

Row = dict[str, Any]
"""A prompt with the columns that its reward reads."""


@dataclass(frozen=True)
class World:
    """The tokenizer and, for every task, prompts to train on and to test on."""

    tokenizer: PreTrainedTokenizerBase
    tasks: Mapping[str, tasks.Domain]
    train: Mapping[str, Sequence[Row]]
    test: Mapping[str, Sequence[Row]]

    def fingerprints(self) -> dict[str, str]:
        """A hash of the rows of every task that is not generated here."""
        return {
            name: hashlib.sha256(json.dumps([self.train[name], self.test[name]], default=str).encode()).hexdigest()
            for name, task in self.tasks.items()
            if not isinstance(task, tasks.Task)
        }

    def rows(self, names: Sequence[str] | None = None, first: int | None = None) -> list[Row]:
        """Training rows of tasks (all of them if None) in turn: ``prompt``, ``domain``, and ``row``, their place in it.

        The other columns stay here, where `reward` finds them as they were read: the tasks' columns differ, and a data
        set would give all rows one type.

        Raises:
            ValueError: some prompts are text and some are messages.
        """
        found = names or tuple(self.tasks)
        columns = [
            [{"prompt": row["prompt"], "domain": name, "row": i} for i, row in enumerate(self.train[name][:first])]
            for name in found
        ]
        rows = [row for row in chain.from_iterable(zip_longest(*columns)) if row is not None]
        if len({is_chat(row["prompt"]) for row in rows}) > 1:
            raise ValueError(
                f"tasks {', '.join(found)}: some have text as prompts and some messages; train on one kind"
            )
        return rows

    def row(self, row: Row) -> Row:
        """All columns of one of `rows`."""
        return self.train[row["domain"]][row["row"]]

    def reward(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, domain: Sequence[str], row: Sequence[int],
        **others: Any,
    ) -> list[float]:  # fmt: skip
        """The reward of completions of `rows`, by the task of each; in TRL's convention."""
        out = [0.0] * len(completions)
        logged = {name: others[name] for name in ("log_metric", "log_extra", "trainer_state") if name in others}
        for name in dict.fromkeys(domain):
            mine = [i for i, other in enumerate(domain) if other == name]
            full = [self.train[name][row[i]] for i in mine]
            task = self.tasks[name]
            wanted = [c for c in full[0] if c != "prompt" and (task.columns is None or c in task.columns)]
            columns = {c: [one[c] for one in full] for c in wanted}
            extra = (logged | {"completion_ids": [others["completion_ids"][i] for i in mine]}) if logged else {}
            values = task.reward([prompts[i] for i in mine], [completions[i] for i in mine], **columns, **extra)
            for i, value in zip(mine, values, strict=True):
                out[i] = value
        return out


def world(config: Config) -> World:
    """The tasks of a configuration and a tokenizer for them.

    Raises:
        ValueError: an unknown task or knob; a task with too few problems; prompts that the tokenizer cannot write.
    """
    made = {name: tasks.make(name, options) for name, options in config.tasks.items()}
    split = {}
    for name, task in made.items():
        try:
            split[name] = task.split(config.train_prompts, config.evaluation.prompts, config.seed)
        except ValueError as error:
            raise error if isinstance(task, tasks.Task) else ValueError(f"tasks.{name}: {error}") from None
    if config.model.path is None:
        try:
            tokenizer = models.character_tokenizer(tasks.joint_alphabet(*made.values()))
        except ValueError as error:
            raise ValueError(f"tasks: a new model writes ASCII ({error}); give model.path") from None
    else:
        tokenizer = models.load_tokenizer(models.checkpoint_of(config.model.path))
        alphabets = [task.alphabet for task in made.values() if isinstance(task, tasks.Task)]
        models.check_characters(tokenizer, alphabets, "alphabets of the tasks")
    for name, parts in split.items():
        _check_prompts(name, tokenizer, [row["prompt"] for row in (*parts.train, *parts.test)])
    return World(tokenizer, made, {n: s.train for n, s in split.items()}, {n: s.test for n, s in split.items()})


def _check_prompts(name: str, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any]) -> None:
    """Every prompt can be rendered, and none has characters that a character tokenizer would drop."""
    try:
        models.check_characters(tokenizer, rendered(tokenizer, prompts))
    except ValueError as error:
        raise ValueError(f"tasks.{name}: {error}") from None
