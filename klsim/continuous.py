r"""Rewards with a density: tilts, the KL-reward frontier and best-of-n by quadrature.

Under the reference the reward has a law on the line (as `scipy.stats` gives them). Policies that depend on the reward
alone have densities by that law, and everything is an integral over its quantiles: with ``q = 1/(1 + e^{-z})``

.. math:: E[h(R)] = \int h(x(q))\, dq = \int h(x(z))\, q (1-q)\, dz,

by the trapezoidal rule in z, which converges geometrically for analytic ``h`` and reaches quantiles of 1e-300.

The tilt ``e^{r/\beta}/Z`` has value ``beta log E e^{R/beta}``, reward ``E[R e^{R/beta}]/Z`` and KL
``(reward - value)/beta``. Where ``E e^{R/beta}`` is infinite (heavy tails; an exponential tail and small beta) there is
no optimum, which shows in mass at the edge of the rule and is an error.

Best of n: ``KL = log n - (n-1)/n``; its reward is ``E[x(U^{1/n})]``.

Source: derived here; the frontier ``sigma sqrt(2 KL)`` of normal rewards is in Gao et al. (2022), arXiv:2210.10760.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.optimize import brentq

from klsim import _validate
from klsim._shown import Shown

__all__ = ["TiltedLaw", "best_of_n_reward", "kl_frontier", "quantile_rule", "tilted"]

_EDGE = 690.0  # of the rule in z: quantiles down to 1e-300
_NODES = 20_001


class _RewardLaw(Protocol):
    """A law on the line: a frozen distribution of `scipy.stats`."""

    def ppf(self, q: Any) -> Any: ...
    def isf(self, q: Any) -> Any: ...


@dataclass(frozen=True, repr=False)
class TiltedLaw(Shown):
    """A reward law tilted by ``e^{r/beta}``: ``value = reward - beta kl`` in reward units, ``kl`` in nats."""

    beta: float
    value: float
    reward: float
    kl: float


def quantile_rule(law: _RewardLaw) -> tuple[np.ndarray, np.ndarray]:
    """``(x, log w)``: quantiles and the logs of their weights, which add up to 1.

    Raises:
        ValueError: ``law`` has no quantiles (no ``ppf`` and ``isf``), or they are NaN.
    """
    for name in ("ppf", "isf"):
        if not callable(getattr(law, name, None)):
            _validate.fail("law", f"must be a law with ppf and isf, as scipy.stats.norm(), got {type(law).__name__}")
    z = np.linspace(-_EDGE, _EDGE, _NODES)
    tail = np.exp(-np.logaddexp(0.0, np.abs(z)))
    with np.errstate(over="ignore"):
        x = np.where(z < 0, law.ppf(tail), law.isf(tail))
    if np.any(np.isnan(x)):
        _validate.fail("law", "has quantiles that are NaN")
    log_w = -np.logaddexp(0.0, z) - np.logaddexp(0.0, -z)
    return x, log_w - np.logaddexp.reduce(log_w)


def tilted(law: _RewardLaw, beta: float) -> TiltedLaw:
    """``max_pi E_pi[R] - beta KL(pi‖ref)`` for a reward with this law under the reference.

    Raises:
        ValueError: ``beta <= 0``; ``E exp(R/beta)`` is infinite (or decided by quantiles beyond 1e-300): no optimum; a
            beta so small that the tilt sits where quantiles of a bounded law are equal in float64.
    """
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    return _tilted(*quantile_rule(law), beta)


def _tilted(x: np.ndarray, log_w: np.ndarray, beta: float) -> TiltedLaw:
    with np.errstate(invalid="ignore", over="ignore"):
        exponent = log_w + x / beta
        log_z = np.logaddexp.reduce(exponent)
        density = np.exp(exponent - log_z)
    if not np.isfinite(log_z) or density[0] + density[-1] > 1e-18:
        _validate.fail(
            "beta", "E exp(reward/beta) is infinite (or decided beyond quantiles of 1e-300): no optimum", beta
        )
    if density[x == x[-1]].sum() > 1e-6:
        _validate.fail(
            "beta", "is too small: quantiles this near to the upper end of the law are equal in float64", beta
        )
    inside = density > 0
    y, w = x[inside] / beta, np.exp(log_w[inside])
    if np.abs(y).max() <= 0.5:  # a large beta: averages of expm1 and of squares, instead of differences of rounded ones
        log_z = np.log1p(w @ np.expm1(y))
    log_ratio = y - log_z
    small = np.abs(log_ratio) < 1e-3
    near = np.where(small, log_ratio, 0.0)
    series = near**2 * (1 / 2 + near * (1 / 3 + near * (1 / 8 + near / 30)))  # of e^l l - e^l + 1
    direct = np.exp(log_ratio) * log_ratio - np.expm1(log_ratio)
    kl = float(w @ np.where(small, series, direct))
    return TiltedLaw(beta, float(beta * log_z), float(density[inside] @ x[inside]), max(kl, 0.0))


def kl_frontier(law: _RewardLaw, budget: float) -> TiltedLaw:
    """The most reward within a KL of ``budget`` nats: the tilt with that KL.

    Raises:
        ValueError: ``budget <= 0``; no tilt has this KL (heavy tails: the frontier is infinite).
    """
    budget = _validate.real("budget", budget, low=0.0, open_low=True, open_high=True)
    x, log_w = quantile_rule(law)
    unit = float(np.exp(log_w) @ np.abs(x - np.median(x))) if np.all(np.isfinite(x)) else 1.0
    if not (np.isfinite(unit) and unit > 0):
        _validate.fail("law", "needs a mean distance from its median that is finite and positive")

    def excess(log_beta: float) -> float:
        return _tilted(x, log_w, float(np.exp(log_beta))).kl - budget

    high = np.log(unit)
    while _excess_or_infinite(excess, high) > 0:
        high += 1.0
        if high > np.log(unit) + 60:
            _validate.fail("budget", "no tilt of this law has a finite value: its frontier is infinite", budget)
    low, step = high, 1.0
    while _excess_or_infinite(excess, low) < 0:
        low -= step
        if low < high - 700:
            _validate.fail("budget", "is more than any tilt of this law has", budget)
    while not np.isfinite(_excess_or_infinite(excess, low)):  # between the optimum and the betas without one
        middle = 0.5 * (low + high)
        if _excess_or_infinite(excess, middle) >= 0:
            low = middle
        else:
            high = middle
        if high - low < 1e-12:
            _validate.fail("budget", "is more than any tilt of this law has", budget)
    return _tilted(x, log_w, float(np.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))))


def _excess_or_infinite(excess: Any, log_beta: float) -> float:
    """The excess KL; infinite where there is no optimum."""
    try:
        return float(excess(log_beta))
    except ValueError:
        return np.inf


def best_of_n_reward(law: _RewardLaw, n: float) -> float:
    """``E max(R_1, …, R_n)``, any real ``n >= 1``: the quantile at ``U^{1/n}``.

    Raises:
        ValueError: ``n < 1``; a law without quantiles; a mean that is infinite, or decided by quantiles beyond 1e-300.
    """
    n = _validate.real("n", n, low=1.0, open_high=True)
    x, log_w = quantile_rule(law)
    z = np.linspace(-_EDGE, _EDGE, _NODES)
    log_density = np.log(n) + (n - 1) * -np.logaddexp(0.0, -z)  # n q^{n-1}
    weight = np.exp(log_w + log_density)
    kept = weight > 0
    terms = weight[kept] * x[kept]
    size = np.abs(terms).sum()
    edges = abs(terms[0]) + abs(terms[-1]) + _beyond(law, x[0], x[-1], n)
    if not np.isfinite(size) or edges > 1e-18 * size:
        _validate.fail(
            "law", "has a mean, or one of the best of n, that is infinite or decided beyond quantiles of 1e-300"
        )
    return float(terms.sum())


def _beyond(law: _RewardLaw, first: float, last: float, n: float) -> float:
    """``|x| P(best of n beyond x)`` at both ends of the rule: large where a law's quantiles stop before its tails do.

    Those of Student's t of SciPy 1.15 stop at 1e100. A law that gives quantiles only is believed.
    """
    below, above = getattr(law, "cdf", None), getattr(law, "sf", None)
    if not (callable(below) and callable(above)):
        return 0.0
    with np.errstate(all="ignore"):
        lower, upper = float(below(np.nextafter(first, -np.inf))) ** n, -np.expm1(n * np.log1p(-float(above(last))))
        found = abs(first) * lower if lower > 0 else 0.0
        return float(found + abs(last) * upper if upper > 0 else found)
