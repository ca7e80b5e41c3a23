r"""Claims of "The Invisible Leash: Why RLVR May Not Escape Its Origin".

Base model ``q``, policy ``pi``, binary reward with correct set ``C``, ``Q = q(C)``; ``pi_b = q e^{b r}/Z`` is the tilt
at inverse temperature ``b`` (the paper's beta).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.stats import binom

from klsim.claims import Effect, Identity, Inequality, Limit, Optimality, Paper, Variant, assume
from klsim.distributions import condition, entropy, expectation, log_normalize, log_partition, tilt
from klsim.divergences import kl, tv
from klsim.estimators import SupportChange, pass_at_k_exact, support_change, support_threshold
from klsim.learning import SGD, centre, population_gradient, score_function_gradient
from klsim.optima import forward_kl_regularized
from klsim.problems.token_tree import conditionals, visit_log_probs
from klsim.spaces import Choice, Drawn, Floats, Integers, Masks, Normals, Policies, Rewards, Sizes, Space

from .setting import COUNTEREXAMPLE, KS, THRESHOLD, leash_run

paper = Paper(
    "invisible-leash",
    title="The Invisible Leash: Why RLVR May Not Escape Its Origin",
    authors="Fang Wu, Weihao Xuan, Ximing Lu, Mingjie Liu, Yi Dong, Zaid Harchaoui, Yejin Choi",
    year=2025,
    arxiv="2507.14843",
)

# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    Structural zeros stay zero: sampled policy gradient keeps the support

    For a softmax policy with structural zeros (logit $-\infty$), any number of sampled policy-gradient steps keeps
    $\mathrm{supp}(\pi)\subseteq\mathrm{supp}(q)$, and moves the other outcomes as if the impossible ones did not exist; hence
    $\lim_k$ pass@$k(\pi)\le\lim_k$ pass@$k(q)$.

    where: Theorem C.1, Corollary C.2
    assumes: Zeros are structural in the parametrisation; 'never sampled' is not enough.
    """)  # fmt: skip


class Run(NamedTuple):
    """Logits of seven possible outcomes, their rewards, and the uniform draws of 200 steps of 4 rollouts."""

    logits: np.ndarray
    reward: np.ndarray
    draws: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(rng.standard_normal(7), rng.integers(0, 2, 7).astype(float), rng.random((200, 4)))

    def sampled(self, pi, step):
        """The four outcomes of a step, by inversion."""
        return np.minimum(np.searchsorted(np.cumsum(pi), self.draws[step]), 6)


@C1.check(
    Identity(1e-9, scale=1), Space(run=Drawn(Run.draw), baseline=Choice("mean", "none")), instances=10,
    false={"with gradient descent": {"lr": -0.5}},
)  # fmt: skip
def impossible_outcome_stays_impossible(run, baseline, *, lr=0.5):
    """The library's steps with an impossible, correct, eighth outcome against plain REINFORCE on the other seven."""
    logits, plain, optimiser = np.append(run.logits, -np.inf), run.logits, SGD(lr)
    reward = np.append(run.reward, 1.0)
    for step in range(len(run.draws)):
        log_pi, p = log_normalize(logits), np.exp(log_normalize(plain))
        counts = np.bincount(run.sampled(np.exp(log_pi)[:7], step), minlength=8)
        advantage = centre(reward, counts, baseline=str(baseline))
        logits, optimiser = optimiser.step(logits, score_function_gradient(log_pi, counts, advantage))
        picked = run.sampled(p, step)
        advantage = run.reward[picked] - (run.reward[picked].mean() if baseline == "mean" else 0.0)
        plain = plain + 0.5 * np.mean(advantage[:, None] * (np.eye(7)[picked] - p), axis=0)
    law = np.exp(log_normalize(logits))
    return {"impossible": (law[7], 0.0), "the others": (law[:7], np.exp(log_normalize(plain)), 1.0)}


@impossible_outcome_stays_impossible.control("with a direct parametrisation of the simplex")
def direct_parametrisation(run, **_):
    """One exact step, projected: the reward of an impossible outcome pulls it above 0."""
    moved = np.append(np.exp(log_normalize(run.logits)), 0.0) + 0.3 * np.append(0.2 * run.reward, 1.0)
    ordered = np.sort(moved)[::-1]
    shifts = (np.cumsum(ordered) - 1) / np.arange(1, 9)
    return {"impossible": (np.maximum(moved - shifts[np.flatnonzero(ordered > shifts)[-1]], 0)[7], 0.0)}


C1_unsampled = paper.claim("C1-unsampled", r"""
    What is never sampled receives no gradient, so its probability does not grow

    A completion that is never sampled nor rewarded keeps a probability of at most $q(y)$.

    where: the informal argument around Theorem C.1
    instead: Only structural zeros are safe. With shared parameters an unrewarded completion that shares its features with a rewarded
    one rises with it: from $4\cdot10^{-7}$ by a factor 1.99 in the example.
    by: C1
    origin: as commonly read
    """)  # fmt: skip


@C1_unsampled.check(Inequality(1e-9), Space(rare=Floats(-20.0, -6.0)), batched=False, instances=4, examples=[{"rare": -14.0}],
                    true={"without the shared feature it does not": {"shared": 0.0}})  # fmt: skip
def unsampled_does_not_grow(rare, *, shared=1.0):
    """``pi_1/q_1`` after 400 exact steps on one weight; completion 1 shares the feature of the rewarded completion 0."""
    base, feature, w = np.array([0.0, rare, 0.0]), np.array([1.0, shared, 0.0]), 0.0
    for _ in range(400):
        gradient = population_gradient(log_normalize(base + w * feature), np.array([1.0, 0.0, 0.0]))
        w += 0.5 * float(feature @ gradient)
    return float(np.exp(log_normalize(base + w * feature) - log_normalize(base))[1]), 1.0


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    A negative sample moves any other token by a bounded factor

    One step $dz_v=\eta(\pi_v-1[v=y])\pi_y$ on a sampled wrong token $y$: if $\eta\pi_y^2\le\frac12$ then $\pi'_a/\pi_a\le e^{2\eta\pi_y}$
    for $a\ne y$. Sharper, for every $\eta\ge0$: $$\log\frac{\pi'_a}{\pi_a}\le\eta\pi_y[\pi_a(1-\pi_a)+\pi_y(1-\pi_y)]\le\tfrac12\eta\pi_y,$$
    so $K$ steps at each of $T$ positions raise no completion by more than $e^{\frac8{27}\eta TK}$.

    where: proof of Theorem C.3 (the sharper forms are derived: Jensen on the normaliser, $\sum_{v\ne y}\pi_v^2\ge\pi_a^2$)
    """)  # fmt: skip
C2_SPACE = Space(logits=Normals("A", scale=1.5), eta=Floats(1e-3, 100.0, log=True), A=Sizes(2, 12))


def after_negative(logits, eta):
    """One step on token 0, the wrong one; tokens are exchangeable."""
    pi = np.exp(log_normalize(logits))
    return logits + eta[..., None] * pi[..., :1] * (pi - (np.arange(pi.shape[-1]) == 0))


def rises(after, before):
    """``log pi'_a / pi_a`` of the other tokens."""
    return (log_normalize(after) - log_normalize(before))[..., 1:]


@C2.check(
    Inequality(1e-12), C2_SPACE, false={"without pi_a (1 - pi_a)": {"other": 0}, "without pi_y (1 - pi_y)": {"own": 0}}
)
def bounded_factor(logits, eta, *, other=1, own=1):
    pi, eta = np.exp(log_normalize(logits)), eta[..., None]
    pi_y, pi_a = pi[..., :1], pi[..., 1:]
    spread = other * pi_a * (1 - pi_a) + own * pi_y * (1 - pi_y)
    return rises(after_negative(logits, eta[..., 0]), logits), eta * pi_y * spread, 1 + eta


@C2.check(Inequality(1e-12), C2_SPACE, false={"exp(0.45 eta pi_y)": {"factor": 0.45}})
def bounded_factor_of_the_paper(logits, eta, *, factor=2.0):
    pi_y = np.exp(log_normalize(logits))[..., 0]
    assume(eta * pi_y**2 <= 0.5)
    return rises(after_negative(logits, eta), logits).max(axis=-1), factor * eta * pi_y, 1 + eta


@C2.check(Inequality(1e-12), Space(logits=Normals("T", "A"), eta=Floats(1e-3, 1.0, log=True), T=Sizes(1, 3), A=Sizes(2, 5), K=Sizes(1, 30)),
          instances=5000, false={"with 0.28 for 8/27": {"constant": 0.28}})  # fmt: skip
def accumulated_factor(logits, eta, T, K, *, constant=8 / 27):
    after = logits
    for _ in range(K):
        after = after_negative(after, eta[..., None])
    return np.sum(rises(after, logits).max(axis=-1), axis=-1), constant * eta * T * K, 1 + eta * T * K


C2_printed = paper.claim("C2-printed", r"""
    Negative-sample steps keep the empirical support at a fixed threshold

    $\mathrm{supp}_\epsilon(\pi)\subseteq\mathrm{supp}_\epsilon(q)$ after any number of negative-sample steps.

    where: Theorem C.3
    instead: It is a bound for $\epsilon\to0$ at fixed numbers of steps, positions and step size: with $q=(.9991,.0009)$, $\eta=.5$ the
    second token crosses $10^{-3}$ after 112 steps.
    by: C2/accumulated_factor
    """)  # fmt: skip


@C2_printed.check(Inequality(1e-12), Space(steps=Integers(1, 400)), batched=False, instances=20, examples=[{"steps": 200}],
                  true={"for the first 111 steps it does": Variant(space=Space(steps=Integers(1, 111)))})  # fmt: skip
def rare_token_stays_below_the_threshold(steps):
    logits = np.log([0.9991, 0.0009])
    for _ in range(int(steps)):
        logits = after_negative(logits, np.asarray(0.5))
    return float(np.exp(log_normalize(logits))[1]), 1e-3


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    RLVR as the least-KL policy with a given reward

    $\arg\min\mathrm{KL}(\pi\|q)$ s.t. $\mathbb{E}_\pi r\ge\rho$ is $\pi_b=qe^{br}/Z$. For binary $r$: $\pi_b(C)=\frac{Qe^b}{1-Q+Qe^b}$,
    the least KL is the binary $\mathrm{kl}(\rho,Q)$, $\pi_b(\cdot|C)=q(\cdot|C)$, $\pi_b(y)/q(y)=e^b/Z$ for correct $y$, and the total
    variation to $q(\cdot|C)$ is $\frac{1-Q}{1-Q+Qe^b}\sim\frac{1-Q}Qe^{-b}$.

    where: Prop. C.4, Corollary C.5 (rate derived)
    """)  # fmt: skip
BINARY = Space(log_ref=Policies(), correct=Masks(), b=Floats(0.01, 10.0), A=Sizes(2, 14))


def success(log_p, correct):
    return np.minimum(np.sum(np.where(correct, np.exp(log_p), 0.0), axis=-1), 1.0)


def times_log(x, y):
    """``x log(x / y)``, 0 at x = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, x * np.log(x / y), 0.0)


@C3.check(Identity(1e-9), BINARY, false={"with e^(2b) in the normaliser": {"power": 2}})
def binary_closed_forms(log_ref, correct, b, *, power=1):
    pi, limit = tilt(log_ref, correct.astype(float), 1 / b), condition(log_ref, correct)
    q, wrong = success(log_ref, correct), success(log_ref, ~correct)
    z = wrong + q * np.exp(power * b)
    rho, left = q * np.exp(b) / z, wrong / z
    return {
        "success": (success(pi, correct), rho, 1.0),
        "KL": (kl(pi, log_ref), times_log(rho, q) + times_log(left, wrong), 1 + b),
        "conditional": (np.exp(condition(pi, correct)), np.exp(limit), 1.0),
        "ratio": (
            np.where(correct, pi - log_ref, 0.0),
            np.where(correct, (b - np.log(z))[..., None], 0.0),
            1 + b[..., None],
        ),
        "distance": (tv(pi, limit), left, 1.0),
    }


def least_forward(log_q, reward, rho):
    """The law of least ``KL(q‖pi)`` with expected reward ``rho``."""

    def excess(x):
        return float(expectation(forward_kl_regularized(log_q, reward, math.exp(x)).log_policy, reward)) - rho

    return forward_kl_regularized(log_q, reward, math.exp(brentq(excess, -30.0, 30.0))).log_policy


@C3.check(Optimality(1e-6, scale=1), Space(log_q=Policies(6, spread=6.0), reward=Rewards(6, ties=False), share=Floats(0.1, 0.9),
          where=lambda reward: np.diff(np.sort(reward, axis=-1), axis=-1).min(axis=-1) > 0.02),
          batched=False, instances=15, false={"the law of least KL(q‖pi) has it": {"forward": True}})  # fmt: skip
def tilt_has_the_least_kl(log_q, reward, share, *, forward=False):
    """Against SLSQP on the simplex and the dual bound ``max_b b rho - log E_q e^{br}``."""
    q, reward = np.exp(log_q), reward / np.ptp(reward)
    rho = float(q @ reward + share * (reward.max() - q @ reward))
    b = brentq(lambda x: float(expectation(tilt(log_q, x * reward, 1.0), reward)) - rho, 0.0, 1e4)
    law = least_forward(log_q, reward, rho) if forward else tilt(log_q, b * reward, 1.0)

    def loss(p):
        ratio = np.log(np.maximum(p, 1e-300) / q)
        return float(p @ ratio), ratio + 1

    constraints = [{"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
                   {"type": "ineq", "fun": lambda p: p @ reward - rho, "jac": lambda p: reward}]  # fmt: skip
    found = minimize(loss, np.full(6, 1 / 6), jac=True, method="SLSQP", bounds=[(1e-300, 1)] * 6, constraints=constraints,
                     options={"ftol": 1e-14, "maxiter": 500})  # fmt: skip
    feasible = abs(found.x.sum() - 1) < 1e-9 and found.x @ reward > rho - 1e-9
    dual = minimize_scalar(lambda x: float(log_partition(log_q, x * reward, 1.0)) - x * rho, bounds=(0, 2 * b + 1),
                           options={"xatol": 1e-10})  # fmt: skip
    least = -float(kl(law, log_q))
    return {"SLSQP": (least, -found.fun if feasible else -math.inf), "dual bound": (least, dual.fun)}


@C3.check(Limit(rate=-1.0, rate_tol=0.02), false={"twice as fast": {"speed": 2}})
def exponential_rate(rng, *, speed=1):
    b, log_q = np.array([4.0, 6.0, 8.0, 10.0, 12.0]), np.log(rng.dirichlet(np.full(3, 5.0)))
    correct = np.array([False, True, True])
    distances = [float(tv(tilt(log_q, correct.astype(float), 1 / x), condition(log_q, correct))) for x in b]
    return np.exp(speed * b), distances


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    Entropy of the tilt, exactly

    $H[\pi]=-\mathbb{E}_\pi[\log q]-\mathrm{KL}(\pi\|q)$; $\frac{dH}{db}=-\mathrm{Cov}_{\pi_b}(r,\log q)-b\,\mathrm{Var}_{\pi_b}(r)$; for
    binary $r$ $H[\pi_b]-H[q]=h(\rho)-h(Q)+(\rho-Q)(H_C-H_W)$ with $h$ the binary entropy and $H_C,H_W$ the entropies of $q$ given
    correct and wrong.

    where: derived; corrects Theorem C.6(a)
    """)  # fmt: skip


@C4.check(Identity(1e-11), BINARY,
          false={"H[q] - KL(pi‖q), as the printed proof has it": {"at_base": True}, "with H_C + H_W": {"sign": 1}})  # fmt: skip
def entropy_identities(log_ref, correct, b, *, at_base=False, sign=-1):
    pi, q = tilt(log_ref, correct.astype(float), 1 / b), success(log_ref, correct)
    rho, scale = success(pi, correct), 1 + np.max(np.abs(log_ref), axis=-1)
    cross = -expectation(log_ref if at_base else pi, log_ref)
    right, wrong = entropy(condition(log_ref, correct)), entropy(condition(log_ref, ~correct))
    binary = [-times_log(x, 1.0) - times_log(success(p, ~correct), 1.0) for x, p in ((rho, pi), (q, log_ref))]
    return {
        "cross entropy": (entropy(pi), cross - kl(pi, log_ref), scale),
        "blocks": (entropy(pi) - entropy(log_ref), binary[0] - binary[1] + (rho - q) * (right + sign * wrong), scale),
    }


@C4.check(Identity(1e-6), BINARY, false={"without b Var(r)": {"spread": 0}, "with + Cov": {"sign": 1}})
def entropy_slope(log_ref, correct, b, *, spread=1, sign=-1, h=1e-5):
    """Central differences: truncation of order h², rounding eps/h."""
    reward = correct.astype(float)
    pi = tilt(log_ref, reward, 1 / b)
    rho = success(pi, correct)
    up, down = (entropy(tilt(log_ref, reward, 1 / (b + step))) for step in (h, -h))
    exact = sign * expectation(pi, (reward - rho[..., None]) * log_ref) - spread * b * rho * (1 - rho)
    return (up - down) / (2 * h), exact, 1 + np.max(np.abs(log_ref), axis=-1)


C4_printed = paper.claim("C4-printed", r"""
    Theorem C.6(a): any RLVR update lowers the entropy

    $H[\pi]\le H[q]$.

    where: Theorem C.6(a)
    instead: True for a uniform base, and whenever reward and $\log q$ are non-negatively correlated along the path; false in general:
    $q=(.98$, twenty correct answers of $.001)$ has $H=0.158$, its tilt tends to $\log20=2.996$.
    by: C4
    """)  # fmt: skip


@C4_printed.check(Inequality(1e-9, scale=1), BINARY, examples=[{"log_ref": COUNTEREXAMPLE, "correct": np.arange(21) > 0, "b": 4.0}],
                  true={"from a uniform base it does": {"uniform": True}})  # fmt: skip
def tilt_lowers_entropy(log_ref, correct, b, *, uniform=False):
    log_q = np.full_like(log_ref, -math.log(log_ref.shape[-1])) if uniform else log_ref
    return entropy(tilt(log_q, correct.astype(float), 1 / b)), entropy(log_q)


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    An exact tilt never shrinks: every correct answer gains, pass@k rises at every k

    For $b\ge0$ and binary $r$: $\pi_b(y)/q(y)=e^b/Z\ge1$ for every correct $y$, so pass@$k(\pi_b)=1-(\frac{1-Q}Z)^k\ge$ pass@$k(q)$
    for every $k$ and prompt, with equal limits.

    where: derived; corrects Theorem C.6(b)
    """)  # fmt: skip


@C5.check(
    Inequality(1e-12), Space(log_ref=Policies(), correct=Masks(), b=Floats(0.0, 10.0), k=Integers(1, 16_384, log=True), A=Sizes(2, 14)),
    false={"so does every answer": {"of_all": True}, "for b < 0": {"sign": -1}},
)  # fmt: skip
def correct_answers_gain(log_ref, correct, b, k, *, of_all=False, sign=1):
    pi = tilt(log_ref, sign * b[..., None] * correct, 1.0)
    lowest = np.min(np.where(correct | of_all, pi - log_ref, np.inf), axis=-1)
    passed = [pass_at_k_exact(success(law, correct), k) for law in (log_ref, pi)]
    return {
        "each answer": (0 * lowest, lowest, 1 + np.max(np.abs(log_ref), axis=-1)),
        "pass@k": (passed[0], passed[1], 1.0),
    }


@C5.check(Identity(1e-9), Space(log_ref=Policies(), correct=Masks(), b=Floats(0.0, 10.0), k=Integers(1, 64), A=Sizes(2, 14)),
          false={"with k + 1": {"more": 1}, "without Z": {"normalised": 0}})  # fmt: skip
def pass_at_k_of_the_tilt(log_ref, correct, b, k, *, more=0, normalised=1):
    pi, wrong = tilt(log_ref, b[..., None] * correct, 1.0), success(log_ref, ~correct)
    z = wrong + success(log_ref, correct) * np.exp(b)
    return pass_at_k_exact(success(pi, correct), k), 1 - (wrong / z**normalised) ** (k + more), 1.0


C5_printed = paper.claim("C5-printed", r"""
    Theorem C.6(b): for large k the tilt's pass@k falls below the base's

    pass@$k(\pi_b)<$ pass@$k(q)$ for large $k$, because rare correct completions are down-weighted.

    where: Theorem C.6(b)
    instead: Impossible for the exact tilt. A crossover must come from finite samples, shared parameters, approximation error or
    graded rewards; C6 shows it with shared parameters.
    by: C5, C6
    """)  # fmt: skip


@C5_printed.check(
    Inequality(1e-9), Space(log_ref=Policies(spread=6.0), correct=Masks(), b=Floats(0.5, 3.0), k=Integers(64, 16_384, log=True),
    load=Floats(0.05, 3.0), A=Sizes(2, 14)), true={"for negative b it does": {"sign": -1}},
)  # fmt: skip
def tilt_falls_below(log_ref, correct, b, k, load, *, sign=1):
    """At the k where it matters: the base has ``Q = load / k``, so that its pass@k is neither 0 nor 1."""
    q = (load / k)[..., None]
    blocks = condition(log_ref, correct) + np.log(q), condition(log_ref, ~correct) + np.log1p(-q)
    base = np.where(correct, *blocks)
    return tuple(
        pass_at_k_exact(success(x, correct), k) for x in (tilt(base, sign * b[..., None] * correct, 1.0), base)
    )


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    With shared parameters pass@1 rises, pass@1024 falls, and more answers are lost than gained

    On-policy group-normalised policy gradient on prompts that share parameters: the means of pass@1 and pass@8 rise, that of
    pass@1024 falls, and shrinkage exceeds expansion; so do exact gradients. Without sharing pass@k rises at k = 1, 8, 64, 1024 and
    no answer is lost.

    where: Tables 1, 3, 4 (effect, re-stated on prompt bandits)
    assumes: 40 prompts, 30 shared labels, one correct label a prompt, 9 features, 8 rollouts, 300 steps.
    """)  # fmt: skip


def changes(rng, **options):
    """Changes of the mean pass@k, and of the support."""
    world, run = leash_run(rng, **options)
    before, after = world.success(), world.success(run.final)
    gains = {k: float(np.mean(pass_at_k_exact(after, k) - pass_at_k_exact(before, k))) for k in KS}
    return gains, support_change(before, after, THRESHOLD)


@C6.check(Effect(seeds=16), false={"without sharing": {"shared": False}})
def crossover_with_sharing(rng, *, shared=True):
    gains, change = changes(rng, shared=shared)
    return {
        "pass@1 rises": gains[1],
        "pass@8 rises": gains[8],
        "pass@1024 falls": -gains[1024],
        "lost minus gained answers": change.shrunk - change.expanded,
    }


@C6.check(Effect(seeds=16), false={"with sharing": {"shared": True}})
def no_crossover_without_sharing(rng, *, shared=False):
    gains, change = changes(rng, shared=shared)
    return {**{f"pass@{k} rises": gains[k] for k in KS}, "fewer than half an answer lost": 0.5 - change.shrunk}


@C6.check(Effect(seeds=8), false={"without sharing": {"shared": False}})
def exact_gradients_cross_too(rng, *, shared=True):
    gains, _ = changes(rng, exact=True, shared=shared)
    return {"pass@1 rises": gains[1], "pass@1024 falls": -gains[1024]}


# C7, C8 --------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Support metrics

    SRR $=\frac P{P+S}$, NDR $=\frac E{P+E}$, SDS $=\frac{2PE}{P^2+2PE+ES}$, NSCR $=\frac{E-S}{P+E+S}$; Table 1's rows follow from their
    counts to the digits printed, except one NDR (0.0148, printed .02).

    where: Definition 3.3, Table 1
    """)  # fmt: skip
TABLE_1 = {  # (P, E, S, O), (SRR, NDR, SDS, NSCR)
    "ProRL-1.5B-v1": ((2400, 36, 163, 805), (0.94, 0.01, 0.03, -0.05)),  # NDR printed .02, see C7-printed
    "ProRL-1.5B-v2": ((2388, 48, 175, 793), (0.93, 0.02, 0.04, -0.05)),
    "Nemotron-1-7B": ((2715, 28, 56, 605), (0.98, 0.01, 0.02, -0.01)),
    "Skywork-OR1-7B": ((2685, 26, 86, 607), (0.97, 0.01, 0.02, -0.02)),
    "Nemotron-1-14B": ((2418, 8, 23, 501), (0.99, 0.00, 0.01, -0.01)),
    "Phi4-Reason-Plus-14B": ((2474, 16, 23, 437), (0.99, 0.01, 0.01, -0.00)),
    "OLMo-2-1B": ((761, 83, 104, 599), (0.88, 0.10, 0.18, -0.02)),
}
COUNT = Integers(1, 999)


@C7.check(Identity(1e-12), Space(p=COUNT, e=COUNT, s=COUNT), batched=False,
          false={"the arithmetic mean of SRR and NDR": {"arithmetic": True}})  # fmt: skip
def metrics_from_counts(p, e, s, *, arithmetic=False):
    change = SupportChange(p, e, s, 0)
    mean = (p / (p + s) + e / (p + e)) / 2
    return {
        "SRR": (change.retention, p / (p + s)),
        "NDR": (change.discovery, e / (p + e)),
        "SDS": (change.harmonic, mean if arithmetic else 2 * p * e / (p**2 + 2 * p * e + e * s)),
        "NSCR": (change.net, (e - s) / (p + e + s), 1.0),
    }


@C7.check(Identity(1e-12), Space(logs=Normals(2, 12, scale=2.0), threshold=Floats(1e-3, 0.5, log=True)), batched=False,
          false={"with E and S exchanged": {"order": (0, 2, 1, 3)}})  # fmt: skip
def counts_from_probabilities(logs, threshold, *, order=(0, 1, 2, 3)):
    before, after = 1 / (1 + np.exp(-logs))
    change = support_change(before, after, threshold)
    states = [
        2 * (b <= threshold) + (a <= threshold) for b, a in zip(before, after)
    ]  # both, before only, after only, none
    by_state = np.bincount(np.array([0, 2, 1, 3])[states], minlength=4)
    return [change.preserved, change.expanded, change.shrunk, change.out], by_state[list(order)]


@C7.check(Inequality(1e-12), false={"with E and S exchanged": {"exchanged": True}})
def published_rows(*, exchanged=False):
    """Within half a unit of the last digit printed."""
    parts = {}
    for name, ((p, e, s, o), printed) in TABLE_1.items():
        c = SupportChange(p, s, e, o) if exchanged else SupportChange(p, e, s, o)
        parts[name] = (np.abs(np.array([c.retention, c.discovery, c.harmonic, c.net]) - printed), 0.0051)
    return parts


C7_printed = paper.claim("C7-printed", r"""
    Table 1, ProRL-1.5B-v1 overall: NDR = .02

    $E=36$, $P=2400$ give NDR $=.02$.

    where: Table 1
    instead: NDR $=36/2436=.0148$, which rounds to $.01$.
    by: C7/published_rows
    """)  # fmt: skip


@C7_printed.check(Inequality(1e-12), true={"its SRR = .94 is right": {"metric": "retention", "value": 0.94}})
def printed_ndr(*, metric="discovery", value=0.02):
    return abs(getattr(SupportChange(2400, 36, 163, 805), metric) - value), 0.005


C8 = paper.claim("C8", r"""
    Support threshold of an unseen answer

    A fixed $y$ not seen in $k$ draws has $\pi(y)\le1-\zeta^{1/k}<\frac{-\ln\zeta}k$ with confidence $1-\zeta$; $3.66\cdot10^{-4}$ for
    $k=8192$, $\zeta=.05$.

    where: App. C.4
    """)  # fmt: skip
DRAWS = Space(k=Integers(1, 10**6, log=True), zeta=Floats(0.001, 0.5))


@C8.check(Identity(1e-9), DRAWS, false={"at the threshold 1/k": {"inverse": True}})
def miss_probability(k, zeta, *, inverse=False):
    threshold = 1 / (k + 1.0) if inverse else support_threshold(k, 1 - zeta)
    return np.exp(k * np.log1p(-threshold)), zeta


@C8.check(Inequality(1e-12), DRAWS, false={"below (1 - zeta)/k": {"log": False}})
def below_the_usual_bound(k, zeta, *, log=True):
    return support_threshold(k, 1 - zeta), (-np.log(zeta) if log else 1 - zeta) / k


@C8.check(Inequality(1e-12), false={"at the threshold 1/k": {"inverse": True}})
def miss_rate_by_monte_carlo(rng, *, inverse=False):
    """Misses among 2·10^5 rows of 8192 draws: both exact binomial tails at .05 stay above 1e-9."""
    threshold = 1 / 8192 if inverse else support_threshold(8192, 0.95)
    misses = int(np.sum(rng.binomial(8192, threshold, 200_000) == 0))
    rarest = min(binom.cdf(misses, 200_000, 0.05), binom.sf(misses - 1, 200_000, 0.05))
    return -math.log10(max(rarest, 1e-300)), 9.0


# C9 ------------------------------------------------------------------------------------------------
C9 = paper.claim("C9", r"""
    Token entropy and answer entropy: the trace entropy is the difference

    For completions of fixed length $H$: $H\cdot$TokenEntropy $=$ AnswerEntropy
    $+\,\mathbb{E}_{answer}[H(\text{trace}|\text{answer})]$; so token entropy can rise while answer entropy falls iff the trace entropy
    given the answer rises by more, and never where every answer has one trace.

    where: Sec. 5.2, Table 5 (identity derived)
    assumes: Fixed length; entropies of the sampling policy.
    """)  # fmt: skip
DEPTH, BRANCH = 3, 4
LEAVES = Policies(BRANCH**DEPTH, spread=12.0)


def token_entropy_sum(log_leaves):
    """``H * TokenEntropy``: next-token entropies of all prefixes, weighted by their probability."""
    levels = conditionals(log_leaves, BRANCH, DEPTH)
    return sum(float(np.exp(d) @ entropy(level)) for d, level in zip(visit_log_probs(levels), levels))


def entropy_of(p):
    return float(-np.sum(times_log(p, 1.0)))


def labels(rng):
    """One of six answers for each of the 64 leaves."""
    return rng.integers(0, 6, BRANCH**DEPTH)


@C9.check(
    Identity(1e-12, scale=1),
    Space(log_leaves=LEAVES, label=Drawn(labels)),
    false={"without the trace entropy": {"traces": 0}},
)
def decomposition(log_leaves, label, *, traces=1):
    leaves = np.exp(log_leaves)
    mass = np.bincount(label, weights=leaves, minlength=6)
    of_traces = sum(m * entropy_of(leaves[label == a] / m) for a, m in enumerate(mass) if m > 0)
    return token_entropy_sum(log_leaves), entropy_of(mass) + traces * of_traces


def both_entropies(b, traces):
    """``(token, answer)``: the correct answer (mass .2) has so many equal traces, four wrong ones one each; tilt ``b``."""
    leaves = np.zeros(BRANCH**DEPTH)
    leaves[:traces], leaves[48:52] = 0.2 / traces, 0.2
    with np.errstate(divide="ignore"):
        law = np.exp(tilt(np.log(leaves), b * (np.arange(leaves.size) < 48), 1.0))
        return token_entropy_sum(np.log(law)) / DEPTH, entropy_of(np.append(law[48:52], law[:48].sum()))


@C9.check(Inequality(1e-12), false={"with one trace for the correct answer": {"traces": 1}})
def token_entropy_rises_while_answer_entropy_falls(*, traces=48):
    """From .795 to 1.309 nats, and from 1.609 to .158."""
    (token, answer), (token_after, answer_after) = both_entropies(0.0, traces), both_entropies(5.0, traces)
    return {"token": (token + 0.5, token_after), "answer": (answer_after + 1.4, answer)}


@C9.check(Identity(1e-11, scale=1), Space(log_leaves=LEAVES, correct=Masks(BRANCH**DEPTH), b=Floats(0.1, 5.0)), batched=False, instances=100,
          false={"with two traces an answer": {"traces": 2}})  # fmt: skip
def no_split_when_every_answer_has_one_trace(log_leaves, correct, b, *, traces=1):
    after = tilt(log_leaves, correct.astype(float), 1 / b)
    answers = [entropy_of(np.exp(law).reshape(-1, traces).sum(axis=1)) for law in (log_leaves, after)]
    return token_entropy_sum(after) - token_entropy_sum(log_leaves), answers[1] - answers[0]
