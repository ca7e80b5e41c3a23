r"""Restarts from stored states: laws over snapshots, episodes that are cut, and what a restart law can show.

**Snapshots.** Teacher states are stored every few steps. *Status classification* clusters them by the teacher's value
(exact one-dimensional k-means) and draws a cluster uniformly, then a member: ``P(i) = 1/(K |cluster(i)|)``.

**Cuts.** Episodes from ``nu`` that are cut after T steps visit ``m_t = nu P_pi^t``, t < T. A learner that bootstraps
at the cut has the fixed point of the problem itself. One that treats it as an end has, with
``c(s) = m_{T-1}(s) / sum_t m_t(s)`` the share of visits that are the last of an episode,

.. math:: Q = R + \gamma (1 - c) P \max_a Q,

the optimum of a problem that ends with probability c at every step.

**Coverage.** For any policy, start law ``rho`` and restart law ``nu``,

.. math:: V^*(\rho) - V^\pi(\rho) \le \max_s \frac{d^{\pi^*}_\rho(s)}{d^\pi_\nu(s)}
          \cdot \frac{E_{s \sim d^\pi_\nu}[\max_a A^\pi(s, a)]}{1 - \gamma}, \qquad d^\pi_\nu \ge (1 - \gamma) \nu,

by the performance-difference lemma: where ``nu`` covers the optimal path, a policy that no action improves at the
states met from ``nu`` is nearly optimal from ``rho``.

Sources: ``snapshot-rl`` C1-C3 (Zhao et al. 2024; the formulas are derived); Kakade & Langford (2002), restart laws;
Pardo et al. (2018), time limits.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.chains import expected_next, policy_chain
from klsim.planning.evaluation import Trajectories, evaluate, policy_of
from klsim.planning.solve import solve
from klsim.problems import DiscountedMDP
from klsim.problems.transition_rows import probabilities

__all__ = [
    "RestartBound",
    "cluster_law",
    "cut_problem",
    "cut_shares",
    "episode_visits",
    "restart_bound",
    "snapshot_states",
    "state_law",
    "value_clusters",
]


def snapshot_states(trajectories: Trajectories, every: int, terminal: Any = None) -> np.ndarray:
    """States before steps 0, ``every``, 2 ``every``, ... of all trajectories, ``(N,)``, without terminal ones.

    Args:
        terminal: boolean mask over states; None for none.

    Raises:
        ValueError: ``every`` below 1, a mask that is shorter than the states.
    """
    _validate.instance("trajectories", trajectories, Trajectories)
    every = _validate.integer("every", every, low=1)
    states = trajectories.states[:, :-1:every].ravel()
    if terminal is None:
        return np.asarray(states)
    mask = _validate.boolean_mask("terminal", terminal)
    if mask.ndim != 1 or (states.size and states.max() >= mask.size):
        _validate.fail("terminal", f"must have an entry for every state, got shape {mask.shape}")
    return np.asarray(states[~mask[states]])


def value_clusters(values: Any, clusters: int) -> np.ndarray:
    """Labels ``(n,)`` of the best clustering of numbers by squares: 0 for the lowest values, equal values together.

    Minimises ``sum_i (x_i - mean of its cluster)^2`` over all partitions into ``min(clusters, distinct values)`` parts:
    those of the line are intervals, so dynamic programming over the sorted values is exact (Fisher 1958).

    Raises:
        ValueError: no values, values that are not finite, ``clusters`` below 1.
    """
    (given,) = _validate.numpy_arrays(values=values)
    if given.ndim != 1 or given.size == 0:
        _validate.fail("values", f"needs at least one value in one dimension, got shape {given.shape}")
    _validate.finite("values", np, given)
    clusters = _validate.integer("clusters", clusters, low=1)
    points, index, counts = np.unique(given, return_inverse=True, return_counts=True)
    n = len(points)
    clusters = min(clusters, n)
    _validate.fits("values", given.size, 2.0 * n * n)
    scale = float(np.abs(points).max()) or 1.0
    x = points / scale
    x = x - np.average(x, weights=counts)
    sums = [np.concatenate([[0.0], np.cumsum(counts * x**k)]) for k in (0, 1, 2)]
    first, last = np.triu_indices(n)
    weight, mean, square = (s[last + 1] - s[first] for s in sums)
    cost = np.full((n, n), np.inf)  # of one cluster from the first point to the last
    cost[first, last] = np.maximum(square - mean**2 / weight, 0.0)
    best, starts = cost[0], list[np.ndarray]()  # of the first points in k clusters; where the last of them begins
    for _ in range(clusters - 1):
        total = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    labels, end = np.zeros(n, dtype=np.int64), n
    for k in range(clusters - 1, 0, -1):
        begin = int(starts[k - 1][end - 1])
        labels[begin:end] = k
        end = begin
    return np.asarray(labels[index])


def cluster_law(labels: Any) -> np.ndarray:
    """``P(i) = 1/(K |cluster(i)|)``, ``(n,)``: a cluster uniformly, then a member; K clusters that are not empty.

    Raises:
        ValueError: no labels, labels that are not integers of one dimension.
    """
    given = _validate.integers("labels", labels)
    if given.ndim != 1 or given.size == 0:
        _validate.fail("labels", f"needs at least one label in one dimension, got shape {given.shape}")
    _, index, counts = np.unique(given, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(counts) * counts[index]))


def state_law(states: Any, law: Any, size: int) -> np.ndarray:
    """The law ``(size,)`` of the state of a snapshot: snapshots in ``states (n,)`` with probabilities ``law (n,)``.

    Raises:
        ValueError: unequal shapes, a law that does not sum to 1, a state outside of ``[0, size)``.
    """
    size = _validate.integer("size", size, low=1)
    places = _validate.integers("states", states, low=0, high=size - 1)
    weights = probabilities("law", law)
    if places.ndim != 1 or weights.shape != places.shape:
        _validate.fail("law", f"must be (n,) like states: states {places.shape}, law {weights.shape}")
    return np.asarray(np.bincount(places, weights, minlength=size))


def _restart(problem: Any, restart: Any) -> tuple[DiscountedMDP, np.ndarray]:
    _validate.instance("problem", problem, DiscountedMDP)
    law = probabilities("restart", restart)
    if law.shape != problem.shape[:1]:
        _validate.fail("restart", f"must have shape {problem.shape[:1]}, got {law.shape}")
    return problem, law


def episode_visits(problem: DiscountedMDP, log_policy: Any, restart: Any, cut: int, terminal: Any = None) -> np.ndarray:
    """``m_t(s) = P(the episode reaches step t, and s_t = s)``, t < ``cut``: ``(cut, S)``.

    Args:
        log_policy: ``(S, A)``. restart: law of the first state, ``(S,)``.
        terminal: boolean ``(S,)``, states at which nothing more is done; None for none.

    Raises:
        TypeError: not a `DiscountedMDP`. ValueError: shapes, laws that do not sum to 1, ``cut`` below 1.
    """
    problem, law = _restart(problem, restart)
    cut = _validate.integer("cut", cut, low=1)
    _validate.fits("cut", cut, float(cut) * len(law))
    alive = np.ones(len(law))
    if terminal is not None:
        alive -= _validate.boolean_mask("terminal", terminal, law.shape)
    chain = policy_chain(problem.transition, np.exp(policy_of(problem, log_policy)), problem.discount)
    out = np.empty((cut, len(law)))
    out[0] = law * alive
    for t in range(1, cut):
        out[t] = (chain.matrix.T @ out[t - 1]) * alive
    return out


def cut_shares(problem: DiscountedMDP, log_policy: Any, restart: Any, cut: int, terminal: Any = None) -> np.ndarray:
    """``c(s) = m_{T-1}(s) / sum_t m_t(s)``, ``(S,)``: the share of visits that are the last of a cut episode, T = cut.

    It is that of every action of the policy; 0 at states that are not visited. Without terminal states its mean over
    visits is 1/T.

    Raises:
        as `episode_visits`.
    """
    visits = episode_visits(problem, log_policy, restart, cut, terminal)
    total = visits.sum(axis=0)
    return np.divide(visits[-1], total, out=np.zeros_like(total), where=total > 0)


def cut_problem(problem: DiscountedMDP, shares: Any) -> DiscountedMDP:
    """The problem that ends after a visit to s with probability ``shares[s]``: one absorbing state more, the last.

    Its optimal Q solves ``Q = R + discount (1 - c) P max Q``: where Q-learning goes that treats cuts as ends.

    Raises:
        TypeError: not a `DiscountedMDP`. ValueError: shares that are not ``(S,)`` in [0, 1].
    """
    _validate.instance("problem", problem, DiscountedMDP)
    problem = problem.dense()
    states, actions = problem.shape
    (c,) = _validate.numpy_arrays(shares=shares)
    if c.shape != (states,):
        _validate.fail("shares", f"must have shape {(states,)}, got {c.shape}")
    _validate.unit_interval("shares", np, c)
    moves = np.zeros((states + 1, actions, states + 1))
    moves[:-1, :, :-1] = (1 - c)[:, None, None] * problem.transition
    moves[:-1, :, -1] = c[:, None]
    moves[-1, :, -1] = 1.0
    assert problem.actions is not None
    legal = np.vstack([problem.actions, np.ones((1, actions), dtype=bool)])
    reward = np.vstack([problem.reward, np.zeros((1, actions))])
    return DiscountedMDP(moves, reward, problem.discount, np.append(problem.initial, 0.0), legal)


@dataclass(frozen=True)
class RestartBound:
    """What a restart law says about a policy; ``gap <= ratio * signal``.

    Attributes:
        gap: ``V*(rho) - V^pi(rho)``.
        signal: ``E_{d_nu^pi}[max_a A^pi] / (1 - discount)``: the improvement that is seen from the restart law.
        ratio: ``max_s d_rho^{pi*}(s) / d_nu^pi(s)`` over states that an optimal policy visits and where some action is
            better than the policy; ``inf`` where one of them is never met from the restart law, 0 without any.
        bound: ``ratio * signal``; ``inf`` with the ratio.
        visits: ``d_nu^pi``, at least ``(1 - discount) nu``, ``(S,)``.
    """

    gap: float
    signal: float
    ratio: float
    bound: float
    visits: np.ndarray


def restart_bound(problem: DiscountedMDP, log_policy: Any, restart: Any) -> RestartBound:
    r"""The coverage bound of a policy ``(S, A)`` and a restart law ``nu (S,)``; ``rho`` is the problem's start.

    Advantages below ``1e-12`` of the largest value are rounding, and count as none.

    Raises:
        TypeError: not a `DiscountedMDP`. ValueError: shapes, laws that do not sum to 1.

    Source: ``snapshot-rl`` C2 (derived).
    """
    problem, law = _restart(problem, restart)
    assert problem.actions is not None
    policy = policy_of(problem, log_policy)
    value = evaluate(problem, policy).state_value
    q_value = problem.reward + problem.discount * expected_next(problem.transition, value)
    advantage = np.max(np.where(problem.actions, q_value, -np.inf), axis=1) - value
    better = advantage > 1e-12 * float(np.abs(q_value).max())
    best = solve(problem, None, 0.0)
    wanted = _state_visits(problem, best.log_policy)
    visits = _state_visits(dataclasses.replace(problem, initial=law), policy)
    signal = float(visits @ np.where(better, advantage, 0.0)) / (1 - problem.discount)
    needed = better & (wanted > 0)
    with np.errstate(divide="ignore"):
        ratio = float(np.max(wanted[needed] / visits[needed], initial=0.0))
    gap = float(problem.initial @ (best.value - value))
    return RestartBound(gap, signal, ratio, np.inf if np.isinf(ratio) else ratio * signal, visits)


def _state_visits(problem: DiscountedMDP, policy: np.ndarray) -> np.ndarray:
    """Discounted visits ``(S,)``; exactly 0, not rounding, where the policy never comes."""
    chain = policy_chain(problem.transition, np.exp(policy), problem.discount)
    reached = problem.initial > 0
    for _ in range(len(reached) if problem.discount > 0 else 0):
        more = reached | (chain.matrix.T @ reached.astype(float) > 0)
        if (more == reached).all():
            break
        reached = more
    return np.asarray(np.where(reached, chain.visits(problem.initial), 0.0))
