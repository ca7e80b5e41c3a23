"""Language models and their tokenizers: small new ones for tests and experiments, pretrained ones, checkpoints.

What `klsim.lm.checkpoints` loads and saves and what `klsim.lm.pretrained` finds by name is exported from here, too.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import decoders as token_decoders
from tokenizers import models as token_models
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from klsim import _validate
from klsim.lm.checkpoints import check_same_vocabulary, load_model, load_tokenizer, save_checkpoint
from klsim.lm.pretrained import Pretrained, checkpoint_of, pretrained

__all__ = [
    "ARCHITECTURES",
    "Pretrained",
    "character_tokenizer",
    "check_characters",
    "check_same_vocabulary",
    "checkpoint_of",
    "load_model",
    "load_tokenizer",
    "pretrained",
    "save_checkpoint",
    "tiny_model",
]

ARCHITECTURES: dict[str, Any] = {"qwen2": Qwen2Config, "llama": LlamaConfig}
"""Configurations of transformers by the name of the architecture."""
SPECIAL = ("<pad>", "<bos>", "<|endoftext|>")
"""Pad, bos and eos. The last has Qwen's name, because `transformers` adds a token of that name to Qwen models."""


def character_tokenizer(alphabet: str) -> PreTrainedTokenizerBase:
    """One token a character: ids 0, 1, 2 are pad, bos and eos, then the characters in the order of ``alphabet``.

    ``decode(encode(x)) == x`` for every text over the alphabet, spaces included; nothing is added to a text, pads go to
    the left. There is no token for unknown characters: see `check_characters`.

    Raises:
        ValueError: an empty alphabet, a character twice, or one that is not ASCII.
    """
    if not isinstance(alphabet, str) or not alphabet:
        _validate.fail("alphabet", "must be a string of at least one character", alphabet)
    for i, character in enumerate(alphabet):
        if not character.isascii():
            _validate.fail("alphabet", "must be ASCII", character, (i,))
        if character in alphabet[:i]:
            _validate.fail("alphabet", "occurs twice", character, (i,))
    # byte-level BPE without merges: AutoTokenizer rebuilds the tokenizer of a qwen2 folder as Qwen's, which keeps only
    # vocabulary and merges
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = [byte_level.pre_tokenize_str(character)[0][0] for character in alphabet]
    made = Tokenizer(token_models.BPE({token: i for i, token in enumerate([*SPECIAL, *symbols])}, []))
    made.pre_tokenizer = byte_level
    made.decoder = token_decoders.ByteLevel()
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, pad_token=pad, bos_token=bos, eos_token=eos, padding_side="left",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def check_characters(tokenizer: PreTrainedTokenizerBase, texts: list[str], name: str = "texts") -> None:
    """Every text survives ``decode(encode(text))``: a character tokenizer drops characters that it does not know.

    Raises:
        ValueError: names the first text that does not.
    """
    for i, text in enumerate(texts):
        if tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) != text:
            _validate.fail(name, "has characters that the tokenizer has no token for", text, (i,))


def tiny_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    architecture: str = "qwen2",
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
    context: int = 1024,
) -> PreTrainedModel:
    """A new causal language model over the tokenizer's vocabulary, float32; the same weights for the same ``seed``.

    The global random state is left as it was.

    Args:
        architecture: ``"qwen2"`` or ``"llama"``.
        hidden: width, a multiple of ``2 heads`` (rotary embeddings turn pairs). context: longest sequence.

    Raises:
        ValueError: sizes that do not fit, an unknown architecture.
    """
    _validate.one_of("architecture", architecture, tuple(ARCHITECTURES))
    for name, size in (("hidden", hidden), ("layers", layers), ("heads", heads), ("context", context)):
        _validate.integer(name, size, low=1)
    _validate.integer("seed", seed, low=0)
    if hidden % (2 * heads):
        _validate.fail("hidden", f"must be a multiple of 2 heads = {2 * heads}", hidden)
    config = ARCHITECTURES[architecture](
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=-(-8 * hidden // 3 // 8) * 8,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32
        )
    model: PreTrainedModel = made.eval()
    return model
