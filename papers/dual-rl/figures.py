"""Figures of dual-rl: implicit maximisers, the unstable Gumbel loss, imitation without coverage."""

from __future__ import annotations

import numpy as np

from klsim.distributions import log_normalize
from klsim.divergences import tv
from klsim.learning import chi2_value, expectile_value, gumbel_value, quantile_value
from klsim.planning import match_visitation, occupancy
from klsim.problems import DiscountedMDP
from klsim.report.drawings import Lines, Many
from klsim.report.figures import Figures

from .setting import BLOWN, STEPS, log, value_sgd

figures = Figures()
LARGEST = {"largest draw": {"color": "0.5", "linestyle": ":"}}


@figures.figure(
    "implicit-maximisers",
    title="How far a value regression leans towards the maximum",
    caption="1992 draws of a mixture of two normals on [-3, 3]. At equal lam >= .8 the expectile (IQL) is the laziest of the three; the"
    " Gumbel value (XQL) is drawn against 1/b. All reach the largest draw (C4).",
    size=(8.5, 3.8),
    draw=Many("panel", {
        "lam": Lines("parameter", "value", by="rule", xlabel="lam", ylabel="value v", markers=False, styles=LARGEST),
        "b": Lines("parameter", "value", by="rule", xlabel="inverse temperature 1/b", ylabel="value v", xscale="log",
                   markers=False, styles=LARGEST),
    }, titles={"lam": "f-DVL and IQL", "b": "XQL"}),
)  # fmt: skip
def implicit_maximisers(run):
    rng = run.rng("mixture")
    u = rng.random(2000)
    x = np.where(u < 0.5, rng.normal(-1.0, 0.6, 2000), rng.normal(1.0, 0.8, 2000))
    x = x[np.abs(x) <= 3]
    log_p = np.full(len(x), -np.log(len(x)))
    lams, inverse = np.linspace(0.51, 0.999, 60), np.logspace(0, 2, 40)
    rules = {"TV (f-DVL)": quantile_value, "chi² (f-DVL)": chi2_value, "expectile (IQL)": expectile_value}
    for name, rule in rules.items():
        yield {"panel": "lam", "rule": name, "parameter": lams, "value": [float(rule(x, log_p, lam)) for lam in lams]}
    yield {"panel": "lam", "rule": "largest draw", "parameter": lams[[0, -1]], "value": x.max()}
    soft = [float(gumbel_value(x, log_p, 1 / i)) for i in inverse]
    yield {"panel": "b", "rule": "Gumbel (XQL)", "parameter": inverse, "value": soft}
    yield {"panel": "b", "rule": "largest draw", "parameter": inverse[[0, -1]], "value": x.max()}


@figures.figure(
    "instability",
    title="The Gumbel loss at small temperature",
    caption=f"SGD on v, minibatches of 16 draws of N(0, 1), step 0.05, all losses tuned to the optimum 1/(2b); median and range of 20 runs."
    f" Dashed: |v| = {BLOWN:g}. At b = .25 the Gumbel regression (no exponent clipping) leaves in every run and does not come back (C7).",
    size=(9.0, 3.4),
    draw=Lines("step", "size", by="loss", panels="temperature", xscale="log", yscale="log", xlabel="step", ylabel="|v|",
               markers=False, levels={BLOWN: ""}),
)  # fmt: skip
def instability(run):
    marks = np.unique(np.logspace(0, np.log10(STEPS - 1), 80).astype(int))
    for b in (1.0, 0.5, 0.25):
        paths = np.maximum(value_sgd([run.rng("sgd", seed) for seed in range(20)], b)[:, marks], 1e-3)
        for i, name in enumerate(("Gumbel", "TV", "chi²")):
            ends = {"size low": paths[..., i].min(axis=0), "size high": paths[..., i].max(axis=0)}
            yield {
                "temperature": f"b = {b:g}",
                "loss": name,
                "step": marks + 1,
                "size": np.median(paths[..., i], axis=0),
                **ends,
            }


SIDE, SLIP = 5, 0.1


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


def cloned(table):
    """The policy that imitates the pairs of a visitation; uniform where there are none."""
    empty = table.sum(axis=1, keepdims=True) == 0
    return log_normalize(log(np.where(empty, 1.0, table)))


@figures.figure(
    "imitation",
    title="Imitation from a mixture: ReCOIL against behaviour cloning",
    caption="5 x 5 grid, exact visitations. Total variation to the expert's policy (mean over the expert's states) against the share of expert"
    " data. Left: the other data cover the expert; middle: they never take its action; right: the expert is 50 draws (5 seeds, mean),"
    " covered. Exactness is what the theorem gives, not robustness to estimation (C5, C6).",
    size=(10.5, 3.6),
    draw=Lines("share", "distance", by="method", panels="data", xlabel="share m of expert data",
               ylabel="total variation to the expert"),
)  # fmt: skip
def imitation_curves(run):
    problem, expert = grid()
    d_expert, shares = occupancy(problem, expert), (0.05, 0.1, 0.2, 0.3, 0.5)
    avoiding = log_normalize(np.where(np.isneginf(expert), 0.0, -np.inf))
    uniform = occupancy(problem, np.full(problem.shape, -np.log(4)))
    others = {"covered": uniform, "not covered": occupancy(problem, avoiding)}

    def distance(policy):
        return max(float(d_expert.sum(axis=1) @ tv(policy, expert)), 0.0)

    def curves(data, wanted, other):
        """ReCOIL and behaviour cloning of the mixture at every share."""
        mixtures = [m * wanted + (1 - m) * other for m in shares]
        found = [match_visitation(problem, wanted, other, m).log_policy for m in shares]
        yield {"data": data, "method": "ReCOIL", "share": shares, "distance": [distance(p) for p in found]}
        cloning = [distance(cloned(mixed)) for mixed in mixtures]
        yield {"data": data, "method": "behaviour cloning", "share": shares, "distance": cloning}

    for name, other in others.items():
        yield from curves(name, d_expert, other)
    draws = [
        run.rng("draws", s).multinomial(50, d_expert.ravel() / d_expert.sum()).reshape(problem.shape) / 50
        for s in range(5)
    ]
    over_draws = [list(curves("50 draws", drawn, uniform)) for drawn in draws]
    for method in zip(*over_draws):
        yield method[0] | {"distance": np.mean([block["distance"] for block in method], axis=0)}
    alone = np.mean([distance(cloned(drawn)) for drawn in draws])
    yield {
        "data": "50 draws",
        "method": "cloning the draws alone",
        "share": shares,
        "distance": np.full(len(shares), alone),
    }
