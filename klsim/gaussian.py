r"""Gaussian policies and quadratic rewards: the KL-regularised optimum, budgets, natural-gradient flow.

The reference is ``N(m, S)``, the reward ``r(x) = r_0 + g·(x - m) + (x - m)ᵀ H (x - m)/2`` with any symmetric H. In
the axes ``x = m + L U z`` (``S = L Lᵀ``, ``U`` the eigenvectors of ``Lᵀ H L`` with eigenvalues ``h_i``) everything
falls apart into one dimension: ``r = r_0 + sum_i (g_i z_i + h_i z_i²/2)`` under ``z ~ N(0, I)``. The tilt ``ref
e^{r/beta}/Z`` is Gaussian with

.. math:: \operatorname{Var} z_i = \frac{\beta}{\beta - h_i}, \qquad E z_i = \frac{g_i}{\beta - h_i}, \qquad
    \beta\log Z = r_0 + \sum_i \frac{g_i^2}{2(\beta - h_i)} - \frac\beta2 \log\Big(1 - \frac{h_i}\beta\Big),

the best of *all* policies. It exists where ``beta`` is above the largest ``h_i``; at or below it ``E_ref
e^{r/beta}``, and with it the value, is infinite. Every KL budget has its beta above ``max(h_i, 0)``.

*Natural-gradient flow* of ``E[r] - beta KL`` over Gaussians, ``m' = S ∇_m J``, ``S' = 2 S ∇_S J S``, is linear in the
natural parameters ``(S⁻¹m, -S⁻¹/2)``, as ``E[r]`` is linear in the moments: from the reference it is at time t the
optimum with

.. math:: \beta_t = \frac{\beta}{1 - e^{-\beta t}} \qquad (1/t \text{ without a penalty}):

it walks along the KL-reward frontier, and without a penalty it leaves in the finite time ``1/max h_i``.

Sources: the tilt of a Gaussian is folklore; the flow in natural parameters follows Amari (1998), Neural Computation 10;
derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from klsim import _validate
from klsim._shown import Shown

__all__ = [
    "GaussianOptimum",
    "QuadraticReward",
    "fixed_covariance",
    "gaussian_constrained",
    "gaussian_kl",
    "gaussian_regularized",
    "natural_gradient_flow",
]


def _symmetric(name: str, given: np.ndarray, size: int) -> np.ndarray:
    if given.shape != (size, size):
        _validate.fail(name, f"must have shape ({size}, {size}), got {given.shape}")
    _validate.finite(name, np, given)
    if np.abs(given - given.T).max() > 1e-10 * np.abs(given).max():
        _validate.fail(name, "must be symmetric")
    return np.asarray(0.5 * (given + given.T), dtype=np.float64)


def _vector(name: str, given: np.ndarray) -> np.ndarray:
    if given.ndim != 1 or given.size == 0:
        _validate.fail(name, f"must be a vector (d,), got shape {given.shape}")
    return np.asarray(_validate.finite(name, np, given), dtype=np.float64)


def _cholesky(name: str, covariance: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        _validate.fail(name, "must be positive definite")
        raise


@dataclass(frozen=True, repr=False)
class QuadraticReward(Shown):
    """``r(x) = offset + slope·(x - m) + (x - m)ᵀ curvature (x - m)/2`` around the mean m of the reference.

    Attributes:
        slope: ``(d,)``, finite. curvature: ``(d, d)``, symmetric. offset: the reward at m.

    Raises:
        ValueError: shapes; entries that are not finite; a curvature that is not symmetric.
    """

    slope: np.ndarray
    curvature: np.ndarray
    offset: float = 0.0

    def __post_init__(self) -> None:
        slope, curvature = _validate.numpy_arrays(slope=self.slope, curvature=self.curvature)
        slope = _vector("slope", slope)
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "curvature", _symmetric("curvature", curvature, slope.size))
        object.__setattr__(self, "offset", _validate.number("offset", self.offset))
        if not np.isfinite(self.offset):
            _validate.fail("offset", "must be finite", self.offset)


@dataclass(frozen=True, repr=False)
class GaussianOptimum(Shown):
    """``N(mean, covariance)`` and what it achieves.

    Attributes:
        mean: ``(d,)``. covariance: ``(d, d)``.
        value: ``reward - beta kl``. reward: ``E[r]``. kl: nats to the reference. beta: the coefficient, or multiplier.
    """

    mean: np.ndarray
    covariance: np.ndarray
    value: float
    reward: float
    kl: float
    beta: float


@dataclass(frozen=True)
class _Axes:
    """The problem in the axes in which the reference is standard and the curvature diagonal."""

    mean: np.ndarray
    basis: np.ndarray  # L U
    slope: np.ndarray
    curvature: np.ndarray
    offset: float

    @property
    def steepest(self) -> float:
        """The largest curvature: beta must be above it, and above 0."""
        return max(float(self.curvature.max()), 0.0)


def _axes(mean: Any, covariance: Any, reward: QuadraticReward) -> _Axes:
    _validate.instance("reward", reward, QuadraticReward)
    mean, covariance = _validate.numpy_arrays(mean=mean, covariance=covariance)
    mean = _vector("mean", mean)
    root = _cholesky("covariance", _symmetric("covariance", covariance, mean.size))
    if reward.slope.size != mean.size:
        _validate.fail("reward", f"must be of {mean.size} dimensions, got {reward.slope.size}")
    with np.errstate(over="ignore", invalid="ignore"):
        white = root.T @ reward.curvature @ root
    _validate.representable("reward", np, white)
    curvature, vectors = np.linalg.eigh(0.5 * (white + white.T))
    basis = root @ vectors
    return _Axes(mean, basis, basis.T @ reward.slope, curvature, reward.offset)


def _divergence(stretch: np.ndarray, move: np.ndarray) -> float:
    """``sum (v - 1 - log v + move²)/2`` of variances ``v = 1 + stretch``: no cancellation near 0."""
    small = np.abs(stretch) < 1e-4
    near = np.where(small, stretch, 0.0)
    series = near**2 * (1 / 2 - near * (1 / 3 - near * (1 / 4 - near / 5)))
    with np.errstate(over="ignore"):
        return 0.5 * float(np.sum(np.where(small, series, stretch - np.log1p(stretch)) + move**2))


def _optimum(axes: _Axes, beta: float) -> GaussianOptimum:
    room = beta - axes.curvature
    with np.errstate(over="ignore", invalid="ignore"):
        stretch, move = axes.curvature / room, axes.slope / room
        kl = _divergence(stretch, move)
        gained = float(axes.slope @ move + 0.5 * axes.curvature @ (1 + stretch + move**2))
        value = float(0.5 * axes.slope @ move - 0.5 * beta * np.log1p(-axes.curvature / beta).sum())
        mean = axes.mean + axes.basis @ move
        covariance = (axes.basis * (1 + stretch)) @ axes.basis.T
    _validate.representable("beta", np, mean, covariance, np.array([kl, gained, value]))
    return GaussianOptimum(mean, covariance, axes.offset + value, axes.offset + gained, kl, beta)


def gaussian_regularized(mean: Any, covariance: Any, reward: QuadraticReward, beta: float) -> GaussianOptimum:
    """``max_pi E_pi[r] - beta KL(pi‖N(mean, covariance))`` over all policies: Gaussian.

    Args:
        mean: ``(d,)``. covariance: ``(d, d)``, positive definite. beta: above the largest eigenvalue of ``Lᵀ H L``,
            and 0.

    Raises:
        ValueError: shapes; a covariance that is not positive definite; a beta at which the value is infinite.
    """
    axes = _axes(mean, covariance, reward)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    if beta <= axes.steepest:
        _validate.fail(
            "beta",
            f"must be above the largest curvature {axes.steepest:g} of the reward, in standard deviations of the "
            "reference: no optimum, the value is infinite",
            beta,
        )
    return _optimum(axes, beta)


def gaussian_constrained(mean: Any, covariance: Any, reward: QuadraticReward, budget: float) -> GaussianOptimum:
    """The most reward within ``KL(pi‖N(mean, covariance)) <= budget``: the tilt with that KL.

    Returns:
        A `GaussianOptimum` whose ``value`` is the reward and whose ``beta`` is the multiplier, ``d reward / d budget``.

    Raises:
        ValueError: as `gaussian_regularized`; ``budget <= 0``; a reward that is constant; a budget that no float beta
            has.
    """
    axes = _axes(mean, covariance, reward)
    budget = _validate.real("budget", budget, low=0.0, open_low=True, open_high=True)
    size = float(np.abs(axes.slope).max() + np.abs(axes.curvature).max())
    if size == 0:
        _validate.fail("reward", "is constant: no policy has more")

    def kl_at(log_room: float) -> float:
        room = axes.steepest - axes.curvature + np.exp(log_room)  # beta - h, without cancellation near the largest h
        with np.errstate(over="ignore"):
            return _divergence(axes.curvature / room, axes.slope / room)

    low = high = float(np.log(size))
    while kl_at(low) < budget:
        low -= 5.0
        if low < np.log(size) - 600:
            _validate.fail("budget", "is more than any beta that a float holds has", budget)
    while kl_at(high) > budget:
        high += 5.0
        if high > np.log(size) + 600:
            _validate.fail("budget", "is less than any beta that a float holds has", budget)
    room = np.exp(brentq(lambda x: np.log(kl_at(x)) - np.log(budget), low, high, xtol=1e-14, rtol=1e-15))
    found = _at_room(axes, float(room))
    return GaussianOptimum(found.mean, found.covariance, found.reward, found.reward, found.kl, found.beta)


def _at_room(axes: _Axes, room: float) -> GaussianOptimum:
    """The optimum at ``beta = steepest + room``, also where that sum rounds the room away."""
    rooms = axes.steepest - axes.curvature + room
    stretch, move = axes.curvature / rooms, axes.slope / rooms
    kl = _divergence(stretch, move)
    reward = axes.offset + float(axes.slope @ move + 0.5 * axes.curvature @ (1 + stretch + move**2))
    covariance = (axes.basis * (1 + stretch)) @ axes.basis.T
    mean, beta = axes.mean + axes.basis @ move, axes.steepest + room
    _validate.representable("budget", np, mean, covariance, np.array([kl, reward]))
    return GaussianOptimum(mean, covariance, reward - beta * kl, reward, kl, beta)


def fixed_covariance(mean: Any, covariance: Any, reward: QuadraticReward, beta: float) -> GaussianOptimum:
    """The optimum among Gaussians with the covariance of the reference: the same mean.

    It loses ``beta/2 sum_i (-log(1 - h_i/beta) - h_i/beta)`` against `gaussian_regularized`, nothing for linear
    rewards.

    Raises:
        ValueError: as `gaussian_regularized`: at a beta below the largest curvature it has no optimum either.
    """
    best = gaussian_regularized(mean, covariance, reward, beta)
    axes = _axes(mean, covariance, reward)
    move = axes.slope / (best.beta - axes.curvature)
    kl = 0.5 * float(move @ move)
    gained = axes.offset + float(axes.slope @ move + 0.5 * axes.curvature @ (1 + move**2))
    same = (axes.basis) @ axes.basis.T
    return GaussianOptimum(best.mean, same, gained - best.beta * kl, gained, kl, best.beta)


def natural_gradient_flow(
    mean: Any, covariance: Any, reward: QuadraticReward, beta: float, time: float
) -> GaussianOptimum:
    """Where the natural-gradient flow of ``E[r] - beta KL`` is that started from the reference ``time`` ago.

    It is `gaussian_regularized` at ``beta/(1 - exp(-beta time))``, at ``1/time`` for ``beta = 0``; ``value`` and
    ``beta`` are those of that problem. Time is in units of one over reward.

    Raises:
        ValueError: as `gaussian_regularized`; ``beta < 0``, ``time <= 0``; a time at or after which the flow has left
            to infinity.
    """
    axes = _axes(mean, covariance, reward)
    beta = _validate.real("beta", beta, low=0.0, open_high=True)
    time = _validate.real("time", time, low=0.0, open_low=True, open_high=True)
    with np.errstate(over="ignore", divide="ignore"):
        done = beta * time
        there = 1 / time if done < 1e-300 else -beta / float(np.expm1(-done))
    if not np.isfinite(there):
        _validate.fail("time", "is too small: one over it overflows", time)
    if there <= axes.steepest:
        _validate.fail(
            "time", f"the flow has left to infinity: its beta is below the largest curvature {axes.steepest:g}", time
        )
    return _optimum(axes, there)


def gaussian_kl(mean: Any, covariance: Any, other_mean: Any, other_covariance: Any) -> float:
    """``KL(N(mean, covariance)‖N(other_mean, other_covariance))`` in nats.

    ``(sum_i (v_i - 1 - log v_i) + |L⁻¹(mean - other_mean)|²)/2``, ``v_i`` the eigenvalues of ``L⁻¹ S L⁻ᵀ``.

    Raises:
        ValueError: shapes; covariances that are not positive definite.
    """
    mean, covariance, other_mean, other_covariance = _validate.numpy_arrays(
        mean=mean, covariance=covariance, other_mean=other_mean, other_covariance=other_covariance
    )
    mean, other_mean = _vector("mean", mean), _vector("other_mean", other_mean)
    if mean.size != other_mean.size:
        _validate.fail("other_mean", f"must have shape {mean.shape}, got {other_mean.shape}")
    root = _cholesky("covariance", _symmetric("covariance", covariance, mean.size))
    other = _cholesky("other_covariance", _symmetric("other_covariance", other_covariance, mean.size))
    ratio = np.linalg.solve(other, root)
    change = ratio @ ratio.T - np.eye(mean.size)
    stretch = np.maximum(np.linalg.eigvalsh(0.5 * (change + change.T)), -1 + 1e-300)
    move = np.linalg.solve(other, mean - other_mean)
    found = _divergence(stretch, move)
    _validate.representable("covariance", np, np.array(found))
    return found
