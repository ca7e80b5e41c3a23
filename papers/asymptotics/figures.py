"""Figures of asymptotics: what converges between best-of-N and the tilt, and what does not."""

from __future__ import annotations

import numpy as np

from klsim import best_of_n
from klsim.distributions import expectation, log_normalize
from klsim.optima import kl_constrained
from klsim.report import Figures
from klsim.report.drawings import Lines

from .setting import GAMMA, P3, R3, SOURCE, best_of, convex_limits, convex_pair, fine_law

figures = Figures()
QUICK_LENGTHS = (10, 20, 50, 100, 200, 400, 800)
DELTAS = (0.05, 0.15, 0.5)
MEASURED = ("reward gap", "kl to base", "kl to phi", "tv", "beta", "half log")


def rows_of(run):
    """One row a (source, delta, m): all that figures 1 and 2 plot."""
    long = (10, 30, 100, 300, 1000, 3000)
    sources = [("three letters", long if run.full else QUICK_LENGTHS)]
    if run.full:
        sources.append(("binary lattice", (*long, 10_000, 30_000, 100_000)))
    for name, lengths in sources:
        for delta in DELTAS:
            for m in lengths:

                def compute(name=name, delta=delta, m=m):
                    b = best_of(m, delta, lattice=name == "binary lattice")
                    gap = b.phi.reward - b.reward / m
                    return {"row": [gap, b.kl_to_base, b.kl_to_phi, b.tv_to_phi, 1 / b.phi.alpha, b.half_log]}

                row = run.stage(f"{name} delta={delta} m={m}", compute)["row"]
                yield {"source": name, "delta": delta, "m": m, **dict(zip(MEASURED, row))}


def styled(table):
    """``(rows, matplotlib settings)`` of every curve: colours by budget, hollow squares for the lattice."""
    for source in table.distinct("source"):
        for colour, delta in zip(("#0072B2", "#D55E00", "#009E73"), table.distinct("delta")):
            lattice = source == "binary lattice"
            style = {"marker": "s" if lattice else "o", "fillstyle": "none" if lattice else "full", "color": colour}
            style["label"] = f"delta = {delta:g}" + (" (lattice)" if lattice else "")
            yield table.rows(source=source, delta=delta), style, lattice


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
    return rows_of(run)


@convergence_per_letter.draw
def _(table, figure):
    panels = (
        ("reward gap", "(m rho - E_bon R) / m", lambda r: r["reward gap"], lambda r: r["beta"] * np.log(r["m"]) / (2 * r["m"])),
        ("KL to the optimum", "KL(bon ‖ phi) / m, nats", lambda r: r["kl to phi"] / r["m"], lambda r: np.log(r["m"]) / (2 * r["m"])),
        ("budget left over", "|delta - KL(bon ‖ P)/m|, nats", lambda r: np.abs(r["delta"] - r["kl to base"] / r["m"]), lambda r: 1 / r["m"]),
    )  # fmt: skip
    for axes, (title, label, value, guide) in zip(figure.subplots(1, 3), panels):
        for rows, style, _ in styled(table):
            axes.loglog(rows["m"], value(rows), **style)
            axes.loglog(rows["m"], guide(rows), color=style["color"], linestyle=":", linewidth=1)
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
    return rows_of(run)


@no_convergence_in_total.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for rows, style, lattice in styled(table):
        left.semilogx(rows["m"], rows["kl to phi"], **style)
        if not lattice:
            left.semilogx(rows["m"], rows["half log"] - 1 - GAMMA, color=style["color"], linestyle="--", linewidth=1)
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
    b, edges = best_of(LAW_M, LAW_DELTA), np.arange(0, 1 + BIN, BIN)
    for name, law in (("P", b.log_base), ("phi", b.log_phi), ("best-of-N", b.log_bon)):
        mass, _ = np.histogram(b.value / LAW_M, bins=edges, weights=np.exp(law))
        yield {"curve": f"law {name}", "x": edges[:-1] + BIN / 2, "y": mass}
    x = np.linspace(0.02, 0.98, 97)
    base, above = np.array([SOURCE.rate_function(v) for v in x]), x >= b.phi.reward
    yield {"curve": "rate I of P", "x": x, "y": base}
    yield {"curve": "rate J of phi", "x": x, "y": [SOURCE.rate_function(v, b.phi.alpha) for v in x]}
    yield {"curve": "rate of best-of-N", "x": x[above], "y": base[above] - LAW_DELTA}


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
    draw=Lines("delta", "reward", by="curve", panels="panel", xlabel="budget a letter delta, nats", ylabel="reward a letter",
               markers=False, share_y=False, styles={"concave envelope": {"linestyle": ":", "color": "#000000"},
               "best within the budget": {"linestyle": ":", "color": "#CC79A7"}}),
)  # fmt: skip
def frontier(run):
    deltas, convex = np.linspace(0.01, 1.5, 60), np.linspace(0.02, 0.66, 23)
    yield {"panel": "linear reward", "curve": "tilt", "delta": deltas, "reward": kl_constrained(P3, R3, deltas).reward}
    for m in (10, 50, 200):
        law = SOURCE.type_law(m)
        log_p = log_normalize(law.log_prob)
        rewards = [float(best_of_n.expected_reward(log_p, law.value, log_n=m * d)) / m for d in deltas]
        yield {"panel": "linear reward", "curve": f"best-of-N, m = {m}", "delta": deltas, "reward": rewards}
    bon, optimum = zip(*(convex_pair(700, d) for d in convex))
    within, envelope = zip(*(convex_limits(d) for d in convex))
    for name, rewards in (("KL-optimum, m = 700", optimum), ("best-of-N, m = 700", bon), ("concave envelope", envelope),
                          ("best within the budget", within)):  # fmt: skip
        yield {"panel": "convex reward", "curve": name, "delta": convex, "reward": rewards}


@figures.figure(
    "kl-of-best-of-n",
    title="KL of best-of-N: exact, upper bound, and the estimate from the selected outcome",
    caption="A fair coin, ten outcomes (Dirichlet(1) probabilities, reward = rank) and 1000 equally likely outcomes. Dashed: the bound"
    " log N - (N-1)/N, which is not the KL of any finite law; dotted: expectation of the estimator of 2401.01879, always between.",
)
def kl_of_best_of_n(run):
    n = np.unique(np.rint(np.logspace(0, 3, 40)))
    laws = {
        "coin": fine_law(2)[0],
        "10 outcomes": np.log(run.rng("ten").dirichlet(np.ones(10))),
        "1000 outcomes": fine_law(1000)[0],
    }
    for name, log_p in laws.items():
        rank = np.arange(log_p.size, dtype=float)
        estimate = [
            float(expectation(best_of_n.log_policy(log_p, rank, k), best_of_n.kl_estimate(log_p, k))) for k in n
        ]
        yield {
            "law": name,
            "n": n,
            "kl": best_of_n.kl(log_p, rank, n),
            "estimate": estimate,
            "bound": best_of_n.kl_upper_bound(n),
        }


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
