r"""Log-linear policies for linear MDPs: cloning by maximum likelihood, and least-squares planning with a KL to a prior.

In a linear MDP every ``Q_h`` is linear in the features, so the optimum of ``E[sum r] - beta KL(pi‖ref)`` is log-linear,
``pi_h ~ ref_h exp(phi w_h/beta)``, and costs depend on the number of features instead of states: N times the expected
KL of a cloned policy tends to half the number of identified weights a step (Wilks), states and actions do not count.

Source: ``demo-reg`` C1, C4, C7.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.solution import soft_backup

__all__ = ["clone_log_linear", "least_squares_plan"]


def _features(features: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    (phi,) = _validate.numpy_arrays(features=features)
    phi = _validate.finite("features", np, np.asarray(phi, dtype=float))
    if phi.ndim != 3 or 0 in phi.shape:
        _validate.fail("features", f"must be (S, A, d), got shape {phi.shape}")
    if len(shape) < 2 or shape[-2:] != phi.shape[:2]:
        _validate.fail(name, f"must end in (S, A) = {phi.shape[:2]}, got shape {shape}")
    return np.asarray(phi)


def clone_log_linear(
    features: Any, counts: Any, *, ridge: float = 1.0, floor: float = 0.0, tolerance: float = 1e-10
) -> np.ndarray:
    r"""``(1 - floor) softmax(phi w) + floor/A`` of the penalised maximum likelihood, one w a batch entry (and step).

    ``w`` maximises ``sum_{s,a} n(s,a) log softmax(phi(s) w)_a - ridge |w|^2/2``: Newton's method with halving.

    Args:
        features: ``(S, A, d)``. counts: integers >= 0, ``(..., S, A)``; step and data set are batch axes.
        ridge: > 0. floor: in [0, 1): the uniform part that keeps every KL to the clone finite. tolerance: largest
            entry of the gradient left, relative to the number of data plus 1.

    Returns:
        Log-probabilities ``(..., S, A)``.

    Raises:
        ValueError: shapes, ``ridge <= 0``; Newton's method does not arrive.
    """
    n = _validate.integers("counts", counts, low=0).astype(float)
    phi = _features(features, n.shape, "counts")
    ridge = _validate.real("ridge", ridge, low=0.0, high=1e100, open_low=True)
    floor = _validate.real("floor", floor, low=0.0, high=1.0, open_high=True)
    flat, size = n.reshape(-1, *phi.shape[:2]), phi.shape[2]
    total = flat.sum(axis=-1)
    w = np.zeros((len(flat), size))
    enough = tolerance * (1 + total.sum(axis=-1))
    for _ in range(100):
        log_p, value = _likelihood(phi, flat, w, ridge)
        p = np.exp(log_p)
        slope = np.einsum("bsa,sad->bd", flat - total[..., None] * p, phi) - ridge * w
        if np.all(np.abs(slope).max(axis=-1) <= enough):
            break
        mean = np.einsum("bsa,sad->bsd", p, phi)
        second = np.einsum("bsa,sad,sae->bde", total[..., None] * p, phi, phi, optimize=True)
        curve = second - np.einsum("bs,bsd,bse->bde", total, mean, mean, optimize=True) + ridge * np.eye(size)
        move, scale = np.linalg.solve(curve, slope[..., None])[..., 0], np.ones((len(w), 1))
        for _ in range(40):
            worse = _likelihood(phi, flat, w + scale * move, ridge)[1] < value - 1e-12 * np.abs(value)
            if not worse.any():
                break
            scale = np.where(worse[:, None], scale / 2, scale)
        w = w + scale * move
    else:
        _validate.fail("counts", f"the likelihood was not maximised to {tolerance:g} in 100 Newton steps")
    log_p = log_p.reshape(n.shape)
    if floor == 0:
        return np.asarray(log_p)
    return np.asarray(np.logaddexp(log_p + math.log1p(-floor), math.log(floor / n.shape[-1])))


def _likelihood(phi: np.ndarray, n: np.ndarray, w: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    logits = np.einsum("sad,bd->bsa", phi, w)
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return log_p, np.sum(n * log_p, axis=(-2, -1)) - ridge * np.sum(w * w, axis=-1) / 2


def least_squares_plan(
    features: Any, reward: Any, successors: Any, log_ref: Any, beta: float, *, ridge: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    r"""Least-squares value iteration with a KL to a prior: ``(log_policy, q_value)``, each ``(..., H, S, A)``.

    ``w_h = argmin sum (phi(s,a) w - V_{h+1}(s'))^2 + ridge |w|^2`` over observed successors, ``Q_h = r_h + phi w_h``
    and ``V_h, pi_h`` its soft maximum against ``log_ref`` at ``beta``. In a linear MDP ``P_h V`` is linear in phi.

    Args:
        features: ``(S, A, d)``. reward: known, ``(H, S, A)``. successors: counts of ``s'``, ``(..., H, S, A, S)``.
        log_ref: ``(H, S, A)``. beta: >= 0. ridge: > 0.

    Raises:
        ValueError: shapes, negative counts, not distributions.
    """
    counts = _validate.integers("successors", successors, low=0)
    beta = _validate.real("beta", beta, low=0.0, high=1e100)
    ridge = _validate.real("ridge", ridge, low=0.0, high=1e100, open_low=True)
    reward, ref = _validate.numpy_arrays(reward=reward, log_ref=log_ref)
    if counts.ndim < 4 or counts.shape[-1] != counts.shape[-3]:
        _validate.fail("successors", f"must be (..., H, S, A, S), got shape {counts.shape}")
    shape = counts.shape[-4:-1]
    for name, table in (("reward", reward), ("log_ref", ref)):
        if table.shape != shape:
            _validate.fail(name, f"must have shape {shape}, got {table.shape}")
    _validate.finite("reward", np, reward)
    _validate.log_probs("log_ref", np, ref)
    phi = _features(features, counts.shape[:-1], "successors")
    q_value, log_policy = np.empty(counts.shape[:-1]), np.empty(counts.shape[:-1])
    value = np.zeros((*counts.shape[:-4], shape[1]))
    for t in range(shape[0] - 1, -1, -1):
        seen = counts[..., t, :, :, :].astype(float)
        gram = np.einsum("...sa,sad,sae->...de", seen.sum(axis=-1), phi, phi, optimize=True)
        target = np.einsum("...san,...n,sad->...d", seen, value, phi, optimize=True)
        w = np.linalg.solve(gram + ridge * np.eye(phi.shape[2]), target[..., None])[..., 0]
        q_value[..., t, :, :] = reward[t] + np.einsum("sad,...d->...sa", phi, w)
        value, log_policy[..., t, :, :] = soft_backup(q_value[..., t, :, :], ref[t], beta)
    return log_policy, q_value
