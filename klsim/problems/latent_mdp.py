r"""Latent MDPs: one of ``M`` MDPs is drawn for an episode, and which one is hidden.

All contexts share states, actions and horizon. A history is ``h_t = (s_1, a_1, r_1, …, s_t)``; rewards are
deterministic given context, step, state and action, so what they pay may tell the context. Policies
depend on histories: the tree of `histories` lists every history that some policy can meet, with the posterior over
contexts, and a policy is a tuple of ``H`` levels of log-probabilities ``(N_t, A)``, one row a history. A policy of the
current state, ``(H, S, A)``, is accepted wherever one of histories is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.pomdp import POMDP
from klsim.problems.tabular_mdp import TabularMDP
from klsim.problems.transition_rows import probabilities

__all__ = ["Histories", "LatentMDP", "histories", "history_levels"]

_ENTRIES = 2 * 10**7  # of the largest array of a level


@dataclass(frozen=True)
class LatentMDP:
    """A mixture of MDPs with common states, actions and horizon.

    Attributes:
        weights: probabilities of the contexts, ``(M,)``.
        contexts: M `TabularMDP`, of one shape ``(H, S, A)`` and the same legal actions; kept dense.
        hidden_rewards: the rewards are no part of the history.

    Raises:
        ValueError: shapes, horizons or legal actions that differ, weights that are no distribution over the contexts.
    """

    weights: np.ndarray
    contexts: tuple[TabularMDP, ...]
    hidden_rewards: bool = False

    def __post_init__(self) -> None:
        given = _validate.sequence("contexts", self.contexts, of=TabularMDP)
        weights = probabilities("weights", self.weights)
        if weights.shape != (len(given),):
            _validate.fail("weights", f"must have shape ({len(given)},), one a context, got {weights.shape}")
        for m, context in enumerate(given):
            if context.shape != given[0].shape:
                _validate.fail(f"contexts[{m}]", f"must have shape {given[0].shape} as the first, got {context.shape}")
            if not np.array_equal(context.actions, given[0].actions):
                _validate.fail(f"contexts[{m}]", "must have the legal actions of the first")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "contexts", tuple(context.dense() for context in given))
        object.__setattr__(self, "hidden_rewards", _validate.flag("hidden_rewards", self.hidden_rewards))

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, S, A)``: the shape of a policy of the current state."""
        return self.contexts[0].shape

    @property
    def horizon(self) -> int:
        """Number of decisions."""
        return self.contexts[0].horizon

    @property
    def actions(self) -> np.ndarray:
        """Legal actions, ``(S, A)``."""
        legal = self.contexts[0].actions
        assert legal is not None
        return legal

    @cached_property
    def transition(self) -> np.ndarray:
        """``(M, H, S, A, S)``."""
        return np.stack([context.transition for context in self.contexts])

    @cached_property
    def reward(self) -> np.ndarray:
        """``(M, H, S, A)``."""
        return np.stack([context.reward for context in self.contexts])

    @cached_property
    def initial(self) -> np.ndarray:
        """``(M, S)``."""
        return np.stack([context.initial for context in self.contexts])

    def as_pomdp(self) -> POMDP:
        """The same problem with the context in the latent state.

        With ``K`` distinct rewards (K = 1 if they are hidden) the latent state ``(m S + s) K + k`` is the context, the
        state and the reward last paid (0 at first), of which ``s K + k`` is seen.

        Raises:
            ValueError: some action is illegal.
        """
        if not self.actions.all():
            _validate.fail("actions", "a POMDP has every action everywhere")
        count, (horizon, states, actions) = len(self.contexts), self.shape
        rewards = np.zeros(1) if self.hidden_rewards else np.unique(self.reward)
        kind = np.zeros(self.reward.shape, dtype=int) if self.hidden_rewards else np.searchsorted(rewards, self.reward)
        kinds = len(rewards)
        moves = np.zeros((horizon, count, states, kinds, actions, count, states, kinds))
        for m, t, s, a in np.ndindex(self.reward.shape):
            moves[t, m, s, :, a, m, :, kind[m, t, s, a]] = self.transition[m, t, s, a]
        paid = np.broadcast_to(np.moveaxis(self.reward, 0, 1)[:, :, :, None], (horizon, count, states, kinds, actions))
        start = np.zeros((count, states, kinds))
        start[..., 0] = self.weights[:, None] * self.initial
        size, seen = count * states * kinds, np.tile(np.eye(states * kinds), (count, 1))
        transition = moves.reshape(horizon, size, actions, size)
        return POMDP(transition, seen, paid.reshape(horizon, size, actions), start.ravel(), horizon)

    @property
    def is_stationary(self) -> bool:
        """Whether neither transitions nor rewards change with time."""
        return bool(np.all(self.transition == self.transition[:, :1]) and np.all(self.reward == self.reward[:, :1]))


@dataclass(frozen=True)
class Histories:
    """The histories that some policy can meet, one level for every ``t = 0 … H-1`` past decisions.

    Level ``t`` of each attribute has one row a history:

    Attributes:
        states: ``(N_t, t + 1)``. actions: ``(N_t, t)``. rewards: ``(N_t, t)``; zeros where rewards are hidden.
        parent: ``(N_t,)``, the row of the history before the last decision (level 0: zeros).
        step: ``(N_t, M)``, the probability of the last observation in every context given parent and action:
            ``1[R_m(s, a) = r] P_m(s'|s, a)``; at level 0 ``nu_m(s)``.
        chance: ``(N_t,)``, the same given the parent alone (its posterior over contexts).
        posterior: ``(N_t, M)``, the law of the context given the history; it depends on no policy.
    """

    states: tuple[np.ndarray, ...]
    actions: tuple[np.ndarray, ...]
    rewards: tuple[np.ndarray, ...]
    parent: tuple[np.ndarray, ...]
    step: tuple[np.ndarray, ...]
    chance: tuple[np.ndarray, ...]
    posterior: tuple[np.ndarray, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """``N_t``."""
        return tuple(len(level) for level in self.parent)

    def beliefs(self) -> tuple[np.ndarray, ...]:
        """``b_m(h)``, ``(N_t, M)``: the probability of context and observations where the actions are taken."""
        reach = [self.chance[0]]
        for chance, parent in zip(self.chance[1:], self.parent[1:]):
            reach.append(reach[-1][parent] * chance)
        return tuple(r[:, None] * posterior for r, posterior in zip(reach, self.posterior))


def histories(problem: LatentMDP) -> Histories:
    """Every history of positive probability in some context under some policy, in the order (parent, action, reward,
    state); rewards count as equal where they are equal to the last bit.

    Raises:
        TypeError: not a `LatentMDP`. ValueError: too many histories to list.
    """
    _validate.instance("problem", problem, LatentMDP)
    joint = problem.weights[:, None] * problem.initial  # (M, S)
    start = np.flatnonzero(joint.sum(axis=0) > 0)
    chance = joint[:, start].sum(axis=0)
    levels: list[list[np.ndarray]] = [
        [start[:, None], np.zeros((len(start), 0), dtype=np.int64), np.zeros((len(start), 0))],
    ]
    links = [[np.zeros(len(start), dtype=np.int64), problem.initial[:, start].T, chance,
              joint[:, start].T / chance[:, None]]]  # fmt: skip
    for t in range(problem.horizon - 1):
        level, link = _children(problem, t, levels[-1], links[-1][-1])
        levels.append(level)
        links.append(link)
    return Histories(*zip(*(level + link for level, link in zip(levels, links))))


def _children(
    problem: LatentMDP, t: int, level: list[np.ndarray], posterior: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The next level: ``[states, actions, rewards], [parent, step, chance, posterior]``."""
    states, actions, rewards = level
    count, contexts = posterior.shape
    kinds = 1 if problem.hidden_rewards else contexts
    entries = count * problem.shape[2] * kinds * problem.shape[1] * contexts
    if entries > _ENTRIES:
        _validate.fail("horizon", f"too many histories to list after {t + 1} decisions ({entries} table entries)",
                       problem.horizon)  # fmt: skip
    now = states[:, -1]
    paid = np.moveaxis(problem.reward[:, t, now], 0, -1)  # (N, A, M)
    if problem.hidden_rewards:
        paid = np.zeros_like(paid)
    same = paid[..., :kinds, None] == paid[..., None, :]  # (N, A, K, M): context k pays what m pays
    first = np.argmax(same, axis=-1) == np.arange(kinds)  # one kind a distinct reward
    moves = np.moveaxis(problem.transition[:, t, now], 0, -1)  # (N, A, S, M)
    step = same[:, :, :, None, :] * moves[:, :, None, :, :]  # (N, A, K, S, M)
    joint = step * posterior[:, None, None, None, :]
    alive = (joint.sum(axis=-1) > 0) & first[..., None] & problem.actions[now][:, :, None, None]
    parent, action, kind, state = np.nonzero(alive)
    chance = joint[alive].sum(axis=-1)
    reward = paid[parent, action, kind]
    grown = [
        np.concatenate([states[parent], state[:, None]], axis=1),
        np.concatenate([actions[parent], action[:, None]], axis=1),
        np.concatenate([rewards[parent], reward[:, None]], axis=1),
    ]
    return grown, [parent, step[alive], chance, joint[alive] / chance[:, None]]


def history_levels(problem: LatentMDP, tree: Histories, log_policy: Any, name: str = "log_policy") -> tuple[Any, ...]:
    """A policy as levels ``(N_t, A)``, from such levels or from one of the current state ``(H, S, A)``; None is uniform
    over legal actions.

    Raises:
        ValueError: shapes, rows that are not distributions, mass on an illegal action.
    """
    _validate.instance("problem", problem, LatentMDP)
    _validate.instance("tree", tree, Histories)
    horizon, _, actions = problem.shape
    if log_policy is None:
        legal = np.where(problem.actions, -np.log(problem.actions.sum(axis=1, keepdims=True)), -np.inf)
        log_policy = np.broadcast_to(legal, problem.shape)
    if isinstance(log_policy, np.ndarray):
        if log_policy.shape != problem.shape:
            _validate.fail(name, f"must be (H, S, A) = {problem.shape} or levels (N_t, A), got {log_policy.shape}")
        log_policy = tuple(log_policy[t, tree.states[t][:, -1]] for t in range(horizon))
    given = _validate.sequence(name, log_policy)
    if len(given) != horizon:
        _validate.fail(name, f"must have {horizon} levels, got {len(given)}")
    out = []
    for t, level in enumerate(given):
        label = f"{name}[{t}]"
        (array,) = _validate.numpy_arrays(**{label: level})
        if array.shape != (tree.sizes[t], actions):
            _validate.fail(label, f"must have shape {(tree.sizes[t], actions)}, got {array.shape}")
        _validate.log_probs(label, np, array)
        index = _validate.first_true(np, np.isfinite(array) & ~problem.actions[tree.states[t][:, -1]])
        if index is not None:
            _validate.fail(label, "gives probability to an illegal action", float(array[index]), index)
        array = np.asarray(array, dtype=np.float64)
        out.append(array - np.log(np.sum(np.exp(array), axis=-1, keepdims=True)))
    return tuple(out)
