"""Policy-gradient learning of `PromptBandit` weights, from sampled groups or exact gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.softmax_step import SGD, Adam, centre, population_gradient, score_function_gradient
from klsim.problems import PromptBandit

__all__ = ["PromptRun", "train_prompts"]


@dataclass(frozen=True)
class PromptRun:
    """Weights along a run: after ``steps[k]`` steps they are ``weights[k]``, ``(A, D)``."""

    steps: np.ndarray
    weights: tuple[np.ndarray, ...]

    @property
    def final(self) -> np.ndarray:
        """The weights at the end."""
        return self.weights[-1]


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
    _validate.instance("optimiser", optimiser, SGD, Adam)
    _validate.one_of("baseline", baseline, ("none", "mean", "leave_one_out"))
    _validate.one_of("scale", scale, ("none", "std"))
    steps = _validate.integer("steps", steps, low=0)
    if rollouts is not None:
        _validate.integer("rollouts", rollouts, low=2 if baseline == "leave_one_out" else 1)
    marks = {_validate.integer("record", k, low=0, high=steps) for k in _validate.sequence("record", record)} | {steps}
    generator, weights = _validate.generator(rng), np.zeros(problem.weight_shape)
    state: Any = optimiser
    kept = []
    for k in range(steps + 1):
        if k in marks:
            kept.append(weights)
        if k == steps:
            break
        log_pi = problem.log_policy(weights)
        if rollouts is None:
            gradient = population_gradient(log_pi, problem.reward)
        else:
            pi = np.exp(log_pi)
            counts = generator.multinomial(rollouts, pi / pi.sum(axis=1, keepdims=True))
            advantage = centre(problem.reward, counts, baseline=baseline, scale=scale)
            gradient = score_function_gradient(log_pi, counts, advantage)
        weights, state = state.step(weights, gradient.T @ problem.features)
    return PromptRun(np.asarray(sorted(marks)), tuple(kept))
