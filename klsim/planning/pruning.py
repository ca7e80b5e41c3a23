r"""What a planner loses when actions are taken away, and how many demonstrations tell which ones.

Against the optimum of all actions a policy on a kept set loses ``V* - V = (V* - V*_keep) + (V*_keep - V)``, by pruning
and by learning (`regret_parts`). With a KL penalty to a reference *renormalised on the kept set* pruning may gain:
``V*_beta - V*_beta(keep) = beta log(ref(keep)/pi*(keep))`` (`kl_pruning_error`).

Demonstrations: a subset of actions has the error ``Delta(M) = max_a R[M, a] - max_{a in subset} R[M, a]`` on task M
(`pruning_errors`) and is bad if ``P[Delta > eps] >= sigma``. Keep the subsets with ``Delta <= eps`` on all of N i.i.d.
tasks: after `demonstrations_bound` of them no bad subset is left, but for a chance delta.

Source: ``ra3`` C1-C2b (derived there, apart from the decomposition).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_sum_exp, tilt
from klsim.planning.evaluation import evaluate
from klsim.planning.solve import solve
from klsim.problems import DiscountedMDP

__all__ = [
    "RegretParts",
    "bad_subsets",
    "demonstrations_bound",
    "demonstrations_needed",
    "kl_pruning_error",
    "mean_error_bound",
    "pruning_errors",
    "regret_parts",
    "surviving_subsets",
    "tail_of_mean",
    "unseen_probability",
]


@dataclass(frozen=True)
class RegretParts:
    """Arrays over states ``(S,)``, in reward units.

    Attributes:
        regret: ``V* - V^pi``. pruning: ``V* - V*_keep`` >= 0. learning: ``V*_keep - V^pi``, >= 0 if pi stays inside.
    """

    regret: np.ndarray
    pruning: np.ndarray
    learning: np.ndarray


def regret_parts(problem: DiscountedMDP, keep: Any, log_policy: Any) -> RegretParts:
    """The regret of a policy ``(S, A)``, split at the optimum of the kept actions.

    Args:
        keep: boolean, ``(A,)`` or ``(S, A)``. log_policy: may leave the kept set; then ``learning`` may be negative.

    Raises:
        ValueError: a state without a kept legal action.
    """
    _validate.instance("problem", problem, DiscountedMDP)
    keep = _validate.boolean_mask("keep", keep)
    if keep.shape not in (problem.shape, problem.shape[1:]):
        _validate.fail("keep", f"must have shape {problem.shape[1:]} or {problem.shape}, got {keep.shape}")
    assert problem.actions is not None
    left = problem.actions & keep
    index = _validate.first_true(np, ~left.any(axis=1))
    if index is not None:
        _validate.fail("keep", "leaves no legal action", index=index)
    best = solve(problem, beta=0.0).value
    inside = solve(dataclasses.replace(problem, actions=left), beta=0.0).value
    own = evaluate(problem, log_policy).state_value
    return RegretParts(best - own, best - inside, inside - own)


def kl_pruning_error(log_ref: Any, reward: Any, keep: Any, beta: Any, *, renormalised: bool = True) -> np.ndarray:
    r"""``V*_beta - V*_beta(keep)`` of bandits, ``(...)``: ``beta log(ref(keep)/pi*(keep))``, ``pi* ~ ref e^{r/beta}``.

    Negative wherever the optimum prefers the kept set more than the reference does. With the KL to the reference as it
    was (``renormalised=False``) the error is ``-beta log pi*(keep)``, never negative.

    Args:
        log_ref, reward: ``(..., A)``. keep: boolean ``(..., A)``. beta: > 0, scalar or batch ``(...)``.

    Raises:
        ValueError: a kept set without mass under the reference.
    """
    log_ref, reward, beta = _validate.numpy_arrays(log_ref=log_ref, reward=reward, beta=beta)
    keep = _validate.boolean_mask("keep", keep)
    _validate.log_probs("log_ref", np, log_ref)
    _validate.same_last_axis(log_ref=log_ref, reward=reward, keep=keep)
    index = _validate.first_true(np, ~np.any(keep & np.isfinite(log_ref), axis=-1))
    if index is not None:
        _validate.fail("keep", "keeps no mass of the reference", index=index)
    best = np.asarray(tilt(log_ref, reward, beta))
    kept = np.asarray(log_sum_exp(np.where(keep, best, -np.inf)))
    before = np.asarray(log_sum_exp(np.where(keep, log_ref, -np.inf))) if renormalised else 0.0
    return np.asarray(beta * (before - kept))


def _values(values: Any) -> np.ndarray:
    (values,) = _validate.numpy_arrays(values=values)
    if values.ndim != 2 or 0 in values.shape:
        _validate.fail("values", f"must be tasks by actions (T, K), got shape {values.shape}")
    return np.asarray(_validate.finite("values", np, values))


def pruning_errors(values: Any, subsets: Any) -> np.ndarray:
    """``Delta = max_a R[t, a] - max_{a in subset} R[t, a]``, ``(n, T)``.

    Args:
        values: ``R``, ``(T, K)``. subsets: boolean ``(n, K)``, none of them empty.
    """
    values, subsets = _values(values), _validate.boolean_mask("subsets", subsets)
    if subsets.ndim != 2 or subsets.shape[1] != values.shape[1]:
        _validate.fail("subsets", f"must be masks (n, {values.shape[1]}), got shape {subsets.shape}")
    index = _validate.first_true(np, ~subsets.any(axis=1))
    if index is not None:
        _validate.fail("subsets", "needs an action", index=index)
    inside = np.where(subsets[:, None], values, -np.inf).max(axis=-1)
    return np.asarray(values.max(axis=-1) - inside)


def bad_subsets(errors: Any, log_law: Any, epsilon: float, sigma: float) -> np.ndarray:
    """Which subsets have ``P[Delta > epsilon] >= sigma``: boolean ``(n,)``.

    Args:
        errors: ``(n, T)`` of `pruning_errors`. log_law: log-probabilities of the tasks ``(T,)``. sigma: in [0, 1].
    """
    errors, log_law = _validate.numpy_arrays(errors=errors, log_law=log_law)
    _validate.log_probs("log_law", np, log_law)
    _validate.same_last_axis(errors=errors, log_law=log_law)
    epsilon, sigma = _validate.real("epsilon", epsilon, low=0.0), _validate.probability("sigma", sigma)
    return np.asarray(np.where(errors > epsilon, np.exp(log_law), 0.0).sum(axis=-1) >= sigma)


def surviving_subsets(errors: Any, seen: Any, epsilon: float) -> np.ndarray:
    """Which subsets have ``Delta <= epsilon`` on every task that was seen: boolean ``(..., n)``.

    Args:
        errors: ``(n, T)``. seen: boolean ``(..., T)``.
    """
    (errors,), seen = _validate.numpy_arrays(errors=errors), _validate.boolean_mask("seen", seen)
    if errors.ndim != 2:
        _validate.fail("errors", f"must be subsets by tasks (n, T), got shape {errors.shape}")
    if seen.shape[-1:] != errors.shape[1:]:
        _validate.fail("seen", f"must have a last axis of {errors.shape[1]} tasks, got shape {seen.shape}")
    wrong = (errors > _validate.real("epsilon", epsilon, low=0.0)).astype(np.float32)
    return np.asarray(seen.astype(np.float32) @ wrong.T == 0)


def demonstrations_bound(actions: int, size: int, sigma: float, delta: float) -> int:
    """``ceil((log C(K, m) + log(1/delta))/sigma)``: then no bad subset of m of K actions is left, but for delta.

    At most ``(m log(eK/m) + log(1/delta))/sigma``, rounded up; from ``C(K, m) (1 - sigma)^N <= delta``.

    Args:
        actions: K. size: m, from 1 to K. sigma, delta: in (0, 1].
    """
    actions = _validate.integer("actions", actions, low=1)
    size = _validate.integer("size", size, low=1, high=actions)
    sigma = _validate.real("sigma", sigma, low=0.0, high=1.0, open_low=True)
    delta = _validate.real("delta", delta, low=0.0, high=1.0, open_low=True)
    return math.ceil((math.log(math.comb(actions, size)) - math.log(delta)) / sigma)


def unseen_probability(tasks: int, demonstrations: int) -> float:
    """Chance that N draws of m equally likely tasks miss one: ``sum_j (-1)^{j+1} C(m, j) (1 - j/m)^N``, exactly.

    The chance that a bad subset survives where task i has value 1 for action i and 0 else.
    """
    tasks = _validate.integer("tasks", tasks, low=1, high=1000)
    n = _validate.integer("demonstrations", demonstrations, low=0, high=10**5)
    missed = sum((-1) ** (j + 1) * math.comb(tasks, j) * (tasks - j) ** n for j in range(1, tasks + 1))
    return float(Fraction(missed, tasks**n))


def demonstrations_needed(tasks: int, delta: float) -> int:
    """The smallest N with `unseen_probability` at most ``delta``, in (0, 1]."""
    delta = _validate.real("delta", delta, low=0.0, high=1.0, open_low=True)
    low, high = -1, 1
    while unseen_probability(tasks, high) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if unseen_probability(tasks, middle) <= delta else (middle, high)
    return high


def mean_error_bound(epsilon: float, sigma: float, largest: float) -> float:
    """``epsilon + sigma (largest - epsilon)``: the mean error of a subset that is not bad, of errors in [0, largest].

    Args:
        largest: >= epsilon >= 0. sigma: in [0, 1].
    """
    epsilon, sigma = _validate.real("epsilon", epsilon, low=0.0), _validate.probability("sigma", sigma)
    return epsilon + sigma * (_validate.real("largest", largest, low=epsilon, high=np.finfo(float).max) - epsilon)


def tail_of_mean(epsilon: float, largest: float) -> float:
    """``P[Delta > epsilon/2] >= (epsilon/2)/(largest - epsilon/2)`` for errors in [0, largest] with mean above epsilon.

    The sigma with which keeping subsets with ``Delta <= epsilon/2`` bounds the mean.
    """
    epsilon = _validate.real("epsilon", epsilon, low=0.0)
    largest = _validate.real("largest", largest, low=epsilon, open_low=True, high=np.finfo(float).max)
    return 0.5 * epsilon / (largest - 0.5 * epsilon)
