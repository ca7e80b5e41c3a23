"""R: more regularisers; V: coverage and samples."""

from __future__ import annotations

import numpy as np
from scipy.special import lambertw

from klsim.best_of_n import log_policy
from klsim.claims import Identity, Inequality, Optimality
from klsim.distributions import expectation, log_normalize
from klsim.divergences import GENERATORS, chi2, kl, tv
from klsim.estimator_moments import draws
from klsim.optima import f_regularized, kl_constrained, kl_regularized
from klsim.problems.token_tree import node_kl, sequence_log_probs, visit_log_probs
from klsim.spaces import Floats, Integers, Normals, Policies, Rewards, Sizes, Space, TreePolicies

from .collection import paper

KL, CHI2, FORWARD = (GENERATORS[name] for name in ("kl", "chi2", "forward_kl"))
LAW = Normals("A").map(log_normalize)
PROBLEM = {"log_ref": Policies(), "reward": Rewards(), "beta": Floats(0.02, 20.0, log=True)}
WEIGHT = {"weight": Floats(0.02, 10.0, log=True)}


# R1 ------------------------------------------------------------------------------------------------
R1 = paper.claim("R1", r"""
    The optimum under KL + c χ², in closed form up to one constant

    $\pi/\pi_{ref}=W\big(2c\,e^{(r-\lambda)/\beta+2c}\big)/2c$ with Lambert's W and $\lambda$ such that $\pi$ adds up to 1: no policy does
    better. With $c\to0$ it is the tilt.

    where: χPO (arXiv 2407.13399), link function, with $D_{\chi^2}=E_{ref}[(t-1)^2]$
    """)  # fmt: skip


@R1.check(
    Identity(1e-8),
    Space(**PROBLEM, **WEIGHT),
    instances=60,
    batched=False,
    false={"without the 2 c in the exponent": {"shift": 0.0}},
)
def lambert(log_ref, reward, beta, weight, *, shift=2.0):
    """``W / log`` of both sides differ by one constant, that of the normalisation."""
    ratio = np.exp(
        f_regularized(log_ref, reward, beta, KL + weight * CHI2).log_policy
        - np.where(np.isfinite(log_ref), log_ref, 0.0)
    )
    inside = np.isfinite(log_ref) & (ratio > 1e-12)
    first = int(np.flatnonzero(inside)[np.argmax(reward[inside])])
    level = np.log(ratio[first]) + 2 * weight * (ratio[first] - 1) + (2 - shift) * weight * ratio[first]
    y = level + (reward - reward[first]) / beta
    with np.errstate(over="ignore"):
        wanted = lambertw(2 * weight * np.exp(np.minimum(y + 2 * weight, 600))).real / (2 * weight)
    return np.where(inside, ratio, 1.0), np.where(inside, wanted, 1.0)


@R1.check(Optimality(1e-11, scale=1), Space(**PROBLEM, **WEIGHT, move=Normals("A"), size=Floats(1e-3, 2.0, log=True)), instances=100, batched=False,
          false={"that of half of the chi2": {"share": 0.5}})  # fmt: skip
def no_policy_does_better(log_ref, reward, beta, weight, move, size, *, share=1.0):
    best = f_regularized(log_ref, reward, beta, KL + share * weight * CHI2).log_policy
    other = log_normalize(best + size * move)
    penalty = [kl(p, log_ref) + weight * chi2(p, log_ref) for p in (best, other)]
    values = [expectation(p, reward) - beta * d for p, d in zip((best, other), penalty)]
    return values[0], values[1], np.abs(reward).max() + beta * penalty[1]


# R2 ------------------------------------------------------------------------------------------------
R2 = paper.claim("R2", r"""
    With χ² in the regulariser no probability ratio grows faster than the reward: at most $1+\Delta/2c\beta$

    $\pi(y)/\pi_{ref}(y)\le1+\frac{r_{max}-r_{min}}{2c\beta}$, where the tilt's grows exponentially.

    where: χPO (arXiv 2407.13399), the reason for χ²; constant derived
    """)  # fmt: skip


@R2.check(
    Inequality(1e-9),
    Space(**PROBLEM, **WEIGHT),
    instances=200,
    batched=False,
    false={"of the tilt": {"weight_of": lambda w: 1e-9}},
)
def linear_in_the_reward(log_ref, reward, beta, weight, *, weight_of=lambda w: w):
    found = f_regularized(log_ref, reward, beta, KL + weight_of(weight) * CHI2).log_policy
    inside = np.isfinite(log_ref)
    return np.exp((found - np.where(inside, log_ref, 0.0))[inside].max()), 1 + np.ptp(reward[inside]) / (
        2 * weight * beta
    )


# R3 ------------------------------------------------------------------------------------------------
R3 = paper.claim("R3", r"""
    KL + forward KL keeps every response: its probability falls at most like 1/r

    With $c$ of the forward KL $\pi(y)/\pi_{ref}(y)\ge\frac{c\beta}{c\beta+\Delta}$ for $\Delta=r_{max}-r_{min}$, where the tilt's falls exponentially.

    where: derived
    """)  # fmt: skip


@R3.check(
    Inequality(1e-9),
    Space(**PROBLEM, **WEIGHT),
    instances=200,
    batched=False,
    false={"of the tilt": {"weight_of": lambda w: 1e-9}},
)
def keeps_every_response(log_ref, reward, beta, weight, *, weight_of=lambda w: w):
    found = f_regularized(log_ref, reward, beta, KL + weight_of(weight) * FORWARD).log_policy
    inside = np.isfinite(log_ref)
    spread = np.ptp(reward[inside])
    return weight * beta / (weight * beta + spread), np.exp((found - np.where(inside, log_ref, 0.0))[inside].min())


# R4 ------------------------------------------------------------------------------------------------
R4 = paper.claim("R4", r"""
    A divergence of sequences is the sum of its token divergences over visited prefixes

    $D_f(\pi\Vert\pi_{ref})=\sum_tE_\pi[D_f(\pi(\cdot|s_t)\Vert\pi_{ref}(\cdot|s_t))]$.

    where: as commonly done for any f
    instead: That is the chain rule of KL, and of KL alone: χ² of sequences is a product, and TV less than the sum.
    by: R4-products
    origin: as commonly read
    """)  # fmt: skip
TREES = {"levels": TreePolicies(), "other": TreePolicies(), "V": Sizes(2, 3), "H": Sizes(2, 3)}
FAMILIES = {"chi2": chi2, "kl": kl, "tv": tv}


def over_tokens(levels, other, divergence):
    """Sum over prefixes of their probability times the divergence of the next token."""
    total = 0.0
    for visits, level, reference in zip(visit_log_probs(levels), levels, other):
        total += np.exp(visits) @ divergence(level, reference)
    return float(total)


@R4.check(Identity(1e-9, scale=1), Space(**TREES), instances=30, batched=False, true={"KL": {"name": "kl"}})
def sum_over_tokens(levels, other, *, name="chi2"):
    return FAMILIES[name](sequence_log_probs(levels), sequence_log_probs(other)), over_tokens(
        levels, other, FAMILIES[name]
    )


R4_products = paper.claim("R4-products", r"""
    What holds for sequences: KL adds, $1+\chi^2$ is a product along prefixes, TV is at most the sum

    $1+\chi^2=E_{ref}\prod_t(\pi_t/\pi_{ref,t})^2$, so the recursion $C(s)=\sum_a\frac{\pi(a|s)^2}{\pi_{ref}(a|s)}C(sa)$ gives it;
    $TV\le\sum_tE_\pi[TV_t]$.

    where: chain rules; folklore
    """)  # fmt: skip


@R4_products.check(
    Identity(1e-10), Space(**TREES), instances=30, batched=False, false={"without the square": {"power": 1}}
)
def chi2_recursion(levels, other, *, power=2):
    after = np.ones(levels[-1].size)
    for level, reference in zip(levels[::-1], other[::-1]):
        after = np.sum(np.exp(power * level - (power - 1) * reference) * after.reshape(level.shape), axis=-1)
    return 1 + chi2(sequence_log_probs(levels), sequence_log_probs(other)), after[0]


@R4_products.check(
    Inequality(1e-12, scale=1), Space(**TREES), instances=30, batched=False, false={"half of the sum": {"share": 0.5}}
)
def tv_is_at_most_the_sum(levels, other, *, share=1.0):
    return tv(sequence_log_probs(levels), sequence_log_probs(other)), share * over_tokens(levels, other, tv)


@R4_products.check(
    Identity(1e-10, scale=1),
    Space(**TREES),
    instances=30,
    batched=False,
    false={"visits of the reference": {"swap": True}},
)
def kl_adds(levels, other, *, swap=False):
    nodes = node_kl(levels, other)
    visits = visit_log_probs(other if swap else levels)
    return kl(sequence_log_probs(levels), sequence_log_probs(other)), sum(np.exp(v) @ d for v, d in zip(visits, nodes))


# R5 ------------------------------------------------------------------------------------------------
R5 = paper.claim("R5", r"""
    A KL budget is best spent in equal parts on every prompt

    With a mean KL of $\kappa$ over prompts, giving each prompt $\kappa$ has the highest mean reward.

    where: as commonly done (one target KL)
    instead: Equal multipliers, not equal budgets: one $\beta$ for all prompts. Prompts with wider rewards get more, by the square of the width for
    small budgets.
    by: R5-multipliers
    origin: as commonly read
    """)  # fmt: skip
PROMPTS = {
    "log_ref": Normals("P", "A").map(log_normalize),
    "reward": Normals("P", "A"),
    "P": Sizes(2, 5),
    "A": Sizes(2, 6),
}


def at_one_beta(log_ref, reward, beta):
    """Mean reward and mean KL of the tilts by one beta."""
    found = kl_regularized(log_ref, reward, beta)
    return found.reward.mean(), found.kl.mean()


@R5.check(
    Inequality(1e-9, scale=1),
    Space(**PROMPTS, beta=Floats(0.2, 5.0)),
    instances=60,
    batched=False,
    true={"one prompt, many times": {"alike": True}},
)
def equal_budgets_are_best(log_ref, reward, beta, *, alike=False):
    if alike:
        log_ref, reward = (np.repeat(x[:1], len(x), axis=0) for x in (log_ref, reward))
    shared, budget = at_one_beta(log_ref, reward, beta)
    return shared, kl_constrained(log_ref, reward, np.full(len(reward), budget)).reward.mean()


R5_multipliers = paper.claim("R5-multipliers", r"""
    One $\beta$ for all prompts has the highest mean reward at its mean KL

    For any other split of the same total budget the mean of the constrained optima is no higher.

    where: Lagrange; folklore
    """)  # fmt: skip


@R5_multipliers.check(Inequality(1e-8, scale=1), Space(**PROMPTS, beta=Floats(0.2, 5.0), split=Normals("P")), instances=60, batched=False,
                      false={"at 1.2 times the budget": {"more": 1.2}})  # fmt: skip
def no_split_is_better(log_ref, reward, beta, split, *, more=1.0):
    shared, budget = at_one_beta(log_ref, reward, beta)
    shares = np.exp(split) / np.exp(split).sum()
    return kl_constrained(log_ref, reward, more * budget * len(split) * shares).reward.mean(), shared


# V1 ------------------------------------------------------------------------------------------------
V1 = paper.claim("V1", r"""
    Best-of-n is as good as any policy that the reference covers, but for $(1-1/C)^n$

    For rewards in [0, 1] and any $\pi^*$ with $\pi^*/\pi_{ref}\le C$: $E_{\pi^*}[r]-E_{bon}[r]\le(1-1/C)^n$, as best-of-n is at least as good as
    rejection sampling of $\pi^*$, whose law after n draws differs from it by that much.

    where: rejection sampling; Block and Polyanskiy (arXiv 2302.12152) for the rate
    """)  # fmt: skip
COVERED = {
    "log_ref": LAW,
    "target": Normals("A", scale=2.0),
    "reward": Normals("A"),
    "n": Integers(1, 40),
    "A": Sizes(2, 6),
}


def cover(log_ref, target):
    """A policy and its largest ratio to the reference."""
    law = log_normalize(log_ref + target)
    return law, float(np.exp((law - log_ref).max()))


@V1.check(
    Inequality(1e-12),
    Space(**COVERED),
    instances=300,
    batched=False,
    false={"with n + 4 draws": {"more": 4}, "for half the coverage": {"factor": 0.5}},
)
def regret_of_best_of_n(log_ref, target, reward, n, *, more=0, factor=1.0):
    law, coverage = cover(log_ref, target)
    scaled = (reward - reward.min()) / max(np.ptp(reward), 1e-300)
    miss = max(1 - 1 / max(factor * coverage, 1.0), 0.0) ** (n + more)
    return expectation(law, scaled) - expectation(log_policy(log_ref, scaled, n), scaled), miss


@V1.check(
    Identity(1e-11, scale=1),
    Space(**COVERED | {"n": Integers(1, 4), "A": Sizes(2, 4)}),
    instances=40,
    batched=False,
    false={"one draw less": {"less": 1}},
)
def law_of_rejection_sampling(log_ref, target, reward, n, *, less=0):
    """Draws accepted with ``ratio/C``; by enumeration of the draws. None is accepted with probability ``(1-1/C)^n``."""
    law, coverage = cover(log_ref, target)
    accept = np.exp(law - log_ref) / coverage
    outcomes, probability = draws(log_ref, n)
    before = np.cumprod(np.concatenate([np.ones((len(outcomes), 1)), 1 - accept[outcomes]], axis=1), axis=1)
    taken = before[:, :-1] * accept[outcomes]
    found = np.array([probability @ (taken * (outcomes == a)).sum(axis=1) for a in range(len(law))])
    return found, np.exp(law) * (1 - (1 - 1 / coverage) ** (n - less))


# V2 ------------------------------------------------------------------------------------------------
V2 = paper.claim("V2", r"""
    The KL to the reference bounds what best-of-n needs: $e^{\mathrm{KL}}$ samples reach any policy

    With $n=4e^{\mathrm{KL}(\pi^*\Vert\pi_{ref})}$ best-of-n is within .1 of $E_{\pi^*}[r]$, rewards in [0, 1].

    where: as commonly read ("log n nats")
    instead: The KL is a mean of log-ratios; mass .3 with a ratio of a thousand costs 1.7 nats and needs a thousand samples. The largest ratio decides
    (V1), or a quantile of it.
    by: V1
    origin: as commonly read
    """)  # fmt: skip


@V2.check(Inequality(1e-9), Space(share=Floats(0.05, 0.6), rare=Floats(1e-8, 1e-2, log=True)), instances=60, batched=False,
          true={"with the largest ratio instead of exp(KL)": {"largest": True}})  # fmt: skip
def exp_kl_samples(share, rare, *, largest=False):
    """Reward 1 on a rare response to which the policy gives this share."""
    law, log_ref = np.log([1 - share, share]), np.log([1 - rare, rare])
    ratio = np.exp((law - log_ref).max()) if largest else np.exp(kl(law, log_ref))
    return share - 0.1, 1 - (1 - rare) ** (4 * ratio)
