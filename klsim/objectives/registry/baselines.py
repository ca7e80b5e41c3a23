"""Claims of the baselines beyond the group mean."""

from __future__ import annotations

from functools import partial
from typing import Any

from klsim.objectives import baselines
from klsim.objectives.advantages import advantages, group_mean
from klsim.objectives.batch import Loss, TokenBatch
from klsim.objectives.registry.objective import Objective, Where, by_prompt, terms

__all__ = ["BASELINES"]

_BASE = "baseline"
_EQUAL: Where = "binary, equal lengths"
_GREEDY = 0.3


def _gpg(rewards: Any, group: Any) -> Any:
    return baselines.gpg_factor(rewards, group) * advantages(rewards, group, baseline=group_mean)


def _gpg_nonzero(rewards: Any, group: Any) -> Any:
    return baselines.gpg_factor(rewards, group, count="nonzero") * advantages(rewards, group, baseline=group_mean)


def _remax(batch: TokenBatch) -> Loss:
    greedy = batch.xp.zeros_like(batch.total_rewards()) + _GREEDY
    return baselines.remax(batch.replace(greedy_rewards=greedy))


BASELINES: tuple[Objective, ...] = (
    Objective("gpg", _BASE, "Chu et al. 2025", baselines.gpg, lambda s: {"reward": -s.correction / s.length}, _EQUAL,
              "none with one prompt", group_size=3, optimum="best response"),
    Objective("gpg, two prompts", _BASE, "Chu et al. 2025", baselines.gpg, by_prompt(_gpg), _EQUAL,
              "a prompt weighs more beside one without contrast", prompts=2, group_size=2),
    Objective("gpg, verl's count", _BASE, "verl", partial(baselines.gpg, count="nonzero"), by_prompt(_gpg_nonzero),
              _EQUAL, "the fewer right answers, the larger the step: depends on the sign and offset of rewards",
              prompts=2, group_size=2),
    Objective("opo", _BASE, "Hao et al. 2025", baselines.opo, lambda s: {"reward": -s.correction}, "equal lengths",
              "the group mean", group_size=3, optimum="best response"),
    Objective("opo, variable lengths", _BASE, "Hao et al. 2025", baselines.opo, None,
              bias="a response's share of its own baseline grows with its length", group_size=3),
    Objective("remax", _BASE, "Li et al. 2024", _remax, terms({"reward": -1.0}), optimum="best response"),
    Objective("optimal_token_baseline", _BASE, "Li et al. 2026", baselines.optimal_token_baseline, None,
              bias="the baseline contains the response, weighted by its own score norms", group_size=3),
    Objective("optimal_token_baseline, leave one out", _BASE, "Li et al. 2026",
              partial(baselines.optimal_token_baseline, leave_one_out=True), terms({"reward": -1.0}), group_size=3,
              optimum="best response"),
    Objective("reinforce_pp_token", _BASE, "Hu 2025", baselines.reinforce_pp_token, None, "binary",
              "the batch's moments, over tokens, contain the response", group_size=3),
)  # fmt: skip
"""Rows of the table: baselines of policy gradients."""
