"""Figures of foundations: one a theme, or two."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.special import betaln

from klsim.attempts import regularized_max_at_k
from klsim.continuous import best_of_n_reward, kl_frontier
from klsim.distributions import entropy, log_normalize, tilt
from klsim.divergences import GENERATORS, kl, renyi, tv
from klsim.gaussian import QuadraticReward, gaussian_constrained
from klsim.lagrangian import constrained
from klsim.optima import f_regularized
from klsim.power import power_levels, temper_levels
from klsim.preferences import bradley_terry, bradley_terry_fit, ipo_fit, regularized_nash
from klsim.problems.token_tree import sequence_log_probs
from klsim.prompt_process import kernel_matrix, shared_policy
from klsim.report.drawings import Lines
from klsim.report.figures import Figures
from klsim.selection_rules import majority_vote, noisy_best_of_n, soft_best_of_n

from .attempts import hard
from .power import wide_future

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
