"""What the claims and figures of glow share: random problems, sequences of laws, block MDPs, and the combination lock."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from klsim.claims import shared
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


@shared(maxsize=128)
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
        return lock_problem(self)

    @property
    def candidates(self):
        return lock_candidates(self)

    @property
    def right(self):
        """Index of Q* among the candidates."""
        return 1 + int(np.flatnonzero(np.equal(KEYS, self.key).all(axis=1))[0])

    def gaps(self):
        """``J* - J`` of the greedy policy of every candidate."""
        return optimum(self.problem) - policy_returns(self.problem, self.candidates.argmax(axis=-1))

    def laws(self):
        return lock_laws(self)

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


@shared(maxsize=64)
def lock_problem(lock):
    """Locks and what belongs to them are asked for again and again."""
    m, right = lock.count, lock.key
    transition = np.zeros((3, 2 * m, 3, 2 * m))
    transition[..., m:] = 1 / m
    reward = np.zeros((3, 2 * m, 3))
    for h in range(2):
        transition[h, :m, right[h]] = np.repeat([1 - SLIP, SLIP], m) / m
    reward[2] = LOW
    reward[2, :m, right[2]] = HIGH
    return TabularMDP(transition, reward, np.repeat([1.0, 0.0], m) / m, 3)


@shared(maxsize=64)
def lock_candidates(lock):
    """28 Q-functions ``(28, 3, S, 3)``."""
    out = np.full((28, 3, 2 * lock.count, 3), LOW)
    for number, key in enumerate(KEYS, start=1):
        for h in range(3):
            out[number, h, : lock.count, key[h]] += (HIGH - LOW) * (1 - SLIP) ** (2 - h)
    return out


@shared(maxsize=64)
def lock_laws(lock):
    return occupancies(lock.problem, deterministic(lock.candidates.argmax(axis=-1), 3))


class Set(NamedTuple):
    """A lock with settings of GLOW and HyGLOW, six rounds (of four episodes and of one), an offline law, a seed."""

    lock: Lock
    gamma: float
    alpha: float
    beta: float
    offline: np.ndarray
    seed: int

    @classmethod
    def draw(cls, rng):
        widths = np.exp(rng.uniform(np.log([0.1, 0.05, 0.01]), np.log([1.0, 0.5, 0.2])))
        offline = rng.dirichlet(np.ones(12), 3).reshape(3, 4, 3)
        return cls(Lock.draw(rng, 2), *map(float, widths), offline, int(rng.integers(2**31)))

    def run(self):
        lock, (gamma, alpha, beta) = self.lock, self[1:4]
        return glow(lock.problem, lock.candidates, lock.laws(), rounds=6, episodes=4, gamma=gamma, alpha=alpha, beta=beta,
                    binary=True, rng=self.seed)  # fmt: skip

    def hybrid(self):
        lock = self.lock
        return hyglow(lock.problem, lock.candidates, lock.laws(), self.offline, rounds=6, gamma=self.gamma,
                      alpha=self.alpha, binary=True, rng=self.seed)  # fmt: skip

    def averages(self, samples, h, base, level):
        """Means over the samples ``(s, a, r, s')`` of step h: of residual times w, ``(28 f, 28 w)``, and of w²."""
        f = self.lock.candidates
        s, a, r, after = (np.array(x) for x in zip(*samples[h]))
        residual = f[:, h, s, a] - r - (f[:, h + 1, after].max(axis=-1) if h < 2 else 0.0)
        w = np.minimum(self.lock.laws()[:, h, s, a] / base[h, s, a], level)
        return residual @ w.T / len(s), np.mean(w**2, axis=1)

    def from_samples(self, *, signs=(1, -1), level="gamma t", alpha_by="gamma t", empty="repeat"):
        """``(chosen, kept)`` of GLOW from the list of its samples, a constraint for every h and ± w."""
        lock, rng = self.lock, np.random.default_rng(self.seed)
        f, laws, samples, chosen, kept = lock.candidates, lock.laws(), [[] for _ in range(3)], [], []
        worth = f[:, 0].max(axis=-1) @ lock.problem.initial
        for t in range(1, 7):
            inside, scale = np.ones(28, dtype=bool), {"gamma t": self.gamma * t, "gamma": self.gamma}
            for h in range(3 if chosen else 0):
                residual, square = self.averages(samples, h, np.mean(laws[chosen], axis=0), scale[level])
                for sign in signs:
                    inside &= (sign * residual - self.alpha / scale[alpha_by] * square <= self.beta).all(axis=1)
            allowed = inside if inside.any() or empty == "repeat" else np.ones(28, dtype=bool)
            optimism = np.where(allowed, worth, -np.inf)
            ties = np.where(optimism >= optimism.max() - 1e-12, rng.random(28), -1.0)
            chosen.append(int(ties.argmax()) if allowed.any() else chosen[-1])
            kept.append(inside)
            self.play(samples, chosen[-1], 4, rng)
        return np.array(chosen), np.array(kept)

    def hybrid_from_samples(self, *, share=0.5, penalty=1.0, over=np.sum):
        """The same of HyGLOW, each of its losses from the list of offline and online samples."""
        lock, rng = self.lock, np.random.default_rng(self.seed)
        laws, samples, chosen, kept = lock.laws(), [[] for _ in range(3)], [], []
        for t in range(1, 7):
            loss, level = np.zeros(28), self.gamma * t
            if chosen:
                base = share * self.offline + share * np.mean(laws[chosen], axis=0)
                steps = [self.averages(samples, h, base, level) for h in range(3)]
                terms = [abs(residual) - penalty * self.alpha / level * square for residual, square in steps]
                loss = over(terms, axis=0).max(axis=1)
            kept.append(loss <= loss.min() + 1e-12)
            chosen.append(int(np.where(kept[-1], rng.random(28), -1.0).argmax()))
            self.play(samples, chosen[-1], 1, rng)
            pairs, states, rewards = rng.random(3), rng.random(3), rng.random(3)
            for h in range(3):
                s, a = divmod(inverse(self.offline[h].ravel(), pairs[h]), 3)
                after = inverse(lock.problem.transition[h, s, a], states[h])
                samples[h].append((s, a, float(rewards[h] < lock.problem.reward[h, s, a]), after))
        return np.array(chosen), np.array(kept)

    def play(self, samples, candidate, episodes, rng):
        greedy = self.lock.candidates[[candidate]].argmax(axis=-1)
        data = greedy_episodes(self.lock.problem, greedy, episodes, rng, binary=True)
        for h in range(3):
            samples[h] += list(zip(*(x[0, :, h] for x in data)))


def inverse(law, u):
    """The outcome at the quantile u."""
    return int(np.searchsorted(np.cumsum(law), u * law.sum(), side="right"))


class Table(NamedTuple):
    """A lock of two observations a latent state, visits after which R-max knows a pair, and the seed of eight rounds."""

    lock: Lock
    known: int
    seed: int

    @classmethod
    def draw(cls, rng):
        return cls(Lock.draw(rng, 2), int(rng.integers(1, 4)), int(rng.integers(2**31)))

    def run(self):
        return rmax(self.lock.problem, rounds=8, episodes=4, known=self.known, binary=True, rng=self.seed)[0]

    def from_samples(self, *, more=0, top=1.0, ahead=1):
        """Its policies ``(8, 3, S)`` from the list of samples, pair by pair."""
        rng, seen, out = np.random.default_rng(self.seed), {}, np.zeros((8, 3, 4), dtype=int)
        for played in out:
            value = np.zeros(4)
            for h in (2, 1, 0):
                q = np.full((4, 3), top)
                for s, a in np.ndindex(4, 3):
                    outcomes = seen.get((h, s, a), [])
                    if len(outcomes) >= self.known + more:
                        q[s, a] = np.mean([r + ahead * value[after] for r, after in outcomes])
                value = q.max(axis=1)
                played[h] = np.where(q >= value[:, None] - 1e-12, rng.random((4, 3)), -1.0).argmax(axis=1)
            data = greedy_episodes(self.lock.problem, played[None], 4, rng, binary=True)
            for index in np.ndindex(1, 4, 3):
                s, a, r, after = (x[index] for x in data)
                seen.setdefault((index[2], s, a), []).append((r, after))
        return out


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
