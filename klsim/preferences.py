r"""Preferences between responses: the Bradley-Terry fit, what DPO and IPO converge to, regularised Nash policies.

A preference matrix has ``P_ij = P(i is preferred to j)``, ``P_ij + P_ji = 1``. Comparisons of i and j are made with
frequency ``w_ij`` (symmetric).

*Bradley-Terry*: ``P_ij = sigma(r_i - r_j)``. The fit maximises ``sum_ij w_ij P_ij log sigma(r_i - r_j)``; it solves
``sum_j w_ij sigma(r_i - r_j) = sum_j w_ij P_ij`` for every i, is unique up to a constant where the comparisons connect
all responses, and finite where no group beats the rest every time.

*DPO* with population labels is that fit for ``r = beta log(pi/ref)``: its optimum is the tilt of the fit. *IPO* fits
``h = log(pi/ref)`` by least squares to ``(P_ij - P_ji)/(2 tau)``.

*Regularised Nash* (NLHF): ``max_pi min_mu P(pi > mu) - tau KL(pi‖ref) + tau KL(mu‖ref)``. The game is symmetric with
value 1/2; its only solution satisfies ``pi = ref exp(P pi / tau)/Z``. A policy can be exploited by
``tau log sum ref exp(P pi/tau) + tau KL(pi‖ref) - 1/2``.

Sources: Rafailov et al. (2023), arXiv:2305.18290 (DPO); Azar et al. (2023), arXiv:2310.12036 (IPO); Munos et al.
(2023), arXiv:2312.00886 (NLHF); Hunter (2004), Annals of Statistics 32 (existence of the fit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit

from klsim import _validate
from klsim._shown import Shown
from klsim.distributions import log_normalize
from klsim.divergences import kl

__all__ = [
    "Nash",
    "bradley_terry",
    "bradley_terry_fit",
    "exploitability",
    "from_log_odds",
    "ipo_fit",
    "regularized_nash",
]


def bradley_terry(reward: Any) -> np.ndarray:
    """``sigma(r_i - r_j)``, ``(A, A)``.

    Raises:
        ValueError: rewards that are no finite vector.
    """
    (reward,) = _validate.numpy_arrays(reward=reward)
    _validate.finite("reward", np, reward)
    if reward.ndim != 1:
        _validate.fail("reward", f"must be a vector (A,), got shape {reward.shape}")
    return np.asarray(expit(reward[:, None] - reward[None]))


def from_log_odds(log_odds: Any) -> np.ndarray:
    """The preference matrix with these log-odds above its diagonal, ``(A, A)``; what lies below is not used.

    Raises:
        ValueError: no square matrix of finite numbers.
    """
    (given,) = _validate.numpy_arrays(log_odds=log_odds)
    odds = _validate.finite("log_odds", np, given)
    if odds.ndim != 2 or odds.shape[0] != odds.shape[1]:
        _validate.fail("log_odds", f"must be a matrix (A, A), got shape {odds.shape}")
    upper = np.triu(expit(odds), 1)
    return upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(len(odds))


def _preference(preference: Any) -> np.ndarray:
    (given,) = _validate.numpy_arrays(preference=preference)
    p = _validate.finite("preference", np, given).astype(np.float64)
    if p.ndim != 2 or p.shape[0] != p.shape[1]:
        _validate.fail("preference", f"must be a matrix (A, A), got shape {p.shape}")
    bad = _validate.first_true(np, (p < 0) | (p > 1) | (np.abs(p + p.T - 1) > 1e-9))
    if bad is not None:
        _validate.fail("preference", "must lie in [0, 1] and have P_ij + P_ji = 1", float(p[bad]), bad)
    return p


def _frequency(weights: Any, size: int) -> np.ndarray:
    if weights is None:
        return 1.0 - np.eye(size)
    (given,) = _validate.numpy_arrays(weights=weights)
    w = _validate.finite("weights", np, given).astype(np.float64)
    if w.shape != (size, size) or np.any(w < 0) or not np.allclose(w, w.T, rtol=1e-12, atol=0):
        _validate.fail("weights", f"must be a symmetric matrix ({size}, {size}) of numbers >= 0")
    return w * (1 - np.eye(size))


def bradley_terry_fit(preference: Any, weights: Any = None) -> np.ndarray:
    """The maximum-likelihood rewards of a preference matrix, mean 0, ``(A,)``.

    Args:
        preference: ``(A, A)``. weights: how often each pair is compared, symmetric; None: every pair as often.

    Raises:
        ValueError: no preference matrix; comparisons that do not connect all responses (rewards of the parts are not
            comparable), or a group that always wins against the rest (no finite fit).
    """
    p = _preference(preference)
    w = _frequency(weights, len(p))
    if connected_components(w > 0, directed=False)[0] > 1:
        _validate.fail("weights", "do not connect all responses: rewards of the parts are not comparable")
    if connected_components(w * p > 0, directed=True, connection="strong")[0] > 1:
        _validate.fail("preference", "has a group that is preferred to the rest every time: the fit is infinite")
    r, total = np.zeros(len(p)), max(w.sum(), 1e-300)

    def negative(r: np.ndarray) -> tuple[float, np.ndarray]:
        gap = r[:, None] - r[None]
        return float(-np.sum(w * p * log_expit(gap)) / total), np.sum(w * (expit(gap) - p), axis=1) / total

    r = minimize(negative, r, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "maxiter": 10_000}).x
    for _ in range(50):  # Newton from there
        win = expit(r[:, None] - r[None])
        curvature = w * win * (1 - win)
        hessian = np.diag(curvature.sum(axis=1)) - curvature + 1 / len(p)
        step = np.linalg.lstsq(hessian, np.sum(w * (p - win), axis=1), rcond=None)[0]
        r = r + step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < 1e-13 * (1 + np.abs(r).max()):
            break
    return np.asarray(r - r.mean())


def ipo_fit(preference: Any, tau: float, weights: Any = None) -> np.ndarray:
    """``log(pi/ref)`` up to a constant (mean 0) at the optimum of IPO with population labels, ``(A,)``.

    Raises:
        ValueError: as `bradley_terry_fit`, but for groups that always win: least squares stay finite; ``tau <= 0``.
    """
    p = _preference(preference)
    tau = _validate.real("tau", tau, low=0.0, open_low=True, open_high=True)
    w = _frequency(weights, len(p))
    if connected_components(w > 0, directed=False)[0] > 1:
        _validate.fail("weights", "do not connect all responses: rewards of the parts are not comparable")
    laplacian = np.diag(w.sum(axis=1)) - w + np.full_like(w, w.max(initial=1.0))
    return np.asarray(np.linalg.solve(laplacian, np.sum(w * (p - p.T), axis=1) / (2 * tau)))


@dataclass(frozen=True, repr=False)
class Nash(Shown):
    """A regularised Nash policy, and what a best response gains on it (0 but for rounding): preference units."""

    log_policy: np.ndarray
    gap: float


def exploitability(log_policy: Any, preference: Any, log_ref: Any, tau: float) -> float:
    """``max_mu P(mu > pi) - tau KL(mu‖ref) + tau KL(pi‖ref) - 1/2``: what a best response gains, 0 at the solution.

    Raises:
        ValueError: no preference matrix, no log-probabilities of its size, ``tau <= 0``.
    """
    p = _preference(preference)
    tau = _validate.real("tau", tau, low=0.0, open_low=True, open_high=True)
    log_policy, log_ref = _validate.numpy_arrays(log_policy=log_policy, log_ref=log_ref)
    for name, law in (("log_policy", log_policy), ("log_ref", log_ref)):
        _validate.log_probs(name, np, law)
        if law.shape != (len(p),):
            _validate.fail(name, f"must have shape ({len(p)},), got {law.shape}")
    against = p @ np.exp(log_policy)
    best = against.max()
    answer = best + tau * np.logaddexp.reduce(log_ref + (against - best) / tau)
    return max(float(answer + tau * kl(log_policy, log_ref) - 0.5), 0.0)


def regularized_nash(preference: Any, log_ref: Any, tau: float, *, iterations: int = 20_000) -> Nash:
    """The solution ``pi = ref exp(P pi / tau)/Z`` of the regularised preference game.

    Newton's method on ``log pi``, from the reference along falling tau, steps of at most two nats, and
    of half as many after every thousand that do not arrive.

    Raises:
        ValueError: as `exploitability`; ``iterations < 1``. RuntimeError: not found within ``iterations``.
    """
    p = _preference(preference)
    iterations = _validate.integer("iterations", iterations, low=1)
    exploitability(log_ref, p, log_ref, tau)  # the doors
    log_ref = np.asarray(log_ref, dtype=np.float64)
    inside = np.isfinite(log_ref)
    q, ref = p[np.ix_(inside, inside)], log_ref[inside]
    x, path, tried = ref.copy(), max(1.0, tau), 0  # tried: steps at this tau
    for _ in range(iterations):
        policy = np.exp(x)
        answer = log_normalize(ref + q @ policy / path)
        off = x - answer
        if np.abs(off).max() < 1e-11 * (1 + np.abs(x).max()):
            if path == tau:
                break
            path, tried = max(tau, 0.7 * path), 0
            continue
        jacobian = np.eye(len(x)) - (q - np.exp(answer) @ q) * policy / path
        step = np.linalg.solve(jacobian, -off)
        longest = 2.0 * 0.5 ** (tried // 1000)  # shorter where full steps go round in circles
        x, tried = log_normalize(x + step * min(1.0, longest / np.abs(step).max())), tried + 1
    else:
        raise RuntimeError(f"tau = {tau}: no regularised Nash policy within {iterations} iterations")
    out = np.full(len(p), -np.inf)
    out[inside] = x
    return Nash(out, exploitability(out, p, log_ref, tau))
