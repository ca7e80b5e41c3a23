r"""Many prompts, one set of parameters: bandits whose logits share weights through prompt features.

.. math:: z(x, a) = z_0(x, a) + \sum_d W_{ad}\, \phi_d(x)

With one-hot features (`PromptBandit.tabular`) every prompt has its own logits and nothing is shared; with
fewer features than prompts an update on one prompt moves the others. Interference, forgetting and
pass@k crossovers need that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize

__all__ = ["PromptBandit"]


@dataclass(frozen=True)
class PromptBandit:
    """``X`` prompts with ``A`` answers each.

    Attributes:
        base_logits: ``z_0``, the logits of the base policy, ``(X, A)``; ``-inf`` is a structural zero.
        reward: ``(X, A)``, finite (0/1 for verifiable answers).
        features: ``phi``, ``(X, D)``.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a prompt without any answer.
    """

    base_logits: np.ndarray
    reward: np.ndarray
    features: np.ndarray

    def __post_init__(self) -> None:
        logits, reward, features = _validate.numpy_arrays(
            base_logits=self.base_logits, reward=self.reward, features=self.features
        )
        xp = np
        _validate.log_probs("base_logits", xp, logits, normalised=False)
        if logits.ndim != 2 or reward.shape != logits.shape or features.ndim != 2 or len(features) != len(logits):
            shapes = f"{logits.shape}, {reward.shape}, {features.shape}"
            _validate.fail("base_logits", f"base_logits and reward must be (X, A), features (X, D), got {shapes}")
        for name, value in (("reward", reward), ("features", features)):
            _validate.finite(name, xp, value)
        for name, value in (("base_logits", logits), ("reward", reward), ("features", features)):
            object.__setattr__(self, name, value)

    @classmethod
    def tabular(cls, base_logits: Any, reward: Any) -> PromptBandit:
        """Every prompt has logits of its own: ``phi`` is the identity."""
        (logits,) = _validate.numpy_arrays(base_logits=base_logits)
        if logits.ndim != 2:
            _validate.fail("base_logits", f"must be (X, A), got {logits.shape}")
        return cls(logits, reward, np.eye(len(logits)))

    @property
    def weight_shape(self) -> tuple[int, int]:
        """``(A, D)``."""
        return self.base_logits.shape[1], self.features.shape[1]

    def log_policy(self, weights: np.ndarray | None = None) -> np.ndarray:
        """``log pi(a|x)``, ``(X, A)``; the base policy for zero weights."""
        if weights is None:
            return np.asarray(log_normalize(self.base_logits))
        (weights,) = _validate.numpy_arrays(weights=weights)
        if weights.shape != self.weight_shape:
            _validate.fail("weights", f"must have shape {self.weight_shape}, got {weights.shape}")
        logits = self.base_logits + self.features @ _validate.finite("weights", np, weights).T
        index = _validate.first_true(np, np.isnan(logits) | (logits == np.inf))
        if index is not None:
            _validate.fail("weights", "are too large: logits overflow", index=index)
        return np.asarray(log_normalize(logits))

    def success(self, weights: np.ndarray | None = None) -> np.ndarray:
        """``E_pi[r]`` of every prompt, ``(X,)``: its pass@1 where rewards are 0/1."""
        return np.asarray(np.sum(np.exp(self.log_policy(weights)) * self.reward, axis=-1))
