r"""Scaled negative advantages: what shrinking them in hard groups does to the expected update (SNGS, GUI-Libra).

A group of G responses with c successes normalises 0/1 rewards by its own mean and (population) std and multiplies
negative advantages by ``lambda(c/G) = min(offset + slope c/G, 1)`` (`negative_scale`, `klsim.objectives.sngs`). For
every policy the expected update of a prompt with success probability p is ``s(p) grad p``:

.. math:: s(p) = E\left[\frac{\sqrt{c(G-c)}}{G\,p(1-p)}\big((1-p) + p\,\lambda(c/G)\big)\right],
          \quad c \sim \mathrm{Bin}(G, p)

(`negative_scaling_weight`). Negatives carry the fraction p of the step, so any ``lambda`` in [0, 1] multiplies it by a
number in ``[1-p, 1]``, towards ``(1-p) + p lambda(p)`` in large groups (`negative_scaling_limit`); the direction stays.

Source: ``gui-libra`` C5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from klsim import _validate

__all__ = ["negative_scale", "negative_scaling_limit", "negative_scaling_weight"]


def negative_scale(rate: Any, *, offset: float = 0.5, slope: float = 1.5) -> np.ndarray:
    """``min(offset + slope rate, 1)``, not below 0: what negative advantages of a group are multiplied by.

    Args:
        rate: success rates in [0, 1]. offset, slope: of the published settings (0.9, 0.5), (1.4, -0.5), (0.5, 1.5),
            (0.5, 2); (1, 0) scales nothing.
    """
    rate = _validate.unit_interval("rate", np, *_validate.numpy_arrays(rate=rate))
    offset, slope = _validate.real("offset", offset), _validate.real("slope", slope)
    with np.errstate(over="ignore"):
        return np.asarray(np.clip(offset + slope * rate, 0.0, 1.0))


def negative_scaling_weight(success: Any, group_size: int, *, offset: float = 0.5, slope: float = 1.5) -> np.ndarray:
    """``s(p)``: what group normalisation with scaled negatives multiplies ``grad p`` by; exact, any shape.

    Args:
        success: in (0, 1). group_size: G >= 2. offset, slope: as `negative_scale`; (1, 0) is `std_weight`.
    """
    group_size = _validate.integer("group_size", group_size, low=2)
    p = _validate.unit_interval("success", np, *_validate.numpy_arrays(success=success), open_ends=True)
    _validate.fits("group_size", group_size, p.size * group_size, each=40)
    c = np.arange(1, group_size)  # C(G, c) c (G - c) = G (G - 1) C(G - 2, c - 1): nothing is divided by p
    p = p[..., None]
    ways = gammaln(group_size - 1) - gammaln(c) - gammaln(group_size - c)
    law = np.exp(ways + xlogy(c - 1, p) + xlog1py(group_size - 1 - c, -p))
    kept = (1 - p) + p * negative_scale(c / group_size, offset=offset, slope=slope)
    return np.asarray((group_size - 1) * np.sum(law * kept / np.sqrt(c * (group_size - c)), axis=-1))


def negative_scaling_limit(success: Any, *, offset: float = 0.5, slope: float = 1.5) -> np.ndarray:
    """``(1 - p) + p lambda(p)``: what scaled negatives multiply the step of a large group by.

    Args:
        success: in [0, 1].
    """
    p = _validate.unit_interval("success", np, *_validate.numpy_arrays(success=success))
    return np.asarray((1 - p) + p * negative_scale(p, offset=offset, slope=slope))
