"""The vector exponentials against mpmath, and the fused tilts against 50 digits and the general path."""

from __future__ import annotations

import mpmath
import numba
import numpy as np
import pytest

from klsim import optima
from klsim.distributions import log_normalize
from klsim.kernels import elementary
from klsim.kernels.backups import soft_backup_rows
from klsim.kernels.tilt import backup_rows, tilt_long_row, tilt_rows


@numba.njit
def apply(x):
    out = np.empty((6, x.size))
    for i in range(x.size):
        out[0, i], out[1, i] = elementary.exp(x[i]), elementary.expm1(x[i])
        out[2, i], out[3, i] = elementary.exp_and_expm1(x[i])
        out[4, i], out[5, i] = elementary.exp_and_excess(x[i])
    return out


def test_exponentials_within_two_units_in_the_last_place():
    rng = np.random.default_rng(0)
    near = 10.0 ** rng.uniform(-20, 0, 300)
    half = 0.5 * np.log(2) + np.linspace(-1e-15, 1e-15, 11)
    x = np.concatenate(
        [rng.uniform(-700, 700, 600), rng.uniform(-1, 1, 600), near, -near, half, -half, 3 * half, [0.0]]
    )
    out = apply(x)
    with mpmath.workdps(60):
        for value, column in zip(x, out.T):
            v = mpmath.mpf(float(value))
            e, m = mpmath.exp(v), mpmath.expm1(v)
            for a in column[[0, 2, 4]]:
                assert abs(a - e) <= np.spacing(float(e))
            for b in column[[1, 3]]:
                assert abs(b - m) <= 2 * np.spacing(abs(float(m)))
            c = column[5]
            exact = v * e - m
            assert abs(c - exact) <= 16 * np.spacing(float(exact))


def test_exponentials_at_the_ends():
    x = np.array([-np.inf, -1e308, -745.0, -707.5, 0.0, np.inf])
    whole, less, _, _, _, term = apply(x[:-1])
    assert whole[:4].tolist() == [0, 0, 0, 0]
    assert less[:4].tolist() == [-1, -1, -1, -1]
    assert whole[4] == 1
    assert less[4] == 0
    assert term[4] == 0
    assert elementary.exp(np.inf) == elementary.exp(709.0) < np.inf


@numba.njit(error_model="numpy")
def logs(excess, whole):
    out = np.empty(excess.size)
    for i in range(out.size):
        out[i] = elementary.log_of_excess(excess[i], whole[i])
    return out


def test_logarithms_within_a_unit_in_the_last_place():
    rng = np.random.default_rng(1)
    tiny = 10.0 ** rng.uniform(-300, -0.31, 400)
    ends = np.array([2.0**-52, -(2.0**-53), 1 - 2.0**-53, 1.0, 1 + 2.0**-52, -0.4999999])
    folds = np.concatenate([r + np.linspace(-1e-15, 1e-15, 11) for r in (np.sqrt(2) - 1, np.sqrt(0.5) - 1)])
    excess = np.concatenate([rng.uniform(-0.5, 1, 400), 10.0 ** rng.uniform(-300, 300, 400), tiny, -tiny, ends, folds])
    whole = 10.0 ** rng.uniform(-300, -0.302, 400)
    with mpmath.workdps(60):
        for log, given, found in (
            (mpmath.log1p, excess, logs(excess, 1 + excess)),
            (mpmath.log, whole, logs(np.full(400, -0.9), whole)),
        ):
            for x, y in zip(given, found):
                exact_log = log(mpmath.mpf(float(x)))
                assert abs(y - exact_log) <= np.spacing(abs(float(exact_log)))
    assert logs(np.zeros(1), np.ones(1))[0] == 0


def exact(log_ref, reward, beta):
    """Value, expected reward and KL with 60 digits; the reference is normalised exactly, as the formulas take it."""
    with mpmath.workdps(60):
        ref = [mpmath.exp(mpmath.mpf(float(x))) if x > -np.inf else mpmath.mpf(0) for x in log_ref]
        ref = [x / mpmath.fsum(ref) for x in ref]
        r = [mpmath.mpf(float(x)) for x in reward]
        b = mpmath.mpf(float(beta))
        weights = [p * mpmath.exp(x / b) for p, x in zip(ref, r)]
        z = mpmath.fsum(weights)
        mean = mpmath.fsum(w * x for w, x in zip(weights, r)) / z
        return b * mpmath.log(z), mean, mean / b - mpmath.log(z)


@pytest.mark.parametrize("beta", [1e-3, 0.05, 0.5, 30.0, 1e6])
def test_rows_against_60_digits(beta):
    rng = np.random.default_rng(1)
    log_ref = rng.standard_normal((12, 9)) * 4
    log_ref[::3, 4] = -np.inf
    log_ref, reward = log_normalize(log_ref), rng.standard_normal((12, 9))
    reward[5] = reward[5, 0]  # constant
    fine, _, out = tilt_rows(log_ref, reward, np.full(12, beta))
    assert fine
    for i in range(12):
        value, mean, divergence = exact(log_ref[i], reward[i], beta)
        # the logs that sum to 1 are rounded: exp of a log near -L is off by L eps
        scale = 1e-14 * float(max(abs(reward[i])))
        assert abs(out[0, i] - value) <= 1e-13 * abs(value) + scale
        assert abs(out[1, i] - mean) <= 1e-13 * abs(mean) + scale
        if i != 5:
            assert abs(out[2, i] / divergence - 1) <= 1e-12


@pytest.mark.parametrize("shape", [(3000, 3), (700, 16), (3, 2500), (2, 40_000), (1, 70_001)])
@pytest.mark.parametrize("beta", [0.02, 0.7, 50.0])
def test_public_optimum_is_the_same_on_both_paths(shape, beta, monkeypatch):
    rng = np.random.default_rng(2)
    log_ref = rng.standard_normal(shape)
    log_ref[..., 1::5] = -np.inf
    log_ref, reward = log_normalize(log_ref), 3 * rng.standard_normal(shape)
    fast = optima.kl_regularized(log_ref, reward, beta)
    assert optima._tilt_in_one_go(log_ref, reward, np.asarray(beta)) is not None
    monkeypatch.setattr(optima, "_LARGE", 10**12)
    general = optima.kl_regularized(log_ref, reward, beta)
    for name in ("log_policy", "value", "reward", "kl", "beta"):
        a, b = getattr(fast, name), getattr(general, name)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    assert fast.gap.max() <= 1e-13 * max(1.0, beta)
    assert fast.converged


def test_batches_broadcast_as_on_the_general_path(monkeypatch):
    rng = np.random.default_rng(3)
    log_ref, reward, beta = (
        log_normalize(rng.standard_normal((7, 1, 900))),
        rng.standard_normal(900),
        rng.random((1, 5)),
    )
    fast = optima.kl_regularized(log_ref, reward, beta + 0.1)
    monkeypatch.setattr(optima, "_LARGE", 10**12)
    general = optima.kl_regularized(log_ref, reward, beta + 0.1)
    assert fast.log_policy.shape == (7, 5, 900)
    assert fast.kl.shape == (7, 5)
    np.testing.assert_allclose(fast.kl, general.kl, rtol=1e-12)


def test_what_the_kernels_leave_to_the_general_path():
    log_ref, reward = np.full((1500, 4), np.log(0.25)), np.zeros((1500, 4))
    for bad_ref, bad_reward in (
        (np.nan, 0.0), (np.inf, 0.0), (0.1, 0.0), (-0.2, 0.0), (0.0, np.nan), (0.0, np.inf), (0.0, -np.inf), (0.0, 1e305),
    ):  # fmt: skip
        p, r = log_ref.copy(), reward.copy()
        p[1234, 2], r[1234, 2] = bad_ref or p[1234, 2], bad_reward
        assert not tilt_rows(p, r, np.ones(1500))[0]
        assert not tilt_long_row(p.reshape(-1) - np.log(1500), r.reshape(-1), 1.0)[0]
    log_ref[7] = -np.inf
    assert not tilt_rows(log_ref, reward, np.ones(1500))[0]
    with pytest.raises(ValueError, match=r"log_ref\[7\].*positive probability"):
        optima.kl_regularized(log_ref, reward, 1.0)
    rare = np.log([1e-300, 1.0])  # Z = 1e-300 to first order: beyond the plain sums
    assert not tilt_rows(rare[None], np.array([[1.0, 0.0]]), np.array([1e-3]))[0]


def test_same_bytes_for_any_number_of_threads():
    rng = np.random.default_rng(4)
    log_ref, reward = log_normalize(rng.standard_normal((400, 50))), rng.standard_normal((400, 50))
    long_ref = log_normalize(rng.standard_normal(50_000))
    before = numba.get_num_threads()
    results = []
    try:
        for count in (1, before):
            numba.set_num_threads(count)
            _, a, b = tilt_rows(log_ref, reward, np.full(400, 0.3))
            _, c, d = tilt_long_row(long_ref, np.sin(np.arange(50_000.0)), 0.3)
            results.append([x.tobytes() for x in (a, b, c, d)])
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [1, 2, 3, 16, 40])
@pytest.mark.parametrize("beta", [1e-3, 0.5, 1e4])
def test_backups_are_those_of_single_rows(size, beta):
    rng = np.random.default_rng(5)
    log_ref, q = rng.standard_normal((3000, size)), rng.standard_normal((3000, size))
    log_ref[::7, 1:] = -np.inf
    log_ref = log_normalize(log_ref)
    fine, values, log_policy = backup_rows(q, log_ref, beta)
    assert fine
    plain_values, plain_policy = soft_backup_rows(q, log_ref, beta)
    np.testing.assert_allclose(values, plain_values, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(log_policy, plain_policy, rtol=1e-12, atol=1e-13)
    for bad in (np.nan, np.inf, 1.0, -1.0):
        wrong = log_ref.copy()
        wrong[2999, 0] = bad if not np.isfinite(bad) else wrong[2999, 0] + bad
        assert not backup_rows(q, wrong, beta)[0]
