"""What both trainers add to TRL's: no step with a gradient that is not finite, whole checkpoints, less noise."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import disable_progress_bars, enable_progress_bars
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from klsim.lm.processes import check_shards

__all__ = ["Guarded", "quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the deprecation notices that TRL causes in transformers, and without its bars."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        enable_progress_bars()
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class _FiniteSteps(TrainerCallback):
    """No optimiser step with a gradient that is not finite."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise ValueError(
                    f"step {state.global_step + 1}: the gradient of {name} is not finite; no step was taken "
                    "(a model that outputs NaN, or a learning rate that is too large)"
                )


class Guarded:
    """Put before one of TRL's trainers: no step with a gradient that is not finite, and checkpoints that are complete.

    Checkpoints are written beside their place and renamed when all files are there; no model card, no printing.
    """

    args: Any
    state: Any
    accelerator: Any
    _partial: Path | None = None

    def __init__(self, *args: Any, callbacks: Sequence[Any] = (), **kwargs: Any) -> None:
        if getattr(kwargs.get("args"), "load_best_model_at_end", False):
            raise ValueError("args.load_best_model_at_end: which checkpoint was best is not tracked here")
        super().__init__(*args, callbacks=[_FiniteSteps(), *callbacks], **kwargs)  # type: ignore[call-arg]
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]
        check_shards(self)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the base's, without the rates and the mean loss of the whole training, which are of what was resumed."""
        kept = {k: v for k, v in logs.items() if not k.startswith("train_")} if "train_runtime" in logs else logs
        super().log(kept, *args, **kwargs)  # type: ignore[misc]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED and not math.isfinite(norm or 0.0):
            raise ValueError(  # DeepSpeed keeps the gradients to itself
                f"step {self.state.global_step + 1}: the gradient is not finite; DeepSpeed took the step, and no "
                "checkpoint was written since (a model that outputs NaN, or a learning rate that is too large)"
            )
        return norm

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: TRL's would describe TRL's own loss."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._partial or super()._get_output_dir(trial))  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from transformers.trainer_utils import rotate_checkpoints

        final = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._partial = final / ".partial"
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            written, self._partial = self._partial / name, None
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            os.replace(written, final / name)
            (final / ".partial").rmdir()
            rotate_checkpoints(output_dir=str(final), save_total_limit=self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
