r"""Mixtures of strings with a latent a chunk, fitted by EM, against models with a bounded context; success by latents.

A chunk of ``tau`` tokens is drawn by a latent z that persists through it (`ChunkMixture`): ``p(x) = sum_z w_z prod_t
pi(x_t|t, z)``. `fit_chunk_mixture` alternates the posterior of z (E) with weighted next-token prediction (M): ``sum log
p + a (sum log w + sum log pi)`` never falls. `fit_contexts` is plain next-token prediction, by counts.

`success_ascent`: exact policy gradient on the chance to produce one target, ``J = prod_c sum_z w_{c,z} L_{c,z}``, with
``w_c`` a softmax a chunk and ``L`` a frozen decoder's likelihoods; tokens are chunks of length 1, ``L = 1[target]``.

Source: ``ra3`` C7-C8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize

__all__ = ["Ascent", "ChunkMixture", "fit_chunk_mixture", "fit_contexts", "merging_cost", "success_ascent"]


@dataclass(frozen=True)
class ChunkMixture:
    """Attributes: log_weight: ``log w``, ``(..., K)``. log_emission: ``log pi(a|phase, z)``, ``(..., K, tau, A)``."""

    log_weight: np.ndarray
    log_emission: np.ndarray

    def __post_init__(self) -> None:
        weight, emission = _validate.numpy_arrays(log_weight=self.log_weight, log_emission=self.log_emission)
        _validate.log_probs("log_weight", np, weight)
        _validate.log_probs("log_emission", np, emission)
        if emission.ndim < 3 or emission.shape[:-2] != weight.shape:
            _validate.fail("log_emission", f"must have shape (..., K, tau, A) beside log_weight {weight.shape}, "
                           f"got {emission.shape}")  # fmt: skip
        object.__setattr__(self, "log_weight", weight)
        object.__setattr__(self, "log_emission", emission)

    def likelihoods(self, strings: Any) -> np.ndarray:
        """``log prod_phase pi(x_phase|phase, z)`` of integer ``strings (N, tau)``, ``(..., N, K)``."""
        phases, tokens = self.log_emission.shape[-2:]
        rows = _validate.integers("strings", strings, low=0, high=tokens - 1)
        if rows.ndim != 2 or rows.shape[1] != phases:
            _validate.fail("strings", f"must have shape (N, {phases}), got {rows.shape}")
        picked = self.log_emission[..., np.arange(phases), rows]
        return np.asarray(np.moveaxis(picked.sum(axis=-1), -1, -2))

    def log_prob(self, strings: Any) -> np.ndarray:
        """``log p`` of ``strings (N, tau)``, ``(..., N)``."""
        return _log_sum(self.log_weight[..., None, :] + self.likelihoods(strings))


def _log_sum(x: np.ndarray) -> np.ndarray:
    """Log-sum-exp over the last axis; ``-inf`` where all entries are."""
    top = np.max(x, axis=-1, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.sum(np.exp(x - top), axis=-1)) + top[..., 0])


def fit_chunk_mixture(
    strings: Any, counts: Any, start: ChunkMixture, *, smoothing: float = 0.01, iterations: int = 60
) -> tuple[ChunkMixture, np.ndarray]:
    """EM from ``start``: the last mixture, and the penalised value before every iteration and at the end.

    The value, ``(iterations + 1, ...)``, is ``sum counts log p + smoothing (sum log pi + sum log w)``; it never falls.

    Args:
        strings: distinct chunks, integers ``(N, tau)``. counts: how often each occurs, ``(..., N)``, the batch of
            ``start`` or broadcast against it. smoothing: > 0, added to all counts.
    """
    _validate.instance("start", start, ChunkMixture)
    (counts,) = _validate.numpy_arrays(counts=counts)
    _validate.budgets("counts", np, _validate.finite("counts", np, counts))
    rows = _validate.integers("strings", strings, low=0)
    smoothing = _validate.real("smoothing", smoothing, low=0.0, open_low=True, high=np.finfo(float).max)
    iterations = _validate.integer("iterations", iterations, low=0)
    if rows.ndim != 2 or counts.ndim == 0 or counts.shape[-1] != len(rows):
        _validate.fail("counts", f"needs one number a string, got {counts.shape} for strings {rows.shape}")
    tokens, mixture, values = start.log_emission.shape[-1], start, []
    marks = (rows[..., None] == np.arange(tokens)).reshape(len(rows), -1).astype(float)
    for step in range(iterations + 1):
        joint = mixture.log_weight[..., None, :] + mixture.likelihoods(rows)
        total = _log_sum(joint)
        if np.any(np.isneginf(total) & (counts > 0)):
            _validate.fail("start", "rules out a string that occurs")
        prior = mixture.log_weight.sum(axis=-1) + mixture.log_emission.sum(axis=(-3, -2, -1))
        values.append(np.sum(counts * total, axis=-1) + smoothing * prior)
        if step == iterations:
            break
        shares = counts[..., None] * np.exp(joint - total[..., None])
        used = np.swapaxes(shares, -1, -2) @ marks
        emission = used.reshape(start.log_emission.shape) + smoothing
        weight = shares.sum(axis=-2) + smoothing
        mixture = ChunkMixture(log_normalize(np.log(weight)), log_normalize(np.log(emission)))
    return mixture, np.array(values)


def fit_contexts(contexts: Any, tokens: Any, shape: tuple[int, int], *, smoothing: float = 0.01) -> np.ndarray:
    """Next-token prediction by counts: ``log[(n(context, a) + smoothing)/(n(context) + A smoothing)]``, ``shape``.

    Args:
        contexts, tokens: integers of one shape. shape: ``(number of contexts, A)``. smoothing: > 0.
    """
    ends = _validate.sequence("shape", shape)
    if len(ends) != 2:
        _validate.fail("shape", f"must be (number of contexts, A), got {len(ends)} numbers")
    size, vocab = (_validate.integer("shape", n, low=1) for n in ends)
    _validate.fits("shape", size, size * vocab, each=24)
    contexts = _validate.integers("contexts", contexts, low=0, high=size - 1)
    tokens = _validate.integers("tokens", tokens, low=0, high=vocab - 1)
    smoothing = _validate.real("smoothing", smoothing, low=0.0, open_low=True, high=np.finfo(float).max)
    if contexts.shape != tokens.shape:
        _validate.fail("tokens", f"must have the shape of contexts, {contexts.shape}, got {tokens.shape}")
    counts = np.bincount((contexts * vocab + tokens).ravel(), minlength=size * vocab).reshape(size, vocab)
    return np.asarray(log_normalize(np.log(counts + smoothing)))


def merging_cost(share: float, distance: int) -> float:
    """Log-likelihood lost a chunk when one latent serves two strings: ``(d - 1) H(share)``, nats.

    They differ in ``distance`` d >= 1 positions and occur with ``share : 1 - share``: d bits are predicted apart where
    one decides all. 0 for d = 1: the likelihood does not tell such strings' latents apart. ``log 2`` a position beyond
    the first at equal shares.
    """
    share, distance = _validate.probability("share", share), _validate.integer("distance", distance, low=1)
    split = np.array([share, 1 - share])
    return float(-(distance - 1) * np.sum(split * np.log(np.where(split > 0, split, 1.0))))


@dataclass(frozen=True)
class Ascent:
    """Attributes: steps: to the threshold ``(...)``, ``limit`` where it was not reached. success: J at every step until
    all are there, ``(steps + 1, ...)``; it stays where it stopped."""

    steps: np.ndarray
    success: np.ndarray


def success_ascent(
    log_weight: Any, likelihood: Any, *, rate: float = 0.5, threshold: float = 0.9, limit: int = 20_000
) -> Ascent:
    """Plain gradient ascent on ``J = prod_c sum_z softmax(logits_c)_z L_{c,z}`` (J itself, not its log).

    ``dJ/dlogits_{c,z} = J w_{c,z} (L_{c,z} - l_c)/l_c`` with ``l_c = sum_z w_{c,z} L_{c,z}``. Every problem
    stops at the first step with J at or above the threshold.

    Args:
        log_weight: first logits, ``(..., C, K)``. likelihood: ``L`` in [0, 1], ``(..., C, K)``.
        rate: > 0. threshold: in [0, 1]. limit: of steps.

    Raises:
        ValueError: a chunk that no latent with weight can produce.
    """
    log_weight, likelihood = _validate.numpy_arrays(log_weight=log_weight, likelihood=likelihood)
    _validate.log_probs("log_weight", np, log_weight)
    _validate.unit_interval("likelihood", np, likelihood)
    rate = _validate.real("rate", rate, low=0.0, open_low=True, high=np.finfo(float).max)
    threshold, limit = _validate.probability("threshold", threshold), _validate.integer("limit", limit, low=0)
    shape = np.broadcast_shapes(log_weight.shape, likelihood.shape)
    if len(shape) < 2 or 0 in shape:
        _validate.fail("log_weight", f"must have shape (..., C, K), got {log_weight.shape}")
    logits, likelihood = (np.broadcast_to(x, shape).reshape(-1, *shape[-2:]) for x in (log_weight, likelihood))
    if not np.all(np.sum(np.exp(logits) * likelihood, axis=-1) > 0):
        _validate.fail("likelihood", "has a chunk that no latent can produce")
    steps, path = _ascend(logits, likelihood, rate, threshold, limit)
    batch = shape[:-2]
    return Ascent(steps.reshape(batch), path.reshape(len(path), *batch))


def _ascend(
    logits: np.ndarray, likelihood: np.ndarray, rate: float, threshold: float, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Steps ``(B,)`` and J ``(steps + 1, B)`` of flat problems ``(B, C, K)``; those that are done leave the batch."""
    steps, path = np.full(len(logits), limit), []
    going, now = np.arange(len(logits)), np.zeros(len(logits))
    for step in range(limit + 1):
        weight = np.exp(logits)
        weight /= weight.sum(axis=-1, keepdims=True)
        hits = weight * likelihood
        reached = hits.sum(axis=-1, keepdims=True)
        success = reached.prod(axis=1)
        now[going] = success[:, 0]
        path.append(now.copy())
        done = success[:, 0] >= threshold
        if done.any():
            steps[going[done]] = step
            going, logits, likelihood = going[~done], logits[~done], likelihood[~done]
            hits, weight, reached, success = hits[~done], weight[~done], reached[~done], success[~done]
        if not going.size or step == limit:
            break
        logits = logits + rate * success[..., None] * (hits / reached - weight)
    return steps, np.array(path)
