"""Best-of-N law of one large reference, and KL-regularised optima in bulk."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from klsim import best_of_n, optima
from klsim.distributions import log_normalize


def numpy_best_of_n(log_p, reward, n):
    """The textbook form F^N - F^-^N by sorting, in plain probabilities (it loses far tails)."""
    order = np.argsort(reward, kind="stable")
    upto = np.cumsum(np.exp(log_p[order]))
    upto /= upto[-1]
    law = np.empty_like(upto)
    law[order] = np.diff(upto**n, prepend=0.0)
    return law


def scipy_tilt(log_ref, reward, beta):
    logits = log_ref + reward / beta
    log_z = logsumexp(logits, axis=-1, keepdims=True)
    log_pi = logits - log_z
    pi = np.exp(log_pi)
    return log_pi, beta * log_z[..., 0], np.sum(pi * reward, axis=-1), np.sum(pi * (log_pi - log_ref), axis=-1)


def cases():
    rng = np.random.default_rng(0)
    log_p, reward = log_normalize(rng.standard_normal(10**6)), rng.random(10**6)
    yield (
        "best-of-64 law, 10^6 outcomes (klsim: ties, far tails, any N)",
        lambda: best_of_n.log_policy(log_p, reward, 64),
        "NumPy sort and cumsum",
        lambda: numpy_best_of_n(log_p, reward, 64),
        lambda: np.abs(np.exp(best_of_n.log_policy(log_p, reward, 64)) - numpy_best_of_n(log_p, reward, 64)).max(),
    )
    refs, rewards = log_normalize(rng.standard_normal((20_000, 16))), rng.standard_normal((20_000, 16))
    yield (
        "20,000 KL-regularised optima, 16 actions (klsim: validated, accurate at any beta)",
        lambda: optima.kl_regularized(refs, rewards, 0.5),
        "scipy logsumexp",
        lambda: scipy_tilt(refs, rewards, 0.5),
        lambda: np.abs(optima.kl_regularized(refs, rewards, 0.5).kl - scipy_tilt(refs, rewards, 0.5)[3]).max(),
    )
