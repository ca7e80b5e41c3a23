r"""Behaviour cloning of tabular policies: add-one smoothing, its exact expected KL, and bounds.

From N trajectories of an expert, ``pi_BC(a|h,s) = (N_h(s,a) + c)/(N_h(s) + A c)`` (``c = 1``: Laplace). Counts are
binomial, ``N_h(s,a) ~ Bin(N, d_h(s) pi_E(a|h,s))``, so the expected KL of trajectories needs no simulation:

.. math:: E\,KL_{traj}(\pi_E\|\pi_{BC}) = \sum_{h,s} d_h(s) \Big[\sum_a p_a \log p_a
          + E\log(N_h(s) + Ac) - \sum_a p_a E\log(N_h(s,a) + c)\Big].

With ``c = 1`` it is at most ``(A-1) sum_h |supp d_h|/(N+1)``: at a state with n visits
``E KL <= log(1 + (A-1)/(n+1))`` by Jensen's inequality and ``E[1/(1 + Bin(n, p))] <= 1/((n+1) p)``, and the same
binomial fact sums over n. N times it tends to ``sum (A - 1 - (k-1)/2)`` over visited states with k actions in use.

Source: ``demo-reg`` C4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.evaluation import occupancy, policy_of
from klsim.problems import TabularMDP

__all__ = ["clone", "cloning_bound", "cloning_limit", "expected_cloning_kl", "high_probability_bound"]


def clone(counts: Any, smoothing: float = 1.0) -> np.ndarray:
    """``log (n_a + c)/(n + A c)`` of action counts ``(..., A)``; with ``smoothing = 0`` uniform where there are none.

    Args:
        counts: integers >= 0. smoothing: c >= 0; 0 is maximum likelihood.
    """
    given = _validate.integers("counts", counts, low=0)
    if given.ndim < 1 or given.shape[-1] < 1:
        _validate.fail("counts", f"must be (..., A), got shape {given.shape}")
    smoothing = _validate.real("smoothing", smoothing, low=0.0, high=1e100)
    weights = given + smoothing
    weights = np.where(weights.sum(axis=-1, keepdims=True) > 0, weights, 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(weights) - np.log(weights.sum(axis=-1, keepdims=True)))


def _expert(problem: TabularMDP, log_expert: Any) -> tuple[np.ndarray, np.ndarray]:
    """Visits ``(H, S)`` and probabilities ``(H, S, A)`` of the expert."""
    _validate.instance("problem", problem, TabularMDP)
    if problem.actions is not None and not np.all(problem.actions):
        _validate.fail("problem", "smoothing gives every action probability: all must be legal everywhere")
    policy = policy_of(problem, log_expert, "log_expert")
    return occupancy(problem, policy).sum(axis=-1), np.exp(policy)


def _expected_log(trials: int, chance: float, plus: float) -> float:
    """``E log(Bin(trials, chance) + plus)``; the tails left out have probability below 1e-30 (Bernstein)."""
    from scipy.stats import binom

    middle = trials * chance
    reach = 12 * math.sqrt(middle * (1 - chance)) + 200
    k = np.arange(max(0, math.floor(middle - reach)), min(trials, math.ceil(middle + reach)) + 1)
    return float(binom.pmf(k, trials, chance) @ np.log(k + plus))


def _cell(demonstrations: int, visits: float, p: np.ndarray, smoothing: float) -> float:
    """Expected KL of one state's action law to its clone."""
    used = p[p > 0]
    if smoothing == 0:  # an action of the expert may be missing from the data
        return math.inf if len(used) > 1 else (1 - visits) ** demonstrations * math.log(len(p))
    total = float(used @ np.log(used)) + _expected_log(demonstrations, visits, len(p) * smoothing)
    return total - sum(q * _expected_log(demonstrations, min(visits * q, 1.0), smoothing) for q in used)


def expected_cloning_kl(problem: TabularMDP, log_expert: Any, demonstrations: int, smoothing: float = 1.0) -> float:
    """Exact ``E KL(P^E‖P^BC)`` of trajectories in nats over data sets of ``demonstrations`` trajectories.

    Args:
        log_expert: policy ``(H, S, A)`` or ``(S, A)``. demonstrations: N in [0, 10^7]. smoothing: c >= 0; with 0 it is
            infinite unless the expert is deterministic.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not a policy of it, illegal actions.
    """
    visits, policy = _expert(problem, log_expert)
    demonstrations = _validate.integer("demonstrations", demonstrations, low=0, high=10**7)
    smoothing = _validate.real("smoothing", smoothing, low=0.0, high=1e100)
    cells = ((d, p) for d, p in zip(np.minimum(visits, 1.0).ravel(), policy.reshape(-1, policy.shape[-1])) if d > 0)
    return float(sum(d * _cell(demonstrations, float(d), p, smoothing) for d, p in cells))


def cloning_bound(problem: TabularMDP, log_expert: Any, demonstrations: int) -> float:
    """``(A-1) sum_h |supp d_h|/(N+1)``: bound on `expected_cloning_kl` with ``smoothing = 1``, for every N >= 0."""
    visits, policy = _expert(problem, log_expert)
    demonstrations = _validate.integer("demonstrations", demonstrations, low=0)
    return float((policy.shape[-1] - 1) * np.count_nonzero(visits > 0) / (demonstrations + 1))


def cloning_limit(problem: TabularMDP, log_expert: Any) -> float:
    """``lim N E[KL_traj]`` with ``smoothing = 1``: the sum of ``A - 1 - (k-1)/2`` over visited states, k actions in
    use."""
    visits, policy = _expert(problem, log_expert)
    used = np.count_nonzero(policy > 0, axis=-1)
    return float(np.sum(np.where(visits > 0, policy.shape[-1] - 1 - (used - 1) / 2, 0.0)))


def high_probability_bound(shape: tuple[int, int, int], demonstrations: int, delta: float) -> float:
    """``6 S A H log(2 e^4 N) log(12 H N^2/delta)/N + 18 A H/N``: holds with probability 1 - ``delta`` for N >= A.

    Args:
        shape: ``(H, S, A)``, as `TabularMDP.shape`. delta: in (0, 1).
    """
    horizon, states, actions = (_validate.integer("shape", n, low=1) for n in _validate.sequence("shape", shape))
    n = _validate.integer("demonstrations", demonstrations, low=actions)
    delta = _validate.real("delta", delta, low=0.0, high=1.0, open_low=True, open_high=True)
    logs = (4 + math.log(2 * n)) * (math.log(12 * horizon) + 2 * math.log(n) - math.log(delta))
    return 6 * states * actions * horizon * logs / n + 18 * actions * horizon / n
