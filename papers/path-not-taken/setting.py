"""What the claims and figures of path-not-taken share: curved families of policies, and a small network that is pretrained
and then tuned by RL or supervision, batched over runs and seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.learning import weight_geometry as wg
from klsim.learning.networks import Linear, Network, ReLU, rounded

# C7, C8: the testbed --------------------------------------------------------------------------------
CLUSTERS, POINTS, BATCH, SAMPLES = 12, 1024, 64, 8
NETWORK = Network(
    (Linear(48, 96), ReLU(), Linear(96, 32, bias=False), Linear(32, 96), ReLU(), Linear(96, CLUSTERS)), "float32"
)
#: the four weight matrices among the parameters; V and O are what a rotation turns
MATRICES, NAMES, TURNED = (0, 2, 3, 5), ("48 to 96", "V", "O", "96 to 12"), (1, 2)
RANK, SHARE, LR, STEPS = 8, 0.3, 1e-6, 150
SIZES = [math.prod(shape) for shape in NETWORK.shapes]
ENDS = np.cumsum([0, *SIZES])


class Run(NamedTuple):
    """One tuning run: ``rl``, ``sft`` (cross-entropy on the label) or ``ood`` (on the next label), and its learning rate."""

    kind: str = "rl"
    lr: float = LR


class Base(NamedTuple):
    """Pretrained networks of S seeds, all parameters in one row (S, P), and their data: inputs (S, 1024, 48), labels."""

    flat: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def on_the_grid(self):
        """Every parameter rounded to bfloat16."""
        return self._replace(flat=rounded(self.flat, "bfloat16"))

    def turned(self, rng, turn="rotation"):
        """``V <- QV, O <- OQ'`` with an orthogonal Q of each seed, random or of random signs: the same function."""
        q, r = np.linalg.qr(rng.standard_normal((len(self.x), 32, 32)))
        signs = np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None]
        q = q * signs if turn == "rotation" else np.eye(32) * signs
        new = self.flat.copy()
        v, o = (views(new)[MATRICES[i]] for i in TURNED)
        v[:], o[:] = q @ v, o @ np.swapaxes(q, -1, -2)
        return self._replace(flat=new)

    def logits(self, flat):
        """At all points, ``(..., S, 1024, 12)``."""
        return forward(views(flat), self.x)[-1]

    def reward(self, flat):
        """Expected reward: the mean probability of the label, ``(..., S)``."""
        logits = self.logits(flat)
        chosen = np.broadcast_to(self.y[..., None], (*logits.shape[:-1], 1))
        return np.exp(np.take_along_axis(log_normalize(logits), chosen, axis=-1)).mean(axis=(-2, -1))


def shared_rng(rngs):
    """One generator made from those of all seeds; what it draws has an axis of seeds."""
    return np.random.default_rng([int(r.integers(2**63)) for r in rngs])


def views(flat):
    """Parameters as the network knows them, in place."""
    return tuple(
        flat[..., a:b].reshape(*flat.shape[:-1], *shape) for a, b, shape in zip(ENDS, ENDS[1:], NETWORK.shapes)
    )


def matrices(flat):
    return [views(flat)[i] for i in MATRICES]


def forward(own, x):
    """Values of all layers: the network's own layers, without its checks of every number at every step."""
    values = [x]
    for layer in NETWORK.layers:
        count = len(layer.shapes)
        values.append(layer.forward(own[:count], values[-1]))
        own = own[count:]
    return values


def gradient(flat, values, slope):
    """Gradient in all parameters, ``(..., P)``, from that in the logits (`C7/the_training_step` checks it)."""
    out, own = np.empty_like(flat), views(flat)
    into = views(out)
    for layer, x, y in reversed(list(zip(NETWORK.layers, values, values[1:]))):
        count = len(layer.shapes)
        mine, own = own[len(own) - count :], own[: len(own) - count]
        if not own:  # the gradient in the inputs is not needed
            mine = (mine[0][..., :0], mine[1])
        found, slope = layer.backward(mine, x, y, slope)
        for place, g in zip(into[len(own) :], found):
            place[:] = g
    return out


class Adam:
    """Adam in place, float32, a learning rate a row; the default betas and epsilon 1e-8 (checked against klsim's)."""

    def __init__(self, flat, lr):
        self.first, self.second, self.taken = np.zeros_like(flat), np.zeros_like(flat), 0
        self.lr = np.asarray(lr, np.float32)[..., None]

    def step(self, flat, g, corrected=True):
        self.taken += 1
        a, b = (1 - 0.9**self.taken, 1 - 0.999**self.taken) if corrected else (1.0, 1.0)
        self.first *= 0.9
        self.first += np.float32(0.1) * g
        self.second *= 0.999
        self.second += np.float32(0.001) * np.square(g)
        move = np.sqrt(self.second)  # m/a / (sqrt(v/b) + eps) = (sqrt(b)/a) m / (sqrt(v) + sqrt(b) eps)
        move += np.float32(math.sqrt(b) * 1e-8)
        np.divide(self.first, move, out=move)
        move *= self.lr * np.float32(math.sqrt(b) / a)
        flat -= move


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def batch(x, y, rng, lead, size):
    """Inputs ``(*lead, S, size, 48)`` and labels, drawn with replacement."""
    index = rng.integers(POINTS, size=(*lead, len(x), size))
    seed = np.arange(len(x))[:, None]
    return x[seed, index], y[seed, index]


def pretrained(rng, seeds, steps=400):
    """400 steps of cross-entropy at 2e-3 in batches of 128, 35 % of the labels replaced once by uniform ones."""
    scale = np.arange(1, 49) ** -0.5
    means = 1.2 * scale * rng.standard_normal((seeds, CLUSTERS, 48))
    y = rng.integers(CLUSTERS, size=(seeds, POINTS))
    x = means[np.arange(seeds)[:, None], y] + scale * rng.standard_normal((seeds, POINTS, 48))
    x = x.astype(np.float32)
    noisy = np.where(rng.random(y.shape) < 0.35, rng.integers(CLUSTERS, size=y.shape), y)
    fans = np.repeat([48, 48, 96, 32, 32, 96, 96], SIZES)  # weights and biases uniform in +-1/sqrt(inputs), as in torch
    flat = (rng.uniform(-1, 1, (seeds, ENDS[-1])) / np.sqrt(fans)).astype(np.float32)
    adam, one_hot = Adam(flat, np.full(seeds, 2e-3)), np.eye(CLUSTERS, dtype=np.float32)
    for _ in range(steps):
        inputs, label = batch(x, noisy, rng, (), 128)
        values = forward(views(flat), inputs)
        adam.step(flat, gradient(flat, values, (softmax(values[-1]) - one_hot[label]) / 128))
    return Base(flat, x, y)


def policy_weights(pi, aim, rng):
    """Weights t of the loss ``-sum_a t_a log pi(a)``: 8 samples, rewards 1 for the aim, advantages (r - mean)/std over 8.

    Samples by inversion: of the sorted thresholds, counts below them are cumulative counts.
    """
    cumulative = np.cumsum(pi, axis=-1)
    cumulative[..., -1] = 2.0
    u = rng.random((SAMPLES, *pi.shape[:-1]), dtype=np.float32)
    below = np.zeros(pi.shape, np.float32)
    for draw in u:
        below += draw[..., None] < cumulative
    counts = np.diff(below, axis=-1, prepend=np.float32(0))
    mean = (counts * aim).sum(axis=-1, keepdims=True) / SAMPLES
    spread = np.sqrt(mean * (1 - mean))
    return counts * (aim - mean) / (np.where(spread > 0, spread, 1) * SAMPLES)


def tuned(bases, runs, rng, steps=STEPS):
    """Parameters ``(runs, S, P)`` after 150 steps, each run from its base (or one for all) with batches and samples of its own.

    Bases share their data; batches of 64, moments from 0, constant learning rate.
    """
    bases = bases if isinstance(bases, list) else [bases] * len(runs)
    x, y = bases[0].x, bases[0].y
    flat = np.stack([b.flat for b in bases])
    seeds = len(x)
    adam = Adam(flat, np.repeat([[r.lr] for r in runs], seeds, axis=1))
    policy = np.array([r.kind == "rl" for r in runs])
    shift, one_hot = np.array([r.kind == "ood" for r in runs]), np.eye(CLUSTERS, dtype=np.float32)
    for _ in range(steps):
        inputs, label = batch(x, y, rng, (len(runs),), BATCH)
        values = forward(views(flat), inputs)
        pi = softmax(values[-1])
        target = one_hot[(label + shift[:, None, None]) % CLUSTERS]
        if policy.any():
            target[policy] = policy_weights(pi[policy], target[policy], rng)
        adam.step(flat, gradient(flat, values, (target.sum(axis=-1, keepdims=True) * pi - target) / BATCH))
    return flat


# what is measured of an update -----------------------------------------------------------------------
def sparsity(before, after, precision="bfloat16"):
    """Share of the entries of the four matrices that an update leaves as they are, ``(..., S)``; bfloat16 copies or float32."""
    seen = []
    for w, new in zip(matrices(before), matrices(after)):
        w = np.broadcast_to(w, new.shape)
        changed = wg.visible(w, new) if precision == "bfloat16" else w != new
        seen.append(changed.reshape(*changed.shape[:-2], -1))
    return 1 - np.concatenate(seen, axis=-1).mean(axis=-1)


def closed_form(before, after):
    """Expected sparsity, from sizes of steps and weights alone."""
    pairs = list(zip(matrices(before), matrices(after)))
    hidden = [1 - wg.expected_visibility(w, new - w) for w, new in pairs]
    return np.concatenate([h.reshape(*h.shape[:-2], -1) for h in hidden], axis=-1).mean(axis=-1)


def null(before, after, rng, kind="gaussian"):
    """Parameters after an update without structure, of equal norm matrix by matrix, added in float32."""
    out = np.array(np.broadcast_to(before, after.shape))
    for w, old, new in zip(matrices(out), matrices(before), matrices(after)):
        w[:] = old + wg.null_update(new - old, rng, kind)
    return out


def masks(before, after):
    """Visible entries of each matrix."""
    return [wg.visible(w, new) for w, new in zip(matrices(before), matrices(after))]


def references(base):
    """Principal and low masks of each matrix, and the principal entries that are not low."""
    out = []
    for w in matrices(base.flat):
        principal, low = wg.principal_mask(w, RANK, SHARE), wg.low_mask(w, SHARE)
        out.append({"principal": principal, "low": low, "principal, not low": principal & ~low})
    return out


def overlaps(base, after):
    """Overlap of the update's mask with the three reference masks over chance, mean over the matrices, ``(S,)`` each."""
    seen, known = masks(base.flat, after), references(base)
    return {name: np.mean([wg.overlap(r[name], m) for r, m in zip(known, seen)], axis=0) for name in known[0]}


def agreement(one, other):
    """Jaccard index of two updates' masks, mean over the matrices; and of independent masks as dense."""
    found = [wg.jaccard(a, b) for a, b in zip(one, other)]
    chance = [wg.bernoulli_jaccard(a.mean(axis=(-2, -1)), b.mean(axis=(-2, -1))) for a, b in zip(one, other)]
    return np.mean(found, axis=0), np.mean(chance, axis=0)


def shared_masks(one, other, which):
    """Overlap over chance of two updates' masks, mean over some of the matrices."""
    return np.mean([wg.overlap(one[i], other[i]) for i in which], axis=0)


def geometry(base, after):
    """Largest sine of the top-8 principal angles, and normalised spectral shift; means over the matrices, ``(S,)``."""
    pairs = list(zip(matrices(base.flat), matrices(after)))
    sine = np.mean([wg.principal_angles(w, new, RANK).largest_sine for w, new in pairs], axis=0)
    return sine, np.mean([wg.spectral_drift(w, new).relative for w, new in pairs], axis=0)


def directions(base, one, other):
    """Sign agreement and cosine of two updates of the four matrices."""
    a, b = (np.concatenate([(new - w).reshape(len(new), -1) for w, new in zip(matrices(base.flat), matrices(p))], axis=1) for p in (one, other))  # fmt: skip
    return (np.sign(a) == np.sign(b)).mean(axis=1), np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)  # fmt: skip


def null_agreement(base, runs, rng, kind):
    """Jaccard index of null updates of two runs, each of the norms (or sizes) of its own run."""
    return agreement(*(masks(base.flat, null(base.flat, after, rng, kind)) for after in runs))[0]


class Trained(NamedTuple):
    """A state of the testbed, and a generator's seed for samples."""

    flat: np.ndarray
    inputs: np.ndarray
    seed: int

    @classmethod
    def draw(cls, rng):
        base = pretrained(rng, 1, steps=3)
        return cls(base.flat, batch(base.x, base.y, rng, (), 16)[0], int(rng.integers(2**31)))


# C1: projections, curved families -------------------------------------------------------------------------------
class Curved(NamedTuple):
    """``log pi_t = t a + t^2 b - log Z`` at ``t = theta``, and a reward."""

    theta: float
    a: np.ndarray
    b: np.ndarray
    reward: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(float(rng.standard_normal()), *rng.standard_normal((3, 5)))

    @classmethod
    def regular(cls, rng):
        """With a Fisher information of .3 or more."""
        while True:
            made = cls.draw(rng)
            if made.fisher >= 0.3:
                return made

    def at(self, t):
        return log_normalize(np.multiply.outer(t, self.a) + np.multiply.outer(np.square(t), self.b))

    @property
    def tangent(self):
        return self.a + 2 * self.theta * self.b

    @property
    def fisher(self):
        pi = np.exp(self.at(self.theta))
        return float(pi @ self.tangent**2 - (pi @ self.tangent) ** 2)

    def nearest(self, log_target):
        """The t with the least ``KL(target || pi_t)``: the best of 4001 points in [-8, 8], then the root of the slope."""
        target, grid = np.exp(log_target), np.linspace(-8, 8, 4001)
        logits = np.multiply.outer(grid, self.a) + np.multiply.outer(grid * grid, self.b)
        top = logits.max(axis=1)
        cost = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits @ target
        i = int(np.clip(np.argmin(cost), 1, 3999))

        def slope(t):
            direction = self.a + 2 * t * self.b
            return (np.exp(self.at(t)) - target) @ direction

        low, high = grid[i - 1], grid[i + 1]
        return brentq(slope, low, high, xtol=1e-14) if slope(low) < 0 < slope(high) else grid[i]

    def cosine_squared(self, weights="fisher"):
        """Of the centred reward and the tangent direction, in the Fisher metric of the policy or of the uniform law."""
        pi = np.exp(self.at(self.theta)) if weights == "fisher" else np.full(5, 0.2)
        r, a = self.reward - pi @ self.reward, self.tangent - pi @ self.tangent
        return (pi @ (r * a)) ** 2 / (pi @ r**2) / (pi @ a**2)


def projected(rng):
    """Features, weights, reward, beta."""
    p = int(rng.integers(1, 8))
    return rng.standard_normal((8, p)), 0.5 * rng.standard_normal(p), rng.standard_normal(8), float(rng.choice([0.2, 1.0, 5.0]))  # fmt: skip


def ratio(family, beta):
    start = family.at(family.theta)
    target = tilt(start, family.reward, beta)
    return float(kl(family.at(family.nearest(target)), start) / kl(target, start))


#: 1.69 at beta = 1
FAR = Curved(
    -1.5, np.array([-0.6, 0.9, -1.3, 0, 0.1]), np.array([0.2, -1, -1.4, 0, 0.6]), np.array([-1, 0.8, 1.1, 0.3, 1])
)


# C2, C3 ----------------------------------------------------------------------------------------
def opposite_factor(s):
    """What g is for KL(old || new)."""
    return s**2 / (2 * (s + np.expm1(-s)))


def within_range(log_policy, g, a, b):
    """The policy with ratios 1 + t g, g centred, that just stays in the range."""
    pi = np.exp(log_policy)
    g = g - np.sum(pi * g, axis=-1, keepdims=True)
    ends = np.stack([-g.min(axis=-1) / a, g.max(axis=-1) / b, np.full(np.shape(a), 1e-9)])
    return log_normalize(log_policy + np.log1p(g / ends.max(axis=0)[..., None]))


def episodes(rng):
    """Old and new policies over (go on, stop, ...) at the 13 histories of a tree of depth 3, ratios within a range: actions 0, 1, 2
    go on, 3 stops."""
    old, a, b = log_normalize(1.5 * rng.standard_normal((13, 4))), rng.uniform(0.05, 0.9), rng.uniform(0.05, 0.9)
    return old, within_range(old, rng.standard_normal((13, 4)), np.full(13, a), np.full(13, b)), a, b


def both_ends():
    """Going on has mass a/(a+b) and the new policy takes it to the upper end."""
    old = np.tile(np.log([0.5 / 3] * 3 + [0.5]), (13, 1))
    return old, np.tile(np.log([0.75 / 3] * 3 + [0.25]), (13, 1)), 0.5, 0.5


# C4: pairs of matrices -------------------------------------------------------------------------------
def worst_pair(x):
    """Matrices and update of (c)."""
    s = math.sqrt(max(1 - 4 * x * x, 0.0))
    return np.diag([2.0, 1.0]), x * np.diag([-1.0, 1.0]) if x > 0.5 else -x * np.array([[2 * x, s], [s, -2 * x]])


def rotation(before, change, k):
    """``(x, sine)``; x is infinite where there is no gap."""
    gap, size = float(wg.singular_gap(before, k)), float(np.linalg.norm(change, 2))
    return size / gap if gap > 0 else np.inf, float(wg.principal_angles(before, before + change, k).largest_sine)


# C6 -------------------------------------------------------------------------------------------
def stored(rng):
    """2000 bfloat16 numbers, a third of them powers of two, of scale 1e-3 to 1e3."""
    scale = 10 ** rng.uniform(-3, 3, 2000)
    sign = np.where(rng.random(2000) < 0.5, -1.0, 1.0)
    return rounded(np.where(np.arange(2000) % 3 == 0, sign * 2.0 ** np.round(np.log2(scale)), scale * rng.standard_normal(2000)), "bfloat16").astype(float)  # fmt: skip


def moved_pairs(rng):
    """10,000 numbers of N(0, 1), and the same moved by up to 2 ULP either way."""
    a = rounded(rng.standard_normal(10_000), "bfloat16")
    return a, rounded(a + rng.uniform(-2, 2, 10_000) * wg.bf16_ulp(a), "bfloat16")
