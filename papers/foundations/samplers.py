"""T7 to T14: samplers of powers and tilts on token trees, exactly; annealing; accuracy along powers."""

from __future__ import annotations

import numpy as np
from scipy import integrate

from klsim.annealing import along_powers, annealed, schedule, schedule_cost
from klsim.claims import Effect, Identity, Inequality, Limit, Variant
from klsim.distributions import entropy, log_normalize
from klsim.divergences import chi2, tv
from klsim.power import future_sums, power_levels, suffix_chain, temper_levels
from klsim.problems.token_tree import conditionals, sequence_log_probs, visit_log_probs
from klsim.selection_rules import weighted_choice
from klsim.sequence_samplers import (
    exact_twists,
    power_weight,
    smc,
    suffix_metropolis,
    tree_law,
)
from klsim.spaces import Floats, Integers, Normals, Sizes, Space, TreeNormals, TreePolicies
from klsim.tree_smc import smc_law

from .collection import paper

TREES = {"levels": TreePolicies(), "twist": TreeNormals(), "V": Sizes(2, 2), "H": Sizes(1, 3)}


def sequences(levels):
    return np.asarray(sequence_log_probs(levels))


def log_z(log_p, log_w):
    """``log E_p[w]`` by the sum over all sequences."""
    inside = np.isfinite(log_p)
    return np.logaddexp.reduce(log_p[inside] + log_w[inside])


def target_of(log_p, log_w):
    return log_normalize(np.where(np.isfinite(log_p), log_p + log_w, -np.inf))


def prefix_powers(levels, alpha):
    """``log p(s)^(alpha-1)`` of prefixes of 1 … H tokens, 0 where p is 0."""
    return [(alpha - 1) * np.where(np.isneginf(v), 0.0, v) for v in map(np.asarray, visit_log_probs(levels)[1:])]


# T7 ------------------------------------------------------------------------------------------------
T7 = paper.claim("T7", r"""
    The normaliser of SMC is unbiased whatever the twist, and its law is exact on a tree

    $E[\hat Z]=Z$ for n particles, any twist $\psi_t$ with $\psi_H=w$ and any proposal. The law of what is returned follows multisets of particles: given
    their weights the next ones are independent draws from one law. With one particle it is the proposal.

    where: unbiased: Del Moral, Feynman-Kac Formulae (2004); the law derived
    """)  # fmt: skip


@T7.check(Identity(1e-10, scale=1), Space(**TREES, n=Integers(1, 2)), instances=15, batched=False,
          false={"a last twist that is not the weight": {"last": 0.5}})  # fmt: skip
def unbiased(levels, twist, n, *, last=1.0):
    psi = [level.ravel() for level in twist]
    found = smc_law(levels, [*psi[:-1], last * psi[-1]], n, proposal=temper_levels(levels, 0.5))
    return found.log_mean, log_z(sequences(levels), psi[-1])


# 20 runs of 2,000: the standard error of a mean frequency is below .0025, the control's distance .07 and more
@T7.check(Effect(seeds=20, alternative="within", null=0.0, margin=0.015), false={"one particle less": {"fewer": 1}})
def law_against_simulation(rng, *, fewer=0):
    """A tree of two tokens by three, the twist of prefix powers, alpha = 3."""
    levels = (
        np.log([[0.6, 0.4]]),
        np.log([[0.5, 0.5], [0.9, 0.1]]),
        np.log([[0.5, 0.5], [0.8, 0.2], [0.3, 0.7], [0.95, 0.05]]),
    )
    law = np.exp(smc_law(levels, prefix_powers(levels, 3.0), 2 - fewer).log_law)
    drawn = smc(tree_law(levels), power_weight(3.0), 3, 2, 2000, rng)
    places = np.bincount(drawn.tokens @ np.array([4, 2, 1]), minlength=8) / 2000
    return {f"sequence {y}": places[y] - law[y] for y in (0, 3, 6)}


# T8 ------------------------------------------------------------------------------------------------
T8 = paper.claim("T8", r"""
    With exact twists and the adapted proposal SMC has no error

    With $\psi_t(s)=E[w\mid s]$ and $q(a|s)\propto p(a|s)\psi_{t+1}(sa)$ every estimate of Z is Z and every sequence has the target's law, with one
    particle as with many. The proposal is the target's own next-token law.

    where: Zhao et al. (2024), arXiv 2404.17546; for powers it is power_levels
    """)  # fmt: skip


@T8.check(Identity(1e-9, scale=1), Space(**TREES, n=Integers(1, 3)), instances=15, batched=False,
          false={"adapted to half the twist": {"share": 0.5}, "drawn from p": {"own": True}})  # fmt: skip
def no_error(levels, twist, n, *, share=1.0, own=False):
    levels = tuple(log_normalize(np.maximum(level, -8.0)) for level in levels)
    log_p, log_w = sequences(levels), twist[-1].ravel()
    target = target_of(log_p, share * log_w)
    proposal = levels if own else conditionals(target, 2, len(levels))
    found = smc_law(levels, exact_twists(levels, log_w), n, proposal=proposal)
    return {
        "law": (np.exp(found.log_law), np.exp(target_of(log_p, log_w))),
        "log Z": (found.mean_log, log_z(log_p, log_w)),
    }


# T9 ------------------------------------------------------------------------------------------------
T9 = paper.claim("T9", r"""
    SMC is nearer to the power law than importance resampling with as many samples

    With n particles weighted by $p(s)^{\alpha-1}$ of their prefixes, the law of SMC is at most as far (total variation) from $p^\alpha$ as that of
    importance resampling with n sequences.

    where: folklore of particle methods for power sampling
    instead: Weights of prefixes are greedy: where the likelier prefix leads to the wider future SMC throws away the particles that matter before
    their weight shows. With exact twists and the adapted proposal SMC is exact (T8).
    by: T9-twists
    origin: folklore
    """)  # fmt: skip


def distance_of_smc(levels, alpha, n, twist):
    log_p = sequences(levels)
    log_w = (alpha - 1) * log_p
    target = target_of(log_p, log_w)
    if twist == "exact":
        found = smc_law(levels, exact_twists(levels, log_w), n, proposal=power_levels(levels, alpha)).log_law
    else:
        found = smc_law(levels, prefix_powers(levels, alpha), n).log_law
    return float(tv(log_normalize(found), target)), float(tv(weighted_choice(log_p, log_w, n), target))


def greedy_tree(share, certain):
    """The likelier first token leads to four even futures, the other to one of probability ``certain^2``."""
    even, sure = [np.log([0.5, 0.5])], [np.log([certain, 1 - certain])]
    return np.log([[1 - share, share]]), np.concatenate([sure, even]), np.concatenate([sure, sure, even, even])


POWERED = {"share": Floats(0.5, 0.9), "certain": Floats(0.5, 0.98), "alpha": Floats(1.0, 5.0), "n": Integers(2, 3)}


@T9.check(Inequality(1e-9, scale=1), Space(**POWERED), instances=12, batched=False, examples=[{"share": 0.6, "certain": 0.9, "alpha": 4.0, "n": 2}],
          true={"exact twists, adapted": {"twist": "exact"}})  # fmt: skip
def nearer(share, certain, alpha, n, *, twist="prefix"):
    return distance_of_smc(greedy_tree(share, certain), alpha, n, twist)


T9_twists = paper.claim("T9-twists", r"""
    What a twist is worth: the relative variance of the normaliser

    For importance resampling it is $\chi^2(\text{target}\Vert p)/n$. With exact twists and proposals from p it is $\frac1n\sum_t$ of the target's mean $\chi^2$
    of its next token from p's, up to $O(n^{-2})$: a sum over tokens where the $\chi^2$ of sequences is a product.

    where: asymptotic variance of SMC: Del Moral (2004); the tree's form derived
    """)  # fmt: skip


@T9_twists.check(Identity(1e-9, scale=1), Space(**TREES | {"H": Sizes(1, 2)}, n=Integers(1, 3)), instances=15, batched=False, false={"over n - 1": {"less": 0.5}})  # fmt: skip
def variance_of_importance(levels, twist, n, *, less=0.0):
    """SMC that is never twisted before the end is importance resampling of the last token's weight only where nothing is resampled: H = 1."""
    log_p, log_w = sequences(levels), twist[-1].ravel()
    found = smc_law((log_p[None],), [log_w], n)
    return found.relative_variance, float(chi2(target_of(log_p, log_w), log_p)) / (n - less)


@T9_twists.check(Limit(rate=-2.0, rate_tol=0.25), false={"the chi-squared of sequences": {"whole": True}})
def first_order_variance(*, whole=False):
    """Two tokens, alpha = 2, n from 3 to 13: what is left of the variance after its first-order part."""
    levels = (np.log([[0.6, 0.4]]), np.log([[0.7, 0.3], [0.2, 0.8]]))
    log_p = sequences(levels)
    target = target_of(log_p, log_p)
    own = conditionals(target, 2, 2)
    steps = float(chi2(own[0][0], levels[0][0]) + np.exp(own[0][0]) @ chi2(own[1], levels[1]))
    part = float(chi2(target, log_p)) if whole else steps
    sizes = np.array([3, 4, 6, 9, 13])
    left = [smc_law(levels, exact_twists(levels, log_p), int(n)).relative_variance - part / n for n in sizes]
    return sizes * 1.0, left


# T10 -----------------------------------------------------------------------------------------------
T10 = paper.claim("T10", r"""
    How fast suffix Metropolis mixes: the largest weight and the length

    The worst total variation after n steps is at most $(1-\frac1{Hw^*})^n$, $w^*=\max\frac{\text{target}}p$: once in H cuts all is drawn anew, and then
    each sequence is accepted with at least $1/w^*$ of its target.

    where: Mengersen and Tweedie (1996) for independence samplers; with cuts derived
    """)  # fmt: skip


@T10.check(Inequality(1e-11, scale=1), Space(levels=TreePolicies(), alpha=Floats(0.3, 6.0, log=True), steps=Integers(1, 40), V=Sizes(2, 3), H=Sizes(1, 3)), instances=25, batched=False,
           false={"without H": {"cuts": False}})  # fmt: skip
def mixing(levels, alpha, steps, *, cuts=True):
    levels = tuple(log_normalize(np.maximum(level, -8.0)) for level in levels)
    log_p, target = sequences(levels), sequences(power_levels(levels, alpha))
    chain = np.linalg.matrix_power(suffix_chain(levels, target), steps)
    away = 0.5 * np.abs(chain - np.exp(target)).sum(axis=1).max()
    return away, (1 - np.exp(-(target - log_p).max()) / (len(levels) if cuts else 1)) ** steps


# 20 runs of 2,000 chains: the standard error of a mean frequency is below .0025; the control moves .03 and more
@T10.check(
    Effect(seeds=20, alternative="within", null=0.0, margin=0.015), false={"after twice the steps": {"times": 2}}
)
def chain_against_simulation(rng, *, times=1):
    """The sampler after three steps from p, against the exact matrix."""
    levels = (np.log([[0.6, 0.4]]), np.log([[0.5, 0.5], [0.9, 0.1]]))
    log_p = sequences(levels)
    law = np.exp(log_p) @ np.linalg.matrix_power(suffix_chain(levels, 4 * log_p), 3 * times)
    drawn = suffix_metropolis(tree_law(levels), power_weight(4.0), 2, 3, 2000, rng)
    places = np.bincount(drawn.tokens @ np.array([2, 1]), minlength=4) / 2000
    return {f"sequence {y}": places[y] - law[y] for y in range(3)}


# T11 -----------------------------------------------------------------------------------------------
T11 = paper.claim("T11", r"""
    Annealed importance sampling of powers: unbiased whatever the chain, and weighted it has the right law

    From p along $1=\alpha_0,\dots,\alpha_K$, weights $p^{\alpha_k-\alpha_{k-1}}$ before the steps at $\alpha_k$: the mean weight is $Z_{\alpha_K}$, and weighted outcomes have
    the law $p^{\alpha_K}/Z$, for any schedule and number of steps.

    where: Neal (2001), Statistics and Computing 11
    """)  # fmt: skip
COOLED = {"levels": TreePolicies(), "alpha": Floats(0.2, 6.0, log=True), "steps": Integers(1, 5), "sweeps": Integers(0, 2), "V": Sizes(2, 3), "H": Sizes(1, 3)}  # fmt: skip


@T11.check(Identity(1e-9, scale=1), Space(**COOLED), instances=15, batched=False, false={"towards alpha - 1": {"less": 1.0}, "without the weights": {"weighted": False}})  # fmt: skip
def weighted_law(levels, alpha, steps, sweeps, *, less=0.0, weighted=True):
    found = annealed(levels, schedule(sequences(levels), alpha, steps), sweeps)
    whole = sequences(power_levels(levels, alpha))
    return {
        "law": (np.exp(found.log_weighted if weighted else found.log_law), np.exp(whole)),
        "log Z": (found.log_mean, future_sums(levels, max(alpha - less, 0.0))[0][0]),
    }


@T11.check(Identity(1e-8, scale=1), Space(**COOLED), instances=15, batched=False, false={"at alpha": {"twice": 1.0}})  # fmt: skip
def variance_without_steps(levels, alpha, steps, sweeps, *, twice=2.0):
    """No steps of a chain: one weight p^(alpha-1), whose second moment is Z at 2 alpha - 1."""
    levels = tuple(log_normalize(np.maximum(level, -8.0)) for level in levels)
    log_p = sequences(levels)
    found = annealed(levels, schedule(log_p, alpha, steps), 0)
    second = np.logaddexp.reduce(log_p + twice * (alpha - 1) * log_p)
    return np.log1p(found.relative_variance), second - twice * np.logaddexp.reduce(alpha * log_p)


# T12 -----------------------------------------------------------------------------------------------
T12 = paper.claim("T12", r"""
    The best schedule of powers has equal lengths, not equal steps

    With K steps $\sum_k\mathrm{KL}(p_{\alpha_{k-1}}\Vert p_{\alpha_k})=\frac{L^2}{2K}+O(K^{-2})$ for steps of equal $\int\sqrt{\mathrm{Var}_\alpha(\log p)}d\alpha$, $L$ the whole length; equal
    steps in $\alpha$ have $\frac{\alpha-1}{2K}\int\mathrm{Var}_\alpha(\log p)d\alpha$, which is more (Cauchy-Schwarz).

    where: Gelman and Meng (1998); for powers derived
    """)  # fmt: skip
EXAMPLE = log_normalize(np.array([0.0, 0.7, 1.5, -1.0, -2.5, 0.3]))


def along(what, alpha):
    """The integral over powers by Simpson's rule, 2,001 nodes."""
    powers = np.linspace(1.0, alpha, 2001)
    return float(integrate.simpson(what(along_powers(EXAMPLE, powers).variance), x=powers))


@T12.check(Limit(rate=-1.0, rate_tol=0.15), false={"equal steps": {"kind": "linear"}})
def length_of_the_path(*, kind="equal length", alpha=6.0):
    """K times the cost, less half the squared length."""
    sizes = 2 ** np.arange(3, 10)
    half = 0.5 * along(np.sqrt, alpha) ** 2
    return sizes * 1.0, [k * schedule_cost(EXAMPLE, schedule(EXAMPLE, alpha, int(k), kind)) - half for k in sizes]


@T12.check(Limit(rate=-1.0, rate_tol=0.15), false={"equal lengths": {"kind": "equal length"}})
def cost_of_equal_steps(*, kind="linear", alpha=6.0):
    sizes = 2 ** np.arange(3, 10)
    half = 0.5 * (alpha - 1) * along(lambda v: v, alpha)
    return sizes * 1.0, [k * schedule_cost(EXAMPLE, schedule(EXAMPLE, alpha, int(k), kind)) - half for k in sizes]


# T13 -----------------------------------------------------------------------------------------------
T13 = paper.claim("T13", r"""
    Annealing brings a chain nearer to the target than as many steps at the target

    From p, K steps of suffix Metropolis at powers that rise to $\alpha$ end nearer to $p^\alpha$ than K steps at $\alpha$.

    where: folklore of simulated annealing, of schedules of temperature
    instead: Only the last step aims at $p^\alpha$. The cuts reach all sequences at any power, so nothing has to be melted; K steps at $\alpha$
    never move away from $p^\alpha$, and the schedule wins only where the target traps the chain.
    by: T13-never
    origin: folklore
    """)  # fmt: skip
CHAINED = {"levels": TreeNormals(), "alpha": Floats(1.0, 6.0), "steps": Integers(2, 12), "V": Sizes(2, 3), "H": Sizes(1, 3)}  # fmt: skip


def after(levels, alpha, powers):
    law, log_p = np.exp(sequences(levels)), sequences(levels)
    for a in powers:
        law = law @ suffix_chain(levels, a * log_p)
    return float(0.5 * np.abs(law - np.exp(sequences(power_levels(levels, alpha)))).sum())


@T13.check(Inequality(1e-9, scale=1), Space(**CHAINED), instances=12, batched=False,
           true={"than no step at all": {"none": True}})  # fmt: skip
def annealing_helps(levels, alpha, steps, *, none=False):
    levels = tuple(map(log_normalize, levels))
    powers = schedule(sequences(levels), alpha, steps)[1:]
    return after(levels, alpha, powers), after(levels, alpha, [] if none else [alpha] * steps)


T13_never = paper.claim("T13-never", r"""
    Steps at the target never lead away from it

    Every step of a chain that leaves $p^\alpha$ as it is lowers the total variation from it, or keeps it; a step at another power may raise it.

    where: data processing
    """)  # fmt: skip


@T13_never.check(Inequality(1e-11, scale=1), Space(**CHAINED), instances=12, batched=False, false={"a step at 1": {"power": 1.0}})  # fmt: skip
def never_away(levels, alpha, steps, *, power=None):
    levels = tuple(map(log_normalize, levels))
    own = alpha if power is None else power
    return after(levels, alpha, [alpha] * (steps - 1) + [own]), after(levels, alpha, [alpha] * (steps - 1))


# T14 -----------------------------------------------------------------------------------------------
T14 = paper.claim("T14", r"""
    Sharpening trades pass@k for pass@1 between prompts, never on one

    On one prompt pass@k $=1-(1-p)^k$ rises and falls with pass@1 for every k and power. Over prompts their means may part: large k count the prompts
    where the model is confidently wrong, and there sharpening lowers both.

    where: derived
    """)  # fmt: skip
GRADED = {"log_p": Normals("A").map(log_normalize), "right": Normals("A"), "alpha": Floats(1.0, 4.0), "k": Integers(2, 64), "A": Sizes(2, 6)}  # fmt: skip


def passes(log_p, right, alpha, k):
    """pass@1 and pass@k at powers 1 and alpha."""
    p = np.clip(along_powers(log_p, [1.0, alpha], right >= np.median(right)).accuracy, 0.0, 1.0)
    return p, 1 - (1 - p) ** k


@T14.check(Inequality(1e-11, scale=1), Space(**GRADED), instances=25, batched=False, false={"means over two prompts": Variant({"prompts": 2}, instances=200)})  # fmt: skip
def together(log_p, right, alpha, k, *, prompts=1):
    """The changes have one sign; the second prompt of the control has the law in the other order."""
    found = [passes(law, right, alpha, k) for law in (log_p, log_p[::-1])[:prompts]]
    one, several = (np.diff(np.mean([f[i] for f in found], axis=0))[0] for i in (0, 1))
    return 0.0, np.sign(one) * several


T14_slope = paper.claim("T14-slope", r"""
    Entropy, likelihood and accuracy along powers, with their slopes

    $dm/d\alpha=\mathrm{Var}_\alpha(\log p)$, $dH/d\alpha=-\alpha\mathrm{Var}_\alpha$, $dP_\alpha(right)/d\alpha=\mathrm{Cov}_\alpha$; pass@k's slope is $k(1-p)^{k-1}$ times that.

    where: exponential families
    """)  # fmt: skip


# central differences of step 1e-4: errors of 1e-8 times third derivatives, below 1e3 here, times k
@T14_slope.check(Identity(1e-5, scale=1), Space(**GRADED), instances=20, batched=False, false={"of pass@(k+1)": {"more": 1}})  # fmt: skip
def slopes(log_p, right, alpha, k, *, more=0, step=1e-4):
    good = right >= np.median(right)
    curve = along_powers(log_p, [alpha - step, alpha, alpha + step], good)
    laws = [log_normalize(a * log_p) for a in curve.alpha]
    p, size = curve.accuracy[1], k + more
    return {
        "pass@k": (((1 - curve.accuracy[0]) ** k - (1 - curve.accuracy[2]) ** k) / (2 * step) / k,
                   size / k * (1 - p) ** (size - 1) * curve.accuracy_slope[1]),
        "entropy": ((entropy(laws[2]) - entropy(laws[0])) / (2 * step), -alpha * curve.variance[1]),
        "likelihood": ((curve.log_likelihood[2] - curve.log_likelihood[0]) / (2 * step), curve.variance[1]),
        "log Z": ((curve.log_z[2] - curve.log_z[0]) / (2 * step), np.exp(laws[1]) @ log_p),
        "entropy itself": (curve.entropy[1], entropy(laws[1])),
    }  # fmt: skip
