"""S7 to S19: worst-of-n, what vBoN and BoNBoN aim at, regularised best-of-n, rewards with a density, many votes."""

from __future__ import annotations

import numpy as np
from scipy import integrate, stats
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln

from klsim import best_of_n, continuous_selection
from klsim.claims import Identity, Inequality, Limit, Optimality, Variant
from klsim.distributions import expectation, log_normalize, tilt
from klsim.divergences import chi2, kl, tv
from klsim.estimator_moments import draws
from klsim.optima import f_regularized
from klsim.pessimism import pessimistic_best_of_n, regret_bound, rejection_towards
from klsim.selection_rules import majority_vote
from klsim.selection_targets import (
    best_and_worst,
    ipo_best_of_n,
    pair_margin,
    tilt_projection,
    variational_best_of_n,
    variational_bound,
    worst_of_n,
)
from klsim.spaces import Floats, Integers, Normals, Policies, Rewards, Sizes, Space

from .collection import paper

LAW = Normals("A").map(log_normalize)
SMALL = {"log_p": Policies(), "reward": Rewards(), "A": Sizes(1, 4)}
WIDE = {"log_p": LAW, "reward": Rewards(), "A": Sizes(2, 6)}


def spread(reward):
    """Rewards with a range of one."""
    reward = reward - reward.min()
    return reward / (reward.max() if reward.max() > 0 else 1.0)


# S7 ------------------------------------------------------------------------------------------------
S7 = paper.claim("S7", r"""
    Best and worst of n draws: their joint law

    With x, a, b the masses strictly between and of the two levels, $P(\text{best in }a,\text{ worst in }b)=(x+a+b)^n-(x+a)^n-(x+b)^n+x^n$, within a
    level in proportion to the draws. Its margins are the best of n and the worst of n, which is the best of n of the negative reward.

    where: derived
    """)  # fmt: skip


def ends(reward, outcomes):
    """Shares of the draws that are the best, and the worst, ties split evenly: ``(m, n)`` each."""
    got = reward[outcomes]
    return [(got == edge(axis=1, keepdims=True)) * 1.0 for edge in (got.max, got.min)]


@S7.check(Identity(1e-12, scale=1), Space(**SMALL, n=Integers(2, 4)), instances=15, batched=False, false={"of n + 1 draws": {"more": 1}})  # fmt: skip
def pairs_by_enumeration(log_p, reward, n, *, more=0):
    outcomes, probability = draws(log_p, n)
    top, low = ends(reward, outcomes)
    joint = np.zeros((len(log_p), len(log_p)))
    for i in range(n):
        for j in range(n):
            both = top[:, i] * low[:, j] * (i != j)  # two draws, where all tie any two
            ways = top.sum(axis=1) * low.sum(axis=1) - (top * low).sum(axis=1)
            np.add.at(joint, (outcomes[:, i], outcomes[:, j]), probability * both / ways)
    return best_and_worst(log_p, reward, n + more), joint


@S7.check(Identity(1e-11, scale=1), Space(**SMALL, n=Integers(2, 300)), instances=15, batched=False, false={"the best on both sides": {"sign": 1.0}})  # fmt: skip
def margins(log_p, reward, n, *, sign=-1.0):
    joint = best_and_worst(log_p, reward, n)
    return {
        "best": (joint.sum(axis=1), np.exp(best_of_n.log_policy(log_p, reward, n))),
        "worst": (joint.sum(axis=0), np.exp(worst_of_n(log_p, -sign * reward, n))),
    }


# S8 ------------------------------------------------------------------------------------------------
S8 = paper.claim("S8", r"""
    BoNBoN's margin: between the best and the worst of n the log-ratio of best-of-n differs by $(n-1)H_{n-1}$ on average

    For rewards with a density $E[\log\frac{bon}{ref}(y_{best})-\log\frac{bon}{ref}(y_{worst})]=(n-1)H_{n-1}=\frac1{2\beta_n^*}$.

    where: $\beta_n^*$ of BoNBoN (arXiv 2406.00832)
    """)  # fmt: skip


# densities n q^{n-1} and n (1-q)^{n-1} of the quantiles; the logarithm is integrable at 0
@S8.check(Identity(1e-9), Space(n=Integers(2, 60)), instances=15, batched=False,
          false={"with H_n": {"term": 1.0}, "without n - 1": {"factor": False}})  # fmt: skip
def margin_by_quadrature(n, *, term=0.0, factor=True):
    def gap(q):
        return (n - 1) * np.log(q) * n * (q ** (n - 1) - (1 - q) ** (n - 1))

    stated = pair_margin(n) + term * (n - 1) / n
    return stated / (1 if factor else n - 1), integrate.quad(gap, 0, 1, epsabs=1e-12, epsrel=1e-12, limit=200)[0]


def fine_rewards(size=40):
    """Equal masses, rewards in order: nearly a density."""
    return np.full(size, -np.log(size)), np.arange(size) * 1.0


@S8.check(Limit(rate=-1.0, rate_tol=0.1), false={"of n + 1": {"more": 1}})
def margin_on_lattices(*, more=0, n=4):
    """Of best-of-n's own log-ratio, over A equally likely responses."""
    sizes = 2 ** np.arange(4, 10)
    found = []
    for size in sizes:
        log_p, reward = fine_rewards(int(size))
        h = best_of_n.log_policy(log_p, reward, n) - log_p
        found.append(np.sum(best_and_worst(log_p, reward, n) * (h[:, None] - h[None])))
    return sizes * 1.0, np.array(found) - pair_margin(n + more)


# S9 ------------------------------------------------------------------------------------------------
S9 = paper.claim("S9", r"""
    The square loss on best and worst of n ends at best-of-n

    The policy with the least $E\big[(\log\frac{\pi(y_{best})}{ref(y_{best})}-\log\frac{\pi(y_{worst})}{ref(y_{worst})}-\frac1{2\beta_n^*})^2\big]$
    is the best of n.

    where: the IPO-BoN part of BoNBoN (arXiv 2406.00832), whose margin is that of best-of-n, as commonly read
    instead: Best-of-n has the right margin on average, not on every pair: its log-ratio differs by $(n-1)\log(q_{best}/q_{worst})$. The loss has its
    own minimiser, a least-squares fit (S9-fit), with less loss. The forward KL part of BoNBoN is what aims at best-of-n.
    by: S9-fit
    origin: as commonly read
    """)  # fmt: skip


@S9.check(Identity(1e-2, scale=1), Space(n=Integers(2, 12)), instances=12, batched=False, examples=[{"n": 2}, {"n": 8}],
          true={"the forward KL": {"by": "forward"}})  # fmt: skip
def ends_at_best_of_n(n, *, by="pairs"):
    """Over 40 equally likely responses; the variant: the forward KL has less at best-of-n than at nine laws around it."""
    log_p, reward = fine_rewards()
    target = best_of_n.log_policy(log_p, reward, n)
    if by == "pairs":
        return np.exp(ipo_best_of_n(log_p, reward, n)), np.exp(target)
    powers = np.linspace(0.6, 1.4, 9)
    losses = [kl(target, log_normalize(log_p + s * (target - log_p))) for s in powers]
    return powers[int(np.argmin(losses))], 1.0


S9_fit = paper.claim("S9-fit", r"""
    The minimiser of the square loss on pairs of best and worst

    It solves the graph's normal equations, $\sum_w(W_{yw}+W_{wy})(h_y-h_w)=m\sum_w(W_{yw}-W_{wy})$, $h=\log(\pi/ref)$; no policy has less loss.

    where: derived
    """)  # fmt: skip


@S9_fit.check(Optimality(1e-11, scale=1), Space(log_p=LAW, reward=Rewards(), move=Normals("A"), n=Integers(2, 20), A=Sizes(2, 6)), instances=20, batched=False,
              false={"best-of-n itself": {"whose": "best"}, "at half the margin": {"times": 0.5}})  # fmt: skip
def least_loss(log_p, reward, move, n, *, whose="fit", times=1.0):
    reward = np.argsort(np.argsort(reward, kind="stable"), kind="stable") * 1.0
    pairs, margin = best_and_worst(log_p, reward, n), pair_margin(n)

    def loss(h):
        return float(np.sum(pairs * (h[:, None] - h[None] - margin) ** 2 * (1 - np.eye(len(h)))))

    fit = ipo_best_of_n(log_p, reward, n) if whose == "fit" else best_of_n.log_policy(log_p, reward, n)
    h = times * (fit - log_p)
    ahead = h + 0.1 * margin * move
    if whose != "fit" or times != 1.0:
        ahead = ipo_best_of_n(log_p, reward, n) - log_p
    return -loss(h), -loss(ahead), loss(h) + margin**2


# S10 -----------------------------------------------------------------------------------------------
S10 = paper.claim("S10", r"""
    vBoN's bound: the KL to best-of-n within log n

    $\mathrm{KL}(\pi\Vert bon)\le\mathrm{KL}(\pi\Vert ref)-(n-1)E_\pi[\log F]\le\mathrm{KL}(\pi\Vert bon)+\log n$ for every policy, F counting ties.

    where: vBoN (arXiv 2407.06057); the right-hand side derived
    """)  # fmt: skip
TARGETED = WIDE | {"policy": LAW, "n": Integers(1, 50)}


@S10.check(Inequality(1e-11, scale=1), Space(**TARGETED), instances=25, batched=False, false={"with F below y": {"strict": True}})  # fmt: skip
def above_the_kl(log_p, reward, policy, n, *, strict=False):
    bound = variational_bound(policy, log_p, reward, n)
    if strict:  # E log of the mean of F and F-
        upto = best_of_n.mid_quantile(log_p, reward)
        bound = kl(policy, log_p) - (n - 1) * np.exp(policy) @ np.log(np.maximum(2 * upto, 1e-300))
    return kl(policy, best_of_n.log_policy(log_p, reward, n)), bound


@S10.check(Inequality(1e-11, scale=1), Space(**TARGETED), instances=25, batched=False, false={"within log n / 2": {"share": 0.5}})  # fmt: skip
def within_log_n(log_p, reward, policy, n, *, share=1.0):
    nearest = kl(policy, best_of_n.log_policy(log_p, reward, n))
    return variational_bound(policy, log_p, reward, n), nearest + share * np.log(n)


# S11 -----------------------------------------------------------------------------------------------
S11 = paper.claim("S11", r"""
    The optimum of vBoN's bound is best-of-n

    The policy with the least $\mathrm{KL}(\pi\Vert ref)-(n-1)E_\pi[\log F]$ has the law of the best of n draws.

    where: the bound of vBoN (arXiv 2407.06057), as commonly read
    instead: It is $ref\,F^{n-1}/Z$: the best response takes n-1 draws below or with it, but its own mass counts as if all draws that tie were
    separate. Where no response has much mass, as for whole texts, the laws agree to first order in the masses (S11-fine).
    by: S11-fine
    origin: as commonly read
    """)  # fmt: skip


@S11.check(Identity(1e-6, scale=1), Space(**WIDE, n=Integers(2, 20)), instances=20, batched=False,
           true={"of the KL to best-of-n itself": {"bound": False}})  # fmt: skip
def optimum_of_the_bound(log_p, reward, n, *, bound=True):
    """By the optimum of a KL-regularised reward: log F^{n-1}, or log(bon/ref)."""
    target = best_of_n.log_policy(log_p, reward, n)
    own = variational_best_of_n(log_p, reward, n) if bound else tilt(log_p, target - log_p, 1.0)
    return np.exp(own), np.exp(target)


S11_fine = paper.claim("S11-fine", r"""
    vBoN's optimum tends to best-of-n as responses become unlikely, like 1/A

    Over A equally likely responses with different rewards the total variation falls like $1/A$.

    where: derived
    """)  # fmt: skip


@S11_fine.check(Limit(rate=-1.0, rate_tol=0.1), false={"the bound of n + 1": {"more": 1}})
def finer_and_finer(*, more=0, n=8):
    sizes = 2 ** np.arange(4, 12)
    laws = [(fine_rewards(int(size)), size) for size in sizes]
    return sizes * 1.0, [
        float(tv(variational_best_of_n(p, r, n + more), best_of_n.log_policy(p, r, n))) for (p, r), _ in laws
    ]


# S12 -----------------------------------------------------------------------------------------------
S12 = paper.claim("S12", r"""
    The tilt nearest to best-of-n: forward it keeps the reward, backward a covariance

    Over $\pi_s\propto ref\,e^{sr}$ the forward $\mathrm{KL}(bon\Vert\pi_s)$ is least where $E_s[r]=E_{bon}[r]$, the backward $\mathrm{KL}(\pi_s\Vert bon)$ where
    $s\mathrm{Var}_s(r)=\mathrm{Cov}_s(r,\log\frac{bon}{ref})$.

    where: exponential families
    """)  # fmt: skip
TILTED = {"log_p": LAW, "reward": Rewards(ties=False), "n": Integers(2, 20), "A": Sizes(3, 6)}


def either(log_p, reward, n, direction, strength):
    target, law = best_of_n.log_policy(log_p, reward, n), log_normalize(log_p + strength * reward)
    return kl(target, law) if direction == "forward" else kl(law, target)


@S12.check(Identity(1e-7, scale=1), Space(**TILTED), instances=8, batched=False, false={"the other direction": {"swap": True}})  # fmt: skip
def projections(log_p, reward, n, *, swap=False):
    reward = spread(reward)
    target = best_of_n.log_policy(log_p, reward, n)
    fore, back = (tilt_projection(log_p, reward, target, direction=d).log_policy for d in ("forward", "backward"))
    fore, back = (back, fore) if swap else (fore, back)
    strength = tilt_projection(log_p, reward, target, direction="forward" if swap else "backward").strength
    law, gain = np.exp(back), target - log_p
    centred = reward - law @ reward
    return {
        "forward": (expectation(fore, reward), expectation(target, reward)),
        "backward": (strength * (law @ centred**2), law @ (centred * gain)),
    }


# a bounded scalar search ends within 1e-9 of its bracket, near a minimum that is the square of 1e-7 in value
@S12.check(Inequality(1e-9, scale=1), Space(**TILTED), instances=6, batched=False, false={"the other direction": {"swap": True}})  # fmt: skip
def no_tilt_is_nearer(log_p, reward, n, *, swap=False):
    reward = spread(reward)
    out = {}
    for direction in ("forward", "backward"):
        other = {"forward": "backward", "backward": "forward"}[direction]
        found = tilt_projection(
            log_p, reward, best_of_n.log_policy(log_p, reward, n), direction=other if swap else direction
        )
        search = minimize_scalar(lambda s, to=direction: either(log_p, reward, n, to, s), bounds=(0, 60), method="bounded", options={"xatol": 1e-9})  # fmt: skip
        out[direction] = (either(log_p, reward, n, direction, found.strength), search.fun)
    return out


# S13 -----------------------------------------------------------------------------------------------
S13 = paper.claim("S13", r"""
    Rejection sampling with n draws: a mixture of the target and the reference

    Accepting with $w/M$ and taking one more draw if none is accepted, the law is $(1-(1-\frac1M)^n)\pi+(1-\frac1M)^n\,ref$: its distance from the
    target falls geometrically, $n\approx M\log(1/\epsilon)$.

    where: rejection sampling; the rule of arXiv 2503.21878
    """)  # fmt: skip


@S13.check(Identity(1e-12, scale=1), Space(log_p=LAW, target=LAW, n=Integers(1, 4), loose=Floats(1.0, 4.0), A=Sizes(1, 3)), instances=20, batched=False,
           false={"the last of n where none is taken": {"fresh": False}})  # fmt: skip
def rejection_by_enumeration(log_p, target, n, loose, *, fresh=True):
    ratio = np.exp(target - log_p)
    bound = loose * ratio.max()
    outcomes, probability = draws(log_p, n + 1)
    accept = np.column_stack([(ratio / bound)[outcomes[:, :n]], np.ones(len(outcomes))])
    first = accept * np.column_stack([np.ones(len(outcomes)), np.cumprod(1 - accept[:, :-1], axis=1)])
    if not fresh:
        first[:, n - 1] += first[:, n]
        first[:, n] = 0.0
    law = np.bincount(outcomes.ravel(), weights=(probability[:, None] * first).ravel(), minlength=len(log_p))
    return np.exp(rejection_towards(log_p, target, n, bound)), law


# S14 -----------------------------------------------------------------------------------------------
S14 = paper.claim("S14", r"""
    Pessimistic best-of-n in closed form, with the level of its own n draws

    In random order draw i is the first accepted with probability $a_i\int_0^1\prod_{j\ne i}(1-ta_j)dt$, $a=(r-\hat\lambda)_+/(r_{max}-\hat\lambda)$; one more
    draw is taken if none is. Summed over multisets of reward levels that is its law. It tends to the law of $\max E[r]-\beta\chi^2$ like $1/n$.

    where: the rule: arXiv 2503.21878; the law and the rate derived
    """)  # fmt: skip


@S14.check(Identity(1e-11, scale=1), Space(log_p=Policies(), reward=Rewards(), n=Integers(1, 4), beta=Floats(0.02, 2.0, log=True), A=Sizes(1, 4)), instances=12, batched=False,
           false={"twice the beta": {"times": 2.0}})  # fmt: skip
def pessimism_by_enumeration(log_p, reward, n, beta, *, times=1.0):
    """All ordered draws; the level of each by bisection."""
    reward = spread(reward)
    outcomes, probability = draws(log_p, n)
    got, best = reward[outcomes], reward[np.isfinite(log_p)].max()
    low, high = got.min(axis=1) - 2 * beta - 1, got.max(axis=1)
    for _ in range(200):
        middle = 0.5 * (low + high)
        over = np.maximum(got - middle[:, None], 0).mean(axis=1) > 2 * beta
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    accept = np.maximum(got - low[:, None], 0) / (best - low)[:, None]
    first = accept * np.column_stack([np.ones(len(got)), np.cumprod(1 - accept[:, :-1], axis=1)])
    law = np.bincount(outcomes.ravel(), weights=(probability[:, None] * first).ravel(), minlength=len(log_p))
    law = law + probability @ np.prod(1 - accept, axis=1) * np.exp(log_p)
    return np.exp(pessimistic_best_of_n(log_p, reward, n, times * beta)), law


@S14.check(Limit(rate=-1.0, rate_tol=0.15), false={"at beta + 0.02": {"more": 0.02}})
def towards_the_regularised_law(*, more=0.0, beta=0.3):
    """Total variation from the chi2-regularised optimum; three levels, all with a weight."""
    log_p, reward = np.log([0.5, 0.3, 0.2]), np.array([0.0, 0.6, 1.0])
    target = f_regularized(log_p, reward, beta + more, "chi2").log_policy
    sizes = 2 ** np.arange(2, 8)
    return sizes * 1.0, [float(tv(pessimistic_best_of_n(log_p, reward, int(n), beta), target)) for n in sizes]


# S15 -----------------------------------------------------------------------------------------------
S15 = paper.claim("S15", r"""
    What pessimism loses by a wrong reward model

    Let $\hat r$ be off by e (root mean square under the reference), C the coverage $E_\mu[\mu/ref]$ of any policy $\mu$. The optimum of
    $E[\hat r]-\beta\chi^2$ with $\beta=e/2\sqrt C$ loses at most $2e\sqrt C$ of true reward against $\mu$; with any $\beta$ at most
    $\beta C+e\sqrt C+e^2/4\beta$.

    where: after arXiv 2503.21878; constants derived here
    """)  # fmt: skip
JUDGED = {"log_ref": LAW, "gold": Normals("A"), "error": Normals("A"), "mu": LAW, "size": Floats(0.01, 3.0, log=True), "A": Sizes(2, 6)}  # fmt: skip


# a rare response with the highest score and the lowest reward; a good response whose score says nothing
RARE = {"log_ref": np.log([0.5, 0.499, 0.001]), "gold": np.array([0.0, 1.0, -1.0]), "error": np.array([0.0, 0.0, 3.0]),
        "mu": np.log([1e-3, 0.998, 1e-3]), "size": 1.0, "beta": 0.05}  # fmt: skip
UNSEEN = {"log_ref": np.log([0.9, 0.1]), "gold": np.array([0.0, 1.0]), "error": np.array([0.0, -1.0]),
          "mu": np.log([1e-3, 0.999]), "size": 1.0, "beta": 0.05}  # fmt: skip


@S15.check(Inequality(1e-9, scale=1), Space(**JUDGED, beta=Floats(0.01, 3.0, log=True)), instances=12, batched=False,
           false={"best-of-n, n = 1000": Variant({"rule": "best"}, examples=[RARE]), "an eighth of the bound": Variant({"share": 0.125}, examples=[UNSEEN])})  # fmt: skip
def regret_of_pessimism(log_ref, gold, error, mu, size, beta, *, rule="chi2", share=1.0):
    model = gold + size * error
    off = max(float(np.sqrt(expectation(log_ref, (model - gold) ** 2))), 1e-3)
    coverage = 1 + float(chi2(mu, log_ref))
    betas = np.array([beta, off / (2 * np.sqrt(coverage))])
    if rule == "best":
        own = np.broadcast_to(best_of_n.log_policy(log_ref, model, 1000), (2, len(gold)))
    else:
        own = f_regularized(np.broadcast_to(log_ref, (2, len(gold))), model, betas, "chi2").log_policy
    loss = expectation(mu, gold) - expectation(own, gold)
    return {
        "any beta": (loss[0], share * regret_bound(coverage, off, beta)),
        "the best": (loss[1], share * regret_bound(coverage, off)),
    }


# S16 -----------------------------------------------------------------------------------------------
S16 = paper.claim("S16", r"""
    Best-of-n with the right n does as well as pessimism

    Under a wrong reward model the best n of best-of-n gives at least the true reward of the best $\beta$ of the $\chi^2$-regularised law.

    where: folklore: "tune n"
    instead: Either may win. Best-of-n takes the highest score however little it is ahead; the regularised law gives near-equal scores near-equal
    weights, and no score more than its excess. For two levels of the model's reward both reach the same laws. What pessimism has is a bound (S15).
    origin: folklore
    by: S15
    """)  # fmt: skip
NS = np.unique(np.geomspace(1, 1e6, 80).round())
BETAS = np.geomspace(1e-4, 1e4, 120)


# the model ranks a middling response slightly above the good one
RANKED = {
    "log_ref": np.log([1 / 3, 1 / 3, 1 / 3]),
    "gold": np.array([0.0, 1.0, -1.0]),
    "error": np.array([1.2, 0.0, 0.0]),
    "size": 1.0,
}


@S16.check(Inequality(1e-3, scale=1), Space(log_ref=LAW, gold=Normals("A"), error=Normals("A"), size=Floats(0.05, 3.0, log=True), A=Sizes(2, 5)), instances=8, batched=False, examples=[RANKED],
           true={"two responses": {"keep": 2}})  # fmt: skip
def tuned(log_ref, gold, error, size, *, keep=5):
    """The best over 80 n up to a million, and over 120 betas; .001 covers the grids (two responses: n real)."""
    log_ref, gold, error = log_normalize(log_ref[:keep]), gold[:keep], error[:keep]
    model, scale = gold + size * error, float(np.ptp(gold)) or 1.0
    unit = float(np.ptp(model)) or 1.0
    one = expectation(best_of_n.log_policy(log_ref, model, np.geomspace(1, 1e6, 2000) if keep == 2 else NS), gold)
    two = expectation(
        f_regularized(np.broadcast_to(log_ref, (120, len(gold))), model / unit, BETAS, "chi2").log_policy, gold
    )
    return np.max(two) / scale, np.max(one) / scale


# S17 -----------------------------------------------------------------------------------------------
S17 = paper.claim("S17", r"""
    Selection rules for rewards with a density

    Worst of n has the KL of best of n, $\log n-\frac{n-1}n$, and the win rate $\frac1{n+1}$; rejection, soft best-of-n, best-of-n by a noisy score and the
    $\chi^2$-regularised law by quadrature. For normal rewards with variance 1 and normal errors with variance $\sigma^2$ the noisy best of n has the
    reward of the best of n over $\sqrt{1+\sigma^2}$.

    where: folklore
    """)  # fmt: skip
LAWS = {
    "normal": stats.norm(),
    "exponential": stats.expon(),
    "uniform": stats.uniform(),
    "logistic": stats.logistic(1.0, 0.5),
}


@S17.check(Identity(1e-10, scale=1), examples=[{"n": 1.0}, {"n": 2.0}, {"n": 7.5}, {"n": 300.0}], batched=False, false={"win rate 1/n": {"more": 0.0}})  # fmt: skip
def worst_of_densities(n, *, more=1.0):
    return {
        name: (
            [(found := continuous_selection.worst_of_n(law, n)).kl, found.win_rate, found.reward],
            [np.log(n) - (n - 1) / n, 1 / (n + more), -continuous_selection.best_of_n(Mirrored(law), n).reward],
        )
        for name, law in LAWS.items()
    }


class Mirrored:
    """The law of the negative."""

    def __init__(self, law):
        self.law = law

    def ppf(self, q):
        return -self.law.isf(q)

    def isf(self, q):
        return -self.law.ppf(q)


@S17.check(Identity(1e-10, scale=1), examples=[{"n": 2, "at": 0.5, "beta": 0.3}, {"n": 9, "at": 0.9, "beta": 0.05}, {"n": 60, "at": 0.1, "beta": 2.0}], batched=False,
           false={"the density of n + 1": {"more": 1}})  # fmt: skip
def rules_by_adaptive_quadrature(n, at, beta, *, more=0):
    """Rejection and the chi-squared tilt of normal rewards against scipy's adaptive rule over quantiles."""
    law, m = stats.norm(), n + more
    cut = float(law.ppf(at))
    passed = (1 - at**m) / (1 - at)
    ahead = integrate.quad(lambda x: x * law.pdf(x), cut, np.inf, epsabs=1e-13)[0]
    rejected = continuous_selection.rejection(law, n, cut)
    found = continuous_selection.chi2_tilt(law, beta)
    level = brentq(lambda at: law.pdf(at) - at * law.sf(at) - 2 * beta, -2 * beta - 1, 8.0, xtol=1e-14)

    def tilted(what):
        return integrate.quad(lambda x: what(x) * (x - level) / (2 * beta) * law.pdf(x), level, np.inf, epsabs=1e-13)[0]

    return {
        "rejection": ([rejected.reward, rejected.kl], [passed * ahead - at ** (m - 1) * ahead, (1 - at**m) * np.log(passed) + at**m * (m - 1) * np.log(at)]),
        "chi-squared": ([found.reward, found.win_rate], [tilted(lambda x: x), tilted(law.cdf)]),
    }  # fmt: skip


# 121 nodes for rewards and noise: steps of .7 to .8 in z, an error of order exp(-pi^2/.8) = 4e-6
@S17.check(Identity(1e-5, scale=1), examples=[{"n": 2, "noise": 2.0}, {"n": 1000, "noise": 0.5}], batched=False, false={"over 1 + variance": {"root": 1.0}})  # fmt: skip
def normal_noise(n, noise, *, root=0.5):
    found = continuous_selection.noisy_best_of_n(stats.norm(), n, stats.norm(scale=noise), nodes=121)
    return found.reward, continuous_selection.best_of_n(stats.norm(), n).reward / (1 + noise**2) ** root


# S18 -----------------------------------------------------------------------------------------------
S18 = paper.claim("S18", r"""
    Soft best-of-n of rewards with a density tends to the tilted law like 1/n

    For normal rewards and temperature T the reward falls short of the tilt's, $1/T$, by order $1/n$; at $n=2$ it is $E[R_1\tanh(\frac{R_1-R_2}{2T})]$.

    where: rule: arXiv 2505.03156; derived
    """)  # fmt: skip


@S18.check(Limit(rate=-1.0, rate_tol=0.1), false={"short of the tilt at 1.01 T": {"times": 1.01}})
def soft_densities(*, times=1.0, temperature=2.0):
    sizes = 2 ** np.arange(3, 12)
    found = [continuous_selection.soft_best_of_n(stats.norm(), int(n), temperature).reward for n in sizes]
    return sizes * 1.0, [1 / (times * temperature) - x for x in found]


@S18.check(Identity(1e-8, scale=1), examples=[{"temperature": t} for t in (0.3, 1.0, 5.0)], batched=False, false={"three draws": {"n": 3}})  # fmt: skip
def two_draws(temperature, *, n=2):
    """The difference of the two draws is normal with variance 2, their sum independent of it."""
    gap = integrate.quad(lambda d: stats.norm.pdf(d, scale=np.sqrt(2)) * d / 2 * np.tanh(d / (2 * temperature)), -20, 20, epsabs=1e-13)[0]  # fmt: skip
    return continuous_selection.soft_best_of_n(stats.norm(), n, temperature).reward, gap


# S19 -----------------------------------------------------------------------------------------------
S19 = paper.claim("S19", r"""
    Majority vote with many votes, exactly

    The coefficient of $z^n$ by sums on the unit circle gives the chance of every answer for n up to $10^5$. With two answers it is a binomial tail; with
    three it is a sum over all counts. A lead of $\delta/\sqrt n$ decides a vote of n with probability $\Phi(\delta)$ at the limit.

    where: derived; the limit is de Moivre and Laplace's
    """)  # fmt: skip


@S19.check(Identity(1e-11, scale=1), examples=[{"p": 0.5, "n": 402}, {"p": 0.51, "n": 1001}, {"p": 0.48, "n": 2000}], batched=False, false={"of n - 2 votes": {"fewer": 2}})  # fmt: skip
def votes_of_two(p, n, *, fewer=0):
    m = n - fewer
    tie = stats.binom.pmf(m // 2, m, p) / 2 if m % 2 == 0 else 0.0
    return majority_vote(np.log([p, 1 - p]), n)[0], stats.binom.sf(m // 2, m, p) + tie


@S19.check(Identity(1e-11, scale=1), examples=[{"lead": 0.0, "share": 0.3, "n": 401}, {"lead": 0.02, "share": 0.32, "n": 403}], batched=False, false={"ties to the first": {"shared": False}})  # fmt: skip
def votes_of_three(lead, share, n, *, shared=True):
    p = np.array([(1 - share + lead) / 2, (1 - share - lead) / 2, share])
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    keep = i + j <= n
    counts = np.stack([i[keep], j[keep], n - i[keep] - j[keep]], axis=1)
    top = counts.max(axis=1, keepdims=True) == counts
    mass = np.exp(gammaln(n + 1) - gammaln(counts + 1).sum(axis=1) + counts @ np.log(p))
    win = top[:, 0] / np.where(shared, top.sum(axis=1), 1)
    return majority_vote(np.log(p), n)[0], mass @ win


@S19.check(Limit(rate=-1.0, rate_tol=0.15), false={"at twice the lead": {"times": 2.0}})
def close_votes(*, times=1.0, lead=1.0):
    """Odd n, two answers with p = (1 + lead/sqrt n)/2."""
    sizes = 2 ** np.arange(9, 13) + 1
    found = [majority_vote(np.log([(1 + s * lead / np.sqrt(n)) / 2 for s in (1, -1)]), int(n))[0] for n in sizes]
    return sizes * 1.0, np.array(found) - stats.norm.cdf(times * lead)
