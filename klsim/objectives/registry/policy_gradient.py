"""Claims of the policy-gradient family."""

from __future__ import annotations

from functools import partial
from typing import Any

from klsim.objectives import policy_gradient as pg
from klsim.objectives.advantages import advantages, batch_mean, batch_std, group_mean
from klsim.objectives.registry.objective import Objective, by_prompt, terms

__all__ = ["POLICY_GRADIENT"]

_PG = "policy gradient"
_RATIO = "the std of a group (and a mean over the tokens of a batch) is a ratio estimator"


def _reinforce_pp(rewards: Any, group: Any) -> Any:
    return advantages(rewards, group, baseline=batch_mean, scale=batch_std)


def _pro_rl(rewards: Any, group: Any) -> Any:
    return _reinforce_pp(advantages(rewards, group, baseline=group_mean), group)


POLICY_GRADIENT: tuple[Objective, ...] = (
    Objective("reinforce", _PG, "Williams 1992", pg.reinforce, terms({"reward": -1.0}), off_policy="same",
              optimum="best response"),
    Objective("rloo", _PG, "Ahmadian et al. 2024", pg.rloo, terms({"reward": -1.0}), off_policy="same",
              optimum="best response"),
    Objective("grpo", _PG, "DeepSeekMath", pg.grpo, lambda s: {"reward_per_token": -s.std_weight}, "binary",
              "1/length per response, w(p) per prompt", group_size=3, optimum="best response"),
    Objective("grpo, graded rewards", _PG, "DeepSeekMath", pg.grpo, None, "any", _RATIO, group_size=3),
    Objective("dr_grpo", _PG, "Liu et al. 2025", pg.dr_grpo, lambda s: {"reward": -s.correction / s.length},
              bias="none beyond the factor (G-1)/(G T)", group_size=3, optimum="best response"),
    Objective("dapo", _PG, "DAPO 2025", pg.dapo, lambda s: {"reward": -s.std_weight / s.length},
              "binary, equal lengths", "w(p) per prompt", group_size=3, optimum="best response"),
    Objective("dapo, variable lengths", _PG, "DAPO 2025", pg.dapo, None, "binary", _RATIO, group_size=3),
    Objective("gspo", _PG, "Qwen 2025", pg.gspo, lambda s: {"reward_per_token": -s.std_weight}, "binary",
              "as GRPO on-policy", group_size=3, optimum="best response"),
    Objective("reinforce_pp", _PG, "Hu 2025", pg.reinforce_pp, by_prompt(_reinforce_pp), "binary, equal lengths",
              "prompts keep their weight up to O(1/batch)", prompts=2, optimum="best response"),
    Objective("reinforce_pp, group baseline", _PG, "ProRL v2", partial(pg.reinforce_pp, group_baseline=True),
              by_prompt(_pro_rl), "binary, equal lengths", "as above", prompts=2, optimum="best response"),
    Objective("lite_ppo", _PG, "tricks-or-traps", pg.lite_ppo,
              by_prompt(partial(advantages, baseline=group_mean, scale=batch_std)), "binary, equal lengths",
              "the batch's std is one factor for all prompts", prompts=2, optimum="best response"),
    Objective("cispo", _PG, "MiniMax-M1", pg.cispo, lambda s: {"reward": -s.std_weight / s.length},
              "binary, equal lengths", "w(p) per prompt", group_size=3, optimum="best response"),
)  # fmt: skip
"""Rows of the table: policy gradients."""
