"""What the claims and figures of gui-libra share: tasks with several valid actions, a grounding task, and a world of noisy demonstrations."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.learning.networks import Linear, Network, start_all, update
from klsim.learning.softmax_step import Adam
from klsim.objectives import TokenBatch
from klsim.objectives.advantages import advantages, group_sample_std, group_std, std_weight
from klsim.objectives.negative_scaling import negative_scaling_limit, negative_scaling_weight
from klsim.objectives.stabilizers import asft, sngs
from klsim.planning.partial_verification import data_visits, offline_score, success_probability
from klsim.problems import TabularMDP

#: lambda_0 and kappa of the four published settings
PUBLISHED = {"3B": (0.9, 0.5), "7B": (1.4, -0.5), "4B": (0.5, 1.5), "8B": (0.5, 2.0)}

#: lambda in groups of 8 with 1 … 7 matches
SCALES = {
    "3B": [0.9625, *6 * [1.0]],
    "7B": [*6 * [1.0], 0.9625],
    "4B": [0.6875, 0.875, *5 * [1.0]],
    "8B": [0.75, *6 * [1.0]],
}


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


def measured(task):
    return offline_score(task.problem, task.log_policy, task.demo, task.valid, task.data)


def loosened(found, horizon, steps, shift):
    """The bound of C1 with the powers ``steps`` of H and ``shift`` of C."""
    return 1 - (1 - found.bound) * float(horizon) ** (steps - 1) * found.mismatch ** (shift - 1)


def fork(first, ref=0.5, steps=2, data=None):
    """A start with two actions that lead to separate states that stay; the policy takes the first with ``first``."""
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1] = moves[0, 1, 2] = moves[1, :, 1] = moves[2, :, 2] = 1.0
    problem = TabularMDP(moves, np.zeros((3, 2)), np.array([1.0, 0.0, 0.0]), steps)
    log_policy, log_ref = (np.log([[p, 1 - p], [0.5, 0.5], [0.5, 0.5]]) for p in (first, ref))
    data = data_visits(problem, log_policy) if data is None else np.array(data)
    return Task(problem, np.ones((3, 2), dtype=bool), np.zeros(3, dtype=int), data, log_policy, log_ref)


def of_sequences(task):
    """J and the visits of every step by enumeration of all state-action sequences."""
    problem, pi = task.problem, np.exp(task.log_policy)
    horizon, states, actions = problem.shape
    success, visits = 0.0, np.zeros((horizon, states))
    for path in itertools.product(itertools.product(range(states), range(actions)), repeat=horizon):
        chance = problem.initial[path[0][0]] * math.prod(pi[s, a] for s, a in path)
        chance *= math.prod(problem.transition[0][s, a, t] for (s, a), (t, _) in itertools.pairwise(path))
        success += chance * all(task.valid[s, a] for s, a in path)
        for t, (s, _) in enumerate(path):
            visits[t, s] += chance
    return success, visits


def in_other_states(rng):
    return Task.draw(rng, horizon=1, noise=1.0)._replace(data=rng.dirichlet(np.ones(6)))


def propagated(task, by="policy", swap=False):
    """``(KL before every step, L1 of the visits, largest KL)`` by propagating visits with the chains' matrices.

    The KL is summed over the visits of the policy (or of the reference), ``swap`` exchanges its arguments.
    """
    pair = [np.exp(x) for x in (task.log_policy, task.log_ref)]
    chain, other = (np.einsum("sa,sat->st", p, task.problem.transition[0]) for p in pair)
    law, against = pair[::-1] if swap else pair
    each = np.sum(law * (np.log(law) - np.log(against)), axis=1)
    d = ref = task.problem.initial
    spent, moved = [0.0], []
    for _ in range(task.problem.horizon):
        moved.append(np.abs(d - ref).sum())
        spent.append(spent[-1] + (d if by == "policy" else ref) @ each)
        d, ref = d @ chain, ref @ other
    return np.array(spent[:-1]), np.array(moved), each.max()


def imitating(rng):
    """Nine steps of ten as demonstrated, else anything."""
    task = Task.draw(rng)
    return task._replace(log_policy=np.log(0.9 * np.eye(4)[task.demo] + 0.1 * np.exp(task.log_ref)))


def laws(rng):
    """Policies and references ``(12, 5)``; the references mixed with the demonstration, action 0, by up to .9."""
    pi, ref = rng.dirichlet(np.ones(5), (2, 12))
    tilt = rng.uniform(0, 0.9, (12, 1))
    return np.log(pi), np.log((1 - tilt) * ref + tilt * np.eye(5)[0])


def binary_kl(x, d):
    return (x * math.log(x / d) if x else 0.0) + ((1 - x) * math.log((1 - x) / (1 - d)) if x < 1 else 0.0)


# C5: groups of one state -------------------------------------------------------------------------------
def all_groups(pi, reward, success, setting, *, size=5, sample=False, recentred=False):
    """``(chance, counts, advantages, actions)`` of all groups of ``size``, as multisets."""
    actions = np.array(list(itertools.combinations_with_replacement(range(len(pi)), size)))
    counts = np.stack([np.bincount(a, minlength=len(pi)) for a in actions])
    ways = math.factorial(size) / np.prod([[math.factorial(c) for c in row] for row in counts], axis=1)
    group = np.repeat(np.arange(len(actions)), size)
    scale = group_sample_std if sample else group_std
    a = advantages(reward[actions].ravel(), group, scale=scale)
    a = sngs(a, success[actions].ravel(), group, offset=setting[0], slope=setting[1]).reshape(actions.shape)
    if recentred:
        a = a - a.mean(axis=1, keepdims=True)
    return ways * np.prod(pi**counts, axis=1), counts, a, actions


def updates(pi, a, actions):
    """``(1/G) sum_k A_k (e_a - pi)`` of every group."""
    return np.mean(a[..., None] * (np.eye(len(pi))[actions] - pi), axis=1)


def relative(p, size, setting):
    """The step with scaled negatives over that without."""
    return negative_scaling_weight(p, size, offset=float(setting[0]), slope=float(setting[1])) / std_weight(p, size)


def chance_of_difference(first, more, tasks, times=1):
    """Exact chance that two equal agents differ as ``first`` and ``first + more`` of ``tasks``, or by more; at ``times`` as many tasks."""
    n, difference = tasks * times, more * times
    law = binom.pmf(np.arange(n + 1), n, (first + more / 2) / tasks)
    return np.convolve(law, law[::-1])[np.abs(np.arange(-n, n + 1)) >= difference].sum()


# C6: grounding beside reasoning -------------------------------------------------------------------------
def tokens_of(log_probs, mask, kinds, weights):
    """A batch of responses, and a weight a token: ``kinds`` 0 reasoning, 1 action, 2 grounding."""
    return TokenBatch(log_probs, mask=mask), np.asarray(weights, dtype=float)[kinds]


def samples(rng, lengths=None):
    """``(log_probs, mask, kinds)`` of four responses in the order c, a, g; random lengths unless given."""
    counts = [lengths or (int(rng.integers(0, 9)), *rng.integers(1, 6, 2)) for _ in range(4)]
    longest = max(map(sum, counts))
    kinds, mask = np.zeros((4, longest), dtype=int), np.zeros((4, longest), dtype=bool)
    for i, parts in enumerate(counts):
        kinds[i, : sum(parts)], mask[i, : sum(parts)] = np.repeat(np.arange(3), parts), True
    return -rng.exponential(1.0, (4, longest)), mask, kinds


def pairs(rng):
    """Counts of (chain, action) among samples, 3 x 3."""
    return rng.multinomial(60, rng.dirichlet(np.ones(9))).reshape(3, 3).astype(float)


def chain_losses(counts):
    """Least losses of ASFT with a large weight on actions and of direct samples, and ``I(a;c)``, for counts of (chain, action)."""
    total = int(counts.sum())
    c, a = (np.repeat(x, counts.astype(int).ravel()) for x in np.nonzero(np.ones(counts.shape)))
    chain, action = counts.sum(axis=1), counts.sum(axis=0)
    log_probs = np.log(np.stack([chain[c] / total, counts[c, a] / chain[c]], axis=1))
    weighted, _ = asft(*tokens_of(log_probs, None, np.array([[0, 1]] * total), (1.0, 1e9, 1.0)))
    direct, _ = asft(
        *tokens_of(np.log(action[a] / total)[:, None], None, np.ones((total, 1), dtype=int), (1.0, 1.0, 1.0))
    )
    p, q, r = (x[x > 0] / total for x in (counts, chain, action))
    return float(weighted), float(direct), p @ np.log(p) - q @ np.log(q) - r @ np.log(r)


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

    Labels are argmaxes of Gaussian linear maps, one a head; full-batch Adam (.05). Generators start anew, so that all runs see the same data.
    """
    drawn = [_grounding_data(np.random.default_rng(r.bit_generator.seed_seq), run) for r in rngs]
    x, labels, *start = (np.stack(part) for part in zip(*drawn))
    network = Network((Linear(INPUTS, run.width, bias=False), Linear(run.width, LABELS * (run.heads + 1))), "float32")
    parameters, optimisers = tuple(start), start_all(Adam(0.05), start)
    train, test = x[:, :TRAIN], x[:, TRAIN:]
    target = (
        np.eye(LABELS, dtype=np.float32)[labels[:, :TRAIN]].transpose(3, 0, 1, 2).copy()
    )  # (labels, seeds, n, heads)
    weights = (run.shares / TRAIN).astype(np.float32)
    for _ in range(steps):
        logits, tape = network.forward(parameters, train)
        by_label = np.ascontiguousarray(np.moveaxis(logits.reshape(*logits.shape[:2], LABELS, -1), 2, 0))
        slope = weights * (class_probabilities(by_label) - target)
        slope = np.moveaxis(slope, 0, 2).reshape(logits.shape)
        gradients, _ = network.backward(parameters, tape, slope)
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
    """Softmax over the labels, the first axis."""
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0)


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
        """In float32 where it is real: the scores move by 1e-5 at most."""
        parts = [np.stack(part) for part in zip(*map(_world, rngs))]
        return cls(*(part.astype(np.float32) if part.dtype == np.float64 else part for part in parts))


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


def _policy(z):
    """``(pi, log pi)`` of logits ``(n, 6, states)``."""
    z = z - z.max(axis=1, keepdims=True)
    weights = np.exp(z)
    total = weights.sum(axis=1, keepdims=True)
    return weights / total, z - np.log(total)


def fine_tuned(world, clean=False, steps=250, lr=5.0):
    """Logits of all states ``(n, 6, 300)`` after SFT from 0 on the labels of the first 150 (or the demonstrations of all)."""
    n = STATES if clean else SEEN
    target = (world.demo if clean else world.labels)[:, :, :n]
    kernel, moved = np.ascontiguousarray(world.kernel[:, :n, :n]), np.zeros_like(target)
    for _ in range(steps):
        moved += lr / n * (target - _policy(moved @ kernel)[0])
    return moved @ world.kernel[:, :n]


def direction(pi, log_pi, log_ref, label, run):
    """Ascent of the logits of every state ``(..., 6, states)``: normalised policy gradient of the label, minus ``beta`` that of KL(pi‖ref)."""
    p = np.sum(pi * label, axis=-2, keepdims=True)
    push = p / np.sqrt(p * (1 - p) + 0.05)
    if run.scaling is not None:
        push = push * negative_scaling_limit(np.minimum(p, 1.0), offset=run.scaling[0], slope=run.scaling[1])
    if not run.beta:
        return (label - pi) * push
    ratio = log_pi - log_ref
    return (label - pi) * push - run.beta * pi * (ratio - np.sum(pi * ratio, axis=-2, keepdims=True))


def slope(z, log_ref, label, beta, *, swap=False, plain=False):
    """Central differences in the logits of ``pi(label)/sqrt(p (1-p) + .05) - beta KL(pi‖ref)``, ``p`` of the denominator held fixed."""
    p = np.exp(log_normalize(z)[label])
    fixed = math.sqrt(p * (1 - p) + 0.05)

    def value(y):
        log_pi = log_normalize(y)
        cost = kl(log_ref, log_pi) if swap else kl(log_pi, log_ref)
        return (log_pi[label] if plain else np.exp(log_pi[label])) / fixed - beta * cost

    return np.array([value(z + e) - value(z - e) for e in 1e-5 * np.eye(len(z))]) / 2e-5


def in_weights(world, steps, beta, lr=3.0, horizon=HORIZON, noisy=True):
    """Scores of the first world ``(6,)`` after SFT and RL on the weights of features with its kernel, and the demonstrations' states."""
    level, axes = np.linalg.eigh(world.kernel[0].astype(float))
    phi, theta = axes * np.sqrt(np.maximum(level, 0)), np.zeros((STATES, ACTIONS))
    labels, demo, valid = (
        x[0].T.astype(float) for x in (world.labels if noisy else world.demo, world.demo, world.valid)
    )
    for _ in range(250):
        theta += 5 / SEEN * phi[:SEEN].T @ (labels - np.exp(log_normalize(phi @ theta)))[:SEEN]
    log_ref, rows, unseen = log_normalize(phi @ theta), world.prompts[0], slice(SEEN, STATES)
    for _ in range(steps):
        log_pi = log_normalize(phi @ theta)
        pi, ratio = np.exp(log_pi), log_pi - log_ref
        p = np.sum(pi * labels, axis=1, keepdims=True)
        gain = (labels - pi) * p / np.sqrt(p * (1 - p) + 0.05) - beta * pi * (ratio - kl(log_pi, log_ref)[:, None])
        theta += lr * np.mean(phi[rows, :, None] * gain[rows, None], axis=0)
    log_pi = log_normalize(phi @ theta)
    pi = np.exp(log_pi)
    moves = np.eye(STATES)[world.successor[0].T]
    problem = TabularMDP(moves, np.zeros((STATES, ACTIONS)), np.full(STATES, 1 / STATES), horizon)
    data = data_visits(problem, _log(demo))
    law = np.where(np.arange(STATES) < SEEN, 0.0, data) / data[unseen].sum()
    score, mass = (float(np.sum(law[:, None] * pi * x)) for x in (demo, valid - demo))
    spread = [-np.sum(pi * log_pi, axis=1)[unseen].mean(), kl(log_pi, log_ref)[unseen].mean()]
    train = np.sum(pi * labels, axis=1)[rows].mean()
    return [train, score, success_probability(problem, log_pi, valid > 0), mass, *spread], data


def trained(world, start, run, every=None):
    """Scores ``(6, n)`` after RL from the logits ``start``; with ``every`` those of each so many steps, ``(6, n, checkpoints)``."""
    rows = np.broadcast_to(np.arange(STATES), (len(start), STATES)) if run.clean else world.prompts
    seeds = np.arange(len(start))[:, None]
    label = (world.demo if run.clean else world.labels).transpose(0, 2, 1)[seeds, rows].transpose(0, 2, 1)
    across = world.kernel[seeds, rows]  # (n, prompts, 300)
    kernel = np.ascontiguousarray(np.take_along_axis(across, rows[:, None, :], axis=2))
    first = np.take_along_axis(start, rows[:, None, :], axis=2)
    log_ref, moved, path = _policy(first)[1], np.zeros_like(first), []
    for step in range(run.steps):
        if every and step % every == 0:
            path.append(scores(world, start, start + moved @ across, rows, label))
        moved += run.lr / rows.shape[1] * direction(*_policy(first + moved @ kernel), log_ref, label, run)
    path.append(scores(world, start, start + moved @ across, rows, label))
    return np.stack(path, axis=-1) if every else path[-1]


def scores(world, start, logits, rows, label):
    """Training score, offline score and off-demo mass on unseen states, online success, entropy and KL there, ``(6, n)``."""
    (pi, log_pi), (_, log_ref), unseen = _policy(logits), _policy(start), slice(SEEN, STATES)
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


def changes(rngs, scaling):
    """Scores with and without scaled negatives at ``beta = 1``, paired, ``(6, n)``."""
    world = World.draw(rngs)
    start = fine_tuned(world)
    return trained(world, start, Training(1.0, scaling=scaling)) - trained(world, start, Training(1.0))


def within_run(path):
    """Correlation of the offline score and online success over the checkpoints of every run."""
    score, online = (x - x.mean(axis=1, keepdims=True) for x in (path[1], path[2]))
    return np.sum(score * online, axis=1) / np.sqrt(np.sum(score**2, axis=1) * np.sum(online**2, axis=1))
