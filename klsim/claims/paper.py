"""Papers, claims, checks and controls: what a ``claims.py`` declares.

::

    paper = Paper("folklore", title="Best-of-N folklore")
    C1 = paper.claim("C1", "The KL of best-of-N", statement=r"...", where="Theorem 3.1")

    @C1.check(Inequality(), Space(log_ref=Policies(), reward=Rewards(), n=Integers(1, 64)))
    def bound(log_ref, reward, n):
        return best_of_n.kl(log_ref, reward, n), best_of_n.kl_upper_bound(n)

    @bound.control("the bound holds with log N - 1")
    def too_small(log_ref, reward, n):
        return best_of_n.kl(log_ref, reward, n), np.log(n) - 1

A claim has one or more checks, each of its own kind and on its own space. A control is a nearby
statement on which the same check must give the *opposite* verdict: for a claim that is expected to
hold, a false variant that must be refuted; for a statement that is false as printed
(``expect="refuted"``), the corrected statement, which must hold. A claim without a control, or
whose control gets the wrong verdict, is ``vacuous``: its check does not tell true from false.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from klsim.claims.kinds import Kind, Verdict
from klsim.spaces import Space

__all__ = ["Check", "Claim", "Control", "Paper"]

Function = Callable[..., Any]
Origin = Literal["paper", "derived"]

_SLUG = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_CLAIM_ID = re.compile(r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*")


def _call(function: Function, space: Space | None, instance: Mapping[str, Any]) -> Any:
    """Call with the fields that the function asks for; sizes that it does not name are left out."""
    names = inspect.signature(function).parameters
    sizes = () if space is None else space.sizes
    return function(**{k: v for k, v in instance.items() if k in names or k not in sizes})


@dataclass(frozen=True)
class Control:
    """A nearby statement on which the check must give the opposite verdict.

    Attributes:
        name: the statement, in words.
        function: as a check's function, for the control's statement.
        kind, space, examples, batched, instances: those of the check unless given.
    """

    name: str
    function: Function
    kind: Kind
    space: Space | None
    examples: tuple[Mapping[str, Any], ...]
    batched: bool
    instances: int

    def __call__(self, **instance: Any) -> Any:
        """Evaluate on one instance (or a batch)."""
        return _call(self.function, self.space, instance)


@dataclass(frozen=True)
class Check:
    """One way in which a claim is tested.

    Attributes:
        name: the function's name.
        kind: how what it returns is judged.
        space: where its instances come from; None for a check that needs none.
        examples: instances that are always tried first (keyword arguments of the function).
        batched: the function takes a whole batch (leading axis) at once.
        instances: how many random instances it gets at the standard strength.
        controls: the controls of this check.
    """

    name: str
    function: Function
    kind: Kind
    space: Space | None
    examples: tuple[Mapping[str, Any], ...]
    batched: bool
    instances: int
    controls: list[Control] = field(default_factory=list)

    def __call__(self, **instance: Any) -> Any:
        """Evaluate on one instance (or a batch)."""
        return _call(self.function, self.space, instance)

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
        """Decorator: add a control. With ``examples`` and no ``space``, only those are tried."""
        if any(c.name == name for c in self.controls):
            raise ValueError(f"check {self.name!r} has a control {name!r} already")

        def add(function: Function) -> Control:
            only_examples = examples is not None and space is None
            control = Control(
                name=name,
                function=function,
                kind=self.kind if kind is None else kind,
                space=None if only_examples else (space if space is not None else self.space),
                examples=tuple(examples) if examples is not None else (() if space is not None else self.examples),
                batched=self.batched if batched is None else batched,
                instances=self.instances if instances is None else instances,
            )
            self.controls.append(control)
            return control

        return add


def missing_modules(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the named modules that cannot be found; nothing is imported."""
    return tuple(name for name in names if importlib.util.find_spec(name) is None)


@dataclass(frozen=True)
class Claim:
    """One statement of a paper, and the checks that try to break it.

    Attributes:
        id: ``C1``, ``C4b``, ``C4-printed`` …; ``paper.slug/id`` names it everywhere.
        title: the statement in words, one line.
        statement: the statement in LaTeX (inline ``$…$`` and display ``$$…$$`` in prose).
        where: theorem, equation or figure of the paper.
        origin: ``paper`` (stated there) or ``derived`` (sharper than, or not in, the paper).
        expect: the verdict that is expected; ``refuted`` for a statement that is false as printed.
        correction: for such a statement, what holds instead (prose with LaTeX).
        assumptions: in words.
        requires: modules beyond klsim's own dependencies (``"torch"``); without them the claim is skipped.
    """

    slug: str
    id: str
    title: str
    statement: str
    where: str
    origin: Origin
    expect: Verdict
    correction: str
    assumptions: str
    requires: tuple[str, ...] = ()
    checks: list[Check] = field(default_factory=list)

    @property
    def full_id(self) -> str:
        return f"{self.slug}/{self.id}"

    @property
    def missing(self) -> tuple[str, ...]:
        """What it requires and is not installed."""
        return missing_modules(self.requires)

    def check(
        self,
        kind: Kind,
        space: Space | None = None,
        *,
        examples: Sequence[Mapping[str, Any]] = (),
        batched: bool = True,
        instances: int | None = None,
    ) -> Callable[[Function], Check]:
        """Decorator: add a check.

        The function receives one keyword argument a field of ``space`` (sizes only if it names them):
        arrays with a leading batch axis, or one instance without it (it must work on both; with
        ``batched=False`` it only gets single instances). `Effect` checks receive ``rng`` (one call a seed), or with
        ``batched=True`` and no space ``rngs``, a list with one generator a seed. `Limit` and
        `Symbolic` checks take no arguments.

        ``instances``: random instances at the standard strength; default 10,000 batched, 200 single.
        """

        def add(function: Function) -> Check:
            name = function.__name__
            if any(c.name == name for c in self.checks):
                raise ValueError(f"{self.full_id} has a check {name!r} already")
            count = instances if instances is not None else (10_000 if batched else 200)
            check = Check(name, function, kind, space, tuple(examples), batched, count)
            self.checks.append(check)
            return check

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
            raise ValueError(f"slug = {self.slug!r}: lower-case letters, digits and single dashes")

    def claim(
        self,
        id: str,
        title: str,
        *,
        statement: str = "",
        where: str = "",
        origin: Origin = "paper",
        expect: Verdict = "holds",
        correction: str = "",
        assumptions: str = "",
        requires: tuple[str, ...] = (),
    ) -> Claim:
        """Declare a claim; its checks are added with ``@claim.check(...)``."""
        if not _CLAIM_ID.fullmatch(id):
            raise ValueError(f"claim id = {id!r}: letters, digits and single dashes or dots")
        if id in self.claims:
            raise ValueError(f"{self.slug} has a claim {id!r} already")
        if expect == "refuted" and not correction:
            raise ValueError(f"{self.slug}/{id}: a statement expected to be refuted needs its correction")
        made = Claim(self.slug, id, title, statement, where, origin, expect, correction, assumptions, requires)
        self.claims[id] = made
        return made
