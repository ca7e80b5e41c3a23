"""Trees reset to prefixes: enumeration, hand-worked trees, brute-force gradients, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.distributions import condition, log_normalize
from klsim.planning.prefixes import (
    accepted_policy,
    gradient_moments,
    prefix_node,
    prefix_values,
    prefixed_objective,
)
from klsim.problems.token_tree import restrict, sequence_log_probs, tokens


def tree(seed, vocab=3, horizon=3, batch=()):
    rng = np.random.default_rng(seed)
    levels = tuple(log_normalize(rng.standard_normal((*batch, vocab**t, vocab))) for t in range(horizon))
    return levels, rng.standard_normal((*batch, vocab**horizon))


def scores(levels, prefix=()):
    """``grad log pi(y)`` of every completion of a prefix in the logits after it, ``(leaves, parameters)``."""
    levels = restrict(levels, prefix) if prefix else levels
    vocab, horizon = levels[0].shape[-1], len(levels)
    rows = []
    for sequence in tokens(vocab, horizon):
        parts, node = [np.zeros(level.shape) for level in levels], 0
        for t, token in enumerate(sequence):
            parts[t][node] = np.eye(vocab)[token] - np.exp(levels[t][node])
            node = node * vocab + token
        rows.append(np.concatenate([p.ravel() for p in parts]))
    return np.array(rows)


class TestValues:
    def test_worked_by_hand(self):
        levels = (np.log([[0.25, 0.75]]), np.log([[0.5, 0.5], [0.1, 0.9]]))
        root, middle, leaves = prefix_values(levels, [1.0, 0.0, 0.0, 1.0])
        np.testing.assert_allclose(middle, [0.5, 0.9])
        np.testing.assert_allclose(root, [0.125 + 0.675])
        np.testing.assert_array_equal(leaves, [1, 0, 0, 1])

    def test_every_prefix_against_its_completions(self):
        levels, reward = tree(0)
        values, cube = prefix_values(levels, reward), reward.reshape(3, 3, 3)
        for depth in (1, 2):
            for prefix in itertools.product(range(3), repeat=depth):
                law = np.exp(sequence_log_probs(restrict(levels, prefix)))
                assert values[depth][prefix_node(prefix, 3)] == pytest.approx(law @ cube[prefix].ravel(), rel=1e-13)

    def test_a_batch_is_its_trees(self):
        levels, reward = tree(1, batch=(4,))
        together = prefixed_objective(levels, reward, [(0,), (2, 1), (2, 1)])
        alone = [prefixed_objective([x[i] for x in levels], reward[i], [(0,), (2, 1), (2, 1)]) for i in range(4)]
        np.testing.assert_allclose(together, alone, rtol=1e-13)

    def test_prefixes_are_added(self):
        levels, reward = tree(2)
        values = prefix_values(levels, reward)
        assert prefixed_objective(levels, reward, []) == pytest.approx(values[0][0])
        expected = values[0][0] + 2 * values[1][2] + values[3][26]
        assert prefixed_objective(levels, reward, [(2,), (2,), (2, 2, 2)]) == pytest.approx(expected)


class TestAccepted:
    def test_it_is_the_law_given_success(self):
        levels, reward = tree(3)
        right = reward > 0.5
        mu = accepted_policy(levels, right)
        np.testing.assert_allclose(
            np.exp(sequence_log_probs(mu)), np.exp(condition(sequence_log_probs(levels), right)), rtol=1e-13
        )

    def test_a_batch_is_its_trees(self):
        levels, reward = tree(7, batch=(4,))
        together = accepted_policy(levels, reward > 0)
        for i in range(4):
            alone = accepted_policy([x[i] for x in levels], reward[i] > 0)
            for several, one in zip(together, alone):
                np.testing.assert_allclose(np.exp(several[i]), np.exp(one), rtol=1e-13)

    def test_dead_prefixes_are_uniform(self):
        levels, _ = tree(4, vocab=2, horizon=2)
        mu = accepted_policy(levels, [True, False, False, False])
        np.testing.assert_allclose(np.exp(mu[1]), [[1, 0], [0.5, 0.5]])

    def test_rare_success_keeps_its_ratios(self):
        levels = (np.log([[1 - 1e-200, 1e-200]]), np.log([[0.5, 0.5], [0.25, 0.75]]))
        mu = accepted_policy(levels, [False, False, True, True])
        np.testing.assert_allclose(np.exp(mu[1][1]), [0.25, 0.75])


class TestGradientMoments:
    @pytest.mark.parametrize("baseline", [True, False])
    def test_against_all_completions(self, baseline):
        levels, reward = tree(5)
        moments, values = gradient_moments(levels, reward, baseline=baseline), prefix_values(levels, reward)
        for prefix in ((), (1,), (2, 0)):
            depth, node = len(prefix), prefix_node(prefix, 3)
            law = np.exp(sequence_log_probs(restrict(levels, prefix) if prefix else levels))
            below = reward.reshape(3, 3, 3)[prefix].ravel()
            g = (below - (values[depth][node] if baseline else 0.0))[:, None] * scores(levels, prefix)
            assert moments.squared_mean[depth][node] == pytest.approx(np.sum((law @ g) ** 2), rel=1e-12)
            assert moments.second[depth][node] == pytest.approx(law @ np.sum(g**2, axis=1), rel=1e-12)

    def test_certain_success_has_no_signal(self):
        levels, _ = tree(6, vocab=2, horizon=4)
        moments = gradient_moments(levels, np.ones(16))
        assert all(np.all(np.abs(x) < 1e-15) for part in moments for x in part)


LEVELS = (np.log([[0.5, 0.5]]),)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prefix_values(LEVELS, [1.0]), "reward: needs 2"),
        (lambda: prefix_values(LEVELS, [1.0, np.nan]), "reward"),
        (lambda: prefix_values(LEVELS, [1.0, 1e200]), "reward: must be at most"),
        (lambda: prefix_values((np.log([[0.5, 0.4]]),), [1.0, 0.0]), "log_policy"),
        (lambda: accepted_policy(LEVELS, [False, False]), "right: has probability 0"),
        (lambda: prefixed_objective(LEVELS, [1.0, 0.0], [(0, 1)]), "prefixes"),
        (lambda: prefixed_objective(LEVELS, [1.0, 0.0], [(2,)]), "prefix"),
        (lambda: prefix_node((0, -1), 2), "prefix"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_kinds_are_named():
    with pytest.raises(TypeError, match="baseline"):
        gradient_moments(LEVELS, [1.0, 0.0], baseline=2)
    with pytest.raises(TypeError, match="right"):
        accepted_policy(LEVELS, [1.0, 0.0])


def test_rewards_of_the_largest_size():
    values = prefix_values(LEVELS, [1e100, -1e100])
    assert values[0].tolist() == [0.0]
    with pytest.raises(ValueError, match="reward: must be at most"):
        prefix_values(LEVELS, [np.nextafter(1e100, np.inf), 0.0])
