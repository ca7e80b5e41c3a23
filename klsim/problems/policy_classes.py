"""Finite classes of deterministic policies: integers ``(N, H, S)``, the action of a policy at a layer in a state.

Agnostic learning competes with the best policy of such a class, whatever the problem is.

Source: ``agnostic-rl`` (Jia et al. 2023; Li 2025).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from klsim import _validate

__all__ = ["all_policies", "l_tons", "open_loop_policies"]


def check_policies(
    policies: Any, *, actions: int | None = None, shape: tuple[int, int] | None = None, name: str = "policies"
) -> np.ndarray:
    """A class of policies as int64 ``(N, H, S)``, none of the sizes 0.

    Args:
        actions: their number A; entries lie in [0, A). shape: the ``(H, S)`` that is wanted. name: of the argument.

    Raises:
        TypeError: not integers. ValueError: a wrong shape, an unknown action.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: must be a string, got {type(name).__name__}")
    high = None if actions is None else _validate.integer("actions", actions, low=1) - 1
    wanted = None if shape is None else tuple(_validate.integers("shape", shape, low=1).tolist())
    if wanted is not None and len(wanted) != 2:
        _validate.fail("shape", f"must be (H, S), got {wanted}")
    table = _validate.integers(name, policies, low=0, high=high)
    if table.ndim != 3 or 0 in table.shape or (wanted is not None and table.shape[1:] != wanted):
        layers, states = wanted or ("H", "S")
        _validate.fail(name, f"must have shape (N, {layers}, {states}), none of them 0, got {table.shape}")
    return table


def all_policies(horizon: int, states: int, actions: int) -> np.ndarray:
    """All ``A^(H S)`` policies."""
    horizon, states = _validate.integer("horizon", horizon, low=1), _validate.integer("states", states, low=1)
    actions = _validate.integer("actions", actions, low=1)
    cells = horizon * states
    count = _validate.outcomes("actions", actions, "states", cells, each=8 * cells)
    codes = np.arange(count)[:, None] // actions ** np.arange(cells - 1, -1, -1) % actions
    return codes.reshape(count, horizon, states)


def open_loop_policies(horizon: int, states: int, actions: int) -> np.ndarray:
    """The ``A^H`` policies that play a fixed sequence of actions, whatever the states."""
    states, sequences = _validate.integer("states", states, low=1), all_policies(horizon, 1, actions)
    _validate.fits("states", states, sequences.size * states)
    return np.repeat(sequences, states, axis=2)


def l_tons(horizon: int, states: int, ones: int = 1) -> np.ndarray:
    """The ``binom(S, l)`` policies that play 1 on l states, the same in every layer, and 0 on the others.

    ``ones = 1`` is the class of singletons: policy i plays 1 on state i.

    Raises:
        ValueError: more ones than states, sizes below 1.
    """
    horizon, states = _validate.integer("horizon", horizon, low=1), _validate.integer("states", states, low=1)
    ones = _validate.integer("ones", ones, low=0, high=states)
    log_count = math.lgamma(states + 1) - math.lgamma(ones + 1) - math.lgamma(states - ones + 1)
    _validate.fits("ones", ones, math.exp(min(log_count, 700.0)) * horizon * states)
    count = math.comb(states, ones)
    chosen = np.fromiter(itertools.chain.from_iterable(itertools.combinations(range(states), ones)), np.int64)
    marks = np.zeros((count, states), dtype=np.int64)
    np.put_along_axis(marks, chosen.reshape(count, ones), 1, axis=1)
    return np.repeat(marks[:, None], horizon, axis=1)
