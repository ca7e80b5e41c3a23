"""Figures of foundations: one a theme, or two."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import betaln

from klsim import best_of_n
from klsim.attempts import regularized_max_at_k
from klsim.continuous import best_of_n_reward, kl_frontier
from klsim.coverage import best_of_n_regret, best_of_n_regret_bound, hockey_stick
from klsim.distributions import entropy, log_normalize, tilt
from klsim.divergences import GENERATORS, kl, renyi, tv
from klsim.finite_samples import best_of_n_by_labels, regularized_regret
from klsim.gaussian import QuadraticReward, gaussian_constrained
from klsim.lagrangian import constrained
from klsim.optima import f_regularized
from klsim.power import power_levels, temper_levels
from klsim.preferences import (
    bradley_terry,
    bradley_terry_fit,
    dpo_policy,
    ipo_fit,
    ipo_policy,
    kto_fixed_point,
    magnetic_descent,
    nash_md,
    orpo_policy,
    proximal_play,
    regularized_nash,
    simpo_policy,
    sppo,
)
from klsim.problems.token_tree import sequence_log_probs
from klsim.prompt_process import kernel_matrix, shared_policy
from klsim.proxy_gold import additive_error, along_best_of_n, gaussian_copula
from klsim.report.drawings import Lines
from klsim.report.figures import Figures
from klsim.selection_rules import majority_vote, noisy_best_of_n, soft_best_of_n, weighted_choice
from klsim.sequence_samplers import exact_twists
from klsim.tree_smc import smc_law

from .attempts import hard
from .power import wide_future
from .preference_optimisation import cyclic, of_two
from .samplers import after, greedy_tree, prefix_powers, sequences
from .samples import by_comparisons, without_penalty

figures = Figures()


@figures.figure(
    "pass-at-k-optima",
    title="What training for pass@k does to pass@1",
    caption="Success probability of the KL-regularised optimum of pass@k less that of pass@1, beta = 1, against the base model's success. On hard"
    " prompts several attempts push more, on easy ones less (K3).",
    draw=Lines("base", "difference", by="k", label="k = {}", xlabel="success of the base model", ylabel="success: pass@k optimum − pass@1 optimum",
               xscale="log", levels={0: "pass@1"}),
)  # fmt: skip
def pass_at_k_optima(run):
    base = np.geomspace(1e-3, 0.95, 60)
    for k in (2, 4, 16, 64):
        ends = [
            [np.exp(regularized_max_at_k(np.log([1 - p, p]), [0.0, 1.0], n, 1.0).log_policy[1]) for n in (k, 1)]
            for p in base
        ]
        yield {"k": [k] * len(base), "base": base, "difference": np.subtract(*np.transpose(ends))}


@figures.figure(
    "where-pass-at-k-pushes",
    title="Weight of a success under pass@k",
    caption="k(1-p)^(k-1), the slope of pass@k by the success probability. It crosses that of pass@1 at p = 1 - k^(-1/(k-1)) (dots; K3, B4).",
    draw=None,
)
def where_pass_at_k_pushes(run):
    p = np.linspace(0, 1, 201)
    for k in (1, 2, 4, 16):
        yield {"k": [k] * 201, "p": p, "weight": k * (1 - p) ** (k - 1), "crossing": [hard(k) if k > 1 else -1.0] * 201}


@where_pass_at_k_pushes.draw
def _(table, canvas):
    axes = canvas.subplots()
    for k in table.distinct("k"):
        rows = table.rows(k=k)
        (line,) = axes.plot(rows["p"], rows["weight"], label=f"k = {k:g}")
        if rows["crossing"][0] >= 0:
            axes.plot(rows["crossing"][:1], [1.0], "o", color=line.get_color(), markersize=6)
    axes.set(xlabel="success probability p", ylabel="weight k(1−p)^(k−1)", ylim=(0, 4.2))
    axes.legend()


@figures.figure(
    "repeated-sampling",
    title="Failure at k attempts: a power law over prompts, exponential for each",
    caption="Mean of (1-p)^k for success rates p ~ Beta(a, 1), which tends to Gamma(a+1) k^(-a), and for one prompt with p = .05 (K7).",
    draw=Lines("k", "failure", by="success rates", xlabel="attempts k", ylabel="probability that all fail", xscale="log", yscale="log",
               styles={"one prompt, p = 0.05": {"color": "black", "linestyle": ":"}}),
)  # fmt: skip
def repeated_sampling(run):
    k = np.unique(np.geomspace(1, 1e4, 60).round())
    for a in (0.3, 0.6, 1.0):
        yield {
            "success rates": [f"Beta({a:g}, 1)"] * len(k),
            "k": k,
            "failure": np.exp(betaln(a, 1 + k) - betaln(a, 1)),
        }
    short = k[k < 300]
    yield {"success rates": ["one prompt, p = 0.05"] * len(short), "k": short, "failure": 0.95**short}


@figures.figure(
    "majority-vote",
    title="Self-consistency: accuracy of a majority vote",
    caption="Exact, ties broken uniformly. Three answers: the right one with probability p, the likeliest wrong one with q, the rest in a third. Votes"
    " help only where the right answer is the likeliest (S4).",
    draw=Lines("n", "accuracy", by="law", xlabel="votes n", ylabel="accuracy", xscale="log", markers=True),
)  # fmt: skip
def vote(run):
    n = np.array([1, 2, 3, 5, 9, 17, 33, 65, 129])
    for p, q in ((0.6, 0.3), (0.45, 0.4), (0.4, 0.4), (0.4, 0.45), (0.3, 0.6)):
        yield {
            "law": [f"p = {p:g}, q = {q:g}"] * len(n),
            "n": n,
            "accuracy": [majority_vote(np.log([p, q, 1 - p - q]), int(m))[0] for m in n],
        }


@figures.figure(
    "soft-best-of-n",
    title="Soft best-of-n tends to the tilted law: distances like 1/n, the KL like 1/n²",
    caption="Five outcomes, T = 0.7. The rate 1/n of the literature is that of the law, and a bound for the KL (S2).",
    draw=Lines(
        "n",
        "distance",
        by="measure",
        xlabel="samples n",
        ylabel="distance from the tilt",
        xscale="log",
        yscale="log",
        markers=True,
    ),
)
def soft(run):
    log_p, reward = log_normalize(np.array([0.3, -0.4, 1.0, 0.1, 0.5])), np.array([0.0, 1.0, 0.4, -0.7, 0.2])
    n, target = 2 ** np.arange(2, 13), tilt(log_p, reward, 0.7)
    for name, measure in (("total variation", tv), ("KL, nats", kl)):
        yield {
            "measure": [name] * len(n),
            "n": n,
            "distance": [float(measure(target, soft_best_of_n(log_p, reward, int(m), 0.7))) for m in n],
        }


@figures.figure(
    "noisy-best-of-n",
    title="Best-of-n by a noisy score: the tail of the error decides",
    caption="Rewards 0, .5, 1, 1.5 with probabilities .5, .3, .15, .05; errors with unit scale. Exact. With light tails more samples help, with heavy tails"
    " the sample with the largest error is taken, and the true reward returns to the reference's (S6).",
    draw=Lines(
        "n",
        "reward",
        by="error",
        xlabel="samples n",
        ylabel="true reward of the chosen sample",
        xscale="log",
        levels={0.375: "reference"},
    ),
)
def noisy(run):
    log_p, reward, n = np.log([0.5, 0.3, 0.15, 0.05]), np.array([0.0, 0.5, 1.0, 1.5]), np.geomspace(1, 1e6, 40).round()
    laws = {
        "normal": stats.norm(),
        "Student t, 5": stats.t(5),
        "Student t, 3": stats.t(3),
        "Student t, 2": stats.t(2),
        "Cauchy": stats.cauchy(),
    }
    for name, law in laws.items():
        yield {
            "error": [name] * len(n),
            "n": n,
            "reward": [float(np.exp(noisy_best_of_n(log_p, reward, int(m), law)) @ reward) for m in n],
        }


@figures.figure(
    "cooling",
    title="Entropy of responses as sampling cools",
    caption="First token: .4 leads to one response, .6 to nine equally likely ones. A low temperature takes the likelier first token, and with it the"
    " wider future; the power of the law takes the one response that is likely as a whole (T3).",
    draw=Lines(
        "alpha", "entropy", by="sampling", xlabel="alpha = 1 / temperature", ylabel="entropy of responses, nats"
    ),
)
def cooling(run):
    alpha, levels = np.linspace(0.5, 6, 56), wide_future()
    for name, make in (("temperature, token by token", temper_levels), ("power of the law of responses", power_levels)):
        yield {
            "sampling": [name] * len(alpha),
            "alpha": alpha,
            "entropy": [entropy(np.asarray(sequence_log_probs(make(levels, a)))) for a in alpha],
        }


@figures.figure(
    "dpo-and-ipo",
    title="How far DPO and IPO move as labels become certain",
    caption="Two responses, beta = tau = 1: log-odds against the reference. DPO's KL does not bound the move, IPO's does, by 1/(2 tau) (P2).",
    draw=Lines(
        "doubt",
        "move",
        by="method",
        xlabel="chance that the better one loses, 1 − P",
        ylabel="move of the log-odds, nats",
        xscale="log",
    ),
)
def dpo_and_ipo(run):
    doubt = np.geomspace(1e-6, 0.5, 40)
    fits = {"DPO": lambda p: bradley_terry_fit(p), "IPO": lambda p: ipo_fit(p, 1.0)}
    for name, fit in fits.items():
        moves = [fit(np.array([[0.5, 1 - d], [d, 0.5]])) for d in doubt]
        yield {"method": [name] * len(doubt), "doubt": doubt, "move": [h[0] - h[1] for h in moves]}


@figures.figure(
    "nash-and-rlhf",
    title="Regularised Nash policies and RLHF on the same Bradley-Terry preferences",
    caption="Probability of the best of three responses, uniform reference, rewards (0, .4, 1) times the scale; tau = beta/4 = .25. They agree for small"
    " rewards; then a chance to win saturates (P6).",
    draw=Lines(
        "scale",
        "probability",
        by="policy",
        xlabel="scale of the rewards, units of beta",
        ylabel="probability of the best response",
        xscale="log",
    ),
)
def nash_and_rlhf(run):
    scale, log_ref, reward = np.geomspace(0.05, 20, 50), np.full(3, -np.log(3)), np.array([0.0, 0.4, 1.0])
    policies = {
        "RLHF: tilt by beta = 1": lambda s: tilt(log_ref, s * reward, 1.0),
        "regularised Nash, tau = 1/4": lambda s: regularized_nash(bradley_terry(s * reward), log_ref, 0.25).log_policy,
    }
    for name, policy in policies.items():
        yield {
            "policy": [name] * len(scale),
            "scale": scale,
            "probability": [float(np.exp(policy(s)[2])) for s in scale],
        }


@figures.figure(
    "regularisers",
    title="Probability ratios at the optimum under sums of divergences",
    caption="200 outcomes with normal rewards, beta = .3: ratio to the reference against the reward. chi² keeps the top linear (R2), the forward KL keeps"
    " the bottom (R3).",
    draw=Lines("reward", "ratio", by="regulariser", xlabel="reward", ylabel="pi / ref", yscale="log"),
)
def regularisers(run):
    reward = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    log_ref, named = np.full(200, -np.log(200)), GENERATORS
    sums = {
        "KL": named["kl"],
        "KL + 0.5 chi²": named["kl"] + 0.5 * named["chi2"],
        "KL + 0.5 forward KL": named["kl"] + 0.5 * named["forward_kl"],
    }
    for name, generator in sums.items():
        ratio = np.exp(f_regularized(log_ref, reward, 0.3, generator).log_policy - log_ref)
        yield {"regulariser": [name] * 200, "reward": reward, "ratio": ratio}


@figures.figure(
    "continuous-frontiers",
    title="Frontier and best-of-n for rewards with a density",
    caption="Rewards in standard deviations of the reference. Best-of-n stays close for normal and bounded rewards and falls behind for exponential tails"
    " (C1, C2).",
    draw=Lines("kl", "reward", by="policy", panels="law", xlabel="KL to the reference, nats", ylabel="reward, standard deviations",
               styles={"best of n": {"linestyle": "--"}}),
    size=(9.0, 3.4),
)  # fmt: skip
def continuous_frontiers(run):
    budget, n = np.linspace(0.05, 8, 40), np.geomspace(1.5, 8e3, 40)
    for name, law in (("uniform", stats.uniform()), ("normal", stats.norm()), ("exponential", stats.expon())):
        unit, mean = law.std(), law.mean()
        yield {
            "law": [name] * 40,
            "policy": ["frontier"] * 40,
            "kl": budget,
            "reward": [(kl_frontier(law, b).reward - mean) / unit for b in budget],
        }
        yield {"law": [name] * 40, "policy": ["best of n"] * 40, "kl": np.log(n) - (n - 1) / n,
               "reward": [(best_of_n_reward(law, m) - mean) / unit for m in n]}  # fmt: skip


@figures.figure(
    "best-of-n-in-the-worst-case",
    title="What best-of-n loses in the worst case lies between two hockey sticks",
    caption="Policies with the same KL, 1.5 nats, to a uniform reference of 4096 responses: spread over a few responses, or a share of the mass on one."
    " Largest loss of best-of-n over rewards in [0, 1], exact, with its bounds: what n times the reference does not cover, and rejection sampling (V3, V4).",
    draw=Lines("n", "loss", by="quantity", panels="policy", xlabel="draws n", ylabel="reward lost to the policy, of 1", xscale="log", markers=False,
               styles={"worst reward": {"linewidth": 2.2}, "lower bound: hockey stick at n": {"linestyle": "--"},
                       "upper bound: rejection sampling": {"linestyle": ":"}}),
    size=(9.0, 3.6),
)  # fmt: skip
def worst_case(run):
    size, n = 4096, np.unique(np.geomspace(1, 4e3, 50).round())
    log_ref = np.full(size, -np.log(size))
    spread = np.full(size, -np.inf)
    spread[: round(size * np.exp(-1.5))] = 0.0
    share = brentq(lambda s: s * np.log(s * size) + (1 - s) * np.log((1 - s) * size / (size - 1)) - 1.5, 0.01, 0.99)
    peaked = np.log(np.append(np.full(size - 1, (1 - share) / (size - 1)), share))
    for name, law in (("evenly over a part", log_normalize(spread)), (f"{share:.2f} on one response", peaked)):
        for quantity, value in (
            ("worst reward", lambda m, law=law: best_of_n_regret(law, log_ref, m).regret),
            ("lower bound: hockey stick at n", lambda m, law=law: float(hockey_stick(law, log_ref, m))),
            ("upper bound: rejection sampling", lambda m, law=law: best_of_n_regret_bound(law, log_ref, m)),
        ):
            yield {"policy": [name] * len(n), "quantity": [quantity] * len(n), "n": n, "loss": [value(m) for m in n]}


@figures.figure(
    "learning-curves",
    title="Under a KL penalty regret falls like 1/n, without one like 1/√n",
    caption="Expected regret over all data sets of n comparisons (DPO, rewards 0 and .8, beta = .5, in its own objective) or n labels a response (empirical"
    " best of two, the gap that is worst for that n). Dotted: the limits of V11-rate and V10-worst. From few comparisons DPO is worse than the reference (V13).",
    draw=Lines("n", "regret", by="estimator", xlabel="comparisons, or labels a response", ylabel="expected regret, reward units", xscale="log", yscale="log",
               styles={"limit 1/n": {"linestyle": ":", "color": "black"}, "limit 1/√n": {"linestyle": ":", "color": "gray"},
                       "the reference": {"linestyle": "--", "color": "gray"}}),
)  # fmt: skip
def learning_curves(run):
    n = np.unique(np.geomspace(1, 1024, 25).round())
    law, chance = np.exp(tilt(np.log([0.6, 0.4]), np.array([0.0, 0.8]), 0.5)), 1 / (1 + np.exp(-0.8))
    reference = float(regularized_regret(np.log([0.6, 0.4]), np.log([0.6, 0.4]), [0.0, 0.8], 0.5))
    curves = {
        "DPO": lambda m: by_comparisons(m),
        "empirical best, worst gap": lambda m: without_penalty(int(m)),
        "the reference": lambda m: reference,
        "limit 1/n": lambda m: law[0] * law[1] / (chance * (1 - chance)) / m,
        "limit 1/√n": lambda m: 0.16997 / np.sqrt(2 * m),
    }
    for name, curve in curves.items():
        yield {"estimator": [name] * len(n), "n": n, "regret": [curve(m) for m in n]}


@figures.figure(
    "best-of-n-by-labels",
    title="Best-of-n by the mean of m labels: more draws find what was lucky",
    caption="Responses with success .6, .8, .4, .4 and probabilities .55, .35, .05, .05; each labelled m times. True success of the best of n by mean label,"
    " exact over labels and draws: with few labels the rare poor ones are taken for the best (compare S6).",
    draw=Lines("n", "success", by="labels", label="m = {}", xlabel="draws n", ylabel="true success of the chosen response", xscale="log"),
)  # fmt: skip
def by_labels(run):
    log_ref, success, n = np.log([0.55, 0.35, 0.05, 0.05]), [0.6, 0.8, 0.4, 0.4], np.geomspace(1, 1000, 25)
    for m in (2, 4, 8, 16):
        yield {"labels": [m] * len(n), "n": n, "success": [best_of_n_by_labels(log_ref, success, m, x) for x in n]}


@figures.figure(
    "preference-losses",
    title="What preference losses converge to",
    caption="Two responses of one token, reference 1/2 each, beta = tau = 1 (SimPO: gamma = 1; ORPO: lambda = .1): probability of the first by the chance"
    " P that it is preferred. KTO goes to 0 or 1 at any P but a half (P10), SimPO's margin sharpens (P12), ORPO stays near the winners' share P (P14).",
    draw=Lines("preference", "probability", by="loss", xlabel="chance P that the first is preferred", ylabel="probability of the first at the optimum"),
)  # fmt: skip
def preference_losses(run):
    chance, log_ref, one = np.linspace(0.02, 0.98, 49), np.log([0.5, 0.5]), np.ones(2)
    losses = {
        "DPO": lambda p: dpo_policy(log_ref, p, 1.0),
        "IPO": lambda p: ipo_policy(log_ref, p, 1.0),
        "SimPO": lambda p: simpo_policy(one, p, 1.0, gamma=1.0),
        "ORPO": lambda p: orpo_policy(one, p, 0.1),
        "KTO": lambda p: kto_fixed_point(log_ref, p, 1.0).log_policy if abs(p[0, 1] - 0.5) > 1e-9 else log_ref,
    }
    for name, policy in losses.items():
        yield {
            "loss": [name] * len(chance),
            "preference": chance,
            "probability": [float(np.exp(policy(of_two(p))[0])) for p in chance],
        }


@figures.figure(
    "self-play",
    title="Self-play on cyclic preferences",
    caption="KL from the Nash policy (uniform, three responses, win chances 0, 1/2, 1 around the cycle) to the policy after each round. Multiplicative weights"
    " (SPPO) turn away; proximal rounds arrive; magnetic descent and Nash-MD go to the policy regularised with tau = .1 towards the start, the latter"
    " beside it (P19-P21).",
    draw=Lines("round", "distance", by="dynamics", xlabel="round", ylabel="KL from the Nash policy, nats", yscale="log", markers=False),
)  # fmt: skip
def self_play(run):
    log_q, start, rounds = np.full(3, -np.log(3)), np.log([0.6, 0.3, 0.1]), 200
    game = cyclic(log_q, 0.5)
    runs = {
        "multiplicative weights, rate 0.5": sppo(game, start, 0.5, rounds),
        "Nash-MD, tau = 0.1, rate 0.5": nash_md(game, start, 0.1, 0.5, rounds),
        "magnetic, tau = 0.1, rate 0.4": magnetic_descent(game, start, 0.1, 0.4, rounds),
        "proximal, tau = 0.5": proximal_play(game, start, 0.5, rounds),
    }
    for name, found in runs.items():
        shown = 81 if name.startswith("proximal") else rounds + 1  # then it is rounding
        yield {
            "dynamics": [name] * shown,
            "round": np.arange(shown),
            "distance": kl(log_q[None], found.log_policies[:shown]),
        }


@figures.figure(
    "proxy-and-gold",
    title="Best-of-n by a proxy: dependence decides, not the tail of the proxy",
    caption="Normal gold of unit variance. Gaussian copula with correlation .6: the same curve for every law of the proxy (G6-ranks). Independent error:"
    " the tail of the error decides (G6, G8; dots: the best n up to a million).",
    draw=None,
)
def proxy_and_gold(run):
    n = np.geomspace(1, 1e6, 60)
    pairs = {
        "error: normal": additive_error(stats.norm(), stats.norm(scale=4 / 3)),
        "error: Student t 4": additive_error(stats.norm(), stats.t(4)),
        "error: Student t 2": additive_error(stats.norm(), stats.t(2)),
        "error: Cauchy": additive_error(stats.norm(), stats.t(1)),
        "copula, proxy Student t 2": gaussian_copula(stats.t(2), stats.norm(), 0.6),
    }
    for name, pair in pairs.items():
        gold = np.array([along_best_of_n(pair, float(m)).gold for m in n])
        yield {"pair": [name] * 60, "n": n, "gold": gold, "best": [float(n[np.argmax(gold)])] * 60}


@proxy_and_gold.draw
def _(table, canvas):
    axes = canvas.subplots()
    for name in table.distinct("pair"):
        rows = table.rows(pair=name)
        style = {"linestyle": "--", "color": "black"} if name.startswith("copula") else {}
        (line,) = axes.plot(rows["n"], rows["gold"], label=name, **style)
        if rows["best"][0] < 9e5:
            axes.plot(rows["best"][:1], [np.max(rows["gold"])], "o", color=line.get_color(), markersize=6)
    axes.set(xlabel="samples n", ylabel="gold reward, standard deviations", xscale="log")
    axes.legend()


@figures.figure(
    "model-and-true-reward",
    title="Selection under a wrong reward model",
    caption="60 equally likely responses, true rewards -2 to 2; the model adds an error of size 1, and scores one bad response highest. Along n, beta or"
    " temperature: true reward against KL. Best-of-n peaks a little higher here and falls earlier; all end at the bad response (S15, S16).",
    draw=Lines("kl", "reward", by="rule", xlabel="KL to the reference, nats", ylabel="true reward"),
)  # fmt: skip
def model_and_true_reward(run):
    rng = np.random.default_rng(4)
    gold = np.linspace(-2, 2, 60)
    model, log_p = gold + rng.standard_normal(60), np.full(60, -np.log(60))
    model[3] = model.max() + 0.5
    laws = {
        "best of n": best_of_n.log_policy(log_p, model, np.geomspace(1, 1e4, 60)),
        "chi-squared": f_regularized(np.tile(log_p, (60, 1)), model, np.geomspace(20, 1e-3, 60), "chi2").log_policy,
        "tilt": tilt(np.tile(log_p, (60, 1)), model, np.geomspace(20, 0.05, 60)),
    }
    for name, law in laws.items():
        yield {"rule": [name] * 60, "kl": kl(law, log_p), "reward": np.exp(law) @ gold}


@figures.figure(
    "samplers-of-a-power",
    title="Distance of samplers from the power of the law",
    caption="Total variation from p^4 on a tree of three tokens whose likelier first token leads to the wider future; exact. Importance resampling and SMC by"
    " particles, Metropolis over suffixes by steps from p (T9, T10, T13).",
    draw=Lines("cost", "distance", by="sampler", xlabel="particles, or steps", ylabel="total variation", xscale="log", yscale="log", markers=True),
)  # fmt: skip
def samplers_of_a_power(run):
    levels, alpha = greedy_tree(0.6, 0.9), 4.0
    log_p, target = sequences(levels), sequences(power_levels(levels, alpha))
    n = np.array([1, 2, 3, 4, 6])
    twists = exact_twists(levels, (alpha - 1) * log_p)
    smcs = {"SMC, weights of prefixes": prefix_powers(levels, alpha), "SMC, exact twists": twists}
    for name, psi in smcs.items():
        yield {"sampler": [name] * len(n), "cost": n,
               "distance": [float(tv(log_normalize(smc_law(levels, psi, int(k)).log_law), target)) for k in n]}  # fmt: skip
    wide = 2 ** np.arange(7)
    yield {"sampler": ["importance resampling"] * len(wide), "cost": wide,
           "distance": [float(tv(weighted_choice(log_p, (alpha - 1) * log_p, int(k)), target)) for k in wide]}  # fmt: skip
    yield {"sampler": ["Metropolis over suffixes"] * len(wide), "cost": wide,
           "distance": [after(levels, alpha, [alpha] * int(k)) for k in wide]}  # fmt: skip


@figures.figure(
    "prices-of-constraints",
    title="Two constraints at once: what each is worth",
    caption="Six responses, beta = .3: multipliers of a bound on a cost (from slack, on the right, towards what no policy meets) and of a KL budget of .25 nats to a"
    " second reference. Tightening one moves the price of the other, here down and then up (R15, R17).",
    draw=Lines("bound", "multiplier", by="constraint", xlabel="bound on the mean cost", ylabel="multiplier, reward per unit of cost or per nat", markers=True),
)  # fmt: skip
def prices_of_constraints(run):
    log_ref, other = (
        log_normalize(np.array([1.0, 0.5, 0.0, 0.3, -0.5, -1.0])),
        log_normalize(np.array([1.0, 0.0, 0.5, 0.0, -1.0, -2.0])),
    )
    reward, cost = np.array([0.0, 0.6, 1.0, 0.4, 1.5, 2.0]), np.array([0.0, 0.1, 0.9, 0.2, 0.5, 1.0])
    bounds = np.linspace(0.1, 0.6, 41)
    found = [
        constrained(log_ref, reward, 0.3, costs=[cost], bounds=[b], references=[other], budgets=[0.25]) for b in bounds
    ]
    for name, values in (
        ("bound on the cost", [f.cost_multipliers[0] for f in found]),
        ("KL budget to the second reference", [f.budget_multipliers[0] for f in found]),
    ):
        yield {"constraint": [name] * len(bounds), "bound": bounds, "multiplier": values}


@figures.figure(
    "renyi-valley",
    title="A Rényi-regularised objective has a valley for orders above 1",
    caption="Two responses, reward 1 on one of probability .003, beta = .11. Up to order 1 the objective is concave; above, gradient ascent from the reference"
    " (left end) stops before the optimum on the right (R9).",
    draw=Lines("probability", "objective", by="order", xlabel="probability of the rare good response", ylabel="E[r] − beta D_a, units of reward"),
)  # fmt: skip
def renyi_valley(run):
    log_ref, p = (
        np.log([0.997, 0.003]),
        np.concatenate([np.geomspace(0.003, 0.3, 25), np.linspace(0.33, 0.96, 20), 1 - np.geomspace(0.03, 1e-9, 20)]),
    )
    policies = np.log(np.stack([1 - p, p], axis=-1))
    for order in (0.5, 1.0, 2.0, 8.0):
        yield {
            "order": [f"a = {order:g}"] * len(p),
            "probability": p,
            "objective": p - 0.11 * np.asarray(renyi(policies, log_ref, order)),
        }


@figures.figure(
    "gaussian-frontiers",
    title="How a Gaussian policy's frontier ends depends on the curvature of the reward",
    caption="Reference N(0, 1), reward x + h x²/2. Convex rewards end linear in the KL with slope h, concave ones at their maximum 1/(2|h|), linear ones"
    " in between like a square root (C6).",
    draw=Lines("kl", "reward", by="curvature", xlabel="KL to the reference, nats", ylabel="expected reward"),
)  # fmt: skip
def gaussian_frontiers(run):
    budgets = np.linspace(0.02, 8, 60)
    for h in (1.0, 0.3, 0.0, -0.3, -1.0):
        reward = QuadraticReward([1.0], [[h]])
        yield {
            "curvature": [f"h = {h:g}"] * len(budgets),
            "kl": budgets,
            "reward": [gaussian_constrained([0.0], [[1.0]], reward, b).reward for b in budgets],
        }


@figures.figure(
    "gains-on-other-prompts",
    title="What one policy gains on prompts that it was not trained on",
    caption="Prompts on a line, squared-exponential kernel of length 1, variance 1; one policy trained on those marked, 1 nat. A prompt gains its covariance with"
    " the training average; more and wider spread prompts cost reward on each (C11-C13).",
    draw=Lines("position", "gain", by="trained on", xlabel="position of the prompt, kernel lengths", ylabel="gain, standard deviations of a prompt's reward"),
)  # fmt: skip
def gains_on_other_prompts(run):
    positions = np.linspace(-3, 7, 51)
    for name, trained in {
        "one prompt": [0.0],
        "two near ones": [0.0, 1.0],
        "two far ones": [0.0, 4.0],
        "four": [0.0, 1.0, 3.0, 4.0],
    }.items():
        kernel = kernel_matrix(np.append(trained, positions), 1.0)
        weights = np.append(np.full(len(trained), 1 / len(trained)), np.zeros(len(positions)))
        yield {
            "trained on": [name] * len(positions),
            "position": positions,
            "gain": shared_policy(kernel, 1.0, weights).gains[len(trained) :],
        }
