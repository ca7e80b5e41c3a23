"""What every kind of claim is: a name, and a way to run a check and judge it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from klsim.claims.outcome import Judgement, MalformedCheck, Outcome, Strength
from klsim.spaces import Space

__all__ = ["Kind", "Test", "Trial", "label_of", "named_parts"]


class Test(Protocol):
    """A check or a control, as a kind sees it."""

    __test__: ClassVar[bool] = False  # not a test class for pytest

    @property
    def kind(self) -> Kind: ...
    @property
    def space(self) -> Space | None: ...
    @property
    def examples(self) -> tuple[Mapping[str, Any], ...]: ...
    @property
    def batched(self) -> bool: ...
    @property
    def instances(self) -> int: ...
    @property
    def parameters(self) -> tuple[str, ...]: ...
    def __call__(self, **instance: Any) -> Any: ...


@dataclass
class Trial:
    """One check (or control) being judged.

    Attributes:
        test: what is judged.
        seeds: all its randomness.
        strength: how hard to look.
        search: the attack of kinds that judge instances, ``(kind, trial) -> Outcome``.
        is_control: a control only has to be told apart: the first confirmed violation ends the search.
        instance: the arguments at hand, for the report of an exception.
        tried: instances by how they were found.
        library: the public functions of klsim that the first call ran.
    """

    test: Test
    seeds: np.random.SeedSequence
    strength: Strength
    search: Callable[[Any, Trial], Outcome]
    is_control: bool = False
    instance: Mapping[str, Any] | None = None
    tried: dict[str, int] = field(default_factory=dict)
    library: tuple[str, ...] = ()

    def call(self, **arguments: Any) -> Any:
        """Call the check; the first call is watched for the library functions that it runs."""
        if self.library:
            return self.test(**arguments)
        from klsim.claims.authors import library_functions

        with library_functions() as ran:
            returned = self.test(**arguments)
        self.library = tuple(sorted(ran)) or ("",)
        return returned

    def call_with_rng(self) -> Any:
        """Call a check that draws no instance, with its own generator if it asks for one."""
        self.tried["examples"] = self.tried.get("examples", 0) + 1
        if "rng" in self.test.parameters:
            return self.call(rng=np.random.default_rng(self.seeds))
        return self.call()


class Kind(ABC):
    """A kind of claim. A new kind is one frozen dataclass with `name` and `run`."""

    name: ClassVar[str]
    #: what a control of a claim that holds may get; ``not_shown`` only where nothing can be refuted for certain
    told_apart: ClassVar[frozenset[str]] = frozenset({"refuted"})

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a check without a space may be given."""
        return ("rng",)

    @abstractmethod
    def run(self, trial: Trial) -> Outcome:
        """Judge the check; exceptions of the check pass through."""

    def outcome(self, judged: Judgement, trial: Trial, **more: Any) -> Outcome:
        """An outcome from a judgement and what the trial counted."""
        return Outcome(
            judged.verdict, judged.summary, judged.measured, judged.part, instances=dict(trial.tried), **more
        )


def named_parts(returned: Any) -> dict[str, Any]:
    """``{part: value}`` from a value or a dict of values."""
    named = returned if isinstance(returned, Mapping) else {"": returned}
    if not named:
        raise MalformedCheck("a check returned an empty dict: nothing to judge")
    return {str(part): value for part, value in named.items()}


def label_of(part: str) -> str:
    """``part`` as the start of a summary; nothing for a check without parts."""
    return f"{part}: " if part else ""
