"""R6 on: Tsallis and Rényi, entropy beside KL, tokens and sequences, lengths, several constraints."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from klsim.claims import Identity, Inequality, Optimality, Variant
from klsim.distributions import entropy, expectation, geometric_mixture, log_normalize, log_partition, tilt
from klsim.divergences import kl, renyi
from klsim.lagrangian import constrained
from klsim.optima import kl_constrained, kl_regularized
from klsim.per_token import kl_per_token, reward_per_token
from klsim.planning import regularized_tokens
from klsim.problems import TokenTree
from klsim.problems.token_tree import sequence_log_probs, visit_log_probs
from klsim.several_references import kl_regularized_to_several
from klsim.spaces import Choice, Floats, Normals, Rewards, Sizes, Space, TreePolicies
from klsim.tsallis_renyi import kl_and_entropy_regularized, renyi_regularized, tsallis, tsallis_regularized

from .collection import paper

LAW = Normals("A").map(log_normalize)
BANDIT = {"log_ref": LAW, "reward": Rewards(), "A": Sizes(2, 6)}
COIN = np.log([0.5, 0.5])
# the optimum of order 2 at half of beta is .25, .75; at beta it is .375, .625, which this move reaches nearly
TOWARDS = {
    "log_ref": COIN,
    "reward": np.array([0.0, 1.0]),
    "beta": 1.0,
    "order": 2.0,
    "move": np.array([1.0, -1.0]),
    "size": 0.3,
}
MOVED = {"move": Normals("A"), "size": Floats(1e-3, 2.0, log=True)}


# R6 ------------------------------------------------------------------------------------------------
R6 = paper.claim("R6", r"""
    The Tsallis-regularised optimum is a power of the reward's excess over a threshold

    $\pi/\pi_{ref}=\big(\frac{q-1}{\beta q}(r-\lambda)_+\big)^{1/(q-1)}$ for $q>1$, $\lambda$ such that it adds up to 1; responses below the
    threshold are dropped.

    where: sparsemax: Martins and Astudillo (arXiv 1602.02068); entmax: Peters et al. (arXiv 1905.05702); with a reference derived
    """)  # fmt: skip


@R6.check(
    Identity(1e-7, scale=1),
    Space(**BANDIT, beta=Floats(0.05, 5.0, log=True), order=Floats(1.2, 4.0)),
    instances=6,
    batched=False,
    false={"the power 1/q": {"less": 0.0}},
)
def threshold(log_ref, reward, beta, order, *, less=1.0):
    def ratio(lam):
        return ((order - 1) / (beta * order) * np.maximum(reward - lam, 0.0)) ** (1 / (order - less))

    def excess(lam):
        return np.exp(log_ref) @ ratio(lam) - 1

    low = reward.min() - 1.0
    while excess(low) < 0:
        low = reward.max() - 2 * (reward.max() - low)
    lam = brentq(excess, low, reward.max(), xtol=1e-15, rtol=1e-15)
    return np.exp(tsallis_regularized(log_ref, reward, beta, order).log_policy), np.exp(log_ref) * ratio(lam)


@R6.check(Optimality(1e-11, scale=1), Space(**BANDIT, **MOVED, beta=Floats(0.05, 5.0, log=True), order=Choice(0.5, 1.5, 2.0, 3.0)), instances=6, batched=False,
          false={"that of half of beta": Variant({"share": 0.5}, examples=[TOWARDS])})  # fmt: skip
def no_policy_does_better(log_ref, reward, beta, order, move, size, *, share=1.0):
    best = tsallis_regularized(log_ref, reward, share * beta, order).log_policy
    # mixed with the reference: all responses are reached, also where the optimum drops some
    other = log_normalize(np.logaddexp(best, log_ref + np.log(0.1 * size)) + size * move)
    penalty = [beta * tsallis(p, log_ref, order) for p in (best, other)]
    return expectation(best, reward) - penalty[0], expectation(other, reward) - penalty[1], 1 + penalty[1]


# R7 ------------------------------------------------------------------------------------------------
R7 = paper.claim("R7", r"""
    Sparse regularisers (Tsallis, $q>1$) drop bad responses

    The response with the least reward has probability 0 at the optimum.

    where: as commonly read (sparsemax policies)
    instead: Only below $\beta^*=\frac{q-1}q\big(E_{ref}(r-r_{min})^{1/(q-1)}\big)^{q-1}$ ($q=2$: half the mean excess over the worst). Above it none
    is dropped.
    by: R7-threshold
    origin: as commonly read
    """)  # fmt: skip
TSALLIS = {**BANDIT, "order": Floats(1.3, 4.0)}


def all_are_kept_from(log_ref, reward, order, factor=None):
    """The beta from which no response is dropped."""
    mean = np.exp(log_ref) @ (reward - reward.min()) ** (1 / (order - 1))
    return (factor or (order - 1) / order) * mean ** (order - 1)


@R7.check(
    Inequality(1e-12),
    Space(**TSALLIS, beta=Floats(0.05, 5.0, log=True), where=lambda reward, **_: np.ptp(reward, axis=-1) > 0.1),
    instances=5,
    batched=False,
    examples=[{"log_ref": COIN, "reward": np.array([0.0, 1.0]), "order": 2.0, "beta": 1.0}],
    true={"below the threshold": {"relative": True}},
)
def worst_is_dropped(log_ref, reward, order, beta, *, relative=False):
    if relative:
        beta = all_are_kept_from(log_ref, reward, order) * min(beta / 5.1, 0.98)
    return np.exp(tsallis_regularized(log_ref, reward, beta, order).log_policy)[np.argmin(reward)], 0.0


R7_threshold = paper.claim("R7-threshold", r"""
    From which beta a Tsallis-regularised optimum keeps every response

    $\beta^*=\frac{q-1}q\big(E_{ref}(r-r_{min})^{1/(q-1)}\big)^{q-1}$, found by searching over beta for where the worst response appears.

    where: derived
    """)  # fmt: skip


@R7_threshold.check(
    Identity(1e-5),
    Space(**TSALLIS, where=lambda reward, **_: np.ptp(reward, axis=-1) > 0.1),
    instances=2,
    batched=False,
    false={"without (q-1)/q": {"factor": 1.0}},
)
def where_the_worst_appears(log_ref, reward, order, *, factor=None):
    """To a relative 4e-6: half of the bracket."""
    worst, low, high = np.argmin(reward), 1e-8 * np.ptp(reward), 10 * np.ptp(reward)
    for _ in range(4):
        betas = np.geomspace(low, high, 40)
        kept = tsallis_regularized(log_ref, reward, betas, order).log_policy[:, worst] > -np.inf
        first = int(np.argmax(kept))
        low, high = betas[max(first - 1, 0)], betas[first]
    return np.sqrt(low * high), all_are_kept_from(log_ref, reward, order, factor)


# R8 ------------------------------------------------------------------------------------------------
R8 = paper.claim("R8", r"""
    The Rényi-regularised optimum: a power of the distance from a level that the policy itself sets

    $\pi\propto\pi_{ref}|r-\lambda|^{1/(a-1)}$ with $\lambda=E_\pi[r]-\frac{\beta a}{a-1}$: above the best reward for $a<1$ (all are kept), below it for
    $a>1$ (what is below $\lambda$ is dropped). It is the Tsallis optimum of order a at $\beta/E_{ref}[(\pi/\pi_{ref})^a]$.

    where: derived
    """)  # fmt: skip
RENYI = {**BANDIT, "beta": Floats(0.05, 3.0, log=True), "order": Choice(0.3, 0.6, 0.9, 1.3, 2.0, 3.5)}


@R8.check(
    Identity(1e-7, scale=1), Space(**RENYI), instances=8, batched=False, false={"beta instead of beta a": {"power": 0}}
)
def level(log_ref, reward, beta, order, *, power=1):
    found = renyi_regularized(log_ref, reward, beta, order)
    lam = found.reward - beta * order**power / (order - 1)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(np.sign(order - 1) * (reward - lam), 0.0)) / (order - 1)
    return np.exp(found.log_policy), np.exp(log_normalize(log_ref + np.minimum(logs, 1e3)))


@R8.check(
    Identity(1e-7, scale=1), Space(**RENYI), instances=5, batched=False, false={"at the same beta": {"power": 0.0}}
)
def tsallis_at_another_beta(log_ref, reward, beta, order, *, power=1.0):
    found = renyi_regularized(log_ref, reward, beta, order)
    moment = np.exp((order - 1) * renyi(found.log_policy, log_ref, order))
    return np.exp(found.log_policy), np.exp(
        tsallis_regularized(log_ref, reward, beta / moment**power, order).log_policy
    )


@R8.check(Optimality(1e-11, scale=1), Space(**RENYI, **MOVED), instances=5, batched=False,
          false={"that of half of beta": {"share": 0.5}})  # fmt: skip
def no_policy_does_better_under_renyi(log_ref, reward, beta, order, move, size, *, share=1.0):
    """Near the optimum, and near the reference conditioned on each threshold, where local optima are."""
    best = renyi_regularized(log_ref, reward, share * beta, order).log_policy
    tops = [np.where(reward >= level, log_ref, log_ref - 30) for level in reward]
    others = log_normalize(np.array([np.logaddexp(best, log_ref - 9), *tops]) + size * move)
    values = [expectation(p, reward) - beta * renyi(p, log_ref, order) for p in (best, others)]
    return values[0], values[1].max(), 1 + beta


# R9 ------------------------------------------------------------------------------------------------
R9 = paper.claim("R9", r"""
    Following the gradient of a Rényi-regularised objective from the reference leads to its optimum

    Ascent on $E_\pi[r]-\beta D_a(\pi\Vert\pi_{ref})$ that starts at the reference ends at the global optimum.

    where: as of KL, for every order
    instead: For orders above 1 Rényi divergences are not convex: between the reference and a rare good response there is a valley, and both sides
    have local optima. Up to order 1 they are convex.
    by: R9-convex, R8
    origin: folklore
    """)  # fmt: skip
VALLEY = {"rare": Floats(1e-4, 0.01, log=True), "share": Floats(0.5, 0.9), "order": Floats(2.0, 6.0)}


@R9.check(
    Inequality(1e-6, scale=0), Space(**VALLEY), instances=3, batched=False, true={"of order .7": {"convex": True}}
)
def uphill_from_the_reference(rare, share, order, *, convex=False):
    """Two responses, reward 1 on the rare one: uphill over a fine grid of its probability."""
    order, log_ref, reward = 0.7 if convex else order, np.log([1 - rare, rare]), np.array([0.0, 1.0])
    beta = share / np.log(1 / rare)

    def values(odds):
        policies = -np.logaddexp(0.0, np.stack([odds, -odds], axis=-1))
        return expectation(policies, reward) - beta * renyi(policies, log_ref, order)

    odds = np.linspace(np.log(rare / (1 - rare)), 30, 1001)
    falls = np.flatnonzero(np.diff(values(odds)) < 0)
    around = odds[[max(falls[0] - 1, 0), falls[0] + 1]] if len(falls) else odds[-2:]
    reached = values(np.linspace(*around, 401)).max()
    return float(renyi_regularized(log_ref, reward, beta, order).value), reached


R9_convex = paper.claim("R9-convex", r"""
    Rényi divergences are convex in the policy up to order 1, and quasi-convex for every order

    $D_a(\frac{p+q}2\Vert ref)\le\frac12(D_a(p\Vert ref)+D_a(q\Vert ref))$ for $a\le1$, and at most the larger of the two for every order.

    where: van Erven and Harremoës (arXiv 1206.2459), theorems 11 and 13
    """)  # fmt: skip
PAIR = {
    "p": Normals("A", scale=3.0).map(log_normalize),
    "q": Normals("A", scale=3.0).map(log_normalize),
    "log_ref": LAW,
}


@R9_convex.check(Inequality(1e-12, scale=1), Space(**PAIR, order=Floats(0.05, 1.0), A=Sizes(2, 5)), instances=25, batched=False,
                 false={"of four times the order, plus 1": {"change": lambda a: 1 + 4 * a}})  # fmt: skip
def halfway(p, q, log_ref, order, *, change=lambda a: a):
    middle = np.logaddexp(p, q) - np.log(2)
    ends = [renyi(x, log_ref, change(order)) for x in (p, q)]
    return renyi(middle, log_ref, change(order)), sum(ends) / 2


@R9_convex.check(Inequality(1e-12, scale=1), Space(**PAIR, order=Floats(0.05, 20.0), A=Sizes(2, 5)), instances=20, batched=False,
                 false={"at most the smaller": {"side": np.min}})  # fmt: skip
def quasi_convex(p, q, log_ref, order, *, side=np.max):
    middle = np.logaddexp(p, q) - np.log(2)
    return renyi(middle, log_ref, order), side([renyi(x, log_ref, order) for x in (p, q)])


# R10 -----------------------------------------------------------------------------------------------
R10 = paper.claim("R10", r"""
    Under the largest ratio as the penalty the optimum is the reference above a threshold

    $\max_\pi E_\pi[r]-\beta\log\max\pi/\pi_{ref}$ is solved by $\pi_{ref}(\cdot\mid r\ge\tau)$: rejection sampling, as from
    best-of-n with a verifier. The value falls with the order, to this one.

    where: derived
    """)  # fmt: skip


@R10.check(
    Identity(1e-12, scale=1),
    Space(**BANDIT, beta=Floats(0.05, 3.0, log=True)),
    instances=12,
    batched=False,
    false={"of order 6": {"order": 6.0}},
)
def all_ratios_are_the_largest(log_ref, reward, beta, *, order=np.inf):
    found = renyi_regularized(log_ref, reward, beta, order).log_policy
    ratio = (found - log_ref)[found > -np.inf]
    return ratio, ratio.max()


# the best two responses are worth .7 - .5 log 2, the best alone 1 - .5 log 5, which half of beta would take
HALF_OR_FIFTH = {"log_ref": np.log([0.5, 0.3, 0.2]), "reward": np.array([0.0, 0.5, 1.0]), "beta": 0.5, "cap": 0.43}


@R10.check(Optimality(1e-12, scale=1), Space(**BANDIT, beta=Floats(0.05, 3.0, log=True), cap=Floats(0.0, 1.0)), instances=10, batched=False,
          false={"the threshold of half of beta": Variant({"share": 0.5}, examples=[HALF_OR_FIFTH])})  # fmt: skip
def no_cap_does_better(log_ref, reward, beta, cap, *, share=1.0):
    """For a largest ratio T the best policy fills the best responses up to ``T ref``."""
    best = renyi_regularized(log_ref, reward, share * beta, np.inf).log_policy
    order = np.argsort(-reward, kind="stable")
    limit = np.exp(-cap * log_ref.min())
    filled = np.minimum(np.cumsum(limit * np.exp(log_ref[order])), 1.0)
    reached = np.diff(filled, prepend=0.0) @ reward[order]
    return expectation(best, reward) - beta * renyi(best, log_ref, np.inf), reached - beta * np.log(limit), 1 + beta


@R10.check(Inequality(1e-10, scale=1), Space(**BANDIT, beta=Floats(0.05, 3.0, log=True)), instances=3, batched=False,
          false={"Tsallis below order 1, which is smaller": {"first": 0.3}})  # fmt: skip
def values_fall_with_the_order(log_ref, reward, beta, *, first=None):
    values = [float(renyi_regularized(log_ref, reward, beta, a).value) for a in (0.5, 1.0, 2.0, 8.0, np.inf)]
    if first is not None:
        values[0] = float(kl_regularized(log_ref, reward, beta / first).value)
    return values[1:], values[:-1]


# R11 -----------------------------------------------------------------------------------------------
R11 = paper.claim("R11", r"""
    An entropy bonus beside a KL penalty is a larger KL coefficient

    $\max E[r]-\beta KL+\eta H$ is solved by the tilt of the reference by $\beta+\eta$.

    where: as commonly read
    instead: It also tempers the reference, to $\pi_{ref}^{\beta/(\beta+\eta)}/Z$: mass moves to what the reference finds unlikely. The two agree for a
    uniform reference.
    by: R11-tempered
    origin: as commonly read
    """)  # fmt: skip
ENTROPY = {**BANDIT, "beta": Floats(0.05, 3.0, log=True), "eta": Floats(0.05, 3.0, log=True)}


@R11.check(
    Identity(1e-10, scale=1),
    Space(**ENTROPY),
    instances=8,
    batched=False,
    true={"a uniform reference": {"flat": True}},
)
def larger_coefficient(log_ref, reward, beta, eta, *, flat=False):
    log_ref = np.full(len(reward), -np.log(len(reward))) if flat else log_ref
    found = kl_and_entropy_regularized(log_ref, reward, beta, eta).log_policy
    return np.exp(found), np.exp(tilt(log_ref, reward, beta + eta))


R11_tempered = paper.claim("R11-tempered", r"""
    Entropy beside KL: the tilt by $\beta+\eta$ of the tempered reference, of value $(\beta+\eta)\log\sum\pi_{ref}^{\beta/(\beta+\eta)}e^{r/(\beta+\eta)}$

    No policy has more than that value: what another one has less is $(\beta+\eta)$ times its KL to the optimum.

    where: derived
    """)  # fmt: skip


@R11_tempered.check(Identity(1e-11, scale=1), Space(**ENTROPY, move=Normals("A")), instances=12, batched=False,
                    false={"beta instead of the sum": {"share": 0.0}})  # fmt: skip
def value_of_any_policy(log_ref, reward, beta, eta, move, *, share=1.0):
    best = kl_and_entropy_regularized(log_ref, reward, beta, eta)
    other = log_normalize(log_ref + move)
    value = expectation(other, reward) - beta * kl(other, log_ref) + eta * entropy(other)
    return value, best.value - (beta + share * eta) * kl(other, best.log_policy)


# R12 -----------------------------------------------------------------------------------------------
R12 = paper.claim("R12", r"""
    Regularising every token and regularising the response lead to the same policy

    The optimum with $\sum_tE_\pi[D(\pi_t\Vert\pi_{ref,t})]$ is that with $D(\pi\Vert\pi_{ref})$ over whole responses.

    where: as commonly done with any divergence
    instead: For KL, and for KL with an entropy bonus, which add up along tokens. Not for Tsallis or Rényi divergences: over responses a token counts by a
    power of the ratio of its prefix.
    by: R12-chain
    origin: as commonly read
    """)  # fmt: skip
TREE = {
    "levels": TreePolicies(),
    "reward": Normals("V", "V"),
    "beta": Floats(0.2, 3.0, log=True),
    "V": Sizes(2, 2),
    "H": Sizes(2, 2),
}
OPTIMA = {
    "tsallis": lambda p, q, beta: tsallis_regularized(p, q, beta, 2.0),
    "renyi": lambda p, q, beta: renyi_regularized(p, q, beta, 0.5),
    "kl": kl_regularized,
    "kl and entropy": lambda p, q, beta: kl_and_entropy_regularized(p, q, beta, 0.7 * beta),
}


def of_tokens_and_of_sequences(levels, reward, beta, name):
    """Probabilities of the responses under both optima."""
    tree = TokenTree(2, 2, reward.ravel())
    tokens = regularized_tokens(tree, levels, lambda p, q: OPTIMA[name](p, q, beta))
    return sequence_log_probs(tokens.log_policy), OPTIMA[name](
        sequence_log_probs(levels), reward.ravel(), beta
    ).log_policy


@R12.check(Identity(1e-10, scale=1), Space(**TREE), instances=4, batched=False,
           true={"KL": {"name": "kl"}, "KL and entropy": {"name": "kl and entropy"}})  # fmt: skip
def tokens_or_responses(levels, reward, beta, *, name="tsallis"):
    tokens, sequences = of_tokens_and_of_sequences(levels, reward, beta, name)
    return np.exp(tokens), np.exp(sequences)


@R12.check(Identity(1e-8, scale=1), Space(**TREE), instances=3, batched=False, true={"KL": {"name": "kl"}})
def tokens_or_responses_under_renyi(levels, reward, beta, *, name="renyi"):
    tokens, sequences = of_tokens_and_of_sequences(levels, reward, beta, name)
    return np.exp(tokens), np.exp(sequences)


R12_chain = paper.claim("R12-chain", r"""
    The chain rule of Tsallis divergences: a token counts by the ratio of its prefix to the power $q-1$

    $T_q(\pi\Vert\pi_{ref})=\sum_tE_\pi\big[(\pi/\pi_{ref})(s_t)^{q-1}\,T_q(\pi_t\Vert\pi_{ref,t})\big]$; Rényi's is
    $\log(1+(q-1)T_q)/(q-1)$.

    where: derived
    """)  # fmt: skip
TREES = {
    "levels": TreePolicies(),
    "other": TreePolicies(),
    "V": Sizes(2, 3),
    "H": Sizes(2, 3),
    "order": Floats(0.2, 4.0),
}


@R12_chain.check(Identity(1e-9, scale=1), Space(**TREES, where=lambda order, **_: np.abs(order - 1) > 0.01), instances=8, batched=False,
                 false={"without the power": {"power": 0.0}})  # fmt: skip
def chain(levels, other, order, *, power=1.0):
    whole = float(tsallis(sequence_log_probs(levels), sequence_log_probs(other), order))
    total = 0.0
    for visits, reference, p, q in zip(visit_log_probs(levels), visit_log_probs(other), levels, other):
        total += np.exp(visits + power * (order - 1) * (visits - reference)) @ tsallis(p, q, order)
    return {
        "Tsallis": (whole, float(total), 1 + abs(whole)),
        "Renyi": (renyi(sequence_log_probs(levels), sequence_log_probs(other), order), np.log1p((order - 1) * whole) / (order - 1)),
    }  # fmt: skip


# R13 -----------------------------------------------------------------------------------------------
R13 = paper.claim("R13", r"""
    Counting the KL per token does not care how long responses are

    With a reward that has nothing to do with length, the optimum of $E[r]$ within $KL\le\kappa E|y|$ has the reference's mean length.

    where: as commonly done (KL per token in logs and controllers)
    instead: Every token brings budget: the optimum is the tilt of $r+\beta\kappa|y|$, longer than the reference. A budget per response leaves lengths
    alone.
    by: R13-bonus
    origin: as commonly read
    """)  # fmt: skip
CONTENT = {
    "log_content": Normals("A").map(log_normalize),
    "content": Rewards(),
    "log_length": Normals("L").map(log_normalize),
    "A": Sizes(2, 4),
    "L": Sizes(2, 4),
    "budget": Floats(0.002, 0.1, log=True),
}
RESPONSES = {**BANDIT, "lengths": Normals("A").map(lambda x: 1 + np.round(4 * np.abs(x)))}


@R13.check(
    Inequality(1e-9),
    Space(**CONTENT, where=lambda content, **_: np.ptp(content, axis=-1) > 0.1),
    instances=4,
    batched=False,
    true={"a budget a response": {"per_token": False}},
)
def mean_length(log_content, content, log_length, budget, *, per_token=True):
    """Content and length independent under the reference; lengths 1, 2, …"""
    log_ref = (log_content[:, None] + log_length).ravel()
    tokens = np.tile(np.arange(1.0, len(log_length) + 1), len(content))
    reward, before = np.repeat(content, len(log_length)), np.exp(log_ref) @ tokens
    found = (
        kl_per_token(log_ref, reward, tokens, budget) if per_token else kl_constrained(log_ref, reward, budget * before)
    )
    return np.exp(found.log_policy) @ tokens, before


R13_bonus = paper.claim("R13-bonus", r"""
    A KL budget per token is a KL budget to a longer reference

    $KL(\pi\Vert\pi_{ref})\le\kappa E_\pi|y|$ is $KL(\pi\Vert p)\le\log Z$ with $p=\pi_{ref}e^{\kappa|y|}/Z$; the most reward within it is
    $\min_\beta\beta\log E_{ref}e^{r/\beta+\kappa|y|}$.

    where: derived
    """)  # fmt: skip


@R13_bonus.check(
    Identity(1e-8, scale=1),
    Space(**RESPONSES, budget=Floats(0.002, 0.3, log=True)),
    instances=4,
    batched=False,
    false={"to the reference itself": {"longer": 0.0}},
)
def by_the_dual(log_ref, reward, lengths, budget, *, longer=1.0):
    """A one-dimensional convex dual, by a bounded search in log beta; at its ends for budgets that are never spent."""
    found = minimize_scalar(
        lambda x: np.exp(x) * log_partition(log_ref, reward / np.exp(x) + longer * budget * lengths, 1.0),
        bounds=(-25.0, 12.0), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return kl_per_token(log_ref, reward, lengths, budget).reward, found.fun


@R13_bonus.check(
    Identity(1e-9, scale=1),
    Space(**RESPONSES, budget=Floats(0.002, 0.3, log=True)),
    instances=5,
    batched=False,
    false={"half the bonus": {"share": 0.5}},
)
def pays_for_length(log_ref, reward, lengths, budget, *, share=1.0):
    found = kl_per_token(log_ref, reward, lengths, budget)
    if found.beta < 1e-3:
        return 0.0, 0.0  # not spent: the best responses
    return np.exp(found.log_policy), np.exp(tilt(log_ref, reward + share * found.beta * budget * lengths, found.beta))


# R14 -----------------------------------------------------------------------------------------------
R14 = paper.claim("R14", r"""
    Dividing rewards by length maximises the reward per token

    The tilt by $r/|y|$ has the most $(E[r]-\beta KL)/E|y|$.

    where: as commonly read (length-normalised rewards)
    instead: A mean of ratios is no ratio of means. The most reward per token $\rho$ is that of $\pi_{ref}e^{(r-\rho|y|)/\beta}$, which needs no
    normaliser: a token costs $\rho$. With equal lengths the two agree.
    by: R14-rate
    origin: as commonly read
    """)  # fmt: skip
RATE = {**RESPONSES, "beta": Floats(0.05, 3.0, log=True)}


@R14.check(
    Inequality(1e-9, scale=1),
    Space(**RATE),
    instances=5,
    batched=False,
    examples=[{"log_ref": COIN, "reward": np.array([1.0, 1.0]), "lengths": np.array([1.0, 5.0]), "beta": 1.0}],
    true={"equal lengths": {"equal": True}},
)
def dividing_by_length(log_ref, reward, lengths, beta, *, equal=False):
    lengths = np.full(len(reward), lengths.mean()) if equal else lengths
    divided = tilt(log_ref, reward / lengths, beta / (np.exp(log_ref) @ lengths))
    policy = np.exp(divided)
    reached = (policy @ reward - beta * kl(divided, log_ref)) / (policy @ lengths)
    return reward_per_token(log_ref, reward, lengths, beta).rate, reached


R14_rate = paper.claim("R14-rate", r"""
    The most reward per token makes $E_{ref}e^{(r-\rho|y|)/\beta}=1$

    and no policy has a higher $(E[r]-\beta KL)/E|y|$.

    where: Dinkelbach (1967) for the ratio; the equation derived (that of Euler and Lotka for growth)
    """)  # fmt: skip


@R14_rate.check(
    Identity(1e-11, scale=1), Space(**RATE), instances=8, batched=False, false={"rho times 1.01": {"times": 1.01}}
)
def no_normaliser(log_ref, reward, lengths, beta, *, times=1.0):
    rate = reward_per_token(log_ref, reward, lengths, beta).rate
    exponent = (reward - times * rate * lengths) / beta
    return np.logaddexp.reduce(log_ref + exponent), 0.0, np.abs(exponent).max()


@R14_rate.check(Optimality(1e-12, scale=1), Space(**RATE, **MOVED), instances=6, batched=False,
                false={"that of half of beta": {"share": 0.5}})  # fmt: skip
def no_policy_has_more_per_token(log_ref, reward, lengths, beta, move, size, *, share=1.0):
    best = reward_per_token(log_ref, reward, lengths, share * beta).log_policy

    def rate(p):
        return (expectation(p, reward) - beta * kl(p, log_ref)) / expectation(p, lengths)

    return rate(best), rate(log_normalize(best + size * move)), 1 + beta


R14_bias = paper.claim("R14-bias", r"""
    Rewards divided by length shorten right answers and lengthen wrong ones

    With reward $\pm1/|y|$ the mean length of right answers is at most the reference's and that of wrong ones at least.

    where: length bias of GRPO: Liu et al. (arXiv 2503.20783); here of the KL-regularised optimum
    """)  # fmt: skip


@R14_bias.check(Inequality(1e-12), Space(log_ref=LAW, lengths=RESPONSES["lengths"], sign=Normals("A"), beta=Floats(0.05, 3.0, log=True), A=Sizes(3, 7),
                                         where=lambda sign, **_: (sign > 0).any(axis=-1) & (sign <= 0).any(axis=-1)), instances=12, batched=False,
                false={"wrong answers at +1/2": {"wrong": 0.5}})  # fmt: skip
def short_and_right_long_and_wrong(log_ref, lengths, sign, beta, *, wrong=-1.0):
    policy = tilt(log_ref, np.where(sign > 0, 1.0, wrong) / lengths, beta)
    after, before = (
        [np.average(lengths[s], weights=np.exp(p[s])) for s in (sign > 0, sign <= 0)] for p in (policy, log_ref)
    )
    return {"right": (after[0], before[0]), "wrong": (before[1], after[1])}


# R15 -----------------------------------------------------------------------------------------------
R15 = paper.claim("R15", r"""
    Several constraints at once: a tilt of a pool, whose multipliers are prices

    $\max E[r]-\beta KL(\pi\Vert\pi_{ref})$ with $E[c_i]\le b_i$, $KL(\pi\Vert p_j)\le\kappa_j$ is solved by the tilt of the geometric pool of
    $\pi_{ref}$ and the $p_j$ with weights $\beta$ and $\nu_j$ by $r-\sum\mu_ic_i$. The multipliers are what the bounds are worth, and no policy that
    meets them does better.

    where: Lagrange; the pool derived
    """)  # fmt: skip
LIMITS = {
    "log_ref": LAW,
    "reward": Normals("A", scale=2.0),
    "inside": LAW,
    "cost": Normals("C", "A"),
    "laws": Normals("M", "A").map(log_normalize),
    "beta": Floats(0.05, 2.0, log=True),
    "room": Floats(0.02, 0.3, log=True),
    "A": Sizes(3, 6),
    "C": Sizes(1, 2),
    "M": Sizes(1, 2),
    "where": lambda cost, **_: np.ptp(cost, axis=-1).min(axis=-1) > 0.1,
}


def limits(inside, cost, laws, room):
    """Bounds that the policy ``inside`` meets with some room."""
    return {
        "costs": cost,
        "bounds": cost @ np.exp(inside) + room * np.ptp(cost, axis=1),
        "references": list(laws),
        "budgets": kl(inside, laws) + room,
    }


@R15.check(
    Identity(1e-9, scale=1), Space(**LIMITS), instances=5, batched=False, false={"equal weights": {"equal": True}}
)
def tilt_of_the_pool(log_ref, reward, inside, cost, laws, beta, room, *, equal=False):
    found = constrained(log_ref, reward, beta, **limits(inside, cost, laws, room))
    weights = np.array([beta, *found.budget_multipliers])
    total, share = weights.sum(), np.full(len(weights), 1 / len(weights)) if equal else weights / weights.sum()
    pool = kl_regularized_to_several([log_ref, *laws], list(share), reward - found.cost_multipliers @ cost, total)
    return np.exp(found.log_policy), np.exp(pool.log_policy)


# central differences: the third derivative is that of a cumulant, at most 10 here; h^2 = 1e-8
@R15.check(
    Identity(1e-5, scale=1), Space(**LIMITS), instances=3, batched=False, false={"half the price": {"share": 0.5}}
)
def prices(log_ref, reward, inside, cost, laws, beta, room, *, share=1.0):
    given = limits(inside, cost, laws, room)
    found = constrained(log_ref, reward, beta, **given)
    steps = np.cos(np.arange(1.0, 1 + len(cost) + len(laws)))  # a direction along no axis
    ends = []
    for h in (-1e-4, 1e-4):
        moved = {
            "bounds": given["bounds"] + h * steps[: len(cost)],
            "budgets": given["budgets"] + h * steps[len(cost) :],
        }
        ends.append(constrained(log_ref, reward, beta, **given | moved).value)
    price = steps @ np.concatenate([found.cost_multipliers, found.budget_multipliers])
    return (ends[1] - ends[0]) / 2e-4, share * price


@R15.check(Optimality(1e-10, scale=1), Space(**LIMITS, move=Normals("A"), size=Floats(1e-3, 2.0, log=True)), instances=3, batched=False,
           false={"with a third of the room": {"share": 1 / 3}})  # fmt: skip
def nobody_inside_does_better(log_ref, reward, inside, cost, laws, beta, room, move, size, *, share=1.0):
    """Challengers near the optimum, pulled towards ``inside`` until they meet every limit."""
    given, full = limits(inside, cost, laws, share * room), limits(inside, cost, laws, room)
    best = constrained(log_ref, reward, beta, **given)
    target = log_normalize(constrained(log_ref, reward, beta, **full).log_policy + size * move)

    def at(share):
        return np.logaddexp(np.log(share) + target, np.log1p(-share) + inside) if 0 < share < 1 else inside

    low, high = 0.0, 1 - 1e-12
    for _ in range(25):
        middle = 0.5 * (low + high)
        law = at(middle)
        fine = np.all(cost @ np.exp(law) <= full["bounds"]) and np.all(kl(law, laws) <= full["budgets"])
        low, high = (middle, high) if fine else (low, middle)
    other = at(low)
    return best.value, expectation(other, reward) - beta * kl(other, log_ref), 1 + beta


# R16 -----------------------------------------------------------------------------------------------
R16 = paper.claim("R16", r"""
    Staying within a budget of several references is staying near their average

    With a KL budget to each, the optimum is a tilt of the references' geometric mean with equal weights.

    where: as commonly done (merge the references first)
    instead: The weights are the multipliers: a reference whose budget is slack has none. Equal weights are right where the references' parts are equal
    by symmetry.
    by: R15
    origin: folklore
    """)  # fmt: skip
SEVERAL = {"log_ref": LAW, "reward": Normals("A"), "other": LAW, "room": Floats(0.05, 0.5), "A": Sizes(3, 6)}


@R16.check(
    Identity(1e-6, scale=1),
    Space(**SEVERAL),
    instances=4,
    batched=False,
    true={"two references alike": {"alike": True}},
)
def tilt_of_the_mean(log_ref, reward, other, room, *, alike=False):
    """Budgets that their pool meets, and ``room`` more."""
    other = log_ref if alike else other
    pool = geometric_mixture([log_ref, other], [0.5, 0.5])
    budgets = [float(kl(pool, p)) + room for p in (log_ref, other)]
    found = constrained(log_ref, reward, 0.0, references=[log_ref, other], budgets=budgets)
    mean = (
        tilt(pool, reward, found.budget_multipliers.sum())
        if found.budget_multipliers.sum() > 1e-6
        else found.log_policy
    )
    return np.exp(found.log_policy), np.exp(mean)


# R17 -----------------------------------------------------------------------------------------------
R17 = paper.claim("R17", r"""
    Constraints can be tuned one at a time

    The multiplier that holds a cost to its bound alone is also right beside another constraint.

    where: as commonly done (one controller a constraint)
    instead: Only where they have nothing to do with each other: reward, costs and reference fall apart into independent parts. Otherwise each multiplier
    depends on the other bound.
    by: R15
    origin: folklore
    """)  # fmt: skip
TWO = {
    "log_ref": Normals("A", "B"),
    "reward": Normals("A", "B", scale=2.0),
    "first": Normals("A", "B"),
    "second": Normals("A", "B"),
    "A": Sizes(2, 3),
    "B": Sizes(2, 3),
}

BOTH_COST = {
    "log_ref": np.zeros((2, 2)),
    "reward": np.array([[0.0, 2.0], [2.0, 4.0]]),
    "first": np.array([[0.0, 1.0], [1.0, 2.0]]),
    "second": np.array([[0.0, 2.0], [1.0, 2.0]]),
}


@R17.check(
    Identity(1e-6, scale=1),
    Space(**TWO),
    instances=4,
    batched=False,
    examples=[BOTH_COST],
    true={"independent parts": {"apart": True}},
)
def one_at_a_time(log_ref, reward, first, second, *, apart=False):
    """Bounds three tenths of the way from the reference's mean cost to the least: the first multiplier, beside the second and alone."""
    if apart:
        log_ref, reward = log_ref[:, :1] + log_ref[:1], reward[:, :1] + reward[:1]
        first, second = first[:, :1] + 0 * first, second[:1] + 0 * second
    log_ref, reward, costs = log_normalize(log_ref.ravel()), reward.ravel(), np.stack([first.ravel(), second.ravel()])
    bounds = 0.7 * costs @ np.exp(log_ref) + 0.3 * costs.min(axis=1)
    if apart or np.min(np.max(costs - bounds[:, None], axis=0)) < -1e-3:  # one response meets both
        both = constrained(log_ref, reward, 0.5, costs=costs, bounds=bounds).cost_multipliers
        return both[0], constrained(log_ref, reward, 0.5, costs=costs[:1], bounds=bounds[:1]).cost_multipliers[0]
    return 0.0, 0.0
