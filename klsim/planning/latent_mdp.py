r"""Latent MDPs: alpha vectors, optimal policies of histories, and where the variance of the return comes from.

The *alpha vector* of a history has its value in every context,

.. math:: \alpha_m(h) = \sum_a \pi(a|h) q_m(h, a), \quad
          q_m(h, a) = R_m(s, a) + \sum_{s'} P_m(s'|s, a)\, \alpha_m(h a r s'), \quad r = R_m(s, a),

and the value of a policy is ``sum_m w_m sum_s nu_m(s) alpha_m(s)``. The optimum over policies of histories backs up the
value of a history, its alpha vector averaged over the posterior of the context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.divergences import kl
from klsim.planning.evaluation import Evaluation, evaluate
from klsim.planning.solution import Solution, soft_backup
from klsim.planning.solve import solve
from klsim.problems.latent_mdp import Histories, LatentMDP, histories, history_levels

__all__ = ["VarianceParts", "alpha_vectors", "return_variance"]

Levels = tuple[np.ndarray, ...]


def _finite_sums(problem: LatentMDP, beta: float) -> None:
    largest = float(np.abs(problem.reward).max()) + beta
    if not largest * problem.horizon < 0.5 * np.finfo(float).max:
        _validate.fail("reward", f"values of size {largest:g} * {problem.horizon} overflow")


@solve.register
def _(problem: LatentMDP, log_ref: Any = None, beta: float = 1.0, *, regularizer: str = "kl") -> Solution:
    """Backward induction over the tree of histories; ``value``, ``q_value`` and ``log_policy`` are its levels.

    ``value[0] (1,)`` is the value before the first state is seen, ``value[t + 1] (N_t,)`` that of the histories after t
    decisions; ``q_value[t]`` and ``log_policy[t] (N_t, A)``, rows as `klsim.problems.histories`; ``log_ref`` is such
    levels or a policy of the current state.
    """
    beta = _validate.real("beta", beta, low=0.0, high=np.finfo(float).max)
    _validate.one_of("regularizer", regularizer, ("kl",))
    _finite_sums(problem, beta)
    tree = histories(problem)
    ref = history_levels(problem, tree, log_ref, "log_ref")
    value: list[np.ndarray] = []
    q_value: list[np.ndarray] = []
    log_policy: list[np.ndarray] = []
    for t in range(problem.horizon - 1, -1, -1):
        paid = np.moveaxis(problem.reward[:, t, tree.states[t][:, -1]], 0, -1)  # (N, A, M)
        q = np.einsum("nam,nm->na", paid, tree.posterior[t])
        if value:
            np.add.at(q, _edges(tree, t + 1), tree.chance[t + 1] * value[-1])
        backed, policy = soft_backup(q, ref[t], beta)
        value.append(backed)
        q_value.append(q)
        log_policy.append(policy)
    value.append(np.atleast_1d(tree.chance[0] @ value[-1]))
    up = slice(None, None, -1)
    bound = _rounding(problem, beta, [float(np.abs(v).max()) for v in value])
    return Solution(tuple(log_policy[up]), tuple(value[up]), tuple(q_value[up]), bound, 0, True, "backward induction")


def _rounding(problem: LatentMDP, beta: float, sizes: list[float]) -> float:
    """A step sums at most ``M + M S`` products; a posterior carries ``M + 4`` roundings a step; then a log-sum-exp."""
    horizon, states, actions = problem.shape
    contexts = len(problem.contexts)
    terms = contexts * (1 + states) + horizon * (contexts + 4) + 2 * (actions + 12)
    reach = float(np.abs(problem.reward).max())
    return 0.5 * float(np.finfo(float).eps) * sum(2 * terms * (size + reach + beta) for size in sizes)


def _edges(tree: Histories, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Parent and action of every history of level ``t >= 1``."""
    return tree.parent[t], tree.actions[t][:, -1]


def alpha_vectors(problem: LatentMDP, log_policy: Any, tree: Histories | None = None) -> tuple[Levels, Levels]:
    """``(alpha, q)`` of a policy: levels ``(N_t, M)`` and ``(N_t, A, M)``.

    Where a history has probability 0 in a context, its alpha vector is 0 there.

    Args:
        log_policy: levels ``(N_t, A)``, or a policy of the current state ``(H, S, A)``. tree: its `histories`.

    Raises:
        TypeError: not a `LatentMDP`. ValueError: not a policy of it, too many histories.
    """
    _validate.instance("problem", problem, LatentMDP)
    _finite_sums(problem, 0.0)
    tree = histories(problem) if tree is None else tree
    weights = [np.exp(level) for level in history_levels(problem, tree, log_policy)]
    rewards = [np.moveaxis(problem.reward[:, t, s[:, -1]], 0, -1) for t, s in enumerate(tree.states)]
    return _backed_up(tree, weights, rewards)


def _backed_up(tree: Histories, weights: list[np.ndarray], gains: list[np.ndarray]) -> tuple[Levels, Levels]:
    """Expected sums of ``gains`` ``(N_t, A, M)`` (or broadcast) along the tree; a gain may be infinite."""
    alpha: list[np.ndarray] = []
    action_values: list[np.ndarray] = []
    for t in range(len(weights) - 1, -1, -1):
        q = np.broadcast_to(gains[t], (*weights[t].shape, tree.posterior[t].shape[1])).copy()
        if alpha:
            np.add.at(q, _edges(tree, t + 1), _times(tree.step[t + 1], alpha[-1]))
        q = np.where(tree.posterior[t][:, None, :] > 0, q, 0.0)
        alpha.append(np.sum(_times(weights[t][..., None], q), axis=1))
        action_values.append(q)
    return tuple(alpha[::-1]), tuple(action_values[::-1])


def _times(probability: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Products with ``0 * inf = 0``."""
    probability = np.broadcast_to(probability, x.shape)
    return np.asarray(probability * np.where(probability > 0, x, 0.0))


@evaluate.register
def _(problem: LatentMDP, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    """``state_value``: before the first state ``(1,)``, then alpha vectors, levels ``(N_t, M)``; for a policy
    of the current state ``(M, H + 1, S)``."""
    beta = _validate.real("beta", beta, low=0.0)
    if isinstance(log_policy, np.ndarray) and (log_ref is None or isinstance(log_ref, np.ndarray)):
        return _evaluate_memoryless(problem, log_policy, log_ref, beta)
    tree = histories(problem)
    reward, _ = alpha_vectors(problem, log_policy, tree)
    policy = history_levels(problem, tree, log_policy)
    cost: Levels = tuple(np.zeros_like(level) for level in reward)
    if log_ref is not None:
        ref = history_levels(problem, tree, log_ref, "log_ref")
        spent = [np.asarray(kl(p, q))[:, None, None] for p, q in zip(policy, ref)]
        cost, _ = _backed_up(tree, [np.exp(p) for p in policy], spent)
    joint = tree.beliefs()[0]
    total, paid = float(np.sum(joint * reward[0])), float(np.sum(_times(joint, cost[0])))
    value = total - float(_scaled(np.asarray(paid), beta))
    alpha = (np.array([value]), *(r - _scaled(c, beta) for r, c in zip(reward, cost)))
    return Evaluation(value, total, paid, alpha)


def _scaled(cost: np.ndarray, beta: float) -> np.ndarray:
    """``beta * cost`` with ``0 * inf = 0``."""
    if beta == 0:
        return np.zeros_like(cost)
    free = cost <= 0
    return np.where(free, 0.0, beta * np.where(free, 1.0, cost))


def _evaluate_memoryless(problem: LatentMDP, log_policy: Any, log_ref: Any, beta: float) -> Evaluation:
    parts = [evaluate(context, log_policy, log_ref, beta) for context in problem.contexts]

    def mean(name: str) -> float:
        return float(np.sum(_times(problem.weights, np.array([getattr(part, name) for part in parts]))))

    values = np.array([part.value for part in parts])
    value = float(np.sum(problem.weights * np.where(problem.weights > 0, values, 0.0)))
    return Evaluation(value, mean("reward"), mean("kl"), np.stack([part.state_value for part in parts]))


@dataclass(frozen=True)
class VarianceParts:
    """Where the variance of the return comes from; the parts sum to it.

    Attributes:
        start: ``Var(alpha_m(s_1))`` over context and first state.
        transition: ``E Var_{s' ~ P_m}(alpha_m(h a r s'))`` of the step ``t = 1 … H-1`` and 0 at the last, ``(H,)``.
        action: ``E Var_{a ~ pi(h)}(q_m(h, a))`` of every step, ``(H,)``; zeros for a deterministic policy.
    """

    start: float
    transition: np.ndarray
    action: np.ndarray

    @property
    def total(self) -> float:
        """The variance of the return."""
        return float(self.start + self.transition.sum() + self.action.sum())


def return_variance(problem: LatentMDP, log_policy: Any) -> VarianceParts:
    r"""The law of total variance over alpha vectors.

    .. math:: Var(\textstyle\sum_t r_t) = Var_{m, s_1}(\alpha_m(s_1)) + E_\pi \sum_{t<H} Var_{P_m}(\alpha_m(h_{t+1}))
              + E_\pi \sum_{t \le H} Var_{a \sim \pi}(q_m(h_t, a)),

    expectations over the true context too. Rewards are deterministic given context, step, state and action.

    Args:
        log_policy: levels ``(N_t, A)`` (`klsim.problems.histories`), or a policy of the current state ``(H, S, A)``,
            for which no history is listed: any horizon.

    Raises:
        TypeError: not a `LatentMDP`. ValueError: not a policy of it, too many histories.
    """
    _validate.instance("problem", problem, LatentMDP)
    if isinstance(log_policy, np.ndarray):
        return _memoryless_variance(problem, log_policy)
    tree = histories(problem)
    alpha, q = alpha_vectors(problem, log_policy, tree)
    weights = [np.exp(level) for level in history_levels(problem, tree, log_policy)]
    transition, action = np.zeros(problem.horizon), np.zeros(problem.horizon)
    visits = tree.posterior[0] * tree.chance[0][:, None]  # (N, M): probability of context and history
    start = _variance(visits.ravel(), alpha[0].ravel())
    for t, w in enumerate(weights):
        around = q[t] - alpha[t][:, None, :]
        action[t] = np.sum(visits[:, None, :] * w[..., None] * around**2)
        if t + 1 == problem.horizon:
            break
        reward = np.moveaxis(problem.reward[:, t, tree.states[t][:, -1]], 0, -1)
        parent, chosen = _edges(tree, t + 1)
        gap = alpha[t + 1] - (q[t] - reward)[parent, chosen]  # from the mean over the next state in each context
        visits = visits[parent] * w[parent, chosen][:, None] * tree.step[t + 1]
        transition[t] = np.sum(visits * gap**2)
    return VarianceParts(start, transition, action)


def _variance(p: np.ndarray, x: np.ndarray) -> float:
    return float(p @ (x - p @ x) ** 2)


def _memoryless_variance(problem: LatentMDP, log_policy: np.ndarray) -> VarianceParts:
    alpha = _evaluate_memoryless(problem, log_policy, None, 0.0).state_value  # (M, H + 1, S)
    transition, action = np.zeros(problem.horizon), np.zeros(problem.horizon)
    policy = np.exp(log_policy)
    policy = policy / policy.sum(axis=-1, keepdims=True)
    visits = problem.weights[:, None] * problem.initial
    start = _variance(visits.ravel(), alpha[:, 0].ravel())
    for t in range(problem.horizon):
        moves = problem.transition[:, t]  # (M, S, A, S)
        ahead = np.einsum("msaz,mz->msa", moves, alpha[:, t + 1])
        taken = visits[..., None] * policy[t]
        action[t] = np.sum(taken * (problem.reward[:, t] + ahead - alpha[:, t, :, None]) ** 2)
        gap = alpha[:, t + 1, None, None, :] - ahead[..., None]
        transition[t] = np.sum(taken[..., None] * moves * gap**2)
        visits = np.einsum("msa,msaz->mz", taken, moves)
    return VarianceParts(start, transition, action)
