r"""What losses on preferences converge to, on a finite set of responses with population labels.

Pairs (i, j) come with frequency ``w_ij``, i is preferred with chance ``P_ij``; ``D`` and ``U`` are the shares of the
responses among those preferred and among the others, ``r`` the Bradley-Terry fit, ``h = log(pi/ref)``.

==========  ==========================================================================================================
DPO         ``ref e^{r/beta}/Z``
IPO         ``ref e^h/Z``, h the least-squares fit of ``(P_ij - P_ji)/2 tau``
χ²-PO       ``phi(pi/ref) = r/beta + c``, ``phi(t) = t + log t``: best of ``E[r] - beta E_ref[(t-1)^2/2 + t log t]``
SimPO       ``log pi_i = L_i (s_i/beta + c)``, s the Bradley-Terry fit with margin gamma, ``L_i`` tokens; no reference
ORPO        a stationary point of ``-sum_i D_i m_i - lam sum_ij W_ij log sigma(o_i - o_j)``, ``m_i = log pi_i / L_i``,
            ``o = log(e^m/(1 - e^m))``; no reference
KTO         with ``c_i = a D_i - b U_i``: ``pi_i = 0`` where ``c_i <= 0``; elsewhere
            ``c_i sigma'(beta (h_i - z)) / pi_i`` is one constant, and ``z = KL(pi‖ref)``
==========  ==========================================================================================================

*Preferences of 0 or 1* and *no coverage*: the fits of DPO, χ²-PO and SimPO are then infinite or not unique, which is
an error. IPO needs comparisons that connect all responses. ORPO and KTO have an optimum in any case: what is never
preferred (KTO: not preferred more than it is beaten) gets probability 0, and so does what is not compared.

*KTO*: the loss is ``sum_i (b U_i - a D_i) sigma(beta (h_i - z))`` and a constant, z detached. For ``beta <= 1`` it is
concave in each probability with ``c_i > 0`` and falls with them, so that for given z it has one minimum, at which the
others are 0. With ``y = beta (h - z)`` it says ``(1/beta - 1) y + 2 log(1 + e^y) = log(c/ref) - l`` and z is the KL
exactly where ``E_pi[y] = 0``: one equation for l.

Sources: Rafailov et al. (2023), arXiv:2305.18290 (DPO); Azar et al. (2023), arXiv:2310.12036 (IPO); Huang et al.
(2024), arXiv:2407.13399 (χ²-PO); Meng et al. (2024), arXiv:2405.14734 (SimPO); Hong et al. (2024), arXiv:2403.07691
(ORPO); Ethayarajh et al. (2024), arXiv:2402.01306 (KTO). The optima of SimPO, ORPO and KTO are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize, root
from scipy.special import expit, log_expit, wrightomega

from klsim import _validate
from klsim._shown import Shown
from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.preferences.fits import bradley_terry_fit, ipo_fit
from klsim.preferences.matrices import checked_preference, checked_weights, loser_shares, winner_shares

__all__ = [
    "KTOFixedPoint",
    "chi2_po_policy",
    "dpo_policy",
    "ipo_policy",
    "kto_fixed_point",
    "orpo_policy",
    "simpo_policy",
]

_FURTHEST = 1e12  # of log-ratios: beyond it a float64 does not hold the normaliser


def _reference(log_ref: Any, size: int, *, everywhere: bool = True, name: str = "log_ref") -> np.ndarray:
    (law,) = _validate.numpy_arrays(**{name: log_ref})
    _validate.log_probs(name, np, law)
    if law.shape != (size,):
        _validate.fail(name, f"must have shape ({size},), got {law.shape}")
    if everywhere and not np.all(np.isfinite(law)):
        _validate.fail(name, "must give every response that is compared a probability")
    return np.asarray(law, dtype=np.float64)


def _lengths(lengths: Any, size: int) -> np.ndarray:
    (given,) = _validate.numpy_arrays(lengths=lengths)
    tokens = _validate.finite("lengths", np, given).astype(np.float64)
    if tokens.shape != (size,) or np.any(tokens < 1) or np.any(tokens > 1e9):
        _validate.fail("lengths", f"must be a vector ({size},) of numbers of tokens in [1, 1e9]")
    return tokens


def _fit_over_beta(fit: np.ndarray, beta: float) -> np.ndarray:
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    with np.errstate(over="ignore"):
        scaled = fit / beta
    if not np.abs(scaled).max() <= _FURTHEST:
        _validate.fail("beta", f"is too small: the fit over beta exceeds {_FURTHEST:g}", beta)
    return scaled


def dpo_policy(log_ref: Any, preference: Any, beta: float, weights: Any = None) -> np.ndarray:
    """The optimum of DPO with population labels, ``ref e^{r/beta}/Z``, ``(A,)``.

    Raises:
        ValueError: as `bradley_terry_fit`; no reference with a probability for every response; ``beta <= 0``.
    """
    fit = bradley_terry_fit(preference, weights)
    return np.asarray(tilt(_reference(log_ref, len(fit)), _fit_over_beta(fit, beta), 1.0))


def ipo_policy(log_ref: Any, preference: Any, tau: float, weights: Any = None) -> np.ndarray:
    """The optimum of IPO with population labels, ``ref e^h/Z``, ``(A,)``.

    Raises:
        ValueError: as `ipo_fit`; no reference with a probability for every response.
    """
    fit = ipo_fit(preference, tau, weights)
    if not np.abs(fit).max() <= _FURTHEST:
        _validate.fail("tau", f"is too small: the fit exceeds {_FURTHEST:g}", tau)
    return np.asarray(log_normalize(_reference(log_ref, len(fit)) + fit))


def chi2_po_policy(log_ref: Any, preference: Any, beta: float, weights: Any = None) -> np.ndarray:
    """The optimum of χ²-PO with population labels, ``phi(pi/ref) = r/beta + c``, ``phi(t) = t + log t``, ``(A,)``.

    Raises:
        ValueError: as `dpo_policy`.
    """
    fit = bradley_terry_fit(preference, weights)
    log_ref, scaled = _reference(log_ref, len(fit)), _fit_over_beta(fit, beta)
    ref, below = np.exp(log_ref), scaled - scaled.max()

    def excess(top: float) -> float:  # of the sum of probabilities over 1; top: phi of the largest ratio
        return float(ref @ wrightomega(top + below) - 1)

    # the largest ratio is at least 1, the smallest at most 1
    top = brentq(excess, 0.999, 1.001 - below.min(), xtol=1e-14, rtol=1e-14, maxiter=1000)
    phi = top + below
    ratio = wrightomega(phi)  # t + log t = phi
    log_ratio = np.where(phi > 1, np.log(np.maximum(ratio, 1.0)), phi - ratio)
    return np.asarray(log_normalize(log_ref + log_ratio))


def simpo_policy(lengths: Any, preference: Any, beta: float, *, gamma: float = 0.0, weights: Any = None) -> np.ndarray:
    """The optimum of SimPO with population labels, ``log pi_i = L_i (s_i/beta + c)``, ``(A,)``.

    Args:
        lengths: tokens of each response, ``(A,)``. gamma: the target margin, in [0, 100].

    Raises:
        ValueError: as `bradley_terry_fit`; lengths below 1; ``beta <= 0``; a gamma outside its range.
    """
    gamma = _validate.real("gamma", gamma, low=0.0, high=100.0)
    fit = bradley_terry_fit(preference, weights, margin=gamma)
    tokens, scaled = _lengths(lengths, len(fit)), _fit_over_beta(fit, beta)
    below = scaled - scaled.max()
    top = below == 0

    def excess(x: float) -> float:  # of the sum of probabilities over 1, x the largest mean log-probability
        each = np.where(top, np.expm1(tokens * x), np.exp(tokens * (below + x)))
        return float(each.sum() + top.sum() - 1)

    low = -np.log(len(fit)) / tokens.min()
    x = brentq(excess, 1.001 * low - 1e-300, 0.0, xtol=1e-300, rtol=1e-15, maxiter=5000) if len(fit) > 1 else 0.0
    return np.asarray(log_normalize(tokens * (below + x)))


def orpo_policy(lengths: Any, preference: Any, lam: float, *, weights: Any = None, start: Any = None) -> np.ndarray:
    """A stationary point of ORPO's population loss, ``(A,)``; 0 where a response is never preferred.

    Descent from ``D/L`` (the optimum at ``lam = 0``), or from ``start``, and Newton's method from there. The loss is
    not convex; other starts have not led to other points in the tests.

    Args:
        lengths: tokens of each response, ``(A,)``. lam: weight of the odds ratio, in [0, 1e6].
        start: log-probabilities, ``(A,)``.

    Raises:
        ValueError: no preference matrix or weights; no comparisons; lengths below 1; a lam outside its range.
        RuntimeError: no stationary point found.
    """
    p = checked_preference(preference)
    shares, won = winner_shares(p, weights), checked_weights(weights, p) * p
    tokens = _lengths(lengths, len(p))
    lam = _validate.real("lam", lam, low=0.0, high=1e6)
    kept = shares > 0
    out = np.where(kept, 0.0, -np.inf)
    if kept.sum() == 1:
        return out
    share, length = shares[kept], tokens[kept]
    pairs = (won / won.sum())[np.ix_(kept, kept)]  # against what gets 0 the odds ratio costs nothing
    begin = np.log(share / length) if start is None else _reference(start, len(p), name="start")[kept]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_normalize(x)
        mean = np.minimum(log_p / length, -1e-300)
        odds = mean - np.log(-np.expm1(mean))
        gap = odds[:, None] - odds[None]
        pull = pairs * expit(-gap)
        slope = -share / length + lam * (pull - pull.T).sum(axis=1) / np.expm1(mean) / length
        value = -share @ mean - lam * np.sum(pairs * log_expit(gap))
        return float(value), slope - np.exp(log_p) * slope.sum()

    x = minimize(loss, log_normalize(begin), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    found = root(lambda free: loss(np.append(free, 0.0))[1][:-1], (x - x[-1])[:-1], tol=1e-14)
    best = np.append(found.x, 0.0)
    best = best if np.abs(loss(best)[1]).max() <= np.abs(loss(x)[1]).max() else x
    if not np.abs(loss(best)[1]).max() < 1e-7 * (1 + lam):
        raise RuntimeError(f"lam = {lam}: no stationary point found")
    out[kept] = log_normalize(best)
    return out


@dataclass(frozen=True, repr=False)
class KTOFixedPoint(Shown):
    """A policy that minimises KTO's loss at the reference point of its own KL (nats)."""

    log_policy: np.ndarray
    reference_point: float


def kto_fixed_point(
    log_ref: Any,
    preference: Any,
    beta: float,
    *,
    desirable: float = 1.0,
    undesirable: float = 1.0,
    weights: Any = None,
) -> KTOFixedPoint:
    """The policy of least KTO loss at ``z = KL(pi‖ref)``, z detached, with population labels.

    Every comparison gives one desirable response (the preferred one) and one undesirable.

    Args:
        log_ref: ``(A,)``. beta: in (0, 1]; above 1 the loss is not concave in a probability.
        desirable, undesirable: the weights a and b, ``> 0``.

    Raises:
        ValueError: no preference matrix or weights; no comparisons; a response that is compared and that the reference
            does not have; no response with ``a D > b U`` (as when all tie: every policy is a minimum).
    """
    p = checked_preference(preference)
    log_ref = _reference(log_ref, len(p), everywhere=False)
    beta = _validate.real("beta", beta, low=1e-6, high=1.0)
    good = _validate.real("desirable", desirable, low=1e-100, high=1e100)
    bad = _validate.real("undesirable", undesirable, low=1e-100, high=1e100)
    if np.any(~np.isfinite(log_ref) & (checked_weights(weights, p).sum(axis=1) > 0)):
        _validate.fail("log_ref", "must give every response that is compared a probability")
    gain = good * winner_shares(p, weights) - bad * loser_shares(p, weights)
    kept = gain > 1e-13 * max(good, bad)  # less is rounding of a tie
    if not kept.any():
        _validate.fail("preference", "has no response with more desirable than undesirable weight: no unique optimum")
    ref, target = log_ref[kept], np.log(gain[kept]) - log_ref[kept]
    out = np.full(len(p), -np.inf)

    def policy(level: float) -> tuple[np.ndarray, np.ndarray]:
        y = _kto_logits(target - level, 1 / beta - 1)
        return log_normalize(ref + y / beta), y

    def mean_logit(level: float) -> float:
        log_p, y = policy(level)
        law = np.exp(log_p)
        return float(law[law > 0] @ y[law > 0])

    # at these ends all logits are positive, and all negative
    low, high = target.min() - 2 * np.log(2) - 1e-6, target.max() - 2 * np.log(2) + 1e-6
    out[kept] = policy(brentq(mean_logit, low, high, xtol=1e-14, rtol=1e-14))[0]
    return KTOFixedPoint(out, float(kl(out, log_ref)))


def _kto_logits(t: np.ndarray, slope: float) -> np.ndarray:
    """y with ``slope y + 2 log(1 + e^y) = t``; ``-inf`` where there is none (``slope = 0``, ``t <= 0``)."""
    if slope == 0:
        with np.errstate(divide="ignore"):
            return np.log(np.expm1(np.maximum(t, 0.0) / 2))
    y = np.minimum((t - 2 * np.log(2)) / (slope + 1), t / np.where(t > 0, slope + 2, slope))
    for _ in range(200):  # Newton from above on a convex function that rises: monotone
        step = (slope * y + 2 * np.logaddexp(0.0, y) - t) / (slope + 2 * expit(y))
        y = y - step
        if np.all(np.abs(step) <= 1e-15 * (1 + np.abs(y))):
            break
    return np.asarray(y)
