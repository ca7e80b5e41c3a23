"""Exact decoding of many masked-diffusion models at once: worked values, the one-model enumeration, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import entropy, log_normalize
from klsim.problems.decoding import decode_conditionals, decode_joint, order_log_likelihood, state_marginals
from klsim.problems.masked_diffusion import MaskedDiffusionLM, from_joint, output_law

JOINT = np.log([0.45, 0.15, 0.10, 0.30])
RULES = ("left_to_right", "random", "entropy", "top_prob", "confidence", (2, 0, 1))


def conditionals(seed, vocab=3, length=3, lead=()):
    rng = np.random.default_rng(seed)
    return log_normalize(rng.standard_normal((*lead, (vocab + 1) ** length, length, vocab)))


@pytest.mark.parametrize(
    ("rule", "law", "entropies"),
    [
        ("left_to_right", [0.45, 0.15, 0.1, 0.3], [0.673012, 0.562335]),
        ("entropy", [0.45, 0.15, 0.1, 0.3], [0.673012, 0.562335]),
        ("random", [0.45, 0.15, 0.1, 0.3], [0.610110, 0.625237]),
        ("confidence", [0.63, 0.21, 0.04, 0.12], [0.622690, 0.612657]),
    ],
)
def test_two_tokens(rule, law, entropies):
    found = decode_joint(JOINT, 2, 2, rule)
    assert np.allclose(found.law, law, atol=5e-7)
    assert np.allclose(found.entropy, entropies, atol=5e-7)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("temperature", "block"), [(1.0, None), (0.6, 2), (1.7, 1), (0.05, 3)])
def test_as_the_enumeration_of_one_model(rule, temperature, block):
    model = conditionals(0)
    found = decode_conditionals(model, rule, temperature=temperature, block=block).law
    known = np.exp(output_law(MaskedDiffusionLM(model), rule, temperature=temperature, block=block))
    assert np.allclose(found, known, atol=1e-13)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("temperature", [0.6, 0.002])
def test_a_joint_is_decoded_like_its_conditionals(rule, temperature):
    joint = log_normalize(4 * np.random.default_rng(1).standard_normal(27))
    one = decode_joint(joint, 3, 3, rule, temperature=temperature)
    other = decode_conditionals(from_joint(joint, 3, 3).log_prob, rule, temperature=temperature)
    assert np.allclose(one.law, other.law, atol=1e-12)
    assert np.allclose(one.entropy, other.entropy, atol=1e-12)


def test_leading_axes_are_a_batch():
    models = conditionals(2, lead=(2, 3))
    together = decode_conditionals(models, "confidence", temperature=0.6)
    assert together.law.shape == (2, 3, 27)
    assert together.entropy.shape == (2, 3, 3)
    assert np.array_equal(together.law[1, 2], decode_conditionals(models[1, 2], "confidence", temperature=0.6).law)


def test_scores_are_any_rule_that_looks_at_visible_tokens():
    rng = np.random.default_rng(3)
    joints = log_normalize(rng.standard_normal((2, 27)))
    found = decode_joint(joints, 3, 3, rng.random((2, 64, 3)))
    assert np.allclose(found.law, np.exp(joints))
    assert np.allclose(found.entropy.sum(axis=-1), entropy(joints))
    ranks = np.broadcast_to([1.0, 2.0, 0.0], (64, 3))
    model = conditionals(4)
    assert np.array_equal(decode_conditionals(model, ranks).law, decode_conditionals(model, (2, 0, 1)).law)


def test_likelihood_along_an_order():
    model = conditionals(5)
    for order in ((0, 1, 2), (2, 0, 1)):
        assert np.allclose(np.exp(order_log_likelihood(model, order)), decode_conditionals(model, order).law)
    assert np.array_equal(order_log_likelihood(model), order_log_likelihood(model, (0, 1, 2)))


def test_marginals():
    found = state_marginals(JOINT, 2, 2)
    assert np.allclose(found, [0.45, 0.15, 0.6, 0.1, 0.3, 0.4, 0.55, 0.45, 1.0])


def test_states_that_cannot_occur():
    law = decode_joint(np.array([0.0, -np.inf, -np.inf, -np.inf]), 2, 2, "confidence", temperature=0.5)
    assert np.array_equal(law.law, [1, 0, 0, 0])
    assert np.array_equal(law.entropy, [0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decode_joint(JOINT, 2, 3), "log_joint"),
        (lambda: decode_joint(JOINT, 2, 2, "best"), "rule"),
        (lambda: decode_joint(JOINT, 2, 2, (0, 0)), "rule"),
        (lambda: decode_joint(JOINT, 2, 2, np.zeros((3, 2))), "rule"),
        (lambda: decode_joint(JOINT, 2, 2, np.zeros((5, 9, 2))), "rule"),
        (lambda: decode_joint(JOINT, 2, 2, temperature=0.0), "temperature"),
        (lambda: decode_joint(JOINT, 2, 2, block=3), "block"),
        (lambda: decode_joint(JOINT, 2, 100), "length"),
        (lambda: decode_conditionals(np.zeros((9, 2, 2))), "log_prob"),
        (lambda: decode_conditionals(conditionals(0)[:5]), "log_prob"),
        (lambda: order_log_likelihood(conditionals(0), (0, 1, 1)), "order"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_models_of_more_than_a_million_states_are_refused():
    with pytest.raises(ValueError, match=r"2\*\*20 states is too large"):
        state_marginals(np.zeros(1), 1, 20)
