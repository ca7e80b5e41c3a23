r"""Successor measures: where a policy goes, discounted, as one table for all rewards.

.. math:: M^\pi(s, a, s^+) = \sum_{t \ge 0} \gamma^t \Pr(s_{t+1} = s^+ | s, a, \pi), \qquad M = P + \gamma P_\pi M,

of mass ``1/(1-gamma)``, starting at the *next* state. A reward ``r(s')`` that is paid on arrival has the action values
``Q = M r``. With a law ``rho`` of states in the data the *density* is ``m = M/rho``, so that ``Q = E_rho[m r]`` and

.. math:: m = P/\rho + \gamma\, E_{s', \pi}[m(s', a', \cdot)].

If a table is off by ``epsilon = max_{s,a} sum_{s+} |.|`` (`measure_error`), its values are off by ``epsilon |r|``, and
a policy that is greedy for its own approximate values loses at most ``2 epsilon |r| / (1-gamma)`` (`greedy_gap_bound`).

Arrays may carry leading batch axes: transitions ``(..., S, A, S)``, log-policies ``(..., S, A)``, laws, rewards
``(..., S)``.

Sources: Dayan (1993); Blier, Tallec & Ollivier (2021); Touati & Ollivier (2021); ``zero-shot-rl`` C1-C3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.transition_rows import probabilities

__all__ = [
    "arrival_values",
    "greedy_gap_bound",
    "measure_error",
    "state_law",
    "successor_backup",
    "successor_density",
    "successor_measure",
]


def _tables(**named: Any) -> list[np.ndarray]:
    """Finite arrays ``(..., S, A, S)``."""
    arrays = _validate.numpy_arrays(**named)
    for name, x in zip(named, arrays):
        if x.ndim < 3 or x.shape[-1] != x.shape[-3] or 0 in x.shape:
            _validate.fail(name, f"must be (..., S, A, S), got shape {x.shape}")
        _validate.finite(name, np, x)
    return list(arrays)


def state_law(rho: Any, states: int) -> np.ndarray:
    """``rho`` as a law ``(..., S)`` without zeros: what densities are taken with respect to.

    Raises:
        ValueError: another number of states, an entry that is not positive, a sum that is not 1.
    """
    law = probabilities("rho", rho)
    if law.shape[-1] != states:
        _validate.fail("rho", f"must be (..., {states}), got shape {law.shape}")
    return np.asarray(_validate.positive("rho", np, law))


def _moves(transition: Any) -> np.ndarray:
    rows = probabilities("transition", transition)
    if rows.ndim < 3 or rows.shape[-1] != rows.shape[-3]:
        _validate.fail("transition", f"must be (..., S, A, S), got shape {rows.shape}")
    return rows


def _policy(log_policy: Any, shape: tuple[int, ...]) -> np.ndarray:
    (policy,) = _validate.numpy_arrays(log_policy=log_policy)
    if policy.shape[-2:] != shape:
        _validate.fail("log_policy", f"must be (..., {shape[0]}, {shape[1]}), got shape {policy.shape}")
    return np.asarray(np.exp(_validate.log_probs("log_policy", np, policy)))


def successor_measure(transition: Any, log_policy: Any, discount: float) -> np.ndarray:
    """``M^pi = P (I - gamma P_pi)^{-1}``, ``(..., S, A, S)``.

    Args:
        transition: ``(..., S, A, S)``. log_policy: ``(..., S, A)``. discount: gamma in [0, 1).

    Raises:
        ValueError: shapes, rows that are no laws, a discount outside [0, 1).
    """
    rows = _moves(transition)
    policy = _policy(log_policy, rows.shape[-3:-1])
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
    batch = np.broadcast_shapes(rows.shape[:-3], policy.shape[:-2])
    states, actions = rows.shape[-3:-1]
    chain = np.einsum("...sa,...sat->...st", policy, rows)
    system = np.swapaxes(np.eye(states) - discount * chain, -1, -2)
    flat = np.broadcast_to(rows, (*batch, *rows.shape[-3:])).reshape(*batch, states * actions, states)
    found = np.swapaxes(np.linalg.solve(system, np.swapaxes(flat, -1, -2)), -1, -2)
    return np.asarray(found.reshape(*batch, states, actions, states))


def successor_density(measure: Any, rho: Any) -> np.ndarray:
    """``m = M / rho``, ``(..., S, A, S)``: the density of a table of measures with respect to ``rho > 0`` ``(..., S)``.

    Raises:
        ValueError: shapes, values that are not finite, a law with zeros.
    """
    (measure,) = _tables(measure=measure)
    return np.asarray(measure / state_law(rho, measure.shape[-1])[..., None, None, :])


def arrival_values(density: Any, rho: Any, reward: Any) -> np.ndarray:
    """``E_{s+ ~ rho}[m(s, a, s+) r(s+)]``, ``(..., S, A)``: the action values of a reward paid on arrival.

    Args:
        density: m, ``(..., S, A, S)``. reward: ``(..., S)``.

    Raises:
        ValueError: shapes, values that are not finite, a law with zeros.
    """
    (density,) = _tables(density=density)
    (reward,) = _validate.numpy_arrays(reward=reward)
    _validate.finite("reward", np, reward)
    if reward.ndim == 0 or reward.shape[-1] != density.shape[-1]:
        _validate.fail("reward", f"must be (..., {density.shape[-1]}), got shape {reward.shape}")
    return np.asarray(np.einsum("...sat,...t->...sa", density, state_law(rho, density.shape[-1]) * reward))


def successor_backup(transition: Any, log_policy: Any, density: Any, rho: Any, discount: float) -> np.ndarray:
    """``P/rho + gamma E_{s', a' ~ pi}[m(s', a', .)]``, ``(..., S, A, S)``; its fixed point is ``M^pi / rho``.

    Raises:
        ValueError: as `successor_measure` and `successor_density`.
    """
    rows = _moves(transition)
    policy = _policy(log_policy, rows.shape[-3:-1])
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
    (density,) = _tables(density=density)
    if density.shape[-3:] != rows.shape[-3:]:
        _validate.fail("density", f"must be (..., {rows.shape[-3:]}), got shape {density.shape}")
    following = np.einsum("...sa,...sat->...st", policy, density)
    ahead = np.einsum("...sat,...tx->...sax", rows, following)
    return np.asarray(rows / state_law(rho, rows.shape[-1])[..., None, None, :] + discount * ahead)


def measure_error(approximate: Any, measure: Any) -> np.ndarray:
    """``epsilon = max_{s, a} sum_{s+} |approximate - measure|``, ``(...)``, of tables ``(..., S, A, S)``.

    Raises:
        ValueError: shapes, values that are not finite.
    """
    approximate, measure = _tables(approximate=approximate, measure=measure)
    if approximate.shape[-3:] != measure.shape[-3:]:
        _validate.fail("approximate", f"must be (..., {measure.shape[-3:]}), got shape {approximate.shape}")
    return np.asarray(np.abs(approximate - measure).sum(axis=-1).max(axis=(-2, -1)))


def greedy_gap_bound(error: Any, reward: Any, discount: float) -> np.ndarray:
    r"""``2 epsilon max|r| / (1-gamma)``, ``(...)``: what a policy loses that is greedy for its own approximate values.

    ``|(M + E) r - Q^pi| <= epsilon max|r|`` makes ``max_a Q^pi - V^pi <= 2 epsilon max|r|`` for the greedy ``pi``. The
    bound is attained: two states that pay -1 and 1, actions that lead to the second with chances ``1/2`` and
    ``1/2 + epsilon``, and errors that hide the difference.

    Args:
        error: epsilon >= 0, ``(...)``, of `measure_error`. reward: ``(..., S)``. discount: gamma in [0, 1).

    Raises:
        ValueError: out of range, rewards that are not finite.
    """
    error, reward = _validate.numpy_arrays(error=error, reward=reward)
    _validate.budgets("error", np, _validate.finite("error", np, error))
    _validate.finite("reward", np, reward)
    if reward.ndim == 0 or reward.shape[-1] == 0:
        _validate.fail("reward", f"must be (..., S), got shape {reward.shape}")
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
    return np.asarray(2 * error * np.abs(reward).max(axis=-1) / (1 - discount))
