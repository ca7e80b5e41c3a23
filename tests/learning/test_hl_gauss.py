"""HL-Gauss: worked values, bins against quadrature and mpmath's tails, decoding, bad input."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.learning.hl_gauss import bin_centres, decode, hl_gauss

EDGES, SIGMA = np.linspace(-10, 10, 52), 0.75 * 20 / 51


def test_worked_values():
    p = hl_gauss(1.3, EDGES, SIGMA)
    np.testing.assert_allclose(p[26:32], [0.007673, 0.130832, 0.458825, 0.345530, 0.055265, 0.001777], atol=5e-7)
    assert p @ bin_centres(EDGES) == pytest.approx(1.299998, abs=5e-7)


def test_bins_against_mpmath_far_in_the_tails():
    edges = np.array([-10.0, -2.0, 0.5, 6.0, 6.5, 10.0])
    with mp.workdps(50):
        mass = [mp.quad(lambda x: mp.exp(-((x - mp.mpf("-1.5")) ** 2) / 2), [a, b]) for a, b in pairwise(edges)]
        wanted = [float(m / sum(mass)) for m in mass]
    np.testing.assert_allclose(hl_gauss(-1.5, edges, 1.0), wanted, rtol=1e-11)


def test_targets_inside_are_decoded_and_those_outside_clipped():
    t = np.linspace(-9, 9, 101)
    found = decode(np.log(np.maximum(hl_gauss(t, EDGES, SIGMA), 1e-300)), EDGES)
    np.testing.assert_allclose(found, t, atol=1e-3)
    np.testing.assert_array_equal(hl_gauss([15.0, 1e300], EDGES, SIGMA), hl_gauss([10.0, 10.0], EDGES, SIGMA))


def test_a_small_sigma_is_one_bin():
    for sigma in (1e-3, 1e-300):
        np.testing.assert_allclose(
            hl_gauss([0.25, -1.0, 3.0], [-1.0, 0.0, 1.0, 3.0], sigma), np.eye(3)[[1, 0, 2]], atol=1e-30
        )


def test_decode_is_the_mean():
    assert decode(log_normalize(np.zeros(51)), EDGES) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: hl_gauss(math.nan, EDGES, SIGMA), "target"),
        (lambda: hl_gauss(0.0, [0.0], SIGMA), "edges"),
        (lambda: hl_gauss(0.0, [0.0, 0.0], SIGMA), r"edges\[1\]"),
        (lambda: hl_gauss(0.0, [0.0, math.inf], SIGMA), "edges"),
        (lambda: hl_gauss(0.0, EDGES, 0.0), "sigma"),
        (lambda: hl_gauss(0.0, EDGES, math.nan), "sigma"),
        (lambda: bin_centres([[0.0, 1.0]]), "edges"),
        (lambda: decode(np.zeros(51), EDGES), "log_policy"),
        (lambda: decode(log_normalize(np.zeros(3)), EDGES), "log_policy"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
