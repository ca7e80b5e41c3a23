"""An expectation held against the gradient of a loss, world by world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from klsim.audit.expectation import Expectation
from klsim.audit.gradients import Gradients
from klsim.audit.identify import EXACT, ZERO
from klsim.audit.worlds import OFF_POLICY, World, world

__all__ = ["Fit", "Met", "Scale", "fits", "hold"]

Scale = Literal["one", "any", "prompt"]
"""Up to what an expectation holds: as it stands, up to one positive factor, or up to one a prompt."""


@dataclass(frozen=True)
class Met:
    """Whether the gradient of the loss is ``-scale`` times that of the expected objective, in one world.

    Attributes:
        world: its name. scale: the best one, or the one asked for. residual: share of the gradient left over.
        cosine: between the two. met: within rounding. why: what was found if not (an error, the opposite sign, …).
    """

    world: str
    scale: float
    residual: float
    cosine: float
    met: bool
    why: str = ""


@dataclass(frozen=True)
class Fit:
    """How well an off-policy gradient agrees with the expected one: cosine, residual at the best scale, that scale."""

    world: str
    cosine: float
    residual: float
    scale: float


def _wanted(expectation: Expectation, here: World) -> np.ndarray:
    total = np.zeros_like(here.column("reward"))
    for name, c in expectation.at(here.group_size).items():
        total = total + c * here.column(expectation.own.get(name, name))
    return total


def _hold(gradient: np.ndarray, expectation: Expectation, here: World, scale: Scale) -> Met:
    """Whether a gradient is that of minus the expected objective, in one world."""
    wanted = -_wanted(expectation, here)
    size, against = float(np.linalg.norm(gradient)), float(np.linalg.norm(wanted))
    small = ZERO * here.unit
    if against <= small or size <= small:
        left = max(size, against) / here.unit
        met = size <= small and against <= small
        why = "" if met else "no gradient is expected here" if against <= small else "the gradient is 0"
        return Met(here.name, 0.0, left if not met else 0.0, 0.0, met, why)
    cosine = float(gradient @ wanted) / (size * against)
    best = float(gradient @ wanted) / against**2
    blocks = _blocks(here) if scale == "prompt" else [slice(None)]
    fitted = np.zeros_like(gradient)
    positive = True
    for block in blocks:
        g, w = gradient[block], wanted[block]
        factor = 1.0 if scale == "one" else float(g @ w) / float(w @ w) if w.any() else 0.0
        positive &= factor > 0 or not w.any()
        fitted[block] = factor * w
    residual = float(np.linalg.norm(gradient - fitted)) / max(size, against if scale == "one" else size)
    met = residual < EXACT and positive
    best_left = float(np.linalg.norm(gradient - best * wanted)) / size
    why = ""
    if not met and best_left < EXACT:
        why = "the sign is the opposite" if best < 0 else f"it is {best:.4g} times what was expected"
        if scale == "one" and abs(best + 1) > EXACT and best < 0:
            why = f"the sign is the opposite, and the scale {-best:.4g}"
    return Met(here.name, best, residual if scale != "any" or best > 0 else best_left, cosine, met, why)


def _blocks(here: World) -> list[np.ndarray]:
    """The parts of a flat gradient that belong to each prompt, and the rest."""
    problem = here.problem
    vocab, flat = problem.vocab, here.column("reward")
    owner = np.full(flat.shape, -1)
    owner[: len(problem.node_prompt) * vocab] = np.repeat(problem.node_prompt, vocab)
    return [np.flatnonzero(owner == i) for i in range(-1, len(problem.prompts))]


AT_LAST = ", rewards at the last token"
OPTIONAL = ("rewards at tokens",)
"""A loss that takes one reward a response refuses these; that is said, and no failure."""


def hold(
    gradients: Gradients, expectation: Expectation, worlds: Sequence[str], scale: Scale, mixes: str = ""
) -> tuple[Met, ...]:
    """The expectation in every one of some worlds.

    Args:
        mixes: how prompts of a batch act on each other. Up to a factor of every prompt, that factor has to be its own.
    """
    out = []
    for name in worlds:
        one = _in_world(gradients, expectation, name, scale)
        if one is not None:
            out.append(replace(one, met=False, why=mixes) if mixes and name == "two prompts" else one)
    return tuple(out)


def _in_world(gradients: Gradients, expectation: Expectation, name: str, scale: Scale) -> Met | None:
    gradient, setting = gradients(name), gradients.setting
    if gradient is None:
        if name in OPTIONAL:
            return None
        one = Met(name, 0.0, 1.0, 0.0, False, f"could not be evaluated: {gradients.skipped[name]}")
    else:
        one = _hold(gradient, expectation, world(name, setting), scale)
    if not one.met and name in ("left padding", "holes") and not (expectation.of_a_batch or expectation.about_pairs):
        again = gradients(name + AT_LAST)
        if again is not None:
            other = _hold(again, expectation, world(name + AT_LAST, setting), scale)
            one = replace(other, why="only with rewards at tokens") if other.met else one
    return one


def fits(gradients: Gradients, expectation: Expectation, where: str = "") -> tuple[Fit, ...]:
    """The off-policy gradients against the expected ones, each at its best scale; ``where``: of which lengths."""
    out = []
    for name in OFF_POLICY:
        gradient = gradients(name + where)
        if gradient is None:
            continue
        here = world(name + where, gradients.setting)
        wanted = -_wanted(expectation, here)
        size, against = float(np.linalg.norm(gradient)), float(np.linalg.norm(wanted))
        if size <= ZERO * here.unit or against <= ZERO * here.unit:
            out.append(Fit(name, 0.0, 1.0, 0.0))
            continue
        best = float(gradient @ wanted) / against**2
        out.append(Fit(name, best * against / size, float(np.linalg.norm(gradient - best * wanted)) / size, best))
    return tuple(out)
