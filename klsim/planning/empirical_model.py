r"""Models and behaviour policies counted from trajectories, and roll-outs of a behaviour that knows its whole history.

The data are trajectories of one problem whose law does not change with the step: states ``(n, H + 1)``, actions and
rewards ``(n, H)``. A *Markov* clone ``mu(a|s)`` forgets how it came to a state, so that its roll-outs join parts of
different trajectories; a clone of the full history can only repeat whole ones.

Source: ``mbrcsl`` C4, C5 (Zhou et al. 2023).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.cloning import clone
from klsim.planning.evaluation import Trajectories
from klsim.problems import TabularMDP

__all__ = ["empirical_model", "finding_probability", "history_rollouts", "markov_clone"]


def _data(data: Any, shape: Any) -> tuple[Trajectories, tuple[int, int]]:
    """Trajectories whose arrays fit, with at least one step of one of them, and ``(S, A)``."""
    _validate.instance("data", data, Trajectories)
    sizes = tuple(_validate.integer("shape", k, low=1) for k in _validate.sequence("shape", shape))
    if len(sizes) != 2:
        _validate.fail("shape", f"must be (S, A), got {len(sizes)} numbers")
    states = _validate.integers("data.states", data.states, low=0, high=sizes[0] - 1)
    actions = _validate.integers("data.actions", data.actions, low=0, high=sizes[1] - 1)
    (rewards,) = _validate.numpy_arrays(**{"data.rewards": data.rewards})
    if actions.ndim != 2 or 0 in actions.shape or states.shape != (len(actions), actions.shape[1] + 1):
        shapes = f"states {states.shape}, actions {actions.shape}"
        _validate.fail("data.actions", f"must be (n, H), none of them 0, beside states (n, H + 1): {shapes}")
    if rewards.shape != actions.shape:
        _validate.fail("data.rewards", f"must have the shape of the actions {actions.shape}, got {rewards.shape}")
    _validate.fits("shape", sizes[0], float(sizes[0]) ** 2 * sizes[1])
    return Trajectories(states, actions, _validate.finite("data.rewards", np, rewards)), (sizes[0], sizes[1])


def empirical_model(data: Trajectories, shape: tuple[int, int], horizon: int | None = None) -> TabularMDP:
    """The problem whose transitions, mean rewards and starts are the frequencies of the data, all steps together.

    A pair without data stays where it is and pays 0; the Markov clone never plays it.

    Args:
        shape: the numbers ``(S, A)`` of states and actions. horizon: that of the data if None.

    Raises:
        TypeError: not `Trajectories`. ValueError: shapes, unknown states or actions, rewards that are not finite.
    """
    data, (states, actions) = _data(data, shape)
    steps = data.actions.shape[1] if horizon is None else _validate.integer("horizon", horizon, low=1)
    moves, gains = np.zeros((states, actions, states)), np.zeros((states, actions))
    np.add.at(moves, (data.states[:, :-1], data.actions, data.states[:, 1:]), 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(gains, (data.states[:, :-1], data.actions), data.rewards)
    _validate.representable("data.rewards", np, gains)
    counts = moves.sum(axis=-1)
    seen, total = counts > 0, np.maximum(counts, 1.0)
    stay = np.broadcast_to(np.eye(states)[:, None], moves.shape)
    initial = np.bincount(data.states[:, 0], minlength=states) / len(data.states)
    transition = np.where(seen[..., None], moves / total[..., None], stay)
    return TabularMDP(transition, gains / total, initial, steps)


def markov_clone(data: Trajectories, shape: tuple[int, int]) -> np.ndarray:
    """``log mu(a|s)``, ``(S, A)``: frequencies over all steps, uniform at states without an action in the data.

    Raises:
        as `empirical_model`.
    """
    data, (states, actions) = _data(data, shape)
    counts = np.zeros((states, actions), dtype=np.int64)
    np.add.at(counts, (data.states[:, :-1], data.actions), 1)
    return clone(counts, 0.0)


def history_rollouts(data: Trajectories, model: TabularMDP, count: int, rng: np.random.Generator | int) -> Trajectories:
    """Roll-outs in ``model`` of the behaviour that is cloned given *all* states and actions so far.

    The next action is that of a trajectory drawn from those of the data that agree with the history; uniform if none
    does.

    Args:
        model: with the states, actions and horizon of the data, every action legal. count: roll-outs.

    Raises:
        TypeError: not `Trajectories`, not a `TabularMDP`. ValueError: sizes that do not fit, illegal actions, a horizon
            other than that of the data.
    """
    _validate.instance("model", model, TabularMDP)
    data, (states, actions) = _data(data, model.shape[1:])
    model, count, rng = model.dense(), _validate.integer("count", count, low=0), _validate.generator(rng)
    if not np.all(model.actions):
        _validate.fail("model", "must have every action legal everywhere")
    if model.horizon != data.actions.shape[1]:
        _validate.fail("model", f"must have the horizon of the data, {data.actions.shape[1]}, not {model.horizon}")
    kinds, copies = np.unique(np.concatenate([data.states, data.actions], axis=1), axis=0, return_counts=True)
    past, moves = np.split(kinds, [model.horizon + 1], axis=1)
    _validate.fits("count", count, float(count) * (len(kinds) + model.horizon + states))
    edges = np.cumsum(model.initial)
    at = np.minimum(np.searchsorted(edges, rng.random(count) * edges[-1], side="right"), states - 1)
    agree, visited, chosen, gains = past[:, 0] == at[:, None], [at], [], []
    for t in range(model.horizon):
        shares = np.cumsum(agree * copies, axis=1)
        followed = (shares <= (rng.random(count) * shares[:, -1])[:, None]).sum(axis=1)
        free = rng.integers(0, actions, count)  # of those with whom nobody agrees
        action = np.where(shares[:, -1] > 0, moves[np.minimum(followed, len(kinds) - 1), t], free)
        gains.append(model.reward[t, at, action])
        law = np.cumsum(model.transition[t], axis=-1)[at, action]
        at = np.minimum((law <= (rng.random(count) * law[:, -1])[:, None]).sum(axis=-1), states - 1)
        agree = agree & (moves[:, t] == action[:, None]) & (past[:, t + 1] == at[:, None])
        visited.append(at)
        chosen.append(action)
    return Trajectories(*(np.stack(x, axis=1) for x in (visited, chosen, gains)))


def finding_probability(chance: float, count: Any) -> np.ndarray:
    """``1 - (1 - p)^n``: that at least one of n independent roll-outs does what each does with probability p.

    Args:
        chance: p in [0, 1]. count: integers n >= 0 of any shape.
    """
    chance, count = _validate.probability("chance", chance), _validate.integers("count", count, low=0)
    if chance == 1.0:
        return np.where(count > 0, 1.0, 0.0)
    return np.asarray(-np.expm1(count * math.log1p(-chance)))
