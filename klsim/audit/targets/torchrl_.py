"""torchrl's LLM losses: ``torchrl:grpo?kl_to_ref_coeff=0.1&aggregation=token_mean``, ``torchrl:cispo``, ``:dapo``.

Advantages are the group-normalised ones that its ``MCAdvantage`` documents; the actor is a stub that returns the tree's
log-probabilities and the response mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, option_value, strict_value
from klsim.audit.targets.stubs import grouped, need, quiet
from klsim.objectives.batch import TokenBatch

__all__ = ["load"]

OPTIONS = ("clip_epsilon", "aggregation", "entropy_bonus", "entropy_coeff", "kl_to_ref_coeff", "kl_mask_threshold")


def load(text: str, name: str, options: Mapping[str, str]) -> Target:
    """A loss of the installed torchrl.

    Raises:
        ValueError: no such loss or option. ModuleNotFoundError: torchrl is not installed.
    """
    need("torchrl", "torchrl")
    if name == "distillation":
        return _distillation(text, options)
    with quiet():
        from torchrl.objectives.llm import CISPOLoss, GRPOLoss
        from torchrl.objectives.llm.grpo import DAPO

    kinds = {"grpo": GRPOLoss, "cispo": CISPOLoss, "dapo": DAPO}
    if name not in kinds:
        raise ValueError(f"target {text!r}: torchrl:{name} is not one of {', '.join(kinds)}, distillation")
    unknown = set(options) - set(OPTIONS)
    if unknown:
        raise ValueError(f"target {text!r}: unknown option {sorted(unknown)[0]!r} ({', '.join(OPTIONS)})")
    chosen: dict[str, Any] = {"entropy_bonus": False}
    for key, value in options.items():
        chosen[key] = option_value(value)
        if key not in ("aggregation",) and isinstance(chosen[key], str):
            raise ValueError(f"target {text!r}: {key}={value} is no number")

    def build(**parameters: float) -> LossFunction:
        actor = _actor()
        with quiet():
            loss = kinds[name](actor, masking_strategy="generic", **{**chosen, **parameters})
        return lambda batch: _run(loss, actor, batch)

    return Target(text, build, numeric_options(chosen), f"torchrl {version('torchrl')}")


def _actor() -> Any:
    """A module whose distribution is the batch's log-probabilities."""
    import torch

    class Actor(torch.nn.Module):
        batch: Any = None
        in_keys = ()
        out_keys = ()

        def get_dist(self, tensordict: Any, logits_key: str = "") -> Any:
            return _Distribution(self.batch)

    return Actor()


class _Distribution:
    """What the loss asks a masked categorical for."""

    has_rsample = False

    def __init__(self, batch: TokenBatch) -> None:
        self._batch = batch
        self.mask = batch.mask

    def log_prob(self, action: Any) -> Any:
        return self._batch.log_probs

    def entropy(self) -> Any:
        p = self._batch.vocab_log_probs
        return -(p.exp() * p).sum(-1)


def _run(loss: Any, actor: Any, batch: TokenBatch) -> Any:
    from tensordict import TensorDict

    actor.batch = batch
    rewards = batch.total_rewards()
    mean, deviation, _ = grouped(rewards, batch.group)
    advantages = ((rewards - mean) / (deviation + 1e-6))[:, None, None].expand(*batch.log_probs.shape, 1)
    given = TensorDict(
        {
            ("tokens", "full"): batch.tokens,
            ("log_probs", "full"): batch.old_log_probs,
            "advantage": advantages,
            ("next", "ref_log_probs", "full"): batch.ref_log_probs,
        },
        batch_size=batch.log_probs.shape[:1],
    )
    with quiet():
        out = loss(given)
    return sum(value.sum() for key, value in out.items() if key.startswith("loss_"))


def _distillation(text: str, options: Mapping[str, str]) -> Target:
    import torch
    from tensordict import TensorDict, lazy_stack

    with quiet():
        from torchrl.objectives.llm import DistillationLoss

    known = {"kl_direction": "reverse", "normalize_by_seq_length": True}
    unknown = set(options) - set(known)
    if unknown:
        raise ValueError(f"target {text!r}: unknown option {sorted(unknown)[0]!r} ({', '.join(known)})")
    chosen = {key: strict_value(text, key, value, known[key]) for key, value in options.items()}

    class Student(torch.nn.Module):
        batch: Any = None

        def forward(self, history: Any) -> Any:
            return _stacked({("log_probs", "full"): self.batch.log_probs})

    def _stacked(fields: dict[Any, Any]) -> Any:
        return lazy_stack([TensorDict(dict(zip(fields, row)), batch_size=()) for row in zip(*fields.values())])

    def loss(batch: TokenBatch) -> Any:
        module.actor_network.batch = batch
        given = {
            ("history", "full"): batch.tokens,
            ("next", "teacher_log_probs", "full"): batch.teacher_log_probs,
            ("masks", "all_assistant_mask"): batch.mask,
            ("masks", "all_attention_mask"): batch.mask,
        }
        with quiet():
            return module(_stacked(given)).loss_distill

    with quiet():
        module = DistillationLoss(Student(), **chosen)
    return Target(text, lambda: loss, {}, f"torchrl {version('torchrl')}")
