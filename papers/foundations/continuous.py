"""C: rewards with a density; G: a proxy and the gold reward."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.integrate import quad

from klsim.claims import Identity, Inequality, Limit
from klsim.continuous import best_of_n_reward, kl_frontier, quantile_rule, tilted
from klsim.spaces import Choice, Floats, Integers, Space

from .collection import paper

EXPONENTIAL, PARETO = stats.expon(), stats.pareto(2.0)
LIGHT = {"normal": stats.norm(), "logistic": stats.logistic(), "gumbel": stats.gumbel_r(), "uniform": stats.uniform()}


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    Frontiers of continuous rewards by quadrature: normal $\sigma\sqrt{2\kappa}$, exponential $\rho-1-\log\rho=\kappa$

    The tilt by $\beta$ of $N(\mu,\sigma^2)$ has reward $\mu+\sigma^2/\beta$ and KL $\sigma^2/(2\beta^2)$; that of an exponential law is
    exponential with mean $\rho=1/(1-1/\beta)$. Value, reward and KL of other laws agree with adaptive quadrature.

    where: normal: Gao et al. (arXiv 2210.10760); exponential derived
    assumes: E exp(R/beta) is finite.
    """)  # fmt: skip


@C1.check(Identity(1e-10, scale=1), Space(mean=Floats(-3.0, 3.0), sigma=Floats(0.1, 5.0), beta=Floats(0.5, 20.0, log=True)), instances=40, batched=False,
          false={"half the KL": {"share": 0.5}})  # fmt: skip
def normal(mean, sigma, beta, *, share=1.0):
    found = tilted(stats.norm(mean, sigma), beta)
    return {
        "reward": (found.reward, mean + sigma**2 / beta, sigma**2 / beta),
        "kl": (found.kl, share * sigma**2 / (2 * beta**2)),
        "value": (found.value, mean + sigma**2 / (2 * beta), sigma**2 / beta),
    }


@C1.check(Identity(1e-8, scale=1), Space(budget=Floats(0.01, 8.0, log=True), sigma=Floats(0.1, 5.0)), instances=20, batched=False,
          false={"without the 2": {"two": 1.0}, "rho - log rho": {"one": 0.0}})  # fmt: skip
def frontiers(budget, sigma, *, two=2.0, one=1.0):
    rho = kl_frontier(stats.expon(), budget).reward
    return {
        "normal": (kl_frontier(stats.norm(scale=sigma), budget).reward, sigma * np.sqrt(two * budget), sigma),
        "exponential": (rho - one - np.log(rho), budget, 1 + rho),
    }


@C1.check(Identity(1e-7, scale=1), Space(law=Choice("logistic", "gumbel", "uniform"), beta=Floats(1.5, 10.0)), instances=12, batched=False,
          false={"at beta + 1": {"more": 1.0}})  # fmt: skip
def by_adaptive_quadrature(law, beta, *, more=0.0):
    def moment(power):
        low, high = LIGHT[law].ppf([1e-15, 1 - 1e-15]) if law == "uniform" else (-40.0, 90.0)
        return quad(lambda x: x**power * np.exp(x / beta) * LIGHT[law].pdf(x), low, high, limit=200, epsabs=1e-12)[0]

    found = tilted(LIGHT[law], beta + more)
    return {"value": (found.value, beta * np.log(moment(0))), "reward": (found.reward, moment(1) / moment(0))}


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    Best-of-n lies on the KL-reward frontier

    Its expected reward is the most that any policy of the same KL to the reference has.

    where: as commonly read from curves that are hard to tell apart
    instead: It lies below: by .14 to .2 standard deviations of normal rewards for $n$ from 10 to a million, and by more and more of
    exponential ones, like $\log\log n$. The frontier is that of the tilt.
    by: C2-below
    origin: as commonly read
    """)  # fmt: skip
SIZES = {"n": Floats(2.0, 1e6, log=True)}


def both(law, n, budget_share=1.0):
    """Reward of the best of n, and of the frontier at (a share of) its KL."""
    return best_of_n_reward(law, n), kl_frontier(law, budget_share * (np.log(n) - (n - 1) / n)).reward


@C2.check(
    Inequality(1e-6),
    Space(law=Choice("normal", "gumbel"), **SIZES),
    instances=12,
    batched=False,
    true={"the frontier at half of the KL": {"share": 0.5}},
)
def best_of_n_on_the_frontier(law, n, *, share=1.0):
    best, frontier = both(LIGHT[law], n, share)
    return frontier, best


C2_below = paper.claim("C2-below", r"""
    How far best-of-n is below the frontier

    $E\max_n\le$ the frontier at $\kappa=\log n-\frac{n-1}n$; for exponential rewards $E\max_n=H_n$, and the distance from the frontier grows
    with n: $\rho(\kappa)-H_n$ is larger at $n^2$ than at n.

    where: derived
    """)  # fmt: skip


@C2_below.check(Inequality(1e-9, scale=1), Space(law=Choice("normal", "logistic", "gumbel", "uniform"), **SIZES), instances=12, batched=False,
                false={"the frontier at .7 of the KL": {"share": 0.7}})  # fmt: skip
def below(law, n, *, share=1.0):
    return both(LIGHT[law], n, share)


@C2_below.check(
    Identity(1e-10), Space(n=Integers(1, 400)), instances=40, batched=False, false={"H_(n-1) + 1/(n+1)": {"shift": 1}}
)
def harmonic(n, *, shift=0):
    terms = 1 / np.arange(1, n + 1)
    terms[-1] = 1 / (n + shift)
    return best_of_n_reward(stats.expon(), n), terms.sum()


@C2_below.check(
    Inequality(1e-9),
    Space(n=Floats(3.0, 1000.0, log=True)),
    instances=12,
    batched=False,
    false={"of uniform rewards": {"law": stats.uniform()}},
)
def further_and_further(n, *, law=EXPONENTIAL):
    gaps = [frontier - best for best, frontier in (both(law, n), both(law, n**2))]
    return gaps[0], gaps[1]


@C2_below.check(
    Inequality(1e-9),
    Space(n=Floats(10.0, 1e6, log=True)),
    instances=12,
    batched=False,
    false={"of logistic rewards": {"law": "logistic"}},
)
def of_normal_rewards(n, *, law="normal"):
    best, frontier = both(LIGHT[law], n)
    return {"at least": (0.13, frontier - best), "at most": (frontier - best, 0.205)}


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    A KL penalty keeps the optimum finite, whatever the law of the reward

    The value $\beta\log E\,e^{\min(R,m)/\beta}$ of a reward that is cut at m settles as m grows.

    where: folklore
    instead: For tails heavier than exponential it grows like m for every $\beta$: with $a$-Pareto rewards the cut value is $m-O(\log m)$. A
    policy within any KL has any reward: mass $\kappa/\log(1/P(R>t))$ on $R>t$.
    by: C3-any
    origin: folklore
    """)  # fmt: skip
CUTS = 10.0 ** np.arange(2, 9)


@C3.check(Limit(rate=0.0, rate_tol=0.2), true={"of normal rewards": {"law": stats.norm()}})
def value_settles(*, law=PARETO, beta=2.0):
    x, log_w = quantile_rule(law)
    values = [beta * np.logaddexp.reduce(log_w + np.minimum(x, m) / beta) for m in CUTS]
    return 1 / CUTS, values


C3_any = paper.claim("C3-any", r"""
    Heavy tails: any reward within any KL, by one explicit policy

    The mixture $(1-\epsilon)\pi_{ref}+\epsilon\,\pi_{ref}(\cdot|R>t)$ has $\mathrm{KL}\le\epsilon\log\frac1{P(R>t)}$; with
    $\epsilon=\kappa/\log\frac1{P(R>t)}$ a Pareto reward grows like $t/\log t$.

    where: Kwa et al. (arXiv 2407.14503), construction
    """)  # fmt: skip


def mixture(t, budget, a):
    """``(exact KL, reward)`` of the mixture for a-Pareto rewards (``P(R>t) = t^-a``, mean above t ``t a/(a-1)``)."""
    tail = t**-a
    share = budget / np.log(1 / tail)
    above, kept = share / tail + 1 - share, 1 - share  # density ratios
    kl = tail * above * np.log(above) + (1 - tail) * kept * np.log(kept)
    return kl, (1 - share) * a / (a - 1) + share * t * a / (a - 1)


@C3_any.check(Inequality(1e-12), Space(budget=Floats(0.01, 2.0), t=Floats(20.0, 1e12, log=True), a=Floats(1.2, 4.0)), instances=200, batched=False,
              false={"with half the budget": {"share": 0.5}})  # fmt: skip
def within_the_budget(budget, t, a, *, share=1.0):
    return mixture(t, min(budget, 0.5 * a * np.log(t)), a)[0], share * min(budget, 0.5 * a * np.log(t))


# log t adds 1/log t to the exponent: .02 at the end
@C3_any.check(Limit(rate=-1.0, rate_tol=0.1), false={"with an exponential tail, the same mass": {"heavy": False}})
def reward_without_bound(*, heavy=True):
    t = 10.0 ** np.arange(6, 25, 2)
    rewards = [mixture(x, 0.1, 2.0)[1] if heavy else 1 + 0.1 * (x + 1) / x for x in t]
    return t, 1 / np.asarray(rewards)


# G1 ------------------------------------------------------------------------------------------------
G1 = paper.claim("G1", r"""
    Optimising a proxy hard enough lowers the gold reward

    At four times the KL along the proxy's frontier the gold reward is no higher.

    where: reward over-optimisation, as commonly read
    instead: Along the proxy's tilt the gold reward is the average of $E[gold\mid proxy]$: if that rises, as for jointly normal rewards
    ($\rho\sigma\sqrt{2\kappa}$), it never falls; it falls where $E[gold\mid proxy]$ bends down.
    by: G1-normal, G2
    origin: as commonly read
    """)  # fmt: skip


def gold(budget, slope, bend):
    """Gold reward of the tilt of a standard normal proxy x with ``E[gold|x] = slope x - bend x^2``, by quadrature."""
    x, log_w = quantile_rule(stats.norm())
    exponent = log_w + x * np.sqrt(2 * budget)  # the beta with this KL, see C1
    density = np.exp(exponent - np.logaddexp.reduce(exponent))
    return float(density @ (slope * x - bend * x**2))


@G1.check(
    Inequality(1e-9, scale=1),
    Space(rho=Floats(0.05, 0.95), budget=Floats(0.1, 4.0)),
    instances=20,
    batched=False,
    true={"E[gold|proxy] that bends down": {"bend": 2.0}},
)
def lower_at_four_times_the_kl(rho, budget, *, bend=0.0):
    return gold(4 * budget, rho, bend), gold(budget, rho, bend)


G1_normal = paper.claim("G1-normal", r"""
    Jointly normal proxy and gold: the gold reward is a fixed share of the frontier

    With correlation $\rho$ and gold deviation $\sigma$ the gold reward at KL $\kappa$ is $\rho\sigma\sqrt{2\kappa}$, by quadrature over the proxy.

    where: regression to the mean; folklore
    """)  # fmt: skip


@G1_normal.check(Identity(1e-9, scale=1), Space(rho=Floats(-0.95, 0.95), sigma=Floats(0.2, 3.0), budget=Floats(0.05, 6.0)), instances=20, batched=False,
                 false={"rho squared": {"power": 2.0}})  # fmt: skip
def share_of_the_frontier(rho, sigma, budget, *, power=1.0):
    return gold(budget, rho * sigma, 0.0), np.abs(rho) ** power * np.sign(rho) * sigma * np.sqrt(2 * budget)


# G2 ------------------------------------------------------------------------------------------------
G2 = paper.claim("G2", r"""
    The form $d(\alpha-\beta d)$ of over-optimisation, derived: a normal proxy on which gold depends quadratically

    With $E[gold|x]=ax-bx^2$ and $d=\sqrt{\mathrm{KL}}$ the gold reward along the tilt is $-b+\sqrt2\,a\,d-2b\,d^2$: exactly of the form
    that is fitted to best-of-n, with its best KL at $d^*=a/(2\sqrt2\,b)$.

    where: form: Gao et al. (arXiv 2210.10760), fitted; derived here
    """)  # fmt: skip
BENT = {"slope": Floats(0.1, 1.0), "bend": Floats(0.2, 1.0), "budget": Floats(0.05, 6.0)}


@G2.check(
    Identity(1e-9, scale=1),
    Space(**BENT),
    instances=20,
    batched=False,
    false={"d log d instead of d^2": {"law": lambda d: d * np.log(d)}},
)
def quadratic_in_d(slope, bend, budget, *, law=np.square):
    d = np.sqrt(budget)
    return gold(budget, slope, bend), -bend + np.sqrt(2) * slope * d - 2 * bend * law(d), 1 + bend * budget


@G2.check(
    Inequality(1e-9, scale=1),
    Space(**BENT),
    instances=20,
    batched=False,
    false={"at twice that distance": {"times": 2.0}},
)
def best_distance(slope, bend, budget, *, times=1.0):
    at = (times * slope / (2 * np.sqrt(2) * bend)) ** 2
    return gold(budget, slope, bend), gold(at, slope, bend)
