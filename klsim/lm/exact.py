r"""Training a causal LM on fully enumerated trees, with the exact gradient of any objective or with sampled responses.

A tabular gradient needs no second derivation for a network. If ``g(s, a)`` is the gradient in the logits of prefix s
(`klsim.learning.functional_gradient`, `klsim.learning.expected_gradient`), the one in the parameters is

.. math:: \nabla_\theta = \sum_{s,a} g(s,a)\, \nabla_\theta z_\theta(s,a)
          = \nabla_\theta \sum_{s,a} \mathrm{sg}[g(s,a)] \log\pi_\theta(a|s),

the second step because every row of g sums to 0. A *step* is a function ``(table, problem) -> scalar``: the policy's
log-probabilities ``(prefixes, V)`` with their graph, and the problem in which they are the policy, to something whose
gradient is descended. `exact_step` and `sampled_step` make steps; steps can be added. `fit_tree` is the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from klsim import _validate
from klsim.learning import TreeProblem, expected_gradient, functional_gradient
from klsim.learning.expected_gradient import LossFunction
from klsim.learning.tree_batches import TreeBatches, scalar_loss
from klsim.lm.table import tree_log_probs
from klsim.objectives import TokenBatch

__all__ = ["Step", "TreeFit", "draw", "exact_gradient", "exact_step", "fit_tree", "policy_table", "sampled_step",
           "tree_batch"]  # fmt: skip

Step = Callable[[torch.Tensor, TreeProblem], torch.Tensor]
"""The gradient to descend, of the log-policy table on a problem."""
Population = Mapping[str, float]
"""Coefficients of named functionals, as in `klsim.objectives.registry`: ``{"reward": -1, "reverse_kl": 0.3}``."""


def policy_table(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    problem: TreeProblem,
    vocab: Sequence[int] | None = None,
    *,
    temperature: float = 1.0,
) -> torch.Tensor:
    """The model's log-probabilities in the rows of ``problem.tables["policy"]``: ``(prefixes, V)`` with their graph.

    Args:
        prompt_ids: token ids of every prompt of the problem. vocab, temperature: as in `tree_log_probs`.

    Raises:
        ValueError: not one list of ids for every prompt, an alphabet of another size than the problem's, and what
            `tree_log_probs` raises.
    """
    if len(prompt_ids) != len(problem.prompts):
        _validate.fail("prompt_ids", f"needs one list for each of the {len(problem.prompts)} prompts", len(prompt_ids))
    parts = []
    for i, ids in enumerate(prompt_ids):
        levels = tree_log_probs(model, ids, problem.horizon, vocab, temperature=temperature)
        if levels[0].shape[-1] != problem.vocab:
            _validate.fail("vocab", f"must have {problem.vocab} tokens, as the problem", levels[0].shape[-1])
        parts.append(torch.cat(levels)[torch.as_tensor(_rows(problem, i)).to(levels[0].device)])
    return torch.cat(parts)


def _rows(problem: TreeProblem, prompt: int) -> np.ndarray:
    """Where in the concatenated levels of a prompt's tree its prefixes stand."""
    here = problem.prompt == prompt
    words, nodes, mask = problem.tokens[here], problem.nodes[here], problem.mask[here]
    first = int(np.flatnonzero(problem.node_prompt == prompt)[0])
    rows = np.zeros(int((problem.node_prompt == prompt).sum()), dtype=np.int64)
    prefix, start = np.zeros(len(words), dtype=np.int64), 0
    for t in range(problem.horizon):
        at = mask[:, t]
        rows[nodes[at, t] - first] = start + prefix[at]
        prefix, start = prefix * problem.vocab + words[:, t], start + problem.vocab**t
    return rows


def exact_gradient(objective: Population | LossFunction, problem: TreeProblem, *, group_size: int = 1) -> np.ndarray:
    """Gradient of an objective to be minimised in the tabular logits, ``(prefixes, V)``.

    Args:
        objective: coefficients of named functionals, or a loss of a `TokenBatch`, whose expectation over groups of
            ``group_size`` responses a prompt is enumerated. The first is much faster; which combination a loss of the
            library is, says `klsim.objectives.registry`.

    Raises:
        ValueError: an unknown functional, or more groups than `expected_gradient` enumerates.
    """
    if isinstance(objective, Mapping):
        zero = np.zeros(problem.tables["policy"].shape)
        return sum((c * functional_gradient(name, problem) for name, c in objective.items()), zero)
    found = expected_gradient(objective, problem, group_size=group_size, samples=2)  # what is sampled is refused
    if found.stderr is not None:
        _validate.fail("group_size", "too many groups of responses to enumerate", group_size)
    return found.gradient


def exact_step(objective: Population | LossFunction, *, group_size: int = 1) -> Step:
    """The exact expected gradient, see `exact_gradient`."""

    def step(table: torch.Tensor, problem: TreeProblem) -> torch.Tensor:
        gradient = torch.as_tensor(exact_gradient(objective, problem, group_size=group_size))
        # 0 times -inf where the policy excludes a token: its gradient is 0, and so must the product be
        finite = torch.where(torch.isinf(table), 0.0, table)
        return (gradient.to(table.device) * finite).sum()

    return step


def draw(problem: TreeProblem, size: int, rng: np.random.Generator | int, *, law: str = "behaviour") -> np.ndarray:
    """``size`` responses a prompt from a law of the problem: row numbers of its arrays, prompt by prompt."""
    size, rng = _validate.integer("size", size, low=1), _validate.generator(rng)
    _validate.one_of("law", law, tuple(problem.tables))
    log_p = problem.log_prob(law)
    chosen = []
    for i in range(len(problem.prompts)):
        rows = np.flatnonzero(problem.prompt == i)
        p = np.exp(log_p[rows] - log_p[rows].max())
        chosen.append(rng.choice(rows, size, p=p / p.sum()))
    return np.concatenate(chosen)


def tree_batch(table: torch.Tensor, problem: TreeProblem, rows: np.ndarray) -> TokenBatch:
    """The `TokenBatch` of some responses of the tree; gradients flow into ``table`` (`policy_table`)."""
    made = TreeBatches(problem)
    made.table = table.cpu()
    return made.batch(torch.as_tensor(rows))


def sampled_step(
    loss: LossFunction, size: int, rng: np.random.Generator | int, *, law: str = "behaviour", scale: float = 1.0
) -> Step:
    """``scale`` times a loss on ``size`` fresh responses a prompt, drawn from a law of the problem.

    Args:
        loss: of a `TokenBatch`. law: ``"behaviour"`` (the policy itself, unless the prompts say otherwise), ``"ref"``,
            ``"teacher"``, ``"external"``.
    """
    rng = _validate.generator(rng)

    def step(table: torch.Tensor, problem: TreeProblem) -> torch.Tensor:
        return scale * scalar_loss(loss(tree_batch(table, problem, draw(problem, size, rng, law=law))))

    return step


def _rate(k: int, steps: int) -> float:
    """The share of the learning rate at step k."""
    return min(1.0, (k + 1) / max(steps // 10, 1)) * (1 + math.cos(math.pi * k / max(steps, 1))) / 2


@dataclass(frozen=True)
class TreeFit:
    """Policies along a run: after ``steps[k]`` steps ``problems[k].tables["policy"]``; the end is always there."""

    steps: tuple[int, ...]
    problems: tuple[TreeProblem, ...]

    @property
    def final(self) -> TreeProblem:
        """The problem with the policy at the end."""
        return self.problems[-1]


def fit_tree(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    problem: TreeProblem,
    *steps_of: Step,
    steps: int,
    lr: float,
    vocab: Sequence[int] | None = None,
    record: Sequence[int] = (),
) -> TreeFit:
    r"""Descend the sum of some steps in the model's parameters, in place and with dropout off.

    Adam(0.9, 0.95); the learning rate rises over the first tenth of the steps and then falls as
    ``lr (1 + cos(pi k/steps))/2``. Both matter for exact gradients: large first steps drop branches of the tree that
    softmax finds back slowly, and a long memory of their squares slows down what follows. Prompts without
    ``log_behaviour`` stay on-policy.

    Args:
        prompt_ids: of every prompt of the problem. vocab: the alphabet. record: numbers of steps to keep the policy at.

    Raises:
        ValueError: as `policy_table`; a step whose value is not finite (names the step).
    """
    if not steps_of:
        _validate.fail("steps_of", "needs at least one step")
    steps, lr = _validate.integer("steps", steps, low=0), _validate.real("lr", lr, low=0.0, open_low=True)
    marks = {_validate.integer("record", k, low=0, high=steps) for k in record} | {steps}
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: _rate(k, steps))
    kept = []
    for k in range(steps + 1):
        table = policy_table(model, prompt_ids, problem, vocab)
        now = problem.with_policy(table.detach().cpu().numpy())
        if k in marks:
            kept.append(now)
        if k == steps:
            break
        loss = torch.stack([step(table, now) for step in steps_of]).sum()
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"steps_of: their sum is {float(loss.detach())} at step {k}")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return TreeFit(tuple(sorted(marks)), tuple(kept))
