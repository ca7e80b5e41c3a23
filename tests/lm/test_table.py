"""A model's policy on a token tree against one full forward pass a prefix."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from klsim.lm import table
from klsim.lm.table import tabulate, tree_log_probs
from klsim.problems.token_tree import end_after_eos, sequence_log_probs

SIZE = 7
SHAPE = {"vocab_size": SIZE, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
         "initializer_range": 0.4}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def qwen2(dtype=torch.float64, **options):
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**(SHAPE | options))).to(dtype).eval()


def gpt2():
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=SIZE, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.4)
    return GPT2LMHeadModel(config).double().eval()


def sliding():
    torch.manual_seed(2)
    return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=2)).double()


def by_hand(model, prompt, horizon, letters, temperature=1.0):
    """One call of the model for every prefix."""
    model.eval()
    levels = []
    for t in range(horizon):
        rows = []
        for prefix in itertools.product(letters, repeat=t):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *prefix]]), use_cache=False).logits[0, -1]
            rows.append(torch.log_softmax(logits[list(letters)].double() / temperature, dim=-1).numpy())
        levels.append(np.stack(rows))
    return levels


def largest_difference(one, two):
    return max(float(np.abs(np.exp(np.asarray(a)) - np.exp(np.asarray(b))).max()) for a, b in zip(one, two))


@pytest.mark.parametrize("make", [qwen2, gpt2, sliding])
@pytest.mark.parametrize("batch_size", [5, 2048])
def test_cached_and_whole_tree_passes_equal_one_pass_a_prefix(make, batch_size):
    model, prompt, letters = make(), [3, 0, 6], (1, 4, 2)
    expected = by_hand(model, prompt, 4, letters)
    found = tabulate(model, prompt, 4, letters, batch_size=batch_size)
    assert [x.shape for x in found.levels] == [(3**t, 3) for t in range(4)]
    assert found.token_ids == letters
    assert found.eos is None
    assert largest_difference(found.levels, expected) < 1e-12
    whole = [x.detach() for x in tree_log_probs(model, prompt, 4, letters)]
    assert largest_difference(whole, expected) < 1e-12


def test_float32_errs_as_little_as_full_passes():
    exact = by_hand(qwen2(), [3, 0], 3, range(SIZE))
    model = qwen2(torch.float32)
    rounding = largest_difference(by_hand(model, [3, 0], 3, range(SIZE)), exact)
    assert 0 < rounding < 1e-5
    # another order of the same float32 sums: of the size of the rounding itself
    assert largest_difference(tabulate(model, [3, 0], 3).levels, exact) < 4 * rounding


def test_all_tokens_are_the_default_alphabet():
    found = tabulate(qwen2(), [1], 2)
    assert found.token_ids == tuple(range(SIZE))
    assert found.omitted == 0
    assert largest_difference(found.levels, by_hand(qwen2(), [1], 2, range(SIZE))) < 1e-12


def test_an_alphabet_conditions_at_every_token_and_reports_what_it_omits():
    model, letters = qwen2(), (5, 1)
    full = by_hand(model, [2], 2, range(SIZE))
    kept = [np.exp(full[0][0, [5, 1]])] + [np.exp(full[1][a, [5, 1]]) for a in letters]
    found = tabulate(model, [2], 2, letters)
    assert found.omitted == pytest.approx(max(1 - k.sum() for k in kept), abs=1e-12)
    np.testing.assert_allclose(np.exp(found.levels[0][0]), kept[0] / kept[0].sum(), rtol=1e-10)
    np.testing.assert_allclose(np.exp(found.levels[1]), [k / k.sum() for k in kept[1:]], rtol=1e-10)


def test_temperature_divides_the_logits():
    expected = by_hand(qwen2(), [2], 3, (5, 1), temperature=0.7)
    assert largest_difference(tabulate(qwen2(), [2], 3, (5, 1), temperature=0.7).levels, expected) < 1e-12


def test_nothing_is_evaluated_after_eos():
    model, letters = qwen2(), (5, 1, 3)
    seen = []
    model.register_forward_pre_hook(lambda *a: seen.append(a[2]["input_ids"]), with_kwargs=True)
    found = tabulate(model, [2, 0], 4, letters, eos=1)
    # the prompt, then 2**t prefixes without the end token
    assert sum(x.shape[0] for x in seen) == 1 + 2 + 4 + 8
    assert all((x != 1).all() for x in seen[1:])
    expected = end_after_eos(tuple(by_hand(model, [2, 0], 4, letters)), 1)
    assert found.eos == 1
    assert largest_difference(found.levels, expected) < 1e-12
    whole = tree_log_probs(model, [2, 0], 4, letters, eos=1)
    assert largest_difference([x.detach() for x in whole], expected) < 1e-12


def test_gradients_are_those_of_the_model_s_own_likelihood():
    model, word = gpt2(), [4, 0, 2]
    total = sequence_log_probs(tree_log_probs(model.eval(), [1, 5], 3, range(5)))[4 * 25 + 0 * 5 + 2]
    found = torch.autograd.grad(total, list(model.parameters()))
    logits = model(input_ids=torch.tensor([[1, 5, *word[:-1]]])).logits[0, 1:, :5]
    own = torch.log_softmax(logits, dim=-1)[torch.arange(3), word].sum()
    for a, b in zip(found, torch.autograd.grad(own, list(model.parameters()))):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_dropout_is_off_and_the_mode_is_put_back():
    model = qwen2(attention_dropout=0.5)
    expected = tabulate(model, [1], 3).levels
    model.train()
    assert largest_difference(tabulate(model, [1], 3).levels, expected) == 0
    assert largest_difference([x.detach() for x in tree_log_probs(model, [1], 3)], expected) < 1e-12
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("enumerate_tree", [tabulate, tree_log_probs])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, r"horizon = 0: must be >= 1"),
        ({"prompt_ids": [SIZE]}, rf"prompt_ids\[0\] = {SIZE}: must be <= {SIZE - 1}"),
        ({"prompt_ids": []}, "prompt_ids: must be a list of at least one token id|prompt_ids: must be a NumPy"),
        ({"vocab": [1, -1]}, r"vocab\[1\] = -1: must be >= 0"),
        ({"vocab": [1, 1]}, "vocab: must name every token once"),
        ({"vocab": [1, 2], "eos": 3}, "eos = 3: must be a token of the alphabet"),
        ({"vocab": [1], "eos": 1}, "not its only one"),
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"horizon": 10}, r"horizon = 10: 7\*\*10 sequences are more than 100,000,000"),
    ],
)
def test_errors_name_the_argument_and_the_rule(enumerate_tree, changes, message):
    arguments = {"prompt_ids": [1], "horizon": 2} | changes
    with pytest.raises((ValueError, TypeError), match=message):
        enumerate_tree(qwen2(), **arguments)


@pytest.mark.parametrize("enumerate_tree", [tabulate, tree_log_probs])
def test_broken_logits_are_named_by_their_prefix(enumerate_tree):
    model = qwen2()
    with torch.no_grad():
        model.get_input_embeddings().weight[4] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite after the prompt and tokens \[4\]"):
        enumerate_tree(model, [1], 3, (2, 4))


class Excluding(Qwen2ForCausalLM):
    """Gives the tokens 2 and 3 no probability after a 3."""

    def forward(self, input_ids, **options):
        output = super().forward(input_ids=input_ids, **options)
        output.logits[..., 2:4] = torch.where((input_ids == 3)[..., None], -torch.inf, output.logits[..., 2:4])
        return output


def test_an_alphabet_without_probability_is_named_by_its_prefix():
    torch.manual_seed(0)
    model = Excluding(Qwen2Config(**SHAPE)).double()
    assert np.isinf(tabulate(model, [1], 2, (1, 2, 3)).levels[1][2, 1:]).all()
    with pytest.raises(ValueError, match=r"no probability|probability 0 after the prompt and tokens \[3\]"):
        tabulate(model, [1], 2, (2, 3))


def test_a_model_without_a_cache_is_refused():
    model = qwen2()
    forward = model.forward

    def without(**options):
        return forward(**(options | {"use_cache": False}))

    model.forward = without
    with pytest.raises(TypeError, match="must return a transformers Cache"):
        tabulate(model, [1], 2)


def test_a_recurrent_state_is_no_cache_of_keys_and_values():
    with pytest.raises(TypeError, match=r"holds a SimpleNamespace.*tree_log_probs"):
        table._branch(SimpleNamespace(layers=[SimpleNamespace()]), torch.arange(2))
