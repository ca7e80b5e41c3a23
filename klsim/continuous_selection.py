r"""Selection rules for rewards with a density: reward, KL and win rate by quadrature.

A rule that looks at rewards only has a density ``g`` by the law of the reward under the reference; with the quantile
``q`` of the reward, ``q = 1/(1 + e^{-z})``,

.. math:: reward = \int x(q) g\, dq, \qquad KL = \int g \log g\, dq, \qquad win = \int q\, g\, dq,

by the trapezoidal rule in z, as in `klsim.continuous`. Where ``g`` has a jump or a kink the law is cut there,
and each part has a rule of its own.

======================  ================================================================================
best of n               ``n q^{n-1}``; KL ``log n - (n-1)/n``, win rate ``n/(n+1)``
worst of n              ``n (1-q)^{n-1}``; the same KL, win rate ``1/(n+1)``
rejection               ``(1 - F^n)/(1 - F)`` above the threshold, ``F^{n-1}`` below, ``F = P(R < threshold)``
soft best of n          ``n w \int_0^inf e^{-sw} M(s)^{n-1} ds``, ``w = e^{x/T}``, ``M(s) = E[e^{-sw}]``
best of n, noisy score  ``n \int f(e) H(x + e)^{n-1} de``, ``H`` the distribution of the score
chi-squared tilt        ``((x - lambda)/(2 beta))_+``: what `klsim.pessimism` samples towards
======================  ================================================================================

Sources: as in `klsim.selection_rules` and `klsim.pessimism`; the quadratures are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.optimize import brentq

from klsim import _validate
from klsim._shown import Shown

__all__ = [
    "SelectedReward",
    "best_of_n",
    "chi2_tilt",
    "noisy_best_of_n",
    "rejection",
    "soft_best_of_n",
    "worst_of_n",
]

_EDGE = 690.0  # of the rule in z: quantiles down to 1e-300
_CELLS = 40_000_000  # of the two-dimensional integrals


class _RewardLaw(Protocol):
    """A law on the line: a frozen distribution of `scipy.stats`."""

    def ppf(self, q: Any) -> Any: ...
    def isf(self, q: Any) -> Any: ...
    def cdf(self, x: Any) -> Any: ...
    def sf(self, x: Any) -> Any: ...
    def logcdf(self, x: Any) -> Any: ...


@dataclass(frozen=True, repr=False)
class SelectedReward(Shown):
    """What a rule gives: the mean ``reward``, ``kl`` to the reference in nats, ``win_rate`` against one draw."""

    reward: float
    kl: float
    win_rate: float


@dataclass(frozen=True)
class _Rule:
    """Nodes ``x`` with quantiles ``q``, ``1 - q`` and log-weights that add up to 1."""

    x: np.ndarray
    log_q: np.ndarray
    log_above: np.ndarray
    log_w: np.ndarray


@dataclass(frozen=True)
class _Part:
    """The law below (or above) a cut, as a law of its own: ``mass`` of the whole, ``rest`` on the other side."""

    law: _RewardLaw
    mass: float
    rest: float
    above: bool

    def ppf(self, q: Any) -> Any:
        return self._inward(q, self.law.ppf, self.law.isf) if self.above else self.law.ppf(self.mass * np.asarray(q))

    def isf(self, q: Any) -> Any:
        return self.law.isf(self.mass * np.asarray(q)) if self.above else self._inward(q, self.law.isf, self.law.ppf)

    def _inward(self, q: Any, near: Any, far: Any) -> Any:
        """From the cut inwards, whose quantiles are counted from the end of the other side where that is nearer."""
        q = np.asarray(q)
        tail = self.rest + self.mass * q
        return np.where(tail < 0.5, near(np.minimum(tail, 0.5)), far(self.mass * (1 - q)))


def _check(law: Any, *names: str, argument: str = "law") -> None:
    for name in names:
        if not callable(getattr(law, name, None)):
            wanted = ", ".join(names)
            _validate.fail(argument, f"must be a law with {wanted}, as scipy.stats.norm(), got {type(law).__name__}")


def _rule(law: Any, edge: float = _EDGE) -> _Rule:
    """The trapezoidal rule in z: its error falls as ``exp(-pi^2 / step)``, below rounding at a step of .23."""
    _check(law, "ppf", "isf")
    z = np.linspace(-edge, edge, int(np.ceil(edge / 0.115)) + 1)
    tail = np.exp(-np.logaddexp(0.0, np.abs(z)))
    x = np.where(z < 0, law.ppf(tail), law.isf(tail))
    if np.any(np.isnan(x)):
        _validate.fail("law", "has quantiles that are NaN")
    log_q, log_above = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
    log_w = log_q + log_above
    return _Rule(x, log_q, log_above, log_w - np.logaddexp.reduce(log_w))


def _gives(*parts: tuple[_Rule, np.ndarray]) -> SelectedReward:
    """Sums over rules of the weights times ``g``, from ``log g`` at the nodes."""
    reward = kl = win = total = 0.0
    for rule, log_g in parts:
        density = np.exp(rule.log_w + log_g)
        inside = density > 0
        mass, x = density[inside], rule.x[inside]
        if not np.all(np.isfinite(x)):
            _validate.fail("law", "has infinite quantiles that the rule reaches")
        reward += float(mass @ x)
        kl += float(mass @ log_g[inside])
        win += float(mass @ np.exp(rule.log_q[inside]))
        total += float(mass.sum())
    return SelectedReward(reward, max(kl - float(np.log(total)), 0.0) if abs(total - 1) < 1e-9 else kl, win)


def _count(n: Any) -> float:
    return _validate.real("n", n, low=1.0, high=1e100)


def best_of_n(law: _RewardLaw, n: float) -> SelectedReward:
    """The best of n draws, any real ``n >= 1``.

    Raises:
        ValueError: no law with quantiles, ``n < 1`` or above 1e100.
    """
    n, rule = _count(n), _rule(law)
    return _gives((rule, np.log(n) + (n - 1) * rule.log_q))


def worst_of_n(law: _RewardLaw, n: float) -> SelectedReward:
    """The worst of n draws, any real ``n >= 1``.

    Raises:
        ValueError: as `best_of_n`.
    """
    n, rule = _count(n), _rule(law)
    return _gives((rule, np.log(n) + (n - 1) * rule.log_above))


def _cut(law: _RewardLaw, at: float) -> tuple[float, float, list[_Rule]]:
    """``(P(R < at), P(R >= at), [rule below, rule above])``, quantiles and weights those of the whole law."""
    below, above = float(law.cdf(at)), float(law.sf(at))
    rules = []
    for mass, rest, upper in ((below, above, False), (above, below, True)):
        if mass <= 0:
            continue
        own, log_mass = _rule(_Part(law, mass, rest, upper)), np.log(mass)
        log_rest = np.log(rest) if rest > 0 else -np.inf
        log_q, log_above = log_mass + own.log_q, log_mass + own.log_above
        if upper:
            log_q = np.logaddexp(log_rest, log_q)
        else:
            log_above = np.logaddexp(log_rest, log_above)
        rules.append(_Rule(own.x, log_q, log_above, own.log_w + log_mass))
    return below, above, rules


def rejection(law: _RewardLaw, n: float, threshold: float) -> SelectedReward:
    """The first of n draws with ``reward >= threshold``, the last if none has.

    Raises:
        ValueError: as `best_of_n`, a law without ``cdf`` and ``sf``, a threshold that is NaN.
    """
    n = _count(n)
    _check(law, "cdf", "sf", "ppf", "isf")
    threshold = _validate.real("threshold", threshold)
    below, above, rules = _cut(law, threshold)
    if below <= 0 or above <= 0:
        return _gives(*((rule, np.zeros(rule.x.shape)) for rule in rules))
    log_below = np.log(below) if below < 0.5 else np.log1p(-above)
    passed = np.log(-np.expm1(n * log_below)) - np.log(above)
    parts = zip(rules, ((n - 1) * log_below, passed))
    return _gives(*((rule, np.full(rule.x.shape, log_g)) for rule, log_g in parts))


def chi2_tilt(law: _RewardLaw, beta: float) -> SelectedReward:
    """The optimum of ``E[R] - beta chi2``: density ``((R - lambda)/(2 beta))_+``, ``E (R - lambda)_+ = 2 beta``.

    Raises:
        ValueError: as `rejection`; ``beta <= 0``; a law without a finite mean, or a tail so long that quantiles
            do not reach the level.
    """
    _check(law, "cdf", "sf", "ppf", "isf")
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    rule = _rule(law)
    weight = np.exp(rule.log_w)
    if not np.all(np.isfinite(rule.x)):
        _validate.fail("law", "has infinite quantiles that the rule reaches")
    mean = float(weight @ rule.x)

    def excess(level: float) -> float:
        mass = float(law.sf(level))
        if mass <= 0:
            return -1.0
        own = _rule(_Part(law, mass, float(law.cdf(level)), True))
        return mass * float(np.exp(own.log_w) @ np.maximum(own.x - level, 0.0)) / (2 * beta) - 1

    low = mean - 2 * beta  # E (R - l)_+ >= E R - l
    step, high = max(abs(low), beta), low + 2 * beta
    while excess(high) > 0:
        high, step = high + step, 2 * step
        if high - low > 1e300:
            _validate.fail("beta", "has no level for this law", beta)
    level = low if excess(low) <= 0 else float(brentq(excess, low, high, xtol=1e-300, rtol=1e-14))
    _, above, rules = _cut(law, level)
    if above <= 0:
        _validate.fail("beta", "is too small: the level is beyond the quantiles of the law", beta)
    upper = rules[-1]
    with np.errstate(divide="ignore"):
        return _gives((upper, np.log(np.maximum(upper.x - level, 0.0) / (2 * beta))))


def soft_best_of_n(law: _RewardLaw, n: float, temperature: float) -> SelectedReward:
    """One of n draws, taken with probability proportional to ``exp(reward / temperature)``.

    Draws beyond quantiles of ``1e-17/n`` are left out.

    Raises:
        ValueError: as `best_of_n`; ``temperature <= 0`` or so small that the double integral has over 4e7 cells.
    """
    n = _count(n)
    temperature = _validate.real("temperature", temperature, low=0.0, open_low=True, open_high=True)
    rule = _rule(law, 40.0 + np.log(n))
    with np.errstate(over="ignore"):
        log_w = (rule.x - rule.x[-1]) / temperature
    low, high, step = -42.0 - np.log(n), 7.0 - log_w.min(), 1 / 8
    if not (high - low) / step * len(log_w) <= _CELLS:
        _validate.fail("temperature", "is too small for this law: take the best of n", temperature)
    u = np.arange(low, high + step, step)
    with np.errstate(over="ignore"):
        fall = -np.exp(u[:, None] + log_w)
    tail = (n - 1) * np.minimum(np.logaddexp.reduce(rule.log_w + fall, axis=1), 0.0)
    log_g = np.log(n) + log_w + np.logaddexp.reduce((u + tail)[:, None] + fall, axis=0) + np.log(step)
    return _gives((rule, log_g))


def noisy_best_of_n(law: _RewardLaw, n: float, noise: _RewardLaw, *, nodes: int = 161) -> SelectedReward:
    """The draw with the highest ``reward + noise`` of n.

    Args:
        noise: its law, e.g. ``scipy.stats.norm(scale=0.5)``. nodes: of the rules for reward and noise, in z.

    Raises:
        ValueError: as `best_of_n`; a noise without ``logcdf``; fewer than 51 nodes or more than 330.
    """
    n = _count(n)
    _check(law, "ppf", "isf")
    _check(noise, "logcdf", "ppf", "isf", argument="noise")
    nodes = _validate.integer("nodes", nodes, low=51, high=330)
    z = np.linspace(-1.0, 1.0, nodes) * (40.0 + np.log(n))
    tail = np.exp(-np.logaddexp(0.0, np.abs(z)))
    x, e = (np.where(z < 0, one.ppf(tail), one.isf(tail)) for one in (law, noise))
    log_w = -np.logaddexp(0.0, z) - np.logaddexp(0.0, -z)
    log_w = log_w - np.logaddexp.reduce(log_w)
    log_g = np.empty(nodes)
    for i in range(nodes):
        score = x[i] + e
        log_h = np.minimum(np.logaddexp.reduce(log_w + noise.logcdf(score[:, None] - x), axis=1), 0.0)
        log_g[i] = np.log(n) + np.logaddexp.reduce(log_w + (n - 1) * log_h)
    log_g -= np.logaddexp.reduce(log_w + log_g)
    return _gives((_Rule(x, -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z), log_w), log_g))
