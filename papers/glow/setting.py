"""What the claims and figures of glow share: random problems, sequences of laws, block MDPs, and the combination lock."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np

from klsim.learning import policy_returns
from klsim.learning.glow import glow, hyglow
from klsim.learning.online_episodes import greedy_episodes, rmax
from klsim.planning import occupancy, qvi_iterates
from klsim.planning.coverability import coverability, occupancies
from klsim.problems import TabularMDP


def deterministic(policies, actions):
    """Log-probabilities of deterministic policies ``(..., H, S)``."""
    with np.errstate(divide="ignore"):
        return np.log(np.eye(actions)[policies])


def optimum(problem):
    return float(problem.initial @ qvi_iterates(problem, problem.horizon)[-1][0].max(axis=-1))


# random problems -----------------------------------------------------------------------------------
def dense_mdp(rng, horizon=3, states=3, actions=2):
    """Rows of P and the start from Dirichlet(1), rewards U(0, 1/H)."""
    shape = (horizon, states, actions)
    return TabularMDP(
        rng.dirichlet(np.ones(states), shape), rng.random(shape) / horizon, rng.dirichlet(np.ones(states)), horizon
    )


@functools.lru_cache
def all_policies(horizon=3, states=3, actions=2):
    """Every deterministic policy, ``(A**(H S), H, S)``."""
    return np.array(list(itertools.product(range(actions), repeat=horizon * states))).reshape(-1, horizon, states)


def all_laws(problem):
    return occupancies(problem, deterministic(all_policies(*problem.shape), problem.shape[2]))


class Blocks(NamedTuple):
    """A latent problem of two states, each emitting one of its own observations: ``emission[z, action before, o]``.

    ``tables`` is the law of the observation for every previous action; a block MDP has the same one for all of them.
    """

    latent: TabularMDP
    tables: np.ndarray

    @classmethod
    def draw(cls, rng, count=20):
        return cls(dense_mdp(rng, 3, 2, 2), rng.dirichlet(np.ones(count), (2, 2)))

    def observed(self, *, by_action=False):
        """The problem on observations; ``by_action`` lets the emission depend on the action that led there."""
        (horizon, states, actions), count = self.latent.shape, self.tables.shape[-1]
        emission = self.tables if by_action else np.repeat(self.tables[:, :1], actions, axis=1)
        moves = np.einsum("hzay,yao->hzayo", self.latent.transition, emission).reshape(horizon, states, actions, -1)
        initial = (self.latent.initial[:, None] * self.tables[:, 0]).ravel()
        reward = np.repeat(self.latent.reward, count, axis=1)
        return TabularMDP(np.repeat(moves, count, axis=1), reward, initial, horizon)


class Cover(NamedTuple):
    """A problem and some law: a mixture of the best one with a random one."""

    problem: TabularMDP
    mu: np.ndarray

    @classmethod
    def draw(cls, rng):
        problem = dense_mdp(rng)
        other, share = rng.dirichlet(np.ones(6), 3).reshape(3, 3, 2), rng.choice([0.0, 0.01, 0.1, 1.0])
        return cls(problem, (1 - share) * coverability(problem).covering + share * other)


# sampled residuals ----------------------------------------------------------------------------------
class Sampled(NamedTuple):
    """A dense problem with a law of pairs, weights on ``(s, a, s')``, a candidate f, and noise of the rewards (± it)."""

    problem: TabularMDP
    law: np.ndarray
    weights: np.ndarray
    f: np.ndarray
    noise: float

    @classmethod
    def draw(cls, rng):
        law = rng.dirichlet(np.full(6, 0.5), 3).reshape(3, 3, 2)
        return cls(
            dense_mdp(rng), law, rng.standard_normal((3, 3, 2, 3)), rng.standard_normal((3, 3, 2)), float(rng.random())
        )

    def samples(self):
        """``(probability, pair, successor, residual)`` of every outcome of one sample a step."""
        for h, s, a, after in np.ndindex(*self.weights.shape):
            ahead = self.f[h + 1, after].max() if h < 2 else 0.0
            chance = self.law[h, s, a] * self.problem.transition[h, s, a, after] / 2
            for sign in (-1, 1):
                yield (
                    chance,
                    (h, s, a),
                    after,
                    self.f[h, s, a] - self.problem.reward[h, s, a] - sign * self.noise - ahead,
                )


def coin():
    """The problem of the statement, Q* and f, and the law of its pairs."""
    moves = np.zeros((2, 3, 1, 3))
    moves[0, 0, 0] = (0.0, 0.5, 0.5)
    moves[:, 1:, 0, 0] = moves[1, 0, 0, 0] = 1.0
    reward = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])[..., None]
    problem = TabularMDP(moves, reward, np.eye(3)[0], 2)
    f = np.array([[[0.5, 0, 0], [0, 1.0, 0]], [[0.3, 0, 0], [0, 0.8, 0.2]]])[..., None]
    return problem, f, occupancy(problem, np.zeros((2, 3, 1)))


def indicators(problem):
    _, states, actions = problem.shape
    return np.repeat(np.eye(states * actions).reshape(-1, 1, states, actions), problem.horizon, axis=1)


def determined(problem):
    return TabularMDP(np.eye(3)[problem.transition.argmax(axis=-1)], problem.reward, problem.initial, 3)


# sequences of laws ---------------------------------------------------------------------------------
class Played(NamedTuple):
    """A sparse problem (6 states, 3 actions, 3 steps) and the policies of 400 rounds; the level gamma."""

    problem: TabularMDP
    log_policies: np.ndarray
    gamma: float

    @classmethod
    def draw(cls, rng, kind=None, rounds=400):
        shape = (3, 6, 3)
        transition = rng.dirichlet(np.full(6, 0.2), shape)
        problem = TabularMDP(transition, np.zeros(shape), rng.dirichlet(np.ones(6)), 3)
        kind = kind or rng.choice(["independent", "peaked", "late"])
        if kind == "peaked":
            with np.errstate(divide="ignore"):
                policies = np.log(rng.dirichlet(np.full(3, 0.1), (rounds, 3, 6)))
            policies -= np.logaddexp.reduce(policies, axis=-1, keepdims=True)
        else:
            every = 20 if kind == "late" else 1
            drawn = rng.integers(0, 3, (-(-rounds // every), 3, 6))
            policies = deterministic(np.repeat(drawn, every, axis=0)[:rounds], 3)
        return cls(problem, policies, float(rng.choice([0.05, 0.3, 1.0])))

    def layers(self):
        """Laws ``(H, T, S A)``."""
        laws = occupancies(self.problem, self.log_policies)
        return np.moveaxis(laws.reshape(*laws.shape[:2], -1), 1, 0)


class Laws(NamedTuple):
    """An arbitrary sequence ``(T, n)`` of laws; its coverability is ``sum_x max_t d^t(x)``."""

    laws: np.ndarray
    gamma: float

    @classmethod
    def draw(cls, rng):
        rounds, points = int(rng.integers(1, 13)), int(rng.integers(1, 5))
        kind = rng.integers(3)
        if kind == 0:
            laws = rng.dirichlet(np.full(points, rng.choice([0.05, 0.3, 1.0])), rounds)
        elif kind == 1:  # each point at the time of its own, nearly unseen before
            laws = np.full((rounds, points), 0.0)
            laws[np.arange(rounds), np.sort(rng.integers(0, points, rounds))] = 1.0
            laws = 0.99 * laws + 0.01 * rng.dirichlet(np.ones(points), rounds)
        else:
            laws = np.repeat(rng.dirichlet(np.ones(points), 1), rounds, axis=0)
        return cls(laws / laws.sum(axis=-1, keepdims=True), float(np.exp(rng.uniform(np.log(0.01), np.log(100)))))

    @property
    def coverability(self):
        return float(self.laws.max(axis=0).sum())


# the combination lock ------------------------------------------------------------------------------
SLIP, LOW, HIGH = 0.1, 0.1, 0.9
ROUNDS, EPISODES, WIDTH = 100, 8, 0.3
#: "no key" (constant .1), then the keys 000 … 222
KEYS = np.array(list(itertools.product(range(3), repeat=3)))


class Lock(NamedTuple):
    """Three steps, three actions; the key action keeps the good state (up to a slip), everything else loses it.

    Each latent state emits ``count`` observations of its own, uniformly. At the last step the reward is Bernoulli(.9) for
    the key action in the good state, else Bernoulli(.1).
    """

    key: tuple[int, int, int]
    count: int = 1

    @classmethod
    def draw(cls, rng, count=1, lowest=1):
        return cls(tuple(int(k) for k in KEYS[rng.integers(lowest, 27)]), count)

    @classmethod
    def missed(cls, rng):
        """With a key that the first action of "no key" (000) misses."""
        return cls.draw(rng, lowest=9)

    @property
    def problem(self):
        m, right = self.count, self.key
        transition = np.zeros((3, 2 * m, 3, 2 * m))
        transition[..., m:] = 1 / m
        reward = np.zeros((3, 2 * m, 3))
        for h in range(2):
            transition[h, :m, right[h]] = np.repeat([1 - SLIP, SLIP], m) / m
        reward[2] = LOW
        reward[2, :m, right[2]] = HIGH
        return TabularMDP(transition, reward, np.repeat([1.0, 0.0], m) / m, 3)

    @property
    def candidates(self):
        """28 Q-functions ``(28, 3, S, 3)``."""
        out = np.full((28, 3, 2 * self.count, 3), LOW)
        for number, key in enumerate(KEYS, start=1):
            for h in range(3):
                out[number, h, : self.count, key[h]] += (HIGH - LOW) * (1 - SLIP) ** (2 - h)
        return out

    @property
    def right(self):
        """Index of Q* among the candidates."""
        return 1 + int(np.flatnonzero(np.equal(KEYS, self.key).all(axis=1))[0])

    def gaps(self):
        """``J* - J`` of the greedy policy of every candidate."""
        return optimum(self.problem) - policy_returns(self.problem, self.candidates.argmax(axis=-1))

    def laws(self):
        return occupancies(self.problem, deterministic(self.candidates.argmax(axis=-1), 3))

    def gamma(self, rounds=ROUNDS):
        """``sqrt(C_cov / (T L))`` with L = 1."""
        return float(np.sqrt(coverability(self.problem).value / rounds))

    def play(self, runs, rng, *, width=WIDTH, alpha=None, episodes=EPISODES, rounds=ROUNDS, clip=True, optimism=True):
        """GLOW with ``alpha_t = width/(gamma t)`` and ``beta = width gamma``."""
        gamma = self.gamma(rounds)
        return glow(
            self.problem, self.candidates, self.laws(), rounds=rounds, episodes=episodes, gamma=gamma,
            alpha=width if alpha is None else alpha, beta=width * gamma, clip=clip, optimism=optimism, binary=True,
            runs=runs, rng=rng,
        )  # fmt: skip

    def glow(self, runs, rng, **options):
        """``(gaps (runs, T), Q* kept (runs, T))`` of `play`."""
        run = self.play(runs, rng, **options)
        return self.gaps()[run.chosen], run.kept[..., self.right]

    def hyglow(self, offline, runs, rng, *, rounds=ROUNDS, width=WIDTH):
        run = hyglow(
            self.problem, self.candidates, self.laws(), offline, rounds=rounds, gamma=self.gamma(rounds), alpha=width,
            binary=True, runs=runs, rng=rng,
        )  # fmt: skip
        return self.gaps()[run.chosen]

    def rmax(self, runs, rng, rounds=200):
        """Gaps ``(runs, T)`` of R-max on observations."""
        problem = self.problem
        played = rmax(problem, rounds=rounds, episodes=EPISODES, known=5, binary=True, runs=runs, rng=rng)
        return optimum(problem) - policy_returns(problem, played)


class Set(NamedTuple):
    """A lock with settings of GLOW, eight rounds of four episodes, and the seed of a run."""

    lock: Lock
    gamma: float
    alpha: float
    beta: float
    seed: int

    @classmethod
    def draw(cls, rng):
        widths = np.exp(rng.uniform(np.log([0.1, 0.05, 0.01]), np.log([1.0, 0.5, 0.2])))
        return cls(Lock.draw(rng, 2), *map(float, widths), int(rng.integers(2**31)))

    def run(self):
        lock, (gamma, alpha, beta) = self.lock, self[1:4]
        return glow(lock.problem, lock.candidates, lock.laws(), rounds=8, episodes=4, gamma=gamma, alpha=alpha, beta=beta,
                    binary=True, rng=self.seed)  # fmt: skip

    def from_samples(self, *, signs=(1, -1), level="gamma t", alpha_by="gamma t"):
        """``(chosen, kept)`` of the same run from the list of its samples, a constraint for every h and ± w."""
        lock, rng = self.lock, np.random.default_rng(self.seed)
        problem, f, laws = lock.problem, lock.candidates, lock.laws()
        best = np.concatenate([f.max(axis=-1), np.zeros((28, 1, 2 * lock.count))], axis=1)
        samples, chosen, kept = [[] for _ in range(3)], [], []
        for t in range(1, 9):
            inside, scale = np.ones(28, dtype=bool), {"gamma t": self.gamma * t, "gamma": self.gamma}
            for h in range(3 if chosen else 0):
                s, a, r, after = (np.array(x) for x in zip(*samples[h]))
                residual = f[:, h, s, a] - r - best[:, h + 1, after]
                past = np.mean(laws[chosen, h], axis=0)[s, a]
                for sign in signs:
                    w = sign * np.minimum(laws[:, h, s, a] / past, scale[level])
                    averages = residual @ w.T / len(s) - self.alpha / scale[alpha_by] * np.mean(w**2, axis=1)
                    inside &= (averages <= self.beta).all(axis=1)
            optimism = np.where(inside, best[:, 0] @ problem.initial, -np.inf)
            ties = np.where(optimism >= optimism.max() - 1e-12, rng.random(28), -1.0)
            chosen.append(int(ties.argmax()) if inside.any() else chosen[-1])
            kept.append(inside)
            data = greedy_episodes(problem, f[chosen[-1:]].argmax(axis=-1), 4, rng, binary=True)
            for h in range(3):
                samples[h] += list(zip(*(x[0, :, h] for x in data)))
        return np.array(chosen), np.array(kept)

    @property
    def offline(self):
        """A tenth of the optimal policy's law, nine tenths of that of "no key"."""
        laws = self.lock.laws()
        return 0.1 * laws[self.lock.right] + 0.9 * laws[0]

    def run_hybrid(self):
        lock = self.lock
        return hyglow(lock.problem, lock.candidates, lock.laws(), self.offline, rounds=8, gamma=self.gamma, alpha=self.alpha,
                      binary=True, rng=self.seed)  # fmt: skip

    def hybrid_from_samples(self, *, share=0.5, level="gamma t", apart=False):
        """``(chosen, least)`` of the same run from the list of its samples: one offline, one online a step and round."""
        lock, rng, nu = self.lock, np.random.default_rng(self.seed), self.offline
        problem, f, laws = lock.problem, lock.candidates, lock.laws()
        best = np.concatenate([f.max(axis=-1), np.zeros((28, 1, 2 * lock.count))], axis=1)
        samples, chosen, least = [[] for _ in range(3)], [], []
        for t in range(1, 9):
            by_step, cut = np.zeros((3, 28, 28)), {"gamma t": self.gamma * t, "gamma": self.gamma}[level]
            for h in range(3 if chosen else 0):
                s, a, r, after = (np.array(x) for x in zip(*samples[h]))
                mixture = share * nu[h] + (1 - share) * np.mean(laws[chosen, h], axis=0)
                w = np.minimum(laws[:, h, s, a] / mixture[s, a], cut)
                average = w @ (f[:, h, s, a] - r - best[:, h + 1, after]).T / len(s)
                by_step[h] = np.abs(average) - self.alpha / (self.gamma * t) * np.mean(w**2, axis=1)[:, None]
            loss = by_step.max(axis=1).sum(axis=0) if apart else by_step.sum(axis=0).max(axis=0)
            least.append(loss <= loss.min() + 1e-12)
            chosen.append(int(np.where(least[-1], rng.random(28), -1.0).argmax()))
            data = greedy_episodes(problem, f[chosen[-1:]].argmax(axis=-1), 1, rng, binary=True)
            pairs, successors, rewards = rng.random((3, 3))
            for h in range(3):
                at = np.unravel_index(np.searchsorted(nu[h].cumsum(), pairs[h], side="right"), nu[h].shape)
                after = np.searchsorted(problem.transition[h][at].cumsum(), successors[h], side="right")
                samples[h] += [*zip(*(x[0, :, h] for x in data)), (*at, rewards[h] < problem.reward[h][at], after)]
        return np.array(chosen), np.array(least)


class Mixed(NamedTuple):
    """Locks with one and with several observations, and rounds that were played."""

    lock: Lock
    count: int
    chosen: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(Lock.draw(rng), int(rng.integers(2, 21)), rng.integers(0, 28, int(rng.integers(1, 30))))


def first_good(gaps, threshold=0.065, window=5):
    """The first round (from 1) that begins ``window`` rounds with a mean gap below the threshold; T + 1 if none."""
    means = np.lib.stride_tricks.sliding_window_view(gaps, window, axis=1).mean(axis=-1) < threshold
    return np.where(means.any(axis=1), means.argmax(axis=1), gaps.shape[1]) + 1
