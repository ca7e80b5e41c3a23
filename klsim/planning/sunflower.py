r"""Sunflowers: classes whose policies follow a small core, except at few states of their own.

A class is a *(K, D)-sunflower* if there are K core policies and, for every policy, a set of at most D *petals* such
that every partial trajectory consistent with the policy is consistent with a core policy or visits a petal. With
``start_counts`` the first state of the trajectory may be that petal (the action there is then the policy's own);
without it only later states count, and the core must cover what the policy does at its petals.

The value of such a policy is that of a Markov reward process on the start and the petals. From a petal the policy acts
once, then core policies act; a trajectory counts with its balance-heuristic weight

.. math:: 1[\pi \sim \tau] \,\Big/\, \frac1K \sum_e 1[\pi_e \sim \tau]

until the policy's next petal. Rows are the probabilities of that petal, rewards what is earned on the way.

Source: ``agnostic-rl``, definition of sunflowers and the construction of POPLER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP
from klsim.problems.policy_classes import check_policies

__all__ = ["PetalProcess", "petal_process", "uncovered_trajectory"]


def _parts(
    policy: Any, core: Any, petals: Any, actions: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    own = _validate.integers("policy", policy, low=0, high=None if actions is None else actions - 1)
    if own.ndim != 2 or 0 in own.shape:
        _validate.fail("policy", f"must have shape (H, S), none of them 0, got {own.shape}")
    shape = (own.shape[0], own.shape[1])
    return (
        own,
        check_policies(core, actions=actions, shape=shape, name="core"),
        _validate.boolean_mask("petals", petals, shape),
    )


def uncovered_trajectory(
    policy: Any, core: Any, petals: Any, *, start_counts: bool = True
) -> tuple[int, tuple[int, ...]] | None:
    """A shortest partial trajectory of a policy that neither a core policy nor a petal covers; None if there is none.

    Args:
        policy: ``(H, S)``. core: ``(K, H, S)``. petals: boolean ``(H, S)``. start_counts: a petal as the first state
            covers the trajectory.

    Returns:
        The layer of its first state (from 0), and its states; its actions are the policy's.

    Raises:
        TypeError: not integers, or not a mask. ValueError: shapes that differ.
    """
    own, others, marked = _parts(policy, core, petals)
    _validate.flag("start_counts", start_counts)
    horizon, states = own.shape
    agrees = np.moveaxis(others == own, 0, -1)  # (H, S, K)
    found = None
    for first in range(horizon):
        paths: dict[tuple[int, bytes], tuple[int, ...]] = {
            (s, np.ones(len(others), dtype=bool).tobytes()): (s,)
            for s in range(states)
            if not (start_counts and marked[first, s])
        }
        for h in range(first, horizon):
            after: dict[tuple[int, bytes], tuple[int, ...]] = {}
            for (s, alive), path in paths.items():
                left = np.frombuffer(alive, dtype=bool) & agrees[h, s]
                if not left.any():
                    if found is None or len(path) < len(found[1]):
                        found = first, path
                elif h + 1 < horizon:
                    for t in np.flatnonzero(~marked[h + 1]):
                        after.setdefault((int(t), left.tobytes()), (*path, int(t)))
            paths = after
    return found


@dataclass(frozen=True)
class PetalProcess:
    """The Markov reward process of a policy on the start and its petals.

    Attributes:
        layer, state: of the D petals, ``(D,)``, by layer (from 0).
        transition: ``(D + 1, D)``, row 0 from the start, row j + 1 from petal j; what is missing from 1 is the end (and
            weight that the core does not cover).
        reward: expected reward before the next petal, ``(D + 1,)``.
        value: of the start.
    """

    layer: np.ndarray
    state: np.ndarray
    transition: np.ndarray
    reward: np.ndarray
    value: float


def petal_process(problem: TabularMDP, policy: Any, core: Any, petals: Any) -> PetalProcess:
    """The exact petal process of a policy: what infinitely many roll-outs of the core from every node would give.

    Its value is the policy's if the petals are complete (`uncovered_trajectory` finds none with ``start_counts``).

    Args:
        problem: finite horizon. policy: ``(H, S)``. core: ``(K, H, S)``. petals: boolean ``(H, S)``.

    Raises:
        TypeError: not a `TabularMDP`, not integers, not a mask. ValueError: shapes, unknown actions.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    own, others, marked = _parts(policy, core, petals, actions)
    if own.shape != (horizon, states):
        _validate.fail("policy", f"must have shape ({horizon}, {states}), got {own.shape}")
    layer, state = np.nonzero(marked)
    number = np.full((horizon, states), -1)
    number[layer, state] = np.arange(len(layer))
    transition, reward = np.zeros((len(layer) + 1, len(layer))), np.zeros(len(layer) + 1)
    transition[0], reward[0] = _segment(problem, own, others, number, 0, problem.initial)
    for node, (h, s) in enumerate(zip(layer.tolist(), state.tolist()), start=1):
        earned = problem.reward[h, s, own[h, s]]
        if h + 1 < horizon:
            transition[node], later = _segment(problem, own, others, number, h + 1, problem.transition[h, s, own[h, s]])
            earned = earned + later
        reward[node] = earned
    value = np.zeros(len(layer))
    for node in range(len(layer) - 1, -1, -1):  # petals of later layers first
        value[node] = reward[node + 1] + transition[node + 1] @ value
    _validate.representable("problem", np, reward, value)
    return PetalProcess(layer, state, transition, reward, float(reward[0] + transition[0] @ value))


def _segment(
    problem: TabularMDP, own: np.ndarray, core: np.ndarray, number: np.ndarray, first: int, law: np.ndarray
) -> tuple[np.ndarray, float]:
    """Hits of the next petal, and reward before it, of core roll-outs that begin at layer ``first`` with ``law``."""
    hits, reward = np.zeros(int(number.max(initial=-1)) + 1), 0.0
    agrees = np.moveaxis(core == own, 0, -1)  # (H, S, K)
    for e, actor in enumerate(core):
        # mass of the actor's trajectories by the set of core policies that are consistent with them
        masses = {np.ones(len(core), dtype=bool).tobytes(): law / len(core)}
        for h in range(first, problem.horizon):
            after: dict[bytes, np.ndarray] = {}
            for alive, mass in masses.items():
                consistent = np.frombuffer(alive, dtype=bool)
                stopped = number[h] >= 0
                np.add.at(hits, number[h][stopped], mass[stopped] * len(core) / consistent.sum())
                for s in np.flatnonzero((mass > 0) & ~stopped & agrees[h, :, e]):
                    left = consistent & agrees[h, s]
                    reward += mass[s] * len(core) / left.sum() * problem.reward[h, s, actor[h, s]]
                    moved = mass[s] * problem.transition[h, s, actor[h, s]]
                    after[left.tobytes()] = after.get(left.tobytes(), 0.0) + moved
            masses = after
    return hits, float(reward)
