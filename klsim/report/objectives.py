"""The objectives measured: the table of claims, the end points, the learning curves on one page."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.files import write_atomically
from klsim.learning import PromptTree, TreeProblem, functional_value
from klsim.learning.objective_checks import (
    EndPoint,
    GradientCheck,
    check_gradient,
    descend,
    end_point,
    with_default_mean,
    with_open_clip,
)
from klsim.objectives.advantages import advantages, batch_mean, batch_std, group_mean, group_std, prompt_weights
from klsim.objectives.registry import OBJECTIVES, Objective, address
from klsim.objectives.selection import choose
from klsim.parallel import execute
from klsim.problems import TokenTree
from klsim.report.figures import COLOURS, Figures, Run, Table, write_figure

__all__ = ["Row", "as_json", "draw_curves", "markdown", "measure", "update_docs"]

STEPS = 200
DEEP_SEEDS = 5
CURVE_STEPS, CURVE_GROUP, CURVE_LR = 120, 3, 0.3
MARKS = (*range(24), *range(24, CURVE_STEPS, 4))
PASS = 8


@dataclass(frozen=True)
class Row:
    """One objective: what was measured.

    Attributes:
        on_policy, deep: the gradient, and at horizon 3 (`Objective.deep`). off_policy, open_clip: with responses of
            another policy, and without its clip; None where the reference writes them, or there is no clip.
        end: where training ends. mean: with its function's own mean over tokens, where the claim is about sums.
    """

    objective: Objective
    on_policy: GradientCheck
    off_policy: GradientCheck | None
    end: EndPoint | None
    deep: GradientCheck | None = None
    open_clip: GradientCheck | None = None
    mean: GradientCheck | None = None

    @property
    def as_claimed(self) -> bool:
        """All gradient claims hold."""
        return all(c.holds for c in (self.on_policy, self.off_policy, self.deep) if c is not None)


@dataclass(frozen=True)
class _Measure:
    """Picklable work for `execute`: objectives travel by name, they hold closures."""

    name: str
    seeds: tuple[int, ...]
    end: bool

    def run(self) -> tuple[Any, ...]:
        from threadpoolctl import threadpool_limits

        objective = OBJECTIVES[self.name]
        opened, mean = with_open_clip(objective), with_default_mean(objective)
        with threadpool_limits(1):
            on_policy = check_gradient(objective, seeds=self.seeds)
            other = objective.draws == "policy"
            off_policy = check_gradient(objective, seeds=self.seeds, off_policy=True) if other else None
            end = end_point(objective, steps=STEPS) if self.end and objective.optimum else None
            deep = check_gradient(objective, seeds=self.seeds[:DEEP_SEEDS], deep=True)
            free = opened is not None and other and objective.off_policy is None
            unclipped = check_gradient(opened, seeds=self.seeds, off_policy=True) if free and opened else None
            meant = check_gradient(mean, seeds=self.seeds) if mean is not None else None
        return on_policy, off_policy, end, deep, unclipped, meant


def measure(
    names: Sequence[str] = (),
    *,
    seeds: int = 20,
    end_points: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    on_done: Callable[[str], None] = lambda name: None,
) -> list[Row]:
    """Check the claims of the objectives on ``seeds`` random problems each; optionally where training ends."""
    chosen = choose(names)
    count = _validate.integer("seeds", seeds, low=1)
    tasks = [_Measure(name, tuple(range(count)), end_points) for name in chosen]
    rows: list[Any] = [None] * len(tasks)
    for index, found in execute(tasks, jobs=jobs, scheduler=scheduler):
        rows[index] = Row(OBJECTIVES[chosen[index]], *found)
        on_done(chosen[index])
    return rows


def combination(coefficients: dict[str, float]) -> str:
    """``-1 reward + 0.3 reverse_kl(frozen)``."""
    shown = [f"{c:+.3g} {name}" for name, c in coefficients.items()]
    return " ".join(shown).removeprefix("+") or "0"


def gradient_cell(check: GradientCheck | None) -> str:
    """What the gradient is, measured: the claim with its error, or the nearest combination with its residual."""
    if check is None:
        return "n/a"
    if check.claimed is not None:
        verdict = "" if check.holds else " **NOT AS CLAIMED**"
        return f"{combination(check.claimed)}{verdict} (error {check.error:.0e})"
    found = check.found
    assert found is not None
    text = combination(dict(found.coefficients))
    if found.exact:
        return f"{text} (found, {found.residual:.0e} left)"
    percent = 100 * found.residual
    left = f"{percent:.0f}%" if percent >= 1 else f"{percent:.1g}%"
    return f"no named functional; nearest {text}, {left} unexplained"


def end_cell(end: EndPoint | None) -> str:
    """Where training ends."""
    if end is None:
        return ""
    unit = "reward" if end.optimum == "best response" else "nats"
    return f"{end.optimum} ({max(end.distance, 0.0):.0e} {unit})"


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON values; NaN becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [
        {
            "name": row.objective.name,
            "family": row.objective.family,
            "source": row.objective.source,
            "where": row.objective.where,
            "bias": row.objective.bias,
            "as_claimed": row.as_claimed,
            "on_policy": plain(asdict(row.on_policy)),
            "off_policy": plain(asdict(row.off_policy)) if row.off_policy else None,
            "end": plain(asdict(row.end)) if row.end else None,
            **{k: plain(asdict(c)) if (c := getattr(row, k)) else None for k in ("deep", "open_clip", "mean")},
        }
        for row in rows
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The table of the documentation."""
    lines = [
        "| objective | loss gradient, on-policy (measured) | conditions "
        "| horizon 3, groups of 4 (pairs, k = V: 2; k = G: 3) | off-policy "
        "| off-policy, clip open | bias | exact updates end at |",
        "|---|---|---|---|---|---|---|---|",
    ]
    family = ""
    for row in rows:
        if row.objective.family != family:
            family = row.objective.family
            lines.append(f"| **{family}** | | | | | | | |")
        cells = (
            f"{row.objective.name} ({row.objective.source}){options_text(row.objective)}",
            gradient_cell(row.on_policy),
            row.on_policy.conditions,
            gradient_cell(row.deep),
            gradient_cell(row.off_policy),
            gradient_cell(row.open_clip) if row.open_clip else "no clip" if row.off_policy else "n/a",
            row.objective.bias or "none",
            end_cell(row.end),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if row.mean is not None:
            note = "with the function's own aggregation, which is its default"
            short = (row.mean.name, gradient_cell(row.mean), row.mean.conditions, "", "", "", note, "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in short) + " |")
    return "\n".join(lines) + "\n"


def options_text(objective: Objective) -> str:
    """The name that `klsim audit` and `klsim train` take; arguments that differ from the defaults, and the others."""
    loss = objective.loss
    inner = loss.func if isinstance(loss, partial) else loss
    given = loss.keywords if isinstance(loss, partial) else {}
    shown = []
    for name, parameter in list(inspect.signature(inner).parameters.items())[1:]:
        if parameter.default is parameter.empty and name not in given:
            continue
        value = given.get(name, parameter.default)
        text = getattr(value, "__name__", None) or (f"{value:g}" if isinstance(value, float) else str(value))
        shown.append(f"{name}={text}" if name in given else f"{name}: {text}")
    written = address(*objective.options)
    return (f", `{written}`" if written else "") + (f"; {', '.join(shown)}" if shown else "")


def update_docs(path: Path, rows: Sequence[Row], seeds: int) -> None:
    """Write the documentation page: what is measured, how, and the table."""
    error = max((r.on_policy.error for r in rows if r.on_policy.claimed), default=math.nan)
    text = f"""# What the objectives are the gradient of

Written by `klsim dev objectives`; do not edit. Every row was measured on {seeds} random token trees: the
expected gradient of the loss, over all batches with their exact probabilities, against the gradient of a functional of
the policy (sums over all sequences). Largest error among the claims: {error:.0e}. Signs are those of a loss:
`-1 reward` ascends `E[r]`.

- `reward`: `E[r]`; `reward@q`: of prompt q; `reward_per_token`: `E[(r - p)/|y|]` with `p = E[r]` held fixed;
  `win_rate`: against a frozen copy; `inverse_length`: `E[1/|y|]`.
- `reverse_kl`: `KL(pi‖ref)` of sequences; `forward_kl`: `KL(ref‖pi)`; `teacher`, `old` in parentheses: to the teacher,
  to whoever drew the responses. `mode`: to the most probable token alone.
- `frozen`: the same summed over prefixes, with the visits of whoever drew the responses held fixed; `ref visits`: of
  the reference. So `forward_kl(frozen)` is the forward KL of every token on the policy's own prefixes, which is not the
  forward KL of sequences. `sampled`: the token's own estimate, of the responses that were drawn.
- `sequence_mean(F)`: every response's sum is divided by its length. `k2(frozen)`: `E_pi[log^2(pi/ref)]/2`,
  differentiated through; `k2_ref`: the same under the reference.
- A name in code is what `klsim audit klsim:NAME` and an objective of `klsim train` take (`klsim objectives --list`);
  rows without one are put together from several functions.
- Options: `name=value` differs from the function's default, `name: value` is the default. A row whose claim is about
  summed tokens is followed by one with the function's own mean over tokens.
- Where no combination is claimed, the smallest one of at most three functionals is searched; "found" ones are the
  gradient on all trees, of the others the share that is left unexplained is shown. Of collinear functionals (with
  equal lengths `reward_per_token` is `reward/T`) the first is named.
- Logits are N(0, 1), also of the policy that draws the responses off-policy: four tokens of five then have a ratio
  outside [0.8, 1.2], so that this column is mostly the clip; the next one is without it.
- Coefficients that depend on the problem (group size, success) are those of the first tree. `n/a`: the reference
  writes the responses.
- `fixed_length` divides by the maximal length of a response; where batches are cut to their longest response instead,
  the loss depends on it (`klsim audit` says "depends on the width to which a batch is padded").
- Last column: exact natural updates at every prefix, at most {STEPS} steps, until no logit moves; distance to the
  closed form over sequences.
  `token tilt`: the KL's credit stops at its own token; `token mixture`, `sequence mixture`: `ref^(1-lam) T^lam`,
  normalised at every prefix or over sequences.

{markdown(rows)}
Weights of a prompt that succeeds one time in ten beside one that succeeds every second time, binary rewards: how nearly
a batch's standard deviation leaves them alike.

{weights_table()}"""
    write_atomically(path, text)


def weights_table() -> str:
    """``w(.1)/w(.5)`` of the estimators that normalise over a batch, in groups of 4 and 8."""
    estimators: dict[str, Callable[[Any, Any], Any]] = {
        "reinforce_pp": partial(advantages, baseline=batch_mean, scale=batch_std),
        "reinforce_pp, group baseline": lambda r, g: advantages(
            advantages(r, g, baseline=group_mean), g, baseline=batch_mean, scale=batch_std
        ),
        "lite_ppo": partial(advantages, baseline=group_mean, scale=batch_std),
        "grpo": partial(advantages, baseline=group_mean, scale=group_std),
    }
    lines = ["| estimator | groups of 4 | groups of 8 |", "|---|---|---|"]
    for name, estimator in estimators.items():
        ratios = [np.divide(*prompt_weights(estimator, (0.1, 0.5), size)) for size in (4, 8)]
        lines.append(f"| {name} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    return "\n".join(lines) + "\n"


figures = Figures()
CURVES = {
    "policy gradient": ("reinforce", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "reinforce_pp", "lite_ppo"),
    "KL regularised": ("rloo + k1 in the reward", "rloo + k2 in the loss", "rloo + k3 in the loss", "salsa", "apo"),
    "distillation": (
        "opd, summed", "g_opd, summed", "g_opd, discount 1", "gkd, mix 0", "gkd, mix 0.5", "kdrl", "trrd",
        "hard cross-entropy",
    ),
    "data and stabilisers": ("rl_plus", "difficulty filtering", "self", "rover, summed", "lp_reg", "sngs"),
}  # fmt: skip


def curve_problem(seed: int = 0) -> TreeProblem:
    """One prompt, vocabulary 3 with EOS, up to 2 tokens, 3 of 7 responses right; the policy starts at the reference.

    The reference prefers to stop early, so that success is rare.
    The teacher is the reference tilted by the reward at temperature 1; external responses come from it.
    """
    rng = np.random.default_rng([17, seed])
    levels = tuple(log_normalize(rng.standard_normal((3**t, 3)) - [0.0, 1.5, 1.5]) for t in range(2))
    reward = np.zeros(9)
    reward[[5, 7, 8]] = 1.0
    tree = TokenTree(3, 2, reward, eos=0)
    from klsim.planning import solve

    teacher = solve(tree, levels, 1.0).log_policy
    return TreeProblem([PromptTree(tree, levels, levels, teacher, None, teacher)])


@dataclass(frozen=True)
class _Curve:
    """Exact expected updates of one objective from the common start."""

    name: str

    def run(self) -> dict[str, list[float]]:
        from threadpoolctl import threadpool_limits

        objective, problem = OBJECTIVES[self.name], curve_problem()
        with threadpool_limits(1):
            tables = descend(
                objective.loss,
                problem,
                steps=CURVE_STEPS,
                lr=CURVE_LR,
                group_size=CURVE_GROUP,
                external=objective.external,
                record=MARKS,
            )
            policies = [problem.with_policy(table) for table in tables]
            success = [float(p.success()[0]) for p in policies]
            return {
                "reward": success,
                "kl": [max(functional_value("reverse_kl", p), 0.0) for p in policies],
                "entropy": [functional_value("entropy", p) for p in policies],
                "pass": [-math.expm1(PASS * math.log1p(-min(p, 1 - 1e-16))) for p in success],
            }


def _curves(run: Run) -> dict[str, list[Any]]:
    return learning_curves()


def learning_curves(
    *, jobs: int = 1, scheduler: str | None = None, on_done: Callable[[str], None] = lambda name: None
) -> dict[str, list[Any]]:
    """Columns of the figure: every objective of `CURVES` from the same start, and the exact frontier."""
    names = [(family, name) for family, members in CURVES.items() for name in members]
    columns: dict[str, list[Any]] = {
        key: [] for key in ("family", "objective", "step", "reward", "kl", "entropy", "pass")
    }
    found: list[Any] = [None] * len(names)
    for index, curve in execute([_Curve(name) for _, name in names], jobs=jobs, scheduler=scheduler):
        found[index] = curve
        on_done(names[index][1])
    steps = [*MARKS, CURVE_STEPS]
    for (family, name), curve in zip(names, found):
        columns["family"] += [family] * len(steps)
        columns["objective"] += [name] * len(steps)
        columns["step"] += steps
        for key in ("reward", "kl", "entropy", "pass"):
            columns[key] += curve[key]
    start = curve_problem().success()[0]
    for i, p in enumerate(np.linspace(start, 1.0, 60)):
        # binary reward: the optimum of every KL budget moves mass between right and wrong only
        divergence = p * math.log(p / start) + ((1 - p) * math.log((1 - p) / (1 - start)) if p < 1 else 0.0)
        row = ("frontier", "exact frontier", i, float(p), divergence, 0.0, 0.0)
        for key, value in zip(columns, row):
            columns[key].append(value)
    return columns


learning = figures.figure(
    "learning-curves",
    title="The objectives from one start: exact expected updates on a token tree",
    caption="One prompt, vocabulary 3 with EOS, up to 2 tokens, 3 of 7 responses right; groups of"
    f" {CURVE_GROUP}, natural updates at every prefix, step {CURVE_LR}, {CURVE_STEPS} steps. Left: reward against KL"
    f" to the reference, with the exact frontier (no policy lies to its upper left); middle: pass@{PASS}; right:"
    " entropy of responses. Lines that coincide lie inside each other. Teacher: the reference tilted by the reward at"
    " temperature 1.",
    size=(12.0, 12.5),
)(_curves)


@learning.draw
def _(table: Table, figure: Any) -> None:
    rows = figure.subplots(len(CURVES), 3, squeeze=False)
    frontier = table.rows(family="frontier")
    for axes, family in zip(rows, CURVES):
        members = table.rows(family=family)
        axes[0].plot(frontier["kl"], frontier["reward"], color="0.6", linewidth=7.5, alpha=0.5, label="exact frontier")
        names = members.distinct("objective")
        widths = 1.2 + 0.55 * np.arange(len(names))[::-1]  # of lines that coincide every one is seen, inside the others
        for width, colour, name in zip(widths, COLOURS, names):
            line = members.rows(objective=name)
            axes[0].plot(line["kl"], line["reward"], color=colour, linewidth=width, label=name)
            axes[0].plot(line["kl"][-1:], line["reward"][-1:], "o", color=colour)
            axes[1].plot(line["step"], line["pass"], color=colour, linewidth=width)
            axes[2].plot(line["step"], line["entropy"], color=colour, linewidth=width, label=name)
        axes[0].set(xlabel="KL to the reference [nats]", ylabel="success probability", title=family)
        axes[1].set(xlabel="update", ylabel=f"pass@{PASS}")
        axes[2].set(xlabel="update", ylabel="entropy of responses [nats]")
        axes[2].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        axes[0].legend(handles=axes[0].get_lines()[:1], loc="lower right")


def draw_curves(
    out: Path, *, jobs: int = 1, scheduler: str | None = None, on_done: Callable[[str], None] = lambda name: None
) -> tuple[str, ...]:
    """Compute and draw the learning curves below ``out/objectives/``."""
    table = Table(learning_curves(jobs=jobs, scheduler=scheduler, on_done=on_done))
    return write_figure(learning, table, out, Path("objectives"), Run())
