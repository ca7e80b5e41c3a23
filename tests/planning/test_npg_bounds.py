"""Bounds for natural policy gradient: their formulas, the optimal step size, the weights of the critic's error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from klsim.distributions import log_normalize
from klsim.planning.npg_bounds import average_gap_bound, critic_error, last_gap_bound, npg_step_size
from klsim.problems.token_tree import visit_log_probs


def test_worked_by_hand():
    assert npg_step_size(2.0, 4, 25) == pytest.approx(0.4)
    assert average_gap_bound(2.0, 4, 25, 0.01) == pytest.approx(math.sqrt(8 / 50) + 0.08)
    assert last_gap_bound(2.0, 4, 25, 0.5) == pytest.approx(8 / 25)


def test_the_step_size_minimises_the_bound():
    def bound(eta):
        return 3.0 / (eta * 40) + 6 * eta / 8

    best = minimize_scalar(bound, bounds=(1e-3, 5), method="bounded", options={"xatol": 1e-9})
    assert npg_step_size(3.0, 6, 40) == pytest.approx(best.x, rel=1e-4)
    assert average_gap_bound(3.0, 6, 40) == pytest.approx(best.fun, rel=1e-9)


def test_no_distance_no_gap():
    assert npg_step_size(0.0, 3, 7) == 0.0
    assert average_gap_bound(0.0, 3, 7) == 0.0


def test_the_error_is_an_expectation_over_states_of_the_comparator():
    rng = np.random.default_rng(0)
    mu, pi = (tuple(log_normalize(rng.standard_normal((2**t, 2))) for t in range(3)) for _ in range(2))
    q, guess = (tuple(rng.random((2**t, 2)) for t in range(3)) for _ in range(2))
    visits, plain, squares = visit_log_probs(mu), 0.0, 0.0
    for t in range(3):
        for s in range(2**t):
            for a in range(2):
                weight = math.exp(visits[t][s]) * (math.exp(mu[t][s, a]) + math.exp(pi[t][s, a])) / 6
                plain += weight * abs(q[t][s, a] - guess[t][s, a])
                squares += weight * (q[t][s, a] - guess[t][s, a]) ** 2
    assert critic_error(mu, pi, q, guess) == pytest.approx(plain, rel=1e-13)
    assert critic_error(mu, pi, q, guess, squared=True) == pytest.approx(math.sqrt(squares), rel=1e-13)
    assert critic_error(mu, pi, q, q) == 0.0


def test_the_error_of_a_batch_is_that_of_each():
    rng = np.random.default_rng(1)
    mu, pi = (tuple(log_normalize(rng.standard_normal((3, 2**t, 2))) for t in range(3)) for _ in range(2))
    q, guess = (tuple(rng.random((3, 2**t, 2)) for t in range(3)) for _ in range(2))
    for squared in (False, True):
        each = [critic_error(*([x[i] for x in tree] for tree in (mu, pi, q, guess)), squared=squared) for i in range(3)]
        np.testing.assert_allclose(critic_error(mu, pi, q, guess, squared=squared), each, rtol=1e-13)


ONE = (np.log([[0.5, 0.5]]),)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: npg_step_size(-1.0, 2, 3), "kl"),
        (lambda: average_gap_bound(math.inf, 2, 3), "kl"),
        (lambda: average_gap_bound(1.0, 0, 3), "horizon"),
        (lambda: average_gap_bound(1.0, 2, 0), "steps"),
        (lambda: average_gap_bound(1.0, 2, 3, -0.1), "critic_error"),
        (lambda: last_gap_bound(1.0, 2, 3, 0.0), "lr"),
        (lambda: critic_error(ONE, ONE, (np.zeros((1, 2)), np.zeros((2, 2))), ONE), "q_value"),
        (lambda: critic_error(ONE, (np.log([[0.5, 0.4]]),), ONE, ONE), "log_policy"),
        (lambda: critic_error(ONE, ONE, (np.array([[0.0, np.nan]]),), ONE), "q_value"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
