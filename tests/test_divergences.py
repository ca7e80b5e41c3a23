"""f-divergences against mpmath, their definitions, and conjugate duality."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from klsim.distributions import log_normalize
from klsim.divergences import GENERATORS, Alpha, chi2, f_divergence, js, kl, renyi, tv

mpmath.mp.dps = 50
NAMES = sorted(GENERATORS)
SMOOTH = [n for n in NAMES if n != "tv"]


def formula(name, t):
    """The generators as the module docstring states them, in mpmath."""
    t = mpmath.mpf(t)
    if name.startswith("alpha"):
        a = mpmath.mpf(name[6:-1])
        return (t**a - 1 - a * (t - 1)) / (a * (a - 1))
    return {
        "kl": lambda: t * mpmath.log(t) - t + 1,
        "forward_kl": lambda: -mpmath.log(t) + t - 1,
        "js": lambda: (t * mpmath.log(t) - (1 + t) * mpmath.log((1 + t) / 2)) / 2,
        "chi2": lambda: (t - 1) ** 2,
        "hellinger": lambda: (mpmath.sqrt(t) - 1) ** 2 / 2,
        "tv": lambda: abs(t - 1) / 2,
    }[name]()


@pytest.mark.parametrize("name", NAMES)
def test_values_at_50_digits(name):
    for t in (1e-30, 1e-6, 0.3, 0.9, 1 - 1e-9, 1 + 1e-12, 1.2, 3.0, 1e6, 1e30):
        want = formula(name, t)
        # t = 1 + x has relative rounding eps / x in x, and f is quadratic there (linear for TV)
        conditioning = 1 + (4e-4 / abs(t - 1) if abs(t - 1) < 1e-3 else 0)
        assert abs(float(GENERATORS[name].value(t)) - want) <= 1e-12 * conditioning * want


@pytest.mark.parametrize("name", NAMES)
def test_divergence_at_50_digits_near_and_far(name):
    rng = np.random.default_rng(0)
    for spread in (1e-9, 1e-3, 1.0, 8.0):
        p = log_normalize(rng.standard_normal(6))
        q = log_normalize(p + spread * rng.standard_normal(6))
        exact_p = [mpmath.e ** mpmath.mpf(float(x)) for x in p]
        exact_q = [mpmath.e ** mpmath.mpf(float(x)) for x in q]
        want = sum(b * formula(name, a / b) for a, b in zip(exact_p, exact_q))
        got = float(f_divergence(p, q, name))
        # the input fixes log p - log q only to eps |log p|, which matters near equality
        tolerance = 1e-12 if spread > 1e-6 else 1e-6
        assert abs(got - want) <= tolerance * want


def test_kl_near_zero_keeps_its_relative_accuracy():
    p = np.array([0.3, 0.7])
    q = p * np.array([1 + 7e-9, 1 - 3e-9])
    exact = sum(mpmath.mpf(float(a)) * mpmath.log(mpmath.mpf(float(a)) / mpmath.mpf(float(b))) for a, b in zip(p, q))
    exact += sum(mpmath.mpf(float(b)) - mpmath.mpf(float(a)) for a, b in zip(p, q))
    assert float(kl(np.log(p), np.log(q))) == pytest.approx(float(exact), rel=1e-6)


def test_mismatched_supports():
    p, q = np.array([0.0, -np.inf]), np.log([0.5, 0.5])
    assert kl(p, q) == pytest.approx(math.log(2))
    assert kl(q, p) == math.inf
    assert f_divergence(p, q, "forward_kl") == math.inf
    assert js(p, np.array([-np.inf, 0.0])) == pytest.approx(math.log(2), rel=1e-15)
    assert tv(p, np.array([-np.inf, 0.0])) == 1
    assert f_divergence(p, np.array([-np.inf, 0.0]), "hellinger") == 1
    assert chi2(q, p) == math.inf
    assert chi2(p, q) == pytest.approx(1.0)
    assert renyi(q, p, 2.0) == math.inf
    assert renyi(q, p, 0.5) == pytest.approx(math.log(2))


def test_renyi_orders():
    rng = np.random.default_rng(1)
    p, q = (log_normalize(rng.standard_normal(5)) for _ in range(2))
    assert renyi(p, q, 1.0) == kl(p, q)
    assert renyi(p, q, math.inf) == pytest.approx(np.max(p - q))
    assert renyi(p, q, 0.0) == pytest.approx(0.0, abs=1e-15)
    for a in (0.3, 1 - 1e-9, 1 + 1e-9, 2.0, 7.5):
        exact = mpmath.log(
            sum(mpmath.e ** (a * mpmath.mpf(float(x)) + (1 - a) * mpmath.mpf(float(y))) for x, y in zip(p, q))
        )
        if abs(a - 1) > 1e-6:
            assert float(renyi(p, q, a)) == pytest.approx(float(exact / (a - 1)), rel=1e-12)
        else:
            assert float(renyi(p, q, a)) == pytest.approx(float(kl(p, q)), rel=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_conjugate_is_the_supremum(name):
    generator = GENERATORS[name]
    t = np.concatenate([[0.0], np.logspace(-12, 6, 4000)])
    f = np.asarray(generator.value(t))
    for y in (-3.0, -1.9, -0.4, 0.0, 0.1, 0.3):
        if y >= generator.recession:
            continue
        finite = np.isfinite(f)
        best = np.max(t[finite] * y - f[finite])
        assert float(generator.conjugate(y)) >= best - 1e-12
        assert float(generator.conjugate(y)) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("name", SMOOTH)
def test_derivative_inverse_and_constants(name):
    generator = GENERATORS[name]
    for t in (0.2, 1.0, 4.0):
        h = 1e-6
        numeric = float((generator.value(t + h) - generator.value(t - h)) / (2 * h))
        assert float(generator.derivative(t)) == pytest.approx(numeric, abs=1e-8)
        assert float(generator.inverse_derivative(generator.derivative(t))) == pytest.approx(t, rel=1e-10)
    assert float(generator.value(1.0)) == 0
    assert float(generator.derivative(1.0)) == pytest.approx(0.0, abs=1e-15)
    assert float((generator.value(1 + 1e-3) + generator.value(1 - 1e-3)) / 1e-6) == pytest.approx(
        generator.curvature, rel=1e-4
    )
    assert float(generator.value(0.0)) == generator.at_zero
    if math.isfinite(generator.recession):
        assert float(generator.derivative(1e12)) == pytest.approx(generator.recession, abs=1e-5)


@pytest.mark.parametrize("name", SMOOTH)
def test_log_ratio_below_is_the_shifted_inverse(name):
    generator = GENERATORS[name]
    for top in (1.0, 1.7, 20.0):
        for drop in (0.0, 0.2, 3.0):
            y = float(generator.derivative(top)) - drop
            want = float(generator.inverse_derivative(y))
            got = float(np.exp(generator.log_ratio_below(np, np.asarray(math.log(top)), np.asarray(drop))))
            assert got == pytest.approx(want, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("order", [1.5, 2.0, 3.0])
def test_below_the_slope_at_zero_the_ratio_is_zero(order):
    """From ``t = 1`` the slope can fall by ``1/(order - 1)``, to that at 0, and there and beyond the ratio is 0."""
    drop = np.array([1.0, 2.0]) / (order - 1.0)
    assert Alpha(order).log_ratio_below(np, np.zeros(2), drop).tolist() == [-math.inf, -math.inf]


def test_a_fall_from_far_above_with_an_order_between_zero_and_one():
    """``t^(-1/2) = top^(-1/2) + drop/2``, also where the top is no float."""
    assert Alpha(0.5).log_ratio_below(np, np.asarray(2000.0), np.asarray(4.0)) == pytest.approx(-2 * math.log(2))


def test_alpha_refuses_its_limits():
    for order in (0.0, 1.0):
        with pytest.raises(ValueError, match="order"):
            Alpha(order)


@pytest.mark.parametrize("name", NAMES)
def test_torch_values_and_gradients(name):
    rng = np.random.default_rng(2)
    z, q = rng.standard_normal(5), log_normalize(rng.standard_normal(5))
    logits = torch.tensor(z, requires_grad=True)
    value = f_divergence(log_normalize(logits), torch.tensor(q), name)
    assert value.item() == pytest.approx(float(f_divergence(log_normalize(z), q, name)), rel=1e-12)
    value.backward()
    # d/dz sum q f(pi/q) = pi (f'(pi/q) - E_pi f'(pi/q))
    p = np.exp(log_normalize(z))
    slope = np.asarray(GENERATORS[name].derivative(p / np.exp(q)))
    np.testing.assert_allclose(logits.grad.numpy(), p * (slope - p @ slope), atol=1e-12)


def test_torch_gradient_is_finite_with_zero_support():
    logits = torch.tensor([0.1, 0.4, -torch.inf], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([math.log(0.5), math.log(0.25), math.log(0.25)], dtype=torch.float64)
    kl(log_normalize(logits), q).backward()
    assert torch.isfinite(logits.grad).all()


def test_conjugates_where_the_slope_ends():
    """``f*(f'(inf))`` of alpha: ``-1/alpha`` below 0, infinite between 0 and 1; beyond it always infinite."""
    assert float(Alpha(-1.0).conjugate(Alpha(-1.0).recession)) == 1.0
    assert float(Alpha(0.5).conjugate(Alpha(0.5).recession)) == math.inf
    for order in (-1.0, 0.5):
        assert float(Alpha(order).conjugate(2 * Alpha(order).recession)) == math.inf


@pytest.mark.parametrize("alpha", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("small", [1e-12, 1e-3, 0.2])
def test_renyi_of_supports_that_meet_in_part(alpha, small):
    """Each misses a little of the other's support; against the sum in fifty digits."""
    p, q = np.array([0.5, 0.5 - small, small, 0.0]), np.array([0.5, 0.5 - 2 * small, 0.0, 2 * small])
    with np.errstate(divide="ignore"):
        found = float(renyi(np.log(p), np.log(q), alpha))
    with mpmath.workdps(50):
        total = mpmath.fsum(
            mpmath.mpf(a) ** alpha * mpmath.mpf(b) ** (1 - mpmath.mpf(alpha)) for a, b in zip(p, q) if a * b
        )
        exact = mpmath.log(total / 1) / (mpmath.mpf(alpha) - 1)
    assert found == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0, 2.5, 16.0, 40.0, math.inf])
def test_renyi_of_each_row_of_a_batch(alpha):
    """All outcomes shared, one missed by p, by q, by both, and none shared; in thirty digits, near (1e-6) and far."""
    rng = np.random.default_rng(4)
    q = rng.standard_normal((2, 5, 4))
    p = q + np.array([1e-6, 2.0])[:, None, None] * rng.standard_normal(q.shape)
    p[:, 1, 0] = q[:, 2, 1] = p[:, 3, 2] = q[:, 3, 2] = -np.inf
    p[:, 4, :2] = q[:, 4, 2:] = -np.inf
    p, q = log_normalize(p), log_normalize(q)

    def exact(row, other):
        a, b = (
            [mpmath.e ** mpmath.mpf(float(x)) if np.isfinite(x) else mpmath.mpf(0) for x in y] for y in (row, other)
        )
        shared = [(x / mpmath.fsum(a), y / mpmath.fsum(b)) for x, y in zip(a, b) if x > 0 and y > 0]
        if not shared or (alpha >= 1 and any(x > 0 and y == 0 for x, y in zip(a, b))):
            return math.inf
        if alpha == math.inf:
            return float(max(mpmath.log(x / y) for x, y in shared))
        if alpha == 1:
            return float(mpmath.fsum(x * mpmath.log(x / y) for x, y in shared))
        return float(mpmath.log(mpmath.fsum(y * (x / y) ** alpha for x, y in shared)) / (alpha - 1))

    with mpmath.workdps(30):
        want = [[exact(*pair) for pair in zip(*rows)] for rows in zip(p, q)]
    found = renyi(p, q, alpha)
    np.testing.assert_allclose(found[0], want[0], rtol=1e-6, atol=0 if alpha else 1e-15)
    np.testing.assert_allclose(found[1], want[1], rtol=1e-11, atol=0 if alpha else 1e-15)
