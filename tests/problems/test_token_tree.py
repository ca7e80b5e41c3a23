"""Token trees: conversions, absorbing EOS, and sums along paths, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.problems import TokenTree
from klsim.problems.token_tree import (
    conditionals,
    end_after_eos,
    lengths,
    node_kl,
    path_sums,
    restrict,
    reverse_sums,
    sequence_log_probs,
    token_mask,
    tokens,
    visit_log_probs,
)

V, H = 3, 3


def policy(seed, batch=()):
    rng = np.random.default_rng(seed)
    return tuple(log_normalize(rng.standard_normal((*batch, V**t, V))) for t in range(H))


def node(prefix):
    index = 0
    for token in prefix:
        index = index * V + token
    return index


def test_sequence_log_probs_by_a_loop():
    levels = policy(0)
    for i, y in enumerate(tokens(V, H)):
        by_hand = sum(levels[t][node(y[:t]), y[t]] for t in range(H))
        assert sequence_log_probs(levels)[i] == pytest.approx(by_hand)
        assert node(y) == i


def test_conditionals_invert_and_batch():
    levels = policy(1, batch=(4,))
    again = conditionals(sequence_log_probs(levels), V, H)
    for a, b in zip(levels, again):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_unreachable_prefixes_are_uniform():
    law = np.full(V**H, -np.inf)
    law[0] = 0.0
    levels = conditionals(law, V, H)
    np.testing.assert_allclose(np.exp(levels[1][1]), np.full(V, 1 / V))
    np.testing.assert_array_equal(np.exp(sequence_log_probs(levels)), np.exp(law))


def test_visits_and_chain_rule_of_kl():
    p, q = policy(2), policy(3)
    visits = visit_log_probs(p)
    np.testing.assert_allclose([np.exp(v).sum() for v in visits], 1.0)
    total = sum(np.exp(d) @ k for d, k in zip(visits, node_kl(p, q)))
    assert total == pytest.approx(float(kl(sequence_log_probs(p), sequence_log_probs(q))), rel=1e-12)


def test_return_to_go_against_path_sums():
    p, x = policy(4), tuple(np.random.default_rng(5).standard_normal((V**t, V)) for t in range(H))
    q = reverse_sums(x, p)
    assert np.exp(p[0][0]) @ q[0][0] == pytest.approx(np.exp(sequence_log_probs(p)) @ path_sums(x))
    for a, b in zip(reverse_sums(x, p, discount=0.0), x):
        np.testing.assert_array_equal(a, b)


def test_return_to_go_of_a_batch():
    """Three policies beside two tables of values."""
    p, x = policy(4, (3, 1)), tuple(np.random.default_rng(5).standard_normal((2, V**t, V)) for t in range(H))
    q = reverse_sums(x, p, discount=0.7)
    assert [level.shape for level in q] == [(3, 2, V**t, V) for t in range(H - 1)] + [(2, V ** (H - 1), V)]
    for i, j in np.ndindex(3, 2):
        one = reverse_sums([a[j] for a in x], [a[i, 0] for a in p], discount=0.7)
        for a, b in zip(q[:-1], one):
            np.testing.assert_allclose(a[i, j], b, rtol=1e-13)


def test_restrict_is_the_policy_after_a_reset():
    levels = policy(6)
    below = sequence_log_probs(restrict(levels, (2, 1)))
    whole = sequence_log_probs(levels)[node((2, 1)) * V :][:V]
    np.testing.assert_allclose(below, whole - np.logaddexp.reduce(whole), atol=1e-14)


def test_eos_is_absorbing():
    levels = end_after_eos(policy(7), eos=0)
    law = np.exp(sequence_log_probs(levels))
    assert law.sum() == pytest.approx(1)
    for i, y in enumerate(tokens(V, H)):
        ended = np.flatnonzero(y == 0)
        if ended.size and np.any(y[ended[0] :] != 0):
            assert law[i] == 0
        assert lengths(V, H, 0)[i] == (ended[0] + 1 if ended.size else H)
    assert token_mask(V, H, 0).sum(axis=1).tolist() == lengths(V, H, 0).tolist()
    uniform = TokenTree(V, H, np.zeros(V**H), eos=0).uniform()
    np.testing.assert_array_equal(uniform[1][0], [0, -np.inf, -np.inf])


def test_torch_gradients_flow():
    logits = [torch.tensor(np.random.default_rng(8).standard_normal((V**t, V)), requires_grad=True) for t in range(H)]
    reward = torch.tensor(np.random.default_rng(9).standard_normal(V**H))
    levels = tuple(log_normalize(z) for z in logits)
    (torch.exp(sequence_log_probs(levels)) @ reward).backward()
    p = tuple(level.detach().numpy() for level in levels)
    leaf = (*(np.zeros_like(x) for x in p[:-1]), reward.numpy().reshape(-1, V))
    for t, (d, q) in enumerate(zip(visit_log_probs(p), reverse_sums(leaf, p))):
        pi = np.exp(p[t])
        want = np.exp(d)[:, None] * pi * (q - np.sum(pi * q, axis=1, keepdims=True))
        np.testing.assert_allclose(logits[t].grad.numpy(), want, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sequence_log_probs((np.log([[0.5, 0.5]]), np.zeros((3, 2)))), r"levels\[1\].*shape"),
        (lambda: sequence_log_probs((np.zeros((1, 2)),)), "sum to"),
        (lambda: restrict(policy(0), (0, 1, 2)), "shorter"),
        (lambda: TokenTree(2, 2, [0.0, 1.0]), "2\\*\\*2"),
        (lambda: TokenTree(2, 1, [0.0, 1.0], eos=2), "eos"),
        (lambda: visit_log_probs([np.zeros((1, 2))]), "levels"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
