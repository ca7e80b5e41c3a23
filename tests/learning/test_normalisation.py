"""Weights of normalised advantages against the enumeration of counts; variances against enumeration; bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning.normalisation import best_baseline, normalised_weights, variance_of_baseline
from klsim.objectives.advantages import (
    advantages,
    batch_mean,
    batch_std,
    group_mean,
    group_std,
    no_scale,
    prompt_weights,
    std_weight,
)

BASELINES = {"group": group_mean, "batch": batch_mean}
SCALES = {"none": no_scale, "group": group_std, "batch": batch_std}


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("scale", SCALES)
def test_weights_by_enumeration(baseline, scale):
    p = np.array([0.1, 0.55, 0.97])
    found = normalised_weights(p, 3, baseline=baseline, scale=scale)
    estimator = lambda r, g: advantages(r, g, baseline=BASELINES[baseline], scale=SCALES[scale])  # noqa: E731
    np.testing.assert_allclose(found, 3 * prompt_weights(estimator, p, 3), rtol=1e-12)


def test_weights_known():
    np.testing.assert_allclose(
        normalised_weights([0.02, 0.7], 8, scale="group"), std_weight([0.02, 0.7], 8), rtol=1e-12
    )
    np.testing.assert_allclose(normalised_weights([0.3], 5, scale="none"), [0.8])
    np.testing.assert_allclose(normalised_weights([0.3], 4), std_weight([0.3], 4))  # a batch of one group
    many = normalised_weights(np.full(200, 0.2), 4)  # (K-1)/K over the std
    np.testing.assert_allclose(many, 0.75 / 0.4, rtol=2e-3)


def test_weights_at_extremes():
    found = normalised_weights([1e-12, 1 - 1e-12], 8, scale="group")
    np.testing.assert_allclose(found, np.sqrt(7), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"success": [0.0, 0.5]}, "success"),
        ({"success": []}, "success"),
        ({"success": [[0.5]]}, "success"),
        ({"group_size": 1}, "group_size"),
        ({"group_size": 10**7}, "group_size"),
        ({"baseline": "mean"}, "baseline"),
        ({"scale": "std"}, "scale"),
    ],
)
def test_weights_refuse(change, match):
    with pytest.raises(ValueError, match=match):
        normalised_weights(**{"success": [0.5, 0.2], "group_size": 4, **change})


P = np.array([0.2, 0.5, 0.3])
SCORE = np.eye(3) - P
REWARD = np.array([1.0, 0.0, -2.0])


def test_variance_by_covariance():
    for b in (-1.0, 0.3):
        spread = np.trace(np.cov(((REWARD - b)[:, None] * SCORE).T, aweights=P, ddof=0))
        assert variance_of_baseline(P, SCORE, REWARD, b) == pytest.approx(spread, rel=1e-12)
    assert variance_of_baseline(P, SCORE, REWARD, 0.0, extra=2.0) - variance_of_baseline(
        P, SCORE, REWARD, 0.0
    ) == pytest.approx(2 * P @ REWARD**2)


def test_best_baseline():
    b = best_baseline(P, SCORE, REWARD, extra=0.7)
    values = [variance_of_baseline(P, SCORE, REWARD, b + d, extra=0.7) for d in (0.0, -1e-3, 1e-3)]
    assert values[0] < min(values[1:])
    assert best_baseline([0.9, 0.1], [[0.1], [-0.9]], [1.0, 0.0]) == pytest.approx(0.1)
    assert best_baseline(P, SCORE, REWARD, extra=1e9) == pytest.approx(P @ REWARD, rel=1e-6)


def test_variances_refuse():
    with pytest.raises(ValueError, match="probs"):
        variance_of_baseline([0.5, 0.6], np.zeros((2, 1)), [0.0, 1.0], 0.0)
    with pytest.raises(ValueError, match="probs"):
        variance_of_baseline([0.5, 0.5], np.zeros(2), [0.0, 1.0], 0.0)
    with pytest.raises(ValueError, match="reward"):
        variance_of_baseline([0.5, 0.5], np.zeros((2, 1)), [0.0, np.inf], 0.0)
    with pytest.raises(ValueError, match="extra"):
        variance_of_baseline(P, SCORE, REWARD, 0.0, extra=-1.0)
    with pytest.raises(ValueError, match="score"):
        best_baseline([0.5, 0.5], np.zeros((2, 1)), [0.0, 1.0])
