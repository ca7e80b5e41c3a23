r"""Policy search by dynamic programming (PSDP) with exploratory resets, in exact expectation.

From the last layer to the first, with a class of maps and a reset law of every layer,

.. math:: \hat\pi_h \in \arg\max_{\pi \in \Pi_h} E_{s \sim \mu_h} Q_h^{\hat\pi_{h+1:H}}(s, \pi(s)).

What it loses against any comparator is at most

.. math:: V^{\pi^*} - V^{\hat\pi} \le \sum_h \|\frac{d_h^{\pi^*}}{\mu_h}\|_\infty \varepsilon_h, \qquad
          \varepsilon_h = E_{\mu_h}\big[\max_a Q_h(s, a) - Q_h(s, \hat\pi_h(s))\big]:

the completeness error of the class at the continuation that was learned, not how well the class does from the start.

Source: Bagnell et al. (2003); ``agnostic-rl`` on its failure without policy completeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP

__all__ = ["PSDPRun", "psdp", "psdp_bound", "state_concentrability"]

ROUNDING = 1e-9


@dataclass(frozen=True)
class PSDPRun:
    """What PSDP learned.

    Attributes:
        policy: ``(H, S)``. value: its exact return.
        shortfall: ``eps_h``, ``(H,)``: what the best actions would add at a layer, on average over the resets.
        q_value: ``Q_h`` of the learned continuation, ``(H, S, A)``.
    """

    policy: np.ndarray
    value: float
    shortfall: np.ndarray
    q_value: np.ndarray


def _laws(resets: Any, shape: tuple[int, int]) -> np.ndarray:
    (laws,) = _validate.numpy_arrays(resets=resets)
    if laws.shape != shape:
        _validate.fail("resets", f"must have shape (H, S) = {shape}, got {laws.shape}")
    with np.errstate(divide="ignore", invalid="ignore"):
        _validate.log_probs("resets", np, np.log(laws))
    return laws


def _maps(maps: Any, shape: tuple[int, int, int]) -> list[np.ndarray]:
    horizon, states, actions = shape
    given = _validate.sequence("maps", maps)
    if len(given) != horizon:
        _validate.fail("maps", f"needs a class of maps for each of {horizon} layers, got {len(given)}")
    out = [_validate.integers(f"maps[{h}]", m, low=0, high=actions - 1) for h, m in enumerate(given)]
    for h, table in enumerate(out):
        if table.ndim != 2 or not len(table) or table.shape[1] != states:
            _validate.fail(f"maps[{h}]", f"must have shape (M, {states}), M >= 1, got {table.shape}")
    return out


def psdp(problem: TabularMDP, maps: Sequence[Any], resets: Any, *, tolerance: Any = 0.0) -> PSDPRun:
    """Run PSDP.

    Args:
        problem: finite horizon H, every action legal. maps: for every layer the class, integers ``(M, S)``.
        resets: laws of the states, ``(H, S)``. tolerance: a layer's learner returns the worst map whose score is within
            this of the best one's (up to a relative 1e-9, and rounding); a number or ``(H,)``. 0: the first maximiser.

    Raises:
        TypeError: not a `TabularMDP`, maps that are not integers. ValueError: shapes, unknown actions, reset laws that
            are none, a negative tolerance.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    if problem.actions is not None and not np.all(problem.actions):
        _validate.fail("problem", "every action must be legal everywhere")
    horizon, states, _ = problem.shape
    classes, laws = _maps(maps, problem.shape), _laws(resets, (horizon, states))
    (slack,) = _validate.numpy_arrays(tolerance=tolerance)
    if slack.shape not in ((), (horizon,)):
        _validate.fail("tolerance", f"must be a number or have shape ({horizon},), got {slack.shape}")
    slack = np.broadcast_to(_validate.budgets("tolerance", np, slack), (horizon,))
    value, everyone = np.zeros(states), np.arange(states)
    policy, shortfall, q_value = np.zeros((horizon, states), dtype=np.int64), np.zeros(horizon), np.zeros(problem.shape)
    for h in range(horizon - 1, -1, -1):
        with np.errstate(over="ignore", invalid="ignore"):
            q = q_value[h] = problem.reward[h] + problem.transition[h] @ value
        _validate.representable("problem", np, q)
        scores = q[everyone, classes[h]] @ laws[h]
        rounding = 4 * np.finfo(float).eps * np.abs(scores).max() if slack[h] else 0.0
        allowed = np.flatnonzero(scores >= scores.max() - slack[h] * (1 + ROUNDING) - rounding)
        policy[h] = classes[h][allowed[np.argmin(scores[allowed])]]
        value = q[everyone, policy[h]]
        shortfall[h] = laws[h] @ (q.max(axis=1) - value)
    return PSDPRun(policy, float(problem.initial @ value), shortfall, q_value)


def state_concentrability(problem: TabularMDP, policy: Any, resets: Any) -> np.ndarray:
    """``max_s d_h(s) / mu_h(s)`` of a deterministic policy ``(H, S)``, ``(H,)``; infinite where the resets miss it.

    Raises:
        TypeError: not a `TabularMDP`, not integers. ValueError: shapes, unknown actions, reset laws that are none.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    table = _validate.integers("policy", policy, low=0, high=actions - 1)
    if table.shape != (horizon, states):
        _validate.fail("policy", f"must have shape ({horizon}, {states}), got {table.shape}")
    laws, visits = _laws(resets, (horizon, states)), problem.initial
    out = np.zeros(horizon)
    for h in range(horizon):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            out[h] = np.max(np.where(visits > 0, visits / laws[h], 0.0))
        visits = visits @ problem.transition[h, np.arange(states), table[h]]
    return out


def psdp_bound(concentrability: Any, shortfall: Any) -> float:
    """``sum_h ||d_h/mu_h||_inf eps_h``, both ``(H,)``; a layer without shortfall adds nothing.

    Raises:
        ValueError: shapes that differ, negative numbers, NaN.
    """
    ratio, lost = _validate.numpy_arrays(concentrability=concentrability, shortfall=shortfall)
    if ratio.ndim != 1 or ratio.shape != lost.shape:
        _validate.fail("shortfall", f"must have the shape (H,) of concentrability {ratio.shape}, got {lost.shape}")
    _validate.budgets("concentrability", np, ratio)
    _validate.budgets("shortfall", np, lost)
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sum(np.where((lost > 0) & (ratio > 0), ratio * lost, 0.0)))
