r"""Imitation in finite-horizon problems: divergences along trajectories, their gradients, and how errors compound.

With ``d_t`` the states that a policy visits at step t, the chain rule makes trajectory divergences sums over states:

.. math:: KL(P^\pi\|P^T) = \sum_t E_{d_t^\pi} KL(\pi\|T), \qquad KL(P^T\|P^\pi) = \sum_t E_{d_t^T} KL(T\|\pi)

the first is what on-policy distillation descends, the second what maximum likelihood on the teacher's trajectories
does (`visited_divergence`). `distillation_gradient` is the expected policy gradient of per-token rewards
``-log(pi/T)``. `imitation_regret` bounds the lost return by errors on the policy's own states, times what one error
costs, or by errors on the teacher's states, times what is left of the horizon (Ross and Bagnell, 2010).

Source: ``vla-opd`` C1, C5, C6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.divergences import Generator, f_divergence, tv
from klsim.planning.evaluation import evaluate, occupancy, policy_of
from klsim.problems import TabularMDP

__all__ = ["ImitationRegret", "distillation_gradient", "imitation_regret", "unrecovered_cost", "visited_divergence"]


def visited_divergence(
    problem: TabularMDP, log_policy: Any, log_other: Any, *, visits: Any = None, generator: Generator | str = "kl"
) -> float:
    """``sum_t sum_s d_t(s) D_f(pi(.|s)‖other(.|s))`` in nats, d the visits of ``visits`` (None: of ``log_policy``).

    Args:
        problem: dense or sparse. log_policy, log_other, visits: policies ``(H, S, A)`` or ``(S, A)``.
        generator: ``"kl"`` with the policy's own visits is ``KL(P^pi‖P^other)`` of trajectories; ``"forward_kl"`` with
            those of ``log_other`` is ``KL(P^other‖P^pi)``.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not policies of it.
    """
    _validate.instance("problem", problem, TabularMDP)
    own, other = policy_of(problem, log_policy), policy_of(problem, log_other)
    states = occupancy(problem, own if visits is None else visits).sum(axis=-1)
    each = np.asarray(f_divergence(own, other, generator))
    return float(np.sum(np.where(states > 0, states * np.where(states > 0, each, 0.0), 0.0)))


def distillation_gradient(problem: TabularMDP, log_policy: Any, log_teacher: Any, *, discount: float = 0.0) -> Any:
    """Expected policy gradient of rewards ``r = -log(pi/T)`` in the logits of every step and state, ``(H, S, A)``.

    ``discount=0``: a step is credited with its own reward; minus the gradient of `visited_divergence` with the visits
    held fixed. ``discount=1``: with all that follow; minus the gradient of the trajectory KL, visits included. The
    logits of a policy that is the same at every step have the sum over steps as their gradient.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not policies of it, ``discount`` outside [0, 1], a policy with mass
            where the teacher has none.
    """
    _validate.instance("problem", problem, TabularMDP)
    discount = _validate.real("discount", discount, low=0.0, high=1.0)
    own, teacher = policy_of(problem, log_policy), policy_of(problem, log_teacher)
    alive = np.isfinite(own)
    index = _validate.first_true(np, alive & np.isneginf(teacher))
    if index is not None:
        _validate.fail("log_policy", "has mass where log_teacher has none", index=index)
    d, pi = occupancy(problem, own).sum(axis=-1), np.exp(own)
    ratio = np.where(alive, own, 0.0) - np.where(alive, teacher, 0.0)
    credit, ahead = -ratio, np.zeros(problem.shape[1])
    dense = problem.dense().transition
    for t in range(problem.horizon - 1, -1, -1):
        credit[t] += discount * dense[t] @ ahead
        ahead = np.sum(pi[t] * credit[t], axis=-1)
    return d[..., None] * pi * (credit - np.sum(pi * credit, axis=-1, keepdims=True))


@dataclass(frozen=True)
class ImitationRegret:
    """What a policy loses against a teacher, and two bounds.

    Attributes:
        regret: ``J(T) - J(pi)``, by evaluation.
        own_errors: ``E_{d_t^pi} TV(pi, T)`` of every step, ``(H,)``: for a deterministic teacher the chance of another
            action. teacher_errors: the same in the states that the teacher visits.
        recovery: ``u``, the largest ``max_a Q^T - min_a Q^T`` of a step and state: what one error costs if the teacher
            takes over.
        own_bound: ``u sum_t own_errors``. teacher_bound: ``sum_t (H - t) (max r - min r) teacher_errors``, t from 0.
    """

    regret: float
    own_errors: np.ndarray
    teacher_errors: np.ndarray
    recovery: float
    own_bound: float
    teacher_bound: float


def imitation_regret(problem: TabularMDP, log_policy: Any, log_teacher: Any) -> ImitationRegret:
    """Regret of imitation and its bounds; illegal actions count as no choice.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not policies of it.
    """
    _validate.instance("problem", problem, TabularMDP)
    own, teacher = policy_of(problem, log_policy), policy_of(problem, log_teacher)
    value = np.asarray(evaluate(problem, teacher).state_value)
    apart = np.asarray(tv(own, teacher))
    errors = [np.sum(occupancy(problem, who).sum(axis=-1) * apart, axis=-1) for who in (own, teacher)]
    dense, legal = problem.dense().transition, np.broadcast_to(np.asarray(problem.actions), problem.shape)
    q = problem.reward + np.einsum("hsan,hn->hsa", dense, value[1:])
    spread = np.where(legal, q, -np.inf).max(axis=-1) - np.where(legal, q, np.inf).min(axis=-1)
    reward = problem.reward[legal]
    left = np.arange(problem.horizon, 0, -1) * float(reward.max() - reward.min())
    return ImitationRegret(
        float(evaluate(problem, teacher).reward - evaluate(problem, own).reward),
        errors[0], errors[1], float(spread.max()), float(spread.max() * errors[0].sum()), float(left @ errors[1]),
    )  # fmt: skip


def unrecovered_cost(error: Any, horizon: Any) -> np.ndarray:
    r"""Expected steps off track in ``horizon`` steps if a step on track errs with chance ``error`` and none recovers.

    ``sum_{t=1}^H (1 - (1 - eps)^t) = H - (1 - eps)(1 - (1 - eps)^H)/eps``, at most ``eps H (H+1)/2``, its value to
    first order. Where every error is recovered at once with chance ``1 - eps`` it is ``eps H``.

    Args:
        error: in [0, 1]. horizon: integers >= 0, at most 10^9; shapes broadcast.
    """
    (eps,) = _validate.numpy_arrays(error=error)
    _validate.unit_interval("error", np, eps)
    steps = _validate.integers("horizon", horizon, low=0, high=10**9).astype(float)
    _validate.broadcast(error=eps, horizon=steps)
    eps, steps = np.broadcast_arrays(np.asarray(eps, dtype=float), steps)
    small = eps * steps < 0.1
    safe = np.where(small | (eps == 1), 0.5, eps)
    far = steps + (1 - safe) * np.expm1(steps * np.log1p(-safe)) / safe
    # H + 1 - (1 - (1 - eps)^(H+1))/eps by the binomial theorem, without cancellation
    near, term = np.zeros(eps.shape), steps * (steps + 1) / 2 * eps
    for k in range(2, 22):
        near = near + term
        term = -term * eps * (steps + 1 - k) / (k + 1)
    return np.asarray(np.where(small, near, np.where(eps == 1, steps, far)))
