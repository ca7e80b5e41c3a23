r"""Nash policies of preference games, regularised towards a reference.

*Regularised Nash* (NLHF): ``max_pi min_mu P(pi > mu) - tau KL(pi‖ref) + tau KL(mu‖ref)``. The game is symmetric with
value 1/2; its only solution satisfies ``pi = ref exp(P pi / tau)/Z``. A policy can be exploited by
``tau log sum ref exp(P pi/tau) + tau KL(pi‖ref) - 1/2``; without regularisation (``tau = 0``) by
``max_i (P pi)_i - 1/2`` over the responses that the reference has.

Source: Munos et al. (2023), arXiv:2312.00886 (NLHF).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.preferences.matrices import checked_preference

__all__ = ["Nash", "exploitability", "regularized_nash"]


@dataclass(frozen=True, repr=False)
class Nash(Shown):
    """A regularised Nash policy, and what a best response gains on it (0 but for rounding): preference units."""

    log_policy: np.ndarray
    gap: float


def _law(name: str, given: Any, size: int) -> np.ndarray:
    (law,) = _validate.numpy_arrays(**{name: given})
    _validate.log_probs(name, np, law)
    if law.shape != (size,):
        _validate.fail(name, f"must have shape ({size},), got {law.shape}")
    return np.asarray(law, dtype=np.float64)


def exploitability(log_policy: Any, preference: Any, log_ref: Any, tau: float) -> float:
    """``max_mu P(mu > pi) - tau KL(mu‖ref) + tau KL(pi‖ref) - 1/2``: what a best response gains, 0 at the solution.

    At ``tau = 0`` the best single response that the reference has.

    Raises:
        ValueError: no preference matrix, no log-probabilities of its size, ``tau < 0``.
    """
    p = checked_preference(preference)
    tau = _validate.real("tau", tau, low=0.0, open_high=True)
    log_policy, log_ref = _law("log_policy", log_policy, len(p)), _law("log_ref", log_ref, len(p))
    against = p @ np.exp(log_policy)
    if tau == 0:
        return max(float(against[np.isfinite(log_ref)].max() - 0.5), 0.0)
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
    p = checked_preference(preference)
    iterations = _validate.integer("iterations", iterations, low=1)
    tau = _validate.real("tau", tau, low=0.0, open_low=True, open_high=True)
    log_ref = _law("log_ref", log_ref, len(p))
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
