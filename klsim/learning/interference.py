r"""What an update on one prompt does to others: linear softmax policies that share weights through prompt features.

With ``z(x, .) = z_0(x, .) + W phi(x)`` a step along a direction ``G(x, .)`` in the logits, pulled back to W, changes

.. math:: \log \pi(y'|x') \;\text{by}\; \eta \sum_x \phi(x) \cdot \phi(x') \sum_y G(x, y) ([y = y'] - \pi(y|x'))

to first order: `log_prob_change`. With ``G = sum_y pi(y|x) A(x, y) (e_y - pi(x))`` this is the sum over samples of
``A(x, y) K``, `score_kernel` ``K = phi(x).phi(x') (e_y - pi(x)).(e_{y'} - pi(x'))``. For one right answer c a prompt
and ``Q = pi(c)`` the gradients ``g = Q (e_c - pi)`` meet in

.. math:: g(x) \cdot g(x') = Q Q' ([c = c'] - \pi'(c) - \pi(c') + \pi \cdot \pi')

(`interference_bracket`): never negative for equal answers, always negative for two answers that differ, of either sign
from three answers on.

The time of exact gradient flow from ``Q_0`` to a target, ``A - 1`` equal wrong answers, is in `time_to_success`: of
order ``1/Q_0`` for the success, logarithmic for its logarithm and for the natural gradient.

Source: ``reasoning-boundary`` C1-C3.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.learning.softmax_step import population_gradient

__all__ = [
    "greedy_failures",
    "interference_bracket",
    "log_prob_change",
    "score_kernel",
    "success_interference",
    "success_speed",
    "time_to_success",
]

Objective = Literal["success", "log_success", "natural"]


def _policy(log_policy: Any) -> np.ndarray:
    """Probabilities ``(..., X, A)``."""
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    if log_policy.ndim < 2:
        _validate.fail("log_policy", f"must have shape (..., X, A), got {log_policy.shape}")
    return np.asarray(np.exp(log_policy.astype(np.float64)))


def _gram(features: Any, prompts: int) -> np.ndarray:
    """``phi(x).phi(x')``, ``(..., X, X)``."""
    (features,) = _validate.numpy_arrays(features=features)
    _validate.finite("features", np, features)
    if features.ndim < 2 or features.shape[-2] != prompts:
        _validate.fail("features", f"must have shape (..., {prompts}, D), got {features.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        gram = features @ np.swapaxes(features, -1, -2)
    _validate.representable("features", np, gram)
    return np.asarray(gram)


def _right(correct: Any, pi: np.ndarray) -> np.ndarray:
    """One-hot right answers, ``(..., X, A)``."""
    correct = _validate.integers("correct", correct, low=0, high=pi.shape[-1] - 1)
    try:
        correct = np.broadcast_to(correct, pi.shape[:-1])
    except ValueError:
        _validate.fail("correct", f"must broadcast to {pi.shape[:-1]}, got {correct.shape}")
    return np.eye(pi.shape[-1])[correct]


def score_kernel(log_policy: Any, features: Any) -> np.ndarray:
    """``K(x, y; x', y') = <grad log pi(y|x), grad log pi(y'|x')>`` in W, ``(..., X, A, X, A)``."""
    pi = _policy(log_policy)
    score = np.eye(pi.shape[-1]) - pi[..., None, :]  # (..., X, A, A): e_y - pi(x)
    return np.asarray(np.einsum("...xu,...xya,...uva->...xyuv", _gram(features, pi.shape[-2]), score, score))


def log_prob_change(log_policy: Any, features: Any, direction: Any) -> np.ndarray:
    """First-order change of every ``log pi(y'|x')`` a unit step along a direction in the logits, ``(..., X, A)``.

    Args:
        direction: ``G``, ``(..., X, A)``, pulled back to W as ``sum_x G(x, .) phi(x)``.
    """
    pi = _policy(log_policy)
    (direction,) = _validate.numpy_arrays(direction=direction)
    if direction.shape[-2:] != pi.shape[-2:]:
        _validate.fail("direction", f"must have shape (..., {pi.shape[-2]}, {pi.shape[-1]}), got {direction.shape}")
    logits = _gram(features, pi.shape[-2]) @ _validate.finite("direction", np, direction)
    return np.asarray(logits - np.sum(pi * logits, axis=-1, keepdims=True))


def interference_bracket(log_policy: Any, correct: Any) -> np.ndarray:
    """``[c = c'] - pi'(c) - pi(c') + pi.pi'`` of every pair of prompts, ``(..., X, X)``.

    Args:
        correct: the right answer of every prompt, ``(..., X)`` integers.
    """
    pi = _policy(log_policy)
    right = _right(correct, pi)
    both = right @ np.swapaxes(right, -1, -2)
    cross = right @ np.swapaxes(pi, -1, -2)  # pi'(c)
    return np.asarray(both - cross - np.swapaxes(cross, -1, -2) + pi @ np.swapaxes(pi, -1, -2))


def success_interference(log_policy: Any, correct: Any, features: Any) -> np.ndarray:
    """First-order change of ``Q(x')`` (column) a unit step along the gradient of ``Q(x)`` (row), ``(..., X, X)``."""
    pi = _policy(log_policy)
    gradient = population_gradient(log_policy, _right(correct, pi))
    return np.asarray(_gram(features, pi.shape[-2]) * (gradient @ np.swapaxes(gradient, -1, -2)))


def success_speed(log_policy: Any, correct: Any, objective: Objective = "success") -> np.ndarray:
    """``d log Q/dt`` of exact gradient flow in the prompt's own logits, ``(..., X)``.

    ``Q b`` along the gradient of Q, ``b`` along that of log Q, ``1 - Q`` along the natural gradient of Q, where
    ``b = (1 - Q)^2 + sum_{i != c} pi_i^2`` lies between ``(1 - Q)^2`` and twice that.
    """
    _validate.one_of("objective", objective, ("success", "log_success", "natural"))
    pi = _policy(log_policy)
    right = _right(correct, pi)
    q, wrong = np.sum(pi * right, axis=-1), pi * (1 - right)
    miss = wrong.sum(axis=-1)  # 1 - Q without cancellation
    if objective == "natural":
        return np.asarray(miss)
    bracket = miss**2 + np.sum(wrong**2, axis=-1)
    return np.asarray(q * bracket if objective == "success" else bracket)


def time_to_success(start: Any, target: Any, answers: int, objective: Objective = "success") -> np.ndarray:
    """Time of exact tabular gradient flow from success ``start`` to ``target``, ``A - 1`` equal wrong answers.

    With ``l = log(q/(1-q))``: the difference between target and start of ``(A-1)/A (1/(1-q) - 1/q + 2 l)`` for the
    success, ``(A-1)/A (1/(1-q) + l)`` for its logarithm, ``l`` for the natural gradient. ``A = 2`` is also the case of
    all wrong mass on one of many answers.

    Raises:
        ValueError: rates outside (0, 1), fewer than two answers.
    """
    _validate.one_of("objective", objective, ("success", "log_success", "natural"))
    answers = _validate.integer("answers", answers, low=2)
    start, target = _validate.numpy_arrays(start=start, target=target)
    for name, rate in (("start", start), ("target", target)):
        _validate.unit_interval(name, np, rate, open_ends=True)
    _validate.broadcast(start=start, target=target)

    def primitive(q: np.ndarray) -> np.ndarray:
        logit = np.log(q) - np.log1p(-q)
        if objective == "natural":
            return np.asarray(logit)
        share = (answers - 1) / answers
        with np.errstate(over="ignore"):
            rest = 1 / (1 - q) + (2 * logit - 1 / q if objective == "success" else logit)
        return np.asarray(share * rest)

    time = primitive(target) - primitive(start)
    _validate.representable("start", np, time)
    return np.asarray(time)


def greedy_failures(log_policy: Any, reward: Any) -> np.ndarray:
    """Prompts whose most likely answer (the first of several) is not right, ``(..., X)`` boolean; rewards are 0 or 1.

    Training on these alone is the filter of SELF: a prompt leaves the batch as soon as its greedy answer is right.
    """
    pi = _policy(log_policy)
    (reward,) = _validate.numpy_arrays(reward=reward)
    if reward.shape != pi.shape:
        _validate.fail("reward", f"must have the shape of log_policy {pi.shape}, got {reward.shape}")
    index = _validate.first_true(np, (reward != 0) & (reward != 1))
    if index is not None:
        _validate.fail("reward", "must be 0 or 1", float(reward[index]), index)
    best = np.argmax(pi, axis=-1)[..., None]
    return np.asarray(np.take_along_axis(reward, best, axis=-1)[..., 0] == 0)
