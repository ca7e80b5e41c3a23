"""Batches of a problem's responses as a loss sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from klsim.learning.functionals import in_logits
from klsim.learning.prompt_trees import TreeProblem
from klsim.objectives.batch import TokenBatch

if TYPE_CHECKING:
    import torch

__all__ = ["TreeBatches", "scalar_loss", "with_metrics"]


class TreeBatches:
    """Batches of responses as torch tensors: ``log_probs`` are read from one table of log-probabilities, a leaf."""

    def __init__(self, problem: TreeProblem) -> None:
        import torch

        self.problem = problem
        self.table = torch.tensor(problem.tables["policy"], dtype=torch.float64, requires_grad=True)
        self.nodes = torch.as_tensor(problem.nodes)
        self.tokens = torch.as_tensor(problem.tokens)
        self.mask = torch.as_tensor(problem.mask)
        self.reward = torch.as_tensor(problem.reward)
        self.prompt = torch.as_tensor(problem.prompt)
        self.fixed = {name: torch.as_tensor(problem.tables[name]) for name in ("old", "ref", "teacher")}

    def gradient(self, value: torch.Tensor) -> np.ndarray:
        """Of a scalar in the policy's logits, ``(prefixes, V)``."""
        import torch

        found = torch.autograd.grad(value, self.table, allow_unused=True)[0] if value.requires_grad else None
        return np.zeros(self.table.shape) if found is None else in_logits(found.numpy(), self.problem)

    def batch(self, rows: Any, external: Any = None) -> TokenBatch:
        """The responses of some rows of the problem; ``external``: which of them somebody else wrote."""
        nodes, words = self.nodes[rows], self.tokens[rows]
        constant = {name: table[nodes] for name, table in self.fixed.items()}
        sampled = {name: x.gather(-1, words[..., None])[..., 0] for name, x in constant.items()}
        vocab = self.table[nodes]
        return TokenBatch(
            log_probs=vocab.gather(-1, words[..., None])[..., 0],
            mask=self.mask[rows],
            tokens=words,
            rewards=self.reward[rows],
            group=self.prompt[rows],
            external=external,
            old_log_probs=sampled["old"],
            ref_log_probs=sampled["ref"],
            teacher_log_probs=sampled["teacher"],
            vocab_log_probs=vocab,
            old_vocab_log_probs=constant["old"],
            ref_vocab_log_probs=constant["ref"],
            teacher_vocab_log_probs=constant["teacher"],
        )


def with_metrics(returned: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
    """What a loss returned, alone or with a dict of metrics, as ``(scalar, metrics)``.

    Raises:
        TypeError: no scalar tensor, or something else beside it.
    """
    loss, metrics = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, {})
    if getattr(loss, "ndim", None) != 0 or not hasattr(loss, "backward"):
        raise TypeError(f"loss: must return a scalar torch tensor (or one and a dict), got {type(loss).__name__}")
    if not isinstance(metrics, Mapping):
        raise TypeError(f"loss: returns a dict of metrics beside the scalar, got {type(metrics).__name__}")
    return loss, metrics


def scalar_loss(returned: Any) -> torch.Tensor:
    """The scalar alone, see `with_metrics`."""
    return with_metrics(returned)[0]
