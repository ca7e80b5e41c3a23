r"""Optima under Tsallis and Rényi divergences, and under entropy beside KL.

*Tsallis* of order q: ``T_q(pi‖ref) = (E_ref[t^q] - 1)/(q - 1)``, ``t = pi/ref``: q times the alpha-divergence of
order q. Its optimum is ``t = ((q-1)(r - lam)_+/(beta q))^{1/(q-1)}``, with the lam that normalises it: for ``q > 1``
it drops every response with a reward below lam. The Tsallis entropy ``S_q(pi) = (1 - sum pi^q)/(q - 1)`` is the case
of a uniform reference (sparsemax at q = 2, entmax).

*Rényi* of order a: ``D_a = log E_ref[t^a]/(a - 1)`` is no f-divergence: its slope depends on the whole policy. Where it
is stationary, ``E_pi[r] - lam = beta a/(a-1)``, so that

.. math:: \pi \propto ref\,(r-\lambda)_+^{1/(a-1)} \;(a > 1), \qquad \pi \propto ref\,(\lambda-r)^{-1/(1-a)} \;(a < 1),

the Tsallis family with another lam. For ``a <= 1`` the divergence is convex, ``lam - E_pi[r]`` rises with lam at a
slope of at least 1 (Cauchy-Schwarz) and one root is the optimum. For ``a > 1`` the objective is not concave and may
have several local optima. With ``-log S = max_w { 1 - S e^{-w} - w }`` it is ``max_w G(w)``,

.. math:: G(w) = F(e^{-(a-1)w}) + \beta\,\frac{1 - e^{-(a-1)w}}{a-1} - \beta w, \qquad
    F(c) = \max_\pi E_\pi[r] - \beta c\, T_a(\pi\|ref),

F convex in c: on an interval it is at most its chord, which bounds G. Branch and bound over w (the divergence,
between 0 and ``-log ref(argmax r)``), whose nodes are policies of the family, closes the gap, then stationarity is
solved. For ``a = inf`` the optimum is the reference above a threshold: between thresholds the objective, by mass m,
falls and then rises.

Sources: Martins and Astudillo (2016), arXiv:1602.02068 (sparsemax); Peters, Niculae and Martins (2019),
arXiv:1905.05702 (entmax); van Erven and Harremoës (2014), arXiv:1206.2459 (convexity of Rényi divergences); the rest
is derived here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq

from klsim import _validate
from klsim._sums import quiet
from klsim.distributions import log_normalize, log_sum_exp
from klsim.divergences import Alpha, f_divergence, kl, renyi
from klsim.optima import Optimum, f_regularized, kl_regularized

__all__ = ["entmax", "kl_and_entropy_regularized", "renyi_regularized", "tsallis", "tsallis_regularized"]

Array = Any
_LARGEST_ORDER = 1e3
_LARGEST_LOG = 600.0  # of a number of outcomes to the power of the order
_PARTS = 8  # of an interval that is refined


def _order(order: Any, high: float = _LARGEST_ORDER) -> float:
    return _validate.real("order", order, low=0.0, high=high, open_low=True)


@_validate.widened
def tsallis(log_p: Array, log_q: Array, order: float) -> Array:
    """``T_order(p‖q) = (sum p^order q^(1-order) - 1)/(order - 1)``; order 1 is KL. ``(..., A), (..., A) -> (...)``.

    Raises:
        ValueError: ``order`` not in (0, 1000]; otherwise as `klsim.divergences.f_divergence`.
    """
    order = _order(order)
    return kl(log_p, log_q) if order == 1 else order * f_divergence(log_p, log_q, Alpha(order))


@_validate.widened
def tsallis_regularized(log_ref: Array, reward: Array, beta: Array, order: float) -> Optimum:
    """``max_pi E_pi[r] - beta T_order(pi‖ref)``: `klsim.optima.f_regularized` by ``order · Alpha(order)``.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``. beta: > 0, scalar or batch. order: in (0, 1000]; 1 is KL.

    Raises:
        ValueError: ``order`` outside; otherwise as `klsim.optima.f_regularized`.
    """
    order = _order(order)
    if order == 1:
        return kl_regularized(log_ref, reward, beta)
    xp, log_ref, reward, beta = _validate.arrays(log_ref=log_ref, reward=reward, beta=beta)
    _validate.positive("beta", xp, beta)
    found = f_regularized(log_ref, reward, order * beta, Alpha(order))
    return dataclasses.replace(found, beta=found.beta / order)


@_validate.widened
def entmax(reward: Array, eta: Array, order: float) -> Optimum:
    """``max_pi E_pi[r] + eta S_order(pi)``, ``S = (1 - sum pi^order)/(order - 1)``: sparsemax at 2, softmax at 1.

    Args:
        reward: ``(..., A)``. eta: > 0, scalar or batch. order: in (0, 1000].

    Returns:
        An `Optimum` whose ``beta`` is ``eta`` and whose ``kl`` is that to the uniform policy.

    Raises:
        ValueError: ``order`` outside, or ``A^(1 - order)`` beyond a float; otherwise as `tsallis_regularized`.
    """
    order = _order(order)
    xp, reward, eta = _validate.arrays(reward=reward, eta=eta)
    if reward.ndim == 0 or reward.shape[-1] == 0:
        _validate.fail("reward", f"needs a non-empty last axis of outcomes, got shape {tuple(reward.shape)}")
    _validate.positive("eta", xp, eta)
    log_count = float(np.log(reward.shape[-1]))
    if abs(order - 1) * log_count > _LARGEST_LOG:
        _validate.fail("order", f"is too large for {reward.shape[-1]} outcomes", order)
    scale = float(np.exp((1 - order) * log_count))
    found = tsallis_regularized(xp.zeros_like(reward) - log_count, reward, eta * scale, order)
    uniform = log_count if order == 1 else float(np.expm1((1 - order) * log_count) / (1 - order))
    coefficient = found.beta / scale
    return dataclasses.replace(found, value=found.value + coefficient * uniform, beta=coefficient)


@_validate.widened
@quiet
def kl_and_entropy_regularized(log_ref: Array, reward: Array, beta: Array, eta: Array) -> Optimum:
    r"""``max_pi E_pi[r] - beta KL(pi‖ref) + eta H(pi)``: the tilt by ``beta + eta`` of ``ref^{beta/(beta+eta)}/Z``.

    Its value is ``(beta + eta) log sum ref^{beta/(beta+eta)} e^{r/(beta+eta)}``. On token trees KL and entropy both
    add up along the tokens: regularising tokens or sequences is the same, and the reference is tempered as a law of
    sequences.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``. beta: > 0. eta: >= 0; scalars or batches.

    Returns:
        An `Optimum` whose ``kl`` is that to ``ref`` and whose ``beta`` is the sum, the temperature of the tilt.

    Raises:
        ValueError: ``beta <= 0``, ``eta < 0``; otherwise as `klsim.optima.kl_regularized`.
    """
    xp, log_ref, reward, beta, eta = _validate.arrays(log_ref=log_ref, reward=reward, beta=beta, eta=eta)
    _validate.log_probs("log_ref", xp, log_ref)
    _validate.positive("beta", xp, beta)
    _validate.finite("eta", xp, _validate.budgets("eta", xp, eta))
    _validate.broadcast(log_ref=log_ref[..., 0], beta=beta, eta=eta)
    total = beta + eta
    _validate.representable("eta", xp, total)
    powered = (beta / total)[..., None] * log_ref
    found = kl_regularized(log_normalize(powered), reward, total)
    value = found.value + total * log_sum_exp(powered)
    return dataclasses.replace(found, value=value, kl=kl(found.log_policy, log_ref))


def renyi_regularized(log_ref: Any, reward: Any, beta: float, order: float) -> Optimum:
    """``max_{pi << ref} E_pi[r] - beta D_order(pi‖ref)``, Rényi's divergence, with a gap that holds globally.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``. beta: > 0, one number. order: in (0, 1000], or inf; 1 is KL.

    Returns:
        An `Optimum` (NumPy). ``gap`` bounds what *any* policy could gain, also where there are local optima. Of
        several optima it is one; for order inf the one that moves least.

    Raises:
        ValueError: shapes, ``beta <= 0``, a reward that is not finite, ``order`` outside.
    """
    order = _order(order, np.inf)
    if order != np.inf:
        _order(order)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    log_ref, reward = _validate.numpy_arrays(log_ref=log_ref, reward=reward)
    _validate.log_probs("log_ref", np, log_ref)
    _validate.same_last_axis(log_ref=log_ref, reward=reward)
    _validate.finite("reward", np, reward)
    if order == 1:
        return kl_regularized(log_ref, reward, beta)
    law, r = (np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(log_ref, reward))
    law = log_normalize(law)
    solve = _largest if order == np.inf else _above if order > 1 else _below
    rows = [_row(solve, *pair, beta, order) for pair in zip(law.reshape(-1, r.shape[-1]), r.reshape(-1, r.shape[-1]))]
    policies = np.array([policy for policy, *_ in rows]).reshape(r.shape)
    value, expected, divergence, gap = (np.array(x).reshape(r.shape[:-1]) for x in list(zip(*rows))[1:])
    fine = bool(np.all(gap <= 1e-10 * (beta + np.ptp(np.where(np.isfinite(law), r, r.max()), axis=-1))))
    reason = "threshold" if order == np.inf else "branch and bound" if order > 1 else "root of a convex problem"
    reason = reason if fine else "the gap is above rounding"
    return Optimum(policies, value, expected, divergence, np.full(r.shape[:-1], beta), gap, fine, reason)


_Solver = Callable[[np.ndarray, np.ndarray, float, float], tuple[np.ndarray, float]]


def _row(
    solve: _Solver, law: np.ndarray, reward: np.ndarray, beta: float, order: float
) -> tuple[np.ndarray, float, float, float, float]:
    """``(log_policy, value, reward, kl, gap)`` of one problem, on its support."""
    inside = np.isfinite(law)
    log_p, r = law[inside], reward[inside]
    best = float(r.max())
    with np.errstate(over="ignore"):
        short = best - r
    _validate.representable("reward", np, short)
    log_pi, bound = solve(log_p, short, beta, order)
    log_policy = np.full(law.shape, -np.inf)
    log_policy[inside] = log_pi
    loss = float(np.exp(log_pi) @ short + beta * float(renyi(log_pi, log_p, order)))
    expected, divergence = float(np.exp(log_pi) @ r), float(kl(log_pi, log_p))
    return log_policy, best - loss, expected, divergence, max(loss - bound, 0.0)


def _below(log_p: np.ndarray, short: np.ndarray, beta: float, order: float) -> tuple[np.ndarray, float]:
    """``order < 1``: ``(log_policy, the least loss by the tangent)``; ``lam - max r`` is a root, found in logs."""
    power, wanted = 1 / (1 - order), beta * order / (1 - order)

    def policy(log_x: float) -> np.ndarray:
        with np.errstate(over="ignore", divide="ignore"):
            return log_normalize(log_p - power * np.logaddexp(0.0, np.log(short) - log_x))

    def off(log_x: float) -> float:
        return float(np.log(np.exp(log_x) + np.exp(policy(log_x)) @ short) - np.log(wanted))

    high = float(np.log(wanted))
    low, step = high - 1.0, 1.0
    while off(low) > 0:
        low, step = low - step, 2 * step
    log_pi = policy(float(brentq(off, low, high, xtol=1e-15, rtol=1e-15)) if off(high) > 0 else high)
    log_ratio, pi = log_pi - log_p, np.exp(log_pi)
    log_sum = (order - 1) * float(renyi(log_pi, log_p, order))
    with np.errstate(over="ignore"):
        cost = short - wanted * np.exp((order - 1) * log_ratio - log_sum)
    loss = float(pi @ short + beta * float(renyi(log_pi, log_p, order)))
    return log_pi, loss - float(pi @ (np.where(pi > 0, cost, 0.0) - cost.min()))


def _largest(log_p: np.ndarray, short: np.ndarray, beta: float, order: float) -> tuple[np.ndarray, float]:
    """``order = inf``: the reference above the best threshold; its loss is the bound."""
    levels = np.unique(short)
    found = []
    for level in levels:
        kept = np.where(short <= level, log_p, -np.inf)
        log_pi = log_normalize(kept)
        found.append((float(np.exp(log_pi) @ short) - beta * float(log_sum_exp(kept)), log_pi))
    least = min(loss for loss, _ in found)
    close = [log_pi for loss, log_pi in found if loss <= least]
    return close[-1], least


@dataclasses.dataclass(frozen=True)
class _Family:
    """The Tsallis optima ``pi ∝ ref (max r - lam - short)_+^{1/(a-1)}``, one a node, without a root finder.

    Between two levels of the reward, ``lam`` is given by its distance below the upper one (``segment``), as
    ``u = log(distance)/(a-1)``: the log-ratio of the responses at that level, which enter where lam passes it.

    Attributes:
        segment, u: of the nodes, ``(N,)``. log_policy: ``(N, A)``.
        level: ``log(E_pi[r - lam] (a-1)/(a beta))``, 0 where the Rényi objective is stationary.
        w: ``-log c/(a-1)`` of the coefficient ``beta c`` whose Tsallis optimum it is. best: ``F(c)``, at reward
            ``-short``. value: the Rényi objective.
    """

    segment: np.ndarray
    u: np.ndarray
    log_policy: np.ndarray
    level: np.ndarray
    w: np.ndarray
    best: np.ndarray
    value: np.ndarray


_Nodes = Callable[[np.ndarray, np.ndarray], _Family]


@quiet
def _family(
    log_p: np.ndarray, short: np.ndarray, beta: float, order: float, segment: np.ndarray, u: np.ndarray
) -> _Family:
    excess, levels = order - 1, np.unique(short)
    at, log_gap = levels[segment][:, None], (excess * u)[:, None]
    x = at + np.exp(log_gap)
    distance = np.where(short <= at, np.exp(log_gap) + (at - short), 0.0)
    far = np.log1p(-np.minimum(short / x, 0.5))
    near = np.where(short == at, log_gap, np.log(distance)) - np.where(at == 0, log_gap, np.log(x))
    share = np.where(short < 0.5 * x, far, near) / excess
    log_policy = log_normalize(log_p + share)
    log_sum = log_sum_exp(log_p + order * np.maximum(log_policy - log_p, -1e300))
    pi = np.exp(log_policy)
    mean = np.where(segment == 0, log_gap[:, 0], np.log((pi * distance).sum(axis=-1)))
    level = mean + np.log(excess / (order * beta))
    w = (log_sum - level) / excess
    loss = (pi * short).sum(axis=-1)
    best = -loss - beta * np.exp(level) * -np.expm1(-log_sum) / excess  # beta c T(pi), c = level/S
    return _Family(segment, u, log_policy, level, w, best, -loss - beta * log_sum / excess)


def _above(log_p: np.ndarray, short: np.ndarray, beta: float, order: float) -> tuple[np.ndarray, float]:
    """``1 < order < inf``: branch and bound along the Tsallis family, then the stationary policy of the best node."""
    excess, levels = order - 1, np.unique(short)
    if len(levels) == 1:
        return log_p, 0.0
    widest = float(-log_sum_exp(np.where(short == 0, log_p, -np.inf)))

    def family(segment: np.ndarray, u: np.ndarray) -> _Family:
        return _family(log_p, short, beta, order, segment, u)

    free = float(np.log(beta * order / excess))  # log x at which the best responses alone are stationary
    gaps = np.log(np.diff(levels))
    # so far down that the new level holds nothing, and that the distances of the others have not moved
    deep = np.minimum(np.append(gaps, gaps[-1]), np.append(gaps[0], gaps))
    low = np.minimum(deep / excess - 60.0 - np.ptp(log_p), (deep - 40.0 + min(0.0, np.log(excess))) / excess)
    low[0] = min(gaps[0], free) / excess - 1.0
    last = max(free, float(gaps.max())) / excess
    while family(np.array([len(gaps)]), np.array([last])).w[0] > 0:
        last += 1.0 / excess
    parts = max(3, 32 // len(levels))
    grid = np.linspace(low, np.append(gaps / excess, last), parts + 1, axis=1)
    at = family(np.repeat(np.arange(len(levels)), parts + 1), grid.ravel())
    nodes, bound = _branch_and_bound(family, at, beta, excess, 1e-14 * (short.max() + beta), widest)
    return _stationary(family, nodes), -bound


def _branch_and_bound(
    family: _Nodes, nodes: _Family, beta: float, excess: float, tolerance: float, widest: float
) -> tuple[_Family, float]:
    """``(nodes, bound)``: intervals whose bound is above the best value are cut in parts."""
    starts, ends, closed = np.arange(len(nodes.u) - 1), np.arange(1, len(nodes.u)), -np.inf
    for _ in range(60):
        w, best = nodes.w, nodes.best  # w falls along the nodes
        uppers = _upper(w[ends], w[starts], best[ends], best[starts], beta, excess)
        open_ = (uppers > nodes.value.max() + tolerance) & (w[starts] - w[ends] > 1e-10 * widest)
        open_ &= nodes.segment[starts] == nodes.segment[ends]
        closed = max(closed, float(np.max(uppers[~open_], initial=-np.inf)))
        if not open_.any():
            break
        grid = np.linspace(nodes.u[starts[open_]], nodes.u[ends[open_]], _PARTS + 1, axis=1)[:, 1:-1]
        new = len(nodes.u) + np.arange(grid.size).reshape(grid.shape)
        more = family(np.repeat(nodes.segment[starts[open_]], _PARTS - 1), grid.ravel())
        chain = np.concatenate([starts[open_][:, None], new, ends[open_][:, None]], axis=1)
        starts, ends = chain[:, :-1].ravel(), chain[:, 1:].ravel()
        fields = (f.name for f in dataclasses.fields(_Family))
        nodes = _Family(**{name: np.concatenate([getattr(nodes, name), getattr(more, name)]) for name in fields})
    return nodes, max(closed, float(nodes.value.max()), float(uppers.max()))


def _rest(w: np.ndarray, beta: float, excess: float) -> np.ndarray:
    """``beta (1 - e^{-(a-1) w})/(a-1) - beta w``."""
    return -beta * (np.expm1(-excess * w) / excess + w)


@quiet
def _upper(
    low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray, beta: float, excess: float
) -> np.ndarray:
    """Bound on G between two w: the chord of F in ``c = e^{-(a-1) w}`` plus the rest, at its maximum."""
    rise, width = np.maximum(at_high - at_low, 0.0), -np.expm1(-excess * np.maximum(high - low, 0.0))
    log_slope = np.log(rise) + excess * low - np.log(width)
    w = np.clip(np.logaddexp(0.0, log_slope + np.log(excess / beta)) / excess, low, np.maximum(low, high))
    share = np.where(width > 0, np.expm1(-excess * (w - low)) / np.where(width > 0, -width, 1.0), 1.0)
    return np.asarray(at_low + rise * share + _rest(w, beta, excess))


def _stationary(family: _Nodes, nodes: _Family) -> np.ndarray:
    """The stationary policy beside the best node."""
    along = np.lexsort((nodes.u, nodes.segment))
    segment, u, level = nodes.segment[along], nodes.u[along], nodes.level[along]
    top = int(np.argmax(nodes.value[along]))
    for first in (top - 1, top):
        if 0 <= first < len(u) - 1 and segment[first] == segment[first + 1] and level[first] < 0 < level[first + 1]:
            here = segment[first : first + 1]
            root = brentq(lambda x, s=here: family(s, np.array([x])).level[0], u[first], u[first + 1], xtol=1e-15)
            return np.asarray(family(here, np.array([root])).log_policy[0])
    return np.asarray(nodes.log_policy[along[top]])
