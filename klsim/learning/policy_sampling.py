r"""Evaluating a class of deterministic policies from samples: shared trees, roll-outs, importance weights.

* `shared_trees` (generative access): one sampled successor of every (layer, state, action) that some policy reaches,
  shared by all. A policy meets each of them once, so its path has the law of a roll-out; a tree takes at most
  ``sum_h C_h(Pi)`` calls.
* `policy_episodes` (online access): roll-outs, each of a policy of its own.
* `trajectory_weights`: of roll-outs of uniform actions, ``A^H 1[pi ~ tau]``, or of a uniformly drawn core policy,
  ``1[pi ~ tau] / ((1/K) sum_e 1[pi_e ~ tau])``, whose second moment is at most K times that of the policy itself.

Source: ``agnostic-rl``, generative-model theorems and preliminaries of POPLER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP
from klsim.problems.policy_classes import check_policies

__all__ = ["Episodes", "SharedTrees", "policy_episodes", "shared_trees", "trajectory_weights"]


@dataclass(frozen=True)
class SharedTrees:
    """Returns of every policy on every tree, ``(trees, N)``, and generative calls, ``(trees,)``.

    A call at the last layer returns only its reward; the draw of the first state is not counted.
    """

    returns: np.ndarray
    calls: np.ndarray


@dataclass(frozen=True)
class Episodes:
    """``states``, ``actions`` and ``rewards`` ``(n, H)`` of roll-outs."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


def _tables(problem: TabularMDP, policies: Any) -> tuple[TabularMDP, np.ndarray, np.ndarray]:
    """The dense problem, its cumulative transitions, and the class."""
    _validate.instance("problem", problem, TabularMDP)
    horizon, states, actions = problem.shape
    if problem.actions is not None and not np.all(problem.actions):
        _validate.fail("problem", "every action must be legal everywhere")
    table = check_policies(policies, actions=actions, shape=(horizon, states))
    problem = problem.dense()
    return problem, np.ascontiguousarray(np.cumsum(problem.transition, axis=-1)), table


def shared_trees(problem: TabularMDP, policies: Any, trees: int, *, rng: np.random.Generator | int = 0) -> SharedTrees:
    """Returns of a class ``(N, H, S)`` on sampled trees; column means estimate the values without bias.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: shapes, unknown actions, ``trees`` below 1 or too many.
    """
    from klsim.kernels import policy_paths as kernels

    dense, edges, table = _tables(problem, policies)
    trees = _validate.integer("trees", trees, low=1)
    _validate.fits("trees", trees, trees * (dense.reward.size + len(table)))
    rng = _validate.generator(rng)
    first, uniforms = rng.random(trees), rng.random((trees, *dense.shape))
    reward = np.ascontiguousarray(dense.reward)
    returns, calls = kernels.shared_trees(np.cumsum(dense.initial), edges, reward, table, first, uniforms)
    return SharedTrees(returns, calls)


def policy_episodes(problem: TabularMDP, policies: Any, which: Any, *, rng: np.random.Generator | int = 0) -> Episodes:
    """Roll-outs; episode i follows policy ``which[i]`` of the class ``(N, H, S)``.

    Raises:
        TypeError: not a `TabularMDP`, not integers. ValueError: shapes, unknown actions or policies.
    """
    from klsim.kernels import policy_paths as kernels

    dense, edges, table = _tables(problem, policies)
    chosen = _validate.integers("which", which, low=0, high=len(table) - 1)
    if chosen.ndim != 1:
        _validate.fail("which", f"must have shape (n,), got {chosen.shape}")
    uniforms = _validate.generator(rng).random((len(chosen), dense.horizon))
    states, actions = kernels.policy_paths(np.cumsum(dense.initial), edges, table, chosen, uniforms)
    return Episodes(states, actions, dense.reward[np.arange(dense.horizon), states, actions])


def trajectory_weights(
    policies: Any, states: Any, actions: Any, *, core: Any = None, action_count: int | None = None
) -> np.ndarray:
    """Importance weights ``(N, n)`` of whole trajectories ``(n, H)`` for every policy of a class ``(N, H, S)``.

    Args:
        states, actions: what was visited and played. core: the behaviour is a uniform draw from ``core (K, H, S)``; a
            trajectory that no core policy plays weighs 0. action_count: without a core, actions were uniform over as
            many.

    Raises:
        TypeError: not integers. ValueError: shapes, unknown states, both or none of ``core`` and ``action_count``.
    """
    table = check_policies(policies)
    _, horizon, size = table.shape
    seen = _validate.integers("states", states, low=0, high=size - 1)
    played = _validate.integers("actions", actions, low=0)
    if seen.ndim != 2 or seen.shape[1] != horizon or seen.shape != played.shape:
        _validate.fail("states", f"must have the shape (n, {horizon}) of actions, got {seen.shape} and {played.shape}")
    if (core is None) == (action_count is None):
        _validate.fail("core", "give either core or action_count")
    own = _consistent(table, seen, played)
    if core is None:
        with np.errstate(over="ignore"):
            weight = np.float64(_validate.integer("action_count", action_count, low=1)) ** horizon
        _validate.representable("action_count", np, weight)
        return own * weight
    behaviours = check_policies(core, shape=(horizon, size), name="core")
    among = _consistent(behaviours, seen, played).sum(axis=0)
    return np.asarray(np.where(own, len(behaviours) / np.maximum(among, 1), 0.0) * (among > 0))


def _consistent(policies: np.ndarray, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """``(N, n)``: the trajectory's actions are the policy's."""
    return np.asarray(np.all(policies[:, np.arange(states.shape[1]), states] == actions, axis=-1))
