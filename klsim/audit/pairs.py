r"""What a loss on preference pairs does to the two responses: how hard it pushes them, and when it stops.

The gradient of one pair is ``-(up grad log pi(y+) - down grad log pi(y-))`` for any loss that reads the responses'
log-probabilities: two numbers, measured in some situations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from klsim.audit.batches import AuditBatches
from klsim.audit.identify import EXACT
from klsim.audit.properties import unwarned
from klsim.audit.target import LossFunction
from klsim.learning import PromptTree, TreeProblem
from klsim.learning.expected_gradient import one_batch
from klsim.problems import TokenTree

__all__ = ["GAP", "Push", "pushes"]

GAP = 10.0
"""``|log pi(y)/ref(y)|`` of both responses where the pair is ranked."""


@dataclass(frozen=True)
class Push:
    """In one situation: weights of ``grad log pi(y+)`` upwards and of ``grad log pi(y-)`` downwards.

    ``left``: the share of the gradient that is neither (of losses that weight tokens).
    """

    situation: str
    up: float
    down: float
    left: float


def pushes(loss: LossFunction) -> tuple[Push, ...]:
    """At the reference, with the pair ranked rightly and wrongly, and with either response three times as long.

    Ranked: the chosen response is e^`GAP` times as probable as under the reference and the rejected one as much less,
    or the other way round. Situations in which the loss fails are left out.
    """
    situations = {
        "at the reference": _ranked(0.0), "ranked rightly": _ranked(GAP), "ranked wrongly": _ranked(-GAP),
        "chosen of 3 tokens, rejected of 1": _long(1.0), "chosen of 1 token, rejected of 3": _long(0.0),
    }  # fmt: skip
    out = []
    for name, problem in situations.items():
        try:
            with unwarned():
                out.append(_push(loss, name, problem))
        except Exception:  # reported where the loss is evaluated at all
            continue
    return tuple(out)


def _ranked(gap: float) -> TreeProblem:
    """One token: the first is chosen, the second rejected, the third is the rest of the vocabulary."""
    first, second = np.log(0.45) + min(gap, 0.0), np.log(0.45) + min(-gap, 0.0)

    def law(a: float, b: float) -> np.ndarray:
        return np.array([[a, b, np.log1p(-np.exp(a) - np.exp(b))]])

    policy, ref = law(first, second), law(first - gap, second + gap)
    return TreeProblem([PromptTree(TokenTree(3, 1, [1.0, 0.0, 0.5]), (policy,), (ref,), (ref,))])


def _long(reward: float) -> TreeProblem:
    """A response of three tokens and one of one token, the policy is the reference; ``reward``: of the long one."""
    levels = tuple(np.full((2**t, 2), -np.log(2.0)) for t in range(3))
    rewards = np.full(8, 0.5)
    rewards[:4], rewards[6] = 1 - reward, reward  # the first token 0 ends; 1, 1, 0 is the long one
    return TreeProblem([PromptTree(TokenTree(2, 3, rewards, eos=0), levels, levels, levels)])


def _push(loss: LossFunction, name: str, problem: TreeProblem) -> Push:
    import torch

    made = AuditBatches(problem, pairs=True)
    rows = [int(np.flatnonzero(problem.reward == value)[0]) for value in (1.0, 0.0)]
    gradient = made.logits(one_batch(loss, made, torch.tensor(rows))[0]).ravel()
    scores = np.stack([_score(problem, row) for row in rows], axis=1)
    (up, down), *_ = np.linalg.lstsq(scores, -gradient, rcond=None)
    size = float(np.linalg.norm(gradient))
    left = float(np.linalg.norm(gradient + scores @ [up, down])) / size if size else 0.0
    return Push(name, float(up), -float(down), left if left > EXACT else 0.0)


def _score(problem: TreeProblem, row: int) -> np.ndarray:
    """``grad log pi(y)`` in the logits."""
    pi = np.exp(problem.tables["policy"])
    out = np.zeros_like(pi)
    for node, token in zip(problem.nodes[row][problem.mask[row]], problem.tokens[row][problem.mask[row]]):
        out[node] -= pi[node]
        out[node, token] += 1
    return out.ravel()
