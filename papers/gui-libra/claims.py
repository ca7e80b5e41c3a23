r"""Claims of "GUI-Libra: Training Native GUI Agents to Reason and Act with Action-aware Supervision and Partially Verifiable RL".

``M_off``: chance of the demonstrated action in the states of the data; ``eta``: mass on other valid actions, ``etabar`` its mean over the
data; ``C``: largest ratio of visits to data; ``J``: chance that all H steps are valid. Main text, appendices and README were read, the code of
the RL stage was not available. Sharper forms, the identity of C5 and the worlds of C6 to C8 are ours.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from klsim.claims import Effect, Identity, Inequality, Limit, Paper, Variant, assume
from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.objectives.negative_scaling import negative_scale, negative_scaling_limit, negative_scaling_weight
from klsim.objectives.stabilizers import asft
from klsim.planning import partial_verification as pv
from klsim.problems import TabularMDP
from klsim.spaces import Choice, Drawn, Floats, Integers, Normals, Policies, Sizes, Space

from . import setting as lab
from .setting import PUBLISHED, Heads, Task, Training, World

paper = Paper(
    "gui-libra",
    title="GUI-Libra: Training Native GUI Agents to Reason and Act with Action-aware Supervision and Partially Verifiable RL",
    authors="Rui Yang, Qianhui Wu, Zhaoyang Wang, Hanyang Chen, Ke Yang, Hao Cheng, Huaxiu Yao, Baolin Peng, Huan Zhang, Jianfeng Gao, Tong Zhang",
    year=2026,
    arxiv="2602.22190",
)
TASKS = Space(task=Drawn(Task.draw))


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    Online success is bounded by the offline score, the mismatch of the visits and the off-demo mass

    $J(\pi)\ge1-H\,C(\pi)\,(1-M_{off}(\pi)-\bar\eta_\pi)$. Near-valid policies: a median slack of .16 (within .05), a mean J of .87 (within
    .03); without H 97 %, without C 16 %, with half of the valid trajectories timed out 87 % of random problems violate it (within 8 %).

    where: Theorem 5.2, Eq. 7; the numbers derived
    assumes: A trajectory fails only if a step is invalid (Assumption 5.1); the data cover what the policy visits (else C is
    infinite and the bound says nothing).
    """)  # fmt: skip
WITHOUT = {"without H": {"steps": 0}, "without C": {"shift": 0}}


@C1.check(Inequality(1e-12, scale=1), TASKS, instances=300,
          false=WITHOUT | {"if half of the valid trajectories time out": {"on_time": 0.5}})  # fmt: skip
def bound(task, *, steps=1, shift=1, on_time=1.0):
    found = lab.measured(task)
    return lab.loosened(found, task.problem.horizon, steps, shift), on_time * found.success


# deviations of 100 problems .011, .039, .035 (shares), .022 (slack), .008 (J): eight standard errors at 16
@C1.check(Effect(seeds=16, alternative="within", margin=1.0),
          false={"policies twice as far from valid": Variant({"noise": 0.3}, kind=Effect(seeds=4, alternative="within", margin=1.0))})  # fmt: skip
def how_tight(rng, *, noise=0.15):
    """Distances from the stated numbers in units of .05 (median slack), .03 (mean J) and .08 (shares of violations)."""
    tasks = [lab.measured(Task.draw(rng, noise=noise)) for _ in range(100)]
    j = np.array([f.success for f in tasks])
    plain, no_h, no_c = (np.array([lab.loosened(f, 4, *x) for f in tasks]) for x in ((1, 1), (0, 1), (1, 0)))
    shares = {"H": (no_h > j, 0.97), "C": (no_c > j, 0.16), "time-outs": (plain > j / 2, 0.87)}
    found = {name: (np.mean(broken) - stated) / 0.08 for name, (broken, stated) in shares.items()}
    return found | {"slack": (np.median(j - plain) - 0.163) / 0.05, "J": (j.mean() - 0.866) / 0.03}


@C1.check(Inequality(1e-12, scale=1), Space(move=Normals("S", "A", "S", scale=2.0), start=Normals("S"), z=Normals("S", "A"),
          data=Policies("S"), S=Sizes(2, 4), A=Sizes(2, 3), H=Sizes(2, 5)), batched=False, instances=30, false=WITHOUT)  # fmt: skip
def bound_under_attack(move, start, z, data, S, A, H, *, steps=1, shift=1):
    """Any data that cover all states, all actions but the last valid, the last one rare."""
    p = np.exp(log_normalize(move))
    problem = TabularMDP(p, np.zeros((S, A)), np.exp(log_normalize(start)), H)
    log_pi = log_normalize(z - 4.0 * (np.arange(A) == A - 1))
    valid = np.broadcast_to(np.arange(A) < A - 1, (S, A))
    found = pv.offline_score(problem, log_pi, np.zeros(S, dtype=int), valid, np.exp(data))
    return lab.loosened(found, H, steps, shift), found.success


@C1.check(Identity(1e-12, scale=1), Space(task=Drawn(lambda rng: Task.draw(rng, states=2, actions=3, horizon=3))), instances=12,
          false={"C of the mean over t": {"over": "mean"}, "eta with the demonstration": {"less": 0}, "H - 1 valid steps": {"short": 1}})  # fmt: skip
def terms(task, *, over="max", less=1, short=0):
    found, pi = lab.measured(task), np.exp(task.log_policy)
    success, visits = lab.of_sequences(task)
    valid, demo = np.sum(pi * task.valid, axis=1), pi[np.arange(2), task.demo]
    fewer = TabularMDP(task.problem.transition[0], task.problem.reward[0], task.problem.initial, 3 - short)
    return {
        "J": (pv.success_probability(fewer, task.log_policy, task.valid), success),
        "C": (found.mismatch, np.max(getattr(visits, over)(axis=0) / task.data)),
        "M_off": (found.score, sum(task.data * demo)),
        "eta": (found.off_demo_mass, sum(task.data * (valid - less * demo))),
        "bound": (found.bound, 1 - 3 * found.mismatch * sum(task.data * (1 - valid))),
        "data": (pv.data_visits(task.problem, task.log_policy), visits.mean(axis=0)),
    }


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    A KL bound at every state limits drift and mismatch; the KL summed over visited steps is enough

    If $\mathrm{KL}(\pi(\cdot|s)\|\pi_{ref}(\cdot|s))\le\varepsilon$ for all s: $\|d_{\pi,t}-d_{ref,t}\|_1\le t\sqrt{2\varepsilon}$
    after t transitions, and $C(\pi)\le C(\pi_{ref})+H\sqrt{2\varepsilon}/\rho$ with $\rho=\min d_\mu$. Sharper: (a) the second term
    may be $(H-1)\sqrt{\varepsilon/2}/\rho$; (b) $\|d_{\pi,t}-d_{ref,t}\|_1\le\sqrt{2\sum_{i<t}E_{d_{\pi,i}}\mathrm{KL}}
    \le\sqrt{2t\varepsilon}$, so that it may be $\sqrt{(H-1)\varepsilon/2}/\rho$. With $m=E_{d_\mu}\mathrm{KL}$ the drift is
    at most $\sqrt{2t\,C(\pi)\,m}$.

    where: Lemma E.4, Eq. 8; (a), (b) and the offline mean derived
    origin: printed
    """)  # fmt: skip


NEAR = Space(task=Drawn(lambda rng: Task.draw(rng, states=5, actions=3, horizon=5, spread=0.5)))
TIGHT = [{"task": lab.fork(0.51, data=(0.6, 0.1, 0.3))}]
SPLIT = [{"task": lab.fork(0.99, steps=60)}]


@C2.check(Inequality(1e-9, scale=1e-6), NEAR, instances=200, examples=TIGHT,
          false={"without the 2": {"two": 1.0}, "t - 1 transitions": {"late": 1}})  # fmt: skip
def drift(task, *, two=2.0, late=0):
    """The fork at .51 is tight: L1 .02, and ``sqrt(2 KL) = .0200``."""
    found, t = pv.visit_drift(task.problem, task.log_policy, task.log_ref), np.arange(task.problem.horizon)
    moved, less, count = found.distance[late:], math.sqrt(two / 2), len(t) - late
    return {
        "lemma": (moved, less * found.worst_state[:count]),
        "visited": (moved, less * found.visited[:count]),
        "sqrt(2 t eps)": (found.visited, np.sqrt(2 * t * found.largest_kl)),
    }


@C2.check(Inequality(1e-9, scale=1e-6), NEAR, instances=200, examples=TIGHT,
          false={"a quarter of the KL": {"share": 0.25}, "H - 2": {"fewer": 1}})  # fmt: skip
def mismatch(task, *, share=1.0, fewer=0):
    """The fork at .51 is tight for (a) and (b): C grows from 5 to 5.1."""
    eps = pv.visit_drift(task.problem, task.log_policy, task.log_ref).largest_kl
    horizon = task.problem.horizon
    added = pv.mismatch_bounds(share * eps, max(horizon - fewer, 1), float(task.data.min()))
    full = pv.mismatch_bounds(eps, horizon, float(task.data.min()))
    own, ref = (pv.visit_mismatch(task.problem, x, task.data) for x in (task.log_policy, task.log_ref))
    return {
        "Eq. 8": (own, ref + full.printed),
        "(a)": (own, ref + added.one_state),
        "(b)": (own, ref + added.visited),
        "(b) under (a)": (full.visited, full.one_state),
    }


@C2.check(Identity(1e-12, scale=1), NEAR, instances=30,
          false={"of the states of the reference": {"by": "ref"}, "of KL(ref‖pi)": {"swap": True}})  # fmt: skip
def what_is_summed(task, *, by="policy", swap=False):
    """The trajectory KL of all transitions, by propagating the visits with a matrix."""
    found = pv.visit_drift(task.problem, task.log_policy, task.log_ref)
    spent, moved, largest = lab.propagated(task, by, swap)
    return {
        "visited": (found.visited**2, 2 * spent),
        "drift": (found.distance, moved),
        "eps": (found.largest_kl, largest),
    }


@C2.check(Inequality(1e-9, scale=1e-6), NEAR, instances=100, examples=SPLIT, false={"without C": {"power": 0}})
def an_offline_mean_needs_the_mismatch(task, *, power=1):
    found, t = pv.visit_drift(task.problem, task.log_policy, task.log_ref), np.arange(task.problem.horizon)
    mean = task.data @ np.asarray(kl(task.log_policy, task.log_ref))
    c = pv.visit_mismatch(task.problem, task.log_policy, task.data)
    return found.distance, np.sqrt(2 * t * c**power * mean)


C2_mean = paper.claim("C2-mean", r"""
    A small mean KL a step, as training logs report it, keeps the visits close

    $\|d_{\pi,t}-d_{ref,t}\|_1\le\sqrt{2\,\overline{\mathrm{KL}}}$ with the KL averaged over the steps of an episode.

    where: Lemma E.4 read with the KL of a training log in place of the bound at every state
    instead: One changed decision at the start, (.5, .5) to (.99, .01), costs .637 nats once and .0106 a step in an episode of 60, and
    moves the visits by .980 (the mean would allow .146). The sum over the episode, on-policy, covers it: $\sqrt{2\cdot.637}=1.129$.
    by: C2/drift, C2/an_offline_mean_needs_the_mismatch
    origin: as commonly read
    """)  # fmt: skip
FORKS = Space(task=Drawn(lambda rng: lab.fork(rng.uniform(0.6, 0.99), steps=int(rng.integers(20, 61)))))


@C2_mean.check(Inequality(1e-9), FORKS, instances=20, examples=SPLIT, true={"summed over the episode": {"mean": False}})
def mean_kl_bounds_drift(task, *, mean=True):
    found = pv.visit_drift(task.problem, task.log_policy, task.log_ref)
    total = found.visited[-1] ** 2 / 2  # the last step has no transition after it and no KL
    return found.distance[-1], math.sqrt(2 * total / (task.problem.horizon if mean else 1))


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    A KL bound limits the mass off the demonstration

    If $\pi_{ref}(\tilde a|s)\ge1-\delta$ and $\mathrm{KL}(\pi\|\pi_{ref})\le\varepsilon$ then
    $\eta_\pi\le1-\pi(\tilde a|s)\le\delta+\sqrt{\varepsilon/2}$. Sharper: $\le\mathrm{kl}^{-1}(\delta,\varepsilon)$, the largest x with
    $x\log\frac x\delta+(1-x)\log\frac{1-x}{1-\delta}\le\varepsilon$, increasing in $\delta$; at $\delta=.01$, $\varepsilon=.05$ it is
    .0551 and the first form .168. Hence $M_{off}\ge1-\bar\delta-\sqrt{m/2}$ with the mean $m=E_{d_\mu}\mathrm{KL}$, whatever the reward.

    where: Lemma E.6, Eq. 9; the sharper form derived
    origin: printed
    """)  # fmt: skip


@C3.check(Inequality(1e-9, scale=1e-3), Space(laws=Drawn(lab.laws)), instances=8,
          false={"of KL(ref‖pi)": {"swap": True}, "a reference off the demonstration, delta = .05": {"delta": 0.05}})  # fmt: skip
def off_demo_mass(laws, *, swap=False, delta=None):
    pi, ref = laws
    eps = kl(ref, pi) if swap else kl(pi, ref)
    near = np.sum(np.exp(ref[..., 1:]), axis=-1) if delta is None else np.full(eps.shape, delta)
    (off, eta), sharp = (np.sum(np.exp(pi[..., 1:k]), axis=-1) for k in (5, 3)), pv.largest_mass(near, eps)
    orders = {
        "below Pinsker's": (sharp, near + np.sqrt(eps / 2)),
        "increasing": (pv.largest_mass(near / 2, eps), sharp),
    }
    return {"sharp": (off, sharp), "eta": (eta, off)} | orders


@C3.check(Inequality(1e-9, scale=1e-3), Space(pi=Policies(5), ref=Policies(5)), instances=300,
          false={"half of the root": {"root": 0.5}, "minus the root": {"root": -1.0}})  # fmt: skip
def pinsker_form(pi, ref, *, root=1.0):
    off, delta = (np.sum(np.exp(x[..., 1:]), axis=-1) for x in (pi, ref))
    return off, delta + root * np.sqrt(kl(pi, ref) / 2)


@C3.check(Identity(1e-9, scale=1e-3), Space(delta=Floats(1e-6, 0.99, log=True), eps=Floats(1e-6, 5.0, log=True)), batched=False,
          instances=60, examples=[{"delta": 0.01, "eps": 0.05}],
          false={"of KL(ref‖pi)": {"swap": True}, "twice the budget": {"budget": 2.0}, "for the demonstration": {"other": True}})  # fmt: skip
def sharp_form(delta, eps, *, swap=False, budget=1.0, other=False):
    """By bisection of the binary KL."""
    delta, eps = float(delta), float(eps)

    def excess(x):
        return lab.binary_kl(*((delta, x) if swap else (x, delta))) - budget * eps

    top = 1.0 if not swap else 1 - 1e-16
    x = 1.0 if excess(top) <= 0 else brentq(excess, delta, top, xtol=1e-15, rtol=1e-14)
    return pv.largest_mass(1 - delta if other else delta, eps), x


@C3.check(Inequality(), examples=[{}], false={"the third digit up": {"sharp": 0.0561}})
def the_two_forms_at_the_papers_scale(*, sharp=0.0551):
    """``|value - stated|`` against half a unit of the last digit."""
    forms = np.array([float(pv.largest_mass(0.01, 0.05)) - sharp, 0.01 + math.sqrt(0.025) - 0.168])
    return np.abs(forms), np.array([5e-5, 5e-4])


@C3.check(Inequality(1e-9, scale=1e-6), NEAR, instances=100, examples=[{"task": lab.fork(0.45)._replace(log_policy=np.log(np.tile([0.45, 0.55], (3, 1))))}],
          false={"a quarter of the KL": {"share": 0.25}})  # fmt: skip
def offline_score_stays(task, *, share=1.0):
    mean = task.data @ np.asarray(kl(task.log_policy, task.log_ref))
    delta = 1 - task.data @ np.exp(task.log_ref[np.arange(len(task.data)), task.demo])
    return 1 - delta - math.sqrt(share * mean / 2), lab.measured(task).score


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    In one step, online success is the offline score plus the off-demo mass

    For $H=1$ and $d_\mu=d_0$: $J=M_{off}+\bar\eta$, so $J\ge M_{off}$. For $H=1$ and any $d_\mu$ with full support,
    $J\ge1-C(1-M_{off}-\bar\eta)\ge1-C(1-M_{off})$.

    where: Corollary 5.3; the identity derived
    origin: printed
    """)  # fmt: skip
ONE_STEP = Space(task=Drawn(lambda rng: Task.draw(rng, horizon=1, noise=1.0)))


@C4.check(Identity(1e-13, scale=1), ONE_STEP, instances=200,
          false={"without eta": {"other": 0}, "other data": Variant({"own": False}, space=Space(task=Drawn(lab.in_other_states)))})  # fmt: skip
def identity(task, *, other=1, own=True):
    found, pi = lab.measured(task), np.exp(task.log_policy)
    j = sum(d * p for d, row, ok in zip(task.problem.initial, pi, task.valid) for p in row[ok])
    return {"J": (found.score + other * found.off_demo_mass, j), "of the library": (found.success, j)}


@C4.check(Inequality(1e-12, scale=1), Space(task=Drawn(lab.in_other_states)), instances=200,
          false={"without C": {"power": 0}, "with twice eta": {"other": 2}})  # fmt: skip
def corollary(task, *, power=1, other=1):
    found = lab.measured(task)
    c, missed = found.mismatch**power, 1 - found.score
    with_eta = 1 - c * (missed - other * found.off_demo_mass)
    return {"J": (with_eta, found.success), "without eta": (1 - c * missed, with_eta)}


C4_lower = paper.claim("C4-lower", r"""
    Online success is at least the offline score

    The offline metric is conservative: $J\ge M_{off}$, for it gives no credit to valid alternatives.

    where: Corollary 5.3 read for several steps
    instead: For one step and data from the same states. With more steps errors multiply and the visits leave the data:
    $J\ge1-HC(1-M_{off}-\bar\eta)$.
    by: C1, C4
    origin: as commonly read
    """)  # fmt: skip


@C4_lower.check(Inequality(1e-12), Space(task=Drawn(lab.imitating)), instances=60,
          true={"in one step": Variant({"horizon": 1}, space=ONE_STEP)})  # fmt: skip
def score_is_conservative(task, *, horizon=4):
    assume(task.problem.horizon == horizon)
    found = lab.measured(task)
    return found.score, found.success


C4_higher = paper.claim("C4-higher", r"""
    A higher offline score means higher online success

    Of two policies of one state the one with the larger $\pi(\tilde a)$ succeeds more often.

    where: offline step accuracy as the metric by which agents are compared; Example E.3 shows that it is not
    instead: Only at equal off-demo mass. $(.2,.7,.1)\to(.4,.1,.5)$ on (demonstration, other valid, invalid) raises the score from .2
    to .4 and lowers J from .9 to .5.
    by: C4/identity
    origin: folklore
    """)  # fmt: skip


@C4_higher.check(Inequality(1e-12), Space(one=Policies(3), two=Policies(3)), instances=200,
          examples=[{"one": np.log([0.2, 0.7, 0.1]), "two": np.log([0.4, 0.1, 0.5])}], true={"at equal off-demo mass": {"equal": True}})  # fmt: skip
def higher_is_better(one, two, *, equal=False):
    first, second = np.exp(one), np.exp(two)
    if equal:  # the second one with the off-demo mass of the first
        rest = (1 - first[..., 1]) / (second[..., 0] + second[..., 2])
        second = np.stack([second[..., 0] * rest, first[..., 1], second[..., 2] * rest], axis=-1)
    better = first[..., 0] > second[..., 0]
    success = first[..., 0] + first[..., 1], second[..., 0] + second[..., 1]
    return np.where(better, success[1], success[0]), np.where(better, success[0], success[1])


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    In expectation, scaled negatives rescale the step of a state by a factor in [1-p, 1], and nothing else

    For 0/1 reward, any policy, G and $\lambda(\hat p)$:
    $$E\Big[\frac1G\sum_k\tilde A_k\nabla\log\pi(a_k)\Big]=s(p)\,\nabla\pi(\tilde a),\quad
    s(p)=\frac{E[\sqrt{c(G-c)}\,((1-p)+p\,\lambda(c/G))]}{G\,p(1-p)},\ c\sim\mathrm{Bin}(G,p).$$
    Negatives carry the fraction p of the step: $\lambda=0$ multiplies it by exactly $1-p$, any $\lambda$ in [0, 1] by something in
    $[1-p,1]$, in large groups by $(1-p)+p\lambda(p)$. At G = 8 the published settings change it by at most .26 % (3B), 3.75 % (7B, as
    $p\to1$), 3.0 % (4B), 1.7 % (8B). At p = .3, G = 5 the scale and the variance of a logit of probability .35 are (1, .0224), (.977, .0210)
    with (.5, 1.5), and (.700, .0037) with (0, 0).

    where: derived; Eqs. 10-11 define SNGS
    assumes: one state, population std, one on-policy step without clipping, advantages scaled after normalisation (no re-centring), 0 in
    groups without contrast.
    """)  # fmt: skip
SETTINGS = Choice((1.0, 0.0), *PUBLISHED.values(), (0.0, 0.0))
MATCH = np.array([1.0, 0.0, 0.0, 0.0])


@C5.check(Identity(1e-12, scale=1), Space(log_pi=Policies(4, spread=7.0), setting=SETTINGS), batched=False, instances=12,
          false={"the blended reward .1 format + .9 match": {"blended": True}, "sample std": {"sample": True},
                 "re-centred after scaling": {"recentred": True}, "twice the scale": {"factor": 2.0}})  # fmt: skip
def expected_update(log_pi, setting, *, blended=False, sample=False, recentred=False, factor=1.0):
    """All 4^5 groups; action 3 breaks the format."""
    pi = np.exp(log_pi)
    assume(pi[0] < 1 - 1e-6)
    reward = 0.9 * MATCH + 0.1 * (np.arange(4) < 3) if blended else MATCH
    chance, _, a, actions = lab.all_groups(pi, reward, MATCH, setting, sample=sample, recentred=recentred)
    s = negative_scaling_weight(pi[0], 5, offset=setting[0], slope=setting[1])
    return chance @ lab.updates(pi, a, actions), factor * s * pi[0] * (MATCH - pi), 1.0


@C5.check(Inequality(1e-9), Space(p=Floats(1e-4, 0.9999), offset=Floats(-1.0, 2.0), slope=Floats(-2.0, 3.0), G=Sizes(2, 12)),
          batched=False, instances=100, false={"at least 1 - p/2": {"share": 0.5}, "at most 1 - p": {"top": 1.0}})  # fmt: skip
def within_one_minus_p(p, offset, slope, G, *, share=1.0, top=0.0):
    found, zero, one = (lab.relative(p, G, setting) for setting in ((offset, slope), (0, 0), (1, 0)))
    ends = {"lambda = 0": (abs(zero / (1 - p) - 1), 1e-9), "lambda = 1": (abs(one - 1), 1e-12)}
    return {"below": (1 - share * p, found), "above": (found, 1 - top * p)} | ends


@C5.check(Limit(rate=-1.0, rate_tol=0.05), false={"p and 1 - p exchanged": {"of": 1}, "lambda of 1 - p": {"at": 1}})
def large_groups(*, of=0, at=0):
    sizes, out = 2 ** np.arange(4, 11), {}
    for p, setting in ((0.2, (0.5, 1.5)), (0.3, (0.2, 0.7)), (0.6, (1.2, -0.5))):
        limit, q = negative_scaling_limit(p, offset=setting[0], slope=setting[1]), abs(of - p)
        if of or at:
            limit = (1 - q) + q * negative_scale(abs(at - p), offset=setting[0], slope=setting[1])
        out[f"p = {p:g}"] = (sizes, np.array([lab.relative(p, int(n), setting) for n in sizes]) - limit)
    return out


@C5.check(Identity(1e-12), Space(c=Integers(1, 7)), batched=False, instances=10, false={"groups of 16": {"size": 16}})
def published_scales(c, *, size=8):
    """Against lambda at 1/8 … 7/8, written out."""
    found = {name: negative_scale(int(c) / size, offset=o, slope=k) for name, (o, k) in PUBLISHED.items()}
    return {name: (value, lab.SCALES[name][int(c) - 1]) for name, value in found.items()}


MOST = {"3B": 0.00255, "7B": 0.03750, "4B": 0.03005, "8B": 0.01702}


@C5.check(Inequality(), Space(p=Floats(1e-6, 1 - 1e-6)), instances=200,
          false={"nine tenths of these": {"share": 0.9}, "groups of 16": {"size": 16}})  # fmt: skip
def published_settings_are_almost_inert(p, *, share=1.0, size=8):
    return {k: (1 - lab.relative(p, size, setting), share * (MOST[k] + 5e-6)) for k, setting in PUBLISHED.items()}


@C5.check(Inequality(), examples=[{}], false={"groups of 7": {"size": 7}})
def these_are_reached(*, size=8):
    """``|largest change - stated|`` on a grid of p, of each setting, in half units of the last digit."""
    p = np.linspace(1e-6, 1 - 1e-6, 10_001)
    most = {k: np.max(1 - lab.relative(p, size, setting)) for k, setting in PUBLISHED.items()}
    return np.array([abs(most[k] - MOST[k]) / 5e-6 for k in MOST]), 1.0


@C5.check(Inequality(), examples=[{}], false={"groups of 6": {"size": 6}, "the logit of .25": {"which": 2}})
def one_state(*, size=5, which=1):
    """``|value - stated|`` in half units of the last digit."""
    pi, errors = np.array([0.3, 0.35, 0.25, 0.1]), []
    for setting, scale, variance in (((1, 0), 1.0, 0.0224), ((0.5, 1.5), 0.977, 0.0210), ((0, 0), 0.700, 0.0037)):
        chance, _, a, actions = lab.all_groups(pi, MATCH, MATCH, setting, size=size)
        each = lab.updates(pi, a, actions)[:, which]
        spread = chance @ each**2 - (chance @ each) ** 2
        errors += [abs(lab.relative(0.3, size, setting) - scale) / 5e-4, abs(spread - variance) / 5e-5]
    return np.array(errors), 1.0


C5_shields = paper.claim("C5-shields", r"""
    Scaling negatives down shields valid alternatives

    In a state with a valid alternative and an invalid action, the expected push on the alternative's logit, relative to that on the invalid
    one's, is at least 1 % smaller than without the scaling.

    where: the motivation of SNGS: negative gradients are unreliable where valid actions go without credit
    instead: Both pushes are $-s(p)\,\pi(\tilde a)\,\pi(a')$: their ratio is $\pi(a')/\pi(a'')$ with and without (3.500 for .35 and .1). All of the
    state is slowed alike.
    by: C5/expected_update
    origin: as commonly read
    """)  # fmt: skip


@C5_shields.check(Inequality(1e-9), Space(log_pi=Policies(4, spread=5.0), setting=Choice(*list(PUBLISHED.values())[2:], (0.0, 0.0))),
          batched=False, instances=12, examples=[{"log_pi": np.log([0.3, 0.35, 0.25, 0.1]), "setting": (0.5, 1.5)}],
          true={"equal": Variant({"less": 0.0}, kind=Identity(1e-9))})  # fmt: skip
def relative_push(log_pi, setting, *, less=0.01):
    """Action 1 is valid, action 3 is not."""
    pi, ratio = np.exp(log_pi), []
    assume(0.001 < pi[0] < 0.999)
    for used in (tuple(setting), (1.0, 0.0)):
        chance, _, a, actions = lab.all_groups(pi, MATCH, MATCH, used)
        push = chance @ lab.updates(pi, a, actions)
        ratio.append(push[1] / push[3])
    return ratio[0], (1 - less) * ratio[1]


C5_evidence = paper.claim("C5-evidence", r"""
    The reported gain on AndroidWorld shows that SNGS helps

    39.1 to 42.6 (45 and 49 of 115 tasks): a difference that two equal agents would show in less than one pair of runs of twenty.

    where: Table 10 (4B)
    instead: 4 tasks of 115 are half a standard error (6.5 points) of an unpaired difference: equal agents differ by as much in six of ten
    pairs. The same rates would need some 1600 tasks.
    by: C5/published_settings_are_almost_inert
    origin: as commonly read
    """)  # fmt: skip


@C5_evidence.check(Inequality(), Space(first=Integers(40, 60), more=Integers(1, 8)), batched=False, instances=20,
          examples=[{"first": 45, "more": 4}], true={"of 20 times as many tasks": Variant({"times": 20}, space=Space(first=Integers(40, 60), more=Integers(4, 8)))})  # fmt: skip
def equal_agents_rarely_differ_so(first, more, *, times=1):
    return lab.chance_of_difference(int(first), int(more), 115, times), 0.05


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    Action-aware SFT: a weighted token mean with three limits; reasoning competes for a limited trunk

    $L=-\frac{\sum\log\pi(c)+\alpha_a\sum\log\pi(a)+\alpha_g\sum\log\pi(g)}{|c|+\alpha_a|a|+\alpha_g|g|}$ a sample, then the batch
    mean. $\alpha=1$ is token-mean SFT, $\alpha_a=\alpha_g\to\infty$ the token mean over a and g, $\alpha_g\gg\alpha_a|a|/|g|$,
    $|c|/|g|$ grounding alone. Where all share a linear trunk of width 3, 24 reasoning heads instead of 2 cost grounding accuracy; a
    weight of 12 on grounding or mixing in direct samples raises it again. With a trunk of full width there is no cost (within .03).
    For (210, 30, 8) tokens the grounding share goes from .032 to .106 with weights (2, 4), and is .348 in the direct version.

    where: Eq. 3, Figs. 4 and 8, Table 8; the trunk is derived
    origin: printed
    """)  # fmt: skip
LENGTHS = (210, 30, 8)


@C6.check(Identity(1e-12), Space(drawn=Drawn(lab.samples), action=Floats(0.1, 10.0, log=True), ground=Floats(0.1, 10.0, log=True)), instances=40,
          false={"over the number of tokens": {"over": "tokens"}, "one ratio for the batch": {"over": "batch"}, "weights exchanged": {"swap": True}})  # fmt: skip
def loss(drawn, action, ground, *, over="sample", swap=False):
    log_probs, mask, kinds = drawn
    weights = (1.0, float(ground), float(action)) if swap else (1.0, float(action), float(ground))
    found, _ = asft(*lab.tokens_of(log_probs, mask, kinds, weights))
    above, below = [], []
    for row, alive, kind in zip(log_probs, mask, kinds):
        c, a, g = (row[alive & (kind == k)] for k in range(3))
        above.append(-(c.sum() + action * a.sum() + ground * g.sum()))
        below.append(len(c) + action * len(a) + ground * len(g) if over != "tokens" else alive.sum())
    return found, sum(above) / sum(below) if over == "batch" else np.mean(np.array(above) / below)


@C6.check(Limit(rate=-1.0, rate_tol=0.02, tol=1e-4),
          false={"limits of all tokens": {"more": 1}, "weight of g as large as that of a": {"power": 1.0}})  # fmt: skip
def limits(rng, *, more=0, power=2.5):
    """Equal weights up to 1e7; ``alpha_g = alpha_a^2.5`` up to (1e4, 1e10), against ``alpha_g / alpha_a``. Actions lose 2 nats more."""
    log_probs, mask, kind = lab.samples(rng, LENGTHS)
    log_probs = log_probs - 2.0 * (kind == 1)
    last = [-np.mean([row[k >= first].mean() for row, k in zip(log_probs, kind)]) for first in (1 - more, 2 - more)]
    equal, action = 10.0 ** np.arange(3, 8), 10.0 ** np.arange(2.0, 4.1, 0.5)
    weights = {"a and g": [(1.0, x, x) for x in equal], "g": [(1.0, x, x**power) for x in action]}
    found = {
        k: np.array([float(asft(*lab.tokens_of(log_probs, mask, kind, w))[0]) for w in of]) for k, of in weights.items()
    }
    return {"a and g": (equal, found["a and g"] - last[0]), "g": (action**1.5, found["g"] - last[1])}


@C6.check(Identity(1e-9), Space(level=Floats(0.1, 3.0)), batched=False, instances=5,
          false={"without the weights": {"weights": (1.0, 1.0, 1.0)}, "(4, 2)": {"weights": (1.0, 4.0, 2.0)}})  # fmt: skip
def grounding_share(level, *, weights=(1.0, 2.0, 4.0)):
    """How the loss moves when all grounding tokens lose ``level`` nats; the stated shares to the third digit."""
    out = {}
    for name, parts, used, stated in (("(1, 1)", LENGTHS, (1.0, 1.0, 1.0), 8 / 248), ("(2, 4)", LENGTHS, weights, 32 / 302),
                                      ("direct", (0, 30, 8), weights, 32 / 92)):  # fmt: skip
        log_probs, mask, kind = lab.samples(np.random.default_rng(0), parts)
        moved = [log_probs - drop * (kind == 2) for drop in (0.0, float(level))]
        pair = [float(asft(*lab.tokens_of(x, mask, kind, used))[0]) for x in moved]
        out[name] = ((pair[1] - pair[0]) / float(level), stated)
    return out


# deviations over seeds .13 (cost .22), .11 (weight .45), .05 (mixing .64), .005 (full width): risks of 2e-5 and less
@C6.check(Effect(seeds=16), false={"2 reasoning heads in all": Variant({"heads": 2}, kind=Effect(seeds=2))})
def reasoning_costs_grounding(rngs, *, heads=24):
    """The same data for all; 16, 6 and 4 seeds for the three differences."""
    runs = {"cost": (16, Heads(2)), "weight": (6, Heads(heads, 12.0)), "mixing": (4, Heads(heads, direct=True))}
    long = lab.grounding_accuracy(rngs, Heads(heads))
    return {name: lab.grounding_accuracy(rngs[:n], run) - long[:n] for name, (n, run) in runs.items()}


@C6.check(Effect(seeds=4, alternative="within", margin=0.03),
          false={"a trunk of width 3": Variant({"width": 3}, kind=Effect(seeds=2, alternative="within", margin=0.03))})  # fmt: skip
def no_cost_at_full_width(rngs, *, width=16):
    short, long = (lab.grounding_accuracy(rngs, Heads(heads, width=width)) for heads in (2, 24))
    return short - long


C6_direct = paper.claim("C6-direct", r"""
    With large equal weights ASFT is SFT without the chain of thought

    Its least loss is that of SFT on the samples with the reasoning removed.

    where: the remark after Eq. 3 (the limit is called SFT without CoT)
    instead: The chain still stands in the context: the limit learns $\pi(a|c)$, direct samples $\pi(a)$. Their least losses are $H(a|c)$ and
    $H(a)$, apart by the information $I(a;c)$. Only samples with an empty chain train the direct answer.
    by: C6/limits
    origin: as commonly read
    """)  # fmt: skip


@C6_direct.check(Identity(1e-6, scale=1e-3), Space(counts=Drawn(lab.pairs)), instances=20,
          true={"up to the information": {"information": 1.0}})  # fmt: skip
def the_chain_is_gone(counts, *, information=0.0):
    weighted, direct, shared = lab.chain_losses(counts)
    return weighted + information * shared, direct


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    With few noisy demonstrations, a moderate KL penalty ends with more online success than none and than a large one

    300 states with 1 to 3 valid actions of 6, linear softmax policies, H = 6; SFT on 150 states (22 labels wrong), 800 RL steps on 40 of them;
    M_off on the other 150. Without the penalty the training score ends higher than with $\beta=1$ and the entropy lower, J gains less than .025
    over the start, and J stays behind $\beta=1$, at its best checkpoint, too (early stopping is no substitute); $\beta=10$ stays behind, too. M_off
    is higher with $\beta=1$; etabar hardly moves (within .02): the gain is less over-fitting to single demonstrations.

    where: Figs. 9-10, Table 9; the world is derived
    origin: printed
    """)  # fmt: skip


# paired J over 440 seeds: .030 ± .024 (1 - 0), .026 ± .034 (1 - 10), .022 ± .022 (1 - early), .023 ± .046 (.025 - gain at 0): 130 seeds needed for 1e-4
@C7.check(Effect(seeds=150), false={"clean labels on all states": Variant({"clean": True}, kind=Effect(seeds=6))})
def moderate_penalty(rngs, *, clean=False):
    world = World.draw(rngs)
    start = lab.fine_tuned(world, clean)
    if clean:
        ends = [lab.trained(world, start, Training(b, 400, clean=True))[2] for b in (1.0, 0.0)]
        return {"J: 1 against 0": ends[0] - ends[1]}
    path, one, ten = (lab.trained(world, start, Training(b), every=None if b else 80) for b in (0.0, 1.0, 10.0))
    none, best = path[:, :, -1], path[2].mean(axis=0).argmax()
    return {
        "J: 1 against 0": one[2] - none[2],
        "J: 1 against 10": one[2] - ten[2],
        "J: 1 against the best of 0": one[2] - path[2][:, best],
        "J: less than .025 gained at 0": 0.025 - (none[2] - path[2][:, 0]),
        "M_off: 1 against 0": one[1] - none[1],
        "training score: 0 against 1": none[0] - one[0],
        "entropy: 1 against 0": one[4] - none[4],
    }


@C7.check(Effect(seeds=45, alternative="within", margin=0.02), false={"the training score": {"score": 0}})
def off_demo_mass_hardly_moves(rngs, *, score=3):
    world = World.draw(rngs)
    start = lab.fine_tuned(world)
    ends = [lab.trained(world, start, Training(b)) for b in (1.0, 0.0)]
    return ends[0][score] - ends[1][score]


RUNS = Space(z=Normals(6), ref=Normals(6), label=Integers(0, 5), beta=Floats(0.0, 10.0))


@C7.check(Identity(1e-7, scale=1), RUNS, batched=False, instances=20,
          false={"of KL(ref‖pi)": {"swap": True}, "half of beta": {"share": 0.5}, "without p": {"plain": True}})  # fmt: skip
def a_step_ascends(z, ref, label, beta, *, swap=False, share=1.0, plain=False):
    """``pi(label) / sqrt(p (1-p) + .05) - beta KL(pi‖ref)`` with the denominator held fixed, by central differences in the logits."""
    log_ref, one, beta = log_normalize(ref), np.eye(6)[:, [int(label)]], float(beta)
    slope = lab.slope(z, log_ref, int(label), share * beta, swap=swap, plain=plain)
    log_pi = log_normalize(z)[:, None]
    return lab.direction(np.exp(log_pi), log_pi, log_ref[:, None], one, Training(beta))[:, 0], slope, 1 + beta


@C7.check(Identity(1e-5, scale=1), false={"a step of 2.9": {"lr": 2.9}, "H - 1 steps": {"horizon": 5}, "labels without errors": {"noisy": False}})  # fmt: skip
def the_world_by_definition(rng, *, lr=3.0, horizon=6, noisy=True):
    """Scores after 40 steps against float64 steps on weights of features, and the library's dynamic programming."""
    found = lab.trained(world := World.draw([rng]), lab.fine_tuned(world), Training(1.0, steps=40))[:, 0]
    right, data = lab.in_weights(world, 40, 1.0, lr, horizon, noisy)
    return {name: (a, b) for name, a, b in zip(lab.SCORES, found, right)} | {"data": (world.data[0], data)}


C7_training = paper.claim("C7-training", r"""
    The run with the higher training score is the better agent

    Of the runs with $\beta=0$ and $\beta=1$ the one with the higher training score (the former) has the higher online success.

    where: training reward as the criterion by which runs are compared
    instead: With few noisy demonstrations the higher training score comes from over-fitting, and J is lower. With clean labels on all states
    it is higher.
    by: C7/moderate_penalty
    origin: folklore
    """)  # fmt: skip


@C7_training.check(Effect(seeds=26), true={"clean labels on all states": Variant({"clean": True}, kind=Effect(seeds=22))})  # fmt: skip
def better_in_training_better_online(rngs, *, clean=False):
    world = World.draw(rngs)
    start = lab.fine_tuned(world, clean)
    ends = [lab.trained(world, start, Training(b, steps=400 if clean else 800, clean=clean)) for b in (0.0, 1.0)]
    return ends[0][2] - ends[1][2]


C7_predicts = paper.claim("C7-predicts", r"""
    With the penalty the offline score predicts online success better within a run

    The correlation of M_off and J over the checkpoints of a run is higher with $\beta=1$ than without a penalty, on average over runs.

    where: Fig. 10 (Pearson .89 with, .63 without KL, over the runs of the paper); in the world of C7 derived
    origin: printed
    """, expect="open")  # fmt: skip


# the deviation of a paired difference is .8: an effect of .2 would take 550 seeds, the .04 seen over 860 runs more than 10,000
@C7_predicts.check(Effect(seeds=20), false={"lower": Variant({"betas": (0.0, 1.0)}, kind=Effect(seeds=4))})
def correlation_gain(rngs, *, betas=(1.0, 0.0)):
    world = World.draw(rngs)
    start = lab.fine_tuned(world)
    one, two = (lab.within_run(lab.trained(world, start, Training(b), every=40)) for b in betas)
    return one - two


# C8 ------------------------------------------------------------------------------------------------
C8 = paper.claim("C8", r"""
    In that world scaled negatives change nothing; dropping them slows training

    At $\beta=1$ the setting (.5, 1.5) leaves the training score, M_off and J within .02 (its large-group factor is
    $(1-p)+p\min(.5+1.5p,1)$, C5). $\lambda=0$ lowers the training score, by more than .1, and J.

    where: derived; Eqs. 10-11, Table 10
    """)  # fmt: skip


@C8.check(Effect(seeds=12, alternative="within", margin=0.02), false={"negatives dropped": {"scaling": (0.0, 0.0)}})
def nothing_changes(rngs, *, scaling=(0.5, 1.5)):
    moved = lab.changes(rngs, scaling)
    return {"training score": moved[0], "M_off": moved[1], "J": moved[2]}


# paired deviations .015 and .025: 70 seeds
@C8.check(Effect(seeds=70), false={"(.5, 1.5)": Variant({"scaling": (0.5, 1.5)}, kind=Effect(seeds=8))})
def dropping_negatives_costs(rngs, *, scaling=(0.0, 0.0)):
    moved = lab.changes(rngs, scaling)
    return {"training score": -moved[0] - 0.1, "J": -moved[2]}


@C8.check(Identity(1e-9, scale=1e-3), RUNS, batched=False, instances=20, false={"p and 1 - p exchanged": {"exchanged": True}})  # fmt: skip
def what_the_scale_does_to_a_step(z, ref, label, beta, *, exchanged=False):
    """The penalty's part is left alone."""
    log_pi, log_ref, one = log_normalize(z)[:, None], log_normalize(ref)[:, None], np.eye(6)[:, [int(label)]]
    pi, beta = np.exp(log_pi), float(beta)
    runs = (Training(beta, scaling=(0.5, 1.5)), Training(beta), Training(0.0))
    scaled, plain, alone = (lab.direction(pi, log_pi, log_ref, one, run) for run in runs)
    p = pi[int(label), 0]
    q = 1 - p if exchanged else p
    return scaled, plain + ((1 - q) + q * min(0.5 + 1.5 * p, 1.0) - 1) * alone, 1 + beta
