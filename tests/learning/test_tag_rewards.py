"""The drift of a tag head: by hand, sampled, extremes, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.learning.tag_rewards import tag_drift
from klsim.objectives.tag_advantages import tag_advantages

RATES = np.array([0.3, 0.9, 0.2, 0.0])


def test_by_hand():
    log_policy = np.log(np.full(4, 0.25))
    np.testing.assert_allclose(tag_drift(log_policy, RATES), 0.0)
    mean = 0.35
    np.testing.assert_allclose(
        tag_drift(log_policy, RATES, pooled=True), 0.25 * (RATES - mean) / np.sqrt(mean * (1 - mean))
    )


@pytest.mark.parametrize("pooled", [False, True])
def test_a_large_batch(pooled):
    rng, count = np.random.default_rng(0), 200_000
    log_policy, rates, visits = (
        log_normalize(rng.standard_normal((3, 4))),
        rng.random((3, 4)),
        np.array([0.2, 0.5, 0.3]),
    )
    context = rng.choice(3, count, p=visits)
    cumulative = np.cumsum(np.exp(log_policy), axis=-1)[context]
    tag = np.minimum((rng.random(count)[:, None] > cumulative).sum(axis=-1), 3)
    paid = (rng.random(count) < rates[context, tag]).astype(float)
    a = tag_advantages(paid, np.zeros_like(tag) if pooled else tag)
    credit = np.bincount(4 * context + tag, a, minlength=12).reshape(3, 4)
    sampled = (credit - np.exp(log_policy) * credit.sum(axis=-1, keepdims=True)) / count
    found = tag_drift(log_policy, rates, visits, pooled=pooled)
    assert np.abs(sampled - found).max() < 6 / np.sqrt(count) * np.abs(a).max()
    assert np.abs(found).max() > 0.01


def test_tags_that_are_never_chosen_and_pay_that_is_certain():
    with np.errstate(divide="ignore"):
        log_policy = np.log([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    found = tag_drift(log_policy, [[1.0, 0.2, 0.5], [1.0, 0.9, 0.1]])
    assert np.all(np.isfinite(found))
    assert np.all(found[:, 2] == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_policy": [0.0, 0.0]}, "log_policy"),
        ({"rates": [0.5, 1.5]}, "rates"),
        ({"rates": [0.5]}, "rates: must have the shape"),
        ({"visits": [0.5, 0.5]}, "visits"),
    ],
)
def test_bad_input(change, message):
    good = {"log_policy": np.log([0.5, 0.5]), "rates": [0.5, 0.1]}
    with pytest.raises(ValueError, match=message):
        tag_drift(**(good | change))
