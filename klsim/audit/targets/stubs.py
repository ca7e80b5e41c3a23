"""What the adapters of trainers share: a causal LM that returns a batch's log-probabilities, rewards, one process."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from klsim.objectives.batch import TokenBatch

__all__ = ["BatchLM", "OneProcess", "grouped", "need", "preferred_rows", "quiet", "token_rewards", "total_rewards"]


def need(module: str, install: str) -> None:
    """A trainer has to be installed.

    Raises:
        ModuleNotFoundError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"the target needs {module}: pip install '{install}'")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the trainer's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class BatchLM:
    """A causal LM for one batch: whatever the input, its next-token log-probabilities are the batch's."""

    training = True

    def __init__(self, batch: TokenBatch) -> None:
        self.batch = batch

    def __call__(self, **_: Any) -> SimpleNamespace:
        log_probs = self.batch.vocab_log_probs
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return SimpleNamespace(logits=log_probs, log_probs=self.batch.log_probs, entropy=entropy)


class OneProcess:
    """One process, no mixed precision."""

    num_processes = 1
    sync_gradients = True
    is_main_process = True
    device = "cpu"

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


def grouped(rewards: Any, group: Any) -> tuple[Any, Any, Any]:
    """Group means, sample standard deviations and sizes, given to every response."""
    import torch

    member = (group[:, None] == group[None, :]).to(rewards.dtype)
    size = member.sum(1)
    mean = member @ rewards / size
    variance = (member * (rewards[None, :] - mean[:, None]) ** 2).sum(1) / (size - 1).clamp(min=1)
    return mean, torch.sqrt(variance), size


def preferred_rows(batch: Any) -> tuple[Any, Any]:
    """Rows of the chosen responses, and of the rejected ones in the same order of prompts.

    Raises:
        ValueError: no preferences, or not one of every two responses is chosen.
    """
    import torch

    if batch.preferred is None:
        raise ValueError("preferred: needs pairs")
    chosen, rejected = (torch.nonzero(x)[:, 0] for x in (batch.preferred, ~batch.preferred))
    if len(chosen) != len(rejected):
        raise ValueError("preferred: needs one of two")
    return chosen[batch.group[chosen].argsort(stable=True)], rejected[batch.group[rejected].argsort(stable=True)]


def total_rewards(batch: TokenBatch) -> Any:
    """The reward of every response; responses that are masked altogether keep theirs."""
    return batch.total_rewards()


def token_rewards(batch: TokenBatch) -> Any:
    """``[B, T]``: as given, or the response's reward at its last token."""
    import torch

    if batch.rewards.ndim == 2:
        return batch.rewards
    places = torch.arange(batch.mask.shape[1])
    last = torch.where(batch.mask, places, -1).max(dim=1).values
    return torch.where((places == last[:, None]) & batch.mask, batch.rewards[:, None], 0.0)
