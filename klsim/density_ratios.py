r"""Clipped density ratios: change of measure when the data cover the target only partly.

For a target law ``d``, a base ``mu`` (where data come from) and a level ``c``, with ``w = min(d/mu, c)`` (0 where
``mu = 0``: no data),

.. math:: E_d[g] = E_\mu[g\,w] + \sum_x g\,(d - c\mu)^+ \le E_\mu[g\,w] + P_d[d/\mu > c], \qquad |g| \le 1.

Clipping costs little online. Let ``d^1 … d^T`` have coverability C (``d^t <= C mu*`` for some unknown law ``mu*``) and
``u_t = d^t / sum_{i<t} d^i``. For every ``gamma > 0``

.. math:: \sum_t P_{d^t}[u_t > \gamma] \le 2C\Big(1 + \frac{\log T}{\gamma}\Big), \qquad
          \sum_{t \ge 2} \sum_x \Big(\sum_{i<t} d^i\Big) \min(u_t, \gamma)^2 \le 2C(\log T + \gamma).

All functions take laws on the last axis ``(..., n)``; a ratio is infinite where only the base is 0. The normalised
ratio ``d^t/dbar^t`` clipped at ``gamma t`` is ``u_t`` at the level ``gamma t/(t-1)``, times ``t - 1``.

Source: ``glow`` C2, C3, C7 (Amortila et al. 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate

__all__ = [
    "TruncationSums",
    "clipped_concentrability",
    "clipped_ratio",
    "clipping_bias",
    "clipping_loss",
    "density_ratio",
    "truncation_bounds",
    "truncation_sums",
]


def _masses(**named: Any) -> list[np.ndarray]:
    """Finite non-negative arrays with a common last axis; leading axes broadcast."""
    arrays = _validate.numpy_arrays(**named)
    for name, x in zip(named, arrays):
        if x.ndim == 0 or x.shape[-1] == 0:
            _validate.fail(name, f"needs a non-empty last axis of outcomes, got shape {x.shape}")
        index = _validate.first_true(np, ~(np.isfinite(x) & (x >= 0)))
        if index is not None:
            _validate.fail(name, "must be finite and >= 0", float(x[index]), index)
    _validate.same_last_axis(**dict(zip(named, arrays)))
    return list(arrays)


def _levels(level: Any, leading: tuple[int, ...]) -> np.ndarray:
    """Clipping levels > 0 (``inf``: no clipping) for laws with these leading axes, with an axis for the outcomes."""
    (levels,) = _validate.numpy_arrays(level=level)
    index = _validate.first_true(np, ~(levels > 0))
    if index is not None:
        _validate.fail("level", "must be > 0", float(levels[index]), index)
    if levels.ndim > len(leading) or levels.shape != leading[len(leading) - levels.ndim :]:
        _validate.fail("level", f"must be a number or have the leading axes {leading} of the laws, got {levels.shape}")
    return levels[..., None]


def _ratio(law: np.ndarray, base: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.asarray(np.where(law > 0, law / base, 0.0))


@dataclass(frozen=True)
class _Clipping:
    """A law, its base and their ratio, all ``(..., n)``, with the levels ``(..., 1)``; checked once."""

    law: np.ndarray
    base: np.ndarray
    ratio: np.ndarray
    level: np.ndarray

    @classmethod
    def of(cls, law: Any, base: Any, level: Any) -> _Clipping:
        law, base = np.broadcast_arrays(*_masses(law=law, base=base))
        return cls(law, base, _ratio(law, base), _levels(level, law.shape[:-1]))

    def weights(self) -> np.ndarray:
        return np.asarray(np.where(self.base > 0, np.minimum(self.ratio, self.level), 0.0))

    def loss(self) -> np.ndarray:
        return np.asarray(np.sum(np.where(self.ratio > self.level, self.law, 0.0), axis=-1))

    def concentrability(self) -> np.ndarray:
        clipped = np.where(self.law > 0, np.minimum(self.ratio, self.level), 0.0)
        return np.asarray(np.sum(self.law * clipped, axis=-1))


def density_ratio(law: Any, base: Any) -> np.ndarray:
    """``law / base``, ``(..., n)``: ``inf`` where only the base is 0, 0 where both are.

    Args:
        law, base: masses ``(..., n)``, finite and >= 0, not necessarily normalised.

    Raises:
        ValueError: negative or infinite masses, shapes that do not fit.
    """
    law, base = np.broadcast_arrays(*_masses(law=law, base=base))
    return _ratio(law, base)


def clipped_ratio(law: Any, base: Any, level: Any) -> np.ndarray:
    """``min(law / base, level)``, and 0 where the base is 0, ``(..., n)``: the weights that data can use.

    Args:
        level: > 0, a number or one a law ``(...)``; ``inf`` does not clip.

    Raises:
        ValueError: as `density_ratio`; a level that is not positive.
    """
    return _Clipping.of(law, base, level).weights()


def clipping_loss(law: Any, base: Any, level: Any) -> np.ndarray:
    """``P_law[law / base > level]``, ``(...)``: the mass on clipped outcomes, those without base among them.

    Raises:
        ValueError: as `clipped_ratio`.
    """
    return _Clipping.of(law, base, level).loss()


def clipping_bias(law: Any, base: Any, level: Any, values: Any) -> np.ndarray:
    """``sum_x values (law - level base)^+``, ``(...)``: what ``E_base[values w]`` misses of ``E_law[values]``.

    Args:
        values: ``(..., n)``, finite.

    Raises:
        ValueError: as `clipped_ratio`; values that are not finite.
    """
    law, base = np.broadcast_arrays(*_masses(law=law, base=base))
    (values,) = _validate.numpy_arrays(values=values)
    _validate.finite("values", np, values)
    _validate.same_last_axis(values=values, law=law)
    levels = _levels(level, law.shape[:-1])
    with np.errstate(invalid="ignore", over="ignore"):
        missing = np.where(base > 0, np.maximum(law - levels * base, 0.0), law)
    return np.asarray((values * missing).sum(axis=-1))


def clipped_concentrability(law: Any, base: Any, level: Any) -> np.ndarray:
    r"""``CC = E_law[min(law / base, level)]``, ``(...)``, with the ratio infinite where only the base is 0.

    ``E_base[w^2] <= CC <= min(level, ||law/base||_inf)``. Against the mixture of a law ``nu`` with anything else, half
    and half, it is at most ``2 ||law/nu||_inf``.

    Raises:
        ValueError: as `clipped_ratio`.
    """
    return _Clipping.of(law, base, level).concentrability()


@dataclass(frozen=True)
class TruncationSums:
    """What truncation loses and keeps, a term a round, ``(..., T)``; sums over rounds are bounded by the coverability.

    Attributes:
        lost: ``P_{d^t}[u_t > level]``. second_moment: ``sum_x dtilde^t min(u_t, level)^2``, outcomes without a past
            counting 0. concentrability: ``E_{d^t}[min(u_t, level)]``, which is at least that.
        past: ``dtilde^t = sum_{i<t} d^i``, ``(..., T, n)``.
    """

    lost: np.ndarray
    second_moment: np.ndarray
    concentrability: np.ndarray
    past: np.ndarray


def truncation_sums(laws: Any, level: Any) -> TruncationSums:
    """Terms of the truncation lemma for a sequence of laws ``(..., T, n)``.

    Args:
        level: > 0, at which ``u_t = d^t / dtilde^t`` is cut: a number, or one a round ``(T,)``.

    Raises:
        ValueError: as `clipped_ratio`; no axis of rounds.
    """
    (laws,) = _masses(laws=laws)
    if laws.ndim < 2:
        _validate.fail("laws", f"must have shape (..., T, n), got {laws.shape}")
    past = np.concatenate([np.zeros_like(laws[..., :1, :]), np.cumsum(laws, axis=-2)[..., :-1, :]], axis=-2)
    clipping = _Clipping.of(laws, past, level)
    second = np.sum(past * clipping.weights() ** 2, axis=-1)
    return TruncationSums(clipping.loss(), second, clipping.concentrability(), past)


def truncation_bounds(coverability: float, rounds: Any, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """``2C(1 + log(T)/gamma)`` and ``2C(log T + gamma)``: bounds on the sums of ``lost`` and of the other two.

    Args:
        coverability: C >= 1 (to rounding: from 1 - 1e-8). rounds: T >= 1, an integer or an array of them.
        gamma: the level, > 0.

    Raises:
        ValueError: out of range.
    """
    covering = max(_validate.real("coverability", coverability, low=1 - 1e-8, high=1e100), 1.0)
    gamma = _validate.real("gamma", gamma, low=0.0, high=1e100, open_low=True)
    log_rounds = np.log(_validate.integers("rounds", rounds, low=1))
    if not math.isfinite(float(np.max(log_rounds)) * covering / gamma):
        _validate.fail("gamma", "is too small: the bound overflows", gamma)
    return 2 * covering * (1 + log_rounds / gamma), 2 * covering * (log_rounds + gamma)
