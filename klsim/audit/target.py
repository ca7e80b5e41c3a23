"""What can be audited, and the values of its options."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from klsim.objectives.batch import TokenBatch

__all__ = ["LossFunction", "Target", "from_function", "numeric_options", "option_value", "strict_value"]

LossFunction = Callable[[TokenBatch], Any]
"""A loss of a batch: the scalar to minimise, or it and a dict of metrics."""


@dataclass(frozen=True)
class Target:
    """Something to audit.

    Attributes:
        name: as given. build: parameters -> loss. parameters: its numeric options and their values, which the audit
            varies. version: of the package that the loss comes from, ``""`` for a plain function.
    """

    name: str
    build: Callable[..., LossFunction]
    parameters: Mapping[str, float] = field(default_factory=dict)
    version: str = ""

    def loss(self, **changes: float) -> LossFunction:
        """The loss with some parameters changed."""
        return self.build(**{**self.parameters, **changes})


def option_value(text: str) -> Any:
    """A number or a boolean where it is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def strict_value(target: str, name: str, text: str, default: Any) -> Any:
    """An option's value as the type of its default demands.

    Raises:
        ValueError: no number where the default is one, no truth value where it is one.
    """
    value = option_value(text)
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"target {target!r}: {name}={text} must be true or false")
    if isinstance(default, bool) or not isinstance(default, int | float):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"target {target!r}: {name}={text} is no number")
    if isinstance(default, int):
        if value != int(value):
            raise ValueError(f"target {target!r}: {name}={text} must be a whole number")
        return int(value)
    return float(value)


def numeric_options(options: Mapping[str, Any]) -> dict[str, float]:
    """Those that are numbers."""
    return {k: v for k, v in options.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def from_function(text: str, function: Callable[..., Any], options: Mapping[str, str] | None = None) -> Target:
    """A function of a batch; keyword parameters with numeric defaults are its parameters.

    Raises:
        ValueError: an unknown option, or a value that does not fit its default.
    """
    options = options or {}
    numeric: dict[str, float] = {}
    fixed: dict[str, Any] = {}
    known = set()
    for parameter in _parameters(function)[1:]:
        name, default = parameter.name, parameter.default
        known.add(name)
        value = strict_value(text, name, options[name], default) if name in options else default
        if isinstance(value, int | float) and not isinstance(value, bool):
            numeric[name] = value
        elif name in options:
            fixed[name] = value
    unknown = set(options) - known
    if unknown:
        name = getattr(function, "__name__", "it")
        raise ValueError(f"target {text!r}: {name} has no parameter {sorted(unknown)[0]!r}")

    def build(**parameters: float) -> LossFunction:
        return lambda batch: function(batch, **fixed, **parameters)

    return Target(text, build, numeric)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Of a function; none of what does not say them."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
