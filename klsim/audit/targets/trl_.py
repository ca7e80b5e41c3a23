"""TRL's own loss code.

==============================  ===================================================================================
``trl:grpo?loss_type=dapo``     ``GRPOTrainer._compute_loss`` on a stub causal LM, options of `GRPOConfig`; with
                                ``vllm_importance_sampling_correction=true`` the ratios of the documentation
``trl:rloo?beta=0.1``           ``RLOOTrainer._compute_loss``
``trl:distillation?beta=0.5``   the chunked divergence loss of its ``DistillationTrainer`` (generalised JSD)
``trl:gkd?beta=0.5``            ``GKDTrainer.generalized_jsd_loss``
==============================  ===================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, option_value
from klsim.audit.targets.stubs import BatchLM, OneProcess, grouped, need, quiet
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A loss of the installed TRL.

    Raises:
        ValueError: no such loss, an option that it does not read. ModuleNotFoundError: TRL is not installed.
    """
    need("trl", "klsim[lm]")
    kinds = {"grpo": _grpo, "rloo": _rloo, "distillation": _distillation, "gkd": _gkd}
    if name not in kinds:
        raise ValueError(f"target {text!r}: trl:{name} is not one of {', '.join(f'trl:{k}' for k in kinds)}")
    target = kinds[name](text, options)
    target.loss()  # unknown options show here, by the config's own words
    return target


def _release() -> str:
    return f"trl {version('trl')}"


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


def _acts_in_loss(text: str, trainer: Any, options: Mapping[str, Any], handled: tuple[str, ...]) -> None:
    """Options that the loss code does not read and the adapter does not apply would be ignored: refuse them."""
    source = inspect.getsource(trainer._compute_loss)
    for name in options:
        if name not in handled and not re.search(rf"\b(self|self\.args|args)\.{re.escape(name)}\b", source):
            raise ValueError(
                f"target {text!r}: {trainer.__name__}'s loss does not read {name!r} (acts elsewhere or does not exist)"
            )


def _typed(text: str, cls: Any, options: Mapping[str, str]) -> dict[str, Any]:
    """Options as the fields of a config annotate them.

    Raises:
        ValueError: no number where one is due.
    """
    fields = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    out: dict[str, Any] = {}
    for name, given in options.items():
        value, kind = option_value(given), fields.get(name, "")
        if isinstance(value, str) and "str" not in kind and ("float" in kind or "int" in kind):
            raise ValueError(f"target {text!r}: {name}={given} is no number")
        if "float" in kind and "str" not in kind and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        out[name] = value
    return out


def _config(cls: Any, **options: Any) -> Any:
    """A trainer's config: it knows and checks its own options."""
    with quiet():
        try:
            return cls(output_dir=tempfile.gettempdir(), use_cpu=True, bf16=False, report_to=[], **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{cls.__name__}: {error}") from None


def _stub(cls: Any, config: Any, **attributes: Any) -> Any:
    """A trainer without its constructor: the options of its config, and stand-ins for what surrounds the loss."""
    trainer = cls.__new__(cls)
    given = {
        "args": config,
        "accelerator": OneProcess(),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "use_vllm": False,
        "current_gradient_accumulation_steps": 1,
        "aux_loss_enabled": False,
        "use_liger_kernel": False,
        "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False,
        "model_accepts_loss_kwargs": False,
        "vllm_importance_sampling_correction": False,
        "_name": "audit",
        "name": "audit",
        **attributes,
    }
    for name, value in given.items():
        with contextlib.suppress(AttributeError):
            object.__setattr__(trainer, name, value)
    return trainer


def _run(trainer: Any, batch: TokenBatch, inputs: dict[str, Any]) -> Any:
    model = BatchLM(batch)
    trainer.model = model
    try:
        with quiet():
            return trainer._compute_loss(model, inputs)
    except AttributeError as error:
        raise ValueError(f"{_release()}: its loss reads what this adapter does not provide ({error})") from None


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

    options = _typed(text, GRPOConfig, given)
    handled = ("beta", "scale_rewards", "epsilon", "epsilon_high", "entropy_coef", *_VLLM)
    _acts_in_loss(text, GRPOTrainer, options, handled)

    def build(**parameters: float) -> LossFunction:
        config = _config(GRPOConfig, **(options | parameters))
        level = config.scale_rewards
        level = {True: "group", False: "none"}.get(level, level) if isinstance(level, bool) else level
        corrected = "vllm_importance_sampling_correction" in options and config.vllm_importance_sampling_correction
        trainer = _stub(
            GRPOTrainer,
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

    return Target(text, build, {"beta": 0.0, **numeric_options(options)}, _release())


def _rloo(text: str, given: Mapping[str, str]) -> Target:
    from trl import RLOOConfig, RLOOTrainer

    options = _typed(text, RLOOConfig, given)
    _acts_in_loss(text, RLOOTrainer, options, ("beta", "normalize_advantages", "epsilon", "epsilon_high"))

    def build(**parameters: float) -> LossFunction:
        config = _config(RLOOConfig, **(options | parameters))
        high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        trainer = _stub(RLOOTrainer, config, beta=config.beta, epsilon_low=config.epsilon, epsilon_high=high)

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

    return Target(text, build, {"beta": 0.05, **numeric_options(options)}, _release())


def _jsd(text: str, given: Mapping[str, str], run: Callable[..., Any]) -> Target:
    unknown = set(given) - {"beta", "temperature"}
    if unknown:
        raise ValueError(f"target {text!r}: unknown option {sorted(unknown)[0]!r} (beta, temperature)")
    chosen: dict[str, Any] = {"beta": 0.5}
    for name, value in given.items():
        chosen[name] = option_value(value)
        if not isinstance(chosen[name], int | float) or isinstance(chosen[name], bool):
            raise ValueError(f"target {text!r}: {name}={value} is no number")

    def build() -> LossFunction:
        return lambda batch: run(batch, **chosen)

    return Target(text, build, {}, _release())  # beta interpolates: it is no coefficient to vary


def _distillation(text: str, options: Mapping[str, str]) -> Target:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def run(batch: TokenBatch, **parameters: float) -> Any:
        head = torch.eye(batch.vocab_log_probs.shape[-1], dtype=torch.float64)
        mask = batch.mask.to(torch.int64)
        return _chunked_divergence_loss(
            batch.vocab_log_probs, batch.teacher_vocab_log_probs, head, head, mask, **parameters
        )[0]

    return _jsd(text, options, run)


def _gkd(text: str, options: Mapping[str, str]) -> Target:
    import torch

    with quiet():
        from trl.experimental.gkd import GKDTrainer

    def run(batch: TokenBatch, **parameters: float) -> Any:
        labels = torch.where(batch.mask, batch.tokens, -100)
        return GKDTrainer.generalized_jsd_loss(
            batch.vocab_log_probs, batch.teacher_vocab_log_probs, labels=labels, **parameters
        )

    return _jsd(text, options, run)
