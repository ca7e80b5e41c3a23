"""OpenRLHF's ``PolicyLoss`` and ``DPOLoss``, from its file of losses.

``openrlhf:policy?clip_eps_low=0.2&policy_loss_type=gspo``; ``estimator=rloo|group_norm|dr_grpo|reinforce_baseline`` are
the advantages that it documents; ``openrlhf:dpo?beta=0.1`` on pairs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, option_value, strict_value
from klsim.audit.targets.files import load_file
from klsim.audit.targets.stubs import grouped, preferred_rows
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]

ESTIMATORS = ("rloo", "group_norm", "dr_grpo", "reinforce_baseline")


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A loss of the installed OpenRLHF.

    Raises:
        ValueError: no such loss or option. ModuleNotFoundError: OpenRLHF is not installed.
    """
    losses = load_file("openrlhf", "models/loss.py", ("deepspeed",))
    kinds: dict[str, Any] = {"policy": losses.PolicyLoss, "dpo": losses.DPOLoss}
    if name not in kinds:
        raise ValueError(f"target {text!r}: openrlhf:{name} is not one of openrlhf:policy, openrlhf:dpo")
    given = dict(options)
    estimator = given.pop("estimator", "group_norm")
    if estimator not in ESTIMATORS:
        raise ValueError(f"target {text!r}: estimator={estimator} is not one of {', '.join(ESTIMATORS)}")
    known = inspect.signature(kinds[name].__init__).parameters
    unknown = set(given) - set(known)
    if unknown:
        raise ValueError(f"target {text!r}: {kinds[name].__name__} has no option {sorted(unknown)[0]!r}")
    chosen = {k: strict_value(text, k, v, known[k].default) for k, v in given.items()}
    release = f"openrlhf {version('openrlhf')}"
    if name == "dpo":
        chosen = {"beta": 0.1} | {k: option_value(v) for k, v in given.items()}
        return Target(text, lambda **p: _dpo(kinds["dpo"](**chosen | p)), numeric_options(chosen), release)

    def build(**parameters: float) -> LossFunction:
        loss = kinds["policy"](**chosen | parameters)
        return lambda batch: _policy(loss, batch, estimator)

    return Target(text, build, numeric_options(chosen), release)


def _policy(loss: Any, batch: Any, estimator: str) -> Any:
    import torch

    mask = batch.mask.to(torch.float64)
    rewards = batch.total_rewards()
    mean, deviation, size = grouped(rewards, batch.group)
    advantages = (rewards - mean) * (size / (size - 1) if estimator == "rloo" else 1)
    if estimator == "group_norm":
        advantages = advantages / (deviation + 1e-9)
    if estimator == "reinforce_baseline":  # normalised over the tokens of the batch
        count = mask.sum()
        centre = (advantages[:, None] * mask).sum() / count
        spread = (((advantages[:, None] - centre) ** 2) * mask).sum() / count
        advantages = (advantages - centre) * spread.clamp(min=1e-8).rsqrt()
    return loss(
        batch.log_probs,
        batch.old_log_probs,
        advantages[:, None].expand_as(mask),
        action_mask=mask,
        rollout_log_probs=getattr(batch, "rollout_log_probs", None),
    )[0]


def _dpo(loss: Any) -> LossFunction:
    def run(batch: TokenBatch) -> Any:
        chosen, rejected = preferred_rows(batch)
        own, ref = ((x * batch.weights).sum(1) for x in (batch.log_probs, batch.ref_log_probs))
        return loss(own[chosen], own[rejected], ref[chosen], ref[rejected])[0]

    return run
