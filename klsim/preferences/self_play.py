r"""Self-play on preferences: four dynamics whose every step is exact, on a finite set of responses.

With ``P pi`` the chances to win against the policy, eta the rate, tau the regularisation:

==================  =================================================================================================
`sppo`              ``pi' = pi e^{eta P pi}/Z``: multiplicative weights, the step that SPPO regresses to
`nash_md`           ``pi' = m e^{eta P m}/Z``, the mixture ``m = pi^{1-eta tau} ref^{eta tau}/Z`` as start and opponent
`magnetic_descent`  ``pi' = (pi ref^{eta tau} e^{eta P pi})^{1/(1+eta tau)}/Z``: mirror descent with a magnet
`proximal_play`     ``pi'``: the regularised Nash policy at tau with ``ref = pi``: the reference moves along
==================  =================================================================================================

*Without regularisation* the average of the first T policies of `sppo` loses by at most
``max_i log(1/pi_0(i))/(eta T) + eta/8`` to any response (a regret of Hedge); the last policy turns away: where a Nash
policy q of the game wins exactly half against everything (full support), ``KL(q‖pi_t)`` never falls.

*The last policy* converges with `proximal_play`, to a Nash policy of the game itself:
``KL(q‖pi') <= KL(q‖pi) - KL(pi'‖pi)`` for every Nash policy q (equal where q has full support); with
`magnetic_descent`, to the regularised Nash policy q, ``KL(q‖pi') <= KL(q‖pi)/(1 + eta tau)`` for
``eta <= tau/L^2``, ``L = max |P - 1/2|``; with `nash_md` to within order eta of it, its opponent being the mixture.

`sppo_step` is the minimum of SPPO's square loss itself, ``E_pi (log pi'/pi - eta (P pi - 1/2))^2`` over policies,
which puts ``eta/2`` for ``log Z``: ``h = a - W(nu e^a)``, ``a = eta (P pi - 1/2)``, W Lambert's; third order in eta
away from the step.

Sources: Wu et al. (2024), arXiv:2405.00675 (SPPO); Munos et al. (2023), arXiv:2312.00886 (Nash-MD); Sokota et al.
(2022), arXiv:2206.05825 (magnetic mirror descent, rate); Freund and Schapire (1999) (regret). The rest is derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import lambertw

from klsim import _validate
from klsim._shown import Shown
from klsim.preferences.matrices import checked_preference
from klsim.preferences.nash import regularized_nash

__all__ = ["SelfPlay", "magnetic_descent", "nash_md", "proximal_play", "sppo", "sppo_step"]


@dataclass(frozen=True, repr=False)
class SelfPlay(Shown):
    """Policies of a run: ``log_policies (T + 1, A)`` from the first on; ``log_average`` of the first T, ``(A,)``."""

    log_policies: np.ndarray
    log_average: np.ndarray


def _start(preference: Any, **laws: Any) -> tuple[np.ndarray, ...]:
    p = checked_preference(preference)
    checked = []
    for name, given in laws.items():
        (law,) = _validate.numpy_arrays(**{name: given})
        _validate.log_probs(name, np, law)
        if law.shape != (len(p),):
            _validate.fail(name, f"must have shape ({len(p)},), got {law.shape}")
        checked.append(law.astype(np.float64))
    return (p, *checked)


def _rate(rate: Any) -> float:
    return _validate.real("rate", rate, low=0.0, high=1e6, open_low=True)


def _normal(x: np.ndarray) -> np.ndarray:
    """`klsim.distributions.log_normalize` of one law, without its door."""
    return np.asarray(x - np.logaddexp.reduce(x))


def _run(step: Callable[[np.ndarray], np.ndarray], log_start: np.ndarray, steps: Any) -> SelfPlay:
    steps = _validate.integer("steps", steps, low=1)
    _validate.fits("steps", steps, steps * log_start.size)
    policies = np.empty((steps + 1, log_start.size))
    policies[0] = log_start
    for t in range(steps):
        policies[t + 1] = step(policies[t])
    return SelfPlay(policies, np.logaddexp.reduce(policies[:-1], axis=0) - np.log(steps))


def sppo(preference: Any, log_policy: Any, rate: float, steps: int) -> SelfPlay:
    """``pi' = pi exp(rate P pi)/Z`` from ``log_policy (A,)``, ``steps`` times.

    Raises:
        ValueError: no preference matrix, no log-probabilities of its size; a rate outside (0, 1e6]; ``steps < 1``.
    """
    p, start = _start(preference, log_policy=log_policy)
    rate = _rate(rate)
    return _run(lambda x: _normal(x + rate * (p @ np.exp(x))), start, steps)


def sppo_step(preference: Any, log_policy: Any, rate: float) -> np.ndarray:
    """The policy of least ``E_pi (log pi'/pi - rate (P pi - 1/2))^2``, ``(A,)``: SPPO's loss, exactly.

    Raises:
        ValueError: as `sppo`, a rate above 10.
    """
    p, log_policy = _start(preference, log_policy=log_policy)
    rate = _validate.real("rate", rate, low=0.0, high=10.0, open_low=True)
    inside = np.isfinite(log_policy)
    law = np.exp(log_policy[inside])
    aim = rate * (p[inside] @ np.exp(log_policy) - 0.5)

    def moved(nu: float) -> np.ndarray:
        return aim - lambertw(nu * np.exp(aim)).real

    # the aims have mean 0: at nu <= 0 probabilities add up to 1 or more (Jensen); W(x) is real from -1/e on
    low, high = -0.5 * np.exp(-1 - aim.max()), 1.0
    while law @ np.exp(moved(high)) > 1:
        high *= 2
    nu = brentq(lambda nu: float(law @ np.exp(moved(nu)) - 1), low, high, xtol=1e-16, rtol=1e-14)
    out = np.full(len(p), -np.inf)
    out[inside] = _normal(log_policy[inside] + moved(nu))
    return out


def _magnet(
    preference: Any, log_ref: Any, tau: Any, log_policy: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    p, ref = _start(preference, log_ref=log_ref)
    start = ref if log_policy is None else _start(p, log_policy=log_policy)[1]
    if np.any(np.isfinite(ref) != np.isfinite(start)):
        _validate.fail("log_policy", "must have the support of log_ref")
    return p, ref, start, _validate.real("tau", tau, low=0.0, high=1e6, open_low=True)


def _mixed(x: np.ndarray, ref: np.ndarray, share: float) -> np.ndarray:
    """``x^{1-share} ref^share``, not normalised; equal supports."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(x), -np.inf, (1 - share) * x + share * ref)


def nash_md(preference: Any, log_ref: Any, tau: float, rate: float, steps: int, *, log_policy: Any = None) -> SelfPlay:
    """``pi' = m exp(rate P m)/Z``, ``m = pi^{1 - rate tau} ref^{rate tau}/Z``, from ``log_policy`` (None: ref).

    Raises:
        ValueError: no preference matrix, no log-probabilities of its size and of one support; ``tau <= 0``, a rate that
            is not in (0, 1/tau]; ``steps < 1``.
    """
    p, ref, start, tau = _magnet(preference, log_ref, tau, log_policy)
    rate = _rate(rate)
    if rate * tau > 1:
        _validate.fail("rate", f"must be at most 1/tau = {1 / tau:g}", rate)

    def step(x: np.ndarray) -> np.ndarray:
        mixture = _normal(_mixed(x, ref, rate * tau))
        return _normal(mixture + rate * (p @ np.exp(mixture)))

    return _run(step, start, steps)


def magnetic_descent(
    preference: Any, log_ref: Any, tau: float, rate: float, steps: int, *, log_policy: Any = None
) -> SelfPlay:
    """``pi' = (pi ref^{rate tau} exp(rate P pi))^{1/(1 + rate tau)}/Z``, from ``log_policy`` (None: the reference).

    Raises:
        ValueError: no preference matrix, no log-probabilities of its size and of one support; a tau or a rate outside
            (0, 1e6]; ``steps < 1``.
    """
    p, ref, start, tau = _magnet(preference, log_ref, tau, log_policy)
    rate = _rate(rate)
    share = rate * tau / (1 + rate * tau)

    def step(x: np.ndarray) -> np.ndarray:
        return _normal(_mixed(x, ref, share) + rate / (1 + rate * tau) * (p @ np.exp(x)))

    return _run(step, start, steps)


def proximal_play(preference: Any, log_policy: Any, tau: float, steps: int) -> SelfPlay:
    """``pi' = regularized_nash(preference, pi, tau)``, ``steps`` times: the reference is the last policy.

    Raises:
        ValueError: no preference matrix, no log-probabilities of its size; a tau outside [1e-3, 1e6]; ``steps < 1``.
    """
    p, start = _start(preference, log_policy=log_policy)
    tau = _validate.real("tau", tau, low=1e-3, high=1e6)
    return _run(lambda x: regularized_nash(p, x, tau).log_policy, start, steps)
