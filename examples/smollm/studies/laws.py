"""Completions of a prompt with the whole next-token laws of the policy that drew them and of another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from klsim.lm.generation import generate, seeded, without_dropout


@dataclass(frozen=True)
class Read:
    """Completions of one prompt, on the device of the models.

    Attributes:
        tokens: ``(S, T)``. log_policy, log_other: laws before every token, ``(S, T, V)``, float64. states: what the
            weights of the policy's last normalisation act on, ``(S, T, H)``.
    """

    tokens: torch.Tensor
    log_policy: torch.Tensor
    log_other: torch.Tensor
    states: torch.Tensor


def read(policy: Any, other: Any, tokenizer: Any, prompt: str, samples: int, tokens: int, seed: int) -> Read:
    """``samples`` completions of ``tokens`` tokens each: an end of sequence does not end one, and is not drawn."""
    with seeded(policy.device, seed), without_dropout(policy, other), torch.no_grad():
        made = generate(
            policy, tokenizer, [prompt] * samples, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True,
            temperature=1.0, top_k=0, top_p=1.0,
        )  # fmt: skip
        ids, width = made.ids, made.ids.shape[1] - tokens
        seen: list[torch.Tensor] = []
        hook = policy.model.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            logits = [policy(ids, use_cache=False, logits_to_keep=tokens + 1).logits[:, :-1]]
        finally:
            hook.remove()
        logits.append(other(ids, use_cache=False, logits_to_keep=tokens + 1).logits[:, :-1])
    before = seen[0][:, width - 1 : -1].double()
    scale = torch.rsqrt(before.square().mean(-1, keepdim=True) + policy.model.norm.variance_epsilon)
    logs = [torch.log_softmax(x.double(), -1) for x in logits]
    return Read(ids[:, width:], *logs, before * scale)
