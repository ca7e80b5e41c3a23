r"""From one value a token to a scalar. An aggregation is a function ``(values [B, T], mask [B, T]) -> scalar``.

=================  =====================================  ==================================================
aggregation        formula                                on-policy, constant baseline b, it ascends
=================  =====================================  ==================================================
`sequence_sum`     ``1/B sum_i sum_t v_it``               ``E[r]``
`fixed_length`     ``1/(B L) sum_i sum_t v_it``           ``E[r] / L``
`sequence_mean`    ``1/B sum_i 1/|y_i| sum_t v_it``       ``E[(r - b)/|y|]``: weights tokens by 1/length
`token_mean`       ``sum_i sum_t v_it / sum_i |y_i|``     ``E[r]/E|y|`` as B grows; biased O(1/B)
=================  =====================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from klsim import _validate

__all__ = ["Aggregate", "fixed_length", "sequence_mean", "sequence_sum", "token_mean"]

Array = Any
Aggregate = Callable[[Array, Array], Array]
"""Values of tokens ``[B, T]`` and their mask to a scalar."""


def _token_sums(values: Array, mask: Array) -> tuple[Any, Array, Array]:
    xp, values = _validate.arrays(values=values)
    if values.ndim != 2 or 0 in values.shape:
        _validate.fail("values", f"needs shape [B, T] with B, T >= 1, got {list(values.shape)}")
    if isinstance(values, np.ndarray):
        mask = _validate.boolean_mask("mask", mask)
    elif not is_array_api_obj(mask) or isinstance(mask, np.ndarray) or not xp.isdtype(mask.dtype, "bool"):
        raise TypeError(f"mask: must be boolean, of the kind of values, got {type(mask).__name__}")
    if tuple(mask.shape) != tuple(values.shape):
        _validate.fail("mask", f"must have shape {list(values.shape)}, got {list(mask.shape)}")
    sums = xp.sum(xp.where(mask, values, xp.zeros_like(values)), axis=-1)
    return xp, sums, xp.sum(xp.astype(mask, values.dtype), axis=-1)


def _number(xp: Any, result: Array) -> Array:
    if bool(xp.isnan(result)):
        raise ValueError(
            "values: their mean over the batch is not a number (NaN, inf of both signs, a mask without tokens)"
        )
    return result


def sequence_sum(values: Array, mask: Array) -> Array:
    """Mean over responses of the sum over tokens: the gradient of an expectation over responses."""
    xp, sums, _ = _token_sums(values, mask)
    return _number(xp, xp.mean(sums))


def sequence_mean(values: Array, mask: Array) -> Array:
    """Mean over responses of the mean over their tokens (GRPO)."""
    xp, sums, lengths = _token_sums(values, mask)
    return _number(xp, xp.mean(sums / lengths))


def token_mean(values: Array, mask: Array) -> Array:
    """Mean over all tokens of the batch (DAPO)."""
    xp, sums, lengths = _token_sums(values, mask)
    return _number(xp, xp.sum(sums) / xp.sum(lengths))


def fixed_length(length: float) -> Aggregate:
    """Mean over responses of the sum over tokens divided by a constant, usually the length cap (Dr.GRPO).

    Raises:
        ValueError: ``length`` is not > 0.
    """
    length = _validate.real("length", length, low=0.0, open_low=True)

    def aggregate(values: Array, mask: Array) -> Array:
        return sequence_sum(values, mask) / length

    return aggregate
