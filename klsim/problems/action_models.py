r"""Sets of 0/1 action vectors described by linear rows with binary helpers, as mixed-integer programmes take them.

An `ActionModel` is the set

.. math:: \{a \in \{0,1\}^d : \; lower \le A a + C x \le upper \text{ for some binary } x \in \{0,1\}^e\},

and the four of Xu et al. (2025) are `budget_model`, `walk_model`, `schedule_model` and `packing_model`. Their
enumeration and the optimum over them are in `klsim.planning.network_milp`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate

__all__ = ["ActionModel", "budget_model", "packing_model", "schedule_model", "walk_model"]


@dataclass(frozen=True)
class ActionModel:
    """``lower <= rows (a, x) <= upper``; the first ``size`` columns are the action's, all variables are binary.

    Attributes:
        rows: ``(m, size + e)``, finite; m and e may be 0.
        lower, upper: ``(m,)``, not NaN, ``lower <= upper``; infinite where a side is free.
        size: d >= 1.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, a lower side above its upper.
    """

    rows: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    size: int

    def __post_init__(self) -> None:
        rows, lower, upper = _validate.numpy_arrays(rows=self.rows, lower=self.lower, upper=self.upper)
        size = _validate.integer("size", self.size, low=1)
        if rows.ndim != 2 or rows.shape[1] < size:
            _validate.fail("rows", f"must be (m, size + e) with size = {size}, got shape {rows.shape}")
        _validate.finite("rows", np, rows)
        for name, side in (("lower", lower), ("upper", upper)):
            if side.shape != rows.shape[:1]:
                _validate.fail(name, f"must have shape {rows.shape[:1]}, one entry a row, got {side.shape}")
            _validate.not_nan(name, np, side)
        index = _validate.first_true(np, ~(lower <= upper))
        if index is not None:
            _validate.fail("lower", "must be at most upper", float(lower[index]), index)
        for name, value in (("rows", rows), ("lower", lower), ("upper", upper), ("size", size)):
            object.__setattr__(self, name, np.asarray(value, dtype=np.float64) if name != "size" else value)


class _Rows:
    """Rows as they are written: ``{column: coefficient}`` between two sides."""

    def __init__(self, size: int, helpers: int) -> None:
        self.size, self.columns = size, size + helpers
        self.rows: list[np.ndarray] = []
        self.sides: list[tuple[float, float]] = []

    def add(self, entries: Iterable[tuple[int, float]], lower: float, upper: float) -> None:
        row = np.zeros(self.columns)
        for column, coefficient in entries:
            row[column] += coefficient
        self.rows.append(row)
        self.sides.append((lower, upper))

    def at_most(self, budget: int) -> None:
        """``sum a <= budget``."""
        self.add(((v, 1.0) for v in range(self.size)), -np.inf, budget)

    def model(self) -> ActionModel:
        sides = np.array(self.sides).reshape(-1, 2)
        rows = np.array(self.rows).reshape(-1, self.columns)
        return ActionModel(rows, sides[:, 0], sides[:, 1], self.size)


def budget_model(size: int, budget: int) -> ActionModel:
    """``{a in {0,1}^size : sum a <= budget}``.

    Raises:
        ValueError: ``size < 1`` or ``budget < 0``.
    """
    size, budget = _validate.integer("size", size, low=1), _validate.integer("budget", budget, low=0)
    made = _Rows(size, 0)
    made.at_most(budget)
    return made.model()


def _graph(adjacency: Any) -> np.ndarray:
    given = _validate.boolean_mask("adjacency", adjacency)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not given.size:
        _validate.fail("adjacency", f"must be (V, V), V >= 1, got shape {given.shape}")
    index = _validate.first_true(np, given != given.T)
    if index is not None:
        _validate.fail("adjacency", "must be symmetric", bool(given[index]), index)
    if np.diag(given).any():
        _validate.fail("adjacency", "must have no loops: waiting is not an edge")
    return given


def walk_model(
    adjacency: Any, source: int, length: int, budget: int, *, waiting: bool = True, loose_loops: bool = False
) -> ActionModel:
    r"""Nodes on a closed walk of at most ``length`` moves from the source, at most ``budget`` of them chosen.

    Binary ``y[t, u, v]``, ``t = 1 … L``, over both directions of every edge and the waiting arcs ``(v, v)``:
    ``sum_uv y[t, u, v] = 1``; the first arc leaves the source, the last one enters it;
    ``sum_u y[t, u, v] = sum_w y[t+1, v, w]``; ``a_v <= sum_{t, u} y[t, u, v]``; ``sum a <= budget``.

    Args:
        adjacency: ``(V, V)`` booleans, symmetric, no loops. source: a node. length: L >= 1. budget: >= 0.
        waiting: allow the waiting arcs. Without them walks have exactly L moves.
        loose_loops: arcs ``(v, v)`` count in the flow rows and as visits, but neither in the unit flow of a step nor at
            the source: the rows of the released code, under which a loop at any node runs for itself.

    Raises:
        ValueError: not a graph, no such node, ``length < 1``, ``budget < 0``.
    """
    graph = _graph(adjacency)
    nodes = len(graph)
    source = _validate.integer("source", source, low=0, high=nodes - 1)
    length, budget = _validate.integer("length", length, low=1), _validate.integer("budget", budget, low=0)
    waiting, loose = _validate.flag("waiting", waiting), _validate.flag("loose_loops", loose_loops)
    drawn = graph | (np.eye(nodes, dtype=bool) & (waiting or loose))
    arcs = [(int(u), int(v)) for u, v in np.argwhere(drawn)]
    made = _Rows(nodes, length * len(arcs))
    _validate.fits("length", length, 4.0 * length * nodes * made.columns)

    def column(t: int, arc: int) -> int:
        return nodes + t * len(arcs) + arc

    numbered = list(enumerate(arcs))
    counted = [(i, arc) for i, arc in numbered if not (loose and arc[0] == arc[1])]
    for t in range(length):
        made.add(((column(t, i), 1.0) for i, _ in counted), 1, 1)
    for t, end in ((0, 0), (length - 1, 1)):
        made.add(((column(t, i), 1.0) for i, arc in counted if arc[end] != source), 0, 0)
    for t in range(length - 1):
        for v in range(nodes):
            into = [(column(t, i), 1.0) for i, arc in numbered if arc[1] == v]
            out = [(column(t + 1, i), -1.0) for i, arc in numbered if arc[0] == v]
            made.add([*into, *out], 0, 0)
    for v in range(nodes):
        visits = [(column(t, i), -1.0) for t in range(length) for i, arc in numbered if arc[1] == v]
        made.add([(v, 1.0), *visits], -np.inf, 0)
    made.at_most(budget)
    return made.model()


def _calendar(name: str, value: Any, slots: int | None = None) -> np.ndarray:
    given = _validate.boolean_mask(name, value)
    if given.ndim != 2 or 0 in given.shape:
        _validate.fail(name, f"must be (people, slots), both >= 1, got shape {given.shape}")
    if slots is not None and given.shape[1] != slots:
        _validate.fail(name, f"must have {slots} slots as workers, got {given.shape[1]}")
    return given


def schedule_model(workers: Any, arms: Any, budget: int, *, units: int = 2, distinct: bool = False) -> ActionModel:
    """Arms that can each be given ``units`` (worker, slot) units, a worker serving one arm a slot, both free then.

    Binary ``x[i, j, s]`` where worker i and arm j are free in slot s: ``sum_j x[i, j, s] <= 1``,
    ``units a_j <= sum_is x[i, j, s]``, ``sum a <= budget``.

    Args:
        workers: ``(I, slots)`` booleans, free or not. arms: ``(J, slots)``. budget: >= 0. units: >= 1.
        distinct: the units of an arm come from different workers, ``sum_s x[i, j, s] <= 1``.

    Raises:
        ValueError: calendars that do not fit, ``budget < 0``, ``units < 1``.
    """
    free = _calendar("workers", workers)
    wanted = _calendar("arms", arms, free.shape[1])
    budget, units = _validate.integer("budget", budget, low=0), _validate.integer("units", units, low=1)
    _validate.flag("distinct", distinct)
    triples = np.argwhere(free[:, None, :] & wanted[None, :, :])  # (worker, arm, slot)
    made = _Rows(len(wanted), len(triples))

    def where(**fixed: int) -> list[tuple[int, float]]:
        kept = np.ones(len(triples), dtype=bool)
        for axis, name in enumerate(("worker", "arm", "slot")):
            if name in fixed:
                kept &= triples[:, axis] == fixed[name]
        return [(made.size + int(i), 1.0) for i in np.flatnonzero(kept)]

    for i, s in np.argwhere(free).tolist():
        made.add(where(worker=i, slot=s), -np.inf, 1)
    for j in range(len(wanted)):
        made.add([(j, float(units)), *((c, -1.0) for c, _ in where(arm=j))], -np.inf, 0)
        if distinct:
            for i in range(len(free)):
                made.add(where(worker=i, arm=j), -np.inf, 1)
    made.at_most(budget)
    return made.model()


def packing_model(costs: Any, capacities: Any) -> ActionModel:
    """Arms that pack into the workers' capacities: ``sum_j cost_j x[i, j] <= cap_i``, ``a_j <= sum_i x[i, j]``.

    Args:
        costs: ``(J,)``, >= 0. capacities: ``(I,)``, >= 0.

    Raises:
        ValueError: not vectors, entries that are negative or not finite.
    """
    cost, room = _validate.numpy_arrays(costs=costs, capacities=capacities)
    for name, value in (("costs", cost), ("capacities", room)):
        if value.ndim != 1 or not value.size:
            _validate.fail(name, f"must be a vector of one entry or more, got shape {value.shape}")
        _validate.budgets(name, np, _validate.finite(name, np, value))
    arms, workers = len(cost), len(room)
    made = _Rows(arms, workers * arms)
    for i in range(workers):
        made.add(((arms + i * arms + j, float(cost[j])) for j in range(arms)), -np.inf, float(room[i]))
    for j in range(arms):
        made.add([(j, 1.0), *((arms + i * arms + j, -1.0) for i in range(workers))], -np.inf, 0)
    return made.model()
