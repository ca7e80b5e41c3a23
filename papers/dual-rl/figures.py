"""Figures of dual-rl: implicit maximisers, the unstable Gumbel loss, imitation without coverage."""

from __future__ import annotations

import numpy as np

from klsim.distributions import log_normalize
from klsim.divergences import tv
from klsim.learning import chi2_value, expectile_value, gumbel_value, quantile_value
from klsim.planning import match_visitation, occupancy
from klsim.problems import DiscountedMDP
from klsim.report import Figures

from .claims import BLOWN, STEPS, log, value_sgd

figures = Figures()


@figures.figure(
    "implicit-maximisers",
    title="How far a value regression leans towards the maximum",
    caption="1992 draws of a mixture of two normals on [-3, 3]. At equal lam >= .8 the expectile (IQL) is the laziest of the three; the"
    " Gumbel value (XQL) is drawn against 1/b. All reach the largest draw (C4).",
    size=(8.5, 3.8),
)
def implicit_maximisers(run):
    rng = run.rng("mixture")
    u = rng.random(2000)
    x = np.where(u < 0.5, rng.normal(-1.0, 0.6, 2000), rng.normal(1.0, 0.8, 2000))
    x = x[np.abs(x) <= 3]
    log_p = np.full(len(x), -np.log(len(x)))
    columns = {k: [] for k in ("rule", "parameter", "value")}
    lams = np.linspace(0.51, 0.999, 60)
    for name, rule in (
        ("TV (f-DVL)", quantile_value),
        ("chi² (f-DVL)", chi2_value),
        ("expectile (IQL)", expectile_value),
    ):
        for lam in lams:
            for key, value in zip(columns, (name, lam, float(rule(x, log_p, lam)))):
                columns[key].append(value)
    for inverse in np.logspace(0, 2, 40):
        for key, value in zip(columns, ("Gumbel (XQL)", inverse, float(gumbel_value(x, log_p, 1 / inverse)))):
            columns[key].append(value)
    for key, value in zip(columns, ("largest draw", 1.0, float(x.max()))):
        columns[key].append(value)
    return columns


@implicit_maximisers.draw
def _(table, figure):
    left, right = figure.subplots(1, 2, sharey=True)
    largest = float(table.rows(rule="largest draw")["value"][0])
    for name in ("TV (f-DVL)", "chi² (f-DVL)", "expectile (IQL)"):
        rows = table.rows(rule=name)
        left.plot(rows["parameter"], rows["value"], label=name)
    rows = table.rows(rule="Gumbel (XQL)")
    right.semilogx(rows["parameter"], rows["value"], color="C3", label="Gumbel (XQL)")
    for axes in (left, right):
        axes.axhline(largest, color="0.5", linestyle=":", label="largest draw")
        axes.legend(loc="lower right")
    left.set(xlabel="lam", ylabel="value v")
    right.set(xlabel="inverse temperature 1/b")


TEMPERATURES = (1.0, 0.5, 0.25)
MARKS = np.unique(np.logspace(0, np.log10(STEPS - 1), 80).astype(int))


@figures.figure(
    "instability",
    title="The Gumbel loss at small temperature",
    caption=f"SGD on v, minibatches of 16 draws of N(0, 1), step 0.05, all losses tuned to the optimum 1/(2b); median and range of 20 runs."
    f" Dotted: |v| = {BLOWN:g}. At b = .25 the Gumbel regression (no exponent clipping) leaves in nearly every run and does not come back"
    " (C7).",
    size=(9.0, 3.4),
)
def instability(run):
    columns = {k: [] for k in ("b", "loss", "step", "median", "low", "high")}
    for b in TEMPERATURES:
        paths = np.array([value_sgd(run.rng("sgd", seed), b) for seed in range(20)])
        for i, name in enumerate(("Gumbel", "TV", "chi²")):
            values = paths[:, MARKS, i]
            rows = (np.median(values, axis=0), values.min(axis=0), values.max(axis=0))
            columns["b"] += [b] * len(MARKS)
            columns["loss"] += [name] * len(MARKS)
            columns["step"] += [int(t) + 1 for t in MARKS]
            for key, row in zip(("median", "low", "high"), rows):
                columns[key] += [float(max(v, 1e-4)) for v in row]
    return columns


@instability.draw
def _(table, figure):
    panels = figure.subplots(1, 3, sharey=True)
    for axes, b in zip(panels, TEMPERATURES):
        for name in table.distinct("loss"):
            rows = table.rows(b=b, loss=name)
            (line,) = axes.loglog(rows["step"], rows["median"], label=name)
            axes.fill_between(rows["step"], rows["low"], rows["high"], color=line.get_color(), alpha=0.2, linewidth=0)
        axes.axhline(BLOWN, color="0.4", linestyle=":", linewidth=1)
        axes.set(xlabel="step", title=f"b = {b:g}")
    panels[0].set(ylabel="|v|", ylim=(1e-3, None))
    panels[0].legend(loc="upper left")


SIDE, SLIP = 5, 0.1
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


def grid():
    """5 x 5 grid; moves right, down, left, up; walls block; with probability .1 a uniformly random move."""
    moves = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1).reshape(-1, 1, 2)
    targets = np.clip(cells + moves, 0, SIDE - 1)
    aimed = np.eye(SIDE**2)[targets[..., 0] * SIDE + targets[..., 1]]
    transition = (1 - SLIP) * aimed + SLIP * aimed.mean(axis=1, keepdims=True)
    expert = np.where(cells[:, 0, 1] < SIDE - 1, 0, 1)
    problem = DiscountedMDP(transition, np.zeros((SIDE**2, 4)), 0.9, np.full(SIDE**2, 1 / SIDE**2))
    return problem, log(np.eye(4)[expert])


@figures.figure(
    "imitation",
    title="Imitation from a mixture: ReCOIL against behaviour cloning",
    caption="5 x 5 grid, exact visitations. Total variation to the expert's policy (mean over the expert's states) against the share of expert"
    " data. Left: the other data cover the expert; middle: they never take its action; right: the expert is 50 draws (5 seeds, mean),"
    " covered. Exactness is what the theorem gives, not robustness to estimation (C5, C6).",
    size=(10.5, 3.6),
)
def imitation_curves(run):
    problem, expert = grid()
    d_expert = occupancy(problem, expert)
    uniform = np.full(problem.shape, -np.log(4))
    avoiding = log_normalize(np.where(np.isneginf(expert), 0.0, -np.inf))
    others = {"covered": occupancy(problem, uniform), "not covered": occupancy(problem, avoiding)}
    states = d_expert.sum(axis=1)
    columns = {k: [] for k in ("data", "method", "share", "distance")}

    def distance(policy):
        return float(states @ tv(policy, expert))

    def cloned(table):
        empty = table.sum(axis=1, keepdims=True) == 0
        return log_normalize(log(np.where(empty, 1.0, table)))

    def add(data, method, share, value):
        for key, item in zip(columns, (data, method, share, value)):
            columns[key].append(item)

    tiny = 1e-9  # full support of the mixture, as match_visitation asks for
    for share in SHARES:
        for name, other in others.items():
            other = (1 - tiny) * other + tiny / other.size
            found = match_visitation(problem, d_expert, other / other.sum(), share)
            add(name, "ReCOIL", share, distance(found.log_policy))
            add(name, "behaviour cloning", share, distance(cloned(share * d_expert + (1 - share) * other)))
        drawn = []
        for seed in range(5):
            sample = (
                run.rng("draws", seed).multinomial(50, d_expert.ravel() / d_expert.sum()).reshape(problem.shape) / 50
            )
            found = match_visitation(problem, sample, others["covered"], share)
            drawn.append([distance(found.log_policy), distance(cloned(share * sample + (1 - share) * others["covered"])),
                          distance(cloned(sample))])  # fmt: skip
        for method, value in zip(("ReCOIL", "behaviour cloning", "cloning the draws alone"), np.mean(drawn, axis=0)):
            add("50 draws", method, share, float(value))
    return columns


@imitation_curves.draw
def _(table, figure):
    panels = figure.subplots(1, 3, sharey=True)
    for axes, data in zip(panels, ("covered", "not covered", "50 draws")):
        rows = table.rows(data=data)
        for style, method in zip(("o-", "s--", "^:"), rows.distinct("method")):
            line = rows.rows(method=method)
            axes.plot(line["share"], np.maximum(line["distance"], 0), style, label=method)
        axes.set(xlabel="share m of expert data", title=data)
        axes.legend(loc="upper right")
    panels[0].set(ylabel="total variation to the expert", ylim=(-0.02, 0.6))
