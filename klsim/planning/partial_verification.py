r"""Partially verifiable rewards: offline matching scores against online success.

Several actions of a state may be valid, but a data set records one, the demonstration, and an offline metric credits
no other. With ``d_t`` the states that a policy visits at step t, ``d_mu`` those of the data, ``valid(s)`` the valid
actions and ``demo(s)`` the recorded one of them:

==================  ====================================  ==========================================================
quantity            formula                               meaning
==================  ====================================  ==========================================================
``score``           ``E_{d_mu} pi(demo|s)``               the offline score (step accuracy)
``off_demo``        ``pi(valid|s) - pi(demo|s)``          false negatives: valid mass that gets no credit
``mismatch``        ``max_t max_s d_t(s) / d_mu(s)``      how far the policy leaves the data
``success``         ``P(every step is valid)``            online success (`success_probability`)
==================  ====================================  ==========================================================

The union bound and a change of measure give ``success >= 1 - H mismatch (1 - score - E_{d_mu} off_demo)``
(`offline_score`). A policy near a reference in KL keeps both nuisance terms: its visits drift by at most
``sqrt(2 sum_{i<t} E_{d_i} KL)`` in L1 (`visit_drift`), and the mass off the demonstration grows to at most the largest
that a KL ball allows (`largest_mass`).

Source: ``gui-libra`` C1-C4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.divergences import kl
from klsim.optima import kl_constrained
from klsim.planning.chains import expected_next
from klsim.planning.evaluation import occupancy, policy_of
from klsim.problems import TabularMDP

__all__ = [
    "MismatchBounds",
    "OfflineScore",
    "VisitDrift",
    "data_visits",
    "largest_mass",
    "mismatch_bounds",
    "offline_score",
    "success_probability",
    "visit_drift",
    "visit_mismatch",
]


def data_visits(problem: TabularMDP, log_policy: Any) -> np.ndarray:
    """States in the trajectories of a policy, all steps pooled: ``(1/H) sum_t d_t(s)``, ``(S,)``.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not a policy of it.
    """
    _validate.instance("problem", problem, TabularMDP)
    return np.asarray(occupancy(problem, log_policy).sum(axis=-1).mean(axis=0))


def _law(name: str, value: Any, states: int) -> np.ndarray:
    """A distribution over states."""
    (law,) = _validate.numpy_arrays(**{name: value})
    if law.shape != (states,):
        _validate.fail(name, f"must have shape ({states},), got {law.shape}")
    _validate.budgets(name, np, _validate.finite(name, np, law))
    if abs(law.sum() - 1) > 1e-8:
        _validate.fail(name, f"must sum to 1, sums to {law.sum():.12g}")
    return law


def visit_mismatch(problem: TabularMDP, log_policy: Any, data: Any) -> float:
    """``max_t max_s d_t(s) / data(s)``, at least 1; ``inf`` if the policy visits a state that the data lack.

    Args:
        data: law of the states in the data, ``(S,)``.

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not a policy of it, not a law over its states.
    """
    _validate.instance("problem", problem, TabularMDP)
    data = _law("data", data, problem.shape[1])
    most = occupancy(problem, log_policy).sum(axis=-1).max(axis=0)
    if np.any((most > 0) & (data == 0)):
        return float("inf")
    with np.errstate(over="ignore"):
        return float(np.max(most / np.where(data > 0, data, 1.0)))


def _valid(problem: TabularMDP, valid: Any) -> np.ndarray:
    return _validate.boolean_mask("valid", valid, problem.shape[1:])


def success_probability(problem: TabularMDP, log_policy: Any, valid: Any) -> float:
    """``P(every one of the H actions is valid)``, by dynamic programming.

    Args:
        valid: boolean ``(S, A)``.

    Raises:
        TypeError: not a `TabularMDP`, ``valid`` not boolean. ValueError: not a policy of it, shapes.
    """
    _validate.instance("problem", problem, TabularMDP)
    weights = np.exp(policy_of(problem, log_policy)) * _valid(problem, valid)
    ahead = np.ones(problem.shape[1])
    for t in range(problem.horizon - 1, -1, -1):
        ahead = np.sum(weights[t] * expected_next(problem.transition[t], ahead), axis=-1)
    return float(problem.initial @ ahead)


@dataclass(frozen=True)
class OfflineScore:
    """An offline score, what it misses, and the online success that follows.

    Attributes:
        score: ``E_data pi(demo|s)``. off_demo: ``pi(valid|s) - pi(demo|s)``, ``(S,)``. off_demo_mass: its mean over the
            data. mismatch: `visit_mismatch`. success: `success_probability`.
        bound: ``1 - H mismatch (1 - score - off_demo_mass)``, at most ``success``; ``-inf`` where the mismatch is
            infinite, which then says nothing.
    """

    score: float
    off_demo: np.ndarray
    off_demo_mass: float
    mismatch: float
    success: float
    bound: float


def offline_score(problem: TabularMDP, log_policy: Any, demo: Any, valid: Any, data: Any) -> OfflineScore:
    """Offline metrics of a policy that is the same at every step, its online success, and the bound between them.

    Args:
        log_policy: ``(S, A)``. demo: the recorded action of every state, integers ``(S,)``, valid. valid: boolean
            ``(S, A)``. data: law of the states in the data, ``(S,)``.

    Raises:
        TypeError: not a `TabularMDP`, ``valid`` not boolean. ValueError: shapes, no policy, a demonstration that is not
            valid.
    """
    _validate.instance("problem", problem, TabularMDP)
    horizon, states, actions = problem.shape
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    if log_policy.shape != (states, actions):
        _validate.fail("log_policy", f"must be the same at every step, ({states}, {actions}), got {log_policy.shape}")
    pi = np.exp(policy_of(problem, log_policy)[0])
    valid, data = _valid(problem, valid), _law("data", data, states)
    demo = _validate.integers("demo", demo, low=0, high=actions - 1)
    if demo.shape != (states,):
        _validate.fail("demo", f"must have shape ({states},), got {demo.shape}")
    rows = np.arange(states)
    index = _validate.first_true(np, ~valid[rows, demo])
    if index is not None:
        _validate.fail("demo", "must be a valid action", int(demo[index]), index)
    off_demo = np.sum(np.where(valid, pi, 0.0), axis=-1) - pi[rows, demo]
    off_demo = np.where(valid.sum(axis=-1) > 1, np.maximum(off_demo, 0.0), 0.0)
    score, mass = float(data @ pi[rows, demo]), float(data @ off_demo)
    mismatch = visit_mismatch(problem, log_policy, data)
    missed = max(1 - score - mass, 0.0)
    bound = 1 - horizon * mismatch * missed if np.isfinite(mismatch) else -np.inf
    return OfflineScore(score, off_demo, mass, mismatch, success_probability(problem, log_policy, valid), bound)


@dataclass(frozen=True)
class VisitDrift:
    """How far the visits of two policies move apart, after t = 0 … H-1 transitions.

    Attributes:
        distance: ``||d_t - d_ref,t||_1``, ``(H,)``.
        worst_state: ``t sqrt(2 eps)`` with ``eps`` the largest KL of a state and step.
        visited: ``sqrt(2 sum_{i<t} E_{d_i} KL(pi‖ref))``: the chain rule and Pinsker; at most ``sqrt(2 t eps)``.
        largest_kl: ``eps``, nats.
    """

    distance: np.ndarray
    worst_state: np.ndarray
    visited: np.ndarray
    largest_kl: float


def visit_drift(problem: TabularMDP, log_policy: Any, log_ref: Any) -> VisitDrift:
    """Drift of the visits of a policy from those of a reference, and its two bounds (infinite where the KL is).

    Raises:
        TypeError: not a `TabularMDP`. ValueError: not policies of it.
    """
    _validate.instance("problem", problem, TabularMDP)
    own, ref = policy_of(problem, log_policy), policy_of(problem, log_ref)
    states, others = (occupancy(problem, who).sum(axis=-1) for who in (own, ref))
    each = np.asarray(kl(own, ref))
    spent = np.sum(np.where(states > 0, states * np.where(states > 0, each, 0.0), 0.0), axis=-1)
    before = np.concatenate([[0.0], np.cumsum(spent)[:-1]])
    largest, steps = float(each.max()), np.arange(problem.horizon)
    worst = np.concatenate([[0.0], steps[1:] * np.sqrt(2 * largest)])
    return VisitDrift(np.abs(states - others).sum(axis=-1), worst, np.sqrt(2 * before), largest)


@dataclass(frozen=True)
class MismatchBounds:
    """Bounds of what a KL bound adds to `visit_mismatch`, from the loosest to the sharpest for ``H > 2``.

    Attributes:
        printed: ``H sqrt(2 eps)/rho``. one_state: ``(H-1) sqrt(eps/2)/rho``: a single state differs by half the L1
            distance at most, and the first step not at all. visited: ``sqrt((H-1) eps/2)/rho``, by the chain rule.
    """

    printed: float
    one_state: float
    visited: float


def mismatch_bounds(largest_kl: float, horizon: int, rarest: float) -> MismatchBounds:
    """What ``KL(pi‖ref) <= largest_kl`` at every state adds to the mismatch of the reference.

    Args:
        largest_kl: nats, >= 0. horizon: H >= 1; the sharper two are 0 at 1, where all start alike. rarest: ``rho``, the
            least mass of a state in the data, in (0, 1].
    """
    eps = _validate.real("largest_kl", largest_kl, low=0.0)
    steps = _validate.integer("horizon", horizon, low=1)
    rho = _validate.probability("rarest", rarest)
    if rho == 0:
        _validate.fail("rarest", "must be > 0", rho)
    root = math.sqrt(eps / 2)
    with np.errstate(over="ignore"):
        printed = np.divide(2 * steps * root, rho)
        sharper = np.divide([(steps - 1) * root, math.sqrt(steps - 1) * root], rho) if steps > 1 else (0.0, 0.0)
    return MismatchBounds(float(printed), float(sharper[0]), float(sharper[1]))


def largest_mass(mass: Any, budget: Any) -> np.ndarray:
    """The largest probability of an event of reference probability ``mass`` within ``KL(pi‖ref) <= budget``.

    The largest x in [mass, 1] with ``x log(x/mass) + (1-x) log((1-x)/(1-mass)) <= budget``; at most
    ``mass + sqrt(budget/2)`` (Pinsker), 1 from ``budget = -log mass`` on, 0 if ``mass`` is.

    Args:
        mass: in [0, 1]. budget: nats, >= 0; shapes broadcast.
    """
    mass, budget = _validate.numpy_arrays(mass=mass, budget=budget)
    _validate.unit_interval("mass", np, mass)
    _validate.budgets("budget", np, budget)
    _validate.broadcast(mass=mass, budget=budget)
    mass, budget = np.broadcast_arrays(mass, budget)
    inside = (mass > 0) & (mass < 1)
    x = np.where(inside, mass, 0.5)
    found = kl_constrained(np.log(np.stack([1 - x, x], axis=-1)), np.array([0.0, 1.0]), budget)
    return np.asarray(np.where(inside, np.clip(found.reward, mass, 1.0), mass))
