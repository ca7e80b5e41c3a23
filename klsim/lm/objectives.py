"""A klsim objective by its name and parameters, as a configuration file gives them.

``{"name": "g_opd", "lam": 1.25, "aggregate": "sequence_sum"}`` is
``partial(klsim.objectives.g_opd, lam=1.25, aggregate=sequence_sum)``: the very function that is proven on tables.
``{"name": "rloo", "kl": {"place": "reward", "beta": 0.1}}`` is `klsim.objectives.rloo` of the batch that
`klsim.objectives.kl_in_reward` returns; ``"place": "loss"`` adds ``beta`` times `klsim.objectives.kl_in_loss`.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch

from klsim import _validate, objectives
from klsim.objectives import Loss, TokenBatch
from klsim.objectives import policy_gradient as pg

__all__ = ["LossFunction", "losses", "named", "near", "needs"]

LossFunction = Callable[[TokenBatch], Loss]

_AGGREGATES = {f.__name__: f for f in (objectives.sequence_sum, objectives.sequence_mean, objectives.token_mean)}
_RATIOS = {f.__name__: f for f in (pg.token_ratio, pg.sequence_ratio, pg.geometric_mean_ratio)}
_OF_GIVEN_TOKENS = ("sft", "dph_rl")
"""Losses of tokens that the reference drew, or a data set holds; on the policy's own tokens they mean nothing."""
_NAMED: dict[str, Mapping[str, Any]] = {"aggregate": _AGGREGATES, "ratio": _RATIOS}


def near(name: str, known: Iterable[str]) -> str:
    """``"; near: a, b"``, or all the known names if none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    return f"; near: {', '.join(close)}" if close else f"; known: {', '.join(names)}"


def losses() -> Mapping[str, Callable[..., Loss]]:
    """The losses of `klsim.objectives` for tokens that the policy drew, which take a batch and parameters, by name."""
    found = {}
    for name in objectives.__all__:
        if name in _OF_GIVEN_TOKENS:
            continue
        function = getattr(objectives, name)
        if not inspect.isfunction(function) or inspect.signature(function).return_annotation != "Loss":
            continue
        _, *others = inspect.signature(function).parameters.values()
        if all(p.default is not p.empty or p.name == "beta" for p in others):
            found[name] = function
    return found


def named(name: str, **parameters: Any) -> LossFunction:
    """The objective, a function of a `klsim.objectives.TokenBatch`.

    Args:
        name: one of `losses`.
        parameters: its keyword parameters. ``aggregate``: ``"token_mean"``, ``"sequence_mean"``, ``"sequence_sum"`` or
            a number L (sums divided by L). ``ratio``: ``"token_ratio"``, ``"sequence_ratio"``,
            ``"geometric_mean_ratio"``. ``kl``: ``{"place": "reward" | "loss", "beta": …}`` and, as in
            `klsim.objectives.kl_in_loss`, ``against``, ``estimator``, ``importance``, ``aggregate``.

    Raises:
        ValueError: an unknown name or parameter (with the near ones), or a parameter that is missing.
    """
    known = losses()
    if name not in known:
        raise ValueError(f"objective {name!r}: no such objective{near(name, known)}")
    kl = parameters.pop("kl", None)
    loss: LossFunction = _bound(f"objective {name!r}", known[name], parameters)
    return loss if kl is None else _with_kl(name, loss, kl)


def _bound(where: str, function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    _, *accepted = inspect.signature(function).parameters.values()
    names = [p.name for p in accepted]
    for key in parameters:
        if key not in names:
            raise ValueError(f"{where}: no parameter {key!r}{near(key, names) if names else ''}")
    missing = [p.name for p in accepted if p.default is p.empty and p.name not in parameters]
    if missing:
        raise ValueError(f"{where}: parameter {missing[0]!r} is missing")
    return partial(function, **{key: _value(where, key, value) for key, value in parameters.items()})


def _value(where: str, key: str, value: Any) -> Any:
    if key == "aggregate" and isinstance(value, int | float) and not isinstance(value, bool):
        return objectives.fixed_length(value)
    if key in _NAMED:
        choices = _NAMED[key]
        if value not in choices:
            raise ValueError(f"{where}: {key} = {value!r}{near(str(value), choices)}")
        return choices[value]
    return tuple(value) if isinstance(value, list) else value


def _with_kl(name: str, loss: LossFunction, kl: Mapping[str, Any]) -> LossFunction:
    where = f"objective {name!r}: kl"
    if not isinstance(kl, Mapping):
        raise ValueError(f"{where}: must be a table, got {kl!r}")
    options = dict(kl)
    place = options.pop("place", None)
    if place not in ("reward", "loss"):
        raise ValueError(f"{where}: place must be 'reward' or 'loss', got {place!r}")
    if place == "reward":
        regularized = _bound(where, objectives.kl_in_reward, options)
        return lambda batch: loss(regularized(batch))
    if "beta" not in options:
        raise ValueError(f"{where}: parameter 'beta' is missing")
    beta = _validate.real(f"{where}: beta", options.pop("beta"), low=0.0)
    penalty = _bound(where, objectives.kl_in_loss, options)

    def total(batch: TokenBatch) -> Loss:
        main, metrics = loss(batch)
        extra, more = penalty(batch)
        return main + beta * extra, metrics | more

    return total


def needs(loss: LossFunction) -> frozenset[str]:
    """Which optional fields of a batch a loss asks for, such as ``"ref_log_probs"``: it is tried on one that has all.

    Raises:
        ValueError, TypeError: what the loss raises, for instance about its parameters.
    """
    asked: set[str] = set()

    class Asked(TokenBatch):
        def need(self, *names: str) -> tuple[Any, ...]:
            asked.update(names)
            return super().need(*names)

    pair, vocab = torch.full((2, 2), -math.log(2.0)), torch.full((2, 2, 2), -math.log(2.0))
    loss(
        Asked(
            log_probs=pair.clone().requires_grad_(),
            ref_log_probs=pair,
            teacher_log_probs=pair,
            rewards=torch.tensor([0.0, 1.0]),
            tokens=torch.tensor([[0, 1], [1, 0]]),
            vocab_log_probs=vocab.clone().requires_grad_(),
            old_vocab_log_probs=vocab,
            ref_vocab_log_probs=vocab,
            teacher_vocab_log_probs=vocab,
        )
    )
    return frozenset(asked)
