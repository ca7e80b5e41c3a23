r"""Claims of "Unlocking Reasoning Capabilities in LLMs via Reinforcement Learning Exploration" (RAPO).

Notation: ``hat`` the (reweighted) reference, ``a`` the forward-KL coefficient, ``b`` the entropy coefficient, ``u = hat/pi``.
``J(pi) = E_pi r - a KL(hat‖pi) + b H(pi)``.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import lambertw

from klsim.claims import Effect, Identity, Inequality, Limit, Optimality, Paper, Variant, assume
from klsim.distributions import entropy, log_normalize, tilt, variance
from klsim.divergences import chi2, kl
from klsim.forward_kl import escape_mass, forward_kl_with_entropy, reweighted
from klsim.objectives.kl import temper
from klsim.optima import forward_kl_regularized, kl_regularized
from klsim.problems.token_tree import sequence_log_probs
from klsim.spaces import Floats, Masks, Policies, Rewards, Sizes, Space, TreeNormals, TreePolicies

from .setting import (
    ENTROPY_ONLY,
    FORWARD,
    RAPO,
    REVERSE,
    REVERSE_FLAT,
    World,
    backpropagated,
    by_newton,
    estimate,
    log,
    objective,
    pass_rates,
    score_weights,
    slope,
    train,
)

paper = Paper(
    "rapo",
    title="Unlocking Reasoning Capabilities in LLMs via Reinforcement Learning Exploration",
    authors="Wenhao Deng, Long Wei, Chenglei Yu, Tailin Wu",
    year=2025,
    arxiv="2510.03865",
)
MILD = Policies(spread=8.0)
PROBLEM = {"hat": Policies(), "reward": Rewards(), "a": Floats(0.1, 1.5)}
SOFT = {"hat": Policies(zero_support=True), "reward": Rewards(), "a": Floats(0.1, 1.0), "b": Floats(0.1, 0.6)}


def multipliers(log_pi, hat, reward, a):
    """``r + a hat/pi`` on the support (of b = 0: one number), ``-inf`` off it."""
    at = np.where(np.isfinite(hat), log_pi, 0.0)
    return np.where(np.isfinite(hat), reward + a[..., None] * np.exp(hat - at), -np.inf)


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    Optimum with the forward-KL penalty

    Without entropy and with a reference of full support $\pi^*(y)=\dfrac{a\,\hat\pi(y)}{\lambda-r(y)}$, with
    $\max r<\lambda\le\max r+a$ the unique number that makes it sum to one.

    where: optimal-policy analysis (Lagrange multiplier)
    assumes: a > 0; the reference is positive everywhere.
    """)  # fmt: skip


# a law is known to sqrt(eps / curvature) of the value, the curvature being a hat/p² (at least .1 e^-8) + b/p
@C1.check(Optimality(1e-10, scale=1), Space(hat=MILD, reward=Rewards(), a=Floats(0.1, 1.5), A=Sizes(2, 6)), batched=False,
          instances=10, false={"it is the exponential tilt hat e^(r/a)": {"tilted": True}})  # fmt: skip
def no_optimiser_does_better(hat, reward, a, *, tilted=False):
    best = tilt(hat, reward, a) if tilted else forward_kl_with_entropy(hat, reward, a).log_policy
    found, value = by_newton(hat, reward, a)
    away = np.abs(np.exp(found) - np.exp(best)).max()
    return {"value": (objective(best, hat, reward, a), value), "the same law, to 1e-5": (1e-5, away)}


@C1.check(Identity(1e-10, scale=1), Space(**PROBLEM), instances=1000,
          false={"with hat/pi the other way up": {"power": -1}, "lambda is at most max r + a/2": {"reach": 0.5}})  # fmt: skip
def one_multiplier_for_all(hat, reward, a, *, power=1, reach=1.0):
    log_pi = forward_kl_with_entropy(hat, reward, a).log_policy
    found, top = reward + a[..., None] * np.exp(power * (hat - log_pi)), reward.max(axis=-1, keepdims=True)
    lam = found.max(axis=-1, keepdims=True)
    size = 1 + np.abs(lam)
    return {
        "one": (found, lam, size + 0 * found),
        "in (max r, max r + a]": (lam, np.clip(lam, top, top + reach * a[..., None]), size),
    }


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    When the optimum leaves the support of the reference

    Let $Y_0=\{\hat\pi=0\}$, $r_{out}=\max_{Y_0}r$ and $b=0$. If $r_{out}>\max_{supp}r$,
    $$\pi^*(Y_0)=\max\Big(0,\,1-a\,\mathbb{E}_{\hat\pi}\Big[\frac1{r_{out}-r}\Big]\Big),$$ and where that is positive
    $\lambda=r_{out}$; otherwise no mass leaves. Only the best response of $Y_0$ gets it. If all correct answers of a binary
    reward are outside, the mass is $1-a$ for $a<1$, whatever the reference. The reverse KL lets nothing out at any
    coefficient.

    where: derived; claim (i), out-of-distribution exploration; the condition is derived
    assumes: A statement on the optimum: sampling that starts with no mass outside never gets there.
    """)  # fmt: skip
OUTSIDE = {"hat": MILD, "reward": Rewards(), "a": Floats(0.05, 1.5), "lead": Floats(-0.5, 1.0), "A": Sizes(1, 5)}


def with_outsider(hat, reward, lead):
    """The problem with one more response, off the support, ``lead`` above the best reward of the support."""
    gone = np.full((*hat.shape[:-1], 1), -np.inf)
    return np.concatenate([hat, gone], -1), np.concatenate(
        [reward, reward.max(-1, keepdims=True) + lead[..., None]], -1
    )


def outside(log_pi):
    return np.exp(log_pi[..., -1])


@C2.check(Identity(1e-10, scale=1), Space(**OUTSIDE), instances=1000, examples=[{"hat": np.log([0.6, 0.4]), "reward": np.array([0.2, 0.5]), "a": 0.3, "lead": 0.5}],
          false={"always 1 - a E[1/(r_out - r)]": {"floor": -9.0}, "1 - a, whatever the lead": {"of_lead": 0.0}})  # fmt: skip
def the_derivative_in_the_escaped_mass_vanishes(hat, reward, a, lead, *, floor=0.0, of_lead=1.0):
    """With mass m outside, the best of mass 1 - m inside has multiplier ``lambda(m)``; the value has slope ``r_out - lambda(m)``."""

    def multiplier(m):
        inside = forward_kl_regularized(hat, reward, a / (1 - m)).log_policy
        return multipliers(inside, hat, reward, a / (1 - m)).max(axis=-1)

    all_hat, all_reward = with_outsider(hat, reward, lead)
    ahead = np.where(lead > 0, 1.0, np.inf)[..., None] * np.maximum((all_reward[..., -1:] - reward), 1e-300) ** of_lead
    stated = np.where(lead > 0, np.maximum(floor, 1 - a * np.sum(np.exp(hat) / ahead, axis=-1)), 0.0)
    found = outside(forward_kl_with_entropy(all_hat, all_reward, a).log_policy)
    at = multiplier(np.minimum(stated, 1 - 1e-6))
    return {
        "slope": (at, np.maximum(multiplier(0 * stated), all_reward[..., -1]), 1 + np.abs(at)),
        "escape_mass": (escape_mass(all_hat, all_reward, a), stated),
        "of the optimum": (found, stated),
    }


@C2.check(Identity(1e-10, scale=1), Space(hat=Policies(zero_support=True), reward=Rewards(), a=Floats(0.05, 1.5)), instances=1000,
          false={"it never leaves": {"free": False}})  # fmt: skip
def conditions_of_the_optimum(hat, reward, a, *, free=True):
    """No response outside is worth more than the multiplier; those that hold mass are worth just that."""
    solver = forward_kl_with_entropy if free else forward_kl_regularized
    log_pi = solver(hat, reward, a).log_policy
    found, gone = multipliers(log_pi, hat, reward, a), np.isinf(hat)
    highest, lowest = found.max(axis=-1), np.where(gone, np.inf, found).min(axis=-1)
    beyond, escaped = np.where(gone, reward, -np.inf).max(axis=-1), np.where(gone, np.exp(log_pi), 0.0)
    return {
        "one multiplier": (highest, lowest, np.abs(highest)),
        "nothing outside is worth more": (np.maximum(beyond, lowest), lowest, np.abs(lowest)),
        "what escaped is worth as much": (np.sum(escaped * (lowest[..., None] - reward), axis=-1), 0.0, np.abs(lowest)),
    }


@C2.check(Identity(1e-12), Space(hat=Policies(), a=Floats(0.01, 0.99)), instances=2000,
          false={"for a > 1 too": Variant(space=Space(hat=Policies(), a=Floats(1.01, 3.0)))} | {"1 - 2 a": {"times": 2}})  # fmt: skip
def all_correct_answers_outside(hat, a, *, times=1):
    found = forward_kl_with_entropy(*with_outsider(hat, np.zeros_like(hat), np.ones_like(a)), a)
    return outside(found.log_policy), 1 - times * a, 1.0


@C2.check(Identity(1e-10, scale=1), Space(hat=MILD, reward=Rewards(), a=Floats(0.05, 2.0), lead=Floats(0.0, 5.0)), instances=2000,
          false={"nor for the forward KL": {"forward": True}})  # fmt: skip
def nothing_outside_counts_for_the_reverse_kl(hat, reward, a, lead, *, forward=False):
    solver = forward_kl_with_entropy if forward else kl_regularized
    found, inside = (solver(*problem, a) for problem in (with_outsider(hat, reward, lead), (hat, reward)))
    none = np.zeros((*inside.kl.shape, 1))
    return {
        "the law": (np.exp(found.log_policy), np.concatenate([np.exp(inside.log_policy), none], -1), 1.0),
        "its gap": (found.gap, 0.0, 1 + np.abs(found.value)),
    }


C2_always = paper.claim("C2-always", r"""
    The forward KL lets the optimum leave the support whenever a better response is outside

    With $r_{out}>\max_{supp}r$ at least a thousandth of the mass leaves the support, at every coefficient.

    where: claim (i), out-of-distribution exploration
    instead: Only if $a\,\mathbb{E}_{\hat\pi}[1/(r_{out}-r)]<1$: $\hat\pi=(.7,.3,0)$, $r=(0,.5,1)$ stays inside from
    $a=1/1.3$ on. At a coefficient of at most half the lead at least half of the mass leaves.
    by: C2
    origin: as commonly read
    """)  # fmt: skip


@C2_always.check(Inequality(1e-12, scale=1), Space(**OUTSIDE | {"lead": Floats(0.01, 1.0)}), instances=150,
                 examples=[{"hat": np.log([0.7, 0.3]), "reward": np.array([0.0, 0.5]), "a": 1.5, "lead": 0.5}],
                 true={"at a < lead/2 at least half": {"share": 0.5}})  # fmt: skip
def some_mass_leaves(hat, reward, a, lead, *, share=0.0):
    coefficient = np.minimum(a, share * lead) if share else a
    found = forward_kl_with_entropy(*with_outsider(hat, reward, lead), coefficient)
    return share or 1e-3, outside(found.log_policy)


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    Optimum with entropy: the target of RAPO

    $$\pi^*(y)=\frac{c}{W\!\big(c\,e^{(\lambda-r)/b}\big)},\quad c=\frac{a\hat\pi(y)}b,\qquad
    \pi^*(y)=e^{(r-\lambda)/b}\ \text{where}\ \hat\pi=0,$$ $W$ the Lambert function, $\lambda$ from
    the normalisation, in $[\max r,\max r+2a+b\log2A]$. Responses outside share as a softmax of $r/b$. $b\to0$ gives C1 and C2
    with error $O(b)$ (away from the threshold of C2), $a\to0$ the softmax of $r/b$ with error $O(a)$.

    where: derived; the paper has the objective
    """)  # fmt: skip


@C3.check(Optimality(1e-10, scale=1), Space(**SOFT | {"hat": Policies(zero_support=True, spread=8.0)}, A=Sizes(2, 6)), batched=False,
          instances=12, false={"entropy does not matter": {"bonus": 0.0}})  # fmt: skip
def no_optimiser_does_better_with_entropy(hat, reward, a, b, *, bonus=1.0):
    best = forward_kl_with_entropy(hat, reward, a, bonus * b)
    found, value = by_newton(hat, reward, a, b)
    away = np.abs(np.exp(found) - np.exp(best.log_policy)).max()
    own = objective(best.log_policy, hat, reward, a, bonus * b)
    return {
        "value": (objective(best.log_policy, hat, reward, a, b), value),
        "the same law, to 1e-6": (1e-6, away),
        "at least its own value": (own, best.value),
        "at most": (best.value, own),
    }


@C3.check(
    Identity(1e-9, scale=1),
    Space(**SOFT),
    instances=2000,
    false={"c = a hat": {"over": 0.0}, "the multiplier is max r": {"lam": 0.0}},
)
def lambert_form(hat, reward, a, b, *, over=1.0, lam=1.0):
    """The multiplier from the stationarity of the best response, the others from the formula."""
    a, b = a[..., None], b[..., None]
    log_pi = forward_kl_with_entropy(hat, reward, a[..., 0], b[..., 0]).log_policy
    best = np.argmax(reward, axis=-1)[..., None]
    top, at = np.take_along_axis(reward, best, -1), np.take_along_axis(log_pi, best, -1)
    x = lam * (a * np.exp(np.take_along_axis(hat, best, -1) - at) - b * at)  # lambda - max r
    c, behind = a * np.exp(hat) / b**over, (x + top - reward) / b
    assume((behind < 600).all(axis=-1))
    z = c * np.exp(behind)
    stated = np.where(
        z > 1e-290, c / np.maximum(lambertw(z).real, 1e-300), np.exp(-behind)
    )  # W(z) = z for the smallest
    return {"law": (np.exp(log_pi), stated), "bracket": (np.clip(x, 0, 2 * a + b * np.log(2 * hat.shape[-1])), x)}


@C3.check(Identity(1e-9, scale=1), Space(hat=Policies(), reward=Rewards(), a=SOFT["a"], b=SOFT["b"], r1=Floats(-1.0, 1.0), r2=Floats(-1.0, 1.0)),
          instances=2000, false={"in equal parts": {"by_reward": 0.0}})  # fmt: skip
def those_outside_share_by_reward(hat, reward, a, b, r1, r2, *, by_reward=1.0):
    two = np.concatenate([hat, np.full((*hat.shape[:-1], 2), -np.inf)], -1)
    log_pi = forward_kl_with_entropy(two, np.concatenate([reward, r1[..., None], r2[..., None]], -1), a, b).log_policy
    return log_pi[..., -2] - log_pi[..., -1], by_reward * (r1 - r2) / b, np.abs(log_pi[..., -1])


FOUR = np.log([0.5, 0.3, 0.15, 0.05]), np.array([0.0, 0.3, 0.6, 1.0])
ESCAPING = log([0.6, 0.4, 0.0]), np.array([0.2, 0.5, 1.0])


@C3.check(Limit(rate=1.0, tol=2e-3), false={"to the optimum at 1.1 a": {"times": 1.1}})
def no_entropy_in_the_limit(*, times=1.0):
    bs = 0.004 / 2.0 ** np.arange(7)

    def errors(problem, a):
        end = np.exp(forward_kl_with_entropy(*problem, times * a).log_policy)
        return [np.abs(np.exp(forward_kl_with_entropy(*problem, a, b).log_policy) - end).max() for b in bs]

    return {"inside": (bs, errors(FOUR, 0.5)), "escaping": (bs, errors(ESCAPING, 0.3))}


@C3.check(Limit(rate=1.0, tol=1e-5), false={"to the softmax of r": {"exponent": 0.0}})
def no_reference_in_the_limit(*, exponent=1.0):
    alphas, end = 1e-5 / 4.0 ** np.arange(6), np.exp(log_normalize(FOUR[1] / 0.5**exponent))
    laws = (np.exp(forward_kl_with_entropy(*FOUR, a, 0.5).log_policy) for a in alphas)
    return alphas, [np.abs(law - end).max() for law in laws]


C3_alone = paper.claim("C3-alone", r"""
    The forward KL alone gives mass to every response outside the reference

    $\pi^*(y)\ge e^{-(2a+\max r-r(y))/b}/2A$ for $\hat\pi(y)=0$, with no entropy in the objective.

    where: claim (i), out-of-distribution exploration
    instead: It gives mass only to the best response, and only if that beats the support by enough (C2). With the entropy
    bonus every response has at least that mass: .0151 instead of 0 for $\hat\pi=(.6,.4,0)$, $r=(.5,.2,0)$, $a=.3$, $b=.2$.
    by: C2, C3
    origin: as commonly read
    """)  # fmt: skip


@C3_alone.check(Inequality(1e-12), Space(hat=MILD, reward=Rewards(), a=SOFT["a"], b=SOFT["b"], lead=Floats(-1.0, 0.0)), instances=150,
                true={"with the entropy bonus": {"bonus": 1.0}})  # fmt: skip
def every_response_has_mass(hat, reward, a, b, lead, *, bonus=0.0):
    log_pi = forward_kl_with_entropy(*with_outsider(hat, reward, lead), a, bonus * b).log_policy
    return np.exp(-(2 * a - lead) / b) / (2 * log_pi.shape[-1]), outside(log_pi)


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    The low-variance estimate has the value of the forward KL; what its gradient is, and what it misses

    $\mathbb{E}_\pi[u\log u-u+1]=\mathrm{KL}(\hat\pi\|\pi)$, $u=\hat\pi/\pi$, with terms $\ge0$. Differentiated with the samples
    held fixed it gives $-\mathbb{E}_{\hat\pi}[\log\frac{\hat\pi}\pi\nabla\log\pi]$. Adding $(u\log u-u+1)\nabla\log\pi$ restores
    $\nabla\mathrm{KL}=-\mathbb{E}_\pi[(u-1)\nabla\log\pi]$; the two differ by $O(\log^2u)$. A response that the reference does
    not want ($u\to0$) is pushed down by $\pi(y)\,\mathrm{KL}(\hat\pi\|\pi)$ in its logit instead of $\pi(y)$. The weight $u-1$ has
    second moment $\chi^2(\hat\pi\|\pi)$: a response with $\pi=10^{-7}$, $\hat\pi=10^{-4}$ adds .10 through an event of probability
    $10^{-7}$.

    where: derived; the low-variance estimate; its gradient is derived
    assumes: The policy has mass wherever the reference has.
    """)  # fmt: skip
PAIR = {"pi": Policies(spread=6.0), "hat": Policies(spread=6.0), "A": Sizes(2, 6)}


@C4.check(Identity(1e-10, scale=1), Space(**PAIR), batched=False, instances=60,
          false={"also where the policy has lost an answer": Variant(space=Space(pi=Policies(zero_support=True), hat=MILD, A=Sizes(2, 6)))}
          | {"of the policy from the reference": {"swap": True}})  # fmt: skip
def value_is_the_forward_kl(pi, hat, *, swap=False):
    alive = np.isfinite(pi)
    return (
        estimate(pi[alive], hat[alive], pi[alive]),
        kl(pi, hat) if swap else kl(hat, pi),
        np.exp(np.max(hat - pi, where=alive, initial=0)),
    )


# central differences: truncation h² u/6, rounding eps u/h
@C4.check(Identity(1e-7, scale=1), Space(**PAIR), batched=False, instances=40, false={
    "the samples follow the policy": {"moving": True}, "nothing has to be added": {"score": 0}, "terms of u log u": {"plain": 1}})  # fmt: skip
def score_term_restores_the_gradient(pi, hat, *, moving=False, score=1, plain=0):
    p, u = np.exp(pi), np.exp(hat - pi)
    terms = np.array([estimate(pi, hat, log(e)) for e in np.eye(len(pi))]) + plain * (u - 1)
    found = slope(lambda z: estimate(z, hat, log_normalize(z) if moving else pi), pi)
    return {
        "terms are not negative": (terms, np.maximum(terms, 0), 1 + u),
        "back-propagated": (found, backpropagated(pi, hat), u.max()),
        "restored": (found + score * p * (terms - p @ terms), p - np.exp(hat), u.max()),
    }


@C4.check(Identity(1e-9, scale=1), Space(**PAIR), batched=False, instances=60,
          false={"capped at 2 as well": {"cap": 2.0}, "of the reverse chi²": {"swap": True}, "capped at 9 by default": {"usual": 9.0}})  # fmt: skip
def score_form_is_the_gradient(pi, hat, *, cap=1e300, swap=False, usual=10.0):
    p, w = np.exp(pi), score_weights(pi, hat, cap=cap)
    u = np.exp(np.max(hat - pi))
    return {
        "descends the KL": (p * (w - p @ w), np.exp(hat) - p, u),
        "second moment": (p @ w**2, chi2(pi, hat) if swap else chi2(hat, pi), u**2),
        "RAPO's own cap": (score_weights(pi, hat), np.minimum(np.exp(hat - pi), usual) - 1, u),
    }


SIX = log_normalize(np.array([0.0, 1.0, -1.0, 0.5, -0.5, 0.2]))
AWAY = np.array([1.0, 0.0, 0.5, -1.0, 0.0, -0.3])


@C4.check(Limit(rate=2.0), false={"for a penalty scaled by 1.1": {"times": 1.1}})
def they_agree_to_first_order(*, times=1.0):
    sizes = 0.4 / 2.0 ** np.arange(7)
    hats = [log_normalize(SIX + e * AWAY) for e in sizes]
    gradients = [times * slope(lambda z, hat=hat: estimate(z, hat, SIX), SIX) for hat in hats]
    return sizes, [np.linalg.norm(g - np.exp(SIX) + np.exp(hat)) for g, hat in zip(gradients, hats)]


@C4.check(Limit(tol=1e-4), false={"by pi(y), as the exact gradient does": {"exact": True}})
def what_should_be_given_back(*, exact=False):
    masses, errors = 10.0 ** -np.arange(1, 9), []
    for mass in masses:
        hat = np.concatenate([[math.log(mass)], math.log1p(-mass) + log_normalize(SIX[1:] + AWAY[1:])])
        force = slope(lambda z, hat=hat: estimate(z, hat, SIX), SIX)[0] / np.exp(SIX[0])
        errors.append(force - (1.0 if exact else kl(hat, SIX)))
    return masses, errors


C4_backprop = paper.claim("C4-backprop", r"""
    Back-propagating the low-variance estimate descends the forward KL

    The gradient of $u\log u-u+1$, averaged over samples of the policy, is $\nabla\mathrm{KL}(\hat\pi\|\pi)$.

    where: objective with the low-variance estimate as penalty
    instead: It is $-\mathbb{E}_{\hat\pi}[\log\frac{\hat\pi}\pi\nabla\log\pi]$; the score term is missing. On six answers the
    gradient is off by 47 % of its length. Use the detached weight $u-1$ on $\nabla\log\pi$.
    by: C4/score_term_restores_the_gradient, C4/score_form_is_the_gradient
    origin: as commonly read
    """)  # fmt: skip


@C4_backprop.check(Identity(1e-6, scale=1), Space(**PAIR), batched=False, instances=20, examples=[{"pi": SIX, "hat": log_normalize(AWAY)}],
                   true={"with samples that follow the policy": {"moving": True}})  # fmt: skip
def backpropagation_descends_the_kl(pi, hat, *, moving=False):
    found = slope(lambda z: estimate(z, hat, log_normalize(z) if moving else pi), pi)
    return found, np.exp(pi) - np.exp(hat), np.exp(np.max(hat - pi))


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    What the reweighted reference does: it flattens, and with phi(1) = 1 it never promotes

    (i) With one exponent for a law $\hat\pi_\phi\propto\pi_{ref}^\phi$ is an escort distribution:
    $dH/d\phi=-\phi\,\mathrm{Var}_{\hat\pi_\phi}(\log\pi_{ref})$; answers below the (geometric) mean probability gain by
    flattening, however rare: .001 in (.001, .099, .9) becomes .079 at $\phi=.3$. (ii) With a binary reward, an exponent a response,
    $\phi(1)=1$ and $\phi(0)\le1$, the reference mass on correct answers never increases.

    where: derived; the paper has the reweighting
    """)  # fmt: skip


# central differences of an entropy: truncation h² (spread 20)³, rounding eps/h
@C5.check(Identity(1e-6), Space(ref=Policies(spread=8.0, zero_support=True), phi=Floats(0.05, 1.0)), instances=2000,
          false={"by the variance alone": {"power": 0.0}, "by the variance under the reference": {"tempered": 0.0}})  # fmt: skip
def entropy_falls_by_a_variance(ref, phi, *, power=1.0, tempered=1.0):
    h = 1e-5
    measured = (entropy(temper(ref, phi + h)) - entropy(temper(ref, phi - h))) / (2 * h)
    law = reweighted(ref, np.where(tempered, phi, 1.0)[..., None])
    spread = variance(law, np.where(np.isfinite(ref), ref, 0.0))
    return measured, -(phi**power) * spread, 1 + 100 * spread


@C5.check(Inequality(1e-12, scale=1), Space(ref=Policies(), phi=Floats(0.0, 1.0)), instances=200,
          false={"so does every answer below its mean log probability": {"mean": "ref"}})  # fmt: skip
def rare_answers_gain(ref, phi, *, mean="geometric"):
    bar = ref.mean(-1) if mean == "geometric" else -entropy(ref)
    gain = np.exp(reweighted(ref, phi[..., None])) - np.exp(ref)
    return 0.0 * gain, np.where(ref <= bar[..., None], gain, 1.0)


@C5.check(Inequality(1e-12, scale=1), Space(ref=Policies(), correct=Masks(), phi=Floats(0.0, 1.0)), instances=250,
          false={"with phi(1) = .8": {"kept": 0.8}, "with phi(1) and phi(0) swapped": {"swap": True}})  # fmt: skip
def correct_mass_never_increases(ref, correct, phi, *, kept=1.0, swap=False):
    exponent = np.where(correct != swap, kept, kept * phi[..., None])
    before, after = (np.sum(np.exp(law) * correct, axis=-1) for law in (ref, reweighted(ref, exponent)))
    return after, before


TREES = {"V": Sizes(2, 4), "H": Sizes(2, 3)}
BUSHY = (log([[0.9, 0.1, *[0] * 14]]), log([[1 / 16] * 16, *[[1, *[0] * 15]] * 15]))  # 16 endings, or one
C5_token = paper.claim("C5-token", r"""
    Tempering the reference token by token flattens the law of responses

    For $0<\phi<1$ the responses drawn from $\prod_t\pi_{ref}(\cdot|s_t)^\phi/z(s_t)$ have at least the entropy of the reference's.

    where: the reweighting, as implemented on tokens
    instead: True of the escort of whole responses (C5). Token-level tempering is another law, and can lower the entropy of responses:
    it moves mass from a likely branch with many endings to an unlikely one with few (4.47, 4.02, 3.00 nats at $\phi=1,.5,0$ for
    a first token (.9, .1) with 100 endings and one).
    by: C5/entropy_falls_by_a_variance
    origin: as commonly read
    """)  # fmt: skip


@C5_token.check(Inequality(1e-10, scale=1), Space(ref=TreePolicies(), phi=Floats(0.05, 0.95), **TREES), instances=100,
                examples=[{"ref": BUSHY, "phi": 0.5}], true={"as the escort of whole responses": {"whole": True}})  # fmt: skip
def token_tempering_raises_entropy(ref, phi, *, whole=False):
    law = sequence_log_probs(ref)
    tempered = (
        reweighted(law, phi[..., None]) if whole else sequence_log_probs([temper(x, phi[..., None]) for x in ref])
    )
    return entropy(law), entropy(tempered)


C5_law = paper.claim("C5-law", r"""
    An exponent for every response, with the normaliser of its tokens, reweights the reference to a law

    $\prod_t\pi_{ref}(y_t|s_t)^{\phi(r(y))}/z_{\phi(r(y))}(s_t)$ sums to one over responses, so that $\mathbb{E}_\pi u=1$.

    where: the reweighting, as implemented on tokens
    instead: Only with one exponent for all responses of a prompt. Otherwise the normaliser is that of whole responses.
    by: C5
    origin: as commonly read
    """)  # fmt: skip


@C5_law.check(Identity(1e-9), Space(ref=TreePolicies(), score=TreeNormals(), phi=Floats(0.0, 0.9), **TREES), batched=False, instances=60,
              true={"with one exponent a prompt": {"kept": None}})  # fmt: skip
def reweighted_responses_sum_to_one(ref, score, phi, *, kept=1.0):
    low = [temper(x, phi) for x in ref]
    high = low if kept is None else ref
    right = score[-1].reshape(*score[-1].shape[:-2], -1) > 0
    return np.sum(np.exp(np.where(right, sequence_log_probs(high), sequence_log_probs(low))), axis=-1), 1.0


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    How the useful coefficient depends on rarity

    Two classes, correct mass $\epsilon<\frac12$ in the reference, $r\in\{0,1\}$. The optimum succeeds with probability $p>\epsilon$ at
    the reverse-KL coefficient $1/(\log\frac p{1-p}-\log\frac\epsilon{1-\epsilon})$, which vanishes logarithmically, and at
    the forward-KL coefficient $1/(\frac{1-\epsilon}{1-p}-\frac\epsilon p)$, which does not vanish: for $p=\frac12$ it is
    $\frac1{2(1-2\epsilon)}$. As $\epsilon\to0$ the forward optimum succeeds with $\max(0,1-a)$, the reverse one with 0. For
    $\epsilon\in[.1,.6]$ and $a=.2$ the forward optimum succeeds with .82 to .93.

    where: derived
    assumes: phi = 1, b = 0.
    """)  # fmt: skip
C6_SPACE = Space(eps=Floats(1e-10, 0.4, log=True), p=Floats(0.42, 0.95))
SOLVERS = {"reverse": kl_regularized, "forward": forward_kl_with_entropy}


def success(kind, eps, coefficient):
    hat = np.log(np.stack([eps, 1 - eps], axis=-1))
    return np.exp(SOLVERS[kind](hat, [1.0, 0.0], coefficient).log_policy[..., 0])


@C6.check(Identity(1e-9), C6_SPACE, instances=2000, false={
    "the forward coefficient is 1 - p": {"rare": 0}, "the reverse coefficient does not depend on eps": {"fixed": 0.01}})  # fmt: skip
def coefficient_for_a_success(eps, p, *, rare=1, fixed=None):
    at = eps if fixed is None else fixed
    reverse = 1 / (np.log(p / (1 - p)) - np.log(at / (1 - at)))
    forward = 1 / ((1 - rare * eps) / (1 - p) - rare * eps / p)
    return {"reverse": (success("reverse", eps, reverse), p), "forward": (success("forward", eps, forward), p)}


@C6.check(Limit(rate=1.0), false={"the forward optimum fails too": {"forward": 0.0}})
def success_on_the_rarest(*, forward=1.0):
    eps = 1e-4 / 10.0 ** np.arange(6)
    ends = {("forward", 0.2): 0.8 * forward, ("forward", 1.5): 0.0, ("reverse", 0.2): 0.0}
    return {f"{kind} {at:g}": (eps, success(kind, eps, at) - end) for (kind, at), end in ends.items()}


@C6.check(Inequality(1e-9), Space(eps=Floats(0.1, 0.6)), instances=100, false={"at a = .1": {"a": 0.1}})
def easy_prompts_at_a_fifth(eps, *, a=0.2):
    """What C7's forward KL would leave of easy prompts, were its optimum that of C1."""
    p = success("forward", eps, a)
    return {"at least .82": (0.82, p), "at most .93": (p, 0.93)}


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Pass@k beyond the base model on hard prompts: the flatter target does it

    24 prompts with a correct answer of mass $10^{U(-5,-3)}$, 24 easy ones; 64 answers, groups of 8, tabular logits, 300 steps. RAPO
    (forward KL to $\pi_{ref}^\phi$, $\phi=.3+.7\cdot$ the group's mean reward, $a=.2$, weight $\min(u,10)-1$, $b=.02$) raises
    pass@256 on the hard prompts by more than .02 over the base and over the reverse KL, with easy pass@1 above .95 (C6's optimum has
    at most .93: the scaled advantage and the cap change the objective). Without the
    reweighting the forward KL is within .005 of the reverse one; a reverse KL to the flat reference and an entropy bonus without KL
    also gain more than .02. The cap keeps the easy prompts: without it their pass@1 is lower by more than .02.

    where: derived; experiments (AIME with a large budget), at small scale; the attribution is derived
    """)  # fmt: skip


def arms(rngs, *chosen):
    """``(hard pass@256, easy pass@1)`` of every arm, and of the base first, with the same uniforms."""
    world = World.draw(rngs)
    return [pass_rates(world.log_ref), *(pass_rates(train(world, arm)) for arm in chosen)]


# over 40 seeds (standard deviation): over the base .141 ± .045, RAPO, the flat reverse KL and the bonus over the reverse KL
# .096 ± .032, .097 ± .032, .102 ± .033, easy .9938 ± .0003
@C7.check(Effect(seeds=14), false={"without the reweighting": Variant({"flatten": False}, kind=Effect(seeds=4))})
def flat_targets_gain_on_hard_prompts(rngs, *, flatten=True):
    base, ours, flat, bonus, reverse = arms(rngs, RAPO._replace(flatten=flatten), REVERSE_FLAT, ENTROPY_ONLY, REVERSE)
    return {
        "over the base": ours[0] - base[0] - 0.02,
        "over the reverse KL": ours[0] - reverse[0] - 0.02,
        "easy pass@1": ours[1] - 0.95,
        "reverse KL to the flat reference": flat[0] - reverse[0] - 0.02,
        "entropy bonus without KL": bonus[0] - reverse[0] - 0.02,
    }


# .0005 ± .0017 to .0023 with common uniforms
@C7.check(Effect(seeds=14, alternative="within", margin=0.005),
          false={"with the reweighting": Variant({"flatten": True}, kind=Effect(seeds=4, alternative="within", margin=0.005))})  # fmt: skip
def direction_alone_changes_nothing(rngs, *, flatten=False):
    _, forward, reverse = arms(rngs, FORWARD._replace(flatten=flatten), REVERSE)
    return forward[0] - reverse[0]


@C7.check(Effect(seeds=5), false={"so does a cap of 10^3": {"high": 1e3, "low": 1e3}})
def the_cap_keeps_easy_prompts(rngs, *, low=10.0, high=1e300):
    _, capped, free = arms(rngs, RAPO._replace(cap=low), RAPO._replace(cap=high))
    return capped[1] - free[1] - 0.02


C7_direction = paper.claim("C7-direction", r"""
    Exploration comes from the forward direction of the KL

    With the same reweighted reference, RAPO's pass@256 on hard prompts is above that of a reverse KL by more than .02,
    a fifth of its gain over the reverse KL to the plain reference.

    where: abstract (the reverse KL is blamed for the ceiling)
    instead: The flatter target does the work in this world: a reverse KL (coefficient .5) to the same reweighted
    reference is as good, with easy pass@1 of .989.
    by: C7
    origin: as commonly read
    """)  # fmt: skip


# -.001 to -.003 ± .011
@C7_direction.check(
    Effect(seeds=12, null=0.02), true={"over the reverse KL to the plain reference": {"rival": REVERSE}}
)
def forward_beats_reverse_on_the_same_reference(rngs, *, rival=REVERSE_FLAT):
    _, ours, other = arms(rngs, RAPO, rival)
    return ours[0] - other[0]
