"""Pruned actions: by hand, against value iteration and log-sums, demonstrations by enumeration, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import log_normalize
from klsim.planning import pruning as pr
from klsim.planning import solve
from klsim.problems import Bandit, DiscountedMDP

TWO = DiscountedMDP(np.ones((1, 3, 1)), np.array([[1.0, 0.5, 0.0]]), 0.5, [1.0])
UNIFORM = np.full((1, 3), -math.log(3))


def test_parts_by_hand():
    """One state, discount 1/2: values are twice the rewards."""
    found = pr.regret_parts(TWO, np.array([False, True, True]), np.log([[1e-300, 0.5, 0.5]]))
    assert (found.regret, found.pruning, found.learning) == pytest.approx((1.5, 1.0, 0.5))
    outside = pr.regret_parts(TWO, np.array([[False, True, True]]), [[0.0, -np.inf, -np.inf]])
    assert outside.learning == pytest.approx(-1.0)
    np.testing.assert_allclose(outside.regret, outside.pruning + outside.learning, atol=1e-12)


@given(st.integers(0, 200), st.floats(0.05, 5.0))
def test_kl_pruning_error_against_two_optima(seed, beta):
    rng = np.random.default_rng(seed)
    ref, reward, keep = log_normalize(rng.standard_normal(5)), rng.standard_normal(5), rng.permutation(5) < 3
    whole = solve(Bandit(ref, reward), beta=beta).value
    part = solve(Bandit(log_normalize(ref[keep]), reward[keep]), beta=beta).value
    assert pr.kl_pruning_error(ref, reward, keep, beta) == pytest.approx(whole - part, abs=1e-12)
    mass = np.exp(ref[keep]).sum()
    as_it_was = pr.kl_pruning_error(ref, reward, keep, beta, renormalised=False)
    assert as_it_was == pytest.approx(whole - part - beta * math.log(mass), abs=1e-12)
    assert as_it_was >= 0


def test_pruning_may_gain():
    assert pr.kl_pruning_error(np.log([0.5, 0.5]), [1.0, 0.0], np.array([True, False]), 1e9) == pytest.approx(-0.5)
    batch = pr.kl_pruning_error(np.log([[0.5, 0.5]] * 2), [[1.0, 0.0]] * 2, np.array([[True, False]] * 2), [0.1, 0.2])
    assert batch.shape == (2,)


def test_errors_and_subsets_by_hand():
    values, subsets = [[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]], np.array([[True, True, False], [False, True, True]])
    errors = pr.pruning_errors(values, subsets)
    assert errors.tolist() == [[0.0, 1.0], [0.5, 0.0]]
    law = np.log([0.75, 0.25])
    assert pr.bad_subsets(errors, law, 0.1, 0.25).tolist() == [True, True]
    assert pr.bad_subsets(errors, law, 0.1, 0.3).tolist() == [False, True]
    assert pr.bad_subsets(errors, law, 0.5, 0.25).tolist() == [True, False]  # an error of .5 is not above .5
    seen = np.array([[True, False], [False, True], [False, False]])
    assert pr.surviving_subsets(errors, seen, 0.1).tolist() == [[True, False], [False, True], [True, True]]


@pytest.mark.parametrize(("tasks", "draws"), [(1, 0), (1, 3), (2, 4), (3, 5), (4, 3)])
def test_unseen_by_enumeration(tasks, draws):
    every = list(itertools.product(range(tasks), repeat=draws))
    missed = sum(len(set(d)) < tasks for d in every) / len(every)
    assert pr.unseen_probability(tasks, draws) == pytest.approx(missed, abs=1e-15)


def test_demonstrations():
    assert [pr.demonstrations_needed(m, 0.1) for m in (1, 2, 4, 6)] == [1, 5, 13, 23]
    assert [pr.demonstrations_bound(8, m, 1 / m, 0.1) for m in (2, 4, 6)] == [12, 27, 34]
    assert pr.demonstrations_bound(8, 4, 0.15, 0.1) == 44
    assert pr.demonstrations_needed(3, 1.0) == 0
    assert pr.unseen_probability(300, 5000) == pytest.approx(300 * (299 / 300) ** 5000, rel=1e-2)


def test_mean_and_tail():
    assert pr.mean_error_bound(0.1, 0.2, 1.0) == pytest.approx(0.28)
    assert pr.tail_of_mean(0.2, 1.0) == pytest.approx(0.1 / 0.9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pr.regret_parts(TWO, np.zeros(3, dtype=bool), UNIFORM), r"keep\[0\]: leaves no legal action"),
        (lambda: pr.regret_parts(TWO, np.ones(2, dtype=bool), UNIFORM), "keep: must have shape"),
        (lambda: pr.regret_parts(TWO, np.ones(3, dtype=bool), UNIFORM[:, :2]), "log_policy"),
        (lambda: pr.kl_pruning_error(UNIFORM[0], np.zeros(3), np.zeros(3, dtype=bool), 1.0), "keep: keeps no mass"),
        (lambda: pr.kl_pruning_error(UNIFORM[0], np.zeros(3), np.ones(3, dtype=bool), 0.0), "beta"),
        (lambda: pr.kl_pruning_error(UNIFORM[0], np.zeros(2), np.ones(3, dtype=bool), 1.0), "reward"),
        (lambda: pr.pruning_errors(np.zeros(3), np.ones((1, 3), dtype=bool)), "values"),
        (lambda: pr.pruning_errors([[math.nan]], np.ones((1, 1), dtype=bool)), "values"),
        (lambda: pr.pruning_errors(np.zeros((2, 3)), np.ones((1, 2), dtype=bool)), "subsets"),
        (lambda: pr.pruning_errors(np.zeros((2, 3)), np.zeros((1, 3), dtype=bool)), r"subsets\[0\]: needs an action"),
        (lambda: pr.bad_subsets(np.zeros((1, 2)), np.log([0.5, 0.5]), -0.1, 0.1), "epsilon"),
        (lambda: pr.bad_subsets(np.zeros((1, 2)), np.log([0.5, 0.5]), 0.1, 1.1), "sigma"),
        (lambda: pr.surviving_subsets(np.zeros(2), np.ones(2, dtype=bool), 0.1), "errors"),
        (lambda: pr.surviving_subsets(np.zeros((1, 2)), np.ones(3, dtype=bool), 0.1), "seen"),
        (lambda: pr.demonstrations_bound(3, 4, 0.1, 0.1), "size"),
        (lambda: pr.demonstrations_bound(3, 1, 0.0, 0.1), "sigma"),
        (lambda: pr.demonstrations_bound(3, 1, 0.1, 0.0), "delta"),
        (lambda: pr.unseen_probability(0, 1), "tasks"),
        (lambda: pr.unseen_probability(2, -1), "demonstrations"),
        (lambda: pr.demonstrations_needed(2, 0.0), "delta"),
        (lambda: pr.mean_error_bound(0.2, 0.1, 0.1), "largest"),
        (lambda: pr.tail_of_mean(0.2, 0.2), "largest"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
