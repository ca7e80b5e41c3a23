r"""Finite-horizon low-rank MDPs: transitions are inner products of features of pairs and of successors.

``P_h(s'|s, a) = sum_i phi_hi(s, a) psi_hi(s')``. Only the product is a law: features and factors may have any sign, and
``phi R, R^{-1} psi`` is the same problem for every invertible R. `LinearMDP` is the simplex form, with linear rewards;
here rewards are free. A *block MDP* (rich observations) is the special case where a few latent states decide
(`block_mdp`): ``phi`` is one-hot in (latent state, action).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.tabular_mdp import TabularMDP
from klsim.problems.transition_rows import numpy_only, probabilities

__all__ = ["LowRankMDP", "block_mdp"]


@dataclass(frozen=True)
class LowRankMDP:
    """A low-rank MDP with known rewards.

    Attributes:
        features: ``phi (H, S, A, d)``. factors: ``psi (H, d, S)``; the products are distributions over next states.
        reward: ``(H, S, A)``, finite.
        initial: ``(S,)``.

    Raises:
        ValueError: shapes that do not fit, products that are not distributions (to 1e-8).
    """

    features: np.ndarray
    factors: np.ndarray
    reward: np.ndarray
    initial: np.ndarray

    def __post_init__(self) -> None:
        features, factors, reward = (numpy_only(n, getattr(self, n)) for n in ("features", "factors", "reward"))
        initial = probabilities("initial", self.initial)
        for name, value in (("features", features), ("factors", factors), ("reward", reward)):
            _validate.finite(name, np, value)
        if features.ndim != 4:
            _validate.fail("features", f"must be (H, S, A, d), got shape {features.shape}")
        horizon, states, actions, rank = features.shape
        for name, value, wanted in (
            ("factors", factors, (horizon, rank, states)),
            ("reward", reward, (horizon, states, actions)),
            ("initial", initial, (states,)),
        ):
            if value.shape != wanted:
                _validate.fail(name, f"must have shape {wanted} beside features (H, S, A, d), got {value.shape}")
        _validate.fits("features", features.size, horizon * states * states * actions)
        for name, value in (("features", features), ("factors", factors), ("reward", reward), ("initial", initial)):
            object.__setattr__(self, name, value)
        self._laws()

    def _laws(self) -> np.ndarray:
        with np.errstate(all="ignore"):
            law = np.einsum("hsai,hit->hsat", self.features, self.factors)
        index = _validate.first_true(np, ~(law >= -1e-8))
        if index is not None:
            _validate.fail("factors", "features times factors must be probabilities, >= 0", float(law[index]), index)
        return probabilities("factors", np.maximum(law, 0.0))

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, S, A)``: the shape of a policy."""
        return self.reward.shape

    @property
    def rank(self) -> int:
        """d."""
        return int(self.features.shape[-1])

    def tabular(self) -> TabularMDP:
        """The same problem with its transitions ``(H, S, A, S)`` written out."""
        return TabularMDP(self._laws(), self.reward, self.initial, self.shape[0])


def block_mdp(labels: Any, latent: Any, emission: Any, reward: Any, initial: Any) -> LowRankMDP:
    """Observations that show a latent state: ``P_h(s'|s, a) = sum_z' latent_h(z'|z(s), a) emission(s'|z')``.

    Args:
        labels: ``z(s)``, ``(S,)`` integers below Z. latent: ``(H, Z, A, Z)``. emission: ``(Z, S)``.
        reward: ``(H, Z, A)``, of the latent state. initial: ``(S,)``.

    Returns:
        The `LowRankMDP` of rank ``Z A`` with one-hot features.

    Raises:
        ValueError: shapes that do not fit, rows that are not distributions, an observation that a latent state with
            another label emits.
    """
    latent, emission = probabilities("latent", latent), probabilities("emission", emission)
    (reward,) = _validate.numpy_arrays(reward=reward)
    if latent.ndim != 4 or latent.shape[1] != latent.shape[3]:
        _validate.fail("latent", f"must have shape (H, Z, A, Z), got {latent.shape}")
    horizon, count, actions, _ = latent.shape
    labels = _validate.integers("labels", labels, low=0, high=count - 1)
    if labels.ndim != 1 or emission.shape != (count, labels.size):
        _validate.fail("emission", f"must be (Z, S) beside labels (S,): {emission.shape}, {labels.shape}")
    index = _validate.first_true(np, (emission > 0) & (labels != np.arange(count)[:, None]))
    if index is not None:
        _validate.fail("emission", "an observation must show its own label", float(emission[index]), index)
    if reward.shape != (horizon, count, actions):
        _validate.fail("reward", f"must be (H, Z, A) = {latent.shape[:3]}, got {reward.shape}")
    _validate.fits("latent", latent.size, horizon * labels.size * count * actions * actions)
    features = np.eye(count * actions).reshape(count, actions, -1)[labels]
    factors = np.einsum("hzay,ys->hzas", latent, emission).reshape(horizon, count * actions, labels.size)
    return LowRankMDP(np.broadcast_to(features, (horizon, *features.shape)), factors, reward[:, labels], initial)
