r"""Gradient flows of a softmax towards a teacher: which way the logits move, how fast, and what entropy does meanwhile.

Along ``zdot = force`` with the loss of a student ``pi = softmax(z)`` on labels of a teacher T

=================  ============================  ====================================  ============================
loss               value                         force                                 ends at
=================  ============================  ====================================  ============================
``"forward_kl"``   ``KL(T‖pi)``                  ``T - pi``                            T
``"reverse_kl"``   ``KL(pi‖T)``                  ``-pi (log(pi/T) - KL(pi‖T))``        T
``"hard_ce"``      ``-log pi(argmax T)``         ``onehot(argmax T) - pi``             the argmax
=================  ============================  ====================================  ============================

and ``dH/dt = -Cov_pi(log pi, zdot)`` (`entropy_rate`). The first two end at T, the last part at the same rate
(`final_rate`); how long they take from a confident start differs exponentially (`spread_time`).

Source: ``vla-opd`` C2, C3, C9.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.learning.rehearsal import divergence_gradient
from klsim.learning.softmax_step import population_gradient

__all__ = [
    "LOSSES",
    "distillation_flow",
    "distillation_force",
    "entropy_rate",
    "final_rate",
    "score_variance",
    "spread_time",
]

DistillationLoss = Literal["forward_kl", "reverse_kl", "hard_ce"]
LOSSES = ("forward_kl", "reverse_kl", "hard_ce")
"""The losses of a flow, by name."""


def _hard(log_teacher: Any) -> np.ndarray:
    """The first most likely token, with certainty."""
    (log_teacher,) = _validate.numpy_arrays(log_teacher=log_teacher)
    _validate.log_probs("log_teacher", np, log_teacher)
    first = np.arange(log_teacher.shape[-1]) == np.argmax(log_teacher, axis=-1)[..., None]
    return np.where(first, 0.0, -np.inf)


def distillation_force(log_policy: Any, log_teacher: Any, loss: DistillationLoss) -> np.ndarray:
    """Minus the gradient of a loss in the logits of ``pi``, ``(..., A)``; sums to 0.

    Raises:
        ValueError: not distributions; for the reverse KL, mass where the teacher has none.
    """
    _validate.one_of("loss", loss, LOSSES)
    target = _hard(log_teacher) if loss == "hard_ce" else log_teacher
    return -divergence_gradient(log_policy, target, "kl" if loss == "reverse_kl" else "forward_kl")


def entropy_rate(log_policy: Any, force: Any) -> np.ndarray:
    """``dH/dt = -Cov_pi(log pi, zdot)`` while the logits move along ``force``, ``(...)``; ``0 log 0 = 0``."""
    log_policy, force = _validate.numpy_arrays(log_policy=log_policy, force=force)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.finite("force", np, force)
    _validate.broadcast(log_policy=log_policy, force=force)
    logs = np.where(np.isneginf(log_policy), 0.0, log_policy)
    return -np.sum(population_gradient(log_policy, logs) * force, axis=-1)


def distillation_flow(logits: Any, log_teacher: Any, loss: DistillationLoss, times: Any) -> np.ndarray:
    """``log pi`` along the gradient flow from ``logits``, at the ``times``: ``(times, A)``.

    Integrated by LSODA (relative error 1e-10 a step), which switches to implicit steps where the flow is stiff.

    Args:
        logits, log_teacher: ``(A,)``. times: increasing, >= 0.

    Raises:
        ValueError: shapes, times that do not increase, a reverse KL to a teacher without full support.
    """
    from scipy.integrate import solve_ivp

    _validate.one_of("loss", loss, LOSSES)
    logits, log_teacher, times = _validate.numpy_arrays(logits=logits, log_teacher=log_teacher, times=times)
    _validate.finite("logits", np, logits)
    _validate.log_probs("log_teacher", np, log_teacher)
    if logits.ndim != 1 or log_teacher.shape != logits.shape:
        _validate.fail("log_teacher", f"must have the shape of logits, (A,): {log_teacher.shape}, {logits.shape}")
    if times.ndim != 1 or not times.size or np.any(np.diff(times, prepend=0.0) < 0) or not np.all(np.isfinite(times)):
        _validate.fail("times", "must be finite, >= 0 and increasing, (n,)")
    if loss == "reverse_kl" and not np.all(np.isfinite(log_teacher)):
        _validate.fail("log_teacher", "needs full support for the reverse KL")
    target = np.exp(_hard(log_teacher) if loss == "hard_ce" else log_teacher)

    def force(_: float, z: np.ndarray) -> np.ndarray:
        log_pi = z - z.max()
        log_pi = log_pi - math.log(np.exp(log_pi).sum())
        pi = np.exp(log_pi)
        if loss != "reverse_kl":
            return np.asarray(target - pi)
        gap = log_pi - log_teacher
        return np.asarray(pi * (pi @ gap - gap))

    start = np.asarray(log_normalize(logits), dtype=float)
    found = solve_ivp(force, (0.0, max(float(times[-1]), 1e-300)), start, "LSODA", times, rtol=1e-10, atol=1e-12)
    if not found.success:
        _validate.fail("logits", f"the flow could not be integrated: {found.message}")
    return np.asarray(log_normalize(found.y.T))


def final_rate(log_teacher: Any) -> np.ndarray:
    """The exponent with which flows of either KL end at T, ``(...)``: the second eigenvalue of ``diag T - T T'``.

    It lies between the smallest and the second smallest probability of T (eigenvalues interlace).

    Args:
        log_teacher: ``(..., A)`` with full support and at least two tokens.
    """
    (log_teacher,) = _validate.numpy_arrays(log_teacher=log_teacher)
    _validate.log_probs("log_teacher", np, log_teacher)
    index = _validate.first_true(np, np.isneginf(log_teacher))
    if index is not None or log_teacher.shape[-1] < 2:
        _validate.fail("log_teacher", "needs full support over at least two tokens", index=index)
    t = np.exp(log_teacher)
    diagonal = t[..., None] * np.eye(t.shape[-1])
    return np.asarray(np.linalg.eigvalsh(diagonal - t[..., None] * t[..., None, :])[..., 1])


def spread_time(rest: Any, teacher_mass: Any, actions: int, loss: DistillationLoss, *, share: float = 0.5) -> float:
    r"""Time until a confident student has ``share`` of the teacher's entropy, along the flow of either KL.

    The student has ``1 - rest`` on one of ``n`` actions, the teacher ``m`` there, the others are alike. The gap D of
    the logits falls with ``Ddot = -(p - m) n/(n-1)`` (forward KL) or ``-p q (D - D_T) n/(n-1)`` (reverse), p = 1 - q
    the student's probability and ``D_T`` the teacher's gap, so that times are integrals:
    ``~ (n-1)/n log(1/rest)/(1-m)`` and ``~ (n-1)/n / (rest (D - D_T))``.

    Args:
        rest: in (0, 1), below ``1 - m``. teacher_mass: m in [1/n, 1). actions: n >= 2. share: in (0, 1).

    Returns:
        0.0 if it has that entropy at the start.
    """
    from scipy.integrate import quad
    from scipy.optimize import brentq

    n = _validate.integer("actions", actions, low=2)
    _validate.one_of("loss", loss, LOSSES[:2])
    m = _validate.real("teacher_mass", teacher_mass, low=1 / n, high=1.0)
    rest = _validate.real("rest", rest, low=0.0, high=1.0, open_low=True)
    share = _validate.real("share", share, low=0.0, high=1.0, open_low=True)
    if m >= 1 or rest >= 1 - m or share >= 1:
        _validate.fail("rest", f"must lie below 1 - teacher_mass = {1 - m:g}, and share below 1", rest)

    def gap(q: float) -> float:
        return math.log1p(-q) - math.log(q) + math.log(n - 1)

    def entropy(q: float) -> float:
        return -(1 - q) * math.log1p(-q) - q * (math.log(q) - math.log(n - 1))

    def slowness(d: float) -> float:
        q = (n - 1) / (n - 1 + math.exp(d)) if d < 700 else (n - 1) * math.exp(-d)
        speed = (1 - m) - q if loss == "forward_kl" else (1 - q) * q * (d - gap(1 - m))
        return (n - 1) / (n * speed)

    aim = share * entropy(1 - m)
    if entropy(rest) >= aim:
        return 0.0
    end = float(brentq(lambda q: entropy(q) - aim, rest, 1 - m, xtol=1e-300, rtol=1e-14))
    points = np.linspace(gap(end), gap(rest), 1 + max(1, math.ceil(gap(rest) - gap(end))))
    return float(sum(quad(slowness, a, b, epsabs=0.0, epsrel=1e-12)[0] for a, b in itertools.pairwise(points)))


def score_variance(log_policy: Any, weight: Any) -> np.ndarray:
    """Trace of the variance of ``w(a) grad_z log pi(a)``: ``E[w^2 |e_a - pi|^2] - |E[w (e_a - pi)]|^2``, ``(...)``.

    Of one ``a ~ pi``; the mean of G independent samples has a G-th of it. ``log_policy``, ``weight``: ``(..., A)``.
    """
    log_policy, weight = _validate.numpy_arrays(log_policy=log_policy, weight=weight)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.same_last_axis(log_policy=log_policy, weight=weight)
    _validate.finite("weight", np, weight)
    pi = np.exp(log_policy)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = pi * (weight - np.sum(pi * weight, axis=-1, keepdims=True))
        length = 1 - 2 * pi + np.sum(pi * pi, axis=-1, keepdims=True)
        found = np.sum(pi * weight**2 * length, axis=-1) - np.sum(mean**2, axis=-1)
    _validate.representable("weight", np, found)
    return np.asarray(found)
