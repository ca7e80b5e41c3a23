"""Best-of-N, RL and distillation on one frontier, exactly.

``python examples/bridge/frontier.py [FOLDER] [--short] [--runs FOLDER]`` trains the stages of ``frontier.toml``,
enumerates the laws of all models over all answers to every prompt (`klsim.lm.table.tabulate`), prints the table and
writes ``FOLDER/bridge/frontier.{svg,png,csv,json}`` (default ``figures``). Nothing is sampled when models are measured:
mean KL to the base and mean reward are sums over all answers, as are the frontier of the base and its best of N.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as Grid
from scipy.optimize import brentq

from klsim import best_of_n
from klsim.divergences import kl
from klsim.lm import config as configs
from klsim.lm import models, train
from klsim.lm.log_probs import token_log_probs
from klsim.lm.table import tabulate
from klsim.optima import kl_regularized
from klsim.problems.token_tree import sequence_log_probs, token_mask, tokens
from klsim.report import terminal
from klsim.report.figures import COLOURS, Figures, Run, Table, write_figure

CONFIG = Path(__file__).with_suffix(".toml")
LETTERS = "01"
BETAS = np.geomspace(0.01, 30.0, 80)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
PARTS = {"train": "problems of RL and distillation", "test": "new problems"}


def laws(model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], horizon: int) -> tuple[np.ndarray, float]:
    """Log-probabilities of all answers to every prompt, ``(prompts, 3**horizon)``, and the mean mass of other texts."""
    alphabet = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(LETTERS))]
    words, mask = tokens(len(alphabet), horizon), token_mask(len(alphabet), horizon, 0)
    answers = (mask | (words == 0)).all(axis=1)  # nothing but the end follows the end
    ids, attention = torch.tensor(alphabet)[torch.tensor(words[answers])], torch.tensor(mask[answers])
    out, kept = [], []
    for row in rows:
        prompt = tokenizer.encode(row["prompt"], add_special_tokens=False)
        out.append(sequence_log_probs(tabulate(model, prompt, horizon, alphabet, eos=alphabet[0]).levels))
        whole = torch.cat([torch.tensor(prompt).expand(len(ids), -1), ids], dim=1)
        seen = torch.cat([torch.ones(len(ids), len(prompt), dtype=torch.bool), attention], dim=1)
        with torch.no_grad():
            found = token_log_probs(model, whole, seen, completion=horizon).log_probs
        kept.append(float(found.sum(dim=1).exp().sum()))
    return np.stack(out), 1 - float(np.mean(kept))


def rewards(task: Any, rows: Sequence[Mapping[str, Any]], horizon: int) -> np.ndarray:
    """The verifier's reward of every answer to every prompt, ``(prompts, 3**horizon)``."""
    words = tokens(1 + len(LETTERS), horizon)
    kept = token_mask(1 + len(LETTERS), horizon, 0) & (words != 0)
    texts = ["".join(LETTERS[w - 1] for w in word[mask]) for word, mask in zip(words, kept)]
    return np.array([[task.score(text, row) for text in texts] for row in rows])


def point(log_p: np.ndarray, log_ref: np.ndarray, reward: np.ndarray) -> tuple[float, float]:
    """Mean KL to the base, nats, and mean reward."""
    return float(np.mean(kl(log_p, log_ref))), float(np.mean((np.exp(log_p) * reward).sum(axis=1)))


def frontier_at(log_ref: np.ndarray, reward: np.ndarray, beta: float) -> tuple[float, float]:
    best = kl_regularized(log_ref, reward, beta)
    return float(np.mean(best.kl)), float(np.mean(best.reward))


def needed_kl(log_ref: np.ndarray, reward: np.ndarray, wanted: float) -> float:
    """The KL that the frontier needs for a mean reward, nats; infinite above its end."""
    ends = [frontier_at(log_ref, reward, beta)[1] for beta in (1e3, 1e-3)]
    if wanted >= ends[1]:
        return float("inf")
    if wanted <= ends[0]:
        return 0.0
    log_beta = brentq(lambda x: frontier_at(log_ref, reward, float(np.exp(x)))[1] - wanted, np.log(1e-3), np.log(1e3))
    return frontier_at(log_ref, reward, float(np.exp(log_beta)))[0]


def measure(read: Any, advance: Any) -> tuple[list[dict[str, Any]], float]:
    """Rows of the figure, and the largest mass that a model gives to texts outside the alphabet."""
    shared = train.world(read)
    task, tokenizer = shared.tasks["sat"], shared.tokenizer
    horizon, rows, omitted = task.max_completion_tokens, [], 0.0
    seen = read.stage[1].problems
    for part, problems in (("train", shared.train["sat"][:seen]), ("test", shared.test["sat"])):
        reward = rewards(task, problems, horizon)
        found = {}
        for stage in read.stage:
            model = models.load_model(read.output / stage.name / "model").double()
            found[stage.name], left_out = laws(model, tokenizer, problems, horizon)
            omitted = max(omitted, left_out)
            advance(f"{part}: {stage.name}")
        base = found["base"]

        def add(series: str, name: str, x: float, y: float, efficiency: float = 1.0, part: str = part) -> None:
            rows.append({"part": part, "series": series, "name": name, "kl": x, "reward": y, "efficiency": efficiency})

        for beta in BETAS[::-1]:
            add("frontier", f"{beta:.4g}", *frontier_at(base, reward, float(beta)))
        for n in COUNTS:
            law = best_of_n.log_policy(base, reward, float(n))
            x, y = point(law, base, reward)
            add("best of N", str(n), x, y, needed_kl(base, reward, y) / x if x > 1e-12 else 1.0)
        for name, law in found.items():
            x, y = point(law, base, reward)
            add("model", name, x, y, needed_kl(base, reward, y) / x if x > 1e-12 else 1.0)
    return rows, omitted


figures = Figures()


@figures.figure(
    "frontier",
    title="Best-of-N, RL and distillation against the exact frontier of a language model",
    caption="SAT problems of three variables, answered with three bits. Every law is enumerated. Line: KL-regularised "
    "optimum of the base with one beta for all prompts; circles: best of N; squares: models trained from the base by "
    "RL with beta, by distillation, by SFT on a teacher's answers.",
    size=(11.0, 4.6),
)
def frontier(run: Run) -> Mapping[str, Any]:
    raise NotImplementedError("computed by the command, which needs minutes")


@frontier.draw
def _(table: Table, figure: Any) -> None:
    for place, part in zip(figure.subplots(1, 2, sharey=True), PARTS):
        rows = table.rows(part=part)
        curve, best, trained = (rows.rows(series=s) for s in ("frontier", "best of N", "model"))
        place.plot(curve["kl"], curve["reward"], color="black", label="frontier of the base")
        place.plot(
            best["kl"], best["reward"], "o-", ms=4, lw=0.8, color=COLOURS[5], label="best of N = 1, 2, 4, …, 128"
        )
        for name, colour, marker in zip(trained.distinct("name"), (*COLOURS[6:7], *COLOURS[:5], COLOURS[0]), "*sssDDv"):
            one = trained.rows(name=name)
            place.plot(one["kl"], one["reward"], marker, ms=7, color=colour, label=name)
        place.set(title=PARTS[part], xlabel="mean KL to the base (nats)", xlim=(-0.05, None))
    figure.axes[0].set_ylabel("mean reward (share of right answers)")
    figure.axes[0].legend(loc="lower right")


def show(rows: list[dict[str, Any]], omitted: float) -> None:
    console = Console(width=120)
    for part, title in PARTS.items():
        grid = Grid("", "KL, nats", "reward", "efficiency: KL needed / spent", title=title)
        for r in rows:
            if r["part"] == part and r["series"] != "frontier":
                label = f"best of {r['name']}" if r["series"] == "best of N" else r["name"]
                grid.add_row(label, f"{r['kl']:.4f}", f"{r['reward']:.4f}", f"{r['efficiency']:.3f}")
        console.print(grid)
    console.print(
        f"texts of other characters than 0 and 1 have on average at most {omitted:.2g} of a model's probability"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("figures"))
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--short", action="store_true", help="a fifth of the steps of RL and distillation")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    read = configs.read(CONFIG, output=chosen.runs)
    if chosen.short:
        stages = [s if s.name == "base" else s.model_copy(update={"steps": max(s.steps // 5, 1)}) for s in read.stage]
        read = read.model_copy(update={"stage": tuple(stages)})
    with terminal.progress("frontier", 2 * len(read.stage)) as advance:
        train.run(read, lambda stage, step, text: advance.describe(f"{stage} {step} {text}"))
        rows, omitted = measure(read, advance)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    files = write_figure(frontier, Table(columns), chosen.out, Path("bridge"), Run())
    show(rows, omitted)
    print(f"written: {chosen.out / files[0]}")


if __name__ == "__main__":
    main()
