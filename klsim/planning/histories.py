r"""POMDPs solved and evaluated exactly, on the tree of all their histories.

With the belief ``b_h(s) = P(s_t = s | h)`` a history is the state of a fully observed problem:

.. math:: Q(h,a) = \sum_s b_h(s)\, r_t(s,a) + \sum_o P(o|h,a)\, V(hao), \quad
          P(o|h,a) = \sum_{s,s'} b_h(s) P_t(s'|s,a) E_{t+1}(o|s'), \quad
          V(h) = \beta \log \sum_a ref(a|h)\, e^{Q(h,a)/\beta},

and ``b_hao`` is Bayes' rule. `solve`, `evaluate`, `occupancy` and `rollouts` of a `POMDP` are registered here. The tree
has ``O (A O)^{H-1}`` leaves: exact, for small problems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.divergences import kl
from klsim.planning.evaluation import Evaluation, Trajectories, evaluate, occupancy, rollouts
from klsim.planning.solution import Solution, soft_backup
from klsim.planning.solve import solve
from klsim.problems import POMDP

__all__ = ["BeliefTree", "ObservedTrajectories", "belief_tree", "history_levels"]


@dataclass(frozen=True)
class BeliefTree:
    """What every history tells.

    Attributes:
        beliefs: ``beliefs[t]``, ``(O (A O)**t, S)``: ``P(s_t | h)``; zeros where ``h`` is impossible.
        first: ``P(o_0)``, ``(O,)``.
        following: ``following[t]``, ``(O (A O)**t, A, O)``: ``P(o_{t+1} | h, a)``, for ``t < H - 1``.
    """

    beliefs: tuple[np.ndarray, ...]
    first: np.ndarray
    following: tuple[np.ndarray, ...]


def _normalised(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(conditional, total)`` along the last axis; zeros where the total is 0."""
    total = joint.sum(axis=-1)
    return joint / np.where(total > 0, total, 1.0)[..., None], total


def belief_tree(problem: POMDP) -> BeliefTree:
    """Beliefs and predictions of all histories, by Bayes' rule forward in time.

    Raises:
        TypeError: not a `POMDP`. ValueError: more histories than fit.
    """
    _validate.instance("problem", problem, POMDP)
    horizon, states, actions, _ = problem.sizes
    _validate.fits("horizon", horizon, problem.histories(horizon - 1) * max(states, actions))
    belief, first = _normalised((problem.emission[0] * problem.initial[:, None]).T)
    beliefs, following = [belief], []
    for t in range(horizon - 1):
        moved = np.tensordot(belief, problem.transition[t], axes=1)  # (N, A, S)
        belief, chance = _normalised(moved[:, :, None, :] * problem.emission[t + 1].T)
        belief = belief.reshape(-1, states)
        beliefs.append(belief)
        following.append(chance)
    return BeliefTree(tuple(beliefs), first, tuple(following))


def history_levels(problem: POMDP, log_policy: Any, name: str = "log_policy") -> tuple[np.ndarray, ...]:
    """A policy as history levels; a memoryless one, ``(H, O, A)`` or ``(O, A)``, is written out; None is uniform.

    Raises:
        TypeError: not a `POMDP`, not a policy. ValueError: wrong shapes, rows that are not distributions.
    """
    _validate.instance("problem", problem, POMDP)
    horizon, _, actions, symbols = problem.sizes
    if log_policy is None:
        log_policy = np.full((symbols, actions), -math.log(actions))
    if not isinstance(log_policy, tuple | list):
        steps = _memoryless(problem, log_policy, name)
        return tuple(np.tile(steps[t], (problem.histories(t) // symbols, 1)) for t in range(horizon))
    if len(log_policy) != horizon:
        _validate.fail(name, f"must have {horizon} levels, one a step, got {len(log_policy)}")
    levels = _validate.numpy_arrays(**{f"{name}[{t}]": level for t, level in enumerate(log_policy)})
    out = []
    for t, level in enumerate(levels):
        if level.shape != (problem.histories(t), actions):
            _validate.fail(f"{name}[{t}]", f"must have shape {(problem.histories(t), actions)}, got {level.shape}")
        _validate.log_probs(f"{name}[{t}]", np, level)
        out.append(_log_normalised(level))
    return tuple(out)


def _log_normalised(rows: np.ndarray) -> np.ndarray:
    """Rows that sum to 1 to the precision of their dtype, made to sum to 1 in float64."""
    rows = np.asarray(rows, dtype=np.float64)
    return np.asarray(rows - np.log(np.sum(np.exp(rows), axis=-1, keepdims=True)))


def _memoryless(problem: POMDP, log_policy: Any, name: str) -> np.ndarray:
    """A memoryless policy as ``(H, O, A)``."""
    horizon, _, actions, symbols = problem.sizes
    (given,) = _validate.numpy_arrays(**{name: log_policy})
    shape = (horizon, symbols, actions)
    if given.shape not in (shape, shape[1:]):
        _validate.fail(name, f"must be levels, or have shape {shape} or {shape[1:]}, got shape {given.shape}")
    _validate.log_probs(name, np, given)
    return np.broadcast_to(_log_normalised(given), shape)


def _largest(problem: POMDP) -> float:
    """The largest total reward; refused where sums of it may overflow."""
    largest = float(np.abs(problem.reward).max()) * problem.horizon
    if not largest < 0.25 * np.finfo(float).max:
        _validate.fail("reward", f"values of size {largest / problem.horizon:g} * {problem.horizon} overflow")
    return largest


@solve.register
def _(problem: POMDP, log_ref: Any = None, beta: float = 1.0, *, regularizer: str = "kl") -> Solution:
    """``value[0] (1,)`` is the value before the first observation, ``value[t + 1]`` that of the histories of step t.

    Histories of probability 0 have value 0 and keep the reference.
    """
    beta = _validate.real("beta", beta, low=0.0, high=np.finfo(float).max)
    _validate.one_of("regularizer", regularizer, ("kl", "entropy"))
    horizon, states, actions, symbols = problem.sizes
    if regularizer == "entropy" and log_ref is not None:
        _validate.fail("log_ref", "does not go with regularizer='entropy'")
    bonus = beta * math.log(actions) if regularizer == "entropy" else 0.0
    size = _largest(problem) + horizon * bonus
    tree, ref = belief_tree(problem), history_levels(problem, log_ref, "log_ref")
    value: list[np.ndarray] = []
    policies, q_values = [], []
    for t in range(horizon - 1, -1, -1):
        possible = tree.beliefs[t].sum(axis=1) > 0
        q = tree.beliefs[t] @ problem.reward[t]
        if value:
            q += np.sum(tree.following[t] * value[-1].reshape(-1, actions, symbols), axis=-1)
        backed, log_policy = soft_backup(q, ref[t], beta)
        value.append(np.where(possible, backed + bonus, 0.0))
        policies.append(np.where(possible[:, None], log_policy, ref[t]))
        q_values.append(q)
    value.append(np.atleast_1d(tree.first @ value[-1]))
    # a belief of step t is t + 1 sums of S products, relative to 1; a backup sums A exponents and O values
    terms = (horizon + 1) * (2 * states + 4) + actions + symbols + 8
    rounding = 2 * float(np.finfo(float).eps) * horizon * terms * (size + beta)
    up = slice(None, None, -1)
    return Solution(
        tuple(policies[up]), tuple(value[up]), tuple(q_values[up]), rounding, 0, True, "recursion over histories"
    )


@evaluate.register
def _(problem: POMDP, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    """``state_value`` is a tuple like the ``value`` of `solve`: before the first observation, then a level a step."""
    beta = _validate.real("beta", beta, low=0.0)
    if log_policy is None:
        raise TypeError("log_policy: is required")
    _largest(problem)
    policy = history_levels(problem, log_policy)
    ref = None if log_ref is None else history_levels(problem, log_ref, "log_ref")
    _, _, actions, symbols = problem.sizes
    tree = belief_tree(problem)
    reward: list[np.ndarray] = []
    cost: list[np.ndarray] = []
    for t in range(problem.horizon - 1, -1, -1):
        weights, gain = np.exp(policy[t]), tree.beliefs[t] @ problem.reward[t]
        possible = tree.beliefs[t].sum(axis=1) > 0
        spent = np.zeros(len(weights)) if ref is None else np.where(possible, np.asarray(kl(policy[t], ref[t])), 0.0)
        if reward:
            ahead = tree.following[t]
            gain = gain + np.sum(ahead * reward[-1].reshape(-1, actions, symbols), axis=-1)
            later = _mean(ahead, cost[-1].reshape(-1, actions, symbols))
            spent = spent + _mean(weights, later)
        reward.append(np.sum(weights * gain, axis=-1))
        cost.append(spent)
    reward.append(np.atleast_1d(tree.first @ reward[-1]))
    cost.append(np.atleast_1d(_mean(tree.first, cost[-1])))
    levels = tuple(_net(r, c, beta) for r, c in zip(reward[::-1], cost[::-1]))
    return Evaluation(float(levels[0][0]), float(reward[-1][0]), float(cost[-1][0]), levels)


def _mean(weights: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """``sum weights * cost`` on the last axis, ``0 * inf = 0``."""
    return np.asarray(np.sum(weights * np.where(weights > 0, cost, 0.0), axis=-1))


def _net(reward: np.ndarray, cost: np.ndarray, beta: float) -> np.ndarray:
    """``reward - beta * cost``, ``inf * 0 = 0``."""
    if not beta:
        return reward
    paid = cost > 0
    return reward - np.where(paid, beta * np.where(paid, cost, 1.0), 0.0)


@occupancy.register
def _(problem: POMDP, log_policy: Any) -> np.ndarray:
    """``d[t, s, a] = P(s_t = s, a_t = a)`` of latent states, ``(H, S, A)``."""
    levels = history_levels(problem, log_policy)
    horizon, states, actions, _ = problem.sizes
    _validate.fits("horizon", horizon, problem.histories(horizon - 1) * states * actions)
    out = np.empty((horizon, states, actions))
    joint = (problem.emission[0] * problem.initial[:, None]).T  # (N, S): P(h, s_t)
    for t in range(horizon):
        taken = joint[:, :, None] * np.exp(levels[t])[:, None, :]
        out[t] = taken.sum(axis=0)
        if t < horizon - 1:
            moved = np.einsum("nsa,sar->nar", taken, problem.transition[t])
            joint = (moved[:, :, None, :] * problem.emission[t + 1].T).reshape(-1, states)
    return out


@dataclass(frozen=True)
class ObservedTrajectories(Trajectories):
    """`Trajectories` of a POMDP, with what was seen: ``observations (n, H)``."""

    observations: np.ndarray


def _drawn(edges: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Categorical draws by inversion of cumulative rows."""
    return np.minimum((uniform[:, None] * edges[:, -1:] >= edges).sum(axis=1), edges.shape[1] - 1)


@rollouts.register
def _(problem: POMDP, log_policy: Any, count: int, rng: Any, horizon: int | None = None) -> ObservedTrajectories:
    """A memoryless policy is not written out: any horizon."""
    steps, _, actions, symbols = problem.sizes
    if horizon is not None and _validate.integer("horizon", horizon) != steps:
        _validate.fail("horizon", f"the problem has horizon {steps}", horizon)
    count = _validate.integer("count", count, low=0)
    has_memory = isinstance(log_policy, tuple | list)
    levels = history_levels(problem, log_policy) if has_memory else _memoryless(problem, log_policy, "log_policy")
    uniform = _validate.generator(rng).random((3 * steps + 1, count))
    moves, signs = np.cumsum(problem.transition, axis=-1), np.cumsum(problem.emission, axis=-1)
    states = np.empty((count, steps + 1), dtype=np.int64)
    seen, taken = np.empty((count, steps), dtype=np.int64), np.empty((count, steps), dtype=np.int64)
    states[:, 0] = _drawn(np.broadcast_to(np.cumsum(problem.initial), (count, len(problem.initial))), uniform[-1])
    history = np.zeros(count, dtype=np.int64)
    for t in range(steps):
        seen[:, t] = _drawn(signs[t, states[:, t]], uniform[3 * t])
        history = history * symbols + seen[:, t] if has_memory else seen[:, t]
        taken[:, t] = _drawn(np.cumsum(np.exp(levels[t][history]), axis=1), uniform[3 * t + 1])
        history = history * actions + taken[:, t]
        states[:, t + 1] = _drawn(moves[t, states[:, t], taken[:, t]], uniform[3 * t + 2])
    rewards = problem.reward[np.arange(steps), states[:, :-1], taken]
    return ObservedTrajectories(states, taken, rewards, seen)
