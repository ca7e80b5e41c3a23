"""Whole-vocabulary objectives without ``[B, T, V]``: which losses of `klsim.lm.vocab_losses` compute them.

`klsim.objectives.g_opd_full`, `gkd` and `divergence` are aggregates of a value a token, and every aggregate of
`klsim.objectives` is linear in them: the same objective is a sum over tokens with weights ``d aggregate / d value``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from klsim import objectives
from klsim.lm.objectives import LossFunction
from klsim.lm.vocab_losses import LinearHead, linear_divergence, linear_g_opd, linear_gkd
from klsim.objectives.aggregate import Aggregate

__all__ = ["Chunked", "chunked", "token_weights"]


@dataclass(frozen=True)
class Chunked:
    """An objective as a weighted sum over tokens.

    Attributes:
        laws: what it compares the policy with, out of ``"ref"`` and ``"teacher"``.
        aggregate: from one value a token to the scalar.
        loss: ``(student, {law: head}, weights [N], temperature) -> scalar``.
    """

    laws: tuple[str, ...]
    aggregate: Aggregate
    loss: Callable[[LinearHead, Mapping[str, LinearHead], torch.Tensor, float], torch.Tensor]


def chunked(objective: LossFunction) -> Chunked | None:
    """The chunked form of an objective that `klsim.lm.objectives.named` gave; None if it has none."""
    function, given = (objective.func, objective.keywords) if isinstance(objective, partial) else (objective, {})
    if function not in (objectives.g_opd_full, objectives.gkd, objectives.divergence):
        return None
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    options = {name: given.get(name, default) for name, default in defaults.items() if name != "batch"}
    aggregate: Any = options["aggregate"]
    if function is objectives.g_opd_full:
        lam = options["lam"]
        laws: tuple[str, ...] = ("teacher",) if lam == 1 else ("teacher", "ref")
        return Chunked(laws, aggregate, partial(_g_opd, lam=lam))
    if function is objectives.gkd:
        return Chunked(("teacher",), aggregate, partial(_pair, linear_gkd, law="teacher", mix=options["mix"]))
    law = options["against"]
    return Chunked((law,), aggregate, partial(_pair, linear_divergence, law=law, generator=options["generator"]))


def token_weights(aggregate: Aggregate, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``d aggregate(values, mask) / d values``, ``[B, T]``; any aggregate of `klsim.objectives` is linear."""
    with torch.enable_grad():
        values = torch.zeros(mask.shape, dtype=dtype, device=mask.device, requires_grad=True)
        (weights,) = torch.autograd.grad(aggregate(values, mask), values)
    return weights


def _g_opd(
    student: LinearHead, others: Mapping[str, LinearHead], weights: torch.Tensor, temperature: float, *, lam: float
) -> torch.Tensor:
    return linear_g_opd(
        student, others["teacher"], others.get("ref"), lam=lam, token_weights=weights, temperature=temperature
    )


def _pair(
    function: Callable[..., torch.Tensor], student: LinearHead, others: Mapping[str, LinearHead],
    weights: torch.Tensor, temperature: float, *, law: str, **options: Any,
) -> torch.Tensor:  # fmt: skip
    other = others[law]
    return function(
        student.hidden, student.weight, other.hidden, other.weight, student_bias=student.bias, teacher_bias=other.bias,
        token_weights=weights, temperature=temperature, **options,
    )  # fmt: skip
