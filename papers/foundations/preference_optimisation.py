"""P, continued: χ²-PO, KTO, SimPO, ORPO with population labels; groups of comparisons; finite data; self-play."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from klsim.claims import Identity, Inequality, Limit, Optimality, Variant
from klsim.distributions import log_normalize, tilt
from klsim.divergences import GENERATORS, chi2, kl
from klsim.optima import f_regularized
from klsim.preferences import (
    Comparisons,
    bradley_terry,
    bradley_terry_fit,
    bradley_terry_groups,
    chi2_po_policy,
    exploitability,
    finite_fit_probability,
    from_log_odds,
    ipo_fit,
    ipo_policy,
    kto_fixed_point,
    loser_shares,
    magnetic_descent,
    nash_md,
    orpo_policy,
    proximal_play,
    regularized_nash,
    simpo_policy,
    sppo,
    sppo_step,
    winner_shares,
)
from klsim.spaces import Floats, Integers, Normals, Policies, Rewards, Sizes, Space
from klsim.spaces.preferences import PreferenceBandits, preferences

from .collection import paper

LAW = Normals("A").map(log_normalize)
PROBLEM = PreferenceBandits(scale=1.0, spread=3.0)
LENGTHS = Normals("A").map(lambda x: 1 + np.floor(6 * expit(x)))
PENALTY = GENERATORS["kl"] + 0.5 * GENERATORS["chi2"]


def of_two(p):
    """The first of two responses is preferred with probability p."""
    return np.array([[0.5, p], [1 - p, 0.5]])


def binomial(won, count, p):
    """The chance of so many wins."""
    return comb(count, won) * p**won * (1 - p) ** (count - won)


def pair_shares(problem):
    """How often (i, j) is a pair of preferred and other response."""
    won = problem.weights * problem.preference
    return won / won.sum()


def least(loss, log_start):
    """The policy of least loss that a quasi-Newton method finds in the logits."""
    found = minimize(loss, log_start, jac=True, method="BFGS", options={"gtol": 1e-8, "maxiter": 1000})
    return log_normalize(found.x)


def pair_loss(pairs, link, lam=1.0, margin=0.0):
    """Logits -> value and gradient of ``-lam sum pairs log sigma(s_i - s_j - margin)``; ``link(log pi) = s, ds/dlog pi``."""

    def loss(x):
        log_p = x - np.logaddexp.reduce(x)
        score, slope = link(log_p)
        gap = score[:, None] - score[None] - margin
        pull = pairs * expit(-gap)
        gradient = -lam * (pull - pull.T).sum(axis=1) * slope
        return -lam * np.sum(pairs * log_expit(gap)), gradient - np.exp(log_p) * gradient.sum()

    return loss


# P8 ------------------------------------------------------------------------------------------------
P8 = paper.claim("P8", r"""
    χ²-PO converges to the KL + χ² regularised optimum of the Bradley-Terry fit

    The minimiser of χ²-PO's population loss, $\phi(t)=t+\log t$ of $t=\pi/\pi_{ref}$ in the place of DPO's $\log t$, is the optimum of
    $E_\pi[\hat r]-\beta E_{ref}[\frac12(t-1)^2+t\log t]$.

    where: Huang et al. (arXiv 2407.13399), Section 3
    assumes: all pairs compared, no preference of 0 or 1.
    """)  # fmt: skip


# gradients end near 1e-8, curvatures are at least 1e-3 here
@P8.check(Identity(1e-4, scale=1), Space(problem=PROBLEM, log_ref=LAW, beta=Floats(0.3, 3.0), A=Sizes(2, 3)), instances=5, batched=False,
          false={"the link 2 t + log t": {"linear": 2.0}, "DPO's link": {"linear": 0.0}})  # fmt: skip
def chi2_po_by_a_generic_optimiser(problem, log_ref, beta, *, linear=1.0):
    def link(log_p):
        h = log_p - log_ref
        return beta * (linear * np.exp(h) + h), beta * (linear * np.exp(h) + 1)

    found = least(pair_loss(pair_shares(problem), link), log_ref)
    return np.exp(chi2_po_policy(log_ref, problem.preference, beta, problem.weights)), np.exp(found)


# P9 ------------------------------------------------------------------------------------------------
P9 = paper.claim("P9", r"""
    χ²-PO pays for errors of the reward only with the coverage of the policy it is compared with

    For any rewards $r,\hat r$, any policy $\pi^*$ and $V=\mathrm{Var}_{ref}(\hat r-r)$: the optimum of $\hat r$ under χ²-PO's penalty with
    $\beta=\sqrt{V/3\chi^2(\pi^*\Vert\pi_{ref})}$ has regret $J(\pi^*)-J(\hat\pi)\le(1+\sqrt3)\sqrt{\chi^2(\pi^*\Vert\pi_{ref})V}$: one-policy
    concentrability. The tilt (DPO) with the same $\beta$ goes where the errors are.

    where: form: Huang et al. (arXiv 2407.13399), Theorem 3.1; constants and this proof derived: Cauchy-Schwarz, and
    $\sqrt{xV}\le\frac\beta2x+\frac V{2\beta}$, $\mathrm{KL}\le\chi^2$
    assumes: errors of a shrunken fit, and noise of size $\pi_{ref}^{-a}$, as a sample leaves it with $a=\frac12$.
    """)  # fmt: skip


#: the reward of a response of probability 1e-8 is overestimated
RARE = {
    "log_ref": np.log([0.9 - 1e-8, 0.1, 1e-8]), "log_best": np.log([0.01, 0.99 - 1e-9, 1e-9]), "reward": np.array([0.0, 1.0, -1.0]),
    "noise": np.array([0.0, 0.0, 1.0]), "size": 0.1, "a": 0.5, "shrunk": 0.0,
}  # fmt: skip


@P9.check(
    Inequality(1e-9, scale=1e-9),
    Space(log_ref=Policies(spread=20.0), log_best=LAW, reward=Rewards(), noise=Normals("A"), size=Floats(1e-3, 0.3, log=True), a=Floats(0.0, 0.5),
          shrunk=Floats(0.0, 1.0), A=Sizes(2, 5)),
    instances=10,
    batched=False,
    false={"the tilt": Variant({"penalty": GENERATORS["kl"]}, examples=[RARE])},
)  # fmt: skip
def one_policy_concentrability(log_ref, log_best, reward, noise, size, a, shrunk, *, penalty=PENALTY):
    error = size * noise * np.exp(-a * log_ref) - shrunk * reward
    ref, coverage = np.exp(log_ref), chi2(log_best, log_ref) + 1e-6
    variance = ref @ (error - ref @ error) ** 2 + 1e-12
    found = f_regularized(log_ref, reward + error, np.sqrt(variance / (3 * coverage)), penalty).log_policy
    return (np.exp(log_best) - np.exp(found)) @ reward, (1 + np.sqrt(3)) * np.sqrt(coverage * variance), np.ptp(reward)


# P10 -----------------------------------------------------------------------------------------------
P10 = paper.claim("P10", r"""
    KTO's saturating loss keeps the policy near the reference

    A response that loses somewhat more often than it wins keeps $e^{-1/\beta}$ of its probability.

    where: as commonly read: value functions of prospect theory are flat far from the reference point
    instead: At the fixed point every response that loses more than it wins has probability 0, for every $\beta\le1$: the loss is flat far
    away but has no term that holds a response. IPO's move is bounded.
    by: P10-fixed
    origin: as commonly read
    """)  # fmt: skip


@P10.check(Inequality(1e-9), Space(p=Floats(0.51, 0.95), log_ref=LAW, beta=Floats(0.2, 1.0), A=Sizes(2, 2)), instances=12, batched=False,
           true={"IPO's": {"method": "ipo"}})  # fmt: skip
def keeps_the_loser(p, log_ref, beta, *, method="kto"):
    found = (
        kto_fixed_point(log_ref, of_two(p), beta).log_policy
        if method == "kto"
        else ipo_policy(log_ref, of_two(p), beta)
    )
    return np.exp(log_ref[1] - 1 / beta), np.exp(found[1])


P10_fixed = paper.claim("P10-fixed", r"""
    KTO's fixed point

    With $c=aD-bU$ (shares among the preferred and the other responses, weights a, b) and $z=\mathrm{KL}(\pi\Vert\pi_{ref})$ detached, the
    policy with $\pi_i=0$ where $c_i\le0$ and $c_i\,\sigma'(\beta(h_i-z))/\pi_i$ constant elsewhere has the least loss at its own z. What is not
    compared gets probability 0.

    where: loss: Ethayarajh et al. (arXiv 2402.01306); fixed point derived
    assumes: $\beta\le1$; some $c_i>0$.
    """)  # fmt: skip
KTO = {
    "problem": PreferenceBandits(spread=6.0, certain=True, uncovered=True),
    "beta": Floats(0.02, 1.0, log=True),
    "good": Floats(0.7, 1.5),
}


def kto_or_skip(problem, beta, good):
    """The fixed point; None where no response has more desirable than undesirable weight."""
    try:
        return kto_fixed_point(problem.log_ref, problem.preference, beta, desirable=good, weights=problem.weights)
    except ValueError:
        return None


@P10_fixed.check(Optimality(1e-11, scale=1), Space(**KTO, move=Normals("A"), size=Floats(1e-3, 3.0, log=True), A=Sizes(2, 6)), instances=25, batched=False,
                 false={"with twice the weight of the desirable": {"times": 2.0}})  # fmt: skip
def least_kto_loss_at_its_own_kl(problem, beta, good, move, size, *, times=1.0):
    found = kto_or_skip(problem, beta, times * good)
    if found is None or kto_or_skip(problem, beta, good) is None:
        return 0.0, 0.0
    desirable, undesirable = (s(problem.preference, problem.weights) for s in (winner_shares, loser_shares))

    def gain(log_p):
        gap = beta * (log_p - problem.log_ref - kl(found.log_policy, problem.log_ref))
        return good * desirable @ expit(gap) + undesirable @ expit(-gap)

    near = np.maximum(found.log_policy, found.log_policy.max() - 20.0)
    return gain(found.log_policy), np.max([gain(log_normalize(near + size * move)), gain(log_normalize(move))])


P10_small = paper.claim("P10-small", r"""
    For small β KTO is likelihood training on the winners' surplus, and forgets the reference

    $\pi_i\to(D_i-U_i)_+/Z$ as $\beta\to0$, whatever the reference; the distance falls like $\beta^2$.

    where: derived
    """)  # fmt: skip


@P10_small.check(Limit(rate=2.0, rate_tol=0.1), false={"times the reference": {"power": 1.0}})
def surplus_of_wins(*, power=0.0):
    preference, log_ref = (
        from_log_odds(np.array([[0, 0.5, 2.0, 1.0], [0, 0, 1.2, -0.4], [0, 0, 0, 0.3], [0, 0, 0, 0]])),
        np.log([0.1, 0.2, 0.4, 0.3]),
    )
    surplus = np.maximum(winner_shares(preference) - loser_shares(preference), 0) * np.exp(power * log_ref)
    betas = 0.4 * 2.0 ** -np.arange(2, 10)
    away = [
        np.abs(np.exp(kto_fixed_point(log_ref, preference, b).log_policy) - surplus / surplus.sum()).max()
        for b in betas
    ]
    return betas, away


# P11 -----------------------------------------------------------------------------------------------
P11 = paper.claim("P11", r"""
    SimPO's optimum: a tilt by length times fitted reward, without a reference

    $\log\pi_i=L_i(s_i/\beta+c)$ with s the Bradley-Terry fit of margin $\gamma$ and c the constant that makes probabilities add up to 1.

    where: loss: Meng et al. (arXiv 2405.14734); optimum derived
    assumes: all pairs compared, no preference of 0 or 1.
    """)  # fmt: skip
SIMPO = {
    "problem": PreferenceBandits(scale=0.7, spread=3.0),
    "lengths": LENGTHS,
    "beta": Floats(1.0, 4.0),
    "gamma": Floats(0.0, 2.0),
}


@P11.check(Identity(1e-4, scale=1), Space(**SIMPO, A=Sizes(2, 4)), instances=6, batched=False,
           false={"without the margin": {"margin": 0.0}, "lengths of half": {"share": 0.5}})  # fmt: skip
def simpo_by_a_generic_optimiser(problem, lengths, beta, gamma, *, margin=1.0, share=1.0):
    loss = pair_loss(pair_shares(problem), lambda log_p: (beta * log_p / lengths, beta / lengths), margin=gamma + 0.5)
    used = np.maximum(share * lengths, 1.0)
    known = simpo_policy(used, problem.preference, beta, gamma=margin * (gamma + 0.5), weights=problem.weights)
    return np.exp(known), np.exp(least(loss, np.zeros(len(lengths))))


# P12 -----------------------------------------------------------------------------------------------
P12 = paper.claim("P12", r"""
    The margin ensures that the winner's reward exceeds the loser's by at least γ

    At SimPO's optimum $\frac\beta{L_w}\log\pi_w-\frac\beta{L_l}\log\pi_l\ge\gamma$ for the response that is preferred more often.

    where: SimPO (arXiv 2405.14734), Section 2, of the margin: "to ensure that the reward for the winning response exceeds the reward for the losing
    response by at least γ", as commonly read
    instead: Exactly where labels agree enough: for two responses where $P\ge2/(3+e^{-2\gamma})$, at most two thirds.
    by: P12-when
    origin: as commonly read
    """)  # fmt: skip
PAIR = {"gamma": Floats(0.05, 4.0), "beta": Floats(0.5, 4.0), "first": Integers(1, 30), "second": Integers(1, 30)}


def rewards_apart(p, gamma, beta, first, second):
    lengths = np.array([first, second]) * 1.0
    log_p = simpo_policy(lengths, of_two(p), beta, gamma=gamma)
    return beta * (log_p[0] / first - log_p[1] / second)


@P12.check(Inequality(1e-9), Space(p=Floats(0.55, 0.95), **PAIR), instances=12, batched=False,
           true={"of preferences above two thirds": {"least": 2 / 3}})  # fmt: skip
def margin_is_reached(p, gamma, beta, first, second, *, least=0.0):
    return gamma, rewards_apart(max(p, least), gamma, beta, first, second)


P12_when = paper.claim("P12-when", r"""
    SimPO's difference of rewards for two responses, in closed form

    $e^d=\frac{(2P-1)+\sqrt{(2P-1)^2+4P(1-P)e^{-2\gamma}}}{2(1-P)e^{-\gamma}}$: 0 at a tie, $\log\frac P{1-P}$ at $\gamma=0$, near
    $\gamma+\log\frac{2P-1}{1-P}$ for large $\gamma$; it is $\gamma$ at $P=2/(3+e^{-2\gamma})$.

    where: derived
    """)  # fmt: skip


@P12_when.check(Identity(1e-9, scale=1), Space(p=Floats(0.5, 0.99), **PAIR), instances=12, batched=False,
                false={"without the square of the margin": {"square": 1.0}, "reached at two thirds": {"e": 0.0}})  # fmt: skip
def difference_of_rewards(p, gamma, beta, first, second, *, square=2.0, e=1.0):
    g, q = np.exp(-gamma), 2 * p - 1
    closed = np.log((q + np.sqrt(q**2 + 4 * p * (1 - p) * g**square)) / (2 * (1 - p) * g))
    return {
        "difference": (rewards_apart(p, gamma, beta, first, second), closed),
        "reached": (rewards_apart(2 / (3 + e * g**2), gamma, beta, first, second), gamma),
    }


# P13 -----------------------------------------------------------------------------------------------
P13 = paper.claim("P13", r"""
    Length normalisation makes SimPO indifferent to length

    Of two responses that are preferred as often the longer one is no less likely.

    where: as commonly read
    instead: Every token gets the same likelihood: $\pi_i=e^{cL_i}$ at ties, whatever the policy was before; twice the length squares the
    probability.
    by: P11
    origin: as commonly read
    """)  # fmt: skip


@P13.check(Inequality(1e-9), Space(first=Integers(1, 20), more=Integers(1, 20), beta=Floats(0.5, 4.0), gamma=Floats(0.0, 2.0)), instances=12, batched=False,
           true={"per token": {"per_token": True}})  # fmt: skip
def longer_is_as_likely(first, more, beta, gamma, *, per_token=False):
    lengths = np.array([first, first + more]) * 1.0
    score = simpo_policy(lengths, of_two(0.5), beta, gamma=gamma) / (lengths if per_token else 1.0)
    return score[0], score[1]


# P14 -----------------------------------------------------------------------------------------------
P14 = paper.claim("P14", r"""
    ORPO's optimum: between the winners' law and half of its log-odds

    For two responses of one token $\sigma(o)+2\lambda\sigma(2o)=(1+2\lambda)P$ for the log-odds o of the first, which lie between
    $\frac12\mathrm{logit}P$ and $\mathrm{logit}P$; for any number $\pi\propto D_i/L_i$ at $\lambda=0$, D the shares among preferred responses. No policy
    has less loss.

    where: loss: Hong et al. (arXiv 2403.07691); optimum derived
    """)  # fmt: skip
LAMBDA = {"lam": Floats(0.01, 10.0, log=True)}


@P14.check(Identity(1e-7, scale=1), Space(p=Floats(0.02, 0.98), **LAMBDA), instances=12, batched=False,
           false={"with lambda for 2 lambda": {"two": 1.0}})  # fmt: skip
def two_responses(p, lam, *, two=2.0):
    log_p = orpo_policy([1.0, 1.0], of_two(p), lam)
    odds = log_p[0] - log_p[1]
    return expit(odds) + two * lam * expit(2 * odds), (1 + two * lam) * p


@P14.check(Identity(1e-7, scale=1), Space(problem=PROBLEM, lengths=LENGTHS, A=Sizes(2, 6)), instances=12, batched=False,
           false={"D alone": {"power": 0.0}})  # fmt: skip
def likelihood_of_winners(problem, lengths, *, power=1.0):
    shares = winner_shares(problem.preference, problem.weights) / lengths**power
    return np.exp(orpo_policy(lengths, problem.preference, 0.0, weights=problem.weights)), shares / shares.sum()


@P14.check(Optimality(1e-11, scale=1), Space(problem=PreferenceBandits(spread=3.0), lengths=LENGTHS, **LAMBDA, move=Normals("A"), size=Floats(1e-3, 2.0, log=True), A=Sizes(2, 5)),
           instances=10, batched=False, false={"that of half of lambda": {"share": 0.5}})  # fmt: skip
def no_policy_has_less_orpo_loss(problem, lengths, lam, move, size, *, share=1.0):
    pairs = pair_shares(problem)

    def gain(log_p):
        mean = log_p / lengths
        odds = mean - np.log(-np.expm1(mean))
        return pairs.sum(axis=1) @ mean + lam * np.sum(pairs * log_expit(odds[:, None] - odds))

    found = orpo_policy(lengths, problem.preference, share * lam, weights=problem.weights)
    return gain(found), np.max([gain(log_normalize(found + size * move)), gain(log_normalize(2 * move))]), 1 + lam


# P15 -----------------------------------------------------------------------------------------------
P15 = paper.claim("P15", r"""
    ORPO ranks responses by preference, as DPO does

    With Bradley-Terry preferences the better of two responses of one length is the more likely one at ORPO's optimum.

    where: as commonly read
    instead: It ranks by how often a response is a winner in the data: one that is compared more often than a better one can be likelier.
    DPO's fit does not depend on the frequencies here.
    by: P14
    origin: as commonly read
    """)  # fmt: skip


@P15.check(Inequality(1e-7), Space(reward=Normals("A"), often=Normals("A"), lam=Floats(0.05, 1.0), A=Sizes(3, 5)), instances=30, batched=False,
           true={"all pairs as often": {"spread": 0.0}})  # fmt: skip
def ranks_by_preference(reward, often, lam, *, spread=1.0):
    """Of all pairs, minus the product of the differences, where it has the wrong sign."""
    weights = np.exp(spread * np.add.outer(often, often))
    found = orpo_policy(np.ones(len(reward)), bradley_terry(reward), lam, weights=weights)
    wrong = -np.subtract.outer(found, found) * np.subtract.outer(reward, reward)
    return wrong[~np.eye(len(reward), dtype=bool)].max(), 0.0, 1 + np.ptp(found) * np.ptp(reward)


# P16 -----------------------------------------------------------------------------------------------
P16 = paper.claim("P16", r"""
    Where comparisons fall into groups, gradient flow on DPO's loss ends at fits of mean 0 in every group

    From $\pi_{ref}$, with one logit a response, it ends at $\pi_{ref}e^{\hat r/\beta}/Z$, $\hat r$ the Bradley-Terry fit inside each group with mean
    0 there; what is compared with nothing keeps its logit.

    where: derived: a comparison moves the logits of its two responses oppositely, so a group's sum stays
    """)  # fmt: skip


def descended(log_ref, preference, weights, beta):
    """Gradient descent on the logits from the reference, until the gradient is 1e-8."""
    pairs, logits = weights * preference, log_ref.copy()
    for _ in range(20_000):
        log_p = logits - np.logaddexp.reduce(logits)
        gap = beta * np.subtract.outer(log_p - log_ref, log_p - log_ref)
        pull = pairs * expit(-gap)
        slope = -beta * (pull - pull.T).sum(axis=1)  # in log pi
        gradient = slope - np.exp(log_p) * slope.sum()
        logits -= gradient / (beta**2 * len(logits) / 4)
        if np.abs(gradient).max() < 1e-8 * beta:
            break
    return log_normalize(logits)


@P16.check(Identity(1e-5, scale=1), Space(preference=preferences(scale=0.7), log_ref=LAW, beta=Floats(0.3, 3.0), A=Sizes(4, 6)), instances=6, batched=False,
           false={"fits that are 0 at each group's first": {"centre": "first"}})  # fmt: skip
def end_of_the_flow(preference, log_ref, beta, *, centre="mean"):
    weights = np.zeros_like(preference)
    for group in (slice(0, 2), slice(2, len(preference) - 1)):  # the last one is in no comparison
        weights[group, group] = 1.0
    weights *= 1 - np.eye(len(weights))
    fit = bradley_terry_groups(preference, weights)
    if centre == "first":
        fit = fit - np.where(np.arange(len(fit)) < 2, fit[0], fit[2] if len(fit) > 4 else 0.0)
        fit[-1] = 0.0
    return np.exp(tilt(log_ref, fit, beta)), np.exp(descended(log_ref, preference, weights, beta))


# P17 -----------------------------------------------------------------------------------------------
P17 = paper.claim("P17", r"""
    The chance that a finite sample has a finite Bradley-Terry fit (DPO, χ²-PO, SimPO)

    The sum over graphs of wins that are strongly connected; for two responses compared m times $1-P^m-(1-P)^m$.

    where: existence: Hunter (Annals of Statistics 32, 2004); probability derived
    """)  # fmt: skip


@P17.check(Identity(1e-9, scale=1), Space(preference=preferences(3), m=Integers(1, 2), n=Integers(0, 2)), instances=4, batched=False,
           false={"one comparison more of the first pair": {"more": 1}})  # fmt: skip
def by_counting_samples(preference, m, n, *, more=0):
    """Over all counts of wins of three responses; one of the pairs is compared n times, the others m times."""
    times = np.array([[0, m, m], [m, 0, n], [m, n, 0]])
    finite = 0.0
    for wins in itertools.product(range(m + 1), range(m + 1), range(n + 1)):
        table = np.zeros((3, 3))
        for (i, j), won in zip(((0, 1), (0, 2), (1, 2)), wins):
            table[i, j], table[j, i] = won, times[i, j] - won
        chance = np.prod(
            [binomial(won, int(times[ij]), preference[ij]) for ij, won in zip(((0, 1), (0, 2), (1, 2)), wins)]
        )
        data = Comparisons(table)
        try:
            bradley_terry_fit(data.preference, data.weights)
            finite += chance
        except ValueError:
            pass
    times[0, 1] = times[1, 0] = m + more
    return finite_fit_probability(preference, times), finite


# P18 -----------------------------------------------------------------------------------------------
P18 = paper.claim("P18", r"""
    IPO's fit of a finite sample is unbiased

    With fixed numbers of comparisons the mean of the fits over samples is the fit of the population: it is linear in the shares of wins.
    That of the Bradley-Terry fit is infinite (P17).

    where: derived
    """)  # fmt: skip


@P18.check(Identity(1e-9, scale=1), Space(preference=preferences(3), m=Integers(1, 2), n=Integers(1, 2), tau=Floats(0.1, 3.0)), instances=4, batched=False,
           false={"with one win more for each (Laplace)": {"added": 1.0}})  # fmt: skip
def unbiased(preference, m, n, tau, *, added=0.0):
    pairs, times, mean = ((0, 1), (0, 2), (1, 2)), (m, m, n), np.zeros(3)
    weights = np.zeros((3, 3))
    for (i, j), count in zip(pairs, times):
        weights[i, j] = weights[j, i] = count
    for wins in itertools.product(*(range(count + 1) for count in times)):
        table, chance = np.zeros((3, 3)), 1.0
        for (i, j), won, count in zip(pairs, wins, times):
            table[i, j], table[j, i] = won + added, count - won + added
            chance *= binomial(won, count, preference[i, j])
        mean += chance * ipo_fit(Comparisons(table).preference, tau, weights)
    return mean, ipo_fit(preference, tau, weights)


# P19 -----------------------------------------------------------------------------------------------
P19 = paper.claim("P19", r"""
    SPPO's policy converges to the Nash policy

    After ten rounds $\mathrm{KL}(\pi_{Nash}\Vert\pi_t)$ is at most half of what it was.

    where: as commonly read: the theorem is about the average of the policies
    instead: Where the Nash policy has full support it never falls: the policy spirals outwards. The average converges. The last policy does
    where the reference moves along with it and every round is solved (proximal).
    by: P19-away, P19-average, P19-proximal
    origin: as commonly read
    """)  # fmt: skip


def cyclic(log_q, strength):
    """A game of three responses whose Nash policy is q: ``P = 1/2 + A``, ``A q = 0``."""
    a, b, c = np.exp(log_q)
    turn = np.array([[0.0, c, -b], [-c, 0.0, a], [b, -a, 0.0]])
    return 0.5 + strength * turn / np.abs(turn).max()


CYCLIC = {"log_q": Policies(3, spread=1.5), "log_start": Policies(3, spread=3.0), "strength": Floats(0.3, 0.5)}


AWAY = {"log_q": np.log(np.full(3, 1 / 3)), "log_start": np.log([0.5, 0.3, 0.2]), "strength": 0.5, "rate": 0.5}


@P19.check(Inequality(1e-9), Space(**CYCLIC, rate=Floats(0.1, 2.0)), instances=4, batched=False, examples=[AWAY],
           true={"proximal rounds": {"proximal": True}})  # fmt: skip
def closer_after_ten_rounds(log_q, log_start, strength, rate, *, proximal=False):
    game = cyclic(log_q, strength)
    run = proximal_play(game, log_start, 0.005, 10) if proximal else sppo(game, log_start, rate, 10)
    return kl(log_q, run.log_policies[-1]), 0.5 * kl(log_q, log_start), 1.0


P19_away = paper.claim("P19-away", r"""
    Multiplicative weights move away from a Nash policy of full support

    $\mathrm{KL}(q\Vert\pi_{t+1})\ge\mathrm{KL}(q\Vert\pi_t)$ at every step and every rate.

    where: known of replicator dynamics and Hedge; this form derived by Jensen's inequality from $Pq=\frac12$
    """)  # fmt: skip


@P19_away.check(Inequality(1e-10, scale=1), Space(**CYCLIC, rate=Floats(0.01, 5.0, log=True)), instances=12, batched=False,
                false={"proximal rounds": {"proximal": True}})  # fmt: skip
def never_nearer(log_q, log_start, strength, rate, *, proximal=False):
    game = cyclic(log_q, strength)
    run = proximal_play(game, log_start, 1 / rate, 5) if proximal else sppo(game, log_start, rate, 30)
    away = kl(log_q[None], run.log_policies)
    return away[:-1], away[1:], 1 + away[1:]


P19_average = paper.claim("P19-average", r"""
    The average of T rounds of multiplicative weights is nearly a Nash policy

    No response is preferred to it by more than $\frac12+\frac{\max_i\log1/\pi_0(i)}{\eta T}+\frac\eta8$.

    where: regret of Hedge (Freund and Schapire 1999); SPPO (arXiv 2405.00675), Theorem 4.1 has $O(1/\sqrt T)$
    """)  # fmt: skip


@P19_average.check(Inequality(1e-10, scale=1), Space(preference=preferences(scale=3.0), log_start=LAW, rate=Floats(0.02, 1.0, log=True), T=Integers(50, 400), A=Sizes(2, 6)),
                   instances=12, batched=False, false={"without the term of the start": {"start": 0.0}})  # fmt: skip
def average_loses_little(preference, log_start, rate, T, *, start=1.0):
    run = sppo(preference, log_start, rate, T)
    return exploitability(run.log_average, preference, log_start, 0.0), start * np.max(-log_start) / (
        rate * T
    ) + rate / 8


P19_proximal = paper.claim("P19-proximal", r"""
    With a reference that moves along, the last policy comes nearer to a Nash policy, by what it moves

    $\mathrm{KL}(q\Vert\pi_{t+1})+\mathrm{KL}(\pi_{t+1}\Vert\pi_t)=\mathrm{KL}(q\Vert\pi_t)$ where q has full support and every round is the regularised Nash
    policy with reference $\pi_t$; at most that for every Nash policy.

    where: proximal point method; moving reference of Perolat et al. (arXiv 2002.08456); equality derived
    """)  # fmt: skip


@P19_proximal.check(Identity(1e-8, scale=1), Space(**CYCLIC, tau=Floats(0.02, 5.0, log=True)), instances=8, batched=False,
                    false={"one step of multiplicative weights": {"exact": False}})  # fmt: skip
def nearer_by_the_step(log_q, log_start, strength, tau, *, exact=True):
    game = cyclic(log_q, strength)
    run = (proximal_play(game, log_start, tau, 4) if exact else sppo(game, log_start, 1 / tau, 4)).log_policies
    away = kl(log_q[None], run)
    return away[1:] + kl(run[1:], run[:-1]), away[:-1], 1 + away[:-1]


# P20 -----------------------------------------------------------------------------------------------
P20 = paper.claim("P20", r"""
    Magnetic mirror descent converges linearly to the regularised Nash policy

    $\mathrm{KL}(q\Vert\pi_{t+1})\le\mathrm{KL}(q\Vert\pi_t)/(1+\eta\tau)$ for $\eta\le\tau/L^2$, $L=\max|P-\frac12|$.

    where: Sokota et al. (arXiv 2206.05825), Theorem 3.4, with the L of a preference game
    """)  # fmt: skip
GAME = {"preference": preferences(scale=3.0), "log_ref": LAW}


@P20.check(Inequality(1e-10, scale=1), Space(**GAME, tau=Floats(0.03, 1.0, log=True), A=Sizes(2, 6)), instances=10, batched=False,
           false={"at the rate of Nash-MD's opponent": {"method": nash_md}})  # fmt: skip
def linear_rate(preference, log_ref, tau, *, method=magnetic_descent):
    rate = min(tau / np.abs(preference - 0.5).max() ** 2, 0.99 / tau)
    nash = regularized_nash(preference, log_ref, tau).log_policy
    away = kl(nash[None], method(preference, log_ref, tau, rate, 20).log_policies)
    return away[1:], away[:-1] / (1 + rate * tau), 1 + away[:-1]


# P21 -----------------------------------------------------------------------------------------------
P21 = paper.claim("P21", r"""
    Nash-MD at a fixed rate converges to the regularised Nash policy

    Its last policy tends to the solution of $\pi=\pi_{ref}e^{P\pi/\tau}/Z$.

    where: as commonly read; the theorem has falling rates
    instead: Its opponent is the mixture $\pi^{1-\eta\tau}\pi_{ref}^{\eta\tau}$, so it ends at distance of order $\eta$. The magnetic step ends at the solution.
    by: P21-order, P20
    origin: as commonly read
    """)  # fmt: skip


@P21.check(Identity(1e-6, scale=1), Space(**GAME, tau=Floats(0.3, 1.0), A=Sizes(3, 5)), instances=6, batched=False,
           true={"the magnetic step": {"method": magnetic_descent}})  # fmt: skip
def ends_at_the_solution(preference, log_ref, tau, *, method=nash_md):
    run = method(preference, log_ref, tau, 0.5, 120)
    return np.exp(run.log_policies[-1]), np.exp(regularized_nash(preference, log_ref, tau).log_policy)


P21_order = paper.claim("P21-order", r"""
    Nash-MD at a fixed rate ends at a distance of first order in the rate

    The distance of its last policy from the regularised Nash policy falls like $\eta$.

    where: Munos et al. (arXiv 2312.00886), Theorem 1, has KL of order $\eta$; the order of the distance derived
    """)  # fmt: skip
ROUND = from_log_odds(np.array([[0, 2.0, -1.5], [0, 0, 1.0], [0, 0, 0]])), np.log([0.5, 0.3, 0.2])


@P21_order.check(
    Limit(rate=1.0, rate_tol=0.1), false={"the average of two rates, extrapolated": {"extrapolated": True}}
)
def first_order(*, extrapolated=False):
    preference, log_ref = ROUND
    nash, rates = np.exp(regularized_nash(preference, log_ref, 0.5).log_policy), 0.8 * 2.0 ** -np.arange(0, 5)

    def end(rate):
        return np.exp(nash_md(preference, log_ref, 0.5, rate, int(40 / rate)).log_policies[-1])

    ends = [2 * end(r / 2) - end(r) if extrapolated else end(r) for r in rates]
    return rates, [np.abs(e - nash).max() for e in ends]


# P22 -----------------------------------------------------------------------------------------------
P22 = paper.claim("P22", r"""
    The minimum of SPPO's square loss is the step of multiplicative weights, up to third order in the rate

    The policy of least $E_{\pi}(\log\frac{\pi'}{\pi}-\eta(P\pi-\frac12))^2$, which has $\eta/2$ in the place of $\log Z$, and $\pi e^{\eta P\pi}/Z$ are
    $O(\eta^3)$ apart.

    where: loss: Wu et al. (arXiv 2405.00675); order derived
    """)  # fmt: skip


@P22.check(Limit(rate=3.0, rate_tol=0.15), false={"at a rate of 1.01 eta": {"times": 1.01}})
def third_order(*, times=1.0):
    preference, log_policy = ROUND
    rates = 2.0 ** -np.arange(0, 7)
    exact = [np.exp(sppo(preference, log_policy, times * r, 1).log_policies[-1]) for r in rates]
    return rates, [np.abs(np.exp(sppo_step(preference, log_policy, r)) - e).max() for r, e in zip(rates, exact)]


@P22.check(Optimality(1e-12, scale=1), Space(**GAME, rate=Floats(0.1, 5.0), move=Normals("A"), size=Floats(1e-3, 2.0, log=True), A=Sizes(2, 5)), instances=12, batched=False,
           false={"the step of multiplicative weights": {"exact": False}})  # fmt: skip
def no_policy_has_less_sppo_loss(preference, log_ref, rate, move, size, *, exact=True):
    aim = rate * (preference @ np.exp(log_ref) - 0.5)
    found = sppo_step(preference, log_ref, rate) if exact else log_normalize(log_ref + aim)
    nearby = [log_normalize(found + s * move) for s in (-size, size)] + [sppo_step(preference, log_ref, rate)]
    gains = [-np.exp(log_ref) @ (x - log_ref - aim) ** 2 for x in (found, *nearby)]
    return gains[0], np.max(gains[1:]), 1 + rate**2
