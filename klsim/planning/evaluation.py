"""Policy evaluation, occupancy measures and sampled trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from klsim import _validate
from klsim.distributions import sample as sample_outcomes
from klsim.divergences import kl
from klsim.planning.chains import expected_next, inflow, policy_chain
from klsim.planning.solution import by_problem, reference, require_finite_values
from klsim.problems import Bandit, DiscountedMDP, TabularMDP, TokenTree
from klsim.problems.token_tree import check_levels, sequence_log_probs

__all__ = ["Evaluation", "Trajectories", "evaluate", "occupancy", "rollouts"]


@dataclass(frozen=True)
class Evaluation:
    """What a policy achieves from the initial distribution.

    Attributes:
        value: ``reward - beta * kl``.
        reward: expected (discounted) sum of rewards.
        kl: expected (discounted) sum of ``KL(pi(.|s)‖ref(.|s))``; 0 without a reference.
        state_value: regularised value of every state: ``(H + 1, S)`` or ``(S,)``; levels of a
            `POMDP`'s histories, as in `Solution`; None for a bandit or tree.
    """

    value: Any
    reward: Any
    kl: Any
    state_value: Any = None


def _policy(log_policy: Any, shape: tuple[int, ...], actions: Any, name: str = "log_policy") -> np.ndarray:
    if log_policy is None:
        raise TypeError(f"{name}: is required")
    return reference(log_policy, shape, actions, name)


def policy_of(problem: Any, log_policy: Any, name: str = "log_policy") -> np.ndarray:
    """A policy of a tabular problem, validated and of the problem's shape; ``name`` is that of the argument."""
    return _policy(log_policy, problem.shape, problem.actions, name)


def _terms(problem: Any, log_policy: Any, log_ref: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Policy probabilities, and expected reward and KL of every state (and step)."""
    policy = _policy(log_policy, problem.shape, problem.actions)
    ref = None if log_ref is None else reference(log_ref, problem.shape, problem.actions)
    cost = np.zeros(problem.shape[:-1]) if ref is None else np.asarray(kl(policy, ref))
    weights = np.exp(policy)
    return weights, np.sum(weights * problem.reward, axis=-1), cost


@by_problem
def evaluate(problem: Any, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    """Exact evaluation of a policy.

    Args:
        problem: any problem of `klsim.problems`. log_policy: shaped like the problem's policies.
        log_ref: reference for the KL; None for none.
        beta: >= 0; ``inf`` is the limit: ``-inf`` wherever the KL is positive, else the reward.

    Raises:
        TypeError: not a problem. ValueError: shapes, supports, ``beta < 0``.
    """
    raise TypeError(f"problem: cannot evaluate {type(problem).__name__}")


def _total(reward: Any, cost: Any, beta: float) -> Any:
    """``reward - beta * cost`` with ``inf * 0 = 0``."""
    if not beta:
        return reward
    if isinstance(cost, float):
        return reward - (beta * cost if cost > 0 else 0.0)
    xp = _validate.arrays(cost=cost)[0]
    free = cost <= 0
    return reward - xp.where(free, xp.zeros_like(cost), beta * xp.where(free, xp.ones_like(cost), cost))


@evaluate.register
def _(problem: Bandit, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    beta = _validate.real("beta", beta, low=0.0)
    given = problem.log_ref if log_ref is None else log_ref
    xp, policy, rewards, ref = _validate.arrays(log_policy=log_policy, reward=problem.reward, log_ref=given)
    _validate.log_probs("log_policy", xp, policy)
    _validate.log_probs("log_ref", xp, ref)
    _validate.same_last_axis(log_policy=policy, reward=rewards, log_ref=ref)
    reward = xp.sum(xp.exp(policy) * rewards, axis=-1)
    cost = kl(policy, ref)
    return Evaluation(_total(reward, cost, beta), reward, cost)


@evaluate.register
def _(problem: TabularMDP, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    beta = _validate.real("beta", beta, low=0.0)
    weights, rewards, costs = _terms(problem, log_policy, log_ref)
    horizon, states, _ = problem.shape
    reward, cost = np.zeros((horizon + 1, states)), np.zeros((horizon + 1, states))
    infinite = np.zeros((horizon + 1, states), dtype=bool)
    for t in range(horizon - 1, -1, -1):
        future = [expected_next(problem.transition[t], x[t + 1]) for x in (reward, cost, infinite.astype(float))]
        ahead = [np.sum(weights[t] * x, axis=1) for x in future]
        infinite[t] = np.isinf(costs[t]) | (ahead[2] > 0)
        reward[t], cost[t] = rewards[t] + ahead[0], np.where(infinite[t], 0.0, costs[t]) + ahead[1]
    cost[infinite] = np.inf
    total, spent = float(problem.initial @ reward[0]), _mean_of_costs(problem.initial, cost[0])
    return Evaluation(_total(total, spent, beta), total, spent, _total(reward, cost, beta))


@evaluate.register
def _(problem: DiscountedMDP, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    beta = _validate.real("beta", beta, low=0.0)
    weights, rewards, costs = _terms(problem, log_policy, log_ref)
    require_finite_values(problem.reward, problem.discount)
    chain = policy_chain(problem.transition, weights, problem.discount)
    infinite = np.isinf(costs)
    reward, cost = chain.evaluate(rewards), chain.evaluate(np.where(infinite, 0.0, costs))
    if infinite.any():
        cost[chain.reaching(infinite)] = np.inf
    total, spent = float(problem.initial @ reward), _mean_of_costs(problem.initial, cost)
    return Evaluation(_total(total, spent, beta), total, spent, _total(reward, cost, beta))


def _mean_of_costs(weights: np.ndarray, cost: np.ndarray) -> float:
    """``weights @ cost`` with ``0 * inf = 0``."""
    return float(np.sum(np.where(weights > 0, weights * np.where(weights > 0, cost, 0.0), 0.0)))


@evaluate.register
def _(problem: TokenTree, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    beta = _validate.real("beta", beta, low=0.0)
    xp, _, policy = check_levels("log_policy", log_policy, policy=True)
    law = sequence_log_probs(policy)
    if law.shape[-1] != problem.reward.shape[-1]:
        _validate.fail("log_policy", f"must have vocabulary {problem.vocab} and horizon {problem.horizon}")
    reward = xp.sum(xp.exp(law) * problem.reward, axis=-1)
    cost = xp.zeros_like(reward) if log_ref is None else kl(law, sequence_log_probs(log_ref))
    return Evaluation(_total(reward, cost, beta), reward, cost)


@by_problem
def occupancy(problem: Any, log_policy: Any) -> Any:
    """State-action occupancy of a policy.

    Finite horizon: ``d[t, s, a]``, each step summing to 1, ``(H, S, A)``. Discounted:
    ``(1 - gamma) sum_t gamma^t P(s_t = s, a_t = a)``, ``(S, A)``, summing to 1.

    Raises:
        TypeError: not a tabular problem. ValueError: not a policy of it.
    """
    raise TypeError(f"problem: no occupancy for {type(problem).__name__}")


@occupancy.register
def _(problem: TabularMDP, log_policy: Any) -> np.ndarray:
    weights = np.exp(_policy(log_policy, problem.shape, problem.actions))
    out = np.empty(problem.shape)
    states = problem.initial
    for t in range(problem.horizon):
        out[t] = states[:, None] * weights[t]
        states = inflow(problem.transition[t], out[t])
    return out


@occupancy.register
def _(problem: DiscountedMDP, log_policy: Any) -> np.ndarray:
    weights = np.exp(_policy(log_policy, problem.shape, problem.actions))
    chain = policy_chain(problem.transition, weights, problem.discount)
    return np.asarray(chain.visits(problem.initial)[:, None] * weights)


@dataclass(frozen=True)
class Trajectories:
    """Sampled trajectories: ``states (n, H + 1)``, ``actions (n, H)``, ``rewards (n, H)``."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


@by_problem
def rollouts(
    problem: Any, log_policy: Any, count: int, rng: np.random.Generator | int, horizon: int | None = None
) -> Any:
    """``count`` independent trajectories.

    A `TabularMDP` runs its horizon; a `DiscountedMDP` the ``horizon`` given (the discount is not
    applied to the rewards returned); a `TokenTree` gives sequence indices ``(count,)``, a `Bandit`
    actions ``(count,)``. The same seed gives the same bytes, whatever the number of threads.

    Raises:
        TypeError: not a problem. ValueError: bad arguments.
    """
    raise TypeError(f"problem: no rollouts for {type(problem).__name__}")


def _trajectories(problem: Any, weights: np.ndarray, horizon: int, count: int, rng: Any) -> Trajectories:
    from klsim.kernels import rollouts as kernels

    count = _validate.integer("count", count, low=0)
    uniforms = _validate.generator(rng).random((count, 2 * horizon + 1))
    initial, policy = np.cumsum(problem.initial), np.cumsum(weights, axis=-1)
    if problem.is_sparse:
        steps = problem.transition if isinstance(problem.transition, tuple) else (problem.transition,)
        rows = steps[0] if all(step is steps[0] for step in steps) else sparse.vstack(steps, format="csr")
        edges = kernels.row_cumulative(rows.indptr, rows.data)
        states, actions = kernels.sample_sparse_trajectories(
            initial, policy, rows.indptr, rows.indices, edges, uniforms
        )
    else:
        moves = problem.transition if problem.transition.ndim == 4 else problem.transition[None]
        states, actions = kernels.sample_trajectories(initial, policy, np.cumsum(moves, axis=-1), uniforms)
    time = np.arange(horizon) if problem.reward.ndim == 3 else None
    index = (states[:, :-1], actions) if time is None else (time, states[:, :-1], actions)
    return Trajectories(states, actions, problem.reward[index])


@rollouts.register
def _(problem: TabularMDP, log_policy: Any, count: int, rng: Any, horizon: int | None = None) -> Trajectories:
    if horizon is not None and _validate.integer("horizon", horizon) != problem.horizon:
        _validate.fail("horizon", f"the problem has horizon {problem.horizon}", horizon)
    weights = np.exp(_policy(log_policy, problem.shape, problem.actions))
    return _trajectories(problem, weights, problem.horizon, count, rng)


@rollouts.register
def _(problem: DiscountedMDP, log_policy: Any, count: int, rng: Any, horizon: int | None = None) -> Trajectories:
    horizon = _validate.integer("horizon", horizon, low=1)
    weights = np.exp(_policy(log_policy, problem.shape, problem.actions))
    return _trajectories(problem, weights[None], horizon, count, rng)


@rollouts.register
def _(problem: TokenTree, log_policy: Any, count: int, rng: Any, horizon: int | None = None) -> np.ndarray:
    from klsim.kernels.rollouts import sample_sequences

    _, vocab, levels = check_levels("log_policy", log_policy, policy=True)
    if vocab != problem.vocab or len(levels) != problem.horizon or any(np.ndim(x) != 2 for x in levels):
        _validate.fail("log_policy", f"must be one tree of vocabulary {problem.vocab}, horizon {problem.horizon}")
    flat = np.cumsum(np.exp(np.concatenate([np.asarray(x, dtype=float) for x in levels])), axis=-1)
    uniforms = _validate.generator(rng).random((_validate.integer("count", count, low=0), problem.horizon))
    return np.asarray(sample_sequences(flat, vocab, uniforms))


@rollouts.register
def _(problem: Bandit, log_policy: Any, count: int, rng: Any, horizon: int | None = None) -> np.ndarray:
    if horizon is not None:
        _validate.fail("horizon", "a bandit has none", horizon)
    xp, policy = _validate.arrays(log_policy=log_policy)
    _validate.same_last_axis(log_policy=_validate.log_probs("log_policy", xp, policy), log_ref=problem.log_ref)
    return sample_outcomes(policy, _validate.integer("count", count, low=0), rng)
