r"""Optimal policies: backward induction, Newton (policy) iteration and value iteration.

The soft Bellman equation ``V = TV`` of a discounted problem is solved by Newton's method,
``V + (I - gamma P_pi)^{-1} (TV - V)`` with ``pi`` the optimal policy at ``V``. This is regularised policy
iteration: it converges from anywhere, and quadratically. ``|TV - V|_inf / (1 - gamma)`` bounds the
distance to the optimum; the solution carries that bound, rounding included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from klsim import _validate, optima
from klsim.problems import Bandit, DiscountedMDP, TabularMDP, TokenTree
from klsim.problems.token_tree import check_levels, end_after_eos

__all__ = ["Solution", "solve"]


@dataclass(frozen=True)
class Solution:
    """An optimal policy of a sequential problem.

    Attributes:
        log_policy: like the problem's policies: ``(..., A)``, ``(H, S, A)``, ``(S, A)`` or tree levels.
        value: regularised value: ``(...)``, ``(H + 1, S)``, ``(S,)``, or one array a depth for a tree
            (``value[t]`` of shape ``(V**t,)``; ``value[t] / beta`` is the log-partition of every node).
        q_value: regularised action values, shaped like the policy (None for a bandit).
        error_bound: certified bound on ``|value - optimum|`` in the sup norm, rounding included.
        iterations: of the solver; 0 for a direct recursion.
        converged: ``error_bound`` is at most the tolerance asked for.
        reason: why the solver stopped.
    """

    log_policy: Any
    value: Any
    q_value: Any
    error_bound: float
    iterations: int
    converged: bool
    reason: str


def soft_backup(q: np.ndarray, log_ref: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """``(value (...), log_policy (..., A))`` of ``(..., A)``; ``beta = 0`` takes the maximum."""
    from klsim.kernels.backups import soft_backup_rows

    log_ref = np.broadcast_to(log_ref, q.shape)
    rows, refs = (np.ascontiguousarray(a.reshape(-1, q.shape[-1])) for a in (q, log_ref))
    values, log_policy = soft_backup_rows(rows, refs, beta)
    return values.reshape(q.shape[:-1]), log_policy.reshape(q.shape)


def _beta(beta: Any) -> float:
    return _validate.real("beta", beta, low=0.0, high=np.finfo(float).max)


def reference(log_ref: Any, shape: tuple[int, ...], actions: np.ndarray) -> np.ndarray:
    """The reference policy on legal actions; uniform if None.

    Raises:
        ValueError: a wrong shape, not distributions, or mass on an illegal action.
    """
    legal = np.where(actions, 0.0, -np.inf)
    if log_ref is None:
        return np.broadcast_to(legal - np.log(actions.sum(axis=-1, keepdims=True)), shape)
    xp, given = _validate.arrays(log_ref=log_ref)
    _validate.log_probs("log_ref", xp, given)
    if given.shape not in (shape, shape[1:]):
        _validate.fail("log_ref", f"must have shape {shape}, got {given.shape}")
    given = np.broadcast_to(given, shape)
    index = _validate.first_true(np, np.isfinite(given) & ~np.broadcast_to(actions, shape))
    if index is not None:
        _validate.fail("log_ref", "gives probability to an illegal action", float(given[index]), index)
    return np.asarray(given, dtype=np.float64)


@singledispatch
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
    beta = _beta(beta)
    _validate.one_of("method", method, ("policy_iteration", "value_iteration"))
    tolerance = _validate.real("tolerance", tolerance, low=0.0)
    limit = max_iterations if max_iterations is not None else (100 if method == "policy_iteration" else 100_000)
    limit = _validate.integer("max_iterations", limit, low=1)
    assert problem.actions is not None
    bonus = _entropy_bonus(regularizer, log_ref, beta, problem.actions)
    bellman = _Bellman(problem, reference(log_ref, problem.shape, problem.actions), beta, bonus)
    return bellman.iterate(method, tolerance, limit)


class _Bellman:
    """The soft Bellman operator of a discounted problem, with bounds on its own rounding."""

    def __init__(self, problem: DiscountedMDP, ref: np.ndarray, beta: float, bonus: np.ndarray) -> None:
        self.problem, self.ref, self.beta, self.bonus = problem, ref, beta, bonus
        self.states, self.actions = problem.shape

    def apply(self, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(TV, Q, log_policy)``. ``PV`` is taken around the middle of V, whose rows then round less."""
        middle = 0.5 * (value.max() + value.min())
        future = self.problem.transition @ (value - middle) + middle
        q = self.problem.reward + self.problem.discount * future
        backed, log_policy = soft_backup(q, self.ref, self.beta)
        return backed + self.bonus, q, log_policy

    def rounding(self, value: np.ndarray, backed: np.ndarray) -> float:
        """Bound on the rounding of one ``apply``: dot products of S terms, then a log-sum-exp of A.

        A beta far above the values does not count: the exponents are then small and summed as such.
        """
        eps = np.finfo(float).eps
        span = float(value.max() - value.min())
        size = float(max(np.abs(value).max(), np.abs(backed).max(), np.abs(self.problem.reward).max()))
        return eps * (0.5 * self.states * span + 6 * size + 2 * self.actions * min(self.beta, 2 * size))

    def error_bound(self, value: np.ndarray, backed: np.ndarray) -> float:
        residual = float(np.abs(backed - value).max()) + self.rounding(value, backed)
        return float(residual / (1.0 - self.problem.discount))

    def newton_step(self, value: np.ndarray, backed: np.ndarray, log_policy: np.ndarray) -> np.ndarray:
        from scipy.linalg import solve as solve_linear

        chain = np.einsum("sa,sat->st", np.exp(log_policy), self.problem.transition, optimize=True)
        matrix = np.eye(self.states) - self.problem.discount * chain
        return np.asarray(value + solve_linear(matrix, backed - value, overwrite_a=True))

    def iterate(self, method: str, tolerance: float, limit: int) -> Solution:
        value = np.zeros(self.states)
        best: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None
        stalled = 0
        reason, iterations = "iteration limit reached", limit
        for i in range(limit + 1):
            backed, q, log_policy = self.apply(value)
            bound = self.error_bound(value, backed)
            if best is None or bound < best[0]:
                best, stalled = (bound, value, q, log_policy), 0
            else:
                stalled += 1
            done, stuck = best[0] <= tolerance, stalled >= (3 if method == "policy_iteration" else 50)
            if done or stuck:
                reason, iterations = ("certified" if done else "rounding level reached"), i
                break
            newton = method == "policy_iteration"
            value = self.newton_step(value, backed, log_policy) if newton else backed
        assert best is not None
        bound, value, q, log_policy = best
        return Solution(log_policy, value, q, bound, iterations, bool(bound <= tolerance), reason)


@solve.register
def _(problem: TokenTree, log_ref: Any = None, beta: float = 1.0, *, regularizer: str = "kl") -> Solution:
    """The sequence-level optimum: ``Z(s) = sum_a ref(a|s) Z(sa)``, ``Z = e^{r/beta}`` at leaves."""
    beta = _beta(beta)
    _validate.one_of("regularizer", regularizer, ("kl",))
    levels = problem.uniform() if log_ref is None else log_ref
    found = _large_tree(problem, levels, beta)
    if found is not None:
        return found
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
    return _tree_solution(problem, beta, policies, value, q_values)


def _tree_solution(problem: TokenTree, beta: float, policies: list[Any], value: list[Any], q: list[Any]) -> Solution:
    """From lists that start at the leaves."""
    scale = max(float(problem.reward.max()), -float(problem.reward.min())) + beta
    rounding = 4 * np.finfo(float).eps * problem.vocab * problem.horizon * scale
    up = slice(None, None, -1)
    return Solution(tuple(policies[up]), tuple(value[up]), tuple(q[up]), rounding, 0, True, "backward recursion")


_LARGE = 1 << 14  # leaves from which a tree is checked and backed up by one kernel


def _large_tree(problem: TokenTree, levels: Any, beta: float) -> Solution | None:
    """A large tree of NumPy float64 arrays without ``eos``; None where the general path has to look at it."""
    reward, vocab = problem.reward, problem.vocab
    if not beta > 0 or problem.eos is not None or not isinstance(levels, tuple | list):
        return None
    arrays = (reward, *levels)
    if not all(isinstance(a, np.ndarray) and a.dtype == np.float64 and a.flags.c_contiguous for a in arrays):
        return None
    shapes = [(vocab ** len(levels),), *((vocab**t, vocab) for t in range(problem.horizon))]
    if reward.size < _LARGE or [a.shape for a in arrays] != shapes:
        return None
    from klsim.kernels.tilt import backup_rows

    value, policies, q_values = [reward], [], []
    for level in levels[::-1]:
        q = value[-1].reshape(-1, vocab)
        fine, backed, log_policy = backup_rows(q, level, beta)
        if not fine:
            return None
        value.append(backed)
        policies.append(log_policy)
        q_values.append(q)
    return _tree_solution(problem, beta, policies, value, q_values)
