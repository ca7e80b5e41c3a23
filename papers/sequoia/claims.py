r"""Claims of "Reinforcement learning with combinatorial actions for coupled restless bandits" (SEQUOIA).

J arms of four states; a joint action is a 0/1 vector out of a feasible set, and moves every arm: up with probability ``up[k, j]``,
else down. A step pays ``sum_j R_j(s'_j)``, H = 20 steps, no discount where policies are compared. Sets of four kinds: multiple
interventions, paths, scheduling (bipartite) and capacities.
"""

from __future__ import annotations

import numpy as np

from klsim.claims import Effect, Identity, Inequality, Paper, Variant
from klsim.planning import evaluate, solve
from klsim.planning.network_milp import contains, feasible_actions
from klsim.planning.restless import additive_fit, choice_value, discounted_values, incremental_search, one_hot_policy
from klsim.problems.restless_bandit import CoupledRestlessBandit, saturating_link
from klsim.spaces import Choice, Drawn, Floats, Integers, Space

from . import setting as st
from .setting import BASELINES, DISCOUNT, ONE_WORKER, TREE, Calendars, Four, Packing, Walks

paper = Paper(
    "sequoia",
    title="Reinforcement learning with combinatorial actions for coupled restless bandits",
    authors="Lily Xu, Bryan Wilder, Elias B. Khalil, Milind Tambe",
    year=2025,
    arxiv="2503.01919",
)


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    A ReLU Q-network is embedded exactly in a mixed-integer programme

    For layers $W_k,b_k$ and binary $a\in A$ the optimum of $\max w_L^\top h_{L-1}+b_L$ subject to $W_kh_{k-1}+b_k=h_k-q_k$,
    $0\le h_k\le M^+_k(1-z_k)$, $0\le q_k\le M^-_kz_k$, $z_k$ binary, $h_0=(a,s)$ is $\max_{a\in A}Q(s,a)$ whenever $M^\pm$ are at least the
    largest positive and negative pre-activations that A has, and its a attains it. Interval arithmetic, layer by layer, gives such M, and each layer's are the
    smallest on the box that the layer before has.

    where: Section 4.2 (embedding); the bounds are derived
    """)  # fmt: skip


# HiGHS satisfies rows to 1e-7, which weights of layers with a norm of a few multiply: 1e-5
@C1.check(
    Identity(1e-5, scale=1), Space(four=Drawn(Four.draw)), instances=1,
    false={"M = .8, below the activations (interventions and capacities)": {"big_m": (0.8, 0.8), "kinds": ("multi", "capacity")}},
)  # fmt: skip
def on_the_four_problems(four, *, big_m=None, kinds=Four._fields):
    """Networks 16-32, random or default weights; the set is enumerated by brute force, without its rows."""
    return {kind: (getattr(four, kind).programme(big_m), getattr(four, kind).best()) for kind in kinds}


def big_m_of(query, bounds):
    """``(M+, M-)``, by name."""
    ends = {"any state in the box": (0.0, st.STATES - 1.0), "state 0": (0.0, 0.0)}.get(bounds)
    if "attained" in bounds:
        exact = [(x.min(axis=0), x.max(axis=0)) for x in pre_activations(query, query.points())[:-1]]
    else:
        exact = query.bounds(ends)[:-1]
    plus, minus = [np.maximum(u, 0) for _, u in exact], [np.maximum(-low, 0) for low, _ in exact]
    if bounds == "exchanged":
        plus, minus = minus, plus
    factor = {"three times": 3.0, "half": 0.5, ".95 of the attained": 0.95}.get(bounds, 1.0)
    return [factor * p for p in plus], [factor * m for m in minus]


@C1.check(
    Identity(1e-5, scale=1), Space(query=Drawn(st.small_query)), instances=6,
    false={"M+ and M- exchanged": {"bounds": ("exchanged",)}, "half of M": {"bounds": ("half",)},
           "M of the state 0": {"bounds": ("state 0",)}, ".95 of the smallest M": {"bounds": (".95 of the attained",)}},
)  # fmt: skip
def any_valid_bounds(query, *, bounds=("interval", "three times", "any state in the box", "attained on A")):
    """Larger M change nothing, down to the smallest, those attained by the actions of A; hidden layers of 6 and 5."""
    return {name: (query.programme(big_m_of(query, name)), query.best()) for name in bounds}


@C1.check(
    Identity(1e-5, scale=1), Space(query=Drawn(st.trained_query)), instances=1,
    false={"M = .8, below the activations": {"big_m": (0.8, 0.8)}},
)  # fmt: skip
def on_a_fitted_network(query, *, big_m=None):
    """Relative to Q, which is some tens here."""
    best = query.best()
    return query.programme(big_m), best, 1 + np.abs(best)


def pre_activations(query, points):
    """Of the layers in turn, rows as ``points``."""
    out, h = [], points
    for weights, bias in zip(query.parameters[::2], query.parameters[1::2]):
        out.append(h @ weights.T + bias)
        h = np.maximum(out[-1], 0)
    return out


@C1.check(
    Inequality(1e-12, scale=1), Space(query=Drawn(st.small_query)), instances=20,
    false={"ends that a negative weight does not exchange": {"signed": False}},
)  # fmt: skip
def interval_arithmetic(query, *, signed=True):
    """Against all corners of the box and points inside it: valid in every layer, and attained on the box of the layer before."""
    found = query.bounds()
    if not signed:
        low, high, found = np.concatenate([np.zeros(4), query.state]), np.concatenate([np.ones(4), query.state]), []
        for weights, bias in zip(query.parameters[::2], query.parameters[1::2]):
            found.append((weights @ low + bias, weights @ high + bias))
            low, high = (np.maximum(x, 0) for x in found[-1])
    inside = np.random.default_rng(len(query.state)).random((200, 4))
    actions = np.concatenate([st.binary(4), inside])
    seen = pre_activations(query, np.concatenate([actions, np.tile(query.state, (len(actions), 1))], axis=1))
    out = {f"layer {k + 1}": (np.concatenate([low, x.max(axis=0)]), np.concatenate([x.min(axis=0), high]))
           for k, ((low, high), x) in enumerate(zip(found, seen))}  # fmt: skip
    outputs = np.where(st.binary(len(found[0][0])), np.maximum(found[0][1], 0), np.maximum(found[0][0], 0))
    for name, x, (low, high) in (
        ("attained", seen[0], found[0]),
        ("layer 2, attained on the first's box", outputs @ query.parameters[2].T + query.parameters[3], found[1]),
    ):
        out[name] = np.concatenate([x.min(axis=0), high]), np.concatenate([low, x.max(axis=0)])
    return out


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    The constraint rows describe the intended action sets

    Projected on the action a the models are: at most B entries; nodes of a closed walk of at most L = 2B moves from the source (exactly L
    steps, waiting allowed), at most B of them chosen; arms that can each have two (worker, slot) units, a worker serving one arm a slot,
    both free then, at most B arms; arms that pack into the workers' capacities. Waiting arcs matter: on the 7-cycle with B = 4 the nodes
    {1,3,4,6} need 7 moves and a wait. Under the released path rows, which let loops run beside the walk, only the budget is left.

    where: the four problems (Section 3); rows of the released code as repaired in C2-loops, the rest derived
    """)  # fmt: skip


def counted(inside):
    """The number of vectors in a set, and then for each whether it is in."""
    return np.concatenate([[inside.sum()], inside])


def admitted(chosen, **rows):
    """The 0/1 vectors with which the rows have a solution: their number, and 1 or 0 for each."""
    model = chosen.model(**rows)
    return counted(np.array([float(contains(model, v)) for v in st.binary(model.size)]))


def meant(chosen, **options):
    vectors = chosen.vectors(**options)
    return counted(st.inside(vectors, vectors.shape[1]))


@C2.check(
    Identity(), Space(walks=Drawn(Walks.draw)), instances=4, examples=[{"walks": TREE}, {"walks": TREE._replace(length=2, budget=1)}],
    false={"loops beside the walk": {"rows": {"loose_loops": True}}, "one move fewer": {"fewer": 1}},
)  # fmt: skip
def walks(walks, *, rows=None, fewer=0):
    """Random connected graphs of 5 nodes and the tree 2-1-0-3-4; walks by sets of pairs (node, visited set)."""
    return admitted(walks._replace(length=walks.length - fewer), **(rows or {})), meant(walks)


@C2.check(Identity(), examples=[{}], false={"no waiting arcs": {"waiting": False}})
def waiting(*, waiting=True):
    """{1,3,4,6} on the 7-cycle, and the walks that have it with and without waiting."""
    vector = np.isin(np.arange(7), (1, 3, 4, 6)).astype(int)
    walked = [any({1, 3, 4, 6} <= seen for seen in st.CYCLE.visited(w)) for w in (True, False)]
    return np.array([contains(st.CYCLE.model(waiting=waiting), vector), *walked], dtype=float), np.array(
        [1.0, 1.0, 0.0]
    )


@C2.check(
    Identity(), Space(calendars=Drawn(Calendars.draw)), instances=5, examples=[{"calendars": ONE_WORKER}],
    false={"a row more: the units of an arm from different workers": {"rows": {"distinct": True}},
           "one unit an arm": {"rows": {"units": 1}}},
)  # fmt: skip
def schedules(calendars, *, rows=None):
    """Four arms, two workers; units are chosen arm by arm, recursively."""
    return admitted(calendars, **(rows or {})), meant(calendars)


POOLED = Packing(np.array([5, 5, 2, 6]), np.array([4, 6]))


@C2.check(
    Identity(), Space(packing=Drawn(Packing.draw)), instances=5, examples=[{"packing": POOLED}],
    false={"capacities pooled": {"pooled": True}},
)  # fmt: skip
def packings(packing, *, pooled=False):
    """Four arms, two workers; all assignments are tried."""
    model = packing._replace(capacities=packing.capacities.sum(keepdims=True)) if pooled else packing
    return admitted(model), meant(packing)


@C2.check(Identity(), Space(budget=Drawn(st.Budget.draw)), instances=20, false={"fewer than B": {"less": 1}})
def budgets(budget, *, less=0):
    return admitted(budget._replace(budget=max(budget.budget - less, 0))), meant(budget)


@C2.check(
    Identity(), Space(walks=Drawn(Walks.draw)), instances=2, examples=[{"walks": TREE}, {"walks": TREE._replace(length=2, budget=1)}],
    false={"loops counted as moves": {"rows": {"loose_loops": False}}},
)  # fmt: skip
def released_rows_leave_the_budget(walks, *, rows=None):
    """What the released path rows admit is what the budget admits; on the tree that is {1,4}, {2,3}, {2,4} more."""
    only = st.Budget(len(walks.adjacency), walks.budget)
    return admitted(walks, **(rows or {"loose_loops": True})), meant(only)


def nodes_of(vectors):
    """``{1, 4}`` as 14, for 0/1 vectors."""
    return [int("".join(map(str, np.flatnonzero(v)))) for v in vectors]


@C2.check(Identity(), examples=[{}], false={"walks of three moves": {"length": 3}})
def sets_in_numbers(*, length=4):
    """On the tree 13 of 32 vectors, under the released rows {1,4}, {2,3}, {2,4} more; one worker for four arms: 5 vectors, or 1."""
    inner, outer = (feasible_actions(TREE._replace(length=length).model(loose_loops=loose)) for loose in (False, True))
    more = sorted(nodes_of([v for v in outer if v.tolist() not in inner.tolist()]))[:3]
    served = [len(feasible_actions(ONE_WORKER.model(distinct=d))) for d in (False, True)]
    found = [len(inner), len(outer), *more, *[0] * (3 - len(more)), *served]
    return np.array(found, dtype=float), np.array([13.0, 16, 14, 23, 24, 5, 1])


C2_loops = paper.claim("C2-loops", r"""
    The released path rows keep the chosen nodes on one walk from the source

    The rows' comment says "all pulled arms are visited along path", that is on a closed walk of L moves from the source. One unit of flow a
    step is asked of the real edges; conservation of flow and visits also sum over self-loop variables (j, j), which the graphs do not contain.

    where: released code, path constraint
    instead: A loop y[t,j,j] = 1 for all t at any node j satisfies conservation and counts as a visit, beside the walk: only the budget binds.
    With waiting arcs in the unit-flow rows, and none away from the source at the ends, the rows are right.
    by: C2/walks, C2/released_rows_leave_the_budget
    origin: released code
    """)  # fmt: skip


@C2_loops.check(
    Identity(), Space(walks=Drawn(Walks.draw)), instances=3, examples=[{"walks": TREE}],
    true={"loops counted as moves": {"loose_loops": False}},
)  # fmt: skip
def one_walk(walks, *, loose_loops=True):
    return admitted(walks, loose_loops=loose_loops), meant(walks)


C2_workers = paper.claim("C2-workers", r"""
    The scheduling rows give every chosen arm two different workers

    The rows are $\sum_jx_{ijs}\le1$ and $2a_j\le\sum_{is}x_{ijs}$; the code's comment ("each assigned arm has two workers") and its
    iterative baselines have two different workers serve an arm.

    where: released code, scheduling constraint
    instead: One worker may serve both units, in two slots. If every arm is free in slots {0,1} and the workers in {0,1,2} and {2,3,4}, five
    vectors are feasible (none and the singles), with different workers only the null vector. The row $\sum_sx_{ijs}\le1$ for each i, j
    repairs it.
    by: C2/schedules
    origin: released code
    """)  # fmt: skip


@C2_workers.check(
    Identity(), Space(calendars=Drawn(Calendars.draw)), instances=3, examples=[{"calendars": ONE_WORKER}],
    true={"with the row": {"distinct": True}},
)  # fmt: skip
def two_workers(calendars, *, distinct=False):
    return admitted(calendars, distinct=distinct), meant(calendars, distinct=True)


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    Myopic planning fails where the way to the top is paid worse

    Two arms, one pull (a pulled arm goes up, the other down, in {0,1,2}, from (0,0)), $R=[[.2,.1,T],[.1,.2,t]]$: the optimal return is
    $.2+(H-1)(T+.1)$, that of the best next reward $.4+(H-1)(.2+t)$. At T = 10, t = 1, H = 20: 192.1 and 23.2, a ratio of 8.28. With monotone
    rewards $[[0,T/2,T],[0,t/2,t]]$ myopic is optimal (195.0).

    where: the stylised instance of the released code; the formulas in T, t and H are derived
    assumes: $4\le T\le20$, $.5\le t\le2$.
    """)  # fmt: skip


def stylised(top, other, horizon, monotone=False):
    """Pulling the second arm, the first, or none."""
    vectors = np.array([[0, 1], [1, 0], [0, 0]])
    moves = np.array([[[1, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 0], [0, 0, 1], [0, 0, 1]]], dtype=float)
    rows = [[0.0, top / 2, top], [0.0, other / 2, other]] if monotone else [[0.2, 0.1, top], [0.1, 0.2, other]]
    return CoupledRestlessBandit(vectors, moves[vectors], np.array(rows), np.tile([1.0, 0, 0], (2, 1)), horizon)


def returns(bandit, look=1):
    """Of the optimum, and of the best sum of the next ``look`` rewards."""
    optimum = solve(bandit, beta=0)
    ahead = solve(CoupledRestlessBandit(bandit.actions, bandit.transition, bandit.reward, bandit.initial, look), beta=0)
    planned = evaluate(bandit, one_hot_policy(bandit, ahead.q_value[0].argmax(axis=1)))
    return float(bandit.start @ optimum.value[0]), planned.reward


GAME = Space(top=Floats(4.0, 20.0), other=Floats(0.5, 2.0), horizon=Integers(2, 30))


@C3.check(
    Identity(1e-12), GAME, batched=False, instances=20, examples=[{"top": 10.0, "other": 1.0, "horizon": 20}],
    false={"two rewards ahead": {"look": 2}, "every step at the top": {"climb": 0}},
)  # fmt: skip
def closed_forms(top, other, horizon, *, look=1, climb=1):
    optimal, myopic = returns(stylised(top, other, int(horizon)), look)
    return {
        "optimal": (optimal, 0.2 * climb + (horizon - climb) * (top + 0.1)),
        "myopic": (myopic, 0.4 + (horizon - 1) * (0.2 + other)),
    }


@C3.check(Identity(1e-12), examples=[{}], false={"H = 10": {"horizon": 10}})
def the_digits(*, horizon=20):
    """192.1, 23.2, the ratio to two digits, and 195.0 twice."""
    optimal, myopic = returns(stylised(10.0, 1.0, horizon))
    return np.array([optimal, myopic, round(optimal / myopic, 2), *returns(stylised(10.0, 1.0, horizon, True))]), np.array(
        [192.1, 23.2, 8.28, 195.0, 195.0])  # fmt: skip


@C3.check(Identity(1e-12), GAME, batched=False, instances=12, false={"the stylised rewards": {"monotone": False}})
def monotone_rewards_cure_it(top, other, horizon, *, monotone=True):
    optimal, myopic = returns(stylised(top, other, int(horizon), monotone))
    return optimal, myopic


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    Coupling: an additive action score loses value where interventions overlap

    Per state the exact $Q^*(s,\cdot)$ ($\gamma=.9$) is regressed on $(1,a_1,\dots,a_d)$ and the argmax of the fit over A acts. With 4 arms of
    sigmoid links, each reacting to its own 3 of 6 interventions (at most 3 used), this loses more than 1 % of the 20-step value on average,
    and takes an action that is worse by $Q^*$ in more than a tenth of the states. It loses nothing (to .001) if an arm's move depends on its own pull alone and
    only the set is combinatorial, nor (to .005) if the interventions come in two disjoint groups, one for the good and one for the bad arms, as
    published: overlap is what matters, not the sigmoid. Here and in C5 and C6 values, fits and greedy additions are exact (against the joint chain written out,
    move by move).

    where: derived (an operationalisation of "cannot be decoupled")
    """)  # fmt: skip


@C4.check(
    Identity(1e-9, scale=1), Space(bandit=st.SMALL, discount=Floats(0.5, 0.9)), instances=6,
    false={"a step pays for the state that it leaves": {"paid": "present"}, "a fit without a constant": {"constant": 0},
           "additions that take any gain": {"first": True}},
)  # fmt: skip
def exact_parts(bandit, discount, *, paid="next", constant=1, first=False):
    """Three arms of three states, any chains, actions of three entries: joint moves are enumerated, values iterated on the joint chain."""
    (moves, reward), q = st.joint(bandit, paid), discounted_values(bandit, float(discount), tolerance=1e-12)
    value, ahead, optimum = np.zeros(len(moves)), np.zeros(len(moves)), np.zeros(len(moves))
    for _ in range(400):
        value = (reward + discount * moves @ value).max(axis=1)
    choice, every = q.argmax(axis=1), np.arange(len(moves))
    for _ in range(bandit.horizon):
        ahead = reward[every, choice] + moves[every, choice] @ ahead
        optimum = (reward + moves @ optimum).max(axis=1)
    design = np.column_stack([np.full(len(bandit.actions), constant), bandit.actions])
    return {
        "Q*": (q, reward + discount * moves @ value),
        "H steps": (choice_value(bandit, choice), ahead),
        "optimum": (solve(bandit, beta=0).value[0], optimum),
        "fit": (additive_fit(bandit.actions, q), (design @ np.linalg.lstsq(design, q.T, rcond=None)[0]).T),
        "additions": (np.take_along_axis(q, incremental_search(bandit.actions, q)[:, None], axis=1)[:, 0],
                      np.array([st.additions(bandit.actions, row, first) for row in q])),
    }  # fmt: skip


def additive_loss(rng, problem):
    """Lost share of the 20-step value, and share of states with a worse action."""
    bandit = st.interventions(rng, problem) if problem in ("overlapping", "groups") else st.PROBLEMS[problem](rng)
    q = discounted_values(bandit, DISCOUNT)
    fit = additive_fit(bandit.actions, q).argmax(axis=1)
    worse = q[np.arange(len(q)), fit] < q.max(axis=1) - 1e-6
    return 1 - st.per_step(bandit, fit) / st.per_step(bandit, q.argmax(axis=1)), worse.mean()


# loss: mean .05 to .15, deviation .08 to .15 in the digest's and own pilots; share .3 to .5, deviation .2
@C4.check(
    Effect(seeds=80),
    false={"an arm moves by its own pull alone": Variant({"problem": "bipartite"}, kind=Effect(seeds=20)),
           "two disjoint groups": Variant({"problem": "groups"}, kind=Effect(seeds=20))},
)  # fmt: skip
def overlapping_interventions(rngs, *, problem="overlapping"):
    loss, worse = np.transpose([additive_loss(r, problem) for r in rngs])
    return {"value lost, above .01": loss - 0.01, "states, above .1": worse - 0.1}


@C4.check(
    Effect(seeds=20, alternative="within", margin=0.001),
    false={"overlapping interventions": {"problem": "overlapping"}},
)
def separable_dynamics(rngs, *, problem="bipartite"):
    return np.array([additive_loss(r, problem)[0] for r in rngs])


@C4.check(
    Effect(seeds=20, alternative="within", margin=0.005),
    false={"overlapping interventions": {"problem": "overlapping"}},
)
def disjoint_groups(rngs, *, problem="groups"):
    return np.array([additive_loss(r, problem)[0] for r in rngs])


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    SEQUOIA beats myopic and heuristic baselines, and is near the optimum

    $\arg\max_{a\in A}Q_\theta(s,a)$ (by enumeration; C1: it is the programme's), Q fitted by bootstrapped regression, earns more in 20 steps than the best of null,
    random, greedy-myopic and exactly myopic actions: by more than the paper's 24.8 % (logarithm of the ratio, mean over the four problems), and
    on average at least .9 of the optimum by backward induction; the myopic actions earn less than .8 of it. Greedy
    additions on the same networks keep at least .98 of SEQUOIA's value in the three problems without sigmoid links (see C6).

    where: main results (Section 6), +24.8 % on average; sizes here: J = 4 (paths 5), B = 2 (interventions N = 6, B = 3); instances derived
    assumes: Sets of at least five vectors.
    """)  # fmt: skip


# at 5 other seeds: log ratio 1.07, shares .985 and .40, deviations .10, .017 and .05; the risk is below 1e-4 for these at
# 4 seeds (.95 for .9: .08 at 5). Greedy additions: .9993, deviation .0065 over 16 other seeds: 8
@C5.check(
    Effect(seeds=8), false={"the exact next reward in place of the network": Variant({"scored": "next reward"}, kind=Effect(seeds=4))},
)  # fmt: skip
def beats_the_baselines(rngs, *, scored="network"):
    found = st.study(rngs, scored=scored)
    gain = [np.log(f["SEQUOIA"] / np.max([f[m] for m in BASELINES], axis=0)) for f in found.values()]
    kept_elsewhere = [f["iterative DQN"] / f["SEQUOIA"] for kind, f in found.items() if kind != "multi"]
    share = {m: np.mean([f[m] / f["optimum"] for f in found.values()], axis=0) for m in ("SEQUOIA", "myopic")}
    return {
        "log ratio, above log 1.248": np.mean(gain, axis=0) - np.log(1.248),
        "share of the optimum, above .9": share["SEQUOIA"] - 0.9,
        "myopic share, below .8": 0.8 - share["myopic"],
        "greedy additions elsewhere, above .98": np.mean(kept_elsewhere, axis=0) - 0.98,
    }


@C5.check(
    Identity(1e-10), Space(slopes=Drawn(st.slopes)), instances=5,
    false={"means that start from 0": {"corrected": False}, "the first rate to the end": {"late": 7}},
)  # fmt: skip
def steps_of_the_fit(slopes, *, corrected=True, late=4):
    """Adam: the rate times the mean gradient over the root mean square, the means with weights that fall by .9 and .999 a step."""

    def mean(values, fall):
        weights = fall ** np.arange(len(values))[::-1]
        return np.tensordot(weights / (weights.sum() if corrected else 1 / (1 - fall)), values, 1)

    seen = [slopes[: t + 1] for t in range(len(slopes))]
    moves = [-mean(g, 0.9) / (np.sqrt(mean(g**2, 0.999)) + 1e-8) for g in seen]
    rates = np.where(np.arange(len(slopes)) < late, st.RATE, st.LAST_RATE)
    return st.adam_steps(slopes, 4), np.array(moves) * rates[:, None, None], st.RATE


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    Optimising over whole actions matters where interventions are complementary

    Greedy additions (from a = 0 the feasible entry with the largest Q, until none raises it) on the *same fitted* network keep less than .9 of
    SEQUOIA's value with sigmoid links (in the other three problems C5 has .98 or more). One intervention raises a good arm's chance by .002 to
    .035, three by .6 or more. On the exact $Q^*$ greedy additions are worse in more than half of all states and still keep at least .9 of the value
    along the trajectories on average, with overlapping interventions as well.

    where: ablation with iterative DQN; the mechanism is derived
    """)  # fmt: skip


def kept(bandit, q):
    """Value of greedy additions on q, as a share of that of its argmax."""
    return st.per_step(bandit, incremental_search(bandit.actions, q)) / st.per_step(bandit, q.argmax(axis=1))


# mean .42, deviation .30 over 12 instances, .39 and .37 over 14 others (the digest: .08 to 1, mean .37 over 16): a risk of 1e-4 takes 22
@C6.check(
    Effect(seeds=22, alternative="less", null=0.9),
    false={"the exact Q* in place of the network": {"exact": True}},
)
def greedy_additions_lose(rngs, *, exact=False):
    if not exact:
        found = st.study(rngs, ("multi",))["multi"]
        return found["iterative DQN"] / found["SEQUOIA"]
    bandits = [st.interventions(r) for r in rngs]
    return np.array([kept(b, discounted_values(b, DISCOUNT)) for b in bandits])


@C6.check(
    Identity(1e-12), Space(height=Floats(0.2, 1.0), slope=Floats(1.0, 1.9), midpoint=Floats(1.0, 10.0), x=Floats(0.0, 10.0)), instances=200,
    false={"a midpoint of x, not of the exponent": {"of_x": True}, "without the factor .98": {"share": 1.0}},
)  # fmt: skip
def the_link(height, slope, midpoint, x, *, of_x=False, share=0.98):
    """.01 and the integral of the logistic density; 60 points."""
    at, weights = np.polynomial.legendre.leggauss(60)
    exponent = slope[..., None] * x[..., None] * (1 + at) / 2 - (slope * midpoint if of_x else midpoint)[..., None]
    area = slope * x / 2 * (weights / (4 * np.cosh(exponent / 2) ** 2)).sum(axis=-1)
    return saturating_link(x, height, slope, midpoint), 0.01 + share * height * area


@C6.check(
    Inequality(1e-12), Space(height=Floats(0.7, 1.0), slope=Floats(1.4, 1.9), midpoint=Choice(9.0, 10.0)), instances=500,
    false={"two interventions": {"units": 6.0}, "three of half the weight": {"all_three": 4.5}},
)  # fmt: skip
def one_does_nothing(height, slope, midpoint, *, units=3.0, all_three=9.0):
    def raised(x):
        return saturating_link(x, height, slope, midpoint) - saturating_link(0.0, height, slope, midpoint)

    low, high, three = np.full(height.shape, 0.002), np.full(height.shape, 0.035), np.full(height.shape, 0.6)
    return {
        "at least .002": (low, raised(units)),
        "at most .035": (raised(units), high),
        "three": (three, raised(all_three)),
    }


# share of states .77, deviation .05; kept .985 and .998, deviations .017 and .003, but one of 14 other draws must have been near .6:
# a mean of .96 with deviation .1, and 30 seeds did not show it one time in 25
@C6.check(
    Effect(seeds=80), false={"arms that are pulled": Variant({"problem": "bipartite"}, kind=Effect(seeds=10))},
)  # fmt: skip
def on_the_exact_optimum(rngs, *, problem="groups"):
    out = {"states, above .5": [], "kept, above .9": [], "kept with overlap, above .9": []}
    for r in rngs:
        bandit = st.interventions(r) if problem == "groups" else st.PROBLEMS[problem](r)
        q = discounted_values(bandit, DISCOUNT)
        reached = np.take_along_axis(q, incremental_search(bandit.actions, q)[:, None], axis=1)[:, 0]
        out["states, above .5"].append(np.mean(reached < q.max(axis=1) - 1e-6) - 0.5)
        out["kept, above .9"].append(kept(bandit, q) - 0.9)
        overlapping = st.interventions(r, "overlapping")
        out["kept with overlap, above .9"].append(kept(overlapping, discounted_values(overlapping, DISCOUNT)) - 0.9)
    return {name: np.array(values) for name, values in out.items()}


C6_exact = paper.claim("C6-exact", r"""
    Greedy additions lose value because the exact Q* is complementary

The mechanism that the sigmoid links suggest: a single intervention is worth next to nothing, so additions one at a time cannot find pairs, whatever
    the fit; then on the exact $Q^*$ they would lose a tenth of the value as well.

    where: derived (a reading of iterative DQN against SEQUOIA)
    instead: The exact $Q^*$ still orders the small gains where it matters: greedy additions are worse in most states, but keep .9 of the value
    or more on average. The loss is of greedy additions together with the error of the fit.
    by: C6/on_the_exact_optimum, C6/greedy_additions_lose
    origin: derived
    """)  # fmt: skip


@C6_exact.check(Effect(seeds=60), true={"counted in states": Variant({"count": "states"}, kind=Effect(seeds=15))})
def loses_a_tenth(rngs, *, count="value"):
    out = []
    for r in rngs:
        bandit = st.interventions(r)
        q = discounted_values(bandit, DISCOUNT)
        reached = np.take_along_axis(q, incremental_search(bandit.actions, q)[:, None], axis=1)[:, 0]
        lost = 1 - kept(bandit, q) if count == "value" else np.mean(reached < q.max(axis=1) - 1e-6)
        out.append(lost - 0.1)
    return np.array(out)
