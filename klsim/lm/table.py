r"""The exact token-tree policy of a causal language model: every prefix evaluated.

With an alphabet of ``V`` token ids ``v_0 … v_{V-1}``, a prompt x and logits z of the model,

.. math:: \mathrm{levels}[t][s, a] = \log \frac{e^{z_{v_a}(x s)/\tau}}{\sum_b e^{z_{v_b}(x s)/\tau}},

natural logarithms, ``(V**t, V)``, prefixes s numbered as in `klsim.problems.token_tree`. This is the model's law
*conditioned on the alphabet at every token*; the probability that it gives to other tokens is dropped, and
`Table.omitted` says how much that is at worst.

Two enumerations: `tabulate` extends prefixes by one token at a time and re-uses the keys and values of their parents
(depth first, so that memory stays bounded); `tree_log_probs` runs the longest prefixes through the model in one call
and keeps the graph. Both switch dropout off while they run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer

from klsim import _validate
from klsim.problems.token_tree import tokens

__all__ = ["MAX_LEAVES", "Table", "evaluating", "tabulate", "tree_log_probs"]

MAX_LEAVES = 10**8
"""Sequences of the largest tree that is enumerated (800 MB of log-probabilities)."""


@dataclass(frozen=True)
class Table:
    """The policy of a model on the tree of its alphabet.

    Attributes:
        levels: ``levels[t]`` is ``(V**t, V)`` float64, natural-log probabilities, every row normalised.
        token_ids: of the alphabet, in the order of the last axis.
        omitted: largest probability of the tokens outside the alphabet, over the prefixes that were evaluated; 0 if the
            alphabet is the whole vocabulary.
        eos: place of the end token in the alphabet (`TokenTree.eos`); None if no token ends a response.
    """

    levels: tuple[np.ndarray, ...]
    token_ids: tuple[int, ...]
    omitted: float
    eos: int | None = None


@dataclass(frozen=True)
class _Request:
    """Validated arguments. ``whole``: the alphabet is the vocabulary, in order. ``open``: letters that end nothing."""

    prompt: torch.Tensor
    horizon: int
    token_ids: torch.Tensor
    whole: bool
    temperature: float
    eos: int | None
    open: torch.Tensor

    @property
    def vocab(self) -> int:
        return len(self.token_ids)

    def absorbing_row(self) -> torch.Tensor:
        """What follows the end token (anything, without one: every row will be overwritten)."""
        row = torch.full((self.vocab,), -math.inf, dtype=torch.float64)
        row[0 if self.eos is None else self.eos] = 0.0
        return row

    def log_probs(self, logits: torch.Tensor, level: int, nodes: torch.Tensor) -> torch.Tensor:
        """``(n, V)`` float64 of the rows of logits that belong to ``nodes`` of a level."""
        kept = logits if self.whole else logits[:, self.token_ids.to(logits.device)]
        log_p = torch.log_softmax(kept.double() / self.temperature, dim=-1)
        broken = torch.isnan(log_p).any(dim=-1)
        if bool(broken.any()):
            row = int(broken.nonzero()[0])
            prefix = self._prefix(level, int(nodes[row]))
            rule = "are NaN or infinite" if bool(torch.isnan(kept[row]).any() | (kept[row] == math.inf).any()) else (
                "give every token of the alphabet probability 0")  # fmt: skip
            raise ValueError(f"model: its logits {rule} after the prompt and tokens {prefix}")
        return log_p

    def omitted(self, logits: torch.Tensor) -> float:
        """Largest probability outside the alphabet in some rows of logits."""
        if self.whole:
            return 0.0
        scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        total = torch.logsumexp(scaled, dim=-1)
        outside = scaled.index_fill(-1, self.token_ids.to(logits.device), -math.inf).logsumexp(dim=-1)
        return float(torch.exp(outside - total).max())

    def _prefix(self, level: int, node: int) -> list[int]:
        places = [node // self.vocab ** (level - 1 - t) % self.vocab for t in range(level)]
        return [int(self.token_ids[a]) for a in places]


def _ids(name: str, value: Any, size: int) -> torch.Tensor:
    ids = _validate.integers(name, value.tolist() if isinstance(value, torch.Tensor) else value)
    if ids.ndim != 1 or not ids.size:
        _validate.fail(name, f"must be a list of at least one token id, got shape {ids.shape}")
    _validate.integers(name, ids, low=0, high=size - 1)
    return torch.as_tensor(ids)


def _request(model: Any, prompt_ids: Any, horizon: int, vocab: Any, temperature: float, eos: int | None) -> _Request:
    size = int(model.get_input_embeddings().weight.shape[0])
    prompt = _ids("prompt_ids", prompt_ids, size)
    token_ids = torch.arange(size) if vocab is None else _ids("vocab", vocab, size)
    if len(set(token_ids.tolist())) < len(token_ids):
        _validate.fail("vocab", f"must name every token once, got {token_ids.tolist()}")
    horizon = _validate.integer("horizon", horizon, low=1)
    if horizon * math.log(len(token_ids)) > math.log(MAX_LEAVES) + 1e-9:
        _validate.fail("horizon", f"{len(token_ids)}**{horizon} sequences are more than {MAX_LEAVES:,}", horizon)
    temperature = _validate.real("temperature", temperature, low=0.0, high=1e300, open_low=True)
    place, letters = None, torch.arange(len(token_ids))
    if eos is not None:
        eos = _validate.integer("eos", eos, low=0, high=size - 1)
        if eos not in token_ids or len(token_ids) < 2:
            _validate.fail("eos", "must be a token of the alphabet, and not its only one", eos)
        place = int((token_ids == eos).nonzero()[0])
        letters = letters[letters != place]
    whole = bool(torch.equal(token_ids, torch.arange(size)))
    return _Request(prompt, horizon, token_ids, whole, temperature, place, letters)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout, put back as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _cache_of(output: Any) -> tuple[str, Any]:
    """``(argument, cache)``: transformers renames ``past_key_values`` to ``cache`` in version 5."""
    for name in ("cache", "past_key_values"):
        if name in output and hasattr(output[name], "batch_select_indices"):
            return name, output[name]
    raise TypeError("model: must return a transformers Cache of keys and values when called with use_cache=True")


def _branch(cache: Any, rows: torch.Tensor) -> Any:
    """A new cache whose i-th entry is a copy of entry ``rows[i]``."""
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer):
            kind = type(layer).__name__
            raise TypeError(f"model: its cache holds a {kind}, not keys and values (tree_log_probs needs no cache)")
    out = copy.copy(cache)
    # layers replace their keys and values and never write to them
    out.layers = [copy.copy(layer) for layer in cache.layers]
    out.batch_select_indices(rows)
    return out


class _Walk:
    """Fills the levels, depth first."""

    def __init__(self, model: Any, request: _Request, batch_size: int) -> None:
        self.model, self.request, self.batch_size = model, request, batch_size
        self.omitted = 0.0
        row = request.absorbing_row().numpy()
        self.levels = [np.tile(row, (request.vocab**t, 1)) for t in range(request.horizon)]

    def visit(self, level: int, nodes: torch.Tensor, output: Any) -> None:
        """Keep the rows of ``nodes``, whose last token the model has just read, and go on to their children."""
        ask = self.request
        logits = output.logits[:, -1]
        self.levels[level][nodes.numpy()] = ask.log_probs(logits, level, nodes).cpu().numpy()
        self.omitted = max(self.omitted, ask.omitted(logits))
        if level + 1 == ask.horizon:
            return
        name, cache = _cache_of(output)
        children = (nodes[:, None] * ask.vocab + ask.open).reshape(-1)
        parents = torch.arange(len(nodes)).repeat_interleave(len(ask.open))
        for start in range(0, len(children), self.batch_size):
            part, rows = children[start : start + self.batch_size], parents[start : start + self.batch_size]
            read = ask.token_ids[part % ask.vocab][:, None].to(logits.device)
            branch = {name: _branch(cache, rows.to(logits.device))}
            self.visit(level + 1, part, self.model(input_ids=read, use_cache=True, **branch))


def tabulate(
    model: Any,
    prompt_ids: Sequence[int],
    horizon: int,
    vocab: Sequence[int] | None = None,
    *,
    temperature: float = 1.0,
    batch_size: int = 2048,
    eos: int | None = None,
) -> Table:
    r"""The policy of a causal LM on all responses of ``horizon`` tokens, float64.

    Args:
        model: a transformers causal LM. prompt_ids: at least one token id. horizon: >= 1.
        vocab: the alphabet, distinct token ids (None: all of the model); the policy is renormalised on it.
        temperature: > 0, divides the logits. batch_size: prefixes that the model reads in one call; at most ``horizon``
            times as many are in memory.
        eos: token id of the alphabet; after it only ``eos`` follows, and prefixes that hold it are not evaluated.

    Raises:
        ValueError: ids outside the model's vocabulary, repeated, or none; ``horizon < 1``; more than `MAX_LEAVES`
            sequences; logits that are NaN, or leave the alphabet no probability (names the prefix).
        TypeError: a model without a key-value cache (recurrent or linear attention layers).
    """
    request = _request(model, prompt_ids, horizon, vocab, temperature, eos)
    walk = _Walk(model, request, _validate.integer("batch_size", batch_size, low=1))
    prompt = request.prompt[None].to(model.device)
    with evaluating(model), torch.no_grad():
        walk.visit(0, torch.zeros(1, dtype=torch.int64), model(input_ids=prompt, use_cache=True))
    return Table(tuple(walk.levels), tuple(request.token_ids.tolist()), walk.omitted, request.eos)


def tree_log_probs(
    model: Any,
    prompt_ids: Sequence[int],
    horizon: int,
    vocab: Sequence[int] | None = None,
    *,
    temperature: float = 1.0,
    eos: int | None = None,
) -> tuple[torch.Tensor, ...]:
    r"""`tabulate` as float64 tensors that gradients flow through, from one call of the model.

    The call holds ``V**(H-1)`` rows of prompt and prefix: for trees that fit into memory. Arguments and errors as
    `tabulate`.
    """
    request = _request(model, prompt_ids, horizon, vocab, temperature, eos)
    ask, steps = request, request.horizon - 1
    words = torch.as_tensor(tokens(ask.vocab, steps)) if steps else torch.zeros((1, 0), dtype=torch.int64)
    numbers = torch.arange(len(words))
    if ask.eos is not None:
        going = (words != ask.eos).all(dim=1)
        words, numbers = words[going], numbers[going]
    read = torch.cat([ask.prompt.expand(len(words), -1), ask.token_ids[words]], dim=1).to(model.device)
    with evaluating(model):
        logits = model(input_ids=read, use_cache=False).logits[:, len(ask.prompt) - 1 :]
    levels = []
    for t in range(ask.horizon):
        nodes, first = np.unique(numbers.numpy() // ask.vocab ** (steps - t), return_index=True)
        live = torch.as_tensor(nodes)
        rows = ask.log_probs(logits[torch.as_tensor(first).to(logits.device), t], t, live)
        level = ask.absorbing_row().to(rows.device).repeat(ask.vocab**t, 1)
        levels.append(level.index_copy(0, live.to(rows.device), rows))
    return tuple(levels)
