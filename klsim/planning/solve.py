"""Optimal policies of every problem: closed forms, backward induction, and the solvers of stationary problems."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate, optima
from klsim.distributions import to_numpy
from klsim.planning.chains import expected_next
from klsim.planning.solution import AverageSolution, Solution, by_problem, reference, soft_backup
from klsim.problems import AverageMDP, Bandit, DiscountedMDP, TabularMDP, TokenTree
from klsim.problems.token_tree import check_levels, end_after_eos

__all__ = ["AverageSolution", "Solution", "backup", "solve"]


def _beta(beta: Any) -> float:
    return _validate.real("beta", beta, low=0.0, high=np.finfo(float).max)


def backup(problem: DiscountedMDP, value: Any, log_ref: Any = None, beta: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    r"""One soft Bellman backup: ``(TV (S,), Q (S, A))`` of ``V (S,)``.

    ``TV = beta log sum_a ref e^{Q/beta}``, ``Q = r + gamma P V``; ``beta = 0`` takes the maximum.

    Raises:
        TypeError: not a `DiscountedMDP`. ValueError: shapes, values that are not finite, ``beta < 0``.
    """
    _validate.instance("problem", problem, DiscountedMDP)
    beta = _beta(beta)
    xp, given = _validate.arrays(value=value)
    if np.shape(given) != problem.shape[:1]:
        _validate.fail("value", f"must have shape {problem.shape[:1]}, got {np.shape(given)}")
    given = np.asarray(to_numpy(_validate.finite("value", xp, given)), dtype=np.float64)
    assert problem.actions is not None
    q = expected_next(problem.transition, given)
    q *= problem.discount
    q += problem.reward
    if beta > 0 and problem.actions.all() and _is_plain(log_ref, problem.shape):
        from klsim.kernels.tilt import backup_rows

        fine, backed, _ = backup_rows(q, log_ref, beta, policies=False)
        if fine:
            return backed, q
    backed, _ = soft_backup(q, reference(log_ref, problem.shape, problem.actions), beta)
    return backed, q


def _is_plain(x: Any, shape: tuple[int, ...]) -> bool:
    """Whether kernels can read ``x`` as it is."""
    return isinstance(x, np.ndarray) and x.dtype == np.float64 and x.flags.c_contiguous and x.shape == shape


@by_problem
def solve(problem: Any, log_ref: Any = None, beta: float = 1.0, **options: Any) -> Any:
    r"""``max_pi E_pi[sum r] - beta E_pi[sum_t KL(pi(.|s_t)‖ref(.|s_t))]``.

    Args:
        problem: `Bandit`, `TabularMDP`, `DiscountedMDP`, `AverageMDP`, `TokenTree` or `POMDP`.
        log_ref: reference policy (a bandit carries its own); None is uniform over legal actions, which
            makes it entropy regularisation up to ``beta log A`` a step (``regularizer="entropy"`` adds it).
        beta: >= 0; 0 is the unregularised problem, whose policy is ``ref`` conditioned on the best actions.
        options: ``regularizer`` (``"kl"`` or ``"entropy"``); for discounted and average problems ``tolerance``
            (relative to the largest absolute value, or to the gain) and ``max_iterations``; for discounted ones
            ``method`` (``"policy_iteration"`` or ``"value_iteration"``).

    Returns:
        `Solution` (a bandit: `klsim.optima.Optimum`; average reward: `AverageSolution`).

    Raises:
        TypeError: not a problem. ValueError: bad arguments; values that overflow.
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
    largest = float(np.abs(problem.reward).max()) + float(bonus.max())
    if not largest * horizon < 0.5 * np.finfo(float).max:
        _validate.fail("reward", f"values of size {largest:g} * {horizon} overflow")
    value = np.zeros((horizon + 1, states))
    q_value, log_policy = np.empty(problem.shape), np.empty(problem.shape)
    terms = max(int(np.diff(rows.indptr).max()) for rows in problem.transition) if problem.is_sparse else states
    bound = 0.0
    for t in range(horizon - 1, -1, -1):
        after = value[t + 1]
        middle = 0.5 * float(after.max() + after.min())  # what all states share is not rounded in the product
        q_value[t] = problem.reward[t] + (expected_next(problem.transition[t], after - middle) + middle)
        value[t], log_policy[t] = soft_backup(q_value[t], ref[t], beta)
        value[t] += bonus
        bound += _step_rounding(after, q_value[t], value[t], log_policy[t], ref[t], beta, terms)
    return Solution(log_policy, value, q_value, bound, 0, True, "backward induction")


def _step_rounding(
    after: np.ndarray,
    q: np.ndarray,
    value: np.ndarray,
    log_policy: np.ndarray,
    ref: np.ndarray,
    beta: float,
    terms: int,
) -> float:
    """Bound on the rounding of one backup: a product of ``terms`` around the middle, a log-sum-exp (`SoftBellman`)."""
    around = 0.5 * float(after.max() - after.min())
    size = float(max(np.abs(after).max(), np.abs(q).max(), np.abs(value).max()))
    plain = (2 * terms + 4) * around + 12 * size
    if beta > 0:
        kept = log_policy > -np.inf
        best = np.max(np.where(kept, q, -np.inf), axis=1, keepdims=True)
        exponents = np.where(kept, (best - q) - beta * ref, 0.0)
        mean = float(np.sum(np.exp(log_policy) * exponents, axis=1).max())
        plain += min((q.shape[1] + 8) * beta + 4 * mean, 2 * (q.shape[1] + 12) * size)
    return 0.5 * float(np.finfo(float).eps) * plain


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
    shapes = [(vocab ** len(levels),), *((vocab**t, vocab) for t in range(problem.horizon))]
    if reward.size < _LARGE or not all(map(_is_plain, (reward, *levels), shapes)):
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


@solve.register
def _(
    problem: AverageMDP,
    log_ref: Any = None,
    beta: float = 1.0,
    *,
    regularizer: str = "kl",
    tolerance: float = 1e-10,
    max_iterations: int = 10_000,
) -> AverageSolution:
    from klsim.planning.average import solve_average

    beta = _beta(beta)
    tolerance = _validate.real("tolerance", tolerance, low=0.0)
    limit = _validate.integer("max_iterations", max_iterations, low=1)
    assert problem.actions is not None
    bonus = _entropy_bonus(regularizer, log_ref, beta, problem.actions)
    ref = reference(log_ref, problem.shape, problem.actions)
    return solve_average(problem, ref, beta, bonus, tolerance, limit)
