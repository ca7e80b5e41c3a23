"""The testbed of small-subnetworks: a classifier on Gaussian clusters, pretrained, then fine-tuned in eight ways.

All runs are on several base networks at once. The networks, the data and the runs of a verification follow from its seed alone and are
made once for all its checks: the networks are the independent replicates of every effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from klsim import claims
from klsim.claims import shared
from klsim.learning import SGD, Adam
from klsim.learning.masked_training import train_part
from klsim.learning.networks import Linear, Network, ReLU, rounded, softmax_cross_entropy
from klsim.learning.update_sparsity import changed, null_update, sparsity

INPUTS, WIDTH, CLASSES, POINTS, GROUP, BATCH = 48, 96, 12, 1024, 8, 64
LAYERS = (Linear(INPUTS, WIDTH), ReLU(), Linear(WIDTH, WIDTH), ReLU(), Linear(WIDTH, CLASSES))
NETWORK, EXACT = Network(LAYERS, "float32"), Network(LAYERS)
SIZES = [math.prod(shape) for shape in NETWORK.shapes]
PLACES = [slice(end - size, end) for size, end in zip(SIZES, np.cumsum(SIZES))]
MATRICES = [place for place, shape in zip(PLACES, NETWORK.shapes) if len(shape) == 2]
IS_WEIGHT = np.zeros(sum(SIZES), dtype=bool)
for _place in MATRICES:
    IS_WEIGHT[_place] = True
STEPS, RATE, TINY = 150, 1e-6, 1e-12


def parts(flat, network=NETWORK):
    """The network's arrays as views of ``flat (..., P)``."""
    return tuple(flat[..., at].reshape(*flat.shape[:-1], *shape) for at, shape in zip(PLACES, network.shapes))


def flattened(arrays, lead):
    return np.concatenate([a.reshape(*lead, -1) for a in arrays], axis=-1)


class Study(claims.Study):
    salt = 20250511


# base networks --------------------------------------------------------------------------------------
class Base(NamedTuple):
    """Points ``x (S, N, 48)`` with labels ``y``, networks ``flat (S, P)`` and their logits at the points."""

    x: np.ndarray
    y: np.ndarray
    flat: np.ndarray
    logits: np.ndarray


@shared(maxsize=6)
def pretrained(study, grid=False, dead=0):
    """Networks after 400 steps of Adam at 2e-3 on labels of which 35 % were replaced once by uniform ones.

    ``grid``: rounded to bfloat16 after that. ``dead``: so many first input columns are 0 from then on."""
    if grid or dead:
        x, y, flat, _ = pretrained(study)
        flat, x = rounded(flat, "bfloat16") if grid else flat, np.where(np.arange(INPUTS) < dead, np.float32(0), x)
        return Base(x, y, flat, NETWORK.forward(parts(flat), x)[0])
    rng, scale = study.rng(0), np.arange(1, INPUTS + 1) ** -0.5
    means = 1.2 * scale * rng.standard_normal((study.nets, CLASSES, INPUTS))
    y = rng.integers(0, CLASSES, (study.nets, POINTS))
    x = np.take_along_axis(means, y[..., None], axis=1) + scale * rng.standard_normal((study.nets, POINTS, INPUTS))
    x = x.astype(np.float32)
    noisy = np.where(rng.random(y.shape) < 0.35, rng.integers(0, CLASSES, y.shape), y)
    start = [
        rng.uniform(-1, 1, (study.nets, *shape)) for shape in NETWORK.shapes
    ]  # as torch: U(±1/sqrt(inputs)), biases too
    width = [shape[1] ** -0.5 for shape in NETWORK.shapes if len(shape) == 2]
    flat = flattened([a * width[i // 2] for i, a in enumerate(start)], (study.nets,)).astype(np.float32)

    def gradient(own, step):
        at = rng.integers(0, POINTS, (study.nets, 2 * BATCH))
        return backward(own, rows(x, at), lambda logits: cross_entropy(rows(noisy, at)))

    flat = train_part(flat, gradient, Adam(2e-3), 400).parameters
    return Base(x, y, flat, NETWORK.forward(parts(flat), x)[0])


def rows(array, at):
    """``array (S, N, ...)`` at ``at (S, B)``."""
    return array[np.arange(len(at))[:, None], at]


def backward(flat, x, targets):
    """Gradient of ``-sum t log pi`` with ``t = targets(logits)``, ``(S, P)``."""
    own = parts(flat)
    logits, tape = NETWORK.forward(own, x)
    _, slope = softmax_cross_entropy(logits, targets(logits))
    return flattened(NETWORK.backward(own, tape, slope)[0], flat.shape[:-1])


def reward(flat, base):
    """Exact mean of ``pi(y|x)`` over the points, in float64, ``(S,)``."""
    logits, _ = EXACT.forward(parts(flat.astype(float)), base.x)
    return np.mean(np.take_along_axis(softmax(logits), base.y[..., None], axis=-1), axis=(1, 2))


def softmax(logits):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


# losses, as the weights t of -sum t log pi with the same gradient ---------------------------------------
def cross_entropy(labels):
    return np.eye(CLASSES, dtype=np.float32)[labels] / labels.shape[-1]


def drawn_counts(p, u):
    """How many of the uniforms ``u (..., G)`` fall to each action, ``(..., A)``."""
    thresholds = p.cumsum(axis=-1)
    thresholds[..., -1] = 2
    below = np.zeros(p.shape, p.dtype)
    for draw in range(u.shape[-1]):
        below += u[..., draw, None] < thresholds
    return np.diff(below, axis=-1, prepend=p.dtype.type(0)).astype(float)


def group_relative(p, y, u):
    """RL: ``A/(B G)`` summed over the draws, ``A = (r - mean)/(std + 1e-4)`` with the sample deviation."""
    counts, right = drawn_counts(p, u), y[..., None] == np.arange(CLASSES)
    mean = (counts * right).sum(axis=-1, keepdims=True) / u.shape[-1]
    std = np.sqrt(mean * (1 - mean) * u.shape[-1] / (u.shape[-1] - 1))
    return counts * (right - mean) / (std + 1e-4) / (y.shape[-1] * u.shape[-1])


def rejection(p, y, u):
    """RFT: the rewarded draws, each with the same weight over the batch."""
    weights = drawn_counts(p, u) * (y[..., None] == np.arange(CLASSES))
    return weights / np.maximum(weights.sum(axis=(-1, -2), keepdims=True), 1)


def preference(logits, base_logits, y, u, wrong="own"):
    """DPO (.5) on the label against a wrong answer: ``own``, of the policy without the label; ``uniform``; ``failed``, the
    policy's own draw, kept only where it is wrong."""
    p, one = softmax(logits), np.eye(CLASSES, dtype=np.float32)
    law = {"own": p, "uniform": np.ones_like(p), "failed": p}[wrong] * (1 - one[y] * (wrong != "failed"))
    chosen = drawn_counts(law / law.sum(axis=-1, keepdims=True), u[..., :1])
    pair = one[y] - chosen
    kept = np.any(pair != 0, axis=-1)
    margin = 0.5 * np.sum(pair * (logits - base_logits), axis=-1)  # normalisers cancel
    scale = 0.5 / (1 + np.exp(margin)) / np.maximum(kept.sum(axis=-1, keepdims=True), 1)
    return scale[..., None] * pair


# runs ---------------------------------------------------------------------------------------------
class Run(NamedTuple):
    """One fine-tuning of the networks. ``stream``: batches and draws; ``half``: 0 all points, 1 or 2 a half.

    ``mask``: trained part, named for the same run without a mask (`part`); ``biases``: ``as the mask``, all ``free`` or all ``frozen``."""

    method: str = "RL"
    optimiser: str = "Adam"
    rate: float = RATE
    grid: bool = False
    stream: int = 0
    half: int = 0
    steps: int = STEPS
    scale: float = 1.0
    kl: float = 0.0
    clip: float = math.inf
    mask: str = ""
    biases: str = "as the mask"
    dead: int = 0


@dataclass(frozen=True)
class Result:
    """What a run made of its base: float32 weights, touched coordinates, copies of steps 25, 50, ..."""

    base: Base
    parameters: np.ndarray
    touched: np.ndarray
    snapshots: dict

    @property
    def delta(self):
        return self.parameters - self.base.flat

    @property
    def visible(self):
        """In bfloat16, over all parameters."""
        return changed(self.base.flat, self.parameters)

    def sparsity(self, step=None, **tolerance):
        after = self.parameters if step is None else self.snapshots[step]
        return sparsity(self.base.flat[:, IS_WEIGHT], after[:, IS_WEIGHT], **tolerance)


def targets(run, base, at, u):
    """``t`` of the run's loss on one batch, as a function of the logits."""
    y, start = rows(base.y, at), rows(base.logits, at)
    name, _, detail = run.method.partition(", ")
    loss = {
        "RL": lambda logits: group_relative(softmax(logits), y, u),
        "RFT": lambda logits: rejection(softmax(logits), y, u),
        "SFT": lambda logits: cross_entropy(y),
        "OOD": lambda logits: cross_entropy((y + 1) % CLASSES),
        "DPO": lambda logits: preference(logits, start, y, u, detail or "own"),
    }[name]
    return (lambda logits: loss(logits) + run.kl * kl_targets(logits, start)) if run.kl else loss


def kl_targets(logits, base_logits):
    """``t`` of the mean over the batch of ``KL(pi||pi_0)``: ``-pi (log pi/pi_0 - KL)``."""
    p, start = softmax(logits), softmax(base_logits)
    log_ratio = np.log(p) - np.log(start)
    return -p * (log_ratio - np.sum(p * log_ratio, axis=-1, keepdims=True)) / logits.shape[-2]


def trained(study, run=Run()):  # noqa: B008 -- a constant
    """The run's `Result`, kept: checks share runs. The plain one is the first half of the long one."""
    if run == Run():
        long = together(study, (run._replace(steps=2 * STEPS),))[0]
        return Result(long.base, long.snapshots[STEPS], long.touched, {})
    group = next((g for g in GROUPS if run in g), (run,))
    return together(study, group)[group.index(run)]


@shared(maxsize=40)
def together(study, runs):
    """Runs that share optimiser, rate and steps, side by side."""
    bases, first = [pretrained(study, run.grid, run.dead) for run in runs], runs[0]
    streams = {(run.stream, run.half): study.rng(1, run.stream) for run in runs}

    def gradient(flat, step):
        drawn = {key: batch(rng, key[1], study.nets) for key, rng in streams.items()}
        at = [drawn[run.stream, run.half] for run in runs]
        x = np.concatenate([rows(base.x, a) for base, (a, _) in zip(bases, at)])
        losses = [targets(run, base, *a) for run, base, a in zip(runs, bases, at)]

        def all_targets(logits):
            return np.concatenate([loss(own) for loss, own in zip(losses, np.split(logits, len(runs)))])

        found = backward(flat, x, all_targets)
        for run, own in zip(runs, np.split(found, len(runs))):
            rescale(run, own)
        return found

    optimiser = Adam(first.rate, epsilon=TINY) if first.optimiser == "Adam" else SGD(first.rate)
    masks = np.concatenate([part(study, run) for run in runs]) if any(run.mask for run in runs) else None
    record = range(25, first.steps + 1, 25) if first.steps > STEPS else ()
    start = np.concatenate([base.flat for base in bases])
    end = train_part(start, gradient, optimiser, first.steps, mask=masks, record=record)
    own = [slice(i * study.nets, (i + 1) * study.nets) for i in range(len(runs))]
    return [Result(base, end.parameters[at], end.touched[at], {k: w[at] for k, w in end.snapshots.items()})
            for base, at in zip(bases, own)]  # fmt: skip


def batch(rng, half, nets):
    """Points with replacement, of all or of a half, and uniforms for the draws."""
    low, high = {0: (0, POINTS), 1: (0, POINTS // 2), 2: (POINTS // 2, POINTS)}[half]
    return rng.integers(low, high, (nets, BATCH)), rng.random((nets, BATCH, GROUP), dtype=np.float32)


def rescale(run, gradient):
    """Scale and clip, in place: the norm is over all parameters of a network."""
    gradient *= np.float32(run.scale)
    if run.clip < math.inf:
        norm = np.linalg.norm(gradient, axis=-1, keepdims=True)
        gradient *= np.minimum(1, run.clip / (norm + 1e-6)).astype(np.float32)


def part(study, run):
    """The mask of a run: ``visible``, the ``complement`` of that, ``random`` of its density, ``touched``;
    everything for a run without one."""
    if not run.mask:
        return np.ones((study.nets, IS_WEIGHT.size), dtype=bool)
    full = trained(study, run._replace(mask="", biases="as the mask"))
    visible = full.visible
    mask = {
        "visible": lambda: visible,
        "complement": lambda: ~visible,
        "random": lambda: study.rng(2).permuted(visible, axis=-1),
        "touched": lambda: full.touched,
    }[run.mask]()
    return mask if run.biases == "as the mask" else np.where(IS_WEIGHT, mask, run.biases == "free")


METHODS, PARTS = ("RL", "RFT", "SFT", "OOD"), ("visible", "complement", "random")
PLAIN_SGD, FAST = Run(optimiser="SGD", rate=1e-3), 10 * RATE
#: run 1 of an overlap, and what run 2 is
FIRST = Run(half=1)
OTHERS = {
    "seed": Run(half=1, stream=1), "data": Run(half=2, stream=2), "algorithm": Run("DPO", half=2, stream=3),
    "algorithm, uniform wrong answer": Run("DPO, uniform", half=2, stream=3), "algorithm, own failures": Run("DPO, failed", half=2, stream=3),
}  # fmt: skip
#: what a check asks for together is trained together: the overhead of a step is that of one run
GROUPS = (
    (*(Run(m) for m in METHODS[1:]), *(Run(m, grid=True) for m in METHODS)),
    (*(PLAIN_SGD._replace(method=m) for m in METHODS), *(PLAIN_SGD._replace(method=m, scale=0.1) for m in METHODS[:2]), PLAIN_SGD._replace(clip=0.05)),
    (*(Run(m, scale=0.1) for m in METHODS[:2]), Run(kl=0.1), Run(kl=1.0), Run(clip=0.05)),
    (Run(rate=FAST), Run("OOD", rate=FAST)),
    (*(Run(mask=m, grid=g) for g in (False, True) for m in PARTS), Run(mask="visible", biases="free"), Run(mask="visible", biases="frozen")),
    (FIRST, *OTHERS.values(), FIRST._replace(grid=True), OTHERS["seed"]._replace(grid=True)),
)  # fmt: skip


def null_of(run, kind, rng):
    """A null of the run's update with the norm of each matrix, flat over the weights."""
    return np.concatenate([null_update(run.delta[:, at], kind, rng) for at in MATRICES], axis=-1)


def stored_updates(run):
    """What a run changed in bfloat16, matrix by matrix."""
    before, after = (parts(rounded(w, "bfloat16").astype(float)) for w in (run.base.flat, run.parameters))
    return [new - old for old, new in zip(before[::2], after[::2])]


def placed(rngs, density, where="anywhere", n=128):
    """Normal values on masks ``(seeds, n, n)``: anywhere, in whole rows, or a dense product of that many rows."""
    rows = round(density * n)
    values = np.array([rng.standard_normal((n, n)) for rng in rngs])
    if where == "a product":
        return values[:, :, :rows] @ values[:, :rows, :]
    uniforms = np.array([rng.random((n, n)) for rng in rngs])
    kept = uniforms < density if where == "anywhere" else (np.arange(n) < rows)[:, None] & (uniforms >= 0)
    return np.where(kept, values, 0.0)


@shared(maxsize=200)
def gain(study, run, storage="bfloat16"):
    """Reward of a run's weights above that of its base, both stored in ``storage``, ``(S,)``."""
    found = trained(study, run)
    after, before = (reward(rounded(w, storage), found.base) for w in (found.parameters, found.base.flat))
    return after - before


def ratio(study, run, storage="bfloat16"):
    """Gain of a masked run over that of the full one."""
    return gain(study, run, storage) / gain(study, run._replace(mask="", biases="as the mask"), storage)


def kept(study, grid):
    """Gain of the bfloat16 checkpoint over that of the float32 weights."""
    return gain(study, Run(grid=grid)) / gain(study, Run(grid=grid), "float32")


# small problems ---------------------------------------------------------------------------------------
class Sparse(NamedTuple):
    """Twelve points with inputs that are mostly 0, labels, a network 6-8-3, and twelve batches of two points."""

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    at: np.ndarray

    @classmethod
    def draw(cls, rng):
        x = np.where(rng.random((12, 6)) < 0.3, rng.standard_normal((12, 6)), 0.0)
        return cls(x, rng.integers(0, 3, 12), rng.uniform(-0.4, 0.4, 83), rng.integers(0, 12, (12, 2)))

    def train(self, *, mask=None, steps=12, weight_decay=0.0):
        network = Network((Linear(6, 8), ReLU(), Linear(8, 3)), "float32")
        ends = np.cumsum([math.prod(shape) for shape in network.shapes])[:-1]

        def gradient(flat, step):
            own = tuple(p.reshape(shape) for p, shape in zip(np.split(flat, ends), network.shapes))
            logits, tape = network.forward(own, self.x[self.at[step]])
            _, slope = softmax_cross_entropy(logits, self.y[self.at[step]])
            return flattened(network.backward(own, tape, slope)[0], ())

        return train_part(self.start, gradient, Adam(1e-3, weight_decay=weight_decay), steps, mask=mask)


class Batch(NamedTuple):
    """Four prompts: logits of the policy and the base, labels, uniforms of eight draws, and a direction in the logits."""

    logits: np.ndarray
    base: np.ndarray
    y: np.ndarray
    u: np.ndarray
    along: np.ndarray

    @classmethod
    def draw(cls, rng):
        logits = rng.standard_normal((4, CLASSES))
        base = logits + rng.standard_normal((4, CLASSES))
        return cls(logits, base, rng.integers(0, 3, 4), rng.random((4, GROUP)), rng.standard_normal((4, CLASSES)))

    def targets(self):
        p = softmax(self.logits)
        return {
            "RL": group_relative(p, self.y, self.u), "RFT": rejection(p, self.y, self.u), "SFT": cross_entropy(self.y),
            "DPO": preference(self.logits, self.base, self.y, self.u), "KL": kl_targets(self.logits, self.base),
        }  # fmt: skip

    @property
    def actions(self):
        """What the uniforms draw, ``(4, 8)``."""
        laws = softmax(self.logits).cumsum(axis=-1)
        return np.array([np.searchsorted(law, u, side="right") for law, u in zip(laws, self.u)]).clip(max=CLASSES - 1)

    @property
    def wrong(self):
        """What the first uniform of a prompt draws from the other answers."""
        p = softmax(self.logits)
        p[np.arange(4), self.y] = 0
        return np.array([np.searchsorted(q.cumsum() / q.sum(), u[0], side="right") for q, u in zip(p, self.u)]).clip(
            max=CLASSES - 1
        )


def two_masks(rng):
    """Of 2 to 60 coordinates, each with one at least."""
    n = int(rng.integers(2, 61))
    masks = [np.arange(n) < rng.integers(1, n + 1) for _ in range(2)]
    return tuple(rng.permuted(m) for m in masks)


def small_masks(rng):
    """A mask of at most 7 coordinates, and how many another one has."""
    n = int(rng.integers(2, 8))
    return rng.permuted(np.arange(n) < rng.integers(1, n + 1)), int(rng.integers(1, n + 1))


def masked_matrix(rng):
    """Up to 16 x 16, a mask of any density, and normal values."""
    shape = tuple(rng.integers(1, 17, 2))
    return rng.random(shape) < rng.choice([0.05, 0.1, 0.2, 0.4, 0.8]), rng.standard_normal(shape)


def floats_and_ties(rng):
    """Sixteen float32 numbers of any size, and sixteen halfway between two of bfloat16."""
    bits = rng.integers(0, 0x7F00, 32).astype(np.uint32) << np.uint32(16) | np.uint32(0x8000)
    bits[:16] ^= rng.integers(0, 2**16, 16).astype(np.uint32)
    return bits.view(np.float32) * rng.choice([-1.0, 1.0], 32).astype(np.float32)
