r"""Chains of latent decisions behind a token sequence: the temporal ELBO as KL-regularised control.

With a prior ``p(z_t|z_{t-1})`` and the tokens' ``log pi(a_t|z_t)`` a chain of ``T`` tokens and ``K`` latents is a
`TabularMDP`: state = previous latent (``K`` is the start), action = next latent, reward = log-likelihood of the token,
reference = prior, ``beta = 1``. Then

* the value of a policy q is ``ELBO(q) = log p(a) - KL(q(z)‖p(z|a))`` (`LatentChain.bound`);
* the soft optimum is the posterior, and its value ``log p(a)`` (`LatentChain.posterior`): soft values are log backward
  messages.

A persistent prior, ``(1 - rho) 1[z = z'] + rho u(z)``, charges ``c = log((1 - rho)/rho)`` for a new latent
(`switching`): ``log p(a) = F(c) + T log(1 - rho)``.

Source: ``ra3`` C4-C6; Levine (2018), control as inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.planning.evaluation import Evaluation, evaluate
from klsim.planning.solution import Solution
from klsim.planning.solve import solve
from klsim.problems import TabularMDP

__all__ = ["LatentChain", "Switching", "persistent_prior", "switching"]


@dataclass(frozen=True)
class LatentChain:
    """``K`` latents behind ``T`` observed tokens.

    Attributes:
        log_prior: ``(K + 1, K)``, or ``(T, K + 1, K)`` where it changes with the step; row = previous latent, the last
            one is the start.
        log_emission: ``log pi(a_t|z)`` of the tokens that were observed, ``(T, K)``, finite.

    Raises:
        ValueError: shapes that do not fit, a prior that is not one, a token that a latent rules out.
    """

    log_prior: np.ndarray
    log_emission: np.ndarray

    def __post_init__(self) -> None:
        prior, emission = _validate.numpy_arrays(log_prior=self.log_prior, log_emission=self.log_emission)
        if emission.ndim != 2 or 0 in emission.shape:
            _validate.fail("log_emission", f"must be tokens by latents (T, K), got shape {emission.shape}")
        _validate.finite("log_emission", np, emission)
        steps, latents = emission.shape
        if prior.shape not in ((latents + 1, latents), (steps, latents + 1, latents)):
            wanted = f"{(latents + 1, latents)} or {(steps, latents + 1, latents)}"
            _validate.fail("log_prior", f"must have shape {wanted}, got {prior.shape}")
        _validate.log_probs("log_prior", np, prior)
        object.__setattr__(self, "log_prior", prior)
        object.__setattr__(self, "log_emission", emission)

    def problem(self) -> TabularMDP:
        """The decision problem: ``K + 1`` states, ``K`` actions, the token's log-likelihood as reward."""
        steps, latents = self.log_emission.shape
        transition = np.broadcast_to(np.eye(latents, latents + 1), (latents + 1, latents, latents + 1))
        reward = np.broadcast_to(self.log_emission[:, None], (steps, latents + 1, latents))
        return TabularMDP(transition, reward, np.eye(latents + 1)[-1], steps)

    def posterior(self) -> Solution:
        """``log q_t(z|z')`` is its ``log_policy (T, K + 1, K)``, log backward messages its ``value (T + 1, K + 1)``."""
        return solve(self.problem(), self.log_prior, 1.0)

    def log_likelihood(self) -> float:
        """``log p(a_{1:T})``: the soft value of the start."""
        return float(self.posterior().value[0, -1])

    def bound(self, log_q: Any) -> Evaluation:
        """The temporal ELBO of ``q (T, K + 1, K)``: ``value = reward - kl``, ``E_q sum_t [log pi - KL(q‖prior)]``."""
        return evaluate(self.problem(), log_q, self.log_prior, 1.0)

    def myopic(self) -> np.ndarray:
        """``q ~ p(z|z') pi(a_t|z)``, the posterior of one step, ``(T, K + 1, K)``."""
        return np.asarray(log_normalize(self.log_prior + self.log_emission[:, None]))


def persistent_prior(log_fresh: Any, rate: float, *, start: int = 0) -> np.ndarray:
    """``log[(1 - rate) 1[z = z'] + rate u(z)]``, ``(K + 1, K)``; the last row is that of the latent ``start``.

    Args:
        log_fresh: ``log u``, the law of a new latent, ``(K,)``. rate: in [0, 1], the chance of a new one.
    """
    fresh, start = _fresh(log_fresh, start)
    rate = _validate.probability("rate", rate)
    rows = (1 - rate) * np.eye(len(fresh)) + rate * np.exp(fresh)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.vstack([rows, rows[start]])))


def _fresh(log_fresh: Any, start: int) -> tuple[np.ndarray, int]:
    (log_fresh,) = _validate.numpy_arrays(log_fresh=log_fresh)
    if log_fresh.ndim != 1:
        _validate.fail("log_fresh", f"must have shape (K,), got {log_fresh.shape}")
    _validate.log_probs("log_fresh", np, log_fresh)
    return log_fresh, _validate.integer("start", start, low=0, high=len(log_fresh) - 1)


@dataclass(frozen=True)
class Switching:
    """Attributes: log_partition: ``F(c)``, nats. new: ``E[number of new latents]`` of the posterior, ``-dF/dc``."""

    log_partition: np.ndarray
    new: np.ndarray


def switching(log_emission: Any, log_fresh: Any, cost: Any, *, start: int = 0) -> Switching:
    r"""``F(c) = log sum_paths exp(sum_t log pi(a_t|z_t) - c #new) prod_new u(z)``, each step keeping its latent or not.

    A new latent may redraw the old one. F falls and is convex in c, and tends to the log-likelihood of keeping
    ``start`` throughout.

    Args:
        log_emission: ``(T, K)``; ``-inf`` rules a token out. log_fresh: ``log u``, ``(K,)``.
        cost: ``c``, nats, scalar or any shape ``(...)``, that of the results. start: the latent before the first token.

    Raises:
        ValueError: a sequence that no path explains.
    """
    emission, cost = _validate.numpy_arrays(log_emission=log_emission, cost=cost)
    fresh, start = _fresh(log_fresh, start)
    if emission.ndim != 2 or emission.shape[0] == 0 or emission.shape[1] != len(fresh):
        _validate.fail("log_emission", f"must have shape (T, {len(fresh)}), got {emission.shape}")
    if np.any(np.isnan(emission) | np.isposinf(emission)):
        _validate.fail("log_emission", "must be log-likelihoods below inf")
    _validate.finite("cost", np, cost)
    value = np.zeros((*cost.shape, len(fresh)))
    new = np.zeros_like(value)
    with np.errstate(invalid="ignore"):
        for row in emission[::-1]:
            keep = row + value
            draw = np.logaddexp.reduce(fresh + keep, axis=-1)[..., None]
            value = np.logaddexp(keep, draw - cost[..., None])
            share = np.where(np.isfinite(draw), np.exp(draw - cost[..., None] - value), 0.0)
            ahead = np.sum(np.where(np.isfinite(draw), np.exp(fresh + keep - draw), 0.0) * new, axis=-1, keepdims=True)
            new = np.where(share > 0, share * (1 + ahead), 0.0) + np.where(share < 1, (1 - share) * new, 0.0)
    if not np.all(np.isfinite(value[..., start])):
        _validate.fail("log_emission", "no path explains the tokens")
    return Switching(value[..., start], new[..., start])
