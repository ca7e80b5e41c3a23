"""f-regularised optima in bulk against a generic solver on each."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from benchmarks.table import Row
from klsim.distributions import log_normalize
from klsim.optima import f_regularized

BETA, FTOL = 0.5, 1e-12  # SLSQP stops where neither the objective nor the constraint moves by more


def setup(count):
    rng = np.random.default_rng(1)
    return log_normalize(rng.standard_normal((count, 10))), rng.standard_normal((count, 10))


def slsqp(data):
    """chi²-regularised optimum of each row by SLSQP on the simplex."""
    values = []
    for q, r in zip(np.exp(data[0]), data[1]):
        found = minimize(
            lambda p, q=q, r=r: -(p @ r - BETA * np.sum((p - q) ** 2 / q)), q, method="SLSQP", bounds=[(0, 1)] * q.size,
            jac=lambda p, q=q, r=r: -(r - 2 * BETA * (p - q) / q),
            constraints=[{"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(p.size)}], options={"ftol": FTOL},
        )  # fmt: skip
        values.append(-found.fun)
    return np.array(values)


def klsim(data):
    return f_regularized(*data, BETA, "chi2")


ROWS = (
    Row(
        "200 chi²-regularised optima, 10 actions",
        "SciPy SLSQP",
        setup,
        200,
        (2, 20, 200, 2_000),
        klsim,
        slsqp,
        lambda d: float(np.abs(klsim(d).value - slsqp(d)).max()),
        FTOL,
        unit="optima",
    ),
)
