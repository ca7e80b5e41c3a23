r"""Claims of "BroRL: Scaling Reinforcement Learning via Broadened Exploration".

One position, ``A`` tokens, ``pi = softmax(z)``; correct tokens have mass ``Q+``. ``w`` is the attribution of a
sampled token to the bracket of Theorem 1, ``v`` its draw-semantics analogue (`klsim.mass_balance`).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import sympy
from scipy.optimize import brentq

from klsim.claims import Effect, Identity, Inequality, Limit, Paper, Symbolic
from klsim.distributions import log_normalize
from klsim.estimators import kept_fraction, pass_at_k_exact
from klsim.learning import (
    SimulatorConfig,
    centre,
    counts_surrogate_gradient,
    population_gradient,
    simulate_tokens,
)
from klsim.mass_balance import (
    attribution,
    draw_attribution,
    expected_draw_step,
    expected_one_step,
    one_step,
    score_function_step,
    thresholds,
    unsampled_second_moment,
    unsampled_second_moment_bound,
)
from klsim.spaces import Choice, Floats, Integers, Masks, Normals, Seeds, Sizes, Space

paper = Paper(
    "brorl",
    title="BroRL: Scaling Reinforcement Learning via Broadened Exploration",
    authors="Jian Hu, Mingjie Liu, Ximing Lu, Fang Wu, Zaid Harchaoui, Shizhe Diao, Yejin Choi, Pavlo Molchanov, "
    "Jun Yang, Jan Kautz, Yi Dong",
    year=2025,
    arxiv="2510.01180",
)


def heavy_token_policy(rare, wrong, heavy=0.3, rare_mass=0.3):
    """One heavy correct token, ``rare`` correct tokens sharing ``rare_mass``, ``wrong`` incorrect ones the rest."""
    rest = 1 - heavy - rare_mass
    pi = np.concatenate([[heavy], np.full(rare, rare_mass / rare), np.full(wrong, rest / wrong)])
    return np.log(pi), np.arange(pi.size) <= rare


SMALL = heavy_token_policy(20, 40)  # C6(d)
LARGE = heavy_token_policy(100, 1000)  # C5(a)
MASSES = Space(
    logits=Normals("A", scale=1.5), correct=Masks(), sampled=Masks(both=False), r_pos=Floats(0.0, 2.0),
    r_neg=Floats(-2.0, 0.0), n=Integers(1, 19), A=Sizes(2, 12),
)  # fmt: skip


def _second_moments(pi, mask):
    return np.sum(np.where(mask, pi**2, 0.0), axis=-1)


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim(
    "C1",
    "Mass balance of one softmax policy-gradient step",
    statement=r"With $J(z)=\frac1N\sum_{i\in A\cup B}R_i\pi_i(z)$ one ascent step has $dz_j=\frac\eta N\pi_j(R_j-S_R)$ and, to first"
    r" order, $$dQ_+=\frac\eta N\left[(R_c-S_R)Q_-A_2+(S_R-R_w)Q_+B_2+S_R(Q_+U_{-,2}-Q_-U_{+,2})\right].$$",
    where="Theorem 1, proof App. C.1",
    assumptions="Rewards attach to sampled sets, samples held fixed while differentiating.",
)


def _surrogate(logits, sampled, correct, r_pos, r_neg, n):
    pi = np.exp(log_normalize(logits))
    reward = np.where(sampled, np.where(correct, np.asarray(r_pos)[..., None], np.asarray(r_neg)[..., None]), 0.0)
    return np.sum(reward * pi, axis=-1) / n


def _correct_mass(logits, correct):
    return np.sum(np.where(correct, np.exp(log_normalize(logits)), 0.0), axis=-1)


H = 1e-5


@C1.check(Identity(1e-8), MASSES)
def step_is_the_gradient_of_the_surrogate(logits, correct, sampled, r_pos, r_neg, n):
    step = one_step(log_normalize(logits), correct, sampled, n, r_pos, r_neg).d_logits
    columns = []
    for j in range(logits.shape[-1]):
        shift = H * (np.arange(logits.shape[-1]) == j)
        pair = [_surrogate(logits + s * shift, sampled, correct, r_pos, r_neg, n) for s in (1, -1)]
        columns.append((pair[0] - pair[1]) / (2 * H))
    return step, np.stack(columns, axis=-1), 1.0


def _directional(logits, correct, d_logits):
    return (_correct_mass(logits + H * d_logits, correct) - _correct_mass(logits - H * d_logits, correct)) / (2 * H)


@C1.check(Identity(1e-8), MASSES)
def first_order_change(logits, correct, sampled, r_pos, r_neg, n):
    balance = one_step(log_normalize(logits), correct, sampled, n, r_pos, r_neg)
    return balance.d_mass, _directional(logits, correct, balance.d_logits), 1.0


@first_order_change.control("without the unsampled term")
def no_unsampled_term(logits, correct, sampled, r_pos, r_neg, n):
    balance = one_step(log_normalize(logits), correct, sampled, n, r_pos, r_neg)
    return balance.d_mass - balance.unsampled / n, _directional(logits, correct, balance.d_logits), 1.0


@first_order_change.control("the same formula for the score-function step")
def score_function_instead(logits, correct, sampled, r_pos, r_neg, n):
    log_pi = log_normalize(logits)
    reward = np.where(correct, np.asarray(r_pos)[..., None], np.asarray(r_neg)[..., None]) * sampled
    pi = np.exp(log_pi)
    step = (reward - pi * reward.sum(axis=-1, keepdims=True)) / np.asarray(n)[..., None]
    balance = one_step(log_pi, correct, sampled, n, r_pos, r_neg)
    return balance.d_mass, _directional(logits, correct, step), 1.0


@C1.check(Limit(rate=2.0, rate_tol=0.05))
def remainder_is_second_order():
    rng = np.random.default_rng(1)
    logits, correct, sampled = 1.5 * rng.standard_normal(12), np.arange(12) < 6, rng.random(12) < 0.5
    balance = one_step(log_normalize(logits), correct, sampled, 1)
    t = np.array([1e-2, 3e-3, 1e-3, 3e-4])
    moved = np.array([_correct_mass(logits + x * balance.d_logits, correct) for x in t])
    return t, moved - _correct_mass(logits, correct) - t * balance.d_mass


@C1.check(Symbolic())
def proof_on_four_tokens():
    return _c1_expression(True)


@proof_on_four_tokens.control("without the unsampled term")
def proof_without_unsampled():
    return _c1_expression(False)


def _c1_expression(unsampled):
    """Tokens: sampled correct, sampled incorrect, unsampled correct, unsampled incorrect."""
    p = list(sympy.symbols("p1:4", positive=True))
    p.append(1 - sum(p))
    good, bad = sympy.Symbol("Rc", positive=True), sympy.Symbol("Rw", real=True)
    mood = good * p[0] + bad * p[1]
    rewards = (good, bad, 0, 0)
    step = [x * (r - mood) for x, r in zip(p, rewards)]
    drift = sum(x * d for x, d in zip(p, step))
    change = p[0] * (step[0] - drift) + p[2] * (step[2] - drift)
    q_pos, q_neg = p[0] + p[2], p[1] + p[3]
    bracket = (good - mood) * q_neg * p[0] ** 2 + (mood - bad) * q_pos * p[1] ** 2
    if unsampled:
        bracket += mood * (q_pos * p[3] ** 2 - q_neg * p[2] ** 2)
    return sympy.expand(change - bracket)


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim(
    "C2",
    "The two sampled terms are non-negative",
    statement=r"If $R_c\ge0\ge R_w$ then $S_R\in[R_w,R_c]$, so $(R_c-S_R)Q_-A_2\ge0$ and $(S_R-R_w)Q_+B_2\ge0$.",
    where="Theorem 1 (remark), Fig. 2",
    assumptions="Signs of the rewards; each sampled token counted once.",
)


@C2.check(Inequality(1e-12), MASSES)
def sampled_terms(logits, correct, sampled, r_pos, r_neg, n):
    b = one_step(log_normalize(logits), correct, sampled, n, r_pos, r_neg)
    return {
        "correct": (0 * b.mood, b.sampled_correct, 1.0),
        "incorrect": (0 * b.mood, b.sampled_incorrect, 1.0),
        "mood below": (b.mood, r_pos, 1.0),
        "mood above": (r_neg, b.mood, 1.0),
    }


@sampled_terms.control("with R_w = +1/2 as well")
def both_rewards_positive(logits, correct, sampled, r_pos, r_neg, n):
    b = one_step(log_normalize(logits), correct, sampled, n, r_pos, 0.5)
    return {"incorrect": (0 * b.mood, b.sampled_incorrect, 1.0)}


@sampled_terms.control("with draw counts instead of sets", examples=[{}])
def with_multiplicities():
    pi, counts = np.array([0.6, 0.2, 0.2]), np.array([1, 7, 0])
    mood = float(np.sum(counts * pi))
    return {"correct": (0.0, 0.2 * float(np.sum(pi[:2] ** 2 * (counts[:2] - mood))), 1.0)}


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim(
    "C3",
    "Exact token attribution and thresholds",
    statement=r"The bracket is additive over sampled tokens: $\sum_iw_i$, $w_i=R_c\pi_i(Q_-\pi_i-D)$ for correct and"
    r" $|R_w|\pi_i(Q_+\pi_i+D)$ for incorrect tokens, $D=Q_-P_2-Q_+M_2$. No batch lowers $Q_+$ iff $\pi_i\ge D/Q_-$ for all"
    r" correct and $\pi_i\ge-D/Q_+$ for all incorrect tokens; with every token sampled, $d\log\pi_i$ of a correct token has"
    r" the sign of $w_i$.",
    where="derived",
    origin="derived",
)


@C3.check(Identity(1e-12), MASSES)
def bracket_is_additive(logits, correct, sampled, r_pos, r_neg, n):
    log_pi = log_normalize(logits)
    w = attribution(log_pi, correct, r_pos, r_neg)
    return np.sum(np.where(sampled, w, 0.0), axis=-1), one_step(log_pi, correct, sampled, n, r_pos, r_neg).bracket, 1.0


@bracket_is_additive.control("with D = 0")
def without_the_threshold(logits, correct, sampled, r_pos, r_neg, n):
    log_pi = log_normalize(logits)
    pi, q = np.exp(log_pi), _correct_mass(logits, correct)[..., None]
    w = np.where(correct, np.asarray(r_pos)[..., None] * pi**2 * (1 - q), -np.asarray(r_neg)[..., None] * pi**2 * q)
    return np.sum(np.where(sampled, w, 0.0), axis=-1), one_step(log_pi, correct, sampled, n, r_pos, r_neg).bracket, 1.0


C3_SPACE = Space(logits=Normals(9, scale=1.5), correct=Masks(9))
ALL_SETS = np.array(list(itertools.product([False, True], repeat=9)))


@C3.check(Identity(1e-12), C3_SPACE, batched=False, instances=60)
def thresholds_decide_every_batch(logits, correct):
    log_pi = log_normalize(logits)
    lowest = one_step(log_pi, correct, ALL_SETS, 1).bracket.min()
    low_correct, low_wrong = thresholds(log_pi, correct)
    pi = np.exp(log_pi)
    safe = np.all(np.where(correct, pi >= low_correct, pi >= low_wrong))
    return float(lowest >= -1e-16), float(safe)


@C3.check(Identity(1e-12), C3_SPACE, instances=2000)
def full_information_sign(logits, correct):
    log_pi = log_normalize(logits)
    full = one_step(log_pi, correct, np.ones_like(correct), 1)
    pi = np.exp(log_pi)
    d_log = full.d_logits - np.sum(pi * full.d_logits, axis=-1, keepdims=True)
    q = _correct_mass(logits, correct)[..., None]
    gap = (1 - q) * _second_moments(pi, correct)[..., None] - q * _second_moments(pi, ~correct)[..., None]
    return np.where(correct, d_log, 0.0), np.where(correct, 2 * ((1 - q) * pi - gap), 0.0), 1.0


@C3.check(
    Inequality(1e-12),
    Space(n=Integers(1, 8), m=Integers(1, 8), q=Floats(0.01, 0.99), bits=Integers(1, 2**16 - 1)),
    batched=False,
)
def equal_classes_never_lose(n, m, q, bits):
    log_pi = np.log(np.concatenate([np.full(n, q / n), np.full(m, (1 - q) / m)]))
    correct = np.arange(n + m) < n
    sampled = (bits >> np.arange(n + m)) & 1 == 1
    return 0.0, float(one_step(log_pi, correct, sampled, 1).bracket), 1.0


C3_printed = paper.claim(
    "C3-printed",
    "Sampled tokens always contribute positively",
    statement=r"Adding a sampled correct token to a batch never lowers $dQ_+$.",
    where="Sec. 2 (reading of Theorem 1)",
    expect="refuted",
    correction=r"The sampled terms say on which token mass lands, not what sampling a token causes: its total effect is $w_i$, negative"
    r" for a correct token rarer than $D/Q_-$.",
)


@C3_printed.check(
    Inequality(1e-12),
    Space(logits=Normals("A", scale=1.5), correct=Masks(), A=Sizes(2, 9)),
    examples=[{"logits": SMALL[0], "correct": SMALL[1]}],
)
def sampling_a_correct_token_helps(logits, correct):
    w = attribution(log_normalize(logits), correct)
    return 0.0 * w, np.where(correct, w, 0.0), 1.0


@sampling_a_correct_token_helps.control(
    "sampling the most probable correct token helps",
    space=Space(logits=Normals("A", scale=1.5), correct=Masks(), A=Sizes(2, 9)),
)
def sampling_the_heaviest_helps(logits, correct):
    w = attribution(log_normalize(logits), correct)
    heaviest = np.where(correct, logits, -np.inf)
    top = heaviest == heaviest.max(axis=-1, keepdims=True)
    return 0.0 * w, np.where(top & correct, w, 0.0), 1.0


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim(
    "C4",
    "Decay of the unsampled second moment",
    statement=r"$\mathbb{E}[U_2]=\sum_i\pi_i^2(1-\pi_i)^N$ exactly, strictly decreasing in $N$ unless $\pi$ is one-hot; uniformly over"
    r" $\pi$ it is at most $\frac1{N+1}(\frac N{N+1})^N\sim\frac1{eN}$, attained by the uniform law on $N+1$ tokens.",
    where="Lemma 2, Corollary 3 (the uniform rate is derived)",
)


@C4.check(Identity(1e-13), Space(logits=Normals(4, scale=1.5), n=Integers(1, 6)), batched=False, instances=30)
def moment_by_enumeration(logits, n):
    pi = np.exp(log_normalize(logits))
    total = 0.0
    for draw in itertools.product(range(4), repeat=int(n)):
        unsampled = np.ones(4, dtype=bool)
        unsampled[list(draw)] = False
        total += np.prod(pi[list(draw)]) * np.sum(pi[unsampled] ** 2)
    return total, float(unsampled_second_moment(np.log(pi), n)), 1.0


@moment_by_enumeration.control("with (1 - pi)^(N-1)")
def one_draw_less(logits, n):
    pi = np.exp(log_normalize(logits))
    return moment_by_enumeration.function(logits, n)[0], np.sum(pi**2 * (1 - pi) ** (n - 1)), 1.0


@C4.check(Inequality(1e-12), Space(logits=Normals("A", scale=3.0), n=Integers(1, 500, log=True), A=Sizes(2, 200)))
def moment_decreases_and_is_bounded(logits, n):
    log_pi = log_normalize(logits)
    now = unsampled_second_moment(log_pi, n)
    return {
        "decreasing": (unsampled_second_moment(log_pi, n + 1), now, 1.0),
        "bounded": (now, unsampled_second_moment_bound(n), 1.0),
    }


@C4.check(Identity(1e-12), Space(n=Integers(1, 500)), batched=False)
def bound_is_attained(n):
    return float(unsampled_second_moment(np.full(n + 1, -math.log(n + 1)), n)), float(unsampled_second_moment_bound(n))


def _worst_moment():
    n = np.array([10.0, 100.0, 1000.0, 10000.0])
    return n, unsampled_second_moment_bound(n)


@C4.check(Limit(rate=-1.0, rate_tol=0.05))
def worst_case_rate_is_one_over_n():
    return _worst_moment()


@worst_case_rate_is_one_over_n.control("a distribution-free rate of 1/N^2", kind=Limit(rate=-2.0, rate_tol=0.05))
def one_over_n_squared():
    return _worst_moment()


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim(
    "C5",
    "On-policy the expected change is non-negative at every N",
    statement=r"$\mathbb{E}[\text{bracket}](N)=\sum_iw_i(1-(1-\pi_i)^N)\ge0$ for every $N\ge1$ and all $R_c\ge0\ge R_w$.",
    where="derived; corrects the reading of Theorem 1",
    origin="derived",
    assumptions="Draws from the policy itself.",
)


@C5.check(Identity(1e-12), Space(logits=Normals(4, scale=1.5), correct=Masks(4), n=Choice(1, 2, 3, 5)), batched=False,
          instances=30)  # fmt: skip
def expectation_by_enumeration(logits, correct, n):
    log_pi = log_normalize(logits)
    pi, total = np.exp(log_pi), 0.0
    for draw in itertools.product(range(4), repeat=int(n)):
        sampled = np.zeros(4, dtype=bool)
        sampled[list(draw)] = True
        total += np.prod(pi[list(draw)]) * float(one_step(log_pi, correct, sampled, n, 1.0, -0.7).bracket)
    return total, float(expected_one_step(log_pi, correct, n, 1.0, -0.7)), 1.0


C5_SPACE = Space(
    logits=Normals("A", scale=2.0), correct=Masks(), n=Choice(1, 2, 4, 16, 256), r_pos=Choice(0.0, 1.0, 2.0),
    r_neg=Choice(0.0, -1.0, -3.0), A=Sizes(2, 30),
)  # fmt: skip


@C5.check(Inequality(1e-12), C5_SPACE)
def expectation_is_non_negative(logits, correct, n, r_pos, r_neg):
    value = expected_one_step(log_normalize(logits), correct, n, r_pos, r_neg)
    return 0 * value, value, 1.0


@expectation_is_non_negative.control("off-policy draws (mu = softmax(-z)) as well")
def off_policy(logits, correct, n, r_pos, r_neg):
    value = expected_one_step(log_normalize(logits), correct, n, 1.0, -1.0, log_behaviour=log_normalize(-logits))
    return 0 * value, value, 1.0


C5_printed = paper.claim(
    "C5-printed",
    "At small N a step is expected to lower the correct mass; large N makes the expected change non-negative",
    statement=r"At small $N$ the unsampled term can make a step with $R_c\ge0\ge R_w$ lose correct mass in expectation; a large"
    r" $N$ is needed for $\mathbb{E}[dQ_+]\ge0$. Stated for a policy with one heavy and 100 rare correct tokens.",
    where="Sec. 2, implications of Theorem 1",
    expect="refuted",
    correction=r"$\mathbb{E}[dQ_+]\ge0$ at every $N$ (C5). What large $N$ buys is the sign of single batches:"
    r" $P(dQ_+<0)\to0$, from 0.30 at $N=1$ on that policy.",
)


@C5_printed.check(Inequality(1e-12), Space(n=Choice(1, 2, 4, 16)), instances=20)
def expectation_is_negative_at_small_n(n):
    return expected_one_step(*LARGE, n), 0.0 * np.asarray(n)


@expectation_is_negative_at_small_n.control("single batches can be negative: a rare correct token alone", examples=[{}])
def single_batch_is_negative():
    sampled = np.arange(LARGE[1].size) == 1
    return float(one_step(*LARGE, sampled, 1).bracket), 0.0


C5_monotone = paper.claim(
    "C5-monotone",
    "The probability that a batch lowers the correct mass falls monotonically in N",
    statement=r"$P(dQ_+<0)$ is non-increasing in $N$.",
    where="implied by 'larger N makes the step safe'",
    expect="refuted",
    correction=r"It tends to 0, not monotonically: on the small heavy-token policy it is exactly .30 at $N=1$ and .33 at $N=2$.",
)


def negative_probability_of_draws(log_pi, correct, n, *, centred=False):
    """``P(dQ+ < 0)`` by enumerating the classes (heavy, rare, wrong) of all batches; draws, not sets."""
    v = draw_attribution(log_pi, correct)
    groups = [np.array([0]), np.flatnonzero(correct)[1:], np.flatnonzero(~correct)]
    mass = [float(np.exp(log_pi[g]).sum()) for g in groups]
    value, reward = [float(v[g[0]]) for g in groups], np.array([1.0, 1.0, -1.0])
    total = 0.0
    for draw in itertools.product(range(3), repeat=n):
        index = list(draw)
        r = reward[index] - (reward[index].mean() if centred else 0.0)
        total += math.prod(mass[i] for i in draw) * (float(r @ np.array(value)[index]) < -1e-15)
    return total


@C5_monotone.check(Inequality(1e-9))
def negative_batches_become_rarer():
    one, two = (negative_probability_of_draws(*SMALL, n) for n in (1, 2))
    return two, one


@negative_batches_become_rarer.control("from N = 2 to N = 8 they do")
def rarer_from_two_to_eight():
    two, eight = (negative_probability_of_draws(*SMALL, n) for n in (2, 8))
    return eight, two


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim(
    "C6",
    "Large-N limit, set and draw semantics",
    statement=r"With every token sampled the bracket is $(R_c-R_w)\|\nabla_zQ_+\|^2$. With draw semantics"
    r" $\mathbb{E}[dQ_+]/\eta=\sum_i\pi_iR_iv_i$ at every $N$, and $\frac{N-1}N\sum_i\pi_i(R_i-\mathbb{E}R)v_i$ with the"
    r" batch-mean baseline.",
    where="derived",
    origin="derived",
)


@C6.check(
    Identity(1e-12),
    Space(logits=Normals("A", scale=1.5), correct=Masks(), r_pos=Floats(0, 2), r_neg=Floats(-2, 0), A=Sizes(2, 12)),
)
def full_information_is_the_policy_gradient(logits, correct, r_pos, r_neg):
    log_pi = log_normalize(logits)
    bracket = one_step(log_pi, correct, np.ones_like(correct), 1, r_pos, r_neg).bracket
    slope = population_gradient(log_pi, correct.astype(float))
    return bracket, (np.asarray(r_pos) - r_neg) * np.sum(slope**2, axis=-1), 1.0


C6_SPACE = Space(logits=Normals(3, scale=1.5), correct=Masks(3), n=Choice(1, 2, 3, 4))


@C6.check(Identity(1e-12), C6_SPACE, batched=False, instances=40)
def draw_semantics_by_enumeration(logits, correct, n):
    log_pi = log_normalize(logits)
    pi, reward = np.exp(log_pi), np.where(correct, 1.0, -1.0)
    slope = population_gradient(log_pi, correct.astype(float))
    plain = centred = 0.0
    for draw in itertools.product(range(3), repeat=int(n)):
        counts = np.bincount(draw, minlength=3)
        weight = float(np.prod(pi[list(draw)]))
        plain += weight * float(slope @ counts_surrogate_gradient(log_pi, counts, reward))
        centred += weight * float(slope @ counts_surrogate_gradient(log_pi, counts, centre(reward, counts)))
    return {
        "no baseline": (plain, float(expected_draw_step(log_pi, correct, n)), 1.0),
        "batch mean": (centred, float(expected_draw_step(log_pi, correct, n, centred=True)), 1.0),
    }


@draw_semantics_by_enumeration.control("the batch mean acts like a constant baseline E R")
def constant_baseline(logits, correct, n):
    log_pi = log_normalize(logits)
    limit = float(expected_draw_step(log_pi, correct, 10**9, centred=True))
    return {"batch mean": (float(expected_draw_step(log_pi, correct, n, centred=True)), limit, 1.0)}


C6_printed = paper.claim(
    "C6-printed",
    "A larger N enlarges the expected gain",
    statement=r"$\mathbb{E}[\text{bracket}](N)$, and $\mathbb{E}[dQ_+]$ at fixed $\eta$, are non-decreasing in $N$.",
    where="Sec. 2, implication (iii)",
    expect="refuted",
    correction=r"The bracket can fall with $N$, and with the set surrogate's prefactor $\eta/N$ the step's"
    r" $\mathbb{E}[dQ_+]=\Theta(1/N)$; with draws it does not depend on $N$ (C6).",
)
C6_POLICY = heavy_token_policy(200, 4000, heavy=0.4, rare_mass=0.2)


@C6_printed.check(Inequality(1e-12), Space(n=Choice(10, 100, 1000)), instances=20)
def bracket_grows(n):
    value = {k: expected_one_step(*C6_POLICY, k * np.asarray(n), 1.0, 0.0) for k in (1, 10)}
    return {"bracket": (value[1], value[10]), "step": (value[1] / n, value[10] / (10 * np.asarray(n)))}


@bracket_grows.control("from N = 1 to N = 10 the bracket does grow", examples=[{}])
def bracket_grows_at_first():
    return {
        "bracket": (
            float(expected_one_step(*C6_POLICY, 1, 1.0, 0.0)),
            float(expected_one_step(*C6_POLICY, 10, 1.0, 0.0)),
        )
    }


C6_proof = paper.claim(
    "C6-unbiased",
    "The linear surrogate is an unbiased estimator of the RL objective",
    statement=r"With draws from $\pi$, $\mathbb{E}[\frac1N\sum_jR_{i_j}\pi_{i_j}]=\sum_iR_i\pi_i$.",
    where="proof text of Theorem 1",
    expect="refuted",
    correction=r"Its expectation is $\sum_iR_i\pi_i^2$; the unbiased surrogate divides by the behaviour probability.",
)


def _surrogate_mean(logits, correct, power):
    pi, reward = np.exp(log_normalize(logits)), np.where(correct, 1.0, -1.0)
    pair = list(itertools.product(range(logits.size), repeat=2))
    mean = sum(pi[i] * pi[j] * (reward[i] * pi[i] ** power + reward[j] * pi[j] ** power) / 2 for i, j in pair)
    return mean, float(reward @ pi), 1.0


@C6_proof.check(Identity(1e-10), Space(logits=Normals(4), correct=Masks(4)), batched=False, instances=20)
def surrogate_is_unbiased(logits, correct):
    return _surrogate_mean(logits, correct, 1)


@surrogate_is_unbiased.control("divided by the behaviour probability it is")
def importance_weighted(logits, correct):
    return _surrogate_mean(logits, correct, 0)


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim(
    "C7",
    "Link to pass@k",
    statement=r"pass@$k=1-(1-Q_+)^k$ increases with $Q_+$; a pointwise increase raises the mean, and by Jensen"
    r" $\mathbb{E}$ pass@$k\le$ pass@$k$ at the mean $Q_+$.",
    where="Sec. 2",
)


@C7.check(Inequality(1e-12), Space(q=Floats(0.0, 1.0), more=Floats(0.0, 1.0), k=Integers(1, 512, log=True)))
def pass_at_k_is_monotone_and_concave(q, more, k):
    higher = q + (1 - q) * more
    mean = (pass_at_k_exact(q, k) + pass_at_k_exact(higher, k)) / 2
    return {
        "monotone": (pass_at_k_exact(q, k), pass_at_k_exact(higher, k), 1.0),
        "Jensen": (mean, pass_at_k_exact((q + higher) / 2, k), 1.0),
    }


@pass_at_k_is_monotone_and_concave.control("a higher mean Q raises the mean pass@32", examples=[{}])
def mean_is_enough():
    before, after = (np.mean(pass_at_k_exact(np.array(q), 32)) for q in ((0.5, 0.05), (0.9, 0.01)))
    return {"monotone": (before, after, 1.0)}


# C8, C10: the token simulator ----------------------------------------------------------------------
STEPS = 200


def final_run(rng, rollouts, **settings):
    """``(change of Q+, share of improved correct tokens, worst drop)`` of one small run of the simulator."""
    config = SimulatorConfig(rollouts=rollouts, seed=int(rng.integers(2**31)), **settings)
    start = np.exp(log_normalize(config.initial_logits()))[: config.correct].sum()
    run = simulate_tokens(config, STEPS)
    return run.correct_mass[-1] - start, run.improved[-1], run.worst_drop[-1]


C8 = paper.claim(
    "C8",
    "Simulator: under AdamW large N raises every correct token, very small N loses correct mass",
    statement=r"Final $\Delta Q_+$ increases with $N$ and is negative at $N=2$; at $N=25600$ more than 99% of the correct tokens"
    r" improved and the worst drop is below a quarter of that at $N=8$ (about 2% on average).",
    where="Sec. 4.1, Fig. 3 (small scale: 12,800 tokens, 1,000 correct, 200 steps)",
    assumptions="AdamW with epsilon 1e-8, nearly equal initial probabilities of the correct tokens.",
)


@C8.check(Effect(seeds=8), batched=False)
def more_rollouts_help(rng):
    seed = int(rng.integers(2**31))
    two, eight, many, most = (final_run(np.random.default_rng(seed), n) for n in (2, 8, 256, 25600))
    return {
        "N=2 loses mass": -two[0],
        "N=8 above N=2": eight[0] - two[0],
        "N=256 above N=8": many[0] - eight[0],
        "N=25600 above N=256": most[0] - many[0],
        "improved at N=25600 above 99%": most[1] - 0.99,
        "worst drop below a quarter of N=8's": most[2] - 0.25 * eight[2],
    }


@more_rollouts_help.control("the same at N = 25600 with SGD and one heavy correct token: correct tokens improve")
def sgd_with_anchor(rng):
    change, improved, _ = final_run(rng, 25600, optimiser="sgd", lr=4000.0, anchor_logit=5.0)
    return {"improved at N=25600 above 99%": improved - 0.99, "mass": change}


C8_printed = paper.claim(
    "C8-printed",
    "A large N alone eliminates knowledge shrinkage",
    statement=r"With $N=25600$ rollouts a step, (almost) every correct token gains probability.",
    where="Sec. 4.1, conclusion from Fig. 3",
    expect="refuted",
    correction=r"It takes AdamW's per-coordinate normalisation or nearly equal correct tokens: with plain SGD and one heavier correct"
    r" token $Q_+$ rises by 0.37 while under 1% of the correct tokens gain.",
)


@C8_printed.check(Effect(seeds=5, null=0.5), batched=False)
def almost_all_gain_with_sgd(rng):
    return final_run(rng, 25600, optimiser="sgd", lr=4000.0, anchor_logit=5.0)[1]


@almost_all_gain_with_sgd.control("without the heavier token they do")
def almost_all_gain_without_anchor(rng):
    return final_run(rng, 25600, optimiser="sgd", lr=4000.0)[1]


C9 = paper.claim(
    "C9",
    "Square-root learning-rate rule",
    statement=r"$\eta_{new}=\eta_0\sqrt{B_{new}/B_0}$ keeps the total variance of the mean-of-$N$ gradient step independent of $N$; linear"
    r" scaling multiplies it by $N/N_0$.",
    where="Sec. 4.2.1 (the variance reading is derived)",
)


def _step_variance(rng, exponent):
    """Log ratio of the total variance of the step at N = 256 to N = 16, from 3000 batches each."""
    log_pi = log_normalize(rng.standard_normal(30))
    reward = np.where(rng.random(30) < 0.5, 1.0, -1.0)
    out = []
    for n in (16, 256):
        lr = 0.05 * (n / 16) ** exponent
        counts = rng.multinomial(n, np.exp(log_pi), size=3000)
        pi, weighted = np.exp(log_pi), counts * reward
        steps = lr * (weighted - pi * weighted.sum(axis=1, keepdims=True)) / n
        out.append(steps.var(axis=0).sum())
    return math.log(out[1] / out[0])


@C9.check(Effect(seeds=20, alternative="within", margin=0.05), batched=False)
def variance_is_kept(rng):
    return _step_variance(rng, 0.5)


@variance_is_kept.control("linear scaling keeps it too")
def linear_scaling(rng):
    return _step_variance(rng, 1.0)


C10 = paper.claim(
    "C10",
    "The decline at small N is an effect of Adam's epsilon",
    statement=r"SGD raises $Q_+$ at $N=2$, in proportion $\frac{N-1}N$ to the limit; AdamW with $\epsilon=10^{-14}$ raises it at $N=2$ and"
    r" $8$; AdamW with $\epsilon=10^{-8}$ lowers it at $N=2$.",
    where="derived; refers to Fig. 3 (left)",
    origin="derived",
)


@C10.check(Effect(seeds=10), batched=False)
def who_loses_mass_at_small_n(rng):
    seed = int(rng.integers(2**31))

    def change(n, **settings):
        return final_run(np.random.default_rng(seed), n, **settings)[0]

    return {
        "SGD gains at N=2": change(2, optimiser="sgd", lr=50.0),
        "AdamW(1e-14) gains at N=2": change(2, epsilon=1e-14),
        "AdamW(1e-14) gains at N=8": change(8, epsilon=1e-14),
        "AdamW(1e-8) loses at N=2": -change(2),
    }


@who_loses_mass_at_small_n.control("AdamW(1e-8) gains at N = 2")
def adam_gains(rng):
    return {"AdamW(1e-8) gains at N=2": final_run(rng, 2)[0]}


@C10.check(Effect(seeds=60, alternative="within", null=1.0, margin=0.1), batched=False)
def sgd_follows_the_baseline_factor(rng):
    """dQ at N=2 over (1/2) of the first-order limit T lr sum pi (R - E R) v."""
    config = SimulatorConfig(optimiser="sgd", lr=50.0)
    log_pi, correct = log_normalize(config.initial_logits()), np.arange(config.tokens) < config.correct
    limit = STEPS * config.lr * float(expected_draw_step(log_pi, correct, 10**9, centred=True))
    return final_run(rng, 2, optimiser="sgd", lr=50.0)[0] / (0.5 * limit)


C10_printed = paper.claim(
    "C10-printed",
    "At small N the mass balance makes the simulator lose correct mass",
    statement=r"The decline of $Q_+$ at small $N$ in Fig. 3 follows from Theorem 1, whatever the optimiser.",
    where="Sec. 4.1, Fig. 3 (left)",
    expect="refuted",
    correction=r"With SGD, or AdamW with $\epsilon=10^{-14}$, $Q_+$ rises at $N=2$; the default $\epsilon=10^{-8}$ damps the many small"
    r" gradients of incorrect tokens and not those of unsampled correct ones.",
)


@C10_printed.check(Effect(seeds=10, alternative="less"), batched=False)
def sgd_loses_mass(rng):
    return final_run(rng, 2, optimiser="sgd", lr=50.0)[0]


@sgd_loses_mass.control("AdamW with epsilon 1e-8 does")
def adam_loses_mass(rng):
    return final_run(rng, 2)[0]


# C11 -----------------------------------------------------------------------------------------------
C11 = paper.claim(
    "C11",
    "The coupling term is absent from the centred score-function step",
    statement=r"$dz_j=\frac\eta N(c_j(R_j-b)-\pi_jT)$, $T=\sum_ic_i(R_i-b)$, gives"
    r" $dQ_+=\frac\eta N[Q_-(R_c-b)\sum_Ac_i\pi_i+Q_+(b-R_w)\sum_Bc_i\pi_i-TD]$. With the group mean $T=0$: unsampled logits do"
    r" not move and $dQ_+\ge0$ for every batch; in expectation it is $\frac{N-1}N\eta(R_c-R_w)\|\nabla Q_+\|^2$.",
    where="derived",
    origin="derived",
    assumptions="One softmax position through which all N rollouts pass.",
)
C11_SPACE = Space(logits=Normals(12, scale=1.5), correct=Masks(12), counts=Normals(12, scale=3.0), b=Floats(-2, 2))


def _counts(raw):
    """Draw counts 0..9 with at least one draw."""
    counts = np.minimum(np.abs(np.rint(raw)), 9).astype(np.int64)
    return np.where(counts.sum(axis=-1, keepdims=True) == 0, 1, counts)


@C11.check(Identity(1e-8), C11_SPACE, instances=3000)
def change_of_correct_mass(logits, correct, counts, b):
    log_pi, c = log_normalize(logits), _counts(counts)
    pi, n = np.exp(log_pi), c.sum(axis=-1)
    d_logits, d_mass = score_function_step(log_pi, correct, c, 1.0, -0.6, baseline=b)
    q = _correct_mass(logits, correct)
    gap = (1 - q) * _second_moments(pi, correct) - q * _second_moments(pi, ~correct)
    t = np.sum(c * (np.where(correct, 1.0, -0.6) - np.asarray(b)[..., None]), axis=-1)
    first = (1 - q) * (1 - b) * np.sum(np.where(correct, c * pi, 0.0), axis=-1)
    second = q * (b + 0.6) * np.sum(np.where(correct, 0.0, c * pi), axis=-1)
    return {
        "formula": (d_mass, (first + second - t * gap) / n, 1.0),
        "finite differences": (d_mass, _directional(logits, correct, d_logits), 1.0),
    }


@C11.check(Inequality(1e-12), C11_SPACE, instances=3000)
def centred_batches_never_lose(logits, correct, counts, b):
    log_pi, c = log_normalize(logits), _counts(counts)
    d_logits, d_mass = score_function_step(log_pi, correct, c, 1.0, -0.6)
    moved = np.max(np.where(c == 0, np.abs(d_logits), 0.0), axis=-1)
    return {"mass": (0 * d_mass, d_mass, 1.0), "unsampled logits": (moved, 0 * moved, 1.0)}


@centred_batches_never_lose.control("nor does any correct token lose probability")
def correct_tokens_never_lose(logits, correct, counts, b):
    log_pi, c = log_normalize(logits), _counts(counts)
    d_logits, _ = score_function_step(log_pi, correct, c, 1.0, -0.6)
    change = d_logits - np.sum(np.exp(log_pi) * d_logits, axis=-1, keepdims=True)
    lowest = np.min(np.where(correct, change, np.inf), axis=-1)
    return {"tokens": (0 * lowest, lowest, 1.0)}


@centred_batches_never_lose.control("without centring (b = 0)")
def uncentred_batches(logits, correct, counts, b):
    log_pi, c = log_normalize(logits), _counts(counts)
    _, d_mass = score_function_step(log_pi, correct, c, 1.0, -0.6, baseline=0.0)
    return {"mass": (0 * d_mass, d_mass, 1.0)}


@centred_batches_never_lose.control("the centred linear surrogate of the simulator", examples=[{}])
def centred_surrogate():
    log_pi, correct = SMALL
    counts = np.zeros(correct.size)
    counts[[1, -1]] = 1  # one rare correct token and one incorrect token
    step = counts_surrogate_gradient(log_pi, counts, centre(np.where(correct, 1.0, -1.0), counts))
    slope = population_gradient(log_pi, correct.astype(float))
    return {"mass": (0.0, float(slope @ step), 1.0)}


@C11.check(Identity(1e-12), Space(logits=Normals(3, scale=1.5), correct=Masks(3), n=Choice(1, 2, 3)), batched=False,
           instances=40)  # fmt: skip
def expected_change(logits, correct, n):
    log_pi = log_normalize(logits)
    pi, total = np.exp(log_pi), 0.0
    for draw in itertools.product(range(3), repeat=int(n)):
        counts = np.bincount(draw, minlength=3)
        total += float(np.prod(pi[list(draw)])) * float(score_function_step(log_pi, correct, counts, 1.0, -0.6)[1])
    slope = population_gradient(log_pi, correct.astype(float))
    return total, (n - 1) / n * 1.6 * float(slope @ slope), 1.0


C11_deeper = paper.claim(
    "C11-sequences",
    "The same holds at every position of a sequence",
    statement=r"With the group mean, no batch of rollouts lowers the success probability of a token tree to first order.",
    where="not claimed; the obvious extension of C11",
    origin="derived",
    expect="refuted",
    correction=r"It holds at positions through which all rollouts pass. At a deeper prefix the advantages of the rollouts through it do"
    r" not sum to 0, unsampled logits move, and a centred batch can lower the success probability; the expectation is"
    r" unaffected.",
)
ROOT, CHILDREN = np.array([0.95, 0.05]), np.array([[0.7, 0.02, 0.28], [0.2, 0.3, 0.5]])
LEAF_REWARD = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def sequence_changes(n=2):
    """``dQ/lr`` of every batch of ``n`` leaves of the two-level tree, group mean; and what unsampled root logits do."""
    law = (ROOT[:, None] * CHILDREN).ravel()
    scores = []
    for leaf in range(6):
        i, j = divmod(leaf, 3)
        g = np.zeros(8)
        g[:2] = (np.arange(2) == i) - ROOT
        g[2 + 3 * i : 5 + 3 * i] = (np.arange(3) == j) - CHILDREN[i]
        scores.append(g)
    scores = np.array(scores)
    slope = (law * LEAF_REWARD) @ scores
    batches = np.array(list(itertools.product(range(6), repeat=n)))
    advantage = LEAF_REWARD[batches] - LEAF_REWARD[batches].mean(axis=1, keepdims=True)
    return np.einsum("bi,bif->bf", advantage, scores[batches]) @ slope / n, law[batches].prod(axis=1), slope


@C11_deeper.check(Inequality(1e-12))
def no_batch_lowers_success():
    changes, _, _ = sequence_changes()
    return np.zeros_like(changes), changes, 1.0


@no_batch_lowers_success.control("in expectation it does not")
def expectation_over_batches():
    changes, weights, slope = sequence_changes()
    return -float(weights @ changes) + 0.5 * float(slope @ slope), 1e-15, 1.0


# C12 -----------------------------------------------------------------------------------------------
C12 = paper.claim(
    "C12",
    "Dynamic sampling keeps more prompts at large N",
    statement=r"With pass rates $p\sim\mathrm{Beta}(a,b)$ the kept fraction is"
    r" $1-\frac{B(a+N,b)}{B(a,b)}-\frac{B(a,b+N)}{B(a,b)}$, increasing in $N$; fitted to 41% at $N=16$ it predicts 66-68% at"
    r" $N=512$ against 62% reported.",
    where="Table 2 (formula derived)",
)


@C12.check(Inequality(1e-12), Space(a=Choice(0.3, 1.0, 2.0), b=Choice(0.5, 1.0), n=Choice(2, 16, 512), seed=Seeds()),
           batched=False, instances=10)  # fmt: skip
def formula_by_monte_carlo(a, b, n, seed):
    """|z| of 4·10^5 pass rates below 5."""
    p = np.random.default_rng(seed).beta(a, b, 400_000)
    kept = 1 - p**n - (1 - p) ** n
    return abs(kept.mean() - float(kept_fraction(a, b, n))) / (kept.std() / math.sqrt(p.size)), 5.0


@C12.check(Inequality(1e-12), Space(a=Floats(0.1, 5.0), b=Floats(0.1, 5.0), n=Integers(1, 200)))
def kept_fraction_increases(a, b, n):
    return kept_fraction(a, b, n), kept_fraction(a, b, n + 1), 1.0


@kept_fraction_increases.control("it grows by at least 5% from N to N + 1, also for prompts near p = 1/2", space=Space(
    a=Choice(50.0), b=Choice(50.0), n=Integers(16, 200)))  # fmt: skip
def grows_everywhere(a, b, n):
    return 1.05 * kept_fraction(a, b, n), kept_fraction(a, b, n + 1), 1.0


@C12.check(Inequality(1e-12), Space(ratio=Choice(1.0, 2.0, 5.0)), batched=False, instances=6)
def prediction_for_table_2(ratio):
    b = brentq(lambda x: float(kept_fraction(ratio * x, x, 16)) - 0.41, 1e-3, 10.0)
    predicted = float(kept_fraction(ratio * b, b, 512))
    return {"at least .66": (0.66, predicted), "at most .69": (predicted, 0.69)}
