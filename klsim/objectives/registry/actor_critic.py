"""Claims of PPO with a value head and of the entropy bonus."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from klsim._sums import detach
from klsim.objectives import actor_critic
from klsim.objectives.aggregate import sequence_sum
from klsim.objectives.batch import Loss, TokenBatch
from klsim.objectives.registry.objective import Objective, terms

__all__ = ["ACTOR_CRITIC"]

_CRITIC = "actor-critic"


def _wrong_values(loss: Callable[[TokenBatch], Loss]) -> Callable[[TokenBatch], Loss]:
    """With a value function of the prefix that has nothing to do with the rewards."""

    def with_values(batch: TokenBatch) -> Loss:
        ref, teacher = batch.need("ref_vocab_log_probs", "teacher_vocab_log_probs")
        values = batch.xp.sum(batch.xp.exp(ref) * teacher, axis=-1)
        return loss(batch.replace(values=detach(values)))

    return with_values


_PPO = partial(actor_critic.ppo, clip=(math.inf, math.inf), whiten="none", aggregate=sequence_sum)

ACTOR_CRITIC: tuple[Objective, ...] = (
    Objective("ppo, lam 1, not whitened, summed", _CRITIC, "Schulman et al. 2017",
              _wrong_values(partial(_PPO, lam=1.0)), terms({"reward": -1.0}), bias="none, whatever the value function",
              optimum="best response"),
    Objective("ppo, lam 0.5, not whitened, summed", _CRITIC, "Schulman et al. 2017",
              _wrong_values(partial(_PPO, lam=0.5)), None, bias="a value function that is wrong"),
    Objective("ppo", _CRITIC, "Schulman et al. 2017", _wrong_values(actor_critic.ppo), None,
              bias="whitening by the batch's own moments, token mean, a value function that is wrong", group_size=3),
    Objective("entropy_bonus, summed", _CRITIC, "Williams and Peng 1991",
              partial(actor_critic.entropy_bonus, aggregate=sequence_sum), terms({"entropy(frozen)": -0.01}),
              off_policy="same", bias="visits held fixed: not the entropy of sequences"),
    Objective("entropy_bonus", _CRITIC, "TRL", actor_critic.entropy_bonus,
              lambda s: {"entropy(frozen)": -0.01 / s.length}, "equal lengths", "as above", off_policy="same"),
)  # fmt: skip
"""Rows of the table: PPO with values, and entropy bonuses."""
