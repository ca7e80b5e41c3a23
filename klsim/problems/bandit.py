"""Bandits: one decision, a reference policy and a reward an action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from klsim import _validate

__all__ = ["Bandit"]


@dataclass(frozen=True)
class Bandit:
    """``A`` actions with reference log-probabilities and rewards; leading axes are independent problems.

    Attributes:
        log_ref: ``(..., A)``, normalised; ``-inf`` forbids an action.
        reward: ``(..., A)``, finite.

    Raises:
        ValueError: not distributions, rewards that are not finite, shapes that do not broadcast.
    """

    log_ref: Any
    reward: Any

    def __post_init__(self) -> None:
        xp, log_ref, reward = _validate.arrays(log_ref=self.log_ref, reward=self.reward)
        _validate.log_probs("log_ref", xp, log_ref)
        _validate.same_last_axis(log_ref=log_ref, reward=reward)
        object.__setattr__(self, "log_ref", log_ref)
        object.__setattr__(self, "reward", _validate.finite("reward", xp, reward))
