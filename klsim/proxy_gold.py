r"""A proxy that is optimised and the gold reward that is meant: what policies of the proxy bring in gold.

Under the reference (proxy, gold) has a joint law with densities. A policy that depends on the proxy alone has the
gold reward ``E_pi[m]``, with ``m(x) = E[gold | proxy = x]``: nothing else of the joint law matters. Pairs:

* *Gaussian copula* of correlation rho, any marginals: in normal scores ``proxy = x(Phi(u))``,
  ``gold = g(rho u + sqrt(1 - rho^2) v)``, so ``m(u) = int g(s) N(s; rho u, 1 - rho^2) ds``;
* *additive error*: ``proxy = gold + error``, independent.

Along the tilt ``e^{x/beta}/Z`` the gold reward has the slope ``Cov_beta(x, m)`` in ``1/beta``: the place to stop is
where proxy and conditional gold are uncorrelated. With ``d = sqrt(KL)`` both curves begin as a parabola,
``E[m] + d (alpha - beta d) + O(d^3)``:

* tilt: ``alpha = sqrt2 Cov(x, m)/sd``, ``beta = 2 k3 Cov(x, m)/(3 sd^4) - E[(x - E x)^2 (m - E m)]/sd^2``, k3 the third
  cumulant of the proxy;
* best of n, with any real ``n >= 1`` and ``E = -log P(proxy <= x)``: ``alpha = sqrt2 A``,
  ``beta = -(2 B + 4 A/3)``, ``A = E[(1 - E) m]``, ``B = E[(E^2/2 - E) m]``.

A form ``d (alpha - beta log d)`` has an infinite slope at 0 and is none of them there; under a normal proxy the gold
reward of the tilt is ``E[m(sqrt2 d + Z)]`` (in standard units), so that the form of the curve at large d is that of m.

Integrals are trapezoidal sums in normal scores, ``|u| <= 21`` (tails of 1e-97), which converge geometrically for
analytic laws.

Sources: forms: Gao et al. (2022), arXiv:2210.10760 (fitted); additive errors with heavy tails: Kwa et al. (2024),
arXiv:2407.14503. The copulas, the expansions and the rule for stopping are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_ndtr, ndtr

from klsim import _validate
from klsim._shown import Shown
from klsim.best_of_n import kl_upper_bound

__all__ = [
    "GoldPoint",
    "ProxyGold",
    "Stopping",
    "additive_error",
    "along_best_of_n",
    "along_tilt",
    "best_of_n_form",
    "gaussian_copula",
    "stop_best_of_n",
    "stop_tilt",
    "tilt_form",
]

_EDGE, _STEP = 21.0, 1 / 32  # of the rule in normal scores; scipy's quantiles of Student's t fail beyond 1e-120
_SCORES = np.arange(-_EDGE, _EDGE + _STEP / 2, _STEP)
_ERRORS = _SCORES[::2]  # nodes of gold under an additive error
_ROWS = 512  # of conditional means at once


@dataclass(frozen=True, repr=False)
class ProxyGold(Shown):
    """Nodes of the proxy's law under the reference, in rising order.

    Attributes:
        proxy: ``(M,)``. gold: ``E[gold | proxy]``, ``(M,)``.
        log_weight: logs of the weights of the nodes, which add up to 1, ``(M,)``.
        log_cdf: ``log P(proxy <= x)``, ``(M,)``.

    Raises:
        ValueError: arrays of other shapes, not finite, a proxy or log_cdf that falls, weights that do not add up to 1.
    """

    proxy: np.ndarray
    gold: np.ndarray
    log_weight: np.ndarray
    log_cdf: np.ndarray

    def __post_init__(self) -> None:
        names = ("proxy", "gold", "log_weight", "log_cdf")
        given = _validate.numpy_arrays(**{name: getattr(self, name) for name in names})
        for name, array in zip(names, given):
            _validate.not_nan(name, np, array)
            if array.ndim != 1 or array.shape != given[0].shape or array.size < 3:
                _validate.fail(name, f"must be a vector (M,) as long as proxy, M >= 3, got shape {array.shape}")
            if name in ("proxy", "gold"):
                _validate.finite(name, np, array)
            object.__setattr__(self, name, array.astype(np.float64))
        _validate.log_probs("log_weight", np, self.log_weight)
        if np.any(self.log_cdf > 0):
            _validate.fail("log_cdf", "must be at most 0")
        for name in ("proxy", "log_cdf"):
            if np.any(getattr(self, name)[1:] < getattr(self, name)[:-1]):
                _validate.fail(name, "must not fall from node to node")
        if not self.proxy[-1] > self.proxy[0]:
            _validate.fail("proxy", "must take different values")


@dataclass(frozen=True, repr=False)
class GoldPoint(Shown):
    """A policy of the proxy: its KL to the reference (nats), its proxy and gold rewards."""

    kl: float
    proxy: float
    gold: float


@dataclass(frozen=True, repr=False)
class Stopping(Shown):
    """Where the gold reward is largest: ``at`` (beta of the tilt; n of best-of-n), and the point there.

    ``interior``: false if gold still rises at the end of what was searched, or falls from the start.
    """

    at: float
    kl: float
    proxy: float
    gold: float
    interior: bool


def _quantiles(name: str, law: Any, scores: np.ndarray) -> np.ndarray:
    for method in ("ppf", "isf"):
        if not callable(getattr(law, method, None)):
            _validate.fail(name, f"must be a law with ppf and isf, as scipy.stats.norm(), got {type(law).__name__}")
    tail = ndtr(-np.abs(scores))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        x = np.asarray(np.where(scores < 0, law.ppf(tail), law.isf(tail)))
    if not np.all(np.isfinite(x)):
        _validate.fail(name, "must have finite quantiles, to tails of 1e-97")
    return x


def _pair(proxy: np.ndarray, gold: np.ndarray, log_weight: np.ndarray, log_cdf: np.ndarray) -> ProxyGold:
    return ProxyGold(proxy, gold, log_weight - np.logaddexp.reduce(log_weight), log_cdf)


def gaussian_copula(proxy: Any, gold: Any, rho: float) -> ProxyGold:
    """Proxy and gold with these marginals, whose normal scores have correlation ``rho``.

    Args:
        proxy, gold: laws as `scipy.stats` gives them, continuous. rho: in [-0.999, 0.999], or 1 or -1.

    Raises:
        ValueError: laws without finite quantiles; another rho.
    """
    rho = _validate.real("rho", rho, low=-1.0, high=1.0)
    rest = np.sqrt((1 - rho) * (1 + rho))
    if 0.999 < abs(rho) < 1:
        _validate.fail("rho", "must lie in [-0.999, 0.999] or be 1 or -1", rho)
    x = np.maximum.accumulate(_quantiles("proxy", proxy, _SCORES))
    log_weight = -0.5 * _SCORES**2
    if rest == 0:
        return _pair(x, _quantiles("gold", gold, rho * _SCORES), log_weight, log_ndtr(_SCORES))
    step = min(1 / 16, rest / 4)
    s = np.arange(-_EDGE, _EDGE + step / 2, step)
    g, mean = _quantiles("gold", gold, s), np.empty(len(_SCORES))
    for first in range(0, len(_SCORES), _ROWS):
        rows = slice(first, first + _ROWS)
        exponent = -0.5 * ((s - rho * _SCORES[rows, None]) / rest) ** 2
        kernel = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        mean[rows] = (kernel @ g) / kernel.sum(axis=1)
    return _pair(x, mean, log_weight, log_ndtr(_SCORES))


def additive_error(gold: Any, error: Any) -> ProxyGold:
    """``proxy = gold + error`` with independent gold and error.

    Args:
        gold, error: laws as `scipy.stats` gives them, with ``ppf``, ``isf``, ``logpdf``, ``cdf`` and ``sf``; densities
            that are smooth on the scale of each other.

    Raises:
        ValueError: laws without finite quantiles or densities.
    """
    v, e = _quantiles("gold", gold, _SCORES), _quantiles("error", error, _SCORES)
    for name, law in (("gold", gold), ("error", error)):
        for method in ("logpdf", "cdf", "sf"):
            if not callable(getattr(law, method, None)):
                _validate.fail(name, f"must be a law with {method}, as scipy.stats.norm()")
    log_u = -0.5 * _SCORES**2 - 0.5 * np.log(2 * np.pi)
    nodes = _quantiles("gold", gold, _ERRORS)
    log_v = -0.5 * _ERRORS**2 - np.logaddexp.reduce(-0.5 * _ERRORS**2)
    x = v + e  # nodes that reach into both tails
    log_f, mean, log_cdf = np.empty(len(x)), np.empty(len(x)), np.empty(len(x))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        stretch = np.logaddexp(log_u - gold.logpdf(v), log_u - error.logpdf(e))  # log dx/du
        for first in range(0, len(x), _ROWS):
            rows = slice(first, first + _ROWS)
            away = x[rows, None] - nodes
            exponent = log_v + error.logpdf(away)
            top = exponent.max(axis=1, keepdims=True)
            kernel = np.exp(exponent - top)
            log_f[rows] = np.log(kernel.sum(axis=1)) + top[:, 0]
            mean[rows] = (kernel @ nodes) / kernel.sum(axis=1)
            upper = _SCORES[rows] > 0
            log_cdf[rows][~upper] = np.log(error.cdf(away[~upper]) @ np.exp(log_v))
            log_cdf[rows][upper] = np.log1p(-(error.sf(away[upper]) @ np.exp(log_v)))
        use = np.isfinite(log_f + stretch + mean) & np.isfinite(log_cdf)
        mass = np.exp(np.logaddexp.reduce((log_f + stretch)[use], initial=-np.inf)) * _STEP
    if not abs(mass - 1) < 1e-8:
        _validate.fail("error", f"must be smooth on the scale of the gold reward: {mass:.9g} of the mass is found")
    return _pair(x[use], mean[use], (log_f + stretch)[use], np.minimum(np.maximum.accumulate(log_cdf[use]), 0.0))


def _pair_given(pair: Any) -> ProxyGold:
    _validate.instance("pair", pair, ProxyGold)
    return pair


def _point(pair: ProxyGold, log_ratio: np.ndarray) -> GoldPoint:
    """The policy with this log density ratio to the reference, at the nodes."""
    inside = (log_ratio + pair.log_weight > -745) & np.isfinite(log_ratio)
    ratio, w = log_ratio[inside], np.exp(pair.log_weight[inside])
    law = np.exp(ratio + pair.log_weight[inside])
    small = np.abs(ratio) < 1e-3
    near = np.where(small, ratio, 0.0)
    series = near**2 * (1 / 2 + near * (1 / 3 + near * (1 / 8 + near / 30)))  # of e^l l - e^l + 1
    kl = float(np.sum(np.where(small, w * series, law * ratio - law + w)))
    return GoldPoint(max(kl, 0.0), float(law @ pair.proxy[inside]), float(law @ pair.gold[inside]))


def _tilt_ratio(pair: ProxyGold, slope: float) -> np.ndarray:
    """``slope x - log Z``; at the edge of the rule an error."""
    with np.errstate(over="ignore", invalid="ignore"):
        exponent = slope * (pair.proxy - pair.proxy[-1] if slope > 0 else pair.proxy)
        log_z = np.logaddexp.reduce(exponent + pair.log_weight)
        log_ratio = exponent - log_z
    if not np.isfinite(log_z) or np.exp((log_ratio + pair.log_weight)[-8:]).sum() > 1e-12:
        _validate.fail("beta", "E exp(proxy/beta) is infinite (or decided by tails of 1e-97): no optimum", 1 / slope)
    return np.asarray(log_ratio)


def along_tilt(pair: ProxyGold, beta: float) -> GoldPoint:
    """The optimum of ``E[proxy] - beta KL``: its KL, proxy and gold rewards.

    Raises:
        ValueError: no `ProxyGold`; ``beta <= 0``; ``E exp(proxy/beta)`` is infinite: no optimum.
    """
    pair = _pair_given(pair)
    beta = _validate.real("beta", beta, low=1e-300, high=1e300)
    return _point(pair, _tilt_ratio(pair, 1 / beta))


def along_best_of_n(pair: ProxyGold, n: float) -> GoldPoint:
    """Best of n by the proxy, any real ``n >= 1``; its KL is ``log n - (n-1)/n``.

    Raises:
        ValueError: no `ProxyGold`; n outside [1, 1e80].
    """
    pair = _pair_given(pair)
    n = _validate.real("n", n, low=1.0, high=1e80)
    found = _point(pair, _best_ratio(pair, n))
    return GoldPoint(float(kl_upper_bound(n)), found.proxy, found.gold)


def _best_ratio(pair: ProxyGold, n: float) -> np.ndarray:
    log_ratio = np.log(n) + (n - 1) * pair.log_cdf if n > 1 else np.zeros(len(pair.proxy))
    return np.asarray(log_ratio - np.logaddexp.reduce(log_ratio + pair.log_weight))


def stop_tilt(pair: ProxyGold, largest: float = 20.0) -> Stopping:
    """The tilt of the proxy with the largest gold reward, among those of a KL up to ``largest`` nats.

    Raises:
        ValueError: no `ProxyGold`; a ``largest`` outside (0, 90]; no tilt is an optimum.
    """
    pair = _pair_given(pair)
    largest = _validate.real("largest", largest, low=0.0, high=90.0, open_low=True)
    w = np.exp(pair.log_weight)
    unit = np.sqrt(w @ (pair.proxy - w @ pair.proxy) ** 2)
    if not 0 < unit < np.inf:
        _validate.fail("pair", "needs a proxy of finite variance")
    slopes: list[float] = []
    points: list[GoldPoint] = []
    for slope in np.geomspace(np.sqrt(2e-9 * largest), np.sqrt(2e3 * largest), 120) / unit:
        try:
            point = _point(pair, _tilt_ratio(pair, slope))
        except ValueError:  # no optimum from here on
            break
        if point.kl > largest:  # end at this KL
            near = slopes[-1] if slopes else 0.1 * slope
            slope = brentq(lambda s: _point(pair, _tilt_ratio(pair, s)).kl - largest, near, slope, xtol=1e-14 * slope)
            slopes.append(slope)
            points.append(_point(pair, _tilt_ratio(pair, slope)))
            break
        slopes.append(slope)
        points.append(point)
    if not points:
        _validate.fail("pair", "has no tilt: E exp(proxy/beta) is infinite for every beta")

    def covariance(slope: float) -> float:
        law = np.exp(_tilt_ratio(pair, slope) + pair.log_weight)
        return float(law @ ((pair.proxy - law @ pair.proxy) * (pair.gold - law @ pair.gold)))

    best = int(np.argmax([p.gold for p in points]))
    low, high = slopes[max(best - 1, 0)], slopes[min(best + 1, len(slopes) - 1)]
    interior = low < high and covariance(low) > 0 > covariance(high)
    slope = brentq(covariance, low, high, xtol=1e-14 * high, rtol=1e-14) if interior else slopes[best]
    found = _point(pair, _tilt_ratio(pair, slope))
    return Stopping(1 / slope, found.kl, found.proxy, found.gold, interior)


def stop_best_of_n(pair: ProxyGold, largest: int = 1_000_000) -> Stopping:
    """The whole n up to ``largest`` with the largest gold reward of best-of-n by the proxy.

    Raises:
        ValueError: no `ProxyGold`; a ``largest`` outside [1, 1e9].
    """
    pair = _pair_given(pair)
    largest = _validate.integer("largest", largest, low=1, high=10**9)

    def gold(log_n: float) -> float:
        return -_point(pair, _best_ratio(pair, float(np.exp(log_n)))).gold

    grid = np.linspace(0.0, np.log(largest), 121) if largest > 1 else np.zeros(1)
    at = int(np.argmin([gold(x) for x in grid]))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    near = np.exp(minimize_scalar(gold, bounds=(low, high), method="bounded").x) if high > low else 1.0
    tries = {1, largest, *(min(max(int(near) + i, 1), largest) for i in range(-2, 4))}
    n = min(sorted(tries), key=lambda k: gold(np.log(k)))
    found = along_best_of_n(pair, n)
    return Stopping(float(n), found.kl, found.proxy, found.gold, 1 < n < largest)


def tilt_form(pair: ProxyGold) -> tuple[float, float]:
    """``(alpha, beta)`` of ``E[m] + d (alpha - beta d)``, the tilt's gold reward to second order in ``d = sqrt(KL)``.

    Raises:
        ValueError: no `ProxyGold`; a proxy or gold reward without these moments.
    """
    pair = _pair_given(pair)
    w = np.exp(pair.log_weight)
    with np.errstate(over="ignore", invalid="ignore"):
        x, m = pair.proxy - w @ pair.proxy, pair.gold - w @ pair.gold
        var, skew, slope, bend = w @ x**2, w @ x**3, w @ (x * m), w @ (x**2 * m)
        sd = np.sqrt(var)
        form = np.sqrt(2) * slope / sd, 2 * skew * slope / (3 * var**2) - bend / var
    if not (var > 0 and np.all(np.isfinite(form))):
        _validate.fail("pair", "needs finite moments: of the third power of the proxy, of its square with gold")
    return float(form[0]), float(form[1])


def best_of_n_form(pair: ProxyGold) -> tuple[float, float]:
    """``(alpha, beta)`` of ``E[m] + d (alpha - beta d)``, the gold reward of best-of-n to second order, n near 1.

    Raises:
        ValueError: no `ProxyGold`; a gold reward without a mean.
    """
    pair = _pair_given(pair)
    w, e = np.exp(pair.log_weight), -pair.log_cdf
    with np.errstate(over="ignore", invalid="ignore"):
        seen = w > 0
        w, e, m = w[seen], e[seen], pair.gold[seen] - w[seen] @ pair.gold[seen]
        slope, bend = w @ ((1 - e) * m), w @ ((e**2 / 2 - e) * m)
    if not np.all(np.isfinite([slope, bend])):
        _validate.fail("pair", "needs a gold reward with a finite mean")
    return float(np.sqrt(2) * slope), float(-(2 * bend + 4 * slope / 3))
