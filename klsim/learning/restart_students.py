r"""Students that restart from stored states: tabular Q-learning in a snapshot environment, then in the original one.

For the first ``phase`` steps an episode begins at a drawn restart point and is cut after ``cut`` steps; from then on it
begins at the problem's own start and is cut after ``limit``. Every step moves the visited entry,

.. math:: Q(s, a) \leftarrow Q(s, a) + \alpha_n \big(r + \gamma \max_{a'} Q(s', a') - Q(s, a)\big),
          \qquad \alpha_n = \min(1, \alpha\, n(s, a)^{-w}),

``n(s, a)`` counting visits. Past a terminal state nothing follows. A cut is no end of the problem: the target goes on
past it (``bootstrap``); treated as an end, it changes the fixed point (`klsim.planning.restarts.cut_problem`).

Source: ``snapshot-rl`` (Zhao et al. 2024), where the learner is TD3, SAC or PPO; the tabular form is derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems import DiscountedMDP
from klsim.problems.transition_rows import probabilities

__all__ = ["StudentRuns", "greedy_values", "restart_students"]


@dataclass(frozen=True)
class StudentRuns:
    """Independent runs of `restart_students`.

    Attributes:
        q_value: after every ``every`` steps, ``(runs, steps / every, S, A)``.
        restarts: episodes that began at a restart point, ``(runs,)``. distinct: points that were used, ``(runs,)``.
    """

    q_value: np.ndarray
    restarts: np.ndarray
    distinct: np.ndarray


def restart_students(
    problem: DiscountedMDP,
    points: Any,
    law: Any,
    *,
    steps: int,
    phase: int,
    cut: int,
    limit: int,
    every: int,
    terminal: Any = None,
    rewards: Any = None,
    step_size: float = 0.3,
    step_power: float = 0.0,
    explore: float = 0.2,
    bootstrap: bool = True,
    expected: bool = False,
    rng: np.random.Generator | int = 0,
) -> StudentRuns:
    r"""One run of Q-learning for every row of ``points``, from ``Q = 0``.

    Args:
        problem: dense, all actions legal. points: states to restart from, ``(runs, N)``. law: their probabilities,
            ``(runs, N)``; 0 for rows that are padded.
        steps: environment steps, a multiple of ``every``. phase: those in the snapshot environment, 0 for none.
        cut, limit: lengths at which episodes are cut, in the snapshot environment and after it.
        terminal: boolean ``(S,)``, states that end an episode: absorbing, without reward. None for none.
        rewards: reward of every transition ``(S, A, S)``, whose means are those of the problem; None: the problem's.
        step_size, step_power: alpha > 0 and w >= 0.
        explore: probability of a uniform action; otherwise a greedy one, ties at random.
        bootstrap: whether targets go on past a cut. expected: whether targets are means over successors.

    Raises:
        TypeError: not a `DiscountedMDP`. ValueError: shapes, ranges, laws that do not sum to 1, illegal actions,
            terminal states that are left or rewarded, rewards with other means.
    """
    problem = _explorable(problem)
    places, edges = _restarts(problem, points, law)
    end, paid = _ends(problem, terminal), _rewards(problem, rewards)
    every = _validate.integer("every", every, low=1)
    steps = _validate.integer("steps", steps, low=1)
    if steps % every:
        _validate.fail("steps", f"must be a multiple of every = {every}", steps)
    _validate.fits("steps", steps, float(len(places)) * (steps // every) * problem.reward.size)
    from klsim.kernels.restart_students import restart_runs

    kept, restarts, distinct = restart_runs(
        np.ascontiguousarray(problem.transition), np.cumsum(problem.transition, axis=-1), paid, end,
        np.cumsum(problem.initial), places, edges, problem.discount,
        _validate.integer("phase", phase, low=0), _validate.integer("cut", cut, low=1),
        _validate.integer("limit", limit, low=1), steps // every, every,
        _validate.real("step_size", step_size, low=0.0, high=1e100, open_low=True),
        _validate.real("step_power", step_power, low=0.0, high=10.0), _validate.probability("explore", explore),
        _validate.flag("expected", expected), _validate.flag("bootstrap", bootstrap),
        _validate.generator(rng).integers(0, 2**31 - 1, len(places)),
    )  # fmt: skip
    return StudentRuns(kept, restarts, distinct)


def _explorable(problem: DiscountedMDP) -> DiscountedMDP:
    """The problem in dense form, checked to have every action legal."""
    _validate.instance("problem", problem, DiscountedMDP)
    problem = problem.dense()
    assert problem.actions is not None
    if not problem.actions.all():
        _validate.fail("problem", "random exploration needs every action to be legal everywhere")
    return problem


def _restarts(problem: DiscountedMDP, points: Any, law: Any) -> tuple[np.ndarray, np.ndarray]:
    """Restart states ``(runs, N)`` and the cumulative probabilities of each row."""
    places = _validate.integers("points", points, low=0, high=problem.shape[0] - 1)
    weights = probabilities("law", law)
    if places.ndim != 2 or 0 in places.shape or weights.shape != places.shape:
        _validate.fail("law", f"must be (runs, N) like points: points {places.shape}, law {weights.shape}")
    return places, np.cumsum(weights, axis=-1)


def _ends(problem: DiscountedMDP, terminal: Any) -> np.ndarray:
    """The mask of terminal states, checked to be absorbing and without reward."""
    states = problem.shape[0]
    if terminal is None:
        return np.zeros(states, dtype=bool)
    mask = _validate.boolean_mask("terminal", terminal, (states,))
    own = problem.transition[np.arange(states), :, np.arange(states)]
    index = _validate.first_true(np, mask & ~((own == 1) & (problem.reward == 0)).all(axis=1))
    if index is not None:
        _validate.fail("terminal", "must be absorbing and without reward", True, index)
    return mask


def _rewards(problem: DiscountedMDP, rewards: Any) -> np.ndarray:
    """Rewards of transitions, whose means are those of the problem."""
    shape = (*problem.shape, problem.shape[0])
    if rewards is None:
        return np.array(np.broadcast_to(problem.reward[..., None], shape), dtype=float)
    (table,) = _validate.numpy_arrays(rewards=rewards)
    if table.shape != shape:
        _validate.fail("rewards", f"must have shape {shape}, got {table.shape}")
    _validate.finite("rewards", np, table)
    off = np.abs(np.sum(problem.transition * table, axis=-1) - problem.reward)
    index = _validate.first_true(np, off > 1e-8 * max(1.0, float(np.abs(table).max())))
    if index is not None:
        _validate.fail("rewards", "their means must be the problem's rewards; they differ by", float(off[index]), index)
    return np.ascontiguousarray(table, dtype=float)


def greedy_values(problem: DiscountedMDP, q_value: Any) -> np.ndarray:
    """Exact discounted values ``(..., S)`` of the greedy policies of ``q_value (..., S, A)``, equal actions sharing.

    Raises:
        TypeError: not a `DiscountedMDP`. ValueError: a wrong shape, values that are not finite.
    """
    _validate.instance("problem", problem, DiscountedMDP)
    problem = problem.dense()
    (table,) = _validate.numpy_arrays(q_value=q_value)
    if table.shape[-2:] != problem.shape:
        _validate.fail("q_value", f"must have shape (..., {problem.shape[0]}, {problem.shape[1]}), got {table.shape}")
    _validate.finite("q_value", np, table)
    assert problem.actions is not None
    table = np.where(problem.actions, table, -np.inf)
    best = table == table.max(axis=-1, keepdims=True)
    policy = best / best.sum(axis=-1, keepdims=True)
    moves = np.einsum("...sa,sat->...st", policy, problem.transition)
    earned = np.sum(policy * problem.reward, axis=-1)
    return np.asarray(np.linalg.solve(np.eye(problem.shape[0]) - problem.discount * moves, earned[..., None])[..., 0])
