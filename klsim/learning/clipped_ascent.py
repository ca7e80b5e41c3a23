r"""What PPO's clip does to a softmax: the clipped surrogate's gradient, and whole updates, in exact expectation.

The surrogate ``E_old[min(rho A, clip(rho) A)]`` of ``pi = softmax(z)``, ``rho = pi/old``, has the gradient
``g - pi sum g`` with ``g_a = pi_a A_a`` where the clip leaves outcome a open: ``rho_a < 1 + high`` if ``A_a > 0``,
``rho_a > 1 - low`` if ``A_a < 0``. So an outcome with ``A > 0`` gets none of its *own* gradient above ``1 + high``;
it can go on growing on the mass that others lose. An outcome with ``old > 1/(1 + high)`` cannot get there. Growing a
rare one from ``p0`` to ``p1`` by ``1 + high`` an update takes `updates_to_reach`.

Source: ``tricks-or-traps`` C6.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.kernels.clipped_ascent import clipped_ascent as _clipped_ascent

__all__ = ["clipped_ascent", "clipped_gradient", "updates_to_reach"]


def clipped_gradient(log_policy: Any, log_old: Any, advantage: Any, *, low: float, high: float) -> np.ndarray:
    """Gradient of the expected clipped surrogate in the logits, ``(..., A)``; at a kink that of the closed side.

    Args:
        log_policy, log_old: ``(..., A)``. advantage: ``(..., A)``, constants. low, high: ratios are kept in
            ``[1 - low, 1 + high]``; ``inf`` leaves a side open.
    """
    log_policy, log_old, advantage = _validate.numpy_arrays(log_policy=log_policy, log_old=log_old, advantage=advantage)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.log_probs("log_old", np, log_old)
    _validate.same_last_axis(log_policy=log_policy, log_old=log_old, advantage=advantage)
    index = _validate.first_true(np, ~(np.abs(advantage) <= 1e150))
    if index is not None:
        _validate.fail("advantage", "must be finite (and at most 1e150 in size)", float(advantage[index]), index)
    low, high = _validate.real("low", low, low=0.0), _validate.real("high", high, low=0.0)
    pi, old = np.exp(log_policy), np.exp(log_old)
    below = pi < (1 + high) * old if math.isfinite(high) else old > 0
    open_ = np.where(advantage > 0, below, pi > max(1 - low, 0.0) * old) & (old > 0)
    push = np.where(open_, pi * advantage, 0.0)
    return np.asarray(push - pi * push.sum(axis=-1, keepdims=True))


def clipped_ascent(
    log_policy: Any, reward: Any, *, low: Any, high: Any, updates: int, inner_steps: int, lr: float
) -> np.ndarray:
    """Policies along ``updates`` of PPO, each ``inner_steps`` ascent steps on its surrogate, ``(B, updates + 1, A)``.

    Exact expectations; advantages ``r - E_old[r]``, fixed during an update.

    Args:
        log_policy: ``(A,)`` or ``(B, A)``, the start, finite. reward: the same.
        low, high: ``()`` or ``(B,)``, at least 0.
    """
    log_policy, reward, low, high = _validate.numpy_arrays(log_policy=log_policy, reward=reward, low=low, high=high)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.finite("log_policy", np, log_policy)
    _validate.same_last_axis(log_policy=log_policy, reward=reward)
    index = _validate.first_true(np, ~(np.abs(reward) <= 1e100))
    if index is not None:
        _validate.fail("reward", "must be finite (and at most 1e100 in size)", float(reward[index]), index)
    updates = _validate.integer("updates", updates, low=0)
    inner = _validate.integer("inner_steps", inner_steps, low=0)
    lr = _validate.real("lr", lr, low=0.0, high=1e100)
    for name, end in (("low", low), ("high", high)):
        _validate.budgets(name, np, end)
        if end.ndim > 1:
            _validate.fail(name, f"must have shape () or (B,), got {end.shape}")
    rows = _validate.broadcast(log_policy=log_policy[..., 0], reward=reward[..., 0], low=low, high=high) or (1,)
    if len(rows) != 1:
        _validate.fail("log_policy", f"needs shape (A,) or (B, A), got {log_policy.shape}")
    _validate.fits("updates", updates, float(rows[0]) * (updates + 1) * log_policy.shape[-1])
    shape = (rows[0], log_policy.shape[-1])
    logits, reward = (np.array(np.broadcast_to(a, shape), dtype=float, order="C") for a in (log_policy, reward))
    floor, ceiling = (np.broadcast_to(end, rows).astype(float) for end in (np.maximum(1 - low, 0.0), 1 + high))
    return np.asarray(_clipped_ascent(logits, reward, floor, ceiling, updates, inner, lr))


def updates_to_reach(start: float, target: float, high: float) -> float:
    """``log(p1/p0)/log(1 + high)``: updates in which growth by ``1 + high`` takes an outcome from ``p0`` to ``p1``.

    Args:
        start: p0 in (0, 1]. target: p1 in [p0, 1]. high: > 0.
    """
    start = _validate.real("start", start, low=0.0, high=1.0, open_low=True)
    target = _validate.real("target", target, low=start, high=1.0)
    high = _validate.real("high", high, low=0.0, open_low=True)
    return math.log(target / start) / math.log1p(high)
