"""verl's registered policy losses and advantage estimators, with its KL penalty and aggregation as its actor adds them.

``verl:vanilla?kl_loss_type=low_var_kl&kl_loss_coef=0.1``; ``adv_estimator=rloo`` chooses the advantages,
``policy_loss.x`` an option of the policy loss, ``rollout_is=token&rollout_is_threshold=2`` the correction for a sampler
that differs from the trainer's old policy.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, option_value
from klsim.audit.targets.stubs import need, token_rewards
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]

_TEXTS = ("loss_agg_mode", "kl_loss_type")


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A registered policy loss of the installed verl.

    Raises:
        ValueError: no such loss, estimator or option. ModuleNotFoundError: verl is not installed.
    """
    need("verl", "verl")
    from verl.trainer.ppo import core_algos

    given = {k: option_value(v) for k, v in options.items()}
    advantage = str(given.pop("adv_estimator", "grpo"))
    correction: dict[str, Any] = {k: given.pop(k) for k in ("rollout_is", "rollout_is_threshold") if k in given}
    by_std = {"norm_adv_by_std_in_grpo": bool(given.pop("norm_adv_by_std_in_grpo", True))}
    try:
        policy_loss = core_algos.get_policy_loss_fn(name)
        estimator = core_algos.get_adv_estimator_fn(advantage)
    except (KeyError, ValueError) as error:
        raise ValueError(f"target {text!r}: {error}") from None
    if "norm_adv_by_std_in_grpo" not in inspect.signature(estimator).parameters:
        by_std = {}

    def build(**parameters: float) -> LossFunction:
        config = _config(text, {"kl_loss_coef": 0.0, "clip_ratio": 0.2} | given | parameters)

        def loss(batch: TokenBatch) -> Any:
            import torch

            mask = batch.mask.to(torch.float64)
            rewards = {"token_level_rewards": token_rewards(batch), "response_mask": mask, "index": batch.group.numpy()}
            advantages, _ = estimator(**_accepted(estimator, rewards | by_std | _extras(batch, config)))
            returned = policy_loss(
                old_log_prob=batch.old_log_probs,
                log_prob=batch.log_probs,
                advantages=advantages,
                response_mask=mask,
                loss_agg_mode=config.loss_agg_mode,
                config=config,
                rollout_is_weights=_sampler_weights(correction, batch, mask) if correction else None,
            )
            penalty = core_algos.kl_penalty(batch.log_probs, batch.ref_log_probs, config.kl_loss_type)
            return returned[0] + config.kl_loss_coef * core_algos.agg_loss(penalty, mask, config.loss_agg_mode)

        return loss

    target = Target(text, build, {"kl_loss_coef": 0.0} | numeric_options(given), f"verl {version('verl')}")
    target.loss()
    return target


def _accepted(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a function has, and all of them if it takes any."""
    known = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return {k: v for k, v in arguments.items() if k in known or k == "norm_adv_by_std_in_grpo"}
    return {k: v for k, v in arguments.items() if k in known}


def _extras(batch: Any, config: Any) -> dict[str, Any]:
    """What some estimators need besides rewards: values, the greedy response's reward, discounts of 1."""
    out: dict[str, Any] = {"gamma": 1.0, "lam": 1.0, "values": getattr(batch, "old_values", None)}
    out["reward_baselines"] = getattr(batch, "greedy_rewards", None)
    out["config"] = _Discounts()
    out["old_log_probs"] = batch.old_log_probs
    out["sum_pi_squared"] = (2 * batch.old_vocab_log_probs).exp().sum(-1)
    return out


class _Discounts(dict[str, Any]):
    """The part of the algorithm's config that estimators read."""

    gamma = 1.0
    f_norm = "1/n"

    def __init__(self) -> None:
        super().__init__(gamma=1.0, norm_adv_by_std_in_grpo=True)


def _config(text: str, chosen: dict[str, Any]) -> Any:
    """The actor's config; ``policy_loss.x`` are options of the policy loss."""
    from verl.workers.config import ActorConfig, PolicyLossConfig

    chosen = dict(chosen)
    nested = {k.removeprefix("policy_loss."): chosen.pop(k) for k in list(chosen) if k.startswith("policy_loss.")}
    for name, value in chosen.items():
        if isinstance(value, str) and name not in _TEXTS:
            raise ValueError(f"target {text!r}: {name}={value} is no number")
    sides = dict.fromkeys(("clip_ratio_low", "clip_ratio_high"), chosen["clip_ratio"])
    try:
        return ActorConfig(
            strategy="fsdp",
            rollout_n=2,
            ppo_micro_batch_size_per_gpu=1,
            policy_loss=PolicyLossConfig(**nested),
            **sides | chosen,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"target {text!r}: {error}") from None


def _sampler_weights(correction: Mapping[str, Any], batch: Any, mask: Any) -> Any:
    """verl's own weights ``pi_old/pi_rollout`` of tokens or sequences, truncated."""
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

    weights, _ = compute_rollout_correction_weights(
        log_ratio=batch.old_log_probs - batch.rollout_log_probs,
        response_mask=mask,
        rollout_is=str(correction.get("rollout_is", "token")),
        rollout_is_threshold=float(correction.get("rollout_is_threshold", 2.0)),
    )
    return weights
