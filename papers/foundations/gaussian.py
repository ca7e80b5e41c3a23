"""C5 on: Gaussian policies with quadratic rewards, heavy tails from samples, prompts that are jointly Gaussian."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.special import gammaln

from klsim.claims import Identity, Inequality, Limit, Optimality, Variant, shared
from klsim.continuous import best_of_n_reward, quantile_rule
from klsim.gaussian import (
    QuadraticReward,
    fixed_covariance,
    gaussian_constrained,
    gaussian_kl,
    gaussian_regularized,
    natural_gradient_flow,
)
from klsim.prompt_process import kernel_matrix, separate_policies, shared_policy, spread
from klsim.spaces import Floats, Integers, Normals, Sizes, Space

from .collection import paper

PARETO = stats.pareto(2.0)
SHAPE = {
    "mean": Normals("D"),
    "root": Normals("D", "D"),
    "slope": Normals("D"),
    "half": Normals("D", "D"),
    "D": Sizes(1, 3),
}


@shared
def normal_rule():
    """Quantiles of N(0, 1) and the logs of their weights."""
    return quantile_rule(stats.norm())


def covariance_of(root):
    return root @ root.T + 0.2 * np.eye(len(root))


def problem(mean, root, slope, half):
    """``(mean, covariance, reward, its largest curvature in standard deviations)``."""
    covariance, reward = covariance_of(root), QuadraticReward(slope, half + half.T)
    return mean, covariance, reward, max(np.linalg.eigvals(covariance @ reward.curvature).real.max(), 0.0)


def expected(reward, around, mean, covariance):
    """``E[r]`` of a Gaussian, from its moments."""
    move = mean - around
    return reward.slope @ move + 0.5 * np.trace(reward.curvature @ (covariance + np.outer(move, move)))


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim("C5", r"""
    Gaussian reference, quadratic reward: the KL-regularised optimum is Gaussian with precision $\Sigma^{-1}-H/\beta$

    It exists where $\beta$ is above the largest eigenvalue of $\Sigma^{1/2}H\Sigma^{1/2}$; its mean solves
    $(\Sigma^{-1}-H/\beta)(\mu-m)=g/\beta$. No Gaussian does better.

    where: folklore; value derived
    """)  # fmt: skip


@C5.check(
    Identity(1e-8, scale=1),
    Space(**SHAPE, above=Floats(1.05, 10.0)),
    instances=10,
    batched=False,
    false={"curvature H/2": {"bend": 0.5}},
)
def precision(mean, root, slope, half, above, *, bend=1.0):
    mean, covariance, reward, steepest = problem(mean, root, slope, half)
    beta = above * steepest + 0.1
    found = gaussian_regularized(mean, covariance, reward, beta)
    wanted = np.linalg.inv(covariance) - bend * reward.curvature / beta
    return {
        "precision": (np.linalg.inv(found.covariance), wanted, np.abs(wanted).max() + 10),
        "mean": (wanted @ (found.mean - mean), slope / beta),
        "value": (found.value, found.reward - beta * gaussian_kl(found.mean, found.covariance, mean, covariance), beta * (1 + found.kl)),
    }  # fmt: skip


FURTHER = {"mean": np.zeros(1), "root": np.eye(1), "slope": np.ones(1), "half": np.zeros((1, 1)), "above": 2.0,
           "move": np.ones(1), "turn": np.zeros((1, 1)), "size": 0.1}  # fmt: skip


@C5.check(Optimality(1e-11, scale=1), Space(**SHAPE, above=Floats(1.05, 10.0), move=Normals("D"), turn=Normals("D", "D"), size=Floats(1e-3, 1.0, log=True)),
          instances=6, batched=False, false={"that of 1.5 beta": Variant({"times": 1.5}, examples=[FURTHER])})  # fmt: skip
def no_gaussian_does_better(mean, root, slope, half, above, move, turn, size, *, times=1.0):
    mean, covariance, reward, steepest = problem(mean, root, slope, half)
    beta = above * steepest + 0.1
    best = gaussian_regularized(mean, covariance, reward, times * beta)
    stretch = np.eye(len(mean)) + size * turn
    other = best.mean + size * move, stretch @ best.covariance @ stretch.T + 1e-12 * np.eye(len(mean))
    values = [
        expected(reward, mean, *law) - beta * gaussian_kl(*law, mean, covariance)
        for law in ((best.mean, best.covariance), other)
    ]
    return values[0], values[1], np.abs(values).max() + beta * (1 + best.kl)


@C5.check(Identity(1e-9, scale=1), Space(slope=Floats(-2.0, 2.0), curvature=Floats(-2.0, 2.0), room=Floats(0.3, 5.0)), instances=8, batched=False,
          false={"half the logarithm": {"share": 0.5}})  # fmt: skip
def value_by_quadrature(slope, curvature, room, *, share=1.0):
    """Over normal quantiles; the room keeps what is beyond those of 1e-300 out of it."""
    beta = max(curvature, 0.0) + room
    x, log_w = normal_rule()
    wanted = beta * np.logaddexp.reduce(log_w + (slope * x + 0.5 * curvature * x**2) / beta)
    mean = slope**2 / (2 * (beta - curvature)) - share * 0.5 * beta * np.log1p(-curvature / beta)
    found = gaussian_regularized([0.0], [[1.0]], QuadraticReward([slope], [[curvature]]), beta).value
    return {"library": (found, wanted, beta), "formula": (mean, wanted, beta)}


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim("C6", r"""
    A Gaussian policy is kept near its reference by any KL coefficient

    The value $\beta\log E\,e^{\min(r,m)/\beta}$ of the reward $x^2/2$ under $N(0,1)$, cut at m, settles as m grows.

    where: as commonly read (Gaussian policies in continuous control)
    instead: Only by one above the reward's curvature, in standard deviations of the reference; below it the cut value grows like m. A KL budget holds at
    any size: each nat brings reward, in the end the largest curvature.
    by: C5, C6-rate
    origin: as commonly read
    """)  # fmt: skip
CUTS = 10.0 ** np.arange(1, 3, 0.25)


@C6.check(Limit(rate=0.0, rate_tol=0.2), true={"a beta of 2": {"beta": 2.0}})
def value_settles(*, beta=0.5):
    x, log_w = normal_rule()
    values = [beta * np.logaddexp.reduce(log_w + np.minimum(0.5 * x**2, m) / beta) for m in CUTS]
    return 1 / CUTS, values


C6_rate = paper.claim("C6-rate", r"""
    How a Gaussian frontier ends: linear in the KL for convex rewards, exponentially near the maximum for concave ones

    With a largest curvature $h>0$ the reward per nat tends to h, like $\kappa^{-1/2}$; with all d curvatures negative the distance from the
    maximum falls like $e^{-2\kappa/d}$.

    where: derived
    """)  # fmt: skip


@C6_rate.check(Limit(rate=-0.5, rate_tol=0.05), false={"of a linear reward": {"curvature": 0.0}})
def reward_per_nat(*, curvature=1.0):
    budgets = 10.0 ** np.arange(2, 11)
    reward = QuadraticReward([1.0, 0.5], [[curvature, 0.0], [0.0, -1.0]])
    found = [gaussian_constrained([0.0, 0.0], np.eye(2), reward, b).reward / b for b in budgets]
    return budgets, np.abs(np.array(found) - 1.0)


@C6_rate.check(Limit(rate=-2 / 3, rate_tol=0.03), false={"of two dimensions": {"size": 2}})
def distance_from_the_maximum(*, size=3):
    budgets = np.arange(4.0, 40.0, 3.0)
    slope, bend = np.array([1.0, -0.5, 0.3])[:size], -np.diag([1.0, 2.0, 0.5][:size])
    top = -0.5 * slope @ np.linalg.solve(bend, slope)
    found = [
        gaussian_constrained(np.zeros(size), np.eye(size), QuadraticReward(slope, bend), b).reward for b in budgets
    ]
    return np.exp(budgets), top - np.array(found)


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim("C7", r"""
    Natural-gradient ascent of a Gaussian policy walks along the KL-reward frontier

    With $E[r]-\beta KL$ it is at time t the optimum of $\beta_t=\beta/(1-e^{-\beta t})$; without a penalty of $1/t$, until it leaves at $1/h$.

    where: natural parameters move by the gradient in moments (Amari 1998); derived here
    """)  # fmt: skip


@C7.check(
    Identity(1e-6, scale=1),
    Space(**SHAPE, beta=Floats(0.0, 2.0), share=Floats(0.05, 0.6)),
    instances=3,
    batched=False,
    false={"at half of the time": {"times": 0.5}},
)
def by_an_ode_solver(mean, root, slope, half, beta, share, *, times=1.0):
    """``m' = S grad_m J``, ``S' = 2 S grad_S J S`` in mean and covariance."""
    mean, covariance, reward, steepest = problem(mean, root, slope, half)
    d, time = len(mean), share / (steepest + 0.2)
    inverse = np.linalg.inv(covariance)

    def flow(_, state):
        m, s = state[:d] - mean, state[d:].reshape(d, d)
        up = slope + reward.curvature @ m - beta * inverse @ m
        bend = 0.5 * reward.curvature - 0.5 * beta * (inverse - np.linalg.inv(s))
        return np.concatenate([s @ up, (2 * s @ bend @ s).ravel()])

    end = solve_ivp(flow, (0, time), np.concatenate([mean, covariance.ravel()]), rtol=1e-9, atol=1e-11).y[:, -1]
    found = natural_gradient_flow(mean, covariance, reward, beta, times * time)
    return np.concatenate([found.mean, found.covariance.ravel()]), end, 1 + np.abs(end).max()


# C8 ------------------------------------------------------------------------------------------------
C8 = paper.claim("C8", r"""
    Stopping gradient ascent early is KL regularisation

    At its KL to the start, the policy that gradient ascent of its mean has reached has the most reward.

    where: as commonly read (RL without a KL term "stays close")
    instead: That holds for the natural gradient. Plain gradient of a mean with a linear reward moves along g instead of $\Sigma g$ and reaches
    $|g|^2/\sqrt{g^T\Sigma^{-1}g\;g^T\Sigma g}$ of the frontier, all of it only along an axis of $\Sigma$.
    by: C7
    origin: as commonly read
    """)  # fmt: skip


@C8.check(Inequality(1e-9), Space(root=Normals("D", "D"), slope=Normals("D"), time=Floats(0.1, 2.0), D=Sizes(2, 3), where=lambda slope, **_: np.abs(slope).max(axis=-1) > 0.1),
          instances=5, batched=False, true={"the natural gradient": {"natural": True}})  # fmt: skip
def along_the_gradient(root, slope, time, *, natural=False):
    covariance, zero = covariance_of(root), np.zeros(len(slope))
    reward = QuadraticReward(slope, np.zeros((len(slope), len(slope))))
    mean = natural_gradient_flow(zero, covariance, reward, 0.0, time).mean if natural else time * slope
    nats = gaussian_kl(mean, covariance, zero, covariance)
    return gaussian_constrained(zero, covariance, reward, nats).reward, slope @ mean


@C8.check(Identity(1e-9), Space(root=Normals("D", "D"), slope=Normals("D"), D=Sizes(2, 3), where=lambda slope, **_: np.abs(slope).max(axis=-1) > 0.1),
          instances=5, batched=False, true={"the share in the correction": {"formula": True}})  # fmt: skip
def share_of_the_frontier(root, slope, *, formula=False):
    covariance, zero = covariance_of(root), np.zeros(len(slope))
    reward = QuadraticReward(slope, np.zeros((len(slope), len(slope))))
    nats = gaussian_kl(slope, covariance, zero, covariance)
    share = slope @ slope / np.sqrt(slope @ np.linalg.solve(covariance, slope) * (slope @ covariance @ slope))
    return slope @ slope / gaussian_constrained(zero, covariance, reward, nats).reward, share if formula else 1.0


# C9 ------------------------------------------------------------------------------------------------
C9 = paper.claim("C9", r"""
    A policy whose covariance is fixed has the optimum's mean, and loses $\frac\beta2\sum_i(-\log(1-h_i/\beta)-h_i/\beta)$

    $h_i$ the curvatures in standard deviations of the reference: nothing for linear rewards, and for small curvatures their squares over
    $4\beta$.

    where: derived
    """)  # fmt: skip


@C9.check(
    Identity(1e-9, scale=1),
    Space(**SHAPE, above=Floats(1.05, 10.0)),
    instances=8,
    batched=False,
    false={"without the second term": {"linear": 0.0}},
)
def loss_of_a_fixed_covariance(mean, root, slope, half, above, *, linear=1.0):
    mean, covariance, reward, steepest = problem(mean, root, slope, half)
    beta = above * steepest + 0.1
    best, fixed = (solve(mean, covariance, reward, beta) for solve in (gaussian_regularized, fixed_covariance))
    h = np.linalg.eigvals(covariance @ reward.curvature).real / beta
    value = expected(reward, mean, fixed.mean, covariance) - beta * gaussian_kl(
        fixed.mean, covariance, mean, covariance
    )
    return best.value - value, beta / 2 * np.sum(-np.log1p(-h) - linear * h), beta * (1 + best.kl)


# C10 -----------------------------------------------------------------------------------------------
C10 = paper.claim("C10", r"""
    Best-of-n of Pareto rewards grows like $n^{1/a}$, exponentially in its KL, where no tilt exists

    $E\max_n=\Gamma(n+1)\Gamma(1-\frac1a)/\Gamma(n+1-\frac1a)$ for $P(R>x)=x^{-a}$, $a>1$.

    where: order statistics; folklore
    """)  # fmt: skip


@C10.check(
    Identity(1e-11),
    Space(a=Floats(1.3, 6.0), n=Floats(1.0, 1e8, log=True)),
    instances=8,
    batched=False,
    false={"n instead of n + 1": {"one": 0.0}},
)
def pareto(a, n, *, one=1.0):
    # the logs of Gamma are of size n log n, their difference of size log n: through a ratio that keeps digits
    wanted = np.exp(gammaln(1 - 1 / a) + log_gamma_ratio(n + one, 1 / a))
    return best_of_n_reward(stats.pareto(a), n), wanted


def log_gamma_ratio(x, shift):
    """``log Gamma(x) - log Gamma(x - shift)``; from 50 up by ``-log Beta`` asymptotics (Stirling to ``x^-7``)."""
    if x < 50:
        return gammaln(x) - gammaln(x - shift)
    y = x - shift

    def series(t):
        return 1 / (12 * t) - 1 / (360 * t**3) + 1 / (1260 * t**5)

    return shift * np.log(x) - (y - 0.5) * np.log1p(-shift / x) - shift + series(x) - series(y)


@C10.check(Limit(rate=-0.5, rate_tol=0.02), false={"of exponential rewards": {"law": stats.expon()}})
def power_of_n(*, law=PARETO):
    n = 10.0 ** np.arange(2, 12)
    return n, 1 / np.array([best_of_n_reward(law, x) for x in n])


# C11 -----------------------------------------------------------------------------------------------
C11 = paper.claim("C11", r"""
    One policy for jointly Gaussian prompts: a prompt gains its covariance with the average that is trained on

    With rewards $N(\mu,K)$ over prompts and weights w the gains within $\kappa$ nats are $Kw\sqrt{2\kappa/w^TKw}$, on trained and held-out
    prompts alike; the average is the frontier of a normal law of variance $w^TKw$.

    where: derived
    """)  # fmt: skip
PROMPTS = {
    "points": Normals("P"),
    "deviations": Normals("P").map(lambda x: np.exp(0.5 * x)),
    "length": Floats(0.2, 3.0, log=True),
    "budget": Floats(0.05, 6.0, log=True),
    "P": Sizes(2, 5),
}


def kernel_of(points, deviations, length):
    return kernel_matrix(points, length) * np.outer(deviations, deviations)


def deviations_gained(strength):
    """Reward, in standard deviations, of a normal law tilted by ``exp(strength x)``, by quadrature."""
    x, log_w = normal_rule()
    density = np.exp(log_w + strength * x - np.logaddexp.reduce(log_w + strength * x))
    return density @ x


@C11.check(
    Identity(1e-9, scale=1),
    Space(**PROMPTS, weight=Normals("P")),
    instances=8,
    batched=False,
    false={"the variances in place of K": {"apart": True}},
)
def gains_of_the_gaussian_optimum(points, deviations, length, budget, weight, *, apart=False):
    """The last prompt is held out; K is kept from being singular."""
    kernel = kernel_of(points, deviations, length) + 1e-3 * np.diag(deviations**2)
    w = np.append(np.exp(weight[:-1]), 0.0)
    w /= w.sum()
    reward = QuadraticReward(w, np.zeros_like(kernel))
    best = gaussian_constrained(np.zeros(len(w)), kernel, reward, budget)
    used = np.diag(np.diag(kernel)) if apart else kernel
    return {
        "gains": (shared_policy(used, budget, w).gains, best.mean),
        "average": (shared_policy(used, budget, w).average, np.sqrt(w @ kernel @ w) * deviations_gained(np.sqrt(w @ kernel @ w) / best.beta)),
    }  # fmt: skip


# C12 -----------------------------------------------------------------------------------------------
C12 = paper.claim("C12", r"""
    What a policy learns on its training prompts carries over to others in full

    The mean gain on held-out prompts is that on training prompts.

    where: folklore (RL generalises better than fine-tuning)
    instead: It is the covariance with the training average: for a kernel that falls with distance a held-out prompt gains less the further it is away, and
    nothing far away. In full only where all prompts move together.
    by: C11, C12-distance
    origin: folklore
    """)  # fmt: skip
LINE = {
    "length": Floats(0.3, 3.0, log=True),
    "budget": Floats(0.05, 6.0, log=True),
    "far": Floats(0.5, 6.0),
    "count": Integers(1, 4),
}


def on_a_line(length, far, count, budget, common=0.0):
    """Gains of training prompts spaced by .3 and of one at a distance ``far`` from the last."""
    points = np.append(0.3 * np.arange(count), 0.3 * (count - 1) + far)
    kernel = (1 - common) * kernel_matrix(points, length) + common
    found = shared_policy(kernel, budget, np.append(np.full(count, 1 / count), 0.0)).gains
    return found[:-1].mean(), found[-1]


@C12.check(
    Inequality(1e-9), Space(**LINE), instances=8, batched=False, true={"prompts that move together": {"common": 1.0}}
)
def held_out_gains_as_much(length, budget, far, count, *, common=0.0):
    return on_a_line(length, far, count, budget, common)


C12_distance = paper.claim("C12-distance", r"""
    Held-out prompts gain less the further away they are

    by $\frac{\overline k(x)}{\sqrt{w^TKw}}\sqrt{2\kappa}$, $\overline k$ the mean kernel to the training prompts, falling in the distance beyond them.

    where: derived
    """)  # fmt: skip


@C12_distance.check(
    Inequality(1e-12),
    Space(**LINE, further=Floats(0.1, 2.0)),
    instances=6,
    batched=False,
    false={"of the average over both": {"both": True}},
)
def less_further_away(length, budget, far, count, further, *, both=False):
    near, away = (on_a_line(length, x, count, budget) for x in (far, far + further))
    return (away[0], near[1]) if both else (away[1], near[1])


# C13 -----------------------------------------------------------------------------------------------
C13 = paper.claim("C13", r"""
    A KL budget goes equally far on any number of prompts

    One policy gains as much on the average of many independent prompts as on one.

    where: folklore
    instead: The average of P independent prompts has a P-th of the variance: one policy gains $\sqrt{2\kappa/P}$ of it, down to the common part
    $\sqrt{2\kappa\bar\rho}$. A policy that knows the prompt loses nothing.
    by: C13-separate
    origin: folklore
    """)  # fmt: skip


@C13.check(Inequality(1e-9), Space(budget=Floats(0.05, 6.0, log=True), count=Integers(2, 20)), instances=6, batched=False,
           true={"prompts that move together": {"common": 1.0}})  # fmt: skip
def as_far_on_many(budget, count, *, common=0.0):
    kernel = (1 - common) * np.eye(count) + common
    return shared_policy(kernel[:1, :1], budget).average, shared_policy(kernel, budget).average


C13_separate = paper.claim("C13-separate", r"""
    What knowing the prompt is worth: $\sqrt{w^TKw}\le\sum_iw_i\sigma_i\le\sqrt{\sum_iw_i\sigma_i^2}$

    the gains of one policy, of a policy a prompt with equal budgets, and with one beta, each times $\sqrt{2\kappa}$.

    where: derived
    """)  # fmt: skip


@C13_separate.check(
    Inequality(1e-12, scale=1),
    Space(**PROMPTS),
    instances=8,
    batched=False,
    false={"with twice the covariance": {"times": 2.0}},
)
def three_policies(points, deviations, length, budget, *, times=1.0):
    kernel = kernel_of(points, deviations, length)
    shared = shared_policy(times**2 * kernel, budget).average
    equal, best = (separate_policies(kernel, budget, equal=e).average for e in (True, False))
    return {"one and equal budgets": (shared, equal), "equal budgets and one beta": (equal, best)}


# C14 -----------------------------------------------------------------------------------------------
C14 = paper.claim("C14", r"""
    The spread of prompt means, less sampling noise, estimates how much prompts vary

    Its expectation is the variance of a prompt's mean reward, $\overline{K_{ii}}$.

    where: one-way random effects, as commonly applied to benchmarks
    instead: $\overline{K_{ii}}-\overline{K_{ij}}_{i\ne j}$: what prompts have in common is in every mean and cancels. Of independent prompts it is unbiased.
    by: C14-bias
    origin: as commonly read
    """)  # fmt: skip
NOISY = {
    "points": Normals("P"),
    "deviations": Normals("P").map(lambda x: np.exp(0.5 * x)),
    "length": Floats(0.2, 3.0, log=True),
    "noise": Floats(0.1, 3.0),
    "P": Sizes(2, 4),
    "m": Integers(2, 3),
}


def expected_spread(kernel, noise, m):
    """``E[between]`` of m samples a prompt: the estimate is a quadratic form, whose matrix polarisation gives."""
    prompts, size = len(kernel), len(kernel) * m
    covariance = np.kron(kernel, np.ones((m, m))) + noise**2 * np.eye(size)
    unit, total = np.eye(size).reshape(size, prompts, m), 0.0
    single = [spread(u).between for u in unit]
    total = float(np.diag(covariance) @ single)
    for i, j in itertools.combinations(range(size), 2):
        total += covariance[i, j] * (spread(unit[i] + unit[j]).between - single[i] - single[j])
    return total


@C14.check(Identity(1e-9), Space(**NOISY), instances=5, batched=False, true={"independent prompts": {"apart": True}})
def estimates_the_variance(points, deviations, length, noise, m, *, apart=False):
    kernel = np.diag(deviations**2) if apart else kernel_of(points, deviations, length)
    return expected_spread(kernel, noise, m), np.diag(kernel).mean()


C14_bias = paper.claim("C14-bias", r"""
    The spread of prompt means sees variance less covariance

    It is the mean of $K_{ii}$ less the mean of $K_{ij}$, $i\ne j$, on average.

    where: derived
    """)  # fmt: skip


@C14_bias.check(
    Identity(1e-10, scale=1), Space(**NOISY), instances=5, batched=False, false={"half the covariance": {"share": 0.5}}
)
def less_what_is_common(points, deviations, length, noise, m, *, share=1.0):
    kernel = kernel_of(points, deviations, length)
    apart = kernel[~np.eye(len(kernel), dtype=bool)].mean()
    return expected_spread(kernel, noise, m), np.diag(kernel).mean() - share * apart, np.diag(kernel).max() + noise**2
