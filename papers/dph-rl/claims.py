r"""Claims of "The Choice of Divergence: A Neglected Key to Mitigating Diversity Collapse in RLVR" (DPH-RL).

Notation: policy ``pi``, reference ``ref``, ratio ``u = pi/ref``, ``D_f(pi‖ref) = E_ref f(u)``; generators rkl (reverse KL), fkl
(forward KL, ``KL(ref‖pi)``), js (``2 JSD``), alpha (0.2). E are prompts to explore, P mastered ones.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import softmax

from klsim.claims import Effect, Identity, Inequality, Limit, Optimality, Paper, Variant
from klsim.distributions import condition, log_normalize, tilt
from klsim.divergences import js, kl, tv
from klsim.learning import divergence_gradient, rehearsal_gradient, score_function_gradient
from klsim.modes import beta_for_success, cost_of_losing, least_mass, log_ratio_floor
from klsim.objectives import TokenBatch, dph_rl
from klsim.problems.token_tree import sequence_log_probs, tokens
from klsim.spaces import Betas, Choice, Floats, Masks, Normals, Policies, Rewards, Seeds, Sizes, Space, TreePolicies

from .setting import (
    DPH_F,
    DPH_JS,
    DPH_R,
    FLAT,
    GRPO,
    HAND,
    LOST_REF,
    NAMES,
    NONE,
    ON_POLICY,
    OPPOSITE,
    by_bfgs,
    divergence,
    filtered_gradient,
    guarantee,
    lost_mode,
    multiplier,
    numeric,
    objective,
    one,
    optimum,
    recovery,
    sequence_divergence,
    study,
    success,
    success_sum,
    table,
    token_sum,
    two_actions,
    two_sided,
    two_sided_gradient,
    worlds,
)  # fmt: skip

paper = Paper(
    "dph-rl",
    title="The Choice of Divergence: A Neglected Key to Mitigating Diversity Collapse in Reinforcement Learning with Verifiable Reward",
    authors="Long Li, Zhijian Zhou, Jiaran Hao, Jason Klein Liu, Yanting Miao, Wei Pang, Xiaoyu Tan, Wei Chu, Zhe Wang, Shirui Pan, "
    "Chao Qu, Yuan Qi",
    year=2025,
    arxiv="2509.07430",
)  # fmt: skip

PAIR = {"log_pi": Policies(), "log_ref": Policies()}
NEAR = {"logits": Normals("A"), "ref": Normals("A"), "A": Sizes(2, 6)}  # finite differences want moderate ratios


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    The generators, their derivatives, inverses and divergences

    With $f(1)=f'(1)=0$: rkl $u\log u-u+1$, fkl $-\log u+u-1$, js $u\log u-(u+1)\log\frac{u+1}2$, alpha
    $\frac{u^{1-a}-(1-a)u-a}{a(a-1)}$; $f'$: $\log u$, $1-\frac1u$, $\log\frac{2u}{1+u}$, $\frac{1-u^{-a}}a$; curvature $f''(1)$ is 1, except
    $\frac12$ for js. $D_f$ is $\mathrm{KL}(\pi\|\pi_{ref})$, $\mathrm{KL}(\pi_{ref}\|\pi)$ and *twice* the Jensen-Shannon divergence.

    where: the f-divergence section; js and alpha as in the released code
    assumes: Shifts $c(u-1)$ are immaterial while $\pi$ is normalised and has no mass where $\pi_{ref}$ has none.
    """)  # fmt: skip


GRID = np.geomspace(1e-3, 1e3, 401)


@C1.check(Identity(1e-12), false={"the js generator is that of JSD": {"twice": 1}})
def table_of_generators(*, twice=2):
    out, u = {}, GRID
    for name in NAMES:
        (of, times), row = one(name), table(name)
        times = twice if name == "js" else times
        size = 1 + u + u * np.abs(np.log(u))
        out |= {f"{name}: f": (row.f(u), times * of.value(u), 10 * size),
                f"{name}: slope": (row.slope(u), times * of.derivative(u), 1 + 1 / u),
                f"{name}: inverse slope": (np.log(of.inverse_derivative(row.slope(u) / times)), np.log(u), 1e3)}  # fmt: skip
    return out


# central differences: truncation h² f''' u² / 6, rounding eps / h
@C1.check(Identity(1e-6, scale=1), false={"js: log(u/(1+u))": {"shift": -math.log(2)}})
def slopes(*, shift=0.0):
    h, u, rows = 1e-5, GRID[100:300], {name: table(name) for name in NAMES}
    numeric = {name: (row.f(u * (1 + h)) - row.f(u * (1 - h))) / (2 * h * u) for name, row in rows.items()}
    return {name: (numeric[name], row.slope(u) + (shift if name == "js" else 0.0)) for name, row in rows.items()}


@C1.check(
    Identity(1e-6, scale=1),
    false={"js as transcribed second-hand: u log(u/2) - (u+1)/2 log((u+1)/2)": {"transcribed": True}},
)
def values_and_curvatures_at_one(*, transcribed=False):
    out, h = {}, 1e-5
    for name in NAMES:
        row = table(name)
        if transcribed and name == "js":
            row = row._replace(f=lambda x: x * np.log(x / 2) - (x + 1) / 2 * np.log((x + 1) / 2))
        bend = (row.slope(1 + h) - row.slope(1 - h)) / (2 * h)
        (of, times), said = one(name), (0.0, 0.0, row.curvature, row.curvature, row.recession)
        out[name] = (
            np.array([row.f(1.0), row.slope(1.0), bend, times * of.curvature, times * of.recession]),
            np.array(said),
        )
    return out


@C1.check(Identity(1e-11), Space(**PAIR), instances=300, false={"the js loss estimates JSD": {"jsd": 1}})
def divergences_by_name(log_pi, log_ref, *, jsd=2):
    ratio = np.max(np.abs(log_pi - log_ref), axis=-1)
    named = {"rkl": kl(log_pi, log_ref), "fkl": kl(log_ref, log_pi), "js": jsd * js(log_pi, log_ref)}
    u, ref = np.exp(log_pi - log_ref), np.exp(log_ref)
    written = {name: np.sum(ref * table(name).f(u), axis=-1) for name in NAMES}
    size = np.sum(ref * (1 + u) * (1 + np.abs(np.log(u))), axis=-1) + np.sum(ref * np.exp(0.8 * np.log(u)), axis=-1)
    out = {f"{name}: written out": (divergence(name, log_pi, log_ref), written[name], 10 * size) for name in NAMES}
    return out | {name: (divergence(name, log_pi, log_ref), value, 1e-3 * ratio) for name, value in named.items()}


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    The gradient needs only stored samples of the reference; for the forward KL it is that of SFT

    $\nabla D_f=\mathbb{E}_{a\sim\pi_{ref}}[u f'(u)\nabla\log\pi(a)]$, in logits $\pi_a(f'(u_a)-\mathbb{E}_\pi f'(u))$. For the forward KL it is
    $\mathbb{E}_{\pi_{ref}}[-\nabla\log\pi]$, in logits $\pi-\pi_{ref}$, *provided the reference has full support*.

    where: the objective of DPH-RL; the released loss
    """)  # fmt: skip


@C2.check(Identity(1e-8, scale=1), Space(**NEAR, name=Choice(*NAMES)), batched=False, instances=20,
          false={"on samples of the policy": {"law": "policy"}, "with weights f'(u)": {"weights": "slope"}})  # fmt: skip
def gradient_from_stored_samples(logits, ref, name, *, law="reference", weights="both"):
    log_pi, log_ref, (of, times) = log_normalize(logits), log_normalize(ref), one(name)
    stored = np.exp(log_ref if law == "reference" else log_pi)

    def released(new):
        batch = TokenBatch(new[:, None], ref_log_probs=log_ref[:, None])
        return dph_rl(batch, generator=of, aggregate=lambda values, mask: np.exp(log_ref) @ values[:, 0])[0]

    found = rehearsal_gradient(log_pi, log_ref, stored, of)
    if weights == "slope":
        found = score_function_gradient(log_pi, stored, of.derivative(np.exp(log_pi - log_ref)))
    exact = numeric(lambda new: divergence(name, new, log_ref), logits)
    return {"of the divergence": (times * found, exact), "of the released loss": (found, numeric(released, logits)),
            "in logits": (times * divergence_gradient(log_pi, log_ref, of), exact)}  # fmt: skip


@C2.check(Identity(1e-12, scale=1), Space(**PAIR), instances=300,
          false={"also where the reference has zeros": Variant(space=Space(log_pi=Policies(), log_ref=Policies(zero_support=True)))})  # fmt: skip
def forward_kl_is_sft(log_pi, log_ref):
    ref = np.exp(log_ref)
    rehearsed, sft = (
        rehearsal_gradient(log_pi, log_ref, ref, "forward_kl"),
        score_function_gradient(log_pi, ref, -1 + 0 * ref),
    )
    return {"gradient": (rehearsed, sft), "in logits": (sft, np.exp(log_pi) - ref)}


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    Optimum of the reward minus an f-divergence, and its dual

    $\pi^*=\pi_{ref}(f')^{-1}(\frac{r-\lambda}\beta)$ with the one $\lambda$ that normalises it; fkl: $\pi^*=\frac{\beta\pi_{ref}}{\mu-r}$ with
    $\mu=\lambda+\beta>\max r$. The optimal value is $\min_\lambda\lambda+\beta\,\mathbb{E}_{ref}f^*(\frac{r-\lambda}\beta)$ with $f^*(s)$: $e^s-1$,
    $-\log(1-s)$, $-\log(2-e^s)$, $\frac{(1-as)^{-(1-a)/a}-1}{1-a}$.

    where: derived
    assumes: $\pi_{ref}>0$; $f'(0)=-\infty$ for all four, so no sign constraint binds.
    """)  # fmt: skip
C3_FIELDS = {"log_ref": Policies(spread=8.0), "reward": Rewards(ties=False), "beta": Floats(0.1, 1.0), "A": Sizes(2, 6)}


@C3.check(Identity(1e-9, scale=1), Space(**C3_FIELDS, name=Choice(*NAMES)), batched=False, instances=40,
          false={"the exponential tilt": {"form": "tilt"}, "with lam = max r": {"root": "top"}})  # fmt: skip
def closed_form_and_dual(log_ref, reward, beta, name, *, form="own", root="found"):
    row, best = table(name), optimum(log_ref, reward, beta, name)
    lam = reward.max() if root == "top" else multiplier(log_ref, reward, beta, name)
    law = (
        np.exp(tilt(log_ref, reward, beta)) if form == "tilt" else np.exp(log_ref) * row.inverse((reward - lam) / beta)
    )
    dual = lam + beta * np.exp(log_ref) @ row.conjugate((reward - lam) / beta)
    value, size = objective(best.log_policy, log_ref, reward, beta, name)
    return {"policy": (np.exp(best.log_policy), law), "value": (value, dual, size)}


# the optimiser stops at a gradient of 1e-9: its value is optimal to rounding, its law to about 1e-6
PEAKED = {"log_ref": np.log([0.5, 0.3, 0.2]), "reward": np.array([1.0, 0.0, 0.0]), "beta": 0.05, "name": "fkl"}


@C3.check(Optimality(1e-10), Space(**C3_FIELDS, name=Choice(*NAMES)), batched=False, instances=15, examples=[PEAKED],
          false={"the exponential tilt is the optimum": {"tilted": True}})  # fmt: skip
def no_optimiser_does_better(log_ref, reward, beta, name, *, tilted=False):
    law = tilt(log_ref, reward, beta) if tilted else optimum(log_ref, reward, beta, name).log_policy
    value, size = objective(law, log_ref, reward, beta, name)
    return value, by_bfgs(log_ref, reward, beta, name)[1], size


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    How much mass wrong answers keep: a floor polynomial in beta for fkl and alpha, exponential for rkl and js

    With $R=\max r-\min r$: $\min u^*\ge(f')^{-1}(-\frac R\beta)$, that is rkl $e^{-R/\beta}$, js $\frac1{2e^{R/\beta}-1}$, fkl $\frac\beta{\beta+R}$,
    alpha $(1+\frac{aR}\beta)^{-1/a}$. The rates as $\beta\to0$ are those of the floors.

    where: derived
    """)  # fmt: skip


@C4.check(Inequality(1e-9, scale=1), Space(log_ref=Policies(), reward=Rewards(), beta=Betas(0.06, 10.0), name=Choice(*NAMES)),
          batched=False, instances=100, false={"all keep the floor of fkl": {"floor_of": "fkl"}})  # fmt: skip
def no_ratio_below_the_floor(log_ref, reward, beta, name, *, floor_of=None):
    (of, times), spread = one(floor_of or name), np.ptp(reward)
    lowest = np.min(optimum(log_ref, reward, beta, name).log_policy - log_ref)
    return log_ratio_floor(spread, beta * times, of), lowest, 1 + spread / beta


@C4.check(Identity(1e-12, scale=1), false={"js: exp(-R/beta)": {"double": 0}})
def floors_in_closed_form(*, double=1):
    x, beta = GRID[:300], 0.3
    written = {
        "rkl": -x,
        "js": -x - np.log(2 - np.exp(-x)) * double,
        "fkl": -np.log1p(x),
        "alpha": -np.log1p(0.2 * x) / 0.2,
    }
    return {n: (log_ratio_floor(x * beta, beta * one(n)[1], one(n)[0]), f, 1 + x) for n, f in written.items()}


@C4.check(Limit(rate=1.0), false={"fkl is exponential too": {"exponential": ("rkl", "js", "fkl")}})
def rates_as_beta_falls(*, exponential=("rkl", "js")):
    """Of ``u(wrong)`` to the power that makes it linear in beta, or of ``beta log u(wrong) + R``."""
    betas, out = 0.04 / 2.0 ** np.arange(6), {}
    for name in NAMES:
        found = optimum(np.log([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.0]), betas, name)
        wrong = found.log_policy[:, 1] - math.log(0.3)
        out[name] = (
            betas,
            betas * wrong + 1 if name in exponential else np.exp(wrong * (0.2 if name == "alpha" else 1.0)),
        )
    return out


C4_js = paper.claim("C4-js", r"""
    JS is mass-covering like the forward KL: wrong answers keep at least a hundredth of the forward-KL floor

    $u^*(a)\ge\frac1{100}\frac\beta{\beta+R}$ for the js optimum, also at equal curvature ($\beta\to2\beta$).

    where: derived; JS is offered beside the forward KL as a mass-covering divergence
    instead: The js floor is $\frac1{2e^{R/\beta}-1}$, exponential like that of the reverse KL: for $\pi_{ref}=(.5,.3,.2)$, $r=(1,0,0)$, $\beta=.05$
    the wrong answers keep $1.4\cdot10^{-9}$ of their mass (rkl $4.1\cdot10^{-9}$, alpha $3.7\cdot10^{-4}$, fkl $4.9\cdot10^{-2}$).
    by: C4
    origin: as commonly read
    """)  # fmt: skip


@C4_js.check(Inequality(1e-9), Space(log_ref=Policies(), reward=Rewards(), beta=Betas(0.02, 10.0), curvature=Floats(1.0, 2.0)),
             instances=200, true={"the forward KL": {"name": "fkl"}})  # fmt: skip
def js_keeps_mass(log_ref, reward, beta, curvature, *, name="js"):
    beta = beta * curvature if name == "js" else beta
    lowest = np.min(optimum(log_ref, reward, beta, name).log_policy - log_ref, axis=-1)
    return beta / (beta + np.ptp(reward, axis=-1)) / 100, np.exp(lowest)


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    With a 0/1 reward on one prompt the divergence only re-maps beta to the success probability

    For every strictly convex $f$, $u^*$ is constant on right and on wrong answers: at success $p$ all optima are $\pi_{ref}(\cdot|right)$ with
    mass $p$ and $\pi_{ref}(\cdot|wrong)$ with $1-p$, where $f'(\frac p{p_{ref}})-f'(\frac{1-p}{1-p_{ref}})=\frac1\beta$. Pass@k and the diversity
    among right answers are the same.

    where: derived
    assumes: Tabular policy, $0<p_{ref}<1$, $p\in(p_{ref},1)$.
    """)  # fmt: skip
BINARY = {"log_ref": Policies(spread=8.0), "right": Masks(), "share": Floats(0.05, 0.95), "A": Sizes(2, 8)}


@C5.check(Identity(1e-8, scale=1), Space(**BINARY), instances=200, false={"an answer of reward .9": {"partial": 0.9}})
def all_optima_are_one(log_ref, right, share, *, partial=1.0):
    base, reward = success(log_ref, right), np.where(right, 1.0, 0.0)
    first = np.eye(right.shape[-1])[np.argmax(right, axis=-1)]
    reward = reward - (1 - partial) * first
    p, out = base + share * (1 - base), {}
    law = np.where(
        right, condition(log_ref, right) + np.log(p)[..., None], condition(log_ref, ~right) + np.log1p(-p)[..., None]
    )
    for name in NAMES:
        of, times = one(name)
        beta = beta_for_success(base, p, of)  # of klsim's generator: `times` of it at beta / times
        out[name] = np.exp(optimum(log_ref, reward, beta / times, name).log_policy), np.exp(law)
    return out


C5_shared = paper.claim("C5-shared", r"""
    One coefficient for prompts of unequal base success: the forward KL spends more of the lift on the rare prompt

    At equal mean success of two prompts, the success of the rarer one is ordered rkl $\le$ js $\le$ fkl. For $p_{ref}=(.1,.3,.6)$ and mean $.7$:
    rkl $(.437,.750,.913)$, js $(.519,.711,.870)$, fkl $(.560,.695,.845)$.

    where: derived
    """)  # fmt: skip


# at equal success of the rare prompt; as both rise when beta falls, equal means order the rare prompt the other way
@C5_shared.check(Inequality(1e-9, scale=1), false={"it spends more on the easy prompt": {"sign": -1}})
def rare_prompts_gain_more(*, sign=1):
    rare, gap, share = (
        x.ravel() for x in np.meshgrid(*(np.linspace(*ends, 12) for ends in ((0.02, 0.5), (0.05, 0.45), (0.05, 0.95))))
    )
    easy, log_ref = {}, np.log(np.stack([rare + gap, 1 - rare - gap], axis=-1))
    for name in ("rkl", "js", "fkl"):
        beta = beta_for_success(rare, rare + share * (1 - rare), one(name)[0]) / one(name)[1]
        easy[name] = sign * optimum(log_ref, np.array([1.0, 0.0]), beta, name).reward
    return {"fkl, js": (easy["fkl"], easy["js"]), "js, rkl": (easy["js"], easy["rkl"])}


@C5_shared.check(Identity(2e-3), false={"they are the same": {"names": ("rkl", "rkl", "rkl")}})
def three_prompts(*, names=("rkl", "js", "fkl")):
    """Success of the three, their mean, and mean pass@4, at the coefficient that makes the mean .7."""
    said = {
        "rkl": (0.437, 0.750, 0.913, 0.7, 0.965),
        "js": (0.519, 0.711, 0.870, 0.7, 0.980),
        "fkl": (0.560, 0.695, 0.845, 0.7, 0.984),
    }
    betas, base, out = {"rkl": 0.514178, "js": 1.137978, "fkl": 0.535812}, np.array([0.1, 0.3, 0.6]), {}
    for name, used in zip(said, names):
        p = optimum(np.log(np.stack([base, 1 - base], axis=-1)), np.array([1.0, 0.0]), betas[used], used).reward
        out[name] = np.array([*p, p.mean(), np.mean(1 - (1 - p) ** 4)]), np.array(said[name])
    return out


C5_narrow = paper.claim("C5-narrow", r"""
    At equal success the optimum of the reverse KL is another, narrower policy than that of the forward KL

    The two differ by at least .02 in total variation.

    where: derived; the paper explains the loss of diversity by the mode-seeking reverse KL
    instead: With a 0/1 reward they are the same policy; the reverse KL keeps the reference's ratios among right answers too. The divergence
    matters with three reward levels ($\pi_{ref}=(.4,.3,.3)$, $r=(0,.5,1)$, equal mean .8: rkl $(.091,.218,.691)$, fkl $(.120,.160,.720)$), in
    how one coefficient is shared by prompts (C5-shared), or away from the optimum (C7, C9, C11).
    by: C5
    origin: as commonly read
    """)  # fmt: skip
THREE = np.log([0.4, 0.3, 0.3])
BETAS = [float(beta_for_success(0.6, 0.8, of)) for of in ("kl", "forward_kl")]


@C5_narrow.check(Inequality(1e-9), examples=[{"reward": np.array([0.0, 1.0, 1.0]), "betas": BETAS}],
                 true={"with three reward levels": Variant(examples=[{"reward": np.array([0.0, 0.5, 1.0]), "betas": [0.4324159240969884, 0.34285714285714275]}])})  # fmt: skip
def reverse_kl_is_narrower(reward, betas):
    laws = [optimum(THREE, reward, beta, name) for beta, name in zip(betas, ("rkl", "fkl"))]
    return {
        "apart": (0.02, tv(laws[0].log_policy, laws[1].log_policy)),
        "at equal mean": (abs(laws[0].reward - laws[1].reward), 1e-5),
    }


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    The price of a mode, and what the forward KL certifies

    Deleting a mode of reference mass $m$ costs fkl $\infty$, rkl $-\log(1-m)$, js $m\log2+(1-m)f(\frac1{1-m})<2\log2$, alpha
    finite: js is cheaper than rkl at every $m$ (not at equal curvature). $\mathrm{KL}(\pi_{ref}\|\pi)\le\epsilon$ certifies
    $\mathrm{kl}(p_{ref}\|p_\pi)\le\epsilon$ for the probability of any event, hence $p_\pi>0$.

    where: derived
    """)  # fmt: skip


@C6.check(Identity(1e-10), Space(log_ref=Policies(spread=12.0), lost=Masks(), A=Sizes(2, 6)), instances=300,
          false={"the price of js is that of JSD": {"times": 1}, "rkl: -log m": {"complement": False}})  # fmt: skip
def price_of_a_mode(log_ref, lost, *, times=2, complement=True):
    left = condition(log_ref, ~lost)
    m = np.sum(np.where(lost, np.exp(log_ref), 0.0), axis=-1)
    rest = np.sum(np.where(lost, 0.0, np.exp(log_ref)), axis=-1)
    written = {"rkl": -np.log(rest if complement else m), "fkl": np.inf + m, "js": m * np.log(2) + rest * table("js").f(1 / rest),
               "alpha": m * table("alpha").f(0.0) + rest * table("alpha").f(1 / rest)}  # fmt: skip
    out = {}
    for name in NAMES:
        of, factor = one(name)
        priced = (times if name == "js" else factor) * cost_of_losing(m, of)
        size = 0.0 if name == "fkl" else 3e-2 + m + np.abs(np.log(rest))
        out |= {
            f"{name}: divergence": (divergence(name, left, log_ref), priced, size),
            f"{name}: formula": (priced, written[name], size),
        }
    return out


@C6.check(Inequality(1e-12), false={"at equal curvature": {"factor": 2}})
def js_is_the_cheaper(*, factor=1):
    m = np.concatenate([np.geomspace(1e-3, 0.5, 60), 1 - np.geomspace(1e-9, 0.5, 60)])
    return factor * 2 * cost_of_losing(m, "js"), cost_of_losing(m, "kl")


@C6.check(Inequality(1e-9), Space(log_pi=Policies(), log_ref=Policies(), event=Masks(), A=Sizes(2, 6)), instances=100,
          false={"so does the reverse KL": {"reverse": True}},
          examples=[{"log_pi": np.log([1e-9, 1 - 1e-9]), "log_ref": np.log([0.3, 0.7]), "event": np.array([True, False])}])  # fmt: skip
def certificate_of_an_event(log_pi, log_ref, event, *, reverse=False):
    budget = kl(log_pi, log_ref) if reverse else kl(log_ref, log_pi)
    m = success(log_ref, event)
    return least_mass(np.minimum(m, 1.0), budget), success(log_pi, event)


@C6.check(Identity(2e-3), false={"budget in bits": {"unit": math.log(2)}})
def worked_certificate(*, unit=1.0):
    return least_mass(0.3, 0.5 * unit), 0.0262


C6_any = paper.claim("C6-any", r"""
    A budget on JS protects every mode as one on the forward KL does

    $\mathrm{kl}(p_{ref}\|p_\pi)\le D_f(\pi\|\pi_{ref})$ for the probability of every event, with js.

    where: derived; JS is offered beside the forward KL as a mass-covering divergence
    instead: js is below $2\log2$ whatever is lost, and dropping a mode of mass .3 costs .235, less than by the reverse KL (.357). Of the four
    only the forward KL is infinite.
    by: C6
    origin: as commonly read
    """)  # fmt: skip


@C6_any.check(Inequality(1e-9, scale=1e-6), Space(log_pi=Policies(), log_ref=Policies(), event=Masks(), A=Sizes(2, 6)), instances=300,
              true={"the forward KL": {"name": "fkl"}})  # fmt: skip
def js_protects_events(log_pi, log_ref, event, *, name="js"):
    pairs = [np.stack([success(law, mask) for mask in (event, ~event)], axis=-1) for law in (log_ref, log_pi)]
    binary = np.sum(pairs[0] * (np.log(pairs[0]) - np.log(pairs[1])), axis=-1)
    return binary, divergence(name, log_pi, log_ref)


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Restoring force on a lost mode: constant for the forward KL, vanishing for the others

    As $\pi_a\to0$, $\partial D_f/\partial z_a\to-\pi_{ref}(a)$ for fkl, $\sim\pi_a^{1-\alpha}$ for alpha, $\sim\pi_a\log\pi_a$ for rkl and js. Gradient
    descent brings back a mode at $\epsilon$ in $O(\log\frac1\epsilon)$ steps for fkl, $\sim\epsilon^{-(1-\alpha)}$ for alpha, $\sim1/(\epsilon\log\frac1\epsilon)$
    for rkl and js. It is the softmax gradient that is slow: natural-gradient steps recover within ten steps under each of them.

    where: derived
    """)  # fmt: skip


@C7.check(Limit(rate=1.0, rate_tol=0.05), false={"rkl: a constant force": {"constant": ("fkl", "rkl")}})
def force_as_the_mode_vanishes(*, constant=("fkl",)):
    eps, out = 10.0 ** -np.arange(4.0, 13.0), {}
    for name in NAMES:
        force = divergence_gradient(lost_mode(eps), LOST_REF, one(name)[0])[..., 1]
        if name in constant:
            out[name] = eps, force + 0.3
        elif name == "alpha":
            out[name] = eps, np.abs(force) ** (1 / 0.8)
        else:
            out[name] = eps, force / np.log(1 / eps)
    return out


EXPONENTS = np.arange(1.0, 13.0)


# log-odds of the lost outcome grow by lr (ref_a - pi_a) and more a step, so log(odds ratio) / (lr (.3 - .15)) steps suffice
@C7.check(Inequality(1e-12), false={"rkl": {"name": "rkl"}})
def forward_kl_recovers_in_log_steps(*, name="fkl"):
    eps = 10.0**-EXPONENTS
    bound = np.ceil((math.log(0.15 / 0.85) - np.log(eps) + np.log1p(-eps)) / (0.5 * 0.15))
    return recovery(eps, name, most=int(np.max(bound)) + 1)[0], bound


# p' ~ p² |f'(u)|: steps times |f'| at the start grow like 1/eps, with |f'| ~ log 1/eps for rkl and js, eps^-alpha for alpha
@C7.check(Limit(rate=-1.0, rate_tol=0.1), false={"rkl recovers like alpha = .5": {"power": 2.0}})
def steps_of_the_others(*, power=1.0):
    eps = 10.0 ** np.array([-1.5, -2.0, -2.5, -3.0, -3.5])
    steps = {name: recovery(eps, name)[0] for name in ("alpha", "rkl", "js")}
    slopes = {name: np.abs(table(name).slope(eps / 0.3)) for name in ("rkl", "js")}
    return {
        "alpha": (eps, steps["alpha"] ** 2),
        "rkl": (eps, (steps["rkl"] * slopes["rkl"]) ** power),
        "js": (eps, steps["js"] * slopes["js"]),
    }


@C7.check(Identity(1e-9), false={"js at twice the step": {"js_lr": 1.0}})
def steps_counted(*, js_lr=0.5):
    said = {"fkl": (29, 41, 53), "alpha": (98, 290, 887), "js": (197,), "rkl": (316,)}
    rates = {"js": js_lr}
    return {
        n: (recovery(10.0 ** -np.arange(3, 3 + len(s)), n, lr=rates.get(n, 0.5))[0], np.array(s))
        for n, s in said.items()
    }


@C7.check(Inequality(1e-12), false={"with softmax gradients": {"natural": False}})
def natural_steps_recover_at_once(*, natural=True):
    return {name: (recovery(10.0**-EXPONENTS, name, natural=natural, most=11)[0], np.full(12, 10)) for name in NAMES}


# C8 ------------------------------------------------------------------------------------------------
C8 = paper.claim("C8", r"""
    Token by token on the reference's prefixes: the divergence of sequences for the forward KL only

    $\sum_t\mathbb{E}_{s\sim\pi_{ref}}D_f(\pi(\cdot|s)\|\pi_{ref}(\cdot|s))=D_f(\pi\|\pi_{ref})$ for fkl; for rkl with prefixes from $\pi$. For js the gap has
    no fixed sign, and the token sum can exceed $2\log2$, which the divergence of sequences cannot.

    where: derived
    """)  # fmt: skip
TREES = {"pi": TreePolicies(), "ref": TreePolicies(), "V": Sizes(2, 3), "H": Sizes(2, 3)}


@C8.check(Identity(1e-10, scale=1), Space(**TREES), instances=200,
          false={"rkl with the reference's prefixes": {"visits_of_rkl": "ref"}, "js too": {"also": ("js",)}})  # fmt: skip
def chain_rules(pi, ref, *, visits_of_rkl="pi", also=()):
    prefixes = pi if visits_of_rkl == "pi" else ref
    out = {"rkl": (token_sum(pi, ref, "rkl", prefixes), sequence_divergence(pi, ref, "rkl"))}
    return out | {name: (token_sum(pi, ref, name, ref), sequence_divergence(pi, ref, name)) for name in ("fkl", *also)}


@C8.check(Identity(1e-10, scale=1), Space(pi=TreePolicies(), ref=TreePolicies(), V=Sizes(2, 3), H=Sizes(2, 3)),
          batched=False, instances=15, false={"responses weighed by the policy": {"law": "pi"}})  # fmt: skip
def released_loss_is_the_token_sum(pi, ref, V, H, *, law="ref"):
    y = tokens(V, H)
    nodes = [y[:, :t] @ V ** np.arange(t)[::-1] for t in range(H)]
    taken = [np.stack([p[t][nodes[t], y[:, t]] for t in range(H)], axis=1) for p in (pi, ref)]
    weights, out = np.exp(sequence_log_probs(ref if law == "ref" else pi)), {}
    for name in NAMES:
        of, times = one(name)
        loss, _ = dph_rl(
            TokenBatch(taken[0], ref_log_probs=taken[1]),
            generator=of,
            aggregate=lambda v, mask: weights @ v.sum(axis=1),
        )
        total = token_sum(pi, ref, name, ref)
        out[name] = times * loss, total, total
    return out


@C8.check(Inequality(1e-12), false={"fkl": {"name": "fkl"}})
def the_gap_of_js_has_no_sign(*, name="js"):
    """On the hand tree, and where the two policies are opposite at every prefix."""
    sums = [(token_sum(pi, ref, name, ref), sequence_divergence(pi, ref, name)) for pi, ref in ((HAND, FLAT), OPPOSITE)]
    (few, whole), (many, parts) = sums
    largest = 2 * math.log(2)
    return {"below": (few + 0.03, whole), "above": (parts + 0.5, many), "above the largest js": (largest + 0.5, many)}


C8_token = paper.claim("C8-token", r"""
    The token-averaged loss, as implemented, trains the divergence of sequences for every generator

    $\mathbb{E}_{y\sim\pi_{ref}}\sum_tf(u_t)=D_f(\pi\|\pi_{ref})$ for js.

    where: released loss
    instead: Only for the forward KL. On the tree with $\pi_{ref}$ uniform, $\pi=(.9,.1)$ at the root and after the first symbol, $(.5,.5)$ after the
    second: js .3052 per token against .3404, rkl .5521 against .6993, alpha .5798 against .6958, fkl .76624 both.
    by: C8
    origin: released code
    """)  # fmt: skip


@C8_token.check(Identity(1e-9, scale=1), Space(**TREES), instances=200, true={"fkl": {"name": "fkl"}},
                examples=[{"pi": HAND, "ref": FLAT}])  # fmt: skip
def tokens_are_sequences(pi, ref, *, name="js"):
    return token_sum(pi, ref, name, ref), sequence_divergence(pi, ref, name)


# C9 ------------------------------------------------------------------------------------------------
C9 = paper.claim("C9", r"""
    Rehearsal on right samples only: k3 and JS hold the success probability where it was, NLL raises it

    With reference samples filtered to reward 1, the loss $f(u)$ is smallest at $u=1$ on the right answers, whatever the split of the rest.
    Summed over the right logits it descends along $-(1-p)(\frac p{p_0}-1)$ for k3 ($p$ the success, $p_0$ the reference's), also against the
    sign of improvement for js; NLL along $+(1-p)$, and its minimiser is $\pi_{ref}(\cdot|right)$. Harmless when $p_0\approx1$.

    where: derived from the released code, which keeps stored samples of reward 1
    """)  # fmt: skip
FILTERED = Space(log_pi=Policies(spread=12.0), log_ref=Policies(spread=12.0), right=Masks(), A=Sizes(2, 6))


@C9.check(Identity(1e-9), FILTERED, instances=300,
          false={"k3 is plain NLL": {"k3": "nll"}, "js on all samples": {"kept": "all"}})  # fmt: skip
def force_on_the_success(log_pi, log_ref, right, *, k3="fkl", kept="right"):
    p, base = success(log_pi, right), success(log_ref, right)
    wrong = success(log_pi, ~right)
    mask = right if kept == "right" else np.ones_like(right)
    push = {
        name: -success_sum(filtered_gradient(log_pi, log_ref, mask if name == "js" else right, name), right)
        for name in (k3, "js", "nll")
    }
    u = np.exp(log_pi - log_ref)
    js_mean = np.sum(np.where(right, np.exp(log_pi) * np.log(2 * u / (1 + u)), 0.0), axis=-1) / base
    size = 1e-2 + np.sum(np.where(right, np.exp(log_pi) * (1 + np.abs(np.log(u))), 0.0), axis=-1) / base
    return {
        "k3": (push[k3], -wrong * (p / base - 1), size),
        "js": (push["js"], -wrong * js_mean, size),
        "nll": (push["nll"], wrong, 1e-2),
    }


@C9.check(Inequality(1e-9), Space(**FILTERED.fields, name=Choice("fkl", "js")), batched=False, instances=100,
          false={"nll": {"loss": "nll"}})  # fmt: skip
def improvement_is_resisted(log_pi, log_ref, right, name, *, loss=None):
    """Where success has risen, whatever else moved, the loss pulls it down."""
    g = filtered_gradient(log_pi, log_ref, right, loss or name)
    risen = success(log_pi, right) >= success(log_ref, right)
    weights = np.where(right, np.exp(log_pi) * (1 + np.abs(log_pi - log_ref)), 0.0)  # what the gradient adds up
    return -success_sum(g, right) if risen else 0.0, 0.0, 1 + weights.sum() / success(log_ref, right)


@C9.check(Identity(1e-9, scale=1), Space(log_ref=Policies(spread=12.0), split=Policies(), right=Masks(), A=Sizes(2, 6)), instances=200,
          false={"nll is smallest at u = 1": {"nll_at": "reference"}})  # fmt: skip
def where_the_losses_rest(log_ref, split, right, *, nll_at="conditional"):
    rest = np.log(success(log_ref, ~right))[..., None] + condition(split, ~right)
    held = np.where(right, log_ref, rest)  # u = 1 on the right answers, the wrong ones split anyhow
    tiny = np.where(right, condition(log_ref, right), -40.0 + log_ref)
    raised = log_normalize(tiny) if nll_at == "conditional" else held
    out = {name: (filtered_gradient(held, log_ref, right, name), 0 * held) for name in ("fkl", "js")}
    return out | {"nll": (filtered_gradient(raised, log_ref, right, "nll"), 0 * held)}


C9_filter = paper.claim("C9-filter", r"""
    On the stored right samples k3 and NLL descend the same thing

    Their expected gradients agree, as those on unfiltered samples do (C2).

    where: released code: stored samples are filtered by reward
    instead: At $\pi_{ref}=(.3,.2,.3,.2)$ (two right), $\pi=(.55,.4,.03,.02)$ the descent summed over the right logits is $-.045$ (k3), $-.026$ (js),
    $+.050$ (NLL). Use NLL, or unfiltered samples, unless $p_0\approx1$.
    by: C9
    origin: released code
    """)  # fmt: skip
C9_EXAMPLE = {
    "log_pi": np.log([0.55, 0.4, 0.03, 0.02]),
    "log_ref": np.log([0.3, 0.2, 0.3, 0.2]),
    "right": np.array([True, True, False, False]),
}


@C9_filter.check(
    Identity(1e-9, scale=1),
    FILTERED,
    instances=200,
    examples=[C9_EXAMPLE],
    true={"on all samples": {"filtered": False}},
)
def k3_is_nll(log_pi, log_ref, right, *, filtered=True):
    kept = right if filtered else np.ones_like(right)
    k3, nll = (filtered_gradient(log_pi, log_ref, kept, name) for name in ("fkl", "nll"))
    return k3, nll, np.max(np.exp(log_pi - log_ref), axis=-1)[..., None]


# C10 -----------------------------------------------------------------------------------------------
C10 = paper.claim("C10", r"""
    "JS by definition": right in value, and its gradient is exactly half that of the forward KL

    $k_3(\pi_{ref}\|M)$ on stored plus $k_3(\pi\|M)$ on on-policy samples, $M=\frac{\pi+\pi_{ref}}2$, estimates $2\,\mathrm{JSD}$; differentiated through the
    log-probabilities its expected gradient in logits is $\frac{\pi-\pi_{ref}}2$. What is missing is the score-function term
    $\mathbb{E}_\pi[k_3\nabla\log\pi]$; with it the gradient is that of $2\,\mathrm{JSD}$.

    where: derived from the released code
    assumes: Fresh on-policy samples, reference samples unfiltered, full support.
    """)  # fmt: skip


@C10.check(
    Identity(1e-10, scale=1), Space(**PAIR), instances=300, false={"it is that of the forward KL": {"half": 1.0}}
)
def half_the_forward_kl(log_pi, log_ref, *, half=0.5):
    (stored, own), _ = two_sided(log_pi, log_ref)
    pi, ref = np.exp(log_pi), np.exp(log_ref)
    size = 1 + np.sum(pi * (own + 1), axis=-1) + np.sum(ref * (stored + 1), axis=-1)
    value = np.sum(ref * stored, axis=-1) + np.sum(pi * own, axis=-1)
    sft = half * rehearsal_gradient(log_pi, log_ref, ref, "forward_kl")
    return {"value": (value, 2 * js(log_pi, log_ref), size), "gradient": (two_sided_gradient(log_pi, log_ref), sft)}


C10_js = paper.claim("C10-js", r"""
    JS by definition descends the Jensen-Shannon divergence

    Its expected gradient is that of $2\,\mathrm{JSD}$.

    where: released code, two-sided variant
    instead: It trains half the forward KL, with its constant restoring force (C7). $\pi=(.5,.3,.2)$, $\pi_{ref}=(.2,.3,.5)$: $(.15,0,-.15)$ instead of
    $(.1451,-.0199,-.1252)$. The generator form (C2) is exact; so is this one with the score-function term.
    by: C10
    origin: released code
    """)  # fmt: skip


@C10_js.check(Identity(1e-9, scale=1), Space(**PAIR), instances=200, true={"with the score-function term": {"score": True}},
              examples=[{"log_pi": np.log([0.5, 0.3, 0.2]), "log_ref": np.log([0.2, 0.3, 0.5])}])  # fmt: skip
def definition_descends_js(log_pi, log_ref, *, score=False):
    (_, own), _ = two_sided(log_pi, log_ref)
    size = 1 + np.sum(np.exp(log_pi) * own, axis=-1)[..., None]
    return two_sided_gradient(log_pi, log_ref, score), 2 * divergence_gradient(log_pi, log_ref, "js"), size


# C11 -----------------------------------------------------------------------------------------------
C11 = paper.claim("C11", r"""
    Rehearsal on mastered prompts keeps coverage at equal pass@1

    Prompts share weights (24 features, 12 answers, 12 prompts to explore, 12 mastered, 36 test prompts beside the mastered ones). GRPO raises
    training pass@1 by more than .5, loses more than .1 of the mastered prompts' modes and test pass@8. Rehearsal of P (forward KL or JS, $\eta=1$)
    keeps at least .1 more of the modes of P than GRPO and does not cost .02 of training pass@1; with the forward KL test pass@8 is higher, with JS
    more test modes are kept; the on-policy reverse KL ($\beta=.3$) pays at least .01 in training pass@1.

    where: derived; the reported tables, re-stated on small worlds with exact pass@k
    """)  # fmt: skip


@C11.check(Identity(1e-12), Space(table=Normals(12, 24), seed=Seeds()), batched=False, instances=4,
          false={"as the base": {"trained": 0.0}})  # fmt: skip
def scores_are_exact(table, seed, *, trained=1.0):
    """One world, prompt by prompt, after a step of the weights."""
    world = worlds([np.random.default_rng(seed)])
    success, passed, kept = world.success(table[None]), world.pass_at_k(8, table[None]), world.modes_kept(table[None])
    wanted = np.zeros((3, 60))
    for x, (base, features, reward) in enumerate(zip(world.base_logits[0], world.features[0], world.reward[0])):
        p, first, right = softmax(base + trained * table @ features), softmax(base), reward == 1
        wanted[:, x] = p[right].sum(), 1 - (1 - p[right].sum()) ** 8, np.mean(p[right] > 0.2 * first[right])
    return {"pass@1": (success[0], wanted[0]), "pass@8": (passed[0], wanted[1]), "modes": (kept[0], wanted[2])}


# over worlds: pass@8 -.095 ± .041, modes -.29 ± .09, pass@1 +.71 ± .03 (standard deviations): 14 worlds, risk 1e-6
@C11.check(Effect(seeds=14), false={"with nothing shared": {"shared": False}})
def grpo_narrows(rngs, *, shared=True):
    base, (grpo,) = study(rngs, [GRPO], shared=shared)
    return {"training pass@1": grpo.train - base.train - 0.5, "modes of P": base.mastered_modes - grpo.mastered_modes - 0.1,
            "test pass@8": base.test - grpo.test}  # fmt: skip


# modes .29 ± .09, F test pass@8 .055 ± .037, JS test modes .10 ± .05, pass@1 +.008 ± .015, reverse KL -.050 ± .020: 26 worlds
@C11.check(Effect(seeds=26), false={"the split alone, without rehearsal": {"rehearsed": (NONE,)}})
def rehearsal_keeps_coverage(rngs, *, rehearsed=(DPH_F, DPH_JS)):
    _, (grpo, penalised, *dph) = study(rngs, [GRPO, ON_POLICY, *rehearsed])
    forward, jensen = dph[0], dph[-1]
    out = {"forward KL: test pass@8": forward.test - grpo.test, "JS: test modes": jensen.test_modes - grpo.test_modes,
           "on-policy reverse KL pays": grpo.train - penalised.train - 0.01}  # fmt: skip
    for name, method in (("forward KL", forward), ("JS", jensen)):
        out[f"{name}: modes of P"] = method.mastered_modes - grpo.mastered_modes - 0.1
        out[f"{name}: training pass@1"] = method.train - grpo.train + 0.02
    return out


C11_generator = paper.claim("C11-generator", r"""
    The gain is due to the forward instead of the reverse divergence

    On the same stored samples of mastered prompts, the forward generator keeps at least .05 more of their modes than the reverse one, in at least
    half of the worlds.

    where: the paper attributes the gain to the choice of divergence
    instead: With rehearsal samples the reverse generator keeps as many modes and the same test pass@8; it is the rehearsal data that matter
    (no rehearsal keeps .2 fewer). In these worlds; from a policy that has lost a mode the generators do differ (C7).
    by: C11/rehearsal_keeps_coverage
    origin: as commonly read
    """)  # fmt: skip


# a share of worlds, as a mean is carried by rare ones: about once in 150 worlds the reverse generator, whose weight u log u is
# unbounded, collapses. Of 120 worlds 3 have .05 more against reverse KL, 120 against no rehearsal.
@C11_generator.check(Effect(seeds=16), true={"instead of no rehearsal": {"other": NONE}})
def the_generator_matters(rngs, *, other=DPH_R):
    _, (forward, without) = study(rngs, [DPH_F, other])
    return (forward.mastered_modes - without.mastered_modes > 0.05) - 0.5


C11_far = paper.claim("C11-far", r"""
    Rehearsal protects coverage wherever the test prompts are

    With the forward KL test pass@8 falls by less than .15 from the base's, also for test prompts far from the mastered ones (noise about twice the
    norm of the features).

    where: reported out of domain
    instead: It protects the neighbourhood of the mastered prompts: near them pass@8 falls by about .05, far from them by .3, as under GRPO.
    An on-policy penalty on all prompts limits that to about .2.
    by: C11/rehearsal_keeps_coverage
    origin: as commonly read
    """)  # fmt: skip


# near: -.045 ± .025, far: -.31 ± .06 (standard deviations over worlds)
@C11_far.check(Effect(seeds=14, null=-0.15), true={"beside the mastered prompts": {"far": False}})
def far_prompts_are_protected(rngs, *, far=True):
    base, (forward,) = study(rngs, [DPH_F], far=far)
    return forward.test - base.test


# C12 -----------------------------------------------------------------------------------------------
C12 = paper.claim("C12", r"""
    Improvement guarantee on one-step episodes, with a square root

    With the advantage $A$ of $\pi_{old}$ and $\mathbb{E}_{\pi_{pef}}A\ge\delta$ on P:
    $$J(\pi)-J(\pi_{old})\ge\sum_E\mathbb{E}_\pi A+\sum_P\Big[\delta-2\max|A|\sqrt{\tfrac12\mathrm{KL}(\pi_{pef}\|\pi)}\Big].$$
    Tight: for $A=(1,-1)$, $\pi_{pef}=(.5,.5)$, $\pi=(.5-t,.5+t)$ the loss is $2t$ and the bound $2t+2t^3$.

    where: derived; the reading of Theorem 1 that can hold
    """)  # fmt: skip
POLICIES = {"old": Normals("X", "A"), "pef": Normals("X", "A"), "pi": Normals("X", "A"), "reward": Normals("X", "A")}
TIGHT = {
    "old": np.zeros((2, 2)),
    "pef": np.zeros((2, 2)),
    "pi": np.log([[0.5, 0.5], [0.4, 0.6]]),
    "reward": np.array([[1.0, -1.0], [1.0, -1.0]]),
}


@C12.check(Inequality(1e-12, scale=1), Space(**POLICIES, X=Sizes(2, 6), A=Sizes(2, 5)), instances=100,
           false={"without the factor 2": {"factor": 0.5}}, examples=[TIGHT])  # fmt: skip
def improvement_bound(old, pef, pi, reward, *, factor=1.0):
    explored = old.shape[-2] // 2
    _, _, bracket = guarantee(*(x[..., explored:, :] for x in (old, pef, pi, reward)), half=0.5 * factor**2)
    gain, surrogate, _ = guarantee(old, pef, pi, reward)
    return (
        np.sum(surrogate[..., :explored], axis=-1) + np.sum(bracket, axis=-1),
        gain,
        np.sum(np.abs(reward), axis=(-1, -2)),
    )


@C12.check(Limit(rate=3.0), false={"without the half under the root": {"half": 1.0}})
def the_bound_is_tight(*, half=0.5):
    t = 0.2 / 2.0 ** np.arange(6)
    loss, distance = two_actions(t)
    return t, 2 * np.sqrt(half * distance) - loss


C12_linear = paper.claim("C12-linear", r"""
    A penalty linear in the divergence can replace the square root

    The loss on P is at most $10\,\mathrm{KL}(\pi_{pef}\|\pi)$ for advantages in $[-1,1]$.

    where: Theorem 1 as reported subtracts a multiple of the divergence itself
    instead: The loss is $2t$ and the KL about $2t^2$: the constant would have to be 9.8, 100, 1000 at $t=.1,.01,.001$. The bound is
    $2\max|A|\sqrt{\mathrm{KL}/2}$.
    by: C12
    origin: as commonly read
    """)  # fmt: skip


@C12_linear.check(Inequality(1e-9), Space(t=Floats(1e-4, 0.4, log=True)), true={"the square root": {"root": True}})
def linear_penalty(t, *, root=False):
    loss, distance = two_actions(t)
    return loss, 2 * np.sqrt(distance / 2) if root else 10 * distance


C12_all = paper.claim("C12-all", r"""
    Theorem 1 with the usual surrogate over all prompts

    $J(\pi)-L_{old}(\pi)\ge\epsilon_f>0$ where $L_{old}=J(\pi_{old})+\sum_x\mathbb{E}_\pi A$ runs over all prompts and $\pi$ stays at $\pi_{pef}$ on P.

    where: Theorem 1, as reported second-hand
    instead: For one-step episodes $J=L_{old}$ identically. With the surrogate restricted to E the statement holds, with
    $\epsilon_f=\sum_P[\delta-\dots]$ (C12).
    by: C12
    origin: as commonly read
    """)  # fmt: skip


@C12_all.check(Inequality(1e-9), Space(old=Normals("X", "A"), reward=Normals("X", "A"), X=Sizes(2, 6), A=Sizes(2, 5)), instances=200,
               true={"with the surrogate over E": {"surrogate_over": "E"}})  # fmt: skip
def surrogate_over_all_prompts(old, reward, *, surrogate_over="all"):
    explored, pef = old.shape[-2] // 2, old + reward  # tilted by the reward: its advantage is positive
    gain, surrogate, _ = guarantee(old, pef, pef, reward)
    _, _, bracket = guarantee(*(x[..., explored:, :] for x in (old, pef, pef, reward)))
    counted = surrogate if surrogate_over == "all" else surrogate[..., :explored]
    return np.sum(bracket, axis=-1), gain - np.sum(counted, axis=-1), np.sum(np.abs(reward), axis=(-1, -2))
