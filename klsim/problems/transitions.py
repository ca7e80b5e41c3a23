"""Offline data of a finite-horizon problem: transitions a step, from trajectories or from chosen pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import sample
from klsim.problems.tabular_mdp import TabularMDP

__all__ = ["Transitions", "sample_transitions"]


@dataclass(frozen=True)
class Transitions:
    """``K`` transitions of every step: ``state, action, next_state`` integers and ``reward``, all ``(H, K)``."""

    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_state: np.ndarray

    def __post_init__(self) -> None:
        integers = {n: _validate.integers(n, getattr(self, n), low=0) for n in ("state", "action", "next_state")}
        _, reward = _validate.arrays(reward=self.reward)
        shapes = {value.shape for value in integers.values()} | {np.shape(reward)}
        if len(shapes) > 1 or any(len(shape) != 2 or 0 in shape for shape in shapes):
            _validate.fail("state", f"all fields must have one shape (H, K), H, K >= 1, got {sorted(shapes)}")
        for name, value in (integers | {"reward": _validate.finite("reward", np, np.asarray(reward))}).items():
            object.__setattr__(self, name, value)

    @property
    def horizon(self) -> int:
        """H."""
        return int(self.state.shape[0])

    def counts(self, states: int, actions: int) -> np.ndarray:
        """How often each pair occurs at each step, ``(H, states, actions)``: the coverage of the data."""
        states, actions = _validate.integer("states", states, low=1), _validate.integer("actions", actions, low=1)
        _validate.fits("states", states, self.horizon * states * actions)
        out = np.zeros((self.horizon, states, actions), dtype=np.int64)
        for name, value, bound in (("state", self.state, states), ("action", self.action, actions)):
            _validate.integers(name, value, high=bound - 1)
        np.add.at(out, (np.arange(self.horizon)[:, None], self.state, self.action), 1)
        return out


def sample_transitions(
    problem: TabularMDP,
    count: int,
    rng: np.random.Generator | int,
    *,
    log_behaviour: Any = None,
    log_pairs: Any = None,
) -> Transitions:
    """``count`` transitions of every step.

    Args:
        log_behaviour: policy ``(H, S, A)`` or ``(S, A)``: the transitions are those of ``count`` trajectories. None is
            uniform.
        log_pairs: distribution over pairs, ``(H, S A)`` or ``(S A,)``: pairs are drawn independently at every step.

    Raises:
        ValueError: both laws given, wrong shapes, not distributions.
    """
    rng = _validate.generator(rng)
    count = _validate.integer("count", count, low=1)
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    horizon, states, actions = problem.shape
    if log_pairs is not None:
        if log_behaviour is not None:
            _validate.fail("log_pairs", "give a behaviour policy or a law over pairs, not both")
        law = _broadcast("log_pairs", log_pairs, (horizon, states * actions))
        drawn = np.stack([sample(law[h], count, rng) for h in range(horizon)])
        state, action = drawn // actions, drawn % actions
        following = np.stack([_next(problem, h, state[h], action[h], rng) for h in range(horizon)])
    else:
        uniform = np.full((states, actions), -np.log(actions))
        policy = _broadcast("log_behaviour", uniform if log_behaviour is None else log_behaviour, problem.shape)
        state, action, following = (np.empty((horizon, count), dtype=np.int64) for _ in range(3))
        with np.errstate(divide="ignore"):
            now = sample(np.log(problem.initial), count, rng)
        for h in range(horizon):
            state[h], action[h] = now, _categorical(np.exp(policy[h])[now], rng)
            now = following[h] = _next(problem, h, now, action[h], rng)
    reward = problem.reward[np.arange(horizon)[:, None], state, action]
    return Transitions(state, action, reward, following)


def _broadcast(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    xp, law = _validate.arrays(**{name: value})
    _validate.log_probs(name, xp, law)
    if law.shape not in (shape, shape[1:]):
        _validate.fail(name, f"must have shape {shape} or {shape[1:]}, got {law.shape}")
    return np.broadcast_to(law, shape)


def _categorical(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw a row of probabilities, by inversion."""
    edges = np.cumsum(rows, axis=1)
    drawn = (rng.random((len(rows), 1)) * edges[:, -1:] >= edges).sum(axis=1)
    return np.minimum(drawn, rows.shape[1] - 1)


def _next(problem: TabularMDP, h: int, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _categorical(problem.transition[h, state, action], rng)
