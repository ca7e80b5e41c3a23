"""LoRA through peft: adapters on the weights that a stage starts from, merged at its end.

The base under an adapter is what the stage started from, so with the adapter off the model is its own reference.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from transformers import PreTrainedModel

from klsim.lm.config import Lora

__all__ = ["adapter_off", "merged", "resumed", "with_adapter"]


def with_adapter(model: PreTrainedModel, lora: Lora, seed: int) -> Any:
    """The model with new adapters, the same for the same seed; at first they change nothing (``B = 0``).

    Adapters are float32, whatever the model's type. The global random state is left as it was.

    Raises:
        ValueError: no module has the name of a target.
    """
    from peft import LoraConfig, get_peft_model

    target = lora.target if isinstance(lora.target, str) else list(lora.target)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=target,  # type: ignore[arg-type]
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), _without_notices():
        torch.default_generator.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise ValueError(f"model.lora: target = {lora.target!r}: {str(error).split(chr(10))[0][:200]}") from None


def merged(model: Any, folder: Path | None = None) -> PreTrainedModel:
    """The model with its adapters added to its weights (rounded to their type); as it is without adapters.

    Args:
        folder: where the adapters are kept, in peft's format.
    """
    if not is_peft_model(model):
        return model
    if folder is not None:
        model.save_pretrained(folder)
    whole: PreTrainedModel = model.merge_and_unload().eval()
    whole.requires_grad_(True)
    return whole


def resumed(model: PreTrainedModel, checkpoint: str | Path) -> PreTrainedModel:
    """What a stage has trained: the adapters of its last checkpoint, on what it started from."""
    from peft import PeftModel

    with _without_notices():
        found: Any = PeftModel.from_pretrained(model, checkpoint)
    return found


@contextmanager
def _without_notices() -> Iterator[None]:
    """Without the deprecation notices that peft causes in transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Without its adapters, and without dropout."""
    training = model.training
    model.eval()
    try:
        with model.disable_adapter():
            yield
    finally:
        model.train(training)
