"""Best-of-N law of one large reference."""

from __future__ import annotations

import numpy as np

from benchmarks.table import Row
from klsim import best_of_n
from klsim.distributions import log_normalize

N = 64
# the textbook form rounds F twice (its sum, its quotient), N-fold in F^N; ours rounds logs near -16 of probabilities < 4e-4
ALLOWED = 2 * N * float(np.finfo(np.longdouble).eps) + 16 * np.finfo(float).eps * 4e-4


def setup(size):
    rng = np.random.default_rng(0)
    return log_normalize(rng.standard_normal(size)), rng.random(size)


def textbook(log_p, reward):
    """``F^N - F^-^N`` by sorting, in plain probabilities (it loses far tails)."""
    order = np.argsort(reward, kind="stable")
    upto = np.cumsum(np.exp(log_p[order]).astype(np.longdouble))
    upto /= upto[-1]
    law = np.empty(len(order))
    law[order] = np.diff(upto**N, prepend=0.0)
    return law


ROWS = (
    Row(
        "best-of-64 law, 10^7 outcomes",
        "NumPy argsort alone",
        setup,
        10**7,
        (10**4, 10**5, 10**6, 10**7),
        lambda d: best_of_n.log_policy(*d, N),
        lambda d: np.argsort(d[1]),
        # probabilities of 1e-7, against the textbook form in long doubles
        lambda d: np.abs(np.exp(best_of_n.log_policy(*d, N)) - textbook(*d)).max(),
        ALLOWED,
        target=1 / 1.5,
        unit="outcomes",
    ),
)
