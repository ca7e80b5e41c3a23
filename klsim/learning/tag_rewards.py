r"""What rewarding a tag teaches a tag head, in large batches.

Contexts x are visited with probability d(x), the head chooses tag g with ``pi(g|x)``, and the step is paid (1 or 0)
with rate ``q(x, g)``. Normalised inside the tag, ``a(x, g) = (q(x, g) - q(g)) / sqrt(q(g)(1 - q(g)))`` with ``q(g)``
the rate of the tag's steps; the expected gradient of a step in the logits of context x is

.. math:: d(x)\,\pi(g|x)\Big(a(x,g) - \sum_h \pi(h|x)\,a(x,h)\Big).

Where rates do not depend on the context it is 0: no tag gains by being easy. With one normaliser for all steps the
easiest tag gains ``pi(g)(q(g) - q)/sqrt(q(1 - q))`` a step.

Source: ``rlvmr`` C3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate

__all__ = ["tag_drift"]


def tag_drift(log_policy: Any, rates: Any, visits: Any = None, *, pooled: bool = False) -> np.ndarray:
    """The expected gradient of a step in the logits of a tag head, ``(X, G)``, or ``(G,)`` for one context.

    Args:
        log_policy, rates: ``log pi(g|x)`` and the chance that a step of context x and tag g is paid, ``(X, G)``.
        visits: d(x), ``(X,)``, a distribution; uniform if None.
        pooled: one mean and deviation for all steps, instead of one a tag.

    Raises:
        ValueError: shapes, log-probabilities, rates outside [0, 1], visits that are not a distribution.
    """
    log_policy, rates = _validate.numpy_arrays(log_policy=log_policy, rates=rates)
    _validate.log_probs("log_policy", np, log_policy)
    _validate.unit_interval("rates", np, rates)
    if rates.shape != log_policy.shape or rates.ndim not in (1, 2):
        _validate.fail("rates", f"must have the shape (X, G) of log_policy, got {rates.shape} for {log_policy.shape}")
    policy, paid = np.exp(np.atleast_2d(log_policy)), np.atleast_2d(rates)
    contexts = policy.shape[0]
    (weight,) = _validate.numpy_arrays(visits=np.full(contexts, 1 / contexts) if visits is None else visits)
    if weight.shape != (contexts,) or not np.all(weight >= 0) or abs(weight.sum() - 1) > 1e-8:
        _validate.fail("visits", f"must be a distribution over {contexts} contexts, got {weight.tolist()}")
    share = weight[:, None] * policy
    axis = None if pooled else 0
    mass = np.sum(share, axis=axis)
    mean = np.sum(share * paid, axis=axis) / np.where(mass > 0, mass, 1.0)
    spread = np.sqrt(np.maximum(mean * (1 - mean), 0.0))
    flat = spread <= 1e-12
    advantage = np.where(flat, 0.0, (paid - mean) / np.where(flat, 1.0, spread))
    drift = share * (advantage - np.sum(policy * advantage, axis=-1, keepdims=True))
    return np.asarray(drift.reshape(log_policy.shape))
