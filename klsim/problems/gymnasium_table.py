"""The transition table of a Gymnasium toy-text environment, with termination as an absorbing state of reward 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse as sp

from klsim import _validate

__all__ = ["Table", "read_table"]


@dataclass(frozen=True)
class Table:
    """``rows`` CSR ``(S A, S)``, ``reward (S, A)``, ``initial (S,)``, and the time limit (None if there is none)."""

    rows: sp.csr_array
    reward: np.ndarray
    initial: np.ndarray
    limit: int | None

    def transition(self, sparse: bool) -> Any:
        """CSR, or ``(S, A, S)``."""
        if _validate.flag("sparse", sparse):
            return self.rows
        states, actions = self.reward.shape
        return np.asarray(self.rows.toarray()).reshape(states, actions, states)


def read_table(env: Any) -> Table:
    """The table ``env.unwrapped.P[s][a] = [(probability, next state, reward, terminated), ...]`` and its start law.

    The state after termination is one that is added: what the table says about leaving a terminal state (Taxi drives
    on, CliffWalking walks on) is not part of an episode.

    Raises:
        TypeError: no such table, or no ``initial_state_distrib``.
    """
    inner = getattr(env, "unwrapped", env)
    table, start = getattr(inner, "P", None), getattr(inner, "initial_state_distrib", None)
    if not isinstance(table, dict) or start is None:
        raise TypeError(f"env: needs a transition table P and initial_state_distrib, {type(inner).__name__} has none")
    states, actions = len(table), len(table[0])
    reward = np.zeros((states + 1, actions))
    rows, columns, weights = [], [], []
    for s, a in np.ndindex(states, actions):
        for probability, following, gain, terminated in table[s][a]:
            reward[s, a] += probability * gain
            rows.append(s * actions + a)
            columns.append(states if terminated else int(following))
            weights.append(float(probability))
    for a in range(actions):
        rows.append(states * actions + a)
        columns.append(states)
        weights.append(1.0)
    shape = ((states + 1) * actions, states + 1)
    spec = getattr(env, "spec", None)
    limit = None if spec is None else spec.max_episode_steps
    initial = np.append(np.asarray(start, dtype=np.float64), 0.0)
    return Table(sp.csr_array(sp.coo_array((weights, (rows, columns)), shape=shape)), reward, initial, limit)
