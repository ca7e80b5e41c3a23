"""Set functions against sets of frozensets: interactions, removals, searches, and what the doors refuse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim import set_functions as sf


def tables(n, grid=None):
    entry = st.integers(-4, 4).map(float) if grid else st.floats(-1, 1)
    return st.lists(entry, min_size=2**n, max_size=2**n).map(np.array)


def as_sets(values):
    n = len(values).bit_length() - 1
    return {frozenset(k for k in range(n) if s >> k & 1): x for s, x in enumerate(values)}


def test_members_and_sizes():
    assert sf.members(2).tolist() == [[False, False], [True, False], [False, True], [True, True]]
    assert sf.sizes(3).tolist() == [0, 1, 1, 2, 1, 2, 2, 3]
    assert sf.sizes(0).tolist() == [0]


@given(tables(3))
def test_dividends_are_alternating_sums_and_invert(values):
    table = as_sets(values)
    by_hand = [sum((-1) ** len(s - t) * table[t] for t in table if t <= s) for s in table]
    np.testing.assert_allclose(sf.dividends(values), by_hand, atol=1e-12)
    np.testing.assert_allclose(sf.from_dividends(sf.dividends(values)), values, atol=1e-12)


@given(tables(3))
def test_interactions_are_second_differences(values):
    table = as_sets(values)
    seconds = [
        table[s | {i, j}] - table[s | {i}] - table[s | {j}] + table[s]
        for i, j in itertools.combinations(range(3), 2)
        for s in table
        if not s & {i, j}
    ]
    low, high = sf.interaction_range(values)
    assert (float(low), float(high)) == pytest.approx((min(seconds), max(seconds)), abs=1e-12)


def test_interactions_of_known_functions():
    size = sf.sizes(4).astype(float)
    assert sf.interaction_range(size) == (0.0, 0.0)
    assert sf.interaction_range(size**2) == (2.0, 2.0)
    assert sf.interaction_range(np.minimum(size, 1))[1] == 0.0
    assert sf.interaction_range([1.0, 3.0]) == (0.0, 0.0)


@given(tables(4, grid=True), st.sampled_from([0.0, 0.5, 2.0]))
def test_removals_and_searches_against_sets(values, tolerance):
    table, full = as_sets(values), frozenset(range(4))
    single = {k: table[full - {k}] for k in full}
    gone = {k for k in full if single[k] >= table[full] - tolerance}
    near = {k for k in full if single[k] >= max(single.values()) - tolerance}
    assert set(np.flatnonzero(sf.removable(values, tolerance))) == gone
    assert set(np.flatnonzero(sf.near_best_removals(values, tolerance))) == near

    def best(family):
        return max(family, key=lambda s: (table[s], -len(s)))

    def parts(of):
        return [frozenset(m) for r in range(len(of) + 1) for m in itertools.combinations(of, r)]

    def of(place):
        return frozenset(k for k in range(4) if place >> k & 1)

    assert of(int(sf.leave_one_out(values, tolerance))) == full - gone
    for found, expected in (
        (sf.constrained_search(values, tolerance), best([full - m for m in parts(near)])),
        (sf.search_survivors(values, tolerance), best(parts(full - near))),
        (sf.best_between(values), best(parts(full))),
    ):
        chosen = of(int(found))
        assert (table[chosen], len(chosen)) == (table[expected], len(expected))
    count, change = sf.joint_removal(values, tolerance)
    assert (int(count), float(change)) == (len(gone), table[full - gone] - table[full])
    losses = [table[full - m] - table[full] for m in parts(gone) if len(m) > 1]
    assert float(sf.worst_joint_removal(values, tolerance)) == min(losses, default=np.inf)


@given(tables(3, grid=True), st.sampled_from([-1.0, 0.0, 2.0]))
def test_minimal_sufficient_subsets(values, level):
    table = as_sets(values)
    expected = [x >= level and not any(table[t] >= level for t in table if t < s) for s, x in table.items()]
    assert sf.minimal_sufficient(values, level).tolist() == expected


def test_copies_may_each_go_but_not_both():
    covered = (sf.sizes(2) > 0).astype(float)
    assert sf.removable(covered).tolist() == [True, True]
    assert sf.worst_joint_removal(covered) == -1.0
    assert sf.constrained_search(covered) == 1  # one of the two


def test_batches_and_tolerances_broadcast():
    values = np.random.default_rng(0).random((5, 3, 16))
    delta = np.linspace(0, 0.5, 3)
    together = sf.constrained_search(values, delta)
    assert together.shape == (5, 3)
    assert together[2, 1] == sf.constrained_search(values[2, 1], delta[1])
    assert sf.minimal_sufficient(values, delta).shape == (5, 3, 16)
    count, change = sf.joint_removal(values[0, 0], delta)
    assert count.shape == change.shape == (3,)
    assert sf.dividends(np.zeros((2, 0, 4))).shape == (2, 0, 4)


def test_evaluations():
    assert sf.search_evaluations(6, [0, 1, 2, 6]).tolist() == [7, 7, 8, 64]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sf.dividends([1.0, 2.0, 3.0]), "values: needs 2\\^n entries"),
        (lambda: sf.from_dividends(1.0), "dividends: needs 2\\^n entries"),
        (lambda: sf.removal_change([1.0, np.nan]), "values\\[1\\] = nan"),
        (lambda: sf.removal_change([1.0, 1e200]), "values: must be at most"),
        (lambda: sf.removable([1.0, 2.0], -1.0), "tolerance = -1.0: must be >= 0"),
        (lambda: sf.best_between([1.0, 2.0], [True], [False]), "required\\[0\\]: has an element"),
        (lambda: sf.best_between([1.0, 2.0], [True, False]), "required: must have shape"),
        (lambda: sf.search_evaluations(3, 4), "candidates = 4: must be <= 3"),
        (lambda: sf.members(60), "n = 60"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
