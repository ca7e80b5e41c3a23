"""The kernel of large trees against the general recursion."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.planning import solve
from klsim.problems import TokenTree

module = importlib.import_module("klsim.planning.solve")


@pytest.mark.parametrize(("vocab", "horizon"), [(2, 15), (3, 9), (20, 4)])
def test_large_trees_as_on_the_general_path(vocab, horizon, monkeypatch):
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal((vocab**t, vocab)) for t in range(horizon)]
    levels[-1][::3, 0] = -np.inf
    levels = tuple(log_normalize(level) for level in levels)
    tree = TokenTree(vocab, horizon, rng.standard_normal(vocab**horizon))
    for beta in (0.05, 1.0, 50.0):
        fast = solve(tree, levels, beta)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_LARGE", 10**12)
            general = solve(tree, levels, beta)
        assert fast.error_bound == general.error_bound
        assert fast.reason == general.reason
        for name in ("log_policy", "value", "q_value"):
            a, b = getattr(fast, name), getattr(general, name)
            assert [x.shape for x in a] == [x.shape for x in b]
            for x, y in zip(a, b):
                np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


def test_large_trees_are_checked_at_the_door():
    levels = [np.full((2**t, 2), np.log(0.5)) for t in range(14)]
    tree = TokenTree(2, 14, np.zeros(2**14))
    levels[13][77, 1] = np.nan
    with pytest.raises(ValueError, match=r"log_ref\[13\]\[77, 1\].*NaN"):
        solve(tree, tuple(levels), 1.0)
    levels[13][77, 1] = np.log(0.6)
    with pytest.raises(ValueError, match=r"log_ref\[13\]\[77\].*sum to"):
        solve(tree, tuple(levels), 1.0)
