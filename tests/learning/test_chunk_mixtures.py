"""Mixtures of chunks: by hand, EM against loops, contexts, what merging costs, ascent by differences, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.learning import chunk_mixtures as cm

HALF = np.log([0.5, 0.5])
ONE = cm.ChunkMixture(np.zeros(1), np.log([[[0.5, 0.5], [0.25, 0.75]]]))


def drawn(seed=0, batch=(), latents=3, phases=2, vocab=3):
    rng = np.random.default_rng(seed)
    emission = log_normalize(rng.standard_normal((*batch, latents, phases, vocab)))
    return cm.ChunkMixture(log_normalize(rng.standard_normal((*batch, latents))), emission)


def test_by_hand():
    np.testing.assert_allclose(np.exp(ONE.log_prob([[0, 0], [1, 1]])), [0.125, 0.375])
    assert ONE.likelihoods([[0, 1]]).shape == (1, 1)


def test_probabilities_sum_to_one_in_every_batch():
    strings = list(itertools.product(range(3), repeat=2))
    found = drawn(batch=(4, 2)).log_prob(strings)
    assert found.shape == (4, 2, 9)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1.0)
    np.testing.assert_allclose(found[3, 1], cm.ChunkMixture(drawn(batch=(4, 2)).log_weight[3, 1],
                               drawn(batch=(4, 2)).log_emission[3, 1]).log_prob(strings))  # fmt: skip


def test_one_latent_takes_the_frequencies():
    fitted, values = cm.fit_chunk_mixture([[0, 0], [1, 1]], [3.0, 1.0], ONE, smoothing=0.5, iterations=3)
    np.testing.assert_allclose(np.exp(fitted.log_emission), [[[3.5 / 5, 1.5 / 5]] * 2])
    start = 3 * math.log(0.125) + math.log(0.375) + 0.5 * ONE.log_emission.sum()
    assert values[0] == pytest.approx(start)
    assert values.shape == (4,)
    assert values[3] == values[1]


@pytest.mark.parametrize("smoothing", [1e-3, 0.5, 5.0])
def test_the_value_never_falls(smoothing):
    strings = np.array(list(itertools.product(range(3), repeat=2)))
    counts = np.random.default_rng(1).integers(0, 30, (4, 9)).astype(float)
    _, values = cm.fit_chunk_mixture(strings, counts, drawn(batch=(4,)), smoothing=smoothing, iterations=50)
    assert values.shape == (51, 4)
    assert np.diff(values, axis=0).min() > -1e-10


def test_separate_strings_get_a_latent_each():
    start = cm.ChunkMixture(HALF, np.log([[[0.6, 0.4]] * 2, [[0.4, 0.6]] * 2]))
    fitted, _ = cm.fit_chunk_mixture([[0, 0], [1, 1]], [300.0, 100.0], start, smoothing=1e-9)
    np.testing.assert_allclose(np.exp(fitted.log_weight), [0.75, 0.25], atol=1e-9)
    np.testing.assert_allclose(np.exp(fitted.log_prob([[0, 0], [1, 1]])), [0.75, 0.25], atol=1e-9)


def test_contexts():
    found = cm.fit_contexts([0, 0, 1], [0, 1, 1], (3, 2), smoothing=0.5)
    np.testing.assert_allclose(np.exp(found), [[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])


def test_merging_cost():
    assert cm.merging_cost(0.3, 1) == 0
    assert cm.merging_cost(0.5, 3) == pytest.approx(2 * math.log(2))
    assert cm.merging_cost(1.0, 3) == 0


def test_ascent_by_hand():
    """One chunk, two latents, the first of them right: J = sigmoid of the difference of logits."""
    found = cm.success_ascent([HALF], [[1.0, 0.0]], rate=1.0, threshold=0.8, limit=50)
    assert found.success[0] == 0.5
    assert found.success[1] == pytest.approx(1 / (1 + math.exp(-0.5)))  # each logit moves by 1/4
    assert found.success[found.steps] >= 0.8 > found.success[found.steps - 1]
    assert len(found.success) == found.steps + 1


def test_ascent_of_a_batch_is_that_of_each():
    rng = np.random.default_rng(0)
    weight, likelihood = log_normalize(rng.standard_normal((5, 3, 2))), rng.random((5, 3, 2))
    whole = cm.success_ascent(weight, likelihood, threshold=0.3, limit=300)
    for i in range(5):
        own = cm.success_ascent(weight[i], likelihood[i], threshold=0.3, limit=300)
        assert own.steps == whole.steps[i]
        np.testing.assert_allclose(own.success, whole.success[: len(own.success), i])
        np.testing.assert_allclose(whole.success[len(own.success) :, i], own.success[-1])
    assert np.all(whole.success <= likelihood.max(axis=-1).prod(axis=-1) + 1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cm.ChunkMixture(HALF, np.zeros((2, 1))), "log_emission"),
        (lambda: cm.ChunkMixture(HALF, ONE.log_emission), "log_emission: must have shape"),
        (lambda: cm.ChunkMixture([0.5, 0.5], ONE.log_emission), "log_weight"),
        (lambda: ONE.log_prob([[0, 2]]), "strings"),
        (lambda: ONE.log_prob([[0]]), "strings: must have shape"),
        (lambda: cm.fit_chunk_mixture([[0, 0]], [1.0, 2.0], ONE), "counts"),
        (lambda: cm.fit_chunk_mixture([[0, 0]], [-1.0], ONE), "counts"),
        (lambda: cm.fit_chunk_mixture([[0, 0]], [1.0], ONE, smoothing=0.0), "smoothing"),
        (lambda: cm.fit_chunk_mixture([[0, 0]], [1.0], ONE, iterations=-1), "iterations"),
        (lambda: cm.fit_chunk_mixture([[0]], [1.0], cm.ChunkMixture([0.0], [[[-math.inf, 0.0]]])), "start: rules out"),
        (lambda: cm.fit_contexts([0, 3], [0, 1], (3, 2)), "contexts"),
        (lambda: cm.fit_contexts([0, 2], [0, 2], (3, 2)), "tokens"),
        (lambda: cm.fit_contexts([0, 2], [0], (3, 2)), "tokens"),
        (lambda: cm.fit_contexts([0], [0], (3, 2), smoothing=-1.0), "smoothing"),
        (lambda: cm.merging_cost(1.5, 1), "share"),
        (lambda: cm.merging_cost(0.5, 0), "distance"),
        (lambda: cm.success_ascent([HALF], [[2.0, 0.0]]), "likelihood"),
        (lambda: cm.success_ascent([HALF], [[0.0, 0.0]]), "likelihood: has a chunk"),
        (lambda: cm.success_ascent(HALF, [1.0, 0.0]), "log_weight"),
        (lambda: cm.success_ascent([HALF], [[1.0, 0.0]], rate=0.0), "rate"),
        (lambda: cm.success_ascent([HALF], [[1.0, 0.0]], threshold=2.0), "threshold"),
        (lambda: cm.success_ascent([HALF], [[1.0, 0.0]], limit=-1), "limit"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
