"""Preference bandits: one decision, a reference policy, and which of two responses is preferred how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.preferences.matrices import checked_preference, checked_weights

__all__ = ["PreferenceBandit"]


@dataclass(frozen=True)
class PreferenceBandit:
    """``A`` responses with reference log-probabilities and chances to be preferred, of any model or none.

    Attributes:
        log_ref: ``(A,)``, normalised; ``-inf`` only where nothing is compared.
        preference: ``(A, A)``, ``P_ij + P_ji = 1``.
        weights: how often each pair is compared, symmetric ``(A, A)``, its diagonal is not used; None: every pair as
            often. Independent pairs of the reference: ``np.outer(ref, ref)``.

    Raises:
        ValueError: no distribution, no preference matrix, weights of another shape; a response that is compared and
            that the reference does not have.
    """

    log_ref: Any
    preference: Any
    weights: Any = None

    def __post_init__(self) -> None:
        p = checked_preference(self.preference)
        w = checked_weights(self.weights, p)
        (log_ref,) = _validate.numpy_arrays(log_ref=self.log_ref)
        _validate.log_probs("log_ref", np, log_ref)
        if log_ref.shape != (len(p),):
            _validate.fail("log_ref", f"must have shape ({len(p)},), got {log_ref.shape}")
        if np.any(~np.isfinite(log_ref) & (w.sum(axis=1) > 0)):
            _validate.fail("log_ref", "must give every response that is compared a probability")
        object.__setattr__(self, "log_ref", log_ref.astype(np.float64))
        object.__setattr__(self, "preference", p)
        object.__setattr__(self, "weights", w)
