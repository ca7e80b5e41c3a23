r"""Claims of "Tricks or Traps? A Deep Dive into RL for LLM Reasoning" (Lite PPO).

``N`` prompts with ``K`` responses each; group, batch: where the mean and the std are taken; mix: group mean, std of the batch's raw rewards
(Lite PPO); ``S`` the score of a response, ``|o|`` its length. The paper's pages were not read; a note and the recipe's document were.
"""

from __future__ import annotations

import math

import numpy as np
import sympy

from klsim.claims import Effect, Identity, Inequality, Limit, Paper, Symbolic, Variant, assume
from klsim.distributions import entropy, log_normalize
from klsim.learning.clipped_ascent import clipped_ascent, clipped_gradient, updates_to_reach
from klsim.learning.difficulty import keep_probability
from klsim.learning.length_weights import kept_weight, token_mean_expansion, token_mean_weights, truncation_push
from klsim.learning.normalisation import best_baseline, normalised_weights, variance_of_baseline
from klsim.objectives.advantages import advantages, group_sample_std, group_std, no_scale, prompt_weights, std_weight
from klsim.objectives.aggregate import sequence_mean, sequence_sum, token_mean
from klsim.spaces import Choice, Drawn, Floats, Integers, Normals, Sizes, Space

# isort: off
from .setting import (
    ESTIMATORS, KNOWN, LENGTHS, LOGITS, REWARD, TINY, Branch, Shortcut, Truncated, accuracies, all_groups, bandit, by_groups,
    centred_first, against_the_groups_std, bare, clear, clipped_objective, closed_variance, drift, enumerated_variance,
    enumerated_weights, estimate, half_and_half, law, loss_slope, mostly, normalised, of_an_answer, scores, sequence_update, sigmoid,
    slopes, stepwise, style, token_bias, updates, with_nuisance,
)  # fmt: skip

paper = Paper(
    "tricks-or-traps", title="Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning", year=2025, arxiv="2508.08221",
    authors="Zihe Liu, Jiashun Liu, Yancheng He, Weixun Wang, et al.",
)  # fmt: skip
RATE = Floats(0.01, 0.99)

C1 = paper.claim("C1", r"""
    The four estimators and what leaves them unchanged

    group: $(r-\mathrm{mean}_g)/\mathrm{std}_g$, unchanged by $r\to a_qr+b_q$ for every prompt q ($a_q>0$). batch:
    $(r-\mathrm{mean}_B)/\mathrm{std}_B$, by $r\to ar+b$ only. mean only: $r-\mathrm{mean}_g$, by $r\to r+b_q$. mix (Lite PPO):
    $(r-\mathrm{mean}_g)/\mathrm{std}_B$ with the std of all NK raw rewards, by $r\to ar+b$; under $r\to r+b_q$ all its advantages
    get the factor $\mathrm{std}_B(r)/\mathrm{std}_B(r+b)$. A variant with the std of the centred rewards is unchanged by it.
    group, mean only and mix sum to 0 in every group, batch over the batch; $\mathrm{mean}_g(A^2)=1$ for group. Equal rewards have
    $A=0$.
    where: Sec. 4.1, normalisation equations, Takeaways 1-3; invariances derived
    assumes: population std; zero std gives $A=0$, with a threshold for rounding; no epsilon.
    """)  # fmt: skip
BATCH = {"r": Normals("N", "K"), "N": Sizes(2, 6), "K": Sizes(2, 8)}
BATCHES = Space(a=Normals("N").map(lambda z: 2.0 ** np.tanh(z)), b=Normals("N"), **BATCH)
FAINT = {"r": np.array([[0.0, 1.0, 1.0], [1.0, 2.0, 0.0]]), "a": np.full(2, 1e-20), "b": np.zeros(2)}


@C1.check(Identity(1e-9, scale=1), BATCHES, batched=False, instances=100, examples=[FAINT],
          false={"batch, a shift a prompt": {"batch": "shifts"}, "mix, a shift a prompt": {"mix": "shifts"},
                 "mean only, a factor a prompt": {"mean_only": "both"}, "the factor of mix inverted": {"power": -1},
                 "the factor of mix from group means": {"of": "means"}})  # fmt: skip
def unchanged_by(r, a, b, *, batch="global", mix="global", mean_only="shifts", power=1, of="rewards"):
    changes = {"both": a[:, None] * r + b[:, None], "shifts": r + b[:, None], "global": a[0] * r + b[0]}
    clear(r, changes["shifts"])
    wanted = {"group": "both", "batch": batch, "mean only": mean_only, "mix": mix}
    out = {kind: (estimate(kind, changes[change]), estimate(kind, r)) for kind, change in wanted.items()}
    spread = [x.std() if of == "rewards" else x.mean(axis=1).std() for x in (r, changes["shifts"])]
    factor = (spread[0] / spread[1]) ** power
    out["mix, one factor"] = (estimate("mix", changes["shifts"]), factor * estimate("mix", r))
    return out | {"std of the centred": (centred_first(changes["shifts"]), centred_first(r))}


@C1.check(Identity(1e-10, scale=1), Space(**BATCH), batched=False, instances=60,
          false={"batch in every group": {"everywhere": True}, "the sample std": {"scale": group_sample_std}, "mix for batch": {"other": "mix"}})  # fmt: skip
def sums(r, *, everywhere=False, scale=group_std, other="batch"):
    """A sum is 0 if its last entry is minus the sum of the others; and the simulations' own normalisation (C3, C4, C8)."""
    clear(r)
    found, size = {kind: estimate(kind, r) for kind in ESTIMATORS}, r.shape[1]
    pairs = {f"own {k}": (normalised(other if k == "batch" else k, np.array([r, r]))[1], x) for k, x in found.items()}
    found["batch"] = found["batch"].reshape(-1, size if everywhere else r.size)
    squares = by_groups(r, scale=scale) ** 2
    out = {kind: (x[:, -1], -x[:, :-1].sum(axis=1)) for kind, x in found.items()}
    return pairs | out | {"squares": (squares[:, -1], size - squares[:, :-1].sum(axis=1))}


@C1.check(Identity(1e-12, scale=1), Space(cents=Integers(-1000, 1000), N=Sizes(1, 4), K=Sizes(2, 9)), batched=False, instances=60,
          examples=[{"cents": 10, "N": 1, "K": 6}], false={"without a threshold": {"threshold": False}})  # fmt: skip
def equal_rewards_have_none(cents, N, K, *, threshold=True):
    r = np.full((N, K), int(cents) / 100)
    found = {kind: estimate(kind, r) for kind in ESTIMATORS} if threshold else {"group": bare(r)}
    return {kind: (r[0, 0] + np.abs(x).max(), r[0, 0]) for kind, x in found.items()}


C1_shift = paper.claim("C1-shift", r"""
    The group mean takes a prompt's own offset out of Lite PPO's advantages

    mix is unchanged by $r\to r+b_q$.
    where: derived; Sec. 4.1, group mean with batch std
    instead: The spread between prompts enters $\mathrm{std}_B$: all advantages get one common factor, so that offsets act like a
    smaller learning rate. Without the std, or with that of the centred rewards, they drop out.
    by: C1/unchanged_by
    origin: derived
    """)  # fmt: skip


@C1_shift.check(Identity(1e-9, scale=1), BATCHES, batched=False, instances=40,
          true={"mean only": {"kind": "mean only"}, "group": {"kind": "group"}})  # fmt: skip
def offsets_drop_out(r, a, b, *, kind="mix"):
    clear(r)
    return estimate(kind, r + a[:, None] * b[:, None]), estimate(kind, r)


C2 = paper.claim("C2", r"""
    Normalisation is a weight a prompt

    Binary rewards, i.i.d. group: $\mathbb{E}[\frac1K\sum_kA_kS_k]=w\nabla p$ with $$w_{group}=\frac{\mathbb{E}\sqrt{\hat p(1-\hat
    p)}}{p(1-p)},\ \hat p\sim\mathrm{Bin}(K,p)/K,\qquad w_{mean}=\frac{K-1}K,$$ times $\sqrt{(K-1)/K}$ with the sample std, and
    $w_{mix}\to w_{mean}/\mathrm{std}_B$ for large batches. $w_{group}$ is 1 and $\sqrt2$ at K = 2, 3 for every p;
    $\to1/\sqrt{p(1-p)}$ as $K\to\infty$ (it ascends $2\arcsin\sqrt p$); $\to\sqrt{K-1}$ as $p\to0$. If groups without contrast
    are replaced, divide by P(mixed): then $\sqrt{K-1}/(Kp)$ as $p\to0$.
    where: derived; explains the takeaway on reward concentration
    assumes: on-policy; $0<p<1$; groups without contrast have $A=0$ and stay in the average unless said.
    """)  # fmt: skip
GROUPS = Space(p=RATE, size=Choice(2, 3, 4, 8))
PRINTED_GROUPS = [{"p": p, "size": K} for K in (4, 8) for p in (0.02, 0.1, 0.5, 0.9)]


@C2.check(Identity(1e-10, scale=1), GROUPS, batched=False, instances=30, examples=PRINTED_GROUPS,
          false={"1/sqrt(p(1-p))": {"many": True}, "the sample std alike": {"sample": 0}, "mixed groups alike": {"mixed": 0},
                 "none at K = 4 either": {"flat": 4}})  # fmt: skip
def by_enumeration(p, size, *, many=False, sample=1, mixed=1, flat=3):
    """All 2^K reward vectors, scores by their conditional means."""
    p, size = float(p), int(size)
    rewards, chance = all_groups(size, p)
    score, scales = rewards / p - (1 - rewards) / (1 - p), (group_std, group_sample_std, no_scale)
    group, sample_std, mean = (chance @ np.mean(by_groups(rewards, scale=s) * score, axis=1) for s in scales)
    weight, share = std_weight(p, size), chance @ (rewards.std(axis=1) > 0)
    return {"group": (group, 1 / math.sqrt(p * (1 - p)) if many else weight), "mean only": (mean, (size - 1) / size),
            "sample std": (sample_std, ((size - 1) / size) ** (sample / 2) * weight),
            "K = 2, 3": (weight, math.sqrt(size - 1) if size <= flat else weight),
            "replaced": (group / share, weight / keep_probability(p, size, 1 / size, 1 - 1 / size) ** mixed)}  # fmt: skip


@C2.check(Identity(1e-10, scale=1), Space(z=Normals("Q", scale=2.0), K=Sizes(2, 3), Q=Sizes(1, 3)), batched=False, instances=10,
          examples=[{"z": np.array([-2.0, 0.0, 1.5]), "K": 2}], false={"mix for batch": {"swap": True}, "without the spread between prompts": {"scale": "group"}})  # fmt: skip
def of_whole_batches(z, K, *, swap=False, scale="batch"):
    """By enumeration of all counts; `normalised_weights` convolves."""
    p, out = sigmoid(z), {}
    for kind, (mean, std) in ESTIMATORS.items():
        baseline = "batch" if kind == "batch" and not swap else "group"
        name = {"group": "group", "mean only": "none"}.get(kind, scale)
        by_counts = p.size * prompt_weights(lambda r, g, m=mean, s=std: advantages(r, g, baseline=m, scale=s), p, K)
        out[kind] = (normalised_weights(p, K, baseline=baseline, scale=name), by_counts)
    return out


@C2.check(Limit(rate=-1.0, rate_tol=0.1),
          false={"1/(p(1-p))": {"power": 1.0}, "sqrt K": {"less": 0}, "sqrt(K-1)/p": {"by": 0}, "w_mean alone in large batches": {"scaled": 0},
                 "(K-1)/K for the batch mean": {"share": 1}})  # fmt: skip
def limits(*, power=0.5, less=1, by=1, scaled=1, share=0):
    """Batches: half of the prompts at p = .2, half at .7, K = 4; the batch mean agrees with mix up to (K-1)/K (C3)."""
    many, small, prompts = 2 ** np.arange(4, 12), 10.0 ** -np.arange(2, 8), 2 ** np.arange(1, 7)
    weight, spread, out = std_weight(small, 8), math.sqrt(0.45 * 0.55), {}
    for p in (0.1, 0.5):
        out[f"K, p = {p}"] = (many, np.array([std_weight(p, int(k)) for k in many]) - (p * (1 - p)) ** -power)
    for baseline, limit in (("group", 0.75 / spread**scaled), ("batch", 0.75**share / spread)):
        out |= {f"{baseline}, p = {p}": (prompts, w - limit) for p, w in half_and_half(prompts, baseline).items()}
    replaced = weight / keep_probability(small, 8, 1 / 8, 7 / 8) * 8**by * small / math.sqrt(7) - 1
    return out | {"p": (1 / small, weight - math.sqrt(8 - less)), "p, replaced": (1 / small, replaced)}


@C2.check(Symbolic(), false={"arcsin sqrt p": {"factor": 1}})
def it_ascends_the_arcsine(*, factor=2):
    """At the odds t² = p/(1-p), t > 0."""
    t = sympy.Symbol("t", positive=True)
    p = t**2 / (1 + t**2)
    slope = factor * sympy.diff(sympy.asin(t / sympy.sqrt(1 + t**2)), t) / sympy.diff(p, t)
    return sympy.simplify(slope - (1 + t**2) / t)


C2_popular = paper.claim("C2-popular", r"""
    GRPO weights a prompt by 1/sqrt(p(1-p))

    $w_{group}=1/\sqrt{p(1-p)}$ within 1 %, for groups of 2 to 64.
    where: how the std's effect is commonly explained
    instead: Only for $Kp\gg1$. $w_{group}=\mathbb{E}\sqrt{\hat p(1-\hat p)}/(p(1-p))$ never exceeds $\sqrt{K-1}$: at K = 8, p = .02
    it is 2.57, not 7.14, and $w(.02)/w(.5)$ is 1.39, not 3.57.
    by: C2/by_enumeration, C2/limits
    origin: folklore
    """)  # fmt: skip


@C2_popular.check(Identity(0.01), Space(p=Floats(0.02, 0.98), size=Integers(2, 64)), batched=False, instances=40, examples=PRINTED_GROUPS[4:5],
          true={"groups of 10 000": Variant({}, space=Space(p=Floats(0.02, 0.98), size=Choice(10_000)), instances=10)})  # fmt: skip
def infinite_group(p, size):
    return std_weight(p, int(size)), 1 / np.sqrt(p * (1 - p))


C3 = paper.claim("C3", r"""
    The batch mean: right direction, another variance, drift on solved prompts

    A constant baseline m and scale s give exactly $\nabla p_q/s$. The variance of one sample (times $s^2$) differs from that of
    the baseline p by $(p-m)^2\mathbb{E}\|S\|^2+2(p-m)\mathbb{E}[(r-p)\|S\|^2]$. With one answer logit and D fair one-logit tokens
    the batch mean has the larger variance whenever $D\ge\frac4{3\sqrt3}/|p-m|$; at p = .9, m = .3 the ratio is 4.76 for D = 50
    and .06 for D = 0, where $1-p$ is optimal. All-correct groups get $A=(1-\mathrm{mean}_B)/\mathrm{std}_B>0$ on every sample: no
    expected gradient, but finite steps drift. 8 solved prompts with 3 right answers among 8 hopeless ones (K = 8, 400 steps at
    .3) lose .2 of their entropy of log 3 at least; with any group mean exactly nothing.
    where: derived; the collapse of batch normalisation on skewed rewards, Fig. 4
    assumes: a batch so large that its mean and std are constants, for the first two.
    """)  # fmt: skip
BANDITS = Space(z=Normals("A", scale=1.5), r=Normals("A"), m=Floats(-2.0, 2.0), extra=Floats(0.0, 5.0), A=Sizes(2, 6))


@C3.check(Identity(1e-7, scale=1), BANDITS, batched=False, instances=40,
          false={"a scale that knows the reward": {"scaled": True}, "a baseline that knows the action": {"known": True}})  # fmt: skip
def a_constant_baseline_keeps_the_direction(z, r, m, extra, *, scaled=False, known=False):
    pi, score = bandit(z)
    baseline, scale = (m * pi if known else m), 0.2 + (np.abs(r) if scaled else extra)
    return (pi * (r - baseline) / scale) @ score, slopes(lambda y: np.exp(log_normalize(y)) @ r, z) / (0.2 + extra)


@C3.check(Identity(1e-11, scale=1), BANDITS, batched=False, instances=60,
          false={"without the second term": {"second": 0}, "m - p for p - m": {"sign": -1}, "the other tokens left out": {"others": 0},
                 "the mean is the best baseline": {"best": "mean"}})  # fmt: skip
def the_variance_changes_by(z, r, m, extra, *, second=1, sign=1, others=1, best="best"):
    """And by ``(m - b*)^2 E|S|^2`` against the best baseline: none is better."""
    pi, score = bandit(z)
    size, p = np.sum(score**2, axis=1) + others * extra, pi @ r
    change = (p - m) ** 2 * (pi @ size) + sign * second * 2 * (p - m) * (pi @ ((r - p) * size))
    top = best_baseline(pi, score, r, extra=float(extra)) if best == "best" else p
    at_m, at_p, at_top = (variance_of_baseline(pi, score, r, float(b), extra=float(extra)) for b in (m, p, top))
    nearest = (m - top) ** 2 * (pi @ size)
    return {"mean": (at_m - at_p, change, at_m + at_p), "best": (at_m - at_top, nearest, at_m + at_top)}


@C3.check(Identity(1e-11, scale=1), Space(p=RATE, m=Floats(0.0, 1.0), D=Integers(0, 4)), batched=False, instances=30,
          false={"half a fair token's score": {"token": 0.125}, "without the squared mean": {"squared": 0}, "p is optimal": {"failure": 0}})  # fmt: skip
def variance_with_irrelevant_tokens(p, m, D, *, token=0.25, squared=1, failure=1):
    """By enumeration of the answer and D fair bits; the closed form; and the best baseline of the answer alone."""
    p, m, D = float(p), float(m), int(D)
    formula = closed_variance(p, m, squared) + D * token * (p * (1 - p) + (p - m) ** 2)
    found, best = of_an_answer(p, m, D), best_baseline([p, 1 - p], [[1 - p], [-p]], [1.0, 0.0])
    spread, right = enumerated_variance(p, m, D), 1 - p if failure else p
    return {"enumeration": (found, spread), "closed form": (found, formula), "best": (best, right)}


@C3.check(Identity(2e-3), false={"p and m exchanged": {"p": 0.3, "m": 0.9}})
def ratios_in_numbers(*, p=0.9, m=0.3):
    return [of_an_answer(p, m, D) / of_an_answer(p, p, D) for D in (50, 0)], [4.76, 0.0625]


@C3.check(Inequality(1e-12), Space(p=RATE, m=RATE), batched=False, instances=100, false={"half as long": {"share": 0.5}})  # fmt: skip
def long_responses_want_the_group_mean(p, m, *, share=1.0):
    assume(abs(p - m) > 1e-3)
    tokens = share * 4 / (3 * math.sqrt(3) * abs(p - m))
    return of_an_answer(p, p, tokens), of_an_answer(p, m, tokens)


# the batch mean ends at .77 ± .08 (standard deviation) of 1.099: the risk at 40 seeds is below 1e-8
@C3.check(Effect(seeds=40), false={"mix drifts": {"drifts": "mix"}, "the batch mean does not": {"others": ("batch",)}})
def solved_prompts_drift(rngs, *, drifts="batch", others=("group", "mean only", "mix")):
    full = math.log(3)
    kept = {kind: drift(rngs, kind)[:, -1] - full + 1e-12 for kind in others}
    return {"drifts": full - 0.2 - drift(rngs, drifts)[:, -1]} | kept


C3_always = paper.claim("C3-always", r"""
    The mean of the group has less variance than the mean of the batch

    $V(p)\le V(m)$ for every constant m.
    where: the group mean as the stable centre, Takeaways 1-3, read as a matter of variance in any problem
    instead: Only where the size of the score is nearly independent of success, as in long responses. In a bandit of two actions
    the best baseline is $1-p$; at p = .9 a batch mean of .3 has .06 of the variance.
    by: C3/long_responses_want_the_group_mean, C3/variance_with_irrelevant_tokens
    origin: as commonly read
    """)  # fmt: skip


@C3_always.check(Inequality(1e-12), Space(p=RATE, m=RATE), batched=False, instances=60, examples=[{"p": 0.9, "m": 0.3}],
          true={"with 50 other tokens, |p - m| > .02": {"tokens": 50}})  # fmt: skip
def group_mean_has_less_variance(p, m, *, tokens=0):
    assume(abs(p - m) > 0.02)
    return of_an_answer(float(p), float(p), tokens), of_an_answer(float(p), float(m), tokens)


C4 = paper.claim("C4", r"""
    Where rewards are concentrated the group's std amplifies nuisances

    $\mathbb{E}[A_{group}^2]/\mathbb{E}[A_{mean}^2]=P(\mathrm{mixed})/\mathbb{E}[\hat p(1-\hat p)]$, the denominator
    $p(1-p)\frac{K-1}K$: 8.10 at p = .95, K = 8. Differences of size $\epsilon$ in an otherwise solved group give advantages that
    do not depend on $\epsilon$ (group), $O(\epsilon)$ (mean only), $O(\epsilon/\mathrm{std}_B)$ (mix). 16 prompts solved with
    .98, a shared style bit that adds .01 (K = 8, 300 steps at .05): P(style) ends above .95 with group, below .6 with mean only;
    with mix above .8 if all prompts are easy, below .65 if half are hard. Mean only moves the logit by .13 ± .05, as it must: the
    bit is rewarded.
    where: derived; Figs. 5-6, Takeaway 2, on LLMs
    assumes: one learning rate for all normalisers, plain steps, a fixed number of them.
    """)  # fmt: skip


@C4.check(Identity(1e-10), GROUPS, batched=False, instances=30, examples=[{"p": 0.95, "size": 8}],
          false={"P(mixed) = 1": {"mixed": 0}, "without (K-1)/K": {"share": 0}})  # fmt: skip
def amplification(p, size, *, mixed=1, share=1):
    p, size = float(p), int(size)
    rewards, chance = all_groups(size, p)
    second = [chance @ np.mean(by_groups(rewards, scale=s) ** 2, axis=1) for s in (group_std, no_scale)]
    spread = p * (1 - p) * ((size - 1) / size) ** share
    return second[0] / second[1], keep_probability(p, size, 1 / size, 1 - 1 / size) ** mixed / spread


@C4.check(Limit(rate=-1.0, rate_tol=0.01),
          false={"group": {"kinds": ("group",)}, "mix without a hard prompt": {"kinds": ("mix",), "hard": False}})  # fmt: skip
def a_nuisance_shrinks_with_its_size(*, kinds=("mean only", "mix"), hard=True):
    return {kind: (1 / TINY, [np.abs(with_nuisance(kind, eps, hard)).max() for eps in TINY]) for kind in kinds}


@C4.check(Identity(1e-6, scale=1), Space(z=Normals(6), eps=Floats(1e-6, 1.0, log=True)), batched=False, instances=30,
          false={"mean only": {"kind": "mean only"}, "mix": {"kind": "mix"}})  # fmt: skip
def but_not_under_the_groups_std(z, eps, *, kind="group"):
    assume(z.std() > 0.1)
    return estimate(kind, np.array([1 + eps * z, np.zeros_like(z)]))[0], (z - z.mean()) / z.std()


# sd: group .0004, mean only .006, mix .018 (easy), .009 (half hard): the risk at 12 seeds is below 1e-8
@C4.check(Effect(seeds=12), false={"without the style's reward": {"bonus": 0.0}, "mean only and mix exchanged": {"swap": True}})  # fmt: skip
def what_a_style_bit_becomes(rngs, *, bonus=0.01, swap=False):
    one, other = ("mix", "mean only") if swap else ("mean only", "mix")
    runs = {"group": ("group", False), "mean only": (one, False), "easy": (other, False), "half hard": (other, True)}
    end = {name: style(rngs, kind, half_hard=half, bonus=bonus)[:, -1] for name, (kind, half) in runs.items()}
    first = {"group": end["group"] - 0.95, "mean only": 0.6 - end["mean only"]}
    return first | {"mix, easy": end["easy"] - 0.8, "mix, half hard": 0.65 - end["half hard"]}


# sd .022 a seed
@C4.check(Effect(seeds=20, null=0.13, alternative="within", margin=0.05),
          false={"mix": {"kind": "mix"}, "twice the bonus": {"bonus": 0.02}})  # fmt: skip
def it_is_rewarded_after_all(rngs, *, kind="mean only", bonus=0.01):
    """300 steps x .05 x 4 x 7/8 x .01 / 4 = .131."""
    on = style(rngs, kind, bonus=bonus)[:, -1]
    return np.log(on / (1 - on))


C4_batch = paper.claim("C4-batch", r"""
    The batch's std is the robust scale

    With mix P(style) stays below .65 where all prompts are easy.
    where: the batch's std as the robust scale, Takeaways 2-3
    instead: Only in a batch whose prompts differ: there the spread between prompts keeps $\mathrm{std}_B$ large. If all are easy
    mix ends above .8, and only dropping the std helps.
    by: C4/what_a_style_bit_becomes, C4/a_nuisance_shrinks_with_its_size
    origin: as commonly read
    """)  # fmt: skip


@C4_batch.check(Effect(seeds=12, alternative="less", null=0.65),
          true={"half of the prompts hard": {"half_hard": True}, "without the std": {"kind": "mean only"}})  # fmt: skip
def mix_is_robust(rngs, *, kind="mix", half_hard=False):
    return style(rngs, kind, half_hard=half_hard)[:, -1]


C5 = paper.claim("C5", r"""
    Aggregation is a weight a response, by its length

    On-policy with a constant baseline b: $\frac1G\sum_i\frac1{|o_i|}\sum_t$ (sequence) has the gradient of
    $\mathbb{E}[(r-b)/|o|]$; $\frac1{\sum|o_i|}\sum_i\sum_t$ (token) weights a response by $\mathbb{E}[G/(|o|+L_2+\dots+L_G)]$: at
    G = 1 it is the sequence estimator, for $G\to\infty$ it tends to $\nabla\mathbb{E}[r]/\mathbb{E}|o|$, parallel to the policy
    gradient, with the bias $\frac1G(\mathbb{E}X\,\mathrm{Var}|o|/\mathbb{E}|o|^3-\mathrm{Cov}(X,|o|)/\mathbb{E}|o|^2)$,
    $X=(r-b)S$. Equal lengths: both are one. The group mean in place of b gives the sequence loss $(K-1)/K$ times the gradient of
    b = p. If a response shows early that it is wrong, sequence aggregation lengthens wrong branches and shortens right ones; the
    token limit does neither; if length is independent of success and b = p the two pushes cancel.
    where: Fig. 9, Takeaway 7; identities and limit derived
    assumes: on-policy ($\rho=1$), constant baseline.
    """)  # fmt: skip
PROCESS = Space(z=Normals(7, 3), b=Floats(-1.0, 1.0))
PRINTED = [{"z": LOGITS, "b": 0.5}]
SIZES = 2 ** np.arange(2, 10)


@C5.check(Identity(1e-7, scale=1), Space(z=Normals(7, 3), b=Floats(-1.0, 1.0), along=Normals(7, 3)), batched=False, instances=5,
          false={"1/|o| for the token mean": {"swap": True}, "1/|o| for the sum": {"summed": 1}})  # fmt: skip
def the_losses_of_the_library(z, b, along, *, swap=False, summed=0):
    """Slope of the expected surrogate in a direction, by finite differences over all batches (token: of two)."""
    p = law(z)
    cases = {"sequence": (sequence_mean, 1, 1 / LENGTHS), "sum": (sequence_sum, 1, 1.0 / LENGTHS**summed),
             "token": (token_mean, 2, 1 / LENGTHS if swap else token_mean_weights(LENGTHS, p, 2))}  # fmt: skip
    return {name: (loss_slope(z, along, b, aggregate, size), (p * weight * (REWARD - b)) @ scores(z) @ along.ravel())
            for name, (aggregate, size, weight) in cases.items()}  # fmt: skip


@C5.check(Identity(1e-7, scale=1), PROCESS, batched=False, instances=20, examples=PRINTED,
          false={"b left out": {"centred": 0}, "E[r]/E|o| at G = 1": {"first": None}, "E[r]/E|o| at G = 4": {"last": 4}})  # fmt: skip
def what_they_ascend(z, b, *, centred=1, first=1, last=None):
    """``E[(r-b)/|o|]`` at G = 1 (sequence), ``E[r]/E|o|`` in the limit."""
    p, signal = law(z), (REWARD - b)[:, None] * scores(z)
    mean = p @ LENGTHS
    weights = [1 / mean if size is None else token_mean_weights(LENGTHS, p, size) for size in (first, last)]
    worth = {"sequence": (REWARD - centred * b) / LENGTHS, "token": REWARD / mean}
    right = [slopes(lambda y, w=w: law(y) @ w, z) for w in worth.values()]
    return {name: ((p * w) @ signal, slope) for name, w, slope in zip(worth, weights, right)}


@C5.check(Identity(1e-12), Space(z=Normals(7, 3), size=Integers(1, 4)), batched=False, instances=12, examples=[{"z": LOGITS, "size": 4}],
          false={"the others alone": {"own": 0}, "one response more": {"more": 1}})  # fmt: skip
def weights_by_enumeration(z, size, *, own=1, more=0):
    """All ``15^(G-1)`` other responses."""
    return token_mean_weights(LENGTHS, law(z), int(size)), enumerated_weights(z, int(size), own=own, more=more)


@C5.check(Limit(rate=-1.0, rate_tol=0.05),
          false={"without the covariance": {"covariance": 0}, "E X Var / E|o|²": {"cubed": 2}, "weights to order 0": {"order": 0}})  # fmt: skip
def bias_of_the_token_mean(*, covariance=1, cubed=3, order=1):
    """``G`` times the bias and the weights, minus their limits, in the digest's process (`LOGITS`, b = .5)."""
    p, x = law(LOGITS), (REWARD - 0.5)[:, None] * scores(LOGITS)
    mean, ex, weights = p @ LENGTHS, p @ x, [token_mean_weights(LENGTHS, p, int(G)) for G in SIZES]
    limit = ex * (p @ (LENGTHS - mean) ** 2) / mean**cubed - covariance * ((p * (LENGTHS - mean)) @ x) / mean**2
    expanded = [token_mean_expansion(LENGTHS, p, int(G)) if order else 1 / mean for G in SIZES]
    left = {"bias": [(p * w) @ x - ex / mean - limit / G for G, w in zip(SIZES, weights)]}
    left["weights"] = [w - e for w, e in zip(weights, expanded)]
    return {name: (SIZES, SIZES * np.abs(e).max(axis=1)) for name, e in left.items()}


@C5.check(Identity(8e-3), false={"b = 0": {"b": 0.0}})
def bias_in_numbers(*, b=0.5):
    """There, at G = 1 to 4; and the cosine between the sequence mean's gradient and the policy gradient."""
    found, cosine = token_bias(b)
    return {"bias": (found, [0.0421, 0.0155, 0.0090, 0.0063]), "cosine": (cosine, 0.9477)}


@C5.check(Identity(1e-13), Space(v=Normals("G", "T"), same=Integers(2, 6), G=Sizes(2, 5), T=Sizes(2, 6)), batched=False, instances=30,
          false={"one response shorter": {"shorter": 1}})  # fmt: skip
def equal_lengths_are_one(v, same, *, shorter=0):
    lengths = min(int(same), v.shape[1]) - shorter * (np.arange(len(v)) == 0)
    mask = np.arange(v.shape[1]) < lengths[:, None]
    return sequence_mean(v, mask), token_mean(v, mask), np.abs(v).max()


@C5.check(Identity(1e-10, scale=1), Space(z=Normals(7, 3), size=Choice(2, 3)), batched=False, instances=6,
          false={"b = p": {"share": 0}, "by (K-1)/K for the mean of the others": {"others": True}})  # fmt: skip
def the_mean_of_the_group(z, size, *, share=1, others=False):
    n, p = int(size), law(z)
    per_token = (p * token_mean_weights(LENGTHS, p, 1) * (REWARD - p @ REWARD)) @ scores(z)
    return sequence_update(z, n) * (n / (n - 1) if others else 1), ((n - 1) / n) ** share * per_token


BRANCHES = Space(p=Floats(0.05, 0.95), right=Floats(-2.0, 2.0), wrong=Floats(-2.0, 2.0))


@C5.check(Identity(1e-7, scale=1), BRANCHES, batched=False, instances=25, examples=[{"p": 0.3, "right": math.log(7 / 3), "wrong": 0.0}],
          false={"b = 0": {"centred": 0}, "EOS not counted": {"more": 1}, "none by the sequence mean either": {"token": False},
                 "they cancel though lengths differ": {"same": False}})  # fmt: skip
def pushes_on_the_branches(p, right, wrong, *, centred=1, more=0, token=True, same=True):
    """By finite differences of ``P(branch) (r - p) E[1/|o| | branch]``; none in the token limit; they cancel if lengths are alike."""
    world = Branch(float(p), float(right), float(wrong))
    found, limit = world.pushes(), world.pushes(token=token)
    alike = world._replace(wrong=world.right if same else world.wrong).pushes()
    sides = {"sequence": (found, world.slopes(centred, more)), "token": (found + limit, found)}
    return sides | {"alike": (alike[0], -alike[1])}


@C5.check(Inequality(1e-13, scale=1), BRANCHES, batched=False, instances=40, false={"signs exchanged": {"sign": -1}})
def wrong_branches_grow(p, right, wrong, *, sign=1):
    """And right ones shrink, at least by a hundredth of p (1 - p) c (1 - c)."""
    pushes = sign * Branch(float(p), float(right), float(wrong)).pushes()
    least = 0.01 * p * (1 - p) * np.array([sigmoid(x) * (1 - sigmoid(x)) for x in (right, wrong)])
    return {"right": (pushes[0], -least[0]), "wrong": (least[1], pushes[1])}


C5_unbiased = paper.claim("C5-unbiased", r"""
    The token mean is the policy gradient over the mean length

    In batches of 8, within 1 % of the largest term.
    where: "token-level loss has no length bias", a reading of Takeaway 7
    instead: Only as the batch grows: it is a ratio estimator with a bias of $O(1/G)$, and at G = 1 the sequence mean itself (so
    per micro-batch, when the normaliser is not summed over the whole batch).
    by: C5/weights_by_enumeration, C5/bias_of_the_token_mean
    origin: folklore
    """)  # fmt: skip


@C5_unbiased.check(Identity(0.01), PROCESS, batched=False, instances=20, examples=PRINTED, true={"batches of 2000": {"size": 2000}})  # fmt: skip
def token_mean_is_unbiased(z, b, *, size=8):
    p, x = law(z), (REWARD - b)[:, None] * scores(z)
    found, limit = (p * token_mean_weights(LENGTHS, p, size)) @ x, p @ x / (p @ LENGTHS)
    return found, limit, (p @ np.abs(x)).max() / (p @ LENGTHS)


C6 = paper.claim("C6", r"""
    Clip-higher: rare good tokens grow by 1 + eps_high an update

    The clipped surrogate gives an outcome with $A>0$ none of its own gradient above $1+\epsilon_{high}$, one with $A<0$ none
    below $1-\epsilon_{low}$. Bandit of 7 arms, $\pi_0=(.94,.01\times6)$, $r=(.5,1,0\times5)$, $\epsilon_{low}=.2$, 6 updates of
    3000 exact steps of .1: in the first three updates the rare good arm grows by $1+\epsilon_{high}$ each, within .3 %, so that
    $p_1$ takes $\log(p_1/p_0)/\log(1+\epsilon_{high})$ updates; later no more than that, to .1 % (others are pushed down and give
    it their mass); 1.214, 1.323, 1.397 on average over six at .2, .28, .32. The final entropy grows with $\epsilon_{high}$. Arms with $\pi_{old}>1/(1+\epsilon_{high})$ never reach the
    clip. With one inner step the clip does nothing. Raising $\epsilon_{low}$ to at most .32 instead multiplies the good arm's
    final probability by .95 to 1.02, raising $\epsilon_{high}$ to .32 by 2 at least.
    where: Figs. 7-8, Takeaways 4-6, on LLMs; the bandit and the rates are derived
    assumes: several inner updates a batch; low-entropy start; exact expectations.
    """)  # fmt: skip
HIGH = Floats(0.1, 0.4)


@C6.check(Identity(1e-6, scale=1), Space(z=Normals("A"), step=Normals("A", scale=0.4), a=Normals("A"), high=HIGH, low=HIGH, A=Sizes(2, 8)),
          batched=False, instances=40, false={"one clip for both": {"same": True}, "open on the other side": {"sign": -1}})  # fmt: skip
def gradient_of_the_surrogate(z, step, a, high, low, *, same=False, sign=1):
    """Of the library's loss, arms weighted by ``pi_old``, by finite differences away from the kinks; shut at the lower one."""
    old, now = log_normalize(z), log_normalize(z + step)
    kinks = np.exp(now - old)[:, None] - np.r_[1 + high, 1 - low, 1 + low]
    assume(np.abs(kinks).min() > 1e-3 and np.abs(a).min() > 1e-6)
    found = clipped_gradient(now, old, sign * a, low=float(low), high=float(low if same else high))
    shut = clipped_gradient(np.log([0.25, 0.75]), np.log([0.5, 0.5]), [-1.0, 0.0], low=0.5, high=float(high))
    return {
        "away": (sign * found, slopes(clipped_objective(old, a, float(low), float(high)), z + step, 1e-6)),
        "at 1 - eps_low": (shut, 0.0),
    }


@C6.check(Identity(1e-10, scale=1), Space(z=Normals("A"), r=Normals("A"), high=HIGH, A=Sizes(2, 6)), batched=False, instances=8,
          false={"advantages of the current policy": {"refreshed": True}, "ratios to the first policy": {"anchored": True},
                 "a clip without effect in 40 steps": {"inner": 40}})  # fmt: skip
def updates_are_steps_of_it(z, r, high, *, refreshed=False, anchored=False, inner=1):
    """And with one inner step the clip has no effect."""
    start = log_normalize(z)
    found = clipped_ascent(start, r, low=0.2, high=high, updates=3, inner_steps=15, lr=0.3)[0]
    one, other = clipped_ascent(start, r, low=[0.2, 0.3], high=[high, 2 * high], updates=2, inner_steps=inner, lr=1.0)
    path = stepwise(start, r, float(high), refreshed=refreshed, anchored=anchored)
    return {"path": (found, path), "one step": (one, other)}


@C6.check(Identity(3e-3), Space(high=Floats(0.1, 0.32)), batched=False, instances=12,
          false={"all six": {"count": 6}, "1 + eps_low": {"low": True}})  # fmt: skip
def growth_of_a_rare_good_arm(high, *, count=3, low=False):
    good = updates(high)[0, : count + 1, 1]
    return good[1:] / good[:-1], 1 + (0.2 if low else high)


@C6.check(Inequality(1e-12), Space(high=HIGH), batched=False, instances=12, examples=[{"high": 0.2}, {"high": 0.28}],
          false={"a tenth more updates": {"share": 1.1}, "entropy by eps_low": {"side": "low"}})  # fmt: skip
def growth_and_entropy(high, *, share=1.0, side="high"):
    """n updates reach ``(1 + eps_high)^n`` at least; a tenth more eps_high gives .5 % more entropy at least (.217, .285, .341)."""
    pair = np.array([1.0, 1.1]) * high
    good, ends = updates(high)[0, :, 1], (updates(pair) if side == "high" else updates(0.2, pair))[:, -1]
    needed = np.array([updates_to_reach(good[0], p, float(high)) for p in good[1:]])
    lower, upper = entropy(np.log(ends))
    return {"updates": (np.arange(1, 7) * share, 1.001 * needed), "entropy": (1.005 * lower, upper)}


@C6.check(Inequality(1e-9), Space(z=Normals(6), r=Normals(6), high=HIGH), batched=False, instances=12,
          false={"above 1/(1 + eps_high)²": {"power": 2}})  # fmt: skip
def likely_arms_never_reach_it(z, r, high, *, power=1):
    """An arm just above the bound, the only good one."""
    bound = (1 + high) ** -float(power)
    start, pay = mostly(float(bound), z[1:]), np.r_[1.0, -np.abs(r[1:])]
    path = clipped_ascent(start, pay, low=1.0, high=high, updates=1, inner_steps=400, lr=1.0)[0]
    return path[1, 0] / path[0, 0], 1 + high


@C6.check(Inequality(), Space(low=Floats(0.2, 0.32)), batched=False, instances=8, examples=[{"low": 0.32}],
          false={"exchanged": {"swap": True}})  # fmt: skip
def the_upper_clip_does_it(low, *, swap=False):
    end = updates([0.2, 0.28, 0.32, 0.2], np.array([0.2, 0.2, 0.2, low]))[:, -1]
    found = {"entropy": entropy(np.log(end[:3])), "growth": (end[:3, 1] / 0.01) ** (1 / 6)}
    by_low, by_high = (end[[3, 2], 1] / end[0, 1])[:: -1 if swap else 1]
    sides = {"eps_low": (np.array([0.95, by_low]), np.array([by_low, 1.02])), "eps_high": (2.0, by_high)}
    return sides | {name: (np.abs(x - KNOWN[name]), np.full(3, 5e-4)) for name, x in found.items()}


C6_raises = paper.claim("C6-raises", r"""
    Clip-higher keeps the entropy up

    With $\epsilon_{high}$ between .2 and .28 the bandit of C6 ends with no less entropy than it starts with.
    where: Figs. 7-8, Takeaways 4-6; .28 is DAPO's
    instead: It falls more slowly. The entropy ends above its start only if the rare arm gains enough in the updates there are:
    here from about .32 on (.334 at the start; .217, .285, .341 at .2, .28, .32).
    by: C6/growth_and_entropy
    origin: as commonly read
    """)  # fmt: skip


@C6_raises.check(Inequality(), Space(high=Floats(0.2, 0.28)), batched=False, instances=12, examples=[{"high": 0.28}],
          true={"from .32 on": Variant({}, space=Space(high=Floats(0.32, 0.5)), examples=[{"high": 0.32}])})  # fmt: skip
def entropy_stays(high):
    first, *_, last = entropy(np.log(updates(high)[0]))
    return first, last


C7 = paper.claim("C7", r"""
    Overlong filtering removes the pressure on length, all of it

    A response that is cut has reward 0; a finished one (probability F) is right with q whatever its length. The update's
    component along the length is $q\nabla F$ without filtering, whatever the baseline; 0 if truncated responses are masked from
    loss and baseline; $q(1-F)\nabla F$ if they are masked from the loss and stay in the baseline. A finite group's mean
    multiplies the first and last by $(K-1)/K$ and leaves the second 0; the update of q gets $\frac{K-1}KF$, and with the filter
    $\mathbb{E}[(M-1)_+]/K$, $M\sim\mathrm{Bin}(K,F)$. Where success depends on length the filter ascends
    $\mathbb{E}[r|\mathrm{finished}]$ by that factor. If truncation comes from endless repetition (probability s) the gradient
    against it is $-qs(1-s)$ without, 0 with the filter.
    where: Figs. 10-11, Takeaway 8; derived
    assumes: per-response policy gradient without length normalisation; success independent of length but where said.
    """)  # fmt: skip
CUT = Space(logit=Floats(-1.0, 3.0), q=Floats(0.02, 0.98), cap=Choice(1, 2, 4), size=Choice(2, 3))
EIGHT = [{"logit": 1.5, "q": 0.6, "cap": 8, "size": 2}]
MASKS = ("none", "loss", "loss and baseline")


@C7.check(Identity(1e-8, scale=1), CUT, batched=False, instances=12, examples=EIGHT,
          false={"without (K-1)/K": {"finite": False}, "masked from the loss for both": {"both": "loss"},
                 "q for q (1-F)": {"loss": "none"}, "success by F with the filter": {"kept": False}, "by 1 for F": {"power": 0}})  # fmt: skip
def updates_of_groups(logit, q, cap, size, *, finite=True, both="loss and baseline", loss="loss", kept=True, power=1):
    """Along the length, as a multiple of grad F, and along q: its score is 1/q or -1/(1-q) of a finished response."""
    world, n, named = Truncated.constant(logit, q, cap), int(size), dict(zip(MASKS, ("none", loss, both)))
    f, slope, share = world.finished, world.slope(lambda w: w.finished), (n - 1) / n
    success = np.where(world.done, world.rewards / q - (1 - world.rewards) / (1 - q), 0.0)
    weights = dict(zip(MASKS, (share * f**power, share * f**power, kept_weight(f, n) if kept else f)))
    out = {f"{mask}, q": (world.update(n, mask, success), weights[mask]) for mask in MASKS}
    pushes = {mask: truncation_push(q, f, mask=named[mask], group_size=n if finite else None) for mask in MASKS}
    return out | {f"{mask}, F": (world.update(n, mask, world.score), push * slope) for mask, push in pushes.items()}


@C7.check(Identity(1e-8, scale=1), Space(logit=Floats(-1.0, 3.0), q=Floats(0.02, 0.98), cap=Integers(1, 12), b=Floats(-1.0, 1.0)), batched=False,
          instances=40, examples=[{"logit": 1.5, "q": 0.6, "cap": 8, "b": 0.2}, {"logit": math.log(3 / 7), "q": 0.6, "cap": 1, "b": 0.2}],
          false={"the filter with the baseline qF": {"centre": 1}, "a mask with any baseline": {"any_baseline": True}})  # fmt: skip
def with_constant_baselines(logit, q, cap, b, *, centre=0, any_baseline=False):
    """-.1748, 0, -.0349 at q = .6, F = .8004; a loop is a response that is cut at once (cap 1): -.126, 0 at q = .6, s = .3."""
    world = Truncated.constant(logit, q, cap)
    f, wanted, out = world.finished, world.slope(lambda w: w.finished), {}
    for mask, base in zip(MASKS, (b, b if any_baseline else q * f, q * f**centre)):
        signal = world.probs * (world.rewards - base) * (world.done | (mask == "none"))
        out[mask] = (signal @ world.score, truncation_push(q, f, mask=mask) * wanted)
    return out


@C7.check(Identity(1e-8, scale=1), Space(world=Drawn(Truncated.draw), size=Choice(2, 3)), instances=12,
          false={"E[r]": {"given": "all"}, "by (K-1)/K": {"kept": False}})  # fmt: skip
def where_success_depends_on_length(world, size, *, given="finished", kept=True):
    n, wanted = int(size), world.slope(lambda w: w.rate() * (w.finished if given == "all" else 1))
    weight = kept_weight(world.finished, n) if kept else (n - 1) / n
    return world.update(n, "loss and baseline", world.score), weight * wanted


C7_loss = paper.claim("C7-loss", r"""
    A truncated response that is masked from the loss has no influence

    The component of the update along the length is 0.
    where: overlong filtering as a mask on the loss, Figs. 10-11
    instead: If its 0 stays in the group's baseline, finished responses are rewarded for having finished: $q(1-F)\nabla F$
    remains, a fifth of $q\nabla F$ at F = .8. Mask it from the baseline, too.
    by: C7/updates_of_groups, C7/with_constant_baselines
    origin: as commonly read
    """)  # fmt: skip


@C7_loss.check(Identity(1e-8, scale=1), CUT, batched=False, instances=12, examples=EIGHT,
          true={"from the baseline, too": {"mask": "loss and baseline"}})  # fmt: skip
def no_influence(logit, q, cap, size, *, mask="loss"):
    world = Truncated.constant(logit, q, cap)
    whole = q * world.slope(lambda w: w.finished)
    return whole + world.update(int(size), mask, world.score), whole


C8 = paper.claim("C8", r"""
    Lite PPO against GRPO in a world with a shortcut

    32 prompts, half easy, half hard; a filler token multiplies success by .85; a shared style bit is worth .02 and halves success
    on hard prompts; 16 prompts x 8, Adam at .05, 250 steps. Lite PPO (mix, token mean) ends more than .2 above GRPO (group,
    sequence mean) in exact accuracy. It is the std: batch std against group std gains more than .2 with either aggregation, and
    so does no std at all; the aggregation alone changes less than .01. The group's std drives the shortcut above .95, the others
    below .05.
    where: the comparison of Lite PPO, GRPO and DAPO on LLMs; the world and the attribution are derived
    assumes: on-policy, Adam, one learning rate; the size of the gain says nothing about LLMs.
    """)  # fmt: skip


# .249 with a standard deviation of .001; without nuisances .004
@C8.check(Effect(seeds=12, null=0.2),
          false={"without shortcut and filler": {"bonus": 0.0, "filler": 1.0}, "GRPO without its std": {"norm": "mean only"}})  # fmt: skip
def lite_gains(rngs, *, bonus=0.02, filler=0.85, norm="group"):
    (grpo, lite), _ = accuracies(rngs, Shortcut(norm, False, bonus, filler), Shortcut("mix", True, bonus, filler))
    return lite - grpo


@C8.check(Effect(seeds=4), false={"a bit worth nothing": {"bonus": 0.0}})
def it_is_the_std(rngs, *, norms=("mix", "mean only"), bonus=0.02):
    """Accuracy .2 above that with the group's std; P(style) above .95 with it, below .05 without."""
    return against_the_groups_std(rngs, norms, bonus)


# differences below .0001 with a standard deviation of .0003
@C8.check(Effect(seeds=6, alternative="within", margin=0.01), false={"the std in its place": {"pairs": (("group", "mix"),)}})  # fmt: skip
def not_the_aggregation(rngs, *, pairs=(("group", "group"), ("mix", "mix"))):
    found = [accuracies(rngs, Shortcut(one, False), Shortcut(two, True))[0] for one, two in pairs]
    return {f"{one}, {two}": b - a for (one, two), (a, b) in zip(pairs, found)}


C8_both = paper.claim("C8-both", r"""
    Both of Lite PPO's techniques contribute

    The token mean gains more than .01 in accuracy over the sequence mean.
    where: Lite PPO as two techniques, group mean with batch std and token-level loss
    instead: Not in this world (on-policy, Adam): the aggregation changes less than .01 with either std, and the gain over GRPO is
    that of leaving the group's std.
    by: C8/not_the_aggregation, C8/it_is_the_std
    origin: as commonly read
    """)  # fmt: skip


@C8_both.check(Effect(seeds=6, null=0.01), true={"the batch's std": {"norms": ("group", "mix"), "tokens": (False, False)}})  # fmt: skip
def the_token_mean_adds(rngs, *, norms=("group", "group"), tokens=(False, True)):
    (a, b), _ = accuracies(rngs, *map(Shortcut, norms, tokens))
    return b - a
