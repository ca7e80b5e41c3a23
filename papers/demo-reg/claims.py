r"""Claims of "Demonstration-Regularized RL".

Notation of the paper: expert ``E``, clone ``BC`` (the reference of the KL), coefficient ``lam`` (klsim's beta), ``N_E``
demonstrations; ``KL_traj`` of the laws of whole trajectories under the same transitions. The paper was read in part (abstract, opening, reviews):
constants and numbers of theorems were recalled and not confirmed; formulas were checked independently. It has no experiments.
"""

from __future__ import annotations

import functools

import numpy as np

from klsim.claims import Effect, Identity, Inequality, Limit, Optimality, Paper, Variant
from klsim.distributions import expectation, log_normalize, log_partition, tilt, variance
from klsim.divergences import kl
from klsim.planning import evaluate, occupancy, solve
from klsim.planning.batched import demonstration_counts, expected_returns
from klsim.planning.best_policy import identify_best_policy
from klsim.planning.cloning import (
    clone,
    cloning_bound,
    cloning_limit,
    expected_cloning_kl,
    high_probability_bound,
)
from klsim.planning.demonstrations import (
    demonstration_gap,
    deterministic_gap_bound,
    learned_reward_bounds,
    pinsker_gap_bound,
    policy_error_bound,
    soft_error_bound,
)
from klsim.planning.imitation import visited_divergence
from klsim.planning.log_linear import clone_log_linear, least_squares_plan
from klsim.spaces import Choice, Drawn, Floats, Integers, LinearMDPs, Normals, Policies, Sizes, Space, TabularMDPs

from .setting import (
    DataSet,
    Demonstrated,
    Imitated,
    Regularised,
    by_lbfgs,
    enumerated_kl,
    enumerated_return,
    greedy,
    hardened,
    linear_problem,
    lock_episodes,
    log_slopes,
    plug_in_error,
    preferences,
    random_mdp,
    random_policy,
    regularised_gap,
    study,
    two_options,
)

paper = Paper(
    "demo-reg",
    title="Demonstration-Regularized RL",
    authors="Daniil Tiapkin, Denis Belomestny, Daniele Calandriello, Eric Moulines, Remi Munos, Alexey Naumov, Pierre Perrault, Michal Valko, Pierre Menard",
    year=2024,
    arxiv="2310.17303",
)

SIZES = {"H": Sizes(1, 3), "S": Sizes(1, 4), "A": Sizes(2, 3)}
POLICIES = Normals("H", "S", "A", scale=1.5).map(log_normalize)
LAM = Floats(0.1, 3.0, log=True)


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    The optimum of the regularised problem, by backward recursion against the reference

    With $V_{H+1}=0$: $Q^*_h=r_h+P_hV^*_{h+1}$, $V^*_h=\lambda\log\sum_a\mathrm{ref}_h(a|s)e^{Q^*_h(s,a)/\lambda}$,
    $\pi^*_h\propto\mathrm{ref}_h\,e^{Q^*_h/\lambda}$ maximises $E_\pi\sum_h[r_h-\lambda\mathrm{KL}(\pi_h\|\mathrm{ref}_h)]$; a generic
    optimiser reaches it to $10^{-6}$. Actions that the reference never takes keep probability 0. In a linear MDP
    $\log(\pi^*_h/\mathrm{ref}_h)$ is linear in the features, up to a constant a state.

    where: set-up of regularised MDPs (number not confirmed); linear MDPs: derived
    assumes: lam > 0.
    """)  # fmt: skip


@C1.check(Optimality(1e-12, scale=1), Space(problem=Drawn(random_mdp), log_ref=Normals(3, 4, 3).map(log_normalize), lam=LAM), instances=20,
          false={"the recursion without the reference": {"recursion": "entropy"}})  # fmt: skip
def no_optimiser_does_better(problem, log_ref, lam, *, recursion="kl"):
    ref = None if recursion == "entropy" else log_ref
    value, found = problem.initial @ solve(problem, ref, lam, regularizer=recursion).value[0], by_lbfgs(problem, log_ref, lam)
    return {"value": (value, found), "reached": (found, value - 1e-6)}


# rounding of a policy is that of its exponents, up to H/lam: relative to the returns it is squared, of the recursion it is not
@C1.check(Identity(1e-12, scale=3), Space(drawn=Drawn(Regularised.draw)), instances=100,
          false={"the policy without the reference": {"against": 0}})  # fmt: skip
def the_policy_attains_the_value(drawn, *, against=1):
    problem, ref, lam = drawn
    found = solve(problem, ref, lam)
    policy = found.log_policy if against else tilt(np.where(np.isfinite(ref), 0.0, ref) - np.log(np.isfinite(ref).sum(-1, keepdims=True)),
                                                   found.q_value, lam)  # fmt: skip
    return {
        "values": (evaluate(problem, policy, ref, lam).state_value, found.value),
        "support": (np.exp(found.log_policy)[~np.isfinite(ref)], 0.0),
    }


@C1.check(Identity(1e-9, scale=1), Space(problem=LinearMDPs(), log_ref=POLICIES, lam=LAM, H=Sizes(1, 3), S=Sizes(2, 5), A=Sizes(3, 5), D=Sizes(1, 3)),
          instances=60, false={"the policy itself, without dividing by the reference": {"against": 0}})  # fmt: skip
def log_linear_in_a_linear_problem(problem, log_ref, lam, *, against=1):
    """``lam log(pi/ref)`` and its projection on the features and a constant a state."""
    states, actions, latent = problem.features.shape
    basis = np.hstack([problem.features.reshape(-1, latent), np.kron(np.eye(states), np.ones((actions, 1)))])
    found = solve(problem.tabular(), log_ref, lam).log_policy
    left = lam * (found - against * log_ref).reshape(len(found), -1).T
    return (basis @ (np.linalg.pinv(basis, rcond=1e-10) @ left)).T, left.T, 1 + np.abs(left).max()


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    The trajectory KL is a sum over visited states, and the regularised gap is exactly lam times one

    $\mathrm{KL}_{traj}(\pi\|\pi')=\sum_h\sum_sd^\pi_h(s)\mathrm{KL}(\pi_h(s)\|\pi'_h(s))$, and
    $V^*_\lambda-V_\lambda(\pi)=\lambda\mathrm{KL}_{traj}(\pi\|\pi^*_\lambda)$ for every $\pi$, deterministic ones too.

    where: the chain rule: preliminaries; the gap: derived (regularised performance difference)
    assumes: pi inside the support of the other policy, and of the reference.
    """)  # fmt: skip


@C2.check(Identity(1e-11), Space(problem=TabularMDPs(), pi=POLICIES, other=POLICIES, **SIZES), instances=100,
          false={"the visits of the other policy": {"visits": 1}, "the KL the other way round": {"swap": True}})  # fmt: skip
def chain_rule(problem, pi, other, *, visits=0, swap=False):
    pair = (other, pi) if swap else (pi, other)
    total, scale = enumerated_kl(problem, pi, other)
    return visited_divergence(problem, *pair, visits=(pi, other)[visits] if visits else None), total, scale


@C2.check(Identity(1e-11), Space(problem=TabularMDPs(), pi=POLICIES, ref=POLICIES, lam=LAM, hard=Choice(0, 1), **SIZES), instances=100,
          false={"KL(pi*‖pi), on soft policies": Variant({"order": -1}, space=Space(problem=TabularMDPs(), pi=POLICIES, ref=POLICIES, lam=LAM,
                                                                                   hard=Choice(0), **SIZES)),
                 "the visits of pi*": {"visits": "optimum"}})  # fmt: skip
def the_gap_is_a_kl(problem, pi, ref, lam, hard, *, order=1, visits="own"):
    pi, best = hardened(pi) if hard else pi, solve(problem, ref, lam)
    gap = problem.initial @ best.value[0] - evaluate(problem, pi, ref, lam).value
    total, scale = enumerated_kl(problem, *(pi, best.log_policy)[::order])
    if visits == "optimum":
        total = visited_divergence(problem, pi, best.log_policy, visits=best.log_policy)
    return gap, lam * total, lam * scale + np.abs(best.value).max() + 3 * np.abs(problem.reward).max()


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    What the regulariser costs: the master bound, and its exact form

    With $\epsilon_E=V^*-V(\pi^E)$ and $\epsilon_{RL}=V^*_\lambda-V_\lambda(\pi)$, reference $\pi^{BC}$,
    $$V^*-V(\pi)=\epsilon_E+\epsilon_{RL}+\lambda[\mathrm{KL}(\pi^E\|\pi^{BC})-\mathrm{KL}(\pi\|\pi^{BC})-\mathrm{KL}(\pi^E\|\pi^*_\lambda)]$$
    over trajectories, hence at most $\epsilon_E+\epsilon_{RL}+\lambda\mathrm{KL}(\pi^E\|\pi^{BC})$, with
    $-\lambda\mathrm{KL}(\pi\|\pi^{BC})$ and without it. At $\lambda=\epsilon/\mathrm{KL}(\pi^E\|\pi^{BC})$ a policy with
    $\epsilon_{RL}\le\epsilon$ is within $\epsilon_E+2\epsilon$.

    where: theorem on demonstration-regularised RL (right-hand form, as recalled); the exact and the middle form are derived
    assumes: lam > 0; expert and policy inside the support of the clone.
    """)  # fmt: skip
DEMONSTRATED = Space(drawn=Drawn(Demonstrated.draw))


def trained(drawn, lam=None):
    lam = drawn.lam if lam is None else lam
    return drawn.learner(solve(drawn.problem, drawn.clone, lam).log_policy), lam


@C3.check(Identity(1e-11), Space(problem=TabularMDPs(), pi=POLICIES, expert=POLICIES, ref=POLICIES, lam=Floats(0.01, 10.0, log=True), **SIZES),
          instances=100, false={"without lam KL(E‖pi_lam)": {"form": "refined"}, "without lam KL(pi‖BC) too": {"form": "bound"}})  # fmt: skip
def exact_form(problem, pi, expert, ref, lam, *, form="exact"):
    parts = demonstration_gap(problem, pi, expert, ref, lam)
    scale = 1 + 3 * np.abs(problem.reward).max() + lam * (1 + parts.expert_kl + parts.learner_kl + parts.expert_to_optimum)
    return greedy(problem)[1] - enumerated_return(problem, pi), getattr(parts, form), scale


@C3.check(Inequality(1e-11, scale=3), DEMONSTRATED, instances=150,
          false={"the middle bound without lam KL(E‖BC)": {"refined": 0}, "the right-hand bound without it": {"bound": 0}})  # fmt: skip
def both_bounds(drawn, *, refined=1, bound=1):
    pi, lam = trained(drawn)
    parts = demonstration_gap(drawn.problem, pi, drawn.expert, drawn.clone, lam)
    cost = lam * enumerated_kl(drawn.problem, drawn.expert, drawn.clone)[0]
    return {
        "middle": (parts.gap, parts.refined - (1 - refined) * cost),
        "right": (parts.gap, parts.expert_gap + parts.learner_gap + bound * cost),
        "one below the other": (parts.refined, parts.bound),
    }


@C3.check(Inequality(1e-11, scale=3), Space(drawn=Drawn(Demonstrated.draw), epsilon=Floats(0.01, 0.5, log=True)), instances=150,
          false={"without what the regulariser costs": {"costs": 0}})  # fmt: skip
def at_the_papers_coefficient(drawn, epsilon, *, costs=1):
    pi, lam = trained(drawn, epsilon / visited_divergence(drawn.problem, drawn.expert, drawn.clone))
    parts = demonstration_gap(drawn.problem, pi, drawn.expert, drawn.clone, lam)
    reached = max(parts.learner_gap, epsilon) if costs else parts.learner_gap
    return greedy(drawn.problem)[1] - enumerated_return(drawn.problem, pi), parts.expert_gap + reached + costs * epsilon


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    Behaviour cloning with add-one smoothing converges in KL at the rate 1/N_E

    $E[\mathrm{KL}_{traj}(\pi^E\|\pi^{BC})]\le(A-1)\sum_h|\mathrm{supp}\,d^E_h|/(N_E+1)$ for every $N_E\ge1$ and expert; $N_E$ times it tends
    to the sum of $A-1-(k-1)/2$ over visited states with $k$ actions in use: factor 1 for deterministic experts, 1/2 for full support.
    With probability $1-\delta$, for $N_E\ge A$, $\mathrm{KL}_{traj}\le6SAH\log(2e^4N_E)\log(12HN_E^2/\delta)/N_E+18AH/N_E$, which is loose by
    more than 1000 at $N_E=50$, $S=5$, $A=H=3$, $\delta=.1$. Log-linear clones of log-linear experts with d features that sum to 1
    have the limit $H(d-1)/2$ (to 10 % at $N_E=6400$): states and actions do not count.

    where: corollary of the behaviour-cloning theorem on finite MDPs (constants recalled); the clean bound and the limits are derived
    assumes: Independent trajectories.
    """)  # fmt: skip


@C4.check(Inequality(1e-9), Space(problem=TabularMDPs(), expert=POLICIES, n=Integers(1, 1000), hard=Choice(0, 1), H=Sizes(1, 3), S=Sizes(1, 5),
                                  A=Sizes(2, 4)), instances=60,
          false={"with (A-1)/2": {"constant": 0.5}, "maximum likelihood, not smoothed": {"smoothing": 0.0}})  # fmt: skip
def clean_bound(problem, expert, n, hard, *, constant=1.0, smoothing=1.0):
    expert = hardened(expert) if hard else expert
    return expected_cloning_kl(problem, expert, int(n), smoothing), constant * cloning_bound(problem, expert, int(n))


@C4.check(Limit(tol=0.02), false={"half of A - 1 for every expert": {"half": True}})
def limits(rng, *, half=False):
    counts, parts = (250, 1000, 4000, 16000), {}
    for name in ("full support", "deterministic", "two of three actions"):
        problem = random_mdp(rng, 3, 5, 3)
        expert = random_policy(rng, problem)
        if name == "deterministic":
            expert = hardened(expert)
        elif name == "two of three actions":
            expert = log_normalize(np.where(expert == expert.min(axis=-1, keepdims=True), -np.inf, expert))
        limit = problem.shape[1] * problem.horizon if half else cloning_limit(problem, expert)
        parts[name] = counts, [n * expected_cloning_kl(problem, expert, n) / limit - 1 for n in counts]
    return parts


# the KL of a data set over its mean has deviation .3: an interval of ± .008, inside ± .03 with risk below 1e-8
@C4.check(Effect(seeds=6000, alternative="within", null=1.0, margin=0.03), false={"18 demonstrations for 20": {"drawn": 18}})
def the_expectation_is_that_of_data_sets(rngs, *, drawn=20):
    problem = random_mdp(rngs[0], 3, 5, 3)
    expert = random_policy(rngs[0], problem)
    where = np.broadcast_to(problem.transition, (len(rngs), *problem.transition.shape)), problem.initial
    cloned = clone(demonstration_counts(*where, expert, drawn, rngs[0]))
    found = expected_returns(problem.transition, problem.reward, problem.initial, expert, cloned)[1]
    return found / expected_cloning_kl(problem, expert, 20)


@C4.check(Inequality(), Space(data=Drawn(DataSet.draw)), instances=200,
          false={"the limit of the mean, S H (A-1)/(2 N_E), as a bound": {"mean": True}})  # fmt: skip
def high_probability(data, *, mean=False):
    found = visited_divergence(data.problem, data.expert, data.clone)
    bound = 15 / 50 if mean else high_probability_bound(data.problem.shape, 50, 0.1)
    return {"bound": (found, bound), "loose by 1000": (found if mean else 1000 * found, bound)}


# one data set in the limit is 1/N times half a chi-squared variable with 9 degrees: deviation .47 of the mean; ± .03 inside ± .1
@C4.check(Effect(seeds=1500, alternative="within", null=1.0, margin=0.1),
          false={"H d/2": {"used": 4}, "the tabular clone has the same limit": {"tabular": True}})  # fmt: skip
def log_linear_clones(rngs, *, used=3, tabular=False):
    rng, demonstrations = rngs[0], 6400
    linear = linear_problem(rng)
    problem, weights = linear.tabular(), 2 * rng.standard_normal((linear.horizon, 4))
    expert = log_normalize(np.einsum("sad,hd->hsa", linear.features, weights))
    where = np.broadcast_to(problem.transition, (len(rngs), *problem.transition.shape)), problem.initial
    counts = demonstration_counts(*where, expert, demonstrations, rng)
    cloned = clone(counts) if tabular else clone_log_linear(linear.features, counts, ridge=0.01)
    found = expected_returns(problem.transition, problem.reward, problem.initial, expert, cloned)[1]
    return demonstrations * found / (linear.horizon * used / 2)


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    The gap of imitation from the trajectory KL

    For returns in an interval of length R: $|V(\pi^E)-V(\pi^{BC})|\le R\sqrt{\mathrm{KL}_{traj}(\pi^E\|\pi^{BC})/2}$, and
    $V(\pi^E)-V(\pi^{BC})\le R(1-e^{-\mathrm{KL}})\le R\,\mathrm{KL}$ where $\pi^E$ is deterministic at every visited state.

    where: discussion of behaviour cloning (Pinsker); the deterministic form is derived
    """)  # fmt: skip
NEAR_EVEN = {"drawn": Imitated.two_arms([0.5, 0.5], [0.45, 0.55])}


@C5.check(Inequality(1e-11, scale=1), Space(drawn=Drawn(Imitated.draw)), instances=200, examples=[NEAR_EVEN],
          false={"KL/2 under the root for KL/3": {"constant": 1 / 3}})  # fmt: skip
def pinsker(drawn, *, constant=0.5):
    problem, expert, cloned = drawn
    gap = enumerated_return(problem, expert) - enumerated_return(problem, cloned)
    return abs(gap), pinsker_gap_bound(2 * constant * enumerated_kl(problem, expert, cloned)[0], problem.horizon)


@C5.check(Inequality(1e-11, scale=1), Space(drawn=Drawn(Imitated.draw_deterministic)), instances=200,
          examples=[{"drawn": Imitated.two_arms([1.0, 0.0], [0.9, 0.1])}],
          false={"for a stochastic expert": Variant({"part": "exponential"}, space=Space(drawn=Drawn(Imitated.draw)), examples=[NEAR_EVEN]),
                 "1 - exp(-KL/2)": {"constant": 0.5}})  # fmt: skip
def deterministic_experts(drawn, *, constant=1.0, part=None):
    problem, expert, cloned = drawn
    gap = enumerated_return(problem, expert) - enumerated_return(problem, cloned)
    divergence = enumerated_kl(problem, expert, cloned)[0]
    bound = deterministic_gap_bound(constant * divergence, problem.horizon)
    return {"exponential": (gap, bound), "linear": (bound, problem.horizon * divergence)}
