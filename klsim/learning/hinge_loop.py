r"""The control loop of a hinge on an averaged KL: one step, its fixed point, its linearisation, its largest step size.

Softmax logits z ascend ``E_pi[r] - f (k - tau)_+^2`` while k follows the KL with a delay:

.. math:: k' = d k + (1-d) KL(\pi\|ref),\qquad
    z' = z + \eta\,[\nabla E_\pi r - 2 f (k' - \tau)_+ \nabla KL(\pi\|ref)] .

The fixed point is that of `klsim.hinge.hinge_regularized`, whatever the decay d. There, with
``F = diag(pi) - pi pi^T`` and ``v = grad KL``, the loop is linear with

.. math:: J = \begin{pmatrix} I - \eta(\beta F + 2f(1-d) v v^T) & -2\eta f d\, v\\ (1-d) v^T & d\end{pmatrix}

and stable iff ``eta < 2 / lambda_max(beta F + (1-d)/(1+d) 2 f v v^T)``: an average of decay .9 divides the stiffness
of the hinge by 19, and its price is ringing. (For an eigenvalue w with eigenvector x, ``a = x.(beta F)x`` and
``b = 2 f (x.v)^2``: ``(w - 1 + eta a)(w - d) + eta b (1-d) w = 0``, whose roots lie in the unit circle iff
``eta (a + b (1-d)/(1+d)) < 2``.)

Source: ``safe`` C6.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.hinge import hinge_regularized, hinge_slope
from klsim.learning.rehearsal import divergence_gradient
from klsim.learning.softmax_step import population_gradient
from klsim.optima import Optimum

__all__ = ["HingeLoop"]


@dataclass(frozen=True)
class HingeLoop:
    """``log_ref``, ``reward``: ``(A,)``; ``factor`` f > 0, ``threshold`` tau >= 0, ``lr`` eta > 0,
    ``decay`` d in [0, 1).

    Raises:
        ValueError: arguments outside their range; an idle hinge, whose fixed point lies at infinity.
    """

    log_ref: Any
    reward: Any
    factor: float
    threshold: float
    lr: float = 1.0
    decay: float = 0.9

    def __post_init__(self) -> None:
        log_ref, reward = _validate.numpy_arrays(log_ref=self.log_ref, reward=self.reward)
        if log_ref.ndim != 1 or reward.shape != log_ref.shape:
            _validate.fail("reward", f"must have the shape of log_ref, (A,), got {reward.shape}, {log_ref.shape}")
        _validate.real("lr", self.lr, low=0.0, high=1e100, open_low=True)
        _validate.real("decay", self.decay, low=0.0, high=1.0, open_high=True)
        _validate.real("factor", self.factor, low=0.0, high=1e100, open_low=True)
        _validate.real("threshold", self.threshold, low=0.0, high=1e100)
        if not float(self._optimum.beta) > 0:
            _validate.fail("threshold", "leaves the hinge idle: the best outcomes are within it", self.threshold)

    @functools.cached_property
    def _optimum(self) -> Optimum:
        return hinge_regularized(self.log_ref, self.reward, self.factor, self.threshold)

    def step(self, logits: np.ndarray, average: Any) -> tuple[np.ndarray, np.ndarray]:
        """The next logits ``(..., A)`` and average KL ``(...)``."""
        logits, average = _validate.numpy_arrays(logits=logits, average=average)
        _validate.same_last_axis(logits=logits, log_ref=np.asarray(self.log_ref))
        _validate.broadcast(logits=logits[..., 0], average=_validate.finite("average", np, average))
        log_policy = log_normalize(logits)
        average = self.decay * average + (1 - self.decay) * kl(log_policy, self.log_ref)
        pull = hinge_slope(average, self.threshold, self.factor)[..., None]
        up = population_gradient(log_policy, self.reward)
        return logits + self.lr * (up - pull * divergence_gradient(log_policy, self.log_ref, "kl")), average

    def fixed_point(self) -> tuple[np.ndarray, float]:
        """Logits and average KL that stay where they are."""
        return np.asarray(self._optimum.log_policy), float(self._optimum.kl)

    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """``beta F`` and ``v`` at the fixed point."""
        log_policy, divergence = self.fixed_point()
        pi = np.exp(log_policy)
        beta = float(hinge_slope(divergence, self.threshold, self.factor))
        return beta * (np.diag(pi) - np.outer(pi, pi)), divergence_gradient(log_policy, self.log_ref, "kl")

    def jacobian(self) -> np.ndarray:
        """Of `step` at the fixed point, ``(A + 1, A + 1)``, the average last."""
        curvature, v = self._parts()
        stiff, d, size = 2 * self.factor, self.decay, len(v)
        out = np.zeros((size + 1, size + 1))
        out[:size, :size] = np.eye(size) - self.lr * (curvature + stiff * (1 - d) * np.outer(v, v))
        out[:size, size] = -self.lr * stiff * d * v
        out[size, :size], out[size, size] = (1 - d) * v, d
        return out

    def spectral_radius(self) -> float:
        """The largest eigenvalue in size, without the shift of all logits, which changes nothing."""
        matrix = self.jacobian()
        size = len(matrix) - 1
        basis = np.zeros((size + 1, size))
        basis[:size, :-1] = np.linalg.svd(np.ones((1, size)))[2][1:].T
        basis[size, -1] = 1.0
        return float(np.abs(np.linalg.eigvals(basis.T @ matrix @ basis)).max())

    def stiffness(self) -> np.ndarray:
        """``beta F + (1-d)/(1+d) 2 f v v^T``, ``(A, A)``: what the fastest oscillation (period 2) meets."""
        curvature, v = self._parts()
        softened = 2 * self.factor * (1 - self.decay) / (1 + self.decay)
        return curvature + softened * np.outer(v, v)

    def critical_lr(self) -> float:
        """The step size below which the fixed point is stable: 2 over the largest eigenvalue of `stiffness`."""
        return 2 / float(np.linalg.eigvalsh(self.stiffness())[-1])
