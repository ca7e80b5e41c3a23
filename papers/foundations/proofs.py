"""B: inequalities proven on boxes, and certified optima, by ball arithmetic."""

from __future__ import annotations

import numpy as np

from klsim.certified import certified_f_regularized, certified_kl_constrained
from klsim.claims import Identity, Proven, assume
from klsim.distributions import log_normalize
from klsim.divergences import GENERATORS
from klsim.optima import f_regularized, kl_constrained
from klsim.spaces import Floats, Normals, Sizes, Space

from .collection import paper

FLINT = ("flint",)


def binary_kl(p, q):
    """KL of Bernoulli laws, of balls."""
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


# B1 ------------------------------------------------------------------------------------------------
B1 = paper.claim("B1", r"""
    With rewards 0 and 1 the KL of best-of-n is below that of continuous rewards: proven on a box

    $(1-q^n)\log\frac{1-q^n}{1-q}+(n-1)q^n\log q\le\log n-\frac{n-1}n$ for all real $n\in[2,64]$ and $q\in[.02,.98]$.

    where: Beirami et al. (arXiv 2401.01879), for all reward laws
    """, requires=FLINT)  # fmt: skip


@B1.check(Proven({"q": (0.02, 0.98), "n": (2.0, 64.0)}), false={"log n - 1": {"more": 0.0}})
def kl_of_best_of_n(q, n, *, more=1.0):
    fails = (n * q.log()).exp()
    return (1 - fails) * ((1 - fails) / (1 - q)).log() + (n - 1) * fails * q.log(), n.log() - 1 + more / n


# B2 ------------------------------------------------------------------------------------------------
B2 = paper.claim("B2", r"""
    Pinsker and the χ² bound for two outcomes, proven on a box

    $2(p-q)^2\le\mathrm{KL}(p\Vert q)\le\frac{(p-q)^2}{q(1-q)}$ for $p\in[.05,.25]$, $q\in[.6,.95]$.

    where: Pinsker; Gibbs and Su (2002)
    """, requires=FLINT)  # fmt: skip


@B2.check(Proven({"p": (0.05, 0.25), "q": (0.6, 0.95)}),
          false={"2.5 instead of 2": {"lower": 2.5}, "half of the upper bound": {"upper": 0.5}})  # fmt: skip
def pinsker(p, q, *, lower=2.0, upper=1.0):
    return {
        "lower": (lower * (p - q) ** 2, binary_kl(p, q)),
        "upper": (binary_kl(p, q), upper * (p - q) ** 2 / (q * (1 - q))),
    }


# B3 ------------------------------------------------------------------------------------------------
B3 = paper.claim("B3", r"""
    KL is bounded by four times the squared distance

    $\mathrm{KL}(p\Vert q)\le4(p-q)^2$: near equality it is $\frac{(p-q)^2}{2q(1-q)}$.

    where: as commonly used near equality
    instead: Only where q is not near 0 or 1: proven for $q\in[.35,.65]$ and p at least .1 away.
    by: B2
    origin: folklore
    """, requires=FLINT)  # fmt: skip


@B3.check(Proven({"p": (0.05, 0.25), "q": (0.35, 0.99)}), true={"q up to .65": {"most": 0.65}})
def four_times(p, q, *, most=0.99):
    q = 0.35 + (q - 0.35) * (most - 0.35) / 0.64
    return binary_kl(p, q), 4 * (p - q) ** 2


# B4 ------------------------------------------------------------------------------------------------
B4 = paper.claim("B4", r"""
    Where pass@k weighs a success more than pass@1: proven for all real k in [2, 32]

    At $p=1-k^{-1/(k-1)}$ the weights $k(1-p)^{k-1}$ and 1 are equal; below by .01 or more pass@k's is larger, above smaller.

    where: K3-threshold
    """, requires=FLINT)  # fmt: skip


@B4.check(Proven({"k": (2.0, 32.0), "away": (0.01, 0.2)}), false={"at 1/k": {"at_k": True}})
def weight_of_a_success(k, away, *, at_k=False):
    threshold = 1 / k if at_k else 1 - (-k.log() / (k - 1)).exp()
    below, above = (k.log() + (k - 1) * (1 - threshold + sign * away).log() for sign in (1, -1))
    return {"below": (-below, 0), "above": (above, 0)}


# B5 ------------------------------------------------------------------------------------------------
B5 = paper.claim("B5", r"""
    Pinsker, Bretagnolle-Huber and $\mathrm{KL}\le\log(1+\chi^2)$ for two outcomes, proven up to .02 from the edges and .12 from equality

    $2d^2\le\mathrm{KL}(p\Vert q)\le\log(1+\chi^2)$ and $d^2\le1-e^{-\mathrm{KL}}$, $d=|p-q|$, for $q\in[.02,.85]$ and $p\in[q+.12,.98]$; by symmetry also
    below q.

    where: Pinsker; Bretagnolle and Huber (1979); Gibbs and Su (2002)
    """, requires=FLINT)  # fmt: skip


@B5.check(Proven({"q": (0.02, 0.85), "share": (0.0, 1.0)}),
          false={"2.3 instead of 2": {"two": 2.3}, "exp(-KL/2)": {"rate": 0.5}, "log(1 + .8 chi²)": {"chi": 0.8}})  # fmt: skip
def between_distances(q, share, *, two=2.0, rate=1.0, chi=1.0):
    d = 0.12 + share * (0.86 - q)
    divergence = binary_kl(q + d, q)
    return {
        "Pinsker": (two * d**2, divergence),
        "Bretagnolle-Huber": (d**2, 1 - (-rate * divergence).exp()),
        "chi-squared": (divergence, (1 + chi * d**2 / (q * (1 - q))).log()),
    }


# B6 ------------------------------------------------------------------------------------------------
B6 = paper.claim("B6", r"""
    With rewards 0 and 1 best-of-n wins at most $\frac n{n+1}$ of the time: proven on a box

    $(1-q^n)\big(q+\frac{1-q}2\big)+q^n\frac q2\le\frac n{n+1}$, ties counted half, for all real $n\in[1.5,64]$ and $q\in[.01,.99]$.

    where: Gui et al. (arXiv 2406.00832), for continuous rewards, where it is an equality
    """, requires=FLINT)  # fmt: skip


@B6.check(Proven({"q": (0.01, 0.99), "n": (1.5, 64.0)}), false={"(n-1/2)/(n+1/2)": {"less": 0.5}})
def win_rate(q, n, *, less=0.0):
    fails = (n * q.log()).exp()
    return (1 - fails) * (1 + q) / 2 + fails * q / 2, (n - less) / (n + 1 - less)


# B7 ------------------------------------------------------------------------------------------------
B7 = paper.claim("B7", r"""
    What a KL-regularised optimum gains is at most an eighth of its strength: Hoeffding's lemma, proven on a box

    Rewards 0 and 1, $s=1/\beta$: $\beta\log E\,e^{r/\beta}\le E[r]+\frac1{8\beta}$ for success $p\in[.01,.99]$ and $s\in[.5,20]$.

    where: Hoeffding (1963)
    """, requires=FLINT)  # fmt: skip


@B7.check(Proven({"p": (0.01, 0.99), "s": (0.5, 20.0)}), false={"a ninth": {"part": 9.0}})
def hoeffding(p, s, *, part=8.0):
    return (1 - p + p * s.exp()).log(), p * s + s**2 / part


# B8 ------------------------------------------------------------------------------------------------
B8 = paper.claim("B8", r"""
    The multiplier of a KL budget, certified

    There is exactly one strength near the one that is computed whose tilt has the KL of the budget, by interval Newton; the computed $\beta$ and
    reward lie within $10^{-10}$ of the enclosure.

    where: Krawczyk (1969)
    """, requires=FLINT)  # fmt: skip
CERTIFIED = {"log_ref": Normals("A").map(log_normalize), "reward": Normals("A"), "A": Sizes(2, 4)}


@B8.check(Identity(1e-10), Space(**CERTIFIED, share=Floats(0.01, 0.95)), instances=8, batched=False,
          false={"budget and a millionth more": {"more": 1e-6}})  # fmt: skip
def multiplier_of_a_budget(log_ref, reward, share, *, more=0.0):
    assume(np.ptp(reward) > 0.01)
    budget = -share * np.logaddexp.reduce(log_ref[reward == reward.max()])
    found, proven = (
        kl_constrained(log_ref, reward, budget * (1 + more)),
        certified_kl_constrained(log_ref, reward, budget),
    )
    return {
        "multiplier": (found.beta, proven.multiplier),
        "reward": (found.reward, proven.reward, np.abs(reward).max()),
        "enclosed": (proven.multiplier + proven.multiplier_radius, proven.multiplier),
    }


# B9 ------------------------------------------------------------------------------------------------
B9 = paper.claim("B9", r"""
    Optima under $\chi^2$ + KL, certified to be the only ones

    Stationarity has exactly one root near the computed policy, by interval Newton for all ratios and the multiplier at once; the computed
    policy lies within $10^{-10}$ of the enclosure.

    where: Krawczyk (1969)
    """, requires=FLINT)  # fmt: skip


@B9.check(Identity(1e-10, scale=1), Space(**CERTIFIED, beta=Floats(0.2, 5.0, log=True), weight=Floats(0.05, 2.0)), instances=5, batched=False,
          false={"a millionth more KL": {"more": 1e-6}})  # fmt: skip
def sums(log_ref, reward, beta, weight, *, more=0.0):
    generators = [GENERATORS["chi2"] + w * GENERATORS["kl"] for w in (weight * (1 + more), weight)]
    found, proven = (
        f_regularized(log_ref, reward, beta, generators[0]),
        certified_f_regularized(log_ref, reward, beta, generators[1]),
    )
    return np.exp(found.log_policy), np.exp(proven.log_policy)


# B10 -----------------------------------------------------------------------------------------------
B10 = paper.claim("B10", r"""
    KL is at most half of $\chi^2$

    $\mathrm{KL}(p\Vert q)\le\frac12\chi^2(p\Vert q)$: to second order they are equal.

    where: folklore of trust regions, from the expansion near equality
    instead: Only where p lies on the side of q towards 1/2: proven for $q\in[.02,.4]$, $p\in[q+.05,.6]$. Everywhere $\mathrm{KL}\le\log(1+\chi^2)$ (B5).
    by: B5
    origin: folklore
    """, requires=FLINT)  # fmt: skip


@B10.check(Proven({"q": (0.02, 0.4), "share": (0.0, 1.0)}), true={"towards 1/2": {"away": False}})
def half(q, share, *, away=True):
    p = q * (0.1 + 0.8 * share) if away else q + 0.05 + share * (0.55 - q)
    return binary_kl(p, q), (p - q) ** 2 / (2 * q * (1 - q))
