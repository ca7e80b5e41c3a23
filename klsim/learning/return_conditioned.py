r"""Return-conditioned supervised learning (RCSL) on tables: what conditioning on a return learns, and what it attains.

Actions of trajectories are imitated given the return to go ``g_t = sum_{u >= t} r_u``. On tables the minimiser of the
cross-entropy is ``pi(a|t,s,g) = P(a_t = a | s_t = s, g_t = g)``, uniform where ``(t, s, g)`` does not occur. It is
played with a target ``g_0`` from which the rewards that come in are taken off: ``g_{t+1} = g_t - r_t``. With unlimited
data of a behaviour policy mu

.. math:: \pi(a|t,s,g) \propto \mu(a|t,s)\, P_\mu(g_t = g \mid t, s, a),

    P_\mu(g_t = g|t,s,a) = \sum_{s'} P(s'|t,s,a)\, P_\mu(g_{t+1} = g - r(t,s,a) | t+1, s').

Two sums of rewards are one return if they differ by at most 1e-9; rewards are those of the table, without noise of
their own.

Source: ``mbrcsl`` C1, C3 to C6 (Zhou et al. 2023; Brandfonbrener et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from klsim import _validate
from klsim.problems import TabularMDP

__all__ = [
    "AttainedReturns",
    "ReturnTable",
    "ReturnsToGo",
    "attained_returns",
    "empirical_table",
    "near_determinism_bound",
    "population_table",
    "return_conditioned_policy",
    "returns_to_go",
]

SAME = 1e-9
LARGEST_RETURN = 1e4  # sums of rewards below it are rounded by far less than SAME


def _distinct(values: np.ndarray) -> np.ndarray:
    """Rising values, the first of every group without a gap above `SAME`."""
    ordered = np.sort(values, axis=None)
    return ordered[np.concatenate([[True], np.diff(ordered) > SAME])] if ordered.size else ordered


def _places(returns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where each value stands among ``returns``; ``len(returns)`` if it is not there."""
    if not returns.size:
        return np.zeros(values.shape, dtype=np.int64)
    right = np.clip(np.searchsorted(returns, values), 1, max(len(returns) - 1, 1))
    near = np.where(np.abs(returns[right - 1] - values) <= SAME, right - 1, np.minimum(right, len(returns) - 1))
    return np.where(np.abs(returns[near] - values) <= SAME, near, len(returns))


def _sums(rewards: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The distinct sums of one reward and one value."""
    found = _distinct(rewards)
    _validate.fits("problem", len(values), float(len(values)) * len(found))
    return _distinct(found[:, None] + values)


def _problem(problem: Any) -> TabularMDP:
    """Dense, every action legal, rewards that can be added up exactly enough."""
    _validate.instance("problem", problem, TabularMDP)
    if not np.all(problem.actions):
        _validate.fail("problem", "return-conditioned learning needs every action to be legal everywhere")
    if problem.horizon * float(np.abs(problem.reward).max(initial=0.0)) > LARGEST_RETURN:
        _validate.fail("problem", f"horizon times the largest |reward| must be at most {LARGEST_RETURN:g}")
    return problem.dense()


def _behaviour(name: str, policy: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Probabilities ``(H, S, A)`` of a policy ``(H, S, A)`` or ``(S, A)``."""
    (policy,) = _validate.numpy_arrays(**{name: policy})
    if policy.shape not in (shape, shape[1:]):
        _validate.fail(name, f"must have shape {shape} or {shape[1:]}, got {policy.shape}")
    return np.broadcast_to(np.exp(_validate.log_probs(name, np, policy)), shape)


@dataclass(frozen=True)
class ReturnsToGo:
    """Laws of the return to go under a policy.

    Attributes:
        returns: the values ``(G,)`` that it can take at any step, rising.
        law: ``P(g_t | s_t = s)``, ``(H + 1, S, G)``.
        action_law: ``P(g_t | s_t = s, a_t = a)``, ``(H, S, A, G)``.
    """

    returns: np.ndarray
    law: np.ndarray
    action_law: np.ndarray

    def exceeding(self, threshold: float) -> np.ndarray:
        """``P(g_0 > threshold | s_0)``, ``(S,)``: of roll-outs that beat a data set whose best return that is."""
        threshold = _validate.real("threshold", threshold)
        return np.asarray(self.law[0] @ (self.returns > threshold + SAME))

    def coverage(self, targets: Any) -> np.ndarray:
        """``P(g_0 = target | s_0)``, ``(S,)``, of one target for all start states or one a start state ``(S,)``."""
        places = _places(self.returns, _targets(targets, self.law.shape[1]))
        return np.append(self.law[0], np.zeros((len(places), 1)), axis=1)[np.arange(len(places)), places]


def _targets(targets: Any, states: int) -> np.ndarray:
    (targets,) = _validate.numpy_arrays(targets=targets)
    if targets.shape not in ((), (states,)):
        _validate.fail("targets", f"must be a number or have shape ({states},), got {targets.shape}")
    return np.broadcast_to(_validate.finite("targets", np, targets), (states,))


def returns_to_go(problem: TabularMDP, log_policy: Any) -> ReturnsToGo:
    """The exact laws of the return to go, by backward recursion over states and returns.

    Args:
        log_policy: ``(H, S, A)``, or ``(S, A)`` for every step.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: illegal actions, returns above 1e4, too many different returns, not a
            policy of the problem.
    """
    problem = _problem(problem)
    policy = _behaviour("log_policy", log_policy, problem.shape)
    horizon, states, actions = problem.shape
    steps = [np.zeros(1)]
    for reward in problem.reward[::-1]:
        steps.append(_sums(reward, steps[-1]))
    returns = _distinct(np.concatenate(steps))
    _validate.fits("problem", len(returns), float(len(returns)) * horizon * states * (actions + 1))
    law, action_law = np.zeros((horizon + 1, states, len(returns))), np.zeros((*problem.shape, len(returns)))
    law[horizon, :, _places(returns, np.zeros(1))] = 1.0
    for t in range(horizon - 1, -1, -1):
        ahead = problem.transition[t] @ law[t + 1]
        for reward, pairs in _by_reward(problem.reward[t]):
            places = _places(returns, returns + reward)
            inside = places < len(returns)
            action_law[t][(*np.nonzero(pairs), slice(None))] = _moved(ahead[pairs], places, inside)
        law[t] = np.einsum("sa,sag->sg", policy[t], action_law[t])
    return ReturnsToGo(returns, law, action_law)


def _moved(rows: np.ndarray, places: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Rows ``(n, G)`` whose entry g stands at ``places[g]``; what falls outside has no probability."""
    out = np.zeros_like(rows)
    out[:, places[inside]] = rows[:, inside]
    return out


def _by_reward(reward: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Every different reward with the mask ``(S, A)`` of the pairs that pay it."""
    values = _distinct(reward)
    groups = np.clip(np.searchsorted(values, reward, side="right") - 1, 0, None)
    for group, value in enumerate(values):
        yield float(value), groups == group


@dataclass(frozen=True)
class ReturnTable:
    """How often states, returns to go and actions occur together: counts, or probabilities.

    Attributes:
        returns: the returns to go ``(G,)``, rising.
        weights: ``(H, S, G, A)``, at least 0.

    Raises:
        ValueError: shapes that do not fit, returns that do not rise, negative or infinite weights.
    """

    returns: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        returns, weights = _validate.numpy_arrays(returns=self.returns, weights=self.weights)
        if returns.ndim != 1 or np.any(np.diff(_validate.finite("returns", np, returns)) <= 0):
            _validate.fail("returns", "must be one-dimensional and rising")
        if weights.ndim != 4 or weights.shape[2] != len(returns) or not weights.shape[3]:
            _validate.fail("weights", f"must be (H, S, {len(returns)}, A) beside the returns, got {weights.shape}")
        _validate.budgets("weights", np, _validate.finite("weights", np, weights))
        object.__setattr__(self, "returns", returns)
        object.__setattr__(self, "weights", weights)


def population_table(problem: TabularMDP, log_behaviour: Any) -> ReturnTable:
    """``P(s_t = s, g_t = g, a_t = a)`` of a Markov behaviour policy: unlimited data.

    Args:
        log_behaviour: ``(H, S, A)``, or ``(S, A)`` for every step.

    Raises:
        as `returns_to_go`.
    """
    problem = _problem(problem)
    policy = _behaviour("log_behaviour", log_behaviour, problem.shape)
    laws = returns_to_go(problem, log_behaviour)
    visits = np.empty(problem.shape)
    states = problem.initial
    for t in range(problem.horizon):
        visits[t] = states[:, None] * policy[t]
        states = np.einsum("sa,saz->z", visits[t], problem.transition[t])
    return ReturnTable(laws.returns, np.moveaxis(visits[..., None] * laws.action_law, 2, 3))


def empirical_table(states: Any, actions: Any, rewards: Any, shape: tuple[int, int]) -> ReturnTable:
    """How often ``(t, s, g, a)`` occurs in trajectories.

    Args:
        states: integers ``(n, H)`` or ``(n, H + 1)``. actions: integers ``(n, H)``. rewards: ``(n, H)``.
        shape: the numbers ``(S, A)`` of states and actions.

    Raises:
        ValueError: shapes that do not fit, unknown states or actions, rewards that are not finite, returns above 1e4.
    """
    count = [_validate.integer("shape", k, low=1) for k in _validate.sequence("shape", shape)]
    if len(count) != 2:
        _validate.fail("shape", f"must be (S, A), got {len(count)} numbers")
    s = _validate.integers("states", states, low=0, high=count[0] - 1)
    a = _validate.integers("actions", actions, low=0, high=count[1] - 1)
    (r,) = _validate.numpy_arrays(rewards=rewards)
    if a.ndim != 2 or not a.shape[1] or r.shape != a.shape or s.shape not in (a.shape, (len(a), a.shape[1] + 1)):
        shapes = f"states {s.shape}, actions {a.shape}, rewards {r.shape}"
        _validate.fail("actions", f"must be (n, H) beside rewards (n, H) and states (n, H) or (n, H + 1): {shapes}")
    if a.shape[1] * float(np.abs(_validate.finite("rewards", np, r)).max(initial=0.0)) > LARGEST_RETURN:
        _validate.fail("rewards", f"horizon times the largest |reward| must be at most {LARGEST_RETURN:g}")
    to_go = np.cumsum(r[:, ::-1], axis=1)[:, ::-1]
    returns = _distinct(to_go)
    cells = (a.shape[1], count[0], len(returns), count[1])
    _validate.fits("shape", count[0], float(np.prod(cells, dtype=float)))
    index = np.ravel_multi_index((np.arange(a.shape[1]), s[:, : a.shape[1]], _places(returns, to_go), a), cells)
    return ReturnTable(returns, np.bincount(index.ravel(), minlength=int(np.prod(cells))).reshape(cells).astype(float))


def return_conditioned_policy(table: ReturnTable, *, pooled: bool = False) -> np.ndarray:
    """``log pi(a|t,s,g)``, ``(H, S, G, A)``: the minimiser of the cross-entropy, uniform where nothing occurs.

    Args:
        pooled: the policy does not know the step: ``pi(a|s,g)`` from the weights of all steps together.
    """
    _validate.instance("table", table, ReturnTable)
    weights = table.weights
    if _validate.flag("pooled", pooled):
        weights = np.broadcast_to(weights.sum(axis=0), weights.shape)
    largest = weights.max(axis=-1, keepdims=True)
    weights = np.where(largest > 0, weights / np.where(largest > 0, largest, 1.0), 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(weights / weights.sum(axis=-1, keepdims=True)))


class AttainedReturns(NamedTuple):
    """What a return-conditioned policy gets from every start state.

    Attributes:
        returns: total returns ``(K,)``, rising. law: their probabilities ``(S, K)``. value: their mean ``(S,)``.
    """

    returns: np.ndarray
    law: np.ndarray
    value: np.ndarray


def attained_returns(problem: TabularMDP, table: ReturnTable, targets: Any, *, pooled: bool = False) -> AttainedReturns:
    """The exact law of the return of RCSL, by forward recursion over states and rewards so far.

    Args:
        problem: where the policy is played. table: what it has learned from; of the problem's sizes.
        targets: the return to ask for, one for all start states or one a start state ``(S,)``.
        pooled: as `return_conditioned_policy`.

    Raises:
        as `returns_to_go`; ValueError: a table of other sizes.
    """
    problem = _problem(problem)
    log_policy = return_conditioned_policy(table, pooled=pooled)
    horizon, states, actions = problem.shape
    if (log_policy.shape[0], log_policy.shape[1], log_policy.shape[3]) != problem.shape:
        _validate.fail("table", f"must have weights ({horizon}, {states}, G, {actions}), got {table.weights.shape}")
    goals = _targets(targets, states)
    unseen = np.full((horizon, states, 1, actions), 1.0 / actions)
    policy = np.concatenate([np.exp(log_policy), unseen], axis=2)
    so_far, mass = np.zeros(1), np.eye(states)[:, :, None]
    for t in range(horizon):
        asked = _places(table.returns, goals[:, None] - so_far)
        flow = mass[..., None] * np.moveaxis(policy[t][:, asked], 0, 1)  # start, state, sum so far, action
        after = _sums(problem.reward[t], so_far)
        _validate.fits("problem", len(after), float(len(after)) * states * states * actions)
        mass = np.zeros((states, states, len(after)))
        for reward, pairs in _by_reward(problem.reward[t]):
            taken = problem.transition[t] * pairs[..., None]
            mass[:, :, _places(after, so_far + reward)] += np.einsum("isca,saz->izc", flow, taken)
        so_far = after
    law = mass.sum(axis=1)
    return AttainedReturns(so_far, law, law @ so_far)


def near_determinism_bound(noise: Any, coverage: Any, horizon: int) -> np.ndarray:
    r"""``noise (1/coverage + 2) H^2``: how far RCSL may fall short of its target when rewards lie in [0, 1].

    The next state or the reward differs from that of a deterministic problem with probability at most ``noise``, and
    the data have the target return with probability at least ``coverage`` at every start (Brandfonbrener et al. 2022,
    Theorem 1).

    Args:
        noise: in [0, 1]. coverage: in (0, 1]. horizon: H >= 1.
    """
    noise, coverage = _validate.numpy_arrays(noise=noise, coverage=coverage)
    _validate.unit_interval("noise", np, noise)
    _validate.unit_interval("coverage", np, _validate.positive("coverage", np, coverage))
    _validate.broadcast(noise=noise, coverage=coverage)
    horizon = _validate.integer("horizon", horizon, low=1)
    with np.errstate(over="ignore", invalid="ignore"):
        bound = np.asarray(noise * (1 / coverage + 2) * float(horizon) ** 2)
    _validate.representable("coverage", np, bound)
    return bound
