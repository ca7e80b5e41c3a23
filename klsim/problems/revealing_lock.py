r"""Combination locks that show where one stands only to those who stop to ask.

The latent bit is *good* as long as all actions were those of the hidden key; one wrong action and it is *bad* for good.
Ordinary observations are a dummy. The extra action ``reveal`` ends the episode without reward and shows one symbol, of
law ``q_theta`` if good and ``q_{-theta}`` if bad (`klsim.uniformity`); reward 1 waits for the whole key. Any two steps
reveal, a single one does not.

Source: ``revealing-pomdp``, in the spirit of the hard instances of Chen, Wang, Xiong, Mei, Bai (2023).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.pomdp import POMDP
from klsim.uniformity import uneven_law

__all__ = ["hidden_choice", "revealing_lock"]

GOOD, BAD, SHOWN_GOOD, SHOWN_BAD, END = range(5)


def _emission(states: int, law: np.ndarray, opposite: np.ndarray) -> np.ndarray:
    """The last three states of ``states`` show symbols and end; all others, and the end, show the dummy, ``O``."""
    out = np.zeros((states, len(law) + 1))
    out[:, -1] = 1.0
    out[states - 3] = np.append(law, 0.0)
    out[states - 2] = np.append(opposite, 0.0)
    return out


def revealing_lock(key: Any, actions: int, signs: Any, sigma: float) -> POMDP:
    """The lock of a ``key`` of H ordinary actions out of ``actions``; action ``actions`` is reveal.

    States: good, bad, shown good, shown bad, end. Symbols: ``0 … O - 1``, and the dummy ``O``. ``H + 2`` steps: H for
    the key, one for the prize (any ordinary action, if good) or a last reveal, one for its symbol.

    Args:
        signs: theta, ``(O/2,)`` of 1 and -1. sigma: in [0, 1].

    Raises:
        ValueError: key, signs or sigma out of range.
    """
    actions = _validate.integer("actions", actions, low=1)
    key = _validate.integers("key", key, low=0, high=actions - 1)
    if key.ndim != 1 or not key.size:
        _validate.fail("key", f"must be a non-empty vector of actions, got shape {key.shape}")
    law, opposite = uneven_law(signs, sigma), uneven_law(-np.asarray(signs), sigma)
    horizon = key.size + 2
    transition = np.zeros((horizon, 5, actions + 1, 5))
    transition[..., END] = 1.0
    for t, right in enumerate(key):
        transition[t, (GOOD, BAD), :actions] = np.eye(5)[BAD]
        transition[t, GOOD, right] = np.eye(5)[GOOD]
    transition[:-1, GOOD, actions] = np.eye(5)[SHOWN_GOOD]
    transition[:-1, BAD, actions] = np.eye(5)[SHOWN_BAD]
    reward = np.zeros((horizon, 5, actions + 1))
    reward[-2, GOOD, :actions] = 1.0
    return POMDP(transition, _emission(5, law, opposite), reward, np.eye(5)[GOOD], horizon)


def hidden_choice(
    candidates: int, hidden: int, signs: Any, sigma: float, gap: float, *, mirrored: bool = True
) -> POMDP:
    r"""One choice among ``candidates``, each good with probability 1/2 but the ``hidden`` one with ``1/2 + gap``.

    Then action ``candidates``, reveal: its symbol has the law ``q_theta`` with ``2 gap sigma`` for the hidden candidate
    and the uniform law for every other. With ``mirrored = False`` the bad state shows the uniform law. No reward.

    Raises:
        ValueError: ``hidden`` no candidate, ``gap`` outside [0, 1/2], signs, sigma.
    """
    candidates = _validate.integer("candidates", candidates, low=1)
    hidden = _validate.integer("hidden", hidden, low=0, high=candidates - 1)
    gap = _validate.real("gap", gap, low=0.0, high=0.5)
    law = uneven_law(signs, sigma)
    opposite = uneven_law(-np.asarray(signs), sigma) if _validate.flag("mirrored", mirrored) else None
    transition = np.zeros((3, 6, candidates + 1, 6))
    transition[..., 5] = 1.0
    good = np.full(candidates, 0.5)
    good[hidden] += gap
    transition[0, 0, :candidates] = np.stack([0 * good, good, 1 - good, *[0 * good] * 3], axis=1)
    transition[1, 1, candidates], transition[1, 2, candidates] = np.eye(6)[3], np.eye(6)[4]
    emission = _emission(6, law, np.full(law.size, 1 / law.size) if opposite is None else opposite)
    return POMDP(transition, emission, np.zeros((3, 6, candidates + 1)), np.eye(6)[0], 3)
