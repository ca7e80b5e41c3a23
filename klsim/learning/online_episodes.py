"""Episodes of deterministic policies on finite-horizon problems, for many runs at once; R-max on tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP

__all__ = ["Episodes", "greedy_episodes", "rmax"]


class Episodes(NamedTuple):
    """Transitions of ``count`` episodes of every run: all ``(runs, count, H)``."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    successors: np.ndarray


def greedy_episodes(
    problem: TabularMDP, policies: Any, count: int, rng: np.random.Generator | int, *, binary: bool = False
) -> Episodes:
    """``count`` episodes of each of the deterministic policies ``(runs, H, S)``.

    Args:
        binary: rewards are drawn as 0 or 1 with the problem's rewards as means; otherwise they are the means.

    Raises:
        ValueError: a wrong shape, an unknown or illegal action, rewards outside [0, 1] if binary.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    table = _validate.integers("policies", policies, low=0, high=actions - 1)
    if table.ndim != 3 or table.shape[1:] != (horizon, states):
        _validate.fail("policies", f"must have shape (runs, {horizon}, {states}), got {table.shape}")
    assert problem.actions is not None
    if not problem.actions[np.arange(states), table].all():
        _validate.fail("policies", "has an illegal action")
    if _validate.flag("binary", binary) and np.any((problem.reward < 0) | (problem.reward > 1)):
        _validate.fail("problem", "binary rewards need means in [0, 1]")
    count = _validate.integer("count", count, low=1)
    _validate.fits("count", count, float(count) * len(table) * states * horizon)
    rng, run = _validate.generator(rng), np.arange(len(table))[:, None]
    edges = np.cumsum(problem.initial)
    at = np.minimum(np.searchsorted(edges, rng.random((len(table), count)) * edges[-1], side="right"), states - 1)
    visited, chosen, rewards, after = [], [], [], []
    for t in range(horizon):
        action = table[run, t, at]
        reward = problem.reward[t, at, action]
        rewards.append((rng.random(reward.shape) < reward).astype(float) if binary else reward)
        visited.append(at)
        chosen.append(action)
        moves = np.cumsum(problem.transition[t], axis=-1)[at, action]
        points = rng.random(at.shape) * moves[..., -1]
        at = np.minimum((moves <= points[..., None]).sum(axis=-1), states - 1)
        after.append(at)
    return Episodes(*(np.stack(x, axis=-1) for x in (visited, chosen, rewards, after)))


def rmax(
    problem: TabularMDP,
    *,
    rounds: int,
    episodes: int,
    known: int,
    top: float = 1.0,
    binary: bool = False,
    runs: int = 1,
    rng: np.random.Generator | int = 0,
) -> np.ndarray:
    """Policies ``(runs, rounds, H, S)`` that R-max plays: optimal for an empirical model where unknown pairs are worth
    ``top``.

    A pair of a step is unknown until it was seen ``known`` times. Ties are broken at random in every round, after which
    ``episodes`` episodes are played.

    Raises:
        ValueError: counts below 1, a problem with illegal actions, rewards outside [0, 1] if binary.
    """
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    if not np.all(problem.actions):
        _validate.fail("problem", "R-max needs every action to be legal everywhere")
    named = {"rounds": rounds, "episodes": episodes, "known": known, "runs": runs}
    rounds, episodes, known, runs = (_validate.integer(name, n, low=1) for name, n in named.items())
    top, rng = _validate.real("top", top, low=-1e100, high=1e100), _validate.generator(rng)
    horizon, states, actions = problem.shape
    _validate.fits("runs", runs, float(runs) * horizon * states * (states * actions + rounds))
    moves = np.zeros((runs, *problem.shape, states))
    gains, counts = np.zeros((runs, *problem.shape)), np.zeros((runs, *problem.shape))
    played = np.empty((runs, rounds, horizon, states), dtype=np.int64)
    for i in range(rounds):
        value = np.zeros((runs, states))
        for t in range(horizon - 1, -1, -1):
            total = np.maximum(counts[:, t], 1.0)
            q = (gains[:, t] + np.einsum("rsat,rt->rsa", moves[:, t], value)) / total
            q = np.where(counts[:, t] >= known, q, top)
            value = q.max(axis=-1)
            ties = np.where(q >= value[..., None] - 1e-12, rng.random(q.shape), -1.0)
            played[:, i, t] = ties.argmax(axis=-1)
        data = greedy_episodes(problem, played[:, i], episodes, rng, binary=binary)
        where = (np.arange(runs)[:, None, None], np.arange(horizon), data.states, data.actions)
        np.add.at(counts, where, 1.0)
        np.add.at(gains, where, data.rewards)
        np.add.at(moves, (*where, data.successors), 1.0)
    return played
