"""What the claims and figures of gui-libra share: tasks with several valid actions, a grounding task, and a world of noisy demonstrations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.learning.networks import Linear, Network, start_all, update
from klsim.learning.softmax_step import Adam
from klsim.objectives import TokenBatch
from klsim.objectives.negative_scaling import negative_scaling_limit
from klsim.planning.partial_verification import data_visits
from klsim.problems import TabularMDP

#: lambda_0 and kappa of the four published settings
PUBLISHED = {"3B": (0.9, 0.5), "7B": (1.4, -0.5), "4B": (0.5, 1.5), "8B": (0.5, 2.0)}


# C1 to C4: tasks with several valid actions ------------------------------------------------------------
class Task(NamedTuple):
    """A problem whose steps succeed if valid; the demonstrations are of action ``demo``, in states with law ``data``."""

    problem: TabularMDP
    valid: np.ndarray
    demo: np.ndarray
    data: np.ndarray
    log_policy: np.ndarray
    log_ref: np.ndarray

    @classmethod
    def draw(cls, rng, states=6, actions=4, horizon=4, correct=2, noise=0.15, spread=None):
        """Dirichlet(.5) transitions; the expert plays .8 the demonstration, .2 uniform over the valid actions.

        The policy mixes one over valid actions with up to ``noise`` of any; with ``spread`` it mixes a Dirichlet(1) reference with up to so much
        of another Dirichlet(1) policy.
        """
        demo = rng.integers(0, actions, states)
        scores = rng.random((states, actions))
        scores[np.arange(states), demo] = 2.0
        valid = scores >= np.sort(scores, axis=1)[:, [-correct]]
        problem = TabularMDP(rng.dirichlet(np.full(states, 0.5), (states, actions)), np.zeros((states, actions)),
                             rng.dirichlet(np.ones(states)), horizon)  # fmt: skip
        expert = 0.8 * np.eye(actions)[demo] + 0.2 * valid / correct
        laws = rng.dirichlet(np.ones(actions), (2, states))
        if spread is None:
            near = laws[0] * valid
            e = rng.uniform(0, noise)
            policy = (1 - e) * near / near.sum(axis=1, keepdims=True) + e * laws[1]
        else:
            u = rng.uniform(0, spread)
            policy = (1 - u) * laws[0] + u * laws[1]
        return cls(problem, valid, demo, data_visits(problem, _log(expert)), _log(policy), _log(laws[0]))


def _log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def loop(first, after=(0.5, 0.5), steps=60):
    """A start whose two actions lead to separate states that stay; the policies play ``first`` there, ``after`` elsewhere."""
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1] = moves[0, 1, 2] = 1.0
    moves[1, :, 1] = moves[2, :, 2] = 1.0
    problem = TabularMDP(moves, np.zeros((3, 2)), np.array([1.0, 0.0, 0.0]), steps)
    return problem, np.log([first, after, after])


# C6: grounding beside reasoning -------------------------------------------------------------------------
def tokens_of(log_probs, mask, kinds, weights):
    """A batch of responses, and a weight a token: ``kinds`` 0 reasoning, 1 action, 2 grounding."""
    return TokenBatch(log_probs, mask=mask), np.asarray(weights, dtype=float)[kinds]


class Heads(NamedTuple):
    """How the grounding task is trained: ``heads`` reasoning heads beside one grounding head on a shared linear trunk.

    ``weight``: of the grounding loss, the reasoning heads have 1; ``direct``: every sample also counts as one without reasoning; ``width`` of the
    trunk; ``start``: standard deviation of the initial weights.
    """

    heads: int
    weight: float = 1.0
    direct: bool = False
    width: int = 3
    start: float = 0.1

    @property
    def shares(self):
        """Weights of the losses of all heads, the grounding head first."""
        weights = np.r_[self.weight, np.ones(self.heads)] / (self.weight + self.heads)
        return (weights + np.eye(1, self.heads + 1)[0]) / 2 if self.direct else weights


SAMPLES, TRAIN, INPUTS, LABELS = 800, 500, 16, 4


def grounding_accuracy(rngs, run, steps=200):
    """Test accuracy of the grounding head a seed; reasoning labels depend on the first 8 inputs, grounding on the others.

    Labels are argmaxes of Gaussian linear maps, one a head; full-batch Adam (.05).
    """
    drawn = [_grounding_data(r, run) for r in rngs]
    x, labels, *start = (np.stack(part) for part in zip(*drawn))
    network = Network((Linear(INPUTS, run.width, bias=False), Linear(run.width, LABELS * (run.heads + 1))), "float32")
    parameters, optimisers = tuple(start), start_all(Adam(0.05), start)
    train, test = x[:, :TRAIN], x[:, TRAIN:]
    target = np.eye(LABELS, dtype=np.float32)[labels[:, :TRAIN]].transpose(0, 1, 3, 2)  # (seeds, n, labels, heads)
    weights = (run.shares / TRAIN).astype(np.float32)
    for _ in range(steps):
        logits, tape = network.forward(parameters, train)
        slope = weights * (class_probabilities(logits.reshape(target.shape)) - target)
        gradients, _ = network.backward(parameters, tape, slope.reshape(logits.shape))
        parameters, optimisers = update(optimisers, parameters, gradients, storage="float32")
    logits, _ = network.forward(parameters, test)
    found = logits.reshape(len(rngs), -1, LABELS, run.heads + 1)[..., 0].argmax(axis=-1)
    return np.mean(found == labels[:, TRAIN:, 0], axis=1)


def _grounding_data(rng, run):
    x = rng.standard_normal((SAMPLES, INPUTS))
    maps = rng.standard_normal((25, INPUTS // 2, LABELS))
    seen = [x[:, INPUTS // 2 :] @ maps[0]] + [x[:, : INPUTS // 2] @ m for m in maps[1 : run.heads + 1]]
    labels = np.stack([z.argmax(axis=1) for z in seen], axis=1)
    shapes = ((run.width, INPUTS), (LABELS * (run.heads + 1), run.width))
    weights = [run.start * rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return x.astype(np.float32), labels, *weights, np.zeros(shapes[1][0], dtype=np.float32)


def class_probabilities(logits):
    """Softmax over the labels, the last axis but one."""
    weights = np.exp(logits - logits.max(axis=-2, keepdims=True))
    return weights / weights.sum(axis=-2, keepdims=True)


# C7, C8: a world of noisy demonstrations ----------------------------------------------------------------
STATES, SEEN, WRONG, PROMPTS, ACTIONS, HORIZON = 300, 150, 22, 40, 6, 6
SCORES = ("train", "M_off", "J", "eta", "entropy", "KL")


class Training(NamedTuple):
    """RL with a KL penalty ``beta``; ``scaling``: offset and slope of the negatives; ``clean``: true labels on all states."""

    beta: float = 0.0
    steps: int = 800
    scaling: tuple[float, float] | None = None
    clean: bool = False
    lr: float = 3.0


class World(NamedTuple):
    """Seeds of a world, stacked: kernel of the features ``(n, 300, 300)``, valid actions, demonstrations and noisy labels (one-hot), successors,
    the RL states among the first 150 ``(n, 40)``, and the demonstrations' states. Arrays over actions are ``(n, 6, 300)``."""

    kernel: np.ndarray
    valid: np.ndarray
    demo: np.ndarray
    labels: np.ndarray
    successor: np.ndarray
    prompts: np.ndarray
    data: np.ndarray

    @classmethod
    def draw(cls, rngs):
        return cls(*(np.stack(part) for part in zip(*map(_world, rngs))))


def _world(rng):
    x = rng.standard_normal((STATES, 10))
    hidden = np.maximum(x @ rng.standard_normal((10, 150)) / np.sqrt(10), 0) / np.sqrt(50)
    features = np.concatenate([hidden, np.full((STATES, 1), 0.1)], axis=1)
    first, second = (x @ rng.standard_normal((10, ACTIONS)) for _ in range(2))
    rank = np.argsort(np.argsort(-first, axis=1), axis=1)
    valid = rank < rng.integers(1, 4, STATES)[:, None]
    demo = np.where(valid, second, -np.inf).argmax(axis=1)
    labels = demo.copy()
    wrong = rng.choice(SEEN, WRONG, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, ACTIONS, WRONG)) % ACTIONS
    successor = rng.integers(0, STATES, (STATES, ACTIONS))
    prompts = rng.choice(SEEN, PROMPTS, replace=False)
    visits, data = np.full(STATES, 1 / STATES), np.zeros(STATES)
    for _ in range(HORIZON):
        data += visits / HORIZON
        visits = np.bincount(successor[np.arange(STATES), demo], visits, STATES)
    one = np.eye(ACTIONS)
    return features @ features.T, valid.T.astype(float), one[demo].T, one[labels].T, successor.T, prompts, data


def _log_policy(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def fine_tuned(world, clean=False, steps=250, lr=5.0):
    """Logits of all states ``(n, 6, 300)`` after SFT from 0 on the labels of the first 150 (or the demonstrations of all)."""
    n = STATES if clean else SEEN
    target = (world.demo if clean else world.labels)[:, :, :n]
    kernel, moved = np.ascontiguousarray(world.kernel[:, :n, :n]), np.zeros_like(target)
    for _ in range(steps):
        moved += lr / n * (target - np.exp(_log_policy(moved @ kernel)))
    return moved @ world.kernel[:, :n]


def direction(log_pi, log_ref, label, run):
    """Ascent of the logits of every state ``(..., 6, states)``: normalised policy gradient of the label, minus ``beta`` that of KL(pi‖ref)."""
    pi, ratio = np.exp(log_pi), log_pi - log_ref
    p = np.sum(pi * label, axis=-2, keepdims=True)
    push = p / np.sqrt(p * (1 - p) + 0.05)
    if run.scaling is not None:
        push = push * negative_scaling_limit(np.clip(p, 0.0, 1.0), offset=run.scaling[0], slope=run.scaling[1])
    return (label - pi) * push - run.beta * pi * (ratio - np.sum(pi * ratio, axis=-2, keepdims=True))


def trained(world, start, run, every=None):
    """Scores ``(6, n)`` after RL from the logits ``start``; with ``every`` those of each so many steps, ``(6, n, checkpoints)``."""
    rows = np.broadcast_to(np.arange(STATES), (len(start), STATES)) if run.clean else world.prompts
    seeds = np.arange(len(start))[:, None]
    label = (world.demo if run.clean else world.labels).transpose(0, 2, 1)[seeds, rows].transpose(0, 2, 1)
    across = world.kernel[seeds, rows]  # (n, prompts, 300)
    kernel = np.ascontiguousarray(np.take_along_axis(across, rows[:, None, :], axis=2))
    first = np.take_along_axis(start, rows[:, None, :], axis=2)
    log_ref, moved, path = _log_policy(first), np.zeros_like(first), []
    for step in range(run.steps):
        if every and step % every == 0:
            path.append(scores(world, start, start + moved @ across, rows, label))
        moved += run.lr / rows.shape[1] * direction(_log_policy(first + moved @ kernel), log_ref, label, run)
    path.append(scores(world, start, start + moved @ across, rows, label))
    return np.stack(path, axis=-1) if every else path[-1]


def scores(world, start, logits, rows, label):
    """Training score, offline score and off-demo mass on unseen states, online success, entropy and KL there, ``(6, n)``."""
    log_pi, log_ref = _log_policy(logits), _log_policy(start)
    pi, unseen = np.exp(log_pi), slice(SEEN, STATES)
    data = world.data[:, unseen] / world.data[:, unseen].sum(axis=1, keepdims=True)
    each = [np.sum(x[:, :, unseen], axis=1) for x in (pi * world.demo, pi * (world.valid - world.demo))]
    score, mass = (np.sum(data * x, axis=1) for x in each)
    kept = np.take_along_axis(pi, rows[:, None, :], axis=2)
    train = np.mean(np.sum(kept * label, axis=1), axis=1)
    spread = [-np.sum(pi * x, axis=1)[:, unseen].mean(axis=1) for x in (log_pi, log_ref - log_pi)]
    return np.array([train, score, success(world, pi), mass, *spread])


def success(world, pi):
    """Chance that all steps are valid from a uniform start, along the deterministic successors, ``(n,)``."""
    weights, seeds = pi * world.valid, np.arange(len(pi))[:, None, None]
    ahead = np.ones((len(pi), STATES))
    for _ in range(HORIZON):
        ahead = np.sum(weights * ahead[seeds, world.successor], axis=1)
    return ahead.mean(axis=1)


def within_run(path):
    """Correlation of the offline score and online success over the checkpoints of every run."""
    score, online = (x - x.mean(axis=1, keepdims=True) for x in (path[1], path[2]))
    return np.sum(score * online, axis=1) / np.sqrt(np.sum(score**2, axis=1) * np.sum(online**2, axis=1))


__all__ = ["ACTIONS", "PUBLISHED", "SCORES", "Heads", "Task", "Training", "World", "log_normalize"]
