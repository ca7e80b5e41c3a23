r"""Several constraints at once: their multipliers, and a gap that certifies the optimum.

.. math:: \max_\pi\; E_\pi[r] - \beta\, KL(\pi\|ref) \quad\text{s.t.}\quad
    E_\pi[c_i] \le b_i, \qquad KL(\pi\|p_j) \le \kappa_j .

With multipliers ``mu_i, nu_j >= 0`` and ``B = beta + sum nu`` the Lagrangian's best policy is a tilt of a geometric
pool, ``pi ∝ exp(z/B)``, ``z = r - sum mu_i c_i + beta log ref + sum nu_j log p_j``, and the dual function is

.. math:: g(\mu, \nu) = B \log\sum_a e^{z_a/B} + \mu\cdot b + \nu\cdot\kappa ,

convex, with the slacks of the constraints at ``pi`` as its gradient and ``Cov_pi(d)/B`` as its Hessian (``d_i = -c_i``,
``d_j = log p_j/pi``). Any policy that meets the constraints has at most ``g``, for any multipliers: with the policy
of the same multipliers the gap is ``sum multiplier · slack``.

Newton's method follows ``g - tau sum log(multipliers)`` as tau falls. On that path every slack is ``tau/multiplier``:
the policy is strictly feasible and the gap is ``tau`` a constraint. A last Newton iteration makes the slacks of the
active ones 0, where rounding (of size 1e-16 span/beta) allows. Constraints that no policy meets are found out by
multipliers under which every policy is over (``min_pi sum multiplier · excess > 0``, in closed form), which is a
proof.

Source: Lagrange duality (Boyd and Vandenberghe, Convex Optimization, ch. 5 and 11); the pool is derived here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.distributions import log_normalize
from klsim.divergences import kl

__all__ = ["ConstrainedOptimum", "constrained"]

_LAST_TAU = 1e-13  # in units of the reward's span: the gap a constraint before the last Newton iteration
_NEAR = 1e-3  # from which on the last Newton iteration is tried
_SMALLEST_BETA = 1e-12  # in the same units


@dataclass(frozen=True, repr=False)
class ConstrainedOptimum(Shown):
    """A policy under constraints, its multipliers and its certificate.

    Attributes:
        log_policy: ``(A,)``.
        value: ``E[r] - beta KL(pi‖ref)`` of this policy, reward units.
        gap: no policy that meets the constraints has more than ``value + gap``; reward units.
        reward: ``E[r]``. kl: ``KL(pi‖ref)``, nats.
        costs: ``E[c_i]``, ``(k,)``. divergences: ``KL(pi‖p_j)`` in nats, ``(m,)``.
        cost_multipliers: ``-d value / d b_i``'s size: reward units per unit of cost, ``(k,)``; 0 where slack.
        budget_multipliers: reward units per nat, ``(m,)``.
        violation: the largest excess over a bound, in spans of its cost or in nats: rounding, or 0.
        converged: whether gap and violation are at rounding level.
    """

    log_policy: np.ndarray
    value: float
    gap: float
    reward: float
    kl: float
    costs: np.ndarray
    divergences: np.ndarray
    cost_multipliers: np.ndarray
    budget_multipliers: np.ndarray
    violation: float
    converged: bool


@dataclass(frozen=True)
class _Problem:
    """On the common support; rewards in units of their span (or of beta), costs in units of theirs."""

    reward: np.ndarray
    log_ref: np.ndarray
    beta: float
    costs: np.ndarray
    log_refs: np.ndarray
    limits: np.ndarray  # bounds, then budgets


@dataclass(frozen=True)
class _Point:
    """What multipliers give: the policy, the dual value, its gradient (the slacks) and its Hessian."""

    multipliers: np.ndarray
    log_policy: np.ndarray
    value: float
    slack: np.ndarray
    hessian: np.ndarray


def _at(problem: _Problem, y: np.ndarray, beta: float) -> _Point:
    k = len(problem.costs)
    temperature = beta + y[k:].sum()
    z = problem.reward - y[:k] @ problem.costs + beta * problem.log_ref + y[k:] @ problem.log_refs
    top = z.max()
    with np.errstate(over="ignore", under="ignore"):
        drop = (z - top) / temperature
        log_sum = np.log(np.exp(drop).sum())
    log_policy = np.maximum(drop - log_sum, -1e300)
    pi = np.exp(log_policy)
    moves = np.concatenate([-problem.costs, problem.log_refs - log_policy])
    with np.errstate(over="ignore", under="ignore"):
        mean = moves @ pi
        centred = moves - mean[:, None]
        hessian = (centred * pi) @ centred.T / temperature
    value = float(top + temperature * log_sum + y @ problem.limits)
    return _Point(y, log_policy, value, problem.limits + mean, hessian)


def _least_excess(problem: _Problem, weights: np.ndarray) -> float:
    """``min_pi`` of the weighted excess over the limits: above 0 no policy meets them."""
    k = len(problem.costs)
    z = weights[k:] @ problem.log_refs - weights[:k] @ problem.costs
    total, top = weights[k:].sum(), z.max()
    soft = total * np.log(np.exp((z - top) / total).sum()) if total > 0 else 0.0
    return float(-top - soft - weights @ problem.limits)


def _refuse_infeasible(problem: _Problem, y: np.ndarray) -> None:
    weights = y / y.sum()
    excess = _least_excess(problem, weights)
    size = 1.0 + np.abs(problem.limits).max() + np.abs(problem.costs).max(initial=0.0)
    if excess > 1e-12 * size:
        shown = ", ".join(f"{w:.3g}" for w in weights)
        _validate.fail(
            "bounds and budgets",
            "no policy meets all of them: weighted by "
            f"({shown}) every policy is {excess:.3g} over (costs in units of their spans)",
        )


def _centre(problem: _Problem, y: np.ndarray, beta: float, tau: float, steps: int = 200) -> _Point | None:
    """The minimum of ``g - tau sum log y``: multiplier · slack = tau, to a tenth; None where rounding prevents it."""
    point = _at(problem, y, beta)
    for _ in range(steps):
        y = point.multipliers
        off = np.abs(point.slack * y - tau).max()
        if off <= 0.1 * tau:
            return point
        _refuse_infeasible(problem, y)
        gradient = point.slack - tau / y
        scaled = y[:, None] * point.hessian * y[None] + tau * np.eye(len(y))  # of log y, which balances sizes
        step = -y * np.linalg.solve(scaled, y * gradient)
        slope = float(step @ gradient)
        shrinking = step < 0
        length = min(1.0, 0.9 * float(np.min(y[shrinking] / -step[shrinking], initial=np.inf)))
        merit = point.value - tau * np.log(y).sum()
        for _ in range(60):
            new = _at(problem, y + length * step, beta)
            gain = merit - (new.value - tau * np.log(new.multipliers).sum())
            if gain >= -0.1 * length * slope or np.abs(new.slack * new.multipliers - tau).max() < 0.9 * off:
                break
            length *= 0.5
        else:
            return None
        point = new
    return None


def _polished(problem: _Problem, point: _Point) -> _Point | None:
    """Slacks of the active constraints made 0 by Newton's method, the other multipliers 0."""
    active = point.multipliers > point.slack
    y = np.where(active, point.multipliers, 0.0)
    if problem.beta + y[len(problem.costs) :].sum() <= 0:
        return None
    for _ in range(30):
        new = _at(problem, y, problem.beta)
        if not active.any():
            return new
        inner = new.hessian[np.ix_(active, active)]
        try:
            step = np.linalg.solve(inner, -new.slack[active])
        except np.linalg.LinAlgError:
            return None
        y = y.copy()
        y[active] += step
        if not np.all(np.isfinite(y)) or np.any(y[active] <= 0):
            return None
        if np.all(np.abs(step) <= 4e-16 * y[active]):
            break
    return _at(problem, y, problem.beta)


def _quality(problem: _Problem, point: _Point, beta: float) -> tuple[float, float]:
    """``(gap, violation)`` in the problem's units, of a point that was found at this ``beta``."""
    gap = float(np.abs(point.multipliers * point.slack).sum())
    if beta != problem.beta:
        pi = np.exp(point.log_policy)
        primal = pi @ problem.reward - problem.beta * pi @ (point.log_policy - problem.log_ref)
        gap = max(gap, _at(problem, point.multipliers, problem.beta).value - float(primal))
    return gap, max(0.0, float(-point.slack.min()))


def _solve(problem: _Problem) -> tuple[_Point, float, float]:
    """``(point, gap, violation)``."""
    y, tau, step = np.ones(len(problem.limits)), 1.0, 0.2
    found, quality = None, (np.inf, np.inf)
    while tau >= _LAST_TAU and step < 0.9:
        beta = problem.beta if len(problem.log_refs) else max(problem.beta, tau)
        centred = _centre(problem, y, beta, tau)
        if centred is None:  # too far, or rounding: shorter steps
            if found is None:
                break
            tau, step = tau / step * step**0.5, step**0.5
            continue
        found, quality = centred, _quality(problem, centred, beta)
        polished = _polished(problem, centred) if tau <= _NEAR else None
        if polished is not None and max(better := _quality(problem, polished, problem.beta)) <= 1e-13:
            return polished, *better
        y, tau = centred.multipliers, step * tau
    if found is None:
        _validate.fail(
            "bounds and budgets", "no policy meets all of them strictly: at their very edge multipliers are infinite"
        )
    assert found is not None
    return found, *quality


def _linear(costs: Any, bounds: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Costs ``(k, A)`` and bounds ``(k,)``."""
    given, limits = _validate.numpy_arrays(costs=costs, bounds=bounds)
    given, limits = np.asarray(given, dtype=np.float64), np.asarray(limits, dtype=np.float64)
    if given.size == 0 and limits.size == 0:
        return np.zeros((0, size)), np.zeros(0)
    if given.ndim != 2 or given.shape[1] != size:
        _validate.fail("costs", f"must have shape (k, {size}), got {given.shape}")
    if limits.shape != given.shape[:1]:
        _validate.fail("bounds", f"must have shape ({len(given)},), one a cost, got {limits.shape}")
    return _validate.finite("costs", np, given), _validate.finite("bounds", np, limits)


def _budgeted(references: Any, budgets: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """References ``(m, A)`` and budgets ``(m,)``."""
    laws = _validate.sequence("references", references)
    (limits,) = _validate.numpy_arrays(budgets=budgets)
    limits = np.asarray(limits, dtype=np.float64)
    if limits.shape != (len(laws),):
        _validate.fail("budgets", f"must have shape ({len(laws)},), one a reference, got {limits.shape}")
    _validate.positive("budgets", np, limits)
    rows = np.zeros((len(laws), size))
    for j, law in enumerate(laws):
        (row,) = _validate.numpy_arrays(**{f"references[{j}]": law})
        if row.shape != (size,):
            _validate.fail(f"references[{j}]", f"must have shape ({size},), got {row.shape}")
        rows[j] = log_normalize(_validate.log_probs(f"references[{j}]", np, row))
    return rows, limits


def _bandit(log_ref: Any, reward: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and finite rewards, both ``(A,)``."""
    log_ref, reward = _validate.numpy_arrays(log_ref=log_ref, reward=reward)
    _validate.log_probs("log_ref", np, log_ref)
    if log_ref.ndim != 1 or reward.shape != log_ref.shape:
        _validate.fail("reward", f"must be a vector of the size of log_ref, got {reward.shape} and {log_ref.shape}")
    return log_ref, _validate.finite("reward", np, reward)


def constrained(
    log_ref: Any,
    reward: Any,
    beta: float,
    *,
    costs: Any = (),
    bounds: Any = (),
    references: Sequence[Any] = (),
    budgets: Any = (),
) -> ConstrainedOptimum:
    r"""``max_pi E_pi[r] - beta KL(pi‖ref)`` with ``E_pi[c_i] <= b_i`` and ``KL(pi‖p_j) <= kappa_j``.

    Args:
        log_ref: ``(A,)``. reward: ``(A,)``, finite.
        beta: at least 1e-12 of the reward's span; 0 is allowed where there are budgets.
        costs: ``(k, A)``. bounds: ``(k,)``, in the units of the costs.
        references: m log-probabilities ``(A,)``; policies live where they all and ``ref`` do. budgets: ``(m,)`` nats,
            > 0.

    Raises:
        ValueError: shapes; numbers that are not finite; supports that do not meet; a beta that is too small;
            constraints that no policy meets (with the weights that prove it), or none strictly.
    """
    log_ref, reward = _bandit(log_ref, reward)
    beta = _validate.real("beta", beta, low=0.0, open_high=True)
    size = len(log_ref)
    (cost, bound), (laws, budget) = _linear(costs, bounds, size), _budgeted(references, budgets, size)
    if beta == 0 and not len(laws):
        _validate.fail("beta", "must be > 0 where no reference has a budget (it is a linear programme)", beta)
    inside = np.isfinite(log_ref) & np.isfinite(laws).all(axis=0)
    if not inside.any():
        _validate.fail("references", "have supports that do not meet that of log_ref")
    r = np.asarray(reward[inside], dtype=np.float64)
    span = float(r.max() - r.min())
    unit = max(span, beta) or 1.0
    if not np.isfinite(unit):
        _validate.fail("reward", "spans more than a float holds")
    if not len(laws) and beta < _SMALLEST_BETA * unit:
        _validate.fail("beta", f"must be at least {_SMALLEST_BETA:g} of the reward's span {span:g}", beta)
    c, spans, low = _normalised(cost[:, inside])
    index = _validate.first_true(np, (spans == 0) & (low > bound))
    if index is not None:
        _validate.fail("bounds", f"no policy meets it: the cost is {low[index]:g} everywhere", bound[index], index)
    counted = np.flatnonzero(spans > 0)
    limits = np.concatenate([(bound - low)[counted] / spans[counted], budget])
    reference = np.asarray(log_ref[inside], dtype=np.float64)
    problem = _Problem((r - r.max()) / unit, reference, beta / unit, c[counted], laws[:, inside], limits)
    _validate.representable("bounds", np, limits)
    point, gap, violation = _solve(problem) if len(limits) else (_at(problem, np.zeros(0), problem.beta), 0.0, 0.0)
    log_policy = np.full(size, -np.inf)
    log_policy[inside] = log_normalize(point.log_policy)
    multipliers = np.zeros(len(cost))
    multipliers[counted] = unit * point.multipliers[: len(counted)] / spans[counted]
    pi = np.exp(log_policy)
    expected, divergence = float(pi[inside] @ r), float(kl(log_policy, log_ref))
    return ConstrainedOptimum(
        log_policy, expected - beta * divergence, unit * gap, expected, divergence, cost @ pi,
        np.array([float(kl(log_policy, law)) for law in laws]), multipliers,
        unit * point.multipliers[len(counted) :], violation, gap <= 1e-11 and violation <= 1e-12,
    )  # fmt: skip


def _normalised(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs from 0 to 1, their spans and their least values."""
    if not len(costs):
        return costs, np.zeros(0), np.zeros(0)
    low, spans = costs.min(axis=1), np.ptp(costs, axis=1)
    _validate.representable("costs", np, spans)
    return (costs - low[:, None]) / np.where(spans > 0, spans, 1.0)[:, None], spans, low
