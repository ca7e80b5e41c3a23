"""Whether a divergence generator is what it says: for people who add one."""

from __future__ import annotations

import math

import numpy as np

from klsim.divergences import Generator, f_divergence

__all__ = ["check_generator"]

_RATIOS = np.concatenate([np.geomspace(1e-4, 0.9, 12), np.geomspace(1.1, 1e4, 12)])


def check_generator(generator: Generator) -> None:
    """Assert that a `klsim.divergences.Generator` keeps its contract: every method against finite differences, its
    definition or a search.

    ``f(1) = f'(1) = 0``, convexity, ``f'``, ``(f')^{-1}``, the conjugate, ``q f(p/q)``, the attributes ``at_zero``,
    ``slope_at_zero``, ``recession``, ``curvature``, and ``log_ratio_above`` and ``log_ratio_below``, on which optima
    stand. Ratios from 1e-4 to 1e4; errors allowed are those of the differences.

    Raises:
        AssertionError: names the method or attribute, the ratio, what it gave and what it should have given.
        TypeError: not a `Generator`.
    """
    __tracebackhide__ = True
    if not isinstance(generator, Generator):
        raise TypeError(f"generator: must be a klsim.divergences.Generator, got {type(generator).__name__}")
    with np.errstate(all="ignore"):
        _check_values(generator)
        _check_ends(generator)
        _check_inverse(generator)
        _check_conjugate(generator)
        _check_ratios(generator)
        _check_divergence(generator)


def _equal(generator: Generator, what: str, at: object, found: object, expected: object, rtol: float) -> None:
    __tracebackhide__ = True
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    close = np.isclose(found, expected, rtol=rtol, atol=rtol, equal_nan=False) | (found == expected)
    if not np.all(close):
        index = tuple(np.argwhere(~np.broadcast_to(close, found.shape))[0]) if found.ndim else ()
        where = np.broadcast_to(np.asarray(at, float), found.shape)[index]
        raise AssertionError(
            f"{generator.name}.{what} at {where:g}: {found[index]:.9g}, should be "
            f"{np.broadcast_to(expected, found.shape)[index]:.9g}"
        )


def _check_values(generator: Generator) -> None:
    """``f`` and ``f'`` around 1, ``f'`` against central differences, convexity."""
    __tracebackhide__ = True
    _equal(generator, "value", 1.0, generator.value(1.0), 0.0, 1e-15)
    if math.isfinite(generator.curvature):
        _equal(generator, "derivative", 1.0, generator.derivative(1.0), 0.0, 1e-12)
    t, h = _RATIOS, 1e-5 * _RATIOS
    slope = (generator.value(t + h) - generator.value(t - h)) / (2 * h)
    size = np.maximum(np.abs(generator.value(t)) / t, 1.0)
    _equal(generator, "derivative", t, generator.derivative(t) / size, slope / size, 1e-8)
    if np.any(np.diff(generator.derivative(np.sort(_RATIOS))) < -1e-12):
        raise AssertionError(f"{generator.name}.derivative: falls somewhere, so the generator is not convex")


def _check_ends(generator: Generator) -> None:
    """The attributes, from the function near 0, 1 and infinity."""
    __tracebackhide__ = True
    _equal(generator, "value", 0.0, generator.value(0.0), generator.at_zero, 1e-12)
    small, large = 10.0 ** np.array([-100.0, -200.0, -300.0]), 10.0 ** np.array([100.0, 120.0, 140.0])
    _limit(generator, "at_zero", generator.value(small), generator.at_zero)
    _limit(generator, "slope_at_zero", generator.derivative(small), generator.slope_at_zero)
    _limit(generator, "recession", generator.derivative(large), generator.recession)
    if math.isfinite(generator.curvature):
        h = 1e-4
        found = (generator.derivative(1 + h) - generator.derivative(1 - h)) / (2 * h)
        _equal(generator, "curvature", 1.0, generator.curvature, found, 1e-6)


def _limit(generator: Generator, name: str, along: np.ndarray, limit: float) -> None:
    """Whether a sequence goes to its limit; an infinite one by growing without bound (logarithms grow slowly)."""
    __tracebackhide__ = True
    if math.isinf(limit):
        reached = bool(np.all(np.diff(along) * np.sign(limit) > 0) or along[-1] == limit)
    else:
        reached = bool(np.isclose(along[-1], limit, rtol=1e-6, atol=1e-6))
    if not reached:
        raise AssertionError(f"{generator.name}.{name} is {limit:g}, but f or f' goes to {along[-1]:g} there")


def _check_inverse(generator: Generator) -> None:
    __tracebackhide__ = True
    if not math.isfinite(generator.curvature):  # it has a kink: f' is not one to one
        return
    slopes = generator.derivative(_RATIOS)
    _equal(generator, "inverse_derivative", slopes, generator.inverse_derivative(slopes) / _RATIOS, 1.0, 1e-6)
    below = generator.slope_at_zero - 1.0
    if math.isfinite(below):
        _equal(generator, "inverse_derivative", below, generator.inverse_derivative(below), 0.0, 0.0)
    if math.isfinite(generator.recession):
        above = generator.recession + 1.0
        _equal(generator, "inverse_derivative", above, generator.inverse_derivative(above), math.inf, 0.0)


def _check_conjugate(generator: Generator) -> None:
    """``sup_t t y - f(t)`` by golden section over ``log t``."""
    from scipy.optimize import minimize_scalar

    __tracebackhide__ = True
    for y in np.asarray(generator.derivative(np.geomspace(0.05, 20.0, 9))):
        found = minimize_scalar(
            lambda s, y=y: float(generator.value(math.exp(s)) - math.exp(s) * y), bounds=(-12.0, 12.0),
            method="bounded", options={"xatol": 1e-9},
        )  # fmt: skip
        best = max(-float(found.fun), -generator.at_zero)
        _equal(generator, "conjugate", y, generator.conjugate(np.asarray(y)), best, 1e-7)


def _check_ratios(generator: Generator) -> None:
    """Log-ratios of optima, ``f'(t)`` up and down by a reward difference, solved by their definition."""
    __tracebackhide__ = True
    if not math.isfinite(generator.curvature):
        return
    t = np.geomspace(0.1, 10.0, 7)
    slope = generator.derivative(t)
    for drop in (0.01, 0.3):
        expected = np.log(generator.inverse_derivative(slope - drop))
        _equal(
            generator, "log_ratio_below", t, generator.log_ratio_below(np, np.log(t), np.full(7, drop)), expected, 1e-6
        )
        if math.isfinite(generator.slope_at_zero):
            expected = np.log(generator.inverse_derivative(slope + drop))
            found = generator.log_ratio_above(np, np.log(t), np.full(7, drop))
            _equal(generator, "log_ratio_above", t, found, expected, 1e-6)


def _check_divergence(generator: Generator) -> None:
    """``D_f`` of random laws, with zeros, against its sum; ``term`` far apart against ``q f(p/q)``."""
    __tracebackhide__ = True
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), (2, 40))
    p[::3, 0] = 0.0
    p /= p.sum(axis=-1, keepdims=True)
    expected = np.sum(q * generator.value(p / q), axis=-1)
    found = f_divergence(np.log(p), np.log(q), generator)
    _equal(generator, "term (in f_divergence)", np.arange(40), found, expected, 1e-10)
    log_t = np.log(_RATIOS)
    q = 0.01
    term = generator.term(np, log_t + math.log(q), np.full(len(log_t), math.log(q)))
    size = np.maximum(np.abs(term), q)
    _equal(generator, "term", _RATIOS, term / size, q * generator.value(_RATIOS) / size, 1e-10)
