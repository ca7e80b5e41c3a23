r"""Many prompts, one set of parameters: bandits whose logits share weights through prompt features.

.. math:: z(x, a) = z_0(x, a) + \sum_d W_{ad}\, \phi_d(x)

With one-hot features (`PromptBandit.tabular`) every prompt has its own logits and nothing is shared; with
fewer features than prompts an update on one prompt moves the others. Interference, forgetting and
pass@k crossovers need that. Leading axes ``...`` are independent worlds (seeds): one call moves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.estimators import pass_at_k_exact

__all__ = ["PromptBandit"]


@dataclass(frozen=True)
class PromptBandit:
    """``X`` prompts with ``A`` answers each.

    Attributes:
        base_logits: ``z_0``, the logits of the base policy, ``(..., X, A)``; ``-inf`` is a structural zero.
        reward: ``(..., X, A)``, finite (0/1 for verifiable answers).
        features: ``phi``, ``(..., X, D)``.

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
        if logits.ndim < 2 or reward.shape != logits.shape or features.shape[:-1] != logits.shape[:-1]:
            shapes = f"{logits.shape}, {reward.shape}, {features.shape}"
            _validate.fail(
                "base_logits", f"base_logits and reward must be (..., X, A), features (..., X, D), got {shapes}"
            )
        for name, value in (("reward", reward), ("features", features)):
            _validate.finite(name, xp, value)
        for name, value in (("base_logits", logits), ("reward", reward), ("features", features)):
            object.__setattr__(self, name, value)

    @classmethod
    def tabular(cls, base_logits: Any, reward: Any) -> PromptBandit:
        """Every prompt has logits of its own: ``phi`` is the identity."""
        (logits,) = _validate.numpy_arrays(base_logits=base_logits)
        if logits.ndim < 2:
            _validate.fail("base_logits", f"must be (..., X, A), got {logits.shape}")
        prompts = logits.shape[-2]
        return cls(logits, reward, np.broadcast_to(np.eye(prompts), (*logits.shape[:-1], prompts)).copy())

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``(..., A, D)``."""
        return (*self.base_logits.shape[:-2], self.base_logits.shape[-1], self.features.shape[-1])

    def select(self, prompts: Any) -> PromptBandit:
        """The world of some of the prompts: a slice, or integers (several of the same are allowed)."""
        if not isinstance(prompts, slice):
            prompts = _validate.integers("prompts", prompts, low=0, high=self.base_logits.shape[-2] - 1)
            if prompts.ndim != 1:
                _validate.fail("prompts", f"must be a list of integers, got shape {prompts.shape}")
        parts = (self.base_logits, self.reward, self.features)
        return PromptBandit(*(part[..., prompts, :] for part in parts))

    def log_policy(self, weights: np.ndarray | None = None) -> np.ndarray:
        """``log pi(a|x)``, ``(..., X, A)``; the base policy for zero weights."""
        if weights is None:
            return np.asarray(log_normalize(self.base_logits))
        (weights,) = _validate.numpy_arrays(weights=weights)
        if weights.shape != self.weight_shape:
            _validate.fail("weights", f"must have shape {self.weight_shape}, got {weights.shape}")
        logits = self.base_logits + self.features @ np.swapaxes(_validate.finite("weights", np, weights), -1, -2)
        index = _validate.first_true(np, np.isnan(logits) | (logits == np.inf))
        if index is not None:
            _validate.fail("weights", "are too large: logits overflow", index=index)
        return np.asarray(log_normalize(logits))

    def weight_gradient(self, direction: Any) -> np.ndarray:
        """``sum_x direction(x, a) phi_d(x)``, ``(..., A, D)``: from a gradient in the logits ``(..., X, A)``."""
        (direction,) = _validate.numpy_arrays(direction=direction)
        if direction.shape != self.base_logits.shape:
            _validate.fail("direction", f"must have shape {self.base_logits.shape}, got {direction.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            gradient = np.swapaxes(_validate.finite("direction", np, direction), -1, -2) @ self.features
        _validate.representable("direction", np, gradient)
        return np.asarray(gradient)

    def success(self, weights: np.ndarray | None = None) -> np.ndarray:
        """``E_pi[r]`` of every prompt, ``(..., X)``: its pass@1 where rewards are 0/1."""
        return np.asarray(np.sum(np.exp(self.log_policy(weights)) * self.reward, axis=-1))

    def _verifiable(self) -> np.ndarray:
        """Which answers are right; rewards must be 0 or 1."""
        index = _validate.first_true(np, (self.reward != 0) & (self.reward != 1))
        if index is not None:
            _validate.fail("reward", "must be 0 or 1", float(self.reward[index]), index)
        return np.asarray(self.reward == 1)

    def pass_at_k(self, k: Any, weights: np.ndarray | None = None) -> np.ndarray:
        """``1 - (1 - p)^k`` of every prompt, exactly; ``k`` a number, or an array that broadcasts with ``(..., X)``.

        Raises:
            ValueError: rewards other than 0 and 1.
        """
        right = self._verifiable()
        p = np.sum(np.where(right, np.exp(self.log_policy(weights)), 0.0), axis=-1)
        return pass_at_k_exact(np.minimum(p, 1.0), k)

    def modes_kept(self, weights: np.ndarray, fraction: float = 0.2) -> np.ndarray:
        """Share of a prompt's right answers with ``pi(a|x) > fraction * pi_base(a|x)``, ``(..., X)``.

        Answers that the base excludes are no modes; 1 for a prompt without any.

        Raises:
            ValueError: rewards other than 0 and 1, a fraction outside [0, 1].
        """
        fraction = _validate.probability("fraction", fraction)
        modes = self._verifiable() & np.isfinite(self.base_logits)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = modes & (self.log_policy(weights) - self.log_policy() > np.log(fraction))
        count = modes.sum(axis=-1)
        return np.where(count > 0, kept.sum(axis=-1) / np.maximum(count, 1), 1.0)
