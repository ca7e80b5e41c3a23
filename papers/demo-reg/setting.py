r"""What the claims and figures of demo-reg share: drawn problems, independent evaluations, and the studies.

Notation of the paper: expert ``E``, clone ``BC`` (the reference), ``lam`` the coefficient (klsim's beta), ``N_E``
demonstrations, ``n`` model samples of every (h, s, a). Policies are log-probabilities ``(H, S, A)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import binom

from klsim.distributions import log_normalize, tilt
from klsim.learning.pairwise_reward import fit_pairwise_reward, sample_comparisons
from klsim.planning.batched import demonstration_counts, estimated_transitions, expected_returns, soft_plans
from klsim.planning.best_policy import identify_best_policy
from klsim.planning.cloning import clone
from klsim.problems import LinearMDP, TabularMDP


# problems ---------------------------------------------------------------------------------------------
def random_mdp(rng, horizon=3, states=4, actions=3, floor=0.0):
    """Rows of P and the initial law Dirichlet(1), a share ``floor`` of them uniform; rewards uniform in [0, 1]."""
    shape = (horizon, states, actions)
    rows, reward, start = rng.dirichlet(np.ones(states), shape), rng.random(shape), rng.dirichlet(np.ones(states))
    rows, start = ((1 - floor) * law + floor / states for law in (rows, start))
    return TabularMDP(rows, reward, start, horizon)


def random_policy(rng, problem):
    return np.log(rng.dirichlet(np.ones(problem.shape[2]), problem.shape[:2]))


def hardened(log_policy):
    """The deterministic policy of the most likely actions."""
    actions = np.asarray(log_policy).shape[-1]
    return np.where(np.arange(actions) == np.argmax(log_policy, axis=-1)[..., None], 0.0, -np.inf)


def mixed(log_policy, log_other, weight):
    """``(1 - weight) policy + weight other`` at every state."""
    with np.errstate(divide="ignore"):
        return np.log((1 - weight) * np.exp(log_policy) + weight * np.exp(log_other))


def greedy(problem):
    """An optimal deterministic policy and its return, by a backward recursion of its own."""
    value, chosen = np.zeros(problem.shape[1]), []
    for t in range(problem.horizon - 1, -1, -1):
        q = problem.reward[t] + problem.transition[t] @ value
        value, chosen = q.max(axis=1), [hardened(q), *chosen]
    return np.array(chosen), float(problem.initial @ value)


class Regularised(NamedTuple):
    """A problem with a reference that has zeros, and a coefficient from 1e-6 to 1e3."""

    problem: TabularMDP
    log_ref: np.ndarray
    lam: float

    @classmethod
    def draw(cls, rng):
        problem = random_mdp(rng)
        ref = np.exp(random_policy(rng, problem)) * (rng.random(problem.shape) < 0.7)
        ref[..., 0] += 1e-3
        with np.errstate(divide="ignore"):
            return cls(problem, log_normalize(np.log(ref)), float(np.exp(rng.uniform(np.log(1e-6), np.log(1e3)))))


class Demonstrated(NamedTuple):
    """A problem, a nearly optimal expert, its clone from few demonstrations, a coefficient, a learner's policy, a target accuracy."""

    problem: TabularMDP
    expert: np.ndarray
    clone: np.ndarray
    lam: float
    noise: np.ndarray
    share: float
    target: float

    @classmethod
    def draw(cls, rng):
        problem = random_mdp(rng)
        expert = mixed(greedy(problem)[0], np.full(problem.shape, -np.log(problem.shape[2])), 0.03)
        lam = float(np.exp(rng.uniform(np.log(0.01), np.log(10.0))))
        cloned = cloned_policy(problem, expert, int(rng.integers(3, 61)), rng)
        target = float(np.exp(rng.uniform(np.log(0.01), np.log(0.5))))
        return cls(problem, expert, cloned, lam, random_policy(rng, problem), float(rng.random()), target)

    def learner(self, optimum):
        """The regularised optimum, mixed with noise."""
        return mixed(optimum, self.noise, self.share)


def cloned_policy(problem, expert, demonstrations, rng):
    return clone(demonstration_counts(problem.transition, problem.initial, expert, demonstrations, rng))


class Imitated(NamedTuple):
    """A problem, an expert and its clone from 1 to 200 demonstrations."""

    problem: TabularMDP
    expert: np.ndarray
    clone: np.ndarray

    @classmethod
    def draw(cls, rng, deterministic=False):
        problem = random_mdp(rng)
        expert = random_policy(rng, problem)
        expert = hardened(expert) if deterministic else expert
        return cls(problem, expert, cloned_policy(problem, expert, int(rng.integers(1, 201)), rng))

    @classmethod
    def draw_deterministic(cls, rng):
        return cls.draw(rng, True)

    @classmethod
    def two_arms(cls, expert, cloned):
        """One step, two arms, reward 1 on the first."""
        problem = TabularMDP(np.ones((1, 2, 1)), np.array([[1.0, 0.0]]), np.ones(1), 1)
        with np.errstate(divide="ignore"):
            return cls(problem, np.log([[expert]]), np.log([[cloned]]))


class DataSet(NamedTuple):
    """S = 5, A = 3, H = 3, a stochastic or deterministic expert, and its clones from 50 and from ``fewer`` demonstrations."""

    problem: TabularMDP
    expert: np.ndarray
    clone: np.ndarray
    fewer: int
    early: np.ndarray

    @classmethod
    def draw(cls, rng):
        problem = random_mdp(rng, 3, 5, 3)
        expert = random_policy(rng, problem)
        expert = hardened(expert) if rng.random() < 0.5 else expert
        fewer = int(rng.integers(3, 50))
        late, early = (cloned_policy(problem, expert, n, rng) for n in (50, fewer))
        return cls(problem, expert, late, fewer, early)


class Counted(NamedTuple):
    """Pairs of outcomes that won and lost, and action counts of states with features."""

    won: np.ndarray
    lost: np.ndarray
    features: np.ndarray
    counts: np.ndarray

    @classmethod
    def draw(cls, rng):
        won, lost = rng.integers(0, 8, (2, 60))
        return cls(won, lost, rng.dirichlet(np.ones(4), (6, 3)), rng.integers(0, 9, (6, 3)))


class Identified(NamedTuple):
    """A problem, a reference, and a run of best-policy identification: what it saw, and what it made of it."""

    problem: TabularMDP
    log_ref: np.ndarray
    lam: float
    scale: float
    episodes: int
    seen: np.ndarray
    found: tuple

    @classmethod
    def draw(cls, rng):
        problem = random_mdp(rng, *(int(n) for n in rng.integers(2, 5, 3)))
        lam, scale = np.exp(rng.uniform(np.log((0.1, 0.01)), np.log((3.0, 1.0)))).tolist()
        ref, episodes = random_policy(rng, problem), int(np.exp(rng.uniform(0, np.log(3000))))
        run = identify_best_policy(
            problem, ref, lam, episodes, accuracy=-1.0, scale=scale, checkpoints=[episodes], rng=rng
        )
        found = run.upper[0, 0], run.lower[0, 0], run.certificate[0, 0], np.exp(run.log_policy[0])
        return cls(problem, ref, lam, scale, episodes, run.transitions[0], found)


# independent evaluations ------------------------------------------------------------------------------
def trajectories(problem, log_policy):
    """Probability, log-probability of the actions, and return of every trajectory of states and actions."""
    law, logs, total = problem.initial[None, :], np.zeros((1, 1)), np.zeros((1, 1))
    for t in range(problem.horizon):
        law = law[..., None] * np.exp(log_policy[t])
        logs, total = logs[..., None] + log_policy[t], total[..., None] + problem.reward[t]
        if t + 1 < problem.horizon:
            law = (law[..., None] * problem.transition[t]).reshape(-1, problem.shape[1])
            logs, total = logs.reshape(-1, 1), total.reshape(-1, 1)
    return law.ravel(), np.broadcast_to(logs, law.shape).ravel(), np.broadcast_to(total, law.shape).ravel()


def enumerated_kl(problem, log_policy, log_other):
    """``KL(P^policy‖P^other)`` over all trajectories, and the magnitude of what is added up."""
    law, logs, _ = trajectories(problem, log_policy)
    _, others, _ = trajectories(problem, log_other)
    seen = law > 0
    return float(law[seen] @ (logs - others)[seen]), 1 + float(law[seen] @ (np.abs(logs) + np.abs(others))[seen])


def enumerated_return(problem, log_policy):
    law, _, total = trajectories(problem, log_policy)
    return float(law @ total)


def by_lbfgs(problem, log_ref, lam):
    """``max V_lam`` over softmax logits by a generic optimiser from the reference, with the exact gradient."""
    start, shape = np.array(log_ref), problem.shape

    def loss(x):
        log_pi = log_normalize(x.reshape(shape))
        pi, q, value = np.exp(log_pi), np.empty(shape), np.zeros((shape[0] + 1, shape[1]))
        for t in range(shape[0] - 1, -1, -1):
            q[t] = problem.reward[t] + problem.transition[t] @ value[t + 1] - lam * (log_pi[t] - log_ref[t])
            value[t] = np.sum(pi[t] * q[t], axis=1)
        states, slope = problem.initial, np.empty(shape)
        for t in range(shape[0]):
            pairs = states[:, None] * pi[t]
            slope[t] = pairs * (q[t] - value[t][:, None])
            states = np.einsum("sa,san->n", pairs, problem.transition[t])
        return -float(problem.initial @ value[0]), -slope.ravel()

    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 1e-15, "gtol": 1e-11}
    return -float(minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options).fun)


def minimised(loss, size):
    """The minimum of a convex ``loss(x) -> (value, slope)`` by a generic optimiser."""
    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 1e-16, "gtol": 1e-11}
    return minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B", options=options).x


def planned(run, *, carried=1.0, spread=3.0, delta=0.1):
    """Values and policy of a bracket on the counts of a run, and what its policy may lose, by whole arrays.

    ``carried``: what 1/H is multiplied with in the loss that is carried back; ``spread``: the constant of the deviation.
    """
    problem, counts, (horizon, states, actions) = run.problem, run.seen, run.problem.shape
    term = np.log(4 * states * actions * horizon / delta) + states * np.log(8 * np.e * (run.episodes + 1))
    cap = np.append(np.cumsum(problem.reward.max(axis=(1, 2))[::-1])[::-1], 0.0)
    high, low, lost, policy = np.zeros(states), np.zeros(states), np.zeros(states), np.empty(problem.shape)
    for t in reversed(range(horizon)):
        n = counts[t].sum(axis=-1)
        p, m, known = counts[t] / np.maximum(n, 1)[..., None], np.maximum(n, 1), n > 0
        deviation = np.sqrt(np.sum(p * (high - (p @ high)[..., None]) ** 2, axis=-1) * term / m)
        bonus = run.scale * (spread * deviation + 9 * horizon * cap[t + 1] * term / m + p @ (high - low) / horizon)
        top = np.where(known, np.minimum(problem.reward[t] + p @ high + bonus, cap[t]), cap[t])
        bottom = np.where(known, np.clip(problem.reward[t] + p @ low - bonus, 0.0, cap[t]), 0.0)
        policy[t] = np.exp(log_normalize(run.log_ref[t] + top / run.lam))
        later = np.where(known, (1 + carried / horizon) * (p @ lost), cap[t])
        lost = np.minimum((top - bottom).max(axis=1) ** 2 / (2 * run.lam) + np.sum(policy[t] * later, axis=1), cap[t])
        high, low = (run.lam * logsumexp(run.log_ref[t] + q / run.lam, axis=1) for q in (top, bottom))
    return *(float(problem.initial @ value) for value in (high, low, lost)), policy


# statistical error ------------------------------------------------------------------------------------
def plug_in_error(problem, samples, lam, runs, rng):
    """``V_lam* - V_lam(pi_hat)`` of ``runs`` plug-in plans with a uniform reference, ``samples`` of every (h, s, a)."""
    ref = np.full(problem.shape, -np.log(problem.shape[2]))
    models = estimated_transitions(np.broadcast_to(problem.transition, (runs, *problem.transition.shape)), samples, rng)
    plans = soft_plans(models, problem.reward, ref, lam)[0]
    return regularised_gap(problem, plans, ref, lam)


def regularised_gap(problem, plans, ref, lam):
    best = soft_plans(problem.transition, problem.reward, ref, lam)[2][0] @ problem.initial
    reward, cost = expected_returns(problem.transition, problem.reward, problem.initial, plans, ref)
    return best - reward + lam * cost


def linear_problem(rng, states=12, actions=5, latent=4, horizon=3):
    """A linear MDP: features and factors Dirichlet(1), rewards of the factors uniform in [0, 1]."""
    return LinearMDP(rng.dirichlet(np.ones(latent), (states, actions)), rng.dirichlet(np.ones(states), (horizon, latent)),
                     rng.random((horizon, latent)), rng.dirichlet(np.ones(states)))  # fmt: skip


def two_options(samples):
    """Exact regret of the better empirical mean of two Bernoulli options, means ``1/2 ± 1/(2 sqrt n)``, ties split."""
    gap = 1 / np.sqrt(samples)
    k = np.arange(samples + 1)
    better, worse = binom.pmf(k, samples, (1 + gap) / 2), binom.pmf(k, samples, (1 - gap) / 2)
    below = np.cumsum(better) - better  # chance that the better option scores less than k
    return gap * float(worse @ (below + better / 2))


# demonstrations and plug-in planning ------------------------------------------------------------------
class Study(NamedTuple):
    """Gaps ``V* - V`` of a problem a seed: planning without demonstrations, clones, and regularised planning."""

    plain: np.ndarray
    clones: dict
    regularised: dict


def study(rng, seeds, *, samples=1, demos=(16, 64, 256, 1024), scales=(0.3,), worst=False, fixed=None):
    """S = A = 6, H = 5, P rows Dirichlet(0.3), uniform rewards and start; deterministic optimal (or worst) expert.

    ``lam = c sqrt(N_E/(S A H n))`` for every c of ``scales``; ``fixed`` puts another number for N_E there.
    """
    horizon, states, actions = shape = (5, 6, 6)
    transition = rng.dirichlet(np.full(states, 0.3), (seeds, *shape))
    reward, start = rng.random((seeds, *shape)), np.full(states, 1 / states)
    uniform = np.full(shape, -np.log(actions))
    best = soft_plans(transition, reward, uniform, 0.0)[2][:, 0] @ start
    expert = soft_plans(transition, -reward if worst else reward, uniform, 0.0)[0]
    model = estimated_transitions(transition, samples, rng)

    def gap(policy):
        return best - expected_returns(transition, reward, start, policy)[0]

    clones, regularised = {}, {}
    for count in demos:
        cloned = clone(demonstration_counts(transition, start, expert, count, rng))
        clones[count] = gap(cloned)
        for c in scales:
            lam = c * np.sqrt((count if fixed is None else fixed) / (states * actions * horizon * samples))
            regularised[c, count] = gap(soft_plans(model, reward, cloned, lam)[0])
    return Study(gap(soft_plans(model, reward, uniform, 0.0)[0]), clones, regularised)


def log_slopes(by_count):
    """Least-squares slope of ``log y`` in ``log N`` for every seed, from ``{N: y (seeds,)}``."""
    x = np.log(list(by_count))
    return (x - x.mean()) @ np.log(list(by_count.values())) / np.sum((x - x.mean()) ** 2)


# exploration ------------------------------------------------------------------------------------------
LOCK_STEPS, LOCK_KEYS = 8, 6


def lock_episodes(demonstrations, runs, rng, *, deviate=False):
    """Episodes until the policy opens a combination lock with chance 0.9 (a wrong key ends the episode).

    Reference: the clone of ``demonstrations`` perfect runs. Pairs that were seen are known, others worth 1;
    ``lam = 0.3 sqrt(N_E/(2 A H max(T, 1)))`` after T episodes. ``deviate``: the widest key at one random step.
    """
    transition = np.zeros((LOCK_STEPS, 2, LOCK_KEYS, 2))
    transition[..., 1] = 1.0
    transition[:, 0, 0] = (1.0, 0.0)
    reward, counts = np.zeros((LOCK_STEPS, 2, LOCK_KEYS)), np.zeros((LOCK_STEPS, 2, LOCK_KEYS), dtype=int)
    reward[-1, 0, 0], counts[:, 0, 0] = 1.0, demonstrations
    problem = TabularMDP(transition, reward, np.array([1.0, 0.0]), LOCK_STEPS)
    cap = np.repeat([[1.0, 0.0]], LOCK_STEPS, axis=0)
    lam = 0.3 * np.sqrt(demonstrations / (2 * LOCK_KEYS * LOCK_STEPS * np.maximum(np.arange(5001), 1)))
    found = identify_best_policy(problem, clone(counts), lam, 5000, accuracy=-1.0, target=0.9, cap=cap, scale=0.0,
                                 deviate=deviate, runs=runs, rng=rng)  # fmt: skip
    return np.where(found.stopped, found.episodes, np.inf)


# preferences ------------------------------------------------------------------------------------------
class Preferences(NamedTuple):
    """True values of a fresh 100-armed problem a seed: clone, greedy on the learned reward, and tilts of the clone."""

    clones: np.ndarray
    greedy: np.ndarray
    tilted: dict


def preferences(rng, seeds, *, ridge=0.01, lams=(0.5, 1.0, 5.0)):
    """Expert ``~ exp(r/0.05)``, add-one clone of 100 demonstrations, 200 pairs from it, won with ``sigma(4 (r_i - r_j))``."""
    reward = rng.random((seeds, 100))
    expert = np.exp(log_normalize(reward / 0.05))
    cloned = clone(rng.multinomial(100, expert / expert.sum(axis=1, keepdims=True)))
    learned = fit_pairwise_reward(*sample_comparisons(cloned, reward, 200, rng, scale=4.0), 100, ridge=ridge, scale=4.0)

    def value(policy):
        return np.sum(np.exp(policy) * reward, axis=1)

    best = np.take_along_axis(reward, learned.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Preferences(value(cloned), best, {lam: value(tilt(cloned, learned, lam)) for lam in lams})
