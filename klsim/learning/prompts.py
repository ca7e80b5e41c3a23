"""Policy-gradient learning of `PromptBandit` weights, from sampled groups or exact gradients, many worlds at once.

A run is a *direction* in the logits of every prompt, pulled back to the shared weights and followed by an optimiser.
`train_prompts` ascends the reward; `ascend_prompts` takes any direction, put together from `draw_answers`,
`group_gradient`, `klsim.learning.population_gradient` and others. The directions of prompts are summed: divide by the
number of prompts for a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.softmax_step import SGD, Adam, centre, population_gradient, score_function_gradient
from klsim.problems import PromptBandit

__all__ = ["Direction", "PromptRun", "ascend_prompts", "draw_answers", "group_gradient", "train_prompts"]

Direction = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""``(log_policy, rng) -> direction``: both ``(..., X, A)``, the direction an ascent in the logits."""


@dataclass(frozen=True)
class PromptRun:
    """Weights along a run: after ``steps[k]`` steps they are ``weights[k]``, ``(..., A, D)``."""

    steps: np.ndarray
    weights: tuple[np.ndarray, ...]

    @property
    def final(self) -> np.ndarray:
        """The weights at the end."""
        return self.weights[-1]


def draw_answers(log_policy: Any, rollouts: int, rng: np.random.Generator | int) -> np.ndarray:
    """How often each answer is drawn in ``rollouts`` draws a prompt: counts ``(..., X, A)``."""
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    rollouts = _validate.integer("rollouts", rollouts, low=1)
    pi = np.exp(log_policy.astype(np.float64))
    return np.asarray(_validate.generator(rng).multinomial(rollouts, pi / pi.sum(axis=-1, keepdims=True)))


def group_gradient(
    log_policy: Any,
    reward: Any,
    rollouts: int,
    rng: np.random.Generator | int,
    *,
    baseline: Literal["none", "mean", "leave_one_out"] = "mean",
    scale: Literal["none", "std"] = "std",
    bonus: Any = 0.0,
) -> np.ndarray:
    """The score-function gradient of a group of ``rollouts`` on-policy draws a prompt (GRPO, RLOO, …), ``(..., X, A)``.

    Args:
        baseline, scale: of the rewards within a group, as in `klsim.learning.centre`.
        bonus: added to the advantage after both, neither centred nor scaled: ``-beta log(pi/ref)``, say.
    """
    (bonus,) = _validate.numpy_arrays(bonus=bonus)
    index = _validate.first_true(np, ~(np.abs(bonus) <= 1e149))
    if index is not None:
        _validate.fail("bonus", "must be finite (and at most 1e149 in size)", float(bonus[index]), index)
    _validate.one_of("baseline", baseline, ("none", "mean", "leave_one_out"))
    _validate.integer("rollouts", rollouts, low=2 if baseline == "leave_one_out" else 1)
    counts = draw_answers(log_policy, rollouts, rng)
    advantage = centre(reward, counts, baseline=baseline, scale=scale)
    _validate.broadcast(reward=advantage, bonus=bonus)
    return score_function_gradient(log_policy, counts, advantage + bonus)


def ascend_prompts(
    problem: PromptBandit,
    direction: Direction,
    optimiser: SGD | Adam,
    *,
    steps: int,
    record: Sequence[int] = (),
    rng: np.random.Generator | int = 0,
) -> PromptRun:
    """Follow a direction in the logits, from zero weights.

    Args:
        direction: see `Direction`; called once a step.
        record: numbers of steps after which the weights are kept (the end always is).

    Raises:
        ValueError: ``steps < 0``; a direction of another shape.
    """
    _validate.instance("problem", problem, PromptBandit)
    _validate.instance("optimiser", optimiser, SGD, Adam)
    direction = _validate.function("direction", direction)
    steps = _validate.integer("steps", steps, low=0)
    marks = {_validate.integer("record", k, low=0, high=steps) for k in _validate.sequence("record", record)} | {steps}
    generator, weights = _validate.generator(rng), np.zeros(problem.weight_shape)
    state: Any = optimiser
    kept = []
    for k in range(steps + 1):
        if k in marks:
            kept.append(weights)
        if k == steps:
            break
        along = direction(problem.log_policy(weights), generator)
        weights, state = state.step(weights, problem.weight_gradient(along))
    return PromptRun(np.asarray(sorted(marks)), tuple(kept))


def train_prompts(
    problem: PromptBandit,
    optimiser: SGD | Adam,
    *,
    steps: int,
    rollouts: int | None = None,
    baseline: Literal["none", "mean", "leave_one_out"] = "mean",
    scale: Literal["none", "std"] = "std",
    record: Sequence[int] = (),
    rng: np.random.Generator | int = 0,
) -> PromptRun:
    """Ascend ``sum_x E[r]`` over the shared weights, from zero weights.

    Args:
        rollouts: draws per prompt and step (a group); None takes exact gradients.
        baseline, scale: of the rewards within a group, as in `klsim.learning.centre`.
        record: numbers of steps after which the weights are kept (the end always is).

    Raises:
        ValueError: ``steps < 0``, ``rollouts < 1`` (2 with leave-one-out), unknown names.
    """
    _validate.instance("problem", problem, PromptBandit)
    _validate.one_of("baseline", baseline, ("none", "mean", "leave_one_out"))
    _validate.one_of("scale", scale, ("none", "std"))
    if rollouts is not None:
        rollouts = _validate.integer("rollouts", rollouts, low=2 if baseline == "leave_one_out" else 1)

    def direction(log_policy: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if rollouts is None:
            return population_gradient(log_policy, problem.reward)
        return group_gradient(log_policy, problem.reward, rollouts, generator, baseline=baseline, scale=scale)

    return ascend_prompts(problem, direction, optimiser, steps=steps, record=record, rng=rng)
