r"""Token trees under a regulariser that is paid at every token: any optimum of a bandit, node by node.

.. math:: \max_\pi E_\pi[r] - \sum_t E_\pi[\Omega(\pi(\cdot|s_t), ref(\cdot|s_t))]

is solved backwards: a node's value is the optimum of its bandit, whose rewards are the values of its children. For
KL, and for KL and entropy, it is the optimum over sequences (`klsim.tsallis_renyi.kl_and_entropy_regularized` of
`klsim.problems.token_tree.sequence_log_probs`); for other divergences it is another policy (``foundations`` R12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.optima import Optimum
from klsim.problems import TokenTree
from klsim.problems.token_tree import end_after_eos, sequence_log_probs

__all__ = ["TokenOptimum", "regularized_tokens"]


@dataclass(frozen=True, repr=False)
class TokenOptimum(Shown):
    """The optimum of a regulariser per token.

    Attributes:
        log_policy: levels ``(V**t, V)``. q_value: levels, values of the children.
        value: of the root, reward units. gap: no policy has more than ``value + gap``.
    """

    log_policy: tuple[np.ndarray, ...]
    q_value: tuple[np.ndarray, ...]
    value: float
    gap: float


def regularized_tokens(
    problem: TokenTree, log_ref: Sequence[Any] | None, optimum: Callable[[np.ndarray, np.ndarray], Optimum]
) -> TokenOptimum:
    """Backward induction with ``optimum(log_ref, q)`` at every node, rows ``(N, V)`` in, an `Optimum` of rows out.

    Args:
        problem: a tree whose reward is one vector ``(V**H,)``. log_ref: levels; None is uniform.
        optimum: as ``lambda p, q: tsallis_regularized(p, q, beta, order)``.

    Raises:
        TypeError: not a tree, no function. ValueError: a batch of rewards; levels of another tree; what ``optimum``
            refuses.
    """
    _validate.instance("problem", problem, TokenTree)
    optimum = _validate.function("optimum", optimum)
    reward = np.asarray(problem.reward, dtype=np.float64)
    if reward.ndim != 1:
        _validate.fail("problem", f"must have one vector of rewards, got shape {reward.shape}")
    levels = problem.uniform() if log_ref is None else tuple(log_ref)
    if sequence_log_probs(levels).shape != reward.shape or len(levels) != problem.horizon:
        _validate.fail("log_ref", f"must be one tree of vocabulary {problem.vocab} and horizon {problem.horizon}")
    if problem.eos is not None:
        levels = end_after_eos(levels, problem.eos)
    value, gap = reward, 0.0
    policies: list[np.ndarray] = []
    q_values: list[np.ndarray] = []
    for level in levels[::-1]:
        q = value.reshape(-1, problem.vocab)
        found = optimum(np.asarray(level, dtype=np.float64), q)
        policies.append(np.asarray(found.log_policy))
        q_values.append(q)
        value = np.asarray(found.value).reshape(-1)
        gap += float(np.max(found.gap))
    return TokenOptimum(tuple(policies[::-1]), tuple(q_values[::-1]), float(value[0]), gap)
