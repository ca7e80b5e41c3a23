"""Tabular Markov decision processes, finite-horizon and discounted.

Transitions are probabilities ``P[..., s, a, s']``, rewards ``r[..., s, a]``; ``actions`` masks the legal
actions of a state. Policies are log-probabilities ``(H, S, A)`` (finite horizon) or ``(S, A)`` (discounted).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate

__all__ = ["DiscountedMDP", "TabularMDP", "sticky_actions"]


def _probabilities(name: str, value: Any) -> np.ndarray:
    """Rows of probabilities on the last axis, renormalised to rounding."""
    xp, array = _validate.arrays(**{name: value})
    array = np.asarray(_validate.budgets(name, xp, _validate.finite(name, xp, array)), dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        _validate.fail(name, f"needs a non-empty last axis, got shape {array.shape}")
    with np.errstate(over="ignore"):  # an infinite sum is not 1 either
        total = array.sum(axis=-1, keepdims=True)
    index = _validate.first_true(np, np.abs(total[..., 0] - 1) > 1e-8)
    if index is not None:
        _validate.fail(name, "probabilities must sum to 1", float(total[..., 0][index]), index)
    return array / total


def _rewards(value: Any) -> np.ndarray:
    xp, array = _validate.arrays(reward=value)
    return np.asarray(_validate.finite("reward", xp, array), dtype=np.float64)


def _actions(value: Any, shape: tuple[int, int]) -> np.ndarray:
    if value is None:
        return np.ones(shape, dtype=bool)
    mask = _validate.boolean_mask("actions", value, shape)
    index = _validate.first_true(np, ~mask.any(axis=1))
    if index is not None:
        _validate.fail("actions", "every state needs a legal action", index=index)
    return mask


@dataclass(frozen=True)
class TabularMDP:
    """``horizon`` steps in ``S`` states with ``A`` actions.

    Attributes:
        transition: ``(H, S, A, S)``, or ``(S, A, S)`` for every step.
        reward: ``(H, S, A)``, or ``(S, A)`` for every step.
        initial: ``(S,)``.
        horizon: number of decisions H >= 1.
        actions: boolean mask of legal actions ``(S, A)``; None allows all.

    Raises:
        ValueError: shapes that do not fit, rows that are not distributions, a state without actions.
    """

    transition: np.ndarray
    reward: np.ndarray
    initial: np.ndarray
    horizon: int
    actions: np.ndarray | None = None

    def __post_init__(self) -> None:
        horizon = _validate.integer("horizon", self.horizon, low=1)
        transition, initial = (
            _probabilities("transition", self.transition),
            _probabilities("initial", self.initial),
        )
        reward = _rewards(self.reward)
        if transition.ndim == 3:
            transition = np.broadcast_to(transition, (horizon, *transition.shape))
        if reward.ndim == 2:
            reward = np.broadcast_to(reward, (horizon, *reward.shape))
        states = initial.shape[-1]
        wanted = (horizon, states, transition.shape[-2] if transition.ndim == 4 else -1)
        if initial.ndim != 1 or transition.shape != (*wanted, states) or reward.shape != wanted:
            shapes = f"transition {transition.shape}, reward {reward.shape}, initial {initial.shape}"
            _validate.fail("transition", f"must be (H, S, A, S) beside reward (H, S, A) and initial (S,): {shapes}")
        for name, value in (
            ("transition", transition),
            ("reward", reward),
            ("initial", initial),
            ("horizon", horizon),
            ("actions", _actions(self.actions, wanted[1:])),
        ):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, S, A)``: the shape of a policy."""
        return self.reward.shape


def sticky_actions(problem: TabularMDP, probability: float) -> TabularMDP:
    """The previous action is repeated with ``probability`` instead of the chosen one; states become ``s A + previous``.

    Nothing sticks at the first step. Rewards are those of the action that is carried out.

    Raises:
        ValueError: ``probability`` outside [0, 1], illegal actions in the problem.
    """
    probability = _validate.probability("probability", probability)
    horizon, states, actions = problem.shape
    if problem.actions is not None and not np.all(problem.actions):
        _validate.fail("problem", "sticky actions need every action to be legal everywhere")
    transition = np.zeros((horizon, states, actions, actions, states, actions))
    reward = np.zeros((horizon, states, actions, actions))
    for t in range(horizon):
        stick = probability if t else 0.0
        for previous in range(actions):
            for chosen in range(actions):
                for done, weight in ((chosen, 1 - stick), (previous, stick)):
                    transition[t, :, previous, chosen, :, done] += weight * problem.transition[t, :, done]
                    reward[t, :, previous, chosen] += weight * problem.reward[t, :, done]
    size = states * actions
    initial = np.zeros((states, actions))
    initial[:, 0] = problem.initial
    shape = (horizon, size, actions)
    return TabularMDP(transition.reshape(*shape, size), reward.reshape(shape), initial.ravel(), horizon)


@dataclass(frozen=True)
class DiscountedMDP:
    """An infinite-horizon MDP with ``discount`` in [0, 1).

    Attributes:
        transition: ``(S, A, S)``. reward: ``(S, A)``. discount: in [0, 1). initial: ``(S,)``.
        actions: boolean mask of legal actions ``(S, A)``; None allows all.

    Raises:
        ValueError: as `TabularMDP`, or a discount outside [0, 1).
    """

    transition: np.ndarray
    reward: np.ndarray
    discount: float
    initial: np.ndarray
    actions: np.ndarray | None = None

    def __post_init__(self) -> None:
        discount = _validate.real("discount", self.discount, low=0.0, high=np.nextafter(1.0, 0.0))
        transition, initial = (
            _probabilities("transition", self.transition),
            _probabilities("initial", self.initial),
        )
        reward = _rewards(self.reward)
        if (
            initial.ndim != 1
            or reward.ndim != 2
            or transition.shape != (*reward.shape, initial.shape[0])
            or reward.shape[0] != initial.shape[0]
        ):
            shapes = f"transition {transition.shape}, reward {reward.shape}, initial {initial.shape}"
            _validate.fail("transition", f"must be (S, A, S) beside reward (S, A) and initial (S,): {shapes}")
        for name, value in (
            ("transition", transition),
            ("reward", reward),
            ("discount", discount),
            ("initial", initial),
            ("actions", _actions(self.actions, reward.shape)),
        ):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """``(S, A)``: the shape of a policy."""
        return self.reward.shape
