"""G, continued: copulas, gold along the tilt and along best-of-n, where to stop, the forms of over-optimisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats
from scipy.special import ndtr, roots_legendre

from klsim.claims import Identity, Inequality, Limit, shared
from klsim.continuous import best_of_n_reward
from klsim.proxy_gold import (
    additive_error,
    along_best_of_n,
    along_tilt,
    best_of_n_form,
    gaussian_copula,
    stop_best_of_n,
    stop_tilt,
    tilt_form,
)
from klsim.spaces import Choice, Floats, Space

from .collection import paper

LAWS = {
    "normal": stats.norm(),
    "logistic": stats.logistic(),
    "gumbel": stats.gumbel_r(),
    "exponential": stats.expon(),
    "Student t, 2.5": stats.t(2.5),
    "Pareto, 2.5": stats.pareto(2.5),
}
NORMAL = stats.norm()
RHO = Floats(-0.95, 0.95)


@shared
def normal_proxy(law="normal"):
    return gaussian_copula(LAWS[law], NORMAL, 0.5)


@shared
def copula_with(law, rho):
    """Normal gold."""
    return gaussian_copula(LAWS[law], NORMAL, rho)


@shared
def best_number(df):
    """Of samples, at an independent error."""
    return stop_best_of_n(independent_error(df)).at


@shared
def independent_error(df):
    """Normal gold and Student's t as error."""
    return additive_error(NORMAL, stats.t(df))


def bent(slope, bend, law="normal"):
    """A proxy with this law and ``E[gold|x] = slope x - bend x^2``."""
    pair = normal_proxy(law)
    return replace(pair, gold=slope * pair.proxy - bend * pair.proxy**2)


# G3 ------------------------------------------------------------------------------------------------
G3 = paper.claim("G3", r"""
    A Gaussian copula slows the clock: the gold reward at KL $\kappa$ is that of a perfect proxy at $\rho^2\kappa$

    For a normal proxy and any law $g(\Phi(\cdot))$ of gold the tilt of KL $\kappa$ has gold reward $E[g(\rho\sqrt{2\kappa}+Z)]$, by Gauss-Legendre quadrature.

    where: derived
    """)  # fmt: skip


@G3.check(Identity(1e-7, scale=1), Space(law=Choice("normal", "logistic", "gumbel", "exponential"), rho=RHO, budget=Floats(0.05, 8.0)), instances=4, batched=False,
          false={"rho instead of its square": {"power": 0.5}})  # fmt: skip
def clock(law, rho, budget, *, power=1.0):
    gold, shift = LAWS[law], np.sign(rho) * np.abs(rho) ** power * np.sqrt(2 * budget)

    z, weight = roots_legendre(400)
    s = shift + 14 * z
    values = np.where(s < 0, gold.ppf(ndtr(s)), gold.isf(ndtr(-s)))
    wanted = 14 * weight @ (values * np.exp(-98 * z**2)) / np.sqrt(2 * np.pi)
    return along_tilt(gaussian_copula(NORMAL, gold, rho), 1 / np.sqrt(2 * budget)).gold, wanted


# G4 ------------------------------------------------------------------------------------------------
G4 = paper.claim("G4", r"""
    $d(\alpha-\beta d)$ is derived for every proxy with exponential moments: the first two orders in $d=\sqrt{\mathrm{KL}}$, of the tilt and of best-of-n

    Gold along the tilt is $E[m]+d(\alpha-\beta d)+O(d^3)$ with $\alpha=\sqrt2\,\mathrm{Cov}(x,m)/\sigma$ and
    $\beta=\frac{2k_3\mathrm{Cov}(x,m)}{3\sigma^4}-\frac{E[(x-\bar x)^2(m-\bar m)]}{\sigma^2}$, m the conditional mean of gold; along best-of-n (n near 1) with
    $E=-\log P(\le x)$: $\alpha=\sqrt2E[(1-E)m]$, $\beta=-2E[(\frac{E^2}2-E)m]-\frac43E[(1-E)m]$.

    where: form: Gao et al. (arXiv 2210.10760), fitted; the orders derived
    """)  # fmt: skip
SKEWED = {"proxy": stats.gumbel_r(), "gold": stats.expon(), "rho": 0.8}


def beyond_the_form(pair, points, form, start):
    """``(d, gold - E[m] - d (alpha - beta d))``."""
    d, gold = np.sqrt([p.kl for p in points]), np.array([p.gold for p in points])
    return d, gold - np.exp(pair.log_weight) @ pair.gold - d * (form[0] - start * form[1] * d)


@G4.check(Limit(rate=3.0, rate_tol=0.1), false={"with .9 of beta": {"share": 0.9}})
def third_order_of_the_tilt(*, share=1.0):
    pair = gaussian_copula(**SKEWED)
    return beyond_the_form(pair, [along_tilt(pair, 2.0**k) for k in range(2, 9)], tilt_form(pair), share)


@G4.check(Limit(rate=3.0, rate_tol=0.1), false={"with .9 of beta": {"share": 0.9}})
def third_order_of_best_of_n(*, share=1.0):
    pair = gaussian_copula(**SKEWED)
    return beyond_the_form(pair, [along_best_of_n(pair, 1 + 2.0**-k) for k in range(1, 9)], best_of_n_form(pair), share)


# G5 ------------------------------------------------------------------------------------------------
G5 = paper.claim("G5", r"""
    Gold along KL-regularised RL has the form $d(\alpha-\beta\log d)$

    With $S(d)=(\text{gold}-E[m])/d$: $S(d/4)-S(d/2)=S(d/2)-S(d)$, as every $\alpha-\beta\log d$ has.

    where: Gao et al. (arXiv 2210.10760), fitted to PPO, read as the form of the optimum
    instead: Near 0 the optimum has a finite slope and the form $d(\alpha-\beta d)$, whose differences halve (exactly so with a normal proxy and quadratic
    conditional gold). At large d it has the logarithm where $E[gold\mid proxy=x]$ is $x(a-b\log x)$.
    by: G4, G5-large
    origin: as commonly read
    """)  # fmt: skip


@G5.check(Identity(1e-6, scale=0.01), Space(slope=Floats(0.2, 1.0), bend=Floats(0.2, 1.0), d=Floats(0.05, 2.0)), instances=8, batched=False,
          true={"differences that halve": {"halves": 2.0}})  # fmt: skip
def differences_of_slopes(slope, bend, d, *, halves=1.0):
    pair = bent(slope, bend)
    s = [(along_tilt(pair, 1 / (np.sqrt(2) * x)).gold + bend) / x for x in (d, d / 2, d / 4)]
    return halves * (s[2] - s[1]), s[1] - s[0], np.abs(s[0]) + np.abs(s[2])


G5_large = paper.claim("G5-large", r"""
    At large d the form of the curve is that of E[gold | proxy]

    For a normal proxy and $E[gold|x]=x(a-b\log x)$ above 1 the gold reward is $\sqrt2\,d(a-b\log\sqrt2d)$ up to an error like $1/d$.

    where: derived: gold along the tilt is $E[m(\sqrt2d+Z)]$
    """)  # fmt: skip


@G5_large.check(Limit(rate=-1.0, rate_tol=0.1), false={"with d for sqrt(2) d": {"two": 1.0}})
def logarithm_at_large_d(*, two=2.0):
    pair, a, b = normal_proxy(), 2.0, 0.5
    pair = replace(pair, gold=pair.proxy * (a - b * np.log(np.maximum(pair.proxy, 1.0))))
    d = np.array([3.0, 3.6, 4.3, 5.2, 6.2, 7.5, 9.0])
    x = np.sqrt(two) * d
    return d, [along_tilt(pair, 1 / (np.sqrt(2) * e)).gold - y * (a - b * np.log(y)) for e, y in zip(d, x)]


# G6 ------------------------------------------------------------------------------------------------
G6 = paper.claim("G6", r"""
    A heavy-tailed proxy makes best-of-n fail

    With a heavy-tailed proxy the gold reward of the best of a million is no higher than that of the best of ten.

    where: as commonly read of "catastrophic Goodhart" (arXiv 2407.14503)
    instead: Best-of-n sees ranks: with a Gaussian copula it brings what it brings with a normal proxy, whatever the tails. It fails where the tail of the proxy
    is an independent error.
    by: G6-ranks
    origin: as commonly read
    """)  # fmt: skip


@G6.check(Inequality(1e-9, scale=1), Space(law=Choice("Student t, 2.5", "Pareto, 2.5"), rho=Choice(0.3, 0.6, 0.9), df=Choice(1.5, 2.0, 2.5)), instances=4, batched=False,
          true={"an independent error of that tail": {"independent": True}})  # fmt: skip
def falls_from_ten_to_a_million(law, rho, df, *, independent=False):
    pair = independent_error(df) if independent else copula_with(law, rho)
    return along_best_of_n(pair, 1e6).gold, along_best_of_n(pair, 10.0).gold


G6_ranks = paper.claim("G6-ranks", r"""
    Gold of best-of-n under a Gaussian copula: $\rho$ times the expected maximum, for every law of the proxy

    With normal gold it is $\rho E[\max(Z_1,\dots,Z_n)]$.

    where: derived
    """)  # fmt: skip


@G6_ranks.check(Identity(1e-8, scale=1), Space(law=Choice(*LAWS), rho=RHO, n=Floats(1.0, 1e6, log=True)), instances=4, batched=False,
                false={"rho squared": {"power": 2.0}})  # fmt: skip
def share_of_the_maximum(law, rho, n, *, power=1.0):
    found = along_best_of_n(gaussian_copula(LAWS[law], NORMAL, rho), n).gold
    return found, np.sign(rho) * np.abs(rho) ** power * best_of_n_reward(NORMAL, n)


# G7 ------------------------------------------------------------------------------------------------
G7 = paper.claim("G7", r"""
    Catastrophic Goodhart needs no independence: heavy-tailed proxy, Gaussian copula of any correlation, normal gold

    The mixture $(1-\epsilon)\pi_{ref}+\epsilon\,\pi_{ref}(\cdot\mid x>t)$ with $\epsilon=\kappa/\log(1/P(x>t))$, of KL at most $\kappa$, has an unbounded proxy
    reward (C3-any) while its gold reward returns to that of the reference, like $1/u$ at the normal score u of t. With an exponential tail of gold it
    does not: it keeps $\kappa\rho^2$ of it.

    where: with independent errors: Kwa et al. (arXiv 2407.14503); with copulas derived
    """)  # fmt: skip


# the mean beyond u is u + 1/u - …: exponents 2/u^2 off, 0.002 at the end
@G7.check(Limit(rate=-1.0, rate_tol=0.05), false={"exponential gold": {"gold": stats.expon()}})
def gold_returns(*, gold=NORMAL):
    pair, budget = gaussian_copula(LAWS["Pareto, 2.5"], gold, 0.9), 0.5
    weight, scores = np.exp(pair.log_weight), np.array([6.0, 7.5, 9.0, 11.0, 13.0, 15.5, 18.0])
    gains = []
    for u in scores:
        log_tail = stats.norm.logsf(u)
        above = pair.log_cdf >= stats.norm.logcdf(u)
        gains.append(budget / -log_tail * (weight[above] @ pair.gold[above] / weight[above].sum() - weight @ pair.gold))
    return scores, gains


# G8 ------------------------------------------------------------------------------------------------
G8 = paper.claim("G8", r"""
    Where to stop: the KL at which proxy and conditional gold are uncorrelated under the policy

    The tilt with $\mathrm{Cov}_\beta(x,E[gold|x])=0$ has the largest gold reward; for a normal proxy and $E[gold|x]=ax-bx^2$ it is at $\mathrm{KL}=a^2/8b^2$.

    where: derived
    """)  # fmt: skip


@G8.check(Identity(1e-9), Space(slope=Floats(0.2, 1.0), bend=Floats(0.15, 0.6)), instances=4, batched=False,
          false={"at half of the bend": {"share": 0.5}})  # fmt: skip
def stopped_in_closed_form(slope, bend, *, share=1.0):
    found = stop_tilt(bent(slope, share * bend))
    return found.kl, slope**2 / (8 * bend**2)


@G8.check(Inequality(1e-10, scale=1), Space(law=Choice("normal", "logistic", "gumbel"), slope=Floats(0.2, 1.0), bend=Floats(0.1, 0.6), beta=Floats(0.3, 20.0, log=True)), instances=4,
          batched=False, false={"at a quarter of its temperature": {"times": 0.25}})  # fmt: skip
def no_tilt_has_more_gold(law, slope, bend, beta, *, times=1.0):
    pair = bent(slope, bend, law)
    found = stop_tilt(pair)
    try:
        other, at = along_tilt(pair, beta).gold, along_tilt(pair, times * found.at).gold
    except ValueError:  # no optimum at this temperature
        return 0.0, 0.0
    return other, at


@G8.check(Inequality(1e-10, scale=1), Space(df=Choice(1.5, 2.0, 2.5, 4.0), n=Floats(1.0, 1e6, log=True)), instances=6, batched=False,
          false={"at four times that n": {"times": 4.0}})  # fmt: skip
def no_n_has_more_gold(df, n, *, times=1.0):
    pair = independent_error(df)
    return along_best_of_n(pair, float(np.round(n))).gold, along_best_of_n(pair, times * best_number(df)).gold


# G9 ------------------------------------------------------------------------------------------------
G9 = paper.claim("G9", r"""
    At the same KL the tilt has at least the gold reward of best-of-n

    It has at least its proxy reward.

    where: folklore
    instead: More proxy is more gold where $E[gold|proxy]$ is linear; past the peak of a bent one best-of-n, which is behind in proxy, is ahead in gold.
    by: C2-below, G8
    origin: folklore
    """)  # fmt: skip


@G9.check(Inequality(1e-9, scale=1), Space(slope=Floats(0.2, 1.0), bend=Floats(0.2, 1.0), n=Floats(2.0, 1e4, log=True)), instances=8, batched=False,
          true={"linear conditional gold": {"bent_by": 0.0}})  # fmt: skip
def gold_of_best_of_n(slope, bend, n, *, bent_by=1.0):
    pair = bent(slope, bent_by * bend)
    best = along_best_of_n(pair, n)
    return best.gold, along_tilt(pair, 1 / np.sqrt(2 * best.kl)).gold  # beta: see C1
