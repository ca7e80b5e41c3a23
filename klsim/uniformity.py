r"""Testing uniformity: how many samples tell a slightly uneven law from the uniform one, exactly.

The uneven laws over ``O`` symbols (O even) are ``q_theta(2j) = (1 + sigma theta_j)/O``,
``q_theta(2j + 1) = (1 - sigma theta_j)/O`` with signs ``theta``. With theta unknown and uniform, n samples have

.. math:: 1 + \chi^2 = \sum_k \binom{O/2}{k} 2^{-O/2} \Big(1 + \sigma^2 \frac{2k - O/2}{O/2}\Big)^n
          \le e^{n^2\sigma^4/O}

(`log_mixture`), so that no test works before ``n ~ sqrt(O)/sigma^2``; counting collisions works there
(`collision_error`). With theta known ``1 + chi^2 = (1 + sigma^2)^n``, whatever O.

Source: Ingster (1987), Paninski (2008); ``revealing-pomdp`` C4, C5.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import gammaln, logsumexp
from scipy.stats import poisson

from klsim import _validate

__all__ = [
    "collision_error",
    "collision_law",
    "log_mixture",
    "samples_for_collisions",
    "samples_for_mixture",
    "uneven_law",
]


def _symbols(symbols: Any) -> int:
    count = _validate.integer("symbols", symbols, low=2)
    if count % 2:
        _validate.fail("symbols", "must be even", count)
    return count


def _sigma(sigma: Any) -> float:
    return _validate.real("sigma", sigma, low=0.0, high=1.0)


def uneven_law(signs: Any, sigma: float) -> np.ndarray:
    """``q_theta (O,)`` of ``signs = theta (O/2,)``, entries 1 or -1.

    Raises:
        ValueError: other entries, ``sigma`` outside [0, 1].
    """
    theta = _validate.integers("signs", signs, low=-1, high=1)
    if theta.ndim != 1 or not theta.size or not np.all(theta):
        _validate.fail("signs", "must be a non-empty vector of 1 and -1")
    shift = _sigma(sigma) * theta
    return np.stack([1 + shift, 1 - shift], axis=1).ravel() / (2 * theta.size)


def log_mixture(symbols: int, sigma: float, samples: Any) -> np.ndarray:
    """``log(1 + chi^2(E_theta q_theta^n ‖ unif^n))`` for ``samples = n``, any shape.

    Raises:
        ValueError: an odd number of symbols, ``sigma`` outside [0, 1], negative ``samples``.
    """
    half, sigma = _symbols(symbols) // 2, _sigma(sigma)
    n = _validate.integers("samples", samples, low=0)
    _validate.fits("symbols", half, (half + 1) * max(n.size, 1))
    k = np.arange(half + 1)
    weights = gammaln(half + 1) - gammaln(k + 1) - gammaln(half - k + 1) - half * math.log(2)
    weights = weights - logsumexp(weights)
    with np.errstate(divide="ignore"):
        growth = np.log1p(sigma**2 * (2 * k - half) / half)
    with np.errstate(invalid="ignore"):
        power = np.where(n[..., None] == 0, 0.0, n[..., None] * growth)
    return np.asarray(logsumexp(weights + power, axis=-1))


def samples_for_mixture(symbols: int, sigma: float, chi2: float = 1.0) -> int:
    """The smallest n with ``chi^2(n) >= chi2``; with fewer samples the total variation is below ``sqrt(chi2)/2``.

    ``chi^2`` grows in n: it is convex in n, and 0 at n = 0 and 1. Found by doubling and bisection.

    Raises:
        ValueError: ``sigma = 0`` (never), ``chi2 <= 0``, more than 2^52 samples.
    """
    sigma = _sigma(sigma)
    if sigma == 0:
        _validate.fail("sigma", "must be > 0: the uniform law is never told from itself", sigma)
    goal = math.log1p(_validate.real("chi2", chi2, low=np.finfo(float).tiny))
    return _smallest(lambda n: float(log_mixture(symbols, sigma, n)) >= goal)


def _smallest(enough: Any, low: int = 1) -> int:
    """The smallest n > low that is enough, by doubling and bisection (of a monotone predicate)."""
    high = 2 * low
    while not enough(high):
        low, high = high, 2 * high
        if high > 2**52:
            _validate.fail("sigma", "too small: more than 2**52 samples")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def collision_law(law: Any, samples: int, limit: int) -> np.ndarray:
    """``P(C = c)``, ``c = 0 … limit``, of the number C of equal pairs among ``samples`` independent draws.

    A Poisson number of draws makes the symbols' counts independent; the law given ``samples`` draws is a coefficient of
    the product of their generating functions (truncated, so exact to rounding).

    Args:
        law: ``(O,)`` probabilities. limit: C is not followed beyond.

    Raises:
        ValueError: not a law; sizes that do not fit.
    """
    (law,) = _validate.numpy_arrays(law=law)
    if law.ndim != 1 or not law.size or not np.all(law >= 0) or abs(float(law.sum()) - 1) > 1e-8:
        _validate.fail("law", "must be probabilities (O,) that sum to 1")
    samples = _validate.integer("samples", samples, low=1)
    limit = _validate.integer("limit", limit, low=0)
    _validate.fits("samples", samples, 64 * (samples + 1) * (limit + 1))  # with the padding of transforms
    product = np.zeros((samples + 1, limit + 1))
    product[0, 0] = 1.0
    for chance, symbols in zip(*np.unique(law, return_counts=True)):
        product = _times(product, _power(_one_symbol(samples * float(chance), samples, limit), int(symbols)))
    return np.maximum(product[samples], 0.0) / float(poisson.pmf(samples, samples))


def _one_symbol(rate: float, samples: int, limit: int) -> np.ndarray:
    """Joint law of a symbol's Poisson count and its equal pairs."""
    out = np.zeros((samples + 1, limit + 1))
    counts = np.arange(samples + 1)
    pairs = counts * (counts - 1) // 2
    kept = pairs <= limit
    out[counts[kept], pairs[kept]] = poisson.pmf(counts[kept], rate)
    return out


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(fftconvolve(a, b)[: a.shape[0], : a.shape[1]])


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """By squaring."""
    out = np.zeros_like(base)
    out[0, 0] = 1.0
    while exponent:
        if exponent % 2:
            out = _times(out, base)
        exponent //= 2
        if exponent:
            base = _times(base, base)
    return out


def collision_error(symbols: int, sigma: float, samples: int) -> float:
    r"""Mean of the two error rates of the collision test, exactly.

    It calls a law uneven if ``sum_o c_o (c_o - 1) / (n (n - 1)) > (1 + sigma^2/2) / O``, half-way between the means
    ``1/O`` and ``(1 + sigma^2)/O``; theta does not matter.

    Raises:
        ValueError: an odd number of symbols, ``sigma`` outside [0, 1], fewer than 2 samples.
    """
    symbols, sigma = _symbols(symbols), _sigma(sigma)
    samples = _validate.integer("samples", samples, low=2)
    limit = math.floor(samples * (samples - 1) / 2 * (1 + sigma**2 / 2) / symbols)
    uneven = uneven_law(np.ones(symbols // 2, dtype=int), sigma)
    even = np.full(symbols, 1 / symbols)
    accepted, missed = (float(collision_law(law, samples, limit).sum()) for law in (even, uneven))
    return 0.5 * (1 - accepted + missed)


def samples_for_collisions(symbols: int, sigma: float, error: float = 1 / 3) -> int:
    """Where doubling and bisection on `collision_error` find ``n`` samples with an error of at most ``error``.

    The error is a step function of n that falls with small jumps up, where the integer threshold moves: nearby smaller
    n may pass too.

    Raises:
        ValueError: ``sigma = 0``, or too small for exact laws; ``error`` outside (0, 1/2); an odd number of symbols.
    """
    symbols = _symbols(symbols)
    sigma = _sigma(sigma)
    if sigma == 0:
        _validate.fail("sigma", "must be > 0: the uniform law is never told from itself", sigma)
    error = _validate.real("error", error)
    if not 0 < error < 0.5:
        _validate.fail("error", "must lie in (0, 1/2)", error)

    def enough(n: int) -> bool:
        if n * n * n / symbols > 1e7:
            _validate.fail("sigma", f"too small: the exact law of collisions among {n} samples does not fit", sigma)
        return collision_error(symbols, sigma, n) <= error

    return _smallest(enough)
