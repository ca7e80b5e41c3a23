"""Figures of brorl: the three terms, the simulator and its optimiser, expectation and risk against N."""

from __future__ import annotations

import math

import numpy as np

from klsim.distributions import sample
from klsim.estimators import kept_fraction
from klsim.learning import SimulatorConfig, SimulatorState, simulate_tokens
from klsim.mass_balance import (
    attribution,
    expected_one_step,
    one_step,
    unsampled_second_moment,
    unsampled_second_moment_bound,
)
from klsim.report import Figures

from .claims import LARGE, SMALL

figures = Figures()


@figures.figure(
    "three-terms",
    title="The three terms of the mass balance for two batches",
    caption="Small heavy-token policy (one correct token of mass 0.3, 20 rare correct, 40 incorrect), rewards ±1. A batch of 5 rare correct and"
    " 5 incorrect tokens: the unsampled term is negative and dominates; with the heavy token in the batch it all but vanishes (the"
    " paper's Fig. 2).",
)
def three_terms(run):
    log_pi, correct = SMALL
    rows = {"batch": [], "term": [], "value": []}
    for name, heavy in (("5 rare + 5 incorrect", False), ("with the heavy token", True)):
        sampled = np.zeros(correct.size, dtype=bool)
        sampled[[1, 2, 3, 4, 5, -1, -2, -3, -4, -5]] = True
        sampled[0] = heavy
        b = one_step(log_pi, correct, sampled, 10)
        terms = {
            "sampled correct": b.sampled_correct,
            "sampled incorrect": b.sampled_incorrect,
            "unsampled": b.unsampled,
            "sum": b.bracket,
        }
        for term, value in terms.items():
            rows["batch"].append(name)
            rows["term"].append(term)
            rows["value"].append(float(value))
    return rows


@three_terms.draw
def _(table, figure):
    for axes, batch in zip(figure.subplots(1, 2), table.distinct("batch")):
        rows = table.rows(batch=batch)
        axes.bar(rows["term"], rows["value"], color=["#009E73", "#56B4E9", "#D55E00", "#000000"])
        axes.axhline(0, color="black", linewidth=0.8)
        axes.tick_params(axis="x", rotation=25)
        axes.set_title(batch)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    figure.axes[0].set_ylabel("term of the bracket")


QUICK = {"rollouts": (2, 8, 64, 256, 2048, 25600), "steps": 200, "config": {}}
FULL = {
    "rollouts": (4, 8, 16, 512, 51200),
    "steps": 1000,
    "config": {"tokens": 128_000, "correct": 10_000, "lr": 1e-3, "anchor_logit": 5.0},
}
OPTIMISERS = {
    "AdamW, eps = 1e-8": {},
    "AdamW, eps = 1e-14": {"epsilon": 1e-14},
    "SGD": {"optimiser": "sgd", "lr": 50.0},
}
FULL_OPTIMISERS = {
    "AdamW, eps = 1e-8, wd = 0.01": {"weight_decay": 0.01},
    "AdamW, eps = 1e-8": {},
    "AdamW, eps = 1e-12": {"epsilon": 1e-12},
}
FULL_SEEDS = 3
BLOCK = 100


def _curve(run, key, config, steps):
    """The run's three curves, in resumable stages of 100 steps."""
    state, parts = SimulatorState.start(config), []
    for begin in range(0, steps, BLOCK):

        def compute(state=state, begin=begin):
            part = simulate_tokens(config, min(BLOCK, steps - begin), state)
            curves = np.stack([part.correct_mass, part.improved, part.worst_drop])
            kept = part.state
            return {
                "curves": curves,
                "logits": kept.logits,
                "first": kept.first,
                "second": kept.second,
                "done": kept.done,
            }

        kept = run.stage(f"{key} steps {begin}-{begin + BLOCK}", compute)
        state = SimulatorState(kept["logits"], kept["first"], kept["second"], int(kept["done"]))
        parts.append(kept["curves"])
    return np.concatenate(parts, axis=1)


@figures.figure(
    "token-simulator",
    title="Token simulator: correct mass, share of improved tokens and worst drop, for three optimisers",
    caption="Quick: 12,800 tokens, 1,000 correct (logit 3), 200 steps; full: the paper's 128,000 tokens, 10,000 correct, one heavier correct token,"
    " 1,000 steps, mean of 3 seeds (the paper's Fig. 3). The order in N is the same for every optimiser; the fall of the correct mass at"
    " small N appears with Adam's default epsilon only (C8, C10).",
    size=(10.0, 8.0),
    has_full=True,
)
def token_simulator(run):
    plan, optimisers = (FULL, FULL_OPTIMISERS) if run.full else (QUICK, OPTIMISERS)
    seeds = FULL_SEEDS if run.full else 1
    columns = {k: [] for k in ("optimiser", "rollouts", "step", "correct mass", "improved", "worst drop")}
    steps = plan["steps"]
    shown = np.unique(np.concatenate([np.arange(0, steps, max(steps // 60, 1)), [steps - 1]]))
    for name, settings in optimisers.items():
        for n in plan["rollouts"]:
            curves = []
            for seed in range(seeds):
                config = SimulatorConfig(rollouts=n, seed=run.seed + seed, **(plan["config"] | settings))
                curves.append(_curve(run, f"{name} N={n} seed={seed}", config, steps))
            mean = np.mean(curves, axis=0)[:, shown]
            columns["optimiser"] += [name] * len(shown)
            columns["rollouts"] += [n] * len(shown)
            columns["step"] += list(shown + 1)
            for key, values in zip(("correct mass", "improved", "worst drop"), mean):
                columns[key] += list(values)
    return columns


@token_simulator.draw
def _(table, figure):
    names = table.distinct("optimiser")
    grid = figure.subplots(len(names), 3, sharex=True)
    labels = (
        ("correct mass", "correct mass Q+"),
        ("improved", "share of correct tokens improved"),
        ("worst drop", "worst drop of a correct token"),
    )
    for row, name in zip(grid, names):
        for axes, (key, label) in zip(row, labels):
            for n in table.distinct("rollouts"):
                rows = table.rows(optimiser=name, rollouts=n)
                axes.plot(rows["step"], rows[key], label=f"N = {n:g}")
            axes.set_ylabel(label, fontsize=8.5)
        row[0].set_title(name, loc="left", fontweight="bold")
        row[2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)


N_GRID = np.unique(np.rint(np.logspace(0, math.log10(256), 25))).astype(int)


@figures.figure(
    "expectation-and-risk",
    title="What more rollouts buy: not the sign of the mean, the sign of a batch",
    caption="Policy with one correct token of mass 0.3, 100 rare correct tokens sharing 0.3 and 1000 incorrect ones. Left: expected bracket, closed"
    " form (line) and 4,000 batches (points); it is positive at every N. Right: share of batches that lower the correct mass.",
    size=(8.5, 3.6),
)
def expectation_and_risk(run):
    log_pi, correct = LARGE
    weights = attribution(log_pi, correct)
    means, risks = [], []
    for n in N_GRID:
        draws = sample(log_pi, (4000, int(n)), run.rng("batches", int(n)))
        sampled = np.zeros((4000, log_pi.size), dtype=bool)
        np.put_along_axis(sampled, draws, values=True, axis=1)
        brackets = sampled @ weights
        means.append(brackets.mean())
        risks.append(np.mean(brackets < -1e-15))
    closed = expected_one_step(log_pi, correct, N_GRID)
    return {"n": N_GRID, "closed form": closed, "monte carlo": means, "share of losing batches": risks}


@expectation_and_risk.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    left.semilogx(table["n"], table["closed form"], label="closed form")
    left.semilogx(table["n"], table["monte carlo"], "o", label="4,000 batches")
    left.set(xlabel="rollouts N", ylabel="E[bracket]", ylim=(0, None))
    left.legend()
    right.semilogx(table["n"], table["share of losing batches"], "o-", color="#D55E00")
    right.set(xlabel="rollouts N", ylabel="P(dQ+ < 0)", ylim=(0, None))


@figures.figure(
    "unsampled-second-moment",
    title="Decay of the unsampled second moment",
    caption="E[U2] against N for a uniform law on 50 tokens, the heavy-token policy and a Zipf law on 10,000 tokens, with the largest value over all"
    " policies (dashed), about 1/(e N): geometric for each policy in the end, 1/N uniformly (C4).",
)
def unsampled(run):
    n = np.unique(np.rint(np.logspace(0, 4, 60)))
    zipf = -np.log(np.arange(1, 10_001))
    laws = {
        "uniform, 50 tokens": np.full(50, -math.log(50)),
        "heavy token": LARGE[0],
        "Zipf, 10,000 tokens": zipf - np.logaddexp.reduce(zipf),
    }
    columns = {"law": [], "n": [], "moment": []}
    for name, log_pi in laws.items():
        columns["law"] += [name] * len(n)
        columns["n"] += list(n)
        columns["moment"] += [float(unsampled_second_moment(log_pi, k)) for k in n]
    columns["law"] += ["largest over all policies"] * len(n)
    columns["n"] += list(n)
    columns["moment"] += list(unsampled_second_moment_bound(n))
    return columns


@unsampled.draw
def _(table, figure):
    axes = figure.subplots()
    for name in table.distinct("law"):
        rows = table.rows(law=name)
        bound = name.startswith("largest")
        axes.loglog(
            rows["n"],
            np.maximum(rows["moment"], 1e-12),
            "--" if bound else "-",
            color="0.3" if bound else None,
            label=name,
        )
    axes.set(xlabel="rollouts N", ylabel="E[U2]", ylim=(1e-8, 1))
    axes.legend()


@figures.figure(
    "kept-fraction",
    title="Prompts that dynamic sampling keeps, against N",
    caption="Beta pass rates with a/b = 1, 2, 5, fitted to the paper's 41 % at N = 16 (cross), predict 66-68 % at N = 512; the paper reports 62 %"
    " (cross). Dotted: prompts all near p = 1/2 gain nothing (C12; crosses are the paper's numbers, Table 2).",
)
def kept(run):
    from scipy.optimize import brentq

    n = np.unique(np.rint(np.logspace(0.3, 3, 50)))
    columns = {"family": [], "n": [], "kept": []}
    for ratio in (1.0, 2.0, 5.0):
        b = brentq(lambda x, r=ratio: float(kept_fraction(r * x, x, 16)) - 0.41, 1e-3, 10.0)
        columns["family"] += [f"a/b = {ratio:g}, b = {b:.3f}"] * len(n)
        columns["n"] += list(n)
        columns["kept"] += list(kept_fraction(ratio * b, b, n))
    columns["family"] += ["Beta(50, 50)"] * len(n) + ["paper (Table 2)"] * 2
    columns["n"] += [*n, 16, 512]
    columns["kept"] += [*kept_fraction(50, 50, n), 0.41, 0.62]
    return columns


@kept.draw
def _(table, figure):
    axes = figure.subplots()
    for name in table.distinct("family"):
        rows = table.rows(family=name)
        style = {"paper (Table 2)": "x", "Beta(50, 50)": ":"}.get(name, "-")
        axes.semilogx(rows["n"], rows["kept"], style, color="black" if style == "x" else None, markersize=8, label=name)
    axes.set(xlabel="rollouts N", ylabel="kept fraction", ylim=(0, 1.02))
    axes.legend(loc="lower right")


TABLE_1 = (
    ("baseline", 0.0, 61.69, 52.00, 61.29),
    ("ProRL N=16", 56.3, 62.08, 52.26, 62.10),
    ("ProRL N=16", 133.8, 62.02, 52.74, 61.45),
    ("BroRL N=512", 98.1, 62.62, 53.31, 62.71),
    ("BroRL N=512", 122.8, 62.85, 53.48, 62.82),
    ("BroRL N=512", 173.8, 63.03, 54.20, 63.09),
)


@figures.figure(
    "paper-table-1",
    title="The paper's own numbers: scores against training hours (Fig. 1 / Table 1)",
    caption="As published for a 1.5B model on 64 H100; not reproduced here. Shown beside the mechanism so that the claim and the evidence can be"
    " compared.",
    size=(8.5, 3.2),
)
def paper_table_1(run):
    rows = {k: [] for k in ("run", "hours", "benchmark", "score")}
    for name, hours, *scores in TABLE_1:
        for benchmark, score in zip(("Math", "Code", "Reasoning Gym"), scores):
            for key, value in zip(rows, (name, hours, benchmark, score)):
                rows[key].append(value)
    return rows


@paper_table_1.draw
def _(table, figure):
    for axes, benchmark in zip(figure.subplots(1, 3), table.distinct("benchmark")):
        base = table.rows(benchmark=benchmark, run="baseline")
        for name, marker in (("ProRL N=16", "s"), ("BroRL N=512", "o")):
            rows = table.rows(benchmark=benchmark, run=name)
            x, y = (np.concatenate([base[k], rows[k]]) for k in ("hours", "score"))
            axes.plot(x, y, marker=marker, label=f"{name} (paper)")
        axes.set(title=benchmark, xlabel="training hours (paper)")
    figure.axes[0].set_ylabel("score (paper)")
    figure.axes[0].legend()
