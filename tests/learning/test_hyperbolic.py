"""Ball and hyperboloid: maps, distances and volumes against mpmath at extremes, gradients, clipping, bad input."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

from klsim.learning import hyperbolic as hyp

U = np.array([[0.3, 0.4], [-1.0, 2.0], [0.0, 0.0], [1e-9, -2e-9]])


def exact(value):
    with mp.workdps(60):
        return float(value())


def test_worked_values():
    x = hyp.ball_exp(U[0])
    np.testing.assert_allclose(x, [0.277270, 0.369694], atol=5e-7)
    assert hyp.conformal_factor(x) == pytest.approx(2.543081, abs=5e-7)
    np.testing.assert_allclose(hyp.hyperboloid_exp(U[0]), [1.127626, 0.312657, 0.416876], atol=5e-7)
    np.testing.assert_allclose(hyp.to_hyperboloid(x), [1.543081, 0.705121, 0.940161], atol=5e-7)


@pytest.mark.parametrize("curvature", [1e-4, 0.5, 1.0, 7.0])
def test_maps_are_inverses_and_the_isometry_doubles(curvature):
    x = hyp.ball_exp(U, curvature=curvature)
    y = hyp.to_hyperboloid(x, curvature=curvature)
    np.testing.assert_allclose(y, hyp.hyperboloid_exp(2 * U, curvature=curvature), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(hyp.to_ball(y, curvature=curvature), x, rtol=1e-10)
    np.testing.assert_allclose(hyp.ball_log(x, curvature=curvature), U, rtol=1e-9)
    np.testing.assert_allclose(hyp.hyperboloid_log(y, curvature=curvature), 2 * U, rtol=1e-9)


def test_distances_from_the_origin_are_lengths():
    assert hyp.ball_distance(hyp.ball_exp(U[1]), [0.0, 0.0]) == pytest.approx(2 * math.sqrt(5), rel=1e-12)
    assert hyp.hyperboloid_distance(hyp.hyperboloid_exp(U[1]), [1.0, 0.0, 0.0]) == pytest.approx(
        math.sqrt(5), rel=1e-12
    )


@pytest.mark.parametrize("size", [1e-8, 1e-3, 1.0, 6.0, 15.0])
def test_conformal_factor_against_mpmath(size):
    # lambda has relative error eps lambda: the point itself does
    x = hyp.ball_exp([0.6 * size, 0.8 * size])
    radius = exact(lambda: mp.sqrt(mp.mpf(float(x[0])) ** 2 + mp.mpf(float(x[1])) ** 2))
    factor = exact(lambda: 2 / (1 - mp.mpf(float(x[0])) ** 2 - mp.mpf(float(x[1])) ** 2))
    assert radius < 1
    assert hyp.conformal_factor(x) == pytest.approx(factor, rel=4e-16 * factor + 4e-16)


@pytest.mark.parametrize(
    ("near", "far"), [(1e-12, 2e-12), (1.0, 1.0 + 1e-9), (0.5, 30.0), (200.0, 200.5), (300.0, 1e-3)]
)
def test_hyperboloid_distance_against_mpmath(near, far):
    angle = 0.3
    u, other = np.array([near, 0.0]), far * np.array([math.cos(angle), math.sin(angle)])

    def distance():
        a, b = (mp.sqrt(sum(mp.mpf(float(t)) ** 2 for t in v)) for v in (u, other))
        cosine = sum(mp.mpf(float(s)) * mp.mpf(float(t)) for s, t in zip(u, other)) / (a * b)
        return mp.acosh(mp.cosh(a) * mp.cosh(b) - mp.sinh(a) * mp.sinh(b) * cosine)

    found = hyp.hyperboloid_distance(hyp.hyperboloid_exp(u), hyp.hyperboloid_exp(other))
    np.testing.assert_allclose(found, exact(distance), rtol=1e-13)


def test_exponential_map_at_extremes():
    y = hyp.hyperboloid_exp([700.0, 0.0])
    np.testing.assert_allclose(y[:2], exact(lambda: mp.cosh(700)), rtol=1e-12)
    np.testing.assert_array_equal(hyp.ball_exp([1e-300, 0.0]), [1e-300, 0.0])
    np.testing.assert_allclose(hyp.ball_exp(np.full(3, 1e-200)), 1e-200, rtol=1e-15)  # squares would vanish
    assert hyp.norm([3e200, 4e200])[0] == pytest.approx(5e200)  # or overflow
    assert hyp.norm([0.0, 0.0])[0] == 0.0


@pytest.mark.parametrize(("kind", "last"), [(np.float64, 55 * math.log(2) / 2), (np.float32, 9.6)])
def test_the_ball_ends_where_tanh_rounds_to_one(kind, last):
    inside, on_it = (hyp.ball_exp(np.array([t], dtype=kind)) for t in (last - 0.8, last + 0.8))
    assert hyp.conformal_factor(inside).dtype == kind
    assert hyp.conformal_factor(inside) > 1 / np.finfo(kind).eps
    with pytest.raises(ValueError, match="inside the ball"):
        hyp.conformal_factor(on_it)
    clipped = hyp.clip_to_ball(on_it)
    assert clipped.dtype == kind
    assert clipped[0] == pytest.approx(1 - 1e-5, abs=1e-7)


def test_clip_leaves_points_inside_alone():
    x = np.array([[0.3, -0.4], [30.0, 40.0], [0.0, 0.0]])
    clipped = hyp.clip_to_ball(x, curvature=4.0, margin=0.1)
    np.testing.assert_array_equal(clipped[[2]], x[[2]])
    np.testing.assert_allclose(clipped[:2], [[0.27, -0.36], [0.27, 0.36]])


def test_riemannian_gradients_are_tangent_and_of_equal_length():
    """Distance to a fixed point has a gradient of length 1 in either chart."""
    rng = np.random.default_rng(0)
    c, step = 1.7, 1e-6
    point, other = hyp.ball_exp(rng.standard_normal((2, 3)) / 2, curvature=c)
    steps = step * np.eye(3)
    plain = (
        hyp.ball_distance(point + steps, other, curvature=c) - hyp.ball_distance(point - steps, other, curvature=c)
    ) / (2 * step)
    length = hyp.conformal_factor(point, curvature=c) * np.linalg.norm(hyp.ball_gradient(point, plain, curvature=c))
    assert length == pytest.approx(1, abs=1e-8)
    y, far = hyp.to_hyperboloid(point, curvature=c), hyp.to_hyperboloid(other, curvature=c)
    product = c * (far[0] * y[0] - far[1:] @ y[1:])  # cosh(sqrt(c) D)
    ambient = math.sqrt(c) * np.r_[far[0], -far[1:]] / math.sqrt(product**2 - 1)
    found = hyp.hyperboloid_gradient(y, ambient, curvature=c)
    assert -y[0] * found[0] + y[1:] @ found[1:] == pytest.approx(0, abs=1e-12)
    assert -(found[0] ** 2) + found[1:] @ found[1:] == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize(
    ("dimension", "radius"), [(1, 3.0), (2, 1e-3), (2, 40.0), (3, 0.5), (7, 100.0), (32, 2.0), (64, 0.5)]
)
def test_volume_against_mpmath(dimension, radius):
    def logarithm():
        top = mp.sinh(radius) ** (dimension - 1)
        inner = mp.quad(lambda s: mp.sinh(s) ** (dimension - 1) / top, mp.linspace(0, radius, 12))
        return (
            mp.log(inner) + mp.log(top) + mp.log(2 * mp.pi ** (mp.mpf(dimension) / 2) / mp.gamma(mp.mpf(dimension) / 2))
        )

    assert hyp.log_volume(radius, dimension) == pytest.approx(exact(logarithm), rel=1e-12)


def test_volume_at_other_curvatures():
    # a space of curvature -c is that of curvature -1 with lengths divided by sqrt(c)
    assert hyp.log_volume(3.0, 5, curvature=4.0) == pytest.approx(float(hyp.log_volume(6.0, 5)) - 5 * math.log(2))
    flat = math.log(math.pi ** (5 / 2) / math.gamma(7 / 2) * 3**5)
    assert hyp.log_volume(3.0, 5, curvature=1e-12) == pytest.approx(flat, rel=1e-10)


@pytest.mark.parametrize(
    ("function", "arguments", "match"),
    [
        (hyp.conformal_factor, ([0.6, 0.8],), r"x: must lie inside the ball"),
        (hyp.conformal_factor, ([[0.1], [2.0]],), r"x\[1\]"),
        (hyp.conformal_factor, ([math.nan],), "x"),
        (hyp.conformal_factor, (0.5,), "x: needs a last axis"),
        (hyp.ball_exp, ([math.inf],), "u"),
        (hyp.ball_exp, (np.zeros((2, 0)),), "u"),
        (hyp.ball_log, ([1.0],), "x"),
        (hyp.ball_distance, ([0.1, 0.2], [0.1]), "other"),
        (hyp.ball_distance, ([0.1], [1.1]), "other"),
        (hyp.hyperboloid_exp, ([711.0],), "u"),
        (hyp.hyperboloid_log, ([1.0, 1.0],), "y: must satisfy"),
        (hyp.hyperboloid_log, ([-1.0, 0.0],), "y"),
        (hyp.to_ball, ([1.0],), "y: needs at least two"),
        (hyp.to_hyperboloid, ([1.0],), "x"),
        (hyp.hyperboloid_distance, ([1.0, 0.0], [2.0, 0.0]), "other"),
        (hyp.hyperboloid_gradient, ([1.0, 0.0], [1.0]), "gradient"),
        (hyp.ball_gradient, ([0.1], [math.nan]), "gradient"),
        (hyp.log_volume, (0.0, 2), "radius"),
        (hyp.log_volume, (1.0, 0), "dimension"),
        (hyp.norm, ([math.nan],), "x"),
    ],
)
def test_bad_input(function, arguments, match):
    with pytest.raises(ValueError, match=match):
        function(*arguments)


@pytest.mark.parametrize("curvature", [0.0, -1.0, math.nan, math.inf])
def test_bad_curvature(curvature):
    with pytest.raises(ValueError, match="curvature"):
        hyp.ball_exp([0.1], curvature=curvature)


@pytest.mark.parametrize("margin", [0.0, 1.0, -1e-3, math.nan])
def test_bad_margin(margin):
    with pytest.raises(ValueError, match="margin"):
        hyp.clip_to_ball([0.1], margin=margin)
