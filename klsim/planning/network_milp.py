r"""The best action of a ReLU network that takes the action as input, by a mixed-integer linear programme (HiGHS).

For weights ``W_k``, biases ``b_k`` and the input ``h_0 = (a, s)`` the network is embedded exactly by

.. math:: W_k h_{k-1} + b_k = h_k - q_k, \quad 0 \le h_k \le M^+_k (1 - z_k),
          \quad 0 \le q_k \le M^-_k z_k, \quad z_k \in \{0,1\},

one binary a ReLU, and maximises the last, linear layer, whenever ``M+`` and ``M-`` are at least the largest positive
and negative pre-activations on the set. `interval_bounds` has such bounds.

Source: Xu, Wilder, Khalil, Tambe (2025), section 4.2; the formulation is Fischetti and Jo's (2018). Bounds that are far
too large are valid in exact arithmetic only: a solver that accepts ``z`` within 1e-6 of an integer leaks ``1e-6 M``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from klsim import _validate
from klsim.problems.action_models import ActionModel

__all__ = ["Embedded", "best_action", "contains", "feasible_actions", "interval_bounds"]

Pair = tuple[np.ndarray, np.ndarray]
Layers = list[Pair]


@dataclass(frozen=True)
class Embedded:
    """The optimum of an embedded network.

    Attributes:
        action: 0/1 vector ``(d,)``. value: the optimum of the programme, which is the network's output there where the
            bounds are valid. binaries: how many ReLUs the bounds leave undecided.
    """

    action: np.ndarray
    value: float
    binaries: int


def _layers(parameters: Any) -> Layers:
    """``(W (out, in), b (out,))`` a layer, from weights and biases in order."""
    given = _validate.sequence("parameters", parameters)
    if not given or len(given) % 2:
        _validate.fail("parameters", f"needs weights and biases in turn, got {len(given)} arrays")
    arrays = []
    for i, value in enumerate(given):
        (array,) = _validate.numpy_arrays(**{f"parameters[{i}]": value})
        arrays.append(np.asarray(_validate.finite(f"parameters[{i}]", np, array), dtype=np.float64))
    layers = list(zip(arrays[::2], arrays[1::2]))
    for k, (weights, bias) in enumerate(layers):
        if weights.ndim != 2 or 0 in weights.shape:
            _validate.fail(f"parameters[{2 * k}]", f"must be (out, in), one network, got shape {weights.shape}")
        if bias.shape != weights.shape[:1]:
            _validate.fail(f"parameters[{2 * k + 1}]", f"must have shape {weights.shape[:1]}, got {bias.shape}")
    for k, ((before, _), (after, _)) in enumerate(pairwise(layers)):
        if after.shape[1] != before.shape[0]:
            rule = f"has {after.shape[1]} inputs after a layer of {before.shape[0]} outputs"
            _validate.fail(f"parameters[{2 * k + 2}]", rule)
    return layers


def _box(layers: Layers, low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
    lowest, highest = _validate.numpy_arrays(low=low, high=high)
    wanted = (layers[0][0].shape[1],)
    for name, side in (("low", lowest), ("high", highest)):
        if side.shape != wanted:
            _validate.fail(name, f"must have shape {wanted}, one entry an input, got {side.shape}")
        _validate.finite(name, np, side)
    index = _validate.first_true(np, lowest > highest)
    if index is not None:
        _validate.fail("low", "must be at most high", float(lowest[index]), index)
    return np.asarray(lowest, dtype=np.float64), np.asarray(highest, dtype=np.float64)


def interval_bounds(parameters: Any, low: Any, high: Any) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Bounds ``(L_k, U_k)`` on the pre-activations of every layer for inputs in a box, by interval arithmetic.

    ``U = sum max(W lo, W hi) + b``, ``L`` with min; the next layer's box is ``[max(L, 0), max(U, 0)]``.

    Args:
        parameters: ``W_1 (out, in), b_1 (out,), W_2, …`` of one network of linear layers with ReLUs between them, as
            `klsim.learning.networks.Network` has them. low, high: ``(in,)``.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, ``low > high``, bounds that overflow.
    """
    layers = _layers(parameters)
    return _intervals(layers, *_box(layers, low, high))


def _intervals(layers: Layers, low: np.ndarray, high: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    found = []
    for weights, bias in layers:
        ends = weights * low, weights * high
        lower, upper = np.minimum(*ends).sum(axis=1) + bias, np.maximum(*ends).sum(axis=1) + bias
        _validate.representable("parameters", np, lower, upper)
        found.append((lower, upper))
        low, high = np.maximum(lower, 0.0), np.maximum(upper, 0.0)
    return tuple(found)


def _solved(
    cost: np.ndarray, rows: np.ndarray, sides: Pair, ends: Pair, whole: np.ndarray, gap: float = 0.0
) -> OptimizeResult:
    """HiGHS; at gap 0 it stops at an optimum, or at a proof that there is none."""
    constraints = LinearConstraint(sparse.csr_array(rows), *sides) if rows.size else ()
    return milp(cost, integrality=whole, bounds=Bounds(*ends), constraints=constraints, options={"mip_rel_gap": gap})


def contains(model: ActionModel, action: Any) -> bool:
    """Whether some values of the helpers make the 0/1 vector ``action (d,)`` feasible.

    Raises:
        TypeError: not an `ActionModel`. ValueError: not a 0/1 vector of its size, the solver gives up.
    """
    _validate.instance("model", model, ActionModel)
    vector = _validate.integers("action", action, low=0, high=1)
    if vector.shape != (model.size,):
        _validate.fail("action", f"must have shape {(model.size,)}, got {vector.shape}")
    moved = model.rows[:, : model.size] @ vector  # HiGHS is not asked about rows without helpers
    rows, sides = model.rows[:, model.size :], (model.lower - moved, model.upper - moved)
    empty = ~np.any(rows != 0, axis=1)
    if np.any((sides[0] > 0) & empty) or np.any((sides[1] < 0) & empty):
        return False
    if not rows.shape[1] or empty.all():
        return True
    ends = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    found = _solved(ends[0], rows[~empty], (sides[0][~empty], sides[1][~empty]), ends, ends[1])
    if found.status not in (0, 2):
        _validate.fail("model", f"the solver stopped without an answer ({found.message})")
    return bool(found.status == 0)


def feasible_actions(model: ActionModel) -> np.ndarray:
    """All 0/1 vectors of the set, ``(K, d)`` in the order of binary numbers; one programme a vector, ``2^d`` in all.

    Raises:
        TypeError: not an `ActionModel`. ValueError: ``size > 20``, the solver gives up.
    """
    _validate.instance("model", model, ActionModel)
    if model.size > 20:
        _validate.fail("model", f"lists the 2**{model.size} vectors of at most 20 entries")
    every = (np.arange(2**model.size)[:, None] >> np.arange(model.size)[::-1]) & 1
    return every[[contains(model, vector) for vector in every]]


def best_action(
    parameters: Any, state: Any, model: ActionModel, *, big_m: tuple[Any, Any] | None = None, relative_gap: float = 0.0
) -> Embedded:
    """``max Q(a, state)`` over the actions of the model, ``Q`` the scalar output of a ReLU network.

    Args:
        parameters: weights and biases in turn, as `interval_bounds`; inputs are the action, then the state; one output.
        state: ``(in - d,)``, entered as fixed values. model: the action set.
        big_m: ``(M+, M-)``, each one number for all hidden units or a list of one array a hidden layer, >= 0; None
            takes those of `interval_bounds` on ``a in [0, 1]^d`` and the given state. Too small ones change the
            optimum.
        relative_gap: at which the solver may stop, >= 0; 0 asks for the optimum.

    Raises:
        TypeError: not an `ActionModel`.
        ValueError: shapes that do not fit, values that are not finite, negative bounds, no feasible point (an empty
            set, or bounds below every activation), the solver gives up.
    """
    layers = _layers(parameters)
    _validate.instance("model", model, ActionModel)
    (fixed,) = _validate.numpy_arrays(state=state)
    size, inputs = model.size, layers[0][0].shape[1]
    if fixed.shape != (inputs - size,):
        _validate.fail("state", f"must have shape {(inputs - size,)}: {inputs} inputs, {size} of them the action's")
    _validate.finite("state", np, fixed)
    if layers[-1][0].shape[0] != 1:
        _validate.fail("parameters", f"needs one output, got {layers[-1][0].shape[0]}")
    _validate.real("relative_gap", relative_gap, low=0.0)
    bounds = _big_m(layers, size, fixed, big_m)
    found, constant = _programme(layers, fixed, model, bounds, float(relative_gap))
    if found.status == 2:
        _validate.fail("big_m" if big_m is not None else "model", "leaves no feasible point")
    if found.status != 0:
        _validate.fail("model", f"the solver stopped without an optimum ({found.message})")
    action = np.round(found.x[:size]).astype(np.int64)
    undecided = sum(int(np.sum((plus > 0) & (minus > 0))) for plus, minus in bounds)
    return Embedded(action, constant - float(found.fun), undecided)


def _big_m(layers: Layers, size: int, state: np.ndarray, given: Any) -> list[Pair]:
    """``(M+, M-)`` of every hidden layer."""
    widths = [weights.shape[0] for weights, _ in layers[:-1]]
    if given is None:
        box = np.concatenate([np.zeros(size), state]), np.concatenate([np.ones(size), state])
        return [(np.maximum(u, 0.0), np.maximum(-low, 0.0)) for low, u in _intervals(layers, *box)[:-1]]
    sides = []
    for i, side in enumerate(_validate.sequence("big_m", given)):
        name = f"big_m[{i}]"
        parts = side if isinstance(side, list | tuple) else [side] * len(widths)
        if len(parts) != len(widths):
            _validate.fail(name, f"needs a number, or one array for each of {len(widths)} hidden layers")
        arrays = []
        for part, width in zip(parts, widths):
            (array,) = _validate.numpy_arrays(**{name: part})
            if array.shape not in ((), (width,)):
                _validate.fail(name, f"must be a number or have shape {(width,)}, got {array.shape}")
            array = _validate.budgets(name, np, _validate.finite(name, np, array))
            arrays.append(np.broadcast_to(np.asarray(array, dtype=np.float64), (width,)))
        sides.append(arrays)
    if len(sides) != 2:
        _validate.fail("big_m", f"needs (M+, M-), got {len(sides)} entries")
    return [(plus, minus) for plus, minus in zip(*sides)]


def _programme(
    layers: Layers, state: np.ndarray, model: ActionModel, bounds: list[Pair], gap: float
) -> tuple[OptimizeResult, float]:
    """The solved programme, and what is added to its objective. Columns: the model's; ``h, q, z`` of every layer."""
    columns = model.rows.shape[1]
    total = columns + 3 * sum(len(plus) for plus, _ in bounds)
    low, high, whole = np.zeros(total), np.ones(total), np.ones(total)
    blocks = [np.pad(model.rows, ((0, 0), (0, total - columns)))]
    sides = [(model.lower, model.upper)]
    before, first, shift = np.arange(model.size), columns, layers[0][0][:, model.size :] @ state
    for (weights, bias), (plus, minus) in zip(layers[:-1], bounds):
        width = len(plus)
        each = np.arange(width)
        h, q, z = (first + i * width + each for i in range(3))
        block, caps = np.zeros((width, total)), np.zeros((2 * width, total))
        block[:, before] = weights[:, : len(before)]
        block[each, h], block[each, q] = -1.0, 1.0
        caps[each, h], caps[each, z] = 1.0, plus
        caps[width + each, q], caps[width + each, z] = 1.0, -minus
        blocks += [block, caps]
        fixed = -(bias + shift)
        sides += [(fixed, fixed), (np.full(2 * width, -np.inf), np.concatenate([plus, np.zeros(width)]))]
        high[h], high[q], whole[h], whole[q] = plus, minus, 0, 0
        low[z], high[z] = plus == 0, (minus > 0) | (plus == 0)  # decided units have no choice
        before, first, shift = h, first + 3 * width, np.zeros(1)
    weights, bias = layers[-1]
    cost = np.zeros(total)
    cost[before] = -weights[0, : len(before)]
    lower, upper = (np.concatenate(side) for side in zip(*sides))
    found = _solved(cost, np.concatenate(blocks), (lower, upper), (low, high), whole, gap)
    return found, float(bias[0] + shift[0])
