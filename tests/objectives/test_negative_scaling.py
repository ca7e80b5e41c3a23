"""Scaled negatives: by hand, against the enumeration of counts with the library's estimator, limits, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.objectives import negative_scaling as ns
from klsim.objectives import sngs
from klsim.objectives.advantages import advantages, group_std, prompt_weights, std_weight


def test_scale_by_hand():
    np.testing.assert_allclose(ns.negative_scale([0.0, 1 / 8, 1 / 2, 1.0]), [0.5, 0.6875, 1.0, 1.0])
    np.testing.assert_allclose(ns.negative_scale([1 / 8, 7 / 8], offset=1.4, slope=-0.5), [1.0, 0.9625])
    assert ns.negative_scale(0.5, offset=-1.0, slope=0.0) == 0.0
    np.testing.assert_allclose(ns.negative_scaling_limit([0.0, 0.2, 1.0], offset=0.5, slope=1.5), [1.0, 0.96, 1.0])


def test_two_rollouts_by_hand():
    """One success of two: advantages 1 and -lambda, with chance 2 p (1-p)."""
    p, scale = 0.3, 0.6
    step = 2 * p * (1 - p) * 0.5 * (1 / p + scale / (1 - p))
    assert float(ns.negative_scaling_weight(p, 2, offset=scale, slope=0.0)) == pytest.approx(step, rel=1e-14)


@given(st.floats(0.01, 0.99), st.integers(2, 9), st.floats(-0.5, 1.5), st.floats(-1.0, 2.0))
def test_against_the_enumeration_of_counts(p, size, offset, slope):
    def estimator(rewards, group):
        return sngs(advantages(rewards, group, scale=group_std), rewards, group, offset=offset, slope=slope)

    found = ns.negative_scaling_weight(p, size, offset=offset, slope=slope)
    np.testing.assert_allclose(found, prompt_weights(estimator, [p], size)[0], rtol=1e-11)


def test_without_scaling_and_without_negatives():
    p = np.array([[0.001, 0.2], [0.5, 0.999]])
    none = std_weight(p, 8)
    np.testing.assert_allclose(ns.negative_scaling_weight(p, 8, offset=1.0, slope=0.0), none, rtol=1e-12)
    np.testing.assert_allclose(ns.negative_scaling_weight(p, 8, offset=0.0, slope=0.0), (1 - p) * none, rtol=1e-12)
    many = ns.negative_scaling_weight(0.2, 4000, offset=0.5, slope=1.5) / std_weight(0.2, 4000)
    assert many == pytest.approx(0.96, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ns.negative_scale(1.2), "rate"),
        (lambda: ns.negative_scale(0.5, offset=np.nan), "offset"),
        (lambda: ns.negative_scaling_weight(0.0, 8), "success"),
        (lambda: ns.negative_scaling_weight(0.5, 1), "group_size"),
        (lambda: ns.negative_scaling_limit(-0.1), "success"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()
