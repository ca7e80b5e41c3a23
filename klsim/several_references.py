r"""Penalties to several references at once, and the pool (weight soup) that stands for them.

For weights that sum to one, every policy and any real weights

.. math:: \sum_k w_k KL(\pi\|p_k) = KL(\pi\|p_s) + D_w, \qquad
    p_s = e^{D_w} \prod_k p_k^{w_k}, \quad D_w = -\log \sum_a \prod_k p_k(a)^{w_k}

so a penalty to several references is one to their pool, and the models' disagreement ``D_w`` is its price. For two
models with weights in [0, 1], ``D_w >= 0``; at one half it is the Bhattacharyya distance. Log-linear models whose
parameters are averaged are their pool (`klsim.objectives.soup`).

Source: ``salsa`` C1-C3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from klsim import _validate
from klsim.distributions import geometric_mixture, log_geometric_normalizer
from klsim.optima import Optimum, kl_regularized

__all__ = ["disagreement", "kl_regularized_to_several"]

Array = Any


def _sum_to_one(weights: Sequence[Any]) -> list[Any]:
    weights = _validate.sequence("weights", weights)
    if not weights:
        _validate.fail("weights", "needs one weight a policy")
    xp, *values = _validate.arrays(**{f"weights[{k}]": w for k, w in enumerate(weights)})
    for k, value in enumerate(values):
        _validate.finite(f"weights[{k}]", xp, value)
    _validate.broadcast(**{f"weights[{k}]": w for k, w in enumerate(values)})
    total = sum(values[1:], values[0])
    size = sum((xp.abs(w) for w in values[1:]), xp.abs(values[0]))
    off = xp.abs(total - 1) > _validate.normalisation_tolerance(xp, total.dtype) * (1 + size)
    if _validate.first_true(xp, off) is not None:
        _validate.fail("weights", "must sum to 1")
    return weights


def disagreement(log_policies: Sequence[Array], weights: Sequence[Any]) -> Array:
    r"""``D_w = -log sum_a prod_k p_k(a)^{w_k}`` in nats, ``(...)``: 0 where all models agree.

    Args:
        log_policies: one ``(..., A)`` array a model. weights: one a model, real, summing to 1; scalar or batch.

    Raises:
        ValueError: weights that do not sum to 1; otherwise as `klsim.distributions.geometric_mixture`.
    """
    return -log_geometric_normalizer(log_policies, _sum_to_one(weights))


def kl_regularized_to_several(
    log_policies: Sequence[Array], weights: Sequence[Any], reward: Array, beta: Array
) -> Optimum:
    r"""``max_pi E_pi[r] - beta sum_k w_k KL(pi‖p_k)``: the tilt of the pool, ``prod_k p_k^{w_k} e^{r/beta} / Z``.

    It is the pool, with the same weights, of the optima with each reference alone.

    Args:
        log_policies: one ``(..., A)`` array a model. weights: one a model, real, summing to 1; scalar or batch.
        reward: ``(..., A)``. beta: > 0, scalar or batch.

    Returns:
        An `Optimum` whose ``kl`` is the weighted mean of the divergences to the references.

    Raises:
        ValueError: weights that do not sum to 1; otherwise as `klsim.distributions.geometric_mixture` and
            `klsim.optima.kl_regularized`.
    """
    apart = disagreement(log_policies, weights)
    pooled = kl_regularized(geometric_mixture(log_policies, weights), reward, beta)
    value = pooled.value - pooled.beta * apart
    return dataclasses.replace(pooled, value=value, kl=pooled.kl + apart)
