r"""Roots and optima with a proof: Krawczyk's interval Newton method in ball arithmetic (python-flint).

For ``F: R^d -> R^d``, a box ``X`` with midpoint m and any matrix Y, if

.. math:: K(X) = m - Y F(m) + (I - Y F'(X)) (X - m) \subset \mathrm{int}\, X

then F has exactly one root in X, and it lies in ``K(X)``: existence by Brouwer, uniqueness as ``I - Y F'(X)`` is a
contraction. Balls enclose all rounding, so a root that is returned is proven. ``F'`` over a box comes from power
series of balls: a function is written once, with arithmetic, ``exp``, ``log`` and ``sqrt``.

An optimum of a strictly concave problem is the only point that satisfies its first-order conditions; a certified root
of these, with the inequalities of what is dropped, is certified to be *the* optimum:

* budgets: ``KL(tilt(ref, r, 1/a)‖ref) = budget`` for the strength a, the multiplier being ``1/a``;
* a regulariser ``D_f``: ``beta f'(t_a) = r_a - lambda`` on what is kept, ``sum ref_a t_a = 1``, and
  ``beta f'(0) > r_a - lambda`` on what is dropped.

Reference laws are those that the floats name exactly, divided by their sum. Needs ``pip install 'klsim[proof]'``.

Source: Krawczyk (1969), Computing 4; Neumaier (1990), Interval methods for systems of equations, chapter 5.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.divergences import Alpha, Generator, as_generator
from klsim.generators import GeneratorSum
from klsim.optima import f_regularized, kl_constrained

__all__ = [
    "CertifiedOptimum",
    "CertifiedRoot",
    "certified_f_regularized",
    "certified_kl_constrained",
    "certified_root",
]

_OUTCOMES = 64


@dataclass(frozen=True, repr=False)
class CertifiedRoot(Shown):
    """A root that exists.

    Attributes:
        value: ``(d,)``. radius: the root is within ``value ± radius``, proven, ``(d,)``.
        isolation: there is no other root within ``value ± isolation``, proven, ``(d,)``.
    """

    value: np.ndarray
    radius: np.ndarray
    isolation: np.ndarray


@dataclass(frozen=True, repr=False)
class CertifiedOptimum(Shown):
    """*The* optimum of a problem, enclosed.

    Attributes:
        log_policy: ``(A,)``; ``-inf`` for what is dropped, which is proven too. log_policy_radius: of it, ``(A,)``.
        reward: ``E_pi[r]``. reward_radius: of it.
        multiplier: of the budget (reward units a nat), or of normalisation. multiplier_radius: of it.
    """

    log_policy: np.ndarray
    log_policy_radius: np.ndarray
    reward: float
    reward_radius: float
    multiplier: float
    multiplier_radius: float


def _flint() -> Any:
    if importlib.util.find_spec("flint") is None:
        raise ModuleNotFoundError("certified roots need python-flint: pip install 'klsim[proof]'")
    import flint

    return flint


def certified_root(function: Callable[[list[Any]], Sequence[Any]], guess: Any, *, digits: int = 50) -> CertifiedRoot:
    """The root of a system near ``guess``, with a proof that it exists and is alone.

    Args:
        function: d balls or power series of balls (``flint.arb``, ``flint.arb_series``) to d of them, by arithmetic
            and their methods ``exp()``, ``log()``, ``sqrt()``. guess: ``(d,)``, or a number for d = 1.
        digits: of the arithmetic, decimal, 20 … 1000.

    Raises:
        ValueError: a guess that is not finite, a function that returns another number of values, or no root that can be
            certified near the guess (none, a multiple one, too few digits). ModuleNotFoundError: no python-flint.
    """
    flint = _flint()
    _validate.function("function", function)
    digits = _validate.integer("digits", digits, low=20, high=1000)
    (start,) = _validate.numpy_arrays(guess=guess)
    if start.ndim > 1 or not start.size or start.size > 2 * _OUTCOMES:
        _validate.fail("guess", f"must be a vector (d,) of at most {2 * _OUTCOMES} numbers, got shape {start.shape}")
    _validate.finite("guess", np, start)
    with flint.ctx.workdps(digits):
        balls, *around = _krawczyk(flint, function, [flint.arb(float(x)) for x in start.reshape(-1)], digits)
        apart = _widened(flint, function, *around)
        value, radius = _as_floats(flint, balls)
        isolation = np.array([_below(flint, r) for r in apart])
    return CertifiedRoot(value, radius, isolation)


def _values(function: Any, x: list[Any]) -> list[Any]:
    found = list(_validate.function("function", function)(x))
    if len(found) != len(x):
        _validate.fail("function", f"must return as many values as it takes, {len(x)}, got {len(found)}")
    return found


def _jacobian(flint: Any, function: Any, x: list[Any]) -> Any:
    """``dF_i/dx_j`` over a box of balls, column by column, from power series of two terms."""
    size = len(x)
    out = flint.arb_mat(size, size)
    cap, flint.ctx.cap = flint.ctx.cap, 2
    try:
        for j in range(size):
            moved = [flint.arb_series([ball, int(i == j)], prec=2) for i, ball in enumerate(x)]
            for i, value in enumerate(_values(function, moved)):
                out[i, j] = flint.arb_series(value)[1]
    finally:
        flint.ctx.cap = cap
    return out


def _column(flint: Any, values: Sequence[Any]) -> Any:
    return flint.arb_mat(len(values), 1, list(values))


def _inverse(flint: Any, matrix: Any) -> Any | None:
    """The midpoints of the inverse of the midpoints; None where there is none."""
    size = matrix.nrows()
    middle = flint.arb_mat(size, size, [matrix[i, j].mid() for i in range(size) for j in range(size)])
    try:
        found = middle.inv()
    except ZeroDivisionError:
        return None
    cells = [found[i, j] for i in range(size) for j in range(size)]
    return flint.arb_mat(size, size, [c.mid() for c in cells]) if all(c.is_finite() for c in cells) else None


def _newton(flint: Any, function: Any, x: list[Any]) -> list[Any]:
    """Plain Newton steps between midpoints: a better guess, nothing proven."""
    for _ in range(60):
        inverse = _inverse(flint, _jacobian(flint, function, x))
        if inverse is None:
            break
        step = inverse * _column(flint, [v.mid() for v in _values(function, x)])
        moved = [(a - step[i, 0]).mid() for i, a in enumerate(x)]
        if not all(m.is_finite() for m in moved):
            break
        still = all(abs(m - a) <= abs(m) * flint.arb(10) ** -int(0.9 * flint.ctx.dps) for m, a in zip(moved, x))
        x = moved
        if still:
            break
    return x


def _contracts(flint: Any, function: Any, inverse: Any, middle: list[Any], radius: list[Any]) -> list[Any] | None:
    """``K(X)`` if it lies inside X, else None."""
    size = len(middle)
    box = [m + flint.arb(0, r) for m, r in zip(middle, radius)]
    identity = flint.arb_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])
    try:
        shrinks = identity - inverse * _jacobian(flint, function, box)
    except (ValueError, ZeroDivisionError):  # a division by a ball around 0: the box is too wide
        return None
    moved = inverse * _column(flint, _values(function, middle))
    spread = shrinks * _column(flint, [b - m for b, m in zip(box, middle)])
    found = [m - moved[i, 0] + spread[i, 0] for i, m in enumerate(middle)]
    inside = all(f.is_finite() and b.contains_interior(f) for f, b in zip(found, box))
    return found if inside else None


def _krawczyk(flint: Any, function: Any, x: list[Any], digits: int) -> tuple[list[Any], Any, list[Any], list[Any]]:
    """``(enclosure of the root, Y, midpoint, radii)``: of the box in which it is alone."""
    middle = _newton(flint, function, x)
    inverse = _inverse(flint, _jacobian(flint, function, middle))
    unit = [abs(m) + flint.arb(10) ** -(digits // 2) for m in middle]  # the rounding of a root at 0 is not relative
    for share in range(digits - 5, 1, -5):  # boxes of relative size 10^-share
        radius = [(u * flint.arb(10) ** -share).mid() for u in unit]
        found = None if inverse is None else _contracts(flint, function, inverse, middle, radius)
        if found is not None:
            return found, inverse, middle, radius
    raise ValueError("guess: no root can be certified near it (none, a multiple one, or too few digits)")


def _widened(flint: Any, function: Any, inverse: Any, middle: list[Any], radius: list[Any]) -> list[Any]:
    """The largest box found, by doubling, that still has one root."""
    for factor in (2**32, 2**8, 2):
        for _ in range(2000):
            wider = [(r * factor).mid() for r in radius]
            if _contracts(flint, function, inverse, middle, wider) is None:
                break
            radius = wider
    return radius


def _above(flint: Any, ball: Any) -> float:
    """A float at least as large as every number of a ball ``>= 0``."""
    return math.nextafter(float(abs(ball).upper()), math.inf)


def _below(flint: Any, ball: Any) -> float:
    """A float at most as large as every number of a ball ``>= 0``."""
    found = float(abs(ball).lower())
    return max(math.nextafter(found, 0.0), 0.0) if math.isfinite(found) else 1.7e308


def _as_floats(flint: Any, balls: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints as floats, and radii around these that hold the balls."""
    values = [float(b.mid()) for b in balls]
    return np.array(values), np.array([_above(flint, b - flint.arb(v)) for b, v in zip(balls, values)])


def _problem(log_ref: Any, reward: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference and reward ``(A,)``, and which outcomes have mass."""
    log_ref, reward = _validate.numpy_arrays(log_ref=log_ref, reward=reward)
    _validate.log_probs("log_ref", np, log_ref)
    _validate.finite("reward", np, reward)
    if log_ref.ndim != 1 or reward.shape != log_ref.shape:
        _validate.fail("reward", f"must be a vector of the length of log_ref, got {reward.shape} and {log_ref.shape}")
    if len(log_ref) > _OUTCOMES:
        _validate.fail("log_ref", f"has {len(log_ref)} outcomes, at most {_OUTCOMES} are certified")
    return log_ref.astype(np.float64), reward.astype(np.float64), np.flatnonzero(np.isfinite(log_ref))


def _masses(flint: Any, log_ref: np.ndarray, inside: np.ndarray) -> list[Any]:
    """The reference on its support, of balls that add up to 1."""
    mass = [flint.arb(float(log_ref[i])).exp() for i in inside]
    total = sum(mass[1:], mass[0])
    return [m / total for m in mass]


def _spread(values: np.ndarray, radii: np.ndarray, inside: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and radii on some outcomes, ``-inf`` and 0 elsewhere."""
    log_policy, radius = np.full(size, -np.inf), np.zeros(size)
    log_policy[inside], radius[inside] = values, radii
    return log_policy, radius


def certified_kl_constrained(log_ref: Any, reward: Any, budget: float, *, digits: int = 50) -> CertifiedOptimum:
    """`klsim.optima.kl_constrained` with a proof: the tilt whose KL is the budget, and its multiplier ``beta``.

    Args:
        log_ref: ``(A,)``, at most 64 outcomes. reward: ``(A,)``. budget: nats, > 0 and less than
            ``-log ref(argmax r)``, from where the constraint is slack. digits: of the arithmetic, 20 … 1000.

    Raises:
        ValueError: bad input, a budget outside that range or so near its ends that nothing can be certified, a reward
            that is constant on the support. ModuleNotFoundError: no python-flint.
    """
    flint = _flint()
    log_ref, reward, inside = _problem(log_ref, reward)
    budget = _validate.real("budget", budget, low=0.0, open_low=True, open_high=True)
    digits = _validate.integer("digits", digits, low=20, high=1000)
    rough = float(kl_constrained(log_ref, reward, budget).beta)
    if not (0 < rough < math.inf):
        _validate.fail("budget", "has no multiplier: the constraint is slack, or the reward constant", budget)
    with flint.ctx.workdps(digits):
        mass = _masses(flint, log_ref, inside)
        top = max(float(reward[i]) for i in inside)
        short = [(flint.arb(float(reward[i])) - flint.arb(top)) / flint.arb(rough) for i in inside]
        aim = flint.arb(budget)

        def law(strength: Any) -> tuple[list[Any], Any, Any]:
            """``(weights, their sum, mean of short)`` of the tilt by strength times the rough one."""
            weights = [m * (strength * s).exp() for m, s in zip(mass, short)]
            total = sum(weights[1:], weights[0])
            return weights, total, sum((w * s for w, s in zip(weights, short)), flint.arb(0) * total) / total

        def excess(x: list[Any]) -> list[Any]:
            _, total, mean = law(x[0])
            return [x[0] * mean - total.log() - aim]

        try:
            (strength,), *_ = _krawczyk(flint, excess, [flint.arb(1)], digits)
        except ValueError:
            _validate.fail("budget", "is too near an end of its range: no multiplier can be certified", budget)
        _, total, mean = law(strength)
        log_law = [m.log() + strength * s - total.log() for m, s in zip(mass, short)]
        value, radius = _as_floats(flint, log_law)
        ends = [mean * flint.arb(rough) + flint.arb(top), flint.arb(rough) / strength]
        (gained, multiplier), (gained_radius, multiplier_radius) = _as_floats(flint, ends)
    policy = _spread(value, radius, inside, len(log_ref))
    return CertifiedOptimum(*policy, float(gained), float(gained_radius), float(multiplier), float(multiplier_radius))


def _slope(flint: Any, generator: Generator, u: Any) -> Any:
    """``f'(e^u)`` of balls or power series."""
    if isinstance(generator, GeneratorSum):
        parts = [flint.arb(c) * _slope(flint, g, u) for c, g in generator.terms]
        return sum(parts[1:], parts[0])
    if isinstance(generator, Alpha):
        power = flint.arb(float(generator.order)) - 1
        return ((power * u).exp() - 1) / power
    forms: dict[str, Callable[[], Any]] = {
        "kl": lambda: u,
        "forward_kl": lambda: 1 - (-u).exp(),
        "chi2": lambda: 2 * (u.exp() - 1),
        "hellinger": lambda: (1 - (-u / 2).exp()) / 2,
        "js": lambda: -((1 + (-u).exp()) / 2).log() / 2,
    }
    if generator.name not in forms:
        _validate.fail("generator", f"must be one of {', '.join(forms)}, an Alpha or a sum, got {generator.name}")
    return forms[generator.name]()


def _slope_at_zero(flint: Any, generator: Generator) -> Any:
    """``f'(0)`` of a generator that drops outcomes."""
    if isinstance(generator, GeneratorSum):
        parts = [flint.arb(c) * _slope_at_zero(flint, g) for c, g in generator.terms]
        return sum(parts[1:], parts[0])
    if isinstance(generator, Alpha):
        return 1 / (1 - flint.arb(float(generator.order)))
    return flint.arb(generator.slope_at_zero)


def certified_f_regularized(
    log_ref: Any, reward: Any, beta: float, generator: Generator | str, *, digits: int = 50
) -> CertifiedOptimum:
    """`klsim.optima.f_regularized` with a proof: *the* maximum of ``E[r] - beta D_f(pi‖ref)``.

    Args:
        log_ref: ``(A,)``, at most 64 outcomes. reward: ``(A,)``. beta: > 0. generator: a name or an object, sums too;
            not total variation, whose optimum need not be unique. digits: of the arithmetic, 20 … 1000.

    Raises:
        ValueError: bad input, or a problem that cannot be certified: an outcome exactly on the edge of being dropped, a
            ratio beyond what the digits resolve. ModuleNotFoundError: no python-flint.
    """
    flint = _flint()
    log_ref, reward, inside = _problem(log_ref, reward)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)
    digits = _validate.integer("digits", digits, low=20, high=1000)
    generator = as_generator(generator)
    found = f_regularized(log_ref, reward, beta, generator)
    log_ratio = np.asarray(found.log_policy)[inside] - log_ref[inside]
    kept = np.isfinite(log_ratio)
    with flint.ctx.workdps(digits):
        mass = _masses(flint, log_ref, inside)
        top = max(float(reward[i]) for i in inside)
        # rewards and the multiplier in units of beta, from the best reward
        scaled = [(flint.arb(float(reward[i])) - flint.arb(top)) / flint.arb(beta) for i in inside]
        chosen = [i for i, yes in enumerate(kept) if yes]

        def conditions(x: list[Any]) -> list[Any]:
            *u, level = x
            each = [_slope(flint, generator, v) - scaled[i] + level for i, v in zip(chosen, u)]
            mean = sum((mass[i] * v.exp() for i, v in zip(chosen, u)), flint.arb(0) * level)
            return [*each, mean - 1]

        guess = [flint.arb(float(log_ratio[i])) for i in chosen]
        best = max(range(len(chosen)), key=lambda k: float(log_ratio[chosen[k]]))
        guess.append(scaled[chosen[best]] - _slope(flint, generator, guess[best]))
        try:
            (*u, level), *_ = _krawczyk(flint, conditions, guess, digits)
        except ValueError:
            _validate.fail("beta", "leads to an optimum that these digits cannot certify", beta)
        for i in (i for i, yes in enumerate(kept) if not yes):
            if not _slope_at_zero(flint, generator) > scaled[i] - level:
                _validate.fail("beta", "leaves an outcome on the edge of being dropped: not certified", beta)
        value, radius = _as_floats(flint, [mass[i].log() + v for i, v in zip(chosen, u)])
        gained = sum((mass[i] * v.exp() * flint.arb(float(reward[inside[i]])) for i, v in zip(chosen, u)), flint.arb(0))
        ends = [gained, level * flint.arb(beta) + flint.arb(top)]
        (reached, multiplier), (reached_radius, multiplier_radius) = _as_floats(flint, ends)
    policy = _spread(value, radius, inside[kept], len(log_ref))
    return CertifiedOptimum(*policy, float(reached), float(reached_radius), float(multiplier), float(multiplier_radius))
