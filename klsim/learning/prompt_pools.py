r"""Pools of prompts with one success logit each: groups of rollouts, their cost, and curricula that keep the hardest.

Prompt x is solved with probability ``p_x = sigmoid(theta_x)``. A group of n rollouts has ``k ~ Bin(n, p_x)`` successes,
``p^ = k/n``, costs n whether it carries signal or not, and moves the logit by ``lr`` times `group_step`:
``sqrt(p^ (1 - p^))`` for advantages divided by the group's (population) std, ``p^ (1 - p^)`` for mean-centred ones:
the sampled policy gradients ``(1/n) sum_i A_i d log pi(y_i)/d theta`` of 0/1 rewards; their expectations are
`klsim.learning.difficulty.group_signal`. With ``transfer`` c every other logit moves by c times that.

A curriculum is a sequence of phases. Each estimates the pass rates of the prompts that are left (a group a prompt,
charged to the budget, not trained on), keeps the hardest, and spends a share of what is then left on them.

Source: ``drive`` C1-C4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit, logit

from klsim import _validate

__all__ = [
    "Phase",
    "PromptPool",
    "group_step",
    "hardest",
    "rollouts_for_success",
    "train_phases",
    "updates_to_reach",
]


def rollouts_for_success(success: Any, confidence: Any) -> np.ndarray:
    """Fewest rollouts of which one succeeds with probability ``confidence``: ``ceil(log(1 - q)/log(1 - p))``.

    At least 1; ``inf`` at p = 0. ``success`` in [0, 1], ``confidence`` in (0, 1), shapes broadcast; floats, since they
    exceed the integers for tiny p.
    """
    p, q = _validate.numpy_arrays(success=success, confidence=confidence)
    _validate.broadcast(success=p, confidence=q)
    _validate.unit_interval("success", np, p)
    _validate.unit_interval("confidence", np, q, open_ends=True)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.maximum(np.ceil(np.log1p(-q) / np.log1p(-p)), 1.0))


def _learning_rate(lr: float) -> float:
    return _validate.real("lr", lr, low=-1e100, high=1e100)


def _steps(group_size: int, std: bool) -> np.ndarray:
    """`group_step` of every count, for loops over updates."""
    _validate.fits("group_size", group_size, 4 * (group_size + 1))
    return group_step(np.arange(group_size + 1), group_size, std=std)


def group_step(successes: Any, group_size: int, *, std: bool = True) -> np.ndarray:
    """What a group with ``successes`` adds along its prompt's success logit: ``sqrt(p^ (1 - p^))`` or ``p^ (1 - p^)``.

    0 where all rollouts agree. ``successes``: integers in [0, group_size], any shape.
    """
    group_size = _validate.integer("group_size", group_size, low=1)
    rate = _validate.integers("successes", successes, low=0, high=group_size) / group_size
    return np.asarray(np.sqrt(rate * (1 - rate)) if _validate.flag("std", std) else rate * (1 - rate))


def hardest(rate: Any, size: int, among: Any = None) -> np.ndarray:
    """Mask of the ``size`` prompts with the lowest pass rates, ``(..., X)``; of equal ones the first.

    Args:
        rate: ``(..., X)``. among: mask of the prompts to choose from, of that shape; None: all.

    Raises:
        ValueError: ``size < 1``, or more than there are to choose from.
    """
    (rate,) = _validate.numpy_arrays(rate=rate)
    _validate.unit_interval("rate", np, rate)
    if rate.ndim == 0:
        _validate.fail("rate", "must have shape (..., X)")
    kept = _mask("among", among, rate.shape)
    size = _validate.integer("size", size, low=1)
    index = _validate.first_true(np, kept.sum(axis=-1) < size)
    if index is not None:
        _validate.fail(
            "size", f"must be at most the {int(kept.sum(axis=-1)[index])} prompts to choose from", size, index
        )
    order = np.argsort(np.where(kept, rate, 2.0), axis=-1, kind="stable")
    out = np.zeros(rate.shape, dtype=bool)
    np.put_along_axis(out, order[..., :size], True, axis=-1)
    return out


def _mask(name: str, mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, dtype=bool) if mask is None else _validate.boolean_mask(name, mask, shape)


@dataclass(frozen=True)
class PromptPool:
    """Prompts with success logits ``(..., X)`` (leading axes: seeds), and the rollouts spent on them (by each seed).

    Attributes:
        logits: finite. rollouts: spent so far, on updates and on estimates. transfer: in [0, 1], see the module.
    """

    logits: np.ndarray
    rollouts: int = 0
    transfer: float = 0.0

    def __post_init__(self) -> None:
        (logits,) = _validate.numpy_arrays(logits=self.logits)
        if logits.ndim == 0 or logits.shape[-1] == 0:
            _validate.fail("logits", f"must have shape (..., X) with X >= 1, got {logits.shape}")
        object.__setattr__(self, "logits", _validate.finite("logits", np, logits).astype(np.float64))
        _validate.integer("rollouts", self.rollouts, low=0)
        _validate.real("transfer", self.transfer, low=0.0, high=1.0)

    @classmethod
    def of_success(cls, success: Any, *, transfer: float = 0.0) -> PromptPool:
        """From success rates in (0, 1)."""
        (p,) = _validate.numpy_arrays(success=success)
        return cls(logit(_validate.unit_interval("success", np, p, open_ends=True)), transfer=transfer)

    @property
    def success(self) -> np.ndarray:
        """``sigmoid(theta)``, ``(..., X)``."""
        return np.asarray(expit(self.logits))

    def estimate(
        self, group_size: int, rng: np.random.Generator | int, among: Any = None
    ) -> tuple[np.ndarray, PromptPool]:
        """Pass rates ``k/n`` of one group a prompt, ``(..., X)`` (0 outside ``among``), and the pool that paid.

        ``among`` holds equally many prompts for each seed.
        """
        group_size = _validate.integer("group_size", group_size, low=1)
        kept = _mask("among", among, self.logits.shape)
        successes = _validate.generator(rng).binomial(group_size, self.success)
        return np.where(kept, successes / group_size, 0.0), self._charged(group_size * _count("among", kept))

    def sweep(self, group_size: int, lr: float, rng: np.random.Generator | int, *, std: bool = True) -> PromptPool:
        """One update of every prompt, all groups drawn before the first step."""
        group_size, lr = _validate.integer("group_size", group_size, low=1), _learning_rate(lr)
        successes = _validate.generator(rng).binomial(group_size, self.success)
        step = lr * group_step(successes, group_size, std=std)
        others = step.sum(axis=-1, keepdims=True) - step
        moved = replace(self, logits=self.logits + step + self.transfer * others)
        return moved._charged(group_size * self.logits.shape[-1])

    def train(
        self,
        updates: int,
        group_size: int,
        lr: float,
        rng: np.random.Generator | int,
        *,
        among: Any = None,
        std: bool = True,
    ) -> PromptPool:
        """``updates`` times: draw a prompt uniformly (from ``among``), roll out a group, step.

        ``among`` holds equally many prompts for each seed.
        """
        updates, lr = _validate.integer("updates", updates, low=0), _learning_rate(lr)
        group_size = _validate.integer("group_size", group_size, low=1)
        steps, rng = lr * _steps(group_size, std), _validate.generator(rng)
        kept = _mask("among", among, self.logits.shape).reshape(-1, self.logits.shape[-1])
        size = _count("among", kept)
        _validate.fits("updates", updates, updates * len(kept))
        own, rows, shared = self.logits.reshape(kept.shape).copy(), np.arange(len(kept)), np.zeros(len(kept))
        places = np.nonzero(kept)[1].reshape(-1, size)
        for pick in rng.integers(size, size=(updates, len(kept))):
            prompt = places[rows, pick]
            step = steps[rng.binomial(group_size, expit(own[rows, prompt] + shared))]
            own[rows, prompt] += (1 - self.transfer) * step
            shared += self.transfer * step
        logits = (own + shared[:, None]).reshape(self.logits.shape)
        return replace(self, logits=logits)._charged(updates * group_size)

    def _charged(self, rollouts: int) -> PromptPool:
        return replace(self, rollouts=self.rollouts + rollouts)


def _count(name: str, kept: np.ndarray) -> int:
    """How many prompts a mask keeps, the same for each seed."""
    counts = np.unique(kept.sum(axis=-1))
    if counts.size != 1 or counts[0] == 0:
        _validate.fail(name, f"must keep equally many prompts for each seed, at least one, got {counts.tolist()}")
    return int(counts[0])


@dataclass(frozen=True)
class Phase:
    """Keep the ``size`` hardest prompts of the phase before, and spend a ``share`` (in [0, 1]) of what is left."""

    size: int
    share: float = 1.0

    def __post_init__(self) -> None:
        _validate.integer("size", self.size, low=1)
        _validate.real("share", self.share, low=0.0, high=1.0)


def train_phases(
    pool: PromptPool,
    phases: Sequence[Phase],
    *,
    budget: int,
    group_size: int,
    lr: float,
    rng: np.random.Generator | int,
    std: bool = True,
) -> tuple[PromptPool, list[np.ndarray]]:
    """Train phase by phase, up to ``budget`` rollouts: the pool, and what each phase kept, ``(..., X)``.

    What the pool has spent before counts, too. A phase that keeps fewer prompts than the one before estimates all of
    those first, a group each. One phase that keeps them all is uniform sampling.

    Raises:
        ValueError: phases that grow, more prompts than the pool has, a budget that the estimates exceed.
    """
    _validate.instance("pool", pool, PromptPool)
    listed = _validate.sequence("phases", phases, of=Phase)
    budget, rng = _validate.integer("budget", budget, low=1), _validate.generator(rng)
    group_size = _validate.integer("group_size", group_size, low=1)
    kept, size, masks = np.ones(pool.logits.shape, dtype=bool), pool.logits.shape[-1], []
    for number, phase in enumerate(listed):
        if phase.size > size:
            _validate.fail(f"phases[{number}].size", f"must be at most {size}, the phase before", phase.size)
        if phase.size < size:
            rate, pool = pool.estimate(group_size, rng, kept)
            kept, size = hardest(rate, phase.size, kept), phase.size
        left = budget - pool.rollouts
        if left < 0:
            _validate.fail("budget", f"is exceeded by the {pool.rollouts} rollouts of estimates and before", budget)
        updates = math.floor(phase.share * left) // group_size
        pool = pool.train(updates, group_size, lr, rng, among=kept, std=std)
        masks.append(kept)
    return pool, masks


def updates_to_reach(
    start: Any,
    target: float,
    *,
    group_size: int,
    lr: float,
    rng: np.random.Generator | int,
    std: bool = True,
    most: int = 100_000,
) -> np.ndarray:
    """Updates (groups, with or without signal) until single prompts with success rates ``start`` reach ``target``.

    Args:
        start: in (0, 1), any shape; each is trained by itself. most: give up after so many updates.

    Raises:
        ValueError: not all have reached it after ``most`` updates.
    """
    (p,) = _validate.numpy_arrays(start=start)
    theta = logit(_validate.unit_interval("start", np, p, open_ends=True)).ravel()
    target, lr = _validate.probability("target", target), _learning_rate(lr)
    group_size, rng = _validate.integer("group_size", group_size, low=1), _validate.generator(rng)
    steps, out = lr * _steps(group_size, std), np.zeros(theta.size, dtype=np.int64)
    most, behind = _validate.integer("most", most, low=0), np.flatnonzero(p.ravel() < target)
    while behind.size:
        if out[behind[0]] == most:
            _validate.fail("most", f"{behind.size} prompts are below {target:g} after so many updates", most)
        out[behind] += 1
        theta[behind] += steps[rng.binomial(group_size, expit(theta[behind]))]
        behind = behind[expit(theta[behind]) < target]
    return out.reshape(p.shape)
