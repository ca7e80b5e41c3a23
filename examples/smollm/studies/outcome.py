r"""The frontier of a language model's own samples: forecast, and what training makes of it.

Prompts on which the base succeeds now and then are chosen by samples of their own (`screen`), so that the samples that
make the frontier are not the ones that chose. From these alone, before anything is trained, `klsim frontier` says what
mean reward a policy can have at a mean KL, and where RL with ``r - beta KL`` ends. Then are trained: RLOO with the KL
in the reward at each beta, and a supervised student on best-of-N of the base (its distillation). All are placed on the
frontier of the prompts that they were trained on, and of new ones.

Predicted, and what would refute it:

* P1: nothing lies above the frontier: refuted by a missed reward whose interval is below 0;
* P2: RL at beta ends at the forecast: refuted by an interval of the difference in ``r - beta KL`` that excludes 0;
* P3: on new prompts no policy is nearer to its frontier than on those of training (its efficiency is not larger).

Why below? The KL of a policy with success s where the base has b splits exactly, a prompt at a time:

.. math:: KL(\pi\|q) = kl(s, b) + s\, KL(\pi_{right}\|q_{right}) + (1 - s)\, KL(\pi_{wrong}\|q_{wrong})

*inside*: KL spent on moving among right answers and among wrong ones, which earns nothing (a parametrisation that
several prompts share does it, and so does noise); *allocation*: ``mean kl(s, b)`` minus what the frontier needs for the
same mean reward: success bought at the wrong prompts; *unfinished*: how ``r - beta KL`` still grew between the last two
quarters of the steps. The frontier's own error is in its intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from klsim import frontier
from klsim.lm.tasks import Row
from klsim.objectives import kl_in_reward, rloo
from klsim.report.figures import COLOURS, Figures, Run, Table
from studies import intervals
from studies.runs import Lab, Training, split
from studies.sums import FewShot

TASKS = {"sum": FewShot()}
PARTS = {"train": "prompts of training", "new": "new prompts"}
COUNTS = (1, 2, 4, 8)
UNTRUSTED = "not shown: not to be trusted"
"""Where the frontier's own rules say that these samples do not carry an estimate; its reason stands beside it."""


@dataclass(frozen=True)
class Form:
    """Sizes.

    Attributes:
        candidates, screen: prompts, and samples of each that choose among them. success: the range that is kept.
        train, new: prompts of the two parts. samples: of the base, a prompt. betas: of RL. training: RL's.
        best_of, distil: N of the distilled best-of-N, and how it is trained. evaluation: samples of a trained policy.
    """

    model: str = "smollm2-135m"
    candidates: int = 80
    screen: int = 8
    success: tuple[float, float] = (0.05, 0.6)
    train: int = 16
    new: int = 8
    samples: int = 32
    betas: tuple[float, ...] = (1.0, 0.4, 0.15)
    training: Training = field(default_factory=lambda: Training(8, prompts=8, group=4, learning_rate=2e-5))
    best_of: int = 4
    distil: Training = field(default_factory=lambda: Training(8, prompts=8, group=4, learning_rate=1e-5))
    evaluation: int = 12
    seed: int = 0


FORMS = {
    "tiny": Form("tiny", 8, 4, (0.0, 1.0), 4, 4, 8, (1.0, 0.3), Training(4, 4, 4, 3e-3, save_steps=2), 2,
                 Training(2, 2, 2, 3e-3), 4),
    "quick": Form(),
    "full": Form(candidates=240, screen=16, train=40, new=24, samples=64,
                 training=Training(30, 6, 8, 1e-5, save_steps=10), distil=Training(30, 8, 4, 1e-5), evaluation=16),
    "gpu": Form(candidates=400, screen=16, train=64, new=32, samples=64, training=Training(40, 16, 8, 1e-5),
                distil=Training(30, 16, 8, 1e-5), evaluation=32),
}  # fmt: skip


def regularised(batch: Any, beta: float) -> Any:
    """RLOO of ``r - beta sum_t log(pi/q)``."""
    return rloo(kl_in_reward(batch, beta=beta))


def chosen(lab: Lab, form: Form) -> dict[str, list[Row]]:
    """The prompts of both parts.

    Raises:
        ValueError: too few candidates are in the range.
    """
    rows, _ = split(lab.tasks, form.candidates, 0, form.seed)
    success = lab.drawn("screen", rows, form.screen, seed=form.seed)["reward"].mean(axis=1)
    low, high = form.success
    kept = [row for row, p in zip(rows, success) if low <= p <= high]
    if len(kept) < form.train + form.new:
        raise ValueError(f"candidates: {len(kept)} of {form.candidates} succeed in {low} … {high}, "
                         f"{form.train + form.new} are needed")  # fmt: skip
    return {"train": kept[: form.train], "new": kept[form.train : form.train + form.new]}


def compute(lab: Lab, form: Form) -> dict[str, Any]:
    """Screening, the base's samples, the forecast, the trained policies, their places."""
    rows = chosen(lab, form)
    base = {
        part: lab.drawn(f"base-{part}", rows[part], form.samples, seed=form.seed + 1 + i)
        for i, part in enumerate(PARTS)
    }
    logs: dict[str, list[dict[str, float]]] = {}
    for beta in form.betas:
        name = f"rl-{beta:g}"
        logs[name] = lab.trained(
            name, partial(regularised, beta=beta), rows["train"], form.training, seed=form.seed, ref="base"
        )
        _evaluated(lab, form, name, rows)
    lab.supervised("distilled", best_of(rows["train"], base["train"], form.best_of), form.distil, seed=form.seed)
    _evaluated(lab, form, "distilled", rows)
    out: dict[str, Any] = {"parts": {}, "unfinished": {}}
    for part in PARTS:
        policies = {name: lab.drawn(f"{name}-{part}", [], 0, seed=0) for name in (*logs, "distilled")}
        out["parts"][part] = placed(base[part], policies, form.betas)
    for beta in form.betas:
        log = logs[f"rl-{beta:g}"]
        gain = [x["reward"] - beta * x["kl_to_ref"] for x in log]
        out["unfinished"][f"rl-{beta:g}"] = growth(gain)
    out["best_of"] = form.best_of
    return out


def _evaluated(lab: Lab, form: Form, name: str, rows: Mapping[str, Sequence[Row]]) -> None:
    for i, part in enumerate(PARTS):
        lab.drawn(f"{name}-{part}", rows[part], form.evaluation, seed=form.seed + 11 + i, of=name)
    lab.stages.forget(name)


def best_of(rows: Sequence[Row], drawn: Mapping[str, np.ndarray], n: int) -> list[Row]:
    """The best of every ``n`` samples of a prompt (the first of equals), for supervised training."""
    out = []
    for row, rewards, texts in zip(rows, drawn["reward"], drawn["completion"]):
        for start in range(0, len(rewards) - n + 1, n):
            out.append(
                {"prompt": row["prompt"], "completion": str(texts[start + int(np.argmax(rewards[start : start + n]))])}
            )
    return out


def growth(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of the last quarter of the steps minus that of the one before, and its interval (Welch's t)."""
    from scipy.stats import ttest_ind

    size = max(len(values) // 4, 1)
    last, before = np.array(values[-size:]), np.array(values[-2 * size : -size])
    gap = float(last.mean() - before.mean())
    if size < 2:
        return gap, -np.inf, np.inf
    found = ttest_ind(last, before, equal_var=False).confidence_interval(intervals.LEVEL)
    return gap, float(found.low), float(found.high)


def bernoulli_kl(right: np.ndarray, of: int, base: np.ndarray, base_of: int) -> np.ndarray:
    """``kl(s, b)`` of the success rates behind ``right`` of ``of`` samples and ``base`` of ``base_of``, a prompt each.

    Rates are ``(k + 1/2)/(n + 1)``, and what leaving out a sample of either kind says of the bias is taken off.
    """

    def value(k: np.ndarray, n: int, j: np.ndarray, m: int) -> np.ndarray:
        s, b = (k + 0.5) / (n + 1), (j + 0.5) / (m + 1)
        return s * np.log(s / b) + (1 - s) * np.log((1 - s) / (1 - b))

    plain = value(right, of, base, base_of)
    out = plain.copy()
    for k, n, without in (
        (right, of, lambda c: value(c, of - 1, base, base_of)),
        (base, base_of, lambda c: value(right, of, c, base_of - 1)),
    ):
        left = np.where(k > 0, k / n * without(np.maximum(k - 1, 0)), 0) + np.where(
            k < n, (n - k) / n * without(np.minimum(k, n - 1)), 0
        )
        out -= (n - 1) * (left - plain)
    return out


def placed(
    base: Mapping[str, np.ndarray], policies: Mapping[str, Mapping[str, np.ndarray]], betas: Sequence[float]
) -> dict[str, Any]:
    """Policies on the frontier of one part, and the forecast."""
    samples = [_samples(name, found) for name, found in policies.items()]
    prompts = _prompts(base["reward"])
    found = frontier.estimate(prompts, base["reward"].ravel(), path=samples)
    ends = frontier.forecast(prompts, base["reward"].ravel(), betas, policies=found.path)
    b, of = base["reward"].sum(axis=1), base["reward"].shape[1]
    rows = {}
    for point in found.path:
        own = policies[point.label]
        spent = (own["policy_logp"] - own["ref_logp"]).mean(axis=1)
        bought = bernoulli_kl(own["reward"].sum(axis=1), own["reward"].shape[1], b, of)
        rows[point.label] = {
            "reward": _numbers(point.reward), "kl": _numbers(point.k1), "needed": _numbers(point.needed_kl),
            "efficiency": _numbers(point.efficiency), "missed": _numbers(point.missed_reward), "reason": point.reason,
            "inside": intervals.mean(spent - bought), "allocation": float(bought.mean() - point.needed_kl.value),
        }  # fmt: skip
    outcomes = {f"rl-{o.beta:g}": o for o in ends.outcomes if o.label == f"rl-{o.beta:g}"}
    return {
        "reference": _numbers(found.reference),
        "curve": [list(map(float, row[:4])) for row in found.curve if row[4]],
        "best of N": [
            [b.n, *_numbers(b.reward), *_numbers(b.kl)] for b in found.best_of_n if b.n in COUNTS and b.trusted
        ],
        "forecast": {
            f"rl-{p.beta:g}": {
                "kl": _numbers(p.kl), "reward": _numbers(p.reward), "reason": p.kl.reason or p.reward.reason
            }
            for p in ends.points
        },
        "gap": {name: objective_gap(o) for name, o in outcomes.items()},
        "policies": rows,
        "notes": list(found.notes),
    }  # fmt: skip


def objective_gap(outcome: Any) -> tuple[float, float, float]:
    """``r - beta KL`` of a policy minus the forecast's; the two errors are added in squares, as if independent."""
    r, k, beta = outcome.reward, outcome.kl, outcome.beta
    value = r.value - beta * k.value
    low = np.hypot(r.value - r.low, beta * (k.high - k.value))
    high = np.hypot(r.high - r.value, beta * (k.value - k.low))
    return float(value), float(value - low), float(value + high)


def _prompts(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(values)), values.shape[1])


def _samples(name: str, found: Mapping[str, np.ndarray]) -> frontier.PolicySamples:
    return frontier.PolicySamples(
        _prompts(found["reward"]), found["reward"].ravel(), policy_logp=found["policy_logp"].ravel(),
        ref_logp=found["ref_logp"].ravel(), label=name,
    )  # fmt: skip


def _numbers(e: Any) -> list[float]:
    return [float(e.value), float(e.low), float(e.high)]


def doubted(interval: tuple[float, float, float], reason: str, digits: int = 3) -> str:
    """An interval, and why it is not to be trusted."""
    return intervals.text(interval, digits) + (f" ({reason})" if reason else "")


def tables(found: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """What is printed."""
    out = []
    for part, title in PARTS.items():
        one = found["parts"][part]
        rows = [["base", "0", intervals.text(one["reference"]), "", "", "", "", ""]]
        for n, *x in one["best of N"]:
            rows.append([f"best of {n:.0f}", intervals.text(x[3:]), intervals.text(x[:3]), "", "", "", "", ""])
        for name, p in one["policies"].items():
            above = UNTRUSTED if p["reason"] else "REFUTED" if p["missed"][2] < 0 else "not refuted"
            rows.append([
                name, intervals.text(p["kl"]), intervals.text(p["reward"]), doubted(p["efficiency"], p["reason"], 2),
                intervals.text(p["missed"]), intervals.text(p["inside"]), f"{p['allocation']:.3f}", above,
            ])  # fmt: skip
        header = [
            "",
            "KL, nats",
            "reward",
            "efficiency",
            "missed reward",
            "KL inside",
            "KL by allocation",
            "P1: not above",
        ]
        out.append((title, header, rows))
    rows = []
    for name, gap in found["parts"]["train"]["gap"].items():
        ends = found["parts"]["train"]["forecast"][name]
        verdict = "not refuted" if gap[1] <= 0 <= gap[2] else "REFUTED: below" if gap[2] < 0 else "REFUTED: above"
        verdict = UNTRUSTED if ends["reason"] else verdict
        rows.append([
            name, intervals.text(ends["kl"]), doubted(ends["reward"], ends["reason"]),
            intervals.text(gap), intervals.text(found["unfinished"][name]), verdict,
        ])  # fmt: skip
    header = [
        "",
        "forecast KL",
        "forecast reward",
        "r - beta KL, minus forecast",
        "its growth in the last quarter",
        "P2: at the forecast",
    ]
    out.append(("forecast from the base's samples, prompts of training", header, rows))
    rows = []
    for name in found["parts"]["train"]["policies"]:
        policies = [found["parts"][part]["policies"][name] for part in PARTS]
        train, new = (p["efficiency"] for p in policies)
        verdict = "refuted" if new[1] > train[2] else "shown" if new[2] < train[1] else "not shown"
        verdict = UNTRUSTED if any(p["reason"] for p in policies) else verdict
        rows.append([name, intervals.text(train, 2), intervals.text(new, 2), verdict])
    out.append(("efficiency: KL needed / KL spent", ["", "training", "new", "P3: less on new prompts"], rows))
    return out


def columns(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The figure's table."""
    rows = []
    for part, one in found["parts"].items():

        def add(series: str, name: str, kl: Sequence[float], reward: Sequence[float], part: str = part) -> None:
            rows.append({
                "part": part, "series": series, "name": name, "kl": kl[0], "kl low": kl[1], "kl high": kl[2],
                "reward": reward[0], "low": reward[1], "high": reward[2],
            })  # fmt: skip

        add("frontier", "", [0.0] * 3, one["reference"])
        for budget, *reward in one["curve"]:
            add("frontier", "", [budget] * 3, reward)
        for n, *x in one["best of N"]:
            add("best of N", f"{n:.0f}", x[3:], x[:3])
        for name, x in one["forecast"].items():
            if not x["reason"]:
                add("forecast", name, x["kl"], x["reward"])
        for name, p in one["policies"].items():
            add("trained", name, p["kl"], p["reward"])
    return {name: [row[name] for row in rows] for name in rows[0]}


figures = Figures()


@figures.figure(
    "outcome",
    title="Forecast of the frontier from the base's samples, and trained policies",
    caption="Line and band: best mean reward at a mean KL, from samples of the base; dots: best of N; open circles:"
    " where RL with r - beta KL is forecast to end; squares: RLOO with the KL in the reward, and best-of-N distilled."
    " Bars: 95 % intervals over prompts.",
    size=(10.0, 4.6),
)
def figure(run: Run) -> Mapping[str, Any]:
    raise NotImplementedError("computed by study.py")


@figure.draw
def _(table: Table, canvas: Any) -> None:
    places = canvas.subplots(1, 2, sharey=True)
    for place, part in zip(places, PARTS):
        rows = table.rows(part=part)
        curve, best, ends, trained = (rows.rows(series=s) for s in ("frontier", "best of N", "forecast", "trained"))
        place.plot(curve["kl"], curve["reward"], color="black", label="frontier of the base")
        place.fill_between(curve["kl"], curve["low"], curve["high"], color="0.5", alpha=0.2, lw=0)
        if len(best):
            place.plot(best["kl"], best["reward"], "o-", ms=4, lw=0.8, color=COLOURS[5], label="best of N")
        for colour, name in zip(COLOURS, trained.distinct("name")):
            for series, marker, fill in ((ends, "o", "none"), (trained, "s", None)):
                one = series.rows(name=name)
                if len(one):
                    x = [one["kl"] - one["kl low"], one["kl high"] - one["kl"]]
                    y = [one["reward"] - one["low"], one["high"] - one["reward"]]
                    kind = {"color": colour, "mfc": fill or colour, "capsize": 2, "lw": 1}
                    label = name + (" (forecast)" if series is ends else "")
                    place.errorbar(one["kl"], one["reward"], y, x, fmt=marker, ms=6, label=label, **kind)
        place.set(title=PARTS[part], xlabel="mean KL to the base, nats", xlim=(-0.05, None), ylim=(0, 1.02))
    places[0].set_ylabel("mean reward")
    canvas.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
