r"""Temporal abstraction: open-loop options of a fixed duration, and the sweeps of value iteration that they save.

An option of duration ``tau`` is a sequence of actions that is carried out whatever happens. The decision problem over
options is a `DiscountedMDP` with the discount ``gamma^tau``: its Bellman operator is a ``gamma^tau`` contraction, and
``ceil(log(Vmax/eps)/(tau log(1/gamma)))`` sweeps from 0 bring the error below eps (`sweeps_bound`). In a deterministic
problem with all sequences the operator is ``T^tau``, so that the sweeps divide by tau; in a stochastic one open-loop
options lose value, and there are ``A^tau`` of them.

Source: Sutton, Precup & Singh (1999); ``ra3`` C3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.solve import backup, solve
from klsim.problems import DiscountedMDP

__all__ = ["open_loop_options", "sweeps_bound", "sweeps_needed"]


def open_loop_options(problem: DiscountedMDP, duration: int) -> DiscountedMDP:
    """The problem whose actions are all sequences of ``duration`` actions, in lexicographic order.

    Rewards are expected discounted sums over the sequence, the discount is ``discount ** duration``.

    Raises:
        ValueError: illegal actions; ``A ** duration`` sequences that do not fit in memory.
    """
    _validate.instance("problem", problem, DiscountedMDP)
    duration = _validate.integer("duration", duration, low=1)
    problem = problem.dense()
    states, actions = problem.shape
    if not np.all(problem.actions):
        _validate.fail("problem", "options need every action to be legal everywhere")
    _validate.outcomes("actions", actions, "duration", duration, each=8 * states * states)
    transition, reward = problem.transition, problem.reward
    for _ in range(duration - 1):
        later = np.einsum("sax,xb->sab", problem.transition, reward)
        reward = (problem.reward[..., None] + problem.discount * later).reshape(states, -1)
        transition = np.einsum("sax,xby->saby", problem.transition, transition).reshape(states, -1, states)
    return DiscountedMDP(transition, reward, problem.discount**duration, problem.initial)


def sweeps_needed(problem: DiscountedMDP, tolerance: float, *, target: Any = None) -> int:
    """Sweeps of value iteration from 0 until ``max_s |V - target| <= tolerance``; the target is ``V*`` unless given.

    Raises:
        ValueError: a tolerance that is not positive; a target (or rounding) that is not reached.
    """
    _validate.instance("problem", problem, DiscountedMDP)
    tolerance = _validate.real("tolerance", tolerance, low=0.0, open_low=True)
    (goal,) = _validate.numpy_arrays(target=solve(problem, beta=0.0).value if target is None else target)
    if goal.shape != problem.shape[:1]:
        _validate.fail("target", f"must have shape {problem.shape[:1]}, got {goal.shape}")
    _validate.finite("target", np, goal)
    value, sweeps, last = np.zeros(problem.shape[0]), 0, math.inf
    while np.max(np.abs(value - goal)) > tolerance:
        moved, _ = backup(problem, value, beta=0.0)
        step = float(np.max(np.abs(moved - value)))
        if step == 0 or (step >= last and step <= 1e-12 * float(np.max(np.abs(moved)))):
            _validate.fail("target", f"is not reached: value iteration stands still after {sweeps} sweeps")
        value, sweeps, last = moved, sweeps + 1, step
    return sweeps


def sweeps_bound(discount: float, tolerance: float, *, duration: int = 1, largest: float | None = None) -> int:
    """``ceil(log(Vmax/tolerance)/(duration log(1/discount)))``, at least 0.

    Args:
        discount: in (0, 1). tolerance: > 0. largest: ``Vmax``, the first error, 1/(1 - discount) unless given.
    """
    discount = _validate.real("discount", discount, low=0.0, high=1.0, open_low=True, open_high=True)
    tolerance = _validate.real("tolerance", tolerance, low=0.0, open_low=True)
    duration = _validate.integer("duration", duration, low=1)
    size = 1 / (1 - discount) if largest is None else _validate.real("largest", largest, low=0.0, open_low=True)
    return max(0, math.ceil((math.log(size) - math.log(tolerance)) / (-duration * math.log(discount))))
