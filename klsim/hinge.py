r"""A hinge on the KL: ``max_pi E_pi[r] - f (KL(pi‖ref) - tau)_+^2``, free below the threshold, quadratic above.

The optimum is a tilt ``ref e^{r/beta}/Z`` like that of the linear penalty, at the one ``beta`` with

.. math:: \beta = 2 f\,(KL(\pi_\beta\|ref) - \tau)

(the left side rises in beta, the right one falls). Hence ``KL = tau + beta/2f > tau``: the threshold is no bound. Where
``-log ref(argmax r) <= tau`` the hinge is idle.

Source: ``safe`` C3, C6.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import expectation, top_reward
from klsim.divergences import kl
from klsim.optima import Optimum, kl_regularized

__all__ = ["hinge_penalty", "hinge_regularized", "hinge_slope"]


def _over(divergence: Any, threshold: Any, factor: Any) -> tuple[np.ndarray, np.ndarray]:
    named = {"divergence": divergence, "threshold": threshold, "factor": factor}
    divergence, threshold, factor = (x.astype(np.float64) for x in _validate.numpy_arrays(**named))
    for name, x in zip(named, (divergence, threshold, factor)):
        index = _validate.first_true(np, ~(np.abs(x) <= 1e100))
        if index is not None:
            _validate.fail(name, "must be finite (and at most 1e100 in size)", float(x[index]), index)
    _validate.broadcast(divergence=divergence, threshold=threshold, factor=factor)
    return np.maximum(divergence - threshold, 0.0), factor


def hinge_penalty(divergence: Any, threshold: Any, factor: Any) -> np.ndarray:
    """``f (k - tau)_+^2``, broadcast; k may be an estimate, and negative: there it is 0."""
    over, factor = _over(divergence, threshold, factor)
    return np.asarray(factor * over * over)


def hinge_slope(divergence: Any, threshold: Any, factor: Any) -> np.ndarray:
    """``2 f (k - tau)_+``, the derivative of `hinge_penalty`: continuous, 0 at the threshold."""
    over, factor = _over(divergence, threshold, factor)
    return np.asarray(2 * factor * over)


def hinge_regularized(log_ref: Any, reward: Any, factor: Any, threshold: Any) -> Optimum:
    """``max_pi E_pi[r] - factor (KL(pi‖ref) - threshold)_+^2``, over NumPy arrays.

    Args:
        log_ref, reward: ``(..., A)``. factor: > 0. threshold: nats, >= 0; both scalar or batch.

    Returns:
        An `Optimum`; ``beta`` is the coefficient of the tilt, 0 where the hinge is idle (then the policy is
        ``ref(. | argmax r)``, the optimum of least KL). ``gap`` bounds what any policy could gain, by concavity.

    Raises:
        ValueError: as `klsim.optima.kl_regularized`; a factor or a threshold outside its range.
    """
    log_ref, reward, factor, threshold = _validate.numpy_arrays(
        log_ref=log_ref, reward=reward, factor=factor, threshold=threshold
    )
    _validate.log_probs("log_ref", np, log_ref)
    _validate.finite("reward", np, reward)
    _validate.same_last_axis(log_ref=log_ref, reward=reward)
    _validate.positive("factor", np, factor)
    _validate.budgets("threshold", np, threshold)
    _over(0.0, threshold, factor)  # and their sizes
    shape = _validate.broadcast(log_ref=log_ref[..., 0], reward=reward[..., 0], factor=factor, threshold=threshold)
    log_ref, reward = (np.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1]) for x in (log_ref, reward))
    f, tau = (np.broadcast_to(x, shape).ravel().astype(np.float64) for x in (factor, threshold))
    best = np.isfinite(log_ref) & (reward == top_reward(np, log_ref, reward))
    most = -np.logaddexp.reduce(np.where(best, log_ref, -np.inf), axis=-1)
    active = most > tau + 8 * np.finfo(float).eps * (1 + tau)  # by less it costs only rounding
    log_policy = np.where(best, log_ref + most[:, None], -np.inf)
    beta = np.zeros(f.size)
    if active.any():
        beta[active] = _strengths(log_ref[active], reward[active], f[active], tau[active], most[active])
        log_policy[active] = kl_regularized(log_ref[active], reward[active], beta[active]).log_policy
    divergence = np.asarray(kl(log_policy, log_ref))
    slope = hinge_slope(divergence, tau, f)
    gained = np.asarray(expectation(log_policy, reward))
    # J is concave: no policy gains more than the gradient r - slope log(pi/ref) promises
    span = np.max(np.where(np.isfinite(log_ref), reward, -np.inf), axis=-1) - np.min(
        np.where(np.isfinite(log_ref), reward, np.inf), axis=-1
    )
    gap = np.where(active, np.abs(1 - slope / np.where(active, beta, 1.0)) * span, 0.0)
    rounding = 2 * f * 64 * np.finfo(float).eps * (1 + divergence)  # of the slope: KL - tau cancels
    done = bool(np.all(~active | (np.abs(beta - slope) <= 1e-9 * beta + rounding)))
    value = gained - hinge_penalty(divergence, tau, f)
    reason = "tilt at the root of beta = 2 f (KL - tau); reference on the best outcomes where that is within tau"
    out = [np.asarray(x).reshape(shape) for x in (value, gained, divergence, beta, gap)]
    policy = log_policy.reshape(*shape, log_policy.shape[-1])
    return Optimum(policy, out[0], out[1], out[2], out[3], out[4], done, reason)


def _strengths(
    log_ref: np.ndarray, reward: np.ndarray, factor: np.ndarray, threshold: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """The root of ``beta = 2 f (KL(beta) - tau)`` of every row, ``0 < beta < 2 f (most - tau)``, in log beta."""
    from scipy.optimize import elementwise

    live = np.isfinite(log_ref)
    short_of = np.where(live, top_reward(np, log_ref, reward) - reward, 0.0)

    def short(log_beta: np.ndarray, row: np.ndarray) -> np.ndarray:
        """``1 - 2 f (KL - tau) / beta``: ``KL = E_pi[x] - log Z`` with ``x = (r - max r) / beta``."""
        beta = np.exp(log_beta)
        with np.errstate(over="ignore"):
            x = -np.minimum(short_of[row] / beta[:, None], 1e300)
        weights = np.exp(log_ref[row] + x)
        total = weights.sum(axis=-1)  # at least the mass of the best outcomes
        tilted = np.sum(weights * x, axis=-1) / total - np.log(total)
        return np.asarray(1 - 2 * factor[row] * (tilted - threshold[row]) / beta)

    rows = np.arange(factor.size)
    high = np.log(2 * factor * (most - threshold))
    low = high - 1.0
    for _ in range(12):  # wider and wider
        open_ = short(low, rows) > 0
        if not open_.any():
            break
        low = np.where(open_, np.maximum(high - 2 * (high - low), -690.0), low)
    found = elementwise.find_root(
        short, (low, high + 1e-12), args=(rows,), tolerances={"xatol": 1e-15, "xrtol": 4e-16, "fatol": 0.0}
    )
    return np.asarray(np.exp(found.x))
