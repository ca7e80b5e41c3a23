"""The processes of ``klsim train``: one, several with whole models, or several whose optimiser DeepSpeed shards.

What ``accelerate launch`` says in environment variables is read before anything is loaded. ZeRO 1 and 2 leave whole
weights in every process; what shards the weights is refused, because stages are evaluated and saved as whole models.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DeepSpeedPlugin

__all__ = ["check_checkpoint", "check_shards", "placement", "start", "uses_deepspeed"]

_WHOLE = "klsim train keeps whole models; use klsim.lm.trainer.ObjectiveTrainer in a script of your own"


def uses_deepspeed() -> bool:
    """Whether the launcher asked for DeepSpeed."""
    return _asked("ACCELERATE_USE_DEEPSPEED")


def start() -> PartialState:
    """Join the other processes: NCCL between GPUs, gloo between CPUs.

    Raises:
        ValueError: FSDP, or DeepSpeed at another stage than ZeRO 1 or 2. ModuleNotFoundError: no DeepSpeed.
    """
    if _asked("ACCELERATE_USE_FSDP"):
        raise ValueError(f"ACCELERATE_USE_FSDP: {_WHOLE}")
    gpu = torch.cuda.is_available()
    if not uses_deepspeed():
        return PartialState(cpu=not gpu)
    stage = DeepSpeedPlugin().zero_stage
    if stage not in (1, 2):
        raise ValueError(f"ACCELERATE_USE_DEEPSPEED: ZeRO stage {stage}, must be 1 or 2: {_WHOLE}")
    if importlib.util.find_spec("deepspeed") is None:
        raise ModuleNotFoundError("ACCELERATE_USE_DEEPSPEED: pip install deepspeed", name="deepspeed")
    # on CPUs accelerate forgets DeepSpeed if told that it is on CPUs, and the other processes if not told a backend
    return PartialState() if gpu else PartialState(backend="gloo")


def placement() -> dict[str, Any]:
    """The options of a `transformers.TrainingArguments` that put a trainer where `start` joined."""
    if torch.cuda.is_available():
        return {"use_cpu": False}
    return {"use_cpu": False, "ddp_backend": "gloo"} if uses_deepspeed() else {"use_cpu": True}


def check_checkpoint(folder: Path | str) -> None:
    """A checkpoint holds the optimiser as the present processes read it.

    Raises:
        ValueError: one of DeepSpeed is resumed without it (the optimiser would silently begin anew), or the reverse.
    """
    written = (Path(folder) / "latest").is_file()
    if written != uses_deepspeed():
        how = "with" if written else "without"
        raise ValueError(f"{folder}: its optimiser was written {how} DeepSpeed; resume it {how} DeepSpeed")


def check_shards(trainer: Any) -> None:
    """A trainer shards if its arguments or the launcher ask for it; accelerate may ignore them.

    Raises:
        ValueError: it would hold whole models.
    """
    args, kind = trainer.args, trainer.accelerator.distributed_type.value
    if (args.fsdp or _asked("ACCELERATE_USE_FSDP")) and not trainer.is_fsdp_enabled:
        raise ValueError(f"FSDP: accelerate shards on accelerators only; {kind} would hold whole models unasked")
    if (args.deepspeed or uses_deepspeed()) and not trainer.is_deepspeed_enabled:
        raise ValueError(f"DeepSpeed: accelerate ignores it with use_cpu; {kind} would not shard")


def _asked(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"
