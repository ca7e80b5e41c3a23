r"""Actions corrected along the score of the data: through the dynamics, and as KL-regularised improvement.

A base policy proposes ``a0`` in a deterministic system ``s' = f(s, a)``; ``g`` is the score of the (noised) data at
``f(s, a0)`` and ``J = df/da`` at ``a0``, ``(n, m)``. To first order in ``eta``

==============  =========================  ==================  ==================================
rule            action step                displacement of s'  change of ``log p(s')``
==============  =========================  ==================  ==================================
``"inverse"``   ``eta J^+ g``              ``eta P_J g``       ``eta |P_J g|^2``
``"gradient"``  ``eta J^T g``              ``eta J J^T g``     ``eta |J^T g|^2``
==============  =========================  ==================  ==================================

with ``P_J = J J^+`` the projector on the directions that actions reach. "inverse" is what an inverse dynamics model
answers for the displaced state ``s' + eta g`` (least squares), and does not depend on the units of actions.

In action space, ``argmax_a Q(a) + lam log p(a) = a0 + lam H^{-1} grad log p(a0) + O(lam^2)`` if ``a0`` is the interior
maximiser of Q, with Hessian ``-H`` (`tilted_mode_step`).

Source: ``cdsa`` C2 to C4.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.score_networks import denoise

__all__ = [
    "corrected_action",
    "displacement_map",
    "first_order_gain",
    "guided_step",
    "tilted_mode_step",
]

Rule = Literal["inverse", "gradient"]
RULES = ("inverse", "gradient")


def _system(jacobian: Any, gradient: Any) -> tuple[np.ndarray, np.ndarray]:
    """``(..., n, m)`` and ``(..., n)``, finite, with leading axes that broadcast."""
    jacobian, gradient = _validate.numpy_arrays(jacobian=jacobian, gradient=gradient)
    if jacobian.ndim < 2 or 0 in jacobian.shape[-2:]:
        _validate.fail("jacobian", f"must have shape (..., n, m) with n, m >= 1, got {jacobian.shape}")
    if gradient.ndim < 1 or gradient.shape[-1] != jacobian.shape[-2]:
        _validate.fail("gradient", f"must have shape (..., {jacobian.shape[-2]}), got {gradient.shape}")
    for name, value in (("jacobian", jacobian), ("gradient", gradient)):
        _validate.finite(name, np, value)
    _validate.broadcast(jacobian=jacobian[..., 0, 0], gradient=gradient[..., 0])
    return jacobian.astype(np.float64, copy=False), gradient.astype(np.float64, copy=False)


def _direction(jacobian: np.ndarray, gradient: np.ndarray, rule: str) -> np.ndarray:
    """``J^+ g`` or ``J^T g``; singular values below ``max(n, m)`` roundings of the largest count as 0."""
    if rule == "gradient":
        moves = np.swapaxes(jacobian, -1, -2)
    else:
        size = np.max(np.abs(jacobian), axis=(-2, -1), keepdims=True)  # 1e300 is no reason to overflow
        size = np.where(size > 0, size, 1.0)
        moves = np.linalg.pinv(jacobian / size, rcond=max(jacobian.shape[-2:]) * np.finfo(float).eps) / size
    return np.asarray((moves @ gradient[..., None])[..., 0])


def guided_step(jacobian: Any, gradient: Any, eta: float = 1.0, *, rule: Rule = "inverse") -> np.ndarray:
    """The action step ``eta J^+ g`` (rule "inverse") or ``eta J^T g`` ("gradient"), ``(..., m)``.

    Args:
        jacobian: ``df/da``, ``(..., n, m)``. gradient: of ``log p`` in the next state, ``(..., n)``.
        eta: in [-1e100, 1e100].

    Raises:
        ValueError: shapes that do not fit, values that are not finite, an unknown rule, a step that overflows.
    """
    jacobian, gradient = _system(jacobian, gradient)
    eta = _validate.real("eta", eta, low=-1e100, high=1e100)
    _validate.one_of("rule", rule, RULES)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        step = eta * _direction(jacobian, gradient, rule)
    _validate.representable("gradient", np, step)
    return np.asarray(step)


def first_order_gain(jacobian: Any, gradient: Any, *, rule: Rule = "inverse") -> np.ndarray:
    """Slope of ``log p(f(s, a0 + guided_step))`` in ``eta`` at 0: ``|P_J g|^2`` or ``|J^T g|^2``, ``(...)``.

    Raises:
        ValueError: as `guided_step`.
    """
    jacobian, gradient = _system(jacobian, gradient)
    _validate.one_of("rule", rule, RULES)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        step = _direction(jacobian, gradient, rule)
        moved = step if rule == "gradient" else (jacobian @ step[..., None])[..., 0]
        gain = np.sum(moved * moved, axis=-1)
    _validate.representable("gradient", np, gain)
    return np.asarray(gain)


def tilted_mode_step(hessian: Any, score: Any, lam: float) -> np.ndarray:
    """``lam H^{-1} score``: the first-order move of ``argmax_a Q(a) + lam log p(a)`` from the maximiser of Q.

    Args:
        hessian: ``H``, minus the second derivative of Q there: symmetric positive definite, ``(..., m, m)``.
        score: ``grad log p`` there, ``(..., m)``. lam: KL weight in [0, 1e100].

    Raises:
        ValueError: H that is not symmetric positive definite, shapes that do not fit, values that are not finite.
    """
    hessian, score = _validate.numpy_arrays(hessian=hessian, score=score)
    if hessian.ndim < 2 or hessian.shape[-1] != hessian.shape[-2] or not hessian.shape[-1]:
        _validate.fail("hessian", f"must have shape (..., m, m) with m >= 1, got {hessian.shape}")
    if score.ndim < 1 or score.shape[-1] != hessian.shape[-1]:
        _validate.fail("score", f"must have shape (..., {hessian.shape[-1]}), got {score.shape}")
    for name, value in (("hessian", hessian), ("score", score)):
        _validate.finite(name, np, value)
    _validate.broadcast(hessian=hessian[..., 0, 0], score=score[..., 0])
    lam = _validate.real("lam", lam, low=0.0, high=1e100)
    size = np.max(np.abs(hessian), axis=(-2, -1))
    uneven = np.max(np.abs(hessian - np.swapaxes(hessian, -1, -2)), axis=(-2, -1)) > 1e-8 * size
    index = _validate.first_true(np, np.asarray(uneven))
    if index is not None:
        _validate.fail("hessian", "must be symmetric", index=index)
    least = np.linalg.eigvalsh(hessian / np.where(size > 0, size, 1.0)[..., None, None])[..., 0]
    index = _validate.first_true(np, np.asarray(least <= 1e-14))
    if index is not None:
        _validate.fail("hessian", "must be positive definite", index=index)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        step = lam * np.linalg.solve(hessian, score[..., None])[..., 0]
    _validate.representable("score", np, step)
    return np.asarray(step)


def displacement_map(actions: Any, displacements: Any) -> np.ndarray:
    """Least squares ``W`` of ``s' - s = a W``: ``(..., m, n)`` from ``(..., count, m)`` and ``(..., count, n)``.

    Its pseudo-inverse is the inverse dynamics of a system whose displacement is linear in the action.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, actions that do not span their space.
    """
    actions, displacements = _validate.numpy_arrays(actions=actions, displacements=displacements)
    for name, value in (("actions", actions), ("displacements", displacements)):
        if value.ndim < 2 or not value.shape[-1]:
            _validate.fail(name, f"must have shape (..., count, dimensions) with a dimension, got {value.shape}")
        _validate.finite(name, np, value)
    if actions.shape[:-1] != displacements.shape[:-1]:
        _validate.fail(
            "displacements", f"must have shape {actions.shape[:-1]} and a dimension, got {displacements.shape}"
        )
    size = float(np.max(np.abs(actions), initial=0.0)) or 1.0
    rank = np.linalg.matrix_rank(actions / size) if 0 not in actions.shape else np.zeros(actions.shape[:-2], int)
    index = _validate.first_true(np, np.asarray(rank < actions.shape[-1]))
    if index is not None:
        _validate.fail("actions", f"must span their {actions.shape[-1]} dimensions", index=index)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found = np.linalg.pinv(actions / size) @ displacements / size
    _validate.representable("displacements", np, found)
    return np.asarray(found)


def corrected_action(
    state: Any, predicted: Any, score: Any, inverse: Any, *, sigma: float, eta: float = 1.0, limit: float = math.inf
) -> np.ndarray:
    """``clip((predicted + eta sigma^2 score - state) M, -limit, limit)``: the action that leads to the denoised state.

    The next state that the base action leads to is moved along the score (``eta = 1``: to its Tweedie mean) and turned
    back into an action by the inverse dynamics ``a = (s' - s) M``.

    Args:
        state, predicted, score: ``(..., n)`` of one shape: ``s``, the predicted ``f(s, a0)``, and the score there.
        inverse: ``M``, ``(..., n, m)``: the pseudo-inverse of `displacement_map`; with leading axes those of mixtures,
            as ``(seeds, n, m)`` for states ``(seeds, points, n)``.
        sigma: noise level of the score, in [0, 1e100]. eta: strength, in [-1e100, 1e100].
        limit: of the size of every component, > 0.

    Returns:
        ``(..., m)``.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a result that overflows.
    """
    aim = denoise(predicted, score, sigma, eta)
    state, inverse = _validate.numpy_arrays(state=state, inverse=inverse)
    if state.shape != aim.shape or state.ndim < 1:
        _validate.fail("state", f"must have the shape (..., n) of predicted {aim.shape}, got {state.shape}")
    if inverse.ndim < 2 or inverse.shape[-2] != state.shape[-1] or not inverse.shape[-1]:
        _validate.fail("inverse", f"must have shape (..., {state.shape[-1]}, m) with m >= 1, got {inverse.shape}")
    if inverse.ndim > 2 and (state.ndim < 2 or inverse.shape[:-2] != state.shape[:-2]):
        _validate.fail("inverse", f"leading axes must be {state.shape[:-2]}, got shape {inverse.shape}")
    for name, value in (("state", state), ("inverse", inverse)):
        _validate.finite(name, np, value)
    limit = _validate.real("limit", limit, low=0.0, open_low=True)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        action = (aim - state) @ inverse
    _validate.representable("predicted", np, action)
    return np.asarray(np.clip(action, -limit, limit))
