r"""Two teachers, one student: does what the teachers' log-ratios say about extrapolation come true?

RLOO improves a teacher on each of two tasks; students start at the base and learn from both on the union of the
prompts, by SFT on the teachers' samples, OPD (``lam = 1``) and ExOPD (``lam > 1``, reference: the base), over the whole
vocabulary at visited prefixes. ExOPD moves further than OPD, so OPD goes on for as many steps again, and is compared at
ExOPD's KL to the base (*equal movement*).

The optimum of G-OPD at every prefix is ``q^{1-lam} T^lam / z_s``. From samples of the teacher alone, with both laws
over the whole vocabulary at every prefix, its reward is known before any student is trained:

.. math:: E_{\pi_\lambda}[r] = E_T[w r], \quad w = \prod_t \frac{(T/q)^{\lambda-1}(y_t)}{z(s_t)}, \quad E_T[w] = 1

and the slope of the sequence optimum at ``lam = 1`` is ``Cov_T(r, log T/q)``. Predicted (`klsim` ``gopd`` C7 to C9):

* C7: moderate extrapolation helps: the slope and the predicted gain at each lam are positive, and so is the measured
  one, ExOPD minus OPD. Shown or refuted by the interval of the latter, where the former is clear;
* C8: sampled, averaged over the domains: OPD is below the teachers, ExOPD above them, SFT below;
* equal movement: what ExOPD has over OPD at the same KL to the base (no sign follows from C7: it is measured);
* C9: the teachers' own base is the better reference at equal lam if ``Cov_T(r, log b_T/b_S) < 0``. Teachers and
  students have one base here, for which it is 0; another reference is the SFT student, whose covariance is measured,
  and which is trained with where the form says so (`other_ref`).

Intervals are over seeds, each with teachers of its own; with one seed over new prompts, and then they speak of these
models alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from klsim.lm.objectives import named
from klsim.lm.tasks import Row
from klsim.objectives import rloo
from klsim.report.figures import COLOURS, Figures, Run, Table
from studies import intervals
from studies.laws import Read, read
from studies.runs import Lab, Training, split
from studies.sums import FewShot

TASKS = {"sum": FewShot(), "difference": FewShot("-", low=1, high=19)}
GRID = (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
OTHER = "exopd, other reference"


@dataclass(frozen=True)
class Form:
    """Sizes.

    Attributes:
        lams: of ExOPD. seeds: one set of teachers and students each. teacher, student: how they are trained; a step
            has prompts of both tasks. train, new: prompts of each task. sft_samples: of a teacher, a prompt.
        evaluation: samples of a student, a new prompt. predicted: samples of a teacher for the predictions.
        other_ref: train ExOPD with the SFT student as reference, too.
    """

    model: str = "smollm2-135m"
    lams: tuple[float, ...] = (1.25, 1.5)
    seeds: tuple[int, ...] = (0,)
    teacher: Training = field(default_factory=lambda: Training(10, prompts=6, group=8, learning_rate=1e-5))
    student: Training = field(default_factory=lambda: Training(6, prompts=12, group=1, learning_rate=2e-5))
    train: int = 48
    new: int = 8
    sft_samples: int = 2
    evaluation: int = 16
    predicted: int = 16
    other_ref: bool = False


FORMS = {
    "tiny": Form("tiny", (1.5,), (0, 1), Training(4, 2, 4, 3e-3, save_steps=2), Training(2, 4, 2, 3e-3), 6, 3, 2, 4, 6,
                 other_ref=True),
    "quick": Form(),
    "full": Form(seeds=(0, 1, 2), teacher=Training(16, 8, 8, 1e-5, save_steps=8), student=Training(12, 12, 2, 2e-5),
                 train=160, new=12, sft_samples=2, evaluation=12, predicted=16, other_ref=True),
    "gpu": Form(seeds=(0, 1), teacher=Training(12, 16, 8, 1e-5), student=Training(10, 64, 2, 2e-5), train=320, new=32,
                evaluation=16, predicted=32),
}  # fmt: skip


def compute(lab: Lab, form: Form) -> dict[str, Any]:
    """Every seed's teachers, predictions, students and evaluations; then the comparisons."""
    train, new = split(lab.tasks, form.train, form.new, 0)
    parts = [_seed(lab, form, seed, train, new) for seed in form.seeds]
    lams = [f"exopd-{lam:g}" for lam in form.lams]
    students = ["sft", "opd", "opd-long", *lams, *([OTHER] if form.other_ref else [])]
    return {
        "lams": list(form.lams),
        "students": students,
        "domains": list(lab.tasks),
        "over": "seeds" if len(parts) > 1 else "new prompts",
        "rewards": {name: over([p["reward"][name] for p in parts]) for name in ("base", "teachers", *students)},
        "kl": {name: over([p["kl"][name] for p in parts]) for name in ("teachers", *students)},
        "predicted": predictions([p["predicted"] for p in parts]),
        "tests": tests(parts, form.lams, form.other_ref),
    }


def over(values: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The mean of ``(seeds, prompts)`` with an interval over seeds, or over prompts if there is one seed."""
    array = np.array(values)
    return intervals.mean(array.mean(axis=1) if len(array) > 1 else array[0])


def _seed(lab: Lab, form: Form, seed: int, train: Sequence[Row], new: Sequence[Row]) -> dict[str, Any]:
    rows = {name: [row for row in train if row["domain"] == name] for name in lab.tasks}
    teachers = {name: f"{seed}-teacher-{name}" for name in lab.tasks}
    for name, key in teachers.items():
        lab.trained(key, rloo, rows[name], form.teacher, seed=100 * seed)
    found: dict[str, Any] = {"reward": {}, "kl": {}}
    _place(lab, form, found, "base", seed, new, of="base")
    parts = [
        _drawn(lab, form, key, seed, [row for row in new if row["domain"] == name], key)
        for name, key in teachers.items()
    ]
    _store(found, "teachers", {k: np.concatenate([p[k] for p in parts]) for k in parts[0]})
    shown = []
    for name, key in teachers.items():
        drawn = lab.drawn(f"{key}-shown", rows[name], form.sft_samples, seed=100 * seed + 1, of=key, ref=None)
        shown += [
            {"prompt": row["prompt"], "completion": str(text)}
            for row, texts in zip(rows[name], drawn["completion"])
            for text in texts
        ]
    sft = f"{seed}-sft"
    lab.supervised(sft, shown, form.student, seed=100 * seed)
    _place(lab, form, found, "sft", seed, new)
    found["predicted"] = lab.stages.stage(f"{seed}-predicted", partial(_predicted, lab, form, seed, new, teachers, sft))
    _distil(lab, form, seed, train, teachers, "opd", 1.0, "base")
    _place(lab, form, found, "opd", seed, new)
    _distil(lab, form, seed, train, teachers, "opd-long", 1.0, f"{seed}-opd")
    _place(lab, form, found, "opd-long", seed, new)
    lab.stages.forget(f"{seed}-opd", f"{seed}-opd-long")
    for lam in form.lams:
        _distil(lab, form, seed, train, teachers, f"exopd-{lam:g}", lam, "base", "base")
        _place(lab, form, found, f"exopd-{lam:g}", seed, new)
        lab.stages.forget(f"{seed}-exopd-{lam:g}")
    if form.other_ref:
        _distil(lab, form, seed, train, teachers, OTHER, form.lams[0], "base", sft)
        _place(lab, form, found, OTHER, seed, new)
    lab.stages.forget(*teachers.values(), sft, f"{seed}-{OTHER}")
    return found


def _distil(
    lab: Lab, form: Form, seed: int, train: Sequence[Row], teachers: Mapping[str, str], name: str, lam: float,
    start: str, ref: str | None = None,
) -> None:  # fmt: skip
    """G-OPD over the vocabulary from both teachers."""
    objective = named("g_opd_full", lam=lam, aggregate="sequence_sum")
    offset = 1 if name == "opd-long" else 0  # it goes on: other prompts than before
    lab.trained(
        f"{seed}-{name}",
        objective,
        train,
        form.student,
        seed=100 * seed + offset,
        start=start,
        ref=ref,
        teachers=teachers,
    )


def _drawn(lab: Lab, form: Form, key: str, seed: int, rows: Sequence[Row], of: str) -> dict[str, np.ndarray]:
    return lab.drawn(f"{key}-evaluated", rows, form.evaluation, seed=100 * seed + 2, of=of)


def _place(lab: Lab, form: Form, found: dict[str, Any], name: str, seed: int, new: Sequence[Row], of: str = "") -> None:
    _store(found, name, _drawn(lab, form, f"{seed}-{name}", seed, new, of or f"{seed}-{name}"))


def _store(found: dict[str, Any], name: str, drawn: Mapping[str, np.ndarray]) -> None:
    """Means of every new prompt, those of a domain one after the other."""
    order = np.arange(len(drawn["reward"]))
    if name != "teachers":  # rows of the domains in turn
        order = order.reshape(-1, len(TASKS)).T.ravel()
    found["reward"][name] = drawn["reward"].mean(axis=1)[order].tolist()
    found["kl"][name] = (drawn["policy_logp"] - drawn["ref_logp"]).mean(axis=1)[order].tolist()


def _predicted(
    lab: Lab, form: Form, seed: int, new: Sequence[Row], teachers: Mapping[str, str], sft: str
) -> dict[str, list[Any]]:
    """Of every new prompt, domain by domain: predicted rewards at `GRID`, the slope, and C9's covariance."""
    out: dict[str, list[Any]] = {"reward": [], "mass": [], "slope": [], "covariance": []}
    base, other = lab.load(), lab.load(sft)
    for name, key in teachers.items():
        teacher, task = lab.load(key), lab.tasks[name]
        for i, row in enumerate(r for r in new if r["domain"] == name):
            found = read(
                teacher, base, lab.tokenizer, row["prompt"], form.predicted, task.max_completion_tokens, 1000 * seed + i
            )
            texts = [lab.tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in found.tokens]
            reward = np.array([task.score(text, row) for text in texts])
            log_weights = weights(found, GRID)
            w = np.exp(log_weights)
            out["reward"].append((w @ reward / w.sum(axis=1)).tolist())
            out["mass"].append(w.mean(axis=1).tolist())
            gap = (_chosen(found.log_policy, found) - _chosen(found.log_other, found)).sum(1).cpu().numpy()
            out["slope"].append(_covariance(reward, gap))
            away = (_chosen(found.log_other, found).sum(1) - _under(other, lab, row["prompt"], found)).cpu().numpy()
            out["covariance"].append(_covariance(reward, away))
    return out


def weights(found: Read, lams: Sequence[float]) -> np.ndarray:
    """``log w`` of every completion, ``(lams, S)``: the prefix-wise optimum of G-OPD against the teacher that drew."""
    gap = found.log_policy - found.log_other
    own = _chosen(gap, found)
    out = []
    for lam in lams:
        log_z = torch.logsumexp(found.log_policy + (lam - 1) * gap, dim=-1)
        out.append(((lam - 1) * own - log_z).sum(dim=1))
    return torch.stack(out).cpu().numpy()


def _chosen(laws: torch.Tensor, found: Read) -> torch.Tensor:
    return laws.gather(-1, found.tokens[..., None])[..., 0]


def _under(model: Any, lab: Lab, prompt: str, found: Read) -> torch.Tensor:
    """Log-probabilities of whole completions under a third model."""
    ids = lab.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    whole = torch.cat([ids.to(model.device).expand(len(found.tokens), -1), found.tokens], dim=1)
    with torch.no_grad():
        logits = model(whole, use_cache=False, logits_to_keep=found.tokens.shape[1] + 1).logits[:, :-1]
    return _chosen(torch.log_softmax(logits.double(), -1), found).sum(1)


def _covariance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.cov(a, b)[0, 1])


def predictions(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means with intervals: rewards at `GRID` and gains over ``lam = 1``, weights' mean (1 in truth), slope, C9."""
    reward = np.array([p["reward"] for p in parts])
    gain = reward - reward[..., [GRID.index(1.0)]]
    return {
        "lam": list(GRID),
        "reward": [over(reward[..., i]) for i in range(len(GRID))],
        "gain": [over(gain[..., i]) for i in range(len(GRID))],
        "mass": [over(np.array([p["mass"] for p in parts])[..., i]) for i in range(len(GRID))],
        "slope": over([p["slope"] for p in parts]),
        "covariance": over([p["covariance"] for p in parts]),
    }


def tests(parts: Sequence[Mapping[str, Any]], lams: Sequence[float], other_ref: bool) -> list[dict[str, Any]]:
    """The claims: what is predicted, what was measured, and what that shows."""
    out: list[dict[str, Any]] = []

    def difference(one: str, other: str) -> tuple[float, float, float]:
        return over([np.array(p["reward"][one]) - np.array(p["reward"][other]) for p in parts])

    def add(claim: str, predicted: str, measured: tuple[float, float, float], sign: int) -> None:
        verdict = intervals.shown(measured, sign) if sign else "measured"
        out.append({"claim": claim, "predicted": predicted, "measured": measured, "verdict": verdict})

    said = predictions([p["predicted"] for p in parts])
    for lam in lams:
        gain = said["gain"][GRID.index(lam)]
        sign = 1 if gain[1] > 0 else -1 if gain[2] < 0 else 0
        add(f"C7: ExOPD {lam:g} minus OPD", intervals.text(gain), difference(f"exopd-{lam:g}", "opd"), sign)
    add("C8: OPD minus teachers", "< 0", difference("opd", "teachers"), -1)
    for lam in lams:
        add(f"C8: ExOPD {lam:g} minus teachers", "> 0", difference(f"exopd-{lam:g}", "teachers"), 1)
    add("C8: SFT minus teachers", "< 0", difference("sft", "teachers"), -1)
    for lam in lams:
        add(f"ExOPD {lam:g} minus OPD at equal KL to the base", "", equal_movement(parts, f"exopd-{lam:g}"), 0)
    cov = said["covariance"]
    sign = 1 if cov[2] < 0 else -1 if cov[1] > 0 else 0
    if other_ref:
        add(
            "C9: ExOPD, base minus SFT as reference",
            f"sign of -({intervals.text(cov)})",
            difference(f"exopd-{lams[0]:g}", OTHER),
            sign,
        )
    return out


def equal_movement(parts: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float, float]:
    """Reward minus OPD's at the same mean KL to the base: on the line through the base, OPD and OPD that went on.

    Beyond the end of that line its last value stands, which is in favour of ExOPD.
    """
    gaps = []
    for p in parts:
        reward, kl = (
            {key: np.array(p[what][key]) for key in ("base", "opd", "opd-long", name)} for what in ("reward", "kl")
        )
        places = [0.0, kl["opd"].mean(), kl["opd-long"].mean()]
        order = np.argsort(places)
        line = np.stack([reward[key] for key in ("base", "opd", "opd-long")])[order]
        at = np.interp(kl[name].mean(), np.sort(places), np.arange(3.0))
        low = min(int(at), 1)
        gaps.append(reward[name] - ((1 - (at - low)) * line[low] + (at - low) * line[low + 1]))
    return over(gaps)


def tables(found: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """What is printed."""
    said = found["predicted"]
    rows = [
        [f"{lam:g}", intervals.text(r), intervals.text(g), intervals.text(m, 2)]
        for lam, r, g, m in zip(said["lam"], said["reward"], said["gain"], said["mass"])
    ]
    slope, covariance = (intervals.text(said[key]) for key in ("slope", "covariance"))
    title = (
        f"predicted from the teachers' log-ratios [95 % intervals over {found['over']}]; slope at lam = 1: {slope};"
        f" Cov(r, log base/SFT): {covariance}"
    )
    out = [(title, ["lam", "reward of the optimum", "minus the teacher's", "mean weight (1 in truth)"], rows)]
    rows = [["base", intervals.text(found["rewards"]["base"]), "0"]]
    rows += [[name, intervals.text(found["rewards"][name]), intervals.text(kl)] for name, kl in found["kl"].items()]
    out.append((f"new prompts of {' and '.join(found['domains'])}", ["", "reward", "KL to the base, nats"], rows))
    rows = [[t["claim"], t["predicted"], intervals.text(t["measured"]), t["verdict"]] for t in found["tests"]]
    out.append(
        (f"claims, paired [95 % intervals over {found['over']}]", ["claim", "predicted", "measured", "verdict"], rows)
    )
    return out


def columns(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The figure's table."""
    rows = []
    said = found["predicted"]
    for lam, r in zip(said["lam"], said["reward"]):
        rows.append({"series": "predicted", "name": "", "x": lam, "value": r[0], "low": r[1], "high": r[2]})
    for name, r in found["rewards"].items():
        kl = found["kl"].get(name, [0.0])[0]
        rows.append({"series": "measured", "name": name, "x": kl, "value": r[0], "low": r[1], "high": r[2]})
    at = {"opd": 1.0} | {f"exopd-{lam:g}": lam for lam in found["lams"]}
    for name, lam in at.items():
        r = found["rewards"][name]
        rows.append({"series": "student", "name": name, "x": lam, "value": r[0], "low": r[1], "high": r[2]})
    return {name: [row[name] for row in rows] for name in rows[0]}


figures = Figures()


@figures.figure(
    "extrapolation",
    title="Students of two teachers, and what the teachers' log-ratios predict",
    caption="Left: reward of G-OPD's optimum at every prefix, predicted from the teachers' samples and both laws over"
    " the vocabulary; squares: trained students. Right: all models, reward on new prompts against KL to the base; the"
    " line is OPD's, through the base, OPD, and OPD for as many steps again. Bars: 95 % intervals.",
    size=(10.0, 4.2),
)
def figure(run: Run) -> Mapping[str, Any]:
    raise NotImplementedError("computed by study.py")


@figure.draw
def _(table: Table, canvas: Any) -> None:
    left, right = canvas.subplots(1, 2, sharey=True)
    said = table.rows(series="predicted")
    left.plot(said["x"], said["value"], color=COLOURS[0], label="predicted")
    left.fill_between(said["x"], said["low"], said["high"], color=COLOURS[0], alpha=0.15, lw=0)
    own = table.rows(series="student")
    error = [own["value"] - own["low"], own["high"] - own["value"]]
    left.errorbar(own["x"], own["value"], error, fmt="s", color=COLOURS[1], capsize=2, label="students")
    left.axvline(1, color="0.5", lw=0.8, linestyle=":")
    left.set(xlabel="lam", ylabel="mean reward on new prompts", title="predicted and trained")
    left.set_ylim(0, 1)
    left.legend()
    for i, name in enumerate(table.rows(series="measured").distinct("name")):
        one = table.rows(series="measured", name=name)
        error = [one["value"] - one["low"], one["high"] - one["value"]]
        right.errorbar(
            one["x"], one["value"], error, fmt="so^Dv<>ph"[i % 9], color=COLOURS[i % 8], capsize=2, label=name
        )
    line = [table.rows(series="measured", name=name) for name in ("base", "opd", "opd-long")]
    right.plot([float(x["x"][0]) for x in line], [float(x["value"][0]) for x in line], color="0.5", lw=0.8, zorder=0)
    right.set(xlabel="KL to the base, nats", title="reward and movement")
    right.legend(fontsize=7.5)
