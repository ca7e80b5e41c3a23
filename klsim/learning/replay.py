r"""Training on several sources at once: replay, forgetting, and weights that follow the progress of every source.

A *source* is a `PromptBandit` (one world a seed, leading axes ``S``); sources of the same block share their weights. A
step draws, for every source k, ``B`` prompts with replacement and ``n`` answers each, and moves all weights by

.. math:: \Delta W = \eta \sum_k (\lambda_k s_k g_k - \beta_k h_k)

with ``g_k`` the mean group-normalised policy gradient (GRPO, on-policy, population deviation, 0 where all agree),
``h_k`` that of ``KL(pi‖pi_0)`` at the same prompts, ``s_k`` a constant share (0: not trained on) and ``lambda`` the
weights of `klsim.learning.reweighting` from the mean rewards of the last ``2 W`` steps, or 1 minus those. Leading axes
of the weights are mixtures and worlds; all mixtures see the same uniforms (common random numbers).

Source: ``recap`` C7, C8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.learning.reweighting import objective_weights
from klsim.problems import PromptBandit

__all__ = ["Mixture", "MixtureRun", "train_mixtures"]


@dataclass(frozen=True)
class Mixture:
    """How the sources are mixed.

    Attributes:
        share: ``s_k`` of every source, >= 0; 0 leaves it out.
        beta: ``beta_k``, the KL penalty at the prompts of every source; empty is none.
        temperature: of the weights; infinite is uniform.
        track: what the weights follow: mean rewards, or losses ``1 - reward``.
    """

    share: tuple[float, ...]
    beta: tuple[float, ...] = ()
    temperature: float = math.inf
    track: Literal["reward", "loss"] = "reward"

    def __post_init__(self) -> None:
        for name in ("share", "beta"):
            values = _validate.sequence(name, getattr(self, name))
            checked = tuple(_validate.real(f"{name}[{k}]", v, low=0.0, high=1e6) for k, v in enumerate(values))
            object.__setattr__(self, name, checked)
        if not self.share or len(self.beta) not in (0, len(self.share)):
            _validate.fail("beta", f"must have one entry a source, got {len(self.beta)} for {len(self.share)}")
        _validate.real("temperature", self.temperature, low=0.0, open_low=True)
        _validate.one_of("track", self.track, ("reward", "loss"))


@dataclass(frozen=True)
class MixtureRun:
    """Runs of M mixtures in worlds S on K sources.

    Attributes:
        steps: numbers of steps at which ``success`` was taken.
        success: mean success of every source, exact, ``(M, *S, steps, K)``.
        reward: mean reward of every step's answers, ``(M, *S, T, K)``. weights: ``lambda``, the same shape.
        parameters: final weights of every block, ``(M, *S, A, D)``.
    """

    steps: np.ndarray
    success: np.ndarray
    reward: np.ndarray
    weights: np.ndarray
    parameters: tuple[np.ndarray, ...]


def _softmax(z: np.ndarray) -> np.ndarray:
    power = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(power / power.sum(axis=-1, keepdims=True))


def _logits(base: np.ndarray, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(base + features @ np.swapaxes(weights, -1, -2))


class _Source:
    """One source: its prompts of a step, and the two gradients there."""

    def __init__(self, problem: PromptBandit, uniforms: np.ndarray) -> None:
        prompts = problem.base_logits.shape[-2]
        self.problem, self.uniforms = problem, uniforms[..., 1:]
        self.index = np.minimum((uniforms[..., 0] * prompts).astype(np.int64), prompts - 1)

    def at(self, step: int) -> list[np.ndarray]:
        """Base logits, rewards and features of the step's prompts, ``(*S, B, ...)``."""
        index = self.index[..., step, :, None]
        parts = (self.problem.base_logits, self.problem.reward, self.problem.features)
        return [np.take_along_axis(part, index, axis=-2) for part in parts]

    def success(self, weights: np.ndarray) -> np.ndarray:
        pi = _softmax(_logits(self.problem.base_logits, self.problem.features, weights))
        return np.asarray(np.sum(pi * self.problem.reward, axis=-1).mean(axis=-1))

    def gradients(
        self, weights: np.ndarray, step: int, beta: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``g`` (for the share), ``beta h`` (0 without), mean reward of the step's answers."""
        base, reward, features = self.at(step)
        logits = _logits(base, features, weights)
        pi = _softmax(logits)
        cdf = np.cumsum(pi, axis=-1)[..., None, :-1]
        answers = np.sum(self.uniforms[..., step, :, :, None] > cdf, axis=-1)  # (..., B, n)
        rows = np.broadcast_to(reward, pi.shape)
        gained = np.take_along_axis(rows, answers, axis=-1)
        centred = gained - gained.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True))
        # rewards that agree differ from their mean by rounding at most
        level = np.abs(gained).max(axis=-1, keepdims=True)
        advantage = np.where(deviation > 1e-12 * level, centred / np.where(deviation > 0, deviation, 1.0), 0.0)
        drawn = answers[..., None] == np.arange(pi.shape[-1])
        direction = np.sum(advantage[..., None] * drawn, axis=-2) / answers.shape[-1]
        direction = direction - pi * direction.sum(axis=-1, keepdims=True)
        pull = np.zeros_like(weights)
        if beta is not None:
            ratio = log_normalize(logits) - log_normalize(base)
            held = pi * (ratio - np.sum(pi * ratio, axis=-1, keepdims=True))
            pull = beta * _pulled(held, features)
        return _pulled(direction, features), pull, gained.mean(axis=(-1, -2))


def _pulled(direction: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mean over prompts, in the weights: ``(..., A, D)``."""
    return np.asarray(np.swapaxes(direction, -1, -2) @ features / features.shape[-2])


def _checked(
    sources: Any, mixtures: Any, uniforms: Any, blocks: Any
) -> tuple[list[_Source], list[Mixture], list[int], tuple[int, ...]]:
    """The sources, their blocks, and ``(*S, T)``."""
    problems = _validate.sequence("sources", sources, of=PromptBandit)
    plans = _validate.sequence("mixtures", mixtures, of=Mixture)
    if not problems or not plans:
        _validate.fail("sources", "needs at least one source and one mixture")
    for number, plan in enumerate(plans):
        if len(plan.share) != len(problems):
            _validate.fail(f"mixtures[{number}]", f"has {len(plan.share)} shares for {len(problems)} sources")
    (uniforms,) = _validate.numpy_arrays(uniforms=uniforms)
    worlds = problems[0].base_logits.shape[:-2]
    if uniforms.ndim != len(worlds) + 4 or uniforms.shape[: len(worlds)] != worlds or uniforms.shape[-1] < 2:
        _validate.fail("uniforms", f"must be (*{worlds}, T, K, B, 1 + n), got {uniforms.shape}")
    if uniforms.shape[-3] != len(problems) or uniforms.shape[-2] < 1:
        _validate.fail("uniforms", f"must hold {len(problems)} sources and a prompt each, got {uniforms.shape}")
    _validate.unit_interval("uniforms", np, uniforms)
    owners = [0] * len(problems) if blocks is None else [_validate.integer("blocks", b, low=0) for b in blocks]
    if len(owners) != len(problems) or set(owners) != set(range(max(owners) + 1)):
        _validate.fail("blocks", f"must number a block of every source from 0, got {owners}")
    for k, problem in enumerate(problems):
        if problem.weight_shape != problems[owners.index(owners[k])].weight_shape or (
            problem.base_logits.shape[:-2] != worlds
        ):
            _validate.fail(f"sources[{k}]", "must have the worlds of all and the weights of its block")
        _validate.finite(f"sources[{k}].base_logits", np, problem.base_logits)
    found = [_Source(p, uniforms[..., k, :, :]) for k, p in enumerate(problems)]
    return found, plans, owners, (*worlds, uniforms.shape[-4])


def _stepped(
    sources: list[_Source], owners: list[int], plans: list[Mixture], weights: list[np.ndarray], step: int,
    focus: np.ndarray,
) -> tuple[list[np.ndarray], np.ndarray]:  # fmt: skip
    """The sum of all gradients, by block, and the mean rewards ``(M, *S, K)``."""
    up, rewards = [np.zeros_like(w) for w in weights], []
    shape = (len(plans),) + (1,) * (weights[0].ndim - 1)
    for k, (source, owner) in enumerate(zip(sources, owners)):
        share = np.reshape([p.share[k] for p in plans], shape)
        beta = np.reshape([p.beta[k] if p.beta else 0.0 for p in plans], shape)
        gain, pull, reward = source.gradients(weights[owner], step, beta if beta.any() else None)
        up[owner] = up[owner] + share * focus[..., k, None, None] * gain - pull
        rewards.append(reward)
    return up, np.stack(rewards, axis=-1)


def train_mixtures(
    sources: Sequence[PromptBandit],
    mixtures: Sequence[Mixture],
    uniforms: Any,
    *,
    lr: float,
    window: int = 10,
    floor: float = 1e-3,
    blocks: Sequence[int] | None = None,
    record: Sequence[int] = (),
) -> MixtureRun:
    """Train every mixture in every world, from the sources' base policies (the references of the penalties).

    Args:
        sources: K problems with the same leading axes ``S``.
        uniforms: in [0, 1], ``(*S, T, K, B, 1 + n)``: what picks the prompt (first) and its answers, step by step.
        lr: ``eta``. window, floor: of the statistics; weights are 1 for the first ``2 window`` steps.
        blocks: which sources share weights, numbered from 0; None: all do.
        record: numbers of steps after which the success is kept (the end always is).

    Raises:
        ValueError: shapes that do not fit, base logits without full support.
    """
    found, plans, owners, (*worlds, steps) = _checked(sources, mixtures, uniforms, blocks)
    lr = _validate.real("lr", lr, low=-1e6, high=1e6)
    window = _validate.integer("window", window, low=1)
    floor = _validate.real("floor", floor, low=0.0, open_low=True)
    marks = sorted({_validate.integer("record", k, low=0, high=steps) for k in record} | {steps})
    lead = (len(plans), *worlds)
    weights = [np.zeros((len(plans), *sources[owners.index(block)].weight_shape)) for block in range(max(owners) + 1)]
    tail = (1,) * len(worlds)
    temperature = np.reshape([p.temperature for p in plans], (-1, *tail))
    losses = np.reshape([p.track == "loss" for p in plans], (-1, *tail, 1))
    rewards, focus = np.zeros((*lead, steps, len(found))), np.ones((*lead, steps, len(found)))
    history, success = np.zeros((*lead, len(found), steps)), []
    for step in range(steps + 1):
        if step in marks:
            success.append(np.stack([s.success(weights[b]) for s, b in zip(found, owners)], axis=-1))
        if step == steps:
            break
        if step >= 2 * window:
            recent = history[..., step - 2 * window : step]
            focus[..., step, :] = objective_weights(recent, window, temperature, floor=floor)
        up, reward = _stepped(found, owners, plans, weights, step, focus[..., step, :])
        weights = [w + lr * u for w, u in zip(weights, up)]
        rewards[..., step, :] = reward
        history[..., step] = np.where(losses, 1 - reward, reward)
    return MixtureRun(np.asarray(marks), np.stack(success, axis=-2), rewards, focus, tuple(weights))
