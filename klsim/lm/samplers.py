r"""A causal language model as a law over token sequences, for the samplers of `klsim.sequence_samplers`.

The samplers ask for next-token log-probabilities of prefixes; a tree gives them from its rows and a model from its
logits, so what runs on a model is what was checked on trees::

    law = next_token_law(model, prompt_ids, letters, eos=eos)
    smc(law, power_weight(4.0), horizon=32, n=16, size=8, rng=0)

Prefixes that occur several times (particles after resampling) are evaluated once. Every call reads whole prefixes: a
sequence of H tokens costs H passes over up to H tokens, without a cache of keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from klsim import _validate
from klsim.lm.log_probs import vocab_log_probs
from klsim.lm.table import evaluating
from klsim.sequence_samplers import Law

__all__ = ["next_token_law"]


def next_token_law(
    model: Any,
    prompt_ids: Sequence[int],
    vocab: Sequence[int] | None = None,
    *,
    temperature: float = 1.0,
    batch_size: int = 256,
    eos: int | None = None,
) -> Law:
    """Prefixes ``(B, t)`` of places in an alphabet to log-probabilities ``(B, V)``, float64, after a prompt.

    Args:
        model: a causal LM of transformers, any head; dropout is switched off while it runs. prompt_ids: at least one.
        vocab: the alphabet, distinct token ids (None: all of the model); the law is renormalised on it.
        temperature: divides the logits, > 0. batch_size: prefixes in one call of the model.
        eos: token id of the alphabet; after it only ``eos`` follows.

    The same law as `klsim.lm.table.tabulate` enumerates.

    Raises:
        TypeError: not a causal LM. ValueError: ids outside the vocabulary, repeated, or none; an ``eos`` outside the
            alphabet; logits that are not finite (when the law is asked).
    """
    size = int(model.get_input_embeddings().weight.shape[0])
    prompt = _ids("prompt_ids", prompt_ids, size)
    letters = np.arange(size) if vocab is None else _ids("vocab", vocab, size)
    if len(np.unique(letters)) < len(letters):
        _validate.fail("vocab", f"must name every token once, got {letters.tolist()}")
    temperature = _validate.real("temperature", temperature, low=0.0, high=1e300, open_low=True)
    batch_size = _validate.integer("batch_size", batch_size, low=1)
    place = -1
    if eos is not None:
        eos = _validate.integer("eos", eos, low=0, high=size - 1)
        if eos not in letters:
            _validate.fail("eos", "must be a token of the alphabet", eos)
        place = int(np.flatnonzero(letters == eos)[0])

    def law(prefix: np.ndarray) -> np.ndarray:
        distinct, where = np.unique(prefix, axis=0, return_inverse=True)
        out = np.full((len(distinct), len(letters)), -math.inf)
        ended = (distinct == place).any(axis=1)
        out[ended, place] = 0.0
        running = np.flatnonzero(~ended)
        with evaluating(model), torch.no_grad():
            for start in range(0, len(running), batch_size):
                rows = running[start : start + batch_size]
                out[rows] = _rows(model, prompt, letters[distinct[rows]], letters, temperature)
        return np.asarray(out[np.reshape(where, -1)])

    return law


def _ids(name: str, value: Any, size: int) -> np.ndarray:
    if not np.size(value):
        _validate.fail(name, "must be a list of at least one token id")
    ids = _validate.integers(name, value, low=0, high=size - 1)
    if ids.ndim != 1:
        _validate.fail(name, f"must be a list of token ids, got shape {ids.shape}")
    return ids


def _rows(model: Any, prompt: np.ndarray, words: np.ndarray, letters: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities of the letters after the prompt and some words of one length."""
    read = np.concatenate([np.tile(prompt, (len(words), 1)), words, np.tile(prompt[:1], (len(words), 1))], axis=1)
    # the last token is not read: it stands for the one that is predicted
    found = vocab_log_probs(model, torch.as_tensor(read).to(model.device), None, completion=1, temperature=temperature)
    kept = found[:, 0, torch.as_tensor(letters).to(found.device)].double()
    return np.asarray(torch.log_softmax(kept, dim=-1).cpu().numpy())
