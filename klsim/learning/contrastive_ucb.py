r"""Contrastive-UCB on tabular problems whose states are observations: learned decoders, bonuses, optimistic planning.

In every iteration, for every step h: one episode rolls in to h with the current policy and acts uniformly there (D_h);
one rolls in to h-1 and acts uniformly at h-1 and h (D~_h; h >= 1). Every transition gets a negative successor. Then

1. the critic: of the decoders ``z: states -> {0, ..., Z-1}`` allowed at h the one of least contrastive loss on D_h and
   D~_h, with the counted critic ``f = (n1 + c) / (n0 + c)`` on (z(s), a, s'); ``Phat ∝ P^- f``;
2. the bonus ``gamma ||phi||_{Sigma^{-1}}`` of one-hot features (z(s), a): ``gamma / sqrt(count in D_h + ridge)``;
3. the next policy: greedy in ``Q_h = min(r_h + Phat_h V_{h+1} + b_h, cap)``.

Runs are independent and batched. Source: ``contrastive-ucb`` C6, Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.learning.contrastive import count_critic, count_loss
from klsim.problems import TabularMDP
from klsim.problems.transition_rows import probabilities

__all__ = ["ContrastiveRun", "contrastive_ucb"]


@dataclass(frozen=True)
class ContrastiveRun:
    """What every run did.

    Attributes:
        value: exact return of the policy after each iteration, ``(runs, iterations)``.
        bonus: ``E_{P, pi} sum_h b_h`` of the same policies, ``(runs, iterations)``.
        decoder: index of the decoder chosen at each step in the end, ``(runs, H)``.
        policy: the last policy, ``(runs, H, S)``.
        model: the last model, ``(runs, H, S, A, S)``. last_bonus: ``(runs, H, S, A)``.
        visits: how often each pair is in D_h, ``(runs, H, S, A)``.
        positives, negatives: how often each triple is in D_h and D~_h, ``(runs, H, S, A, S)`` each.
    """

    value: np.ndarray
    bonus: np.ndarray
    decoder: np.ndarray
    policy: np.ndarray
    model: np.ndarray
    last_bonus: np.ndarray
    visits: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


@dataclass(frozen=True)
class _Learner:
    """The constants of all runs; ``one_hot (runs, H, C, Z, S)`` holds the decoders."""

    problem: TabularMDP
    negative: np.ndarray
    one_hot: np.ndarray
    gamma: float
    cap: float
    smoothing: float
    ridge: float

    def episodes(self, policy: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """States, actions and successors ``(runs, H, 2)`` at the step that each episode is for, in D_h and in D~_h."""
        horizon, _, actions = self.problem.shape
        runs = len(policy)
        step = np.repeat(np.arange(horizon), 2)
        uniform_from = np.maximum(step - np.tile([0, 1], horizon), 0)
        rows = np.arange(runs)[:, None]
        state = _inverse(np.cumsum(self.problem.initial), rng.random((runs, step.size)))
        kept = [np.empty((runs, step.size), dtype=np.int64) for _ in range(3)]
        for h in range(horizon):
            random = rng.integers(0, actions, (runs, step.size))
            action = np.where(h >= uniform_from, random, policy[rows, h, state])
            after = _inverse(np.cumsum(self.problem.transition[h], axis=-1)[state, action], rng.random(state.shape))
            for out, value in zip(kept, (state, action, after)):
                out[:, step == h] = value[:, step == h]
            state = after
        return tuple(x.reshape(runs, horizon, 2) for x in kept)

    def fit(self, positives: np.ndarray, negatives: np.ndarray, visits: np.ndarray) -> tuple[np.ndarray, ...]:
        """From counts ``(runs, H, S, A, S)`` (twice) and ``(runs, H, S, A)``: decoder ``(runs, H)``, model, bonus."""
        runs, horizon, states, actions, _ = positives.shape
        classes, labels = self.one_hot.shape[2:4]
        stacked = self.one_hot.reshape(runs, horizon, classes * labels, states)
        shape = (runs, horizon, classes, labels * actions * states)
        n1, n0 = (
            (stacked @ x.reshape(runs, horizon, states, actions * states)).reshape(shape)
            for x in (positives, negatives)
        )
        best = np.argmin(count_loss(n1, n0, self.smoothing), axis=-1)
        at = (*np.ix_(np.arange(runs), np.arange(horizon)), best)
        chosen = self.one_hot[at]  # (runs, H, Z, S)
        log_f = count_critic(n1[at], n0[at], self.smoothing).reshape(runs, horizon, labels, actions, states)
        weights = self.negative * np.exp(log_f)
        weights = (weights / weights.sum(axis=-1, keepdims=True)).reshape(runs, horizon, labels, -1)
        model = (np.swapaxes(chosen, -1, -2) @ weights).reshape(positives.shape)
        seen = np.swapaxes(chosen, -1, -2) @ (chosen @ visits)
        return best, model, self.gamma / np.sqrt(seen + self.ridge)

    def plan(self, model: np.ndarray, bonus: np.ndarray) -> np.ndarray:
        """The greedy policy ``(runs, H, S)`` of the optimistic values."""
        runs, horizon, states, _ = bonus.shape
        value, policy = np.zeros((runs, states)), np.empty((runs, horizon, states), dtype=np.int64)
        for h in range(horizon - 1, -1, -1):
            ahead = (model[:, h].reshape(runs, -1, states) @ value[..., None]).reshape(bonus[:, h].shape)
            q = np.minimum(self.problem.reward[h] + ahead + bonus[:, h], self.cap)
            policy[:, h], value = q.argmax(axis=-1), q.max(axis=-1)
        return policy

    def score(self, policy: np.ndarray, bonus: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected return and sum of bonuses in the problem, ``(runs,)`` each."""
        runs, horizon, states = policy.shape
        visits = np.broadcast_to(self.problem.initial, (runs, states))
        rows, columns = np.arange(runs)[:, None], np.arange(states)
        totals = [np.zeros(runs), np.zeros(runs)]
        for h in range(horizon):
            action = policy[:, h]
            for total, earned in zip(
                totals, (self.problem.reward[h][columns, action], bonus[rows, h, columns, action])
            ):
                total += np.sum(visits * earned, axis=1)
            visits = np.einsum("rs,rst->rt", visits, self.problem.transition[h][columns, action])
        return totals[0], totals[1]


def _inverse(edges: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Draws from cumulative rows (the last entry may be 1 only to rounding)."""
    index = (uniforms[..., None] * edges[..., -1:] >= edges).sum(axis=-1)
    return np.minimum(index, edges.shape[-1] - 1)


def _decoders(decoders: Any, horizon: int, states: int) -> np.ndarray:
    labels = _validate.integers("decoders", decoders, low=0)
    if labels.ndim != 4 or 0 in labels.shape or labels.shape[1] != horizon or labels.shape[3] != states:
        _validate.fail("decoders", f"must have shape (runs, {horizon}, C, {states}), got {labels.shape}")
    count = int(labels.max()) + 1
    if count > states:
        _validate.fail("decoders", f"labels must be below the number of states {states}", count - 1)
    _validate.fits("decoders", labels.size, labels.size * count)
    return (labels[..., None, :] == np.arange(count)[:, None]).astype(float)


def contrastive_ucb(
    problem: TabularMDP,
    decoders: Any,
    *,
    iterations: int,
    gamma: float = 1.0,
    negative: Any = None,
    cap: float | None = None,
    smoothing: float = 0.1,
    ridge: float = 1.0,
    rng: np.random.Generator | int = 0,
) -> ContrastiveRun:
    """Runs of Contrastive-UCB, ``2 H - 1`` episodes an iteration each (step 0 has only D_0).

    Args:
        problem: its states are the observations; rewards and initial law are known to the learner.
        decoders: the class at every step, ``(runs, H, C, S)``: labels of the states; ties go to the first.
        iterations: >= 1. gamma: scale of the bonus, >= 0; 0 is the same learner without exploration.
        negative: ``P^- (S,)``, positive; uniform by default. cap: on optimistic values; H by default.
        smoothing: c > 0. ridge: > 0. rng: of all runs.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: shapes that do not fit, illegal actions in the problem.
    """
    _validate.instance("problem", problem, TabularMDP)
    if problem.actions is not None and not np.all(problem.actions):
        _validate.fail("problem", "random exploration needs every action to be legal everywhere")
    problem = problem.dense()
    horizon, states, actions = problem.shape
    q = probabilities("negative", np.full(states, 1 / states) if negative is None else negative)
    _validate.positive("negative", np, q)
    if q.shape != (states,):
        _validate.fail("negative", f"must have shape {(states,)}, got {q.shape}")
    one_hot, iterations = _decoders(decoders, horizon, states), _validate.integer("iterations", iterations, low=1)
    runs = len(one_hot)
    _validate.fits("iterations", iterations, runs * iterations)
    _validate.fits("decoders", runs, one_hot.size * actions * states)
    learner = _Learner(
        problem, q, one_hot,
        _validate.real("gamma", gamma, low=0.0, high=1e100), _validate.real("cap", horizon if cap is None else cap),
        _validate.real("smoothing", smoothing, low=1e-100, high=1e100), _validate.real("ridge", ridge, low=1e-100),
    )  # fmt: skip
    rng = _validate.generator(rng)
    positives, negatives = np.zeros((2, runs, horizon, states, actions, states))
    visits = np.zeros((runs, horizon, states, actions))
    index = (np.arange(runs)[:, None, None], np.arange(horizon)[:, None])
    weight = np.ones((runs, horizon, 2))
    weight[:, 0, 1] = 0.0  # there is no step before the first
    policy = rng.integers(0, actions, (runs, horizon, states))
    value, bonuses = np.empty((2, runs, iterations))
    for i in range(iterations):
        state, action, after = learner.episodes(policy, rng)
        false = _inverse(np.cumsum(q), rng.random(state.shape))
        np.add.at(positives, (*index, state, action, after), weight)
        np.add.at(negatives, (*index, state, action, false), weight)
        np.add.at(visits, (index[0][..., 0], np.arange(horizon), state[..., 0], action[..., 0]), 1.0)
        best, model, bonus = learner.fit(positives, negatives, visits)
        policy = learner.plan(model, bonus)
        value[:, i], bonuses[:, i] = learner.score(policy, bonus)
    return ContrastiveRun(value, bonuses, best, policy, model, bonus, visits, positives, negatives)
