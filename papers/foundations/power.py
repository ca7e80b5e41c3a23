"""T: powers of a sequence law and temperature."""

from __future__ import annotations

import numpy as np

from klsim.claims import Identity, Inequality, Limit
from klsim.distributions import entropy, expectation, log_normalize, variance
from klsim.power import future_sums, power_levels, suffix_chain, temper_levels
from klsim.problems.token_tree import sequence_log_probs
from klsim.selection_rules import soft_best_of_n
from klsim.spaces import Floats, Integers, Policies, Rewards, Sizes, Space, TreePolicies

from .collection import paper

TREES = {"levels": TreePolicies(), "alpha": Floats(0.1, 8.0, log=True), "V": Sizes(2, 3), "H": Sizes(1, 3)}


def sequences(levels):
    return np.asarray(sequence_log_probs(levels))


# T1 ------------------------------------------------------------------------------------------------
T1 = paper.claim("T1", r"""
    The power law of sequences, token by token: the tempered token times the alpha-sum of its futures

    $p_\alpha(a|s)=p(a|s)^\alpha S(sa)/S(s)$ with $S(s)=\sum_xp(x|s)^\alpha$ over futures: the tree is $p^\alpha/Z$ over sequences, and
    $Z=S(\emptyset)$.

    where: folklore; used in power sampling (arXiv 2510.14901)
    """)  # fmt: skip


@T1.check(
    Identity(1e-12, scale=1),
    Space(**TREES),
    instances=60,
    batched=False,
    false={"without the futures": {"levels_of": temper_levels}},
)
def law_of_sequences(levels, alpha, *, levels_of=power_levels):
    whole = log_normalize(np.where(np.isfinite(sequences(levels)), alpha * sequences(levels), -np.inf))
    return np.exp(sequences(levels_of(levels, alpha))), np.exp(whole)


@T1.check(
    Identity(1e-11, scale=1),
    Space(**TREES),
    instances=60,
    batched=False,
    false={"of alpha - 1": {"less": 1.0}},
)
def root_sum(levels, alpha, *, less=0.0):
    """Against the Renyi entropy of the sequences, $\\log\\sum p^\\alpha$."""
    whole = sequences(levels)
    return future_sums(levels, alpha)[0][0], np.log(np.sum(np.exp(whole[np.isfinite(whole)]) ** (alpha - less)))


# T2 ------------------------------------------------------------------------------------------------
T2 = paper.claim("T2", r"""
    Sampling at temperature $1/\alpha$ samples $p^\alpha$

    Responses that are drawn token by token at temperature $1/\alpha$ have the law $p^\alpha/Z$ of whole responses.

    where: as commonly read
    instead: Token by token it is $p^\alpha$ only where the futures of all tokens have the same alpha-sum, as with independent tokens. A token
    with one likely future gains under $p^\alpha$, one with many unlikely futures gains under low temperature.
    by: T1
    origin: as commonly read
    """)  # fmt: skip


@T2.check(
    Identity(1e-9, scale=1),
    Space(**TREES),
    instances=30,
    batched=False,
    true={"of independent tokens": {"independent": True}},
)
def low_temperature_is_the_power(levels, alpha, *, independent=False):
    if independent:
        levels = tuple(np.broadcast_to(level[:1], level.shape) for level in levels)
    return np.exp(sequences(temper_levels(levels, alpha))), np.exp(sequences(power_levels(levels, alpha)))


# T3 ------------------------------------------------------------------------------------------------
T3 = paper.claim("T3", r"""
    A lower temperature lowers the entropy of responses

    For $\alpha\ge1$ the entropy of whole responses at temperature $1/\alpha$ is at most that at temperature 1.

    where: as commonly read
    instead: It lowers the entropy of every next token, not that of sequences: the likelier first token may lead to the wider future. The
    entropy of $p^\alpha$ falls: $dH/d\alpha=-\alpha\mathrm{Var}_\alpha(\log p)$.
    by: T3-power
    origin: as commonly read
    """)  # fmt: skip


# the first token is .4 certain and .6 uniform over nine: log 9 when it is cold, .673 + .6 log 9 when it is warm
def wide_future(share=0.6, width=9):
    second = np.full((2, width), -np.inf)
    second[0, 0], second[1] = 0.0, -np.log(width)
    first = np.full((1, width), -np.inf)
    first[0, :2] = np.log([1 - share, share])
    return (first, np.vstack([second, np.full((width - 2, width), -np.log(width))]))


@T3.check(Inequality(1e-9, scale=1), Space(share=Floats(0.5, 0.95), width=Integers(2, 12), alpha=Floats(1.0, 8.0)), instances=60, batched=False,
          true={"the power of the law": {"cool": power_levels}})  # fmt: skip
def entropy_falls(share, width, alpha, *, cool=temper_levels):
    levels = wide_future(share, width)
    return entropy(sequences(cool(levels, alpha))), entropy(sequences(levels))


T3_power = paper.claim("T3-power", r"""
    Along powers the entropy falls and the expected log-likelihood rises

    $\frac{d}{d\alpha}E_\alpha[\log p]=\mathrm{Var}_\alpha(\log p)$ and $\frac{dH}{d\alpha}=-\alpha\mathrm{Var}_\alpha(\log p)$, by differences.

    where: exponential families
    """)  # fmt: skip


# central differences of step 1e-4: errors of 1e-8 times third derivatives, below 1e3 for these laws
@T3_power.check(Identity(1e-5, scale=1), Space(log_p=Policies(), alpha=Floats(0.3, 4.0)), instances=100, batched=False,
                false={"dH/dalpha without alpha": {"times": lambda alpha: 1.0}})  # fmt: skip
def slopes(log_p, alpha, *, times=lambda alpha: alpha, step=1e-4):
    log_p = log_normalize(np.maximum(log_p, -8.0))
    laws = [log_normalize((alpha + d) * log_p) for d in (-step, 0.0, step)]
    spread = variance(laws[1], log_p)
    likelihood = [expectation(law, log_p) for law in laws]
    return {
        "likelihood": ((likelihood[2] - likelihood[0]) / (2 * step), spread),
        "entropy": ((entropy(laws[2]) - entropy(laws[0])) / (2 * step), -times(alpha) * spread),
    }


# T4 ------------------------------------------------------------------------------------------------
T4 = paper.claim("T4", r"""
    Sharpening makes a model more accurate

    The accuracy under $p^\alpha$ rises with $\alpha\ge1$.

    where: folklore of low-temperature and power sampling
    instead: Its slope is $\mathrm{Cov}_\alpha(\mathbb 1[right],\log p)$: it rises where right answers are likelier than wrong ones on average, and
    falls where the model is confidently wrong.
    by: T4-slope
    origin: folklore
    """)  # fmt: skip


def accuracy(log_p, reward, alpha):
    law = log_normalize(alpha * np.maximum(log_p, -8.0))
    return expectation(law, (reward >= np.median(reward)) * 1.0)


@T4.check(Inequality(1e-9, scale=1), Space(log_p=Policies(), reward=Rewards(), alpha=Floats(1.0, 6.0), A=Sizes(2, 8)), instances=60, batched=False,
          true={"where right answers are the likelier ones": {"sort": True}})  # fmt: skip
def more_accurate(log_p, reward, alpha, *, sort=False):
    if sort:
        log_p, reward = np.sort(log_p), np.arange(len(log_p)) * 1.0
    return accuracy(log_p, reward, 1.0), accuracy(log_p, reward, alpha)


T4_slope = paper.claim("T4-slope", r"""
    The slope of accuracy along powers is a covariance

    $\frac{d}{d\alpha}P_\alpha(right)=\mathrm{Cov}_\alpha(\mathbb 1[right],\log p)$.

    where: exponential families
    """)  # fmt: skip


@T4_slope.check(Identity(1e-6, scale=1), Space(log_p=Policies(), reward=Rewards(), alpha=Floats(0.5, 3.0), A=Sizes(2, 8)), instances=60, batched=False,
                false={"times alpha": {"times": lambda alpha: alpha}})  # fmt: skip
def slope_of_accuracy(log_p, reward, alpha, *, times=lambda alpha: 1.0, step=1e-4):
    log_p = np.maximum(log_p, -8.0)
    law, right = log_normalize(alpha * log_p), (reward >= np.median(reward)) * 1.0
    covariance = expectation(law, right * log_p) - expectation(law, right) * expectation(law, log_p)
    return (accuracy(log_p, reward, alpha + step) - accuracy(log_p, reward, alpha - step)) / (2 * step), times(
        alpha
    ) * covariance


# T5 ------------------------------------------------------------------------------------------------
T5 = paper.claim("T5", r"""
    Metropolis-Hastings over suffixes leaves the power law as it is, and reaches it

    A cut at a uniform place, a new suffix from p, accepted with $\min(1,(p(y)/p(x))^{\alpha-1})$: detailed balance with respect to
    $p^\alpha$ and to any other target; the distance after n steps is at most $\frac12\pi_{min}^{-1/2}|\lambda_2|^n$.

    where: arXiv 2510.14901, algorithm; Levin and Peres, Markov Chains and Mixing Times, Eq. 12.13
    """)  # fmt: skip
CHAINED = TREES | {"alpha": Floats(0.3, 6.0, log=True)}


@T5.check(Identity(1e-12, scale=1), Space(**CHAINED), instances=40, batched=False,
          false={"accepted by p(y)^alpha / p(x)^alpha": {"proposal": False}})  # fmt: skip
def detailed_balance(levels, alpha, *, proposal=True):
    target = sequences(power_levels(levels, alpha))
    accepted = (
        target
        if proposal
        else np.where(np.isfinite(target), target + np.where(np.isfinite(target), sequences(levels), 0.0), -np.inf)
    )
    flow = np.exp(target)[:, None] * suffix_chain(levels, accepted)
    return flow, flow.T


@T5.check(Inequality(1e-12, scale=1), Space(**CHAINED, steps=Integers(1, 40)), instances=40, batched=False, false={"at twice the rate": {"rate": 2.0}})  # fmt: skip
def mixing(levels, alpha, steps, *, rate=1.0):
    """Total variation from the worst start."""
    law = np.exp(sequences(power_levels(levels, alpha)))
    chain = suffix_chain(levels, np.log(law))
    root = np.sqrt(law)
    second = np.sort(np.abs(np.linalg.eigvalsh(root[:, None] * chain / root)))[::-1][1]
    away = 0.5 * np.abs(np.linalg.matrix_power(chain, steps) - law).sum(axis=1).max()
    return away, 0.5 * second ** (rate * steps) / root.min()


# T6 ------------------------------------------------------------------------------------------------
T6 = paper.claim("T6", r"""
    Importance resampling to a power of the law is soft best-of-n in the log-likelihood

    One of n draws from p taken in proportion to $p^{\alpha-1}$ has the law of soft best-of-n with $r=\log p$, $T=1/(\alpha-1)$, and tends to
    $p^\alpha$ like $1/n$.

    where: derived
    """)  # fmt: skip
LIKELIHOODS = log_normalize(np.array([0.3, -0.4, 1.0, 0.1, -1.5]))


@T6.check(Limit(rate=-1.0, rate_tol=0.1), false={"towards p^(alpha + 1)": {"more": 1.0}})
def tends_to_the_power(*, more=0.0, alpha=3.0):
    target = np.exp(log_normalize((alpha + more) * LIKELIHOODS))
    sizes = 2.0 ** np.arange(5, 14)
    laws = [np.exp(soft_best_of_n(LIKELIHOODS, LIKELIHOODS, int(n), 1 / (alpha - 1))) for n in sizes]
    return sizes, [0.5 * np.abs(law - target).sum() for law in laws]
