r"""Claims of "Harnessing Density Ratios for Online Reinforcement Learning" (GLOW).

Layered MDPs with H steps (0-based here), returns in [0, 1]; ``d^pi_h(s, a)`` occupancies, ``C`` coverability, ``dtilde^t`` the sum of the
laws before round t, ``dbar^t = dtilde^t/(t-1)``, ``u_t = d^t/dtilde^t``, gamma the clipping level. Where the base of a ratio is 0 there are no
samples: weights are 0, ratios infinite.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linprog

from klsim.claims import Effect, Identity, Inequality, Limit, Paper
from klsim.density_ratios import (
    clipped_concentrability,
    clipped_ratio,
    clipping_bias,
    clipping_loss,
    truncation_bounds,
    truncation_sums,
)
from klsim.planning import evaluate, occupancy, qvi_iterates
from klsim.planning.bellman_errors import bellman_errors, squared_td_loss, target_variance, weighted_bellman_loss
from klsim.planning.coverability import class_coverability, concentrability, coverability, reach_probabilities
from klsim.problems import TabularMDP
from klsim.spaces import Drawn, Floats, Normals, Policies, Sizes, Space, TabularMDPs

from .setting import (
    Blocks,
    Cover,
    Laws,
    Lock,
    Mixed,
    Played,
    Sampled,
    Set,
    Table,
    all_laws,
    all_policies,
    coin,
    dense_mdp,
    determined,
    deterministic,
    first_good,
    indicators,
    optimum,
)

paper = Paper(
    "glow",
    title="Harnessing Density Ratios for Online Reinforcement Learning",
    authors="Philip Amortila, Dylan J. Foster, Nan Jiang, Ayush Sekhari, Tengyang Xie",
    year=2024,
    arxiv="2401.09681",
)


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    Coverability: the identity, its exact computation, and what it does not depend on

    $$C_{cov}=\inf_{\mu}\max_h\sup_\pi\|d^\pi_h/\mu_h\|_\infty=\max_h\sum_{s,a}\sup_\pi d^\pi_h(s,a),$$ attained by
    $\mu_h\propto\sup_\pi d^\pi_h$. For all policies it is $A\max_h\sum_s\sup_\pi P^\pi(s_h=s)$, so $A\le C_{cov}\le SA$; for a block MDP it
    is that of the latent MDP, whatever the number of observations. The uniform $\mu_h$ and the average occupancy cover worse by more than
    .05 in the mean over random dense problems ($S=3$, $A=2$, $H=3$), though not everywhere.

    where: Lemma of Xie et al. 2023 quoted in the paper; the form with A and the equality for blocks are derived
    assumes: Finite layered MDP; all policies (the class itself for the first identity); emissions that depend on the latent state alone.
    """)  # fmt: skip


def by_programming(laws):
    """``min sum nu`` with ``nu >= d^pi`` for every policy, one linear programme a step (policies that agree up to it give one constraint)."""
    found = []
    for step in np.moveaxis(laws, 1, 0).reshape(laws.shape[1], len(laws), -1):
        rows = np.unique(step, axis=0)
        floors = np.tile(-np.eye(rows.shape[1]), (len(rows), 1))
        found.append(linprog(np.ones(rows.shape[1]), A_ub=floors, b_ub=-rows.ravel()).fun)
    return found


@C1.check(
    Identity(1e-8), Space(problem=Drawn(dense_mdp)), instances=8,
    false={"over policies that ignore the step": {"stationary": True}, "the average over the steps": {"over": np.mean}},
)  # fmt: skip
def by_enumeration_and_programming(problem, *, stationary=False, over=np.max):
    laws, found = all_laws(problem), coverability(problem)
    if stationary:
        policies = all_policies()
        laws = laws[np.all(policies == policies[:, :1], axis=(1, 2))]
    return {
        "sum of suprema": (found.value, over(laws.max(axis=0).sum(axis=(1, 2)))),
        "the class itself": (found.layers.max(), over(class_coverability(laws).layers)),
        "linear programme": (found.value, over(by_programming(laws))),
        "with the factor A": (found.value, 2 * over(laws.sum(axis=-1).max(axis=0).sum(axis=-1))),
        "reachability": (reach_probabilities(problem), laws.sum(axis=-1).max(axis=0)),
    }


@C1.check(
    Identity(1e-10), Space(problem=Drawn(dense_mdp)), instances=20,
    false={"by the average occupancy": {"cover": "average"}, "by the uniform law": {"cover": "uniform"}},
)  # fmt: skip
def attained(problem, *, cover="best"):
    laws, found = all_laws(problem), coverability(problem)
    mu = {"best": found.covering, "average": laws.mean(axis=0), "uniform": np.full(laws.shape[1:], 1 / 6)}[cover]
    return concentrability(laws, mu), found.layers


@C1.check(
    Inequality(1e-10), Space(drawn=Drawn(Cover.draw)), instances=60,
    false={"two percent more": {"factor": 1.02}},
)  # fmt: skip
def no_law_covers_better(drawn, *, factor=1.0):
    return factor * coverability(drawn.problem).layers, concentrability(all_laws(drawn.problem), drawn.mu)


# the excess has a deviation of .1 to .2 about .7 (uniform) and .4 (average)
@C1.check(Effect(seeds=40), false={"where actions change nothing": {"ignored": True}})
def others_cover_worse(rng, *, ignored=False):
    problem = dense_mdp(rng)
    if ignored:
        moves = np.repeat(problem.transition[:, :, :1], 2, axis=2)
        problem = TabularMDP(moves, problem.reward, problem.initial, 3)
    laws, value = all_laws(problem), coverability(problem).value
    excess = {n: concentrability(laws, mu).max() - value for n, mu in (
        ("uniform", np.full(laws.shape[1:], 1 / 6)), ("average", laws.mean(axis=0)))}  # fmt: skip
    return {name: found - 0.05 for name, found in excess.items()}


@C1.check(
    Inequality(1e-12),
    Space(problem=TabularMDPs(), S=Sizes(1, 6), A=Sizes(1, 4), H=Sizes(1, 5)),
    instances=60,
    false={"at most S": {"most": "S"}, "at least S": {"least": "S"}},
)
def between(problem, S, A, *, least="A", most="S A"):
    value, sizes = coverability(problem).value, {"A": A, "S": S, "S A": S * A}
    return {"at least": (sizes[least], value), "at most": (value, sizes[most])}


@C1.check(
    Identity(1e-10), Space(drawn=Drawn(Blocks.draw)), instances=20,
    false={"emissions that depend on the last action": {"by_action": True}},
)  # fmt: skip
def of_a_block_mdp(drawn, *, by_action=False):
    return coverability(drawn.observed(by_action=by_action)).layers, coverability(drawn.latent).layers


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    Truncation lemma: what clipping loses, and what it leaves, sums to C log T

    For laws $d^1,\dots,d^T$ with coverability C and every $\gamma>0$:
    $$\text{(i)}\ \sum_{t\le T}P_{d^t}[u_t>\gamma]\le2C\Big(1+\frac{\log T}\gamma\Big),\qquad
    \text{(ii)}\ \sum_{t\ge2}\sum_{s,a}\tilde d^t\min(u_t,\gamma)^2\le2C(\log T+\gamma).$$ With $w_t=d^t/\bar d^t$ clipped at $\gamma t$ (i) holds
    as it stands and (ii), which is then $\sum_tE_{\bar d^t}[\mathrm{clip}(w_t)^2]/(t-1)$, with $2\gamma$ for $\gamma$. The logarithm is needed:
    for one policy, repeated, and $\gamma\ge1$ (ii) is $\log T+.5772+O(1/T)$. Without truncation there is no such bound: $d^1=(1-e,e)$,
    $d^2=(0,1)$ give $1/e$.

    where: lemmas on truncated ratios in the analysis; the constants are derived
    assumes: $d^t\le C\mu^*$ for some law: occupancies of one MDP, or any sequence with $C=\sum\max_td^t$.
    """)  # fmt: skip


def in_the_papers_scaling(laws, gamma):
    """Level of ``u_t`` for ``w_t`` clipped at ``gamma t``; the first round has no past, so any level will do."""
    t = np.arange(2, laws.shape[-2] + 1)
    return np.concatenate([[gamma], gamma * t / (t - 1)])


@C2.check(
    Inequality(1e-12), Space(drawn=Drawn(Played.draw)), instances=20,
    false={"(ii) without truncation": {"cut": False}, "without the factor C": {"covered": False}},
)  # fmt: skip
def policies_of_one_mdp(drawn, *, cut=True, covered=True):
    laws, gamma, found = drawn.layers(), drawn.gamma, coverability(drawn.problem)
    sums, scaled = truncation_sums(laws, gamma), truncation_sums(laws, in_the_papers_scaling(laws, gamma))
    moment = (sums if cut else truncation_sums(laws, 1e6)).second_moment.sum(axis=1)
    out = {}
    for name, values in (("", [found.value] * 3), ("the step's own C", found.layers)):
        bounds = [truncation_bounds(c if covered else 1.0, laws.shape[1], gamma) for c in values]
        out |= {
            f"(i) {name}": (sums.lost.sum(axis=1), [b[0] for b in bounds]),
            f"(ii) {name}": (moment, [b[1] for b in bounds]),
        }
    lost, doubled = (truncation_bounds(found.value, laws.shape[1], x * gamma)[i] for i, x in enumerate((1, 2)))
    out["(i) scaled"] = (scaled.lost.sum(axis=1), np.full(3, lost))
    out["(ii) scaled"] = (scaled.second_moment.sum(axis=1), np.full(3, doubled))
    return out


#: (i) at 59 % of its bound, (ii) at 43 % and 37 %, and the two rounds of the statement
TIGHT = [
    {"drawn": Laws(np.array(laws, dtype=float), gamma)}
    for laws, gamma in (
        ([[1], [1]], 0.999), (np.ones((12, 1)), 1.0), (np.vstack([[0.97, 0.01, 0.01, 0.01], np.eye(4)[1:]]), 100.0),
        ([[0.99, 0.01], [0, 1]], 100.0),
    )
]  # fmt: skip


@C2.check(
    Inequality(1e-12), Space(drawn=Drawn(Laws.draw)), examples=TIGHT, instances=150,
    false={"(i) with half the constant": {"first": 1.0}, "(ii) with a third of the constant": {"second": 2 / 3},
           "(i) without the burn-in": {"burn_in": 0}, "(ii) without gamma": {"edge": 0}, "(ii) without log T": {"log": 0}},
)  # fmt: skip
def any_sequence(drawn, *, first=2.0, second=2.0, burn_in=1, edge=1, log=1):
    """The bounds written out, and the library's."""
    laws, gamma = drawn
    c, log_t, sums = drawn.coverability, math.log(len(laws)), truncation_sums(laws, gamma)
    lost, moment = truncation_bounds(c, len(laws), gamma)
    return {
        "(i)": (sums.lost.sum(), first * c * (burn_in + log_t / gamma)),
        "(ii)": (sums.second_moment.sum(), second * c * (log * log_t + edge * gamma)),
        "as in the library, from above": (2 * c * (1 + log_t / gamma), lost, lost),
        "from below": (lost, 2 * c * (1 + log_t / gamma), lost),
        "(ii), from above": (2 * c * (log_t + gamma), moment, moment),
        "(ii), from below": (moment, 2 * c * (log_t + gamma), moment),
    }


@C2.check(
    Identity(1e-10, scale=1e-3), Space(drawn=Drawn(Laws.draw)), instances=100, examples=[{"drawn": Laws(np.ones((3, 1)), 0.5)}],
    false={"clipped at gamma (t - 1)": {"shift": 1}, "divided by t": {"less": 0}, "a clipped point counts in full": {"at_level": 1}},
)  # fmt: skip
def by_the_definitions(drawn, *, shift=0, less=1, at_level=0):
    """Rounds one by one, with normalised ratios; a point is lost if its ratio is strictly above the level."""
    laws, gamma = drawn
    found, lost, moments = truncation_sums(laws, in_the_papers_scaling(laws, gamma)), [1.0], [0.0]
    for t in range(2, len(laws) + 1):
        average, level = laws[: t - 1].mean(axis=0), gamma * (t - shift)
        pairs = [(d, b) for d, b in zip(laws[t - 1], average) if d > 0]
        lost.append(sum(d for d, b in pairs if b == 0 or d / b > level))
        capped = [(b, min(d / b, level) + at_level * (d / b > level)) for d, b in pairs if b > 0]
        moments.append(sum(b * w**2 for b, w in capped) / (t - less))
    return {"(i)": (found.lost, lost), "(ii)": (found.second_moment, moments)}


@C2.check(
    Limit(rate=-1.0, rate_tol=0.1), false={"half of log T": {"factor": 0.5}, "without Euler's constant": {"euler": 0.0}},
)  # fmt: skip
def one_policy_repeated(*, factor=1.0, euler=np.euler_gamma):
    rounds = 100 * 2 ** np.arange(8)
    sums = [truncation_sums(np.ones((t, 1)), 1.0).second_moment.sum() for t in rounds]
    return rounds, np.array(sums) - factor * np.log(rounds) - euler


@C2.check(
    Identity(1e-12), Space(e=Floats(1e-4, 0.4, log=True)), batched=False, instances=50,
    false={"it is truncated at 1": {"level": 1.0}},
)  # fmt: skip
def without_truncation(e, *, level=np.inf):
    laws = np.array([[1 - e, e], [0.0, 1.0]])
    return {
        "C": (Laws(laws, 1.0).coverability, 2 - e),
        "sum": (truncation_sums(laws, level).second_moment.sum(), 1 / e),
    }


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    Change of measure with a clipped ratio, and exactly what clipping loses

    For $|g|\le1$, $c>0$, $w=\min(d/\bar d,c)$ (0 where $\bar d=0$):
    $$E_d[g]\le E_{\bar d}[gw]+P_d[d/\bar d>c]\le\sqrt{E_{\bar d}[g^2]E_{\bar d}[w^2]}+P_d[d/\bar d>c].$$ The first step misses
    $E_d[g]-E_{\bar d}[gw]=\sum_xg\,(d-c\bar d)^+$, and its slack is $\sum_{clipped}[(1-g)d+gc\bar d]$: none iff $g=1$ and $\bar d=0$ on
    clipped points.

    where: change-of-measure step of the analysis; the slack is derived
    """)  # fmt: skip
LAW = Policies("n", zero_support=True).map(np.exp)
PAIR = Space(
    d=LAW, base=LAW, c=Floats(0.05, 20.0, log=True), g=Normals("n").map(lambda x: np.clip(x, -1, 1)), n=Sizes(1, 8)
)


@C3.check(
    Identity(1e-12, scale=1), PAIR, instances=800,
    false={"d - c instead of d - c base": {"times": "one"}, "points without a base forgotten": {"holes": False},
           "tight wherever g = 1": {"clipped": 0}, "tight wherever the base is 0": {"ones": 0}},
)  # fmt: skip
def exact_gap_and_slack(d, base, c, g, *, times="base", holes=True, clipped=1, ones=1):
    """Against the sums over points written out."""
    w, level = clipped_ratio(d, base, c), c[..., None]
    above = np.maximum(d - level * (base if times == "base" else 1.0), 0.0) * (1 if holes else base > 0)
    difference = np.sum(g * d, axis=-1) - np.sum(base * g * w, axis=-1)
    terms = np.where(d > level * base, ones * (1 - g) * d + clipped * g * level * base, 0.0)
    return {
        "written out": (difference, np.sum(g * above, axis=-1)),
        "library": (clipping_bias(d, base, c, g), np.sum(g * above, axis=-1)),
        "slack": (clipping_loss(d, base, c) - difference, np.sum(terms, axis=-1)),
    }


@C3.check(
    Inequality(1e-12, scale=1), PAIR, instances=800,
    examples=[{"d": np.array([0.2, 0.8]), "base": np.array([0.9, 0.1]), "c": 20.0, "g": np.array([0.0, 1.0])}],
    false={"without the clipped mass": {"lost": 0}, "with half of it": {"lost": 0.5}, "its mass under the base": {"under": "base"},
           "the second step with weights of power 1": {"power": 1}},
)  # fmt: skip
def both_steps(d, base, c, g, *, lost=1, under="d", power=2):
    w, clipped = clipped_ratio(d, base, c), clipping_loss(d, base, c)
    if under == "base":
        clipped = np.sum(np.where(d > c[..., None] * base, base, 0.0), axis=-1)
    middle = np.sum(base * g * w, axis=-1) + lost * clipped
    upper = np.sqrt(np.sum(base * g**2, axis=-1) * np.sum(base * w**power, axis=-1)) + lost * clipped
    return {"first step": (np.sum(g * d, axis=-1), middle), "second step": (middle, upper)}


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    Optimistic regret decomposition

    For any $f$ and its greedy policy $E_\mu[\max_af_1]-J(\pi_f)=\sum_hE_{d_h^{\pi_f}}[f_h-\mathcal T_hf_{h+1}]$. If
    $J^*\le E_\mu[\max_af_1]$, as when $f$ is the most optimistic of a set that holds $Q^*$, the regret is at most that sum.

    where: decomposition used in the proof (Jiang et al. 2017)
    assumes: $\pi_f$ greedy for $f$ at every layer; $f_{H+1}=0$.
    """)  # fmt: skip
ANY_F = Space(
    problem=TabularMDPs(),
    f=Normals("H", "S", "A"),
    other=Normals("H", "S", "A"),
    S=Sizes(1, 5),
    A=Sizes(1, 4),
    H=Sizes(1, 5),
)


def on_policy_errors(problem, f, log_policy):
    return np.sum(occupancy(problem, log_policy) * bellman_errors(problem, f))


@C4.check(
    Identity(1e-12, scale=1), ANY_F, instances=50,
    false={"another deterministic policy": {"greedy": False}, "errors under another policy": {"mixed": True}},
)  # fmt: skip
def decomposition(problem, f, other, *, greedy=True, mixed=False):
    pi, alternative = (deterministic(x.argmax(axis=-1), x.shape[-1]) for x in (f, other))
    pi = pi if greedy else alternative
    claimed = problem.initial @ f[0].max(axis=-1)
    return claimed - evaluate(problem, pi).value, on_policy_errors(problem, f, alternative if mixed else pi)


@C4.check(
    Inequality(1e-12, scale=1), ANY_F, instances=40,
    false={"of a pessimistic f": {"sign": -1}, "half of it": {"factor": 0.5}},
)  # fmt: skip
def regret_of_an_optimistic_f(problem, f, other, *, sign=1, factor=1.0):
    """f above Q* at the first step; below, anything."""
    best = qvi_iterates(problem, problem.horizon)[-1]
    guess = np.concatenate([best[:1] + sign * np.abs(f[:1]), other[1:]])
    pi = deterministic(guess.argmax(axis=-1), guess.shape[-1])
    return problem.initial @ best[0].max(axis=-1) - evaluate(problem, pi).value, factor * on_policy_errors(
        problem, guess, pi
    )


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    Weighted Bellman residuals need neither double sampling nor completeness

    With one successor a pair $E[w(s,a)(f-r-\max f(s'))]=E[w(f-\mathcal Tf)]$, whereas
    $E[(f-r-\max f(s'))^2]=E[(f-\mathcal Tf)^2]+E[\mathrm{Var}(r+\max_{a'}f(s',a'))]$. Where a state leads to 1 or 2 with probability 1/2, rewards
    1 and 0, one action, $Q^*=(.5;1,0)$ and $f=(.3;.8,.2)$: weighted losses with indicators 0 and .2 + .1 (with all $|w|\le1$: .2 + .2, with
    $w=1$ alone .2 + 0), squared losses .25 and .17.

    where: motivation of density ratios, introduction; the example is derived
    assumes: Weights are functions of (s, a).
    """)  # fmt: skip


@C5.check(
    Identity(1e-12, scale=1), Space(drawn=Drawn(Sampled.draw)), instances=40,
    false={"weights that see the successor": {"seen": True}},
)  # fmt: skip
def one_sample_is_enough(drawn, *, seen=False):
    weights = drawn.weights if seen else drawn.weights.mean(axis=-1, keepdims=True) + 0 * drawn.weights
    sampled = sum(chance * weights[(*pair, after)] * x for chance, pair, after, x in drawn.samples())
    return sampled, np.sum(drawn.law * weights.mean(axis=-1) * bellman_errors(drawn.problem, drawn.f))


@C5.check(
    Identity(1e-12, scale=1), Space(drawn=Drawn(Sampled.draw)), instances=40,
    false={"the squared error alone": {"variance": 0}, "without the noise of the reward": {"reward": 0}},
)  # fmt: skip
def a_square_needs_two(drawn, *, variance=1, reward=1):
    problem, law, _, f, noise = drawn
    sampled = sum(chance * x**2 for chance, _, _, x in drawn.samples())
    terms = bellman_errors(problem, f) ** 2 + variance * (target_variance(problem, f) + reward * noise**2)
    loss = squared_td_loss(problem, f, law) + variance * reward * noise**2 * law.sum()
    return {"terms": (sampled, np.sum(law * terms)), "library": (sampled, loss if variance else np.sum(law * terms))}


@C5.check(
    Identity(1e-12), false={"its first layer alone": {"layers": slice(0, 1)}, "weights of 1 alone": {"constant": True}}
)
def losses_of_the_example(*, layers=slice(None), constant=False):
    problem, f, law = coin()
    ones, signs = (
        np.ones((1, 2, 3, 1)),
        np.array([[[1], [1], [-1]], [[1], [1], [1]]], dtype=float)[:, None].repeat(2, axis=1),
    )
    one_hot = ones if constant else indicators(problem)
    law = law * np.isin(np.arange(2), np.arange(2)[layers])[:, None, None]
    return {
        "indicators": (weighted_bellman_loss(problem, f, law, one_hot), [0.0, 0.3]),
        "all |w| <= 1": (weighted_bellman_loss(problem, f, law, signs), [0.0, 0.4]),
        "w = 1": (weighted_bellman_loss(problem, f, law, ones), [0.0, 0.2]),
        "squared": (squared_td_loss(problem, f, law), [0.25, 0.17]),
    }


C5_squared = paper.claim("C5-squared", r"""
    The squared TD error is smallest at Q*

    "Fit Q by minimising $E[(f(s,a)-r-\max_{a'}f(s',a'))^2]$ over a class that contains $Q^*$": no $f$ has a smaller loss than $Q^*$.

    where: the regression that weighted residuals replace
    instead: $Q^*$ pays the variance of its own targets, and an $f$ with flatter targets is preferred (the example of C5: .17 against .25).
    The weighted loss is 0 at $Q^*$; the squared one is smallest there if transitions are deterministic.
    by: C5
    origin: folklore
    """)  # fmt: skip


@C5_squared.check(
    Inequality(1e-12, scale=1e-3), Space(drawn=Drawn(Sampled.draw), share=Floats(0.0, 1.0)), instances=25,
    true={"the weighted loss": {"loss": "weighted"}, "on deterministic transitions": {"certain": True}},
)  # fmt: skip
def no_candidate_is_preferred(drawn, share, *, loss="squared", certain=False):
    """Candidates between Q* and its average over pairs at every step, with some noise."""
    problem = determined(drawn.problem) if certain else drawn.problem
    best = qvi_iterates(problem, 3)[-1]
    other = (1 - share) * best + share * best.mean(axis=(1, 2), keepdims=True) + 0.01 * drawn.f
    if loss == "weighted":
        found = weighted_bellman_loss(problem, np.stack([best, other]), drawn.law, indicators(problem))
    else:
        found = squared_td_loss(problem, np.stack([best, other]), drawn.law)
    return found[0], found[1]


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    GLOW finds the key of a combination lock, whatever the number of observations

    Lock of three steps and three actions (slip .1, rewards Bernoulli .9 or .1; $J^*=.748$, $C_{cov}=5.7$), each latent state with m
    observations; F holds "no key" (constant .1) and the 27 keys, W the ratios $\pm d^\pi/\bar d^t$. With $T=100$, $K=8$,
    $\gamma=\sqrt{C_{cov}/T}$, $\alpha_t=.3/(\gamma t)$, $\beta=.3\gamma$: the gap of the last 30 rounds is below .01, the average policy's below
    .06, $Q^*$ stays in the set in over 99 % of rounds, and the first optimal round is among the first 8 in the mean; also for $m=20$, since F and
    W depend on the latent state only. R-max on observations needs over eight times the rounds for $m=20$ as for $m=1$. Without the penalty
    ($\alpha=0$), on keys that do not begin with 0, the clip leaves less than half of the late gap that is there without it.

    where: main theorem on GLOW, scaled down; its rate and constants, and the theorem with pairwise ratios, are not checked
    assumes: $Q^*\in F$; $d^\pi/\bar d^t\in W$ (from the true model); a key that is not 000; widths calibrated for $K=8$.
    """)  # fmt: skip


def measured(gaps, kept):
    """Outcomes of the statement, each to be below 0."""
    return {
        "gap of the last 30 rounds": gaps[:, -30:].mean(axis=1) - 0.01,
        "gap of the average policy": gaps.mean(axis=1) - 0.06,
        "rounds without Q*": 1 - kept.mean(axis=1) - 0.01,
        "first optimal round": first_good(gaps, 1e-9, 1) / 8 - 1.0,
    }


# over 300 runs the worst late gap is 0 and the average gap .022 ± .011: the risk is that of the first optimal round, 4.1 ± 1.9 of 8
@C6.check(
    Effect(seeds=24, alternative="less"),
    false={"without optimism": {"optimism": False}, "neither clipping nor penalty": {"clip": False, "alpha": 0.0},
           "a tenth of the width": {"width": 0.03}, "ten times the width": {"width": 3.0}, "one episode a round": {"episodes": 1}},
)  # fmt: skip
def finds_the_key(rngs, *, optimism=True, clip=True, alpha=None, width=0.3, episodes=8):
    lock = Lock.draw(rngs[0])
    return measured(*lock.glow(
        len(rngs), rngs[1], optimism=optimism, clip=clip, alpha=alpha, width=width, episodes=episodes))  # fmt: skip


@C6.check(Effect(seeds=12, alternative="less"), false={"without optimism": {"optimism": False}})
def with_twenty_observations(rngs, *, optimism=True):
    return measured(*Lock.draw(rngs[0], 20).glow(len(rngs), rngs[1], optimism=optimism))


@C6.check(
    Identity(1e-12), Space(drawn=Drawn(Mixed.draw)), instances=12,
    false={"laws in place of ratios": {"ratio": False}},
)  # fmt: skip
def classes_see_the_latent_state(drawn, *, ratio=True):
    """Weights, candidates and values of every observation are those of its latent state."""
    out, many = {}, Lock(drawn.lock.key, drawn.count)
    sides = []
    for lock in (drawn.lock, many):
        laws = lock.laws()
        flat = laws.reshape(28, 3, -1)
        weights = clipped_ratio(flat, flat[drawn.chosen].mean(axis=0), np.inf).reshape(laws.shape) if ratio else laws
        sides.append({"weights": weights, "candidates": lock.candidates})
    for name in sides[0]:
        out[name] = (sides[1][name], np.repeat(sides[0][name], drawn.count, axis=2))
    covering = [coverability(lock.problem).value for lock in (drawn.lock, many)]
    return out | {
        "coverability": (covering, [5.7, 5.7]),
        "optimum": (optimum(many.problem), 0.748),
        "gaps": (many.gaps(), drawn.lock.gaps(), 1.0),
    }


def sequences(run, other):
    """What was played and kept, against another computation's."""
    return {
        "played": (run.chosen[0].astype(float), other[0].astype(float)),
        "kept": (run.kept[0].astype(float), other[1].astype(float)),
    }


@C6.check(
    Identity(1e-12), Space(drawn=Drawn(Set.draw)), instances=20,
    false={"W without negative weights": {"signs": (1,)}, "ratios clipped at gamma": {"level": "gamma"},
           "a penalty of alpha/gamma": {"alpha_by": "gamma"}, "an empty set starts afresh": {"empty": "all"}},
)  # fmt: skip
def the_set_from_samples(drawn, *, signs=(1, -1), level="gamma t", alpha_by="gamma t", empty="repeat"):
    """What GLOW keeps and plays, against every constraint averaged over the list of samples."""
    return sequences(drawn.run(), drawn.from_samples(signs=signs, level=level, alpha_by=alpha_by, empty=empty))


@C6.check(
    Identity(1e-12), Space(drawn=Drawn(Table.draw)), instances=20,
    false={"one more visit": {"more": 1}, "without the value of the successor": {"ahead": 0}, "unknown pairs are worth 1/2": {"top": 0.5}},
)  # fmt: skip
def the_table_from_samples(drawn, *, more=0, top=1.0, ahead=1):
    """What R-max plays, against averages over the list of samples, pair by pair."""
    return drawn.run().astype(float), drawn.from_samples(more=more, top=top, ahead=ahead).astype(float)


# log ratios 2.53 ± .13 (104 pairs of runs, 13 keys) against log 8 = 2.08: the risk at 10 seeds is below 1e-7
@C6.check(Effect(seeds=10), false={"GLOW slows down as much": {"learner": "glow"}})
def a_table_slows_down(rngs, *, learner="rmax"):
    """log of the rounds for m = 20 over those for m = 1, less log 8."""
    lock = Lock.draw(rngs[0])
    times = []
    for count, rng in ((1, rngs[1]), (20, rngs[2])):
        many = Lock(lock.key, count)
        gaps = many.rmax(len(rngs), rng) if learner == "rmax" else many.glow(len(rngs), rng)[0]
        times.append(first_good(gaps))
    return np.log(times[1] / times[0]) - math.log(8)


# the difference has a mean of .13 and a deviation of .21 over runs of all keys (720 runs apart from these): the risk is 1e-5 at 110 seeds
@C6.check(
    Effect(seeds=110, alternative="less"), false={"with neither": {"clip": False}},
)  # fmt: skip
def the_clip_alone_halves_the_gap(rngs, *, clip=True):
    lock = Lock.missed(rngs[0])
    alone, neither = (
        lock.glow(len(rngs), rng, clip=c, alpha=0.0)[0][:, -30:].mean(axis=1) for rng, c in zip(rngs[1:], (clip, False))
    )
    return alone - neither / 2


C6_clip = paper.claim("C6-clip", r"""
    Without truncation of the ratios GLOW discards Q*

    "Ratios $d^\pi/d^{past}$ are unbounded; truncating them is what makes them usable online": with the ratios left as they are, $Q^*$ is
    outside of the confidence set in more than a tenth of rounds, and the gap of the last 30 rounds is above .065, a tenth of the cost of a
    wrong key.

    where: read into the summary of GLOW
    instead: With the penalty $\alpha_tw^2$ kept, removing the clip loses $Q^*$ in no round on the lock (the penalty makes huge weights vacuous).
    With neither $Q^*$ is lost, on keys that do not begin with the 0 that "no key" plays (on those that do, its data reach further and save
    part of the runs). The clip alone is no full substitute: it leaves less than half of the gap that neither leaves (C6), but not none.
    by: C6/finds_the_key, C6/the_clip_alone_halves_the_gap
    origin: as commonly read
    """)  # fmt: skip


# without both Q* is kept in .47 ± .45 of rounds, the late gap is .31 ± .32 (deviations over 720 runs of all keys): the risk is 4e-6
@C6_clip.check(Effect(seeds=75), true={"without the penalty as well": {"alpha": 0.0}})
def discards_q_star(rngs, *, alpha=None):
    gaps, kept = Lock.missed(rngs[0]).glow(len(rngs), rngs[1], clip=False, alpha=alpha)
    return {"rounds without Q*": 0.9 - kept.mean(axis=1), "late gap": gaps[:, -30:].mean(axis=1) - 0.065}


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Clipped concentrability: bounded by the level, small for the comparator of hybrid data and for the learner itself

    $CC(\pi,\mu,g)=E_{d^\pi}[\min(d^\pi/\mu,g)]$ has $E_\mu[\mathrm{clip}_g(d^\pi/\mu)^2]\le CC\le\min(g,\|d^\pi/\mu\|_\infty)$. Half and half
    with offline data: $CC(\pi^*,(\nu+\bar d)/2,g)\le\min(g,2\|d^{\pi^*}/\nu\|_\infty)$. The learner's own policies:
    $\sum_tE_{d^t}[\min(u_t,\gamma)]\le2C(\log T+\gamma)$. HyGLOW on the lock of C6, whose offline law has a tenth of $d^{\pi^*}$ and nine tenths of
    "no key" (which misses the key at once): the gap of the last 30 of 100 rounds is below .1, without optimism; not if all of it is "no key".

    where: hybrid section (H2O, HyGLOW); the sum over rounds and the lock are derived
    assumes: Weights 1/2 and 1/2.
    """)  # fmt: skip
TRIPLE = Space(d=LAW, nu=LAW, other=LAW, g=Floats(math.exp(-2), math.exp(4), log=True), n=Sizes(2, 8))
SMALL = [{"d": np.array([0.99, 0.01]), "nu": np.array([1 - 1e-6, 1e-6]), "other": np.array([0.5, 0.5]), "g": 10.0}]


def largest_ratio(d, base):
    """``||d/base||_inf``, 0/0 being 0, point by point."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nanmax(np.where(d > 0, d / base, 0.0), axis=-1)


@C7.check(
    Inequality(1e-12), TRIPLE, examples=SMALL, instances=200,
    false={"at least the largest ratio": {"reversed_": True}, "without the clip": {"clip": False}, "its third moment": {"power": 3},
           "the mixture without the factor 2": {"factor": 1.0}, "online data alone": {"offline": 0.0}},
)  # fmt: skip
def bounds(d, nu, other, g, *, reversed_=False, clip=True, power=2, factor=2.0, offline=0.5):
    top, level = largest_ratio(d, nu), g if clip else np.inf
    cc, mixed = clipped_concentrability(d, nu, level), offline * nu + (1 - offline) * other
    return {
        "moment": (np.sum(nu * clipped_ratio(d, nu, g) ** power, axis=-1), cc),
        "level": (cc, g),
        "largest ratio": (top, cc) if reversed_ else (cc, top),
        "mixture": (clipped_concentrability(d, mixed, level), np.minimum(g, factor * top)),
    }


@C7.check(
    Identity(1e-12), TRIPLE, examples=SMALL, instances=400,
    false={"points without a base count nothing": {"holes": 0.0}, "clipped at g d": {"by": "d"}},
)  # fmt: skip
def by_minima(d, nu, other, g, *, holes=1.0, by="nu"):
    """``d min(d/mu, g)`` written without a ratio of what may be 0."""
    mixed, level = (nu + other) / 2, g[..., None]
    out = {}
    for name, base in (("nu", nu), ("mixture", mixed)):
        covered = np.where(
            base > 0,
            d * np.minimum(d, level * (base if by == "nu" else d)) / np.where(base > 0, base, 1),
            holes * level * d,
        )
        out[name] = (clipped_concentrability(d, base, g), covered.sum(axis=-1))
    return out


@C7.check(
    Inequality(1e-12), Space(drawn=Drawn(Laws.draw)), examples=TIGHT, instances=150,
    false={"without clipping": {"cut": False}, "without the factor C": {"covered": False}},
)  # fmt: skip
def of_the_learner(drawn, *, cut=True, covered=True):
    laws, gamma = drawn
    terms = truncation_sums(laws, gamma)
    found = terms.concentrability if cut else truncation_sums(laws, 1e6).concentrability
    bound = truncation_bounds(drawn.coverability if covered else 1.0, len(laws), gamma)[1]
    return {"sum": (found.sum(), bound), "second moment": (terms.second_moment, terms.concentrability)}


@C7.check(
    Identity(1e-12), Space(drawn=Drawn(Set.draw)), instances=20,
    false={"the sum of both laws": {"share": 1.0}, "half the penalty": {"penalty": 0.5}, "the worst step alone": {"over": np.max}},
)  # fmt: skip
def the_losses_from_samples(drawn, *, share=0.5, penalty=1.0, over=np.sum):
    """What HyGLOW plays and which losses are least, against averages over the list of its samples."""
    return sequences(drawn.hybrid(), drawn.hybrid_from_samples(share=share, penalty=penalty, over=over))


# of 720 runs of all keys 1.3 % end on a wrong key (gap .648), with "no key" alone 62 %. Of 100 runs nine or more would have to, for the interval
# to reach .1: by the Poisson law the risk is 1e-5
@C7.check(
    Effect(seeds=100, alternative="less", null=0.1), false={"nothing of the optimal policy": {"share": 0.0}},
)  # fmt: skip
def hybrid_data_replace_optimism(rngs, *, share=0.1):
    lock = Lock.missed(rngs[0])
    laws = lock.laws()
    offline = share * laws[lock.right] + (1 - share) * laws[0]
    return lock.hyglow(offline, len(rngs), rngs[1])[:, -30:].mean(axis=1)
