"""Overlong filtering: advantages of a batch some of whose responses were cut at the length cap."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from klsim import _validate
from klsim.objectives.advantages import Scale, advantages, checked, group_mean, no_scale

__all__ = ["filtered_advantages"]

Array = Any


def filtered_advantages(
    rewards: Array,
    group: Array,
    finished: Array,
    *,
    mask: Literal["loss", "loss and baseline"] = "loss and baseline",
    scale: Scale = no_scale,
    epsilon: float = 0.0,
) -> Array:
    r"""Group-centred advantages ``[B]`` with those of truncated responses set to 0.

    ``"loss and baseline"``: mean and scale are those of the group's finished responses, so that nothing is said about
    length where being right does not depend on it; a single finished response has advantage 0. ``"loss"``: truncated
    responses still count in mean and scale, and finished ones are rewarded for having finished, by
    ``q(1-F)`` instead of q (`klsim.learning.length_weights`).

    Args:
        finished: ``[B]`` boolean. scale: as in `advantages`.

    Source: ``tricks-or-traps`` C7.
    """
    _validate.one_of("mask", mask, ("loss", "loss and baseline"))
    scale = _validate.function("scale", scale)
    xp, rewards, group = checked(rewards, group)
    if isinstance(rewards, np.ndarray):
        finished = _validate.boolean_mask("finished", finished, rewards.shape)
    elif not is_array_api_obj(finished) or isinstance(finished, np.ndarray) or not xp.isdtype(finished.dtype, "bool"):
        raise TypeError(f"finished: must be boolean, of the kind of rewards, got {type(finished).__name__}")
    elif tuple(finished.shape) != tuple(rewards.shape):
        _validate.fail("finished", f"must have shape {list(rewards.shape)}, got {list(finished.shape)}")
    zero = xp.zeros_like(rewards)
    if mask == "loss":
        return xp.where(finished, advantages(rewards, group, scale=scale, epsilon=epsilon), zero)
    kept = finished & (_partners(rewards, group, finished) > 1)
    if not bool(xp.any(kept)):
        return zero
    out = xp.zeros_like(rewards)
    out[kept] = advantages(rewards[kept], group[kept], baseline=group_mean, scale=scale, epsilon=epsilon)
    return out


def _partners(rewards: Array, group: Array, finished: Array) -> Array:
    """How many finished responses every response's group has."""
    xp = array_namespace(rewards)
    same = group[:, None] == group[None, :]
    return xp.sum(xp.astype(same & finished[None, :], rewards.dtype), axis=-1)
