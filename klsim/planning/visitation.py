r"""Problems over visitations and their duals: offline RL, imitation, and their unconstrained forms.

The visitation of a policy, ``d = (1 - gamma) sum_t gamma^t P(s_t, a_t)``, is linear in the flow
``sum_a d(s, a) = (1 - gamma) d0(s) + gamma sum d(s', a') P(s|s', a')``. Regularised by an f-divergence to a given
distribution ``D``, its best value is a minimum over multipliers without constraints:

.. math:: \max_{d \ge 0} \langle d, r\rangle - \alpha D_f(d\|D)
          = \min_V (1-\gamma) E_{d_0}[V] + \alpha E_D\big[f^*\big((r + \gamma P V - V)/\alpha\big)\big]

(dual-V; flow of states), and the same with ``Q`` and ``V = E_pi[Q]`` evaluates a given policy (dual-Q). A solution
carries the duality gap of an exactly feasible visitation. Source: ``dual-rl``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.divergences import Generator, as_generator, f_divergence
from klsim.planning.chains import inflow
from klsim.planning.evaluation import occupancy, policy_of
from klsim.problems import DiscountedMDP

__all__ = ["VisitationOptimum", "flow_gap", "match_visitation", "policy_dual", "visitation_optimum", "visitation_value"]


@dataclass(frozen=True)
class VisitationOptimum:
    """Solution of a visitation problem.

    Attributes:
        value: of the dual, an upper bound of the primal.
        multiplier: V ``(S,)`` or Q ``(S, A)`` at the minimum.
        visitation: ``D max(lower, f'^{-1}(y/alpha))``, feasible up to the precision of the minimum, ``(S, A)``.
        log_policy: its conditionals ``(S, A)``; uniform at states that it does not visit.
        gap: ``value`` minus the primal objective of the visitation of ``log_policy``, which is feasible; for an
            evaluated policy, minus the objective of that policy.
    """

    value: float
    multiplier: np.ndarray
    visitation: np.ndarray
    log_policy: np.ndarray
    gap: float


def flow_gap(problem: DiscountedMDP, visitation: Any) -> np.ndarray:
    """``sum_a d(s, a) - (1 - gamma) d0(s) - gamma sum d P``: 0 for a visitation, ``(S,)``."""
    d = _table("visitation", visitation, problem)
    arriving = inflow(problem.transition, d)
    return np.asarray(d.sum(axis=1) - (1 - problem.discount) * problem.initial - problem.discount * arriving)


def _table(name: str, value: Any, problem: DiscountedMDP) -> np.ndarray:
    _validate.instance("problem", problem, DiscountedMDP)
    (table,) = _validate.numpy_arrays(**{name: value})
    if table.shape != problem.shape:
        _validate.fail(name, f"must have shape {problem.shape}, got {table.shape}")
    return np.asarray(_validate.finite(name, np, table))


def _law(name: str, value: Any, problem: DiscountedMDP) -> np.ndarray:
    """A distribution over state-action pairs."""
    table = _table(name, value, problem)
    _validate.budgets(name, np, table)
    if abs(table.sum() - 1) > 1e-8:
        _validate.fail(name, f"must sum to 1, sums to {table.sum():.12g}")
    return table


def _log(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p))


def _smooth(generator: Generator | str) -> Generator:
    generator = as_generator(generator)
    if generator.name == "tv":
        _validate.fail("generator", "the conjugate of TV is not differentiable; use a strictly convex generator")
    return generator


def visitation_value(
    problem: DiscountedMDP, log_policy: Any, data: Any, alpha: float, generator: Generator | str = "kl"
) -> float:
    """``E_{d^pi}[r] - alpha D_f(d^pi‖D)`` of a policy ``(S, A)``; ``-inf`` where it leaves D and f forbids that."""
    d, data = occupancy(problem, log_policy), _law("data", data, problem)
    spent = f_divergence(_log(d).ravel(), _log(data).ravel(), as_generator(generator))
    return float(np.sum(d * problem.reward) - _validate.real("alpha", alpha, low=0.0) * spent)


def _minimise(
    linear: np.ndarray,
    matrix: np.ndarray,
    offset: np.ndarray,
    weights: np.ndarray,
    tilt: np.ndarray,
    generator: Generator,
    lower: np.ndarray,
) -> tuple[float, np.ndarray, np.ndarray]:
    """``min_x linear.x + sum weights f*(y; lower) - tilt.y`` with ``y = offset + matrix x``: ``(value, x, ratio)``.

    Convex: damped Newton steps; BFGS if they stall before the gradient is at rounding level.
    """
    from scipy.optimize import minimize

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        y = offset + matrix @ x
        if not np.isfinite(y).all():
            return np.inf, np.zeros(matrix.shape[1])
        ratio = np.maximum(generator.inverse_derivative(y), lower)
        value = float(linear @ x + weights @ (ratio * y - generator.value(ratio)) - tilt @ y)
        if not np.isfinite(value):
            return np.inf, np.zeros(matrix.shape[1])
        return value, linear + matrix.T @ (weights * ratio - tilt)

    with np.errstate(all="ignore"):
        # constants shift y down by -(row sum) of the flow matrix: a start at which every conjugate is finite
        start = x = np.full(matrix.shape[1], float(np.max(offset)) / float(-matrix[0].sum()))
        for _ in range(100):
            if np.abs(objective(x)[1]).max() < 1e-15:  # rounding of sums of weights
                break
            moved = _newton_step(objective, x, matrix, offset, weights, generator, lower)
            if moved is None:
                break
            x = moved
        if np.abs(objective(x)[1]).max() > 1e-11:
            options = {"gtol": 1e-12, "maxiter": 5000}
            tried = [minimize(objective, at, jac=True, method="BFGS", options=options).x for at in (start, x)]
            x = min((x, *tried), key=lambda at: objective(at)[0])
        value, _ = objective(x)
        y = offset + matrix @ x
    if not np.isfinite(value):  # of rewards that are too large
        return value, x, np.full(len(offset), np.inf)
    return value, x, np.maximum(generator.inverse_derivative(y), lower)


def _newton_step(
    objective: Any,
    x: np.ndarray,
    matrix: np.ndarray,
    offset: np.ndarray,
    weights: np.ndarray,
    generator: Generator,
    lower: np.ndarray,
) -> np.ndarray | None:
    """One Newton step, damped (Levenberg) until the value falls or, near the minimum, the gradient; else None."""
    value, gradient = objective(x)
    y = offset + matrix @ x
    h = 1e-6 * (1 + np.abs(y))
    slope = (generator.inverse_derivative(y + h) - generator.inverse_derivative(y - h)) / (2 * h)
    slope = np.where(generator.inverse_derivative(y) > lower, np.nan_to_num(slope, posinf=0.0), 0.0)
    hessian = matrix.T @ ((weights * slope)[:, None] * matrix)
    size = float(np.linalg.norm(gradient))
    for damping in (0.0, *10.0 ** np.arange(-12.0, 6.0)):
        step, *_ = np.linalg.lstsq(hessian + damping * np.eye(len(x)), gradient, rcond=1e-14)
        new_value, new_gradient = objective(x - step)
        falls = new_value < value - 1e-4 * float(gradient @ step)
        if np.isfinite(new_value) and (falls or np.linalg.norm(new_gradient) < 0.5 * size):
            return np.asarray(x - step)
    return None


def _state_flow(problem: DiscountedMDP) -> np.ndarray:
    """The matrix of ``V -> gamma P V - V``, ``(SA, S)``."""
    states, actions = problem.shape
    own = np.repeat(np.eye(states), actions, axis=0)
    return problem.discount * problem.dense().transition.reshape(states * actions, states) - own


def _conditionals(visitation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-policy of a table of masses (uniform at empty states), and which states are empty."""
    kept = np.maximum(visitation, 0.0)
    empty = kept.sum(axis=1) <= 1e-12 * kept.sum()
    return np.asarray(log_normalize(_log(np.where(empty[:, None], 1.0, kept)))), empty


def visitation_optimum(
    problem: DiscountedMDP, data: Any, alpha: float, generator: Generator | str = "kl"
) -> VisitationOptimum:
    r"""``max_d <d, r> - alpha D_f(d‖D)`` over visitations of ``problem``, by dual-V.

    Args:
        data: D, a distribution over pairs ``(S, A)``, zeros allowed: the optimum stays inside its support. Some
            visitation must be inside it too, else the dual is unbounded. alpha: > 0.

    Raises:
        ValueError: shapes, negative or unnormalised ``data``, a generator without a derivative (TV), no feasible
            visitation.

    Source: ``dual-rl`` C1.
    """
    data = _law("data", data, problem)
    alpha = _validate.real("alpha", alpha, low=0.0, high=np.finfo(float).max, open_low=True)
    generator = _smooth(generator)
    zero = np.zeros(data.size)
    linear = (1 - problem.discount) * problem.initial
    flow = _state_flow(problem)
    value, x, ratio = _minimise(linear, flow, problem.reward.ravel() / alpha, data.ravel(), zero, generator, zero)
    _require_finite(alpha, ratio)
    visitation = np.where(data > 0, data * ratio.reshape(data.shape), 0.0)
    _require_flow(problem, visitation)
    log_policy, _ = _conditionals(visitation)
    gap = alpha * value - visitation_value(problem, log_policy, data, alpha, generator)
    return VisitationOptimum(alpha * value, alpha * x, visitation, log_policy, float(gap))


def _require_finite(alpha: float, ratio: np.ndarray) -> None:
    if not np.isfinite(ratio).all():
        _validate.fail("alpha", "the ratios of the optimum overflow: rewards are too large for it", alpha)


def _require_flow(problem: DiscountedMDP, visitation: np.ndarray) -> None:
    left = np.abs(flow_gap(problem, visitation)).max()
    if not left < 1e-5:
        _validate.fail("data", f"no visitation of the problem lies on its support (flow gap {left:.2g})")


def policy_dual(
    problem: DiscountedMDP, log_policy: Any, data: Any, alpha: float, generator: Generator | str = "kl"
) -> VisitationOptimum:
    r"""``min_Q (1-gamma) E_{d0,pi}[Q] + alpha E_D[f*((r + gamma P E_pi Q - Q)/alpha)]``: dual-Q.

    It evaluates a policy: its value is ``E_{d^pi}[r] - alpha D_f(d^pi‖D)``, the ratio at the minimiser ``d^pi/D``.

    Raises:
        ValueError: as `visitation_optimum`; D misses a pair that the policy visits.

    Source: ``dual-rl`` C2.
    """
    data = _law("data", data, problem)
    alpha = _validate.real("alpha", alpha, low=0.0, high=np.finfo(float).max, open_low=True)
    generator = _smooth(generator)
    visited = occupancy(problem, log_policy)
    index = _validate.first_true(np, (visited > 0) & (data == 0))
    if index is not None:
        _validate.fail("data", "has no mass where the policy goes", 0.0, index)
    policy = policy_of(problem, log_policy)
    states, actions = problem.shape
    step = np.einsum("sat,tb->satb", problem.dense().transition, np.exp(policy)).reshape(data.size, data.size)
    linear = (1 - problem.discount) * (problem.initial[:, None] * np.exp(policy)).ravel()
    zero = np.zeros(data.size)
    value, x, ratio = _minimise(
        linear, problem.discount * step - np.eye(data.size), problem.reward.ravel() / alpha, data.ravel(), zero,
        generator, zero,
    )  # fmt: skip
    _require_finite(alpha, ratio)
    gap = alpha * value - visitation_value(problem, policy, data, alpha, generator)
    table = (data.ravel() * ratio).reshape(states, actions)
    return VisitationOptimum(alpha * value, alpha * x.reshape(states, actions), table, policy, float(gap))


def match_visitation(
    problem: DiscountedMDP,
    expert: Any,
    other: Any,
    share: float,
    generator: Generator | str = "chi2",
    *,
    clip_at_zero: bool = False,
) -> VisitationOptimum:
    r"""``max_d -D_f(m d + (1-m) d_S ‖ m d_E + (1-m) d_S)``: imitation by mixtures (ReCOIL-V), rewards ignored.

    No coverage of the expert by ``other`` is needed, and no discriminator. The dual is
    ``min_V m (1-gamma) E_d0[V] + E_mix[sup_{w >= w_min}(w y - f(w))] - (1-m) E_S[y]``, ``y = gamma P V - V``, with
    ``w_min = (1-m) d_S / d_mix``, which is what ``d >= 0`` means.

    Args:
        expert, other: d_E and d_S, distributions over pairs ``(S, A)``; the mixture must have full support.
        share: m in (0, 1]. clip_at_zero: ``w_min = 0``, the dual of a relaxation (d may be negative).

    Raises:
        ValueError: as `visitation_optimum`; a pair that neither has.

    Source: ``dual-rl`` C5, C6.
    """
    expert, other = _law("expert", expert, problem), _law("other", other, problem)
    share = _validate.real("share", share, low=0.0, high=1.0, open_low=True)
    generator = _smooth(generator)
    mixed = share * expert + (1 - share) * other
    index = _validate.first_true(np, mixed == 0)
    if index is not None:
        _validate.fail("other", "neither data set has this pair", 0.0, index)
    floor = np.zeros(mixed.size) if clip_at_zero else np.minimum(((1 - share) * other / mixed).ravel(), 1.0)
    value, x, ratio = _minimise(
        share * (1 - problem.discount) * problem.initial, _state_flow(problem), np.zeros(mixed.size), mixed.ravel(),
        (1 - share) * other.ravel(), generator, floor,
    )  # fmt: skip
    visitation = (mixed * ratio.reshape(mixed.shape) - (1 - share) * other) / share
    log_policy, _ = _conditionals(visitation)
    reached = share * occupancy(problem, log_policy) + (1 - share) * other
    gap = value + float(f_divergence(_log(reached).ravel(), _log(mixed).ravel(), generator))
    return VisitationOptimum(value, x, visitation, log_policy, gap)
