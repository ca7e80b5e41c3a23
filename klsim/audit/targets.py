"""What can be audited: a Python function, klsim's own objectives, and the loss code of installed trainers.

=========================================  ============================================================
target                                     what runs
=========================================  ============================================================
``package.module:function``                the function, called with a `TokenBatch` of torch tensors
``path/to/file.py:function``               the same
``klsim:grpo``                             an objective of `klsim.objectives.registry`
``trl:grpo?loss_type=dapo&beta=0.1``       ``GRPOTrainer._compute_loss`` of the installed TRL, on a stub causal LM
``trl:rloo?beta=0.1``                      ``RLOOTrainer._compute_loss``
``trl:distillation?beta=0.5``              TRL's chunked divergence loss (generalised JSD)
``trl:gkd?beta=0.5``                       ``GKDTrainer.generalized_jsd_loss``
``liger:grpo?beta=0.1``                    ``LigerFusedLinearGRPOLoss``
``liger:jsd?beta=0.5``                     ``LigerFusedLinearJSDLoss``, its soft part
``verl:vanilla?kl_loss_type=low_var_kl``   verl's registered policy loss with its KL penalty
=========================================  ============================================================

Options follow ``?`` as in an address. The trainers' loss code is their own; only what surrounds it is stubbed: the
model returns the tree's log-probabilities, and advantages are computed as the trainer documents, since it does so while
it generates.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

from klsim.objectives.batch import TokenBatch

__all__ = ["Target", "load_target"]

LossFunction = Callable[[TokenBatch], Any]
GROUP = 2  # responses a prompt in the audit


@dataclass(frozen=True)
class Target:
    """Something to audit.

    Attributes:
        name: as given. build: parameters -> loss. parameters: its numeric options and their values, which the audit
            varies. version: of the package that the loss comes from, ``""`` for a plain function.
    """

    name: str
    build: Callable[..., LossFunction]
    parameters: Mapping[str, float] = field(default_factory=dict)
    version: str = ""

    def loss(self, **changes: float) -> LossFunction:
        """The loss with some parameters changed."""
        return self.build(**{**self.parameters, **changes})


def load_target(text: str) -> Target:
    """The target that ``text`` names, see the module.

    Raises:
        ValueError: a target or option that does not exist. ModuleNotFoundError: a trainer that is not installed.
    """
    head, _, query = text.partition("?")
    scheme, _, name = head.partition(":")
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))  # k3+ is a name, not a blank
    if scheme in _ADAPTERS:
        return _ADAPTERS[scheme](text, name, options)
    if not name:
        known = ", ".join(f"{s}:" for s in _ADAPTERS)
        raise ValueError(f"target {text!r}: write module:function, file.py:function, or one of {known}")
    return _from_function(text, _import(scheme, name, text), {k: _value(v) for k, v in options.items()})


def _value(text: str) -> Any:
    """A number or a boolean where it is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _import(place: str, name: str, text: str) -> Callable[..., Any]:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise ValueError(f"target {text!r}: no file {place}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"target {text!r}: {place} has no function {name!r}")
    return found


def _from_function(text: str, function: Callable[..., Any], options: Mapping[str, Any]) -> Target:
    """A function of a batch; keyword parameters with numeric defaults are its parameters."""
    numeric: dict[str, float] = {}
    known = set()
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        known.add(parameter.name)
        default = options.get(parameter.name, parameter.default)
        if isinstance(default, int | float) and not isinstance(default, bool):
            numeric[parameter.name] = default
    unknown = set(options) - known
    if unknown:
        raise ValueError(f"target {text!r}: {function.__name__} has no parameter {sorted(unknown)[0]!r}")
    fixed = {k: v for k, v in options.items() if k not in numeric}

    def build(**parameters: float) -> LossFunction:
        return lambda batch: function(batch, **fixed, **parameters)

    return Target(text, build, numeric)


def _klsim(text: str, name: str, options: Mapping[str, str]) -> Target:
    import klsim
    from klsim.objectives.registry import OBJECTIVES

    if name not in OBJECTIVES or options:
        raise ValueError(f"target {text!r}: no such objective, or it takes no options (see klsim objectives)")
    return Target(text, lambda: OBJECTIVES[name].loss, {}, klsim.__version__)


class _BatchLM:
    """A causal LM for one batch: whatever the input, its next-token log-probabilities are the batch's."""

    training = True

    def __init__(self, batch: TokenBatch) -> None:
        self.batch = batch

    def __call__(self, **_: Any) -> SimpleNamespace:
        log_probs = self.batch.vocab_log_probs
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return SimpleNamespace(logits=log_probs, log_probs=self.batch.log_probs, entropy=entropy)


class _Accelerator:
    """One process, no mixed precision."""

    num_processes = 1
    sync_gradients = True
    is_main_process = True

    @staticmethod
    def autocast() -> Any:
        return contextlib.nullcontext()

    @staticmethod
    def gather(x: Any) -> Any:
        return x

    gather_for_metrics = gather

    @staticmethod
    def reduce(x: Any, reduction: str = "sum") -> Any:
        return x


def _trl_inputs(batch: TokenBatch) -> dict[str, Any]:
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


def _grouped(rewards: Any, group: Any) -> tuple[Any, Any, Any]:
    """Group means, sample standard deviations and sizes, given to every response."""
    import torch

    member = (group[:, None] == group[None, :]).to(rewards.dtype)
    size = member.sum(1)
    mean = member @ rewards / size
    variance = (member * (rewards[None, :] - mean[:, None]) ** 2).sum(1) / (size - 1).clamp(min=1)
    return mean, torch.sqrt(variance), size


def _acts_in_loss(text: str, trainer: Any, options: Mapping[str, Any], handled: tuple[str, ...]) -> None:
    """Options that the loss code does not read and the adapter does not apply would be ignored: refuse them."""
    source = inspect.getsource(trainer._compute_loss)
    for name in options:
        if name not in handled and not re.search(rf"\b(self|self\.args|args)\.{re.escape(name)}\b", source):
            raise ValueError(
                f"target {text!r}: {trainer.__name__}'s loss does not read {name!r} (acts elsewhere or does not exist)"
            )


def _config(cls: Any, **options: Any) -> Any:
    """A trainer's config: it knows and checks its own options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = tempfile.gettempdir()
        try:
            return cls(output_dir=folder, use_cpu=True, bf16=False, report_to=[], **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{cls.__name__}: {error}") from None


def _stub(cls: Any, config: Any, **attributes: Any) -> Any:
    """A trainer without its constructor: the options of its config, and stand-ins for what surrounds the loss."""
    trainer = cls.__new__(cls)
    given = {
        "args": config,
        "accelerator": _Accelerator(),
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


def _run_stub(trainer: Any, batch: TokenBatch, inputs: dict[str, Any]) -> Any:
    model = _BatchLM(batch)
    trainer.model = model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trainer._compute_loss(model, inputs)
    except AttributeError as error:
        where = f"trl {version('trl')}"
        raise ValueError(f"{where}: its loss reads what this adapter does not provide ({error})") from None


def _numeric(options: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in options.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _trl_grpo(text: str, options: dict[str, Any]) -> Target:
    from trl import GRPOConfig, GRPOTrainer

    _acts_in_loss(text, GRPOTrainer, options, ("beta", "scale_rewards", "epsilon", "epsilon_high", "entropy_coef"))

    def build(**parameters: float) -> LossFunction:
        chosen = options | parameters
        config = _config(GRPOConfig, **chosen)
        level = config.scale_rewards
        level = {True: "group", False: "none"}.get(level, level) if isinstance(level, bool) else level
        high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        trainer = _stub(
            GRPOTrainer,
            config,
            beta=config.beta,
            loss_type=config.loss_type,
            importance_sampling_level=config.importance_sampling_level,
            epsilon_low=config.epsilon,
            epsilon_high=high,
            off_policy_mask_threshold=getattr(config, "off_policy_mask_threshold", None),
            top_entropy_quantile=config.top_entropy_quantile,
            temperature=1.0,
            entropy_coef=getattr(config, "entropy_coef", 0.0) or 0.0,
            _entropy_bonus_enabled=bool(getattr(config, "entropy_coef", 0.0)),
        )

        def loss(batch: TokenBatch) -> Any:
            rewards = batch.total_rewards()
            mean, deviation, _ = _grouped(rewards, batch.group)
            advantages = rewards - mean
            if level == "group":
                advantages = advantages / (deviation + 1e-4)
            elif level == "batch":
                advantages = advantages / (rewards.std() + 1e-4)
            object.__setattr__(trainer, "max_completion_length", batch.log_probs.shape[1])
            return _run_stub(trainer, batch, _trl_inputs(batch) | {"advantages": advantages})

        return loss

    return Target(text, build, {"beta": 0.0, **_numeric(options)}, f"trl {version('trl')}")


def _trl_rloo(text: str, options: dict[str, Any]) -> Target:
    from trl import RLOOConfig, RLOOTrainer

    _acts_in_loss(text, RLOOTrainer, options, ("beta", "normalize_advantages", "epsilon", "epsilon_high"))

    def build(**parameters: float) -> LossFunction:
        config = _config(RLOOConfig, **(options | parameters))
        high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        trainer = _stub(RLOOTrainer, config, beta=config.beta, epsilon_low=config.epsilon, epsilon_high=high)

        def loss(batch: TokenBatch) -> Any:
            gap = ((batch.log_probs - batch.ref_log_probs) * batch.weights).sum(1).detach()
            rewards = batch.total_rewards() - config.beta * gap
            mean, _, size = _grouped(rewards, batch.group)
            advantages = (rewards - mean) * size / (size - 1)
            if config.normalize_advantages:
                advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-4)
            old = (batch.old_log_probs * batch.weights).sum(1)
            return _run_stub(trainer, batch, _trl_inputs(batch) | {"advantages": advantages, "old_logps": old})

        return loss

    return Target(text, build, {"beta": 0.05, **_numeric(options)}, f"trl {version('trl')}")


def _trl_jsd(text: str, options: dict[str, Any], run: Callable[..., Any]) -> Target:
    unknown = set(options) - {"beta", "temperature"}
    if unknown:
        raise ValueError(f"target {text!r}: unknown option {sorted(unknown)[0]!r} (beta, temperature)")

    def build(**parameters: float) -> LossFunction:
        return lambda batch: run(batch, **parameters)

    chosen = {"beta": 0.5, **options}  # beta interpolates: it is no coefficient to vary
    return Target(text, lambda: build(**chosen), {}, f"trl {version('trl')}")


def _trl_distillation(text: str, options: dict[str, Any]) -> Target:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def run(batch: TokenBatch, **parameters: float) -> Any:
        head = torch.eye(batch.vocab_log_probs.shape[-1], dtype=torch.float64)
        mask = batch.mask.to(torch.int64)
        return _chunked_divergence_loss(
            batch.vocab_log_probs, batch.teacher_vocab_log_probs, head, head, mask, **parameters
        )[0]

    return _trl_jsd(text, options, run)


def _trl_gkd(text: str, options: dict[str, Any]) -> Target:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.gkd import GKDTrainer

    def run(batch: TokenBatch, **parameters: float) -> Any:
        labels = torch.where(batch.mask, batch.tokens, -100)
        return GKDTrainer.generalized_jsd_loss(
            batch.vocab_log_probs, batch.teacher_vocab_log_probs, labels=labels, **parameters
        )

    return _trl_jsd(text, options, run)


def _trl(text: str, name: str, options: Mapping[str, str]) -> Target:
    _need("trl", "klsim[lm]")
    kinds = {"grpo": _trl_grpo, "rloo": _trl_rloo, "distillation": _trl_distillation, "gkd": _trl_gkd}
    if name not in kinds:
        raise ValueError(f"target {text!r}: trl:{name} is not one of {', '.join(f'trl:{k}' for k in kinds)}")
    target = kinds[name](text, {k: _value(v) for k, v in options.items()})
    target.loss()  # unknown options show here, by the config's own words
    return target


def _need(module: str, install: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"the target needs {module}: pip install '{install}'")


def _liger(text: str, name: str, options: Mapping[str, str]) -> Target:
    _need("liger_kernel", "liger-kernel")
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss, LigerFusedLinearJSDLoss

    kinds = {"grpo": (LigerFusedLinearGRPOLoss, _liger_grpo), "jsd": (LigerFusedLinearJSDLoss, _liger_jsd)}
    if name not in kinds:
        raise ValueError(f"target {text!r}: liger:{name} is not one of liger:grpo, liger:jsd")
    cls, run = kinds[name]
    given = {k: _value(v) for k, v in options.items()}
    unknown = set(given) - set(inspect.signature(cls.__init__).parameters)
    if unknown:
        raise ValueError(f"target {text!r}: {cls.__name__} has no option {sorted(unknown)[0]!r}")

    def build(**parameters: float) -> LossFunction:
        chosen = {"compiled": False} | given | parameters
        return lambda batch: run(cls, chosen, batch)

    numeric = {"beta": 0.04} | _numeric(given) if name == "grpo" else {}  # the JSD's beta is no coefficient
    return Target(text, build, numeric, f"liger-kernel {version('liger-kernel')}")


def _liger_grpo(cls: Any, options: Mapping[str, Any], batch: TokenBatch) -> Any:
    """The tree's log-probabilities as hidden states, the identity as the LM head."""
    import torch

    rewards = batch.total_rewards()
    mean, deviation, _ = _grouped(rewards, batch.group)
    size = {"max_completion_length": batch.log_probs.shape[1]} if options.get("loss_type") == "dr_grpo" else {}
    returned = cls(**{**size, **options})(
        batch.vocab_log_probs,
        torch.eye(batch.vocab_log_probs.shape[-1], dtype=torch.float64),
        batch.tokens,
        batch.mask.to(torch.float64),
        (rewards - mean) / (deviation + 1e-4),
        ref_per_token_logps=batch.ref_log_probs,
        old_per_token_logps=batch.old_log_probs,
        num_items_in_batch=batch.mask.sum(),
    )
    return returned[0] if isinstance(returned, tuple) else returned


def _liger_jsd(cls: Any, options: Mapping[str, Any], batch: TokenBatch) -> Any:
    import torch

    labels = torch.where(batch.mask, batch.tokens, -100).reshape(-1)
    size = batch.vocab_log_probs.shape[-1]
    head = torch.eye(size, dtype=torch.float64)
    student, teacher = (x.reshape(-1, size) for x in (batch.vocab_log_probs, batch.teacher_vocab_log_probs))
    return cls(**{"weight_hard_loss": 0.0, "weight_soft_loss": 1.0, **options})(student, head, teacher, head, labels)


def _verl(text: str, name: str, options: Mapping[str, str]) -> Target:
    """verl's own registered policy loss and advantages, its KL penalty and aggregation as its actor adds them."""
    _need("verl", "verl")
    import torch
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig, PolicyLossConfig

    given = {k: _value(v) for k, v in options.items()}
    advantage = str(given.pop("adv_estimator", "grpo"))
    by_std = {"norm_adv_by_std_in_grpo": bool(given.pop("norm_adv_by_std_in_grpo", True))}
    try:
        policy_loss = core_algos.get_policy_loss_fn(name)
        estimator = core_algos.get_adv_estimator_fn(advantage)
    except (KeyError, ValueError) as error:
        raise ValueError(f"target {text!r}: {error}") from None
    if "norm_adv_by_std_in_grpo" not in inspect.signature(estimator).parameters:
        by_std = {}

    def build(**parameters: float) -> LossFunction:
        chosen = {"kl_loss_coef": 0.0, "clip_ratio": 0.2} | given | parameters
        nested = {k.removeprefix("policy_loss."): chosen.pop(k) for k in list(chosen) if k.startswith("policy_loss.")}
        sides = dict.fromkeys(("clip_ratio_low", "clip_ratio_high"), chosen["clip_ratio"])
        try:
            config = ActorConfig(
                strategy="fsdp",
                rollout_n=GROUP,
                ppo_micro_batch_size_per_gpu=1,
                policy_loss=PolicyLossConfig(**nested),
                **sides | chosen,
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise ValueError(f"target {text!r}: {error}") from None

        def loss(batch: TokenBatch) -> Any:
            mask = batch.mask.to(torch.float64)
            last = torch.nn.functional.one_hot(mask.sum(1).long() - 1, mask.shape[1]).to(torch.float64)
            advantages, _ = estimator(
                token_level_rewards=batch.total_rewards()[:, None] * last,
                response_mask=mask,
                index=batch.group.numpy(),
                **by_std,
            )
            returned = policy_loss(
                old_log_prob=batch.old_log_probs,
                log_prob=batch.log_probs,
                advantages=advantages,
                response_mask=mask,
                loss_agg_mode=config.loss_agg_mode,
                config=config,
                rollout_is_weights=None,
            )
            penalty = core_algos.kl_penalty(batch.log_probs, batch.ref_log_probs, config.kl_loss_type)
            return returned[0] + config.kl_loss_coef * core_algos.agg_loss(penalty, mask, config.loss_agg_mode)

        return loss

    target = Target(text, build, {"kl_loss_coef": 0.0} | _numeric(given), f"verl {version('verl')}")
    target.loss()
    return target


_ADAPTERS: dict[str, Callable[[str, str, Mapping[str, str]], Target]] = {
    "klsim": _klsim,
    "trl": _trl,
    "liger": _liger,
    "verl": _verl,
}
