r"""Claims of "Horizon-Free and Variance-Dependent Reinforcement Learning for Latent Markov Decision Processes".

``w`` weights of the contexts, ``nu`` first states, ``alpha_m(h)`` the value of a history in context ``m``; rewards are
deterministic and belong to the history. Regret is pseudo-regret: exact values of the policies that were played.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from scipy.special import expit
from scipy.stats import multinomial

from klsim.claims import Effect, Exists, Identity, Inequality, Limit, Optimality, Paper, Variant
from klsim.divergences import chi2
from klsim.learning.latent_mdp import (
    Optimism,
    bernstein_backup,
    optimistic_alpha,
    optimistic_values,
    posterior_advantages,
    worst_direction,
)
from klsim.planning import alpha_vectors, evaluate, return_variance, solve
from klsim.problems import LatentMDP, histories
from klsim.spaces import Choice, Drawn, Floats, Integers, LatentMDPs, Masks, Normals, Policies, Sizes, Space

from .setting import (
    BEST,
    FAIL,
    HORIZONS,
    Counted,
    Estimated,
    K,
    Played,
    Sample,
    best_of_all,
    certain,
    coin,
    levels_of,
    multinomials,
    one_context,
    q_by_episodes,
    regret,
    reveal,
    slopes,
    small,
    trajectories,
    two_contexts,
    worker,
)

paper = Paper(
    "latent-mdp",
    title="Horizon-Free and Variance-Dependent Reinforcement Learning for Latent Markov Decision Processes",
    authors="Runlong Zhou, Ruosong Wang, Simon S. Du",
    year=2023,
    arxiv="2210.11604",
)


def optimum(problem):
    """``V*``, of the recursion over beliefs."""
    return float(solve(problem, None, 0.0).value[0][0])


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    Alpha vectors evaluate, beliefs plan

    $\alpha_m(h)=\sum_a\pi(a|h)[R_m(s,a)+\sum_{s'}P_m(s'|s,a)\,\alpha_m(hars')]$, $r=R_m(s,a)$, gives
    $V(\pi)=\sum_mw_m\sum_s\nu_m(s)\alpha_m(s)$. The optimum over policies of histories is $V^*=\sum_sW(s)$,
    $W(h)=\max_a\{\sum_mb_m(h)R_m(s,a)+\sum_{r,s'}W(hars')\}$ with
    $b_m(hars')=b_m(h)1[R_m(s,a)=r]P_m(s'|s,a)$, $b_m(s)=w_m\nu_m(s)$; the current state is not enough.

    where: set-up (alpha vectors)
    assumes: Finite; deterministic rewards, which belong to the history and may tell the context.
    """)  # fmt: skip


def two_steps(rng):
    """Dirichlet(1) rows, U[0, 1/2] rewards, in half of the draws the same in both contexts."""
    return small(rng, horizon=2, concentration=1.0, rewards=rng.uniform(0, 0.5, 8))


@C1.check(Identity(1e-12), Space(problem=Drawn(two_steps)), instances=15, examples=[{"problem": reveal()}],
          false={"with the best policy of state and step": {"candidate": "memoryless"},
                 "without the rewards in the history": {"candidate": "hidden"}})  # fmt: skip
def optimum_of_all_policies(problem, *, candidate="recursion"):
    """Against every deterministic policy of histories, 1024 of them where rewards tell the context."""
    if candidate == "memoryless":
        found = best_of_all(problem, memoryless=True)[0]
    else:
        found = optimum(LatentMDP(problem.weights, problem.contexts, hidden_rewards=candidate == "hidden"))
    return found, best_of_all(problem)[0]


@C1.check(Identity(1e-11, scale=1), Space(problem=LatentMDPs("M", "S", "A", "H"), phases=Normals("A", scale=3.0),
                                          soft=Choice(True, False), M=Sizes(1, 3), S=Sizes(1, 3), A=Sizes(1, 2), H=Sizes(1, 3)),
          instances=25, false={"with the value of the history in every context": {"averaged": True}})  # fmt: skip
def alpha_vectors_of_a_policy(problem, phases, soft, *, averaged=False):
    """The first level against all trajectories, context by context; and the value that planning promises."""
    policy = levels_of(problem, phases, soft)
    alpha, tree = alpha_vectors(problem, policy)[0][0], histories(problem)
    if averaged:
        alpha = np.where(tree.posterior[0] > 0, np.sum(tree.posterior[0] * alpha, axis=1, keepdims=True), 0.0)
    chance, context, start, total = trajectories(problem, phases, soft)
    joint = problem.weights[:, None] * problem.initial
    sums = np.zeros(joint.shape)
    np.add.at(sums, (context, start), chance * total)
    best = solve(problem, None, 0.0)
    return {
        "alpha times chance": (alpha * joint[:, tree.states[0][:, 0]].T, sums[:, tree.states[0][:, 0]].T),
        "value": (evaluate(problem, policy).value, sums.sum()),
        "what is planned is got": (best.value[0][0], evaluate(problem, best.log_policy).value),
        "optimal": (min(best.value[0][0] - evaluate(problem, policy).value, 0.0), 0.0),
    }


@C1.check(Exists(0.4), Space(problem=Drawn(two_steps)), instances=20, examples=[{"problem": reveal()}],
          false={"where the first state tells nothing of the context": {"blind": True}})  # fmt: skip
def memory_is_worth_half(problem, *, blind=False):
    """Some V* exceeds the best policy of the current state (and step) by more than 0.4 of it."""
    if blind:
        start = problem.weights @ problem.initial
        contexts = tuple(dataclasses.replace(context, initial=start) for context in problem.contexts)
        problem = LatentMDP(problem.weights, contexts)
    return best_of_all(problem)[0], best_of_all(problem, memoryless=True)[0]


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    The law of total variance over alpha vectors

    $\mathrm{Var}(\sum_tr_t)=\mathrm{Var}_{m,s_1}(\alpha_m(s_1))+E_\pi\sum_{t<H}V(P_m,\alpha_m(h_{t+1}))
    +E_\pi\sum_{t\le H}\mathrm{Var}_{a\sim\pi(h_t)}(q_m(h_t,a))$, $q_m(h,a)=R_m(s,a)+P_m\cdot\alpha_m(har\,\cdot)$,
    expectations over the true context too; the last term is 0 for a deterministic policy. Every term is at most
    $\mathrm{Var}\le\frac14$ whatever $H$, for returns in $[0,1]$.

    where: the identity behind the paper's $\mathrm{Var}^\pi$ (last term derived)
    assumes: Deterministic rewards; alpha after the transition, the reward of the step already paid.
    """)  # fmt: skip


def transition_term(problem, policy, averaged):
    """``E sum_t V(P_m, x)`` with ``x`` the alpha vector, or its average over the posterior of the history."""
    tree, (alpha, _) = histories(problem), alpha_vectors(problem, policy)
    total, visits = 0.0, tree.posterior[0] * tree.chance[0][:, None]
    for t in range(1, problem.horizon):
        at, done = tree.parent[t], tree.actions[t][:, -1]
        x = np.sum(tree.posterior[t] * alpha[t], axis=1, keepdims=True) + 0 * alpha[t] if averaged else alpha[t]
        taken = visits[at] * np.exp(policy[t - 1])[at, done][:, None]
        row = at * problem.shape[2] + done
        first, second = (np.stack([np.bincount(row, tree.step[t][:, m] * y[:, m]) for m in range(x.shape[1])], axis=1)
                         for y in (x, x**2))  # fmt: skip
        rows, where = np.unique(row, return_index=True)
        total += np.sum(taken[where] * (second - first**2)[rows])
        visits = taken * tree.step[t]
    return total


@C2.check(Identity(1e-12, scale=1), Space(played=Drawn(Played.draw)), instances=60,
          false={"with the average over the posterior in place of alpha": {"averaged": True},
                 "without the term of the actions": {"actions": 0},
                 "with the actions of the last step left out": {"actions": -1}})  # fmt: skip
def total_variance(played, *, averaged=False, actions=None):
    problem, phases, soft = played
    chance, _, _, total = trajectories(problem, phases, soft)
    policy = levels_of(problem, phases, soft)
    parts = return_variance(problem, policy)
    kept = parts.action[:actions].sum()
    moved = transition_term(problem, policy, averaged) if averaged else parts.transition.sum()
    return parts.start + moved + kept, chance @ (total - chance @ total) ** 2


@C2.check(Inequality(1e-12, scale=1), Space(played=Drawn(Played.draw)), instances=100,
          examples=[{"played": Played(coin(), np.zeros(1), False)}],
          false={"each at most half of the variance": {"share": 0.5}, "the variance at most 1/5": {"most": 0.2}})  # fmt: skip
def bounded_whatever_the_horizon(played, *, share=1.0, most=0.25):
    parts = return_variance(played.problem, levels_of(*played))
    each = np.concatenate([[parts.start], parts.transition, parts.action])
    return {"each": (each.max(), share * parts.total), "variance": (parts.total, most)}


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    The total variance does not grow with the horizon

    Worker: hazards $g_m/H$ to the goal (which pays 1 once) and $f/H$ to the end. The sum of C2 is $p(1-p)$, $p$ the chance
    of success, for every $H$; the surrogate $\sqrt{H\cdot\mathrm{Var}}$ of horizon-dependent analyses grows like $\sqrt H$.

    where: horizon-free bound, re-stated through its key quantity
    assumes: Total reward at most 1; transitions that do not change with time.
    origin: derived
    """)  # fmt: skip
FIRST = [[1.5, 0.5], [0.5, 1.5]]


def variance_of_worker(horizon, goal, fail=FAIL, weights=None):
    """Of the policy "action 0 forever"."""
    problem = worker(horizon, goal, fail, weights)
    return return_variance(problem, np.where(np.arange(problem.shape[2]) == 0, 0.0, np.full(problem.shape, -np.inf)))


def success(horizon, goal, fail, weights):
    """A goal pays if it is entered within the first H - 1 transitions: sum of a geometric law."""
    rate = (np.asarray(goal)[:, 0] + fail) / horizon
    return float(weights @ (np.asarray(goal)[:, 0] / horizon * -np.expm1((horizon - 1) * np.log1p(-rate)) / rate))


# the tolerance of the parts that are left out: each is a few times 1e-2
@C3.check(Identity(1e-12, scale=1), Space(rate=Floats(0.2, 3.0), other=Floats(0.2, 3.0), fail=Floats(0.1, 2.0), share=Floats(0.1, 0.9),
                                          horizon=Choice(6, 8, 32, 128, 512)), instances=20, batched=False,
          false={"without the term of start and context": {"start": 0.0}, "with one transition more": {"shift": 1}})  # fmt: skip
def variance_of_a_success(rate, other, fail, share, horizon, *, start=1.0, shift=0):
    goal = [[rate, other], [other, rate]]
    weights = np.array([share, 1 - share])
    parts, p = variance_of_worker(horizon, goal, fail, weights), success(horizon + shift, goal, fail, weights)
    return start * parts.start + parts.transition.sum() + parts.action.sum(), p * (1 - p)


@C3.check(Limit(rate=0.0, rate_tol=0.05), false={"nor does the surrogate sqrt(H Var)": {"surrogate": True}})
def flat_in_the_horizon(*, surrogate=False):
    horizons = np.array([8, 16, 32, 64, 128, 256, 512])
    total = np.array([variance_of_worker(int(h), FIRST).total for h in horizons])
    return horizons, np.sqrt(horizons * total) if surrogate else total


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    The Bernstein back-up is monotone, if $c_1^2\le c_2$

    $F(x)=p\cdot x+\max\{c_1\sqrt{V(p,x)z},\,c_2z\}$ is non-decreasing in every coordinate of $x\in[0,1]^S$ if $c_1^2\le c_2$,
    and in general only then. The paper's bonus has $c_1^2=16\,\Gamma\le16\,S=c_2$.

    where: optimism by induction (as in MVP, Zhang et al.); sharpness derived
    assumes: $x\in[0,1]^S$, $z=\iota/N>0$.
    """)  # fmt: skip
RAISED = {"p": Policies("S").map(np.exp), "x": Normals("S", scale=2.0).map(expit), "up": Normals("S", scale=2.0).map(expit),
          "kept": Masks("S"), "z": Floats(1e-3, 1.0, log=True), "S": Sizes(2, 6)}  # fmt: skip


def two_point(ratio, e=0.01, rise=1e-4, c1=2.0):
    """p = (e, 1-e), x = (0, 1), raised in the first; z just below V c1²/c2² for c2 = c1²/ratio."""
    z = 0.98 * e * (1 - e) * ratio**2 / c1**2
    return {"p": np.array([e, 1 - e]), "x": np.array([0.0, 1.0]), "up": np.array([rise, 0.0]),
            "kept": np.array([False, True]), "z": z, "c1": c1}  # fmt: skip


@C4.check(Inequality(1e-12, scale=1), Space(**RAISED, c1=Floats(0.5, 4.0)), instances=3000, examples=[two_point(1.05)],
          false={"with c2 = c1²/16": {"ratio": 16.0}, "with c2 = c1²/1.05": {"ratio": 1.05}})  # fmt: skip
def monotone(p, x, up, kept, z, c1, *, ratio=1.0):
    higher = np.where(kept, x, x + (1 - x) * up)
    c2 = c1**2 / ratio
    return tuple(bernstein_backup(p, v, z, c1, c2) for v in (x, higher))


@C4.check(Inequality(1e-12, scale=1), Space(**{**RAISED, "p": Policies("S", zero_support=True).map(np.exp)}), instances=4000,
          false={"without the factor S in the second term": {"lower": "1"}})  # fmt: skip
def with_the_constants_of_the_paper(p, x, up, kept, z, *, lower="S"):
    higher, support = np.where(kept, x, x + (1 - x) * up), np.sum(p > 0, axis=-1)
    c2 = 16.0 * (p.shape[-1] if lower == "S" else 1)
    return tuple(bernstein_backup(p, v, z, 4 * np.sqrt(support), c2) for v in (x, higher))


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    Why $\Gamma$ appears: all alpha vectors at once cost $\Gamma-1$, one costs 1

    $\sup_x|(\hat P-P)\cdot x|/\sqrt{V(P,x)}=\sqrt{\chi^2(\hat P\|P)}$, attained at $(\hat P-P)/P$, and
    $E[\chi^2]=(\Gamma-1)/N$ for $N$ draws of $\Gamma$ outcomes; for a fixed $x$ the mean square of the ratio is $1/N$. Alpha
    vectors are exponentially many, and a union bound over them would bring $H$ back.

    where: variance lemma behind the factor $\sqrt\Gamma$
    assumes: $P>0$ on its support; independent draws.
    origin: derived
    """)  # fmt: skip
TWO_LAWS = {
    "p": Policies("G", spread=6.0).map(np.exp),
    "p_hat": Policies("G", spread=6.0).map(np.exp),
    "G": Sizes(2, 8),
}


def ratio(p_hat, p, x):
    """``|(p_hat - p).x| / sqrt(V(p, x))``."""
    mean = np.sum(p * x, axis=-1, keepdims=True)
    return np.abs(np.sum((p_hat - p) * (x - mean), axis=-1)) / np.sqrt(np.sum(p * (x - mean) ** 2, axis=-1))


def apart(p, p_hat):
    return np.max(np.abs(p - p_hat), axis=-1) > 1e-3


@C5.check(
    Identity(1e-8), Space(**TWO_LAWS, where=apart), instances=400,
    false={"with the laws exchanged in chi²": {"exchanged": True}},
)  # fmt: skip
def ratio_of_the_worst_direction(p, p_hat, *, exchanged=False):
    """Also the largest Rayleigh quotient, ``d.C^-1 d`` with the covariance ``C`` of all outcomes but the last; scaled to [0, 1]."""
    reached = ratio(p_hat, p, x := worst_direction(p_hat, p))
    gap, q = (p_hat - p)[..., :-1], p[..., :-1]
    covariance = q[..., None] * np.eye(q.shape[-1]) - q[..., None] * q[..., None, :]
    largest = np.sum(gap * np.linalg.solve(covariance, gap[..., None])[..., 0], axis=-1)
    divergence = chi2(np.log(p), np.log(p_hat)) if exchanged else chi2(np.log(p_hat), np.log(p))
    ends = np.stack([x.min(axis=-1), x.max(axis=-1)], axis=-1)
    return {"chi²": (reached, np.sqrt(divergence)), "largest": (reached, np.sqrt(largest)), "scale": (ends, [0.0, 1.0])}


@C5.check(Optimality(1e-9), Space(**TWO_LAWS, move=Normals("G"), where=apart), instances=600,
          false={"with p_hat - p, not divided by p": {"divided": False}})  # fmt: skip
def no_direction_is_worse(p, p_hat, move, *, divided=True):
    """Challengers: directions close to the candidate, and far from it."""
    x = worst_direction(p_hat, p) if divided else p_hat - p
    challengers = [ratio(p_hat, p, x + size * move) for size in (1e-3, 0.1, 10.0)]
    return ratio(p_hat, p, x), np.max(challengers, axis=0)


@C5.check(Identity(1e-9), Space(sample=Drawn(Sample.draw)), instances=6,
          examples=[{"sample": Sample(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0, 4.0, 9.0]), 50)}],
          false={"with G in place of G - 1": {"degrees": 0}, "with the worst as cheap as a fixed one": {"degrees": None}})  # fmt: skip
def mean_over_all_samples(sample, *, degrees=1):
    """Every possible sample of N draws, with its multinomial probability; P Dirichlet(5): G = 2, 3, 4 at N = 50, 8 at N = 7."""
    p, fixed, draws = sample
    outcomes, counts = len(p), multinomials(draws, len(p))
    chance, p_hat = multinomial.pmf(counts, draws, p), counts / draws
    even = np.all(np.abs(p_hat - p) < 1e-12, axis=1)
    worst = np.where(even, 0.0, ratio(p_hat, p, np.where(even[:, None], fixed, worst_direction(p_hat, p))))
    return {
        "worst": (draws * (chance @ worst**2), outcomes - degrees if degrees is not None else 1.0),
        "fixed": (draws * (chance @ ratio(p_hat, p, fixed) ** 2), 1.0),
    }


# N chi²/(G-1) of one sample has deviation ~ .6: the mean of 500 has .027, the interval over 40 seeds ± .009
@C5.check(
    Effect(seeds=40, alternative="within", null=1.0, margin=0.05), false={"with G in place of G - 1": {"degrees": 0}}
)
def mean_of_eight_outcomes(rng, *, degrees=1):
    """G = 8, N = 50, P Dirichlet(5): 500 samples a seed."""
    p = rng.dirichlet(np.full(8, 5.0))
    p_hat = rng.multinomial(50, p, 500) / 50
    return 50 * np.mean(ratio(p_hat, p, worst_direction(p_hat, p)) ** 2) / (8 - degrees)


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    With the variance bonus the regret does not depend on the horizon

    The paper's regret is $\tilde O(\sqrt{\mathrm{Var}^*M\Gamma SAK}+MS^2A)$, with $\log H$ only. Two-context worker, $K=3000$,
    $H=8\dots128$: the slope of $\log$ regret in $\log H$ lies within $\pm.15$; with a variance-blind (Hoeffding) bonus it is
    above $.25$, and at $H=128$ the regret is larger by more than 100. Refreshing the plan when the largest count has grown, not
    any one, costs more than a tenth.

    where: main upper bound
    assumes: Context told after the episode; a class of A² policies instead of all histories; w, nu, R known; $c=\frac12$
    and $\Gamma\iota/N$ in place of the paper's $4$ and $S\iota/N$; refreshed at growth by a quarter, not at doubling.
    """)  # fmt: skip


def final(horizons, rngs, **settings):
    """Regret after K episodes, ``(runs, horizons)``."""
    return np.stack([regret(two_contexts(h), rngs, **settings)[:, -1] for h in horizons], axis=1)


# slope -.01, deviation .11 over seeds; of the Hoeffding bonus .38, .07
@C6.check(Effect(seeds=40, alternative="within", margin=0.15), false={"with the Hoeffding bonus": {"variance": False}})
def flat_regret(rngs, *, variance=True):
    return slopes(HORIZONS, final(HORIZONS, rngs, variance=variance))


@C6.check(Effect(seeds=20, null=0.25), false={"with the Bernstein bonus": {"variance": True}})
def hoeffding_grows(rngs, *, variance=False):
    return slopes((8, 128), final((8, 128), rngs, variance=variance))


@C6.check(Effect(seeds=10, null=100.0), false={"at H = 8": {"horizon": 8}})
def hoeffding_is_worse(rngs, *, horizon=128):
    return final((horizon,), rngs, variance=False)[:, 0] - final((horizon,), rngs)[:, 0]


# log-ratio .52 to .67, deviation .40 to .56
@C6.check(
    Effect(seeds=60, null=math.log(1.1)), false={"when any count has grown by half": {"refresh": "any", "growth": 1.5}}
)
def stale_plans_cost(rngs, *, refresh="largest", growth=1.25):
    return np.log(final((64,), rngs, refresh=refresh, growth=growth)[:, 0] / final((64,), rngs)[:, 0])


# C6-planning ---------------------------------------------------------------------------------------
C6_planning = paper.claim("C6-planning", r"""
    The value-optimistic plan is not found by backward induction over beliefs

    With the bonus inside, $\hat\alpha_m=\min\{R_m+B_m+\hat P_m\cdot\hat\alpha_m',1\}$ is not linear in what follows: choosing at every
    history the action with the largest $\sum_mb_m(h)\hat\alpha_m(h)$, as C1 does without a bonus, can miss the best policy by
    more than a hundredth. With a bonus that does not depend on alpha, and no cap that binds, it cannot.

    where: value-optimistic solver (argmax over all policies of histories)
    origin: derived
    """)  # fmt: skip


def optimistic(estimated, tree, actions, rule):
    """Optimistic alpha vectors of deterministic levels of actions."""
    policy = tuple(np.where(np.arange(2) == a[:, None], 0.0, -np.inf) for a in actions)
    return optimistic_alpha(estimated.problem, estimated.visits, policy, rule, tree)


def by_beliefs(estimated, tree, rule):
    """Backward induction: at every history the action with the largest ``sum_m b_m alpha_m``; the value of what it finds."""
    beliefs, actions = tree.beliefs(), [np.zeros(size, dtype=int) for size in tree.sizes]
    for t in (1, 0):
        scores = []
        for a in range(2):
            actions[t] = np.full(tree.sizes[t], a)
            scores.append(np.sum(beliefs[t] * optimistic(estimated, tree, actions, rule)[t], axis=1))
        actions[t] = np.argmax(scores, axis=0)
    return np.sum(beliefs[0] * optimistic(estimated, tree, actions, rule)[0])


def by_enumeration(estimated, tree, rule):
    """At each first state (they do not interact) either action with every choice at the histories that it allows."""
    (first, last), best = tree.sizes, np.zeros(tree.sizes[0])
    for n, a in itertools.product(range(first), range(2)):
        mine = np.flatnonzero((tree.parent[1] == n) & (tree.actions[1][:, -1] == a))
        for choice in itertools.product(range(2), repeat=len(mine)):
            actions = [np.full(first, a), np.zeros(last, dtype=int)]
            actions[1][mine] = choice
            best[n] = max(best[n], tree.beliefs()[0][n] @ optimistic(estimated, tree, actions, rule)[0][n])
    return best.sum()


@C6_planning.check(Identity(1e-12), Space(counted=Drawn(Counted.draw), scale=Floats(0.1, 1.0), variance=Choice(True, False)), instances=40, batched=False,
                   false={"with counts pooled over the contexts": {"pooled": True}})  # fmt: skip
def same_objective_over_states(counted, scale, variance, *, pooled=False):
    """Of a policy of the state: the recursion of the learner over states, and that over histories."""
    problem, visits, actions = counted
    rule = Optimism(0.7, float(scale), bool(variance))
    policy = np.where(np.arange(2) == actions[:, None], 0.0, np.full(problem.shape, -np.inf))
    start = histories(problem).states[0][:, 0]
    told = np.broadcast_to(visits.sum(axis=0), visits.shape) if pooled else visits
    by_state = optimistic_values(problem, actions[None], told, rule)[0]
    return by_state[:, start].T, optimistic_alpha(problem, visits, policy, rule)[0]


@C6_planning.check(Exists(0.01), Space(estimated=Drawn(Estimated.draw)), instances=12,
                   false={"with the variance-blind bonus": {"variance": False}})  # fmt: skip
def best_of_the_policies(estimated, *, variance=True):
    tree, rule = histories(estimated.problem), Optimism(0.1, 1.0, variance)
    return by_enumeration(estimated, tree, rule), by_beliefs(estimated, tree, rule)


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Regret follows the variance: constant at $\mathrm{Var}^*=0$, $\sqrt K$ at worst

    One context, deterministic: each wrong action is tried $\lfloor c^2\iota\rfloor+1$ times and never again. With
    $\mathrm{Var}^*>0$ and a gap that shrinks with $K$ as the worst one does, $g=(1,1,1+.6\sqrt{3000/K})$, the regret grows with an
    exponent above $.35$ between $K=3000$ and $48000$ ($H=32$).

    where: variance-dependent form of the main theorem
    assumes: $M=1$, so that the context adds no variance; learner of C6.
    """)  # fmt: skip
EPISODES = (3000, 48000)


def tries(iota, scale):
    """``H`` steps with ``H e`` visits add up to ``c² iota / e`` after ``e`` episodes; ties go to the lower index."""
    return math.floor(scale**2 * iota) + 1


# the counts grow by a quarter at every episode only up to the fourth: c² iota < 4
@C7.check(Identity(1e-12), Space(horizon=Integers(2, 64), episodes=Choice(100, 3000, 12000, 48000), scale=Floats(0.2, 0.53)),
          batched=False, instances=12, false={"with the Hoeffding bonus": {"variance": False},
                                              "with one try less": {"less": 1}})  # fmt: skip
def bounded_without_variance(horizon, episodes, scale, *, variance=True, less=0):
    horizon, episodes = int(horizon), int(episodes)
    path = regret(certain(horizon), [np.random.default_rng(0)], episodes, scale=float(scale), variance=variance)[0]
    iota = math.log(2 * 4 * 3 * episodes)
    return {"regret": (path[-1], 2.0 * (tries(iota, scale) - less)), "flat after half": (path[-1], path[episodes // 2])}


def growth_in_episodes(rngs, problem_at):
    """Exponent of the regret between the first and the last K, independent runs."""
    return slopes(EPISODES, np.stack([regret(problem_at(k), rngs, k)[:, -1] for k in EPISODES], axis=1))


INSTANCES = {
    "worst": lambda k: one_context(32, 1 + (BEST - 1) * math.sqrt(K / k)),
    "fixed": lambda k: one_context(32, BEST),
    "certain": lambda k: certain(32),
}
FEW = Effect(seeds=32, null=0.35)


# exponent .46, deviation .21: not shown with probability 3e-5
@C7.check(Effect(seeds=130, null=0.35), false={"with the gap fixed": Variant({"instance": "fixed"}, kind=Effect(seeds=20, null=0.35)),
                                               "without variance": Variant({"instance": "certain"}, kind=Effect(seeds=4, null=0.35))})  # fmt: skip
def worst_case_growth(rngs, *, instance="worst"):
    return growth_in_episodes(rngs, INSTANCES[instance])


C7_fixed = paper.claim("C7-fixed", r"""
    On an instance with $\mathrm{Var}^*>0$ the regret grows like $\sqrt{\mathrm{Var}^*K}$

    The rate $\tilde O(\sqrt{\mathrm{Var}^*M\Gamma SAK})$ read as the growth of the regret on a given instance: an exponent in $K$ above
    $.35$ for the worker with $g=(1,1,1.6)$, $K=3000\dots48000$.

    where: main theorem, read as a curve
    instead: The rate is a bound over all instances, attained by an instance that changes with $K$. With a gap that is fixed the growth
    is logarithmic: the exponent is .1 to .2, below .35.
    by: C7/worst_case_growth
    origin: as commonly read
    """)  # fmt: skip


# exponent .16, deviation .18: not told with probability 3e-5
@C7_fixed.check(
    FEW, true={"below it": Variant({"instance": "fixed"}, kind=Effect(seeds=32, alternative="less", null=0.35))}
)
def growth_with_a_gap(rngs, *, instance="fixed"):
    return growth_in_episodes(rngs, INSTANCES[instance])


# C8 ------------------------------------------------------------------------------------------------
C8 = paper.claim("C8", r"""
    Advantages from alpha vectors: each posterior at its own history

    $r_t+\sum_mb_m(h_{t+1})\alpha_m(h_{t+1})-\sum_mb_m(h_t)\alpha_m(h_t)$, and $r_t+\alpha_m(h_{t+1})-\alpha_m(h_t)$ with the
    context told afterwards, have mean $Q(h_t,a_t)-V(h_t)$ given $h_t,a_t$. With $b(h_t)$ on both terms the mean is another: the
    new observation tells of the context.

    where: token version of the alpha vectors
    origin: derived
    """)  # fmt: skip


@C8.check(Identity(1e-11, scale=1), Space(played=Drawn(Played.softly)), instances=40,
          false={"with the posterior of h_t on both terms": {"frozen": True}})  # fmt: skip
def unbiased_advantages(played, *, frozen=False):
    problem, phases, _ = played
    tree, policy = histories(problem), levels_of(problem, phases, True)
    alpha, _ = alpha_vectors(problem, policy, tree)
    out = {}
    for t in range(problem.horizon - 1):
        at, done = tree.parent[t + 1], tree.actions[t + 1][:, -1]
        kept, chance, paid = tree.posterior[t][at], tree.chance[t + 1], tree.rewards[t + 1][:, -1:]
        values = np.stack([alpha[t][at], alpha[t + 1]], axis=1)
        both = np.stack([kept, kept if frozen else tree.posterior[t + 1]], axis=1)
        unknown, told = np.zeros(policy[t].shape), np.zeros(policy[t].shape)
        np.add.at(unknown, (at, done), chance * posterior_advantages(paid, both, values)[:, 0])
        for m, known in enumerate(np.eye(2)):
            one_hot = np.broadcast_to(known, values.shape)
            advantage = posterior_advantages(paid, one_hot, values)[:, 0]
            np.add.at(told, (at, done), kept[:, m] * tree.step[t + 1][:, m] * advantage)
        by_history = q_by_episodes(problem, phases, t)
        rows = zip(tree.states[t].tolist(), tree.actions[t].tolist(), tree.rewards[t].tolist())
        wanted = np.array([by_history[tuple(map(tuple, row))] for row in rows])
        out[f"posterior, t = {t}"], out[f"told, t = {t}"] = (unknown, wanted), (told, wanted)
    return out
