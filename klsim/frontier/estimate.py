"""The KL–reward frontier of samples: `estimate`. What is computed, and when it is trusted: `klsim.frontier.dual`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from klsim import _validate
from klsim.frontier import policy as policies
from klsim.frontier.best_of_n import best_of_n
from klsim.frontier.bootstrap import MAX_BLOCKS, Bootstrap
from klsim.frontier.dual import Dual
from klsim.frontier.partition import Spread, here
from klsim.frontier.policy import PolicySamples
from klsim.frontier.result import BestOfN, Estimate, Frontier, FrontierPoint, PolicyPoint, as_json
from klsim.frontier.samples import Samples, column, common_prompts, enough_samples, numbered, repeated_rows

__all__ = [
    "BestOfN",
    "Estimate",
    "Frontier",
    "FrontierPoint",
    "PolicyPoint",
    "Settings",
    "as_json",
    "estimate",
    "prepare",
]

BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0)


class Settings:
    """Of the intervals: ``level``, ``resamples``, ``seed``, checked."""

    def __init__(self, level: float, resamples: int, seed: int) -> None:
        self.level = _validate.real("level", level)
        if not 0 < self.level < 1:
            _validate.fail("level", "must lie between 0 and 1, both excluded", level)
        self.resamples = _validate.integer("resamples", resamples, low=100)
        self.seed = _validate.integer("seed", seed, low=0)

    def bootstrap(self, sizes: np.ndarray) -> Bootstrap:
        """Of blocks of prompts of these sizes."""
        return Bootstrap(sizes, self.level, self.resamples, self.seed)


def prepare(
    prompt: Any, reward: Any, gold: Any, min_samples: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Any]:
    """``(codes, reward, gold, prompt)`` of prompts with enough samples, each row once.

    Raises:
        ValueError: as `estimate`.
    """
    fewest = _validate.integer("min_samples", min_samples, low=2)
    values = column("reward", reward)
    extra = None if gold is None else column("gold", gold)
    if extra is not None and len(extra) != len(values):
        raise ValueError(f"gold: has {len(extra)} rows, reward {len(values)}")
    prompts = np.asarray(prompt)
    codes = numbered({"prompt": prompts}, (len(values),))[0]
    copies = repeated_rows(codes, values, *([] if extra is None else [extra]))
    if copies > 1:
        once = len(values) // copies
        notes.append(f"the rows repeat themselves {copies} times in the same order: only the first {once} are used")
        codes, values, prompts = codes[:once], values[:once], prompts[:once]
        extra = None if extra is None else extra[:once]
    keep = enough_samples(codes, fewest, notes)
    if not keep.all():
        values, prompts = values[keep], prompts[keep]
        extra = None if extra is None else extra[keep]
        codes = numbered({"prompt": prompts}, (len(values),))[0]
    return codes, values, extra, prompts


def estimate(
    prompt: Any,
    reward: Any,
    *,
    policy_prompt: Any = None,
    policy_reward: Any = None,
    policy_logp: Any = None,
    ref_logp: Any = None,
    policy: PolicySamples | None = None,
    path: Sequence[PolicySamples] = (),
    budgets: Sequence[float] | None = None,
    min_samples: int = 2,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    spread: Spread = here,
) -> Frontier:
    """The KL–reward frontier from samples of a reference policy.

    Args:
        prompt: what each sample answers (text or numbers), ``(rows,)``; at least two samples of each of two prompts.
        reward: ``(rows,)``, finite.
        policy_prompt, policy_reward, policy_logp, ref_logp: samples of a trained policy, all or none: their prompts,
            rewards, and log-probabilities (nats, of the whole response) under the policy and the reference. If not all
            prompts have both kinds of samples, everything is about those that have.
        policy: the same as an object, which also takes log ratios or KLs.
        path: checkpoints of a run, in order; each is compared with the frontier of the prompts that it shares.
        budgets: nats; by default a list up to what the samples can show.
        min_samples: prompts with fewer samples of the reference are left out.
        level, resamples, seed: of the intervals.
        spread: where sums over prompts are made; see `klsim.frontier.partition`.

    Raises:
        ValueError: shapes that differ, values that are not finite (with their row), fewer than two prompts with
            enough samples, rewards that are constant within every prompt, log-probabilities that cannot be right.
    """
    settings = Settings(level, resamples, seed)
    notes: list[str] = []
    given = {"policy_prompt": policy_prompt, "policy_reward": policy_reward}
    policy = _one_policy(policy, given | {"policy_logp": policy_logp, "ref_logp": ref_logp})
    codes, values, _, prompts = prepare(prompt, reward, None, min_samples, notes)
    trained = None
    if policy is not None:
        columns = policy.columns()
        both = numbered({"prompt": prompts, "policy_prompt": policy.prompt}, (len(values), len(columns["reward"])))
        (kept, own), codes_of = _shared(both, notes)
        prompts, values, codes = prompts[kept], values[kept], codes_of[0]
        trained = codes_of[1], {name: v[own] for name, v in columns.items()}
        policy = replace(policy, row_name=_renamed(policy.row_name, own))
    found, data, dual = _frontier(codes, values, budgets, settings, notes, spread)
    if policy is not None and trained is not None:
        found = replace(found, policy=policies.point(data, dual, policy, *trained, notes))
    checkpoints = tuple(_checkpoint(one, prompts, values, (data, dual), settings, notes) for one in path)
    return replace(found, path=checkpoints, notes=tuple(notes))


def _one_policy(policy: PolicySamples | None, flat: Mapping[str, Any]) -> PolicySamples | None:
    """The policy, given as an object or by the arguments that ``flat`` names."""
    given = [name for name, values in flat.items() if values is not None]
    if not given:
        return policy
    if policy is not None:
        raise ValueError(f"policy: give it or {given[0]}, not both")
    missing = next((name for name in flat if name not in given), None)
    if missing:
        raise ValueError(f"{missing}: is needed with {given[0]}")
    return PolicySamples(
        flat["policy_prompt"],
        reward=flat["policy_reward"],
        policy_logp=flat["policy_logp"],
        ref_logp=flat["ref_logp"],
    )


def _renamed(row_name: Callable[[int], str], kept: np.ndarray) -> Callable[[int], str]:
    """Names of rows after the others were left out."""
    if kept.all():
        return row_name
    rows = np.flatnonzero(kept)
    return lambda row: row_name(int(rows[row]))


def _shared(groups: list[np.ndarray], notes: list[str], label: str = "") -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows of prompts that both have, and their prompts, numbered anew."""
    kept, both, every = common_prompts(groups)
    if not both.size:
        raise ValueError(f"policy_prompt: has no prompt in common with prompt{label and f' ({label})'}")
    if both.size < every and not label:
        notes.append(f"{both.size} of {every} prompts have samples of both policies; everything is about those")
    return kept, [np.searchsorted(both, c[k]) for c, k in zip(groups, kept)]


def _checkpoint(
    one: PolicySamples,
    prompts: Any,
    values: np.ndarray,
    made: tuple[Samples, Dual],
    settings: Settings,
    notes: list[str],
) -> PolicyPoint:
    """A checkpoint against the frontier of the prompts that it shares with the reference."""
    columns = one.columns()
    both = numbered({"prompt": prompts, "policy_prompt": one.prompt}, (len(values), len(columns["reward"])))
    (kept, own), codes = _shared(both, notes, one.label or "path")
    one = replace(one, row_name=_renamed(one.row_name, own))
    data, dual = made
    if not kept.all():
        _, data, dual = _frontier(codes[0], values[kept], None, settings, [])
    return policies.point(data, dual, one, codes[1], {name: v[own] for name, v in columns.items()}, notes)


def _frontier(
    codes: np.ndarray,
    reward: np.ndarray,
    budgets: Sequence[float] | None,
    settings: Settings,
    notes: list[str],
    spread: Spread = here,
) -> tuple[Frontier, Samples, Dual]:
    data = Samples(codes, reward, settings.seed, spread)
    boot = settings.bootstrap(data.block_sizes)
    limit = float(np.mean(np.log(data.counts) - data.log_ties()))
    asked = _budgets(budgets, limit)
    dual = Dual(data, boot, float(asked[0]))
    reference = dual.in_units(boot.of_mean(data.block_sums(data.prompt_means())))
    points = tuple(_point(data, dual, float(b)) for b in asked)
    fine = np.geomspace(min(float(asked[0]), 0.01), max(float(asked[-1]), limit), 60)
    curve = tuple((float(b), e.value, e.low, e.high, e.trusted) for b in fine for e in dual.reward_at(float(b))[:1])
    prompts = data.prompts
    if data.constant:
        notes.append(f"{data.constant} of {prompts} prompts have equal rewards in all samples: no KL and no gain there")
    if prompts < 20:
        notes.append(f"intervals over {prompts} prompts are rough")
    if prompts > MAX_BLOCKS:
        notes.append(f"prompts are resampled in {MAX_BLOCKS} random blocks")
    found = Frontier(
        prompts, len(reward), (int(data.counts.min()), int(data.counts.max())), data.binary, reference, points, curve,
        limit, best_of_n(data, dual, boot, reference), None, settings.level, settings.resamples, settings.seed, (),
    )  # fmt: skip
    return found, data, dual


def _budgets(budgets: Sequence[float] | None, limit: float) -> np.ndarray:
    if budgets is None:
        return np.array([b for b in BUDGETS if b <= limit] or [limit / 2])
    asked = np.sort(column("budgets", budgets))
    _validate.positive("budgets", np, asked)
    return asked


def _point(data: Samples, dual: Dual, budget: float) -> FrontierPoint:
    from klsim.kernels.log_partition import tilted_moments

    reward, lam, halves = dual.reward_at(budget)
    moments = tilted_moments(data.reward, data.starts, np.array([lam]))[:, 0]
    spread = np.quantile(moments[:, :2], [0.1, 0.5, 0.9], axis=0)
    r10, r50, r90 = (data.in_units(float(x)) for x in spread[:, 0])
    k10, k50, k90 = (float(x) for x in spread[:, 1])
    ess = float(moments[:, 2].mean())
    return FrontierPoint(budget, data.scale / lam, reward, (r10, r50, r90), (k10, k50, k90), ess, halves)
