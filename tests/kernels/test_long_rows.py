"""Sorting and best-of-N laws of long rows: against NumPy, the kernel of short rows, and 60 digits."""

from __future__ import annotations

import mpmath
import numba
import numpy as np
import pytest

from klsim import best_of_n
from klsim.distributions import log_normalize
from klsim.kernels.long_rows import best_of_n_long_row, is_legal
from klsim.kernels.order_statistics import best_of_n_rows
from klsim.kernels.sorting import gather, scatter, sorted_with_order


def of_any_number_of_threads(call):
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = call()
    finally:
        numba.set_num_threads(before)
    for a, b in zip(alone, call()):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return alone


def test_sorting():
    rng = np.random.default_rng(0)
    for size in (1, 5, 100_000):
        u = rng.random(size)
        for x in (
            u,
            np.round(4 * u),
            np.zeros(size),
            np.sort(u),
            -np.sort(u),
            1 / (u - 0.5),
            np.where(u < 0.9, 0.0, u),
        ):
            values, order = of_any_number_of_threads(lambda x=x: sorted_with_order(x))
            np.testing.assert_array_equal(values, np.sort(x))
            np.testing.assert_array_equal(gather(x, order), values)
            np.testing.assert_array_equal(scatter(values, order), x)


@pytest.mark.parametrize("size", [1, 2, 4096, 4097, 70_000])
@pytest.mark.parametrize("kind", ["distinct", "ties", "binary", "no support", "rare"])
def test_law_is_that_of_short_rows(size, kind):
    rng = np.random.default_rng(1)
    reward, log_p = np.sort(rng.random(size)), 3 * rng.standard_normal(size)
    if kind == "ties":
        reward = np.round(reward * size / 3)
    if kind == "binary":
        reward = np.round(reward)
    if kind == "no support":
        log_p[rng.random(size) < 0.3] = -np.inf
        log_p[-1] = 0.0
    if kind == "rare":
        log_p = np.clip(log_p * 30, -300, 300)
    log_p = log_normalize(log_p)
    for log_n in (-3.0, 0.0, 0.01, 4.0, 20.0, 200.0):
        law = best_of_n_long_row(reward, log_p, log_n)
        plain = best_of_n_rows(reward[None], log_p[None], np.array([log_n]))[0]
        same = law == plain
        law, plain = np.where(same, 0.0, law), np.where(same, 0.0, plain)
        # both round logs of the size of log p and log N, and N log F by the rounding of log N
        largest = np.abs(log_p[np.isfinite(log_p)]).max()
        bound = 4 * np.finfo(float).eps * ((1 + abs(log_n)) * (1 + np.abs(plain)) + largest)
        assert (np.abs(law - plain) <= bound).all()


@pytest.mark.parametrize("n", [1, 64, 10**9])
def test_law_of_distinct_rewards_against_60_digits(n):
    size = 3000
    log_p = log_normalize(np.cos(np.arange(size)) * 4)
    law = best_of_n_long_row(np.arange(size, dtype=float), log_p, float(np.log(n)))
    with mpmath.workdps(60):
        p = [mpmath.exp(mpmath.mpf(float(x))) for x in log_p]
        whole, upto = mpmath.fsum(p), mpmath.mpf(0)
        for i, mass in enumerate(p):
            below, upto = upto, upto + mass
            if i % 37 == 0 or i > size - 40:
                exact = n * mpmath.log(upto / whole) + mpmath.log(1 - (below / upto) ** n)
                assert abs(law[i] - exact) <= 4e-15 * (1 + abs(exact))


def test_law_of_long_rows_by_the_public_functions(monkeypatch):
    rng = np.random.default_rng(2)
    size = 70_000
    for reward in (rng.random(size), np.round(100 * rng.random(size))):
        log_p = rng.standard_normal(size)
        log_p[::9] = -np.inf
        log_p = log_normalize(log_p)

        def results(log_p=log_p, reward=reward):
            functions = (best_of_n.log_policy, best_of_n.kl, best_of_n.expected_reward, best_of_n.win_rate)
            return [np.asarray(f(log_p, reward, 64)) for f in functions]

        fast = of_any_number_of_threads(results)
        with monkeypatch.context() as patch:
            patch.setattr(best_of_n, "_LONG", 10**12)
            for a, b in zip(fast, results()):
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=1e-12)


def test_several_long_rows_are_those_of_each():
    rng = np.random.default_rng(3)
    log_p, reward = log_normalize(rng.standard_normal((2, 1 << 16))), rng.random((2, 1 << 16))
    for f in (best_of_n.kl, best_of_n.expected_reward, best_of_n.log_policy):
        each = [f(p, r, 64) for p, r in zip(log_p, reward)]
        np.testing.assert_allclose(f(log_p, reward, 64), each, rtol=1e-12)


def test_long_rows_are_checked_at_the_door():
    size = 70_000
    log_p, reward = np.full(size, -np.log(size)), np.arange(size, dtype=float)
    assert is_legal(log_p, reward)
    for place, p, r, match in (
        (7, np.nan, 1.0, r"log_ref\[7\]"),
        (69_999, np.inf, 1.0, r"log_ref\[69999\]"),
        (5, 0.0, 1.0, "sum to"),
        (9, -np.log(size), np.nan, r"reward\[9\]"),
        (9, -np.log(size), np.inf, r"reward\[9\]"),
    ):
        bad_p, bad_r = log_p.copy(), reward.copy()
        bad_p[place], bad_r[place] = p, r
        with pytest.raises(ValueError, match=match):
            best_of_n.log_policy(bad_p, bad_r, 4)
    with pytest.raises(ValueError, match="positive probability"):
        best_of_n.log_policy(np.full(size, -np.inf), reward, 4)


def test_what_sums_of_probabilities_would_lose_goes_through_sums_of_logs():
    size = 70_000
    log_p = np.full(size, -900.0)
    log_p[0] = 0.0
    law = best_of_n.log_policy(log_p, np.arange(size, dtype=float), log_n=880.0)
    assert abs(law[-1] - (880 - 900)) < 1e-8  # N p = e^-20: the probability that it is drawn at all
