"""The rooms of flexibility-trap: forks with what they decide, random models, and a small masked-diffusion network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.estimators import pass_at_k_exact
from klsim.learning import SGD, Adam
from klsim.learning.networks import Linear, Network, ReLU, Tape, softmax_cross_entropy
from klsim.problems.decoding import decode_conditionals, decode_joint, order_log_likelihood, state_marginals

FORK, LENGTH, VOCAB = 1, 6, 3
PAPER_T = 0.6
BUDGETS = (1, 4, 8, 32, 128, 1024)


def words(vocab: int, length: int) -> np.ndarray:
    """All answers ``(V**L, L)``, as they are numbered."""
    return np.stack(np.unravel_index(np.arange(vocab**length), (vocab,) * length), axis=1)


def dirichlet_joint(rng: np.random.Generator, vocab: int = 3, length: int = 5, alpha: float = 0.3) -> np.ndarray:
    """Log-law over all answers, Dirichlet(alpha)."""
    return _log(np.maximum(rng.dirichlet(np.full(vocab**length, alpha)), 1e-300))


def _log(weights: np.ndarray) -> np.ndarray:
    return np.log(weights) - np.log(weights.sum(axis=-1, keepdims=True))


def free_conditionals(rng: np.random.Generator, vocab: int = 3, length: int = 4) -> np.ndarray:
    """Conditionals of every position in every state, independent Dirichlet(1) rows: they fit no law of sequences."""
    return _log(rng.dirichlet(np.ones(vocab), size=((vocab + 1) ** length, length)))


# the fork task: one token decides, the others follow ---------------------------------------------------
@dataclass(frozen=True)
class Forks:
    """Problems with a fork at position 1, belief ``belief (Q, V)``, and what follows from it, ``follows (Q, L, V)``.

    Every other token is ``follows[q, i, fork]`` with probability ``1 - error``, else one of the others.
    """

    belief: np.ndarray
    follows: np.ndarray
    error: float

    @classmethod
    def draw(cls, rng, count=150, length=LENGTH, vocab=VOCAB, error=0.08, decided=True):
        """Functions drawn value by value; constant ones before the fork, and everywhere unless ``decided``."""
        follows = rng.integers(0, vocab, (count, length, vocab))
        constant = slice(None) if not decided else slice(0, FORK)
        follows[:, constant] = follows[:, constant, :1]
        return cls(rng.dirichlet(np.ones(vocab), size=count), follows, error)

    @property
    def log_joint(self) -> np.ndarray:
        """``(Q, V**L)``."""
        _, length, vocab = self.follows.shape
        answers = words(vocab, length)
        fork = answers[:, FORK]
        with np.errstate(divide="ignore"):
            total = np.log(self.belief)[:, fork]
        for i in range(length):
            if i != FORK:
                right = self.follows[:, i][:, fork] == answers[:, i]
                total = total + np.log(np.where(right, 1 - self.error, self.error / (vocab - 1)))
        return log_normalize(total)

    def correct(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """The right fork, drawn from the belief, and the number of the one right answer, ``(Q,)`` each."""
        fork = np.minimum(
            (rng.random((len(self.belief), 1)) > self.belief.cumsum(axis=1)).sum(axis=1), self.belief.shape[1] - 1
        )
        return fork, self.answer(fork)

    def answer(self, fork: np.ndarray) -> np.ndarray:
        """Numbers of the answers that follow from a fork each."""
        _, length, vocab = self.follows.shape
        tokens = np.take_along_axis(self.follows, fork[:, None, None], axis=2)[:, :, 0]
        tokens[:, FORK] = fork
        return tokens @ vocab ** np.arange(length)[::-1]


def fork_entropies(rng, rule, count=150, decided=True, temperature=PAPER_T, block=None):
    """Mean decode-time entropy at the fork, at the other positions, and over all, ``(3,)`` nats."""
    task = Forks.draw(rng, count, decided=decided)
    found = decode_joint(task.log_joint, VOCAB, LENGTH, rule, temperature=temperature, block=block).entropy.mean(axis=0)
    return np.array([found[FORK], np.delete(found, FORK).mean(), found.mean()])


def solve_rates(rng, decodings, count=300, choice="belief"):
    """``(decodings, count)``: probability of the right answer, on the same problems; each is ``(rule, T, block)``.

    ``choice``: the right fork is drawn from the ``belief``, or ``uniform``ly."""
    task = Forks.draw(rng, count)
    _, right = task.correct(rng)
    if choice == "uniform":
        right = task.answer(rng.integers(0, VOCAB, count))
    log_joint = task.log_joint
    out = []
    for rule, temperature, block in decodings:
        law = decode_joint(log_joint, VOCAB, LENGTH, rule, temperature=temperature, block=block).law
        out.append(law[np.arange(count), right])
    return np.minimum(np.array(out), 1.0)


def expected_curve(rng, decodings, budgets, count=300, choice="belief"):
    """As `pass_curve` of `solve_rates`, ``(decodings, budgets)``, in expectation over the right fork: less varies."""
    task = Forks.draw(rng, count)
    answers = np.array([task.answer(np.full(count, fork)) for fork in range(VOCAB)]).T
    weights = task.belief if choice == "belief" else np.full((count, VOCAB), 1 / VOCAB)
    out, log_joint = [], task.log_joint
    for rule, temperature, block in decodings:
        law = decode_joint(log_joint, VOCAB, LENGTH, rule, temperature=temperature, block=block).law
        rates = np.minimum(np.take_along_axis(law, answers, axis=1), 1.0)
        solved = pass_at_k_exact(rates[..., None], np.array(budgets))
        out.append(np.sum(weights[..., None] * solved, axis=1).mean(axis=0))
    return np.array(out)


def pass_curve(rates, budgets=BUDGETS):
    """Mean pass@k ``(..., budgets)`` of success rates ``(..., problems)``."""
    return pass_at_k_exact(np.asarray(rates)[..., None], np.array(budgets)).mean(axis=-2)


# a network that learns to fill masks ----------------------------------------------------------------------
Q, L, V = 16, 5, 3
STATES, WIDTH, GROUP, RL_STEPS, PRETRAINING = (V + 1) ** L, 64, 16, 60, 700
PLACE, RL_OPTIMISER = (V + 1) ** np.arange(L)[::-1], Adam(1e-3)
NETWORK = Network(
    (Linear(Q + L * (V + 1), WIDTH), ReLU(), Linear(WIDTH, WIDTH), ReLU(), Linear(WIDTH, L * V)), "float32"
)


def _inputs() -> np.ndarray:
    """One row a prompt and state: prompt and tokens (or mask) one-hot, ``(Q * STATES, inputs)``."""
    digits = np.arange(STATES)[:, None] // PLACE % (V + 1)
    states = np.eye(V + 1)[digits].reshape(STATES, -1)
    return np.hstack([np.repeat(np.eye(Q), STATES, axis=0), np.tile(states, (Q, 1))]).astype(np.float32)


INPUTS = _inputs()


class Consistent(NamedTuple):
    """A law of sequences (L = 5, V = 3), a permutation, and a rule that looks at the visible tokens: scores of all states."""

    log_joint: np.ndarray
    order: np.ndarray
    scores: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(dirichlet_joint(rng), rng.permutation(L), rng.random((STATES, L)))

    @property
    def rules(self):
        return {"left to right": "left_to_right", "a permutation": self.order, "random": "random", "lowest entropy": "entropy",
                "highest probability": "top_prob", "any scores": self.scores}  # fmt: skip

    def conditionals(self, noise=0.0):
        """``(STATES, L, V)``, with noise in the logits that depends on the state."""
        seen, state = state_marginals(self.log_joint, V, L), np.arange(STATES)[:, None]
        masked = state // PLACE % (V + 1) == V
        shown = np.where(masked, state - V * PLACE, 0)[..., None] + np.arange(V) * PLACE[:, None]
        table = np.where(masked[..., None], np.maximum(seen[shown], 1e-300), 1.0)
        return log_normalize(np.log(table) + noise * np.sin(1e3 * self.scores)[..., None] * np.arange(V))


class World(NamedTuple):
    """Copies of the task, ``(S, Q, ...)``: what follows, beliefs, right answers (tokens) and wrong ones that look alike."""

    belief: np.ndarray
    follows: np.ndarray
    right: np.ndarray
    wrong: np.ndarray

    @classmethod
    def draw(cls, rngs, error=0.1):
        made = []
        for rng in rngs:
            task = Forks.draw(rng, Q, L, V, error)
            fork, answer = task.correct(rng)
            tokens = words(V, L)[answer]
            wrong = tokens.copy()
            wrong[:, FORK] = (fork + 1) % V
            made.append((task.belief, task.follows, tokens, wrong))
        return cls(*(np.array(x) for x in zip(*made)))

    def repeated(self, times):
        return World(*(np.concatenate([x] * times) for x in self))


def parts(flat):
    """The network's arrays as views of ``flat (S, P)``: one array for the optimiser."""
    ends = np.cumsum([0, *(math.prod(shape) for shape in NETWORK.shapes)])
    return tuple(flat[:, a:b].reshape(-1, *shape) for a, b, shape in zip(ends, ends[1:], NETWORK.shapes))


def descend(flat, optimiser, tape, slope):
    """One step of the optimiser down a loss with that slope in the logits: parameters and optimiser after it."""
    gradients, _ = NETWORK.backward(parts(flat), tape, slope.reshape(tape.values[-1].shape))
    return optimiser.step(flat, -np.concatenate([g.reshape(len(flat), -1) for g in gradients], axis=1))


def look_up(flat, inputs):
    """A forward pass on the distinct rows of ``inputs (S, n)``, padded: the tape, and where each input went, ``(S, n)``."""
    found = [np.unique(row, return_inverse=True) for row in inputs]
    rows = np.zeros((len(inputs), max(len(u) for u, _ in found)), int)
    for s, (unique, _) in enumerate(found):
        rows[s, : len(unique)] = unique
    return NETWORK.forward(parts(flat), INPUTS[rows])[1], np.stack([inverse for _, inverse in found])


def joined(looked_up):
    """Several of them as one."""
    tapes, places = zip(*looked_up)
    first = np.cumsum([0, *(t.values[-1].shape[1] for t in tapes)])
    values = (np.concatenate(v, axis=1) for v in zip(*(t.values for t in tapes)))
    return Tape(tuple(values)), np.stack([at + f for at, f in zip(places, first)], axis=1)


def ascend(flat, optimiser, tape, at, position, tokens, weights):
    """One step up ``sum weight log p(token at position | row)``; all from ``at`` on are ``(S, ...)`` and broadcast."""
    logits = tape.values[-1].reshape(*tape.values[-1].shape[:2], L, V)
    copy = np.arange(len(at)).reshape(-1, *(1,) * (at.ndim - 1))
    index = ((copy * logits.shape[1] + at) * L + position) * V + tokens
    summed = np.bincount(index.ravel(), np.broadcast_to(weights, index.shape).ravel(), minlength=logits.size)
    _, slope = softmax_cross_entropy(logits, summed.reshape(logits.shape).astype(np.float32))
    return descend(flat, optimiser, tape, slope)


def masks(u, v):
    """The count scheme: ``n ~ U{1..L}`` random positions masked, and the weights ``L/n``."""
    n = 1 + np.minimum((u * L).astype(int), L - 1)
    return np.argsort(np.argsort(v, axis=-1), axis=-1) < n[..., None], L / n


def pretrained(rngs, world, steps=PRETRAINING, batch=192, rate=3e-3, error=0.1):
    """Parameters ``(S, P)`` after Adam on the masked cross-entropy of answers drawn from the task."""
    seeds = np.arange(len(rngs))[:, None]
    flat = np.array([np.concatenate([p.ravel() for p in NETWORK.start(r)]) for r in rngs])
    optimiser, cumulative = Adam(rate), world.belief.cumsum(axis=-1)
    for _ in range(steps):
        u = np.stack([r.random((3 + 2 * L, batch), dtype=np.float32) for r in rngs])
        prompt = (u[:, 0] * Q).astype(int)
        fork = np.minimum((u[:, 1, :, None] > cumulative[seeds, prompt]).sum(axis=-1), V - 1)
        tokens = world.follows[seeds, prompt][np.arange(len(rngs))[:, None], np.arange(batch), :, fork]
        slip = np.moveaxis(u[:, 3 : 3 + L], 1, -1)
        tokens = np.where(slip < error, (tokens + 1 + (slip / error * (V - 1)).astype(int)) % V, tokens)
        tokens[..., FORK] = fork
        hidden, weight = masks(u[:, 2], np.moveaxis(u[:, 3 + L :], 1, -1))
        state = np.where(hidden, V, tokens) @ PLACE
        logits, tape = NETWORK.forward(parts(flat), INPUTS[prompt * STATES + state])
        target = np.eye(V, dtype=np.float32)[tokens] * (hidden * (weight / batch)[..., None])[..., None]
        _, slope = softmax_cross_entropy(logits.reshape(target.shape), target.astype(np.float32))
        flat, optimiser = descend(flat, optimiser, tape, slope)
    return flat


def roll_out(flat, prompts, rngs, orders):
    """Answers ``(S, n, L)`` at T = 1: along ``orders (S, L)``, or by confidence if None; and
    the forward passes that they took."""
    copies, n = prompts.shape
    tokens, copy, rows, passes = np.full((copies, n, L), V), np.arange(copies)[:, None], np.arange(n), []
    uniforms = np.stack([r.random((L, n) if orders is not None else (L, n, L)) for r in rngs])
    for k, u in enumerate(np.moveaxis(uniforms, 1, 0)):
        tape, at = look_up(flat, prompts * STATES + tokens @ PLACE)
        logits = tape.values[-1].reshape(copies, -1, L, V)
        passes.append((tape, at))
        if orders is None:
            p = np.exp(log_normalize(logits))[copy, at]
            drawn = drawn_from(p, u)
            sure = np.take_along_axis(p, drawn[..., None], axis=-1)[..., 0]
            chosen = np.argmax(np.where(tokens == V, sure, -1.0), axis=-1)
            tokens[copy, rows, chosen] = drawn[copy, rows, chosen]
        else:
            chosen = orders[:, k, None]
            p = np.exp(log_normalize(logits[copy, at, chosen]))
            tokens[copy, rows, chosen] = drawn_from(p, u)
    return tokens, passes


def drawn_from(p, u):
    return np.minimum((u[..., None] > p.cumsum(axis=-1)).sum(axis=-1), V - 1)


def credit(reward):
    """Weight of every token's log-probability, ``(S, n)``: ``A/L`` over the number of samples with ``A != 0``."""
    group = reward.reshape(len(reward), -1, GROUP)
    centred = group - group.mean(axis=-1, keepdims=True)
    a = (centred / (group.std(axis=-1, ddof=1, keepdims=True) + 1e-4)).reshape(reward.shape)
    return a / (L * ((a != 0).sum(axis=1, keepdims=True) + 1e-5))


def reinforced(rngs, flat, answers, orders=None, steps=RL_STEPS, optimiser=RL_OPTIMISER):
    """GRPO: parameters and mean reward ``(S, steps)``.

    ``orders (S, L)``: rollout and exact likelihood along them (left to right: JustGRPO). None: confidence rollouts and
    the ELBO on L fresh masks. The loss is ``-1/L sum_k A log p`` over samples with ``A != 0``; on-policy the ratio is 1,
    and the exact likelihood is that of the rollout's own forward passes."""
    copies, n = len(rngs), Q * GROUP
    prompts = np.broadcast_to(np.repeat(np.arange(Q), GROUP), (copies, n))
    curve = []
    for _ in range(steps):
        tokens, passes = roll_out(flat, prompts, rngs, orders)
        reward = np.all(tokens == np.repeat(answers, GROUP, axis=1), axis=-1).astype(float)
        curve.append(reward.mean(axis=1))
        a = credit(reward)
        if orders is None:
            more = np.stack([r.random((L + 1, L, n)) for r in rngs])
            hidden, weight = masks(more[:, 0], np.moveaxis(more[:, 1:], 1, -1))  # (S, masks, n, L)
            inputs = np.where(hidden, V, tokens[:, None]) @ PLACE + prompts[:, None] * STATES
            tape, at = look_up(flat, inputs.reshape(copies, -1))
            share = hidden * (a[:, None] * weight / L)[..., None]
            entries = tape, at.reshape(*inputs.shape, 1), np.arange(L), tokens[:, None], share
        else:
            tape, at = joined(passes)  # (S, steps, n)
            along = np.take_along_axis(tokens, orders[:, None], axis=-1)
            entries = tape, at, orders[:, :, None], np.moveaxis(along, -1, 1), a[:, None]
        flat, optimiser = ascend(flat, optimiser, *entries)
    return flat, np.array(curve).T


class First(NamedTuple):
    """Weights ``(1, P)``, an order, a direction, and a seed: the first step of `reinforced` along that order."""

    flat: np.ndarray
    order: np.ndarray
    along: np.ndarray
    seed: int

    @classmethod
    def draw(cls, rng):
        flat = np.concatenate([p.ravel() for p in NETWORK.start(rng, gain=1.5)])[None]
        along = rng.standard_normal(flat.size)
        return cls(flat, rng.permutation(L), along / np.linalg.norm(along), int(rng.integers(2**31)))

    def rolled(self):
        """Prompts, answers, and right ones: the first answer to each prompt, so that every group has a success."""
        prompts = np.repeat(np.arange(Q), GROUP)
        tokens = roll_out(self.flat, prompts[None], [np.random.default_rng(self.seed)], self.order[None])[0][0]
        return prompts, tokens, tokens[::GROUP]

    def step(self):
        """By plain gradient descent with a rate of 1."""
        own = [np.random.default_rng(self.seed)]
        after, _ = reinforced(own, self.flat, self.rolled()[2][None], self.order[None], 1, SGD(1.0))
        return (after - self.flat)[0].astype(float)

    def log_probs(self, flat, order):
        """Token by token, from inputs made one step at a time and a network in plain float64, ``(n, L)``."""
        prompts, tokens, _ = self.rolled()
        a, b, c, d, e, f = (p[0] for p in parts(flat[None]))
        out = np.empty(tokens.shape)
        for k, i in enumerate(order):
            shown = tokens.copy()
            shown[:, order[k:]] = V
            x = np.hstack([np.eye(Q)[prompts], np.eye(V + 1)[shown].reshape(len(tokens), -1)])
            logits = np.maximum(np.maximum(x @ a.T + b, 0) @ c.T + d, 0) @ e.T + f
            out[:, k] = log_normalize(logits.reshape(-1, L, V)[:, i])[np.arange(len(tokens)), tokens[:, i]]
        return out


BELOW = (np.arange(2**L)[:, None] >> np.arange(L) & 1).astype(bool)  # which tokens a state shows


def accuracy(flat, right):
    """Exact: decoded by confidence, nearly greedily (T = .05), and left to right at T = 1, ``(S,)`` each.

    An answer is reached through states that show a part of it only: no others are asked of the network."""
    states = np.where(BELOW, right[:, :, None], V) @ PLACE  # (S, Q, 2^L)
    inputs = states + np.arange(Q)[:, None] * STATES
    logits, _ = NETWORK.forward(parts(flat), INPUTS[inputs.reshape(len(right), -1)])
    found = log_normalize(logits.reshape(*states.shape, L, V).astype(float))
    number, prompt, out = right @ V ** np.arange(L)[::-1], np.arange(Q), []
    for own, at, answer in zip(found, states, number):
        log_prob = np.full((Q, STATES, L, V), -np.log(V))
        log_prob[prompt[:, None], at] = own
        laws = decode_conditionals(log_prob, "confidence", temperature=0.05).law, np.exp(order_log_likelihood(log_prob))
        out.append([law[prompt, answer].mean() for law in laws])
    return list(np.array(out).T)


ARMS = ("JustGRPO", "fixed order", "ELBO, confidence")


def study(rngs, arms=ARMS, verifier="right", pretraining=PRETRAINING) -> dict[str, Any]:
    """``{arm: ((confidence, AR pass@1), curve)}`` and the base, all from the same pretrained weights of a seed.

    The fixed order is a random permutation and its reversal: the mean of both varies less, where early positions matter.
    Arms with exact likelihoods learn side by side; every run has a stream of its own."""
    world = World.draw(rngs)
    base = pretrained(rngs, world, pretraining)
    out = {"base": (accuracy(base, world.right), None)}
    drawn = np.stack([r.permutation(L) for r in rngs])
    orders = {"JustGRPO": np.tile(np.arange(L), (len(rngs), 1)), "fixed order": np.concatenate([drawn, drawn[:, ::-1]])}
    for together in (tuple(a for a in arms if a in orders), tuple(a for a in arms if a not in orders)):
        if not together:
            continue
        own = np.concatenate([orders[a] for a in together]) if together[0] in orders else None
        times = 1 if own is None else len(own) // len(rngs)
        copies = [r.spawn(1)[0] for r in list(rngs) * times]
        copied, start = world.repeated(times), np.concatenate([base] * times)
        trained, curve = reinforced(copies, start, getattr(copied, verifier), own)
        found = [x.reshape(times, -1) for x in accuracy(trained, copied.right)]
        first = 0
        for arm in together:
            runs = slice(first, first := first + (2 if arm == "fixed order" else 1))
            curves = curve.reshape(times, len(rngs), -1)[runs].mean(axis=0)
            out[arm] = [x[runs].mean(axis=0) for x in found], curves
    return out
