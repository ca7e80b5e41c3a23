r"""Finite-horizon linear MDPs: transitions and rewards are mixtures of d latent factors.

``P_h(s'|s, a) = sum_i phi_i(s, a) mu_hi(s')`` and ``r_h(s, a) = sum_i phi_i(s, a) theta_hi``, features ``phi >= 0``
that sum to 1: the simplex form, in which every ``mu_hi`` is a distribution over states and can be perturbed on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from klsim import _validate
from klsim.problems.tabular_mdp import TabularMDP
from klsim.problems.transition_rows import probabilities

__all__ = ["LinearMDP"]


@dataclass(frozen=True)
class LinearMDP:
    """A linear MDP in simplex form.

    Attributes:
        features: ``phi (S, A, d)``, non-negative, summing to 1 over d.
        factors: ``mu (H, d, S)``, distributions over next states.
        theta: ``(H, d)``, rewards of the factors, finite.
        initial: ``(S,)``.

    Raises:
        ValueError: shapes that do not fit, rows that are not distributions.
    """

    features: np.ndarray
    factors: np.ndarray
    theta: np.ndarray
    initial: np.ndarray

    def __post_init__(self) -> None:
        features, factors = probabilities("features", self.features), probabilities("factors", self.factors)
        initial = probabilities("initial", self.initial)
        (theta,) = _validate.numpy_arrays(theta=self.theta)
        _validate.finite("theta", np, theta)
        if features.ndim != 3 or initial.ndim != 1 or theta.ndim != 2:
            _validate.fail("features", "must be (S, A, d) beside factors (H, d, S), theta (H, d), initial (S,)")
        states, _, latent = features.shape
        if factors.shape != (len(theta), latent, states) or theta.shape[1] != latent or initial.shape != (states,):
            shapes = f"features {features.shape}, factors {factors.shape}, theta {theta.shape}, initial {initial.shape}"
            _validate.fail("factors", f"must be (H, d, S) beside features (S, A, d), theta (H, d): {shapes}")
        for name, value in (("features", features), ("factors", factors), ("theta", theta), ("initial", initial)):
            object.__setattr__(self, name, value)

    @property
    def horizon(self) -> int:
        """H."""
        return len(self.theta)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, S, A)``: the shape of a policy."""
        return (self.horizon, *self.features.shape[:2])

    def tabular(self) -> TabularMDP:
        """The same problem with its transitions ``(H, S, A, S)`` written out."""
        transition = np.einsum("sai,hit->hsat", self.features, self.factors)
        reward = np.einsum("sai,hi->hsa", self.features, self.theta)
        return TabularMDP(transition, reward, self.initial, self.horizon)
