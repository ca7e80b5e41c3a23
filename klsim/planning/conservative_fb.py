r"""Conservative forward-backward representations: what VC-FB and MC-FB add to the FB loss, and what that does.

For data with the behaviour ``beta (S, A)``, states weighted by w and a table m ``(S, A, S)``,

* **VC-FB** adds ``alpha E_s[logsumexp_a Q(s, .) - E_beta Q]`` with ``Q = E_rho[m r]``: CQL on the values of a task;
* **MC-FB** adds ``alpha E_{s, s+ ~ rho}[logsumexp_a m(s, ., s+) - E_beta m]``: CQL on the measures, for all tasks.

Both gradients are ``softmax_a - beta`` of what is penalised (`conservative_direction`). Beside
``(1/2) E_{w, beta, rho}[(m - target)^2]`` the minimiser is (`conservative_density`)

.. math:: m = t - \alpha (\mu(a|s)/\beta(a|s) - 1)\, r(s^+), \quad \mu = \mathrm{softmax}_a Q, \qquad
          m = t - \alpha (\mu_{s^+}(a|s)/\beta(a|s) - 1), \quad \mu_{s^+} = \mathrm{softmax}_a m(s, \cdot, s^+),

t being the target.

VC-FB lowers the ``mu``-weighted values of every task by ``alpha E_rho[r^2] chi^2(mu‖beta)``. MC-FB lowers *measures*:
values of a reward r move by ``-alpha E_rho[r (mu_{s+}/beta - 1)]``, which is up where r is negative.

`linear_fb` iterates the penalised fit with F linear in given features. For a single task VC-FB closes in Q
(`linear_values`).

Source: Jeen, Bewley & Cullen (2024); Kumar et al. (2020), CQL; ``zero-shot-rl`` C5, C6 (closed forms derived there).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax, wrightomega

from klsim import _validate
from klsim.planning.forward_backward import density_table
from klsim.planning.successor_measures import state_law
from klsim.problems.transition_rows import probabilities

__all__ = [
    "conservative_density",
    "conservative_direction",
    "conservative_values",
    "linear_fb",
    "linear_values",
    "measure_penalty",
    "value_penalty",
]


def _behaviour(log_behaviour: Any) -> np.ndarray:
    """Positive probabilities ``(..., A)``."""
    (logs,) = _validate.numpy_arrays(log_behaviour=log_behaviour)
    _validate.log_probs("log_behaviour", np, logs)
    index = _validate.first_true(np, np.isneginf(logs))
    if index is not None:
        _validate.fail("log_behaviour", "must give every action positive probability", float(logs[index]), index)
    return np.asarray(np.exp(logs))


def _reward(reward: Any, states: int) -> np.ndarray:
    (reward,) = _validate.numpy_arrays(reward=reward)
    if reward.ndim == 0 or reward.shape[-1] != states:
        _validate.fail("reward", f"must be (..., {states}), got shape {reward.shape}")
    return np.asarray(_validate.finite("reward", np, reward))


def conservative_direction(values: Any, behaviour: Any, *, axis: int = -1) -> np.ndarray:
    """``softmax_a(values) - behaviour`` along the action ``axis``: the gradient of ``logsumexp - E_behaviour``.

    Args:
        values: finite. behaviour: probabilities that broadcast against them; all zero where there are no data.

    Raises:
        ValueError: values that are not finite, a negative behaviour, shapes that do not broadcast, no such axis.
    """
    values, behaviour = _validate.numpy_arrays(values=values, behaviour=behaviour)
    _validate.finite("values", np, values)
    _validate.budgets("behaviour", np, _validate.finite("behaviour", np, behaviour))
    shape = _validate.broadcast(values=values, behaviour=behaviour)
    axis = _validate.integer("axis", axis, low=-len(shape), high=len(shape) - 1)
    if values.ndim != len(shape):
        _validate.fail("values", f"must have all axes of behaviour, got shapes {values.shape} and {behaviour.shape}")
    return np.asarray(softmax(values, axis=axis) - behaviour)


def _penalised(density: Any, log_behaviour: Any, states: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A table ``(S, A, S)``, a behaviour ``(S, A)`` and a law of states ``(S,)``."""
    density = density_table(density)
    if density.ndim != 3:
        _validate.fail("density", f"must be (S, A, S), got shape {density.shape}")
    behaviour = _behaviour(log_behaviour)
    if behaviour.shape != density.shape[:2]:
        _validate.fail("log_behaviour", f"must be {density.shape[:2]}, got shape {behaviour.shape}")
    weights = probabilities("states", states)
    if weights.shape != density.shape[:1]:
        _validate.fail("states", f"must be {density.shape[:1]}, got shape {weights.shape}")
    return density, behaviour, weights


def value_penalty(density: Any, log_behaviour: Any, states: Any, rho: Any, reward: Any) -> tuple[float, np.ndarray]:
    """VC-FB: ``E_s[logsumexp_a Q(s, .) - E_beta Q]``, ``Q = E_rho[m r]``, and its gradient ``(S, A, S)`` in m.

    Args:
        density: m, ``(S, A, S)``. log_behaviour: ``(S, A)``, finite. states: law of s, ``(S,)``. rho: law of s+, > 0,
            ``(S,)``. reward: ``(S,)``.

    Raises:
        ValueError: shapes, laws that are none, values that are not finite.
    """
    density, behaviour, weights = _penalised(density, log_behaviour, states)
    paid = state_law(rho, density.shape[-1]) * _reward(reward, density.shape[-1])
    if paid.ndim != 1:
        _validate.fail("reward", f"must be ({density.shape[-1]},), got shape {paid.shape}")
    values = density @ paid
    penalty = weights @ (logsumexp(values, axis=-1) - np.sum(behaviour * values, axis=-1))
    direction = weights[:, None] * conservative_direction(values, behaviour)
    return float(penalty), direction[..., None] * paid


def measure_penalty(density: Any, log_behaviour: Any, states: Any, rho: Any) -> tuple[float, np.ndarray]:
    """MC-FB: ``E_{s, s+ ~ rho}[logsumexp_a m(s, ., s+) - E_beta m]`` and its gradient ``(S, A, S)`` in m.

    Args:
        as `value_penalty`, without a reward.

    Raises:
        ValueError: shapes, laws that are none, values that are not finite.
    """
    density, behaviour, weights = _penalised(density, log_behaviour, states)
    law = state_law(rho, density.shape[-1])
    if law.ndim != 1:
        _validate.fail("rho", f"must be ({density.shape[-1]},), got shape {law.shape}")
    each = logsumexp(density, axis=1) - np.einsum("sa,sat->st", behaviour, density)
    direction = conservative_direction(density, behaviour[..., None], axis=1)
    return float(weights @ each @ law), weights[:, None, None] * direction * law


def conservative_values(values: Any, log_behaviour: Any, weight: Any) -> np.ndarray:
    r"""``argmin_q (1/2) E_beta[(q - v)^2] + weight (logsumexp q - E_beta q)``, ``(..., A)``: CQL in one state, exactly.

    ``q = v - weight (mu/beta - 1)`` with ``mu = softmax q``. With ``L = logsumexp q`` every ``mu_a`` is
    ``(beta/weight) omega(v + weight - L + log(weight/beta))``, omega the Wright function (``omega + log omega = x``); L
    is the root of ``sum mu = 1``, a convex falling function, by Newton's method from the left.

    Args:
        values: v, ``(..., A)``. log_behaviour: ``(..., A)``, finite. weight: >= 0, ``(...)``.

    Raises:
        ValueError: shapes, values that are not finite, a behaviour with zeros, a negative weight.
    """
    values, weight = _validate.numpy_arrays(values=values, weight=weight)
    behaviour = _behaviour(log_behaviour)
    _validate.same_last_axis(values=values, log_behaviour=behaviour)
    _validate.finite("values", np, values)
    index = _validate.first_true(np, ~((weight >= 0) & (weight <= 1e100)))
    if index is not None:
        _validate.fail("weight", "must lie in [0, 1e+100]", float(weight[index]), index)
    _validate.broadcast(values=values[..., 0], log_behaviour=behaviour[..., 0], weight=weight)
    scale = np.maximum(weight, 1e-300)[..., None] / behaviour
    top = values + np.maximum(weight, 1e-300)[..., None]
    level = (top - scale).max(axis=-1, keepdims=True)  # one mu is 1 there, so that their sum is at least 1
    for _ in range(200):
        x = top - level + np.log(scale)
        omega = wrightomega(x).real
        slope = np.sum(omega / (1 + omega) / scale, axis=-1, keepdims=True)
        step = (np.sum(omega / scale, axis=-1, keepdims=True) - 1) / slope
        level = level + np.maximum(step, 0.0)
        if np.all(step <= 4e-16 * np.maximum(np.abs(level), 1.0)):
            break
    x = top - level + np.log(scale)
    omega = wrightomega(x).real
    with np.errstate(divide="ignore"):
        logs = np.where(x < 0, x - omega, np.log(omega))  # omega + log omega = x; omega may underflow, its log does not
    return np.asarray(np.where(weight[..., None] > 0, level + logs - np.log(scale), values))


def conservative_density(target: Any, log_behaviour: Any, alpha: float, rho: Any, reward: Any = None) -> np.ndarray:
    """The minimiser of ``(1/2) E_{w, beta, rho}[(m - target)^2]`` plus alpha times a penalty, ``(S, A, S)``.

    The state weights w > 0 do not matter. With a ``reward`` the penalty is that of VC-FB for it, else that of MC-FB.

    Args:
        target: ``(S, A, S)``. log_behaviour: ``(S, A)``, finite. alpha: >= 0. rho: law of s+, > 0, ``(S,)``.
        reward: ``(S,)`` or None.

    Raises:
        ValueError: shapes, laws that are none, values that are not finite.
    """
    target = density_table(target, "target")
    states = target.shape[-1]
    target, behaviour, _ = _penalised(target, log_behaviour, np.full(states, 1 / states))
    law, alpha = state_law(rho, states), _validate.real("alpha", alpha, low=0.0, high=1e100)
    if law.ndim != 1:
        _validate.fail("rho", f"must be ({states},), got shape {law.shape}")
    if reward is None:
        table = np.swapaxes(target, 1, 2)
        return np.swapaxes(conservative_values(table, np.log(behaviour)[:, None], alpha), 1, 2)
    paid = _reward(reward, states)
    if paid.ndim != 1:
        _validate.fail("reward", f"must be ({states},), got shape {paid.shape}")
    mu = softmax(conservative_values(target @ (law * paid), np.log(behaviour), alpha * (law @ paid**2)), axis=-1)
    return np.asarray(target - alpha * (mu / behaviour - 1)[..., None] * paid)


def _smoother(features: np.ndarray, data: np.ndarray, ridge: float) -> np.ndarray:
    """``phi (phi^T D phi + ridge I)^{-1} phi^T = (K D + ridge I)^{-1} K``, ``K = phi phi^T``, ``(..., SA, SA)``."""
    flat = features.reshape(*features.shape[:-3], -1, features.shape[-1])
    kernel = flat @ np.swapaxes(flat, -1, -2)
    system = kernel * data.reshape(*data.shape[:-2], 1, -1) + ridge * np.eye(kernel.shape[-1])
    return np.asarray(np.linalg.solve(system, np.broadcast_to(kernel, system.shape)))


class _Linear:
    """What the two iterations share: checked arrays, the smoother, and the behaviour in the data."""

    def __init__(self, features: Any, transition: Any, discount: float, data: Any, ridge: float) -> None:
        (self.features,) = _validate.numpy_arrays(features=features)
        self.mask = _validate.boolean_mask("data", data)
        if self.features.ndim < 3 or self.mask.ndim < 2 or self.features.shape[-3:-1] != self.mask.shape[-2:]:
            shapes = f"{self.features.shape} and {self.mask.shape}"
            _validate.fail("features", f"must be (..., S, A, k) beside data (..., S, A), got {shapes}")
        _validate.finite("features", np, self.features)
        self.states, self.actions = self.mask.shape[-2:]
        rows = probabilities("transition", transition)
        if rows.shape[-3:] != (self.states, self.actions, self.states):
            wanted = f"(..., {self.states}, {self.actions}, {self.states})"
            _validate.fail("transition", f"must be {wanted}, got shape {rows.shape}")
        ends = {"features": self.features[..., 0, 0, 0], "data": self.mask[..., 0, 0], "transition": rows[..., 0, 0, 0]}
        self.rows, self.batch = rows, _validate.broadcast(**ends)
        self.discount = _validate.real("discount", discount, low=0.0, high=1.0, open_high=True)
        ridge = _validate.real("ridge", ridge, low=0.0, high=1e100, open_low=True)
        self.data = self.mask.astype(float)
        self.smooth = _smoother(self.features, self.data, ridge)
        share = self.data / np.maximum(self.data.sum(axis=-1, keepdims=True), 1)
        self.behaviour, self.seen = share, self.data.max(axis=-1, keepdims=True)

    def tasks(self, reward: Any, rho: Any) -> tuple[np.ndarray, np.ndarray]:
        """Rewards ``(n, S)`` and rho ``(S,)``."""
        reward, law = _reward(reward, self.states), state_law(rho, self.states)
        if reward.ndim != 2 or law.ndim != 1:
            _validate.fail("reward", f"must be (n, S) beside rho (S,), got {reward.shape} and {law.shape}")
        return reward, law


def linear_values(
    features: Any, transition: Any, discount: float, rho: Any, reward: Any, data: Any, *, alpha: float = 0.0,
    ridge: float = 0.05, rounds: int = 120,
) -> np.ndarray:  # fmt: skip
    """`linear_fb` with the penalty of VC-FB (or none, ``alpha = 0``), iterated in the values alone, ``(..., n, S, A)``.

    Averaging ``m rho r`` over s+ closes: the targets are ``P r + gamma Q(s', argmax Q)``, the penalty is
    ``alpha E_rho[r^2] (softmax_a Q - beta)``: CQL with linear values. For a reward on a single state g MC-FB closes as
    well, in the column ``m(., ., g)``: that is this iteration with the reward ``e_g/rho(g)`` and ``alpha rho(g)``.

    Args, Raises:
        as `linear_fb`.
    """
    fit = _Linear(features, transition, discount, data, ridge)
    reward, law = fit.tasks(reward, rho)
    alpha = _validate.real("alpha", alpha, low=0.0, high=1e100)
    rounds = _validate.integer("rounds", rounds, low=1)
    data_, behaviour, seen = (x[..., None, :, :] for x in (fit.data, fit.behaviour, fit.seen))
    paid = np.einsum("...sat,nt->...nsa", fit.rows, reward)
    weight = (alpha * (reward**2 @ law))[:, None, None]
    rows = fit.rows.reshape(*fit.rows.shape[:-3], -1, fit.states)
    values = np.zeros((*fit.batch, len(reward), fit.states, fit.actions))
    for _ in range(rounds):
        ahead = values.max(axis=-1) @ np.swapaxes(rows, -1, -2)
        push = data_ * (paid + fit.discount * ahead.reshape(values.shape))
        if alpha > 0:
            push = push - weight * seen * (softmax(values, axis=-1) - behaviour)
        moved = push.reshape(*push.shape[:-2], -1) @ fit.smooth  # symmetric
        values = 0.5 * (values + moved.reshape(values.shape))
    return values


def linear_fb(
    features: Any, transition: Any, discount: float, rho: Any, reward: Any, data: Any, *, alpha: float = 0.0,
    penalty: str = "measures", ridge: float = 0.05, rounds: int = 120,
) -> np.ndarray:  # fmt: skip
    r"""Densities ``m = phi W``, ``(..., n, S, A, S)``, of fitted FB: F linear in features of ``(s, a)``, ``B = I/rho``.

    From ``W = 0``: ``W <- (W + G phi^T (D target - alpha push))/2``, ``G = (phi^T D phi + ridge I)^{-1}``, target
    ``P/rho + gamma m(s', argmax_a Q(s', a), .)``, D the 0/1 mask of pairs in the data, ``push`` the direction of the
    penalty, over *all* actions of every state with data, beside the uniform behaviour on the data.

    Args:
        features: phi, ``(..., S, A, k)``. transition: ``(..., S, A, S)``.
        discount: in [0, 1). rho: ``(S,)``, > 0. reward: one row a task, ``(n, S)``. data: boolean ``(..., S, A)``.
        alpha: >= 0. penalty: ``"measures"`` (MC-FB) or ``"values"`` (VC-FB). ridge: > 0. rounds: >= 1.

    Raises:
        ValueError: shapes, laws that are none, values that are not finite, an unknown penalty.
    """
    fit = _Linear(features, transition, discount, data, ridge)
    reward, law = fit.tasks(reward, rho)
    alpha = _validate.real("alpha", alpha, low=0.0, high=1e100)
    penalty = _validate.one_of("penalty", penalty, ("measures", "values"))
    rounds = _validate.integer("rounds", rounds, low=1)
    states, actions, batch, count = fit.states, fit.actions, fit.batch, len(reward)
    now, rows = (fit.rows / law)[..., None, :, :, :], fit.rows.reshape(*fit.rows.shape[:-3], 1, -1, states)
    data_, behaviour, seen = (x[..., None, :, :, None] for x in (fit.data, fit.behaviour, fit.seen))
    density = np.zeros((*batch, count, states, actions, states))
    for _ in range(rounds):
        values = np.einsum("...nsat,nt->...nsa", density, law * reward, optimize=True)
        best = values.argmax(axis=-1)[..., None, None]
        ahead = np.take_along_axis(density, best, axis=-2)[..., 0, :]
        push = data_ * (now + fit.discount * (rows @ ahead).reshape(density.shape))
        if alpha > 0 and penalty == "measures":
            top = np.exp(density - density.max(axis=-2, keepdims=True))
            push -= alpha * seen * (top / top.sum(axis=-2, keepdims=True) - behaviour)
        elif alpha > 0:
            direction = seen[..., 0] * (softmax(values, axis=-1) - behaviour[..., 0])
            push -= alpha * direction[..., None] * reward[:, None, None, :]
        moved = fit.smooth[..., None, :, :] @ push.reshape(*batch, count, states * actions, states)
        density = 0.5 * (density + moved.reshape(density.shape))
    return density
