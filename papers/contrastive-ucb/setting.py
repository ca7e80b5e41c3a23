"""What the claims and figures of contrastive-ucb share: the models and critics, the lock, the games, the released code.

Laws are arrays of probabilities, critics are given as ``log f``; ``P`` is the transition law, ``P^-`` the known negative one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.learning import ContrastiveRun, contrastive_ucb
from klsim.learning.contrastive import density_ratio, estimate_transition
from klsim.planning import model_error_bonus, nash
from klsim.problems import LowRankMDP, TabularMDP, ZeroSumMarkovGame, block_mdp


def dirichlet(rng, *shape):
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


# critics ----------------------------------------------------------------------------------------------
class Contrast(NamedTuple):
    """A low-rank law of 5 states and 2 actions, rank 2, one row a pair; uniform or Dirichlet negatives; 1, 2 or 4 a positive."""

    transition: np.ndarray
    negative: np.ndarray
    negatives: int

    @classmethod
    def draw(cls, rng):
        features, factors = dirichlet(rng, 1, 5, 2, 2), dirichlet(rng, 1, 2, 5)
        law = LowRankMDP(features, factors, np.zeros((1, 5, 2)), np.eye(5)[0]).tabular().transition
        negative = np.full(5, 0.2) if rng.random() < 0.5 else rng.dirichlet(np.ones(5))
        return cls(law.reshape(10, 5), negative, int(rng.choice([1, 2, 4])))


class Critics(NamedTuple):
    """10 pairs, 6 states: ``P ~ Dir``, ``P^- = .8 Dir + .2/6``, ``f = f* exp(.5 N(0, 1))``."""

    transition: np.ndarray
    negative: np.ndarray
    log_critic: np.ndarray

    @classmethod
    def draw(cls, rng):
        transition, negative = dirichlet(rng, 10, 6), 0.8 * rng.dirichlet(np.ones(6)) + 0.2 / 6
        return cls(transition, negative, density_ratio(transition, negative) + 0.5 * rng.standard_normal((10, 6)))


UNIFORM = np.full(5, 0.2)
SKEWED = np.array([0.1, 0.15, 0.2, 0.25, 0.3])
STARVED = np.array([0.9925, 0.0025, 0.0025, 0.0015, 0.001])


def scaled_error(transition, negative, samples, repetitions, rng):
    """``k E||Phat - P||_1^2`` of estimates from k samples, a mean over repetitions."""
    found = estimate_transition(transition, negative, samples, repetitions, rng)
    return samples * float(np.mean(np.abs(found - transition).sum(axis=1) ** 2))


# models -----------------------------------------------------------------------------------------------
def empirical(law, samples, rng):
    """The frequencies of ``samples`` draws from every row."""
    return rng.multinomial(samples, law) / samples


class Learned(NamedTuple):
    """5 states, 2 actions, 3 steps, rewards in [0, 1/3], start in state 0; a model from 6 samples a (h, s, a), rows rescaled."""

    problem: TabularMDP
    model: np.ndarray
    scale: np.ndarray

    @classmethod
    def draw(cls, rng):
        law = dirichlet(rng, 3, 5, 2, 5)
        problem = TabularMDP(law, rng.uniform(0, 1 / 3, (3, 5, 2)), np.eye(5)[0], 3)
        return cls(problem, empirical(law, 6, rng), rng.uniform(0.5, 1.5, (3, 5, 2)))


# the lock ---------------------------------------------------------------------------------------------
HORIZON, ACTIONS, LABELS = 5, 3, np.array([0, 0, 0, 1, 1, 1])
BEST = 0.9**4
DISTRACTOR = 0.05
ITERATIONS = 300


def lock(rng):
    """Latent good (0) and bad (1), three observations each; the key keeps good with .9, all else is bad for ever.

    Reward 1 for the last key while good, .05 for one wrong action at the first step. No key is action 0, which ties go to.
    """
    keys = rng.integers(1, ACTIONS, HORIZON)
    latent = np.zeros((HORIZON, 2, ACTIONS, 2))
    latent[..., 1] = 1.0
    latent[np.arange(HORIZON), 0, keys] = [0.9, 0.1]
    reward = np.zeros((HORIZON, 2, ACTIONS))
    reward[-1, 0, keys[-1]], reward[0, 0, (keys[0] + 1) % ACTIONS] = 1.0, DISTRACTOR
    emission = np.stack([LABELS == 0, LABELS == 1]) / 3
    return block_mdp(LABELS, latent, emission, reward, emission[0])


class Explored(NamedTuple):
    """Runs on one lock, the candidate decoders ``(runs, H, 21, S)``, and the labels that the chosen ones give, ``(runs, H, S)``."""

    problem: TabularMDP
    run: ContrastiveRun
    decoders: np.ndarray
    labels: np.ndarray

    @classmethod
    def draw(cls, rng):
        return explore(rng, 1, gamma=1.0, iterations=30)

    def right(self):
        """Which decoders are the true one up to names, ``(runs, H)``."""
        return (self.labels == LABELS).all(axis=-1) | (self.labels == 1 - LABELS).all(axis=-1)

    def least_share(self):
        """The share in D_h of the action that is drawn least, over the steps, ``(runs,)``."""
        actions = self.run.visits.sum(axis=2)
        return (actions / actions.sum(axis=-1, keepdims=True)).min(axis=(1, 2))

    def one_step_back(self):
        """The share of D~_1 that starts in the good state, ``(runs,)``: .9/3 if the action before is uniform."""
        pairs = self.run.positives[:, 1].sum(axis=-1) - self.run.visits[:, 1]
        return pairs[:, LABELS == 0].sum(axis=(1, 2)) / pairs.sum(axis=(1, 2))

    def refitted(self, smoothing=0.1):
        """Of the first run ``(losses (H, 21), model (H, S, A, S))``: counts by label and action, one candidate after the other."""
        positives, negatives = self.run.positives[0], self.run.negatives[0]
        losses, model = np.zeros(self.decoders.shape[1:3]), np.empty(positives.shape)
        for h, j in np.ndindex(*losses.shape):
            for label in (0, 1):
                same = self.decoders[0, h, j] == label
                n1, n0 = positives[h, same].sum(axis=0), negatives[h, same].sum(axis=0)
                f = (n1 + smoothing) / (n0 + smoothing)
                losses[h, j] += np.sum(n1 * np.log1p(1 / f) + n0 * np.log1p(f))
                if j == self.run.decoder[0, h]:
                    model[h, same] = f / f.sum(axis=-1, keepdims=True)
        return losses, model


def explore(rng, runs, *, gamma, cap=None, iterations=ITERATIONS):
    """Each run has the true decoder and 20 random maps at every step, in random order."""
    problem = lock(rng).tabular()
    decoders = rng.integers(0, 2, (runs, HORIZON, 21, LABELS.size))
    decoders[:, :, 0] = LABELS
    order = np.argsort(rng.random(decoders.shape[:3]), axis=-1)
    decoders = np.take_along_axis(decoders, order[..., None], axis=2)
    run = contrastive_ucb(problem, decoders, iterations=iterations, gamma=gamma, cap=cap, rng=rng)
    return Explored(problem, run, decoders, np.take_along_axis(decoders, run.decoder[..., None, None], axis=2)[:, :, 0])


# games ------------------------------------------------------------------------------------------------
class MatrixGame(NamedTuple):
    """A 3 x 4 game with upper and lower estimates; in every second one four of five entries are exact."""

    q: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    objective: np.ndarray

    @classmethod
    def draw(cls, rng):
        q, sparse = rng.random((3, 4)), rng.random() < 0.5
        above, below = rng.uniform(0, 0.5, (2, 3, 4)) * ((rng.random((2, 3, 4)) < 0.2) if sparse else 1.0)
        return cls(q, q + above, q - below, rng.standard_normal((3, 4)))

    def gap(self, row, column):
        """What the two strategies leave to best responses."""
        return (self.q @ column).max() - (row @ self.q).min()

    def regret(self, joint):
        """The largest gain of a player who deviates to one action, one deviation after the other."""
        gains = [
            sum(joint[i, j] * (self.upper[a, j] - self.upper[i, j]) for i, j in np.ndindex(3, 4)) for a in range(3)
        ]
        gains += [
            sum(joint[i, j] * (self.lower[i, j] - self.lower[i, b]) for i, j in np.ndindex(3, 4)) for b in range(4)
        ]
        return max(gains)

    def separate(self, optimistic):
        """Each player's own game: ``U`` for the row player and ``L`` for the column player, or the other way round."""
        upper, lower = nash(self.upper), nash(self.lower)
        row, column = (upper, lower) if optimistic else (lower, upper)
        return self.gap(np.exp(row.log_row), np.exp(column.log_column)), upper.value - lower.value


class LearnedGame(NamedTuple):
    """3 steps, 3 states, 2 x 3 actions, rewards in [0, 1/3]; a model from ``samples`` draws a (h, s, a, b)."""

    game: ZeroSumMarkovGame
    model: ZeroSumMarkovGame

    @classmethod
    def draw(cls, rng, samples=6):
        law = dirichlet(rng, 3, 3, 2, 3, 3)
        game = ZeroSumMarkovGame(law, rng.uniform(0, 1 / 3, (3, 3, 2, 3)), np.full(3, 1 / 3))
        return cls(game, cls.model_of(game, samples, rng))

    def bonus(self):
        """The total variation of the model, for values in [0, 1]; 0 at the last step, after which nothing comes."""
        bonus = model_error_bonus(self.game.transition, self.model.transition)
        bonus[-1] = 0.0
        return bonus

    @staticmethod
    def model_of(game, samples, rng):
        return ZeroSumMarkovGame(empirical(game.transition, samples, rng), game.reward, game.initial)


class Duel(NamedTuple):
    """2 steps, 3 states, 2 x 3 actions, random strategies of both players; all deterministic policies are enumerated."""

    game: ZeroSumMarkovGame
    log_row: np.ndarray
    log_column: np.ndarray

    @classmethod
    def draw(cls, rng):
        game = ZeroSumMarkovGame(
            dirichlet(rng, 2, 3, 2, 3, 3), rng.standard_normal((2, 3, 2, 3)), rng.dirichlet(np.ones(3))
        )
        return cls(game, np.log(dirichlet(rng, 2, 3, 2)), np.log(dirichlet(rng, 2, 3, 3)))

    def returns(self, rows, columns):
        """Of all pairs of policies ``(N, H, S, A), (M, H, S, B)``, forwards from the initial law, ``(N, M)``."""
        law, total = np.broadcast_to(self.game.initial, (len(rows), len(columns), 3)), 0.0
        for h in range(2):
            both = np.einsum("nms,nsa,msb->nmsab", law, rows[:, h], columns[:, h])
            total = total + np.einsum("nmsab,sab->nm", both, self.game.reward[h])
            law = np.einsum("nmsab,sabt->nmt", both, self.game.transition[h])
        return total

    @staticmethod
    def policies(actions, *, steps=2):
        """All deterministic ones; with ``steps=1`` those that ignore the step."""
        choices = np.indices((actions,) * (3 * steps)).reshape(3 * steps, -1).T.reshape(-1, steps, 3)
        return np.eye(actions)[np.repeat(choices, 2 // steps, axis=1)]


def swapped_game():
    """One real choice: action 0 leads to the state that pays 1, action 1 to the one that pays 0; the model has it reversed."""
    law = np.zeros((2, 2, 2, 1, 2))
    law[:, :, 0, 0, 1] = law[:, :, 1, 0, 0] = 1.0
    reward = np.zeros((2, 2, 2, 1))
    reward[1, 1] = 1.0
    initial = np.array([1.0, 0.0])
    return LearnedGame(ZeroSumMarkovGame(law, reward, initial), ZeroSumMarkovGame(law[:, :, ::-1], reward, initial))


# the released code ------------------------------------------------------------------------------------
class Window(NamedTuple):
    """Bonuses of ten steps in a row, and after which of them the episode ended."""

    bonus: np.ndarray
    done: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(rng.uniform(0, 1, 10), (rng.random(10) < 0.15).astype(float))

    def summed(self, mask):
        """``sum_j .99^j b_{t+j} mask_j``."""
        return float(np.sum(0.99 ** np.arange(10) * self.bonus * mask))

    def until_the_end(self):
        """Step by step, up to the first that is marked as the end."""
        total = 0.0
        for j, (b, done) in enumerate(zip(self.bonus, self.done)):
            if done:
                break
            total += 0.99**j * b
        return total


def atom_features(rng, count=200):
    """Softmax over 51 return atoms of a logit vector N(0, 1), one row a replayed transition."""
    return np.exp(log_normalize(rng.standard_normal((count, 51))))


def cosine_loss(prediction, target):
    """``|u/|u| - v/|v||^2`` over the last axis."""
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (prediction, target))
    return np.sum((u - v) ** 2, axis=-1)
