r"""Learning a latent MDP whose context is told after the episode: optimism with a bonus of the variance.

The bonus of a context's row ``(m, s, a)`` seen ``N`` times is a Bernstein one over the *alpha vector* of that context,

.. math:: B = \max\{c_1 \sqrt{\tfrac{G\, V(\hat P_m, \hat\alpha_m)\, \iota}{N}},\; c_2 \tfrac{G\, \iota}{N}\},
          \quad \hat\alpha_m = \min\{R_m + B + \hat P_m \cdot \hat\alpha_m',\, 1\},

``G`` the number of successors seen: alpha vectors depend on the history, so the deviation of the empirical law has to
be bounded for all of them at once (`worst_direction`). With ``c1² <= c2`` the back-up is monotone, which carries
optimism from the end of an episode to its start. Source: Zhou, Wang, Du 2023 (arXiv 2210.11604).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.latent_mdp import Histories, LatentMDP, histories, history_levels

__all__ = [
    "Optimism",
    "bernstein_backup",
    "optimistic_alpha",
    "optimistic_regret",
    "optimistic_values",
    "posterior_advantages",
    "worst_direction",
]

_RULES = ("any", "largest", "total")
_CHUNK = 4 * 10**6  # uniform numbers at a time


def bernstein_backup(p: Any, x: Any, z: Any, c1: Any, c2: Any) -> np.ndarray:
    """``F(x) = p.x + max(c1 sqrt(V(p, x) z), c2 z)``, ``V(p, x)`` the variance of ``x (..., S)`` under ``p (..., S)``.

    Non-decreasing in every coordinate of ``x`` in ``[0, 1]^S`` if ``c1² <= c2``, and in general only then.

    Raises:
        ValueError: rows of ``p`` that are no distributions, shapes, values not finite, negative ``z``, ``c1``, ``c2``.
    """
    from klsim.kernels.latent_mdp import bernstein_rows

    p, x = _validate.numpy_arrays(p=p, x=x)
    _validate.same_last_axis(p=p, x=x)
    _rows_of_probabilities("p", p)
    _validate.finite("x", np, x)
    numbers = dict(zip(("z", "c1", "c2"), _validate.numpy_arrays(z=z, c1=c1, c2=c2)))
    for name, value in numbers.items():
        _validate.budgets(name, np, _validate.finite(name, np, value))
    shape = np.broadcast_shapes(p.shape[:-1], x.shape[:-1], *(v.shape for v in numbers.values()))
    rows = [np.ascontiguousarray(np.broadcast_to(a, (*shape, p.shape[-1])).reshape(-1, p.shape[-1])) for a in (p, x)]
    flat = [np.ascontiguousarray(np.broadcast_to(v, shape).ravel()) for v in numbers.values()]
    return np.asarray(bernstein_rows(*rows, *flat)).reshape(shape)


def _rows_of_probabilities(name: str, p: np.ndarray) -> None:
    _validate.budgets(name, np, _validate.finite(name, np, p))
    index = _validate.first_true(np, np.abs(p.sum(axis=-1) - 1) > 1e-8)
    if index is not None:
        _validate.fail(name, "probabilities must sum to 1", float(p.sum(axis=-1)[index]), index)


def worst_direction(p_hat: Any, p: Any) -> np.ndarray:
    """The ``x`` in ``[0, 1]^S`` with the largest ``|(p_hat - p).x| / sqrt(V(p, x))``: ``(p_hat - p)/p``, scaled to it.

    The ratio there is ``sqrt(chi²(p_hat‖p))``; for a fixed ``x`` and ``p_hat`` of ``N`` draws its mean square
    is ``1/N``, for the worst one ``(G - 1)/N`` with ``G`` outcomes. 0 where the laws are equal, and where ``p = 0``.

    Raises:
        ValueError: not distributions of one length, or ``p_hat`` has mass where ``p`` has none.
    """
    p_hat, p = _validate.numpy_arrays(p_hat=p_hat, p=p)
    _validate.same_last_axis(p_hat=p_hat, p=p)
    for name, rows in (("p_hat", p_hat), ("p", p)):
        _rows_of_probabilities(name, rows)
    p_hat, p = np.broadcast_arrays(p_hat, p)
    index = _validate.first_true(np, (p_hat > 0) & (p == 0))
    if index is not None:
        _validate.fail("p_hat", "has mass where p has none", float(p_hat[index]), index)
    inside = p > 0
    x = np.where(inside, (p_hat - p) / np.where(inside, p, 1.0), 0.0)
    low = np.where(inside, x, np.inf).min(axis=-1, keepdims=True)
    span = np.where(inside, x, -np.inf).max(axis=-1, keepdims=True) - low
    return np.asarray(np.where(inside, (x - low) / np.where(span > 0, span, 1.0), 0.0))


@dataclass(frozen=True)
class Optimism:
    """The bonus of a row seen ``n`` times.

    Attributes:
        iota: the logarithmic term, ``2 log(2 M S A H K / delta)`` in the paper.
        scale: ``c``: the bonus is ``max(c sqrt(G V iota / n), c² G iota / n)``; the paper has c = 4, and S for G in the
            second term.
        variance: False for the variance-blind (Hoeffding) bonus ``c sqrt(iota / (4 n))``.
    """

    iota: float
    scale: float = 4.0
    variance: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "iota", _validate.real("iota", self.iota, low=0.0))
        object.__setattr__(self, "scale", _validate.real("scale", self.scale, low=0.0))
        object.__setattr__(self, "variance", _validate.flag("variance", self.variance))

    def constants(self) -> tuple[float, float, float, bool]:
        """``iota, c1, c2, support`` as `klsim.kernels.latent_mdp` has them."""
        return self.iota, self.scale, self.scale**2 if self.variance else -1.0, self.variance


def _bonus(rule: Optimism, support: np.ndarray, variance: np.ndarray, n: np.ndarray) -> np.ndarray:
    n = np.maximum(n, 1.0)
    if not rule.variance:
        return rule.scale * np.sqrt(rule.iota / (4 * n))
    z = support * rule.iota / n
    return np.maximum(rule.scale * np.sqrt(variance * z), rule.scale**2 * z)


def _checked_visits(problem: LatentMDP, visits: Any) -> np.ndarray:
    _validate.instance("problem", problem, LatentMDP)
    found = _validate.integers("visits", visits, low=0)
    wanted = (len(problem.contexts), *problem.shape[1:])
    if found.shape != wanted:
        _validate.fail("visits", f"must have shape (M, S, A) = {wanted}, got {found.shape}")
    return found


def optimistic_alpha(
    problem: LatentMDP, visits: Any, log_policy: Any, rule: Optimism, tree: Histories | None = None
) -> tuple[np.ndarray, ...]:
    """Optimistic alpha vectors of a deterministic policy of histories, ``(N_t, M)``; 0 where a context is excluded.

    Args:
        problem: the empirical model (its transitions are the frequencies; rewards in [0, 1]).
        visits: ``N_m(s, a)``, ``(M, S, A)``; where it is 0 the value is 1.
        log_policy: levels of `klsim.problems.histories`, or of the current state ``(H, S, A)``; rows are deterministic.
        tree: the `histories` of ``problem``, where they are at hand.

    Raises:
        TypeError, ValueError: not a latent MDP, shapes, a policy that is not deterministic.
    """
    visits = _checked_visits(problem, visits)
    _validate.instance("rule", rule, Optimism)
    tree = histories(problem) if tree is None else tree
    levels = history_levels(problem, tree, log_policy)
    for t, level in enumerate(levels):
        if not np.all((level == 0.0) | np.isneginf(level)):
            _validate.fail(f"log_policy[{t}]", "must be deterministic: log-probabilities 0 and -inf")
    alpha: list[np.ndarray] = []
    for t in range(problem.horizon - 1, -1, -1):
        alpha.append(_optimistic_level(problem, visits, tree, t, levels[t], rule, alpha[-1] if alpha else None))
    return tuple(alpha[::-1])


def _optimistic_level(
    problem: LatentMDP,
    visits: np.ndarray,
    tree: Histories,
    t: int,
    level: np.ndarray,
    rule: Optimism,
    ahead: np.ndarray | None,
) -> np.ndarray:
    state, action = tree.states[t][:, -1], np.argmax(level, axis=1)
    seen, reward = visits[:, state, action].T, problem.reward[:, t, state, action].T  # (N, M)
    mean, variance = np.zeros(seen.shape), np.zeros(seen.shape)
    if ahead is not None:
        parent, taken = tree.parent[t + 1], tree.actions[t + 1][:, -1]
        chosen = taken == action[parent]
        parent, step, after = parent[chosen], tree.step[t + 1][chosen], ahead[chosen]
        np.add.at(mean, parent, step * after)
        np.add.at(variance, parent, step * (after - mean[parent]) ** 2)
    support = np.moveaxis(problem.transition[:, t, state, action] > 0, 0, 1).sum(axis=-1)
    value = np.minimum(reward + _bonus(rule, support, variance, seen) + mean, 1.0)
    return np.where(tree.posterior[t] > 0, np.where(seen == 0, 1.0, value), 0.0)


def optimistic_values(problem: LatentMDP, policies: Any, visits: Any, rule: Optimism) -> np.ndarray:
    """Optimistic values of deterministic policies of the current state, ``(C, M, S)``: the plan of `optimistic_regret`.

    Args:
        problem: the empirical model, stationary, rewards in [0, 1]. policies: ``(C, S)``. visits: ``(M, S, A)``.

    Raises:
        TypeError, ValueError: as `optimistic_alpha` and `optimistic_regret`.
    """
    from klsim.kernels import latent_mdp as kernels

    visits = np.ascontiguousarray(_checked_visits(problem, visits))
    _learnable(problem)
    _validate.instance("rule", rule, Optimism)
    model, reward = (np.ascontiguousarray(a[:, 0]) for a in (problem.transition, problem.reward))
    table = _policies(problem, policies)
    return np.asarray(kernels.optimistic_values(table, model, visits, reward, problem.horizon, *rule.constants()))


def _largest_total(problem: LatentMDP) -> float:
    """The largest total reward of an episode, over contexts, policies and what may happen."""
    value = np.zeros((len(problem.contexts), problem.shape[1]))
    for t in range(problem.horizon - 1, -1, -1):
        possible = problem.transition[:, t] > 0
        best = np.where(possible, value[:, None, None, :], -np.inf).max(axis=-1)
        value = np.where(problem.actions, problem.reward[:, t] + best, -np.inf).max(axis=-1)
    return float(np.where(problem.initial > 0, value, -np.inf).max())


def _learnable(problem: Any) -> None:
    _validate.instance("problem", problem, LatentMDP)
    if not problem.is_stationary:
        _validate.fail("problem", "transitions and rewards must not change with time")
    lowest, total = float(problem.reward.min()), _largest_total(problem)
    if lowest < 0 or total > 1 + 1e-9:
        _validate.fail("problem", f"rewards must be >= 0 and total at most 1, got {lowest:g} and a total of {total:g}")


def optimistic_regret(
    problem: LatentMDP,
    policies: Any,
    episodes: int,
    rngs: Sequence[np.random.Generator],
    rule: Optimism,
    *,
    growth: float = 2.0,
    refresh: str = "any",
) -> np.ndarray:
    """Cumulated pseudo-regret of the value-optimistic learner against the best of its policies, ``(runs, episodes)``.

    A policy of the class chooses, by the first state, one of ``policies`` and keeps to it. After every episode its
    context is told and ``N_m(s, a, s')`` updated; weights, first states, rewards are known. The plan is the
    policy with the largest optimistic value (ties to the first), made anew once the counts have grown.

    Args:
        problem: stationary, rewards >= 0 with a total of at most 1.
        policies: ``(C, S)``, actions of C policies of the current state. episodes: K. rngs: one generator a run.
        growth: the plan is made anew when a count is ``growth > 1`` times what it was (or has left 0).
        refresh: which count: ``"any"`` single ``N_m(s, a)``, the ``"largest"`` one only, or their ``"total"``.

    Raises:
        TypeError, ValueError: what the arguments must be; actions that are not legal.
    """
    from klsim.kernels import latent_mdp as kernels

    _learnable(problem)
    _validate.instance("rule", rule, Optimism)
    growth = _validate.real("growth", growth)
    if growth <= 1:
        _validate.fail("growth", "must be > 1", growth)
    code = _RULES.index(_validate.one_of("refresh", refresh, _RULES))
    episodes = _validate.integer("episodes", episodes, low=1)
    horizon, states, _ = problem.shape
    table = _policies(problem, policies)
    p, reward = np.ascontiguousarray(problem.transition[:, 0]), np.ascontiguousarray(problem.reward[:, 0])
    exact = optimistic_values(problem, table, np.ones(reward.shape, dtype=np.int64), Optimism(0.0))  # no bonus
    value = np.einsum("ms,cms->cs", problem.weights[:, None] * problem.initial, exact)
    edges = tuple(np.cumsum(law, axis=-1) for law in (problem.weights, problem.initial, p))
    out = np.empty((len(rngs), episodes))
    for run, rng in enumerate(rngs):
        rng = _validate.generator(rng)
        counts, choice = np.zeros(p.shape, dtype=np.int64), np.zeros(states, dtype=np.int64)
        planned, chunk = np.full(reward.shape, -1, dtype=np.int64), max(1, _CHUNK // (horizon + 2))
        for begin in range(0, episodes, chunk):
            uniforms = rng.random((min(chunk, episodes - begin), horizon + 2))
            out[run, begin : begin + chunk] = kernels.episodes(
                table, problem.weights, problem.initial, edges, reward, value.max(axis=0) - value, uniforms,
                *rule.constants(), growth, code, counts, planned, choice,
            )  # fmt: skip
    return np.cumsum(out, axis=1)


def _policies(problem: LatentMDP, policies: Any) -> np.ndarray:
    table = _validate.integers("policies", policies, low=0, high=problem.shape[2] - 1)
    states = problem.shape[1]
    if table.ndim != 2 or table.shape[1] != states or not len(table):
        _validate.fail("policies", f"must have shape (C, S) with S = {states}, got {table.shape}")
    index = _validate.first_true(np, ~problem.actions[np.arange(states), table])
    if index is not None:
        _validate.fail("policies", "takes an illegal action", int(table[index]), index)
    return np.ascontiguousarray(table)


def posterior_advantages(rewards: Any, posterior: Any, alpha: Any) -> np.ndarray:
    r"""``r_t + sum_m b_m(h_{t+1}) alpha_m(h_{t+1}) - sum_m b_m(h_t) alpha_m(h_t)``: advantages without the context.

    Each posterior is that of its own history: the new observation tells of the context. Given history and action the
    mean is ``Q(h_t, a_t) - V(h_t)``. With the context told afterwards, its one-hot posterior does as well.

    Args:
        rewards: ``(..., T)``. posterior: ``(..., T + 1, M)``, rows sum to 1. alpha: as posterior, 0 after the end.

    Returns:
        ``(..., T)``.

    Raises:
        ValueError: shapes, posteriors that are no distributions, values that are not finite.
    """
    rewards, posterior, alpha = _validate.numpy_arrays(rewards=rewards, posterior=posterior, alpha=alpha)
    if rewards.ndim == 0 or posterior.ndim < 2 or posterior.shape[:-1] != (*rewards.shape[:-1], rewards.shape[-1] + 1):
        _validate.fail("posterior", f"must be (..., T + 1, M) beside rewards (..., T), got {posterior.shape}")
    if alpha.shape != posterior.shape:
        _validate.fail("alpha", f"must have the shape {posterior.shape} of posterior, got {alpha.shape}")
    _rows_of_probabilities("posterior", posterior)
    _validate.finite("rewards", np, rewards)
    _validate.finite("alpha", np, alpha)
    value = np.sum(posterior * alpha, axis=-1)
    return np.asarray(rewards + value[..., 1:] - value[..., :-1])
