r"""One softmax policy-gradient step, taken apart: estimator, baseline and scale, optimiser.

All gradients are *ascent* directions in the logits of ``pi = softmax(z)`` on the last axis; leading
axes are a batch (seeds, prompts).

* population: ``pi (R - E_pi R)``, the gradient of ``E_pi[R]``;
* score function over draws with counts c: ``(1/n) (c a - pi sum_i c_i a_i)``, a = reward minus baseline;
* linear surrogate over draws: gradient of ``(1/n) sum_j a_j pi_{i_j}(z)``, ``(1/n) pi (c a - sum_i c_i a_i pi_i)``;
* linear surrogate over the sampled set: the same with each drawn token counted once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from klsim import _validate

__all__ = [
    "SGD",
    "Adam",
    "NaturalGradient",
    "centre",
    "counts_surrogate_gradient",
    "population_gradient",
    "score_function_gradient",
    "set_surrogate_gradient",
]


def _policy_and_values(log_policy: Any, **named: Any) -> list[np.ndarray]:
    log_policy, *values = _validate.numpy_arrays(log_policy=log_policy, **named)
    _validate.log_probs("log_policy", np, log_policy)
    for name, value in zip(named, values):
        _validate.same_last_axis(log_policy=log_policy, **{name: value})
        _bounded(name, value)
    return [np.exp(log_policy), *values]


def _bounded(name: str, value: np.ndarray) -> np.ndarray:
    """Finite, and small enough that a gradient does not overflow."""
    index = _validate.first_true(np, ~(np.abs(value).astype(np.float64) <= 1e150))
    if index is not None:
        _validate.fail(name, "must be finite (and at most 1e150 in size)", float(value[index]), index)
    return value


def population_gradient(log_policy: Any, reward: Any) -> np.ndarray:
    """Gradient of ``E_pi[reward]`` in the logits: ``pi (reward - E_pi[reward])``. ``(..., A)``."""
    pi, reward = _policy_and_values(log_policy, reward=reward)
    return np.asarray(pi * (reward - np.sum(pi * reward, axis=-1, keepdims=True)))


def _draws(log_policy: Any, counts: Any, advantage: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pi, counts, advantage = _policy_and_values(log_policy, counts=counts, advantage=advantage)
    _validate.budgets("counts", np, counts)
    total = counts.sum(axis=-1, keepdims=True)
    index = _validate.first_true(np, total == 0)
    if index is not None:
        _validate.fail("counts", "needs at least one draw", index=index[:-1])
    return pi, counts * advantage, total


def score_function_gradient(log_policy: Any, counts: Any, advantage: Any) -> np.ndarray:
    """REINFORCE over ``n = sum counts`` draws: ``(1/n) (c a - pi sum_i c_i a_i)``. ``(..., A)``."""
    pi, weighted, n = _draws(log_policy, counts, advantage)
    return np.asarray((weighted - pi * weighted.sum(axis=-1, keepdims=True)) / n)


def counts_surrogate_gradient(log_policy: Any, counts: Any, advantage: Any) -> np.ndarray:
    """Gradient of ``(1/n) sum_j a_j pi_{i_j}``, the draws held fixed. ``(..., A)``."""
    pi, weighted, n = _draws(log_policy, counts, advantage)
    return np.asarray(pi * (weighted - np.sum(weighted * pi, axis=-1, keepdims=True)) / n)


def set_surrogate_gradient(log_policy: Any, counts: Any, advantage: Any) -> np.ndarray:
    """As `counts_surrogate_gradient`, each drawn token counted once (``1/n`` keeps the number of draws)."""
    pi, _, n = _draws(log_policy, counts, advantage)
    counts, advantage = _validate.numpy_arrays(counts=counts, advantage=advantage)
    seen = (counts > 0) * advantage
    return np.asarray(pi * (seen - np.sum(seen * pi, axis=-1, keepdims=True)) / n)


def centre(
    reward: Any,
    counts: Any,
    *,
    baseline: Literal["none", "mean", "leave_one_out"] = "mean",
    scale: Literal["none", "std"] = "none",
) -> np.ndarray:
    """Advantage of every action in a batch of draws, ``(..., A)``.

    ``mean``: reward minus the batch mean; ``leave_one_out``: minus the mean of the other draws (times
    ``n/(n-1)`` of ``mean``). ``std``: divided by the batch standard deviation, left alone where it is 0.

    Raises:
        ValueError: an empty batch; leave-one-out of a single draw.
    """
    reward, counts = _validate.numpy_arrays(reward=reward, counts=counts)
    _bounded("reward", reward)
    _validate.budgets("counts", np, _bounded("counts", counts))
    _validate.same_last_axis(reward=reward, counts=counts)
    _validate.one_of("baseline", baseline, ("none", "mean", "leave_one_out"))
    _validate.one_of("scale", scale, ("none", "std"))
    n = counts.sum(axis=-1, keepdims=True)
    if np.any(n < (2 if baseline == "leave_one_out" else 1)):
        _validate.fail("counts", "needs two draws for leave-one-out, one otherwise")
    mean = np.sum(counts * reward, axis=-1, keepdims=True) / n
    advantage = reward - (mean if baseline != "none" else 0.0)
    if baseline == "leave_one_out":
        advantage = advantage * n / (n - 1)
    if scale == "std":
        deviation = np.sqrt(np.sum(counts * (reward - mean) ** 2, axis=-1, keepdims=True) / n)
        advantage = advantage / np.where(deviation > 0, deviation, 1.0)
    return np.asarray(advantage)


def _step(logits: Any, gradient: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits (no NaN, no ``+inf``) and a gradient of their shape."""
    logits, gradient = _validate.numpy_arrays(logits=logits, gradient=gradient)
    if gradient.shape != logits.shape:
        _validate.fail("gradient", f"must have the shape of logits {logits.shape}, got {gradient.shape}")
    index = _validate.first_true(np, np.isnan(logits) | (logits.astype(np.float64) > 1e300))
    if index is not None:
        _validate.fail("logits", "must not be NaN or inf", float(logits[index]), index)
    return logits, _bounded("gradient", gradient)


@dataclass(frozen=True)
class SGD:
    """``z + lr * gradient``; ``lr`` is at most 1e100 in size, gradients at most 1e150: no step overflows."""

    lr: float

    def __post_init__(self) -> None:
        _validate.real("lr", self.lr, low=-1e100, high=1e100)

    def step(self, logits: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, SGD]:
        """New logits, and the optimiser for the next step."""
        logits, gradient = _step(logits, gradient)
        return logits + self.lr * gradient, self


@dataclass(frozen=True)
class NaturalGradient:
    """``z + lr * (gradient / pi)``: the Fisher-preconditioned step, mirror descent with the KL. Limits as `SGD`."""

    lr: float

    def __post_init__(self) -> None:
        _validate.real("lr", self.lr, low=-1e100, high=1e100)

    def step(self, logits: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, NaturalGradient]:
        """New logits, and the optimiser for the next step; 0/0 (no support) does not move."""
        logits, gradient = _step(logits, gradient)
        _validate.log_probs("logits", np, logits, normalised=False)
        top = logits.max(axis=-1, keepdims=True)
        pi = np.exp(logits - top)
        pi = pi / pi.sum(axis=-1, keepdims=True)
        return logits + self.lr * np.where(pi > 0, gradient / np.where(pi > 0, pi, 1.0), 0.0), self


@dataclass(frozen=True)
class Adam:
    """AdamW as in torch, for ascent: bias-corrected moments, ``epsilon`` outside the root, decoupled decay.

    Moments live in the object that `step` returns; the one you construct is the start. ``lr``, ``epsilon`` and
    ``weight_decay`` are at most 1e100 in size, gradients and moments at most 1e150.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    taken: int = 0
    first: Any = 0.0
    second: Any = 0.0

    def __post_init__(self) -> None:
        _validate.real("lr", self.lr, low=-1e100, high=1e100)
        for name in ("beta1", "beta2"):
            _validate.real(name, getattr(self, name), low=0.0, high=1.0, open_high=True)
        for name in ("epsilon", "weight_decay"):
            _validate.real(name, getattr(self, name), low=0.0, high=1e100)
        _validate.integer("taken", self.taken, low=0)
        for name in ("first", "second"):
            _bounded(name, *_validate.numpy_arrays(**{name: getattr(self, name)}))

    def step(self, logits: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, Adam]:
        """New logits, and the optimiser with its moments for the next step."""
        logits, gradient = _step(logits, gradient)
        if np.ndim(self.first) != 0 and np.shape(self.first) != gradient.shape:
            _validate.fail(
                "gradient", f"must have the shape of the moments {np.shape(self.first)}, got {gradient.shape}"
            )
        t = self.taken + 1
        first = self.beta1 * self.first + (1 - self.beta1) * gradient
        second = self.beta2 * self.second + (1 - self.beta2) * gradient**2
        root = np.sqrt(second / (1 - self.beta2**t)) + self.epsilon
        # without epsilon, where no gradient ever was: no step
        move = first / (1 - self.beta1**t) / np.where(root > 0, root, 1.0)
        moved = logits * (1 - self.lr * self.weight_decay) + self.lr * move
        return moved, replace(self, taken=t, first=first, second=second)
