r"""Partially observed Markov decision processes with a finite horizon, tabular in states, actions and observations.

At step ``t = 0 … H - 1`` the latent state ``s_t`` shows ``o_t ~ E_t(.|s_t)``, an action ``a_t`` is chosen from the
history ``(o_0, a_0, …, o_t)``, the reward ``r_t(s_t, a_t)`` is earned, and ``s_{t+1} ~ P_t(.|s_t, a_t)``.

A *history policy* is a tuple of ``H`` levels; ``levels[t]`` has shape ``(O (A O)**t, A)`` and holds the
log-probabilities of the actions at every history of step ``t``. The history that continues ``h`` by ``a, o`` has the
index ``(h A + a) O + o``. A *memoryless* policy, ``(H, O, A)`` or ``(O, A)``, looks at the last observation alone.

Rewards are not seen unless observations tell them. One that depends on the observation, ``g_t(o, a)``, is its mean
``r_t = E_t g_t``, i.e. ``emission @ g``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from klsim import _validate
from klsim.problems.tabular_mdp import TabularMDP
from klsim.problems.transition_rows import probabilities

__all__ = ["POMDP"]


@dataclass(frozen=True)
class POMDP:
    """``horizon`` decisions in ``S`` latent states with ``A`` actions, of which ``O`` symbols are seen.

    Attributes:
        transition: ``(H, S, A, S)``, or ``(S, A, S)`` for every step; the last step's is never seen.
        emission: ``(H, S, O)``, or ``(S, O)`` for every step: rows are laws of the observation in a state (the matrix
            ``M`` of the literature, one column a state, is its transpose).
        reward: ``(H, S, A)``, or ``(S, A)`` for every step, finite.
        initial: ``(S,)``.
        horizon: number of decisions, and of observations, H >= 1.

    Raises:
        ValueError: shapes that do not fit, rows that are not distributions.
    """

    transition: np.ndarray
    emission: np.ndarray
    reward: np.ndarray
    initial: np.ndarray
    horizon: int

    def __post_init__(self) -> None:
        transition = probabilities("transition", self.transition)
        latent = TabularMDP(transition, self.reward, self.initial, self.horizon)
        emission = probabilities("emission", self.emission)
        steps, states, _ = latent.shape
        if emission.ndim == 2:
            emission = np.broadcast_to(emission, (steps, *emission.shape))
        if emission.ndim != 3 or emission.shape[:2] != (steps, states):
            wanted = f"(H, S, O) = ({steps}, {states}, O) or ({states}, O)"
            _validate.fail("emission", f"must have shape {wanted}, got {np.shape(self.emission)}")
        for name, value in (("transition", latent.transition), ("emission", emission), ("reward", latent.reward),
                            ("initial", latent.initial), ("horizon", steps)):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """``(H, S, A, O)``."""
        return (*self.reward.shape, self.emission.shape[-1])

    @property
    def latent(self) -> TabularMDP:
        """The problem of one who sees the states; its optimum is an upper bound."""
        return TabularMDP(self.transition, self.reward, self.initial, self.horizon)

    def histories(self, step: int) -> int:
        """How many histories there are at a step, ``O (A O)**step``.

        Raises:
            ValueError: no such step, or more than an array can hold.
        """
        horizon, _, actions, symbols = self.sizes
        step = _validate.integer("step", step, low=0, high=horizon - 1)
        before = _validate.outcomes("A O", actions * symbols, "step", step)
        _validate.fits("step", step, symbols * before)
        return symbols * before
