"""klsim's own objectives, by the names and options of `klsim.objectives.registry`: ``klsim:grpo?clip=0.2,0.28``.

Rows of its table that are no function's have their own names: ``klsim:rloo + k1 in the reward``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import klsim
from klsim.audit.batches import AuditBatch
from klsim.audit.target import LossFunction, Target
from klsim.objectives.batch import TokenBatch
from klsim.objectives.registry import LOSSES, resolve

__all__ = ["load"]


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """An objective of the registry, on validated batches as its users have them; its options that are numbers vary.

    Raises:
        ValueError: there is no such objective or option, or a value does not fit.
    """

    def build(**parameters: float) -> LossFunction:
        given = dict(options) | {key: repr(value) for key, value in parameters.items()}
        loss = resolve(_address(name, given))

        def run(batch: TokenBatch) -> Any:
            return loss(batch.validated() if isinstance(batch, AuditBatch) else batch)

        return run

    try:
        build()
    except ValueError as error:
        raise ValueError(f"target {text!r}: {error} (see klsim objectives --list)") from None
    return Target(text, build, _numbers(name, options), klsim.__version__)


def _address(name: str, options: Mapping[str, str]) -> str:
    return name + ("?" + "&".join(f"{key}={value}" for key, value in options.items()) if options else "")


def _numbers(name: str, options: Mapping[str, str]) -> dict[str, float]:
    """The finite numbers among the options, defaults included."""
    if name not in LOSSES:
        return {}
    out: dict[str, float] = {}
    for option in LOSSES[name].options:
        value = option.parse(name, options[option.name]) if option.name in options else option.default
        if option.kind in ("number", "integer") and isinstance(value, int | float) and math.isfinite(value):
            out[option.name] = value
    return out | ({"kl.beta": float(options["kl.beta"])} if "kl.beta" in options else {})
