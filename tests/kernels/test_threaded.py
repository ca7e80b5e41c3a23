"""Two compiled forms of one kernel: which is taken, and that they give the same bytes."""

from __future__ import annotations

import importlib
import pkgutil

import numba
import numpy as np
import pytest

import klsim.kernels
from klsim.distributions import log_normalize
from klsim.kernels import backups, log_partition, order_statistics, rollouts, sweeps, tilt, types
from klsim.kernels.threaded import Threaded, read_only


def kernels():
    for module in pkgutil.iter_modules(klsim.kernels.__path__):
        for value in vars(importlib.import_module(f"klsim.kernels.{module.name}")).values():
            if isinstance(value, Threaded):
                yield value


def test_both_forms_have_their_own_files_in_the_cache():
    assert len(set(kernels())) >= 44
    for kernel in kernels():
        assert kernel.alone.py_func.__qualname__ == f"{kernel.shared.py_func.__qualname__}_alone"
        assert kernel.alone.py_func.__code__ is kernel.shared.py_func.__code__


class Spy:
    def __init__(self):
        self.calls = []

    def form(self, name):
        return lambda *args: self.calls.append(name)


@pytest.mark.parametrize(("size", "count", "taken"), [(10, 2, "alone"), (40_000, 1, "alone"), (40_000, 2, "shared")])
def test_which_is_taken(size, count, taken, monkeypatch):
    spy, kernel = Spy(), Threaded(lambda x: x, 1 << 15)
    kernel.alone, kernel.shared = spy.form("alone"), spy.form("shared")
    monkeypatch.setattr(numba, "get_num_threads", lambda: count)
    kernel(np.zeros(size), 1.0)
    assert spy.calls == [taken]


def rows(seed, n=300, size=24):
    rng = np.random.default_rng(seed)
    log_p = rng.standard_normal((n, size))
    log_p[rng.random((n, size)) < 0.1] = -np.inf
    log_p[:, 0] = 0.0
    return log_normalize(log_p), rng.standard_normal((n, size)) * np.exp(rng.normal(0, 3, (n, 1)))


def calls(seed):
    log_p, q = rows(seed)
    rng = np.random.default_rng(seed)
    ordered, out = np.sort(q, axis=1), np.empty((4, len(q)))
    starts = np.arange(0, q.size + 1, q.shape[1])
    yield backups.soft_backup_rows, (*read_only(q, log_p), 0.7, 0.0)
    yield backups.soft_backup_rows, (*read_only(q, log_p), 0.0, 0.0)
    yield backups.greedy_rows, (*read_only(q, log_p, np.zeros(len(q), np.int64)), 1e-3)
    yield tilt._tilt_rows, (*read_only(log_p, q, rng.uniform(0.1, 9, len(q))), np.empty(q.shape), out)
    yield (
        tilt._tilt_long_row,
        (*read_only(log_normalize(log_p.reshape(-1)), q.reshape(-1)), 0.3, np.empty(q.size), out[:, 0].copy()),
    )
    yield order_statistics.best_of_n_rows, (ordered, log_p, np.log(rng.uniform(1, 50, len(q))))
    yield order_statistics.mid_quantile_rows, (ordered, log_p)
    yield log_partition.tilted_moments, (q.reshape(-1), starts, rng.uniform(0.1, 3, 7))
    yield log_partition.sort_within, (q.reshape(-1), starts)
    yield types.type_log_probs, (rng.integers(0, 9, (50, 3)), np.log([0.2, 0.3, 0.5]))
    yield sweeps.two_sums, (q.reshape(-1), 1e-17 * q.reshape(-1), rng.standard_normal(q.size))
    yield rollouts.sample_sequences, (np.cumsum(np.full((13, 3), 1 / 3), axis=1), 3, rng.random((200, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_the_forms_give_the_same_bytes(seed):
    for kernel, args in calls(seed):
        found = []
        for form in (kernel.alone, kernel.shared):
            own = [a.copy() if isinstance(a, np.ndarray) and a.flags.writeable else a for a in args]
            result = form(*own)
            parts = result if isinstance(result, tuple) else (result,)
            found.append([np.asarray(x).tobytes() for x in (*parts, *(a for a in own if isinstance(a, np.ndarray)))])
        assert found[0] == found[1], kernel.__name__


def test_what_is_only_read_stays_as_it_is():
    a = np.zeros(3)
    (view,) = read_only(a)
    assert a.flags.writeable
    assert not view.flags.writeable
    assert np.shares_memory(a, view)
