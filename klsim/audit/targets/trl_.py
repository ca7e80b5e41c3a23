"""TRL's own loss code.

===================================  ==============================================================================
``trl:grpo?loss_type=dapo``          ``GRPOTrainer._compute_loss`` on a stub causal LM, options of `GRPOConfig`; with
                                     ``vllm_importance_sampling_correction=true`` the ratios of the documentation
``trl:gmpo``, ``trl:rloo?beta=0.1``  the same of ``GMPOTrainer``, ``RLOOTrainer``
``trl:distillation``, ``gkd``, …     see `klsim.audit.targets.trl_distillation`
``trl:dpo?loss_type=ipo``, ``kto``…  see `klsim.audit.targets.trl_preferences`
===================================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options
from klsim.audit.targets.stubs import BatchLM, grouped, need
from klsim.audit.targets.trl_distillation import DISTILLATION
from klsim.audit.targets.trl_preferences import PREFERENCES
from klsim.audit.targets.trl_stub import acts_in, configured, provided, release, stub, typed
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A loss of the installed TRL.

    Raises:
        ValueError: no such loss, an option that it does not read. ModuleNotFoundError: TRL is not installed.
    """
    need("trl", "klsim[lm]")
    kinds = {"grpo": _grpo, "gmpo": _gmpo, "rloo": _rloo, **DISTILLATION, **PREFERENCES}
    if name not in kinds:
        raise ValueError(f"target {text!r}: trl:{name} is not one of {', '.join(f'trl:{k}' for k in kinds)}")
    target = kinds[name](text, options)
    target.loss()  # unknown options show here, by the config's own words
    return target


def _inputs(batch: TokenBatch) -> dict[str, Any]:
    import torch

    mask = batch.mask.to(torch.int64)
    return {
        "prompt_ids": batch.group[:, None],
        "prompt_mask": torch.ones_like(batch.group[:, None]),
        "completion_ids": batch.tokens,
        "completion_mask": mask,
        "old_per_token_logps": batch.old_log_probs,
        "ref_per_token_logps": batch.ref_log_probs,
        "num_items_in_batch": mask.sum(),
    }


def _run(trainer: Any, batch: TokenBatch, inputs: dict[str, Any]) -> Any:
    trainer.model = model = BatchLM(batch)
    return provided(lambda: trainer._compute_loss(model, inputs))


def _width(batch: TokenBatch) -> int:
    """The maximal length of a response, whatever a batch is cut to."""
    return int(getattr(batch, "max_length", 0)) or int(batch.log_probs.shape[1])


_VLLM = ("vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max",
         "vllm_importance_sampling_clip_min")  # fmt: skip


def _sampler_ratio(config: Any, batch: Any) -> Any:
    """The documented ``pi_old/pi_sampler``: of tokens or sequences, truncated or masked outside the clip range."""
    import math

    import torch

    gap = (batch.old_log_probs - batch.rollout_log_probs) * batch.weights
    if config.vllm_importance_sampling_mode.startswith("sequence"):
        gap = gap.sum(dim=-1, keepdim=True)
    ratio = torch.exp(gap)
    low, high = config.vllm_importance_sampling_clip_min, config.vllm_importance_sampling_clip_max
    if config.vllm_importance_sampling_mode.endswith("truncate"):
        return ratio.clamp(min=low, max=high)
    outside = (ratio < (-math.inf if low is None else low)) | (ratio > (math.inf if high is None else high))
    return ratio.masked_fill(outside, 0.0)


def _grpo(text: str, given: Mapping[str, str]) -> Target:
    from trl import GRPOConfig, GRPOTrainer

    return _grouped(text, given, GRPOTrainer, GRPOConfig)


def _gmpo(text: str, given: Mapping[str, str]) -> Target:
    from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

    return _grouped(text, given, GMPOTrainer, GMPOConfig)


def _grouped(text: str, given: Mapping[str, str], trainer_class: Any, config_class: Any) -> Target:
    """A loss of group-normalised advantages."""
    options = typed(text, config_class, given)
    handled = ("beta", "scale_rewards", "epsilon", "epsilon_high", "entropy_coef", *_VLLM)
    acts_in(text, trainer_class, options, handled)

    def build(**parameters: float) -> LossFunction:
        config = configured(config_class, **(options | parameters))
        level = config.scale_rewards
        level = {True: "group", False: "none"}.get(level, level) if isinstance(level, bool) else level
        corrected = "vllm_importance_sampling_correction" in options and config.vllm_importance_sampling_correction
        trainer = stub(
            trainer_class,
            config,
            beta=config.beta,
            loss_type=config.loss_type,
            importance_sampling_level=config.importance_sampling_level,
            epsilon_low=config.epsilon,
            epsilon_high=config.epsilon if config.epsilon_high is None else config.epsilon_high,
            off_policy_mask_threshold=getattr(config, "off_policy_mask_threshold", None),
            top_entropy_quantile=config.top_entropy_quantile,
            temperature=1.0,
            entropy_coef=getattr(config, "entropy_coef", 0.0) or 0.0,
            _entropy_bonus_enabled=bool(getattr(config, "entropy_coef", 0.0)),
            use_vllm=corrected,
            vllm_importance_sampling_correction=corrected,
        )

        def loss(batch: TokenBatch) -> Any:
            rewards = batch.total_rewards()
            mean, deviation, _ = grouped(rewards, batch.group)
            advantages = rewards - mean
            if level == "group":
                advantages = advantages / (deviation + 1e-4)
            elif level == "batch":
                advantages = advantages / (rewards.std() + 1e-4)
            object.__setattr__(trainer, "max_completion_length", _width(batch))
            inputs = _inputs(batch) | {"advantages": advantages}
            if corrected:
                sampler = batch.rollout_log_probs  # type: ignore[attr-defined,unused-ignore]
                inputs |= {
                    "importance_sampling_ratio": _sampler_ratio(config, batch),
                    "sampling_per_token_logps": sampler,
                }
            return _run(trainer, batch, inputs)

        return loss

    return Target(text, build, {"beta": 0.0, **numeric_options(options)}, release())


def _rloo(text: str, given: Mapping[str, str]) -> Target:
    from trl import RLOOConfig, RLOOTrainer

    options = typed(text, RLOOConfig, given)
    acts_in(text, RLOOTrainer, options, ("beta", "normalize_advantages", "epsilon", "epsilon_high"))

    def build(**parameters: float) -> LossFunction:
        config = configured(RLOOConfig, **(options | parameters))
        high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        trainer = stub(RLOOTrainer, config, beta=config.beta, epsilon_low=config.epsilon, epsilon_high=high)

        def loss(batch: TokenBatch) -> Any:
            gap = ((batch.log_probs - batch.ref_log_probs) * batch.weights).sum(1).detach()
            rewards = batch.total_rewards() - config.beta * gap
            mean, _, size = grouped(rewards, batch.group)
            advantages = (rewards - mean) * size / (size - 1)
            if config.normalize_advantages:
                advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-4)
            old = (batch.old_log_probs * batch.weights).sum(1)
            return _run(trainer, batch, _inputs(batch) | {"advantages": advantages, "old_logps": old})

        return loss

    return Target(text, build, {"beta": 0.05, **numeric_options(options)}, release())
