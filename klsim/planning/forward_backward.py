r"""Forward-backward representations (FB): successor densities as ``F(s, a, z)^T B(s+)``, and what is made of them.

If ``F(s, a, z)^T B(s+) = m^{pi_z}(s, a, s+)`` with ``pi_z = argmax_a F(s, a, z)^T z``, then for any reward paid on
arrival ``Q^{pi_z} = F^T z`` at ``z = E_rho[r B]`` (`task_vector`), and ``pi_z`` is optimal. For given features
``B (S, d)`` the best F in ``L^2(rho)`` is ``E_rho[m B^T] E_rho[B B^T]^{-1}`` (`forward_projection`), exact for
``d = S`` independent features.

Losses take a free table m ``(..., S, A, S)`` and return ``(loss, gradient)``:

.. math:: L(m) = \tfrac12 E_{(s,a,s'), s^+ \sim \rho}[(m(s,a,s^+) - \gamma \bar m(s', \pi(s'), s^+))^2]
          - E_{(s,a,s')}[m(s,a,s')],

minimal at ``m = P/rho + gamma E[mbar]``. `batch_fb_loss` is its unbiased estimate from a batch whose next states are
``s+``.

The conservative penalties, and the fits with linear F, are in `klsim.planning.conservative_fb`.

Sources: Touati & Ollivier (2021); Jeen, Bewley & Cullen (2024); ``zero-shot-rl`` C1, C2, C4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.successor_measures import state_law
from klsim.problems.transition_rows import probabilities

__all__ = [
    "ZeroShot",
    "batch_fb_loss",
    "batch_orthonormality_loss",
    "fb_loss",
    "forward_projection",
    "leading_features",
    "orthonormality_loss",
    "projected_reward",
    "task_vector",
    "zero_shot_policies",
]


def _features(features: Any, states: int | None = None) -> np.ndarray:
    (features,) = _validate.numpy_arrays(features=features)
    if features.ndim < 2 or 0 in features.shape or (states is not None and features.shape[-2] != states):
        wanted = "S" if states is None else states
        _validate.fail("features", f"must be (..., {wanted}, d), got shape {features.shape}")
    return np.asarray(_validate.finite("features", np, features))


def density_table(density: Any, name: str = "density") -> np.ndarray:
    """A finite table ``(..., S, A, S)``."""
    (density,) = _validate.numpy_arrays(**{name: density})
    if density.ndim < 3 or density.shape[-1] != density.shape[-3] or 0 in density.shape:
        _validate.fail(name, f"must be (..., S, A, S), got shape {density.shape}")
    return np.asarray(_validate.finite(name, np, density))


def task_vector(reward: Any, features: Any, rho: Any) -> np.ndarray:
    """``z = E_rho[r(s) B(s)]``, ``(..., d)``.

    Args:
        reward: ``(..., S)``. features: B, ``(..., S, d)``. rho: law of states, > 0, ``(..., S)``.

    Raises:
        ValueError: shapes, values that are not finite, a law with zeros.
    """
    features = _features(features)
    (reward,) = _validate.numpy_arrays(reward=reward)
    _validate.finite("reward", np, reward)
    if reward.ndim == 0 or reward.shape[-1] != features.shape[-2]:
        _validate.fail("reward", f"must be (..., {features.shape[-2]}), got shape {reward.shape}")
    return np.asarray(np.einsum("...s,...sd->...d", state_law(rho, features.shape[-2]) * reward, features))


def forward_projection(density: Any, features: Any, rho: Any) -> np.ndarray:
    """``F = E_rho[m B^T] E_rho[B B^T]^{-1}``, ``(..., S, A, d)``: the least-squares F of a density, for given B.

    Args:
        density: m, ``(..., S, A, S)``. features: B, ``(..., S, d)``, independent (else the F of least norm).

    Raises:
        ValueError: shapes, values that are not finite, a law with zeros.
    """
    density = density_table(density)
    features = _features(features, density.shape[-1])
    root = np.sqrt(state_law(rho, density.shape[-1]))
    inverse = np.linalg.pinv(root[..., :, None] * features)  # (..., d, S): conditioned as B, not as its Gram matrix
    return np.asarray(np.einsum("...sat,...dt->...sad", density * root[..., None, None, :], inverse))


def leading_features(density: Any, rho: Any, rank: int) -> np.ndarray:
    """``B = V_d / sqrt(rho)``, ``(S, d)``: the best ``d`` features of one density, orthonormal under ``rho``.

    ``V_d`` are the leading right singular vectors of ``m diag(sqrt rho)``, rows being pairs ``(s, a)``.

    Args:
        density: ``(S, A, S)``. rank: d in ``1 ... S``.

    Raises:
        ValueError: shapes, values that are not finite, a law with zeros, a rank out of range.
    """
    density = density_table(density)
    states = density.shape[-1]
    if density.ndim != 3:
        _validate.fail("density", f"must be (S, A, S), got shape {density.shape}")
    rank = _validate.integer("rank", rank, low=1, high=states)
    law = state_law(rho, states)
    if law.ndim != 1:
        _validate.fail("rho", f"must be ({states},), got shape {law.shape}")
    _, _, right = np.linalg.svd(density.reshape(-1, states) * np.sqrt(law), full_matrices=False)
    return np.asarray(right[:rank].T / np.sqrt(law)[:, None])


def projected_reward(tasks: Any, features: Any, rho: Any) -> np.ndarray:
    """``B E_rho[B B^T]^{-1} z``, ``(..., S)``: the reward that a task vector stands for, ``r`` projected on B.

    With the least-squares F of a policy's density ``F^T z`` are the action values of this reward, exactly: few features
    cost what the projection takes away from the reward, and nothing else.

    Args:
        tasks: z, ``(..., d)``. features: B, ``(S, d)``. rho: law of states, > 0, ``(S,)``.

    Raises:
        ValueError: shapes, values that are not finite, a law with zeros.
    """
    features = _features(features)
    if features.ndim != 2:
        _validate.fail("features", f"must be (S, d), got shape {features.shape}")
    states, rank = features.shape
    law = state_law(rho, states)
    if law.ndim != 1:
        _validate.fail("rho", f"must be ({states},), got shape {law.shape}")
    (tasks,) = _validate.numpy_arrays(tasks=tasks)
    if tasks.ndim == 0 or tasks.shape[-1] != rank:
        _validate.fail("tasks", f"must be (..., {rank}), got shape {tasks.shape}")
    _validate.finite("tasks", np, tasks)
    each = forward_projection(np.eye(states)[:, None, :], features, law)[:, 0] / law[:, None]  # B E[B B^T]^{-1}
    return np.asarray(tasks @ each.T)


@dataclass(frozen=True)
class ZeroShot:
    """Policies that are greedy for their own ``F(., z)^T z``, one a task.

    Attributes:
        action: ``(n, S)``. values: ``F^T z`` of the last policy that was evaluated, ``(n, S, A)``.
        converged: whether that policy is greedy for them, ``(n,)``. rounds: evaluations until then, ``(n,)``.
    """

    action: np.ndarray
    values: np.ndarray
    converged: np.ndarray
    rounds: np.ndarray

    @property
    def log_policy(self) -> np.ndarray:
        """``(n, S, A)``, 0 and ``-inf``."""
        return _deterministic(self.action, self.values.shape[-1])


def _deterministic(action: np.ndarray, actions: int) -> np.ndarray:
    return np.where(np.eye(actions, dtype=bool)[action], 0.0, -np.inf)


def zero_shot_policies(
    transition: Any, discount: float, rho: Any, features: Any, tasks: Any, *, rounds: int = 60
) -> ZeroShot:
    """From the uniform policy: evaluate, project on B (`forward_projection`), be greedy for ``F^T z``, until it stays.

    It is policy iteration for the `projected_reward` of every task: its fixed point exists for any features, and is
    optimal for that reward. An action is kept while no other is better beyond rounding.

    Args:
        transition: ``(S, A, S)``. discount: in [0, 1). rho: ``(S,)``, > 0. features: B, ``(S, d)``.
        tasks: z, ``(n, d)``. rounds: evaluations at most, >= 1.

    Raises:
        ValueError: shapes, rows that are no laws, values that are not finite, a law with zeros.
    """
    rows = probabilities("transition", transition)
    if rows.ndim != 3 or rows.shape[-1] != rows.shape[0]:
        _validate.fail("transition", f"must be (S, A, S), got shape {rows.shape}")
    states, actions = rows.shape[:2]
    features, rounds = _features(features, states), _validate.integer("rounds", rounds, low=1)
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
    rewards = projected_reward(tasks, features, rho)
    if rewards.ndim != 2:
        _validate.fail("tasks", f"must be (n, {features.shape[-1]}), got shape {rewards.shape[:-1]}")
    count = len(rewards)
    policy = np.full((count, states, actions), 1 / actions)
    action, values = np.full((count, states), -1), np.zeros((count, states, actions))
    converged, taken = np.zeros(count, dtype=bool), np.full(count, rounds)
    for step in range(rounds):
        left = np.flatnonzero(~converged)
        if left.size == 0:
            break
        chain = np.einsum("nsa,sat->nst", policy[left], rows)
        paid = np.linalg.solve(np.eye(states) - discount * chain, rewards[left][..., None])[..., 0]
        own = np.einsum("sat,nt->nsa", rows, paid)  # M r = P (I - gamma P_pi)^{-1} r
        best, before = own.max(axis=-1), action[left]
        kept = np.take_along_axis(own, np.maximum(before, 0)[..., None], axis=-1)[..., 0]
        stays = (before >= 0) & (kept >= best - 1e-12 * np.abs(own).max(axis=(-2, -1))[:, None])
        values[left], action[left] = own, np.where(stays, before, own.argmax(axis=-1))
        converged[left], taken[left] = stays.all(axis=-1), step + 1
        policy[left] = np.eye(actions)[action[left]]
    return ZeroShot(action, values, converged, taken)


def fb_loss(
    density: Any, target: Any, transition: Any, log_policy: Any, pairs: Any, rho: Any, discount: float
) -> tuple[float, np.ndarray]:
    """The FB loss of a free table and its gradient, ``(loss, (S, A, S))``, in expectation over the data.

    Args:
        density, target: m and the frozen ``mbar``, ``(S, A, S)``. transition: ``(S, A, S)``. log_policy: ``(S, A)`` of
            the actions at ``s'`` (the target is averaged over them). pairs: law of ``(s, a)`` in the data, ``(S, A)``.
        rho: law of ``s+``, > 0, ``(S,)``. discount: in [0, 1).

    Raises:
        ValueError: shapes, laws that are none, values that are not finite.
    """
    density, target = density_table(density), density_table(target, "target")
    rows, law = probabilities("transition", transition), state_law(rho, density.shape[-1])
    for name, value in (("target", target), ("transition", rows)):
        if density.ndim != 3 or value.shape != density.shape:
            _validate.fail(name, f"must be (S, A, S) like density {density.shape}, got shape {value.shape}")
    (pairs,) = _validate.numpy_arrays(pairs=pairs)
    if pairs.shape != density.shape[:2]:
        _validate.fail("pairs", f"must be {density.shape[:2]}, got shape {pairs.shape}")
    pairs = probabilities("pairs", pairs.ravel()).reshape(pairs.shape)
    (policy,) = _validate.numpy_arrays(log_policy=log_policy)
    if policy.shape != density.shape[:2]:
        _validate.fail("log_policy", f"must be {density.shape[:2]}, got shape {policy.shape}")
    policy = np.exp(_validate.log_probs("log_policy", np, policy))
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
    following = discount * np.einsum("sa,sat->st", policy, target)
    weights = pairs[..., None] * rows  # of (s, a, s')
    error = density[:, :, None, :] - following  # (s, a, s', s+)
    loss = 0.5 * np.einsum("sat,x,satx->", weights, law, error**2) - np.sum(weights * density)
    gradient = np.einsum("sat,x,satx->sax", weights, law, error) - weights
    return float(loss), gradient


def _square(name: str, value: np.ndarray) -> np.ndarray:
    if value.ndim < 2 or value.shape[-1] != value.shape[-2] or value.shape[-1] < 2:
        _validate.fail(name, f"must be (..., n, n), n >= 2, got shape {value.shape}")
    return np.asarray(_validate.finite(name, np, value))


def _off_diagonal_mean(x: np.ndarray) -> np.ndarray:
    n = x.shape[-1]
    return np.asarray((x.sum(axis=(-2, -1)) - np.trace(x, axis1=-2, axis2=-1)) / (n * (n - 1)))


def batch_fb_loss(measures: Any, targets: Any, discount: float) -> np.ndarray:
    """``mean_{i != j} (m_ij - gamma mbar_ij)^2 / 2 - mean_i m_ii``, ``(...)``, of a batch of n transitions.

    Args:
        measures: ``m(s_i, a_i, s'_j)``, ``(..., n, n)``. targets: ``mbar(s'_i, pi(s'_i), s'_j)``, the same shape.
        discount: in [0, 1).

    Raises:
        ValueError: shapes, values that are not finite.
    """
    measures, targets = _validate.numpy_arrays(measures=measures, targets=targets)
    measures, targets = _square("measures", measures), _square("targets", targets)
    if measures.shape[-1] != targets.shape[-1]:
        _validate.fail("targets", f"must have shape {measures.shape}, got {targets.shape}")
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
    square = _off_diagonal_mean((measures - discount * targets) ** 2)
    return np.asarray(0.5 * square - np.trace(measures, axis1=-2, axis2=-1) / measures.shape[-1])


def orthonormality_loss(features: Any, rho: Any) -> np.ndarray:
    """``E_{s, s' ~ rho}[(B(s)^T B(s'))^2] - 2 E[|B(s)|^2] = |E_rho[B B^T] - I|_F^2 - d``, ``(...)``.

    Args:
        features: B, ``(..., S, d)``. rho: law of states, > 0, ``(..., S)``.

    Raises:
        ValueError: shapes, values that are not finite, a law with zeros.
    """
    features = _features(features)
    law = state_law(rho, features.shape[-2])
    gram = np.einsum("...sd,...td->...st", features, features)
    square = np.einsum("...s,...t,...st->...", law, law, gram**2)
    return np.asarray(square - 2 * np.einsum("...s,...ss->...", law, gram))


def batch_orthonormality_loss(features: Any) -> np.ndarray:
    """``mean_{i != j} (B_i^T B_j)^2 - 2 mean_i |B_i|^2``, ``(...)``, of the features ``(..., n, d)`` of n states.

    Raises:
        ValueError: shapes, values that are not finite, fewer than two states.
    """
    features = _features(features)
    gram = _square("features", np.einsum("...sd,...td->...st", features, features))
    return np.asarray(_off_diagonal_mean(gram**2) - 2 * np.einsum("...ss->...", gram) / gram.shape[-1])
