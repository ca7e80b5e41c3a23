"""Uniformity testing: mixtures and collision tests against enumeration of all strings."""

import itertools
import math

import numpy as np
import pytest

from klsim.uniformity import (
    collision_error,
    collision_law,
    log_mixture,
    samples_for_collisions,
    samples_for_mixture,
    uneven_law,
)


def string_laws(symbols, sigma, n):
    """Probability of every string under ``E_theta q_theta^n``, ``(O**n,)``."""
    strings = np.array(list(itertools.product(range(symbols), repeat=n)))
    laws = [uneven_law(theta, sigma) for theta in itertools.product((1, -1), repeat=symbols // 2)]
    return np.mean([np.prod(law[strings], axis=1) for law in laws], axis=0)


def test_uneven_law_by_hand():
    assert np.allclose(uneven_law([1, -1], 0.2), [0.3, 0.2, 0.2, 0.3])


@pytest.mark.parametrize(("symbols", "sigma", "n"), [(2, 1.0, 4), (4, 0.6, 3), (6, 0.3, 4), (4, 0.0, 2), (4, 0.5, 1)])
def test_mixture_is_the_sum_over_strings(symbols, sigma, n):
    law = string_laws(symbols, sigma, n)
    assert math.exp(log_mixture(symbols, sigma, n)) == pytest.approx(symbols**n * np.sum(law**2), rel=1e-13)


def test_no_samples_tell_nothing():
    assert np.allclose(log_mixture(4, 1.0, [0, 1]), 0.0, atol=1e-15)


def test_samples_for_a_mixture_are_the_first_that_reach_it():
    for symbols, sigma in ((4, 0.9), (16, 0.5), (64, 0.2)):
        n = samples_for_mixture(symbols, sigma)
        assert log_mixture(symbols, sigma, n) >= math.log(2) > log_mixture(symbols, sigma, n - 1)


def pairs(strings):
    return np.array([sum(a == b for a, b in itertools.combinations(s, 2)) for s in strings])


@pytest.mark.parametrize("law", [[0.25] * 4, [0.4, 0.1, 0.4, 0.1], [0.7, 0.2, 0.1], [1.0], [1.0, 0.0]])
def test_collision_law_is_the_sum_over_strings(law):
    n = 5
    strings = list(itertools.product(range(len(law)), repeat=n))
    chance = np.prod(np.array(law)[np.array(strings)], axis=1)
    wanted = np.bincount(pairs(strings), weights=chance, minlength=11)
    assert np.allclose(collision_law(law, n, 10), wanted, atol=1e-14)
    assert np.allclose(collision_law(law, n, 3), wanted[:4], atol=1e-14)


def test_collision_error_is_the_sum_over_strings():
    symbols, sigma, n = 4, 0.8, 5
    strings = list(itertools.product(range(symbols), repeat=n))
    called = pairs(strings) / (n * (n - 1) / 2) > (1 + sigma**2 / 2) / symbols
    chance = np.prod(uneven_law([1, -1], sigma)[np.array(strings)], axis=1)
    wanted = 0.5 * (called.mean() + chance[~called].sum())
    assert collision_error(symbols, sigma, n) == pytest.approx(wanted, abs=1e-14)


def test_collision_error_at_many_samples_is_that_of_simulations():
    """20,000 draws a hypothesis: five standard errors."""
    rng, trials, n = np.random.default_rng(0), 20_000, 40
    wrong = []
    for law, uneven in ((np.full(64, 1 / 64), False), (uneven_law(np.ones(32, int), 0.6), True)):
        counts = rng.multinomial(n, law, trials)
        called = np.sum(counts * (counts - 1), axis=1) / (n * (n - 1)) > (1 + 0.18) / 64
        wrong.append(np.mean(called != uneven))
    assert abs(np.mean(wrong) - collision_error(64, 0.6, n)) < 5 * 0.5 / np.sqrt(2 * trials)


def test_samples_for_collisions_pass_the_test():
    n = samples_for_collisions(16, 0.5)
    assert collision_error(16, 0.5, n) <= 1 / 3 < collision_error(16, 0.5, n // 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uneven_law([1, 0], 0.5), "signs: must be a non-empty vector of 1 and -1"),
        (lambda: uneven_law(np.zeros(0, int), 0.5), "signs"),
        (lambda: uneven_law([1], 1.5), "sigma"),
        (lambda: log_mixture(3, 0.5, 2), "symbols.*must be even"),
        (lambda: log_mixture(4, 0.5, -1), "samples"),
        (lambda: samples_for_mixture(4, 0.0), "sigma.*must be > 0"),
        (lambda: samples_for_mixture(4, 0.5, 0.0), "chi2"),
        (lambda: samples_for_mixture(4, 1e-9), "sigma: too small"),
        (lambda: collision_law([0.5, 0.6], 3, 3), "law: must be probabilities"),
        (lambda: collision_law([0.5, 0.5], 0, 3), "samples"),
        (lambda: collision_error(4, 0.5, 1), "samples"),
        (lambda: samples_for_collisions(4, 0.0), "sigma.*must be > 0"),
        (lambda: samples_for_collisions(4, 0.01), "sigma.*too small: the exact law"),
        (lambda: samples_for_collisions(3, 0.5), "symbols.*must be even"),
        (lambda: samples_for_collisions(4, 0.5, 0.5), "error.*must lie in"),
    ],
)
def test_doors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
