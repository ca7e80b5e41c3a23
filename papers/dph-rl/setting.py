"""What claims and figures share: the paper's generators, its loss variants, and the prompt world of C11."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize

from klsim.distributions import condition, expectation, log_normalize
from klsim.divergences import GENERATORS, Alpha, Generator, f_divergence, kl
from klsim.learning import (
    SGD,
    ascend_prompts,
    divergence_gradient,
    draw_answers,
    group_gradient,
    rehearsal_gradient,
    score_function_gradient,
)
from klsim.optima import f_regularized
from klsim.problems import PromptBandit
from klsim.problems.token_tree import sequence_log_probs, visit_log_probs

# the paper's generators ---------------------------------------------------------------------------------
ALPHA = 0.2  # the released default
NAMES = ("rkl", "fkl", "js", "alpha")


class Scaled(NamedTuple):
    """``times`` a generator of klsim: the paper's JS is twice klsim's, its alpha is the order 1 - alpha."""

    times: float
    of: Generator


def paper_generator(name: str, a: float = ALPHA) -> Scaled:
    if name == "alpha":
        return Scaled(1.0, Alpha(1 - a))
    return (
        Scaled(2.0, GENERATORS["js"])
        if name == "js"
        else Scaled(1.0, GENERATORS[{"rkl": "kl", "fkl": "forward_kl"}[name]])
    )


def divergence(name, log_pi, log_ref):
    """``D_f(pi‖ref)`` with the paper's ``f``."""
    times, of = paper_generator(name)
    return times * f_divergence(log_pi, log_ref, of)


class Row(NamedTuple):
    """A row of the paper's table, written out: ``f``, ``f'``, its inverse, the conjugate, ``f'(inf)``, ``f''(1)``."""

    f: Any
    slope: Any
    inverse: Any
    conjugate: Any
    recession: float
    curvature: float


def table(name, a=ALPHA):
    log, exp = np.log, np.exp
    return {
        "rkl": Row(lambda u: u * log(u) - u + 1, log, exp, lambda s: exp(s) - 1, np.inf, 1),
        "fkl": Row(lambda u: -log(u) + u - 1, lambda u: 1 - 1 / u, lambda s: 1 / (1 - s), lambda s: -log(1 - s), 1, 1),
        "js": Row(lambda u: u * log(u) - (u + 1) * log((u + 1) / 2), lambda u: log(2 * u / (1 + u)),
                  lambda s: 1 / (2 * exp(-s) - 1), lambda s: -log(2 - exp(s)), log(2.0), 0.5),
        "alpha": Row(lambda u: (u ** (1 - a) - (1 - a) * u - a) / (a * (a - 1)), lambda u: (1 - u**-a) / a,
                     lambda s: (1 - a * s) ** (-1 / a), lambda s: ((1 - a * s) ** (-(1 - a) / a) - 1) / (1 - a), 1 / a, 1),
    }[name]  # fmt: skip


# the optimum, by other means ----------------------------------------------------------------------------
def objective(log_pi, log_ref, reward, beta, name):
    """``E_pi r - beta D_f(pi‖ref)`` with the paper's ``f``, and the magnitude of its terms for rounding."""
    gain, cost = expectation(log_pi, reward), beta * divergence(name, log_pi, log_ref)
    return gain - cost, 1 + np.abs(gain) + cost


def multiplier(log_ref, reward, beta, name):
    """The root ``lam`` of ``sum_a ref (f')^{-1}((r - lam)/beta) = 1``, by Brent's method on the table's inverse."""
    row, ref, best = table(name), np.exp(log_ref), reward.max()

    def excess(gap):  # lam = max r - beta f'(inf) + gap, or min r + gap where f'(inf) is infinite
        start = reward.min() if np.isinf(row.recession) else best - beta * row.recession
        return ref @ row.inverse((reward - start - gap) / beta) - 1

    high = np.ptp(reward) if np.isinf(row.recession) else beta * row.recession
    gap = brentq(excess, 1e-13 * high, high * (1 + 1e-12), xtol=1e-300, rtol=8.9e-16)
    return (reward.min() if np.isinf(row.recession) else best - beta * row.recession) + gap


def by_bfgs(log_ref, reward, beta, name):
    """A generic optimiser on the logits, from the reference: its law and its value."""
    times, of = paper_generator(name)

    def loss(logits):
        log_pi = log_normalize(logits)
        p = np.exp(log_pi)
        slope = beta * times * divergence_gradient(log_pi, log_ref, of) - p * (reward - p @ reward)
        return -objective(log_pi, log_ref, reward, beta, name)[0], slope

    found = minimize(loss, log_ref, jac=True, method="BFGS", options={"gtol": 1e-9})
    return log_normalize(found.x), -found.fun


# "JS by definition" -------------------------------------------------------------------------------------
def two_sided(log_pi, log_ref):
    """C10's variant: values, and derivatives in ``log pi(a)``, of its loss on a stored and on an on-policy sample ``a``.

    ``k3 = rho - 1 - log rho`` with ``rho = M/ref`` on samples of the reference and ``rho = M/pi`` on those of the policy,
    ``M = (pi + ref)/2``; ``d log M / d log pi = pi/(2M)``.
    """
    pi, ref = np.exp(log_pi), np.exp(log_ref)
    mid = (pi + ref) / 2
    stored, own = mid / ref, mid / pi
    values = stored - 1 - np.log(stored), own - 1 - np.log(own)
    return values, ((stored - 1) * pi / (2 * mid), (own - 1) * (pi / (2 * mid) - 1))


# recovery of a lost mode --------------------------------------------------------------------------------
LOST_REF = np.log([0.4, 0.3, 0.2, 0.1])


def lost_mode(eps):
    """C7's start for every ``eps (...)``: the second outcome at ``eps``, the others in their ratios."""
    rest, eps = np.exp(LOST_REF) * [1, 0, 1, 1], np.asarray(eps)[..., None]
    return np.log((1 - eps) * rest / rest.sum() + eps * np.array([0, 1, 0, 0]))


def recovery(eps, name, *, natural=False, a=0.5, lr=0.5, goal=0.15, most=3000):
    """Steps of gradient descent on ``D_f`` (at curvature 1) until the lost outcome has probability ``goal``; else ``most``.

    Also its probability along the way, ``(steps + 1, ...)``; ``eps`` is a number or an array.
    """
    _, of = paper_generator(name, a)
    log_pi, path = lost_mode(eps), []
    steps = np.full(np.shape(eps), most)
    for step in range(most + 1):
        path.append(np.exp(log_pi[..., 1]))
        steps = np.where(path[-1] >= goal, np.minimum(steps, step), steps)
        if np.all(path[-1] >= goal):
            break
        slope = divergence_gradient(log_pi, LOST_REF, of) / of.curvature
        log_pi = log_normalize(log_pi - lr * (slope / np.exp(log_pi) if natural else slope))
    return steps, np.array(path)


def one(name):
    """Generator and factor of klsim for a name of the paper's."""
    times, of = paper_generator(name)
    return of, times


def numeric(value, logits, h=1e-5):
    """Central differences in the logits."""
    return np.array(
        [value(log_normalize(logits + e)) - value(log_normalize(logits - e)) for e in h * np.eye(len(logits))]
    ) / (2 * h)


def optimum(log_ref, reward, beta, name):
    of, times = one(name)
    return f_regularized(log_ref, reward, beta * times, of)


def success(log_pi, right):
    return np.sum(np.where(right, np.exp(log_pi), 0.0), axis=-1)


# trees of C8 --------------------------------------------------------------------------------------------
def token_sum(pi, ref, name, visits):
    d = visit_log_probs(visits)
    return sum(np.sum(np.exp(v) * divergence(name, p, r), axis=-1) for v, p, r in zip(d, pi, ref))


def sequence_divergence(pi, ref, name):
    return divergence(name, sequence_log_probs(pi), sequence_log_probs(ref))


HAND = tuple(np.log(np.array(level)) for level in ([[0.9, 0.1]], [[0.9, 0.1], [0.5, 0.5]]))
FLAT = tuple(np.full((2**t, 2), math.log(0.5)) for t in range(2))
OPPOSITE = [tuple(np.log(np.tile(law, (2**t, 1))) for t in range(2)) for law in ([0.99, 0.01], [0.01, 0.99])]


# losses of C9, C10 --------------------------------------------------------------------------------------
def filtered_gradient(log_pi, log_ref, right, name):
    """Gradient in the logits of the mean loss over stored right answers."""
    stored = np.exp(condition(log_ref, right))
    if name == "nll":
        return score_function_gradient(log_pi, stored, -1 + 0 * stored)
    of, times = one(name)
    return times * rehearsal_gradient(log_pi, log_ref, stored, of)


def success_sum(gradient, right):
    return np.sum(np.where(right, gradient, 0.0), axis=-1)


def two_sided_gradient(log_pi, log_ref, score=False):
    (_, own), (d_stored, d_own) = two_sided(log_pi, log_ref)
    pi, ref = np.exp(log_pi), np.exp(log_ref)
    return score_function_gradient(log_pi, ref, d_stored) + score_function_gradient(
        log_pi, pi, d_own + (own if score else 0.0)
    )


# the guarantee of C12 -----------------------------------------------------------------------------------
def guarantee(old, pef, pi, reward, half=0.5):
    """``J(pi) - J(old)``, the surrogate of every prompt, and the bracket of every prompt as if it were in P."""
    old, pef, pi = map(log_normalize, (old, pef, pi))
    advantage = reward - expectation(old, reward)[..., None]
    delta = np.min(expectation(pef, advantage), axis=-1, keepdims=True)
    bracket = delta - 2 * np.max(np.abs(advantage), axis=-1) * np.sqrt(half * kl(pef, pi))
    return np.sum(expectation(pi, reward) - expectation(old, reward), axis=-1), expectation(pi, advantage), bracket


def two_actions(t):
    """Loss and KL of the tight family, from the exact laws."""
    pef, pi = np.full((*t.shape, 2), math.log(0.5)), np.log(np.stack([0.5 - t, 0.5 + t], axis=-1))
    advantage = np.array([1.0, -1.0])
    return expectation(pef, advantage) - expectation(pi, advantage), kl(pef, pi)


# the world of C11 ---------------------------------------------------------------------------------------
ANSWERS, RIGHT, FEATURES, STEPS, GROUP = 12, 3, 24, 600, 8
EXPLORE, MASTERED, TEST = slice(0, 12), slice(12, 24), slice(24, 60)


def _world(rng, far, shared):
    """12 prompts to explore, 12 mastered, 36 test prompts: three beside every mastered one (or ``far`` from it)."""
    explore, mastered, noise = (rng.standard_normal((n, FEATURES)) / np.sqrt(FEATURES) for n in (12, 12, 36))
    test = np.repeat(mastered, 3, axis=0) + 0.4 * noise * (np.sqrt(FEATURES) if far else 1)
    success = np.concatenate([rng.uniform(0.05, 0.5, 12), rng.uniform(0.93, 0.99, 12), rng.uniform(0.1, 0.9, 36)])[
        :, None
    ]
    right = np.argsort(rng.random((60, ANSWERS)), axis=1)[:, :RIGHT]
    reward = np.zeros((60, ANSWERS))
    np.put_along_axis(reward, right, 1.0, axis=1)
    base = np.empty((60, ANSWERS))
    base[reward == 1] = (success * rng.dirichlet(np.full(RIGHT, 2.0), 60)).ravel()
    base[reward == 0] = ((1 - success) * rng.dirichlet(np.full(ANSWERS - RIGHT, 2.0), 60)).ravel()
    return np.log(base), reward, np.concatenate([explore, mastered, test]) if shared else np.eye(60)


def worlds(rngs, *, far=False, shared=True):
    """One world a generator, as one batch."""
    return PromptBandit(*map(np.stack, zip(*[_world(rng, far, shared) for rng in rngs])))


class Method(NamedTuple):
    """How C11 trains: on which prompts, with which penalty or rehearsal.

    ``mastered``: prompts of P get policy gradient ("reward"), rehearsal (a generator's name), or nothing ("").
    """

    mastered: str = "reward"
    beta: float = 0.0
    eta: float = 1.0


GRPO, NONE, ON_POLICY = Method(), Method(""), Method(beta=0.3)
DPH_F, DPH_JS, DPH_R = (Method(name) for name in ("fkl", "js", "rkl"))


def train(world, method, rng, *, steps=STEPS):
    """Final weights of C11's training: plain SGD at 2, group-normalised advantages, all prompts of the set every step."""
    seen = world.select(slice(0, 24) if method.mastered else EXPLORE)
    ref, explore = seen.log_policy(), EXPLORE if method.mastered in NAMES else slice(None)

    def direction(log_pi, draw):
        on = log_pi[..., explore, :]
        bonus = -method.beta * (on - ref[..., explore, :]) if method.beta else 0.0
        ascent = group_gradient(on, seen.reward[..., explore, :], GROUP, draw, bonus=bonus) / on.shape[-2]
        if method.mastered not in NAMES:
            return ascent
        (times, of), pair = paper_generator(method.mastered), (log_pi[..., MASTERED, :], ref[..., MASTERED, :])
        stored = draw_answers(pair[1], GROUP, draw)
        descent = times * rehearsal_gradient(*pair, stored, of) / pair[0].shape[-2]
        return np.concatenate([ascent, -method.eta * descent], axis=-2)

    return ascend_prompts(seen, direction, SGD(2.0), steps=steps, rng=rng).final


class Scores(NamedTuple):
    """One number a world, averaged over prompts: exact pass@1 in training, modes kept on P and in test, test pass@8."""

    train: np.ndarray
    mastered_modes: np.ndarray
    test: np.ndarray
    test_modes: np.ndarray


def scores(world, weights):
    explore, mastered, test = (world.select(s) for s in (EXPLORE, MASTERED, TEST))
    return Scores(explore.success(weights).mean(axis=-1), mastered.modes_kept(weights).mean(axis=-1),
                  test.pass_at_k(8, weights).mean(axis=-1), test.modes_kept(weights).mean(axis=-1))  # fmt: skip


def study(rngs, methods, **world_options):
    """Scores of the base and of every method on the same worlds; the methods share their draws' generator in turn."""
    world = worlds(rngs, **world_options)
    base = scores(world, np.zeros(world.weight_shape))
    return base, [scores(world, train(world, method, rngs[0])) for method in methods]
