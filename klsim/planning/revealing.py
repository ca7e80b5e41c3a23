r"""How much observations reveal: left inverses of emission matrices, and what they are good for.

An emission matrix ``M (O, S)`` (column = law of what is seen in a state) is *alpha-revealing* if it has a left inverse
``G M = I`` with ``‖G‖_{1→1} <= 1/alpha``; the norm is the largest l1 norm of a column, and the best ``alpha`` a linear
program (`revealing_constant`). With ``m`` steps, ``M`` is the law of ``m`` observations under ``m - 1`` fixed actions
(`emission_action_blocks`); a block's constant bounds that of all blocks together from below.

Seeing through ``G`` turns a POMDP into products of matrices over observations alone (`operator_law`).

Source: ``revealing-pomdp`` C1-C3; Jin, Kakade, Krishnamurthy, Liu (2020).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from klsim import _validate
from klsim.problems import POMDP

__all__ = ["LeftInverse", "emission_action_blocks", "left_inverse", "operator_law", "revealing_constant", "separation"]


@dataclass(frozen=True)
class LeftInverse:
    """A left inverse of least norm. Attributes: matrix: ``G (S, O)``. norm: its largest column l1 norm."""

    matrix: np.ndarray
    norm: float


def _full_rank(matrix: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(matrix) == matrix.shape[1])


def _emissions(matrix: Any) -> np.ndarray:
    (matrix,) = _validate.numpy_arrays(matrix=matrix)
    if matrix.ndim != 2 or 0 in matrix.shape:
        _validate.fail("matrix", f"must have shape (O, S), got {matrix.shape}")
    return np.asarray(_validate.finite("matrix", np, matrix), dtype=np.float64)


def left_inverse(matrix: Any) -> LeftInverse:
    r"""``argmin {‖G‖_{1→1} : G M = I}`` of ``M (O, S)``, by linear programming in ``(G^+, G^-, t)``.

    The solution is moved onto ``G M = I`` exactly (to rounding), so that its norm is one that is attained.

    Raises:
        ValueError: dependent columns: there is no left inverse.
    """
    matrix = _emissions(matrix)
    if not _full_rank(matrix):
        _validate.fail("matrix", "needs independent columns, to have a left inverse")
    symbols, states = matrix.shape
    size = states * symbols  # G is stored row by row
    inverse = sparse.kron(sparse.eye(states), matrix.T)  # vec(G M) = (I kron M^T) vec(G)
    columns = sparse.kron(np.ones((1, states)), sparse.eye(symbols))
    found = linprog(
        np.append(np.zeros(2 * size), 1.0),
        A_ub=sparse.hstack([columns, columns, -np.ones((symbols, 1))], format="csr"),
        b_ub=np.zeros(symbols),
        A_eq=sparse.hstack([inverse, -inverse, sparse.csr_array((states * states, 1))], format="csr"),
        b_eq=np.eye(states).ravel(),
        bounds=(0, None),
    )
    if not found.success:
        raise RuntimeError(f"the linear program of the left inverse failed: {found.message}")
    inverse = (found.x[:size] - found.x[size : 2 * size]).reshape(states, symbols)
    inverse = inverse - (inverse @ matrix - np.eye(states)) @ np.linalg.pinv(matrix)
    return LeftInverse(inverse, float(np.abs(inverse).sum(axis=0).max()))


def revealing_constant(matrix: Any) -> float:
    """``alpha = 1 / min {‖G‖_{1→1} : G M = I}`` of ``M (O, S)``; 0 where columns are dependent."""
    matrix = _emissions(matrix)
    return 1.0 / left_inverse(matrix).norm if _full_rank(matrix) else 0.0


def separation(matrix: Any) -> float:
    r"""``inf_v ‖M v‖_1 / ‖v‖_1``: how far apart beliefs stay. One linear program a sign pattern of v, ``2^{S-1}``.

    At least `revealing_constant`, since ``‖v‖ = ‖G M v‖ <= ‖G‖ ‖M v‖``; equal for ``S = 2`` and for ``O = S``.

    Raises:
        ValueError: more than 12 states.
    """
    matrix = _emissions(matrix)
    symbols, states = matrix.shape
    if states > 12:
        _validate.fail("matrix", f"2**{states - 1} linear programs are too many; at most 12 columns")
    cost = np.concatenate([np.zeros(states), np.ones(symbols)])
    total = np.concatenate([np.ones(states), np.zeros(symbols)])[None]
    best = math.inf
    for tail in itertools.product((1.0, -1.0), repeat=states - 1):
        signed = matrix * np.array([1.0, *tail])
        bounds = np.block([[signed, -np.eye(symbols)], [-signed, -np.eye(symbols)]])
        found = linprog(cost, A_ub=bounds, b_ub=np.zeros(2 * symbols), A_eq=total, b_eq=[1.0], bounds=(0, None))
        if not found.success:
            raise RuntimeError(f"the linear program of the separation failed: {found.message}")
        best = min(best, float(np.abs(signed @ found.x[:states]).sum() / found.x[:states].sum()))
    return best


def emission_action_blocks(problem: POMDP, step: int, length: int) -> np.ndarray:
    """``P(o_h … o_{h+m-1} | s_h, a_h … a_{h+m-2})`` for ``h = step``, ``m = length``: ``(A^{m-1}, O^m, S)``.

    Actions and observations are numbered with the earliest first in significance.

    Raises:
        ValueError: steps that the problem does not have, blocks that do not fit.
    """
    _validate.instance("problem", problem, POMDP)
    horizon, states, actions, symbols = problem.sizes
    length = _validate.integer("length", length, low=1, high=horizon)
    step = _validate.integer("step", step, low=0, high=horizon - length)
    _validate.outcomes("A O", actions * symbols, "length", length, each=8 * states)
    blocks = problem.emission[step + length - 1].T[None]  # (1, O, S)
    for t in range(step + length - 2, step - 1, -1):
        ahead = np.einsum("kor,sar->akos", blocks, problem.transition[t])
        seen = problem.emission[t].T  # (O, S)
        blocks = (seen[:, None] * ahead[:, :, None]).reshape(actions * len(blocks), -1, states)
    return blocks


def operator_law(problem: POMDP, actions: Sequence[int], inverses: Any) -> np.ndarray:
    r"""``P(o_0 … o_{H-1} | do(a_0 … a_{H-2}))`` without a latent state, ``(O,) * H``:

    ``e_{o_{H-1}}^T B_{H-2} … B_0 (M_0 mu)``, ``B_t = M_{t+1} T_{t,a}^T diag(M_t(o_t|.)) G_t``, for any ``G_t M_t = I``.

    Args:
        actions: ``H - 1`` of them. inverses: ``G (H - 1, S, O)``, left inverses of the emissions of the first steps;
            not checked: with other matrices the result is no law.

    Raises:
        ValueError: shapes, unknown actions.
    """
    _validate.instance("problem", problem, POMDP)
    horizon, states, count, symbols = problem.sizes
    taken = _validate.integers("actions", actions, low=0, high=count - 1)
    if taken.shape != (horizon - 1,):
        _validate.fail("actions", f"needs H - 1 = {horizon - 1} of them, got shape {taken.shape}")
    (inverses,) = _validate.numpy_arrays(inverses=inverses)
    if inverses.shape != (horizon - 1, states, symbols):
        _validate.fail("inverses", f"must have shape {(horizon - 1, states, symbols)}, got {inverses.shape}")
    _validate.finite("inverses", np, inverses)
    _validate.outcomes("O", symbols, "horizon", horizon)
    law = problem.emission[0].T @ problem.initial  # (..., O): the last axis is predicted
    for t in range(horizon - 1):
        hidden = law @ inverses[t].T  # (..., S)
        seen = hidden[..., None, :] * problem.emission[t].T  # (..., O, S)
        law = seen @ problem.transition[t, :, taken[t]] @ problem.emission[t + 1]
    return law
