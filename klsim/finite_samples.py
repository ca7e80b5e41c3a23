r"""What an estimator risks on n draws: exact expectations over all data sets of small problems.

Data sets are counted, not simulated: n draws of a law are its counts with multinomial probabilities; labels of K
responses are K independent binomials; comparisons are a binomial for every pair. An expectation over data sets is then
a sum (`Datasets.expect`), a regret of 1e-12 is seen, and learning curves have no noise.

*Regret under a KL penalty.* With ``J(pi) = E_pi[r] - beta KL(pi‖ref)`` and ``pi*`` its optimum (the tilt),

.. math:: J(\pi^*) - J(\pi) = \beta\, KL(\pi \| \pi^*).

A policy that is the tilt by an estimate ``r + e`` therefore loses ``Var_{pi*}(e)/(2 beta)`` to second order: where the
estimate has covariance ``Sigma/n``, n times the expected regret tends to ``tr(Cov_{pi*} Sigma)/(2 beta)``
(`fast_rate`). That is a rate 1/n, while without a penalty the empirical best arm loses ``1/sqrt(n)`` on the worst
problem of its size.

*DPO from comparisons* is the tilt by the Bradley-Terry maximum-likelihood rewards, the same policy as a reward model
fitted on those comparisons and then KL-regularised RL; ``prior`` adds that many wins to both sides of every pair.

Sources: Zhao, Ye, Gu and Zhang (2024), arXiv:2411.04625 (fast rates under a KL penalty); the exact forms are derived
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, prod
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit, gammaln, roots_legendre

from klsim import _validate
from klsim import best_of_n as _best_of_n
from klsim._shown import Shown
from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.preferences import bradley_terry

__all__ = [
    "Datasets",
    "best_of_n_by_labels",
    "bradley_terry_estimates",
    "bradley_terry_information",
    "comparison_datasets",
    "dpo_regret",
    "draw_datasets",
    "empirical_best_arm",
    "fast_rate",
    "label_datasets",
    "regularized_regret",
    "tilt_regret",
]

_MANY = 2_000_000


@dataclass(frozen=True, repr=False)
class Datasets(Shown):
    """All data sets of one size.

    Attributes:
        counts: of every data set, ``(m, ...)`` integers. probability: of it, ``(m,)``, adding up to 1.
    """

    counts: np.ndarray
    probability: np.ndarray

    def expect(self, values: Any) -> Any:
        """``E[values]`` for one value (or array) a data set, ``(m, ...)``; 0 times infinity is 0.

        Raises:
            ValueError: not one value a data set, or NaN.
        """
        (values,) = _validate.numpy_arrays(values=values)
        if values.shape[:1] != self.probability.shape:
            _validate.fail("values", f"needs one for each of {len(self.probability)} data sets, got {values.shape}")
        _validate.not_nan("values", np, values)
        possible = self.probability > 0
        return np.tensordot(self.probability[possible], values[possible], axes=1)


def _few(name: str, value: Any, rows: int) -> None:
    if rows > _MANY:
        _validate.fail(name, f"gives {rows:,} data sets, at most {_MANY:,} are enumerated", value)


def _law(name: str, log_p: Any) -> np.ndarray:
    (log_p,) = _validate.numpy_arrays(**{name: log_p})
    _validate.log_probs(name, np, log_p)
    if log_p.ndim != 1:
        _validate.fail(name, f"must be one law (A,), got shape {log_p.shape}")
    return np.asarray(log_p, dtype=np.float64)


def draw_datasets(log_p: Any, n: int) -> Datasets:
    """The counts of n independent draws from ``log_p``, ``(m, A)``, ``m = C(n+A-1, n)``: multinomial.

    Raises:
        ValueError: no log-probabilities ``(A,)``, ``n < 1``, more than two million data sets.
    """
    log_p = _law("log_p", log_p)
    n = _validate.integer("n", n, low=1)
    inside = np.flatnonzero(np.isfinite(log_p))
    size = len(inside)
    _few("n", n, comb(n + size - 1, size - 1))
    columns: list[np.ndarray] = []
    left = np.array([n])
    for _ in range(size - 1):  # how many of the next outcome: 0 … what is left
        row = np.repeat(np.arange(len(left)), left + 1)
        start = np.cumsum(left + 1) - (left + 1)
        taken = np.arange(len(row)) - start[row]
        columns = [c[row] for c in columns] + [taken]
        left = left[row] - taken
    counts = np.zeros((len(left), len(log_p)), dtype=np.int64)
    counts[:, inside] = np.stack([*columns, left], axis=1)
    log_weight = counts[:, inside] @ log_p[inside] - gammaln(counts + 1.0).sum(axis=1)
    return Datasets(counts, np.exp(log_normalize(log_weight)))


def _rates(success: Any, trials: Any) -> tuple[np.ndarray, np.ndarray]:
    """Success probabilities ``(K,)`` and how often each is tried."""
    (given,) = _validate.numpy_arrays(success=success)
    if given.ndim != 1 or not len(given):
        _validate.fail("success", f"must be a vector (K,) of probabilities, got shape {given.shape}")
    _validate.unit_interval("success", np, given)
    tried = _validate.integers("trials", trials, low=1)
    if tried.shape not in ((), given.shape):
        _validate.fail("trials", f"must be one number or {len(given)}, got shape {tried.shape}")
    return given.astype(np.float64), np.broadcast_to(tried, given.shape).astype(np.int64)


def label_datasets(success: Any, trials: Any) -> Datasets:
    """The successes of K responses, each labelled ``trials`` times, ``(m, K)``: independent binomials.

    Args:
        success: probabilities ``(K,)``. trials: >= 1, one number or one a response.

    Raises:
        ValueError: out of range, more than two million data sets.
    """
    p, tried = _rates(success, trials)
    _few("trials", None, prod(int(t) + 1 for t in tried))
    counts = np.indices(tuple(int(t) + 1 for t in tried)).reshape(len(p), -1).T
    mass = [stats.binom.pmf(np.arange(t + 1), t, q) for t, q in zip(tried, p)]
    return Datasets(counts, np.prod([m[counts[:, i]] for i, m in enumerate(mass)], axis=0))


def _comparisons(comparisons: Any, size: int) -> np.ndarray:
    """How often every pair is compared, ``(A, A)``, symmetric, 0 on the diagonal."""
    given = _validate.integers("comparisons", comparisons, low=0)
    if given.shape not in ((), (size, size)):
        _validate.fail("comparisons", f"must be one number or a matrix ({size}, {size}), got shape {given.shape}")
    table = np.broadcast_to(given, (size, size)) * (1 - np.eye(size, dtype=np.int64))
    if not np.array_equal(table, table.T):
        _validate.fail("comparisons", "must be symmetric")
    return np.asarray(table, dtype=np.int64)


def comparison_datasets(preference: Any, comparisons: Any) -> Datasets:
    """The wins of i over j, ``(m, A, A)``, with every pair compared so often: a binomial for each pair.

    Args:
        preference: ``P_ij = P(i is preferred to j)``, ``(A, A)``. comparisons: >= 0, a number or symmetric ``(A, A)``.

    Raises:
        ValueError: no matrix with ``P_ij + P_ji = 1``, comparisons that are not symmetric, more than two million data
            sets.
    """
    (p,) = _validate.numpy_arrays(preference=preference)
    if p.ndim != 2 or p.shape[0] != p.shape[1] or not p.size:
        _validate.fail("preference", f"must be a matrix (A, A), got shape {p.shape}")
    _validate.unit_interval("preference", np, p)
    bad = _validate.first_true(np, np.abs(p + p.T - 1) > 1e-9)
    if bad is not None:
        _validate.fail("preference", "must have P_ij + P_ji = 1", float(p[bad]), bad)
    table = _comparisons(comparisons, len(p))
    i, j = np.nonzero(np.triu(table, 1))
    _few("comparisons", None, prod(int(t) + 1 for t in table[i, j]))
    wins = np.zeros((1, len(p), len(p)), dtype=np.int64)
    if not len(i):
        return Datasets(wins, np.ones(1))
    found = label_datasets(p[i, j], table[i, j])
    wins = np.zeros((len(found.counts), *table.shape), dtype=np.int64)
    wins[:, i, j], wins[:, j, i] = found.counts, table[i, j] - found.counts
    return Datasets(wins, found.probability)


def regularized_regret(log_policy: Any, log_ref: Any, reward: Any, beta: float) -> np.ndarray:
    """``J(pi*) - J(pi) = beta KL(pi‖tilt(ref, r, beta))``, ``J = E[r] - beta KL(.‖ref)``: ``(..., A) -> (...)``.

    Raises:
        ValueError: no log-probabilities, shapes that do not broadcast, ``beta <= 0``.
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    log_policy, log_ref, reward = _validate.numpy_arrays(log_policy=log_policy, log_ref=log_ref, reward=reward)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.log_probs("log_ref", np, log_ref)
    _validate.same_last_axis(log_policy=log_policy, log_ref=log_ref, reward=reward)
    return np.asarray(beta * kl(log_policy, tilt(log_ref, reward, beta)))


def fast_rate(log_policy: Any, covariance: Any, beta: float) -> float:
    r"""``tr(Cov_pi Sigma)/(2 beta)``: the limit of n times the regret of the tilt by an estimate of covariance Sigma/n.

    Args:
        log_policy: the optimum ``(A,)``. covariance: Sigma, ``(A, A)`` or its diagonal ``(A,)``. beta: > 0.

    Raises:
        ValueError: no log-probabilities ``(A,)``, a covariance that is not finite or of another size, ``beta <= 0``.
    """
    policy = np.exp(_law("log_policy", log_policy))
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    (given,) = _validate.numpy_arrays(covariance=covariance)
    _validate.finite("covariance", np, given)
    if given.shape not in (policy.shape, (len(policy), len(policy))):
        _validate.fail("covariance", f"must have shape {policy.shape} or two such axes, got {given.shape}")
    sigma = np.diag(given) if given.ndim == 1 else given
    with np.errstate(over="ignore", invalid="ignore"):
        found = (policy @ np.diag(sigma) - policy @ sigma @ policy) / (2 * beta)
    _validate.representable("covariance", np, np.asarray(found))
    return float(found)


def empirical_best_arm(success: Any, trials: Any) -> np.ndarray:
    """The probability that each response has the best empirical mean, ties broken uniformly, ``(K,)``.

    No enumeration: ``P(k) = sum_v P(mean_k = v) \\int_0^1 prod_{j != k} (P(mean_j < v) + t P(mean_j = v)) dt``.

    Args:
        success: ``(K,)``. trials: >= 1, one number or one a response.

    Raises:
        ValueError: out of range, more than two million pairs of a response and a value.
    """
    p, tried = _rates(success, trials)
    _few("trials", None, len(p) * sum(int(t) + 1 for t in tried))
    values = np.unique(np.concatenate([np.arange(t + 1) / t for t in tried]))
    equal = np.zeros((len(p), len(values)))
    for row, t, q in zip(equal, tried, p):
        row[np.searchsorted(values, np.arange(t + 1) / t)] = stats.binom.pmf(np.arange(t + 1), t, q)
    below = np.cumsum(equal, axis=1) - equal
    nodes, weights = roots_legendre(len(p) // 2 + 1)  # exact for polynomials of degree K - 1
    found = np.zeros(len(p))
    for t, w in zip(0.5 * (nodes + 1), 0.5 * weights):
        reached = below + t * equal
        for k in range(len(p)):
            found[k] += w * np.sum(equal[k] * np.prod(np.delete(reached, k, axis=0), axis=0))
    return found / found.sum()


def tilt_regret(log_ref: Any, success: Any, trials: Any, beta: float) -> float:
    """Expected regret under the KL penalty of the tilt by empirical means, rewards of 0 and 1.

    Args:
        log_ref: ``(K,)``. success: the true mean rewards ``(K,)``. trials: labels of every response. beta: > 0.

    Raises:
        ValueError: as `label_datasets`; ``beta <= 0``, a reference of another size.
    """
    data, log_ref, truth = _labelled(log_ref, success, trials)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    chosen = tilt(log_ref, data.counts / _rates(success, trials)[1], beta)
    return float(data.expect(regularized_regret(chosen, log_ref, truth, beta)))


def best_of_n_by_labels(log_ref: Any, success: Any, trials: Any, n: float) -> float:
    """Expected true reward of the best of n draws by empirical means of ``trials`` labels, over labels and draws.

    Raises:
        ValueError: as `label_datasets`; ``n <= 0``, a reference of another size.
    """
    data, log_ref, truth = _labelled(log_ref, success, trials)
    n = _validate.real("n", n, low=0.0, open_low=True, open_high=True)
    law = _best_of_n.log_policy(log_ref, data.counts / _rates(success, trials)[1], n)
    return float(data.expect(np.exp(law) @ truth))


def _labelled(log_ref: Any, success: Any, trials: Any) -> tuple[Datasets, np.ndarray, np.ndarray]:
    data = label_datasets(success, trials)
    log_ref, truth = _law("log_ref", log_ref), _rates(success, trials)[0]
    if log_ref.shape != truth.shape:
        _validate.fail("log_ref", f"must have the shape of success, {truth.shape}, got {log_ref.shape}")
    return data, log_ref, truth


def bradley_terry_estimates(wins: Any, prior: float = 0.5) -> np.ndarray:
    """Maximum-likelihood Bradley-Terry rewards of many data sets at once, mean 0: ``(m, A, A) -> (m, A)``.

    Args:
        wins: of i over j, ``(m, A, A)``, integers or real numbers >= 0. prior: wins added to both sides of every pair.
            With 0, of two responses only, the rewards may be infinite; then the one that won has 0 and the other
            ``-inf``.

    Newton's method from 0 with steps of at most one; the log-likelihood is concave.

    Raises:
        ValueError: negative or infinite wins, a prior below 0, no prior for more than two responses (many data sets
            have no finite fit).
    """
    (given,) = _validate.numpy_arrays(wins=wins)
    prior = _validate.real("prior", prior, low=0.0, high=1e100)
    if given.ndim != 3 or given.shape[1] != given.shape[2] or given.shape[1] < 1:
        _validate.fail("wins", f"must have shape (m, A, A), got {given.shape}")
    index = _validate.first_true(np, ~((given >= 0) & (given <= 1e100)))
    if index is not None:
        _validate.fail("wins", "must lie in [0, 1e100]", float(given[index]), index)
    size = given.shape[1]
    won = (given.astype(np.float64) + prior) * (1 - np.eye(size))
    if size == 2:
        with np.errstate(divide="ignore"):
            log_won = np.log(np.stack([won[:, 0, 1], won[:, 1, 0]], axis=1))
        top = log_won.max(axis=1, keepdims=True)
        log_won = np.where(np.isneginf(top), 0.0, log_won - np.where(np.isneginf(top), 0.0, top))
        finite = np.isfinite(log_won).all(axis=1, keepdims=True)
        return np.where(finite, log_won - np.where(finite, log_won, 0.0).mean(axis=1, keepdims=True), log_won)
    if prior == 0 and size > 2:
        _validate.fail("prior", "must be > 0 for more than two responses: a data set may have no finite fit", prior)
    return _newton(won / won.max(axis=(1, 2), keepdims=True, initial=1e-300))


def _newton(won: np.ndarray) -> np.ndarray:
    """The fit of ``won (m, A, A)``, all pairs of which are positive on both sides."""
    total = won + won.transpose(0, 2, 1)
    r: np.ndarray = np.zeros(won.shape[:2])
    responses = won.shape[1]
    for _ in range(500):
        chance = expit(r[:, :, None] - r[:, None])
        curvature = total * chance * (1 - chance)
        hessian = np.eye(responses) * curvature.sum(axis=2)[:, None] - curvature
        scale = curvature.max(axis=(1, 2), keepdims=True, initial=1e-300)
        step = np.linalg.solve(hessian + scale / responses, np.sum(won - total * chance, axis=2)[..., None])[..., 0]
        size = np.abs(step).max(axis=1, keepdims=True, initial=0.0)
        r = r + step / np.maximum(size, 1.0)
        if np.all(size <= 1e-12 * (1 + np.abs(r).max(axis=1, keepdims=True, initial=0.0))):
            break
    return np.asarray(r - r.mean(axis=1, keepdims=True))


def bradley_terry_information(reward: Any, weights: Any = 1.0) -> np.ndarray:
    """The Fisher information of comparisons about rewards, ``(A, A)``: a Laplacian, with null vector 1.

    ``w_ij sigma(r_i - r_j) sigma(r_j - r_i)`` is the weight of a pair. The pseudo-inverse is the covariance of the
    maximum-likelihood rewards (mean 0) for many comparisons, where they connect all responses. Comparisons of two draws
    from a law mu have ``w_ij = 2 mu_i mu_j`` each; then it is ``Cov_mu / 2`` for equal rewards.

    Args:
        reward: ``(A,)``. weights: how often (or with which frequency) each pair is compared: >= 0, one number or
            symmetric ``(A, A)``; the diagonal is not used.

    Raises:
        ValueError: rewards that are no finite vector, weights that are negative or not symmetric.
    """
    chance = bradley_terry(reward)
    (given,) = _validate.numpy_arrays(weights=weights)
    index = _validate.first_true(np, ~((given >= 0) & (given <= 1e100)))
    if index is not None:
        _validate.fail("weights", "must lie in [0, 1e100]", float(given[index]), index)
    if given.shape not in ((), chance.shape):
        _validate.fail("weights", f"must be one number or a matrix {chance.shape}, got shape {given.shape}")
    table = np.broadcast_to(given, chance.shape) * (1.0 - np.eye(len(chance)))
    if not np.allclose(table, table.T, rtol=1e-12, atol=0):
        _validate.fail("weights", "must be symmetric")
    weight = table * chance * chance.T  # not 1 - chance: where the gap is wide, one of them is small
    return np.asarray(np.diag(weight.sum(axis=1)) - weight)


def dpo_regret(log_ref: Any, reward: Any, comparisons: Any, beta: float, *, prior: float = 0.0) -> float:
    """Expected regret under the KL penalty of DPO from so many comparisons of every pair, labels Bradley-Terry.

    Args:
        log_ref: ``(A,)``. reward: the true rewards ``(A,)``. comparisons: of every pair, one number or ``(A, A)``.
            beta: > 0. prior: wins added to both sides of every pair; more than 0 for more than two responses.

    Raises:
        ValueError: as `comparison_datasets` and `bradley_terry_estimates`; ``beta <= 0``, a reference of another size.
    """
    log_ref = _law("log_ref", log_ref)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    preference = bradley_terry(reward)
    if log_ref.shape != preference.shape[:1]:
        _validate.fail("log_ref", f"must have the shape of reward, {preference.shape[:1]}, got {log_ref.shape}")
    data = comparison_datasets(preference, comparisons)
    fit = bradley_terry_estimates(data.counts, prior)
    return float(data.expect(regularized_regret(_tilts(log_ref, fit, beta), log_ref, reward, beta)))


def _tilts(log_ref: np.ndarray, fit: np.ndarray, beta: float) -> np.ndarray:
    """The tilt by every row of rewards; a reward of ``-inf`` takes all mass from an outcome, if another has some."""
    lost = np.isneginf(fit)
    policies = tilt(log_ref, np.where(lost, 0.0, fit), beta)
    kept = np.where(lost, -np.inf, log_ref)
    certain = lost.any(axis=1) & np.isfinite(kept).any(axis=1)
    policies[certain] = log_normalize(kept[certain])
    return np.asarray(policies)
