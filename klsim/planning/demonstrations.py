r"""Regularised RL towards a cloned expert: what the regulariser costs, and what errors of values and rewards cost.

With ``V_beta(pi) = E_pi[sum r] - beta KL_traj(pi‖ref)``, its optimum ``pi_beta``, an expert E and any policy pi,

.. math:: V^* - V(\pi) = \epsilon_E + \epsilon_{RL} + \beta\,[KL(E\|ref) - KL(\pi\|ref) - KL(E\|\pi_\beta)]

with ``eps_E = V* - V(E)`` and ``eps_RL = V_beta* - V_beta(pi)``: adding and subtracting the expert's regularised value
(`demonstration_gap`). The gap of a policy that is soft-greedy in wrong values is quadratic in their error, because
``KL(softmax(x + e)‖softmax(x)) <= span(e)^2/8`` (Popoviciu; `soft_error_bound`, `policy_error_bound`); that of a policy
trained on a wrong reward is paid for by log-moments of the error under the reference (`learned_reward_bounds`).

Source: ``demo-reg`` C3, C5, C6, C9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import expectation, log_partition
from klsim.divergences import kl
from klsim.planning.evaluation import evaluate, occupancy, policy_of
from klsim.planning.imitation import visited_divergence
from klsim.planning.solve import solve
from klsim.problems import TabularMDP

__all__ = [
    "DemonstrationGap",
    "demonstration_gap",
    "deterministic_gap_bound",
    "learned_reward_bounds",
    "pinsker_gap_bound",
    "policy_error_bound",
    "soft_error_bound",
]


@dataclass(frozen=True)
class DemonstrationGap:
    """What a policy trained towards a clone of an expert is short of the optimum, and where it comes from.

    Attributes:
        gap: ``V* - V(pi)``, no regulariser.
        expert_gap: ``V* - V(E)``. learner_gap: ``V_beta* - V_beta(pi)``.
        expert_kl, learner_kl: ``KL_traj`` of expert and policy to the reference.
        expert_to_optimum: ``KL_traj(E‖pi_beta)``.
        beta: the coefficient.
    """

    gap: float
    expert_gap: float
    learner_gap: float
    expert_kl: float
    learner_kl: float
    expert_to_optimum: float
    beta: float

    @property
    def bound(self) -> float:
        """``eps_E + eps_RL + beta KL(E‖ref)``."""
        return self.expert_gap + self.learner_gap + self.beta * self.expert_kl

    @property
    def refined(self) -> float:
        """`bound` minus ``beta KL(pi‖ref)``."""
        return self.bound - self.beta * self.learner_kl

    @property
    def exact(self) -> float:
        """`refined` minus ``beta KL(E‖pi_beta)``: equal to `gap`."""
        return self.refined - self.beta * self.expert_to_optimum


def demonstration_gap(
    problem: TabularMDP, log_policy: Any, log_expert: Any, log_ref: Any, beta: float
) -> DemonstrationGap:
    """The parts of ``V* - V(pi)`` for a policy, an expert and a reference ``(H, S, A)`` or ``(S, A)``; ``beta`` > 0.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not policies of it; one visits what the reference never does.
    """
    _validate.instance("problem", problem, TabularMDP)
    beta = _validate.real("beta", beta, low=0.0, high=1e100, open_low=True)
    policies = {"log_policy": log_policy, "log_expert": log_expert, "log_ref": log_ref}
    own, expert, ref = (policy_of(problem, given, name) for name, given in policies.items())
    best, regular = solve(problem, beta=0.0), solve(problem, ref, beta)
    optimum = float(problem.initial @ best.value[0])
    mine, theirs = (evaluate(problem, who, ref, beta) for who in (own, expert))
    for name, found in (("log_policy", mine), ("log_expert", theirs)):
        if not math.isfinite(found.kl):
            _validate.fail(name, "has an infinite KL to log_ref: it takes actions that the reference never does")
    return DemonstrationGap(
        gap=optimum - mine.reward,
        expert_gap=optimum - theirs.reward,
        learner_gap=float(problem.initial @ regular.value[0]) - mine.value,
        expert_kl=theirs.kl,
        learner_kl=mine.kl,
        expert_to_optimum=visited_divergence(problem, expert, regular.log_policy),
        beta=beta,
    )


def _kl_and_span(divergence: float, span: float) -> tuple[float, float]:
    return _validate.real("divergence", divergence, low=0.0), _validate.real("span", span, low=0.0, high=1e100)


def pinsker_gap_bound(divergence: float, span: float) -> float:
    """``span sqrt(KL/2)``: bound on ``|V(E) - V(pi)|`` for returns in an interval of length ``span``.

    ``divergence`` is ``KL_traj(E‖pi)`` in nats.
    """
    divergence, span = _kl_and_span(divergence, span)
    return span * math.sqrt(divergence / 2)


def deterministic_gap_bound(divergence: float, span: float) -> float:
    """``span (1 - exp(-KL))``: bound on ``V(E) - V(pi)`` for an expert that is deterministic wherever it goes.

    The total variation of the trajectories is ``1 - E_E[prod_h pi(a_h|s_h)]``; Jensen's inequality.
    """
    divergence, span = _kl_and_span(divergence, span)
    return -span * math.expm1(-divergence)


def soft_error_bound(error: Any, beta: Any) -> np.ndarray:
    """``span_a(e)^2/(8 beta)`` of errors ``(..., A)``, which bounds ``beta KL(pi_e‖pi)``.

    ``pi = softmax(l + q/beta)`` for any log-reference l and values q, ``pi_e`` the same of ``q + e``; the constant is
    the limit of small errors on two equally likely actions. ``beta`` > 0 broadcasts against ``(...)``.
    """
    given, coefficient = _validate.numpy_arrays(error=error, beta=beta)
    _validate.finite("error", np, given)
    _validate.positive("beta", np, coefficient)
    if given.ndim < 1 or given.shape[-1] < 1:
        _validate.fail("error", f"must be (..., A), got shape {given.shape}")
    span = np.asarray(given.max(axis=-1) - given.min(axis=-1), dtype=float)
    with np.errstate(over="ignore"):
        bound = np.asarray(span * (span / (8 * coefficient)))
    _validate.representable("error", np, bound)
    return bound


def policy_error_bound(problem: TabularMDP, log_policy: Any, error: Any, beta: float) -> float:
    """``E_pi[sum_h span_a(e_h(s_h))^2]/(8 beta)``: bounds ``V_beta* - V_beta(pi)`` of ``pi ~ ref exp((Q* + e)/beta)``.

    Args:
        log_policy: pi ``(H, S, A)``. error: e, of the action values, ``(H, S, A)``.
    """
    _validate.instance("problem", problem, TabularMDP)
    bound = soft_error_bound(error, beta)
    if bound.shape != problem.shape[:2]:
        _validate.fail("error", f"must have shape {problem.shape}, got {np.shape(error)}")
    return float(np.sum(occupancy(problem, log_policy).sum(axis=-1) * bound))


def learned_reward_bounds(
    log_expert: Any, log_ref: Any, error: Any, beta: Any, learner_gap: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Two bounds on ``V(E) - V(pi)`` of a policy that was trained on a learned reward, over outcomes ``(..., A)``.

    With ``g = error - E_ref[error]`` and pi within ``learner_gap`` of the optimum of the learned reward at ``beta``,

    .. math:: V(E) - V(\pi) \le \epsilon + \beta KL(E\|ref) - E_E[g] + \beta\log E_{ref} e^{g/\beta}
              \le \epsilon + 2\beta KL(E\|ref) + \beta\log E_{ref} e^{g/\beta} + \beta\log E_{ref} e^{-g/\beta}.

    For small ``g/beta`` the two log-moments add up to ``Var_ref(g)/beta``.

    Args:
        error: learned minus true reward. beta: > 0. learner_gap: >= 0.

    Raises:
        ValueError: shapes, not distributions, an expert outside the reference's support.
    """
    expert, ref, wrong, coefficient, short = _validate.numpy_arrays(
        log_expert=log_expert, log_ref=log_ref, error=error, beta=beta, learner_gap=learner_gap
    )
    _validate.budgets("learner_gap", np, short)
    _validate.same_last_axis(log_expert=expert, log_ref=ref, error=wrong)
    distance = kl(expert, ref)  # checks the two laws
    index = _validate.first_true(np, ~np.isfinite(np.asarray(distance)))
    if index is not None:
        _validate.fail("log_expert", "has mass where log_ref has none", index=index)
    g = wrong - np.asarray(expectation(ref, wrong))[..., None]
    up, down = (coefficient * log_partition(ref, sign * g, coefficient) for sign in (1.0, -1.0))
    first = short + coefficient * distance - expectation(expert, g) + up
    return np.asarray(first), np.asarray(short + 2 * coefficient * distance + up + down)
