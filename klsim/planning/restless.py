r"""Coupled restless bandits: exact dynamic programming arm by arm, and what simpler searches over actions make of it.

The expectation of a value over the next joint state is a contraction with one ``n x n`` matrix an arm,
``O(K J n^(J+1))`` instead of ``O(K n^(2J))``; no joint transition is formed. `klsim.planning.solve` and ``evaluate``
(finite horizon, no discount) are registered here; `discounted_values` has the discounted optimum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from klsim import _validate
from klsim.divergences import kl
from klsim.planning.evaluation import Evaluation, evaluate
from klsim.planning.solution import Solution, reference, require_finite_values, soft_backup
from klsim.planning.solve import solve
from klsim.problems.restless_bandit import CoupledRestlessBandit, binary_vectors

__all__ = [
    "additive_fit",
    "choice_value",
    "discounted_values",
    "expected_next_value",
    "incremental_search",
    "one_hot_policy",
    "policy_transition",
]


def _values(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    (given,) = _validate.numpy_arrays(**{name: value})
    if given.shape != shape:
        _validate.fail(name, f"must have shape {shape}, got {given.shape}")
    return np.asarray(_validate.finite(name, np, given), dtype=np.float64)


def _choice(choice: Any, problem: CoupledRestlessBandit) -> np.ndarray:
    _, states, actions = problem.shape
    chosen = _validate.integers("choice", choice, low=0, high=actions - 1)
    if chosen.shape != (states,):
        _validate.fail("choice", f"must have shape {(states,)}, one action a joint state, got {chosen.shape}")
    return chosen


def _next(problem: CoupledRestlessBandit, value: np.ndarray) -> np.ndarray:
    """``(S, K)``. The arm in front is moved, then goes to the end; after J turns the order is the old one."""
    actions, arms, states, _ = problem.transition.shape
    ahead = value.reshape(states, -1)
    for j in range(arms):
        ahead = problem.transition[:, j] @ ahead
        ahead = np.swapaxes(ahead, 1, 2).reshape(actions, states, -1)
    return np.asarray(ahead.reshape(actions, -1).T)


def expected_next_value(problem: CoupledRestlessBandit, value: Any) -> np.ndarray:
    """``E[V(s')|s, k]``, ``(S, K)``, of ``value (S,)``.

    Raises:
        TypeError: not a `CoupledRestlessBandit`. ValueError: another shape, values that are not finite.
    """
    _validate.instance("problem", problem, CoupledRestlessBandit)
    return _next(problem, _values("value", value, problem.shape[1:2]))


def _check_sums(problem: CoupledRestlessBandit, beta: float) -> float:
    """The largest value of a horizon, which must not overflow."""
    with np.errstate(over="ignore"):
        largest = (float(np.abs(problem.reward).max(axis=1).sum()) + beta) * problem.horizon
    if not largest < 0.5 * np.finfo(float).max:
        _validate.fail("reward", f"values of size {largest:g} overflow")
    return largest


@solve.register
def _(problem: CoupledRestlessBandit, log_ref: Any = None, beta: float = 1.0, *, regularizer: str = "kl") -> Solution:
    """Backward induction; ``value (H + 1, S)``, ``q_value`` and ``log_policy (H, S, K)``."""
    beta = _validate.real("beta", beta, low=0.0, high=np.finfo(float).max)
    _validate.one_of("regularizer", regularizer, ("kl",))
    largest, (horizon, states, actions) = _check_sums(problem, beta), problem.shape
    _validate.fits("horizon", horizon, 2 * horizon * states * actions)
    ref = reference(log_ref, problem.shape, np.ones((states, actions), dtype=bool))
    value = np.zeros((horizon + 1, states))
    q_value, log_policy = np.empty(problem.shape), np.empty(problem.shape)
    for t in range(horizon - 1, -1, -1):
        q_value[t] = problem.step_reward + _next(problem, value[t + 1])
        value[t], log_policy[t] = soft_backup(q_value[t], ref[t], beta)
    arms, n = problem.reward.shape
    terms = arms * (2 * n + 4) + 2 * (actions + 12)  # products of J sums of n, then a log-sum-exp
    bound = 0.5 * float(np.finfo(float).eps) * terms * horizon * largest
    return Solution(log_policy, value, q_value, bound, 0, True, "backward induction")


@evaluate.register
def _(problem: CoupledRestlessBandit, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    """Backward induction; a reference must give probability to every action of the policy."""
    beta = _validate.real("beta", beta, low=0.0, high=np.finfo(float).max)
    if log_policy is None:
        raise TypeError("log_policy: is required")
    _check_sums(problem, 0.0)
    horizon, states, actions = problem.shape
    legal = np.ones((states, actions), dtype=bool)
    policy = reference(log_policy, problem.shape, legal, "log_policy")
    costs = np.zeros(policy.shape[:-1])
    if log_ref is not None:
        costs = np.asarray(kl(policy, reference(log_ref, problem.shape, legal)))
        index = _validate.first_true(np, np.isinf(costs))
        if index is not None:
            _validate.fail("log_ref", "must give probability to every action that the policy takes", index=index)
    weights = np.exp(policy)
    reward, cost = np.zeros((horizon + 1, states)), np.zeros((horizon + 1, states))
    for t in range(horizon - 1, -1, -1):
        reward[t] = np.sum(weights[t] * (problem.step_reward + _next(problem, reward[t + 1])), axis=1)
        if log_ref is not None:
            cost[t] = costs[t] + np.sum(weights[t] * _next(problem, cost[t + 1]), axis=1)
    total, spent = float(problem.start @ reward[0]), float(problem.start @ cost[0])
    return Evaluation(total - beta * spent, total, spent, reward - beta * cost)


def policy_transition(problem: CoupledRestlessBandit, choice: Any) -> np.ndarray:
    """Joint transitions ``(S, S)`` of the policy that takes action ``choice[s]`` in joint state ``s``.

    Raises:
        TypeError: not a `CoupledRestlessBandit`. ValueError: not an action for every state; too large for memory.
    """
    _validate.instance("problem", problem, CoupledRestlessBandit)
    chosen, states = _choice(choice, problem), problem.states
    _validate.fits("arms", len(problem.reward), 2 * len(states) ** 2)
    joint = np.ones((len(states), 1))
    for j in range(len(problem.reward)):
        rows = problem.transition[chosen, j, states[:, j]]  # (S, n)
        joint = (joint[:, :, None] * rows[:, None, :]).reshape(len(states), -1)
    return joint


def _moves(problem: CoupledRestlessBandit, chosen: np.ndarray) -> sparse.csr_array:
    """As `policy_transition`, from the possible moves of the arms alone: ``m^J`` entries a row if an arm has m."""
    states, n = problem.states, problem.reward.shape[1]
    entries = (problem.transition > 0).sum(axis=-1).max(axis=(0, 2))  # of a row, by arm
    chances, there = np.ones((len(states), 1)), np.zeros((len(states), 1), dtype=np.int64)
    for j, count in enumerate(entries):
        rows = problem.transition[chosen, j, states[:, j]]  # (S, n)
        kept = np.argsort(rows <= 0, axis=1, kind="stable")[:, :count]
        chances = (chances[:, :, None] * np.take_along_axis(rows, kept, axis=1)[:, None, :]).reshape(len(states), -1)
        there = (there[:, :, None] * n + kept[:, None, :]).reshape(len(states), -1)
    starts = np.arange(len(states) + 1) * chances.shape[1]
    return sparse.csr_array((chances.ravel(), there.ravel(), starts), shape=(len(states), len(states)))


def one_hot_policy(problem: CoupledRestlessBandit, choice: Any) -> np.ndarray:
    """Log-probabilities ``(S, K)`` of the policy that takes action ``choice[s]``; the same at every step.

    Raises:
        TypeError: not a `CoupledRestlessBandit`. ValueError: not an action for every state.
    """
    _validate.instance("problem", problem, CoupledRestlessBandit)
    chosen = _choice(choice, problem)
    return np.where(np.arange(problem.shape[2]) == chosen[:, None], 0.0, -np.inf)


def discounted_values(
    problem: CoupledRestlessBandit, discount: float, *, tolerance: float = 1e-9, max_iterations: int = 100_000
) -> np.ndarray:
    r"""``Q* (S, K)`` of the discounted problem without end, ``Q = r + gamma E max_k' Q(s', k')``.

    Backups of the best action alternate with some of the greedy policy's own (modified policy iteration). The result is
    within ``tolerance`` times its largest entry: the last backup moved the value by at most
    ``(1 - gamma) / gamma`` of that.

    Args:
        discount: gamma in [0, 1). tolerance: relative, > 0. max_iterations: of backups of the best action.

    Raises:
        TypeError: not a `CoupledRestlessBandit`.
        ValueError: arguments out of range, values that overflow, no convergence within ``max_iterations``.
    """
    _validate.instance("problem", problem, CoupledRestlessBandit)
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
    tolerance = _validate.real("tolerance", tolerance, low=1e-13, high=1.0)
    limit = _validate.integer("max_iterations", max_iterations, low=1)
    _validate.fits("arms", len(problem.reward), 4 * len(problem.states) ** 2)
    require_finite_values(problem.step_reward, discount)
    value, chosen = np.zeros(problem.shape[1]), np.zeros(0, dtype=np.int64)
    for _ in range(limit):
        q = problem.step_reward + discount * _next(problem, value)
        backed = q.max(axis=1)
        if discount * np.abs(backed - value).max() <= tolerance * (1 - discount) * np.abs(q).max():
            return q
        chosen, before = q.argmax(axis=1), chosen
        kept = np.array_equal(chosen, before)  # then it is worth to follow the policy for longer
        if not kept:
            own = np.take_along_axis(problem.step_reward, chosen[:, None], axis=1)[:, 0]
            moves = discount * _moves(problem, chosen)
        value = backed
        for _ in range(_OWN_BACKUPS[kept]):
            value = own + moves @ value
    _validate.fail("max_iterations", "is too few for the tolerance", limit)
    return q


_OWN_BACKUPS = 30, 150  # of a greedy policy that is new, and of one that was greedy before


def _tables(actions: Any, q: Any) -> tuple[np.ndarray, np.ndarray]:
    vectors = binary_vectors("actions", actions)
    (values,) = _validate.numpy_arrays(q=q)
    if values.ndim < 1 or values.shape[-1] != len(vectors):
        _validate.fail("q", f"must have shape (..., {len(vectors)}), one entry an action, got {values.shape}")
    return vectors, np.asarray(_validate.finite("q", np, values))


def incremental_search(actions: Any, q: Any) -> np.ndarray:
    """The action ``(...)`` that greedy additions reach: from the null vector, the feasible single entry that raises
    ``q`` most is added, until none raises it strictly.

    What is feasible is the list ``actions (K, d)`` itself, which must hold the null vector; ties go to the first entry.

    Args:
        q: ``(..., K)``, finite.

    Raises:
        ValueError: actions that are not 0/1 or come twice, no null vector, another number of actions in ``q``.
    """
    vectors, values = _tables(actions, q)
    places = {tuple(v): k for k, v in enumerate(vectors.tolist())}
    null = places.get((0,) * vectors.shape[1])
    if null is None:
        _validate.fail("actions", "must hold the null vector, from which the search starts")
    after = np.full(vectors.shape, -1)  # (K, d): the action with that entry added, -1 where there is none
    for k, i in zip(*np.nonzero(vectors == 0)):
        after[k, i] = places.get(tuple(vectors[k] + (np.arange(vectors.shape[1]) == i)), -1)
    rows = values.reshape(-1, len(vectors))
    here, every = np.full(len(rows), null), np.arange(len(rows))
    for _ in range(vectors.shape[1]):
        options = after[here]
        reached = np.where(options >= 0, rows[every[:, None], options], -np.inf)
        best = reached.argmax(axis=1)
        better = reached[every, best] > rows[every, here]
        if not better.any():
            break
        here = np.where(better, options[every, best], here)
    return here.reshape(values.shape[:-1])


def additive_fit(actions: Any, q: Any) -> np.ndarray:
    """Least squares of ``q (..., K)`` on ``(1, a_1, …, a_d)`` over the actions ``(K, d)``: the best additive score, of
    the shape of ``q``.

    Raises:
        ValueError: actions that are not 0/1 or come twice, another number of actions in ``q``, values not finite.
    """
    vectors, values = _tables(actions, q)
    design = np.column_stack([np.ones(len(vectors)), vectors])
    basis, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes[0]]  # an orthonormal basis of the columns
    return np.asarray(values @ basis @ basis.T)


def choice_value(problem: CoupledRestlessBandit, choice: Any) -> np.ndarray:
    """Undiscounted reward of the ``H`` steps of the policy that takes ``choice[s]``, from every joint state, ``(S,)``.

    As `klsim.planning.evaluate` of `one_hot_policy`, through one (sparse) matrix ``(S, S)`` instead of all actions.

    Raises:
        TypeError: not a `CoupledRestlessBandit`. ValueError: not an action for every state; values that overflow.
    """
    _validate.instance("problem", problem, CoupledRestlessBandit)
    chosen, states = _choice(choice, problem), len(problem.states)
    _validate.fits("arms", len(problem.reward), 4 * states**2)
    _check_sums(problem, 0.0)
    moves, reward, value = _moves(problem, chosen), problem.step_reward[np.arange(states), chosen], np.zeros(states)
    for _ in range(problem.horizon):
        value = reward + moves @ value
    return value
