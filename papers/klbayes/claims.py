r"""Claims of "RL with KL penalties is better viewed as Bayesian inference".

Prior ``pi_ref`` over sequences, reward ``r``, posterior ``pi_star = pi_ref e^{r/beta} / Z``; the instance T is a
token tree with 3 tokens and 3 steps on which 9 of 27 sequences are correct.
"""

from __future__ import annotations

import math

import numpy as np
import sympy
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from klsim import best_of_n
from klsim.claims import Effect, Identity, Inequality, Limit, Optimality, Paper, Symbolic
from klsim.distributions import condition, entropy, expectation, log_normalize, log_partition, sample, tilt
from klsim.divergences import kl
from klsim.learning import exact_tree_ascent, train_tree
from klsim.optima import kl_constrained, kl_regularized
from klsim.problems.token_tree import conditionals, path_sums, sequence_log_probs, tokens
from klsim.spaces import Betas, Floats, Integers, Masks, Policies, Rewards, Seeds, Sizes, Space

paper = Paper(
    "klbayes",
    title="RL with KL penalties is better viewed as Bayesian inference",
    authors="Tomasz Korbak, Ethan Perez, Christopher L. Buckley",
    year=2022,
    arxiv="2205.11275",
)

# The tree instance T ------------------------------------------------------------------------------
V, H = 3, 3
SPLITS = (1, 4)


def levels_of(table):
    """Rows of a (13, 3) table of prefixes as the levels of a tree."""
    return tuple(np.split(np.asarray(table, dtype=float), SPLITS))


_S, _V = np.arange(13)[:, None], np.arange(3)[None, :]
THETA_REF = levels_of(0.5 * np.cos(2 + 5 * _S + 2 * _V))
THETA = levels_of(np.sin(1 + 3 * _S + _V))
REF = tuple(log_normalize(level) for level in THETA_REF)
LOG_PRIOR = sequence_log_probs(REF)
REWARD = (tokens(V, H).sum(axis=1) % 3 == 0).astype(float)


def law_of(table):
    """Sequence log-probabilities of a (13, 3) table (or flat vector) of logits."""
    return sequence_log_probs(tuple(log_normalize(x) for x in levels_of(np.reshape(table, (13, 3)))))


def score_table():
    """``d log pi(y) / d logits`` at theta for all 27 sequences, ``(27, 39)``."""
    out = np.zeros((27, 13, 3))
    policy = np.concatenate([np.exp(log_normalize(x)) for x in THETA])
    for i, y in enumerate(tokens(V, H)):
        row, node = 0, 0
        for t in range(H):
            s = row + node
            out[i, s] -= policy[s]
            out[i, s, y[t]] += 1
            node, row = node * 3 + y[t], row + 3**t
    return out.reshape(27, 39)


FLAT_THETA = np.concatenate(THETA).ravel()
LOG_PI = law_of(FLAT_THETA)
SCORES = score_table()


def gradient(f, at=FLAT_THETA, h=1e-5):
    """Central differences over the logits."""
    steps = h * np.eye(at.size)
    return np.array([(f(at + e) - f(at - e)) / (2 * h) for e in steps])


# C1 ------------------------------------------------------------------------------------------------
C1 = paper.claim(
    "C1",
    "The KL-regularised objective is an ELBO of the posterior",
    statement=r"$$J(\pi)=\mathbb{E}_\pi r-\beta\,\mathrm{KL}(\pi\|\pi_{ref})=-\beta\,\mathrm{KL}(\pi\|\pi^*)+\beta\log Z,"
    r"\qquad\pi^*=\pi_{ref}e^{r/\beta}/Z,$$ so $\pi^*$ is the unique maximiser and $\max J=\beta\log Z$.",
    where="main derivation of the KL-RL section",
    assumptions="r finite, beta > 0, pi << pi_ref.",
)
C1_SPACE = Space(
    log_ref=Policies(zero_support=True), log_pi=Policies(zero_support=True, like="log_ref"), reward=Rewards(), beta=Betas()
)  # fmt: skip


def _objective(log_pi, log_ref, reward, beta):
    gain, cost = expectation(log_pi, reward), kl(log_pi, log_ref)
    return gain - beta * cost, np.abs(gain) + beta * cost


@C1.check(Identity(1e-11), C1_SPACE)
def elbo_identity(log_ref, log_pi, reward, beta):
    value, scale = _objective(log_pi, log_ref, reward, beta)
    posterior = tilt(log_ref, reward, beta)
    gap = beta * kl(log_pi, posterior)
    evidence = beta * log_partition(log_ref, reward, beta)
    return value, evidence - gap, scale + gap + np.max(np.abs(reward), axis=-1)


@elbo_identity.control("with the KL the other way round")
def reversed_kl(log_ref, log_pi, reward, beta):
    value, scale = _objective(log_pi, log_ref, reward, beta)
    posterior = tilt(log_ref, reward, beta)
    return value, beta * (log_partition(log_ref, reward, beta) - kl(posterior, log_pi)), scale


@C1.check(
    Optimality(1e-9),
    Space(log_ref=Policies(spread=5.0), reward=Rewards(), beta=Betas(0.1, 3.0)),
    batched=False,
    instances=40,
)
def optimiser_finds_the_posterior(log_ref, reward, beta):
    def loss(z):
        log_p = log_normalize(z)
        p, g = np.exp(log_p), reward - beta * (log_p - log_ref)
        return -(p @ g), -p * (g - p @ g)

    found = minimize(loss, log_ref, jac=True, method="BFGS", options={"gtol": 1e-10})
    return float(kl_regularized(log_ref, reward, beta).value), -found.fun, 1.0


@optimiser_finds_the_posterior.control("the prior is the optimum")
def prior_is_optimal(log_ref, reward, beta):
    return float(expectation(log_ref, reward)), float(kl_regularized(log_ref, reward, beta).value), 1.0


@C1.check(Symbolic())
def proof_on_three_outcomes():
    return _c1_expression(sympy.Symbol("beta", positive=True), True)


@proof_on_three_outcomes.control("without the evidence term")
def without_evidence():
    return _c1_expression(sympy.Symbol("beta", positive=True), False)


def _c1_expression(beta, evidence):
    ref, r = sympy.symbols("q1:4", positive=True), sympy.symbols("r1:4", real=True)
    p1, p2 = sympy.symbols("p1:3", positive=True)
    pi, log_z = (p1, p2, 1 - p1 - p2), sympy.Symbol("logZ", real=True)
    value = sum(p * (x - beta * (sympy.log(p) - sympy.log(q))) for p, x, q in zip(pi, r, ref))
    divergence = sum(p * (sympy.log(p) - sympy.log(q) - x / beta + log_z) for p, x, q in zip(pi, r, ref))
    return sympy.expand(value + beta * divergence - (beta * log_z if evidence else 0))


# C2 ------------------------------------------------------------------------------------------------
C2 = paper.claim(
    "C2",
    "The optimum is a Bayes posterior, and evidence accumulates",
    statement=r"With likelihood $L=e^{(r-\max r)/\beta}$ the posterior $\pi_{ref}L/\mathbb{E}_{\pi_{ref}}[L]$ is $\pi^*$;"
    r" posterior(posterior$(p,r_1,\beta_1),r_2,\beta_2)$ = posterior$(p,r_1/\beta_1+r_2/\beta_2,1)$; a constant added to"
    r" $r$ changes nothing.",
    where="Bayesian reading (accumulation rule derived)",
)
C2_SPACE = Space(
    log_ref=Policies(), r1=Rewards(), r2=Rewards(), b1=Betas(0.1, 3.0), b2=Betas(0.1, 3.0), shift=Floats(-10, 10)
)  # fmt: skip


@C2.check(Identity(1e-11), C2_SPACE)
def posterior_rules(log_ref, r1, r2, b1, b2, shift):
    beta1, beta2 = np.asarray(b1)[..., None], np.asarray(b2)[..., None]
    likelihood = np.exp((r1 - np.max(r1, axis=-1, keepdims=True)) / beta1)
    joint = np.exp(log_ref) * likelihood
    bayes = joint / joint.sum(axis=-1, keepdims=True)
    twice = tilt(tilt(log_ref, r1, b1), r2, b2)
    return {
        "Bayes": (bayes, np.exp(tilt(log_ref, r1, b1)), 1.0),
        "accumulation": (np.exp(twice), np.exp(tilt(log_ref, r1 / beta1 + r2 / beta2, 1.0)), 1.0),
        "constant": (np.exp(tilt(log_ref, r1 + np.asarray(shift)[..., None], b1)), bayes, 1.0),
    }


@posterior_rules.control("rewards add up at the mean beta")
def mean_beta(log_ref, r1, r2, b1, b2, shift):
    twice = tilt(tilt(log_ref, r1, b1), r2, b2)
    return {"accumulation": (np.exp(twice), np.exp(tilt(log_ref, r1 + r2, (b1 + b2) / 2)), 1.0)}


# C3 ------------------------------------------------------------------------------------------------
C3 = paper.claim(
    "C3",
    "Gradients: the penalty belongs in the (detached) reward",
    statement=r"$\nabla J=-\beta\nabla\mathrm{KL}(\pi_\theta\|\pi^*)=\mathbb{E}_{\pi_\theta}[r'(x)\nabla\log\pi_\theta(x)]$ with"
    r" $r'=r+\beta\log\frac{\pi_{ref}}{\pi_\theta}$ held fixed; token form with the penalty to go only. As losses,"
    r" $k_1$ has zero expected gradient, $k_2$ that of $\mathrm{KL}(\pi\|\pi_{ref})$, $k_3$ that of"
    r" $\mathrm{KL}(\pi_{ref}\|\pi)$.",
    where="KL-RL section (token form and estimator facts derived)",
)
C3_BETA = 0.5


def _expected_loss_gradient(k):
    """``sum_x pi(x) grad k(log pi/ref)`` with the sampling weights frozen."""
    weights = np.exp(LOG_PI)

    def value(theta):
        rho = law_of(theta) - LOG_PRIOR
        return weights @ {"k1": rho, "k2": rho**2 / 2, "k3": np.expm1(-rho) + rho}[k]

    return gradient(value)


@C3.check(Identity(1e-8))
def score_function_forms():
    rho = LOG_PI - LOG_PRIOR
    posterior = tilt(LOG_PRIOR, REWARD, C3_BETA)
    direct = gradient(lambda x: _objective(law_of(x), LOG_PRIOR, REWARD, C3_BETA)[0])
    to_posterior = -C3_BETA * gradient(lambda x: float(kl(law_of(x), posterior)))
    score = (np.exp(LOG_PI) * (REWARD - C3_BETA * rho)) @ SCORES
    return {
        "-beta grad KL(pi‖pi*)": (to_posterior, direct, 1.0),
        "sequence form": (score, direct, 1.0),
        "token form": (_token_form(), direct, 1.0),
    }


def _token_form():
    """``E[sum_t G_t grad log pi_t]`` with ``G_t = r - beta * (log-ratio from t on)``, by enumeration."""
    policy, ref = (np.concatenate([log_normalize(x) for x in levels]) for levels in (THETA, THETA_REF))
    total = np.zeros((13, 3))
    for i, y in enumerate(tokens(V, H)):
        nodes, node, row = [], 0, 0
        for t in range(H):
            nodes.append(row + node)
            node, row = node * 3 + y[t], row + 3**t
        ratios = [policy[s, a] - ref[s, a] for s, a in zip(nodes, y)]
        for t, (s, a) in enumerate(zip(nodes, y)):
            credit = math.exp(LOG_PI[i]) * (REWARD[i] - C3_BETA * sum(ratios[t:]))
            total[s] -= credit * np.exp(policy[s])
            total[s, a] += credit
    return total.ravel()


@score_function_forms.control("without the penalty in the reward")
def no_penalty():
    direct = gradient(lambda x: _objective(law_of(x), LOG_PRIOR, REWARD, C3_BETA)[0])
    return {"sequence form": ((np.exp(LOG_PI) * REWARD) @ SCORES, direct, 1.0)}


@C3.check(Identity(1e-8))
def what_the_losses_descend():
    reverse = gradient(lambda x: float(kl(law_of(x), LOG_PRIOR)))
    forward = gradient(lambda x: float(kl(LOG_PRIOR, law_of(x))))
    return {
        "k1 does nothing": (_expected_loss_gradient("k1"), 0.0, 1.0),
        "k2 is reverse": (_expected_loss_gradient("k2"), reverse, 1.0),
        "k3 is forward": (_expected_loss_gradient("k3"), forward, 1.0),
    }


def _token_sum_gradient(k):
    """``sum_y pi(y) grad sum_t k(log pi_t/ref_t)``: the penalty of every token by itself, weights frozen."""
    weights = np.exp(LOG_PI)

    def value(theta):
        ratios = [log_normalize(now) - ref for now, ref in zip(levels_of(np.reshape(theta, (13, 3))), REF)]
        return weights @ path_sums([{"k2": x**2 / 2, "k3": np.expm1(-x) + x}[k] for x in ratios])

    return gradient(value)


@what_the_losses_descend.control("per-token sums of k2 and k3 descend the same divergences")
def token_sums():
    reverse = gradient(lambda x: float(kl(law_of(x), LOG_PRIOR)))
    forward = gradient(lambda x: float(kl(LOG_PRIOR, law_of(x))))
    return {
        "k2 is reverse": (_token_sum_gradient("k2"), reverse, 1.0),
        "k3 is forward": (_token_sum_gradient("k3"), forward, 1.0),
    }


C3_loss = paper.claim(
    "C3-folklore",
    "Folklore: back-propagating the sampled KL estimate k1 or k3 descends KL(pi ‖ pi_ref)",
    statement=r"$\mathbb{E}_{\pi}\nabla_\theta k_i(\log\frac{\pi_\theta}{\pi_{ref}})=\nabla\mathrm{KL}(\pi_\theta\|\pi_{ref})$ for"
    r" $i=1,3$, as in many trainers' KL losses.",
    where="practice; not claimed by the paper",
    origin="derived",
    expect="refuted",
    correction=r"$k_1$ as a loss has zero expected gradient and $k_3$ descends the forward $\mathrm{KL}(\pi_{ref}\|\pi_\theta)$;"
    r" $k_2$ gives the reverse-KL gradient.",
)


@C3_loss.check(Identity(1e-8))
def sampled_kl_as_loss():
    reverse = gradient(lambda x: float(kl(law_of(x), LOG_PRIOR)))
    return {k: (_expected_loss_gradient(k), reverse, 1.0) for k in ("k1", "k3")}


@sampled_kl_as_loss.control("k2 does")
def k2_as_loss():
    return {"k2": (_expected_loss_gradient("k2"), gradient(lambda x: float(kl(law_of(x), LOG_PRIOR))), 1.0)}


# C4 ------------------------------------------------------------------------------------------------
C4 = paper.claim(
    "C4",
    "Distribution collapse: without the KL penalty policy gradient ends on one sequence, with it at the posterior",
    statement=r"REINFORCE on T with $\beta=0$ collapses (entropy below 0.6 of 3.1 nats) although 9 sequences are optimal; with"
    r" $\beta=0.2$ it ends within 0.2 nats of the posterior's entropy.",
    where="section on standard RL (effect; exact-flow facts derived)",
    assumptions="Softmax policy gradient, batch 32, lr 1, 1500 steps, leave-one-out baseline, one start.",
)
C4_SEEDS = 10


def reinforce(rng, beta, reward=REWARD, **options):
    """Final law over sequences of C4's run."""
    settings = {"credit": "sequence", "batch": 32, "lr": 1.0, "steps": 1500} | options
    return sequence_log_probs(train_tree(THETA_REF, REF, reward=reward, beta=beta, rng=rng, **settings).final)


@C4.check(Effect(seeds=C4_SEEDS, alternative="less", null=0.6), batched=False)
def entropy_without_penalty(rng):
    return float(entropy(reinforce(rng, 0.0)))


@C4.check(Effect(seeds=C4_SEEDS, alternative="greater", null=0.97), batched=False)
def accuracy_without_penalty(rng):
    return float(expectation(reinforce(rng, 0.0), REWARD))


@C4.check(Effect(seeds=C4_SEEDS, alternative="within", null=0.0, margin=0.2), batched=False)
def entropy_with_penalty(rng):
    return float(entropy(reinforce(rng, 0.2)) - entropy(tilt(LOG_PRIOR, REWARD, 0.2)))


@entropy_without_penalty.control("a constant reward collapses it too, with the leave-one-out baseline")
def constant_reward(rng):
    return float(entropy(reinforce(rng, 0.0, reward=np.ones(27))))


@entropy_with_penalty.control("without the penalty it ends at the posterior for beta = 0.2 as well")
def no_penalty_reaches_posterior(rng):
    return float(entropy(reinforce(rng, 0.0)) - entropy(tilt(LOG_PRIOR, REWARD, 0.2)))


@C4.check(Effect(seeds=20, alternative="less", null=2.5), batched=False)
def noise_alone_collapses_without_a_baseline(rng):
    """Constant reward as raw weight: the entropy falls from 3.1 although no sequence is better than another."""
    return float(entropy(reinforce(rng, 0.0, reward=np.ones(27), baseline="none")))


@C4.check(Effect(seeds=5, alternative="within", null=0.0, margin=0.05), batched=False)
def entropy_with_a_large_penalty(rng):
    return float(entropy(reinforce(rng, 1.0)) - entropy(tilt(LOG_PRIOR, REWARD, 1.0)))


@C4.check(Inequality(1e-12))
def exact_ascent_collapses_too():
    law = sequence_log_probs(exact_tree_ascent(THETA_REF, REF, reward=REWARD, steps=1500).final)
    return {"entropy": (float(entropy(law)), 0.05), "accuracy": (0.998, float(expectation(law, REWARD)))}


C4_slow = paper.claim(
    "C4-slow",
    "With a small beta the posterior is the optimum, but the run stays collapsed for a long time",
    statement=r"At $\beta=0.02$ the posterior has entropy 1.87; after 1500 steps the policy still has entropy below 0.1.",
    where="derived",
    origin="derived",
)


@C4_slow.check(Effect(seeds=5, alternative="less", null=0.1), batched=False)
def still_collapsed(rng):
    return float(entropy(reinforce(rng, 0.02)))


@still_collapsed.control("beta = 0.2 is still collapsed as well")
def collapsed_at_larger_beta(rng):
    return float(entropy(reinforce(rng, 0.2)))


C4_ties = paper.claim(
    "C4-ties",
    "Plain policy gradient is the beta → 0 limit of KL-regularised RL",
    statement=r"Among tied optimal outcomes policy gradient from $\pi_{ref}$ ends at $\pi_{ref}(\cdot|\arg\max r)$, the limit of"
    r" $\pi^*$.",
    where="reading of plain RL as the singular case",
    expect="refuted",
    correction=r"With ties the exact softmax flow keeps $e^{-\theta_i}-e^{-\theta_j}$ for tied options, so the initially larger one"
    r" takes all mass (equal ones stay equal): $(.3,.1,.6)$ with $r=(1,1,0)$ flows to $(1,0,0)$, while the limit of the"
    r" posterior is $(.75,.25,0)$.",
)


def flow_end(log_p, reward, time):
    """The exact softmax policy gradient flow ``d theta = pi (r - E r)``."""

    def speed(_, theta):
        pi = np.exp(log_normalize(theta))
        return pi * (reward - pi @ reward)

    found = solve_ivp(speed, (0.0, time), log_p, method="LSODA", rtol=1e-9, atol=1e-12)
    return np.exp(log_normalize(found.y[:, -1]))


@C4_ties.check(Identity(0.02), examples=[{"p": np.array([0.3, 0.1, 0.6])}])
def flow_ends_at_conditioned_prior(p):
    reward = np.array([1.0, 1.0, 0.0])
    return flow_end(np.log(p), reward, 1e4), np.exp(condition(np.log(p), reward == 1)), 1.0


@flow_ends_at_conditioned_prior.control("equal tied options stay equal", examples=[{"p": np.array([0.2, 0.2, 0.6])}])
def equal_options(p):
    return flow_ends_at_conditioned_prior.function(p)


# C5 ------------------------------------------------------------------------------------------------
C5 = paper.claim(
    "C5",
    "Limits in beta",
    statement=r"$\beta\to0$: $\pi^*\to\pi_{ref}(\cdot|\arg\max r)$; $\beta\to\infty$: $\pi^*\to\pi_{ref}$; both"
    r" $\mathrm{KL}(\pi^*\|\pi_{ref})$ and $\mathbb{E}r$ are non-increasing in $\beta$.",
    where="limits",
)


@C5.check(Limit(rate=-1.0, rate_tol=0.05))
def large_beta():
    p, r = np.log(np.arange(1, 9) / 36), np.array([0, 0.2, 0.4, 0.6, 0.1, 0.3, 1, 1])
    betas = np.array([1e1, 1e2, 1e3, 1e4, 1e5])
    return betas, np.array([np.abs(np.exp(tilt(p, r, b)) - np.exp(p)).max() for b in betas])


@large_beta.control("the error falls like beta^-2")
def too_fast():
    betas, error = large_beta.function()
    return betas, error * betas


@C5.check(Inequality(1e-12), Space(log_ref=Policies(), reward=Rewards(), beta=Betas(1e-3, 1e-2)))
def small_beta(log_ref, reward, beta):
    best = reward == np.max(reward, axis=-1, keepdims=True)
    limit = np.exp(condition(log_ref, best))
    behind = np.where(best, -np.inf, reward)
    gap = np.max(reward, axis=-1) - np.max(behind, axis=-1)
    mass = np.sum(np.where(best, np.exp(log_ref), 0.0), axis=-1)
    error = np.abs(np.exp(tilt(log_ref, reward, beta)) - limit).max(axis=-1)
    # mass outside the argmax is at most e^{-gap/beta} / p(argmax)
    return error, np.exp(-gap / beta) / mass, 1.0


@C5.check(
    Inequality(1e-10),
    Space(log_ref=Policies(zero_support=True), reward=Rewards(), beta=Betas(), factor=Floats(1.0, 5.0)),
)
def monotone_in_beta(log_ref, reward, beta, factor):
    low, high = kl_regularized(log_ref, reward, beta), kl_regularized(log_ref, reward, beta * factor)
    scale = 1 + np.max(np.abs(reward), axis=-1)
    return {"KL": (high.kl, low.kl, 1.0), "reward": (high.reward, low.reward, scale)}


C5_entropy = paper.claim(
    "C5-entropy",
    "Entropy falls monotonically as beta falls",
    statement=r"$H(\pi^*)$ is non-decreasing in $\beta$.",
    where="a common reading of collapse",
    origin="derived",
    expect="refuted",
    correction=r"KL to the prior is monotone, entropy is not: with $p=(.9,.05,.05)$, $r=(0,1,1)$ it rises from 0.39 (prior) to"
    r" 1.0 ($\beta=.5$) before it falls to $\log2$. From a uniform prior it is monotone.",
)


@C5_entropy.check(
    Inequality(1e-9),
    Space(log_ref=Policies(), reward=Rewards(), beta=Betas(), factor=Floats(1.0, 5.0)),
    examples=[{"log_ref": np.log([0.9, 0.05, 0.05]), "reward": np.array([0.0, 1.0, 1.0]), "beta": 0.5, "factor": 20.0}],
)
def entropy_is_monotone(log_ref, reward, beta, factor):
    return entropy(tilt(log_ref, reward, beta)), entropy(tilt(log_ref, reward, beta * factor)), 1.0


@entropy_is_monotone.control(
    "from a uniform prior it is",
    space=Space(log_ref=Policies(), reward=Rewards(), beta=Betas(), factor=Floats(1.0, 5.0)),
)
def entropy_from_uniform(log_ref, reward, beta, factor):
    return entropy_is_monotone.function(np.full_like(log_ref, -math.log(log_ref.shape[-1])), reward, beta, factor)


# C6 ------------------------------------------------------------------------------------------------
C6 = paper.claim(
    "C6",
    "Modelling and inference separate: forward and reverse KL share the optimum only without misspecification",
    statement=r"Product policies on two binary tokens: the forward optimum is the product of the marginals of $\pi^*$, the reverse"
    r" optimum seeks a mode; $J+\beta\,\mathrm{KL}(\pi\|\pi^*)=\beta\log Z$ for both. In the full class they agree.",
    where="discussion of GDC against KL-RL (example derived)",
)
C6_PRIOR, C6_REWARD, C6_BETA = np.full(4, -math.log(4)), np.array([1.0, 0.0, 0.0, 0.9]), 0.15
C6_TARGET = tilt(C6_PRIOR, C6_REWARD, C6_BETA)


def product_policy(z):
    """Law on 00, 01, 10, 11 of two independent bits with logits ``z``."""
    a, b = (log_normalize(np.array([0.0, x])) for x in z)
    return (a[:, None] + b[None, :]).ravel()


def best_product(direction):
    """Best of 12 random restarts (the reverse KL has two local minima)."""
    pair = {
        "reverse": lambda x: kl(product_policy(x), C6_TARGET),
        "forward": lambda x: kl(C6_TARGET, product_policy(x)),
    }
    rng = np.random.default_rng(6)
    runs = [minimize(lambda x: float(pair[direction](x)), 3 * rng.standard_normal(2), method="BFGS") for _ in range(12)]
    return product_policy(min(runs, key=lambda run: run.fun).x)


@C6.check(Identity(1e-5))
def forward_optimum_is_the_product_of_marginals():
    target = np.exp(C6_TARGET).reshape(2, 2)
    return np.exp(best_product("forward")), np.outer(target.sum(1), target.sum(0)).ravel(), 1.0


@forward_optimum_is_the_product_of_marginals.control("so is the reverse optimum")
def reverse_optimum_too():
    target = np.exp(C6_TARGET).reshape(2, 2)
    return np.exp(best_product("reverse")), np.outer(target.sum(1), target.sum(0)).ravel(), 1.0


@C6.check(Identity(1e-10))
def both_obey_the_elbo():
    bound = C6_BETA * float(log_partition(C6_PRIOR, C6_REWARD, C6_BETA))
    parts = {}
    for name in ("reverse", "forward"):
        law = best_product(name)
        parts[name] = (_objective(law, C6_PRIOR, C6_REWARD, C6_BETA)[0] + C6_BETA * float(kl(law, C6_TARGET)), bound)
    return parts


@C6.check(Identity(1e-5))
def they_agree_in_the_full_class():
    def fit(loss):
        return np.exp(log_normalize(minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x))

    reverse = fit(lambda z: float(kl(log_normalize(z), C6_TARGET)))
    return reverse, fit(lambda z: float(kl(C6_TARGET, log_normalize(z)))), 1.0


# C7 ------------------------------------------------------------------------------------------------
C7 = paper.claim(
    "C7",
    "Gradient of distributional policy gradients (DPG)",
    statement=r"$\nabla\mathrm{KL}(\pi^*\|\pi_\theta)=-\mathbb{E}_{\pi_\theta}[\frac{\pi^*}{\pi_\theta}\nabla\log\pi_\theta]"
    r"=-\mathbb{E}_{\pi_\theta}[(\frac{\pi^*}{\pi_\theta}-1)\nabla\log\pi_\theta]"
    r"=-\mathbb{E}_q[\frac{P}{Zq}\nabla\log\pi_\theta]$ for any full-support $q$.",
    where="DPG/GDC discussion",
)


def _dpg_forms(seed):
    posterior = tilt(LOG_PRIOR, REWARD, 0.5)
    direct = gradient(lambda x: float(kl(posterior, law_of(x))))
    pi, ratio = np.exp(LOG_PI), np.exp(posterior - LOG_PI)
    q = np.random.default_rng(seed).dirichlet(np.ones(27))
    unnormalised = np.exp(LOG_PRIOR + REWARD / 0.5)
    z = np.exp(float(log_partition(LOG_PRIOR, REWARD, 0.5)))
    weights = q * (unnormalised / (z * q))
    return direct, -(pi * ratio) @ SCORES, -(pi * (ratio - 1)) @ SCORES, -weights @ SCORES


@C7.check(Identity(1e-8), Space(seed=Seeds()), batched=False, instances=5)
def three_forms(seed):
    direct, plain, baseline, off_policy = _dpg_forms(seed)
    return {"plain": (plain, direct, 1.0), "baseline 1": (baseline, direct, 1.0), "proposal": (off_policy, direct, 1.0)}


@three_forms.control("DPG is policy gradient on the reward pi*/pi, whose true gradient is 0")
def reward_gradient(seed):
    return {"plain": (_dpg_forms(seed)[1], 0.0, 1.0)}


@C7.check(Inequality(1e-12), Space(seed=Seeds()), batched=False, instances=3)
def normaliser_from_samples(seed):
    """|z| of a 200,000-sample estimate of Z = E_q[P/q] below 5."""
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.ones(27))
    weight = np.exp(LOG_PRIOR + REWARD / 0.5) / q
    draws = weight[sample(np.log(q), 200_000, rng)]
    z = math.exp(float(log_partition(LOG_PRIOR, REWARD, 0.5)))
    return abs(draws.mean() - z) / (draws.std() / math.sqrt(draws.size)), 5.0


@C7.check(Inequality(1e-12))
def baseline_one_lowers_the_variance_near_the_optimum():
    """Second moments of the single-sample gradient with and without the baseline, near pi*."""
    posterior = tilt(LOG_PRIOR, REWARD, 0.5)
    near = np.concatenate(conditionals(posterior, V, H)) + 0.03 * np.sin(1 + 3 * _S + _V)
    law = law_of(near)
    policy = np.exp(log_normalize(near))
    norms = np.zeros(27)
    for i, y in enumerate(tokens(V, H)):
        node, row = 0, 0
        for t in range(H):
            p = policy[row + node]
            norms[i] += np.sum(p**2) - 2 * p[y[t]] + 1
            node, row = node * 3 + y[t], row + 3**t
    ratio, pi = np.exp(posterior - law), np.exp(law)
    return (pi * (ratio - 1) ** 2) @ norms, 1e-2 * ((pi * ratio**2) @ norms)


# C8 ------------------------------------------------------------------------------------------------
C8 = paper.claim(
    "C8",
    "Targets of generation with distributional control",
    statement=r"$\arg\min\mathrm{KL}(\pi\|\pi_{ref})$ s.t. $\mathbb{E}_\pi\phi=\mu$ is $\pi_{ref}e^{\lambda\cdot\phi}/Z$ with $\lambda$"
    r" the minimiser of $\log Z(\lambda)-\lambda\cdot\mu$: the KL-RL posterior for $r=\lambda\cdot\phi$, $\beta=1$. A pointwise"
    r" constraint $b(x)=1$ gives the $\beta\to0$ limit for $r=b$.",
    where="GDC discussion",
)


def _moment_problem(seed):
    rng = np.random.default_rng(seed)
    log_ref, features = np.log(rng.dirichlet(np.full(7, 2.0))), rng.integers(0, 3, (7, 2)).astype(float)
    mu = np.exp(tilt(log_ref, features @ rng.standard_normal(2), 1.0)) @ features  # inside the hull
    dual = minimize(
        lambda x: float(log_partition(log_ref, features @ x, 1.0)) - x @ mu, np.zeros(2), method="BFGS",
        options={"gtol": 1e-12},
    )  # fmt: skip
    return log_ref, features, mu, dual.x


@C8.check(Optimality(1e-6), Space(seed=Seeds()), batched=False, instances=20)
def dual_solves_the_primal(seed):
    log_ref, features, mu, lam = _moment_problem(seed)
    law = tilt(log_ref, features @ lam, 1.0)
    constraint = {"type": "eq", "fun": lambda z: np.exp(log_normalize(z)) @ features - mu}
    primal = minimize(
        lambda z: float(kl(log_normalize(z), log_ref)), log_ref, method="SLSQP", constraints=[constraint],
        options={"ftol": 1e-14, "maxiter": 300},
    )  # fmt: skip
    return -float(kl(law, log_ref)), -primal.fun, 1.0


@C8.check(Identity(1e-6), Space(seed=Seeds()), batched=False, instances=50)
def moments_are_met(seed):
    log_ref, features, mu, lam = _moment_problem(seed)
    return np.exp(tilt(log_ref, features @ lam, 1.0)) @ features, mu, 1.0


@moments_are_met.control("with lambda scaled by 1.5")
def scaled_lambda(seed):
    log_ref, features, mu, lam = _moment_problem(seed)
    return np.exp(tilt(log_ref, features @ (1.5 * lam), 1.0)) @ features, mu, 1.0


@C8.check(Identity(1e-12), Space(log_ref=Policies(), event=Masks(), A=Sizes(2, 8)))
def pointwise_constraint(log_ref, event):
    limit = kl_constrained(log_ref, event.astype(float), math.inf).log_policy
    return np.exp(limit), np.exp(condition(log_ref, event)), 1.0


# C9 ------------------------------------------------------------------------------------------------
C9 = paper.claim(
    "C9",
    "Rejection sampling draws from the posterior",
    statement=r"Accepting $x\sim\pi_{ref}$ with probability $e^{(r-\max r)/\beta}$ samples $\pi^*$, at rate $a=Ze^{-\max r/\beta}$; with"
    r" at most $m$ draws, the last one returned if all fail, the law is"
    r" $(1-(1-a)^m)\pi^*+(1-a)^m\pi_{ref}\frac{1-acc}{1-a}$.",
    where="decoding-time methods as inference (truncated law derived)",
)
C9_SPACE = Space(log_ref=Policies(), reward=Rewards(), beta=Betas(0.2, 5.0), m=Integers(1, 16), A=Sizes(2, 6))


def _truncated_law(log_ref, reward, beta, m):
    p, accept = np.exp(log_ref), np.exp((reward - reward.max()) / beta)
    a = p @ accept
    if a > 1 - 1e-12:
        return np.exp(tilt(log_ref, reward, beta))
    missed = (1 - a) ** m
    return (1 - missed) * np.exp(tilt(log_ref, reward, beta)) + missed * p * (1 - accept) / (1 - a)


@C9.check(Identity(1e-9), C9_SPACE, batched=False)
def truncated_rejection(log_ref, reward, beta, m):
    p, accept = np.exp(log_ref), np.exp((reward - reward.max()) / beta)
    a = p @ accept
    law = sum((1 - a) ** k * p * accept for k in range(m - 1)) + (1 - a) ** (m - 1) * p
    return law, _truncated_law(log_ref, reward, beta, m), 1.0


@truncated_rejection.control("the truncated law is the posterior")
def no_truncation(log_ref, reward, beta, m):
    return truncated_rejection.function(log_ref, reward, beta, m)[0], np.exp(tilt(log_ref, reward, beta)), 1.0


@C9.check(Inequality(1e-12), Space(seed=Seeds()), batched=False, instances=5)
def rejection_by_monte_carlo(seed):
    """Largest |z| of the accepted draws among 300,000, below 5.5."""
    rng = np.random.default_rng(seed)
    log_ref, reward, beta = np.log([0.3, 0.25, 0.2, 0.1, 0.1, 0.05]), np.array([0.2, -0.3, 0.5, 0, 0.4, 0.6]), 0.5
    draws = sample(log_ref, 300_000, rng)
    kept = draws[rng.random(draws.size) < np.exp((reward[draws] - reward.max()) / beta)]
    law = np.exp(tilt(log_ref, reward, beta))
    z = (np.bincount(kept, minlength=6) - kept.size * law) / np.sqrt(kept.size * law * (1 - law))
    return np.abs(z), 5.5


C9_bon = paper.claim(
    "C9-bon",
    "Best-of-N is another sampler of the posterior",
    statement=r"For some $\beta$ the law of best-of-$N$ is $\pi^*$.",
    where="summaries of decoding-time methods as inference for one target",
    expect="refuted",
    correction=r"Best-of-N depends on ranks, the posterior on reward differences. They agree with at most two reward levels, and for"
    r" continuous rewards when the reward is $\log F(r)$ at $\beta=1/(N-1)$.",
)


def _bon_against_posterior(log_ref, reward, n):
    law = best_of_n.log_policy(log_ref, reward, n)
    matched = kl_constrained(log_ref, reward, kl(law, log_ref))
    return np.exp(law), np.exp(matched.log_policy), 1.0


@C9_bon.check(
    Identity(1e-6),
    Space(log_ref=Policies(), reward=Rewards(), n=Integers(2, 16), A=Sizes(2, 6)),
    examples=[{"log_ref": np.log([0.6, 0.3, 0.1]), "reward": np.array([0.0, 1.0, 1.01]), "n": 4}],
)
def best_of_n_is_a_posterior(log_ref, reward, n):
    return _bon_against_posterior(log_ref, reward, n)


@best_of_n_is_a_posterior.control(
    "with two reward levels it is", space=Space(log_ref=Policies(spread=8.0), event=Masks(), n=Integers(2, 16), A=Sizes(2, 6)),
    instances=2000,
)  # fmt: skip
def two_levels(log_ref, event, n):
    return _bon_against_posterior(log_ref, event.astype(float), n)
