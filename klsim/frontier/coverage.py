"""Do the intervals cover? Simulated rollouts from bandits and token trees whose frontier is known exactly."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from klsim import best_of_n
from klsim.distributions import log_normalize, sample
from klsim.files import write_atomically
from klsim.frontier.against import against
from klsim.frontier.best_of_n import gold_of_best_of_n
from klsim.frontier.estimate import Settings, estimate
from klsim.frontier.prompts import prompts as prompts_of
from klsim.frontier.result import Estimate, Frontier
from klsim.frontier.tilt import Tilt, made
from klsim.optima import Optimum, kl_regularized
from klsim.parallel import execute
from klsim.problems.token_tree import sequence_log_probs

__all__ = [
    "FAMILIES",
    "Cell",
    "coverage",
    "exact_frontier",
    "exact_kl",
    "parts_of",
    "population",
    "simulate",
    "total_coverage",
    "write_coverage",
    "write_example",
]

POPULATION = 2_000
FAMILIES = ("binary", "hard binary", "gaussian", "token trees", "heavy-tailed")
"""The populations whose intervals are checked, by name."""
BUDGETS = (0.05, 0.2, 0.5, 1.0, 1.5, 2.0)
SAMPLES = (8, 32, 128)
PROMPTS = 200
POLICY_BETA, POLICY_SAMPLES = 0.5, 8
BEST_OF = (2, 4, 8, 16, 32)
BETAS = (2.0, 1.0, 0.5)
"""In units of the rewards' standard deviation within a prompt."""
GROUP = 4
PART = 25
"""Simulated files of one task, whose result is kept."""


@dataclass(frozen=True, eq=False)
class Population:
    """Prompts with known laws: reference and rewards ``(prompts, outcomes)``."""

    log_ref: np.ndarray
    reward: np.ndarray

    @functools.cached_property
    def gold(self) -> np.ndarray:
        """A reward that the other stands for, and that falls where it is pushed far; another noise for each outcome."""
        spread = float(np.std(self.reward))
        z = (self.reward - float(np.mean(self.reward))) / spread
        noise = np.random.default_rng(7).normal(0, 0.3, self.reward.shape)
        return np.asarray(np.tanh(z) - 0.2 * z * np.abs(z) / (1 + np.abs(z)) + noise)


@functools.lru_cache(maxsize=8)
def population(family: str, seed: int = 0) -> Population:
    """Prompts of a family: success rates Beta(1, 1) or Beta(0.5, 2); 200 rewards N(m, s) or exp of them; trees."""
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    if family in ("binary", "hard binary"):
        a, b = (1.0, 1.0) if family == "binary" else (0.5, 2.0)
        p = rng.beta(a, b, POPULATION)
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return Population(np.log(np.stack([1 - p, p], axis=1)), np.tile([0.0, 1.0], (POPULATION, 1)))
    if family == "heavy-tailed":
        mean, spread = rng.normal(0, 1, (POPULATION, 1)), rng.uniform(0.5, 1.5, (POPULATION, 1))
        reward = np.exp(rng.normal(mean, spread, (POPULATION, 200)))
        return Population(np.full(reward.shape, -math.log(200)), reward)
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


@functools.lru_cache(maxsize=8)
def _policy(laws: Population) -> np.ndarray:
    """A trained policy that is not on the frontier: half of the tilt's KL is spent on noise."""
    noise = np.random.default_rng(5).normal(0, 0.5, laws.reward.shape)
    tilt = laws.reward / POLICY_BETA / 2 if np.max(laws.reward) < 20 else np.log(laws.reward) / 2
    return np.asarray(log_normalize(laws.log_ref + tilt + noise))


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
        "gold": laws.gold[at, a].ravel(),
        "policy_prompt": np.repeat(rows, POLICY_SAMPLES),
        "policy_reward": laws.reward[at, b].ravel(),
        "policy_logp": policy[at, b].ravel(),
        "ref_logp": laws.log_ref[at, b].ravel(),
    }


def _mean(per_prompt: np.ndarray) -> float:
    return float(np.mean(per_prompt))


@functools.lru_cache(maxsize=8)
def _betas(laws: Population) -> list[float]:
    p = np.exp(laws.log_ref)
    mean = (p * laws.reward).sum(axis=1, keepdims=True)
    return [b * math.sqrt(_mean((p * (laws.reward - mean) ** 2).sum(axis=1))) for b in BETAS]


@functools.lru_cache(maxsize=32)
def _truths(laws: Population, samples: int) -> dict[str, float]:
    policy, gold = _policy(laws), laws.gold
    p, ref = np.exp(policy), np.exp(laws.log_ref)
    reward, kl = _mean((p * laws.reward).sum(axis=1)), _mean((p * (policy - laws.log_ref)).sum(axis=1))
    needed = exact_kl(laws, reward)
    out = {"reference": _mean((ref * laws.reward).sum(axis=1))}
    out |= {f"reward at {b:g} nats": exact_frontier(laws, b)[0] for b in BUDGETS if b < _most(laws)}
    for n in (n for n in BEST_OF if n <= samples):
        law = np.exp(best_of_n.log_policy(laws.log_ref, laws.reward, float(n)))
        out[f"best of {n}: reward"] = _mean((law * laws.reward).sum(axis=1))
        out[f"best of {n}: KL"] = _mean(best_of_n.kl(laws.log_ref, laws.reward, float(n)))
        out[f"best of {n}: gold"] = _mean((law * gold).sum(axis=1))
    for ratio, beta in zip(BETAS, _betas(laws)):
        tilt = kl_regularized(laws.log_ref, laws.reward, beta)
        out[f"beta = {ratio:g} SD: reward"] = _mean(tilt.reward)
        out[f"beta = {ratio:g} SD: KL"] = _mean(tilt.kl)
        out[f"beta = {ratio:g} SD: gold"] = _mean((np.exp(tilt.log_policy) * gold).sum(axis=1))
    for k in (1, 4, POLICY_SAMPLES):
        best = [
            (np.exp(best_of_n.log_policy(x, laws.reward, float(k))) * laws.reward).sum(axis=1)
            for x in (policy, laws.log_ref)
        ]
        out[f"against: best of {k}"] = _mean(best[0] - best[1])
    out["no gradient in groups of 4"] = _mean(_equal_rewards(ref, laws.reward))
    return out | {
        "policy: reward": reward,
        "policy: KL (k1)": kl,
        "policy: KL (k3)": kl,
        "policy: needed KL": needed,
        "policy: efficiency": needed / kl,
        "policy: missed reward": exact_frontier(laws, kl)[0] - reward,
    }


def _equal_rewards(p: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Probability that `GROUP` draws of a prompt have equal rewards."""
    order = np.argsort(reward, axis=1)
    r, mass = np.take_along_axis(reward, order, 1), np.take_along_axis(p, order, 1)
    new = np.concatenate([np.ones((len(r), 1), dtype=bool), r[:, 1:] != r[:, :-1]], axis=1)
    tie = np.cumsum(new, axis=1) - 1
    place = tie + tie.shape[1] * np.arange(len(r))[:, None]
    masses = np.bincount(place.ravel(), mass.ravel(), minlength=place.size).reshape(r.shape)
    return np.asarray((masses**GROUP).sum(axis=1))


def _most(laws: Population) -> float:
    best = laws.reward == laws.reward.max(axis=1, keepdims=True)
    return float(-np.log(np.where(best, np.exp(laws.log_ref), 0.0).sum(axis=1)).mean())


def _intervals(found: Frontier) -> dict[str, Estimate]:
    """Every interval of the frontier by the name of its truth."""
    assert found.policy is not None
    p = found.policy
    out = {"reference": found.reference} | {f"reward at {x.budget:g} nats": x.reward for x in found.points}
    for b in found.best_of_n:
        out |= {f"best of {b.n}: reward": b.reward, f"best of {b.n}: KL": b.kl}
    policy = {"reward": p.reward, "KL (k1)": p.k1, "needed KL": p.needed_kl, "efficiency": p.efficiency}
    policy["missed reward"] = p.missed_reward
    if p.k3 is not None:
        policy["KL (k3)"] = p.k3
    return out | {f"policy: {name}": e for name, e in policy.items()}


def _answers(rows: Mapping[str, np.ndarray], betas: Sequence[float], settings: Settings) -> dict[str, Estimate]:
    """The intervals of the other questions."""
    own = {"level": settings.level, "resamples": settings.resamples, "seed": settings.seed}
    data, dual, gold, _ = made(rows["prompt"], rows["reward"], rows["gold"], 2, settings, [])
    assert gold is not None
    tilt = Tilt(data, dual, data.scale / np.array(betas))
    golds = tilt.judged(tilt.mean_of(gold))
    out: dict[str, Estimate] = {}
    for k, (ratio, point) in enumerate(zip(BETAS, tilt.points())):
        name = f"beta = {ratio:g} SD"
        out |= {f"{name}: reward": point.reward, f"{name}: KL": point.kl, f"{name}: gold": golds[k]}
    counts = np.array([n for n in BEST_OF if n <= data.counts.min()])
    for n, sums in zip(counts.tolist(), gold_of_best_of_n(data, gold, counts).T):
        out[f"best of {n}: gold"] = dual.boot.of_mean(sums)
    found = against(rows["prompt"], rows["reward"], rows["policy_prompt"], rows["policy_reward"], **own)  # type: ignore[arg-type]
    out |= {f"against: best of {p.k}": p.difference for p in found.pass_at}
    groups = prompts_of(rows["prompt"], rows["reward"], **own).groups  # type: ignore[arg-type]
    return out | {f"no gradient in groups of {g.size}": g.equal for g in groups}


def _as_printed(known: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """A gold reward is blank where the KL or the reward beside it is, see `klsim.frontier.gold.GoldPoint`."""
    out = dict(known)
    for name in (n for n in known if n.endswith(": gold")):
        beside = [known[name.removesuffix("gold") + part] for part in ("KL", "reward")]
        reason = next((e.reason for e in (*beside, known[name]) if e.reason), "")
        out[name] = replace(known[name], reason=reason)
    return out


@dataclass(frozen=True)
class _Task:
    family: str
    samples: int
    first: int
    count: int
    seed: int
    stages: str = ""

    def run(self) -> dict[str, list[tuple[bool, bool, float, float]]]:
        """``name -> (trusted, covered, error, half width)`` of every replicate; from disk if it was kept there."""
        kept = (
            Path(self.stages)
            / f"{self.family.replace(' ', '-')}-{self.samples}-{self.seed}-{self.first}-{self.count}.json"
        )
        if self.stages and kept.is_file():
            return json.loads(kept.read_text(encoding="utf-8"))
        out = self.simulated()
        if self.stages:
            write_atomically(kept, json.dumps(out))
        return out

    def simulated(self) -> dict[str, list[tuple[bool, bool, float, float]]]:
        """The same, computed."""
        from threadpoolctl import threadpool_limits

        from klsim.kernels.groups import one_thread

        laws = population(self.family)
        truths, betas = _truths(laws, self.samples), _betas(laws)
        budgets = [b for b in BUDGETS if f"reward at {b:g} nats" in truths]
        out: dict[str, list[tuple[bool, bool, float, float]]] = {name: [] for name in truths}
        out[ORDER] = []
        with threadpool_limits(1), one_thread():
            for replicate in range(self.first, self.first + self.count):
                key = [self.seed, FAMILIES.index(self.family), self.samples, replicate]
                rows = simulate(laws, self.samples, np.random.default_rng(key))
                only = {name: v for name, v in rows.items() if name != "gold"}
                found = estimate(**only, budgets=budgets, seed=replicate, resamples=RESAMPLES)  # type: ignore[arg-type]
                known = _as_printed(_intervals(found) | _answers(rows, betas, Settings(0.95, RESAMPLES, replicate)))
                for name in truths:
                    e = known[name]
                    covered = e.low <= truths[name] <= e.high
                    out[name].append((e.trusted, bool(covered), e.value - truths[name], (e.high - e.low) / 2))
                judged = [b for b in found.best_of_n if b.n > 1 and not b.kl.reason and not b.reward.reason]
                out[ORDER].append((bool(judged), all(not b.above for b in judged), 0.0, 0.0))
        return out


ORDER = "best-of-N below the frontier at every N trusted"
RESAMPLES = 1000


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

    @property
    def covered_not(self) -> float:
        """Share of all files whose interval is trusted and misses."""
        return (1 - self.covered) * self.replicates / self.of


def parts_of(replicates: int) -> int:
    """How many tasks `coverage` has."""
    return len(FAMILIES) * len(SAMPLES) * -(-replicates // PART)


def coverage(
    *,
    replicates: int = 400,
    seed: int = 0,
    jobs: int = 1,
    stages: Path | None = None,
    on_done: Callable[[str], None] = lambda name: None,
) -> list[Cell]:
    """Coverage of the 95 % intervals: of all trusted estimates of `FAMILIES` x `SAMPLES`, `PROMPTS` prompts each.

    ``stages``: a folder where finished parts are kept, so that a killed run resumes.
    """
    folder = "" if stages is None else str(stages)
    tasks = [
        _Task(f, n, start, min(PART, replicates - start), seed, folder)
        for start in range(0, replicates, PART)
        for f in FAMILIES
        for n in SAMPLES
    ]
    parts: list[Any] = [None] * len(tasks)
    for index, result in execute(tasks, jobs=jobs):
        parts[index] = result
        on_done(f"{tasks[index].family}, {tasks[index].samples} samples")
    found: dict[tuple[str, int], dict[str, list[Any]]] = {(f, n): {} for f in FAMILIES for n in SAMPLES}
    for task, result in zip(tasks, parts):
        for name, rows in result.items():
            found[task.family, task.samples].setdefault(name, []).extend(rows)
    cells = []
    for (family, samples), names in found.items():
        truths = _truths(population(family), samples) | {ORDER: 1.0}
        for name, rows in names.items():
            good = [r for r in rows if r[0]]
            size = max(len(good), 1)
            covered, bias, half = (sum(float(r[k]) for r in good) / size for k in (1, 2, 3))
            cells.append(Cell(family, samples, name, truths[name], len(good), len(rows), covered, bias, half))
    return cells


_PARTS = (
    ("frontier", ("reference", "reward at")),
    ("trained policy", ("policy",)),
    ("best of N", ("best of",)),
    ("forecast and gold", ("beta =",)),
    ("two models, groups", ("against", "no gradient")),
)


def total_coverage(cells: Sequence[Cell]) -> Mapping[str, tuple[float, int]]:
    """Coverage and number of trusted intervals, by the part of the table."""
    out: dict[str, tuple[float, int]] = {}
    rows = [c for c in cells if c.name != ORDER]
    for label, starts in (*_PARTS, ("all", ("",))):
        chosen = [c for c in rows if c.name.startswith(starts)]
        number = sum(c.replicates for c in chosen)
        out[label] = (sum(c.covered * c.replicates for c in chosen) / max(number, 1), number)
    return out


def write_coverage(path: Path, cells: Sequence[Cell], replicates: int, seed: int) -> None:
    """The documentation page."""
    totals = total_coverage(cells)
    summary = "; ".join(f"{name}: {value:.1%} of {number:,}" for name, (value, number) in totals.items())
    rows = [c for c in cells if c.name != ORDER]
    judged = [c for c in rows if c.replicates >= min(200, replicates)]
    inside = sum(0.93 <= c.covered <= 0.97 for c in judged)
    error = math.sqrt(0.95 * 0.05)
    apart = [
        f"\n- {c.family}, {c.samples} samples, {c.name}: {c.covered:.1%} of {c.replicates}"
        for c in rows
        if c.replicates and abs(c.covered - 0.95) > 3 * error / math.sqrt(c.replicates)
    ]
    orders = "\n".join(
        f"- {c.family}, {c.samples} samples: {c.covered:.1%} of {c.replicates} files" for c in cells if c.name == ORDER
    )
    worst = max(rows, key=lambda c: c.covered_not)
    text = f"""# Do the intervals of `klsim frontier` cover?

Written by `klsim dev coverage --replicates {replicates} --seed {seed}` (finished parts are kept in
`.klsim/coverage`, a killed run resumes); do not edit.

95 % intervals against exact values, over {replicates} simulated files of {PROMPTS} prompts for every row; counted
are the estimates that klsim marks as trusted ("trusted": their share; the others are printed as blanks). Prompts are
drawn from {POPULATION:,} bandits with binary rewards (success probabilities Beta(1, 1); hard: Beta(0.5, 2)), bandits
with 200 normal rewards, or exponentials of them (heavy-tailed), and token trees (4 tokens, 3 steps). The trained policy
lies below the frontier by construction; "against" compares it with the reference by rewards alone. "beta = 2 SD": where
reward - beta KL ends, with beta in standard deviations of the rewards within a prompt; "gold": a second reward there.
The Monte Carlo error of a coverage of 95 % over {replicates} files is {100 * error / math.sqrt(replicates):.1f} points.

Coverage: {summary}.

Of the {len(judged)} rows with at least {min(200, replicates)} trusted files, {inside} cover between 93 and 97 %.
Further than three Monte Carlo errors from 95 %, of {len(rows)} rows:{"".join(apart) or " none."}

Rewards with a heavy tail are the limit of these intervals, and of all others: no interval of finite length covers the
means of all laws (Bahadur and Savage 1956). Of such a law, the files that do not show the tail are the ones that pass
the rule of trust, and they cover less. What the rule keeps small is how often a file shows a trusted interval that
misses ("shown, wrong": of all files); at most {worst.covered_not:.1%} here ({worst.family}, {worst.samples} samples,
{worst.name}).

KL of best-of-N: where rewards hardly tie it is all but known, and its interval, which allows for the remaining bias,
covers more often than 95 %.

Best-of-N never lies above the frontier. Files whose estimates have that order at every N whose reward and KL are
trusted (before the check that withdraws the trust from those that have not):

{orders}

{_markdown(rows)}
"""
    write_atomically(path, text)


def _markdown(rows: Sequence[Cell]) -> str:
    lines = [
        "| prompts | samples | interval | truth | coverage | of | trusted | shown, wrong | bias / half width |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in rows:
        share, start = f"{c.replicates / c.of:.0%}", f"| {c.family} | {c.samples} | {c.name} | {c.truth:.4g} |"
        if not c.replicates:
            lines.append(f"{start} | 0 | {share} | 0.0% | |")
            continue
        bias = c.bias / c.half_width if c.half_width else 0.0
        lines.append(f"{start} {c.covered:.1%} | {c.replicates} | {share} | {c.covered_not:.1%} | {bias:+.2f} |")
    return "\n".join(lines)


def write_example(folder: Path, *, prompts: int = 200, samples: int = 32, seed: int = 0) -> tuple[Path, Path]:
    """Write ``reference.jsonl`` and ``policy.jsonl``: rollouts of token trees and of a policy trained on them."""
    import json

    rows = simulate(population("token trees"), samples, np.random.default_rng(seed), prompts)
    names = {
        "reference.jsonl": ("prompt", "reward"),
        "policy.jsonl": tuple(k for k in rows if k not in ("prompt", "reward", "gold")),
    }
    for file, keys in names.items():
        columns = [[f"tree {i}" for i in rows[k]] if k.endswith("prompt") else rows[k].tolist() for k in keys]
        labels = [k if k == "policy_logp" else k.removeprefix("policy_") for k in keys]
        text = "".join(json.dumps(dict(zip(labels, values))) + "\n" for values in zip(*columns))
        write_atomically(folder / file, text)
    return folder / "reference.jsonl", folder / "policy.jsonl"
