"""Whether a problem class is solved and evaluated consistently: for people who add one."""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.planning import evaluate, solve

__all__ = ["check_problem"]


def check_problem(
    problem: Any,
    log_ref: Any = None,
    *,
    betas: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0),
    moves: int = 20,
    seed: int = 0,
) -> None:
    """Assert that `klsim.planning.solve` and `klsim.planning.evaluate` of a problem agree, and that the optimum is one.

    For every ``beta``: the value of the optimal policy, evaluated, is the value that the solver promises; no policy on
    its support is better, near or far; reward and KL fall with ``beta``, as an optimum's must. A policy is an array or
    a list of arrays (one a level) of log-probabilities whose last axis sums to 1.

    Args:
        problem: an instance; `solve` and `evaluate` must be registered for its type.
        log_ref: the reference, if the problem does not carry its own; uniform over what the ``beta = 1`` optimum
            supports otherwise.
        moves: policies tried around each optimum. seed: of these.

    Raises:
        AssertionError: which of these fails, at which ``beta``, by how much.
        TypeError: `solve` or `evaluate` is not registered for this type.
    """
    __tracebackhide__ = True
    rng = np.random.default_rng(_validate.integer("seed", seed, low=0))
    _validate.integer("moves", moves, low=1)
    name, earlier = type(problem).__name__, None
    for beta in betas:
        found = _solved(problem, log_ref, beta)
        own = _evaluated(problem, found.log_policy, log_ref, beta)
        allowed = float(getattr(found, "error_bound", 0.0)) + 1e-9 * max(1.0, abs(own.value))
        promised, worth = _values(found, own)
        index = np.unravel_index(np.argmax(np.abs(promised - worth)), promised.shape)
        if not abs(promised[index] - worth[index]) <= allowed:
            raise AssertionError(
                f"{name}, beta = {beta:g}: solve promises {promised[index]:.12g}, its policy is worth "
                f"{worth[index]:.12g} by evaluate (allowed {allowed:.2g})"
            )
        for size in np.geomspace(1e-3, 3.0, moves):
            other = _evaluated(problem, _moved(found.log_policy, size, rng), log_ref, beta)
            if not other.value <= own.value + allowed:
                raise AssertionError(
                    f"{name}, beta = {beta:g}: a policy at distance {size:.2g} is worth {other.value:.12g}, "
                    f"more than the optimum's {own.value:.12g}"
                )
        if earlier is not None and beta > earlier[0]:
            _ordered(name, earlier, (beta, own), allowed)
        earlier = beta, own


def _solved(problem: Any, log_ref: Any, beta: float) -> Any:
    return solve(problem, beta=beta) if log_ref is None else solve(problem, log_ref, beta)


def _evaluated(problem: Any, log_policy: Any, log_ref: Any, beta: float) -> Any:
    """With the reference that `solve` takes when none is given: uniform over legal actions."""
    if log_ref is None and not hasattr(problem, "log_ref"):
        log_ref = _uniform(_solved(problem, None, 1.0).log_policy)
    return (
        evaluate(problem, log_policy) if log_ref is None and beta == 0 else evaluate(problem, log_policy, log_ref, beta)
    )


def _each(log_policy: Any, change: Any) -> Any:
    if isinstance(log_policy, list | tuple):
        return type(log_policy)(change(np.asarray(level)) for level in log_policy)
    return change(np.asarray(log_policy))


def _uniform(log_policy: Any) -> Any:
    return _each(log_policy, lambda p: log_normalize(np.where(np.isfinite(p), 0.0, -np.inf)))


def _moved(log_policy: Any, size: float, rng: np.random.Generator) -> Any:
    """Another policy on the same support."""
    return _each(log_policy, lambda p: log_normalize(p + size * rng.standard_normal(p.shape)))


def _values(found: Any, own: Any) -> tuple[np.ndarray, np.ndarray]:
    """The solver's values and those of the evaluation: of every state where both have them, else of the start."""
    promised = np.asarray(found.value[0] if isinstance(found.value, list | tuple) else found.value, dtype=float)
    values = own.state_value[0] if isinstance(own.state_value, list | tuple) else own.state_value
    states = None if values is None else np.asarray(values, dtype=float)
    if states is not None and states.shape == promised.shape:
        return np.atleast_1d(promised), np.atleast_1d(states)
    return promised.reshape(-1)[:1], np.atleast_1d(np.asarray(own.value, dtype=float))[:1]


def _ordered(name: str, weaker: tuple[float, Any], stronger: tuple[float, Any], allowed: float) -> None:
    __tracebackhide__ = True
    (low, one), (high, two) = weaker, stronger
    if not two.reward <= one.reward + allowed:
        raise AssertionError(
            f"{name}: the reward rises from beta = {low:g} to {high:g}, {one.reward:.9g} to {two.reward:.9g}"
        )
    if not two.kl <= one.kl + allowed / max(low, 1e-12):
        raise AssertionError(f"{name}: the KL rises from beta = {low:g} to {high:g}, {one.kl:.9g} to {two.kl:.9g}")
