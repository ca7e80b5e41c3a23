"""torchrl's LLM losses: ``torchrl:grpo?kl_to_ref_coeff=0.1&aggregation=token_mean``, ``torchrl:cispo``, ``:dapo``.

Advantages are the group-normalised ones that its ``MCAdvantage`` documents; the actor is a stub that returns the tree's
log-probabilities and the response mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from klsim.audit.target import LossFunction, Target, numeric_options, option_value
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
    with quiet():
        from torchrl.objectives.llm import CISPOLoss, GRPOLoss
        from torchrl.objectives.llm.grpo import DAPO

    kinds = {"grpo": GRPOLoss, "cispo": CISPOLoss, "dapo": DAPO}
    if name not in kinds:
        raise ValueError(f"target {text!r}: torchrl:{name} is not one of {', '.join(kinds)}")
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
