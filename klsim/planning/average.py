r"""Average reward: gain and bias by policy iteration.

The gain of a policy is ``g = P* r``, its bias ``h = (I - P + P*)^{-1} (r - g)`` with ``P* h = 0``, ``P*`` the limiting
matrix of its chain: per closed class the stationary law, from transient states the chance of ending there. Policies are
improved on the gain, ``max_a P_a g``, and where that ties on the bias, ``max_a r_a + P_a h`` (multichain policy
iteration; Puterman 1994, 9.2). With ``beta > 0`` the optimality equation is ``g + h = T h``, ``T`` the soft backup, and
the reference has to lead to one closed class, whose states every policy of finite KL then shares.

**Certificate.** If the gain is the same everywhere, ``min(Th - h) <= g* <= max(Th - h)`` for every ``h`` (Odoni 1969).
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components

from klsim import _validate
from klsim.planning.chains import expected_next, policy_chain
from klsim.planning.solution import AverageSolution, soft_backup
from klsim.problems import AverageMDP

__all__ = ["closed_classes", "gain_and_bias", "solve_average"]

LARGEST = 5000  # states: the systems are dense


def closed_classes(chain: np.ndarray) -> list[np.ndarray]:
    """The closed communicating classes of a chain ``(S, S)``, as arrays of states."""
    count, label = connected_components(sparse.csr_array(chain > 0), connection="strong")
    leaves = np.zeros(count, dtype=bool)
    rows, columns = np.nonzero(chain)
    leaves[label[rows][label[rows] != label[columns]]] = True
    return [np.flatnonzero(label == k) for k in range(count) if not leaves[k]]


def _stationary_law(chain: np.ndarray) -> np.ndarray:
    """Of an irreducible chain, by elimination without subtractions (Grassmann, Taksar & Heyman)."""
    a = chain.copy()
    size = len(a)
    for k in range(size - 1, 0, -1):
        a[:k, k] /= a[k, :k].sum()
        a[:k, :k] += np.outer(a[:k, k], a[k, :k])
    law = np.zeros(size)
    law[0] = 1.0
    for k in range(1, size):
        law[k] = law[:k] @ a[:k, k]
    return law / law.sum()


def gain_and_bias(chain: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """``(gain, bias, whether there is one closed class)`` of a chain ``(S, S)`` with rewards ``(S,)``."""
    states = len(reward)
    classes = closed_classes(chain)
    limits = np.zeros((len(classes), states))  # the stationary law of every class
    inside = np.zeros((states, len(classes)))
    for k, members in enumerate(classes):
        limits[k, members] = _stationary_law(chain[np.ix_(members, members)])
        inside[members, k] = 1.0
    transient = np.flatnonzero(inside.sum(axis=1) == 0)
    if len(transient):
        system = np.eye(len(transient)) - chain[np.ix_(transient, transient)]
        ends = linalg.solve(system, chain[transient] @ inside)
        inside[transient] = ends / ends.sum(axis=1, keepdims=True)
    gains = limits @ reward
    gain = inside @ gains if len(classes) > 1 else np.full(states, gains[0])
    bias = linalg.solve(np.eye(states) - chain + inside @ limits, reward - gain)
    return gain, bias - inside @ (limits @ bias), len(classes) == 1


def _chain(problem: AverageMDP, weights: np.ndarray) -> np.ndarray:
    matrix = policy_chain(problem.transition, weights, 0.0).matrix
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix)


def solve_average(
    problem: AverageMDP, ref: np.ndarray, beta: float, bonus: np.ndarray, tolerance: float, limit: int
) -> AverageSolution:
    """The optimum of ``problem`` with ``bonus (S,)`` added to the rewards.

    Raises:
        ValueError: more than 5,000 states; ``beta > 0`` and a reference with several closed classes.
    """
    states, _ = problem.shape
    if states > LARGEST:
        _validate.fail("problem", f"average reward is solved with dense systems, for at most {LARGEST} states", states)
    reward = problem.reward + bonus[:, None]
    if beta > 0:
        many = len(closed_classes(_chain(problem, (ref > -np.inf) / np.sum(ref > -np.inf, axis=1, keepdims=True))))
        if many > 1:
            _validate.fail("log_ref", f"with beta > 0 has to lead to one closed class of states, leads to {many}")
        return _soft(problem, reward, ref, beta, tolerance, limit)
    return _multichain(problem, reward, ref, tolerance, limit)


def _bounds(problem: AverageMDP, backed: np.ndarray, bias: np.ndarray, beta: float) -> tuple[float, float]:
    """``min`` and ``max`` of ``Th - h``, and rounding."""
    gap = backed - bias
    size = float(max(np.abs(bias).max(), np.abs(backed).max(), np.abs(problem.reward).max()))
    actions = problem.shape[1]
    noise = (
        0.5 * float(np.finfo(float).eps) * ((2 * problem.shape[0] + 20) * size + (actions + 12) * min(2 * size, beta))
    )
    return float(gap.min()) - noise, float(gap.max()) + noise


def _soft(
    problem: AverageMDP, reward: np.ndarray, ref: np.ndarray, beta: float, tolerance: float, limit: int
) -> AverageSolution:
    """Newton's method for ``g + h = T h``."""
    log_policy = ref
    best: AverageSolution | None = None
    stalled = 0
    for i in range(limit):
        weights = np.exp(log_policy)
        kept = weights > 0
        cost = np.sum(weights * np.where(kept, log_policy - np.where(kept, ref, 0.0), 0.0), axis=1)
        mean = np.sum(weights * reward, axis=1) - beta * cost
        gain, bias, _ = gain_and_bias(_chain(problem, weights), mean)
        q = reward + expected_next(problem.transition, bias)
        backed, following = soft_backup(q, ref, beta)
        low, high = _bounds(problem, backed, bias, beta)
        error = max(high - gain[0], gain[0] - low)
        stalled = 0 if best is None or error < 0.5 * best.error_bound else stalled + 1
        if best is None or error < best.error_bound:
            done = error <= tolerance * abs(gain[0])
            best = AverageSolution(log_policy, gain, bias, error, i, bool(done), "certified")
        if best.converged or stalled >= 3:
            break
        log_policy = following
    assert best is not None
    reason = "certified" if best.converged else "rounding level reached" if stalled >= 3 else "iteration limit reached"
    return AverageSolution(**{**best.__dict__, "reason": reason})


def _multichain(
    problem: AverageMDP, reward: np.ndarray, ref: np.ndarray, tolerance: float, limit: int
) -> AverageSolution:
    """Policies change only where the gain, or the bias at an equal gain, rises by more than rounding."""
    states, _ = problem.shape
    legal = ref > -np.inf
    eps = float(np.finfo(float).eps)
    rows = np.arange(states)
    action = np.where(legal, reward, -np.inf).argmax(axis=1)
    reason, iterations = "iteration limit reached", limit
    for i in range(limit):
        weights = np.zeros(problem.shape)
        weights[rows, action] = 1.0
        gain, bias, single = gain_and_bias(_chain(problem, weights), reward[rows, action])
        ahead = np.where(legal, expected_next(problem.transition, gain), -np.inf)
        q = np.where(legal, reward + expected_next(problem.transition, bias), -np.inf)
        slack = 64 * eps * states * float(np.abs(gain).max())
        better = ahead.max(axis=1) > ahead[rows, action] + slack
        if single or not better.any():
            q = np.where(ahead >= ahead.max(axis=1, keepdims=True) - slack, q, -np.inf) if not single else q
            size = float(max(np.abs(bias).max(), np.abs(reward).max()))
            better, ahead = q.max(axis=1) > q[rows, action] + 64 * eps * states * size, q
        if not better.any():
            reason, iterations = "stable policy", i
            break
        action = np.where(better, ahead.argmax(axis=1), action)
    same = bool(np.ptp(gain) <= 64 * eps * states * float(np.abs(gain).max()))
    error = np.inf
    if same:
        low, high = _bounds(
            problem,
            np.max(np.where(legal, reward + expected_next(problem.transition, bias), -np.inf), axis=1),
            bias,
            0.0,
        )
        error = max(high - float(gain.min()), float(gain.max()) - low)
    log_policy = np.where(np.arange(problem.shape[1]) == action[:, None], 0.0, -np.inf)
    converged = reason == "stable policy" and (not same or error <= tolerance * float(np.abs(gain).max()))
    if converged and same:
        reason = "certified"
    return AverageSolution(log_policy, gain, bias, float(error), iterations, bool(converged), reason)
