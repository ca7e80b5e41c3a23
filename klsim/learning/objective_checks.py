r"""Measure the objectives: the gradient against the claim, and where exact expected updates end.

Everything here is computed from `klsim.objectives.registry.OBJECTIVES` on random token trees; nothing is quoted.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.learning.expected_gradient import LossFunction, expected_gradient
from klsim.learning.functionals import functional_gradient, functional_value
from klsim.learning.identification import Combination, distinct_columns, smallest_combination
from klsim.learning.prompt_trees import PromptTree, TreeProblem, random_prompts
from klsim.objectives.aggregate import sequence_sum
from klsim.objectives.registry import BETA, LAM, Objective, Setting

__all__ = [
    "EndPoint",
    "GradientCheck",
    "check_gradient",
    "closed_forms",
    "deepened",
    "descend",
    "end_point",
    "problem_for",
    "prompts_for",
    "sequence_kl",
    "with_default_mean",
    "with_open_clip",
]

LIBRARY = (
    "reward", "reward_per_token", "length", "inverse_length", "win_rate", "sequence_mean(win_rate)",
    "reverse_kl", "reverse_kl(frozen)", "forward_kl", "forward_kl(frozen)", "js(frozen)", "k2(frozen)",
    "k2_ref(frozen)", "entropy", "entropy(frozen)", "reverse_kl(teacher)", "reverse_kl(teacher, frozen)",
    "forward_kl(teacher, frozen)",
    "js(teacher, frozen)", "forward_kl(teacher, frozen, mode)", "sequence_mean(reverse_kl(sampled))",
    "sequence_mean(forward_kl(sampled))", "sequence_mean(reverse_kl(teacher, sampled))",
    "sequence_mean(reverse_kl(frozen))", "sequence_mean(reverse_kl(teacher, frozen))",
    "sequence_mean(forward_kl(teacher, frozen))",
)  # fmt: skip
"""What a gradient without a claim is searched in."""
OFF_POLICY = ("reverse_kl(sampled)", "forward_kl(sampled)", "reverse_kl(teacher, sampled)", "forward_kl(old)")
"""The same, where another policy drew the responses."""
DEEP_HORIZON = 3


def prompts_for(
    objective: Objective, seed: int, *, off_policy: bool = False, deep: bool = False, near: float | None = None
) -> list[PromptTree]:
    """Random prompts of the kind that an objective's claim is about; ``deep``: its ``deep`` vocabulary, horizon 3."""
    _validate.instance("objective", objective, Objective)
    seed, off_policy = _validate.integer("seed", seed, low=0), _validate.flag("off_policy", off_policy)
    deep = _validate.flag("deep", deep)
    one_token = objective.where == "one token"
    equal_lengths = one_token or objective.where.endswith("equal lengths")
    prompts = random_prompts(
        objective.prompts,
        seed,
        vocab=objective.deep[0] if deep else 2 if objective.prompts > 1 else 3,
        horizon=1 if one_token else DEEP_HORIZON if deep else 2,
        eos=None if equal_lengths else 0,
        binary=objective.where.startswith("binary"),
        off_policy=off_policy,
        external=objective.external > 0,
        near=near,
    )
    if objective.draws == "ref":
        prompts = [replace(p, log_behaviour=p.log_ref) for p in prompts]
    return [replace(p, prefix=objective.prefix) for p in prompts]


def problem_for(
    objective: Objective, seed: int, *, off_policy: bool = False, deep: bool = False, near: float | None = None
) -> tuple[TreeProblem, TreeProblem]:
    """``(what the loss sees, what the claim is about)``: the same, unless the objective makes its own reference."""
    prompts = prompts_for(objective, seed, off_policy=off_policy, deep=deep, near=near)
    seen = TreeProblem(prompts)
    return seen, seen if objective.seen_as is None else TreeProblem([objective.seen_as(p) for p in prompts])


def deepened(objective: Objective) -> Objective:
    """The same with groups of its ``deep`` size (4 for most), where one prompt makes a batch."""
    _validate.instance("objective", objective, Objective)
    return objective if objective.prompts > 1 else replace(objective, group_size=objective.deep[1])


def with_open_clip(objective: Objective) -> Objective | None:
    """The same without a clip of its ratio; None if it has none that an argument opens."""
    _validate.instance("objective", objective, Objective)
    loss = objective.loss
    inner = loss.func if isinstance(loss, partial) else loss
    default = inspect.signature(inner).parameters.get("clip")
    if default is None or default.default == (math.inf, math.inf):
        return None
    opened: Callable[..., Any] = loss
    return replace(objective, loss=partial(opened, clip=(math.inf, math.inf)), name=f"{objective.name}, clip open")


def with_default_mean(objective: Objective) -> Objective | None:
    """The same with its function's own aggregation, where the claim is about summed tokens; without a claim.

    None where the claim is not about summed tokens.
    """
    _validate.instance("objective", objective, Objective)
    loss = objective.loss
    if not isinstance(loss, partial) or loss.keywords.get("aggregate") is not sequence_sum:
        return None
    kept = {k: v for k, v in loss.keywords.items() if k != "aggregate"}
    own = inspect.signature(loss.func).parameters["aggregate"].default
    name = f"{objective.name}, {getattr(own, '__name__', 'default').replace('_', ' ')}"
    return replace(
        objective, name=name, loss=partial(loss.func, *loss.args, **kept), population=None, off_policy=None, optimum=""
    )


@dataclass(frozen=True)
class GradientCheck:
    """One objective on random problems.

    Attributes:
        name: of the objective. off_policy: whether another policy drew the responses.
        claimed: the combination of functionals that it claims on the first problem; None if it claims none.
        error: largest ``|g - claimed| / max_k |c_k g_k|`` over the problems (against 1 if the claim is 0); NaN
            without a claim.
        found: the smallest combination of `LIBRARY` that is the gradient on all problems, else the best of three;
            without a claim only.
        problems, batches: how many were used, and how many batches one expectation enumerates.
        conditions: of the measurement, in words.
    """

    name: str
    off_policy: bool
    claimed: dict[str, float] | None
    error: float
    found: Combination | None
    problems: int
    batches: int
    conditions: str = ""

    @property
    def holds(self) -> bool:
        """The claim is met up to rounding (1e-10 leaves room for 10^4 batches of float64 sums)."""
        return self.claimed is None or self.error <= 1e-10


def check_gradient(
    objective: Objective,
    *,
    seeds: Sequence[int],
    off_policy: bool = False,
    deep: bool = False,
    near: float | None = None,
) -> GradientCheck:
    """The expected gradient on one random problem a seed, against the claim or searched in `LIBRARY`.

    Args:
        deep: at horizon 3 with the objective's ``deep`` vocabulary and groups.
        near: size of the logits' distances; None: N(0, 1) logits everywhere.

    Raises:
        ValueError: no seed, or off-policy for an objective whose responses come from the reference.
    """
    _validate.instance("objective", objective, Objective)
    seeds = [_validate.integer("seeds", seed, low=0) for seed in _validate.sequence("seeds", seeds)]
    off_policy, deep = _validate.flag("off_policy", off_policy), _validate.flag("deep", deep)
    if not seeds:
        _validate.fail("seeds", "needs at least one")
    if off_policy and objective.draws != "policy":
        _validate.fail("off_policy", f"the responses of {objective.name!r} come from the reference")
    objective = deepened(objective) if deep else objective
    claim = objective.population
    if off_policy:
        claim = objective.population if objective.off_policy == "same" else objective.off_policy
    claimed: list[dict[str, float]] = []
    errors, batches = [], 0
    unexplained: list[tuple[np.ndarray, TreeProblem]] = []
    for number, seed in enumerate(seeds):
        seen, about = problem_for(objective, seed, off_policy=off_policy, deep=deep, near=near)
        sizes = {"group_size": objective.group_size, "external": objective.external}
        found = expected_gradient(objective.loss, seen, **sizes, checked=number > 0)
        batches = found.batches
        if claim is None:
            unexplained.append((found.gradient, about))
            continue
        value = partial(functional_value, problem=about)
        setting = Setting(objective.group_size, about.success(), about.horizon, value)
        claimed.append(dict(claim(setting)))
        terms = {name: c * functional_gradient(name, about) for name, c in claimed[-1].items()}
        scale = max((float(np.linalg.norm(term)) for term in terms.values()), default=0.0) or 1.0
        errors.append(float(np.linalg.norm(found.gradient - sum(terms.values(), np.zeros(1)))) / scale)
    return GradientCheck(
        objective.name,
        off_policy,
        claimed[0] if claim is not None else None,
        max(errors) if errors else math.nan,
        _searched(unexplained, off_policy) if unexplained else None,
        len(seeds),
        batches,
        _conditions(objective, problem_for(objective, seeds[0], off_policy=off_policy, deep=deep, near=near)[0]),
    )


def _searched(found: Sequence[tuple[np.ndarray, TreeProblem]], off_policy: bool) -> Combination:
    names = (*LIBRARY, *(OFF_POLICY if off_policy else ()))
    columns = {n: np.concatenate([functional_gradient(n, problem).ravel() for _, problem in found]) for n in names}
    size = max(float(np.linalg.norm(c)) for c in columns.values())
    gradient = np.concatenate([g.ravel() for g, _ in found])
    return smallest_combination(distinct_columns(columns, smallest=1e-12 * size), gradient, exact=1e-9, zero=1e-12)


def _conditions(objective: Objective, problem: TreeProblem) -> str:
    """Rewards, lengths, groups, prompts and distance of a measurement."""
    rewards = "binary rewards" if objective.where.startswith("binary") else "N(0, 1) rewards"
    lengths = f"{problem.horizon} tokens" if len(set(problem.length)) == 1 else f"up to {problem.horizon} tokens"
    external = f" and {objective.external} external" if objective.external else ""
    group = f"groups of {objective.group_size}{external}" if objective.group_size else f"{objective.external} external"
    return f"{rewards}, {lengths}, {group}" + (f", {objective.prompts} prompts" if objective.prompts > 1 else "")


def descend(
    loss: LossFunction,
    problem: TreeProblem,
    *,
    steps: int,
    lr: float,
    group_size: int = 2,
    external: int = 0,
    record: Sequence[int] = (),
) -> list[np.ndarray]:
    r"""Exact expected updates in the tabular logits, natural at every prefix: ``z -= lr g / (d(s) pi(a|s))``.

    On-policy prompts are re-drawn from the current policy. Returns the policy's table after the numbers of steps in
    ``record`` and at the end, which comes early where no logit moves by more than 1e-15. The visits d(s) and pi are
    floored at 1e-12; ``lr`` is at most 1e100 in size (no entry of a step is longer than 2).
    """
    _validate.instance("problem", problem, TreeProblem)
    loss = _validate.function("loss", loss)
    steps, lr = _validate.integer("steps", steps, low=0), _validate.real("lr", lr, low=-1e100, high=1e100)
    record = _validate.sequence("record", record)
    marks = sorted({_validate.integer("record", k, low=0, high=steps) for k in record} | {steps})
    kept, still = [], False
    for k in range(steps + 1):
        if k in marks:
            kept.append(problem.tables["policy"])
        if still or k == steps:
            continue
        g = expected_gradient(loss, problem, group_size=group_size, external=external, checked=k > 0).gradient
        weight = problem.visits("behaviour")[:, None] * np.exp(problem.tables["policy"])
        step = np.clip(lr * g / np.maximum(weight, 1e-12), -2.0, 2.0)
        problem = problem.with_policy(log_normalize(problem.tables["policy"] - step))
        still = float(np.max(np.abs(step), initial=0.0)) <= 1e-15
    return kept


@dataclass(frozen=True)
class EndPoint:
    """Where exact expected updates end.

    Attributes:
        optimum: name of the closed form. distance: KL(end‖closed form) over sequences in nats; for
            ``"best response"`` the reward that is missing.
        others: the same to the other closed forms. reward, kl: of the end, to the reference.
    """

    optimum: str
    distance: float
    others: dict[str, float]
    reward: float
    kl: float


def end_point(objective: Objective, *, seed: int = 0, steps: int = 400, lr: float = 0.5) -> EndPoint:
    """Train on one random problem by `descend`, and compare with the closed forms.

    Raises:
        ValueError: the objective names no optimum.
    """
    _validate.instance("objective", objective, Objective)
    if not objective.optimum:
        _validate.fail("objective", f"{objective.name!r} names no closed form")
    problem, _ = problem_for(objective, seed)
    end = problem.with_policy(
        descend(
            objective.loss, problem, steps=steps, lr=lr, group_size=objective.group_size, external=objective.external
        )[-1]
    )
    distances = {name: sequence_kl(end, table) for name, table in closed_forms(problem).items()}
    distances["best response"] = float(np.mean([_best(end, i) for i in range(len(end.prompts))] - end.success()))
    others = {name: d for name, d in distances.items() if name != objective.optimum}
    return EndPoint(
        objective.optimum,
        distances[objective.optimum],
        others,
        float(end.success().mean()),
        functional_value("reverse_kl", end),
    )


def _best(problem: TreeProblem, prompt: int) -> float:
    return float(problem.reward[problem.prompt == prompt].max())


def sequence_kl(end: TreeProblem, table: np.ndarray) -> float:
    """``KL(end‖table)`` over sequences, mean over prompts, without cancellation of the two laws' rounding."""
    _validate.instance("end", end, TreeProblem)
    other = end.with_policy(table)
    log_p, log_q = end.log_prob("policy"), other.log_prob("policy")
    return float(np.sum(np.exp(log_p) * (log_p - log_q)) / len(end.prompts))


def closed_forms(problem: TreeProblem, *, beta: float = BETA, lam: float = LAM) -> dict[str, np.ndarray]:
    """Tables of the closed-form optima: tilts at ``beta``, mixtures at ``lam``, reference, teacher and its mode.

    ``beta`` in [1e-100, 1e100], ``lam`` at most 1e100 in size: then no logit overflows.
    """
    _validate.instance("problem", problem, TreeProblem)
    beta = _validate.real("beta", beta, low=1e-100, high=1e100)
    lam = _validate.real("lam", lam, low=-1e100, high=1e100)
    ref, teacher = problem.tables["ref"], problem.tables["teacher"]
    mixed = (1 - lam) * ref + lam * teacher
    log_ref, log_teacher = problem.log_prob("ref"), problem.log_prob("teacher")
    mode = np.where(teacher == teacher.max(axis=1, keepdims=True), 0.0, -700.0)
    return {
        "reference": ref,
        "teacher": teacher,
        "teacher's mode": log_normalize(mode),
        "token mixture": log_normalize(mixed),
        "sequence mixture": _from_sequences(problem, (1 - lam) * log_ref + lam * log_teacher),
        "sequence tilt": _from_sequences(problem, log_ref + problem.reward / beta),
        "token tilt": _token_tilt(problem, beta),
    }


def _from_sequences(problem: TreeProblem, log_weight: np.ndarray) -> np.ndarray:
    """Conditionals of a law over responses given by unnormalised log-weights."""
    mass = np.full(problem.tables["policy"].shape, -np.inf)
    for t in range(problem.horizon):
        at = problem.mask[:, t]
        np.logaddexp.at(mass, (problem.nodes[at, t], problem.tokens[at, t]), log_weight[at])
    return log_normalize(np.where(np.isinf(mass).all(axis=1, keepdims=True), 0.0, mass))


def _token_tilt(problem: TreeProblem, beta: float) -> np.ndarray:
    """``pi(a|s) ∝ ref(a|s) exp(V(sa)/beta)``, V the value under pi itself: the KL's credit stops at its own token."""
    table = np.array(problem.tables["ref"])
    for t in reversed(range(problem.horizon)):
        value = np.zeros(table.shape)
        below = np.ones(len(problem.reward))
        for later in range(t + 1, problem.horizon):
            step = table[problem.nodes[:, later], problem.tokens[:, later]]
            below = below * np.where(problem.mask[:, later], np.exp(step), 1.0)
        at = problem.mask[:, t]
        np.add.at(value, (problem.nodes[at, t], problem.tokens[at, t]), (below * problem.reward)[at])
        here = np.unique(problem.nodes[at, t])
        table[here] = log_normalize(problem.tables["ref"][here] + value[here] / beta)
    return table
