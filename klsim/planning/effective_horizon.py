r"""When acting greedily on a simple policy's values, after a few backups, is optimal: k-QVI-solvability.

``Q^1`` is the value of a base policy (uniform: random exploration), ``Q^{i+1}_t = R_t + E max_a Q^i_{t+1}``; ``Q^H`` is
optimal. A problem is *k-QVI-solvable* if every policy that is greedy for ``Q^k`` is optimal. The gap of k is the
smallest advantage of greedy over other actions at states that greedy policies reach; the *stochastic effective horizon*
is the minimum over solvable k of ``k + log_A(1/gap^2)``.

Source: ``effective-horizon`` (Laidlaw et al. 2024); gaps over greedy-reachable states as in its digest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.evaluation import policy_of
from klsim.problems import TabularMDP

__all__ = ["EffectiveHorizon", "effective_horizon", "greedy_actions", "qvi_iterates", "reachable"]

TIE = 1e-9


@dataclass(frozen=True)
class EffectiveHorizon:
    """What k backups are good for, ``k = 1 … H`` in this order.

    Attributes:
        solvable: ``(H,)`` boolean. gap: ``(H,)``; 1 where all actions tie at every reached state.
        horizon: ``(H,)``, ``k + log_A(1/gap^2)`` where solvable, else ``inf``.
        k: the minimiser of ``horizon``. value: its minimum, the stochastic effective horizon.
    """

    solvable: np.ndarray
    gap: np.ndarray
    horizon: np.ndarray
    k: int
    value: float


def qvi_iterates(problem: TabularMDP, count: int, *, log_base: Any = None) -> np.ndarray:
    """``Q^1 … Q^count``, ``(count, H, S, A)``; ``log_base`` is the policy of Q^1, uniform if None.

    Raises:
        ValueError: ``count`` below 1, a base policy that is not one.
    """
    _validate.instance("problem", problem, TabularMDP)
    count = _validate.integer("count", count, low=1)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    uniform = np.full(problem.shape, -math.log(actions))
    base = np.exp(policy_of(problem, uniform if log_base is None else log_base, "log_base"))
    out = np.empty((count, *problem.shape))
    value = np.zeros(states)
    for t in range(horizon - 1, -1, -1):
        out[0, t] = problem.reward[t] + problem.transition[t] @ value
        value = np.sum(base[t] * out[0, t], axis=1)
    for i in range(1, count):
        best = np.concatenate([out[i - 1, 1:].max(axis=-1), np.zeros((1, states))])
        out[i] = problem.reward + np.einsum("hsat,ht->hsa", problem.transition, best)
    return out


def greedy_actions(q_value: np.ndarray) -> np.ndarray:
    """Boolean, the shape of ``q_value`` ``(..., A)``: within 1e-9 of the largest on the last axis.

    Raises:
        ValueError: no action, NaN or infinite values.
    """
    (q_value,) = _validate.numpy_arrays(q_value=q_value)
    if q_value.ndim == 0 or 0 in q_value.shape:
        _validate.fail("q_value", f"needs a non-empty last axis of actions, got shape {q_value.shape}")
    _validate.finite("q_value", np, q_value)
    return np.asarray(q_value >= q_value.max(axis=-1, keepdims=True) - TIE)


def reachable(problem: TabularMDP, allowed: np.ndarray) -> np.ndarray:
    """``(H, S)`` boolean: states that some policy inside ``allowed`` ``(H, S, A)`` visits.

    Raises:
        TypeError: not a `TabularMDP`, ``allowed`` not boolean. ValueError: its shape.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    allowed = _validate.boolean_mask("allowed", allowed, problem.shape)
    out = np.zeros(problem.shape[:2], dtype=bool)
    out[0] = problem.initial > 0
    for t in range(problem.horizon - 1):
        moves = (out[t][:, None] & allowed[t])[..., None] & (problem.transition[t] > 0)
        out[t + 1] = moves.any(axis=(0, 1))
    return out


def effective_horizon(problem: TabularMDP, *, log_base: Any = None) -> EffectiveHorizon:
    """Solvability, gaps and effective horizons of ``k = 1 … H``.

    Raises:
        ValueError: a single action; a base policy that is not one.
    """
    _validate.instance("problem", problem, TabularMDP)
    horizon, _, actions = problem.shape
    if actions < 2:
        _validate.fail("problem", "needs at least two actions")
    iterates = qvi_iterates(problem, horizon, log_base=log_base)
    optimal = greedy_actions(iterates[-1])
    solvable, gap = np.zeros(horizon, dtype=bool), np.ones(horizon)
    for i, q in enumerate(iterates):
        greedy = greedy_actions(q)
        reached = reachable(problem, greedy)
        solvable[i] = not np.any(reached[..., None] & greedy & ~optimal)
        others = np.where(greedy, -np.inf, q).max(axis=-1)
        gaps = (q.max(axis=-1) - others)[reached & np.isfinite(others)]
        gap[i] = gaps.min() if gaps.size else 1.0
    lengths = np.where(solvable, np.arange(1, horizon + 1) - 2 * np.log(gap) / math.log(actions), np.inf)
    best = int(np.argmin(lengths))
    return EffectiveHorizon(solvable, gap, lengths, best + 1, float(lengths[best]))
