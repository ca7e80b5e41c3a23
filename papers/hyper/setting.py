"""What claims and figures of hyper share: one PPO iteration with hyperbolic heads, gradients along rays, wrong variants."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.learning import Adam
from klsim.learning.clipped_ascent import clipped_gradient
from klsim.learning.hyperbolic_heads import BoundedFeatures, HyperbolicHead, largest_scale
from klsim.learning.networks import Linear, Network, Tanh, start_all, update

SCALES = (0.3, 1.0, 3.0)
STATES, INPUTS, WIDTH, ACTIONS, STEPS = 256, 8, 32, 6, 32
CLIP, RATE, LONGEST = 0.2, 5e-3, 0.5
NETWORK = Network((Linear(INPUTS, WIDTH), Tanh(), Linear(WIDTH, WIDTH)))


class Arm(NamedTuple):
    """A policy ``softmax(logits)`` on encoder outputs h: features, then ``gain * head(shrink * features)``."""

    head: HyperbolicHead
    features: BoundedFeatures | None = None
    shrink: float = 1.0
    gain: float = 1.0
    offsets: bool = True


BALL, HYPERBOLOID = HyperbolicHead("ball"), HyperbolicHead("hyperboloid")
FEATURES = BoundedFeatures(largest_scale())
ARMS = {
    "poincare": Arm(BALL),
    "hyperboloid": Arm(HYPERBOLOID),
    "Hyper++": Arm(HYPERBOLOID, FEATURES),
    "poincare, half scale": Arm(BALL, shrink=0.5, gain=0.5),
}


class Worlds(NamedTuple):
    """Contextual bandits ``(S, …)``: states, the network's start, normals, what draws the actions, advantages."""

    x: np.ndarray
    parameters: tuple[np.ndarray, ...]
    z: np.ndarray
    uniform: np.ndarray
    advantage: np.ndarray

    @classmethod
    def draw(cls, rngs):
        """One a generator; the same for all arms and scales."""
        made = []
        for rng in rngs:
            advantage = rng.standard_normal(STATES)
            made.append((rng.standard_normal((STATES, INPUTS)), NETWORK.start(rng), rng.standard_normal((ACTIONS, WIDTH)) / WIDTH**0.5,
                         rng.random(STATES), (advantage - advantage.mean()) / advantage.std()))  # fmt: skip
        x, parameters, z, uniform, advantage = zip(*made)
        return cls(np.array(x), tuple(map(np.array, zip(*parameters))), *map(np.array, (z, uniform, advantage)))


class Iteration(NamedTuple):
    """Of one PPO iteration, ``(S,)`` each: KL(old|new), share of ratios off by > .2, first gradient norm, mean and largest |u| at the start."""

    kl: np.ndarray
    clipped: np.ndarray
    first_norm: np.ndarray
    radius: np.ndarray
    largest: np.ndarray


def forward(arm, x, parameters):
    """Logits, the head's input, and a function from a gradient in the logits to those in the parameters."""
    *network, z, r, w, b = parameters
    h, tape = NETWORK.forward(network, x)
    u, feature_tape = (h, None) if arm.features is None else arm.features.forward(h, w, b)
    logits, head_tape = arm.head.forward(arm.shrink * u, z, r)

    def backward(slope):
        in_u, in_z, in_r = arm.head.backward(head_tape, arm.gain * slope)
        in_h, in_w, in_b = arm.shrink * in_u, np.zeros_like(w), np.zeros_like(b)
        if feature_tape is not None:
            in_h, in_w, in_b = arm.features.backward(feature_tape, in_h)
        in_network, _ = NETWORK.backward(network, tape, in_h)
        return (*in_network, in_z, in_r * arm.offsets, in_w, in_b)

    return arm.gain * logits, u, backward


def ppo(worlds, arm, scale, steps=STEPS):
    """One iteration: one action a state from the old policy, ``steps`` full-batch Adam steps on the clipped surrogate."""
    count = len(worlds.x)
    first, bias, second, other = worlds.parameters
    zeros = np.zeros((count, ACTIONS)), np.zeros((count, WIDTH)), np.zeros(count)
    parameters = (first, bias, scale * second, other, worlds.z, *zeros)
    optimisers = start_all(Adam(RATE, epsilon=1e-5), parameters)
    logits, u, _ = forward(arm, worlds.x, parameters)
    log_old, size = log_normalize(logits), np.linalg.norm(u, axis=-1)
    drawn = (np.exp(log_old).cumsum(axis=-1) < worlds.uniform[..., None]).sum(axis=-1).clip(max=ACTIONS - 1)
    chosen = np.eye(ACTIONS)[drawn]
    weighted = chosen * worlds.advantage[..., None] / np.exp(log_old)
    norms = []
    for _ in range(steps):
        logits, _, backward = forward(arm, worlds.x, parameters)
        ascent = clipped_gradient(log_normalize(logits), log_old, weighted, low=CLIP, high=CLIP)
        gradients = backward(-ascent / STATES)
        norms.append(np.sqrt(sum(np.sum(g.reshape(count, -1) ** 2, axis=1) for g in gradients)))
        short = np.minimum(1, LONGEST / (norms[-1] + 1e-6))
        gradients = [g * short.reshape(-1, *[1] * (g.ndim - 1)) for g in gradients]
        parameters, optimisers = update(optimisers, parameters, gradients)
    log_new = log_normalize(forward(arm, worlds.x, parameters)[0])
    ratio = np.exp(np.sum((log_new - log_old) * chosen, axis=-1))
    return Iteration(kl(log_old, log_new).mean(axis=-1), (np.abs(ratio - 1) > CLIP).mean(axis=-1), norms[0],
                     size.mean(axis=-1), size.max(axis=-1))  # fmt: skip
