r"""Optima under Tsallis and Rényi divergences, and under entropy beside KL.

*Tsallis* of order q: ``T_q(pi‖ref) = (E_ref[t^q] - 1)/(q - 1)``, ``t = pi/ref``: q times the alpha-divergence of order q. Its
optimum is ``t = ((q-1)(r - lam)_+/(beta q))^{1/(q-1)}``, with the lam that normalises it: for ``q > 1`` it drops every
response with a reward below lam. The Tsallis entropy ``S_q(pi) = (1 - sum pi^q)/(q - 1)`` is the case of a uniform
reference (sparsemax at q = 2, entmax).

*Rényi* of order a: ``D_a = log E_ref[t^a]/(a - 1)`` is no f-divergence: its slope depends on the whole policy. Where it
is stationary, ``E_pi[r] - lam = beta a/(a-1)``, so that

.. math:: \pi \propto ref\,(r-\lambda)_+^{1/(a-1)} \;(a > 1), \qquad \pi \propto ref\,(\lambda-r)^{-1/(1-a)} \;(a < 1),

the Tsallis family with another lam. For ``a <= 1`` the divergence is convex, ``lam - E_pi[r]`` rises with lam at a slope of
at least 1 (Cauchy-Schwarz) and one root is the optimum. For ``a > 1`` the objective is not concave and may have several
local optima. With ``-log S = max_w { 1 - S e^{-w} - w }`` it is ``max_w G(w)``,

.. math:: G(w) = F(e^{-(a-1)w}) + \beta\,\frac{1 - e^{-(a-1)w}}{a-1} - \beta w, \qquad
    F(c) = \max_\pi E_\pi[r] - \beta c\, T_a(\pi\|ref),

F convex in c: on an interval it is at most its chord, which bounds G. Branch and bound over w (the divergence, between 0
and ``-log ref(argmax r)``) closes the gap, then ``D_a(pi_w) = w`` is solved. For ``a = inf`` the optimum is the reference
above a threshold: between thresholds the objective, by mass m, falls and then rises.

Sources: Martins and Astudillo (2016), arXiv:1602.02068 (sparsemax); Peters, Niculae and Martins (2019), arXiv:1905.05702
(entmax); van Erven and Harremoës (2014), arXiv:1206.2459 (convexity of Rényi divergences); the rest is derived here.
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
_LARGEST_LOG = 600.0  # of a ratio to the power of the order
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

    Its value is ``(beta + eta) log sum ref^{beta/(beta+eta)} e^{r/(beta+eta)}``. On token trees KL and entropy both add up
    along the tokens: regularising tokens or sequences is the same, and the reference is tempered as a law of sequences.

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
        ValueError: shapes, ``beta <= 0``, a reward that is not finite, ``order`` outside; ``order - 1`` times
            ``-log ref(argmax r)`` above 600, where powers of ratios overflow (order inf does not).
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
    """``order < 1``: ``(log_policy, the least loss by the tangent)``; ``x = lam - max r`` is the root, found in logs."""
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


def _above(log_p: np.ndarray, short: np.ndarray, beta: float, order: float) -> tuple[np.ndarray, float]:
    """``1 < order < inf``: branch and bound over the divergence w, then the root of ``D(pi_w) = w``."""
    excess = order - 1
    widest = float(-log_sum_exp(np.where(short == 0, log_p, -np.inf)))
    if excess * widest > _LARGEST_LOG:
        _validate.fail("order", f"times {widest:.3g} nats, the price of the best response, is above {_LARGEST_LOG:g}")
    if short.max() == 0 or widest <= 0:
        return log_p, 0.0

    def inner(w: np.ndarray) -> Optimum:
        return tsallis_regularized(log_p, -short, beta * np.exp(-excess * w), order)

    nodes = np.linspace(0.0, widest, 4 * _PARTS + 1)
    best = inner(nodes)
    values, slack = best.value, best.gap
    bound, tolerance = np.inf, 1e-14 * (short.max() + beta)
    w, at, left = nodes, values + _rest(nodes, beta, excess), []
    starts, ends = np.arange(len(nodes) - 1), np.arange(1, len(nodes))
    for _ in range(30):
        uppers = _upper(w[starts], w[ends], (values + slack)[starts], (values + slack)[ends], beta, excess)
        top = float(at.max())
        open_ = (uppers > top + tolerance) & (w[ends] - w[starts] > 1e-9 * widest)
        left.append(float(np.max(uppers[~open_], initial=-np.inf)))
        if not open_.any():
            break
        grid = np.linspace(w[starts[open_]], w[ends[open_]], _PARTS + 1, axis=1)[:, 1:-1]
        new = inner(grid.ravel())
        first = len(w) + (_PARTS - 1) * np.arange(open_.sum())
        inside = first[:, None] + np.arange(_PARTS - 1)
        chain = np.concatenate([starts[open_][:, None], inside, ends[open_][:, None]], axis=1)
        starts, ends = chain[:, :-1].ravel(), chain[:, 1:].ravel()
        w, values, slack = (np.concatenate(x) for x in ((w, grid.ravel()), (values, new.value), (slack, new.gap)))
        at = np.concatenate([at, new.value + _rest(grid.ravel(), beta, excess)])
    bound = max(*left, float(at.max()), float(uppers.max()))
    return _root(inner, log_p, w, at, order), -bound


def _rest(w: np.ndarray, beta: float, excess: float) -> np.ndarray:
    """``beta (1 - e^{-(a-1) w})/(a-1) - beta w``."""
    return -beta * (np.expm1(-excess * w) / excess + w)


def _upper(
    low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray, beta: float, excess: float
) -> np.ndarray:
    """Bound on G between two w: the chord of F in ``c = e^{-(a-1) w}`` plus the rest, at its maximum."""
    c_low, kappa = np.exp(-excess * low), beta / excess
    width = -c_low * np.expm1(-excess * (high - low))
    rise = np.maximum(at_high - at_low, 0.0)
    slope = np.where(width > 0, rise / np.where(width > 0, width, 1.0), 0.0)
    w = np.clip(np.log1p(slope / kappa) / excess, low, high)
    share = np.expm1(-excess * (w - low)) / np.where(width > 0, np.expm1(-excess * (high - low)), 1.0)
    return np.asarray(at_low + rise * np.where(width > 0, share, 1.0) + _rest(w, beta, excess))


def _root(
    inner: Callable[[np.ndarray], Optimum], log_p: np.ndarray, w: np.ndarray, at: np.ndarray, order: float
) -> np.ndarray:
    """The policy of the best node, moved to where its divergence is its w."""
    order_of = np.argsort(w)
    w, at = w[order_of], at[order_of]
    top = int(np.argmax(at))

    def policy(x: float) -> np.ndarray:
        return log_normalize(inner(np.array([x])).log_policy[0])

    def off(x: float) -> float:
        return float(renyi(policy(x), log_p, order)) - x

    low, high = w[max(top - 1, 0)], w[min(top + 1, len(w) - 1)]
    middle = off(w[top])
    low, high = (w[top], high) if middle > 0 else (low, w[top])
    if middle == 0 or not off(low) > 0 or not off(high) < 0:
        return policy(float(w[top]))
    return policy(float(brentq(off, low, high, xtol=1e-16, rtol=1e-15)))
