r"""The spanning capacity of a class of policies: how many state-action pairs it can reach at one layer.

.. math:: C_h(\Pi) = \max_M \#\{(s, a) : \text{some } \pi \in \Pi \text{ plays } a \text{ in } s \text{ at layer } h\},
          \qquad C(\Pi) = \max_h C_h(\Pi),

over deterministic layered problems M: one start state, and one successor of every (layer, state, action). It depends on
the class alone, is at most ``min(|Pi|, S A, A^h)``, and is the largest coverability of any problem, stochastic ones
included. The maximum is over the layers: with few states the last one alone may reach less than an earlier one.

`spanning_capacity` searches exactly. A layer is described by the set of policies in every state; each set splits by
action into parts, which go to any states (and may merge there). Equal descriptions are searched once.

Source: ``agnostic-rl``, definition of the spanning capacity.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.policy_classes import check_policies

__all__ = ["SpanningCapacity", "reached_pairs", "spanning_capacity"]

LIMIT = 3_000_000  # successors of a layer that are looked at

Groups = tuple[tuple[int, int], ...]  # (state, bits of the policies that are there)
Part = tuple[int, int, int]  # (state, action, bits)


@dataclass(frozen=True)
class SpanningCapacity:
    """The capacity and a deterministic problem that attains it.

    Attributes:
        value: ``max_h C_h``. layers: ``C_h``, ``(H,)``.
        start: the first state. successor: ``(H, S, A)``; pairs that no policy reaches lead to state 0, as those of the
            last layer do.
    """

    value: int
    layers: np.ndarray
    start: int
    successor: np.ndarray


@dataclass(frozen=True)
class _Plan:
    """Pairs reached at one layer, and the successors that lead there: ``((parts, targets), plan before them)``."""

    count: int
    steps: tuple[tuple[tuple[Part, ...], tuple[int, ...]], ...] = ()


@dataclass
class _Search:
    """Best plans from a layer on, memoised on who is where."""

    plays: list[list[dict[int, int]]]  # at layer h in state s: action -> bits of the policies that play it
    most: list[int]  # no layer reaches more
    known: dict[tuple[int, Groups], tuple[_Plan, ...]] = field(default_factory=dict)
    looked: int = 0

    def plans(self, layer: int, groups: Groups) -> tuple[_Plan, ...]:
        """For this layer and each later one, the plan that reaches most there."""
        key = (layer, groups)
        if key not in self.known:
            self.known[key] = self._plans(layer, groups)
        return self.known[key]

    def _plans(self, layer: int, groups: Groups) -> tuple[_Plan, ...]:
        actions = self.plays[layer]
        parts = tuple((s, a, bits & own) for s, bits in groups for a, own in actions[s].items() if bits & own)
        if layer == len(self.plays) - 1:
            return (_Plan(len(parts)),)
        best: list[_Plan] = [_Plan(0)] * (len(self.plays) - layer - 1)
        for targets in itertools.product(range(len(actions)), repeat=len(parts)):
            self.looked += 1
            if self.looked > LIMIT:
                _validate.fail("policies", f"the search looks at more than {LIMIT:,} successors: fewer states, layers")
            later = self.plans(layer + 1, _merged(parts, targets))
            for j, plan in enumerate(later):
                if plan.count > best[j].count:
                    best[j] = _Plan(plan.count, ((parts, targets), *plan.steps))
            if all(plan.count >= most for plan, most in zip(best, self.most[layer + 1 :])):
                break
        return (_Plan(len(parts)), *best)


def _merged(parts: tuple[Part, ...], targets: tuple[int, ...]) -> Groups:
    there: dict[int, int] = {}
    for (_, _, bits), state in zip(parts, targets):
        there[state] = there.get(state, 0) | bits
    return tuple(sorted(there.items()))


def spanning_capacity(policies: Any, actions: int | None = None) -> SpanningCapacity:
    """``C(Pi)`` exactly, with a problem that attains it; exponential in the pairs of a layer, for small classes.

    Args:
        policies: integers ``(N, H, S)``. actions: A; None takes the largest that occurs, plus one.

    Raises:
        TypeError: not integers. ValueError: shapes, unknown actions, a search of more than three million steps.
    """
    if actions is not None:
        actions = _validate.integer("actions", actions, low=1)
    table = check_policies(policies, actions=actions)
    count, horizon, states = table.shape
    width = int(table.max()) + 1 if actions is None else actions
    _validate.fits("policies" if actions is None else "actions", width, horizon * states * width)
    plays: list[list[dict[int, int]]] = [[{} for _ in range(states)] for _ in range(horizon)]
    for (i, h, state), action in np.ndenumerate(table):
        plays[h][state][int(action)] = plays[h][state].get(int(action), 0) | 1 << i
    search = _Search(plays, [min(count, states * width, width ** (h + 1)) for h in range(horizon)])
    everyone = (1 << count) - 1
    found = [search.plans(0, ((start, everyone),)) for start in range(states)]
    layers = np.array([max(plans[h].count for plans in found) for h in range(horizon)])
    layer = int(layers.argmax())
    start = max(range(states), key=lambda s: found[s][layer].count)
    successor = np.zeros((horizon, states, width), dtype=np.int64)
    for h, (parts, targets) in enumerate(found[start][layer].steps):
        for (s, a, _), target in zip(parts, targets):
            successor[h, s, a] = target
    return SpanningCapacity(int(layers.max()), layers, start, successor)


def reached_pairs(policies: Any, start: int, successor: Any) -> np.ndarray:
    """``(H, S, A)`` boolean: pairs that some policy ``(N, H, S)`` reaches in a deterministic problem.

    Args:
        start: the first state. successor: next states ``(H, S, A)``; those of the last layer do not matter.

    Raises:
        TypeError: not integers. ValueError: shapes, unknown states or actions.
    """
    moves = _validate.integers("successor", successor, low=0)
    if moves.ndim != 3 or 0 in moves.shape:
        _validate.fail("successor", f"must have shape (H, S, A), none of them 0, got {moves.shape}")
    horizon, states, actions = moves.shape
    moves = _validate.integers("successor", moves, low=0, high=states - 1)
    table = check_policies(policies, actions=actions, shape=(horizon, states))
    at = np.full(len(table), _validate.integer("start", start, low=0, high=states - 1))
    out = np.zeros(moves.shape, dtype=bool)
    for h in range(horizon):
        chosen = table[np.arange(len(table)), h, at]
        out[h, at, chosen] = True
        at = moves[h, at, chosen]
    return out
