"""What the solvers share: the solution, the reference policy, the soft backup, dispatch on the problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch, wraps
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from klsim import _validate
from klsim._shown import Shown

__all__ = ["AverageSolution", "Solution", "by_problem", "reference", "require_finite_values", "soft_backup"]


@dataclass(frozen=True, repr=False)
class Solution(Shown):
    """An optimal policy of a sequential problem.

    Attributes:
        log_policy: like the problem's policies: ``(..., A)``, ``(H, S, A)``, ``(S, A)``, tree or history levels.
        value: regularised value: ``(...)``, ``(H + 1, S)``, ``(S,)``, or one array a depth for a tree
            (``value[t]`` of shape ``(V**t,)``; ``value[t] / beta`` is the log-partition of every node); of a
            `POMDP` ``value[0] (1,)`` is that before the first observation, ``value[t + 1]`` that of step t's histories.
        q_value: regularised action values, shaped like the policy (None for a bandit).
        error_bound: certified bound on ``|value - optimum|`` in the sup norm, rounding included.
        iterations: of the solver; 0 for a direct recursion.
        converged: ``error_bound`` is at most what was asked for: the tolerance times the largest ``|value|``.
        reason: why the solver stopped.
    """

    log_policy: Any
    value: Any
    q_value: Any
    error_bound: float
    iterations: int
    converged: bool
    reason: str


@dataclass(frozen=True, repr=False)
class AverageSolution(Shown):
    """An optimal policy of an average-reward problem.

    Attributes:
        log_policy: ``(S, A)``; for ``beta = 0`` deterministic.
        gain: average reward (minus ``beta`` KL) from every state, ``(S,)``.
        bias: ``sum_t E[r_t - gain]`` of the policy, ``(S,)``: its mean under the policy's long-run law is 0.
        error_bound: certified bound on ``|gain - optimum|``, rounding included; ``inf`` where the gain differs between
            states: the policy is then optimal by the multichain optimality equations, to rounding.
        iterations, reason: of policy iteration. converged: to the tolerance; for several gains, the policy is stable.
    """

    log_policy: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    error_bound: float
    iterations: int
    converged: bool
    reason: str


F = TypeVar("F", bound=Callable[..., Any])


class Dispatched(Protocol):
    """A function of a problem, with an implementation a type."""

    def __call__(self, problem: Any, *args: Any, **options: Any) -> Any: ...

    def register(self, function: F) -> F:
        """The implementation for the type that annotates its first argument."""
        ...


def by_problem(function: Callable[..., Any]) -> Dispatched:
    """`functools.singledispatch` on ``problem``, which may also be given by keyword."""
    dispatcher = singledispatch(function)

    @wraps(function)
    def call(problem: Any, *args: Any, **options: Any) -> Any:
        return dispatcher.dispatch(type(problem))(problem, *args, **options)

    call.register = dispatcher.register  # type: ignore[attr-defined]
    call.dispatch = dispatcher.dispatch  # type: ignore[attr-defined]
    return cast("Dispatched", call)


def soft_backup(q: np.ndarray, log_ref: np.ndarray, beta: float, slack: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """``(value (...), log_policy (..., A))`` of ``(..., A)``; ``beta = 0`` takes the maximum, ties within ``slack``."""
    from klsim.kernels.backups import soft_backup_rows
    from klsim.kernels.threaded import read_only

    log_ref = np.broadcast_to(log_ref, q.shape)
    rows, refs = (np.ascontiguousarray(a.reshape(-1, q.shape[-1])) for a in (q, log_ref))
    values, log_policy = soft_backup_rows(*read_only(rows, refs), beta, slack)
    return values.reshape(q.shape[:-1]), log_policy.reshape(q.shape)


def require_finite_values(reward: np.ndarray, discount: float) -> None:
    """Refuse rewards whose discounted sums may overflow."""
    largest = float(np.abs(reward).max())
    if not largest / (1.0 - discount) < 0.5 * np.finfo(float).max:
        _validate.fail("reward", f"values of size max|reward| / (1 - discount) = {largest:g} / "
                       f"{1.0 - discount:g} overflow")  # fmt: skip


def reference(log_ref: Any, shape: tuple[int, ...], actions: np.ndarray, name: str = "log_ref") -> np.ndarray:
    """The reference policy on legal actions, normalised to rounding; uniform if None.

    Raises:
        ValueError: a wrong shape, not distributions, or mass on an illegal action.
    """
    legal = np.where(actions, 0.0, -np.inf)
    if log_ref is None:
        return np.broadcast_to(legal - np.log(actions.sum(axis=-1, keepdims=True)), shape)
    xp, given = _validate.arrays(**{name: log_ref})
    if not isinstance(given, np.ndarray | np.generic):
        raise TypeError(f"{name}: must be a NumPy array, got {type(log_ref).__name__}; problems are NumPy only")
    _validate.log_probs(name, xp, given)
    if given.shape not in (shape, shape[1:]):
        _validate.fail(name, f"must have shape {shape}, got {given.shape}")
    given = np.broadcast_to(given, shape)
    index = _validate.first_true(np, np.isfinite(given) & ~np.broadcast_to(actions, shape))
    if index is not None:
        _validate.fail(name, "gives probability to an illegal action", float(given[index]), index)
    given = np.asarray(given, dtype=np.float64)
    return np.asarray(given - np.log(np.sum(np.exp(given), axis=-1, keepdims=True)))
