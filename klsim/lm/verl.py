r"""klsim's policy-gradient losses and advantage estimators in verl's registries.

After `register`, ``actor_rollout_ref.actor.policy_loss.loss_mode=klsim_gspo`` and
``algorithm.adv_estimator=klsim_rloo`` name them. With ``VERL_USE_EXTERNAL_MODULES=klsim.lm.verl_plugin`` in the
environment every process of verl registers them by itself.

A loss keeps its own aggregation over tokens, as its definition says: verl's ``loss_agg_mode`` acts on verl's KL and
entropy terms only. verl adds up micro-batches that were normalised by the sizes of the whole batch, so the loss of a
micro-batch is multiplied by its share of the batch: of the tokens where the loss is a mean over tokens, else of the
responses. verl hands a loss advantages, not rewards, and neither groups nor teachers; losses that need those are not
registered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from klsim import objectives as o
from klsim.objectives import Loss, TokenBatch

__all__ = ["ADVANTAGES", "LOSSES", "register"]

TOKENS, RESPONSES = "token-mean", "seq-mean-token-mean"

LOSSES: Mapping[str, tuple[Callable[[TokenBatch], Loss], str]] = {
    "reinforce": (o.reinforce, RESPONSES),
    "rloo": (o.rloo, RESPONSES),
    "grpo": (o.grpo, RESPONSES),
    "dr_grpo": (o.dr_grpo, RESPONSES),
    "gspo": (o.gspo, RESPONSES),
    "dapo": (partial(o.dapo, dynamic_sampling=False), TOKENS),  # verl filters groups itself
    "cispo": (o.cispo, TOKENS),
    "reinforce_pp": (o.reinforce_pp, TOKENS),
}
"""Losses of advantages, and what they are means over."""

ADVANTAGES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "rloo": partial(o.advantages, baseline=o.leave_one_out_mean),
    "grpo": partial(o.advantages, baseline=o.group_mean, scale=o.group_std),
    "dr_grpo": partial(o.advantages, baseline=o.group_mean),
    "lite_ppo": partial(o.advantages, baseline=o.group_mean, scale=o.batch_std),
    "reinforce_pp": partial(o.advantages, baseline=o.batch_mean, scale=o.batch_std),
}
"""Estimators ``(rewards [B], group [B]) -> advantages [B]``."""


def register(prefix: str = "klsim_") -> tuple[str, ...]:
    """Enter all of `LOSSES` and `ADVANTAGES` in verl's registries; the names.

    Raises:
        ModuleNotFoundError: verl is not installed.
    """
    try:
        from verl.trainer.ppo import core_algos
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"klsim.lm.verl needs verl: pip install verl ({error})") from None
    for name, (loss, over) in LOSSES.items():
        core_algos.register_policy_loss(f"{prefix}{name}")(_policy_loss(loss, over, core_algos.agg_loss))
    for name, estimator in ADVANTAGES.items():
        if f"{prefix}{name}" not in core_algos.ADV_ESTIMATOR_REGISTRY:
            core_algos.register_adv_est(f"{prefix}{name}")(_advantage(estimator))
    return tuple(f"{prefix}{name}" for name in dict.fromkeys([*LOSSES, *ADVANTAGES]))


def _policy_loss(loss: Callable[[TokenBatch], Loss], over: str, agg_loss: Callable[..., torch.Tensor]) -> Any:
    def policy_loss(
        old_log_prob: torch.Tensor,
        log_prob: torch.Tensor,
        advantages: torch.Tensor,
        response_mask: torch.Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """verl's signature; ``[B, T]`` tensors."""
        if rollout_is_weights is not None:
            raise ValueError("rollout_is_weights: klsim's losses take no rollout correction; switch it off in verl")
        some = response_mask.bool().any(dim=1)  # verl pads batches with empty responses
        batch = TokenBatch(
            log_probs=log_prob[some],
            old_log_probs=old_log_prob[some],
            advantages=advantages[some],
            mask=response_mask[some].bool(),
        )
        value, metrics = loss(batch)
        ones = torch.ones_like(log_prob[some])
        share = agg_loss(ones, response_mask[some], over, **getattr(config, "global_batch_info", {}))
        return value * share, {f"actor/{name}": float(x) for name, x in metrics.items()}

    return policy_loss


def _advantage(estimator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Any:
    def advantage(
        token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any, config: Any = None, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """verl's signature: ``[B, T]`` rewards and mask, a group name a response; advantages and returns ``[B, T]``."""
        numbers = np.unique(np.asarray(index), return_inverse=True)[1]
        with torch.no_grad():
            rewards = (token_level_rewards * response_mask).sum(dim=-1)
            values = estimator(rewards, torch.as_tensor(numbers, device=rewards.device))
            spread = values[:, None] * response_mask
        return spread, spread

    return advantage
