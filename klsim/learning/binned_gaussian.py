r"""A unimodal policy over ordered bins, and its projections of a teacher that it cannot represent.

``pi(x) ∝ exp(-(x - mu)^2 / (2 sigma^2))`` on ``x = 0 … K-1``. Projected by the forward KL it covers a teacher's
outliers, by the reverse KL it keeps to one mode, by cross-entropy to the teacher's argmax it is certain of that. The
landscapes have several local optima: `project` looks at all of them from a grid, or goes down from a given start.

Source: ``vla-opd`` C4, C4b.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.learning.distillation_flows import LOSSES, DistillationLoss

__all__ = ["LOG_WIDTHS", "Projection", "binned_gaussian", "gaussian_gradient", "project"]

LOG_WIDTHS = (-1.6, 4.0)
"""Range of ``log sigma``."""


@dataclass(frozen=True)
class Projection:
    """``mean`` and ``log_width`` in bins, ``log_policy (K,)``, and the ``value`` of the loss in nats."""

    mean: float
    log_width: float
    log_policy: np.ndarray
    value: float


def binned_gaussian(mean: Any, log_width: Any, bins: int) -> np.ndarray:
    """``log pi(x)`` on ``bins`` bins, ``(..., bins)``; ``mean`` (of any size) and ``log_width`` broadcast."""
    bins = _validate.integer("bins", bins, low=1, high=10**6)
    mean, log_width = _validate.numpy_arrays(mean=mean, log_width=log_width)
    for name, value, size in (("mean", mean, 1e6), ("log_width", log_width, 50.0)):
        index = _validate.first_true(np, ~(np.abs(value) <= size))
        if index is not None:
            _validate.fail(name, f"must be finite, at most {size:g} in size", float(value[index]), index)
    _validate.broadcast(mean=mean, log_width=log_width)
    x = np.arange(bins) - mean[..., None]
    return np.asarray(log_normalize(-0.5 * (x * np.exp(-log_width[..., None])) ** 2))


def _target(log_teacher: Any) -> np.ndarray:
    (log_teacher,) = _validate.numpy_arrays(log_teacher=log_teacher)
    _validate.log_probs("log_teacher", np, log_teacher)
    index = _validate.first_true(np, np.isneginf(log_teacher))
    if index is not None:
        _validate.fail("log_teacher", "must have full support", index=index)
    return np.asarray(log_teacher, dtype=float)


def _values(log_pi: np.ndarray, teacher: np.ndarray, loss: str) -> np.ndarray:
    """Of policies ``(..., K)``: ``KL(T‖pi)``, ``KL(pi‖T)`` or ``-log pi(argmax T)``."""
    if loss == "reverse_kl":
        return np.asarray(np.sum(np.exp(log_pi) * (log_pi - teacher), axis=-1))
    label = _label(teacher, loss)
    constant = np.sum(label * teacher, axis=-1) if loss == "forward_kl" else 0.0
    return np.asarray(constant - np.sum(label * log_pi, axis=-1))


def _label(teacher: np.ndarray, loss: str) -> np.ndarray:
    if loss == "forward_kl":
        return np.asarray(np.exp(teacher))
    return np.asarray(np.arange(teacher.shape[-1]) == np.argmax(teacher, axis=-1)[..., None]).astype(float)


def gaussian_gradient(
    mean: Any, log_width: Any, log_teacher: Any, loss: DistillationLoss
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(value, gradient in (mean, log_width), log_policy)`` of a loss: ``(...)``, ``(..., 2)``, ``(..., K)``.

    The features are ``f = ((x - mu)/sigma^2, (x - mu)^2/sigma^2)``: the gradient is ``E_pi f - E_label f`` for the
    forward losses and ``Cov_pi(log pi/T, f)`` for the reverse KL.

    Args:
        mean, log_width: ``(...)``, as for `binned_gaussian`. log_teacher: ``(..., K)``, full support.
    """
    _validate.one_of("loss", loss, LOSSES)
    teacher = _target(log_teacher)
    binned_gaussian(mean, log_width, teacher.shape[-1])  # its doors
    mean, log_width = _validate.numpy_arrays(mean=mean, log_width=log_width)
    _validate.broadcast(mean=mean, log_width=log_width, log_teacher=teacher[..., 0])
    return _gradient(mean, log_width, teacher, loss)


def _gradient(mean: Any, log_width: Any, teacher: np.ndarray, loss: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, scale = np.arange(teacher.shape[-1]) - np.asarray(mean)[..., None], np.exp(-2 * np.asarray(log_width)[..., None])
    first, second = x * scale, x * x * scale
    logits = -second / 2
    logits = logits - logits.max(axis=-1, keepdims=True)
    log_pi = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    pi = np.exp(log_pi)
    if loss == "reverse_kl":
        gap = log_pi - teacher
        weights = pi * (gap - np.sum(pi * gap, axis=-1, keepdims=True))
    else:
        weights = pi - _label(teacher, loss)
    slope = np.stack([np.sum(weights * first, axis=-1), np.sum(weights * second, axis=-1)], axis=-1)
    return _values(log_pi, teacher, loss), slope, log_pi


@lru_cache(maxsize=4)
def _grid(bins: int) -> tuple[np.ndarray, ...]:
    """Means (also outside), widths ``(n,)``; ``log pi``, ``pi`` ``(n, K)``, ``-H`` ``(n,)``."""
    means = np.linspace(-0.5 * bins, 1.5 * bins, 4 * bins + 1)
    widths = np.linspace(*LOG_WIDTHS, 29)
    mean, width = (a.ravel() for a in np.meshgrid(means, widths, indexing="ij"))
    log_pi = binned_gaussian(mean, width, bins)
    return mean, width, log_pi, np.exp(log_pi), np.sum(np.exp(log_pi) * log_pi, axis=-1)


def _best_of_grid(teacher: np.ndarray, loss: str) -> np.ndarray:
    mean, width, log_pi, pi, negentropy = _grid(teacher.size)
    values = negentropy - pi @ teacher if loss == "reverse_kl" else -log_pi @ _label(teacher, loss)
    best = int(np.argmin(values))
    return np.array([mean[best], width[best]])


def project(log_teacher: Any, loss: DistillationLoss, *, start: tuple[float, float] | None = None) -> Projection:
    """The binned Gaussian with the smallest loss, ``log sigma`` in [-1.6, 4].

    Args:
        log_teacher: ``(K,)``, full support.
        start: ``(mean, log_width)`` to go down from, to a local optimum (L-BFGS-B, exact gradients); None: the best of
            a grid of half bins and widths in steps of .2, polished: the global optimum unless two basins are that near.
    """
    from scipy.optimize import minimize

    _validate.one_of("loss", loss, LOSSES)
    teacher = _target(log_teacher)
    if teacher.ndim != 1:
        _validate.fail("log_teacher", f"must be (K,), got shape {teacher.shape}")
    if start is None:
        at = _best_of_grid(teacher, loss)
    else:
        pair = _validate.sequence("start", start)
        if len(pair) != 2:
            _validate.fail("start", f"needs (mean, log_width), got {len(pair)} numbers")
        at = np.array([_validate.real("start", v, low=-1e5, high=1e5) for v in pair])
        at[1] = np.clip(at[1], *LOG_WIDTHS)
    reach = 50.0 * teacher.size

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope, _ = _gradient(v[0], v[1], teacher, loss)
        return float(value), slope

    found = minimize(
        objective, at, jac=True, method="L-BFGS-B",
        bounds=[(-reach, reach), LOG_WIDTHS], options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 500},
    )  # fmt: skip
    value, _, log_pi = _gradient(found.x[0], found.x[1], teacher, loss)
    return Projection(float(found.x[0]), float(found.x[1]), log_pi, float(value))
