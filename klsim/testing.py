"""Assertions for other people's test suites. torch is the only heavy import, and only when they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["assert_gradient"]


def assert_gradient(loss: Callable[..., Any], expect: str, *, lengths: str = "both", **parameters: float) -> None:
    """Assert that a loss descends an objective, exactly, on enumerated token trees::

        assert_gradient(my_loss, expect="reward - beta*reverse_kl(frozen)", beta=0.1)

    Args:
        loss: called with a `klsim.objectives.TokenBatch` of torch tensors, and with those of ``parameters`` that it
            accepts; returns the scalar to minimise (or it and a dict).
        expect: the objective to ascend, up to a positive factor: a sum of the functionals of
            `klsim.learning.functional_gradient` with number or parameter factors.
        lengths: ``"equal"``, ``"variable"`` or ``"both"``: losses that divide by lengths pass with equal ones only.

    Raises:
        AssertionError: it does not; says what it descends instead. ValueError, TypeError: see `klsim.audit.audit`.
    """
    __tracebackhide__ = True
    import inspect

    from klsim.audit import audit
    from klsim.audit.measure import combination_text, effect_text
    from klsim.audit.targets import Target

    accepted = inspect.signature(loss).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    given = {k: v for k, v in parameters.items() if takes_all or k in accepted}

    def build(**changes: float) -> Any:
        return lambda batch: loss(batch, **changes)

    found = audit(
        Target(getattr(loss, "__name__", "loss"), build, given), expect=expect, lengths=lengths, parameters=parameters
    )
    if found.met:
        return
    lines = [f"{found.target} does not descend -({found.expectation.text if found.expectation else expect}):"]
    lines += [f"  {m.world}: best scale {m.scale:.3g}, residual {m.residual:.1e}" for m in found.expected]
    lines.append(f"  it descends {combination_text(found.equal)} (equal lengths, residual {found.equal.residual:.0e})")
    lines.append(
        f"              {combination_text(found.variable)} (variable lengths, residual {found.variable.residual:.0e})"
    )
    for effect in found.effects:
        lines.append(f"  {effect.parameter} = {effect.value:g}, per unit: {effect_text(effect)}")
    lines.append(f"  {found.verdict}")
    raise AssertionError("\n".join(lines))
