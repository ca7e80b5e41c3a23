"""Do the intervals cover? Simulated rollouts from bandits and token trees whose frontier is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from klsim.claims.certificate import write_atomically
from klsim.claims.parallel import execute
from klsim.distributions import log_normalize, sample
from klsim.frontier.estimate import estimate
from klsim.frontier.result import Frontier
from klsim.optima import Optimum, kl_regularized
from klsim.problems.token_tree import sequence_log_probs

__all__ = [
    "FAMILIES",
    "Cell",
    "coverage",
    "exact_frontier",
    "exact_kl",
    "population",
    "simulate",
    "write_coverage",
    "write_example",
]

POPULATION = 2_000
FAMILIES = ("binary", "hard binary", "gaussian", "token trees")
BUDGETS = (0.05, 0.2, 0.5, 1.0, 1.5, 2.0)
SAMPLES = (8, 32, 128)
PROMPTS = 200
POLICY_BETA, POLICY_SAMPLES = 0.5, 8


@dataclass(frozen=True)
class Population:
    """Prompts with known laws: reference and rewards ``(prompts, outcomes)``."""

    log_ref: np.ndarray
    reward: np.ndarray


def population(family: str, seed: int = 0) -> Population:
    """Prompts of a family: success probabilities Beta(1, 1) or Beta(0.5, 2); 200 rewards N(m, s); token trees."""
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    if family in ("binary", "hard binary"):
        a, b = (1.0, 1.0) if family == "binary" else (0.5, 2.0)
        p = rng.beta(a, b, POPULATION)
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return Population(np.log(np.stack([1 - p, p], axis=1)), np.tile([0.0, 1.0], (POPULATION, 1)))
    if family == "gaussian":
        mean, spread = rng.normal(0, 1, (POPULATION, 1)), rng.uniform(0.5, 1.5, (POPULATION, 1))
        reward = rng.normal(mean, spread, (POPULATION, 200))
        return Population(np.full(reward.shape, -math.log(200)), reward)
    vocab, horizon = 4, 3
    levels = [log_normalize(rng.normal(size=(POPULATION, vocab**t, vocab))) for t in range(horizon)]
    log_ref = sequence_log_probs(levels)
    return Population(log_ref, rng.uniform(size=log_ref.shape) ** 2)


def exact_frontier(laws: Population, budget: float) -> tuple[float, float]:
    """``(reward, beta)`` at a mean KL of ``budget`` nats with one shared beta, by root finding."""
    beta = _solve(laws, lambda found: float(np.mean(found.kl)) - budget)
    return float(np.mean(kl_regularized(laws.log_ref, laws.reward, beta).reward)), beta


def exact_kl(laws: Population, reward: float) -> float:
    """The mean KL that the frontier needs for a mean reward, nats."""
    beta = _solve(laws, lambda found: float(np.mean(found.reward)) - reward)
    return float(np.mean(kl_regularized(laws.log_ref, laws.reward, beta).kl))


def _solve(laws: Population, gap: Callable[[Optimum], float]) -> float:
    """The shared beta where a quantity that falls with it is 0."""
    from scipy.optimize import brentq

    def at(log_beta: float) -> float:
        return gap(kl_regularized(laws.log_ref, laws.reward, math.exp(log_beta)))

    return math.exp(brentq(at, -15.0, 15.0, xtol=1e-12))


def _policy(laws: Population) -> np.ndarray:
    """A trained policy that is not on the frontier: half of the tilt's KL is spent on noise."""
    noise = np.random.default_rng(5).normal(0, 0.5, laws.reward.shape)
    return np.asarray(log_normalize(laws.log_ref + laws.reward / POLICY_BETA / 2 + noise))


def simulate(laws: Population, samples: int, rng: np.random.Generator, prompts: int = PROMPTS) -> dict[str, np.ndarray]:
    """Rollouts of ``prompts`` prompts drawn from the population: what `klsim.frontier.estimate` takes."""
    chosen = rng.integers(0, len(laws.reward), prompts)
    policy = _policy(laws)

    a, b = sample(laws.log_ref[chosen], samples, rng), sample(policy[chosen], POLICY_SAMPLES, rng)
    rows = np.arange(prompts)
    at = chosen[:, None]
    return {
        "prompt": np.repeat(rows, samples),
        "reward": laws.reward[at, a].ravel(),
        "policy_prompt": np.repeat(rows, POLICY_SAMPLES),
        "policy_reward": laws.reward[at, b].ravel(),
        "policy_logp": policy[at, b].ravel(),
        "ref_logp": laws.log_ref[at, b].ravel(),
    }


def _truths(laws: Population) -> dict[str, float]:
    policy = _policy(laws)
    p = np.exp(policy)
    reward = float((p * laws.reward).sum(axis=1).mean())
    kl = float((p * (policy - laws.log_ref)).sum(axis=1).mean())
    needed = exact_kl(laws, reward)
    out = {f"reward at {b:g} nats": exact_frontier(laws, b)[0] for b in BUDGETS if b < _most(laws)}
    return out | {
        "policy: reward": reward,
        "policy: KL (k1)": kl,
        "policy: KL (k3)": kl,
        "policy: efficiency": needed / kl,
        "policy: missed reward": exact_frontier(laws, kl)[0] - reward,
    }


def _most(laws: Population) -> float:
    best = laws.reward == laws.reward.max(axis=1, keepdims=True)
    return float(-np.log(np.where(best, np.exp(laws.log_ref), 0.0).sum(axis=1)).mean())


def _intervals(found: Frontier) -> dict[str, tuple[Any, bool]]:
    """Every interval by the name of its truth, and whether it is trusted."""
    assert found.policy is not None
    p = found.policy
    out = {f"reward at {point.budget:g} nats": (point.reward, point.trusted) for point in found.points}
    return out | {
        "policy: reward": (p.reward, True),
        "policy: KL (k1)": (p.k1, True),
        "policy: KL (k3)": (p.k3, True),
        "policy: efficiency": (p.efficiency, p.trusted),
        "policy: missed reward": (p.missed_reward, p.trusted),
    }


@dataclass(frozen=True)
class _Task:
    family: str
    samples: int
    first: int
    count: int
    seed: int

    def run(self) -> dict[str, list[tuple[bool, bool, float, float]]]:
        """``name -> (trusted, covered, error, half width)`` of every replicate."""
        from threadpoolctl import threadpool_limits

        laws = population(self.family)
        truths = _truths(laws)
        budgets = [b for b in BUDGETS if f"reward at {b:g} nats" in truths]
        out: dict[str, list[tuple[bool, bool, float, float]]] = {name: [] for name in truths}
        with threadpool_limits(1):
            for replicate in range(self.first, self.first + self.count):
                key = [self.seed, FAMILIES.index(self.family), self.samples, replicate]
                rows = simulate(laws, self.samples, np.random.default_rng(key))
                found = estimate(**rows, budgets=budgets, seed=replicate, resamples=1000)  # type: ignore[arg-type]
                for name, (e, trusted) in _intervals(found).items():
                    half = (e.high - e.low) / 2
                    covered = e.low <= truths[name] <= e.high
                    out[name].append((trusted, covered, e.value - truths[name], half))
        return out


@dataclass(frozen=True)
class Cell:
    """Coverage of one interval. ``replicates`` counts the trusted ones, ``of`` all."""

    family: str
    samples: int
    name: str
    truth: float
    replicates: int
    of: int
    covered: float
    bias: float
    half_width: float


def coverage(
    *, replicates: int = 400, seed: int = 0, jobs: int = 1, on_done: Callable[[str], None] = lambda name: None
) -> list[Cell]:
    """Coverage of the 95 % intervals: of all trusted estimates of `FAMILIES` x `SAMPLES`, `PROMPTS` prompts each."""
    part = 50
    tasks = [
        _Task(f, n, start, min(part, replicates - start), seed)
        for f in FAMILIES
        for n in SAMPLES
        for start in range(0, replicates, part)
    ]
    found: dict[tuple[str, int], dict[str, list[Any]]] = {}
    parts: list[Any] = [None] * len(tasks)
    for index, result in execute(tasks, jobs=jobs):
        parts[index] = result
        on_done(f"{tasks[index].family}, {tasks[index].samples} samples")
    for task, result in zip(tasks, parts):
        kept = found.setdefault((task.family, task.samples), {})
        for name, rows in result.items():
            kept.setdefault(name, []).extend(rows)
    cells = []
    for (family, samples), names in found.items():
        truths = _truths(population(family))
        for name, rows in names.items():
            good = [r for r in rows if r[0]]
            size = max(len(good), 1)
            covered, bias, half = (sum(float(r[k]) for r in good) / size for k in (1, 2, 3))
            cells.append(Cell(family, samples, name, truths[name], len(good), len(rows), covered, bias, half))
    return cells


def total_coverage(cells: list[Cell]) -> Mapping[str, tuple[float, int]]:
    """Coverage and number of trusted intervals, by the part of the table."""
    out: dict[str, tuple[float, int]] = {}
    for label, chosen in (
        ("frontier", [c for c in cells if c.name.startswith("reward at")]),
        ("trained policy", [c for c in cells if c.name.startswith("policy")]),
        ("all", cells),
    ):
        number = sum(c.replicates for c in chosen)
        out[label] = (sum(c.covered * c.replicates for c in chosen) / max(number, 1), number)
    return out


def write_coverage(path: Path, cells: list[Cell], replicates: int, seed: int) -> None:
    """The documentation page."""
    totals = total_coverage(cells)
    summary = "; ".join(f"{name}: {value:.1%} of {number:,}" for name, (value, number) in totals.items())
    lines = [
        "| prompts | samples | interval | truth | coverage | of | trusted | bias / half width |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        share = f"{c.replicates / c.of:.0%}"
        if not c.replicates:
            lines.append(f"| {c.family} | {c.samples} | {c.name} | {c.truth:.4g} | | 0 | {share} | |")
            continue
        lines.append(
            f"| {c.family} | {c.samples} | {c.name} | {c.truth:.4g} | {c.covered:.1%} | {c.replicates} | {share} "
            f"| {c.bias / c.half_width if c.half_width else 0.0:+.2f} |"
        )
    error = math.sqrt(0.95 * 0.05)
    apart = [
        f"{c.family}, {c.samples} samples, {c.name}: {c.covered:.1%} of {c.replicates}"
        for c in cells
        if c.replicates and abs(c.covered - 0.95) > 3 * error / math.sqrt(c.replicates)
    ]
    far = "".join(f"\n- {line}" for line in apart) or " none."
    text = f"""# Do the intervals of `klsim frontier` cover?

Written by `klsim frontier --coverage --replicates {replicates} --seed {seed}`; do not edit.

95 % intervals against exact frontiers, over {replicates} simulated files of {PROMPTS} prompts for every row; counted
are the estimates that klsim marks as trusted ("trusted": their share; with few samples a prompt large budgets are
not). Prompts are drawn from {POPULATION:,} bandits with binary rewards (success probabilities Beta(1, 1); hard:
Beta(0.5, 2)), bandits with 200 normal rewards, and token trees (4 tokens, 3 steps). The trained policy lies below the
frontier by construction. The Monte Carlo error of a coverage of 95 % over {replicates} files is
{100 * error / math.sqrt(replicates):.1f} points.

Coverage: {summary}.

Further than three Monte Carlo errors from 95 %, of {len(cells)} rows:{far}

k3 is a mean of exp(-x) - 1 + x over log ratios x: where they are large a few samples carry it, and its interval is
too short. Read k1 there.

{chr(10).join(lines)}
"""
    write_atomically(path, text)


def write_example(folder: Path, *, prompts: int = 200, samples: int = 32, seed: int = 0) -> tuple[Path, Path]:
    """Write ``reference.jsonl`` and ``policy.jsonl``: rollouts of token trees and of a policy trained on them."""
    import json

    rows = simulate(population("token trees"), samples, np.random.default_rng(seed), prompts)
    names = {
        "reference.jsonl": ("prompt", "reward"),
        "policy.jsonl": tuple(k for k in rows if k not in ("prompt", "reward")),
    }
    for file, keys in names.items():
        columns = [[f"tree {i}" for i in rows[k]] if k.endswith("prompt") else rows[k].tolist() for k in keys]
        labels = [k if k == "policy_logp" else k.removeprefix("policy_") for k in keys]
        text = "".join(json.dumps(dict(zip(labels, values))) + "\n" for values in zip(*columns))
        write_atomically(folder / file, text)
    return folder / "reference.jsonl", folder / "policy.jsonl"
