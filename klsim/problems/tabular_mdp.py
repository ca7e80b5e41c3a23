"""Tabular Markov decision processes: finite-horizon, discounted and average-reward, dense and sparse.

Transitions are probabilities ``P[..., s, a, s']``, rewards ``r[..., s, a]``; ``actions`` masks the legal
actions of a state. Policies are log-probabilities ``(H, S, A)`` (finite horizon) or ``(S, A)`` (else).

A sparse transition is a SciPy sparse matrix ``(S A, S)`` whose row ``s A + a`` is the law of the next state, or a tuple
``(successor, probability)`` of an integer and a float array ``(S, A, K)``. It is kept as a CSR array, one a step for a
finite horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from klsim import _validate
from klsim.problems.gymnasium_table import read_table
from klsim.problems.transition_rows import is_successors, numpy_only, probabilities, sparse_rows, successor_rows

__all__ = ["AverageMDP", "DiscountedMDP", "TabularMDP", "sticky_actions"]


def _rewards(value: Any) -> np.ndarray:
    return np.asarray(_validate.finite("reward", np, numpy_only("reward", value)), dtype=np.float64)


def _discount(value: Any) -> float:
    discount = _validate.real("discount", value)
    if not 0 <= discount < 1:
        _validate.fail("discount", "must lie in [0, 1)", discount)
    return discount


def _is_sparse(value: Any) -> bool:
    return bool(sparse.issparse(value)) or is_successors(value)


def _sparse(value: Any, states: int, actions: int, name: str = "transition") -> sparse.csr_array:
    if is_successors(value):
        return successor_rows(name, value[0], value[1], states, actions)
    return sparse_rows(name, value, states, actions)


def _sparse_steps(value: Any, horizon: int, states: int, actions: int) -> tuple[sparse.csr_array, ...]:
    """``H`` CSR matrices from one for every step, or from a sequence of ``H``."""
    if _is_sparse(value):
        return (_sparse(value, states, actions),) * horizon
    if len(value) != horizon:
        _validate.fail("transition", f"needs {horizon} sparse matrices, one a step, got {len(value)}")
    return tuple(_sparse(step, states, actions, f"transition[{t}]") for t, step in enumerate(value))


def _written_out(rows: sparse.csr_array, states: int, actions: int) -> np.ndarray:
    return np.asarray(rows.toarray()).reshape(states, actions, states)


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
        transition: ``(H, S, A, S)``, or ``(S, A, S)`` for every step; sparse: a matrix ``(S A, S)`` (or successors and
            probabilities) for every step, or a list of H; kept as a tuple of H CSR arrays.
        reward: ``(H, S, A)``, or ``(S, A)`` for every step.
        initial: ``(S,)``.
        horizon: number of decisions H >= 1.
        actions: boolean mask of legal actions ``(S, A)``; None allows all.

    Raises:
        ValueError: shapes that do not fit, rows that are not distributions, a state without actions.
    """

    transition: Any
    reward: np.ndarray
    initial: np.ndarray
    horizon: int
    actions: np.ndarray | None = None

    def __post_init__(self) -> None:
        horizon = _validate.integer("horizon", self.horizon, low=1)
        given, initial, reward = self.transition, probabilities("initial", self.initial), _rewards(self.reward)
        few = _is_sparse(given) or (isinstance(given, list | tuple) and len(given) > 0 and all(map(_is_sparse, given)))
        if reward.ndim == 2:
            reward = np.broadcast_to(reward, (horizon, *reward.shape))
        states = len(initial)
        if few and reward.ndim == 3 and reward.shape[:2] == (horizon, states) and initial.ndim == 1:
            transition: Any = _sparse_steps(given, horizon, states, reward.shape[2])
        else:
            transition = self._dense(given, reward, initial, horizon)
        wanted = reward.shape
        for name, value in (
            ("transition", transition),
            ("reward", reward),
            ("initial", initial),
            ("horizon", horizon),
            ("actions", _actions(self.actions, wanted[1:])),
        ):
            object.__setattr__(self, name, value)

    @staticmethod
    def _dense(given: Any, reward: np.ndarray, initial: np.ndarray, horizon: int) -> np.ndarray:
        if _is_sparse(given):
            _validate.fail(
                "reward", f"must be (H, S, A) or (S, A) beside initial (S,): {reward.shape}, {initial.shape}"
            )
        transition = probabilities("transition", given)
        if transition.ndim == 3:
            transition = np.broadcast_to(transition, (horizon, *transition.shape))
        states = initial.shape[-1]
        wanted = (horizon, states, transition.shape[-2] if transition.ndim == 4 else -1)
        if initial.ndim != 1 or transition.shape != (*wanted, states) or reward.shape != wanted:
            shapes = f"transition {transition.shape}, reward {reward.shape}, initial {initial.shape}"
            _validate.fail("transition", f"must be (H, S, A, S) beside reward (H, S, A) and initial (S,): {shapes}")
        return transition

    @classmethod
    def from_gymnasium(cls, env: Any, horizon: int | None = None, *, sparse: bool = False) -> TabularMDP:
        """The finite-horizon problem of a Gymnasium toy-text environment.

        Args:
            env: with a transition table ``env.unwrapped.P``. Termination leads to an absorbing state of reward 0,
                added as the last one. horizon: decisions before truncation; None takes the environment's time limit.
            sparse: keep the transitions sparse.

        Raises:
            TypeError: ``env`` has no transition table. ValueError: no horizon given, and no time limit.
        """
        table = read_table(env)
        limit = table.limit if horizon is None else horizon
        if limit is None:
            _validate.fail("horizon", "is required: the environment has no time limit")
        return cls(table.transition(sparse), table.reward, table.initial, limit)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, S, A)``: the shape of a policy."""
        return self.reward.shape

    @property
    def is_sparse(self) -> bool:
        """Whether the transitions are CSR matrices."""
        return isinstance(self.transition, tuple)

    def dense(self) -> TabularMDP:
        """The same problem with its transitions written out, ``(H, S, A, S)``."""
        if not self.is_sparse:
            return self
        steps = {id(rows): _written_out(rows, *self.shape[1:]) for rows in self.transition}
        first, *others = steps.values()
        whole = np.stack([steps[id(rows)] for rows in self.transition]) if others else first
        return TabularMDP(whole, self.reward, self.initial, self.horizon, self.actions)


def sticky_actions(problem: TabularMDP, probability: float) -> TabularMDP:
    """The previous action is repeated with ``probability`` instead of the chosen one; states become ``s A + previous``.

    Nothing sticks at the first step. Rewards are those of the action that is carried out.

    Raises:
        ValueError: ``probability`` outside [0, 1], illegal actions in the problem.
    """
    probability = _validate.probability("probability", probability)
    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
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


def _stationary(problem: Any) -> dict[str, Any]:
    """The checked transition, reward, initial and actions of a problem whose law does not change with time."""
    initial, reward = probabilities("initial", problem.initial), _rewards(problem.reward)
    if initial.ndim != 1 or reward.ndim != 2 or reward.shape[0] != initial.shape[0] or not reward.shape[1]:
        _validate.fail("reward", f"must be (S, A) beside initial (S,), got {reward.shape} and {initial.shape}")
    states, actions = reward.shape
    if _is_sparse(problem.transition):
        transition: Any = _sparse(problem.transition, states, actions)
    else:
        transition = np.ascontiguousarray(probabilities("transition", problem.transition))
        if transition.shape != (states, actions, states):
            shapes = f"transition {transition.shape}, reward {reward.shape}, initial {initial.shape}"
            _validate.fail("transition", f"must be (S, A, S) beside reward (S, A) and initial (S,): {shapes}")
    mask = _actions(problem.actions, reward.shape)
    return {"transition": transition, "reward": reward, "initial": initial, "actions": mask}


@dataclass(frozen=True)
class DiscountedMDP:
    """An infinite-horizon MDP with ``discount`` in [0, 1).

    Attributes:
        transition: ``(S, A, S)``; sparse: a matrix ``(S A, S)``, or successors and probabilities, kept as a CSR array.
        reward: ``(S, A)``. discount: in [0, 1). initial: ``(S,)``.
        actions: boolean mask of legal actions ``(S, A)``; None allows all.

    Raises:
        ValueError: as `TabularMDP`, or a discount outside [0, 1).
    """

    transition: Any
    reward: np.ndarray
    discount: float
    initial: np.ndarray
    actions: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "discount", _discount(self.discount))
        for name, value in _stationary(self).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_gymnasium(cls, env: Any, discount: float, *, sparse: bool = False) -> DiscountedMDP:
        """The discounted problem of a Gymnasium toy-text environment.

        Termination leads to an absorbing state of reward 0, added as the last one. Truncation by a time limit is no
        part of it: a discounted value goes on past the limit (`TabularMDP.from_gymnasium` has it as its horizon).

        Args:
            env: with a transition table ``env.unwrapped.P``. discount: in [0, 1). sparse: keep the transitions sparse.

        Raises:
            TypeError: ``env`` has no transition table.
        """
        table = read_table(env)
        return cls(table.transition(sparse), table.reward, discount, table.initial)

    @property
    def shape(self) -> tuple[int, int]:
        """``(S, A)``: the shape of a policy."""
        return self.reward.shape

    @property
    def is_sparse(self) -> bool:
        """Whether the transition is a CSR matrix."""
        return bool(sparse.issparse(self.transition))

    def dense(self) -> DiscountedMDP:
        """The same problem with its transitions written out, ``(S, A, S)``."""
        if not self.is_sparse:
            return self
        whole = _written_out(self.transition, *self.shape)
        return DiscountedMDP(whole, self.reward, self.discount, self.initial, self.actions)


@dataclass(frozen=True)
class AverageMDP:
    """An infinite-horizon MDP whose rewards are averaged over time.

    Attributes:
        transition: ``(S, A, S)`` or sparse, as `DiscountedMDP`. reward: ``(S, A)``. initial: ``(S,)``.
        actions: boolean mask of legal actions ``(S, A)``; None allows all.

    Raises:
        ValueError: as `TabularMDP`.
    """

    transition: Any
    reward: np.ndarray
    initial: np.ndarray
    actions: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, value in _stationary(self).items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """``(S, A)``: the shape of a policy."""
        return self.reward.shape

    @property
    def is_sparse(self) -> bool:
        """Whether the transition is a CSR matrix."""
        return bool(sparse.issparse(self.transition))

    def dense(self) -> AverageMDP:
        """The same problem with its transitions written out, ``(S, A, S)``."""
        if not self.is_sparse:
            return self
        return AverageMDP(_written_out(self.transition, *self.shape), self.reward, self.initial, self.actions)
