"""torchtune's losses of RL: ``torchtune:grpo?kl_coeff=0.1``, ``GRPOWithChunkedOutputLoss``'s simple and plain forms."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, strict_value
from klsim.audit.targets.stubs import grouped, need
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A loss of the installed torchtune.

    Raises:
        ValueError: no such loss or option. ModuleNotFoundError: torchtune, or what it needs, is not installed.
    """
    need("torchtune", "torchtune torchao")
    from torchtune.dev.rl.loss import GRPOLoss, GRPOSimpleLoss

    kinds = {"grpo": GRPOLoss, "grpo_simple": GRPOSimpleLoss}
    if name not in kinds:
        raise ValueError(f"target {text!r}: torchtune:{name} is not one of {', '.join(kinds)}")
    known = inspect.signature(kinds[name].__init__).parameters
    unknown = set(options) - set(known)
    if unknown:
        raise ValueError(f"target {text!r}: {kinds[name].__name__} has no option {sorted(unknown)[0]!r}")
    chosen = {k: strict_value(text, k, v, known[k].default) for k, v in options.items()}

    def build(**parameters: float) -> LossFunction:
        loss = kinds[name](**chosen | parameters)

        def run(batch: TokenBatch) -> Any:
            rewards = batch.total_rewards()
            mean, deviation, _ = grouped(rewards, batch.group)
            advantages = (rewards - mean) / (deviation + 1e-4)
            old = () if name == "grpo_simple" else (batch.old_log_probs,)
            return loss(*old, batch.log_probs, batch.ref_log_probs, advantages, padding_masks=batch.mask)[0]

        return run

    return Target(text, build, {"kl_coeff": 0.1} | numeric_options(chosen), f"torchtune {version('torchtune')}")
