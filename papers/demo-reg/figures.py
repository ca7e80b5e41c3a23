"""Figures of demo-reg: cloning rates, fast and slow errors, demonstrations against samples, exploration, learned rewards."""

from __future__ import annotations

import numpy as np

from klsim.planning.cloning import cloning_bound, cloning_limit, expected_cloning_kl
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import (
    hardened,
    lock_episodes,
    plug_in_error,
    preferences,
    random_mdp,
    random_policy,
    study,
    two_options,
)

figures = Figures()
GUIDE = {"color": "0.3", "linestyle": "--", "marker": ""}


@figures.figure(
    "cloning-rate",
    title="Expected trajectory KL of an add-one clone",
    caption="One problem (S = 5, A = 3, H = 3), exact expectations; N_E times the KL, with the limit of each expert (dashed) and the bound"
    " N_E S H (A-1)/(N_E+1), which only deterministic experts approach (C4).",
)  # fmt: skip
def cloning_rate(run):
    problem = random_mdp(run.rng("problem"), 3, 5, 3)
    expert = random_policy(run.rng("expert"), problem)
    counts = np.unique(np.round(np.geomspace(1, 20000, 30)).astype(int))
    for name, policy in (("stochastic expert", expert), ("deterministic expert", hardened(expert))):
        kls = [n * expected_cloning_kl(problem, policy, int(n)) for n in counts]
        yield {"series": name, "n": counts, "kl": kls, "limit": cloning_limit(problem, policy)}
    bound = [n * cloning_bound(problem, expert, int(n)) for n in counts]
    yield {"series": "bound", "n": counts, "kl": bound, "limit": bound}


@cloning_rate.draw
def _(table, figure):
    axes = figure.subplots()
    for name, marker in (("deterministic expert", "s"), ("stochastic expert", "o")):
        rows = table.rows(series=name)
        (line,) = axes.plot(rows["n"], rows["kl"], marker=marker, label=name)
        axes.axhline(rows["limit"][0], color=line.get_color(), linestyle="--", linewidth=1)
        words = {"xytext": (0, 3), "textcoords": "offset points", "fontsize": 8, "color": line.get_color()}
        axes.annotate(f"limit, {name}", (1 if marker == "s" else 20, rows["limit"][0]), **words)
    rows = table.rows(series="bound")
    axes.plot(rows["n"], rows["kl"], color="0.3", linestyle=":", label="bound N S H (A-1)/(N+1)")
    axes.set(xscale="log", xlabel="demonstrations N_E", ylabel="N_E · E[KL_traj(expert ‖ clone)], nats", ylim=(0, None))
    axes.legend(loc="lower right")


@figures.figure(
    "fast-rate",
    title="Regularised and unregularised error of plug-in planning",
    caption="Regularised: V_lam* - V_lam of the plan, 20 problems (S = 4, A = H = 3), lam = 0.3, uniform reference, 100 estimated models each; band:"
    " 95 % interval over problems. Unregularised worst case: the better of two options 1/sqrt(n) apart, exact. Dashed: slopes -1 and -1/2 (C7).",
    draw=Lines("n", "gap", by="series", xlabel="samples n of every (h, s, a)", ylabel="sub-optimality (units of reward)", xscale="log",
               yscale="log", styles={"slope -1": GUIDE, "slope -1/2": {**GUIDE, "linestyle": ":"}}),
)  # fmt: skip
def fast_rate(run):
    samples, rng = np.array([20, 40, 80, 160, 320, 640, 1280]), run.rng("models")
    problems = [random_mdp(rng) for _ in range(20)]
    gaps = np.array([[plug_in_error(p, int(n), 0.3, 100, rng).mean() for n in samples] for p in problems])
    slow = np.array([two_options(int(n)) for n in samples])

    def exact(gap):
        return {"gap": gap, "gap low": gap, "gap high": gap}

    yield {"series": "regularised, lam = 0.3", "n": samples, **over_seeds(gap=gaps)}
    yield {"series": "no regulariser, worst case", "n": samples, **exact(slow)}
    yield {"series": "slope -1", "n": samples, **exact(gaps.mean(axis=0)[0] * samples[0] / samples)}
    yield {"series": "slope -1/2", "n": samples, **exact(slow[0] * np.sqrt(samples[0] / samples))}


@figures.figure(
    "demonstrations",
    title="Demonstrations divide the cost: final gap against N_E at one model sample a pair",
    caption="S = A = 6, H = 5, n = 1, 60 problems; band: 95 % interval of the mean. lam = c sqrt(N_E/(SAHn)). Plain planning does not use demonstrations."
    " With c = 0.3 few demonstrations hurt; with c = 0.1 the gap comes close to the guide N_E^(-1/2) (C8).",
    draw=Lines("n", "gap", by="series", xlabel="demonstrations N_E", ylabel="gap V* - V (units of reward)", xscale="log", yscale="log",
               styles={"N_E^(-1/2)": GUIDE}),
)  # fmt: skip
def demonstrations(run):
    counts = np.array([4, 16, 64, 256, 1024])
    found = study(run.rng("problems"), 60, demos=tuple(counts.tolist()), scales=(0.1, 0.3))
    for c in (0.1, 0.3):
        yield {
            "series": f"regularised, c = {c}",
            "n": counts,
            **over_seeds(gap=np.array([found.regularised[c, n] for n in counts.tolist()]).T),
        }
    yield {"series": "clone", "n": counts, **over_seeds(gap=np.array([found.clones[n] for n in counts.tolist()]).T)}
    yield {
        "series": "plain planning",
        "n": counts,
        **over_seeds(gap=np.repeat(found.plain[:, None], len(counts), axis=1)),
    }
    guide = found.regularised[0.1, 1024].mean() * np.sqrt(1024 / counts)
    yield {"series": "N_E^(-1/2)", "n": counts, "gap": guide, "gap low": guide, "gap high": guide}


@figures.figure(
    "exploration",
    title="Online episodes that a combination lock takes",
    caption="Lock of 8 steps and 6 keys, reference: the clone of N_E perfect runs, lam = 0.3 sqrt(N_E/(2AHT)) after T episodes; episodes until the policy"
    " opens it with chance 0.9, 40 runs, band: 95 % interval. Following the optimistic policy, more demonstrations first make exploration slower;"
    " with one deviation an episode they do not (C8-exploration).",
    draw=Lines("n", "episodes", by="exploration", xlabel="demonstrations N_E", ylabel="episodes", xscale="log"),
)  # fmt: skip
def exploration(run):
    counts = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
    for name, deviate in (("the optimistic policy", False), ("with one deviation an episode", True)):
        found = [lock_episodes(n, 40, run.rng(name, n), deviate=deviate) for n in counts.tolist()]
        yield {"exploration": name, "n": counts, **over_seeds(episodes=np.array(found).T)}


@figures.figure(
    "learned-reward",
    title="True value of the tilt of the clone by a learned reward",
    caption="100 arms, clone of 100 demonstrations, reward fitted to 200 comparisons with ridge 0.01; 30 seeds, band: 95 % interval of the mean."
    " Too small a coefficient over-optimises the learned reward, too large a one stays at the clone (C9).",
    draw=Lines("lam", "value", by="policy", xlabel="coefficient lam (units of reward)", ylabel="true value E[r]", xscale="log"),
)  # fmt: skip
def learned_reward(run):
    lams = np.geomspace(0.02, 10, 16)
    found = preferences(run.rng("arms"), 30, lams=tuple(lams.tolist()))
    yield {
        "policy": "tilt of the clone",
        "lam": lams,
        **over_seeds(value=np.array([found.tilted[lam] for lam in lams.tolist()]).T),
    }
    for name, values in (("clone", found.clones), ("greedy on the learned reward", found.greedy)):
        yield {"policy": name, "lam": lams, **over_seeds(value=np.repeat(values[:, None], len(lams), axis=1))}
