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


def _flat(array: np.ndarray, kept: int) -> np.ndarray:
    """Leading axes as one, the last ``kept`` as they are."""
    return np.ascontiguousarray(array, dtype=np.float64).reshape(-1, *array.shape[array.ndim - kept :])


class _Source:
    """One source: its prompts of a step, and the two gradients there. Worlds are one axis ``S``.

    Inside answers come first, ``(A, ..., M, S, B)``: sums over few answers are then sums of long rows.
    """

    def __init__(self, problem: PromptBandit, uniforms: np.ndarray) -> None:
        prompts = problem.base_logits.shape[-2]
        self.base, self.reward, self.features = (
            _flat(x, 2) for x in (problem.base_logits, problem.reward, problem.features)
        )
        uniforms = _flat(uniforms, 3)
        self.index = np.minimum((uniforms[..., 0] * prompts).astype(np.int64), prompts - 1)
        self.uniforms = np.moveaxis(uniforms[..., 1:], -1, 0)[:, None]  # (n, 1, S, T, B)
        self.worlds = np.arange(len(self.base))[:, None]

    def success(self, weights: np.ndarray) -> np.ndarray:
        logits = self.base + self.features @ np.swapaxes(weights, -1, -2)
        power = np.exp(logits - logits.max(axis=-1, keepdims=True))
        pi = power / power.sum(axis=-1, keepdims=True)
        return np.asarray(np.sum(pi * self.reward, axis=-1).mean(axis=-1))

    def gradients(
        self, weights: np.ndarray, step: int, beta: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``g`` and ``beta h`` in the weights, ``(M, S, A, D)``, and the mean reward of the answers, ``(M, S)``."""
        prompts = self.index[:, step]
        features = self.features[self.worlds, prompts]  # (S, B, D)
        base, reward = (np.moveaxis(x[self.worlds, prompts], -1, 0)[:, None] for x in (self.base, self.reward))
        moved = _by_world(weights) @ np.swapaxes(features, -1, -2)  # one product a world, for all mixtures
        moved = moved.reshape(len(features), *weights.shape[::2], -1).transpose(2, 1, 0, 3)  # (A, M, S, B)
        logits = base + moved
        logits = logits - logits.max(axis=0)
        power = np.exp(logits)
        total = power.sum(axis=0)
        pi = power / total
        uniforms = self.uniforms[:, :, :, step]
        answers = np.zeros(np.broadcast_shapes(uniforms.shape, total.shape), dtype=np.int32)  # (n, M, S, B)
        for edge in np.cumsum(pi[:-1], axis=0):
            answers += uniforms > edge
        drawn = [answers == a for a in range(len(pi))]
        gained = np.asarray(sum(r * hit for r, hit in zip(reward, drawn)))
        advantage = _normalised(gained)
        # advantages sum to 0: no term in pi
        direction = np.stack([np.sum(advantage * hit, axis=0) for hit in drawn]) / len(answers)
        pull = np.zeros_like(weights)
        if beta is not None:
            log_base = base - base.max(axis=0)
            log_base = log_base - np.log(np.exp(log_base).sum(axis=0))
            ratio = logits - np.log(total) - log_base
            pull = beta * _pulled(pi * (ratio - np.sum(pi * ratio, axis=0)), features)
        return _pulled(direction, features), pull, gained.mean(axis=(0, -1))


def _normalised(gained: np.ndarray) -> np.ndarray:
    """Advantages of a group, axis 0: minus the mean, over the population deviation; 0 where all agree."""
    level = np.abs(gained).max(axis=0)
    gained = gained / np.where(level > 0, level, 1.0)  # squares of any rewards are then representable
    centred = gained - gained.mean(axis=0)
    deviation = np.sqrt(np.mean(centred**2, axis=0))
    # rewards that agree differ from their mean by rounding at most
    return np.where(deviation > 1e-12, centred / np.where(deviation > 0, deviation, 1.0), 0.0)


def _by_world(array: np.ndarray) -> np.ndarray:
    """``(M, S, A, X)`` -> ``(S, M A, X)``."""
    return np.swapaxes(array, 0, 1).reshape(array.shape[1], -1, array.shape[-1])


def _pulled(direction: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mean over prompts, in the weights: ``(M, S, A, D)`` from ``(A, M, S, B)`` and ``(S, B, D)``."""
    answers, mixtures, worlds, prompts = direction.shape
    found = _by_world(np.moveaxis(direction, 0, -2)) @ features / prompts
    return np.asarray(np.swapaxes(found.reshape(worlds, mixtures, answers, -1), 0, 1))


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
    if uniforms.shape[-3] != len(problems) or uniforms.size == 0:
        _validate.fail("uniforms", f"must hold {len(problems)} sources, a step and a prompt each, got {uniforms.shape}")
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
    shape = (-1, 1, 1, 1)
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
    count = math.prod(worlds)
    weights = [
        np.zeros((len(plans), count, *sources[owners.index(b)].weight_shape[-2:])) for b in range(max(owners) + 1)
    ]
    temperature = np.array([p.temperature for p in plans])[:, None]
    losses = np.array([p.track == "loss" for p in plans])[:, None, None]
    rewards, focus = np.zeros((len(plans), count, steps, len(found))), np.ones((len(plans), count, steps, len(found)))
    history, success = np.zeros((len(plans), count, len(found), steps)), []
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
    lead = (len(plans), *worlds)
    kept, rewards, focus = (x.reshape(*lead, *x.shape[2:]) for x in (np.stack(success, axis=-2), rewards, focus))
    return MixtureRun(np.asarray(marks), kept, rewards, focus, tuple(w.reshape(*lead, *w.shape[2:]) for w in weights))
