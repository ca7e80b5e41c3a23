r"""Claims of "Random Policy Valuation is Enough for LLM Reasoning with Verifiable Rewards" (ROVER).

A deterministic, finite-horizon decision problem with a binary reward at the end. ``Q_u`` is the value of the
uniform policy, ``rho`` the temperature of ``softmax(Q_u / rho)``.
"""

from __future__ import annotations  # noqa: I001

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, root

from klsim.claims import Effect, Identity, Inequality, Limit, Paper, Variant
from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.objectives import TokenBatch, grpo, rover
from klsim.planning import evaluate, solve
from klsim.problems import DiscountedMDP, TabularMDP, TokenTree
from klsim.problems.token_tree import sequence_log_probs
from klsim.spaces import Choice, Drawn, Floats, Integers, Policies, Space

from .setting import (
    CLIP, DIDACTIC, MODES, TIED, A, H, Tree, didactic, greedy_policy, mirror_steps, proportional_policy, softmax_policy,
    solutions, success_and_modes, token_weights, train, tree_of, tree_values,
)  # fmt: skip

paper = Paper(
    "rover",
    title="Random Policy Valuation is Enough for LLM Reasoning with Verifiable Rewards",
    authors="Haoran He, Yuxiao Ye, Qingpeng Cai, Chen Hu, Binxing Jiao, Daxin Jiang, Ling Pan",
    year=2025,
    arxiv="2509.24981",
)

# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim("C1", r"""
    Greedy on the random policy's value is optimal

    Deterministic transitions, finite horizon, terminal reward in $\{0,R\}$: a greedy policy with respect to $Q^{\pi_u}$, with any
    tie-break, attains the optimal value; so does one for any full-support evaluation policy.

    where: Theorem 3.1 (any full-support policy: derived)
    """)  # fmt: skip
GRADED = tree_of(rewards=(0.0, 0.4, 1.0), chances=(0.7, 0.2, 0.1))


@C1.check(
    Identity(1e-12), Space(tree=Drawn(tree_of())), instances=400,
    false={
        "for graded rewards 0, .4, 1": Variant(space=Space(tree=Drawn(GRADED))),
        "without full support": Variant(space=Space(tree=Drawn(tree_of(zeros=0.5)))),
    },
)  # fmt: skip
def greedy_is_optimal(tree):
    """Ties are broken in the worst way; the start is solvable."""
    return tree.greedy(), tree.best()


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim("C2", r"""
    Neither the tree nor acyclicity is needed

    The theorem holds in deterministic layered DAGs, and for $\gamma<1$ in deterministic graphs with cycles: greedy reaches a correct
    terminal state whenever one is reachable.

    where: derived
    """)  # fmt: skip


def layered(rng, noise=0.0):
    """5 layers of 4 states, 3 actions, uniform successors (another one with chance ``noise``), start in state 0.

    Each final state is right with probability .15; drawn until one can be reached.
    """
    while True:
        to, other = rng.integers(0, 4, (2, 5, 4, 3))
        transition = (1 - noise) * np.eye(4)[to] + noise * np.eye(4)[other]
        reward = np.zeros((5, 4, 3))
        reward[4] = transition[4] @ (rng.random(4) < 0.15)
        problem = TabularMDP(transition, reward, np.eye(4)[0], 5)
        if solve(problem, beta=0.0).value[0, 0] > 0:
            return problem


@C2.check(Identity(1e-12), Space(problem=Drawn(layered)), instances=100,
          false={"with stochastic transitions": Variant(space=Space(problem=Drawn(lambda rng: layered(rng, 0.3))))})  # fmt: skip
def greedy_on_dags(problem):
    """Uniform over the tied best actions: optimal only if every tie-break is."""
    uniform = np.full(problem.shape, -math.log(problem.shape[-1]))
    values = evaluate(problem, uniform).state_value
    q = problem.reward + np.einsum("hsan,hn->hsa", problem.transition, values[1:])
    with np.errstate(divide="ignore"):
        greedy = log_normalize(np.log((q >= q.max(axis=-1, keepdims=True) * (1 - TIED)).astype(float)))
    return evaluate(problem, greedy).value, solve(problem, beta=0.0).value[0, 0]


def cyclic(rng):
    """Successors ``(8, 3)``: 6 ordinary states with uniform successors, one that wins (6), one that loses (7).

    Both absorb; drawn until state 0 can win.
    """
    while True:
        successors = rng.integers(0, 8, (8, 3))
        successors[6], successors[7] = 6, 7
        if winning(successors, np.ones((8, 3), dtype=bool), np.max)[0] == 1:
            return successors


def winning(successors, chosen, combine):
    """1 for states that win along the ``chosen`` successors (a mask), the best or the worst of them (``combine``)."""
    won = (np.arange(len(successors)) == len(successors) - 2).astype(float)
    end = won.copy()
    for _ in successors:
        won = np.maximum(end, [combine(won[row[mask]]) for row, mask in zip(successors, chosen)])
    return won


TRAP = np.array([[1, 2], [0, 2], [3, 4], [3, 3], [4, 4]])  # s1 -> {s2, e}, s2 -> {s1, e}, e -> {win, lose}


@C2.check(Identity(1e-12), Space(successors=Drawn(cyclic)), instances=200,
          false={"for discount 1, with any tie-break": Variant({"discount": 1.0}, examples=[{"successors": TRAP}])})  # fmt: skip
def greedy_on_graphs_with_cycles(successors, *, discount=0.9):
    count, actions = successors.shape
    enters = ((successors == count - 2) & (np.arange(count) != count - 2)[:, None]).astype(float)
    if discount < 1:
        problem = DiscountedMDP(np.eye(count)[successors], enters, discount, np.eye(count)[0])
        values = evaluate(problem, np.full(successors.shape, -math.log(actions))).state_value
        q = enters + discount * values[successors]
    else:  # the chance to win, to rounding
        q = np.linalg.matrix_power(np.eye(count)[successors].mean(axis=1), 4096)[:, count - 2][successors]
    q = np.maximum(q, 0.0)  # rounding of the linear solver
    greedy = q >= q.max(axis=1, keepdims=True) * (1 - TIED)
    return winning(successors, greedy, np.min).sum(), winning(successors, np.ones_like(greedy), np.max).sum()


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim("C3", r"""
    What softmax sampling loses, exactly

    For $\pi_s=\mathrm{softmax}(Q_u/\rho)$ and a solvable start,
    $$V(s_0)=R\Big(1-\sum_{s\in P}\Pr(s|s_0)\frac{N(s)}{N(s)+\sum_{a:Q_u>0}e^{Q_u(s,a)/\rho}}\Big),$$ with $P$ the reachable states that
    have both zero and positive values, $N(s)$ the number of zeros; the paper's bound has $e^{\max_aQ_u/\rho}$ for the sum. As
    $\rho\to0$, $V\to R$.

    where: Theorem 3.2 (equality and solvability condition derived)
    """)  # fmt: skip
C3_SPACE = Space(tree=Drawn(tree_of()), rho=Choice(1.0, 0.3, 0.05))
DEAD = Tree(np.array([-1, 0, 0]), np.array([1.0, 0.5, 0.5]), np.zeros(3))


def softmax_value(tree, rho):
    """Value of ``softmax(Q_u / rho)``, backwards."""
    q = tree.values()
    return tree.upwards(lambda _, kids, v: np.exp(log_normalize(q[kids] / rho)) @ v)[0]


def formula(tree, rho, weigh):
    """``1 - sum_P Pr(s) N/(N + weigh(positive Q/rho))``, with reach probabilities forwards."""
    q, reach, lost = tree.values(), np.zeros(tree.parent.size), 0.0
    reach[0] = 1.0
    for node, kids in enumerate(tree.children()):
        if kids.size:
            reach[kids] = reach[node] * np.exp(log_normalize(q[kids] / rho))
            positive = q[kids] > 0
            if 0 < positive.sum() < kids.size:
                zeros = kids.size - positive.sum()
                lost += reach[node] * zeros / (zeros + weigh(q[kids][positive] / rho))
    return 1 - lost


def largest(x):
    return np.exp(x.max())


@C3.check(Identity(1e-12, scale=1), C3_SPACE, instances=300, false={"with the largest for the sum": {"weigh": largest}})
def exact_loss(tree, rho, *, weigh=lambda x: np.exp(x).sum()):
    return softmax_value(tree, rho), formula(tree, rho, weigh)


@C3.check(
    Inequality(1e-12, scale=1), C3_SPACE, instances=300,
    false={
        "with the largest for each": {"weigh": lambda x: x.size * np.exp(x.max())},
        "for a start that is not solvable": Variant(examples=[{"tree": DEAD, "rho": 1.0}]),
    },
)  # fmt: skip
def printed_bound(tree, rho, *, weigh=largest):
    return formula(tree, rho, weigh), softmax_value(tree, rho)


@C3.check(Limit(tol=1e-9), false={"as rho grows": {"power": -1}})
def no_loss_at_small_rho(rng, *, power=1):
    """Mean loss over 20 trees; left is the rounding of exponents of size 1/rho."""
    sharpness = np.array([1.0, 10.0, 100.0, 1e3, 1e4, 1e5])
    trees = [tree_of()(rng) for _ in range(20)]
    return sharpness, [np.mean([1 - softmax_value(t, x**-power) for t in trees]) for x in sharpness]


# C4, C5 --------------------------------------------------------------------------------------------
C4 = paper.claim("C4", r"""
    The didactic tree: values and success of softmax sampling

    $A=4$, $H=3$, words ACD, BDC, CAB, DBA: $Q_u=\frac1{16}$ for all first letters, $\frac14$ and $1$ on the good later ones; success
    of $\mathrm{softmax}(Q_u/\rho)$ is $\prod_q\frac{e^{q/\rho}}{e^{q/\rho}+3}$ over $q\in\{\frac14,1\}$, equal for the four words.

    where: Fig. 5, Sec. 3.1.1
    """)  # fmt: skip


@C4.check(Identity(1e-12), Space(rho=Floats(0.01, 3.0, log=True)), batched=False,
          false={"with the first letter's value too": {"values": (1 / 16, 0.25, 1.0)}})  # fmt: skip
def success_of_softmax(rho, *, values=(0.25, 1.0)):
    success, modes = didactic(rho)
    first, second, third = tree_values(DIDACTIC, 4, 3)
    return {
        "success": (success, math.prod(1 / (1 + 3 * math.exp(-q / rho)) for q in values), 1.0),
        "modes": (modes, 4.0),
        "first letter": (first, 1 / 16),
        "later letters": ([second.max(), third.max(), (second > 0).sum(), (third > 0).sum()], [0.25, 1, 4, 4]),
    }


C4_printed = paper.claim("C4-printed", r"""
    ROVER at rho = 1 covers all four modes with a 100 % success rate

    $\mathrm{softmax}(Q_u/\rho)$ with $\rho=1$ succeeds with probability at least $.99$ on the didactic tree.

    where: Sec. 3.1.1, Fig. 5(d)
    instead: With the exact $Q_u$ it succeeds with probability 0.142; 99 % needs $\rho\le.044$. How the printed Q-map was trained is not
    described.
    by: C4
    """)  # fmt: skip


@C4_printed.check(Inequality(1e-12), true={"at rho = .04 it is": {"rho": 0.04}})
def near_certain_success(*, rho=1.0):
    return 0.99, didactic(rho)[0]


C5 = paper.claim("C5", r"""
    Values shrink with depth; sampling in proportion to them does not

    On a single-solution $A$-ary tree the usable temperature scales like $A^{-(H-1)}$: success $p$ takes
    $\rho=A^{-(H-1)}/\ln\frac{(A-1)p}{1-p}$ (to 1e-4 at $A=4$, $p=.9$). $\pi(a|s)\propto Q_u(s,a)$ succeeds with probability 1 and is
    uniform over the correct leaves; it is the $\beta\to0$ limit of the KL-regularised optimum with uniform reference, which is
    $\pi^*(a|s)\propto1+Q_u(s,a)(e^{1/\beta}-1)$.

    where: derived
    """)  # fmt: skip
REWARDS = Drawn(lambda rng: solutions(rng, 3, 4, int(rng.integers(1, 10))))


@C5.check(
    Identity(1e-12, scale=1), Space(reward=REWARDS), instances=100, false={"so is softmax(Q_u)": {"softmax": True}}
)
def proportional_is_uniform_over_solutions(reward, *, softmax=False):
    q = tree_values(reward, 3, 4)
    policy = softmax_policy(q, 1.0) if softmax else proportional_policy(q)
    return np.exp(sequence_log_probs(policy)), reward / reward.sum()


@C5.check(Identity(1e-12, scale=1), Space(reward=REWARDS, beta=Choice(0.5, 0.1, 0.03)), instances=100,
          false={"pi* ∝ 1 + Q_u e^(1/beta)": {"less": 0}})  # fmt: skip
def regularised_optimum(reward, beta, *, less=1):
    q, optimum = tree_values(reward, 3, 4), solve(TokenTree(3, 4, reward), beta=beta)
    # both sides of the weights times e^(-1/beta)
    soft = tuple(log_normalize(np.log(math.exp(-1 / beta) + x * (1 - less * math.exp(-1 / beta)))) for x in q)
    tilted = tilt(np.full(81, -math.log(81)), reward, beta)
    law = np.exp(sequence_log_probs(soft))
    return {"solved": (law, np.exp(sequence_log_probs(optimum.log_policy))), "tilt": (law, np.exp(tilted))}


@C5.check(Identity(1e-4), Space(depth=Integers(2, 6)), batched=False, instances=10,
          false={"one temperature serves all depths": {"base": 1.0}, "without the factor A - 1": {"rivals": 1}})  # fmt: skip
def usable_temperature(depth, *, base=4.0, rivals=3):
    reward = np.zeros(4**depth)
    reward[0] = 1.0
    q = tree_values(reward, 4, depth)

    def failing(log_rho):
        return math.log(success_and_modes(softmax_policy(q, math.exp(log_rho)), reward)[0] / 0.9)

    usable = math.exp(brentq(failing, math.log(1e-6), math.log(10.0), xtol=1e-12))
    return usable, base ** -(depth - 1) / math.log(rivals * 0.9 / 0.1)


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    Gradient of the practical loss

    With $Q=\rho\log\frac{\pi}{\pi_{old}}(a|s)$ and target $\tilde r+Q'$, $Q'=\frac1V\sum_a\rho\log\frac\pi{\pi_{old}}(a|s')$ detached:
    $\nabla(Q-\mathrm{target})^2=-2\rho(\tilde r+Q'-Q)\nabla\log\pi(a|s)$, and
    $Q'=\rho(\mathrm{KL}(u\|\pi_{old})-\mathrm{KL}(u\|\pi))$ with $u$ uniform.

    where: Proposition 1 (App. B); factor and $Q'$ identity derived
    """)  # fmt: skip


class Tokens(NamedTuple):
    """Two responses of three tokens over six letters: logits of the policy and of the old one ``(2, 3, 6)``."""

    theta: np.ndarray
    old: np.ndarray
    actions: np.ndarray
    reward: np.ndarray
    rho: float

    @classmethod
    def draw(cls, rng):
        theta, old = rng.standard_normal((2, 2, 3, 6))
        return cls(theta, old, rng.integers(0, 6, (2, 3)), rng.standard_normal(2), float(rng.uniform(0.3, 2.0)))

    def loss(self, theta, **options):
        """The library's loss; the distributions of the next values stay those of ``self.theta`` (a constant)."""
        log_pi, log_old = log_normalize(theta), log_normalize(self.old)
        picked = [np.take_along_axis(x, self.actions[..., None], axis=-1)[..., 0] for x in (log_pi, log_old)]
        batch = TokenBatch(log_probs=picked[0], old_log_probs=picked[1], rewards=self.reward, tokens=self.actions,
                           vocab_log_probs=log_normalize(self.theta), old_vocab_log_probs=log_old)  # fmt: skip
        return float(rover(batch, rho=self.rho, **options)[0])

    def gradient(self, h=1e-5):
        """In the logits, by central differences."""
        moves = h * np.eye(self.theta.size).reshape(-1, *self.theta.shape)
        return np.array([self.loss(self.theta + e) - self.loss(self.theta - e) for e in moves]).reshape(
            self.theta.shape
        ) / (2 * h)


def gradient_and_formula(case, factor, average):
    log_pi, log_old = log_normalize(case.theta), log_normalize(case.old)
    chosen = case.actions[..., None] == np.arange(6)
    gap = case.rho * (log_pi - log_old)
    ahead = np.concatenate([gap[:, 1:].mean(axis=-1) if average else gap[:, 1:].sum(axis=-1), np.zeros((2, 1))], axis=1)
    advantage = (case.reward - case.reward.mean())[:, None] + ahead - gap[chosen].reshape(2, 3)
    direction = advantage[..., None] * (chosen - np.exp(log_pi)) / 6  # the mean over six tokens
    numeric = case.gradient()
    return numeric, (-2 * case.rho if factor else 1.0) * direction, 1 + np.abs(numeric).max()


@C6.check(Identity(1e-7), Space(case=Drawn(Tokens.draw)), instances=15,
          false={"without the factor -2 rho": {"factor": False}, "with the sum over the vocabulary": {"average": False}})  # fmt: skip
def gradient_of_the_loss(case, *, factor=True, average=True):
    return gradient_and_formula(case, factor, average)


@C6.check(Identity(1e-11), Space(case=Drawn(Tokens.draw)), instances=100, false={"with KL(pi‖u)": {"reverse": True}})
def next_value_is_a_difference_of_divergences(case, *, reverse=False):
    """With ``pi = old`` at the first of two tokens, equal rewards and twice the same response, ``Q'^2 / 2`` is what
    ``next_value`` adds to the loss."""
    theta = np.stack([case.old[0, 0], case.theta[0, 1]])[None].repeat(2, axis=0)
    one = Tokens(theta, case.old[[0, 0], :2], case.actions[[0, 0], :2], np.zeros(2), case.rho)
    u, log_pi, log_old = np.full(6, -math.log(6)), log_normalize(case.theta[0, 1]), log_normalize(case.old[0, 1])
    change = kl(log_old, u) - kl(log_pi, u) if reverse else kl(u, log_old) - kl(u, log_pi)
    squared = 2 * (one.loss(theta) - one.loss(theta, next_value=False))
    return squared, (case.rho * change) ** 2, 1 + one.loss(theta) + (case.rho * kl(u, log_old)) ** 2


C6_printed = paper.claim("C6-printed", r"""
    Proposition 1: the gradient of the practical loss has no factor -2 rho

    $\nabla(Q-\mathrm{target})^2=(\tilde r+Q'-\rho\log IS)\nabla\log\pi(a|s)$.

    where: Proposition 1 (App. B)
    instead: The factor $-2\rho$ is missing: the printed vector is the descent direction, not the gradient.
    by: C6/gradient_of_the_loss
    """)  # fmt: skip


@C6_printed.check(
    Identity(1e-7), Space(case=Drawn(Tokens.draw)), instances=10, true={"with the factor -2 rho": {"factor": True}}
)
def printed_proposition(case, *, factor=False):
    return gradient_and_formula(case, factor, True)


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Without the next-value term the loss is a KL mirror step, to third order in 1/rho

    One state: $\pi=\arg\min\mathbb{E}_{\pi_{old}}(\rho\log\frac\pi{\pi_{old}}-\tilde r)^2$, $\tilde r$ centred under $\pi_{old}$, is
    $\pi^*=\pi_{old}e^{\tilde r/\rho}/Z$ up to $O(\rho^{-3})$; to leading order
    $\log\frac\pi{\pi^*}=\mathrm{const}-\frac{\mathrm{Var}(\tilde r)}{2\rho^3}\tilde r$. With uncentred rewards it is only so up to
    $O(\rho^{-2})$.

    where: derived
    """)  # fmt: skip
RHOS = np.array([5.0, 10.0, 20.0, 40.0, 80.0])


class OneState(NamedTuple):
    """Responses of one token: how many of 40 are each of seven letters, and the letters' rewards (mean 0)."""

    counts: np.ndarray
    reward: np.ndarray

    @classmethod
    def draw(cls, rng):
        counts, reward = 1 + rng.multinomial(33, rng.dirichlet(np.ones(7))), rng.standard_normal(7)
        return cls(counts, reward - counts @ reward / 40)

    @property
    def log_old(self):
        return np.log(self.counts / 40)

    def residual(self, log_pi, rho, shift=0.0):
        return rho * (log_pi - self.log_old) - self.reward - shift

    def regressed(self, rho, shift=0.0):
        """``log pi`` with the least mean squared residual: the root of its gradient in the logits, the first fixed."""

        def gradient(z):
            log_pi = log_normalize(np.concatenate([[0.0], z]))
            weight = self.counts / 40 * self.residual(log_pi, rho, shift)
            return (weight - np.exp(log_pi) * weight.sum())[1:]

        start = tilt(self.log_old, self.reward, rho)
        return log_normalize(np.concatenate([[0.0], root(gradient, (start - start[0])[1:], tol=1e-15).x]))


@C7.check(Identity(1e-11), Space(state=Drawn(OneState.draw), log_pi=Policies(7, spread=6.0), rho=Floats(0.3, 80.0, log=True)),
          false={"with rewards shifted by 3": {"shift": 3.0}})  # fmt: skip
def loss_is_the_regression(state, log_pi, rho, *, shift=0.0):
    """The library's loss on 40 responses that have the law ``old`` exactly."""
    letters = np.repeat(np.arange(7), state.counts)
    batch = TokenBatch(log_probs=log_pi[letters][:, None], old_log_probs=state.log_old[letters][:, None],
                       rewards=state.reward[letters])  # fmt: skip
    mean_square = state.counts / 40 @ state.residual(log_pi, rho, shift) ** 2
    return float(rover(batch, rho=rho, next_value=False)[0]), mean_square, 1 + mean_square


def mirror_errors(rng, shift=0.0, constant=0.5):
    """Medians over 20 problems, at every rho, of ``max |pi - pi*|`` and of the error of the leading coefficient."""
    states, errors, coefficients = [OneState.draw(rng) for _ in range(20)], [], []
    for rho in RHOS:
        for state in states:
            log_pi, target, old = state.regressed(rho, shift), tilt(state.log_old, state.reward, rho), state.counts / 40
            errors.append(np.abs(np.exp(log_pi) - np.exp(target)).max())
            leading = -(old @ state.reward**2) / rho**3 * state.reward
            coefficients.append(abs(old * (log_pi - target) @ leading / (old @ leading**2) - constant))
    return [np.median(np.reshape(x, (len(RHOS), -1)), axis=1) for x in (errors, coefficients)]


@C7.check(Limit(rate=-3.0, rate_tol=0.3), false={"with rewards shifted by 3": {"shift": 3.0}})
def third_order(rng, *, shift=0.0):
    return RHOS, mirror_errors(rng, shift)[0]


@C7.check(Limit(tol=0.02), false={"with Var/rho^3": {"constant": 1.0}, "with 0.45": {"constant": 0.45}})
def leading_term(rng, *, constant=0.5):
    """Corrections are ``O(1/rho)``: a fraction of 1/80 at the end."""
    return RHOS, mirror_errors(rng, constant=constant)[1]


# C8, C9 --------------------------------------------------------------------------------------------
C8 = paper.claim("C8", r"""
    Softmax sampling trades success against modes; proportional sampling does not

    On trees with 256 leaves and 12 solutions (means over trees): $\rho=.3$ has success below .5, $\rho=.003$ fewer than half of the
    modes, and in between success falls and modes rise with $\rho$; greedy with the first of tied actions has one mode, with uniform
    ties more, the limit $\rho\to0$; $\pi\propto Q_u$ has success 1 and all modes.

    where: Fig. 5(e), Fig. 8 (effect re-stated)
    """)  # fmt: skip
TWELVE = Drawn(lambda rng: solutions(rng, A, H, MODES))


@C8.check(Identity(1e-10), Space(reward=TWELVE), instances=60,
          false={"at rho = .003": {"rho": 0.003}, "uniform ties keep one mode": {"first": False}})  # fmt: skip
def ends_of_the_trade_off(reward, *, rho=1e-5, first=True):
    """Values of siblings differ by at least 4^-3, so softmax at 1e-5 is greedy to rounding."""
    q = tree_values(reward, A, H)
    parts = {
        "first": greedy_policy(q, first=first),
        "ties": greedy_policy(q),
        "rho": softmax_policy(q, rho),
        "all": proportional_policy(q),
    }
    got = {name: np.array(success_and_modes(policy, reward)) for name, policy in parts.items()}
    return {
        "first of the tied": (got["first"], [1.0, 1.0]),
        "rho -> 0 is uniform over ties": (got["rho"], got["ties"]),
        "proportional": (got["all"], [1.0, MODES]),
    }


@C8.check(Effect(seeds=40))
def trade_off(rng):
    reward = solutions(rng, A, H, MODES)
    q = tree_values(reward, A, H)
    at = {rho: success_and_modes(softmax_policy(q, rho), reward) for rho in (0.3, 0.1, 0.03, 0.01, 0.003)}
    return {
        "rho = .3 fails more often than not": 0.5 - at[0.3][0],
        "rho = .003 keeps fewer than half of the modes": MODES / 2 - at[0.003][1],
        "success falls from .01 to .03 to .1": min(at[0.01][0] - at[0.03][0], at[0.03][0] - at[0.1][0]),
        "modes rise from .01 to .03 to .1": min(at[0.03][1] - at[0.01][1], at[0.1][1] - at[0.03][1]),
        "uniform ties keep more than one mode": success_and_modes(greedy_policy(q), reward)[1] - 1,
    }


@trade_off.control("some rho in {.1, .03, .01} has success above .99 and more than 11 modes")
def some_rho_does(rng):
    reward = solutions(rng, A, H, MODES)
    q = tree_values(reward, A, H)
    pairs = [success_and_modes(softmax_policy(q, rho), reward) for rho in (0.1, 0.03, 0.01)]
    return max(min(success - 0.99, (modes - 11) / MODES) for success, modes in pairs)


C9 = paper.claim("C9", r"""
    The practical update keeps about one path, like GRPO; exact mirror steps keep the modes

    Trained by sampled gradient steps on tabular logits, ROVER's loss ends with fewer than 3 effective modes of 12 at a success above
    .95, with or without the next-value term, as clipped GRPO does; iterating the exact mirror step keeps more than 11.

    where: derived; contrasts with Figs. 5(e), 6(c), 10
    assumes: Unshared softmax at every node, one prompt, start from uniform, 16 rollouts, 300 iterations.
    """)  # fmt: skip


class Rollouts(NamedTuple):
    """Four responses of three tokens: ``log old`` and ``log pi/old`` of the tokens, next-value terms, rewards 0/1."""

    log_old: np.ndarray
    ratio: np.ndarray
    gap: np.ndarray
    reward: np.ndarray

    @classmethod
    def draw(cls, rng):
        reward = np.concatenate([[0.0, 1.0], rng.integers(0, 2, 2)])
        return cls(
            -rng.exponential(1, (4, 3)) - 2,
            0.3 * rng.standard_normal((4, 3)),
            0.3 * rng.standard_normal((4, 3)),
            reward,
        )


@C9.check(Identity(1e-6), Space(case=Drawn(Rollouts.draw)), instances=20,
          false={"without the factor 2 of ROVER": {"factor": 0.5}, "GRPO without the clip": {"clip": 9.0}})  # fmt: skip
def steps_are_gradients_of_the_losses(case, *, factor=1.0, clip=CLIP):
    """What training adds for every token against differences of the library's losses in its log-probability."""
    vocab = np.stack([case.log_old, np.log1p(-np.exp(case.log_old))], axis=-1)
    moved = log_normalize(vocab + np.stack([case.gap, -case.gap], axis=-1))

    def differences(loss, h=1e-6, **options):
        def at(ratio):
            batch = TokenBatch(log_probs=case.log_old + ratio, old_log_probs=case.log_old, rewards=case.reward,
                               vocab_log_probs=moved, old_vocab_log_probs=vocab)  # fmt: skip
            return float(loss(batch, **options)[0])

        moves = h * np.eye(12).reshape(12, 4, 3)
        return -12 * np.array([at(case.ratio + e) - at(case.ratio - e) for e in moves]).reshape(4, 3) / (2 * h)

    ahead = np.concatenate([(moved - vocab)[:, 1:].mean(axis=-1), np.zeros((4, 1))], axis=1)
    return {
        "ROVER": (differences(rover), factor * token_weights("rover", case.ratio, ahead, case.reward), 1.0),
        "GRPO": (differences(grpo, clip=(clip, clip)), token_weights("grpo", case.ratio, 0.0, case.reward), 1.0),
    }


def end(rng, method, **options):
    reward, kept = train(rng, method, **options)
    return success_and_modes(kept[-1], reward)


@C9.check(Effect(seeds=8))
def few_modes_are_left(rng):
    first, second, third, fourth = rng.spawn(4)
    trained, plain, clipped = end(first, "rover"), end(second, "rover", next_value=False), end(third, "grpo")
    reward, exact = mirror_steps(fourth)
    return {
        "ROVER succeeds": trained[0] - 0.95,
        "ROVER: fewer than 3 modes": 3 - trained[1],
        "without the next value: fewer than 3 modes": 3 - plain[1],
        "GRPO: fewer than 3 modes": 3 - clipped[1],
        "mirror steps: more than 11 modes": success_and_modes(exact[-1], reward)[1] - 11,
    }


@few_modes_are_left.control("ROVER keeps at least a third of the modes")
def rover_keeps_modes(rng):
    return end(rng, "rover")[1] - MODES / 3
