"""What every task is: a law of problems, a strict verifier, and the sizes that a language model needs.

A task is a frozen dataclass whose fields are its knobs. A *row* is a dictionary: ``prompt``, ``solution`` (one whole
correct completion, for supervised training) and the columns that the verifier reads. ``task.reward`` follows TRL's
convention for reward functions: ``reward(prompts, completions, **columns)``, columns as lists, one float a completion.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple

import numpy as np

from klsim import _validate
from klsim.lm.chat import as_completion, completion_text

__all__ = ["Domain", "Row", "Split", "Task", "completion_text", "demonstrations", "joint_alphabet", "reward_of"]

Row = dict[str, Any]
"""A row of a data set, by column."""


class Split(NamedTuple):
    """Rows of a task in two parts; no prompt occurs twice, neither within a part nor across."""

    train: list[Row]
    test: list[Row]


class Domain(ABC):
    """What models are trained and evaluated on: rows, and a reward for completions of their prompts.

    Attributes:
        columns: what the reward reads of a row beside the completion; None if it is given all.
        graded: whether there is a reward; without one all completions have 0.
    """

    columns: ClassVar[tuple[str, ...] | None] = None
    graded: bool = True

    @property
    @abstractmethod
    def name(self) -> str:
        """The family and its knobs in a few words, unique among tasks."""

    @property
    @abstractmethod
    def alphabet(self) -> str:
        """Characters that a character tokenizer needs for prompts and correct completions."""

    @property
    @abstractmethod
    def max_completion_tokens(self) -> int:
        """How long completions may become."""

    @abstractmethod
    def split(self, train: int, test: int, seed: int = 0) -> Split:
        """``train`` rows to train on and ``test`` to test on; no prompt is in both."""

    @abstractmethod
    def reward(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """One reward a completion, in TRL's convention."""

    @property
    def grader(self) -> Callable[..., list[float]] | None:
        """The reward function; None where there is none."""
        return self.reward if self.graded else None

    def demonstration(self, row: Row) -> Any:
        """A correct completion of a row, in the form of its prompt.

        Raises:
            ValueError: there is none.
        """
        return as_completion(row["prompt"], row["solution"])


class Task(Domain):
    """A verifiable task.

    Attributes:
        columns: what the verifier reads of a row beside the completion.
    """

    columns: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def alphabet(self) -> str:
        """Every character that prompts and correct completions may use, the same for all knobs of a family."""

    @property
    @abstractmethod
    def max_prompt_tokens(self) -> int:
        """Length of the longest prompt in characters."""

    @property
    @abstractmethod
    def max_completion_tokens(self) -> int:
        """Length of the longest ``solution`` in characters, plus one for the end-of-sequence token."""

    @property
    @abstractmethod
    def most_problems(self) -> int:
        """An upper bound on the number of distinct prompts."""

    @abstractmethod
    def difficulty(self) -> float:
        """A number that grows with the difficulty, comparable within the family."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Row:
        """One row from the law of the task."""

    @abstractmethod
    def score(self, completion: str, columns: Mapping[str, Any]) -> float:
        """The reward of one completion of the row with these `columns`."""

    @property
    def knobs(self) -> dict[str, Any]:
        """The fields of the dataclass."""
        return asdict(self)  # type: ignore[call-overload]

    def examples(self, count: int, seed: int = 0) -> list[Row]:
        """``count`` independent rows (repeats are possible); the first rows do not depend on ``count``.

        Raises:
            ValueError: a negative count or seed. TypeError: not integers.
        """
        rng = np.random.default_rng(_validate.integer("seed", seed, low=0))
        return [self.draw(rng) for _ in range(_validate.integer("count", count, low=0))]

    def split(self, train: int, test: int, seed: int = 0) -> Split:
        """Distinct problems in two parts: the first ``test`` distinct ones drawn, then the next ``train``.

        The test part depends on ``test`` and ``seed`` alone.

        Raises:
            ValueError: the task has, or shows in 100 draws a row, fewer distinct problems than asked for.
        """
        train = _validate.integer("train", train, low=0)
        test = _validate.integer("test", test, low=0)
        wanted, most = train + test, self.most_problems
        if wanted > most:
            raise ValueError(f"train + test = {wanted}: {self.name} has at most {most} distinct problems")
        rng = np.random.default_rng(_validate.integer("seed", seed, low=0))
        found: dict[str, Row] = {}
        for _ in range(100 * wanted + 1000):
            if len(found) == wanted:
                break
            row = self.draw(rng)
            found.setdefault(row["prompt"], row)
        if len(found) < wanted:
            raise ValueError(
                f"train + test = {wanted}: {self.name} showed only {len(found)} distinct problems in "
                f"{100 * wanted + 1000} draws; ask for fewer rows or a larger task"
            )
        rows = list(found.values())
        return Split(train=rows[test:], test=rows[:test])

    def reward(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """One reward a completion, in TRL's convention; columns that the verifier does not need are ignored.

        Raises:
            ValueError: a column that is missing or has another length, a completion that is neither text nor one
                assistant message.
        """
        _same_lengths(prompts, completions, self.name, {name: columns.get(name) for name in self.columns})
        return [
            self.score(completion_text(completion, i), {name: columns[name][i] for name in self.columns})
            for i, completion in enumerate(completions)
        ]


def reward_of(tasks: Mapping[str, Task]) -> Callable[..., list[float]]:
    """A reward function for rows of several tasks, which their column ``domain`` names.

    Raises (when called):
        ValueError: as `Task.reward`, or a domain that is none of ``tasks``.
    """

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        _same_lengths(prompts, completions, "several tasks", {"domain": columns.get("domain")})
        out = []
        for i, name in enumerate(columns["domain"]):
            if name not in tasks:
                _validate.fail("domain", f"must be one of {', '.join(map(repr, tasks))}", name, (i,))
            row = {column: values[i : i + 1] for column, values in columns.items() if column in tasks[name].columns}
            text = completion_text(completions[i], i)
            out += tasks[name].reward([prompts[i]], [text], **row)
        return out

    return reward


def _same_lengths(prompts: Any, completions: Any, task: str, columns: Mapping[str, Any]) -> None:
    if len(prompts) != len(completions):
        raise ValueError(f"completions: {len(completions)} for {len(prompts)} prompts; one each is needed")
    for name, values in columns.items():
        if values is None:
            raise ValueError(f"reward of {task}: needs the column {name!r}")
        if isinstance(values, str) or len(values) != len(completions):
            raise ValueError(f"{name}: needs a list with one entry for each of {len(completions)} completions")


def demonstrations(rows: Iterable[Row]) -> list[Row]:
    """Rows for supervised training: the columns ``prompt`` and ``completion`` (the solution)."""
    return [{"prompt": row["prompt"], "completion": row["solution"]} for row in rows]


def joint_alphabet(*tasks: Domain) -> str:
    """The characters of all tasks, sorted: what models that share a tokenizer need."""
    return "".join(sorted(set().union(*(task.alphabet for task in tasks))))


def operators(name: str, value: Any, legal: str) -> str:
    """``value``, a non-empty string of distinct operators out of ``legal``."""
    if not isinstance(value, str) or not value or len(set(value)) < len(value) or not set(value) <= set(legal):
        _validate.fail(name, f"must be distinct characters of {legal!r}, at least one", value)
    return str(value)
