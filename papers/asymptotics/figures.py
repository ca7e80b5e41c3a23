"""Figures of asymptotics: what converges between best-of-N and the tilt, and what does not."""

from __future__ import annotations

import math

import numpy as np

from klsim import best_of_n
from klsim.distributions import expectation, log_normalize
from klsim.memoryless import MemorylessSource
from klsim.optima import kl_constrained
from klsim.report import Figures

from .claims import GAMMA, P3, R3, SOURCE, BestOfN, convex_limits, convex_pair

figures = Figures()
QUICK_LENGTHS = (10, 20, 50, 100, 200, 400, 800)
DELTAS = (0.05, 0.15, 0.5)
BINARY = MemorylessSource(np.log([0.7, 0.3]), np.array([0.0, 1.0]))


def _rows(run, sources):
    """One row a (source, delta, m): all that figures 1 and 2 plot."""
    columns = {
        k: [] for k in ("source", "delta", "m", "reward gap", "kl to base", "kl to phi", "tv", "beta", "half log")
    }
    for name, source, lengths in sources:
        for delta in DELTAS:
            for m in lengths:

                def compute(source=source, delta=delta, m=m):
                    b = BestOfN(source, m, delta)
                    half = 0.5 * math.log(2 * math.pi * m * b.phi.alpha**2 * b.phi.variance)
                    gap = b.phi.reward - b.reward / m
                    return {"row": [gap, b.kl_to_base(), b.kl_to_phi(), b.tv_to_phi(), 1 / b.phi.alpha, half]}

                row = run.stage(f"{name} delta={delta} m={m}", compute)["row"]
                for key, value in zip(columns, (name, delta, m, *row)):
                    columns[key].append(value)
    return columns


def _sources(run):
    if not run.full:
        return [("three letters", SOURCE, QUICK_LENGTHS)]
    long = (10, 30, 100, 300, 1000, 3000)
    return [("three letters", SOURCE, long), ("binary lattice", BINARY, (*long, 10_000, 30_000, 100_000))]


@figures.figure(
    "convergence-per-letter",
    title="Best-of-N and the optimum agree per letter",
    caption="Letters (.5, .3, .2) with rewards (0, .37, 1), N = exp(m delta), exact laws by types. Reward gap, KL to the optimum and"
    " budget left over, each divided by m; dotted: beta log(m)/(2m), log(m)/(2m) and 1/m. The full version adds a binary lattice"
    " source up to m = 10^5.",
    size=(9.5, 3.6),
    has_full=True,
)
def convergence_per_letter(run):
    return _rows(run, _sources(run))


@convergence_per_letter.draw
def _(table, figure):
    panels = (
        ("reward gap", "(m rho - E_bon R) / m", lambda r: r["reward gap"], lambda r: r["beta"] * np.log(r["m"]) / (2 * r["m"])),
        ("KL to the optimum", "KL(bon ‖ phi) / m, nats", lambda r: r["kl to phi"] / r["m"], lambda r: np.log(r["m"]) / (2 * r["m"])),
        ("budget left over", "|delta - KL(bon ‖ P)/m|, nats", lambda r: np.abs(r["delta"] - r["kl to base"] / r["m"]), lambda r: 1 / r["m"]),
    )  # fmt: skip
    for axes, (title, label, value, guide) in zip(figure.subplots(1, 3), panels):
        for source in table.distinct("source"):
            for colour, delta in zip(("#0072B2", "#D55E00", "#009E73"), table.distinct("delta")):
                rows = table.rows(source=source, delta=delta)
                lattice = source == "binary lattice"
                style = {"marker": "s" if lattice else "o", "fillstyle": "none" if lattice else "full"}
                text = f"delta = {delta:g}" + (" (lattice)" if lattice else "")
                axes.loglog(rows["m"], value(rows), color=colour, label=text, **style)
                axes.loglog(rows["m"], guide(rows), color=colour, linestyle=":", linewidth=1)
        axes.set(title=title, xlabel="letters m", ylabel=label)
    figure.axes[1].legend()


@figures.figure(
    "no-convergence-in-total",
    title="Un-normalised, best-of-N and the optimum drift apart",
    caption="Left: KL(bon ‖ phi) against the expansion ½ log(2 pi m alpha² s²) - 1 - gamma (dashed; non-lattice rewards). Right: total"
    " variation, which tends to 1. Same runs as the figure above.",
    size=(8.5, 3.6),
    has_full=True,
)
def no_convergence_in_total(run):
    return _rows(run, _sources(run))


@no_convergence_in_total.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for source in table.distinct("source"):
        for colour, delta in zip(("#0072B2", "#D55E00", "#009E73"), table.distinct("delta")):
            rows = table.rows(source=source, delta=delta)
            lattice = source == "binary lattice"
            style = {"marker": "s" if lattice else "o", "fillstyle": "none" if lattice else "full", "color": colour}
            text = f"delta = {delta:g}" + (" (lattice)" if lattice else "")
            left.semilogx(rows["m"], rows["kl to phi"], label=text, **style)
            if not lattice:
                left.semilogx(rows["m"], rows["half log"] - 1 - GAMMA, color=colour, linestyle="--", linewidth=1)
            right.semilogx(rows["m"], rows["tv"], **style)
    left.set(xlabel="letters m", ylabel="KL(bon ‖ phi), nats", ylim=(0, None))
    right.set(xlabel="letters m", ylabel="total variation", ylim=(0, 1.02))
    left.legend()


LAW_M, LAW_DELTA, BIN = 100, 0.15, 0.02


@figures.figure(
    "reward-laws",
    title="Laws of the reward a letter, and their large-deviation rates",
    caption="m = 100, delta = 0.15. Left: reference P, optimum phi and best-of-N, in bins of 0.02: best-of-N is much narrower than the"
    " optimum it is equivalent to. Right: rate functions; best-of-N's upper tail decays at I - delta, faster than phi's J.",
    size=(8.5, 3.6),
)
def reward_laws(run):
    b = BestOfN(SOURCE, LAW_M, LAW_DELTA)
    edges = np.arange(0, 1 + BIN, BIN)
    columns = {"curve": [], "x": [], "y": []}

    def add(name, x, y):
        columns["curve"] += [name] * len(x)
        columns["x"] += list(x)
        columns["y"] += list(y)

    for name, law in (("P", b.log_base), ("phi", b.log_phi), ("best-of-N", b.log_bon)):
        mass, _ = np.histogram(b.value / LAW_M, bins=edges, weights=np.exp(law))
        add(f"law {name}", edges[:-1] + BIN / 2, mass)
    x = np.linspace(0.02, 0.98, 97)
    base = np.array([SOURCE.rate_function(v) for v in x])
    add("rate I of P", x, base)
    add("rate J of phi", x, [SOURCE.rate_function(v, b.phi.alpha) for v in x])
    above = x >= b.phi.reward
    add("rate of best-of-N", x[above], base[above] - LAW_DELTA)
    return columns


@reward_laws.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for name, style in (("P", ":"), ("phi", "-"), ("best-of-N", "-")):
        rows = table.rows(curve=f"law {name}")
        left.step(rows["x"], rows["y"], style, where="mid", label=name)
    for name, style in (("rate I of P", ":"), ("rate J of phi", "-"), ("rate of best-of-N", "-")):
        rows = table.rows(curve=name)
        right.plot(rows["x"], rows["y"], style, label=name)
    left.set(xlabel="reward a letter", ylabel="probability per bin")
    right.set(xlabel="reward a letter x", ylabel="rate, nats a letter", ylim=(0, 1.2))
    left.legend()
    right.legend()


@figures.figure(
    "frontier",
    title="Reward against KL budget: tilt, best-of-N, and a reward where best-of-N fails",
    caption="Left: reward a letter of the tilt and of best-of-N with N = exp(m delta) on the three letters. Right: fair coin with the"
    " convex reward m·max(0, 2x-1)^4: best-of-N (m = 700) follows the best type within the budget, the KL-optimum its concave"
    " envelope (C9).",
    size=(8.5, 3.6),
)
def frontier(run):
    columns = {"panel": [], "curve": [], "delta": [], "reward": []}

    def add(panel, curve, deltas, rewards):
        columns["panel"] += [panel] * len(deltas)
        columns["curve"] += [curve] * len(deltas)
        columns["delta"] += list(deltas)
        columns["reward"] += list(rewards)

    deltas = np.linspace(0.01, 1.5, 60)
    add("linear", "tilt", deltas, kl_constrained(P3, R3, deltas).reward)
    for m in (10, 50, 200):
        law = SOURCE.type_law(m)
        log_p = log_normalize(law.log_prob)
        rewards = [float(best_of_n.expected_reward(log_p, law.value, log_n=m * d)) / m for d in deltas]
        add("linear", f"best-of-N, m = {m}", deltas, rewards)
    convex = np.linspace(0.02, 0.66, 23)
    pairs = [convex_pair(700, d) for d in convex]
    limits = [convex_limits(d) for d in convex]
    add("convex", "KL-optimum, m = 700", convex, [p[1] for p in pairs])
    add("convex", "best-of-N, m = 700", convex, [p[0] for p in pairs])
    add("convex", "concave envelope", convex, [x[1] for x in limits])
    add("convex", "best within the budget", convex, [x[0] for x in limits])
    return columns


@frontier.draw
def _(table, figure):
    styles = {"tilt": "-", "concave envelope": ":", "best within the budget": ":"}
    for axes, panel in zip(figure.subplots(1, 2), ("linear", "convex")):
        rows = table.rows(panel=panel)
        for curve in rows.distinct("curve"):
            one = rows.rows(curve=curve)
            axes.plot(one["delta"], one["reward"], styles.get(curve, "-"), label=curve)
        axes.set(xlabel="budget a letter delta, nats", ylabel="reward a letter", title=f"{panel} reward")
        axes.legend()


@figures.figure(
    "kl-of-best-of-n",
    title="KL of best-of-N: exact, upper bound, and the estimate from the selected outcome",
    caption="A fair coin, ten outcomes (Dirichlet(1) probabilities, reward = rank) and 1000 equally likely outcomes. Dashed: the bound"
    " log N - (N-1)/N, which is not the KL of any finite law; dotted: expectation of the estimator of 2401.01879, always between.",
)
def kl_of_best_of_n(run):
    n = np.unique(np.rint(np.logspace(0, 3, 40)))
    laws = {
        "coin": np.log([0.5, 0.5]),
        "10 outcomes": np.log(run.rng("ten").dirichlet(np.ones(10))),
        "1000 outcomes": np.full(1000, -math.log(1000)),
    }
    columns = {"law": [], "n": [], "kl": [], "estimate": [], "bound": []}
    for name, log_p in laws.items():
        reward = np.arange(log_p.size, dtype=float)
        for k in n:
            estimate = expectation(best_of_n.log_policy(log_p, reward, k), best_of_n.kl_estimate(log_p, k))
            row = (name, k, best_of_n.kl(log_p, reward, k), estimate, best_of_n.kl_upper_bound(k))
            for key, value in zip(columns, row):
                columns[key].append(value if isinstance(value, str) else float(value))
    return columns


@kl_of_best_of_n.draw
def _(table, figure):
    axes = figure.subplots()
    for name in table.distinct("law"):
        rows = table.rows(law=name)
        (line,) = axes.semilogx(rows["n"], rows["kl"], label=name)
        axes.semilogx(rows["n"], rows["estimate"], ":", color=line.get_color())
    rows = table.rows(law="coin")
    axes.semilogx(rows["n"], rows["bound"], "--", color="0.3", label="log N - (N-1)/N")
    axes.semilogx([], [], ":", color="0.3", label="E of the estimator")
    axes.set(xlabel="N", ylabel="KL(bon ‖ ref), nats")
    axes.legend()


@figures.figure(
    "win-rate-frontier",
    title="Win rate against KL: best-of-N is nearly optimal",
    caption="Continuous rewards. Best-of-N for N = 1 … 256 (points) against the optimal quantile tilt (line); right: the deficit at equal"
    " KL, at most 0.0095 (C13).",
    size=(8.5, 3.6),
)
def win_rate_frontier(run):
    n = np.unique(np.round(np.concatenate([np.arange(1.0, 4.0, 0.1), 2.0 ** np.arange(2, 8.01, 0.25)]), 6))
    budget = np.asarray(best_of_n.kl_upper_bound(n))
    return {"n": n, "kl": budget, "best-of-N": n / (n + 1), "optimal": best_of_n.optimal_win_rate(budget)}


@win_rate_frontier.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    left.plot(table["kl"], table["optimal"], label="optimal tilt by the quantile")
    whole = np.isin(table["n"], 2.0 ** np.arange(9))
    left.plot(table["kl"][whole], table["best-of-N"][whole], "o", label="best-of-N, N = 1, 2, 4, …")
    left.set(xlabel="KL, nats", ylabel="win rate")
    left.legend()
    right.semilogx(table["n"], table["optimal"] - table["best-of-N"])
    right.set(xlabel="N (real)", ylabel="win-rate deficit at equal KL", ylim=(0, None))
