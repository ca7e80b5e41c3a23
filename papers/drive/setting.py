"""What the claims and figures of drive share: all groups, buckets, a pool and its curriculum, modes under a window, the reported numbers."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binom

from klsim.claims import shared
from klsim.distributions import entropy, log_normalize
from klsim.learning import NaturalGradient, centre, population_gradient, score_function_gradient
from klsim.learning.prompt_pools import Phase, PromptPool, hardest, train_phases, updates_to_reach
from klsim.objectives.advantages import advantages, group_mean, group_std


# C1: all groups -------------------------------------------------------------------------------------
def reward_groups(n, p):
    """All ``2**n`` groups of rewards, and their probabilities."""
    rewards = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)
    return rewards, np.prod(np.where(rewards == 1, p, 1 - p), axis=-1)


def group_advantages(rewards, scale=group_std):
    """The library's advantages of every group."""
    group = np.repeat(np.arange(len(rewards)), rewards.shape[1])
    return advantages(rewards.ravel(), group, baseline=group_mean, scale=scale).reshape(rewards.shape)


def expected_step(log_pi, right, n, scale="std"):
    """``E[(1/n) sum_i A_i S_i]`` over all ``A**n`` groups of answers."""
    answers = np.indices((log_pi.size,) * n).reshape(n, -1)
    counts = np.sum(answers[..., None] == np.arange(log_pi.size), axis=0)
    steps = score_function_gradient(log_pi, counts, centre(right.astype(float), counts, scale=scale))
    return np.exp(counts @ log_pi) @ steps


# C2: prompts by initial accuracy ---------------------------------------------------------------------
BUCKETS = {"low": (0.01, 0.05), "mid": (0.3, 0.7), "high": (0.9, 0.98)}
BUCKET_SIZE, BUCKET_LR, BUCKET_ROLLOUTS = 60, 0.4, 8


def bucket_gains(rngs, updates):
    """``{bucket: mean gain a seed}`` of 60 prompts a bucket after every prompt had ``updates`` updates."""
    out, rng = {}, rngs[0]
    for name, ends in BUCKETS.items():
        start = PromptPool.of_success(rng.uniform(*ends, (len(rngs), BUCKET_SIZE)))
        pool = start
        for _ in range(updates):
            pool = pool.sweep(BUCKET_ROLLOUTS, BUCKET_LR, rng)
        out[name] = np.mean(pool.success - start.success, axis=-1)
    return out


@shared
def expected_gain(name, updates, nodes=8):
    """Exact gain of a bucket: the law of how often each of the four steps of a group of 8 was taken, p by quadrature."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    low, high = BUCKETS[name]
    start = low + (high - low) * (1 + x) / 2
    taken = np.array([c for c in itertools.product(range(updates + 1), repeat=4) if sum(c) <= updates])
    at = {tuple(c): i for i, c in enumerate(taken.tolist())}
    one = np.eye(4, dtype=int)
    after = [np.array([at.get(tuple(c), -1) for c in (taken + e).tolist()]) for e in one]
    k = np.arange(1, 5)
    p = expit(logit(start)[:, None] + BUCKET_LR * taken @ (np.sqrt(k * (8 - k)) / 8))
    pmf = binom.pmf(np.arange(9)[:, None, None], 8, p)
    law = np.zeros(p.shape)
    law[:, at[0, 0, 0, 0]] = 1.0
    for _ in range(updates):
        new = law * (pmf[0] + pmf[8])
        for j, there in zip(k, after):
            moved = law * (pmf[j] + (pmf[8 - j] if j < 4 else 0.0))
            new[:, there[there >= 0]] += moved[:, there >= 0]
        law = new
    return float(weight @ (np.sum(law * p, axis=-1) - start) / 2)


# C3: one hard prompt ---------------------------------------------------------------------------------
HARD_START, MASTERY, HARD_LR = 0.01, 0.8, 0.2
SIZES = (8, 16, 32, 64)


def updates_needed(rngs, size, *, std=True, lr=HARD_LR):
    """Updates until mastery, one number a seed."""
    return updates_to_reach(
        np.full(len(rngs), HARD_START), MASTERY, group_size=size, lr=lr, rng=rngs[0], std=std
    ).astype(float)


@shared
def expected_updates(size, *, std=True, lr=HARD_LR, width=1e-3):
    """Its mean: ``U(theta) = (1 + sum_k P_k U(theta + s_k)) / (1 - P_0 - P_n)`` from the target down, since no step goes back.

    Linear interpolation on a grid of ``width``, whose error is of its order (a step is at least 50 times as long, except with
    mean-centred advantages at n = 64, where it is 3).
    """
    k = np.arange(1, size)
    rate = k / size
    reach = lr * (np.sqrt(rate * (1 - rate)) if std else rate * (1 - rate)) / width
    theta = np.arange(logit(MASTERY), logit(HARD_START) - width, -width)
    chance, whole, part = binom.pmf(k, size, expit(theta)[:, None]), np.floor(reach).astype(int), reach % 1
    need = np.zeros(theta.size + int(reach.max()) + 2)  # the front: at or above the target
    front = need.size - theta.size
    for i in range(1, theta.size):
        at = front + i - whole
        later = (1 - part) * need[at] + part * need[at - 1]
        need[front + i] = (1 + chance[i] @ later) / chance[i].sum()
    return float(np.interp(logit(HARD_START), theta[::-1], need[front:][::-1]))


# C4: a pool of 175 prompts ---------------------------------------------------------------------------
PROMPTS, BUDGET, LR = 175, 175 * 64 * 8, 0.4
UNIFORM = (Phase(PROMPTS),)
HARD_FOCUS = (Phase(72, 0.5), Phase(50, 0.5), Phase(25))
PARTS = {"72 hardest": 72, "25 hardest": 25, "all": PROMPTS}


def lowest(rate, size, among, last=False):
    """By sorting pairs."""
    order = sorted((r, -i if last else i) for i, r in enumerate(rate) if among[i])
    return np.isin(np.arange(len(rate)), [abs(i) for _, i in order[:size]])


def draw_pool(rngs, transfer=0.0):
    """``p0 ~ Beta(.6, .6)``, clipped to [.004, .996]; a pool a seed."""
    success = np.clip(rngs[0].beta(0.6, 0.6, (len(rngs), PROMPTS)), 0.004, 0.996)
    return PromptPool.of_success(success, transfer=transfer)


def accuracies(pool, start):
    """``{part: mean accuracy a seed}``; the k hardest are those of the lowest initial success rates."""
    masks = {part: hardest(start.success, size) for part, size in PARTS.items()}
    return {part: np.sum(pool.success * mask, axis=-1) / PARTS[part] for part, mask in masks.items()}


def trained(rngs, start, phases, size, budget=BUDGET):
    """`accuracies` after the budget."""
    pool, _ = train_phases(start, phases, budget=budget, group_size=size, lr=LR, rng=rngs[0])
    return accuracies(pool, start)


def gains(rngs, size, against, transfer=0.0):
    """Hard-focus with ``size`` rollouts minus uniform sampling with ``against``, on the same pools."""
    start = draw_pool(rngs, transfer)
    hard, uniform = trained(rngs, start, HARD_FOCUS, size), trained(rngs, start, UNIFORM, against)
    return {part: hard[part] - uniform[part] for part in PARTS}


# C5: modes under a window ----------------------------------------------------------------------------
MODES = np.log([0.8, 0.04, 0.04, 0.04, 0.04, 0.04])
SOLVES = np.array([0.5, 0.5, 0.45, 0.4, 0.35, 0.3])
TRUNCATED = {"short": 0.7, "long": 0.05}
ETA, STEPS = 0.4, 40


def window_reward(truncated):
    """Success of each mode, the first cut off with the given probability."""
    return np.r_[SOLVES[0] * (1 - truncated), SOLVES[1:]]


def natural_ascent(log_pi, reward, eta, steps):
    """Policies ``(steps + 1, A)`` of natural-gradient ascent on the expected reward."""
    path, optimiser = [log_pi], NaturalGradient(eta)
    for _ in range(steps):
        moved, optimiser = optimiser.step(path[-1], population_gradient(path[-1], reward))
        path.append(moved - np.logaddexp.reduce(moved, axis=-1, keepdims=True))
    return np.array(path)


def entropies(truncated, steps=STEPS):
    """Entropy in nats before every step, and after the last (C5: T steps are the tilt by ``eta T r``)."""
    return entropy(log_normalize(MODES + ETA * np.arange(steps + 1.0)[:, None] * window_reward(truncated)))


# C6: the reported numbers, pass@1 --------------------------------------------------------------------
BENCHMARKS = ("LiveCode 08-11", "LiveCode V5", "LiveCode V6", "LeetCode weekly", "Codeforces")


class Reported(NamedTuple):
    """Rows of Tables 2 and 4, in the order of `BENCHMARKS`."""

    sft: tuple = (0.602, 0.594, 0.549, 0.578, 0.115)
    stage_1: tuple = (0.625, 0.627, 0.634, 0.603, 0.112)
    rl: tuple = (0.699, 0.697, 0.703, 0.653, 0.182)
    nemotron: tuple = (0.623, 0.618, 0.600, 0.609, 0.132)
    all_v6: tuple = (0.506, 0.512, 0.522, 0.296, 0.105)
    all_9k: tuple = (0.676, 0.688, 0.675, 0.592, 0.102)
    stage_2_only: tuple = (0.636, 0.626, 0.691, 0.550, 0.142)
    more_hard: tuple = (0.712, 0.707, 0.743, 0.678, 0.188)


REPORTED = Reported()
# the percentages of the text: (row, column, relative gain over SFT in percent)
PERCENTAGES = (*(("rl", i, g) for i, g in enumerate((16.1, 17.3, 28.1, 13.0, 58.3))),
               ("all_v6", 3, -48.8), ("stage_2_only", 2, 25.9), ("stage_2_only", 3, -4.8))  # fmt: skip
# the differences of the text: (column, difference)
DIFFERENCES = {"08-11": (0, 0.077), "V6": (2, 0.103), "Codeforces": (4, 0.056)}
STAGE_2_ROLLOUTS = {"abstract": 64, "Section 3.2": 80, "Section 4.1": 64, "conclusion": 64}
