"""Samplers on a language model: the same numbers as on its enumerated tree, and the laws of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from klsim.lm.models import character_tokenizer, tiny_model
from klsim.lm.samplers import next_token_law
from klsim.lm.table import tabulate
from klsim.problems.token_tree import sequence_log_probs
from klsim.selection_rules import weighted_choice
from klsim.sequence_samplers import (
    importance_resample,
    power_weight,
    smc,
    suffix_metropolis,
    tempered_proposal,
    tree_law,
)

PROMPT, LETTERS, EOS, HORIZON = [3, 0, 6], (1, 4, 2), 2, 3


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=7, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).double()


@pytest.fixture(scope="module")
def laws(model):
    levels = tabulate(model, PROMPT, HORIZON, LETTERS, temperature=0.7, eos=EOS).levels
    return levels, next_token_law(model, PROMPT, LETTERS, temperature=0.7, eos=EOS, batch_size=4)


def test_the_law_is_the_table(laws):
    levels, law = laws
    for t, level in enumerate(levels):
        prefixes = np.indices((3,) * t).reshape(t, -1).T if t else np.zeros((1, 0), dtype=int)
        np.testing.assert_allclose(np.exp(law(prefixes)), np.exp(level), atol=1e-12)


SAMPLERS = {
    "importance": lambda law, size: importance_resample(law, power_weight(3.0), HORIZON, 4, size, 5),
    "smc": lambda law, size: smc(law, power_weight(3.0), HORIZON, 4, size, 5),
    "smc, tempered": lambda law, size: smc(
        law, power_weight(3.0), HORIZON, 4, size, 5, proposal=tempered_proposal(2.0)
    ),
    "metropolis": lambda law, size: suffix_metropolis(law, power_weight(3.0), HORIZON, 3, size, 5),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_model_and_its_tree_give_the_same_samples(laws, name):
    levels, law = laws
    ours, theirs = SAMPLERS[name](law, 200), SAMPLERS[name](tree_law(levels), 200)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_allclose(ours.log_p, theirs.log_p, atol=1e-10)
    np.testing.assert_allclose(ours.log_weight, theirs.log_weight, atol=1e-10)


def test_samples_of_a_tiny_float32_model_have_their_law():
    tokenizer = character_tokenizer("ab")
    tiny = tiny_model(tokenizer, hidden=16, layers=1, heads=2, seed=3)
    letters, prompt = [2, 3, 4], [3, 4]
    log_p = sequence_log_probs(tabulate(tiny, prompt, 2, letters, eos=2).levels)
    found = importance_resample(next_token_law(tiny, prompt, letters, eos=2), power_weight(4.0), 2, 3, 20_000, 0)
    law = np.exp(weighted_choice(log_p, 3 * np.where(np.isfinite(log_p), log_p, 0.0), 3))
    share = np.bincount(found.tokens @ np.array([3, 1]), minlength=9) / 20_000
    # five standard deviations
    np.testing.assert_array_less(np.abs(share - law), 5 * np.sqrt(law * (1 - law) / 20_000) + 1e-4)


def test_dropout_is_off_while_it_runs(model):
    model.train()
    try:
        law = next_token_law(model, PROMPT, LETTERS)
        np.testing.assert_array_equal(law(np.array([[0]])), law(np.array([[0]])))
        assert model.training
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt_ids": []}, "prompt_ids: must be a list"),
        ({"prompt_ids": [9]}, r"prompt_ids\[0\] = 9"),
        ({"vocab": [1, 1]}, "vocab: must name every token once"),
        ({"eos": 5}, "eos = 5: must be a token of the alphabet"),
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_bad_input(model, options, words):
    with pytest.raises(ValueError, match=words):
        next_token_law(model, **({"prompt_ids": PROMPT, "vocab": LETTERS} | options))
