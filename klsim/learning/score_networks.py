r"""Scores of noised data: Gaussian mixtures (exact), kernel densities of finite data, and networks that learn them.

Data with density ``p`` seen through Gaussian noise have ``p_sigma = p * N(0, sigma^2 I)`` and the score
``s_sigma = grad log p_sigma``. Denoising score matching needs no density:

.. math:: \arg\min_g\ E\,\|g(x+\sigma\epsilon)+\epsilon/\sigma\|^2 = s_\sigma, \qquad
          E[x\,|\,\tilde x] = \tilde x + \sigma^2 s_\sigma(\tilde x) \quad\text{(Tweedie)}.

For a mixture of Gaussians of one width, noise adds to the width, so that everything is exact; a finite data set is the
mixture of width 0 (`kernel_density` is that mixture after the noise). `train_score_network` minimises the loss over
noise levels with a network of `klsim.learning.networks`, one copy a data set.

Sources: Vincent (2011), A connection between score matching and denoising autoencoders; Robbins (1956) for Tweedie's
formula; ``cdsa`` C1, C6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from klsim import _validate
from klsim.learning.networks import Linear, Network, Tanh
from klsim.learning.softmax_step import Adam

__all__ = [
    "GaussianMixture",
    "ScoreNetwork",
    "denoise",
    "denoising_loss",
    "kernel_density",
    "merging_noise",
    "pair_mode",
    "train_score_network",
]

_ROWS = 256  # points at a time: their distances to some hundred means stay in the cache
_TOGETHER = 50_000  # distances of several mixtures at a time, for the same reason
_SEEN = 1e-200  # a density (without its constant) up to which exponentials need no shift
_WELL = 1e6  # (distance / width)^2 up to which squares of distances may be expanded: the log weights lose 1e-10
_WIDTH = 1e-100, 1e100


def _points(name: str, value: Any) -> np.ndarray:
    """``(..., count, n)`` of finite float64 with n >= 1."""
    (array,) = _validate.numpy_arrays(**{name: value})
    if array.ndim < 2 or not array.shape[-1]:
        _validate.fail(name, f"must have shape (..., points, dimensions) with a dimension, got {array.shape}")
    return _validate.finite(name, np, array).astype(np.float64, copy=False)


@dataclass(frozen=True)
class GaussianMixture:
    """``p(x) = sum_k w_k N(x; m_k, std^2 I)``; leading axes are independent mixtures (seeds).

    Attributes:
        means: ``(..., k, n)``.
        log_weights: ``(..., k)``, natural logarithms of the weights.
        std: common standard deviation of every component and coordinate, in [1e-100, 1e100].

    Raises:
        ValueError: no component, weights that do not sum to 1, leading axes that differ, ``std`` out of range.
    """

    means: np.ndarray
    log_weights: np.ndarray
    std: float

    def __post_init__(self) -> None:
        means = _points("means", self.means)
        (log_weights,) = _validate.numpy_arrays(log_weights=self.log_weights)
        _validate.log_probs("log_weights", np, log_weights)
        if log_weights.shape != means.shape[:-1]:
            _validate.fail("log_weights", f"must have shape {means.shape[:-1]}, got {log_weights.shape}")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "log_weights", log_weights.astype(np.float64, copy=False))
        object.__setattr__(self, "std", _validate.real("std", self.std, low=_WIDTH[0], high=_WIDTH[1]))

    def noised(self, sigma: float) -> GaussianMixture:
        """The law of ``x + sigma eps``: the same means with ``sqrt(std^2 + sigma^2)``; ``sigma`` in [0, 1e100]."""
        sigma = _validate.real("sigma", sigma, low=0.0, high=_WIDTH[1])
        return replace(self, std=min(float(np.hypot(self.std, sigma)), _WIDTH[1]))

    def _located(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``x``, means and log weights with common leading axes."""
        x = _points("x", x)
        if x.shape[-1] != self.means.shape[-1]:
            _validate.fail("x", f"must have {self.means.shape[-1]} coordinates on the last axis, got shape {x.shape}")
        lead = _leading("x", x, self.means)
        return tuple(np.broadcast_to(a, lead + a.shape[a.ndim - keep :])
                     for a, keep in ((x, 2), (self.means, 2), (self.log_weights, 1)))  # type: ignore[return-value]  # fmt: skip

    def average(self, values: Any, x: Any) -> np.ndarray:
        """``E[values_K | x] = sum_k P(K = k | x) values_k``, K the component.

        With a `kernel_density` this is kernel regression of values at the points (Nadaraya and Watson).

        Args:
            values: ``(..., k, d)``; leading axes broadcast. x: ``(..., points, n)``.

        Returns:
            ``(..., points, d)``.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, points too far to tell components apart.
        """
        x, _, log_weights = self._located(x)
        values = _points("values", values)
        if values.shape[-2] != self.means.shape[-2]:
            _validate.fail("values", f"needs one row a component ({self.means.shape[-2]}), got shape {values.shape}")
        lead, near = _leading("values", values, x), self._near
        terms = np.concatenate([values, np.ones_like(values[..., :1])], axis=-1)
        arrays = (x, self._centre, self._factors, terms)
        x, centre, factors, terms = (np.broadcast_to(a, lead + a.shape[-2:]) for a in arrays)
        log_weights = np.broadcast_to(log_weights, lead + log_weights.shape[-1:])
        out = np.empty((*lead, x.shape[-2], values.shape[-1]))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for at in _blocks(lead, x.shape[-2] * factors.shape[-1]):
                for first in range(0, x.shape[-2], _ROWS):
                    rows = (..., slice(first, first + _ROWS), slice(None))
                    scaled = (x[at][rows] - centre[at]) / self.std
                    sums = _expanded_sums(scaled, factors[at], terms[at]) if near else None
                    if sums is None:
                        sums = _sums(scaled, factors[at], log_weights[at], terms[at])
                    out[at][rows] = sums[..., :-1] / sums[..., -1:]
        _validate.representable("x", np, out)
        return out

    @cached_property
    def _centre(self) -> np.ndarray:
        """``(..., 1, n)``: where scaled points have their origin."""
        return self.means.mean(axis=-2, keepdims=True)

    @cached_property
    def _factors(self) -> np.ndarray:
        """``(..., n + 2, k)``: the scaled means m, ``log w - |m|^2/2``, and 1."""
        with np.errstate(over="ignore", invalid="ignore"):
            means = (self.means - self._centre) / self.std
            offset = self.log_weights - 0.5 * np.sum(means * means, axis=-1)
        rows = np.swapaxes(means, -1, -2), offset[..., None, :], np.ones_like(offset)[..., None, :]
        return np.ascontiguousarray(np.concatenate(rows, axis=-2))

    @cached_property
    def _near(self) -> bool:
        """Whether the squares of the distances between the means may be expanded."""
        means = self._factors[..., :-2, :]
        return bool(np.max(np.sum(means * means, axis=-2), initial=0.0) <= _WELL)

    def score(self, x: Any) -> np.ndarray:
        """``grad log p(x) = (sum_k P(K = k | x) m_k - x) / std^2``, ``(..., points, n)``.

        Raises:
            ValueError: shapes that do not fit, points so far away that the score overflows.
        """
        x = _points("x", x)
        with np.errstate(over="ignore"):
            found = (self.average(self.means, x) - x) / self.std / self.std
        _validate.representable("x", np, found)
        return found

    def log_density(self, x: Any) -> np.ndarray:
        """``log p(x)``, ``(..., points)``.

        Raises:
            ValueError: shapes that do not fit, points so far away that it overflows.
        """
        x, means, log_weights = self._located(x)
        out, n = np.empty(x.shape[:-1]), x.shape[-1]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for at in np.ndindex(x.shape[:-2]):
                scaled = (x[at][:, None, :] - means[at]) / self.std
                out[at] = logsumexp(log_weights[at] - 0.5 * np.sum(scaled * scaled, axis=-1), axis=-1)
        out -= n * (np.log(self.std) + 0.5 * np.log(2 * np.pi))
        _validate.representable("x", np, out)
        return out

    def sample(self, count: int, rng: np.random.Generator | int) -> np.ndarray:
        """``count`` independent draws of every mixture, ``(..., count, n)``."""
        count, rng = _validate.integer("count", count, low=0), _validate.generator(rng)
        _validate.fits("count", count, float(count) * self.means.size)
        lead, total = self.log_weights.shape[:-1], np.cumsum(np.exp(self.log_weights), axis=-1)
        total = total / total[..., -1:]
        chosen = np.sum(rng.random((*lead, count))[..., None] >= total[..., None, :], axis=-1)
        centres = np.take_along_axis(self.means, chosen[..., None], axis=-2)
        return np.asarray(centres + self.std * rng.standard_normal(centres.shape))


def _leading(name: str, one: np.ndarray, other: np.ndarray) -> tuple[int, ...]:
    """The common leading axes of two arrays of points."""
    try:
        return tuple(np.broadcast_shapes(one.shape[:-2], other.shape[:-2]))
    except ValueError:
        _validate.fail(name, f"leading axes {one.shape[:-2]} must broadcast with {other.shape[:-2]}")
        raise


def _blocks(lead: tuple[int, ...], size: int) -> Iterator[tuple[Any, ...]]:
    """Indices of the leading axes that cover them, as many of the last axis at a time as ``_TOGETHER`` allows."""
    if not lead:
        yield ()
        return
    count = max(1, _TOGETHER // max(size, 1))
    for at in np.ndindex(lead[:-1]):
        for first in range(0, lead[-1], count):
            yield (*at, slice(first, first + count))


def _expanded_sums(x: np.ndarray, factors: np.ndarray, terms: np.ndarray) -> np.ndarray | None:
    """``sum_k w_k exp(-|x - m_k|^2/2) terms_k`` of scaled points and means; None if squares or densities forbid it."""
    squares = np.sum(x * x, axis=-1, keepdims=True)
    if not np.max(squares, initial=0.0) <= _WELL:
        return None
    weights = np.concatenate([x, np.ones_like(squares), -0.5 * squares], axis=-1) @ factors
    sums = np.exp(weights, out=weights) @ terms
    return np.asarray(sums) if np.min(sums[..., -1], initial=1.0) > _SEEN else None


def _sums(x: np.ndarray, factors: np.ndarray, log_weights: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """The same up to a factor a point, wherever the points are."""
    means = np.swapaxes(factors[..., :-2, :], -1, -2)
    apart = x[..., :, None, :] - means[..., None, :, :]
    weights = log_weights[..., None, :] - 0.5 * np.sum(apart * apart, axis=-1)
    weights -= weights.max(axis=-1, keepdims=True)
    return np.asarray(np.exp(weights, out=weights) @ terms)


def kernel_density(points: Any, sigma: float) -> GaussianMixture:
    """The empirical law of ``points (..., count, n)`` noised by ``sigma``: the Gaussian kernel density.

    Its score is the exact minimiser of the denoising loss on a finite data set.

    Raises:
        ValueError: no point, ``sigma`` outside of [1e-100, 1e100].
    """
    points = _points("points", points)
    if not points.shape[-2]:
        _validate.fail("points", "needs at least one point")
    sigma = _validate.real("sigma", sigma, low=_WIDTH[0], high=_WIDTH[1])
    return GaussianMixture(points, np.full(points.shape[:-1], -np.log(points.shape[-2])), sigma)


def denoise(x: Any, score: Any, sigma: float, eta: float = 1.0) -> np.ndarray:
    """``x + eta sigma^2 score``: for the score of data noised by ``sigma`` and ``eta = 1`` Tweedie's ``E[clean | x]``.

    At a kernel density that is one mean-shift step; for ``eta`` in [0, 2] it raises ``log p_sigma`` by at least
    ``eta (1 - eta/2) sigma^2 |score|^2`` (the quadratic bound of the EM algorithm).

    Args:
        x, score: of one shape ``(..., n)``. sigma: in [0, 1e100]. eta: in [-1e100, 1e100].

    Raises:
        ValueError: shapes that differ, values that are not finite, a result that overflows.
    """
    x, score = _validate.numpy_arrays(x=x, score=score)
    if x.shape != score.shape:
        _validate.fail("score", f"must have the shape of x {x.shape}, got {score.shape}")
    for name, value in (("x", x), ("score", score)):
        _validate.finite(name, np, value)
    sigma = _validate.real("sigma", sigma, low=0.0, high=_WIDTH[1])
    eta = _validate.real("eta", eta, low=-_WIDTH[1], high=_WIDTH[1])
    with np.errstate(over="ignore", invalid="ignore"):
        found = x + eta * sigma * sigma * score
    _validate.representable("score", np, found)
    return np.asarray(found)


def denoising_loss(score: Any, noise: Any, sigma: Any) -> tuple[np.ndarray, np.ndarray]:
    """``sigma^2 |g + eps/sigma|^2 = |sigma g + eps|^2`` of every example, and its gradient in ``g``.

    Args:
        score: ``g(x + sigma eps)``, ``(..., n)``. noise: the ``eps`` that was added, of the same shape.
        sigma: noise levels >= 0, a number or an array that broadcasts to ``(...)``.

    Returns:
        ``(...)`` and ``(..., n)``.

    Raises:
        ValueError: shapes that do not fit, negative levels, values that are not finite.
    """
    score, noise, sigma = _validate.numpy_arrays(score=score, noise=noise, sigma=sigma)
    if score.ndim < 1 or score.shape != noise.shape:
        _validate.fail("noise", f"must have the shape (..., n) of score {score.shape}, got {noise.shape}")
    for name, value in (("score", score), ("noise", noise), ("sigma", sigma)):
        _validate.finite(name, np, value)
    _validate.budgets("sigma", np, sigma)
    level = _levels(sigma, score.shape[:-1])[..., None]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rest = level * score + noise
        loss, slope = np.sum(rest * rest, axis=-1), 2 * level * rest
    _validate.representable("score", np, loss, slope)
    return loss, slope


def _levels(sigma: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.broadcast_to(sigma, shape)
    except ValueError:
        _validate.fail("sigma", f"must broadcast to {shape}, got shape {sigma.shape}")
        raise


@dataclass(frozen=True)
class ScoreNetwork:
    """``s(x, sigma) = f(x, log sigma) / sigma``, f a network with ``n + 1`` inputs and ``n`` outputs.

    Attributes:
        network: `klsim.learning.networks.Network`. parameters: its arrays, with leading axes (copies) or without.
    """

    network: Network
    parameters: Sequence[np.ndarray]

    def __post_init__(self) -> None:
        _validate.instance("network", self.network, Network)
        shapes = self.network.shapes
        if not shapes or shapes[0][1] != shapes[-1][0] + 1:
            _validate.fail("network", f"needs one input more than outputs, got parameters of shapes {shapes}")
        object.__setattr__(self, "parameters", tuple(_validate.sequence("parameters", self.parameters)))

    def score(self, x: Any, sigma: Any) -> np.ndarray:
        """``(..., points, n)`` at ``x`` (``(points, n)`` or with the copies' leading axes) and levels ``sigma`` > 0.

        Raises:
            ValueError: shapes that do not fit, levels that are not finite and > 0, an overflow.
        """
        x = _points("x", x)
        (sigma,) = _validate.numpy_arrays(sigma=sigma)
        level = _levels(_validate.positive("sigma", np, sigma), x.shape[:-1])[..., None]
        found, _ = self.network.forward(self.parameters, np.concatenate([x, np.log(level)], axis=-1))
        with np.errstate(over="ignore"):
            found = found / level
        _validate.representable("sigma", np, found)
        return np.asarray(found)


def train_score_network(
    points: Any,
    rng: np.random.Generator | int,
    *,
    low: float,
    high: float,
    steps: int = 1000,
    batch: int = 64,
    width: int = 32,
    lr: float = 0.01,
) -> ScoreNetwork:
    """Denoising score matching on ``points (..., count, n)`` (in units of about 1), a copy for every leading index.

    Every step draws ``batch`` points with replacement, noise, and levels log-uniform in ``[low, high]``, and moves two
    hidden Tanh layers of ``width`` down the mean of `denoising_loss` with Adam, whose rate falls linearly from ``lr``.

    Raises:
        ValueError: no point, ``low > high``, levels outside of [1e-6, 1e6], sizes < 1, ``lr`` outside of [0, 1].
    """
    points, rng = _points("points", points), _validate.generator(rng)
    if not points.shape[-2]:
        _validate.fail("points", "needs at least one point")
    low = _validate.real("low", low, low=1e-6, high=1e6)
    high = _validate.real("high", high, low=low, high=1e6)
    sizes = {"steps": steps, "batch": batch, "width": width}
    steps, batch, width = (_validate.integer(name, value, low=1) for name, value in sizes.items())
    lr = _validate.real("lr", lr, low=0.0, high=1.0)
    lead, (count, n) = points.shape[:-2], points.shape[-2:]
    _validate.fits("width", width, 8.0 * max(math.prod(lead), 1) * width * (width + batch + n))
    network = Network((Linear(n + 1, width), Tanh(), Linear(width, width), Tanh(), Linear(width, n)))
    parameters = network.start(rng, copies=lead)
    flat = np.concatenate([p.reshape(*lead, -1) for p in parameters], axis=-1)  # one step of Adam moves them all
    ends = np.cumsum([math.prod(shape) for shape in network.shapes])
    optimiser = Adam(lr)
    for step in range(steps):
        chosen = np.take_along_axis(points, rng.integers(count, size=(*lead, batch, 1)), axis=-2)
        level = np.exp(rng.uniform(np.log(low), np.log(high), (*lead, batch, 1)))
        noise = rng.standard_normal(chosen.shape)
        seen = np.concatenate([chosen + level * noise, np.log(level)], axis=-1)
        found, tape = network.forward(parameters, seen)
        _, slope = denoising_loss(found / level, noise, level[..., 0])
        gradients, _ = network.backward(parameters, tape, slope / level / batch)
        ascent = -np.concatenate([g.reshape(*lead, -1) for g in gradients], axis=-1)
        flat, optimiser = replace(optimiser, lr=lr * (1 - step / steps)).step(flat, ascent)
        pieces = np.split(flat, ends[:-1], axis=-1)
        parameters = tuple(piece.reshape(*lead, *shape) for piece, shape in zip(pieces, network.shapes))
    return ScoreNetwork(network, parameters)


def pair_mode(variance: float) -> float:
    """The positive mode of ``(N(-1, v) + N(1, v))/2``: the root of ``a = tanh(a/v)``; 0 for ``v >= 1`` (one mode).

    Its score is ``(tanh(a/v) - a)/v``, so every mode of the noised pair lies strictly inside of +-1.

    Raises:
        ValueError: ``variance`` outside of (0, 1e100].
    """
    v = _validate.real("variance", variance, low=0.0, high=_WIDTH[1], open_low=True)
    if v >= 1:
        return 0.0
    if v < 0.02:  # tanh(1/v) is 1 to the last digit
        return 1.0
    if v > 1 - 1e-9:  # the root of the cubic; below, the difference would be rounding
        return float(np.sqrt(3 * (1 - v)))
    low = 0.9 * v * float(np.sqrt(3 * (1 - v)))  # tanh y > y - y^3/3
    return float(brentq(lambda a: np.tanh(a / v) - a, low, 1.0, xtol=1e-15, rtol=1e-14))


def merging_noise(separation: float, std: float) -> float:
    """The noise at which two equal Gaussian modes at ``+-separation`` become one: ``sqrt(separation^2 - std^2)``.

    ``std`` is that of each mode; 0 if they are one from the start. (``p_sigma`` is bimodal iff
    ``std^2 + sigma^2 < separation^2``.)

    Raises:
        ValueError: ``separation`` or ``std`` outside of [0, 1e100].
    """
    separation = _validate.real("separation", separation, low=0.0, high=_WIDTH[1])
    std = _validate.real("std", std, low=0.0, high=_WIDTH[1])
    if std >= separation:
        return 0.0
    return float(np.sqrt((separation - std) * (separation + std)))
