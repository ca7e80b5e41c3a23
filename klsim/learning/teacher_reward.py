r"""Reward and teacher in one loss: where policy gradients with a per-token reverse KL to a teacher stop.

The joint loss credits a token with the reward to go and with its *own* ``-beta log(pi/T)`` (k2 in the loss, discount
0). With r in {0, 1}, p the success rate of the policy and p_T that of the teacher, ``x = logit p``:

===============================  ==================================================================================
advantages                       where a tabular policy stops
===============================  ==================================================================================
unnormalised, sequences          ``pi(a|s) ∝ T(a|s) e^(V(sa)/beta)``, ``V(s) = E_pi V(sa)`` (`myopic_optimum`): the
                                 *hard* value; the optimum of ``E[r] - beta KL(pi‖T)`` has the soft one
divided by the group's std       ``x = x_T + slope(x)/beta`` (`normalised_stop`); with an infinite group the slope
                                 ``1/sqrt(p (1 - p))`` is unbounded: nothing stops below `critical_coefficient`
KD on wrong responses only       ``1 - p = (1 - p_T) e^(-1/beta)`` (`masked_success`); averaged over the wrong
                                 responses instead of all, ``1 - p = (1 - p_T) e^(-(1 - p)/beta)``
===============================  ==================================================================================

Source: ``kdrl`` C3-C5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from scipy.special import expit, lambertw, logit

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.objectives.advantages import std_weight
from klsim.problems.token_tree import check_levels

__all__ = [
    "critical_coefficient",
    "joint_ascent",
    "masked_success",
    "myopic_optimum",
    "normalised_stop",
]

Levels = tuple[np.ndarray, ...]


def _tree(log_teacher: Sequence[Any], reward: Any, beta: Any) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Levels, rewards ``(..., V**H)`` and ``beta (...)``, validated."""
    _, vocab, levels = check_levels("log_teacher", log_teacher, policy=True)
    named = {f"log_teacher[{t}]": level for t, level in enumerate(levels)}
    *levels, reward, beta = _validate.numpy_arrays(**named, reward=reward, beta=beta)
    if reward.ndim == 0 or reward.shape[-1] != vocab ** len(levels):
        _validate.fail("reward", f"needs {vocab}**{len(levels)} entries on the last axis, got {reward.shape}")
    _validate.positive("beta", np, beta)
    index = _validate.first_true(np, ~(np.abs(reward) <= 1e100))
    if index is not None:
        _validate.fail("reward", "must be finite (at most 1e100)", float(reward[index]), index)
    _validate.broadcast(log_teacher=levels[0][..., 0, 0], reward=reward[..., 0], beta=beta)
    return levels, reward, beta


def myopic_optimum(log_teacher: Sequence[Any], reward: Any, beta: Any) -> tuple[Levels, Levels]:
    r"""The fixed point of the joint loss with unnormalised advantages: ``(levels, values)``.

    Backwards from the leaves, ``pi(a|s) ∝ T(a|s) exp(V(sa)/beta)`` and ``V(s) = E_pi[V(sa)]``, ``V(leaf) = r``. Future
    KL costs are ignored: the optimum of ``E[r] - beta KL(pi‖T)`` has ``beta log E_T[e^(V(sa)/beta)]`` in place of V.

    Args:
        log_teacher: levels ``(..., V**t, V)``. reward: of sequences, ``(..., V**H)``, at most 1e100 in size.
        beta: > 0, ``(...)``.

    Returns:
        the policy's levels, and ``V`` of every prefix, ``H + 1`` arrays ``(..., V**t)``.
    """
    teacher, reward, beta = _tree(log_teacher, reward, beta)
    values, levels = [reward], []
    for level in teacher[::-1]:
        below = values[-1].reshape(*values[-1].shape[:-1], *level.shape[-2:])
        pulled = below / beta[..., None, None]
        _validate.representable("reward (or beta)", np, pulled)
        levels.append(log_normalize(level + pulled))
        values.append(np.sum(np.exp(levels[-1]) * below, axis=-1))
    return tuple(levels[::-1]), tuple(values[::-1])


def joint_ascent(
    logits: Sequence[Any],
    log_teacher: Sequence[Any],
    reward: Any,
    beta: Any,
    *,
    steps: int,
    lr: float = 0.3,
    natural: bool = True,
) -> Levels:
    """Exact steps of the joint loss with unnormalised advantages, from ``logits``; levels ``(..., V**t, V)``.

    A natural step adds ``(lr/beta) [Q(s,a) - beta log(pi/T)(a|s)]`` to the logits of every node, Q the expected reward
    under the current policy; a plain one has the factor ``pi(a|s)`` and is centred (nodes not weighted by visits).
    Rewards are at most 1e100 in size, ``lr`` at most 1e6.
    """
    teacher, reward, beta = _tree(log_teacher, reward, beta)
    _, _, start = check_levels("logits", logits, policy=False)
    now = [_validate.finite(f"logits[{t}]", np, *_validate.numpy_arrays(logits=x)) for t, x in enumerate(start)]
    if [x.shape[-2:] for x in now] != [x.shape[-2:] for x in teacher]:
        _validate.fail("logits", "must be a tree of the vocabulary and horizon of log_teacher")
    steps, natural = _validate.integer("steps", steps, low=0), _validate.flag("natural", natural)
    lr = _validate.real("lr", lr, low=0.0, high=1e6)
    leaf = reward.reshape(*reward.shape[:-1], *teacher[-1].shape[-2:])
    for _ in range(steps):
        policy = [log_normalize(x) for x in now]
        q = [leaf]
        for p in policy[:0:-1]:
            below = np.sum(np.exp(p) * q[0], axis=-1)
            q.insert(0, below.reshape(*below.shape[:-1], -1, p.shape[-1]))
        gains = [v / beta[..., None, None] - (p - t) for v, p, t in zip(q, policy, teacher)]
        if not natural:
            gains = [np.exp(p) * (g - np.sum(np.exp(p) * g, axis=-1, keepdims=True)) for p, g in zip(policy, gains)]
        now = [log_normalize(x + lr * g) for x, g in zip(now, gains)]
        _validate.representable("reward (or beta)", np, *now)
    return tuple(log_normalize(x) for x in now)


# success rates ----------------------------------------------------------------------------------------
def _bisect(rises: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where ``rises`` becomes true, to the last bits; false at ``low``, true at ``high``."""
    for _ in range(80):
        middle = (low + high) / 2
        up = rises(middle)
        low, high = np.where(up, low, middle), np.where(up, middle, high)
    return (low + high) / 2


def _teachers_logit(teacher_success: Any) -> np.ndarray:
    (p,) = _validate.numpy_arrays(teacher_success=teacher_success)
    return np.asarray(logit(_validate.unit_interval("teacher_success", np, p, open_ends=True)))


def critical_coefficient(teacher_success: Any) -> tuple[np.ndarray, np.ndarray]:
    """``(beta_c, p)``: below ``beta_c`` group normalisation (infinite group) leaves no stationary success rate.

    ``beta_c = min_{p > p_T} 1/(sqrt(p (1-p)) (logit p - logit p_T))``; the minimiser solves
    ``(x - x_T) tanh(x/2) = 2``. ``teacher_success`` in (0, 1), any shape.
    """
    start = _teachers_logit(teacher_success)
    low = np.maximum(start, 0.0)
    x = _bisect(lambda z: (z - start) * np.tanh(z / 2) > 2, low, low + 5.0)
    return np.asarray(2 * np.cosh(x / 2) / (x - start)), np.asarray(expit(x))


def _slope(x: np.ndarray, group_size: int | None) -> np.ndarray:
    """``dJ/dp`` of group-normalised advantages at ``logit p = x``."""
    if group_size is None:
        return 2 * np.cosh(np.minimum(np.abs(x), 700.0) / 2)
    return std_weight(expit(-np.minimum(np.abs(x), 700.0)), group_size)


def normalised_stop(teacher_success: float, beta: float, group_size: int | None = None) -> float:
    """Success rate where std-normalised advantages and a teacher come to rest, from any start below the teacher's.

    The first solution of ``logit p = logit p_T + slope(p)/beta`` above ``p_T``; 1.0 where there is none. The slope is
    ``1/sqrt(p (1-p))`` for an infinite group (None) and `std_weight` for groups of ``group_size``, which stays below
    ``sqrt(G - 1)``, so that there is a stop within ``sqrt(G - 1)/beta`` of the teacher's logit.
    """
    p = _validate.probability("teacher_success", teacher_success)
    start = float(_teachers_logit(p))
    beta = _validate.real("beta", beta, low=1e-12)
    if group_size is None:
        least, at = critical_coefficient(p)
        if beta < least:
            return 1.0
        low, high = start, float(logit(at))
    else:
        group_size = _validate.integer("group_size", group_size, low=2)
        grid = start + np.linspace(0.0, math.sqrt(group_size - 1) / beta * (1 + 1e-9), 401)
        stopped = _slope(grid, group_size) <= beta * (grid - start)
        first = max(1, int(np.argmax(stopped)))
        low, high = grid[first - 1], grid[first]
    x = _bisect(lambda z: _slope(z, group_size) <= beta * (z - start), np.asarray(low, float), np.asarray(high, float))
    return float(expit(x))


def masked_success(teacher_success: Any, beta: Any, mean_over: Literal["all", "kept"] = "all") -> np.ndarray:
    """Success rate where mean-centred advantages and KD on the wrong responses only come to rest.

    ``"all"``: the KD sum is divided by all samples, ``1 - p = (1 - p_T) e^(-1/beta)``. ``"kept"``: by the wrong ones,
    ``w = (1 - p_T) e^(-w/beta)`` for ``w = 1 - p``. ``teacher_success`` in [0, 1], ``beta`` > 0, shapes broadcast.
    """
    p, beta = _validate.numpy_arrays(teacher_success=teacher_success, beta=beta)
    _validate.unit_interval("teacher_success", np, p)
    _validate.positive("beta", np, beta)
    _validate.broadcast(teacher_success=p, beta=beta)
    _validate.one_of("mean_over", mean_over, ("all", "kept"))
    with np.errstate(over="ignore"):
        if mean_over == "all":
            return np.asarray(1 - (1 - p) * np.exp(-1 / beta))
        strength = (1 - p) / beta
    _validate.representable("beta", np, strength)
    return np.asarray(1 - beta * lambertw(strength).real)
