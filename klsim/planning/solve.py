"""Optimal policies of every problem: closed forms, backward induction, and the solvers of stationary problems."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate, optima
from klsim.planning.solution import Solution, by_problem, reference, soft_backup
from klsim.problems import Bandit, DiscountedMDP, TabularMDP, TokenTree
from klsim.problems.token_tree import check_levels, end_after_eos

__all__ = ["Solution", "solve"]


def _beta(beta: Any) -> float:
    return _validate.real("beta", beta, low=0.0, high=np.finfo(float).max)


@by_problem
def solve(problem: Any, log_ref: Any = None, beta: float = 1.0, **options: Any) -> Any:
    r"""``max_pi E_pi[sum r] - beta E_pi[sum_t KL(pi(.|s_t)‖ref(.|s_t))]``.

    Args:
        problem: `Bandit`, `TabularMDP`, `DiscountedMDP` or `TokenTree`.
        log_ref: reference policy (a bandit carries its own); None is uniform over legal actions, which
            makes it entropy regularisation up to ``beta log A`` a step (``regularizer="entropy"`` adds it).
        beta: >= 0; 0 is the unregularised problem, whose policy is ``ref`` conditioned on the best actions.
        options: ``regularizer`` (``"kl"`` or ``"entropy"``); for discounted problems ``method``
            (``"policy_iteration"`` or ``"value_iteration"``), ``tolerance`` and ``max_iterations``.

    Returns:
        `Solution` (a bandit: `klsim.optima.Optimum`).

    Raises:
        TypeError: not a problem. ValueError: bad arguments.
    """
    raise TypeError(f"problem: cannot solve {type(problem).__name__}")


@solve.register
def _(problem: Bandit, log_ref: Any = None, beta: float = 1.0) -> optima.Optimum:
    if log_ref is not None:
        _validate.fail("log_ref", "a bandit carries its own reference")
    if _beta(beta) == 0:
        return optima.kl_constrained(problem.log_ref, problem.reward, math.inf)
    return optima.kl_regularized(problem.log_ref, problem.reward, beta)


def _entropy_bonus(regularizer: str, log_ref: Any, beta: float, actions: np.ndarray) -> np.ndarray:
    """What entropy regularisation adds to the reward of a state over KL to uniform: ``beta log |A(s)|``."""
    _validate.one_of("regularizer", regularizer, ("kl", "entropy"))
    if regularizer == "kl":
        return np.zeros(actions.shape[0])
    if log_ref is not None:
        _validate.fail("log_ref", "does not go with regularizer='entropy'")
    return np.asarray(beta * np.log(actions.sum(axis=-1)))


@solve.register
def _(problem: TabularMDP, log_ref: Any = None, beta: float = 1.0, *, regularizer: str = "kl") -> Solution:
    beta = _beta(beta)
    assert problem.actions is not None
    bonus = _entropy_bonus(regularizer, log_ref, beta, problem.actions)
    ref = reference(log_ref, problem.shape, problem.actions)
    horizon, states, _ = problem.shape
    value = np.zeros((horizon + 1, states))
    q_value, log_policy = np.empty(problem.shape), np.empty(problem.shape)
    for t in range(horizon - 1, -1, -1):
        q_value[t] = problem.reward[t] + problem.transition[t] @ value[t + 1]
        value[t], log_policy[t] = soft_backup(q_value[t], ref[t], beta)
        value[t] += bonus
    scale = np.abs(problem.reward).max() + beta * np.log(problem.shape[-1] + 1)
    rounding = 4 * np.finfo(float).eps * (states + problem.shape[-1]) * horizon**2 * float(scale)
    return Solution(log_policy, value, q_value, rounding, 0, True, "backward induction")


@solve.register
def _(
    problem: DiscountedMDP,
    log_ref: Any = None,
    beta: float = 1.0,
    *,
    regularizer: str = "kl",
    method: str = "policy_iteration",
    tolerance: float = 1e-10,
    max_iterations: int | None = None,
) -> Solution:
    from klsim.planning.discounted import solve_discounted

    beta = _beta(beta)
    _validate.one_of("method", method, ("policy_iteration", "value_iteration"))
    tolerance = _validate.real("tolerance", tolerance, low=0.0)
    limit = max_iterations if max_iterations is not None else (10_000 if method == "policy_iteration" else 1_000_000)
    limit = _validate.integer("max_iterations", limit, low=1)
    assert problem.actions is not None
    bonus = _entropy_bonus(regularizer, log_ref, beta, problem.actions)
    ref = reference(log_ref, problem.shape, problem.actions)
    return solve_discounted(problem, ref, beta, bonus, method, tolerance, limit)


@solve.register
def _(problem: TokenTree, log_ref: Any = None, beta: float = 1.0, *, regularizer: str = "kl") -> Solution:
    """The sequence-level optimum: ``Z(s) = sum_a ref(a|s) Z(sa)``, ``Z = e^{r/beta}`` at leaves."""
    beta = _beta(beta)
    _validate.one_of("regularizer", regularizer, ("kl",))
    levels = problem.uniform() if log_ref is None else log_ref
    _, vocab, ref = check_levels("log_ref", levels, policy=True)
    if vocab != problem.vocab or len(ref) != problem.horizon:
        wanted = f"vocabulary {problem.vocab}, horizon {problem.horizon}"
        _validate.fail("log_ref", f"must have {wanted}, got vocabulary {vocab}, horizon {len(ref)}")
    if np.ndim(problem.reward) != 1 or any(np.ndim(level) != 2 for level in ref):
        _validate.fail("problem", "solve takes one tree at a time; use klsim.optima on sequence arrays for batches")
    if problem.eos is not None:
        ref = list(end_after_eos(ref, problem.eos))
    value = [np.asarray(problem.reward, dtype=np.float64)]
    policies, q_values = [], []
    for level in ref[::-1]:
        q = value[-1].reshape(-1, vocab)
        backed, log_policy = soft_backup(q, np.asarray(level), beta)
        value.append(backed)
        policies.append(log_policy)
        q_values.append(q)
    scale = float(np.abs(problem.reward).max()) + beta
    rounding = 4 * np.finfo(float).eps * vocab * problem.horizon * scale
    return Solution(
        tuple(policies[::-1]),
        tuple(value[::-1]),
        tuple(q_values[::-1]),
        rounding,
        0,
        True,
        "backward recursion",
    )
