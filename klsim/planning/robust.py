r"""Robust planning with a price on perturbations, exact and from data.

An adversary may change the transitions and pays ``lam D(changed‖nominal)``; every backup becomes a regularised worst
case (`klsim.optima.worst_case`). In a linear MDP it changes (and pays for) each latent factor on its own, so the backup
stays linear in the features; unstructured, it pays for each pair. `pessimistic_values` does the same from data: ridge
regression on the dual of the worst case, minus a bonus (R2PVI). Without a divergence it is plain pessimistic value
iteration.

Source: ``robust-fdiv``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.divergences import Generator
from klsim.optima import worst_case
from klsim.problems import LinearMDP, TabularMDP, Transitions

__all__ = [
    "Divergence",
    "PessimisticValues",
    "RobustValues",
    "pessimistic_values",
    "robust_values",
    "worst_case_regression",
]

Divergence = Literal["tv", "kl", "chi2", "none"]
"""The divergence that prices perturbations; ``none``: there are none."""


@dataclass(frozen=True)
class RobustValues:
    """Values of a robust problem.

    Attributes:
        value: ``(H + 1, S)``, zero at the end. q_value: ``(H, S, A)``. policy: ``(H, S)`` the actions taken.
        factor_value: ``(H, d)``, the worst case of each latent factor; None if unstructured.
    """

    value: np.ndarray
    q_value: np.ndarray
    policy: np.ndarray
    factor_value: np.ndarray | None


def robust_values(
    problem: LinearMDP | TabularMDP, lam: float, generator: Generator | str, *, policy: Any = None
) -> RobustValues:
    r"""``V_h(s) = max_a r + inf { E V_{h+1} + lam D }``, by backward recursion; ``policy`` ``(H, S)`` evaluates one.

    `LinearMDP`: the infimum factor by factor, ``Q_h = <phi, theta_h + w_h>``,
    ``w_hi = inf_mu E_mu V + lam D(mu‖mu_hi)``. `TabularMDP`: pair by pair, never larger for the same
    problem (equal for TV).

    Raises:
        ValueError: ``lam <= 0``, a policy of a wrong shape or with unknown actions.

    Source: ``robust-fdiv`` C2.
    """
    _validate.instance("problem", problem, LinearMDP, TabularMDP)
    lam = _validate.real("lam", lam, low=0.0, open_low=True)
    problem = problem.dense() if isinstance(problem, TabularMDP) else problem
    horizon, states, actions = problem.shape
    chosen = None if policy is None else _actions(policy, (horizon, states), actions)
    value, q_value = np.zeros((horizon + 1, states)), np.empty(problem.shape)
    taken = np.empty((horizon, states), dtype=np.int64)
    factors = np.zeros(problem.theta.shape) if isinstance(problem, LinearMDP) else None
    for h in range(horizon - 1, -1, -1):
        if isinstance(problem, LinearMDP):
            assert factors is not None
            factors[h] = _worst(problem.factors[h], value[h + 1], lam, generator)
            q_value[h] = problem.features @ (problem.theta[h] + factors[h])
        else:
            q_value[h] = problem.reward[h] + _worst(problem.transition[h], value[h + 1], lam, generator)
        taken[h] = q_value[h].argmax(axis=1) if chosen is None else chosen[h]
        value[h] = np.take_along_axis(q_value[h], taken[h][:, None], axis=1)[:, 0]
    return RobustValues(value, q_value, taken, factors)


def _worst(law: np.ndarray, value: np.ndarray, lam: float, generator: Generator | str) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(worst_case(np.log(law), np.broadcast_to(value, law.shape), lam, generator))


def _actions(policy: Any, shape: tuple[int, int], actions: int) -> np.ndarray:
    table = _validate.integers("policy", policy, low=0, high=actions - 1)
    if table.shape != shape:
        _validate.fail("policy", f"must have shape {shape}, got {table.shape}")
    return table


@dataclass(frozen=True)
class PessimisticValues:
    """What pessimistic value iteration learned from data.

    Attributes:
        value: ``(H + 1, S)``. q_value, bonus: ``(H, S, A)``; the bonus is what was subtracted. policy: ``(H, S)``.
        weights: ``(H, d)``, estimates of the factors' worst cases.
    """

    value: np.ndarray
    q_value: np.ndarray
    bonus: np.ndarray
    policy: np.ndarray
    weights: np.ndarray


def worst_case_regression(
    features: np.ndarray,
    inverse: np.ndarray,
    next_value: np.ndarray,
    lam: float,
    divergence: Divergence,
    *,
    lowest: float,
    highest: float,
    centred: bool = True,
    grid: int = 201,
) -> np.ndarray:
    r"""Ridge estimate of every factor's worst case ``w (d,)`` from features ``(K, d)`` and next values ``(K,)``.

    * none: ``L^-1 sum phi V``; TV: the same for ``min(V, lowest + lam)``;
    * KL: ``-lam log max(1 + L^-1 sum phi (e^{-V/lam} - 1), e^{-highest/lam})``; not ``centred``:
      ``L^-1 sum phi e^{-V/lam}``, whose ridge shrinkage towards 0 is blown up by the logarithm;
    * chi²: ``max_a z + z^2/(4 lam) - z2/(4 lam)``, z and z2 the estimates for ``min(V, a)`` and its square, clipped to
      ``[0, highest]`` and ``[0, highest^2]``; a over the data and ``grid`` points.

    ``inverse`` is ``L^-1 = (sum phi phi^T + reg I)^{-1}``. ``lowest``: of the value, over the states that count.

    Raises:
        ValueError: shapes, values that are not finite, ``lam <= 0``, another divergence.

    Source: ``robust-fdiv``, Algorithm, C6.
    """
    features, inverse, next_value = _regression(features, inverse, next_value)
    lam = _validate.real("lam", lam, low=0.0, open_low=True)
    lowest, highest = _validate.real("lowest", lowest), _validate.real("highest", highest)
    divergence = _validate.one_of("divergence", divergence, ("none", "tv", "kl", "chi2"))  # type: ignore[assignment]
    centred, grid = _validate.flag("centred", centred), _validate.integer("grid", grid, low=2, high=10**6)
    solve = inverse @ features.T
    with np.errstate(all="ignore"):
        found = _worst_case(solve, next_value, lam, divergence, lowest, highest, centred, grid)
    _validate.representable("next_value", np, found)
    return found


def _worst_case(
    solve: np.ndarray,
    next_value: np.ndarray,
    lam: float,
    divergence: Divergence,
    lowest: float,
    highest: float,
    centred: bool,
    grid: int,
) -> np.ndarray:
    if divergence == "none":
        return np.asarray(solve @ next_value)
    if divergence == "tv":
        return np.asarray(solve @ np.minimum(next_value, lowest + lam))
    if divergence == "kl":
        shift = 1.0 if centred else 0.0
        mean = shift + solve @ (np.exp(-next_value / lam) - shift)
        return np.asarray(-lam * np.log(np.maximum(mean, np.exp(-highest / lam))))
    points = np.unique(np.concatenate([next_value, np.linspace(next_value.min(), next_value.max(), grid)]))
    clipped = np.minimum(next_value[:, None], points)
    first = np.clip(solve @ clipped, 0.0, highest)
    second = np.clip(solve @ clipped**2, 0.0, highest**2)
    return np.asarray(np.max(first + (first**2 - second) / (4 * lam), axis=1))


def _regression(features: Any, inverse: Any, next_value: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(K, d)``, ``(d, d)`` and ``(K,)``, finite, K, d >= 1; subclasses of arrays stay what they are."""
    given = {"features": features, "inverse": inverse, "next_value": next_value}
    for name, x in zip(given, _validate.numpy_arrays(**given), strict=True):
        _validate.finite(name, np, x)
    features, inverse, next_value = (np.asanyarray(x, dtype=float) for x in given.values())
    if features.ndim != 2 or 0 in features.shape:
        _validate.fail("features", f"must have shape (K, d), K, d >= 1, got {features.shape}")
    rows, width = features.shape
    if inverse.shape != (width, width):
        _validate.fail("inverse", f"must have shape {(width, width)}, got {inverse.shape}")
    if next_value.shape != (rows,):
        _validate.fail("next_value", f"must have shape {(rows,)}, got {next_value.shape}")
    return features, inverse, next_value


def pessimistic_values(
    problem: LinearMDP,
    data: Transitions,
    lam: float,
    divergence: Divergence,
    *,
    beta: float,
    reg: float,
    penalty: Literal["sum", "l2"] = "sum",
    minimum: Literal["all", "observed"] = "all",
    centred: bool = True,
    lower_clip: bool = True,
) -> PessimisticValues:
    r"""R2PVI: ``Q_h = clip(<phi, theta_h + w_h> - Gamma_h, 0, H - h)``, w from `worst_case_regression`, rewards known.

    Args:
        problem: for its features, rewards and shapes; its factors are not looked at. data: ``(H, K)`` transitions.
        divergence: ``"none"`` is the non-robust baseline. beta: size of the bonus. reg: ridge coefficient > 0.
        penalty: ``Gamma = beta sum_i phi_i sqrt((L^-1)_ii)`` (theory), or ``"l2"``, of the released code:
            ``beta sqrt(sum_i phi_i^2 (L^-1)_ii)``.
        minimum: TV's minimum over all states, or over those observed. centred: of the KL regression.
        lower_clip: clip at 0 from below.

    Raises:
        ValueError: data that do not fit the problem, bad numbers.

    Source: ``robust-fdiv`` C4, Algorithm.
    """
    _validate.instance("problem", problem, LinearMDP)
    _validate.instance("data", data, Transitions)
    lam = _validate.real("lam", lam, low=0.0, open_low=True)
    beta, reg = _validate.real("beta", beta, low=0.0), _validate.real("reg", reg, low=0.0, open_low=True)
    _validate.one_of("divergence", divergence, ("tv", "kl", "chi2", "none"))
    _validate.one_of("penalty", penalty, ("sum", "l2"))
    _validate.one_of("minimum", minimum, ("all", "observed"))
    horizon, states, actions = problem.shape
    if data.horizon != horizon:
        _validate.fail("data", f"needs {horizon} steps, got {data.horizon}")
    data.counts(states, actions)  # checks the indices
    _validate.integers("next_state", data.next_state, high=states - 1)
    phi = problem.features
    value, q_value, bonus = np.zeros((horizon + 1, states)), np.empty(problem.shape), np.empty(problem.shape)
    weights = np.zeros(problem.theta.shape)
    for h in range(horizon - 1, -1, -1):
        rows = phi[data.state[h], data.action[h]]
        inverse = np.linalg.inv(rows.T @ rows + reg * np.eye(phi.shape[-1]))
        widths = np.sqrt(np.diag(inverse))
        bonus[h] = beta * (phi @ widths if penalty == "sum" else np.sqrt(phi**2 @ widths**2))
        if h < horizon - 1:
            seen = value[h + 1][data.next_state[h]]
            lowest = float(value[h + 1].min() if minimum == "all" else seen.min())
            weights[h] = worst_case_regression(
                rows, inverse, seen, lam, divergence, lowest=lowest, highest=float(horizon), centred=centred
            )
        q_value[h] = np.minimum(phi @ (problem.theta[h] + weights[h]) - bonus[h], horizon - h)
        if lower_clip:
            q_value[h] = np.maximum(q_value[h], 0.0)
        value[h] = q_value[h].max(axis=1)
    return PessimisticValues(value, q_value, bonus, q_value.argmax(axis=2), weights)
