"""The rooms of flexibility-trap: forks with what they decide, random models, and a small masked-diffusion network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.estimators import pass_at_k_exact
from klsim.learning import Adam
from klsim.learning.networks import Linear, Network, ReLU, softmax_cross_entropy, start_all, update
from klsim.objectives.advantages import advantages, group_mean, group_sample_std
from klsim.problems.decoding import decode_conditionals, decode_joint, state_marginals

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


def pass_curve(rates, budgets=BUDGETS):
    """Mean pass@k ``(..., budgets)`` of success rates ``(..., problems)``."""
    return pass_at_k_exact(np.asarray(rates)[..., None], np.array(budgets)).mean(axis=-2)


# a network that learns to fill masks ----------------------------------------------------------------------
Q, L, V = 16, 5, 3
STATES, WIDTH, GROUP, RL_STEPS, PRETRAINING = (V + 1) ** L, 64, 16, 60, 700
PLACE = (V + 1) ** np.arange(L)[::-1]
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


def _distinct(inputs):
    """Distinct rows of every copy, padded, and where each row went: ``(S, U)`` and ``(S, n)``."""
    found = [np.unique(row, return_inverse=True) for row in inputs]
    rows = np.zeros((len(inputs), max(len(u) for u, _ in found)), int)
    for s, (unique, _) in enumerate(found):
        rows[s, : len(unique)] = unique
    return rows, np.stack([inverse for _, inverse in found])


def ascend(parameters, optimisers, inputs, tokens, weights):
    """One Adam step up ``sum weight log p(token at i | input)`` of every copy, ``inputs (S, n)``, the rest ``(S, n, L)``."""
    rows, at = _distinct(inputs)
    flat = ((np.arange(len(rows))[:, None] * rows.shape[1] + at)[..., None] * L + np.arange(L)) * V + tokens
    summed = np.bincount(flat.ravel(), weights.ravel(), minlength=rows.size * L * V)
    target = summed.reshape(*rows.shape, L, V).astype(np.float32)
    logits, tape = NETWORK.forward(parameters, INPUTS[rows])
    _, slope = softmax_cross_entropy(logits.reshape(target.shape), target)
    gradients, _ = NETWORK.backward(parameters, tape, slope.reshape(logits.shape))
    return update(optimisers, parameters, gradients, storage="float32")


def masks(u, v):
    """The count scheme: ``n ~ U{1..L}`` random positions masked, and the weights ``L/n``."""
    n = 1 + np.minimum((u * L).astype(int), L - 1)
    return np.argsort(np.argsort(v, axis=-1), axis=-1) < n[..., None], L / n


def pretrained(rngs, world, steps=PRETRAINING, batch=192, rate=3e-3, error=0.1):
    """Parameters after Adam on the masked cross-entropy of answers drawn from the task."""
    seeds = np.arange(len(rngs))[:, None]
    parameters = tuple(np.concatenate(p) for p in zip(*(NETWORK.start(r, copies=(1,)) for r in rngs)))
    optimisers = start_all(Adam(rate), parameters)
    cumulative = world.belief.cumsum(axis=-1)
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
        logits, tape = NETWORK.forward(parameters, INPUTS[prompt * STATES + state])
        target = np.eye(V, dtype=np.float32)[tokens] * (hidden * (weight / batch)[..., None])[..., None]
        _, slope = softmax_cross_entropy(logits.reshape(target.shape), target)
        gradients, _ = NETWORK.backward(parameters, tape, slope.reshape(logits.shape).astype(np.float32))
        parameters, optimisers = update(optimisers, parameters, gradients, storage="float32")
    return parameters


def _law(parameters, prompts, states):
    """``(S, n, L, V)`` probabilities, each distinct row computed once."""
    rows, at = _distinct(prompts * STATES + states)
    logits, _ = NETWORK.forward(parameters, INPUTS[rows])
    p = np.exp(log_normalize(logits.reshape(*rows.shape, L, V)))
    return p[np.arange(len(rows))[:, None], at]


def roll_out(parameters, prompts, u, orders):
    """Answers ``(S, n, L)`` at T = 1 from ``u (S, L, L, n)``: along ``orders (S, L)``, or by confidence if None."""
    copies, n = prompts.shape
    tokens, rows = np.full((copies, n, L), V), np.arange(n)
    for k in range(L):
        p = _law(parameters, prompts, tokens @ PLACE)
        drawn = np.minimum((np.moveaxis(u[:, k], 1, -1)[..., None] > p.cumsum(axis=-1)).sum(axis=-1), V - 1)
        if orders is None:
            sure = np.take_along_axis(p, drawn[..., None], axis=-1)[..., 0]
            chosen = np.argmax(np.where(tokens == V, sure, -1.0), axis=-1)
        else:
            chosen = np.broadcast_to(orders[:, k, None], (copies, n))
        at = np.arange(copies)[:, None], rows, chosen
        tokens[at] = drawn[at]
    return tokens


def credit(reward, group):
    """Weight of every token's log-probability, ``(S, n)``: ``A/L`` over the number of samples with ``A != 0``."""
    a = advantages(reward.ravel(), group, baseline=group_mean, scale=group_sample_std, epsilon=1e-4).reshape(
        reward.shape
    )
    return a / (L * ((a != 0).sum(axis=1, keepdims=True) + 1e-5))


def reinforced(rngs, parameters, answers, orders=None, steps=RL_STEPS, rate=1e-3):
    """GRPO: parameters and mean reward ``(S, steps)``.

    ``orders (S, L)``: rollout and exact likelihood along them (left to right: JustGRPO). None: confidence rollouts and
    the ELBO on L fresh masks. The loss is ``-1/L sum_k A log p`` over samples with ``A != 0``; on-policy the ratio is 1."""
    copies, n = len(rngs), Q * GROUP
    prompts = np.broadcast_to(np.repeat(np.arange(Q), GROUP), (copies, n))
    group, optimisers, curve = np.arange(copies * n) // GROUP, start_all(Adam(rate), parameters), []
    for _ in range(steps):
        u = np.stack([r.random((L, L, n)) for r in rngs])
        tokens = roll_out(parameters, prompts, u, orders)
        reward = np.all(tokens == np.repeat(answers, GROUP, axis=1), axis=-1).astype(float)
        curve.append(reward.mean(axis=1))
        a = credit(reward, group)
        if orders is None:
            more = np.stack([r.random((L + 1, L, n)) for r in rngs])
            hidden, weight = masks(more[:, 0], np.moveaxis(more[:, 1:], 1, -1))  # (S, masks, n, L)
            shown, share = np.where(hidden, V, tokens[:, None]), hidden * (a[:, None] * weight / L)[..., None]
        else:
            rank = np.argsort(orders, axis=1)[:, None, None, :]
            step = np.arange(L)[:, None, None]
            shown = np.where(rank < step, tokens[:, None], V)
            share = (rank == step) * a[:, None, :, None]
        inputs = shown @ PLACE + prompts[:, None] * STATES
        kept = np.broadcast_to(tokens[:, None], share.shape)
        entries = inputs.reshape(copies, -1), kept.reshape(copies, -1, L), share.reshape(copies, -1, L)
        parameters, optimisers = ascend(parameters, optimisers, *entries)
    return parameters, np.array(curve).T


def accuracy(parameters, right):
    """Exact: decoded by confidence, nearly greedily (T = .05), and left to right at T = 1, ``(S,)`` each."""
    logits, _ = NETWORK.forward(parameters, INPUTS)
    log_prob = log_normalize(logits.reshape(-1, Q, STATES, L, V).astype(float))
    number = right @ V ** np.arange(L)[::-1]
    out = []
    for rule, temperature in (("confidence", 0.05), ("left_to_right", 1.0)):
        law = decode_conditionals(log_prob, rule, temperature=temperature).law
        out.append(np.take_along_axis(law, number[..., None], axis=-1)[..., 0].mean(axis=1))
    return out


ARMS = ("JustGRPO", "fixed order", "ELBO, confidence")


def study(rngs, arms=ARMS, verifier="right", steps=RL_STEPS, permutations=3) -> dict[str, Any]:
    """``{arm: ((confidence, AR pass@1), curve)}`` and the base, all from the same pretrained weights of a seed.

    The fixed order is a permutation, drawn that many times a seed; its results are averaged."""
    world = World.draw(rngs)
    base = pretrained(rngs, world)
    out = {"base": (accuracy(base, world.right), None)}
    drawn = np.stack([r.permutation(L) for r in list(rngs) * permutations])
    for arm in arms:
        times = permutations if arm == "fixed order" else 1
        copies, copied = list(rngs) * times, world.repeated(times)
        orders = drawn if arm == "fixed order" else np.tile(np.arange(L), (len(copies), 1))
        start = tuple(np.concatenate([p] * times) for p in base)
        orders = None if arm == "ELBO, confidence" else orders
        trained, curve = reinforced(copies, start, getattr(copied, verifier), orders, steps)
        scores = [x.reshape(times, -1).mean(axis=0) for x in accuracy(trained, copied.right)]
        out[arm] = scores, curve.reshape(times, len(rngs), -1).mean(axis=0)
    return out
