"""The worlds of reasoning-boundary: 40 prompts that share weights, trained with and without SELF's filter and KL."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

from klsim.distributions import log_normalize
from klsim.learning import SGD, ascend_prompts, divergence_gradient, group_gradient, population_gradient
from klsim.learning.interference import greedy_failures
from klsim.problems import PromptBandit

X, A, ROLLOUTS, STEP = 40, 30, 8, 6.0


def draw_world(rng):
    """Features: a unit vector in R^8 and a 1, so that no inner product is negative; base logits N(0, 1); one right
    answer of 30 labels that all prompts share, its logit raised by U(-3, 4)."""
    direction = rng.standard_normal((X, 8))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    logits, correct = rng.standard_normal((X, A)), rng.integers(0, A, X)
    right = np.eye(A)[correct]
    return logits + rng.uniform(-3, 4, X)[:, None] * right, right, np.append(direction, np.ones((X, 1)), axis=1)


def draw_worlds(rngs):
    """One problem with a world for each generator."""
    return PromptBandit(*(np.stack(parts) for parts in zip(*(draw_world(rng) for rng in rngs))))


class Method(NamedTuple):
    """Which prompts are trained on (``all``, ``failures`` of the greedy answer, as many at ``random``), the KL to the base
    (``""``, ``kl`` reverse, ``forward_kl``) and its coefficient, sampled or exact gradients."""

    keep: str = "all"
    penalty: str = ""
    beta: float = 0.1
    exact: bool = False


GRPO, REVERSE, FORWARD = Method(), Method(penalty="kl"), Method(penalty="forward_kl")
SELF = Method("failures", "forward_kl")
FILTER, FILTER_REVERSE, RANDOM = Method("failures"), Method("failures", "kl"), Method("random", "forward_kl")
EXACT = Method(exact=True)


class Run(NamedTuple):
    """``success (marks, seeds, X)`` after each mark, ``base`` before, and the share of prompts rolled out, ``(seeds,)``."""

    success: np.ndarray
    base: np.ndarray
    rollouts: np.ndarray

    def pass_at(self, k, mark=-1):
        """Mean over prompts, ``(seeds,)``; mark ``None`` is the base."""
        q = self.base if mark is None else self.success[mark]
        return np.mean(-np.expm1(k * np.log1p(-np.minimum(q, 1 - 1e-16))), axis=-1)

    def moved(self, mark=-1):
        """Change of log Q, ``(seeds, X)``."""
        return np.log(self.success[mark]) - np.log(self.base)

    def correlation(self, mark=-1):
        """Pearson's, of log Q_0 with the change of log Q over prompts, ``(seeds,)``."""
        both = [v - v.mean(axis=-1, keepdims=True) for v in (np.log(self.base), self.moved(mark))]
        top, *norms = (np.sum(a * b, axis=-1) for a, b in ((both[0], both[1]), (both[0], both[0]), (both[1], both[1])))
        return top / np.sqrt(norms[0] * norms[1])


def followed(worlds, method, rng, marks):
    """The run up to the last mark, and the share of prompts at each step: ``W += (6/n_kept) sum_kept (G - beta grad KL) phi^T``."""
    log_ref, share = worlds.log_policy(), []

    def direction(log_policy, generator):
        keep = np.ones(log_policy.shape[:-1], dtype=bool)
        if method.keep != "all":
            keep = greedy_failures(log_policy, worlds.reward)
        if method.keep == "random":
            order = np.argsort(np.argsort(generator.random(keep.shape), axis=-1), axis=-1)
            keep = order < keep.sum(axis=-1, keepdims=True)
        share.append(keep.mean(axis=-1))
        along = (
            population_gradient(log_policy, worlds.reward)
            if method.exact
            else group_gradient(log_policy, worlds.reward, ROLLOUTS, generator)
        )
        if method.penalty:
            along = along - method.beta * divergence_gradient(log_policy, log_ref, method.penalty)
        return along * keep[..., None] / np.maximum(keep.sum(axis=-1), 1)[..., None, None]

    return ascend_prompts(worlds, direction, SGD(STEP), steps=max(marks), record=marks, rng=rng), share


def train(worlds, method, rng, *, marks=(300,)):
    """Success after each mark (increasing) of one run."""
    run, share = followed(worlds, method, rng, marks)
    return Run(np.stack([worlds.success(w) for w in run.weights]), worlds.success(), np.mean(share, axis=0))


def weights_after(worlds, method, rng, steps=300):
    """The shared weights at the end of a run."""
    return followed(worlds, method, rng, (steps,))[0].final


def train_tabular(worlds, rng, steps=300, exact=False):
    """GRPO, or exact ascent on the success, on logits of their own, ``z += .2 G``."""
    own = PromptBandit.tabular(worlds.base_logits, worlds.reward)

    def direction(log_policy, g):
        if exact:
            return population_gradient(log_policy, own.reward)
        return group_gradient(log_policy, own.reward, ROLLOUTS, g)

    run = ascend_prompts(own, direction, SGD(0.2), steps=steps, rng=rng)
    return Run(own.success(run.final)[None], own.success(), np.ones(len(worlds.reward)))


def hitting_time(logits, velocity, crossing):
    """When the solution of ``dz/dt = velocity(log softmax z)`` first has ``crossing(log pi) = 0``."""

    def event(_, z):
        return crossing(log_normalize(z))

    event.terminal = True
    found = solve_ivp(
        lambda _, z: velocity(log_normalize(z)), (0, 1e9), logits, method="LSODA", rtol=1e-9, atol=1e-9, events=event
    )
    return found.t_events[0][0]


def flow(logits, velocity, times):
    """The solution of ``dz/dt = velocity(log softmax z)`` at the given times, ``(times, A)``; integrated in log t."""
    span = np.log(times)
    found = solve_ivp(
        lambda s, z: np.exp(s) * velocity(log_normalize(z)), (-6.0, span[-1]), logits, method="LSODA", rtol=1e-8, atol=1e-8,
        t_eval=span,
    )  # fmt: skip
    return found.y.T
