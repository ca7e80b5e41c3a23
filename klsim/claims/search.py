"""Trying to break a check: explicit examples, bulk random instances, adversarial search.

Order: the explicit examples; then vectorised batches of random instances; then Hypothesis, which
looks for edge cases and, when it finds a violation, shrinks it. A control stops at its first
violation. Every number is a function of the seed and the check's name, not of what ran before it or
in which process, so a certificate does not depend on the number of workers.
"""

from __future__ import annotations

import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from klsim.claims.instances import as_python, encode, number_count
from klsim.claims.kinds import Effect, InstanceKind, Judgement, MalformedCheck
from klsim.claims.paper import Check, Control

__all__ = ["Outcome", "Strength", "run"]

_KEEP_WORST = 200  # numbers; larger worst instances are not kept when the claim holds
_KEEP_COUNTEREXAMPLE = 20_000


@dataclass(frozen=True)
class Strength:
    """How hard to look: Hypothesis examples a check, and a factor on its bulk instances."""

    examples: int = 100
    bulk: float = 1.0

    @classmethod
    def of(cls, examples: int) -> Strength:
        """``examples`` Hypothesis examples and bulk instances in proportion (100 is the standard)."""
        return cls(examples, examples / 100)


@dataclass(frozen=True)
class Outcome:
    """What became of one check or control. ``verdict`` is ``error`` if it raised."""

    verdict: str
    summary: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    instances: Mapping[str, int] = field(default_factory=dict)
    instance: Mapping[str, Any] | None = None
    python: str = ""
    error: str = ""
    seconds: float = 0.0


def unit_seed(seed: int, name: str) -> np.random.SeedSequence:
    """The random stream of one check: a function of the run's seed and the check's full name."""
    return np.random.SeedSequence([seed, zlib.crc32(name.encode())])


def run(test: Check | Control, name: str, seed: int, strength: Strength) -> Outcome:
    """Judge one check or control; never raises for what happens inside it.

    ``name`` is its full name (``slug/claim/check[/control]``); with ``seed`` it fixes all randomness.
    """
    from threadpoolctl import threadpool_limits

    start = time.perf_counter()
    search = _Search(test, unit_seed(seed, name), strength, stop_early=isinstance(test, Control))
    try:
        # one BLAS thread: sums are then taken in the same order in every process
        with np.errstate(all="ignore"), threadpool_limits(1):
            search.run()
    except KeyboardInterrupt:
        raise
    except Exception as error:
        search.fail(error)
    return search.outcome(time.perf_counter() - start)


class _Search:
    """The state of one search: the worst instance so far, and how many were tried."""

    def __init__(
        self, test: Check | Control, seeds: np.random.SeedSequence, strength: Strength, *, stop_early: bool
    ) -> None:
        self.test = test
        self.seeds = seeds
        self.strength = strength
        self.stop_early = stop_early
        self.worst: Judgement | None = None
        self.instance: Mapping[str, Any] | None = None
        self.tried = {"examples": 0, "bulk": 0, "hypothesis": 0}
        self.error = ""

    @property
    def broken(self) -> bool:
        return self.worst is not None and self.worst.verdict == "refuted"

    def run(self) -> None:
        kind = self.test.kind
        if isinstance(kind, Effect):
            self._effect(kind)
        elif isinstance(kind, InstanceKind):
            self._instances(kind)
        else:
            self._keep(kind.judge(self.test()), None)

    def _keep(self, judged: Judgement, instance: Mapping[str, Any] | None) -> None:
        if self.worst is None or judged.severity > self.worst.severity:
            self.worst, self.instance = judged, instance

    def _effect(self, kind: Effect) -> None:
        *streams, judging = self.seeds.spawn(kind.seeds + 1)
        rngs = [np.random.default_rng(s) for s in streams]
        outcomes = self.test(rngs=rngs) if self.test.batched else _collect([self.test(rng=rng) for rng in rngs])
        self._keep(kind.judge(outcomes, np.random.default_rng(judging)), None)

    def _instances(self, kind: InstanceKind) -> None:
        for example in self.test.examples:
            self.tried["examples"] += 1
            self._try(kind, example)
        if self.test.space is None or self.broken:  # a hand-picked counterexample is the one to show
            if not self.test.examples:
                self.tried["examples"] += 1
                self._try(kind, {})
            return
        bulk, adversarial = self.seeds.spawn(2)
        if not (self.stop_early and self.broken):
            self._bulk(kind, np.random.default_rng(bulk))
        if not (self.stop_early and self.broken):
            self._hypothesis(kind, int(adversarial.generate_state(1)[0]))

    def _try(self, kind: InstanceKind, instance: Mapping[str, Any]) -> Judgement:
        try:
            judged = kind.judge(self.test(**instance))
        except Exception:
            self.instance = instance
            raise
        self._keep(judged, instance)
        return judged

    def _bulk(self, kind: InstanceKind, rng: np.random.Generator) -> None:
        space = self.test.space
        assert space is not None
        total = max(1, round(self.test.instances * self.strength.bulk))
        for batch in space.batches(total, rng, batch_size=1000 if self.test.batched else 8):
            count = space.length(batch)
            if self.test.batched:
                judged = kind.judge(self.test(**batch), count)
                assert judged.index is not None
                self._keep(judged, space.take(batch, judged.index))
                self.tried["bulk"] += count
            else:
                for i in range(count):
                    self._try(kind, space.take(batch, i))
                    self.tried["bulk"] += 1
                    if self.stop_early and self.broken:
                        break
            if self.stop_early and self.broken:
                return

    def _hypothesis(self, kind: InstanceKind, seed: int) -> None:
        space = self.test.space
        assert space is not None
        found: list[tuple[Judgement, Mapping[str, Any]]] = []

        def attempt(instance: dict[str, Any]) -> None:
            if not found:
                self.tried["hypothesis"] += 1
            judged = self._judge_quietly(kind, instance)
            if judged.verdict == "refuted":
                found.append((judged, instance))
                raise _Refuted
            self._keep(judged, instance)

        examples = self.strength.examples
        if not self.test.batched:  # an instance may be dear: no more of them than the check asks for
            examples = min(examples, max(1, round(self.test.instances * self.strength.bulk)))
        adversarial_search(attempt, space.strategy(), examples, seed)
        if found:
            self.worst, self.instance = found[-1]  # Hypothesis ends on the minimal one

    def _judge_quietly(self, kind: InstanceKind, instance: dict[str, Any]) -> Judgement:
        try:
            return kind.judge(self.test(**instance))
        except MalformedCheck:
            raise
        except Exception:
            self.instance = instance
            raise

    def fail(self, error: Exception) -> None:
        self.error = "".join(traceback.format_exception(error, limit=-6))
        self.worst = Judgement("refuted", f"{type(error).__name__}: {error}", severity=float("inf"))

    def outcome(self, seconds: float) -> Outcome:
        assert self.worst is not None
        kept, python = None, ""
        if self.instance is not None:
            limit = _KEEP_COUNTEREXAMPLE if self.broken else _KEEP_WORST
            if number_count(self.instance) <= limit:
                kept = {k: encode(v) for k, v in self.instance.items()}
                if self.broken:
                    python = ", ".join(f"{k}={as_python(v)}" for k, v in self.instance.items())
        return Outcome(
            verdict="error" if self.error else self.worst.verdict,
            summary=self.worst.summary,
            measured=self.worst.measured,
            part=self.worst.part,
            instances={k: v for k, v in self.tried.items() if v},
            instance=kept,
            python=python,
            error=self.error,
            seconds=seconds,
        )


class _Refuted(Exception):
    """Tells Hypothesis that an instance breaks the claim."""


def _collect(outcomes: list[Any]) -> Any:
    """One outcome a seed -> arrays over seeds (a dict of them where the check has parts)."""
    if isinstance(outcomes[0], Mapping):
        return {part: np.asarray([o[part] for o in outcomes], dtype=float) for part in outcomes[0]}
    return np.asarray(outcomes, dtype=float)


def adversarial_search(attempt: Callable[[Any], None], strategy: Any, examples: int, seed: int) -> None:
    """Let Hypothesis call ``attempt`` until it raises `_Refuted`, then shrink. Returns either way."""
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import seed as with_seed

    configured = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        verbosity=Verbosity.quiet,
        backend=_register_backend(),
    )

    @with_seed(seed)
    @configured
    @given(strategy)
    def search(instance: Any) -> None:
        attempt(instance)

    try:
        search()
    except _Refuted:
        return


def _register_backend() -> str:
    """A Hypothesis backend that never draws constants found in the source of loaded modules.

    Stock Hypothesis does, which makes its examples depend on what the process has imported: two
    workers would then try different instances for the same seed.
    """
    from hypothesis.internal.conjecture import providers

    if "klsim" not in providers.AVAILABLE_PROVIDERS:
        providers.AVAILABLE_PROVIDERS["klsim"] = "klsim.claims.hypothesis_backend.SourceFreeProvider"
    return "klsim"
