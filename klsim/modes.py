r"""What an f-divergence to a reference does to the reference's modes: floors, prices, certificates.

With ``u = pi/ref`` and the optimum ``pi*`` of ``E_pi[r] - beta D_f(pi‖ref)`` (`klsim.optima.f_regularized`):

* floor: ``max u* >= 1`` and ``f'(max u*) - f'(min u*) = (r_max - r_min)/beta`` give
  ``min u* >= (f')^{-1}(-(r_max - r_min)/beta)``;
* a 0/1 reward makes ``u*`` constant on right and on wrong answers: success p costs ``beta`` with
  ``f'(p/p_ref) - f'((1 - p)/(1 - p_ref)) = 1/beta``, and the policy does not depend on f;
* losing an event of reference mass m, the rest renormalised, costs ``D_f = m f(0) + (1 - m) f(1/(1 - m))``;
* ``KL(ref‖pi) <= eps`` certifies ``pi(event)``: by data processing ``kl(m‖pi(event)) <= eps`` for two outcomes.

Source: ``dph-rl`` C4-C6 (derived there).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim import _validate
from klsim.divergences import Generator, as_generator

__all__ = ["beta_for_success", "cost_of_losing", "least_mass", "log_ratio_floor"]


def log_ratio_floor(spread: Any, beta: Any, generator: Generator | str) -> np.ndarray:
    """``log (f')^{-1}(-spread/beta)``: no outcome of the optimum has a smaller ``log(pi/ref)``. Arrays broadcast.

    ``-inf`` for generators that let outcomes go (finite ``slope_at_zero``) once ``spread/beta`` exceeds that slope.

    Args:
        spread: largest minus smallest reward, >= 0. beta: coefficient of the divergence, > 0.

    Raises:
        ValueError: out of range; TV, whose derivative has no inverse.
    """
    generator = as_generator(generator)
    spread, beta = _validate.numpy_arrays(spread=spread, beta=beta)
    _validate.budgets("spread", np, _validate.finite("spread", np, spread))
    _validate.positive("beta", np, beta)
    _validate.broadcast(spread=spread, beta=beta)
    with np.errstate(all="ignore"):
        drop = spread / beta
        _validate.representable("spread", np, drop)
        return np.asarray(generator.log_ratio_below(np, np.zeros_like(drop), drop))


def beta_for_success(base: Any, success: Any, generator: Generator | str) -> np.ndarray:
    """The coefficient at which a 0/1 reward's optimum has success probability ``success``, from ``base``.

    ``1/(f'(success/base) - f'((1 - success)/(1 - base)))``; arrays broadcast.

    Raises:
        ValueError: not ``0 < base < success < 1``; a generator (TV) whose derivative is the same at both.
    """
    generator = as_generator(generator)
    base, success = _validate.numpy_arrays(base=base, success=success)
    _validate.unit_interval("base", np, base, open_ends=True)
    _validate.unit_interval("success", np, success, open_ends=True)
    _validate.broadcast(base=base, success=success)
    base, success = np.broadcast_arrays(base, success)
    index = _validate.first_true(np, ~(base < success))
    if index is not None:
        _validate.fail("success", "must exceed base", float(success[index]), index)
    with np.errstate(all="ignore"):
        right, wrong = np.log(success) - np.log(base), np.log1p(-success) - np.log1p(-base)
        rise = generator.slope(np, right) - generator.slope(np, wrong)
        beta = 1.0 / np.where(np.isfinite(rise), rise, np.nan)
    index = _validate.first_true(np, ~(np.isfinite(beta) & (beta > 0)))
    if index is not None:
        _validate.fail("success", f"no coefficient of {generator.name} leads there", float(success[index]), index)
    return np.asarray(beta)


def cost_of_losing(mass: Any, generator: Generator | str) -> np.ndarray:
    """``D_f(ref(.|rest)‖ref)`` where the rest has mass ``1 - mass``: ``m f(0) + (1 - m) f(1/(1 - m))``, maybe ``inf``.

    Raises:
        ValueError: ``mass`` outside [0, 1).
    """
    generator = as_generator(generator)
    (mass,) = _validate.numpy_arrays(mass=mass)
    _validate.unit_interval("mass", np, mass)
    index = _validate.first_true(np, mass == 1)
    if index is not None:
        _validate.fail("mass", "must be < 1: something has to be left", float(mass[index]), index)
    with np.errstate(all="ignore"):
        log_rest = np.log1p(-mass)
        kept = generator.term(np, np.zeros_like(mass), log_rest)  # (1 - m) f(1/(1 - m)): p = 1, q = 1 - m
        return np.asarray(kept + np.where(mass > 0, mass * generator.at_zero, 0.0))


def least_mass(mass: Any, budget: Any) -> np.ndarray:
    """The smallest ``p`` in ``[0, mass]`` with ``m log(m/p) + (1 - m) log((1 - m)/(1 - p)) <= budget`` (nats).

    What ``KL(ref‖pi) <= budget`` certifies of an event with ``ref(event) = mass``. Bisection on ``log p``, from below.

    Raises:
        ValueError: ``mass`` outside [0, 1], a negative or infinite budget.
    """
    mass, budget = _validate.numpy_arrays(mass=mass, budget=budget)
    _validate.unit_interval("mass", np, mass)
    _validate.budgets("budget", np, _validate.finite("budget", np, budget))
    _validate.broadcast(mass=mass, budget=budget)
    m, eps = (np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(mass, budget))
    with np.errstate(all="ignore"):
        log_m, rest = np.log(m), np.where(m < 1, (1 - m) * np.log1p(-m), 0.0)
        high = log_m
        low = log_m - (eps - rest) / m  # there the first term alone is too large
        for _ in range(100):
            middle = (low + high) / 2
            other = np.where(m < 1, (1 - m) * np.log1p(-np.exp(middle)), 0.0)
            inside = m * (log_m - middle) + rest - other <= eps
            low, high = np.where(inside, low, middle), np.where(inside, middle, high)
        return np.where(m > 0, np.minimum(np.exp(low), m), 0.0)
