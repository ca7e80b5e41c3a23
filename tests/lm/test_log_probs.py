"""Token log-probabilities of tiny models against log_softmax of their own logits."""

import math

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from klsim.lm.log_probs import token_log_probs, vocab_log_probs

VOCAB, LENGTH, COMPLETION = 23, 9, 4
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    # large enough for entropies that differ
    "initializer_range": 0.3,
}  # fmt: skip
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
                   bos_token_id=1, eos_token_id=2)
    ),
}  # fmt: skip


def built(name):
    torch.manual_seed(0)
    return MODELS[name]().double().eval()


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return built(request.param)


@pytest.fixture(scope="module")
def llama():
    return built("llama")


def ids(rows=3, length=LENGTH):
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


def naive(model, input_ids, temperature=1.0, completion=COMPLETION):
    """Log-softmax ``[B, C, V]`` and what is read off it, of rows without padding."""
    log_pi = (model(input_ids=input_ids).logits[:, -completion - 1 : -1] / temperature).log_softmax(-1)
    chosen = log_pi.gather(-1, input_ids[:, -completion:, None])[..., 0]
    return log_pi, chosen, -(log_pi.exp() * log_pi).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_without_padding(model, temperature):
    log_pi, chosen, entropy = naive(model, ids(), temperature)
    ours = token_log_probs(model, ids(), None, completion=COMPLETION, temperature=temperature, chunk=5)
    torch.testing.assert_close(ours.log_probs, chosen)
    torch.testing.assert_close(ours.entropy, entropy)
    whole = vocab_log_probs(model, ids(), torch.ones_like(ids()), completion=COMPLETION, temperature=temperature)
    torch.testing.assert_close(whole, log_pi)


def test_gradients(model):
    weights = torch.randn(2, 3, COMPLETION, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss(log_probs, entropy):
        return (weights[0] * log_probs + weights[1] * entropy).sum()

    ours = token_log_probs(model, ids(), None, completion=COMPLETION, temperature=0.7, chunk=2)
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss(ours.log_probs, ours.entropy), parameters)
    expected = torch.autograd.grad(loss(*naive(model, ids(), 0.7)[1:]), parameters)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_changes_nothing(model, side):
    """Rows of lengths 9, 6 and 7 as one batch, and alone."""
    lengths = [LENGTH, 6, 7]
    rows = [ids(1, n)[0] for n in lengths]
    prompts, responses = [r[:-COMPLETION] for r in rows], [r[-COMPLETION:] for r in rows]
    expected = [naive(model, r[None])[1:] for r in rows]
    width = LENGTH + (3 if side == "both" else 0)
    batch, mask = torch.zeros(3, width, dtype=torch.int64), torch.zeros(3, width, dtype=torch.int64)
    columns = []
    for i, (prompt, response) in enumerate(zip(prompts, responses)):
        start = {"left": width - lengths[i], "right": 0, "both": LENGTH - lengths[i]}[side]
        stop = start + lengths[i]
        batch[i, start:stop] = torch.cat([prompt, response])
        mask[i, start:stop] = 1
        columns.append((stop - COMPLETION, stop))
    completion = width - min(start for start, _ in columns)
    ours = token_log_probs(model, batch, mask, completion=completion)
    whole = vocab_log_probs(model, batch, mask, completion=completion)
    for i, (start, stop) in enumerate(columns):
        here = slice(start - width + completion, stop - width + completion)
        for found, value in zip((ours.log_probs[i, here], ours.entropy[i, here]), expected[i]):
            torch.testing.assert_close(found, value[0])
        chosen = whole[i, here].gather(-1, batch[i, start:stop, None])[:, 0]
        torch.testing.assert_close(chosen, expected[i][0][0])
    padding = mask[:, -completion:] == 0
    assert (ours.log_probs[padding] == 0).all()
    assert (ours.entropy[padding] == 0).all()
    torch.testing.assert_close(whole[padding], torch.full_like(whole[padding], -math.log(VOCAB)))


def test_padding_may_hold_anything_and_has_no_gradient(llama):
    mask = torch.ones(3, LENGTH, dtype=torch.int64)
    mask[1, :3] = 0
    mask[2, -2:] = 0
    other = ids().masked_fill(mask == 0, -100)
    a = token_log_probs(llama, ids(), mask, completion=COMPLETION)
    b = token_log_probs(llama, other, mask.bool(), completion=COMPLETION)
    torch.testing.assert_close(a.log_probs, b.log_probs)
    a.log_probs.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in llama.parameters())
    llama.zero_grad()


def test_lower_precision(model):
    """The backbone runs in bfloat16; head and softmax are exact on its hidden states, in float32."""
    torch.manual_seed(0)
    low = type(model)(model.config).bfloat16().eval()
    ours = token_log_probs(low, ids(), None, completion=COMPLETION)
    assert ours.log_probs.dtype == torch.float32
    hidden = low.base_model(input_ids=ids(), use_cache=False).last_hidden_state[:, -COMPLETION - 1 : -1]
    log_pi = (hidden.double() @ low.get_output_embeddings().weight.double().T).log_softmax(-1)
    exact = log_pi.gather(-1, ids()[:, -COMPLETION:, None])[..., 0]
    # logits of 16 products, rounded once each: errors of some eps times their size
    torch.testing.assert_close(ours.log_probs.double(), exact, rtol=1e-5, atol=1e-5)
    ours.log_probs.sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 for p in low.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=30.0)),
        lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.0625)),
    ],
    ids=["soft cap", "scale"],
)
def test_heads_that_are_not_plain_are_refused(build):
    torch.manual_seed(0)
    model = build().double().eval()
    with pytest.raises(ValueError, match="are not its head applied to its backbone"):
        token_log_probs(model, ids(), None, completion=COMPLETION)
    ours = vocab_log_probs(model, ids(), None, completion=COMPLETION)
    torch.testing.assert_close(ours, naive(model, ids())[0])


def test_a_wrapped_head_is_refused(llama):
    class Adapted(torch.nn.Linear):
        pass

    torch.manual_seed(0)
    model = MODELS["llama"]()
    model.set_output_embeddings(Adapted(16, VOCAB, bias=False))
    with pytest.raises(ValueError, match="has Adapted; use vocab_log_probs"):
        token_log_probs(model, ids(), None, completion=COMPLETION)


def test_looking_at_the_head_leaves_no_trace():
    """Neither hooks nor random numbers: dropout draws the same."""
    torch.manual_seed(0)
    model = MODELS["gpt2"]().train()
    torch.manual_seed(3)
    first = token_log_probs(model, ids(), None, completion=COMPLETION).log_probs
    torch.manual_seed(3)
    second = token_log_probs(model, ids(), None, completion=COMPLETION).log_probs
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not model.base_model._forward_hooks


@pytest.mark.parametrize("call", [token_log_probs, vocab_log_probs])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_inf_are_named(llama, call, value):
    def spoil(_module, _inputs, output):
        output.last_hidden_state = output.last_hidden_state.index_put(
            (torch.tensor(1), torch.tensor(6)), torch.tensor(value).double()
        )
        return output

    call(llama, ids(), None, completion=COMPLETION)
    hook = llama.base_model.register_forward_hook(spoil)
    try:
        with pytest.raises(ValueError, match=r"model\[1, 7\]: the (hidden states|logits) before this token"):
            call(llama, ids(), None, completion=COMPLETION)
        assert call(llama, ids(), zeros_at((1, slice(6, 9))), completion=COMPLETION) is not None
    finally:
        hook.remove()


def zeros_at(*places):
    mask = torch.ones(3, LENGTH, dtype=torch.int64)
    for place in places:
        mask[place] = 0
    return mask


@pytest.mark.parametrize("call", [token_log_probs, vocab_log_probs])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"input_ids": ids().double()}, TypeError, "input_ids: must be a tensor of integers, got torch.float64"),
        ({"input_ids": ids().tolist()}, TypeError, "input_ids: must be a tensor of integers, got list"),
        ({"input_ids": ids()[0]}, ValueError, r"input_ids: needs shape \[B, T\]"),
        ({"input_ids": ids()[:0]}, ValueError, r"input_ids: needs shape \[B, T\]"),
        ({"input_ids": ids() + VOCAB - 3}, ValueError, r"input_ids\[0, 0\] = \d+: must be 0 … 22"),
        ({"input_ids": ids() - 30}, ValueError, r"input_ids\[0, 0\] = -\d+: must be 0 … 22"),
        ({"attention_mask": zeros_at()[:2]}, ValueError, r"attention_mask: must have shape \[3, 9\], got \[2, 9\]"),
        ({"attention_mask": zeros_at() * 2}, ValueError, r"attention_mask\[0, 0\] = 2.0: must be 0 or 1"),
        ({"attention_mask": zeros_at().tolist()}, TypeError, "attention_mask: must be a tensor"),
        ({"attention_mask": zeros_at(1)}, ValueError, r"attention_mask\[1\]: this row has no token"),
        ({"attention_mask": zeros_at((1, slice(0, 6)))}, ValueError, r"attention_mask\[1, 6\]: this token has nothing before it"),
        ({"completion": 0}, ValueError, "completion = 0: must be >= 1"),
        ({"completion": LENGTH}, ValueError, "completion = 9: must be <= 8"),
        ({"completion": 2.0}, TypeError, "completion = 2.0"),
        ({"temperature": 0.0}, ValueError, "temperature = 0.0"),
        ({"temperature": -1.0}, ValueError, "temperature = -1.0"),
        ({"temperature": math.inf}, ValueError, "temperature = inf"),
        ({"temperature": math.nan}, ValueError, "temperature = nan"),
        ({"model": torch.nn.Linear(2, 2)}, TypeError, "model: must be a causal language model of transformers, got Linear"),
        ({"model": "llama"}, TypeError, "model: must be a causal language model"),
    ],
)  # fmt: skip
def test_malformed_input(llama, call, changes, error, message):
    given = {"model": llama, "input_ids": ids(), "attention_mask": None, "completion": COMPLETION} | changes
    with pytest.raises(error, match=message):
        call(given.pop("model"), given.pop("input_ids"), given.pop("attention_mask"), **given)


def test_no_completion_token_in_one_row(llama):
    """Its values are 0; the others are as without it."""
    mask = zeros_at((2, slice(LENGTH - COMPLETION, LENGTH)))
    ours = token_log_probs(llama, ids(), mask, completion=COMPLETION)
    assert (ours.log_probs[2] == 0).all()
    torch.testing.assert_close(ours.log_probs[:2], naive(llama, ids())[1][:2])
