"""Mistakes that authors of claims make, told when they make them: file, line, and what to write instead."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from klsim.claims.authors import caller
from klsim.claims.kinds import Effect, InstanceKind, Kind
from klsim.claims.statement import Statement
from klsim.spaces import Field, Space

__all__ = [
    "DefinitionError",
    "Variant",
    "check_arguments",
    "check_call",
    "check_parameters",
    "error",
    "expected",
    "is_batched",
    "variants_of",
    "with_correction",
]

_EXPECTED = ("holds", "refuted", "not_shown", "open")


class DefinitionError(ValueError):
    """A claim that is not well defined."""


def error(message: str) -> DefinitionError:
    """The error with the author's file and line in front."""
    file, line = caller()
    return DefinitionError(f"{os.path.relpath(file)}:{line}: {message}" if file else message)


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_call(claim: str, kind: Any, space: Any) -> None:
    """The two positional arguments of ``claim.check``."""
    if inspect.isfunction(kind):
        raise error(f"{claim}: @….check needs a kind: write @….check(Identity(), Space(…)) above {kind.__name__!r}")
    if isinstance(kind, type) and issubclass(kind, Kind):
        raise error(f"{claim}: {kind.__name__} needs parentheses: {kind.__name__}()")
    if isinstance(kind, Space) or isinstance(space, Kind):
        raise error(f"{claim}: kind and space are swapped: check(kind, space)")
    if not isinstance(kind, Kind):
        raise error(f"{claim}: the kind must be Identity(), Inequality(), …, got {type(kind).__name__}")
    if space is not None and not isinstance(space, Space):
        what = "put the fields into Space(…)" if isinstance(space, Field | Mapping) else "give a Space(…)"
        raise error(f"{claim}: the space is a {type(space).__name__}: {what}")
    if space is not None and not isinstance(kind, InstanceKind):
        raise error(f"{claim}: a check of kind {kind.name} draws from rng, not from a space")


def check_arguments(where: str, function: Any, kind: Kind, space: Space | None, *, partly: bool = False) -> None:
    """The function's arguments and the space's fields fit; ``partly`` allows fields that a control does not use."""
    if not callable(function):
        raise error(f"{where}: not a function")
    signature = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in signature):
        return
    optional = {p.name for p in signature if p.default is not p.empty}
    names = {p.name for p in signature}
    if space is None:
        allowed = {"rng", "rngs"} if isinstance(kind, Effect) else set(kind.arguments)
        if isinstance(kind, InstanceKind):
            return  # examples may give any arguments
        if isinstance(kind, Effect) and not names & allowed:
            raise error(f"{where}: an effect's check takes rng (one call a seed) or rngs (all at once)")
        if unknown := sorted(names - optional - allowed):
            raise error(f"{where}: nothing gives the argument {unknown[0]!r}: there is no space")
        return
    known = {**space.fields, **space.sizes}
    for name in sorted(names - optional - set(known)):
        raise error(
            f"{where}: the space has no field {name!r} (it has {', '.join(known)}){_did_you_mean(name, list(known))}"
        )
    if partly:
        return
    used = names | space.named_by_others
    for name in sorted(set(space.fields) - set(space.sizes) - used):
        raise error(f"{where}: nothing uses the field {name!r} of the space; drop it, or name it as an argument")


def is_batched(function: Callable[..., Any], kind: Kind, space: Space | None, batched: bool | None) -> bool:
    """Whether the function gets whole batches: as said, else unless a field draws single objects."""
    if isinstance(kind, Effect):
        return "rngs" in inspect.signature(function).parameters
    if space is None:
        return False
    if batched and space.single:
        raise error(f"batched=True: the field {space.single[0]!r} draws one object an instance")
    return batched if batched is not None else not space.single


@dataclass(frozen=True)
class Variant:
    """A control that changes more than parameters: ``Variant({"sign": -1}, space=OTHER)``."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind | None = None
    space: Space | None = None
    examples: Sequence[Mapping[str, Any]] | None = None
    instances: int | None = None


def variants_of(
    claim: str, expect: str, false: Mapping[str, Any] | None, true: Mapping[str, Any] | None
) -> dict[str, Variant]:
    """The variants of a check; ``false`` for a claim that holds, ``true`` for one that is expected to be refuted."""
    if expect == "refuted" and false:
        raise error(f"{claim} is expected to be refuted: give true={{…}}, variants that must hold")
    if expect != "refuted" and true:
        raise error(f"{claim} is expected to hold: give false={{…}}, variants that must be refuted")
    chosen = false or true or {}
    if not isinstance(chosen, Mapping):
        raise error(f"{claim}: variants are {{'words': {{'parameter': value}}}}, got {type(chosen).__name__}")
    out = {}
    for words, change in chosen.items():
        if not isinstance(change, Variant | Mapping) or not change:
            raise error(f"{claim}: the variant {words!r} needs parameters: {{'parameter': value}}")
        out[words] = change if isinstance(change, Variant) else Variant(dict(change))
    return out


def check_parameters(where: str, words: str, function: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
    """A variant sets keyword-only parameters that the function has."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in parameters:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none: def f(…, *, sign=1)"
            raise error(
                f"{where}: the variant {words!r} sets {name!r}, not a keyword-only parameter ({has})"
                f"{_did_you_mean(name, known)}"
            )


def with_correction(statement: Statement, correction: str, by: str | Sequence[str]) -> Statement:
    """The statement with a correction that was given apart from the text."""
    if correction:
        statement = dataclasses.replace(statement, instead=correction)
    if by:
        statement = dataclasses.replace(statement, by=(by,) if isinstance(by, str) else tuple(by))
    return statement


def expected(claim: str, expect: Any, statement: Statement) -> Any:
    """The expected verdict: as said, else ``refuted`` where the text says what holds instead."""
    if expect is None:
        return "refuted" if statement.instead else "holds"
    if expect not in _EXPECTED:
        raise error(
            f"{claim}: expect={expect!r} must be one of {', '.join(_EXPECTED)}{_did_you_mean(expect, _EXPECTED)}"
        )
    if expect == "refuted" and not statement.instead:
        raise error(f"{claim}: a statement expected to be refuted says what holds instead: its correction")
    if expect == "holds" and statement.instead:
        raise error(f"{claim}: the text says what holds instead, so expect cannot be 'holds'")
    return expect
