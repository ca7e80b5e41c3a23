"""Trying to break a check: explicit examples, bulk random instances, Hypothesis, and a climb on the slack.

A violation counts when it is more than rounding (`klsim.claims.confirm`); it is then made small and round
(`klsim.claims.shrink`) and confirmed again. A control stops at its first confirmed violation. Every number is a
function of the seed and the check's name, not of what ran before it or in which process, so a certificate does not
depend on the number of workers.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from klsim.claims.adversarial import attack
from klsim.claims.assuming import Dropped, collecting
from klsim.claims.authors import users_traceback
from klsim.claims.climb import Reached, climb
from klsim.claims.confirm import HINT, is_confirmed
from klsim.claims.instances import as_python, encode, number_count
from klsim.claims.kinds import InstanceKind, Measured, Trial
from klsim.claims.outcome import Judgement, NotANumber, Outcome, Strength
from klsim.claims.shrink import shrink
from klsim.claims.tightness import Tightness

__all__ = ["Outcome", "Strength", "run", "search"]

_KEEP_WORST = 200  # numbers; larger worst instances are not kept when the claim holds
_KEEP_COUNTEREXAMPLE = 20_000
_CLIMB, _SHRINK = 800, 300  # evaluations at the standard strength
_STARTS = 2
_PATIENCE = 60  # violations that turned out to be rounding, before no more are looked at
_LEFT = 0.01  # share of the first violation that a smaller instance has to keep
_LEAST = 8  # instances of a control before it may stop: enough to see that its sides are not constants


def unit_seed(seed: int, name: str) -> np.random.SeedSequence:
    """The random stream of one check: a function of the run's seed and the check's full name."""
    return np.random.SeedSequence([seed, zlib.crc32(name.encode())])


class _Exit(Exception):
    """A check tried to end the process."""


@contextmanager
def no_exit() -> Iterator[None]:
    """While it lasts, ``os._exit`` raises instead of ending the process."""

    def refuse(code: int) -> None:
        raise _Exit(f"called os._exit({code})")

    before = os._exit
    os._exit = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = before


@contextmanager
def one_thread() -> Iterator[None]:
    """While it lasts, BLAS and the kernels use one thread.

    Sums are then taken in the same order in every process, and a kernel that is called for one instance does not wait
    for other threads (20 times slower where the cores are busy).
    """
    import numba
    from threadpoolctl import threadpool_limits

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        numba.set_num_threads(before)


def run(test: Any, name: str, seed: int, strength: Strength, *, is_control: bool | None = None) -> Outcome:
    """Judge one check or control; never raises for what happens inside it.

    ``name`` is its full name (``slug/claim/check[/control]``); with ``seed`` it fixes all randomness.
    """
    start = time.perf_counter()
    control = hasattr(test, "variant") if is_control is None else is_control
    trial = Trial(test, unit_seed(seed, name), strength, search, is_control=control)
    try:
        with np.errstate(all="ignore"), one_thread(), no_exit():
            outcome = test.kind.run(trial)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # also SystemExit: it must not end the run
        if _interrupted(error):
            raise KeyboardInterrupt from error
        outcome = _failed(trial, error)
    library = tuple(name for name in trial.library if name)
    return replace(outcome, seconds=time.perf_counter() - start, library=library)


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: compiled code and libraries turn what a signal raised in them into other errors."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _failed(trial: Trial, error: BaseException) -> Outcome:
    what = f"called sys.exit({error.code})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    if isinstance(error, _Exit | NotANumber):
        what = str(error)
    kept, python = _shown(trial.instance, _KEEP_COUNTEREXAMPLE)
    trace = what if isinstance(error, NotANumber) else users_traceback(error)
    return Outcome("error", what, instances=_counted(trial), instance=kept, python=python, error=trace)


def _counted(trial: Trial) -> dict[str, int]:
    return {k: v for k, v in trial.tried.items() if v}


def _shown(arguments: Mapping[str, Any] | None, limit: int) -> tuple[dict[str, Any] | None, str]:
    """An instance as JSON and as Python; None if it is too large, or holds what instances cannot hold."""
    if arguments is None or number_count(arguments) > limit:
        return None, ""
    try:
        kept = {k: encode(v) for k, v in arguments.items()}
    except TypeError:
        return None, ""
    return kept, ", ".join(f"{k}={as_python(v)}" for k, v in arguments.items())


@dataclass(frozen=True)
class _Instance:
    """The arguments of a check; ``drawn`` is what the space drew to make them (None for explicit examples)."""

    arguments: Mapping[str, Any]
    drawn: Mapping[str, Any] | None = None


def search(kind: InstanceKind, trial: Trial) -> Outcome:
    """Judge an instance kind's check (or control) by trying to break it."""
    return _Search(kind, trial).run()


@dataclass
class _Search:
    """The state of one search."""

    kind: InstanceKind
    trial: Trial
    worst: tuple[Judgement, _Instance] | None = None
    broken: tuple[Judgement, _Instance] | None = None
    doubtful: tuple[Judgement, _Instance] | None = None
    tight: Tightness = field(default_factory=Tightness)
    refused: int = 0
    starved: str = ""

    def __post_init__(self) -> None:
        bulk, adversarial, confirming = self.trial.seeds.spawn(3)
        self.bulk_rng, self.confirm_rng = np.random.default_rng(bulk), np.random.default_rng(confirming)
        self.adversary = int(adversarial.generate_state(1)[0])
        self.tight = Tightness(self.kind.tolerance, _STARTS, flipped=self.kind.relation == ">=")

    @property
    def scale(self) -> float:
        """Of the numbers of instances. A control stops at its first violation, so it is never looked for less hard."""
        bulk = self.trial.strength.bulk
        return max(1.0, bulk) if self.trial.is_control else bulk

    def run(self) -> Outcome:
        test = self.trial.test
        for example in test.examples or ([{}] if test.space is None else []):
            self._count("examples")
            self._try(_Instance(dict(example)))
        if test.space is not None and self.broken is None:  # a hand-picked counterexample is the one to show
            self._bulk()
            if self.broken is None:
                self._hypothesis()
            self.starved = self._starved()
            if self.broken is None and self.kind.one_sided:
                self._climb()
            if self.broken is not None and not self.trial.is_control:
                self._shrink()
        return self._outcome()

    def _count(self, how: str, number: int = 1) -> None:
        self.trial.tried[how] = self.trial.tried.get(how, 0) + number

    # evaluation ---------------------------------------------------------------------------------
    def _measure(self, arguments: Mapping[str, Any]) -> Measured | None:
        """One instance; None if it is outside the assumptions."""
        try:
            return self.kind.measure(self._call(arguments))
        except Dropped:
            return None

    def _call(self, arguments: Mapping[str, Any]) -> Any:
        if self.trial.test.space is None and "rng" in self.trial.test.parameters:
            return self.trial.call(**arguments, rng=np.random.default_rng(self.trial.seeds))
        return self.trial.call(**arguments)

    def _view(self, drawn: Mapping[str, Any]) -> _Instance:
        space = self.trial.test.space
        assert space is not None
        return _Instance(space.view(drawn), drawn)

    def _try(self, instance: _Instance) -> Measured | None:
        """Judge one instance and keep what it shows."""
        try:
            measured = self._measure(instance.arguments)
        except BaseException:
            self.trial.instance = instance.arguments
            raise
        if measured is None:
            self._count("dropped")
            return None
        self.tight.add(measured, [instance.drawn])
        self._keep(self.kind.judge_at(measured, 0), instance)
        return measured

    def _keep(self, judged: Judgement, instance: _Instance) -> None:
        if self.worst is None or judged.severity > self.worst[0].severity:
            self.worst = judged, instance
        if judged.verdict == "refuted" and self.broken is None:
            if self._confirmed(instance.arguments):
                self.broken = judged, instance
            elif self.doubtful is None:
                self.doubtful = judged, instance

    def _confirmed(self, arguments: Mapping[str, Any]) -> bool:
        if self.refused >= _PATIENCE:
            return False
        if is_confirmed(self.kind, self._measure, arguments, self.confirm_rng):
            return True
        self.refused += 1
        return False

    # the three attacks --------------------------------------------------------------------------
    def _bulk(self) -> None:
        test = self.trial.test
        assert test.space is not None
        total = max(1, round(test.instances * self.scale))
        for batch in test.space.batches(total, self.bulk_rng, batch_size=1000 if test.batched else 8):
            if test.batched:
                self._batch(batch)
            else:
                for i in range(test.space.length(batch)):
                    self._count("bulk")
                    self._try(self._view(test.space.take(batch, i)))
            if self.broken is not None and (not self.trial.is_control or self.trial.tried.get("bulk", 0) >= _LEAST):
                return

    def _batch(self, batch: Mapping[str, Any]) -> None:
        space = self.trial.test.space
        assert space is not None
        count = space.length(batch)
        try:
            with collecting() as masks:
                returned = self.trial.call(**space.view(batch))
            kept = np.logical_and.reduce(masks) if masks else None
            measured = self.kind.measure(returned, count, kept)
        except NotANumber as error:
            self.trial.instance = space.view(space.take(batch, error.index))
            raise
        if kept is not None:
            self._count("dropped", int(count - kept.sum()))
            if not kept.any():
                return
            measured = replace(measured, excess=np.where(kept, measured.excess, -np.inf))
        self._count("bulk", count if kept is None else int(kept.sum()))
        self.tight.add(measured, _Rows(space, batch))
        for index in self._suspects(measured):
            self._keep(self.kind.judge_at(measured, index), self._view(space.take(batch, index)))
            if self.broken is not None:
                return

    def _suspects(self, measured: Measured) -> list[int]:
        """The worst instance; of several violations also those of the largest gaps, which rounding cannot make."""
        order = np.argsort(measured.excess)[::-1]
        if measured.excess[order[0]] <= self.kind.tolerance:
            return [int(order[0])]
        violating = np.flatnonzero(measured.excess > self.kind.tolerance)
        with np.errstate(invalid="ignore"):
            gaps = np.abs(measured.lhs - measured.rhs)[violating]
        largest = violating[np.argsort(gaps)[::-1][:3]]
        return list(dict.fromkeys(int(i) for i in (*order[:3], *largest) if measured.excess[i] > self.kind.tolerance))

    def _hypothesis(self) -> None:
        test = self.trial.test
        assert test.space is not None
        examples = max(1, round(100 * self.scale))
        if not test.batched:  # an instance may be dear: no more of them than the check asks for
            examples = min(examples, max(1, round(test.instances * self.scale)))

        def attempt(drawn: Mapping[str, Any]) -> float | None:
            self._count("hypothesis")
            measured = self._try(self._view(drawn))
            if measured is None:
                return None
            return math.inf if self.broken is not None else min(float(measured.excess[0]), 1e300)

        attack(attempt, test.space.draws(), examples, self.adversary)

    def _climb(self) -> None:
        test = self.trial.test
        assert test.space is not None
        # an instance may be dear: no more of them than twice what the check asks for
        budget = round(min(_CLIMB, 2 * test.instances) * self.scale)

        def height(drawn: Mapping[str, Any]) -> float:
            self._count("climb")
            measured = self._try(self._view(drawn))
            if self.broken is not None or self.refused >= _PATIENCE:
                raise Reached
            return -math.inf if measured is None else self.tight.height(measured)

        try:
            for start in self.tight.starts():
                climb(test.space, start, height, budget // _STARTS)
        except Reached:
            return

    def _shrink(self) -> None:
        assert self.broken is not None
        space, drawn = self.trial.test.space, self.broken[1].drawn
        if space is None or drawn is None:
            return
        least = max(self.kind.tolerance, _LEFT * self.broken[0].measured["worst_error"])
        budget = _SHRINK if self.trial.test.batched else min(_SHRINK, 10 + 2 * self.trial.test.instances)

        def still_broken(candidate: Mapping[str, Any]) -> bool:
            try:
                arguments = space.view(candidate)
                measured = self._measure(arguments)
            except Exception:
                return False
            return measured is not None and measured.excess[0] > least and self._confirmed(arguments)

        smallest = self._view(shrink(space, drawn, still_broken, budget))
        measured = self._measure(smallest.arguments)
        assert measured is not None
        self.broken = self.kind.judge_at(measured, 0), smallest

    # what came out ------------------------------------------------------------------------------
    def _outcome(self) -> Outcome:
        counts = _counted(self.trial)
        if self.worst is None:
            return Outcome("not_shown", "no instance was inside the assumptions", instances=counts,
                           vacuous="assume() dropped every instance")  # fmt: skip
        judged, instance = self.broken or self.worst
        if self.broken is None and self.doubtful is not None:
            judged, instance = self.doubtful
            judged = replace(judged, verdict="not_shown", summary=f"{judged.summary}: {HINT}")
        measured = {**judged.measured, **self.tight.numbers(self.kind)}
        judged = replace(judged, measured=measured)
        if self.broken is None and self.doubtful is None and self.kind.one_sided:
            judged = replace(judged, summary=self.tight.summary(judged.summary))
        shown = self.broken is not None or self.doubtful is not None
        kept, python = _shown(instance.arguments, _KEEP_COUNTEREXAMPLE if shown else _KEEP_WORST)
        final = self.kind.conclude(judged)
        return Outcome(
            final.verdict,
            final.summary,
            final.measured,
            final.part,
            self.starved,
            counts,
            kept,
            python if shown else "",
        )

    def _starved(self) -> str:
        """Why what was drawn says next to nothing: nearly all of it was outside the assumptions."""
        dropped = self.trial.tried.get("dropped", 0)
        drawn = dropped + self.tight.judged
        return f"assume() dropped {dropped:,} of {drawn:,} instances" if dropped > 0.9 * drawn else ""


@dataclass(frozen=True)
class _Rows:
    """The draws of a batch, taken one by one when asked for."""

    space: Any
    batch: Mapping[str, Any]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.space.take(self.batch, index)
