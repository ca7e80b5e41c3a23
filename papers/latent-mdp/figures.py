"""Figures of latent-mdp: variance and regret against the horizon, regret against K, what a memory is worth."""

from __future__ import annotations

import itertools

import numpy as np

from klsim.planning import evaluate, return_variance, solve
from klsim.report.drawings import Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import BEST, HORIZONS, K, certain, one_context, regret, small, two_contexts, worker

figures = Figures()
GREY = {"color": "0.45", "linestyle": "--", "marker": ""}


def always(problem, action):
    """The policy that takes one action everywhere."""
    return np.where(np.arange(problem.shape[2]) == action, 0.0, np.full(problem.shape, -np.inf))


@figures.figure(
    "variance",
    title="The variance of the return does not grow with the horizon",
    caption='Two-context worker, g = (1.5, 0.5) and (0.5, 1.5), f = 0.5, policy "action 0 forever". Left: the total variance and its two parts'
    " (law of total variance over alpha vectors). Right: what a horizon-dependent analysis pays, sqrt(H Var), against sqrt(Var) (C3).",
    size=(9.0, 3.6),
    draw=Many("panel", {
        "parts": Lines("H", "value", by="part", xscale="log", xlabel="horizon H [steps]", ylabel="variance [reward²]"),
        "surrogate": Lines("H", "value", by="part", xscale="log", yscale="log", xlabel="horizon H [steps]",
                           ylabel="standard deviation [reward]"),
    }, titles={"parts": "parts of the variance", "surrogate": "surrogate"}),
)  # fmt: skip
def variance(run):
    horizons = np.array([8, 16, 32, 64, 128, 256, 512])
    problems = [worker(int(h), [[1.5, 0.5], [0.5, 1.5]]) for h in horizons]
    parts = [return_variance(p, always(p, 0)) for p in problems]
    total = np.array([p.total for p in parts])
    yield {"panel": "parts", "part": "total", "H": horizons, "value": total}
    yield {"panel": "parts", "part": "transitions", "H": horizons, "value": [p.transition.sum() for p in parts]}
    yield {"panel": "parts", "part": "start and context", "H": horizons, "value": [p.start for p in parts]}
    yield {"panel": "surrogate", "part": "sqrt(H Var)", "H": horizons, "value": np.sqrt(horizons * total)}
    yield {"panel": "surrogate", "part": "sqrt(Var)", "H": horizons, "value": np.sqrt(total)}


def of_uniform_play(problem):
    """Regret of K episodes whose constant action is drawn anew, uniformly, for every episode."""
    values = [evaluate(problem, always(problem, a)).state_value[:, 0] for a in range(problem.shape[2])]  # (A, M, S)
    by_start = np.einsum("ms,ams->as", problem.weights[:, None] * problem.initial, np.array(values))
    return K * float((by_start.max(axis=0) - by_start.mean(axis=0)).sum())


@figures.figure(
    "horizon",
    title="Regret against the horizon",
    caption=f"Two-context worker, three actions, K = {K} episodes, mean and 95 % interval of 8 runs. The Bernstein bonus sees the variance of the"
    " alpha vector, the Hoeffding bonus does not. Dashed: the constant action drawn uniformly in every episode (C6).",
    draw=Lines("H", "regret", by="bonus", xscale="log", xlabel="horizon H [steps]", ylabel=f"regret after {K} episodes [reward]",
               styles={"uniform play": GREY}),
)  # fmt: skip
def horizon(run):
    problems = [two_contexts(h) for h in HORIZONS]
    for name, seen in (("Bernstein", True), ("Hoeffding", False)):
        found = [
            regret(p, [run.rng(name, h, s) for s in range(8)], variance=seen)[:, -1] for p, h in zip(problems, HORIZONS)
        ]
        yield {"bonus": name, "H": HORIZONS, **over_seeds(regret=np.stack(found, axis=1))}
    uniform = [of_uniform_play(p) for p in problems]
    yield {"bonus": "uniform play", "H": HORIZONS, "regret": uniform, "regret low": uniform, "regret high": uniform}


@figures.figure(
    "episodes",
    title="Regret against the number of episodes",
    caption="One context, three actions, H = 32, mean and 95 % interval of 24 runs, each K a run of its own. Deterministic: constant up to the"
    " logarithm. Fixed gap g = (1, 1, 1.6): logarithmic, though Var* > 0. Worst case at each K, g = 1 + 0.6 sqrt(3000/K): like sqrt(K) (C7).",
    draw=Lines("K", "regret", by="instance", xscale="log", yscale="log", xlabel="episodes K", ylabel="regret [reward]",
               styles={"guide, sqrt(K)": GREY}),
)  # fmt: skip
def episodes(run):
    counts = np.array([3000, 6000, 12000, 24000, 48000])
    instances = {
        "worst case at each K": lambda k: one_context(32, 1 + (BEST - 1) * np.sqrt(K / k)),
        "fixed gap": lambda k: one_context(32, BEST),
        "deterministic": lambda k: certain(32),
    }
    for name, at in instances.items():
        runs = 1 if name == "deterministic" else 24
        found = [regret(at(k), [run.rng(name, int(k), s) for s in range(runs)], int(k))[:, -1] for k in counts]
        table = np.stack(found, axis=1)
        ends = {"regret": table[0], "regret low": table[0], "regret high": table[0]}
        yield {"instance": name, "K": counts, **(over_seeds(regret=table) if runs > 1 else ends)}
    guide = 40 * np.sqrt(counts / counts[0])
    yield {"instance": "guide, sqrt(K)", "K": counts, "regret": guide, "regret low": guide, "regret high": guide}


def scatter(table, canvas):
    axes = canvas.subplots()
    top = 1.05 * float(np.max(table["history"]))
    axes.plot([0, top], [0, top], color="0.45", linestyle="--", linewidth=1, label="equal")
    axes.plot(table["memoryless"], table["history"], "o", alpha=0.7, label="a latent MDP")
    axes.set(xlabel="best memoryless policy, the same at every step [reward]", ylabel="best policy of histories, V* [reward]",
             xlim=(-0.03, top), ylim=(-0.03, top), aspect="equal")  # fmt: skip
    axes.legend(loc="upper left")


@figures.figure(
    "memory",
    title="What a memory is worth",
    caption="100 random latent MDPs, M = S = A = 2, H = 3, Dirichlet(0.5) laws, rewards in {0, 1/3}: the optimum over policies of histories against"
    " the best of the four deterministic policies of the current state (C1).",
    size=(4.6, 4.4),
    draw=scatter,
)
def memory(run):
    rng = run.rng("instances")
    problems = [small(rng, 3, 0.5, shared=False) for _ in range(100)]
    best, state = [], []
    for problem in problems:
        best.append(float(solve(problem, None, 0.0).value[0][0]))
        tables = [
            np.where(np.arange(2) == np.array(a)[:, None], 0.0, -np.inf) for a in itertools.product(range(2), repeat=2)
        ]
        state.append(max(evaluate(problem, np.broadcast_to(t, problem.shape).copy()).value for t in tables))
    yield {"memoryless": state, "history": best}
