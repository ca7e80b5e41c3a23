r"""Responses of several lengths: rewards and KL per token.

A response y has ``|y| > 0`` tokens. Three programmes that divide by lengths:

*Reward per token* (renewal reward: a response costs its tokens) is a fractional programme,

.. math:: \max_\pi \frac{E_\pi[r] - \beta\, KL(\pi\|ref)}{E_\pi|y|} = \rho, \qquad
    E_{ref}\, e^{(r - \rho |y|)/\beta} = 1, \qquad \pi = ref\, e^{(r-\rho|y|)/\beta},

whose optimum needs no normaliser. Dinkelbach's iteration, ``rho <- ratio of the optimum for r - rho |y|``, is Newton's
method on ``beta log E_ref e^{(r - rho|y|)/beta}``, convex in rho: it rises to the solution.

*A KL budget per token*, ``KL(pi‖ref) <= kappa E_pi|y|``, is a KL budget to a longer reference: with
``p = ref e^{kappa|y|}/Z`` it reads ``KL(pi‖p) <= log Z``. Every token of length earns ``beta kappa``.

*Length-normalised rewards* ``r/|y|`` are other rewards: `klsim.optima.kl_regularized` of them.

Sources: Dinkelbach (1967), Management Science 13; the rest is derived here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.distributions import log_normalize, log_partition, tilt
from klsim.divergences import kl
from klsim.optima import Optimum, kl_constrained

__all__ = ["RateOptimum", "kl_per_token", "reward_per_token"]


@dataclasses.dataclass(frozen=True, repr=False)
class RateOptimum(Shown):
    """The policy with the most ``(E[r] - beta KL)/E|y|``.

    Attributes:
        log_policy: ``(A,)``.
        rate: the ratio, reward units per token. gap: no policy has more than ``rate + gap``.
        reward: ``E[r]``. length: ``E|y|``, tokens. kl: nats per response. beta: the coefficient.
        iterations: of Dinkelbach.
    """

    log_policy: np.ndarray
    rate: float
    gap: float
    reward: float
    length: float
    kl: float
    beta: float
    iterations: int


def _responses(log_ref: Any, reward: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    log_ref, reward, lengths = _validate.numpy_arrays(log_ref=log_ref, reward=reward, lengths=lengths)
    _validate.log_probs("log_ref", np, log_ref)
    for name, given in (("reward", reward), ("lengths", lengths)):
        if log_ref.ndim != 1 or given.shape != log_ref.shape:
            _validate.fail(name, f"must be a vector of the size of log_ref, got {given.shape} and {log_ref.shape}")
    _validate.finite("reward", np, reward)
    _validate.positive("lengths", np, lengths)
    return tuple(np.asarray(x, dtype=np.float64) for x in (log_ref, reward, lengths))  # type: ignore[return-value]


def reward_per_token(log_ref: Any, reward: Any, lengths: Any, beta: float) -> RateOptimum:
    """``max_pi (E_pi[r] - beta KL(pi‖ref))/E_pi|y|``: ``pi = ref exp((r - rate |y|)/beta)``.

    Args:
        log_ref, reward: ``(A,)``. lengths: ``(A,)``, tokens, > 0. beta: > 0.

    Raises:
        ValueError: shapes; lengths that are not positive; ``beta <= 0``; rates that overflow.
    """
    log_ref, reward, lengths = _responses(log_ref, reward, lengths)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    inside = np.isfinite(log_ref)
    log_p, r, tokens = log_normalize(log_ref[inside]), reward[inside], lengths[inside]
    with np.errstate(over="ignore"):
        rates = r / tokens
    _validate.representable("reward", np, rates)
    rate, value, log_pi = float(np.exp(log_p) @ r / (np.exp(log_p) @ tokens)), 0.0, log_p
    iteration, rising = 0, True
    while rising and iteration < 200:
        iteration += 1
        earned = r - rate * tokens
        log_pi = tilt(log_p, earned, beta)
        pi = np.exp(log_pi)
        value = float(beta * log_partition(log_p, earned, beta))
        new = rate + value / float(pi @ tokens)
        rising = new > rate  # it rises until rounding
        rate = max(new, rate)
    best, length, divergence = float(pi @ r), float(pi @ tokens), float(kl(log_pi, log_p))
    found = (best - beta * divergence) / length
    gap = max(rate + max(value, 0.0) / float(tokens.min()) - found, 0.0)
    out = np.full(len(log_ref), -np.inf)
    out[inside] = log_pi
    _validate.representable("reward", np, np.array([found, gap, best]))
    return RateOptimum(out, found, gap, best, length, divergence, beta, iteration)


def kl_per_token(log_ref: Any, reward: Any, lengths: Any, budget: float) -> Optimum:
    r"""``max_pi E_pi[r]  s.t.  KL(pi‖ref) <= budget · E_pi|y|``: the tilt of ``ref e^{budget |y|}/Z``, KL ``log Z``.

    Args:
        log_ref, reward: ``(A,)``. lengths: ``(A,)``, tokens, > 0. budget: nats a token, >= 0.

    Returns:
        An `Optimum` whose ``kl`` is that to ``ref``; ``beta`` is the multiplier, reward units per nat.

    Raises:
        ValueError: as `reward_per_token`; ``budget < 0``.
    """
    log_ref, reward, lengths = _responses(log_ref, reward, lengths)
    budget = _validate.real("budget", budget, low=0.0, open_high=True)
    with np.errstate(over="ignore"):
        bonus = budget * lengths
    if not np.all(np.isfinite(bonus)):
        _validate.fail("budget", "is too large: a result overflows", budget)
    longer = log_normalize(log_ref + bonus)
    found = kl_constrained(longer, reward, float(log_partition(log_ref, bonus, 1.0)))
    return dataclasses.replace(found, kl=np.float64(kl(found.log_policy, log_ref)))
