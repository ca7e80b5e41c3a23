"""K: several attempts at a prompt: pass@k and max@k, their optima, and their estimators."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln, logit

from klsim.attempts import max_at_k_slope, regularized_max_at_k
from klsim.best_of_n import expected_reward
from klsim.claims import Identity, Inequality, Limit, Optimality
from klsim.distributions import expectation, log_normalize, tilt
from klsim.divergences import kl
from klsim.estimator_moments import draws, estimator_moments, policy_gradient
from klsim.estimators import pass_at_k
from klsim.objectives import max_at_k_advantages
from klsim.spaces import Choice, Floats, Integers, Normals, Policies, Rewards, Sizes, Space

from .collection import paper

SMALL = {"A": Sizes(2, 4)}


# K1 ------------------------------------------------------------------------------------------------
K1 = paper.claim("K1", r"""
    max@k is concave in the policy, and its slope is k times the expected best of a response and k - 1 others

    $\partial\,max@k/\partial\pi(y)=k\,E[\max(r(y),r(y_2),\dots,r(y_k))]$, by enumeration of the others; and
    $max@k(\tfrac12\pi+\tfrac12\pi')\ge\tfrac12max@k(\pi)+\tfrac12max@k(\pi')$: $max@k=r_m-\sum_iF_i^kd_i$ with $F_i$ linear in $\pi$.

    where: slope: PKPO (arXiv 2505.15201); concavity derived
    """)  # fmt: skip


@K1.check(Identity(1e-12, scale=1), Space(log_p=Policies(), reward=Rewards(), k=Integers(1, 5), **SMALL), instances=60, batched=False,
          false={"the best of k others": {"others": 0}})  # fmt: skip
def slope_by_enumeration(log_p, reward, k, *, others=1):
    slope = max_at_k_slope(log_p, reward, k)
    best = [reward] if k == others else []
    if k > others:
        outcomes, probability = draws(log_p, k - others)
        best = [np.maximum(reward[y], reward[outcomes].max(axis=1)) @ probability for y in range(len(reward))]
    return slope, k * np.asarray(best).reshape(reward.shape)


@K1.check(Inequality(1e-12, scale=1), Space(log_p=Policies(), log_q=Policies(), reward=Rewards(), k=Integers(1, 20)), instances=300,
          false={"of the worst of k": {"sign": -1.0}})  # fmt: skip
def concave(log_p, log_q, reward, k, *, sign=1.0):
    middle = np.logaddexp(log_p, log_q) - np.log(2)
    ends = [sign * expected_reward(p, sign * reward, k) for p in (log_p, log_q, log_normalize(middle))]
    return 0.5 * (ends[0] + ends[1]), ends[2]


# K2 ------------------------------------------------------------------------------------------------
K2 = paper.claim("K2", r"""
    The KL-regularised optimum of max@k, from the mass of the lowest level up

    It maximises $max@k(\pi)-\beta\mathrm{KL}(\pi\Vert\pi_{ref})$: ratios $\pi/\pi_{ref}$ of adjacent levels differ by
    $\exp(kF_i^{k-1}d_i/\beta)$. No policy near it and no generic optimiser does better; with rewards 0 and 1 the success
    probability solves $\mathrm{logit}\,p-\mathrm{logit}\,p_0=k(1-p)^{k-1}/\beta$; $k=1$ is the tilt.

    where: derived
    assumes: beta > 0, rewards with finitely many levels.
    """)  # fmt: skip
PROBLEM = {"log_ref": Policies(), "reward": Rewards(), "k": Integers(1, 30), "beta": Floats(0.02, 20.0, log=True)}


@K2.check(Optimality(1e-11, scale=1), Space(**PROBLEM, move=Normals("A"), size=Floats(1e-3, 3.0, log=True)), instances=300, batched=False,
          false={"the slope without its factor k": {"factor": lambda k: 1}})  # fmt: skip
def no_policy_does_better(log_ref, reward, k, beta, move, size, *, factor=lambda k: k):
    # an optimum whose slope is off by k is that of beta k / factor
    found = regularized_max_at_k(log_ref, reward, k, beta * k / factor(k))
    other = log_normalize(found.log_policy + size * move)
    value, others = (expected_reward(p, reward, k) - beta * kl(p, log_ref) for p in (found.log_policy, other))
    return value, others, np.abs(reward).max() + beta * kl(other, log_ref)


# a quasi-Newton method with exact slopes ends within 1e-6 of the optimum
@K2.check(Identity(1e-6, scale=1), Space(**PROBLEM | {"log_ref": Normals("A").map(log_normalize)}), instances=25, batched=False,
          false={"of the next k": {"more": 1}})  # fmt: skip
def a_generic_optimiser_ends_there(log_ref, reward, k, beta, *, more=0):
    def loss(x):
        log_p = log_normalize(x)
        slope = max_at_k_slope(log_p, reward, k) - beta * (log_p - log_ref)
        return beta * kl(log_p, log_ref) - expected_reward(log_p, reward, k), -np.exp(log_p) * (
            slope - expectation(log_p, slope)
        )

    reached = minimize(
        loss, log_ref, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-11}
    )
    found = regularized_max_at_k(log_ref, reward, k + more, beta)
    value = expected_reward(found.log_policy, reward, k) - beta * kl(found.log_policy, log_ref)
    return value, -reached.fun, 1 + np.abs(reward).max()


@K2.check(Identity(1e-9, scale=1), Space(p=Floats(1e-3, 1 - 1e-3), k=Integers(1, 30), beta=Floats(0.05, 20.0, log=True)), instances=100,
          batched=False, false={"with (1-p)^k": {"less": 0}})  # fmt: skip
def binary_rewards(p, k, beta, *, less=1):
    found = regularized_max_at_k(np.log([1 - p, p]), np.array([0.0, 1.0]), k, beta)
    q = float(np.exp(found.log_policy[1]))
    gain = k * np.exp((k - less) * found.log_policy[0]) / beta
    return expit(logit(p) + gain), q


@K2.check(Identity(1e-11, scale=1), Space(**{name: PROBLEM[name] for name in ("log_ref", "reward", "beta")}), instances=60, batched=False,
          false={"max@2 is a tilt too": {"k": 2}})  # fmt: skip
def one_attempt_is_the_tilt(log_ref, reward, beta, *, k=1):
    return np.exp(regularized_max_at_k(log_ref, reward, k, beta).log_policy), np.exp(tilt(log_ref, reward, beta))


# K3 ------------------------------------------------------------------------------------------------
K3 = paper.claim("K3", r"""
    Training for pass@k improves a policy less than training for pass@1

    At the same $\beta$ the KL-regularised optimum of pass@k has a success probability of at most that of pass@1: the other attempts
    already cover.

    where: as pass@k training is often explained (exploration is paid for with exploitation)
    instead: On hard prompts it improves more: exactly where $k(1-p_1)^{k-1}>1$, $p_1$ the optimum of pass@1, that is $p_1<1-k^{-1/(k-1)}$
    (.5 for $k=2$, .21 for $k=16$).
    by: K3-threshold
    origin: folklore
    """)  # fmt: skip
BINARY = {"p": Floats(1e-3, 1 - 1e-3), "k": Integers(2, 30), "beta": Floats(0.1, 20.0, log=True)}


def successes(p, k, beta):
    """Success probabilities of the optima of pass@k and of pass@1."""
    pair = np.log([1 - p, p]), np.array([0.0, 1.0])
    return [float(np.exp(regularized_max_at_k(*pair, attempts, beta).log_policy[1])) for attempts in (k, 1)]


def hard(k):
    """Below this success probability max@k weighs a success more than pass@1 does."""
    return 1 - k ** (-1 / (k - 1))


@K3.check(
    Inequality(1e-9),
    Space(**BINARY),
    instances=100,
    batched=False,
    true={"where pass@1 ends above the threshold": {"easy": True}},
)
def less_than_one_attempt(p, k, beta, *, easy=False):
    several, one = successes(p, k, beta)
    return (several, one) if not easy or one >= hard(k) else (0.0, one)


K3_threshold = paper.claim("K3-threshold", r"""
    Where pass@k moves a policy further than pass@1

    $p_k>p_1$ exactly where $p_1<1-k^{-1/(k-1)}$: the sign of $p_k-p_1$ is that of $k(1-p_1)^{k-1}-1$.

    where: derived
    """)  # fmt: skip


@K3_threshold.check(Inequality(1e-9), Space(**BINARY), instances=200, batched=False,
                    false={"at 1 - 1/k": {"at": lambda k: 1 - 1 / k}, "at 1/k": {"at": lambda k: 1 / k}})  # fmt: skip
def sign(p, k, beta, *, at=hard):
    several, one = successes(p, k, beta)
    return -(several - one) * np.sign(at(k) - one), 0.0


# K4 ------------------------------------------------------------------------------------------------
K4 = paper.claim("K4", r"""
    The plug-in $1-(1-c/n)^k$ estimates pass@k without bias

    With c successes among n samples $E[1-(1-c/n)^k]=1-(1-p)^k$.

    where: common in evaluation code
    instead: It is too low on average, $1-(1-p)^k$ being concave; $1-\binom{n-c}k/\binom nk$ is unbiased, exactly.
    by: K4-unbiased
    origin: folklore
    """)  # fmt: skip
COUNTED = {"p": Floats(0.02, 0.98), "n": Integers(2, 40), "share": Floats(0.05, 1.0)}


def estimated(p, n, k, estimate):
    """Mean and variance of an estimate from the number of successes of n."""
    log_p = np.log([1 - p, p])
    found = estimator_moments(lambda y: estimate(n, y.sum(axis=1), k), log_p, n, ordered=False)
    return float(found.mean), found.variance


def plug_in(n, c, k):
    return 1 - (1 - c / n) ** k


@K4.check(
    Identity(1e-10),
    Space(**COUNTED),
    instances=60,
    batched=False,
    true={"one attempt": {"most": 0.0}, "by subsets": {"estimate": pass_at_k}},
)
def plug_in_is_unbiased(p, n, share, *, most=1.0, estimate=plug_in):
    k = max(1, round(most * share * n))
    return estimated(p, n, k, estimate)[0], 1 - (1 - p) ** k


K4_unbiased = paper.claim("K4-unbiased", r"""
    The subset estimate of pass@k is unbiased, and no estimate from disjoint sets of k varies less

    $E[1-\binom{n-c}k/\binom nk]=1-(1-p)^k$ for every $k\le n$; its variance is at most that of the mean over $\lfloor n/k\rfloor$ disjoint
    sets, as it is a function of the complete sufficient statistic $c$. The plug-in is low: $E[1-(1-c/n)^k]\le1-(1-p)^k$.

    where: Codex (arXiv 2107.03374), Eq. 1; variance: Rao-Blackwell
    """)  # fmt: skip


@K4_unbiased.check(
    Identity(1e-11), Space(**COUNTED), instances=100, batched=False, false={"the plug-in": {"estimate": plug_in}}
)
def unbiased(p, n, share, *, estimate=pass_at_k):
    k = max(1, round(share * n))
    return estimated(p, n, k, estimate)[0], 1 - (1 - p) ** k


@K4_unbiased.check(
    Inequality(1e-11, scale=1),
    Space(**COUNTED),
    instances=100,
    batched=False,
    false={"as many as there are sets of k": {"sets": lambda n, k: n}},
)
def least_variance(p, n, share, *, sets=lambda n, k: n // k):
    k = max(1, round(share * n))
    chance = (1 - p) ** k
    return estimated(p, n, k, pass_at_k)[1], chance * (1 - chance) / sets(n, k)


@K4_unbiased.check(
    Inequality(1e-11), Space(**COUNTED), instances=60, batched=False, false={"the estimate of k + 1": {"more": 1}}
)
def plug_in_is_low(p, n, share, *, more=0):
    k = max(1, round(share * n))
    return estimated(p, n, k + more, plug_in)[0], 1 - (1 - p) ** k


# K5 ------------------------------------------------------------------------------------------------
K5 = paper.claim("K5", r"""
    Which baselines leave the policy gradient of max@k unbiased

    Advantages $kE_J[\max(r_i,\max_Jr)]$ over subsets J of the group, less nothing, the mean best of k of the others, or the mean best of
    $k-1$ of the others: the expected update is the gradient of max@k, exactly. The mean best of k of the whole group leaves
    $1-k/G$ of it: nothing at $k=G$.

    where: PKPO (arXiv 2505.15201); the last line derived
    """)  # fmt: skip
GROUPS = {"log_p": Policies(), "reward": Rewards(), "k": Integers(2, 4), "spare": Integers(1, 2), "A": Sizes(2, 3)}
GROUP_BASELINES = ("none", "leave_one_out", "without_it")


def expected_update(log_p, reward, k, size, baseline):
    """Mean and covariance of the sampled gradient by logits, groups of ``size``."""

    def advantages(outcomes):
        rows = reward[outcomes]
        group = np.repeat(np.arange(len(rows)), size)
        return max_at_k_advantages(rows.reshape(-1), group, k=k, baseline=baseline).reshape(rows.shape)

    return estimator_moments(policy_gradient(log_p, advantages), log_p, size, ordered=False)


def gradient(log_p, reward, k):
    """Of max@k by logits."""
    slope = max_at_k_slope(log_p, reward, k)
    return np.exp(log_p) * (slope - expectation(log_p, slope))


@K5.check(Identity(1e-10, scale=1), Space(**GROUPS), instances=40, batched=False,
          false={"the mean best of the group": {"baselines": ("group",)}, "of max@(k-1)": {"less": 1}})  # fmt: skip
def expected_updates(log_p, reward, k, spare, *, baselines=GROUP_BASELINES, less=0):
    wanted = gradient(log_p, reward, k - less)
    return {b: (expected_update(log_p, reward, k, k + spare, b).mean, wanted) for b in baselines}


@K5.check(
    Identity(1e-10, scale=1), Space(**GROUPS), instances=40, batched=False, false={"1 - 1/G": {"taken": lambda k: 1}}
)
def the_group_takes_its_share(log_p, reward, k, spare, *, taken=lambda k: k):
    size = k + spare - 1
    left = 1 - taken(k) / size
    return expected_update(log_p, reward, k, size, "group").mean, left * gradient(log_p, reward, k)


# K6 ------------------------------------------------------------------------------------------------
K6 = paper.claim("K6", r"""
    A leave-one-out baseline never makes the gradient noisier

    The variance (trace of the covariance) of the sampled gradient of the expected reward with the mean reward of the others as a baseline
    is at most that without a baseline.

    where: why RLOO has a baseline
    instead: The baseline is estimated, from few samples badly: with two responses and rewards whose mean is near 0 it doubles the noise.
    With a large group it helps unless the mean is near 0.
    by: K6-large
    origin: folklore
    """)  # fmt: skip


def noise(log_p, reward, size, baseline):
    def advantages(outcomes):
        rows = reward[outcomes]
        others = (rows.sum(axis=1, keepdims=True) - rows) / (size - 1)
        return rows - (others if baseline else 0.0)

    return estimator_moments(policy_gradient(log_p, advantages), log_p, size, ordered=False).variance


@K6.check(Inequality(1e-10), Space(log_p=Policies(), reward=Rewards(), size=Integers(2, 5), **SMALL), instances=60, batched=False,
          true={"rewards that are at least 1, groups of 4 and 5": {"shift": True}})  # fmt: skip
def baseline_helps(log_p, reward, size, *, shift=False):
    if shift:
        reward, size = 1 + (reward - reward.min()) / (1 + np.ptp(reward)), 4 + size % 2
    return noise(log_p, reward, size, True), noise(log_p, reward, size, False)


K6_large = paper.claim("K6-large", r"""
    What a leave-one-out baseline adds and takes away

    With $s=|\nabla\log\pi|^2$, $\mu=E[r]$, $\sigma^2=\mathrm{Var}(r)$ and groups of G the variance changes by
    $\frac1GE[s((r-\mu)^2-r^2)]+\frac{\sigma^2E[s]+|\nabla\mu|^2}{G(G-1)}$: the first term is what a perfect baseline takes away, the
    second is the price of estimating it.

    where: derived
    """)  # fmt: skip


@K6_large.check(Identity(1e-9, scale=1), Space(log_p=Policies(), reward=Rewards(), size=Integers(2, 5), **SMALL), instances=60, batched=False,
                false={"a perfect baseline": {"price": 0.0}, "G instead of G - 1": {"less": 0}})  # fmt: skip
def change_of_noise(log_p, reward, size, *, price=1.0, less=1):
    p = np.exp(log_p)
    scores = np.eye(len(p)) - p
    s, mean = (scores**2).sum(axis=1), p @ reward
    slope = p @ (scores * reward[:, None])
    perfect = p @ (s * ((reward - mean) ** 2 - reward**2))
    cost = (p @ (reward - mean) ** 2 * (p @ s) + slope @ slope) / (size - less)
    changed = noise(log_p, reward, size, True) - noise(log_p, reward, size, False)
    return changed, (perfect + price * cost) / size, 1 + noise(log_p, reward, size, False)


# K7 ------------------------------------------------------------------------------------------------
K7 = paper.claim("K7", r"""
    Failure at k attempts falls as a power of k over any set of prompts that are each solved sometimes

    $E[(1-p)^k]$ over prompts falls like $k^{-a}$, with the exponent of small k.

    where: scaling laws of repeated sampling, as commonly read
    instead: Each prompt's $(1-p)^k$ falls exponentially; the mean over prompts is a power law where the density of p near 0 is one:
    $p\sim\mathrm{Beta}(a,b)$ gives $k^{-a}\Gamma(a+b)/\Gamma(b)$. Rates above .01 fall faster than any power.
    by: K7-beta
    origin: as commonly read
    """)  # fmt: skip
ATTEMPTS = 2.0 ** np.arange(4, 15)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)  # on [0, 1]
NODES, WEIGHTS = 0.5 * (NODES + 1), 0.5 * WEIGHTS


@K7.check(Limit(rate=-0.5, rate_tol=0.2), true={"down to 0, with density p^(-1/2)": {"least": 0.0}})
def falls_as_a_power(*, least=0.01):
    """p = least + (1 - least) x with x ~ Beta(1/2, 1), by quadrature in v = sqrt(x), uniform on [0, 1]."""
    p = least + (1 - least) * NODES**2
    return ATTEMPTS, [WEIGHTS @ np.exp(k * np.log1p(-p)) for k in ATTEMPTS]


K7_beta = paper.claim("K7-beta", r"""
    Beta-distributed success rates give a power law of repeated sampling

    $E[(1-p)^k]=B(a,b+k)/B(a,b)$, which tends to $k^{-a}\Gamma(a+b)/\Gamma(b)$: the exponent is that of the density at 0, b does not enter.

    where: Schaeffer et al. (arXiv 2502.17578)
    """)  # fmt: skip


@K7_beta.check(Limit(rate=-1.0, rate_tol=0.1), false={"Gamma(a + b) only": {"divided": False}})
def tends_to_its_power_law(*, divided=True):
    """Relative distance from the power law, for three pairs (a, b)."""
    errors = []
    for a, b in ((0.3, 1.0), (0.5, 2.0), (1.5, 3.0)):
        from_law = betaln(a, b + ATTEMPTS) - betaln(a, b)
        power = -a * np.log(ATTEMPTS) - betaln(a, b) + gammaln(a) + (0.0 if divided else gammaln(b))
        errors.append(np.abs(np.expm1(from_law - power)))
    return ATTEMPTS, np.max(errors, axis=0)


# smooth at 0 for these a; at 1 a power of at least b - 1 + k = 1: an error of NODES^-4
@K7_beta.check(Identity(1e-8), Space(a=Choice(0.5, 1.0, 2.0), b=Floats(1.0, 4.0), k=Integers(1, 60)), instances=40, batched=False,
               false={"B(a, b + k - 1)": {"more": -1}})  # fmt: skip
def mean_failure(a, b, k, *, more=0):
    """By quadrature in x with p = x^(1/a): the density of x is (1-p)^(b-1) / (a B(a, b))."""
    p = NODES ** (2 / a)  # x = u^2 smooths the end at 0
    mean = np.sum(WEIGHTS * 2 * NODES * (1 - p) ** (b - 1 + k)) / np.exp(np.log(a) + betaln(a, b))
    return np.exp(betaln(a, b + k + more) - betaln(a, b)), mean
