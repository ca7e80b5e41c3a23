r"""Planning in zero-sum Markov games: equilibria, exploitability, and optimistic values with coarse equilibria.

`solve` is backward induction with a matrix game at every state; `evaluate` takes a pair of policies. What both players
leave on the table against best responses is the duality gap,

.. math:: \max_\mu V^{\mu,\nu} - \min_{\nu'} V^{\mu',\nu'}.

`optimistic_game` plans in a model with a bonus b: ``Qbar = min(r + P Vbar + b, cap)``, ``Qlow = max(r + P Vlow - b,
floor)``, both played by a coarse correlated equilibrium of the two (`klsim.planning.matrix_games`).

Source: ``contrastive-ucb`` C7; Xie, Chen, Wang & Yang (2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.evaluation import Evaluation, evaluate
from klsim.planning.matrix_games import coarse_correlated, nash
from klsim.planning.solve import solve
from klsim.problems.markov_games import ZeroSumMarkovGame

__all__ = ["DualityGap", "GameSolution", "OptimisticGame", "duality_gap", "optimistic_game"]


@dataclass(frozen=True)
class GameSolution:
    """An equilibrium of a Markov game.

    Attributes:
        log_row: ``(H, S, A)``. log_column: ``(H, S, B)``. value: of the row player, ``(H + 1, S)``.
        q_value: ``(H, S, A, B)``. error_bound: certified bound on ``|value - optimum|``, rounding apart.
    """

    log_row: np.ndarray
    log_column: np.ndarray
    value: np.ndarray
    q_value: np.ndarray
    error_bound: float


@dataclass(frozen=True)
class DualityGap:
    """What a pair of policies leaves on the table, ``(H + 1, S)`` each.

    Attributes:
        best_row: ``max_mu V^{mu, column}``. best_column: ``min_nu V^{row, nu}``.
        gap: their difference, >= 0 up to rounding.
    """

    best_row: np.ndarray
    best_column: np.ndarray
    gap: np.ndarray


@dataclass(frozen=True)
class OptimisticGame:
    """Upper and lower values of a model, and the coarse equilibria that they are played by.

    Attributes:
        upper, lower: ``(H + 1, S)``. q_upper, q_lower: ``(H, S, A, B)``. joint: ``(H, S, A, B)``.
        log_row, log_column: the marginals, ``(H, S, A)`` and ``(H, S, B)``.
    """

    upper: np.ndarray
    lower: np.ndarray
    q_upper: np.ndarray
    q_lower: np.ndarray
    joint: np.ndarray
    log_row: np.ndarray
    log_column: np.ndarray


def _bounded(problem: ZeroSumMarkovGame) -> None:
    largest = float(np.abs(problem.reward).max())
    if not largest * problem.horizon < 1e299:
        _validate.fail("problem", f"rewards of size {largest:g} * {problem.horizon} overflow")


@solve.register
def _(problem: ZeroSumMarkovGame, log_ref: Any = None, beta: float = 0.0) -> GameSolution:
    """Without regularisation: ``beta`` is 0 here unless given, and must be."""
    if log_ref is not None or _validate.real("beta", beta, low=0.0) > 0:
        _validate.fail("beta", "a Markov game is solved without regularisation: beta = 0 and no log_ref")
    _bounded(problem)
    horizon, states, rows, columns = problem.shape
    value, q = np.zeros((horizon + 1, states)), np.empty(problem.shape)
    log_row, log_column = np.empty((horizon, states, rows)), np.empty((horizon, states, columns))
    bound = 0.0
    for h in range(horizon - 1, -1, -1):
        q[h] = problem.reward[h] + problem.transition[h] @ value[h + 1]
        stage = [nash(q[h, s]) for s in range(states)]
        value[h] = [found.value for found in stage]
        log_row[h], log_column[h] = [found.log_row for found in stage], [found.log_column for found in stage]
        bound += max(found.gap for found in stage)
    return GameSolution(log_row, log_column, value, q, bound)


@evaluate.register
def _(problem: ZeroSumMarkovGame, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    """``log_policy`` is the pair ``(log_row (H, S, A), log_column (H, S, B))``; the value is the row player's."""
    if log_ref is not None or _validate.real("beta", beta, low=0.0) > 0:
        _validate.fail("beta", "a Markov game is evaluated without regularisation: beta = 0 and no log_ref")
    pair = _validate.sequence("log_policy", log_policy)
    if len(pair) != 2:
        _validate.fail("log_policy", "must be the pair (log_row, log_column)")
    return evaluate(problem.for_row(pair[1]), pair[0])


def duality_gap(problem: ZeroSumMarkovGame, log_row: Any, log_column: Any) -> DualityGap:
    """Best responses to ``log_row (H, S, A)`` and ``log_column (H, S, B)``, and the gap at every step and state.

    Raises:
        TypeError: not a `ZeroSumMarkovGame`. ValueError: not policies of it.
    """
    _validate.instance("problem", problem, ZeroSumMarkovGame)
    _bounded(problem)
    best_row = solve(problem.for_row(log_column), beta=0.0).value
    best_column = -solve(problem.for_column(log_row), beta=0.0).value
    return DualityGap(best_row, best_column, best_row - best_column)


def optimistic_game(
    problem: ZeroSumMarkovGame, bonus: Any, *, cap: float = math.inf, floor: float = -math.inf
) -> OptimisticGame:
    """Upper and lower values of the model ``problem`` with a ``bonus (H, S, A, B) >= 0``.

    Where the bonus is at least what the model's error can do to the values of the truth, ``upper`` dominates the best
    response to ``log_column`` in the truth, ``lower`` lies below the one to ``log_row``, and the duality gap of the two
    is at most ``upper - lower``, at every step and state.

    Args:
        cap: bound on all values from above. floor: from below.

    Raises:
        TypeError: not a `ZeroSumMarkovGame`. ValueError: a bonus of another shape, negative or not finite; cap < floor.
    """
    _validate.instance("problem", problem, ZeroSumMarkovGame)
    _bounded(problem)
    (bonus,) = _validate.numpy_arrays(bonus=bonus)
    if bonus.shape != problem.shape:
        _validate.fail("bonus", f"must have shape {problem.shape}, got {bonus.shape}")
    _validate.budgets("bonus", np, _validate.finite("bonus", np, bonus))
    if not float(bonus.max()) * problem.horizon < 1e299:
        _validate.fail("bonus", "is too large: values overflow")
    cap = _validate.real("cap", cap)
    floor = _validate.real("floor", floor, high=cap)
    horizon, states = problem.shape[:2]
    upper, lower = np.zeros((horizon + 1, states)), np.zeros((horizon + 1, states))
    q_upper, q_lower, joint = (np.empty(problem.shape) for _ in range(3))
    for h in range(horizon - 1, -1, -1):
        q_upper[h] = np.minimum(problem.reward[h] + problem.transition[h] @ upper[h + 1] + bonus[h], cap)
        q_lower[h] = np.maximum(problem.reward[h] + problem.transition[h] @ lower[h + 1] - bonus[h], floor)
        joint[h] = [coarse_correlated(q_upper[h, s], q_lower[h, s]) for s in range(states)]
        upper[h], lower[h] = (np.sum(joint[h] * q, axis=(1, 2)) for q in (q_upper[h], q_lower[h]))
    with np.errstate(divide="ignore"):
        log_row, log_column = np.log(joint.sum(axis=3)), np.log(joint.sum(axis=2))
    return OptimisticGame(upper, lower, q_upper, q_lower, joint, log_row, log_column)
