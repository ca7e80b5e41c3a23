r"""Rewards of prompts that are jointly Gaussian: how a KL budget is spread, what carries over to other prompts.

Under the reference the rewards of one response (a strategy, a style) on P prompts are ``R ~ N(mu, K)``: ``K_ii`` is the
variance at prompt i, ``K_ij`` what responses that do well on i do on j, as of a Gaussian process over prompts. A
policy is trained on the average reward ``w·R``, ``w >= 0``, ``sum w = 1``.

*One policy for all prompts* (it cannot tell them apart): the tilt by ``w·R/beta`` is ``N(mu + K w/beta, K)`` with
``KL = wᵀKw/(2 beta²)``. Within a budget of kappa nats

.. math:: E[R_j] - \mu_j = \frac{(K w)_j}{\sqrt{w^TKw}}\sqrt{2\kappa}, \qquad w\cdot E[R] - w\cdot\mu =
\sqrt{2\kappa\; w^TKw}:

a prompt j that was not trained on (``w_j = 0``) gains its covariance with the average of those that were.

*A policy a prompt*: prompt i spends ``kappa_i``, ``sum w_i kappa_i = kappa``, and gains ``sqrt(2 kappa_i K_ii)``. The
best split has one beta, ``kappa_i = kappa K_ii/sum_j w_j K_jj``, and the average gains ``sqrt(2 kappa sum w_i
K_ii)``: the root mean square of the deviations; equal parts gain their mean.

*Spread*: the sample variance of the prompt means over n prompts, less that of rewards within prompts over m, is an
unbiased estimate of ``mean K_ii - mean_{i≠j} K_ij`` (plus the variance of mu), not of the variance of a prompt's
mean: what prompts share is not seen.

Sources: normal tilts as in Gao et al. (2022), arXiv:2210.10760; the estimate is that of a one-way random-effects model
(Searle, Casella and McCulloch, Variance Components, 1992); derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown

__all__ = ["PromptGains", "Spread", "kernel_matrix", "separate_policies", "shared_policy", "spread"]


@dataclass(frozen=True, repr=False)
class PromptGains(Shown):
    """What a budget buys: ``gains`` and ``budgets`` a prompt, ``(P,)`` (reward units, nats), and the average gain."""

    gains: np.ndarray
    budgets: np.ndarray
    average: float


@dataclass(frozen=True, repr=False)
class Spread(Shown):
    """Variances in squared reward units: ``between`` prompts (can come out negative), ``within`` them."""

    between: float
    within: float


def kernel_matrix(points: Any, length: float, deviation: float = 1.0) -> np.ndarray:
    """``deviation² exp(-|x_i - x_j|²/(2 length²))`` of points ``(P,)`` or ``(P, d)``, ``(P, P)``.

    Raises:
        ValueError: points that are not finite or of more axes; ``length <= 0``, ``deviation <= 0``.
    """
    (points,) = _validate.numpy_arrays(points=points)
    length = _validate.real("length", length, low=0.0, open_low=True, open_high=True)
    deviation = _validate.real("deviation", deviation, low=0.0, open_low=True, open_high=True)
    if points.ndim not in (1, 2) or points.size == 0:
        _validate.fail("points", f"must have shape (P,) or (P, d), got {points.shape}")
    x = np.asarray(_validate.finite("points", np, points), dtype=np.float64).reshape(len(points), -1)
    with np.errstate(over="ignore", under="ignore"):
        scaled = x / length
        _validate.representable("length", np, scaled)
        distance = np.sum((scaled[:, None] - scaled[None]) ** 2, axis=-1)
        found = deviation**2 * np.exp(-0.5 * distance)
    _validate.representable("deviation", np, found)
    return np.asarray(found)


def _checked(kernel: Any, weights: Any, budget: float) -> tuple[np.ndarray, np.ndarray, float]:
    (kernel,) = _validate.numpy_arrays(kernel=kernel)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.size:
        _validate.fail("kernel", f"must be a matrix (P, P), got shape {kernel.shape}")
    k = np.asarray(_validate.finite("kernel", np, kernel), dtype=np.float64)
    size = float(np.abs(k).max())
    if np.abs(k - k.T).max() > 1e-10 * size:
        _validate.fail("kernel", "must be symmetric")
    if np.linalg.eigvalsh(k / (size or 1.0)).min() < -1e-10 * len(k):
        _validate.fail("kernel", "must be positive semidefinite")
    if weights is None:
        w = np.full(len(k), 1 / len(k))
    else:
        (given,) = _validate.numpy_arrays(weights=weights)
        w = np.asarray(_validate.finite("weights", np, given), dtype=np.float64)
        if w.shape != (len(k),) or np.any(w < 0) or abs(w.sum() - 1) > 1e-8:
            _validate.fail("weights", f"must be {len(k)} numbers >= 0 that sum to 1")
        w = w / w.sum()
    return k, w, _validate.real("budget", budget, low=0.0, open_high=True)


def shared_policy(kernel: Any, budget: float, weights: Any = None) -> PromptGains:
    """One policy for all prompts, trained on the average by ``weights``: gains ``K w sqrt(2 kappa/wᵀKw)``.

    Args:
        kernel: ``(P, P)``, positive semidefinite, reward units squared. budget: nats, >= 0.
        weights: ``(P,)``, >= 0, sum 1; None: equal. Prompts of weight 0 are held out.

    Raises:
        ValueError: no positive semidefinite matrix, weights or a budget outside.
    """
    k, w, budget = _checked(kernel, weights, budget)
    size = float(np.abs(k).max()) or 1.0
    moved = (k / size) @ w
    variance = max(float(w @ moved), 0.0)
    gains = np.sqrt(size) * moved * np.sqrt(2 * budget / variance) if variance > 0 else np.zeros(len(w))
    return PromptGains(gains, np.full(len(w), budget), float(w @ gains))


def separate_policies(kernel: Any, budget: float, weights: Any = None, *, equal: bool = False) -> PromptGains:
    """A policy a prompt, ``budget`` nats on average: ``kappa_i ∝ K_ii`` (the best split), or equal parts.

    Arguments and errors as `shared_policy`. A TypeError where ``equal`` is no boolean.
    """
    k, w, budget = _checked(kernel, weights, budget)
    equal = _validate.flag("equal", equal)
    variance = np.diag(k)
    mean = float(w @ variance)
    spent = np.full(len(w), budget) if equal or mean == 0 else budget * variance / mean
    gains = np.sqrt(2 * spent) * np.sqrt(variance)
    return PromptGains(gains, spent, float(w @ gains))


def spread(rewards: Any) -> Spread:
    """Variance between prompts and within them from ``(P, m)`` rewards: m samples of each of P prompts.

    ``within = mean_i s_i²`` and ``between = var_i(mean_i) - within/m``, sample variances; unbiased for independent
    prompts. Prompts that share a part have it in every mean: it is not in ``between``.

    Raises:
        ValueError: fewer than two prompts or samples; rewards that are not finite.
    """
    (rewards,) = _validate.numpy_arrays(rewards=rewards)
    if rewards.ndim != 2 or min(rewards.shape) < 2:
        _validate.fail("rewards", f"must have shape (P, m) with P, m >= 2, got {rewards.shape}")
    x = np.asarray(_validate.finite("rewards", np, rewards), dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        within = float(x.var(axis=1, ddof=1).mean())
        between = float(x.mean(axis=1).var(ddof=1)) - within / x.shape[1]
    _validate.representable("rewards", np, np.array([within, between]))
    return Spread(between, within)
