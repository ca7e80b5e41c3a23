"""Powers of sequence laws: against enumeration, zero support, extremes, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.power import future_sums, power_levels, suffix_chain, temper_levels
from klsim.problems.token_tree import sequence_log_probs

RNG = np.random.default_rng(0)
LEVELS = tuple(log_normalize(RNG.standard_normal((3**t, 3))) for t in range(3))
HOLED = (np.log([[0.5, 0.5, 1e-300]]), np.vstack([[0.0, -np.inf, -np.inf], LEVELS[1][1:]]))


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.5, 1.0, 3.0, 1e6])
@pytest.mark.parametrize("levels", [LEVELS, HOLED])
def test_power_by_enumeration(levels, alpha):
    whole = sequence_log_probs(levels)
    powered = np.where(np.isfinite(whole), alpha * np.where(np.isfinite(whole), whole, 0.0), -np.inf)
    np.testing.assert_allclose(
        np.exp(sequence_log_probs(power_levels(levels, alpha))), np.exp(log_normalize(powered)), rtol=1e-9, atol=1e-15
    )
    np.testing.assert_allclose(future_sums(levels, alpha)[0][0], np.logaddexp.reduce(powered), rtol=1e-12, atol=1e-12)


def test_one_is_the_law_and_temperature_is_that_of_every_token():
    for made in (power_levels(LEVELS, 1.0), temper_levels(LEVELS, 1.0)):
        for level, given in zip(made, LEVELS):
            np.testing.assert_allclose(level, given, atol=1e-14)
    np.testing.assert_allclose(temper_levels(LEVELS, 2.0)[1], log_normalize(2 * LEVELS[1]), atol=1e-14)


def test_the_chain_has_rows_of_probabilities_and_its_target():
    target = log_normalize(RNG.standard_normal(27))
    chain = suffix_chain(LEVELS, target)
    assert chain.min() >= 0
    np.testing.assert_allclose(chain.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(np.exp(target) @ chain, np.exp(target), rtol=1e-12)
    # towards the law itself everything is accepted
    own = suffix_chain(LEVELS[:1], LEVELS[0][0])
    np.testing.assert_allclose(own, np.tile(np.exp(LEVELS[0]), (3, 1)), rtol=1e-13)


def test_what_cannot_be_proposed_stays():
    whole = sequence_log_probs(HOLED)
    chain = suffix_chain(HOLED, whole)
    gone = np.isneginf(whole)
    np.testing.assert_array_equal(chain[gone], np.eye(9)[gone])
    assert chain[~gone][:, gone].max() == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: power_levels(LEVELS, -1.0), "alpha"),
        (lambda: power_levels(LEVELS, np.inf), "alpha"),
        (lambda: temper_levels(LEVELS, np.nan), "alpha"),
        (lambda: future_sums((LEVELS[1],), 1.0), "levels"),
        (lambda: future_sums(tuple(level[None] for level in LEVELS), 1.0), "must be one tree"),
        (lambda: suffix_chain(LEVELS, np.zeros(5)), "log_target"),
        (lambda: suffix_chain(LEVELS, np.full(27, np.nan)), "log_target"),
        (lambda: suffix_chain(HOLED, np.zeros(9)), "cannot propose"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
