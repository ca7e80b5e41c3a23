r"""What length does to a policy gradient: exact weights of responses under aggregation and truncation.

*Aggregation.* On-policy, with advantages that do not depend on the batch, the expected update is
``E[w(|y|) A S]``, S the score of the response:

====================  =============================================================================================
aggregation           w(l)
====================  =============================================================================================
`sequence_sum`        1
`sequence_mean`       ``1/l``
`token_mean`          ``E[G/(l + L_2 + … + L_G)]`` for a batch of G (`token_mean_weights`): ``1/l`` at G = 1, and
                      ``(1/m)(1 + (1 - l/m + v/m^2)/G) + O(1/G^2)``, m and v mean and variance of the length
====================  =============================================================================================

*Truncation.* A response is finished with probability F, and then right with probability q; a truncated one has reward
0. Groups of K, the mean of the group as baseline (``K = None``: its expectation). What an update does to F itself (the
length), as a multiple of ``grad F`` (`truncation_push`), and to q, as a multiple of ``grad q``:

==================================  ====================  =======================================
truncated responses                 to ``grad F``         to ``grad q``
==================================  ====================  =======================================
stay, with reward 0                 ``(K-1)/K q``         ``(K-1)/K F``
masked from the loss                ``(K-1)/K q (1-F)``   ``(K-1)/K F``
masked from loss and baseline       0                     `kept_weight`: ``E[(M-1)_+]/K``
==================================  ====================  =======================================

With M ~ Bin(K, F) finished ones. Where being right depends on length the last line reads: `kept_weight` times the
gradient of ``E[r | finished]``.

Source: ``tricks-or-traps`` C5, C7.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from klsim import _validate

__all__ = ["kept_weight", "token_mean_expansion", "token_mean_weights", "truncation_push"]


def _law(lengths: Any, probs: Any) -> tuple[np.ndarray, np.ndarray]:
    lengths = _validate.integers("lengths", lengths, low=1)
    (p,) = _validate.numpy_arrays(probs=probs)
    _validate.unit_interval("probs", np, p)
    if lengths.ndim != 1 or lengths.size == 0 or p.shape != lengths.shape:
        _validate.fail("lengths", f"and probs need one shape (R,), R >= 1, got {lengths.shape} and {p.shape}")
    if abs(p.sum() - 1) > 1e-9:
        _validate.fail("probs", "must sum to 1", float(p.sum()))
    return lengths, p


def _power(law: np.ndarray, times: int) -> np.ndarray:
    """The law of a sum of ``times`` draws."""
    out = np.ones(1)
    while times:
        if times % 2:
            out = np.convolve(out, law)
        law, times = (np.convolve(law, law) if times > 1 else law), times // 2
    return out


def token_mean_weights(lengths: Any, probs: Any, group_size: int) -> np.ndarray:
    """``E[G/(l + L_2 + … + L_G)]`` for every response, ``(R,)``: its weight under `token_mean` in a batch of G.

    Exact: the law of the other lengths by convolution.

    Args:
        lengths: ``(R,)`` integers >= 1. probs: ``(R,)``, of the responses. group_size: G >= 1.

    Source: ``tricks-or-traps`` C5.
    """
    lengths, p = _law(lengths, probs)
    size = _validate.integer("group_size", group_size, low=1)
    top = int(lengths.max())
    _validate.fits("group_size", size, (float(top) * size + 1) * len(np.unique(lengths)), each=32)
    others = _power(np.bincount(lengths, weights=p, minlength=top + 1), size - 1)
    distinct, place = np.unique(lengths, return_inverse=True)
    return np.asarray((size / (distinct[:, None] + np.arange(others.size)) @ others)[place])


def token_mean_expansion(lengths: Any, probs: Any, group_size: int) -> np.ndarray:
    """`token_mean_weights` to first order in 1/G: ``(1/m)(1 + (1 - l/m + v/m^2)/G)``, ``(R,)``."""
    lengths, p = _law(lengths, probs)
    size = _validate.integer("group_size", group_size, low=1)
    mean = p @ lengths
    variance = p @ (lengths - mean) ** 2
    return np.asarray((1 + (1 - lengths / mean + variance / mean**2) / size) / mean)


def kept_weight(finished: Any, group_size: int) -> np.ndarray:
    """``E[(M - 1)_+]/K`` with ``M ~ Bin(K, F)``: ``F - (1 - (1-F)^K)/K``, shape of ``finished`` (in [0, 1]).

    What a group of K whose truncated responses are masked from loss and baseline multiplies the gradient of
    ``E[r | finished]`` by; tends to F.
    """
    size = _validate.integer("group_size", group_size, low=1)
    f = _validate.unit_interval("finished", np, *_validate.numpy_arrays(finished=finished))
    with np.errstate(divide="ignore"):
        some = -np.expm1(size * np.log1p(-f))
    return np.asarray(np.maximum(f - some / size, 0.0))


def truncation_push(
    success: Any,
    finished: Any,
    *,
    mask: Literal["none", "loss", "loss and baseline"] = "none",
    group_size: int | None = None,
) -> np.ndarray:
    """The factor of ``grad F`` in the update of a prompt, see the module: > 0 pushes towards shorter responses.

    Args:
        success: q, of a finished response; finished: F; both in [0, 1], shapes broadcast.
        group_size: K >= 2, with the group's mean as baseline; None: its expectation.
    """
    _validate.one_of("mask", mask, ("none", "loss", "loss and baseline"))
    q, f = _validate.numpy_arrays(success=success, finished=finished)
    shape = _validate.broadcast(success=q, finished=f)
    _validate.unit_interval("success", np, q)
    _validate.unit_interval("finished", np, f)
    share = 1.0 if group_size is None else 1 - 1 / _validate.integer("group_size", group_size, low=2)
    open_ = {"none": np.ones_like(f), "loss": 1 - f, "loss and baseline": np.zeros_like(f)}[mask]
    return np.broadcast_to(share * q * open_, shape).copy()
