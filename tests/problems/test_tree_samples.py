"""Returns to go and samples on token trees, against sums over sequences, one tree or a batch."""

from __future__ import annotations

import types

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.planning import rollouts
from klsim.problems import DiscountedMDP, TokenTree
from klsim.problems.token_tree import reverse_sums, sequence_log_probs, tokens


def random_levels(rng, *batch, vocab=3, horizon=3, normalised=True):
    drawn = [rng.normal(size=(*batch, vocab**t, vocab)) for t in range(horizon)]
    return tuple(map(log_normalize, drawn)) if normalised else tuple(drawn)


@pytest.mark.parametrize("batch", [(), (2,), (2, 4)])
@pytest.mark.parametrize("discount", [1.0, 0.6, 0.0])
def test_returns_to_go_against_sequences(batch, discount):
    rng = np.random.default_rng(len(batch))
    policy, values = random_levels(rng, *batch), random_levels(rng, *batch, normalised=False)
    found, sequences = reverse_sums(values, policy, discount), tokens(3, 3)
    law = np.exp(sequence_log_probs(policy))
    for t in range(3):
        place = sequences[:, : t + 1] @ 3 ** np.arange(t, -1, -1)
        paths = sum(
            discount ** (u - t) * values[u].reshape(*batch, -1)[..., sequences[:, : u + 1] @ 3 ** np.arange(u, -1, -1)]
            for u in range(t, 3)
        )
        for node in range(3 ** (t + 1)):
            own = place == node
            wanted = (law * paths)[..., own].sum(axis=-1) / law[..., own].sum(axis=-1)
            np.testing.assert_allclose(found[t].reshape(*batch, -1)[..., node], wanted, rtol=1e-12)


def test_sampled_sequences_follow_the_policy():
    tree, policy = TokenTree(3, 3, np.zeros(27)), random_levels(np.random.default_rng(0))
    drawn = np.bincount(rollouts(tree, policy, 40_000, 1), minlength=27)
    expected = 40_000 * np.exp(sequence_log_probs(policy))
    assert np.sum((drawn - expected) ** 2 / expected) < 26 + 5 * np.sqrt(52)  # chi² of 26 degrees, five deviations
    with pytest.raises(ValueError, match="log_policy"):
        rollouts(tree, [x + 0.1 for x in policy], 5, 1)


@pytest.mark.parametrize("inner", [{"P": [[(1.0, 0, 0.0, True)]], "initial_state_distrib": [1.0]}, {"P": {0: {}}}])
def test_a_table_that_is_none(inner):
    with pytest.raises(TypeError, match="env: needs a transition table"):
        DiscountedMDP.from_gymnasium(types.SimpleNamespace(unwrapped=types.SimpleNamespace(**inner)), 0.9)
