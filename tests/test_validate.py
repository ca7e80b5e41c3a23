"""The door: what is let in, and how what is not is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from klsim import _validate


def test_kinds_are_kept_and_numbers_follow():
    xp, a, b = _validate.arrays(a=[1, 2], b=3)
    assert a.dtype == b.dtype == np.float64
    _, t, s = _validate.arrays(t=torch.ones(2, dtype=torch.float32), s=2.0)
    assert t.dtype == s.dtype == torch.float32
    assert xp.__name__.endswith("numpy")


@pytest.mark.parametrize("value", ["x", None, [[1], [1, 2]], np.array([1j]), object()])
def test_what_is_not_numeric_is_named(value):
    with pytest.raises((TypeError, ValueError), match="a:"):
        _validate.arrays(a=value)


def test_index_and_value_are_in_the_message():
    with pytest.raises(ValueError, match=r"x\[1, 0\] = nan"):
        _validate.finite("x", np, np.array([[1.0, 2.0], [np.nan, np.inf]]))
    with pytest.raises(ValueError, match=r"p\[1\]: probabilities sum to 1.1"):
        _validate.log_probs("p", np, np.log([[0.5, 0.5], [0.4, 0.7]]))


def test_scalars():
    assert _validate.integer("n", np.int64(3), low=1) == 3
    for bad in (True, 2.0, "3"):
        with pytest.raises(TypeError, match="n"):
            _validate.integer("n", bad)
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        _validate.real("x", 0.0, low=0, high=1, open_low=True)
    with pytest.raises(TypeError, match="rng"):
        _validate.generator(1.5)
    with pytest.raises(TypeError, match="flag"):
        _validate.flag("flag", 1)
