"""The losses that `klsim.lm` trains with, by the names and options of `klsim.objectives.registry`.

``named("g_opd", lam=1.25, aggregate="sequence_sum")`` is ``partial(klsim.objectives.g_opd, …)``: the very function that
is proven on tables. ``named("rloo", kl={"place": "reward", "beta": 0.1})`` is `klsim.objectives.rloo` of the batch that
`klsim.objectives.kl_in_reward` returns; ``"place": "loss"`` adds ``beta`` times `klsim.objectives.kl_in_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from klsim.objectives import Loss
from klsim.objectives.registry import LOSSES, LossFunction, fields_needed, near
from klsim.objectives.registry import named as of_registry

__all__ = ["LossFunction", "losses", "named", "near", "needs"]

_NOT_HERE = frozenset({"rollout_log_probs", "values", "preferred", "greedy_rewards", "external"})
"""Fields of a batch that the trainers of this package do not fill."""


def losses() -> Mapping[str, Callable[..., Loss]]:
    """The losses that the trainers can run: of tokens that the policy drew, with fields that they fill; by name."""
    return {
        name: loss.function
        for name, loss in LOSSES.items()
        if loss.own_tokens and not any(option.required for option in loss.options) and not loss.needs & _NOT_HERE
    }


def named(name: str, **parameters: Any) -> LossFunction:
    """`klsim.objectives.registry.named` among `losses`.

    Raises:
        ValueError: a loss that the trainers cannot run, and what the registry raises.
    """
    if name not in losses():
        raise ValueError(f"objective {name!r}: no such objective{near(name, losses())}")
    return of_registry(name, **parameters)


def needs(loss: LossFunction) -> frozenset[str]:
    """Which optional fields of a batch a loss asks for, such as ``"ref_log_probs"``: it is tried on one that has all.

    Raises:
        ValueError, TypeError: what the loss raises, for instance about its parameters.
    """

    def tensor(x: np.ndarray) -> torch.Tensor:
        made = torch.from_numpy(x.copy())
        return made.to(torch.float32).requires_grad_() if made.is_floating_point() else made

    return fields_needed(loss, tensor)
