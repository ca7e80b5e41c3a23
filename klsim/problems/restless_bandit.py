r"""Restless bandits whose arms are coupled by the action: a set of joint actions, each of which moves every arm.

``J`` arms have ``n`` states each. The joint action ``k`` is a 0/1 vector (arms pulled, interventions used) out of a
list of feasible ones; given it the arms move independently,

.. math:: P(s'|s, k) = \prod_j P_{kj}(s'_j|s_j), \quad r(s, k) = \sum_j E[R_j(s'_j)|s_j, k]:

a step pays for the states that it leads to. Nothing decouples: the list is any set, and one entry of the vector may
move several arms. Joint states are numbered ``sum_j s_j n^(J-1-j)``, the first arm slowest; a policy is
log-probabilities ``(H, S, K)``, ``S = n^J``.

Source: Xu, Wilder, Khalil, Tambe (2025), *Reinforcement learning with combinatorial actions for coupled restless
bandits*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.tabular_mdp import TabularMDP
from klsim.problems.transition_rows import numpy_only, probabilities

__all__ = ["CoupledRestlessBandit", "arm_chain", "saturating_link"]


def binary_vectors(name: str, value: Any) -> np.ndarray:
    """``(K, d)`` integers 0 and 1, K >= 1, no row twice.

    Raises:
        ValueError: another shape, other entries, a row that is there already.
    """
    vectors = _validate.integers(name, value, low=0, high=1)
    if vectors.ndim != 2 or 0 in vectors.shape:
        _validate.fail(name, f"must be (K, d), one 0/1 vector a row, K >= 1 and d >= 1, got shape {vectors.shape}")
    _, first = np.unique(vectors, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(vectors)), first)
    if again.size:
        _validate.fail(name, "is there twice", vectors[again[0]].tolist(), (int(again[0]),))
    return vectors


@dataclass(frozen=True)
class CoupledRestlessBandit:
    """``J`` arms of ``n`` states, ``K`` feasible joint actions, ``horizon`` decisions.

    Attributes:
        actions: the feasible 0/1 vectors, ``(K, d)``.
        transition: ``(K, J, n, n)``, rows are laws of an arm's next state.
        reward: ``(J, n)``, finite; what an arm pays in its *next* state.
        initial: ``(J, n)``, the laws of the arms' first states, independent.
        horizon: number of decisions H >= 1.

    Raises:
        ValueError: shapes that do not fit, rows that are not distributions, actions that are not 0/1 or come twice,
            joint tables that do not fit into memory.
    """

    actions: np.ndarray
    transition: np.ndarray
    reward: np.ndarray
    initial: np.ndarray
    horizon: int

    def __post_init__(self) -> None:
        actions = binary_vectors("actions", self.actions)
        transition, initial = probabilities("transition", self.transition), probabilities("initial", self.initial)
        reward = np.asarray(_validate.finite("reward", np, numpy_only("reward", self.reward)), dtype=np.float64)
        if reward.ndim != 2 or 0 in reward.shape:
            _validate.fail("reward", f"must be (J, n), J >= 1 arms of n >= 1 states, got shape {reward.shape}")
        arms, states = reward.shape
        wanted_shapes = {"transition": (len(actions), arms, states, states), "initial": (arms, states)}
        for name, found in (("transition", transition.shape), ("initial", initial.shape)):
            wanted = wanted_shapes[name]
            if found != wanted:
                _validate.fail(name, f"must have shape {wanted} beside actions and reward, got {found}")
        joint = _validate.outcomes("states of an arm", states, "arms", arms)
        _validate.fits("arms", arms, 4 * joint * len(actions))
        horizon = _validate.integer("horizon", self.horizon, low=1)
        for name, value in (("actions", actions), ("transition", transition), ("reward", reward),
                            ("initial", initial), ("horizon", horizon)):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, S, K)``: the shape of a policy."""
        arms, states = self.reward.shape
        return self.horizon, states**arms, len(self.actions)

    @cached_property
    def states(self) -> np.ndarray:
        """``(S, J)``: the arms' states in every joint state."""
        arms, states = self.reward.shape
        return np.stack(np.unravel_index(np.arange(states**arms), (states,) * arms), axis=1)

    @cached_property
    def start(self) -> np.ndarray:
        """``(S,)``: the law of the first joint state."""
        return np.asarray(np.prod(self.initial[np.arange(len(self.initial)), self.states], axis=1))

    @cached_property
    def step_reward(self) -> np.ndarray:
        """``(S, K)``: ``r(s, k)``, the expected reward of a step."""
        of_arms = np.einsum("kjxy,jy->kjx", self.transition, self.reward)
        return np.asarray(of_arms[:, np.arange(len(self.reward)), self.states].sum(axis=-1).T)

    def as_tabular(self) -> TabularMDP:
        """The same problem with its joint transitions written out, ``(S, K, S)``.

        Raises:
            ValueError: they do not fit into memory.
        """
        horizon, states, actions = self.shape
        _validate.fits("arms", len(self.reward), 2 * states * actions * states)
        joint = np.ones((actions, 1, 1))
        for j in range(len(self.reward)):
            joint = np.einsum("kab,kxy->kaxby", joint, self.transition[:, j])
            joint = joint.reshape(actions, joint.shape[1] * joint.shape[2], -1)
        return TabularMDP(np.swapaxes(joint, 0, 1), self.step_reward, self.start, horizon)


def arm_chain(up: Any, states: int) -> np.ndarray:
    """Chains on ``0 … n-1`` that move one up with probability ``up``, else one down, and stay at the ends.

    Args:
        up: probabilities, any shape ``(...)``. states: n >= 1.

    Returns:
        ``(..., n, n)``.

    Raises:
        ValueError: not a probability, ``states < 1``.
    """
    (up,) = _validate.numpy_arrays(up=up)
    _validate.unit_interval("up", np, up)
    states = _validate.integer("states", states, low=1)
    rows = np.zeros((*up.shape, states, states))
    here = np.arange(states)
    for chance, there in ((up, np.minimum(here + 1, states - 1)), (1 - up, np.maximum(here - 1, 0))):
        rows[..., here, there] += chance[..., None]
    return rows


def saturating_link(x: Any, height: Any, slope: Any, midpoint: Any) -> np.ndarray:
    r"""Probability of moving up under ``x`` units of intervention, S-shaped and about .01 without any:

    .. math:: \phi(x) = .98 \, height \, [\sigma(slope \, x - midpoint) - \sigma(-midpoint)] + .01

    Args:
        x: >= 0. height: in [0, 1]. slope: >= 0. midpoint: finite; of the exponent (``slope x`` there). All broadcast.

    Raises:
        ValueError: values out of range, shapes that do not broadcast.
    """
    given = dict(zip(("x", "height", "slope", "midpoint"), _validate.numpy_arrays(
        x=x, height=height, slope=slope, midpoint=midpoint)))  # fmt: skip
    for name, value in given.items():
        _validate.finite(name, np, value)
    for name in ("x", "slope"):
        _validate.budgets(name, np, given[name])
    _validate.unit_interval("height", np, given["height"])
    _validate.broadcast(**given)
    from scipy.special import expit

    with np.errstate(over="ignore"):  # an infinite exponent is a sigmoid of 1
        risen = expit(given["slope"] * given["x"] - given["midpoint"]) - expit(-given["midpoint"])
    return np.asarray(0.98 * given["height"] * risen + 0.01)
