r"""Optimism in learned models: elliptical bonuses, what a model's error can cost, and the identities behind both.

A model Phat with a bonus b is planned in as if it were true (`optimistic_values`). By the simulation identity

.. math:: V^\pi_{\hat P, r+b} - V^\pi_{P, r} = \sum_h E_{\hat d^\pi_h}\big[b_h + (\hat P_h - P_h) V^\pi_{h+1}\big]

(`simulation_difference`) the planned optimum dominates the true one wherever the bonus is at least what the model's
error can take away from values in [low, high] (`model_error_bonus`: total variation times the range, for laws). That
error is not known; the bonus that is, ``gamma ||phi||_{Sigma^{-1}}`` (`elliptical_norm`), works on average, because the
features of the *previous* step bound expectations of the next one (`one_step_back`).

Source: ``contrastive-ucb`` C4, C5; Uehara, Zhang & Sun (2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, solve_triangular

from klsim import _validate
from klsim.planning.evaluation import evaluate, occupancy
from klsim.problems import TabularMDP
from klsim.problems.transition_rows import probabilities

__all__ = [
    "OneStepBack",
    "OptimisticValues",
    "elliptical_norm",
    "feature_covariance",
    "model_error_bonus",
    "one_step_back",
    "optimistic_values",
    "simulation_difference",
]

_LARGEST = 1e150  # squares of what is larger overflow


def _features(value: Any) -> np.ndarray:
    (features,) = _validate.numpy_arrays(features=value)
    _validate.finite("features", np, features)
    if features.ndim == 0 or features.shape[-1] == 0:
        _validate.fail("features", f"needs a non-empty last axis, got shape {features.shape}")
    if features.size and float(np.abs(features).max()) > _LARGEST:
        _validate.fail("features", f"must be at most {_LARGEST:g} in size")
    return np.asarray(features, dtype=np.float64)


def feature_covariance(features: Any, weights: Any, ridge: float) -> np.ndarray:
    """``Sigma = sum weights phi phi' + ridge I``, ``(d, d)``.

    Args:
        features: ``(..., d)``. weights: ``(...)``, counts or probabilities times the number of samples, >= 0.
        ridge: > 0.
    """
    features = _features(features)
    (weights,) = _validate.numpy_arrays(weights=weights)
    if weights.shape != features.shape[:-1]:
        _validate.fail("weights", f"must have shape {features.shape[:-1]}, got {weights.shape}")
    _validate.budgets("weights", np, _validate.finite("weights", np, weights))
    ridge = _validate.real("ridge", ridge, low=0.0, high=_LARGEST, open_low=True)
    rank = features.shape[-1]
    _validate.fits("features", rank, rank * rank)
    rows = features.reshape(-1, rank)
    with np.errstate(over="ignore", invalid="ignore"):
        sigma = (rows * weights.reshape(-1, 1)).T @ rows + ridge * np.eye(rank)
    _validate.representable("weights", np, sigma)
    return np.asarray(0.5 * (sigma + sigma.T))


def elliptical_norm(features: Any, covariance: Any) -> np.ndarray:
    """``sqrt(phi' Sigma^{-1} phi)``, ``(...)``, of ``features (..., d)`` and a positive definite ``covariance (d, d)``.

    With one-hot features and Sigma from counts it is ``1 / sqrt(count + ridge)``.
    """
    features = _features(features)
    (sigma,) = _validate.numpy_arrays(covariance=covariance)
    rank = features.shape[-1]
    if sigma.shape != (rank, rank):
        _validate.fail("covariance", f"must have shape {(rank, rank)}, got {sigma.shape}")
    _validate.finite("covariance", np, sigma)
    try:
        factor, _ = cho_factor(sigma, lower=True)
    except LinAlgError:
        _validate.fail("covariance", "must be positive definite")
    whitened = solve_triangular(factor, features.reshape(-1, rank).T, lower=True)
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.sum(whitened**2, axis=0))
    _validate.representable("features", np, norms)
    return np.asarray(norms.reshape(features.shape[:-1]))


@dataclass(frozen=True)
class OneStepBack:
    """The two sides of the one-step-back inequality, and the parts of its bound.

    Attributes:
        value: ``E_{(s,a)~visits, s'~P, a'~pi}[g(s', a')]``.
        norm: ``E_visits ||phi||_{Sigma^{-1}}``.
        data: ``samples A E_{(s,a)~data, s'~P, a'~U}[g^2]``. ridge: ``ridge ||psi u||^2``, ``u(s') = E_pi g(s', .)``.
        bound: ``norm sqrt(data + ridge)``, at least ``|value|``.
    """

    value: float
    norm: float
    data: float
    ridge: float
    bound: float


def one_step_back(
    features: Any, factors: Any, visits: Any, data: Any, g: Any, log_policy: Any, *, samples: float, ridge: float
) -> OneStepBack:
    r"""``|E_{visits,P,pi} g| <= E_visits ||phi||_{Sigma^{-1}} sqrt(n A E_{data,P,U} g^2 + lam ||psi u||^2)``.

    ``Sigma = n E_data[phi phi'] + lam I``, ``P = phi psi``: expectations under the visits of one policy are bounded by
    what the data say, times how far the visits' features lie from the data's.

    Args:
        features: ``phi (S, A, d)``. factors: ``psi (d, S)``; their products must be laws.
        visits, data: ``(S, A)`` laws. g: ``(S, A)``, any sign. log_policy: ``(S, A)``. samples: n >= 0. ridge: lam > 0.

    Raises:
        ValueError: shapes that do not fit, products or visits that are not distributions.
    """
    features = _features(features)
    factors, g, log_policy = _validate.numpy_arrays(factors=factors, g=g, log_policy=log_policy)
    if features.ndim != 3 or factors.shape != (features.shape[2], features.shape[0]):
        _validate.fail("factors", f"must be (d, S) beside features (S, A, d): {factors.shape}, {features.shape}")
    pairs = features.shape[:2]
    laws = {name: probabilities(name, np.ravel(x)) for name, x in (("visits", visits), ("data", data))}
    for name, x in (("visits", visits), ("data", data), ("g", g), ("log_policy", log_policy)):
        if np.shape(x) != pairs:
            _validate.fail(name, f"must have shape {pairs}, got {np.shape(x)}")
    _validate.log_probs("log_policy", np, log_policy)
    for name, x in (("g", g), ("factors", factors)):
        if not bool(np.all(np.abs(x) <= _LARGEST)):
            _validate.fail(name, f"must be at most {_LARGEST:g} in size")
    samples = _validate.real("samples", samples, low=0.0, high=_LARGEST)
    with np.errstate(all="ignore"):
        law = np.einsum("sai,it->sat", features, factors)
    if not bool(np.all(law >= -1e-8)):
        _validate.fail("factors", "features times factors must be probabilities, >= 0")
    probabilities("factors", np.maximum(law, 0.0))
    sigma = feature_covariance(features, samples * laws["data"].reshape(pairs), ridge)
    mean = np.sum(np.exp(log_policy) * g, axis=1)
    norm = float(np.sum(laws["visits"].reshape(pairs) * elliptical_norm(features, sigma)))
    with np.errstate(over="ignore"):
        seen = samples * float(np.einsum("sa,sat,t->", laws["data"].reshape(pairs), law, np.sum(g**2, axis=1)))
        theta = ridge * float(np.sum((factors @ mean) ** 2))
    _validate.representable("g", np, np.asarray([seen, theta]))
    value = float(np.einsum("sa,sat,t->", laws["visits"].reshape(pairs), law, mean))
    return OneStepBack(value, norm, seen, theta, norm * math.sqrt(seen + theta))


def model_error_bonus(transition: Any, model: Any, *, low: Any = 0.0, high: Any = 1.0) -> np.ndarray:
    r"""What the model's error can take away from values in [low, high]: ``max_v (P - Phat) v``, ``(...)``.

    ``sum_s' (P - Phat)_+ high - (P - Phat)_- low``. For two laws it is their total variation times ``high - low``; for
    a model that is not normalised (``Phat = P^- f``) it can be twice the total variation.

    Args:
        transition, model: ``(..., S)``, >= 0. low, high: broadcast against ``(...)``.
    """
    p, q, low, high = _validate.numpy_arrays(transition=transition, model=model, low=low, high=high)
    for name, x in (("transition", p), ("model", q)):
        _validate.budgets(name, np, _validate.finite(name, np, x))
    if p.ndim == 0 or p.shape != q.shape:
        _validate.fail("model", f"must have the shape of transition {p.shape}, got {q.shape}")
    for name, x in (("low", low), ("high", high)):
        _validate.finite(name, np, x)
        _validate.broadcast(**{name: x, "transition": p[..., 0]})
    index = _validate.first_true(np, np.atleast_1d(low > high))
    if index is not None:
        _validate.fail("low", "must be <= high")
    with np.errstate(over="ignore", invalid="ignore"):
        lost, won = np.maximum(p - q, 0.0).sum(axis=-1), np.maximum(q - p, 0.0).sum(axis=-1)
        bonus = lost * high - won * low
    _validate.representable("high", np, bonus)
    return np.asarray(bonus)


@dataclass(frozen=True)
class OptimisticValues:
    """Values of a model with a bonus: ``value (H + 1, S)``, ``q_value (H, S, A)``, greedy ``policy (H, S)``."""

    value: np.ndarray
    q_value: np.ndarray
    policy: np.ndarray


def optimistic_values(model: Any, reward: Any, bonus: Any, *, cap: float = math.inf) -> OptimisticValues:
    """``Q_h = min(r_h + Phat_h V_{h+1} + b_h, cap)``, ``V_h = max_a Q_h``, ``V_H = 0``.

    Args:
        model: ``(H, S, A, S)``, >= 0, not necessarily normalised. reward, bonus: ``(H, S, A)``.
        cap: bound on all values; unclipped by default.
    """
    model, reward, bonus = _validate.numpy_arrays(model=model, reward=reward, bonus=bonus)
    if model.ndim != 4 or 0 in model.shape or model.shape[1] != model.shape[3]:
        _validate.fail("model", f"must have shape (H, S, A, S), got {model.shape}")
    for name, x in (("reward", reward), ("bonus", bonus)):
        if x.shape != model.shape[:3]:
            _validate.fail(name, f"must have shape {model.shape[:3]}, got {x.shape}")
        _validate.finite(name, np, x)
    _validate.budgets("model", np, _validate.finite("model", np, model))
    cap = _validate.real("cap", cap, low=-np.finfo(float).max)
    horizon, states, actions, _ = model.shape
    value, q = np.zeros((horizon + 1, states)), np.empty((horizon, states, actions))
    for h in range(horizon - 1, -1, -1):
        with np.errstate(over="ignore", invalid="ignore"):
            q[h] = np.minimum(reward[h] + model[h] @ value[h + 1] + bonus[h], cap)
        value[h] = q[h].max(axis=1)
        _validate.representable("reward", np, value[h])
    return OptimisticValues(value, q, q.argmax(axis=2))


def simulation_difference(problem: TabularMDP, model: TabularMDP, bonus: Any, log_policy: Any) -> float:
    r"""``sum_h E_{model, pi}[b_h + (Phat_h - P_h) V^pi_{h+1}]``: what the model with the bonus promises too much.

    ``V^pi`` is the value in the ``problem``, whose rewards and initial law count; the visits are the model's.

    Args:
        problem: P and r. model: Phat, of the same shape. bonus: ``(H, S, A)``. log_policy: ``(H, S, A)``.
    """
    for name, x in (("problem", problem), ("model", model)):
        _validate.instance(name, x, TabularMDP)
    if problem.shape != model.shape:
        _validate.fail("model", f"must have the shape of problem {problem.shape}, got {model.shape}")
    (bonus,) = _validate.numpy_arrays(bonus=bonus)
    if bonus.shape != problem.shape:
        _validate.fail("bonus", f"must have shape {problem.shape}, got {bonus.shape}")
    _validate.finite("bonus", np, bonus)
    problem, model = problem.dense(), model.dense()
    later = evaluate(problem, log_policy).state_value[1:]
    learned = TabularMDP(model.transition, problem.reward, problem.initial, problem.horizon, problem.actions)
    error = np.einsum("hsat,ht->hsa", model.transition - problem.transition, later)
    return float(np.sum(occupancy(learned, log_policy) * (bonus + error)))
