"""ms-swift's ``jsd_loss`` of distillation, from its file: ``swift:jsd?beta=0.5``, a mean over valid tokens."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import Target, strict_value
from klsim.audit.targets.files import load_file
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A loss of the installed ms-swift.

    Raises:
        ValueError: no such loss or option. ModuleNotFoundError: ms-swift is not installed.
    """
    losses = load_file("swift", "rlhf_trainers/gkd_loss.py")
    if name != "jsd" or set(options) - {"beta"}:
        raise ValueError(f"target {text!r}: write swift:jsd or swift:jsd?beta=0.5")
    beta = strict_value(text, "beta", options.get("beta", "0.5"), 0.5)

    def loss(batch: TokenBatch) -> Any:
        summed = losses.jsd_loss(batch.vocab_log_probs[batch.mask], batch.teacher_vocab_log_probs[batch.mask], beta)
        return summed / batch.mask.sum()

    return Target(text, lambda: loss, {}, f"ms-swift {version('ms-swift')}")
