r"""Losses for masked-diffusion language models, on ELBO samples instead of log-probabilities.

``elbo[i, j]`` is the j-th sampled ELBO of response i (weighted masked log-likelihood on one mask), ``old_elbo`` the
same mask under the old parameters; ``d = elbo - old_elbo``.
"""

from __future__ import annotations

from typing import Any

from klsim import _validate
from klsim._sums import detach
from klsim.objectives.batch import Loss

__all__ = ["bgpo", "elbo_ratio", "elbo_two_pass"]

Array = Any


def _checked(elbo: Array, old_elbo: Array, advantage: Array) -> tuple[Any, Array, Array, Array]:
    xp, elbo, old, advantage = _validate.arrays(elbo=elbo, old_elbo=detach(old_elbo), advantage=detach(advantage))
    if elbo.ndim != 2 or 0 in elbo.shape:
        _validate.fail("elbo", f"needs shape [B, masks] with at least one of each, got {list(elbo.shape)}")
    if tuple(old.shape) != tuple(elbo.shape):
        _validate.fail("old_elbo", f"must have shape {list(elbo.shape)}, got {list(old.shape)}")
    if tuple(advantage.shape) != (elbo.shape[0],):
        _validate.fail("advantage", f"must have shape [{elbo.shape[0]}], got {list(advantage.shape)}")
    for name, x in (("elbo", elbo), ("old_elbo", old), ("advantage", advantage)):
        _validate.finite(name, xp, x)
    return xp, elbo, elbo - old, advantage[:, None]


def elbo_ratio(elbo: Array, old_elbo: Array, advantage: Array) -> Loss:
    r"""``-mean_i A_i exp(mean_j d_ij)``: the importance ratio of the mean ELBO, all masks in one graph (VRPO-OL)."""
    xp, _, d, a = _checked(elbo, old_elbo, advantage)
    loss = -xp.mean(a[:, 0] * xp.exp(xp.mean(d, axis=1)))
    return loss, {"mean_ratio": detach(xp.mean(xp.exp(xp.mean(d, axis=1))))}


def bgpo(elbo: Array, old_elbo: Array, advantage: Array) -> Loss:
    r"""``-mean_ij A_i (1 + d_ij)`` where ``A >= 0``, ``-mean_ij A_i exp(d_ij)`` where ``A < 0``.

    An upper bound of `elbo_ratio`, and a mean over masks: gradients accumulate mask by mask. On-policy (``d = 0`` on
    the same masks) value and gradient equal those of `elbo_ratio`; elsewhere the gap is
    ``A m^2/2`` or ``|A| Var_j(d)/2`` to second order. The expected gradient does not depend on the number of
    masks: off-policy it stays biased for the ratio of the exact ELBO.

    Source: ``bgpo`` C1-C5.
    """
    xp, _, d, a = _checked(elbo, old_elbo, advantage)
    positive = a >= 0
    linear = xp.where(positive, d, xp.zeros_like(d))
    exponential = xp.exp(xp.where(positive, xp.zeros_like(d), d))
    loss = -xp.mean(xp.where(positive, a * (1 + linear), a * exponential))
    return loss, {"mean_log_ratio": detach(xp.mean(d))}


def elbo_two_pass(elbo: Array, old_elbo: Array, advantage: Array) -> Loss:
    r"""``-mean_ij sg[A_i exp(mean_j d_ij)] elbo_ij``: the exact gradient of `elbo_ratio`, accumulated mask by mask.

    The scalar weight comes from a pass without gradients: constant memory is a property of the algorithm, not of
    the bound (``bgpo`` C3b). The value is not that of `elbo_ratio`.
    """
    xp, elbo, d, a = _checked(elbo, old_elbo, advantage)
    weight = detach(a * xp.exp(xp.mean(d, axis=1, keepdims=True)))
    return -xp.mean(weight * elbo), {"mean_ratio": detach(xp.mean(xp.exp(xp.mean(d, axis=1))))}
