r"""Claims of "Reinforcement Learning Finetunes Small Subnetworks in Large Language Models".

``theta_0``, ``theta_1``: weights before and after, float32 masters; a weight is *visible* if its bfloat16 value changed; sparsity is the
share of weights that are not. A base is *on the grid* if its weights are bfloat16 numbers (a public checkpoint), else off it. Effects are
on the testbed of `setting`: five base networks a verification, fine-tuned for 150 steps.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import structural_rank
from scipy.special import erf, ndtr

from klsim.claims import Effect, Identity, Inequality, Paper, Variant
from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.learning.masked_training import train_part
from klsim.learning.networks import rounded
from klsim.learning.update_sparsity import changed, expected_sparsity, sparsity
from klsim.learning.weight_geometry import overlap, rank_fraction
from klsim.objectives import TokenBatch, dpo, grpo, sft
from klsim.spaces import Drawn, Floats, Integers, Normals, Space

from . import setting as st
from .setting import Run, trained

paper = Paper(
    "small-subnetworks",
    title="Reinforcement Learning Finetunes Small Subnetworks in Large Language Models",
    authors="Sagnik Mukherjee, Lifan Yuan, Dilek Hakkani-Tur, Hao Peng",
    year=2025,
    arxiv="2505.11711",
)
#: every effect on the testbed has the same five networks; deviations are below a fifth of the distance to its margin unless said
NETS, EFFECT, of = 5, Effect(seeds=5), st.Study.of


def near(margin, null=0.0, seeds=NETS):
    return Effect(seeds=seeds, alternative="within", null=null, margin=margin)


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    One-sided overlaps and their chance level

    For masks $I_1,I_2$ of $n$ coordinates with sparsities $s_i=1-|I_i|/n$, $o_1=|I_1\cap I_2|/|I_1|$ and $o_2=|I_1\cap I_2|/|I_2|$ satisfy
    $o_1(1-s_1)=o_2(1-s_2)$, and over uniform masks of those sizes $E[o_1]=1-s_2$, $E[o_2]=1-s_1$: the density of the *other* mask. The
    printed Table 4 agrees with itself, $o_1\,chance_2=o_2\,chance_1$, up to its rounding.

    where: Sec. 5, App. E, Table 4 (whose formula for the chance level needs |.|/n)
    assumes: Both masks have a coordinate.
    """)  # fmt: skip


WORKED = [{"masks": (np.isin(np.arange(10), (0, 1, 2, 3)), np.isin(np.arange(10), (2, 3, 4)))}]


@C1.check(
    Identity(1e-12), Space(masks=Drawn(st.two_masks)), examples=WORKED, instances=100,
    false={"chance is the density of the same mask": {"other": False}, "Jaccard's index": {"jaccard": True},
           "o_1 s_1 = o_2 s_2": {"by": "sparsity"}},
)  # fmt: skip
def by_counting(masks, *, other=True, jaccard=False, by="density"):
    """Against sets of indices."""
    found, n = overlap(*masks), len(masks[0])
    one, two = ({i for i in range(n) if m[i]} for m in masks)
    below = (len(one | two),) * 2 if jaccard else (len(one), len(two))
    densities = len(one) / n, len(two) / n
    sides = densities if by == "density" else tuple(1 - d for d in densities)
    return {
        "o_1": (found.first, len(one & two) / below[0]),
        "o_2": (found.second, len(one & two) / below[1]),
        "chance": ([found.first_chance, found.second_chance], densities[::-1] if other else densities),
        "both sides": (found.first * sides[0], found.second * sides[1], 1.0),
        "over chance": (found.over_chance, len(one & two) / n / math.prod(densities)),
    }


@C1.check(
    Identity(1e-12), Space(drawn=Drawn(st.small_masks)), instances=60,
    false={"the product of both densities": {"product": True}, "both overlaps have the chance of the first": {"swapped": True}},
)  # fmt: skip
def mean_over_all_masks(drawn, *, product=False, swapped=False):
    """Over every second mask of that size."""
    mask, size = drawn
    n = len(mask)
    every = np.array([np.isin(np.arange(n), chosen) for chosen in itertools.combinations(range(n), size)])
    found = overlap(np.broadcast_to(mask, every.shape), every)
    densities = mask.mean(), size / n
    first = math.prod(densities) if product else densities[1]
    return {"o_1": (found.first.mean(), first), "o_2": (found.second.mean(), densities[1 if swapped else 0])}


#: (s_1, s_2) of Table 4; an overlap of masks of 20000 has a binomial deviation of up to .0082 (.367 of 2920), a mean of 60 one of .0011
TABLE_4 = ((0.633, 0.633), (0.633, 0.854), (0.871, 0.770))


@C1.check(near(0.012, seeds=60), false={"the product of both densities": {"product": True}})
def at_the_papers_sparsities(rngs, *, product=False):
    """o_1 and o_2 of masks of exact size, n = 20000, less 1 - s_2 and 1 - s_1."""
    out, n = {}, 20000
    for sparsities in TABLE_4:
        masks = [np.array([rng.permuted(np.arange(n) >= round(s * n)) for rng in rngs]) for s in sparsities]
        found, densities = overlap(*masks), [1 - s for s in sparsities]
        chance = [math.prod(densities)] * 2 if product else densities[::-1]
        out |= {f"o_1 at {sparsities}": found.first - chance[0], f"o_2 at {sparsities}": found.second - chance[1]}
    return out


#: o_1, o_2, chance_1, chance_2 in percent
PRINTED = np.array([(60.5, 60.6, 36.7, 36.7), (26.7, 67.1, 14.6, 36.7), (59.1, 33.2, 23.0, 12.9)])


@C1.check(Inequality(), examples=[{}], false={"chances the other way round": {"swapped": True}})
def the_printed_table(*, swapped=False):
    """Each number is rounded to .05 points at most, so the two products differ by .05 of their sum at most."""
    first, second, own, other = PRINTED.T
    if swapped:
        own, other = other, own
    return np.abs(first * other - second * own), 0.05 * PRINTED.sum(axis=1)


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    Sparse yet of full rank is what scattered entries are

    The mean rank of updates is 99.2 to 99.8 % of the possible one at 5 to 30 % density. Independent entries of any continuous law (here
    normal) on a mask have the rank of the mask's maximum matching, and a mask that is drawn entry by entry at density $p=c\log n/n$ has nearly full rank from
    $c=1$ on: $n=128$, mean rank fractions above .99 at 5 % and 20 %, and .674, .912, .989, .999 to .06 for $c=.3,.6,1,1.5$. So full rank
    says no more than "not in whole rows, and not of low rank before". The testbed's RL updates are within .06 of such masks of their density.

    where: Table 2 (Sec. 5); the null model is derived
    assumes: Square matrices for the thresholds; masks drawn entry by entry.
    """)  # fmt: skip


@C2.check(
    Identity(1e-12), Space(drawn=Drawn(st.masked_matrix)), instances=100,
    false={"entries of one size and sign": {"equal": True}, "rows that have an entry": {"rank": "rows"}},
)  # fmt: skip
def the_rank_of_a_matching(drawn, *, equal=False, rank="matching"):
    mask, values = drawn
    known = structural_rank(csr_array(mask.astype(float))) if rank == "matching" else mask.any(axis=1).sum()
    return rank_fraction(np.where(mask, 1.0 if equal else values, 0.0)), known / min(mask.shape)


# matchings of 300 masks: .9976 ± .0040 at 5 % and 1 at 20 %
@C2.check(Effect(seeds=30), false={"as many entries in whole rows": Variant({"where": "whole rows"}, kind=Effect(seeds=5)),
                                   "a dense update of rank 5 %": Variant({"where": "a product"}, kind=Effect(seeds=5))})  # fmt: skip
def scattered_entries(rngs, *, where="anywhere"):
    return {f"{d:.0%}": rank_fraction(st.placed(rngs, d, where)) - 0.99 for d in (0.05, 0.2)}


#: matchings of 300 masks; deviations of .035, .022, .008 and .003, so means over 20 draws to .0078 at most
THRESHOLDS = {0.3: 0.674, 0.6: 0.912, 1.0: 0.989, 1.5: 0.999}


@C2.check(near(0.06, seeds=20), false={
    "half as many entries again": Variant({"more": 1.5}, kind=near(0.06))})  # fmt: skip
def thresholds(rngs, *, more=1.0):
    density = math.log(128) / 128 * more
    return {f"c = {c}": rank_fraction(st.placed(rngs, c * density)) - rank for c, rank in THRESHOLDS.items()}


@C2.check(near(0.06), false={"its best approximation of rank 6, not rounded": {"rank": 6}})
def of_the_testbed(rngs, *, rank=None):
    """Mean over the three matrices of an RL update in bfloat16, less that of random masks of the same density."""
    fractions, rng = [], rngs[0]
    for update in st.stored_updates(trained(of(rngs))):
        null = rng.permuted(update.reshape(NETS, -1), axis=-1).reshape(update.shape)
        if rank:
            u, s, v = np.linalg.svd(update, full_matrices=False)
            update = (u * s[:, None] * (np.arange(s.shape[-1]) < rank)) @ v
        fractions.append(rank_fraction(update) - rank_fraction(null))
    return np.mean(fractions, axis=0)


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    Training the changed weights alone gives the same checkpoint: in bfloat16

    If a mask holds every coordinate whose gradient was ever not 0, training it alone gives the full run bit by bit (no decay outside);
    coordinates that *ended* elsewhere are not enough. Testbed, base off the grid, the mask of visible coordinates: more than 99 % of bfloat16
    weights equal the full run's, and the reward gain is within .25 of it, also if biases are all trained or none. In float32 the visible
    part keeps .32 of the gain, its complement .68, a random part of the same density .24, to .06: the rest drifts by up to lr times
    steps (to 10 %). On the grid the bfloat16 checkpoint keeps .27 of the float32 gain to .08, and the visible part and its complement
    .21 and .79 to .06, while the visible part still has the checkpoint's gain within .25.

    where: Conjecture 1, Sec. 4, Table 3 (94.0 % and 90.5 % of weights equal to 1e-5 after DPO and PRIME, all to 1e-4)
    assumes: epsilon > 0 in Adam; the numbers: RL, Adam at 1e-6, 150 steps.
    """)  # fmt: skip


@C3.check(
    Identity(1e-12), Space(task=Drawn(st.Sparse.draw)), instances=10,
    false={"touched in the first half": {"until": 0.5}, "visible in bfloat16": {"part": "visible"},
           "with decay of everything in the full run": {"decay": 0.1}},
)  # fmt: skip
def the_touched_part_is_the_run(task, *, part="touched", until=1.0, decay=0.0):
    """A small classifier with inputs that are mostly 0, in float32, every bit."""
    full = task.train(weight_decay=decay)
    mask = task.train(steps=round(12 * until)).touched if part == "touched" else changed(task.start, full.parameters)
    return task.train(mask=mask, weight_decay=decay).parameters, full.parameters


@C3.check(
    Identity(1e-6), Space(a=Floats(0.1, 10.0), b=Floats(0.1, 10.0)), batched=False, instances=20,
    false={"what ended elsewhere": {"ended": True}},
)  # fmt: skip
def a_round_trip(a, b, *, ended=False):
    """One weight moves by a and returns; the gradient of the other looked at it meanwhile: the other ends at a^2 b."""

    def gradient(own, step):
        return np.array([(-a, a)[step], -b * own[0] ** 2])

    full = train_part(np.zeros(2), gradient, st.SGD(1.0), 2)
    mask = full.parameters != 0 if ended else full.touched
    found = train_part(np.zeros(2), gradient, st.SGD(1.0), 2, mask=mask).parameters
    return {"full": (full.parameters, [0.0, a * a * b]), "part": (found, [0.0, a * a * b])}


@C3.check(near(1e-12), false={"the visible part": {"part": "visible"}})
def on_the_testbed(rngs, *, part="touched"):
    """50 steps of RL with the first 8 inputs off: largest difference of float32 weights from the full run, in units of the rate."""
    run = Run(steps=50, dead=8)
    full, found = (trained(of(rngs), r) for r in (run, run._replace(mask=part)))
    return np.abs(found.parameters - full.parameters).max(axis=1) / st.RATE


# equal .9958 ± .0005, ratios .998 ± .001 and .97
@C3.check(EFFECT, false={"a random part of the same density": {"part": "random", "biases": ("as the mask",)}})
def the_visible_part_in_bfloat16(rngs, *, part="visible", biases=("as the mask", "free", "frozen")):
    study, run = of(rngs), Run(mask=part)
    at, full = st.IS_WEIGHT, trained(study)
    equal = sparsity(full.parameters[:, at], trained(study, run).parameters[:, at])
    gains = {f"biases {b}": 0.25 - np.abs(st.ratio(study, run._replace(biases=b)) - 1) for b in biases}
    return {"equal": equal - 0.99, **gains}


SHARES = {"visible": 0.323, "complement": 0.680, "random": 0.235}


@C3.check(near(0.06), false={"stored in bfloat16": {"storage": "bfloat16"}})
def shares_in_float32(rngs, *, storage="float32"):
    return {part: st.ratio(of(rngs), Run(mask=part), storage) - share for part, share in SHARES.items()}


@C3.check(near(0.1, null=1.0), false={"over the weights that are trained": {"outside": False}})
def the_rest_drifts(rngs, *, outside=True):
    """Largest difference in float32 from the full run, over lr times steps."""
    full, found = (trained(of(rngs), r) for r in (Run(), Run(mask="visible")))
    over = ~full.visible if outside else full.visible
    return np.where(over, np.abs(found.parameters - full.parameters), 0.0).max(axis=1) / (st.RATE * st.STEPS)


ON_GRID = {"visible": 0.21, "complement": 0.79}


@C3.check(near(0.06), false={"off the grid": {"grid": False}})
def shares_on_the_grid(rngs, *, grid=True):
    return {part: st.ratio(of(rngs), Run(mask=part, grid=grid), "float32") - share for part, share in ON_GRID.items()}


@C3.check(near(0.08), false={"off the grid": {"grid": False}})
def the_checkpoint_on_the_grid(rngs, *, grid=True):
    return st.kept(of(rngs), grid) - 0.27


@C3.check(EFFECT, false={"a random part of the same density": {"part": "random"}})
def the_visible_part_on_the_grid(rngs, *, part="visible"):
    return 0.25 - np.abs(st.ratio(of(rngs), Run(mask=part, grid=True)) - 1)


C3_inert = paper.claim("C3-inert", r"""
    The weights that do not change do not matter

    "RL fine-tunes a small subnetwork": training it alone gives the full run's reward within .25 of the gain, in the precision of
    training, float32.

    where: read into Conjecture 1
    instead: Most of the gain is in the weights that seem not to change (.68 off the grid, .79 on it). Rounding hides them, and only once
    both runs are rounded to bfloat16 are they alike.
    by: C3/shares_in_float32, C3/shares_on_the_grid
    origin: as commonly read
    """)  # fmt: skip


@C3_inert.check(EFFECT, true={"both runs stored in bfloat16": {"storage": "bfloat16"}})
def the_visible_part_is_enough(rngs, *, storage="float32"):
    return {name: 0.25 - np.abs(st.ratio(of(rngs), Run(mask="visible", grid=grid), storage) - 1)
            for name, grid in (("off the grid", False), ("on the grid", True))}  # fmt: skip


C3_grid = paper.claim("C3-grid", r"""
    The bfloat16 checkpoint has what was learned

    A checkpoint in bfloat16 of a run from a bfloat16 base keeps more than .75 of the gain of its float32 weights.

    where: taken for granted where checkpoints are compared in place of runs
    instead: It keeps .27 (150 steps at 1e-6): a change shows only if it exceeds half a unit in the last place. Off the grid it keeps nearly
    all: a weight that crosses a rounding midpoint overshoots to a whole unit, so that rounding is right on average.
    by: C3/the_checkpoint_on_the_grid
    origin: as commonly read
    """)  # fmt: skip


# off the grid .99 with a deviation of .03
@C3_grid.check(Effect(seeds=NETS, null=0.75), true={"a base off the grid": {"grid": False}})
def the_checkpoint_keeps(rngs, *, grid=True):
    return st.kept(of(rngs), grid)


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    In-distribution data give sparser updates, at equal rate and steps

    Rejection fine-tuning on the policy's own right answers (RFT) is sparser than cross-entropy on labels that it would not give (OOD,
    $(y+1)$ mod 12): under Adam at 1e-6, off and on the grid, and by more than .2 under SGD at 1e-3. Sparsities of RL,
    RFT, SFT on $y$ and OOD: Adam .761, .750, .761, .726 off the grid and .858, .847, .858, .817 on it, to .03; SGD .378, .440, .343, .134 to .1.

    where: Sec. 6, Table 5
    assumes: testbed, 150 steps.
    """)  # fmt: skip
LEVELS = {
    "Adam": (Run(), (0.761, 0.750, 0.761, 0.726)),
    "Adam, on the grid": (Run(grid=True), (0.858, 0.847, 0.858, 0.817)),
    "SGD": (st.PLAIN_SGD, (0.378, 0.440, 0.343, 0.134)),
}


def of_method(study, setup, method, **changes):
    return trained(study, LEVELS[setup][0]._replace(method=method, **changes)).sparsity()


# differences .027 ± .007 (deviation .006), .030, .306 ± .015
@C4.check(EFFECT, false={"than SFT": {"other": "SFT"}})
def sparser_than_ood(rngs, *, other="OOD"):
    study = of(rngs)
    return {setup: of_method(study, setup, "RFT") - of_method(study, setup, other) - least
            for setup, least in zip(LEVELS, (0.0, 0.0, 0.2))}  # fmt: skip


@C4.check(near(0.03), false={"off and on the grid exchanged": {"turn": -1}})
def levels_under_adam(rngs, *, turn=1):
    setups = list(LEVELS)[:2]
    return {f"{setup}, {method}": of_method(of(rngs), setup, method) - level
            for setup, other in zip(setups, setups[::turn]) for method, level in zip(st.METHODS, LEVELS[other][1])}  # fmt: skip


# deviations of up to .02 (a margin of .06 had a risk of 1e-3 in a pilot)
@C4.check(near(0.1), false={"gradients divided by 10": {"scale": 0.1}})
def levels_under_sgd(rngs, *, scale=1.0):
    methods = st.METHODS if scale == 1 else st.METHODS[:2]
    return {m: of_method(of(rngs), "SGD", m, scale=scale) - level for m, level in zip(methods, LEVELS["SGD"][1])}


@C4.check(
    Identity(1e-6, scale=1e-3), Space(batch=Drawn(st.Batch.draw)), instances=20,
    false={"deviation with 1/n": {"std": "population"}, "DPO with beta = 1": {"beta": 1.0}, "KL of the base from the policy": {"turned": True}},
)  # fmt: skip
def the_losses(batch, *, std="sample", beta=0.5, turned=False):
    """Slopes of the testbed's losses along a direction in the logits, against differences of klsim.objectives' values."""
    y, base, drawn = batch.y, log_normalize(batch.base), batch.actions
    log_pi, right = log_normalize(batch.logits), drawn == y[:, None]
    rows_of, rewarded = np.repeat(np.arange(len(y)), st.GROUP), np.flatnonzero(right.ravel())

    def values(logits):
        log_p = log_normalize(logits)
        sampled = np.take_along_axis(log_p, drawn, axis=1).reshape(-1, 1)
        old = np.take_along_axis(log_pi, drawn, axis=1).reshape(-1, 1)
        pair = np.stack([y, batch.wrong], axis=1)
        found = {
            "RL": grpo(TokenBatch(sampled, old_log_probs=old, rewards=right.ravel().astype(float), group=rows_of), epsilon=1e-4, std=std)[0],
            "SFT": sft(TokenBatch(np.take_along_axis(log_p, y[:, None], axis=1)))[0],
            "DPO": dpo(TokenBatch(np.take_along_axis(log_p, pair, axis=1).reshape(-1, 1),
                                  ref_log_probs=np.take_along_axis(base, pair, axis=1).reshape(-1, 1),
                                  group=np.repeat(np.arange(len(y)), 2), preferred=np.tile([True, False], len(y))), beta=beta)[0],
            "KL": (kl(base, log_p) if turned else kl(log_p, base)).mean(),
        }  # fmt: skip
        return found | {"RFT": sft(TokenBatch(sampled[rewarded]))[0] if rewarded.size else 0.0}

    step = 1e-5
    ends = [values(log_pi + s * step * batch.along) for s in (1, -1)]
    found = batch.targets()
    return {
        name: (np.sum((t.sum(axis=-1, keepdims=True) * np.exp(log_pi) - t) * batch.along), (ends[0][name] - ends[1][name]) / (2 * step))
        for name, t in found.items()
    }  # fmt: skip


C4_gradients = paper.claim("C4-gradients", r"""
    Probable sequences give small gradients, hence small updates

    Gradients a tenth as large make the update of RL and of RFT sparser by more than .05.

    where: the explanation proposed in Sec. 6
    instead: Not under Adam, whose step does not depend on the scale of the gradient: no change of sparsity to 1e-3. Under SGD it rises
    by more than .3.
    by: C4-gradients/smaller_gradients
    origin: as commonly read
    """)  # fmt: skip


# Adam 0.0000, SGD .42 and .45
@C4_gradients.check(
    EFFECT,
    true={"under SGD, more than .3": {"setup": "SGD", "least": 0.3},
          "no change under Adam": Variant({"least": 0.0}, kind=near(1e-3))},
)  # fmt: skip
def smaller_gradients(rngs, *, setup="Adam", least=0.05):
    study = of(rngs)
    return {m: of_method(study, setup, m, scale=0.1) - of_method(study, setup, m) - least for m in ("RL", "RFT")}


C4_sft = paper.claim("C4-sft", r"""
    On-policy data are what makes an update sparse

    Trained on the same right answers, RFT (weights by what the policy draws) is sparser than SFT.

    where: Sec. 6, Table 5 (RFT 91.2 %, SFT 6.8 %)
    instead: Not under Adam at equal rate and steps: .750 against .761 (C4). Under SGD it is.
    by: C4/levels_under_adam, C4-sft/sparser_than_sft
    origin: as commonly read
    """)  # fmt: skip


# -.011 under Adam, +.097 under SGD
@C4_sft.check(EFFECT, true={"under SGD": {"setup": "SGD"}})
def sparser_than_sft(rngs, *, setup="Adam"):
    return of_method(of(rngs), setup, "RFT") - of_method(of(rngs), setup, "SFT")


C4_data = paper.claim("C4-data", r"""
    In-distribution data explain why RL is sparse and SFT dense

    The data alone, at equal rate and steps under Adam, make a difference of more than .5 in sparsity (the paper's: about 80 % against 7 %).

    where: Sec. 6, Table 5
    instead: They make less than .05; ten times the rate makes more than .5 of it. Runs that are compared at rates and lengths of their
    own are no evidence on data.
    by: C4/sparser_than_ood, C4-data/rft_against_ood, C5/the_rate_matters
    origin: as commonly read
    """)  # fmt: skip


# .024 at equal rate, .594 at ten times the rate
@C4_data.check(
    Effect(seeds=NETS, null=0.5),
    true={"OOD at ten times the rate": {"rate": st.FAST},
          "less than .05": Variant({}, kind=Effect(seeds=NETS, null=0.05, alternative="less"))},
)  # fmt: skip
def rft_against_ood(rngs, *, rate=st.RATE):
    return of_method(of(rngs), "Adam", "RFT") - of_method(of(rngs), "Adam", "OOD", rate=rate)


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    KL and gradient clipping do not matter to sparsity, the rate does

    Adding $\beta KL(\pi\|\pi_0)$ of the batch's prompts with $\beta=.1$ or 1, or clipping the gradient's norm at .05, changes the sparsity
    of RL by less than .03; ten times the rate lowers it by more than .3. Clipping at .05 is not idle: under SGD it changes sparsity by
    more than .03. Under Adam a constant factor changes nothing, and steps of a constant gradient have the size of the rate.

    where: Sec. 6 (69.8 % with KL, 68.8 % without)
    assumes: Adam; exact KL.
    """)  # fmt: skip
CHANGES = {
    "KL .1": (Run(kl=0.1), Run()), "KL 1": (Run(kl=1.0), Run()), "clip .05": (Run(clip=0.05), Run()),
    "ten times the rate": (Run(rate=st.FAST), Run()), "clip .05 under SGD": (st.PLAIN_SGD._replace(clip=0.05), st.PLAIN_SGD),
}  # fmt: skip


def change(rngs, name):
    one, other = (trained(of(rngs), run).sparsity() for run in CHANGES[name])
    return one - other


# .0001, .0007, -.001 with deviations below .001
@C5.check(near(0.03), false={"ten times the rate": {"names": ("ten times the rate",)}, "clipping under SGD": {"names": ("clip .05 under SGD",)}})  # fmt: skip
def kl_and_clipping(rngs, *, names=("KL .1", "KL 1", "clip .05")):
    return {name: change(rngs, name) for name in names}


@C5.check(Identity(1e-5), Space(g=Normals(6), factor=Floats(0.01, 100.0, log=True), steps=Integers(1, 12)), batched=False, instances=20, false={"under SGD": {"sgd": True}})  # fmt: skip
def a_constant_factor(g, factor, steps, *, sgd=False):
    """Steps of a constant gradient have the size of the rate; gradients that vary lead to the same place if scaled."""
    g, optimiser = g + np.copysign(0.1, g), st.SGD(0.1) if sgd else st.Adam(0.1, epsilon=st.TINY)
    still, plain, scaled = (train_part(np.zeros(6), lambda w, t, f=f: f(t) * g, optimiser, steps).parameters
                            for f in (np.ones_like, np.cos, lambda t: factor * np.cos(t)))  # fmt: skip
    return {"constant": (still, -0.1 * steps * np.sign(g)), "scaled": (scaled, plain, 0.1)}


# -.544
@C5.check(Effect(seeds=NETS, alternative="less", null=-0.3), false={"KL with beta = 1": {"name": "KL 1"}})
def the_rate_matters(rngs, *, name="ten times the rate"):
    return change(rngs, name)


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    Sparsity falls along training; transient updates; what a tolerance hides

    RL, Adam at 1e-6, snapshots every 25 of 300 steps: more than 95 % of the increments of sparsity are negative; it is .937, .821, .711
    and .623 at steps 25, 100, 200 and 300 to .05, and still falls by more than .05 over the last 100 (no plateau here; the paper's PRIME settles near 80 %).
    More than .0002 of all weights are visible at an earlier snapshot and not at the end (the paper: 8.5 %); on a straight path to the same end there would be none.
    Sizes alone explain the level: the mean of $\min(1,|\Delta|/ULP)$, on the grid the share of $|\Delta|>ULP/2$, to .02. The rule
    "$|\Delta|\le10^{-5}$ is equal" hides steps of one ULP of $\mathrm{erf}(2^{-9}/\sigma\sqrt2)$ of $N(0,\sigma^2)$ weights (7.8 % at .02);
    a relative 1e-3 hides none.

    where: Fig. 5, Fig. 6; the tolerance of the official scripts; explanation by sizes derived
    """)  # fmt: skip
LONG, SNAPSHOTS = Run(steps=300), range(25, 301, 25)


# every increment negative; falls of .088 ± .005
@C6.check(EFFECT, false={"against the snapshot before": {"reference": "last"}})
def sparsity_falls(rngs, *, reference="base"):
    run = trained(of(rngs), LONG)
    if reference == "base":
        path = np.array([run.sparsity(k) for k in SNAPSHOTS])
    else:
        held = [run.base.flat, *(run.snapshots[k] for k in SNAPSHOTS)]
        path = np.array([sparsity(a[:, st.IS_WEIGHT], b[:, st.IS_WEIGHT]) for a, b in itertools.pairwise(held)])
    return {"increments": np.mean(np.diff(path, axis=0) < 0, axis=0) - 0.95, "no plateau": path[7] - path[11] - 0.05}


PATH = {25: 0.937, 100: 0.821, 200: 0.711, 300: 0.623}


@C6.check(near(0.05), false={"50 steps later": {"later": 50}})
def levels_along_training(rngs, *, later=0):
    run = trained(of(rngs), LONG)
    return {f"step {k}": run.sparsity(min(k + later, 300)) - level for k, level in PATH.items()}


# .002 with a deviation of .0007; its logarithm has one of .35 about 2.3, so 5 networks have a risk below 1e-4
@C6.check(EFFECT, false={"on a straight path to the same end": {"straight": True}})
def transient(rngs, *, straight=False):
    """Logarithm of the share over .0002."""
    run = trained(of(rngs), LONG)
    start, end = (w[:, st.IS_WEIGHT] for w in (run.base.flat, run.parameters))
    ever = np.zeros(start.shape, dtype=bool)
    for k in SNAPSHOTS[:-1]:
        at = start + np.float32(k / 300) * (end - start) if straight else run.snapshots[k][:, st.IS_WEIGHT]
        ever |= changed(start, at)
    share = np.mean(ever & ~changed(start, end), axis=-1)
    return np.log(np.maximum(share, 1e-9) / 0.0002)


@C6.check(near(0.02), false={"the rule of the other base": {"other": True}, "half the change": {"factor": 0.5}})
def sizes_explain_the_level(rngs, *, other=False, factor=1.0):
    out, at = {}, st.IS_WEIGHT
    for method, grid in itertools.product(("RL", "OOD"), (False, True)):
        run = trained(of(rngs), Run(method=method, grid=grid))
        known = expected_sparsity(run.base.flat[:, at], factor * run.delta[:, at], on_grid=grid != other)
        out[f"{method}, {'on' if grid else 'off'} the grid"] = run.sparsity() - known
    return out


#: all positive finite bfloat16 numbers, and the next one of each
GRID = (np.arange(0x7F7F, dtype=np.uint32) << np.uint32(16)).view(np.float32).astype(float)
NEXT = (np.arange(1, 0x7F80, dtype=np.uint32) << np.uint32(16)).view(np.float32).astype(float)


@C6.check(
    Identity(1e-9), Space(sd=Floats(1e-3, 0.1, log=True)), batched=False, instances=20, examples=[{"sd": 0.02}],
    false={"below 2^-8": {"below": 2.0**-8}, "1e-4": {"absolute": 1e-4}, "a relative tolerance of .005": {"relative": 0.005}},
)  # fmt: skip
def hidden_by_the_tolerance(sd, *, below=2.0**-9, absolute=1e-5, relative=1e-3):
    """Cell by cell, over all numbers of bfloat16."""
    cells = 2 * (ndtr(NEXT / sd) - ndtr(GRID / sd))
    hidden = [cells @ ~changed(GRID, NEXT, **rule) for rule in ({"absolute": absolute}, {"relative": relative})]
    return {"absolute": (hidden[0], erf(below / sd / math.sqrt(2))), "relative": (hidden[1], 0.0, 1e-3)}


@C6.check(
    Identity(1e-12), Space(x=Drawn(st.floats_and_ties)), instances=50,
    false={"ties away from zero": {"ties": "away"}, "cut off": {"add": 0}},
)  # fmt: skip
def rounding_by_bits(x, *, ties="even", add=0x7FFF):
    """bfloat16 is (u + 0x7FFF + (u >> 16 & 1)) & 0xFFFF0000 of the bits of float32; the change that shows follows from it."""
    bits = np.asarray(x, dtype=np.float32).view(np.uint32)
    even = bits >> np.uint32(16) & np.uint32(1) if add else np.uint32(0)
    odd = even if ties == "even" else np.uint32(1)
    return rounded(x, "bfloat16"), ((bits + np.uint32(add) + odd) & np.uint32(0xFFFF0000)).view(np.float32)


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Masks of two runs overlap above chance, over seeds, data and algorithm

    RL on one half of the points, against RL on it with other batches and draws, RL on the other half, and DPO on the other half (wrong
    answer from the policy, uniform, or the policy's own failure): $o_1$ exceeds chance by more than .4; for
    seed and data it is .951 and .854 to .05. Nulls without task or data, with the norm of every matrix, do the same: a run against Gaussian
    entries has $o_1$ = .497; two updates of one size and random signs .713 off the grid and .998 on it, two of the sizes of two runs and
    random signs .690 and .934 (to .05), where two seeds of RL have .951 and .935: visibility depends on $|w|$, and on the grid steps of one size
    light the same small weights. What nulls lack is direction: cosines of float32 updates exceed .5 between runs, and are within .05 of 0 for nulls.

    where: Sec. 5, Table 4; the nulls are derived
    assumes: halves of 512 points; masks over the three weight matrices.
    """)  # fmt: skip


def mask_of(run):
    return run.visible[:, st.IS_WEIGHT]


def null_overlap(rngs, kind, grid, two=False):
    """Overlap of a run's mask with that of its null, or of the nulls of ``two`` runs; ``places``: with its own mask, shuffled."""
    run, other = (trained(of(rngs), r._replace(grid=grid)) for r in (st.FIRST, st.OTHERS["seed"]))
    if kind == "places":
        return overlap(mask_of(run), rngs[0].permuted(mask_of(run), axis=-1))
    start = run.base.flat[:, st.IS_WEIGHT].astype(float)
    first, second = (changed(start, start + st.null_of(r, kind, rngs[0])) for r in (run, other))
    return overlap(first, second) if two else overlap(mask_of(run), first)


def run_overlap(rngs, name, grid=False):
    return overlap(*(mask_of(trained(of(rngs), run._replace(grid=grid))) for run in (st.FIRST, st.OTHERS[name])))


@C7.check(Effect(seeds=NETS, null=0.4), false={"the same masks, shuffled": {"shuffled": True}})
def above_chance(rngs, *, shuffled=False):
    found = {name: null_overlap(rngs, "places", False) if shuffled else run_overlap(rngs, name) for name in st.OTHERS}
    return {name: o.first - o.first_chance for name, o in found.items()}


#: off the grid, on it
SEED, NULLS = (0.951, 0.935), {"gaussian": (0.497, None), "constant": (0.713, 0.998), "signs": (0.690, 0.934)}


@C7.check(near(0.05), false={"less chance": {"less": 1.0}})
def overlaps_of_runs(rngs, *, less=0.0):
    found = {"seed": (run_overlap(rngs, "seed"), SEED[0]), "seed, on the grid": (run_overlap(rngs, "seed", True), SEED[1]),
             "data": (run_overlap(rngs, "data"), 0.854)}  # fmt: skip
    return {name: o.first - less * o.first_chance - level for name, (o, level) in found.items()}


@C7.check(near(0.05), false={"off and on the grid exchanged": {"exchanged": True}})
def overlaps_of_nulls(rngs, *, exchanged=False):
    return {f"{kind}, {'on' if grid else 'off'} the grid": null_overlap(rngs, kind, grid != exchanged, kind != "gaussian").first - level
            for kind, levels in NULLS.items() for grid, level in enumerate(levels) if level}  # fmt: skip


def cosine(a, b):
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@C7.check(Effect(seeds=NETS, null=0.5), false={"the sizes of the one, random signs": {"null": "signs"}})
def runs_share_a_direction(rngs, *, null=None):
    """Cosine of float32 updates."""
    out = {}
    for name, grid in (("seed", False), ("data", False), ("algorithm", False), ("seed", True)):
        one, other = (trained(of(rngs), run._replace(grid=grid)) for run in (st.FIRST, st.OTHERS[name]))
        second = st.null_of(one, null, rngs[0]) if null else other.delta[:, st.IS_WEIGHT]
        out[f"{name}, {'on' if grid else 'off'} the grid"] = cosine(one.delta[:, st.IS_WEIGHT].astype(float), second)
    return out


@C7.check(near(0.05), false={"another seed of RL": {"kinds": ("run",)}})
def nulls_share_none(rngs, *, kinds=tuple(NULLS)):
    one, other = (trained(of(rngs), run) for run in (st.FIRST, st.OTHERS["seed"]))
    return {k: cosine(one.delta[:, st.IS_WEIGHT].astype(float), other.delta[:, st.IS_WEIGHT] if k == "run" else st.null_of(one, k, rngs[0]))
            for k in kinds}  # fmt: skip


C7_task = paper.claim("C7-task", r"""
    Overlap above chance shows that the task determines the subnetwork

    Updates without a task (Gaussian entries; entries of one size, or of the run's sizes, with random signs) overlap with a run's mask by
    chance: $o_1$ exceeds it by less than .1.

    where: read into Sec. 5, Table 4
    instead: They exceed it by more than .2, on the grid by more than .5: the chance level of uniform masks is no null for a visibility that depends
    on $|w|$. Masks at random places have it.
    by: C7/overlaps_of_nulls, C7-task/nulls_overlap_by_chance
    origin: as commonly read
    """)  # fmt: skip


# .281 ± .013 and more
@C7_task.check(
    Effect(seeds=NETS, alternative="less", null=0.1),
    true={"masks at random places": {"kinds": ("places",)},
          "more than .2 above it": Variant({}, kind=Effect(seeds=NETS, null=0.2)),
          "on the grid, more than .5": Variant({"grid": True, "kinds": ("constant", "signs")}, kind=Effect(seeds=NETS, null=0.5))},
)  # fmt: skip
def nulls_overlap_by_chance(rngs, *, kinds=tuple(NULLS), grid=False):
    found = {kind: null_overlap(rngs, kind, grid) for kind in kinds}
    return {kind: o.first - o.first_chance for kind, o in found.items()}
