"""f-regularised optima in bulk against a generic solver on each."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.optima import f_regularized


def slsqp(log_ref, reward, beta):
    """chi²-regularised optimum of each row by SLSQP on the simplex."""
    values = []
    for q, r in zip(np.exp(log_ref), reward):
        found = minimize(
            lambda p, q=q, r=r: -(p @ r - beta * np.sum((p - q) ** 2 / q)), q, method="SLSQP", bounds=[(0, 1)] * q.size,
            jac=lambda p, q=q, r=r: -(r - 2 * beta * (p - q) / q),
            constraints=[{"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(p.size)}], options={"ftol": 1e-12},
        )  # fmt: skip
        values.append(-found.fun)
    return np.array(values)


def cases():
    rng = np.random.default_rng(1)
    refs, rewards = log_normalize(rng.standard_normal((200, 10))), rng.standard_normal((200, 10))
    yield (
        "200 chi²-regularised optima, 10 actions",
        lambda: f_regularized(refs, rewards, 0.5, "chi2"),
        "SciPy SLSQP",
        lambda: slsqp(refs, rewards, 0.5),
        lambda: np.abs(f_regularized(refs, rewards, 0.5, "chi2").value - slsqp(refs, rewards, 0.5)).max(),
    )
