"""Hypothesis as an adversary: edge cases, pushed towards the threshold (`hypothesis.target`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["attack"]


class _Found(Exception):
    """Ends the search: an instance breaks the claim."""


def attack(attempt: Callable[[Any], float | None], strategy: Any, examples: int, seed: int) -> None:
    """Let Hypothesis call ``attempt`` with up to ``examples`` draws.

    ``attempt`` returns how near the draw is to breaking the claim, None if it is outside the assumptions, or ``inf``
    to stop.
    """
    from hypothesis import HealthCheck, Phase, Verbosity, assume, given, settings, target
    from hypothesis import seed as with_seed

    @with_seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.target),
        verbosity=Verbosity.quiet,
        backend=_backend(),
    )
    @given(strategy)
    def run(instance: Any) -> None:
        reached = attempt(instance)
        assume(reached is not None)
        assert reached is not None
        if reached == math.inf:
            raise _Found
        if math.isfinite(reached):
            target(reached)

    try:
        run()
    except _Found:
        return


def _backend() -> str:
    """A backend that never draws constants found in the source of loaded modules.

    Stock Hypothesis does, which makes its examples depend on what the process has imported: two workers would then
    try different instances for the same seed. Where a release has moved these internals, the stock backend is used.
    """
    try:
        from hypothesis.internal.conjecture import providers

        import klsim.claims.hypothesis_backend  # noqa: F401
    except (ImportError, AttributeError):
        return "hypothesis"
    providers.AVAILABLE_PROVIDERS.setdefault("klsim", "klsim.claims.hypothesis_backend.SourceFreeProvider")
    return "klsim"
