r"""The audit: exact expected gradients on token trees, identified, and what follows from them.

Worlds of token trees (binary rewards, vocabulary 3, up to two tokens, one prompt a batch, groups of two, so that group
normalisation is one constant for all prompts): responses of equal length; of variable length; of equal length, but
drawn by another policy; of equal length with policies far from the reference. A gradient is identified if one
combination of at most three functionals gives it on all trees of a world up to rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from klsim import _validate
from klsim.audit.expectation import Expectation, parse_expectation
from klsim.audit.targets import GROUP, LossFunction, Target
from klsim.learning import (
    PromptTree,
    TreeProblem,
    expected_gradient,
    functional_gradient,
    functional_value,
    random_prompts,
)
from klsim.learning.objective_checks import closed_forms, descend, sequence_kl
from klsim.objectives.advantages import std_weight
from klsim.problems import TokenTree

__all__ = ["Audit", "Combination", "Effect", "Met", "audit", "combination_text", "effect_text"]

EXACT = 2e-5
"""A residual below this is rounding: some trainers compute in float32 (2^-24 = 6e-8 a term, and advantages cancel), and
add up to 1e-8 to denominators. Functionals of the library are apart by far more."""
ZERO = 1e-7
"""A gradient this small beside those of the library is float32 rounding of zero."""
NEAR = 0.5
"""Policies differ from the reference by logits of this size, as they do in training; "far": of size 1 on both sides."""
TREES = 5
LIBRARY = (
    "reward",
    "reward_per_token",
    "reward_over_length",
    "reverse_kl",
    "reverse_kl(frozen)",
    "forward_kl(frozen)",
    "js(frozen)",
    "chi2(frozen)",
    "entropy(frozen)",
    "reverse_kl(teacher, frozen)",
    "forward_kl(teacher, frozen)",
    "js(teacher, frozen)",
)
SUCCESSES = (0.1, 0.3, 0.5, 0.7, 0.9)
PROMPT_GROUP = 8


@dataclass(frozen=True)
class Combination:
    """A gradient as ``sum c_k grad F_k``; ``residual``: the share left over; ``exact``: it is rounding."""

    coefficients: Mapping[str, float]
    residual: float
    exact: bool


@dataclass(frozen=True)
class Effect:
    """What one more unit of a parameter adds to the on-policy gradient (equal lengths).

    ``acts`` is False if the parameter changes no gradient at all, off-policy either (a clip range acts there).
    """

    parameter: str
    value: float
    change: Combination
    acts: bool


@dataclass(frozen=True)
class Met:
    """Whether the loss descends ``-scale`` times the expected objective, in one world."""

    world: str
    scale: float
    residual: float
    met: bool


@dataclass(frozen=True)
class Audit:
    """What a loss implementation does.

    Attributes:
        target, version: what was audited. verdict: one sentence.
        equal, variable, off_policy: the gradient with equal lengths, with variable lengths, and (equal lengths) with
            responses of another policy.
        off_policy_as_on: the off-policy gradient is the on-policy combination.
        far_as_near: far from the reference too; false for clamps.
        effects: of the numeric parameters.
        prompt_weights: weight of ``grad p`` at success probabilities `SUCCESSES`, groups of 8, relative to p = 1/2.
        std_normalised: these are the weights of group normalisation, `klsim.objectives.std_weight`.
        variance: variance of a single-batch gradient relative to the best unbiased estimator with a constant baseline;
            None unless the gradient is that of the reward alone.
        end: reward, KL to the reference, and distances to closed forms after exact training.
        expected: of ``expect``, world by world.
    """

    target: str
    version: str
    verdict: str
    equal: Combination
    variable: Combination
    off_policy: Combination
    off_policy_as_on: bool
    far_as_near: bool
    effects: tuple[Effect, ...]
    prompt_weights: tuple[float, ...]
    std_normalised: bool
    variance: float | None
    end: Mapping[str, float]
    expectation: Expectation | None
    expected: tuple[Met, ...]

    @property
    def met(self) -> bool:
        """The expectation holds in every world (true if there is none)."""
        return all(m.met for m in self.expected)


@cache
def _world(kind: str) -> tuple[TreeProblem, ...]:
    eos = 0 if kind == "variable lengths" else None
    near = None if kind == "far" else NEAR
    made = (random_prompts(1, 710 + seed, eos=eos, off_policy=kind == "off-policy", near=near) for seed in range(TREES))
    return tuple(map(TreeProblem, made))


@cache
def _columns(kind: str) -> Mapping[str, np.ndarray]:
    """Gradients of the library on all trees of a world; lengths matter only where they vary."""
    names = [n for n in LIBRARY if kind == "variable lengths" or n not in ("reward_per_token", "reward_over_length")]
    return {n: np.concatenate([functional_gradient(n, p).ravel() for p in _world(kind)]) for n in names}


def _gradients(loss: LossFunction, kind: str) -> np.ndarray:
    return np.concatenate([expected_gradient(loss, p, group_size=GROUP).gradient.ravel() for p in _world(kind)])


def identify(gradient: np.ndarray, kind: str) -> Combination:
    """The smallest combination of at most three functionals that explains a world's gradient, else the best three."""
    columns = _columns(kind)
    size = float(np.linalg.norm(gradient))
    if size <= ZERO * max(float(np.linalg.norm(c)) for c in columns.values()):
        return Combination({}, 0.0, True)
    best: tuple[float, tuple[str, ...], np.ndarray] = (math.inf, (), np.zeros(0))
    for count in (1, 2, 3):
        for names in itertools.combinations(columns, count):
            matrix = np.stack([columns[n] for n in names], axis=1)
            found, *_ = np.linalg.lstsq(matrix, gradient, rcond=None)
            residual = float(np.linalg.norm(gradient - matrix @ found)) / size
            if residual < 0.999 * best[0]:
                best = (residual, names, found)
        if best[0] < EXACT:
            break
    return Combination({n: float(c) for n, c in zip(best[1], best[2])}, best[0], best[0] < EXACT)


def _same(gradient: np.ndarray, combination: Combination, kind: str) -> bool:
    """Whether an exact combination also gives the gradient of another world."""
    columns = _columns(kind)
    if not combination.exact or any(n not in columns for n in combination.coefficients):
        return False
    wanted = sum((c * columns[n] for n, c in combination.coefficients.items()), np.zeros_like(gradient))
    scale = max(float(np.linalg.norm(gradient)), float(np.linalg.norm(wanted)))
    return scale == 0 or float(np.linalg.norm(gradient - wanted)) < EXACT * scale


def _effects(target: Target, at: np.ndarray, off_policy: np.ndarray) -> tuple[Effect, ...]:
    out = []
    for name, value in target.parameters.items():
        step = abs(value) if value else 0.1
        try:
            moved = target.loss(**{name: value + step})
            change = identify((_gradients(moved, "equal lengths") - at) / step, "equal lengths")
            acts = bool(change.coefficients)
            if not acts:
                elsewhere = float(np.linalg.norm(_gradients(moved, "off-policy") - off_policy))
                acts = elsewhere > ZERO * float(np.linalg.norm(off_policy))
        except (ValueError, TypeError):
            continue  # out of range for the trainer
        out.append(Effect(name, float(value), change, acts))
    return tuple(out)


def _bandit(success: float) -> TreeProblem:
    """One token, right with probability ``success``; reference and teacher equal the policy, so KL gradients vanish."""
    level = (np.log([[success, 1 - success]]),)
    return TreeProblem([PromptTree(TokenTree(2, 1, [1.0, 0.0]), level, level, level)])


def _prompt_weights(loss: LossFunction) -> tuple[tuple[float, ...], bool]:
    weights = []
    for success in SUCCESSES:
        problem = _bandit(success)
        gradient = expected_gradient(loss, problem, group_size=PROMPT_GROUP).gradient
        reward = functional_gradient("reward", problem)
        weights.append(float(np.sum(gradient * reward) / np.sum(reward**2)))
    middle = weights[SUCCESSES.index(0.5)]
    if not middle:
        return tuple(0.0 for _ in weights), False
    relative = np.array(weights) / middle
    normalised = std_weight(np.array(SUCCESSES), PROMPT_GROUP)
    normalised = normalised / normalised[SUCCESSES.index(0.5)]
    # trainers add up to 1e-4 to the standard deviation
    return tuple(float(w) for w in relative), bool(np.abs(relative - normalised).max() < 2e-3)


def _variance(loss: LossFunction, combination: Combination) -> float | None:
    """Noise of one batch against REINFORCE with the best constant baseline, both scaled to the same mean."""
    if not combination.exact or set(combination.coefficients) != {"reward"}:
        return None
    problem = _world("equal lengths")[0]
    scale = combination.coefficients["reward"]
    p = np.exp(problem.log_prob("policy"))
    pi = np.exp(problem.tables["policy"])
    scores = np.zeros((len(p), *pi.shape))
    for i, t in zip(*np.nonzero(problem.mask)):
        scores[i, problem.nodes[i, t]] -= pi[problem.nodes[i, t]]
        scores[i, problem.nodes[i, t], problem.tokens[i, t]] += 1
    squared = np.sum(scores**2, axis=(1, 2))
    baseline = float(p @ (squared * problem.reward) / (p @ squared))
    mean = functional_gradient("reward", problem)
    best = float(p @ (squared * (problem.reward - baseline) ** 2) - np.sum(mean**2)) / GROUP
    moments = _second_moment(loss, problem) / scale**2 - float(np.sum(mean**2))
    return moments / best


def _second_moment(loss: LossFunction, problem: TreeProblem) -> float:
    """``E |g|^2`` of a single batch, over all ordered pairs of responses."""
    import torch

    from klsim.learning.expected_gradient import _Batches, _in_logits, _scalar

    made = _Batches(problem)
    p = np.exp(problem.log_prob("behaviour"))
    total = 0.0
    for i, j in itertools.combinations_with_replacement(range(len(p)), 2):
        value = _scalar(loss(made.batch(torch.tensor([i, j]))))
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, made.table)
            weight = p[i] * p[j] * (1 if i == j else 2)
            total += weight * float(np.sum(_in_logits(gradient.numpy(), problem, "policy") ** 2))
    return total


def _end(loss: LossFunction, combination: Combination) -> dict[str, float]:
    """Exact training on one tree, and how far it ends from the closed forms that the combination suggests."""
    problem = _world("variable lengths")[0]
    size = max((abs(c) for c in combination.coefficients.values()), default=0.0)
    if size == 0:
        return {}
    # natural steps of comparable size, whatever the loss's own scale
    end = problem.with_policy(descend(loss, problem, steps=120, lr=0.3 / max(size, 1e-3), group_size=GROUP)[-1])
    out = {"reward": float(end.success()[0]), "reverse_kl": max(functional_value("reverse_kl", end), 0.0)}
    c = combination.coefficients
    kl = c.get("reverse_kl", 0.0) + c.get("reverse_kl(frozen)", 0.0) + c.get("forward_kl(frozen)", 0.0)
    if c.get("reward", 0.0) < 0 < kl:
        forms = closed_forms(problem, beta=-kl / c["reward"])
        out |= {name: max(sequence_kl(end, forms[name]), 0.0) for name in ("sequence tilt", "token tilt")}
    elif kl > 0 or any("teacher" in name for name in c):
        forms = closed_forms(problem)
        out |= {name: max(sequence_kl(end, forms[name]), 0.0) for name in ("reference", "teacher")}
    return out


def _expected(loss: LossFunction, expectation: Expectation, worlds: Sequence[str]) -> tuple[Met, ...]:
    out = []
    for world in worlds:
        gradient = _gradients(loss, world)
        wanted = sum(
            (
                c * np.concatenate([functional_gradient(n, p).ravel() for p in _world(world)])
                for n, c in expectation.coefficients.items()
            ),
            np.zeros_like(gradient),
        )
        size = float(wanted @ wanted)
        scale = -float(gradient @ wanted) / size if size else 0.0
        left = float(np.linalg.norm(gradient + scale * wanted))
        residual = left / max(float(np.linalg.norm(gradient)), 1e-300)
        out.append(Met(world, scale, residual, scale > 0 and residual < EXACT))
    return tuple(out)


def audit(
    target: Target | LossFunction,
    *,
    expect: str | None = None,
    lengths: str = "both",
    parameters: Mapping[str, float] | None = None,
) -> Audit:
    """Audit a loss.

    Args:
        target: a `Target`, or a function of a `TokenBatch` of torch tensors that returns the loss (or it and a dict).
        expect: the objective to ascend, e.g. ``"reward - beta*reverse_kl(frozen)"``, up to a positive factor.
        lengths: of the responses for which ``expect`` must hold: ``"equal"``, ``"variable"`` or ``"both"``.
        parameters: values of names in ``expect``; the target's own parameters are known.

    Raises:
        ValueError: a bad expectation; a loss that depends on the order of responses or whose gradient is not finite.
        TypeError: a loss that does not return a scalar tensor.
    """
    _validate.one_of("lengths", lengths, ("equal", "variable", "both"))
    made = target if isinstance(target, Target) else Target(getattr(target, "__name__", "loss"), lambda: target)
    expectation = None if expect is None else parse_expectation(expect, {**made.parameters, **(parameters or {})})
    loss = made.loss()
    at = _gradients(loss, "equal lengths")
    equal = identify(at, "equal lengths")
    varied = _gradients(loss, "variable lengths")
    variable = identify(varied, "variable lengths")
    other = _gradients(loss, "off-policy")
    off_policy = identify(other, "off-policy")
    weights, normalised = _prompt_weights(loss)
    worlds = [f"{name} lengths" for name in ("equal", "variable") if lengths in (name, "both")]
    result = Audit(
        made.name,
        made.version,
        "",
        equal,
        variable,
        off_policy,
        _same(other, equal, "off-policy"),
        _same(_gradients(loss, "far"), equal, "far"),
        _effects(made, at, other),
        weights,
        normalised,
        _variance(loss, equal),
        _end(loss, equal),
        expectation,
        () if expectation is None else _expected(loss, expectation, worlds),
    )
    return replace(result, verdict=_verdict(result))


def combination_text(combination: Combination) -> str:
    """``-0.707 reward + 0.05 forward_kl(frozen)``; what is left if it is not exact."""
    if not combination.coefficients:
        return "0"
    parts = [f"{c:+.3g} {n}" for n, c in combination.coefficients.items()]
    text = " ".join(parts).removeprefix("+")
    return text if combination.exact else f"no combination; nearest {text}, {combination.residual:.0%} left"


def effect_text(effect: Effect) -> str:
    """What one more unit does, in words."""
    if effect.change.coefficients:
        return combination_text(effect.change)
    return "no effect on-policy, some off-policy" if effect.acts else "no effect"


_KL_WORDS = {
    "forward_kl(frozen)": "its KL term is the gradient of the forward KL(ref‖pi) over visited prefixes",
    "reverse_kl(frozen)": "its KL term is the per-token reverse KL with frozen visits",
    "reverse_kl": "its KL term is the reverse KL of sequences",
}


def _verdict(a: Audit) -> str:
    """One sentence."""
    parts = [f"descends {combination_text(a.equal)} (equal lengths)"]
    parts += [words for name, words in _KL_WORDS.items() if a.equal.exact and name in a.equal.coefficients]
    if a.equal.exact and a.equal.coefficients and not a.variable.exact:
        parts.append(f"no functional with variable lengths ({a.variable.residual:.0%} left)")
    elif a.variable.exact and {"reward_per_token", "reward_over_length"} & set(a.variable.coefficients):
        parts.append("weights responses by 1/length")
    for effect in a.effects:
        if not effect.change.coefficients:
            parts.append(f"{effect.parameter} has no effect{' on-policy' if effect.acts else ''}")
    if a.std_normalised:
        parts.append("rescales prompts by the group's standard deviation, 1/sqrt(p(1-p)) for large groups")
    if a.equal.exact and a.equal.coefficients and not a.far_as_near:
        parts.append("not far from the reference, where something is clamped")
    if a.equal.coefficients and not a.off_policy_as_on:
        parts.append("biased off-policy")
    if a.expectation is not None:
        parts.append(f"{'meets' if a.met else 'does NOT meet'} {a.expectation.text!r}")
    return "; ".join(parts) + "."


def as_json(a: Audit) -> dict[str, Any]:
    """The audit as JSON values."""
    return {**asdict(a), "met": a.met}
