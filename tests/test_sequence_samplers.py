"""Samplers of sequence laws on trees: their exact laws, exactness where it is promised, zeros, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.power import power_levels, suffix_chain, temper_levels
from klsim.problems.token_tree import sequence_log_probs, tokens, visit_log_probs
from klsim.selection_rules import weighted_choice
from klsim.sequence_samplers import (
    adapted_proposal,
    draw_sequences,
    exact_twists,
    fit_twist,
    importance_resample,
    power_weight,
    reward_weight,
    smc,
    suffix_metropolis,
    table_weight,
    tempered_proposal,
    tree_law,
)
from klsim.tree_smc import smc_law

RNG = np.random.default_rng(0)
LEVELS = tuple(log_normalize(1.5 * RNG.standard_normal((2**t, 2))) for t in range(3))
LAW, LOG_P = tree_law(LEVELS), np.asarray(sequence_log_probs(LEVELS))
RUNS = 8_000


def frequencies(found):
    return np.bincount(found @ np.array([4, 2, 1]), minlength=8) / len(found)


def agree(found, law):
    """Within five standard deviations, each."""
    np.testing.assert_array_less(np.abs(frequencies(found) - law), 5 * np.sqrt(law * (1 - law) / len(found)) + 1e-4)


def test_drawing():
    found, parts = draw_sequences(LAW, 3, RUNS, 0)
    agree(found, np.exp(LOG_P))
    np.testing.assert_allclose(parts.sum(axis=1), LOG_P[found @ np.array([4, 2, 1])], atol=1e-13)
    np.testing.assert_array_equal(draw_sequences(LAW, 3, 50, 7)[0], draw_sequences(LAW, 3, 50, 7)[0])


def test_importance_resampling_has_its_law():
    found = importance_resample(LAW, power_weight(3.0), 3, 4, RUNS, 1)
    agree(found.tokens, np.exp(weighted_choice(LOG_P, 2 * LOG_P, 4)))
    z = np.exp(found.log_normalizer)
    assert z.mean() == pytest.approx(np.exp(np.logaddexp.reduce(3 * LOG_P)), abs=5 * z.std() / np.sqrt(RUNS))


@pytest.mark.parametrize("proposal", [None, "tempered"])
def test_smc_has_its_law(proposal):
    twists = [2 * np.asarray(v) for v in visit_log_probs(LEVELS)[1:]]
    exact = smc_law(LEVELS, twists, 3, proposal=temper_levels(LEVELS, 2.0) if proposal else None)
    found = smc(LAW, power_weight(3.0), 3, 3, RUNS, 2, proposal=tempered_proposal(2.0) if proposal else None)
    agree(found.tokens, np.exp(exact.log_law))
    z = np.exp(found.log_normalizer)
    assert z.mean() == pytest.approx(np.exp(exact.log_mean), abs=5 * z.std() / np.sqrt(RUNS))
    assert z.var() / z.mean() ** 2 == pytest.approx(exact.relative_variance, rel=0.1)
    assert found.log_normalizer.mean() == pytest.approx(
        exact.mean_log, abs=5 * found.log_normalizer.std() / np.sqrt(RUNS)
    )
    np.testing.assert_allclose(found.log_weight, 2 * found.log_p, rtol=1e-12)


def test_exact_twists_and_the_adapted_proposal_are_exact():
    reward = RNG.standard_normal(8)
    twist = table_weight(exact_twists(LEVELS, reward / 0.3))
    found = smc(LAW, twist, 3, 1, RUNS, 3, proposal=adapted_proposal(twist))
    agree(found.tokens, np.exp(log_normalize(LOG_P + reward / 0.3)))
    np.testing.assert_allclose(found.log_normalizer, np.logaddexp.reduce(LOG_P + reward / 0.3), rtol=1e-10)


def test_exact_twists_of_a_power_are_its_future_sums():
    twists = exact_twists(LEVELS, 2 * LOG_P)
    for t, level in enumerate(power_levels(LEVELS, 3.0)[1:], 1):
        ahead = np.asarray(LEVELS[t]) + twists[t].reshape(-1, 2)
        np.testing.assert_allclose(log_normalize(ahead), level, atol=1e-12)


def test_learned_twists():
    """With all prefixes as features the fit is the mean of log w; SMC stays unbiased with it."""
    reward = RNG.standard_normal(8)

    def seen(prefix, log_p):
        return (prefix @ 2 ** np.arange(prefix.shape[1])[::-1])[:, None] == np.arange(2 ** prefix.shape[1])

    whole = reward_weight(lambda y: reward[y @ np.array([4, 2, 1])], 0.5)
    twist = fit_twist(LAW, whole, 3, seen, 20_000, 4, ridge=1e-9)
    conditional = np.exp(LEVELS[2]) * (reward / 0.5).reshape(4, 2)
    np.testing.assert_allclose(twist(tokens(2, 2), np.zeros(4)), conditional.sum(axis=1), atol=0.1)
    found = smc(LAW, twist, 3, 4, RUNS, 5)
    z = np.exp(found.log_normalizer)
    exact = np.exp(np.logaddexp.reduce(LOG_P + reward / 0.5))
    assert z.mean() == pytest.approx(exact, abs=5 * z.std() / np.sqrt(RUNS))
    plain = importance_resample(LAW, whole, 3, 4, RUNS, 5)
    ahead = smc(LAW, twist, 3, 4, RUNS, 5, proposal=adapted_proposal(twist))
    assert np.exp(ahead.log_normalizer).var() < 0.5 * np.exp(plain.log_normalizer).var()


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_metropolis_has_its_law(steps):
    found = suffix_metropolis(LAW, power_weight(3.0), 3, steps, RUNS, 6)
    exact = np.exp(LOG_P) @ np.linalg.matrix_power(suffix_chain(LEVELS, 3 * LOG_P), steps)
    agree(found.tokens, exact)
    assert 0 <= found.accepted <= 1
    np.testing.assert_allclose(found.log_p, LOG_P[found.tokens @ np.array([4, 2, 1])], atol=1e-12)


def test_weights_of_zero():
    """Only sequences that end with token 1 have a weight."""

    def last(prefix, log_p):
        return np.where((prefix[:, -1] == 1) | (prefix.shape[1] < 3), 0.0, -np.inf)

    log_w = np.where(np.arange(8) % 2 == 1, 0.0, -np.inf)
    agree(importance_resample(LAW, last, 3, 2, RUNS, 7).tokens, np.exp(weighted_choice(LOG_P, log_w, 2)))
    twists = [np.zeros(2), np.zeros(4), log_w]
    exact = smc_law(LEVELS, twists, 2)
    agree(smc(LAW, last, 3, 2, RUNS, 8).tokens, np.exp(exact.log_law))
    assert exact.mean_log == -np.inf
    assert np.exp(exact.log_mean) == pytest.approx(np.exp(LOG_P)[1::2].sum(), rel=1e-12)
    chain = np.linalg.matrix_power(suffix_chain(LEVELS, np.where(np.isfinite(log_w), LOG_P, -np.inf)), 2)
    agree(suffix_metropolis(LAW, last, 3, 2, RUNS, 9).tokens, np.exp(LOG_P) @ chain)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tree_law((LEVELS[1],)), "levels"),
        (lambda: draw_sequences(LAW, 4, 2, 0), "levels: has 3 levels"),
        (lambda: draw_sequences(lambda s: np.zeros(3), 2, 2, 0), "law: must return"),
        (lambda: importance_resample(LAW, power_weight(2.0), 3, 0, 1, 0), "n = 0"),
        (lambda: importance_resample(LAW, lambda y, p: np.zeros(1), 3, 2, 2, 0), "weight: must return one number"),
        (lambda: importance_resample(LAW, lambda y, p: p * np.nan, 3, 2, 2, 0), r"weight\[0\] = nan"),
        (lambda: smc(LAW, lambda y, p: p * np.inf * -1, 3, 2, 2, 0), "twist"),
        (lambda: smc(LAW, power_weight(2.0), 3, 2, 2, 0, proposal=lambda s, p, x: x[:, :1]), "proposal: must return"),
        (lambda: smc(LAW, power_weight(2.0), 3, 2, 2, 0, proposal=lambda s, p, x: x + 1), "proposal"),
        (lambda: suffix_metropolis(LAW, power_weight(2.0), 3, -1, 2, 0), "steps = -1"),
        (lambda: power_weight(-1.0), "alpha = -1.0"),
        (lambda: reward_weight(lambda y: 0.0, 0.0), "beta = 0.0"),
        (lambda: table_weight([np.zeros(2), np.zeros(3)]), r"tables\[1\]: must have shape \(4,\)"),
        (lambda: exact_twists(LEVELS, np.zeros(3)), "log_weight"),
        (lambda: fit_twist(LAW, lambda y, p: p * 0 - np.inf, 3, lambda y, p: p[:, None], 5, 0), "weight: is 0"),
        (lambda: fit_twist(LAW, power_weight(2.0), 3, lambda y, p: p, 5, 0), "features: must return"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
