"""KL-regularised optima: many small ones, and one of many outcomes."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from benchmarks.table import Row
from klsim import optima
from klsim.distributions import log_normalize

BETA = 0.5


def rows_of_16(count):
    rng = np.random.default_rng(0)
    return log_normalize(rng.standard_normal((count, 16))), rng.standard_normal((count, 16))


def one_row(size):
    rng = np.random.default_rng(0)
    return log_normalize(rng.standard_normal(size)), rng.standard_normal(size)


def klsim(data):
    return optima.kl_regularized(*data, BETA)


def by_scipy(data):
    """Policy, value, expected reward and KL by logsumexp, unchecked; small KLs cancel."""
    log_ref, reward = data
    logits = log_ref + reward / BETA
    log_z = logsumexp(logits, axis=-1, keepdims=True)
    log_pi = logits - log_z
    pi = np.exp(log_pi)
    return log_pi, BETA * log_z[..., 0], np.sum(pi * reward, axis=-1), np.sum(pi * (log_pi - log_ref), axis=-1)


def log_z_alone(data):
    return logsumexp(data[0] + data[1] / BETA, axis=-1)


def difference(data):
    ours = klsim(data)
    pairs = zip((ours.log_policy, ours.value, ours.reward, ours.kl), by_scipy(data))
    return max(float(np.abs(a - b).max()) for a, b in pairs)


ROWS = (
    Row(
        "20,000 KL-regularised optima, 16 actions, validated",
        "scipy logsumexp, policy and moments",
        rows_of_16,
        20_000,
        (100, 1_000, 10_000, 100_000),
        klsim,
        by_scipy,
        difference,
        1e-13,
        target=1.0,
        unit="optima",
    ),
    Row(
        "the same, the peer with log Z alone",
        "scipy logsumexp, log Z only",
        rows_of_16,
        20_000,
        (100, 1_000, 10_000, 100_000),
        klsim,
        log_z_alone,
        difference,
        1e-13,
        target=1.0,
        unit="optima",
    ),
    Row(
        "one KL-regularised optimum, 10^7 outcomes",
        "scipy logsumexp, log Z only",
        one_row,
        10**7,
        (10**4, 10**5, 10**6, 10**7),
        klsim,
        log_z_alone,
        difference,
        1e-12,
        target=0.7,
        unit="outcomes",
    ),
)
