"""What claims and figures of hyper share: one PPO iteration with hyperbolic heads, gradients along rays, wrong variants."""

from __future__ import annotations

from typing import NamedTuple

import mpmath as mp
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.learning import Adam
from klsim.learning.clipped_ascent import clipped_gradient
from klsim.learning.hyperbolic import ball_exp, clip_to_ball, conformal_factor, hyperboloid_distance, hyperboloid_exp
from klsim.learning.hyperbolic_heads import (
    BoundedFeatures,
    HyperbolicHead,
    ball_logits_gradient,
    bounded_features,
    hyperboloid_logits_gradient,
    largest_scale,
)
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


# activations with f(0) = 0 and slopes up to 1, and others
BOUNDED = {
    "tanh": np.tanh,
    "relu": lambda t: np.maximum(t, 0),
    "softsign": lambda t: t / (1 + np.abs(t)),
    "sin": np.sin,
}
SHIFTED = {"softplus": lambda t: np.logaddexp(0, t), "tanh + 1/2": lambda t: np.tanh(t) + 0.5, "cos": np.cos}
STEEP = {"2 tanh": lambda t: 2 * np.tanh(t)}
STEEPER = {"gelu": lambda t: t * ndtr(t), "silu": lambda t: t / (1 + np.exp(-t))}  # slopes up to 1.13 and 1.10


def gaussians(rng):
    """256 vectors of 2, 8 or 32 entries."""
    return rng.standard_normal((256, rng.choice([2, 8, 32])))


def bounded_norms(h, c, *, name="", divided=True, normalised=True):
    """|q|, and norm and conformal factor of its point in the ball, of features q of ``h (…, d)``; and their caps."""
    root, width = np.sqrt(c), h.shape[-1]
    chosen = [{**SHIFTED, **STEEP}[name]] if name else ["tanh", "relu", np.sin]
    q = np.array(
        [bounded_features(h, activation=f) for f in chosen] if normalised else [np.maximum(h, 0) / np.sqrt(width)]
    )
    q = q if divided else q * np.sqrt(width)
    x = clip_to_ball(ball_exp(q, curvature=c), curvature=c, margin=1e-12)
    found = np.array([np.linalg.norm(q, axis=-1), np.linalg.norm(x, axis=-1), conformal_factor(x, curvature=c)])
    caps = np.array([1.0, np.tanh(root) / root, 2 * np.cosh(root) ** 2])
    return found, caps.reshape(3, *[1] * (found.ndim - 1))


def sphere_area(n):
    """Of the sphere of n dimensions, ``|S^n| = 2 pi/(n - 1) |S^{n-2}|`` from ``|S^0| = 2``, ``|S^1| = 2 pi``."""
    return [2.0, 2 * np.pi][n] if n < 2 else 2 * np.pi / (n - 1) * sphere_area(n - 2)


class Points(NamedTuple):
    """A curvature -c and vectors ``u (8, 5)``."""

    c: float
    u: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(float(rng.choice([0.5, 1.0, 2.0])), rng.standard_normal((8, 5)))


class Classified(NamedTuple):
    """A curvature -c, vectors ``u (4, 6)``, normals ``z (4, 6)`` and offsets ``r (4,)``."""

    c: float
    u: np.ndarray
    z: np.ndarray
    r: np.ndarray

    @classmethod
    def draw(cls, rng):
        u, z = rng.standard_normal((2, 4, 6))
        return cls(float(rng.choice([0.5, 1.0, 2.0])), u, z, 0.5 * rng.standard_normal(4))

    @property
    def factor(self):
        """``lambda`` of the points ``exp(u)`` of the ball, exactly: its rounding error is eps times as large."""
        return 2 * np.cosh(np.sqrt(self.c) * np.linalg.norm(self.u, axis=-1, keepdims=True)) ** 2


class Scored(NamedTuple):
    """Logits ``(9, 51)`` of a scale from 1 to 100, and a target."""

    logits: np.ndarray
    t: float

    @classmethod
    def draw(cls, rng):
        return cls(100 ** rng.random() * rng.standard_normal((9, 51)), float(rng.uniform(-30, 30)))


class Ray(NamedTuple):
    """A normal z, a direction on its hyperplane (through w), and a distance R from the origin."""

    z: np.ndarray
    w: np.ndarray
    distance: float

    @classmethod
    def draw(cls, rng):
        return cls(*rng.standard_normal((2, 6)), float(np.exp(rng.uniform(np.log(0.1), np.log(20.0)))))

    @property
    def direction(self):
        across = self.w - self.z * (self.w @ self.z) / (self.z @ self.z)
        return across / np.linalg.norm(across)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def ray_length(radius, density, ends):
    """``int_0^radius density(s) ds`` of every radius ``(n,)`` by Gauss-Legendre on panels with these ends in [0, 1]."""
    low, width = ends[:-1, None], np.diff(ends)[:, None]
    nodes, weights = low + width * (NODES + 1) / 2, width * WEIGHTS / 2
    values = density(radius[:, None, None] * nodes)
    return radius * np.sum(values * weights, axis=(1, 2))


TOWARDS_END = np.r_[1 - 0.5 ** np.arange(30.0), 1]
TOWARDS_START = np.r_[0, 0.5 ** np.arange(20.0)[::-1]]


def differences(function, at, step):
    """Central differences of ``function (m, d) -> (m, k)`` at ``(n, d)`` with steps ``(n, 1)``: ``(n, k, d)``."""
    n, d = at.shape
    shifts = step[:, None] * np.eye(d)
    up, down = (function((at[:, None] + sign * shifts).reshape(n * d, d)).reshape(n, d, -1) for sign in (1, -1))
    return np.swapaxes((up - down) / (2 * step[:, None]), 1, 2)


def head_gradient(model, u, z, r, c=1.0):
    """Gradient of the logits of ``u (n, d)`` in u by the head's backward pass, ``(n, K, d)``."""
    head = HyperbolicHead(model, c)
    one_each = np.repeat(u[:, None], len(z), axis=1).reshape(-1, u.shape[1])
    _, tape = head.forward(one_each, z, r)
    upstream = np.tile(np.eye(len(z)), (len(u), 1))
    return head.backward(tape, upstream)[0].reshape(len(u), len(z), -1)


def weight_gradients(model, p, step=1e-5):
    """Derivatives of a weighted sum of the logits along a direction in z and in r, by the backward pass and differences.

    And what their rounding is relative to.
    """
    head, turn = HyperbolicHead(model, p.c), np.roll(p.z, 1, axis=1)
    upstream = np.cos(np.arange(len(p.u) * len(p.z))).reshape(len(p.u), -1)
    of = lambda z, r: np.sum(upstream * head.forward(p.u, z, r)[0])  # noqa: E731
    _, in_z, in_r = head.backward(head.forward(p.u, p.z, p.r)[1], upstream)
    found = np.sum(in_z * turn), in_r[0], in_r[-1]
    ends = [
        (of(p.z + h * turn, p.r), of(p.z, p.r + h * np.eye(len(p.r))[0]), of(p.z, p.r + h * np.eye(len(p.r))[-1]))
        for h in (step, -step)
    ]
    return np.array(found), np.subtract(*ends) / (2 * step), np.abs(upstream).sum()


def growth(model, distance, on):
    """Norms of ``dv/dx_H``, ``dx_H/dx_E`` and ``dv/dx_E`` at distances ``(n,)`` from the origin (c = 1, d = 6, z = e_1, r = 0).

    Along e_2, on the hyperplane, or (e_1 + e_2)/sqrt(2). The map's Jacobian by central differences, in operator norm.
    """
    z, r, ball = np.eye(1, 6), np.zeros(1), model == "ball"
    direction = np.eye(6)[1] if on else (np.eye(6)[0] + np.eye(6)[1]) / np.sqrt(2)
    u = distance[:, None] * direction / (2 if ball else 1)
    exp, slope = (ball_exp, ball_logits_gradient) if ball else (hyperboloid_exp, hyperboloid_logits_gradient)
    jacobian = differences(exp, u, np.full((len(u), 1), 1e-5))
    return {"head": np.linalg.norm(slope(exp(u), z, r)[:, 0], axis=-1), "map": np.linalg.norm(jacobian, 2, axis=(1, 2)),
            "encoder": np.linalg.norm(head_gradient(model, u, z, r)[:, 0], axis=-1)}  # fmt: skip


def other_ball_logits(x, z, r, c):
    """Logits of the ball with ``2(1 - c|x|^2)`` where the conformal factor belongs, as some public code has it."""
    size, factor = np.linalg.norm(z, axis=-1), 2 * (1 - c * np.sum(x**2, axis=-1, keepdims=True))
    argument = factor * np.sqrt(c) * (x @ (z / size[:, None]).T) * np.cosh(2 * np.sqrt(c) * r)
    return 2 * size / np.sqrt(c) * np.arcsinh(argument - (factor - 1) * np.sinh(2 * np.sqrt(c) * r))


def distance_to_line(y, z, r, c):
    """From a point of the hyperbolic plane to the geodesic ``<y', e> cosh(sqrt(c) r) = y'_0 sinh(sqrt(c) r)``, by minimisation along it."""
    root, e = np.sqrt(c), z / np.linalg.norm(z)

    def on_line(s):
        start, across = np.r_[np.cosh(root * r), np.sinh(root * r) * e], np.r_[0, -e[1], e[0]]
        return (np.cosh(s) * start + np.sinh(s) * across) / root

    # by golden section: cosh of the distance is convex along a geodesic
    return float(
        minimize_scalar(lambda s: hyperboloid_distance(y, on_line(s), curvature=c), (-1, 1), options={"xtol": 1e-9}).fun
    )


def unclipped_histogram(target, edges, sigma):
    """HL-Gauss as its formula is written, the target not clipped."""
    cdf = ndtr((edges - np.asarray(target)[..., None]) / sigma)
    return np.diff(cdf) / (cdf[..., -1:] - cdf[..., :1])


def exact_logits(u, z, r, ball):
    """Logits of ``u (n, d)``, ``(n, K)``, by the formulas for points of the ball or the hyperboloid (c = 1) in 60 digits."""
    with mp.workdps(60):
        out = np.empty((len(u), len(z)))
        for (i, k), _ in np.ndenumerate(out):
            length, size, offset = mp.norm(u[i].tolist()), mp.norm(z[k].tolist()), mp.mpf(r[k])
            along = mp.fdot(u[i].tolist(), z[k].tolist()) / (length * size)
            if ball:
                x = mp.tanh(length)
                factor = 2 / (1 - x**2)
                inner = factor * x * along * mp.cosh(2 * offset) - (factor - 1) * mp.sinh(2 * offset)
                out[i, k] = 2 * size * mp.asinh(inner)
            else:
                inner = mp.sinh(length) * along * mp.cosh(offset) - mp.cosh(length) * mp.sinh(offset)
                out[i, k] = size * mp.asinh(inner)
        return out


def last_inside(kind):
    """The largest ``|u|`` (to 1e-4) whose ``ball_exp`` is inside the ball in floating point of this kind, in one dimension."""
    low, high = 1.0, 30.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        try:
            conformal_factor(ball_exp(np.array([middle], dtype=kind)))
            low = middle
        except ValueError:
            high = middle
    return low


def surrogate(worlds, arm, parameters, log_old, chosen):
    """PPO's clipped surrogate of the one seed there is, term by term."""
    log_new = log_normalize(forward(arm, worlds.x, parameters)[0])
    ratio = np.exp(np.sum((log_new - log_old) * chosen, axis=-1))
    return float(np.mean(np.minimum(ratio * worlds.advantage, np.clip(ratio, 1 - CLIP, 1 + CLIP) * worlds.advantage)))


def radial_logit(distance):
    """The ball's logit over |z| off the hyperplane of `growth`: ``2 asinh(sinh(R)/sqrt(2))``."""
    return 2 * np.arcsinh(np.sinh(distance) / np.sqrt(2))
