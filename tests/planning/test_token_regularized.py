"""Regularisers paid at every token: against sequences where they agree, by search where they do not; bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.optima import kl_regularized
from klsim.planning import regularized_tokens, solve
from klsim.problems import TokenTree
from klsim.problems.token_tree import sequence_log_probs, visit_log_probs
from klsim.tsallis_renyi import kl_and_entropy_regularized, renyi_regularized, tsallis, tsallis_regularized

RNG = np.random.default_rng(6)
LEVELS = tuple(log_normalize(RNG.standard_normal((2**t, 2))) for t in range(3))
REWARD = RNG.standard_normal(8)
TREE = TokenTree(2, 3, REWARD)


def test_for_kl_it_is_the_solver_of_trees():
    found, wanted = regularized_tokens(TREE, LEVELS, lambda p, q: kl_regularized(p, q, 0.4)), solve(TREE, LEVELS, 0.4)
    for mine, theirs in zip(found.log_policy, wanted.log_policy):
        np.testing.assert_allclose(mine, theirs, atol=1e-13)
    np.testing.assert_allclose(found.value, wanted.value[0][0], rtol=1e-13)


def test_kl_and_entropy_add_up_along_tokens():
    found = regularized_tokens(TREE, LEVELS, lambda p, q: kl_and_entropy_regularized(p, q, 0.4, 0.3))
    wanted = kl_and_entropy_regularized(sequence_log_probs(LEVELS), REWARD, 0.4, 0.3)
    np.testing.assert_allclose(sequence_log_probs(found.log_policy), wanted.log_policy, atol=1e-12)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-12)


def test_tsallis_by_a_generic_optimiser():
    def loss(x):
        levels = tuple(log_normalize(part.reshape(-1, 2)) for part in np.split(x, [2, 6]))
        cost = sum(np.exp(v) @ tsallis(p, q, 1.5) for v, p, q in zip(visit_log_probs(levels), levels, LEVELS))
        return -(np.exp(sequence_log_probs(levels)) @ REWARD - 0.8 * cost)

    start = np.concatenate([level.ravel() for level in LEVELS])
    found = regularized_tokens(TREE, LEVELS, lambda p, q: tsallis_regularized(p, q, 0.8, 1.5))
    np.testing.assert_allclose(
        found.value, -minimize(loss, start, method="BFGS", options={"gtol": 1e-9}).fun, atol=1e-8
    )
    assert 0 <= found.gap < 1e-10


def test_renyi_and_responses_that_end():
    tree = TokenTree(2, 3, REWARD, eos=0)
    found = regularized_tokens(tree, None, lambda p, q: renyi_regularized(p, q, 0.5, 2.0))
    assert np.isfinite(found.value)
    assert np.all(np.isneginf(found.log_policy[1][0, 1:]))  # after eos only eos
    np.testing.assert_allclose(np.exp(sequence_log_probs(found.log_policy)).sum(), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: regularized_tokens(REWARD, LEVELS, kl_regularized), TypeError, "problem"),
        (lambda: regularized_tokens(TREE, LEVELS, 3), TypeError, "optimum"),
        (lambda: regularized_tokens(TREE, LEVELS[:2], lambda p, q: kl_regularized(p, q, 1.0)), ValueError, "log_ref"),
        (
            lambda: regularized_tokens(
                TokenTree(2, 3, np.ones((2, 8))), LEVELS, lambda p, q: kl_regularized(p, q, 1.0)
            ),
            ValueError,
            "problem",
        ),
        (lambda: regularized_tokens(TREE, LEVELS, lambda p, q: kl_regularized(p, q, -1.0)), ValueError, "optimum"),
    ],
)
def test_bad_input(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
