"""What claims and figures of rapo share: direct solvers, the estimator's gradients, and the prompt world of C7."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.distributions import entropy, log_normalize
from klsim.divergences import kl
from klsim.forward_kl import reweighted
from klsim.objectives import TokenBatch, rapo

HARD, EASY, ANSWERS, GROUP, STEPS = 24, 24, 64, 8, 300
LATE = np.arange(HARD + EASY) < HARD  # the hard prompts


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def objective(log_policy, log_ref, reward, alpha, bonus=0.0):
    """``E_pi[r] - alpha KL(ref‖pi) + bonus H(pi)``."""
    return np.sum(np.exp(log_policy) * reward, axis=-1) - alpha * kl(log_ref, log_policy) + bonus * entropy(log_policy)


def by_newton(log_ref, reward, alpha, bonus=0.0):
    """The maximiser of the same in probabilities: Newton under ``sum p = 1`` (the Hessian is diagonal), steps halved until the
    value rises and p stays positive. It knows of no multiplier's closed form."""
    inside, ref = np.isfinite(log_ref), np.exp(log_ref)

    def value(p):
        return p @ reward - alpha * (ref[inside] @ (log_ref[inside] - np.log(p[inside]))) - bonus * (p @ np.log(p))

    p = ref / 2 + 0.5 / len(ref)
    for _ in range(200):
        slope, bend = reward + alpha * ref / p - bonus * (np.log(p) + 1), alpha * ref / p**2 + bonus / p
        move = (slope - np.sum(slope / bend) / np.sum(1 / bend)) / bend
        size = min(1.0, 0.9 / np.max(-move / p, initial=1e-300))
        while size > 1e-12 and value(p + size * move) < value(p):
            size /= 2
        if size <= 1e-12 or np.abs(move / p).max() < 1e-10:  # only rounding is left
            break
        p = (p + size * move) / np.sum(p + size * move)
    return np.log(p), value(p)


# the estimator ------------------------------------------------------------------------------------
def estimate(logits, log_hat, sampler, form="backprop", **options):
    """`klsim.objectives.rapo` over all answers of one token, with the sampling law ``sampler`` held fixed."""
    log_pi = log_normalize(logits)
    batch = TokenBatch(log_probs=log_pi[:, None], ref_log_probs=log_hat[:, None], mask=np.ones((len(log_pi), 1), bool))
    return float(rapo(batch, form=form, aggregate=lambda values, mask: np.exp(sampler) @ values[:, 0], **options)[0])


def slope(function, x, h=1e-5):
    """Central differences."""
    steps = h * np.eye(len(x))
    return np.array([(function(x + s) - function(x - s)) / (2 * h) for s in steps])


def backpropagated(log_pi, log_hat):
    """``-E_hat[log(hat/pi) grad log pi]`` in the logits."""
    lean = np.exp(log_hat) * (log_hat - log_pi)
    return -(lean - np.exp(log_pi) * lean.sum())


def score_weights(log_pi, log_hat, **options):
    """What `klsim.objectives.rapo` multiplies ``log pi`` by in its form "score"."""
    return np.array([-estimate(log_pi, log_hat, log(e), "score", **options) for e in np.eye(len(log_pi))]) / log_pi


# the prompt world of C7 ----------------------------------------------------------------------------
class World(NamedTuple):
    """``(seeds, prompts, answers)`` references whose answer 0 is correct, and ``(seeds, steps, prompts, group)`` uniforms."""

    log_ref: np.ndarray
    uniforms: np.ndarray

    @classmethod
    def draw(cls, rngs):
        """24 prompts whose correct answer has mass 10^U(-5, -3), 24 with U(.1, .6); one world a generator."""
        refs, uniforms = [], []
        for rng in rngs:
            world, rollouts = rng.spawn(2)
            correct = np.concatenate([10 ** world.uniform(-5, -3, HARD), world.uniform(0.1, 0.6, EASY)])
            others = log_normalize(1.2 * world.standard_normal((HARD + EASY, ANSWERS - 1)))
            refs.append(np.concatenate([np.log(correct)[:, None], np.log1p(-correct)[:, None] + others], axis=1))
            uniforms.append(rollouts.random((STEPS, HARD + EASY, GROUP)))
        return cls(np.array(refs), np.array(uniforms))

    @property
    def reward(self):
        return np.broadcast_to(np.arange(ANSWERS) == 0, self.log_ref.shape).astype(float)


class Arm(NamedTuple):
    """A penalty's direction and coefficient, whether its reference is flattened where the group fails, an entropy bonus."""

    direction: str = "none"
    a: float = 0.2
    flatten: bool = False
    b: float = 0.0
    cap: float = 10.0


NO_KL, REVERSE, FORWARD = Arm(), Arm("reverse"), Arm("forward")
RAPO = Arm("forward", flatten=True, b=0.02)
REVERSE_FLAT, ENTROPY_ONLY = Arm("reverse", a=0.5, flatten=True), Arm(b=0.3)


def train(world, arm, steps=STEPS):
    """Tabular logits from the reference, learning rate 1: the final log-policies.

    Each step: a group by inverse CDF, ``w = A + penalty + entropy term`` for each of its answers, and the score function
    ``logits += mean_i w_i (onehot(y_i) - pi)``. Only the answers of the group need a weight.
    """
    shape = world.log_ref.shape
    logits, flat = world.log_ref.reshape(-1, ANSWERS).copy(), np.arange(np.prod(shape[:2]))[:, None]
    levels = 0.3 + 0.7 * np.arange(GROUP + 1) / GROUP if arm.flatten else np.ones(GROUP + 1)
    references = reweighted(world.log_ref[:, :, None], levels[:, None]).reshape(-1, GROUP + 1, ANSWERS)
    for step in range(steps):
        top = logits.max(axis=1, keepdims=True)
        pi = np.exp(logits - top)
        cdf = np.cumsum(pi, axis=1)
        u = world.uniforms[:, step].reshape(-1, GROUP) * cdf[:, -1:]
        y = np.zeros(u.shape, dtype=np.int64)
        for stride in (32, 16, 8, 4, 2, 1):  # bisection: how many of the 64 entries lie below
            y += stride * (cdf.ravel()[ANSWERS * flat + y + (stride - 1)] < u)
        log_pi = logits[flat, y] - top - np.log(cdf[:, -1:])
        right = np.sum(y == 0, axis=1, keepdims=True)  # answer 0 is the correct one
        deviation = np.sqrt(right * (GROUP - right)) / GROUP
        weight = np.where(deviation > 0, ((y == 0) - right / GROUP) / np.where(deviation > 0, deviation, 1.0), 0.0)
        gap = references[flat, right, y] - log_pi
        if arm.direction == "forward":
            weight += arm.a * (np.exp(np.minimum(gap, np.log(arm.cap))) - 1)
        elif arm.direction == "reverse":
            weight += arm.a * (gap - gap.mean(axis=1, keepdims=True))
        weight -= arm.b * (log_pi - log_pi.mean(axis=1, keepdims=True))
        logits -= weight.mean(axis=1, keepdims=True) * pi / cdf[:, -1:]
        np.add.at(logits, (flat, y), weight / GROUP)
    return log_normalize(logits.reshape(shape))


def pass_rates(log_pi, k=256):
    """``(hard pass@k, easy pass@1)`` a seed, exact."""
    p = np.exp(log_pi[..., 0])
    return np.mean(-np.expm1(k * np.log1p(-p[:, LATE])), axis=1), np.mean(p[:, ~LATE], axis=1)
