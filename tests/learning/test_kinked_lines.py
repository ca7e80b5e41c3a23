"""Two-layer ReLU networks of exact width: interpolants, best fits, the bound by alternation, and the doors."""

import numpy as np
import pytest

from klsim.learning.kinked_lines import KinkedLine, alternation_bound, best_fit_errors, interpolant, least_error

X = np.arange(6.0)
ZIGZAG = 0.5 * X + (-1) ** X


def test_the_interpolant_goes_through_the_points_and_bends_only_where_they_do():
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.random(9)), rng.normal(size=9)
    found = interpolant(x, y)
    np.testing.assert_allclose(found(x), y, atol=1e-12)
    assert found.width == 7
    assert interpolant(X, 3 - 0.1 * X).width == 0
    assert interpolant([0.0, 1, 2, 3], [0.0, 1, 2, 0]).width == 1


def test_values_by_hand():
    hat = KinkedLine(1.0, 0.0, [-1, 0, 1], [2.0, -4.0, 2.0])
    np.testing.assert_allclose(hat([-2, -0.5, 0, 0.5, 3]), [1, 2, 3, 2, 1])


@pytest.mark.parametrize("slope", [0.0, 0.7])
def test_the_network_is_the_function(slope):
    line = KinkedLine(0.3, slope, [0.5, 1.5, 2.0], [1.0, 0.0, -2.0])
    network, parameters = line.network((2.0, -1.0), low=-3.0)
    assert network.layers[0].outputs == 2 + (slope != 0)
    inputs = np.random.default_rng(1).uniform(-1, 1, (20, 2))
    np.testing.assert_allclose(network.forward(parameters, inputs)[0][:, 0], line(inputs @ [2.0, -1.0]), atol=1e-12)


def test_a_constant_is_a_network_too():
    network, parameters = KinkedLine(2.0, 0.0, [], []).network()
    np.testing.assert_allclose(network.forward(parameters, [[5.0]])[0], 2.0)


def test_best_fits_are_chebyshev_lines():
    """Without kinks: three alternating residuals; with the interpolant's knots: 0."""
    y = np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(best_fit_errors([0.0, 1, 2], y, np.zeros((1, 0))), 0.5)
    np.testing.assert_allclose(best_fit_errors(X, ZIGZAG, [X[1:-1], X[1:-1] - 0.5]), [0, 0], atol=1e-9)


def test_sets_of_knots_are_solved_each_by_itself():
    rng = np.random.default_rng(2)
    y, sets = rng.normal(size=6), rng.uniform(0, 5, (5, 2))
    together = best_fit_errors(X, y, sets)
    np.testing.assert_allclose(together, [best_fit_errors(X, y, s[None])[0] for s in sets], atol=1e-9)
    assert best_fit_errors(X, y, np.zeros((0, 2))).shape == (0,)


def test_a_zigzag_is_a_step_in_the_width():
    grid = np.arange(0.5, 5, 0.5)
    np.testing.assert_allclose([least_error(X, ZIGZAG, grid, m) for m in range(5)], [1, 1, 1, 1, 0], atol=1e-9)


def test_no_fit_comes_closer_than_the_bound():
    rng = np.random.default_rng(3)
    for _ in range(10):
        y, width = rng.normal(size=8), int(rng.integers(0, 5))
        x = np.arange(8.0)
        residual = y - np.polyval(np.polyfit(x, y, 1), x)
        best = best_fit_errors(x, y, rng.uniform(0, 7, (10, width))).min()
        assert alternation_bound(residual, width) <= best + 1e-9


def test_the_bound_by_hand():
    assert alternation_bound([1, -2, 3, -4, 5], 2) == 1
    assert alternation_bound([1, -2, 3, -4, 5], 1) == 2
    assert alternation_bound([1, -2, 3, -4, 5], 3) == 0
    assert alternation_bound([0.0, 0.0], 0) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: KinkedLine(np.nan, 0.0, [], []), "intercept"),
        (lambda: KinkedLine(0.0, np.inf, [], []), "slope"),
        (lambda: KinkedLine(0.0, 0.0, [1.0], []), "bends"),
        (lambda: KinkedLine(0.0, 0.0, [np.nan], [1.0]), "knots"),
        (lambda: KinkedLine(0.0, 1.0, [], [])([np.nan]), "x"),
        (lambda: KinkedLine(0.0, 1.0, [], []).network(), "low"),
        (lambda: KinkedLine(0.0, 0.0, [0.0], [1.0]).network(()), "direction"),
        (lambda: interpolant([0.0, 0.0], [1.0, 2.0]), "x"),
        (lambda: interpolant([0.0], [1.0]), "y"),
        (lambda: interpolant([0.0, 1.0], [1.0, np.nan]), "y"),
        (lambda: interpolant([0.0, 1.0], [1.0, 1e10]), "y"),
        (lambda: best_fit_errors(X, ZIGZAG, [1.0]), "knots"),
        (lambda: best_fit_errors(X, ZIGZAG, [[np.nan]]), "knots"),
        (lambda: least_error(X, ZIGZAG, [1.0, 1.0], 1), "grid"),
        (lambda: least_error(X, ZIGZAG, [1.0], 2), "width"),
        (lambda: alternation_bound([np.nan], 0), "residual"),
        (lambda: alternation_bound([1.0], -1), "width"),
    ],
)
def test_doors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
