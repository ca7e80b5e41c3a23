"""Figures of kdrl: the methods on trees, estimators, coefficients, and where the teacher stops anchoring."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from klsim.learning.teacher_reward import critical_coefficient
from klsim.report.drawings import Bars, Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import STEPS, Student, World, annealed, cosine, exact_gradient, joint_gradient

figures = Figures()
SEEDS = 8
ARMS = {
    "GRPO": (0.0, {}),
    "KD-RKL": (1.0, {"reward": False}),
    "SFT": (0.0, {"sft": True}),
    "KDRL .01": (0.01, {}),
    "KDRL .03": (0.03, {}),
    "KDRL .1": (0.1, {}),
    "KDRL .3": (0.3, {}),
    "KDRL 1": (1.0, {}),
    "KDRL 3": (3.0, {}),
    "mask: response": (0.3, {"mask": "response"}),
    "mask: group": (0.3, {"mask": "group"}),
    "mask: kept mean": (0.3, {"mask": "kept"}),
    "k3 .3": (0.3, {"estimator": "k3"}),
    "annealed": (annealed(1.0, 0.03), {}),
    "reversed": (annealed(0.03, 1.0), {}),
}
RECORD = tuple(range(0, STEPS + 1, 5))


def curves(run, name):
    """Scores ``(steps, seeds)`` of an arm, on the same prompts for every arm."""
    beta, options = ARMS[name]

    def compute():
        world = World([run.rng("world", seed) for seed in range(SEEDS)])
        return {"score": world.train(run.rng("train", name), beta, record=RECORD, **options)}

    return run.stage(f"curve-{name}", compute)["score"]


@figures.figure(
    "methods",
    title="Accuracy after 150 steps, all methods",
    caption="16 prompts with one right answer of 1024 each, exact accuracy, 8 seeds; error bars: 95 % intervals. Teacher: .400 (dashed). KDRL at beta = .3 beats"
    " GRPO, distillation without reward and imitation of right answers; masks cost nothing unless the mean is over kept responses; annealing is best (C6, C7).",
    size=(11.5, 4.2),
)  # fmt: skip
def methods(run):
    for name in ARMS:
        yield {"method": [name], **over_seeds(accuracy=curves(run, name)[-1][:, None])}


@methods.draw
def _(table, figure):
    Bars(
        "method",
        "accuracy",
        xlabel="method, coefficient of distillation",
        ylabel="probability of the right answer",
        levels={0.4: ""},
    )(table, figure)
    figure.axes[0].tick_params(axis="x", rotation=30)


SHOWN = ("GRPO", "KD-RKL", "KDRL .03", "KDRL .3", "KDRL 1", "annealed")


@figures.figure(
    "learning-curves",
    title="Learning curves",
    caption="Mean and 95 % interval over 8 seeds; teacher: .400 (dashed). A large coefficient imitates fast and stops early, a small one waits for the first success,"
    " annealing does both (C6, C7).",
    draw=Lines("step", "accuracy", by="method", xlabel="step", ylabel="probability of the right answer", markers=False, levels={0.4: "teacher"}),
)  # fmt: skip
def learning_curves(run):
    for name in SHOWN:
        yield {"method": name, "step": RECORD, **over_seeds(accuracy=curves(run, name).T)}


@figures.figure(
    "estimators",
    title="k2 and k3 as losses",
    caption="Left: training in the world of the methods, beta = .3, 8 seeds. Right: cosine between the expected gradient and that of the objective with the reverse KL,"
    " 250 random students: of k3 with the reverse KL of the nodes (C1), and of the joint loss with grad(E r - beta KL) (C2).",
    size=(10.0, 4.0),
    draw=Many("what", {
        "training": Lines("x", "y", by="name", xlabel="step", ylabel="probability of the right answer", markers=False),
        "cosines": Lines("x", "y", by="name", xlabel="cosine", ylabel="share of students below", markers=False),
    }, titles={"training": "k2 against k3", "cosines": "direction of the gradient"}),
)  # fmt: skip
def estimators(run):
    for name, arm in (("k2", "KDRL .3"), ("k3", "k3 .3")):
        yield {"what": "training", "name": name, "x": RECORD, **over_seeds(y=curves(run, arm).T)}
    found = {"k3, reverse KL": [], "joint loss": [], "joint loss, no std": []}
    for seed in range(250):
        student = Student.draw(run.rng("student", seed))
        pieces = law, gaps, scores = student.pieces()
        reverse = np.einsum("y,yt,ytf->f", law, gaps, scores)
        found["k3, reverse KL"].append(cosine(np.einsum("y,yt,ytf->f", law, -np.expm1(-gaps), scores), reverse))
        exact = exact_gradient(pieces, student.reward, 0.3)
        found["joint loss"].append(cosine(joint_gradient(pieces, student.reward, 0.3), exact))
        found["joint loss, no std"].append(cosine(joint_gradient(pieces, student.reward, 0.3, std=False), exact))
    for name, values in found.items():
        x = np.sort(values)
        share = (np.arange(x.size) + 1) / x.size
        yield {"what": "cosines", "name": name, "x": x, "y": share, "y low": share, "y high": share}


@figures.figure(
    "coefficient",
    title="Final accuracy against the coefficient",
    caption="8 seeds, 150 steps, mean and 95 % interval: an inverted U with its peak at .3; dashed: annealed from 1 to .03, its mean in the CSV (C6, C7).",
)  # fmt: skip
def coefficient(run):
    fixed = [name for name in ARMS if name.startswith("KDRL")]
    finals = np.stack([curves(run, name)[-1] for name in fixed], axis=1)
    yield {"schedule": "fixed", "beta": [ARMS[name][0] for name in fixed], **over_seeds(accuracy=finals)}
    yield {
        "schedule": "annealed",
        "beta": [0.01, 3.0],
        **over_seeds(accuracy=np.repeat(curves(run, "annealed")[-1][:, None], 2, axis=1)),
    }


@coefficient.draw
def _(table, figure):
    Lines("beta", "accuracy", by="schedule", xlabel="coefficient beta of distillation", ylabel="probability of the right answer", xscale="log",
          styles={"annealed": {"linestyle": "--", "marker": ""}})(table, figure)  # fmt: skip


@figures.figure(
    "anchor",
    title="Where the teacher anchors a group-normalised student",
    caption="Final success rate of the flow from p = .1 (infinite group, Euler steps of .01 with increments of at most .05, stopped at logit 18) by the teacher's rate"
    " and beta; line: the critical coefficient, below which everything ends at 1 (C4).",
    size=(6.4, 4.4),
)  # fmt: skip
def anchor(run):
    teachers, betas = np.linspace(0.05, 0.95, 46), np.geomspace(0.1, 8.0, 60)
    start, beta = logit(teachers)[None, :], betas[:, None]
    x = np.full((betas.size, teachers.size), logit(0.1))
    for _ in range(20_000):
        x = np.minimum(x + np.minimum(0.01 * (2 * np.cosh(x / 2) - beta * (x - start)), 0.05), 18.0)
    least, _ = critical_coefficient(teachers)
    for i, rate in enumerate(teachers):
        yield {"teacher": rate, "beta": betas, "final": expit(x[:, i]), "critical": least[i]}


@anchor.draw
def _(table, figure):
    axes = figure.subplots()
    teachers, betas = np.array(table.distinct("teacher")), np.array(table.distinct("beta"))
    image = axes.pcolormesh(
        teachers, betas, table["final"].reshape(teachers.size, -1).T, cmap="cividis", shading="nearest", vmin=0, vmax=1
    )
    axes.plot(
        teachers,
        table["critical"].reshape(teachers.size, -1)[:, 0],
        color="#D55E00",
        linewidth=2,
        label="critical coefficient",
    )
    axes.set(yscale="log", xlabel="success rate of the teacher", ylabel="coefficient beta")
    axes.legend(loc="lower right")
    figure.colorbar(image, ax=axes, label="final success rate")
