"""Figures of dph-rl: pass@k and modes of the methods, floors, recovery of a lost mode, the price of rehearsal."""

from __future__ import annotations

import numpy as np

from klsim.modes import log_ratio_floor
from klsim.optima import f_regularized
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import (
    DPH_F,
    DPH_JS,
    DPH_R,
    EXPLORE,
    GRPO,
    MASTERED,
    NAMES,
    NONE,
    ON_POLICY,
    TEST,
    Method,
    paper_generator,
    recovery,
    scores,
    train,
    worlds,
)

figures = Figures()

WORLDS = 20
METHODS = {
    "GRPO": GRPO,
    "split only": NONE,
    "on-policy rkl .3": ON_POLICY,
    "DPH-F": DPH_F,
    "DPH-JS": DPH_JS,
    "DPH with rkl": DPH_R,
}
LONG = {"rkl": "reverse KL", "fkl": "forward KL", "js": "JS", "alpha": "alpha"}


def _trained(run, *, far=False, key="worlds"):
    """The worlds, and the final weights of every method on them (computed once a run)."""
    world = worlds([run.rng(key, seed) for seed in range(WORLDS)], far=far)

    def compute():
        return {name: train(world, method, run.rng(key, name)) for name, method in METHODS.items()}

    return world, {"base": np.zeros(world.weight_shape), **run.stage(key, compute)}


@figures.figure(
    "pass-at-k",
    title="Pass@k of the methods, on prompts that are trained and on test prompts",
    caption="Worlds of C11 (12 prompts to explore, 36 test prompts beside the mastered ones), exact pass@k, 20 worlds; bands: 95 %"
    " intervals. All methods raise pass@1 of the trained prompts; on test prompts all lie below the base, rehearsal and the on-policy"
    " penalty least (C11; the paper's tables are on 8B models).",
    size=(9.0, 4.0),
    draw=Lines("k", "pass", by="method", panels="prompts", xlabel="samples k", ylabel="pass@k", xscale="log", share_y=False),
)  # fmt: skip
def pass_at_k(run):
    world, weights = _trained(run)
    ks = 2.0 ** np.arange(7)
    for prompts, part in (("prompts to explore (trained)", EXPLORE), ("test prompts", TEST)):
        chosen = world.select(part)
        for name, w in weights.items():
            curves = chosen.pass_at_k(ks[:, None, None], w).mean(axis=-1).T
            yield {"prompts": prompts, "method": name, "k": ks, **over_seeds(**{"pass": curves})}


@figures.figure(
    "kept-lost-new",
    title="Right answers kept, lost and new",
    caption="Share of the three right answers of a prompt above probability .02 before and after training (kept), only before (lost),"
    " only after (new); 20 worlds, 95 % intervals. Rehearsal keeps the mastered prompts' answers whatever its generator.",
    size=(9.0, 4.0),
    draw=Bars("change", "share", by="method", panels="prompts", ylabel="share of right answers"),
)  # fmt: skip
def kept_lost_new(run):
    world, weights = _trained(run)
    tau = 0.02
    for prompts, part in (("mastered prompts (P)", MASTERED), ("test prompts", TEST)):
        chosen = world.select(part)
        right, before = chosen.reward == 1, np.exp(chosen.log_policy()) >= tau
        for name, w in list(weights.items())[1:]:
            after = np.exp(chosen.log_policy(w)) >= tau
            kinds = {"kept": before & after, "lost": before & ~after, "new": ~before & after}
            shares = np.stack(
                [(right & x).sum(axis=(-1, -2)) / right.sum(axis=(-1, -2)) for x in kinds.values()], axis=-1
            )
            yield {"prompts": prompts, "method": name, "change": np.array(list(kinds)), **over_seeds(share=shares)}


@figures.figure(
    "near-and-far",
    title="Rehearsal protects the neighbourhood of the mastered prompts",
    caption="Test pass@8 minus the base's, for test prompts beside the mastered ones and far from them (noise about twice the norm of the"
    " features); 20 worlds, 95 % intervals. Far away the rehearsal does not help; a penalty on all prompts helps a little (C11-far).",
    draw=Bars("method", "change", by="test prompts", ylabel="test pass@8 minus the base's", levels={0: "base"}),
)  # fmt: skip
def near_and_far(run):
    for where, far in (("beside", False), ("far", True)):
        world, weights = _trained(run, far=far, key="far" if far else "worlds")
        base = scores(world, weights.pop("base")).test
        changes = np.stack([scores(world, w).test - base for w in weights.values()], axis=-1)
        yield {"test prompts": where, "method": np.array(list(weights)), **over_seeds(change=changes)}


@figures.figure(
    "wrong-answers-against-beta",
    title="What wrong answers keep at the optimum",
    caption="u*(wrong) = pi*/ref of a wrong answer against beta, with its floor (dashed); ref = (.5, .3, .2), reward (1, 0, 0). Polynomial for"
    " the forward KL and alpha = .2, exponential for the reverse KL and JS (C4).",
    draw=Lines("beta", "log10 ratio", by="curve", xlabel="coefficient beta", ylabel="log10 u*(wrong)", xscale="log", markers=False,
               styles={f"{LONG[n]}, floor": {"linestyle": "--", "color": f"C{i}"} for i, n in enumerate(NAMES)}
               | {LONG[n]: {"color": f"C{i}"} for i, n in enumerate(NAMES)}),
)  # fmt: skip
def wrong_answers_against_beta(run):
    beta = np.geomspace(0.02, 2, 41)
    for name in NAMES:
        times, of = paper_generator(name)
        found = f_regularized(np.log([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.0]), times * beta, of)
        yield {"curve": LONG[name], "beta": beta, "log10 ratio": (found.log_policy[:, 1] - np.log(0.3)) / np.log(10)}
        yield {
            "curve": f"{LONG[name]}, floor",
            "beta": beta,
            "log10 ratio": log_ratio_floor(1.0, times * beta, of) / np.log(10),
        }


@figures.figure(
    "recovery-of-a-lost-mode",
    title="Recovery of a mode lost to 1e-4",
    caption="Probability of the lost outcome (reference .3) under exact gradient descent in the logits on each divergence at curvature 1,"
    " learning rate .5, alpha = .5. The force is constant for the forward KL and vanishes with the mode for the others (C7).",
    draw=Lines("step", "probability", by="divergence", xlabel="gradient step", ylabel="probability of the lost outcome", xscale="log",
               yscale="log", markers=False, levels={0.3: "reference"}),
)  # fmt: skip
def recovery_of_a_lost_mode(run):
    for name in ("fkl", "alpha", "js", "rkl"):
        _, path = recovery(np.array(1e-4), name, goal=0.28, most=6000)
        marks = np.unique(np.geomspace(1, len(path), 120).astype(int)) - 1
        yield {"divergence": LONG[name], "step": marks + 1.0, "probability": path[marks]}


@figures.figure(
    "price-of-rehearsal",
    title="Training pass@1 against test pass@8 as eta grows",
    caption="DPH-F and DPH with the reverse generator at eta = .03, .1, .3, 1, 3, on-policy reverse KL at beta = .03, .1, .3, 1; means over 10"
    " worlds of C11 (both DPH curves from bottom to top). Rehearsal costs hardly any training pass@1; the on-policy penalty buys the same coverage with it.",
)  # fmt: skip
def price_of_rehearsal(run):
    world = worlds([run.rng("price", seed) for seed in range(10)])
    families = {"DPH-F": [Method("fkl", eta=x) for x in (0.03, 0.1, 0.3, 1.0, 3.0)],
                "DPH with reverse KL": [Method("rkl", eta=x) for x in (0.03, 0.1, 0.3, 1.0, 3.0)],
                "on-policy reverse KL": [Method(beta=x) for x in (0.03, 0.1, 0.3, 1.0)]}  # fmt: skip
    for name, methods in families.items():
        found = [scores(world, train(world, m, run.rng("price", name, i))) for i, m in enumerate(methods)]
        yield {"family": name, "strength": np.array([m.beta or m.eta for m in methods]),
               "train": np.array([f.train.mean() for f in found]), "test": np.array([f.test.mean() for f in found])}  # fmt: skip
    none, base = (
        scores(world, train(world, NONE, run.rng("price", "none"))),
        scores(world, np.zeros(world.weight_shape)),
    )
    yield {
        "family": "split only",
        "strength": np.zeros(1),
        "train": none.train[:1] * 0 + none.train.mean(),
        "test": none.test[:1] * 0 + none.test.mean(),
    }
    yield {
        "family": "base",
        "strength": np.zeros(1),
        "train": base.train[:1] * 0 + base.train.mean(),
        "test": base.test[:1] * 0 + base.test.mean(),
    }


@price_of_rehearsal.draw
def _(table, figure):
    axes = figure.subplots()
    for marker, name in zip("os^X", [n for n in table.distinct("family") if n != "base"]):
        rows = table.rows(family=name)
        (line,) = axes.plot(rows["train"], rows["test"], marker=marker, label=name)
        for x, y, strength in zip(rows["train"], rows["test"], rows["strength"]):
            if strength and name != "DPH with reverse KL":
                style = {"textcoords": "offset points", "fontsize": 8, "color": line.get_color()}
                axes.annotate(f"{strength:g}", (x, y), xytext=(5, 5) if name == "DPH-F" else (-16, -10), **style)
    axes.axhline(
        float(table.rows(family="base")["test"][0]),
        color="0.4",
        linestyle="--",
        linewidth=1,
        label="base (training pass@1 .28)",
    )
    axes.set(xlabel="training pass@1", ylabel="test pass@8")
    axes.legend(loc="lower left")
