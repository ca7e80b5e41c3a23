"""Many finite-horizon problems at once: estimated models, soft plans, returns, and counts of demonstrations.

Arrays carry leading batch axes: transitions ``(..., H, S, A, S)``, rewards and policies ``(..., H, S, A)``, initial
laws ``(..., S)``. What one problem needs is in `klsim.planning.solve` and `klsim.planning.evaluation`; a study over
seeds has a problem or an estimated model a seed, and this solves them in H backups.

Source: ``demo-reg`` C7, C8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.divergences import kl
from klsim.planning.solution import soft_backup
from klsim.problems.transition_rows import probabilities

__all__ = ["demonstration_counts", "estimated_transitions", "expected_returns", "soft_plans"]


def _shared(transition: Any, **tables: Any) -> tuple[np.ndarray, list[np.ndarray], tuple[int, ...]]:
    """Checked transitions, tables broadcast to ``(..., H, S, A)``, and the batch axes."""
    rows = probabilities("transition", transition)
    if rows.ndim < 4 or rows.shape[-1] != rows.shape[-3]:
        _validate.fail("transition", f"must be (..., H, S, A, S), got shape {rows.shape}")
    given = _validate.numpy_arrays(**tables)
    for name, table in zip(tables, given):
        if table.ndim < 3 or table.shape[-3:] != rows.shape[-4:-1]:
            _validate.fail(name, f"must be (..., H, S, A) = (..., {rows.shape[-4:-1]}), got shape {table.shape}")
    batch = np.broadcast_shapes(rows.shape[:-4], *(table.shape[:-3] for table in given))
    wide = [np.broadcast_to(table, (*batch, *table.shape[-3:])) for table in given]
    return np.broadcast_to(rows, (*batch, *rows.shape[-4:])), wide, batch


def estimated_transitions(transition: Any, samples: int, rng: np.random.Generator | int) -> np.ndarray:
    """Frequencies of ``samples`` >= 1 independent successors of every row, like ``transition (..., S)``."""
    rows = probabilities("transition", transition)
    samples = _validate.integer("samples", samples, low=1, high=10**12)
    return np.asarray(_validate.generator(rng).multinomial(samples, rows) / samples)


def soft_plans(transition: Any, reward: Any, log_ref: Any, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Optima of ``E[sum r] - beta KL(pi‖ref)`` of every model of a batch, by backward induction.

    Args:
        beta: >= 0; 0 is the unregularised problem, whose policy is the reference conditioned on the best actions.

    Returns:
        ``(log_policy (..., H, S, A), q_value (..., H, S, A), value (..., H + 1, S))``.
    """
    beta = _validate.real("beta", beta, low=0.0, high=1e100)
    rows, (reward, ref), batch = _shared(transition, reward=reward, log_ref=log_ref)
    _validate.finite("reward", np, reward)
    _validate.log_probs("log_ref", np, ref)
    horizon, states, _ = shape = reward.shape[-3:]
    q_value, log_policy = np.empty((*batch, *shape)), np.empty((*batch, *shape))
    value = np.zeros((*batch, horizon + 1, states))
    for t in range(horizon - 1, -1, -1):
        q_value[..., t, :, :] = (
            reward[..., t, :, :] + (rows[..., t, :, :, :] @ value[..., t + 1, None, :, None])[..., 0]
        )
        value[..., t, :], log_policy[..., t, :, :] = soft_backup(q_value[..., t, :, :], ref[..., t, :, :], beta)
    return log_policy, q_value, value


def expected_returns(
    transition: Any, reward: Any, initial: Any, log_policy: Any, log_ref: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """``E_pi[sum r]`` and ``KL_traj(pi‖ref)`` (0 without a reference) of every problem of a batch, ``(...)`` each."""
    given = {"reward": reward, "log_policy": log_policy}
    rows, tables, batch = _shared(transition, **given, **({} if log_ref is None else {"log_ref": log_ref}))
    start = probabilities("initial", initial)
    if start.shape[-1] != rows.shape[-1]:
        _validate.fail("initial", f"must be (..., {rows.shape[-1]}), got shape {start.shape}")
    states, (reward, policy) = np.broadcast_to(start, (*batch, rows.shape[-1])), tables[:2]
    _validate.finite("reward", np, reward)
    _validate.log_probs("log_policy", np, policy)
    weights = np.exp(policy)
    each = np.zeros(reward.shape[:-1]) if log_ref is None else np.asarray(kl(policy, tables[2]))
    total, spent = np.zeros(batch), np.zeros(batch)
    for t in range(reward.shape[-3]):
        pairs = states[..., None] * weights[..., t, :, :]
        total = total + np.sum(pairs * reward[..., t, :, :], axis=(-2, -1))
        visited = states > 0  # an infinite KL where nobody goes costs nothing
        spent = spent + np.sum(np.where(visited, states * np.where(visited, each[..., t, :], 0.0), 0.0), axis=-1)
        states = np.einsum("...sa,...san->...n", pairs, rows[..., t, :, :, :])
    return total, spent


def demonstration_counts(
    transition: Any, initial: Any, log_policy: Any, demonstrations: int, rng: np.random.Generator | int
) -> np.ndarray:
    """Counts ``(..., H, S, A)`` of ``demonstrations`` >= 0 trajectories of a policy, one data set a problem.

    Drawn step by step as multinomials of the counts before, which have the law of counted trajectories.
    """
    rng, count = _validate.generator(rng), _validate.integer("demonstrations", demonstrations, low=0, high=10**12)
    rows, (policy,), batch = _shared(transition, log_policy=log_policy)
    _validate.log_probs("log_policy", np, policy)
    start = probabilities("initial", initial)
    if start.shape[-1] != rows.shape[-1]:
        _validate.fail("initial", f"must be (..., {rows.shape[-1]}), got shape {start.shape}")
    weights = np.exp(policy)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    out = np.empty(policy.shape, dtype=np.int64)
    visits = rng.multinomial(count, np.broadcast_to(start, (*batch, start.shape[-1])))
    for t in range(policy.shape[-3]):
        out[..., t, :, :] = rng.multinomial(visits, weights[..., t, :, :])
        visits = rng.multinomial(out[..., t, :, :], rows[..., t, :, :, :]).sum(axis=(-3, -2))
    return out
