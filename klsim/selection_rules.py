r"""Choosing one of n independent draws: the law of what is chosen, exactly.

*Soft best-of-n*: draw i is chosen with probability ``w_i / sum_j w_j``, ``w = exp(r/T)``. As
``1/S = \int_0^\infty e^{-sS} ds``,

.. math:: P(y) = n\, p_y w_y \int_0^\infty e^{-s w_y} M(s)^{n-1} ds, \qquad M(s) = \sum_x p_x e^{-s w_x},

an integral over ``u = log s`` of a function that is analytic and falls off exponentially or faster at both ends: the
trapezoidal rule converges geometrically.

With any weights this is importance resampling (`weighted_choice`).

*Majority vote*: the most frequent of n answers, ties broken uniformly. With ``\int_0^1 t^j dt = 1/(j+1)`` for j tied
rivals,

.. math:: P(a) = n!\,[z^n] \sum_c \frac{(p_a z)^c}{c!} \int_0^1 \prod_{b \ne a}
          \Big(\sum_{j<c} \frac{(p_b z)^j}{j!} + t \frac{(p_b z)^c}{c!}\Big) dt.

*Best of n by a noisy score* ``r + e`` with independent noise of density f, distribution G:
``P(y) = n p_y \int f(x - r_y) H(x)^{n-1} dx``, ``H(x) = sum_z p_z G(x - r_z)``.

*Rejection*: the first draw whose reward reaches a threshold, the last of n if none does.

The best and the worst of n are `klsim.best_of_n.log_policy` of the reward and of its negative.

Sources: soft best-of-n: Verdun et al. (2025), arXiv:2505.03156; majority vote ("self-consistency"): Wang et al. (2022),
arXiv:2203.11171. The forms above are derived here.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from scipy.special import gammaln, roots_legendre

from klsim import _validate
from klsim._votes import votes_on_the_circle
from klsim.distributions import log_normalize

__all__ = ["majority_vote", "noisy_best_of_n", "rejection", "soft_best_of_n", "weighted_choice"]

_STEP = 1 / 16  # of the trapezoidal rule in log s; the error falls as exp(-pi^2 / step) and is far below rounding
_NODES = 200_000


class _Noise(Protocol):
    """A law on the line as `scipy.stats` gives them."""

    def logpdf(self, x: Any) -> Any: ...
    def logcdf(self, x: Any) -> Any: ...
    def ppf(self, q: Any) -> Any: ...
    def isf(self, q: Any) -> Any: ...


def _law(log_p: Any, n: int) -> tuple[np.ndarray, int]:
    (log_p,) = _validate.numpy_arrays(log_p=log_p)
    _validate.log_probs("log_p", np, log_p)
    if log_p.ndim != 1:
        _validate.fail("log_p", f"must be one law (A,), got shape {log_p.shape}")
    return log_p.astype(np.float64), _validate.integer("n", n, low=1)


def _rewards(reward: Any, log_p: np.ndarray) -> np.ndarray:
    (reward,) = _validate.numpy_arrays(reward=reward)
    _validate.finite("reward", np, reward)
    if reward.shape != log_p.shape:
        _validate.fail("reward", f"must have the shape of log_p, {log_p.shape}, got {reward.shape}")
    return np.asarray(reward, dtype=np.float64)


def _log_sum(x: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.logaddexp.reduce(x, axis=axis))


def weighted_choice(log_p: Any, log_weight: Any, n: int) -> np.ndarray:
    """Log-law of one of n draws, taken with probability proportional to its weight, ``(A,)``: importance resampling.

    Args:
        log_p: the law of the draws. log_weight: of every outcome, ``(A,)``, -inf for none; where no draw has a weight
            any of them is taken.

    As n grows it tends to ``p w / sum p w``.

    Raises:
        ValueError: no log-probabilities ``(A,)``, a weight that is NaN or infinite, ``n < 1``, weights that span more
            than 12,000 nats.
    """
    log_p, n = _law(log_p, n)
    (log_weight,) = _validate.numpy_arrays(log_weight=log_weight)
    _validate.not_nan("log_weight", np, log_weight)
    if log_weight.shape != log_p.shape:
        _validate.fail("log_weight", f"must have the shape of log_p, {log_p.shape}, got {log_weight.shape}")
    index = _validate.first_true(np, np.isposinf(log_weight))
    if index is not None:
        _validate.fail("log_weight", "must be < inf", float(log_weight[index]), index)
    law = _choice(log_p, log_weight.astype(np.float64), n)
    if law is None:
        _validate.fail("log_weight", "spans more than 12,000 nats")
    return np.asarray(law)


def soft_best_of_n(log_p: Any, reward: Any, n: int, temperature: float) -> np.ndarray:
    """Log-law of the draw chosen among n with probability proportional to ``exp(reward / temperature)``, ``(A,)``.

    Raises:
        ValueError: no log-probabilities ``(A,)``, a reward that is not finite, ``n < 1``, ``temperature <= 0`` or so
            small that the weights span more than 12,000 nats (`klsim.best_of_n.log_policy` is the limit).
    """
    log_p, n = _law(log_p, n)
    reward = _rewards(reward, log_p)
    temperature = _validate.real("temperature", temperature, low=0.0, open_low=True)
    inside = np.isfinite(log_p)
    with np.errstate(over="ignore"):
        law = _choice(log_p, np.where(inside, (reward - reward[inside].max()) / temperature, 0.0), n)
    if law is None:
        _validate.fail("temperature", "is too small for these rewards: take the best of n", temperature)
    return np.asarray(law)


def _choice(log_p: np.ndarray, log_weight: np.ndarray, n: int) -> np.ndarray | None:
    """`weighted_choice`; None where the weights span too much."""
    out = np.full(log_p.shape, -np.inf)
    dead = np.isfinite(log_p) & np.isneginf(log_weight)
    live = np.isfinite(log_p) & np.isfinite(log_weight)
    if np.isneginf(log_weight[np.isfinite(log_p)]).any() and not live.any():
        return log_p
    p = log_p[live]
    log_w = log_weight[live] - log_weight[live].max()
    log_none = min(float(np.logaddexp.reduce(log_p[dead], initial=-np.inf)), 0.0)  # that a draw has no weight
    # s from where n s w is 1e-18 to where the least weight alone makes exp(-s w) vanish
    low, high = -42.0 - np.log(n), 7.0 - log_w.min()
    if not (high - low) / _STEP <= _NODES:
        return None
    u = np.arange(low, high + _STEP, _STEP)
    with np.errstate(over="ignore"):
        fall = -np.exp(u[:, None] + log_w)  # (U, A)
    log_m = np.logaddexp(_log_sum(p + fall, axis=1), log_none)
    with np.errstate(invalid="ignore"):
        tail = np.where(n > 1, (n - 1) * log_m, 0.0)
    integral = _log_sum(u[:, None] + fall + tail[:, None], axis=0) + np.log(_STEP)
    with np.errstate(divide="ignore"):
        out[live] = log_normalize(p + log_w + integral) + np.log(-np.expm1(n * log_none))
    if dead.any():
        out[dead] = log_p[dead] + (n - 1) * log_none
    return out


def majority_vote(log_p: Any, n: int) -> np.ndarray:
    """Probability of every answer to be the most frequent of n, ties broken uniformly, ``(A,)``.

    Raises:
        ValueError: no log-probabilities ``(A,)``; ``n < 1`` or above 100,000, more than 64 answers with a probability.

    Up to n = 400 by products of polynomials; beyond, the coefficient of ``z^n`` by sums on the unit circle, whose error
    is absolute (1e-14).
    """
    log_p, n = _law(log_p, n)
    if n > 100_000:
        _validate.fail("n", "must be at most 100,000", n)
    inside = np.flatnonzero(np.isfinite(log_p))
    if len(inside) > 64:
        _validate.fail("log_p", f"must have at most 64 answers with a probability, got {len(inside)}")
    if n > 400:
        shares = np.zeros(log_p.shape)
        shares[inside] = votes_on_the_circle(np.exp(log_normalize(log_p[inside])), n)
        return shares
    counts = np.arange(n + 1)
    # the exponential series with weights of Poisson variables of mean n p: coefficients are probabilities
    mean = n * np.exp(log_p[inside])
    series = np.exp(counts * np.log(mean)[:, None] - mean[:, None] - gammaln(counts + 1))  # (A, n + 1)
    t, weight = roots_legendre(len(inside) // 2 + 1)
    t, weight = 0.5 * (t + 1), 0.5 * weight
    out = np.zeros(log_p.shape)
    for a, place in enumerate(inside):
        out[place] = sum(
            series[a, c] * (weight @ _rivals(np.delete(series, a, axis=0), c, n - c, t)) for c in range(1, n + 1)
        )
    log_total = n * np.log(n) - n - gammaln(n + 1)  # that the Poisson variables add up to n
    return np.asarray(out / np.exp(log_total))


def _rivals(series: np.ndarray, c: int, rest: int, t: np.ndarray) -> np.ndarray:
    """Chance that rivals have ``rest`` votes in all and at most c each, ``t`` to the number of those that have c."""
    product = np.zeros((len(t), rest + 1))
    product[:, 0] = 1.0
    for rival in series:
        factor = np.tile(np.where(np.arange(rest + 1) < c, rival[: rest + 1], 0.0), (len(t), 1))
        if c <= rest:
            factor[:, c] = t * rival[c]
        product = np.stack([np.convolve(x, y)[: rest + 1] for x, y in zip(product, factor)])
    return np.asarray(product[:, rest])


def noisy_best_of_n(log_p: Any, reward: Any, n: int, noise: _Noise, *, nodes: int = 4001) -> np.ndarray:
    """Log-law of the draw with the highest ``reward + noise`` of n, ``(A,)``.

    Args:
        noise: its law, e.g. ``scipy.stats.norm(scale=0.5)``; the integral is the trapezoidal rule in quantiles that are
            equidistant in ``log(q/(1-q))``, which reaches far into heavy tails.
        nodes: of the rule for each outcome.

    Raises:
        ValueError: no log-probabilities ``(A,)``, a reward that is not finite, ``n < 1``, fewer than 101 nodes.
    """
    log_p, n = _law(log_p, n)
    reward = _rewards(reward, log_p)
    nodes = _validate.integer("nodes", nodes, low=101)
    for name in ("logcdf", "ppf", "isf"):
        if not callable(getattr(noise, name, None)):
            _validate.fail("noise", f"must be a law with logcdf, ppf and isf, as scipy.stats.norm(), got {noise!r:.60}")
    inside = np.isfinite(log_p)
    p, r = log_p[inside], reward[inside]
    edge = 40.0 + 2 * np.log(n)
    logit = np.linspace(-edge, edge, nodes)
    tail = np.exp(-np.logaddexp(0.0, np.abs(logit)))
    x = np.where(logit < 0, noise.ppf(tail), noise.isf(tail))  # quantiles, exact in both tails
    log_dq = -np.logaddexp(0.0, logit) - np.logaddexp(0.0, -logit) + np.log(logit[1] - logit[0])
    out = np.full(log_p.shape, -np.inf)
    law = np.empty(len(p))
    for y in range(len(p)):  # int f(x) H(x + r_y)^{n-1} dx = int H(x_q + r_y)^{n-1} dq
        log_h = _log_sum(p + noise.logcdf(x[:, None] + r[y] - r), axis=1)
        law[y] = p[y] + _log_sum(log_dq + (n - 1) * np.minimum(log_h, 0.0), axis=0)
    out[inside] = log_normalize(law)
    return out


def rejection(log_p: Any, reward: Any, n: int, threshold: float) -> np.ndarray:
    """Log-law of the first of n draws with ``reward >= threshold``, of the last draw if none has, ``(A,)``.

    With ``q = P(r < threshold)``: ``p(y) (1 - q^n)/(1 - q)`` where the reward reaches it, ``p(y) q^{n-1}`` where not.

    Raises:
        ValueError: no log-probabilities ``(A,)``, a reward that is not finite, a threshold that is NaN, ``n < 1``.
    """
    log_p, n = _law(log_p, n)
    reward = _rewards(reward, log_p)
    threshold = _validate.real("threshold", threshold)
    fine = reward >= threshold
    log_q = min(float(_log_sum(np.where(fine, -np.inf, log_p), axis=0)), 0.0)
    log_right = min(float(_log_sum(np.where(fine, log_p, -np.inf), axis=0)), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        tried = np.log(-np.expm1(n * log_q)) - log_right if log_right > -np.inf else 0.0
        missed = (n - 1) * log_q if n > 1 else 0.0
    return np.where(np.isneginf(log_p), -np.inf, log_p + np.where(fine, tried, missed))
