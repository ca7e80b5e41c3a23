r"""A defect of the audit's list on a language model: a KL whose gradient is nothing but noise.

Three objectives, each from the base with the same prompts, seeds and first completions:

* correction: RLOO of ``r - beta sum_t log(pi/q)``, the KL in the reward;
* defect: RLOO of r, and ``beta k1`` added to the loss. The loss has the value of the KL, its logged KL is right, and
  its expected gradient is 0: ``E_pi[grad log pi] = 0``. It is a detached KL but for noise;
* no KL: what the defect is, if the audit is right.

The audit runs on all three, and says what each ascends. Predicted from it, in the last third of the steps, over seeds:

* P1: the defect ends with more KL than the correction; P2: and with a lower ``r - beta KL``;
* P3: the defect moves as training without KL does: their KLs differ by less than half of what P1 shows.

P1 and P2 are refuted if the interval lies on the other side of 0, P3 if it lies outside of that half. `klsim
frontier`'s forecast from the base's samples says where ``r - beta KL`` is largest; the
steps of a form need not get there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from klsim import frontier
from klsim.audit import audit
from klsim.objectives import TokenBatch, kl_in_loss, kl_in_reward, rloo, sequence_sum
from klsim.objectives.policy_gradient import token_ratio
from klsim.report.figures import COLOURS, Figures, Run, Table, over_seeds
from studies import intervals
from studies.runs import Lab, Training, split
from studies.sums import FewShot

TASKS = {"sum": FewShot()}


@dataclass(frozen=True)
class Form:
    """Sizes; beta: of the KL. samples: of the base for the forecast, on `prompts` prompts of training."""

    model: str = "smollm2-135m"
    beta: float = 0.5
    seeds: tuple[int, ...] = (0, 1, 2)
    training: Training = field(default_factory=lambda: Training(8, prompts=8, group=4, learning_rate=2e-5))
    train_prompts: int = 64
    prompts: int = 16
    samples: int = 16


FORMS = {
    "tiny": Form("tiny", 0.5, (0, 1), Training(6, 4, 4, 3e-3, save_steps=2), train_prompts=8, prompts=8, samples=8),
    "quick": Form(),
    "full": Form(seeds=(0, 1, 2, 3), training=Training(20, 8, 4, 2e-5, save_steps=10), train_prompts=160, prompts=32,
                 samples=32),
    "gpu": Form(training=Training(20, 16, 8, 1e-5), train_prompts=480, prompts=64, samples=64),
}  # fmt: skip


def on_policy(batch: TokenBatch) -> Any:
    """RLOO of the batch's rewards: its gradient is that of minus their expectation."""
    return rloo(batch, ratio=token_ratio)


def correction(batch: TokenBatch, beta: float = 0.5) -> Any:
    """The KL in the reward."""
    return on_policy(kl_in_reward(batch, beta=beta))


def defect(batch: TokenBatch, beta: float = 0.5) -> Any:
    """k1 in the loss."""
    return on_policy(batch)[0] + beta * kl_in_loss(batch, estimator="k1", aggregate=sequence_sum)[0]


def no_kl(batch: TokenBatch) -> Any:
    """The reward alone; the reference is read so that the KL to it is logged."""
    return on_policy(kl_in_reward(batch, beta=0.0))


ARMS = {"correction": correction, "defect": defect, "no KL": no_kl}


def verdicts(beta: float) -> dict[str, str]:
    """What the audit says that each descends."""
    bound = {"correction": partial(correction, beta=beta), "defect": partial(defect, beta=beta), "no KL": no_kl}
    out = {}
    for name, loss in bound.items():
        found = audit(loss, quick=True).variable
        parts = [f"{c:+.3g} {term}" for term, c in found.coefficients.items()]
        out[name] = " ".join(parts) if found.exact else f"no functional ({found.residual:.0%} left)"
    return out


def compute(lab: Lab, form: Form) -> dict[str, Any]:
    """The audit, the forecast, and the curves of every arm and seed."""
    train, _ = split(lab.tasks, form.train_prompts, 0, 0)
    base = lab.drawn("base", train[: form.prompts], form.samples, seed=10_000)
    out = {
        "beta": form.beta,
        "audit": lab.stages.stage("audit", partial(verdicts, form.beta)),
        "forecast": ends(base["reward"], form.beta),
        "curves": {},
    }
    for seed in form.seeds:
        for name, loss in ARMS.items():
            bound = loss if name == "no KL" else partial(loss, beta=form.beta)
            key = f"{name.replace(' ', '-')}-{seed}"
            log = lab.trained(key, bound, train, form.training, seed=seed, ref="base", keep=False)
            curve = {"reward": [x["reward"] for x in log], "kl": [x["kl_to_ref"] for x in log]}
            out["curves"].setdefault(name, []).append(curve)
    out["tests"] = tests(out["curves"], form.beta)
    return out


def ends(rewards: np.ndarray, beta: float) -> dict[str, list[float]]:
    """Where ``r - beta KL`` is largest, from the base's rewards ``(prompts, samples)``."""
    prompts = np.repeat(np.arange(len(rewards)), rewards.shape[1])
    (point,) = frontier.forecast(prompts, rewards.ravel(), [beta]).points
    return {name: [e.value, e.low, e.high] for name, e in (("kl", point.kl), ("reward", point.reward))}


def tests(curves: Mapping[str, Any], beta: float) -> dict[str, Any]:
    """P1 to P3 over seeds."""

    def late(name: str, key: str) -> np.ndarray:
        values = np.array([c[key] for c in curves[name]])
        return values[:, -max(values.shape[1] // 3, 1) :].mean(axis=1)

    def objective(name: str) -> np.ndarray:
        return late(name, "reward") - beta * late(name, "kl")

    more = intervals.mean(late("defect", "kl") - late("correction", "kl"))
    less = intervals.mean(objective("correction") - objective("defect"))
    same = intervals.mean(late("defect", "kl") - late("no KL", "kl"))
    half = abs(more[0]) / 2
    inside, outside = -half < same[1] and same[2] < half, same[1] > half or same[2] < -half
    return {
        "P1: KL, defect minus correction": {"value": more, "verdict": intervals.shown(more, 1)},
        "P2: r - beta KL, correction minus defect": {"value": less, "verdict": intervals.shown(less, 1)},
        f"P3: KL, defect minus no KL, within {half:.3f}": {
            "value": same,
            "verdict": "shown" if inside and more[1] > 0 else "refuted" if outside and more[1] > 0 else "not shown",
        },
    }


def tables(found: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """What is printed."""
    rows = []
    for name, curves in found["curves"].items():
        last = {
            key: intervals.mean(np.array([c[key][-max(len(c[key]) // 3, 1) :] for c in curves]).mean(axis=1))
            for key in ("kl", "reward")
        }
        rows.append([name, found["audit"][name], *(intervals.text(last[key]) for key in ("kl", "reward"))])
    rows.append(["forecast", "", *(intervals.text(found["forecast"][key]) for key in ("kl", "reward"))])
    count = len(next(iter(found["curves"].values())))
    title = f"the last third of the steps, beta = {found['beta']:g}, {count} seeds [95 % interval over seeds]"
    tested = [[name, intervals.text(x["value"]), x["verdict"]] for name, x in found["tests"].items()]
    return [
        (title, ["objective", "the audit: descends", "KL to the base, nats", "reward"], rows),
        ("predicted differences, paired by seed", ["prediction", "measured", "verdict"], tested),
    ]


def columns(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The figure's table."""
    rows = []
    for name, curves in found["curves"].items():
        for measure in ("kl", "reward"):
            values = np.array([c[measure] for c in curves])
            band = over_seeds(x=values)
            for step in range(values.shape[1]):
                rows.append({
                    "objective": name, "measure": measure, "step": step + 1, "value": band["x"][step],
                    "low": band["x low"][step], "high": band["x high"][step], "forecast": found["forecast"][measure][0],
                })  # fmt: skip
    return {name: [row[name] for row in rows] for name in rows[0]}


figures = Figures()


@figures.figure(
    "wild",
    title="A KL whose gradient is noise, beside its correction",
    caption="RLOO from the base: the KL in the reward (correction), k1 in the loss (defect: its expected gradient is"
    " 0), and no KL. Means over seeds of a step's completions, bands: 95 % intervals over seeds. Dotted: where r -"
    " beta KL is largest, forecast from the base's samples.",
    size=(9.0, 3.8),
)
def figure(run: Run) -> Mapping[str, Any]:
    raise NotImplementedError("computed by study.py")


@figure.draw
def _(table: Table, canvas: Any) -> None:
    for place, measure in zip(canvas.subplots(1, 2), ("kl", "reward")):
        for colour, name in zip(COLOURS, table.distinct("objective")):
            rows = table.rows(objective=name, measure=measure)
            place.plot(rows["step"], rows["value"], color=colour, label=name)
            place.fill_between(rows["step"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
        own = table.rows(measure=measure)
        place.axhline(own["forecast"][0], color="0.35", linestyle=":", lw=1)
        top = max(own["value"].max(), own["forecast"].max())
        place.set(xlabel="step", ylabel={"kl": "KL to the base, nats", "reward": "reward"}[measure])
        place.set_ylim(min(0.0, own["value"].min()), 1.4 * top)
    canvas.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=3)
