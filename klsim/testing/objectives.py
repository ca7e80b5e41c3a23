"""Whether a loss keeps the contract of every objective: for people who add one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["check_objective"]


def check_objective(loss: Callable[..., Any], **parameters: float) -> None:
    """Assert what `klsim.lm.ObjectiveTrainer`, ``klsim train`` and the audit rely on, whatever the loss is meant to do.

    It returns a finite scalar tensor with a gradient, alone or with a dict of finite numbers; the same for the same
    batch, which it does not write to; nothing changes with what stands at masked positions, or when a batch is cut to
    its longest response; groups may come in any order, and responses within a group; a response that is masked
    altogether leaves it finite. What it descends is `klsim.testing.assert_gradient`'s business.

    Args:
        loss: called with a `klsim.objectives.TokenBatch` of torch tensors and with ``parameters``.

    Raises:
        AssertionError: what does not hold.
        TypeError: it does not return a scalar tensor (or one and a dict). And what the loss itself raises.
    """
    __tracebackhide__ = True
    from klsim.audit import Target, audit

    def build(**changes: float) -> Any:
        return lambda batch: _returned(loss, batch, changes)

    name = getattr(loss, "__name__", "loss")
    try:
        found = audit(Target(name, build, parameters), quick=True)
    except ValueError as error:  # random, dependent on order, or not finite
        raise AssertionError(f"{name}: {error}") from error
    broken = [
        text
        for text, holds in (
            ("depends on masked positions", not found.properties.masked),
            ("depends on the width to which a batch is padded", not found.properties.trimmed),
            (f"responses that are masked altogether: {found.properties.cut}", not found.properties.cut),
        )
        if not holds
    ]
    if broken:
        raise AssertionError(f"{name}: {'; '.join(broken)}")


def _returned(loss: Callable[..., Any], batch: Any, parameters: dict[str, float]) -> Any:
    """What the loss returns, its metrics and the untouched batch checked on the way."""
    __tracebackhide__ = True
    import math

    import torch

    tensors = {k: v for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    before = {k: v.detach().clone() for k, v in tensors.items()}
    found = loss(batch, **parameters)
    changed = [k for k, v in tensors.items() if not torch.equal(v.detach(), before[k])]
    if changed:
        raise AssertionError(f"it writes to the batch: {', '.join(changed)}")
    for name, value in (found[1] if isinstance(found, tuple) else {}).items():
        if not math.isfinite(float(value)):
            raise AssertionError(f"metric {name!r} = {float(value)}: must be finite")
    return found
