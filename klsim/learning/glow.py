r"""GLOW and HyGLOW: learning with finite classes of Q-functions and clipped density ratios.

GLOW keeps, in round t, the candidates f whose weighted Bellman residuals on all past samples are small,

.. math:: \hat E_h\big[(f_h(s,a) - r - \max_{a'} f_{h+1}(s',a'))\,w_c - \alpha_t w_c^2\big] \le \beta
          \quad\text{for all } h, \ w \in W,

``w_c`` clipped at ``gamma t``, ``alpha_t = alpha/(gamma t)``, and plays the greedy policy of the most optimistic one.
W holds ``± d^pi/dbar`` for the greedy policies of the class, ``dbar`` the average law of the past policies: that the
learner has it is its realisability assumption. HyGLOW plays instead the candidate of least residual on offline and
online samples, half and half, without optimism.

Samples of every round are drawn for all runs at once. Source: ``glow`` C6, C7 (Amortila et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.density_ratios import clipped_ratio
from klsim.learning.online_episodes import Episodes, greedy_episodes
from klsim.problems import TabularMDP

__all__ = ["ClassRun", "glow", "hyglow"]

TIE = 1e-12


@dataclass(frozen=True)
class ClassRun:
    """What was played, and what the data left of the class.

    Attributes:
        chosen: index of the candidate whose greedy policy was played, ``(runs, T)``.
        kept: whether a candidate was in the confidence set, ``(runs, T, N)``; HyGLOW: whether its loss was the least.
    """

    chosen: np.ndarray
    kept: np.ndarray


def glow(
    problem: TabularMDP,
    q_class: Any,
    laws: Any,
    *,
    rounds: int,
    episodes: int,
    gamma: float,
    alpha: float,
    beta: float,
    clip: bool = True,
    optimism: bool = True,
    binary: bool = False,
    runs: int = 1,
    rng: np.random.Generator | int = 0,
) -> ClassRun:
    """Independent runs of GLOW; ties in optimism are broken at random, an empty set repeats the last candidate.

    Args:
        q_class: candidates ``(N, H, S, A)``, played greedily (the first of equal actions).
        laws: ``(N, H, S, A)``: the weights are ratios of these laws to the average law of what was played; with the
            occupancies of the greedy policies W is realisable.
        rounds: T. episodes: K, trajectories a round. gamma: > 0, ratios are clipped at ``gamma t``.
        alpha: >= 0, the penalty is ``alpha/(gamma t)``. beta: >= 0, the width; without data nothing is excluded.
        clip: False leaves the ratios as they are. optimism: False plays the first candidate of the set.
        binary: rewards are drawn as 0 or 1 with the problem's rewards as means.

    Raises:
        ValueError: shapes, ranges, rewards outside [0, 1] if binary.
    """
    learner = _Learner.of(problem, q_class, laws, runs, rng, binary)
    rounds, episodes = _validate.integer("rounds", rounds, low=1), _validate.integer("episodes", episodes, low=1)
    gamma = _validate.real("gamma", gamma, low=0.0, high=1e100, open_low=True)
    alpha, beta = (_validate.real(n, v, low=0.0, high=1e100) for n, v in (("alpha", alpha), ("beta", beta)))
    clip, optimism = _validate.flag("clip", clip), _validate.flag("optimism", optimism)
    worth = learner.best_values[:, 0] @ problem.initial
    order = worth if optimism else -np.arange(len(worth), dtype=float)
    chosen = np.zeros((runs, rounds), dtype=np.int64)
    kept = np.ones((runs, rounds, len(worth)), dtype=bool)
    for t in range(1, rounds + 1):
        if t > 1:
            weights = learner.ratios(learner.past / (t - 1), gamma * t if clip else np.inf)
            residual, penalty = learner.averages(weights, episodes * (t - 1))
            largest = np.max(residual - alpha / (gamma * t) * penalty[..., None], axis=(1, 2))
            kept[:, t - 1] = largest <= beta
        best = learner.pick(np.where(kept[:, t - 1], order, -np.inf))
        empty = ~kept[:, t - 1].any(axis=1)
        chosen[:, t - 1] = np.where(empty, chosen[:, t - 2], best)
        learner.play(chosen[:, t - 1], episodes)
    return ClassRun(chosen, kept)


def hyglow(
    problem: TabularMDP,
    q_class: Any,
    laws: Any,
    offline: Any,
    *,
    rounds: int,
    gamma: float,
    alpha: float,
    binary: bool = False,
    runs: int = 1,
    rng: np.random.Generator | int = 0,
) -> ClassRun:
    r"""Independent runs of HyGLOW: one offline sample a step and one episode a round, no optimism.

    Round t plays the f that minimises ``max_w sum_h |Ehat[(f - r - max f) w_c]| - alpha/(gamma t) Ehat[w_c^2]`` over
    all samples, ``w = d^pi/((nu + dbar)/2)`` clipped at ``gamma t``; ties are broken at random.

    Args:
        offline: nu, the law of offline pairs of every step, ``(H, S, A)``; successors and rewards are the problem's.
        the rest as for `glow`.

    Raises:
        ValueError: as `glow`; an offline step that is not a distribution.
    """
    learner = _Learner.of(problem, q_class, laws, runs, rng, binary)
    rounds = _validate.integer("rounds", rounds, low=1)
    gamma = _validate.real("gamma", gamma, low=0.0, high=1e100, open_low=True)
    alpha = _validate.real("alpha", alpha, low=0.0, high=1e100)
    (nu,) = _validate.numpy_arrays(offline=offline)
    if nu.shape != problem.shape or np.any(nu < 0) or not np.allclose(nu.sum(axis=(1, 2)), 1.0, atol=1e-8):
        _validate.fail("offline", f"must be a distribution over pairs at every step, {problem.shape}, got {nu.shape}")
    chosen = np.zeros((runs, rounds), dtype=np.int64)
    kept = np.ones((runs, rounds, len(learner.values)), dtype=bool)
    for t in range(1, rounds + 1):
        if t > 1:
            mixture = (nu + learner.past / (t - 1)) / 2
            weights = learner.ratios(mixture, gamma * t)
            residual, penalty = learner.averages(weights, 2 * (t - 1))
            loss = np.max((residual - alpha / (gamma * t) * penalty[..., None]).sum(axis=1), axis=1)
            kept[:, t - 1] = loss <= loss.min(axis=1, keepdims=True) + TIE
        chosen[:, t - 1] = learner.pick(np.where(kept[:, t - 1], 0.0, -np.inf))
        learner.play(chosen[:, t - 1], 1)
        learner.draw(nu)
    return ClassRun(chosen, kept)


@dataclass
class _Learner:
    """The samples of all runs, as far as residuals need them, and the laws that they came from.

    ``best_values (N, H, S)``, the maxima over legal actions; ``counts (runs, H, S, A)``; ``residuals
    (runs, H, S, A, N)``, the sums of ``f - r - max f(s')``; ``past``, the sum of the laws of what was played.
    """

    problem: TabularMDP
    values: np.ndarray
    best_values: np.ndarray
    laws: np.ndarray
    greedy: np.ndarray
    rng: np.random.Generator
    binary: bool
    counts: np.ndarray
    residuals: np.ndarray
    past: np.ndarray

    @classmethod
    def of(cls, problem: Any, q_class: Any, laws: Any, runs: Any, rng: Any, binary: Any) -> _Learner:
        _validate.instance("problem", problem, TabularMDP)
        problem = problem.dense()
        runs = _validate.integer("runs", runs, low=1)
        values, given = _validate.numpy_arrays(q_class=q_class, laws=laws)
        for name, x in (("q_class", values), ("laws", given)):
            if x.ndim != 4 or x.shape[1:] != problem.shape or len(x) != len(values) or not len(x):
                wanted = ", ".join(map(str, problem.shape))
                _validate.fail(name, f"must have shape (N, {wanted}), N the same for both, got {x.shape}")
            _validate.finite(name, np, x)
        if np.any(given < 0) or not np.allclose(given.sum(axis=(2, 3)), 1.0, atol=1e-8):
            _validate.fail("laws", "every step must be a distribution over pairs")
        if _validate.flag("binary", binary) and np.any((problem.reward < 0) | (problem.reward > 1)):
            _validate.fail("problem", "binary rewards need means in [0, 1]")
        _validate.fits("runs", runs, float(runs) * values.size)
        assert problem.actions is not None
        legal, shape = np.where(problem.actions, values, -np.inf), (runs, *problem.shape)
        return cls(problem, values, legal.max(axis=-1), given, legal.argmax(axis=-1), _validate.generator(rng),
                   bool(binary), np.zeros(shape), np.zeros((*shape, len(values))), np.zeros(shape))  # fmt: skip

    def pick(self, order: np.ndarray) -> np.ndarray:
        """An index of the largest of ``order (runs, N)``, at random among equal ones."""
        top = order >= order.max(axis=1, keepdims=True) - TIE
        return np.asarray(np.where(top, self.rng.random(order.shape), -1.0).argmax(axis=1))

    def ratios(self, base: np.ndarray, level: float) -> np.ndarray:
        """Weights of every law, ``(runs, H, S A, N)``."""
        runs, horizon = base.shape[:2]
        flat = clipped_ratio(
            self.laws.reshape(1, len(self.laws), horizon, -1), base.reshape(runs, 1, horizon, -1), level
        )
        return np.moveaxis(flat, 1, -1)

    def averages(self, weights: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """``|Ehat[(f - r - max f) w]| (runs, H, W, N)`` and ``Ehat[w^2] (runs, H, W)``."""
        runs, horizon, pairs, count = weights.shape
        residual = np.swapaxes(weights, 2, 3) @ self.residuals.reshape(runs, horizon, pairs, count)
        penalty = np.swapaxes(weights**2, 2, 3) @ self.counts.reshape(runs, horizon, pairs, 1)
        return np.abs(residual) / samples, penalty[..., 0] / samples

    def play(self, chosen: np.ndarray, episodes: int) -> None:
        """Episodes of the greedy policies of the candidates ``chosen (runs,)``."""
        self.add(greedy_episodes(self.problem, self.greedy[chosen], episodes, self.rng, binary=self.binary))
        self.past += self.laws[chosen]

    def draw(self, law: np.ndarray) -> None:
        """One sample of every step in every run, its pair from ``law (H, S, A)``."""
        runs, (horizon, states, actions) = len(self.counts), self.problem.shape
        edges = np.cumsum(law.reshape(horizon, -1), axis=1)
        points = self.rng.random((runs, horizon)) * edges[:, -1]
        pairs = np.stack([np.searchsorted(e, p, side="right") for e, p in zip(edges, points.T)], axis=1)
        s, a = np.divmod(np.minimum(pairs, states * actions - 1), actions)
        h = np.arange(horizon)
        after = np.cumsum(self.problem.transition[h, s, a], axis=-1)
        u = self.rng.random((runs, horizon, 1)) * after[..., -1:]
        successors = np.minimum((after <= u).sum(axis=-1), states - 1)
        rewards = self.problem.reward[h, s, a]
        if self.binary:
            rewards = (self.rng.random(rewards.shape) < rewards).astype(float)
        self.add(Episodes(*(x[:, None] for x in (s, a, rewards, successors))))

    def add(self, data: Episodes) -> None:
        runs, _, horizon = data.actions.shape
        where = (np.arange(runs)[:, None, None], np.arange(horizon), data.states, data.actions)
        ahead = np.concatenate([self.best_values[:, 1:], np.zeros_like(self.best_values[:, :1])], axis=1)
        here = np.moveaxis(self.values, 0, -1)[where[1:]]
        target = data.rewards[..., None] + np.moveaxis(ahead, 0, -1)[where[1], data.successors]
        np.add.at(self.counts, where, 1.0)
        np.add.at(self.residuals, where, here - target)
