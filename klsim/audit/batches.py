"""How the audit presents responses to a loss: padded in several ways, with junk that depends on parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.learning import TreeProblem
from klsim.learning.functionals import in_logits
from klsim.objectives.batch import TokenBatch

if TYPE_CHECKING:
    import torch

__all__ = ["AuditBatch", "AuditBatches", "Layout"]

Layout = Literal["right", "left", "holes", "trimmed"]
"""Where masked positions are: after the response, before it, in between, or cut off with the longest response."""
JUNK = 5
"""Rows of parameters that only masked positions read."""


@dataclass(frozen=True)
class AuditBatch(TokenBatch):
    """A batch as a trainer's collator leaves it: nothing is checked, and masked positions hold finite junk.

    Attributes:
        rollout_log_probs: of the sampler, which may differ from the old policy. values, old_values: of a value head,
            ``[B, T]``. preferred: ``[B]``, the chosen one of every pair. greedy_rewards: ``[B]``, the reward of the
            prompt's greedy response. ended: ``[B]``, not cut by the horizon. max_length: the horizon.
    """

    rollout_log_probs: Any = None
    values: Any = None
    old_values: Any = None
    preferred: Any = None
    greedy_rewards: Any = None
    ended: Any = None
    max_length: int = 0

    def __post_init__(self) -> None:
        """Nothing: junk has to stay where it is."""

    def validated(self) -> TokenBatch:
        """The same responses as a `TokenBatch`, which erases what is masked."""
        return TokenBatch(**{f.name: getattr(self, f.name) for f in dataclasses.fields(TokenBatch)})


class AuditBatches:
    """Batches of a problem's responses, and gradients in everything that they read.

    Parameters are the policy's logits, `JUNK` more rows that masked positions read, and a value for every prefix. A
    gradient is one flat array: logits ``(prefixes, V)``, junk logits, values, junk values.

    Args:
        layout: ``"right"``: responses first, junk after; ``"left"``: junk first; ``"holes"``: junk within (as tool
            output is); ``"trimmed"``: right, cut to the longest response of the batch.
        token_rewards: ``(N, T)``, in the order of the response's own tokens. None: one reward a response.
        drop_cut: responses that the horizon cuts are masked altogether. seed: of the junk and the values.
    """

    def __init__(
        self,
        problem: TreeProblem,
        *,
        layout: Layout = "right",
        width: int | None = None,
        token_rewards: np.ndarray | None = None,
        drop_cut: bool = False,
        pairs: bool = False,
        seed: int = 0,
    ) -> None:
        import torch

        _validate.one_of("layout", layout, ("right", "left", "holes", "trimmed"))
        self.problem, self.layout, self.pairs = problem, layout, pairs
        rng = np.random.default_rng([23, seed])
        width = problem.horizon if width is None else width
        places = _places(problem.length, width, layout)
        prefixes, vocab = problem.tables["policy"].shape
        shape = (len(problem.reward), width)
        nodes = prefixes + rng.integers(JUNK, size=shape)
        words = rng.integers(vocab, size=shape)
        mask = np.zeros(shape, dtype=bool)
        rewards = np.zeros(shape)
        for i, where in enumerate(places):
            nodes[i, where], words[i, where] = problem.nodes[i][problem.mask[i]], problem.tokens[i][problem.mask[i]]
            mask[i, where] = not drop_cut or problem.ended[i]
            if token_rewards is not None:
                rewards[i, where] = token_rewards[i][problem.mask[i]]
        self.nodes, self.tokens, self.mask = (torch.as_tensor(x) for x in (nodes, words, mask))
        self.rewards = torch.as_tensor(problem.reward if token_rewards is None else rewards)
        self.prompt, self.ended = torch.as_tensor(problem.prompt), torch.as_tensor(problem.ended)
        self.length = torch.as_tensor(problem.length)
        self.greedy = torch.as_tensor(_greedy_rewards(problem))

        def with_junk(table: np.ndarray) -> np.ndarray:
            return np.concatenate([table, log_normalize(rng.standard_normal((JUNK, vocab)))])

        self.table = torch.tensor(with_junk(problem.tables["policy"]), requires_grad=True)
        self.fixed = {name: torch.as_tensor(with_junk(problem.tables[name])) for name in ("old", "ref", "teacher")}
        self.rollout = torch.as_tensor(with_junk(problem.tables["behaviour"]))
        self.values = torch.tensor(0.5 * rng.standard_normal(prefixes + JUNK), requires_grad=True)
        self.old_values = self.values.detach() + 0.1 * torch.as_tensor(rng.standard_normal(prefixes + JUNK))

    def batch(self, rows: Any, external: Any = None, group: Any = None) -> AuditBatch:
        """The responses of some rows; ``group``: None numbers the prompts."""
        at = slice(None)
        if self.layout == "trimmed":
            at = slice(int(self.length[rows].max()))
        nodes, words, mask = self.nodes[rows][:, at], self.tokens[rows][:, at], self.mask[rows][:, at]
        constant = {name: table[nodes] for name, table in self.fixed.items()}
        index = words[..., None]
        sampled = {name: x.gather(-1, index)[..., 0] for name, x in constant.items()}
        vocab = self.table[nodes]
        rewards = self.rewards[rows]
        return AuditBatch(
            log_probs=vocab.gather(-1, index)[..., 0],
            mask=mask,
            tokens=words,
            rewards=rewards[:, at] if rewards.ndim == 2 else rewards,
            group=self.prompt[rows] if group is None else group,
            external=external,
            old_log_probs=sampled["old"],
            ref_log_probs=sampled["ref"],
            teacher_log_probs=sampled["teacher"],
            vocab_log_probs=vocab,
            old_vocab_log_probs=constant["old"],
            ref_vocab_log_probs=constant["ref"],
            teacher_vocab_log_probs=constant["teacher"],
            rollout_log_probs=self.rollout[nodes].gather(-1, index)[..., 0],
            values=self.values[nodes],
            old_values=self.old_values[nodes],
            preferred=self._preferred(rows) if self.pairs else None,
            greedy_rewards=self.greedy[self.prompt[rows]],
            ended=self.ended[rows],
            max_length=self.nodes.shape[1],
        )

    def _preferred(self, rows: Any) -> Any:
        """The one with more reward of every two rows of a prompt."""
        rewards = self.problem.reward[np.asarray(rows)].reshape(-1, 2)
        import torch

        return torch.as_tensor((rewards > rewards[:, ::-1]).ravel())

    def gradient(self, value: torch.Tensor) -> np.ndarray:
        """Of a scalar in all parameters, flat."""
        import torch

        leaves = (self.table, self.values)
        found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else (None, None)
        table, values = (np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(leaves, found))
        prefixes = len(self.problem.node_prompt)
        logits = in_logits(table[:prefixes], self.problem)
        return np.concatenate([logits.ravel(), table[prefixes:].ravel(), values])

    def flat(self, logits: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """A gradient ``(prefixes, V)`` in the logits (and one in the values) as a flat one, nothing for junk."""
        prefixes, vocab = logits.shape
        values = np.zeros(prefixes) if values is None else values
        return np.concatenate([logits.ravel(), np.zeros(JUNK * vocab), values, np.zeros(JUNK)])

    def logits(self, flat: np.ndarray) -> np.ndarray:
        """The part of a flat gradient in the policy's logits, ``(prefixes, V)``."""
        shape = self.problem.tables["policy"].shape
        return flat[: shape[0] * shape[1]].reshape(shape)

    def junk(self, flat: np.ndarray) -> np.ndarray:
        """The part of a flat gradient in what only masked positions read."""
        prefixes, vocab = self.problem.tables["policy"].shape
        return np.concatenate([flat[prefixes * vocab : (prefixes + JUNK) * vocab], flat[-JUNK:]])


def _places(length: np.ndarray, width: int, layout: Layout) -> list[np.ndarray]:
    """The columns that the tokens of every response stand in."""
    if layout == "left":
        return [np.arange(width - n, width) for n in length]
    if layout == "holes":  # spread over the width: the first column of one token is junk, two tokens have junk between
        return [np.array([width // 2]) if n == 1 else np.linspace(0, width - 1, n).astype(int) for n in length]
    return [np.arange(n) for n in length]


def _greedy_rewards(problem: TreeProblem) -> np.ndarray:
    """Reward of every prompt's greedy response under the law that draws."""
    table = problem.tables["behaviour"]
    best = table.argmax(axis=1)
    own = np.where(problem.free, best[problem.nodes] == problem.tokens, True).all(axis=1)
    out = np.zeros(len(problem.prompts))
    out[problem.prompt[own]] = problem.reward[own]
    return out
