r"""HL-Gauss: a value as a histogram of a Gaussian around the target, learnt by cross-entropy.

Edges ``e_0 < … < e_m``. The target t, clipped to ``[e_0, e_m]``, becomes ``m`` probabilities

.. math::

   p_i(t) = \frac{\Phi((e_{i+1} - t)/\sigma) - \Phi((e_i - t)/\sigma)}
                 {\Phi((e_m - t)/\sigma) - \Phi((e_0 - t)/\sigma)},

and a histogram q stands for the value ``sum_i q_i (e_i + e_{i+1})/2``. The loss is the cross-entropy
(`klsim.learning.networks.softmax_cross_entropy`), whose gradient ``q - p`` in the logits has L1 norm at most 2, however
far the value is off. Decoding gives t back up to discretisation inside, and is pulled inwards within about three
``sigma`` of the ends, where the Gaussian is cut.

Source: ``hyper`` C6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

from klsim import _validate

__all__ = ["bin_centres", "decode", "hl_gauss"]


def _edges(edges: Any) -> np.ndarray:
    (edges,) = _validate.numpy_arrays(edges=edges)
    if edges.ndim != 1 or edges.size < 2:
        _validate.fail("edges", f"must have shape (m + 1,), m >= 1, got {edges.shape}")
    index = _validate.first_true(np, ~(np.abs(edges) <= 1e150))
    if index is not None:
        _validate.fail("edges", "must be finite, at most 1e150 in size", float(edges[index]), index)
    index = _validate.first_true(np, ~(np.diff(edges) > 0))
    if index is not None:
        _validate.fail("edges", "must increase", float(edges[index[0] + 1]), (index[0] + 1,))
    return np.asarray(edges)


def hl_gauss(target: Any, edges: Any, sigma: float) -> np.ndarray:
    """Probabilities of the bins, ``(..., m)``, for targets ``(...)`` (module docstring).

    Args:
        target: clipped to ``[edges[0], edges[-1]]``: what lies outside is lost. edges: ``(m + 1,)``, increasing.
        sigma: > 0, in the units of the target.

    Raises:
        ValueError: targets that are not finite, edges that do not increase, a sigma that is not in (0, 1e150].
    """
    edges, sigma = _edges(edges), _validate.real("sigma", sigma, low=0.0, high=1e150, open_low=True)
    (target,) = _validate.numpy_arrays(target=target)
    t = np.clip(_validate.finite("target", np, target), edges[0], edges[-1])[..., None]
    with np.errstate(over="ignore"):  # far below or above in units of a tiny sigma: +-inf, which ndtr takes
        z = (edges - t) / sigma
    low, high = z[..., :-1], z[..., 1:]
    mass = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))  # the tail in which digits are left
    return np.asarray(mass / mass.sum(axis=-1, keepdims=True))


def bin_centres(edges: Any) -> np.ndarray:
    """``(e_i + e_{i+1})/2``, ``(m,)``.

    Raises:
        ValueError: edges that do not increase.
    """
    edges = _edges(edges)
    return np.asarray((edges[:-1] + edges[1:]) / 2)


def decode(log_policy: Any, edges: Any) -> np.ndarray:
    """``sum_i q_i (e_i + e_{i+1})/2`` of log-probabilities ``(..., m)``.

    Raises:
        ValueError: another number of bins, log-probabilities that are not normalised (as `log_normalize` makes them).
    """
    centres = bin_centres(edges)
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    if log_policy.shape[-1] != centres.size:
        _validate.fail("log_policy", f"needs {centres.size} outcomes, one a bin, got shape {log_policy.shape}")
    return np.asarray(np.exp(log_policy) @ centres)
