r"""What the claims and figures of gopd share: the two optima, and the problems that the statements are about.

Notation: student ``pi``, teacher ``T``, reference ``ref``, reward scale ``lam``; a tree policy is a tuple of levels
``(V**t, V)`` of log-probabilities, a law holds the log-probabilities of all ``V**H`` sequences.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from klsim.distributions import expectation, geometric_mixture, log_geometric_normalizer, log_normalize, tilt
from klsim.divergences import kl
from klsim.objectives import TokenBatch
from klsim.problems.token_tree import conditionals, path_sums, sequence_log_probs, tokens, visit_log_probs


# the objective and its optima -------------------------------------------------------------------------
def objective(log_pi, log_teacher, log_ref, lam):
    """``J_lam(pi) = E_pi[lam log T/ref] - KL(pi‖ref)`` of laws over sequences, and its magnitude for rounding.

    The magnitude holds the terms that are added up and 1, the total probability that each sum runs over.
    """
    reward, cost = expectation(log_pi, log_teacher - log_ref), kl(log_pi, log_ref)
    return lam * reward - cost, 1 + np.abs(lam * reward) + cost


def sequence_optimum(log_teacher, log_ref, lam):
    """``pi_lam = ref^(1-lam) T^lam / Z_lam`` and ``log Z_lam`` over one set of outcomes."""
    lam = np.asarray(lam)
    pair, weights = [log_ref, log_teacher], [1 - lam, lam]
    return geometric_mixture(pair, weights), log_geometric_normalizer(pair, weights)


def token_optimum(teacher, ref, lam):
    """``pi_tok`` (the same formula, normalised at every node) and the log-normalisers ``log z_lam(s)``, level by level."""
    lam = np.asarray(lam)[..., None]
    return tuple(zip(*(sequence_optimum(t, r, lam) for r, t in zip(ref, teacher))))


def along_paths(values, levels):
    """The sum over prefixes of one value a node, for every sequence."""
    return path_sums([np.broadcast_to(x[..., None], p.shape) for x, p in zip(values, levels)])


def both_optima(teacher, ref, lam):
    """``pi_tok``, ``W = sum_t log z_lam(s_t)``, ``pi_lam`` and ``log Z_lam`` over sequences."""
    tok, log_z = token_optimum(teacher, ref, lam)
    best, log_total = sequence_optimum(sequence_log_probs(teacher), sequence_log_probs(ref), lam)
    return sequence_log_probs(tok), along_paths(log_z, tok), best, log_total


def by_bfgs(teacher, ref, lam):
    """A generic optimiser on the logits of all sequences, from the uniform law: the law and its value."""

    def loss(logits):
        log_p = log_normalize(logits)
        p, g = np.exp(log_p), lam * (teacher - ref) - (log_p - ref)
        return -(p @ g), -p * (g - p @ g)

    found = minimize(loss, np.zeros(ref.size), jac=True, method="BFGS", options={"gtol": 1e-9})
    return log_normalize(found.x), -found.fun


# trees ------------------------------------------------------------------------------------------------
def random_tree(rng, vocab, horizon, scale=1.0):
    return tuple(log_normalize(scale * rng.standard_normal((vocab**t, vocab))) for t in range(horizon))


def noisy(ref, rng, scale):
    """A teacher: the reference's node logits plus Gaussian noise."""
    return tuple(log_normalize(level + scale * rng.standard_normal(level.shape)) for level in ref)


class NoisyTeacher(NamedTuple):
    """Laws over sequences on a tree of 3 tokens and 4 steps, the teacher one unit of noise from the reference."""

    teacher: np.ndarray
    ref: np.ndarray

    @classmethod
    def draw(cls, rng):
        ref = random_tree(rng, 3, 4)
        return cls(sequence_log_probs(noisy(ref, rng, 1.0)), sequence_log_probs(ref))


class LogLinear(NamedTuple):
    """A student with shared features on a tree of 3 tokens and 3 steps, and what it learns from."""

    phi: tuple
    theta: np.ndarray
    ref: tuple
    teacher: tuple

    @classmethod
    def draw(cls, rng):
        phi = tuple(rng.standard_normal((3**t, 3, 6)) for t in range(3))
        return cls(phi, rng.standard_normal(6), random_tree(rng, 3, 3), random_tree(rng, 3, 3))

    def policy(self, theta):
        return tuple(log_normalize(x @ theta) for x in self.phi)

    @property
    def pi(self):
        return self.policy(self.theta)

    def batch(self):
        """Every sequence once, as a batch for the losses; weigh them by their probabilities."""
        y = tokens(3, 3)
        nodes = [y[:, :t] @ 3 ** np.arange(t)[::-1] for t in range(3)]
        vocab = [np.stack([p[t][nodes[t]] for t in range(3)], axis=1) for p in (self.pi, self.teacher, self.ref)]
        sampled = [np.take_along_axis(v, y[..., None], axis=-1)[..., 0] for v in vocab]
        return TokenBatch(
            sampled[0], teacher_log_probs=sampled[1], ref_log_probs=sampled[2], vocab_log_probs=vocab[0],
            teacher_vocab_log_probs=vocab[1], ref_vocab_log_probs=vocab[2],
        )  # fmt: skip

    def estimate(self, credits):
        """``E_pi[sum_t credit_t grad log pi(a_t|s_t)]`` for credits ``(sequences, 3)``, by enumeration."""
        scores = [x - np.einsum("sa,saf->sf", np.exp(p), x)[:, None] for p, x in zip(self.pi, self.phi)]
        steps = [np.repeat(score.reshape(-1, 6), 3 ** (2 - t), axis=0) for t, score in enumerate(scores)]
        return np.einsum("y,yt,tyf->f", np.exp(sequence_log_probs(self.pi)), credits, np.stack(steps))

    def gradient(self, value):
        """Central differences of ``value(policy)``."""
        return finite_differences(lambda theta: value(self.policy(theta)), self.theta)


def finite_differences(value, theta, h=1e-5):
    """Truncation h², rounding eps / h: 1e-10 of the value's scale."""
    return np.array([value(theta + e) - value(theta - e) for e in h * np.eye(theta.size)]) / (2 * h)


class TiltedTree(NamedTuple):
    """A tree of 3 tokens and 4 steps with a reward a sequence; the teacher is the reference tilted at ``beta``."""

    ref: tuple
    reward: np.ndarray
    beta: float

    @classmethod
    def draw(cls, rng):
        return cls(random_tree(rng, 3, 4), rng.standard_normal(81), rng.uniform(0.3, 2.0))

    @property
    def laws(self):
        """Of the teacher and of the reference."""
        log_ref = sequence_log_probs(self.ref)
        return tilt(log_ref, self.reward, self.beta), log_ref

    @property
    def teacher(self):
        return conditionals(self.laws[0], 3, 4)

    def soft_values(self):
        """``beta log E_ref[e^{r/beta} | s]`` of every node, from the leaves below it; level by level."""
        mass, visits = self.laws[1] + self.reward / self.beta, visit_log_probs(self.ref)
        return [self.beta * (np.logaddexp.reduce(mass.reshape(d.size, -1), axis=1) - d) for d in visits]


class Weights(NamedTuple):
    """Two linear students and two small tanh networks on the features of a tree of 3 tokens and 3 steps."""

    phi: tuple
    bias: tuple
    linear: np.ndarray
    hidden: np.ndarray
    out: np.ndarray

    @classmethod
    def draw(cls, rng):
        phi = tuple(rng.standard_normal((3**t, 3, 5)) for t in range(3))
        bias = tuple(rng.standard_normal(x.shape[:2]) for x in phi)
        hidden, out = rng.standard_normal((5, 8)), rng.standard_normal(8)
        return cls(
            phi, bias, rng.standard_normal((2, 5)),
            np.stack([hidden, hidden + 0.5 * rng.standard_normal((5, 8))]),
            np.stack([out, out + 0.5 * rng.standard_normal(8)]),
        )  # fmt: skip

    def policy(self, lam, network):
        """At ``w_ref + lam (w_T - w_ref)``."""
        linear, hidden, out = (w[0] + lam * (w[1] - w[0]) for w in (self.linear, self.hidden, self.out))
        logits = [np.tanh(x @ hidden) @ out if network else x @ linear for x in self.phi]
        return tuple(log_normalize(x + b) for x, b in zip(logits, self.bias))


JACKPOT_BETA = 0.1
JACKPOT_REWARD = np.array([0.8, 0.8, 1.0, 0.0])


def jackpot():
    """``(ref, teacher)``: branch 0 pays 0.8, branch 1 pays 1 with reference probability 0.05; teacher 50/50 at the root."""
    soft = JACKPOT_BETA * math.log(0.05 * math.exp(10) + 0.95)
    first = 1 / (1 + math.exp(-(soft - 0.8) / JACKPOT_BETA))
    ref = (np.log([[first, 1 - first]]), np.log([[0.5, 0.5], [0.05, 0.95]]))
    return ref, conditionals(tilt(sequence_log_probs(ref), JACKPOT_REWARD, JACKPOT_BETA), 2, 2)


# bandits ----------------------------------------------------------------------------------------------
class BiasedBandit(NamedTuple):
    """200 arms, 4 of them rare and bad, with an implicit reward that is too good: ``log T/ref = r* + bias - const``."""

    ref: np.ndarray
    reward: np.ndarray
    bias: np.ndarray

    @classmethod
    def draw(cls, rng):
        logits, reward, bias = rng.standard_normal(200), 0.7 * rng.standard_normal(200), np.zeros(200)
        arms = rng.choice(200, 4, replace=False)
        logits[arms], reward[arms] = -3.0, -1.5
        bias[arms] = 4.5 + 0.3 * rng.standard_normal(4)
        return cls(log_normalize(logits), reward, bias)

    def rewards_at(self, lams, biased=True):
        """``E[r*]`` of the optimum at every ``lam``."""
        teacher = tilt(self.ref, self.reward + biased * self.bias, 1.0)
        return expectation(sequence_optimum(teacher, self.ref, np.asarray(lams))[0], self.reward)


class TwoBases(NamedTuple):
    """A teacher that is a tilt of its own base, and a student with another base; 50 arms."""

    teachers_base: np.ndarray
    students_base: np.ndarray
    teacher: np.ndarray
    reward: np.ndarray

    @classmethod
    def draw(cls, rng, kappa=None):
        """The student's base is worse in the direction of the reward by ``kappa`` (drawn if None)."""
        kappa = rng.choice([-0.5, 0.0, 0.5, 1.0]) if kappa is None else kappa
        reward, logits, noise = rng.standard_normal((3, 50))
        base = log_normalize(logits)
        return cls(base, log_normalize(logits - kappa * reward + 1.5 * noise), tilt(base, reward, cls.beta()), reward)

    @staticmethod
    def beta():
        return 0.5

    def students(self, lam):
        """The optima with the default reference (the student's base) and with the corrected one (the teacher's)."""
        return tuple(sequence_optimum(self.teacher, base, lam)[0] for base in (self.students_base, self.teachers_base))


class Node(NamedTuple):
    """A log-linear policy over 6 actions, and what it is distilled from."""

    phi: np.ndarray
    theta: np.ndarray
    ref: np.ndarray
    teacher: np.ndarray

    @classmethod
    def draw(cls, rng):
        ref, teacher = log_normalize(rng.standard_normal((2, 6)))
        return cls(rng.standard_normal((6, 4)), rng.standard_normal(4), ref, teacher)

    def target(self, lam):
        """``log q`` and ``log z``."""
        log_q = (1 - lam) * self.ref + lam * self.teacher
        return log_q, np.logaddexp.reduce(log_q)


def with_eos(hazard, content):
    """The law of a token: EOS first."""
    hazard = np.asarray(hazard)[..., None]
    return np.concatenate([np.log(hazard), np.log1p(-hazard) + content], axis=-1)


def stay_mass(hazard, teacher, ref, lam):
    """``(1 - e) z``."""
    return (1 - hazard) * np.exp(sequence_optimum(teacher, ref, lam)[1])


# merging two domain teachers --------------------------------------------------------------------------
class Merge:
    """Two domains of 16 prompts with 6 answers, 24 shared features; teachers by partial RL; methods give a student's weights."""

    features, arms, prompts, teacher_steps, teacher_lr = 24, 6, 16, 60, 2.0

    def __init__(self, rng, *, conflict=True):
        """``conflict``: each domain has its own score vector; else they share one."""
        self.phi = rng.standard_normal((2, self.prompts, self.arms, self.features)) / math.sqrt(self.features)
        self.base = 0.3 * rng.standard_normal(self.features)
        scores = rng.standard_normal((2, self.features))
        self.correct = np.stack([np.argmax(self.phi[i] @ scores[i if conflict else 0], axis=-1) for i in range(2)])
        self.teachers = [self._train(i) for i in range(2)]
        self.log_ref = log_normalize(self.phi @ self.base)
        self.log_teacher = np.stack([log_normalize(self.phi[i] @ self.teachers[i]) for i in range(2)])

    def _train(self, domain):
        """Plain gradient ascent on the mean probability of the correct answers."""
        w, x, rows = self.base.copy(), self.phi[domain], np.arange(self.prompts)
        for _ in range(self.teacher_steps):
            p = np.exp(log_normalize(x @ w))
            hit = p[rows, self.correct[domain]]
            score = x[rows, self.correct[domain]] - np.einsum("nk,nkd->nd", p, x)
            w = w + self.teacher_lr * np.mean(hit[:, None] * score, axis=0)
        return w

    def _fit(self, loss, domains=(0, 1)):
        """BFGS from the base; ``loss(log_p)`` gives the value and its gradient in the logits."""
        x = self.phi[list(domains)].reshape(-1, self.features)

        def of_weights(w):
            value, slope = loss(log_normalize((x @ w).reshape(-1, self.arms)))
            return value, slope.ravel() @ x

        return minimize(of_weights, self.base, jac=True, method="BFGS", options={"gtol": 1e-6}).x

    def distil(self, lam, domains=(0, 1)):
        """The sum over prompts of ``KL(pi_x ‖ ref^(1-lam) T^lam)``, with the teacher of the prompt's domain."""
        target = geometric_mixture([self.log_ref, self.log_teacher], [1 - lam, lam])[list(domains)]
        target = target.reshape(-1, self.arms)

        def loss(log_p):
            p, gap = np.exp(log_p), log_p - target
            value = np.sum(p * gap, axis=-1, keepdims=True)
            return value.sum(), p * (gap - value)

        return self._fit(loss, domains)

    def supervise(self):
        """SFT: the sum of ``KL(T ‖ pi)``."""
        t = np.exp(self.log_teacher).reshape(-1, self.arms)
        return self._fit(lambda log_p: (-np.sum(t * log_p), np.exp(log_p) - t))

    def extrapolate(self, alpha):
        """ExPO: weights beyond the mean of the two teachers."""
        return self.base + (1 + alpha) * (np.mean(self.teachers, axis=0) - self.base)

    def accuracy(self, w, domain, *, greedy=False):
        logits, correct = self.phi[domain] @ w, self.correct[domain]
        if greedy:
            return float(np.mean(np.argmax(logits, axis=-1) == correct))
        return float(np.mean(np.exp(log_normalize(logits))[np.arange(correct.size), correct]))

    def margins(self, w, *, greedy=False, domains=(0, 1)):
        """Accuracy minus the domain teacher's, one number a domain."""
        accuracy = [[self.accuracy(v, i, greedy=greedy) for v in (w, self.teachers[i])] for i in domains]
        return np.array([student - teacher for student, teacher in accuracy])
