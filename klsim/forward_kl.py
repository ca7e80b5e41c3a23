r"""Forward KL with entropy over *all* policies: the optimum may leave the support of the reference.

.. math:: \max_\pi\; E_\pi[r] - a\,KL(ref\|\pi) + b\,H(\pi)

`klsim.optima.forward_kl_regularized` looks for its policy on the support of the reference. A forward KL does not ask
for that: mass outside costs nothing by itself, it is only missing inside. With the multiplier ``lambda`` of the
normalisation stationarity reads ``b log pi = r - lambda + a ref/pi``:

* ``b > 0``: ``pi = c / omega(log c + (lambda - r)/b)`` with ``c = a ref/b`` and ``omega`` the Wright function
  (``omega + log omega = z``, so ``omega(log c + t) = W(c e^t)``); ``pi = e^{(r - lambda)/b}`` where ``ref = 0``;
* ``b = 0``: ``pi = a ref/(lambda - r)``; outside the support only the best response gets mass, and only if it strictly
  beats the support by enough (`escape_mass`).

The multiplier is measured from the best reward: ``x = lambda - max r``, kept as ``log x``, so that nothing cancels or
underflows when the best response is rare. Every ``pi`` is log-convex and decreasing in ``x``, hence so is their sum,
and Newton's iteration on its logarithm rises to the root from the lower bound ``a ref(argmax r)``; the root is at most
``2a + b log 2A``, where ``pi <= max(1/2A, ref/2)``. The tangent of the (concave) objective bounds every policy's value,
and the result carries that gap.

Source: ``rapo`` C1-C3, C5.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import entropy as entropy_of
from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.optima import Optimum

__all__ = ["escape_mass", "forward_kl_with_entropy", "reweighted"]


def escape_mass(log_ref: Any, reward: Any, alpha: Any) -> np.ndarray:
    r"""Mass that the optimum of ``E[r] - alpha KL(ref‖pi)`` puts outside the support of ``ref``, ``(...)``.

    ``max(0, 1 - alpha E_ref[1/(r_out - r)])`` with ``r_out`` the best reward outside, if that strictly beats the best
    reward inside; 0 otherwise.

    Args:
        log_ref: ``(..., A)``. reward: ``(..., A)``. alpha: > 0, scalar or batch.

    Raises:
        ValueError: ``alpha <= 0``, a reward that is not finite, shapes that do not broadcast.
    """
    log_p, r, a, _, shape = _rows(log_ref, reward, alpha, 0.0)
    return _escape(log_p, r, a).reshape(shape)


@np.errstate(divide="ignore", over="ignore", invalid="ignore")
def _escape(log_p: np.ndarray, r: np.ndarray, a: np.ndarray) -> np.ndarray:
    inside = np.isfinite(log_p)
    out = np.max(np.where(inside, -np.inf, r), axis=-1)
    leaves = out > np.max(np.where(inside, r, -np.inf), axis=-1)
    ahead = np.where(leaves[:, None] & inside, out[:, None] - r, 1.0)
    kept = np.sum(np.exp(np.log(a)[:, None] + log_p - np.log(ahead)), axis=-1)
    return np.where(leaves, np.maximum(1.0 - kept, 0.0), 0.0)


def reweighted(log_ref: Any, exponent: Any) -> np.ndarray:
    r"""``ref(y)^{phi(y)} / Z``, ``(..., A)``: a reference flattened response by response.

    ``0^0 = 0``: the support never grows. One exponent for a whole law makes its escort distribution
    (`klsim.objectives.temper`): entropy falls in the exponent, ``dH/dphi = -phi Var(log ref)`` under the escort.

    Args:
        log_ref: ``(..., A)``. exponent: ``phi >= 0``, broadcasts to ``(..., A)``.

    Raises:
        ValueError: a negative or infinite exponent, shapes that do not broadcast.
    """
    log_p, phi = _validate.numpy_arrays(log_ref=log_ref, exponent=exponent)
    _validate.log_probs("log_ref", np, log_p)
    _validate.budgets("exponent", np, _validate.finite("exponent", np, phi))
    if _validate.broadcast(log_ref=log_p, exponent=phi)[-1] != log_p.shape[-1]:
        _validate.fail("exponent", f"must broadcast to {log_p.shape[-1]} outcomes, got shape {phi.shape}")
    gone = np.isinf(log_p)
    with np.errstate(over="ignore"):
        powered = phi * np.where(gone, 0.0, log_p)
    best = np.max(np.where(gone, -np.inf, powered), axis=-1)
    _validate.representable("exponent", np, best)
    return np.asarray(log_normalize(np.where(gone, -np.inf, powered)))


def forward_kl_with_entropy(log_ref: Any, reward: Any, alpha: Any, entropy: Any = 0.0) -> Optimum:
    r"""``max_pi E_pi[r] - alpha KL(ref‖pi) + entropy H(pi)`` over all policies on the ``A`` outcomes.

    Args:
        log_ref: ``(..., A)``; ``-inf`` outside its support. reward: ``(..., A)``. alpha: > 0, scalar or batch.
        entropy: ``b >= 0``, scalar or batch. With 0 several best responses outside the support share equally.

    Returns:
        An `Optimum` with ``beta = alpha``; its ``kl`` is ``KL(pi‖ref)``, infinite where mass has left the support.

    Raises:
        ValueError: ``alpha <= 0``, ``entropy < 0``, a reward that is not finite, shapes that do not broadcast, numbers
            whose results overflow.
    """
    log_p, r, a, b, shape = _rows(log_ref, reward, alpha, entropy)
    log_pi, found = _optimum(log_p, r, a, b)
    stays = b == 0
    if stays.any():
        log_pi[stays] = _escaped(log_p[stays], r[stays], a[stays], log_pi[stays])
    best = r.max(axis=-1)
    pi, short = np.exp(log_pi), best[:, None] - r
    value = best - np.sum(pi * short, axis=-1) - a * kl(log_p, log_pi) + b * entropy_of(log_pi)
    gap, rounding = _gap(log_p, log_pi, short, a, b)
    _validate.representable("alpha", np, value, gap)
    wide = int((gap > rounding).sum())
    stuck = int((~found).sum())
    reason = f"Newton's iteration was cut off on {stuck} of {len(a)} problems" if stuck else "multiplier found"
    reason = f"the gap is above rounding on {wide} of {len(a)} problems" if wide else reason
    numbers = (value, np.sum(pi * r, axis=-1), kl(log_pi, log_p), a, gap)
    value, expected, divergence, beta, gap = (x.reshape(shape) for x in numbers)
    policy = log_pi.reshape(*shape, log_pi.shape[-1])
    return Optimum(policy, value, expected, divergence, beta, gap, not stuck and not wide, reason)


def _rows(log_ref: Any, reward: Any, alpha: Any, entropy: Any) -> tuple[Any, ...]:
    """``(log_ref (n, A), reward (n, A), alpha (n,), entropy (n,), batch shape)``, checked, in float64."""
    log_p, r, a, b = _validate.numpy_arrays(log_ref=log_ref, reward=reward, alpha=alpha, entropy=entropy)
    log_p, r, a, b = (x.astype(np.float64) for x in (log_p, r, a, b))
    _validate.log_probs("log_ref", np, log_p)
    _validate.same_last_axis(log_ref=log_p, reward=r)
    _validate.finite("reward", np, r)
    _validate.positive("alpha", np, a)
    _validate.budgets("entropy", np, _validate.finite("entropy", np, b))
    shape = _validate.broadcast(log_ref=log_p[..., 0], reward=r[..., 0], alpha=a, entropy=b)
    size = log_p.shape[-1]
    wide = (np.broadcast_to(x, (*shape, size)).reshape(-1, size) for x in (log_p, r))
    log_p, r = wide
    a, b = (np.broadcast_to(x, shape).reshape(-1) for x in (a, b))
    with np.errstate(over="ignore"):
        _validate.representable("reward", np, r.max(axis=-1) - r.min(axis=-1))
        _validate.representable("alpha", np, 4.0 * a)
        _validate.representable("entropy", np, b * (4.0 + math.log(2 * size)))
    return log_p, r, a, b, shape


@np.errstate(divide="ignore")
def _escaped(log_p: np.ndarray, r: np.ndarray, a: np.ndarray, log_pi: np.ndarray) -> np.ndarray:
    """Without entropy: ``log_pi``, the optimum on the support, or what holds where mass leaves it."""
    inside, mass = np.isfinite(log_p), _escape(log_p, r, a)[:, None]
    out = np.max(np.where(inside, -np.inf, r), axis=-1, keepdims=True)
    best_out = ~inside & (r == out)
    kept = np.log(a)[:, None] + log_p - np.log(np.where(inside & (out > r), out - r, 1.0))
    gained = np.log(mass) - np.log(np.maximum(best_out.sum(axis=-1, keepdims=True), 1))
    left = np.where(best_out, gained, np.where(inside, kept, -np.inf))
    return np.where(mass > 0, left, log_pi)


_STEPS = 500


@np.errstate(divide="ignore")
def _optimum(log_p: np.ndarray, r: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(log pi, found)``: Newton for the multiplier; without entropy on the support only."""
    counted = np.isfinite(log_p) | (b[:, None] > 0)
    best = np.max(np.where(counted, r, -np.inf), axis=-1, keepdims=True)
    log_short = np.log(np.where(counted, best - r, 0.0))
    log_a, log_b = np.log(a)[:, None] + log_p, np.log(b)
    of_best = np.max(np.where(np.isneginf(log_short) & counted, log_a, -np.inf), axis=-1)
    log_x = np.maximum(of_best, log_b - 40.0)  # below e^-40 b the multiplier has no effect
    log_pi, found, rows = np.empty(log_p.shape), np.zeros(len(a), dtype=bool), np.arange(len(a))
    last = np.full(len(a), np.inf)
    for _ in range(_STEPS):
        at, fall = _policy_at(log_x[rows], log_short[rows], log_a[rows], log_b[rows])
        at = np.where(counted[rows], at, -np.inf)
        top = at.max(axis=-1, keepdims=True)
        weight = np.exp(at - top)
        total = top[:, 0] + np.log(weight.sum(axis=-1))
        slope = np.sum(weight * fall, axis=-1) / weight.sum(axis=-1)
        done = ~(total > 4e-16 * slope) | (total < 1e-11) & (2 * total > last[rows])  # only rounding is left
        last[rows] = total
        log_pi[rows], found[rows] = at - total[:, None], done  # drops the root's rounding
        rows, step = rows[~done], total[~done] / slope[~done]
        log_x[rows] += np.log1p(step)
        if not rows.size:
            break
    return log_pi, found


@np.errstate(divide="ignore", over="ignore", invalid="ignore")
def _policy_at(
    log_x: np.ndarray, log_short: np.ndarray, log_a: np.ndarray, log_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(log pi, -d log pi/d log x)`` at the multiplier ``max r + x``, not normalised; ``log_a`` is ``log(a ref)``."""
    from scipy.special import wrightomega

    log_x, log_b = log_x[:, None], log_b[:, None]
    behind = np.logaddexp(log_short, log_x)
    t = np.exp(behind - log_b)
    log_c = log_a - log_b
    near = log_c + t < 1e17  # beyond, omega is its argument, b times it is lambda - r, and t may be infinite
    z = np.where(near, log_c + t, 1.0)
    omega = wrightomega(z)
    # log omega is z - omega for small omega
    log_pi = np.where(z < 1.0, omega - t, np.where(near, log_c - np.log(omega), log_a - behind))
    return log_pi, np.exp(log_x - np.where(near, log_b + np.log1p(omega), behind))


def _gap(
    log_p: np.ndarray, log_pi: np.ndarray, short: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(gap, its rounding)``: ``max g - E_pi[g]`` for the slope ``g = r + a ref/pi - b log pi`` of the objective."""
    inside, held = np.isfinite(log_p), np.isfinite(log_pi)
    at = np.where(held, log_pi, 0.0)
    restored = np.exp(np.where(inside, np.log(a)[:, None] + log_p - at, -np.inf))
    steep = np.where(held, -b[:, None] * at, np.where(b[:, None] > 0, b[:, None] * 745.0, 0.0))
    slope = restored + steep - short
    top = slope.max(axis=-1, keepdims=True)
    gap = np.sum(np.where(held, np.exp(log_pi) * (top - slope), 0.0), axis=-1)
    size = np.max(short, axis=-1) + a + b * np.max(np.abs(at), axis=-1)
    return gap, 1e-13 * size
