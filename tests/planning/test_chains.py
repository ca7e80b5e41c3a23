"""The linear systems of a chain: constants in single precision, long series after GMRES, when a series is too slow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from klsim.planning import chains
from klsim.planning.chains import Chain


@pytest.mark.parametrize("middle", [0.0, 100.0, -1e4])
def test_what_single_precision_leaves_is_within_the_target(middle):
    """A right-hand side around ``middle`` with a spread of 48: what is left is in [0, target]."""
    rng = np.random.default_rng(0)
    matrix = sparse.csr_array(rng.dirichlet(np.ones(20), 20))
    rhs = middle + np.linspace(-24.0, 24.0, 20)
    x = Chain(matrix, 0.5).correction(rhs, 0.1)
    left = rhs - (x - 0.5 * (matrix @ x))
    assert left.min() >= -1e-11
    assert left.max() <= 0.1


def test_visits_at_a_discount_close_to_one_where_factors_may_not_be_had(monkeypatch):
    """From a state that is never left, beside 3000 others that lead everywhere."""
    monkeypatch.setattr(chains, "FILL", 0.0)
    rng, states = np.random.default_rng(0), 3001
    columns = np.concatenate([[0], rng.integers(1, states, 2 * (states - 1))])
    rows = np.concatenate([[0], np.repeat(np.arange(1, states), 2)])
    matrix = sparse.csr_array((np.where(rows == 0, 1.0, 0.5), (rows, columns)), (states, states))
    start = np.eye(1, states)[0]
    np.testing.assert_allclose(Chain(matrix, 1 - 1e-6).visits(start), start, atol=1e-12)


def test_visits_sum_to_one_where_the_solution_loses_digits():
    """The system's condition is 1e9: what the factors give sums to 1 up to some 1e-8 only."""
    rng = np.random.default_rng(3)
    matrix = sparse.csr_array(rng.dirichlet(np.full(40, 0.2), 40))
    visits = Chain(matrix, 1 - 1e-9).visits(np.eye(1, 40)[0])
    assert abs(visits.sum() - 1) <= 40 * np.finfo(float).eps
    assert visits.min() >= 0


def test_a_series_is_slow_if_it_ends_after_the_limit():
    """Halved ten times, ten more to go: 21 spreads in all."""
    spreads = [2.0**k for k in range(20, 9, -1)]
    assert not chains._slow(spreads, 1.0, 22)
    assert chains._slow(spreads, 1.0, 20)
    assert chains._slow([1.0] * 8, 0.5, 10**9)


def neumann(matrix, rhs, target, unit):
    """The sum that the docstring of `Chain._series` states, discount 0.9, in double precision."""
    x, left, spreads, doubt = np.zeros(len(rhs)), rhs, [np.ptp(rhs)], 0.0
    while spreads[-1] > target and doubt <= 0.1 * target:
        middle = (left.min() + left.max()) / 2
        x, left = x + left - middle + middle / (1 - 0.9), 0.9 * (matrix @ (left - middle))
        spreads.append(np.ptp(left))
        doubt = unit * sum(spreads[:-1]) * (len(spreads) + len(rhs) + 4)
    return x, left, doubt


@pytest.mark.parametrize("scale", [1.0, 2.0**-200, 2.0**200])
@pytest.mark.parametrize("target", [1e-3, 1e-5])
@pytest.mark.parametrize(("form", "kind"), [(np.asarray, "f8"), (sparse.csr_array, "f8"), (sparse.csr_array, "f4")])
def test_the_series_goes_on_until_the_target_or_the_doubt(form, kind, target, scale):
    """A mixing chain; single precision cannot vouch for the smaller target, and neither overflows nor underflows."""
    rng = np.random.default_rng(1)
    matrix = rng.dirichlet(np.ones(12), 12)
    for rhs in (np.linspace(-1.0, 1.0, 12), 3.0 + rng.standard_normal(12)):
        unit = 2.0**-24 if kind == "f4" else 0.0
        wanted = neumann(matrix, rhs, target, unit)
        found = Chain(form(matrix), 0.9)._series(scale * rhs, scale * target, 60, np.dtype(kind))
        x, left, doubt = (part / scale for part in found)
        rounding = 1e-12 + wanted[2]
        assert np.abs(left - wanted[1]).max() <= rounding
        assert np.abs(x - wanted[0]).max() <= 10 * rounding  # the inverse of the system has the norm 10
        assert doubt == pytest.approx(wanted[2], rel=1e-3, abs=0)
        assert (doubt > 0.1 * target) == (kind == "f4" and target == 1e-5)


@pytest.mark.parametrize(("spread", "limit"), [(1.0, 60), (2.0, 0)])
def test_a_series_of_no_terms(spread, limit):
    """What has the spread asked for already, around any middle, and what no term may be spent on."""
    rhs = 7.0 + np.array([0.0, spread])
    x, left, doubt = Chain(sparse.csr_array(np.full((2, 2), 0.5)), 0.9)._series(rhs, 1.0, limit, np.dtype("f4"))
    assert (x.tolist(), left.tolist(), doubt) == ([0, 0], rhs.tolist(), 0)
