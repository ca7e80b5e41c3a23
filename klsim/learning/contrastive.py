r"""Binary contrastive estimation of transition laws: is s' the true successor, or a draw from a known negative law?

With label 1 and ``s' ~ P(.|s,a)`` once, label 0 and ``s' ~ P^-`` k times per positive, a critic ``f(s,a,s') > 0`` (the
odds of label 1, given by its log) has the loss

.. math:: \ell(f) = \tfrac1{k+1} \sum_{s'} \big[ P \log(1 + 1/f) + k P^- \log(1 + f) \big],

whose only minimiser is the density ratio ``f* = P / (k P^-)``: the model is ``Phat = k P^- f``. What a critic loses is
a Kullback-Leibler divergence of the posterior ``g = f / (1 + f)`` (`contrastive_excess`), and for k = 1 that bounds the
model's error: ``||Phat - P||_1^2 <= 2 (1 + max f)^2 excess`` (`squared_l1_bound`). Estimated from counts, the error is
asymptotically normal (`ratio_covariance`), with a term ``P^2 / P^-`` that explodes where negatives are rare.

Source: ``contrastive-ucb`` C1-C3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from klsim import _validate
from klsim.divergences import kl
from klsim.problems.transition_rows import probabilities

__all__ = [
    "contrastive_excess",
    "contrastive_gradient",
    "contrastive_loss",
    "count_critic",
    "count_loss",
    "density_ratio",
    "estimate_transition",
    "mean_squared_l1",
    "posterior_error",
    "ratio_covariance",
    "squared_l1_bound",
]


def _laws(transition: Any, negative: Any) -> tuple[np.ndarray, np.ndarray]:
    p, q = probabilities("transition", transition), probabilities("negative", negative)
    _validate.positive("negative", np, q)
    _validate.same_last_axis(transition=p, negative=q)
    _validate.broadcast(transition=p, negative=q)
    return p, q


def _critic(log_critic: Any, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    (given,) = _validate.numpy_arrays(log_critic=log_critic)
    _validate.not_nan("log_critic", np, given)
    if given.ndim == 0 or given.shape[-1] != p.shape[-1]:
        _validate.fail("log_critic", f"must have {p.shape[-1]} entries on its last axis, got shape {given.shape}")
    _validate.broadcast(log_critic=given, transition=p, negative=q)
    return given


def _negatives(negatives: int) -> int:
    return _validate.integer("negatives", negatives, low=1, high=10**9)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0.0, x))


def density_ratio(transition: Any, negative: Any, negatives: int = 1) -> np.ndarray:
    """The optimal critic ``log f* = log P - log(k P^-)``, ``(..., S)``; ``-inf`` where ``P = 0``.

    Args:
        transition: ``(..., S)``. negative: ``(..., S)``, positive everywhere. negatives: k per positive.
    """
    p, q = _laws(transition, negative)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p) - np.log(_negatives(negatives)) - np.log(q))


def contrastive_loss(log_critic: Any, transition: Any, negative: Any, negatives: int = 1) -> np.ndarray:
    """Population loss per sample, ``(...)``, in nats: ``(sum P log(1+1/f) + k sum P^- log(1+f)) / (k+1)``.

    Args:
        log_critic: ``log f (..., S)``; ``-inf`` is legal where ``P = 0``. The rest as `density_ratio`.
    """
    p, q = _laws(transition, negative)
    k, log_f = _negatives(negatives), _critic(log_critic, p, q)
    with np.errstate(invalid="ignore"):
        positive = np.where(p > 0, p * _softplus(-log_f), 0.0)
    return np.asarray((positive + k * q * _softplus(log_f)).sum(axis=-1) / (k + 1))


def contrastive_gradient(log_critic: Any, transition: Any, negative: Any, negatives: int = 1) -> np.ndarray:
    """The derivative of `contrastive_loss` in ``log f``: ``(k P^- g - P (1-g)) / (k+1)``, ``(..., S)``."""
    p, q = _laws(transition, negative)
    k, log_f = _negatives(negatives), _critic(log_critic, p, q)
    return np.asarray((k * q * expit(log_f) - p * expit(-log_f)) / (k + 1))


def contrastive_excess(log_critic: Any, transition: Any, negative: Any, negatives: int = 1) -> np.ndarray:
    r"""``loss(f) - loss(f*) = sum_s' (P + k P^-)/(k+1) KL(Ber(g*)‖Ber(g))``, ``(...)``, in nats; >= 0."""
    p, q = _laws(transition, negative)
    k, log_f = _negatives(negatives), _critic(log_critic, p, q)
    best = density_ratio(p, q, k)
    posteriors = [np.stack([-_softplus(-x), -_softplus(x)], axis=-1) for x in (best, log_f)]
    shape = np.broadcast_shapes(*(x.shape for x in posteriors))
    divergence = kl(*(np.broadcast_to(x, shape) for x in posteriors))
    return np.asarray(((p + k * q) / (k + 1) * divergence).sum(axis=-1))


def posterior_error(log_critic: Any, transition: Any, negative: Any) -> np.ndarray:
    r"""``2 E_{s'~(P + P^-)/2}[(1 + f) |g - g*|]``, ``(...)``: exactly ``||P^- f - P||_1``; one negative a positive."""
    p, q = _laws(transition, negative)
    log_f = _critic(log_critic, p, q)
    _validate.budgets("log_critic", np, 700.0 - log_f)  # f must be a float
    distance = np.abs(expit(log_f) - expit(density_ratio(p, q)))
    return np.asarray(((p + q) * (1 + np.exp(log_f)) * distance).sum(axis=-1))


def squared_l1_bound(excess: Any, largest: Any) -> np.ndarray:
    """``2 (1 + B)^2 excess``: what ``||P^- f - P||_1^2`` is at most, for critics ``f <= B``; broadcast.

    Averages of both sides over pairs (s, a) too, with a common B. ``B = 1 / min P^-`` for normalised models.
    """
    excess, largest = _validate.numpy_arrays(excess=excess, largest=largest)
    _validate.broadcast(excess=excess, largest=largest)
    for name, x in (("excess", excess), ("largest", largest)):
        _validate.budgets(name, np, _validate.finite(name, np, x))
    with np.errstate(over="ignore", invalid="ignore"):
        bound = 2 * (1 + largest) ** 2 * excess
    _validate.representable("largest", np, bound)
    return np.asarray(bound)


def _counts(positives: Any, negatives: Any, smoothing: float) -> tuple[np.ndarray, np.ndarray, float]:
    n1, n0 = _validate.numpy_arrays(positives=positives, negatives=negatives)
    for name, x in (("positives", n1), ("negatives", n0)):
        _validate.budgets(name, np, _validate.finite(name, np, x))
        if x.ndim == 0 or (x.size and float(x.max()) > 1e100):
            _validate.fail(name, "must be an array of counts below 1e100")
    _validate.broadcast(positives=n1, negatives=n0)
    return n1, n0, _validate.real("smoothing", smoothing, low=1e-100, high=1e100)


def count_critic(positives: Any, negatives: Any, smoothing: float = 0.5) -> np.ndarray:
    """The empirical critic ``log f = log (n1 + c) - log (n0 + c)``, broadcast; c is the ``smoothing``, > 0."""
    n1, n0, c = _counts(positives, negatives, smoothing)
    return np.asarray(np.log(n1 + c) - np.log(n0 + c))


def count_loss(positives: Any, negatives: Any, smoothing: float = 0.5) -> np.ndarray:
    """``sum n1 log(1 + 1/f) + n0 log(1 + f)`` of the empirical critic `count_critic`, over the last axis, ``(...)``."""
    n1, n0, c = _counts(positives, negatives, smoothing)
    total = np.log(n1 + n0 + 2 * c)
    return np.asarray((n1 * (total - np.log(n1 + c)) + n0 * (total - np.log(n0 + c))).sum(axis=-1))


def estimate_transition(
    transition: Any, negative: Any, samples: int, size: int, rng: np.random.Generator | int, *, smoothing: float = 0.5
) -> np.ndarray:
    """Models ``Phat = P^- f``, ``(size, S)``, each from ``samples // 2`` positives and as many negatives.

    Args:
        transition, negative: ``(S,)``. smoothing: of `count_critic`; the model is not normalised.
    """
    p, q = _laws(transition, negative)
    if p.ndim != 1 or q.ndim != 1:
        _validate.fail("transition", f"must have shape (S,) like negative: {p.shape}, {q.shape}")
    half = _validate.integer("samples", samples, low=2) // 2
    size = _validate.integer("size", size, low=0)
    _validate.fits("size", size, 2 * size * p.size)
    rng = _validate.generator(rng)
    positives, draws = (rng.multinomial(half, law, size) for law in (p, q))
    return np.asarray(q * np.exp(count_critic(positives, draws, smoothing)))


def ratio_covariance(transition: Any, negative: Any) -> np.ndarray:
    r"""Of the limit law of ``sqrt(k) (Phat - P)``, k samples of which half are negatives, ``(S, S)``.

    ``C = 2 (diag P - P P') + 2 (diag P^2/P^- - P P')``: the noise of the positives and that of the negatives.
    """
    p, q = _laws(transition, negative)
    if p.ndim != 1 or q.ndim != 1:
        _validate.fail("transition", f"must have shape (S,) like negative: {p.shape}, {q.shape}")
    _validate.fits("transition", p.size, p.size**2)
    with np.errstate(over="ignore"):
        ratio = p * (p / q)
    _validate.representable("negative", np, ratio)
    return np.asarray(2 * (np.diag(p + ratio) - 2 * np.outer(p, p)))


def mean_squared_l1(covariance: Any) -> float:
    r"""``E ||x||_1^2`` of ``x ~ N(0, C)``: ``sum_ij s_i s_j (2/pi) (sqrt(1 - rho^2) + rho arcsin rho)``.

    Args:
        covariance: ``(S, S)``, symmetric, with correlations in [-1, 1].
    """
    (c,) = _validate.numpy_arrays(covariance=covariance)
    if c.ndim != 2 or c.shape[0] != c.shape[1] or 0 in c.shape:
        _validate.fail("covariance", f"must be square, got shape {c.shape}")
    if not bool(np.all(np.abs(c) <= 1e150)) or not np.allclose(c, c.T, rtol=1e-8, atol=0.0):
        _validate.fail("covariance", "must be symmetric with entries of at most 1e150")
    _validate.budgets("covariance", np, np.diag(c))
    deviation = np.sqrt(np.diag(c))
    product = np.outer(deviation, deviation)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rho = np.where(product > 0, c / np.where(product > 0, product, 1.0), np.where(c == 0, 0.0, np.inf))
    index = _validate.first_true(np, ~(np.abs(rho) <= 1 + 1e-8))
    if index is not None:
        _validate.fail("covariance", "its correlations must lie in [-1, 1]", float(rho[index]), index)
    rho = np.clip(rho, -1.0, 1.0)
    return float(np.sum(product * (np.sqrt(1 - rho**2) + rho * np.arcsin(rho))) * 2 / np.pi)
