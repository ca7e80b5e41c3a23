"""Claims of the corrections for another sampler, and of losses on old data.

For the sampler's corrections the off-policy column is a sampler that differs from the trainer, whose own policy is
current (``pi = old != mu``): the first update after sampling with another engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from klsim.objectives import rollout
from klsim.objectives.aggregate import sequence_sum
from klsim.objectives.batch import Loss, TokenBatch
from klsim.objectives.registry.objective import BETA, Coefficients, Objective, Setting, Where, terms

__all__ = ["ROLLOUT"]

_SAMPLER, _OLD = "another sampler", "old data"
_EQUAL: Where = "binary, equal lengths"
_PLAIN = "without mismatch GRPO with a token mean: w(p) per prompt"


def _sampler(loss: Callable[[TokenBatch], Loss]) -> Callable[[TokenBatch], Loss]:
    """The behaviour law is the sampler; the trainer's old policy is the current one."""
    return lambda batch: loss(batch.replace(rollout_log_probs=batch.old_log_probs, old_log_probs=None))


def _token_mean(s: Setting) -> Coefficients:
    return {"reward": -s.std_weight / s.length}


def _sequence_mean(s: Setting) -> Coefficients:
    return {"reward_per_token": -s.std_weight}


ROLLOUT: tuple[Objective, ...] = (
    Objective("tis", _SAMPLER, "Yao et al. 2025", _sampler(rollout.tis), _token_mean, _EQUAL, _PLAIN, group_size=3),
    Objective("tis, sequence, no cap, no std, summed", _SAMPLER, "Yao et al. 2025",
              _sampler(partial(rollout.tis, level="sequence", high=math.inf, std=False, aggregate=sequence_sum)),
              lambda s: {"reward": -s.correction}, off_policy="same", group_size=3,
              bias="none beyond (G-1)/G"),
    Objective("mis", _SAMPLER, "TRL", _sampler(rollout.mis), _token_mean, _EQUAL, _PLAIN, group_size=3),
    Objective("icepop", _SAMPLER, "Ring-1T", _sampler(rollout.icepop), _sequence_mean, "binary",
              "without mismatch GRPO: 1/length per response, w(p) per prompt", group_size=3),
    Objective("decoupled_ppo", _SAMPLER, "Hilton et al. 2022", _sampler(rollout.decoupled_ppo), _token_mean, _EQUAL,
              _PLAIN, group_size=3),
    Objective("off_policy_masked", _OLD, "DeepSeek-V3.2", rollout.off_policy_masked, _sequence_mean, "binary",
              "on-policy GRPO: 1/length per response, w(p) per prompt", group_size=3),
    Objective("topr", _OLD, "Le Roux et al. 2025", partial(rollout.topr, baseline=0.5), terms({"reward": -1.0}),
              bias="none on-policy", optimum="best response"),
    Objective("topr, no taper", _OLD, "Le Roux et al. 2025",
              partial(rollout.topr, baseline=0.5, positive=(0.0, math.inf), negative=(0.0, math.inf)),
              terms({"reward": -1.0}), off_policy="same"),
    Objective("dro", _OLD, "Richemond et al. 2024", partial(rollout.dro, beta=BETA),
              terms({"reward": -BETA, "reverse_kl": BETA * BETA}), bias="none; the minimum is the same off-policy"),
    Objective("dro, token", _OLD, "Tinker", partial(rollout.dro, form="token", beta=BETA),
              lambda s: {"reward": -s.correction}, bias="the penalty has no gradient on-policy", group_size=3,
              optimum="best response"),
)  # fmt: skip
"""Rows of the table: corrections for a sampler that differs from the old policy."""
