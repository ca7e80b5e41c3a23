r"""Claims of "Random Policy Valuation is Enough for LLM Reasoning with Verifiable Rewards" (ROVER).

A deterministic, finite-horizon decision problem with a binary reward at the end. ``Q_u`` is the value of the
uniform policy, ``rho`` the temperature of ``softmax(Q_u / rho)``. Regular token trees are arrays over leaves;
irregular ones are nested `Node` tuples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize

from klsim.claims import Effect, Identity, Inequality, Limit, Paper
from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.planning import evaluate
from klsim.problems import DiscountedMDP, TabularMDP
from klsim.problems.token_tree import reverse_sums, sequence_log_probs
from klsim.spaces import Choice, Floats, Integers, Seeds, Space

paper = Paper(
    "rover",
    title="Random Policy Valuation is Enough for LLM Reasoning with Verifiable Rewards",
    authors="Haoran He, Yuxiao Ye, Qingpeng Cai, Chen Hu, Binxing Jiao, Daxin Jiang, Ling Pan",
    year=2025,
    arxiv="2509.24981",
)


class Node(NamedTuple):
    """A leaf has a reward and no children; ``weights`` is the evaluation policy over the children."""

    reward: float
    children: tuple
    weights: np.ndarray


def random_tree(rng, rewards=(0.0, 1.0), chances=(0.85, 0.15), *, uniform=True):
    """Depth 2 to 5; below the root a node ends with probability .15, else it has 1 to 4 children."""
    depth = int(rng.integers(2, 6))

    def grow(level):
        if level == depth or (level > 0 and rng.random() < 0.15):
            return Node(float(rng.choice(rewards, p=chances)), (), np.empty(0))
        count = int(rng.integers(1, 5))
        weights = np.full(count, 1 / count) if uniform else rng.dirichlet(np.ones(count))
        return Node(0.0, tuple(grow(level + 1) for _ in range(count)), weights)

    return grow(0)


def value(node):
    """Value of the evaluation policy."""
    if not node.children:
        return node.reward
    return float(node.weights @ [value(c) for c in node.children])


def best(node):
    """Largest reward that can be reached."""
    return max(map(best, node.children)) if node.children else node.reward


def greedy(node, rng):
    """Reward of acting greedily on the evaluation policy's values, ties broken at random."""
    while node.children:
        q = np.array([value(c) for c in node.children])
        node = node.children[rng.choice(np.flatnonzero(q >= q.max() - 1e-15))]
    return node.reward


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim(
    "C1",
    "Greedy on the random policy's value is optimal",
    statement=r"Deterministic transitions, finite horizon, terminal reward in $\{0,R\}$: a greedy policy with respect to"
    r" $Q^{\pi_u}$, with any tie-break, attains the optimal value; so does one for any full-support evaluation policy.",
    where="Theorem 3.1 (any full-support policy: derived)",
)
C1_SPACE = Space(seed=Seeds(), uniform=Choice(True, False))


@C1.check(Identity(1e-12), C1_SPACE, batched=False, instances=400)
def greedy_is_optimal(seed, uniform):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, uniform=bool(uniform))
    return greedy(tree, rng), best(tree)


@greedy_is_optimal.control("also for graded rewards 0, .4, 1")
def graded_rewards(seed, uniform):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, (0.0, 0.4, 1.0), (0.7, 0.2, 0.1), uniform=bool(uniform))
    return greedy(tree, rng), best(tree)


@greedy_is_optimal.control("also for stochastic transitions", examples=[{}])
def stochastic_transitions():
    """Action 0 wins with probability .6; action 1 leads to a choice that wins with .9 or loses."""
    q_uniform = np.array([0.6, 0.45])
    return float(np.array([0.6, 0.9])[q_uniform.argmax()]), 0.9


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim(
    "C2",
    "Neither the tree nor acyclicity is needed",
    statement=r"The theorem holds in deterministic layered DAGs, and for $\gamma<1$ in deterministic graphs with cycles: greedy"
    r" reaches a correct terminal state whenever one is reachable.",
    where="derived",
    origin="derived",
)


def _dag(rng):
    """H = 5 layers of 4 states, 3 actions, uniform successors; each final state correct with probability .15."""
    successors = rng.integers(0, 4, (5, 4, 3))
    correct = (rng.random(4) < 0.15).astype(float)
    transition, reward = np.eye(4)[successors], np.zeros((5, 4, 3))
    reward[4] = correct[successors[4]]
    return TabularMDP(transition, reward, np.eye(4)[0], 5), successors, correct


@C2.check(Identity(1e-12), Space(seed=Seeds()), batched=False, instances=400)
def greedy_on_dags(seed):
    rng = np.random.default_rng(seed)
    problem, successors, correct = _dag(rng)
    values = evaluate(problem, np.full(problem.shape, -math.log(3))).state_value
    values = np.concatenate([values[:5], correct[None]])
    reachable, state = {0}, 0
    for t in range(5):
        q = values[t + 1][successors[t, state]]
        state = successors[t, state, rng.choice(np.flatnonzero(q >= q.max() - 1e-15))]
        reachable = {int(s) for r in reachable for s in successors[t, r]}
    return correct[state], max(correct[list(reachable)])


def _graph(rng, win, lose):
    """6 ordinary states, one that wins and one that loses (both absorbing), 3 actions."""
    successors = rng.integers(0, 8, (8, 3))
    successors[win], successors[lose] = win, lose
    return successors


def _greedy_walk(successors, q, win, rng):
    state = 0
    for _ in range(200):
        row = q[state]
        state = successors[state, rng.choice(np.flatnonzero(row >= row.max() - 1e-12))]
        if state == win:
            return 1.0
    return 0.0


@C2.check(Identity(1e-12), Space(seed=Seeds()), batched=False, instances=400)
def greedy_on_graphs_with_cycles(seed):
    rng = np.random.default_rng(seed)
    win, lose, discount = 6, 7, 0.9
    successors = _graph(rng, win, lose)
    reward = ((successors == win) & (np.arange(8) != win)[:, None]).astype(float)
    problem = DiscountedMDP(np.eye(8)[successors], reward, discount, np.eye(8)[0])
    values = evaluate(problem, np.full((8, 3), -math.log(3))).state_value
    q = reward + discount * values[successors]
    reachable = {0}
    for _ in range(8):
        reachable |= {int(s) for r in reachable for s in successors[r]}
    return _greedy_walk(successors, q, win, rng), float(win in reachable)


@greedy_on_graphs_with_cycles.control("also for discount 1, with any tie-break", examples=[{}])
def cycle_without_discount():
    """s1 -> {s2, e}, s2 -> {s1, e}, e -> {win, lose}: every value is 1/2; breaking ties towards s1, s2 never ends."""
    successors = np.array([[1, 2], [0, 2], [3, 4], [3, 3], [4, 4]])
    values = np.array([0.5, 0.5, 0.5, 1.0, 0.0])
    state = 0
    for _ in range(200):
        state = successors[state, values[successors[state]].argmax()]
    return float(state == 3), 1.0


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim(
    "C3",
    "What softmax sampling loses, exactly",
    statement=r"For $\pi_s=\mathrm{softmax}(Q_u/\rho)$ and a solvable start,"
    r" $$V(s_0)=R\Big(1-\sum_{s\in P}\Pr(s|s_0)\frac{N(s)}{N(s)+\sum_{a:Q_u>0}e^{Q_u(s,a)/\rho}}\Big),$$"
    r" with $P$ the reachable states that have both zero and positive values, $N(s)$ the number of zeros; the paper's bound has"
    r" $e^{\max_aQ_u/\rho}$ for the sum.",
    where="Theorem 3.2 (equality and solvability condition derived)",
)


def _softmax_terms(node, rho, reach=1.0):
    """``(value of softmax(Q/rho), exact loss, printed loss)`` below ``node``, weighted by ``reach``."""
    if not node.children:
        return reach * node.reward, 0.0, 0.0
    q = np.array([value(c) for c in node.children])
    if not q.any():
        return 0.0, 0.0, 0.0
    p = np.exp(log_normalize(q / rho))
    zeros = q == 0
    exact = reach * p[zeros].sum()
    n = zeros.sum()
    printed = reach * n / (n + math.exp(min(q.max() / rho, 700.0))) if n else 0.0
    total = np.array([0.0, exact, printed])
    for child, weight in zip(node.children, p):
        total += _softmax_terms(child, rho, reach * weight)
    return tuple(total)


C3_SPACE = Space(seed=Seeds(), rho=Choice(1.0, 0.3, 0.05))


def _solvable(seed):
    rng = np.random.default_rng(seed)
    while True:
        tree = random_tree(rng)
        if best(tree) == 1:
            return tree


@C3.check(Identity(1e-12), C3_SPACE, batched=False, instances=300)
def exact_loss(seed, rho):
    achieved, lost, _ = _softmax_terms(_solvable(seed), rho)
    return achieved, 1 - lost, 1.0


@C3.check(Inequality(1e-12), C3_SPACE, batched=False, instances=300)
def printed_bound(seed, rho):
    achieved, _, lost = _softmax_terms(_solvable(seed), rho)
    return 1 - lost, achieved, 1.0


@printed_bound.control("the same for a start that is not solvable", examples=[{}])
def unsolvable_start():
    achieved, _, lost = _softmax_terms(Node(0.0, (Node(0.0, (), np.empty(0)),) * 2, np.full(2, 0.5)), 1.0)
    return 1 - lost, achieved, 1.0


# C4, C5 --------------------------------------------------------------------------------------------
def tree_values(reward, branching, horizon):
    """``Q_u`` of a regular tree, level by level."""
    uniform = tuple(np.full((branching**t, branching), -math.log(branching)) for t in range(horizon))
    leaf = [np.zeros((branching**t, branching)) for t in range(horizon)]
    leaf[-1] = reward.reshape(-1, branching)
    return reverse_sums(tuple(leaf), uniform)


def softmax_policy(q, rho):
    return tuple(log_normalize(level / rho) for level in q)


def proportional_policy(q):
    """``pi ∝ Q_u``; uniform at dead nodes, which it never visits."""
    with np.errstate(divide="ignore"):
        return tuple(log_normalize(np.where(x.any(axis=1, keepdims=True), np.log(x), 0.0)) for x in q)


def success_and_modes(log_leaves, reward):
    """Success, and the effective number of correct leaves: exp of the entropy given success."""
    p = np.exp(log_leaves)
    success = float(p @ reward)
    kept = p[reward > 0] / success if success > 0 else np.array([1.0])
    kept = kept[kept > 0]
    return success, math.exp(-float(kept @ np.log(kept)))


DIDACTIC = np.zeros((4, 4, 4))
for _word in ("ACD", "BDC", "CAB", "DBA"):
    DIDACTIC[tuple("ABCD".index(c) for c in _word)] = 1.0
DIDACTIC = DIDACTIC.ravel()


def didactic_success(rho):
    return success_and_modes(sequence_log_probs(softmax_policy(tree_values(DIDACTIC, 4, 3), rho)), DIDACTIC)


C4 = paper.claim(
    "C4",
    "The didactic tree: values and success of softmax sampling",
    statement=r"$A=4$, $H=3$, words ACD, BDC, CAB, DBA: $Q_u=\frac1{16}$ for all first letters, $\frac14$ and $1$ on the good later"
    r" ones; success of $\mathrm{softmax}(Q_u/\rho)$ is $\prod_q\frac{e^{q/\rho}}{e^{q/\rho}+3}$ over $q\in\{\frac14,1\}$, equal for the"
    r" four words.",
    where="Fig. 5, Sec. 3.1.1",
)


@C4.check(Identity(1e-12), Space(rho=Floats(0.01, 3.0, log=True)), batched=False)
def success_of_softmax(rho):
    formula = math.prod(1 / (1 + 3 * math.exp(-q / rho)) for q in (0.25, 1.0))
    success, modes = didactic_success(rho)
    return {"success": (success, formula, 1.0), "modes": (modes, 4.0)}


@success_of_softmax.control("with the first letter's value too")
def three_levels(rho):
    return {
        "success": (
            didactic_success(rho)[0],
            math.prod(1 / (1 + 3 * math.exp(-q / rho)) for q in (1 / 16, 0.25, 1.0)),
            1.0,
        )
    }


C4_printed = paper.claim(
    "C4-printed",
    "ROVER at rho = 1 covers all four modes with a 100 % success rate",
    statement=r"$\mathrm{softmax}(Q_u/\rho)$ with $\rho=1$ succeeds with probability at least $.99$ on the didactic tree.",
    where="Sec. 3.1.1, Fig. 5(d)",
    expect="refuted",
    correction=r"With the exact $Q_u$ it succeeds with probability 0.142; 99 % needs $\rho\le.044$. How the printed Q-map was trained is"
    r" not described.",
)


@C4_printed.check(Inequality(1e-12), examples=[{"rho": 1.0}])
def near_certain_success(rho):
    return 0.99, didactic_success(rho)[0]


@near_certain_success.control("at rho = .04 it is", examples=[{"rho": 0.04}])
def at_small_rho(rho):
    return near_certain_success.function(rho)


C5 = paper.claim(
    "C5",
    "Values shrink with depth; sampling in proportion to them does not",
    statement=r"On a single-solution $A$-ary tree the usable temperature scales like $A^{-(H-1)}$. $\pi(a|s)\propto Q_u(s,a)$ succeeds with"
    r" probability 1 and is uniform over the correct leaves; it is the $\beta\to0$ limit of the KL-regularised optimum with uniform"
    r" reference, which is $\pi^*(a|s)\propto1+Q_u(s,a)(e^{1/\beta}-1)$.",
    where="derived",
    origin="derived",
)


def solutions(rng, branching, horizon, count):
    reward = np.zeros(branching**horizon)
    reward[rng.choice(reward.size, count, replace=False)] = 1.0
    return reward


@C5.check(
    Identity(1e-12),
    Space(seed=Seeds(), count=Integers(1, 9), beta=Choice(0.5, 0.1, 0.03)),
    batched=False,
    instances=100,
)
def proportional_and_regularised(seed, count, beta):
    reward = solutions(np.random.default_rng(seed), 3, 4, count)
    q = tree_values(reward, 3, 4)
    soft = tuple(log_normalize(np.log(math.exp(-1 / beta) + x * -math.expm1(-1 / beta))) for x in q)
    optimum = tilt(np.full(81, -math.log(81)), reward, beta)
    proportional = np.exp(sequence_log_probs(proportional_policy(q)))
    return {
        "uniform over solutions": (proportional, reward / count, 1.0),
        "regularised optimum": (np.exp(sequence_log_probs(soft)), np.exp(optimum), 1.0),
    }


@proportional_and_regularised.control("softmax(Q_u) is uniform over the solutions")
def softmax_is_not(seed, count, beta):
    reward = solutions(np.random.default_rng(seed), 3, 4, count)
    law = sequence_log_probs(softmax_policy(tree_values(reward, 3, 4), 1.0))
    return {"uniform over solutions": (np.exp(law), reward / count, 1.0)}


def usable_rho(horizon, branching=4, wanted=0.9):
    """The rho at which softmax(Q_u/rho) succeeds with probability ``wanted`` on a single-solution tree."""

    def log_success(log_rho):
        q = float(branching) ** -np.arange(horizon)
        return -np.sum(np.log1p((branching - 1) * np.exp(-q / math.exp(log_rho)))) - math.log(wanted)

    return math.exp(brentq(log_success, math.log(1e-9), math.log(10.0), xtol=1e-14))


@C5.check(Limit(rate=-1.0, rate_tol=0.01))
def usable_temperature_scales_with_depth():
    depths = np.array([2, 4, 6])
    return 4.0 ** (depths - 1), np.array([usable_rho(int(h)) for h in depths])


@usable_temperature_scales_with_depth.control(
    "one temperature serves all depths", kind=Limit(rate=0.0, rate_tol=0.1, tol=1.0)
)
def one_temperature():
    return usable_temperature_scales_with_depth.function()


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim(
    "C6",
    "Gradient of the practical loss",
    statement=r"With $Q=\rho\log\frac{\pi}{\pi_{old}}(a|s)$ and target $\tilde r+Q'$, $Q'=\frac1V\sum_a\rho\log\frac\pi{\pi_{old}}(a|s')$"
    r" detached: $\nabla(Q-\mathrm{target})^2=-2\rho(\tilde r+Q'-Q)\nabla\log\pi(a|s)$, and"
    r" $Q'=\rho(\mathrm{KL}(u\|\pi_{old})-\mathrm{KL}(u\|\pi))$ with $u$ uniform.",
    where="Proposition 1 (App. B); factor and $Q'$ identity derived",
)


def _practical(seed):
    rng = np.random.default_rng(seed)
    theta, old = rng.standard_normal((2, 6)), rng.standard_normal((2, 6))
    return theta, old, rng.uniform(0.3, 2.0), rng.standard_normal(), int(rng.integers(6))


def _loss_gradient(seed):
    """``(numeric gradient in the logits of s, rho·(r + Q' - Q)·grad log pi, Q', rho)``."""
    theta, old, rho, reward, action = _practical(seed)
    log_pi, log_old = log_normalize(theta), log_normalize(old)
    next_q = rho * float(np.mean(log_pi[1] - log_old[1]))

    def loss(x):
        q = rho * (log_normalize(x)[action] - log_old[0, action])
        return (q - reward - next_q) ** 2

    h = 1e-6
    numeric = np.array([(loss(theta[0] + e) - loss(theta[0] - e)) / (2 * h) for e in h * np.eye(6)])
    score = (np.arange(6) == action) - np.exp(log_pi[0])
    advantage = reward + next_q - rho * (log_pi[0, action] - log_old[0, action])
    return numeric, advantage * score, next_q, rho


@C6.check(Identity(1e-7), Space(seed=Seeds()), batched=False, instances=100)
def gradient_of_the_loss(seed):
    numeric, direction, _, rho = _loss_gradient(seed)
    return numeric, -2 * rho * direction, 1 + np.abs(numeric).max()


@gradient_of_the_loss.control("as printed, without the factor -2 rho")
def printed_gradient(seed):
    numeric, direction, _, _ = _loss_gradient(seed)
    return numeric, direction, 1 + np.abs(numeric).max()


@C6.check(Identity(1e-12), Space(seed=Seeds()), batched=False, instances=100)
def next_value_is_a_difference_of_divergences(seed):
    theta, old, rho, _, _ = _practical(seed)
    uniform = np.full(6, -math.log(6))
    difference = rho * float(kl(uniform, log_normalize(old[1])) - kl(uniform, log_normalize(theta[1])))
    return _loss_gradient(seed)[2], difference, 1 + abs(difference)


C6_printed = paper.claim(
    "C6-printed",
    "Proposition 1 as printed: the gradient of the practical loss has no factor -2 rho",
    statement=r"$\nabla(Q-\mathrm{target})^2=(\tilde r+Q'-\rho\log IS)\nabla\log\pi(a|s)$.",
    where="Proposition 1 (App. B)",
    expect="refuted",
    correction=r"The factor $-2\rho$ is missing: the printed vector is the descent direction, not the gradient.",
)


@C6_printed.check(Identity(1e-7), Space(seed=Seeds()), batched=False, instances=20)
def printed_proposition(seed):
    return printed_gradient.function(seed)


@printed_proposition.control("with the factor -2 rho")
def corrected_proposition(seed):
    return gradient_of_the_loss.function(seed)


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim(
    "C7",
    "Without the next-value term the loss is a KL mirror step, to third order in 1/rho",
    statement=r"One state: $\arg\min_\pi\mathbb{E}_{\pi_{old}}(\rho\log\frac\pi{\pi_{old}}-\tilde r)^2$, $\tilde r$ centred under"
    r" $\pi_{old}$, is $\pi_{old}e^{\tilde r/\rho}/Z$ up to $O(\rho^{-3})$; with uncentred rewards only up to $O(\rho^{-2})$.",
    where="derived",
    origin="derived",
)
RHOS = np.array([10.0, 20.0, 40.0])


def _mirror_errors(shift):
    medians = []
    for rho in RHOS:
        errors = []
        for seed in range(10):
            rng = np.random.default_rng([7, seed])
            log_old, reward = np.log(rng.dirichlet(np.ones(7))), rng.standard_normal(7)
            old = np.exp(log_old)
            reward = reward - old @ reward + shift
            target = tilt(log_old, reward, rho)

            def loss(z, log_old=log_old, old=old, reward=reward, rho=rho):
                log_pi = log_normalize(z)
                gap = rho * (log_pi - log_old) - reward
                weight = 2 * rho * old * gap
                return float(old @ gap**2), weight - np.exp(log_pi) * weight.sum()

            found = minimize(loss, target, jac=True, method="BFGS", options={"gtol": 1e-13})
            errors.append(np.abs(np.exp(log_normalize(found.x)) - np.exp(target)).max())
        medians.append(np.median(errors))
    return RHOS, np.array(medians)


@C7.check(Limit(rate=-3.0, rate_tol=0.3))
def third_order():
    return _mirror_errors(0.0)


@third_order.control("with rewards shifted by 3")
def uncentred():
    return _mirror_errors(3.0)


# C8, C9 --------------------------------------------------------------------------------------------
A, H, MODES = 4, 4, 12
C8 = paper.claim(
    "C8",
    "Softmax sampling trades success against modes; proportional sampling does not",
    statement=r"On trees with 256 leaves and 12 solutions, $\rho=.3$ has success below .5, $\rho=.003$ fewer than half of the modes;"
    r" $\pi\propto Q_u$ has both.",
    where="Fig. 5(e), Fig. 8 (effect re-stated)",
)


def quality(rng, policy_of):
    reward = solutions(rng, A, H, MODES)
    return success_and_modes(sequence_log_probs(policy_of(tree_values(reward, A, H))), reward)


@C8.check(Effect(seeds=40), batched=False)
def trade_off(rng):
    seed = int(rng.integers(2**31))

    def at(rho):
        return quality(np.random.default_rng(seed), lambda q: softmax_policy(q, rho))

    proportional = quality(np.random.default_rng(seed), proportional_policy)
    return {
        "rho = .3 fails more often than not": 0.5 - at(0.3)[0],
        "rho = .003 keeps fewer than half of the modes": MODES / 2 - at(0.003)[1],
        "proportional: success above .999": proportional[0] - 0.999,
        "proportional: more than 11.9 modes": proportional[1] - 11.9,
    }


@trade_off.control("some rho in {.1, .03, .01} has success above .99 and more than 11 modes")
def some_rho_does(rng):
    seed = int(rng.integers(2**31))
    pairs = [quality(np.random.default_rng(seed), lambda q, r=rho: softmax_policy(q, r)) for rho in (0.1, 0.03, 0.01)]
    return {"both": max(min(success - 0.99, (modes - 11) / MODES) for success, modes in pairs)}


ITERATIONS, GROUP, INNER, LR, CLIP = 300, 16, 4, 2.0, 0.2


def train(rng, method, *, iterations=ITERATIONS, next_value=True, record=()):
    """ROVER's practical loss or clipped GRPO on tabular tree logits; ``(reward, levels)`` at the end and at ``record``."""
    reward = solutions(rng, A, H, MODES)
    offsets = np.cumsum([0] + [A**t for t in range(H)])
    logits = np.zeros((offsets[-1], A))
    kept = []
    for k in range(iterations + 1):
        log_old = log_normalize(logits)
        if k in record or k == iterations:
            kept.append(tuple(log_old[offsets[t] : offsets[t + 1]] for t in range(H)))
        if k == iterations:
            break
        nodes, actions, leaves = _rollout(rng, np.exp(log_old), offsets)
        r = reward[leaves] - reward[leaves].mean()
        for _ in range(INNER):
            log_pi = log_normalize(logits)
            ratio = (log_pi - log_old)[nodes, actions]
            if method == "rover":
                mean_ratio = (log_pi - log_old).mean(axis=1)
                ahead = np.concatenate([mean_ratio[nodes[:, 1:]], np.zeros((GROUP, 1))], axis=1) if next_value else 0.0
                weight = 2 * (r[:, None] + ahead - ratio)
            else:
                advantage = np.broadcast_to((r / (r.std() or 1.0))[:, None], ratio.shape)
                clipped = ((advantage > 0) & (ratio > math.log(1 + CLIP))) | (
                    (advantage < 0) & (ratio < math.log(1 - CLIP))
                )
                weight = np.where(clipped, 0.0, advantage * np.exp(ratio))
            step = np.zeros_like(logits)
            np.add.at(step, (nodes, actions), weight)
            np.add.at(step, nodes, -weight[..., None] * np.exp(log_pi)[nodes])
            logits = logits + LR * step / (GROUP * H)
    return reward, kept


def _rollout(rng, pi, offsets):
    nodes, actions = np.empty((GROUP, H), dtype=int), np.empty((GROUP, H), dtype=int)
    node = np.zeros(GROUP, dtype=int)
    for t in range(H):
        rows = np.cumsum(pi[offsets[t] + node], axis=1)
        nodes[:, t] = offsets[t] + node
        actions[:, t] = np.minimum((rng.random((GROUP, 1)) > rows).sum(axis=1), A - 1)
        node = node * A + actions[:, t]
    return nodes, actions, node


def mirror_steps(rng, iterations=ITERATIONS, rho=1.0, record=()):
    """Exact steps ``pi <- pi exp(Q^pi / rho)/Z`` at every node, from uniform; levels at ``record`` and at the end."""
    reward = solutions(rng, A, H, MODES)
    policy = tuple(np.full((A**t, A), -math.log(A)) for t in range(H))
    leaf = [np.zeros((A**t, A)) for t in range(H - 1)] + [reward.reshape(-1, A)]
    kept = []
    for k in range(iterations):
        if k in record:
            kept.append(policy)
        q = reverse_sums(tuple(leaf), policy)
        policy = tuple(log_normalize(p + x / rho) for p, x in zip(policy, q))
    return reward, [*kept, policy]


C9 = paper.claim(
    "C9",
    "The practical update keeps about one path, like GRPO; exact mirror steps keep the modes",
    statement=r"Trained by sampled gradient steps on tabular logits, ROVER's loss ends with fewer than 3 effective modes of 12 at a"
    r" success above .95, with or without the next-value term, as clipped GRPO does; iterating the exact mirror step keeps more than"
    r" 11.",
    where="derived; contrasts with Figs. 5(e), 6(c), 10",
    origin="derived",
)


def _end(rng, method, **options):
    reward, kept = train(rng, method, **options)
    return success_and_modes(sequence_log_probs(kept[-1]), reward)


@C9.check(Effect(seeds=10), batched=False)
def few_modes_are_left(rng):
    seed = int(rng.integers(2**31))
    rover = _end(np.random.default_rng(seed), "rover")
    plain = _end(np.random.default_rng(seed), "rover", next_value=False)
    grpo = _end(np.random.default_rng(seed), "grpo")
    reward, exact = mirror_steps(np.random.default_rng(seed))
    return {
        "ROVER succeeds": rover[0] - 0.95,
        "ROVER: fewer than 3 modes": 3 - rover[1],
        "without the next value: fewer than 3 modes": 3 - plain[1],
        "GRPO: fewer than 3 modes": 3 - grpo[1],
        "mirror steps: more than 11 modes": success_and_modes(sequence_log_probs(exact[-1]), reward)[1] - 11,
    }


@few_modes_are_left.control("ROVER keeps at least a third of the modes")
def rover_keeps_modes(rng):
    return {"ROVER: at least 4 modes": _end(rng, "rover")[1] - 4}
