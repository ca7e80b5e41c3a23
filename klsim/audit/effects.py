"""What the numeric parameters of a loss do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klsim.audit.gradients import Gradients
from klsim.audit.identify import ZERO, Combination, identify
from klsim.audit.properties import reason
from klsim.audit.target import Target
from klsim.audit.worlds import PREFERENCE, world

__all__ = ["Effect", "effects"]


@dataclass(frozen=True)
class Effect:
    """What one more unit of a parameter adds to the on-policy gradient, with equal and with variable lengths.

    ``acts`` is False if the parameter changes no gradient at all, off-policy either (a clip range acts there).
    ``problem``: why it could not be varied; then nothing else is known. ``on_pairs``: of a loss on preference pairs;
    whether it acts is all that is known, the losses are not linear in their parameters.
    """

    parameter: str
    value: float
    change: Combination
    variable: Combination
    acts: bool
    problem: str = ""
    on_pairs: bool = False


def _varied(value: float) -> Sequence[float]:
    """Steps by which a parameter is tried: whole numbers by one, others by their own size or a tenth of it."""
    if isinstance(value, int):
        return (1, -1)
    return (abs(value), abs(value) / 10, -abs(value) / 10) if value else (0.1, 0.01)


def effects(target: Target, gradients: Gradients) -> tuple[Effect, ...]:
    """Of every numeric parameter of a target; those that cannot be varied say why."""
    return tuple(_effect(target, gradients, name, value) for name, value in target.parameters.items())


def _effect(target: Target, gradients: Gradients, name: str, value: float) -> Effect:
    setting = gradients.setting
    worlds = [n for n in ("equal lengths", "lengths") if gradients(n) is not None]
    nothing = Combination({}, 0.0, True)
    problem = ""
    for step in _varied(value):
        try:
            moved = Gradients(target.loss(**{name: value + step}), setting)
            if not worlds:
                moved.need("pairs")
                return Effect(name, value, nothing, nothing, _acts_elsewhere(gradients, moved, PREFERENCE), "", True)
            changes = {w: (moved.need(w) - gradients.need(w)) / step for w in worlds}
        except Exception as error:  # out of range, or whatever the loss says: reported
            problem = problem or reason(error)
            continue
        found = {w: identify(changes[w], w, setting) for w in worlds}
        change, variable = found.get("equal lengths", found["lengths"]), found["lengths"]
        acts = bool(change.coefficients or variable.coefficients) or _acts_elsewhere(gradients, moved)
        return Effect(name, value, change, variable, acts)
    return Effect(name, value, nothing, nothing, False, f"not varied: {problem}")


ELSEWHERE = ("off-policy", "sampler", "groups of 4", "far", "graded rewards", "vocabulary")


def _acts_elsewhere(one: Gradients, two: Gradients, names: Sequence[str] = ELSEWHERE) -> bool:
    for name in names:
        a, b = one(name), two(name)
        if a is not None and b is not None:
            if float(np.linalg.norm(a - b)) > ZERO * max(float(np.linalg.norm(a)), world(name, one.setting).unit):
                return True
        elif (a is None) != (b is None):
            return True
    return False
