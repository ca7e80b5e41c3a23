"""Window and edge kernels of lattice laws against exact integers."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from klsim.kernels.lattice import edge_by_recurrence, patch, plan_windows, spectra
from klsim.kernels.types import edge_law


def exact_logs(weights, steps, m, places):
    """``log P(sum = k)`` at the given places: the coefficients of the m-th power by exact division of integers."""
    power = [weights[0] ** m]
    for k in range(1, max(places) + 1):
        terms = (w * ((m + 1) * s - k) * power[k - s] for w, s in zip(weights[1:], steps[1:]) if s <= k)
        total, rest = divmod(sum(terms), k * weights[0])
        assert rest == 0
        power.append(total)
    with mpmath.workdps(40):
        whole = m * mpmath.log(sum(weights))
        return np.array([float(mpmath.log(power[k]) - whole) for k in places.tolist()])


@pytest.mark.parametrize(
    ("weights", "steps", "m"),
    [
        ([5, 3, 2], [0, 1, 3], 2048),
        ([1, 998, 1], [0, 1, 2], 3000),
        ([900, 90, 10], [0, 1, 7], 1500),
        ([1, 1], [0, 1], 4000),
    ],
)
def test_windows(weights, steps, m):
    log_p, real_steps = np.log(np.array(weights) / sum(weights)), np.array(steps, dtype=float)
    top, reach = m * steps[-1], 64 * steps[-1]
    out = np.full(top + 1, np.nan)
    whole, real = plan_windows(log_p, real_steps, m, reach + 1, top - reach - 1, 3.0)
    assert whole[0, 0] == reach + 1
    assert whole[-1, 1] == top - reach
    assert (whole[1:, 0] == whole[:-1, 1]).all()
    for size in np.unique(whole[:, 3]):
        own = whole[:, 3] == size
        pmf = np.fft.irfft(spectra(log_p, real_steps, m, real[own, 0], real[own, 1], size), n=size, axis=1)
        assert patch(pmf, whole[own], real[own], out) > 1e-3
    places = np.unique(np.linspace(reach + 1, top - reach - 1, 60).astype(int))
    want = exact_logs(weights, steps, m, places)
    # rounding of the window 1e-16/1e-3, and some roundings a letter of the tilt's logs
    assert (np.abs(out[places] - want) <= 2e-13 + 1e-14 * np.abs(want)).all()
    assert np.isnan(out[: reach + 1]).all()
    assert np.isnan(out[top - reach :]).all()


@pytest.mark.parametrize(("weights", "steps", "m"), [([2, 3, 5], [0, 2, 3], 900), ([1, 9], [0, 1], 10**6)])
def test_edges(weights, steps, m):
    p, deficits = np.array(weights) / sum(weights), np.array(steps)
    edge = edge_by_recurrence(p, deficits, m, 150)
    plain = edge_law(float(np.log(p[0])), np.log(p[1:]), deficits[1:], m, 150)
    np.testing.assert_array_equal(np.isfinite(edge), np.isfinite(plain))
    alive = np.isfinite(plain)
    np.testing.assert_allclose(edge[alive], plain[alive], rtol=2e-13)
    if m < 1000:
        places = np.flatnonzero(alive)[::7]
        np.testing.assert_allclose(edge[places], exact_logs(weights, steps, m, places), rtol=1e-14)
