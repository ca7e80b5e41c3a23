"""Implicit maximisers against generic minimisation, at extremes, and with bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.learning import chi2_value, expectile_value, gumbel_value, quantile_value

LOSS = {
    quantile_value: lambda z, lam: lam * np.maximum(z, 0),
    chi2_value: lambda z, lam: lam * (np.maximum(z, 0) + np.maximum(z, 0) ** 2 / 4),
}


@given(
    st.lists(st.tuples(st.integers(-8, 8), st.floats(0.01, 1)), min_size=1, max_size=6),
    st.floats(0.51, 0.999),
    st.sampled_from(list(LOSS)),
)
def test_no_other_value_is_better(atoms, lam, rule):
    x, p = np.array(atoms, dtype=float).T
    p = p / p.sum()
    v = float(rule(x, np.log(p), lam))

    def loss(v):
        return (1 - lam) * v + p @ LOSS[rule](x - v, lam)

    for other in np.concatenate([x, v + np.linspace(-3, 3, 61), v + np.array([-1e-4, 1e-4])]):
        assert loss(v) <= loss(other) + 1e-9
    assert v <= x.max()


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0.01, 0.99))
def test_expectile_balances(values, lam):
    x = np.array(values)
    log_p = np.full(len(x), -np.log(len(x)))
    v = float(expectile_value(x, log_p, lam))
    up, down = np.maximum(x - v, 0).mean(), np.maximum(v - x, 0).mean()
    assert lam * up == pytest.approx((1 - lam) * down, abs=1e-12)


def test_batches_zero_probabilities_and_ties():
    with np.errstate(divide="ignore"):
        log_p = np.log(np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]))
    x = np.array([1.0, 1.0, 9.0])
    for rule in (quantile_value, chi2_value, expectile_value):
        first, second = rule(x, log_p, 0.9999)
        assert first == pytest.approx(1.0)
        assert 8 < second <= 9
    assert gumbel_value(x, log_p, 1e-9).tolist() == pytest.approx([1.0, 9.0])
    assert gumbel_value(x, log_p, 1e12)[1] == pytest.approx(5.0, abs=1e-6)
    assert float(chi2_value(x[:1], [0.0], 1e-6)) < -1e5


def test_bad_input():
    with pytest.raises(ValueError, match=r"lam.*\(0.5"):
        quantile_value([1.0, 2.0], np.log([0.5, 0.5]), 0.5)
    with pytest.raises(ValueError, match="lam"):
        chi2_value([1.0, 2.0], np.log([0.5, 0.5]), 1.0)
    with pytest.raises(ValueError, match="temperature"):
        gumbel_value([1.0, 2.0], np.log([0.5, 0.5]), 0.0)
    with pytest.raises(ValueError, match=r"x\[1\] = inf"):
        expectile_value([1.0, np.inf], np.log([0.5, 0.5]), 0.5)
    with pytest.raises(ValueError, match="last axes"):
        chi2_value([1.0, 2.0, 3.0], np.log([0.5, 0.5]), 0.5)
