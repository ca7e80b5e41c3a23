r"""SQIRL and GORP: exploration by random actions, learning by regression, on tabular finite-horizon problems.

`sqirl` (k, m) fixes the policy one step after another. For step i it draws m episodes that follow the fixed policy
before i and act at random from i on, regresses the return-to-go at step ``i + k - 1`` on state and action, goes back to
i by k - 1 maximising backups on the same episodes, and fixes the greedy action. `gorp` (k, m) instead averages the
returns of whole action sequences: right only for deterministic problems. Regression is a table of cell means, 0 where
empty.

Source: ``effective-horizon``, Algorithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP

__all__ = ["gorp", "open_loop_return", "policy_returns", "sqirl"]


def _run(name: str, problem: TabularMDP, k: int, m: int, runs: int, rng: Any) -> np.ndarray:
    from klsim.kernels import sqirl as kernels

    _validate.instance("problem", problem, TabularMDP)
    k, m = _validate.integer("k", k, low=1), _validate.integer("m", m, low=1)
    runs = _validate.integer("runs", runs, low=1)
    if problem.actions is not None and not np.all(problem.actions):
        _validate.fail("problem", "random exploration needs every action to be legal everywhere")
    _validate.fits("m", m, m * (2 * problem.horizon + 1))  # the states and actions of m episodes
    seeds = _validate.generator(rng).integers(0, 2**31 - 1, runs)
    edges = np.ascontiguousarray(np.cumsum(problem.dense().transition, axis=-1))
    kernel = getattr(kernels, name)
    reward = np.ascontiguousarray(problem.reward, dtype=np.float64)
    return np.asarray(kernel(edges, reward, np.cumsum(problem.initial), min(k, problem.horizon), m, seeds))


def sqirl(problem: TabularMDP, k: int, m: int, *, runs: int = 1, rng: np.random.Generator | int = 0) -> np.ndarray:
    """Policies ``(runs, H, S)`` of independent runs of SQIRL(k, m); the same for any number of threads.

    Raises:
        ValueError: ``k``, ``m`` or ``runs`` below 1, a problem with illegal actions.
    """
    return _run("sqirl_runs", problem, k, m, runs, rng)


def gorp(problem: TabularMDP, k: int, m: int, *, runs: int = 1, rng: np.random.Generator | int = 0) -> np.ndarray:
    """Action sequences ``(runs, H)`` of independent runs of GORP(k, m).

    Raises:
        ValueError: as `sqirl`; more than 10^6 sequences a step.
    """
    _validate.instance("problem", problem, TabularMDP)
    k = _validate.integer("k", k, low=1)
    if problem.shape[2] ** min(k, problem.horizon) > 10**6:
        _validate.fail("k", f"{problem.shape[2]}**{k} sequences are too many", k)
    return _run("gorp_runs", problem, k, m, runs, rng)


def policy_returns(problem: TabularMDP, policies: Any) -> np.ndarray:
    """Exact returns ``(...)`` of deterministic policies ``(..., H, S)``.

    Raises:
        ValueError: a wrong shape, an unknown action.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    table = _validate.integers("policies", policies, low=0, high=actions - 1)
    if table.shape[-2:] != (horizon, states):
        _validate.fail("policies", f"must have shape (..., {horizon}, {states}), got {table.shape}")
    value = np.zeros((*table.shape[:-2], states))
    for t in range(horizon - 1, -1, -1):
        chosen = table[..., t, :]
        rows = problem.transition[t][np.arange(states), chosen]
        value = problem.reward[t][np.arange(states), chosen] + np.einsum("...st,...t->...s", rows, value)
    return np.asarray(value @ problem.initial)


def open_loop_return(problem: TabularMDP, sequence: Any) -> float:
    """Exact return of a fixed action sequence ``(H,)``, whatever the states."""
    _validate.instance("problem", problem, TabularMDP)
    horizon, states, actions = problem.shape
    fixed = _validate.integers("sequence", sequence, low=0, high=actions - 1)
    if fixed.shape != (horizon,):
        _validate.fail("sequence", f"must have shape ({horizon},), got {fixed.shape}")
    return float(policy_returns(problem, np.broadcast_to(fixed[:, None], (horizon, states))))
