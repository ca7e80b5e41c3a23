r"""Finite data: counts of comparisons, what they estimate, and whether the Bradley-Terry fit of them is finite.

``wins[i, j]`` is how often i was preferred to j. The fits of the data are those of the shares
``wins/(wins + wins^T)`` with frequencies ``wins + wins^T``.
The Bradley-Terry fit (DPO, χ²-PO, SimPO) is finite exactly where the wins connect all responses both ways; where
every pair is compared ``m_ij`` times,

.. math:: P(\text{finite}) = \sum_G \prod_{ij} P(G_{ij}) \; 1[G \text{ strongly connected}], \qquad
          P(i \text{ only}) = P_{ij}^{m_{ij}}, \quad P(j \text{ only}) = P_{ji}^{m_{ij}},

over the three things that may happen to each pair: one wins every time, the other does, or both win.

Source: existence: Hunter (2004), Annals of Statistics 32; the probability: derived here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.preferences.matrices import checked_preference

__all__ = ["Comparisons", "finite_fit_probability", "sample_wins"]

_PAIRS = 11  # 3^11 graphs


@dataclass(frozen=True)
class Comparisons:
    """Counts of comparisons, ``wins (A, A)``: how often i was preferred to j; halves are ties.

    Raises:
        ValueError: no square matrix of finite numbers ``>= 0`` with a diagonal of 0.
    """

    wins: np.ndarray

    def __post_init__(self) -> None:
        (given,) = _validate.numpy_arrays(wins=self.wins)
        wins = _validate.finite("wins", np, given).astype(np.float64)
        if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or not wins.size:
            _validate.fail("wins", f"must be a matrix (A, A), got shape {wins.shape}")
        if np.any(wins < 0) or np.any(np.diag(wins) != 0) or wins.max() > 1e100:
            _validate.fail("wins", "must be counts in [0, 1e100], 0 on the diagonal")
        object.__setattr__(self, "wins", wins)

    @property
    def weights(self) -> np.ndarray:
        """How often each pair was compared, ``(A, A)``."""
        return np.asarray(self.wins + self.wins.T)

    @property
    def preference(self) -> np.ndarray:
        """Shares of wins, a half where nothing was compared, ``(A, A)``."""
        total = self.weights
        share = np.triu(np.where(total > 0, self.wins / np.where(total > 0, total, 1.0), 0.5), 1)
        return share + np.tril(1 - share.T, -1) + 0.5 * np.eye(len(share))


def _times(comparisons: Any, size: int) -> np.ndarray:
    (given,) = _validate.numpy_arrays(comparisons=comparisons)
    _validate.finite("comparisons", np, given)
    if given.ndim == 0:
        given = np.broadcast_to(given, (size, size))
    if given.shape != (size, size) or np.any(given != given.T) or np.any(given != np.floor(given)):
        _validate.fail("comparisons", f"must be a number or a symmetric matrix ({size}, {size}) of whole numbers")
    if np.any(given < 0) or np.any(given > 1e9):
        _validate.fail("comparisons", "must lie in [0, 1e9]")
    times = given.astype(np.int64) * (1 - np.eye(size, dtype=np.int64))
    return np.asarray(times)


def sample_wins(preference: Any, comparisons: Any, rng: np.random.Generator | int) -> Comparisons:
    """Labels of independent comparisons.

    Args:
        preference: ``(A, A)``. comparisons: how often each pair is compared, a number or symmetric ``(A, A)``.
        rng: a generator or a seed.

    Raises:
        ValueError: no preference matrix; comparisons that are no whole numbers in [0, 1e9].
    """
    p = checked_preference(preference)
    times, rng = _times(comparisons, len(p)), _validate.generator(rng)
    upper = np.triu(rng.binomial(times, p), 1)
    return Comparisons((upper + np.tril((times - upper.T), -1)).astype(np.float64))


def finite_fit_probability(preference: Any, comparisons: Any) -> float:
    """The chance that the Bradley-Terry fit of such a sample is finite and unique.

    Args:
        preference: ``(A, A)``. comparisons: as `sample_wins`.

    Raises:
        ValueError: as `sample_wins`; more than 11 pairs that are compared.
    """
    p = checked_preference(preference)
    times = _times(comparisons, len(p))
    pairs = [(i, j) for i, j in itertools.combinations(range(len(p)), 2) if times[i, j]]
    if len(pairs) > _PAIRS:
        _validate.fail("comparisons", f"must be of at most {_PAIRS} pairs, got {len(pairs)}")
    states = np.array(list(itertools.product(range(3), repeat=len(pairs)))).reshape(3 ** len(pairs), len(pairs))
    chance = np.ones(len(states))
    reach = np.broadcast_to(np.eye(len(p), dtype=np.int64), (len(states), len(p), len(p))).copy()
    for k, (i, j) in enumerate(pairs):
        first, second = p[i, j] ** times[i, j], p[j, i] ** times[i, j]
        chance *= np.array([first, second, max(1 - first - second, 0.0)])[states[:, k]]
        reach[:, i, j], reach[:, j, i] = states[:, k] != 1, states[:, k] != 0
    for _ in range(len(p).bit_length()):
        reach = np.minimum(reach @ reach, 1)
    return float(min(chance[reach.all(axis=(1, 2))].sum(), 1.0))
