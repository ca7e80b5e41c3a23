"""The generators of reasoning-gym as domains: ``kind = "reasoning_gym"``; each scores answers by its own function.

They are procedural: a generator, its parameters and a seed give problems without end. Item ``i`` at seed ``s`` is
in most of them item ``i - 1`` at seed ``s + 1``, so what is tested on is kept apart by the text of the problems, not by
seeds. Needs ``pip install 'klsim[gym]'``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from klsim import _validate
from klsim.lm.chat import as_completion, as_prompt, completion_text
from klsim.lm.tasks.data import PRINTABLE
from klsim.lm.tasks.task import Domain, Row, Split
from klsim.objectives.registry import near

__all__ = ["GymOptions", "ReasoningGym", "generators"]

_TAGGED = "Give your answer between <answer> and </answer>."
_SEEDS = 2**31
_PAGE = 500
"""Problems a data set; some generators make all of theirs at once."""


@dataclass(frozen=True)
class GymOptions:
    """A generator of reasoning-gym.

    Attributes:
        generator: its name, such as ``chain_sum``. parameters: of the generator, by name.
        chat: make messages of the problems, behind a ``system`` message if there is one.
        answer: ``whole``: the completion is the answer; ``tag``: what stands between ``<answer>`` and ``</answer>``,
            which every prompt then asks for.
        max_completion: tokens that a completion may have.

    Raises:
        ValueError: out of range. TypeError: of the wrong type.
    """

    generator: str
    parameters: dict[str, Any] = field(default_factory=dict)
    chat: bool = False
    system: str | None = None
    answer: str = "whole"
    max_completion: int = 256

    def __post_init__(self) -> None:
        _validate.flag("chat", self.chat)
        _validate.one_of("answer", self.answer, ("whole", "tag"))
        _validate.integer("max_completion", self.max_completion, low=1, high=10**6)
        if not isinstance(self.parameters, dict):
            raise TypeError(f"parameters = {self.parameters!r}: must be a table")
        if self.system is not None and not isinstance(self.system, str):
            raise TypeError(f"system = {self.system!r}: must be text")


def generators() -> dict[str, list[str]]:
    """Every generator with the names of its parameters."""
    known: dict[str, tuple[Any, Any]] = _library().factory.DATASETS
    return {
        name: [f.name for f in dataclasses.fields(config) if f.name not in ("seed", "size")]
        for name, (_, config) in sorted(known.items())
    }


def _library() -> Any:
    try:
        import reasoning_gym
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"kind = 'reasoning_gym' needs {error.name}: pip install 'klsim[gym]'", name=error.name
        ) from None
    return reasoning_gym


@dataclass(frozen=True)
class ReasoningGym(Domain):
    """Problems of a generator; the reward of an answer is what the generator's ``score_answer`` gives, in [0, 1].

    Raises:
        ValueError: no such generator or parameter, or a value that it refuses.
    """

    options: GymOptions

    columns: ClassVar[tuple[str, ...]] = ("seed", "item")

    def __post_init__(self) -> None:
        o, known = self.options, generators()
        if o.generator not in known:
            raise ValueError(f"generator = {o.generator!r}: no such generator{near(o.generator, known)}")
        for name in o.parameters:
            if name not in known[o.generator]:
                raise ValueError(f"parameters: {o.generator} has no {name!r}{near(name, known[o.generator])}")
        self._data_set(0)

    def _data_set(self, seed: int) -> Any:
        """A page of problems."""
        if seed not in self._made:
            self._made[seed] = self._new_data_set(seed)
        return self._made[seed]

    def _new_data_set(self, seed: int) -> Any:
        o = self.options
        library, config = _library(), _library().factory.DATASETS[o.generator][1]
        sizes = {"size": _PAGE} if any(f.name == "size" for f in dataclasses.fields(config)) else {}
        try:
            return library.create_dataset(o.generator, seed=seed, **sizes, **o.parameters)
        except Exception as error:  # generators refuse by assert, ValueError, TypeError …
            raise ValueError(f"{o.generator}: {str(error) or type(error).__name__}") from error

    @cached_property
    def _made(self) -> dict[int, Any]:
        return {}

    @property
    def name(self) -> str:
        given = "".join(f", {k} {v}" for k, v in self.options.parameters.items())
        return f"reasoning_gym({self.options.generator}{given})"

    @property
    def alphabet(self) -> str:
        """Printable ASCII; a generator that writes other characters needs the tokenizer of a model of your own."""
        return PRINTABLE

    @property
    def max_completion_tokens(self) -> int:
        return self.options.max_completion

    def split(self, train: int, test: int, seed: int = 0) -> Split:
        """Distinct problems in two parts: the first ``test`` distinct ones of the seed, then the next ``train``.

        Raises:
            ValueError: the generator shows in 20 draws a row fewer distinct problems than asked for, or fails, or gives
                other problems when it is asked again (scores would be of other problems).
        """
        wanted = _validate.integer("train", train, low=0) + _validate.integer("test", test, low=0)
        # far apart: neighbouring seeds have nearly the same items
        start = _validate.integer("seed", seed, low=0) * 1_000_003 % _SEEDS
        found: dict[str, Row] = {}
        for place in range(20 * wanted + 100):
            if len(found) == wanted:
                break
            seed_of_page, item = (start + place - place % _PAGE) % _SEEDS, place % _PAGE
            try:
                entry = self._data_set(seed_of_page)[item]
            except Exception as error:  # of the generator: any
                text = f"{type(error).__name__}: {error}"
                raise ValueError(f"{self.options.generator}: item {item} of seed {seed_of_page}: {text}") from error
            if entry["question"] not in found:
                found[entry["question"]] = self._row(entry, seed_of_page, item)
        if len(found) < wanted:
            raise ValueError(
                f"train + test = {wanted}: {self.name} showed only {len(found)} distinct problems in "
                f"{20 * wanted + 100} draws; ask for fewer rows or other parameters"
            )
        if wanted and self._new_data_set(start)[0]["question"] != next(iter(found)):
            raise ValueError(f"{self.options.generator}: gives other problems for the same seed when it is asked again")
        rows = list(found.values())
        return Split(train=rows[test:], test=rows[:test])

    def _row(self, entry: Any, seed: int, item: int) -> Row:
        o = self.options
        text = entry["question"] if o.answer == "whole" else f"{entry['question']}\n{_TAGGED}"
        answer = entry["answer"]
        right = None if answer is None else str(answer) if o.answer == "whole" else f"<answer>{answer}</answer>"
        prompt = as_prompt(text, o.system) if o.chat or o.system is not None else text
        return {"prompt": prompt, "seed": seed, "item": item, "solution": right}

    def reward(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """The score of each answer, 0 for a completion that gives none.

        Raises:
            ValueError: a column is missing, or the score is not a finite number.
        """
        for name in self.columns:
            if len(columns.get(name) or ()) != len(completions):
                raise ValueError(f"reward of {self.name}: needs the column {name!r}, one entry a completion")
        return [
            self._score(completion_text(c, i), columns["seed"][i], columns["item"][i])
            for i, c in enumerate(completions)
        ]

    def _score(self, completion: str, seed: int, item: int) -> float:
        answer: str | None = completion.strip()
        if self.options.answer == "tag":
            from reasoning_gym.utils import extract_answer

            answer = extract_answer(completion)
        if not answer:
            return 0.0
        problems = self._data_set(seed)
        entry = problems[item]
        try:
            score = float(problems.score_answer(answer, entry=entry))
        except Exception:  # scores parse what models write; what they choke on is no answer
            return 0.0
        if not math.isfinite(score):
            raise ValueError(f"{self.name}: score {score} of {completion!r:.80} (seed {seed}, item {item})")
        return score

    def demonstration(self, row: Row) -> Any:
        """The generator's own answer, in the form of the prompt.

        Raises:
            ValueError: this generator gives none.
        """
        if row["solution"] is None:
            raise ValueError(f"{self.name} gives no answers to imitate")
        return as_completion(row["prompt"], row["solution"])
