"""Rewards for your own prompts: a Python function with TRL's signature, a named verifier, or several with weights.

========================================================  ====================================================
specification                                             reward
========================================================  ====================================================
``"rewards.py:exact"``, ``"package.module:exact"``        ``exact(prompts, completions, **columns)`` of the file
``"last_number"``                                         one of `VERIFIERS`, against the column ``answer``
``{ verifier = "regex", pattern = "…" }``                 with its options, and ``column``
``{ function = "rewards.py:short", weight = 0.2 }``       times its weight
a list of these                                           their weighted sum
========================================================  ====================================================

A file is imported and its function called, as ``klsim audit`` does; nothing is evaluated. Prompts and completions are
texts, or lists of messages for conversational prompts; columns are lists, one entry a completion.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from klsim.audit.targets import load_function
from klsim.lm.chat import completion_text
from klsim.objectives.registry import near

__all__ = [
    "VERIFIERS",
    "Reward",
    "RewardError",
    "WeightedReward",
    "boxed",
    "exact",
    "last_number",
    "math_verify",
    "parse",
    "regex",
]

Reward = Callable[..., Sequence[float]]
"""A reward function in TRL's convention: ``reward(prompts, completions, **columns)``, one number a completion."""
Score = Callable[[str, Any], float]
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?![\w])|[-+]?\.\d+")


def exact(completion: str, answer: Any) -> float:
    """1 if the completion is the answer as text, without white space around both; else 0."""
    return float(completion.strip() == str(answer).strip())


def last_number(completion: str, answer: Any, *, tolerance: float = 0.0) -> float:
    """1 if the last number of the completion is that of the answer, to ``tolerance`` relative to it; else 0.

    ``1,234.50``, ``-3`` and ``2e5`` are numbers. The answer is a number, or text of which the last number counts
    (``#### 72``).

    Raises:
        ValueError: an answer without a number.
    """
    wanted = _last(answer if isinstance(answer, str) else str(answer))
    if wanted is None:
        raise ValueError(f"answer {answer!r}: has no number")
    found = _last(completion)
    return float(found is not None and abs(found - wanted) <= Decimal(str(tolerance)) * abs(wanted))


def boxed(completion: str, answer: Any) -> float:
    r"""1 if the last ``\boxed{…}`` of the completion holds the answer as text, white space aside; else 0."""
    start = completion.rfind(r"\boxed{")
    if start < 0:
        return 0.0
    depth, begin = 1, start + len(r"\boxed{")
    for i in range(begin, len(completion)):
        depth += {"{": 1, "}": -1}.get(completion[i], 0)
        if depth == 0:
            return float("".join(completion[begin:i].split()) == "".join(str(answer).split()))
    return 0.0


def regex(completion: str, answer: Any = None, *, pattern: str) -> float:
    """1 if ``pattern`` occurs in the completion and, if it has a group, the last one found is the answer; else 0."""
    found = list(re.finditer(pattern, completion, flags=re.DOTALL))
    if not found:
        return 0.0
    return exact(found[-1][1] or "", answer) if found[-1].re.groups else 1.0


def math_verify(completion: str, answer: Any) -> float:
    """1 if completion and answer are equal as mathematics, by math-verify (``pip install math-verify``); else 0."""
    from math_verify import parse as read
    from math_verify import verify

    return float(
        verify(read(str(answer), parsing_timeout=None), read(completion, parsing_timeout=None), timeout_seconds=None)
    )


VERIFIERS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (exact, last_number, boxed, regex, math_verify)
}
"""Named verifiers: the score of a completion, given the row's answer."""


class RewardError(ValueError):
    """A reward that failed; ``index``: on which of the completions, None if on none of them alone."""

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


@dataclass(frozen=True)
class _Part:
    """One reward: its name, weight and function; the column that it needs, if it says so."""

    name: str
    weight: float
    function: Reward
    column: str | None


@dataclass(frozen=True)
class WeightedReward:
    """The weighted sum of rewards, each checked.

    Called as TRL calls a reward function. What TRL passes beside the columns goes to functions that accept it.
    """

    parts: tuple[_Part, ...]

    @property
    def __name__(self) -> str:
        """What TRL's logs call it."""
        return " + ".join(part.name for part in self.parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the verifiers read."""
        return tuple(dict.fromkeys(part.column for part in self.parts if part.column is not None))

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """One reward a completion.

        Raises:
            RewardError: what a function raises, and values that are not one finite number a completion: which function,
                and which prompt and completion.
        """
        log = columns.get("log_metric")
        total = [0.0] * len(completions)
        for part in self.parts:
            values = _values(part, prompts, completions, columns)
            total = [a + part.weight * value for a, value in zip(total, values, strict=True)]
            if log is not None and len(self.parts) > 1:
                log(f"rewards/{part.name}", math.fsum(values) / max(len(values), 1))
        return total


def parse(spec: Any) -> WeightedReward:
    """The reward that a configuration names, see the module.

    Raises:
        ValueError: no such file, function or verifier; options that it does not take; a weight that is not a number.
        And what importing a file raises.
    """
    specs = list(spec) if isinstance(spec, list | tuple) else [spec]
    if not specs:
        raise ValueError("reward: needs at least one")
    parts = tuple(_part(one) for one in specs)
    names = [part.name for part in parts]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ValueError(f"reward: {twice} is given twice")
    return WeightedReward(parts)


def _part(spec: Any) -> _Part:
    if isinstance(spec, str):
        spec = {"function" if ":" in spec else "verifier": spec}
    if not isinstance(spec, Mapping):
        raise ValueError(f"reward = {spec!r}: must be a name, a table, or a list of them")
    options = dict(spec)
    weight = options.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"reward: weight = {weight!r}: must be a finite number")
    kinds = [kind for kind in ("function", "verifier") if kind in options]
    if len(kinds) != 1 or not isinstance(options[kinds[0]], str):
        raise ValueError('reward: give either function = "file.py:name" or verifier = "name"')
    name = options.pop(kinds[0])
    if kinds == ["verifier"]:
        return _verifier(name, float(weight), options)
    if options:
        raise ValueError(f"reward {name!r}: no option {min(options)!r}; a function takes weight alone")
    function = load_function(name)
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"reward {name!r}: is a coroutine; give a function that returns its values")
    return _Part(name, float(weight), function, None)


def _verifier(name: str, weight: float, options: dict[str, Any]) -> _Part:
    if name not in VERIFIERS:
        rule = "no such verifier (a function is file.py:name)"
        raise ValueError(f"reward {name!r}: {rule}{near(name, VERIFIERS)}")
    column = options.pop("column", "answer")
    known = {n: p for n, p in inspect.signature(VERIFIERS[name]).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for option in options:
        if option not in known:
            raise ValueError(f"reward {name!r}: no option {option!r}{near(option, ['column', 'weight', *known])}")
    if missing := [n for n, p in known.items() if p.default is p.empty and n not in options]:
        raise ValueError(f"reward {name!r}: {missing[0]} is missing")
    needs_column = True
    if name == "regex":
        try:
            needs_column = re.compile(options["pattern"]).groups > 0
        except (re.error, TypeError) as error:
            raise ValueError(f"reward 'regex': pattern = {options['pattern']!r}: {error}") from None
    if name == "math_verify":
        _installed()
    tolerance = options.get("tolerance", 0.0)
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise ValueError(f"reward {name!r}: tolerance = {tolerance!r}: must be a number >= 0")
    score: Score = partial(VERIFIERS[name], **options)
    return _Part(
        name, weight, partial(_scores, score, column if needs_column else None), column if needs_column else None
    )


def _installed() -> None:
    import importlib.util

    if importlib.util.find_spec("math_verify") is None:
        raise ModuleNotFoundError(
            "reward 'math_verify': needs math-verify: pip install math-verify", name="math_verify"
        )


def _scores(
    score: Score, column: str | None, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
) -> list[float]:
    answers = [None] * len(completions) if column is None else columns.get(column)
    if answers is None:
        raise ValueError(f"there is no column {column!r}{near(str(column), columns)}")
    return [score(completion_text(c, i), a) for i, (c, a) in enumerate(zip(completions, answers, strict=True))]


def _values(part: _Part, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]) -> list[float]:
    try:
        found = part.function(prompts=prompts, completions=completions, **columns)
    except Exception as error:  # the user's code: any
        raise _located(part, prompts, completions, columns, error) from error
    if not hasattr(found, "__len__") or len(found) != len(completions):
        count = len(found) if hasattr(found, "__len__") else repr(found)
        raise RewardError(f"reward {part.name}: gave {count} values for {len(completions)} completions")
    out = []
    for i, value in enumerate(found):
        number = math.nan
        if not isinstance(value, str | bytes) and value is not None:
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
        if not math.isfinite(number):
            rule = f"gave {value!r}, not a finite number, for {_shown(prompts[i], completions[i])}"
            raise RewardError(f"reward {part.name}: {rule}", i)
        out.append(number)
    return out


def _located(
    part: _Part, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any], error: Exception
) -> RewardError:
    """Which completion a function fails on: it is called with one at a time, until it fails again."""
    several = {k: v for k, v in columns.items() if isinstance(v, list | tuple) and len(v) == len(completions)}
    for i in range(len(completions)):
        one = dict(columns) | {name: [values[i]] for name, values in several.items()}
        try:
            part.function(prompts=[prompts[i]], completions=[completions[i]], **one)
        except Exception as again:  # the user's code: any
            shown = f"{type(again).__name__} on {_shown(prompts[i], completions[i])}: {again}"
            return RewardError(f"reward {part.name}: {shown}", i)
    return RewardError(f"reward {part.name}: {type(error).__name__} on {len(completions)} completions at once: {error}")


def _shown(prompt: Any, completion: Any) -> str:
    """A prompt and a completion in a few words."""
    prompt, completion = (text if len(text) <= 80 else text[:77] + "…" for text in map(repr, (prompt, completion)))
    return f"the completion {completion} of the prompt {prompt}"


def _last(text: str) -> Decimal | None:
    """The last number of a text."""
    found = _NUMBER.findall(text)
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None
