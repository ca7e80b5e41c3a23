"""Assertions for other people's test suites. torch is the only heavy import, and only when they are called.

`assert_claims` says whether claims come out as expected, `assert_gradient` what a loss descends; `check_objective`,
`check_generator` and `check_problem` hold extensions of klsim to their contracts (docs/extending.md). pytest collects
the claims of ``claims.py`` files (`klsim.testing.pytest_plugin`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from klsim.testing.claims import assert_claims
from klsim.testing.generators import check_generator
from klsim.testing.objectives import check_objective
from klsim.testing.problems import check_problem

__all__ = ["assert_claims", "assert_gradient", "check_generator", "check_objective", "check_problem"]

QUICK = ("lengths", "two prompts", "holes", "graded rewards", "large batch", "pairs")
"""The worlds of ``quick=True``."""


def assert_gradient(
    loss: Callable[..., Any],
    expect: str,
    *,
    lengths: str = "both",
    any_scale: bool = False,
    any_prompt_weight: bool = False,
    off_policy: str = "report",
    responses: str = "own",
    rewards: str = "all",
    vocab: int | None = None,
    terms: dict[str, Callable[..., Any]] | None = None,
    must_act: Sequence[str] = (),
    quick: bool = False,
    **parameters: float,
) -> None:
    """Assert that a loss descends an objective, exactly, in every world of the audit::

        assert_gradient(my_loss, expect="reward - beta*reverse_kl(frozen)", beta=0.1)

    Args:
        loss: called with a `klsim.objectives.TokenBatch` of torch tensors whose masked positions hold junk, and with
            those of ``parameters`` that it accepts; returns the scalar to minimise (or it and a dict).
        expect: the objective to ascend: a sum of the functionals of `klsim.learning.functionals` with factors that are
            numbers or parameters.
        lengths: ``"equal"``, ``"variable"`` or ``"both"``: losses that divide by lengths pass with equal ones only.
        any_scale, any_prompt_weight, off_policy, responses, rewards, vocab, terms, must_act: as in
            `klsim.audit.audit`.
        quick: only in the worlds `QUICK`; a failure names those that were left out.

    Raises:
        AssertionError: it does not; says where, on what it depends, and what it descends instead.
        ValueError, TypeError: see `klsim.audit.audit`.
    """
    __tracebackhide__ = True
    import inspect

    from klsim.audit import Target, audit

    accepted = inspect.signature(loss).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    given = {k: v for k, v in parameters.items() if takes_all or k in accepted}

    def build(**changes: float) -> Any:
        return lambda batch: loss(batch, **changes)

    target = Target(getattr(loss, "__name__", "loss"), build, given)
    options: dict[str, Any] = {
        "lengths": lengths, "parameters": parameters, "off_policy": off_policy, "responses": responses,
        "scale": "any" if any_scale else "prompt" if any_prompt_weight else "one", "rewards": rewards, "vocab": vocab,
        "terms": terms, "must_act": must_act, "worlds": QUICK if quick else None,
    }  # fmt: skip
    if audit(target, expect=expect, quick=True, **options).met:
        return
    raise AssertionError(_message(audit(target, expect=expect, **options)))


def _message(found: Any) -> str:
    """Where it fails, and what it descends instead."""
    from klsim.audit.identify import combination_text
    from klsim.audit.verdict import effect_text, met_text

    lines = [f"{found.target} does not descend -({found.expectation.text}):"]
    lines += [f"  {m.world}: {met_text(m)}" for m in found.expected if not m.met]
    lines += [f"  it descends {combination_text(combination)} ({name})" for name, combination in found.found.items()]
    lines += [f"  {e.parameter} = {e.value:g}, per unit: {effect_text(e)}" for e in found.effects]
    return "\n".join([*lines, f"  {found.verdict}"])
