r"""A clipped ratio whose denominator is a mixture of the old policy and a teacher: which tokens move, and how far.

.. math:: \log r = \alpha\log\frac{\pi}{\pi_{old}} + (1-\alpha)\,\mathrm{clamp}\Big(\log\frac{\pi}{T}\Big),
    \qquad J = \mathbb{E}_{old}\min(rA, \mathrm{clip}(r, 1-\epsilon_{lo}, 1+\epsilon_{hi})A)

(`klsim.objectives.trrd`). The ascent in ``log pi`` of a token is `surrogate_weight`: 0 unless its gate is open,
``A > 0`` and ``r < 1 + high`` or ``A < 0`` and ``r > 1 - low``. With ``pi = pi_old`` the gates depend on the teacher
alone (`gate_edges`), so that training with fresh samples stops in a band around it (`band_stop`, `band_flow`); within
one update a token stops at an edge of the clip range around the mixture (`update_stop`).

``alpha`` weighs the old policy; ``alpha = 1`` is GRPO. ``clip = (low, high)``; ``clamp`` bounds ``|log pi/T|`` in
nats, ``inf`` is none. Probabilities are natural logs.

Source: ``rlad`` C2, C4-C7.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize

__all__ = ["band_flow", "band_stop", "gate_edges", "surrogate_weight", "update_stop"]

Clip = tuple[float, float]


def _log_clip(clip: Clip) -> tuple[float, float]:
    """``log(1 - low)`` and ``log(1 + high)``."""
    ends = _validate.sequence("clip", clip)
    if len(ends) != 2:
        _validate.fail("clip", f"must be (low, high), got {len(ends)} entries")
    low = min(_validate.real("clip[0]", ends[0], low=0.0), 1.0)
    high = _validate.real("clip[1]", ends[1], low=0.0)
    return (math.log1p(-low) if low < 1 else -math.inf), math.log1p(high)


def _tokens(**named: Any) -> list[np.ndarray]:
    """Log-probabilities of single tokens; only a teacher's may be ``-inf``."""
    out = _validate.numpy_arrays(**named)
    for name, x in zip(named, out):
        bad = np.isnan(x) | (x > 1e-6) | (np.isinf(x) & (name != "log_teacher"))
        index = _validate.first_true(np, bad)
        if index is not None:
            rule = "log-probabilities must be <= 0" + ("" if name == "log_teacher" else " and finite")
            _validate.fail(name, rule, float(x[index]), index)
    return list(out)


def _share(alpha: Any) -> np.ndarray:
    (alpha,) = _validate.numpy_arrays(alpha=alpha)
    return _validate.unit_interval("alpha", np, alpha)


def _clamp(clamp: float) -> float:
    return _validate.real("clamp", clamp, low=0.0, open_low=True)


def surrogate_weight(
    log_pi: Any, log_old: Any, log_teacher: Any, advantage: Any, *, alpha: Any = 0.5, clip: Clip = (0.2, 0.28),
    clamp: float = 1.0,
) -> np.ndarray:  # fmt: skip
    r"""``d/dlog pi min(r A, clip(r) A)``: what multiplies ``grad log pi`` of a token; elementwise.

    ``s r A`` where the gate is open, with ``s = d log r/d log pi``, 1 inside the clamp and ``alpha`` outside; else 0.
    Without clip and clamp, at ``pi = pi_old``, it is ``(pi_old/T)^{1-alpha} A``.

    Raises:
        ValueError: shapes that do not broadcast; a ratio that overflows (a teacher without support, no clamp).
    """
    alpha, clamp, (low, high) = _share(alpha), _clamp(clamp), _log_clip(clip)
    log_pi, log_old, log_teacher = _tokens(log_pi=log_pi, log_old=log_old, log_teacher=log_teacher)
    (advantage,) = _validate.numpy_arrays(advantage=advantage)
    _validate.finite("advantage", np, advantage)
    _validate.broadcast(log_pi=log_pi, log_old=log_old, log_teacher=log_teacher, advantage=advantage, alpha=alpha)
    gap = log_pi - log_teacher
    part = np.where(alpha < 1, np.clip(gap, -clamp, clamp), 0.0)
    log_ratio = alpha * (log_pi - log_old) + (1 - alpha) * part
    slope = np.where(np.abs(gap) <= clamp, 1.0, alpha)
    is_open = (advantage != 0) & np.where(advantage > 0, log_ratio < high, log_ratio > low)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = np.where(is_open, slope * np.exp(np.where(is_open, log_ratio, 0.0)) * advantage, 0.0)
    _validate.representable("log_teacher (the ratio to it)", np, weight)
    return np.asarray(weight)


def gate_edges(alpha: Any, clip: Clip = (0.2, 0.28), clamp: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    r"""``(rise, fall)``: at ``pi = pi_old`` a token with ``A > 0`` moves iff ``log(T/pi_old) > rise``, one with
    ``A < 0`` iff ``log(T/pi_old) < fall``.

    ``rise = -log(1 + high)/(1 - alpha)`` and ``fall = -log(1 - low)/(1 - alpha)``. A gate that the clamp keeps open,
    ``(1 - alpha) clamp`` less than the edge of the ratio, has ``-inf`` (rise) or ``inf`` (fall). ``alpha``: in [0, 1],
    any shape.
    """
    alpha, clamp, (low, high) = _share(alpha), _clamp(clamp), _log_clip(clip)
    reach = np.where(alpha < 1, (1 - alpha) * clamp if math.isfinite(clamp) else math.inf, 0.0)
    own = np.where(alpha < 1, 1 - alpha, 1.0)
    rise = np.where(reach >= high, -high / own, -math.inf)
    fall = np.where(reach >= -low, -low / own, math.inf)
    # a clip of width 0 shuts the gate of a ratio that is always 1
    return np.where((alpha == 1) & (high == 0), math.inf, rise), np.where((alpha == 1) & (low == 0), -math.inf, fall)


def update_stop(
    log_old: Any, log_teacher: Any, advantage: Any, *, alpha: Any = 0.5, clip: Clip = (0.2, 0.28)
) -> np.ndarray:
    r"""``log pi`` at which a token, moved alone by ascent of the unclamped surrogate, stops within one update.

    ``A > 0``: ``(1 + high) mix``, ``mix = pi_old^alpha T^{1-alpha}``, 0 where that exceeds probability 1, ``log_old``
    where the token starts beyond it; ``A < 0``: ``(1 - low) mix`` likewise; ``A = 0``: ``log_old``. Elementwise.
    """
    alpha, (low, high) = _share(alpha), _log_clip(clip)
    log_old, log_teacher = _tokens(log_old=log_old, log_teacher=log_teacher)
    (advantage,) = _validate.numpy_arrays(advantage=advantage)
    _validate.finite("advantage", np, advantage)
    _validate.broadcast(log_old=log_old, log_teacher=log_teacher, advantage=advantage, alpha=alpha)
    own = np.where(alpha < 1, log_teacher, 0.0)
    mix = alpha * log_old + (1 - alpha) * own
    up = np.maximum(log_old, np.minimum(mix + high, 0.0))
    down = np.minimum(log_old, mix + low)
    return np.asarray(np.where(advantage > 0, up, np.where(advantage < 0, down, log_old)))


def band_stop(start: Any, teacher: Any, *, alpha: Any, clip: Clip = (0.2, 0.28), clamp: float = math.inf) -> np.ndarray:
    r"""Success rate at which every gate of a bandit is shut for good, ``pi_old = pi``.

    ``max(min(1, e^{-rise} p_T), 1 - e^{-fall} (1 - p_T))`` with the edges of `gate_edges`; ``start`` where that is
    above it. Exact for one right arm, with the start and the teacher equal over the wrong arms; a lower bound for any
    other wrong arms of the teacher. ``start`` and ``teacher`` in (0, 1); shapes broadcast.
    """
    rise, fall = gate_edges(alpha, clip, clamp)
    start, teacher = _validate.numpy_arrays(start=start, teacher=teacher)
    for name, p in (("start", start), ("teacher", teacher)):
        _validate.unit_interval(name, np, p, open_ends=True)
    _validate.broadcast(start=start, teacher=teacher, alpha=rise)
    with np.errstate(over="ignore"):
        right = np.exp(np.minimum(np.log(teacher) - rise, 0.0))
    return np.asarray(np.maximum(start, np.maximum(right, 1 - np.exp(-fall) * (1 - teacher))))


def band_flow(
    logits: Any, log_teacher: Any, right: Any, *, alpha: Any, clip: Clip = (0.2, 0.28), clamp: float = math.inf,
    lr: float = 0.02, steps: int = 40_000,
) -> np.ndarray:  # fmt: skip
    r"""Exact expected ascent of the clipped surrogate in a bandit until every gate is shut: ``log pi``, ``(..., A)``.

    Infinite groups, ``A = (right - p)/sqrt(p (1 - p))``, ``pi_old = pi`` before every step:
    ``logits += lr pi (w - E_pi w)`` with w the `surrogate_weight`. Ends early where nothing moves.

    Args:
        logits: of the start, finite. log_teacher: normalised. right: boolean. All ``(..., A)``, broadcast.
        alpha: ``(...)``. steps: at most.
    """
    from klsim.kernels.gated_flow import gated_flow

    alpha, clamp, (low, high) = _share(alpha), _clamp(clamp), _log_clip(clip)
    logits, log_teacher = _validate.numpy_arrays(logits=logits, log_teacher=log_teacher)
    start = log_normalize(_validate.finite("logits", np, logits))
    _validate.log_probs("log_teacher", np, log_teacher)
    right = _validate.boolean_mask("right", right)
    _validate.same_last_axis(logits=start, log_teacher=log_teacher, right=right)
    lr = _validate.real("lr", lr, low=0.0, high=1e3, open_low=True)
    steps = _validate.integer("steps", steps, low=0)
    shape = _validate.broadcast(logits=start, log_teacher=log_teacher, right=right, alpha=alpha[..., None])
    rows = [np.ascontiguousarray(np.broadcast_to(x, shape).reshape(-1, shape[-1])) for x in (start, log_teacher, right)]
    moved = rows[0].astype(np.float64)
    shares = np.broadcast_to(alpha, shape[:-1]).reshape(-1).astype(np.float64)
    gated_flow(moved, rows[1].astype(np.float64), rows[2].astype(bool), shares, low, high, clamp, lr, steps)
    _validate.representable("lr", np, moved)
    return np.asarray(log_normalize(moved)).reshape(shape)
