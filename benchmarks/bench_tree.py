"""Token trees: the optimum of every node against a NumPy recursion for the value of the root alone."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from benchmarks.table import Row
from klsim.distributions import log_normalize
from klsim.planning import solve
from klsim.problems import TokenTree

BETA = 0.5


def setup(leaves):
    horizon = round(np.log(leaves) / np.log(3))
    rng = np.random.default_rng(2)
    levels = tuple(log_normalize(rng.standard_normal((3**t, 3))) for t in range(horizon))
    return TokenTree(3, horizon, rng.standard_normal(3**horizon)), levels


def klsim(data):
    return solve(*data, BETA)


def numpy_tree(data):
    value = data[0].reward
    for level in data[1][::-1]:
        value = BETA * logsumexp(level + value.reshape(level.shape) / BETA, axis=1)
    return value[0]


ROWS = (
    Row(
        "token tree, 1.6·10^6 leaves, all policies",
        "NumPy logsumexp recursion, root value only",
        setup,
        3**13,
        (3**7, 3**9, 3**11, 3**13),
        klsim,
        numpy_tree,
        lambda d: abs(float(klsim(d).value[0][0] - numpy_tree(d))),
        1e-13,
        target=3.0,
        unit="leaves",
    ),
)
