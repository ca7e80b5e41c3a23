r"""Two-player zero-sum Markov games of a finite horizon, with simultaneous moves.

At step h in state s the row player picks a, the column player b; the row player receives ``r_h(s, a, b)``, the column
player pays it, and the next state is drawn from ``P_h(.|s, a, b)``. A policy is a pair ``(log_row (H, S, A), log_column
(H, S, B))``. Against a fixed policy of one player the other faces a `TabularMDP` (`for_row`, `for_column`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.tabular_mdp import TabularMDP
from klsim.problems.transition_rows import numpy_only, probabilities

__all__ = ["ZeroSumMarkovGame"]


@dataclass(frozen=True)
class ZeroSumMarkovGame:
    """``H`` steps in ``S`` states; the row player has ``A`` actions, the column player ``B``.

    Attributes:
        transition: ``(H, S, A, B, S)``. reward: ``(H, S, A, B)``, of the row player, finite. initial: ``(S,)``.

    Raises:
        ValueError: shapes that do not fit, rows that are not distributions.
    """

    transition: np.ndarray
    reward: np.ndarray
    initial: np.ndarray

    def __post_init__(self) -> None:
        transition, initial = probabilities("transition", self.transition), probabilities("initial", self.initial)
        reward = np.asarray(_validate.finite("reward", np, numpy_only("reward", self.reward)), dtype=np.float64)
        wanted = (*reward.shape, *initial.shape)
        fits = reward.ndim == 4 and 0 not in reward.shape and initial.ndim == 1 and reward.shape[1] == initial.size
        if not fits or transition.shape != wanted:
            shapes = f"transition {transition.shape}, reward {reward.shape}, initial {initial.shape}"
            _validate.fail("transition", f"must be (H, S, A, B, S) beside reward (H, S, A, B), initial (S,): {shapes}")
        for name, value in (("transition", transition), ("reward", reward), ("initial", initial)):
            object.__setattr__(self, name, value)

    @property
    def horizon(self) -> int:
        """H."""
        return int(self.reward.shape[0])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(H, S, A, B)``."""
        return self.reward.shape

    def _policy(self, name: str, log_policy: Any, actions: int) -> np.ndarray:
        (given,) = _validate.numpy_arrays(**{name: log_policy})
        _validate.log_probs(name, np, given)
        wanted = (*self.shape[:2], actions)
        if given.shape != wanted:
            _validate.fail(name, f"must have shape {wanted}, got {given.shape}")
        p = np.exp(given)
        return np.asarray(p / p.sum(axis=-1, keepdims=True))

    def for_row(self, log_column: Any) -> TabularMDP:
        """The problem of the row player against ``log_column (H, S, B)``."""
        weights = self._policy("log_column", log_column, self.shape[3])
        transition = np.einsum("hsb,hsabt->hsat", weights, self.transition)
        return TabularMDP(transition, np.einsum("hsb,hsab->hsa", weights, self.reward), self.initial, self.horizon)

    def for_column(self, log_row: Any) -> TabularMDP:
        """The problem of the column player against ``log_row (H, S, A)``: rewards are ``-r``."""
        weights = self._policy("log_row", log_row, self.shape[2])
        transition = np.einsum("hsa,hsabt->hsbt", weights, self.transition)
        return TabularMDP(transition, -np.einsum("hsa,hsab->hsb", weights, self.reward), self.initial, self.horizon)
