"""What the claims and figures of path-not-taken share: curved families of policies, and a small network that is pretrained
and then tuned by RL or supervision, batched over runs and seeds."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from klsim import claims
from klsim.claims import shared
from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.learning import update_sparsity as us
from klsim.learning import weight_geometry as wg
from klsim.learning.masked_training import train_part
from klsim.learning.networks import Linear, Network, ReLU, rounded, softmax_cross_entropy
from klsim.learning.softmax_step import Adam

# C7, C8: the testbed --------------------------------------------------------------------------------
CLUSTERS, POINTS, BATCH, SAMPLES = 12, 1024, 64, 8
LAYERS = (Linear(48, 96), ReLU(), Linear(96, 32, bias=False), Linear(32, 96), ReLU(), Linear(96, CLUSTERS))
NETWORK, EXACT = Network(LAYERS, "float32"), Network(LAYERS)
#: the four weight matrices among the parameters; V and O are what a rotation turns
MATRICES, NAMES, TURNED = (0, 2, 3, 5), ("48 to 96", "V", "O", "96 to 12"), (1, 2)
RANK, SHARE, LR, FAST_LR, STEPS = 8, 0.3, 1e-6, 1e-5, 150
RATES, NULLS = (3e-7, LR, 3e-6, FAST_LR, 1e-4), ("gaussian", "constant", "signs")
SIZES = [math.prod(shape) for shape in NETWORK.shapes]
PLACES = [slice(a, b) for a, b in pairwise(np.cumsum([0, *SIZES]).tolist())]
WEIGHTS = [PLACES[i] for i in MATRICES]


class Run(NamedTuple):
    """One tuning run: ``rl``, ``sft`` (cross-entropy on the label), both towards the next label with ``shift`` 1; its learning
    rate, its base, and which stream of batches and samples it draws."""

    kind: str = "rl"
    lr: float = LR
    base: str = "plain"
    stream: int = 0
    shift: int = 0


AGAIN, SFT, FAST = Run(stream=1), Run("sft"), Run("sft", FAST_LR)
OTHER_LABELS, OOD = Run(shift=1), Run("sft", shift=1)
GRID, GRID_AGAIN = Run(base="grid"), Run(base="grid", stream=1)
#: trained side by side: the overhead of a step is that of one run
GROUPS = ((Run(), AGAIN, SFT), (OTHER_LABELS, Run(base="rotation", stream=1), Run(base="signs", stream=1)), (GRID, GRID_AGAIN), (Run("rl", FAST_LR), FAST))  # fmt: skip


class Base(NamedTuple):
    """Pretrained networks, all parameters in one row (S, P), and their data: inputs (S, 1024, 48), labels."""

    flat: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def logits(self, flat):
        """At all points, in float64, ``(S, 1024, 12)``."""
        return EXACT.forward(parts(flat.astype(float)), self.x)[0]

    def reward(self, flat):
        """Expected reward: the mean probability of the label, ``(S,)``."""
        return np.take_along_axis(softmax(self.logits(flat)), self.y[..., None], axis=-1).mean(axis=(-2, -1))


class Study(claims.Study):
    salt = 20251108


def parts(flat):
    """Parameters as the network knows them, views."""
    return tuple(flat[..., at].reshape(*flat.shape[:-1], *shape) for at, shape in zip(PLACES, NETWORK.shapes))


def matrices(flat):
    return [parts(flat)[i] for i in MATRICES]


def pooled(flat):
    """The entries of the four matrices, ``(..., 11,900)``."""
    return np.concatenate([flat[..., at] for at in WEIGHTS], axis=-1)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rows(array, at):
    """``array (S, N, ...)`` at ``at (S, B)``."""
    return array[np.arange(len(at))[:, None], at]


def backward(flat, x, targets):
    """Gradient of ``-sum t log pi``, the mean over the batch, with ``t = targets(logits)``: ``(S, P)``."""
    own = parts(flat)
    logits, tape = NETWORK.forward(own, x)
    slope = softmax_cross_entropy(logits, targets(logits))[1] / np.float32(x.shape[-2])
    return np.concatenate([g.reshape(len(flat), -1) for g in NETWORK.backward(own, tape, slope)[0]], axis=-1)


def started(rng, seeds):
    """Networks before pretraining, weights and biases uniform in +-1/sqrt(inputs), as in torch."""
    fans = np.repeat([48, 48, 96, 32, 32, 96, 96], SIZES)
    return (rng.uniform(-1, 1, (seeds, fans.size)) / np.sqrt(fans)).astype(np.float32)


@shared(maxsize=8)
def pretrained(study, base="plain"):
    """Networks after 400 steps of cross-entropy at 2e-3 in batches of 128, 35 % of the labels replaced once by uniform ones.

    ``grid``: rounded to bfloat16. ``rotation``, ``signs``: ``V <- QV, O <- OQ'`` with an orthogonal Q of each network, random or
    of random signs: the same function."""
    if base == "grid":
        return pretrained(study)._replace(flat=rounded(pretrained(study).flat, "bfloat16"))
    if base != "plain":
        return pretrained(study)._replace(flat=turned(pretrained(study).flat, study.rng(2), base))
    rng, scale = study.rng(0), np.arange(1, 49) ** -0.5
    means = 1.2 * scale * rng.standard_normal((study.nets, CLUSTERS, 48))
    y = rng.integers(CLUSTERS, size=(study.nets, POINTS))
    x = (rows(means, y) + scale * rng.standard_normal((study.nets, POINTS, 48))).astype(np.float32)
    noisy = np.where(rng.random(y.shape) < 0.35, rng.integers(CLUSTERS, size=y.shape), y)

    def gradient(flat, step):
        at = rng.integers(POINTS, size=(study.nets, 2 * BATCH))
        return backward(flat, rows(x, at), lambda logits: one_hot(rows(noisy, at)))

    return Base(train_part(started(rng, study.nets), gradient, Adam(2e-3), 400).parameters, x, y)


def turned(flat, rng, kind):
    q, r = np.linalg.qr(rng.standard_normal((len(flat), 32, 32)))
    signs = np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None]
    q = q * signs if kind == "rotation" else np.eye(32) * signs
    new = flat.copy()
    v, o = (matrices(new)[i] for i in TURNED)
    v[:], o[:] = q @ v, o @ np.swapaxes(q, -1, -2)
    return new


def one_hot(labels):
    return np.eye(CLUSTERS, dtype=np.float32)[labels]


def drawn_counts(pi, u):
    """How many of the uniforms ``u (8, ...)`` fall to each action, ``(..., A)``: of thresholds, counts below them are cumulative."""
    cumulative = np.cumsum(pi, axis=-1)
    cumulative[..., -1] = 2.0
    below = np.zeros(pi.shape, np.float32)
    for draw in u:
        below += draw[..., None] < cumulative
    return np.diff(below, axis=-1, prepend=np.float32(0))


def policy_weights(pi, aim, u):
    """Weights t of the loss ``-sum_a t_a log pi(a)``: 8 samples, rewards 1 for the aim, advantages (r - mean)/std over 8."""
    counts = drawn_counts(pi, u)
    mean = (counts * aim).sum(axis=-1, keepdims=True) / SAMPLES
    spread = np.sqrt(mean * (1 - mean))
    return counts * (aim - mean) / (np.where(spread > 0, spread, 1) * SAMPLES)


@shared(maxsize=16)
def together(study, runs):
    """Parameters ``(S, P)`` of every run after 150 steps of Adam: batches of 64, moments from 0, constant learning rate.

    Runs of one stream draw the same points and uniforms."""
    bases = [pretrained(study, run.base) for run in runs]
    x, y = bases[0].x, bases[0].y
    streams = {run.stream: study.rng(1, run.stream) for run in runs}
    policy = [i for i, run in enumerate(runs) if run.kind == "rl"]

    def gradient(flat, step):
        drawn = {k: (rng.integers(POINTS, size=(study.nets, BATCH)), rng.random((SAMPLES, study.nets, BATCH), dtype=np.float32)) for k, rng in streams.items()}  # fmt: skip
        inputs = {k: rows(x, at) for k, (at, _) in drawn.items()}
        labels = {k: rows(y, at) for k, (at, _) in drawn.items()}

        def targets(logits):
            aim = one_hot(np.stack([(labels[run.stream] + run.shift) % CLUSTERS for run in runs]))
            if policy:
                pi = softmax(logits.reshape(aim.shape)[policy])
                u = np.stack([drawn[runs[i].stream][1] for i in policy], axis=1)
                aim[policy] = policy_weights(pi, aim[policy], u)
            return aim.reshape(logits.shape)

        return backward(flat, np.concatenate([inputs[run.stream] for run in runs]), targets)

    start = np.concatenate([b.flat for b in bases])
    end = train_part(start, gradient, Adam(runs[0].lr), STEPS).parameters
    return np.split(end, len(runs))


def tuned(study, run):
    """Parameters after a run, ``(S, P)``, kept: checks share runs."""
    group = next((g for g in GROUPS if run in g), (run,))
    return together(study, group)[group.index(run)]


def opened(rngs, base="plain"):
    """The study of a verification, and the parameters of its bases."""
    study = Study.of(rngs)
    return study, pretrained(study, base).flat


# what is measured of an update -----------------------------------------------------------------------
def sparsity(before, after, storage="bfloat16"):
    """Share of the entries of the four matrices that an update leaves as they are, ``(S,)``."""
    return us.sparsity(pooled(before), pooled(after), storage=storage)


def closed_form(before, after):
    """Expected sparsity, from sizes of steps and weights alone."""
    return us.expected_sparsity(pooled(before), pooled(after) - pooled(before))


def null(before, after, rng, kind="gaussian"):
    """Parameters after an update without structure, of equal norm matrix by matrix, added in float32."""
    out = before.copy()
    for at in WEIGHTS:
        out[:, at] += us.null_update(after[:, at] - before[:, at], kind, rng).astype(np.float32)
    return out


def masks(before, after, storage="bfloat16"):
    """Visible entries of each matrix, flat."""
    return [us.changed(before[:, at], after[:, at], storage=storage) for at in WEIGHTS]


def references(flat):
    """Principal and low masks of each matrix, flat, and the principal entries that are not low."""
    out = []
    for w in matrices(flat):
        principal, low = (m.reshape(len(w), -1) for m in (wg.principal_mask(w, RANK, SHARE), wg.low_mask(w, SHARE)))
        out.append({"principal": principal, "low": low, "principal, not low": principal & ~low})
    return out


def overlaps(before, after, storage="bfloat16"):
    """Overlap of the update's mask with the three reference masks over chance, mean over the matrices, ``(S,)`` each."""
    seen, known = masks(before, after, storage), references(before)
    return {name: np.mean([wg.overlap(r[name], m).over_chance for r, m in zip(known, seen)], axis=0) for name in known[0]}  # fmt: skip


def agreement(one, other):
    """Jaccard index of two updates' masks, mean over the matrices; and of independent masks as dense."""
    found = [wg.jaccard(a, b) for a, b in zip(one, other)]
    chance = [wg.bernoulli_jaccard(a.mean(axis=-1), b.mean(axis=-1)) for a, b in zip(one, other)]
    return np.mean(found, axis=0), np.mean(chance, axis=0)


def shared_masks(one, other, which):
    """Overlap over chance of two updates' masks, mean over some of the matrices."""
    return np.mean([wg.overlap(one[i], other[i]).over_chance for i in which], axis=0)


def geometry(before, after):
    """Largest sine of the top-8 principal angles, and normalised spectral shift; means over the matrices, ``(S,)``."""
    pairs = list(zip(matrices(before), matrices(after)))
    sine = np.mean([wg.principal_angles(w, new, RANK).largest_sine for w, new in pairs], axis=0)
    return sine, np.mean([wg.spectral_drift(w, new).relative for w, new in pairs], axis=0)


def directions(before, one, other):
    """Sign agreement and cosine of two updates of the four matrices."""
    a, b = (pooled(p) - pooled(before) for p in (one, other))
    return (np.sign(a) == np.sign(b)).mean(axis=1), np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)  # fmt: skip


def null_agreement(before, runs, rng, kind, storage="bfloat16"):
    """Jaccard index of null updates of two runs, each of the norms (or sizes) of its own run."""
    return agreement(*(masks(before, null(before, after, rng, kind), storage) for after in runs))[0]


class Step(NamedTuple):
    """A network, a batch of 16 points with labels, uniforms of the samples, and a direction in the parameters."""

    flat: np.ndarray
    x: np.ndarray
    y: np.ndarray
    u: np.ndarray
    along: np.ndarray

    @classmethod
    def draw(cls, rng):
        flat = started(rng, 1)
        return cls(flat, rng.standard_normal((1, 16, 48)).astype(np.float32), rng.integers(CLUSTERS, size=(1, 16)),
                   rng.random((SAMPLES, 1, 16), dtype=np.float32), rng.standard_normal(flat.shape))  # fmt: skip

    def differences(self, power, over, roll):
        """Differences along the direction, in float64, of the loss of sampled actions and of the cross-entropy."""
        pi = softmax(NETWORK.forward(parts(self.flat), self.x)[0])
        actions = np.sum(self.u[..., None] >= np.cumsum(pi, axis=-1)[..., :-1], axis=-1)
        right = (actions == self.y).astype(float)
        spread = np.sqrt(np.sum((right - right.mean(axis=0)) ** 2, axis=0) / over)
        advantage = (right - right.mean(axis=0)) / np.where(spread > 0, spread, 1.0) ** power

        def losses(size):
            log_pi = log_normalize(EXACT.forward(parts(self.flat + size * self.along), self.x)[0])
            taken = np.take_along_axis(log_pi[None], actions[..., None], axis=-1)[..., 0]
            label = np.take_along_axis(log_pi, np.roll(self.y, roll, axis=-1)[..., None], axis=-1)
            return np.array([-np.mean(advantage * taken), -np.mean(label)])

        return (losses(1e-6) - losses(-1e-6)) / 2e-6


def masked(rng):
    """A matrix of up to 6 x 6, a rank from 2 on, a share, and two flat masks with an entry each."""
    m, n = rng.integers(3, 7, 2)
    size = m * n
    masks = [rng.permuted(np.arange(size) < rng.integers(1, size + 1)) for _ in range(2)]
    return rng.standard_normal((m, n)), int(rng.integers(2, min(m, n))), rng.uniform(0.1, 0.9), *masks


def by_sorting(w, rank, share):
    """Principal and low entries as sets of flat indices; the low-rank part by projection on eigenvectors of W'W."""
    leading, count = np.linalg.eigh(w.T @ w)[1][:, -rank:], max(1, round(share * w.size))
    sizes = {"principal": np.abs(w @ leading @ leading.T), "low": -np.abs(w)}
    return {name: {*np.argsort(size.ravel())[-count:]} for name, size in sizes.items()}


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
    return a, rounded(a + rng.uniform(-2, 2, 10_000) * us.spacing(a), "bfloat16")
