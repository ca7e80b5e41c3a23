"""Figures of vla-opd: entropy under the three losses, learning curves, forgetting, group size, and errors that compound."""

from __future__ import annotations

import numpy as np

from klsim.distributions import entropy
from klsim.learning.distillation_flows import LOSSES, distillation_flow
from klsim.planning.imitation import unrecovered_cost
from klsim.report.drawings import Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import (
    Contexts,
    Password,
    blurred,
    corridor_runs,
    learn_password,
    mass_near,
    success,
    train_gaussian,
    two_level,
)

figures = Figures()
NAMES = {"forward_kl": "forward KL", "reverse_kl": "reverse KL", "hard_ce": "hard labels"}
PANELS = ("entropy, unimodal student", "mass near c, unimodal student", "entropy, tabular student")


@figures.figure(
    "entropy",
    title="Entropy under the three losses",
    caption="Left, middle: a unimodal student, confident and 3 bins off, 10 teachers (.6 Gaussian at c, .4 uniform; sigma in 1 … 1.5), exact gradient steps; mean"
    " and 95 % interval over teachers. Right: a tabular student of 20 actions with .99 on one, teacher .4 there: both KLs end at the teacher's"
    " entropy (dashed), they differ in the time that takes (C2, C3, C4; the paper's Fig. 4 is one of the left kind).",
    size=(12.5, 3.9),
)  # fmt: skip
def entropies(run):
    rng = run.rng("teachers")
    c, sigma = rng.integers(5, 36, 10).astype(float), rng.uniform(1.0, 1.5, 10)
    teachers = np.array([blurred(*pair) for pair in zip(c, sigma)])
    steps, times = np.arange(0, 301, 5), np.geomspace(0.1, 300, 80)
    for loss in LOSSES:
        path = train_gaussian(teachers, loss, c + 3, np.log(0.5))[steps]
        yield {"panel": PANELS[0], "loss": NAMES[loss], "x": steps, **over_seeds(y=entropy(path).T)}
        yield {"panel": PANELS[1], "loss": NAMES[loss], "x": steps, **over_seeds(y=mass_near(path, c, 2).T)}
        h = entropy(distillation_flow(two_level(0.01, 20), two_level(0.6, 20), loss, times))
        yield {"panel": PANELS[2], "loss": NAMES[loss], "x": times, "y": h, "y low": h, "y high": h}


@entropies.draw
def _(table, figure):
    Many("panel", {
        PANELS[0]: Lines("x", "y", by="loss", xlabel="gradient step", ylabel="entropy, nats", markers=False),
        PANELS[1]: Lines("x", "y", by="loss", xlabel="gradient step", ylabel="mass within 2 bins of c", markers=False),
        PANELS[2]: Lines("x", "y", by="loss", xlabel="time of the flow", ylabel="entropy, nats", markers=False, xscale="log",
                         levels={float(entropy(two_level(0.6, 20))): "teacher"}),
    }, titles={name: name for name in PANELS})(table, figure)  # fmt: skip
    figure.axes[0].legend(loc="center right", bbox_to_anchor=(1.0, 0.3))


def rates(run, name, horizon, method, setup, steps, seeds=10):
    return learn_password([run.rng(name, seed) for seed in range(seeds)], horizon, method, setup, limit=steps, every=1)


@figures.figure(
    "learning-curves",
    title="Dense teacher signal against sparse reward",
    caption="Password chain of 8 tokens, 64 rollouts a step, exact success rate, mean and 95 % interval over 10 seeds. Left: the right action has .4 at the start,"
    " OPD needs a few steps, GRPO more than a hundred. Right: with .55, a teacher of .99 and half the learning rate the two tie (C8; the paper's Fig. 2)."
    " Dashed: 90 %.",
    size=(10.0, 4.0),
    draw=Lines("step", "success", by="method", panels="start", xlabel="step (+ 1)", ylabel="success rate", xscale="log", markers=False, levels={0.9: ""}),
)  # fmt: skip
def learning_curves(run):
    for start, setup, steps in (
        ("success is rare", Password(), 400),
        ("success is frequent", Password(start=0.55, lr=1.0, teacher=0.99), 200),
    ):
        for method, name in (("opd", "OPD"), ("grpo", "GRPO")):
            found = rates(run, f"{start} {method}", 8, method, setup, steps)
            yield {"start": start, "method": name, "step": np.arange(1, steps + 2), **over_seeds(success=found)}


@figures.figure(
    "group-size",
    title="OPD by the number of rollouts",
    caption="The chain of the learning curves with 2, 4 or 8 rollouts a step, mean and 95 % interval over 20 seeds: fewer rollouts take more steps, 8 suffice"
    " (C8, C9; the paper's Fig. 5).",
    draw=Lines("step", "success", by="rollouts", label="{} rollouts", xlabel="step", ylabel="success rate", markers=False, levels={0.9: ""}),
)  # fmt: skip
def group_size(run):
    for rollouts in (2, 4, 8):
        found = rates(run, f"group {rollouts}", 8, "opd", Password(rollouts=rollouts), 30, seeds=20)
        yield {"rollouts": rollouts, "step": np.arange(31), **over_seeds(success=found)}


SHOWN = {
    "external": "labels foreign to the base",
    "opd": "OPD",
    "soft": "teacher's soft labels, offline",
    "drawn": "labels drawn from the teacher",
    "argmax": "teacher's argmax",
}


@figures.figure(
    "forgetting",
    title="Seen and unseen success along training",
    caption="60 seeds, mean of (seen, unseen) success from the common base until the first seen success of .86 of each seed (it stays there), and of the KL to the base. Foreign labels lose"
    " unseen success, everything that comes from the teacher gains some, offline or hard as it may be (C10; the paper's Fig. 3).",
    size=(10.5, 4.2),
)  # fmt: skip
def forgetting(run):
    rngs = [run.rng("world", seed) for seed in range(60)]
    world = Contexts.draw(rngs)
    marks = np.unique(np.geomspace(1, 601, 40).astype(int)) - 1
    for arm, name in SHOWN.items():
        path = world.train(rngs, arm, record=True)
        path = np.concatenate([path, np.repeat(path[..., -1:], 601 - path.shape[-1], axis=-1)], axis=-1)[..., marks]
        seen, unseen, moved = path.mean(axis=1)
        yield {"labels": name, "step": marks, "seen": seen, "unseen": unseen, "kl": moved}


@forgetting.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for name, style in zip(table.distinct("labels"), ("-o", "-s", "--^", ":D", "-.v")):
        rows = table.rows(labels=name)
        left.plot(rows["seen"], rows["unseen"], style, markersize=4, label=name)
        right.plot(rows["step"] + 1, rows["kl"], style, markersize=4, label=name)
    left.set(xlabel="seen success", ylabel="unseen success")
    right.set(xlabel="step (+ 1)", ylabel="KL to the base on unseen contexts, nats", xscale="log")
    left.legend()


@figures.figure(
    "compounding",
    title="Errors that compound",
    caption="Left: cost of the two-state track at an error rate of .001: eps H²/2 without recovery, eps H with it (C5). Right: success on the corridor with slip, exact,"
    " 15 seeds (intervals are within the lines): demonstrations without slip fail with the horizon however many, with slip they do not (C7).",
    size=(10.0, 4.0),
    draw=Many("panel", {
        "track": Lines("x", "y", by="curve", xlabel="horizon H, steps", ylabel="expected steps off track", xscale="log", yscale="log"),
        "corridor": Lines("x", "y", by="curve", xlabel="horizon H, steps", ylabel="success rate"),
    }, titles={"track": "cost on the track", "corridor": "success in the corridor"}),
)  # fmt: skip
def compounding(run):
    horizons = np.unique(np.geomspace(1, 1000, 13).astype(int))
    costs = {"never recovers": unrecovered_cost(1e-3, horizons), "recovers": 1e-3 * horizons}
    for name, cost in costs.items():
        yield {"panel": "track", "curve": name, "x": horizons, "y": cost, "y low": cost, "y high": cost}
    rngs, found, lengths = [run.rng("corridor", seed) for seed in range(15)], {}, (10, 20, 40, 80)
    for h in lengths:
        runs = dict(zip(("SFT, 1 demonstration", "SFT, 241", "OPD"), corridor_runs(rngs, h)))
        runs["SFT, 241 with slip"] = corridor_runs(rngs, h, slip=0.1)[1]
        for name, laws in runs.items():
            found.setdefault(name, []).append(success(laws, h))
    for name, values in found.items():
        yield {"panel": "corridor", "curve": name, "x": lengths, **over_seeds(y=np.transpose(values))}
