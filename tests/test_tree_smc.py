"""The exact law of SMC on trees: against brute force over all draws, one particle, many, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.divergences import chi2, tv
from klsim.problems.token_tree import sequence_log_probs
from klsim.sequence_samplers import exact_twists
from klsim.tree_smc import smc_law

RNG = np.random.default_rng(3)
LEVELS = tuple(log_normalize(RNG.standard_normal((2**t, 2))) for t in range(2))
TWISTS = [RNG.standard_normal(2), RNG.standard_normal(4)]
LOG_P = np.asarray(sequence_log_probs(LEVELS))


def test_every_draw_of_two_particles_by_hand():
    law, mean, square = np.zeros(4), 0.0, 0.0
    p, q, psi = np.exp(LEVELS[0][0]), np.exp(LEVELS[1]), [np.exp(x) for x in TWISTS]
    for first in itertools.product(range(2), repeat=2):
        w = psi[0][list(first)]
        for parents in itertools.product(range(2), repeat=2):
            at = [first[i] for i in parents]
            for second in itertools.product(range(2), repeat=2):
                chance = np.prod(p[list(first)]) * np.prod(w[list(parents)] / w.sum())
                chance *= np.prod([q[s, a] for s, a in zip(at, second)])
                leaves = [2 * s + a for s, a in zip(at, second)]
                v = psi[1][leaves] / psi[0][at]
                z = w.mean() * v.mean()
                mean, square = mean + chance * z, square + chance * z * z
                np.add.at(law, leaves, chance * v / v.sum())
    found = smc_law(LEVELS, TWISTS, 2)
    np.testing.assert_allclose(np.exp(found.log_law), law, rtol=1e-12)
    assert found.log_mean == pytest.approx(np.log(mean), rel=1e-12)
    assert found.relative_variance == pytest.approx(square / mean**2 - 1, rel=1e-10)


def test_one_particle_is_a_draw():
    np.testing.assert_allclose(smc_law(LEVELS, TWISTS, 1).log_law, LOG_P, atol=1e-12)
    found = smc_law(LEVELS, TWISTS, 1)
    assert found.relative_variance == pytest.approx(float(chi2(log_normalize(LOG_P + TWISTS[1]), LOG_P)), rel=1e-10)


def test_many_particles_reach_the_target():
    mild = [0.3 * x for x in TWISTS]
    target = log_normalize(LOG_P + mild[1])
    away = [float(tv(log_normalize(smc_law(LEVELS, mild, n).log_law), target)) for n in (2, 4, 8, 16)]
    ratios = np.divide(away[:-1], away[1:])
    assert np.all((ratios > 1.7) & (ratios < 2.4))  # like 1/n


def test_scales_of_twists():
    """A constant on any length but the last changes nothing; on the last it moves the normaliser."""
    base = smc_law(LEVELS, TWISTS, 3)
    moved = smc_law(LEVELS, [TWISTS[0] + 900.0, TWISTS[1] - 900.0], 3)
    np.testing.assert_allclose(moved.log_law, base.log_law, atol=1e-10)
    assert moved.log_mean == pytest.approx(base.log_mean - 900.0, rel=1e-12)
    assert moved.relative_variance == pytest.approx(base.relative_variance, rel=1e-9)


def test_nothing_has_a_weight():
    found = smc_law(LEVELS, [np.zeros(2), np.full(4, -np.inf)], 2)
    assert found.log_mean == -np.inf
    assert found.relative_variance == np.inf
    np.testing.assert_allclose(found.log_law, LOG_P, atol=1e-12)


def test_exact_twists_have_less_variance():
    whole = smc_law(LEVELS, [np.zeros(2), TWISTS[1]], 6).relative_variance
    assert smc_law(LEVELS, exact_twists(LEVELS, TWISTS[1]), 6).relative_variance < whole


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: smc_law(LEVELS, TWISTS[:1], 2), "twists: needs 2 arrays"),
        (lambda: smc_law(LEVELS, [TWISTS[0], TWISTS[0]], 2), r"twists\[1\]: must have shape \(4,\)"),
        (lambda: smc_law(LEVELS, [TWISTS[0], TWISTS[1] * np.nan], 2), r"twists\[1\]: must be numbers"),
        (lambda: smc_law(LEVELS, TWISTS, 0), "n = 0"),
        (lambda: smc_law(LEVELS, TWISTS, 2, proposal=LEVELS[:1]), "proposal: must be a tree of the shape"),
        (lambda: smc_law(LEVELS, TWISTS, 2, proposal=(np.array([[0.0, -np.inf]]), LEVELS[1])), r"proposal\[0\]: lacks"),
        (lambda: smc_law(LEVELS, TWISTS, 500), "n = 500: gives too many"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
