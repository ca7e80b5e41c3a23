r"""Best-policy identification with a KL to a prior (UCBVI-Ent+, reconstructed): optimism, and a certificate to stop.

After every episode, with counts n and frequencies ``p`` of successors, backwards in h,

.. math:: \bar Q = \min(r + p\bar V + b,\ cap),\quad Q_\circ = \max(r + p V_\circ - b,\ 0),\quad
          b = c\Big(3\sqrt{Var_p(\bar V) L/n} + 9 H\,range\,L/n + \tfrac1H p(\bar V - V_\circ)\Big)

(cap and 0 at pairs never seen; ``range`` bounds the next value), ``Vbar, pibar`` the soft maximum of ``Qbar`` against
the reference and ``V_o`` that of ``Q_o``. An episode follows ``pibar``, but takes the action of largest ``Qbar - Q_o``
at one random step. What pibar may lose is at most ``G_1`` where the bracket holds,

.. math:: G_h = \min\Big(\tfrac{1}{2\beta}\max_a(\bar Q - Q_\circ)^2 + \bar\pi (1 + \tfrac1H) p\,G_{h+1},\ cap\Big),

quadratic in the width of the bracket: width ``n^{-1/2}``, certificate ``n^{-1}/beta``. The constants of the paper could
not be confirmed; ``scale`` is c.

Source: ``demo-reg`` C7, C8, Algorithm step 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.planning.solution import reference
from klsim.problems import TabularMDP

__all__ = ["Identification", "identify_best_policy"]


@dataclass(frozen=True)
class Identification:
    """Independent runs of `identify_best_policy`.

    Attributes:
        episodes: used by every run, ``(runs,)``. stopped: whether it stopped by itself, ``(runs,)``.
        log_policy: the soft-greedy policy at the end, ``(runs, H, S, A)``.
        upper, lower, certificate: ``Vbar_1``, ``V_o1`` and ``G_1`` of the initial law after ``checkpoints`` episodes,
            ``(runs, checkpoints)``; NaN after a run has stopped.
        transitions: how often every ``(h, s, a, s')`` was seen, ``(runs, H, S, A, S)``.
    """

    episodes: np.ndarray
    stopped: np.ndarray
    log_policy: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    certificate: np.ndarray
    transitions: np.ndarray


def identify_best_policy(
    problem: TabularMDP,
    log_ref: Any,
    beta: Any,
    episodes: int,
    *,
    accuracy: float = 0.0,
    target: float = math.inf,
    cap: Any = None,
    scale: float = 1.0,
    delta: float = 0.1,
    deviate: bool = True,
    refresh: float = 0.0,
    checkpoints: Any = (),
    runs: int = 1,
    rng: np.random.Generator | int = 0,
) -> Identification:
    """Learn the optimum of ``E[sum r] - beta KL(pi‖ref)`` from at most ``episodes`` episodes; rewards are known.

    Args:
        problem: all actions legal, rewards >= 0. log_ref: ``(H, S, A)`` or ``(S, A)``; None is uniform.
        beta: > 0, or one for every number of episodes so far, ``(episodes + 1,)``.
        accuracy: stop where the certificate is at most this. target: where the true return is at least this (a study).
        cap: known bound on returns to go, ``(H, S)``; None is the sum of the largest rewards from h on.
        scale: c >= 0; with 0 pairs that were seen count as known, which is right for deterministic problems.
        delta: in (0, 1), with ``L = log(4 S A H/delta) + S log(8 e (episodes + 1))``.
        deviate: explore the widest action at one random step of every episode; else follow the policy.
        refresh: growth of the episodes after which to plan again. checkpoints: rising numbers of episodes to record at.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: illegal actions, negative rewards, shapes, ranges.
    """
    from klsim.kernels.best_policy import identification_runs
    from klsim.kernels.threaded import read_only

    _validate.instance("problem", problem, TabularMDP)
    problem = problem.dense()
    if problem.actions is not None and not np.all(problem.actions):
        _validate.fail("problem", "every action must be legal everywhere")
    if np.any(problem.reward < 0):
        _validate.fail("problem", "rewards must be >= 0", float(problem.reward.min()))
    horizon, states, actions = problem.shape
    ref = reference(log_ref, problem.shape, np.ones((states, actions), dtype=bool))
    episodes = _validate.integer("episodes", episodes, low=0, high=10**9)
    marks = _validate.integers("checkpoints", np.asarray(checkpoints, dtype=np.int64), low=0, high=episodes)
    if marks.ndim != 1 or np.any(np.diff(marks) <= 0):
        _validate.fail("checkpoints", "must rise")
    delta = _validate.real("delta", delta, low=0.0, high=1.0, open_low=True, open_high=True)
    term = math.log(4 * states * actions * horizon / delta) + states * (1 + math.log(8 * (episodes + 1)))
    seeds = _validate.generator(rng).integers(0, 2**31 - 1, _validate.integer("runs", runs, low=1))
    transition, reward, initial, log_ref = read_only(
        *(np.ascontiguousarray(a, dtype=np.float64) for a in (problem.transition, problem.reward, problem.initial, ref))
    )
    found = identification_runs(
        transition, reward, initial, _caps(problem, cap), log_ref, _betas(beta, episodes),
        _validate.real("scale", scale, low=0.0, high=1e100), term,
        _validate.real("accuracy", accuracy), _validate.real("target", target), _validate.flag("deviate", deviate),
        _validate.real("refresh", refresh, low=0.0, high=1.0), marks, seeds,
    )  # fmt: skip
    return _identified(*found)


def _identified(used: Any, stopped: Any, policies: Any, trace: Any, moved: Any) -> Identification:
    with np.errstate(divide="ignore"):
        return Identification(used, stopped, np.log(policies), trace[..., 0], trace[..., 1], trace[..., 2], moved)


def _betas(beta: Any, episodes: int) -> np.ndarray:
    (given,) = _validate.numpy_arrays(beta=beta)
    _validate.positive("beta", np, given)
    _validate.finite("beta", np, given)
    if given.shape not in ((), (episodes + 1,)):
        _validate.fail("beta", f"must be a number or have shape ({episodes + 1},), got {given.shape}")
    return np.ascontiguousarray(np.broadcast_to(given, (episodes + 1,)), dtype=np.float64)


def _caps(problem: TabularMDP, cap: Any) -> np.ndarray:
    """Bounds on returns to go with the 0 after the last step, ``(H + 1, S)``."""
    horizon, states, _ = problem.shape
    out = np.zeros((horizon + 1, states))
    if cap is None:
        left = np.cumsum(problem.reward.max(axis=(1, 2))[::-1])[::-1]
        out[:-1] = left[:, None]
        return out
    (given,) = _validate.numpy_arrays(cap=cap)
    _validate.budgets("cap", np, _validate.finite("cap", np, given))
    if given.shape != (horizon, states):
        _validate.fail("cap", f"must have shape {(horizon, states)}, got {given.shape}")
    out[:-1] = given
    return out
