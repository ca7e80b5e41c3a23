"""What the claims and figures of vla-opd share: trajectories as batches, a corridor, a password chain, and a seen/unseen world."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from klsim.distributions import entropy, log_normalize
from klsim.learning.binned_gaussian import LOG_WIDTHS, binned_gaussian, gaussian_gradient
from klsim.learning.distillation_flows import distillation_flow
from klsim.objectives import TokenBatch, hard_cross_entropy
from klsim.planning import solve
from klsim.planning.imitation import distillation_gradient, visited_divergence
from klsim.problems import TabularMDP

BINS = np.arange(41)


# C1: a student with shared parameters in a problem ---------------------------------------------------
class Student(NamedTuple):
    """``pi = softmax(phi theta)`` at every step of a problem; a tabular teacher."""

    problem: TabularMDP
    phi: np.ndarray
    theta: np.ndarray
    teacher: np.ndarray

    @classmethod
    def draw(cls, rng, states=5, actions=4, horizon=6, features=6):
        rows = rng.dirichlet(np.full(states, 0.3), (states, actions))
        problem = TabularMDP(rows, np.zeros((states, actions)), rng.dirichlet(np.full(states, 0.3)), horizon)
        phi, theta = rng.standard_normal((states, actions, features)), rng.standard_normal(features)
        return cls(problem, phi, theta, log_normalize(rng.standard_normal((states, actions))))

    @classmethod
    def small(cls, rng):
        return cls.draw(rng, 2, 2, 3, 3)

    def policy(self, theta=None):
        """``(H, S, A)``."""
        one = log_normalize(self.phi @ (self.theta if theta is None else theta))
        return np.broadcast_to(one, self.problem.shape)

    @property
    def target(self):
        return np.broadcast_to(self.teacher, self.problem.shape)

    def in_theta(self, gradient):
        """The gradient in theta from that in the logits of every step, ``(H, S, A)``."""
        return np.einsum("hsa,saf->f", gradient, self.phi)

    def credit(self, discount):
        """`distillation_gradient` in theta."""
        return self.in_theta(distillation_gradient(self.problem, self.policy(), self.target, discount=discount))

    def visited(self, theta, visits=None):
        """`visited_divergence` of the policy at ``theta``."""
        return visited_divergence(self.problem, self.policy(theta), self.target, visits=visits)

    def mean_score(self, states, actions):
        """Mean over trajectories of ``sum_t r_t grad log pi(a_t|s_t)``."""
        pi = self.policy()[0]
        scores = self.phi - np.einsum("sa,saf->sf", np.exp(pi), self.phi)[:, None]
        return np.einsum("it,itf->f", (self.teacher - pi)[states, actions], scores[states, actions]) / len(states)

    def differences(self, value, h=1e-5):
        """Central differences of ``value(theta)``."""
        return np.array([value(self.theta + e) - value(self.theta - e) for e in h * np.eye(self.theta.size)]) / (2 * h)

    def trajectories(self):
        """All ``(states, actions)``, ``(n, H)`` each, and their probabilities."""
        h, s, a = self.problem.shape
        y = np.array(list(itertools.product(range(s * a), repeat=h)))
        states, actions = y // a, y % a
        law = self.problem.initial[states[:, 0]] * np.prod(np.exp(self.policy()[0])[states, actions], axis=1)
        moves = self.problem.transition[0][states[:, :-1], actions[:, :-1], states[:, 1:]]
        return states, actions, law * np.prod(moves, axis=1)

    def batch(self, theta, states, actions):
        """The action tokens of trajectories drawn at ``self.theta``, scored at ``theta``.

        The teacher's log-probabilities move with the policy's, so that rewards, constants to the loss, stay where they
        are and finite differences of the loss are its gradient.
        """
        pi, old = self.policy(theta)[0], self.policy()[0]
        fixed = self.teacher + pi - old
        return TokenBatch(pi[states, actions], old_log_probs=old[states, actions],
                          teacher_log_probs=fixed[states, actions])  # fmt: skip


# C2, C3: one softmax -----------------------------------------------------------------------------------
class Start(NamedTuple):
    """Logits and a teacher over six actions whose rarest has at least .01."""

    z: np.ndarray
    teacher: np.ndarray

    @classmethod
    def draw(cls, rng):
        z, teacher = 1.2 * rng.standard_normal((2, 6))
        return cls(z, np.log(0.01 + 0.94 * np.exp(log_normalize(teacher))))


def two_level(rest, n):
    """``1 - rest`` on the first of n actions."""
    return np.log(np.r_[1 - rest, np.full(n - 1, rest / (n - 1))])


class Confident(NamedTuple):
    """A student with .99 on one of 20 actions, a teacher with .3 to .5 there."""

    z: np.ndarray
    teacher: np.ndarray

    @classmethod
    def draw(cls, rng):
        m = rng.uniform(0.3, 0.5)
        return cls(two_level(0.01, 20), two_level(1 - m, 20))


def hard_loss(log_pi, teacher):
    """`hard_cross_entropy` of the library at one prefix."""
    pair = {"vocab_log_probs": log_pi[None, None], "teacher_vocab_log_probs": teacher[None, None]}
    return float(hard_cross_entropy(TokenBatch(np.zeros((1, 1)), **pair))[0])


LATE = 10.0 ** np.arange(5, 12)


def hard_flow(rng, actions, times=LATE):
    """``1 - max pi`` and entropy at the times, from random logits."""
    z, teacher = 1.2 * rng.standard_normal((2, actions))
    path = distillation_flow(z, log_normalize(teacher), "hard_ce", times)
    return np.sum(np.exp(np.sort(path, axis=-1)[:, :-1]), axis=-1), entropy(path)


# C4: teachers over action bins -----------------------------------------------------------------------
def blurred(c, sigma, share=0.6):
    """``share`` of a Gaussian at the correct bin, the rest uniform."""
    return np.log(share * np.exp(binned_gaussian(c, np.log(sigma), 41)) + (1 - share) / 41)


def spiked(c, spike):
    """A broad correct bump (.7), a narrow wrong spike (.12) that is the most likely bin, .18 uniform."""
    bump, wrong = (np.exp(binned_gaussian(at, np.log(width), 41)) for at, width in ((c, 3.0), (spike, 0.3)))
    return np.log(0.7 * bump + 0.12 * wrong + 0.18 / 41)


def mass_near(log_pi, c, reach):
    return np.sum(np.exp(log_pi) * (np.abs(BINS - np.asarray(c)[..., None]) <= reach), axis=-1)


def train_gaussian(teachers, loss, mean, log_width, steps=300, lr=0.1):
    """Log-policies ``(steps + 1, ..., 41)`` by gradient steps in ``(mu, log sigma)``, each gradient clipped to [-1, 1]."""
    at, path = np.stack(np.broadcast_arrays(mean, log_width), axis=-1).astype(float), []
    for _ in range(steps + 1):
        _, gradient, log_pi = gaussian_gradient(at[..., 0], at[..., 1], teachers, loss)
        path.append(log_pi)
        at = at - lr * np.clip(gradient, -1, 1)
        at[..., 1] = np.clip(at[..., 1], *LOG_WIDTHS)
    return np.array(path)


# C5: on and off the track ----------------------------------------------------------------------------
def track(error, horizon, recovers):
    """``(problem, learner, expert)``: cost 1 per step off track; action 0 keeps to the track or returns to it.

    The position after the action of a step is what costs, so that an error at step t costs at t. An expert who never
    errs; a learner who errs with ``error``. Without ``recovers`` off track absorbs.
    """
    to = np.zeros((2, 2, 2))
    to[0, 0, 0] = to[0, 1, 1] = 1.0
    to[1, 0, 0 if recovers else 1] = to[1, 1, 1] = 1.0
    with np.errstate(divide="ignore"):
        learner, expert = np.log([[1 - error, error]] * 2), np.log([[1.0, 0.0]] * 2)
    problem = TabularMDP(to, -to[:, :, 1], np.array([1.0, 0.0]), horizon)
    return problem, np.broadcast_to(learner, problem.shape), np.broadcast_to(expert, problem.shape)


class Pair(NamedTuple):
    """A problem with rewards in [0, 1], a teacher and a student."""

    problem: TabularMDP
    pi: np.ndarray
    teacher: np.ndarray

    @classmethod
    def draw(cls, rng, states=4, actions=3, horizon=6):
        rows = rng.dirichlet(np.full(states, rng.choice([0.1, 1.0])), (states, actions))
        problem = TabularMDP(rows, rng.random((states, actions)), rng.dirichlet(np.ones(states)), horizon)
        pi, teacher = log_normalize(rng.standard_normal((2, horizon, states, actions)))
        return cls(problem, pi, teacher)

    @classmethod
    def expert(cls, rng):
        """With the best policy as the teacher, and a student that is off it by up to a third."""
        pair = cls.draw(rng)
        best = np.asarray(solve(pair.problem, beta=0.0).log_policy)
        share = rng.uniform(0.01, 0.3)
        with np.errstate(divide="ignore"):
            return pair._replace(teacher=best, pi=np.log((1 - share) * np.exp(best) + share * np.exp(pair.pi)))

    @classmethod
    def on_track(cls, error=0.1, horizon=6):
        """The learner keeps to the track but for ``error``, and does not come back; the expert would."""
        problem, pi, teacher = track(error, horizon, True)
        pi = pi.copy()
        with np.errstate(divide="ignore"):
            pi[:, 1] = np.log([0.0, 1.0])
        return cls(TabularMDP(problem.transition, problem.reward + 1, problem.initial, horizon), pi, teacher)

    @classmethod
    def early(cls, step=1e-3, horizon=6):
        """The first action decides all rewards; the student's differs by ``step``."""
        to = np.zeros((3, 2, 3))
        to[0, 0, 1] = to[0, 1, 2] = to[1, :, 1] = to[2, :, 2] = 1.0
        half = np.full((horizon, 3, 2), math.log(0.5))
        pi = half.copy()
        pi[0, 0] = np.log([0.5 + step, 0.5 - step])
        return cls(TabularMDP(to, np.array([[1.0, 0], [1, 1], [0, 0]]), np.eye(3)[0], horizon), pi, half)


# C7: a corridor with slip ----------------------------------------------------------------------------
POSITIONS, MOVES, SLIP = np.arange(-3, 4), np.array([-1, 0, 1]), 0.1


def corridor(horizon):
    """Positions -3 … 3 and failure (absorbing, the last state); reward 1 at the end unless failed."""
    to = np.zeros((8, 3, 8))
    to[7, :, 7] = 1.0
    for i, j in itertools.product(range(7), range(3)):
        for slip, chance in ((-1, SLIP), (0, 1 - 2 * SLIP), (1, SLIP)):
            after = POSITIONS[i] + MOVES[j] + slip
            to[i, j, after + 3 if abs(after) <= 3 else 7] += chance
    reward = np.zeros((horizon, 8, 3))
    reward[-1] = 1.0 - to[:, :, 7]
    return TabularMDP(to, reward, np.eye(8)[3], horizon)


def centring():
    """The teacher: .998 on ``-sign(position)``, ``(7, 3)``."""
    best = 1 - np.sign(POSITIONS)
    return np.where(np.arange(3) == best[:, None], np.log(0.998), np.log(0.001))


def success(laws, horizon):
    """``P(no failure in H steps)`` of policies ``(seeds, 7, 3)``, by dynamic programming."""
    to = corridor(1).transition[0][:7, :, :7]
    moves, at = np.einsum("ksa,san->ksn", np.exp(laws), to), np.zeros((len(laws), 7))
    at[:, 3] = 1.0
    for _ in range(horizon):
        at = np.einsum("ks,ksn->kn", at, moves)
    return at.sum(axis=1)


def walk(uniforms, laws, rollouts, slip=SLIP):
    """Positions and actions ``(seeds, rollouts, H)`` and which steps were taken; a rollout ends at failure.

    ``uniforms``: ``(seeds, rollouts, H, 2)``.
    """
    cdf, seeds = np.cumsum(np.exp(laws), axis=-1), np.arange(len(laws))[:, None]
    horizon = uniforms.shape[2]
    states, actions = (np.zeros((len(laws), rollouts, horizon), dtype=int) for _ in range(2))
    alive, at = np.ones((len(laws), rollouts, horizon), dtype=bool), np.full((len(laws), rollouts), 3)
    for t in range(horizon):
        u, v = uniforms[:, :, t, 0], uniforms[:, :, t, 1]
        a = np.minimum(np.sum(u[..., None] > cdf[seeds, at], axis=-1), 2)
        states[:, :, t], actions[:, :, t] = at, a
        after = at + MOVES[a] + np.where(v < slip, -1, np.where(v < 2 * slip, 1, 0))
        failed = (after < 0) | (after > 6)
        if t + 1 < horizon:
            alive[:, :, t + 1] = alive[:, :, t] & ~failed
        at = np.clip(after, 0, 6)
    return states, actions, alive


def cloned(states, actions, alive):
    """Normalised counts + .1 of demonstrations, ``(seeds, 7, 3)``."""
    counts = np.zeros((len(states), 7, 3))
    for k in range(len(states)):
        np.add.at(counts[k], (states[k][alive[k]], actions[k][alive[k]]), 1.0)
    return np.log((counts + 0.1) / (counts + 0.1).sum(axis=-1, keepdims=True))


def corridor_runs(rngs, horizon, *, slip=0.0, target=None, visited="student", iterations=30, rollouts=8, lr=0.3):
    """Log-policies ``(seeds, 7, 3)`` of SFT on 1 and on 241 demonstrations (recorded with ``slip``) and of OPD.

    ``visited``: whose actions make the rollouts of OPD, the student's or the teacher's.
    """
    teacher = np.broadcast_to(centring(), (len(rngs), 7, 3))
    greedy = np.where(teacher > -1, 0.0, -np.inf)
    demos = walk(np.array([r.random((241, horizon, 2)) for r in rngs]), greedy, 241, slip)
    one, many = cloned(*(x[:, :1] for x in demos)), cloned(*demos)
    logits, aim = one, teacher if target is None else np.broadcast_to(target, teacher.shape)
    seeds = np.arange(len(rngs))[:, None, None]
    draws = np.array([r.random((iterations, rollouts, horizon, 2)) for r in rngs])
    for step in range(iterations):
        log_pi = log_normalize(logits)
        states, actions, alive = walk(draws[:, step], log_pi if visited == "student" else teacher, rollouts)
        gap = log_pi - aim
        advantage = np.sum(np.exp(log_pi) * gap, axis=-1)[..., None] - gap  # r + KL(s), the value of the mean action
        weight = np.where(alive, advantage[seeds, states, actions], 0.0)
        gradient = np.zeros_like(logits)
        np.add.at(gradient, (np.broadcast_to(seeds, states.shape), states, actions), weight)
        total = gradient.sum(axis=-1, keepdims=True)
        logits = logits + lr / rollouts * (gradient - np.exp(log_pi) * total)
    return one, many, log_normalize(logits)


# C8: a password --------------------------------------------------------------------------------------
class Password(NamedTuple):
    """How the chain is learned: start, step, teacher, and whether rollouts end at the first error."""

    start: float = 0.4
    lr: float = 2.0
    teacher: float = 0.999
    rollouts: int = 64
    stops: bool = False
    actions: int = 4


FREQUENT = Password(start=0.55, lr=1.0, teacher=0.99)


def learn_password(rngs, horizon, method, setup=None, limit=1000, every=None):
    """Steps until the success rate is 90 % (``limit`` + 1 if never), ``(seeds,)``; the success rates ``(seeds, limit + 1)`` if ``every``.

    ``method``: "opd" weighs each step with its own ``-log(pi/T)``, "grpo" a rollout with ``(R - mean)/(std + 1e-6)`` of
    its group of eight. Action 0 is right.
    """
    setup = setup or Password()
    n, others = setup.actions, setup.actions - 1
    start = np.log(np.r_[setup.start, np.full(others, (1 - setup.start) / others)])
    teacher = np.log(np.r_[setup.teacher, np.full(others, (1 - setup.teacher) / others)])
    logits = np.broadcast_to(start, (len(rngs), horizon, n))
    done, rates = np.full(len(rngs), limit + 1), []
    for step in range(limit + 1):
        log_pi = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        pi = np.exp(log_pi)
        rate = np.prod(pi[..., 0], axis=-1)
        rates.append(rate)
        done = np.where((rate >= 0.9) & (done > limit), step, done)
        if (every is None and np.all(done <= limit)) or step == limit:
            break
        u = np.array([r.random((setup.rollouts, horizon)) for r in rngs])
        cdf = np.cumsum(pi, axis=-1)[:, None]
        actions = sum((u > cdf[..., j]).astype(int) for j in range(n - 1))
        right = np.all(actions == 0, axis=-1).astype(float)
        if method == "opd":
            weight = np.take_along_axis(
                np.broadcast_to((teacher - log_pi)[:, None], (*u.shape, n)), actions[..., None], -1
            )[..., 0]
        else:
            group = right.reshape(len(rngs), -1, 8)
            spread = group.std(axis=-1, keepdims=True) + 1e-6
            weight = ((group - group.mean(axis=-1, keepdims=True)) / spread).reshape(len(rngs), -1, 1)
        if setup.stops:
            weight = weight * np.cumprod(
                np.c_[np.ones_like(u[..., :1]), actions[..., :-1] == 0].reshape(u.shape), axis=-1
            )
        weight = np.broadcast_to(weight, u.shape)
        chosen = np.stack([np.sum(weight * (actions == j), axis=1) for j in range(n)], axis=-1)
        logits = log_pi + setup.lr / setup.rollouts * (chosen - pi * weight.sum(axis=1)[..., None])
    return done if every is None else np.array(rates).T


# C10: seen and unseen contexts -----------------------------------------------------------------------
SEEN, ACTIONS, WIDTH = 24, 6, 24
ARMS = ("external", "opd", "soft", "drawn", "argmax", "even")


class Contexts(NamedTuple):
    """A batch of worlds: features ``(seeds, 48 contexts, 6, 24)``, the first 24 seen; two valid actions each; a base."""

    phi: np.ndarray
    valid: np.ndarray
    base: np.ndarray
    teacher: np.ndarray

    @classmethod
    def draw(cls, rngs, steps=300):
        made = [_context_world(rng) for rng in rngs]
        phi, valid, base = (np.array(x) for x in zip(*made))
        seen, theta = np.ascontiguousarray(phi[:, :SEEN]), base
        for _ in range(steps):
            pi = _pi(seen, theta)
            good = valid[:, :SEEN]
            theta = theta + _ascent(seen, pi * (good - np.sum(pi * good, axis=-1, keepdims=True)))
        return cls(phi, valid, base, theta)

    def scores(self, theta):
        """``(seen success, unseen success, KL to the base on unseen contexts)`` a seed, exact."""
        pi = _pi(self.phi, theta)
        right = np.sum(pi * self.valid, axis=-1)
        gap = np.log(pi[:, SEEN:]) - np.log(_pi(self.phi, self.base)[:, SEEN:])
        return (
            right[:, :SEEN].mean(axis=1),
            right[:, SEEN:].mean(axis=1),
            np.sum(pi[:, SEEN:] * gap, axis=-1).mean(axis=1),
        )

    def labels(self, rngs, kind):
        """Soft or hard labels of the seen contexts, ``(seeds, 24, 6)``."""
        law, good = _pi(self.phi, self.teacher)[:, :SEEN], self.valid[:, :SEEN]
        if kind == "soft":
            return law
        if kind == "even":
            return good / 2
        if kind == "argmax":
            return np.eye(ACTIONS)[law.argmax(axis=-1)]
        return _one_hot(np.array([r.random(good.shape[1]) for r in rngs]), law if kind == "drawn" else good / 2)

    def train(self, rngs, arm, *, lr=0.5, steps=600, stop=0.86, samples=8, record=False):
        """Full-batch steps from the base until the seen success is ``stop``; final theta, or the path of scores."""
        seen, theta, path = np.ascontiguousarray(self.phi[:, :SEEN]), self.base.copy(), []
        target = self.labels(rngs, arm) if arm != "opd" else _pi(self.phi, self.teacher)[:, :SEEN]
        good, running = self.valid[:, :SEEN], np.arange(len(theta))
        for _ in range(steps + 1):
            if record:
                path.append(self.scores(theta))
            pi = _pi(seen[running], theta[running])
            on = np.sum(pi * good[running], axis=-1).mean(axis=1) < stop
            pi, running = pi[on], running[on]
            if not running.size or len(path) > steps:
                break
            if arm == "opd":
                gap = np.log(target[running]) - np.log(pi)
                counts = (
                    sum(_one_hot(np.array([rngs[k].random(SEEN) for k in running]), pi) for _ in range(samples))
                    / samples
                )
                force = counts * gap
                force = force - pi * force.sum(axis=-1, keepdims=True)
            else:
                force = target[running] - pi
            theta[running] += lr * _ascent(seen[running], force)
        return np.array(path).transpose(1, 2, 0) if record else theta


def _context_world(rng):
    phi = 0.3 * rng.standard_normal((2 * SEEN, ACTIONS, WIDTH))
    w = 3 * rng.standard_normal(WIDTH)
    valid = np.argsort(np.argsort(-(phi @ w), axis=-1), axis=-1) < 2
    return phi, valid.astype(float), 0.6 * w + rng.standard_normal(WIDTH)


def _pi(phi, theta):
    logits = np.matmul(phi.reshape(len(theta), -1, WIDTH), theta[..., None]).reshape(phi.shape[:3])
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _ascent(phi, force):
    """``mean over contexts of sum_a force phi``, ``(seeds, 24)``; forces sum to 0."""
    flat = force.reshape(len(force), 1, -1)
    return np.matmul(flat, phi.reshape(len(phi), -1, WIDTH))[:, 0] / phi.shape[1]


def _one_hot(u, law):
    """One action for each ``(seeds, contexts)`` uniform."""
    chosen = np.minimum(np.sum(u[..., None] > np.cumsum(law, axis=-1), axis=-1), ACTIONS - 1)
    return np.eye(ACTIONS)[chosen]


def learned(rngs, arms):
    """Scores of the arms, on the same worlds: ``(unseen success, KL to the base)``."""
    world = Contexts.draw(rngs)
    return {arm: world.scores(world.train(rngs, arm))[1:] for arm in arms}
