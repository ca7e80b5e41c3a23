"""Your own prompts and reward as a domain: ``kind = "data"``, or ``[data]`` for a single one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from klsim import _validate
from klsim.lm import rewards
from klsim.lm.chat import as_completion, is_chat
from klsim.lm.data import read_prompts
from klsim.lm.tasks.task import Domain, Row, Split

__all__ = ["Data", "DataOptions"]

PRINTABLE = "\n" + "".join(map(chr, range(0x20, 0x7F)))


@dataclass(frozen=True)
class DataOptions:
    """Where prompts come from (`klsim.lm.data.read_prompts`) and what grades completions (`klsim.lm.rewards.parse`).

    Attributes:
        path: of a file, a folder or a pattern, or a data set of the Hub. prompt: the column with the prompts.
        reward: a function, a verifier, a table of one with options, or a list; it is given every column. Without any,
            which does for distillation, all completions have 0.
        completion: the column with right completions as text, which supervised stages imitate.
        split: what to train on, of a data set with several. name: of a configuration of a data set of the Hub.
        test: the share of the prompts that is held out for evaluation, or the split or file to evaluate on.
        chat: make messages of prompts that are text, behind a ``system`` message if there is one.
        limit: only the first rows. max_completion: tokens that a completion may have.

    Raises:
        ValueError: out of range. TypeError: of the wrong type.
    """

    path: str
    prompt: str = "prompt"
    reward: str | dict[str, Any] | list[str | dict[str, Any]] | None = None
    completion: str | None = None
    split: str | None = None
    name: str | None = None
    test: float | str = 0.1
    chat: bool = False
    system: str | None = None
    limit: int | None = None
    max_completion: int = 256

    def __post_init__(self) -> None:
        for name in ("path", "prompt", "completion", "split", "name", "system"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and (value is not None or name in ("path", "prompt")):
                raise ValueError(f"{name} = {value!r}: must be text")
        if not isinstance(self.test, str):
            _validate.real("test", self.test, low=0.0, high=1.0, open_low=True, open_high=True)
        _validate.flag("chat", self.chat)
        if self.limit is not None:
            _validate.integer("limit", self.limit, low=1, high=10**9)
        _validate.integer("max_completion", self.max_completion, low=1, high=10**6)


@dataclass(frozen=True)
class Data(Domain):
    """Your own prompts: all but the share or split to test on is trained on.

    Prompts that are to be tested on are never trained on: rows of them are left out. A prompt is tested on once; it may
    occur in several rows to train on.

    Raises:
        ValueError, OSError: what reading the rows and the reward raises (when they are first needed).
    """

    options: DataOptions

    def __post_init__(self) -> None:
        self.grader  # noqa: B018 - a reward that is none is found before anything is read

    @cached_property
    def grader(self) -> rewards.WeightedReward | None:
        """The weighted sum of the rewards; None without any."""
        return None if self.options.reward in (None, []) else rewards.parse(self.options.reward)

    @cached_property
    def rows(self) -> list[Row]:
        """All of `DataOptions.path`, in the order of the file."""
        o = self.options
        return self._read(o.path, split=o.split, name=o.name, limit=o.limit)

    def _read(self, path: str, **which: Any) -> list[Row]:
        o = self.options
        columns = [*(() if self.grader is None else self.grader.columns), *filter(None, [o.completion])]
        return read_prompts(path, prompt=o.prompt, chat=o.chat, system=o.system, columns=columns, **which)

    @property
    def graded(self) -> bool:  # type: ignore[override]
        return self.grader is not None

    @property
    def name(self) -> str:
        kind = "chat prompts" if is_chat(self.rows[0]["prompt"]) else "prompts"
        names = "no reward" if self.grader is None else " + ".join(
            part.name if part.weight == 1 else f"{part.weight:g} {part.name}" for part in self.grader.parts
        )  # fmt: skip
        return f"{len(self.rows)} {kind} of {self.options.path}, {names}"

    @property
    def alphabet(self) -> str:
        """Printable ASCII and what else the rows hold."""
        seen = set(PRINTABLE)
        for row in self.rows:
            seen.update(*_texts(row["prompt"]), str(row.get(self.options.completion or "", "")))
        return "".join(sorted(seen))

    @property
    def max_completion_tokens(self) -> int:
        return self.options.max_completion

    def split(self, train: int, test: int, seed: int = 0) -> Split:
        """All rows, without those to test on: at most ``test`` prompts, drawn with ``seed``; ``train`` is not used.

        Raises:
            ValueError: fewer than two prompts to test on, or none to train on.
        """
        o, rows = self.options, self.rows
        rng = np.random.default_rng(_validate.integer("seed", seed, low=0))
        if isinstance(o.test, str):
            held = self._read(o.test) if Path(o.test).exists() else self._read(o.path, split=o.test, name=o.name)
            if is_chat(held[0]["prompt"]) != is_chat(rows[0]["prompt"]):
                raise ValueError(
                    f"test = {o.test!r}: its prompts are text and the others messages, or the other way round"
                )
            first = {_key(row): row for row in reversed(held)}
            count, some = min(test, len(first)), f"test = {o.test!r}: has"
        else:
            first = {_key(row): row for row in reversed(rows)}
            count, some = min(test, int(o.test * len(first) + 0.5)), f"test = {o.test}: leaves"
        if count < 2:
            raise ValueError(f"{some} {count} prompts to test on, of {len(first)}; an interval needs two")
        keys = sorted(first)
        chosen = {keys[i] for i in rng.permutation(len(keys))[:count]}
        held_out = chosen if not isinstance(o.test, str) else set(first)
        kept = [row for row in rows if _key(row) not in held_out]
        if not kept:
            raise ValueError(f"{o.path}: nothing is left to train on; all {len(rows)} rows have prompts of the test")
        return Split(train=kept, test=[first[key] for key in keys if key in chosen])

    def reward(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """The weighted sum of the rewards; 0 without any.

        Raises:
            RewardError: see `klsim.lm.rewards.WeightedReward`; also the file and the first row with that prompt.
        """
        if self.grader is None:
            return [0.0] * len(completions)
        try:
            return self.grader(prompts, completions, **columns)
        except rewards.RewardError as error:
            place = None if error.index is None else self._place(prompts[error.index])
            raise error if place is None else rewards.RewardError(f"{place}: {error}", error.index) from error

    def _place(self, prompt: Any) -> str | None:
        """File and row of a prompt that is trained on."""
        found = next((i for i, row in enumerate(self.rows) if _key(row) == _key({"prompt": prompt})), None)
        return None if found is None else f"{self.options.path}, row {found + 1}"

    def demonstration(self, row: Row) -> Any:
        """The completion of a row, in the form of its prompt.

        Raises:
            ValueError: no column of completions was named, or this one is no text.
        """
        if self.options.completion is None:
            raise ValueError("no demonstrations: name the column of right completions (completion = …)")
        text = row[self.options.completion]
        if not isinstance(text, str) or not text:
            raise ValueError(
                f"column {self.options.completion!r}: must be text, got {text!r} for {row['prompt']!r:.80}"
            )
        return as_completion(row["prompt"], text)


def _key(row: Row) -> str:
    return json.dumps(row["prompt"], sort_keys=True)


def _texts(prompt: Any) -> list[str]:
    return [message["content"] for message in prompt] if is_chat(prompt) else [prompt]
