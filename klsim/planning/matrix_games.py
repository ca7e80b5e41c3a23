r"""Zero-sum matrix games and coarse correlated equilibria, by linear programming.

Nash: ``max_x min_b (x'Q)_b``; its dual is the column player's strategy. A coarse correlated equilibrium of an upper and
a lower payoff is a joint law nu over (a, b) from which neither player gains by deviating to a fixed action *before* the
draw, the row player being paid U and the column player paying L:

.. math:: E_\nu U \ge \max_a E_{b\sim\nu_B} U(a, b), \quad E_\nu L \le \min_b E_{a\sim\nu_A} L(a, b).

It exists always, as a Nash equilibrium of the general-sum game (U, -L). If ``U >= Q >= L`` its marginals satisfy
``max_a Q(a, nu_B) - min_b Q(nu_A, b) <= E_nu[U - L]``.

Source: Xie, Chen, Wang & Yang (2020); ``contrastive-ucb`` C7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from klsim import _validate

__all__ = ["MatrixEquilibrium", "cce_regret", "coarse_correlated", "nash"]

_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@dataclass(frozen=True)
class MatrixEquilibrium:
    """Strategies of a zero-sum game.

    Attributes:
        log_row: ``(A,)``. log_column: ``(B,)``. value: ``x'Q y``.
        gap: ``max_a (Q y)_a - min_b (x'Q)_b``: certified bound on ``|value - optimum|``.
    """

    log_row: np.ndarray
    log_column: np.ndarray
    value: float
    gap: float


def _payoff(name: str, value: Any) -> np.ndarray:
    (given,) = _validate.numpy_arrays(**{name: value})
    if given.ndim != 2 or 0 in given.shape:
        _validate.fail(name, f"must have shape (A, B), A, B >= 1, got {given.shape}")
    _validate.finite(name, np, given)
    _validate.fits(name, given.size, given.size * sum(given.shape))
    if not float(np.abs(given).max()) < 1e300:
        _validate.fail(name, "must be below 1e300 in size")
    return np.asarray(given, dtype=np.float64)


def _scaled(payoff: np.ndarray) -> np.ndarray:
    """To [-1, 1]: equilibria do not change, and the solver's tolerances mean the same for every game."""
    low, high = float(payoff.min()), float(payoff.max())
    half = 0.5 * high - 0.5 * low
    return (payoff - (0.5 * high + 0.5 * low)) / half if half > 0 else np.zeros(payoff.shape)


def _law(x: np.ndarray) -> np.ndarray:
    x = np.maximum(x, 0.0)
    return np.asarray(x / x.sum())


def _log(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p))


def nash(payoff: Any) -> MatrixEquilibrium:
    """An equilibrium of the zero-sum game ``payoff (A, B)``, which the row player receives.

    Raises:
        ValueError: not a finite matrix, a solver that stops early.
    """
    payoff = _payoff("payoff", payoff)
    game = _scaled(payoff)
    rows, columns = game.shape
    matrix = np.concatenate([-game.T, np.ones((columns, 1))], axis=1)  # v <= (x'Q)_b
    found = linprog(
        np.append(np.zeros(rows), -1.0), A_ub=matrix, b_ub=np.zeros(columns),
        A_eq=np.append(np.ones(rows), 0.0)[None], b_eq=[1.0], bounds=[(0, None)] * rows + [(None, None)],
        method="highs", options=_OPTIONS,
    )  # fmt: skip
    if not found.success:
        _validate.fail("payoff", f"the solver stopped: {found.message}")
    x, y = _law(found.x[:rows]), _law(-found.ineqlin.marginals)
    return MatrixEquilibrium(
        _log(x), _log(y), float(x @ payoff @ y), max(float((payoff @ y).max() - (x @ payoff).min()), 0.0)
    )


def _joint(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    (given,) = _validate.numpy_arrays(joint=value)
    if given.shape != shape:
        _validate.fail("joint", f"must have shape {shape}, got {given.shape}")
    _validate.budgets("joint", np, given)
    if not abs(float(given.sum()) - 1) <= 1e-8:
        _validate.fail("joint", "must sum to 1", float(given.sum()))
    return given


def _pair(upper: Any, lower: Any) -> tuple[np.ndarray, np.ndarray]:
    upper, lower = _payoff("upper", upper), _payoff("lower", lower)
    if upper.shape != lower.shape:
        _validate.fail("lower", f"must have the shape of upper {upper.shape}, got {lower.shape}")
    return upper, lower


def cce_regret(upper: Any, lower: Any, joint: Any) -> float:
    """What the better of the two deviations gains: at most 0 for a coarse correlated equilibrium.

    ``max(max_a U(a, nu_B) - E_nu U, E_nu L - min_b L(nu_A, b))``.
    """
    upper, lower = _pair(upper, lower)
    joint = _joint(joint, upper.shape)
    row = float((upper @ joint.sum(axis=0)).max() - np.sum(joint * upper))
    column = float(np.sum(joint * lower) - (joint.sum(axis=1) @ lower).min())
    return max(row, column)


def coarse_correlated(upper: Any, lower: Any, objective: Any = None) -> np.ndarray:
    """The coarse correlated equilibrium ``(A, B)`` of least ``sum objective * nu``; any one without an objective.

    Raises:
        ValueError: shapes that differ, entries that are not finite, a solver that stops early.
    """
    upper, lower = _pair(upper, lower)
    cost = np.zeros(upper.shape) if objective is None else _scaled(_payoff("objective", objective))
    if cost.shape != upper.shape:
        _validate.fail("objective", f"must have shape {upper.shape}, got {cost.shape}")
    rows, columns = upper.shape
    u, low = _scaled(upper), _scaled(lower)
    row_gain = u[:, None, :] - u[None]  # (deviation, a, b)
    column_gain = np.moveaxis(low[:, :, None] - low[:, None, :], 2, 0)  # L(a, b) - L(a, deviation)
    gains = np.concatenate([row_gain.reshape(rows, -1), column_gain.reshape(columns, -1)])
    found = linprog(
        cost.ravel(), A_ub=sparse.csr_array(gains), b_ub=np.zeros(rows + columns),
        A_eq=np.ones((1, cost.size)), b_eq=[1.0], method="highs", options=_OPTIONS,
    )  # fmt: skip
    if not found.success:
        _validate.fail("upper", f"the solver stopped: {found.message}")
    return _law(found.x).reshape(upper.shape)
