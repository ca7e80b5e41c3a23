'''Papers, claims, checks and controls: what a ``claims.py`` declares.

::

    paper = Paper("folklore", title="Best-of-N folklore")

    C1 = paper.claim("C1", r"""
        The KL of best-of-N is at most log N - (N-1)/N

        $\\mathrm{KL}(\\pi_N\\|\\pi)\\le\\log N-\\frac{N-1}N$.

        where: Theorem 3.1
        """)

    @C1.check(Inequality(), Space(log_ref=Policies(), reward=Rewards(), n=Integers(1, 64)),
              false={"without the correction term": {"missing": 1}, "log N - 1": {"missing": 2}})
    def bound(log_ref, reward, n, *, missing=0): ...

A claim has one or more checks, each of its own kind and on its own space. A *control* is a nearby statement on which
the same check must give the opposite verdict. Most are variants: values of the check's keyword-only parameters under
which the statement is false (``false={...}``) or, for a statement that is itself expected to be refuted, true
(``true={...}``). A real alternative (another network, another algorithm) is a function of its own (`Check.control`). A
check without a control says why none is possible (``uncontrolled="..."``), or its paper does not load.
'''

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from klsim.claims import definition
from klsim.claims.authors import caller
from klsim.claims.definition import Variant
from klsim.claims.kinds import Effect, InstanceKind, Kind
from klsim.claims.statement import Statement, parse
from klsim.spaces import Space

__all__ = ["Check", "Claim", "Control", "Expected", "Paper", "Variant", "missing_modules"]

Function = Callable[..., Any]
Expected = Literal["holds", "refuted", "not_shown", "open"]
"""What a claim is expected to come out as; ``open``: anything."""

_SLUG = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_PAGES = frozenset({"audit", "findings", "frontier", "index"})  # of the report, besides one for every paper
_ARXIV = re.compile(r"[A-Za-z0-9./-]*")
_CLAIM_ID = re.compile(r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class _Test:
    """What checks and controls share: a function, and where its arguments come from."""

    name: str
    function: Function
    kind: Kind
    space: Space | None
    examples: tuple[Mapping[str, Any], ...]
    batched: bool
    instances: int

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the function's arguments (those of a variant are fixed and left out)."""
        fixed = self.function.keywords if isinstance(self.function, functools.partial) else {}
        return tuple(n for n in inspect.signature(self.function).parameters if n not in fixed)

    def __call__(self, **instance: Any) -> Any:
        """Evaluate on one instance (or a batch): sizes that the function does not name are left out.

        Numbers of a batched check are 0-d arrays, so that ``lam[..., None]`` works on one instance and on a batch.
        """
        sizes = () if self.space is None else self.space.sizes
        given = {k: v for k, v in instance.items() if k in self.parameters or k not in sizes}
        if self.space is not None:
            given = self.space.restored(given)
        if self.batched and self.space is not None:
            given = {k: np.asarray(v) if k not in sizes and _is_number(v) else v for k, v in given.items()}
        return self.function(**given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


@dataclass(frozen=True)
class Control(_Test):
    """A nearby statement, in words, on which the check must give the opposite verdict.

    Attributes:
        name: the statement, in words.
        variant: the parameters that make it (empty for a function of its own).
        the rest as for `Check`; those of the check unless given.
    """

    variant: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True)
class Check(_Test):
    """One way in which a claim is tested.

    Attributes:
        name: the function's name.
        kind: how what it returns is judged.
        space: where its instances come from; None for a check that needs none.
        examples: instances that are always tried first (keyword arguments of the function).
        batched: the function takes a whole batch (leading axis) at once.
        instances: how many random instances it gets at the standard strength.
        uncontrolled: why no control is possible; empty if there is one.
        controls: the controls of this check.
    """

    uncontrolled: str = ""
    file: str = ""
    line: int = 0
    controls: list[Control] = field(default_factory=list)

    def control(
        self,
        name: str,
        *,
        kind: Kind | None = None,
        space: Space | None = None,
        examples: Sequence[Mapping[str, Any]] | None = None,
        batched: bool | None = None,
        instances: int | None = None,
    ) -> Callable[[Function], Control]:
        """Decorator: add a control that is a function of its own.

        With ``examples`` and no ``space``, only those are tried. For a false variant of the same function use
        ``check(..., false={...})``.
        """
        if not isinstance(name, str):
            raise definition.error(f"control of {self.name!r}: needs its statement in words: @{self.name}.control('…')")

        def add(function: Function) -> Control:
            changes = Variant({}, kind, space, examples, instances)
            return self._add(name, function, changes, batched)

        return add

    def _add(self, name: str, function: Function, changes: Variant, batched: bool | None = None) -> Control:
        if any(c.name == name for c in self.controls):
            raise definition.error(f"check {self.name!r} has a control {name!r} already")
        only_examples = changes.examples is not None and changes.space is None
        space = None if only_examples else (changes.space if changes.space is not None else self.space)
        examples = tuple(changes.examples) if changes.examples is not None else ()
        if changes.examples is None and changes.space is None:
            examples = self.examples
        kind = self.kind if changes.kind is None else changes.kind
        whole = batched if batched is not None else self.batched
        if batched is None and changes.space is not None:
            whole = definition.is_batched(function, kind, space, None if self.batched else False)
        if not only_examples:
            definition.check_arguments(f"control {name!r}", function, kind, space, partly=True)
        control = Control(
            name, function, kind, space, examples, whole,
            self.instances if changes.instances is None else changes.instances,
            variant=dict(changes.parameters), line=caller()[1],
        )  # fmt: skip
        self.controls.append(control)
        return control


def missing_modules(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the named modules that cannot be found; nothing is imported."""
    return tuple(name for name in names if importlib.util.find_spec(name) is None)


@dataclass(frozen=True)
class Claim:
    """One statement of a paper, and the checks that try to break it.

    Attributes:
        id: ``C1``, ``C4b``, ``C4-printed`` …; ``paper.slug/id`` names it everywhere.
        statement: title, text, place, assumptions, correction, origin (`klsim.claims.statement`).
        expect: the verdict that is expected; ``refuted`` for a false statement, ``open`` for a conjecture, which is
            reported and never fails.
        requires: modules beyond klsim's own dependencies (``"torch"``); without them the claim is skipped.
    """

    slug: str
    id: str
    statement: Statement
    expect: Expected
    requires: tuple[str, ...] = ()
    line: int = 0
    checks: list[Check] = field(default_factory=list)

    @property
    def full_id(self) -> str:
        return f"{self.slug}/{self.id}"

    @property
    def title(self) -> str:
        return self.statement.title

    @property
    def missing(self) -> tuple[str, ...]:
        """What it requires and is not installed."""
        return missing_modules(self.requires)

    def check(
        self,
        kind: Kind,
        space: Space | None = None,
        *,
        false: Mapping[str, Mapping[str, Any] | Variant] | None = None,
        true: Mapping[str, Mapping[str, Any] | Variant] | None = None,
        uncontrolled: str = "",
        examples: Sequence[Mapping[str, Any]] = (),
        batched: bool | None = None,
        instances: int | None = None,
    ) -> Callable[[Function], Check]:
        """Decorator: add a check.

        The function receives one keyword argument a field of ``space`` (sizes only if it names them): arrays with a
        leading batch axis, or one instance without it (it must work on both; with ``batched=False``, and where a field
        draws objects, it only gets single instances). Its keyword-only parameters are what the statement turns on.
        `Effect` checks receive ``rng`` (one call a seed) or ``rngs`` (all at once). `Limit`, `Symbolic` and checks
        without a space may ask for ``rng``.

        Args:
            false: ``{"words": {"parameter": value}}``: variants under which the statement is false; each must be
            refuted.
            true: the same, for a statement that is expected to be refuted: variants that must hold.
            uncontrolled: why no control is possible; shown in the report.
            examples: instances that are always tried first.
            batched: inferred from the space and the signature unless given.
            instances: random instances at the standard strength; default 10,000 batched, 200 single.

        Raises:
            DefinitionError: a mistake of the author; names the file, the line, and what to write instead.
        """
        definition.check_call(self.full_id, kind, space)
        variants = definition.variants_of(self.full_id, self.expect, false, true)

        def add(function: Function) -> Check:
            name = getattr(function, "__name__", "")
            if any(c.name == name for c in self.checks):
                raise definition.error(f"{self.full_id} has a check {name!r} already")
            definition.check_arguments(f"{self.full_id}/{name}", function, kind, space)
            whole = definition.is_batched(function, kind, space, batched)
            count = instances if instances is not None else (10_000 if whole else 200)
            line = inspect.unwrap(function).__code__.co_firstlineno if hasattr(function, "__code__") else 0
            made = Check(
                name, function, kind, space, tuple(examples), whole, count,
                uncontrolled=uncontrolled, file=caller()[0], line=line,
            )  # fmt: skip
            for words, changes in variants.items():
                definition.check_parameters(f"{self.full_id}/{name}", words, function, changes.parameters)
                made._add(words, functools.partial(function, **changes.parameters), changes)
            self.checks.append(made)
            return made

        return add


@dataclass(frozen=True)
class Paper:
    """A paper (or any collection of claims) and its claims, in order of definition."""

    slug: str
    title: str
    authors: str = ""
    year: int | None = None
    arxiv: str = ""
    claims: dict[str, Claim] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.slug, str) or not _SLUG.fullmatch(self.slug):
            raise definition.error(f"slug = {self.slug!r}: lower-case letters, digits and single dashes")
        if self.slug in _PAGES:
            raise definition.error(f"slug = {self.slug!r}: the report has a page of that name")
        if not isinstance(self.arxiv, str) or not _ARXIV.fullmatch(self.arxiv):
            raise definition.error(f"arxiv = {self.arxiv!r}: a number like 2405.12345, or nothing")

    def claim(
        self,
        id: str,
        text: str,
        *,
        expect: Expected | None = None,
        correction: str = "",
        correction_by: str | Sequence[str] = (),
        requires: Sequence[str] = (),
    ) -> Claim:
        """Declare a claim from its text (`klsim.claims.statement`); its checks are added with ``@claim.check(...)``.

        ``expect`` is ``refuted`` where the text says what holds ``instead:`` and ``holds`` otherwise, unless given.
        ``correction`` and ``correction_by`` are the sections ``instead:`` and ``by:`` for texts made by a program.
        """
        if not isinstance(id, str) or not _CLAIM_ID.fullmatch(id):
            raise definition.error(f"claim id = {id!r}: letters, digits and single dashes or dots")
        if id in self.claims:
            raise definition.error(f"{self.slug} has a claim {id!r} already")
        try:
            statement = parse(text)
        except ValueError as wrong:
            raise definition.error(f"{self.slug}/{id}: {wrong}") from None
        statement = definition.with_correction(statement, correction, correction_by)
        chosen = definition.expected(f"{self.slug}/{id}", expect, statement)
        made = Claim(self.slug, id, statement, chosen, tuple(requires), caller()[1])
        self.claims[id] = made
        return made


def kind_takes_instances(kind: Kind) -> bool:
    """Whether a kind's checks are judged instance by instance."""
    return isinstance(kind, InstanceKind) and not isinstance(kind, Effect)
