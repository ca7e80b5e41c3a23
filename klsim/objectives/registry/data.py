"""Claims of losses on other people's or chosen data."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from klsim.objectives import off_policy
from klsim.objectives.advantages import advantages, group_mean, group_std
from klsim.objectives.batch import Loss, TokenBatch
from klsim.objectives.registry.objective import BETA, Objective, summed

__all__ = ["DATA"]

_DATA = "off-policy and data"


def _band(rewards: Any, group: Any) -> Any:
    """Advantages of difficulty filtering, one group."""
    kept = off_policy.keep_by_success(rewards, group)
    return np.where(kept, advantages(rewards, group, baseline=group_mean, scale=group_std), 0.0)


def _after_one(batch: TokenBatch) -> Loss:
    return off_policy.prefix_rl(batch, batch.xp.ones(batch.log_probs.shape[0], dtype=batch.xp.int64))


def _wrong(batch: TokenBatch) -> Loss:
    return off_policy.self_objective(batch, batch.xp.ones(batch.log_probs.shape[0], dtype=batch.xp.bool), beta=BETA)


DATA: tuple[Objective, ...] = (
    Objective("rl_plus", _DATA, "rl-plus C1", partial(off_policy.rl_plus, vocab_size=3), None, "binary",
              "external samples alone do not make the ratio unbiased", group_size=2, external=1),
    Objective("prefix_rl", _DATA, "prefixrl C8", _after_one, lambda s: {"reward": -s.correction}, prefix=(1,),
              optimum="best response"),
    Objective("difficulty filtering", _DATA, "difficulty-filtering", off_policy.difficulty_filtering,
              lambda s: {"reward_per_token": -float(s.weight(_band)[0])}, "binary",
              "prompts weighted by the chance to fall into the band", group_size=4, optimum="best response"),
    Objective("self", _DATA, "reasoning-boundary", _wrong,
              lambda s: {"reward": -s.std_weight / s.length, "forward_kl(frozen)": BETA / s.length},
              "binary, equal lengths", "1/length weights; only where the greedy answer is wrong", group_size=3),
    Objective("rover, summed", _DATA, "rover C6", summed(off_policy.rover), lambda s: {"reward": -2 * s.correction},
              bias="at pi = old: the reward gradient, not the value it regresses", optimum="best response"),
    Objective("rover", _DATA, "rover C6", off_policy.rover,
              lambda s: {"reward": -2 * s.correction / s.length}, "equal lengths",
              "at pi = old: the reward gradient, not the value it regresses; 1/length"),
)  # fmt: skip
"""Rows of the table: foreign responses, prefixes and filters."""
