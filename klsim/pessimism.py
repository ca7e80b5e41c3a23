r"""Regularised best-of-n: rejection sampling from n draws towards a chi-squared regularised law.

``max_pi E_pi[r] - beta chi2(pi‖ref)`` (`klsim.optima.f_regularized` with ``"chi2"``) has the optimum

.. math:: \pi(y) = ref(y)\, w(y), \qquad w = \Big(\frac{r - \lambda}{2\beta}\Big)_+, \qquad E_{ref}[w] = 1.

*Rejection with n draws* takes each draw with probability ``w/M``, ``M >= max w``, and the first that is taken; if none
is, one more draw. Its law is a mixture (`rejection_towards`)

.. math:: (1 - (1 - 1/M)^n)\, \pi + (1 - 1/M)^n\, ref .

*Pessimistic best-of-n* has no ``lambda``: it takes that of the n draws, ``1/n sum_i ((r_i - lambda)/(2 beta))_+ = 1``
(`sample_level`), and ``M = (r_max - lambda)/(2 beta)``. In random order draw i is the first that is taken with
probability ``a_i \int_0^1 prod_{j != i} (1 - t a_j) dt``, ``a_i = w_i/M``; summed over all multisets of reward levels
that is its law (`pessimistic_best_of_n`).

*Under a wrong reward model* ``r`` for the true reward ``g`` with ``E_ref[(r - g)^2] = e^2``, against any policy ``mu``
with ``C = E_mu[mu/ref]``: by Cauchy and Schwarz ``|E_pi[r - g]| <= e sqrt(1 + chi2(pi‖ref))``, so

.. math:: E_\mu[g] - E_\pi[g] \le \beta C + e\sqrt C + \frac{e^2}{4\beta},

least at ``beta = e/(2 sqrt C)``: ``2 e sqrt C`` (`regret_bound`). No such bound holds for the best of n.

Source: Huang, Block, Liu, Jiang, Krishnamurthy and Foster (2025), arXiv:2503.21878 (the algorithm; its beta is twice
the one here). The laws and the constants are derived here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import roots_legendre

from klsim import _validate
from klsim.estimator_moments import draws

__all__ = ["pessimistic_best_of_n", "regret_bound", "rejection_towards", "sample_level"]

_MANY = 200_000


def _law(log_p: Any) -> np.ndarray:
    (log_p,) = _validate.numpy_arrays(log_p=log_p)
    _validate.log_probs("log_p", np, log_p)
    if log_p.ndim != 1:
        _validate.fail("log_p", f"must be one law (A,), got shape {log_p.shape}")
    return np.asarray(log_p, dtype=np.float64)


def rejection_towards(log_p: Any, log_target: Any, n: int, bound: float | None = None) -> np.ndarray:
    """Log-law of rejection sampling towards a target with n draws, and one more if none is taken, ``(A,)``.

    Args:
        log_p: the law of the draws. log_target: ``(A,)``, within its support. bound: M, by default the largest ratio.

    Raises:
        ValueError: no log-probabilities ``(A,)``, a target with mass outside ``log_p``, ``n < 1``, a bound below the
            largest ratio.
    """
    log_p = _law(log_p)
    (target,) = _validate.numpy_arrays(log_target=log_target)
    _validate.log_probs("log_target", np, target)
    if target.shape != log_p.shape:
        _validate.fail("log_target", f"must have shape {log_p.shape}, got {target.shape}")
    n = _validate.integer("n", n, low=1)
    inside = np.isfinite(log_p)
    if np.any(np.isfinite(target[~inside])):
        _validate.fail("log_target", "has mass outside log_p")
    largest = max(float(np.max(target[inside] - log_p[inside])), 0.0)
    if bound is None:
        log_m = largest
    else:
        log_m = float(np.log(_validate.real("bound", bound, low=1.0, open_high=True)))
        if log_m < largest - 1e-12:
            _validate.fail("bound", f"must be at least the largest ratio, {np.exp(largest):.6g}", bound)
    with np.errstate(divide="ignore"):
        log_missed = n * np.log(-np.expm1(-log_m)) if log_m > 0 else -np.inf  # n log(1 - 1/M)
        log_taken = np.log(-np.expm1(log_missed))
    return np.asarray(np.logaddexp(log_taken + target, log_missed + log_p))


def sample_level(reward: Any, beta: float) -> np.ndarray:
    """``lambda`` with ``mean_i ((r_i - lambda)/(2 beta))_+ = 1`` of n rewards, ``(..., n)`` to ``(...)``.

    Raises:
        ValueError: no rewards, one that is not finite, ``beta <= 0``.
    """
    (reward,) = _validate.numpy_arrays(reward=reward)
    _validate.finite("reward", np, reward)
    if reward.ndim == 0 or reward.shape[-1] == 0:
        _validate.fail("reward", f"must have shape (..., n) with n >= 1, got {reward.shape}")
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    r = -np.sort(-reward.astype(np.float64), axis=-1)  # falling
    size = r.shape[-1]
    short = r[..., :1] - r  # from the best
    # with k draws above lambda: their shortfalls and k (best - lambda) differ by 2 beta n
    k = np.arange(1, size + 1)
    with np.errstate(over="ignore"):
        level = -(2 * beta * size + np.cumsum(short, axis=-1)) / k  # lambda - best
    above = -short > level  # draw k is above the lambda of the first k: true up to the right k
    count = np.maximum(above.sum(axis=-1, keepdims=True), 1)
    out = r[..., 0] + np.take_along_axis(level, count - 1, axis=-1)[..., 0]
    _validate.representable("reward", np, out)
    return np.asarray(out)


def pessimistic_best_of_n(log_p: Any, reward: Any, n: int, beta: float, *, r_max: float | None = None) -> np.ndarray:
    """Log-law of pessimistic best-of-n, ``(A,)``, by enumeration of the multisets of reward levels.

    Args:
        beta: > 0, of chi2, reward units. r_max: a bound on rewards, by default the largest with a probability.

    Raises:
        ValueError: no log-probabilities ``(A,)``, a reward that is not finite, ``n < 1``, ``beta <= 0``, an ``r_max``
            below a reward, more than 200,000 multisets (n and the number of distinct rewards decide).
    """
    log_p = _law(log_p)
    (reward,) = _validate.numpy_arrays(reward=reward)
    _validate.finite("reward", np, reward)
    if reward.shape != log_p.shape:
        _validate.fail("reward", f"must have the shape of log_p, {log_p.shape}, got {reward.shape}")
    n = _validate.integer("n", n, low=1)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    inside = np.isfinite(log_p)
    values, level = np.unique(reward[inside].astype(np.float64), return_inverse=True)
    top = float(values[-1]) if r_max is None else _validate.real("r_max", r_max, low=float(values[-1]), open_high=True)
    mass = np.full(len(values), -np.inf)
    np.logaddexp.at(mass, level, log_p[inside])
    mass = mass - np.logaddexp.reduce(mass)
    counts, probability = _multisets(mass, n)
    taken, missed = _first_taken(counts, values - top, beta, n)
    with np.errstate(divide="ignore"):
        # the share of a level, spread as the draws are
        relative = np.log(probability @ (taken + missed[:, None] * np.exp(mass))) - mass
    out = np.full(log_p.shape, -np.inf)
    out[inside] = log_p[inside] + relative[level]
    return out


def _multisets(mass: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """``(counts (m, L), probabilities (m,))`` of n draws by level."""
    size = len(mass)
    rows = 1.0
    for i in range(size - 1):
        rows *= (n + 1 + i) / (1 + i)
    if rows > _MANY:
        _validate.fail("n", f"gives {rows:.3g} multisets of {size} reward levels, at most {_MANY:,} are enumerated", n)
    _validate.fits("n", n, rows * n, each=16)
    outcomes, probability = draws(mass, n, ordered=False)
    return (outcomes[:, :, None] == np.arange(size)).sum(axis=1), probability


def _first_taken(counts: np.ndarray, values: np.ndarray, beta: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Chance that the first draw that is taken has each level ``(m, L)``, and that none is ``(m,)``.

    ``values``: rewards less their bound, so that a small beta is not lost beside a large reward.
    """
    rewards = np.repeat(np.broadcast_to(values, counts.shape).ravel(), counts.ravel()).reshape(len(counts), n)
    level = sample_level(rewards, beta)[:, None]
    accept = np.clip(np.maximum(values - level, 0.0) / -level, 0.0, 1.0)  # (m, L)
    t, weight = roots_legendre(n // 2 + 1)
    t, weight = 0.5 * (t + 1), 0.5 * weight
    taken = np.zeros(counts.shape)
    for node, share in zip(t, weight):
        rest = np.prod((1 - node * accept) ** counts, axis=1, keepdims=True)
        taken += share * counts * accept * rest / (1 - node * accept)  # node < 1
    return taken, np.prod(np.where(counts > 0, (1 - accept) ** np.maximum(counts, 1), 1.0), axis=1)


def regret_bound(coverage: float, error: float, beta: float | None = None) -> float:
    """``beta C + e sqrt(C) + e^2/(4 beta)``: what the chi2-regularised optimum of a wrong reward can lose.

    Args:
        coverage: ``C = E_mu[mu/ref] >= 1`` of the policy that it is compared with. error: root mean square of the
            reward's error under ref. beta: ``e/(2 sqrt C)`` by default, where the bound is ``2 e sqrt(C)``.

    Raises:
        ValueError: ``coverage < 1``, ``error < 0``, ``beta <= 0``.
    """
    coverage = _validate.real("coverage", coverage, low=1.0, open_high=True)
    error = _validate.real("error", error, low=0.0, open_high=True)
    if beta is None:
        return float(2 * error * np.sqrt(coverage))
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    found = beta * coverage + error * np.sqrt(coverage) + 0.25 * (error / beta) * error
    if not np.isfinite(found):
        _validate.fail("beta", "gives a bound that overflows", beta)
    return float(found)
