"""The policy of a small transformer on every prefix: re-used keys and values against full forward passes."""

from __future__ import annotations

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from klsim.lm.table import tabulate
from klsim.problems.token_tree import tokens

BATCH = 2048


def language_model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def full_forward(model, prompt, horizon, vocab):
    """Every longest prefix once, from its first token; the rows of shorter prefixes are read off on the way."""
    words = torch.as_tensor(tokens(vocab, horizon - 1))
    levels = [np.empty((vocab**t, vocab)) for t in range(horizon)]
    start = torch.tensor(prompt)
    with torch.no_grad():
        for numbers in torch.arange(len(words)).split(BATCH):
            read = torch.cat([start.expand(len(numbers), -1), words[numbers]], dim=1)
            logits = model(input_ids=read, use_cache=False).logits[:, len(prompt) - 1 :, :vocab]
            log_p = torch.log_softmax(logits.double(), dim=-1).numpy()
            for t in range(horizon):
                levels[t][numbers // vocab ** (horizon - 1 - t)] = log_p[:, t]
    return levels


def cases():
    model = language_model()
    for vocab, horizon, length in ((10, 6, 1), (10, 6, 32), (100, 3, 32)):
        prompt = list(range(length))

        def ours(vocab=vocab, horizon=horizon, prompt=prompt):
            return tabulate(model, prompt, horizon, range(vocab), batch_size=BATCH).levels

        def peer(vocab=vocab, horizon=horizon, prompt=prompt):
            return full_forward(model, prompt, horizon, vocab)

        yield (
            f"policy of a two-layer transformer on 10^6 leaves, vocabulary {vocab}, prompt of {length} (difference: float32)",
            ours,
            "full forward passes",
            peer,
            lambda ours=ours, peer=peer: max(float(np.abs(a - b).max()) for a, b in zip(ours(), peer())),
        )
