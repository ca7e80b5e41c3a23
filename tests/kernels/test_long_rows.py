"""Sorting and best-of-N laws of long rows: against NumPy, the kernel of short rows, and 60 digits."""

from __future__ import annotations

import mpmath
import numba
import numpy as np
import pytest

from klsim import best_of_n
from klsim.distributions import log_normalize
from klsim.kernels.long_rows import best_of_n_long_row
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
