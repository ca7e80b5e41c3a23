"""Coverage: hockey sticks and what best-of-n needs, against sums over all events and linear programmes; extremes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linprog

from klsim.best_of_n import expected_reward
from klsim.coverage import (
    best_of_n_regret,
    best_of_n_regret_bound,
    coverage_profile,
    draws_needed,
    hockey_stick,
    level_covering,
)
from klsim.distributions import log_normalize
from klsim.divergences import renyi, tv

RNG = np.random.default_rng(3)


def pair(size=5, scale=2.0):
    log_ref = log_normalize(RNG.standard_normal(size))
    return log_normalize(log_ref + scale * RNG.standard_normal(size)), log_ref


def events(size):
    return [np.array(e, dtype=float) for e in itertools.product((0, 1), repeat=size)]


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 2.5, 40.0])
def test_the_hockey_stick_is_the_largest_uncovered_event(level):
    p, q = pair()
    brute = max(np.exp(p) @ e - level * (np.exp(q) @ e) for e in events(5))
    assert math.isclose(hockey_stick(p, q, level), brute, abs_tol=1e-15)


def test_hockey_sticks_of_many_levels_and_their_ends():
    p, q = pair()
    levels = np.array([[0.0, 1.0], [np.exp(renyi(p, q, np.inf)) * (1 + 1e-12), np.inf]])
    np.testing.assert_allclose(hockey_stick(p, q, levels), [[1.0, float(tv(p, q))], [0.0, 0.0]], atol=1e-15)
    q_misses = np.log(np.array([0.7, 0.3, 1e-300])) + np.array([0, 0, -np.inf])
    assert hockey_stick(np.log([0.2, 0.3, 0.5]), q_misses, np.inf) == 0.5
    assert coverage_profile(np.log([0.2, 0.3, 0.5]), q_misses, np.inf) == 0.5


def test_a_ratio_that_no_float_holds():
    p, q = np.array([math.log(0.5), math.log(0.5)]), np.array([0.0, -2000.0])
    assert hockey_stick(p, q, 1e300) == 0.5
    assert best_of_n_regret(p, q, 1e300).regret == 0.5
    assert level_covering(p, q, 0.5) <= 1.0
    assert level_covering(p, q, 0.1) == math.inf == draws_needed(p, q, 0.1)


def test_the_profile_lies_between_hockey_sticks():
    for level in (0.5, 1.0, 2.0, 5.0):
        p, q = pair()
        profile = coverage_profile(p, q, level)
        assert profile == sum(np.exp(a) for a, b in zip(p, q) if a - b > math.log(level))
        assert hockey_stick(p, q, level) <= profile + 1e-15
        assert profile <= 2 * hockey_stick(p, q, level / 2) + 1e-15


def test_the_profile_jumps_at_every_ratio():
    p, q = pair()
    for y, ratio in enumerate(np.exp(p - q)):
        below, above = coverage_profile(p, q, ratio * np.array([1 - 1e-9, 1 + 1e-9]))
        assert math.isclose(below - above, np.exp(p[y]), rel_tol=1e-9)


@pytest.mark.parametrize("excess", [0.0, 1e-9, 0.05, 0.3, 0.9, 1.0])
def test_the_least_level_by_a_linear_programme(excess):
    """min M over M and s >= p - M q, s >= 0, sum s <= excess."""
    p, q = pair()
    size = len(p)
    rows = np.hstack([-np.exp(q)[:, None], -np.eye(size)])
    found = linprog(
        [1.0] + [0.0] * size, A_ub=np.vstack([rows, [0.0] + [1.0] * size]), b_ub=[*-np.exp(p), excess],
        bounds=[(0, None)] * (size + 1),
    )  # fmt: skip
    assert math.isclose(level_covering(p, q, excess), found.fun, rel_tol=1e-6, abs_tol=1e-9)
    if 0 < excess < 1:
        assert math.isclose(hockey_stick(p, q, level_covering(p, q, excess)), excess, abs_tol=1e-15)


def test_without_excess_the_level_is_the_largest_ratio():
    p, q = pair()
    assert math.isclose(level_covering(p, q, 0.0), math.exp(renyi(p, q, np.inf)), rel_tol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3.5, 17, 400])
def test_the_worst_reward_among_all_events(n):
    for _ in range(5):
        p, q = pair()
        found = best_of_n_regret(p, q, n)
        lost = {tuple(e): np.exp(p) @ e - expected_reward(q, e, n) for e in events(5)}
        assert math.isclose(found.regret, max(lost.values()), abs_tol=1e-14)
        assert math.isclose(lost[tuple(found.event.astype(float))], found.regret, abs_tol=1e-14)


def test_one_draw_is_total_variation_and_many_lose_nothing():
    p, q = pair()
    assert math.isclose(best_of_n_regret(p, q, 1).regret, tv(p, q), abs_tol=1e-15)
    assert math.isclose(best_of_n_regret_bound(p, q, 1), tv(p, q), abs_tol=1e-15)
    assert best_of_n_regret(p, q, 1e6).regret < 1e-12
    same = best_of_n_regret(p, p, 1)
    assert same.regret < 1e-15
    assert best_of_n_regret(p, p, 2).regret == 0.0
    assert not best_of_n_regret(p, p, 2).event.any()


def test_a_small_regret_keeps_its_accuracy():
    """A point mass: (1 - x)^n."""
    p, q = np.array([-np.inf, 0.0]), np.log([1 - 1e-12, 1e-12])
    assert math.isclose(best_of_n_regret(p, q, 3e13).regret, math.exp(-30.0), rel_tol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 8, 100, 10**5])
def test_the_bound_holds_and_is_the_least_over_levels(n):
    p, q = pair(scale=3.0)
    bound = best_of_n_regret_bound(p, q, n)
    assert best_of_n_regret(p, q, n).regret <= bound + 1e-15
    lost = [(hockey_stick(p, q, m), m) for m in np.geomspace(1, 2 * np.exp(renyi(p, q, np.inf)), 400)]
    least = min(max(e, (1 - (1 - e) / m) ** n) for e, m in lost)
    assert bound <= least * (1 + 1e-9) + 1e-15
    assert least <= 1.1 * bound + 1e-12  # the grid is within 5 % of the best level


def test_draws_needed_are_the_least():
    for regret in (0.01, 0.1, 0.4):
        p, q = pair()
        needed = draws_needed(p, q, regret)
        assert needed == int(needed)
        assert best_of_n_regret(p, q, needed).regret <= regret
        assert needed == 1 or best_of_n_regret(p, q, needed - 1).regret > regret
        level = level_covering(p, q, regret)
        assert level <= needed <= math.ceil(max(level, 1) * math.log(1 / regret) / (1 - regret))


def test_many_draws_and_none_that_suffice():
    rare = np.log([1 - 1e-12, 1e-12])
    assert math.isclose(draws_needed([-np.inf, 0.0], rare, 0.5), math.log(2) * 1e12, rel_tol=1e-6)
    assert draws_needed([-np.inf, 0.0], [0.0, -800.0], 0.5) == math.inf  # more than 1e300
    assert draws_needed([0.0], [0.0], 1e-300) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hockey_stick([0.0, -1.0], [0.0, -np.inf], 1.0), "log_target: probabilities sum"),
        (lambda: hockey_stick([0.0], [0.0], -1.0), "level"),
        (lambda: hockey_stick([0.0], [0.0], [1.0, np.nan]), r"level\[1\]"),
        (lambda: coverage_profile([0.0], np.log([0.5, 0.5]), 1.0), "log_ref: must have the shape"),
        (lambda: level_covering([0.0], [0.0], 1.5), "excess"),
        (lambda: best_of_n_regret([0.0], [0.0], 0.5), r"n = 0.5: must lie in \[1"),
        (lambda: best_of_n_regret(np.zeros((2, 1)), np.zeros((2, 1)), 2), "log_target: must be one law"),
        (lambda: draws_needed([0.0], [0.0], 0.0), "regret"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
